"""Ridding the file of deleted rows: their pages are overwritten already, what is left of them is in the WAL."""

from __future__ import annotations

import sqlite3
from contextlib import closing

from tallystone.store._failure import translate

WAIT = 2000
"""Milliseconds to wait for readers of older states."""


def empty_wal(connection: sqlite3.Connection) -> bool:
    """Write the WAL back, empty it and close the connection; False if somebody still reads an older state."""
    with closing(connection):
        try:
            connection.execute(f"PRAGMA busy_timeout = {WAIT}")
            busy = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        except sqlite3.Error as error:
            raise translate(error) from error
    return not busy
