"""A principal's root secret and the keys that come of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from tallystone import _cbor, crypto
from tallystone.errors import Tampered, Unauthenticated

FULL, READ_ONLY = "full", "read"
SCOPES = (FULL, READ_ONLY)


ShredKeyOf = Callable[[bytes], bytes | None]
"""The shred key (32 bytes) in a slot; None if it was destroyed."""


@dataclass(frozen=True)
class Nest:
    """What a root is nested in wherever it is stored: a shred key (32 bytes) and the slot that names it. Once that key
    is destroyed, no token, kit or shelf row opens the root, whatever backup they come from."""

    slot: bytes
    key: bytes = field(repr=False)

    @cached_property
    def _wrapping(self) -> bytes:
        return crypto.derive(self.key, "shred/root")

    def wrap(self, secret: bytes) -> bytes:
        """One half of a root, or both in a row: 8 bytes longer."""
        return crypto.wrap(self._wrapping, secret)

    def unwrap(self, wrapped: bytes) -> bytes:
        """The reverse. Raises `Tampered`."""
        return crypto.unwrap(self._wrapping, wrapped)


def find_nest(slot: bytes, shred_key_of: ShredKeyOf) -> Nest:
    """The nest in a slot. Raises `Unauthenticated` if its key was destroyed: whose root it held was erased."""
    key = shred_key_of(slot)
    if key is None:
        raise Unauthenticated(
            "this opens nothing here any more", hint="whose it was has been erased, or server-keys are others"
        )
    return Nest(slot, key)


@dataclass(frozen=True)
class Root:
    """A principal's root secret: two halves of 32 bytes, and the digest of the workspace root's first record (`pin`),
    so that everything its holder trusts starts from bytes that the store cannot replace. `nest` is None for roots of
    before there were nests, and for roles': those lie in a block, which has a shred key of its own."""

    read: bytes
    act: bytes | None
    pin: bytes
    nest: Nest | None = None

    def __repr__(self) -> str:
        return "Root(full)" if self.act else "Root(read)"

    def encode(self, scope: str) -> bytes:
        """The bytes to seal for a token of this scope."""
        act = self.act if scope == FULL else None
        if self.nest is None:
            return _cbor.encode([self.read, act, self.pin])
        return _cbor.encode([self.nest.slot, self.nest.wrap(self.read + (act or b"")), self.pin, 1])

    def carried(self) -> tuple[bytes, bytes, dict[str, bytes] | None]:
        """Both halves and what names their nest, as a sponsor's shelf row carries an agent's root."""
        act = self.act or b""
        if self.nest is None:
            return self.read, act, None
        return self.nest.wrap(self.read), self.nest.wrap(act) if act else b"", {"nest": self.nest.slot}

    @classmethod
    def decode(cls, data: bytes, shred_key_of: ShredKeyOf = lambda _: None) -> Root:
        """Raises `Tampered`, and `Unauthenticated` if it was nested in a key that is gone."""
        value = _cbor.decode(data)
        if not isinstance(value, list):
            raise Tampered("a sealed root is malformed")
        if _cbor.fits(value, (bytes, bytes, bytes, int)) and value[3] == 1:
            nest = find_nest(value[0], shred_key_of)
            halves = nest.unwrap(value[1])
            if len(halves) in (crypto.KEY_SIZE, 2 * crypto.KEY_SIZE):
                return cls(halves[: crypto.KEY_SIZE], halves[crypto.KEY_SIZE :] or None, value[2], nest)
        elif _cbor.fits(value, (bytes, (bytes, type(None)), bytes)):
            return cls(*value)
        raise Tampered("a sealed root is malformed")


def new_root(pin: bytes) -> Root:
    """Two fresh halves."""
    return Root(crypto.random_bytes(), crypto.random_bytes(), pin)


_CARRIED = ("locate", "seal", "own", "recall")
_CARRIED_TO_ACT = ("act", "sign", "kem")


