"""The store in PostgreSQL: any number of processes on any number of machines (ADR 0030).

Readers have sessions of their own, and wait for nobody. `postgresql_writer.py` says how the commits of all processes
keep out of each other's way.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from types import TracebackType
from typing import Protocol

import psycopg
from psycopg.pq.abc import PGresult

from tallystone.errors import StoreError
from tallystone.kept import REMOTE_ROWS
from tallystone.store import postgresql_statements as statements
from tallystone.store._commits import CommitQueue
from tallystone.store._rows import LOG, Kept, RowCache
from tallystone.store._schema import NODES_SINCE
from tallystone.store._settling import Committing
from tallystone.store.postgresql_failure import LOST, PgError, Unstorable, translate
from tallystone.store.postgresql_following import join, view_calls, view_state
from tallystone.store.postgresql_schema import Connection, migrate, schema_findings
from tallystone.store.postgresql_scrub import vacuum
from tallystone.store.postgresql_session import Call, Session, connect, decode
from tallystone.store.postgresql_writer import Writer
from tallystone.store.protocol import Batch, Moment, Sequencer
from tallystone.store.tables import Cell, Row, Table
from tallystone.waiting import Turns

_IDLE_SESSIONS = 32
_FETCH = 256
NO_SUCH = ("42P01", "42703")
"""A table or a column is missing."""
_READ = b"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"


class Sessions(Protocol):
    """Who lends a snapshot its session."""

    def _take_session(self) -> Session: ...

    def _replace_session(self, broken: Session) -> Session: ...

    def _return_session(self, session: Session) -> None: ...


class PostgresqlSnapshot:
    """A `Snapshot` on a session that is ours until the `with` block ends. For one thread at a time: those that give way
    to each other there (`waiting`) ask one after the other."""

    __slots__ = ("_begun", "_cursors", "_kept", "_length", "_rows", "_session", "_store", "_turns")

    def __init__(self, store: Sessions, rows: RowCache | None = None) -> None:
        """`rows`: what the process has read before; without it, every answer is the database's."""
        self._store, self._rows = store, rows
        self._session: Session | None = None
        self._turns = Turns()
        self._begun = False
        self._cursors = 0
        self._kept: Kept | None = None
        self._length = 0

    def __enter__(self) -> PostgresqlSnapshot:
        self._session = self._store._take_session()
        self._begun, self._cursors = False, 0
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        session, self._session, self._kept = self._session, None, None
        if session is not None:
            self._store._return_session(session)

    def get(self, table: Table, key: Row) -> Row | None:
        """See `Snapshot.get`."""
        if not self._begun:
            self._begin()
        kept, place = self._kept, (table.name, key)
        if kept is not None:
            known = kept.young.get(place)
            if known is None or known[0] > self._length:
                known = kept.find(place, self._length)
            if known is not None:
                row: Row | None = known[1]
                return row
        try:
            found = self._run(table, statements.get(table, key))
        except Unstorable:
            return None
        row = found[0] if found else None
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
        if not self._begun:
            self._begin()
        kept, place = self._kept, (table.name, prefix, index, reverse, after, limit)
        if kept is not None:
            known = kept.find(place, self._length)
            if known is not None:
                return list(known[1])
        try:
            rows = self._run(table, statements.scan(table, prefix, after, limit, reverse, index))
        except Unstorable:
            return []
        if kept is not None and table.name not in LOG:
            kept.tell(place, rows, self._length)
            return list(rows)
        return rows

    def moment(self) -> Moment | None:
        """See `Snapshot.moment`."""
        if not self._begun:
            self._begin()
        kept = self._kept
        return None if kept is None else Moment(kept.serial, self._length, kept.changed)

    def unchanged(self, beginning: Row, since: Moment) -> bool:
        """See `Snapshot.unchanged`."""
        if not self._begun:
            self._begin()
        return self._kept is not None and self._kept.unchanged(beginning, since, self._length)

    def rows(self, table: Table) -> Iterator[Row]:
        """See `Snapshot.rows`."""
        self._cursors += 1
        cursor = f"c{self._cursors}"
        self._command(f"DECLARE {cursor} BINARY NO SCROLL CURSOR FOR {statements.every(table)}")
        while self._session is not None:
            some = decode(statements.KINDS[table.name], self._command(f"FETCH {_FETCH} FROM {cursor}"))
            yield from some
            if len(some) < _FETCH:
                return  # the cursor ends with the view

    def schema_findings(self, *, deep: bool = True) -> list[tuple[str, str]]:
        """See `Snapshot.schema_findings`."""
        with self._turns:
            try:
                return schema_findings(self._begun_session().connection, deep=deep)
            except psycopg.Error as error:
                raise translate(PgError(error.sqlstate or LOST)) from None

    def _command(self, text: str) -> PGresult:
        with self._turns:
            try:
                return self._begun_session().command(text.encode())
            except PgError as error:
                raise translate(error) from None

    def _run(self, table: Table, call: Call) -> list[Row]:
        with self._turns:
            try:
                return decode(statements.KINDS[table.name], self._begun_session().run(call))
            except PgError as error:
                raise translate(error) from None

    def _begin(self) -> None:
        with self._turns:
            try:
                self._begun_session()
            except PgError as error:
                raise translate(error) from None

    def _begun_session(self) -> Session:
        """The session, in this view. For whose turn it is. Raises `PgError`."""
        session = self._session
        if session is None:
            raise StoreError("the snapshot is not open", code="closed")
        if not self._begun:
            try:
                self._join(session)
            except PgError as error:
                if not error.gone:
                    raise
                # It broke while it lay idle, as those beside it will have; nothing was read yet.
                session = self._session = self._store._replace_session(session)
                self._join(session)
            self._begun = True
        return session

    def _join(self, session: Session) -> None:
        if self._rows is None:
            session.command(_READ)
            return
        try:
            _, *answers = session.run_all([(_READ.decode(), []), *view_calls(self._rows.kept)])
        except PgError as error:
            if error.state not in NO_SUCH:
                raise
            # The log check has to say so. Nothing that was kept counts for a database without a log.
            session.command(b"ROLLBACK")
            session.command(_READ)
            return
        state = view_state(*answers)
        if state is not None:
            self._kept, self._length = join(self._rows, state, session), state.head[0]


