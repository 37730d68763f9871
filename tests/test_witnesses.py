"""Witnesses: what they cosign is kept and served, and one that refuses, lies or hangs costs nobody anything."""

from __future__ import annotations

import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import c2sp_verifier
import httpx
import pytest
from c2sp_verifier import Key
from scripted_witness import NAME, Witness, serving
from server_fixtures import AUTHORITIES
from stores import sqlite_only

from tallystone.audit.receipt import verify_receipt
from tallystone.errors import Invalid, NotFound
from tallystone.server import witnessing
from tallystone.server.run import running
from tallystone.server.settings import Settings, load
from tallystone.server.witnessing import Asker, configured
from tallystone.server.witnessing import Witness as Configured
from tallystone.vault import Workspace
from tallystone.vault.cosigning import REFRESH


@pytest.fixture
def witness() -> Iterator[Witness]:
    with serving(Witness()) as made:
        yield made


@pytest.fixture
def workspace(tmp_path: Path, witness: Witness) -> Iterator[Workspace]:
    made, _ = Workspace.init(tmp_path / "data")
    with made:
        witness.log = Key.parse(made.log.key)
        yield made


def asker(workspace: Workspace, witness: Witness) -> Asker:
    return Asker(workspace, Configured(witness.url, witness.vkey), lambda: witness.now)


def grow(workspace: Workspace, by: int = 1) -> None:
    for _ in range(by):
        workspace.denied({"code": "test"})


def status(workspace: Workspace) -> tuple[int, str]:
    (info,) = workspace.log.witnesses()
    assert info.name == NAME
    return info.size, info.problem


def test_each_newest_checkpoint_is_cosigned_and_the_cosignature_verifies(
    workspace: Workspace, witness: Witness
) -> None:
    asking = asker(workspace, witness)
    for _ in range(5):
        grow(workspace, 3)
        assert asking.ask()
        assert witness.head is not None
        assert witness.head.size == c2sp_verifier.checkpoint(workspace.log.checkpoint(), witness.log).size  # type: ignore[arg-type]
        for note in (workspace.log.checkpoint(), workspace.log.checkpoint(cosigned=True)):
            c2sp_verifier.open_note(note, witness.key)
    assert status(workspace) == (witness.head.size, "")
    assert workspace.verify().ok
    asked = len(witness.bodies)
    assert asking.ask()
    assert len(witness.bodies) == asked  # nothing new: nobody is asked


def test_an_unchanged_checkpoint_is_cosigned_again_after_a_while(
    workspace: Workspace, witness: Witness
) -> None:
    asking = asker(workspace, witness)
    assert asking.ask()
    witness.now += REFRESH
    assert asking.ask()
    (info,) = workspace.log.witnesses()
    assert info.time == witness.now


def test_a_receipt_carries_the_cosignature_and_verifies_elsewhere(
    workspace: Workspace, witness: Witness
) -> None:
    grow(workspace, 40)
    assert asker(workspace, witness).ask()
    grow(workspace, 7)
    log = Key.parse(workspace.log.key)
    assert c2sp_verifier.check_proof(workspace.log.receipt(11), log, [witness.key])[0] == 11
    with pytest.raises(c2sp_verifier.Bad, match="not signed by"):  # newer than what was cosigned
        c2sp_verifier.check_proof(workspace.log.receipt(46), log, [witness.key])


def test_two_witnesses_of_one_checkpoint_stand_under_one_receipt(
    workspace: Workspace, witness: Witness
) -> None:
    grow(workspace, 3)
    with serving(Witness(bytes(32), "witness.example/w2")) as second:
        second.log = witness.log
        for one in (witness, second):
            assert asker(workspace, one).ask()
    both = [witness.vkey, second.vkey]
    proven = verify_receipt(workspace.log.receipt(2), workspace.log.key, both, now=witness.now)
    assert proven.seen == {NAME: witness.now, "witness.example/w2": second.now}
    c2sp_verifier.check_proof(
        workspace.log.receipt(2), Key.parse(workspace.log.key), [witness.key, second.key]
    )
    assert [info.name for info in workspace.log.witnesses()] == [NAME, "witness.example/w2"]


LIES = {
    "another text": "is wrong",
    "another key": "not cosigned by",
    "another witness": "not cosigned by",
    "the future": "from the future",
    "nothing": "",
    "noise": "",
    "too much": "more than",
    "403": "give it the one",
    "404": "does not know this log",
    "422": "does not accept",
    "500": "answered 500",
    "307": "answered 307",
    "hang up": "does not answer",
    "409 x": "without the size",
    "409 999": "rolled back",
    "409 0": "another log under this name",
}


@pytest.mark.parametrize("how", LIES)
def test_a_witness_that_refuses_or_lies_changes_nothing_and_is_shown(
    workspace: Workspace, witness: Witness, how: str
) -> None:
    asking = asker(workspace, witness)
    witness.script = [how]
    assert not asking.ask()
    size, problem = status(workspace)
    assert size == 0
    assert LIES[how] in problem
    assert problem
    with pytest.raises(NotFound):
        workspace.log.checkpoint(cosigned=True)
    assert asking.ask()  # and when it behaves again, all is well
    assert status(workspace)[1] == ""
    before = workspace.log.checkpoint(cosigned=True)
    grow(workspace)
    witness.script = [how]
    assert not asking.ask() or how == "409 0"
    assert how == "409 0" or workspace.log.checkpoint(cosigned=True) == before


