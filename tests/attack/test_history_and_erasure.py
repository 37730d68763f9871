"""Against erasure, history, backups and the log: what somebody with rows, an old token or an old backup can do."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime
from pathlib import Path

import pytest
from stores import sqlite_only

from tallystone.errors import Denied, Locked, NotFound, Tampered
from tallystone.vault import Vault, Workspace
from tallystone.vault.types import Credentials

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
    workspace: Workspace, alice: Vault, bob: Vault, bob_credentials: Credentials, tmp_path: Path
) -> None:
    alice.create_block(label="theirs", value="v")
    ((place, slot),) = _rows(tmp_path / "data", "SELECT storage, shred FROM block")
    mine = bob.create_block(label="mine", value="v").id
    inject(tmp_path / "data", f"UPDATE block SET shred = x'{slot.hex()}'")
    with Workspace.open(tmp_path / "data") as opened:  # which has kept no row from before
        bob = opened.vault(bob_credentials.token)
        with pytest.raises(Tampered):
            bob.erase_block(mine)
        with pytest.raises(Tampered):
            bob.erase_me(bob.principal_id)
    # whose day is over opens no more, but that does not say whose the key is that lies with it
    inject(tmp_path / "data", f"UPDATE block SET day = 1 WHERE storage != x'{place.hex()}'")
    with Workspace.open(tmp_path / "data") as opened:
        bob = opened.vault(bob_credentials.token)
        assert bob.erase_me(bob.principal_id).blocks == 1
        opened.purge()
        assert opened.shreds.get(slot) is not None


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


# -- erasure beside a new root ----------------------------------------------------------------------------------


def test_an_erasure_is_known_again_after_its_owner_was_given_a_new_root(bob: Vault) -> None:
    block = bob.create_block(label="b", value="1").id
    for value in ("2", "3"):
        write(bob, block, value)
    version, whole = bob.erase_version(block, 2), bob.erase_block(block)
    bob.rotate_principal()
    again = bob.erase_block(block)
    assert (again.statement, again.leaf) == (whole.statement, whole.leaf)
    with pytest.raises(NotFound):
        bob.erase_version(block, 2)  # it went with the block
    assert version.erased == f"{block}/versions/2"


def test_an_erased_user_takes_along_what_it_did_under_its_former_roots(
    workspace: Workspace, alice: Vault
) -> None:
    told = []
    for name, renewed in (("carol", False), ("dave", True)):
        user = workspace.vault(alice.add_user(name).token)
        block = user.create_block(label="b", value="1").id
        for value in ("2", "3"):
            write(user, block, value)
        if renewed:
            user.rotate_principal()
        told.append(user.erase_me(user.principal_id).events)
    assert told[0] == 3 and told[1] >= 3
    assert workspace.verify().findings == []


# -- history ----------------------------------------------------------------------------------------------------


def test_a_writer_without_history_does_not_close_the_past_for_others(
    workspace: Workspace, alice: Vault, bob: Vault
) -> None:
    carol = workspace.vault(alice.add_user("carol").token)
    block = alice.create_block(label="b", value="1").id
    write(alice, block, "2")
    alice.share(block, "bob", "write", history=False)
    alice.share(block, "carol", "read")
    bob.accept_offer(block)
    carol.accept_offer(block)
    write(bob, block, "3")
    carol.erase_me(carol.principal_id)  # so the keys must change before the next version
    with pytest.raises(Locked) as caught:
        write(bob, block, "poison")
    assert caught.value.code == "rotation_pending"
    alice.block(block)  # whose look changes the keys
    assert [one.number for one in alice.versions(block).versions] == [3, 2, 1]
    write(bob, block, "poison")
    alice.undo(bob.principal_id, 4, block)
    assert alice.block(block).value == "3"
    assert alice.version(block, 1).content == {**alice.version(block, 2).content, "value": "1"}  # type: ignore[dict-item]  # both have one
    with pytest.raises(NotFound):
        bob.version(block, 2)


def test_a_sharer_without_history_ends_a_grant_and_leaves_the_keys_to_others(
    workspace: Workspace, alice: Vault, bob: Vault
) -> None:
    block = alice.create_block(label="b", value="1").id
    write(alice, block, "2")
    alice.share(block, "bob", "write+share", history=False)
    bob.accept_offer(block)
    with pytest.raises(Denied):  # which would need new keys
        bob.share(block, alice.add_user("carol").principal, "read", history=False)
    agent = bob.create_agent({"name": "a"}, block_ids=[block]).id
    bob.detach(agent, block)
    with pytest.raises(Locked):
        write(bob, block, "nobody writes under keys that the agent knows")
    write(alice, block, "3")
    write(bob, block, "4")
    assert [one.number for one in alice.versions(block).versions] == [4, 3, 2, 1]
    assert workspace.verify().findings == []


def test_an_undo_tells_nobody_whether_an_agent_of_somebody_else_exists(
    workspace: Workspace, alice: Vault, bob: Vault
) -> None:
    stranger = alice.create_agent({"name": "secret"}).id
    mine = bob.create_block(label="b", value="v").id
    told = []
    for who in (stranger, "agent-00000000-0000-4000-8000-000000000000"):
        for block in (None, mine):
            with pytest.raises(NotFound) as caught:
                bob.undo(who, 1 if block else datetime.now(UTC), block)
            told.append(str(caught.value).replace(who, ""))
    assert len(set(told)) == 1
    bob.share(mine, "alice", "write")
    alice.accept_offer(mine)
    alice.attach(stranger, mine)
    alice.edit_agent_block(stranger, "b", lambda _: {"value": "written"}, as_agent=True)
    assert bob.undo(stranger, 1, mine)[0].versions == [2]  # whom it knows by what it wrote
    assert bob.undo(stranger, 1, mine)[0].versions == []  # asked again it does nothing more
