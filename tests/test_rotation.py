"""Keys that are changed on demand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from force import by_force

from tallystone.errors import Conflict, Denied, NotFound, Tampered
from tallystone.store.tables import BLOCK, EPOCH, GRANT_WRAP
from tallystone.vault import Vault, Workspace
from tallystone.vault.blocks import new_block
from tallystone.vault.entering import open_block
from tallystone.vault.opening import Opened
from tallystone.vault.passages import find_block
from tallystone.vault.plan import Plan
from tallystone.vault.rotating import change_keys


def test_an_epoch_on_demand_gives_a_block_new_keys_and_takes_it_from_nobody(tmp_path: Path) -> None:
    workspace, root = Workspace.init(tmp_path / "data", "alice")
    with workspace:
        vault = workspace.vault(root.token)
        ada, bob = vault.add_user("ada").token, vault.add_user("bob").token
        block = vault.create_block(label="notes", value="before").id
        vault.share(block, "ada", "write")
        workspace.vault(ada).accept_offer(block)
        with workspace.store.snapshot() as snapshot:
            epochs = len(snapshot.scan(EPOCH, (1,)))
            before = {row[1]: row[4] for row in snapshot.scan(BLOCK, (1,))}
        assert vault.rotate(block) == 1
        seen: list[tuple[int, int]] = []
        assert vault.rotate(block, progress=lambda done, total: seen.append((done, total))) == 2
        assert seen[0] == (0, 1) and seen[-1] == (1, 1)
        with workspace.store.snapshot() as snapshot:
            assert len(snapshot.scan(EPOCH, (1,))) == epochs + 2
            after = {row[1]: row[4] for row in snapshot.scan(BLOCK, (1,))}
        assert sorted(after[storage] - before[storage] for storage in before)[-1] == 2
        assert workspace.vault(ada).block(block).value == "before"
        workspace.vault(ada).edit_block(block, lambda seen: {"value": seen.value + ", after"})
        assert vault.block(block).value == "before, after"
        with pytest.raises(Denied):
            workspace.vault(ada).rotate(block)
        with pytest.raises(NotFound):
            workspace.vault(bob).rotate(block)
        with pytest.raises(Denied, match="only read"):
            workspace.vault(vault.create_token(scope="read")).rotate(block)
        assert [event.kind for event in vault.events()].count("rotate") == 2
        assert workspace.verify().findings == [] and vault.inspect().findings == []


# -- within one operation ---------------------------------------------------------------------------------------


def test_a_plan_opens_a_block_once_and_anew_when_its_rows_have_changed(alice: Vault, bob: Vault) -> None:
    """What was opened or made a moment ago stands only for the rows that it was made from, and for who opened it."""
    block, other = alice.create_block(label="l", value="v"), alice.create_block(label="m").id
    alice.share(block.id, "bob", "write")
    bob.accept_offer(block.id)

    def act(opened: Opened, plan: Plan) -> None:
        caller, held = opened.caller, opened.held
        assert open_block(caller, plan, held) is opened
        theirs = open_block(bob._caller, plan, find_block(bob._caller, plan, block.id))
        assert theirs is not opened and theirs.payload()[0]["value"] == "v"
        assert open_block(caller, plan, find_block(caller, plan, other)) is not opened
        change_keys(opened)
        fresh = open_block(caller, plan, find_block(caller, plan, block.id))
        assert fresh is not opened and fresh.keys == opened.keys and fresh.payload()[0]["value"] == "v"
        with pytest.raises(Tampered):  # the grant's key is of another epoch than what it was opened with
            open_block(caller, plan, replace(held, key=bytes(32)))
        plan.delete(GRANT_WRAP, held.storage, held.grant)
        with pytest.raises(NotFound):
            open_block(caller, plan, held)
        made = find_block(caller, plan, new_block(caller, plan, {"label": "n", "value": "w"}).block)
        plan.put(GRANT_WRAP, made.storage, 0, 0, bytes(80))
        with pytest.raises(Tampered):
            open_block(caller, plan, made)

    with pytest.raises(Conflict):  # nothing of it is committed: it was changed meanwhile
        by_force(
            alice, block.id, lambda *both: (act(*both), bob.edit_block(block.id, lambda _: {"value": "x"}))
        )
    assert alice.block(block.id).value == "x"
