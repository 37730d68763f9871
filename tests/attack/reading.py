"""Which rows a question reads: edits of other rows change nothing of its answer.

A question is a pure function of the rows that it reads, of the keys of whoever asks, and of the clock. So a question of
which no row was touched need not be asked again: it would read what it read of the original, and answer the same.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tallystone.store.protocol import Batch, Put, Row
from tallystone.store.sqlite import SqliteSnapshot, SqliteStore
from tallystone.store.tables import Table

Place = tuple[str, Row]
"""A table and a whole key, or the beginning of one: every row under it."""


@dataclass
class Watch:
    """What was read and what was written while it lasted. The log's own rows, which every commit adds, are left out."""

    read: set[Place] = field(default_factory=set)
    written: set[Place] = field(default_factory=set)

    def reaches(self, read: set[Place]) -> bool:
        """Whether what was written lies among what somebody reads."""
        return any((table, key[:size]) in read for table, key in self.written for size in range(len(key) + 1))


@contextmanager
def watched() -> Iterator[Watch]:
    """Note what every store in this process is asked for; what it answers stays its own."""
    watch = Watch()
    get, scan, rows, commit = SqliteSnapshot.get, SqliteSnapshot.scan, SqliteSnapshot.rows, SqliteStore.commit

    def watched_get(self: SqliteSnapshot, table: Table, key: Row) -> Row | None:
        watch.read.add((table.name, key))
        return get(self, table, key)

    def watched_scan(self: SqliteSnapshot, table: Table, prefix: Row, **options: Any) -> list[Row]:
        watch.read.add((table.name, prefix))
        return scan(self, table, prefix, **options)

    def watched_rows(self: SqliteSnapshot, table: Table) -> Iterator[Row]:
        watch.read.add((table.name, ()))
        return rows(self, table)

    def watched_commit(self: SqliteStore, batch: Batch, *queued: Any) -> int:
        watch.read |= {(one.table.name, one.key) for one in batch.expects}
        watch.written |= {
            (one.table.name, one.table.key_of(one.row) if isinstance(one, Put) else one.key)
            for one in batch.changes
        }
        return commit(self, batch, *queued)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SqliteSnapshot, "get", watched_get)
        patch.setattr(SqliteSnapshot, "scan", watched_scan)
        patch.setattr(SqliteSnapshot, "rows", watched_rows)
        patch.setattr(SqliteStore, "commit", watched_commit)
        yield watch


def touched(original: Path, edited: Path, table: Table) -> set[Place]:
    """The keys of all rows of a table that are in one of the two databases only."""
    connection = sqlite3.connect(edited)
    try:
        connection.execute("ATTACH ? AS original", (str(original),))
        found: set[Place] = set()
        key, cells = ", ".join(table.key), ", ".join(table.all_columns)
        for left, right in (("main", "original"), ("original", "main")):
            rows = f"SELECT {cells} FROM {left}.{table.name} EXCEPT SELECT {cells} FROM {right}.{table.name}"
            found |= {(table.name, row) for row in connection.execute(f"SELECT {key} FROM ({rows})")}
        return found
    finally:
        connection.close()
