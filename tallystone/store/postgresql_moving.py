"""PostgreSQL as the source and as the target of a copy: see `moving`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar

import psycopg

from tallystone.errors import StoreError
from tallystone.store import postgresql_statements as statements
from tallystone.store._schema import UNFINISHED, check_current, migrations
from tallystone.store.moving import check_begun, occupied
from tallystone.store.postgresql import PostgresqlSnapshot
from tallystone.store.postgresql_failure import LOST, PgError, Unstorable, refused, translate
from tallystone.store.postgresql_schema import LOCK, format_of, migrate, schema_findings
from tallystone.store.postgresql_scrub import vacuum
from tallystone.store.postgresql_session import Session, connect, decode, encode
from tallystone.store.tables import TABLES, WORKSPACE, WS, Row, Table

NAME = "tallystone copy"
"""What our sessions are called, so that they are told from those of a server, which are called `tallystone`."""
_COPY_LOCK = LOCK + 1
"""The key of the advisory lock that whoever copies into a database holds."""
_PATIENCE = 3.0
"""Seconds until the sessions of a server that has just ended are gone too."""
_PAUSE = 0.1

_OURS = (
    "SELECT set_config('application_name', %s, false),"
    " set_config('idle_in_transaction_session_timeout', '0', false)"
)
_OTHERS = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'tallystone'"
_COPY_HEAD = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_COPY_END = b"\xff\xff"

_T = TypeVar("_T")


def _asked(call: Callable[[], _T]) -> _T:
    """What `call` answers; PostgreSQL's errors in our words."""
    try:
        return call()
    except PgError as error:
        failure = error
    except psycopg.Error as error:
        failure = PgError(error.sqlstate or LOST)
    raise translate(failure)  # outside of the handler: the error's text may hold what a row does


def _session(url: str) -> Session:
    session = Session(url)
    session.connection.execute(_OURS, (NAME,))
    return session


class _Lender:
    """Sessions for snapshots, one for each."""

    def __init__(self, url: str) -> None:
        self._url = url

    def _take_session(self) -> Session:
        return _asked(lambda: _session(self._url))

    def _replace_session(self, broken: Session) -> Session:
        broken.close()
        return _session(self._url)

    def _return_session(self, session: Session) -> None:
        session.close()


class _CopySnapshot(PostgresqlSnapshot):
    """A view of a copy that is not finished."""

    def schema_findings(self, *, deep: bool = True) -> list[tuple[str, str]]:
        return _asked(lambda: schema_findings(self._begun_session().connection, deep=deep, unfinished=True))


class PostgresqlSource(_Lender):
    """The store in the database at `url`. See `Source`."""

    def __init__(self, url: str) -> None:
        """Raises `StoreError`, `older_format` if it was not brought up to date."""
        super().__init__(url)

        def check() -> None:
            with connect(url) as connection:
                check_current(format_of(connection))

        _asked(check)

    def __repr__(self) -> str:
        return "PostgresqlSource()"  # the URL may hold a password

    def snapshot(self) -> PostgresqlSnapshot:
        """See `Source.snapshot`."""
        return PostgresqlSnapshot(self)

    def count(self) -> int:
        """See `Source.count`."""
        counts = " + ".join(f'(SELECT count(*) FROM "{table.name}")' for table in TABLES)

        def ask() -> int:
            with connect(self._url) as connection:
                row = connection.execute(f"SELECT {counts}".encode()).fetchone()
            return 0 if row is None else int(row[0])

        return _asked(ask)

    @contextmanager
    def hold(self) -> Iterator[None]:
        """See `Source.hold`. Every commit locks the log's head, so whoever holds that lock stops them all; that no
        server is there at all is told by its sessions."""
        session = self._take_session()
        try:
            _asked(lambda: self._seize(session))
            yield
        finally:
            session.close()

    def _seize(self, session: Session) -> None:
        until = time.monotonic() + _PATIENCE
        while _number(session, _OTHERS):
            if time.monotonic() >= until:
                raise StoreError(
                    "the store is in use", hint="stop the server and other commands", code="busy"
                )
            time.sleep(_PAUSE)  # of a command: nothing tells when the others have let go
        session.command(b"BEGIN")
        session.command(b"LOCK TABLE log_head IN EXCLUSIVE MODE")

    def close(self) -> None:
        """See `Source.close`."""


