"""The commits of all processes on PostgreSQL, one after another (ADR 0030).

Every transaction locks the log's head before it reads anything else, and holds it until it is durable. So what a batch
expects is still so when it is written, whoever else writes, and READ COMMITTED is enough: each statement after the lock
sees all that was committed before it. A group costs two round trips: lock and look; write and commit.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from psycopg.pq.abc import PGresult

from tallystone.errors import StoreError, Tampered
from tallystone.store import postgresql_statements as statements
from tallystone.store._columns import INTEGER, TEXT
from tallystone.store._commits import Ticket
from tallystone.store._rows import FAR, Kept, RowCache
from tallystone.store._schema import migrations, newer_format
from tallystone.store._settling import GroupWriter, settle
from tallystone.store.postgresql_failure import (
    LOCKED,
    READ_ONLY,
    RETRIED,
    PgError,
    Unstorable,
    refused,
    translate,
)
from tallystone.store.postgresql_following import (
    NOTHING,
    NOW,
    State,
    account,
    account_own,
    grown_call,
    join,
    number_of,
    state_of,
)
from tallystone.store.postgresql_session import Call, Session, decode
from tallystone.store.protocol import Head, Put, RowChange, Sequencer
from tallystone.store.tables import LOG_HEAD, LOG_LEAF, WS, Row, Table
from tallystone.waiting import PLACE

PATIENCE = 20.0
"""Seconds to look for the outcome of a commit whose connection was lost, before it is called unknown."""
_ATTEMPTS = 10
_PAUSE = 0.05

_BEGIN: Call = ("BEGIN ISOLATION LEVEL READ COMMITTED", [])
_COMMIT: Call = ("COMMIT", [])
_LOCK_LOG: Call = ("LOCK TABLE log_head IN EXCLUSIVE MODE", [])
"""For as long as there is no head to lock."""
_HEAD: Call = (
    "SELECT ws, size, frontier, checkpoint, xmin FROM log_head WHERE ws = $1 FOR UPDATE",
    statements.get(LOG_HEAD, (WS,))[1],
)
_BEYOND: Call = (
    "SELECT seq FROM log_leaf WHERE ws = $1 AND seq >= coalesce((SELECT size FROM log_head WHERE ws = $1), 0) LIMIT 1",
    statements.get(LOG_HEAD, (WS,))[1],
)
"""A leaf beyond the log's head."""

_Place: TypeAlias = tuple[str, Row]
_Wanted: TypeAlias = dict[_Place, Table]


@dataclass(frozen=True, slots=True)
class _Composed:
    """What a transaction is to write, and the first of its leaves; at which state of the database, what was kept that
    counts there, the head of the log after it, the rows that it changes, and its number."""

    writes: list[Call]
    leaf: Put | None
    state: State | None
    joined: Kept | None
    head: Head
    changes: list[RowChange]
    number: int


