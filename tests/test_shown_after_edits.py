"""Rows that somebody edits past the log, while a process keeps what it showed of them (ADR 0041, 0046): it shows what a
process that has just begun shows; for two seconds perhaps what it showed before, if the edit hides behind a commit of
others."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import raw_rows
from stores import sqlite_only

from tallystone.errors import TallystoneError
from tallystone.store.sqlite import AGE, SqliteStore
from tallystone.store.tables import BLOCK, CHAIN, CHARTER, EPOCH, GRANT_WRAP, LEDGER, SHELF, VERSION
from tallystone.vault import Vault, Workspace
from tallystone.vault.forms import Form

pytestmark = sqlite_only("rows are edited as SQLite's; PostgreSQL tells of every transaction")

FORM = Form(pickle.dumps, lambda block: True)
TABLES = [table.name for table in (BLOCK, CHAIN, VERSION, EPOCH, GRANT_WRAP, LEDGER)]
Rows = dict[str, list[Any]]


def rows_of(raw: Any) -> Rows:
    return {
        table: raw.execute(f'SELECT * FROM "{table}"').fetchall()
        for table in (*TABLES, SHELF.name, CHARTER.name)
    }


def put_back(raw: Any, old: Rows, tables: list[str]) -> None:
    for table in tables:
        raw.execute(f'DELETE FROM "{table}"')
        raw.executemany(f'INSERT INTO "{table}" VALUES ({",".join("?" * len(old[table][0]))})', old[table])


def swapped(raw: Any, old: Rows) -> None:
    one, other = (row[1] for row in old[BLOCK.name][-2:])
    for table in TABLES:
        for before, after in ((one, b"-"), (other, one), (b"-", other)):
            raw.execute(f'UPDATE "{table}" SET storage = ? WHERE storage = ?', (after, before))


def contents_swapped(raw: Any, old: Rows) -> None:
    (one, other), sealed = (row[1] for row in old[BLOCK.name][-2:]), "SELECT wrap, sealed FROM version"
    found = [raw.execute(f"{sealed} WHERE storage = ?", (storage,)).fetchone() for storage in (one, other)]
    for storage, cells in zip((other, one), found, strict=True):
        raw.execute("UPDATE version SET wrap = ?, sealed = ? WHERE storage = ?", (*cells, storage))


EDITS: dict[str, Callable[[Any, Rows], object]] = {
    "two blocks are swapped": swapped,
    "the contents of two blocks are swapped": contents_swapped,
    "blocks are what they were": lambda raw, old: put_back(raw, old, TABLES),
    "shelves are what they were": lambda raw, old: put_back(raw, old, [SHELF.name]),
    "all is what it was": lambda raw, old: put_back(raw, old, [*TABLES, SHELF.name]),
    "the newest version alone is gone": lambda raw, old: put_back(raw, old, [VERSION.name]),
    "blocks lie at other places": lambda raw, old: raw.execute("UPDATE shelf SET position = -position"),
    "the charter is as it was": lambda raw, old: raw.execute(
        "DELETE FROM charter WHERE serial = (SELECT max(serial) FROM charter)"
    ),
    "a grant is gone": lambda raw, old: raw.execute("DELETE FROM grant_wrap WHERE grant_no > 0"),
    "blocks are gone": lambda raw, old: raw.execute("DELETE FROM block"),
}


def seen(vaults: list[Vault], blocks: list[str]) -> list[object]:
    found: list[object] = []
    for vault in vaults:
        for block in (None, *blocks):
            try:
                shown = vault.blocks_as(FORM) if block is None else [vault.block_as(block, FORM).content]
                found.append([pickle.loads(content) for content in shown])
            except TallystoneError as error:
                found.append((type(error), error.code))
    return found


@pytest.mark.parametrize("hides", [False, True], ids=["at once", "behind a commit"])
def test_what_is_shown_after_an_edit_is_what_a_new_process_shows(
    tmp_path: Path, workspace: Workspace, alice: Vault, bob: Vault, hides: bool
) -> None:
    store, now, data = workspace.store, [0.0], tmp_path / "data"
    assert isinstance(store, SqliteStore)
    store._rows._clock = lambda: now[0]
    store._rows.restart()
    blocks = [alice.create_block(label=label, value=label).id for label in ("oak", "ash")]
    alice.set_charter(levels=["open", "internal", "confidential", "restricted"])
    for block in blocks:
        alice.share(block, "bob", "write")
        bob.accept_offer(block)
    tokens = [alice.create_token(), bob.create_token(scope="read")]
    with closing(raw_rows.connect(data / raw_rows.DATABASE)) as raw, Workspace.open(data) as other:
        old = rows_of(raw)
        alice.edit_block(blocks[0], lambda _: {"value": "elm"})
        alice.set_charter(levels=["a", "b", "c", "d"])
        alice.share(blocks[1], "bob", "read")
        bob.block(blocks[1])
        vaults, newest = [workspace.vault(token) for token in tokens], rows_of(raw)
        for what, edit in EDITS.items():
            before = [seen(vaults, blocks) for _ in range(3)][-1]
            raw.execute("BEGIN")
            edit(raw, old)
            raw.execute("COMMIT")
            if hides:
                other.denied({"code": "x"})
            after = seen(vaults, blocks)
            now[0] += AGE + 0.1
            later = seen(vaults, blocks)
            with Workspace.open(data) as fresh:
                anew = seen([fresh.vault(token) for token in tokens], blocks)
            assert later == anew != before, what
            for one, was, new in zip(after, before, anew, strict=True):
                assert one == new or (hides and one == was), what
            raw.execute("BEGIN")
            put_back(raw, newest, list(newest))
            raw.execute("COMMIT")
            now[0] += AGE + 0.1
