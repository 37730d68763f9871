"""The users' names: what a request costs does not grow with them, and the index by name tells nobody who was erased."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import raw_rows

from tallystone import crypto
from tallystone.errors import NotFound, Taken, TallystoneError
from tallystone.store.protocol import Batch, Delete, Put, Row
from tallystone.store.tables import ENTRY
from tallystone.vault import Vault, Workspace
from tallystone.vault.directory import _Index, _slot, house_of
from tallystone.vault.plan import WS, Plan
from tallystone.vault.types import Credentials

STREAM = "b996ad08b6518d6641628145be270286b6cd98437297963f3cddb78ad38d49bc"
ADDRESS = 538_105_054_541_934_169
SEALED = (
    "97cf4ee6a15ac6ebcae00b42b928188ee9c15f69a8b24b4b8325e3d31c0e05b73ec78cebac66dbb1388d80ed7396be30"
    "63658c68e1c328cd8b6e0a2ceb49fa12dc7cff6e7ee4208fbb9b92e8cdb7"
)
MARK = (
    "5e47218a207c8fbcf39912ef3ef5a0bd139bc05a811f95e09c8d04520ee82172ffce7d74e165a64e8bc0892929fecf8f"
    "d20a4fe7a73de255546c5f72def8949c739da17bcf9314c613675a8a6aa013854ec284a21e0b377438a0"
)
"""A stream, an address and two rows as they were first written; they stay."""


def index_rows(workspace: Workspace, alice: Vault) -> list[Row]:
    """The rows of the index."""
    with workspace.store.snapshot() as snapshot:
        house = house_of(alice._caller, Plan(snapshot)) or pytest.fail("no directory")
        stream = crypto.derive(house.key, "directory/stream")
        return snapshot.scan(ENTRY, (WS, stream))


def opened_by(monkeypatch: pytest.MonkeyPatch, action: Callable[[], object]) -> int:
    """How many sealed cells an action opens."""
    opened: list[bytes] = []
    before = crypto.open_sealed

    def counting(key: bytes, context: bytes, sealed: bytes) -> bytes:
        opened.append(context)
        return before(key, context, sealed)

    with monkeypatch.context() as patch:
        patch.setattr(crypto, "open_sealed", counting)
        action()
    return len(opened)


def test_what_sharing_opens_does_not_grow_with_the_users(
    alice: Vault, bob: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measured() -> list[int]:
        block = alice.create_block(label="x").id
        return [
            opened_by(monkeypatch, action)
            for action in (
                lambda: alice.share(block, "bob", "read"),
                lambda: alice.grants(block),
                lambda: alice.reach(block),
                lambda: alice.revoke(block, "bob"),
                lambda: alice.share(block, bob.principal_id, "read"),
                lambda: alice.revoke(block, bob.principal_id),
            )
        ]

    few = measured()
    for number in range(12):
        alice.add_user(f"user {number}")
    assert measured() == few


def test_a_workspace_without_an_index_finds_its_users_and_gets_one_with_the_next(
    workspace: Workspace, alice: Vault, bob: Vault
) -> None:
    workspace.store.commit(Batch([], [Delete(ENTRY, row[:3]) for row in index_rows(workspace, alice)], []))
    assert index_rows(workspace, alice) == []
    block = alice.create_block(label="x").id
    assert alice.share(block, "bob", "read").recipient == bob.principal_id
    with pytest.raises(Taken):
        alice.add_user("bob")
    alice.add_user("carol")
    assert len(index_rows(workspace, alice)) == 4  # alice, bob, carol, and which shred key
    alice.revoke(block, "bob")
    with pytest.raises(NotFound):
        alice.share(block, "nobody", "read")


def test_a_users_erasure_leaves_no_address_by_which_a_backup_confirms_the_name(
    workspace: Workspace, alice: Vault, bob_credentials: Credentials, tmp_path: Path
) -> None:
    folder, backup = tmp_path / "data", tmp_path / "backup"
    alice.add_user("carol")
    before = index_rows(workspace, alice)
    raw_rows.copy(folder, backup)
    with workspace.store.snapshot() as snapshot:
        plan = Plan(snapshot)
        key = (house_of(alice._caller, plan) or pytest.fail("no directory")).key
        slot = _slot(plan, key) or pytest.fail("no index")
        shred = workspace.shreds.get(slot) or pytest.fail("no shred key")
        assert _Index(plan, key, slot, shred).find("bob") == bob_credentials.principal
    workspace.vault(bob_credentials.token).erase_me(bob_credentials.principal)
    assert workspace.shreds.get(slot) is None
    left = index_rows(workspace, alice)
    assert len(left) == len(before) - 1
    assert {row[2] for row in left if row[2]} & {row[2] for row in before} == set()
    assert workspace.verify().findings == []
    # The name is free, and the others are found under the new key.
    again = alice.add_user("bob")
    block = alice.create_block(label="x").id
    assert alice.share(block, "bob", "read").recipient == again.principal
    assert alice.share(block, "carol", "read").name == "carol"
    # With the keys of today a restored backup has the others' names all the same, and not that one.
    shutil.rmtree(backup / "server-keys")
    shutil.copytree(folder / "server-keys", backup / "server-keys")
    with Workspace.open(backup) as restored:
        root = restored.vault(alice._caller.token.text)  # type: ignore[union-attr]  # a vault by token has one
        assert {user.name for user in root.users()} == {"alice", "carol"}
        assert root.share(root.create_block(label="x").id, "carol", "read").name == "carol"


def test_an_operator_who_moves_rows_of_the_index_leads_no_share_to_somebody_else(
    workspace: Workspace, alice: Vault, bob: Vault
) -> None:
    carol = alice.add_user("carol").principal
    addresses = {_address(workspace, alice, name) for name in ("bob", "carol")}
    one, two = [row for row in index_rows(workspace, alice) if row[2] in addresses]
    swapped = [Put(ENTRY, (*one[:3], two[3])), Put(ENTRY, (*two[:3], one[3]))]
    workspace.store.commit(Batch([], swapped, []))
    block = alice.create_block(label="x").id
    for name in ("bob", "carol"):
        with pytest.raises(TallystoneError):
            alice.share(block, name, "read")
    assert alice.share(block, carol, "read").name == "carol"  # by id nothing is looked up


def _address(workspace: Workspace, alice: Vault, name: str) -> int:
    with workspace.store.snapshot() as snapshot:
        plan = Plan(snapshot)
        key = (house_of(alice._caller, plan) or pytest.fail("no directory")).key
        slot = _slot(plan, key) or pytest.fail("no index")
        return _Index(plan, key, slot, workspace.shreds.get(slot) or b"")._address(name)


def test_the_rows_of_the_index_are_where_they_were_and_open(workspace: Workspace) -> None:
    key, shred = bytes(range(32)), bytes(range(32, 64))
    with workspace.store.snapshot() as snapshot:
        plan = Plan(snapshot)
        index = _Index(plan, key, bytes(18), shred)
        assert index._stream.hex() == STREAM
        assert index._address("bob") == ADDRESS
        plan.put(ENTRY, index._stream, ADDRESS, bytes.fromhex(SEALED))
        plan.put(ENTRY, index._stream, 0, bytes.fromhex(MARK))
        assert index.find("bob") == "user-1"
        assert _slot(plan, key) == bytes(18)
