"""What more workers gain: one process of ours and several, asked in turns, each with a database of its own.

    python -m bench workers                                 two workers on PostgreSQL, 32 connections
    python -m bench workers --operations update --rounds 9 --seconds 5
    python -m bench workers --write docs                    also writes workers.json there

Both servers run from the beginning to the end, and each worker has seen each block before anything counts. Each round
asks one after the other, in changing order, so that what else the machine does falls on both. The bound is what the
processor time of the same windows allows: with w that a worker takes for a request and x that the rest takes (database
and client), n workers on c cores reach at most min(n, c·w/(w+x)) times one. Beside it stands how much of the machine
lay idle while they were asked, and how much somebody else took: a bound counts all cores, so on a busy machine nobody
reaches it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import machine, serving
from bench.database import postgresql
from bench.dropin import STORES, line, note, row
from bench.load import Ask, Generators, Load, Played, Script, Target, Unreachable, play
from bench.report import gain
from bench.scripts import OPERATIONS, Scene, scripts, set_up

_TIMES = 5
"""How often each block is asked for at the start, for each worker: so nearly all will have seen it three times, after
which a process shows it as it did before."""


@dataclass
class Windows:
    """Those of one operation, of one side."""

    played: list[Played] = field(default_factory=list)
    spent: list[float] = field(default_factory=lambda: [0.0, 0.0])
    """Seconds of processor time of the server, and of its database."""
    seconds: float = 0.0
    idle: float = 0.0
    """Seconds that cores did nothing."""
    busy: float = 0.0
    """Seconds that they worked, whoever for."""

    def found(self, operation: str, connections: int) -> dict[str, Any]:
        """A row, as of the drop-in suite, with the shares of the machine's time beside it."""
        found = row(operation, connections, self.played, self.spent)
        ours = sum(self.spent) + sum(one.cpu for one in self.played)
        whole = self.idle + self.busy
        found["idle"] = round(self.idle / whole, 3)
        found["others"] = round(max(self.busy - ours, 0) / whole, 3)
        return found


class Side:
    """One of the servers."""

    def __init__(self, stack: ExitStack, given: argparse.Namespace, workers: int) -> None:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tallystone-bench-")))
        database, self._beside = None, []
        if given.store == "postgresql":
            database, pid = stack.enter_context(postgresql())
            self._beside = [pid]
        self._token = serving.new_workspace(folder, database)
        server = stack.enter_context(serving.ours(folder / "data", self._token, workers))
        self._url, self._pid = server.url, server.pid
        self._connections = given.connections
        note(f"{workers} worker{'s' * (workers > 1)}: setting up {given.blocks} blocks")
        self._scene, _ = set_up(Target(self._url, self._token), given.blocks, given.connections)
        self._show_all(self._scene, _TIMES * workers)
        self.windows = {operation: Windows() for operation in given.operations}

    def _show_all(self, scene: Scene, times: int) -> None:
        paths = iter([*scene.blocks, *scene.large] * times)

        def script() -> Script:
            for block in paths:
                yield Ask("first", "GET", f"/v1/blocks/{block}")

        play(Target(self._url, self._token), [script() for _ in range(self._connections)])

    def ask(self, generators: Generators, operation: str, given: argparse.Namespace) -> None:
        """One window."""
        windows = self.windows[operation]
        before = machine.cpu(self._pid), machine.cpu(*self._beside), *machine.whole()
        load = Load(self._url, self._token, scripts(operation, self._scene), given.seconds, given.warm)
        windows.played.append(generators.run(load, given.connections))
        after = machine.cpu(self._pid), machine.cpu(*self._beside), *machine.whole()
        server, beside, busy, idle = (late - early for early, late in zip(before, after, strict=True))
        windows.spent[0] += server
        windows.spent[1] += beside
        windows.busy += busy
        windows.idle += idle


def run(given: argparse.Namespace) -> dict[str, Any]:
    """The result: a run for each side, as the drop-in suite has them. Raises `Unreachable`."""
    with ExitStack() as stack:
        generators = stack.enter_context(Generators(1))
        described = machine.described()
        sides = {count: Side(stack, given, count) for count in (1, given.workers)}
        order = list(sides.values())
        for operation in given.operations:
            for _ in range(given.rounds):
                for side in order:
                    side.ask(generators, operation, given)
                order.reverse()
            found = [side.windows[operation].found(operation, given.connections) for side in sides.values()]
            for count, one in zip(sides, found, strict=True):
                print(f"{count}× {line(one)}  idle {one['idle']:.0%}, others {one['others']:.0%}", flush=True)
            rate, most = gain(found[0], found[1], given.workers, described["cores"])
            print(f"   gain {rate:.2f}, bound {most:.2f}: {rate / most:.2f} of it", flush=True)
        return {
            "runs": [
                {
                    "name": f"{STORES[given.store]}, {count} worker{'s' * (count > 1)}",
                    "store": given.store,
                    "workers": count,
                    "machine": described,
                    "blocks": given.blocks,
                    "seconds": given.seconds,
                    "rounds": given.rounds,
                    "rows": [
                        side.windows[operation].found(operation, given.connections)
                        for operation in given.operations
                    ],
                }
                for count, side in sides.items()
            ]
        }


def keep(folder: Path, result: dict[str, Any]) -> None:
    """Put the runs into workers.json, in place of those on the same store."""
    path = folder / "workers.json"
    store = result["runs"][0]["store"]
    before = json.loads(path.read_text())["runs"] if path.exists() else []
    runs = [one for one in before if one["store"] != store] + result["runs"]
    path.write_text(json.dumps({"runs": runs}, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def main(arguments: list[str] | None = None) -> int:
    """See the module."""
    parser = argparse.ArgumentParser(
        prog="python -m bench workers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--store", choices=STORES, default="postgresql")
    parser.add_argument("--workers", type=int, default=2, help="to compare with one")
    parser.add_argument("--operations", nargs="+", choices=list(OPERATIONS), default=list(OPERATIONS))
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--blocks", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=3, help="of each window")
    parser.add_argument("--warm", type=float, default=1, help="seconds before each window")
    parser.add_argument("--rounds", type=int, default=5, help="windows of each operation and side")
    parser.add_argument("--write", type=Path, metavar="DIR", help="keep the result in workers.json there")
    given = parser.parse_args(arguments)
    if not 2 <= given.workers <= (os.cpu_count() or 1) * 8:
        parser.error("at least 2 workers")
    try:
        result = run(given)
    except Unreachable as error:
        note(f"error: {error}")
        return 1
    if given.write is not None:
        keep(given.write, result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
