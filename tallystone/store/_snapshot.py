"""A view of one moment: a read transaction of SQLite's, and what the process has read of that moment before."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from functools import partial
from types import TracebackType

from tallystone.errors import StoreError
from tallystone.store._failure import translate
from tallystone.store._rows import FAR, LOG, Kept, RowCache
from tallystone.store._schema import schema_findings
from tallystone.store._statements import STATEMENTS, scan_statement
from tallystone.store.protocol import Grown, Head, Moment
from tallystone.store.tables import LOG_HEAD, LOG_LEAF, LOG_MANIFEST, Cell, Row, Table
from tallystone.waiting import PLACE

_FETCH = 256
_HEAD = f'SELECT "size", "frontier" FROM "{LOG_HEAD.name}" WHERE "ws" = 1'
_GROWN = (
    f'SELECT l."seq", l."leaf", m."body" FROM "{LOG_LEAF.name}" l LEFT JOIN "{LOG_MANIFEST.name}" m'
    f' ON m."ws" = l."ws" AND m."seq" = l."seq" WHERE l."ws" = 1 AND l."seq" >= ? ORDER BY l."seq" LIMIT {FAR + 1}'
)

# What a value that SQLite cannot bind raises: no stored key equals it.
_UNBINDABLE = (UnicodeEncodeError, OverflowError)


class Reader(sqlite3.Connection):
    """A reader's connection: the log's head when it looked last, and SQLite's count of changes by others."""

    head: Head | None = None
    edits: int | None = None


def grown(connection: sqlite3.Connection, since: int) -> list[Grown]:
    """The leaves from a number on, with their manifests, for `RowCache.follow`."""
    return connection.execute(_GROWN, (since,)).fetchall()


class SqliteSnapshot:
    """A `Snapshot` on a connection that is ours until the `with` block ends. For one thread at a time."""

    __slots__ = ("_connection", "_cursors", "_give_back", "_kept", "_length", "_rows", "_take")

    def __init__(
        self, take: Callable[[], Reader], give_back: Callable[[Reader], None], rows: RowCache | None
    ) -> None:
        """`rows`: what the process has read before; without it, every answer is the file's."""
        self._take, self._give_back, self._rows = take, give_back, rows
        self._connection: Reader | None = None
        self._cursors: list[sqlite3.Cursor] = []
        self._kept: Kept | None = None
        self._length = 0

    def __enter__(self) -> SqliteSnapshot:
        connection = self._take()
        try:
            connection.execute("BEGIN")
            head = self._head(connection) if self._rows is not None else None
            if self._rows is not None and head is not None:
                self._kept, self._length = self._join(self._rows, connection, head), head[0]
        except sqlite3.Error as error:
            connection.close()
            raise translate(error) from error
        self._connection = connection
        return self

    def _join(self, rows: RowCache, connection: Reader, head: Head) -> Kept:
        """What was read before, as far as it counts at this head."""
        edits = None
        if head == connection.head:
            (edits,) = connection.execute("PRAGMA data_version").fetchone()
        edited = edits is not None and connection.edits not in (None, edits)
        connection.head, connection.edits = head, edits
        kept = rows.kept
        if edited:  # rows have changed and the log has not: somebody edits the file
            kept = rows.restart(head)
        elif not kept.passed(head):
            with rows.committing:  # ours may be durable, and not told yet
                kept = rows.follow(head, partial(grown, connection))
        elif kept.crossed and rows.aged(kept):  # also if others have been silent since
            kept = rows.restart(head)
        return kept

    def _head(self, connection: Reader) -> Head | None:
        try:
            head: Head | None = connection.execute(_HEAD).fetchone()
            return head
        except sqlite3.OperationalError as error:
            if "no such table" not in str(error):
                raise
            # The log check has to say so. Nothing that was kept counts for a file without a log.
            return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        connection, self._connection, self._kept = self._connection, None, None
        for cursor in self._cursors:
            cursor.close()
        if connection is not None:
            self._give_back(connection)

    def get(self, table: Table, key: Row) -> Row | None:
        """See `Snapshot.get`."""
        kept, place = self._kept, (table.name, key)
        if kept is not None:
            found = kept.young.get(place)
            if found is None or found[0] > self._length:
                found = kept.find(place, self._length)
            if found is not None:
                row: Row | None = found[1]
                return row
        connection = self._open()
        PLACE.get().tick()
        try:
            row = connection.execute(STATEMENTS[table.name].get, key).fetchone()
        except sqlite3.Error as error:
            raise translate(error) from error
        except _UNBINDABLE:
            return None
        if kept is not None and table.name not in LOG:
            kept.tell(place, row, self._length)
        return row

    def scan(
        self,
        table: Table,
        prefix: Row,
        *,
        after: Cell = None,
        limit: int | None = None,
        reverse: bool = False,
        index: str | None = None,
    ) -> list[Row]:
        """See `Snapshot.scan`."""
        kept, place = self._kept, (table.name, prefix, index, reverse, after, limit)
        if kept is not None:
            found = kept.find(place, self._length)
            if found is not None:
                return list(found[1])
        connection = self._open()
        PLACE.get().tick()
        sql = scan_statement(table, len(prefix), after is not None, reverse, index)
        bound = (*prefix, *(() if after is None else (after,)), -1 if limit is None else max(limit, 0))
        try:
            rows = connection.execute(sql, bound).fetchall()
        except sqlite3.Error as error:
            raise translate(error) from error
        except _UNBINDABLE:
            return []
        if kept is not None and table.name not in LOG:
            kept.tell(place, rows, self._length)
            return list(rows)
        return rows

    def moment(self) -> Moment | None:
        """See `Snapshot.moment`."""
        kept = self._kept
        return None if kept is None else Moment(kept.serial, self._length, kept.changed)

    def unchanged(self, beginning: Row, since: Moment) -> bool:
        """See `Snapshot.unchanged`."""
        return self._kept is not None and self._kept.unchanged(beginning, since, self._length)

    def rows(self, table: Table) -> Iterator[Row]:
        """See `Snapshot.rows`."""
        try:
            cursor = self._open().execute(STATEMENTS[table.name].all)
            self._cursors.append(cursor)
            while self._connection is not None and (some := cursor.fetchmany(_FETCH)):
                yield from some
        except sqlite3.Error as error:
            raise translate(error) from error

    def schema_findings(self, *, deep: bool = True) -> list[tuple[str, str]]:
        """See `Snapshot.schema_findings`."""
        try:
            return schema_findings(self._open(), deep=deep)
        except sqlite3.Error as error:
            raise translate(error) from error

    def _open(self) -> Reader:
        if self._connection is None:
            raise StoreError("the snapshot is not open", code="closed")
        return self._connection
