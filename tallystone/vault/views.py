"""From an opened block to what a caller sees of it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any

from tallystone.statements import Version
from tallystone.vault.caller import Caller
from tallystone.vault.entering import enter_again
from tallystone.vault.keeping import ALL
from tallystone.vault.levels import names
from tallystone.vault.opening import Opened
from tallystone.vault.plan import Plan
from tallystone.vault.recall import recipients
from tallystone.vault.records import Held, rights_of
from tallystone.vault.shelves import AGENTS, find
from tallystone.vault.types import Agent, Block, ExternalTool
from tallystone.waiting import PLACE


def when(milliseconds: int) -> datetime:
    """A statement's time. What its author claims may be any number; out of range it reads as the epoch."""
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC)
    except (OverflowError, OSError, ValueError):
        return datetime.fromtimestamp(0, UTC)


def last_day(day: int | None) -> date | None:
    """A day number (days since 1970) as a date. One that is none, by an owner of ill will, reads as the last one."""
    if day is None:
        return None
    try:
        return date(1970, 1, 1) + timedelta(day)
    except OverflowError:
        return date.max


def day_number(day: date | None) -> int | None:
    """A date (UTC) as days since 1970; the reverse of `last_day`."""
    return None if day is None else (day - date(1970, 1, 1)).days


def agent_ids(opened: Opened, viewer: Caller) -> list[str]:
    """Agents with a live grant: all of them for the owner, else those that the viewer sponsors, or is."""
    return _agents(opened.plan, recipients(opened), opened.head.owner, viewer, opened.caller)


def _agents(plan: Plan, holders: list[str], owner: str, viewer: Caller, opener: Caller) -> list[str]:
    agents = [one for one in holders if one.startswith("agent-")]
    if owner == viewer.id:
        return agents
    here = (viewer.id, opener.id)
    return [one for one in agents if one in here or find(plan, viewer.keys, AGENTS, one) is not None]


def block_view(
    opened: Opened,
    payload: dict[str, Any],
    version: Version,
    *,
    agents: bool | list[str] = True,
    viewer: Caller | None = None,
) -> Block:
    """The block as its caller sees it, or as `viewer` does for whom it was opened. `agents`: whether its agents are
    said, or which they are."""
    held, settings, genesis = opened.held, opened.head.settings, opened.genesis()
    sensitivity, audit_level = names(opened.caller, opened.plan, settings)
    leaf, allowed = held.own_leaf, settings.get("allowed")
    if not isinstance(agents, list):
        agents = agent_ids(opened, viewer or opened.caller) if agents else []
    block = Block.__new__(Block)
    # As `Block(…)` would, which for a frozen class sets field by field and takes three times as long.
    block.__dict__.update(
        id=held.block,
        label=payload["label"],
        value=payload["value"],
        description=payload["description"],
        limit=settings["limit"],
        read_only=settings["read_only"],
        locked=settings["locked"],
        tags=list(payload["tags"]),
        metadata=dict(payload["metadata"]),
        extra=dict(payload["extra"]),
        version=version.number,
        created_at=when(payload["created"]),
        updated_at=when(version.time),
        owner=held.owner,
        created_by=genesis.owner,
        updated_by=version.writer,
        updated_under=version.under or None,
        rights=rights_of(held),
        agent_ids=agents,
        position=held.position,
        offered=held.state == "offered",
        sensitivity=sensitivity,
        allowed=None if allowed is None else list(allowed),
        expires=last_day(settings.get("expires")),
        keep=settings.get("keep", ALL),
        audit_level=audit_level,
        mutable=genesis.mutable,
        append_only=genesis.append_only,
        through=leaf.recipient if held.via and leaf is not None else "",
    )
    return block


def view_again(
    caller: Caller, plan: Plan, held: Held, *, agents: bool = True, viewer: Caller | None = None
) -> Block | None:
    """What `block_view` makes of a block, from what the process kept of it; None if that does not hold any more, or the
    block's keys are due to change."""
    PLACE.get().tick()
    if caller.under is not None:
        caller.standing(plan)
    known = enter_again(caller, plan, held)
    if known is None or known.due:
        return None
    holders = known.granted(plan) if agents else []
    if holders is None:
        return None
    if agents:
        known.note(plan)
    payload, settings = known.payload, known.settings
    number, time, writer, under, owner, creator, mutable, append_only = known.shown
    plan.note(held.block, settings)
    plan.filing[held.key] = known.filing
    sensitivity, audit_level = names(caller, plan, settings)
    block = Block.__new__(Block)
    # As `Block(…)` would, which for a frozen class sets field by field and takes three times as long.
    block.__dict__.update(
        id=held.block,
        label=payload["label"],
        value=payload["value"],
        description=payload["description"],
        limit=settings["limit"],
        read_only=settings["read_only"],
        locked=settings["locked"],
        tags=payload["tags"],
        metadata=payload["metadata"],
        extra=payload["extra"],
        version=number,
        created_at=when(payload["created"]),
        updated_at=when(time),
        owner=held.owner,
        created_by=creator,
        updated_by=writer,
        updated_under=under or None,
        rights=known.rights,
        agent_ids=_agents(plan, holders, owner, viewer or caller, caller) if holders else [],
        position=held.position,
        offered=False,
        sensitivity=sensitivity,
        allowed=settings.get("allowed"),
        expires=None,
        keep=settings.get("keep", ALL),
        audit_level=audit_level,
        mutable=mutable,
        append_only=append_only,
        through="",
    )
    return block


def agent_view(
    opened: Opened,
    payload: dict[str, Any],
    version: Version,
    blocks: list[Block],
    external: Mapping[str, ExternalTool],
) -> Agent:
    """The agent as its caller sees it."""
    return Agent(
        id=opened.held.subject,
        name=payload["state"]["name"],
        state=payload["state"],
        blocks=blocks,
        created_at=when(payload["created"]),
        updated_at=when(version.time),
        version=version.number,
        position=opened.held.position,
        sponsor=opened.held.owner,
        external=external,
    )
