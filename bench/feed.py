"""How soon those who listen hear of a change: from the acknowledged commit to its event at the listener.

    python -m bench.feed                          200 listeners, 20 updates a second, 20 seconds
    python -m bench.feed --listeners 1000 --rate 5
    python -m bench.feed --write docs             also writes feed.json there

A server process, a process with all listeners, and a writer that edits one block after the other over HTTP. Each
listener is an agent with a token of its own; each block is read by the number of them that `--shared` says. The time
begins when the writer has its answer in hand, so an event that is there before counts as 0, and ends when the listener
has parsed the event. Both clocks are the machine's monotonic one.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import platform
import statistics
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from tallystone.server.run import serve
from tallystone.server.settings import Settings
from tallystone.vault import Workspace

WARM_UP = 2.0
"""Seconds of updates that do not count: caches fill, and verdicts on signatures are remembered."""
PATIENCE = 60
"""Seconds to wait for all listeners to be there, and for the last events."""


def _server(folder: str, ready: Connection) -> None:
    with Workspace.open(folder) as workspace:
        serve(workspace, Settings(port=0, log_level="error", check_every=0), ready.send)


def _listeners(url: str, tokens: list[str], pipe: Connection) -> None:
    asyncio.run(_listen_all(url, tokens, pipe))


async def _listen_all(url: str, tokens: list[str], pipe: Connection) -> None:
    heard: list[tuple[str, int, float]] = []
    there = asyncio.Semaphore(0)
    tasks = [asyncio.create_task(_listen(url, token, heard, there)) for token in tokens]
    for _ in tokens:
        await there.acquire()
    pipe.send(len(tokens))
    await asyncio.to_thread(pipe.recv)
    for task in tasks:
        task.cancel()
    pipe.send(heard)


async def _listen(url: str, token: str, heard: list[tuple[str, int, float]], there: asyncio.Semaphore) -> None:
    """One listener on a bare socket: what is measured is the server, not a client library."""
    place = urlsplit(url)
    reader, writer = await asyncio.open_connection(place.hostname, place.port)
    request = f"GET /v1/events HTTP/1.1\r\nhost: {place.netloc}\r\nauthorization: Bearer {token}\r\n\r\n"
    writer.write(request.encode())
    while line := await reader.readline():
        if not line.startswith(b"data:"):
            continue
        now = time.monotonic()
        event = json.loads(line[5:])
        if event["kind"] == "ready":
            there.release()
        else:
            heard.append((event["block_id"], event["version"], now))


def prepare(folder: Path, listeners: int, blocks: int, shared: int) -> tuple[str, list[str], list[str]]:
    """A workspace in which each block is read by `shared` agents. Returns the owner's token, the agents', the blocks."""
    workspace, owner = Workspace.init(folder)
    with workspace:
        vault = workspace.vault(owner.token)
        made = [vault.create_block(label=f"block {number}", value="x" * 1000).id for number in range(blocks)]
        tokens = []
        for number in range(listeners):
            mine = [block for place, block in enumerate(made) if (number - place * shared) % listeners < shared]
            agent = vault.create_agent({"name": f"agent {number}"}, block_ids=mine, access="read")
            tokens.append(vault.agent_token(agent.id))
    return owner.token, tokens, made


def write(url: str, token: str, blocks: list[str], rate: float, seconds: float) -> list[tuple[str, int, float]]:
    """Edit the blocks in turn; (block, version, when it was acknowledged)."""
    done: list[tuple[str, int, float]] = []
    with httpx.Client(base_url=url, headers={"authorization": f"Bearer {token}"}, trust_env=False) as client:
        began = time.monotonic()
        for count in range(int(rate * seconds)):
            time.sleep(max(0.0, began + count / rate - time.monotonic()))
            block = blocks[count % len(blocks)]
            answer = client.patch(f"/v1/blocks/{block}", json={"value": f"value {count} " + "x" * 1000})
            done.append((block, answer.raise_for_status().json()["version"], time.monotonic()))
    return done


def measure(listeners: int, rate: float, seconds: float, blocks: int, shared: int) -> dict[str, Any]:
    """One run, with its outcome."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        owner, tokens, made = prepare(data, listeners, blocks, shared)
        told, tell = context.Pipe()
        server = context.Process(target=_server, args=(str(data), tell), daemon=True)
        server.start()
        url = told.recv()
        ours, theirs = context.Pipe()
        ears = context.Process(target=_listeners, args=(url, tokens, theirs), daemon=True)
        ears.start()
        began = time.monotonic()
        if not ours.poll(PATIENCE):
            raise SystemExit("the listeners did not get in")
        ours.recv()
        joined = time.monotonic() - began
        write(url, owner, made, rate, WARM_UP)
        busy = os.times()
        load = os.getloadavg()[0]
        done = write(url, owner, made, rate, seconds)
        after = os.times()
        time.sleep(1)  # the last events are on their way
        ours.send("enough")
        heard = ours.recv()
        server.terminate()
        server.join(PATIENCE)
        ears.join(PATIENCE)
    del busy, after
    return {**outcome(done, heard, shared), "joined_s": round(joined, 2), "load_before": round(load, 2)}


def outcome(
    done: list[tuple[str, int, float]], heard: list[tuple[str, int, float]], shared: int
) -> dict[str, Any]:
    """Latencies in milliseconds, of each event at each listener."""
    acknowledged = {(block, version): when for block, version, when in done}
    late = sorted(
        1000 * max(0.0, when - acknowledged[block, version])
        for block, version, when in heard
        if (block, version) in acknowledged
    )
    if not late:
        raise SystemExit("nothing was heard")
    cuts = statistics.quantiles(late, n=1000, method="inclusive")
    return {
        "updates": len(done),
        "events": len(late),
        "expected": len(done) * shared,
        "p50_ms": round(cuts[499], 1),
        "p95_ms": round(cuts[949], 1),
        "p99_ms": round(cuts[989], 1),
        "max_ms": round(late[-1], 1),
    }


def main(arguments: list[str] | None = None) -> None:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m bench.feed", description=__doc__.splitlines()[0])
    parser.add_argument("--listeners", type=int, default=200)
    parser.add_argument("--rate", type=float, default=20, help="updates a second (20)")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--blocks", type=int, default=20)
    parser.add_argument("--shared", type=int, default=0, help="listeners a block (0: all of them)")
    parser.add_argument("--write", type=Path, metavar="DIR", help="write feed.json there")
    given = parser.parse_args(arguments)
    shared = given.shared or given.listeners
    result = {
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
        "listeners": given.listeners,
        "rate": given.rate,
        "seconds": given.seconds,
        "blocks": given.blocks,
        "shared": shared,
        **measure(given.listeners, given.rate, given.seconds, given.blocks, shared),
    }
    for name, value in result.items():
        print(f"{name:12} {value}")
    if given.write is not None:
        (given.write / "feed.json").write_text(json.dumps(result, indent=2) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