class Writer:
    """Writes groups of batches, for a `CommitQueue`: one thread at a time."""

    def __init__(
        self, url: str, sequencer: Sequencer, rows: RowCache, join: Callable[[list[Ticket]], None]
    ) -> None:
        """`join`: adds to a group whoever has come while it waited."""
        self._join = join
        self.write = GroupWriter(self._write_together, self._roll_back, self._strikes_all, _told)
        self._url = url
        self._rows = rows
        self._sequencer = sequencer
        self._session: Session | None = None
        self._log_begun = False

    def _strikes_all(self, error: Exception) -> bool:
        if isinstance(error, PgError) and error.state == READ_ONLY:
            self.close()  # the next session may be with another server, or find this one changed
        return isinstance(error, PgError) and error.environmental

    def _write_together(self, group: list[Ticket], grows: bool) -> None:
        stale = self._session is not None
        for attempt in range(_ATTEMPTS):
            for ticket in group:
                ticket.first = ticket.error = None
            try:
                log = self._prepare(group, grows)
            except PgError as error:
                self._roll_back()
                again = error.state in RETRIED or (error.gone and stale)
                if not again or attempt == _ATTEMPTS - 1:
                    raise
                stale = stale and not error.gone  # a connection that broke while it was idle is replaced once
                continue
            if log is None:
                return
            if self._finish(log):
                self._sequencer.durable()
                self._tell(log)
                return
        raise PgError("40001")

    def _prepare(self, group: list[Ticket], grows: bool) -> _Composed | None:
        """Lock the log, settle the group, and compose what is to be written. None if that is nothing: the transaction
        is over then."""
        if self._session is None:
            self._session = Session(self._url)
        session, kept = self._session, self._rows.kept
        # What is kept now will be when the log is locked, unless others change it meanwhile.
        asked = {
            place: table for place, table in _wanted(group).items() if kept.find(place, kept.head[0]) is None
        }
        calls = [_BEGIN, *(() if self._log_begun else (_LOCK_LOG,)), _HEAD, NOW, grown_call(kept)]
        lookups = _lookups(asked)
        answers = session.run_all([*calls, *lookups.values()])
        _, *_, heads, now, leaves = answers[: len(calls)]
        ((seen, number, newest),) = decode((TEXT, INTEGER, INTEGER), now)
        if newest > max(migrations()):
            raise newer_format(newest)
        ends = decode((*statements.KINDS[LOG_HEAD.name], INTEGER), heads)
        head, last = (ends[0][:-1], ends[0][-1]) if ends else (None, 0)
        self._log_begun = head is not None
        size = 0 if head is None else head[1]
        state = None if head is None else state_of((head[1], head[2]), last, seen, leaves)
        if self._goes_beyond(session, kept, size, state):
            # An older head was put back, or a leaf put in: going on would write over what the log already says.
            raise Tampered(
                "the log has leaves beyond its head", hint="tallystone audit verify names the place"
            )
        found = _found(asked, lookups, answers[len(calls) :])
        joined = join(self._rows, state, session) if state is not None else None
        if grows:
            self._join(group)
        wanted = _wanted(group)
        if len(asked) < len(wanted):
            known = joined if joined is not None and joined.head[0] == size else None
            found |= self._known(session, known, size, wanted, asked)
        events, changes = settle(group, size, lambda table, key: found.get((table.name, key)))
        if not events and not changes:
            self._roll_back()
            return None
        log = self._sequencer.sequence(head, events, changes)
        try:
            writes = [statements.delete(table, key) for table, key, row in changes if row is None]
            puts: dict[str, list[Row]] = {}
            for table, _, row in changes:
                if row is not None:
                    puts.setdefault(table.name, []).append(row)
            for put in log:
                puts.setdefault(put.table.name, []).append(put.row)
            for name, rows in puts.items():
                writes += statements.put_all(name, rows)
        except Unstorable:
            raise refused() from None
        return _Composed(
            writes,
            next((put for put in log if put.table is LOG_LEAF), None),
            state,
            joined,
            next(put.row[1:3] for put in log if put.table is LOG_HEAD),
            changes,
            number,
        )

    def _goes_beyond(self, session: Session, kept: Kept, size: int, state: State | None) -> bool:
        """Whether there is a leaf beyond the log's head. If the log goes on from what was kept, the leaves are here."""
        if state is not None and 0 <= kept.head[0] <= size <= kept.head[0] + FAR:
            return bool(state.leaves) and not 0 <= number_of(state.leaves[-1]) < size
        return session.run(_BEYOND).ntuples > 0

    def _known(
        self, session: Session, kept: Kept | None, size: int, wanted: _Wanted, asked: _Wanted
    ) -> dict[_Place, Row | None]:
        """The rows that were not asked for because they were kept; those that others have changed are asked for now."""
        found: dict[_Place, Row | None] = {}
        gone: _Wanted = {}
        for place, table in wanted.items():
            if place not in asked:
                entry = kept.find(place, size) if kept is not None else None
                if entry is None:
                    gone[place] = table
                else:
                    found[place] = entry[1]
        if gone:
            lookups = _lookups(gone)
            found |= _found(gone, lookups, session.run_all(list(lookups.values())))
        return found

    def _tell(self, log: _Composed) -> None:
        """Let what is kept follow this commit."""
        rows, state = self._rows, log.state
        with rows.committing:
            kept = rows.committed(state.head if state is not None else None, log.head, log.changes)
            if state is None:
                rows.restart()  # the log has just begun: the next view will find out who else writes
            elif kept is log.joined or kept.accounted == NOTHING:
                account(kept, state, log.number)
            else:  # begun anew meanwhile, maybe by a view that is older than an edit that we saw
                account_own(kept, log.number)

    def _finish(self, log: _Composed) -> bool:
        """Write and commit. False if the transaction came to nothing, and may be run again."""
        session = self._session
        assert session is not None
        try:
            session.run_all([*log.writes, _COMMIT])
        except PgError as error:
            self._roll_back()
            if error.state in RETRIED:
                return False
            if not error.gone:
                raise
            return self._took_place(log.leaf)
        return not session.alone or self._took_place(log.leaf)

    def _took_place(self, leaf: Put | None) -> bool:
        """Whether a commit whose connection was lost came to pass. Whoever gets the lock on the log's head finds that
        transaction decided, for it held that lock. It may be decided on the primary alone, where the wait for the
        standby was cut short: a later commit that does wait makes it sure. Raises `StoreError` if nobody can tell in
        time."""
        assert leaf is not None  # whatever is written adds a leaf
        until = time.monotonic() + PATIENCE
        while True:
            try:
                self.close()
                session = self._session = Session(self._url)
                _, _, _, there = session.run_all(
                    [_BEGIN, _LOCK_LOG, _HEAD, statements.get(LOG_LEAF, leaf.row[:2])]
                )
                if decode(statements.KINDS[LOG_LEAF.name], there) != [leaf.row]:
                    self._roll_back()
                    return False
                # The lock on a row is written too: once the standby has that, it has all that came before.
                session.run_all([_COMMIT])
                if not session.alone:
                    return True
            except PgError as error:
                self._roll_back()
                if not (error.gone or error.state in RETRIED or error.state in (LOCKED, READ_ONLY)):
                    raise
            if time.monotonic() >= until:
                raise StoreError(
                    "the database was lost while it wrote the change, which may have taken place",
                    hint="look whether it did before you repeat it",
                    code="outcome_unknown",
                )
            PLACE.get().aside(partial(time.sleep, _PAUSE))  # nothing tells when a lost database is back

    def _roll_back(self) -> None:
        session = self._session
        if session is None:
            return
        try:
            if not session.idle:
                session.command(b"ROLLBACK")
        except PgError:
            self.close()

    def close(self) -> None:
        """End the session, if there is one. A later `write` begins another."""
        if self._session is not None:
            self._session.close()
            self._session = None


def _told(error: Exception) -> Exception:
    return translate(error) if isinstance(error, PgError) else error


def _wanted(group: list[Ticket]) -> _Wanted:
    return {(table.name, key): table for ticket in group for table, key, _ in ticket.batch.expects}


def _lookups(places: _Wanted) -> dict[_Place, Call]:
    calls: dict[_Place, Call] = {}
    for place, table in places.items():
        with suppress(Unstorable):
            calls[place] = statements.get(table, place[1])
    return calls


def _found(
    places: _Wanted, lookups: dict[_Place, Call], answers: Sequence[PGresult]
) -> dict[_Place, Row | None]:
    return {
        place: next(iter(decode(statements.KINDS[places[place].name], answer)), None)
        for place, answer in zip(lookups, answers, strict=True)
    }
