"""What a process may go on knowing of the rows in PostgreSQL, at the head of a view or of a commit (ADR 0041).

Along with the log's head a view asks for the leaves since the head that the process knows, and which transactions it
sees. PostgreSQL numbers the transactions that write, and each row names its own: what our commits changed is in the
log, and a number that belongs to no leaf is somebody else's. Unless that one was rolled back, rows may have changed
that the log does not tell of, and nothing that was read before counts.
"""

from __future__ import annotations

from dataclasses import dataclass

from psycopg.pq.abc import PGresult

from tallystone.store._columns import BLOB, INTEGER, TEXT
from tallystone.store._rows import FAR, Kept, RowCache
from tallystone.store.postgresql_session import Call, Session, decode, encode
from tallystone.store.protocol import Grown, Head
from tallystone.store.tables import WS

_SNAPSHOT = "pg_current_snapshot()::text"
"""The first number that may be of a transaction under way, the first that nobody has, and those between that are under
way: `10:20:10,14,15`."""
_VIEW: Call = (
    f"SELECT size, frontier, xmin, {_SNAPSHOT} FROM log_head WHERE ws = $1",
    encode((INTEGER,), (WS,)),
)
_GROWN = (
    "SELECT l.seq, l.leaf, l.xmin,"
    " (SELECT m.body FROM log_manifest m WHERE m.ws = l.ws AND m.seq = l.seq)"
    f" FROM log_leaf l WHERE l.ws = $1 AND l.seq >= $2 LIMIT {FAR + 1}"
)
_COMMITTED = (
    "SELECT x FROM generate_series($1::bigint, $2::bigint) x"
    " WHERE coalesce(pg_xact_status(x::text::xid8), 'committed') = 'committed'"
)
_MANY = 1024
_NONE = 2**62
_UNKNOWN = 2**62
NOW: Call = (f"SELECT {_SNAPSHOT}, pg_current_xact_id(), (SELECT max(number) FROM schema_version)", [])
"""For a transaction that writes: what its view is of, its own number, and the newest format of the tables. After it has
the lock on the log, for it gets its number by asking."""


@dataclass(frozen=True, slots=True)
class State:
    """Where the database is in the view that asked."""

    head: Head
    low: int
    """All transactions with lower numbers are over."""
    high: int
    """No transaction with this number or a higher one is in the view."""
    open: frozenset[int]
    """Those between that are not in the view either: they are under way."""
    last: int
    """The transaction that wrote the head."""
    leaves: list[Grown]
    writers: frozenset[int]
    """The transactions that wrote these leaves, and the head."""


def view_calls(kept: Kept) -> list[Call]:
    """What `view_state` needs: the head, and the leaves beyond what is kept."""
    return [_VIEW, grown_call(kept)]


def view_state(head: PGresult, leaves: PGresult) -> State | None:
    """The state of the view that asked. None: there is no log."""
    found = decode((INTEGER, BLOB, INTEGER, TEXT), head)
    if not found:
        return None
    ((size, frontier, last, seen),) = found
    return state_of((size, frontier), last, seen, leaves)


def grown_call(kept: Kept) -> Call:
    """Asks for the leaves beyond what is kept."""
    return _GROWN, encode((INTEGER, INTEGER), (WS, kept.head[0] if kept.head[0] >= 0 else _UNKNOWN))


def state_of(head: Head, last: int, seen: str, leaves: PGresult) -> State:
    """From what the database has answered."""
    low, high, under_way = _taken_apart(seen)
    rows = sorted(decode((INTEGER, BLOB, INTEGER, BLOB), leaves))
    last = _whole(last, high)
    return State(
        head,
        low,
        high,
        under_way,
        last,
        [(number, leaf, manifest) for number, leaf, _, manifest in rows],
        frozenset([last, *(_whole(writer, high) for _, _, writer, _ in rows)]),
    )


def _taken_apart(seen: str) -> tuple[int, int, frozenset[int]]:
    low, high, under_way = seen.split(":")
    return int(low), int(high), frozenset(map(int, under_way.split(","))) if under_way else frozenset()


def _whole(number: int, high: int) -> int:
    """A row tells 32 of 64 bits of its transaction's number, which is one of the past."""
    return high - ((high - number) & 0xFFFFFFFF)


def join(rows: RowCache, state: State, session: Session) -> Kept | None:
    """What was read before, as far as it counts in a view of this state; None if nothing does. Raises `PgError`."""
    kept = rows.kept
    known = kept.head[0] >= 0 and _accounted(kept, state, session)
    with rows.committing:
        if rows.kept is not kept:
            return None  # somebody else has found out more
        if state.high - state.low > _MANY:
            rows.restart()
            return None  # somebody has been writing for long: too many numbers to remember
        if known:
            kept = rows.follow(
                state.head, lambda since: [one for one in state.leaves if number_of(one) >= since]
            )
        else:
            kept = rows.restart(state.head)
        account(kept, state)
        return kept


def account(kept: Kept, state: State, own: int | None = None) -> None:
    """Note of what is kept at this state, or of what is kept since we committed on it under our `own` number, which
    transactions are accounted for. Numbers come out of order: who waits for the log's head may have got one before the
    one who overtakes it. To be called with `committing` held."""
    mark, told = kept.accounted
    mark = max(mark, state.low - 1)
    told |= {number for number in range(mark + 1, state.high) if number not in state.open}
    if own is not None:
        told |= {own}
    while mark + 1 in told:
        mark += 1
    kept.accounted = mark, frozenset(number for number in told if number > mark)


def number_of(one: Grown) -> int:
    """A leaf's number."""
    return one[0] if isinstance(one[0], int) else -1


def _accounted(kept: Kept, state: State, session: Session) -> bool:
    """Whether the log tells of every transaction in the view that was not in what is kept."""
    mark, told = kept.accounted
    if state.high - mark > _MANY:
        return False
    told |= state.writers | state.open
    asked = [number for number in range(mark + 1, state.high) if number not in told]
    if not asked:
        return True
    found = decode((INTEGER,), session.run((_COMMITTED, encode((INTEGER, INTEGER), (asked[0], asked[-1])))))
    return all(number in told for (number,) in found)
