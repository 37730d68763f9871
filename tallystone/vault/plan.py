"""A plan: what one operation has read, what it wants to write, and what its rights came through.

An operation is a function of a plan. It reads through it, says which rows must still be so when it commits (`need`),
and queues changes and events. The store then checks and writes the whole or nothing; on a lost race the function
runs again on fresh rows. A check made while planning is only a hint: the commit repeats it (design §8).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tallystone.store.protocol import Batch, Delete, Event, Expect, Put, Row, Snapshot, Table

WS = 1
"""The number of the workspace inside its store; the first part of every key."""


class Plan:
    """One attempt at one operation."""

    def __init__(self, snapshot: Snapshot, recall: Callable[[Any, Row], Any] = lambda *_: None) -> None:
        """`recall` tells what the process kept of a block, by the keys of a shelf and a row on it (see `recall`)."""
        self.snapshot = snapshot
        self.recall = recall
        self.reports = False  # it tells of what was done elsewhere: its answer is kept without changes
        self.memo: dict[str, dict[str, Any]] = {}  # what one attempt need not work out twice
        self.filing: dict[bytes, tuple[bytes, bytes]] = {}  # of a K_grant its `events.grant_keys`
        self.noted: dict[str, tuple[Mapping[str, Any], Mapping[str, Any]]] = {}  # see `note`
        self._expects: dict[tuple[str, Row], Expect] = {}
        self._changes: dict[tuple[str, Row], Put | Delete] = {}
        self.first: int | None = None  # once committed: the log number of its first event
        self._events: list[Event] = []
        self._gets: dict[tuple[str, Row], Row | None] = {}
        self._scans: dict[tuple[str, Row, int | None], list[Row]] = {}

    # A snapshot never changes, so what it said once is what it would say again.

    def _stored(self, table: Table, key: Row) -> Row | None:
        place = table.name, key
        if place not in self._gets:
            self._gets[place] = self.snapshot.get(table, key)
        return self._gets[place]

    def _scanned(self, table: Table, prefix: Row, after: int | None) -> list[Row]:
        place = table.name, prefix, after
        if place not in self._scans:
            self._scans[place] = self.snapshot.scan(table, prefix, after=after)
        return self._scans[place]

    def get(self, table: Table, *key: int | bytes | str) -> Row | None:
        """A row as this plan would leave it: its own changes first, then the store."""
        full = (WS, *key)
        if self._changes:
            change = self._changes.get((table.name, full))
            if change is not None:
                return change.row if isinstance(change, Put) else None
        return self._stored(table, full)

    def peek(self, table: Table, *key: int | bytes | str) -> Row | None:
        """Like `get`, for rows that are looked at once: this plan does not keep them, so memory does not grow."""
        full = (WS, *key)
        if (table.name, full) in self._changes or (table.name, full) in self._gets:
            return self.get(table, *key)
        return self.snapshot.get(table, full)

    def need(self, table: Table, *key: int | bytes | str) -> Row | None:
        """Like `get`, and the commit fails unless the row is still exactly this (or still absent)."""
        full = (WS, *key)
        if (table.name, full) not in self._expects:
            self._expects[table.name, full] = Expect(table, full, self._stored(table, full))
        return self.get(table, *key)

    def rows(self, table: Table, *prefix: int | bytes | str, after: int | None = None) -> list[Row]:
        """The rows below a key prefix, with this plan's changes, in key order; with `after`, only those whose next
        key column is greater."""
        full = (WS, *prefix)
        if not self._changes:
            return list(self._scanned(table, full, after))
        width = len(table.key)
        found = {row[:width]: row for row in self._scanned(table, full, after)}
        for (name, key), change in self._changes.items():
            if (
                name != table.name
                or key[: len(full)] != full
                or (after is not None and key[len(full)] <= after)
            ):
                continue
            if isinstance(change, Put):
                found[key] = change.row
            else:
                found.pop(key, None)
        return [found[key] for key in sorted(found)]

    def put(self, table: Table, *row: int | bytes | str | None) -> None:
        """Write a row, whatever is at its key now."""
        full: Row = (WS, *row)
        key = full[: len(table.key)]
        self._changes[table.name, key] = Put(table, full)

    def delete(self, table: Table, *key: int | bytes | str) -> None:
        """Remove the row with this key, if it is there."""
        full: Row = (WS, *key)
        self._changes[table.name, full] = Delete(table, full)

    def clear(self, table: Table, *prefix: int | bytes | str) -> None:
        """Remove all rows below a key prefix."""
        for row in self.rows(table, *prefix):
            self.delete(table, *row[1 : len(table.key)])

    def note(self, block: str, settings: Mapping[str, Any]) -> None:
        """Remember that this plan shows or changes a block with these settings; the last ones are what it leaves."""
        self.noted[block] = (self.noted.get(block, (settings,))[0], settings)

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
        return any(name == table.name and key[: len(full)] == full for name, key in self._changes)

    def written(self, table: Table) -> list[Row]:
        """The rows of a table that this plan writes."""
        return [
            change.row
            for (name, _), change in self._changes.items()
            if name == table.name and isinstance(change, Put)
        ]

    @property
    def changes(self) -> bool:
        """Whether anything but the log would be written."""
        return bool(self._changes)

    def batch(self) -> Batch:
        """What the store is asked to do."""
        return Batch(list(self._expects.values()), list(self._changes.values()), list(self._events))
