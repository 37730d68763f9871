"""From the server's JSON to the vault's own values, so that commands need not know where they come from."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from tallystone.cli.terminal import moment
from tallystone.vault.answers import Answered, AuditPage, Named, Span
from tallystone.vault.questions import Question
from tallystone.vault.rotated import Rotated
from tallystone.vault.types import (
    EXTRA_FIELDS,
    Agent,
    AuditEvent,
    Block,
    Change,
    CharterView,
    Grant,
    InviteInfo,
    Member,
    ModelKeyInfo,
    Receipt,
    Role,
    TokenInfo,
)
from tallystone.vault.versions import Blame, BlameLine, PastVersion, UndoConflict, Undone, Versions

if TYPE_CHECKING:
    from _typeshed import DataclassInstance  # a name that only type checkers know

T = TypeVar("T", bound="DataclassInstance")


def _time(text: object) -> datetime:
    return datetime.fromisoformat(str(text)) if text else datetime.fromtimestamp(0, UTC)


def _day(text: object) -> date | None:
    return date.fromisoformat(str(text)) if text else None


def block(item: Mapping[str, Any]) -> Block:
    """A block."""
    return Block(
        id=item["id"],
        label=item.get("label") or "",
        value=item.get("value") or "",
        description=item.get("description"),
        limit=item.get("limit") or 0,
        read_only=bool(item.get("read_only")),
        locked=bool(item.get("locked")),
        tags=list(item.get("tags") or ()),
        metadata=dict(item.get("metadata") or {}),
        extra={name: item[name] for name in EXTRA_FIELDS if item.get(name) is not None},
        version=item.get("version") or 0,
        created_at=_time(item.get("created_at")),
        updated_at=_time(item.get("updated_at")),
        owner=item.get("owner") or "",
        created_by=item.get("created_by_id") or "",
        updated_by=item.get("last_updated_by_id") or "",
        updated_under=item.get("updated_under"),
        rights=item.get("rights") or "",
        agent_ids=list(item.get("agent_ids") or ()),
        position=0,
        offered=bool(item.get("offered")),
        sensitivity=item.get("sensitivity") or "",
        allowed=item.get("allowed"),
        expires=_day(item.get("expires")),
        mutable=item.get("mutable", True),
        append_only=bool(item.get("append_only")),
        through=item.get("through") or "",
        keep=item.get("keep") or "all",
        audit_level=item.get("audit_level") or "durable",
    )


def agent(item: Mapping[str, Any]) -> Agent:
    """An agent with its blocks."""
    memory = item.get("memory") or {}
    tools = [
        tool.get("name", "") if isinstance(tool, dict) else str(tool) for tool in item.get("tools") or ()
    ]
    return Agent(
        id=item["id"],
        name=item.get("name") or "",
        state={**item, "tools": tools},
        blocks=[block(one) for one in item.get("blocks") or memory.get("blocks") or ()],
        created_at=_time(item.get("created_at")),
        updated_at=_time(item.get("updated_at")),
        version=item.get("version") or 0,
        position=0,
        sponsor=item.get("created_by_id") or "",
    )


def plain(kind: type[T], item: Mapping[str, Any]) -> T:
    """One of the vault's values from its fields; what a newer server says beyond them is left out."""
    return kind(**{field.name: item[field.name] for field in dataclasses.fields(kind)})


def token(item: Mapping[str, Any]) -> TokenInfo:
    """What is known of a token."""
    expires = int(_time(item["expires"]).timestamp()) if item.get("expires") else None
    times = {"created": int(_time(item["created"]).timestamp()), "expires": expires}
    return plain(TokenInfo, {**item, **times})


def rotated(item: Mapping[str, Any]) -> Rotated:
    """What a new root did."""
    return plain(Rotated, {**item, "ended": [token(one) for one in item["ended"]]})


def model_key(item: Mapping[str, Any]) -> ModelKeyInfo:
    """What is known of a sealed model key."""
    return ModelKeyInfo(item["provider"], item["origin"], int(_time(item["created_at"]).timestamp()))


