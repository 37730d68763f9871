"""Rows that a process has read before, kept so that a view need not ask the database for them again.

Every commit makes the log longer, so the log's head names a state of the database. What is kept is exact for one head.
It takes over what this process commits, row by row; what others have committed is read from the log, which names the
rows that each commit changed: those are forgotten, and everything if the log does not lead from the one head to the
other. A view says at which head it was opened, and takes a kept row only if that has not changed since; so an answer
from here is the one that the view itself would have given. Kept are rows as they lie in the database: no key that opens
one, and nothing that was opened (ADR 0031, 0041).

    leaves   0 … 41        42 (we write row a)     43 (a read: a leaf, no rows)    44 (somebody else writes a)
    a        since 12 →    since 42                since 42                        forgotten
    b        since 12      since 12                since 12                        since 12
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import count
from threading import Lock
from typing import Any

from tallystone.kept import ROWS
from tallystone.store.protocol import Grown, Head, Moment, RowChange, Sequencer
from tallystone.store.tables import LOG_DETAIL, LOG_HEAD, LOG_LEAF, LOG_MANIFEST, LOG_NODE, VERSION, Row

LARGEST = 128 * 1024
"""Bytes of a row, or of the rows of one scan, beyond which it is not kept; less where all is kept within less."""
_PARTS = 64
"""So many at least must there be room for."""
FAR = 256
"""Leaves of others that are read at most to learn what changed; beyond that, everything is forgotten."""
LOG = frozenset(table.name for table in (LOG_LEAF, LOG_DETAIL, LOG_MANIFEST, LOG_NODE, LOG_HEAD))
"""Tables whose rows are always asked for: they grow with each commit, and no operation reads them twice."""
_OVERHEAD = 250
_REMEMBERED, _REMEMBERED_PLACES = 256, 8192
_TOUCHED = 4096
_MANY = 1024

Place = tuple[Any, ...]
"""What is asked for: (table, key), or (table, prefix, order, after, limit) of a scan."""
Entry = tuple[int, Any, int]
"""Since which length of the log this is the answer, the answer, how many bytes it takes."""
_Name = tuple[str, bytes]
_SERIALS = count()


class Kept:
    """Rows and scans of one log, each with the length since which it is so. Safe to use from several threads."""

    def __init__(self, head: Head, limit: int, name: Callable[[Row], bytes], born: float = 0.0) -> None:
        self.head = head
        """Where what is kept is exact."""
        self.serial = next(_SERIALS)
        """No other has it."""
        self.changed = head[0]
        """The length at which a row was last changed, or so it is to be taken."""
        self.accounted: tuple[int, frozenset[int]] = (0, frozenset())
        """For the store to note which of its database's transactions it knows the end of: all up to a number, and these
        beyond it."""
        self.seen: tuple[int, frozenset[int]] = (0, frozenset())
        """For the store to note in which view it was born: the first transaction's number that is not in that, and
        those before it that are not either."""
        self.born = born
        self.crossed = False
        """Whether others have committed since it was born. An edit of the database may hide behind that."""
        self.young: dict[Place, Entry] = {}
        """What was asked for lately. Look here first: an entry holds at its length and all later ones."""
        self._limit = limit // 2  # for those that were asked for lately; as much for those before
        self._largest = min(LARGEST, limit // _PARTS)
        self._lock = Lock()
        self._old: dict[Place, Entry] = {}
        self._weight = 0
        self._scans: dict[str, dict[Place, set[Place]]] = {}
        self._heads = {head[0]: head[1]}  # that were passed lately
        self._changed: deque[tuple[int, frozenset[Place], frozenset[_Name]]] = deque()
        self._places = 0  # in `_changed`
        # Of the first two cells of a key: when a row below them last changed, in the order of that.
        self._touched: dict[Row, int] = {}
        self._untold = head[0]  # up to this length `_touched` does not tell of every change
        self._forgotten = head[0]  # up to this length we do not know any more which rows changed
        self._name = name
        self._names: dict[_Name, Place] | None = None  # of every row, once somebody else has changed some

    def __len__(self) -> int:
        return len(self.young) + len(self._old)

    def passed(self, head: Head) -> bool:
        """Whether the log has had this head, as far as it is remembered."""
        return self._heads.get(head[0]) == head[1]

    def find(self, place: Place, length: int) -> Entry | None:
        """The answer that holds at this length, if it is known; it stands second in what is returned."""
        entry = self.young.get(place)
        if entry is None:
            entry = self._old.get(place)
            if entry is None:
                return None
            self._renew(place, entry)
        return entry if entry[0] <= length else None

    def unchanged(self, beginning: Row, since: Moment, length: int) -> bool:
        """See `Snapshot.unchanged`, for a view at this length."""
        serial, before, _ = since
        lowest = before if before < length else length
        # In this order: what is taken out of `_touched` is untold before.
        return self._touched.get(beginning, -1) <= lowest and self._untold <= lowest and serial == self.serial

    def still(self, since: Moment) -> bool:
        """Whether every row is now what it was in this view."""
        return since.cache == self.serial and since.length >= self.changed

    def tell(self, place: Place, answer: Row | list[Row] | None, length: int) -> None:
        """Keep what a view at this length was answered, unless a commit has changed it meanwhile."""
        weight = _OVERHEAD
        rows = (answer,) if isinstance(answer, tuple) else answer or ()
        for row in rows:
            weight += _weight(row)
        if weight > self._largest:
            return
        touched, scan = (place[0], place[1]), len(place) > 2
        name = (place[0], self._name(place[1])) if self._names is not None and not scan else None
        with self._lock:
            if length < self._forgotten or length > self.head[0]:
                return
            for since, places, names in reversed(self._changed):
                if since <= length:
                    break
                if self._concerns(places, names, place):
                    return
            if scan:
                self._scans.setdefault(place[0], {}).setdefault(touched, set()).add(place)
            elif self._names is not None:
                self._names[name or (place[0], self._name(place[1]))] = place
            if not scan:
                self._succeeds(*touched)
            self._insert(place, (length, answer, weight))

    def _concerns(self, places: frozenset[Place], names: frozenset[_Name], place: Place) -> bool:
        """Whether this answer may be another after a change of these rows."""
        table, key = place[:2]
        if len(place) > 2:
            return any(of == table and one[: len(key)] == key for of, one in places) or any(
                of == table for of, _ in names
            )
        return place in places or (bool(names) and (table, self._name(key)) in names)

    def committed(self, head: Head, changes: Iterable[RowChange]) -> None:
        """Take over what this process has committed: the log has this head now, and these rows changed."""
        changes = list(changes)
        length = head[0]
        if not changes:
            with self._lock:
                self._advance([head])
            return
        with self._lock:
            if len(changes) > _MANY:
                self._drop_all(length)
                self._advance([head])
                return
            places: set[Place] = set()
            for table, key, row in changes:
                name = table.name
                place = (name, key)
                places.add(place)
                scans = self._scans.get(name)
                for cut in range(len(key) + 1) if scans else ():
                    for scan in self._scans[name].pop((name, key[:cut]), ()):
                        self._drop(scan)
                if not self._drop(place) and not self._succeeds(name, key):
                    continue
                if row is None:  # what is deleted is hardly asked for again
                    if self._names is not None:
                        self._names.pop((name, self._name(key)), None)
                else:
                    weight = _OVERHEAD + _weight(row)
                    if weight <= self._largest:
                        if self._names is not None:
                            self._names[name, self._name(key)] = place
                        self._insert(place, (length, row, weight))
            self._remember(length, frozenset(places), frozenset())
            self._advance([head])  # last: a view at this head asks without the lock

    def _succeeds(self, table: str, key: Row) -> bool:
        """Whether this is the version of a block after one that was kept: whoever asked for that one, which goes, asks
        for this one from now on."""
        number = key[-1]
        if table != VERSION.name or not isinstance(number, int):
            return False
        before = (table, (*key[:-1], number - 1))
        if not self._drop(before):
            return False
        if self._names is not None:
            self._names.pop((table, self._name(before[1])), None)
        return True

    def followed(self, heads: list[Head], changed: set[_Name]) -> None:
        """Others have committed: the log has passed these heads, and these rows are not what they were."""
        if not changed:
            with self._lock:
                self._advance(heads)
            return
        with self._lock:
            if len(changed) > _MANY or (self._names is None and len(self) > _MANY):
                self._drop_all(heads[-1][0])
            if self._names is None:
                rows = [place for place in (*self.young, *self._old) if len(place) == 2]
                self._names = {(place[0], self._name(place[1])): place for place in rows}
            for name in changed:
                place = self._names.pop(name, None)
                if place is not None:
                    self._drop(place)
                # The key of a row is not known, so any scan of its table may have another answer.
                for scans in self._scans.pop(name[0], {}).values():
                    for scan in scans:
                        self._drop(scan)
            self._remember(heads[-1][0], frozenset(), frozenset(changed))
            self._advance(heads)

    def _advance(self, heads: list[Head]) -> None:
        self._heads.update(heads)
        for size in list(self._heads)[: max(len(self._heads) - _REMEMBERED, 0)]:
            del self._heads[size]
        self.head = heads[-1]

    def _remember(self, length: int, places: frozenset[Place], names: frozenset[_Name]) -> None:
        self._changed.append((length, places, names))
        self._places += len(places) + len(names)
        self.changed = length
        for beginning in {key[:2] for _, key in places}:
            self._touched.pop(beginning, None)
            self._touched[beginning] = length
        while len(self._touched) > _TOUCHED:
            oldest = next(iter(self._touched))
            self._untold = max(self._untold, self._touched[oldest])
            del self._touched[oldest]
        if names:  # which say nothing of what is beside them
            self._untold = length
        while len(self._changed) > _REMEMBERED or self._places > _REMEMBERED_PLACES:
            known, *gone = self._changed.popleft()
            self._forgotten = max(self._forgotten, known)
            self._places -= sum(map(len, gone))

    def _renew(self, place: Place, entry: Entry) -> None:
        """Count an old answer among the young ones, if it still is the answer."""
        with self._lock:
            if self._old.get(place) is entry and place not in self.young:
                self._insert(place, entry)

    def _insert(self, place: Place, entry: Entry) -> None:
        before = self.young.get(place)
        self._weight += entry[2] - (before[2] if before is not None else 0)
        self.young[place] = entry
        if self._weight > self._limit:
            self._old, self.young, self._weight = self.young, {}, 0
            # Scans and rows are found by their names to be dropped: those that are gone need not be.
            there = self._old.keys()
            for table, scans in self._scans.items():
                self._scans[table] = {
                    prefix: left for prefix, places in scans.items() if (left := places & there)
                }
            if self._names is not None:
                self._names = {name: one for name, one in self._names.items() if one in there}

    def _drop(self, place: Place) -> bool:
        young, old = self.young.pop(place, None), self._old.pop(place, None)
        if young is not None:
            self._weight -= young[2]
        return young is not None or old is not None

    def _drop_all(self, length: int) -> None:
        self._forgotten = self._untold = self.changed = length
        self.young, self._old, self._weight = {}, {}, 0
        self._scans.clear()
        self._changed.clear()
        self._touched.clear()
        self._places = 0
        if self._names is not None:
            self._names = {}


def _weight(row: Row) -> int:
    return sum(len(cell) + 40 for cell in row if isinstance(cell, (bytes, str))) + 100


class RowCache:
    """What a store keeps for its views and its writer. `kept` is one log's; after a rollback or an edit past the log it
    is another, and views that are still open go on with what was theirs."""

    def __init__(
        self,
        sequencer: Sequencer,
        limit: int = ROWS,
        *,
        age: float = float("inf"),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`age`: seconds after which nothing is kept across a commit of others."""
        self.committing = Lock()
        """Held by whoever commits, until the cache knows of it."""
        self._sequencer = sequencer
        self._limit = limit
        self._age = age
        self._clock = clock
        self.kept = self._new((-1, b""))

    def __repr__(self) -> str:
        return f"RowCache({len(self.kept)} answers at {self.kept.head[0]})"

    def restart(self, head: Head = (-1, b"")) -> Kept:
        """Forget everything, and begin anew at this head; without one, nothing is kept until a view brings one."""
        kept = self.kept = self._new(head)
        return kept

    def aged(self, kept: Kept) -> bool:
        """Whether this is too old to count across a commit of others, one before or one to come."""
        return self._clock() - kept.born > self._age

    def _new(self, head: Head) -> Kept:
        return Kept(head, self._limit, self._sequencer.name, self._clock())

    def follow(self, head: Head, read: Callable[[int], Sequence[Grown]]) -> Kept:
        """What is kept, at this head: somebody has made the log longer, or it is another log. `read` gives the leaves
        from a number on, at least `FAR` and one more if there are. To be called with `committing` held."""
        kept = self.kept
        if kept.passed(head):
            return kept
        begun = kept.head[0]
        if 0 <= begun < head[0] <= begun + FAR and not self.aged(kept):
            found = self._sequencer.follow(kept.head, head, read(begun))
            if found is not None:
                kept.followed(*found)
                kept.crossed = True
                return kept
        return self.restart(head)

    def committed(self, before: Head | None, head: Head, changes: Iterable[RowChange]) -> Kept:
        """This process has committed: the log has grown from one head to another, and these rows changed. To be called
        with `committing` held."""
        kept = self.kept
        if kept.head == before:
            kept.committed(head, changes)
        elif kept.head != head and not kept.passed(head):  # else a view has followed it already
            kept = self.restart(head)
        return kept
