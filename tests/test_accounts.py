"""Whether a principal may act, and how far it is trusted: its sponsor says so, and nobody who edits rows does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from attack.scene import raw

from tallystone import _cbor
from tallystone.errors import Denied, Invalid, NotFound, TallystoneError, Tampered, Unauthenticated
from tallystone.statements import PrincipalRecord, Signed, issue, signature_pairs
from tallystone.store.opening import DATABASE
from tallystone.store.protocol import Batch, Delete, Put, Row
from tallystone.store.tables import PRINCIPAL
from tallystone.vault import Vault, Workspace
from tallystone.vault.plan import WS, Plan
from tallystone.vault.types import Block, Credentials


def rows_of(workspace: Workspace, principal: str) -> list[Row]:
    with workspace.store.snapshot() as snapshot:
        return snapshot.scan(PRINCIPAL, (WS, principal))


def put(workspace: Workspace, *rows: Row) -> None:
    workspace.store.commit(Batch([], [Put(PRINCIPAL, row) for row in rows], []))


def status(vault: Vault, name: str) -> tuple[str, str]:
    (found,) = [user for user in vault.users() if user.name == name]
    return found.status, found.clearance


def denied(alice: Vault) -> list[str]:
    return [str(event.detail["code"]) for event in alice.events(100) if event.kind == "denied"]


# -- suspending -------------------------------------------------------------------------------------------------


def test_a_suspended_users_tokens_open_nothing_until_it_is_resumed(
    workspace: Workspace, alice: Vault, bob: Vault, bob_credentials: Credentials
) -> None:
    block = bob.create_block(label="l", value="kept")
    reader = bob.create_token(scope="read")
    alice.suspend("bob")
    assert status(alice, "bob") == ("suspended", "public")
    for text in (bob_credentials.token, reader):
        with pytest.raises(Unauthenticated) as refused:
            workspace.vault(text)
        assert refused.value.code == "inactive"
    with pytest.raises(Unauthenticated):
        workspace.recover(bob_credentials.kit)
    for inside in (bob.blocks, bob.events, bob.inspect, lambda: bob.block(block.id), bob.create_token):
        with pytest.raises(Unauthenticated):
            inside()
    alice.resume(bob.principal_id)
    for text in (bob_credentials.token, reader):
        assert workspace.vault(text).block(block.id).value == "kept"
    assert bob.edit_block(block.id, lambda _: {"value": "on"}).value == "on"
    assert workspace.verify().findings == [] and bob.inspect().findings == []


def test_the_agents_of_a_suspended_user_stop_with_it(workspace: Workspace, alice: Vault, bob: Vault) -> None:
    block = bob.create_block(label="l", value="")
    agent = bob.create_agent({"name": "a"}, block_ids=[block.id])
    token = bob.agent_token(agent.id)
    own, through = workspace.vault(token), bob.acting_as(agent.id)
    alice.suspend("bob")
    for vault in (own, through):
        with pytest.raises(Unauthenticated):
            vault.block(block.id)
        with pytest.raises(Unauthenticated):
            vault.edit_block(block.id, lambda _: {"value": "x"})
    with pytest.raises(Unauthenticated):
        workspace.vault(token)
    alice.resume("bob")
    assert workspace.vault(token).block(block.id).value == own.block(block.id).value == ""


@pytest.mark.parametrize("who", ["its own token", "its user's token", "its user"])
def test_a_commit_that_is_under_way_when_the_user_is_suspended_fails(
    workspace: Workspace, alice: Vault, bob: Vault, who: str
) -> None:
    block = bob.create_block(label="l", value="before")
    agent = bob.create_agent({"name": "a"}, block_ids=[block.id])
    writers = {
        "its own token": workspace.vault(bob.agent_token(agent.id)),
        "its user's token": bob.acting_as(agent.id),
        "its user": bob,
    }
    asked = []

    def edit(block: Block) -> dict[str, str]:
        if not asked:
            alice.suspend("bob")
        asked.append(block.version)
        return {"value": "after"}

    with pytest.raises(Unauthenticated):
        writers[who].edit_block(block.id, edit)
    assert len(asked) == 1
    alice.resume("bob")
    assert bob.block(block.id).value == "before"


def test_a_sponsor_suspends_its_own_agents_and_nobody_elses(
    workspace: Workspace, alice: Vault, bob: Vault
) -> None:
    agent = bob.create_agent({"name": "a"})
    token = bob.agent_token(agent.id)
    own = workspace.vault(token)
    with pytest.raises(NotFound) as missed:
        alice.suspend(agent.id)
    with pytest.raises(NotFound) as never:
        alice.suspend("agent-00000000-0000-4000-8000-000000000000")
    assert (missed.value.code, missed.value.hint) == (never.value.code, never.value.hint)
    for attempt in (own.suspend, own.resume):
        with pytest.raises(NotFound):
            attempt(agent.id)
    with pytest.raises(NotFound):
        own.set_clearance(agent.id, "public")
    bob.suspend(agent.id)
    with pytest.raises(Unauthenticated):
        own.agents()
    with pytest.raises(Unauthenticated):
        bob.agent_token(agent.id)
    bob.resume(agent.id)
    assert [one.id for one in own.agents()] == [agent.id]
    bob.suspend(agent.id)
    bob.delete_agent(agent.id)
    for attempt in (bob.resume, bob.suspend):
        with pytest.raises(NotFound):
            attempt(agent.id)


def test_what_cannot_be_suspended_or_resumed_is_said_clearly_and_logged(alice: Vault, bob: Vault) -> None:
    before = len(denied(alice))
    for attempt, code in (
        (lambda: alice.resume("bob"), "already_active"),
        (lambda: alice.suspend("alice"), "is_root"),
        (lambda: alice.suspend(alice.principal_id), "is_root"),
        (lambda: alice.suspend("nobody"), "unknown_principal"),
        (lambda: bob.suspend("alice"), "not_root"),
        (lambda: bob.suspend("bob"), "not_root"),
        (lambda: bob.resume("alice"), "not_root"),
        (lambda: bob.set_clearance("bob", "restricted"), "not_root"),
        (lambda: alice.set_clearance("bob", "secret"), "unknown_level"),
        (lambda: alice.set_clearance("bob", ""), "unknown_level"),
    ):
        with pytest.raises((Invalid, Denied, NotFound)) as refused:
            attempt()
        assert refused.value.code == code
        assert refused.value.hint
    alice.suspend("bob")
    with pytest.raises(Invalid) as refused:
        alice.suspend("bob")
    assert refused.value.code == "already_suspended"
    assert len(denied(alice)) == before + 11
    assert status(alice, "bob") == ("suspended", "public")


def test_a_token_that_reads_suspends_and_clears_nobody(
    workspace: Workspace, alice: Vault, bob: Vault
) -> None:
    reader = workspace.vault(alice.create_token(scope="read"))
    for attempt in (
        lambda: reader.suspend("bob"),
        lambda: reader.set_clearance("bob", "internal"),
        lambda: reader.set_charter(trust=True),
    ):
        with pytest.raises(Denied):
            attempt()
    assert status(alice, "bob") == ("active", "public")


def test_changes_of_standing_are_in_the_log(alice: Vault, bob: Vault) -> None:
    alice.suspend("bob")
    alice.resume("bob")
    alice.set_clearance("bob", "internal")
    said = [event.detail for event in alice.events(20) if event.kind == "principal"][-3:]
    assert {detail["principal"] for detail in said} == {bob.principal_id}
    assert [(detail.get("status"), detail.get("clearance")) for detail in said] == [
        ("suspended", None), ("active", None), (None, "internal"),
    ]  # fmt: skip


# -- clearance --------------------------------------------------------------------------------------------------


def test_a_clearance_is_a_word_of_the_charter(alice: Vault, bob: Vault) -> None:
    assert status(alice, "bob") == ("active", "public")
    alice.set_clearance("bob", "confidential")
    assert status(bob, "bob") == ("active", "confidential")
    alice.set_clearance("alice", "restricted")
    alice.set_clearance("bob", None)
    assert (status(bob, "alice")[1], status(bob, "bob")[1]) == ("restricted", "public")
    carol = alice.add_user("carol", clearance="internal")
    assert status(alice, "carol") == ("active", "internal") and carol.token


def test_an_agent_is_cleared_no_higher_than_its_sponsor_is_now(alice: Vault, bob: Vault) -> None:
    agent = bob.create_agent({"name": "a"})
    caller = bob._caller

    def cleared() -> int:
        with caller.workspace.store.snapshot() as snapshot:
            plan = Plan(snapshot)
            party = caller.party(plan, agent.id, caller.identity(plan, agent.id).digest)
        assert (party.id, party.kind, party.sponsor) == (agent.id, "agent", bob.principal_id)
        return party.clearance

    assert cleared() == 0
    alice.set_clearance("bob", "confidential")
    assert cleared() == 2
    bob.set_clearance(agent.id, "internal")
    assert cleared() == 1
    bob.set_clearance(agent.id, "restricted")
    assert cleared() == 2
    alice.set_clearance("bob", "public")
    assert cleared() == 0


def test_a_party_is_asked_for_under_the_record_that_a_statement_names(alice: Vault, bob: Vault) -> None:
    caller = alice._caller

    def now() -> bytes:
        with caller.workspace.store.snapshot() as snapshot:
            return caller.identity(Plan(snapshot), bob.principal_id).digest

    first = now()
    alice.set_clearance("bob", "restricted")
    second = now()
    with caller.workspace.store.snapshot() as snapshot:
        plan = Plan(snapshot)
        assert caller.party(plan, bob.principal_id, first).clearance == 0
        assert caller.party(plan, bob.principal_id, second).clearance == 3
        for principal, digest in (
            (bob.principal_id, bytes(32)),
            (alice.principal_id, first),
            ("user-00000000-0000-4000-8000-000000000000", first),
        ):
            with pytest.raises(Tampered):
                caller.party(plan, principal, digest)


# -- edited rows ------------------------------------------------------------------------------------------------


def edited(row: Row, **fields: Any) -> Row:
    record = replace(PrincipalRecord.decode(bytes(row[3])), **fields)
    return (*row[:3], record.encode(), row[4])


@pytest.mark.parametrize(
    "fields",
    [{"clearance": 3}, {"clearance": None}, {"status": "active"}, {"status": "deleted"}, {"root": 7}],
    ids=lambda fields: "=".join(map(str, *fields.items())),
)
def test_a_stored_status_or_clearance_that_an_operator_edits_is_refused(
    workspace: Workspace, alice: Vault, bob: Vault, bob_credentials: Credentials, fields: dict[str, Any]
) -> None:
    alice.set_clearance("bob", "internal")
    alice.suspend("bob")
    last = rows_of(workspace, bob.principal_id)[-1]
    put(workspace, edited(last, **fields))
    with pytest.raises(Tampered):
        workspace.vault(bob_credentials.token)
    with pytest.raises(Tampered):
        alice.users()
    put(workspace, last)
    with pytest.raises(Unauthenticated):
        workspace.vault(bob_credentials.token)


def signed_by(vault: Vault, workspace: Workspace, record: PrincipalRecord) -> tuple[bytes, bytes]:
    """A record's body and signatures as the holder of this vault alone makes them."""
    caller = vault._caller
    with workspace.store.snapshot() as snapshot:
        plan = Plan(snapshot)
        seed, digest = caller.signing_seed(plan), caller.identity(plan, caller.id).digest
    signers = [(digest, seed), (bytes(32), seed)]
    signed = issue("principal", workspace.id, record.encode(), signers)
    return signed.body, _cbor.encode([list(pair) for pair in signed.signatures])


