"""What becomes of a group of batches, settled in memory before a row of it is written.

Both stores write a group in one transaction. Which of its batches still hold, and what the rows are after them, is
decided here, so that each row is written once and a batch whose expectations fail leaves nothing behind.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from tallystone.errors import Conflict, StoreError
from tallystone.store._commits import CommitQueue, Ticket
from tallystone.store.protocol import CommitObserver, Event, Expect, Moment, Put, RowChange
from tallystone.store.tables import Row, Table

Find: TypeAlias = Callable[[Table, Row], Row | None]
"""The row under a full key, as the transaction finds it."""

_Known: TypeAlias = dict[tuple[str, Row], Row | None]


class Committing:
    """A store that writes through a queue, and what it says of that."""

    _commits: CommitQueue

    def observe(self, observer: CommitObserver) -> None:
        """See `Store.observe`."""
        self._commits.observers += (observer,)

    def waiting(self) -> int:
        """See `Store.waiting`."""
        return len(self._commits)


@dataclass(frozen=True, slots=True)
class GroupWriter:
    """Writes groups of a queue's, and settles every ticket in them, whatever happens."""

    write: Callable[[list[Ticket], bool], None]
    """Writes a group in one transaction, or raises. Others may be let into the group if it is told so."""
    roll_back: Callable[[], None]
    strikes_all: Callable[[Exception], bool]
    """Whether an error is of the database, a full disk say, and no batch's fault."""
    told: Callable[[Exception], Exception]
    """What a caller hears of an error."""

    def __call__(self, group: list[Ticket], *, grows: bool = True) -> None:
        """See the class. For a `CommitQueue`."""
        try:
            self.write(group, grows)
        except Exception as error:
            self.roll_back()
            if self.strikes_all(error) or len(group) == 1:
                for ticket in group:
                    ticket.first, ticket.error = None, self.told(error)
                return
            # One of them is at fault; alone, each gets its own answer. Rare, so its cost does not matter.
            for ticket in group:
                ticket.first = ticket.error = None
                self([ticket], grows=False)
        except BaseException:
            self.roll_back()
            for ticket in group:
                ticket.first = None
            raise


def settle(
    group: list[Ticket], size: int, find: Find, still: Callable[[Moment], bool] = lambda _: False
) -> tuple[list[Event], list[RowChange]]:
    """Give each ticket its first log number or its `Conflict`, on a log of `size` leaves; return what is to be written:
    the events in order, and of each row what it is in the end. `still`: whether the transaction finds all rows as they
    were in a view; then nothing that was read there need be looked for.

    Raises `StoreError` for a row that has not as many cells as its table.
    """
    # `known` is what each batch would find if those before it had been written.
    known: _Known = {}
    changed: dict[tuple[str, Row], RowChange] = {}
    events: list[Event] = []
    for ticket in group:
        batch = ticket.batch
        seen = batch.moment
        if (changed or seen is None or not still(seen)) and not _holds(find, known, batch.expects):
            ticket.error = conflict()
            continue
        ticket.first = size + len(events)
        events += batch.events
        for change in batch.changes:
            table, cells = change
            width = len(table.key)
            if isinstance(change, Put):
                row: Row | None = cells
                if len(cells) != width + len(table.columns):
                    raise StoreError("a row has not as many cells as its table", code="refused")
                key = cells[:width]
            else:
                row, key = None, cells
            place = (table.name, key)
            known[place] = row
            changed[place] = (table, key, row)
    return events, list(changed.values())


def conflict() -> Conflict:
    """What a batch is told whose expectations do not hold."""
    return Conflict("somebody else changed this meanwhile", hint="read it again and retry")


def _holds(find: Find, known: _Known, expects: list[Expect]) -> bool:
    for table, key, row in expects:
        place = (table.name, key)
        if place in known:
            found = known[place]
        else:
            found = known[place] = find(table, key)
        if found != row:
            return False
    return True