class Keys:
    """A principal's keys, as far as its caller's token reaches. Each is derived when first used."""

    def __init__(self, principal: str, root: Root) -> None:
        self.principal = principal
        self.root = root
        self._shelves: dict[str, bytes] = {}
        self.shelter: tuple[bytes, crypto.Shelter] | None = None  # for whoever keeps things for these keys
        self._signer: tuple[bytes, crypto.Signer] | None = None

    def carry(self) -> list[Any]:
        """Both halves of the root, and what most requests derive of them: for whoever seals it, and opens it by `of`.
        All of it is secret. The root's nest is not in it."""
        names = _CARRIED + _CARRIED_TO_ACT if self.can_act else _CARRIED
        shelves = {kind: self.shelf(kind) for kind in ("block", "role", "agent")}
        return [
            self.root.read,
            self.root.act,
            self.root.pin,
            shelves,
            *(getattr(self, name) for name in names),
        ]

    @classmethod
    def of(cls, principal: str, carried: list[Any], nest: Nest | None) -> Keys:
        """What `carry` gave, with the nest that the root has."""
        read, act, pin, shelves, *derived = carried
        keys = cls(principal, Root(read, act, pin, nest))
        keys._shelves = shelves
        keys.__dict__.update(zip(_CARRIED + _CARRIED_TO_ACT, derived, strict=False))
        return keys

    def __repr__(self) -> str:
        return f"Keys({self.principal}, {self.root!r})"

    @cached_property
    def locate(self) -> bytes:
        """Blinds addresses on the shelf."""
        return crypto.derive(self.root.read, "root/locate")

    @cached_property
    def seal(self) -> bytes:
        """Seals part one of shelf rows."""
        return crypto.derive(self.root.read, "root/seal")

    @cached_property
    def own(self) -> bytes:
        """Wraps this principal's copies of the events that it caused."""
        return crypto.derive(self.root.read, "root/own")

    @cached_property
    def feed(self) -> bytes:
        """Seals the places of this principal in its change feed."""
        return crypto.derive(self.root.read, "root/feed")

    @cached_property
    def known(self) -> bytes:
        """Marks the blocks that a listener of this principal's knows."""
        return crypto.derive(self.root.read, "root/known")

    @cached_property
    def recall(self) -> bytes:
        """Seals what a process keeps of blocks between requests. A token of another scope has another one."""
        if self.root.act is None:
            return crypto.derive(self.root.read, "root/recall")
        return crypto.derive_from_both(self.root.read, self.root.act, "root/recall")

    def _act(self, label: str) -> bytes:
        if self.root.act is None:
            raise LookupError(
                label
            )  # callers ask `can_act` first; a read-only token gets a clear refusal there
        return crypto.derive(self.root.act, label)

    @property
    def can_act(self) -> bool:
        """Whether the token carries the half that signs."""
        return self.root.act is not None

    @cached_property
    def sign(self) -> bytes:
        """Seals the Ed25519 seed."""
        return self._act("root/sign")

    @cached_property
    def kem(self) -> bytes:
        """Seals the X-Wing seed."""
        return self._act("root/kem")

    @cached_property
    def act(self) -> bytes:
        """Seals part two of shelf rows."""
        return self._act("root/act")

    @cached_property
    def access(self) -> bytes:
        """Seals what lets one call a tool server."""
        return self._act("root/access")

    @cached_property
    def spend(self) -> bytes:
        """Seals what calls a model at its owner's cost."""
        return self._act("root/model-key")

    @cached_property
    def former(self) -> bytes:
        """Seals the acting halves and the X-Wing seeds of this principal's earlier roots."""
        return self._act("root/former")

    def signer(self, sealed: bytes) -> crypto.Signer:
        """The key that this principal signs with, from its sealed seed: opened and loaded once. Raises `Tampered`."""
        if self._signer is None or self._signer[0] != sealed:
            self._signer = sealed, crypto.Signer(open_seed(self, "sign", sealed))
        return self._signer[1]

    def shelf(self, kind: str) -> bytes:
        """The id (32 bytes) of this principal's shelf for one kind of thing. Unlinkable to the principal."""
        known = self._shelves.get(kind)
        if known is None:
            known = self._shelves[kind] = crypto.mac(self.locate, crypto.pae("shelf", kind))
        return known

    def locator(self, identity: str) -> bytes:
        """The blinded address (32 bytes) of a thing on this principal's shelf."""
        return crypto.mac(self.locate, crypto.pae("locator", identity))


def seal_seed(keys: Keys, purpose: str, seed: bytes) -> bytes:
    """One of an identity's two seeds (`sign` or `kem`), for its row."""
    key = keys.sign if purpose == "sign" else keys.kem
    return crypto.seal(key, crypto.pae("identity", purpose, keys.principal), seed)


def open_seed(keys: Keys, purpose: str, sealed: bytes) -> bytes:
    """The reverse. Raises `Tampered`."""
    key = keys.sign if purpose == "sign" else keys.kem
    return crypto.open_sealed(key, crypto.pae("identity", purpose, keys.principal), sealed)
