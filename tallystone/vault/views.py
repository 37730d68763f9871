"""From an opened block to what a caller sees of it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any

from tallystone.statements import SHARE, WRITE, Version
from tallystone.vault.caller import Caller
from tallystone.vault.keeping import ALL
from tallystone.vault.levels import audit_name, level_name
from tallystone.vault.opening import Opened
from tallystone.vault.recall import recipients
from tallystone.vault.shelves import AGENTS, find
from tallystone.vault.types import Agent, Block, ExternalTool


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


def rights_of(opened: Opened) -> str:
    """`owner`, `read`, `write`, `share` or `write+share`."""
    leaf = opened.held.own_leaf
    if leaf is None:
        return "owner"
    held = [name for bit, name in ((WRITE, "write"), (SHARE, "share")) if leaf.rights & bit]
    return "+".join(held) or "read"


def agent_ids(opened: Opened, viewer: Caller) -> list[str]:
    """Agents with a live grant: all of them for the owner, else those that the viewer sponsors, or is."""
    owns = opened.head.owner == viewer.id
    return [
        recipient
        for recipient in recipients(opened)
        if recipient.startswith("agent-")
        and (
            owns
            or recipient in (viewer.id, opened.caller.id)
            or find(opened.plan, viewer.keys, AGENTS, recipient) is not None
        )
    ]


def block_view(
    opened: Opened,
    payload: dict[str, Any],
    version: Version,
    *,
    agents: bool = True,
    viewer: Caller | None = None,
) -> Block:
    """The block as its caller sees it, or as `viewer` does for whom it was opened."""
    settings, genesis, allowed = opened.head.settings, opened.genesis(), opened.head.settings.get("allowed")
    leaf = opened.held.own_leaf
    return Block(
        id=opened.id,
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
        owner=opened.held.owner,
        created_by=genesis.owner,
        updated_by=version.writer,
        updated_under=version.under or None,
        rights=rights_of(opened),
        agent_ids=agent_ids(opened, viewer or opened.caller) if agents else [],
        position=opened.held.position,
        offered=opened.held.state == "offered",
        sensitivity=level_name(opened.caller, opened.plan, settings.get("sensitivity", 0)),
        allowed=None if allowed is None else list(allowed),
        expires=last_day(settings.get("expires")),
        keep=settings.get("keep", ALL),
        audit_level=audit_name(opened.caller, opened.plan, settings),
        mutable=genesis.mutable,
        append_only=genesis.append_only,
        through=leaf.recipient if opened.held.via and leaf is not None else "",
    )


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
