"""Keys that are changed on demand."""

from __future__ import annotations

from pathlib import Path

import pytest

from tallystone.errors import Denied, NotFound
from tallystone.store.tables import BLOCK, EPOCH
from tallystone.vault import Workspace


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