@pytest.mark.parametrize("how", ["hang", "drip"])
def test_a_witness_that_hangs_is_cut_off(
    workspace: Workspace, witness: Witness, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(witnessing, "SECONDS", 0.3)
    witness.script = [how]
    assert not asker(workspace, witness).ask()
    assert status(workspace) == (0, "does not answer in time")


def test_a_witness_whose_name_is_found_late_is_not_heard_any_more(
    workspace: Workspace, witness: Witness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cut comes when there is no socket yet: what drips afterwards would be read to its end."""
    connect, late = socket.create_connection, threading.Event()

    def slowly(*args: Any, **options: Any) -> socket.socket:
        late.wait(0.4)
        return connect(*args, **options)

    monkeypatch.setattr(witnessing, "SECONDS", 0.2)
    monkeypatch.setattr(socket, "create_connection", slowly)
    witness.script = ["drip"]
    assert not asker(workspace, witness).ask()
    assert status(workspace) == (0, "does not answer in time")
    assert witness.bodies == []


def test_a_witness_that_is_not_there_is_shown(workspace: Workspace, witness: Witness) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        nowhere = Configured(f"http://127.0.0.1:{taken.getsockname()[1]}", witness.vkey)
        assert not Asker(workspace, nowhere).ask()
    assert "does not answer" in status(workspace)[1]


def test_what_a_witness_knows_is_asked_for_when_our_own_file_is_lost(
    workspace: Workspace, witness: Witness, tmp_path: Path
) -> None:
    asking = asker(workspace, witness)
    grow(workspace, 5)
    assert asking.ask()
    shutil.rmtree(tmp_path / "data" / "cosigned")
    grow(workspace, 5)
    assert asking.ask()
    assert witness.head is not None
    assert status(workspace) == (witness.head.size, "")


@pytest.mark.parametrize("content", [b"", b"noise", b"\xff" * 70_000])
def test_a_damaged_file_is_found_by_the_check_and_mended_by_the_witness(
    workspace: Workspace, witness: Witness, tmp_path: Path, content: bytes
) -> None:
    asking = asker(workspace, witness)
    assert asking.ask()
    (file,) = (tmp_path / "data" / "cosigned").iterdir()
    file.write_bytes(content)
    assert not workspace.verify().ok
    workspace.log.checkpoint()
    workspace.log.receipt(0)
    assert workspace.log.witnesses()
    assert asking.ask()
    assert workspace.verify().ok


@sqlite_only("the file is put back")
def test_a_log_that_was_rolled_back_is_found_by_what_was_cosigned(tmp_path: Path, witness: Witness) -> None:
    """The database alone is put back to an older state of itself, which is whole: only the cosignature tells."""
    workspace, _ = Workspace.init(tmp_path / "data")
    with workspace:
        witness.log = Key.parse(workspace.log.key)
        grow(workspace, 3)
    shutil.copyfile(tmp_path / "data" / "tallystone.db", tmp_path / "older.db")
    with Workspace.open(tmp_path / "data") as workspace:
        grow(workspace, 20)
        assert asker(workspace, witness).ask()
    shutil.copyfile(tmp_path / "older.db", tmp_path / "data" / "tallystone.db")
    with Workspace.open(tmp_path / "data") as workspace:
        report = workspace.verify()
        there = report.leaves
        assert report.first_bad == there
        assert [f.what for f in report.findings] == [
            f"the log was rolled back: {there} leaves, witness {NAME}'s {witness.head and witness.head.size}"
        ]
        asking = asker(workspace, witness)
        assert not asking.ask()
        assert "rolled back" in status(workspace)[1]
        grow(workspace, 30)  # another history, longer than the one that was cosigned
        assert not asking.ask()
        assert "is not the one whose first" in status(workspace)[1]
        assert any("one of these leaves is another" in f.what for f in workspace.verify().findings)
        shutil.rmtree(tmp_path / "data" / "cosigned")  # who takes that away as well still meets the witness
        assert not asking.ask()
        assert "does not accept that the log grew" in status(workspace)[1]


def test_a_server_asks_by_itself_and_shows_how_fresh_it_is(tmp_path: Path, witness: Witness) -> None:

    workspace, credentials = Workspace.init(tmp_path / "data")
    witness.log = Key.parse(workspace.log.key)
    settings = Settings(port=0, log_level="error", witnesses=((witness.url, witness.vkey),), log_public=True)
    with (
        workspace,
        running(workspace, settings) as url,
        httpx.Client(base_url=url, trust_env=False, verify=AUTHORITIES) as client,
    ):
        headers = {"authorization": f"Bearer {credentials.token}"}
        assert client.get("/v1/blocks/", headers=headers).status_code == 200
        assert witness.cosigned.wait(30)
        deadline = time.monotonic() + 30
        (shown,) = client.get("/v1/log/witnesses").json()["witnesses"]
        while shown["behind"] and time.monotonic() < deadline:
            (shown,) = client.get("/v1/log/witnesses").json()["witnesses"]
        assert shown["behind"] == 0
        assert 0 <= shown["age"] < 60
        note = client.get("/v1/log/checkpoint", params={"cosigned": "true"}).content
        c2sp_verifier.open_note(note, witness.key)


def test_the_setting_is_checked_before_anything_is_served(witness: Witness) -> None:
    setting = f"{witness.url}={witness.vkey}"
    settings = load({"witnesses": setting}, {})
    assert settings.witnesses == ((witness.url, witness.vkey),)
    assert configured(settings) == [Configured(witness.url, witness.vkey)]
    with pytest.raises(Invalid, match="not in allowed_hosts"):
        configured(load({"witnesses": setting, "allowed_hosts": "api.openai.com"}, {}))
    assert configured(load({"witnesses": setting, "allowed_hosts": witness.url.split("/")[2]}, {}))
    for wrong in ("https://w.example", "https://w.example=nonsense", f"ftp://w.example={witness.vkey}"):
        with pytest.raises(Invalid, match="--witnesses"):
            load({"witnesses": wrong}, {})
