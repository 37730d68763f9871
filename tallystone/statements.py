"""The signed objects: their exact bytes, encoding, signing, verifying (design §7).

A statement's bytes are deterministic CBOR of a map with short text keys; they are signed, stored and verified as
they are, never written again from what was read. The signature covers `pae("tallystone/v1", type, workspace, bytes)`,
so a statement of one type or workspace is never one of another.

Types: `principal`, `workspace`, `charter`, `invitation`, `restore`, `genesis`, `grant`, `revocation`, `policy`,
`transfer`, `membership`, `version`, `deletion`, `message`, `erasure`, `checkpoint`.
(A checkpoint is a C2SP note, see `audit.checkpoint`.)
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import Field, dataclass, field, fields
from functools import cached_property
from typing import Any, ClassVar, Self

from tallystone import _cbor, crypto
from tallystone.errors import Tampered

EMPTY = b"\x00" * 32
"""The hash that stands for "nothing": no predecessor, no grant at this place."""

READ, WRITE, SHARE = 1, 2, 4
"""Rights as bits. WRITE and SHARE each imply READ (design §7.2)."""

LINK_TYPES = ("grant", "revocation", "policy", "transfer")


@dataclass(frozen=True)
class Signed:
    """A statement as it is stored: its type, its exact bytes, and (record hash, signature) for each signer."""

    type: str
    body: bytes
    signatures: tuple[tuple[bytes, bytes], ...]

    def encode(self) -> bytes:
        """The bytes of the whole, for sealing or, for principal records, for storing in clear."""
        return _cbor.encode([self.type, self.body, [list(pair) for pair in self.signatures]])

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """The reverse of `encode`. Raises `Tampered`."""
        kind, body, signatures = _cbor.unpack(data, "a stored statement", str, bytes, list)
        return cls(kind, body, signature_pairs(signatures))

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 of type and body (32 bytes): what successors name. Signatures do not enter it."""
        return crypto.sha256(crypto.pae(self.type, self.body))

    def signed_by(self, workspace: bytes, record_hash: bytes, public: bytes) -> bool:
        """Whether the signer whose record has this hash, with this Ed25519 key, signed these bytes here."""
        message = signing_input(self.type, workspace, self.body)
        return any(
            crypto.equal(record, record_hash) and crypto.verify_once(public, signature, message)
            for record, signature in self.signatures
        )


def signature_pairs(value: object) -> tuple[tuple[bytes, bytes], ...]:
    """The (record hash, signature) pairs in a decoded list. Raises `Tampered`."""
    if not isinstance(value, list) or not all(
        isinstance(pair, list) and _cbor.fits(pair, (bytes, bytes)) for pair in value
    ):
        raise Tampered("a statement's signatures are malformed")
    return tuple((record, signature) for record, signature in value)


def signing_input(kind: str, workspace: bytes, body: bytes) -> bytes:
    """What a signature covers."""
    return crypto.pae("tallystone/v1", kind, workspace, body)


def issue(
    kind: str, workspace: bytes, body: bytes, signers: Sequence[tuple[bytes, bytes | crypto.Signer]]
) -> Signed:
    """`body` signed by each (record hash, Ed25519 seed or key) of `signers`, in that order."""
    message = signing_input(kind, workspace, body)
    return Signed(kind, body, tuple([(record, crypto.sign(key, message)) for record, key in signers]))


