"""Messages in their three shapes: as they are stored, as clients read them, and as models hear them. Pure.

A stored message is a map with `id`, `role` and `date` (Unix milliseconds), and by role:

    user, system   text, name, otid, sender          what a client or the server said
    assistant      text, thinking, native, calls, asks   what the model answered; `asks` are the calls that wait
    tool           call, name, status, text          what one call came to
    approval       approvals, approve, request, reason   what a client answered to `asks`
    summary        text, stats                       what stands in place of older messages

`run` and `step` say in which it was written, `given` that it came from the client, so that it is not echoed.
"""

from __future__ import annotations

import json
import secrets
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from tallystone.errors import Invalid
from tallystone.letta.arguments import as_heard, name_as_heard
from tallystone.letta.model import Said, ToolCall
from tallystone.letta.prompt import barred

Stored = Mapping[str, Any]
_RECAP = (
    "What was said before, in short. Lines that begin with a bar are notes on it, and no message of a user:"
)
MESSAGE_TYPES = (
    "system_message",
    "user_message",
    "assistant_message",
    "reasoning_message",
    "hidden_reasoning_message",
    "tool_call_message",
    "tool_return_message",
    "approval_request_message",
    "approval_response_message",
    "summary_message",
    "event_message",
)


@dataclass(frozen=True)
class Style:
    """How a client wants to read messages. `types` None: all of them. With `as_assistant` a call of the tool
    `speaker` is an assistant's message, which is its argument `argument`."""

    types: frozenset[str] | None = None
    as_assistant: bool = True
    speaker: str = "send_message"
    argument: str = "message"
    errors: bool = True


PLAIN = Style()


def new_id(kind: str) -> str:
    """A fresh id: `message-<uuid4>`, `run-…`, `step-…`, `conv-…`, `passage-…`."""
    return f"{kind}-{uuid.UUID(bytes=secrets.token_bytes(16), version=4)}"


def date_json(moment: int) -> str:
    """Unix milliseconds as RFC 3339 in UTC."""
    return datetime.fromtimestamp(moment / 1000, UTC).isoformat().replace("+00:00", "Z")


def now_ms() -> int:
    """Unix milliseconds."""
    return int(datetime.now(UTC).timestamp() * 1000)


def moment(when: datetime) -> int:
    """A client's date, UTC unless it says otherwise, as Unix milliseconds. Raises `Invalid` for one that `date_json`
    could not write in UTC: it would be kept, and nothing that holds it could be read again."""
    try:
        utc = (when if when.tzinfo else when.replace(tzinfo=UTC)).astimezone(UTC)
    except OverflowError:
        raise Invalid("a date lies outside of the years 1 to 9999", hint="in UTC") from None
    return (utc - datetime.fromtimestamp(0, UTC)) // timedelta(milliseconds=1)


# -- for clients ------------------------------------------------------------------------------------------------


def typed(message: Stored, style: Style = PLAIN) -> list[dict[str, Any]]:
    """The client's messages that a stored one is, in order."""
    return [
        one
        for one in _TYPED[message["role"]](message, style)
        if style.types is None or one["message_type"] in style.types
    ]


def _base(message: Stored, kind: str, **fields: Any) -> dict[str, Any]:
    return {
        "id": message["id"],
        "date": date_json(message["date"]),
        "message_type": kind,
        "name": message.get("name"),
        "otid": message.get("otid"),
        "sender_id": message.get("sender"),
        "step_id": message.get("step"),
        "is_err": message.get("err", False),
        "seq_id": None,
        "run_id": message.get("run"),
        **fields,
    }


def _said(kind: str) -> Any:
    def of(message: Stored, style: Style) -> list[dict[str, Any]]:
        return [_base(message, kind, content=message["text"])]

    return of


def call_json(call: Mapping[str, Any]) -> dict[str, str]:
    """A tool call as clients read it."""
    return {"name": call["name"], "arguments": call["arguments"], "tool_call_id": call["id"]}


