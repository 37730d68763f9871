"""What each column may hold, read from the migrations: the one place that says so."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from functools import cache

from tallystone.store._schema import migrate
from tallystone.store.tables import TABLES

INTEGER, BLOB, TEXT = "INTEGER", "BLOB", "TEXT"


@dataclass(frozen=True, slots=True)
class Column:
    """A column's name, its kind (`INTEGER`, `BLOB` or `TEXT`), and whether it may be NULL."""

    name: str
    kind: str
    nullable: bool


@cache
def columns() -> dict[str, tuple[Column, ...]]:
    """The columns of every table of ours, in the order of a `Row`."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        migrate(connection, create=True)
        return {
            table.name: tuple(
                Column(str(name), str(kind), not required)
                for _, name, kind, required, *_ in connection.execute(f'PRAGMA table_info("{table.name}")')
            )
            for table in TABLES
        }
