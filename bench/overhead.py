"""What keys, signatures and the log cost: our server and two plaintext twins (`bench/twin.py`), asked in turns.

    python -m bench overhead                                5 pairs of 3 seconds of each operation, 32 connections
    python -m bench overhead --operations retrieve --pairs 9 --seconds 5
    python -m bench overhead --write docs                   also writes overhead.json there

All run from the beginning to the end, on as many blocks of the same content; each round asks one after the other, in
changing order, so that what else the machine does falls on all. One twin runs its work in threads, as Starlette does;
the other in fibers, as ours does. The ratios are those of our rate to theirs, round by round: the median, the lowest
and the highest. Beside them stands the processor time that each server took for a request, which is steadier on a
busy machine. After that, ours once more under a profiler: where its time goes.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import shutil
import statistics
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench import machine, rooms, twin
from bench.filling import BATCH, add_blocks
from bench.load import Ask, Generators, Load, Played, Script, Target, Unreachable, play
from bench.scripts import KILOBYTE, TITLES, Scene, scripts, text
from tallystone.server.run import serve
from tallystone.server.settings import Settings
from tallystone.vault import Workspace

TARGETS = {"retrieve": 0.6, "update": 0.5, "list": 0.3}
"""What the ratio of the rates should be at least, at 32 connections."""
MEASURED = ("retrieve", "update", "list", "create")
SIDES = ("ours", "twin", "fibers")


def _ours(folder: str, ready: Any) -> None:
    with Workspace.open(folder) as workspace:
        serve(workspace, Settings(port=0, log_level="error", check_every=0), ready.send)


class Side:
    """One of the two servers."""

    def __init__(self, stack: ExitStack, target: Any, folder: Path, token: str, scene: Scene) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        process = context.Process(target=target, args=(str(folder), theirs), daemon=True)
        process.start()
        assert process.pid is not None  # it was started
        self.pid, self._token, self._scene = process.pid, token, scene
        stack.callback(process.join, 30)
        stack.callback(process.terminate)
        theirs.close()
        try:
            self._url: str = self.pipe.recv()
        except EOFError:
            raise Unreachable("a server ended before it began; it says why above") from None

    def show_all(self) -> None:
        """Each block once, before anything counts: what is seen for the first time has its signatures verified."""
        paths = iter(self._scene.blocks)

        def script() -> Script:
            for block in paths:
                yield Ask("first", "GET", f"/v1/blocks/{block}")

        play(Target(self._url, self._token), [script() for _ in range(8)])

    def ask(self, generators: Generators, operation: str, given: argparse.Namespace) -> tuple[Played, float]:
        """One window, and seconds of the server's processor time a request."""
        before = machine.cpu(self.pid)
        load = Load(self._url, self._token, scripts(operation, self._scene), given.seconds, given.warm)
        played = generators.run(load, given.connections)
        if not played.took.get(operation):
            raise Unreachable(f"{operation}: no request succeeded: {played.refusal}")
        return played, (machine.cpu(self.pid) - before) / played.answered


def compare(
    sides: dict[str, Side], generators: Generators, operation: str, given: argparse.Namespace
) -> dict[str, Any]:
    """Pairs of windows of one operation."""
    rates: dict[str, list[float]] = {side: [] for side in SIDES}
    spent: dict[str, list[float]] = {side: [] for side in SIDES}
    whole = {side: Played() for side in SIDES}
    client = 0.0
    for number in range(given.pairs):
        first = number % len(SIDES)
        for side in SIDES[first:] + SIDES[:first]:
            played, each = sides[side].ask(generators, operation, given)
            rates[side].append(played.rate(operation))
            spent[side].append(each * 1000)
            whole[side].add(played)
            client = max(client, played.cpu / (played.seconds + given.warm))
    ratios, bare = (
        sorted(ours / other for ours, other in zip(rates["ours"], rates[twin], strict=True))
        for twin in ("twin", "fibers")
    )
    costs = sorted(other / ours for ours, other in zip(spent["ours"], spent["twin"], strict=True))
    found: dict[str, Any] = {
        "operation": operation,
        "ratio": round(statistics.median(ratios), 3),
        "ratios": [round(ratio, 3) for ratio in ratios],
        "fibers_ratio": round(statistics.median(bare), 3),
        "fibers_ratios": [round(ratio, 3) for ratio in bare],
        "cpu_ratio": round(statistics.median(costs), 3),
        "cpu_ratios": [round(ratio, 3) for ratio in costs],
        "client_busy": round(client, 2),
    }
    for side in SIDES:
        found[side] = {
            "per_second": round(statistics.median(rates[side]), 1),
            "all_per_second": [round(rate, 1) for rate in rates[side]],
            "cpu_ms": round(statistics.median(spent[side]), 3),
            "p50_ms": round(whole[side].percentile(operation, 50), 2),
            "p99_ms": round(whole[side].percentile(operation, 99), 2),
        }
    return found


