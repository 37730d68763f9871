"""The store in one SQLite file: WAL, every commit fsynced, several processes welcome.

Writes of concurrent callers share a transaction (`_commits.py`). Readers have connections of their own, and
wait for nobody. Deleted rows are overwritten in the file (`secure_delete`).
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from itertools import chain, islice
from pathlib import Path
from types import TracebackType
from typing import TypeAlias
from urllib.parse import quote

from tallystone.errors import StoreError, Tampered
from tallystone.kept import PAGES_OF_READER, PAGES_OF_WRITER
from tallystone.store._commits import CommitQueue, Ticket
from tallystone.store._failure import is_environmental, translate
from tallystone.store._file import prepare_file
from tallystone.store._rows import Kept, RowCache
from tallystone.store._schema import NODES_SINCE, migrate, migrations, newer_format
from tallystone.store._scrub import empty_wal
from tallystone.store._settling import Committing, Find, GroupWriter, conflict, settle
from tallystone.store._snapshot import Reader, SqliteSnapshot, grown
from tallystone.store._statements import STATEMENTS, put_statement, put_statements
from tallystone.store.protocol import Batch, Head, Sequencer
from tallystone.store.tables import LOG_HEAD, LOG_LEAF, WS, Cell, Row, Table
from tallystone.waiting import PLACE

BUSY_SECONDS = 10.0
"""How long we wait for another process before `StoreError` with code `busy`."""

AGE = 2.0
"""Seconds after which nothing that was read is kept across a commit of another process: an edit of the file might hide
behind such commits, whose number SQLite does not tell."""

_STEP = 0.0005
_NO_WAIT = "PRAGMA busy_timeout = 0"
"""For the writer, who asks again by itself: see `_take_turn`."""
_IDLE_READERS = 64  # more than a server has threads: opening one costs a hundred reads
_FETCH = 256
_GET_HEAD = STATEMENTS[LOG_HEAD.name].get
_GET_LEAF = STATEMENTS[LOG_LEAF.name].get

_Execute: TypeAlias = Callable[[str, tuple[Cell, ...]], sqlite3.Cursor]


class SqliteStore(Committing):
    """A `Store` in the file `path`. Use from any thread; not across a fork: open it in the child."""

    remote = False

    def __init__(
        self,
        path: str | os.PathLike[str],
        sequencer: Sequencer,
        create: bool = False,
        *,
        page_limit: int | None = None,
    ) -> None:
        """Open the file, or make it (mode 0600) if `create`; bring an older format up to date.

        `page_limit` bounds the file's size, in pages of 4096 bytes: writes beyond it raise `StoreFull`.
        Raises `StoreError` for anything that is no Tallystone store of a format we know.
        """
        self.path = Path(path)
        self._sequencer = sequencer
        self._page_limit = page_limit
        self._pid = os.getpid()
        self._closed = False
        self._readers: deque[Reader] = deque()
        self._rows = RowCache(sequencer, age=AGE)
        self._written: tuple[int, int] | None = (
            None  # the log's length, and SQLite's count of others' changes
        )
        self._writer: sqlite3.Connection | None = None
        self._write = GroupWriter(self._write_together, self._roll_back, _strikes_all, _told)
        self._commits = CommitQueue(self._write)
        prepare_file(self.path, create=create)
        connection = self._connect()
        try:
            (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
            if mode != "wal":
                raise StoreError(
                    "the store's file system does not allow WAL", hint="use a local disk", code="no_wal"
                )
            migrate(connection, create=create, steps={NODES_SINCE: self._derive_nodes})
            connection.execute(_NO_WAIT)
        except sqlite3.Error as error:
            connection.close()
            raise translate(error) from error
        except BaseException:
            connection.close()
            raise
        self._writer = connection

    def __enter__(self) -> SqliteStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def snapshot(self) -> SqliteSnapshot:
        """See `Store.snapshot`."""
        return SqliteSnapshot(self._take_reader, self._return_reader, self._rows)

    def commit(self, batch: Batch) -> int:
        """See `Store.commit`. A batch that SQLite refuses (a wrong type, a missing column) fails alone."""
        self._own_process()
        return self._commits.submit(batch)

    def size(self) -> int:
        """See `Store.size`: the file and its write-ahead log."""
        paths = (self.path, self.path.with_name(f"{self.path.name}-wal"))
        return sum(path.stat().st_size for path in paths if path.exists())

    def scrub(self) -> bool:
        """See `Store.scrub`."""
        self._own_process()
        return empty_wal(self._connect())

    def close(self) -> None:
        """See `Store.close`. Snapshots that are still open keep their view."""
        if os.getpid() != self._pid:
            return  # the connections are the parent's: closing them here would drop its locks
        self._commits.close()
        self._closed = True
        self._close_readers()
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _derive_nodes(self, connection: sqlite3.Connection) -> None:
        leaves = connection.execute(STATEMENTS[LOG_LEAF.name].all)
        puts = self._sequencer.nodes_of(iter(leaves.fetchone, None))
        while some := list(islice(puts, _FETCH)):
            _put_all(connection.execute, some[0].table.name, [put.row for put in some])

    def _connect(self, *, reader: bool = False) -> sqlite3.Connection:
        try:
            connection = sqlite3.connect(
                f"file:{quote(os.fsencode(self.path.absolute()))}?mode=rw",
                uri=True,
                timeout=BUSY_SECONDS,
                isolation_level=None,
                factory=Reader if reader else sqlite3.Connection,
                check_same_thread=False,  # a connection has one user at a time, not one thread for life
            )
        except sqlite3.Error as error:
            raise translate(error) from error
        try:
            # Nothing in a stored schema may call functions, and sorting never spills to another file.
            connection.execute("PRAGMA trusted_schema = OFF")
            connection.execute("PRAGMA temp_store = MEMORY")
            pages = PAGES_OF_READER if reader else PAGES_OF_WRITER
            connection.execute(f"PRAGMA cache_size = -{pages // 1024}")  # a negative number counts KiB
            if reader:
                connection.execute("PRAGMA query_only = ON")
            else:
                connection.execute("PRAGMA synchronous = FULL")
                connection.execute("PRAGMA fullfsync = ON")
                connection.execute("PRAGMA secure_delete = ON")
                connection.execute("PRAGMA journal_size_limit = 67108864")
                if self._page_limit is not None:
                    connection.execute(f"PRAGMA max_page_count = {int(self._page_limit)}")
        except sqlite3.Error as error:
            connection.close()
            raise translate(error) from error
        return connection

    def _own_process(self) -> None:
        if os.getpid() != self._pid:
            raise StoreError("the store was opened before a fork", hint="open it in the child", code="forked")

    def _take_reader(self) -> Reader:
        self._own_process()
        if self._closed:
            raise StoreError("the store is closed", code="closed")
        try:
            return self._readers.pop()
        except IndexError:
            connection = self._connect(reader=True)
            assert isinstance(connection, Reader)
            return connection

    def _return_reader(self, connection: Reader) -> None:
        try:
            connection.execute("ROLLBACK")
        except sqlite3.Error:
            connection.close()
            return
        if len(self._readers) >= _IDLE_READERS:
            connection.close()
            return
        self._readers.append(connection)
        if self._closed:  # after the append: either `close` or we find the connection
            self._close_readers()

    def _close_readers(self) -> None:
        while True:
            try:
                self._readers.pop().close()
            except IndexError:
                return

    # Below: called by the commit queue, one thread at a time.

    def _write_together(self, group: list[Ticket], grows: bool) -> None:
        connection = self._writer
        if connection is None:
            connection = self._writer = self._connect()
            connection.execute(_NO_WAIT)
        execute = connection.execute
        _take_turn(execute)
        if grows:  # another process may have kept us waiting
            self._commits.join(group)
        row: Row | None = execute(_GET_HEAD, (WS,)).fetchone()
        head: Head | None = None if row is None else _state(row)
        size = 0 if head is None else head[0]
        edited, alone = self._look(execute, size)
        kept = self._follow(connection, head)
        if edited:
            for ticket in group:
                ticket.error = conflict() if ticket.batch.expects else None
            group = [ticket for ticket in group if ticket.error is None]
        if execute(_GET_LEAF, (WS, size)).fetchone() is not None:
            # An older head was put back, or a leaf put in: going on would write over what the log already says.
            raise Tampered(
                "the log has leaves beyond its head", hint="tallystone audit verify names the place"
            )
        # Settled in memory first, then every row is written once, many to a statement: each statement gives up the
        # interpreter lock, and getting it back among busy threads costs more than the statement.
        sure = alone and kept.head[0] == size
        find = self._find(execute, kept, size, alone)
        events, changes = settle(group, size, find, kept.still if sure else lambda _: False)
        if not events and not changes:
            execute("ROLLBACK")
            return
        log = self._sequencer.sequence(row, events, changes)
        puts: dict[str, list[Row]] = {}
        for table, key, row in changes:
            if row is None:
                execute(STATEMENTS[table.name].delete, key)
            else:
                puts.setdefault(table.name, []).append(row)
        for put in log:
            puts.setdefault(put.table.name, []).append(put.row)
        for name, rows in puts.items():
            _put_all(execute, name, rows)
        after = next(_state(put.row) for put in log if put.table is LOG_HEAD)

        def finish() -> None:
            with self._rows.committing:
                execute("COMMIT")
                self._sequencer.durable()
                self._rows.committed(head, after, changes)

        # All before this is work, which gains nothing in another thread; this waits for the disk. Whoever holds
        # `committing` needs nothing of the place that it came from: others there may wait for it.
        PLACE.get().aside(finish)
        if self._written is not None:
            self._written = after[0], self._written[1]

    def _look(self, execute: _Execute, size: int) -> tuple[bool, bool]:
        """(whether rows have changed since this writer last wrote, and the log does not tell of it: then somebody edits
        the file, and what was read before is no answer any more; whether nobody else has written since)."""
        (edits,) = execute("PRAGMA data_version", ()).fetchone()
        alone = self._written is not None and edits == self._written[1]
        if not alone:  # another process wrote, perhaps a later version
            (number,) = execute("SELECT max(number) FROM schema_version", ()).fetchone()
            if number > max(migrations()):
                raise newer_format(number)
        edited = self._written is not None and not alone and size == self._written[0]
        if edited or self._written is None:  # of what was before our first look, nothing is known
            self._rows.restart()
        self._written = size, edits
        return edited, alone

    def _follow(self, connection: sqlite3.Connection, head: Head | None) -> Kept:
        """What was read before, at the head that this commit goes on from."""
        kept = self._rows.kept
        if kept.head != head:
            with self._rows.committing:
                kept = self._rows.follow(head or (0, b""), partial(grown, connection))
        return kept

    def _find(self, execute: _Execute, kept: Kept, size: int, alone: bool) -> Find:
        """Finds rows as they are, for a writer: nobody else changes them meanwhile. If others have written since we
        did, an edit may hide among what they wrote: then the file is asked, and if what is kept says otherwise, all of
        that is forgotten."""

        def ask(table: Table, key: Row) -> Row | None:
            row: Row | None = execute(STATEMENTS[table.name].get, key).fetchone()
            return row

        def look(table: Table, key: Row) -> Row | None:
            found = kept.find((table.name, key), size)
            if found is None:
                return ask(table, key)
            row: Row | None = found[1]
            return row

        def compare(table: Table, key: Row) -> Row | None:
            row, found = ask(table, key), kept.find((table.name, key), size)
            if found is not None and found[1] != row:
                self._rows.restart()
            return row

        if kept.head[0] != size:
            return ask
        return look if alone else compare

    def _roll_back(self) -> None:
        connection = self._writer
        if connection is None:
            return
        try:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        except sqlite3.Error:
            # The next write begins with a new connection; SQLite drops the transaction with this one.
            self._writer = self._written = None
            connection.close()


def _take_turn(execute: _Execute) -> None:
    """Begin to write. SQLite itself would ask again in steps of up to 100 ms; another process's commit takes a few."""
    if not _begins(execute):
        PLACE.get().aside(partial(_wait_for_turn, execute))


def _wait_for_turn(execute: _Execute) -> None:
    until = time.monotonic() + BUSY_SECONDS
    while not _begins(execute, last=time.monotonic() >= until):
        time.sleep(_STEP)  # nobody tells us when the file is free


def _begins(execute: _Execute, *, last: bool = False) -> bool:
    """Whether the file is ours to write. Raises what SQLite says when it is not and this was the `last` time."""
    try:
        execute("BEGIN IMMEDIATE", ())
    except sqlite3.OperationalError as error:
        if last or error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
            raise
        return False
    return True


def _strikes_all(error: Exception) -> bool:
    return isinstance(error, sqlite3.Error) and is_environmental(error)


def _told(error: Exception) -> Exception:
    return translate(error) if isinstance(error, sqlite3.Error) else error


def _state(row: Row) -> Head:
    _, size, packed, _ = row
    assert isinstance(size, int) and isinstance(packed, bytes)
    return size, packed


def _put_all(execute: _Execute, name: str, rows: list[Row]) -> None:
    if len(rows) == 1:
        execute(put_statement(name, 1), rows[0])
        return
    for statement, some in put_statements(name, rows):
        execute(statement, tuple(chain.from_iterable(some)))
