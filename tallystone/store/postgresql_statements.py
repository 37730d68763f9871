"""The statements of `_statements.py` as PostgreSQL takes them: numbered parameters, and their cells encoded."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from itertools import count

from tallystone.store._columns import INTEGER, columns
from tallystone.store._statements import STATEMENTS, put_statement, put_statements, scan_statement
from tallystone.store.postgresql_session import Call, encode
from tallystone.store.tables import TABLES, Cell, Row, Table

KINDS: dict[str, tuple[str, ...]] = {
    name: tuple(column.kind for column in held) for name, held in columns().items()
}
"""The kinds of every table's columns, in the order of a `Row`."""


@cache
def _numbered(text: str) -> str:
    numbers = count(1)
    return re.sub(r"\?", lambda _: f"${next(numbers)}", text)


_GET = {table.name: _numbered(STATEMENTS[table.name].get) for table in TABLES}
_PUT = {table.name: _numbered(put_statement(table.name, 1)) for table in TABLES}
_DELETE = {table.name: _numbered(STATEMENTS[table.name].delete) for table in TABLES}


def get(table: Table, key: Row) -> Call:
    """The row under a full key. Raises `Unstorable`, as all of these."""
    return _GET[table.name], encode(KINDS[table.name], key)


def delete(table: Table, key: Row) -> Call:
    """Remove the row under a full key."""
    return _DELETE[table.name], encode(KINDS[table.name], key)


def put(table: Table, row: Row) -> Call:
    """Write a full row, new or in place of its namesake."""
    return _PUT[table.name], encode(KINDS[table.name], row)


def put_all(name: str, rows: list[Row]) -> Iterator[Call]:
    """Write full rows of the table `name`, each new or in place of its namesake."""
    kinds = KINDS[name]
    for text, some in put_statements(name, rows):
        yield _numbered(text), [cell for row in some for cell in encode(kinds, row)]


def scan(table: Table, prefix: Row, after: Cell, limit: int | None, reverse: bool, index: str | None) -> Call:
    """See `Snapshot.scan`."""
    text = scan_statement(table, len(prefix), after is not None, reverse, index)
    kinds = KINDS[table.name]
    cells = encode(kinds, prefix)
    if after is not None:
        ordering = table.all_columns.index(index) if index is not None else len(prefix)
        cells += encode((kinds[ordering],), (after,))
    # No limit is NULL here, where SQLite says -1.
    return _numbered(text), [*cells, *encode((INTEGER,), (None if limit is None else max(limit, 0),))]


def every(table: Table) -> str:
    """All rows in the order of the keys."""
    return STATEMENTS[table.name].all
