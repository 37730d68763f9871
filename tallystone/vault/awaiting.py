"""Waiting until a witness has cosigned a checkpoint that contains an event; many wait for one round together.

Whoever calls from a thread of its own waits in it. A server's threads are few, so it gathers what is owed (`owing`),
and waits on its event loop before anything leaves: nobody's wait takes a place from others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING

from tallystone.errors import Unwitnessed

if TYPE_CHECKING:
    from tallystone.vault.workspace import Workspace

SECONDS = 20.0
"""How long an answer waits, unless the settings say otherwise."""


@dataclass
class Owed:
    """How many leaves a cosigned checkpoint must have before a result may be told; 0 for none."""

    size: int = 0


_OWED: ContextVar[Owed | None] = ContextVar("owed", default=None)


@contextmanager
def owing(owed: Owed) -> Iterator[None]:
    """What is owed while the body runs is noted, not waited for: the caller of this waits before it tells anybody."""
    token = _OWED.set(owed)
    try:
        yield
    finally:
        _OWED.reset(token)


class Awaited:
    """Who waits for a cosignature over how many leaves. Safe to use from several threads."""

    def __init__(self, seconds: float = SECONDS, ask: Callable[[], None] = lambda: None) -> None:
        """`ask` has the witnesses asked soon."""
        self.seconds = seconds
        self._ask = ask
        self._lock = Lock()
        self._size = 0
        self._waiting: list[tuple[int, Future[None]]] = []

    @property
    def waiting(self) -> int:
        """How many still wait."""
        with self._lock:
            self._waiting = [one for one in self._waiting if not one[1].done()]
            return len(self._waiting)

    def reached(self, size: int) -> None:
        """A checkpoint of so many leaves is cosigned, and the cosignature is kept."""
        with self._lock:
            self._size = max(self._size, size)
            done = [future for wanted, future in self._waiting if wanted <= self._size]
            self._waiting = [one for one in self._waiting if one[0] > self._size and not one[1].done()]
        for future in done:
            if future.set_running_or_notify_cancel():  # who waited may have gone meanwhile
                future.set_result(None)

    def promise(self, size: int) -> Future[None]:
        """Done once so many leaves are under a cosigned checkpoint. Cancel it when nobody waits any more."""
        future: Future[None] = Future()
        with self._lock:
            there = self._size >= size
            if not there:
                self._waiting.append((size, future))
        if there:
            future.set_result(None)
        else:
            self._ask()
        return future

    def wait(self, size: int) -> None:
        """Wait for it in this thread, or note that it is owed. Raises `Unwitnessed` when it takes too long."""
        owed = _OWED.get()
        if owed is not None:
            owed.size = max(owed.size, size)
            return
        future = self.promise(size)
        try:
            future.result(self.seconds)
        except TimeoutError:
            future.cancel()
            raise too_late() from None


def must_be_cosigned(workspace: Workspace, needed: bool) -> None:
    """If needed, wait until the log as it is now is under a cosigned checkpoint. Raises `Unwitnessed`."""
    if not needed:
        return
    if workspace.awaited is None:
        raise no_witness()
    with workspace.log.published() as log:
        size = log.head.size
    workspace.awaited.wait(size)


def no_witness() -> Unwitnessed:
    """Nobody is asked here."""
    return Unwitnessed(
        "this block's answers wait for a witness of the log, and no witness is asked here",
        hint="use a server that has witnesses in its settings (--url), or have the owner lower audit_level",
        code="no_witness",
    )


def too_late() -> Unwitnessed:
    """No witness has cosigned in time. The event is in the log all the same."""
    return Unwitnessed(
        "no witness has cosigned the log in time; what was asked is logged, and the answer is kept back",
        hint="try again; tallystone audit witnesses shows what is wrong with them",
    )
