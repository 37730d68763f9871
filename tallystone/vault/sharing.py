"""Grants to other principals: sharing, revoking, offers, and who holds what."""

from __future__ import annotations

from dataclasses import replace

from tallystone import crypto
from tallystone.errors import Denied, Invalid, NotFound, Tampered
from tallystone.keystore import Keys
from tallystone.statements import WRITE, Leaf, Signed
from tallystone.store.tables import INBOX, PRINCIPAL, SHELF
from tallystone.vault import accounts
from tallystone.vault.attaching import (
    RIGHTS,
    blocks_of,
    claim_labels,
    labels_stay_unique,
    no_twins,
    place,
    view,
)
from tallystone.vault.caller import Caller
from tallystone.vault.opening import Opened, missing, open_block
from tallystone.vault.plan import Plan
from tallystone.vault.records import OFFERED, Held, admin_public, shelve
from tallystone.vault.rotating import remove_grants, rotate_if_due, subtree
from tallystone.vault.shelves import (
    AGENTS,
    BLOCKS,
    agent_keys,
    capsule_info,
    empty_inbox,
    find,
    find_block,
    seal_capsule_body,
    walk,
)
from tallystone.vault.types import Access, Block, Grant, Offer, Reach
from tallystone.vault.views import block_view
from tallystone.vault.writing import FirstGrant, add_grant


def right(can: str) -> int:
    """The bits of `read` or `write`. Raises `Invalid`."""
    if can not in RIGHTS:
        raise Invalid(f"unknown right {can!r}", hint="use read or write", code="bad_right")
    return RIGHTS[can]


def share(caller: Caller, block_id: str, recipient: str, can: str) -> Grant:
    """Grant a block to a user, or to somebody's agent. To others it is an offer that they accept.

    Sharing again with another right replaces the grant; with the same one it changes nothing.
    """
    rights = right(can)

    def action(plan: Plan) -> Grant:
        caller.must_act()
        held = find_block(plan, caller.keys, block_id)
        name, principal = accounts.resolve(caller, plan, recipient)
        if principal == caller.id:
            raise Invalid("the block is yours to use already", hint="name somebody else", code="self_grant")
        opened = open_block(caller, plan, held)
        if held.own_leaf is not None and find(plan, caller.keys, AGENTS, principal) is None:
            raise Denied("only the owner shares this block", hint="ask its owner", code="not_owner")
        known = _given(opened, principal)
        if known and all(leaf.rights == rights for leaf in known):
            caller.event(plan, "read", held.key, block=block_id)
            return _grant(known[0], name)
        if known:
            _end(caller, plan, opened, known)
            opened = open_block(caller, plan, held)
        agent = find(plan, caller.keys, AGENTS, principal)
        if agent is not None:
            identity = caller.identity(plan, principal)
            place(caller, plan, block_id, FirstGrant(identity, agent_keys(caller, agent), rights))
            opened = open_block(caller, plan, held)
            labels_stay_unique(opened, caller)
            leaf = max(opened.grants(), key=lambda one: one.grant)
        else:
            rotate_if_due(opened)
            leaf = _send(caller, plan, opened, principal, rights, known[0].grant if known else 0)
        caller.event(plan, "share", held.key, block=block_id, to=principal, can=can)
        return _grant(leaf, name)

    return caller.transact(action, lock=block_id)


def _send(caller: Caller, plan: Plan, opened: Opened, principal: str, rights: int, replaces: int) -> Leaf:
    """Queue a grant that travels in a capsule, sealed to the recipient's current record."""
    recipient = caller.identity(plan, principal)
    ended = plan.need(PRINCIPAL, principal, recipient.record.serial + 1) is not None
    if ended or not recipient.active:
        raise NotFound(f"{principal} not found", hint="list the users with: tallystone user list")
    one_time = crypto.random_bytes()
    info = capsule_info(caller.workspace.id, recipient.digest)
    enc = crypto.seal_to(recipient.record.kem, info, one_time)
    leaf, grant_key, signed = add_grant(opened, recipient, rights, capsule=enc, replaces=replaces)
    travelling = replace(
        opened.held,
        grant=leaf.grant,
        key=grant_key,
        leaf=leaf.encode(),
        admin_public=admin_public(opened.held.admin),
    )
    genesis: Signed = opened.statement(0)
    sealed = seal_capsule_body(one_time, caller.workspace.id, enc, travelling, genesis, signed)
    plan.put(INBOX, principal, crypto.sha256(enc)[:16], enc, sealed, caller.workspace.next_position())
    return leaf


