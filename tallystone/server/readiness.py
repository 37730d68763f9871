"""Whether this process can serve: the store answers, its schema is the one we know, and the log's check found nothing.

`GET /v1/health/` says that the process runs; `GET /v1/ready/` says that requests may be sent to it.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from tallystone.errors import TallystoneError
from tallystone.server import errors
from tallystone.server.errors import Refusal
from tallystone.server.status import Status
from tallystone.vault import Workspace

FRESH_SECONDS = 1.0
"""Seconds that an answer holds: anybody may ask, and asking reads the store."""


class Readiness:
    """For one process."""

    def __init__(
        self,
        workspace: Workspace,
        status: Status | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._workspace, self._status, self._clock = workspace, status, clock
        self._asked = float("-inf")
        self._found: tuple[str, str, str] | None = None

    @property
    def is_fresh(self) -> bool:
        """Whether `check` would only say what it found before."""
        return self._clock() - self._asked < FRESH_SECONDS

    def look(self) -> None:
        """Find out. In a thread: it reads the store."""
        self._found = self._look()
        self._asked = self._clock()

    def check(self) -> None:
        """Raises `Refusal` (503) with the code of what was wrong at the last look."""
        if self._found is not None:
            code, message, hint = self._found
            raise Refusal(503, code, message, hint=hint, headers={"retry-after": "5"})

    def _look(self) -> tuple[str, str, str] | None:
        """What is wrong: code, message, hint."""
        try:
            self._workspace.log.probe()
        except TallystoneError as error:
            return error.code, error.message, error.hint
        check = self._status.check if self._status is not None else None
        if check is not None and check.failed:
            refused = errors.log_check_failed(check.findings)
            return refused.code, refused.message, refused.hint
        return None
