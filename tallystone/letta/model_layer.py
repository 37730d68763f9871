"""Calling models: which ones, how long, how often again. The protocols of providers are in model_wire.py.

pydantic-ai is loaded by the first call, in a thread, because loading it takes seconds. Nothing here writes to a log.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Sequence
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from tallystone.letta.model import NO_LIMITS, Delta, Limits, Reply, Said, ToolSpec
from tallystone.letta.providers import Family, ModelConfig, Target, model_json

if TYPE_CHECKING:
    import httpx2

    from tallystone.letta.model_faults import Fault

FIRST_PAUSE = 0.5
"""Seconds before the first repetition; each further one waits twice as long, up to 8 s, unless told otherwise."""
LONGEST_PAUSE = 30.0
"""Seconds that a provider may ask us to wait. Beyond that the turn is better told so."""

_LONGEST_OWN_PAUSE = 8.0


class ModelLayer:
    """The models of one server. Used from an event loop; `close` when that ends."""

    def __init__(
        self,
        config: ModelConfig,
        *,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.config = config
        self._sleep = sleep
        self._jitter = jitter
        # connections belong to the loop that opened them
        self._clients: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, httpx2.AsyncClient]] = (
            WeakKeyDictionary()
        )

    async def __aenter__(self) -> ModelLayer:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections of the running loop. Calls after that open new ones."""
        for client in self._clients.pop(asyncio.get_running_loop(), {}).values():
            await client.aclose()

    def check(self, handle: str | None, *, key: str | None = None) -> Target:
        """Where this model is served. Raises `Rejected` (400, `no_model`) unless it can be called from here."""
        return self.config.target(handle, key=key)

    def list_models(self, own: Collection[tuple[str, str]] = ()) -> list[dict[str, Any]]:
        """The configured models for which the server has what their provider needs, or the caller an `own` key (of
        this provider, for this origin), as `GET /v1/models/` shows them. Asks no provider."""
        return [model_json(handle) for handle in self.config.models if self.config.has_key(handle, own)]

    async def reply(
        self,
        handle: str | None,
        said: Sequence[Said],
        tools: Sequence[ToolSpec] = (),
        *,
        limits: Limits = NO_LIMITS,
        key: str | None = None,
    ) -> Reply:
        """The whole answer at once. `key` is the caller's own key for the provider, if it has one.

        Raises `ModelFailed`, or `Rejected` as `check` does.
        """
        target, limits = self.check(handle, key=key), self._within(limits)
        await asyncio.to_thread(_load, target.family)
        from tallystone.letta import model_wire

        deadline = _deadline(limits)
        for attempt in range(self.config.retries + 1):
            fault: Fault
            try:
                async with asyncio.timeout_at(deadline):
                    return await model_wire.reply(target, self._client(target), said, tools, limits)
            except Exception as error:
                fault = _fault(error, target)
            # outside of the handler, so that no foreign exception, which may quote what was said, hangs on ours
            await self._pause(fault, attempt, deadline)
        raise AssertionError("the last pause raises")

    async def stream(
        self,
        handle: str | None,
        said: Sequence[Said],
        tools: Sequence[ToolSpec] = (),
        *,
        limits: Limits = NO_LIMITS,
        key: str | None = None,
    ) -> AsyncGenerator[Delta | Reply, None]:
        """The answer in pieces, then the whole `Reply`. Close the generator to stop the model.

        A failure is made up for as in `reply`, but only before the first piece. Raises as `reply` does.
        """
        target, limits = self.check(handle, key=key), self._within(limits)
        await asyncio.to_thread(_load, target.family)
        from tallystone.letta import model_wire

        deadline = _deadline(limits)
        for attempt in range(self.config.retries + 1):
            begun = False
            pieces = model_wire.stream(target, self._client(target), said, tools, limits)
            try:
                while True:
                    piece = await _next(pieces, deadline, target)
                    if isinstance(piece, Reply):
                        yield piece
                        return
                    if not isinstance(piece, Delta):
                        break
                    begun = True
                    if piece != Delta():
                        yield piece
            finally:
                await pieces.aclose()
            if begun:
                raise piece.failure
            await self._pause(piece, attempt, deadline)

    def _within(self, limits: Limits) -> Limits:
        """These limits, none of them above the settings."""
        tokens, seconds = self.config.max_tokens, self.config.seconds
        return replace(
            limits,
            max_tokens=tokens if limits.max_tokens is None else max(1, min(limits.max_tokens, tokens)),
            seconds=seconds if limits.seconds is None else min(limits.seconds, seconds),
        )

    def _client(self, target: Target) -> httpx2.AsyncClient:
        from tallystone.letta import outbound

        clients = self._clients.setdefault(asyncio.get_running_loop(), {})
        if target.url not in clients:
            clients[target.url] = outbound.client(target.url, self.config.seconds)
        return clients[target.url]

    async def _pause(self, fault: Fault, attempt: int, deadline: float) -> None:
        """Wait before the next attempt. Raises the failure when there is to be none."""
        asked = fault.after
        pause = min(FIRST_PAUSE * 2**attempt, _LONGEST_OWN_PAUSE) * (1 + self._jitter()) / 2
        if asked is not None:
            pause = max(asked, 0.0)
        left = deadline - asyncio.get_running_loop().time()
        if not fault.again or attempt >= self.config.retries or pause > LONGEST_PAUSE or pause >= left:
            raise fault.failure
        await self._sleep(pause)


def _load(family: Family) -> None:
    """Load the library that knows a protocol: in a thread, or it would hold up the loop for seconds."""
    from tallystone.letta import model_wire

    model_wire.load(family)


def _deadline(limits: Limits) -> float:
    assert limits.seconds is not None
    return asyncio.get_running_loop().time() + limits.seconds


def _fault(error: Exception, target: Target) -> Fault:
    from tallystone.letta.model_faults import fault_of

    return fault_of(error, target.provider)


async def _next(
    pieces: AsyncGenerator[Delta | Reply, None], deadline: float, target: Target
) -> Delta | Reply | Fault:
    """The next piece of an answer, or what went wrong."""
    try:
        async with asyncio.timeout_at(deadline):
            return await anext(pieces)
    except Exception as error:
        return _fault(error, target)