def after(row: Row, **fields: Any) -> PrincipalRecord:
    signed = Signed("principal", bytes(row[3]), signature_pairs(_cbor.decode(bytes(row[4]))))
    made = replace(
        PrincipalRecord.decode(signed.body), id=str(row[1]), serial=int(row[2]) + 1, previous=signed.digest
    )
    return replace(made, **fields)


@pytest.mark.parametrize(
    "forge, refusal",
    [
        (lambda row: after(row, clearance=3), Tampered),
        (lambda row: after(row, status="active"), Tampered),
        (lambda row: after(row, root=1), Unauthenticated),  # it may renew its root, and stays suspended
    ],
    ids=["clears itself", "resumes itself", "renews itself"],
)
def test_a_user_who_writes_rows_changes_nothing_about_itself(
    workspace: Workspace,
    alice: Vault,
    bob: Vault,
    bob_credentials: Credentials,
    forge: Callable[[Row], PrincipalRecord],
    refusal: type[TallystoneError],
) -> None:
    alice.suspend("bob")
    last = rows_of(workspace, bob.principal_id)[-1]
    put(workspace, (*last[:2], int(last[2]) + 1, *signed_by(bob, workspace, forge(last))))
    with pytest.raises(refusal):
        workspace.vault(bob_credentials.token)


