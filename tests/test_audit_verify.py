"""Whatever somebody does to the file, the check names the place.

One store with rows in every table is made once; each test edits a copy of the file, as somebody with the disk would.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from store_rows import (
    LIVE,
    LOG_PUBLIC,
    WORKSPACE_ID,
    check,
    counter,
    make_full_store,
    make_store,
    open_store,
    sample_row,
)
from stores import sqlite_only

from tallystone.audit.merkle import leaf_hash
from tallystone.audit.report import FINDINGS_LIMIT, Finding
from tallystone.audit.verify import EXEMPT, Report, verify
from tallystone.crypto import signing_public
from tallystone.store._columns import columns
from tallystone.store.protocol import Batch, Event, Put, Table
from tallystone.store.tables import (
    BLOCK,
    LOG_DETAIL,
    LOG_HEAD,
    LOG_LEAF,
    LOG_MANIFEST,
    REPLY,
    TABLES,
    VERSION,
    WORKSPACE,
    WS,
    Cell,
)

pytestmark = sqlite_only(
    "each edit is of a copy of the file; edits of rows on PostgreSQL: test_log_mutations.py, test_postgresql.py"
)

Edit = Callable[[sqlite3.Connection], object]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("audit") / "original.db"
    make_full_store(path).close()
    return path


@pytest.fixture
def path(original: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "store.db"
    shutil.copyfile(original, copy)
    return copy


def edit(path: Path, *statements: str, script: Edit | None = None) -> None:
    connection = sqlite3.connect(path)
    try:
        for statement in statements:
            assert connection.execute(statement).rowcount != 0, statement
        if script is not None:
            script(connection)
        connection.commit()
    finally:
        connection.close()


def report_on(path: Path, pin: bytes | None = None) -> Report:
    with open_store(path) as store:
        return check(store, pin)


def places(report: Report) -> list[str]:
    return [finding.where for finding in report.findings]


def names(report: Report, table: Table) -> bool:
    return any(where.split(" ")[0] == table.name for where in places(report))


def test_a_store_that_nobody_touched_has_no_findings(path: Path) -> None:
    report = report_on(path)
    assert report.ok
    assert report.findings == []
    with open_store(path) as store, store.snapshot() as snapshot:
        assert report.rows == sum(len(list(snapshot.rows(table))) for table in LIVE)
        assert report.leaves == len(list(snapshot.rows(LOG_LEAF)))
        head = snapshot.get(LOG_HEAD, (WS,))
    assert head is not None
    assert report.checkpoint == head[3]


def test_every_table_is_compared_or_exempt_for_a_reason() -> None:
    assert {table.name for table in TABLES} | {"schema_version"} == {
        table.name for table in LIVE
    } | EXEMPT.keys()
    assert all(EXEMPT.values())


COLUMNS = [
    pytest.param(table, column, id=f"{table.name}.{column}")
    for table in TABLES
    for column in table.all_columns
]


def other_value(value: Cell) -> Cell:
    match value:
        case bytes():
            return bytes([value[0] ^ 1]) + value[1:] if value else b"\0"
        case int():
            return value + 500_000
        case str():
            return value + "x"
        case None:
            raise AssertionError("choose a row that has a value")


def change_cell(
    connection: sqlite3.Connection, table: Table, column: str, to: Callable[[Cell], Cell]
) -> None:
    """Change `column` of the first row that has a value there."""
    skip, index = 0, table.all_columns.index(column)
    while (row := pick(connection, table, skip))[index] is None:
        skip += 1
    where = " AND ".join(f'"{name}" = ?' for name in table.key)
    sql = f'UPDATE {table.name} SET "{column}" = ? WHERE {where}'
    assert connection.execute(sql, (to(row[index]), *table.key_of(row))).rowcount == 1


@pytest.mark.parametrize(("table", "column"), COLUMNS)
def test_a_changed_cell_is_named(path: Path, table: Table, column: str) -> None:
    edit(path, script=lambda connection: change_cell(connection, table, column, other_value))
    assert names(report_on(path), table)


def flip_last_bit(blob: Cell) -> Cell:
    assert isinstance(blob, bytes)
    return blob[:-1] + bytes([blob[-1] ^ 1])


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_the_last_bit_of_every_blob_counts(path: Path, table: Table) -> None:
    before = path.read_bytes()
    for held in columns()[table.name]:
        column, kind = held.name, held.kind
        if kind == "BLOB":
            path.write_bytes(before)
            edit(path, script=lambda connection, at=column: change_cell(connection, table, at, flip_last_bit))
            assert names(report_on(path), table), column


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_a_column_that_may_be_empty_may_not_be_emptied_or_filled(path: Path, table: Table) -> None:
    for held in columns()[table.name]:
        column, kind, nullable = held.name, held.kind, held.nullable
        if nullable:
            value = {"INTEGER": "7", "BLOB": "x'07'", "TEXT": "'7'"}[kind]
            before = path.read_bytes()
            edit(path, f'UPDATE {table.name} SET "{column}" = NULL WHERE "{column}" IS NOT NULL')
            assert names(report_on(path), table)
            path.write_bytes(before)
            edit(path, f'UPDATE {table.name} SET "{column}" = {value} WHERE "{column}" IS NULL')
            assert names(report_on(path), table)


def pick(connection: sqlite3.Connection, table: Table, skip: int = 0) -> tuple[Cell, ...]:
    columns = ", ".join(f'"{column}"' for column in table.all_columns)
    order = ", ".join(f'"{column}"' for column in table.key)
    sql = f"SELECT {columns} FROM {table.name} ORDER BY {order} LIMIT 1 OFFSET {skip}"
    row: tuple[Cell, ...] = connection.execute(sql).fetchone()
    return row


def drop(connection: sqlite3.Connection, table: Table, key: tuple[Cell, ...]) -> None:
    where = " AND ".join(f'"{column}" = ?' for column in table.key)
    assert connection.execute(f"DELETE FROM {table.name} WHERE {where}", key).rowcount == 1


def put(connection: sqlite3.Connection, table: Table, row: tuple[Cell, ...]) -> None:
    columns = ", ".join(f'"{column}"' for column in table.all_columns)
    connection.execute(
        f"INSERT OR REPLACE INTO {table.name} ({columns}) VALUES ({', '.join('?' * len(row))})", row
    )


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_a_dropped_row_is_named(path: Path, table: Table) -> None:
    def one(connection: sqlite3.Connection) -> None:
        drop(connection, table, table.key_of(pick(connection, table)))

    edit(path, script=one)
    assert names(report_on(path), table)


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_a_table_that_was_emptied_is_named(path: Path, table: Table) -> None:
    edit(path, f"DELETE FROM {table.name}")
    assert names(report_on(path), table)


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_an_added_row_is_named(path: Path, table: Table) -> None:
    def one(connection: sqlite3.Connection) -> None:
        row = pick(connection, table)
        last = len(table.key) - 1
        put(connection, table, (*row[:last], other_value(row[last]), *row[last + 1 :]))

    edit(path, script=one)
    report = report_on(path)
    assert names(report, table)
    if table.name not in EXEMPT:
        assert [finding.what for finding in report.findings] == ["is accounted for by no leaf"]


@pytest.mark.parametrize(
    "table", [table for table in TABLES if table not in (WORKSPACE, LOG_HEAD)], ids=lambda table: table.name
)
def test_two_rows_that_changed_places_are_named(path: Path, table: Table) -> None:
    width = len(table.key)

    def swap(connection: sqlite3.Connection) -> None:
        one, other = pick(connection, table), pick(connection, table, 1)
        put(connection, table, one[:width] + other[width:])
        put(connection, table, other[:width] + one[width:])

    edit(path, script=swap)
    report = report_on(path)
    assert sum(where.split(" ")[0] == table.name for where in places(report)) >= (
        2 if table is not LOG_LEAF else 1
    )


@pytest.mark.parametrize("table", [t for t in LIVE if t is not WORKSPACE], ids=lambda table: table.name)
def test_a_row_put_back_to_what_it_once_was_is_named_with_the_leaf_that_wrote_it_last(
    path: Path, table: Table
) -> None:
    row, other = sample_row(table, 1), sample_row(table, 7)
    edit(path, script=lambda connection: put(connection, table, table.key_of(row) + other[len(table.key) :]))
    report = report_on(path)
    assert len(report.findings) == 1
    assert names(report, table)
    assert "is not what was written; leaf " in report.findings[0].what
    assert report.findings[0].what.endswith("wrote it last")


@pytest.mark.parametrize("table", [t for t in LIVE if t is not WORKSPACE], ids=lambda table: table.name)
def test_a_row_that_was_deleted_and_is_back_is_named(path: Path, table: Table) -> None:
    edit(path, script=lambda connection: put(connection, table, sample_row(table, 4)))
    report = report_on(path)
    assert len(report.findings) == 1
    assert names(report, table)
    assert report.findings[0].what.endswith("deleted it last")


def test_a_finding_says_which_row(path: Path) -> None:
    edit(path, "UPDATE version SET wrap = x'00' WHERE number = 2002")
    (finding,) = report_on(path).findings
    assert finding.where == f"version {sample_row(VERSION, 2)[1].hex()[:16]} 2002"


def test_an_erased_event_leaves_the_log_whole_and_may_not_come_back(path: Path) -> None:
    with open_store(path) as store, store.snapshot() as snapshot:
        assert snapshot.get(LOG_DETAIL, (WS, 0)) is None
    edit(path, "INSERT INTO log_detail VALUES (1, 0, CAST('workspace' AS BLOB))")
    (finding,) = report_on(path).findings
    assert finding.where == "log_detail 0"
    assert "is back" in finding.what


def test_a_changed_leaf_is_named_and_by_its_span_if_its_hash_was_changed_along(path: Path) -> None:
    def later_minute(connection: sqlite3.Connection) -> None:
        (leaf,) = connection.execute("SELECT leaf FROM log_leaf WHERE seq = 5").fetchone()
        minute = (30_000_000).to_bytes(4, "big")
        assert leaf.count(minute) == 1
        connection.execute(
            "UPDATE log_leaf SET leaf = ? WHERE seq = 5", (leaf.replace(minute, minute[:3] + b"\x01"),)
        )

    edit(path, script=later_minute)
    report = report_on(path)
    assert report.findings[0] == Finding("log_leaf 5", "is not what was signed")
    assert report.first_bad == 5

    def its_hash(connection: sqlite3.Connection) -> None:
        (leaf,) = connection.execute("SELECT leaf FROM log_leaf WHERE seq = 5").fetchone()
        sql = "UPDATE log_node SET hash = ? WHERE height = 0 AND number = 5"
        connection.execute(sql, (leaf_hash(leaf),))

    edit(path, script=its_hash)
    report = report_on(path)
    assert report.findings[0] == Finding("log_node 4 0", "is not the hash over the leaves 0–15")
    assert any(where.startswith("log_leaf 0–") for where in places(report))
    assert report.first_bad == 0


def test_a_log_cut_short_is_named_even_with_its_rows(path: Path) -> None:
    cut_at: list[int] = []

    def cut(connection: sqlite3.Connection) -> None:
        (size,) = connection.execute("SELECT size FROM log_head").fetchone()
        for table in (LOG_LEAF, LOG_DETAIL, LOG_MANIFEST):
            connection.execute(f"DELETE FROM {table.name} WHERE seq >= ?", (size - 3,))
        cut_at.append(size - 3)

    edit(path, script=cut)
    report = report_on(path)
    assert any("missing at the log's end" in finding.what for finding in report.findings)
    assert [report.first_bad] == cut_at


def test_a_log_that_was_composed_anew_lacks_the_signature(path: Path) -> None:
    """Whoever has the disk but not the log's key cannot make a log that passes."""
    with make_store(path.with_name("forged.db")) as forged:
        with open_store(path) as store, store.snapshot() as snapshot:
            for table in LIVE:
                forged.commit(Batch(changes=[Put(table, row) for row in snapshot.rows(table)]))
        with forged.snapshot() as snapshot:
            assert verify(snapshot, log_public=LOG_PUBLIC).ok  # signed by the log's key
            report = verify(snapshot, log_public=signing_public(bytes(32)))
    assert places(report) == ["log_head"]
    assert "not signed by the expected key" in report.findings[0].what


