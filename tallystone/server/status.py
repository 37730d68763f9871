"""What the processes of a server tell each other: how the last check of the log went, and what is wrong with witnesses.

    DIR/server-status.json    written by the process that does the periodic jobs, read by all; losing it loses nothing

Counts, times, codes and the names of witnesses: no content, no key, no principal.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from threading import Lock

import msgspec
import structlog

NAME = "server-status.json"
"""The file, in the data directory."""

_log = structlog.get_logger("tallystone.server")


class Check(msgspec.Struct, frozen=True):
    """The last check of the log. `at` is when it ended, in Unix seconds; `problem` the code of why it could not be
    made, or empty."""

    at: int
    leaves: int = 0
    rows: int = 0
    findings: int = 0
    problem: str = ""

    @property
    def failed(self) -> bool:
        """Whether it found something. One that could not be made has not: whether the store answers is asked apart."""
        return self.findings > 0


class _Board(msgspec.Struct):
    check: Check | None = None
    witnesses: dict[str, str] = {}


class Status:
    """The file of one data directory. Safe to use from several threads; one process writes, the others read."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / NAME
        self._lock = Lock()
        self._seen: tuple[int, int] | None = None
        self._board = _Board()
        self.witnesses: MutableMapping[str, str] = _Problems(self)
        """By witness that is asked: what was wrong with its last answer, empty if nothing was."""

    @property
    def check(self) -> Check | None:
        """The last check, or None before the first has ended."""
        return self._read().check

    def checked(self, check: Check) -> None:
        """Let all know how a check went."""
        self._change(check=check)

    def begin(self) -> None:
        """Forget the witnesses of those who did the jobs before: this process says which are asked."""
        self._change(witnesses={})

    def shown(self, witness: str, problem: str | None) -> None:
        """Let all know what is wrong with a witness; None if it is asked no more."""
        known = self._read().witnesses
        rest = {name: text for name, text in known.items() if name != witness}
        after = rest if problem is None else {**rest, witness: problem}
        if after != known:
            self._change(witnesses=after)

    def problems(self) -> dict[str, str]:
        """See `witnesses`."""
        return dict(self._read().witnesses)

    def _read(self) -> _Board:
        try:
            now = os.stat(self._path)
            seen = (now.st_mtime_ns, now.st_ino)
            if seen != self._seen:
                self._board = msgspec.json.decode(self._path.read_bytes(), type=_Board)
                self._seen = seen
        except (OSError, msgspec.MsgspecError):
            pass  # what was last known holds: nothing is lost by it
        return self._board

    def _change(self, *, check: Check | None = None, witnesses: dict[str, str] | None = None) -> None:
        with self._lock:
            board = self._read()
            self._board = _Board(check or board.check, board.witnesses if witnesses is None else witnesses)
            half = self._path.with_suffix(".new")
            try:
                handle = os.open(half, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
                with os.fdopen(handle, "wb") as file:
                    file.write(msgspec.json.encode(self._board))
                half.replace(self._path)
            except OSError as error:
                _log.warning("status", problem=error.strerror)


class _Problems(MutableMapping[str, str]):
    """`Status.witnesses`."""

    def __init__(self, status: Status) -> None:
        self._status = status

    def __getitem__(self, name: str) -> str:
        return self._status.problems()[name]

    def __setitem__(self, name: str, problem: str) -> None:
        self._status.shown(name, problem)

    def __delitem__(self, name: str) -> None:
        self._status.shown(name, None)

    def __iter__(self) -> Iterator[str]:
        return iter(self._status.problems())

    def __len__(self) -> int:
        return len(self._status.problems())