class _Body:
    """Reading and writing a statement's map. Fields are exactly those of the dataclass, with exactly their types."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]  # each kind of body is a dataclass

    def encode(self) -> bytes:
        """The bytes that are signed."""
        values = self.__dict__
        return _cbor.encode({name: values[name] for name, _ in _fields(type(self))})

    @classmethod
    def decode(cls, body: bytes) -> Self:
        """Raises `Tampered` for a missing, additional or ill-typed field."""
        return cls.of(_cbor.decode(body))

    @classmethod
    def of(cls, value: object) -> Self:
        """The same from a decoded map."""
        wanted = _fields(cls)
        if not isinstance(value, dict) or len(value) != len(wanted):
            raise Tampered("a statement does not have the fields of its type")
        for name, allowed in wanted:
            if name not in value:
                raise Tampered("a statement does not have the fields of its type")
            if type(value[name]) not in allowed:
                raise Tampered(f"field {name!r} of a statement has the wrong type")
        # As `cls(**value)` would, which for a frozen class sets field by field and takes three times as long.
        result = cls.__new__(cls)
        result.__dict__.update(value)
        return result


def _fields(kind: type[_Body]) -> tuple[tuple[str, tuple[type, ...]], ...]:
    """Name and allowed types of each field, in the order in which canonical CBOR has them."""
    known = _FIELDS.get(kind)
    if known is None:
        types = {f.name: _TYPES[str(f.type)] for f in fields(kind)}
        known = _FIELDS[kind] = tuple((name, types[name]) for name in _cbor.in_order(types))
    return known


_FIELDS: dict[type, tuple[tuple[str, tuple[type, ...]], ...]] = {}


Body = _Body
"""For statements that another room defines: `restore` stands in `audit.restored`."""

_TYPES: Mapping[str, tuple[type, ...]] = {
    "int": (int,),
    "str": (str,),
    "bytes": (bytes,),
    "bool": (bool,),
    "dict[str, Any]": (dict,),
    "list[Any]": (list,),
    "int | None": (int, type(None)),
}


@dataclass(frozen=True)
class PrincipalRecord(_Body):
    """Who somebody is: keys, sponsor, standing. Lies in clear, and so holds no name.

    `id` is empty in the first record, whose digest makes the id. `sponsor` is the principal that vouches: the
    workspace root for users, a user for agents, empty for the root itself. `root` counts renewals of the secret root.
    """

    kind: str
    id: str
    serial: int
    previous: bytes
    signing: bytes
    kem: bytes
    sponsor: str
    status: str
    clearance: int | None
    root: int
    suite: int = 1


@dataclass(frozen=True)
class WorkspaceRecord(_Body):
    """What holds for all: who the root is, where unclaimed events are sealed to, which key signs the log."""

    root: str
    auditor: bytes
    log: bytes
    created: int


@dataclass(frozen=True)
class Genesis(_Body):
    """A block's first statement. Its digest is the block's id, so nobody can pass another off as it.

    `grants` is the Merkle root of the grants that exist from the start, `next_grant` the first unused number.
    `created` is in milliseconds since 1970, as its author says: it orders nothing.
    """

    kind: str
    owner: str
    owner_record: bytes
    nonce: bytes
    created: int
    mutable: bool
    append_only: bool
    subject: str
    grants: bytes
    next_grant: int
    settings: dict[str, Any]
    change: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Link(_Body):
    """One step of a block's policy: a grant, a revocation, a change of settings or keys, a transfer.

    Each is a snapshot: `owner`, `grants`, `settings` hold after it, so a reader who trusts its issuer needs no
    earlier one. `version` and `version_digest` name the content it was made on: no later version may cite an earlier
    link (rule 6). `change` says what was done; `authority` how a non-owner is entitled to it (grant leaf and proof).
    """

    block: str
    number: int
    previous: bytes
    version: int
    version_digest: bytes
    epoch: int
    owner: str
    grants: bytes
    next_grant: int
    settings: dict[str, Any]
    admin: bytes
    change: dict[str, Any]
    issuer: str
    issuer_record: bytes
    authority: dict[str, Any]
    time: int


@dataclass(frozen=True)
class Version(_Body):
    """One state of a block's content. `payload` is the hash of the content; `under` the user whose token an agent
    acted under, or empty; `time` in milliseconds since 1970, as the writer says. `authority` has room for what entitles
    a writer through a role, `change` for what kind of version this is (a restored one, an appended entry)."""

    block: str
    number: int
    previous: bytes
    policy: int
    policy_digest: bytes
    epoch: int
    payload: bytes
    writer: str
    writer_record: bytes
    under: str
    time: int
    authority: dict[str, Any] = field(default_factory=dict)
    change: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Deletion(_Body):
    """The owner's word that a block is gone; kept in the event's details."""

    block: str
    policy: int
    policy_digest: bytes
    version: int
    issuer: str
    issuer_record: bytes
    time: int


@dataclass(frozen=True)
class Erasure(_Body):
    """Its owner's word that a block, one of its versions, or a principal with all it owned, was erased: the signed part
    of a receipt.

    `what` is the id, for a version `<block id>/versions/<number>`. `blocks` lists [block id, hash of its last policy
    statement, its last version's number], for a version its own number and then that statement's; `holders` counts who
    keep a dead row until they look; `horizon` is the last day on which a backup could bring it back, if known."""

    what: str
    blocks: list[Any]
    events: int
    holders: int
    horizon: int | None
    issuer: str
    issuer_record: bytes
    time: int


@dataclass(frozen=True)
class Membership(_Body):
    """The head of a role's live members, by the role's owner: `members` is the Merkle root over their leaves.

    `serial` grows with each change; `record` is the hash (32 bytes) of the role's principal record that it goes with,
    which is a new one after each removal: an old head goes with no newer grant to the role (design §6).
    """

    role: str
    record: bytes
    serial: int
    members: bytes
    owner: str
    owner_record: bytes
    time: int


@dataclass(frozen=True)
class Charter(_Body):
    """What the workspace's root lays down for all: who trusts whose shares, the names of the levels, how many grants.

    `trust`: shares between members need no acceptance. `levels`: names of the sensitivity levels, lowest first;
    [name, n] for one whose blocks have at least the audit level n. `max_grants`: direct grants that a block may have.
    """

    serial: int
    previous: bytes
    trust: bool
    levels: list[Any]
    max_grants: int
    issuer: str
    issuer_record: bytes
    time: int


@dataclass(frozen=True)
class AuditedCharter(Charter):
    """A charter of a workspace that has auditors beside its root: the ids of users. Signed as a charter; one without
    them has the fields that it always had."""

    auditors: list[Any]


@dataclass(frozen=True)
class Invitation(_Body):
    """The root's word that whoever holds the secret of `public` (Ed25519, 32 bytes) may make one user.

    `expires` in Unix seconds; `clearance` is what the user's first record may claim.
    """

    kid: str
    public: bytes
    clearance: int | None
    expires: int
    issuer: str
    issuer_record: bytes


@dataclass(frozen=True)
class Message(_Body):
    """What one agent says to another. `under` is the user whose token the sender acted under, or empty; `contact` the
    block through which it may write, or empty for agents of one sponsor. `hops` counts the messages that led to this
    one, itself included; `name` is what the sender is called; `nonce` (16 bytes) tells equal messages apart."""

    sender: str
    sender_record: bytes
    under: str
    to: str
    contact: str
    hops: int
    name: str
    text: str
    nonce: bytes
    time: int


@dataclass(frozen=True)
class Leaf:
    """One live grant, as it enters the tree whose root a policy statement carries.

    `until` is a day number (days since 1970) or None; `parent` the grant it came through (0: the owner); `depth` how
    often it may be passed on. `salt` (16 bytes) keeps the leaf's hash from being guessed, so hashes may lie in clear.
    """

    grant: int
    recipient: str
    record: bytes
    rights: int
    history: bool
    until: int | None
    depth: int
    parent: int
    salt: bytes = field(repr=False)

    def encode(self) -> bytes:
        """Canonical bytes of the leaf."""
        head = [self.grant, self.recipient, self.record, self.rights, self.history, self.until]
        return _cbor.encode([*head, self.depth, self.parent, self.salt])

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Raises `Tampered`."""
        types = (int, str, bytes, int, bool, (int, type(None)), int, int, bytes)
        return cls(*_cbor.unpack(data, "a grant leaf", *types))

    @cached_property
    def digest(self) -> bytes:
        """The leaf's hash in the grant tree (32 bytes)."""
        return crypto.sha256(b"\x00" + self.encode())


def identifier(kind: str, digest: bytes) -> str:
    """`<kind>-<uuid>`: 122 bits of `digest`, shaped as a version-4 UUID because clients check that shape."""
    return f"{kind}-{uuid.UUID(bytes=digest[:16], version=4)}"
