"""Answers that take a while: a turn of an agent, whole or as a stream of events.

A route runs in a thread and is over in milliseconds. One that talks to a model returns a `Later`: what is left to do,
on the event loop, with the vault's work handed back to threads. The turn itself is a task of its own, so that it goes
on, and is written down, when the client hangs up.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from tallystone.letta.call import Answer
from tallystone.letta.turn_record import InThread
from tallystone.vault.subscription import Subscription


@dataclass
class Streamed(Answer):
    """An answer in server-sent events: `events` are the bytes as they go out."""

    events: AsyncIterator[bytes] = field(kw_only=True)


@dataclass
class Subscribed(Answer):
    """An answer that goes on for as long as somebody listens: the changes of the caller's blocks."""

    subscription: Subscription = field(kw_only=True)


@dataclass
class Later:
    """The rest of a request. `finish` runs on the event loop."""

    finish: Callable[[InThread, UnderWay], Awaitable[Answer]]


class UnderWay:
    """The turns of this process that go on, whoever waits for them. `crashed` is told of those that broke."""

    def __init__(self, crashed: Callable[[BaseException], None] = lambda _: None) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._crashed = crashed

    def start(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Let it run to its end."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._crashed(error)

    async def stop(self, seconds: float) -> None:
        """Give the turns so long to end; then cut them off, which they write down."""
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=seconds)
        for task in set(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=5)
