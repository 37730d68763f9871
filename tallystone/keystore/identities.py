"""Who a principal is: what its chain of records proves, from the workspace's root down."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from tallystone import crypto
from tallystone.errors import Tampered
from tallystone.statements import EMPTY, Invitation, PrincipalRecord, Signed, identifier, signing_input

ACTIVE, SUSPENDED, DELETED = "active", "suspended", "deleted"
"""A principal's status. Only an active one acts; a deleted one never does again."""
KINDS = ("user", "agent", "role")


@dataclass(frozen=True)
class Identity:
    """A principal's current record, its hash, and by their hashes all of its records and the keys that they named (to
    check what it signed, and was granted, earlier). A role's keys are empty: roles sign nothing."""

    id: str
    record: PrincipalRecord
    digest: bytes
    signers: Mapping[bytes, bytes]
    records: Mapping[bytes, PrincipalRecord]

    def signed(self, statement: Signed, workspace: bytes, record: bytes | None = None) -> bool:
        """Whether this principal signed, under the record with this hash, or under any of its records."""
        if record is not None:
            public = self.signers.get(record)
            return public is not None and statement.signed_by(workspace, record, public)
        return any(statement.signed_by(workspace, digest, key) for digest, key in self.signers.items())

    @property
    def active(self) -> bool:
        """Whether it may act."""
        return self.record.status == ACTIVE


def principal_id(signed: Signed) -> str:
    """The id that a first record makes."""
    record = PrincipalRecord.decode(signed.body)
    return identifier(record.kind, signed.digest)


def check_principal(
    identity: str, chain: list[Signed], workspace: bytes, pin: bytes, sponsor_of: Callable[[str], Identity]
) -> Identity:
    """The identity that a principal's records prove, first to last. Raises `Tampered`.

    Rules: the first record's digest is the id; each record names its predecessor and counts on. The sponsor is the
    workspace root for a user, a user for an agent or a role, nobody for the root itself. Who must sign:

    - the root's records: the keys that they name, and the old keys as well, under the record that named them;
    - a user's or agent's first record: its keys and the sponsor, or for a user whoever holds an invitation of the root;
    - a later one: its keys, the old keys and the sponsor; the sponsor alone, if only status and clearance change;
    - a user's that changes nothing but its keys, with the next root: its keys and the old keys;
    - a user's last one, which changes nothing but says `deleted`: its own keys will do;
    - a role's records: the sponsor. A role signs nothing.

    Nothing follows a record that says `deleted`. `pin` is the digest of the root's first record: nothing that the store
    says can put another root there, nor other keys behind it. Public-key work is remembered by hash
    (`crypto.verify_once`).
    """
    if not chain or principal_id(chain[0]) != identity:
        raise Tampered("a principal's record does not make its id")
    first = PrincipalRecord.decode(chain[0].body)
    if not first.sponsor and not crypto.equal(chain[0].digest, pin):
        raise Tampered("a principal claims to be the workspace root")
    sponsor = _sponsor(first, sponsor_of)
    previous, records = EMPTY, dict[bytes, PrincipalRecord]()
    for serial, signed in enumerate(chain):
        record, before = PrincipalRecord.decode(signed.body), records.get(previous)
        consistent = (
            signed.type == "principal"
            and record.serial == serial
            and record.previous == previous
            and record.id == ("" if before is None else identity)
            and record.kind == first.kind
            and record.sponsor == first.sponsor
        )
        if not consistent or not _follows(record, before):
            raise Tampered("a principal's record does not continue the one before")
        if not _signed(signed, record, before, sponsor, workspace):
            raise Tampered("a principal's record is not signed by those who must")
        previous = signed.digest
        records[previous] = record
    signers = {digest: record.signing for digest, record in records.items()}
    return Identity(identity, records[previous], previous, signers, records)


def _sponsor(first: PrincipalRecord, sponsor_of: Callable[[str], Identity]) -> Identity | None:
    if first.kind not in KINDS:
        raise Tampered("a principal is of no kind that there is")
    if not first.sponsor:
        return None
    sponsor = sponsor_of(first.sponsor)
    if sponsor.record.kind != "user":
        raise Tampered("only a user vouches for others")
    if first.kind == "user" and sponsor.record.sponsor:
        raise Tampered("only the workspace root adds users")
    return sponsor


def _follows(record: PrincipalRecord, before: PrincipalRecord | None) -> bool:
    """Whether a record may stand in this place, whoever signed it."""
    if record.clearance is not None and record.clearance < 0:
        return False
    if (record.kind == "role") == bool(record.signing):
        return False  # roles alone sign nothing
    if before is None or not record.sponsor:
        return record.status == ACTIVE  # nobody begins otherwise, and nobody suspends the root
    if before.status == DELETED or record.status not in (ACTIVE, SUSPENDED, DELETED):
        return False
    if record.kind != "role":
        return record.root >= before.root
    # A role's key goes with its root: whoever knew the old root knew the old key.
    return record.root == before.root + 1 or (record.root == before.root and record.kem == before.kem)


def _signed(
    signed: Signed,
    record: PrincipalRecord,
    before: PrincipalRecord | None,
    sponsor: Identity | None,
    workspace: bytes,
) -> bool:
    # The root's first record is what names the workspace, so it cannot be signed for one.
    home = EMPTY if sponsor is None and before is None else workspace
    vouched = sponsor is not None and sponsor.signed(signed, home)
    if record.kind == "role":
        return vouched
    own = signed.signed_by(home, EMPTY, record.signing)
    if before is None:
        return own and (sponsor is None or vouched or _invited(signed, record, sponsor, workspace))
    # Whoever held the keys before says so too: else a sponsor, or for the root anybody at all, could name new ones.
    followed = signed.signed_by(home, record.previous, before.signing)
    if sponsor is None:
        return own and followed
    if record.kind == "user" and record.status == DELETED and record.clearance == before.clearance:
        return (vouched or followed) and _same_but_standing(record, before)  # anybody may retire for good
    if record.kind == "user" and own and followed and _same_but_keys(record, before):
        return True  # whose token was stolen waits for nobody (ADR 0027)
    return vouched and ((own and followed) or _same_but_standing(record, before))


def _invited(signed: Signed, record: PrincipalRecord, sponsor: Identity, workspace: bytes) -> bool:
    """Whether a user's first record is signed with the key of an invitation by the root. In place of a record's hash
    such a signature names the whole invitation."""
    message = signing_input(signed.type, workspace, signed.body)
    for claim, signature in signed.signatures:
        if record.kind != "user" or len(claim) <= len(EMPTY):
            continue
        try:
            word = Signed.decode(claim)
            invitation = Invitation.decode(word.body)
        except Tampered:
            continue
        if (
            word.type == "invitation"
            and invitation.issuer == record.sponsor
            and sponsor.signed(word, workspace, invitation.issuer_record)
            and invitation.clearance == record.clearance
            and crypto.verify_once(invitation.public, signature, message)
        ):
            return True
    return False


def _same_but_standing(record: PrincipalRecord, before: PrincipalRecord) -> bool:
    """Whether a record changes at most status and clearance: keys and all else stay."""
    return record == replace(
        before,
        id=record.id,
        serial=record.serial,
        previous=record.previous,
        status=record.status,
        clearance=record.clearance,
    )


def _same_but_keys(record: PrincipalRecord, before: PrincipalRecord) -> bool:
    """Whether a record brings a new root with new keys, and nothing else."""
    return record.root == before.root + 1 and record == replace(
        before,
        id=record.id,
        serial=record.serial,
        previous=record.previous,
        signing=record.signing,
        kem=record.kem,
        root=record.root,
    )
