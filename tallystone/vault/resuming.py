"""Where a change feed goes on after a pause: what an event's id says, and what happened since (ADR 0020).

    id       base64url of seal(K_feed, pae("feed", principal), place)
    place    number 8 bytes ‖ position 8 ‖ mark 8 ‖ print 32

`position` is the size of the log up to which everything was told, `mark` the beginning of the hash of the leaf before
it, `print` says which blocks the listener knew, in 32 bytes however many they are. All of it is sealed, and of one
length: an id tells nobody how much others wrote.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from operator import xor

from tallystone import crypto
from tallystone.audit.leaf import decode_manifest
from tallystone.errors import Rejected, Tampered
from tallystone.keystore import Keys
from tallystone.store.protocol import Snapshot
from tallystone.store.tables import EPOCH, LOG_HEAD, LOG_LEAF, LOG_MANIFEST, VERSION
from tallystone.vault.plan import WS
from tallystone.vault.sight import Name, Seen, Sight, name_of

REPLAYED = 20_000
"""Leaves that a resume looks back over; beyond, the listener is told to list again."""
_PLACE = struct.Struct(">QQ8s32s")
_CHUNK = 100


@dataclass(frozen=True)
class Place:
    """A place in one principal's feed."""

    number: int
    position: int
    mark: bytes
    known: bytes


def seal_place(keys: Keys, place: Place) -> str:
    """The id (171 characters) of an event after which everything up to this place was told."""
    packed = _PLACE.pack(place.number, place.position, place.mark, place.known)
    sealed = crypto.seal(keys.feed, crypto.pae("feed", keys.principal), packed)
    return base64.urlsafe_b64encode(sealed).rstrip(b"=").decode()


def open_place(keys: Keys, text: str) -> Place:
    """The reverse. Raises `Rejected` (`bad_cursor`) alike for what is no id, is somebody else's, or was changed."""
    try:
        sealed = base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), b"-_", validate=True)
        return Place(
            *_PLACE.unpack(crypto.open_sealed(keys.feed, crypto.pae("feed", keys.principal), sealed))
        )
    except (ValueError, struct.error, Tampered):
        raise Rejected(
            "this is not the id of an event of this feed",
            hint="send the id of the last event as it came, with a token of the same principal; or begin without one",
            code="bad_cursor",
        ) from None


def log_size(snapshot: Snapshot) -> int:
    """How many leaves the log has."""
    head = snapshot.get(LOG_HEAD, (WS,))
    return int(head[1]) if head is not None else 0


def mark_at(snapshot: Snapshot, position: int) -> bytes:
    """8 bytes that a log of another history has not at this place; empty beyond its end."""
    leaf = snapshot.get(LOG_LEAF, (WS, position - 1))
    return crypto.sha256(bytes(leaf[2]))[:8] if leaf is not None else b""


# -- which blocks are known -------------------------------------------------------------------------------------


def mark_of(keys: Keys, block_id: str, shape: bytes) -> int:
    """A block's part in the print of a set, 32 bytes as a number; they are joined by exclusive or. Keyed: nobody makes
    two sets of one print."""
    return int.from_bytes(crypto.mac(keys.known, crypto.pae("known", block_id, shape)), "big")


def _subset(marks: Mapping[str, int], wanted: int) -> set[str] | None:
    """The blocks among `marks` whose marks add up to `wanted`; None if there are none. Marks are as good as random, so
    up to some 200 of them are independent and no second subset fits (Gaussian elimination over bits)."""
    rows: list[tuple[int, frozenset[str]]] = []
    for block_id, mark in list(marks.items())[:200]:
        names = frozenset([block_id])
        for value, made_of in rows:
            if mark ^ value < mark:
                mark, names = mark ^ value, names ^ made_of
        if mark:
            rows.append((mark, names))
            rows.sort(reverse=True)
    found: frozenset[str] = frozenset()
    for value, made_of in rows:
        if wanted ^ value < wanted:
            wanted, found = wanted ^ value, found ^ made_of
    return None if wanted else set(found)


# -- what was missed --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Missed:
    """What a listener has to be told first: kinds by block, and the blocks that are news to it. Or that it must list
    again: `reset`."""

    kinds: Mapping[str, str]
    news: frozenset[str] = frozenset()
    reset: bool = False


def missed(snapshot: Snapshot, keys: Keys, sight: Sight, place: Place) -> Missed:
    """What happened between a place and a sight of now."""
    size = log_size(snapshot)
    # A log that is shorter, or another one, was restored from a backup: what was told is no guide to it.
    if not 0 < size - place.position + 1 <= REPLAYED or mark_at(snapshot, place.position) != place.mark:
        return Missed({}, reset=True)
    marks = {block_id: mark_of(keys, block_id, seen.shape) for block_id, seen in sight.blocks.items()}
    created = _subset(marks, reduce(xor, marks.values(), int.from_bytes(place.known, "big")))
    if created is None:
        return Missed({}, reset=True)  # something is gone, or not as it was: only a list can tell
    changed = created | _rewritten(snapshot, sight, place.position)
    kinds = {name: "created" if name in created else "updated" for name in sight.blocks if name in changed}
    return Missed(kinds, frozenset(created))


def _rewritten(snapshot: Snapshot, sight: Sight, position: int) -> set[str]:
    """The blocks that have a newer version than at `position`.

    A new version and a change of keys both write the row of the newest version. A change of keys writes an epoch as
    well; one in the same plan as a new version writes the row of the version before, too. So the first manifest that
    names the newest version's row tells which it was, without a key, and nobody hears that others' grants changed.
    """
    undecided = {_version(seen, 0): block_id for block_id, seen in sight.blocks.items()}
    found: set[str] = set()
    after = position - 1
    while True:
        rows = snapshot.scan(LOG_MANIFEST, (WS,), after=after, limit=_CHUNK)
        for row in rows:
            names = {(table, name) for table, name, _ in decode_manifest(bytes(row[2]))}
            for name in names & undecided.keys():
                block_id = undecided.pop(name)
                if _is_new(sight.blocks[block_id], names):
                    found.add(block_id)
        if len(rows) < _CHUNK:
            return found
        after = int(rows[-1][1])


def _version(seen: Seen, back: int) -> Name:
    return name_of(VERSION, seen.storage, seen.version - back)


def _is_new(seen: Seen, names: set[Name]) -> bool:
    rotated = any(name_of(EPOCH, seen.storage, number) in names for number in range(1, int(seen.row[4]) + 1))
    return not rotated or _version(seen, 1) in names
