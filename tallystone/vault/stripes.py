"""Who changes one block: each in turn inside a process, and each on what those before have queued (ADR 0047).

A change waits for the disk. Were the next one planned only then, a block would take one change for each wait. So a turn
ends when its batch is in the queue, and the next is planned on what that batch will have made of the block's rows.
Nothing is believed of it before the commit: a plan that was made ahead expects every row of the batch that it stands
on, in the same transaction or a later one. If that batch fails, so does the plan, and is made again on what is there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from threading import Lock
from typing import Any

from tallystone.store.protocol import Batch, Cell, Expect, Moment, Put, Row, Snapshot, Store, Table
from tallystone.store.tables import BLOCK, VERSION
from tallystone.vault.plan import Dependence, Plan, View
from tallystone.waiting import Turns

_STRIPES = 256
_CAREFUL = 8
"""Turns that are taken one at a time after what was planned ahead has failed: others write these blocks as well."""

Rows = Mapping[tuple[str, Row], Row | None]


class Unsettled(Exception):
    """A plan that was made ahead asks for more than is known of what is queued."""


class Ahead:
    """A `Snapshot` with rows of batches that are queued, over what is durable. The two may be of different moments:
    what is read here counts only once a commit has found the rows that it expects, and an error never does."""

    def __init__(self, base: Snapshot, rows: Rows) -> None:
        self._base, self._rows = base, rows
        self._tables = {name for name, _ in rows}

    def get(self, table: Table, key: Row) -> Row | None:
        """See `Snapshot.get`."""
        place = table.name, key
        return self._rows[place] if place in self._rows else self._base.get(table, key)

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
        """See `Snapshot.scan`. Raises `Unsettled` for a table in which rows are queued."""
        self._ask(table)
        return self._base.scan(table, prefix, after=after, limit=limit, reverse=reverse, index=index)

    def rows(self, table: Table) -> Iterator[Row]:
        """See `Snapshot.rows`. Raises `Unsettled` for a table in which rows are queued."""
        self._ask(table)
        return self._base.rows(table)

    def moment(self) -> Moment | None:
        """See `Snapshot.moment`: none that a later view could be compared with."""
        return None

    def unchanged(self, beginning: Row, since: Moment) -> bool:
        """See `Snapshot.unchanged`."""
        return False

    def schema_findings(self, *, deep: bool = True) -> list[tuple[str, str]]:
        """See `Snapshot.schema_findings`."""
        return self._base.schema_findings(deep=deep)

    def _ask(self, table: Table) -> None:
        if table.name in self._tables:
            raise Unsettled


class Stripe:
    """A lock, and what was queued under it and is not settled."""

    __slots__ = ("_careful", "_last", "_lock", "_queued", "turns")

    def __init__(self) -> None:
        self.turns = Turns()
        self._lock = Lock()
        self._queued: list[tuple[str, Batch]] = []
        self._last: Dependence | None = None
        self._careful = 0

    def queued(self, name: str) -> list[Batch]:
        """The batches of this name that are not settled, in order."""
        with self._lock:
            return [batch for of, batch in self._queued if of == name]

    def add(self, name: str, batch: Batch) -> None:
        """A batch is in the store's queue."""
        with self._lock:
            self._queued.append((name, batch))

    def settle(self, batch: Batch, *, written: bool, careful: bool) -> None:
        """A batch is durable, or it failed, and then whether the next turns had better be careful."""
        with self._lock:
            self._queued = [(name, one) for name, one in self._queued if one is not batch]
            if careful:
                self._careful = _CAREFUL
            if written:
                self._last = next((one for one in _outcomes(batch) if one[1] is BLOCK), None)

    @property
    def busy(self) -> bool:
        """Whether others change something under this lock, as far as one can tell without waiting."""
        return self.turns.taken or bool(self._queued)

    def is_shown(self, plan: Plan) -> bool:
        """Whether a view shows what this process changed last under this lock."""
        if self._last is None:
            return True
        place, table, row = self._last
        return plan.snapshot.get(table, place[1]) == row

    def careful(self) -> bool:
        """Whether the turn that begins now must be over before the next begins."""
        with self._lock:
            self._careful -= self._careful > 0
            return self._careful > 0


