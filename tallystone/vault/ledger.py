"""A block's ledger: who holds its grants, for its readers, and with which keys, for those who may change them.

A row's `roster` is sealed under the chain key: whoever reads the block can rotate it, and must know for whom. Its
`secret` says the K_grant to holders of the block's admin key (the owner, sharers), in one of these forms:

    00 ‖ seal(K_grant)                    by the admin key, as the first release wrote it
    01 ‖ HPKE(K_grant)                    to the admin key's public half, by a grantee who placed the block
    02 ‖ wrap(K_grant ‖ marks) [‖ seal]   by the admin key: 48 bytes, then the keys that it replaced, if any
    03 ‖ [HPKE(K_grant), secret before]   to the public half, by a grantee who changed the keys
    04 ‖ [HPKE(K_grant ‖ admin), before, 02…]   as 06 was written once, to the old admin key's public half. Who shared
                                                the block and does so no more opens that: it is only read (ADR 0038)
    05 ‖ [HPKE(K_grant), secret before]   like 03, with the key that it was: its holder asks for another one, since
                                          somebody else may know this one
    06 ‖ [HPKE(admin), 02…]   to the owner's record, and under the new admin key, by a sharer who changed that key too:
                              the owner's row, until the owner changes keys
    07 ‖ secret      of a grant that has ended, by a sharer who changed the admin key since: its holder knows only the
                     former one. Until the owner's next statement leaves the grant out

The owner's own row (place 0, or the seat that a transfer took) has no leaf. Its roster is the public half of the admin
key, sealed under the chain key: whoever reads the block can seal to it, and the policy holds its hash.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from tallystone import _cbor, crypto
from tallystone.errors import Tampered
from tallystone.statements import Leaf

_SEALED, _PLACED, _KEYED, _RENEWED, _TURNED = b"\x00", b"\x01", b"\x02", b"\x03", b"\x04"
_ASKED, _HANDED, _ENDED = b"\x05", b"\x06", b"\x07"
_MARKED_SIZE = 48
_HISTORY, _WATCH = 1, 2


@dataclass(frozen=True)
class Roster:
    """Who a grant is to, for those who may read the block: the leaf, and the capsule it travelled in (or empty)."""

    leaf: Leaf
    capsule: bytes


@dataclass(frozen=True)
class Entry:
    """What a ledger row tells holders of the admin key: K_grant (32 bytes), the keys that it replaced, oldest first.

    `marks` is None where an older row does not say; else (whether the grant has history, whether a rotation must look
    at the roster before it wraps for this grant). `admin` is there if a sharer changed that key as well.
    """

    key: bytes
    retired: tuple[bytes, ...] = ()
    marks: tuple[bool, bool] | None = None
    admin: bytes = b""

    def __repr__(self) -> str:
        return f"Entry({len(self.retired)} retired)"


def leaf_salt(grant_key: bytes) -> bytes:
    """The salt (16 bytes) of the leaf of the grant with this K_grant: a statement that names the leaf fixes the key."""
    return crypto.derive(grant_key, "grant/leaf-salt")[:16]


def seal_roster(chain: bytes, block: str, roster: Roster) -> bytes:
    """The `roster` column of a ledger row."""
    body = _cbor.encode([roster.leaf.encode(), roster.capsule])
    return crypto.seal(chain, crypto.pae("roster", block, roster.leaf.grant), body)


def open_roster(chain: bytes, block: str, number: int, sealed: bytes) -> Roster:
    """The reverse. Raises `Tampered`."""
    body = crypto.open_sealed(chain, crypto.pae("roster", block, number), sealed)
    leaf, capsule = _cbor.unpack(body, "a grant's entry", bytes, bytes)
    return Roster(Leaf.decode(leaf), capsule)


def admin_public(admin: bytes) -> bytes:
    """The public half (1216 bytes) of a block's admin key (32 bytes)."""
    return crypto.kem_public(crypto.derive(admin, "admin/kem"))


