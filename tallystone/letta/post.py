"""The turns of agents that were written to: begun when a message was sent, when a turn has ended, when one is asked.

Whoever sends is in a thread, and must not wait there for another turn, which needs threads itself: a few agents that
ask each other would hold all there are. So an async message only wakes its recipient, and a question is waited for on
the event loop, where waiting costs nothing. A circle of questions ends at once: whoever waits is in a turn, and an
agent in a turn is busy.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import msgspec

from tallystone.errors import Conflict, Denied, Invalid, NotFound, TallystoneError
from tallystone.letta import composing
from tallystone.letta.agent_tools import Question, refusal
from tallystone.letta.call import Answer, Call, Query
from tallystone.letta.later import UnderWay
from tallystone.letta.letters import ASK, delivery
from tallystone.letta.memory_tools import ToolError
from tallystone.letta.messages import new_id, now_ms, typed
from tallystone.letta.model_layer import ModelLayer
from tallystone.letta.prompt import barred
from tallystone.letta.sse import Events
from tallystone.letta.talking import ended, order_of
from tallystone.letta.turn import Order, TurnLoop
from tallystone.letta.turn_bodies import MessagesCreate
from tallystone.letta.turn_record import InThread
from tallystone.vault import Vault
from tallystone.vault.turns import DEFAULT, Turn

ASK_SECONDS = 60
"""How long an agent waits for another one's reply, unless the settings say otherwise."""
MAX_REPLY = 20_000
"""Characters of a reply; the rest is cut off, and said to be."""

Once = Callable[[Callable[[], Turn], Callable[[Turn], Answer]], Answer]


class _NothingNew(Exception):
    """No message waits that the agent may take now."""


