"""An agent's memory: its blocks by label, and changes to several of them at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any

from tallystone.errors import Conflict, NotFound, Taken
from tallystone.keystore import Keys
from tallystone.statements import READ, WRITE
from tallystone.vault.attaching import (
    blocks_of,
    claim_labels,
    labels_stay_unique,
    no_twins,
    note_placed,
    placed,
    unplace,
    users_only,
    view,
)
from tallystone.vault.blocks import Edit, edit_opened, look, new_block
from tallystone.vault.caller import ATTEMPTS, Caller, KeysChanged
from tallystone.vault.entering import is_given, open_block
from tallystone.vault.passages import find_block, lookup, reached
from tallystone.vault.plan import Plan
from tallystone.vault.reading import page_of_blocks
from tallystone.vault.records import OFFERED, Held
from tallystone.vault.rotating import heal
from tallystone.vault.shelves import BLOCKS, agent_keys, find, find_agent, walk
from tallystone.vault.types import Agent, Block
from tallystone.vault.writing import FirstGrant
from tallystone.waiting import PLACE


def by_label(caller: Caller, plan: Plan, held: Held, label: str) -> tuple[Held, Block]:
    """The agent's block with this label. Raises the miss that names the label, which the caller gave.

    Somebody else may give a block of theirs, which the agent holds, a label that the agent has already. It takes
    nothing over: a block of the agent's own side comes first, and between others' the label is ambiguous (`Taken`).
    """
    home, keys = (caller.id, held.owner, held.subject), agent_keys(caller, held, plan)
    known = _by_label_again(caller, plan, keys, label, home)
    if known is not None:
        with suppress(NotFound, KeysChanged):  # then it is asked as ever
            actor = caller if keys is caller.keys else caller.as_agent(keys)
            block = look(actor, plan, known, agents=False, viewer=caller)
            if block.label == label:
                return known, block
    found: list[tuple[Held, Block]] = []
    for there, block in blocks_of(caller, plan, keys, agents=False):
        if block.label == label and there.owner in home:
            return there, block
        if block.label == label:
            found.append((there, block))
    if len(found) > 1:
        raise Taken(
            f"the agent holds {len(found)} blocks labelled {label!r}",
            hint="detach one of them",
            code="label_taken",
        )
    if not found:
        raise NotFound(
            f"no block labelled {label!r} on agent {held.subject}", hint="list its blocks to see the labels"
        )
    return found[0]


def _by_label_again(caller: Caller, plan: Plan, keys: Keys, label: str, home: tuple[str, ...]) -> Held | None:
    """The block that had this label when it was last opened here, if it is of the agent's own side and whatever stands
    before it on the shelf has another one in this view. None if that is not known."""
    actor = caller if keys is caller.keys else caller.as_agent(keys)
    if reached(actor, plan):
        return None
    at = PLACE.get()
    for held in walk(plan, keys, BLOCKS):
        at.tick()
        known = held.recalled
        if held.state == OFFERED:
            continue
        if known is None:
            return None
        if known.is_labelled(label):
            return held if held.owner in home and is_given(caller, plan, known) else None
        if not known.stands(plan):
            return None
    return None


def agent_blocks(
    caller: Caller, agent_id: str, *, after: str | None, before: str | None, limit: int | None, reverse: bool
) -> list[Block]:
    """A page of the blocks that an agent sees."""

    def action(plan: Plan) -> list[Block]:
        held = find_agent(caller, plan, agent_id)
        open_block(caller, plan, held, what="Agent", shown=agent_id)
        keys = agent_keys(caller, held, plan)
        actor = caller if keys is caller.keys else caller.as_agent(keys)
        shelf, backwards = page_of_blocks(actor, plan, after=after, before=before, reverse=reverse)
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


class _Renamed(Exception):
    """The block that was found by its label has another one by now."""


def edit_by_label(
    caller: Caller, agent_id: str, label: str, edit: Edit, *, as_agent: bool, if_version: int | None
) -> Block:
    """Edit an agent's block, as the agent (memory tools), or as the caller where it holds the block itself."""

    def guarded(before: Block) -> Mapping[str, Any]:
        if before.label != label:
            raise _Renamed
        return edit(before)

    collected: set[tuple[str, bytes]] = set()
    for attempt in range(ATTEMPTS):
        try:
            target, known = _resolve(caller, agent_id, label, again=not attempt)
        except KeysChanged as error:
            if not caller.again(error, None, collected):
                raise
            continue
        with suppress(_Renamed):
            return _edit_target(
                caller, agent_id, target, guarded, known, as_agent=as_agent, if_version=if_version
            )
    raise Conflict("the block is renamed too often", hint="try again", code="contended")


