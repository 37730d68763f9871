"""Random edits of the log's rows, in every column: each is found, and the first bad leaf is named right.

One store is edited in place past everything, checked, and put back. The edits are the same in every run.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import raw_rows
from store_rows import LOG_PUBLIC, LOG_SEED, WORKSPACE_ID, check, counter, make_store, open_store
from stores import LONG, POSTGRESQL

from tallystone.audit.checkpoint import Checkpoint, open_checkpoint, origin_of, sign_checkpoint
from tallystone.audit.leaf import ROWS, decode_leaf
from tallystone.audit.merkle import Frontier
from tallystone.crypto import Signer
from tallystone.store.protocol import Batch, Delete, Event, Put, Store, Table
from tallystone.store.tables import (
    BLOCK,
    LOG_DETAIL,
    LOG_HEAD,
    LOG_LEAF,
    LOG_MANIFEST,
    LOG_NODE,
    WS,
    Row,
)

LOG = (LOG_LEAF, LOG_DETAIL, LOG_MANIFEST, LOG_NODE, LOG_HEAD)
COLUMNS = [(table, column) for table in LOG for column in table.all_columns]
# On PostgreSQL a check costs a hundred round trips, and says the same: each column is edited four times or five.
EDITS = 75 if POSTGRESQL and not LONG else 1000


class Bench:
    """A store, a connection past it, and what the log was."""

    def __init__(self, path: Path) -> None:
        self.store = make_store(path)
        for number in range(30):
            self.store.commit(Batch(events=[Event("read", b"read %d" % number)]))
            self.store.commit(Batch(changes=[Put(BLOCK, counter(number))], events=[Event("write", b"w")]))
        self.store.commit(
            Batch(changes=[Delete(LOG_DETAIL, (WS, 4))], events=[Event("erase", b"the fourth")])
        )
        self.raw = raw_rows.connect(path)
        self.rows = {table.name: self._all(table) for table in LOG}
        self.size = len(self.rows[LOG_LEAF.name])
        leaves = [decode_leaf(row[2]) for row in self.rows[LOG_LEAF.name]]
        self.lists = {leaf.seq for leaf in leaves if leaf.kind == ROWS}

    def _all(self, table: Table) -> list[Row]:
        order = ", ".join(table.key)
        return self.raw.execute(f"SELECT * FROM {table.name} ORDER BY {order}").fetchall()

    def replace(self, table: Table, key: Row, row: Row | None) -> bool:
        """Put `row` in place of the one at `key`. False if the schema itself refuses it."""
        where = " AND ".join(f"{column} = ?" for column in table.key)
        sets = ", ".join(f"{column} = ?" for column in table.all_columns)
        try:
            if row is None:
                self.raw.execute(f"DELETE FROM {table.name} WHERE {where}", key)
            else:
                self.raw.execute(f"UPDATE {table.name} SET {sets} WHERE {where}", (*row, *key))
        except raw_rows.refused():
            return False
        return True

    def restore(self, table: Table, key: Row, was: Row) -> None:
        self.raw.execute(f"DELETE FROM {table.name} WHERE {' AND '.join(f'{c} = ?' for c in table.key)}", key)
        marks = ", ".join("?" * len(was))
        self.raw.execute(f"INSERT OR REPLACE INTO {table.name} VALUES ({marks})", was)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    made = Bench(tmp_path_factory.mktemp("log") / "store.db")
    yield made
    made.raw.close()
    made.store.close()


def other(dice: random.Random, value: Any) -> Any:
    """A random other value of the same type."""
    if isinstance(value, int):
        return dice.choice(
            [value + 1, value - 1, -1, 0, value + 10_000, 2**40, -(2**40), dice.randrange(200)]
        )
    kind = dice.randrange(5)
    if kind == 0:
        at = dice.randrange(len(value))
        return value[:at] + bytes([value[at] ^ 1 << dice.randrange(8)]) + value[at + 1 :]
    if kind == 1:
        return value[: dice.randrange(len(value))]
    if kind == 2:
        return value + dice.randbytes(dice.randrange(1, 40))
    return dice.randbytes(len(value) if kind == 3 else dice.randrange(100))


def expected(bench: Bench, table: Table, was: Row, now: Row | None) -> int | None:
    """The first bad leaf, worked out from the edit alone."""
    size = bench.size
    if table is LOG_HEAD:
        return None if now is None or now[0] != WS else _of_head(size, now)
    leaf = was[2] << was[1] if table is LOG_NODE else was[1]
    if now is None or table is LOG_NODE or now[:2] == was[:2] or now[0] != WS:
        return int(leaf)
    # The row lies at another place now: bad is where it came from, and where it went, if a leaf is there.
    arrived = now[1] if 0 <= now[1] < size and table is not LOG_LEAF else leaf
    return int(min(leaf, arrived))


def _of_head(size: int, now: Row) -> int | None:
    """A head says that a leaf is bad only by a size that is not the tree's: its own, or its checkpoint's."""
    said = now[1] if now[1] >= 0 and now[1] != size else None
    try:
        signed = open_checkpoint(now[3], origin_of(WORKSPACE_ID), LOG_PUBLIC).size
    except Exception:
        signed = size
    found = [min(one, size) for one in (said, signed) if one is not None and one != size]
    return min(found, default=None)


def test_every_random_edit_is_found_and_its_first_leaf_named(bench: Bench) -> None:
    assert check(bench.store).ok
    dice, tried = random.Random(6), {(table.name, column): 0 for table, column in COLUMNS}
    done = 0
    while done < EDITS:
        table, column = COLUMNS[done % len(COLUMNS)]
        was = dice.choice(bench.rows[table.name])
        at = table.all_columns.index(column)
        now = None if dice.random() < 0.05 else (*was[:at], other(dice, was[at]), *was[at + 1 :])
        if now == was or not bench.replace(table, table.key_of(was), now):
            continue
        report = check(bench.store)
        told = f"{table.name}.{column} of {was[:3]!r}: {was[at]!r} → {now and now[at]!r}"
        assert not report.ok, told
        assert report.first_bad == expected(bench, table, was, now), f"{told}: {report.findings[:5]}"
        bench.restore(table, table.key_of(now or was), was)
        tried[table.name, column] += 1
        done += 1
    assert min(tried.values()) > EDITS // 20
    assert check(bench.store).ok


@pytest.mark.parametrize("kept", [1, 16, 17, 40])
def test_a_cut_tail_is_found_against_a_pin_and_its_first_leaf_named(tmp_path: Path, kept: int) -> None:
    """A log that was cut cleanly, head and all, is a whole log: only what was kept elsewhere tells."""
    path = tmp_path / "store.db"
    with make_store(path) as store:
        store.commit(Batch(events=[Event("read", b"%d" % number) for number in range(60)]))
        pin = check(store).checkpoint
        with store.snapshot() as snapshot:
            leaves = [row for row in snapshot.rows(LOG_NODE) if row[1] == 0]
            head = snapshot.get(LOG_HEAD, (WS,))
    assert head is not None
    tree = Frontier()
    for row in leaves[: kept + 1]:
        tree.append(row[3])
    # Whoever takes the disk has the log's key as well.
    note = sign_checkpoint(Checkpoint(origin_of(WORKSPACE_ID), tree.size, tree.root()), Signer(LOG_SEED))
    raw = raw_rows.connect(path)
    for table in (LOG_LEAF, LOG_DETAIL, LOG_MANIFEST):
        raw.execute(f"DELETE FROM {table.name} WHERE seq >= ?", (tree.size,))
    raw.execute("DELETE FROM log_node WHERE (number + 1) << CAST(height AS INTEGER) > ?", (tree.size,))
    raw.execute("UPDATE log_head SET size = ?, frontier = ?, checkpoint = ?", (tree.size, tree.pack(), note))
    raw.commit()
    raw.close()
    with open_store(path) as store:
        assert _without_rows(store, None) == []
        found = _without_rows(store, pin)
        assert found == [f"the log was rolled back: {tree.size} leaves, pinned 62"]
        assert check(store, pin).first_bad == tree.size


def _without_rows(store: Store, pin: bytes | None) -> list[str]:
    return [finding.what for finding in check(store, pin).findings if finding.where.startswith("log_")]
