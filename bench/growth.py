"""How the cost of an operation grows with what is stored: 1,000 to 1,000,000 blocks, 100 and 10,000 users.

    python -m bench growth                                    to 100,000 blocks, in a temporary folder
    python -m bench growth --blocks 1000000 --keep DIR        to a million; filled once, and gone on with if interrupted
    python -m bench growth --write docs                       keeps the points in docs/growth.json, beside earlier ones

At each size a process of its own opens the workspace and does what a request does, its commit to disk included: it
opens a vault by the token, and retrieves, lists, updates, shares and revokes blocks drawn at random from all. "First"
is what this process sees for the first time, whose signatures it has to verify; after that it remembers the verdicts.
At the largest size the same is measured once more with the larger number of users, in a copy.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from bench import machine
from bench.filling import BATCH
from bench.scripts import KILOBYTE, PAGE, text
from bench.stock import OWNERS, Stock
from tallystone.vault import Vault, Workspace

SIZES = (1_000, 10_000, 100_000, 1_000_000)
USERS = (100, 10_000)
SEED = 20_261_121


class Draw:
    """What a point is measured on, drawn from the stock: (token, block) pairs, with what else an operation needs."""

    def __init__(self, stock: Stock, samples: int) -> None:
        dice, count = random.Random(SEED), len(stock)
        self.blocks = [stock.block(n) for n in dice.sample(range(count), min(samples, count))]
        cursors = range(max(1, count - BATCH * OWNERS))  # each has a page of its owner's after it
        few = min(max(1, samples // 10), len(cursors))
        self.pages = [stock.block(n) for n in dice.sample(cursors, few)]
        strangers = [identity for identity, _ in stock.users[OWNERS:]]
        self.shared = [(*one, dice.choice(strangers)) for one in self.blocks[: max(1, samples // 5)]]


def _list(vault: Vault, after: str) -> None:
    vault.blocks(after=after, limit=PAGE)


def _update(vault: Vault, block: str) -> None:
    vault.edit_block(block, lambda before: {"value": text(before.version, KILOBYTE) + "."})


def _share(vault: Vault, block: str, user: str) -> None:
    vault.share(block, user, "read")


def point(folder: str, draw: Draw) -> dict[str, Any]:
    """Measure in this process, which has not seen the workspace yet."""
    began = time.perf_counter()
    with Workspace.open(folder) as workspace:
        opened, at_start = time.perf_counter() - began, machine.memory(os.getpid())
        steps: list[tuple[str, Callable[..., object], Sequence[tuple[str, ...]]]] = [
            ("retrieve, first", Vault.block, draw.blocks),
            ("retrieve", Vault.block, draw.blocks),
            ("list, first", _list, draw.pages),
            ("list", _list, draw.pages),
            ("update", _update, draw.blocks),
            ("share", _share, draw.shared),
            ("revoke", Vault.revoke, draw.shared),
        ]
        operations = {name: _timed(workspace, step, on) for name, step, on in steps}
        return {
            "open_s": round(opened, 3),
            "memory_at_start": at_start,
            "memory": machine.memory(os.getpid()),
            "operations": operations,
        }


def _timed(
    workspace: Workspace, step: Callable[..., object], on: Sequence[tuple[str, ...]]
) -> dict[str, float]:
    walls, busy = [], []
    for token, *rest in on:
        wall, cpu = time.perf_counter(), time.thread_time()
        step(workspace.vault(token), *rest)
        walls.append((time.perf_counter() - wall) * 1000)
        busy.append((time.thread_time() - cpu) * 1000)
    walls.sort()
    return {
        "p50_ms": round(statistics.median(walls), 3),
        "p99_ms": round(walls[min(len(walls) - 1, len(walls) * 99 // 100)], 3),
        "cpu_ms": round(statistics.median(busy), 3),
        "runs": len(walls),
    }


def _apart(folder: Path, draw: Draw) -> dict[str, Any]:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(point, (str(folder), draw))


def size_of(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def line(found: dict[str, Any]) -> str:
    """A point, for the terminal."""
    each = "  ".join(
        f"{name} {one['p50_ms']:.1f} ({one['cpu_ms']:.1f})" for name, one in found["operations"].items()
    )
    return (
        f"{found['blocks']:>9,} blocks {found['users']:>6,} users  {found['bytes'] / 1e6:8,.0f} MB on disk "
        f" {found['memory']['rss_mb']:5.0f} MB in memory  median ms (of processor): {each}"
    )


def measure(home: Path, given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """A point for each size that is not passed yet, and one with the larger number of users."""

    def at(stock: Stock) -> dict[str, Any]:
        found = _apart(stock.data, Draw(stock, given.samples))
        return {"blocks": len(stock), "users": len(stock.users), "bytes": size_of(stock.data), **found}

    stock = Stock(home)
    stock.add_users(given.users[0])
    sizes = sorted({*(size for size in SIZES if size < given.blocks), given.blocks})
    for size in sizes:
        if size < len(stock):
            continue
        took = stock.fill(size, given.processes)
        yield {**at(stock), **took}
    if len(given.users) > 1 and len(stock) == given.blocks:
        with tempfile.TemporaryDirectory(prefix="tallystone-bench-", dir=home) as copied:
            shutil.copytree(stock.data, Path(copied) / "data")
            more = stock.beside(Path(copied))
            more.add_users(given.users[1])
            yield at(more)


def keep(folder: Path, described: dict[str, Any], points: list[dict[str, Any]]) -> None:
    """Put points into growth.json, in place of those with as many blocks and users."""
    path = folder / "growth.json"
    known = json.loads(path.read_text())["points"] if path.exists() else []
    new = {(one["blocks"], one["users"]): one for one in [*known, *points]}
    ordered = sorted(new.values(), key=lambda one: (one["users"], one["blocks"]))
    path.write_text(json.dumps({"machine": described, "points": ordered}, indent=1) + "\n", encoding="utf-8")


def main(arguments: list[str] | None = None) -> int:
    """See the module."""
    parser = argparse.ArgumentParser(
        prog="python -m bench growth",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--blocks", type=int, default=100_000, help="the largest size")
    parser.add_argument(
        "--users", type=int, nargs="+", default=list(USERS), help="how many, and how many at last"
    )
    parser.add_argument("--samples", type=int, default=300, help="blocks that are drawn for each point")
    parser.add_argument("--processes", type=int, default=min(4, os.cpu_count() or 1), help="that fill")
    parser.add_argument(
        "--keep", type=Path, metavar="DIR", help="where the workspace is made, and gone on with"
    )
    parser.add_argument("--write", type=Path, metavar="DIR", help="keep the points in growth.json there")
    given = parser.parse_args(arguments)
    if given.users[0] <= OWNERS:
        parser.error(f"--users: more than the {OWNERS} who own the blocks")
    with tempfile.TemporaryDirectory(prefix="tallystone-bench-") as folder:
        home: Path = given.keep or Path(folder)
        points = []
        for found in measure(home, given):
            points.append(found)
            print(line(found), flush=True)
            if given.write is not None:
                keep(given.write, machine.described(home), points)
    return 0
