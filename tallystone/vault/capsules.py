"""Grants on their way to somebody else: sealed to the recipient's record, opened into a place on its shelf.

A capsule's clear part is an HPKE message that carries a one-time key; under that key lie the grant and everything that
proves it. Nothing about the block lies in clear, and nothing in the capsule is believed: the block is opened with it,
and the grant must be one that the block's latest policy counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tallystone import _cbor, crypto
from tallystone.errors import Locked, NotFound, Tampered
from tallystone.grant_tree import TREE_DEPTH
from tallystone.keystore import Identity
from tallystone.statements import SHARE, Genesis, Leaf, Link, Signed, identifier
from tallystone.store.tables import GRANT_WRAP, INBOX, LEDGER
from tallystone.vault.block_row import FLAG_ROTATE
from tallystone.vault.caller import Caller
from tallystone.vault.entering import open_block
from tallystone.vault.former import kem_seeds
from tallystone.vault.ledger import admin_public, ask_secret, leaf_salt
from tallystone.vault.levels import trusts_members
from tallystone.vault.opening import Opened
from tallystone.vault.plan import WS, Plan
from tallystone.vault.records import ACCEPTED, OFFERED, Held
from tallystone.vault.shelves import BLOCKS, ROLES, find, marked
from tallystone.vault.writing import put_on_shelf

CAPSULES_AT_ONCE = 64


@dataclass(frozen=True)
class Parcel:
    """A grant to be sent: its leaf and K_grant, to whom, and the capsule's clear part with its one-time key.

    `secrets` travel along for part two of the recipient's shelf row: a sharer's admin key, a role's act key.
    """

    leaf: Leaf
    key: bytes
    recipient: Identity
    enc: bytes
    one_time: bytes
    secrets: dict[str, bytes]

    def __repr__(self) -> str:
        return f"Parcel(grant {self.leaf.grant})"

    @property
    def capsule(self) -> bytes:
        """The id (16 bytes) of the inbox row."""
        return crypto.sha256(self.enc)[:16]


def capsule_info(workspace: bytes, record: bytes) -> bytes:
    """What a capsule is bound to: nothing about the block (design §6)."""
    return crypto.pae("tallystone/capsule", workspace, record)


def pack(
    caller: Caller, leaf: Leaf, key: bytes, recipient: Identity, secrets: dict[str, bytes] | None = None
) -> Parcel:
    """A parcel to the recipient's current record, before the statement that it proves exists."""
    one_time = crypto.random_bytes()
    info = capsule_info(caller.workspace.id, recipient.digest)
    enc = crypto.seal_to(recipient.record.kem, info, one_time)
    return Parcel(leaf, key, recipient, enc, one_time, secrets or {})


def send(
    opened: Opened, parcel: Parcel, statement: Signed, *, renews: bool = False, many: bool = False
) -> None:
    """Queue a parcel into its recipient's inbox, with the policy statement that makes the grant. `renews`: the same
    grant under a new key, which stays accepted where it was; `many`: one of several in the same statement."""
    caller, held = opened.caller, opened.held
    more: dict[str, Any] = {name: secret for name, secret in parcel.secrets.items() if secret}
    for name, said in (("renews", renews), ("many", many)):
        if said:
            more[name] = True
    if held.since:
        more["since"] = held.since
    if held.subject and held.kind == "role":
        more["subject"] = held.subject
    body = [
        held.block, held.storage, parcel.leaf.grant, parcel.key, held.owner, held.kind, parcel.leaf.encode(),
        opened.admin_public, opened.statement(0).encode(), statement.encode(), more,
    ]  # fmt: skip
    context = crypto.pae("capsule/body", caller.workspace.id, crypto.sha256(parcel.enc))
    sealed = crypto.seal(parcel.one_time, context, _cbor.encode(body))
    position = caller.workspace.next_position()
    opened.plan.put(INBOX, parcel.recipient.id, parcel.capsule, parcel.enc, sealed, position)


def empty_inbox(caller: Caller) -> None:
    """Move what others have sent onto the shelf. At most 64 at once; a read-only token opens none."""
    if not caller.keys.can_act:
        return
    for _ in range(64):
        with caller.workspace.store.snapshot() as snapshot:
            waiting = snapshot.scan(INBOX, (WS, caller.id), limit=CAPSULES_AT_ONCE + 1)
        if waiting:
            caller.transact(lambda plan: _receive(caller, plan))
        if len(waiting) <= CAPSULES_AT_ONCE:
            return


