"""The export: everything of one principal, nothing of another, whatever there is of it."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tallystone.cli.app import run
from tallystone.vault import Vault, Workspace, exporting
from tallystone.vault.exporting import write_export
from tallystone.vault.types import Credentials


class Pipe(io.RawIOBase):
    """Takes bytes, and can neither be read nor sought in: what a socket is."""

    def __init__(self) -> None:
        self.taken = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.taken += bytes(data)
        return len(bytes(data))


def exported(vault: Vault) -> dict[str, list[dict[str, Any]]]:
    pipe = Pipe()
    counts = write_export(vault, pipe)
    with zipfile.ZipFile(io.BytesIO(bytes(pipe.taken))) as archive:
        assert archive.testzip() is None and archive.namelist()[0] == "README.txt"
        readme = archive.read("README.txt").decode()
        found = {}
        for name in archive.namelist()[1:]:
            assert name in readme
            found[name.removesuffix(".jsonl")] = [json.loads(line) for line in archive.open(name)]
    assert {name: len(lines) for name, lines in found.items()} == counts
    return found


def test_an_export_has_all_that_is_ones_own_or_shared_and_nothing_else(
    workspace: Workspace, alice: Vault, bob_credentials: Credentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "PAGE", 3)
    bob = workspace.vault(bob_credentials.token)
    alice.create_block(label="hers", value="ALICE'S SECRET")
    shared = alice.create_block(label="shared", value="Read this.").id
    alice.share(shared, "bob")
    bob.accept_offer(shared)
    mine = [bob.create_block(label=f"mine {n}", value=f"value {n} ü").id for n in range(7)]
    agent = bob.create_agent({"name": "helper", "system": "be kind"}, block_ids=mine[:1]).id
    for n in range(4):
        bob.add_passage(agent, {"id": f"passage-{n}", "text": f"text {n}", "tags": []})
    bob.create_conversation(agent, {"id": "conv-1", "summary": "talk"})
    bob.create_role("crew")
    found = exported(bob)
    assert {block["id"] for block in found["blocks"]} == {shared, *mine}
    assert {block["value"] for block in found["blocks"] if block["rights"] == "owner"} == {
        f"value {n} ü" for n in range(7)
    }
    assert [(grant["block"], grant["recipient"]) for grant in found["grants"]] == [(mine[0], agent)]
    assert [one["state"]["system"] for one in found["agents"]] == ["be kind"]
    assert [one["text"] for one in found["passages"]] == [f"text {n}" for n in range(4)]
    assert [one["id"] for one in found["conversations"]] == ["conv-1"]
    assert [one["name"] for one in found["roles"]] == ["crew"]
    assert {event["actor"] for event in found["events"]} >= {bob.principal_id}
    text = json.dumps(found)
    assert "ALICE'S SECRET" not in text and bob_credentials.token.split("_")[2] not in text
    assert [one["id"] for one in exported(workspace.vault(bob.agent_token(agent)))["agents"]] == [agent]


def test_the_command_writes_a_new_file_that_only_its_owner_reads(
    workspace: Workspace,
    alice: Vault,
    alice_credentials: Credentials,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    alice.create_block(label="l", value="v")
    monkeypatch.setenv("TALLYSTONE_TOKEN", alice_credentials.token)
    where, target = ["--data", str(tmp_path / "data")], tmp_path / "mine.zip"
    assert run(["export", str(target), *where]) == 0
    assert "1 blocks" in capsys.readouterr().err and target.stat().st_mode & 0o777 == 0o600
    assert run(["export", str(target), *where]) == 2
    assert run(["export", str(tmp_path / "data" / "mine.zip"), *where]) == 2
    assert run(["export", str(tmp_path / "other.zip"), "--url", "http://127.0.0.1:1"]) == 2
    assert "Traceback" not in capsys.readouterr().err and not (tmp_path / "other.zip").exists()
