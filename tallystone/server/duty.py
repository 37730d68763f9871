"""The periodic jobs, and which of several processes does them: checking the log, purging, asking the witnesses.

Whoever holds the lock on `DIR/server.lock` does them. The system gives the lock back when its holder ends, in whatever
way, so that another process takes over within seconds. Nothing depends on there being only one: each job may run twice
at once, and would only be done twice.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import structlog

from tallystone.errors import TallystoneError
from tallystone.server.status import Check, Status
from tallystone.vault import Workspace

LOCK = "server.lock"
"""The file whose lock says who does the jobs, in the data directory. It is empty."""
RETRY_SECONDS = 2.0
"""Seconds between two looks at whether the jobs are free."""
PURGE_SECONDS = 60
"""Seconds between removals of what has expired."""

_log = structlog.get_logger("tallystone.server")


@contextmanager
def on_duty(folder: Path, jobs: Callable[[], AbstractContextManager[None]]) -> Iterator[None]:
    """Do the jobs as soon as no other process does, for as long as the body runs."""
    stop = threading.Event()

    def stand_by() -> None:
        while not stop.is_set():
            with _held(folder) as mine:
                if mine:
                    with jobs():
                        stop.wait()
            stop.wait(RETRY_SECONDS)

    thread = threading.Thread(target=stand_by, name="tallystone-duty", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(timeout=3)


@contextmanager
def _held(folder: Path) -> Iterator[bool]:
    """Whether this process does the jobs while the body runs. Where nothing can be locked each process does them."""
    try:
        handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        yield True
        return
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            mine = True
        except BlockingIOError:
            mine = False
        except OSError:  # a file system without locks
            mine = True
        yield mine
    finally:
        os.close(handle)


@contextmanager
def housekeeping(
    workspace: Workspace, status: Status, check_every: int, since: float | None = None
) -> Iterator[None]:
    """Check the log at the start and every now and then, and purge what has expired, in a thread beside the server.

    `since`: when the first of the server's processes began. Whoever takes over from another checks nothing that was
    checked after that, or each death would cost a look at every row.
    """
    stop = threading.Event()
    _log.info("periodic jobs")

    def work() -> None:
        last, waited = status.check, 0
        if since is not None and last is not None and last.at >= int(since) and not last.problem:
            waited = max(0, workspace.now() - last.at)
        else:
            check(workspace, status)  # first: what a purge removes, no later check can look at
        purge(workspace)
        while not stop.wait(PURGE_SECONDS):
            waited += PURGE_SECONDS
            purge(workspace)
            if check_every and waited >= check_every:
                waited = 0
                check(workspace, status)

    thread = threading.Thread(target=work, name="tallystone-check", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        # a check of a large log may take long; it reads only, so the process may end while it runs
        thread.join(timeout=1)


def purge(workspace: Workspace) -> None:
    """Remove what has ended. A failure is logged, and made up for by the next purge."""
    try:
        workspace.purge()
    except TallystoneError as error:
        _log.error("purge failed", code=error.code, error=error.message)


def check(workspace: Workspace, status: Status | None = None) -> bool:
    """Verify the log against the rows, log the outcome, and let the other processes know. Names tables and places,
    never contents."""
    told = status.checked if status is not None else lambda _: None
    try:
        report = workspace.verify()
    except TallystoneError as error:
        _log.error("log check failed", code=error.code, error=error.message)
        told(Check(workspace.now(), problem=error.code))
        return False
    for finding in report.findings[:20]:
        _log.error("log check", where=finding.where, what=finding.what)
    _log.info("log check done", leaves=report.leaves, rows=report.rows, findings=len(report.findings))
    told(Check(workspace.now(), report.leaves, report.rows, len(report.findings)))
    return not report.findings
