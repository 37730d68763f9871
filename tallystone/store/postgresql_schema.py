"""The numbered migrations on PostgreSQL, and the check that a schema is what they make.

The migrations are those of SQLite, in its words for types: a translation of three words and a clause makes them
PostgreSQL's. So there is one list of tables, and a new migration is written once, in words that both take.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import psycopg

from tallystone.errors import StoreError
from tallystone.store._columns import BLOB, INTEGER, TEXT, columns
from tallystone.store._schema import UNFINISHED, check_number, migrations
from tallystone.store.postgresql_failure import LOST, PgError
from tallystone.store.tables import INDEXES, TABLES

Connection = psycopg.Connection[Any]
Steps = Mapping[int, Callable[[Connection], None]]
"""What else a migration of this number does to a store that held something before, in the same transaction."""

LOCK = 0x7461_6C6C_7973  # "tallys"
"""The key of the advisory lock under which the schema changes."""

_TYPES = {INTEGER: "bigint", BLOB: "bytea", TEXT: 'text COLLATE "C"'}
"""`C` orders texts by their bytes, as SQLite does."""
_CATALOG = {INTEGER: ("bigint", None), BLOB: ("bytea", None), TEXT: ("text", "C")}


def translated(statement: str) -> str:
    """A statement of a migration in PostgreSQL's words."""
    words = re.sub(r"\b(INTEGER|BLOB|TEXT)\b", lambda found: _TYPES[found[1]], statement)
    return re.sub(r"\)\s*STRICT(,\s*WITHOUT ROWID)?\s*;$", ");", words)


@cache
def statements() -> dict[int, tuple[str, ...]]:
    """The statements of each migration for PostgreSQL, by number from 1."""
    return {number: tuple(map(translated, script)) for number, script in migrations().items()}


def migrate(connection: Connection, *, create: bool, steps: Steps | None = None) -> None:
    """Bring the schema to the newest format. An empty one is accepted only with `create`.

    Raises `StoreError` for one that is not ours or is newer than we are; it is left as it was. Raises `PgError`.
    """
    try:
        _need_utf8(connection)
        if format_of(connection, create=create) == max(statements()):
            return
        with connection.transaction():
            connection.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK,))
            # Asked again: another process may have migrated it while we waited for the lock.
            current = format_of(connection, create=create)
            if current:  # who writes now ends first, and whoever writes next finds the new number
                connection.execute("LOCK TABLE log_head IN EXCLUSIVE MODE")
            for number, script in statements().items():
                if number <= current:
                    continue
                for statement in script:
                    connection.execute(statement.encode())
                if current and steps is not None and number in steps:
                    steps[number](connection)
                connection.execute("INSERT INTO schema_version (number) VALUES (%s)", (number,))
    except psycopg.Error as error:
        raise PgError(error.sqlstate or LOST) from None


def _need_utf8(connection: Connection) -> None:
    encoding = connection.execute("SHOW server_encoding").fetchone()
    if encoding is None or encoding[0] != "UTF8":
        raise StoreError(
            "the database is not in UTF-8", hint="make it so: createdb --encoding=UTF8", code="not_utf8"
        )


def format_of(connection: Connection, *, create: bool = False) -> int:
    """The format of the store, 0 for an empty schema with `create`. Raises `StoreError` for what is none of ours, or of
    a format that this version cannot open."""
    schema = connection.execute("SELECT current_schema()").fetchone()
    if schema is None or schema[0] is None:
        raise PgError("3F000")
    names = _relations(connection)
    if not names:
        if create:
            return 0
        raise StoreError("the store is empty", hint="create it first: tallystone init", code="empty")
    if "schema_version" not in names:
        raise StoreError(
            "the database holds tables, but not ours",
            hint="name an empty database, or a schema of its own: ?options=-csearch_path%3DNAME",
            code="not_ours",
        )
    row = connection.execute("SELECT coalesce(max(number), 0) FROM schema_version").fetchone()
    number: int = row[0] if row is not None else 0
    check_number(number)
    return number


# -- what is there ----------------------------------------------------------------------------------------------

_OURS = (
    "n.nspname = current_schema()"
    " AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = {}.oid AND d.deptype = 'e')"
)
_RELATIONS = (
    "SELECT c.relname, CASE c.relkind WHEN 'r' THEN 'table' WHEN 'p' THEN 'table' WHEN 'i' THEN 'index'"
    " WHEN 'v' THEN 'view' WHEN 'm' THEN 'view' WHEN 'S' THEN 'sequence' ELSE 'relation' END"
    " FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE " + _OURS.format("c")
)
_COLUMNS = (
    "SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod), l.collname, a.attnotnull,"
    " a.atthasdef OR a.attgenerated <> '' OR a.attidentity <> ''"
    " FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace"
    " LEFT JOIN pg_collation l ON l.oid = a.attcollation AND l.collname <> 'default'"
    " WHERE n.nspname = current_schema() AND c.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT a.attisdropped"
    " ORDER BY c.relname, a.attnum"
)
_INDEXES = (
    "SELECT t.relname, c.relname, i.indisunique,"
    " i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL AND 0 = ALL (i.indoption::int2[]),"
    " (SELECT string_agg(a.attname, ',' ORDER BY k.place) FROM unnest(i.indkey::int2[])"
    "  WITH ORDINALITY k (number, place) JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = k.number)"
    " FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_class t ON t.oid = i.indrelid"
    " JOIN pg_namespace n ON n.oid = t.relnamespace WHERE n.nspname = current_schema()"
)
_MACHINERY = (  # what could change, hide or copy rows behind our back
    "SELECT 'trigger ' || t.tgname FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid"
    " JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = current_schema()"
    " UNION ALL SELECT 'rule ' || r.rulename FROM pg_rewrite r JOIN pg_class c ON c.oid = r.ev_class"
    " JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = current_schema() AND c.relkind IN ('r', 'p')"
    " UNION ALL SELECT 'row security on ' || c.relname FROM pg_class c"
    " JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = current_schema() AND c.relrowsecurity"
    " UNION ALL SELECT 'function ' || c.proname FROM pg_proc c"
    " JOIN pg_namespace n ON n.oid = c.pronamespace WHERE " + _OURS.format("c")
)


