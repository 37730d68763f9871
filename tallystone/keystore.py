"""How a caller's secret becomes keys: tokens, roots, identities, recovery kits (design §6). No I/O.

    token ──"auth"──▶ verifier (the store recognises the caller by its hash)
      └────"open"──▶ root halves: R_read ─▶ locate, shelf, own      R_act ─▶ sign, kem, act

A read-only token's row seals R_read alone, so what R_act opens (signing, the inbox, acting as an agent) is not
refused to it by a check: the keys are not there.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from tallystone import _cbor, crypto
from tallystone.errors import Invalid, Tampered, Unauthenticated
from tallystone.statements import EMPTY, PrincipalRecord, Signed, identifier

FULL, READ_ONLY = "full", "read"
SCOPES = (FULL, READ_ONLY)

_TOKEN = re.compile(r"tally_([a-z2-7]{16})_([a-z2-7]{52})_([a-z2-7]{8})\Z", re.ASCII)


def _base32(data: bytes) -> str:
    return base64.b32encode(data).decode().rstrip("=").lower()


def _unbase32(text: str) -> bytes:
    return base64.b32decode(text.upper() + "=" * (-len(text) % 8))


# -- tokens -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Token:
    """A bearer token, taken apart. `kid` (10 bytes as text) is public, `secret` (32 bytes) is the key to everything."""

    kid: str
    secret: bytes

    def __repr__(self) -> str:
        return f"Token({self.kid})"

    @property
    def text(self) -> str:
        """`tally_<kid>_<secret>_<checksum>`: what a person keeps. The checksum lets scanners be sure of a find."""
        head = f"tally_{self.kid}_{_base32(self.secret)}"
        return f"{head}_{_checksum(head)}"

    @property
    def verifier(self) -> bytes:
        """What the store keeps to recognise the token: a hash of a derived key, of no use for opening anything."""
        return crypto.sha256(crypto.derive(self.secret, "token/auth"))

    def reply_key(self) -> bytes:
        """Addresses and seals the answers kept for this token's retried requests: no other token replays them."""
        return crypto.derive(self.secret, "token/reply")

    def opening_key(self) -> bytes:
        """The key of the row that seals the principal's root."""
        return crypto.derive(self.secret, "token/open")


def _checksum(head: str) -> str:
    return _base32(crypto.sha256(head.encode())[:5])


def new_token() -> Token:
    """A fresh token: 80 public random bits, 256 secret ones."""
    return Token(_base32(crypto.random_bytes(10)), crypto.random_bytes(32))


def parse_token(text: str) -> Token:
    """The token that `text` spells. Raises `Unauthenticated` for anything else, and never repeats the text."""
    match = _TOKEN.match(text.strip())
    if not match or not crypto.equal(_checksum(text.strip()[:-9]).encode(), match[3].encode()):
        raise Unauthenticated(
            "this is not a Tallystone token",
            hint="a token looks like tally_<id>_<secret>_<checksum>; check that it was copied whole",
        )
    try:
        return Token(match[1], _unbase32(match[2]))
    except ValueError as error:
        raise Unauthenticated("this is not a Tallystone token") from error


@dataclass(frozen=True)
class Root:
    """A principal's root secret: two halves of 32 bytes, and the digest of the workspace root's first record (`pin`),
    so that everything its holder trusts starts from bytes that the store cannot replace."""

    read: bytes
    act: bytes | None
    pin: bytes

    def __repr__(self) -> str:
        return "Root(full)" if self.act else "Root(read)"

    def encode(self, scope: str) -> bytes:
        """The bytes to seal for a token of this scope."""
        return _cbor.encode([self.read, self.act if scope == FULL else None, self.pin])

    @classmethod
    def decode(cls, data: bytes) -> Root:
        """Raises `Tampered`."""
        return cls(*_cbor.unpack(data, "a sealed root", bytes, (bytes, type(None)), bytes))


def new_root(pin: bytes) -> Root:
    """Two fresh halves."""
    return Root(crypto.random_bytes(), crypto.random_bytes(), pin)


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
    token: Token, sealed: bytes, principal: str, scope: str, created: int, expires: int | None
) -> Root:
    """The reverse. Raises `Tampered` when any of the row's clear fields was edited."""
    context = token_context(token.kid, principal, scope, created, expires)
    return Root.decode(crypto.open_sealed(token.opening_key(), context, sealed))


# -- keys -------------------------------------------------------------------------------------------------------


class Keys:
    """A principal's keys, as far as its caller's token reaches. Each is derived when first used."""

    def __init__(self, principal: str, root: Root) -> None:
        self.principal = principal
        self.root = root

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

    def shelf(self, kind: str) -> bytes:
        """The id (32 bytes) of this principal's shelf for one kind of thing. Unlinkable to the principal."""
        return crypto.mac(self.locate, crypto.pae("shelf", kind))

    def locator(self, identity: str) -> bytes:
        """The blinded address (32 bytes) of a thing on this principal's shelf."""
        return crypto.mac(self.locate, crypto.pae("locator", identity))


# -- identities -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Identity:
    """A principal's current record, its hash, and the key that each of its records named (to check what it signed
    earlier)."""

    id: str
    record: PrincipalRecord
    digest: bytes
    signers: Mapping[bytes, bytes]

    def signed(self, statement: Signed, workspace: bytes, record: bytes | None = None) -> bool:
        """Whether this principal signed, under the record with this hash, or under any of its records."""
        return any(
            statement.signed_by(workspace, digest, public)
            for digest, public in self.signers.items()
            if record is None or crypto.equal(digest, record)
        )

    @property
    def active(self) -> bool:
        """Whether it may act."""
        return self.record.status == "active"


