"""Making blocks, versions, policy statements and epochs: what an operation queues in its plan.

Nothing here decides who may; the callers ask `policy` first, and every reader asks it again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from tallystone import _cbor, crypto, policy
from tallystone.errors import Invalid, Locked
from tallystone.grant_tree import grants_root
from tallystone.keystore import Identity, Keys, Root
from tallystone.policy import Standing
from tallystone.statements import EMPTY, Deletion, Genesis, Leaf, Link, Signed, Version, identifier
from tallystone.store.tables import (
    BLOCK,
    CALENDAR,
    CHAIN,
    EPOCH,
    GRANT_WRAP,
    INBOX,
    LEDGER,
    SHELF,
    SHRED,
    VERSION,
)
from tallystone.vault.block_row import FLAG_ROTATE, BlockRow
from tallystone.vault.caller import Caller
from tallystone.vault.entering import note_opened
from tallystone.vault.keeping import let_go
from tallystone.vault.ledger import Ledger, Roster, leaf_salt, seal_roster
from tallystone.vault.opening import Opened, nest_of
from tallystone.vault.plan import WS, Plan
from tallystone.vault.recall import newest
from tallystone.vault.records import (
    ACCEPTED,
    SALT,
    Content,
    EpochWraps,
    Held,
    as_on_shelf,
    check_payload,
    epoch_row,
    new_epoch,
    open_statement,
    open_version,
    seal_content,
    seal_statement,
    shelve,
    wrap_content_key,
)
from tallystone.vault.shelves import BLOCKS, find


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
    row = (WS, shelf_id, locator, held.position, *shelve(keys, shelf_id, locator, held))
    plan.put(SHELF, *row[1:])
    plan.remember(("held", shelf_id, locator, keys.can_act), as_on_shelf(held, keys, row))


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
    mutable: bool = True,
    append_only: bool = False,
    fixed: Mapping[str, Any] | None = None,
) -> Held:
    """Queue a new block of the caller with its first version, its first grants, and its shelf rows.

    `root` is an agent's own, for its sponsor's shelf. `fixed` is said in the genesis and holds for good. The keys are
    nested from the start: under a shred key, and with `expires` among the settings under that day's as well.
    """
    me = caller.identity(plan, caller.id)
    now = caller.workspace.now_ms()
    grant_keys = {number: crypto.random_bytes() for number in range(1, len(grants) + 1)}
    leaves = {i: new_leaf(i, g.identity, g.rights, 0, grant_keys[i]) for i, g in enumerate(grants, 1)}
    digests = {i: leaf.digest for i, leaf in leaves.items()}
    genesis = Genesis(
        kind=kind,
        owner=caller.id,
        owner_record=me.digest,
        nonce=crypto.random_bytes(16),
        created=now,
        mutable=mutable,
        append_only=append_only,
        subject=subject,
        grants=grants_root(digests),
        next_grant=len(grants) + 1,
        settings=dict(settings),
        change={**(fixed or {}), **({} if mutable else {"payload": crypto.sha256(encode_payload(payload))})},
    )
    signed = caller.sign(plan, "genesis", genesis.encode())
    block, storage, admin = identifier("block", signed.digest), crypto.random_bytes(16), crypto.random_bytes()
    plan.begins(storage)
    keys, own_key = new_epoch(0), crypto.random_bytes()
    day = settings.get("expires")
    if day is not None:
        mark_day(caller, plan, storage, None, day)
    row = BlockRow(storage, 0, 0, 0, 0, day, caller.workspace.shreds.take())
    nest = nest_of(caller, block, row, 0)
    plan.put(EPOCH, storage, *epoch_row(keys, None))
    plan.put(CHAIN, storage, 0, 0, seal_statement(keys.chain, block, 0, signed))
    wraps = EpochWraps(block, keys, nest)
    plan.put(GRANT_WRAP, storage, 0, 0, wraps.under(own_key, history=True))
    position = caller.workspace.next_position()
    read, act, extra = root.carried() if root else (b"", b"", None)
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
        extra=extra,
        root_read=read,
        admin=admin,
        root_act=act,
    )
    put_on_shelf(plan, caller.keys, shelf, locator_of or block, held)
    ledger, rosters = Ledger(admin, block), list[tuple[bytes, Roster]]()
    for number, grant in enumerate(grants, 1):
        leaf, grant_key = leaves[number], grant_keys[number]
        secret = ledger.seal(number, grant_key, history=True, watch=False)
        roster = seal_roster(keys.chain, block, Roster(leaf, b""))
        rosters.append((roster, Roster(leaf, b"")))
        plan.put(LEDGER, storage, number, leaf.digest, 0, roster, secret, leaf.until)
        plan.put(GRANT_WRAP, storage, number, 0, wraps.under(grant_key, history=True))
        _place(
            plan, grant, replace(held, grant=number, key=grant_key, leaf=leaf.encode()), caller, locator_of
        )
    opened = Opened(caller, plan, held, row, keys)
    opened.begin(signed)
    opened.know_root(digests, genesis.grants)
    for roster, said in rosters:
        opened.know_roster(roster, said)
    written = add_version(opened, payload, EMPTY, Standing(caller.id), mutable=mutable)
    _ask(opened, payload, written)
    for number, grant in enumerate(grants, 1):
        if grant.shelf == "block":
            hand_over(opened, grant, leaves[number])
    return held


def _ask(opened: Opened, payload: Mapping[str, Any], written: Version) -> None:
    """What every reader asks of a block, of one that this plan has just made; then it need not open it for that."""
    check_payload(opened.held.kind, dict(payload))
    policy.check_fixed(opened.genesis(), written)
    digest, standing = newest(opened)[1], Standing(opened.caller.id)
    policy.check_version(opened.head, opened.head, written, digest, standing, None)
    wrap = opened.plan.get(GRANT_WRAP, opened.row.storage, opened.held.grant)
    assert wrap is not None  # queued above
    note_opened(opened, wrap)


def hand_over(opened: Opened, agent: FirstGrant, leaf: Leaf) -> None:
    """Have this plan go on with a block as the agent will open it, which has just been given it: with the same keys, if
    it may open what was written before as well, the same policy and the same version, all of them verified."""
    plan, keys = opened.plan, opened.keys
    wrap = plan.get(GRANT_WRAP, opened.row.storage, leaf.grant)
    held = find(plan, agent.keys, BLOCKS, opened.id)
    if wrap is None or held is None or held.grant != leaf.grant or not leaf.history:
        return  # then it is opened
    given = Opened(opened.caller.as_agent(agent.keys), plan, held, opened.row, keys)
    given.know(opened.head)
    given.verified = opened.verified
    note_opened(given, wrap)


def mark_day(caller: Caller, plan: Plan, storage: bytes, before: int | None, day: int | None) -> None:
    """Queue the calendar's entry for a block that ends after `day` (None: never), in place of the one at `before`, and
    see that the day has a key. That is on disk before the commit that uses it."""
    if before is not None:
        plan.delete(CALENDAR, before, storage, 0)
    if day is not None:
        caller.workspace.days.make(day)
        plan.put(CALENDAR, day, storage, 0, "block")


def _place(plan: Plan, grant: FirstGrant, held: Held, caller: Caller, locator_of: str) -> None:
    """Put a block straight onto the shelf of an agent whose keys the caller holds."""
    position = caller.workspace.next_position()
    bare = replace(held, position=position, admin=b"", root_read=b"", root_act=b"", admin_public=b"")
    put_on_shelf(plan, grant.keys, grant.shelf, locator_of or held.block, bare)


def add_version(
    opened: Opened,
    payload: Mapping[str, Any],
    previous: bytes,
    standing: Standing,
    change: Mapping[str, Any] | None = None,
    *,
    mutable: bool | None = None,
) -> Version:
    """Queue the next version, and return its statement. `change` says what kind of version it is, if it is no plain
    edit; `mutable` what the genesis says, where it is at hand. Raises `Locked` while a rotation is due."""
    caller, plan, row = opened.caller, opened.plan, opened.row
    if row.flags & FLAG_ROTATE or opened.head.due:
        raise Locked(
            "somebody's access ended and the keys must change first",
            hint="its owner's next write does that; try again after it",
            code="rotation_pending",
        )
    if opened.genesis().mutable if mutable is None else mutable:  # else the genesis names the payload's hash
        payload = {**payload, SALT: crypto.random_bytes(16)}
    body = encode_payload(payload)
    head, number = opened.head, row.version + 1
    before = newest(opened)[0] if row.version else None
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
        authority=policy.carried(before, standing.via),
        change={**(change or {}), **let_go(opened, before, number)},
    )
    signed = caller.sign(plan, "version", version.encode())
    content_key = crypto.random_bytes()
    content = Content(signed, body, standing.leaf, standing.proof, tuple(opened.evidence()))
    sealed = seal_content(content_key, opened.id, number, content)
    wrap = wrap_content_key(opened.keys.dek, opened.id, number, content_key)
    plan.remember((open_version, opened.keys.dek, opened.id, number, wrap, sealed), (content, version))
    plan.put(VERSION, row.storage, number, row.epoch, wrap, sealed)
    opened.row = row.changed(version=number)
    opened.row.write(plan)
    opened.verified = dict(payload), version, signed.digest
    return version


def add_link(
    opened: Opened,
    kind: str,
    change: Mapping[str, Any],
    *,
    leaves: Mapping[int, bytes] | None = None,
    settings: Mapping[str, Any] | None = None,
    admin: bytes | None = None,
    standing: Standing | None = None,
    next_grant: int | None = None,
    owner: str | None = None,
) -> Signed:
    """Queue the next policy statement; what is not given stays as it was. Returns it, signed.

    `standing` is how the caller came to the block before this step, if its rows have changed in this plan already.
    """
    caller, plan, head = opened.caller, opened.plan, opened.head
    if caller.id != head.owner and standing is None and owner is None:
        standing = opened.standing()
    if standing is not None and opened.row.epoch == head.epoch and (head.due or kind == "revocation"):
        change = {**change, "due": True}  # no version may cite this before somebody has rotated (design §6)
    authority = {} if standing is None or standing.leaf is None else _authority(opened, standing)
    version_digest = newest(opened)[1] if opened.row.version else EMPTY
    root = head.grants if leaves is None else grants_root(leaves)
    link = Link(
        block=opened.id,
        number=head.number + 1,
        previous=head.digest,
        version=opened.row.version,
        version_digest=version_digest,
        epoch=opened.row.epoch,
        owner=owner or head.owner,
        grants=root,
        next_grant=head.next_grant if next_grant is None else next_grant,
        settings=dict(head.settings if settings is None else settings),
        admin=head.admin if admin is None else admin,
        change=dict(change),
        issuer=caller.id,
        issuer_record=caller.identity(plan, caller.id).digest,
        authority=authority,
        time=caller.workspace.now_ms(),
    )
    signed = caller.sign(plan, kind, link.encode())
    sealed = seal_statement(opened.keys.chain, opened.id, link.number, signed)
    plan.remember((open_statement, opened.keys.chain, opened.id, link.number, sealed), signed)
    plan.put(CHAIN, opened.row.storage, link.number, opened.row.epoch, sealed)
    # Asked before it is written: a link that readers refuse would close the block for everybody.
    today, party_of = caller.workspace.today(), partial(caller.party, plan)
    opened.know(policy.follow(head, kind, link, signed.digest, today, standing, party_of))
    if leaves is not None:
        opened.know_root(leaves, root)
    opened.row = opened.row.changed(policy=link.number)
    opened.row.write(plan)
    return signed


def _authority(opened: Opened, standing: Standing) -> dict[str, Any]:
    """What entitles somebody who is not the owner to a policy statement: grant, path, and the roles in between."""
    assert standing.leaf is not None  # callers ask
    found: dict[str, Any] = {"leaf": standing.leaf.encode(), "proof": list(standing.proof)}
    return {**found, "via": opened.evidence()} if standing.via else found


def deletion(opened: Opened) -> bytes:
    """The owner's signed word that a block is gone, for the event's details."""
    opened.know(head := opened.head)  # its audit level holds for its end too
    caller, record = opened.caller, opened.caller.identity(opened.plan, opened.caller.id).digest
    body = Deletion(
        opened.id, head.number, head.digest, opened.row.version, caller.id, record, caller.workspace.now_ms()
    )
    return caller.sign(opened.plan, "deletion", body.encode()).encode()


def destroy(plan: Plan, opened: Opened) -> None:
    """Queue the removal of every row of a block but the shelf rows, which its holders keep until they look, and of its
    shred key: that one is destroyed after the commit."""
    for entry, _ in opened.ledger().values():
        roster = opened.roster(entry)
        if roster.capsule:
            plan.delete(INBOX, roster.leaf.recipient, roster.capsule)
        if roster.leaf.until is not None:
            plan.delete(CALENDAR, roster.leaf.until, opened.row.storage, roster.leaf.grant)
    clear(plan, opened.row.storage)
    doom(plan, opened.row.shred, opened.caller.workspace.today())


def clear(plan: Plan, storage: bytes) -> None:
    """Queue the removal of a block's rows, whether or not anything in them opens; all but shelf and inbox, which do not
    say what they are about."""
    row = plan.need(BLOCK, storage)
    days = {(int(one[7]), int(one[2])) for one in plan.rows(LEDGER, storage) if one[7] is not None}
    if row is not None and row[6] is not None:
        days.add((int(row[6]), 0))
    for day, number in days:
        plan.delete(CALENDAR, day, storage, number)
    for table in (CHAIN, VERSION, EPOCH, GRANT_WRAP, LEDGER):
        plan.clear(table, storage)
    plan.delete(BLOCK, storage)


def doom(plan: Plan, slot: bytes | None, today: int) -> None:
    """Queue the end of a shred key (None: the block has none): noted with the deletion, so that a crash between the
    commit and the end of the key leaves it to the next purge."""
    if slot is not None:
        plan.put(SHRED, slot, today)
