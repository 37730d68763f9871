"""What a principal keeps beside its blocks: sealed entries in streams that only its own root can find and open.

A stream is named by an HMAC under the principal's K_locate, so the store sees neither whose it is nor of what kind. An
entry is sealed under a key that is derived from the principal's R_read for that stream, and bound to its number: moved
elsewhere it does not open. A *stream* counts its entries from 1 and only grows. A *drawer* is a stream whose numbers
are blinded addresses: it holds small records that are replaced (a run, a conversation, where a message lies).

Whoever may read as the principal opens them. Whoever writes needs the half of the root that acts: `Caller.transact`
asks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tallystone import _cbor, crypto
from tallystone.errors import Tampered
from tallystone.keystore import Keys
from tallystone.store.tables import ENTRY
from tallystone.vault.plan import WS, Plan

_CHUNK = 100

Name = tuple[str, ...]
"""What a stream is called, e.g. `("messages", conversation)`."""
Entry = dict[str, Any]


def _stream(keys: Keys, name: Name) -> bytes:
    return crypto.mac(keys.locate, crypto.pae("stream", *name))


def _key(keys: Keys, name: Name) -> bytes:
    return crypto.derive(keys.root.read, "root/stream", *name)


def _address(keys: Keys, name: Name, identity: str) -> int:
    """The blinded number of a record in a drawer: 63 bits, since a store's integers have a sign."""
    return int.from_bytes(crypto.mac(keys.locate, crypto.pae("drawer", *name, identity))[:8], "big") >> 1


def _seal(key: bytes, stream: bytes, number: int, entry: Mapping[str, Any]) -> bytes:
    return crypto.seal(key, crypto.pae("entry", stream, number), _cbor.encode(dict(entry)))


def _open(key: bytes, stream: bytes, number: int, sealed: bytes) -> Entry:
    entry = _cbor.decode(crypto.open_sealed(key, crypto.pae("entry", stream, number), sealed))
    if not isinstance(entry, dict):
        raise Tampered("an entry of a stream is malformed")
    return entry


# -- streams ----------------------------------------------------------------------------------------------------


def append(plan: Plan, keys: Keys, name: Name, *entries: Mapping[str, Any]) -> int:
    """Queue entries at the end of a stream; the commit fails if somebody else was faster. Returns the last number."""
    stream, key, last = _stream(keys, name), _key(keys, name), length(plan, keys, name)
    for entry in entries:
        last += 1
        plan.need(ENTRY, stream, last)
        plan.put(ENTRY, stream, last, _seal(key, stream, last, entry))
    plan.memo.setdefault("streams", {})[stream.hex()] = last
    return last


def length(plan: Plan, keys: Keys, name: Name) -> int:
    """The number of a stream's last entry, this plan's own included; 0 for an empty one."""
    stream = _stream(keys, name)
    known = plan.memo.setdefault("streams", {})
    if stream.hex() not in known:
        rows = plan.snapshot.scan(ENTRY, (WS, stream), limit=1, reverse=True)
        known[stream.hex()] = int(rows[0][2]) if rows else 0
    return int(known[stream.hex()])


def walk(
    plan: Plan, keys: Keys, name: Name, *, after: int | None = None, reverse: bool = False
) -> Iterator[tuple[int, Entry]]:
    """(number, entry) in order, beyond `after`, opened as they are asked for. What this plan appended is not in it."""
    stream, key = _stream(keys, name), _key(keys, name)
    while True:
        rows = plan.snapshot.scan(ENTRY, (WS, stream), after=after, limit=_CHUNK, reverse=reverse)
        for row in rows:
            yield int(row[2]), _open(key, stream, int(row[2]), bytes(row[3]))
        if len(rows) < _CHUNK:
            return
        after = int(rows[-1][2])


def entry_at(plan: Plan, keys: Keys, name: Name, number: int) -> Entry | None:
    """One entry of a stream by its number."""
    stream = _stream(keys, name)
    row = plan.get(ENTRY, stream, number)
    return _open(_key(keys, name), stream, number, bytes(row[3])) if row is not None else None


# -- drawers ----------------------------------------------------------------------------------------------------


def put(plan: Plan, keys: Keys, name: Name, identity: str, record: Mapping[str, Any]) -> None:
    """Queue a record of a drawer, in place of the one with the same identity; a race for it runs again."""
    stream, number = _stream(keys, name), _address(keys, name, identity)
    plan.need(ENTRY, stream, number)
    plan.put(ENTRY, stream, number, _seal(_key(keys, name), stream, number, {**record, "@": identity}))


def find(plan: Plan, keys: Keys, name: Name, identity: str) -> Entry | None:
    """A record of a drawer, held to be the current one by the commit; None if there is none of this identity."""
    plan.need(ENTRY, _stream(keys, name), _address(keys, name, identity))
    return peek(plan, keys, name, identity)


def peek(plan: Plan, keys: Keys, name: Name, identity: str) -> Entry | None:
    """Like `find`, of which the commit does not depend: for what is only shown."""
    stream, number = _stream(keys, name), _address(keys, name, identity)
    row = plan.get(ENTRY, stream, number)
    if row is None:
        return None
    record = _open(_key(keys, name), stream, number, bytes(row[3]))
    return record if record.pop("@", None) == identity else None


def drop(plan: Plan, keys: Keys, name: Name, identity: str) -> None:
    """Queue the end of a record."""
    plan.delete(ENTRY, _stream(keys, name), _address(keys, name, identity))


def clear(plan: Plan, keys: Keys, name: Name) -> None:
    """Queue the end of a whole stream or drawer."""
    stream = _stream(keys, name)
    plan.clear(ENTRY, stream)
    plan.memo.setdefault("streams", {})[stream.hex()] = 0


def forget(plan: Plan, keys: Keys, name: Name, number: int) -> None:
    """Queue the end of one entry of a stream; the numbers of the others stay."""
    plan.delete(ENTRY, _stream(keys, name), number)


# -- both -------------------------------------------------------------------------------------------------------


def rehouse(
    plan: Plan,
    old: Keys,
    new: Keys,
    name: Name,
    *,
    drawer: bool,
    change: Callable[[Entry], Entry] | None = None,
) -> int:
    """Queue the move of a stream, or with `drawer` of a drawer, from one root of a principal to the next. `change`
    re-seals what lies in a record under a key of its own. What is there already under the new root stays as it is.
    The commit fails if an entry came, changed or went meanwhile. Returns how many moved."""
    there, here = _stream(old, name), _stream(new, name)
    opening, sealing = _key(old, name), _key(new, name)
    last = moved = 0
    for row in plan.rows(ENTRY, there):
        number = int(row[2])
        plan.need(ENTRY, there, number)
        plan.delete(ENTRY, there, number)
        entry = _open(opening, there, number, bytes(row[3]))
        target = _address(new, name, str(entry.get("@", ""))) if drawer else number
        last = number
        if plan.need(ENTRY, here, target) is None:
            moved += 1
            plan.put(ENTRY, here, target, _seal(sealing, here, target, change(entry) if change else entry))
    if not drawer:
        plan.need(ENTRY, there, last + 1)
    return moved
