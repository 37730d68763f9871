"""The table of docs/soak.md, from docs/soak.json beside it. Nobody edits it by hand."""

from __future__ import annotations

import json
import re
import statistics
from pathlib import Path
from typing import Any

PAGE, RESULT = "soak.md", "soak.json"
NOT_YET = "*Not run yet: `make soak`.*"
_PART = re.compile(r"(<!-- soak -->\n).*?(<!-- /soak -->)", re.DOTALL)
_NEAR = 15
"""Seconds around a moment whose looks at the memory count for it."""


def page(docs: Path) -> str:
    """The page with its table as the result says."""
    path = docs / RESULT
    made = table(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else NOT_YET
    text = (docs / PAGE).read_text(encoding="utf-8")
    return _PART.sub(lambda part: f"{part[1]}\n{made}\n\n{part[2]}", text)


def write(docs: Path) -> None:
    """Write the page anew."""
    (docs / PAGE).write_text(page(docs), encoding="utf-8")


def table(result: dict[str, Any]) -> str:
    """A result as a table."""
    done, killed, outages = result["acknowledged"], result["killed"], result["outages_s"]
    rows = [
        ("clients, workers, minutes", f"{result['clients']}, {result['workers']}, {result['minutes']:g}"),
        ("acknowledged", _counts(done)),
        ("a second", f"{sum(done.values()) / result['seconds']:.0f}"),
        ("killed", _counts(killed)),
        ("from the loss of a primary to the next acknowledged change", _seconds(outages)),
        ("until that one had a standby again", _seconds(result["standby_again_s"])),
        ("attempts that were refused or cut off, and repeated", _counts(result["failed_attempts"])),
        ("requests that needed more than two repeats", f"{result['beyond_two_retries']:,}"),
        ("**lost, duplicated, stale or otherwise not as promised**", f"**{len(result['wrong'])}**"),
        (
            f"**findings of the log's check**, {result['leaves']:,} leaves,"
            f" against {result['checkpoints']} checkpoints from before",
            f"**{len(result['findings'])}**",
        ),
        ("memory of all processes, MB, after a minute · at the end", _growth(result, "pss_mb")),
        ("memory of the worker that was never killed", _growth(result, "spared_pss_mb")),
        ("of that, pages that it shares with no other process", _growth(result, "spared_own_mb")),
    ]
    lines = ["| | |", "| --- | --- |", *(f"| {name} | {said} |" for name, said in rows)]
    one = result["machine"]
    where = (
        f"{one['cores']} cores of {one['processor']}, {one['memory_gb']} GB, {one['kernel']}, {one['file_system']};"
        f" Python {one['python']}. Load when it began: {one['load']}. Both database servers and the clients ran on"
        " the same machine."
    )
    return "\n".join([*lines, "", *_curve(result), where])


def growth(result: dict[str, Any], name: str) -> tuple[float, float] | None:
    """MB after a minute and at the end: medians of the looks around each moment. None if there are none."""
    end = result["minutes"] * 60
    around = [
        [one[name] for one in result["memory"] if abs(one["second"] - moment) <= _NEAR and one.get(name)]
        for moment in (min(60, end), end)
    ]
    return (statistics.median(around[0]), statistics.median(around[1])) if all(around) else None


def _curve(result: dict[str, Any]) -> list[str]:
    """A line for each minute: of all together and of the worker that was never killed the median of the looks around
    it, of the other one the last look. Nothing, of a result that does not tell them apart."""
    lines = ["| minute | all, MB | never killed | its own pages | killed now and then (seconds since) |"]
    lines += ["| --- | --- | --- | --- | --- |"]
    for minute in range(1, int(result["minutes"]) + 1):
        near = [
            one for one in result["memory"] if abs(one["second"] - minute * 60) <= _NEAR and "others" in one
        ]
        if not near:
            continue
        sizes = [
            statistics.median(one[name] for one in near)
            for name in ("pss_mb", "spared_pss_mb", "spared_own_mb")
        ]
        others = ", ".join(f"{one['pss_mb']:.0f} ({one['age_s']:.0f} s)" for one in near[-1]["others"])
        lines.append(f"| {minute} | {' | '.join(f'{size:.0f}' for size in sizes)} | {others or 'none'} |")
    return [*lines, ""] if len(lines) > 2 else []


def _growth(result: dict[str, Any], name: str) -> str:
    found = growth(result, name)
    if found is None:
        return "not looked at"
    return f"{found[0]:.0f} · {found[1]:.0f} ({found[1] / found[0] - 1:+.1%})"


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} × {name}" for name, count in counts.items()) or "none"


def _seconds(times: list[float]) -> str:
    return (
        f"{min(times):.1f} to {max(times):.1f} s, median {statistics.median(times):.1f}" if times else "none"
    )
