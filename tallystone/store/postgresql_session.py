"""One session with PostgreSQL: prepared statements, binary cells, several statements in one round trip.

psycopg connects, and this speaks to its libpq directly: a look-up by key costs 12 µs of our processor time that way,
63 µs through a cursor. Every column is a bigint, a bytea or a text, so there is nothing to adapt.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TypeAlias, TypeVar

import psycopg
from psycopg import pq
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from tallystone.store._columns import BLOB, INTEGER, TEXT
from tallystone.store.postgresql_failure import LOST, READ_ONLY, PgError, Unstorable
from tallystone.store.tables import Cell, Row
from tallystone.waiting import PLACE

Call: TypeAlias = "tuple[str, list[bytes | None]]"
"""A statement's text with $1, $2, …, and its encoded parameters."""

_T = TypeVar("_T")

CONNECT_SECONDS = 5
"""How long a server may take to accept a connection."""
SILENT_MS = 20_000
"""How long sent bytes may stay unacknowledged by the server's machine before the connection counts as lost."""
ANSWER_SECONDS = 15
"""How long the server may say nothing while a commit waits for it, be it for its disk or for its standby, before the
connection counts as lost."""
LOCK_SECONDS = 10
"""How long we wait for another process's commit before `StoreError` with code `busy`."""
IDLE_SECONDS = 8
"""How long the server lets a transaction of ours be idle: a process that hangs must not hold the log for good."""

_ALONE = "SyncRepWaitForLSN"
"""Where the server warns of a commit whose wait for the standby was cut short. The text may be in any language."""
_FINE = (pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK)
_BINARY = int(pq.Format.BINARY)

# Statements are look-ups by key, for which one plan is right at every size of a table; a plan made while it was empty
# would read it whole for good.
_SETTINGS = {
    "client_min_messages": "warning",
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "jit": "off",
    "lock_timeout": f"{LOCK_SECONDS}s",
    "idle_in_transaction_session_timeout": f"{IDLE_SECONDS}s",
}
# Whoever set it off for the server meant other data: what is acknowledged here is durable.
_DURABLE = (
    b"SELECT set_config('synchronous_commit','on',false) WHERE current_setting('synchronous_commit')='off'"
)


_CONNECTION: dict[str, str | int] = {
    "application_name": "tallystone",
    "connect_timeout": CONNECT_SECONDS,
    "tcp_user_timeout": SILENT_MS,
    "keepalives_idle": SILENT_MS // 2000,
    "keepalives_interval": 5,
    "keepalives_count": 2,
}
"""What holds unless the URL says otherwise."""


def connect(url: str) -> psycopg.Connection[Any]:
    """A connection to the database at `url`, in autocommit. Raises `PgError`, which says nothing of the URL."""
    try:
        given = make_conninfo("", **{**_CONNECTION, **conninfo_to_dict(url)}, client_encoding="UTF8")
        return psycopg.connect(given, autocommit=True, prepare_threshold=None)
    except psycopg.Error as error:
        state = _state_of_refusal(error)
    raise PgError(state)  # outside of the handler: the error's text may hold the URL, password and all


def _state_of_refusal(error: psycopg.Error) -> str:
    """The SQLSTATE of a refused connection. libpq keeps it from us, except in the words of the server."""
    if error.sqlstate:
        return error.sqlstate
    said = str(error)
    if ("read-only" in said or "hot standby mode" in said) and "refused" not in said:
        return READ_ONLY  # all servers that the URL names
    for words, state in (
        ("password authentication failed", "28P01"),
        ("no password supplied", "28P01"),
        ("no pg_hba.conf entry", "28000"),
        ("role ", "28000"),
        ("database ", "3D000"),
        ("too many clients", "53300"),
        ("remaining connection slots", "53300"),
    ):
        if words in said and "FATAL" in said:
            return state
    return LOST


