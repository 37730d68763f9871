"""Flip, drop, add, swap or roll back any row: every read stays right or is refused, and the log check names the table.

The cases are generated from `store.tables`, so a new table or column is in here by itself. Each edit is made past
everything, with SQLite alone, on a copy. Set TALLYSTONE_ATTACK=full to edit every row instead of a few for each column.
"""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from stores import sqlite_only

from attack.reading import touched, watched
from attack.scene import DATABASE, Scene, Seen, build, look, raw, reads, rows
from tallystone.errors import TallystoneError
from tallystone.store.tables import TABLES, Table
from tallystone.vault import Workspace

pytestmark = sqlite_only(
    "each of thousands of edits is of a copy of the file; on PostgreSQL: test_log_mutations.py"
)

FULL = os.environ.get("TALLYSTONE_ATTACK") == "full"
QUICK_CASES = 3
EVENT_TABLES = {"log_leaf", "log_detail", "log_manifest", "log_head", "auditor"}
# Rows that bring an older value of a block back: a consistent rollback is for the log check to find (design §2).
ROLLBACK = {"block", "version", "chain"}

COLUMNS = [(table, column) for table in TABLES for column in table.all_columns]
_CBOR = [
    b"\x80",
    b"\xf6",
    b"\x00",
    b"\xa0",
    b"\x84\x01\x02\x03\x04",
    b"\x81\x1b\xff\xff\xff\xff\xff\xff\xff\xff",
]


@pytest.fixture(scope="module")
def work() -> Iterator[Path]:
    """A folder in memory where there is one: the copies need not survive anything."""
    home = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=home) as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def scene(work: Path) -> Scene:
    """The untouched original."""
    return build(work / "original")


@pytest.fixture(scope="module")
def right(scene: Scene, work: Path) -> Seen:
    """What everybody sees of it."""
    shutil.copytree(scene.folder, work / "right")
    with Workspace.open(work / "right") as workspace:
        seen = look(workspace, scene, events=True)
    refused = {name: repr(answer) for name, answer in seen.items() if not isinstance(answer, set)}
    assert not refused
    scene.reads = reads(scene, work / "spare", seen)
    return seen


@pytest.fixture
def copy(scene: Scene, work: Path) -> Iterator[Path]:
    """A copy to be edited."""
    target = work / "copy"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(scene.folder, target)
    yield target


def test_the_scene_itself_is_sound(scene: Scene, copy: Path, right: Seen) -> None:
    with Workspace.open(copy) as workspace:
        assert workspace.verify().findings == []
        assert look(workspace, scene, events=True).keys() == right.keys()
        assert workspace.verify().findings == []
    assert sum(len(answer) for answer in right.values()) > 100


def judge(copy: Path, scene: Scene, right: Seen, edit: Table, what: str) -> None:
    """The promise, for the edited copy. Unless FULL, a question is left out that reads no row which is edited, or was
    written since by those asked before it."""
    table, edited = edit.name, touched(scene.folder / DATABASE, copy / DATABASE, edit)
    try:
        workspace = Workspace.open(copy)
    except TallystoneError:
        assert table in ("workspace", "log_head"), f"{what}: the workspace does not open"
        return
    with workspace:
        found = [finding.where for finding in workspace.verify().findings]
        # A leaf and its neighbours prove each other: an edit of one may be told of another.
        names = {table} | (
            {"log_leaf", "log_head", "log_manifest", "log_detail", "log_node"}
            if table.startswith("log_")
            else set()
        )
        assert any(where.split()[0] in names for where in found), f"{what}: not found by verify, only {found}"
        with watched() as watch:
            watch.written |= edited
            seen = look(
                workspace,
                scene,
                events=table in EVENT_TABLES,
                asked=lambda name: FULL or watch.reaches(scene.reads[name]),
            )
    for name, answer in seen.items():
        if isinstance(answer, TallystoneError):
            continue
        wrong = answer - right[name]
        if table in ROLLBACK:
            wrong = {fact for fact in wrong if not _was_right_before(fact, scene)}
        wrong = {fact for fact in wrong if not _by_a_role(fact, right[name])}
        if table == "charter" and name.endswith(" charter"):
            continue  # an older one is the root's word too: that the newest is gone, the check of the log has found
        assert not wrong, f"{what}: {name} answers wrongly {wrong}"


