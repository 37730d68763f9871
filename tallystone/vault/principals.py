"""Making principals: their record in clear, their seeds sealed."""

from __future__ import annotations

from tallystone import _cbor, crypto
from tallystone.keystore import Identity, Keys, new_root, seal_seed
from tallystone.statements import EMPTY, PrincipalRecord, Signed, identifier, issue
from tallystone.store.tables import IDENTITY, PRINCIPAL
from tallystone.vault.plan import Plan


def put_principal(plan: Plan, identity: str, serial: int, signed: Signed) -> None:
    """Queue a principal's record, in clear."""
    signatures = _cbor.encode([list(pair) for pair in signed.signatures])
    plan.put(PRINCIPAL, identity, serial, signed.body, signatures)


def new_principal(
    plan: Plan, workspace: bytes, kind: str, pin: bytes, sponsor: tuple[str, bytes, bytes] | None
) -> tuple[Identity, Keys]:
    """Queue a new principal's record and sealed seeds. `sponsor` is (id, record hash, Ed25519 seed); none: the root,
    whose record's hash becomes the workspace's id and everybody's pin."""
    signing, kem = crypto.random_bytes(), crypto.random_bytes()
    record = PrincipalRecord(
        kind=kind,
        id="",
        serial=0,
        previous=EMPTY,
        signing=crypto.signing_public(signing),
        kem=crypto.kem_public(kem),
        sponsor=sponsor[0] if sponsor else "",
        status="active",
        clearance=None,
        root=0,
    )
    # A record signs for itself under EMPTY: its own hash does not exist before it does.
    signers = [(EMPTY, signing)] + ([(sponsor[1], sponsor[2])] if sponsor else [])
    signed = issue("principal", workspace if sponsor else EMPTY, record.encode(), signers)
    principal = identifier(kind, signed.digest)
    keys = Keys(principal, new_root(pin if sponsor else signed.digest))
    put_principal(plan, principal, 0, signed)
    plan.put(IDENTITY, principal, seal_seed(keys, "sign", signing), seal_seed(keys, "kem", kem))
    return Identity(principal, record, signed.digest, {signed.digest: record.signing}), keys