def _receive(caller: Caller, plan: Plan) -> None:
    rows = plan.snapshot.scan(INBOX, (WS, caller.id), limit=CAPSULES_AT_ONCE)
    if not rows:
        return
    seeds, opened = kem_seeds(caller, plan), list[tuple[Held, _Sent]]()
    for row in rows:
        capsule, enc, sealed = bytes(row[2]), bytes(row[3]), bytes(row[4])
        plan.need(INBOX, caller.id, capsule)
        plan.delete(INBOX, caller.id, capsule)
        try:
            opened.append(_open_capsule(caller, plan, seeds, enc, sealed))
        except Tampered:
            caller.event(plan, "refused-capsule")
    keys = {held.admin_public: held.admin for held, _ in opened if held.admin}
    for held, sent in opened:
        try:
            counts = _counts(caller, plan, held)
        except Tampered:
            caller.event(plan, "refused-capsule")
            continue
        if counts:  # else the grant ended before anybody looked, or came again under a newer key
            _take(caller, plan, _with_admin(plan, caller, held, keys), sent)


@dataclass(frozen=True)
class _Sent:
    """What a capsule says of itself beyond the grant."""

    issuer: str
    replaces: int
    renews: bool


def _with_admin(plan: Plan, caller: Caller, held: Held, keys: Mapping[bytes, bytes]) -> Held:
    """A sharer's grant with the block's admin key, where a writer who does not have it has renewed the grant: that key
    stays what it was, on the shelf or in a capsule that was not opened yet (`keys`, by their public halves)."""
    leaf = held.own_leaf
    if held.admin or leaf is None or not leaf.rights & SHARE:
        return held
    old = find(plan, caller.keys, BLOCKS, held.block)
    known = keys.get(held.admin_public, b"")
    if not known and old is not None and old.admin and admin_public(old.admin) == held.admin_public:
        known = old.admin
    return replace(held, admin=known)


def _take(caller: Caller, plan: Plan, held: Held, sent: _Sent) -> None:
    """Put a grant that counts onto the shelf: where its predecessor was, accepted or not; else as a new offer."""
    shelf, name = (ROLES, held.subject) if held.kind == "role" else (BLOCKS, held.block)
    old = find(plan, caller.keys, shelf, name)
    same = old is not None and old.storage == held.storage
    live = old is not None and (not same or plan.get(GRANT_WRAP, old.storage, old.grant) is not None)
    follows = old is not None and same and bool(old.leaf) and old.grant in (sent.replaces, held.grant)
    if old is not None and live and not follows and old.state == ACCEPTED:
        return  # held already, through somebody else: an offer takes nothing away
    if old is not None and not old.leaf and live:
        return  # its owner
    kept = old if old is not None and (follows or live) else None
    state = kept.state if kept else _state(caller, plan, sent)
    position = kept.position if kept else caller.workspace.next_position()
    put_on_shelf(plan, caller.keys, shelf, name, replace(held, state=state, position=position))
    caller.event(plan, "accept" if state == ACCEPTED else "offer", held.key, block=held.block)


def _state(caller: Caller, plan: Plan, sent: _Sent) -> str:
    """Whether a grant that comes for the first time waits to be accepted (design §6)."""
    # Who renews a key is not who gave the grant: a sponsor that changes keys accepts nothing for its agent by that.
    sponsored = not caller.id.startswith("user-") and not sent.renews
    if sponsored and sent.issuer == caller.identity(plan, caller.id).record.sponsor:
        return ACCEPTED
    return ACCEPTED if trusts_members(caller, plan) else OFFERED


def _counts(caller: Caller, plan: Plan, held: Held) -> bool:
    """Whether the block opens with this grant, and its latest policy counts it. Raises `Tampered`."""
    leaf = held.own_leaf
    row = plan.get(LEDGER, held.storage, held.grant)
    if leaf is None or row is None or not crypto.equal(bytes(row[3]), leaf.digest):
        return False
    try:
        opened = open_block(caller, plan, held)
        return opened.leaves().get(leaf.grant) == leaf.digest
    except (NotFound, Locked):
        return False


