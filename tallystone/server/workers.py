"""Several processes that serve one address: one that watches over them, and restarts what dies (ADR 0033).

All accept from one listening socket, which the first process opened: what waits in its queue survives the death of any
of them. Nothing else is shared but the store and the data directory, so any process answers any request. A process
that is stopped alone (SIGTERM) finishes its requests and is replaced, so they can be renewed one by one.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import structlog

from tallystone.errors import TallystoneError

SHORT_LIFE = 10.0
"""Seconds below which a process that ended is taken for one that could not start; after the second its place waits."""
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds that it waits: the first time, doubled each time, and at most."""
OVERTIME = 15.0
"""Seconds beyond the grace of its requests that a process gets to end in, before it is killed."""

_HEARD = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)
_log = structlog.get_logger("tallystone.server")


class Inherited(socket.socket):
    """A listening socket that several processes accept from. Its queue is as long as the first process made it."""

    def listen(self, backlog: int = 0, /) -> None:
        """Nothing: it listens already."""


@dataclass
class _Place:
    """One of the processes that there should be: who fills it, and when the next may."""

    number: int
    pid: int = 0
    since: float = 0.0
    failures: int = 0
    due: float = 0.0
    starts: int = 0


class Workers:
    """Keeps `count` processes at work until SIGTERM or SIGINT.

    `work(number, starts, lifeline)` is what each does, in a process of its own: it returns when it was told to stop by
    SIGTERM, SIGINT, or because the file descriptor `lifeline` can be read, which means that the watching process is
    gone. `starts` counts those that had this number before it.
    """

    def __init__(
        self,
        count: int,
        work: Callable[[int, int, int], None],
        *,
        grace: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._work, self._grace, self._clock = work, grace, clock
        self._places = [_Place(number) for number in range(count)]
        self._lifeline, self._held = os.pipe()
        self._until: float | None = None

    def run(self) -> None:
        """Start them, and return when all have ended."""
        with _signals() as heard:
            gc.collect()
            gc.freeze()  # what is here now is never looked at again, so that the processes go on sharing its memory
            while True:
                self._reap()
                if self._until is None:
                    self._fill(heard)
                elif not any(place.pid for place in self._places):
                    return
                elif self._clock() >= self._until:
                    self._tell(signal.SIGKILL)
                ready, _, _ = select.select([heard], [], [], self._wait())
                numbers = os.read(heard, 1024) if ready else b""
                if signal.SIGTERM in numbers or signal.SIGINT in numbers:
                    self._stop()

    def _stop(self) -> None:
        if self._until is None:
            self._until = self._clock() + self._grace + OVERTIME
            self._tell(signal.SIGTERM)
        else:  # asked twice: they were told once, and are now told not to wait for their requests
            self._tell(signal.SIGINT)

    def _tell(self, number: signal.Signals) -> None:
        for place in self._places:
            if place.pid:
                os.kill(place.pid, number)

    def _wait(self) -> float | None:
        """Seconds until something is due without a signal; None for never."""
        if self._until is not None:
            return max(0.05, self._until - self._clock())
        due = [place.due for place in self._places if not place.pid]
        return max(0.0, min(due) - self._clock()) if due else None

    def _reap(self) -> None:
        for place in self._places:
            if not place.pid:
                continue
            pid, status = os.waitpid(place.pid, os.WNOHANG)
            if pid:
                self._ended(place, os.waitstatus_to_exitcode(status))

    def _ended(self, place: _Place, code: int) -> None:
        now = self._clock()
        if now - place.since >= SHORT_LIFE:
            place.failures, place.due = 0, now
        else:
            pause = FIRST_PAUSE * 2 ** (place.failures - 1) if place.failures else 0.0
            place.due = now + min(pause, LONGEST_PAUSE)
            place.failures = min(place.failures + 1, 20)
        if self._until is None:
            _log.warning("worker ended", worker=place.number, pid=place.pid, code=code)
        place.pid = 0

    def _fill(self, heard: int) -> None:
        for place in self._places:
            if not place.pid and self._clock() >= place.due:
                place.since = self._clock()
                place.pid = self._fork(place, heard)
                place.starts += 1
                if place.starts > 1:
                    _log.warning("worker started", worker=place.number, pid=place.pid)

    def _fork(self, place: _Place, heard: int) -> int:
        sys.stdout.flush()
        sys.stderr.flush()
        # A signal between the fork and the new process's own handlers waits, instead of being taken for the parent's.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _HEARD)
        pid = os.fork()
        if pid:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            return pid
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            for number in _HEARD:
                signal.signal(number, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            os.close(heard)
            os.close(self._held)  # else its own copy would keep the lifeline from ending
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            self._work(place.number, place.starts, self._lifeline)
            code = 0
        except TallystoneError as error:
            _log.error("worker", worker=place.number, code=error.code, error=error.message)
        except KeyboardInterrupt:
            pass
        except BaseException as error:
            _log.error("worker crashed", worker=place.number, error=type(error).__name__)
        finally:
            sys.stderr.flush()
            # Not the interpreter's own end: the frames below are the parent's, and so is what they would close.
            os._exit(code)


@contextmanager
def _signals() -> Iterator[int]:
    """A file descriptor from which the numbers of the signals that came can be read."""
    heard, told = os.pipe()
    os.set_blocking(told, False)
    earlier = signal.set_wakeup_fd(told, warn_on_full_buffer=False)
    before = {number: signal.signal(number, lambda *_: None) for number in _HEARD}
    try:
        yield heard
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(earlier)
        os.close(heard)
        os.close(told)
