"""The log's tree as it is stored: any proof or tile from a few rows.

`log_node` holds the hash of each leaf (height 0) and, at every fourth height, of each complete subtree: what lies
between is hashed when it is asked for, from sixteen rows at most. So a proof over 2^24 leaves reads six runs of rows.
The rows are no authority: whoever uses a proof checks it against a signed checkpoint, and `audit.verify` against
the leaves.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tallystone.audit.merkle import EMPTY_ROOT, HASH_SIZE, node_hash
from tallystone.errors import Tampered
from tallystone.store.protocol import Snapshot
from tallystone.store.tables import LOG_NODE, WS

STEP = 4
"""Every so many heights of the tree are stored."""
_WIDTH = 1 << STEP


def kept(completed: Sequence[bytes]) -> Iterator[tuple[int, bytes]]:
    """Those of the subtrees that a new leaf completes (`Frontier.append`) which are stored: (height, hash)."""
    return ((height, completed[height]) for height in range(0, len(completed), STEP))


class Tree:
    """The first leaves of a log, under one snapshot. Methods raise `Tampered` where rows are missing or malformed, and
    `ValueError` for places beyond the tree.
    """

    def __init__(self, snapshot: Snapshot, size: int) -> None:
        """`size`: the tree's number of leaves, at most as many as there are."""
        self.size = size
        self._snapshot = snapshot
        self._groups: dict[tuple[int, int], list[bytes]] = {}

    def root(self, size: int | None = None) -> bytes:
        """The root over all leaves, or over the first `size`."""
        size = self.size if size is None else size
        if not 0 <= size <= self.size:
            raise ValueError("no such tree size")
        return self._span(0, size) if size else EMPTY_ROOT

    def nodes(self, height: int, start: int, count: int) -> list[bytes]:
        """The hashes of `count` complete subtrees of 2^`height` leaves each, from number `start` on. `height` is a
        multiple of `STEP`.
        """
        if height % STEP or min(start, count) < 0 or (start + count) << height > self.size:
            raise ValueError("no such nodes")
        rows = self._snapshot.scan(LOG_NODE, (WS, height), after=start - 1, limit=count)
        if [row[2] for row in rows] != list(range(start, start + count)) or any(
            not isinstance(row[3], bytes) or len(row[3]) != HASH_SIZE for row in rows
        ):
            raise Tampered(
                f"hashes of the log's tree are missing: height {height}, {start} to {start + count - 1}",
                hint="tallystone audit verify names the place",
            )
        return [row[3] for row in rows]

    def inclusion(self, index: int, size: int | None = None) -> list[bytes]:
        """The path from leaf `index` to the root over the first `size` leaves (RFC 6962 §2.1.1)."""
        size = self.size if size is None else size
        if not 0 <= index < size <= self.size:
            raise ValueError("no such leaf")
        proof: list[bytes] = []
        start, end = 0, size
        while end - start > 1:
            middle = start + _split(end - start)
            if index < middle:
                proof.append(self._span(middle, end))
                end = middle
            else:
                proof.append(self._span(start, middle))
                start = middle
        return proof[::-1]

    def consistency(self, old: int, size: int | None = None) -> list[bytes]:
        """The proof that the first `old` leaves grew into the first `size` (RFC 6962 §2.1.2)."""
        size = self.size if size is None else size
        if not 0 < old <= size <= self.size:
            raise ValueError("no such tree size")
        proof: list[bytes] = []
        start, end, known = 0, size, True
        while old < end:
            middle = start + _split(end - start)
            if old <= middle:
                proof.append(self._span(middle, end))
                end = middle
            else:
                proof.append(self._span(start, middle))
                start, known = middle, False
        if not known:
            proof.append(self._span(start, end))
        return proof[::-1]

    def frontier(self, size: int) -> list[bytes]:
        """The hashes of the complete subtrees that the first `size` leaves consist of, largest first."""
        if not 0 <= size <= self.size:
            raise ValueError("no such tree size")
        start, hashes = 0, []
        for height in reversed(range(size.bit_length())):
            if size >> height & 1:
                hashes.append(self._node(height, start >> height))
                start += 1 << height
        return hashes

    def _span(self, start: int, end: int) -> bytes:
        """The hash of a subtree [start, end) as RFC 6962 cuts them: complete, or at the tree's right edge."""
        size = end - start
        if size & (size - 1) == 0:
            height = size.bit_length() - 1
            return self._node(height, start >> height)
        middle = start + _split(size)
        return node_hash(self._span(start, middle), self._span(middle, end))

    def _node(self, height: int, number: int) -> bytes:
        """The hash of a complete subtree, folded from the stored height below it."""
        above = height % STEP
        base, first = height - above, number << above
        group = first // _WIDTH
        if (base, group) not in self._groups:
            start = group * _WIDTH
            there = min(_WIDTH, (self.size >> base) - start)
            self._groups[base, group] = self.nodes(base, start, there)
        hashes = self._groups[base, group][first % _WIDTH : first % _WIDTH + (1 << above)]
        while len(hashes) > 1:
            hashes = [node_hash(hashes[at], hashes[at + 1]) for at in range(0, len(hashes), 2)]
        return hashes[0]


def _split(size: int) -> int:
    """The largest power of two below `size`."""
    return 1 << (size - 1).bit_length() - 1
