"""The workspace's own rules: the root's word, in a chain that nobody else continues."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from attack.scene import raw
from stores import thinned

from tallystone import _cbor
from tallystone.errors import Denied, Invalid, Tampered
from tallystone.statements import Charter, Signed, issue, signature_pairs
from tallystone.store.opening import DATABASE
from tallystone.store.protocol import Batch, Delete, Put, Row
from tallystone.store.tables import CHARTER
from tallystone.vault import Vault, Workspace
from tallystone.vault.levels import level, level_name
from tallystone.vault.plan import WS, Plan
from tallystone.vault.types import Credentials

pytestmark = thinned(2, "they differ in who asks, and ask for the same few kinds of rows")

DEFAULT_LEVELS = ("public", "internal", "confidential", "restricted")


def rows(workspace: Workspace) -> list[Row]:
    with workspace.store.snapshot() as snapshot:
        return snapshot.scan(CHARTER, (WS,))


def put(workspace: Workspace, *changed: Row) -> None:
    workspace.store.commit(Batch([], [Put(CHARTER, row) for row in changed], []))


def test_a_workspace_has_its_rules_before_its_root_says_any(alice: Vault, bob: Vault) -> None:
    for vault in (alice, bob):
        found = vault.charter()
        assert (found.trust, found.levels, found.max_grants, found.serial) == (
            False,
            DEFAULT_LEVELS,
            10_000,
            0,
        )


def test_the_root_changes_what_it_names_and_nothing_else(
    workspace: Workspace, alice: Vault, alice_credentials: Credentials, bob: Vault, tmp_path: Path
) -> None:
    alice.set_charter(trust=True)
    alice.set_charter(max_grants=5)
    found = alice.set_charter(levels=["public", "team", "confidential", "restricted", "sealed"])
    assert (found.trust, found.max_grants, found.serial) == (True, 5, 3)
    assert bob.charter() == found and found.levels[-1] == "sealed"
    assert alice.set_charter(trust=True) == found == alice.set_charter()
    assert [int(row[1]) for row in rows(workspace)] == [1, 2, 3]
    assert workspace.verify().findings == []
    with Workspace.open(tmp_path / "data") as again:
        assert again.vault(alice_credentials.token).charter() == found
    agent = bob.create_agent({"name": "a"})
    assert workspace.vault(bob.agent_token(agent.id)).charter() == found
    said = [event.detail for event in alice.events(50) if event.kind == "charter"]
    assert [detail["serial"] for detail in said] == [1, 2, 3, 3, 3]


def test_nobody_else_does(workspace: Workspace, alice: Vault, bob: Vault) -> None:
    agent = alice.create_agent({"name": "a"})
    for vault in (bob, alice.acting_as(agent.id), workspace.vault(alice.create_token(scope="read"))):
        with pytest.raises(Denied):
            vault.set_charter(trust=True)
    assert rows(workspace) == []


@pytest.mark.parametrize(
    "levels",
    [
        [],
        ["public"],
        list(DEFAULT_LEVELS[:3]),
        [*DEFAULT_LEVELS, ""],
        [*DEFAULT_LEVELS, "two words"],
        [*DEFAULT_LEVELS, "line\n"],
        [*DEFAULT_LEVELS, "x" * 33],
        [*DEFAULT_LEVELS, "public"],
        [*DEFAULT_LEVELS, *map(str, range(13))],
        ["internal", "public", "confidential", "restricted"],
        ["public", "new", "internal", "confidential", "restricted"],
        [*DEFAULT_LEVELS, 5],
    ],
    ids=[
        "none", "fewer", "one fewer", "empty", "spaces", "unprintable", "long", "twice", "seventeen", "swapped",
        "inserted", "no word",
    ],
)  # fmt: skip
def test_levels_that_would_change_what_is_stored_are_refused(
    workspace: Workspace, alice: Vault, levels: list[str]
) -> None:
    with pytest.raises(Invalid) as refused:
        alice.set_charter(levels=levels, trust=True)
    assert refused.value.code == "bad_levels" and refused.value.hint
    assert rows(workspace) == [] and not alice.charter().trust


@pytest.mark.parametrize("number", [0, -1, 1_000_001, 5.5, True])
def test_a_number_of_grants_out_of_range_is_refused(alice: Vault, number: int) -> None:
    with pytest.raises(Invalid) as refused:
        alice.set_charter(max_grants=number)
    assert refused.value.code == "bad_charter" and alice.charter().serial == 0


def test_sixteen_levels_of_thirty_two_letters_fit(alice: Vault) -> None:
    names = [f"{n:02}" + "é" * 30 for n in range(16)]
    assert alice.set_charter(levels=names, max_grants=1_000_000).levels == tuple(names)


def test_levels_are_numbers_that_the_charter_names(workspace: Workspace, alice: Vault, bob: Vault) -> None:
    def named(number: int) -> str:
        with workspace.store.snapshot() as snapshot:
            return level_name(alice._caller, Plan(snapshot), number)

    def numbered(word: str) -> int:
        with workspace.store.snapshot() as snapshot:
            return level(alice._caller, Plan(snapshot), word)

    assert [named(n) for n in range(4)] == list(DEFAULT_LEVELS)
    assert [numbered(word) for word in DEFAULT_LEVELS] == [0, 1, 2, 3]
    assert (named(4), named(-1), named(10**9)) == ("level-4", "level--1", "level-1000000000")
    alice.set_clearance("bob", "internal")
    alice.set_charter(levels=["open", "team", "confidential", "restricted", "sealed"])
    assert (named(1), named(4), numbered("sealed")) == ("team", "sealed", 4)
    assert {user.clearance for user in alice.users()} == {"open", "team"}
    with pytest.raises(Invalid) as refused:
        alice.set_clearance("bob", "internal")
    assert refused.value.code == "unknown_level" and "team" in refused.value.hint


def test_a_decision_under_a_charter_that_changes_meanwhile_is_made_again(
    workspace: Workspace, alice: Vault, bob: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit, changed = workspace.store.commit, []

    def late(batch: Batch, *queued: Any) -> int:
        if not changed and any(
            isinstance(one, Put) and one.table.name == "principal" for one in batch.changes
        ):
            changed.append(batch)
            alice.set_charter(levels=["open", "team", "confidential", "restricted"])
        return commit(batch, *queued)

    other = workspace.vault(alice.create_token())
    monkeypatch.setattr(workspace.store, "commit", late)
    with pytest.raises(Invalid):
        other.set_clearance("bob", "internal")
    assert changed and {user.clearance for user in alice.users()} == {"open"}


# -- attackers --------------------------------------------------------------------------------------------------


def statement(row: Row) -> Signed:
    return Signed("charter", bytes(row[2]), signature_pairs(_cbor.decode(bytes(row[3]))))


def by(vault: Vault, workspace: Workspace, charter: Charter) -> Row:
    caller = vault._caller
    with workspace.store.snapshot() as snapshot:
        plan = Plan(snapshot)
        signer = (caller.identity(plan, caller.id).digest, caller.signing_seed(plan))
    signed = issue("charter", workspace.id, charter.encode(), [signer])
    return (WS, charter.serial, signed.body, _cbor.encode([list(pair) for pair in signed.signatures]))


def test_a_charter_by_somebody_else_is_none(workspace: Workspace, alice: Vault, bob: Vault) -> None:
    alice.set_charter(max_grants=5)
    (first,) = rows(workspace)
    body = Charter.decode(bytes(first[2]))
    after = replace(body, serial=2, previous=statement(first).digest, trust=True)
    with workspace.store.snapshot() as snapshot:
        own = bob._caller.identity(Plan(snapshot), bob.principal_id).digest
    for forged in (
        by(bob, workspace, replace(after, issuer=bob.principal_id, issuer_record=own)),
        by(bob, workspace, after),
        by(bob, workspace, replace(after, issuer_record=own)),
        (WS, 2, after.encode(), first[3]),
        (WS, 2, after.encode(), _cbor.encode([])),
    ):
        put(workspace, forged)
        for vault in (alice, bob):
            with pytest.raises(Tampered):
                vault.charter()
            with pytest.raises(Tampered):
                vault.users()
    workspace.store.commit(Batch([], [Delete(CHARTER, (WS, 2))], []))
    assert alice.charter().max_grants == 5


@pytest.mark.parametrize(
    "fields",
    [{"trust": True}, {"max_grants": 6}, {"levels": ["a", "b", "c", "d"]}, {"serial": 2}, {"time": 1}],
    ids=lambda fields: next(iter(fields)),
)
def test_a_charter_row_that_an_operator_edits_is_none(
    workspace: Workspace, alice: Vault, bob: Vault, fields: dict[str, Any]
) -> None:
    alice.set_charter(max_grants=5)
    (row,) = rows(workspace)
    body = replace(Charter.decode(bytes(row[2])), **fields)
    put(workspace, (WS, row[1], body.encode(), row[3]))
    with pytest.raises(Tampered):
        bob.charter()


def test_charters_are_not_reordered_skipped_or_told_twice(
    workspace: Workspace, alice: Vault, bob: Vault
) -> None:
    for number in (5, 6, 7):
        alice.set_charter(max_grants=number)
    one, two, three = rows(workspace)
    for wrong in (
        [(WS, 1, *two[2:]), (WS, 2, *one[2:])],
        [(WS, 2, *three[2:])],
        [(WS, 4, *three[2:])],
        [(WS, 4, *one[2:])],
    ):
        put(workspace, *wrong)
        with pytest.raises(Tampered):
            bob.charter()
        workspace.store.commit(Batch([], [Delete(CHARTER, (WS, 4))], []))
        put(workspace, one, two, three)
    workspace.store.commit(Batch([], [Delete(CHARTER, (WS, 2))], []))
    with pytest.raises(Tampered):
        bob.charter()
    put(workspace, two)
    assert bob.charter().max_grants == 7


@pytest.mark.parametrize(
    "fields",
    [{"levels": ["a"]}, {"levels": [1, 2, 3, 4]}, {"levels": []}, {"max_grants": 0}, {"previous": b"x" * 32}],
    ids=str,
)
def test_even_the_root_lays_down_nothing_that_no_vault_would(
    workspace: Workspace, alice: Vault, fields: dict[str, Any]
) -> None:
    alice.set_charter(max_grants=5)
    (row,) = rows(workspace)
    after = replace(Charter.decode(bytes(row[2])), serial=2, previous=statement(row).digest)
    put(workspace, by(alice, workspace, replace(after, **fields)))
    with pytest.raises(Tampered):
        alice.charter()


def test_a_charter_that_is_rolled_back_is_found_by_the_check_of_the_log(
    workspace: Workspace, alice: Vault, tmp_path: Path
) -> None:
    alice.set_charter(trust=True)
    alice.set_charter(trust=False)
    with raw(tmp_path / "data" / DATABASE) as connection:
        connection.execute("DELETE FROM charter WHERE serial = 2")
    (finding,) = workspace.verify().findings
    assert finding.where.startswith("charter ")
