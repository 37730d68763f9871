"""Finding things: by blinded address, or by walking a shelf in order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from tallystone import crypto
from tallystone.errors import Rejected, Unauthenticated
from tallystone.keystore import Keys, Root, find_nest
from tallystone.store.protocol import Row
from tallystone.store.tables import SHELF
from tallystone.vault import known_agents
from tallystone.vault.caller import Caller
from tallystone.vault.opening import missing
from tallystone.vault.plan import WS, Plan
from tallystone.vault.records import Held, unshelve

BLOCKS, AGENTS, ROLES, SELF, HOUSE = "block", "agent", "role", "self", "house"
"""The shelves: memory blocks; agents that this principal sponsors; roles that it is in; an agent's own state;
workspace-wide keys."""

_CHUNK = 100
_RENEW = "renew"


def on_shelf(plan: Plan, keys: Keys, row: Row) -> Held:
    """What a row of one of these shelves says. Raises `Tampered`."""
    place = "held", row[1], row[2], keys.can_act  # the shelf's id follows from these very keys
    known: Held | None = plan.known.get(place)
    if known is not None and known.origin is not None and known.origin[1] == row:
        return known
    held: Held | None = plan.recall(keys, row)
    if held is None:
        held = unshelve(keys, bytes(row[1]), bytes(row[2]), int(row[3]), bytes(row[4]), bytes(row[5]))
        held.__dict__["origin"] = keys, row
    plan.remember(place, held)
    return held


def find(plan: Plan, keys: Keys, shelf: str, identity: str) -> Held | None:
    """What is at the blinded address of `identity` on one of the principal's shelves."""
    row = plan.need(SHELF, keys.shelf(shelf), keys.locator(identity))
    return on_shelf(plan, keys, row) if row is not None else None


def find_agent(caller: Caller, plan: Plan, agent_id: str) -> Held:
    """The agent as this caller holds it: its sponsor's shelf row, or an agent's own."""
    keys, own = caller.keys, caller.id.startswith("agent-")
    row = plan.need(SHELF, keys.shelf(SELF if own else AGENTS), keys.locator(agent_id))
    if row is None:
        raise missing("Agent", agent_id)
    place = "held", row[1], row[2], keys.can_act
    if not own and place not in plan.known:
        known = known_agents.find(caller, plan, row)
        if known is not None:
            held, theirs = known
            plan.remember(place, plan.recall(keys, row) or held)
            plan.remember(_place(caller, held), theirs)
    return on_shelf(plan, keys, row)


def walk(
    plan: Plan, keys: Keys, shelf: str, *, after: int | None = None, reverse: bool = False
) -> Iterator[Held]:
    """The things on a shelf in order, beyond position `after`, opened as they are asked for."""
    for row in walk_rows(plan, keys, shelf, after=after, reverse=reverse):
        yield on_shelf(plan, keys, row)


def walk_rows(
    plan: Plan, keys: Keys, shelf: str, *, after: int | None = None, reverse: bool = False
) -> Iterator[Row]:
    """The same, as rows."""
    shelf_id = keys.shelf(shelf)
    if plan.is_new(shelf_id) or plan.touches(SHELF, shelf_id):
        rows = sorted(plan.rows(SHELF, shelf_id), key=_position, reverse=reverse)
        for row in rows:
            if after is None or (_position(row) < after if reverse else _position(row) > after):
                yield row
        return
    while True:
        rows = plan.snapshot.scan(
            SHELF, (WS, shelf_id), after=after, limit=_CHUNK, reverse=reverse, index="position"
        )
        yield from rows
        if len(rows) < _CHUNK:
            return
        after = _position(rows[-1])


def _position(row: Row) -> int:
    return int(row[3])


def position_of(plan: Plan, keys: Keys, shelf: str, cursor: str) -> int:
    """The place of a cursor on a shelf. Raises `Rejected` for one that is not there (any more)."""
    held = find(plan, keys, shelf, cursor)
    if held is None:
        raise Rejected(
            "the cursor names nothing on this list",
            hint="use the id of an item that the list returned and that still exists",
            code="bad_cursor",
        )
    return held.position


def agent_keys(caller: Caller, held: Held, plan: Plan | None = None) -> Keys:
    """The agent's keys, as far as the caller's token reaches: with a read-only token, without the half that acts. Of an
    agent that has ended since a backup was made, which is restored: keys that open nothing. With `plan` they are
    derived once for it."""
    if held.subject == caller.id:
        return caller.keys
    if plan is None:
        return _agent_keys(caller, held)
    place = _place(caller, held)
    keys: Keys | None = plan.known.get(place)
    if keys is None:
        keys = _agent_keys(caller, held)
        plan.remember(place, keys)
        if not is_lost(caller, held):
            known_agents.keep(caller, held, keys)
    return keys


def _place(caller: Caller, held: Held) -> tuple[Any, ...]:
    return "agent", caller.id, caller.keys.can_act, held.subject, held.root_read, held.root_act


def _agent_keys(caller: Caller, held: Held) -> Keys:
    slot, pin = slot_of(held), caller.keys.root.pin
    if slot is None:
        return Keys(held.subject, Root(held.root_read, held.root_act or None, pin))
    try:
        nest = find_nest(slot, caller.workspace.shreds.get)
    except Unauthenticated:
        lost = crypto.random_bytes()
        return Keys(held.subject, Root(lost, lost if held.root_act else None, pin))
    act = nest.unwrap(held.root_act) if held.root_act else None
    return Keys(held.subject, Root(nest.unwrap(held.root_read), act, pin, nest))


def is_lost(caller: Caller, held: Held) -> bool:
    """Whether an agent has ended since a backup was made, which is restored: nothing of it opens any more."""
    slot = slot_of(held)
    return slot is not None and caller.workspace.shreds.get(slot) is None


def slot_of(held: Held) -> bytes | None:
    """The slot of the shred key that an agent's root is nested in; None for agents of before there were such."""
    slot = (held.extra or {}).get("nest")
    return slot if isinstance(slot, bytes) else None


def marked(held: Held, what: str | None) -> Held:
    """A shelf row's content with another note of what must be renewed, because a former root knew it: `keys`, of an
    agent its `root`, or nothing (None)."""
    extra = {name: value for name, value in (held.extra or {}).items() if name != _RENEW}
    if what is not None:
        extra[_RENEW] = what
    return replace(held, extra=extra or None)


def waiting(plan: Plan, keys: Keys, shelf: str) -> Iterator[tuple[Held, str]]:
    """What is still to be renewed on a shelf."""
    for held in walk(plan, keys, shelf):
        what = (held.extra or {}).get(_RENEW)
        if isinstance(what, str):
            yield held, what
