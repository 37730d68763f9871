"""What most tests start from: a workspace on a real store, its first user, and a second one."""

from __future__ import annotations

import gc
import os
import shutil
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
import stock
from force import RUNNING
from hypothesis import settings
from stores import (
    POSTGRESQL,
    begins,
    check_that_none_was_opened,
    given_back,
    may_hold_tests,
    selection,
    use_postgresql,
    watch_stores,
)
from wire_counts import summarise

from tallystone.vault import Vault, Workspace
from tallystone.vault.types import Credentials

# A slow machine is no failure; each machine keeps the examples that failed on it.
settings.register_profile("tallystone", deadline=None)
settings.load_profile("tallystone")

MEMORY = Path("/dev/shm")
ROOM = 2 * 1024**3
"""Bytes that must be free there. All tests together leave a sixth of it, and what passed is removed at once."""


def pytest_configure(config: pytest.Config) -> None:
    """Temporary directories lie in memory where there is some. What the tests kill and start again is a process, never
    the machine, so that a file there is as durable as on a disk; a commit is fsynced all the same."""
    if os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > ROOM:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))
    # A test that leaves a store open is told nothing of it on SQLite either.
    config.addinivalue_line("markers", "postgresql_only: about PostgreSQL itself; see stores.py")
    config.addinivalue_line("markers", "thinned(every, reason): PostgreSQL runs some tests; see stores.py")
    config.addinivalue_line("markers", "sampled(every, reason): PostgreSQL runs some cases; see stores.py")
    config.addinivalue_line("filterwarnings", "ignore:.*was deleted while still open:ResourceWarning")


if POSTGRESQL:
    use_postgresql()
else:
    watch_stores()


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Do not even import the modules that are for the other store: that takes longer than many of them run."""
    return None if may_hold_tests(collection_path) else True


FIRST = {
    "test_bench",
    "test_concurrency",
    "test_crash",
    "test_failover",
    "test_log_mutations",
    "test_moving",
    "test_patterns",
    "test_policy_histories",
    "test_state_machine",
    "test_state_machine_rights",
}
"""Modules of long tests. Whoever is left with one at the end keeps the other processes waiting."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is for the other store, and begin with what takes longest."""
    items.sort(key=lambda item: item.path.stem not in FIRST)
    chosen = selection(items)
    if len(chosen) < len(items):
        kept = set(chosen)
        config.hook.pytest_deselected(items=[item for item in items if item not in kept])
        items[:] = chosen


def pytest_collection_finish() -> None:
    """What was loaded is never garbage, and of what tests make little refers to itself: the interpreter looks for such
    less often, which saves a fiftieth of all the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, *gc.get_threshold()[1:])


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Before the fixtures, of the module too: what they open is this test's."""
    begins(item)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Of a test that passed, another process prints a dot: its keywords need not go there, which takes a ms."""
    report = yield
    if report.passed:
        report.keywords = {}
    return report


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item) -> None:
    """Who says to open no store opens none."""
    check_that_none_was_opened(item)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """That what was asked for is for SQLite alone is no failure of the second run of `make test`."""
    if POSTGRESQL and exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED:
        session.exitstatus = pytest.ExitCode.OK


@pytest.fixture(autouse=True)
def databases() -> Iterator[None]:
    """On PostgreSQL: what a test takes of the server, it gives back."""
    with given_back():
        yield


@pytest.fixture
def founded(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[tuple[Workspace, tuple[Credentials, ...]]]:
    """A workspace that was just founded, and its users' credentials: the first's, and the second's if it is needed."""
    names = ("alice", "bob") if "bob_credentials" in request.fixturenames else ("alice",)
    workspace, made = stock.founded(tmp_path / "data", *names)
    yield workspace, made
    workspace.close()


@pytest.fixture
def workspace(founded: tuple[Workspace, tuple[Credentials, ...]]) -> Workspace:
    """An open workspace."""
    RUNNING.add(founded[0])
    return founded[0]


@pytest.fixture
def alice_credentials(founded: tuple[Workspace, tuple[Credentials, ...]]) -> Credentials:
    """The first user's token and kit."""
    return founded[1][0]


@pytest.fixture
def alice(workspace: Workspace, alice_credentials: Credentials) -> Vault:
    """The workspace's first user."""
    return workspace.vault(alice_credentials.token)


@pytest.fixture
def bob_credentials(founded: tuple[Workspace, tuple[Credentials, ...]]) -> Credentials:
    """The second user's token and kit."""
    return founded[1][1]


@pytest.fixture
def bob(workspace: Workspace, bob_credentials: Credentials) -> Vault:
    """The second user, who shares nothing with the first."""
    return workspace.vault(bob_credentials.token)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print how the recorded calls of the client fared."""
    summarise(terminalreporter)