def change(item: Mapping[str, Any], place: str) -> Change:
    """An event of the change feed, and its id."""
    more = item.get("block_id", ""), item.get("version"), place, item.get("code", "")
    return Change(item["number"], item["kind"], *more)


def event(item: Mapping[str, Any]) -> AuditEvent:
    """An event of the log."""
    return AuditEvent(
        seq=item["seq"],
        minute=int(_time(item["time"]).timestamp()) // 60,
        kind=item["kind"],
        actor=item["actor"],
        under=item.get("under") or "",
        detail=dict(item.get("detail") or {}),
    )


def receipt(item: Mapping[str, Any]) -> Receipt:
    """The receipt of an erasure."""
    told = {"time": _time(item["time"]), "horizon": _day(item["horizon"])}
    return plain(Receipt, {**item, **told, "statement": bytes.fromhex(str(item["statement"]))})


def question(asked: Question, span: Span, limit: int) -> list[tuple[str, str]]:
    """A question to the log as a query."""
    since, until = (
        moment(minute * 60) if minute is not None else None for minute in (asked.since, asked.until)
    )
    pairs: list[tuple[str, object]] = [
        ("format", "json"), ("limit", limit), ("order", "asc" if span.oldest_first else "desc"),
        ("block_id", asked.block), ("by", asked.by), ("to", asked.to), ("what", asked.what),
        *(("kind", kind) for kind in sorted(asked.kinds)), ("since", since), ("until", until),
        ("after", span.after), ("before", span.before), ("after_grant", span.grant),
    ]  # fmt: skip
    return [(name, str(value)) for name, value in pairs if value not in ("", None)]


def audit_page(item: Mapping[str, Any], span: Span) -> AuditPage:
    """A page of the log, and where the next one begins."""
    found = [
        Answered(
            event(one),
            one["actor_name"],
            one["under_name"],
            tuple(Named(block["id"], block["label"]) for block in one["blocks"]),
            tuple(Named(who["id"], who["name"]) for who in one["gained"]),
        )
        for one in item["events"]
    ]
    onward = item["next"]
    if onward is None:
        return AuditPage(found, None)
    return AuditPage(found, Span(onward.get("after"), onward.get("before"), None, span.oldest_first))


def grant(item: Mapping[str, Any]) -> Grant:
    """A grant."""
    return plain(Grant, {**item, "until": _day(item["until"])})


def role(item: Mapping[str, Any]) -> Role:
    """A role with its members."""
    members = [plain(Member, {**one, "until": _day(one["until"])}) for one in item["members"]]
    return plain(Role, {**item, "members": members, "created_at": _time(item["created_at"])})


def invitation(item: Mapping[str, Any]) -> InviteInfo:
    """What is known of an invitation."""
    return plain(InviteInfo, {**item, "expires": int(_time(item["expires"]).timestamp())})


def past_version(item: Mapping[str, Any]) -> PastVersion:
    """An earlier version of a block."""
    return plain(PastVersion, {**item, "time": _time(item["time"]), "erased": _day(item.get("erased"))})


def versions(item: Mapping[str, Any]) -> Versions:
    """A page of them."""
    return Versions([past_version(one) for one in item["versions"]], item["older"])


def blame(item: Mapping[str, Any]) -> Blame:
    """Who wrote which line."""
    lines = [
        plain(BlameLine, {**one, "time": _time(one["time"]) if one["time"] else None})
        for one in item["lines"]
    ]
    return Blame(item["version"], lines, item["older"])


def undone(item: Mapping[str, Any]) -> Undone:
    """What an undo did to a block."""
    conflicts = [plain(UndoConflict, one) for one in item["conflicts"]]
    return plain(Undone, {**item, "conflicts": conflicts})


def charter(item: Mapping[str, Any]) -> CharterView:
    """The workspace's charter."""
    return plain(
        CharterView, {**item, "levels": tuple(item["levels"]), "auditors": tuple(item.get("auditors", ()))}
    )
