"""One turn of an agent: its prompt, a model, its tools, again and again until there is an end.

The prompt is compiled at the start of each step, from the blocks that the agent holds at that moment: what others
changed is in it, and what the agent lost is not. Whatever happens is written down before the next thing begins, so a
turn may be cut off anywhere. Nothing here knows of HTTP; whoever listens is told of each message as it is written.
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from tallystone.errors import Conflict, TallystoneError
from tallystone.letta import compaction
from tallystone.letta.agent_tools import Question
from tallystone.letta.arguments import MAX_ARGUMENTS, clean
from tallystone.letta.mcp_layer import ToolCaller
from tallystone.letta.messages import heard, new_id, open_calls
from tallystone.letta.model import Limits, ModelFailed, Models, Reply, Said, ToolCall, ToolSpec
from tallystone.letta.model_options import limits_of
from tallystone.letta.prompt import compile_prompt, today
from tallystone.letta.tool_rules import ToolRules
from tallystone.letta.toolbox import Outcome, Toolbox
from tallystone.letta.turn_record import InThread, Listener, Stop, TurnRecord
from tallystone.letta.wire import llm_config
from tallystone.vault import Vault
from tallystone.vault.turns import Turn
from tallystone.vault.types import Agent

if TYPE_CHECKING:
    from tallystone.letta.post import Outbox

MAX_CALLS = 32
"""Tool calls of one answer that are made; the others are told that they were too many."""
KEPT_CALLS = 128
"""Tool calls of one answer that are written down, made or not; what lies beyond is as if it had not been said."""
MAX_TEXT = 1_000_000
"""Characters of one answer that are kept."""
_CALL_ID = re.compile(r"[a-zA-Z0-9_-]{1,40}")
_NAME = 256  # characters of a tool's name: more than any tool's
_USELESS = 5  # steps in a row of which no call was one
_SPEAKS_BY_TOOL = ("memgpt_agent", "memgpt_v2_agent")
_STOPS = {
    "timeout": "llm_api_error",
    "refused": "llm_api_error",
    "unavailable": "llm_api_error",
    "bad_answer": "invalid_llm_response",
    "too_long": "context_window_overflow_in_system_prompt",
}


@dataclass(frozen=True)
class Order:
    """What a turn is asked to do besides answering: bounds, the client's own tools, what stands in for the agent's
    own model and prompt. `key` is the caller's own for the provider of the model, if it has one."""

    handle: str
    key: str | None = field(default=None, repr=False)
    max_steps: int = 50
    client_tools: Mapping[str, ToolSpec] = field(default_factory=dict)
    skills: tuple[tuple[str, str, str], ...] = ()
    override_system: str | None = None
    by_token: bool = False
    servers: ToolCaller | None = None


