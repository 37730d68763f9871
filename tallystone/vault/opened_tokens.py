"""Tokens that a process has opened before, sealed again for whoever brings them (ADR 0040).

Each request brings its token and begins with nothing. What comes of a token (both halves of a root, the keys that every
request derives of it) is kept here as one ciphertext, under a key that follows from the token's secret and from the
shred key that the root is nested in. Where it lies follows from that secret as well: who brings another one finds
nothing, and does the same work whether or not there is such a token. Between requests a process still has no key.

It stands in for rows and signatures, so it counts only while they are what they were, in the view of the request that
asks: the token's row, the principal's sealed seeds, the records of everybody who must stand for it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tallystone import _cbor, crypto
from tallystone.kept import TOKENS, Recent, weight_of
from tallystone.keystore import Identity, Keys, Nest, Token
from tallystone.keystore.keys import ShredKeyOf
from tallystone.statements import Signed
from tallystone.store.protocol import Row

_PLACE, _SEAL, _CONTEXT = b"place", b"seal", b"tallystone/token"
_PERSON = 2500
"""Bytes of an identity that nothing else keeps by then: half of them, since most are kept with all others."""


@dataclass(frozen=True, slots=True)
class KeptToken:
    """What the ciphertext depends on: the token's row, that of the sealed seeds (None for a token that only reads), who
    stands for the caller with the workspace's root last, the workspace's record, the slot of the root's shred key."""

    row: Row
    seeds: Row | None
    people: tuple[Identity, ...]
    word: Signed
    slot: bytes | None
    sealed: bytes = field(repr=False)


class OpenedTokens:
    """What is kept, by a hash under the token's secret. Safe to use from several threads."""

    def __init__(self, limit: int = TOKENS) -> None:
        self._kept: Recent[bytes, KeptToken] = Recent(limit)

    def __repr__(self) -> str:
        return f"OpenedTokens({self._kept!r})"

    def find(self, secret: bytes) -> KeptToken | None:
        """What is kept for the token with this `recall_key`."""
        return self._kept.get(crypto.mac(secret, _PLACE))

    def open(self, secret: bytes, kept: KeptToken, shred_key_of: ShredKeyOf) -> Keys | None:
        """The keys that were kept. None if what the root is nested in is gone. Raises `StoreError`."""
        nest = None
        if kept.slot is not None:
            key = shred_key_of(kept.slot)
            if key is None:
                return None
            nest = Nest(kept.slot, key)
        sealed_under = crypto.mac(secret, _SEAL + (nest.key if nest is not None else b""))
        carried = _cbor.own(crypto.open_sealed(sealed_under, _CONTEXT, kept.sealed))
        return Keys.of(kept.row[2], carried, nest)

    def keep(
        self,
        token: Token,
        row: Row,
        seeds: Row | None,
        people: tuple[Identity, ...],
        word: Signed,
        keys: Keys,
    ) -> None:
        """Note what a token opened, with all that was asked before it did."""
        secret, nest = token.recall_key(), keys.root.nest
        sealed_under = crypto.mac(secret, _SEAL + (nest.key if nest is not None else b""))
        sealed = crypto.seal(sealed_under, _CONTEXT, _cbor.own_bytes(keys.carry()))
        kept = KeptToken(row, seeds, people, word, nest.slot if nest is not None else None, sealed)
        weight = len(sealed) + weight_of(row) + weight_of(seeds or ()) + _PERSON
        self._kept.put(crypto.mac(secret, _PLACE), kept, weight)

    def clear(self) -> None:
        """Forget everything."""
        self._kept.clear()