Letter = Callable[[int, bytes], bytes]
"""Opens what was sealed to the owner at a place of the ledger (`owner_info`). Raises `Tampered`."""


class Ledger:
    """Seals and opens the `secret` column with one block's admin key, which is derived from once for all rows. With
    `letter`, the owner's, also what was sealed to the owner itself."""

    def __init__(self, admin: bytes, block: str, letter: Letter | None = None) -> None:
        self._admin, self._block, self._letter = admin, block, letter
        self._wrapping = crypto.derive(admin, "admin/ledger-wrap", block)

    def __repr__(self) -> str:
        return f"Ledger({self._block})"

    def seal(
        self, number: int, grant_key: bytes, *, history: bool, watch: bool, retired: tuple[bytes, ...] = ()
    ) -> bytes:
        """The `secret` of the grant at this place."""
        # AES key wrap authenticates its input, so the place and the marks inside it cannot be those of another row.
        marks = (number << 8 | (_HISTORY if history else 0) | (_WATCH if watch else 0)).to_bytes(8, "big")
        secret = _KEYED + crypto.wrap(self._wrapping, grant_key + marks)
        if not retired:
            return secret
        key, context = crypto.derive(self._admin, "admin/retired"), self._context("retired", number)
        return secret + crypto.seal(key, context, _cbor.encode(list(retired)))

    def open(self, number: int, secret: bytes) -> Entry:
        """What the row says. Raises `Tampered`."""
        form, body = secret[:1], secret[1:]
        if form == _KEYED:
            return self._open_keyed(number, body)
        if form == _SEALED:
            key = crypto.derive(self._admin, "admin/ledger")
            return Entry(crypto.open_sealed(key, self._context("ledger", number), body))
        if form == _PLACED:
            return Entry(self._open_sent(number, body))
        if form in (_RENEWED, _ASKED):
            sent, before = _cbor.unpack(body, "a ledger row", bytes, bytes)
            return self._open_renewed(number, sent, before)
        if form == _TURNED:
            sent, before, kept = _cbor.unpack(body, "a ledger row", bytes, bytes, bytes)
            try:
                return self._open_keyed(number, kept[1:])
            except Tampered:
                return self._open_renewed(number, sent, before)
        if form == _HANDED:
            return self._open_handed(number, body)
        if form == _ENDED:
            return self.open(number, body)
        raise Tampered("a ledger row has a form that this version does not know")

    def _open_handed(self, number: int, body: bytes) -> Entry:
        sent, kept = _cbor.unpack(body, "a ledger row", bytes, bytes)
        try:
            return self.open(number, kept)
        except Tampered:
            if self._letter is None:
                raise
        admin = self._letter(number, sent)
        if len(admin) != crypto.KEY_SIZE:
            raise Tampered("a ledger row is malformed")
        return replace(Ledger(admin, self._block).open(number, kept), admin=admin)

    def _open_renewed(self, number: int, sent: bytes, before: bytes) -> Entry:
        """A key that somebody without this admin key has put in place of the one `before`. If the admin key has been
        changed since, the way to the newer one leads through `before`."""
        earlier = self.open(number, before) if before else None
        retired = (*earlier.retired, earlier.key) if earlier else ()
        ledger, admin = self, b""
        if earlier is not None and earlier.admin:
            ledger, admin = Ledger(earlier.admin, self._block), earlier.admin
        opened = ledger._open_sent(number, sent)
        if len(opened) not in (crypto.KEY_SIZE, 2 * crypto.KEY_SIZE):
            raise Tampered("a ledger row is malformed")
        return Entry(opened[:32], retired, None, opened[32:] or admin)

    def _open_keyed(self, number: int, body: bytes) -> Entry:
        marked, rest = body[:_MARKED_SIZE], body[_MARKED_SIZE:]
        plain = crypto.unwrap(self._wrapping, marked)
        marks = int.from_bytes(plain[32:], "big")
        if len(plain) != crypto.KEY_SIZE + 8 or marks >> 8 != number:
            raise Tampered("a ledger row stands at another's place")
        retired: tuple[bytes, ...] = ()
        if rest:
            key, context = crypto.derive(self._admin, "admin/retired"), self._context("retired", number)
            found = _cbor.decode(crypto.open_sealed(key, context, rest))
            if not isinstance(found, list) or not all(isinstance(one, bytes) for one in found):
                raise Tampered("a ledger row is malformed")
            retired = tuple(found)
        return Entry(plain[:32], retired, (bool(marks & _HISTORY), bool(marks & _WATCH)))

    def _open_sent(self, number: int, sent: bytes) -> bytes:
        return crypto.open_from(
            crypto.derive(self._admin, "admin/kem"), self._context("ledger", number), sent
        )

    def _context(self, purpose: str, number: int) -> bytes:
        return crypto.pae(purpose, self._block, number)


