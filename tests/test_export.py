"""The export: everything of one principal, nothing of another, whatever there is of it."""

from __future__ import annotations

import io
import json
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import pytest
from server_fixtures import Served, fresh_server  # noqa: F401
from stores import thinned

from tallystone import crypto
from tallystone.cli.app import run
from tallystone.errors import Tampered
from tallystone.vault import Vault, Workspace, exporting
from tallystone.vault.exporting import write_export
from tallystone.vault.types import Credentials

pytestmark = thinned(2, "they differ in who asks, and ask for the same few kinds of rows")


class Pipe(io.RawIOBase):
    """Takes bytes, and can neither be read nor sought in: what a socket is."""

    def __init__(self) -> None:
        self.taken = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.taken += bytes(data)
        return len(bytes(data))


def exported(vault: Vault, *, versions: bool = False) -> dict[str, list[dict[str, Any]]]:
    pipe = Pipe()
    counts = write_export(vault, pipe, versions=versions)
    found = unpacked(bytes(pipe.taken))
    assert {name: len(lines) for name, lines in found.items()} == counts
    return found


def unpacked(data: bytes) -> dict[str, list[dict[str, Any]]]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None and archive.namelist()[0] == "README.txt"
        readme = archive.read("README.txt").decode()
        found = {}
        for name in archive.namelist()[1:]:
            assert name in readme
            found[name.removesuffix(".jsonl")] = [json.loads(line) for line in archive.open(name)]
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
    assert run(["export", str(tmp_path / "other.zip"), "--url", "http://127.0.0.1:1"]) == 1
    assert "Traceback" not in capsys.readouterr().err and not (tmp_path / "other.zip").exists()


def test_every_kept_version_is_exported_when_asked_for_and_what_was_erased_says_so(
    alice: Vault, bob: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "PAGE", 3)
    block = alice.create_block(label="l", value="v1").id
    for n in range(2, 9):
        alice.edit_block(block, lambda _, n=n: {"value": f"v{n}"})  # type: ignore[misc]  # bound as a default
    alice.share(block, bob.principal_id, history=False)
    bob.accept_offer(block)
    alice.edit_block(block, lambda _: {"value": "v9"})
    alice.erase_version(block, 4)
    assert "versions" not in exported(alice)
    found = exported(alice, versions=True)["versions"]
    assert [(one["block"], one["number"]) for one in found] == [(block, n) for n in range(9, 0, -1)]
    assert [one["content"]["value"] for one in found if one["content"]] == [
        f"v{n}" for n in range(9, 0, -1) if n != 4
    ]
    assert [one["number"] for one in found if one["erased"]] == [4]
    # Bob came without history, and the keys have changed since: he takes along what he can read, and no more.
    assert [one["number"] for one in exported(bob, versions=True)["versions"]] == [9]


def test_memory_does_not_grow_with_what_is_exported(alice: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some 2 MB of text in a history, an archive of passages and conversations, by pages of 5."""
    monkeypatch.setattr(exporting, "PAGE", 5)
    monkeypatch.setattr("tallystone.vault.streams._CHUNK", 5)
    monkeypatch.setattr(
        "tallystone.store._rows.LARGEST", 0
    )  # what a process keeps of rows is bounded for itself
    store: Any = alice._caller.workspace.store
    store._rows.restart()  # and what is kept already knows the bound that it began with
    block, agent = alice.create_block(label="l", value="").id, alice.create_agent({"name": "helper"}).id
    for n in range(60):
        text = crypto.random_bytes(6_000).hex()
        alice.edit_block(block, lambda _, text=text: {"value": text})  # type: ignore[misc]  # bound as a default
        alice.add_passage(agent, {"id": f"passage-{n}", "text": text, "tags": []})
        alice.create_conversation(agent, {"id": f"conv-{n}", "summary": text})
    total = peak = 0
    tracemalloc.start()
    try:
        for chunk in exporting.export_chunks(alice, versions=True):
            total += len(chunk)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert total > 1_000_000  # two hexadecimal digits a byte, compressed again
    assert peak < total


def test_what_takes_long_to_make_is_handed_on_before_it_is_large(
    alice: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[str] = []
    blocks = Vault.blocks

    def noted(self: Vault, **options: Any) -> Any:
        begun.append("blocks")
        return blocks(self, **options)

    monkeypatch.setattr(Vault, "blocks", noted)
    assert b"README" in next(exporting.export_chunks(alice)) and begun  # soon made, and then at once
    begun.clear()
    monkeypatch.setattr(exporting, "PATIENCE", 0.0)
    assert b"account.jsonl" in next(exporting.export_chunks(alice)) and not begun


def test_an_export_comes_over_http_as_it_is_made_and_breaks_off_when_reading_fails(
    fresh_server: Served,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    vault = fresh_server.vault()
    for n in range(12):
        vault.create_block(label=f"block {n}", value=crypto.random_bytes(10_000).hex())
    monkeypatch.setattr(exporting, "PAGE", 3)
    answer = fresh_server.http().get("/v1/export")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/zip")
    assert "content-length" not in answer.headers  # nobody knew it before
    found = unpacked(answer.content)
    assert len(found["blocks"]) == 12 and "versions" not in found
    refused = fresh_server.http("tally_x").get("/v1/export")
    assert refused.status_code == 401 and refused.json()["error"]["code"]
    # The command, and the same without the server.
    monkeypatch.setenv("TALLYSTONE_TOKEN", fresh_server.token)
    far, near = tmp_path / "far.zip", tmp_path / "near.zip"
    assert run(["export", str(far), "--versions", "--url", fresh_server.url]) == 0
    assert "12 blocks, 12 versions" in capsys.readouterr().err
    assert run(["export", str(near), "--versions", "--data", str(tmp_path / "data")]) == 0
    assert far.stat().st_mode & 0o777 == 0o600
    there, here = unpacked(far.read_bytes()), unpacked(near.read_bytes())
    assert [there[name] for name in ("blocks", "versions")] == [here[name] for name in ("blocks", "versions")]
    # A row that does not verify, far behind the first bytes: no archive that looks whole.
    capsys.readouterr()

    def torn(*_: object, **__: object) -> None:
        raise Tampered("a version's content is not what was signed")

    monkeypatch.setattr(Vault, "grants", torn)
    vault.share(vault.blocks()[0].id, vault.add_user("bob").principal)
    assert run(["export", str(tmp_path / "torn.zip"), "--url", fresh_server.url]) == 1
    assert not (tmp_path / "torn.zip").exists() and "Traceback" not in capsys.readouterr().err
