"""Agents: principals that a user sponsors, each with a state block and a shelf of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

from tallystone.errors import Denied, NotFound, Taken, Tampered
from tallystone.keystore import Keys
from tallystone.policy import may_write
from tallystone.statements import READ, WRITE, issue
from tallystone.store.tables import IDENTITY, INBOX, SHELF, TOKEN
from tallystone.vault.blocks import Edit, edit_opened, look, new_block, page, remove
from tallystone.vault.caller import Caller
from tallystone.vault.opening import missing, open_block
from tallystone.vault.plan import Plan
from tallystone.vault.principals import new_principal, put_principal
from tallystone.vault.records import OFFERED, Held
from tallystone.vault.shelves import AGENTS, BLOCKS, SELF, agent_keys, find, find_agent, find_block, walk
from tallystone.vault.types import Agent, Block
from tallystone.vault.views import agent_ids, agent_view
from tallystone.vault.writing import (
    FirstGrant,
    add_version,
    create_block,
    destroy,
    place_with_agent,
    remove_grants,
    rotate_if_due,
    subtree,
)

RIGHTS = {"read": READ, "write": READ | WRITE}


def create_agent(
    caller: Caller,
    state: Mapping[str, Any],
    block_ids: Sequence[str],
    memory_blocks: Sequence[Mapping[str, Any]],
    access: str,
) -> Agent:
    """Make an agent with its blocks, all or nothing: first those that exist, then new private ones of its sponsor's."""

    def action(plan: Plan) -> Agent:
        caller.must_act()
        _users_only(caller)
        me = caller.identity(plan, caller.id)
        sponsor = (caller.id, me.digest, caller.signing_seed(plan))
        identity, keys = new_principal(plan, caller.workspace.id, "agent", caller.keys.root.pin, sponsor)
        held = create_block(
            caller,
            plan,
            kind="agent",
            payload={"state": dict(state), "created": caller.workspace.now_ms()},
            settings={"limit": 0, "read_only": False, "locked": False},
            subject=identity.id,
            grants=[FirstGrant(identity, keys, READ, SELF)],
            shelf=AGENTS,
            locator_of=identity.id,
            root=keys.root,
        )
        touched = [held.key]
        for block_id in dict.fromkeys(block_ids):
            touched.append(place(caller, plan, block_id, FirstGrant(identity, keys, RIGHTS[access])))
        for fields in memory_blocks:
            touched.append(new_block(caller, plan, fields, [FirstGrant(identity, keys, RIGHTS["write"])]).key)
        agent = view(caller, plan, held)
        no_twins(agent.blocks)
        caller.event(plan, "create", *touched, agent=identity.id)
        return agent

    return caller.transact(action)


def _users_only(caller: Caller) -> None:
    if caller.id.startswith("agent-"):
        raise Denied("an agent manages no agents", hint="use its user's token", code="agent_token")


def no_twins(blocks: Sequence[Block]) -> None:
    """Raises `Taken` if two blocks of one agent have one label: by-label access would be ambiguous."""
    labels = [block.label for block in blocks]
    twins = sorted({label for label in labels if labels.count(label) > 1})
    if twins:
        raise Taken(
            f"the agent would have two blocks labelled {twins[0]!r}",
            hint="labels are unique within an agent; rename one of them",
            code="label_taken",
        )


