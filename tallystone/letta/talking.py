"""Talking with an agent over the wire: how a request becomes a turn, and what goes back, whole or as events.

One request starts one turn. The id of its run is kept with the request's digest in the commit that begins the turn: a
client that lost the answer and sends the same again is given that run's answer, and never a second turn.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import msgspec

from tallystone.errors import Conflict, Rejected, TallystoneError
from tallystone.letta import composing, turn_json
from tallystone.letta.call import Answer, Call
from tallystone.letta.later import Later, Streamed, UnderWay
from tallystone.letta.letters import delivery
from tallystone.letta.mcp_layer import ToolCaller
from tallystone.letta.messages import new_id, now_ms
from tallystone.letta.model_layer import ModelLayer
from tallystone.letta.sse import Events, Replay, out_of_sight
from tallystone.letta.toolbox import client_specs
from tallystone.letta.turn import Order, TurnLoop
from tallystone.letta.turn_bodies import MessagesCreate
from tallystone.letta.turn_record import InThread
from tallystone.vault import Vault
from tallystone.vault.turns import DEFAULT, Turn

WAIT_SECONDS = 20.0
"""How long a turn waits for an earlier one of the same agent before it is refused (409), which clients repeat."""
ATTACH_SECONDS = 45.0
"""How long a repeated request waits for the turn that the first one started; below the 60 that clients wait."""
_POLL = 0.1


def models_of(call: Call) -> ModelLayer:
    """The models of this server. Raises `Rejected` (400) if there are none."""
    if call.models is None:
        raise Rejected(
            "this server has no models set up",
            hint="docs/settings.md says how; without one, agents hold memory and run tools",
            code="no_model",
        )
    return call.models


def own_key(call: Call, handle: str | None) -> str | None:
    """The caller's own key for the provider of a model, if it has one for the place where that is served here."""
    place = models_of(call).config.place(handle)
    return call.vault.open_model_key(*place) if place is not None else None


def order_of(
    call: Call, agent_id: str, body: MessagesCreate, conversation: Mapping[str, Any] | None = None
) -> Order:
    """What a request asks of the turn. Raises `Denied` for a token that can only read, `Rejected` (400) if its
    model cannot be called from here."""
    agent = call.vault.agent(agent_id, with_blocks=False)
    call.vault.check_may_act()
    handle = body.override_model or (conversation or {}).get("model") or agent.state.get("model")
    key = own_key(call, handle)
    target = models_of(call).check(handle, key=key)
    return Order(
        handle=f"{target.provider}/{target.model}",
        key=key,
        max_steps=body.max_steps or 50,
        client_tools=client_specs(msgspec.to_builtins(tool) for tool in body.client_tools or ()),
        skills=tuple((one.name, one.description, one.location) for one in body.client_skills or ()),
        override_system=body.override_system,
        by_token=bool(body.stream_tokens),
        servers=ToolCaller.of(call),
    )