def _resolve(caller: Caller, agent_id: str, label: str, *, again: bool) -> tuple[str, dict[Any, Any]]:
    """The id of the agent's block with this label, as it is now, and what was worked out of rows for that (see
    `Plan.once`); a refusal is logged. `again`: or of the block that had it last, for whoever asks that one itself."""
    if caller.views:  # in the view that the edit will go on in, unless it has to wait for others
        plan = caller.views[-1].plan
        aside = plan.beside()  # what it notes and expects is no part of the edit
        aside.known = plan.known
        return _find_id(caller, aside, agent_id, label, again=again), plan.known
    with caller.workspace.store.snapshot() as snapshot:
        plan = Plan(snapshot, caller.workspace.recall.find)
        return _find_id(caller, plan, agent_id, label, again=again), plan.known


def _find_id(caller: Caller, plan: Plan, agent_id: str, label: str, *, again: bool) -> str:
    try:
        agent = find_agent(caller, plan, agent_id)
        known = _had_label(caller, plan, agent, label) if again else None
        return known or by_label(caller, plan, agent, label)[1].id
    except NotFound as error:
        caller.refused(error)
        raise
    finally:
        plan.let_go()


def _had_label(caller: Caller, plan: Plan, agent: Held, label: str) -> str | None:
    keys = agent_keys(caller, agent, plan)
    if keys is not caller.keys:
        caller.as_agent(keys).standing(plan)  # as whoever looks at its blocks is asked
    known = _by_label_again(caller, plan, keys, label, (caller.id, agent.owner, agent.subject))
    return known.block if known is not None else None


def _edit_target(
    caller: Caller,
    agent_id: str,
    target: str,
    edit: Edit,
    known: dict[Any, Any],
    *,
    as_agent: bool,
    if_version: int | None,
) -> Block:
    def action(plan: Plan) -> Block:
        if not plan.known:  # it has a view of its own
            plan.known.update(known)
        agent = find_agent(caller, plan, agent_id)
        keys = agent_keys(caller, agent, plan)
        actor = caller if keys is caller.keys else caller.as_agent(keys)
        held = find_block(actor, plan, target, WRITE)
        if not as_agent:
            mine = lookup(caller, plan, target, WRITE)
            if mine is not None and mine.storage == held.storage:
                actor, held = caller, mine
        opened = heal(open_block(actor, plan, held))
        block, changed = edit_opened(opened, edit, if_version, viewer=caller)
        if "label" in changed:
            labels_stay_unique(opened, caller)
        kind = "update" if changed else "read"
        actor.event(plan, kind, held.key, block=target, agent=agent_id, version=block.version, fields=changed)
        return block

    return caller.transact(action, lock=target)


# -- several at once --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class AddBlock:
    """A new private block of the agent's sponsor, on this agent with `write`."""

    fields: Mapping[str, Any]


@dataclass(frozen=True)
class EditBlock:
    """A change of the block with this label, by the agent."""

    label: str
    edit: Edit


@dataclass(frozen=True)
class DropBlock:
    """The block with this label leaves the agent. `edit` is asked first, with the agent's rights: it may refuse."""

    label: str
    edit: Edit


Step = AddBlock | EditBlock | DropBlock


def change_memory(caller: Caller, agent_id: str, steps: Sequence[Step]) -> Agent:
    """Take the steps in order, as the agent, in one transaction: all of them happen, or none does.

    A step sees what the earlier ones did. Raises what a step raises, and `Taken` if two blocks would share a label.
    """

    def action(plan: Plan) -> Agent:
        agent = find_agent(caller, plan, agent_id)
        touched, fresh = [agent.key], set()
        for step in steps:
            held = _take(caller, plan, agent, step)
            touched.append(held.key)
            if isinstance(step, AddBlock):
                fresh.add(held.block)
        after = view(caller, plan, agent)
        no_twins(after.blocks, fresh)
        actor = caller if agent.subject == caller.id else caller.as_agent(agent_keys(caller, agent, plan))
        actor.event(plan, "update", *touched, agent=agent_id, steps=len(steps), **placed(plan))
        return after

    return caller.transact(action, lock=agent_id)


def _take(caller: Caller, plan: Plan, agent: Held, step: Step) -> Held:
    keys = agent_keys(caller, agent, plan)
    if isinstance(step, AddBlock):
        users_only(caller)
        claim_labels(plan, keys)
        grant = FirstGrant(caller.identity(plan, agent.subject), keys, READ | WRITE)
        made = new_block(caller, plan, step.fields, [grant])
        note_placed(plan, made.block, 1)
        return made
    there, _ = by_label(caller, plan, agent, step.label)
    find(plan, keys, BLOCKS, there.block)  # its row on the shelf must still be there when this commits
    actor = caller if keys is caller.keys else caller.as_agent(keys)
    opened = heal(open_block(actor, plan, there))
    _, changed = edit_opened(opened, step.edit, None)
    if "label" in changed:
        labels_stay_unique(opened, caller)
    if isinstance(step, DropBlock):
        users_only(caller)
        unplace(caller, plan, agent, there.block)
    return there