def test_a_sponsor_who_writes_rows_takes_no_agent_over_and_wakes_none_that_is_gone(
    workspace: Workspace, alice: Vault, bob: Vault
) -> None:
    agent = bob.create_agent({"name": "a"})
    token = bob.agent_token(agent.id)
    (first,) = rows_of(workspace, agent.id)
    mine = PrincipalRecord.decode(bytes(rows_of(workspace, bob.principal_id)[0][3]))
    for fields in ({"signing": mine.signing}, {"kem": mine.kem}, {"root": 1}):
        body = signed_by(bob, workspace, after(first, **fields))
        put(workspace, (*first[:2], 1, *body))
        with pytest.raises(Tampered):
            workspace.vault(token)
    workspace.store.commit(Batch([], [Delete(PRINCIPAL, (WS, agent.id, 1))], []))
    bob.delete_agent(agent.id)
    gone = rows_of(workspace, agent.id)[-1]
    put(workspace, (*gone[:2], 2, *signed_by(bob, workspace, after(gone, status="active"))))
    with (
        workspace.store.snapshot() as snapshot,
        pytest.raises(Tampered),
    ):
        workspace.identity(Plan(snapshot), agent.id, workspace.id)


def test_a_suspension_whose_row_is_taken_away_is_found_by_the_check_of_the_log(
    workspace: Workspace, alice: Vault, bob: Vault, tmp_path: Path
) -> None:
    alice.suspend("bob")
    assert workspace.verify().findings == []
    last = rows_of(workspace, bob.principal_id)[-1]
    with raw(tmp_path / "data" / DATABASE) as connection:
        connection.execute("DELETE FROM principal WHERE id = ? AND serial = ?", (last[1], last[2]))
    (finding,) = workspace.verify().findings
    assert finding.where.startswith("principal ")


