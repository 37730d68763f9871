"""What others give uninvited: listed apart, and part of nothing until it is accepted (design §6)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from tallystone.errors import NotFound, Tampered
from tallystone.keystore import Keys
from tallystone.store.tables import SHELF
from tallystone.vault import directory
from tallystone.vault.attaching import blocks_of, claim_labels, no_twins
from tallystone.vault.caller import Caller, KeysChanged
from tallystone.vault.capsules import empty_inbox
from tallystone.vault.entering import open_block
from tallystone.vault.granting import word
from tallystone.vault.levels import trusts_members
from tallystone.vault.opening import missing
from tallystone.vault.passages import reached
from tallystone.vault.plan import WS, Plan
from tallystone.vault.records import OFFERED, Held
from tallystone.vault.sharing import accept_transfer
from tallystone.vault.shelves import AGENTS, BLOCKS, ROLES, agent_keys, find, walk
from tallystone.vault.types import Block, Offer
from tallystone.vault.views import block_view
from tallystone.vault.writing import put_on_shelf


def _mine(caller: Caller, plan: Plan) -> Iterator[tuple[str, Keys]]:
    """Those whose offers the caller answers: itself, its agents, the roles that it owns."""
    yield caller.id, caller.keys
    if caller.id.startswith("agent-"):
        return
    for held in walk(plan, caller.keys, AGENTS):
        yield held.subject, agent_keys(caller, held)
    for role in reached(caller, plan):
        if role.way[0].opened.held.own_leaf is None:
            yield role.role, role.keys


def collect_all(caller: Caller) -> None:
    """Open the mail of the caller's agents and roles; its own is opened before."""
    if not caller.keys.can_act:
        return
    with caller.workspace.store.snapshot() as snapshot:
        others = [keys for principal, keys in _mine(caller, Plan(snapshot)) if principal != caller.id]
    for keys in others:
        empty_inbox(caller.as_agent(keys))


def collect_trusted(caller: Caller) -> None:
    """Open the mail of the roles that the caller is in, where the charter lets members trust each other: nobody has to
    accept it, so nobody but a member would."""
    if not caller.keys.can_act:
        return
    with caller.workspace.store.snapshot() as snapshot:
        plan = Plan(snapshot)
        if not snapshot.scan(SHELF, (WS, caller.keys.shelf(ROLES)), limit=1) or not trusts_members(
            caller, plan
        ):
            return
        others = [role.keys for role in reached(caller, plan)]
    for keys in others:
        empty_inbox(caller.as_agent(keys))


def offers(caller: Caller) -> list[Offer]:
    """What others have given the caller, its agents or its roles, and nobody accepted yet. It is read nowhere else."""
    collect_all(caller)

    def action(plan: Plan) -> list[Offer]:
        known = directory.names(caller, plan)
        found: list[Offer] = []
        touched: list[bytes] = []
        for principal, keys in _mine(caller, plan):
            actor = caller if keys is caller.keys else caller.as_agent(keys)
            for shelf in (BLOCKS, ROLES):
                for held in walk(plan, keys, shelf):
                    offer = _offer(actor, plan, held, principal, known.get(held.owner))
                    if offer is not None:
                        found.append(offer)
                        touched.append(held.key)
        caller.event(plan, "list", *touched, offers=len(found))
        return found

    return caller.transact(action)


def _offer(actor: Caller, plan: Plan, held: Held, principal: str, owner_name: str) -> Offer | None:
    """What waits behind a shelf row, if anything does."""
    if held.state != OFFERED and (held.own_leaf is None or not held.admin):
        return None  # only who holds the admin key can be somebody's heir
    try:
        opened = open_block(actor, plan, held)
        payload, _, _ = opened.payload()
    except (NotFound, Tampered, KeysChanged):
        return None  # gone, or not what it should be: nobody's bad offer may hide the others
    leaf = held.own_leaf
    can = word(leaf.rights) if leaf is not None else "owner"
    if held.kind == "role":
        return Offer(held.subject, principal, payload["name"], held.owner, owner_name, "read", "role")
    if opened.head.settings.get("transfer") == [principal]:
        return Offer(held.block, principal, payload["label"], held.owner, owner_name, "owner", "transfer")
    if held.state != OFFERED:
        return None
    return Offer(held.block, principal, payload["label"], held.owner, owner_name, can)


def _offered(caller: Caller, plan: Plan, wanted: str) -> tuple[str, Keys, Held]:
    shelf = ROLES if wanted.startswith("role-") else BLOCKS
    for _, keys in _mine(caller, plan):
        held = find(plan, keys, shelf, wanted)
        if held is not None and held.state == OFFERED:
            return shelf, keys, held
    raise missing("Offer", wanted)


def accept(caller: Caller, wanted: str) -> Block | None:
    """Take an offer: from now on the block is listed, found by label and shown to models; a block that is handed over
    is the caller's. For a role's id, membership is taken, and there is no block to return."""
    collect_all(caller)
    if _is_transfer(caller, wanted):
        return accept_transfer(caller, wanted)

    def action(plan: Plan) -> Block | None:
        caller.must_act()
        shelf, keys, held = _offered(caller, plan, wanted)
        actor = caller if keys is caller.keys else caller.as_agent(keys)
        opened = open_block(actor, plan, held)
        payload, version, _ = opened.payload()
        put_on_shelf(plan, keys, shelf, wanted, held.accepted())
        caller.event(plan, "accept", held.key, block=held.block)
        if shelf == ROLES:
            return None
        if keys is not caller.keys or caller.id.startswith("agent-"):
            claim_labels(plan, keys)
            no_twins([block for _, block in blocks_of(caller, plan, keys, agents=False)], {wanted})
        return replace(block_view(opened, payload, version, agents=False), offered=False)

    return caller.transact(action)


def _is_transfer(caller: Caller, wanted: str) -> bool:
    with caller.workspace.store.snapshot() as snapshot:
        plan = Plan(snapshot)
        held = find(plan, caller.keys, BLOCKS, wanted)
        offer = _offer(caller, plan, held, caller.id, "") if held is not None else None
        return offer is not None and offer.kind == "transfer"


def decline(caller: Caller, wanted: str) -> None:
    """Take an offer, or an accepted block or role of somebody else's, off the shelf. The giver's grant stays the
    giver's."""

    def action(plan: Plan) -> None:
        caller.must_act()
        shelf, keys = ROLES if wanted.startswith("role-") else BLOCKS, caller.keys
        accepted = find(plan, keys, shelf, wanted)
        if accepted is not None and accepted.state != OFFERED and accepted.leaf:
            held = accepted
        else:
            shelf, keys, held = _offered(caller, plan, wanted)
        plan.delete(SHELF, keys.shelf(shelf), keys.locator(wanted))
        caller.event(plan, "decline", held.key, block=held.block)

    caller.transact(action)
