"""`tallystone access`: who holds which right on which block, as far as the caller may know."""

from __future__ import annotations

from collections.abc import Sequence

from tallystone.cli.place import Place
from tallystone.cli.terminal import emit, table
from tallystone.vault.types import Access

WIDEST = 8
"""Blocks that a matrix may have as columns; with more, the cells are listed."""


def access(*, place: Place = Place()) -> int:
    """Show the access matrix: who holds which right on the blocks that you own or can read."""
    with place.vault() as vault:
        cells = vault.access()
    if place.as_json:
        emit(cells)
        return 0
    columns, rows = matrix(cells)
    if len(columns) > WIDEST + 1:
        columns = ["PRINCIPAL", "LABEL", "RIGHTS", "BLOCK"]
        rows = [[cell.name or cell.principal, cell.label, cell.rights, cell.block_id] for cell in cells]
    table(columns, rows, empty="no blocks yet")
    return 0


def matrix(cells: Sequence[Access]) -> tuple[list[str], list[list[str]]]:
    """The cells as a matrix: heading (principal, then one label a block) and rows, `-` where nothing is held."""
    blocks = {cell.block_id: cell.label for cell in cells}
    labels = list(blocks.values())
    heading = [
        label if labels.count(label) == 1 else f"{label} ({block[6:14]})" for block, label in blocks.items()
    ]
    principals = {cell.principal: cell.name or cell.principal for cell in cells}
    held = {(cell.principal, cell.block_id): cell.rights for cell in cells}
    rows = [[name, *(held.get((who, block), "-") for block in blocks)] for who, name in principals.items()]
    return ["PRINCIPAL", *heading], rows