def _by_a_role(fact: Any, right: set[Any]) -> bool:
    """Whether a fact is the right one of a block but for how it is reached: by a role, one's own grant being gone."""
    match fact:
        case ((*rest, "read" | "write", str(role), offered, policy), content) if role:
            return any(
                one[1] == content and (*one[0][:5], *one[0][7:]) == (*rest, offered, policy)
                for one in right
                if isinstance(one, tuple) and len(one) == 2 and isinstance(one[0], tuple) and len(one[0]) == 9
            )
    return False


def _was_right_before(fact: Any, scene: Scene) -> bool:
    """Whether a fact about a block's content was true at some time: `history` holds the values ever written."""
    return any(value in repr(fact) for value in scene.secrets) and "agent_ids" not in repr(fact)


def _variants(value: Any, others: list[Any], seed: int) -> list[Any]:
    dice = random.Random(seed)
    swapped = [other for other in others if other != value][:1]
    if isinstance(value, bytes):
        middle = len(value) // 2
        return [
            *swapped,
            value[:middle] + bytes([value[middle] ^ 1]) + value[middle + 1 :] if value else b"\x00",
            b"",
            dice.randbytes(len(value) or 32),
            dice.choice(_CBOR),
            value[:-1],
            value + b"\x00",
            bytes([value[0] ^ 0x80]) + value[1:] if value else b"\x01",
            dice.randbytes(100_000),
            None,
        ]
    if isinstance(value, str):
        return [
            *swapped,
            value[:-1] + ("0" if value[-1:] != "0" else "1"),
            "",
            "\x00",
            value + " ",
            "user-",
            "full",
        ]
    if isinstance(value, int):
        return [value - 1, value + 1, -1, 0, 2**62, *swapped, None, -(2**63)]
    return [0, b"\x01" * 40, -1, 1, 2**62, b"", ""]


def _cases(database: Path, table: Table, column: str) -> Iterator[tuple[tuple[Any, ...], Any]]:
    place = table.all_columns.index(column)
    found = rows(database, f"SELECT {', '.join(table.all_columns)} FROM {table.name}")
    others = [row[place] for row in found]
    if FULL:
        for number, row in enumerate(found):
            for value in _variants(row[place], others, number):
                yield row, value
        return
    dice = random.Random(f"{table.name}.{column}")
    # The dice are loaded with a fixed seed: each column has its rows and its edits, the same in every run.
    for number in range(QUICK_CASES):
        row = dice.choice([row for row in found if row[place] is not None] or found)
        variants = _variants(row[place], others, number)
        # A key that is taken would be refused by the schema, and prove nothing.
        rest = [one for one in variants[2:] if column not in table.key or one not in [*others, None]]
        yield row, variants[number] if number < 2 else dice.choice(rest)


@pytest.mark.parametrize(("table", "column"), COLUMNS, ids=[f"{t.name}.{c}" for t, c in COLUMNS])
def test_an_edited_cell(table: Table, column: str, scene: Scene, copy: Path, right: Seen) -> None:
    tried = 0
    for row, value in _cases(scene.folder / DATABASE, table, column):
        if value == row[table.all_columns.index(column)]:
            continue
        shutil.copyfile(scene.folder / DATABASE, copy / DATABASE)
        (copy / f"{DATABASE}-wal").unlink(missing_ok=True)
        (copy / f"{DATABASE}-shm").unlink(missing_ok=True)
        with raw(copy / DATABASE) as connection:
            try:
                connection.execute(
                    f"UPDATE {table.name} SET {column} = ? WHERE {_where(table)}", (value, *table.key_of(row))
                )
            except sqlite3.IntegrityError:
                continue  # the schema itself refuses the type, or the key is taken
        shown = value if not isinstance(value, bytes) else value[:20].hex()
        judge(copy, scene, right, table, f"{table.name}.{column} of {table.key_of(row)[1:]} = {shown!r}")
        tried += 1
    assert tried or column == "ws"


def _where(table: Table) -> str:
    return " AND ".join(f"{column} = ?" for column in table.key)


def _some_rows(database: Path, table: Table, count: int) -> list[tuple[Any, ...]]:
    found = rows(database, f"SELECT {', '.join(table.all_columns)} FROM {table.name}")
    return found if FULL else random.Random(table.name).sample(found, min(count, len(found)))


