"""Bearer tokens: what a caller sends, and how it opens its principal's root."""

from __future__ import annotations

from dataclasses import dataclass

from tallystone import crypto
from tallystone.errors import Invalid, Unauthenticated
from tallystone.keystore import codes
from tallystone.keystore.keys import SCOPES, Root, ShredKeyOf

_PREFIX = "tally"
_RECALL = crypto.purpose("token/recall")


@dataclass(frozen=True)
class Token:
    """A bearer token, taken apart. `kid` (10 bytes as text) is public, `secret` (32 bytes) is the key to everything."""

    kid: str
    secret: bytes

    def __repr__(self) -> str:
        return f"Token({self.kid})"

    @property
    def text(self) -> str:
        """`tally_<kid>_<secret>_<checksum>`: what a person keeps."""
        return codes.spell(_PREFIX, self.kid, self.secret)

    @property
    def verifier(self) -> bytes:
        """What the store keeps to recognise the token: a hash of a derived key, of no use for opening anything."""
        return crypto.sha256(crypto.derive(self.secret, "token/auth"))

    def reply_key(self) -> bytes:
        """Addresses and seals the answers kept for this token's retried requests: no other token replays them."""
        return crypto.derive(self.secret, "token/reply")

    def recall_key(self) -> bytes:
        """Names and seals what a process keeps of what this token opens (ADR 0040)."""
        return crypto.derive_for(self.secret, _RECALL)

    def opening_key(self) -> bytes:
        """The key of the row that seals the principal's root."""
        return crypto.derive(self.secret, "token/open")


def new_token() -> Token:
    """A fresh token: 80 public random bits, 256 secret ones."""
    return Token(codes.new_kid(), crypto.random_bytes())


def parse_token(text: str) -> Token:
    """The token that `text` spells. Raises `Unauthenticated` for anything else, and never repeats the text."""
    found = codes.read(_PREFIX, text)
    if found is None:
        raise Unauthenticated(
            "this is not a Tallystone token",
            hint="a token looks like tally_<id>_<secret>_<checksum>; check that it was copied whole",
        )
    return Token(*found)


def token_context(kid: str, principal: str, scope: str, created: int, expires: int | None) -> bytes:
    """What a token's row is bound to: an edited principal, scope or expiry opens nothing."""
    return crypto.pae("token", kid, principal, scope, created, "never" if expires is None else expires)


def seal_root(
    token: Token, root: Root, principal: str, scope: str, created: int, expires: int | None
) -> bytes:
    """The `root` column of a token's row."""
    if scope not in SCOPES:
        raise Invalid(f"unknown scope {scope!r}", hint="use full or read")
    context = token_context(token.kid, principal, scope, created, expires)
    return crypto.seal(token.opening_key(), context, root.encode(scope))


def open_root(
    token: Token,
    sealed: bytes,
    principal: str,
    scope: str,
    created: int,
    expires: int | None,
    shred_key_of: ShredKeyOf = lambda _: None,
) -> Root:
    """The reverse. Raises `Tampered` when any of the row's clear fields was edited, and `Unauthenticated` when what the
    root was nested in is gone."""
    context = token_context(token.kid, principal, scope, created, expires)
    return Root.decode(crypto.open_sealed(token.opening_key(), context, sealed), shred_key_of)
