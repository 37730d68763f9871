"""Rows that a process has read before, kept so that a view need not ask the database for them again.

Every commit makes the log longer, so the log's length names a state of the database. The cache is exact for one
length: it takes over what this process commits, row by row, and forgets everything when the log has grown by anybody
else's doing. A view asks for the length it was opened at, and gets a row only if that has not changed since; so an
answer from here is the one that the view itself would have given. Kept are rows as they lie in the database: no key
that opens one, and nothing that was opened.

    length   0 … 41        42 (we write row a)     43 (a read: a leaf, no rows)    44 (somebody else)
    a        since 12 →    since 42                                                forgotten
    b        since 12                                                              forgotten
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from threading import Lock
from typing import Any

from tallystone.kept import ROWS
from tallystone.store.protocol import RowChange
from tallystone.store.tables import Row

LARGEST = 128 * 1024
"""Bytes of a row, or of the rows of one scan, beyond which it is not kept."""
_OVERHEAD = 250
_REMEMBERED_COMMITS = 256
_MANY = 1024

Place = tuple[Any, ...]
"""What is asked for: (table, key), or (table, prefix, order, after, limit) of a scan."""
_Entry = tuple[int, Any, int]
"""Since which length of the log this is the answer, the answer, how many bytes it takes."""


class RowCache:
    """Rows and scans, each with the length of the log since which it is so. Safe to use from several threads."""

    def __init__(self, limit: int = ROWS) -> None:
        self.committing = Lock()
        """Held by whoever commits, until the cache knows of it."""
        self.length = -1
        """Of the log, where the cache is exact. -1: nothing is known."""
        self._limit = limit // 2  # for those that were asked for lately; as much for those before
        self._lock = Lock()
        self._young: dict[Place, _Entry] = {}
        self._old: dict[Place, _Entry] = {}
        self._weight = 0
        self._scans: dict[Place, set[Place]] = {}
        self._changed: deque[tuple[int, frozenset[Place]]] = deque()
        self._forgotten = -1  # up to this length we do not know any more which rows changed

    def __repr__(self) -> str:
        return f"RowCache({len(self._young) + len(self._old)} answers at {self.length})"

    def join(self, length: int) -> None:
        """Before a view at this length of the log asks. If somebody else has made the log longer, all is forgotten."""
        if length > self.length:
            with self.committing:  # ours may be durable, and not told yet
                if length > self.length:
                    self.forget(length)

    def forget(self, length: int) -> None:
        """Start anew at this length of the log."""
        with self._lock:
            self._young, self._old, self._weight = {}, {}, 0
            self._scans.clear()
            self._changed.clear()
            self._forgotten = self.length = length

    def find(self, place: Place, length: int) -> _Entry | None:
        """The answer that holds at this length, if it is known; it stands second in what is returned."""
        entry = self._young.get(place)
        if entry is None:
            entry = self._old.get(place)
            if entry is None:
                return None
            self._keep(place, entry)
        return entry if entry[0] <= length else None

    def tell(self, place: Place, answer: Row | list[Row] | None, length: int) -> None:
        """Keep what a view at this length was answered, unless a commit has changed it meanwhile."""
        weight = _OVERHEAD
        rows = (answer,) if isinstance(answer, tuple) else answer or ()
        for row in rows:
            weight += sum(len(cell) + 40 for cell in row if isinstance(cell, (bytes, str))) + 100
        if weight > LARGEST:
            return
        touched = (place[0], place[1])
        with self._lock:
            if length < self._forgotten or length > self.length:
                return
            for since, places in reversed(self._changed):
                if since <= length:
                    break
                if touched in places:
                    return
            if len(place) > 2:
                self._scans.setdefault(touched, set()).add(place)
            self._insert(place, (length, answer, weight))

    def committed(self, before: int, length: int, changes: Iterable[RowChange]) -> None:
        """Take over what this process has committed: the log grew from `before`, and these rows changed."""
        if before != self.length:
            self.forget(length)
            return
        changes = list(changes)
        with self._lock:
            self.length = length
            if not changes:
                return
            if len(changes) > _MANY:
                self._young, self._old, self._weight = {}, {}, 0
                self._scans.clear()
                self._changed.clear()
                self._forgotten = length
                return
            places: set[Place] = set()
            for table, key, row in changes:
                place = (table.name, key)
                for cut in range(len(key) + 1):
                    prefix = (table.name, key[:cut])
                    places.add(prefix)
                    for scan in self._scans.pop(prefix, ()):
                        self._drop(scan)
                if self._drop(place):
                    weight = _OVERHEAD + sum(len(c) + 40 for c in row or () if isinstance(c, (bytes, str)))
                    if weight <= LARGEST:
                        self._insert(place, (length, row, weight))
            self._changed.append((length, frozenset(places)))
            if len(self._changed) > _REMEMBERED_COMMITS:
                self._forgotten = max(self._forgotten, self._changed.popleft()[0])

    def _keep(self, place: Place, entry: _Entry) -> None:
        """Count an old answer among the young ones, if it still is the answer."""
        with self._lock:
            if self._old.get(place) is entry:
                self._insert(place, entry)

    def _insert(self, place: Place, entry: _Entry) -> None:
        before = self._young.get(place)
        self._weight += entry[2] - (before[2] if before is not None else 0)
        self._young[place] = entry
        if self._weight > self._limit:
            self._old, self._young, self._weight = self._young, {}, 0
            # Scans are found by their prefix to be dropped: those that are gone need not be.
            self._scans = {
                prefix: left for prefix, scans in self._scans.items() if (left := scans & self._old.keys())
            }

    def _drop(self, place: Place) -> bool:
        young, old = self._young.pop(place, None), self._old.pop(place, None)
        if young is not None:
            self._weight -= young[2]
        return young is not None or old is not None
