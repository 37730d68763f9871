"""One code, one user: whose keys are made where the code is redeemed, with the root's word and nobody else's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from threading import Barrier, Thread
from typing import Any

import pytest
from attack.scene import raw

from tallystone import _cbor, crypto, keystore
from tallystone.errors import Denied, Invalid, NotFound, Taken, TallystoneError, Tampered, Unauthenticated
from tallystone.keystore import Carried
from tallystone.statements import Invitation, PrincipalRecord, issue
from tallystone.store.opening import DATABASE
from tallystone.store.protocol import Batch, Put, Row
from tallystone.store.tables import INVITE, PRINCIPAL
from tallystone.vault import Vault, Workspace
from tallystone.vault.directory import house_of
from tallystone.vault.plan import WS, Plan
from tallystone.vault.types import Credentials

DAY = 86400


def invites(workspace: Workspace) -> list[Row]:
    with workspace.store.snapshot() as snapshot:
        return snapshot.scan(INVITE, (WS,))


def refusal(workspace: Workspace, code: str) -> tuple[str, str, str]:
    with pytest.raises(Unauthenticated) as refused:
        workspace.redeem(code)
    return refused.value.message, refused.value.hint, refused.value.code


def later(workspace: Workspace, seconds: float) -> None:
    then = workspace.clock() + seconds
    workspace.clock = lambda: then


# -- what works -------------------------------------------------------------------------------------------------


def test_a_code_makes_one_user_whose_keys_nobody_else_ever_had(workspace: Workspace, alice: Vault) -> None:
    code = alice.invite("carol", clearance="internal")
    made = workspace.redeem(f" {code}\n")
    carol = workspace.vault(made.token)
    (found,) = [user for user in carol.users() if user.name == "carol"]
    assert (found.id, found.status, found.clearance) == (made.principal, "active", "internal")
    assert workspace.recover(made.kit).principal == made.principal
    block = alice.create_block(label="l", value="for carol")
    alice.share(block.id, "carol", "write")
    assert carol.accept_offer(block.id).value == "for carol"
    mine = carol.create_block(label="mine", value="")
    agent = carol.create_agent({"name": "a"}, block_ids=[mine.id])
    assert workspace.vault(carol.agent_token(agent.id)).block(mine.id).id == mine.id
    with pytest.raises(NotFound):
        alice.block(mine.id)
    assert invites(workspace) == [] == alice.invitations()
    assert workspace.verify().findings == [] and carol.inspect().findings == []
    (event,) = [event for event in alice.events(50) if event.kind == "principal"]
    assert (event.actor, event.detail["invite"]) == (made.principal, code[7:23])


def test_an_invited_user_is_verified_anew_by_another_process(
    workspace: Workspace, alice: Vault, alice_credentials: Credentials, tmp_path: Path
) -> None:
    made = workspace.redeem(alice.invite("carol"))
    crypto._seen.clear()
    with Workspace.open(tmp_path / "data") as again:
        assert again.vault(made.token).principal_id == made.principal
        assert {user.name for user in again.vault(alice_credentials.token).users()} == {"alice", "carol"}


def test_an_invited_user_is_suspended_and_cleared_like_others(workspace: Workspace, alice: Vault) -> None:
    made = workspace.redeem(alice.invite("carol"))
    alice.set_clearance("carol", "restricted")
    alice.suspend("carol")
    with pytest.raises(Unauthenticated):
        workspace.vault(made.token)
    alice.resume("carol")
    assert workspace.vault(made.token).users()[0].status == "active"


def test_the_root_sees_what_is_still_to_be_redeemed(workspace: Workspace, alice: Vault, bob: Vault) -> None:
    code = alice.invite("carol", clearance="confidential", days=2)
    alice.invite("dave", days=1)
    shown = {one.name: one for one in alice.invitations()}
    assert set(shown) == {"carol", "dave"}
    assert shown["carol"].kid == code[7:23] and shown["carol"].clearance == "confidential"
    assert shown["carol"].expires - workspace.now() in range(2 * DAY - 60, 2 * DAY + 1)
    assert [one.kid for one in workspace.vault(alice.create_token(scope="read")).invitations()]
    later(workspace, DAY + 1)
    assert [one.name for one in alice.invitations()] == ["carol"]
    assert len(invites(workspace)) == 2
    assert workspace.purge() >= 1
    assert len(invites(workspace)) == 1
    for attempt in (bob.invitations, lambda: bob.invite("eve"), lambda: bob.revoke_invitation(code[7:23])):
        with pytest.raises(Denied):
            attempt()
    assert workspace.verify().findings == []


# -- what does not ----------------------------------------------------------------------------------------------


def test_used_expired_revoked_unknown_and_wrong_codes_are_refused_alike_and_logged(
    workspace: Workspace, alice: Vault, tmp_path: Path
) -> None:
    used, revoked, old = alice.invite("carol"), alice.invite("dave"), alice.invite("eve", days=1)
    workspace.redeem(used)
    alice.revoke_invitation(revoked[7:23])
    other, root = Workspace.init(tmp_path / "other", "x")
    with other:
        foreign = other.vault(root.token).invite("carol")
    real = keystore.parse_invite(alice.invite("frank"))
    guessed = replace(real, secret=bytes(32)).text
    later(workspace, DAY)
    said = {
        refusal(workspace, code)
        for code in (used, revoked, old, foreign, guessed, "", "nonsense", root.token, used[:-1], "x" * 10**5)
    }
    assert len(said) == 1
    logged = [event for event in alice.events(100) if event.detail.get("code") == "invite"]
    assert len(logged) == 10 and all(event.kind == "denied" for event in logged)
    assert real.text[24:60] not in str(logged)
    assert workspace.redeem(real.text).principal


def test_a_code_redeemed_by_many_at_once_makes_one_user(workspace: Workspace, alice: Vault) -> None:
    code = alice.invite("carol")
    made: list[Credentials] = []
    refused: list[TallystoneError] = []
    start = Barrier(6)

    def redeem() -> None:
        start.wait()
        try:
            made.append(workspace.redeem(code))
        except TallystoneError as error:
            refused.append(error)

    threads = [Thread(target=redeem) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1 and len(refused) == 5
    assert all(isinstance(error, Unauthenticated) for error in refused)
    assert sorted(user.name for user in alice.users()) == ["alice", "carol"]
    assert workspace.verify().findings == []


def test_a_code_that_is_taken_back_while_it_is_redeemed_makes_nobody(
    workspace: Workspace, alice: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = alice.invite("carol")
    commit, tried = workspace.store.commit, []

    def late(batch: Batch, *queued: Any) -> int:
        if (
            any(isinstance(change, Put) and change.table is PRINCIPAL for change in batch.changes)
            and not tried
        ):
            tried.append(batch)
            alice.revoke_invitation(code[7:23])
        return commit(batch, *queued)

    monkeypatch.setattr(workspace.store, "commit", late)
    refusal(workspace, code)
    assert tried and [user.name for user in alice.users()] == ["alice"]


def test_a_name_is_one_users_whichever_way_it_is_given(
    workspace: Workspace, alice: Vault, bob: Vault
) -> None:
    code = alice.invite("carol", days=1)
    for attempt in (
        lambda: alice.invite("bob"),
        lambda: alice.invite(" carol "),
        lambda: alice.add_user("carol"),
    ):
        with pytest.raises(Taken) as taken:
            attempt()
        assert taken.value.code == "name_taken"
    later(workspace, DAY + 1)
    assert alice.add_user("carol").principal
    assert invites(workspace) == []
    refusal(workspace, code)


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": ""}, {"name": "x" * 201}, {"name": "user-1"}, {"days": 0}, {"days": -1}, {"days": 366}, {"days": 1.5},
        {"clearance": "secret"}, {"clearance": ""},
    ],
    ids=str,
)  # fmt: skip
def test_an_invitation_that_makes_no_sense_is_refused(
    workspace: Workspace, alice: Vault, wrong: dict[str, Any]
) -> None:
    with pytest.raises(Invalid) as refused:
        alice.invite(**{"name": "carol", **wrong})
    assert refused.value.hint and invites(workspace) == []


def test_what_is_no_invitation_is_not_taken_back_and_not_repeated(alice: Vault) -> None:
    code = alice.invite("carol")
    with pytest.raises(NotFound) as missed:
        alice.revoke_invitation(code)
    assert code[24:40] not in f"{missed.value.message}{missed.value.hint}"
    assert missed.value.code == "unknown_invitation"
    assert len(alice.invitations()) == 1


def test_the_row_holds_no_name_and_no_key(workspace: Workspace, alice: Vault) -> None:
    code = alice.invite("canary-name")
    (row,) = invites(workspace)
    parsed = keystore.parse_invite(code)
    for secret in (b"canary", parsed.secret, parsed.opening_key(), parsed.signing_seed()):
        assert all(secret not in bytes(cell) for cell in row[3:])


# -- attackers --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("column", [1, 2, 4], ids=["kid", "expiry", "sealed"])
def test_an_invitations_row_that_an_operator_edits_makes_nobody(
    workspace: Workspace, alice: Vault, column: int
) -> None:
    code, other = alice.invite("carol"), alice.invite("dave")
    rows = {str(row[1]): list(row) for row in invites(workspace)}
    row = rows[code[7:23]]
    if column == 1:
        moved = [*rows[other[7:23]][:2], *row[2:]]
        moved[3] = rows[other[7:23]][3]
        workspace.store.commit(Batch([], [Put(INVITE, tuple(moved))], []))
        with pytest.raises(Tampered):
            workspace.redeem(other)
        return
    row[column] = int(row[2]) + DAY if column == 2 else rows[other[7:23]][4]
    workspace.store.commit(Batch([], [Put(INVITE, tuple(row))], []))
    with pytest.raises(Tampered):
        workspace.redeem(code)
    assert [user.name for user in alice.users()] == ["alice"]


def forged(workspace: Workspace, vault: Vault, directory: bytes, **fields: Any) -> str:
    """An invitation as the holder of this vault makes one by hand, its row in the store."""
    caller, invite, expires = vault._caller, keystore.new_invite(), workspace.now() + DAY
    with workspace.store.snapshot() as snapshot:
        plan = Plan(snapshot)
        digest, seed = caller.identity(plan, caller.id).digest, caller.signing_seed(plan)
    word = Invitation(
        invite.kid, crypto.signing_public(invite.signing_seed()), None, expires, caller.id, digest
    )
    body = replace(word, **fields).encode()
    signed = issue("invitation", workspace.id, body, [(digest, seed)])
    sealed = keystore.seal_invitation(invite, expires, Carried("eve", directory, workspace.id, signed))
    row = (WS, invite.kid, expires, invite.verifier, sealed)
    workspace.store.commit(Batch([], [Put(INVITE, row)], []))
    return invite.text


def directory_of(workspace: Workspace, vault: Vault) -> bytes:
    with workspace.store.snapshot() as snapshot:
        house = house_of(vault._caller, Plan(snapshot))
    assert house is not None
    return house.key


def test_only_the_roots_word_invites_anybody(workspace: Workspace, alice: Vault, bob: Vault) -> None:
    directory = directory_of(workspace, bob)
    with workspace.store.snapshot() as snapshot:
        root = alice._caller.identity(Plan(snapshot), alice.principal_id).digest
    for fields in ({}, {"issuer": alice.principal_id}, {"issuer": alice.principal_id, "issuer_record": root}):
        with pytest.raises(Tampered):
            workspace.redeem(forged(workspace, bob, directory, **fields))
    assert sorted(user.name for user in alice.users()) == ["alice", "bob"]
    # by hand, but by the root, it is an invitation
    assert workspace.redeem(forged(workspace, alice, directory)).principal


@pytest.mark.parametrize(
    "fields",
    [{"kid": "a" * 16}, {"expires": 9}, {"public": bytes(32)}, {"issuer": "user-1"}],
    ids=["another code", "another expiry", "another key", "another issuer"],
)
def test_the_roots_word_for_something_else_makes_nobody(
    workspace: Workspace, alice: Vault, fields: dict[str, Any]
) -> None:
    with pytest.raises(Tampered):
        workspace.redeem(forged(workspace, alice, directory_of(workspace, alice), **fields))
    assert [user.name for user in alice.users()] == ["alice"]


def test_who_redeems_an_invitation_cannot_give_itself_a_clearance(workspace: Workspace, alice: Vault) -> None:
    """The invited user is the attacker: it holds code and keys, and writes its first record by hand."""
    parsed = keystore.parse_invite(alice.invite("carol"))
    (row,) = invites(workspace)
    carried = keystore.open_invitation(parsed, int(row[2]), bytes(row[4]))
    seed = crypto.random_bytes()
    record = PrincipalRecord(
        "user", "", 0, bytes(32), crypto.signing_public(seed), crypto.kem_public(seed), alice.principal_id,
        "active", 3, 0,
    )  # fmt: skip
    claims = [(bytes(32), seed), (carried.word.encode(), parsed.signing_seed())]

    def known(record: PrincipalRecord) -> str:
        signed = issue("principal", workspace.id, record.encode(), claims)
        principal = keystore.principal_id(signed)
        cell = _cbor.encode([list(pair) for pair in signed.signatures])
        workspace.store.commit(Batch([], [Put(PRINCIPAL, (WS, principal, 0, signed.body, cell))], []))
        with workspace.store.snapshot() as snapshot:
            return workspace.identity(Plan(snapshot), principal, workspace.id).id

    with pytest.raises(Tampered):
        known(record)
    assert known(replace(record, clearance=None))


def test_a_user_whom_nobody_invited_is_found_by_the_check_of_the_log(
    workspace: Workspace, alice: Vault, tmp_path: Path
) -> None:
    alice.invite("carol")
    with raw(tmp_path / "data" / DATABASE) as connection:
        connection.execute("UPDATE invite SET expires = expires + 86400")
    (finding,) = workspace.verify().findings
    assert finding.where.startswith("invite ")
