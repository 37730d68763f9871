"""What a provider wants to see again with a message of its model: signatures of thoughts, mostly.

Anthropic and Google sign thinking, and refuse a history in which a signature is missing where tools were called. So
these travel with the message, as JSON without its words: each part of the answer in order, with its length.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import msgspec
from pydantic_ai.messages import ModelResponse, ModelResponsePart, TextPart, ThinkingPart, ToolCallPart

from tallystone.letta.model import Said

_KINDS: Mapping[str, type[TextPart | ThinkingPart]] = {"text": TextPart, "thinking": ThinkingPart}


class _Part(msgspec.Struct, omit_defaults=True):
    """A part of an answer. `size` is the length of its words in characters, a tool call has none."""

    kind: str
    size: int = 0
    id: str | None = None
    signature: str | None = None
    details: dict[str, Any] | None = None
    owner: str | None = None


class _Packed(msgspec.Struct):
    provider: str
    parts: list[_Part]


def pack(response: ModelResponse, provider: str) -> str:
    """What has to come back with this answer, as JSON; empty when nothing has to."""
    parts = [_packed(part) for part in response.parts]
    if not any(part is not None and (part.signature or part.details) for part in parts):
        return ""
    packed = _Packed(provider, [part for part in parts if part is not None])
    try:
        return msgspec.json.encode(packed).decode()
    except TypeError:  # details of a kind that JSON has no word for: the answer does without them
        return ""


def _packed(part: ModelResponsePart) -> _Part | None:
    if isinstance(part, TextPart):
        return _Part("text", len(part.content), part.id, None, part.provider_details, part.provider_name)
    if isinstance(part, ThinkingPart):
        return _Part(
            "thinking", len(part.content), part.id, part.signature, part.provider_details, part.provider_name
        )
    if isinstance(part, ToolCallPart):
        return _Part("tool", 0, part.id, None, part.provider_details, part.provider_name)
    return None


def parts(message: Said, provider: str) -> list[ModelResponsePart]:
    """An assistant's message as parts. Thoughts are left out unless this provider signed them."""
    if message.native:
        signed = _unpacked(message, provider)
        if signed is not None:
            return signed
    plain: list[ModelResponsePart] = [TextPart(message.text)] if message.text else []
    return [*plain, *(_call(message, index) for index in range(len(message.tool_calls)))]


def _unpacked(message: Said, provider: str) -> list[ModelResponsePart] | None:
    """The parts as they were signed, or None when they do not fit this provider or these words."""
    try:
        packed = msgspec.json.decode(message.native, type=_Packed)
    except msgspec.DecodeError:
        return None
    left = {"text": message.text, "thinking": message.thinking}
    made: list[ModelResponsePart] = []
    calls = 0
    for part in packed.parts:
        extra: dict[str, Any] = {"id": part.id, "provider_name": part.owner, "provider_details": part.details}
        if part.kind == "tool" and calls < len(message.tool_calls):
            made.append(_call(message, calls, extra))
            calls += 1
        elif part.kind in left and 0 <= part.size <= len(left[part.kind]):
            words, left[part.kind] = left[part.kind][: part.size], left[part.kind][part.size :]
            if part.kind == "thinking":
                extra["signature"] = part.signature
            made.append(_KINDS[part.kind](words, **extra))
        else:
            return None
    fits = packed.provider == provider and calls == len(message.tool_calls) and not any(left.values())
    return made if fits else None


def _call(message: Said, index: int, extra: Mapping[str, Any] | None = None) -> ToolCallPart:
    call = message.tool_calls[index]
    try:
        arguments = json.loads(call.arguments)
    except ValueError:
        arguments = None
    if not isinstance(arguments, dict):
        # the providers take an object only; the model is shown what it wrote
        arguments = {"not_json": call.arguments}
    return ToolCallPart(call.name, arguments, call.id, **(extra or {}))
