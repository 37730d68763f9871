"""How work waits: a thread blocks; what a server runs on its event loop gives way (ADR 0039).

The vault is plain synchronous code and knows nothing of loops. Where it must wait (for a commit, for whoever changes
the same block, for a database's answer) it asks how that is done here. Without an
answer from outside, as in the embedded library, a thread waits as threads do.
"""

from __future__ import annotations

import select
from collections import deque
from collections.abc import Callable
from contextvars import ContextVar
from threading import Lock
from types import TracebackType
from typing import Protocol


class Gate(Protocol):
    """Closed until somebody opens it, once."""

    def wait(self) -> None:
        """Return when it is open. For the one who made it."""
        ...

    def open(self) -> None:
        """Let the one who waits go on. From any thread."""
        ...


class Place(Protocol):
    """Where some work runs."""

    def gate(self) -> Gate:
        """Something for this work to wait at."""
        ...

    def aside(self, work: Callable[[], None]) -> None:
        """Do `work`, which blocks, where it stops nobody else; return when it is done, and raise what it raises."""
        ...

    def ready(self, socket: int, seconds: float, *, writing: bool = False) -> bool:
        """Wait until this socket has something to read, or if `writing` also until it takes something. False if that
        took so long."""
        ...

    def tick(self) -> None:
        """Called by what may go on for long, now and then, with no lock in its hands that others do not wait for in the
        same way. Ends the work by an exception if it should be begun again elsewhere; never after it has waited, since
        it may have changed something by then."""
        ...


class _Barrier:
    """A gate for a thread."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = Lock()
        self._lock.acquire()

    def wait(self) -> None:
        self._lock.acquire()

    def open(self) -> None:
        self._lock.release()


class _Thread:
    """Work that has a thread to itself."""

    def gate(self) -> Gate:
        return _Barrier()

    def aside(self, work: Callable[[], None]) -> None:
        work()

    def ready(self, socket: int, seconds: float, *, writing: bool = False) -> bool:
        wake = select.poll()
        wake.register(socket, select.POLLIN | select.POLLOUT if writing else select.POLLIN)
        return bool(wake.poll(seconds * 1000))

    def tick(self) -> None:
        pass


PLACE: ContextVar[Place] = ContextVar("place", default=_Thread())  # noqa: B039 -- it has no state
"""Where the work of this context runs: set by whoever runs it elsewhere than in a thread."""


class Turns:
    """A lock: whoever waits is let in in the order of asking, however it waits. For a `with` block."""

    __slots__ = ("_held", "_lock", "_waiting")

    def __init__(self) -> None:
        self._lock = Lock()  # held for a few instructions, so that nobody who must not block blocks on it
        self._held = False
        self._waiting: deque[Gate] = deque()

    @property
    def taken(self) -> bool:
        """Whether whoever asks now would wait, as far as one can tell without waiting."""
        return self._held

    def __enter__(self) -> None:
        with self._lock:
            if not self._held:
                self._held = True
                return
            gate = PLACE.get().gate()
            self._waiting.append(gate)
        try:
            gate.wait()
        except BaseException:  # KeyboardInterrupt: leave, and never with the turn in hand
            with self._lock:
                waits = gate in self._waiting
                if waits:
                    self._waiting.remove(gate)
            if not waits:
                self._pass_on()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pass_on()

    def _pass_on(self) -> None:
        with self._lock:
            if self._waiting:
                self._waiting.popleft().open()
            else:
                self._held = False
