"""A view of one moment: a read transaction of SQLite's, and what the process has read of that moment before."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from types import TracebackType

from tallystone.errors import StoreError
from tallystone.store._failure import translate
from tallystone.store._rows import RowCache
from tallystone.store._schema import schema_findings
from tallystone.store._statements import STATEMENTS, scan_statement
from tallystone.store.tables import LOG_DETAIL, LOG_HEAD, LOG_LEAF, LOG_MANIFEST, LOG_NODE, Cell, Row, Table
from tallystone.waiting import PLACE

LOG = frozenset({LOG_LEAF, LOG_DETAIL, LOG_MANIFEST, LOG_NODE, LOG_HEAD})
"""Tables whose rows are always asked for: they grow with each commit, and no operation reads them twice."""

_FETCH = 256
_LENGTH = f'SELECT "size" FROM "{LOG_HEAD.name}" WHERE "ws" = 1'

# What a value that SQLite cannot bind raises: no stored key equals it.
_UNBINDABLE = (UnicodeEncodeError, OverflowError)


class Reader(sqlite3.Connection):
    """A reader's connection: how long the log was when it looked last, and SQLite's count of changes by others."""

    length = -1
    edits: int | None = None


class SqliteSnapshot:
    """A `Snapshot` on a connection that is ours until the `with` block ends. For one thread at a time."""

    __slots__ = ("_connection", "_cursors", "_give_back", "_length", "_rows", "_take")

    def __init__(
        self, take: Callable[[], Reader], give_back: Callable[[Reader], None], rows: RowCache
    ) -> None:
        self._take, self._give_back, self._rows = take, give_back, rows
        self._connection: Reader | None = None
        self._cursors: list[sqlite3.Cursor] = []
        self._length = 0

    def __enter__(self) -> SqliteSnapshot:
        connection = self._take()
        try:
            connection.execute("BEGIN")
            found = self._head(connection)
            length = self._length = found[0] if found is not None else 0
            edits = None
            if length == connection.length:
                (edits,) = connection.execute("PRAGMA data_version").fetchone()
        except sqlite3.Error as error:
            connection.close()
            raise translate(error) from error
        if edits is not None and connection.edits not in (None, edits):
            self._rows.forget(length)  # rows have changed and the log has not: somebody edits the file
        connection.length, connection.edits = length, edits
        self._rows.join(length)
        self._connection = connection
        return self

    def _head(self, connection: Reader) -> Row | None:
        try:
            row: Row | None = connection.execute(_LENGTH).fetchone()
            return row
        except sqlite3.OperationalError as error:
            if "no such table" not in str(error):
                raise
            # The log check has to say so. Nothing that was kept counts for a file without a log.
            self._rows = RowCache()
            return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        connection, self._connection = self._connection, None
        for cursor in self._cursors:
            cursor.close()
        if connection is not None:
            self._give_back(connection)

    def get(self, table: Table, key: Row) -> Row | None:
        """See `Snapshot.get`."""
        connection, place = self._open(), (table.name, key)
        kept = self._rows.find(place, self._length)
        if kept is not None:
            row: Row | None = kept[1]
            return row
        PLACE.get().tick()
        try:
            row = connection.execute(STATEMENTS[table.name].get, key).fetchone()
        except sqlite3.Error as error:
            raise translate(error) from error
        except _UNBINDABLE:
            return None
        if table not in LOG:
            self._rows.tell(place, row, self._length)
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
        connection, place = self._open(), (table.name, prefix, index, reverse, after, limit)
        kept = self._rows.find(place, self._length)
        if kept is not None:
            return list(kept[1])
        PLACE.get().tick()
        sql = scan_statement(table, len(prefix), after is not None, reverse, index)
        bound = (*prefix, *(() if after is None else (after,)), -1 if limit is None else max(limit, 0))
        try:
            rows = connection.execute(sql, bound).fetchall()
        except sqlite3.Error as error:
            raise translate(error) from error
        except _UNBINDABLE:
            return []
        if table not in LOG:
            self._rows.tell(place, rows, self._length)
            return list(rows)
        return rows

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
