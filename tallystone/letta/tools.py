"""The catalogue of tools: names that clients already use, with their schemas (contract §5).

These tools are code of this server, not rows: an agent's state holds names. Ids are derived from the names, so that
they are the same on each server and after each restart. A tool that needs what this server has not (a search engine, a
sandbox) is known and attachable all the same; run, it answers a tool error. The tools of MCP
servers are rows of their owner's, which a state names by their ids.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from tallystone.vault.types import Agent, ExternalTool

STRING: dict[str, Any] = {"type": "string"}
INTEGER: dict[str, Any] = {"type": "integer"}
BOOLEAN: dict[str, Any] = {"type": "boolean"}
STRINGS: dict[str, Any] = {"type": "array", "items": {"type": "string"}}


@dataclass(frozen=True)
class Tool:
    """A tool that agents may be given. `json_schema` is in the form that model providers take."""

    name: str
    tool_type: str
    description: str
    json_schema: dict[str, Any]
    served: bool
    external: ExternalTool | None = None

    @property
    def id(self) -> str:
        """`tool-` and the name's hash in the shape of a version-4 UUID; a tool of an MCP server has its own."""
        return self.external.id if self.external is not None else f"tool-{uuid_of('tool', self.name)}"


def uuid_of(purpose: str, *parts: str) -> str:
    """The hash of these texts in the shape of a version-4 UUID, which is what clients take for an id."""
    text = "/".join(["tallystone", purpose, *parts])
    raw = bytearray(hashlib.sha256(text.encode()).digest()[:16])
    raw[6] = raw[6] & 0x0F | 0x40
    raw[8] = raw[8] & 0x3F | 0x80
    return str(UUID(bytes=bytes(raw)))


def _tool(
    name: str,
    tool_type: str,
    description: str,
    required: dict[str, dict[str, Any]],
    optional: dict[str, dict[str, Any]] | None = None,
    *,
    served: bool = False,
) -> Tool:
    schema = {
        "name": name,
        "description": description,
        "parameters": {
            "type": "object",
            "properties": {**required, **(optional or {})},
            "required": list(required),
        },
    }
    return Tool(name, tool_type, description, schema, served)


_MEMORY, _SLEEP, _CORE = "letta_memory_core", "letta_sleeptime_core", "letta_core"
_MULTI, _VOICE, _BUILTIN, _FILES = (
    "letta_multi_agent_core",
    "letta_voice_sleeptime_core",
    "letta_builtin",
    "letta_files_core",
)
_DATES = {"start_date": STRING, "end_date": STRING}

