"""What `letta-client` users wait for: requests a second, and milliseconds, of any letta-compatible server.

    python -m bench dropin                                  ours, on SQLite, one worker
    python -m bench dropin --workers 2 --store postgresql   two, and a PostgreSQL that is started for it
    python -m bench dropin --write docs                     keeps the run in docs/dropin.json, beside others
    python -m bench dropin --url http://127.0.0.1:8283 --token-file FILE --pid 4711
    python -m bench dropin --data DIR --token-file FILE --serve "--threads 8"

Each operation at 1, 8 and 32 connections, in several windows: the median of their rates, and the lowest and highest.
Each connection sends its next request when it has its answer. A server of ours is started for it, on 1,000 blocks of
its own; its processor time, its memory and the time from its start to its first answer are taken down as well. Of
another's server that is running (`--url`), what `--pid` names is measured.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench import machine, serving
from bench.database import postgresql
from bench.load import Generators, Load, Played, Target, Unreachable
from bench.scripts import OPERATIONS, TITLES, Scene, last_step, scripts, set_up

CONNECTIONS = (1, 8, 32)
STARTS = 3
STORES = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}


def measure(
    generators: Generators,
    target: tuple[str, str],
    scene: Scene,
    given: argparse.Namespace,
    server: Sequence[int],
    beside: Sequence[int],
) -> Iterator[dict[str, Any]]:
    """A row for each operation at each number of connections. `server` and `beside` (its database, say) are processes
    whose processor time is taken down."""
    for operation in given.operations:
        for connections in given.connections:
            windows: list[Played] = []
            spent = [0.0, 0.0]
            for _ in range(given.rounds):
                before = machine.cpu(*server), machine.cpu(*beside)
                load = Load(*target, scripts(operation, scene), given.seconds, given.warm)
                windows.append(generators.run(load, connections))
                spent[0] += machine.cpu(*server) - before[0]
                spent[1] += machine.cpu(*beside) - before[1]
            yield row(operation, connections, windows, spent if server else None)


def row(operation: str, connections: int, windows: list[Played], spent: list[float] | None) -> dict[str, Any]:
    """What came of an operation's windows. Processor time is a request's; an attach with its detach is two."""
    step = last_step(operation)
    rates = sorted(window.rate(step) for window in windows)
    whole = Played()
    for window in windows:
        whole.add(window)
    answered = max(whole.answered, 1)
    others: dict[str, int] = {}
    for (_, status), count in sorted(whole.others.items()):
        others[str(status)] = others.get(str(status), 0) + count
    found: dict[str, Any] = {
        "operation": operation,
        "connections": connections,
        "per_second": round(statistics.median(rates), 1),
        "lowest": round(rates[0], 1),
        "highest": round(rates[-1], 1),
        "p50_ms": round(_pair(whole, step, 50), 2),
        "p99_ms": round(_pair(whole, step, 99), 2),
        "refused": others,
        "client_ms": round(whole.cpu / answered * 1000, 3),
    }
    if spent is not None:
        found["server_ms"], found["beside_ms"] = (round(one / answered * 1000, 3) for one in spent)
    if not whole.took.get(step):
        print(f"{operation}: no request succeeded. {whole.refusal}", file=sys.stderr)
    return found


def _pair(played: Played, step: str, percent: int) -> float:
    """Milliseconds; of attach and detach, the sum of both."""
    return sum(
        played.percentile(name, percent) for name in (("attach", "detach") if step == "detach" else (step,))
    )


def run(given: argparse.Namespace) -> dict[str, Any]:
    """One server, all operations. Raises `Unreachable`."""
    with ExitStack() as stack:
        generators = stack.enter_context(Generators(given.generators))
        token = os.environ.get("BENCH_TOKEN", "")
        if given.token_file:
            try:
                token = given.token_file.read_text().strip()
            except OSError as error:
                raise Unreachable(f"{given.token_file}: {error.strerror}") from None
        starts: list[float] = []
        pids, beside, folder = given.pid, given.beside_pid, None
        url, data = given.url, given.data
        if not url:
            if data is None:
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tallystone-bench-")))
                database = None
                if given.store == "postgresql":
                    database, pid = stack.enter_context(postgresql())
                    beside = [*beside, pid]
                token, data = serving.new_workspace(folder, database), folder / "data"
            more = shlex.split(given.serve)
            server = stack.enter_context(serving.ours(data, token, given.workers, more))
            url, pids = server.url, [server.pid]
            starts.append(server.first)
        result: dict[str, Any] = {
            "name": given.name or _name(given),
            "machine": machine.described(folder),
            "blocks": given.blocks,
            "seconds": given.seconds,
            "rounds": given.rounds,
            "generators": given.generators,
            "store": None if given.url or given.data else given.store,
            "workers": given.workers,
            "memory": {"at_start": machine.memory(*pids) if pids else None},
            "rows": [],
        }
        note(f"{result['name']}: setting up {given.blocks} blocks")
        scene, _ = set_up(Target(url, token), given.blocks, max(given.connections))
        for found in measure(generators, (url, token), scene, given, pids, beside):
            result["rows"].append(found)
            print(line(found), flush=True)
        result["memory"]["after"] = machine.memory(*pids) if pids else None
        if not given.url:
            server.stop()
            for _ in range(given.starts):
                with serving.ours(data, token, given.workers, more) as server:
                    starts.append(server.first)
            result["first_answer_s"] = [round(seconds, 2) for seconds in starts]
            print(f"first answer after {result['first_answer_s']} s; memory {result['memory']}")
    return result


def _name(given: argparse.Namespace) -> str:
    if given.url:
        return str(given.url)
    workers = "1 worker" if given.workers == 1 else f"{given.workers} workers"
    return f"{given.data or STORES[given.store]}, {workers}"


def line(found: dict[str, Any]) -> str:
    """A row, for the terminal."""
    refused = " ".join(f"{count}×{status}" for status, count in found["refused"].items())
    spent = ""
    if "server_ms" in found:
        beside = f" + {found['beside_ms']:.2f} beside" if found["beside_ms"] else ""
        spent = f"{found['server_ms']:8.2f} ms of server{beside}"
    return (
        f"{TITLES[found['operation']]:32} {found['connections']:3} conn. {found['per_second']:9.1f}/s"
        f" ({found['lowest']:.1f} to {found['highest']:.1f})  p50 {found['p50_ms']:8.2f} ms"
        f"  p99 {found['p99_ms']:8.2f} ms {spent}  {found['client_ms']:.3f} ms of client  {refused}"
    ).rstrip()


def note(text: str) -> None:
    """Progress, on stderr."""
    print(text, file=sys.stderr, flush=True)


def keep(folder: Path, result: dict[str, Any]) -> None:
    """Put a run into dropin.json, in place of the one with the same name."""
    path = folder / "dropin.json"
    runs = json.loads(path.read_text())["runs"] if path.exists() else []
    places = [place for place, one in enumerate(runs) if one["name"] == result["name"]]
    if places:
        runs[places[0]] = result
    else:
        runs.append(result)
    path.write_text(json.dumps({"runs": runs}, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def options() -> argparse.ArgumentParser:
    """What can be said on the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m bench dropin",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--url", help="base URL of a server that runs; without it, ours is started")
    parser.add_argument("--token-file", type=Path, help="the bearer token (also: BENCH_TOKEN)")
    parser.add_argument("--pid", type=int, nargs="*", default=[], help="the running server's processes")
    parser.add_argument("--beside-pid", type=int, nargs="*", default=[], help="its database's, counted apart")
    parser.add_argument(
        "--data", help="what our server serves, if no new workspace on SQLite; needs --token-file"
    )
    parser.add_argument("--store", choices=STORES, default="sqlite", help="of a new workspace")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--serve", default="", metavar="OPTIONS", help="further options of tallystone serve")
    parser.add_argument("--name", help="what the run is called in the result")
    parser.add_argument("--connections", type=int, nargs="+", default=list(CONNECTIONS))
    parser.add_argument("--operations", nargs="+", choices=list(OPERATIONS), default=list(OPERATIONS))
    parser.add_argument("--blocks", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=3, help="of each window")
    parser.add_argument("--warm", type=float, default=0.5, help="seconds before each window")
    parser.add_argument("--rounds", type=int, default=3, help="windows of each operation")
    parser.add_argument(
        "--starts", type=int, default=STARTS, help="of our server once more, with the data there"
    )
    parser.add_argument("--generators", type=int, default=1, help="processes that send requests")
    parser.add_argument("--write", type=Path, metavar="DIR", help="keep the run in dropin.json there")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """See the module."""
    given = options().parse_args(arguments)
    try:
        result = run(given)
    except Unreachable as error:
        note(f"error: {error}")
        return 1
    if given.write is not None:
        keep(given.write, result)
    return 0
