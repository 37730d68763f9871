"""The log as outsiders read it: C2SP `tlog-tiles` paths and their contents, receipts and consistency proofs.

    checkpoint                          the signed head
    tile/<L>/<N>[.p/<W>]                256 hashes of height 8·L (or W < 256 of them, at the tree's end)
    tile/entries/<N>[.p/<W>]            the leaves under a tile of level 0, each behind its length (2 bytes)

Everything is read from one snapshot, so that it fits together. Leaves hold kinds, minutes and hashes, nothing sealed.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tallystone.audit.checkpoint import Checkpoint, parse_text, take_apart
from tallystone.audit.leaf import decode_leaf
from tallystone.audit.merkle import leaf_hash, verify_consistency, verify_inclusion
from tallystone.audit.receipt import Receipt
from tallystone.audit.restored import RESTORE, Authority, Lost, Restored, read_restore
from tallystone.audit.tree import Tree
from tallystone.errors import Invalid, NotFound, Tampered
from tallystone.store.protocol import Snapshot
from tallystone.store.tables import LOG_DETAIL, LOG_HEAD, LOG_LEAF, WS, Row, Table

WIDTH = 256
"""Hashes in a whole tile."""
ENTRIES = -1
"""The level of entry bundles."""
_HEIGHT = 8
_PATH = re.compile(
    r"(?P<level>entries|[0-9]|[1-5][0-9]|6[0-3])/(?P<index>(?:x[0-9]{3}/){0,5}[0-9]{3})(?:\.p/(?P<width>[1-9][0-9]{0,2}))?"
)


@dataclass(frozen=True, slots=True)
class Tile:
    """A tile's place: its level (`ENTRIES` for a bundle of leaves), its number there, and how many it holds."""

    level: int
    index: int
    width: int = WIDTH

    @property
    def path(self) -> str:
        """Where it lies below `tile/`."""
        digits = str(self.index)
        digits = digits.zfill(-(-len(digits) // 3) * 3)
        parts = [digits[at : at + 3] for at in range(0, len(digits), 3)]
        named = "/".join(
            [
                "entries" if self.level == ENTRIES else str(self.level),
                *(f"x{p}" for p in parts[:-1]),
                parts[-1],
            ]
        )
        return named if self.width == WIDTH else f"{named}.p/{self.width}"


def parse_tile(path: str) -> Tile:
    """The tile at a path below `tile/`. Raises `Invalid` for any that `Tile.path` would not write."""
    found = _PATH.fullmatch(path)
    if found is not None:
        level = ENTRIES if found["level"] == "entries" else int(found["level"])
        width = int(found["width"]) if found["width"] else WIDTH
        tile = Tile(level, int(found["index"].replace("x", "").replace("/", "")), width)
        if width <= WIDTH and tile.path == path:
            return tile
    raise Invalid(
        "this is no path of a tile",
        hint="e.g. tile/0/x001/067, tile/1/000.p/12, tile/entries/000.p/7",
        code="bad_tile",
    )


def tiles_of(size: int, since: int = 0) -> Iterator[Tile]:
    """All tiles of a tree with `size` leaves, whole ones first at each level; without those that the tree of `since`
    leaves had whole.
    """
    for level in (ENTRIES, *range(8)):
        height = _HEIGHT * max(level, 0)
        count = size >> height
        for index in range((since >> height) // WIDTH, count // WIDTH):
            yield Tile(level, index)
        if count % WIDTH:
            yield Tile(level, count // WIDTH, count % WIDTH)


_CHUNK = 500


class Published:
    """The log under one snapshot."""

    def __init__(self, snapshot: Snapshot) -> None:
        """Raises `Tampered` if there is no head that could be read."""
        head = snapshot.get(LOG_HEAD, (WS,))
        if head is None:
            raise Tampered("the log's head is missing", hint="tallystone audit verify says more")
        self.checkpoint = bytes(head[3])
        """The signed note of the newest head."""
        self.head = checkpoint_of(self.checkpoint)
        self.tree = Tree(snapshot, self.head.size)
        self.snapshot = self._snapshot = snapshot

    def tile(self, tile: Tile) -> bytes:
        """A tile's content. Raises `NotFound` where the tree has not grown to."""
        height = _HEIGHT * max(tile.level, 0)
        start = tile.index * WIDTH
        if (start + tile.width) << height > self.head.size:
            raise NotFound(
                f"the log has no tile {tile.path}",
                hint="take the size from the checkpoint",
                code="unknown_tile",
            )
        if tile.level == ENTRIES:
            return b"".join(len(leaf).to_bytes(2, "big") + leaf for leaf in self._leaves(start, tile.width))
        return b"".join(self.tree.nodes(height, start, tile.width))

    def receipt(self, index: int, note: bytes | None = None) -> Receipt:
        """The receipt for a leaf, under this note or the newest. Raises `NotFound` if the note is of a smaller tree,
        and `Tampered` if what is stored does not lead to what was signed.
        """
        note = self.checkpoint if note is None else note
        signed = checkpoint_of(note)
        if not 0 <= index < min(signed.size, self.head.size):
            raise NotFound(
                f"the log has no leaf {index} yet",
                hint=f"it has {self.head.size}, counted from 0",
                code="unknown_leaf",
            )
        (leaf,) = self._leaves(index, 1)
        proof = self.tree.inclusion(index, signed.size)
        if not verify_inclusion(index, signed.size, leaf_hash(leaf), proof, signed.root):
            raise _unsound(index)
        return Receipt(index, leaf, proof, note)

    def consistency(self, old: Checkpoint) -> list[bytes]:
        """The proof that the log grew out of an earlier checkpoint; empty for the empty tree and for the same one.
        Raises `Tampered` if it did not: that is a fork, or a rollback.
        """
        if old.size > self.head.size:
            raise Tampered(
                f"the log was rolled back: it has {self.head.size} leaves, and had {old.size}",
                code="rolled_back",
            )
        if not old.size:
            return []
        proof = self.tree.consistency(old.size)
        if not verify_consistency(old.size, self.head.size, old.root, self.head.root, proof):
            raise Tampered(
                f"the log is not the one whose first {old.size} leaves were seen before", code="another_log"
            )
        return proof

    def gave_up(self, old: Checkpoint, authority: Authority) -> tuple[Restored, Lost] | None:
        """The restore in this log that gave up the leaves which a checkpoint is of, and these leaves; None if none did.
        Looks at every leaf's kind, so only for what does not agree. `authority` judges whose word a restore is."""
        before: int | None = None
        while rows := self._snapshot.scan(LOG_LEAF, (WS,), after=before, limit=_CHUNK, reverse=True):
            for row in rows:
                if row[1] >= self.head.size or decode_leaf(bytes(row[2])).kind != RESTORE:
                    continue
                detail = self._snapshot.get(LOG_DETAIL, (WS, row[1]))
                said = detail[2] if detail is not None else None
                try:
                    found = read_restore(row[1], self.tree.root(row[1]), said, authority, _untold)
                except Tampered:
                    continue  # excuses nothing; the log check names it
                for lost in found.lost:
                    if lost.covers(old):
                        return found, lost
            before = int(rows[-1][1])
        return None

    def _leaves(self, start: int, count: int) -> list[bytes]:
        rows = self._snapshot.scan(LOG_LEAF, (WS,), after=start - 1, limit=count)
        if [row[1] for row in rows] != list(range(start, start + count)):
            raise _unsound(start)
        return [bytes(row[2]) for row in rows]


def submission(old: int, proof: Sequence[bytes], note: bytes) -> bytes:
    """What a witness is sent (C2SP `tlog-witness`, add-checkpoint): the size that it knows, the proof that the log grew
    out of that, and the new checkpoint.
    """
    return b"".join([b"old %d\n" % old, *(b64encode(node) + b"\n" for node in proof), b"\n", note])


def checkpoint_of(note: bytes) -> Checkpoint:
    """What a note says, its signatures not looked at. Raises `Tampered`."""
    return parse_text(take_apart(note)[0])


def _unsound(index: int) -> Tampered:
    return Tampered(
        f"leaf {index} or a hash over it is not what was signed",
        hint="tallystone audit verify names the place",
    )


def _untold(table: Table, key: Row) -> bool:
    """What rows there were at a leaf is not looked up for who only explains a refusal: the check does that."""
    del table, key
    return False
