"""How soon those who listen hear of a change: from the acknowledged commit to its event at the listener.

    python -m bench.feed                          200 listeners; the two loads of `LOADS`, 20 seconds each
    python -m bench.feed --listeners 1000 --rate 5 --shared 1000
    python -m bench.feed --write docs             also writes feed.json there

A server process, a process with all listeners, and a writer that edits one block after the other over HTTP. Each
listener is an agent with a token of its own; each block is read by the number of them that `--shared` says. The time
begins when the writer has its answer in hand, so an event that is there before counts as 0, and ends when the listener
has received it. Both clocks are the machine's monotonic one.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from tallystone.server.run import serve
from tallystone.server.settings import Settings
from tallystone.vault import Workspace

LOADS = ((10, 200), (20, 20))
"""Updates a second, and how many listeners can read each block: everybody hears everything, and a team a block."""
WARM_UP = 2.0
"""Seconds of updates that do not count: caches fill, and verdicts on signatures are remembered."""
PATIENCE = 60
"""Seconds to wait for all listeners to be there, and for the last events."""


def _server(folder: str, ready: Connection) -> None:
    with Workspace.open(folder) as workspace:
        serve(workspace, Settings(port=0, log_level="error", check_every=0), ready.send)


def _listeners(url: str, tokens: list[str], pipe: Connection) -> None:
    asyncio.run(_listen_all(url, tokens, pipe))


class _Ear(asyncio.Protocol):
    """One listener on a bare socket: measured is the server, not a client library. What came is read afterwards."""

    def __init__(self, request: bytes, there: asyncio.Semaphore) -> None:
        self._request, self._there = request, there
        self.heard: list[tuple[float, bytes]] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self.heard.append((time.monotonic(), data))
        if b'"ready"' in data:
            self._there.release()

    def events(self) -> Iterator[tuple[str, int, float]]:
        for when, data in self.heard:
            for line in data.splitlines():
                if line.startswith(b"data:") and b'"block_id"' in line:
                    event = json.loads(line[5:])
                    yield event["block_id"], event["version"], when


def _same(ear: _Ear) -> _Ear:
    return ear


async def _listen_all(url: str, tokens: list[str], pipe: Connection) -> None:
    place, there = urlsplit(url), asyncio.Semaphore(0)
    host, port = place.hostname or "127.0.0.1", place.port or 80
    ears: list[_Ear] = []
    for token in tokens:
        request = f"GET /v1/events HTTP/1.1\r\nhost: {place.netloc}\r\nauthorization: Bearer {token}\r\n\r\n"
        ear = _Ear(request.encode(), there)
        await asyncio.get_running_loop().create_connection(partial(_same, ear), host, port)
        ears.append(ear)
    for _ in tokens:
        await there.acquire()
    pipe.send(len(tokens))
    await asyncio.to_thread(pipe.recv)
    pipe.send([event for ear in ears for event in ear.events()])


def prepare(folder: Path, listeners: int, blocks: int, shared: int) -> tuple[str, list[str], list[str]]:
    """A workspace in which `shared` agents read each block. Returns the owner's token, the agents' and the blocks."""
    workspace, owner = Workspace.init(folder)
    with workspace:
        vault = workspace.vault(owner.token)
        made = [vault.create_block(label=f"block {number}", value="x" * 1000).id for number in range(blocks)]
        tokens = []
        for number in range(listeners):
            mine = [
                block for place, block in enumerate(made) if (number - place * shared) % listeners < shared
            ]
            agent = vault.create_agent({"name": f"agent {number}"}, block_ids=mine, access="read")
            tokens.append(vault.agent_token(agent.id))
    return owner.token, tokens, made


def write(
    url: str, token: str, blocks: list[str], rate: float, seconds: float
) -> list[tuple[str, int, float]]:
    """Edit the blocks in turn; (block, version, when it was acknowledged)."""
    done: list[tuple[str, int, float]] = []
    with httpx.Client(base_url=url, headers={"authorization": f"Bearer {token}"}, trust_env=False) as client:
        began = time.monotonic()
        for count in range(int(rate * seconds)):
            time.sleep(max(0.0, began + count / rate - time.monotonic()))  # the load is a rate: this keeps it
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
        busy = _processor_time(server.pid)
        load = os.getloadavg()[0]
        done = write(url, owner, made, rate, seconds)
        busy = (_processor_time(server.pid) - busy) / seconds
        time.sleep(1)  # the last events are on their way
        ours.send("enough")
        heard = ours.recv()
        server.terminate()
        server.join(PATIENCE)
        ears.join(PATIENCE)
    return {
        **outcome(done, heard, shared),
        "joined_s": round(joined, 2),
        "load_before": round(load, 2),
        "server_cpu": round(busy, 2),
    }


def _processor_time(process: int | None) -> float:
    """Seconds of processor time that a process has used, where /proc tells; else 0."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


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
    parser = argparse.ArgumentParser(prog="python -m bench.feed", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--listeners", type=int, default=200)
    parser.add_argument("--rate", type=float, help="updates a second")
    parser.add_argument("--shared", type=int, help="listeners that can read each block")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--blocks", type=int, default=5)
    parser.add_argument("--write", type=Path, metavar="DIR", help="write feed.json there")
    given = parser.parse_args(arguments)
    loads = (
        LOADS if given.rate is None and given.shared is None else ((given.rate or 10, given.shared or 200),)
    )
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    print(f"{machine}; {given.listeners} listeners, {given.blocks} blocks, {given.seconds:g} s")
    runs: list[dict[str, Any]] = []
    for rate, shared in loads:
        shared = min(shared, given.listeners)
        run = {
            "rate": rate,
            "shared": shared,
            **measure(given.listeners, rate, given.seconds, given.blocks, shared),
        }
        if not runs:
            print("  ".join(f"{name:>8}" for name in run))
        print("  ".join(f"{value:>{max(8, len(name))}}" for name, value in run.items()), flush=True)
        runs.append(run)
    if given.write is not None:
        result = {
            "machine": machine,
            "listeners": given.listeners,
            "blocks": given.blocks,
            "seconds": given.seconds,
        }
        (given.write / "feed.json").write_text(json.dumps({**result, "runs": runs}, indent=2) + "\n")


if __name__ == "__main__":
    main()
