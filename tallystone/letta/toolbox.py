"""The tools of one step of a turn: which of them a model is told of, and what its calls come to.

Whatever a model asks for is answered in words: a tool that does not exist, arguments that are no JSON, a block that it
may not change. A lost race is none of its business: the vault has tried again many times, and here it is tried a few
times more.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from tallystone.errors import Conflict, Invalid, NotFound, Taken
from tallystone.letta import agent_tools, run_tool
from tallystone.letta.agent_tools import Question
from tallystone.letta.arguments import arguments_of
from tallystone.letta.call import Call, Query
from tallystone.letta.letters import ASK
from tallystone.letta.mcp_layer import RemoteCall, bounded
from tallystone.letta.memory_tools import ToolError
from tallystone.letta.model import ToolCall, ToolSpec
from tallystone.letta.tool_rules import ToolRules
from tallystone.letta.tools import Tool, attached
from tallystone.vault import Vault
from tallystone.vault.types import Agent, ExternalTool

if TYPE_CHECKING:
    from tallystone.letta.post import Outbox

_TRIES = 5
_SPEAKER = "send_message"


@dataclass(frozen=True)
class Outcome:
    """What a call came to. `usable` is false if it was none: an unknown tool, arguments that do not fit."""

    status: str
    text: str
    usable: bool = True


def _failed(text: str) -> Outcome:
    return Outcome("error", text, usable=False)


@dataclass(frozen=True)
class Toolbox:
    """An agent's tools as it holds them in this step, and those of the client that waits for the turn."""

    vault: Vault
    agent: Agent
    rules: ToolRules
    client_tools: Mapping[str, ToolSpec]
    outbox: Outbox | None = None

    def specs(self) -> list[ToolSpec]:
        """What the model may call now."""
        known = self._known()
        return [known[name] for name in self.rules.allowed(known)]

    def _known(self) -> dict[str, ToolSpec]:
        own = {
            name: ToolSpec(name, tool.description, tool.json_schema["parameters"])
            for name, tool in self._attached.items()
        }
        return {**own, **self.client_tools}

    @cached_property
    def _attached(self) -> dict[str, Tool]:
        return {tool.name: tool for tool in attached(self.agent) if tool.served}

    def names(self) -> list[str]:
        """Every tool that there is, whether or not it may be called now."""
        return list(self._known())

    def waits(self, call: ToolCall) -> bool:
        """Whether a call is for the client: to make it, or to approve it."""
        known = self._known()
        return call.name in known and (call.name in self.client_tools or self.rules.needs_approval(call.name))

    def run(self, call: ToolCall, *, approved: bool = False) -> Outcome | RemoteCall | Question:
        """Make a call, as the agent; one of an MCP server's tool and a question to another agent are made ready, to be
        made outside of threads. Raises what ends the turn: the agent or the token is gone, the store fails."""
        known = self._known()
        if call.name not in known:
            return _failed(f"There is no tool {call.name!r}. There are: {', '.join(known) or 'none'}.")
        if call.name in self.client_tools:
            return _failed("This tool is the client's, which answered without its result.")
        if not approved and call.name not in self.rules.allowed(known):
            return _failed(
                f"{call.name} cannot be called now. What can: {', '.join(self.rules.allowed(known))}."
            )
        try:
            arguments = arguments_of(call.arguments)
        except ValueError as error:
            return _failed(f"The arguments of {call.name} {error}.")
        if call.name == _SPEAKER:
            said = isinstance(arguments.get("message"), str)
            return Outcome("success", "Sent.") if said else _failed("send_message needs a message, a text.")
        if call.name == ASK:
            try:
                return agent_tools.question(arguments)
            except ToolError as error:
                return Outcome("error", error.wrapped(ASK), usable=False)
        tool = self._attached[call.name]
        if tool.external is not None:
            return self._ready(tool.external, arguments)
        return self._run(tool, arguments)

    def _ready(self, tool: ExternalTool, arguments: dict[str, Any]) -> Outcome | RemoteCall:
        try:
            tool, access = self.vault.open_tool(self.agent.id, tool.id)
        except NotFound:
            self.vault.agent(self.agent.id, with_blocks=False)  # if that is what is gone, the turn ends
            return Outcome("error", f"{tool.name} was taken from this agent just now.")
        return RemoteCall(access, tool.remote, arguments)

    async def ask(self, question: Question) -> Outcome:
        """Ask another agent, and wait without a thread. Raises as `run` does."""
        if self.outbox is None:
            return _failed("Other agents cannot be asked in this turn.")
        try:
            return Outcome("success", await self.outbox.ask(self.vault, self.agent.id, question))
        except ToolError as error:
            return Outcome("error", error.wrapped(ASK))

    def _run(self, tool: Tool, arguments: dict[str, Any]) -> Outcome:
        request = Call(self.vault, {}, Query(""), {}, outbox=self.outbox)
        for attempt in range(_TRIES):
            try:
                body = run_tool.run(request, self.agent, tool, arguments).body
            except Taken as error:
                return Outcome("error", error.message)
            except Conflict:
                time.sleep(0.05 * 2**attempt)  # of a worker's thread: the event loop goes on
                continue
            except (Invalid, ToolError) as error:
                return Outcome("error", str(error))
            if body["status"] == "success":
                returned = body["func_return"]
                return Outcome("success", bounded("Done." if returned is None else str(returned)))
            return Outcome(
                "error", bounded(str(body["func_return"])), usable="TypeError" not in body["func_return"]
            )
        return Outcome("error", "The memory is very busy just now and nothing was changed.")


def client_specs(tools: Iterable[Mapping[str, Any]]) -> dict[str, ToolSpec]:
    """The client's own tools of a request. Raises `Invalid` for two of one name."""
    found: dict[str, ToolSpec] = {}
    for tool in tools:
        name = tool["name"]
        if name in found:
            raise Invalid(f"two client tools are called {name!r}", hint="give each a name of its own")
        schema = tool.get("parameters") or {"type": "object", "properties": {}}
        found[name] = ToolSpec(name, tool.get("description") or "", schema)
    return found