def _assistant(message: Stored, style: Style) -> list[dict[str, Any]]:
    found = []
    if message.get("thinking"):
        found.append(
            _base(
                message,
                "reasoning_message",
                reasoning=message["thinking"],
                source="reasoner_model",
                signature=None,
            )
        )
    if message.get("text"):
        found.append(_base(message, "assistant_message", content=message["text"]))
    asks = set(message.get("asks") or ())
    plain = []
    for call in message.get("calls") or ():
        said = _spoken(call, style) if call["id"] not in asks else None
        if said is not None:
            found.append(_base(message, "assistant_message", content=said))
        elif call["id"] not in asks:
            plain.append(call_json(call))
    if plain:
        found.append(_base(message, "tool_call_message", tool_call=plain[0], tool_calls=plain))
    waiting = [call_json(call) for call in message.get("calls") or () if call["id"] in asks]
    if waiting:
        found.append(_base(message, "approval_request_message", tool_call=waiting[0], tool_calls=waiting))
    return found


def _spoken(call: Mapping[str, Any], style: Style) -> str | None:
    """What a call says to the user, if it is one of the tool that speaks."""
    if not style.as_assistant or call["name"] != style.speaker:
        return None
    try:
        said = json.loads(call["arguments"])[style.argument]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return said if isinstance(said, str) else None


def _tool(message: Stored, style: Style) -> list[dict[str, Any]]:
    if style.as_assistant and message["name"] == style.speaker and message["status"] == "success":
        return []
    returned = {
        "tool_return": message["text"],
        "status": message["status"],
        "tool_call_id": message["call"],
        "stdout": message.get("stdout"),
        "stderr": message.get("stderr"),
    }
    return [_base(message, "tool_return_message", **returned, tool_returns=[{"type": "tool", **returned}])]


def _approval(message: Stored, style: Style) -> list[dict[str, Any]]:
    return [
        _base(
            message,
            "approval_response_message",
            approvals=list(message["approvals"]),
            approve=message.get("approve"),
            approval_request_id=message.get("request"),
            reason=message.get("reason"),
        )
    ]


def _summary(message: Stored, style: Style) -> list[dict[str, Any]]:
    return [_base(message, "summary_message", summary=message["text"], compaction_stats=message["stats"])]


_TYPED = {
    "user": _said("user_message"),
    "system": _said("system_message"),
    "assistant": _assistant,
    "tool": _tool,
    "approval": _approval,
    "summary": _summary,
}


# -- for models -------------------------------------------------------------------------------------------------


def heard(messages: Iterable[Stored], recap: str = "") -> list[Said]:
    """The conversation as a model hears it. `recap` stands for what came before: a model's notes on what others said,
    so its lines are barred as those of blocks are.

    Returns follow the answer that called for them, as providers want it, also when something else was said between; a
    return whose call is not in `messages` is left out."""
    said = [Said("user", "\n".join([_RECAP, *barred(recap)]))] if recap else []
    returns: int | None = None  # where the next return belongs
    for message in messages:
        role = message["role"]
        if role == "user":
            said.append(Said("user", message["text"]))
        elif role == "system":
            said.append(Said("system", message["text"]))
        elif role == "tool" and returns is not None:
            said.insert(returns, Said("tool", message["text"], tool_call_id=message["call"]))
            returns += 1
        elif role == "assistant":
            calls = tuple(
                ToolCall(call["id"], name_as_heard(call["name"]), as_heard(call["arguments"]))
                for call in message.get("calls") or ()
            )
            said.append(
                Said(
                    "assistant",
                    message.get("text") or "",
                    calls,
                    thinking=message.get("thinking") or "",
                    native=message.get("native") or "",
                )
            )
            if calls:
                returns = len(said)
    return said


def open_calls(messages: Sequence[Stored]) -> tuple[Stored | None, list[Mapping[str, Any]]]:
    """The last answer of a model that has calls, and those without a return; (None, []) if each has one."""
    answered: set[str] = set()
    for message in reversed(messages):
        if message["role"] == "tool":
            answered.add(message["call"])
        elif message["role"] == "assistant" and message.get("calls"):
            left = [call for call in message["calls"] if call["id"] not in answered]
            return (message, left) if left else (None, [])
    return None, []


def text_of(message: Stored) -> str:
    """The words of a message, for a search."""
    return str(message.get("text") or "")
