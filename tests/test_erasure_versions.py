"""Erasure of one version: its content is in no file and in no backup that opens, and the history around it stands."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
import raw_rows
from server_fixtures import Served, fresh_server  # noqa: F401
from test_erasure import DATABASE, DAY, Clock, cells, clock, left_in, slots, waiting  # noqa: F401

from tallystone import crypto
from tallystone.cli.app import run
from tallystone.errors import Denied, Invalid, Locked, NotFound, Tampered
from tallystone.statements import Erasure, Signed
from tallystone.store.protocol import Batch, Put, Row
from tallystone.store.tables import VERSION
from tallystone.vault import Vault, Workspace
from tallystone.vault.entering import open_block
from tallystone.vault.opening import Opened
from tallystone.vault.plan import WS, Plan
from tallystone.vault.records import (
    Content,
    seal_content,
    shred_nest,
    unwrap_content_key,
    wrap_content_key,
)
from tallystone.vault.shelves import BLOCKS, find
from tallystone.vault.types import Backups, Credentials

SECRET = "The password is hunter2, " * 200


def opened(workspace: Workspace, token: str, block: str, plan: Plan) -> Opened:
    """A block as this token opens it."""
    caller = workspace.caller(token)
    return open_block(caller, plan, find(plan, caller.keys, BLOCKS, block) or pytest.fail("no block"))


def deks(workspace: Workspace, token: str, block: str) -> dict[int, bytes]:
    """The DEK of every epoch that this token reaches."""
    found: dict[int, bytes] = {}
    with workspace.store.snapshot() as snapshot:
        one = opened(workspace, token, block, Plan(snapshot))
        for epoch in range(one.keys.number, -1, -1):
            try:
                found[epoch] = one.dek(epoch)
            except NotFound:
                return found
    return found


def version_rows(folder: Path, number: int) -> list[tuple[int, bytes, bytes]]:
    """(epoch, wrap, sealed) of a version by its number, in the only block that has one."""
    connection = raw_rows.connect(folder / DATABASE)
    rows = connection.execute(
        "SELECT epoch, wrap, sealed FROM version WHERE number = ?", (number,)
    ).fetchall()
    connection.close()
    return rows


def told(workspace: Workspace, alice: Vault, bob: Credentials) -> str:
    """A block of six versions over three epochs, held by Bob and an agent. The third holds the secret."""
    block = alice.create_block(label="notes", value="one").id
    agent = alice.create_agent({"name": "helper"}, block_ids=[block])
    alice.share(block, bob.principal, "write")
    other = workspace.vault(bob.token)
    other.accept_offer(block)
    other.edit_block(block, lambda b: {"value": b.value + "\ntwo"})
    other.edit_block(block, lambda b: {"value": b.value + "\n" + SECRET})
    alice.detach(agent.id, block)  # the secret is the newest version while the keys change
    alice.edit_block(block, lambda _: {"value": "one\ntwo\nfour"})
    alice.attach(agent.id, block)
    alice.detach(agent.id, block)
    other.edit_block(block, lambda b: {"value": b.value + "\nfive"})
    alice.edit_block(block, lambda b: {"value": b.value + "\nsix"})
    return block


def test_an_erased_version_is_in_no_file_and_no_backup_with_all_tokens_and_todays_keys_opens_it(
    workspace: Workspace,
    alice: Vault,
    alice_credentials: Credentials,
    bob_credentials: Credentials,
    clock: Clock,  # noqa: F811
    tmp_path: Path,
) -> None:
    folder = tmp_path / "data"
    block = told(workspace, alice, bob_credentials)
    tokens = [alice_credentials.token, bob_credentials.token, alice.create_token(scope="read")]
    with workspace.store.snapshot() as snapshot:
        one = opened(workspace, alice_credentials.token, block, Plan(snapshot))
        storage, shred = one.row.storage, one.row.shred
        grant_keys = {0: one.held.key}
        bobs = opened(workspace, bob_credentials.token, block, Plan(snapshot))
        grant_keys[bobs.held.grant] = bobs.held.key
    (row,) = version_rows(folder, 3)
    gone = {row[1], row[2]}
    backup = tmp_path / "backup"
    raw_rows.copy(folder, backup)
    old_deks = deks(workspace, alice_credentials.token, block)
    assert len(old_deks) == 3
    assert SECRET in str(alice.version(block, 3).content)

    workspace.backups = Backups(days=30, key_days=7)
    receipt = alice.erase_version(block, 3)

    # The receipt names block, version, proof and date.
    body = Erasure.decode(Signed.decode(receipt.statement).body)
    assert (body.what, receipt.erased) == (f"{block}/versions/3",) * 2 and body.blocks[0][0] == block
    assert (receipt.blocks, receipt.horizon) == (0, clock.today + timedelta(7))
    (event,) = [one for one in alice.events(50) if one.kind == "erase"]
    assert (event.seq, event.detail["statement"]) == (receipt.leaf, receipt.statement)
    # No table, index, journal or free page has it.
    assert left_in(folder, gone) == set() and left_in(backup, gone) == gone
    assert waiting(workspace) == 0 and shred is not None and workspace.shreds.get(shred) is None
    assert workspace.verify().findings == [] and alice.inspect().findings == []
    # Everybody goes on, with all that was before and after.
    for token in tokens:
        vault = workspace.vault(token)
        assert vault.block(block).value == "one\ntwo\nfour\nfive\nsix"
        assert [vault.version(block, n).content["value"].split("\n")[-1] for n in (1, 2, 4, 5)] == [  # type: ignore[index]  # asked one by one, each has its content
            "one", "two", "four", "five",
        ]  # fmt: skip
        with pytest.raises(NotFound) as erased:
            vault.version(block, 3)
        assert erased.value.code == "erased_version" and str(clock.today) in erased.value.message
    workspace.vault(bob_credentials.token).edit_block(block, lambda b: {"value": b.value + "\nseven"})

    # The backup, with everybody's token and today's server keys, after the horizon.
    shutil.rmtree(backup / "server-keys")
    shutil.copytree(folder / "server-keys", backup / "server-keys")
    with Workspace.open(backup) as restored:
        restored.clock = lambda: clock.now + 8 * DAY
        for token in tokens:
            with pytest.raises(NotFound):
                restored.vault(token).version(block, 3)
    # No code of ours in between: every key of today on the old rows, every slot on the old wraps.
    now = {key for token in tokens for key in deks(workspace, token, block).values()}
    # Written in epoch 0, and the newest until epoch 1: whatever wrapped its key at any time leads nowhere.
    assert not now & set(old_deks.values()) and len(now) == 4
    for key in now:
        with pytest.raises(Tampered):
            unwrap_content_key(key, block, 3, row[1])
    connection = raw_rows.connect(backup / DATABASE)
    wraps = connection.execute(
        "SELECT grant_no, epoch, wrap FROM grant_wrap WHERE storage = ?", (storage,)
    ).fetchall()
    connection.close()
    tried = 0
    for grant, epoch, wrap in wraps:
        inner = crypto.unwrap(crypto.derive(grant_keys[grant], "grant/wrap", block, epoch), wrap)
        for key in slots(backup):
            tried += 1
            with pytest.raises(Tampered):
                crypto.unwrap(shred_nest(key, block, epoch), inner)
    assert tried >= 2


def test_the_receipt_is_given_again_and_the_history_says_when_it_went(
    workspace: Workspace,
    alice: Vault,
    bob_credentials: Credentials,
    clock: Clock,  # noqa: F811
) -> None:
    block = told(workspace, alice, bob_credentials)
    receipt = alice.erase_version(block, 3)
    again = alice.erase_version(block, 3)
    assert (again.statement, again.leaf, again.erased) == (receipt.statement, receipt.leaf, receipt.erased)
    bob = workspace.vault(bob_credentials.token)
    for vault in (alice, bob):
        listed = {one.number: one for one in vault.versions(block).versions}
        assert sorted(listed) == [1, 2, 3, 4, 5, 6]
        assert (listed[3].erased, listed[3].size, listed[3].fields) == (clock.today, 0, None)
        assert listed[3].writer == bob_credentials.principal and listed[4].fields is None
        assert listed[5].fields == ["value"] and listed[5].erased is None
        with pytest.raises(NotFound):
            vault.diff(block, 2, 3)
        assert vault.diff(block, 2, 4).lines[-1] == "+four"
        with pytest.raises(NotFound) as erased:
            vault.restore(block, 3)
        assert erased.value.code == "erased_version"
    # More of them, one after the other, the first included.
    for number in (1, 4):
        alice.erase_version(block, number)
    assert [one.number for one in bob.versions(block).versions if one.erased] == [4, 3, 1]
    assert bob.restore(block, 2).value == "one\ntwo"
    assert alice.inspect().findings == [] and workspace.verify().findings == []


def test_only_an_earlier_version_of_ones_own_open_block_is_erased(
    workspace: Workspace, alice: Vault, bob_credentials: Credentials
) -> None:
    block = told(workspace, alice, bob_credentials)
    bob = workspace.vault(bob_credentials.token)
    with pytest.raises(Invalid) as current:
        alice.erase_version(block, 6)
    assert current.value.code == "current_version" and "newer" in str(current.value.hint)
    for number in (7, 2**40):
        with pytest.raises(NotFound):
            alice.erase_version(block, number)
    with pytest.raises(Denied):
        bob.erase_version(block, 2)
    with pytest.raises(Denied):
        workspace.vault(alice.create_token(scope="read")).erase_version(block, 2)
    with pytest.raises(NotFound):
        alice.erase_version("block-00000000-0000-4000-8000-000000000000", 1)
    grows = alice.create_block(label="log", value="a", append_only=True).id
    alice.edit_block(grows, lambda b: {"value": b.value + "b"})
    with pytest.raises(Invalid) as appended:
        alice.erase_version(grows, 1)
    assert appended.value.code == "append_only"
    alice.edit_block(block, lambda _: {"locked": True})
    with pytest.raises(Locked):
        alice.erase_version(block, 2)
    assert not any(one.erased for one in bob.versions(block).versions)


def test_blame_says_nothing_of_lines_that_may_have_come_with_an_erased_version(
    alice: Vault, bob: Vault
) -> None:
    block = alice.create_block(label="l", value="first").id
    for line in ("second", "third", "fourth", "fifth"):
        alice.edit_block(block, lambda b, line=line: {"value": b.value + "\n" + line})  # type: ignore[misc]  # bound as a default
    alice.erase_version(block, 3)
    found = alice.blame(block)
    assert [line.version for line in found.lines] == [1, 2, None, None, 5] and found.older == "erased"
    alice.erase_version(block, 1)
    assert [line.version for line in alice.blame(block).lines] == [None, None, None, None, 5]


def test_an_undo_says_what_an_erased_version_keeps_out_of_reach(
    workspace: Workspace, alice: Vault, bob_credentials: Credentials
) -> None:
    block = told(workspace, alice, bob_credentials)  # Bob wrote 2, 3 and 5
    alice.erase_version(block, 3)
    (done,) = alice.undo(bob_credentials.principal, 1, block, dry_run=True)
    assert [(one.reason, one.versions) for one in done.conflicts if one.reason == "out_of_reach"] == [
        ("out_of_reach", [3])
    ]
    assert done.versions == [2, 5]
    alice.undo(bob_credentials.principal, 1, block)
    assert alice.block(block).value == "one\nfour\nsix"
    bob = workspace.vault(bob_credentials.token)
    bob.edit_block(block, lambda b: {"value": b.value + "\neight"})  # on top of 7, which goes
    alice.erase_version(block, 7)
    (done,) = alice.undo(bob_credentials.principal, 8, block)
    assert [(one.reason, one.versions) for one in done.conflicts] == [("out_of_reach", [8])]
    assert done.version is None and alice.block(block).value.endswith("\neight")


def test_who_joins_without_history_opens_no_more_than_before(
    workspace: Workspace, alice: Vault, bob_credentials: Credentials
) -> None:
    block = alice.create_block(label="l", value="old").id
    for value in ("older secret", "newer"):
        alice.edit_block(block, lambda _, value=value: {"value": value})  # type: ignore[misc]  # bound as a default
    alice.share(block, bob_credentials.principal, "write", history=False)
    bob = workspace.vault(bob_credentials.token)
    bob.accept_offer(block)
    alice.erase_version(block, 2)
    assert bob.block(block).value == "newer"
    page = bob.versions(block)
    assert ([one.number for one in page.versions], page.older) == ([3], "closed")
    bob.edit_block(block, lambda _: {"value": "newest"})
    assert alice.version(block, 1).content["value"] == "old"  # type: ignore[index]  # asked alone it has its content


def test_the_hash_that_stays_confirms_no_guess(workspace: Workspace, alice: Vault) -> None:
    """Without 16 random bytes whoever reads the block could try all short secrets against the statement."""
    from tallystone.vault.records import open_payload
    from tallystone.vault.writing import encode_payload

    block = alice.create_block(label="l", value="1234").id
    with workspace.store.snapshot() as snapshot:
        one = open_block(
            alice._caller,
            Plan(snapshot),
            find(Plan(snapshot), alice._caller.keys, BLOCKS, block) or pytest.fail(),
        )
        content, version = one.stored(1)
    payload = open_payload("block", content.payload)
    assert payload["value"] == "1234" and len(payload.pop("salt")) == 16
    assert crypto.sha256(encode_payload(payload)) != version.payload == crypto.sha256(content.payload)


def test_a_writer_who_holds_the_keys_cannot_make_a_version_look_erased(
    workspace: Workspace, alice: Vault, bob_credentials: Credentials
) -> None:
    """Rows edited by somebody with Bob's keys: a word of his own, the owner's word about another version, and one that
    goes back to a policy from before the version: whoever owned the block then need not own it any more."""
    block = told(workspace, alice, bob_credentials)
    bob = workspace.vault(bob_credentials.token)
    honest = alice.erase_version(block, 2)

    def blank(word: bytes, number: int) -> Row:
        with workspace.store.snapshot() as snapshot:
            one = opened(workspace, bob_credentials.token, block, Plan(snapshot))
            row = snapshot.get(VERSION, (WS, one.row.storage, number)) or pytest.fail("no version")
            content = blanked.get(number) or one.stored(number)[0]
            blanked[number] = content
            key = crypto.random_bytes()
            sealed = seal_content(
                key,
                block,
                number,
                Content(content.signed, b"", content.leaf, content.proof, content.via, word),
            )
            wrap = wrap_content_key(one.dek(row[3]), block, number, key)
            workspace.store.commit(Batch([], [Put(VERSION, (*row[:4], wrap, sealed))], []))
            return row

    blanked: dict[int, Content] = {}
    about = Erasure.decode(Signed.decode(honest.statement).body)

    def word_of(vault: Vault, number: int) -> bytes:
        caller = vault._caller
        with workspace.store.snapshot() as snapshot:
            body = Erasure(
                what=f"{block}/versions/{number}", blocks=[[*about.blocks[0][:2], number, about.blocks[0][3]]],
                events=0, holders=0, horizon=None, issuer=caller.id,
                issuer_record=caller.identity(Plan(snapshot), caller.id).digest, time=about.time,
            )  # fmt: skip
            return caller.sign(Plan(snapshot), "erasure", body.encode()).encode()

    late = alice.versions(block).versions[0].number + 1
    for value in ("late", "later"):
        bob.edit_block(block, lambda _, value=value: {"value": value})  # type: ignore[misc]  # the value of its turn
    row = blank(word_of(alice, late), late)
    with pytest.raises(Tampered):
        alice.versions(block)
    workspace.store.commit(Batch([], [Put(VERSION, row)], []))
    assert alice.versions(block).versions[1].number == late
    for word in (honest.statement, word_of(bob, 4), b"\x80"):
        blank(word, 4)
        for vault in (alice, bob):
            with pytest.raises(Tampered):
                vault.versions(block)


def test_a_reader_in_the_middle_of_it_reads_on(
    workspace: Workspace, alice: Vault, bob_credentials: Credentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old shred key is gone before a reader that looked earlier asks for it: it looks again, and misses nothing."""
    block = told(workspace, alice, bob_credentials)
    bob = workspace.vault(bob_credentials.token)
    asked, erased = Event(), Event()
    get = workspace.shreds.get

    def late(slot: bytes, *more: Any) -> bytes | None:
        if not asked.is_set():
            asked.set()
            assert erased.wait(30)
        return get(slot, *more)

    answers: list[str] = []
    monkeypatch.setattr(workspace.shreds, "get", late)
    monkeypatch.setattr("tallystone.store._scrub.WAIT", 1)
    reader = Thread(target=lambda: answers.append(bob.block(block).value))
    reader.start()
    assert asked.wait(30)
    alice.erase_version(block, 3)
    erased.set()
    reader.join(30)
    assert answers == ["one\ntwo\nfour\nfive\nsix"]
    workspace.purge()
    assert waiting(workspace) == 0


def test_the_command_erases_a_version_here_and_behind_a_url(
    fresh_server: Served,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("TALLYSTONE_TOKEN", fresh_server.token)
    for where in (["--data", str(tmp_path / "data")], ["--url", fresh_server.url]):
        assert run(["block", "create", "l", "--value", "secret", "--json", *where]) == 0
        block = json.loads(capsys.readouterr().out)["id"]
        assert run(["erase", "version", block, "1", "--yes", *where]) == 1
        assert "newer" in capsys.readouterr().err
        assert run(["block", "edit", block, "--value", "harmless", *where]) == 0
        assert run(["erase", "version", block, "1", "--yes", *where]) == 0
        assert f"{block}/versions/1" in capsys.readouterr().out
        assert run(["history", "list", block, *where]) == 0
        assert f"erased on {datetime.now(UTC).date()}" in capsys.readouterr().out
        assert run(["history", "show", block, "1", *where]) == 1
        shown = capsys.readouterr()
        assert "was erased on" in shown.err and "secret" not in shown.out + shown.err