class PostgresqlStore(Committing):
    """A `Store` in the database at a URL. Use from any thread; not across a fork: open it in the child."""

    remote = True

    def __init__(self, url: str, sequencer: Sequencer, create: bool = False) -> None:
        """Connect; make the tables in an empty database if `create`; bring an older format up to date.

        `url`: a `postgresql://` URL as libpq takes it, which may leave the password to PGPASSWORD or a password file.
        Raises `StoreError`.
        """
        self._url = url
        self._sequencer = sequencer
        self._pid = os.getpid()
        self._closed = False
        self._idle: deque[Session] = deque()
        self._rows = RowCache(sequencer, REMOTE_ROWS)
        self._commits = CommitQueue(lambda group: self._writer.write(group))
        self._writer = Writer(url, sequencer, self._rows, self._commits.join)
        try:
            connection = connect(url)
            with connection:
                migrate(connection, create=create, steps={NODES_SINCE: self._derive_nodes})
        except PgError as error:
            raise translate(error) from None

    def __repr__(self) -> str:
        return "PostgresqlStore()"  # the URL may hold a password

    def __enter__(self) -> PostgresqlStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def snapshot(self) -> PostgresqlSnapshot:
        """See `Store.snapshot`."""
        return PostgresqlSnapshot(self, self._rows)

    def commit(self, batch: Batch, queued: Callable[[], None] | None = None) -> int:
        """See `Store.commit`. A batch that PostgreSQL refuses (a wrong type, a missing column) fails alone."""
        self._own_process()
        return self._commits.submit(batch, queued)

    def size(self) -> int:
        """See `Store.size`: all of the database."""
        self._own_process()
        try:
            with connect(self._url) as connection:
                row = connection.execute("SELECT pg_database_size(current_database())").fetchone()
        except PgError as error:
            raise translate(error) from None
        except psycopg.Error as error:
            raise translate(PgError(error.sqlstate or LOST)) from None
        return 0 if row is None else int(row[0])

    def scrub(self) -> bool:
        """See `Store.scrub`."""
        session = self._take_session()
        try:
            return vacuum(session)
        except PgError as error:
            raise translate(error) from None
        finally:
            self._return_session(session)

    def close(self) -> None:
        """See `Store.close`. Snapshots that are still open keep their view."""
        if os.getpid() != self._pid:
            return  # the connections are the parent's: closing them here would end its sessions
        self._commits.close()
        self._closed = True
        self._close_idle()
        self._writer.close()

    def _derive_nodes(self, connection: Connection) -> None:
        with connection.cursor("leaves") as leaves, connection.cursor() as writing:
            rows: Iterator[Row] = iter(leaves.execute("SELECT ws, seq, leaf FROM log_leaf ORDER BY ws, seq"))
            puts = self._sequencer.nodes_of(rows)
            while some := list(islice(puts, _FETCH)):
                writing.executemany(
                    "INSERT INTO log_node (ws, height, number, hash) VALUES (%s, %s, %s, %s)",
                    [put.row for put in some],
                )

    # -- readers ----------------------------------------------------------------------------------------------------

    def _own_process(self) -> None:
        if os.getpid() != self._pid:
            raise StoreError("the store was opened before a fork", hint="open it in the child", code="forked")

    def _take_session(self) -> Session:
        self._own_process()
        if self._closed:
            raise StoreError("the store is closed", code="closed")
        try:
            return self._idle.pop()
        except IndexError:
            pass
        try:
            return Session(self._url)
        except PgError as error:
            raise translate(error) from None

    def _replace_session(self, broken: Session) -> Session:
        broken.close()
        self._close_idle()
        return Session(self._url)

    def _return_session(self, session: Session) -> None:
        try:
            session.leave()
        except PgError:
            session.close()
            return
        if len(self._idle) >= _IDLE_SESSIONS:
            session.close()
            return
        self._idle.append(session)
        if self._closed:  # after the append: either `close` or we find the session
            self._close_idle()

    def _close_idle(self) -> None:
        while True:
            try:
                self._idle.pop().close()
            except IndexError:
                return
