"""What the log costs a reader: reads of a 1 KB block a second, with the log on and off, by 32 clients.

    python -m bench.audit                         5 pairs of 4 seconds each
    python -m bench.audit --clients 8 --write docs

Two servers on copies of one workspace, asked in turns, so that what else the machine does falls on both. The one
without a log skips what a read adds to it: it seals no event and commits nothing. It exists in this file alone.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import platform
import shutil
import statistics
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tallystone.server.run import serve
from tallystone.server.settings import Settings
from tallystone.store.protocol import Batch
from tallystone.store.sqlite import SqliteStore
from tallystone.vault import Workspace
from tallystone.vault.caller import Caller

TARGET = 0.7
BLOCKS = 64
WARM_UP = 1.0
"""Seconds that do not count, before the first pair: verdicts on signatures are remembered by then."""


def _without_log() -> None:
    commit = SqliteStore.commit

    def changes_only(store: SqliteStore, batch: Batch) -> int:
        return commit(store, batch) if batch.changes else 0

    def nothing(*_: object, **__: object) -> None:
        return None

    # A program for measuring may reach in; `Caller.event` is where each operation seals its event.
    setattr(SqliteStore, "commit", changes_only)  # noqa: B010 -- as text: mypy minds a method that is replaced
    setattr(Caller, "event", nothing)  # noqa: B010 -- as above, mypy minds it otherwise


def _server(folder: str, logged: bool, ready: Connection) -> None:
    if not logged:
        _without_log()
    with Workspace.open(folder) as workspace:
        serve(workspace, Settings(port=0, log_level="error", check_every=0), ready.send)


async def _client(url: str, token: str, blocks: list[str], until: float, first: int) -> int:
    """One connection that reads block after block; the number of answers in time."""
    place, done = urlsplit(url), 0
    reader, writer = await asyncio.open_connection(place.hostname, place.port)
    head = f"HTTP/1.1\r\nhost: {place.netloc}\r\nauthorization: Bearer {token}\r\n\r\n"
    while time.monotonic() < until:
        block = blocks[(first + done) % len(blocks)]
        writer.write(f"GET /v1/blocks/{block} {head}".encode())
        answer = await reader.readuntil(b"\r\n\r\n")
        if not answer.startswith(b"HTTP/1.1 200"):
            raise SystemExit("a read was refused")
        size = answer.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
        await reader.readexactly(int(size))
        done += 1
    writer.close()
    return done


async def _asked(url: str, token: str, blocks: list[str], clients: int, seconds: float) -> float:
    until = time.monotonic() + seconds
    each = await asyncio.gather(*(_client(url, token, blocks, until, number) for number in range(clients)))
    return sum(each) / seconds


def measure(clients: int, pairs: int, seconds: float) -> dict[str, Any]:
    """Reads a second of both servers, pair by pair."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        home = {True: Path(folder) / "on", False: Path(folder) / "off"}
        workspace, owner = Workspace.init(home[True])
        with workspace:
            vault = workspace.vault(owner.token)
            blocks = [vault.create_block(label=f"block {n}", value="x" * 1000).id for n in range(BLOCKS)]
        shutil.copytree(home[True], home[False])
        servers, urls = [], {}
        for logged, data in home.items():
            told, tell = context.Pipe()
            servers.append(context.Process(target=_server, args=(str(data), logged, tell), daemon=True))
            servers[-1].start()
            urls[logged] = told.recv()
        for url in urls.values():
            asyncio.run(_asked(url, owner.token, blocks, clients, WARM_UP))
        rates: dict[bool, list[float]] = {True: [], False: []}
        for number in range(pairs):
            for logged in (True, False) if number % 2 else (False, True):
                rates[logged].append(asyncio.run(_asked(urls[logged], owner.token, blocks, clients, seconds)))
        for server in servers:
            server.terminate()
            server.join(30)
    ratios = [on / off for on, off in zip(rates[True], rates[False], strict=True)]
    return {
        "clients": clients,
        "on_per_second": [round(rate) for rate in rates[True]],
        "off_per_second": [round(rate) for rate in rates[False]],
        "ratio": round(statistics.median(ratios), 3),
        "ratios": [round(ratio, 3) for ratio in sorted(ratios)],
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}",
        "load": round(os.getloadavg()[0], 1),
    }


def main(arguments: list[str] | None = None) -> None:
    """See the module."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.audit", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--write", type=Path, help="a folder for audit-cost.json")
    options = parser.parse_args(arguments)
    found = measure(options.clients, options.pairs, options.seconds)
    print(f"log on   {found['on_per_second']} reads a second")
    print(f"log off  {found['off_per_second']} reads a second")
    print(f"ratio    {found['ratio']} (median of {found['ratios']}; the target is at least {TARGET})")
    if options.write:
        (options.write / "audit-cost.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
