"""Making principals and changing them: their records in clear, their seeds sealed."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tallystone import _cbor, crypto
from tallystone.errors import Tampered
from tallystone.keystore import ACTIVE, Identity, Keys, find_nest, new_root, open_seed, seal_seed
from tallystone.statements import EMPTY, PrincipalRecord, Signed, identifier, issue
from tallystone.store.tables import IDENTITY, PRINCIPAL
from tallystone.vault.caller import Caller
from tallystone.vault.plan import Plan

if TYPE_CHECKING:
    from tallystone.vault.workspace import Workspace


def signature_cell(signed: Signed) -> bytes:
    """A statement's signatures, for the `sigs` column of a row that holds its body in clear."""
    return _cbor.encode([list(pair) for pair in signed.signatures])


def put_principal(plan: Plan, identity: str, serial: int, signed: Signed) -> None:
    """Queue a principal's record, in clear."""
    plan.put(PRINCIPAL, identity, serial, signed.body, signature_cell(signed))


def new_principal(
    plan: Plan,
    workspace: bytes,
    kind: str,
    pin: bytes,
    sponsor: tuple[str, bytes, bytes | crypto.Signer] | None,
    clearance: int | None = None,
) -> tuple[Identity, Keys]:
    """Queue a new principal's record and sealed seeds. `sponsor` is (id, record hash, Ed25519 seed or key), or for an
    invited user (the root's id, the encoded invitation, its signing seed); none: the root, whose record's hash becomes
    the workspace's id and everybody's pin. A role has no signing key: that part of its row is empty."""
    signing, kem = b"" if kind == "role" else crypto.random_bytes(), crypto.random_bytes()
    signer = crypto.Signer(signing) if signing else None
    record = PrincipalRecord(
        kind=kind,
        id="",
        serial=0,
        previous=EMPTY,
        signing=signer.public if signer else b"",
        kem=crypto.kem_public(kem),
        sponsor=sponsor[0] if sponsor else "",
        status=ACTIVE,
        clearance=clearance,
        root=0,
    )
    # A record signs for itself under EMPTY: its own hash does not exist before it does.
    signers: list[tuple[bytes, bytes | crypto.Signer]] = [(EMPTY, signer)] if signer else []
    if sponsor:
        signers.append(sponsor[1:])
    signed = issue("principal", workspace if sponsor else EMPTY, record.encode(), signers)
    principal = identifier(kind, signed.digest)
    keys = Keys(principal, new_root(pin if sponsor else signed.digest))
    put_principal(plan, principal, 0, signed)
    sealed = seal_seed(keys, "sign", signing) if signing else b""
    plan.put(IDENTITY, principal, sealed, seal_seed(keys, "kem", kem))
    records = {signed.digest: record}
    return Identity(principal, record, signed.digest, {signed.digest: record.signing}, records), keys


def nested(workspace: Workspace, keys: Keys) -> Keys:
    """The keys of a principal that is new, with a shred key of its own: its root lies under that wherever it is stored,
    so that its erasure ends it in every backup."""
    slot = workspace.shreds.take()
    nest = find_nest(slot, workspace.shreds.get)
    return Keys(keys.principal, replace(keys.root, nest=nest))


def amend(caller: Caller, plan: Plan, principal: str, **fields: Any) -> Signed:
    """Queue the next record of a principal with these fields changed, signed by the caller: its sponsor, or for the
    workspace's root itself. For a user or agent that may be `status` and `clearance`, for a role also `kem` and `root`.
    The commit fails if another record came first."""
    before = caller.current(plan, principal)
    record = replace(
        before.record, id=principal, serial=before.record.serial + 1, previous=before.digest, **fields
    )
    seed = caller.signing_seed(plan)
    signers = [(caller.identity(plan, caller.id).digest, seed)]
    if principal == caller.id:
        signers.append((EMPTY, seed))
    signed = issue("principal", caller.workspace.id, record.encode(), signers)
    put_principal(plan, principal, record.serial, signed)
    return signed


def renew_keys(caller: Caller, plan: Plan, old: Keys, new: Keys, sponsored: bool) -> tuple[Identity, bytes]:
    """Queue the next record of the principal of `old`, with new keys for a new root, and its seeds sealed under `new`.
    Signed with the new key and the old one and, if `sponsored`, by the caller, who is its sponsor. Returns the identity
    as it was, and the former X-Wing seed (32 bytes)."""
    principal = old.principal
    before, row = caller.current(plan, principal), plan.need(IDENTITY, principal)
    if row is None:
        raise Tampered("a principal's keys are not there")
    signing, kem = crypto.random_bytes(), crypto.random_bytes()
    record = replace(
        before.record,
        id=principal,
        serial=before.record.serial + 1,
        previous=before.digest,
        signing=crypto.signing_public(signing),
        kem=crypto.kem_public(kem),
        root=before.record.root + 1,
    )
    signers = [(EMPTY, signing), (before.digest, open_seed(old, "sign", bytes(row[2])))]
    if sponsored:
        signers.append((caller.identity(plan, caller.id).digest, caller.signing_seed(plan)))
    signed = issue("principal", caller.workspace.id, record.encode(), signers)
    put_principal(plan, principal, record.serial, signed)
    plan.put(IDENTITY, principal, seal_seed(new, "sign", signing), seal_seed(new, "kem", kem))
    return before, open_seed(old, "kem", bytes(row[3]))
