"""A curve on two logarithmic axes, as SVG: enough for a page of the documentation.

It needs no script, font or network. The colours follow the reader's light or dark scheme; each line has a mark of its
own besides its colour, and `title` and `desc` say in words what is drawn.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 760, 420, 70, 230, 20, 50
COLOURS = (
    ("#0969da", "#4493f8"),
    ("#d1242f", "#f85149"),
    ("#1a7f37", "#3fb950"),
    ("#845a00", "#d29922"),
    ("#8250df", "#ab7df8"),
    ("#59636e", "#9198a1"),
)
"""Of each line, in light and in dark."""
_GROUND, _TEXT, _GRID = ("#ffffff", "#0d1117"), ("#1f2328", "#e6edf3"), ("#d1d9e0", "#30363d")
_MARKS = (
    "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0 -8 0z",
    "M-4 -4h8v8h-8z",
    "M0 -5l5 9h-10z",
    "M0 -5l5 5l-5 5l-5 -5z",
    "M0 5l5 -9h-10z",
    "M-5 -1.5h10v3h-10z",
)


@dataclass(frozen=True)
class Line:
    """A named series of (x, y), both above 0."""

    name: str
    points: list[tuple[float, float]]


def draw(lines: list[Line], across: str, up: str) -> str:
    """The picture. `across` and `up` name the axes."""
    x0, x1 = _decades([x for line in lines for x, _ in line.points])
    y0, y1 = _decades([y for line in lines for _, y in line.points])

    def place(x: float, y: float) -> tuple[float, float]:
        along = (math.log10(x) - x0) / (x1 - x0)
        high = (math.log10(y) - y0) / (y1 - y0)
        return LEFT + along * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - high * (HEIGHT - TOP - BOTTOM)

    title = f"{up} against {across}"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif"'
        ' font-size="12" role="img" aria-labelledby="title desc">',
        f'<title id="title">{escape(title)}</title>',
        f'<desc id="desc">{escape(_said(lines, across))}</desc>',
        f"<style>{_style()}</style>",
        f'<rect class="ground" width="{WIDTH}" height="{HEIGHT}"/>',
    ]
    for power in range(x0, x1 + 1):
        x, bottom = place(10**power, 10**y0)
        _, top = place(10**power, 10**y1)
        parts.append(f'<line class="grid" x1="{x:.1f}" y1="{top:.1f}" x2="{x:.1f}" y2="{bottom:.1f}"/>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 16:.1f}" text-anchor="middle">{10**power:,}</text>')
    for power in range(y0, y1 + 1):
        left, y = place(10**x0, 10**power)
        right, _ = place(10**x1, 10**power)
        parts.append(f'<line class="grid" x1="{left:.1f}" y1="{y:.1f}" x2="{right:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{left - 8:.1f}" y="{y + 4:.1f}" text-anchor="end">{10**power:,g}</text>')
    for number, line in enumerate(lines):
        spots = [place(x, y) for x, y in line.points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in spots)
        parts.append(f'<polyline class="l{number % len(COLOURS)}" points="{path}"/>')
        parts += [_mark(number, x, y) for x, y in spots]
        row = TOP + 14 + 20 * number
        parts.append(_mark(number, WIDTH - RIGHT + 20, row - 4))
        parts.append(f'<text x="{WIDTH - RIGHT + 34}" y="{row}">{escape(line.name)}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 10}" text-anchor="middle">{escape(across)}</text>')
    turned = f'text-anchor="middle" transform="rotate(-90 16 {HEIGHT / 2})"'
    parts.append(f'<text x="16" y="{HEIGHT / 2}" {turned}>{escape(up)}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _mark(number: int, x: float, y: float) -> str:
    kind = number % len(COLOURS)
    return f'<path class="m{kind}" d="{_MARKS[kind]}" transform="translate({x:.1f} {y:.1f})"/>'


def _style() -> str:
    return "".join(_rules(0)) + "@media (prefers-color-scheme: dark){" + "".join(_rules(1)) + "}"


def _rules(scheme: int) -> Iterator[str]:
    yield f".ground{{fill:{_GROUND[scheme]}}}text{{fill:{_TEXT[scheme]}}}.grid{{stroke:{_GRID[scheme]}}}"
    for number, colour in enumerate(COLOURS):
        yield f".l{number}{{fill:none;stroke-width:2;stroke:{colour[scheme]}}}.m{number}{{fill:{colour[scheme]}}}"


def _said(lines: list[Line], across: str) -> str:
    """The numbers in words."""
    return (
        ". ".join(f"{line.name}: {', '.join(f'{y:,g} at {x:,g}' for x, y in line.points)}" for line in lines)
        + f" ({across})."
    )


def _decades(values: list[float]) -> tuple[int, int]:
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return low, max(high, low + 1)
