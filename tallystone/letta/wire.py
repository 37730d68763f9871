"""What goes back: blocks, agents and tools as the JSON objects that `letta-client` parses, strictly or not.

Lists are never null (contract §2): `for block in agent.blocks` must not break. Fields that the client does not declare
(`agent_ids`, `block_ids`, `version`, …) reach its users as attributes all the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from tallystone.letta.call import Answer
from tallystone.letta.messages import Style, date_json, typed
from tallystone.letta.tools import Tool, attached
from tallystone.vault.types import Agent, Block

ENDPOINT_TYPES = frozenset(
    [
        "openai",
        "anthropic",
        "google_ai",
        "google_vertex",
        "azure",
        "groq",
        "ollama",
        "webui",
        "webui-legacy",
        "lmstudio",
        "lmstudio-legacy",
        "lmstudio-chatcompletions",
        "llamacpp",
        "koboldcpp",
        "vllm",
        "hugging-face",
        "minimax",
        "moonshot",
        "moonshot_coding",
        "mistral",
        "together",
        "bedrock",
        "deepseek",
        "xai",
        "zai",
        "zai_coding",
        "baseten",
        "fireworks",
        "openrouter",
        "chatgpt_oauth",
    ]
)
"""The closed list of the client's `llm_config.model_endpoint_type`."""


def endpoint_type(provider: str) -> str:
    """What of that list a provider is; whoever is not on it speaks OpenAI's protocol."""
    kind = {"google": "google_ai"}.get(provider, provider)
    return kind if kind in ENDPOINT_TYPES else "openai"


CONTEXT_WINDOW = 32_000
"""Tokens; stands in an agent's `llm_config` when nobody said otherwise. No model is run with it."""

_BLOCK_DEFAULTS: Mapping[str, Any] = {
    "hidden": None,
    "is_template": False,
    "template_name": None,
    "template_id": None,
    "base_template_id": None,
    "deployment_id": None,
    "entity_id": None,
    "project_id": None,
    "preserve_on_migration": False,
}

_ECHOED = (
    "description",
    "model",
    "embedding",
    "embedding_config",
    "model_settings",
    "compaction_settings",
    "response_format",
    "enable_sleeptime",
    "hidden",
    "max_files_open",
    "per_file_view_window_char_limit",
    "project_id",
    "template_id",
    "base_template_id",
    "deployment_id",
    "entity_id",
)


def stamp(moment: datetime) -> str:
    """RFC 3339 in UTC, with `Z`."""
    if moment.tzinfo is not UTC:
        moment = moment.astimezone(UTC)
    return f"{moment.isoformat()[:-6]}Z"


def etag(block: Block) -> str:
    """The entity tag of a block's current version."""
    return etag_of(block.version)


def etag_of(version: int) -> str:
    """The entity tag of a version of a block."""
    return f'"{version}"'


def _extra(extra: Mapping[str, Any]) -> dict[str, Any]:
    return {name: extra.get(name, default) for name, default in _BLOCK_DEFAULTS.items()}


def block_json(block: Block) -> dict[str, Any]:
    """`BlockResponse`, and our extras."""
    return {
        "id": block.id,
        "label": block.label,
        "value": block.value,
        "description": block.description,
        "limit": block.limit,
        "metadata": block.metadata,
        "tags": list(block.tags),
        "read_only": block.read_only,
        **(_BLOCK_DEFAULTS if not block.extra else _extra(block.extra)),
        "created_by_id": block.created_by,
        "last_updated_by_id": block.updated_by,
        "agent_ids": list(block.agent_ids),
        "created_at": stamp(block.created_at),
        "updated_at": stamp(block.updated_at),
        "version": block.version,
        "locked": block.locked,
        "owner": block.owner,
        "rights": block.rights,
        "through": block.through or None,
        "sensitivity": block.sensitivity,
        "allowed": block.allowed,
        "expires": block.expires,
        "mutable": block.mutable,
        "append_only": block.append_only,
        "keep": block.keep,
        "audit_level": block.audit_level,
        "updated_under": block.updated_under,
    }


def block_answer(block: Block) -> Answer:
    """One block, with its `ETag`."""
    return Answer(block_json(block), headers={"etag": etag(block)})


def blocks_answer(blocks: list[Block]) -> Answer:
    """A page of blocks."""
    return Answer([block_json(block) for block in blocks])


