"""SQLite as the source and as the target of a copy: see `moving`.

A copy grows under a name of its own beside the place of the store, and gets the store's name when it is whole.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

from tallystone.errors import StoreError
from tallystone.store._failure import translate
from tallystone.store._file import prepare_file
from tallystone.store._schema import (
    UNFINISHED,
    check_current,
    format_of,
    migrate,
    migrations,
    schema_findings,
)
from tallystone.store._snapshot import Reader, SqliteSnapshot
from tallystone.store._statements import STATEMENTS, put_statement
from tallystone.store.copying import put_in_place, sync
from tallystone.store.moving import check_begun, occupied
from tallystone.store.tables import TABLES, WORKSPACE, WS, Row, Table

HALF = ".copying"
"""What follows the store's name in that of a copy which is not finished."""
_BUSY_SECONDS = 10.0
_HOLD_SECONDS = 0.5


def _connect(path: Path, timeout: float = _BUSY_SECONDS) -> Reader:
    try:
        connection = sqlite3.connect(
            f"file:{quote(os.fsencode(path.absolute()))}?mode=rw",
            uri=True,
            timeout=timeout,
            isolation_level=None,
            factory=Reader,
        )
    except sqlite3.Error as error:
        raise translate(error) from error
    connection.execute("PRAGMA trusted_schema = OFF")
    connection.execute("PRAGMA temp_store = MEMORY")
    return connection


class _CopySnapshot(SqliteSnapshot):
    """A view of a copy that is not finished."""

    def schema_findings(self, *, deep: bool = True) -> list[tuple[str, str]]:
        try:
            return schema_findings(self._open(), deep=deep, unfinished=True)
        except sqlite3.Error as error:
            raise translate(error) from error


class SqliteSource:
    """The store in the file `path`. See `Source`."""

    def __init__(self, path: Path) -> None:
        """Raises `StoreError`, `older_format` if it was not brought up to date."""
        self._path = path
        self._held: Reader | None = None
        prepare_file(path, create=False)
        connection = self._take_reader()
        try:
            check_current(format_of(connection))
        except sqlite3.Error as error:
            raise translate(error) from error
        finally:
            connection.close()

    def snapshot(self) -> SqliteSnapshot:
        """See `Source.snapshot`."""
        return SqliteSnapshot(self._take_reader, self._return_reader, None)

    def count(self) -> int:
        """See `Source.count`."""
        connection = self._take_reader()
        try:
            counts = (
                connection.execute(f'SELECT count(*) FROM "{table.name}"').fetchone() for table in TABLES
            )
            return sum(int(count) for (count,) in counts)
        except sqlite3.Error as error:
            raise translate(error) from error
        finally:
            self._return_reader(connection)

    @contextmanager
    def hold(self) -> Iterator[None]:
        """See `Source.hold`. SQLite gives the file to one connection only if nobody else has it open, even idle."""
        connection = _connect(self._path, _HOLD_SECONDS)
        try:
            try:
                connection.execute("PRAGMA locking_mode = EXCLUSIVE")
                connection.execute("BEGIN EXCLUSIVE")
                connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
                connection.execute("COMMIT")  # the lock stays, as locking_mode says
                connection.execute("PRAGMA query_only = ON")
            except sqlite3.Error as error:
                raise translate(error) from error
            self._held = connection
            yield
        finally:
            self._held = None
            connection.close()

    def close(self) -> None:
        """See `Source.close`."""

    def _take_reader(self) -> Reader:
        if self._held is not None:
            return self._held
        connection = _connect(self._path)
        connection.execute("PRAGMA query_only = ON")
        return connection

    def _return_reader(self, connection: Reader) -> None:
        if connection is not self._held:
            connection.close()
        elif connection.in_transaction:
            connection.execute("ROLLBACK")


