"""Running a tool of an MCP server on request: once, however often the request is sent."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tallystone.letta.arguments import clean
from tallystone.letta.call import Answer, Call
from tallystone.letta.later import Later, UnderWay
from tallystone.letta.mcp_layer import RemoteCall, Returned, ToolCaller
from tallystone.letta.memory_tools import ToolError
from tallystone.letta.run_tool import result_json
from tallystone.letta.turn_record import InThread
from tallystone.vault.types import ExternalTool, ToolAccess


def run_remote(
    call: Call,
    opened: Callable[[], tuple[ExternalTool, ToolAccess]],
    arguments: Mapping[str, Any],
    agent_id: str | None,
    caller: ToolCaller,
) -> Answer | Later:
    """Call the tool that `opened` gives, as an agent or as the user itself. A repeated request gets the first one's
    answer: what a tool does elsewhere, nobody can take back. A failure is the tool's answer: 200, `status: error`."""
    known = call.earlier()
    if known is not None:
        return known
    tool, access = opened()
    ready = RemoteCall(access, tool.remote, dict(arguments))

    async def finish(in_thread: InThread, under_way: UnderWay) -> Answer:
        returned = await caller.call(ready)
        answer = Answer(_result(tool.name, returned))

        def note() -> Answer:
            return call.once(lambda: call.vault.note_return(agent_id, tool.id, answer), lambda kept: kept)

        noted: Answer = await in_thread(note)
        return noted

    return Later(finish)


def _result(name: str, returned: Returned) -> dict[str, Any]:
    if returned.ok:
        return result_json("success", returned.text)
    text = ToolError("RuntimeError", clean(returned.text)).wrapped(name)
    return result_json("error", text, text)
