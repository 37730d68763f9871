"""Our conversation in the protocols of OpenAI, Anthropic and Google, by pydantic-ai's model classes.

Its agent loop is not used: a prompt here changes with every step. Of its front this takes `direct`, which sends what it
is given (and breaks up chat-template tokens in values where an endpoint would read them as structure).
"""

from __future__ import annotations

import json
import logging
import math
import ssl
from collections.abc import AsyncGenerator, Sequence
from typing import Any, cast

import httpx2
from pydantic_ai import direct
from pydantic_ai.messages import (
    ModelMessage,
    ModelRequest,
    ModelRequestPart,
    ModelResponse,
    PartDeltaEvent,
    PartStartEvent,
    SystemPromptPart,
    TextPart,
    TextPartDelta,
    ThinkingPart,
    ThinkingPartDelta,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_ai.models import Model, ModelRequestParameters
from pydantic_ai.settings import ModelSettings, ThinkingLevel
from pydantic_ai.tools import ToolDefinition

from tallystone.letta import model_native, outbound
from tallystone.letta.model import Delta, Finish, Limits, Reply, Said, ToolCall, ToolSpec, Usage
from tallystone.letta.model_faults import CutShort
from tallystone.letta.providers import Family, Target

for _name in ("openai", "anthropic", "google_genai", "pydantic_ai", "httpx", "httpx2", "httpcore2"):
    # their debug lines, which an environment variable can turn on, quote requests and headers
    logging.getLogger(_name).setLevel(logging.CRITICAL)

_SMALLEST_BUDGET = 1024  # tokens that Anthropic takes as a budget of thinking
_MOST_TOKENS = 1_000_000_000
_TRUSTS_NOBODY = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def load(family: Family) -> None:
    """Import what calls of this family need, ahead of them: in a thread, for the first time takes seconds."""
    if family == "anthropic":
        import pydantic_ai.models.anthropic
        import pydantic_ai.providers.anthropic
    elif family == "google":
        import pydantic_ai.models.google
        import pydantic_ai.providers.google
    else:
        import pydantic_ai.models.openai
        import pydantic_ai.providers.openai
        import pydantic_ai.providers.openai_compatible  # noqa: F401  (imported to be loaded, not to be used here)


async def reply(
    target: Target,
    client: httpx2.AsyncClient,
    said: Sequence[Said],
    tools: Sequence[ToolSpec],
    limits: Limits,
) -> Reply:
    """One call, the whole answer. Raises whatever the libraries raise: `model_faults` makes sense of it."""
    model = _model(target, client, limits.seconds or 60)
    response = await direct.model_request(
        model,
        messages(said, target),
        model_settings=_settings(target, model, limits, tools),
        model_request_parameters=_parameters(tools),
        instrument=False,
    )
    return _reply(response, target)


async def stream(
    target: Target,
    client: httpx2.AsyncClient,
    said: Sequence[Said],
    tools: Sequence[ToolSpec],
    limits: Limits,
) -> AsyncGenerator[Delta | Reply, None]:
    """One call, in pieces. An empty `Delta` says that something else has begun, a tool call for example."""
    model = _model(target, client, limits.seconds or 60)
    async with direct.model_request_stream(
        model,
        messages(said, target),
        model_settings=_settings(target, model, limits, tools),
        model_request_parameters=_parameters(tools),
        instrument=False,
    ) as answer:
        async for event in answer:
            yield _delta(event)
        response = answer.get()
    yield _reply(response, target)


def _model(target: Target, client: httpx2.AsyncClient, seconds: float) -> Model[Any]:
    if target.family == "anthropic":
        from anthropic import AsyncAnthropic
        from pydantic_ai.models.anthropic import AnthropicModel
        from pydantic_ai.providers.anthropic import AnthropicProvider

        claude = AsyncAnthropic(
            api_key=target.key or "none", base_url=target.url, http_client=client, max_retries=0
        )
        return AnthropicModel(target.model, provider=AnthropicProvider(anthropic_client=claude))
    if target.family == "google":
        from google.genai import Client
        from google.genai.types import HttpOptions
        from pydantic_ai.models.google import GoogleModel
        from pydantic_ai.providers.google import GoogleProvider

        options = HttpOptions(
            base_url=target.url,
            timeout=math.ceil(seconds * 1000),
            httpx_async_client=client,
            # for clients of its own, which are never used: loading the authorities costs 40 ms for each
            httpx_client=httpx2.Client(transport=outbound.Nowhere()),
            client_args={"verify": _TRUSTS_NOBODY},
            async_client_args={"verify": _TRUSTS_NOBODY, "ssl": _TRUSTS_NOBODY},
        )
        gemini = Client(vertexai=False, api_key=target.key or "none", http_options=options)
        return GoogleModel(target.model, provider=GoogleProvider(client=gemini))
    from openai import AsyncOpenAI
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.profiles.openai import OpenAIModelProfile
    from pydantic_ai.providers.openai import OpenAIProvider
    from pydantic_ai.providers.openai_compatible import OpenAICompatibleProvider

    chat = AsyncOpenAI(api_key=target.key or "none", base_url=target.url, http_client=client, max_retries=0)
    # a stream that just ends is a lost connection, not an answer
    profile = OpenAIModelProfile(openai_chat_streaming_requires_finish_reason=True)
    if target.family == "openai":
        return OpenAIChatModel(target.model, provider=OpenAIProvider(openai_client=chat), profile=profile)
    # the older name of this field is the one that all of them know
    profile["openai_chat_supports_max_completion_tokens"] = False
    compatible = OpenAICompatibleProvider(target.provider, openai_client=chat)
    return OpenAIChatModel(target.model, provider=compatible, profile=profile)


def _settings(target: Target, model: Model[Any], limits: Limits, tools: Sequence[ToolSpec]) -> ModelSettings:
    settings = ModelSettings(max_retries=0)
    if limits.max_tokens is not None:
        settings["max_tokens"] = limits.max_tokens
    if limits.seconds is not None:
        settings["timeout"] = limits.seconds
    if limits.temperature is not None:
        settings["temperature"] = limits.temperature
    if tools and not limits.parallel and target.family != "google":  # Google has no such switch
        settings["parallel_tool_calls"] = False
    if limits.thinking is not None:
        # one of `EFFORTS` or a flag, which a literal type cannot be told
        settings["thinking"] = cast("ThinkingLevel", limits.thinking)
        if target.family == "anthropic" and limits.thinking:
            settings.pop("temperature", None)  # it refuses both together
            return _with_a_budget(settings, model)
    if limits.response_format is not None and target.family in ("openai", "compatible"):
        settings["extra_body"] = {"response_format": dict(limits.response_format)}
    return settings


def _with_a_budget(settings: ModelSettings, model: Model[Any]) -> ModelSettings:
    """Older models of Anthropic think by a budget of tokens, which must leave some for the answer."""
    from pydantic_ai.profiles.anthropic import ANTHROPIC_THINKING_BUDGET_MAP

    if model.profile.get("anthropic_supports_adaptive_thinking"):
        return settings
    level = settings.pop("thinking")
    budget = min(ANTHROPIC_THINKING_BUDGET_MAP[level], settings.get("max_tokens", 0) - _SMALLEST_BUDGET)
    if budget < _SMALLEST_BUDGET or not model.profile.get("supports_thinking"):
        return settings
    thinking = {"anthropic_thinking": {"type": "enabled", "budget_tokens": budget}}
    return cast("ModelSettings", {**settings, **thinking})


def _parameters(tools: Sequence[ToolSpec]) -> ModelRequestParameters:
    return ModelRequestParameters(
        function_tools=[
            # strict modes rewrite schemas, and refuse those of other people's tools
            ToolDefinition(
                name=tool.name,
                parameters_json_schema=dict(tool.parameters),
                description=tool.description,
                strict=False,
            )
            for tool in tools
        ]
    )


def messages(said: Sequence[Said], target: Target) -> list[ModelMessage]:
    """The conversation as pydantic-ai takes it: what lies between two of the model's messages is one request."""
    made: list[ModelMessage] = []
    parts: list[ModelRequestPart] = []
    names = {call.id: call.name for message in said for call in message.tool_calls}
    for message in said:
        if message.role == "assistant":
            if parts:
                made.append(ModelRequest(parts=parts))
                parts = []
            if answered := model_native.parts(message, target.provider):
                made.append(ModelResponse(parts=answered, provider_name=target.provider))
        elif message.role == "tool":
            name = names.get(message.tool_call_id, "tool")
            parts.append(ToolReturnPart(name, message.text, message.tool_call_id))
        elif message.role == "system":
            parts.append(SystemPromptPart(message.text))
        else:
            parts.append(UserPromptPart(message.text))
    if parts:
        made.append(ModelRequest(parts=parts))
    return made


def _delta(event: Any) -> Delta:
    if isinstance(event, PartStartEvent):
        if isinstance(event.part, TextPart):
            return Delta(text=event.part.content)
        if isinstance(event.part, ThinkingPart):
            return Delta(thinking=event.part.content)
    elif isinstance(event, PartDeltaEvent):
        if isinstance(event.delta, TextPartDelta):
            return Delta(text=event.delta.content_delta)
        if isinstance(event.delta, ThinkingPartDelta):
            return Delta(thinking=event.delta.content_delta or "")
    return Delta()


def _reply(response: ModelResponse, target: Target) -> Reply:
    calls = tuple(
        ToolCall(part.tool_call_id, part.tool_name, _arguments(part))
        for part in response.parts
        if isinstance(part, ToolCallPart)
    )
    usage = response.usage
    details = usage.details
    return Reply(
        text="".join(part.content for part in response.parts if isinstance(part, TextPart)),
        thinking="".join(part.content for part in response.parts if isinstance(part, ThinkingPart)),
        tool_calls=calls,
        usage=Usage(
            _count(usage.input_tokens),
            _count(usage.output_tokens),
            _count(usage.cache_read_tokens),
            _count(details.get("reasoning_tokens", 0) or details.get("thoughts_tokens", 0)),
        ),
        finish=_finish(response, calls),
        native=model_native.pack(response, target.provider),
    )


def _count(tokens: int) -> int:
    """A provider's count of tokens, if it can be one: they are summed up and stored."""
    return tokens if 0 <= tokens <= _MOST_TOKENS else 0


def _arguments(part: ToolCallPart) -> str:
    if isinstance(part.args, str):
        return part.args or "{}"
    return json.dumps(part.args or {}, ensure_ascii=False)


def _finish(response: ModelResponse, calls: Sequence[ToolCall]) -> Finish:
    """Why the answer ended. Raises `CutShort` when its provider did not say."""
    if response.finish_reason == "content_filter":
        return "refused"
    if response.finish_reason == "length":
        return "length"
    if response.finish_reason not in ("stop", "tool_call"):
        raise CutShort
    return "tool" if calls else "stop"
