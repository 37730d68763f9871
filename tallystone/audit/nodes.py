"""The check of the tree's stored hashes, in step with the leaves: which of a leaf and its hash is the wrong one.

A leaf and its stored hash may disagree. The signed root says who is right: if the leaves make it, the hash was edited;
if the stored hashes make it, the leaf was, and is named exactly. Without these rows the root would only say that
some leaf is wrong. Memory: two bytes a leaf, for the heights above.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from itertools import chain

from tallystone.audit.checkpoint import Checkpoint
from tallystone.audit.merkle import HASH_SIZE, Frontier
from tallystone.audit.reading import Reading, place
from tallystone.audit.report import FINDINGS_LIMIT
from tallystone.audit.tree import STEP
from tallystone.store.tables import LOG_NODE, WS, Row

_HEIGHTS = range(0, 64, STEP)


class NodeCheck:
    """Compares `log_node` with the leaves of `tree` as it grows, from leaf number `tree.size` on."""

    def __init__(self, reading: Reading, tree: Frontier) -> None:
        self._report = reading.report
        self._reading = reading
        self._tree = tree
        self._start = tree.size
        self._stored: Frontier | None = None  # the tree over the stored hashes, from where they differ on
        self._computed: dict[int, bytearray] = {}
        self._differ: list[int] = []
        self._gaps: list[int] = []
        self._more = False
        self._lost = False
        self._rows = self._from(tree.size)
        self._row = next(self._rows, None)

    @property
    def named(self) -> bool:
        """Whether a leaf was named, so that nothing vaguer needs to be said."""
        return bool(self._differ or self._gaps)

    def lose(self) -> None:
        """Leaves are missing by the million: there is nothing to compare with any more."""
        self._lost = True

    def grow(self, leaf: bytes, *, there: bool) -> None:
        """Append a leaf's hash to the tree; with `there` False it stands for a leaf that is missing."""
        seq = self._tree.size
        if self._lost:
            self._tree.append(leaf)
            return
        stored = self._take(0, seq)
        if stored is None:
            if there:
                self._missing(0, seq)
            stored = leaf
        if (stored != leaf or not there) and self._stored is None:
            self._stored = Frontier(seq, self._tree.pack())
        if not there:
            self._note(self._gaps, seq)
        elif stored != leaf:
            self._note(self._differ, seq)
        if self._stored is not None:
            self._stored.append(stored if len(stored) == HASH_SIZE else leaf)
        completed = self._tree.append(leaf)
        for height in range(STEP, len(completed), STEP):
            self._computed.setdefault(height, bytearray()).extend(completed[height])

    def finish(self, signed: Checkpoint | None) -> None:
        """Say what differs, given the checkpoint that the head holds."""
        if self._lost:
            return
        sound = _is(self._tree, signed)
        what = "is not what was signed" if _is(self._stored, signed) else "is not what its stored hash is of"
        for seq in self._differ:
            if sound:
                self._report.add(
                    place(LOG_NODE, (WS, 0, seq)), "is not the hash of its leaf, which is right", leaf=seq
                )
            else:
                self._report.add(f"log_leaf {seq}", what, leaf=seq)
        self._compare_above(sound)
        self._drain()

    def _compare_above(self, sound: bool) -> None:
        bad = sorted(self._differ + self._gaps)
        for height in sorted(self._computed):
            hashes, first = self._computed[height], self._start >> height
            for at in range(0, len(hashes), HASH_SIZE):
                number = first + at // HASH_SIZE
                start, end = number << height, number + 1 << height
                stored = self._take(height, number)
                if not sound and (self._more or _any_between(bad, start, end)):
                    continue  # it is over a leaf that was named
                if stored is None:
                    self._missing(height, number)
                elif stored != hashes[at : at + HASH_SIZE]:
                    where = place(LOG_NODE, (WS, height, number))
                    self._report.add(where, f"is not the hash over the leaves {start}–{end - 1}", leaf=start)

    def _from(self, start: int) -> Iterator[Row]:
        if not start:
            return self._reading.rows(LOG_NODE)
        return chain.from_iterable(
            self._reading.rows_from(LOG_NODE, height, start=start >> height) for height in _HEIGHTS
        )

    def _take(self, height: int, number: int) -> bytes | None:
        while (row := self._row) is not None and row[:3] <= (WS, height, number):
            self._row = next(self._rows, None)
            if row[:3] == (WS, height, number):
                return row[3] if isinstance(row[3], bytes) else b""
            self._stray(row)
        return None

    def _drain(self) -> None:
        while (row := self._row) is not None:
            self._row = next(self._rows, None)
            self._stray(row)

    def _stray(self, row: Row) -> None:
        ws, height, number, _ = row
        over = ws == WS and height in _HEIGHTS and (number + 1) << height > self._tree.size
        # it was there when the tree was larger: the first leaf that is not there any more is under it, or before
        leaf = max(number << height, self._tree.size) if over else None
        self._report.add(place(LOG_NODE, row[:3]), "lies over no leaves that are there", leaf=leaf)

    def _missing(self, height: int, number: int) -> None:
        if LOG_NODE.name not in self._reading.unreadable:
            self._report.add(place(LOG_NODE, (WS, height, number)), "is missing", leaf=number << height)

    def _note(self, where: list[int], seq: int) -> None:
        if len(where) < FINDINGS_LIMIT:
            where.append(seq)
        else:
            self._more = True


def _is(tree: Frontier | None, signed: Checkpoint | None) -> bool:
    return tree is not None and signed is not None and (tree.size, tree.root()) == (signed.size, signed.root)


def _any_between(numbers: list[int], start: int, end: int) -> bool:
    at = bisect_left(numbers, start)
    return at < len(numbers) and numbers[at] < end
