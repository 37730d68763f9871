"""Request bodies of the routes that talk with agents. Unknown fields are ignored, wrong types are 422."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from tallystone.errors import Invalid, Rejected
from tallystone.letta.bodies import Mapped
from tallystone.letta.messages import MESSAGE_TYPES, Style

MAX_STEPS = 1000
"""The most steps that a turn may be allowed."""
_NAME = r"^[a-zA-Z0-9_-]{1,64}$"


class ClientTool(msgspec.Struct):
    """A tool that the client runs itself."""

    name: Annotated[str, Meta(pattern=_NAME)]
    description: str | None = None
    parameters: Mapped | None = None


class ClientSkill(msgspec.Struct):
    """Something that the client can do, as the prompt names it."""

    name: str
    description: str
    location: str


class MessagesCreate(msgspec.Struct, kw_only=True):
    """`POST …/messages`, `…/messages/stream` and `…/messages/async`."""

    messages: list[Mapped] | None = None
    input: str | list[Any] | None = None
    max_steps: Annotated[int, Meta(ge=1, le=MAX_STEPS)] | None = None
    streaming: bool | None = None
    stream_tokens: bool | None = None
    include_pings: bool | None = None
    background: bool | None = None
    include_return_message_types: list[str] | None = None
    include_compaction_messages: bool | None = None
    client_tools: list[ClientTool] | None = None
    client_skills: list[ClientSkill] | None = None
    override_model: str | None = None
    override_system: str | None = None
    use_assistant_message: bool | None = None
    assistant_message_tool_name: str | None = None
    assistant_message_tool_kwarg: str | None = None
    agent_id: str | None = None
    callback_url: str | None = None
    return_logprobs: bool | None = None
    return_token_ids: bool | None = None
    top_logprobs: int | None = None

    def check(self, streaming: bool) -> None:
        """Raise `Rejected` (400) for what this server does not do, `Invalid` (422) for what goes together with
        streaming only."""
        for name in ("callback_url", "return_logprobs", "return_token_ids", "top_logprobs"):
            if getattr(self, name):
                raise Rejected(f"{name} is not served here", hint="leave it out", code="unsupported")
        for name in ("stream_tokens", "include_pings", "background"):
            if getattr(self, name) and not streaming:
                raise Invalid(f"{name} goes with streaming=true only", hint="or leave it out")

    def style(self) -> Style:
        """How the client wants to read the turn's messages."""
        return style(
            self.include_return_message_types,
            self.use_assistant_message,
            self.assistant_message_tool_name,
            self.assistant_message_tool_kwarg,
        )


def style(
    types: list[str] | None, as_assistant: bool | None, speaker: str | None, argument: str | None
) -> Style:
    """A `Style` of what a client sent. Raises `Invalid` for an unknown type of message."""
    unknown = [one for one in types or () if one not in MESSAGE_TYPES]
    if unknown:
        raise Invalid(
            "include_return_message_types names a type that there is not",
            hint=f"use {', '.join(MESSAGE_TYPES)}",
        )
    return Style(
        None if types is None else frozenset(types),
        as_assistant is not False,
        speaker or "send_message",
        argument or "message",
    )


class Cancel(msgspec.Struct):
    """`POST …/messages/cancel`. Without `run_ids`: whatever runs."""

    run_ids: list[str] | None = None


class Compact(msgspec.Struct):
    """`POST …/summarize`. The agent's own model writes the summary."""

    agent_id: str | None = None
    compaction_settings: Mapped | None = None


class ConversationFields(msgspec.Struct):
    """What `conversations.create` and `conversations.update` share."""

    context_window_limit: Annotated[int, Meta(ge=1, le=2**31 - 1)] | None = None
    description: str | None = None
    hidden: bool | None = None
    model: str | None = None
    model_settings: Mapped | None = None
    summary: str | None = None


class ConversationUpdate(ConversationFields):
    """`PATCH /v1/conversations/{conversation_id}`. Nulls are dropped."""

    archived: bool | None = None
    last_message_at: Annotated[datetime, Meta(tz=True)] | None = None


class StreamRun(msgspec.Struct):
    """`POST /v1/runs/{run_id}/stream`, and of a conversation's latest run."""

    agent_id: str | None = None
    run_id: str | None = None
    starting_after: int | None = None
    include_pings: bool | None = None
    poll_interval: float | None = None


class MessagesSearch(msgspec.Struct):
    """`POST /v1/messages/search`. Dates are ISO 8601."""

    query: str
    agent_id: str | None = None
    conversation_id: str | None = None
    start_date: str | None = None
    end_date: str | None = None
    limit: Annotated[int, Meta(ge=1, le=1000)] = 50
    search_mode: Literal["vector", "fts", "hybrid"] | None = None


class PassageCreate(msgspec.Struct):
    """`POST /v1/agents/{agent_id}/archival-memory`."""

    text: str
    tags: list[str] | None = None
    created_at: Annotated[datetime, Meta(tz=None)] | None = None


class PassagesSearch(msgspec.Struct):
    """`POST /v1/passages/search`. Dates are ISO 8601."""

    query: str | None = None
    agent_id: str | None = None
    archive_id: str | None = None
    tags: list[str] | None = None
    tag_match_mode: Literal["any", "all"] = "any"
    start_date: str | None = None
    end_date: str | None = None
    limit: Annotated[int, Meta(ge=1, le=1000)] = 50


class Approval(msgspec.Struct):
    """`PATCH …/tools/approval/{tool_name}`."""

    requires_approval: bool


class Feedback(msgspec.Struct):
    """`PATCH /v1/steps/{step_id}/feedback`. Null takes it back."""

    feedback: Literal["positive", "negative"] | None = None
    tags: list[str] | None = None
