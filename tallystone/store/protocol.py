"""What a vault asks of a store, and what a store asks of whoever keeps the log.

A store keeps rows it cannot read. It promises three things: a snapshot is consistent; a batch is written
whole, durably, and only if everything it expects still holds; and nothing is written without its leaves in
the log, which the caller's `Sequencer` composes, since a store knows no log format.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, TypeAlias

from tallystone.store.tables import Cell, Row, Table

__all__ = [
    "Batch",
    "Cell",
    "Change",
    "CommitObserver",
    "Delete",
    "Event",
    "Expect",
    "Followed",
    "Grown",
    "Head",
    "Moment",
    "Put",
    "Row",
    "RowChange",
    "Sequencer",
    "Snapshot",
    "Store",
    "Table",
]


class Put(NamedTuple):
    """Write `row` (key columns, then the others): a new row, or in place of the one with the same key."""

    table: Table
    row: Row


class Delete(NamedTuple):
    """Remove the row with this full key. That it is missing already is no error."""

    table: Table
    key: Row


class Expect(NamedTuple):
    """A condition of a batch: when it commits, the row under `key` is exactly `row` (None: there is none)."""

    table: Table
    key: Row
    row: Row | None


class Moment(NamedTuple):
    """What a view is of: `length` leaves of the log. `cache` names the memory of rows that tells of it, and at
    `changed` leaves a row was last changed, as far as that memory knows: maybe after the view."""

    cache: int
    length: int
    changed: int


class Event(NamedTuple):
    """Something that the log records: one leaf. `kind` lies in clear, `detail` is sealed by the caller."""

    kind: str
    detail: bytes


Change: TypeAlias = Put | Delete
RowChange: TypeAlias = tuple[Table, Row, Row | None]
"""What a change did: the table, the full key, and the row now there (None: none)."""

Head: TypeAlias = tuple[int, bytes]
"""Which state of the log this is: how many leaves it has, and the frontier, which is over all of them."""
Grown: TypeAlias = tuple[Cell, Cell, Cell]
"""A leaf that was added: its number, the leaf, and the manifest beside it or None."""
Followed: TypeAlias = tuple[list[Head], set[tuple[str, bytes]]]
"""The heads that a log has passed, and the rows that changed meanwhile: table, and the key's name."""


@dataclass(slots=True)
class Batch:
    """What is written together or not at all. Changes apply in order; a later one to the same key wins."""

    expects: list[Expect] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    moment: Moment | None = None
    """Of the view in which all that is expected was found to be so."""


class Snapshot(Protocol):
    """A read view in which every answer is of the same instant. Valid inside its `with` block only."""

    def get(self, table: Table, key: Row) -> Row | None:
        """The row under the full `key`, or None."""
        ...

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
        """The rows whose key begins with `prefix`, ordered by the key column that follows it.

        `index` orders by that column instead (see `tables.INDEXES`; `prefix` is then the whole key but its
        last column). `after` is a value of the ordering column: only rows beyond it, in the direction of the
        scan, are returned. `limit` bounds their number.
        """
        ...

    def moment(self) -> Moment | None:
        """What this view is of. Every row in it is what it was in a view of the same cache and at least `changed`
        leaves, if it has as many itself. None if nothing that is read here is kept."""
        ...

    def unchanged(self, beginning: Row, since: Moment) -> bool:
        """Whether all rows, of any table, whose keys begin with these two cells are here what they were in another
        view. False if that is not known without asking the database."""
        ...

    def rows(self, table: Table) -> Iterator[Row]:
        """Every row of the table in the order of the keys, without holding them all in memory."""
        ...

    def schema_findings(self, *, deep: bool = True) -> list[tuple[str, str]]:
        """Where the file's schema is not the one we made: (place, what is wrong). Empty when all is well. `deep` reads
        the whole file, to compare its indexes with its tables.
        """
        ...


class Sequencer(Protocol):
    """Composes the log rows of one transaction. Called by the store while it holds the right to write."""

    def sequence(self, head: Row | None, events: Sequence[Event], changes: Sequence[RowChange]) -> list[Put]:
        """The log rows for these events and changes on top of `head`, the current `log_head` row (None: no
        log).

        Among them is the new `log_head`. The leaf of `events[i]` has the number `size of head + i`. No side
        effect on the store: the transaction may still fail, and is then composed anew.
        """
        ...

    def durable(self) -> None:
        """What was composed last is durable: a head without it is a rollback from now on."""
        ...

    def follow(self, before: Head, after: Head, grown: Sequence[Grown]) -> Followed | None:
        """What has happened between two heads of the log, by the leaves that there are between. None if these leaves
        do not make one of the other, or do not say which rows they changed.
        """
        ...

    def name(self, key: Row) -> bytes:
        """What `follow` calls the row with this full key of its table."""
        ...

    def nodes_of(self, leaves: Iterator[Row]) -> Iterator[Put]:
        """The `log_node` rows over these `log_leaf` rows, which are all there are, in order: for a store whose log
        was begun before that table was.
        """
        ...


class CommitObserver(Protocol):
    """Who is told how commits go: for counting and tracing. It is told numbers, never rows, and must not raise."""

    def wrote(self, batches: int, refused: int, seconds: float) -> None:
        """A group of batches was written, or failed, within `seconds`; `refused` of them raise. In the thread that
        wrote."""
        ...

    def waited(self, began: int, ended: int) -> None:
        """A caller's batch is settled, in the caller's thread. Both times in nanoseconds since 1970."""
        ...


class Store(Protocol):
    """Rows, and the one way to change them. Safe to use from several threads."""

    @property
    def remote(self) -> bool:
        """Whether it lies behind a network: a call may take seconds, which no event loop can wait."""
        ...

    def snapshot(self) -> AbstractContextManager[Snapshot]:
        """A new read view. It sees every batch that was acknowledged before it is entered."""
        ...

    def commit(self, batch: Batch, queued: Callable[[], None] | None = None) -> int:
        """Write `batch`; return when it is durable. The answer is the log number of its first event. `queued` is called
        once it has its place: what is committed later, in this process, comes after it, in its transaction or another.

        Raises `Conflict` if an expectation does not hold, `StoreFull` or `StoreError` if the store cannot
        write; nothing of the batch is written then.
        """
        ...

    def observe(self, observer: CommitObserver) -> None:
        """Tell `observer` of all later commits of this process."""
        ...

    def waiting(self) -> int:
        """How many batches of this process wait to be written now."""
        ...

    def size(self) -> int:
        """Bytes that the rows take on disk, about."""
        ...

    def scrub(self) -> bool:
        """Rid the store's files of rows that were deleted, so that none is left in a journal or a free page.

        False if that has to wait, because somebody still reads an older state. Raises `StoreError`.
        """
        ...

    def close(self) -> None:
        """Finish what is being written and let go of the file. Later uses raise `StoreError`."""
        ...
