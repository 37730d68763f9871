"""Who gets in: users, tokens, recovery, the embedded library, retried requests; and what the log shows to each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest

import tallystone
from tallystone.errors import (
    Denied,
    Invalid,
    NotFound,
    StoreError,
    Taken,
    TallystoneError,
    Tampered,
    Unauthenticated,
)
from tallystone.store.protocol import Batch, Put
from tallystone.store.tables import PRINCIPAL, TOKEN, WORKSPACE
from tallystone.vault import Vault, Workspace
from tallystone.vault.plan import WS
from tallystone.vault.replies import Repeated
from tallystone.vault.types import Block, Credentials

# -- tokens -----------------------------------------------------------------------------------------------------


def test_a_revoked_token_ends_also_for_whoever_is_in_already(workspace: Workspace, alice: Vault) -> None:
    text = alice.create_token(label="laptop")
    inside = workspace.vault(text)
    (info,) = [one for one in alice.tokens() if one.label == "laptop"]
    assert (info.kid, info.scope, info.expires, info.principal) == (
        text[6:22],
        "full",
        None,
        alice.principal_id,
    )
    alice.revoke_token(info.kid)
    with pytest.raises(Unauthenticated):
        inside.blocks()
    with pytest.raises(Unauthenticated):
        workspace.vault(text)
    with pytest.raises(NotFound):
        alice.revoke_token(info.kid)


def test_an_expired_token_ends_at_its_second(workspace: Workspace, alice: Vault) -> None:
    soon = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)
    text = alice.create_token(expires=soon)
    inside = workspace.vault(text)
    workspace.clock = lambda: soon.timestamp() - 1
    assert inside.blocks() == []
    workspace.clock = soon.timestamp
    with pytest.raises(Unauthenticated):
        inside.blocks()
    with pytest.raises(Unauthenticated):
        workspace.vault(text)


def test_a_token_is_not_made_to_be_useless(alice: Vault) -> None:
    useless: tuple[dict[str, Any], ...] = (
        {"scope": "admin"},
        {"expires": datetime(2020, 1, 1, tzinfo=UTC)},
        {"expires": datetime(2999, 1, 1)},
        {"label": "x" * 201},
    )
    for wrong in useless:
        with pytest.raises(Invalid):
            alice.create_token(**wrong)


def test_nobody_sees_or_ends_anothers_tokens(alice: Vault, bob: Vault) -> None:
    agent = alice.create_agent({"name": "a"})
    alice.agent_token(agent.id)
    assert {one.principal for one in alice.tokens()} == {alice.principal_id, agent.id}
    assert {one.principal for one in bob.tokens()} == {bob.principal_id}
    with pytest.raises(NotFound):
        bob.revoke_token(alice.tokens()[0].kid)


def test_unknown_wrong_and_revoked_tokens_are_refused_alike(
    workspace: Workspace, alice: Vault, tmp_path: Path
) -> None:
    revoked = alice.create_token()
    alice.revoke_token(revoked[6:22])
    other, foreign = Workspace.init(tmp_path / "other", "x")
    other.close()
    said = set()
    for text in (revoked, foreign.token):
        with pytest.raises(Unauthenticated) as refused:
            workspace.vault(text)
        said.add((str(refused.value), refused.value.hint, refused.value.code))
    assert len(said) == 1


@pytest.mark.parametrize(
    ("column", "value"), [(3, "full"), (5, None), (2, None)], ids=["scope", "expiry", "principal"]
)
def test_a_token_row_that_an_operator_edited_opens_nothing(
    workspace: Workspace, alice: Vault, bob: Vault, column: int, value: object
) -> None:
    text = alice.create_token(scope="read", expires=datetime(2999, 1, 1, tzinfo=UTC))
    with workspace.store.snapshot() as snapshot:
        row = snapshot.get(TOKEN, (WS, text[6:22]))
    assert row is not None
    edited = list(row)
    edited[column] = bob.principal_id if column == 2 else value
    workspace.store.commit(Batch([], [Put(TOKEN, tuple(edited))], []))
    with pytest.raises((Tampered, Unauthenticated)):
        workspace.vault(text)


# -- users ------------------------------------------------------------------------------------------------------


def test_only_the_first_user_adds_users_and_names_are_theirs_alone(alice: Vault, bob: Vault) -> None:
    with pytest.raises(Denied):
        bob.add_user("carol")
    for name in ("bob", " bob "):
        with pytest.raises(Taken):
            alice.add_user(name)
    for name in ("", " ", "a\nb", "x" * 201, "user-1", "agent-1", "\x00"):
        with pytest.raises(Invalid):
            alice.add_user(name)
    assert {(user.name, user.id) for user in bob.users()} == {
        ("alice", alice.principal_id),
        ("bob", bob.principal_id),
    }


def test_the_first_user_gains_no_access_to_what_others_own(alice: Vault, bob: Vault) -> None:
    block = bob.create_block(label="bobs", value="private")
    agent = bob.create_agent({"name": "b"})
    for attempt in (
        lambda: alice.block(block.id),
        lambda: alice.agent(agent.id),
        lambda: alice.share(block.id, "alice"),
    ):
        with pytest.raises(NotFound):
            attempt()
    assert (alice.blocks(), alice.agents(), alice.access()) == ([], [], [])


def test_a_kit_alone_gets_its_user_back_in_and_opens_no_other_workspace(
    workspace: Workspace,
    alice: Vault,
    alice_credentials: Credentials,
    bob_credentials: Credentials,
    tmp_path: Path,
) -> None:
    block = alice.create_block(label="l", value="kept")
    for info in alice.tokens():
        if info.principal == alice.principal_id:
            alice.revoke_token(info.kid)
    back = workspace.recover(alice_credentials.kit)
    assert workspace.vault(back.token).block(block.id).value == "kept"
    assert workspace.recover(bob_credentials.kit).principal == bob_credentials.principal
    other, _ = Workspace.init(tmp_path / "other", "x")
    with other, pytest.raises(Unauthenticated):
        other.recover(alice_credentials.kit)
    mixed = bob_credentials.kit.replace(bob_credentials.principal, alice_credentials.principal)
    with pytest.raises(Unauthenticated):
        workspace.recover(mixed)
    with pytest.raises(Invalid):
        workspace.recover("not a kit")
    assert workspace.verify().findings == []


def test_a_workspace_record_or_a_principal_that_an_operator_swapped_is_not_believed(
    alice: Vault, alice_credentials: Credentials, workspace: Workspace, tmp_path: Path
) -> None:
    other, _ = Workspace.init(tmp_path / "other", "mallory")
    with other.store.snapshot() as snapshot:
        foreign = snapshot.get(WORKSPACE, (WS,))
        mallory = next(iter(snapshot.rows(PRINCIPAL)))
    other.close()
    assert foreign is not None
    row = list(mallory)
    row[1] = alice.principal_id
    workspace.store.commit(Batch([], [Put(PRINCIPAL, tuple(row))], []))
    with pytest.raises(Tampered):
        workspace.vault(alice_credentials.token)


# -- the embedded library ---------------------------------------------------------------------------------------


def test_a_program_opens_a_vault_by_path_and_token(
    alice: Vault, alice_credentials: Credentials, tmp_path: Path
) -> None:
    block = alice.create_block(label="l", value="v")
    with tallystone.open(tmp_path / "data", token=alice_credentials.token) as vault:
        assert vault.block(block.id).value == "v"
    with pytest.raises(StoreError):
        vault.block(block.id)
    with pytest.raises(Unauthenticated):
        tallystone.open(tmp_path / "data", token="nonsense")
    for wrong in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(StoreError) as refused:
            tallystone.open(wrong, token=alice_credentials.token)
        assert refused.value.hint


def test_an_asynchronous_program_opens_one_too(
    alice: Vault, alice_credentials: Credentials, tmp_path: Path
) -> None:
    async def program() -> list[str]:
        async with await tallystone.aopen(tmp_path / "data", token=alice_credentials.token) as vault:
            block = await vault.create_block(label="l", value="")
            agent = await vault.create_agent({"name": "a"}, block_ids=[block.id])
            await asyncio.gather(
                *(vault.edit_block(block.id, lambda b, n=n: {"value": f"{b.value}{n}\n"}) for n in range(20))
            )
            acting = await vault.acting_as(agent.id)
            await acting.edit_block(block.id, lambda b: {"value": f"{b.value}agent\n"})
            return (await vault.block(block.id)).value.split()

    lines = asyncio.run(program())
    assert sorted(lines) == sorted([*(str(n) for n in range(20)), "agent"])


# -- retried requests -------------------------------------------------------------------------------------------


def test_a_retried_request_gets_the_first_answer_and_does_nothing_again(
    workspace: Workspace, alice_credentials: Credentials
) -> None:
    def post(attempt: int, key: bytes = b"k" * 32, who: str = alice_credentials.token) -> bytes:
        vault = workspace.vault(who)
        known = vault.once(key, attempt, lambda block: block.id.encode())
        if known is not None:
            return known
        try:
            return vault.create_block(label="l").id.encode()
        except Repeated as repeated:
            return repeated.answer

    first = post(0)
    assert post(1) == first == post(2)
    assert post(1, b"j" * 32) != first
    vault = workspace.vault(alice_credentials.token)
    assert len(vault.blocks()) == 2
    bob = vault.add_user("bob")
    assert post(1, who=bob.token) != first
    now = workspace.clock()
    workspace.clock = lambda: now + 121
    assert post(1) != first
    assert workspace.purge() > 0
    assert workspace.verify().findings == []


def test_of_equal_first_requests_at_once_each_is_done_and_none_twice(
    workspace: Workspace, tmp_path: Path, alice: Vault, alice_credentials: Credentials
) -> None:
    """Thirty agents that create a block with the same default body, through two servers on one store."""
    others, start, rendered = 30, Barrier(30), []

    def post(number: int, server: Workspace) -> str:
        vault = server.vault(alice_credentials.token)

        def render(block: Block) -> bytes:
            rendered.append(number)
            return block.id.encode()

        start.wait()
        assert vault.once(b"k" * 32, 0, render) is None
        return vault.create_block(label="l").id

    with Workspace.open(tmp_path / "data") as second, ThreadPoolExecutor(others) as pool:
        made = set(pool.map(post, range(others), [workspace, second] * (others // 2)))
    assert len(made) == others and made == {block.id for block in alice.blocks()}
    assert len(rendered) == others  # none had to run again
    assert workspace.vault(alice_credentials.token).once(b"k" * 32, 1, lambda _: b"") in {
        one.encode() for one in made
    }
    assert workspace.verify().findings == []


def test_of_a_request_and_its_retry_in_two_processes_one_is_done_whoever_comes_first(
    workspace: Workspace, alice_credentials: Credentials
) -> None:
    def begin(attempt: int) -> Callable[[], str]:
        vault = workspace.vault(alice_credentials.token)
        assert vault.once(b"k" * 32, attempt, lambda block: block.id.encode()) is None

        def finish() -> str:
            try:
                return vault.create_block(label="l").id
            except Repeated as repeated:
                return repeated.answer.decode()

        return finish

    def told(attempt: int) -> str:
        answer = workspace.vault(alice_credentials.token).once(b"k" * 32, attempt, lambda _: b"")
        return (answer or b"").decode()

    first, retry = begin(0), begin(1)
    made = retry()
    assert first() == made == told(1)  # overtaken: its own retry was done, so it is not
    another = begin(0)()  # it began after that was answered: another request, which its retry is told of
    assert another != made and told(1) == another and told(0) == ""
    now = workspace.clock()
    workspace.clock = lambda: now + 121
    first, retry = begin(0), begin(2)
    assert first() == retry() == told(2)
    assert len(workspace.vault(alice_credentials.token).blocks()) == 3


# -- the log ----------------------------------------------------------------------------------------------------


def test_the_owner_sees_who_did_what_and_a_grantee_only_its_own_doings(
    workspace: Workspace, alice: Vault, bob_credentials: Credentials
) -> None:
    block = alice.create_block(label="l", value="v")
    agent = alice.create_agent({"name": "a"}, block_ids=[block.id])
    alice.edit_agent_block(agent.id, "l", lambda _: {"value": "w"}, as_agent=True)
    alice.share(block.id, "bob", "write")
    bob = workspace.vault(bob_credentials.token)
    bob.accept_offer(block.id)
    bob.edit_block(block.id, lambda _: {"value": "x"})
    mine = bob.create_block(label="bobs")
    seen = {(event.kind, event.actor) for event in alice.events(100)}
    assert {("create", alice.principal_id), ("update", agent.id), ("share", alice.principal_id)} <= seen
    (write,) = [event for event in alice.events(100) if event.kind == "update" and event.actor == agent.id]
    assert write.under == alice.principal_id and write.detail["block"] == block.id
    own = bob.events(100)
    assert {event.actor for event in own} == {bob.principal_id}
    assert mine.id in {event.detail.get("block") for event in own}
    assert [event.seq for event in own] == sorted(event.seq for event in own)


def test_refusals_are_logged_for_the_first_user_and_hold_no_secret(
    workspace: Workspace, alice: Vault, bob: Vault
) -> None:
    block = alice.create_block(label="canary-label", value="canary-value")
    with pytest.raises(NotFound):
        bob.block(block.id)
    reader = workspace.vault(alice.create_token(scope="read"))
    with pytest.raises(Denied):
        reader.delete_block(block.id)
    workspace.denied({"code": "unauthenticated"})
    denied = [event for event in alice.events(200) if event.kind == "denied"]
    assert {(event.actor, event.detail["code"]) for event in denied} >= {
        (bob.principal_id, "not_found"), (alice.principal_id, "read_only_token"), ("", "unauthenticated"),
    }  # fmt: skip
    assert "canary" not in str(denied)
    assert [event.actor for event in bob.events(200) if event.kind == "denied"] == [bob.principal_id]


def test_events_are_followed_from_a_leaf_on(alice: Vault) -> None:
    alice.create_block(label="one")
    last = alice.events(1)[0].seq
    alice.create_block(label="two")
    alice.create_block(label="three")
    assert [event.kind for event in alice.events(10, after=last)] == ["create", "create"]
    assert [event.kind for event in alice.events(1, after=last)] == ["create"]


def test_every_kind_of_operation_leaves_its_leaf_before_it_answers(
    workspace: Workspace, alice: Vault
) -> None:
    def leaves() -> int:
        return workspace.verify().leaves

    block = alice.create_block(label="l", value="v")
    agent = alice.create_agent({"name": "a"})
    alice.create_block(label="for the day's auditor key")
    with pytest.raises(TallystoneError):
        alice.block("block-00000000-0000-4000-8000-000000000000")
    for operation in (
        lambda: alice.block(block.id),
        lambda: alice.blocks(),
        lambda: alice.agent(agent.id),
        lambda: alice.agents(),
        lambda: alice.attach(agent.id, block.id),
        lambda: alice.agent_block(agent.id, "l"),
        lambda: alice.agent_blocks(agent.id),
        lambda: alice.block_agents(block.id),
        lambda: alice.grants(block.id),
        lambda: alice.access(),
        lambda: alice.offers(),
        lambda: alice.users(),
        lambda: alice.tokens(),
        lambda: alice.edit_block(block.id, lambda _: {"value": "w"}),
        lambda: alice.detach(agent.id, block.id),
        lambda: alice.create_token(),
        lambda: alice.delete_agent(agent.id),
        lambda: alice.delete_block(block.id),
    ):
        before = leaves()
        operation()
        assert leaves() > before, operation