class Turn:
    """The turn of one operation at a stripe, or at none: where it reads, and how it commits. For a `with` block."""

    __slots__ = ("_behind", "_first", "_follows", "_held", "_name", "_recall", "_store", "_stripe", "_views")

    def __init__(
        self,
        stripe: Stripe | None,
        name: str,
        store: Store,
        recall: Callable[[Any, Row], Any],
        views: list[View],
        behind: list[Batch],
    ) -> None:
        """`views`: that of the request, if there is one. `behind` has what is queued, for as long as something is
        planned on it."""
        self._stripe, self._name, self._store, self._recall = stripe, name, store, recall
        self._views, self._behind = views, behind
        self._held = self._follows = False
        self._first = True

    def __enter__(self) -> Turn:
        if self._stripe is not None and self._stripe.busy:
            self._end_views()  # who waits for others looks at what they left, and holds no view meanwhile
        return self

    def __exit__(self, *_: object) -> None:
        self._behind.clear()
        self._end()

    def view(self, *, alone: bool) -> View:
        """Take the turn, if it is not taken, and look: at what is durable, or at what is queued on top of that.
        `alone`: the next turn begins when this one is over."""
        stripe = self._stripe
        if stripe is not None and not self._held:
            stripe.turns.__enter__()
            self._held = True
        # What has failed once is planned on what is durable, and holds its turn until it is durable itself.
        self._follows = self._first and not alone and stripe is not None and not stripe.careful()
        self._first = False
        before = stripe.queued(self._name) if stripe is not None and self._follows else []
        if before:
            self._end_views()
            view = ahead(self._store.snapshot(), before, self._recall)
            self._behind += before
            return view
        if self._views and stripe is not None and not stripe.is_shown(self._views[-1].plan):
            self._end_views()
        if self._views:
            return self._views.pop()
        return View.of(self._store.snapshot(), self._recall)

    def was_early(self) -> bool:
        """Whether what went wrong while planning may be due to what is queued: then it is asked again."""
        early = bool(self._behind)
        self._behind.clear()
        return early

    def commit(self, plan: Plan) -> int:
        """Commit what was planned. The next may be planned on it as soon as it is in the store's queue, if it is a new
        version of a block and nothing else. Returns, and raises, what the store does."""
        batch, stood, stripe = plan.batch(), self.was_early(), self._stripe
        if stripe is None:
            return self._store.commit(batch)
        name, leads = self._name, self._follows and plan.changes and plan.alters_only(BLOCK, VERSION)

        def queued() -> None:
            stripe.add(name, batch)
            self._end()

        written = False
        try:
            first = self._store.commit(batch, queued if leads else None)
            written = True
        finally:
            stripe.settle(batch, written=written, careful=stood and not written)
        return first

    def _end(self) -> None:
        if self._held and self._stripe is not None:
            self._held = False
            self._stripe.turns.__exit__(None, None, None)

    def _end_views(self) -> None:
        while self._views:
            self._views.pop().close()


class Stripes:
    """A fixed set of stripes, one of them for each name: edits of one block queue up, others pass."""

    def __init__(self) -> None:
        self._stripes = [Stripe() for _ in range(_STRIPES)]

    def of(self, name: str) -> Stripe:
        """The stripe of this name; different names may share one."""
        return self._stripes[hash(name) % _STRIPES]

    def turn(
        self,
        name: str | None,
        store: Store,
        recall: Callable[[Any, Row], Any],
        views: list[View],
        behind: list[Batch],
    ) -> Turn:
        """A turn at the stripe of this name; without one, a turn that is nobody else's."""
        return Turn(None if name is None else self.of(name), name or "", store, recall, views, behind)


def ahead(
    context: AbstractContextManager[Snapshot], batches: list[Batch], recall: Callable[[Any, Row], Any]
) -> View:
    """A view of what these batches, one after the other, will have made of what is durable. Its plan expects every row
    of the last one, which expects those of the one before."""
    rows: dict[tuple[str, Row], Row | None] = {}
    for batch in batches:
        rows.update((place, row) for place, _, row in _outcomes(batch))
    plan = Plan(Ahead(context.__enter__(), rows), recall)
    plan.also += [Expect(table, place[1], row) for place, table, row in _outcomes(batches[-1])]
    return View(plan, context.__exit__)


def _outcomes(batch: Batch) -> Iterator[Dependence]:
    """Each row that a batch changes, as it leaves it."""
    for change in batch.changes:
        if isinstance(change, Put):
            table, row = change
            yield (table.name, row[: len(table.key)]), table, row
        else:
            table, key = change
            yield (table.name, key), table, None
