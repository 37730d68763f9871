"""A user's MCP servers, and the tools that they offer. Each function is one operation.

Nothing here calls a server: what it answered is handed in. A change reaches the agents that hold a tool of the server
in the same commit.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from tallystone.errors import Invalid
from tallystone.keystore import Keys
from tallystone.vault import streams
from tallystone.vault.agents import change_state
from tallystone.vault.attaching import users_only
from tallystone.vault.caller import Caller
from tallystone.vault.external import (
    ACCESS,
    COPY,
    SERVER,
    TOOL,
    missing_tool,
    open_access,
    seal_access,
    server_of,
    tool_of,
    tool_record,
)
from tallystone.vault.opening import missing
from tallystone.vault.plan import Plan
from tallystone.vault.records import Held
from tallystone.vault.shelves import AGENTS, agent_keys, walk
from tallystone.vault.streams import Entry
from tallystone.vault.tool_copies import give_access, renew
from tallystone.vault.types import ExternalTool, ToolAccess, ToolServer

MAX_SERVERS = 100
"""MCP servers that a user may have."""

Edit = Callable[[ToolServer, ToolAccess], tuple[Mapping[str, Any], ToolAccess]]
"""From a server as it is to fields of its record (`name`, `kind`, `url`, `auth_header`, `headers`) and its access."""


def _find(caller: Caller, plan: Plan, server_id: str) -> Entry:
    record = streams.find(plan, caller.keys, SERVER, server_id)
    if record is None:
        raise missing("MCP server", server_id)
    return record


def _mine(caller: Caller) -> None:
    users_only(caller)
    caller.must_act()


def create_server(
    caller: Caller, server_id: str, fields: Mapping[str, Any], access: ToolAccess
) -> ToolServer:
    """Keep a new server of the caller's."""

    def action(plan: Plan) -> ToolServer:
        _mine(caller)
        if sum(1 for _ in streams.walk(plan, caller.keys, SERVER)) >= MAX_SERVERS:
            raise Invalid(f"you have {MAX_SERVERS} MCP servers", hint="delete one that you no longer use")
        now = caller.workspace.now_ms()
        record = {
            "id": server_id,
            **fields,
            "created": now,
            "updated": now,
            "fetched": None,
            "access": seal_access(caller.keys, server_id, access),
        }
        streams.put(plan, caller.keys, SERVER, server_id, record)
        caller.event(plan, "create", server=server_id)
        return server_of(record)

    return caller.transact(action)


def list_servers(caller: Caller) -> list[ToolServer]:
    """The caller's servers, oldest first."""

    def action(plan: Plan) -> list[ToolServer]:
        found = [server_of(record) for _, record in streams.walk(plan, caller.keys, SERVER)]
        caller.event(plan, "list", servers=len(found))
        return sorted(found, key=lambda server: (server.created_at, server.id))

    return caller.transact(action)


def read_server(caller: Caller, server_id: str) -> ToolServer:
    """One of the caller's servers."""

    def action(plan: Plan) -> ToolServer:
        record = _find(caller, plan, server_id)
        caller.event(plan, "read", server=server_id)
        return server_of(record)

    return caller.transact(action)


def open_server(caller: Caller, server_id: str) -> tuple[ToolServer, ToolAccess, list[ExternalTool]]:
    """A server, how it is called, and its tools as they were last fetched; logged before it is called."""

    def action(plan: Plan) -> tuple[ToolServer, ToolAccess, list[ExternalTool]]:
        _mine(caller)
        record = _find(caller, plan, server_id)
        caller.event(plan, "tool", server=server_id)
        access = open_access(caller.keys, server_id, record["access"])
        return server_of(record), access, _tools(caller, plan, server_id)

    return caller.transact(action)


def edit_server(caller: Caller, server_id: str, edit: Edit) -> ToolServer:
    """Change a server, and how the agents that hold tools of it call it."""

    def action(plan: Plan) -> ToolServer:
        _mine(caller)
        record = _find(caller, plan, server_id)
        access = open_access(caller.keys, server_id, record["access"])
        fields, access = edit(server_of(record), access)
        sealed = seal_access(caller.keys, server_id, access)
        record = {**record, **fields, "updated": caller.workspace.now_ms(), "access": sealed}
        streams.put(plan, caller.keys, SERVER, server_id, record)
        touched = []
        for held, keys in _holders(caller, plan, server_id):
            give_access(plan, keys, server_id, access)
            touched.append(held.key)
        caller.event(plan, "update", *touched, server=server_id)
        return server_of(record)

    return caller.transact(action)


