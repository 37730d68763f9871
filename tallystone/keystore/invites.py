"""Invitations: a code that makes one user, whose keys are made where it is redeemed.

    code ──"auth"──▶ verifier (the store recognises it by its hash)
      ├────"open"──▶ what the new user needs: its name, the directory's key, the workspace's pin, the root's word
      └────"sign"──▶ Ed25519 seed: stands in for the root's signature under the new user's first record

The root's word (`statements.Invitation`) names the public half of the last one, so it vouches for one user before that
user's keys exist.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tallystone import _cbor, crypto
from tallystone.errors import Unauthenticated
from tallystone.keystore import codes
from tallystone.statements import Invitation, Signed

_PREFIX = "invite"


@dataclass(frozen=True)
class Invite:
    """An invitation's code, taken apart. `kid` (10 bytes as text) is public, `secret` (32 bytes) is not."""

    kid: str
    secret: bytes

    def __repr__(self) -> str:
        return f"Invite({self.kid})"

    @property
    def text(self) -> str:
        """`invite_<kid>_<secret>_<checksum>`: what the invited person is sent."""
        return codes.spell(_PREFIX, self.kid, self.secret)

    @property
    def verifier(self) -> bytes:
        """What the store keeps to recognise the code."""
        return crypto.sha256(crypto.derive(self.secret, "invite/auth"))

    def opening_key(self) -> bytes:
        """The key of what lies sealed in the invitation's row."""
        return crypto.derive(self.secret, "invite/open")

    def signing_seed(self) -> bytes:
        """The Ed25519 seed that signs the first record of the one user that the code makes."""
        return crypto.derive(self.secret, "invite/sign")


@dataclass(frozen=True)
class Carried:
    """What an invitation brings to whoever redeems it: the name that the root chose, the key of the users' names
    (32 bytes), the digest of the root's first record, and the root's signed word."""

    name: str
    directory: bytes = field(repr=False)
    pin: bytes
    word: Signed


def new_invite() -> Invite:
    """A fresh code."""
    return Invite(codes.new_kid(), crypto.random_bytes())


def parse_invite(text: str) -> Invite:
    """The invitation that `text` spells. Raises `Unauthenticated` for anything else, and never repeats the text."""
    found = codes.read(_PREFIX, text)
    if found is None:
        raise Unauthenticated("this is not an invitation")
    return Invite(*found)


def seal_invitation(invite: Invite, expires: int, carried: Carried) -> bytes:
    """The `sealed` column of an invitation's row, bound to its other columns: once under the code for who redeems it,
    and the name and clearance under the directory's key, for the root's list."""
    body = _cbor.encode([carried.name, carried.directory, carried.pin, carried.word.encode()])
    listed = _cbor.encode([carried.name, Invitation.decode(carried.word.body).clearance])
    return _cbor.encode(
        [
            crypto.seal(invite.opening_key(), crypto.pae("invite", invite.kid, expires), body),
            crypto.seal(carried.directory, crypto.pae("invite/listed", invite.kid, expires), listed),
        ]
    )


def open_invitation(invite: Invite, expires: int, sealed: bytes) -> Carried:
    """What `seal_invitation` sealed under the code. Raises `Tampered`."""
    one, _ = _cbor.unpack(sealed, "an invitation", bytes, bytes)
    body = crypto.open_sealed(invite.opening_key(), crypto.pae("invite", invite.kid, expires), one)
    name, directory, pin, word = _cbor.unpack(body, "an invitation", str, bytes, bytes, bytes)
    return Carried(name, directory, pin, Signed.decode(word))


def open_listed(directory: bytes, kid: str, expires: int, sealed: bytes) -> tuple[str, int | None]:
    """(name, clearance) that `seal_invitation` sealed under the directory's key. Raises `Tampered`."""
    _, two = _cbor.unpack(sealed, "an invitation", bytes, bytes)
    listed = crypto.open_sealed(directory, crypto.pae("invite/listed", kid, expires), two)
    name, clearance = _cbor.unpack(listed, "an invitation", str, (int, type(None)))
    return name, clearance