def _fresh(scene: Scene, copy: Path) -> Path:
    for name in (DATABASE, f"{DATABASE}-wal", f"{DATABASE}-shm"):
        (copy / name).unlink(missing_ok=True)
    shutil.copyfile(scene.folder / DATABASE, copy / DATABASE)
    return copy / DATABASE


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_a_dropped_row(table: Table, scene: Scene, copy: Path, right: Seen) -> None:
    for row in _some_rows(scene.folder / DATABASE, table, 2):
        with raw(_fresh(scene, copy)) as connection:
            connection.execute(f"DELETE FROM {table.name} WHERE {_where(table)}", table.key_of(row))
        judge(copy, scene, right, table, f"dropped {table.name} {table.key_of(row)[1:]}")


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_all_rows_dropped(table: Table, scene: Scene, copy: Path, right: Seen) -> None:
    with raw(_fresh(scene, copy)) as connection:
        connection.execute(f"DELETE FROM {table.name}")
    judge(copy, scene, right, table, f"emptied {table.name}")


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_an_added_row(table: Table, scene: Scene, copy: Path, right: Seen) -> None:
    """A copy of a row under another key, with each key column changed in turn."""
    for row in _some_rows(scene.folder / DATABASE, table, 1):
        for place in range(len(table.key)):
            cell = row[place]
            other = (
                cell + 1 if isinstance(cell, int) else cell[:-1] + ("0" if isinstance(cell, str) else b"\x00")
            )
            with raw(_fresh(scene, copy)) as connection:
                marks = ", ".join("?" * len(row))
                try:
                    connection.execute(
                        f"INSERT INTO {table.name} VALUES ({marks})", (*row[:place], other, *row[place + 1 :])
                    )
                except sqlite3.IntegrityError:
                    continue
            judge(copy, scene, right, table, f"added to {table.name} beside {table.key_of(row)[1:]}")


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_two_rows_swapped(table: Table, scene: Scene, copy: Path, right: Seen) -> None:
    """Two rows exchange everything but their keys."""
    found = _some_rows(scene.folder / DATABASE, table, 6)
    width = len(table.key)
    for left, other in zip(found[::2], found[1::2], strict=False):
        if left[width:] == other[width:]:
            continue
        with raw(_fresh(scene, copy)) as connection:
            sets = ", ".join(f"{column} = ?" for column in table.columns)
            for key, cells in ((left[:width], other[width:]), (other[:width], left[width:])):
                connection.execute(f"UPDATE {table.name} SET {sets} WHERE {_where(table)}", (*cells, *key))
        judge(copy, scene, right, table, f"swapped in {table.name} {left[1:width]} and {other[1:width]}")


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_a_row_rolled_back(table: Table, scene: Scene, copy: Path, right: Seen) -> None:
    """Each row that an older copy of the database has otherwise, put back alone; and a row of then that is gone now."""
    columns = ", ".join(table.all_columns)
    now = set(rows(scene.folder / DATABASE, f"SELECT {columns} FROM {table.name}"))
    then = [
        row for row in rows(scene.older / DATABASE, f"SELECT {columns} FROM {table.name}") if row not in now
    ]
    for row in then if FULL else then[:3]:
        with raw(_fresh(scene, copy)) as connection:
            connection.execute(
                f"INSERT OR REPLACE INTO {table.name} VALUES ({', '.join('?' * len(row))})", row
            )
        judge(copy, scene, right, table, f"rolled back {table.name} {table.key_of(row)[1:]}")


def test_one_block_rolled_back_consistently_is_found(scene: Scene, copy: Path) -> None:
    """The documented limit: readers take the older state of a block for its state; the log check does not."""
    tables = ["block", "chain", "version", "epoch", "grant_wrap", "ledger"]
    storage = rows(
        scene.older / DATABASE, "SELECT storage FROM version GROUP BY storage ORDER BY count(*) DESC"
    )[0][0]
    with raw(_fresh(scene, copy)) as connection:
        for table in tables:
            connection.execute(f"DELETE FROM {table} WHERE storage = ?", (storage,))
            for row in rows(scene.older / DATABASE, f"SELECT * FROM {table} WHERE storage = ?", storage):
                connection.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(row))})", row)
    with Workspace.open(copy) as workspace:
        found = {finding.where.split()[0] for finding in workspace.verify().findings}
    assert found >= {"block", "chain", "grant_wrap", "ledger", "version"}
