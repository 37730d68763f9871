"""What a turn says to a language model and hears back: plain values, without any provider's types.

`ModelLayer` (model_layer.py) carries them over the wire. Nothing here imports a model library, so a server that runs no
agents never loads one.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from tallystone.errors import TallystoneError

Role = Literal["system", "user", "assistant", "tool"]
Finish = Literal["stop", "tool", "length", "refused"]
EFFORTS = ("minimal", "low", "medium", "high", "xhigh", "max")
"""How hard a model may be told to think."""
Thinking = bool | str
"""Off, on as the provider sees fit, or one of `EFFORTS`."""
FailureKind = Literal["timeout", "refused", "unavailable", "bad_answer", "too_long"]


@dataclass(frozen=True)
class ToolCall:
    """A model asks for a tool. `arguments` is JSON text as the model wrote it: it may be no JSON at all."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True)
class ToolSpec:
    """A tool that a model may ask for. `parameters` is a JSON schema of an object."""

    name: str
    description: str
    parameters: Mapping[str, Any]


@dataclass(frozen=True)
class Said:
    """One message of a conversation.

    `tool_calls` and `thinking` are an assistant's; `tool_call_id` is a tool's, whose `text` is the result. `native` is
    the `Reply.native` that came with an assistant's message: pass it back unread, or leave it out.
    """

    role: Role
    text: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""
    thinking: str = ""
    native: str = field(default="", repr=False)


@dataclass(frozen=True)
class Usage:
    """Tokens, as the provider counted them. `cached` is a part of `input`, `reasoning` a part of `output`."""

    input: int = 0
    output: int = 0
    cached: int = 0
    reasoning: int = 0


@dataclass(frozen=True)
class Reply:
    """All that a model answered.

    `finish` is `tool` when tools are asked for, `length` when the answer was cut off (its last tool call may be cut as
    well: do not run it), `refused` when the model declined. `native` is what its provider wants to see again with this
    message, signatures of thoughts for example: opaque JSON text, often empty, that holds no words of the message.
    """

    text: str
    thinking: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    usage: Usage = Usage()
    finish: Finish = "stop"
    native: str = field(default="", repr=False)


@dataclass(frozen=True)
class Delta:
    """A piece of an answer that is still being written."""

    text: str = ""
    thinking: str = ""


@dataclass(frozen=True)
class Limits:
    """How much one answer may take. None means: as the server's settings say.

    `max_tokens` of output and `seconds` for the whole call, retries included, are lowered by this and never raised
    above the settings. `parallel` allows several tool calls in one answer. `thinking` and `response_format` (as
    OpenAI's protocol has it) go to those that know them.
    """

    max_tokens: int | None = None
    seconds: float | None = None
    temperature: float | None = None
    parallel: bool = True
    thinking: Thinking | None = None
    response_format: Mapping[str, Any] | None = None


NO_LIMITS = Limits()
"""None but those of the settings."""


class ModelFailed(TallystoneError):
    """The model gave no answer that can be used. The message names the provider and what happened, never what was said.

    `kind` is `timeout`, `refused` (key, quota, model or request are not accepted), `unavailable` (overloaded, broken or
    not reached, after the retries), `bad_answer` (not what its protocol says) or `too_long` (the conversation does not
    fit the model's context window).
    """

    code = "model_failed"
    status = 502

    def __init__(
        self, kind: FailureKind, message: str = "the model gave no usable answer", *, hint: str = ""
    ) -> None:
        super().__init__(message, hint=hint)
        self.kind: FailureKind = kind


class Models(Protocol):
    """What a turn needs of the models: `ModelLayer`, or a stand-in of the same shape."""

    def check(self, handle: str | None, *, key: str | None = None) -> object:
        """Raise `Rejected` (400, `no_model`) unless this handle can be called from here."""

    async def reply(
        self,
        handle: str | None,
        said: Sequence[Said],
        tools: Sequence[ToolSpec] = (),
        *,
        limits: Limits = NO_LIMITS,
        key: str | None = None,
    ) -> Reply:
        """The whole answer at once. Raises `ModelFailed`, or `Rejected` as `check` does."""

    def stream(
        self,
        handle: str | None,
        said: Sequence[Said],
        tools: Sequence[ToolSpec] = (),
        *,
        limits: Limits = NO_LIMITS,
        key: str | None = None,
    ) -> AsyncGenerator[Delta | Reply, None]:
        """The answer in pieces, then as a whole: the last item is the `Reply`. Close it to stop the model."""
