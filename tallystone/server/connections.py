"""Bounds on connections: how many there are, how long a request's head takes, and who does not read what it asked for.

uvicorn bounds none of these three. Nothing here costs a request anything: a look at all connections once a second finds
those that have gone on for too long.
"""

from __future__ import annotations

import asyncio
import resource
import socket
import struct
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, Protocol

from starlette.types import Receive, Scope, Send

from tallystone.server import errors
from tallystone.server.answering import plain
from tallystone.server.http1 import Http1

QUEUE = 2048
"""Connections that wait to be accepted."""
HEAD_SECONDS = 20.0
"""Seconds that the first byte of a new connection, or the rest of a request's head, may take to arrive."""
STUCK_SECONDS = 30.0
"""Seconds that a client may leave all unread that is ready for it."""
UNREAD = 256 * 1024 * 1024
"""Bytes of answers that clients have not read yet, of all connections together. Beyond, those who wait longest go."""
SPARE = 256
"""Connections beyond the bound that are told why they are not served. Those beyond are cut off."""


def event_loop() -> str:
    """What runs the server, as uvicorn calls it: uvloop where it is installed, else Python's own."""
    try:
        import uvloop  # noqa: F401  # whether it is there is all that is asked
    except ImportError:
        return "asyncio"
    return "uvloop"


def backlog(loop: str, *, shared: bool) -> int:
    """What to give uvicorn for a listening socket, which several processes may share.

    asyncio also takes it for how many connections are accepted at a time: one process that takes all that wait leaves
    the others idle. uvloop accepts them one by one, and would make the queue that all share as short as is said here.
    """
    return 1 if shared and loop == "asyncio" else QUEUE


class Connection(Protocol):
    """What is looked at of uvicorn's connections."""

    transport: asyncio.Transport
    cycle: Any
    timeout_keep_alive_task: asyncio.TimerHandle | None


def bounded(most: int) -> type[Http1]:
    """Connections of which at most so many are served at once."""

    class Bounded(Http1):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # narrower, as uvicorn's own
            super().connection_made(transport)
            if len(self.connections) > most:
                self.app = _refuse
                if len(self.connections) > most + SPARE:
                    transport.abort()

    return Bounded


async def _refuse(scope: Scope, receive: Receive, send: Send) -> None:
    refused = errors.answer(errors.too_many_connections())
    headers = {**refused.headers, "connection": "close", "cache-control": "no-store"}
    await plain(refused, headers, send)


class Sweep:
    """Looks at a server's connections, and ends those that hold what others could use. Used on the event loop."""

    def __init__(self, connections: Callable[[], Iterable[Any]], clock: Callable[[], float]) -> None:
        self._connections, self._clock = connections, clock
        self._late: dict[Connection, tuple[Any, float]] = {}
        self._stuck: dict[Connection, tuple[int, float]] = {}

    def look(self) -> None:
        """End what has gone on for too long. To be called about once a second."""
        now = self._clock()
        late: dict[Connection, tuple[Any, float]] = {}
        stuck: dict[Connection, tuple[int, float]] = {}
        for connection in list(self._connections()):
            unread = connection.transport.get_write_buffer_size()
            if unread:
                before, since = self._stuck.get(connection, (unread + 1, now))
                if unread < before:
                    since = now  # it reads
                if now - since > STUCK_SECONDS:
                    _cut_off(connection)
                else:
                    stuck[connection] = (unread, since)
            elif _waits_for_head(connection):
                request, since = self._late.get(connection, (connection.cycle, now))
                if request is not connection.cycle:
                    since = now  # of a later request
                if now - since > HEAD_SECONDS:
                    connection.transport.close()
                else:
                    late[connection] = (connection.cycle, since)
        self._late, self._stuck = late, stuck
        self._bound_unread()

    def _bound_unread(self) -> None:
        total = sum(unread for unread, _ in self._stuck.values())
        for connection, (unread, _) in sorted(self._stuck.items(), key=lambda item: item[1][1]):
            if total <= UNREAD:
                return
            _cut_off(connection)
            total -= unread


def _cut_off(connection: Connection) -> None:
    """End a connection at once. Otherwise the system would keep what it was given to send, and go on trying."""
    opened = connection.transport.get_extra_info("socket")
    if opened is not None:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.transport.abort()


def _waits_for_head(connection: Connection) -> bool:
    """Whether nothing is under way and uvicorn's clock for idle connections does not run: it stops at the first byte of
    a head, and does not run on new connections."""
    over = connection.cycle is None or connection.cycle.response_complete
    return over and connection.timeout_keep_alive_task is None


def allow_files(wanted: int) -> None:
    """Let this process open so many files and sockets, or as many as the system lets it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        with suppress(OSError, ValueError):  # a container may forbid it
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
