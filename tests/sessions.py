"""Sessions with PostgreSQL that a process of the test run uses again.

To start a session costs the server 5 ms of processor time, and to look into its catalogue for the first statements of
one twice that; opening a workspace takes three. So what a test closes is emptied by the server itself (`DISCARD
ALL`: settings, prepared statements, locks, what it listens to), as a pooler empties it between its clients, and the
next one to open the same URL has it. Child processes connect for themselves, and so does each test that is marked
`postgresql_only`: those are about sessions.
"""

from __future__ import annotations

import os
from collections import defaultdict
from typing import Any

import psycopg
from psycopg import pq

from tallystone.store import postgresql, postgresql_moving, postgresql_session

NAME = "between tests"
"""What a session that nobody has is called, so that it is told from those that somebody has."""
_MOST = 6
_CLEAR = b"DISCARD ALL", f"SET application_name = '{NAME}'".encode()
_connect = postgresql_session.connect
_idle: defaultdict[str, list[Any]] = defaultdict(list)
_shared: set[str] = set()
_state = {"process": os.getpid(), "sharing": False}


def share(on: bool) -> None:
    """Whether sessions that are opened from here on are used again."""
    _state["sharing"] = on


def keep(database: str) -> None:
    """Sessions with this database are used again."""
    _shared.add(database)


def end(database: str) -> None:
    """End those that nobody has."""
    _shared.discard(database)
    for url in [url for url in _idle if _name(url) == database]:
        for session in _idle.pop(url):
            session.finish()


def _name(url: str) -> str:
    return url.partition("?")[0].rpartition("/")[2]


class _Session(psycopg.Connection[Any]):
    """A session that is kept when it is closed in order."""

    url: str

    def close(self) -> None:
        session = self.pgconn
        if self.closed or _state["process"] != os.getpid() or not _emptied(session):
            super().close()
            return
        self.pgconn, self._closed = _ENDED, True
        if len(_idle[self.url]) < _MOST:
            _idle[self.url].append(session)
        else:
            session.finish()


_ENDED = pq.PGconn.connect_start(b"host=/nowhere")
_ENDED.finish()


def _done(session: Any, command: bytes) -> bool:
    return bool(session.exec_(command).status == pq.ExecStatus.COMMAND_OK)


def _emptied(session: Any) -> bool:
    """Whether a session is as good as new."""
    while session.status == pq.ConnStatus.OK and session.get_result() is not None:
        pass  # the answer to a rollback that nobody has waited for
    if session.transaction_status != pq.TransactionStatus.IDLE or session.pipeline_status:
        return False
    return all(_done(session, command) for command in _CLEAR)


def _connected(url: str) -> psycopg.Connection[Any]:
    if not _state["sharing"] or _name(url) not in _shared:
        return _connect(url)
    if _state["process"] != os.getpid():  # a fork: what the parent has stays the parent's
        _state["process"] = os.getpid()
        _idle.clear()
    while _idle[url]:
        session = _idle[url].pop()
        if _done(session, b"RESET application_name"):
            made = _Session(session)
            made.autocommit, made.prepare_threshold = True, None
            made.url = url
            return made
        session.finish()
    made = _connect(url)
    made.__class__ = _Session
    made.url = url
    return made


def use_sessions_again() -> None:
    """Let the store open its sessions here."""
    for module in (postgresql_session, postgresql, postgresql_moving):
        module.connect = _connected