def renewed(secret: bytes) -> bool:
    """Whether somebody without the admin key, or with another one, has changed this row's key."""
    return secret[:1] in (_RENEWED, _TURNED, _ASKED, _HANDED)


def asked(secret: bytes) -> bool:
    """Whether the grant's holder has asked for another key: with `share`, for another admin key as well."""
    return secret[:1] == _ASKED


def is_ended(secret: bytes) -> bool:
    """Whether a grant has ended, and the admin key has been changed since."""
    return secret[:1] == _ENDED


def handed_openly(secret: bytes) -> bool:
    """Whether an owner's row tells the admin key to whoever knows the one before."""
    if secret[:1] in (_RENEWED, _ASKED):
        return handed_openly(_cbor.unpack(secret[1:], "a ledger row", bytes, bytes)[1])
    return secret[:1] == _TURNED


def ask_secret(public: bytes, block: str, number: int, grant_key: bytes, before: bytes) -> bytes:
    """The `secret` of a grant whose holder asks for another key. Parameters as for `renew_secret`."""
    return _ASKED + renew_secret(public, block, number, grant_key, before)[1:]


def place_secret(public: bytes, block: str, number: int, grant_key: bytes) -> bytes:
    """The `secret` of a new grant, by a grantee who knows only the admin key's public half (1216 bytes)."""
    return _PLACED + crypto.seal_to(public, crypto.pae("ledger", block, number), grant_key)


def renew_secret(public: bytes, block: str, number: int, grant_key: bytes, before: bytes) -> bytes:
    """The `secret` of a grant whose key somebody without the admin key has changed; `before` stays inside, so that
    older events can still be opened. `public` is the admin key's public half (1216 bytes)."""
    sent = crypto.seal_to(public, crypto.pae("ledger", block, number), grant_key)
    return _RENEWED + _cbor.encode([sent, before])


def owner_info(workspace: bytes, record: bytes, block: str, number: int) -> bytes:
    """What a new admin key on its way to the owner is bound to; `record` is the hash of the owner's record."""
    return crypto.pae("tallystone/admin-key", workspace, record, block, number)


def hand_secret(public: bytes, info: bytes, admin: bytes, kept: bytes) -> bytes:
    """The `secret` of the owner's row after a sharer has changed the admin key to `admin` (32 bytes): that key for the
    owner, to the `public` key (1216 bytes) of its record with `info` from `owner_info`; and `kept`, the row under it,
    for whoever changes keys next. The former admin key opens neither: somebody who knows it may have been revoked."""
    return _HANDED + _cbor.encode([crypto.seal_to(public, info, admin), kept])


def end_secret(secret: bytes) -> bytes:
    """The `secret` of a grant that has ended, whose row is under a newer admin key than its holder knows."""
    return _ENDED + secret


def seal_public(chain: bytes, block: str, public: bytes) -> bytes:
    """The `roster` of the owner's row."""
    return crypto.seal(chain, crypto.pae("admin/public", block), public)


def open_public(chain: bytes, block: str, sealed: bytes) -> bytes:
    """The reverse. Raises `Tampered`. Compare its hash with the policy's."""
    return crypto.open_sealed(chain, crypto.pae("admin/public", block), sealed)
