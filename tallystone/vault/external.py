"""Tools of other servers (MCP): their records, and what opens them.

A user's servers and the tools that they offer lie in two drawers of the user's. What a call needs besides (the whole
URL, the credentials) is sealed once more, under a key of the half of the root that acts: who may only read sees which
tools there are, and cannot open what would let it call one. An agent holds copies of its own, under its own keys, so
that its token alone can call what was attached to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tallystone import _cbor, crypto
from tallystone.errors import NotFound
from tallystone.keystore import Keys
from tallystone.vault import streams
from tallystone.vault.plan import Plan
from tallystone.vault.streams import Entry
from tallystone.vault.types import ExternalTool, ToolAccess, ToolServer
from tallystone.vault.views import when

SERVER, TOOL = ("tool server",), ("server tool",)
"""Drawers of a user: servers by id, and their tools by id."""
COPY, ACCESS = ("attached tool",), ("tool access",)
"""Drawers of an agent: the tools attached to it by id, and by the id of their server how it is called."""


def is_external(entry: str) -> bool:
    """Whether an entry of an agent's list of tools is the id of such a tool: other entries are names."""
    return entry.startswith("tool-")


def missing_tool(tool_id: str) -> NotFound:
    """The one miss for tools: of nobody, and of somebody else."""
    return NotFound(f"Tool {tool_id} not found", hint="list the tools with GET /v1/tools/")


# -- what only who acts can open ----------------------------------------------------------------------------------


def _context(keys: Keys, server: str) -> bytes:
    return crypto.pae("tool access", keys.principal, server)


def seal_access(keys: Keys, server: str, access: ToolAccess) -> bytes:
    """How a server is called, for whoever can act as the principal of `keys`."""
    content = [access.kind, access.url, access.auth_header, access.auth_token, dict(access.headers)]
    return crypto.seal(keys.access, _context(keys, server), _cbor.encode(content))


def open_access(keys: Keys, server: str, sealed: bytes) -> ToolAccess:
    """The reverse. Raises `Tampered`."""
    opened = crypto.open_sealed(keys.access, _context(keys, server), sealed)
    return ToolAccess(*_cbor.unpack(opened, "a tool server's access", str, str, str, str, dict))


# -- records ------------------------------------------------------------------------------------------------------


def tool_of(record: Mapping[str, Any]) -> ExternalTool:
    """A tool as its record says it."""
    return ExternalTool(
        id=record["id"],
        name=record["name"],
        server=record["server"],
        remote=record["remote"],
        description=record["description"],
        parameters=record["parameters"],
        position=record["position"],
    )


def tool_record(tool: ExternalTool) -> Entry:
    """The record of a tool."""
    return {
        "id": tool.id,
        "name": tool.name,
        "server": tool.server,
        "remote": tool.remote,
        "description": tool.description,
        "parameters": tool.parameters,
        "position": tool.position,
    }


def server_of(record: Mapping[str, Any]) -> ToolServer:
    """A server as its record says it: without what is sealed in there."""
    fetched = record["fetched"]
    return ToolServer(
        id=record["id"],
        name=record["name"],
        kind=record["kind"],
        url=record["url"],
        auth_header=record["auth_header"],
        headers=tuple(record["headers"]),
        created_at=when(record["created"]),
        updated_at=when(record["updated"]),
        fetched_at=None if fetched is None else when(fetched),
    )


def copies(plan: Plan, keys: Keys, state: Mapping[str, Any]) -> dict[str, ExternalTool]:
    """The tools of other servers that an agent with this state holds, by id."""
    found: dict[str, ExternalTool] = {}
    for entry in state.get("tools", ()):
        record = streams.find(plan, keys, COPY, entry) if is_external(entry) else None
        if record is not None:
            found[entry] = tool_of(record)
    return found
