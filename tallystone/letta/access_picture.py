"""The access matrix as a picture: who reaches which block, as one SVG that needs no script, font or network.

Principals are rows, blocks are columns. What a principal holds itself is a filled letter, what only a role gives it an
outlined one. The colours follow the reader's light or dark scheme; what they say, the letters and shapes say too, and
`title` and `desc` say it to whoever cannot see it. Equal cells give equal bytes.

Names and labels come from others. They are text here and nothing else: markup in them is escaped, and characters that
XML forbids, or that hide or turn text, are spelled out.
"""

from __future__ import annotations

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html import escape

from tallystone.vault.types import Access

LONGEST = 40
"""Characters of a name or label that are drawn; the rest shows in the description."""

_LETTERS = {"read": "R", "write": "RW", "share": "RS", "write+share": "RWS"}
_VERBS = {"R": "reads", "RW": "reads and writes", "RS": "reads and shares", "RWS": "reads, writes and shares"}
_KINDS = {"user": "Users", "role": "Roles", "agent": "Agents"}

_ROW, _COLUMN, _CHIP, _GAP, _EDGE, _LEGEND = 30, 68, 17, 3, 20, 64
_LEGEND_WIDTH = 640
_WIDE = 7.3
"""About what a character takes at 12 pixels; two for wide ones."""

# name: (in light, in dark)
_COLOURS = {
    "ground": ("#ffffff", "#0d1117"),
    "text": ("#1f2328", "#e6edf3"),
    "dim": ("#59636e", "#9198a1"),
    "line": ("#d1d9e0", "#30363d"),
    "on": ("#ffffff", "#0d1117"),
    "R": ("#0969da", "#4493f8"),
    "W": ("#1a7f37", "#3fb950"),
    "S": ("#8250df", "#ab7df8"),
    "owner": ("#845a00", "#d29922"),
}


@dataclass(frozen=True)
class _Column:
    """A block, or `count` private ones of one label."""

    heading: str
    label: str
    count: int


@dataclass
class _Cell:
    """What one principal holds on one column."""

    owner: bool = False
    direct: set[str] = field(default_factory=set)
    roles: set[str] = field(default_factory=set)
    through: list[str] = field(default_factory=list)

    def add(self, held: Access) -> None:
        letters = _LETTERS.get(held.rights, "")
        self.owner |= held.rights == "owner"
        (self.roles if held.through else self.direct).update(letters)
        if held.through and held.through not in self.through:
            self.through.append(held.through)

    def said(self, column: _Column) -> str:
        """The cell in words."""
        if self.owner:
            return f"owns {column.heading}"
        label = column.heading if column.count == 1 else f"its own {column.label}"
        letters = "".join(letter for letter in "RWS" if letter in self.direct | self.roles)
        why = f" ({', '.join(self.through)})" if self.roles - self.direct else ""
        return f"{_VERBS[letters]} {label}{why}"


@dataclass(frozen=True)
class _Matrix:
    """`rows` are (principal, name), by kind; `cells` are by principal and column's number."""

    rows: list[tuple[str, str]]
    columns: list[_Column]
    cells: dict[tuple[str, int], _Cell]


def draw(cells: Sequence[Access], title: str = "Who can reach what") -> str:
    """The picture as SVG text, ending in a line feed. In the order of `cells`, which is that of the shelf."""
    matrix = _matrix(cells)
    names = [_short(name) for _, name in matrix.rows]
    labels = [_short(column.heading) for column in matrix.columns]
    left = _EDGE + max([_width(name) for name in names], default=60) + 16
    slant = max([_width(label) for label in labels], default=0) * 0.71
    top = 60 + slant
    kinds = {_kind(who) for who, _ in matrix.rows}
    right = left + _COLUMN * max(len(labels), 1)
    bottom = top + _ROW * (len(names) + len(kinds))
    width = max(right + slant * 0.8, _EDGE + _LEGEND_WIDTH, _EDGE + _width(title) * 1.4) + _EDGE
    height = bottom + _LEGEND
    body = [*_headings(labels, left, top, bottom), *_rows(matrix, names, left, top, right)]
    if not cells:
        body = [_text(_EDGE, top + 4, "no blocks yet", "dim")]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}"'
            f' height="{height:.0f}" role="img" aria-labelledby="access-title access-desc" font-size="12"'
            ' font-family="ui-sans-serif, system-ui, sans-serif">',
            f'<title id="access-title">{_clean(title)}</title>',
            f'<desc id="access-desc">{_clean(_description(matrix))}</desc>',
            _style(),
            f'<rect class="ground" width="100%" height="100%" rx="6" fill="{_COLOURS["ground"][0]}"/>',
            _text(_EDGE, 30, title, "text", ' font-size="16" font-weight="600"'),
            *body,
            *_legend(bottom + 36),
            "</svg>",
            "",
        ]
    )


