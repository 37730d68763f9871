"""`/v1/mcp-servers/…`: what `client.mcp_servers` and `client.mcp_servers.tools` call."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import uuid4

from tallystone.letta import bodies, mcp_bodies, mcp_tools
from tallystone.letta.call import Answer, Call
from tallystone.letta.later import Later, UnderWay
from tallystone.letta.mcp_layer import ToolCaller
from tallystone.letta.remote_run import run_remote
from tallystone.letta.tools import of_external
from tallystone.letta.turn_record import InThread
from tallystone.letta.wire import tool_json
from tallystone.vault.types import ExternalTool, ToolAccess, ToolServer


def _server_id(call: Call) -> str:
    return call.id("mcp_server")


def _answer(server: ToolServer) -> Answer:
    return Answer(mcp_bodies.server_json(server))


def create(call: Call) -> Answer:
    """`POST /v1/mcp-servers/`: the server is kept, and not called yet."""
    body = bodies.decode(call.body, mcp_bodies.ServerCreate)
    access = mcp_bodies.access_of(body.config)
    call.vault.check_may_act()
    ToolCaller.of(call).check(access.url)
    identity = f"mcp_server-{uuid4()}"
    fields = mcp_bodies.shown(body.server_name, access)
    return call.once(lambda: call.vault.create_tool_server(identity, fields, access), _answer)


def list_(call: Call) -> Answer:
    """`GET /v1/mcp-servers/`: the caller's, oldest first. An agent has none."""
    return Answer([mcp_bodies.server_json(server) for server in call.vault.tool_servers()])


def retrieve(call: Call) -> Answer:
    """`GET /v1/mcp-servers/{mcp_server_id}`."""
    return _answer(call.vault.tool_server(_server_id(call)))


def update(call: Call) -> Answer:
    """`PATCH /v1/mcp-servers/{mcp_server_id}`: agents that hold tools of it call it as it is from now on."""
    body = bodies.decode(call.body, mcp_bodies.ServerUpdate)
    config, caller = body.config or mcp_bodies.Config(), ToolCaller.of(call)

    def edit(server: ToolServer, before: ToolAccess) -> tuple[Mapping[str, Any], ToolAccess]:
        access = mcp_bodies.access_of(config, before)
        if access.url != before.url:
            caller.check(access.url)
        return mcp_bodies.shown(body.server_name or server.name, access), access

    return _answer(call.vault.edit_tool_server(_server_id(call), edit))


def delete(call: Call) -> Answer:
    """`DELETE /v1/mcp-servers/{mcp_server_id}`: its tools go, also from agents."""
    call.vault.delete_tool_server(_server_id(call))
    return Answer(None)


# -- its tools ----------------------------------------------------------------------------------------------------


def refresh(call: Call) -> Later:
    """`PATCH /v1/mcp-servers/{mcp_server_id}/refresh`: ask for its tools. The answer names what changed, and what
    cannot be used (`skipped`)."""
    identity = _server_id(call)
    server, access, _ = call.vault.open_tool_server(identity)
    return _fetching(call, server, access)


def _fetching(call: Call, server: ToolServer, access: ToolAccess, *, tools: bool = False) -> Later:
    """Fetch a server's tools; the answer is what changed, or with `tools` the list."""

    async def finish(in_thread: InThread, under_way: UnderWay) -> Answer:
        listed, more = await ToolCaller.of(call).tools(access)

        def keep() -> Answer:
            offered, skipped = mcp_tools.admitted(server.id, listed)
            changes = call.vault.replace_tools(server.id, offered)
            if tools:
                return _tools(offered)
            return Answer({**changes, "skipped": skipped, "more": more})

        kept: Answer = await in_thread(keep)
        return kept

    return Later(finish)


def _tools(tools: list[ExternalTool]) -> Answer:
    return Answer([tool_json(of_external(tool)) for tool in tools])


def list_tools(call: Call) -> Answer | Later:
    """`GET /v1/mcp-servers/{mcp_server_id}/tools`: as they were last fetched. The first time they are fetched, for a
    token that may."""
    identity = _server_id(call)
    if call.vault.kind == "user" and call.vault.scope == "full":
        server, access, known = call.vault.open_tool_server(identity)
        return _tools(known) if server.fetched_at is not None else _fetching(call, server, access, tools=True)
    return _tools(call.vault.external_tools(identity))


def retrieve_tool(call: Call) -> Answer:
    """`GET /v1/mcp-servers/{mcp_server_id}/tools/{tool_id}`."""
    tool = call.vault.external_tool(call.id("tool"), _server_id(call))
    return Answer(tool_json(of_external(tool)))


def run_tool(call: Call) -> Answer | Later:
    """`POST /v1/mcp-servers/{mcp_server_id}/tools/{tool_id}/run`: as the user. A tool's error is 200."""
    identity, tool_id = _server_id(call), call.id("tool")
    body = bodies.decode(call.body, bodies.ToolRun)

    def opened() -> tuple[ExternalTool, ToolAccess]:
        tool = call.vault.external_tool(tool_id, identity)
        _, access, _ = call.vault.open_tool_server(identity)
        return tool, access

    return run_remote(call, opened, body.args or {}, None, ToolCaller.of(call))
