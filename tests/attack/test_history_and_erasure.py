"""Against erasure, history, backups and the log: what somebody with rows, an old token or an old backup can do."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from stores import sqlite_only

from tallystone.errors import Tampered
from tallystone.vault import Vault, Workspace

DATABASE = "tallystone.db"
edits_the_file = sqlite_only(
    "the statements are slipped in beside the store, which is written for SQLite's file"
)


def inject(folder: Path, *statements: str) -> None:
    """What an SQL injection or an operator does: statements on the database, nothing of ours in between."""
    with sqlite3.connect(folder / DATABASE) as connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()


def write(vault: Vault, block: str, value: str) -> None:
    vault.edit_block(block, lambda _: {"value": value})


# -- destroying what no backup brings back ----------------------------------------------------------------------


@edits_the_file
def test_a_row_that_was_slipped_in_destroys_no_shred_key_and_is_found(
    workspace: Workspace, alice: Vault, tmp_path: Path
) -> None:
    block = alice.create_block(label="b", value="v").id
    gone = alice.create_block(label="gone", value="v").id
    inject(tmp_path / "data", "INSERT INTO shred SELECT ws, shred, 0 FROM block")
    alice.erase_block(gone)  # what has really ended goes all the same
    workspace.purge()
    assert alice.block(block).value == "v"
    assert [one.where.split()[0] for one in workspace.verify().findings] == ["shred"]


@edits_the_file
def test_a_day_that_was_slipped_in_ends_no_block_and_no_grant_and_is_found(
    workspace: Workspace, alice: Vault, bob: Vault, tmp_path: Path
) -> None:
    block = alice.create_block(label="b", value="v").id
    alice.share(block, bob.principal_id, "read")
    bob.accept_offer(block)
    inject(
        tmp_path / "data",
        "UPDATE block SET day = 1",
        "UPDATE ledger SET day = 1 WHERE grant_no = 1",
        "INSERT INTO calendar SELECT ws, 1, storage, 0, 'block' FROM block",
        "INSERT INTO calendar SELECT ws, 1, storage, 1, 'grant' FROM block",
    )
    workspace.purge()
    assert {one.where.split()[0] for one in workspace.verify().findings} == {"block", "ledger", "calendar"}
    inject(
        tmp_path / "data",
        "UPDATE block SET day = NULL",
        "UPDATE ledger SET day = NULL",
        "DELETE FROM calendar",
    )
    assert workspace.verify().findings == []
    assert alice.block(block).value == bob.block(block).value == "v"


@edits_the_file
def test_a_purge_does_nothing_under_a_head_that_the_logs_key_did_not_sign(
    workspace: Workspace, alice: Vault, tmp_path: Path
) -> None:
    alice.create_block(label="b", value="v")
    other, _ = Workspace.init(tmp_path / "other")
    other.close()
    inject(
        tmp_path / "data",
        f"ATTACH '{tmp_path / 'other' / DATABASE}' AS other",
        "INSERT INTO shred SELECT ws, shred, 0 FROM block",
        "UPDATE log_head SET checkpoint = (SELECT checkpoint FROM other.log_head)",
    )
    with pytest.raises(Tampered):
        workspace.purge()
    ((slot,),) = _rows(tmp_path / "data", "SELECT shred FROM block")
    assert workspace.shreds.get(slot) is not None


def _rows(folder: Path, query: str) -> list[tuple[bytes, ...]]:
    connection = sqlite3.connect(folder / DATABASE)
    found = connection.execute(query).fetchall()
    connection.close()
    return found


@edits_the_file
def test_erasing_ones_own_block_destroys_nobody_elses_key(
    workspace: Workspace, alice: Vault, bob: Vault, tmp_path: Path
) -> None:
    alice.create_block(label="theirs", value="v")
    ((place, slot),) = _rows(tmp_path / "data", "SELECT storage, shred FROM block")
    mine = bob.create_block(label="mine", value="v").id
    inject(tmp_path / "data", f"UPDATE block SET shred = x'{slot.hex()}'")
    with pytest.raises(Tampered):
        bob.erase_block(mine)
    with pytest.raises(Tampered):
        bob.erase_me(bob.principal_id)
    # whose day is over opens no more, but that does not say whose the key is that lies with it
    inject(tmp_path / "data", f"UPDATE block SET day = 1 WHERE storage != x'{place.hex()}'")
    bob.erase_me(bob.principal_id)
    workspace.purge()
    assert workspace.shreds.get(slot) is not None


def test_a_former_owner_who_is_erased_takes_nothing_along_that_it_handed_over(
    workspace: Workspace, alice: Vault, bob: Vault
) -> None:
    carol = workspace.vault(alice.add_user("carol").token)
    block = bob.create_block(label="handed over", value="carol's now").id
    bob.share(block, "carol", "write")
    carol.accept_offer(block)
    bob.transfer(block, "carol")
    carol.accept_transfer(block)
    receipt = bob.erase_me(bob.principal_id)
    assert receipt.blocks == 0
    assert carol.block(block).value == "carol's now"
    write(carol, block, "and goes on")
    assert [one.number for one in carol.versions(block).versions] == [2, 1]
    assert workspace.verify().findings == []
