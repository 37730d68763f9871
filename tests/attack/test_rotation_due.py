"""Design §6: a block marked for rotation takes no new version under the old epoch, whatever its row says."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from tallystone.errors import Locked, Unauthenticated
from tallystone.vault import Vault, Workspace
from tallystone.vault.types import Credentials


def test_a_cleared_mark_neither_lets_old_keys_write_nor_locks_the_owner_out(
    workspace: Workspace, alice: Vault, bob_credentials: Credentials, tmp_path: Path
) -> None:
    block = alice.create_block(label="team", value="v")
    alice.share(block.id, "bob", "write")
    bob = workspace.vault(bob_credentials.token)
    bob.accept_offer(block.id)
    agent = bob.create_agent({"name": "a"}, block_ids=[block.id])
    bob.detach(agent.id, block.id)
    with sqlite3.connect(tmp_path / "data" / "tallystone.db") as connection:
        connection.execute("UPDATE block SET flags = 0")
    connection.close()
    with pytest.raises(Locked):
        bob.edit_block(block.id, lambda _: {"value": "under the old keys"})
    assert any("block" in finding.where for finding in workspace.verify().findings)
    assert alice.edit_block(block.id, lambda _: {"value": "under new keys"}).value == "under new keys"
    assert bob.edit_block(block.id, lambda _: {"value": "bob again"}).value == "bob again"


def test_an_answer_is_kept_for_the_operation_it_belongs_to_only(
    workspace: Workspace, alice: Vault, alice_credentials: Credentials
) -> None:
    assert alice.once(b"k" * 32, 0, lambda block: block.id.encode()) is None
    with pytest.raises(Exception, match="not found"):
        alice.delete_block("block-00000000-0000-4000-8000-000000000000")
    alice.create_block(label="unrelated")
    assert workspace.vault(alice_credentials.token).once(b"k" * 32, 1, lambda _: b"") is None


def test_a_refused_token_is_logged_by_the_embedded_library_too(
    workspace: Workspace, alice: Vault, tmp_path: Path
) -> None:
    import tallystone

    token = alice.create_token()
    alice.revoke_token(token[6:22])
    before = workspace.verify().leaves
    with pytest.raises(Unauthenticated):
        tallystone.open(tmp_path / "data", token=token)
    assert workspace.verify().leaves > before
    assert alice.events(1)[-1].kind == "denied"