class SqliteTarget:
    """The store of the data directory `folder`, to be. See `Target`."""

    def __init__(self, folder: Path, name: str) -> None:
        """`name`: the store's file in it."""
        self._folder = folder
        self._final = folder / name
        self._path = folder / f"{name}{HALF}"
        self._writer: sqlite3.Connection | None = None
        self._lock = -1

    def begin(self, workspace: Row) -> None:
        """See `Target.begin`."""
        self._take_folder()
        if self._final.exists():
            raise occupied(str(self._folder))
        fresh = not self._path.exists()
        prepare_file(self._path, create=True)
        try:
            self._writer = writer = _connect(self._path)
            # Consistent whenever the power goes, and durable at `finish`: what is lost before is copied again.
            writer.execute("PRAGMA synchronous = NORMAL")
            writer.execute("PRAGMA secure_delete = ON")
            writer.execute("PRAGMA journal_mode = WAL")
            if not fresh and not _is_empty(writer):
                row = writer.execute(STATEMENTS[WORKSPACE.name].get, (WS,)).fetchone()
                found = {number for (number,) in writer.execute("SELECT number FROM schema_version")}
                # Without the mark it was finished, but did not get its name.
                check_begun(row, workspace, sorted(found | {UNFINISHED}), [*migrations(), UNFINISHED])
            else:
                migrate(writer, create=True)
            writer.execute("BEGIN IMMEDIATE")
            writer.execute("INSERT OR IGNORE INTO schema_version (number) VALUES (?)", (UNFINISHED,))
            writer.execute(put_statement(WORKSPACE.name, 1), workspace)
            writer.execute("COMMIT")
        except sqlite3.Error as error:
            raise translate(error) from error

    def snapshot(self) -> SqliteSnapshot:
        """See `Target.snapshot`."""
        return _CopySnapshot(self._take_reader, self._return_reader, None)

    def append(self, table: Table, rows: list[Row]) -> None:
        """See `Target.append`."""
        self.change(table, rows, [])

    def change(self, table: Table, puts: list[Row], deletes: list[Row]) -> None:
        """See `Target.change`."""
        writer = self._open()
        try:
            writer.execute("BEGIN IMMEDIATE")
            writer.executemany(STATEMENTS[table.name].delete, deletes)
            writer.executemany(put_statement(table.name, 1), puts)
            writer.execute("COMMIT")
        except sqlite3.Error as error:
            with suppress(sqlite3.Error):
                writer.execute("ROLLBACK")
            raise translate(error) from error

    def finish(self) -> None:
        """See `Target.finish`."""
        writer = self._open()
        try:
            writer.execute("PRAGMA synchronous = FULL")
            writer.execute("DELETE FROM schema_version WHERE number = ?", (UNFINISHED,))
            # The file alone is renamed, so all of it must be in there.
            (mode,) = writer.execute("PRAGMA journal_mode = DELETE").fetchone()
        except sqlite3.Error as error:
            raise translate(error) from error
        if mode != "delete":
            raise StoreError(
                "somebody else has the copy open", hint="end that, and run this again", code="busy"
            )
        writer.close()
        self._writer = None
        sync(self._path)
        if self._final.exists():
            raise occupied(str(self._folder))
        put_in_place(self._path, self._final)

    def close(self) -> None:
        """See `Target.close`."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _take_folder(self) -> None:
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(self._folder, os.O_RDONLY)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreError(
                "another copy to this directory is running", hint="wait for it, or end it", code="busy"
            ) from None
        except OSError as error:
            raise StoreError(
                f"cannot write in {self._folder}: {error.strerror}",
                hint="check the path and its permissions",
                code="no_access",
            ) from error

    def _open(self) -> sqlite3.Connection:
        if self._writer is None:
            raise StoreError("the copy is not begun", code="closed")
        return self._writer

    def _take_reader(self) -> Reader:
        connection = _connect(self._path)
        connection.execute("PRAGMA query_only = ON")
        return connection

    def _return_reader(self, connection: Reader) -> None:
        connection.close()


def _is_empty(connection: sqlite3.Connection) -> bool:
    (count,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    return not count