CATALOGUE: tuple[Tool, ...] = (
    _tool(
        "core_memory_append",
        _MEMORY,
        "Add text as a new line at the end of a memory block.",
        {"label": STRING, "content": STRING},
        served=True,
    ),
    _tool(
        "core_memory_replace",
        _MEMORY,
        "Replace every occurrence of an exact text in a memory block; an empty replacement deletes it.",
        {"label": STRING, "old_content": STRING, "new_content": STRING},
        served=True,
    ),
    _tool(
        "memory",
        _MEMORY,
        "Create, edit, delete or rename memory blocks by path (/memories/<label>).",
        {"command": STRING},
        {
            "path": STRING,
            "file_text": STRING,
            "description": STRING,
            "old_string": STRING,
            "new_string": STRING,
            "insert_line": INTEGER,
            "insert_text": STRING,
            "old_path": STRING,
            "new_path": STRING,
        },
        served=True,
    ),
    _tool(
        "memory_apply_patch",
        _MEMORY,
        "Apply a patch of context, '-' and '+' lines to one memory block, or one with sections to several.",
        {"label": STRING, "patch": STRING},
        served=True,
    ),
    _tool(
        "memory_insert",
        _SLEEP,
        "Insert text after a line of a memory block: 0 is the top, -1 the end.",
        {"label": STRING, "new_string": STRING},
        {"insert_line": INTEGER},
        served=True,
    ),
    _tool(
        "memory_replace",
        _SLEEP,
        "Replace a text that stands exactly once in a memory block.",
        {"label": STRING, "old_string": STRING, "new_string": STRING},
        served=True,
    ),
    _tool(
        "memory_rethink",
        _SLEEP,
        "Rewrite a whole memory block.",
        {"label": STRING, "new_memory": STRING},
        served=True,
    ),
    _tool("memory_finish_edits", _SLEEP, "Say that the memory is in order.", {}, served=True),
    _tool("send_message", _CORE, "Send a message to the person.", {"message": STRING}, served=True),
    _tool(
        "conversation_search",
        _CORE,
        "Search earlier messages.",
        {},
        {
            "query": STRING,
            "roles": {"type": "array", "items": {"type": "string", "enum": ["assistant", "user", "tool"]}},
            "limit": INTEGER,
            **_DATES,
        },
        served=True,
    ),
    _tool(
        "archival_memory_insert",
        _CORE,
        "Keep a text in archival memory.",
        {"content": STRING},
        {"tags": STRINGS},
        served=True,
    ),
    _tool(
        "archival_memory_search",
        _CORE,
        "Search archival memory.",
        {"query": STRING},
        {
            "tags": STRINGS,
            "tag_match_mode": {"type": "string", "enum": ["any", "all"]},
            "top_k": INTEGER,
            "start_datetime": STRING,
            "end_datetime": STRING,
        },
        served=True,
    ),
    _tool(
        "send_message_to_agent_async",
        _MULTI,
        "Send a message to another agent and go on. It is read in the other's next turn.",
        {"message": STRING, "other_agent_id": STRING},
        served=True,
    ),
    _tool(
        "send_message_to_agent_and_wait_for_reply",
        _MULTI,
        "Send a message to another agent and wait for its answer.",
        {"message": STRING, "other_agent_id": STRING},
        served=True,
    ),
    _tool(
        "send_message_to_agents_matching_tags",
        _MULTI,
        "Send a message to all agents with certain tags.",
        {"message": STRING, "match_all": STRINGS, "match_some": STRINGS},
    ),
    _tool("web_search", _BUILTIN, "Search the web.", {"query": STRING}, {"num_results": INTEGER}),
    _tool("fetch_webpage", _BUILTIN, "Read a web page.", {"url": STRING}),
    _tool("run_code", _BUILTIN, "Run code in a sandbox.", {"code": STRING, "language": STRING}),
    _tool(
        "store_memories",
        _VOICE,
        "Keep parts of a conversation.",
        {"chunks": {"type": "array", "items": {"type": "object"}}},
    ),
    _tool("rethink_user_memory", _VOICE, "Rewrite what is known of the person.", {"new_memory": STRING}),
    _tool("finish_rethinking_memory", _VOICE, "Say that the memory is in order.", {}),
    _tool(
        "open_files", _FILES, "Open files.", {"file_requests": {"type": "array", "items": {"type": "object"}}}
    ),
    _tool("grep_files", _FILES, "Search files for a pattern.", {"pattern": STRING}, {"include": STRING}),
    _tool("semantic_search_files", _FILES, "Search files by meaning.", {"query": STRING}, {"limit": INTEGER}),
)

BY_NAME = {tool.name: tool for tool in CATALOGUE}
BY_ID = {tool.id: tool for tool in CATALOGUE}

BASE_TOOLS: dict[str, tuple[str, ...]] = {
    "letta_v1_agent": ("conversation_search", "memory_insert", "memory_replace"),
    "memgpt_v2_agent": ("send_message", "conversation_search", "memory_insert", "memory_replace"),
    "memgpt_agent": (
        "send_message",
        "conversation_search",
        "core_memory_append",
        "core_memory_replace",
        "memory",
        "memory_apply_patch",
    ),
    "sleeptime_agent": ("memory_replace", "memory_insert", "memory_rethink", "memory_finish_edits"),
    "react_agent": (),
    "workflow_agent": (),
    "split_thread_agent": (),
    "voice_convo_agent": (),
    "voice_sleeptime_agent": ("store_memories", "rethink_user_memory", "finish_rethinking_memory"),
}
"""The tools that an agent of each type starts with, unless `include_base_tools` is false. Its keys are all types."""

MULTI_AGENT_TOOLS = tuple(tool.name for tool in CATALOGUE if tool.tool_type == _MULTI)


EXTERNAL = "external_mcp"
"""The type of tools of MCP servers."""


def of_external(tool: ExternalTool) -> Tool:
    """A tool of an MCP server, as agents are given it."""
    schema = {"name": tool.name, "description": tool.description, "parameters": json.loads(tool.parameters)}
    return Tool(tool.name, EXTERNAL, tool.description, schema, served=True, external=tool)


def attached(agent: Agent) -> list[Tool]:
    """The tools of an agent, in the order in which they were attached."""
    found: list[Tool] = []
    for entry in agent.state.get("tools", ()):
        if entry in agent.external:
            found.append(of_external(agent.external[entry]))
        elif entry in BY_NAME:
            found.append(BY_NAME[entry])
    return found


def unknown_names(names: Iterable[str]) -> list[str]:
    """Those of `names` that are in no catalogue, in order."""
    return [name for name in names if name not in BY_NAME]
