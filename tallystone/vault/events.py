"""The sealed details of log events: who did what to which block, for those who may know (design §9).

A detail is sealed once under a key of its own. That key is wrapped for whom it concerns: under HKDF(K_grant, "event")
of each block in it, which its holder and the block's owner can derive; under the actor's own key; or under the
auditor's key of the process and day, when there is no grant. Nobody else learns more than kind, minute and size.
A read is authenticated by a MAC under HKDF(K_grant, "read-mac"): the owner can check it, and could forge it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from tallystone import _cbor, crypto
from tallystone.errors import Tampered
from tallystone.keystore import Keys

_FILED, _READ = crypto.purpose("grant/event"), crypto.purpose("grant/read-mac")
_AUDITED = crypto.purpose("auditor/event")


def seal_event(
    content: Mapping[str, Any],
    keys: Keys | None,
    grants: Iterable[bytes] = (),
    auditor: tuple[bytes, bytes] | None = None,
    known: Mapping[bytes, tuple[bytes, bytes]] = MappingProxyType({}),
) -> bytes:
    """The detail record. `grants` are the K_grants it concerns, `auditor` (capsule id, day key) when none does; `known`
    the `grant_keys` of some of them."""
    event_key = crypto.random_bytes()
    sealed = crypto.seal(event_key, b"event", _cbor.encode_named(dict(content)))
    digest = crypto.sha256(sealed)
    pairs = [known.get(grant) or grant_keys(grant) for grant in grants]
    filed = crypto.file_under(pairs, event_key, digest)
    own = crypto.wrap(keys.own, event_key) if keys is not None else b""
    capsule = [auditor[0], crypto.wrap(crypto.derive_for(auditor[1], _AUDITED), event_key)] if auditor else []
    return _cbor.spell_filed(sealed, filed, own, capsule)


def open_own(detail: bytes, keys: Keys) -> dict[str, Any] | None:
    """The content, if this principal caused the event; else None."""
    sealed, _, own, _ = _take_apart(detail)
    return _try(keys.own, own, sealed) if own else None


def grant_keys(grant: bytes) -> tuple[bytes, bytes]:
    """What opens and what authenticates the events that were filed under a K_grant; derived once for many events."""
    return crypto.derive_for(grant, _FILED), crypto.derive_for(grant, _READ)


def open_granted(detail: bytes, keys: tuple[bytes, bytes]) -> dict[str, Any] | None:
    """The content, if the event concerns the block of the K_grant with these `grant_keys`; else None."""
    for entry in entries(detail):
        content = entry.open(keys)
        if content is not None:
            return content
    return None


def concerns_only(detail: bytes, keys: Iterable[bytes]) -> bool:
    """Whether an event is about one block, whose K_grants have these `grant/event` keys, and is not the auditor's."""
    _, entries, _, capsule = _take_apart(detail)
    if capsule or len(entries) != 1 or not _cbor.fits(entries[0], (bytes, bytes)):
        return False
    for key in keys:
        try:
            crypto.unwrap(key, entries[0][0])
        except Tampered:
            continue
        return True
    return False


@dataclass(frozen=True)
class Entry:
    """What files an event under one K_grant: the wrapped event key, the MAC over the digest of what it opens."""

    wrapped: bytes
    tag: bytes
    sealed: bytes

    def open(self, keys: tuple[bytes, bytes]) -> dict[str, Any] | None:
        """The content, if the entry is for the K_grant with these `grant_keys`; else None. A wrong key costs 3 µs."""
        key, mac_key = keys
        content = _try(key, self.wrapped, self.sealed)
        genuine = content is not None and crypto.equal(
            self.tag, crypto.mac(mac_key, crypto.sha256(self.sealed))
        )
        return content if genuine else None


def entries(detail: bytes) -> list[Entry]:
    """One for each K_grant that the event is filed under. Nothing in it says which. Raises `Tampered`."""
    sealed, found, _, _ = _take_apart(detail)
    if not all(isinstance(entry, list) and _cbor.fits(entry, (bytes, bytes)) for entry in found):
        raise Tampered("an event's details are malformed")
    return [Entry(wrapped, tag, sealed) for wrapped, tag in found]


def auditor_capsule(detail: bytes) -> bytes | None:
    """The id of the capsule whose key opens this event, if it was sealed to the auditor."""
    _, _, _, capsule = _take_apart(detail)
    return capsule[0] if capsule else None


def open_audited(detail: bytes, day_key: bytes) -> dict[str, Any] | None:
    """The content, with the key out of the auditor's capsule."""
    sealed, _, _, capsule = _take_apart(detail)
    return _try(crypto.derive_for(day_key, _AUDITED), capsule[1], sealed) if capsule else None


def _take_apart(detail: bytes) -> tuple[bytes, list[Any], bytes, list[bytes]]:
    sealed, entries, own, capsule = _cbor.unpack(detail, "an event's details", bytes, list, bytes, list)
    if capsule and not _cbor.fits(capsule, (bytes, bytes)):
        raise Tampered("an event's details are malformed")
    return sealed, entries, own, capsule


def _try(key: bytes, wrapped: bytes, sealed: bytes) -> dict[str, Any] | None:
    try:
        value = _cbor.decode(crypto.open_sealed(crypto.unwrap(key, wrapped), b"event", sealed))
    except Tampered:
        return (
            None  # not for this key; a changed record is the log check's to report, by its hash in the leaf
        )
    return value if isinstance(value, dict) else None
