"""Receipts: that a leaf is in the log, as C2SP `tlog-proof`, to be checked by anybody, offline.

    c2sp.org/tlog-proof@v1
    extra hXF0YWxs…                     the leaf's own bytes, base64
    index 17
    gSKyXoYZUgZ6jduWYrkDOARinOMGJveXjgMkBTcdPlQ=
    …                                   the path to the root

    tallystone/5f2c…                    a checkpoint over a tree that holds the leaf, with its signatures
    …

The record that is proven to be in the log is what `extra` holds. This module needs the core of the package alone.
"""

from __future__ import annotations

import binascii
import re
import time
from base64 import b64decode, b64encode
from collections.abc import Sequence
from dataclasses import dataclass

from tallystone.audit.checkpoint import Checkpoint, open_checkpoint
from tallystone.audit.cosignature import LOG, WITNESS, cosigned_at, parse_key
from tallystone.audit.leaf import Leaf, decode_leaf
from tallystone.audit.merkle import HASH_SIZE, leaf_hash, verify_inclusion
from tallystone.errors import Tampered

_FIRST = b"c2sp.org/tlog-proof@v1"
_LONGEST = 128 * 1024
_MOST_HASHES = 63
_INDEX = re.compile(rb"index (0|[1-9][0-9]{0,18})")


@dataclass(frozen=True, slots=True)
class Receipt:
    """A leaf's bytes and number, its path (hashes) and the checkpoint note that the path leads to."""

    index: int
    leaf: bytes
    proof: Sequence[bytes]
    checkpoint: bytes

    def encode(self) -> bytes:
        """The bundle's bytes."""
        lines = [_FIRST, b"extra " + b64encode(self.leaf), b"index %d" % self.index]
        return b"\n".join([*lines, *map(b64encode, self.proof), b"", b""]) + self.checkpoint


@dataclass(frozen=True, slots=True)
class Proven:
    """What a receipt proves: this leaf is in the log that had this checkpoint; and who else has seen that, and when
    (Unix seconds).
    """

    leaf: Leaf
    checkpoint: Checkpoint
    seen: dict[str, int]


def decode_receipt(data: bytes) -> Receipt:
    """The receipt in these bytes, nothing of it verified. Raises `Tampered`."""
    head, gap, note = data.partition(b"\n\n")
    lines = head.split(b"\n")
    if len(data) > _LONGEST or not gap or lines[0] != _FIRST:
        raise Tampered("this is no receipt", hint="its first line should be: c2sp.org/tlog-proof@v1")
    if len(lines) < 3 or not lines[1].startswith(b"extra "):
        raise Tampered("the receipt does not hold its leaf")
    index = _INDEX.fullmatch(lines[2])
    if index is None or len(lines) > 3 + _MOST_HASHES:
        raise Tampered("the receipt is malformed")
    proof = [_unbase64(line) for line in lines[3:]]
    if any(len(node) != HASH_SIZE for node in proof):
        raise Tampered("the receipt has a hash of a wrong size")
    return Receipt(int(index[1]), _unbase64(lines[1].removeprefix(b"extra ")), proof, note)


def verify_receipt(
    data: bytes, log_key: str, witnesses: Sequence[str] = (), *, now: int | None = None
) -> Proven:
    """Check a receipt against the log's verifier key, and that each of these witnesses (verifier keys) has cosigned.

    Raises `Tampered` that says what does not hold, or `Invalid` for a key that is none. Needs no network and no store.
    `now`: Unix seconds, to refuse cosignatures from the future (default: the clock's).
    """
    key, cosigners = parse_key(log_key, LOG), [parse_key(text, WITNESS) for text in witnesses]
    receipt = decode_receipt(data)
    index = receipt.index
    signed = open_checkpoint(receipt.checkpoint, key.name, key.public)
    leaf = decode_leaf(receipt.leaf)
    if leaf.seq != index:
        raise Tampered(f"the receipt for leaf {index} holds leaf {leaf.seq}")
    if index >= signed.size:
        raise Tampered(f"the receipt's checkpoint has {signed.size} leaves: leaf {index} is not among them")
    if not verify_inclusion(index, signed.size, leaf_hash(receipt.leaf), receipt.proof, signed.root):
        raise Tampered(f"leaf {index} is not in the tree of {signed.size} leaves that the checkpoint signs")
    now = int(time.time()) if now is None else now
    seen = {witness.name: cosigned_at(receipt.checkpoint, witness, now) for witness in cosigners}
    return Proven(leaf, signed, seen)


def _unbase64(encoded: bytes) -> bytes:
    try:
        raw = b64decode(encoded, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Tampered("the receipt has malformed base64") from error
    if b64encode(raw) != encoded:
        raise Tampered("the receipt has malformed base64")
    return raw
