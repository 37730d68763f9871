"""Placing blocks with agents, taking them back, and what an agent then sees."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import Any

from tallystone import policy
from tallystone.errors import Denied, Invalid, NotFound, Taken, Tampered
from tallystone.keystore import Keys
from tallystone.statements import READ, SHARE, WRITE, Leaf
from tallystone.store.tables import SHELF
from tallystone.vault.blocks import look
from tallystone.vault.caller import Caller, KeysChanged
from tallystone.vault.entering import open_block
from tallystone.vault.external import copies
from tallystone.vault.granting import Terms, check_terms, current, grant_to
from tallystone.vault.opening import Opened, missing
from tallystone.vault.passages import find_block, lookup, walk_blocks
from tallystone.vault.plan import Plan
from tallystone.vault.records import OFFERED, Held
from tallystone.vault.rotating import endable, remove_grants, rotate_if_due, subtree
from tallystone.vault.runs import awaited_message, latest_run
from tallystone.vault.shelves import AGENTS, BLOCKS, SELF, agent_keys, find, find_agent
from tallystone.vault.types import Agent, Block
from tallystone.vault.views import agent_view
from tallystone.vault.writing import FirstGrant, hand_over, put_on_shelf

RIGHTS = {"read": READ, "write": READ | WRITE}


def users_only(caller: Caller) -> None:
    """Raises `Denied` for an agent: agents have no agents."""
    if caller.id.startswith("agent-"):
        raise Denied("an agent manages no agents", hint="use its user's token", code="agent_token")


def no_twins(blocks: Sequence[Block], fresh: Collection[str]) -> None:
    """Raises `Taken` if a block that is new on an agent, or newly named, has the label of another one there."""
    for block in blocks:
        if block.id in fresh and any(one.label == block.label and one.id != block.id for one in blocks):
            raise Taken(
                f"the agent has a block labelled {block.label!r} already",
                hint="labels are unique within an agent; rename one of them",
                code="label_taken",
            )


def claim_labels(plan: Plan, keys: Keys) -> None:
    """Queue the agent's own shelf row, sealed anew: of two changes to the set of its labels, one runs again."""
    own = find(plan, keys, SELF, keys.principal)
    if own is not None:
        put_on_shelf(plan, keys, SELF, keys.principal, own)


def labels_stay_unique(opened: Opened, viewer: Caller) -> None:
    """Raises `Taken` if a block's new label is taken on an agent that holds it and that the caller sponsors, or is."""
    plan = opened.plan
    for leaf in opened.grants():
        held = find(plan, viewer.keys, AGENTS, leaf.recipient)
        if held is None and leaf.recipient != viewer.id:
            continue
        keys = agent_keys(viewer, held, plan) if held is not None else viewer.keys
        claim_labels(plan, keys)
        no_twins([block for _, block in blocks_of(viewer, plan, keys, agents=False)], {opened.id})


def place(caller: Caller, plan: Plan, block_id: str, agent: FirstGrant) -> bytes:
    """Queue a grant of one of the caller's blocks to its agent; never of more than the caller holds itself. Returns
    the K_grant that the event is filed under."""
    caller.must_act()
    held = find_block(caller, plan, block_id)
    opened = open_block(caller, plan, held)
    rotate_if_due(opened)
    claim_labels(plan, agent.keys)
    newest = opened.payload()
    leaf = place_opened(opened, agent)
    caller.workspace.recall.keep(opened, newest)
    hand_over(opened, agent, leaf)
    note_placed(plan, block_id, leaf.grant)
    return held.key


def note_placed(plan: Plan, block_id: str, grant: int) -> None:
    """Remember for the event that a plan gives an agent this block, by the grant of this number."""
    plan.memo.setdefault("placed", {})[block_id] = grant


def placed(plan: Plan) -> dict[str, Any]:
    """What the event of such a plan says of it: the numbers are what a question about a grant begins from."""
    found = plan.memo.get("placed")
    return {"placed": dict(found)} if found else {}


def place_opened(opened: Opened, agent: FirstGrant, until: int | None = None) -> Leaf:
    """Queue the grant itself: on the agent's shelf at once, no capsule, no offer. It ends when the caller's own
    does."""
    own, identity = opened.held.own_leaf, agent.identity
    today = opened.caller.workspace.today()
    if opened.held.via and not policy.rights(opened.head, opened.standing(), today) & SHARE:
        raise Denied(
            "you hold this block through a role",
            hint="have the role's owner add the agent to the role",
            code="through_role",
        )
    if own is not None and own.until is not None:
        until = own.until if until is None else min(until, own.until)
    history = own.history if own is not None else True
    terms = Terms(_clamped(opened, agent.rights), until, 0, history)
    current(opened.caller, opened.plan, identity.id)
    check_terms(opened, terms, opened.caller.party(opened.plan, identity.id, identity.digest))
    return grant_to(opened, identity, terms, keys=agent.keys)


def _clamped(opened: Opened, rights: int) -> int:
    """`rights`, or the less that the caller holds itself."""
    today = opened.caller.workspace.today()
    if opened.held.own_leaf is None or not rights & WRITE:
        return rights
    if policy.may_write(opened.head, opened.standing(), today):
        return rights
    return READ