class Session:
    """A connection of ours, for one at a time. Whoever waits for an answer does so as its place does (`waiting`)."""

    def __init__(self, url: str) -> None:
        """Connect. Raises `PgError`."""
        made: list[psycopg.Connection[Any]] = []
        PLACE.get().aside(lambda: made.append(connect(url)))
        self.connection = made[0]
        self._libpq = self.connection.pgconn
        self._prepared: dict[str, bytes] = {}
        self._names = 0
        self._leaving = False  # whether the answer to a rollback is still to be taken
        self.alone = False
        """Whether a commit was answered though the standby that it should have waited for may lack it."""
        self.connection.add_notice_handler(self._warned)
        try:
            settings = ", ".join(f"set_config('{name}','{value}',false)" for name, value in _SETTINGS.items())
            self.command(b"SELECT " + settings.encode())
            self.command(_DURABLE)
        except BaseException:
            self.close()
            raise

    def _warned(self, notice: psycopg.errors.Diagnostic) -> None:
        self.alone = self.alone or notice.source_function == _ALONE

    @property
    def idle(self) -> bool:
        """Whether the session is whole and in no transaction."""
        return bool(
            self._libpq.status == pq.ConnStatus.OK
            and self._libpq.transaction_status == pq.TransactionStatus.IDLE
        )

    def close(self) -> None:
        """End the session. The server rolls back what was not committed."""
        with suppress(Exception):
            self.connection.close()

    def leave(self) -> None:
        """End the transaction, if there is one, and do not wait for the answer: whoever uses the session next finds it.
        Raises `PgError`."""
        if self._leaving or self.idle:
            return
        self._call(lambda: self._libpq.send_query(b"ROLLBACK"))
        self._leaving = True

    def _arrive(self) -> None:
        """Take the answer to the rollback of whoever used the session before."""
        self._leaving = False
        while (result := self._result()) is not None:
            self._checked(result)

    def command(self, text: bytes) -> pq.abc.PGresult:
        """Run a statement without parameters. Raises `PgError`."""
        return self._checked(self._call(lambda: self._answer(lambda: self._libpq.send_query(text))))

    def run(self, call: Call) -> pq.abc.PGresult:
        """Run one statement. Raises `PgError`."""
        text, cells = call
        name = self._prepared.get(text)
        if name is None:
            name = self._name()
            self._checked(
                self._call(lambda: self._answer(lambda: self._libpq.send_prepare(name, text.encode())))
            )
            self._prepared[text] = name
        formats = [_BINARY] * len(cells)

        def send() -> None:
            self._libpq.send_query_prepared(name, cells, formats, _BINARY)

        return self._checked(self._call(lambda: self._answer(send)))

    def run_all(self, calls: Sequence[Call]) -> list[pq.abc.PGresult]:
        """Run these in order, in one round trip. Those after one that fails are not run. Raises `PgError`, of the first
        that failed."""
        return self._call(lambda: self._pipeline(calls))

    def _pipeline(self, calls: Sequence[Call]) -> list[pq.abc.PGresult]:
        libpq = self._libpq
        libpq.enter_pipeline_mode()
        made: dict[str, bytes] = {}
        wanted: list[
            bool
        ] = []  # of each reply: whether it is the answer to a call, or a statement was prepared
        for text, cells in calls:
            name = self._prepared.get(text) or made.get(text)
            if name is None:
                name = made[text] = self._name()
                libpq.send_prepare(name, text.encode())
                wanted.append(False)
            libpq.send_query_prepared(name, cells, [_BINARY] * len(cells), _BINARY)
            wanted.append(True)
        libpq.pipeline_sync()
        self._send()
        replies = [self._reply() for _ in wanted]
        self._reply()  # of the sync itself
        libpq.exit_pipeline_mode()
        answers = [self._checked(reply) for reply in replies]
        self._prepared.update(made)
        return [answer for answer, asked in zip(answers, wanted, strict=True) if asked]

    def _answer(self, send: Callable[[], None]) -> pq.abc.PGresult:
        """The answer to one statement, the last if it was of several."""
        send()
        self._send()
        answer = None
        while (result := self._result()) is not None:
            if answer is None or answer.status in _FINE:
                answer = result
        if answer is None:
            raise PgError(LOST)
        return answer

    def _send(self) -> None:
        """Send what is queued, and read meanwhile: the server may wait for us to take its answers."""
        libpq = self._libpq
        while libpq.flush():
            self._await(writing=True)
            libpq.consume_input()

    def _reply(self) -> pq.abc.PGresult:
        result = self._result()
        if result is None:
            raise PgError(LOST)
        if result.status != pq.ExecStatus.PIPELINE_SYNC:
            self._result()  # None: the end of this statement's results
        return result

    def _result(self) -> pq.abc.PGresult | None:
        # `get_result` would wait with the interpreter lock in its hands, and no other thread could run meanwhile.
        while self._libpq.is_busy():
            self._await()
            self._libpq.consume_input()
        return self._libpq.get_result()

    def _await(self, *, writing: bool = False) -> None:
        if not PLACE.get().ready(self._libpq.socket, ANSWER_SECONDS, writing=writing):
            self.close()
            raise PgError(LOST)

    def _name(self) -> bytes:
        self._names += 1  # never twice: a statement that was prepared before an error is still there
        return b"t%d" % self._names

    def _call(self, call: Callable[[], _T]) -> _T:
        try:
            if self._leaving:
                self._arrive()
            return call()
        except psycopg.Error:
            raise PgError(LOST) from None
        except PgError:
            raise
        except BaseException:  # an interrupt amid a conversation: nobody knows where it stands
            self.close()
            raise

    def _checked(self, result: pq.abc.PGresult) -> pq.abc.PGresult:
        if result.status not in _FINE:
            state = result.error_field(pq.DiagnosticField.SQLSTATE)
            if state is None and self._libpq.status == pq.ConnStatus.OK:
                raise PgError("XX000")
            raise PgError((state or b"").decode())
        return result


# -- cells ------------------------------------------------------------------------------------------------------


_pack = struct.Struct(">q").pack


def encode(kinds: Sequence[str], cells: Sequence[Cell]) -> list[bytes | None]:
    """Cells as PostgreSQL takes them in binary. Raises `Unstorable` for one that its column cannot hold."""
    out: list[bytes | None] = []
    try:
        for kind, cell in zip(kinds, cells, strict=False):
            if cell is None:
                out.append(None)
            elif kind == BLOB and isinstance(cell, (bytes, bytearray, memoryview)):
                out.append(bytes(cell))
            elif kind == INTEGER and isinstance(cell, int):
                out.append(_pack(cell))
            elif kind == TEXT and isinstance(cell, str) and "\0" not in cell:
                out.append(cell.encode())
            else:
                raise Unstorable
    except (struct.error, UnicodeEncodeError):
        raise Unstorable from None
    return out


def decode(kinds: Sequence[str], result: pq.abc.PGresult) -> list[Row]:
    """The rows of a result, whose columns are of these kinds."""
    value = result.get_value
    readers = [_READ[kind] for kind in kinds]
    return [
        tuple(
            [
                None if (cell := value(row, column)) is None else read(cell)
                for column, read in enumerate(readers)
            ]
        )
        for row in range(result.ntuples)
    ]


def _integer(cell: bytes) -> int:
    return int.from_bytes(cell, "big", signed=True)


def _blob(cell: bytes) -> bytes:
    return cell


def _text(cell: bytes) -> str:
    return cell.decode()


_READ: dict[str, Callable[[bytes], Cell]] = {INTEGER: _integer, BLOB: _blob, TEXT: _text}
