"""Past the store: a plain connection to its rows, as an operator or a thief has it, on SQLite and on PostgreSQL.

Tests write their statements as SQLite takes them; for PostgreSQL the few words that differ are put into its own.
"""

from __future__ import annotations

import re
import shutil
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

from stores import POSTGRESQL, location, ready_database

from tallystone.store.opening import URL_FILE
from tallystone.store.tables import TABLES

DATABASE = "tallystone.db"
_TABLES = {table.name: table for table in TABLES}


def refused() -> tuple[type[Exception], ...]:
    """What a connection raises for a row that the schema does not take."""
    if not POSTGRESQL:
        return sqlite3.IntegrityError, OverflowError
    import psycopg

    return psycopg.IntegrityError, psycopg.DataError


def connect(path: Path) -> Any:
    """A connection to the store that a test calls `path`: its file, or the one of a data directory. Each statement
    counts at once."""
    if not POSTGRESQL:
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute("PRAGMA synchronous = OFF")
        return connection
    noted = path.with_name(URL_FILE)
    return _Rows(noted.read_text().strip() if noted.exists() else str(location(path)))


def copy(folder: Path, target: Path) -> None:
    """What a backup, or a thief, takes of a data directory, open or not: its files, and on PostgreSQL a database of the
    same rows, in which a workspace opened there lies."""
    shutil.copytree(folder, target)
    if POSTGRESQL:
        copy_rows(folder, target)


def copy_rows(folder: Path, target: Path) -> None:
    """Put the rows of one data directory, as they are now, in the place of another's."""
    if not POSTGRESQL:
        with closing(connect(folder / DATABASE)) as source, closing(connect(target / DATABASE)) as copied:
            source.backup(copied)
        return
    import psycopg

    url = ready_database()
    (target / URL_FILE).write_text(url)
    with psycopg.connect((folder / URL_FILE).read_text().strip()) as source, psycopg.connect(url) as copied:
        source.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        for table in TABLES:
            out = source.cursor().copy(f'COPY "{table.name}" TO STDOUT')
            into = copied.cursor().copy(f'COPY "{table.name}" FROM STDIN')
            with out as read, into as write:
                for piece in read:
                    write.write(piece)


class _Rows:
    def __init__(self, url: str) -> None:
        import psycopg

        self._connection = psycopg.connect(url, autocommit=True)

    def execute(self, sql: str, bound: Iterable[Any] = ()) -> Any:
        """A cursor, as sqlite3 gives one."""
        return self._connection.execute(translated(sql), tuple(bound))

    def executemany(self, sql: str, many: Iterable[Iterable[Any]]) -> None:
        """The same for each of several rows."""
        for bound in many:
            self.execute(sql, bound)

    def commit(self) -> None:
        """Nothing: each statement counted at once."""

    def close(self) -> None:
        """Let go of it."""
        self._connection.close()


def translated(sql: str) -> str:
    """A statement of SQLite's in PostgreSQL's words."""
    sql = re.sub(r"\bx'([0-9a-fA-F]*)'", r"'\\x\1'::bytea", sql.replace("%", "%%").replace("?", "%s"))
    if found := re.match(r"(?:INSERT OR )?REPLACE INTO (\w+)", sql):
        table = _TABLES[found[1]]
        sets = ", ".join(f'"{column}" = excluded."{column}"' for column in table.columns)
        rest = sql[len(found[0]) - len(found[1]) :]
        sql = f"INSERT INTO {rest} ON CONFLICT ({', '.join(table.key)}) DO UPDATE SET {sets}"
    elif sql.startswith("INSERT OR IGNORE"):
        sql = f"INSERT{sql[len('INSERT OR IGNORE') :]} ON CONFLICT DO NOTHING"
    return sql
