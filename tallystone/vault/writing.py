"""Making blocks, versions, policy statements and epochs: what an operation queues in its plan.

Nothing here decides who may; the callers ask `policy` first, and every reader asks it again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tallystone import _cbor, crypto, policy
from tallystone.errors import Invalid, Locked, NotFound
from tallystone.keystore import Identity, Keys, Root
from tallystone.policy import Standing
from tallystone.statements import (
    EMPTY,
    Genesis,
    Leaf,
    Link,
    Version,
    grant_proof,
    grants_root,
    identifier,
)
from tallystone.store.tables import BLOCK, CHAIN, EPOCH, GRANT_WRAP, INBOX, LEDGER, PRINCIPAL, SHELF, VERSION
from tallystone.vault.caller import Caller
from tallystone.vault.opening import FLAG_ROTATE, BlockRow, Opened
from tallystone.vault.plan import Plan
from tallystone.vault.records import (
    ACCEPTED,
    Content,
    EpochKeys,
    Held,
    Roster,
    admin_public,
    epoch_row,
    leaf_salt,
    new_epoch,
    seal_content,
    seal_grant_key,
    seal_grant_key_to,
    seal_roster,
    seal_statement,
    shelve,
    wrap_content_key,
    wrap_epoch,
)


@dataclass(frozen=True)
class FirstGrant:
    """A grant that a block has from its genesis on: to an agent of the owner, whose keys the owner holds."""

    identity: Identity
    keys: Keys
    rights: int
    shelf: str = "block"


def put_on_shelf(plan: Plan, keys: Keys, shelf: str, locator_of: str, held: Held) -> None:
    """Queue a shelf row."""
    shelf_id, locator = keys.shelf(shelf), keys.locator(locator_of)
    one, two = shelve(keys, shelf_id, locator, held)
    plan.put(SHELF, shelf_id, locator, held.position, one, two)


def encode_payload(payload: Mapping[str, Any]) -> bytes:
    """Canonical bytes of a block's content. Raises `Invalid` for what has no UTF-8 form."""
    try:
        return _cbor.encode(dict(payload))
    except (UnicodeEncodeError, ValueError, TypeError, OverflowError) as error:
        raise Invalid(
            "a field holds text or a number that cannot be stored", hint="send valid Unicode"
        ) from error


def new_leaf(
    number: int, identity: Identity, rights: int, parent: int, grant_key: bytes, *, history: bool = True
) -> Leaf:
    """A grant's leaf. Its salt keeps the hash, which lies in clear, from being guessed, and binds the grant's key."""
    salt = leaf_salt(grant_key)
    return Leaf(number, identity.id, identity.digest, rights, history, None, 0, parent, salt)


def create_block(
    caller: Caller,
    plan: Plan,
    *,
    kind: str,
    payload: Mapping[str, Any],
    settings: Mapping[str, Any],
    subject: str = "",
    grants: Sequence[FirstGrant] = (),
    shelf: str = "block",
    locator_of: str = "",
    root: Root | None = None,
) -> Held:
    """Queue a new block of the caller with its first version, its first grants, and its shelf rows.

    `root` is an agent's own, for its sponsor's shelf.
    """
    me = caller.identity(plan, caller.id)
    now = caller.workspace.now_ms()
    grant_keys = {number: crypto.random_bytes() for number in range(1, len(grants) + 1)}
    leaves = {i: new_leaf(i, g.identity, g.rights, 0, grant_keys[i]) for i, g in enumerate(grants, 1)}
    genesis = Genesis(
        kind=kind,
        owner=caller.id,
        owner_record=me.digest,
        nonce=crypto.random_bytes(16),
        created=now,
        mutable=True,
        append_only=False,
        subject=subject,
        grants=grants_root({i: leaf.digest for i, leaf in leaves.items()}),
        next_grant=len(grants) + 1,
        settings=dict(settings),
    )
    signed = caller.sign(plan, "genesis", genesis.encode())
    block, storage, admin = identifier("block", signed.digest), crypto.random_bytes(16), crypto.random_bytes()
    keys, own_key = new_epoch(0), crypto.random_bytes()
    plan.put(EPOCH, storage, *epoch_row(keys, None))
    plan.put(CHAIN, storage, 0, 0, seal_statement(keys.chain, block, 0, signed))
    plan.put(GRANT_WRAP, storage, 0, 0, wrap_epoch(own_key, block, keys, history=True))
    position = caller.workspace.next_position()
    held = Held(
        block,
        storage,
        0,
        own_key,
        caller.id,
        kind,
        ACCEPTED,
        position,
        subject=subject,
        root_read=root.read if root else b"",
        admin=admin,
        root_act=(root.act or b"") if root else b"",
    )
    put_on_shelf(plan, caller.keys, shelf, locator_of or block, held)
    for number, grant in enumerate(grants, 1):
        leaf, grant_key = leaves[number], grant_keys[number]
        _put_grant(
            plan, block, storage, keys, leaf, grant_key, seal_grant_key(admin, block, number, grant_key)
        )
        _place(
            plan, grant, replace(held, grant=number, key=grant_key, leaf=leaf.encode()), caller, locator_of
        )
    row = BlockRow(storage, 0, 0, 0, 0, None, None)
    opened = Opened(caller, plan, held, row, keys)
    opened.know(policy.begin(block, signed.digest, genesis))
    add_version(opened, payload, EMPTY, Standing(caller.id))
    return held


