"""Short work of the vault on the event loop itself, given way to others while it waits for its commit (ADR 0039, 0048).

The vault is synchronous. A request in a thread of its own costs four hand-overs of the interpreter's lock, more than
reading a block does. A fiber (a greenlet) is a call that can be left in the middle and gone on with later: while its
commit is on its way to the disk, or a database has not answered yet, the loop works on the next request.
"""

from __future__ import annotations

import asyncio
import selectors
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import Context, copy_context
from typing import Any, Generic, TypeVar

from greenlet import greenlet

from tallystone.waiting import PLACE

T = TypeVar("T")

PATIENCE = 0.025
"""Seconds of processor time that others wait while one goes on, before it is begun again in a thread."""
SLICE = 0.005
"""Seconds of processor time after which one that cannot be begun again lets the others go on."""
_LOOK = 1.0
"""Seconds between looks for those that have waited for a socket too long."""


class Lengthy(BaseException):
    """This work is longer than the loop can wait; it has changed nothing yet. No `Exception`: only who runs it may
    catch it."""


class Fibers:
    """For one event loop at a time. Everything but `open` of a gate happens in its thread."""

    def __init__(self, most: int | None = None, aside: int = 1) -> None:
        """`most`: so many at once, the others wait in line. `aside`: threads for what blocks."""
        self._most = most
        self._line: asyncio.Semaphore | None = None
        self._aside = ThreadPoolExecutor(aside, "tallystone-aside")
        self._open: deque[_Gate] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._sockets: Sockets | None = None
        self._woken = self._closed = False
        self._under_way = 0

    async def run(self, work: Callable[[], T]) -> T:
        """What `work` returns or raises. What has begun ends, though nobody may wait for it any more. Raises `Lengthy`
        if it should be done in a thread instead: then nothing of it has taken place."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._loop, self._woken, self._sockets = loop, False, None
            self._line = None if self._most is None else asyncio.Semaphore(self._most)
        if self._line is None:
            return await self._run(work)
        async with self._line:
            return await self._run(work)

    async def _run(self, work: Callable[[], T]) -> T:
        if self._sockets is not None:
            self._sockets.some_ready()
        fiber = Fiber(self, work)
        self._under_way += 1
        try:
            fiber.switch()
            if not fiber.dead:
                await self._end_of(fiber)
        finally:
            self._under_way -= 1
            self._end_if_over()
        if fiber.raised is not None:
            try:
                raise fiber.raised
            finally:
                fiber.raised = None  # it holds this frame
        result: T = fiber.result
        return result

    async def _end_of(self, fiber: Fiber[T]) -> None:
        assert self._loop is not None  # `run` has seen to it
        cancelled: asyncio.CancelledError | None = None
        while not fiber.dead:
            fiber.ended = self._loop.create_future()
            try:
                await fiber.ended
            except asyncio.CancelledError as error:  # nobody is told of half an operation
                cancelled = error
        if cancelled is not None:
            raise cancelled

    def close(self) -> None:
        """Take no more work. What has begun ends by itself, and has until then what it waits by: a loop waits for the
        end of its tasks, which would never come."""
        self._closed = True
        self._end_if_over()

    def _end_if_over(self) -> None:
        if self._closed and not self._under_way:
            self._aside.shutdown(wait=False)
            if self._sockets is not None:
                self._sockets.close()
                self._sockets = None

    # -- what fibers ask for ------------------------------------------------------------------------------------

    def go_on(self, gate: _Gate) -> None:
        """Let the fiber behind a gate go on, soon. From any thread. Those of one commit are woken together."""
        self._open.append(gate)
        if not self._woken:
            self._woken = True
            assert self._loop is not None
            with suppress(RuntimeError):  # the loop has ended, and with it all that waited there
                self._loop.call_soon_threadsafe(self._resume)

    def _resume(self) -> None:
        self._woken = False  # before looking: who comes later wakes us again
        while self._open:
            self._open.popleft().enter()

    def sockets(self) -> Sockets:
        """Those of this loop's that are waited for."""
        assert self._loop is not None
        if self._sockets is None:
            self._sockets = Sockets(self._loop)
        return self._sockets

    def later(self, gate: _Gate) -> None:
        """Open the gate when what the loop knows of by now has had its turn. On the loop."""
        assert self._loop is not None
        self._loop.call_soon(gate.enter)

    def aside(self, work: Callable[[], None], gate: _Gate) -> list[BaseException]:
        """Do `work`, which blocks, in another thread, and open the gate when it is done; what it raised is in the list
        by then."""
        raised: list[BaseException] = []

        def run() -> None:
            try:
                work()
            except BaseException as error:
                raised.append(error)
            finally:
                gate.open()

        self._aside.submit(run)
        return raised


