"""Where a server's processor time goes, by room of the code, while it serves.

The thread of the event loop is looked at every millisecond of processor time, by a signal: a profiler that follows
calls would lose its way among fibers, which leave calls in the middle. Every other thread runs under a `cProfile` of
its own whose clock is that thread's processor time, so waiting counts for nothing. What a function of a library takes
counts for the room that called it, except HTTP's own libraries. The shares are good to some percents.
"""

from __future__ import annotations

import cProfile
import signal
import sys
import threading
import time
from collections import defaultdict
from multiprocessing.connection import Connection
from types import CodeType, FrameType
from typing import Any

from tallystone.server.run import serve
from tallystone.server.settings import Settings
from tallystone.vault import Workspace

ROOMS = {
    "HTTP": ("/tallystone/server/", "/starlette/", "/uvicorn/", "/h11/", "/anyio/", "/asyncio/", "/selectors.py",
             "/structlog/", "/concurrent/", "/tallystone/waiting.py"),
    "routes and JSON": ("/tallystone/letta/",),
    "vault": ("/tallystone/vault/", "/tallystone/errors.py"),
    "statements and rules": ("/tallystone/statements.py", "/tallystone/policy/", "/tallystone/grant_tree.py",
                             "/tallystone/_cbor.py", "/tallystone/keystore/", "/cbor2/"),
    "cryptography": ("/tallystone/crypto.py", "/cryptography/"),
    "log": ("/tallystone/audit/", "/tallystone/vault/events.py", "/tallystone/vault/journal.py"),
    "store": ("/tallystone/store/",),
}  # fmt: skip
"""Rooms, and what their files' paths contain. Sealing an event counts as cryptography, composing it as log."""
POSSIBLE = sys.version_info < (3, 12)
"""From Python 3.12 on, one profiler serves the whole process and takes all threads for one: it says nothing then."""
_ROUNDS = 12
_EVERY = 0.001
"""Seconds of processor time between two looks at the loop's thread."""
_Key = CodeType | str


def room_of(key: _Key) -> str | None:
    """The room of a function; None for what counts for its callers."""
    if isinstance(key, str):
        return None
    # `events.py` of the vault is the log's: rooms with longer paths first
    found = [(len(part), room) for room, parts in ROOMS.items() for part in parts if part in key.co_filename]
    return max(found)[1] if found else None


class Looks:
    """What the thread that begins them was at, each time it was looked at. For the main thread: it has the signals."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._before = time.thread_time()
        signal.signal(signal.SIGPROF, self._look)
        signal.setitimer(signal.ITIMER_PROF, _EVERY, _EVERY)

    def _look(self, number: int, frame: FrameType | None) -> None:
        now = time.thread_time()
        took, self._before = now - self._before, now
        while frame is not None:
            room = room_of(frame.f_code)
            if room is not None:
                break
            frame = frame.f_back
        self.seconds["HTTP" if frame is None else room or "other"] += (
            took  # without a frame of ours: the loop
        )


class Profiler:
    """Looks at the main thread, and profiles of all threads that begin after `watch`."""

    def __init__(self) -> None:
        self._profiles: list[cProfile.Profile] = []
        self._looks: Looks | None = None

    def watch(self) -> None:
        """Begin, in the main thread and in each that starts from now on."""
        threading.setprofile(self._begin)
        self._looks = Looks()

    def _begin(self, frame: FrameType | None = None, event: str = "", argument: Any = None) -> None:
        profile = cProfile.Profile(time.thread_time)
        self._profiles.append(profile)
        profile.enable()  # takes the place of this function in its thread

    def seconds(self) -> dict[str, float]:
        """Seconds of processor time so far, by room; `other` is what no room has called."""
        own: dict[_Key, float] = defaultdict(float)
        callers: dict[_Key, dict[_Key, float]] = defaultdict(lambda: defaultdict(float))
        for profile in list(self._profiles):
            for entry in profile.getstats():
                own[entry.code] += entry.inlinetime
                for called in entry.calls or ():
                    callers[called.code][entry.code] += called.inlinetime
        found = _by_room(own, callers)
        for room, seconds in dict(self._looks.seconds if self._looks is not None else {}).items():
            found[room] = found.get(room, 0.0) + seconds
        return found


def _by_room(own: dict[_Key, float], callers: dict[_Key, dict[_Key, float]]) -> dict[str, float]:
    rooms = {key: room_of(key) for key in own}
    # Of a function without a room: which part of it each room has called, through others without one too.
    parts: dict[_Key, dict[str, float]] = {}
    for _ in range(_ROUNDS):
        parts = {
            key: _shares(callers.get(key, {}), rooms, parts) for key, room in rooms.items() if room is None
        }
    found: dict[str, float] = defaultdict(float)
    for key, seconds in own.items():
        room = rooms[key]
        for name, part in ({room: 1.0} if room is not None else parts[key] or {"other": 1.0}).items():
            found[name] += seconds * part
    return dict(found)


def _shares(
    by: dict[_Key, float], rooms: dict[_Key, str | None], parts: dict[_Key, dict[str, float]]
) -> dict[str, float]:
    total = sum(by.values())
    found: dict[str, float] = defaultdict(float)
    for caller, seconds in by.items():
        room = rooms.get(caller)
        for name, part in ({room: 1.0} if room is not None else parts.get(caller) or {"other": 1.0}).items():
            found[name] += part * (seconds / total if total else 0.0)
    return dict(found)


def main(folder: str, pipe: Connection) -> None:
    """Serve under profilers until SIGTERM; `pipe` is told the URL, and for each message sent to it the seconds by room
    so far. For a process of its own."""
    profiler = Profiler()

    def tell() -> None:
        while True:
            try:
                pipe.recv()
            except EOFError:
                return
            pipe.send(profiler.seconds())

    def announce(url: str) -> None:
        pipe.send(url)
        threading.Thread(target=tell, daemon=True).start()
        profiler.watch()  # from here on, so that starting does not count

    with Workspace.open(folder) as workspace:
        serve(workspace, Settings(port=0, log_level="error", check_every=0), announce)
