"""The tables of docs/benchmarks.md and the pictures beside it, from the results that the suites keep there.

    python -m bench report           writes what has changed
    python -m bench report --check   writes nothing; 1 if something would change

A table stands between `<!-- bench:NAME -->` and `<!-- /bench:NAME -->`. Nobody edits it by hand.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from bench.curve import Line, draw
from bench.overhead import SIDES, TARGETS
from bench.rooms import ROOMS
from bench.scripts import TITLES

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGE = "benchmarks.md"
NOT_YET = "*Not measured yet.*"
_PART = re.compile(r"(<!-- bench:([a-z-]+) -->\n).*?(<!-- /bench:\2 -->)", re.DOTALL)


def page(docs: Path) -> str:
    """The page with its tables as the results say."""
    text = (docs / PAGE).read_text(encoding="utf-8")
    return _PART.sub(lambda part: f"{part[1]}\n{TABLES[part[2]](docs)}\n\n{part[3]}", text)


def pictures(docs: Path) -> dict[str, str]:
    """File names and contents of the pictures for which there are results."""
    found = {}
    growth, costs = _result(docs, "growth"), _result(docs, "costs")
    if growth is not None:
        found["growth.svg"] = draw(growth_lines(growth), "blocks", "milliseconds, median, commit included")
    if costs is not None:
        found["costs.svg"] = draw(cost_lines(costs), "recipients or members", "milliseconds, commit included")
    return found


def cost_lines(costs: dict[str, Any]) -> list[Line]:
    """What sharing and revoking cost, a line for each operation."""
    names = dict.fromkeys(row["what"] for row in costs["rows"])
    return [
        Line(name, [(row["count"], row["ms"]) for row in costs["rows"] if row["what"] == name])
        for name in names
    ]


def growth_lines(growth: dict[str, Any]) -> list[Line]:
    """A line for each operation, of the points with the fewer users."""
    few = [
        one for one in growth["points"] if one["users"] == min(point["users"] for point in growth["points"])
    ]
    names = [name for name in few[0]["operations"] if "first" not in name]
    return [Line(name, [(one["blocks"], one["operations"][name]["p50_ms"]) for one in few]) for name in names]


def _result(docs: Path, name: str) -> dict[str, Any] | None:
    path = docs / f"{name}.json"
    found: dict[str, Any] | None = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    return found


def _table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines)


def _span(numbers: Sequence[float]) -> str:
    return f"{min(numbers):.2f} to {max(numbers):.2f}"


def machine_of(described: dict[str, Any]) -> str:
    """The machine in a sentence."""
    one = described
    return (
        f"{one['cores']} cores of {one['processor']}, {one['memory_gb']} GB, {one['kernel']}, {one['file_system']};"
        f" Python {one['python']}, SQLite {one['sqlite']}, cryptography {one['cryptography']}, starlette"
        f" {one['starlette']}, uvicorn {one['uvicorn']}. Load when it began: {one['load']}."
    )


def overhead(docs: Path) -> str:
    """Ours against the twin."""
    found = _result(docs, "overhead")
    if found is None:
        return NOT_YET
    rows = [
        (
            TITLES[one["operation"]],
            f"{one['ours']['per_second']:,.0f}",
            f"{one['twin']['per_second']:,.0f}",
            f"**{one['ratio']:.2f}** ({_span(one['ratios'])})",
            TARGETS.get(one["operation"], ""),
            f"{one['fibers']['per_second']:,.0f}",
            f"**{one['fibers_ratio']:.2f}** ({_span(one['fibers_ratios'])})",
            " / ".join(f"{one[side]['cpu_ms']:.2f}" for side in SIDES),
            " / ".join(f"{one[side]['p50_ms']:.1f}" for side in SIDES),
            " / ".join(f"{one[side]['p99_ms']:.1f}" for side in SIDES),
        )
        for one in found["rows"]
    ]
    columns = (
        "",
        "ours, a second",
        "twin",
        "ratio (spread)",
        "aim",
        "twin on fibers",
        "ratio",
        "processor ms, ours / twin / on fibers",
        "p50 ms",
        "p99 ms",
    )
    said = (
        f"{found['connections']} connections, {found['blocks']:,} blocks, {found['pairs']} pairs of"
        f" {found['seconds']:g} s."
    )
    return f"{_table(columns, rows)}\n\n{said} {machine_of(found['machine'])}"


def spent(docs: Path) -> str:
    """Where our time goes, by room."""
    found = _result(docs, "overhead")
    if found is None or not found["rooms"]:
        return NOT_YET
    costs = {one["operation"]: one["ours"]["cpu_ms"] for one in found["rows"]}
    operations = list(found["rooms"])

    def cell(room: str, operation: str) -> str:
        share = found["rooms"][operation].get(room, 0.0)
        return f"{share:.0%} ({share * costs[operation]:.2f} ms)"

    rows = [(room, *(cell(room, operation) for operation in operations)) for room in (*ROOMS, "other")]
    return _table(("", *(TITLES[operation] for operation in operations)), rows)


def dropin(docs: Path) -> str:
    """All runs, each operation at its best number of connections and alone."""
    found = _result(docs, "dropin")
    if found is None:
        return NOT_YET
    parts = []
    for run in found["runs"]:
        rows = []
        for operation in dict.fromkeys(one["operation"] for one in run["rows"]):
            each = [one for one in run["rows"] if one["operation"] == operation]
            cells = [
                f"{one['per_second']:,.0f} · {one['p50_ms']:.1f} · {one['p99_ms']:.1f}{_refused(one)}"
                for one in each
            ]
            rows.append((TITLES[operation], *cells))
        connections = dict.fromkeys(one["connections"] for one in run["rows"])
        columns = ("", *(f"{count} connection{'s' * (count > 1)}" for count in connections))
        parts.append(
            f"**{run['name']}.** {_resources(run)}{machine_of(run['machine'])}\n\n{_table(columns, rows)}"
        )
    return "\n\n".join(parts)


def _refused(one: dict[str, Any]) -> str:
    total = sum(one["refused"].values())
    return (
        f" ({', '.join(f'{count:,} × {status}' for status, count in one['refused'].items())})"
        if total
        else ""
    )


def _resources(run: dict[str, Any]) -> str:
    said = []
    if run.get("first_answer_s"):
        said.append(
            f"First answer {min(run['first_answer_s']):.1f} to {max(run['first_answer_s']):.1f} s after the start."
        )
    before, after = run["memory"]["at_start"], run["memory"]["after"]
    if after:
        many = f"{after['processes']} processes" if after["processes"] > 1 else "one process"
        said.append(f"Memory of {many}: {before['pss_mb']:.0f} MB, after the load {after['pss_mb']:.0f} MB.")
    return "".join(f"{one} " for one in said)


def workers(docs: Path) -> str:
    """What more workers gain, against the bound that processor time sets: client and database share the cores."""
    found = _result(docs, "workers") or _result(docs, "dropin")
    runs = found["runs"] if found is not None else []
    rows = []
    for many in (run for run in runs if run["workers"] > 1 and run["store"]):
        for alone in (run for run in runs if run["workers"] == 1 and run["store"] == many["store"]):
            rows += [_gain(alone, one, many) for one in alone["rows"] if _busiest(alone, one)]
    columns = ("", "", "one worker, a second", "more", "gain", "bound", "of the bound")
    return _table(columns, [row for row in rows if row]) if rows else NOT_YET


def _busiest(run: dict[str, Any], one: dict[str, Any]) -> bool:
    return bool(one["connections"] == max(row["connections"] for row in run["rows"]))


def _gain(alone: dict[str, Any], one: dict[str, Any], many: dict[str, Any]) -> tuple[str, ...]:
    same = ("operation", "connections")
    more = [row for row in many["rows"] if all(row[name] == one[name] for name in same)]
    if not more or not one["server_ms"]:
        return ()
    found, most = gain(one, more[0], many["workers"], alone["machine"]["cores"])
    rates = f"{one['per_second']:,.0f}", f"{more[0]['per_second']:,.0f}"
    return (
        many["name"],
        TITLES[one["operation"]],
        *rates,
        f"{found:.2f}",
        f"{most:.2f}",
        f"{found / most:.2f}",
    )


def gain(one: dict[str, Any], many: dict[str, Any], workers: int, cores: int) -> tuple[float, float]:
    """How much faster so many workers are than one, and how much they can be at most, as the processor time of a
    request allows. Of each, its row."""
    rest = one["client_ms"] + one["beside_ms"]
    most = min(workers, cores * one["server_ms"] / (one["server_ms"] + rest))
    return many["per_second"] / one["per_second"], most


def growth(docs: Path) -> str:
    """All points, and the picture."""
    found = _result(docs, "growth")
    if found is None:
        return NOT_YET
    names = list(found["points"][0]["operations"])
    rows = [
        (
            f"{one['blocks']:,}",
            f"{one['users']:,}",
            *(
                f"{one['operations'][name]['p50_ms']:.1f} ({one['operations'][name]['cpu_ms']:.1f})"
                for name in names
            ),
            f"{one['memory']['rss_mb']:.0f}",
            f"{one['bytes'] / 1e6:,.0f}",
            f"{one['open_s'] * 1000:.0f}",
        )
        for one in found["points"]
    ]
    columns = ("blocks", "users", *names, "memory MB", "disk MB", "opening ms")
    picture = "![Milliseconds of each operation against the number of blocks; the table has the numbers](growth.svg)"
    return f"{_table(columns, rows)}\n\n{_steady(found)}{machine_of(found['machine'])}\n\n{picture}"


def _steady(found: dict[str, Any]) -> str:
    """How the largest size compares with the smallest, for as many users."""
    users = min(one["users"] for one in found["points"])
    few = [one for one in found["points"] if one["users"] == users]
    first, last = few[0]["operations"], few[-1]["operations"]
    each = [f"{name} {last[name]['p50_ms'] / first[name]['p50_ms']:.2f}" for name in first]
    return f"Median at {few[-1]['blocks']:,} blocks over that at {few[0]['blocks']:,}: {', '.join(each)}. "


TABLES: dict[str, Callable[[Path], str]] = {
    "overhead": overhead,
    "spent": spent,
    "dropin": dropin,
    "workers": workers,
    "growth": growth,
}


def main(arguments: list[str] | None = None) -> int:
    """See the module."""
    parser = argparse.ArgumentParser(
        prog="python -m bench report",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--check", action="store_true", help="say what would change, and write nothing")
    given = parser.parse_args(arguments)
    wanted = {PAGE: page(DOCS), **pictures(DOCS)}
    changed = 0
    for name, content in wanted.items():
        path = DOCS / name
        if path.exists() and path.read_text(encoding="utf-8") == content:
            continue
        changed += 1
        print(f"docs/{name} {'would change' if given.check else 'written'}")
        if not given.check:
            path.write_text(content, encoding="utf-8")
    return int(given.check and changed > 0)