def _place(plan: Plan, grant: FirstGrant, held: Held, caller: Caller, locator_of: str) -> None:
    """Put a block straight onto the shelf of an agent whose keys the caller holds."""
    position = caller.workspace.next_position()
    bare = replace(held, position=position, admin=b"", root_read=b"", root_act=b"", admin_public=b"")
    put_on_shelf(plan, grant.keys, grant.shelf, locator_of or held.block, bare)


def _put_grant(
    plan: Plan,
    block: str,
    storage: bytes,
    keys: EpochKeys,
    leaf: Leaf,
    grant_key: bytes,
    secret: bytes,
    capsule: bytes = b"",
) -> None:
    roster = seal_roster(keys.chain, block, Roster(leaf, capsule))
    plan.put(LEDGER, storage, leaf.grant, leaf.digest, keys.number, roster, secret, leaf.until)
    plan.put(
        GRANT_WRAP, storage, leaf.grant, keys.number, wrap_epoch(grant_key, block, keys, history=leaf.history)
    )


def add_version(opened: Opened, payload: Mapping[str, Any], previous: bytes, standing: Standing) -> Version:
    """Queue the next version, and return its statement. Raises `Locked` while a rotation is due."""
    caller, plan, row = opened.caller, opened.plan, opened.row
    if row.flags & FLAG_ROTATE or opened.head.due:
        raise Locked(
            "somebody's access ended and the keys must change first",
            hint="its owner's next write does that; try again after it",
            code="rotation_pending",
        )
    body = encode_payload(payload)
    head, number = opened.head, row.version + 1
    version = Version(
        block=opened.id,
        number=number,
        previous=previous,
        policy=head.number,
        policy_digest=head.digest,
        epoch=row.epoch,
        payload=crypto.sha256(body),
        writer=caller.id,
        writer_record=caller.identity(plan, caller.id).digest,
        under=caller.under.id if caller.under else "",
        time=caller.workspace.now_ms(),
    )
    signed = caller.sign(plan, "version", version.encode())
    content_key = crypto.random_bytes()
    sealed = seal_content(
        content_key, opened.id, number, Content(signed, body, standing.leaf, standing.proof)
    )
    wrap = wrap_content_key(opened.keys.dek, opened.id, number, content_key)
    plan.put(VERSION, row.storage, number, row.epoch, wrap, sealed)
    opened.row = replace(row, version=number)
    opened.row.write(plan)
    return version