class PostgresqlTarget(_Lender):
    """The database at `url`, to be a store. See `Target`."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._writer: Session | None = None
        self._durable = ""
        self._stale = False

    def __repr__(self) -> str:
        return "PostgresqlTarget()"  # the URL may hold a password

    def begin(self, workspace: Row) -> None:
        """See `Target.begin`."""

        def begin() -> None:
            self._writer = session = _session(self._url)
            # Ends with the session, however that ends; `lock_timeout` bounds the wait for one that was just killed.
            session.command(b"SELECT pg_advisory_lock(%d)" % _COPY_LOCK)
            self._durable = str(_value(session, "SHOW synchronous_commit"))
            # What is lost when the server's machine fails is copied again; `finish` waits for all.
            session.command(b"SELECT set_config('synchronous_commit', 'off', false)")
            with session.connection.transaction():
                self._make(session, workspace)

        _asked(begin)

    def _make(self, session: Session, workspace: Row) -> None:
        numbers: list[int] = []
        if _value(session, "SELECT to_regclass('schema_version')") is not None:
            rows = session.connection.execute("SELECT number FROM schema_version ORDER BY number").fetchall()
            numbers = [int(number) for (number,) in rows]
        if UNFINISHED in numbers:
            found = session.run(statements.get(WORKSPACE, (WS,)))
            row = next(iter(decode(statements.KINDS[WORKSPACE.name], found)), None)
            check_begun(row, workspace, numbers, [*migrations(), UNFINISHED])
        else:
            if numbers and _number(session, "SELECT count(*) FROM workspace"):
                raise occupied("the database")
            migrate(session.connection, create=True)
            session.connection.execute("INSERT INTO schema_version (number) VALUES (%s)", (UNFINISHED,))
        session.run(statements.put(WORKSPACE, workspace))

    def snapshot(self) -> PostgresqlSnapshot:
        """See `Target.snapshot`."""
        return _CopySnapshot(self)

    def append(self, table: Table, rows: list[Row]) -> None:
        """See `Target.append`: by COPY."""
        session, columns = self._open(), ", ".join(f'"{column}"' for column in table.all_columns)

        def write() -> None:
            with session.connection.cursor() as cursor, cursor.copy(command.encode()) as copy:
                copy.write(encoded)

        command = f'COPY "{table.name}" ({columns}) FROM STDIN (FORMAT BINARY)'
        encoded = _encoded(table, rows)
        _asked(write)

    def change(self, table: Table, puts: list[Row], deletes: list[Row]) -> None:
        """See `Target.change`."""
        session = self._open()
        try:
            calls = [statements.delete(table, key) for key in deletes]
            calls += [statements.put(table, row) for row in puts]
        except Unstorable:
            raise refused() from None
        self._stale = True

        def write() -> None:
            with session.connection.transaction():
                session.run_all(calls)

        _asked(write)

    def finish(self) -> None:
        """See `Target.finish`."""
        session = self._open()

        def finish() -> None:
            session.connection.execute("SELECT set_config('synchronous_commit', %s, false)", (self._durable,))
            # A commit that is durable makes durable what was committed before it.
            session.connection.execute("DELETE FROM schema_version WHERE number = %s", (UNFINISHED,))

        _asked(finish)
        if self._stale:
            # What was erased at the source meanwhile should not stay in dead rows here. The copy is done without it.
            with suppress(PgError, psycopg.Error):
                vacuum(session)

    def close(self) -> None:
        """See `Target.close`."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _open(self) -> Session:
        if self._writer is None:
            raise StoreError("the copy is not begun", code="closed")
        return self._writer


def _encoded(table: Table, rows: list[Row]) -> bytes:
    """Rows in the binary form of COPY."""
    kinds = statements.KINDS[table.name]
    width = len(kinds).to_bytes(2, "big")
    parts = [_COPY_HEAD]
    try:
        for row in rows:
            parts.append(width)
            for cell in encode(kinds, row):
                if cell is None:
                    parts.append(b"\xff\xff\xff\xff")
                else:
                    parts += (len(cell).to_bytes(4, "big"), cell)
    except Unstorable:
        raise refused() from None
    parts.append(_COPY_END)
    return b"".join(parts)


def _value(session: Session, query: str) -> object:
    row = session.connection.execute(query.encode()).fetchone()
    return None if row is None else row[0]


def _number(session: Session, query: str) -> int:
    return int(str(_value(session, query)))
