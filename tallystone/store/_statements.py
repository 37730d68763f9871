"""The SQL of every table, composed once. Only names from `tables.py` enter the text; values are bound."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

from tallystone.store.tables import INDEXES, TABLES, Row, Table


@dataclass(frozen=True, slots=True)
class Statements:
    """One table's statements: `get` and `delete` take a full key, `all` takes nothing."""

    get: str
    delete: str
    all: str


def _names(columns: tuple[str, ...]) -> str:
    return ", ".join(f'"{column}"' for column in columns)


def _compose(table: Table) -> Statements:
    where = " AND ".join(f'"{column}" = ?' for column in table.key)
    everything = f'SELECT {_names(table.all_columns)} FROM "{table.name}"'
    return Statements(
        get=f"{everything} WHERE {where}",
        delete=f'DELETE FROM "{table.name}" WHERE {where}',
        all=f"{everything} ORDER BY {_names(table.key)}",
    )


_BY_NAME = {table.name: table for table in TABLES}
STATEMENTS: dict[str, Statements] = {table.name: _compose(table) for table in TABLES}


@cache
def put_statement(name: str, count: int) -> str:
    """The statement that writes `count` full rows of the table `name`, each new or in place of its namesake."""
    table = _BY_NAME[name]
    marks = f"({', '.join('?' * len(table.all_columns))})"
    update = ", ".join(f'"{column}" = excluded."{column}"' for column in table.columns)
    return (
        f'INSERT INTO "{table.name}" ({_names(table.all_columns)}) VALUES {", ".join([marks] * count)}'
        f" ON CONFLICT ({_names(table.key)}) DO UPDATE SET {update}"
    )


def put_statements(name: str, rows: Sequence[Row]) -> Iterator[tuple[str, Sequence[Row]]]:
    """Statements that write these rows, and which rows each of them takes: many to a statement, and few different
    numbers, so that a connection keeps every statement prepared."""
    done = 0
    while done < len(rows):
        left = len(rows) - done
        count = 1 if left < 4 else 4 if left < 16 else 16 if left < 64 else 64
        yield put_statement(name, count), rows[done : done + count]
        done += count


@cache
def scan_statement(table: Table, given: int, after: bool, reverse: bool, index: str | None) -> str:
    """The SELECT of `Snapshot.scan` for a prefix of `given` columns; its last parameter is the limit (-1:
    none).
    """
    rest = table.key[given:]
    if index is not None:
        if index not in INDEXES.get(table.name, ()) or given != len(table.key) - 1:
            raise ValueError(f"no index {index!r} under {given} columns of {table.name}")
        rest = (index, *rest)
    if after and not rest:
        raise ValueError(f"a full key of {table.name} leaves nothing to order by")
    conditions = [f'"{column}" = ?' for column in table.key[:given]]
    if after:
        conditions.append(f'"{rest[0]}" {"<" if reverse else ">"} ?')
    direction = "DESC" if reverse else "ASC"
    order = ", ".join(f'"{column}" {direction}' for column in rest)
    return (
        f'SELECT {_names(table.all_columns)} FROM "{table.name}"'
        + (f" WHERE {' AND '.join(conditions)}" if conditions else "")
        + (f" ORDER BY {order}" if order else "")
        + " LIMIT ?"
    )