def _relations(connection: Connection) -> dict[str, str]:
    return dict(connection.execute(_RELATIONS.encode()).fetchall())


@cache
def _expected_indexes() -> dict[str, tuple[str, bool, str]]:
    """{index: (its table, whether it is unique, its columns)}."""
    found = {"schema_version_pkey": ("schema_version", True, "number")}
    for table in TABLES:
        found[f"{table.name}_pkey"] = (table.name, True, ",".join(table.key))
        for column in INDEXES.get(table.name, ()):
            found[f"{table.name}_{column}"] = (table.name, False, ",".join((*table.key[:-1], column)))
    return found


@cache
def _expected_columns() -> dict[str, list[tuple[str, str, str | None, bool, bool]]]:
    found: dict[str, list[tuple[str, str, str | None, bool, bool]]] = {
        name: [(one.name, *_CATALOG[one.kind], not one.nullable, False) for one in held]
        for name, held in columns().items()
    }
    found["schema_version"] = [("number", "bigint", None, True, False)]
    return found


def schema_findings(
    connection: Connection, *, deep: bool = True, unfinished: bool = False
) -> list[tuple[str, str]]:
    """Where the schema is not as the migrations make it; and, if `deep`, where an index says other than its table.
    `unfinished`: it should be that of a copy which is not finished.

    Raises `psycopg.Error`.
    """
    findings: list[tuple[str, str]] = []
    relations = _relations(connection)
    expected = dict.fromkeys(_expected_columns(), "table") | dict.fromkeys(_expected_indexes(), "index")
    for name in sorted(relations.keys() | expected.keys()):
        if name not in expected:
            findings.append((f"{relations[name]} {name}", "does not belong to the schema"))
        elif name not in relations:
            findings.append((f"{expected[name]} {name}", "is missing from the schema"))
    actual: dict[str, list[tuple[str, str, str | None, bool, bool]]] = {}
    for table, *column in connection.execute(_COLUMNS.encode()):
        actual.setdefault(table, []).append(tuple(column))
    for name, held in sorted(_expected_columns().items()):
        if name in relations and actual.get(name) != held:
            findings.append((f"table {name}", "is not defined as the schema defines it"))
    for table, name, unique, plain, held in connection.execute(_INDEXES.encode()):
        if (name in expected and (table, unique, held) != _expected_indexes().get(name)) or not plain:
            findings.append((f"index {name}", "is not defined as the schema defines it"))
    for (what,) in connection.execute(_MACHINERY.encode()):
        findings.append((what, "does not belong to the schema"))
    if "schema_version" in relations:
        rows = connection.execute("SELECT number FROM schema_version ORDER BY number").fetchall()
        numbers = [row[0] for row in rows]
        wanted = [*statements(), UNFINISHED] if unfinished else list(statements())
        if numbers != wanted:
            findings.append(("table schema_version", f"says {numbers}, not {wanted}"))
    if deep and not findings:
        findings += _index_findings(connection)
    return findings


def _index_findings(connection: Connection) -> list[tuple[str, str]]:
    """A doctored index would hide a row from a look-up and show it to a scan: each is read whole, and compared."""
    findings = []
    for name, (table, _, held) in _expected_indexes().items():
        keys = ", ".join(f'"{column}"' for column in held.split(","))
        sums = [_sum_of_rows(connection, table, order) for order in (f" ORDER BY {keys}", "")]
        if sums[0] != sums[1]:
            findings.append((f"index {name}", "does not say what its table says"))
    return findings


def _sum_of_rows(connection: Connection, table: str, order: str) -> Any:
    """A sum over all rows, read through the index of this order, or without one through the table."""
    with connection.transaction(force_rollback=True):  # the settings end with it
        on, off = ("on", "off") if order else ("off", "on")
        connection.execute(
            "SELECT set_config('enable_seqscan', %s, true), set_config('enable_sort', %s, true),"
            " set_config('enable_indexscan', %s, true), set_config('enable_indexonlyscan', 'off', true),"
            " set_config('enable_bitmapscan', 'off', true)",
            (off, off, on),
        )
        rows = f'(SELECT * FROM "{table}"{order}) r'
        query = f"SELECT count(*), sum(hash_record_extended(r, 0)::numeric) FROM {rows}"
        return connection.execute(query.encode()).fetchone()