def _open_capsule(
    caller: Caller, plan: Plan, seeds: Sequence[bytes], enc: bytes, sealed: bytes
) -> tuple[Held, _Sent]:
    """What a capsule holds: a grant to this very recipient, of a block whose id its genesis makes, under a key that the
    grant's leaf names, with the statement of whoever issued it. Raises `Tampered`."""
    workspace, me = caller.workspace.id, caller.identity(plan, caller.id)
    one_time, formerly = _one_time(caller, me, seeds, enc)
    body = crypto.open_sealed(
        one_time,
        crypto.pae("capsule/body", workspace, crypto.sha256(enc)),
        sealed,
    )
    value = _cbor.unpack(
        body, "a capsule", str, bytes, int, bytes, str, str, bytes, bytes, bytes, bytes, dict
    )
    block, storage, number, grant_key, owner, kind, leaf_bytes, admin, genesis_bytes, grant_bytes, more = (
        value
    )
    first, signed, leaf = Signed.decode(genesis_bytes), Signed.decode(grant_bytes), Leaf.decode(leaf_bytes)
    genesis, link = Genesis.decode(first.body), Link.decode(signed.body)
    since, subject = more.get("since", 0), more.get("subject", "")
    secrets = [more.get(name, b"") for name in ("admin", "role_act")]
    replaces, renews = link.change.get("replaces", 0), more.get("renews") is True
    if not _cbor.fits([since, subject, *secrets, replaces], (int, str, bytes, bytes, int)):
        raise Tampered("a capsule is malformed")
    sound = (
        first.type == "genesis"
        and identifier("block", first.digest) == block
        and kind == genesis.kind
        and kind in ("block", "role")
        and subject == (genesis.subject if kind == "role" else "")
        and len(grant_key) == crypto.KEY_SIZE
        and (genesis.owner == owner or since > 0)
        and _signed(caller, plan, first, genesis.owner, genesis.owner_record)
        and link.block == block
        and link.owner == owner
        and _signed(caller, plan, signed, link.issuer, link.issuer_record)
        and (renews or more.get("many") is True or _names(signed, link, leaf, enc))
        and leaf.grant == number
        and 0 < number < 1 << TREE_DEPTH
        and 0 <= replaces < 1 << TREE_DEPTH
        and crypto.equal(leaf.salt, leaf_salt(grant_key))
        and leaf.recipient == caller.id
        and leaf.record in me.signers
        and link.admin == crypto.sha256(admin)
        and all(len(secret) in (0, crypto.KEY_SIZE) for secret in secrets)
        and (not secrets[0] or (bool(leaf.rights & SHARE) and crypto.equal(admin_public(secrets[0]), admin)))
    )
    if not sound:
        raise Tampered("a capsule holds a grant that its issuer did not make")
    held = Held(
        block, storage, number, grant_key, owner, kind, OFFERED, 0, leaf_bytes, admin,
        subject=subject, extra={"since": since} if since else None, admin=secrets[0], root_act=secrets[1],
    )  # fmt: skip
    # Whoever has the former root opens this capsule too.
    return marked(held, "keys") if formerly else held, _Sent(link.issuer, replaces, renews)


def _one_time(caller: Caller, me: Identity, seeds: Sequence[bytes], enc: bytes) -> tuple[bytes, bool]:
    """The key under a capsule's clear part, which is bound to the record that it was sealed to: this or an earlier one;
    and whether the seed that opens it is a former one's."""
    for number, seed in enumerate(seeds):
        for digest in me.signers:
            try:
                opened = crypto.open_from(seed, capsule_info(caller.workspace.id, digest), enc)
            except Tampered:
                continue
            return opened, number > 0
    raise Tampered("a capsule does not open")


def _signed(caller: Caller, plan: Plan, statement: Signed, principal: str, record: bytes) -> bool:
    try:
        return caller.identity(plan, principal).signed(statement, caller.workspace.id, record)
    except NotFound as error:
        raise Tampered("a capsule names a principal that does not exist") from error


def _names(signed: Signed, link: Link, leaf: Leaf, enc: bytes) -> bool:
    """Whether a grant's statement is about this leaf and this capsule."""
    named = link.change.get("leaf")
    grant = signed.type == "grant" and named in (leaf.digest, leaf.encode())
    return grant and link.change.get("capsule") == crypto.sha256(enc)


def ask_for_new_key(opened: Opened) -> None:
    """Queue the note that this grant's key must be replaced before the block is next written: somebody else may know
    it. Who holds it says so itself, in the form of a key that was put there without the admin key: whoever changes the
    keys replaces that one in any case (ADR 0015)."""
    plan, held, row = opened.plan, opened.held, opened.row
    entry = plan.need(LEDGER, held.storage, held.grant)
    if entry is None:
        raise Tampered("a grant's row is not there")
    secret = ask_secret(opened.admin_public, held.block, held.grant, held.key, bytes(entry[6]))
    plan.put(LEDGER, *entry[1:6], secret, entry[7])
    opened.row = replace(row, flags=row.flags | FLAG_ROTATE)
    opened.row.write(plan)