def test_a_pin_finds_the_rollback_of_the_whole_store_and_another_history(original: Path, path: Path) -> None:
    early = path.with_name("early.db")
    shutil.copyfile(path, early)
    first_pin = report_on(path).checkpoint
    with open_store(path) as store:
        store.commit(Batch(changes=[Put(BLOCK, counter(2))], events=[Event("write", b"later")]))
    later_pin = report_on(path).checkpoint
    assert report_on(path, first_pin).ok
    assert report_on(path, later_pin).ok
    assert report_on(early).ok  # by itself, an old copy is a whole store
    assert "rolled back" in report_on(early, later_pin).findings[0].what
    with open_store(early) as store:
        for number in range(5):
            store.commit(Batch(events=[Event("write", b"another history %d" % number)]))
    assert report_on(early).ok
    assert any("pinned" in finding.what for finding in report_on(early, later_pin).findings)
    assert [finding.where for finding in report_on(path, b"no note").findings] == ["pin"]


SCHEMA_EDITS = {
    "table": "CREATE TABLE extra (a)",
    "trigger": "CREATE TRIGGER extra AFTER DELETE ON shelf BEGIN SELECT 1; END",
    "index": "CREATE INDEX extra ON block (epoch)",
    "view": "CREATE VIEW extra AS SELECT * FROM token",
    "column": "ALTER TABLE shelf ADD COLUMN extra TEXT",
    "missing index": "DROP INDEX shelf_position",
    "analyze": "ANALYZE",
}


