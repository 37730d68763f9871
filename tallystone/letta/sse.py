"""A turn as server-sent events: `data: {json}` and an empty line, each message once, `[DONE]` at the end.

No `event:` line is ever written: the client drops what has one. A turn that fails midway says so in an
`error_message`, and ends like any other.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from typing import Any

import msgspec

from tallystone.errors import TallystoneError
from tallystone.letta.arguments import clean
from tallystone.letta.messages import PLAIN, Style, date_json, new_id, now_ms, typed
from tallystone.letta.model import Delta
from tallystone.letta.turn_json import echoes, error_json, stop_reason, usage
from tallystone.letta.turn_record import InThread
from tallystone.vault import Vault

PING_SECONDS = 10.0
"""Seconds of silence after which a stream shows that it is alive."""
_DONE = b"data: [DONE]\n\n"


def _event(body: Mapping[str, Any]) -> bytes:
    return b"data: " + msgspec.json.encode(body) + b"\n\n"


def _still_here(pings: bool) -> bytes:
    if not pings:
        return b": still here\n\n"
    return _event({"message_type": "ping", "id": new_id("message"), "date": date_json(now_ms())})


def _ending(run: Mapping[str, Any]) -> list[bytes]:
    error = error_json(run)
    shown = [error] if error is not None else []
    return [*(_event(one) for one in (*shown, stop_reason(run), usage(run))), _DONE]


def out_of_sight(run_id: str, error: TallystoneError) -> dict[str, Any]:
    """The run of a stream whose reader may not read it any more: its token was revoked, the agent deleted."""
    return {"id": run_id, "status": "failed", "error": {"type": error.code, "message": error.message}}


class Events:
    """What a turn says, kept until it is read. Used on the event loop, by the turn and by one reader."""

    def __init__(self, style: Style = PLAIN, compactions: bool = False) -> None:
        self._style, self._compactions = style, compactions
        self._queue: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self._heard: set[str] = set()
        self._count = 0
        self._gone = False

    def message(self, message: Mapping[str, Any]) -> None:
        """A message was written down: what of it was not heard piece by piece goes out."""
        if self._gone or not echoes(message, self._compactions):
            return
        for one in typed(message, self._style):
            self._count += 1
            words = one.get("content", one.get("reasoning"))
            if message["id"] not in self._heard or words not in (
                message.get("text"),
                message.get("thinking"),
            ):
                self._queue.put_nowait({**one, "seq_id": self._count})

    def delta(self, message_id: str, step_id: str, delta: Delta) -> None:
        """A piece goes out under the id that the whole message will have."""
        if self._gone:
            return
        self._heard.add(message_id)
        base = {"id": message_id, "date": date_json(now_ms()), "step_id": step_id, "is_err": False}
        types = self._style.types
        if delta.thinking and (types is None or "reasoning_message" in types):
            said = {"reasoning": clean(delta.thinking), "source": "reasoner_model"}
            self._queue.put_nowait({**base, "message_type": "reasoning_message", **said})
        if delta.text and (types is None or "assistant_message" in types):
            said = {"content": clean(delta.text)}
            self._queue.put_nowait({**base, "message_type": "assistant_message", **said})

    @property
    def waiting(self) -> int:
        """Events that nobody has read yet."""
        return self._queue.qsize()

    async def until(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a turn, and close the stream behind it."""
        try:
            await work
        finally:
            self._queue.put_nowait(None)

    async def events(
        self, run: Callable[[], Awaitable[Mapping[str, Any]]], *, pings: bool
    ) -> AsyncIterator[bytes]:
        """The bytes of the stream. `run` reads the run's record when all was said."""
        waiting: asyncio.Task[dict[str, Any] | None] | None = None
        try:
            while True:
                waiting = waiting or asyncio.ensure_future(self._queue.get())
                if not (await asyncio.wait({waiting}, timeout=PING_SECONDS))[0]:
                    yield _still_here(pings)
                    continue
                body, waiting = waiting.result(), None
                if body is None:
                    break
                yield _event(body)
        finally:
            self._gone = True  # the turn goes on without a reader, and must not fill the queue
            if waiting is not None:
                waiting.cancel()
        for last in _ending(await run()):
            yield last


class Replay:
    """A run's events out of the history: of one that is over, or that goes on somewhere else."""

    def __init__(
        self, vault: Vault, run: str, style: Style, compactions: bool, in_thread: InThread, beyond: int = 0
    ) -> None:
        self._vault, self._run, self._style, self._compactions = vault, run, style, compactions
        self._thread, self._beyond = in_thread, beyond

    async def events(self, *, pings: bool) -> AsyncIterator[bytes]:
        """What was written down, then what still is, until the run is over. Messages up to number `beyond` are left
        out."""
        sent, pause, quiet = 0, 0.1, 0.0
        while True:
            try:
                run = await self._thread(lambda: self._vault.run(self._run))
                messages = await self._thread(lambda: self._vault.run_messages(self._run))
            except TallystoneError as error:
                run, messages = out_of_sight(self._run, error), []
            shown = [
                one
                for message in messages
                if echoes(message, self._compactions)
                for one in typed(message, self._style)
            ]
            for number, one in enumerate(shown[sent:], sent + 1):
                if number > self._beyond:
                    yield _event({**one, "seq_id": number})
            pause = 0.1 if len(shown) > sent else min(2 * pause, 2.0)
            quiet = 0.0 if len(shown) > sent else quiet + pause
            sent = len(shown)
            if run["status"] != "running":
                break
            if quiet >= PING_SECONDS:
                quiet = 0.0
                yield _still_here(pings)
            await asyncio.sleep(pause)
        for last in _ending(run):
            yield last