def place(caller: Caller, plan: Plan, block_id: str, agent: FirstGrant) -> bytes:
    """Queue a grant of one of the caller's blocks to its agent. Returns the K_grant that the event is filed under.

    Raises `Denied` when the caller holds less than it would give.
    """
    caller.must_act()
    held = find_block(plan, caller.keys, block_id)
    opened = open_block(caller, plan, held)
    own = held.own_leaf
    if (
        own is not None
        and agent.rights & WRITE
        and not may_write(opened.head, opened.standing(), caller.workspace.now() // 86400)
    ):
        agent = FirstGrant(
            agent.identity, agent.keys, READ, agent.shelf
        )  # clamped: never more than the giver has
    rotate_if_due(opened)
    place_with_agent(opened, agent)
    return held.key


def blocks_of(
    caller: Caller, plan: Plan, keys: Keys, *, shelf: Iterator[Held] | None = None
) -> Iterator[tuple[Held, Block]]:
    """The blocks on an agent's shelf, in the order they were attached, as the agent's caller sees them."""
    agent = caller if keys is caller.keys else caller.as_agent(keys)
    for held in walk(plan, keys, BLOCKS) if shelf is None else shelf:
        if held.state == OFFERED:
            continue
        try:
            block = look(agent, plan, held, agents=False)
            yield held, with_agents(caller, plan, held, block)
        except NotFound:
            continue


def with_agents(caller: Caller, plan: Plan, held: Held, block: Block) -> Block:
    """The block with `agent_ids` as the caller may know them: in full when it is on its own shelf as well."""
    mine = find(plan, caller.keys, BLOCKS, held.block)
    if mine is None or mine.state == OFFERED or mine.storage != held.storage:
        me = held.own_leaf
        return replace(block, agent_ids=[me.recipient] if me else [])
    opened = open_block(caller, plan, mine)
    return replace(block, agent_ids=agent_ids(opened))


def view(caller: Caller, plan: Plan, held: Held, *, with_blocks: bool = True) -> Agent:
    """An agent with its blocks."""
    opened = open_block(caller, plan, held, what="Agent", shown=held.subject)
    payload, version, _ = opened.payload()
    if opened.genesis().subject != held.subject:
        raise Tampered("an agent's state belongs to another agent")
    blocks = [b for _, b in blocks_of(caller, plan, agent_keys(caller, held))] if with_blocks else []
    return agent_view(opened, payload, version, blocks)


def read_agent(caller: Caller, agent_id: str) -> Agent:
    """The agent and the blocks it sees: one leaf, with an entry for each."""

    def action(plan: Plan) -> Agent:
        held = find_agent(caller, plan, agent_id)
        agent = view(caller, plan, held)
        caller.event(plan, "read", held.key, *_keys_of(caller, plan, held), agent=agent_id)
        return agent

    return caller.transact(action)


def _keys_of(caller: Caller, plan: Plan, held: Held) -> list[bytes]:
    return [h.key for h in walk(plan, agent_keys(caller, held), BLOCKS) if h.state != OFFERED]


def list_agents(
    caller: Caller,
    *,
    after: str | None,
    before: str | None,
    limit: int | None,
    reverse: bool,
    where: Callable[[Agent], bool] | None,
    with_blocks: bool,
) -> list[Agent]:
    """A page of the caller's agents; an agent sees itself."""

    def action(plan: Plan) -> list[Agent]:
        shelf_name = SELF if caller.id.startswith("agent-") else AGENTS
        shelf, backwards = page(plan, caller.keys, shelf_name, after=after, before=before, reverse=reverse)
        found: list[Agent] = []
        touched: list[bytes] = []
        for held in shelf:
            if limit is not None and len(found) >= limit:
                break
            agent = view(caller, plan, held, with_blocks=with_blocks)
            if where is None or where(agent):
                found.append(agent)
                touched.append(held.key)
                touched.extend(_keys_of(caller, plan, held) if with_blocks else [])
        caller.event(plan, "list", *touched, agents=len(found))
        return found[::-1] if backwards else found

    return caller.transact(action)


def edit_agent(caller: Caller, agent_id: str, edit: Callable[[Agent], Mapping[str, Any]]) -> Agent:
    """Change an agent's state and, with `block_ids`, the whole set of its blocks."""

    def action(plan: Plan) -> Agent:
        caller.must_act()
        _users_only(caller)
        held = find_agent(caller, plan, agent_id)
        current = view(caller, plan, held)
        changes = dict(edit(current))
        wanted = changes.pop("block_ids", None)
        opened = open_block(caller, plan, held, what="Agent", shown=agent_id)
        if any(current.state.get(name) != value for name, value in changes.items()):
            payload, _, digest = opened.payload()
            payload = {**payload, "state": {**payload["state"], **changes}}
            add_version(opened, payload, digest, opened.standing())
        touched = [held.key]
        if wanted is not None:
            have = [block.id for block in current.blocks]
            for block_id in have:
                if block_id not in wanted:
                    touched.append(unplace(caller, plan, held, block_id))
            keys = agent_keys(caller, held)
            for block_id in dict.fromkeys(wanted):
                if block_id not in have:
                    grant = FirstGrant(caller.identity(plan, agent_id), keys, RIGHTS["write"])
                    touched.append(place(caller, plan, block_id, grant))
        agent = view(caller, plan, held)
        no_twins(agent.blocks)
        caller.event(plan, "update", *touched, agent=agent_id, fields=sorted(changes))
        return agent

    return caller.transact(action, lock=agent_id)


def attach(caller: Caller, agent_id: str, block_id: str, can: str) -> Agent:
    """Give one of the caller's agents a block. Attaching again with the same right changes nothing."""

    def action(plan: Plan) -> Agent:
        _users_only(caller)
        held = find_agent(caller, plan, agent_id)
        keys = agent_keys(caller, held)
        mine = find_block(plan, caller.keys, block_id)
        open_block(caller, plan, mine)
        there = find(plan, keys, BLOCKS, block_id)
        leaf = there.own_leaf if there is not None and there.state != OFFERED else None
        touched = mine.key
        if (
            there is not None
            and leaf is not None
            and leaf.rights == RIGHTS[can]
            and _alive(caller, plan, keys, there)
        ):
            caller.event(plan, "read", touched, agent=agent_id, block=block_id)
            return view(caller, plan, held)
        if there is not None and leaf is not None and _alive(caller, plan, keys, there):
            unplace(caller, plan, held, block_id)
        grant = FirstGrant(caller.identity(plan, agent_id), keys, RIGHTS[can])
        place(caller, plan, block_id, grant)
        agent = view(caller, plan, held)
        no_twins(agent.blocks)
        caller.event(plan, "attach", held.key, touched, agent=agent_id, block=block_id, can=can)
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
        _users_only(caller)
        caller.must_act()
        held = find_agent(caller, plan, agent_id)
        touched = unplace(caller, plan, held, block_id)
        agent = view(caller, plan, held)
        caller.event(plan, "detach", held.key, touched, agent=agent_id, block=block_id)
        return agent

    return caller.transact(action, lock=block_id)


def unplace(caller: Caller, plan: Plan, agent: Held, block_id: str) -> bytes:
    """Queue the end of an agent's grant. Returns the K_grant to file the event under. Raises the uniform miss."""
    keys = agent_keys(caller, agent)
    there = find(plan, keys, BLOCKS, block_id)
    if there is None or there.state == OFFERED:
        raise missing("Block", block_id)
    plan.delete(SHELF, keys.shelf(BLOCKS), keys.locator(block_id))
    mine = find(plan, caller.keys, BLOCKS, block_id)
    leaf = there.own_leaf
    if mine is None or leaf is None or mine.storage != there.storage:
        return (
            there.key
        )  # given to the agent by somebody else: it leaves the shelf, the giver's grant is the giver's
    try:
        opened = open_block(caller, plan, mine)
    except NotFound:
        return there.key
    own = mine.own_leaf
    gone = subtree(opened.grants(), leaf.grant)
    if gone and (own is None or leaf.parent == own.grant):
        remove_grants(opened, gone)
    return mine.key


def delete_agent(caller: Caller, agent_id: str) -> None:
    """End an agent: its grants, tokens, shelf and private blocks go; its record stays, so that what it signed does."""

    def action(plan: Plan) -> None:
        caller.must_act()
        _users_only(caller)
        held = find_agent(caller, plan, agent_id)
        opened = open_block(caller, plan, held, what="Agent", shown=agent_id)
        keys = agent_keys(caller, held)
        touched = [held.key]
        for there in list(walk(plan, keys, BLOCKS)):
            mine = find(plan, caller.keys, BLOCKS, there.block)
            if mine is not None and mine.own_leaf is None and _private(caller, plan, mine, agent_id):
                touched.append(mine.key)
                remove(caller, plan, mine)
            elif there.state != OFFERED:
                touched.append(unplace(caller, plan, held, there.block))
        for shelf in (BLOCKS, SELF):
            plan.clear(SHELF, keys.shelf(shelf))
        plan.clear(INBOX, agent_id)
        for row in plan.rows(TOKEN):
            if row[2] == agent_id:
                plan.delete(TOKEN, str(row[1]))
        plan.delete(IDENTITY, agent_id)
        statement = opened.deletion()
        destroy(plan, opened)
        plan.delete(SHELF, caller.keys.shelf(AGENTS), caller.keys.locator(agent_id))
        _end_record(caller, plan, agent_id)
        caller.event(plan, "delete", *touched, agent=agent_id, statement=statement)

    caller.transact(action, lock=agent_id)


def _private(caller: Caller, plan: Plan, mine: Held, agent_id: str) -> bool:
    """Whether a block was made for this agent and nobody else holds a grant."""
    if mine.subject != agent_id:
        return False
    opened = open_block(caller, plan, mine)
    return all(leaf.recipient == agent_id for leaf in opened.grants())


def _end_record(caller: Caller, plan: Plan, agent_id: str) -> None:
    identity = caller.identity(plan, agent_id)
    record = replace(
        identity.record,
        id=agent_id,
        serial=identity.record.serial + 1,
        previous=identity.digest,
        status="deleted",
    )
    me = caller.identity(plan, caller.id)
    signers = [(me.digest, caller.signing_seed(plan))]
    put_principal(
        plan, agent_id, record.serial, issue("principal", caller.workspace.id, record.encode(), signers)
    )


# -- by label ---------------------------------------------------------------------------------------------------


def by_label(caller: Caller, plan: Plan, held: Held, label: str) -> tuple[Held, Block]:
    """The agent's block with this label. Raises the miss that names the label, which the caller gave."""
    for there, block in blocks_of(caller, plan, agent_keys(caller, held)):
        if block.label == label:
            return there, block
    raise NotFound(
        f"no block labelled {label!r} on agent {held.subject}", hint="list its blocks to see the labels"
    )


def agent_blocks(
    caller: Caller, agent_id: str, *, after: str | None, before: str | None, limit: int | None, reverse: bool
) -> list[Block]:
    """A page of the blocks that an agent sees."""

    def action(plan: Plan) -> list[Block]:
        held = find_agent(caller, plan, agent_id)
        open_block(caller, plan, held, what="Agent", shown=agent_id)
        keys = agent_keys(caller, held)
        shelf, backwards = page(plan, keys, BLOCKS, after=after, before=before, reverse=reverse)
        found = list(islice(blocks_of(caller, plan, keys, shelf=shelf), limit))
        caller.event(plan, "list", held.key, *(there.key for there, _ in found), agent=agent_id)
        blocks = [block for _, block in found]
        return blocks[::-1] if backwards else blocks

    return caller.transact(action)


def read_by_label(caller: Caller, agent_id: str, label: str) -> Block:
    """One block of an agent, by its label."""

    def action(plan: Plan) -> Block:
        there, block = by_label(caller, plan, find_agent(caller, plan, agent_id), label)
        caller.event(plan, "read", there.key, block=block.id, agent=agent_id, version=block.version)
        return block

    return caller.transact(action)


def edit_by_label(
    caller: Caller, agent_id: str, label: str, edit: Edit, *, as_agent: bool, if_version: int | None
) -> Block:
    """Edit an agent's block, as the agent (memory tools), or as the caller where it holds the block itself."""
    with caller.workspace.store.snapshot() as snapshot:
        plan = Plan(snapshot)
        try:
            target = by_label(caller, plan, find_agent(caller, plan, agent_id), label)[1].id
        except NotFound as error:
            caller.refused(error)
            raise

    def action(plan: Plan) -> Block:
        agent = find_agent(caller, plan, agent_id)
        keys = agent_keys(caller, agent)
        there = find(plan, keys, BLOCKS, target)
        if there is None or there.state == OFFERED:
            raise NotFound(f"no block labelled {label!r} on agent {agent_id}")
        actor, held = (caller if keys is caller.keys else caller.as_agent(keys)), there
        if not as_agent:
            mine = find(plan, caller.keys, BLOCKS, target)
            if mine is not None and mine.state != OFFERED and mine.storage == there.storage:
                actor, held = caller, mine
        block, changed = edit_opened(open_block(actor, plan, held), edit, if_version)
        if "label" in changed:
            twins = [b.label for h, b in blocks_of(caller, plan, keys) if h.block != target]
            if block.label in twins:
                raise Taken(
                    f"the agent has a block labelled {block.label!r} already",
                    hint="choose another",
                    code="label_taken",
                )
        kind = "update" if changed else "read"
        actor.event(plan, kind, held.key, block=target, agent=agent_id, version=block.version, fields=changed)
        return with_agents(caller, plan, there, block)

    return caller.transact(action, lock=target)


def block_agents(
    caller: Caller, block_id: str, *, after: str | None, before: str | None, limit: int | None, reverse: bool
) -> list[Agent]:
    """The agents that hold a block, as far as the caller may see them, in the order of the caller's shelf."""

    def action(plan: Plan) -> list[Agent]:
        held = find_block(plan, caller.keys, block_id)
        holders = {leaf.recipient for leaf in open_block(caller, plan, held).grants()}
        shelf_name = SELF if caller.id.startswith("agent-") else AGENTS
        shelf, backwards = page(plan, caller.keys, shelf_name, after=after, before=before, reverse=reverse)
        mine = islice((one for one in shelf if one.subject in holders), limit)
        agents = [view(caller, plan, one) for one in mine]
        caller.event(plan, "list", held.key, block=block_id, agents=len(agents))
        return agents[::-1] if backwards else agents

    return caller.transact(action)
