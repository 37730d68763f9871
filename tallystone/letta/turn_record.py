"""What a turn writes down as it goes on: messages, steps, tokens, and how it ended. Each is a commit of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import suppress
from typing import Any, Protocol, TypeVar

from tallystone.errors import TallystoneError
from tallystone.letta.composing import INTERRUPTED
from tallystone.letta.messages import new_id, now_ms, open_calls
from tallystone.letta.model import Delta, Usage
from tallystone.vault.turns import LEASE_SECONDS, Turn

T = TypeVar("T")

GLANCE = 0.5
"""Seconds between looks at whether somebody wants the turn to end."""
InThread = Callable[[Callable[[], Any]], Awaitable[Any]]
"""Runs a function of the vault, which blocks, in a thread."""


class Listener(Protocol):
    """Whoever wants to hear what a turn says while it goes on."""

    def message(self, message: Mapping[str, Any]) -> None:
        """A message was written down."""

    def delta(self, message_id: str, step_id: str, delta: Delta) -> None:
        """A model wrote a piece of the message that will have this id."""


class Stop(Exception):
    """The turn is over, for this reason; with an error (`type`, `message`) if it is one."""

    def __init__(self, reason: str, **error: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.error = error


class TurnRecord:
    """A turn's record, for the one loop that drives it."""

    def __init__(self, turn: Turn, listener: Listener, in_thread: InThread) -> None:
        self.turn = turn
        self.listener = listener
        self.used = 0
        self._thread = in_thread
        self._usage = {"prompt": 0, "completion": 0, "cached": 0, "reasoning": 0, "steps": 0}
        self._renewed = asyncio.get_running_loop().time()

    @property
    def context(self) -> list[dict[str, Any]]:
        """The messages that prompts hold."""
        return self.turn.context

    async def do(self, work: Callable[[], T]) -> T:
        """`work` in a thread."""
        result: T = await self._thread(work)
        return result

    async def write(self, messages: list[dict[str, Any]], **more: Any) -> None:
        """Write messages down (`more` as `Turn.write` takes it) and tell who listens. Raises `Stop` (`cancelled`) once
        somebody wants that."""
        usage = {"usage": dict(self._usage)}
        unwanted = await self.do(lambda: self.turn.write(messages, run=usage, **more))
        self._renewed = asyncio.get_running_loop().time()
        for message in messages:
            self.listener.message(message)
        if unwanted:
            raise Stop("cancelled")

    def said(self, role: str, text: str, **fields: Any) -> dict[str, Any]:
        """A new message of this turn. Fields that are None are left out."""
        made = {
            "id": new_id("message"),
            "role": role,
            "date": self.now(),
            "run": self.turn.run,
            "text": text,
            **fields,
        }
        return {name: value for name, value in made.items() if value is not None}

    def now(self) -> int:
        """Unix milliseconds, never before the latest message."""
        latest = self.context[-1]["date"] if self.context else 0
        return max(latest, now_ms())

    def count(self, usage: Usage, *, step: bool = True) -> None:
        """Add the tokens of one answer; `used` is what the latest step took."""
        for name, value in (
            ("prompt", usage.input), ("completion", usage.output), ("cached", usage.cached),
            ("reasoning", usage.reasoning), ("steps", int(step)),
        ):  # fmt: skip
            self._usage[name] += value
        self.used = usage.input + usage.output if step else 0

    async def watched(self, work: Coroutine[Any, Any, T]) -> T:
        """What a model answers; meanwhile the lease is renewed, and a wish to cancel is heard."""
        task = asyncio.ensure_future(work)
        loop = asyncio.get_running_loop()
        try:
            while not (await asyncio.wait({task}, timeout=GLANCE))[0]:
                if loop.time() - self._renewed > LEASE_SECONDS / 4:
                    unwanted = await self.do(self.turn.renew)
                    self._renewed = loop.time()
                else:
                    unwanted = await self.do(self.turn.is_unwanted)
                if unwanted:
                    raise Stop("cancelled")
            return task.result()
        finally:
            if not task.done():
                task.cancel()
                with suppress(asyncio.CancelledError, Exception):
                    await task

    # -- the end ------------------------------------------------------------------------------------------------

    async def end(self, stop: Stop) -> None:
        """Write down how the turn ended. Calls that have no return by then get one, unless they wait for somebody."""
        left = self._left(stop)
        if left:
            await self.do(lambda: self.turn.write(left))
            for message in left:
                self.listener.message(message)
        await self.do(lambda: self.turn.write(run=self._ended(stop), end=True))

    def end_at_once(self) -> None:
        """The process stops, and there is no time for another thread."""
        stop = Stop("cancelled")
        with suppress(TallystoneError):
            self.turn.write(self._left(stop), run=self._ended(stop), end=True)

    def _left(self, stop: Stop) -> list[dict[str, Any]]:
        if stop.reason == "requires_approval":
            return []
        _, calls = open_calls(self.context)
        text = (
            "The turn was cancelled before this call was made." if stop.reason == "cancelled" else INTERRUPTED
        )
        return [self.said("tool", text, call=call["id"], name=call["name"], status="error") for call in calls]

    def _ended(self, stop: Stop) -> dict[str, Any]:
        status = "cancelled" if stop.reason == "cancelled" else "failed" if stop.error else "completed"
        ended = {
            "status": status,
            "stop_reason": stop.reason,
            "completed": self.now(),
            "usage": dict(self._usage),
        }
        return {**ended, "error": stop.error} if stop.error else ended
