"""Group commit without a thread of its own: whoever finds nobody writing writes, for all who wait.

A caller puts its ticket into the queue. If nobody leads, it leads: it takes the whole queue (so its own
ticket too) into one transaction. Callers that arrive during the fsync queue up; when the leader is done it
makes the first of them the next leader and wakes its own group. So the next group forms by itself while the
disk works, nobody waits on purpose, a lone caller pays for no thread switch, and there is no thread to stop
or to lose over a fork. How a caller waits is for the place to say that it runs in (`waiting.py`).
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

from tallystone.errors import StoreError
from tallystone.store.protocol import Batch, CommitObserver
from tallystone.waiting import PLACE, Gate

GROUP_LIMIT = 256
"""At most so many batches share a transaction, which bounds how long its first caller waits."""


class Ticket:
    """One caller's batch and, once `settled` is open, what became of it."""

    __slots__ = ("batch", "error", "first", "leads", "settled")

    def __init__(self, batch: Batch, settled: Gate) -> None:
        self.batch = batch
        self.first: int | None = None
        self.error: Exception | None = None
        self.leads = False
        self.settled = settled


class CommitQueue:
    """Groups tickets for `write`, which is called by one thread at a time and settles each ticket of its
    group.
    """

    def __init__(self, write: Callable[[list[Ticket]], None]) -> None:
        self._write = write
        self._state = threading.Condition(threading.Lock())
        self._waiting: deque[Ticket] = deque()
        self._led = False
        self._closed = False
        self.observers: tuple[CommitObserver, ...] = ()

    def __len__(self) -> int:
        """How many batches wait."""
        return len(self._waiting)

    def submit(self, batch: Batch) -> int:
        """Have `batch` written, by this thread or another; return its first log number, or raise what `write`
        set.
        """
        ticket = Ticket(batch, PLACE.get().gate())
        began = time.time_ns() if self.observers else 0
        with self._state:
            if self._closed:
                raise StoreError("the store is closed", code="closed")
            self._waiting.append(ticket)
            ticket.leads = not self._led
            self._led = True
        if not ticket.leads:
            self._wait(ticket)
        if ticket.leads:
            self._lead()
        for observer in self.observers:
            observer.waited(began, time.time_ns())
        if ticket.error is not None:
            try:
                raise ticket.error
            finally:
                ticket.error = None  # it holds this frame, and all below: what was planned, and on what
        if ticket.first is None:  # only if the leader's thread was interrupted
            raise StoreError(
                "the write was interrupted", hint="look whether it took place", code="interrupted"
            )
        return ticket.first

    def join(self, group: list[Ticket]) -> None:
        """Add to the group that is being written whoever has come since. For `write`, as long as it has not settled
        the group that it was given.
        """
        with self._state:
            while self._waiting and len(group) < GROUP_LIMIT:
                group.append(self._waiting.popleft())

    def close(self) -> None:
        """Refuse new batches and wait until those that wait are written."""
        with self._state:
            self._closed = True
            self._state.wait_for(lambda: not self._led)

    def _wait(self, ticket: Ticket) -> None:
        try:
            ticket.settled.wait()
        except BaseException:  # KeyboardInterrupt: leave, but never with the lead in hand
            with self._state:
                if ticket in self._waiting:
                    self._waiting.remove(ticket)
                    if ticket.leads:
                        self._pass_on()
            raise

    def _lead(self) -> None:
        with self._state:
            group = [self._waiting.popleft() for _ in range(min(len(self._waiting), GROUP_LIMIT))]
        began = time.perf_counter()
        try:
            self._write(group)
        finally:
            with self._state:
                self._pass_on()
            for observer in self.observers:
                refused = sum(ticket.first is None for ticket in group)
                observer.wrote(len(group), refused, time.perf_counter() - began)
            for ticket in group:
                if not ticket.leads:
                    ticket.settled.open()

    def _pass_on(self) -> None:
        if self._waiting:
            successor = self._waiting[0]
            successor.leads = True
            successor.settled.open()
        else:
            self._led = False
            self._state.notify_all()
