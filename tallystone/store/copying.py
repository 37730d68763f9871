"""Whole databases: a consistent copy while others write, and the right to put another in a database's place."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from urllib.parse import quote

from tallystone.errors import StoreError, Tampered
from tallystone.store._failure import translate
from tallystone.store._schema import migrate
from tallystone.store._statements import STATEMENTS, put_statement
from tallystone.store.protocol import Snapshot
from tallystone.store.tables import TABLES, Row, Table

PAGES = 1024
"""Pages of 4096 bytes that are copied between two calls of `progress`."""

Progress = Callable[[int, int], None]
"""Called now and then with (done, total)."""


def copy_database(source: Path, target: Path, progress: Progress | None = None) -> None:
    """Copy the database `source` to the new file `target` (mode 0600), as it is at one moment, and durably.

    Others may go on writing. Raises `StoreError` (`StoreFull` for a full disk); `target` is then to be removed.
    """

    def step(_: int, remaining: int, total: int) -> None:
        if progress is not None:
            progress(total - remaining, total)

    os.close(os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    try:
        with _closing(source) as reading, _closing(target) as writing:
            writing.execute("PRAGMA synchronous = OFF")  # fsynced once, below
            writing.execute("PRAGMA journal_mode = OFF")
            # One read transaction for all steps. Without it each step would see its own moment, and a writer in another
            # process would make SQLite begin anew each time.
            reading.execute("BEGIN")
            reading.execute("SELECT count(*) FROM sqlite_master").fetchone()
            reading.backup(writing, pages=PAGES, progress=step)
    except sqlite3.Error as error:
        raise translate(error) from error
    sync(target)


def copy_rows(source: Snapshot, target: Path, progress: Progress | None = None) -> None:
    """Write every row that `source` shows, of whichever store, into the new database `target` (mode 0600), durably.

    `progress` counts tables. Raises `StoreError`; `target` is then to be removed.
    """
    os.close(os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    try:
        with _closing(target) as writing:
            writing.execute("PRAGMA synchronous = OFF")  # fsynced once, below
            writing.execute("PRAGMA journal_mode = OFF")
            migrate(writing, create=True)
            writing.execute("BEGIN")
            for number, table in enumerate(TABLES):
                writing.executemany(put_statement(table.name, 1), source.rows(table))
                if progress is not None:
                    progress(number + 1, len(TABLES))
            writing.execute("COMMIT")
    except sqlite3.Error as error:
        raise translate(error) from error
    sync(target)


class _closing:
    """A connection that is closed at the end, whatever happens."""

    def __init__(self, path: Path) -> None:
        self._connection = _connect(path, 10.0)

    def __enter__(self) -> sqlite3.Connection:
        return self._connection

    def __exit__(self, *_: object) -> None:
        self._connection.close()


def _connect(path: Path, timeout: float) -> sqlite3.Connection:
    return sqlite3.connect(
        f"file:{quote(os.fsencode(path.absolute()))}?mode=rw", uri=True, timeout=timeout, isolation_level=None
    )


def sync(path: Path) -> None:
    """Make a file, or the names in a folder, durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class Seizure:
    """A database that nobody else has open, for as long as the `with` block lasts.

    Whoever opens it meanwhile waits, and fails if the file is another by then: it is left in a mode in which SQLite
    looks for that before its first write. Raises `StoreError` (`busy`) when somebody has it open. A database that is
    too damaged to be asked is `readable=False`, and its rows cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.readable = True
        self._connection: sqlite3.Connection | None = None

    def __enter__(self) -> Seizure:
        try:
            self._connection = _connect(self.path, 0.2)
            # Leaving WAL takes the file for ourselves, folds the WAL into it and removes it: what is renamed is whole.
            (mode,) = self._connection.execute("PRAGMA journal_mode = DELETE").fetchone()
            self._connection.execute("BEGIN EXCLUSIVE")
            if mode != "delete":
                raise _in_use()
        except sqlite3.Error as error:
            self._let_go()
            problem = translate(error)
            if isinstance(problem, StoreError) and problem.code == "busy":
                raise _in_use() from None
            if not isinstance(problem, StoreError) or problem.code not in ("corrupt", "not_a_database"):
                raise problem from error
            self.readable = False
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._let_go()

    def _let_go(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def rows(self, table: Table) -> Iterator[Row]:
        """Every row of a table in the order of the keys. Raises `StoreError` or `Tampered` if they cannot be read."""
        if self._connection is None:
            raise Tampered("the store in place cannot be read")
        try:
            yield from self._connection.execute(STATEMENTS[table.name].all)
        except sqlite3.Error as error:
            raise translate(error) from error

    def replace(self, new: Path, aside: Path) -> None:
        """Put the database `new` into this one's place, and keep this one as `aside`. There is a whole database under
        the name at every moment. Raises `OSError`."""
        if not self.readable:
            for end in (
                "-wal",
                "-shm",
                "-journal",
            ):  # what belongs to the old file must not be read into the new one
                beside = self.path.with_name(self.path.name + end)
                if beside.exists():
                    beside.replace(aside.with_name(aside.name + end))
        os.link(self.path, aside)
        put_in_place(new, self.path)


def _in_use() -> StoreError:
    return StoreError("the store is in use", hint="stop the server and other commands first", code="busy")


def put_in_place(new: Path, path: Path) -> None:
    """Rename `new` to `path`, durably. Raises `OSError`."""
    os.replace(new, path)
    sync(path.parent)
