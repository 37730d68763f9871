"""Tools with which an agent finds what it was told: earlier messages, and the texts that it put into its archive.

Search is for parts of words, without regard to case: the server holds no index over what it cannot read, and no
vectors. All words of a query must occur.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from tallystone.letta.arguments import clean
from tallystone.letta.call import Answer, Call
from tallystone.letta.memory_tools import ToolError
from tallystone.letta.messages import Stored, date_json, new_id, text_of
from tallystone.vault.types import Agent

FOUND = 10
"""Results of a search, unless it asks for another number."""
MOST = 100
_ROLES = ("assistant", "user", "tool")


def matches(query: str | None) -> Callable[[str], bool]:
    """Whether a text holds every word of the query."""
    words = (query or "").casefold().split()
    return lambda text: all(word in text.casefold() for word in words)


def moment(text: str, name: str, *, end: bool = False) -> int:
    """Unix milliseconds of a date or time in ISO 8601, UTC unless it says otherwise; of a date alone its first
    moment, or with `end` its last. Raises `ToolError`."""
    try:
        when = datetime.fromisoformat(text)
        if when.tzinfo is None:
            when = when.replace(tzinfo=UTC)
        if end and len(text) == 10:
            when += timedelta(days=1, milliseconds=-1)
        return int(when.timestamp() * 1000)
    except (ValueError, OverflowError):
        raise ToolError("ValueError", f"{name} is no date: write 2026-03-01 or 2026-03-01T12:00.") from None


def between(start: str | None, until: str | None, names: tuple[str, str]) -> Callable[[int], bool]:
    """Whether a moment lies between two dates; a missing one is no bound."""
    low = moment(start, names[0]) if start else None
    high = moment(until, names[1], end=True) if until else None
    return lambda when: (low is None or when >= low) and (high is None or when <= high)


def _count(arguments: Mapping[str, Any], name: str) -> int:
    return max(1, min(int(arguments.get(name) or FOUND), MOST))


def _tags(arguments: Mapping[str, Any]) -> list[str]:
    tags = arguments.get("tags") or []
    if not all(isinstance(tag, str) for tag in tags):
        raise ToolError("TypeError", "tags must be a list of texts.")
    return list(tags)


def _conversation_search(call: Call, agent: Agent, arguments: Mapping[str, Any]) -> Answer:
    says, roles = matches(arguments.get("query")), arguments.get("roles") or _ROLES
    dated = between(arguments.get("start_date"), arguments.get("end_date"), ("start_date", "end_date"))
    limit = _count(arguments, "limit")

    def where(message: Stored) -> bool:
        text = text_of(message)
        return bool(text) and message["role"] in roles and dated(message["date"]) and says(text)

    found = call.vault.search_messages(where, agent_id=agent.id, limit=limit)
    if not found:
        return _said("No messages found.")
    lines = [
        {"date": date_json(one["date"]), "role": one["role"], "text": text_of(one)} for _, _, one in found
    ]
    return _said(json.dumps(lines, ensure_ascii=False))


def _archival_insert(call: Call, agent: Agent, arguments: Mapping[str, Any]) -> Answer:
    passage = {
        "id": new_id("passage"),
        "text": clean(arguments["content"]),
        "tags": [clean(tag) for tag in _tags(arguments)],
    }
    return call.once(lambda: call.vault.add_passage(agent.id, passage), lambda _: _said("Kept."))


def _archival_search(call: Call, agent: Agent, arguments: Mapping[str, Any]) -> Answer:
    where = passages_where(
        arguments["query"],
        _tags(arguments),
        arguments.get("tag_match_mode") == "all",
        between(
            arguments.get("start_datetime"), arguments.get("end_datetime"), ("start_datetime", "end_datetime")
        ),
    )
    found = call.vault.passages(agent.id, where, limit=_count(arguments, "top_k"), reverse=True)
    if not found:
        return _said("No texts found.")
    lines = [{"date": date_json(one["created"]), "tags": one["tags"], "text": one["text"]} for one in found]
    return _said(json.dumps(lines, ensure_ascii=False))


def passages_where(
    query: str | None, tags: Sequence[str], every: bool, dated: Callable[[int], bool] = lambda _: True
) -> Callable[[Mapping[str, Any]], bool]:
    """Whether a passage holds the query's words and has one of the tags, or all of them."""
    says, wanted = matches(query), set(tags)

    def where(passage: Mapping[str, Any]) -> bool:
        have = wanted.intersection(passage["tags"])
        tagged = not wanted or (have == wanted if every else bool(have))
        return tagged and dated(passage["created"]) and says(passage["text"])

    return where


def _said(text: str) -> Answer:
    return Answer(
        {
            "status": "success",
            "func_return": text,
            "stdout": None,
            "stderr": None,
            "agent_state": None,
            "sandbox_config_fingerprint": None,
        }
    )


RECALL: Mapping[str, Callable[[Call, Agent, Mapping[str, Any]], Answer]] = {
    "conversation_search": _conversation_search,
    "archival_memory_insert": _archival_insert,
    "archival_memory_search": _archival_search,
}
"""The tools by name."""
