"""Whether a row is what the log wrote last under its key: for what acts upon rows without any key, and for good.

A purge overwrites shred keys and ends blocks because rows say so. Whoever can write a row could have it destroy what no
backup brings back, and the row would be gone before a check looks. So it asks here first. Manifests are read from the
newest back, until each row is found, and one that is found counts only if its leaf is under the signed head.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress

from tallystone.audit.checkpoint import open_checkpoint
from tallystone.audit.leaf import ROWS, decode_leaf, decode_manifest, key_hash, row_hash
from tallystone.audit.merkle import leaf_hash, verify_inclusion
from tallystone.audit.published import Published
from tallystone.crypto import equal, sha256
from tallystone.errors import Tampered
from tallystone.store.protocol import Snapshot
from tallystone.store.tables import LOG_LEAF, LOG_MANIFEST, WS, Row, Table

_CHUNK = 200


def accounted(
    snapshot: Snapshot, origin: str, publics: Sequence[bytes], rows: Iterable[tuple[Table, Row]]
) -> set[tuple[str, Row]]:
    """Those of `rows` that the log wrote just so, as (table's name, row). A row that it never wrote costs a look at
    every manifest. `publics`: keys that the head may be signed with, from elsewhere than the store. Raises `Tampered`
    if it is signed with none of them."""
    wanted = {(table.name, key_hash(table.key_of(row))): row for table, row in rows}
    if not wanted:
        return set()
    log = Published(snapshot)
    root = _root(log, origin, publics)
    found: set[tuple[str, Row]] = set()
    for seq, body in _manifests(snapshot, log.head.size):
        try:
            entries = decode_manifest(body)
        except Tampered:
            continue  # the check names it
        here = [entry for entry in entries if entry[:2] in wanted]
        if not here or not _is_logged(snapshot, log, root, seq, body):
            continue
        for table, key, written in here:
            row = wanted.pop((table, key))
            if written is not None and equal(written, row_hash(table, row)):
                found.add((table, row))
        if not wanted:
            break
    return found


def _root(log: Published, origin: str, publics: Sequence[bytes]) -> bytes:
    for public in publics:
        with suppress(Tampered):
            return open_checkpoint(log.checkpoint, origin, public).root
    raise Tampered("the log's head is not signed by its key", hint="tallystone audit verify says more")


def _manifests(snapshot: Snapshot, size: int) -> Iterator[tuple[int, bytes]]:
    """(number, manifest), the newest first."""
    before = size
    while True:
        rows = snapshot.scan(LOG_MANIFEST, (WS,), after=before, limit=_CHUNK, reverse=True)
        yield from ((int(row[1]), bytes(row[2])) for row in rows)
        if len(rows) < _CHUNK:
            return
        before = int(rows[-1][1])


def _is_logged(snapshot: Snapshot, log: Published, root: bytes, seq: int, body: bytes) -> bool:
    """Whether the leaf with this number has the manifest's hash and is under the root."""
    row = snapshot.get(LOG_LEAF, (WS, seq))
    if row is None:
        return False
    data = bytes(row[2])
    try:
        leaf, path = decode_leaf(data), log.tree.inclusion(seq)
    except (Tampered, ValueError):
        return False
    genuine = (leaf.seq, leaf.kind) == (seq, ROWS) and equal(leaf.digest, sha256(body))
    return genuine and verify_inclusion(seq, log.head.size, leaf_hash(data), path, root)
