"""`/v1/tools/…` and `/v1/agents/{agent_id}/tools…`: what `client.tools` and `client.agents.tools` call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tallystone.errors import NotFound
from tallystone.letta import bodies, run_tool, turn_bodies
from tallystone.letta.agent_tools import question
from tallystone.letta.call import Answer, Call, Query
from tallystone.letta.later import Later, UnderWay
from tallystone.letta.letters import ASK
from tallystone.letta.memory_tools import ToolError
from tallystone.letta.paging import page, window
from tallystone.letta.tools import BY_ID, BY_NAME, CATALOGUE, Tool
from tallystone.letta.turn_record import InThread
from tallystone.letta.wire import agent_answer, tool_json
from tallystone.vault.types import Agent


def _not_found(what: str) -> NotFound:
    return NotFound(f"Tool {what} not found", hint="list the tools with GET /v1/tools/")


def _page(call: Call, tools: Sequence[Tool], limit: int) -> Answer:
    wanted = page(call.query, limit=limit, order="desc")
    return Answer([tool_json(tool) for tool in window(tools, wanted, lambda tool: tool.id)])


def list_(call: Call) -> Answer:
    """`GET /v1/tools/`: the catalogue."""
    matches = _filter(call.query)
    return _page(call, [tool for tool in CATALOGUE if matches(tool)], 50)


def _filter(query: Query) -> Callable[[Tool], bool]:
    name, names, ids = query.text("name"), query.texts("names"), query.texts("tool_ids")
    types, without = query.texts("tool_types"), query.texts("exclude_tool_types")
    search = query.text("search")
    # every tool here belongs to the interface itself, so this filter lets all through
    query.flag("return_only_letta_tools")

    def matches(tool: Tool) -> bool:
        return (
            (name is None or tool.name == name)
            and (not names or tool.name in names)
            and (not ids or tool.id in ids)
            and (not types or tool.tool_type in types)
            and tool.tool_type not in without
            and (search is None or search.casefold() in tool.name)
        )

    return matches


def retrieve(call: Call) -> Answer:
    """`GET /v1/tools/{tool_id}`."""
    tool = BY_ID.get(call.id("tool"))
    if tool is None:
        raise _not_found(call.params["tool_id"])
    return Answer(tool_json(tool))


def agent_list(call: Call) -> Answer:
    """`GET /v1/agents/{agent_id}/tools`: the tools attached to the agent, latest first."""
    agent = call.vault.agent(call.id("agent"), with_blocks=False)
    return _page(call, [BY_NAME[name] for name in agent.tools if name in BY_NAME], 10)


def attach(call: Call) -> Answer:
    """`PATCH /v1/agents/{agent_id}/tools/attach/{tool_id}`: attaching again changes nothing."""
    agent_id, tool_id = call.id("agent"), call.id("tool")

    def edit(agent: Agent) -> dict[str, object]:
        tool = BY_ID.get(tool_id)
        if tool is None:
            raise _not_found(tool_id)
        return {} if tool.name in agent.tools else {"tools": [*agent.tools, tool.name]}

    return agent_answer(call.vault.edit_agent(agent_id, edit))


def detach(call: Call) -> Answer:
    """`PATCH /v1/agents/{agent_id}/tools/detach/{tool_id}`: 404 for a tool that is not attached."""
    agent_id, tool_id = call.id("agent"), call.id("tool")

    def edit(agent: Agent) -> dict[str, object]:
        tool = BY_ID.get(tool_id)
        if tool is None or tool.name not in agent.tools:
            raise _not_found(tool_id)
        return {"tools": [name for name in agent.tools if name != tool.name]}

    return agent_answer(call.vault.edit_agent(agent_id, edit))


def update_approval(call: Call) -> Answer:
    """`PATCH …/tools/approval/{tool_name}`: whether somebody must agree before the agent's tool runs."""
    agent_id, name = call.id("agent"), call.params["tool_name"]
    wanted = bodies.decode(call.body, turn_bodies.Approval).requires_approval

    def edit(agent: Agent) -> dict[str, object]:
        if name not in agent.tools:
            raise _not_found(f"'{name}'")
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
    if name not in agent.tools or name not in BY_NAME:
        raise _not_found(f"'{name}'")
    if name == ASK:
        return _asking(call, agent, body.args or {})
    return run_tool.run(call, agent, BY_NAME[name], body.args or {})


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
