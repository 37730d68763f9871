"""A data directory that the first release wrote is read, checked, recovered from and written to by this one."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from stores import sqlite_only

from tallystone.errors import NotFound, Unauthenticated
from tallystone.vault import Vault, Workspace

pytestmark = sqlite_only("that release knew no PostgreSQL")

DATA = Path(__file__).parent / "data"
RELEASE = DATA / "first-release"
SECRETS: dict[str, Any] = json.loads((RELEASE / "secrets.json").read_text(encoding="utf-8"))
EXPECTED: dict[str, Any] = json.loads((RELEASE / "expected.json").read_text(encoding="utf-8"))


def seen(vault: Vault) -> dict[str, Any]:
    """The same reading as when it was made."""
    spec = importlib.util.spec_from_file_location("make_first_release", DATA / "make_first_release.py")
    assert spec is not None and spec.loader is not None
    maker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(maker)
    found: dict[str, Any] = maker.seen(vault)
    return found


SINCE: dict[str, Any] = {
    "sensitivity": "public", "allowed": None, "expires": None, "mutable": True, "append_only": False, "through": "",
    "until": None, "depth": 0, "history": True, "kind": "grant",
    "clearance": "public", "external": {},
    "last_run": None, "awaited": None, "keep": "all", "audit_level": "durable",
}  # fmt: skip
"""What later releases say besides, and what they must say of what the first one wrote."""


def as_then(found: Any, expected: Any) -> Any:
    """`found` without what is said since, once that is seen to be at its default."""
    if isinstance(found, dict) and isinstance(expected, dict):
        for name in found.keys() - expected.keys():
            assert found[name] == SINCE[name], name
        named = found.get("name") if expected.get("name") == "" else None  # agents are named since
        then = {name: as_then(found[name], expected[name]) for name in expected if name in found}
        return {**then, "name": ""} if named is not None else then
    if isinstance(found, list) and isinstance(expected, list) and len(found) == len(expected):
        return [as_then(one, other) for one, other in zip(found, expected, strict=True)]
    return found


@pytest.fixture
def old(tmp_path: Path) -> Iterator[Workspace]:
    """A copy of the first release's directory, opened."""
    shutil.copytree(RELEASE / "data", tmp_path / "data")
    with Workspace.open(tmp_path / "data") as workspace:
        yield workspace


def test_its_log_and_every_row_verify_without_a_key(old: Workspace) -> None:
    report = old.verify()
    assert report.findings == [] and report.leaves > 100 and report.rows > 100


# Bob last: when he comes by, he finds one more offer than he had.
@pytest.mark.parametrize("name", [name for name in EXPECTED if name != "bob"])
def test_each_token_reads_what_it_read_then(old: Workspace, name: str) -> None:
    assert as_then(seen(old.vault(SECRETS["tokens"][name])), EXPECTED[name]) == EXPECTED[name]


def test_a_capsule_that_nobody_had_opened_is_an_offer_now(old: Workspace) -> None:
    bob = old.vault(SECRETS["tokens"]["bob"])
    found = seen(bob)
    assert [offer["block_id"] for offer in found.pop("offers")] == [SECRETS["unopened"]]
    expected = dict(EXPECTED["bob"])
    assert expected.pop("offers") == []
    assert as_then(found, expected) == expected
    assert bob.accept_offer(SECRETS["unopened"]).value == "Still in the inbox."


def test_what_was_revoked_then_stays_revoked(old: Workspace) -> None:
    with pytest.raises(Unauthenticated):
        old.vault(SECRETS["revoked"])
    with pytest.raises(NotFound):
        old.vault(SECRETS["tokens"]["carol"]).block(SECRETS["team"])


@pytest.mark.parametrize("name", ["alice", "bob", "carol"])
def test_a_kit_that_was_printed_then_still_recovers(old: Workspace, name: str) -> None:
    vault = old.vault(old.recover(SECRETS["kits"][name]).token)
    assert {block.id for block in vault.blocks()} == {block["id"] for block in EXPECTED[name]["blocks"]}
    assert old.verify().findings == []


def test_it_is_written_to_and_still_verifies(old: Workspace) -> None:
    alice, bob = old.vault(SECRETS["tokens"]["alice"]), old.vault(SECRETS["tokens"]["bob"])
    version = alice.block(SECRETS["team"]).version
    bob.edit_block(SECRETS["team"], lambda block: {"value": block.value + "By this release.\n"})
    assert alice.block(SECRETS["team"]).version == version + 1
    assert alice.block(SECRETS["team"]).value.endswith("By this release.\n")
    alice.revoke(SECRETS["team"], "bob")
    with pytest.raises(NotFound):
        bob.block(SECRETS["team"])
    assert old.verify().findings == []