def add_link(
    opened: Opened,
    kind: str,
    change: Mapping[str, Any],
    *,
    leaves: Mapping[int, bytes] | None = None,
    settings: Mapping[str, Any] | None = None,
    admin: bytes | None = None,
    authority: Mapping[str, Any] | None = None,
    next_grant: int | None = None,
) -> Any:
    """Queue the next policy statement; what is not given stays as it was. Returns it, signed."""
    caller, plan, head = opened.caller, opened.plan, opened.head
    if opened.held.own_leaf is not None and (head.due or kind == "revocation"):
        change = {**change, "due": True}  # no version may cite this before somebody has rotated (design §6)
    version_digest = opened.content()[0].signed.digest if opened.row.version else EMPTY
    link = Link(
        block=opened.id,
        number=head.number + 1,
        previous=head.digest,
        version=opened.row.version,
        version_digest=version_digest,
        epoch=opened.row.epoch,
        owner=head.owner,
        grants=head.grants if leaves is None else grants_root(leaves),
        next_grant=head.next_grant if next_grant is None else next_grant,
        settings=dict(head.settings if settings is None else settings),
        admin=head.admin if admin is None else admin,
        change=dict(change),
        issuer=caller.id,
        issuer_record=caller.identity(plan, caller.id).digest,
        authority=dict(authority or {}),
        time=caller.workspace.now_ms(),
    )
    signed = caller.sign(plan, kind, link.encode())
    sealed = seal_statement(opened.keys.chain, opened.id, link.number, signed)
    plan.put(CHAIN, opened.row.storage, link.number, opened.row.epoch, sealed)
    # Asked before it is written: a link that readers refuse would close the block for everybody.
    opened.know(policy.follow(head, kind, link, signed.digest, caller.workspace.now() // 86400))
    opened.row = replace(opened.row, policy=link.number)
    opened.row.write(plan)
    return signed


def add_grant(
    opened: Opened, recipient: Identity, rights: int, capsule: bytes = b"", replaces: int = 0
) -> tuple[Leaf, bytes, Any]:
    """Queue a grant to `recipient`; returns its leaf, its key and the signed statement.

    By the owner, the key goes to the ledger under the admin key; by a grantee who places the block below its own
    grant (rule 5), it is sealed to the admin key's public half, so that the owner can rotate later. `replaces` is the
    number of the same recipient's grant that this one takes the place of.
    """
    leaves = opened.leaves()
    number, grant_key = opened.head.next_grant, crypto.random_bytes()
    own = opened.held.own_leaf
    leaf = new_leaf(
        number, recipient, rights, own.grant if own else 0, grant_key, history=own.history if own else True
    )
    after = {**leaves, number: leaf.digest}
    if own is None:
        admin = opened.held.admin
        secret = seal_grant_key(admin, opened.id, number, grant_key)
        change: dict[str, Any] = {
            "grant": number,
            "leaf": leaf.digest,
            "capsule": crypto.sha256(capsule),
            "replaces": replaces,
        }
        authority = None
        published = crypto.sha256(admin_public(admin)) if capsule and opened.head.admin == EMPTY else None
    else:
        secret = seal_grant_key_to(opened.held.admin_public, opened.id, number, grant_key)
        change = {"grant": number, "leaf": leaf.encode(), "proof": grant_proof(leaves, number)}
        authority = {"leaf": own.encode(), "proof": grant_proof(leaves, own.grant)}
        published = None
    signed = add_link(
        opened, "grant", change, leaves=after, authority=authority, next_grant=number + 1, admin=published
    )
    _put_grant(opened.plan, opened.id, opened.row.storage, opened.keys, leaf, grant_key, secret,
               crypto.sha256(capsule)[:16] if capsule else b"")  # fmt: skip
    return leaf, grant_key, signed


def place_with_agent(opened: Opened, agent: FirstGrant) -> None:
    """Grant to an agent whose keys the caller holds, and put the block on its shelf: no capsule, no offer."""
    plan, identity = opened.plan, agent.identity
    if plan.need(PRINCIPAL, identity.id, identity.record.serial + 1) is not None:
        raise NotFound(f"Agent {identity.id} not found")  # ended meanwhile; the commit repeats this check
    leaf, grant_key, _ = add_grant(opened, identity, agent.rights)
    held = replace(opened.held, grant=leaf.grant, key=grant_key, leaf=leaf.encode(), state=ACCEPTED)
    _place(opened.plan, agent, held, opened.caller, "")


def destroy(plan: Plan, opened: Opened) -> None:
    """Queue the removal of every row of a block but the shelf rows, which its holders keep until they look."""
    for entry, _ in opened.ledger().values():
        roster = opened.roster(entry)
        if roster.capsule:
            plan.delete(INBOX, roster.leaf.recipient, roster.capsule)
    for table in (CHAIN, VERSION, EPOCH, GRANT_WRAP, LEDGER):
        plan.clear(table, opened.row.storage)
    plan.need(BLOCK, opened.row.storage)
    plan.delete(BLOCK, opened.row.storage)
