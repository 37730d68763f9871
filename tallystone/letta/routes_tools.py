"""`/v1/tools/…` and `/v1/agents/{agent_id}/tools…`: what `client.tools` and `client.agents.tools` call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tallystone.letta import bodies, run_tool, states, turn_bodies
from tallystone.letta.agent_tools import question
from tallystone.letta.call import Answer, Call, Query
from tallystone.letta.later import Later, UnderWay
from tallystone.letta.letters import ASK
from tallystone.letta.mcp_layer import ToolCaller
from tallystone.letta.memory_tools import ToolError
from tallystone.letta.paging import page, window
from tallystone.letta.remote_run import run_remote
from tallystone.letta.tools import BY_ID, CATALOGUE, EXTERNAL, Tool, attached, of_external
from tallystone.letta.turn_record import InThread
from tallystone.letta.wire import agent_answer, tool_json
from tallystone.vault.external import missing_tool
from tallystone.vault.types import Agent


def _page(call: Call, tools: Sequence[Tool], limit: int) -> Answer:
    wanted = page(call.query, limit=limit, order="desc")
    return Answer([tool_json(tool) for tool in window(tools, wanted, lambda tool: tool.id)])


def list_(call: Call) -> Answer:
    """`GET /v1/tools/`: the catalogue, and the tools of the caller's MCP servers; an agent's, those attached to it."""
    matches = _filter(call.query)
    tools = [*CATALOGUE, *map(of_external, call.vault.external_tools())]
    return _page(call, [tool for tool in tools if matches(tool)], 50)


def _filter(query: Query) -> Callable[[Tool], bool]:
    name, names, ids = query.text("name"), query.texts("names"), query.texts("tool_ids")
    types, without = query.texts("tool_types"), query.texts("exclude_tool_types")
    search = query.text("search")
    ours_alone = query.flag("return_only_letta_tools")

    def matches(tool: Tool) -> bool:
        return (
            (name is None or tool.name == name)
            and (not names or tool.name in names)
            and (not ids or tool.id in ids)
            and (not types or tool.tool_type in types)
            and tool.tool_type not in without
            and (search is None or search.casefold() in tool.name.casefold())
            and not (ours_alone and tool.tool_type == EXTERNAL)
        )

    return matches


def retrieve(call: Call) -> Answer:
    """`GET /v1/tools/{tool_id}`."""
    tool_id = call.id("tool")
    tool = BY_ID.get(tool_id) or of_external(call.vault.external_tool(tool_id))
    return Answer(tool_json(tool))


def agent_list(call: Call) -> Answer:
    """`GET /v1/agents/{agent_id}/tools`: the tools attached to the agent, latest first."""
    agent = call.vault.agent(call.id("agent"), with_blocks=False)
    return _page(call, attached(agent), 10)


def attach(call: Call) -> Answer:
    """`PATCH /v1/agents/{agent_id}/tools/attach/{tool_id}`: attaching again changes nothing."""
    agent_id, tool_id = call.id("agent"), call.id("tool")

    (entry,) = states.tool_entries([tool_id])

    def edit(agent: Agent) -> dict[str, object]:
        held = agent.state.get("tools", ())
        return {} if entry in held else {"tools": [*held, entry]}

    return agent_answer(call.vault.edit_agent(agent_id, edit))


def detach(call: Call) -> Answer:
    """`PATCH /v1/agents/{agent_id}/tools/detach/{tool_id}`: 404 for a tool that is not attached."""
    agent_id, tool_id = call.id("agent"), call.id("tool")
    (entry,) = states.tool_entries([tool_id])

    def edit(agent: Agent) -> dict[str, object]:
        held = agent.state.get("tools", ())
        if entry not in held:
            raise missing_tool(tool_id)
        return {"tools": [one for one in held if one != entry]}

    return agent_answer(call.vault.edit_agent(agent_id, edit))


def update_approval(call: Call) -> Answer:
    """`PATCH …/tools/approval/{tool_name}`: whether somebody must agree before the agent's tool runs."""
    agent_id, name = call.id("agent"), call.params["tool_name"]
    wanted = bodies.decode(call.body, turn_bodies.Approval).requires_approval

    def edit(agent: Agent) -> dict[str, object]:
        if name not in agent.tools:
            raise missing_tool(f"'{name}'")
        rule = {"type": "requires_approval", "tool_name": name}
        others = [
            one
            for one in agent.state.get("tool_rules") or ()
            if (one.get("type"), one.get("tool_name")) != ("requires_approval", name)
        ]
        return {"tool_rules": [*others, rule] if wanted else others}

    return agent_answer(call.vault.edit_agent(agent_id, edit))


def run(call: Call) -> Answer | Later:
    """`POST /v1/agents/{agent_id}/tools/{tool_name}/run`: as the agent. A tool's error is 200, `status: error`."""
    agent_id, name = call.id("agent"), call.params["tool_name"]
    body = bodies.decode(call.body, bodies.ToolRun)
    agent = call.vault.agent(agent_id, with_blocks=False)
    tool = next((one for one in attached(agent) if one.name == name), None)
    if tool is None:
        raise missing_tool(f"'{name}'")
    if name == ASK:
        return _asking(call, agent, body.args or {})
    external = tool.external
    if external is None:
        return run_tool.run(call, agent, tool, body.args or {})
    return run_remote(
        call,
        lambda: call.vault.open_tool(agent_id, external.id),
        body.args or {},
        agent_id,
        ToolCaller.of(call),
    )


def _asking(call: Call, agent: Agent, arguments: dict[str, Any]) -> Later:
    """The tool that waits for another agent's turn: on the event loop, so that it holds no thread meanwhile."""
    call.vault.check_may_act()

    async def finish(in_thread: InThread, under_way: UnderWay) -> Answer:
        try:
            if call.outbox is None:
                raise ToolError("RuntimeError", "other agents cannot be asked here.")
            reply = await call.outbox.ask(call.vault, agent.id, question(arguments), call.once)
            return run_tool.succeeded(reply)
        except ToolError as error:
            text = error.wrapped(ASK)
            return Answer(run_tool.result_json("error", text, text))

    return Later(finish)