def _grant(leaf: Leaf, name: str) -> Grant:
    can = "write" if leaf.rights & WRITE else "read"
    return Grant(leaf.grant, leaf.recipient, name, leaf.recipient.partition("-")[0], can, leaf.parent)


def revoke(caller: Caller, block_id: str, recipient: str) -> list[Reach]:
    """End a principal's grant with all that was given through it, and change the keys. Returns who still reaches it."""

    def action(plan: Plan) -> list[Reach]:
        caller.must_act()
        held = find_block(plan, caller.keys, block_id)
        opened = open_block(caller, plan, held)
        _, principal = accounts.resolve(caller, plan, recipient)
        if principal == held.owner:
            raise Invalid("an owner cannot be revoked", hint="delete the block instead", code="owner_revoke")
        if not any(leaf.recipient == principal for leaf in opened.grants()):
            raise NotFound(
                f"{recipient} holds no grant on this block", hint="list them with: tallystone block show"
            )
        given = _given(opened, principal)
        if not given:
            raise Denied("only the owner ends this grant", hint="ask its owner", code="not_owner")
        _end(caller, plan, opened, given)
        caller.event(plan, "revoke", held.key, block=block_id, principal=principal)
        rest = open_block(caller, plan, held)
        own = held.own_leaf
        left = [leaf for leaf in rest.grants() if own is None or own.grant in (leaf.grant, leaf.parent)]
        return [
            Reach(held.owner, 0, "owner"),
            *(Reach(one.recipient, one.grant, _grant(one, "").can) for one in left),
        ]

    return caller.transact(action, lock=block_id)


def _given(opened: Opened, principal: str) -> list[Leaf]:
    """A principal's grants, as far as the caller may end them: all for the owner, for others what came through them."""
    own = opened.held.own_leaf
    mine = [leaf for leaf in opened.grants() if leaf.recipient == principal]
    return mine if own is None else [leaf for leaf in mine if leaf.parent == own.grant]


def _end(caller: Caller, plan: Plan, opened: Opened, leaves: list[Leaf]) -> None:
    """Queue the end of these grants of one principal; from an agent of the caller's the block goes at once."""
    everything = opened.grants()
    gone = {leaf.grant: leaf for one in leaves for leaf in subtree(everything, one.grant)}
    agent = find(plan, caller.keys, AGENTS, leaves[0].recipient)
    if agent is not None:
        keys = agent_keys(caller, agent)
        there = find(plan, keys, BLOCKS, opened.id)
        if there is not None and there.grant in gone:
            plan.delete(SHELF, keys.shelf(BLOCKS), keys.locator(opened.id))
    remove_grants(opened, list(gone.values()))


def grants(caller: Caller, block_id: str) -> list[Grant]:
    """The live grants on a block: all for the owner; a grantee sees its own and what hangs below it."""

    def action(plan: Plan) -> list[Grant]:
        held = find_block(plan, caller.keys, block_id)
        own = held.own_leaf
        found = open_block(caller, plan, held).grants()
        names = accounts.names(caller, plan)
        if own is not None:
            found = [leaf for leaf in found if own.grant in (leaf.grant, leaf.parent)]
        caller.event(plan, "read", held.key, block=block_id)
        return [_grant(leaf, names.get(leaf.recipient, "")) for leaf in found]

    return caller.transact(action)


# -- offers -----------------------------------------------------------------------------------------------------


def _mine_and_my_agents(caller: Caller, plan: Plan) -> list[tuple[str, Keys]]:
    agents = [] if caller.id.startswith("agent-") else list(walk(plan, caller.keys, AGENTS))
    return [(caller.id, caller.keys), *((held.subject, agent_keys(caller, held)) for held in agents)]