def delete_server(caller: Caller, server_id: str) -> None:
    """Forget a server with its tools, also those that agents hold."""

    def action(plan: Plan) -> None:
        _mine(caller)
        _find(caller, plan, server_id)
        touched = _take(caller, plan, server_id, _tools(caller, plan, server_id))
        for held, keys in _holders(caller, plan, server_id):
            streams.drop(plan, keys, ACCESS, server_id)
            touched.append(held.key)
        streams.drop(plan, caller.keys, SERVER, server_id)
        caller.event(plan, "delete", *dict.fromkeys(touched), server=server_id)

    caller.transact(action)


def _tools(caller: Caller, plan: Plan, server_id: str | None = None) -> list[ExternalTool]:
    found = [tool_of(record) for _, record in streams.walk(plan, caller.keys, TOOL)]
    mine = [tool for tool in found if server_id is None or tool.server == server_id]
    return sorted(mine, key=lambda tool: (tool.server, tool.position))


def list_tools(caller: Caller, server_id: str | None) -> list[ExternalTool]:
    """The tools of one of the caller's servers, or all that the caller has: an agent, those attached to it."""

    def action(plan: Plan) -> list[ExternalTool]:
        if server_id is not None:
            _find(caller, plan, server_id)
        if caller.id.startswith("agent-"):
            tools = [tool_of(record) for _, record in streams.walk(plan, caller.keys, COPY)]
            tools.sort(key=lambda tool: (tool.server, tool.position))
        else:
            tools = _tools(caller, plan, server_id)
        caller.event(plan, "list", tools=len(tools))
        return tools

    return caller.transact(action)


def read_tool(caller: Caller, tool_id: str, server_id: str | None) -> ExternalTool:
    """A tool of the caller's; with `server_id`, only if it is that server's."""

    def action(plan: Plan) -> ExternalTool:
        if server_id is not None:
            _find(caller, plan, server_id)
        drawer = COPY if caller.id.startswith("agent-") else TOOL
        record = streams.find(plan, caller.keys, drawer, tool_id)
        if record is None or server_id not in (None, record["server"]):
            raise missing_tool(tool_id)
        caller.event(plan, "read", tool=tool_id)
        return tool_of(record)

    return caller.transact(action)


def replace_tools(caller: Caller, server_id: str, tools: Sequence[ExternalTool]) -> dict[str, list[str]]:
    """Keep what a server offers now. Agents that hold a tool of it get its newer description; what it offers no more
    is taken from them. Returns the names of the tools that are new (`added`), other than before (`updated`) and gone
    (`deleted`)."""

    def action(plan: Plan) -> dict[str, list[str]]:
        _mine(caller)
        record = _find(caller, plan, server_id)
        before = {tool.id: tool for tool in _tools(caller, plan, server_id)}
        now = {tool.id: tool for tool in tools}
        gone = [tool for tool in before.values() if tool.id not in now]
        added = [tool for tool in now.values() if tool.id not in before]
        changed = [tool for tool in now.values() if tool.id in before and not _same(tool, before[tool.id])]
        touched = _take(caller, plan, server_id, gone)
        for tool in now.values():
            if tool != before.get(tool.id):
                streams.put(plan, caller.keys, TOOL, tool.id, tool_record(tool))
        for held, keys in _holders(caller, plan, server_id) if changed else ():
            renew(plan, keys, changed)
            touched.append(held.key)
        streams.put(plan, caller.keys, SERVER, server_id, {**record, "fetched": caller.workspace.now_ms()})
        caller.event(plan, "update", *dict.fromkeys(touched), server=server_id, tools=len(now))
        return {
            "added": [tool.name for tool in added],
            "updated": [tool.name for tool in changed],
            "deleted": [tool.name for tool in gone],
        }

    return caller.transact(action)


def _same(tool: ExternalTool, other: ExternalTool) -> bool:
    return replace(tool, position=other.position) == other


# -- the agents that hold its tools -------------------------------------------------------------------------------


def _holders(caller: Caller, plan: Plan, server_id: str) -> Iterator[tuple[Held, Keys]]:
    for held in walk(plan, caller.keys, AGENTS):
        keys = agent_keys(caller, held)
        if streams.find(plan, keys, ACCESS, server_id) is not None:
            yield held, keys


def _without(lost: Collection[str], state: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"tools": [entry for entry in state.get("tools", ()) if entry not in lost]}


def _take(caller: Caller, plan: Plan, server_id: str, gone: Sequence[ExternalTool]) -> list[bytes]:
    """Queue the end of tools, the agents' copies included. Returns the K_grants of the agents that lost one."""
    touched = []
    for held, keys in list(_holders(caller, plan, server_id)) if gone else ():
        lost = {tool.id for tool in gone if streams.find(plan, keys, COPY, tool.id) is not None}
        if lost:
            change_state(caller, plan, held, partial(_without, lost))
            touched.append(held.key)
    for tool in gone:
        streams.drop(plan, caller.keys, TOOL, tool.id)
    return touched