# -- what is drawn ----------------------------------------------------------------------------------------------


def _matrix(cells: Sequence[Access]) -> _Matrix:
    blocks = {cell.block_id: cell.label for cell in cells}
    often = Counter(blocks.values())
    place: dict[str, int] = {}
    columns: list[_Column] = []
    for same in _grouped(cells, blocks):
        label, count = blocks[same[0]], len(same)
        heading = f"{label} ×{count}" if count > 1 else label if often[label] == 1 else _told(label, same[0])
        place |= dict.fromkeys(same, len(columns))
        columns.append(_Column(heading, label, count))
    named = {cell.principal: cell.name or cell.principal for cell in cells}
    namesakes = Counter(named.values())
    rows = [
        (who, name if name == who or namesakes[name] == 1 else _told(name, who))
        for kind in [*_KINDS, ""]
        for who, name in named.items()
        if _kind(who) == kind
    ]
    held: dict[tuple[str, int], _Cell] = defaultdict(_Cell)
    for cell in cells:
        held[cell.principal, place[cell.block_id]].add(cell)
    return _Matrix(rows, columns, dict(held))


def _grouped(cells: Sequence[Access], blocks: dict[str, str]) -> Iterator[list[str]]:
    """The blocks of each column. Blocks of one label share one if each is somebody else's private one (`persona ×4`):
    the same owner, and one other holder at most, who holds no other of them. Then one column says all of it."""
    holders: dict[str, set[str]] = defaultdict(set)
    owner: dict[str, str] = {}
    for cell in cells:
        holders[cell.block_id].add(cell.principal)
        if cell.rights == "owner":
            owner[cell.block_id] = cell.principal
    namesakes: dict[str, list[str]] = defaultdict(list)
    for block, label in blocks.items():
        namesakes[label].append(block)
    for same in namesakes.values():
        others = [holders[one] - {owner.get(one, "")} for one in same]
        one_owner = len({owner.get(one, one) for one in same}) == 1
        one_each = all(len(held) <= 1 for held in others) and len(set().union(*others)) == sum(
            map(len, others)
        )
        yield from [same] if one_owner and one_each else [[one] for one in same]


def _told(name: str, identity: str) -> str:
    """A name that several have, told apart by the first digits of the id."""
    return f"{name} ({identity.partition('-')[2][:8]})"


def _kind(principal: str) -> str:
    kind = principal.partition("-")[0]
    return kind if kind in _KINDS else ""


def _description(matrix: _Matrix) -> str:
    said = []
    for who, name in matrix.rows:
        does = [
            cell.said(column)
            for at, column in enumerate(matrix.columns)
            if (cell := matrix.cells.get((who, at)))
        ]
        said.append(f"{name} {', '.join(does)}.")
    return " ".join(said) or "No blocks yet."


# -- how --------------------------------------------------------------------------------------------------------


def _headings(labels: list[str], left: float, top: float, bottom: float) -> Iterator[str]:
    for at, label in enumerate(labels):
        x = left + _COLUMN * at
        yield _line(x, top, x, bottom)
        turned = f' transform="rotate(-45 {x + _COLUMN / 2:.1f} {top - 8:.1f})"'
        yield _text(x + _COLUMN / 2, top - 8, label, "text", turned)
    yield _line(left + _COLUMN * len(labels), top, left + _COLUMN * len(labels), bottom)


