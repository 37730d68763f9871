"""Agents: principals that a user sponsors, each with a state block and a shelf of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any

from tallystone.errors import NotFound
from tallystone.keystore import DELETED
from tallystone.statements import READ
from tallystone.store.tables import IDENTITY, INBOX, SHELF, TOKEN
from tallystone.vault.attaching import (
    RIGHTS,
    no_twins,
    note_placed,
    place,
    placed,
    unplace,
    users_only,
    view,
    view_and_keys,
)
from tallystone.vault.blocks import new_block, remove
from tallystone.vault.caller import Caller
from tallystone.vault.entering import open_block
from tallystone.vault.mail import contact_of, mailbox
from tallystone.vault.passages import find_block
from tallystone.vault.plan import Plan
from tallystone.vault.principals import amend, nested, new_principal
from tallystone.vault.reading import page
from tallystone.vault.records import OFFERED, Held
from tallystone.vault.shelves import AGENTS, BLOCKS, ROLES, SELF, agent_keys, find, find_agent, slot_of, walk
from tallystone.vault.threads import forget_everything
from tallystone.vault.tool_copies import hold
from tallystone.vault.types import Agent
from tallystone.vault.writing import FirstGrant, add_version, create_block, deletion, destroy, doom


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
        users_only(caller)
        me = caller.identity(plan, caller.id)
        sponsor = (caller.id, me.digest, caller.signer(plan))
        identity, keys = new_principal(plan, caller.workspace.id, "agent", caller.keys.root.pin, sponsor)
        keys = nested(caller.workspace, keys)
        plan.begins(identity.id, *(keys.shelf(kind) for kind in (BLOCKS, ROLES, SELF)))
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
        hold(caller, plan, keys, (), state.get("tools", ()))
        touched = [held.key]
        for block_id in dict.fromkeys(block_ids):
            touched.append(place(caller, plan, block_id, FirstGrant(identity, keys, RIGHTS[access])))
        for fields in memory_blocks:
            made = new_block(caller, plan, fields, [FirstGrant(identity, keys, RIGHTS["write"])])
            note_placed(plan, made.block, 1)
            touched.append(made.key)
        agent = view(caller, plan, held)
        no_twins(agent.blocks, {block.id for block in agent.blocks})
        caller.event(plan, "create", *touched, agent=identity.id, **placed(plan))
        return agent

    return caller.transact(action)


def read_agent(caller: Caller, agent_id: str, with_blocks: bool) -> Agent:
    """The agent and the blocks it sees: one leaf, with an entry for each."""

    def action(plan: Plan) -> Agent:
        held = find_agent(caller, plan, agent_id)
        agent, touched = view_and_keys(caller, plan, held, with_blocks=with_blocks)
        caller.event(plan, "read", *touched, agent=agent_id)
        return agent

    return caller.transact(action)


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
            try:
                agent, keys = view_and_keys(caller, plan, held, with_blocks=with_blocks)
            except NotFound:
                continue  # ended, before a backup with it was restored
            if where is None or where(agent):
                found.append(agent)
                touched.extend(keys)
        caller.event(plan, "list", *touched, agents=len(found))
        return found[::-1] if backwards else found

    return caller.transact(action)


def edit_agent(caller: Caller, agent_id: str, edit: Callable[[Agent], Mapping[str, Any]]) -> Agent:
    """Change an agent's state and, with `block_ids`, the whole set of its blocks."""

    def action(plan: Plan) -> Agent:
        caller.must_act()
        users_only(caller)
        held = find_agent(caller, plan, agent_id)
        current = view(caller, plan, held)
        changes = dict(edit(current))
        wanted = changes.pop("block_ids", None)
        change_state(caller, plan, held, lambda _: changes)
        touched = [held.key]
        if wanted is not None:
            have = [block.id for block in current.blocks]
            for block_id in have:
                if block_id not in wanted:
                    touched.append(unplace(caller, plan, held, block_id))
            keys = agent_keys(caller, held, plan)
            for block_id in dict.fromkeys(wanted):
                if block_id not in have:
                    grant = FirstGrant(caller.identity(plan, agent_id), keys, RIGHTS["write"])
                    touched.append(place(caller, plan, block_id, grant))
        agent = view(caller, plan, held)
        no_twins(agent.blocks, set(wanted or ()).difference(block.id for block in current.blocks))
        caller.event(plan, "update", *touched, agent=agent_id, fields=sorted(changes), **placed(plan))
        return agent

    return caller.transact(action, lock=agent_id)


