"""The log gets a new key: what the former one signed stays good, and it signs nothing after."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import raw_rows
from stores import sqlite_only

from tallystone import crypto
from tallystone.audit.checkpoint import Checkpoint, origin_of, sign_checkpoint
from tallystone.audit.logkeys import LogKeys
from tallystone.audit.receipt import verify_receipt
from tallystone.audit.restored import Restore
from tallystone.errors import Denied, StoreError, Tampered
from tallystone.statements import issue
from tallystone.store.protocol import Batch, Event
from tallystone.store.tables import LOG_HEAD
from tallystone.vault import Vault, Workspace
from tallystone.vault.backups import back_up, restore
from tallystone.vault.plan import Plan
from tallystone.vault.types import Credentials


def test_pins_states_and_receipts_from_before_a_new_log_key_stay_good(
    workspace: Workspace, alice: Vault, alice_credentials: Credentials, tmp_path: Path
) -> None:
    alice.create_block(label="a", value="v")
    before = workspace.verify(keep_state=True)
    assert before.state is not None
    old_key, receipt = workspace.log.key, workspace.log.receipt(0)
    new_key = alice.rotate_log_key()
    assert new_key != old_key and workspace.log.key == new_key
    alice.create_block(label="b", value="v")
    for since in (None, before.state.encode()):
        assert workspace.verify(pin=before.checkpoint, since=since).findings == []
    known = workspace.log.keys()
    assert [one.key for one in known] == [old_key, new_key]
    assert known[0].last is not None and known[1].first == known[0].last + 1 and known[1].last is None
    assert verify_receipt(receipt, old_key).leaf.seq == 0
    assert verify_receipt(workspace.log.receipt(0), new_key).leaf.seq == 0
    with pytest.raises(Tampered):
        verify_receipt(workspace.log.receipt(0), old_key)
    assert "log-key" in [event.kind for event in alice.events()]
    middle = workspace.verify(keep_state=True)
    assert middle.state is not None
    alice.rotate_log_key()
    assert workspace.verify(pin=before.checkpoint, since=middle.state.encode()).findings == []
    with Workspace.open(tmp_path / "data") as again:
        again.vault(alice_credentials.token).create_block(label="c")
        assert again.verify(pin=middle.checkpoint).findings == []


def test_a_process_that_was_running_goes_on_under_the_new_log_key(
    workspace: Workspace, alice: Vault, alice_credentials: Credentials, tmp_path: Path
) -> None:
    with Workspace.open(tmp_path / "data") as other:
        vault = other.vault(alice_credentials.token)
        vault.create_block(label="before")
        alice.rotate_log_key()
        vault.create_block(label="after")
        assert other.log.key == workspace.log.key
        assert other.verify().findings == [] == workspace.verify().findings


def test_a_rotation_of_the_log_key_that_was_cut_off_leaves_a_log_that_goes_on(
    workspace: Workspace,
    alice: Vault,
    alice_credentials: Credentials,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Cut(Exception):
        pass

    def cut(*_: object) -> None:
        raise Cut

    monkeypatch.setattr("tallystone.vault.logkey._promote", cut)
    with pytest.raises(Cut):
        alice.rotate_log_key()  # after its commit, before the file has its name
    monkeypatch.undo()
    monkeypatch.setattr(workspace.store, "commit", cut)
    with pytest.raises(Cut):
        alice.rotate_log_key()  # before its commit
    monkeypatch.undo()
    raw_rows.copy(tmp_path / "data", tmp_path / "crashed")
    with Workspace.open(tmp_path / "crashed") as again:
        again.vault(alice_credentials.token).create_block(label="after")
        assert again.verify().findings == []


def test_a_stolen_former_log_key_signs_no_head_that_a_later_check_accepts(
    workspace: Workspace, alice: Vault, tmp_path: Path
) -> None:
    stolen = crypto.Signer((tmp_path / "data" / "server-keys" / "log.key").read_bytes())
    alice.rotate_log_key()
    alice.create_block(label="a", value="v")
    report = workspace.verify()
    with workspace.store.snapshot() as snapshot:
        head = snapshot.get(LOG_HEAD, (1,))
    assert head is not None
    forged = sign_checkpoint(Checkpoint(origin_of(workspace.id), int(head[1]), report.root), stolen)
    found = workspace.verify(pin=forged).findings
    assert [finding.where for finding in found] == ["log_head"] and "of another time" in found[0].what
    early = sign_checkpoint(Checkpoint(origin_of(workspace.id), 1, bytes(32)), stolen)
    assert workspace.verify(pin=early).findings != []  # of its own time, but of other leaves


def test_only_the_root_names_a_key_and_its_order_is_strict(alice: Vault, bob: Vault) -> None:
    with pytest.raises(Denied):
        bob.rotate_log_key()
    keys = LogKeys(((-1, bytes(32)),)).then(5, bytes([1]) * 32)
    assert LogKeys.decode(keys.encode()) == keys
    assert (keys.at(5), keys.at(6), keys.at(0)) == (bytes(32), bytes([1]) * 32, bytes(32))
    with pytest.raises(Tampered):
        keys.then(5, bytes(32))
    for broken in (b"", bytes(33), keys.encode()[:-1], keys.encode() + keys.encode()[32:]):
        with pytest.raises(Tampered):
            LogKeys.decode(broken)


@sqlite_only("a restore puts a file in place")
def test_a_backup_is_restored_without_the_log_key_by_the_word_of_the_root(
    workspace: Workspace, alice: Vault, alice_credentials: Credentials, tmp_path: Path
) -> None:
    block = alice.create_block(label="a", value="v").id
    target, keys = tmp_path / "b.backup", tmp_path / "keys"
    back_up(tmp_path / "data", target)
    alice.edit_block(block, lambda _: {"value": "w"})
    pin = workspace.verify().checkpoint
    shutil.copytree(tmp_path / "data" / "server-keys", keys)
    (keys / "log.key").unlink()
    fresh = tmp_path / "fresh"
    shutil.copytree(keys, fresh / "server-keys") if fresh.mkdir() is None else None
    with pytest.raises(StoreError) as refused:
        restore(target, fresh, alice_credentials.token)
    assert refused.value.code == "no_log_key" and not (fresh / "tallystone.db").exists()
    done = restore(target, fresh, None, kit=alice_credentials.kit, new_log_key=True, known=[pin])
    assert done.token is not None and done.lost and done.token not in repr(done)
    with Workspace.open(fresh) as again:
        vault = again.vault(done.token)
        assert vault.block(block).value == "v"
        assert again.verify(pin=pin).findings == []
        assert len(again.log.keys()) == 2
        vault.edit_block(block, lambda _: {"value": "x"})
        assert again.verify(pin=pin).findings == []


@sqlite_only("a restore puts a file in place")
def test_a_backup_from_before_a_new_log_key_is_restored_and_excuses_what_that_key_signed(
    workspace: Workspace, alice: Vault, alice_credentials: Credentials, tmp_path: Path
) -> None:
    target = tmp_path / "b.backup"
    back_up(tmp_path / "data", target)
    alice.create_block(label="lost")
    alice.rotate_log_key()
    alice.create_block(label="lost too")
    pin = workspace.verify().checkpoint
    workspace.close()
    with pytest.raises(StoreError) as refused:
        restore(target, tmp_path / "data", alice_credentials.token, replace=True)
    assert refused.value.code == "no_log_key"
    done = restore(target, tmp_path / "data", alice_credentials.token, replace=True, new_log_key=True)
    assert done.known and done.lost
    with Workspace.open(tmp_path / "data") as again:
        report = again.verify(pin=pin)
        assert report.findings == [] and "pin" in report.given_up
        assert again.vault(alice_credentials.token).blocks() == []


def test_a_restore_statement_under_a_former_root_counts_no_more(
    workspace: Workspace, alice: Vault, tmp_path: Path
) -> None:
    caller = workspace.caller(alice.create_token(label="stolen"))
    with workspace.store.snapshot() as snapshot:
        plan = Plan(snapshot)
        seed, record = caller.signing_seed(plan), caller.identity(plan, caller.id).digest
    for renewed in (False, True):
        if renewed:
            alice.rotate_principal()
        report = workspace.verify()
        assert report.findings == []
        size = report.leaves
        statement = Restore(size, report.root, [], caller.id, record, 1)
        signed = issue("restore", workspace.id, statement.encode(), [(record, seed)])
        workspace.store.commit(Batch([], [], [Event("restore", signed.encode())]))
        found = [finding.what for finding in workspace.verify().findings]
        assert found[:1] == (
            ["a restore statement is not the word of the workspace's root"] if renewed else []
        )