def _rows(matrix: _Matrix, names: list[str], left: float, top: float, right: float) -> Iterator[str]:
    y, kind = top, None
    for (who, full), name in zip(matrix.rows, names, strict=True):
        if _kind(who) != kind:
            kind = _kind(who)
            yield _text(_EDGE, y + 20, _KINDS.get(kind, "Others"), "dim", ' font-size="11"')
            y += _ROW
            yield _line(_EDGE, y, right, y)
        yield _text(_EDGE, y + 19, name, "text")
        for at, column in enumerate(matrix.columns):
            cell = matrix.cells.get((who, at))
            if cell is not None:
                yield f"<g><title>{_clean(f'{full} {cell.said(column)}')}</title>"
                yield from _chips(cell, left + _COLUMN * at + 5, y + 6)
                yield "</g>"
        y += _ROW
        yield _line(_EDGE, y, right, y)


def _chips(cell: _Cell, x: float, y: float) -> Iterator[str]:
    if cell.owner:
        yield _chip(x, y, "owner", "owner", 3 * _CHIP + 2 * _GAP)
        return
    for at, letter in enumerate("RWS"):
        if letter in cell.direct | cell.roles:
            yield _chip(x + (_CHIP + _GAP) * at, y, letter, letter, filled=letter in cell.direct)


def _chip(x: float, y: float, word: str, colour: str, width: float = _CHIP, *, filled: bool = True) -> str:
    shade = _COLOURS[colour][0]
    drawn = f'class="{colour}" fill="{shade}"'
    if not filled:
        drawn = f'class="{colour}-rim" fill="none" stroke="{shade}" stroke-width="1.5"'
    inset = 0 if filled else 0.75  # so that the rim stays within the chip
    box = (
        f'<rect {drawn} x="{x + inset:.1f}" y="{y + inset:.1f}" width="{width - 2 * inset:.1f}"'
        f' height="{_CHIP - 2 * inset:.1f}" rx="4"/>'
    )
    middle = ' text-anchor="middle" font-size="11" font-weight="600"'
    return box + _text(x + width / 2, y + 12.5, word, "on" if filled else colour, middle)


def _legend(y: float) -> Iterator[str]:
    x: float = _EDGE
    for letter, word in (("R", "reads"), ("W", "writes"), ("S", "shares")):
        yield _chip(x, y - 13, letter, letter) + _text(x + _CHIP + 6, y, word, "dim")
        x += _CHIP + _width(word) + 20
    x += 14
    for filled, word in ((True, "its own"), (False, "through a role")):
        yield _chip(x, y - 13, "R", "R", filled=filled) + _text(x + _CHIP + 6, y, word, "dim")
        x += _CHIP + _width(word) + 20
    yield _text(x, y, "empty: not addressable", "dim")


def _style() -> str:
    dark = []
    for name, (_, shade) in _COLOURS.items():
        rule = f".{name}-rim{{stroke:{shade}}}" if name in ("R", "W", "S") else ""
        dark.append(f".line{{stroke:{shade}}}" if name == "line" else f".{name}{{fill:{shade}}}{rule}")
    return f"<style>@media (prefers-color-scheme: dark){{{''.join(dark)}}}</style>"


def _line(x1: float, y1: float, x2: float, y2: float) -> str:
    where = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line class="line" {where} stroke="{_COLOURS["line"][0]}"/>'


def _text(x: float, y: float, words: str, colour: str, more: str = "") -> str:
    where = f'class="{colour}" x="{x:.1f}" y="{y:.1f}" fill="{_COLOURS[colour][0]}"'
    return f"<text {where}{more}>{_clean(words)}</text>"


def _short(text: str) -> str:
    """What is drawn of a text: escapes count, or a name of nothing but controls would be drawn at full length."""
    text = _spelled(text)
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def _width(text: str) -> float:
    return _WIDE * sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)


def _clean(text: str) -> str:
    return escape(_spelled(text))


def _spelled(text: str) -> str:
    return "".join(f"\\u{{{ord(char):x}}}" if _unfit(char) else char for char in text)


def _unfit(char: str) -> bool:
    """Whether a character may not stand in XML (controls, surrogates, U+FFFE and U+FFFF), or hides or turns text."""
    return unicodedata.category(char) in {"Cc", "Cf", "Cs", "Zl", "Zp"} or char in "\ufffe\uffff"