# -- races ------------------------------------------------------------------------------------------------------


def test_two_changes_of_one_principal_follow_each_other(
    workspace: Workspace, alice: Vault, bob: Vault
) -> None:
    words = ["internal", "confidential", "restricted", "public"] * 3
    vaults = [workspace.vault(alice.create_token()) for _ in words]
    threads = [
        Thread(target=vault.set_clearance, args=("bob", word))
        for vault, word in zip(vaults, words, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rows = rows_of(workspace, bob.principal_id)
    assert [int(row[2]) for row in rows] == list(range(len(rows)))
    assert status(alice, "bob")[1] in words
    assert workspace.verify().findings == []


def test_tokens_of_an_agent_are_scoped_and_end(workspace: Workspace, bob: Vault) -> None:
    block = bob.create_block(label="l", value="v")
    agent = bob.create_agent({"name": "a"}, block_ids=[block.id])
    soon = datetime.fromtimestamp(workspace.now() + 300, UTC)
    text = bob.agent_token(agent.id, scope="read", expires=soon, label="https://app.example")
    reader = workspace.vault(text)
    assert reader.principal_id == agent.id and reader.block(block.id).value == "v"
    with pytest.raises(Denied):
        reader.edit_block(block.id, lambda _: {"value": "w"})
    (info,) = [one for one in bob.tokens() if one.principal == agent.id]
    assert (info.scope, info.expires, info.label) == ("read", int(soon.timestamp()), "https://app.example")
    workspace.clock = soon.timestamp
    with pytest.raises(Unauthenticated):
        reader.block(block.id)
