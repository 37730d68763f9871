"""What a leaf says, and how rows and the lists of them are hashed. All of it is deterministic CBOR.

leaf      ["tallystone/leaf/1", seq, minute, kind, sha256 of what lies beside it]
manifest  [[table, sha256 of key, sha256 of row or null], …], sorted; beside the leaf of kind `rows`
key       [cell, …]
row       [table, cell, …]
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256

from tallystone._cbor import decode, encode, encode_cells
from tallystone.audit.merkle import HASH_SIZE
from tallystone.errors import Tampered
from tallystone.store.tables import Row

_LABEL = "tallystone/leaf/1"

ROWS = "rows"
"""The kind of the leaf that accounts for the rows of a transaction. No event may use it."""

ManifestEntry = tuple[str, bytes, bytes | None]
"""Table name, hash of the key, hash of the row that is there now (None: deleted)."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """One entry of the log: its number, the unix minute, the kind, and the SHA-256 of the detail or manifest."""

    seq: int
    minute: int
    kind: str
    digest: bytes

    def encode(self) -> bytes:
        """The leaf's bytes, which the tree is over."""
        return encode_cells([_LABEL, self.seq, self.minute, self.kind, self.digest])


def decode_leaf(data: bytes) -> Leaf:
    """The leaf in these bytes. Raises `Tampered`."""
    match decode(data):
        case [str(label), int(seq), int(minute), str(kind), bytes(digest)] if (
            label == _LABEL and len(digest) == HASH_SIZE
        ):
            return Leaf(seq, minute, kind, digest)
        case _:
            raise Tampered("a log leaf is malformed")


def key_hash(key: Row) -> bytes:
    """The hash that names a row in a manifest: of its key alone, the table is named beside it."""
    return sha256(encode_cells(list(key))).digest()


def row_hash(table: str, row: Row) -> bytes:
    """The hash of a whole row. The table is part of it, so a row cannot move to another table."""
    return sha256(encode_cells([table, *row])).digest()


def encode_manifest(entries: Iterable[ManifestEntry]) -> bytes:
    """The manifest's bytes. Sorted, so that they say nothing about the order within the transaction."""
    return encode([list(entry) for entry in sorted(entries, key=lambda entry: entry[:2])])


def decode_manifest(body: bytes) -> list[ManifestEntry]:
    """The entries in these bytes. Raises `Tampered`."""
    entries = decode(body)
    if not isinstance(entries, list):
        raise Tampered("a manifest is malformed")
    return [_entry(entry) for entry in entries]


def _entry(entry: object) -> ManifestEntry:
    match entry:
        case [str(table), bytes(key), None] if len(key) == HASH_SIZE:
            return table, key, None
        case [str(table), bytes(key), bytes(row)] if len(key) == len(row) == HASH_SIZE:
            return table, key, row
        case _:
            raise Tampered("a manifest is malformed")
