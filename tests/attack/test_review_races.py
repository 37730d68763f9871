"""Two processes on one directory, and who is overtaken by whom: each test is a finding of a review."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tallystone.errors import NotFound, Taken, TallystoneError
from tallystone.letta import routes_blocks
from tallystone.letta.call import Call, Query, Retry
from tallystone.store.protocol import Batch
from tallystone.vault import Vault, Workspace
from tallystone.vault.memory import AddBlock, EditBlock
from tallystone.vault.types import Block, Credentials

T = TypeVar("T")


@pytest.fixture
def beside(tmp_path: Path, workspace: Workspace) -> Iterator[Workspace]:
    """The same workspace as another process has it open."""
    with Workspace.open(tmp_path / "data") as other:
        yield other


def overtaken(workspace: Workspace, work: Callable[[], T], meanwhile: Callable[[], Any]) -> T:
    """Do `work`, with `meanwhile` happening once between its decision and its commit."""
    store: Any = workspace.store  # `Any`, since its `commit` is replaced for a while
    commit, happened = store.commit, []

    def late(batch: Batch, *queued: Any) -> None:
        if batch.expects and batch.changes and not happened:
            happened.append(meanwhile())
        commit(batch, *queued)

    store.commit = late
    try:
        return work()
    finally:
        store.commit = commit
        assert len(happened) == 1


def late_edit(
    meanwhile: Callable[[], Any], **fields: Any
) -> tuple[Callable[[Block], dict[str, Any]], list[Any]]:
    """An edit during which, the first time that it is asked, something else happens; and what that returned."""
    happened: list[Any] = []

    def edit(block: Block) -> dict[str, Any]:
        if not happened:
            happened.append(meanwhile())
        return dict(fields)

    return edit, happened


# -- writes by an agent that loses the block --------------------------------------------------------------------


def _detach(vault: Vault, agent: str, block: str) -> None:
    vault.detach(agent, block)


def _delete(vault: Vault, agent: str, block: str) -> None:
    vault.delete_agent(agent)


@pytest.mark.parametrize("end", [_detach, _delete], ids=["detach", "delete"])
@pytest.mark.parametrize("way", ["by label", "as agent", "memory", "own token"])
def test_no_write_of_an_agent_commits_after_it_lost_the_block(
    workspace: Workspace,
    beside: Workspace,
    alice: Vault,
    bob: Vault,
    bob_credentials: Credentials,
    end: Callable[[Vault, str, str], None],
    way: str,
) -> None:
    """Alice gave the block to the agent itself: so its end changes no row of the block."""
    agent = bob.create_agent({"name": "B"}).id
    block = alice.create_block(label="team", value="before").id
    alice.share(block, agent, "write")
    bob.offers()
    bob.accept_offer(block)
    own = workspace.vault(bob.agent_token(agent))
    other = beside.vault(bob_credentials.token)
    edit, happened = late_edit(lambda: end(other, agent, block), value="late")
    with pytest.raises(TallystoneError):
        if way == "by label":
            bob.edit_agent_block(agent, "team", edit, as_agent=True)
        elif way == "as agent":
            bob.acting_as(agent).edit_block(block, edit)
        elif way == "memory":
            bob.change_memory(agent, [EditBlock("team", edit)])
        else:
            own.edit_block(block, edit)
    assert happened and alice.block(block).value == "before"


def test_a_block_shared_with_an_agent_that_is_deleted_meanwhile_is_not_shared(
    workspace: Workspace, beside: Workspace, alice: Vault, bob: Vault, bob_credentials: Credentials
) -> None:
    agent, block = bob.create_agent({"name": "B"}).id, alice.create_block(label="team").id
    other = beside.vault(bob_credentials.token)
    with pytest.raises(NotFound):
        overtaken(workspace, lambda: alice.share(block, agent, "read"), lambda: other.delete_agent(agent))
    assert alice.grants(block) == []


def test_no_token_is_made_for_an_agent_that_is_deleted_meanwhile(
    workspace: Workspace, beside: Workspace, alice: Vault, alice_credentials: Credentials
) -> None:
    agent = alice.create_agent({"name": "A"}).id
    other = beside.vault(alice_credentials.token)
    count = len(alice.tokens())
    with pytest.raises(NotFound):
        overtaken(workspace, lambda: alice.agent_token(agent), lambda: other.delete_agent(agent))
    assert len(alice.tokens()) == count


def test_of_two_users_added_with_one_name_at_once_one_is_taken(
    workspace: Workspace, beside: Workspace, alice: Vault, alice_credentials: Credentials
) -> None:
    other = beside.vault(alice_credentials.token)
    with pytest.raises(Taken):
        overtaken(workspace, lambda: alice.add_user("dave"), lambda: other.add_user("dave"))
    assert sorted(user.name for user in alice.users()) == ["alice", "dave"]


# -- labels that change hands -----------------------------------------------------------------------------------


def test_an_edit_by_label_does_not_reach_a_block_that_was_renamed_meanwhile(
    beside: Workspace, alice: Vault, alice_credentials: Credentials
) -> None:
    agent = alice.create_agent({"name": "A"}, memory_blocks=[{"label": "scratch", "value": "before"}])
    other, block = beside.vault(alice_credentials.token), agent.blocks[0].id
    edit, happened = late_edit(
        lambda: other.edit_block(block, lambda b: {"label": "published"}), value="late"
    )
    with pytest.raises(NotFound):
        alice.edit_agent_block(agent.id, "scratch", edit, as_agent=True)
    assert happened and alice.block(block).value == "before"


@pytest.mark.parametrize("second", ["attach", "rename", "block_ids", "memory"])
@pytest.mark.parametrize("first", ["attach", "rename", "block_ids", "memory"])
def test_two_blocks_that_come_to_one_label_at_once_do_not_both_stay_on_an_agent(
    workspace: Workspace,
    beside: Workspace,
    alice: Vault,
    alice_credentials: Credentials,
    first: str,
    second: str,
) -> None:
    other, agent = beside.vault(alice_credentials.token), alice.create_agent({"name": "A"}).id
    fresh = [alice.create_block(label="l").id for _ in range(2)]
    there = [alice.create_block(label=f"other {n}").id for n in range(2)]
    for n, way in enumerate((first, second)):
        if way == "rename":
            alice.attach(agent, there[n])

    def come(vault: Vault, way: str, n: int) -> None:
        if way == "attach":
            vault.attach(agent, fresh[n])
        elif way == "rename":
            vault.edit_block(there[n], lambda b: {"label": "l"})
        elif way == "block_ids":
            vault.edit_agent(agent, lambda a: {"block_ids": [*(block.id for block in a.blocks), fresh[n]]})
        else:
            vault.change_memory(agent, [AddBlock({"label": "l"})])

    with pytest.raises(Taken):
        overtaken(workspace, lambda: come(alice, first, 0), lambda: come(other, second, 1))
    assert [block.label for block in alice.agent(agent).blocks].count("l") == 1


@pytest.mark.parametrize("first", ["theirs", "own"])
def test_a_label_that_somebody_else_takes_over_never_draws_an_agents_writes(
    workspace: Workspace, alice: Vault, bob: Vault, first: str
) -> None:
    team = alice.create_block(label="team", value="t").id
    alice.share(team, "bob", "write")
    bob.offers()
    bob.accept_offer(team)
    private = {"label": "private", "value": "mine"}
    if first == "theirs":
        agent = bob.create_agent({"name": "B"}, block_ids=[team], memory_blocks=[private]).id
    else:
        agent = bob.create_agent({"name": "B"}, memory_blocks=[private]).id
        bob.attach(agent, team)
    own = bob.agent_block(agent, "private").id
    alice.edit_block(team, lambda b: {"label": "private"})

    def append(line: str) -> Callable[[Block], dict[str, Any]]:
        return lambda block: {"value": f"{block.value}\n{line}"}

    itself = workspace.vault(bob.agent_token(agent))
    assert bob.edit_agent_block(agent, "private", append("one"), as_agent=True).id == own
    assert bob.edit_agent_block(agent, "private", append("two")).id == own
    bob.change_memory(agent, [EditBlock("private", append("three"))])
    assert itself.edit_agent_block(agent, "private", append("four"), as_agent=True).id == own
    assert bob.agent_block(agent, "private").id == itself.agent_block(agent, "private").id == own
    assert bob.block(own).value == "mine\none\ntwo\nthree\nfour"
    assert alice.block(team).value == "t"
    assert bob.edit_agent(agent, lambda a: {"name": "renamed"}).name == "renamed"


# -- a request that its own retry overtakes ---------------------------------------------------------------------


def test_a_request_that_its_retry_overtook_answers_what_the_retry_was_told(
    workspace: Workspace, beside: Workspace, alice: Vault, alice_credentials: Credentials
) -> None:
    def create(vault: Vault, attempt: int) -> bytes:
        retry = Retry(b"k" * 32, attempt, b"b" * 32)
        return routes_blocks.create(Call(vault, {}, Query(""), {}, b'{"label":"l"}', retry)).content()

    other, told = beside.vault(alice_credentials.token), []
    answer = overtaken(workspace, lambda: create(alice, 0), lambda: told.append(create(other, 1)))
    assert [answer] == told
    assert [block.label for block in alice.blocks()] == ["l"]
    assert alice.create_block(label="next").label == "next"
    assert alice.create_block(label="third").label == "third"
    assert len(other.blocks()) == 3


# -- keys that must change first --------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["by label", "as agent", "memory"])
def test_the_owners_agents_write_at_once_after_a_grantee_took_its_placement_back(
    workspace: Workspace, alice: Vault, bob: Vault, way: str
) -> None:
    block = alice.create_block(label="team", value="t").id
    agent = alice.create_agent({"name": "A"}, block_ids=[block]).id
    alice.share(block, "bob", "read")
    bob.offers()
    bob.accept_offer(block)
    bobs = bob.create_agent({"name": "B"}, block_ids=[block]).id
    bob.detach(bobs, block)

    def edit(_: Block) -> dict[str, Any]:
        return {"value": "written"}

    if way == "by label":
        alice.edit_agent_block(agent, "team", edit, as_agent=True)
    elif way == "as agent":
        alice.acting_as(agent).edit_block(block, edit)
    else:
        alice.change_memory(agent, [EditBlock("team", edit)])
    assert alice.block(block).value == bob.block(block).value == "written"
    assert workspace.verify().ok
