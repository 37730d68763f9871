"""Clearing deleted rows away. What a PostgreSQL server keeps of them beyond our reach stands in docs/postgresql.md."""

from __future__ import annotations

import time

import psycopg

from tallystone.store.postgresql_failure import LOST, PgError
from tallystone.store.postgresql_session import Session
from tallystone.store.tables import TABLES

WAIT = 2.0
"""Seconds to wait for readers of older states."""
_PAUSE = 0.02

_VACUUM = "VACUUM (INDEX_CLEANUP ON) " + ", ".join(f'"{table.name}"' for table in TABLES)
_NOW = b"SELECT pg_snapshot_xmax(pg_current_snapshot())::xid"
_OLDER = (
    "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    " AND age(backend_xmin) > age('{}'::xid) LIMIT 1"
)


def vacuum(session: Session) -> bool:
    """Make the rows that were deleted by now unreadable for every query; False, without waiting longer than `WAIT`, if
    somebody still reads an older state. Raises `PgError`."""
    now = (session.command(_NOW).get_value(0, 0) or b"").decode()
    until = time.monotonic() + WAIT
    while session.command(_OLDER.format(now).encode()).ntuples:
        if time.monotonic() >= until:
            return False
        time.sleep(_PAUSE)  # of a command or the purge: nothing tells when older views have ended
    try:
        session.connection.execute(_VACUUM)  # for as long as it takes
    except psycopg.Error as error:
        raise PgError(error.sqlstate or LOST) from None
    return True