def blocks_of(
    caller: Caller, plan: Plan, keys: Keys, *, shelf: Iterator[Held] | None = None, agents: bool = True
) -> Iterator[tuple[Held, Block]]:
    """The blocks on an agent's shelf, in the order they were attached, as the agent's caller sees them."""
    agent = caller if keys is caller.keys else caller.as_agent(keys)
    for held in walk_blocks(agent, plan) if shelf is None else shelf:
        if held.state == OFFERED:
            continue
        try:
            yield held, look(agent, plan, held, agents=agents, viewer=caller)
        except NotFound:
            continue  # revoked or deleted since it was put here: as if it had never been
        except KeysChanged:
            if keys.can_act:
                raise
            continue  # a token that only reads cannot take the new keys; asked for by id it is told so


def view_and_keys(
    caller: Caller, plan: Plan, held: Held, *, with_blocks: bool = True
) -> tuple[Agent, list[bytes]]:
    """An agent with its blocks, and the K_grants of what was opened for it: its events are filed under those."""
    opened = open_block(caller, plan, held, what="Agent", shown=held.subject)
    newest = payload, version, _ = opened.payload()
    if opened.held.recalled is None:
        caller.workspace.recall.keep(opened, newest)
    if opened.genesis().subject != held.subject:
        raise Tampered("an agent's state belongs to another agent")
    keys = agent_keys(caller, held, plan)
    external = copies(plan, keys, payload["state"])
    if not with_blocks:
        return agent_view(opened, payload, version, [], external), [held.key]
    found = list(blocks_of(caller, plan, keys))
    agent = replace(
        agent_view(opened, payload, version, [block for _, block in found], external),
        last_run=latest_run(caller, plan, keys),
        awaited=awaited_message(plan, keys),
    )
    return agent, [held.key, *(there.key for there, _ in found)]


def view(caller: Caller, plan: Plan, held: Held, *, with_blocks: bool = True) -> Agent:
    """An agent with its blocks."""
    return view_and_keys(caller, plan, held, with_blocks=with_blocks)[0]


def attach(caller: Caller, agent_id: str, block_id: str, can: str) -> Agent:
    """Give one of the caller's agents a block. Attaching again with the same right changes nothing."""

    if can not in RIGHTS:
        raise Invalid(f"unknown right {can!r}", hint="use read or write", code="bad_right")

    def action(plan: Plan) -> Agent:
        users_only(caller)
        held = find_agent(caller, plan, agent_id)
        keys = agent_keys(caller, held, plan)
        mine = find_block(caller, plan, block_id)
        rights = _clamped(open_block(caller, plan, mine), RIGHTS[can])
        there = find(plan, keys, BLOCKS, block_id)
        touched = mine.key
        if there is not None and there.state != OFFERED and _alive(caller, plan, keys, there):
            leaf = there.own_leaf
            if leaf is None or leaf.rights == rights:  # the agent owns it, or holds just this
                caller.event(plan, "read", touched, agent=agent_id, block=block_id)
                return view(caller, plan, held)
            unplace(caller, plan, held, block_id)
        grant = FirstGrant(caller.identity(plan, agent_id), keys, rights)
        place(caller, plan, block_id, grant)
        agent = view(caller, plan, held)
        no_twins(agent.blocks, {block_id})
        number = placed(plan)["placed"][block_id]
        caller.event(plan, "attach", held.key, touched, agent=agent_id, block=block_id, can=can, grant=number)
        return agent

    return caller.transact(action, lock=block_id)


def _alive(caller: Caller, plan: Plan, keys: Keys, held: Held) -> bool:
    try:
        open_block(caller.as_agent(keys), plan, held)
    except NotFound:
        return False
    return True


def detach(caller: Caller, agent_id: str, block_id: str) -> Agent:
    """Take a block from an agent: its grant is revoked and the block's keys change."""

    def action(plan: Plan) -> Agent:
        users_only(caller)
        caller.must_act()
        held = find_agent(caller, plan, agent_id)
        touched = unplace(caller, plan, held, block_id)
        agent = view(caller, plan, held)
        caller.event(plan, "detach", held.key, touched, agent=agent_id, block=block_id)
        return agent

    return caller.transact(action, lock=block_id)


def unplace(caller: Caller, plan: Plan, agent: Held, block_id: str) -> bytes:
    """Queue the end of an agent's grant. Returns the K_grant to file the event under. Raises the uniform miss."""
    keys = agent_keys(caller, agent, plan)
    there = find(plan, keys, BLOCKS, block_id)
    if there is None or there.state == OFFERED:
        if lookup(caller if keys is caller.keys else caller.as_agent(keys), plan, block_id) is not None:
            raise Denied(
                "the agent holds this block through a role",
                hint="take it out of the role",
                code="through_role",
            )
        raise missing("Block", block_id)
    leaf = there.own_leaf
    if leaf is None and _alive(caller, plan, keys, there):
        raise Denied(
            "the agent owns this block", hint="delete the block, or have the agent do it", code="agent_owns"
        )
    plan.delete(SHELF, keys.shelf(BLOCKS), keys.locator(block_id))
    mine = lookup(caller, plan, block_id)
    if mine is None or leaf is None or mine.storage != there.storage:
        return there.key  # somebody else gave it: it leaves the shelf; the grant is the giver's to end
    try:
        opened = open_block(caller, plan, mine)
    except NotFound:
        return there.key
    everything, newest = opened.grants(), opened.payload()
    gone = subtree(everything, leaf.grant)
    if gone and leaf.grant in endable(opened, everything):
        remove_grants(opened, gone)
        caller.workspace.recall.keep(opened, newest)
    return mine.key