class Fiber(greenlet, Generic[T]):
    """One piece of work, and the `Place` that it runs in."""

    def __init__(self, fibers: Fibers, work: Callable[[], T]) -> None:
        super().__init__(self._body)
        self.gr_context = copy_context()
        self.result: Any = None
        self.raised: BaseException | None = None
        self.ended: asyncio.Future[None] | None = None
        self._fibers, self._work = fibers, work
        self._until = time.thread_time() + PATIENCE
        self._waited = False

    def _body(self) -> None:
        before = PLACE.set(self)
        try:
            self.result = self._work()
        except BaseException as error:
            self.raised = error
        finally:
            PLACE.reset(before)  # this holds its context: each holding the other, body and answer would stay

    # -- see `waiting.Place` --------------------------------------------------------------------------------------

    def gate(self) -> _Gate:
        """See `Place.gate`."""
        return _Gate(self._fibers, self)

    def aside(self, work: Callable[[], None]) -> None:
        """See `Place.aside`."""
        gate = self.gate()
        raised = self._fibers.aside(work, gate)
        gate.wait()
        if raised:
            raise raised[0]

    def ready(self, socket: int, seconds: float, *, writing: bool = False) -> bool:
        """See `Place.ready`."""
        gate = self.gate()
        return self._fibers.sockets().wait(socket, seconds, writing, gate)

    def tick(self) -> None:
        """See `Place.tick`. What can no longer be begun again elsewhere goes on in slices."""
        if time.thread_time() > self._until:
            if not self._waited:
                raise Lengthy
            gate = self.gate()
            self._fibers.later(gate)
            gate.wait()

    def give_way(self) -> None:
        """Go back to the loop, until it switches here again."""
        self._waited = True
        assert self.parent is not None  # the loop's own
        self.parent.switch()
        self._until = time.thread_time() + SLICE  # the thread's time went on with others' work


class Sockets:
    """Sockets that fibers of one loop wait for. The loop itself listens to one thing, which tells when one of them is
    ready: letting it know of each wait and of its end costs it more than the answer that is waited for."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._selector = selectors.DefaultSelector()
        self._late: set[_Gate] = set()
        self._timer: asyncio.TimerHandle | None = None
        # What is told to a loop keeps the context in which it was told: not that of a request.
        Context().run(loop.add_reader, self._selector, self.some_ready)

    def wait(self, socket: int, seconds: float, writing: bool, gate: _Gate) -> bool:
        """Wait at the gate until the socket is ready; False after so many seconds, or up to a second more."""
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if writing else 0)
        self._selector.register(socket, events, (gate, self._loop.time() + seconds))
        if self._timer is None:
            self._look_later()
        gate.wait()
        if gate in self._late:
            self._late.remove(gate)
            return False
        return True

    def close(self) -> None:
        """Listen no more."""
        if self._timer is not None:
            self._timer.cancel()
        self._loop.remove_reader(self._selector)
        self._selector.close()

    def some_ready(self) -> None:
        """Let those go on whose socket is ready."""
        ready = [key for key, _ in self._selector.select(0)]
        for key in ready:  # whoever goes on may wait for the same socket again
            self._selector.unregister(key.fd)
        for key in ready:
            key.data[0].enter()

    def _look_later(self) -> None:
        self._timer = self._loop.call_later(_LOOK, self._look, context=Context())

    def _look(self) -> None:
        self.some_ready()  # after the process stood still, what is late may be there all the same
        self._timer = None
        waiting, now = list(self._selector.get_map().values()), self._loop.time()
        late = [key for key in waiting if key.data[1] <= now]
        if len(late) < len(waiting):
            self._look_later()
        for key in late:
            self._selector.unregister(key.fd)
            self._late.add(key.data[0])
        for key in late:
            key.data[0].enter()


class _Gate:
    """A gate at which a fiber waits. It may be open before the fiber gets there."""

    __slots__ = ("_fiber", "_fibers", "_inside", "_opened")

    def __init__(self, fibers: Fibers, fiber: Fiber[Any]) -> None:
        self._fibers, self._fiber = fibers, fiber
        self._opened = self._inside = False

    def wait(self) -> None:
        self._inside = True
        while not self._opened:
            self._fiber.give_way()
        self._inside = False

    def open(self) -> None:
        self._fibers.go_on(self)

    def enter(self) -> None:
        """On the loop: it is open, and whoever waits here goes on."""
        self._opened = True
        if self._inside:
            fiber = self._fiber
            fiber.switch()
            if fiber.dead and fiber.ended is not None and not fiber.ended.done():
                fiber.ended.set_result(None)
