"""A plan: what one operation has read, what it wants to write, and what its rights came through.

An operation is a function of a plan. It reads through it, says which rows must still be so when it commits (`need`),
and queues changes and events. The store then checks and writes the whole or nothing; on a lost race the function
runs again on fresh rows. A check made while planning is only a hint: the commit repeats it (design §8).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, TypeVar

from tallystone.keystore import Identity
from tallystone.store.protocol import Batch, Delete, Event, Expect, Moment, Put, Row, Snapshot, Table
from tallystone.vault.types import CharterView

WS = 1
"""The number of the workspace inside its store; the first part of every key."""

_UNREAD: Any = object()

Dependence = tuple[tuple[str, Row], Table, Row | None]
"""The name of a table and a full key in it, the table, and the row that lay there."""


ONCE = 512
"""Outcomes that a plan remembers at most (`Plan.once`): a list of everything opens more, each only once."""

T = TypeVar("T")


class Plan:
    """One attempt at one operation."""

    def __init__(self, snapshot: Snapshot, recall: Callable[[Any, Row], Any] = lambda *_: None) -> None:
        """`recall` tells what the process kept of a block, by the keys of a shelf and a row on it (see `recall`)."""
        self.snapshot = snapshot
        self.recall = recall
        self.reports = False  # it tells of what was done elsewhere: its answer is kept without changes
        self.memo: dict[str, dict[str, Any]] = {}  # what one attempt need not work out twice
        self.standing: dict[Any, Identity] = {}  # of a caller its identity, once it was found to stand
        self.pools: dict[bytes, bytes] = {}  # of shred keys, read for this plan: see `ShredKeys.get`
        self.identities: dict[
            str, Identity
        ] = {}  # as the rows say that this plan reads, while it changes none
        self.charters: dict[bytes, CharterView] = {}  # likewise, by whose word it is
        self.filing: dict[bytes, tuple[bytes, bytes]] = {}  # of a K_grant its `events.grant_keys`
        self.noted: dict[str, tuple[Mapping[str, Any], Mapping[str, Any]]] = {}  # see `note`
        self._expects: dict[tuple[str, Row], Expect] = {}
        self.blocks: dict[Any, Any] = {}  # that it has opened, see `entering.again`
        self.known: dict[Any, Any] = {}  # see `once`
        self.also: list[
            Expect
        ] = []  # what the commit expects besides: found so while this plan had no changes
        self.moment: Moment | None = None  # of the view, once it has been read
        self._changes: dict[tuple[str, Row], Put | Delete] = {}
        self._changed: dict[str, dict[Row, Put | Delete]] = {}  # the same by table
        self.steps = 0
        """How often a change was queued: what was worked out of rows at one step holds until the next."""
        self.first: int | None = None  # once committed: the log number of its first event
        self._events: list[Event] = []
        self._gets: dict[tuple[str, Row], Row | None] = {}
        self._new: set[int | bytes | str] = set()  # see `begins`
        self._scans: dict[tuple[str, Row, int | None], list[Row]] = {}

    def beside(self) -> Plan:
        """Another plan that reads the same view and needs what this one needs, which has changed nothing. What the view
        said to one of them, it need not say to the other."""
        plan = Plan(self.snapshot, self.recall)
        plan.pools, plan.identities, plan.charters = self.pools, self.identities, self.charters
        plan._gets, plan._scans = self._gets, self._scans
        plan._expects.update(self._expects)
        return plan

    # A snapshot never changes, so what it said once is what it would say again.

    def begins(self, *names: bytes | str) -> None:
        """That nothing lies under these first parts of keys: ids that were just drawn at random, of 122 bits at least,
        or follow from such. The view is not asked; the commit expects that nothing is there, like any other row."""
        self._new.update(names)

    def is_new(self, name: bytes | str) -> bool:
        """Whether only this plan has rows under this first part of keys."""
        return name in self._new

    def _read(self, table: Table, full: Row) -> Row | None:
        return None if self._begun(full) else self.snapshot.get(table, full)

    def _begun(self, key: Row) -> bool:
        return bool(self._new) and len(key) > 1 and key[1] in self._new

    def _scanned(self, table: Table, prefix: Row, after: int | None) -> list[Row]:
        place = table.name, prefix, after
        found = self._scans.get(place)
        if found is None:
            begun = self._begun(prefix)
            found = self._scans[place] = [] if begun else self.snapshot.scan(table, prefix, after=after)
        return found

    def get(self, table: Table, *key: int | bytes | str) -> Row | None:
        """A row as this plan would leave it: its own changes first, then the store."""
        full = (WS, *key)
        place = table.name, full
        if self._changes:
            change = self._changes.get(place)
            if change is not None:
                return change.row if isinstance(change, Put) else None
        row: Row | None = self._gets.get(place, _UNREAD)
        if row is _UNREAD:
            row = self._gets[place] = self._read(table, full)
        return row

    def peek(self, table: Table, *key: int | bytes | str) -> Row | None:
        """Like `get`, for rows that are looked at once: this plan does not keep them, so memory does not grow."""
        full = (WS, *key)
        if (table.name, full) in self._changes or (table.name, full) in self._gets:
            return self.get(table, *key)
        return self.snapshot.get(table, full)

    def need(self, table: Table, *key: int | bytes | str) -> Row | None:
        """Like `get`, and the commit fails unless the row is still exactly this (or still absent)."""
        full = (WS, *key)
        place = table.name, full
        expected = self._expects.get(place)
        if expected is None:
            row: Row | None = self._gets.get(place, _UNREAD)
            if row is _UNREAD:
                row = self._gets[place] = self._read(table, full)
            self._expects[place] = Expect(table, full, row)
        else:
            row = expected.row
        return row if not self._changes else self.get(table, *key)

    def stands(self, known: Sequence[Dependence]) -> bool:
        """Whether each of these rows is what it was, as this plan would leave it; the commit asks for the first of them
        again."""
        gets, snapshot, changes = self._gets, self.snapshot, self._changes
        for place, table, before in known:
            if changes and place in changes:
                row = self.get(table, *place[1][1:])
            else:
                row = gets.get(place, _UNREAD)
                if row is _UNREAD:
                    row = gets[place] = snapshot.get(table, place[1])
            if row is not before and row != before:
                return False
        place, table, _ = known[0]
        if place not in self._expects:
            self.need(table, *place[1][1:])
        return True

    def lists(self, known: list[Row], table: Table, *prefix: int | bytes | str) -> bool:
        """Whether `rows` gives just these."""
        if self._changes:
            return self.rows(table, *prefix) == known
        return self._scanned(table, (WS, *prefix), None) == known

    def rows(self, table: Table, *prefix: int | bytes | str, after: int | None = None) -> list[Row]:
        """The rows below a key prefix, with this plan's changes, in key order; with `after`, only those whose next
        key column is greater."""
        full = (WS, *prefix)
        changed = self._changed.get(table.name)
        if not changed:
            return list(self._scanned(table, full, after))
        width = len(table.key)
        found = {row[:width]: row for row in self._scanned(table, full, after)}
        for key, change in changed.items():
            if key[: len(full)] != full or (after is not None and key[len(full)] <= after):
                continue
            if isinstance(change, Put):
                found[key] = change.row
            else:
                found.pop(key, None)
        return [found[key] for key in sorted(found)]

    def put(self, table: Table, *row: int | bytes | str | None) -> None:
        """Write a row, whatever is at its key now."""
        full: Row = (WS, *row)
        self._change(table, full[: len(table.key)], Put(table, full))

    def delete(self, table: Table, *key: int | bytes | str) -> None:
        """Remove the row with this key, if it is there."""
        full: Row = (WS, *key)
        self._change(table, full, Delete(table, full))

    def _change(self, table: Table, key: Row, change: Put | Delete) -> None:
        self.steps += 1
        self._changes[table.name, key] = change
        self._changed.setdefault(table.name, {})[key] = change

    def clear(self, table: Table, *prefix: int | bytes | str) -> None:
        """Remove all rows below a key prefix."""
        for row in self.rows(table, *prefix):
            self.delete(table, *row[1 : len(table.key)])

    def once(self, work: Callable[..., T], *parts: bytes | str | int) -> T:
        """What `work` makes of these keys and sealed bytes, and of nothing else: worked out once. A plan may open a
        block as several principals, and again after each of its own steps; what may be believed of what was opened is
        asked each time."""
        place = (work, *parts)
        if place not in self.known:
            self.remember(place, work(*parts))
        found: T = self.known[place]
        return found

    def remember(self, place: tuple[Any, ...], outcome: Any) -> None:
        """Have `once` answer so; not for ever, if this plan works out many."""
        if len(self.known) >= ONCE:
            self.known.clear()
        self.known[place] = outcome

    def note(self, block: str, settings: Mapping[str, Any]) -> None:
        """Remember that this plan shows or changes a block with these settings; the last ones are what it leaves."""
        known = self.noted.get(block)
        self.noted[block] = (settings if known is None else known[0], settings)

    def event(self, kind: str, detail: bytes) -> None:
        """Queue one log leaf."""
        self._events.append(Event(kind, detail))

    @property
    def events(self) -> int:
        """How many leaves are queued."""
        return len(self._events)

    def touches(self, table: Table, *prefix: int | bytes | str) -> bool:
        """Whether this plan has changes of its own below a key prefix."""
        full = (WS, *prefix)
        return any(key[: len(full)] == full for key in self._changed.get(table.name, ()))

    def alters(self, table: Table) -> bool:
        """Whether this plan has changes of its own in a table."""
        return table.name in self._changed

    def alters_only(self, *tables: Table) -> bool:
        """Whether this plan has changes of its own in no other tables."""
        return self._changed.keys() <= {table.name for table in tables}

    def written(self, table: Table) -> list[Row]:
        """The rows of a table that this plan writes."""
        changed = self._changed.get(table.name, {})
        return [change.row for change in changed.values() if isinstance(change, Put)]

    def let_go(self) -> None:
        """Forget what was opened, once the planning is over. It holds this plan, which holds it: keys and contents
        would stay in memory until Python looks for such circles, and a server has it look seldom."""
        self.blocks.clear()
        self.memo.pop("roles", None)

    @property
    def changes(self) -> bool:
        """Whether anything but the log would be written."""
        return bool(self._changes)

    def batch(self) -> Batch:
        """What the store is asked to do."""
        expects = [*self._expects.values(), *self.also]
        return Batch(expects, list(self._changes.values()), list(self._events), self.moment)


class View:
    """A plan, and what ends the view that it reads. Closed by whoever enters it, and by `close` if nobody does."""

    __slots__ = ("_end", "plan")

    def __init__(self, plan: Plan, end: Callable[..., object]) -> None:
        """`end` is called once, as a context's `__exit__`."""
        self.plan = plan
        self._end: Callable[..., object] | None = end

    @classmethod
    def of(
        cls, context: AbstractContextManager[Snapshot], recall: Callable[[Any, Row], Any] = lambda *_: None
    ) -> View:
        """A view of its own."""
        return cls(Plan(context.__enter__(), recall), context.__exit__)

    def __enter__(self) -> Plan:
        return self.plan

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        end, self._end = self._end, None
        if end is not None:
            self.plan.let_go()
            end(kind, error, trace)

    def close(self) -> None:
        """End the view, if it was not ended before."""
        self.__exit__(None, None, None)
