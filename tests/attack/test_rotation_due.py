"""Design §6: a block marked for rotation takes no new version under the old epoch, whatever its row says."""

from __future__ import annotations

from pathlib import Path

import pytest

from attack.lying import caller_of, forge_version, held_by
from attack.scene import DATABASE, raw, rows
from tallystone.errors import Tampered, Unauthenticated
from tallystone.vault import Vault, Workspace
from tallystone.vault.entering import open_block
from tallystone.vault.plan import Plan
from tallystone.vault.types import Credentials


def _clear(database: Path) -> None:
    with raw(database) as connection:
        connection.execute("UPDATE block SET flags = 0")


def _epochs(database: Path) -> list[int]:
    return [row[0] for row in rows(database, "SELECT epoch FROM block")]


def test_a_cleared_mark_lets_nobody_write_under_the_old_keys(
    workspace: Workspace, alice: Vault, bob_credentials: Credentials, tmp_path: Path
) -> None:
    """The mark lies in clear for whoever purges without keys. What counts is signed: the statement says that keys are
    due, so whoever writes next changes them all the same."""
    database = tmp_path / "data" / DATABASE
    block = alice.create_block(label="team", value="v")
    alice.share(block.id, "bob", "write")
    bob = workspace.vault(bob_credentials.token)
    bob.accept_offer(block.id)
    agent = bob.create_agent({"name": "a"}, block_ids=[block.id])
    bob.detach(agent.id, block.id)
    before = _epochs(database)
    _clear(database)
    assert any("block" in finding.where for finding in workspace.verify().findings)
    assert bob.edit_block(block.id, lambda _: {"value": "under new keys"}).value == "under new keys"
    assert sum(_epochs(database)) == sum(before) + 1
    assert alice.edit_block(block.id, lambda _: {"value": "alice"}).value == "alice"
    assert bob.edit_block(block.id, lambda _: {"value": "bob again"}).value == "bob again"


def test_a_version_that_is_written_past_the_change_of_keys_counts_for_nobody(
    workspace: Workspace, alice: Vault, bob_credentials: Credentials, tmp_path: Path
) -> None:
    database = tmp_path / "data" / DATABASE
    block = alice.create_block(label="team", value="v")
    alice.share(block.id, "bob", "write")
    bob = workspace.vault(bob_credentials.token)
    bob.accept_offer(block.id)
    agent = bob.create_agent({"name": "a"}, block_ids=[block.id])
    bob.detach(agent.id, block.id)
    _clear(database)
    mallory = caller_of(bob)
    held = held_by(workspace, mallory.keys, block.id)
    with workspace.store.snapshot() as snapshot:
        proof = open_block(mallory, Plan(snapshot), held).standing().proof
    forge_version(database, workspace, mallory, held, proof=proof)
    for vault in (alice, bob):
        with pytest.raises(Tampered, match="before the keys were changed"):
            vault.block(block.id)
    assert {finding.where.split()[0] for finding in workspace.verify().findings} >= {"block", "version"}


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
