"""What an agent holds of the tools that were attached to it: copies, sealed under its own keys."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tallystone.errors import Taken
from tallystone.keystore import Keys
from tallystone.vault import streams
from tallystone.vault.caller import Caller
from tallystone.vault.external import (
    ACCESS,
    COPY,
    SERVER,
    TOOL,
    is_external,
    missing_tool,
    open_access,
    seal_access,
    tool_of,
    tool_record,
)
from tallystone.vault.plan import Plan
from tallystone.vault.turns import acting, open_agent
from tallystone.vault.types import ExternalTool, ToolAccess


def hold(caller: Caller, plan: Plan, keys: Keys, before: Iterable[str], after: Iterable[str]) -> None:
    """Queue what makes an agent's copies those of its new list of tools. `before` and `after` are entries of the
    state. Raises the uniform miss for a tool that the caller does not have, `Taken` for two of one name."""
    before, after = [*filter(is_external, before)], [*filter(is_external, after)]
    held: dict[str, ExternalTool] = {}
    for tool_id in after:
        record = streams.find(plan, keys, COPY, tool_id) if tool_id in before else None
        held[tool_id] = _copy(caller, plan, keys, tool_id) if record is None else tool_of(record)
    names = [tool.name for tool in held.values()]
    for tool in held.values():
        if names.count(tool.name) > 1:
            raise Taken(
                f"the agent has a tool called {tool.name!r} already",
                hint="names are unique within an agent; detach the other one first",
                code="tool_taken",
            )
    servers = {tool.server for tool in held.values()}
    for tool_id in set(before).difference(after):
        record = streams.find(plan, keys, COPY, tool_id)
        if record is not None:
            streams.drop(plan, keys, COPY, tool_id)
            if record["server"] not in servers:
                streams.drop(plan, keys, ACCESS, record["server"])


def _copy(caller: Caller, plan: Plan, keys: Keys, tool_id: str) -> ExternalTool:
    """Queue the agent's copy of one of the caller's tools, and of what opens its server."""
    record = streams.find(plan, caller.keys, TOOL, tool_id)
    server = streams.find(plan, caller.keys, SERVER, record["server"]) if record is not None else None
    if record is None or server is None:
        raise missing_tool(tool_id)
    # sealed anew, so that of this and a change of the server, which walks the agents, one runs again
    streams.put(plan, caller.keys, SERVER, server["id"], server)
    streams.put(plan, keys, COPY, tool_id, record)
    give_access(plan, keys, server["id"], open_access(caller.keys, server["id"], server["access"]))
    return tool_of(record)


def give_access(plan: Plan, keys: Keys, server: str, access: ToolAccess) -> None:
    """Queue what lets an agent call a server."""
    streams.put(plan, keys, ACCESS, server, {"id": server, "sealed": seal_access(keys, server, access)})


def renew(plan: Plan, keys: Keys, tools: Iterable[ExternalTool]) -> None:
    """Queue newer descriptions of tools that an agent holds."""
    for tool in tools:
        if streams.find(plan, keys, COPY, tool.id) is not None:
            streams.put(plan, keys, COPY, tool.id, tool_record(tool))


def open_tool(caller: Caller, agent_id: str, tool_id: str) -> tuple[ExternalTool, ToolAccess]:
    """An agent's tool and how to call it; logged before the call is made."""

    def action(plan: Plan) -> tuple[ExternalTool, ToolAccess]:
        caller.must_act()
        held, keys = open_agent(caller, plan, agent_id)
        record = streams.find(plan, keys, COPY, tool_id)
        access = streams.find(plan, keys, ACCESS, record["server"]) if record is not None else None
        if record is None or access is None:
            raise missing_tool(tool_id)
        found = tool_of(record), open_access(keys, record["server"], access["sealed"])
        acting(caller, keys).event(plan, "tool", held.key, agent=agent_id, tool=tool_id)
        return found

    return caller.transact(action)


def note_return(caller: Caller, agent_id: str | None, tool_id: str, result: Any) -> Any:
    """Log that a tool came back, and keep the answer for a retry: what it did elsewhere must not be done twice. With
    `agent_id` None the call was the caller's own. Returns `result`."""

    def action(plan: Plan) -> Any:
        caller.must_act()
        plan.reports = True
        if agent_id is None:
            caller.event(plan, "tool_return", tool=tool_id)
        else:
            held, keys = open_agent(caller, plan, agent_id)
            acting(caller, keys).event(plan, "tool_return", held.key, agent=agent_id, tool=tool_id)
        return result

    return caller.transact(action)
