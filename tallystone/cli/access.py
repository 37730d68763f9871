"""`tallystone access`: who holds which right on which block, as far as the caller may know."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from tallystone.cli.place import Place, Usage
from tallystone.cli.terminal import emit, say, table
from tallystone.letta.access_picture import draw
from tallystone.vault.types import Access

WIDEST = 8
"""Blocks that a matrix may have as columns; with more, the cells are listed."""
LETTERS = {"owner": "owner", "read": "R", "write": "RW", "share": "RS", "write+share": "RWS"}
OutFile = Annotated[Path | None, Parameter(metavar="FILE")]
AsSvg = Annotated[bool, Parameter(name="--svg", negative=(), show_default=False)]
_LEGEND = "R reads, W writes, S shares; in brackets: through a role"


def access(file: OutFile = None, /, *, svg: AsSvg = False, place: Place = Place()) -> int:
    """Show the access matrix: who holds which right on the blocks that you own or can read.

    R reads, W writes, S shares; what somebody has through a role stands in brackets.

    Parameters
    ----------
    file
        With --svg, where to write the picture. Else it goes to stdout.
    svg
        Draw it, for documentation and review.
    """
    if svg and place.as_json:
        raise Usage("--svg and --json exclude each other", hint="choose one")
    if file is not None and not svg:
        raise Usage("a file is written with --svg only", hint=f"tallystone access --svg {file}")
    with place.vault() as vault:
        cells = vault.access()
    if svg:
        _picture(draw(cells), file)
        return 0
    if place.as_json:
        emit(cells)
        return 0
    columns, rows = matrix(cells)
    if len(columns) > WIDEST + 1:
        columns = ["PRINCIPAL", "LABEL", "RIGHTS", "THROUGH", "BLOCK"]
        rows = [
            [c.name or c.principal, c.label, LETTERS.get(c.rights, c.rights), c.through, c.block_id]
            for c in cells
        ]
    table(columns, rows, empty="no blocks yet")
    if cells:
        say(_LEGEND, style="dim")
    return 0


def _picture(drawn: str, file: Path | None) -> None:
    if file is None:
        sys.stdout.buffer.write(drawn.encode())  # UTF-8, as XML is, whatever the terminal's encoding
        sys.stdout.flush()
        return
    try:
        file.write_bytes(drawn.encode())
    except OSError as problem:
        raise Usage(f"cannot write {file}: {problem.strerror}") from None


def matrix(cells: Sequence[Access]) -> tuple[list[str], list[list[str]]]:
    """The cells as a matrix: heading (principal, then one label a block) and rows, `-` where nothing is held."""
    blocks = {cell.block_id: cell.label for cell in cells}
    labels = list(blocks.values())
    heading = [
        label if labels.count(label) == 1 else f"{label} ({block[6:14]})" for block, label in blocks.items()
    ]
    principals = {cell.principal: cell.name or cell.principal for cell in cells}
    held: dict[tuple[str, str], list[Access]] = defaultdict(list)
    for cell in cells:
        held[cell.principal, cell.block_id].append(cell)
    rows = [[name, *(_cell(held[who, block]) for block in blocks)] for who, name in principals.items()]
    return ["PRINCIPAL", *heading], rows


def _cell(cells: Sequence[Access]) -> str:
    """What one principal holds on one block: letters, those that only a role gives in brackets."""
    if any(cell.rights == "owner" for cell in cells):
        return "owner"
    direct = _letters([cell for cell in cells if not cell.through])
    everything = _letters(cells)
    if direct == everything:
        return direct or "-"
    return f"{direct} ({everything})".strip()


def _letters(cells: Sequence[Access]) -> str:
    held = {letter for cell in cells for letter in LETTERS.get(cell.rights, "")}
    return "".join(letter for letter in "RWS" if letter in held)