class Talk:
    """One request to talk with an agent."""

    def __init__(
        self, call: Call, agent_id: str, conversation: str, body: MessagesCreate, order: Order
    ) -> None:
        self._call, self._agent, self._conversation = call, agent_id, conversation
        self._body, self._order = body, order
        self._sent = composing.incoming(body.messages, body.input)
        self._style = body.style()
        self._models = models_of(call)

    # -- three ways to answer -----------------------------------------------------------------------------------

    def whole(self) -> Later:
        """Wait for the turn's end, and answer with all that it said."""

        async def finish(in_thread: InThread, under_way: UnderWay) -> Answer:
            run, turn = await self._begin(in_thread)
            if turn is not None:
                task = under_way.start(self._run(turn, Events(), in_thread))
                await asyncio.wait({task})
            else:
                await ended(self._call.vault, run, in_thread, ATTACH_SECONDS)
            answer: Answer = await in_thread(lambda: self._answer(run))
            return answer

        return Later(finish)

    def streamed(self) -> Later:
        """Answer with events as they happen."""

        async def finish(in_thread: InThread, under_way: UnderWay) -> Answer:
            run, turn = await self._begin(in_thread)
            compactions = bool(self._body.include_compaction_messages)
            pings = self._body.include_pings is not False
            if turn is None:
                replay = Replay(self._call.vault, run, self._style, compactions, in_thread)
                return Streamed(None, events=replay.events(pings=pings))
            events = Events(self._style, compactions)
            under_way.start(events.until(self._run(turn, events, in_thread)))

            async def last() -> Mapping[str, Any]:
                try:
                    ended: Mapping[str, Any] = await in_thread(lambda: self._call.vault.run(run))
                except TallystoneError as error:
                    return out_of_sight(run, error)
                return ended

            return Streamed(None, events=events.events(last, pings=pings))

        return Later(finish)

    def in_background(self) -> Later:
        """Answer with the run, which goes on."""

        async def finish(in_thread: InThread, under_way: UnderWay) -> Answer:
            run, turn = await self._begin(in_thread, background=True)
            if turn is not None:  # before anything that may fail: what nobody drives would never end
                under_way.start(self._run(turn, Events(), in_thread))
            record = await in_thread(lambda: self._call.vault.run(run))
            return Answer(turn_json.run_json(record))

        return Later(finish)

    # -- how it begins ------------------------------------------------------------------------------------------

    async def _begin(self, in_thread: InThread, *, background: bool = False) -> tuple[str, Turn | None]:
        """The run, and its turn unless the request is the repetition of one that began it."""
        identity = new_id("run")
        kept = {
            "id": identity,
            "background": background or bool(self._body.background),
            "handle": self._order.handle,
        }
        vault = self._call.vault
        mail = delivery(identity) if self._conversation == DEFAULT else None

        def compose(record: Any, context: Any) -> composing.Composed:
            return composing.compose(self._sent, identity, now_ms(), record, context)

        def work() -> tuple[str, Turn | None]:
            begun: list[Turn] = []

            def begin() -> Turn:
                begun.append(vault.begin_turn(self._agent, self._conversation, kept, compose, mail))
                return begun[-1]

            answer = self._call.once(begin, lambda turn: Answer({"run": turn.run}))
            run = msgspec.json.decode(answer.content())["run"]
            return run, begun[-1] if begun else None

        result: tuple[str, Turn | None] = await when_free(in_thread, work)
        return result

    async def _run(self, turn: Turn, events: Events, in_thread: InThread) -> None:
        vault, outbox = self._call.vault, self._call.outbox
        mine = replace(outbox, run=turn.run) if outbox is not None else None
        await TurnLoop(vault, turn, self._order, self._models, events, in_thread, mine).run()
        if outbox is not None:
            outbox.post.look(vault, self._agent)  # what came meanwhile found the agent busy

    def _answer(self, run: str) -> Answer:
        vault = self._call.vault
        record, messages = vault.run(run), vault.run_messages(run)
        compactions = bool(self._body.include_compaction_messages)
        return Answer(turn_json.response(record, messages, self._style, compactions))


async def when_free(in_thread: InThread, work: Callable[[], Any]) -> Any:
    """`work`, as soon as the agent is in no other turn. Raises `Conflict` (`agent_busy`) after `WAIT_SECONDS`."""
    loop = asyncio.get_running_loop()
    until = loop.time() + WAIT_SECONDS
    while True:
        try:
            return await in_thread(work)
        except Conflict as error:
            if error.code != "agent_busy" or loop.time() >= until:
                raise
        # Looked for again and again: the other turn may go on in another process, which sets no event of this one.
        await asyncio.sleep(_POLL)


async def ended(vault: Vault, run: str, in_thread: InThread, seconds: float) -> None:
    """Wait until a run is over. Raises `Conflict` (`agent_busy`) if that takes longer."""
    loop = asyncio.get_running_loop()
    until, pause = loop.time() + seconds, _POLL
    while (await in_thread(lambda: vault.run(run)))["status"] == "running":
        if loop.time() >= until:
            raise Conflict(
                "the turn that this request started still goes on",
                hint="send the same again, or list the runs",
                code="agent_busy",
            )
        await asyncio.sleep(pause)  # here too: whose turn it is may be another process
        pause = min(2 * pause, 2.0)


def compacting(call: Call, agent_id: str, conversation: str) -> Later:
    """Sum up a conversation, in a turn that does nothing else."""
    record = None if conversation == "default" else call.vault.conversation(conversation)
    order = order_of(call, agent_id, MessagesCreate(), record)
    identity = new_id("run")
    kept = {"id": identity, "background": False, "handle": order.handle}
    models = models_of(call)

    def nothing(record: Any, context: Any) -> composing.Composed:
        return composing.compose((), identity, now_ms(), record, context)

    async def finish(in_thread: InThread, under_way: UnderWay) -> Answer:
        turn = await when_free(
            in_thread, lambda: call.vault.begin_turn(agent_id, conversation, kept, nothing)
        )
        loop = TurnLoop(call.vault, turn, order, models, Events(), in_thread)
        summary, before, after = await under_way.start(loop.compact())
        return Answer({"summary": summary, "num_messages_before": before, "num_messages_after": after})

    return Later(finish)