@pytest.mark.parametrize("statement", SCHEMA_EDITS.values(), ids=SCHEMA_EDITS)
def test_a_changed_schema_is_a_finding(path: Path, statement: str) -> None:
    edit(path, script=lambda connection: connection.execute(statement))
    findings = report_on(path).findings
    assert any("schema" in finding.what for finding in findings)


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_a_table_that_is_gone_is_a_finding_not_a_crash(path: Path, table: Table) -> None:
    edit(path, script=lambda connection: connection.execute(f"DROP TABLE {table.name}"))
    report = report_on(path)
    assert f"table {table.name}" in places(report)


def test_a_changed_schema_number_is_a_finding(path: Path) -> None:
    edit(path, "INSERT INTO schema_version VALUES (0)")
    assert places(report_on(path)) == ["table schema_version"]


def test_a_text_that_is_none_is_a_finding(path: Path) -> None:
    edit(path, "UPDATE kit SET principal = CAST(X'ff41' AS TEXT) WHERE principal LIKE 'kit-2-%'")
    assert "table kit" in places(report_on(path))


def test_a_doctored_index_is_a_finding(path: Path) -> None:
    def doctor(connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA writable_schema = ON")
        sql = "CREATE INDEX shelf_position ON shelf (ws, shelf, position)"
        where = "WHERE name = 'shelf_position'"
        connection.execute(f"UPDATE sqlite_master SET sql = '{sql} WHERE position < 0' {where}")
        connection.commit()
        connection.execute("PRAGMA writable_schema = RESET")
        connection.execute("REINDEX shelf_position")
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute(f"UPDATE sqlite_master SET sql = '{sql}' {where}")

    edit(path, script=doctor)
    assert "file" in places(report_on(path))


def test_rows_of_another_workspace_number_are_findings(path: Path) -> None:
    for table in TABLES:
        before = path.read_bytes()
        edit(
            path,
            script=lambda connection, table=table: put(connection, table, (2, *pick(connection, table)[1:])),
        )
        assert names(report_on(path), table)
        path.write_bytes(before)


def test_absurd_leaf_numbers_do_not_keep_the_check_busy(path: Path) -> None:
    edit(
        path, f"INSERT INTO log_leaf VALUES (1, {2**62}, x'00')", "INSERT INTO log_leaf VALUES (1, -5, x'00')"
    )
    assert {"log_leaf -5", f"log_leaf {2**62}"} <= set(places(report_on(path)))


def test_many_findings_are_counted_not_kept(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with make_store(path) as store:
        rows = [(WS, b"%d" % number, 0, 0, b"") for number in range(FINDINGS_LIMIT + 50)]
        store.commit(Batch(changes=[Put(REPLY, row) for row in rows]))
    edit(path, "UPDATE reply SET expires = 1")
    report = report_on(path)
    assert len(report.findings) == FINDINGS_LIMIT
    assert report.unlisted == 50
    assert not report.ok


def test_progress_is_told_and_ends_at_what_there_is(tmp_path: Path) -> None:
    with make_store(tmp_path / "store.db") as store:
        store.commit(Batch(changes=[Put(BLOCK, counter(0, b"%d" % number)) for number in range(2500)]))
        told: list[tuple[int, int]] = []
        with store.snapshot() as snapshot:
            assert verify(snapshot, log_public=LOG_PUBLIC, progress=lambda *step: told.append(step)).ok
    assert [done for done, _ in told] == [1000, 2000]
    assert all(done <= total for done, total in told)


def test_the_workspace_may_be_said_instead_of_read(path: Path) -> None:
    with open_store(path) as store, store.snapshot() as snapshot:
        assert verify(snapshot, log_public=LOG_PUBLIC, workspace=WORKSPACE_ID).ok
        assert not verify(snapshot, log_public=LOG_PUBLIC, workspace=bytes(32)).ok
