"""The log on the command line: keys, checkpoints, receipts, exports, pins and states, in a folder and over HTTP."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import c2sp_verifier
import pytest
import raw_rows
from c2sp_verifier import Key
from scripted_witness import NAME, Witness, serving
from stores import thinned

from tallystone.cli.app import FAILED, MISUSED, run
from tallystone.server.run import running
from tallystone.server.settings import Settings
from tallystone.server.witnessing import Asker
from tallystone.server.witnessing import Witness as Configured
from tallystone.vault import Workspace

pytestmark = thinned(2, "a command asks a server for what other tests ask of it")

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Workspace]:
    """A workspace in `data`, whose root's token is in the environment."""
    for name in list(os.environ):
        if name.startswith("TALLYSTONE_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    workspace, credentials = Workspace.init(tmp_path / "data")
    monkeypatch.setenv("TALLYSTONE_TOKEN", credentials.token)
    with workspace:
        for number in range(20):
            workspace.vault(credentials.token).create_block(label=f"b{number}", value="x")
        yield workspace


@pytest.fixture
def tallystone(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command: status, stdout, stderr."""

    def call(*arguments: str) -> tuple[int, str, str]:
        status = run(list(arguments))
        out, err = capsys.readouterr()
        return status, out, err

    return call


@pytest.mark.parametrize("over", ["directory", "http"])
def test_a_receipt_goes_from_the_log_to_whoever_checks_it(
    place: Workspace, tallystone: Run, over: str
) -> None:
    with running(place, Settings(port=0, log_level="error")) as url:
        where = ("--data", "data") if over == "directory" else ("--url", url)
        key = tallystone("audit", "key", *where)[1].strip()
        assert key == place.log.key
        receipt = tallystone("audit", "receipt", "2, 7", *where)[1]
        note = tallystone("audit", "checkpoint", *where)[1]
        known = json.loads(tallystone("audit", "witnesses", *where, "--json")[1])
        assert (
            tallystone("audit", "receipt", "7", *where, "--json")[1]
            == json.dumps({"leaf": 7, "receipt": receipt}, ensure_ascii=False, indent=2) + "\n"
        )
    assert (known["key"], known["witnesses"]) == (key, [])
    assert c2sp_verifier.checkpoint(note.encode(), Key.parse(key)).size == known["size"]
    assert c2sp_verifier.check_proof(receipt.encode(), Key.parse(key), [])[0] == 7
    Path("mine.tlog-proof").write_text(receipt)
    shutil.rmtree("data")  # nothing of ours is needed any more
    status, out, _ = tallystone("audit", "check-receipt", "mine.tlog-proof", "--log-key", key)
    assert (status, out.splitlines()[0]) == (0, f"ok: leaf 7 is in the log of {known['size']} leaves")
    proven = json.loads(
        tallystone("audit", "check-receipt", "mine.tlog-proof", "--log-key", key, "--json")[1]
    )
    assert (proven["leaf"], proven["size"], proven["cosigned"]) == (7, known["size"], {})


def test_what_proves_nothing_is_refused_in_two_lines(place: Workspace, tallystone: Run) -> None:
    Path("right").write_bytes(place.log.receipt(5))
    Path("wrong").write_bytes(place.log.receipt(5).replace(b"index 5", b"index 6"))
    Path("noise").write_bytes(b"\x00\xff")
    key, other = place.log.key, Witness().vkey
    for arguments, status, told in (
        (("wrong", "--log-key", key), FAILED, "leaf 6 holds leaf 5"),
        (("noise", "--log-key", key), FAILED, "no receipt"),
        (("right", "--log-key", "nonsense"), FAILED, "no verifier key"),
        (("right", "--log-key", other), FAILED, "of type 4"),
        (("right", "--log-key", key, "--witness", other), FAILED, "not cosigned by"),
        (("nowhere", "--log-key", key), MISUSED, "cannot read"),
    ):
        got, out, err = tallystone("audit", "check-receipt", *arguments)
        assert (got, out) == (status, "")
        assert told in err
        assert len(err.splitlines()) <= 2
    for arguments in (("receipt", "9999"), ("receipt", "x"), ("checkpoint", "--cosigned")):
        got, out, err = tallystone("audit", *arguments, "--data", "data")
        assert (got, out) == (FAILED, "")
        assert err.startswith("error: ")


def test_a_public_log_is_asked_without_a_token(
    place: Workspace, tallystone: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TALLYSTONE_TOKEN")
    for public in (True, False):
        with running(place, Settings(port=0, log_level="error", log_public=public)) as url:
            status, out, err = tallystone("audit", "key", "--url", url)
        assert (status == 0) == public
        assert out.strip() == (place.log.key if public else "")
        assert public or "Unauthorized" in err


def test_an_export_is_continued(place: Workspace, tallystone: Run) -> None:
    size = place.log.view().size
    assert tallystone("audit", "export", "public", "--data", "data")[1] == (
        f"public holds {size} leaves, {size} of them new\n"
    )
    place.denied({"code": "test"})
    grown = json.loads(tallystone("audit", "export", "public", "--data", "data", "--json")[1])
    assert grown == {"before": size, "leaves": place.log.view().size}
    head, _ = c2sp_verifier.read_log(c2sp_verifier.from_folder(Path("public")), Key.parse(place.log.key))
    assert head.size == grown["leaves"]


def test_a_check_continues_where_the_last_one_ended(
    place: Workspace, tallystone: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TALLYSTONE_TOKEN")
    first = json.loads(tallystone("audit", "verify", "--data", "data", "--state", "log.state", "--json")[1])
    place.denied({"code": "test"})
    second = json.loads(tallystone("audit", "verify", "--data", "data", "--state", "log.state", "--json")[1])
    assert (first["ok"], second["ok"], first["first_bad"]) == (True, True, None)
    assert second["leaves"] < 4 < first["leaves"]
    assert "ok: 0 newer leaves" in tallystone("audit", "verify", "--data", "data", "--state", "log.state")[1]
    Path("log.state").write_bytes(b"damaged")
    status, _, err = tallystone("audit", "verify", "--data", "data", "--state", "log.state")
    assert status == FAILED
    assert "error: " in err


def test_a_pin_that_a_witness_cosigned_finds_a_log_that_was_put_back(
    tmp_path: Path, tallystone: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TALLYSTONE_TOKEN")
    shutil.rmtree("data")
    with Workspace.init(tmp_path / "data")[0] as workspace, serving(Witness()) as witness:
        witness.log = Key.parse(workspace.log.key)
    raw_rows.copy(Path("data"), Path("older"))
    with Workspace.open("data") as workspace, serving(witness):
        for _ in range(9):
            workspace.denied({"code": "test"})
        assert Asker(workspace, Configured(witness.url, witness.vkey), lambda: witness.now).ask()
        witnessed = workspace.log.view()
    status, out, err = tallystone("audit", "witnesses", "--data", "data")
    assert (status, out.splitlines()[1].split("\t")[:3]) == (0, [NAME, str(witnessed.size), "0"])
    assert witnessed.key in err
    Path("pin").write_text(tallystone("audit", "checkpoint", "--cosigned", "--data", "data")[1])
    asked = ("--pin", "pin", "--witness", witness.vkey)
    assert tallystone("audit", "verify", "--data", "data", *asked)[0] == 0
    status, out, _ = tallystone("audit", "verify", "--data", "older", *asked)
    assert status == FAILED
    assert "the log was rolled back" in out
    assert "the first bad leaf is " in out
    status, _, err = tallystone(
        "audit", "verify", "--data", "data", "--pin", "pin", "--witness", Witness(bytes(32)).vkey
    )
    assert status == FAILED
    assert "not cosigned by" in err


def test_a_witness_is_named_with_its_pin(tallystone: Run) -> None:
    status, _, err = tallystone("audit", "verify", "--data", "data", "--witness", Witness().vkey)
    assert status == MISUSED
    assert "--pin" in err