class Post:
    """For one application; made on its event loop."""

    def __init__(
        self,
        models: ModelLayer | None,
        in_thread: InThread,
        under_way: UnderWay,
        seconds: float = ASK_SECONDS,
    ) -> None:
        self._models, self._thread, self._under_way, self._seconds = models, in_thread, under_way, seconds
        self._loop = asyncio.get_running_loop()

    # -- messages that nobody waits for -------------------------------------------------------------------------

    def look(self, vault: Vault, agent_id: str) -> None:
        """See whether messages wait for an agent, and let it read them if this caller can act as it and it is not in a
        turn: whoever ends that turn looks again. From any thread."""
        with suppress(RuntimeError):  # the loop has ended: they wait until somebody else looks
            self._loop.call_soon_threadsafe(lambda: self._under_way.start(self._read(vault, agent_id)))

    async def _read(self, vault: Vault, agent_id: str) -> None:
        with suppress(TallystoneError):  # nobody waits to be told, and the vault has logged what it refused
            while True:
                begun = await self._thread(lambda: self._begin(vault, agent_id))
                if begun is None:
                    return
                mine, turn, order = begun
                await self.loop(mine, turn, order, Events()).run()

    def _begin(self, vault: Vault, agent_id: str) -> tuple[Vault, Turn, Order] | None:
        if not vault.has_messages(agent_id):
            return None
        mine = vault.again()
        order = self._order(mine, agent_id)
        run = new_id("run")
        taken = delivery(run)

        def deliver(*given: Any) -> Sequence[Mapping[str, Any]]:
            delivered = taken(*given)
            if delivered is None:
                raise _NothingNew
            return delivered

        try:
            turn = mine.begin_turn(agent_id, DEFAULT, _kept(run, order), _nothing_said(run), deliver)
        except _NothingNew:
            return None
        except Conflict as error:
            if error.code != "agent_busy":
                raise
            return None
        return mine, turn, order

    def _order(self, vault: Vault, agent_id: str) -> Order:
        return order_of(Call(vault, {}, Query(""), {}, models=self._models), agent_id, MessagesCreate())

    def loop(
        self, vault: Vault, turn: Turn, order: Order, events: Events, until: float | None = None
    ) -> TurnLoop:
        """A turn that has begun, of an agent that can write to others."""
        assert self._models is not None  # `order_of` asks
        outbox = Outbox(self, turn.run, until)
        return TurnLoop(vault, turn, order, self._models, events, self._thread, outbox)

    # -- questions ----------------------------------------------------------------------------------------------

    async def ask(
        self,
        vault: Vault,
        agent_id: str,
        question: Question,
        run: str = "",
        until: float | None = None,
        once: Once | None = None,
    ) -> str:
        """What another agent says to a message, in a turn of its own. Raises `ToolError`, and what ends the turn of the
        one that asks. `until` is when that one must have ended itself, in the loop's time."""
        until = min(self._loop.time() + self._seconds, until or float("inf"))
        if until <= self._loop.time():
            raise ToolError("TimeoutError", "there is no time left to wait for an answer in.")
        try:
            answering, turn = await self._thread(
                lambda: self._begin_asked(vault, agent_id, question, run, once)
            )
        except (NotFound, Invalid, Conflict, Denied) as error:
            raise refusal(error, question.to, ASK) from None
        if isinstance(turn, str):
            await ended(vault, turn, self._thread, self._seconds)
            return str(await self._thread(lambda: self._reply(vault, question.to, turn)))
        mine, order = answering
        task = self._under_way.start(self._answer(mine, turn, order, until))
        if not (await asyncio.wait({task}, timeout=max(0.0, until - self._loop.time())))[0]:
            raise ToolError(
                "TimeoutError", f"{question.to} has not answered in time. It has the message, and goes on."
            )
        return str(await self._thread(lambda: self._reply(vault, question.to, turn.run)))

    async def _answer(self, vault: Vault, turn: Turn, order: Order, until: float) -> None:
        await self.loop(vault, turn, order, Events(), until).run()
        self.look(vault, turn.agent)

    def _begin_asked(
        self, vault: Vault, agent_id: str, question: Question, run: str, once: Once | None
    ) -> tuple[Any, Turn | str]:
        """The turn that answers, or the id of the run in which a repeated request is answered."""
        mine = vault.again() if once is None else vault
        order = self._order(mine, question.to)
        identity = new_id("run")
        begun: list[Turn] = []

        def begin() -> Turn:
            begun.append(
                mine.ask_agent(
                    agent_id, question.to, question.text, _kept(identity, order), _nothing_said(identity),
                    delivery(identity), run=run,
                )
            )  # fmt: skip
            return begun[-1]

        if once is None:
            return (mine, order), begin()
        answer = once(begin, lambda turn: Answer({"run": turn.run}))
        known = msgspec.json.decode(answer.content())["run"]
        return (mine, order), begun[-1] if begun else str(known)

    def _reply(self, vault: Vault, to: str, run: str) -> str:
        record = vault.run(run)
        said = [
            one["content"]
            for message in vault.run_messages(run)
            for one in typed(message)
            if one["message_type"] == "assistant_message"
        ]
        if not said:
            reason = record.get("stop_reason") or record["status"]
            raise ToolError("RuntimeError", f"{to} answered nothing: its turn ended with {reason}.")
        text = "\n".join(said)
        cut = [] if len(text) <= MAX_REPLY else [f"({len(text) - MAX_REPLY} more characters are not shown)"]
        return "\n".join([f"(The agent {to} answers, behind bars:)", *barred(text[:MAX_REPLY]), *cut])


@dataclass(frozen=True)
class Outbox:
    """What a turn writes to other agents with: the post, its own run, and when it must have ended itself."""

    post: Post
    run: str = ""
    until: float | None = None

    async def ask(self, vault: Vault, agent_id: str, question: Question, once: Once | None = None) -> str:
        """See `Post.ask`."""
        return await self.post.ask(vault, agent_id, question, self.run, self.until, once)


def _kept(run: str, order: Order) -> dict[str, Any]:
    return {"id": run, "background": True, "handle": order.handle}


def _nothing_said(run: str) -> Any:
    """What a turn begins with that only takes messages."""
    return lambda record, context: composing.compose((), run, now_ms(), record, context)