def offers(caller: Caller) -> list[Offer]:
    """What others have shared with the caller or its agents, and nobody accepted yet. It is read nowhere else."""
    with caller.workspace.store.snapshot() as snapshot:
        for _, keys in _mine_and_my_agents(caller, Plan(snapshot))[1:]:
            empty_inbox(caller.as_agent(keys))

    def action(plan: Plan) -> list[Offer]:
        found, touched = [], []
        names = accounts.names(caller, plan)
        for principal, keys in _mine_and_my_agents(caller, plan):
            actor = caller if keys is caller.keys else caller.as_agent(keys)
            for held in walk(plan, keys, BLOCKS):
                if held.state != OFFERED:
                    continue
                try:
                    opened = open_block(actor, plan, held)
                    payload, version, _ = opened.payload()
                except (NotFound, Tampered):
                    continue  # gone, or not what it should be: nobody's bad offer may hide the others
                block = block_view(opened, payload, version, agents=False)
                owner = names.get(held.owner, "")
                found.append(Offer(block.id, principal, block.label, block.owner, owner, block.rights))
                touched.append(held.key)
        caller.event(plan, "list", *touched, offers=len(found))
        return found

    return caller.transact(action)


def _offered(caller: Caller, plan: Plan, block_id: str) -> tuple[Keys, Held]:
    for _, keys in _mine_and_my_agents(caller, plan):
        held = find(plan, keys, BLOCKS, block_id)
        if held is not None and held.state == OFFERED:
            return keys, held
    raise missing("Offer", block_id)


def accept(caller: Caller, block_id: str) -> Block:
    """Take an offer: from now on the block is listed, found by label and shown to models."""

    def action(plan: Plan) -> Block:
        caller.must_act()
        keys, held = _offered(caller, plan, block_id)
        actor = caller if keys is caller.keys else caller.as_agent(keys)
        opened = open_block(actor, plan, held)
        payload, version, _ = opened.payload()
        shelf, locator = keys.shelf(BLOCKS), keys.locator(block_id)
        accepted = held.accepted()
        plan.put(SHELF, shelf, locator, held.position, *shelve(keys, shelf, locator, accepted))
        if keys is not caller.keys or caller.id.startswith("agent-"):
            claim_labels(plan, keys)
            no_twins([block for _, block in blocks_of(caller, plan, keys, agents=False)], {block_id})
        caller.event(plan, "accept", held.key, block=block_id)
        return replace(block_view(opened, payload, version, agents=False), offered=False)

    return caller.transact(action)


def decline(caller: Caller, block_id: str) -> None:
    """Take an offer, or an accepted block of somebody else's, off the shelf. The giver's grant stays the giver's."""

    def action(plan: Plan) -> None:
        caller.must_act()
        accepted = find(plan, caller.keys, BLOCKS, block_id)
        if accepted is not None and accepted.state != OFFERED and accepted.leaf:
            keys, held = caller.keys, accepted
        else:
            keys, held = _offered(caller, plan, block_id)
        plan.delete(SHELF, keys.shelf(BLOCKS), keys.locator(block_id))
        caller.event(plan, "decline", held.key, block=block_id)

    caller.transact(action)


# -- the matrix -------------------------------------------------------------------------------------------------


def access(caller: Caller) -> list[Access]:
    """Principals × blocks: who holds what on the blocks that the caller may know the grants of."""

    def action(plan: Plan) -> list[Access]:
        names = accounts.names(caller, plan)
        for held in [] if caller.id.startswith("agent-") else walk(plan, caller.keys, AGENTS):
            names[held.subject] = view(caller, plan, held, with_blocks=False).name
        cells, touched = [], []
        for held in walk(plan, caller.keys, BLOCKS):
            if held.state == OFFERED:
                continue
            try:
                opened = open_block(caller, plan, held)
                label = opened.payload()[0]["label"]
            except NotFound:
                continue
            touched.append(held.key)
            cells.append(Access(held.owner, names.get(held.owner, ""), held.block, label, "owner"))
            own = held.own_leaf
            for leaf in opened.grants():
                if own is None or own.grant in (leaf.grant, leaf.parent):
                    can = _grant(leaf, "").can
                    if opened.head.settings["read_only"] and leaf.recipient.startswith("agent-"):
                        can = "read"  # design §7.10: whatever it was granted
                    name = names.get(leaf.recipient, "")
                    cells.append(Access(leaf.recipient, name, held.block, label, can))
        caller.event(plan, "list", *touched, access=len(cells))
        return cells

    return caller.transact(action)