def llm_config(state: Mapping[str, Any]) -> dict[str, Any]:
    """The `llm_config` that clients require on each agent: as given, completed from the model's handle."""
    handle = state.get("model") or ""
    provider, _, name = handle.partition("/") if "/" in handle else ("", "", handle)
    config: dict[str, Any] = {
        "model": name,
        "model_endpoint_type": endpoint_type(provider),
        "context_window": CONTEXT_WINDOW,
        "handle": handle or None,
        **(state.get("llm_config") or {}),
    }
    if state.get("context_window_limit") is not None:
        config["context_window"] = state["context_window_limit"]
    for name in ("max_tokens", "max_reasoning_tokens", "enable_reasoner", "parallel_tool_calls"):
        if state.get(name) is not None:
            config[name] = state[name]
    return config


def _secrets(agent: Agent, name: str) -> list[dict[str, Any]]:
    """The names of an agent's secrets. Their values go in and never come out."""
    return [{"agent_id": agent.id, "key": key, "value": ""} for key in agent.state.get(name) or {}]


LAST_RUN = ("last_stop_reason", "last_run_completion", "last_run_duration_ms")
"""Fields of an agent that tell of its latest run."""


def last_run(agent: Agent) -> dict[str, Any]:
    """Those fields, from the latest run that is over; before there is one, what a client put there."""
    run = agent.last_run
    if run is None:
        return {name: agent.state.get(name) for name in LAST_RUN}
    completed = run.get("completed")
    values = (
        run.get("stop_reason"),
        date_json(completed) if completed else None,
        completed - run["created"] if completed else None,
    )
    return dict(zip(LAST_RUN, values, strict=True))


def _pending(agent: Agent) -> dict[str, Any] | None:
    """The request for an approval that the agent's own conversation waits on."""
    asked = typed(agent.awaited, Style(frozenset(["approval_request_message"]))) if agent.awaited else []
    return asked[0] if asked else None


def agent_json(agent: Agent) -> dict[str, Any]:
    """`AgentState`, and our extras."""
    state = agent.state
    kind = state.get("agent_type") or "letta_v1_agent"
    blocks = [block_json(block) for block in agent.blocks]
    return {
        "id": agent.id,
        "name": agent.name,
        "agent_type": kind,
        "system": state.get("system") or "",
        **{name: state.get(name) for name in _ECHOED},
        **last_run(agent),
        "pending_approval": _pending(agent),
        "metadata": state.get("metadata") or {},
        "tags": list(state.get("tags") or ()),
        "llm_config": llm_config(state),
        "blocks": blocks,
        "memory": {"blocks": blocks, "file_blocks": [], "agent_type": kind, "git_enabled": False},
        "tools": [tool_json(tool) for tool in attached(agent)],
        "sources": [],
        "identities": [],
        "identity_ids": list(state.get("identity_ids") or ()),
        "message_ids": list(state.get("message_ids") or ()),
        "secrets": _secrets(agent, "secrets"),
        "tool_exec_environment_variables": _secrets(agent, "tool_exec_environment_variables"),
        "tool_rules": list(state.get("tool_rules") or ()),
        "timezone": state.get("timezone") or "UTC",
        "message_buffer_autoclear": bool(state.get("message_buffer_autoclear")),
        "created_at": stamp(agent.created_at),
        "updated_at": stamp(agent.updated_at),
        "created_by_id": agent.sponsor,
        "last_updated_by_id": agent.sponsor,
        "block_ids": [block.id for block in agent.blocks],
        "version": agent.version,
    }


def agent_answer(agent: Agent) -> Answer:
    """One agent."""
    return Answer(agent_json(agent))


def agents_answer(agents: list[Agent]) -> Answer:
    """A page of agents."""
    return Answer([agent_json(agent) for agent in agents])


def tool_json(tool: Tool) -> dict[str, Any]:
    """`Tool`. `served` is ours: whether running it does more than say that nobody provides it."""
    external = tool.external
    return {
        "id": tool.id,
        "name": tool.name,
        "tool_type": tool.tool_type,
        "description": tool.description,
        "json_schema": tool.json_schema,
        "args_json_schema": tool.json_schema["parameters"],
        "source_type": "python" if external is None else "json",
        "source_code": None,
        "tags": [tool.tool_type],
        "metadata_": {}
        if external is None
        else {"mcp": {"server_id": external.server, "tool": external.remote}},
        "return_char_limit": 50_000,
        "default_requires_approval": None,
        "enable_parallel_execution": False,
        "pip_requirements": [],
        "npm_requirements": [],
        "created_by_id": None,
        "last_updated_by_id": None,
        "project_id": None,
        "served": tool.served,
    }
