"""The numbered migrations, and the check that a file's schema is what they make.

Migrations are applied in order, each in the transaction that records its number. Whether a file is ours is
told by its `schema_version` table; one that knows a higher number than we do was written by a newer version,
and is left alone.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Mapping
from functools import cache
from importlib.resources import files

from tallystone.errors import StoreError

NODES_SINCE = 4
"""The migration that made `log_node`, whose rows only a sequencer can compute."""

UNFINISHED = 0x7FFF_FFFF
"""In `schema_version` of a copy that was not finished, beside the numbers of its migrations (ADR 0035): no version of
ours opens it, for it is newer than all."""

Steps = Mapping[int, Callable[[sqlite3.Connection], None]]
"""What else a migration of this number does to a file that held something before, in the same transaction."""

_FILE_NAME = re.compile(r"(\d{4})_\w+\.sql")


@cache
def migrations() -> dict[int, tuple[str, ...]]:
    """The statements of each migration, by number from 1."""
    found: dict[int, tuple[str, ...]] = {}
    for entry in (files("tallystone.store") / "migrations").iterdir():
        if match := _FILE_NAME.fullmatch(entry.name):
            found[int(match[1])] = _split(entry.read_text(encoding="utf-8"))
    return dict(sorted(found.items()))


def newer_format(number: int) -> StoreError:
    """The store is of a later version than this one, whether when it is opened or since."""
    return StoreError(
        f"the store has format {number}, this version knows {max(migrations())}",
        hint="use the newer version of tallystone that wrote it",
        code="newer_format",
    )


def migrate(connection: sqlite3.Connection, *, create: bool, steps: Steps | None = None) -> None:
    """Bring the file to the newest schema. An empty file is accepted only with `create`.

    Raises `StoreError` for a file that is not ours or is newer than we are; it is left as it was.
    """
    if format_of(connection, create=create) == max(migrations()):
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        # Asked again: another process may have migrated the file while we waited for the lock.
        current = format_of(connection, create=create)
        for number, statements in migrations().items():
            if number > current:
                for statement in statements:
                    connection.execute(statement)
                if current and steps is not None and number in steps:
                    steps[number](connection)
                connection.execute("INSERT INTO schema_version (number) VALUES (?)", (number,))
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def check_number(number: int) -> None:
    """Raises `StoreError` unless this version opens, or brings up to date, a store of the format `number`."""
    if number == UNFINISHED:
        raise StoreError(
            "the store is an unfinished copy of another",
            hint="finish it: run the same tallystone copy again",
            code="unfinished_copy",
        )
    if number > max(migrations()):
        raise newer_format(number)


def check_current(number: int) -> None:
    """Raises `StoreError` unless `number` is the newest format: for whoever must not bring it up to date."""
    check_number(number)
    if number < max(migrations()):
        raise StoreError(
            f"the store has format {number}, this version writes {max(migrations())}",
            hint="bring it up to date first: tallystone audit verify --data DIR",
            code="older_format",
        )


def schema_findings(
    connection: sqlite3.Connection, *, deep: bool = True, unfinished: bool = False
) -> list[tuple[str, str]]:
    """Where the schema is not as the migrations make it; and, if `deep`, the structure of the file below it.
    `unfinished`: it should be that of a copy which is not finished."""
    findings: list[tuple[str, str]] = []
    actual, expected = _objects(connection), _expected_objects()
    for name in sorted(actual.keys() | expected.keys()):
        kind, sql = actual.get(name, ("", None))
        if name not in expected:
            findings.append((f"{kind} {name}", "does not belong to the schema"))
        elif name not in actual:
            findings.append((f"{expected[name][0]} {name}", "is missing from the schema"))
        elif (kind, sql) != expected[name]:
            findings.append((f"{kind} {name}", "is not defined as the schema defines it"))
    if "schema_version" in actual:
        numbers = [row[0] for row in connection.execute("SELECT number FROM schema_version ORDER BY number")]
        wanted = [*migrations(), UNFINISHED] if unfinished else list(migrations())
        if numbers != wanted:
            findings.append(("table schema_version", f"says {numbers}, not {wanted}"))
    # A doctored index would hide a row from a look-up and show it to a scan; this compares them.
    for (message,) in connection.execute("PRAGMA integrity_check(20)") if deep else ():
        if message != "ok":
            findings.append(("file", message))
    return findings


def format_of(connection: sqlite3.Connection, *, create: bool = False) -> int:
    """The format of the store, 0 for an empty file with `create`. Raises `StoreError` for what is none of ours, or of
    a format that this version cannot open."""
    names = _objects(connection)
    if not names:
        if create:
            return 0
        raise StoreError("the store is empty", hint="create it first: tallystone init", code="empty")
    if "schema_version" not in names:
        raise StoreError(
            "the file is a database, but not one of ours", hint="check the path", code="not_ours"
        )
    number: int = connection.execute("SELECT coalesce(max(number), 0) FROM schema_version").fetchone()[0]
    check_number(number)
    return number


def _objects(connection: sqlite3.Connection) -> dict[str, tuple[str, str | None]]:
    rows = connection.execute("SELECT name, type, sql FROM sqlite_master")
    return {name: (kind, sql) for name, kind, sql in rows}


@cache
def _expected_objects() -> dict[str, tuple[str, str | None]]:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    try:
        migrate(connection, create=True)
        return _objects(connection)
    finally:
        connection.close()


def _split(script: str) -> tuple[str, ...]:
    """The statements of a script. A statement ends where a line ends it."""
    statements: list[str] = []
    pending = ""
    for line in script.splitlines(keepends=True):
        if not line.lstrip().startswith("--"):
            pending += line
        if pending.strip() and sqlite3.complete_statement(pending):
            statements.append(pending.strip())
            pending = ""
    if pending.strip():
        raise ValueError("a migration ends in the middle of a statement")
    return tuple(statements)