def change_state(
    caller: Caller, plan: Plan, held: Held, change: Callable[[Mapping[str, Any]], Mapping[str, Any]]
) -> None:
    """Queue a change of an agent's state, and of what it holds of the tools that come or go with it."""
    opened = open_block(caller, plan, held, what="Agent", shown=held.subject)
    payload, _, digest = opened.payload()
    before: Mapping[str, Any] = payload["state"]
    changes = change(before)
    if any(before.get(name) != value for name, value in changes.items()):
        after = {**before, **changes}
        hold(caller, plan, agent_keys(caller, held, plan), before.get("tools", ()), after.get("tools", ()))
        add_version(opened, {**payload, "state": after}, digest, opened.standing())


def delete_agent(caller: Caller, agent_id: str) -> None:
    """End an agent: its grants, tokens, shelf and private blocks go; its record stays, so that what it signed does."""

    def action(plan: Plan) -> None:
        caller.must_act()
        users_only(caller)
        end_agent(caller, plan, find_agent(caller, plan, agent_id))

    caller.transact(action, lock=agent_id)


def end_agent(caller: Caller, plan: Plan, held: Held) -> None:
    """Queue the end of an agent of the caller's, with its event."""
    agent_id = held.subject
    opened = open_block(caller, plan, held, what="Agent", shown=agent_id)
    keys = agent_keys(caller, held, plan)
    touched = [held.key]
    for there in list(walk(plan, keys, BLOCKS)):
        mine = find(plan, caller.keys, BLOCKS, there.block)
        if mine is not None and mine.own_leaf is None and _private(caller, plan, mine, agent_id):
            touched.append(mine.key)
            remove(caller, plan, mine)
        elif there.own_leaf is None and there.state != OFFERED:
            touched.append(there.key)
            with suppress(NotFound):  # its own: nobody else could ever end it
                destroy(plan, open_block(caller.as_agent(keys), plan, there))
        elif there.state != OFFERED:
            touched.append(unplace(caller, plan, held, there.block))
    contact = contact_of(caller, plan, keys)
    if contact is not None:
        with suppress(NotFound):  # expired, or handed over
            remove(caller, plan, contact)
    forget_everything(plan, keys)
    for shelf in (BLOCKS, ROLES, SELF):
        plan.clear(SHELF, keys.shelf(shelf))
    plan.clear(INBOX, agent_id)
    plan.clear(INBOX, mailbox(agent_id))
    for row in plan.rows(TOKEN):
        if row[2] == agent_id:
            plan.delete(TOKEN, str(row[1]))
    plan.delete(IDENTITY, agent_id)
    statement = deletion(opened)
    destroy(plan, opened)
    plan.delete(SHELF, caller.keys.shelf(AGENTS), caller.keys.locator(agent_id))
    doom(plan, slot_of(held), caller.workspace.today())
    amend(caller, plan, agent_id, status=DELETED)
    caller.event(plan, "delete", *touched, agent=agent_id, statement=statement)


def shown(caller: Caller, plan: Plan, held: Iterable[Held], *, with_blocks: bool = True) -> Iterator[Agent]:
    """The agents of these shelf rows; none for one that ended before a backup with it was restored."""
    for one in held:
        with suppress(NotFound):
            yield view(caller, plan, one, with_blocks=with_blocks)


def _private(caller: Caller, plan: Plan, mine: Held, agent_id: str) -> bool:
    """Whether a block was made for this agent and nobody else holds a grant."""
    if mine.subject != agent_id:
        return False
    try:
        opened = open_block(caller, plan, mine)
    except NotFound:  # expired, or gone with everything: only the shelf rows are left
        return False
    return all(leaf.recipient == agent_id for leaf in opened.grants())


def block_agents(
    caller: Caller, block_id: str, *, after: str | None, before: str | None, limit: int | None, reverse: bool
) -> list[Agent]:
    """The agents that hold a block, as far as the caller may see them, in the order of the caller's shelf."""

    def action(plan: Plan) -> list[Agent]:
        held = find_block(caller, plan, block_id)
        holders = {leaf.recipient for leaf in open_block(caller, plan, held).grants()}
        shelf_name = SELF if caller.id.startswith("agent-") else AGENTS
        shelf, backwards = page(plan, caller.keys, shelf_name, after=after, before=before, reverse=reverse)
        mine = (one for one in shelf if one.subject in holders)
        agents = list(islice(shown(caller, plan, mine), limit))
        caller.event(plan, "list", held.key, block=block_id, agents=len(agents))
        return agents[::-1] if backwards else agents

    return caller.transact(action)
