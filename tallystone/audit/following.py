"""What a log says that others have changed: from one of its heads to a later one.

Whoever kept rows at the first head need not read them all again at the second. The leaves between are hashed onto the
first head's tree; if that makes the second's, then the log that was known has grown into this one, the leaves are all
there, and the manifests beside them, which they hold the hashes of, name every row that changed. Signatures are not
looked at: whoever writes on verifies the head (`sequencer`).
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

from tallystone.audit.leaf import ROWS, decode_leaf, decode_manifest
from tallystone.audit.merkle import Frontier, leaf_hash
from tallystone.errors import Tampered
from tallystone.store.protocol import Followed, Grown, Head

# How canonical CBOR spells the kind: a leaf without these bytes is of another kind, and need not be decoded.
_ROWS = bytes([0x60 + len(ROWS)]) + ROWS.encode()


def follow(before: Head, after: Head, grown: Sequence[Grown]) -> Followed | None:
    """The heads that the log passed after `before`, `after` the last, and the rows that changed on the way, by table
    and `key_hash`. `grown`: the leaves between, each with its manifest, if it has one.

    None unless exactly these leaves make one of the other, and all their manifests are there and are theirs.
    """
    try:
        tree = Frontier(*before)
    except ValueError:
        return None
    heads: list[Head] = []
    changed: set[tuple[str, bytes]] = set()
    for number, leaf, manifest in grown:
        if number != tree.size or not isinstance(leaf, bytes):
            return None
        tree.append(leaf_hash(leaf))
        heads.append((tree.size, tree.pack()))
        if _ROWS in leaf:
            try:
                said = decode_leaf(leaf)
                if said.kind != ROWS:
                    continue
                if not isinstance(manifest, bytes) or sha256(manifest).digest() != said.digest:
                    return None
                changed.update((table, key) for table, key, _ in decode_manifest(manifest))
            except Tampered:
                return None
    if not heads or heads[-1] != after:
        return None
    return heads, changed