class TurnLoop:
    """A turn that has begun, until its end."""

    def __init__(
        self,
        vault: Vault,
        turn: Turn,
        order: Order,
        models: Models,
        listener: Listener,
        in_thread: InThread,
        outbox: Outbox | None = None,
    ) -> None:
        self._vault, self._turn, self._order = vault, turn, order
        self._models, self._outbox = models, outbox
        self._record = TurnRecord(turn, listener, in_thread)
        self._called: list[tuple[str, str]] = []
        self._useless = 0

    async def run(self) -> None:
        """Go on until the turn is over, and write down how it ended. Raises nothing but a cancellation."""
        try:
            try:
                await self._steps()
            except Stop as stop:
                await self._record.end(stop)
            except Conflict as error:
                if error.code != "lease_lost":  # then whoever has the lease has written down the end
                    await self._record.end(Stop("error", type=error.code, message=error.message))
            except TallystoneError as error:
                await self._record.end(Stop("error", type=error.code, message=error.message))
            except Exception:
                await self._record.end(Stop("error", type="internal", message="internal error"))
                raise
        except asyncio.CancelledError:
            self._record.end_at_once()
            raise
        except TallystoneError:
            pass  # not even the end could be written down: the run reads failed from now on
        finally:
            self._turn.leave()

    async def compact(self, trigger: str = "asked") -> tuple[str, int, int]:
        """Only sum up the conversation. Returns the summary, and how many messages prompts held before and after."""
        before = len(self._turn.context)
        try:
            agent = await self._record.do(lambda: self._vault.agent(self._turn.agent, with_blocks=False))
            summary = await self._compact(agent, trigger, everything=True)
            await self._record.end(Stop("end_turn"))
            return summary, before, len(_spoken(self._turn.context)) + 1
        finally:
            self._turn.leave()

    # -- steps --------------------------------------------------------------------------------------------------

    async def _steps(self) -> None:
        agent = await self._record.do(lambda: self._vault.agent(self._turn.agent))
        _, calls = open_calls(self._turn.context)
        if calls:  # approved: what was denied or made by the client has its return already
            box = self._toolbox(agent)
            wanted = [ToolCall(call["id"], call["name"], call["arguments"]) for call in calls]
            await self._calls(box, wanted, None, approved=True)
        for _ in range(self._order.max_steps):
            agent = await self._record.do(lambda: self._vault.agent(self._turn.agent))
            await self._step(agent)
        raise Stop("max_steps")

    def _toolbox(self, agent: Agent) -> Toolbox:
        rules = ToolRules(list(agent.state.get("tool_rules") or ()), self._called)
        return Toolbox(self._vault, agent, rules, self._order.client_tools, self._outbox)

    async def _step(self, agent: Agent) -> None:
        box, step, message = self._toolbox(agent), new_id("step"), new_id("message")
        tools = box.specs()
        reply = await self._answer(agent, tools, step, message)
        self._record.count(reply.usage)
        # as they will be made: so they stand in the history, and before whoever approves them
        calls = [box.rules.filled(call) for call in _calls_of(reply)]
        asks = [call for call in calls if box.waits(call)]
        cut_off = reply.finish == "length" and bool(calls)
        entry = self._entry(message, step, reply, [] if cut_off else calls, [] if cut_off else asks)
        details = self._step_record(step, agent, reply)
        written = [entry] if entry.get("text") or entry.get("calls") or entry.get("thinking") else []
        await self._record.write(written, step=details)
        if not calls or cut_off:
            await self._silent(agent, box, reply, bool(written))
            return
        await self._calls(box, [call for call in calls if call not in asks], step)
        if asks:
            await self._record.write([], conversation={"pending": message})
            raise Stop("requires_approval")

    async def _silent(self, agent: Agent, box: Toolbox, reply: Reply, said: bool) -> None:
        """A model asked for no tool: the end, unless the rules want one first."""
        if reply.finish == "length":
            raise Stop("max_tokens_exceeded")
        if reply.finish == "refused" and not reply.text:
            raise Stop("llm_api_error", type="refused", message="the model declined to answer")
        if not said and not self._called:
            raise Stop("invalid_llm_response", type="bad_answer", message="the model answered nothing")
        missing = box.rules.missing(box.names())
        if missing:
            text = f"Before the turn ends, these tools must be called: {', '.join(missing)}."
            await self._record.write([self._record.said("system", text)])
            return
        if agent.state.get("agent_type") in _SPEAKS_BY_TOOL:
            raise Stop("no_tool_call")
        raise Stop("end_turn")

    async def _calls(
        self, box: Toolbox, calls: list[ToolCall], step: str | None, *, approved: bool = False
    ) -> None:
        useful, over = False, False
        for number, call in enumerate(calls):
            if number < MAX_CALLS:
                outcome = await self._outcome(box, call, approved)
            else:
                outcome = Outcome("error", f"Only {MAX_CALLS} calls of one answer are made; ask again.", True)
            entry = self._record.said(
                "tool", outcome.text, call=call.id, name=call.name, status=outcome.status, step=step
            )
            await self._record.write([entry])
            useful = useful or outcome.usable
            if outcome.usable:
                box.rules.note(call.name, outcome.text)
            over = over or (outcome.status == "success" and box.rules.ends(call.name))
        if over and not box.rules.missing(box.names()):
            raise Stop("tool_rule")
        self._useless = 0 if useful or not calls else self._useless + 1
        if self._useless >= _USELESS:
            raise Stop("invalid_tool_call")

    async def _outcome(self, box: Toolbox, call: ToolCall, approved: bool) -> Outcome:
        made = await self._record.do(partial(box.run, call, approved=approved))
        if isinstance(made, Outcome):
            return made
        if isinstance(made, Question):
            return await self._record.watched(box.ask(made))
        assert self._order.servers is not None, "whoever orders a turn brings what calls MCP servers"
        returned = await self._record.watched(self._order.servers.call(made))
        return Outcome("success" if returned.ok else "error", returned.text or "Done.")

    # -- the model ----------------------------------------------------------------------------------------------

    async def _answer(self, agent: Agent, tools: list[ToolSpec], step: str, message: str) -> Reply:
        window = self._window(agent)
        said = self._prompt(agent)
        if compaction.tokens(said[:1], tools) > window:
            raise Stop(
                "context_window_overflow_in_system_prompt",
                type="too_long",
                message="the agent's blocks and instructions do not fit the model's context window",
            )
        if compaction.is_full(max(compaction.tokens(said, tools), self._record.used), window):
            agent = await self._compacted(agent, "context_window")
            said = self._prompt(agent)
        for again in (True, False):
            try:
                return await self._ask(agent, said, tools, step, message)
            except ModelFailed as failure:
                if failure.kind == "too_long" and again and compaction.cut(self._turn.context, window):
                    agent = await self._compacted(agent, "too_long")
                    said = self._prompt(agent)
                    continue
                raise _stopped(failure) from None
        raise AssertionError("the second try returns or raises")

    async def _ask(
        self, agent: Agent, said: list[Said], tools: list[ToolSpec], step: str, message: str
    ) -> Reply:
        limits = limits_of(agent.state, self._turn.conversation)
        partial: list[str] = []
        work = (
            self._stream(said, tools, limits, step, message, partial)
            if self._order.by_token
            else self._models.reply(self._order.handle, said, tools, limits=limits, key=self._order.key)
        )
        try:
            return await self._record.watched(work)
        except (Stop, ModelFailed) as error:
            text = clean("".join(partial))[:MAX_TEXT]
            if text:  # somebody has read it: so it was said, and no second try may speak under its id
                await self._record.write([self._record.said("assistant", text, id=message, step=step)])
                if isinstance(error, ModelFailed):
                    raise _stopped(error) from None
            raise

    async def _stream(
        self,
        said: list[Said],
        tools: list[ToolSpec],
        limits: Limits,
        step: str,
        message: str,
        partial: list[str],
    ) -> Reply:
        pieces = self._models.stream(self._order.handle, said, tools, limits=limits, key=self._order.key)
        async with aclosing(pieces):
            async for piece in pieces:
                if isinstance(piece, Reply):
                    return piece
                partial.append(piece.text)
                self._record.listener.delta(message, step, piece)
        raise ModelFailed("bad_answer", "the model's answer ended early")

    def _prompt(self, agent: Agent) -> list[Said]:
        if self._order.override_system is not None:
            system = self._order.override_system
        else:
            system = compile_prompt(
                agent,
                conversation=self._turn.conversation["id"],
                today=today(),
                skills=self._order.skills,
            )
        return [
            Said("system", system),
            *heard(self._turn.context, self._turn.conversation.get("recap") or ""),
        ]

    def _window(self, agent: Agent) -> int:
        window = self._turn.conversation.get("context_window_limit")
        return int(window or llm_config(agent.state)["context_window"])

    async def _compacted(self, agent: Agent, trigger: str) -> Agent:
        """Sum up older messages. Returns the agent as it is then: that took as long as an answer does, and what was
        revoked meanwhile is in no prompt."""
        await self._compact(agent, trigger)
        return await self._record.do(lambda: self._vault.agent(self._turn.agent))

    async def _compact(self, agent: Agent, trigger: str, *, everything: bool = False) -> str:
        window, context = self._window(agent), self._turn.context
        count = len(context) if everything else compaction.cut(context, window)
        if not count:
            return ""
        recap = self._turn.conversation.get("recap") or ""
        try:
            asked = compaction.request(context[:count], recap)
            reply = await self._record.watched(
                self._models.reply(self._order.handle, asked, key=self._order.key)
            )
            self._record.count(reply.usage, step=False)
            summary = clean(reply.text).strip()
        except ModelFailed:
            summary = ""
        summary = summary or compaction.without_a_model(count)
        first = int(self._turn.conversation["from"]) + count
        stats = compaction.stats(window, len(context), len(context) - count + 1, trigger)
        del context[:count]
        await self._record.write(
            [self._record.said("summary", summary, stats=stats)],
            conversation={"from": first, "recap": summary},
        )
        return summary

    def _entry(
        self, message: str, step: str, reply: Reply, calls: list[ToolCall], asks: list[ToolCall]
    ) -> dict[str, Any]:
        return self._record.said(
            "assistant",
            clean(reply.text)[:MAX_TEXT],
            id=message,
            step=step,
            thinking=clean(reply.thinking)[:MAX_TEXT] or None,
            native=reply.native if 0 < len(reply.native) <= MAX_TEXT else None,
            calls=[{"id": call.id, "name": call.name, "arguments": call.arguments} for call in calls] or None,
            asks=[call.id for call in asks] or None,
        )

    def _step_record(self, step: str, agent: Agent, reply: Reply) -> dict[str, Any]:
        usage = reply.usage
        return {
            "id": step,
            "run": self._turn.run,
            "agent": agent.id,
            "created": self._record.now(),
            "handle": self._order.handle,
            "window": self._window(agent),
            "prompt": usage.input,
            "completion": usage.output,
            "cached": usage.cached,
            "reasoning": usage.reasoning,
            "finish": reply.finish,
        }


def _stopped(failure: ModelFailed) -> Stop:
    return Stop(_STOPS[failure.kind], type=failure.kind, message=failure.message)


def _spoken(context: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [message for message in context if message["role"] != "summary"]


def _calls_of(reply: Reply) -> list[ToolCall]:
    """The calls of an answer that are kept, cleaned, each with an id of its own that every provider takes."""
    found: list[ToolCall] = []
    seen: set[str] = set()
    for call in reply.tool_calls[:KEPT_CALLS]:
        identity = call.id
        if not _CALL_ID.fullmatch(identity) or identity in seen:
            identity = f"call_{secrets.token_hex(12)}"
        seen.add(identity)
        arguments = clean(call.arguments)[
            : MAX_ARGUMENTS + 1
        ]  # which is refused for its length if it was cut
        found.append(ToolCall(identity, clean(call.name)[:_NAME], arguments))
    return found