def line(found: dict[str, Any]) -> str:
    """A comparison, for the terminal."""
    ours, other = found["ours"], found["twin"]
    target = TARGETS.get(found["operation"])
    return (
        f"{TITLES[found['operation']]:24} {ours['per_second']:8.1f}/s ours {other['per_second']:8.1f}/s twin  ratio"
        f" {found['ratio']:.2f} ({found['ratios'][0]:.2f} to {found['ratios'][-1]:.2f}"
        f"{f'; target {target}' if target else ''}), to {found['fibers']['per_second']:.1f}/s on fibers"
        f" {found['fibers_ratio']:.2f}  processor {ours['cpu_ms']:.2f} ms, {other['cpu_ms']:.2f} ms:"
        f" ratio {found['cpu_ratio']:.2f}; generator {found['client_busy']:.0%} of a core"
    )


def profiled(
    stack: ExitStack,
    folder: Path,
    token: str,
    scene: Scene,
    generators: Generators,
    given: argparse.Namespace,
) -> dict[str, dict[str, float]]:
    """Shares of processor time by room, for each operation; empty where no profile is possible."""
    if not rooms.POSSIBLE:
        print("no profile: it needs Python 3.11, whose profiler tells threads apart", file=sys.stderr)
        return {}
    side = Side(stack, rooms.main, folder, token, scene)
    side.show_all()
    found = {}
    for operation in given.operations:
        side.pipe.send(None)
        before = side.pipe.recv()
        side.ask(generators, operation, given)
        side.pipe.send(None)
        after = side.pipe.recv()
        took = {room: seconds - before.get(room, 0.0) for room, seconds in after.items()}
        total = sum(took.values())
        found[operation] = {room: round(took.get(room, 0.0) / total, 3) for room in [*rooms.ROOMS, "other"]}
        shares = ", ".join(f"{room} {share:.0%}" for room, share in found[operation].items())
        print(f"{TITLES[operation]:24} {shares}", flush=True)
    return found


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """The whole suite. Raises `Unreachable`."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tallystone-bench-")))
        generators = stack.enter_context(Generators(given.generators))
        values = [(f"block {n}", text(n, KILOBYTE)) for n in range(given.blocks)]
        workspace, owner = Workspace.init(folder / "ours")
        ids: list[str] = []
        with workspace:
            for start in range(0, len(values), BATCH):
                ids += add_blocks(workspace, owner.token, values[start : start + BATCH])
        shutil.copytree(folder / "ours", folder / "profiled")
        scene, token = Scene(blocks=ids, run="new"), owner.token
        others = {
            side: Scene(blocks=twin.make(folder / side, token, values), run="new") for side in SIDES[1:]
        }
        described = machine.described(folder)
        with ExitStack() as both:
            sides = {
                "ours": Side(both, _ours, folder / "ours", token, scene),
                "twin": Side(both, twin.main, folder / "twin", token, others["twin"]),
                "fibers": Side(both, twin.on_fibers, folder / "fibers", token, others["fibers"]),
            }
            for side in sides.values():
                side.show_all()
            rows = []
            for operation in given.operations:
                rows.append(compare(sides, generators, operation, given))
                print(line(rows[-1]), flush=True)
        shares = {}
        if given.profile:
            shares = profiled(stack, folder / "profiled", token, scene, generators, given)
        return {
            "machine": described,
            "connections": given.connections,
            "blocks": given.blocks,
            "pairs": given.pairs,
            "seconds": given.seconds,
            "rows": rows,
            "rooms": shares,
        }


def main(arguments: list[str] | None = None) -> int:
    """See the module."""
    parser = argparse.ArgumentParser(
        prog="python -m bench overhead",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--operations", nargs="+", choices=MEASURED, default=list(MEASURED))
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--blocks", type=int, default=1000)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3, help="of each window")
    parser.add_argument("--warm", type=float, default=0.5, help="seconds before each window")
    parser.add_argument("--generators", type=int, default=1, help="processes that send requests")
    parser.add_argument("--no-profile", dest="profile", action="store_false")
    parser.add_argument("--write", type=Path, metavar="DIR", help="write overhead.json there")
    given = parser.parse_args(arguments)
    try:
        found = measure(given)
    except Unreachable as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if given.write is not None:
        (given.write / "overhead.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0