def seal_seed(keys: Keys, purpose: str, seed: bytes) -> bytes:
    """One of an identity's two seeds (`sign` or `kem`), for its row."""
    key = keys.sign if purpose == "sign" else keys.kem
    return crypto.seal(key, crypto.pae("identity", purpose, keys.principal), seed)


def open_seed(keys: Keys, purpose: str, sealed: bytes) -> bytes:
    """The reverse. Raises `Tampered`."""
    key = keys.sign if purpose == "sign" else keys.kem
    return crypto.open_sealed(key, crypto.pae("identity", purpose, keys.principal), sealed)


def principal_id(signed: Signed) -> str:
    """The id that a first record makes."""
    record = PrincipalRecord.decode(signed.body)
    return identifier(record.kind, signed.digest)


def check_principal(
    identity: str, chain: list[Signed], workspace: bytes, pin: bytes, sponsor_of: Callable[[str], Identity]
) -> Identity:
    """The identity that a principal's records prove, first to last. Raises `Tampered`.

    Rules: the first record's digest is the id; each record names its predecessor and counts on; each is signed by the
    keys it names and, but for the workspace root, by its sponsor's current key, the sponsor being the workspace root
    for a user and a user for an agent; new keys are signed by the old ones as well, under the record that named them.
    `pin` is the digest of the root's first record: nothing that the store says can put another root there, nor other
    keys behind it. Public-key work is remembered by hash (`crypto.verify_once`).
    """
    if not chain or principal_id(chain[0]) != identity:
        raise Tampered("a principal's record does not make its id")
    first = PrincipalRecord.decode(chain[0].body)
    is_root = not first.sponsor
    if is_root and not crypto.equal(chain[0].digest, pin):
        raise Tampered("a principal claims to be the workspace root")
    sponsor = None if is_root else sponsor_of(first.sponsor)
    if sponsor is not None and sponsor.record.kind != "user":
        raise Tampered("only a user vouches for others")
    if first.kind == "user" and sponsor is not None and sponsor.record.sponsor:
        raise Tampered("only the workspace root adds users")
    previous, record, before = EMPTY, first, first
    signers: dict[bytes, bytes] = {}
    for serial, signed in enumerate(chain):
        record = PrincipalRecord.decode(signed.body)
        # The root's first record is what names the workspace, so it cannot be signed for one.
        home = EMPTY if is_root and serial == 0 else workspace
        consistent = (
            signed.type == "principal"
            and record.serial == serial
            and record.previous == previous
            and record.id == ("" if serial == 0 else identity)
            and record.kind == first.kind
            and record.sponsor == first.sponsor
        )
        own = signed.signed_by(home, EMPTY, record.signing)
        # Whoever held the keys before says so too: else a sponsor, or for the root anybody at all, could name new ones.
        followed = serial == 0 or signed.signed_by(home, previous, signers[previous])
        vouched = sponsor is None or sponsor.signed(signed, home)
        # A sponsor alone may end or suspend what it sponsors, with the keys it had. Nobody sponsors the root.
        ended = (
            sponsor is not None and serial > 0 and record.status != "active" and _only_ends(record, before)
        )
        if not consistent or not vouched or not ((own and followed) or ended):
            raise Tampered("a principal's record is not signed by those who must")
        previous, before = signed.digest, record
        signers[previous] = record.signing
    return Identity(identity, record, previous, signers)


def _only_ends(record: PrincipalRecord, before: PrincipalRecord) -> bool:
    """Whether a record says no more than that the principal no longer acts: keys and all else stay."""
    same = replace(record, id=before.id, serial=before.serial, previous=before.previous, status=before.status)
    return same == before


# -- recovery ---------------------------------------------------------------------------------------------------

_KIT = re.compile(r"^(AGE-SECRET-KEY-PQ-1[0-9A-Z]+)\s*$", re.MULTILINE)
_KIT_PRINCIPAL = re.compile(r"^# principal: (user-[0-9a-f-]{36})\s*$", re.MULTILINE)


@dataclass(frozen=True)
class Kit:
    """What a person prints and locks away: an age identity that opens the principal's root."""

    principal: str
    name: str
    identity: str

    def __repr__(self) -> str:
        return f"Kit({self.principal})"

    @property
    def text(self) -> str:
        """The file's text. age reads it as an identity file: comments start with #."""
        return (
            "# Tallystone recovery kit. Print it, lock it away; it opens everything of:\n"
            f"# name: {self.name}\n"
            f"# principal: {self.principal}\n"
            "# To get a new token from it: tallystone recover --kit THIS-FILE --data DIR\n"
            f"{self.identity}\n"
        )


def parse_kit(text: str) -> Kit:
    """Raises `Invalid` when the text is no kit, without repeating any of it."""
    identity, principal = _KIT.search(text), _KIT_PRINCIPAL.search(text)
    if not identity or not principal:
        raise Invalid(
            "this is not a recovery kit",
            hint="a kit is a text file with a '# principal:' line and an AGE-SECRET-KEY-PQ-1 line",
        )
    return Kit(principal[1], "", identity[1])
