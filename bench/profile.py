"""What an operation costs and where: SQL statements, public-key operations, µs of processor time by part.

    python -m bench.profile                      every operation, as the server works on it, in one thread
    python -m bench.profile retrieve update      these alone
    python -m bench.profile retrieve --calls     also the functions that take longest, by their own time
    python -m bench.profile --http               the whole server under 32 connections: µs of processor time a request

Processor time, not wall time: it says the same on a busy machine. The parts are cProfile's shares of the time that the
operation takes without cProfile, so they add up to it; they are good to some percents.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import itertools
import json
import multiprocessing
import os
import pstats
import sqlite3
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tallystone import crypto
from tallystone.letta.call import Answer, Call, Query
from tallystone.letta.routes import ROUTES
from tallystone.server.paths import Match, Paths
from tallystone.server.run import serve
from tallystone.server.settings import Settings
from tallystone.store.sqlite import SqliteStore
from tallystone.vault import Vault, Workspace

BLOCKS, AGENTS = 1000, 8
CONNECTIONS = 32

Request = tuple[str, str, bytes]
"""Method, path, body."""


class Scene:
    """A workspace to work on: 1,000 blocks of 1 KB, one of 20 KB, one that eight agents hold."""

    def __init__(self, folder: str, blocks: int = BLOCKS) -> None:
        self.folder = folder
        self.workspace, owner = Workspace.init(folder)
        self.token = owner.token
        vault = self.workspace.vault(self.token)
        self.blocks = [vault.create_block(label=f"block {n}", value="x" * 1000).id for n in range(blocks)]
        self.large = vault.create_block(label="large", value="x" * 20_000).id
        self.shared = vault.create_block(label="shared", value="x" * 1000).id
        self.agents = [vault.create_agent({"name": f"agent {n}"}).id for n in range(AGENTS + 1)]
        self.agent = self.agents.pop()
        vault.attach(self.agent, self.blocks[0])
        for agent in self.agents:
            vault.attach(agent, self.shared)


def _operations(scene: Scene) -> dict[str, Callable[[int], list[Request]]]:
    """What is measured: each is the requests of its turn `n`."""

    def value(n: int, size: int = 1000) -> bytes:
        return json.dumps({"value": f"{n} ".ljust(size, "y")}).encode()

    def one(method: str, path: Callable[[int], str], body: Callable[[int], bytes] = lambda _: b"") -> Any:
        return lambda n: [(method, path(n), body(n))]

    few = scene.blocks[:64]
    at_agent = f"/v1/agents/{scene.agent}/core-memory/blocks"
    pages = [scene.blocks[at] for at in range(49, len(scene.blocks) - 50, 50)] or [scene.blocks[0]]
    return {
        "retrieve": one("GET", lambda n: f"/v1/blocks/{few[n % 64]}"),
        "retrieve 20 KB": one("GET", lambda n: f"/v1/blocks/{scene.large}"),
        "retrieve by label": one("GET", lambda n: f"{at_agent}/block%200"),
        "list 50": one("GET", lambda n: f"/v1/blocks/?limit=50&after={pages[n % len(pages)]}"),
        "update": one("PATCH", lambda n: f"/v1/blocks/{few[1 + n % 63]}", value),
        "update by label": one("PATCH", lambda n: f"{at_agent}/block%200", value),
        "update shared by 8": one("PATCH", lambda n: f"/v1/blocks/{scene.shared}", value),
        "update shared by label": one(
            "PATCH", lambda n: f"/v1/agents/{scene.agents[n % AGENTS]}/core-memory/blocks/shared", value
        ),
        "create": one(
            "POST",
            lambda n: "/v1/blocks/",
            lambda n: json.dumps({"label": "b", "value": "x" * 1000}).encode(),
        ),
        "create agent": one(
            "POST", lambda n: "/v1/agents/", lambda n: json.dumps({"name": f"a{n}"}).encode()
        ),
        "create agent with block": one(
            "POST",
            lambda n: "/v1/agents/",
            lambda n: json.dumps(
                {"name": f"a{n}", "memory_blocks": [{"label": "b", "value": "x" * 1000}]}
            ).encode(),
        ),
        "attach + detach": lambda n: [
            ("PATCH", f"{at_agent}/{kind}/{few[1 + n % 63]}", b"") for kind in ("attach", "detach")
        ],
    }


# -- in one thread -----------------------------------------------------------------------------------------------


@contextmanager
def _counted(counts: Counter[str]) -> Iterator[None]:
    """Count SQL statements and public-key operations of stores that are opened inside."""
    connect, sign, verify = SqliteStore._connect, crypto.Signer.sign, crypto.verify

    def traced(store: SqliteStore, *, reader: bool = False) -> sqlite3.Connection:
        connection = connect(store, reader=reader)
        kind = "reads" if reader else "writes"
        connection.set_trace_callback(lambda _: counts.update([kind]))
        return connection

    def signed(signer: crypto.Signer, message: bytes) -> bytes:
        counts.update(["signatures"])
        return sign(signer, message)

    def verified(public: bytes, signature: bytes, message: bytes) -> bool:
        counts.update(["verified"])
        return verify(public, signature, message)

    places: list[tuple[Any, str, Any, Any]] = [
        (SqliteStore, "_connect", traced, connect),
        (crypto.Signer, "sign", signed, sign),
        (crypto, "verify", verified, verify),
    ]
    try:
        for owner, name, ours, _ in places:
            setattr(owner, name, ours)  # a program for measuring may reach in
        yield
    finally:
        for owner, name, _, before in places:
            setattr(owner, name, before)


def _perform(workspace: Workspace, paths: Paths, token: str, request: Request) -> None:
    """What the server does in its thread for one request."""
    method, target, body = request
    path, _, query = target.partition("?")
    found = paths.match(method, path.encode())
    assert isinstance(found, Match)
    with workspace.visit(token) as caller:
        answer = found.route.run(Call(Vault(caller), found.params, Query(query), {}, body))
        assert isinstance(answer, Answer)
        answer.content()


_PARTS = {
    "tallystone/crypto.py": "crypto", "cryptography": "crypto", "_hashlib": "crypto", "_openssl": "crypto",
    "urandom": "crypto", "compare_digest": "crypto", "hashlib": "crypto", "hmac": "crypto",
    "cbor": "cbor", "sqlite": "sql", "store/": "sql", "audit/": "log", "policy/": "policy",
    "grant_tree": "policy", "statements.py": "statements", "keystore/": "keys", "dataclasses": "statements",
    "vault/caller.py": "caller", "vault/plan.py": "plan", "vault/opening.py": "opening",
    "vault/entering.py": "opening", "vault/records.py": "opening", "vault/events.py": "events", "vault/": "vault",
    "letta/": "wire", "msgspec": "wire", "server/": "wire",
}  # fmt: skip


def _part(function: tuple[str, int, str]) -> str:
    text = function[0] if function[0] != "~" else function[2]
    return next((part for sign, part in _PARTS.items() if sign in text), "python")


def _profiled(work: Callable[[], None]) -> pstats.Stats:
    profile = cProfile.Profile(time.process_time)
    profile.runcall(work)
    return pstats.Stats(profile)


def measure(names: list[str], turns: int, calls: bool) -> None:
    """Print a line for each operation."""
    with tempfile.TemporaryDirectory() as folder:
        scene = Scene(folder + "/w")
        scene.workspace.close()
        for name in names:
            _measure_one(scene, name, turns, calls)


def _measure_one(scene: Scene, name: str, turns: int, calls: bool) -> None:
    paths, operation = Paths(ROUTES), _operations(scene)[name]
    serial = itertools.count()
    if name.startswith(("list", "attach", "create agent")):
        turns = max(turns // 8, 20)

    def run(times: int) -> None:
        for _ in range(times):
            for request in operation(next(serial)):
                _perform(workspace, paths, scene.token, request)

    # Counting costs time, so what is counted is not timed. Verdicts are remembered after the first turns.
    counts: Counter[str] = Counter()
    with _counted(counts), Workspace.open(scene.folder) as workspace:
        run(130)
        counts.clear()
        run(20)
        each = {kind: round(number / 20, 1) for kind, number in counts.items()}
    with Workspace.open(scene.folder) as workspace:
        run(130)
        _time(name, each, run, turns, calls)


def _time(name: str, each: dict[str, float], run: Callable[[int], None], turns: int, calls: bool) -> None:
    best = float("inf")
    for _ in range(3):
        began = time.process_time()
        run(turns)
        best = min(best, (time.process_time() - began) / turns * 1e6)
    stats = _profiled(lambda: run(turns))
    parts: Counter[str] = Counter()
    functions = getattr(stats, "stats")  # noqa: B009 -- typeshed does not declare it
    for function, (_, _, own, _, _) in functions.items():
        parts[_part(function)] += own
    whole = sum(parts.values())
    shown = "  ".join(f"{part} {best * own / whole:.0f}" for part, own in parts.most_common())
    print(f"{name}: {best:.0f} µs; {each}")
    print(f"    {shown}", flush=True)
    if calls:
        stats.sort_stats("tottime").print_stats(45)


# -- the whole server --------------------------------------------------------------------------------------------


def _server(folder: str, ready: Connection) -> None:
    with Workspace.open(folder) as workspace:
        serve(workspace, Settings(port=0, log_level="error", check_every=0), ready.send)


async def _client(url: str, token: str, turns: Iterator[list[Request]]) -> None:
    place = urlsplit(url)
    reader, writer = await asyncio.open_connection(place.hostname, place.port)
    for requests in turns:
        for method, target, body in requests:
            head = f"{method} {target} HTTP/1.1\r\nhost: {place.netloc}\r\nauthorization: Bearer {token}\r\n"
            writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
            answer = await reader.readuntil(b"\r\n\r\n")
            size = answer.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
            content = await reader.readexactly(int(size))
            if not answer.startswith(b"HTTP/1.1 200"):
                raise SystemExit(f"{method} {target} was refused: {content.decode()}")
    writer.close()


async def _load(
    url: str, token: str, operation: Callable[[int], list[Request]], turns: range, clients: int
) -> None:
    shared = (operation(n) for n in turns)
    await asyncio.gather(*(_client(url, token, shared) for _ in range(clients)))


def _ticks(pid: int) -> float:
    """Seconds of processor time that a process has used, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure_http(names: list[str], turns: int, clients: int) -> None:
    """Print, for each operation, the server's processor time a request and the requests a second."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        scene = Scene(folder + "/w")
        scene.workspace.close()
        told, tell = context.Pipe()
        server = context.Process(target=_server, args=(folder + "/w", tell), daemon=True)
        server.start()
        url = told.recv()
        assert server.pid is not None
        try:
            for name in names:
                operation = _operations(scene)[name]
                some = max(turns // 8, 20) if name.startswith(("list", "attach", "create agent")) else turns
                asyncio.run(_load(url, scene.token, operation, range(some // 4), clients))
                before, began = _ticks(server.pid), time.perf_counter()
                asyncio.run(_load(url, scene.token, operation, range(some, 2 * some), clients))
                used, took = _ticks(server.pid) - before, time.perf_counter() - began
                print(
                    f"{name}: {used / some * 1e6:.0f} µs of processor time, {some / took:.0f} a second",
                    flush=True,
                )
        finally:
            server.terminate()
            server.join(30)


def main(arguments: list[str] | None = None) -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("operations", nargs="*", help="which operations (default: all)")
    parser.add_argument("--turns", type=int, default=0)
    parser.add_argument("--calls", action="store_true", help="print the functions that take longest")
    parser.add_argument("--http", action="store_true", help="through the server, over HTTP")
    parser.add_argument("--connections", type=int, default=CONNECTIONS)
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        scene = Scene(folder + "/w", 64)
        everything = list(_operations(scene))
        scene.workspace.close()
    names = given.operations or everything
    for name in names:
        if name not in everything:
            parser.error(f"unknown operation {name!r}; there are: {', '.join(everything)}")
    if given.http:
        measure_http(names, given.turns or 2000, given.connections)
    else:
        measure(names, given.turns or 300, given.calls)


if __name__ == "__main__":
    main()
