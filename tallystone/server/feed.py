"""The change feed over HTTP: one pump for all listeners of the process, and what each is sent (ADR 0020).

The pump lives on the event loop, looks at the log's head a hundred times a second while anybody listens, and lets a
vault look again in a thread where access is in doubt. A listener that does not read holds one entry a block, and is
cut off when a write to it has waited too long.

    id: <opaque>                                    where `Last-Event-ID` goes on
    data: {"number": 7, "kind": "updated", "block_id": "block-…", "version": 3}
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any
from weakref import WeakValueDictionary

import anyio
import anyio.to_thread
import msgspec
import structlog
from starlette.types import ASGIApp, Receive, Scope, Send

from tallystone.errors import TallystoneError
from tallystone.server.errors import Refusal
from tallystone.vault import Workspace
from tallystone.vault.sight import EVERYTHING
from tallystone.vault.subscription import Found, Subscription
from tallystone.vault.types import Change
from tallystone.vault.watching import POLL_SECONDS, Feed

LISTENERS = 2_000
"""Streams that a process holds open, unless the settings say otherwise."""
LISTENERS_EACH = 250
"""Streams of one user with its agents: agents cost nothing to make."""
PING_SECONDS = 15.0
"""Seconds of silence after which a stream shows that it is alive."""
STUCK_SECONDS = 30.0
"""Seconds that one write may wait for a listener to read."""
LOOKS = 4
"""Vaults that look again at once, each in a thread."""
LOOKS_EACH = 2
"""Those of them that are one user's with its agents: the others wait in line there, and hold up nobody else's end."""

_HEADERS = {"content-type": "text/event-stream; charset=utf-8", "x-accel-buffering": "no"}
_log = structlog.get_logger("tallystone.server")


class _Ear:
    """One open stream: its subscription, what wakes it, when it last began to write, and whether it still does."""

    def __init__(self, subscription: Subscription) -> None:
        self.subscription = subscription
        self.wake = asyncio.Event()
        self.wrote, self.writing = time.monotonic(), False
        self.scope = anyio.CancelScope()


class Pump:
    """All streams of this process. `crashed` is told of errors that nobody foresaw. Used on the event loop, and `admit`
    in threads as well."""

    def __init__(
        self,
        workspace: Workspace,
        *,
        listeners: int = LISTENERS,
        listeners_each: int = LISTENERS_EACH,
        stuck_seconds: float = STUCK_SECONDS,
        ping_seconds: float = PING_SECONDS,
        crashed: Callable[[BaseException], None] = lambda _: None,
    ) -> None:
        self._most, self._most_each = listeners, listeners_each
        self._stuck_seconds, self._ping_seconds = stuck_seconds, ping_seconds
        self._crashed = crashed
        self._feed = Feed(workspace)
        self._ears: dict[Subscription, _Ear] = {}
        self._of: Counter[str] = Counter()
        self._task: asyncio.Task[None] | None = None
        self._looks: set[asyncio.Task[None]] = set()
        self._searching: asyncio.Task[None] | None = None
        self._limiter: anyio.CapacityLimiter | None = None
        self._lines: WeakValueDictionary[str, anyio.CapacityLimiter] = WeakValueDictionary()
        self._stopping = False

    def __len__(self) -> int:
        """How many streams are open."""
        return len(self._ears)

    def admit(self, user: str) -> None:
        """Raises `Refusal` (429) if this user has too many streams with its agents, (503) if everybody together has."""
        if self._of[user] >= self._most_each:
            raise _too_many(
                429,
                "this user listens too often already, its agents included",
                "close a stream, or filter less finely",
            )
        if len(self._ears) >= self._most or self._stopping:
            raise _too_many(
                503, "this server has as many streams as it takes", "try again later, or at another"
            )

    def stream(self, subscription: Subscription, headers: Mapping[str, str]) -> ASGIApp:
        """One stream, to be served to its end: until the listener leaves or is stuck, access ends, the server stops."""

        async def respond(scope: Scope, receive: Receive, send: Send) -> None:
            await self._respond(subscription, headers, receive, send)

        return respond

    async def _respond(
        self, subscription: Subscription, headers: Mapping[str, str], receive: Receive, send: Send
    ) -> None:
        user = subscription.user
        ear = _Ear(subscription)
        self._ears[subscription], self._of[user] = ear, self._of[user] + 1
        gone = asyncio.ensure_future(_gone(receive))
        gone.add_done_callback(lambda _: ear.wake.set())
        try:
            self._feed.add(subscription)
            self._start()
            with ear.scope:
                raw = [(name.encode(), value.encode()) for name, value in {**_HEADERS, **headers}.items()]
                await send({"type": "http.response.start", "status": 200, "headers": raw})
                await self._tell(ear, gone, send)
        finally:
            gone.cancel()
            with suppress(asyncio.CancelledError):
                await gone
            self._feed.remove(subscription)
            del self._ears[subscription]
            self._of[user] -= 1
            self._of += Counter()  # drops what counts nothing

    async def _tell(self, ear: _Ear, gone: asyncio.Future[None], send: Send) -> None:
        subscription = ear.subscription
        while not gone.done():
            ear.wake.clear()
            changes = subscription.take()
            if changes:
                await self._write(ear, send, b"".join(map(_event, changes)))
            if changes and changes[-1].kind == "end":
                await send({"type": "http.response.body", "body": b""})
                return
            elif not changes and time.monotonic() - ear.wrote >= self._ping_seconds:
                # The place goes along each time, so that its coming says nothing about what others wrote.
                await self._write(ear, send, b": still here\nid: " + subscription.here().encode() + b"\n\n")
            if not subscription.waiting:
                await ear.wake.wait()

    async def _write(self, ear: _Ear, send: Send, body: bytes) -> None:
        ear.wrote, ear.writing = time.monotonic(), True
        await send({"type": "http.response.body", "body": body, "more_body": True})
        ear.writing = False

    # -- the pump -----------------------------------------------------------------------------------------------

    def _start(self) -> None:
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        checked = time.monotonic()
        while self._ears:
            try:
                # A database may keep us waiting, and the loop must not wait: a thread asks whether there is anything.
                asked = not self._feed.remote or await self._thread(self._feed.has_moved)
                if asked and self._feed.poll():
                    self._hear()
            except TallystoneError as error:
                _log.error("feed", code=error.code, error=error.message)
                self._end_all(error.code)
            except Exception as error:
                self._crashed(error)
                self._end_all("internal")
            if time.monotonic() - checked >= 1:
                checked = time.monotonic()
                self._see_to_the_silent(checked)
            await asyncio.sleep(POLL_SECONDS)

    def _hear(self) -> None:
        """Wake those who have something to tell, and see to those who must look again."""
        for listener, ear in self._ears.items():
            if listener.waiting:
                ear.wake.set()
        for listener in self._feed.doubtful():
            self._spawn(self._look(listener, listener.begin_look()))
        if self._feed.appeared and self._searching is None:
            self._feed.appeared = False
            self._searching = self._spawn(self._search())

    def _spawn(self, work: Any) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._looks.add(task)
        task.add_done_callback(self._looks.discard)
        return task

    async def _look(self, listener: Subscription, wanted: set[str]) -> None:
        line = self._lines.setdefault(listener.user, anyio.CapacityLimiter(LOOKS_EACH))
        try:
            async with line:
                if listener not in self._ears:
                    return  # it left while it waited
                found = await self._thread(partial(listener.find, wanted))
        except Exception as error:
            self._crashed(error)
            found = Found(code="internal")
        self._feed.finish_look(listener, found)
        ear = self._ears.get(listener)
        if ear is None:
            return  # it left meanwhile
        ear.wake.set()
        if listener.unsure and not listener.code:
            self._spawn(self._look(listener, listener.begin_look()))

    async def _search(self) -> None:
        """Ask for each listener whether something new is on its shelves, a few at a time: it costs a read or two."""
        try:
            listeners = list(self._feed)
            for first in range(0, len(listeners), 50):
                some = listeners[first : first + 50]
                for listener in await self._thread(partial(self._feed.search, some)):
                    listener.unsure.add(EVERYTHING)
        except TallystoneError as error:
            _log.error("feed", code=error.code, error=error.message)
            self._end_all(error.code)
        finally:
            self._searching = None
        self._hear()

    async def _thread(self, work: Callable[[], Any]) -> Any:
        if self._limiter is None:  # belongs to the running loop
            self._limiter = anyio.CapacityLimiter(LOOKS)
        return await anyio.to_thread.run_sync(work, limiter=self._limiter)

    def _see_to_the_silent(self, now: float) -> None:
        """Once a second: cut off who does not read, and let the others know that the stream is alive."""
        for ear in self._ears.values():
            if ear.writing and now - ear.wrote > self._stuck_seconds:
                ear.scope.cancel()
            elif not ear.writing and now - ear.wrote >= self._ping_seconds:
                ear.wake.set()

    def _end_all(self, code: str) -> None:
        for listener, ear in self._ears.items():
            listener.end(code)
            ear.wake.set()

    def stop(self) -> None:
        """End all streams, and take no more: the server stops. Listeners go on elsewhere from their last id."""
        self._stopping = True
        self._end_all("stopping")


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _event(change: Change) -> bytes:
    body: dict[str, Any] = {"number": change.number, "kind": change.kind}
    if change.block_id:
        body["block_id"], body["version"] = change.block_id, change.version
    if change.code:
        body["code"] = change.code
    where = b"id: " + change.id.encode() + b"\n" if change.id else b""
    return where + b"data: " + msgspec.json.encode(body) + b"\n\n"


def _too_many(status: int, message: str, hint: str) -> Refusal:
    return Refusal(status, "too_many_streams", message, hint=hint, headers={"retry-after": "5"})
