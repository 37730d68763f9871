"""An agent's state: what a body puts into it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tallystone.errors import Invalid, Rejected
from tallystone.letta import bodies, model_options
from tallystone.letta.names import random_name
from tallystone.letta.tools import BASE_TOOLS, BY_ID, MULTI_AGENT_TOOLS, unknown_names
from tallystone.letta.wire import ENDPOINT_TYPES

_LLM_TYPES: Mapping[str, type] = {"model": str, "model_endpoint_type": str, "context_window": int}


def check_llm_config(config: Mapping[str, Any] | None) -> None:
    """Raise `Invalid` for an `llm_config` that clients could not parse when it comes back."""
    for name, kind in _LLM_TYPES.items():
        value = (config or {}).get(name)
        if value is not None and (not isinstance(value, kind) or isinstance(value, bool)):
            raise Invalid(
                f"llm_config.{name} should be of type {kind.__name__}", hint="or leave llm_config out"
            )
    endpoint = (config or {}).get("model_endpoint_type")
    if endpoint is not None and endpoint not in ENDPOINT_TYPES:
        raise Invalid(
            "llm_config.model_endpoint_type is none that clients know", hint="e.g. openai, anthropic, ollama"
        )


def tool_entries(tool_ids: Sequence[str]) -> list[str]:
    """What stands for the tools with these ids in an agent's state: names of ours, and for others the id itself, which
    the vault looks up among the caller's."""
    return [BY_ID[tool_id].name if tool_id in BY_ID else tool_id for tool_id in tool_ids]


def check_tool_rules(rules: Sequence[Mapping[str, Any]] | None) -> None:
    """Raise `Invalid` for a rule whose limit is no number: no turn could obey it."""
    for rule in rules or ():
        limit = rule.get("max_count_limit")
        if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool)):
            raise Invalid("max_count_limit of a tool rule should be a whole number", hint="e.g. 3")


def created(body: bodies.AgentCreate) -> dict[str, Any]:
    """The state of a new agent. Raises `Rejected` (400) for unknown tool names."""
    check_llm_config(body.llm_config)
    kind = bodies.agent_type(body.agent_type)
    names: list[str] = [] if body.include_base_tools is False else list(BASE_TOOLS[kind])
    if body.include_multi_agent_tools:
        names += MULTI_AGENT_TOOLS
    unknown = unknown_names(body.tools or ())
    if unknown:
        raise Rejected(
            f"there are no tools of these names: {', '.join(unknown)}",
            hint="list the tools with GET /v1/tools/",
            code="unknown_tool",
        )
    names += body.tools or ()
    names += tool_entries(bodies.ids("tool", body.tool_ids))
    state = changed(body)
    state["agent_type"] = kind
    state["name"] = body.name or random_name()
    state["tools"] = list(dict.fromkeys(names))
    return state


def changed(body: bodies.AgentFields) -> dict[str, Any]:
    """The parts of the state that a body sets. Nulls are dropped; lists and dicts replace what was there."""
    check_llm_config(body.llm_config)
    model_options.check(body.model_settings, body.response_format)
    check_tool_rules(body.tool_rules)
    sent = bodies.given(body)
    state = {name: sent[name] for name in bodies.STATE_FIELDS if name in sent}
    if "reasoning" in sent:
        state["enable_reasoner"] = sent["reasoning"]
    if "tags" in state:
        state["tags"] = list(dict.fromkeys(state["tags"]))
    if state.get("name") == "":
        raise Invalid("the name is empty", hint="leave it out to keep the name, or to be given one")
    return state
