"""Agents: made and ended whole, never two blocks of one label, and nothing of theirs lost on the way."""

from __future__ import annotations

from typing import Any

import pytest

from tallystone.errors import Denied, Invalid, NotFound, Taken, TallystoneError, Unauthenticated
from tallystone.store.tables import BLOCK, VERSION
from tallystone.vault import Vault, Workspace
from tallystone.vault.types import Block


@pytest.fixture
def team(alice: Vault) -> Block:
    """A block of Alice's."""
    return alice.create_block(label="team", value="hello")


def rows(workspace: Workspace) -> int:
    with workspace.store.snapshot() as snapshot:
        return len(list(snapshot.rows(BLOCK))) + len(list(snapshot.rows(VERSION)))


def test_an_agent_has_its_existing_blocks_first_and_then_its_private_ones_in_order(
    alice: Vault, team: Block
) -> None:
    rules = alice.create_block(label="rules")
    agent = alice.create_agent(
        {"name": "a", "tools": ["t"], "system": "s"},
        block_ids=[rules.id, team.id, rules.id],
        memory_blocks=[{"label": "persona", "value": "p"}, {"label": "human"}],
    )
    assert [block.label for block in agent.blocks] == ["rules", "team", "persona", "human"]
    assert alice.agent(agent.id) == agent
    assert (agent.name, agent.tools, agent.state["system"], agent.sponsor) == (
        "a",
        ["t"],
        "s",
        alice.principal_id,
    )
    assert {block.label for block in alice.blocks()} == {"rules", "team", "persona", "human"}


@pytest.mark.parametrize(
    "extra",
    [
        {"block_ids": ["block-00000000-0000-4000-8000-000000000000"]},
        {"memory_blocks": [{"label": "x"}, {"label": "x"}]},
        {"memory_blocks": [{"label": "x", "value": "long", "limit": 3}]},
        {"memory_blocks": [{"label": "team"}]},
    ],
    ids=["a missing block", "twin labels", "over a limit", "the label of an attached block"],
)
def test_an_agent_is_made_whole_or_not_at_all(
    workspace: Workspace, alice: Vault, team: Block, extra: dict[str, Any]
) -> None:
    before = rows(workspace)
    blocks = [team.id, *extra.pop("block_ids", [])]
    with pytest.raises((NotFound, Taken, Invalid)):
        alice.create_agent({"name": "a"}, block_ids=blocks, **extra)
    assert (rows(workspace), alice.agents(), alice.block(team.id)) == (before, [], team)


def test_two_blocks_of_one_label_never_meet_on_one_agent(alice: Vault, team: Block) -> None:
    twin = alice.create_block(label="team")
    agent = alice.create_agent({"name": "a"}, block_ids=[team.id], memory_blocks=[{"label": "other"}])
    for attempt in (
        lambda: alice.attach(agent.id, twin.id),
        lambda: alice.edit_agent(agent.id, lambda _: {"block_ids": [team.id, twin.id]}),
        lambda: alice.edit_agent_block(agent.id, "other", lambda _: {"label": "team"}),
        lambda: alice.create_agent({"name": "b"}, block_ids=[team.id, twin.id]),
    ):
        with pytest.raises(Taken):
            attempt()
    assert sorted(block.label for block in alice.agent(agent.id).blocks) == ["other", "team"]


def test_editing_block_ids_replaces_the_whole_set_at_once(alice: Vault, team: Block) -> None:
    rules = alice.create_block(label="rules")
    agent = alice.create_agent({"name": "a"}, block_ids=[team.id])
    after = alice.edit_agent(agent.id, lambda _: {"name": "renamed", "block_ids": [rules.id]})
    assert (after.name, [block.id for block in after.blocks]) == ("renamed", [rules.id])
    assert alice.block(team.id).agent_ids == []
    with pytest.raises(NotFound):
        alice.edit_agent(agent.id, lambda _: {"name": "x", "block_ids": ["block-" + "0" * 36]})
    assert alice.agent(agent.id).name == "renamed"


def test_detach_ends_the_agents_access_and_attach_is_a_new_grant(alice: Vault, team: Block) -> None:
    agent = alice.create_agent({"name": "a"}, block_ids=[team.id])
    first = alice.grants(team.id)[0].number
    alice.detach(agent.id, team.id)
    for attempt in (
        lambda: alice.agent_block(agent.id, "team"),
        lambda: alice.detach(agent.id, team.id),
        lambda: alice.acting_as(agent.id).block(team.id),
    ):
        with pytest.raises(NotFound):
            attempt()
    assert [block.label for block in alice.attach(agent.id, team.id, "read").blocks] == ["team"]
    (grant,) = alice.grants(team.id)
    assert grant.can == "read" and grant.number > first


def test_an_agents_write_names_the_agent_and_the_user_it_acted_under(
    workspace: Workspace, alice: Vault, team: Block
) -> None:
    agent = alice.create_agent({"name": "a"}, block_ids=[team.id])
    block = alice.edit_agent_block(agent.id, "team", lambda _: {"value": "x"}, as_agent=True)
    assert (block.updated_by, block.updated_under) == (agent.id, alice.principal_id)
    own = workspace.vault(alice.agent_token(agent.id))
    block = own.edit_block(team.id, lambda _: {"value": "y"})
    assert (block.updated_by, block.updated_under) == (agent.id, None)
    block = alice.edit_agent_block(agent.id, "team", lambda _: {"value": "z"})
    assert (block.updated_by, block.updated_under) == (alice.principal_id, None)


def test_read_only_and_the_agents_right_bind_its_tools_but_not_its_user(alice: Vault, team: Block) -> None:
    agent = alice.create_agent({"name": "a"}, block_ids=[team.id], access="read")
    with pytest.raises(Denied):
        alice.edit_agent_block(agent.id, "team", lambda _: {"value": "x"}, as_agent=True)
    assert alice.edit_agent_block(agent.id, "team", lambda _: {"value": "y"}).value == "y"
    alice.attach(agent.id, team.id, "write")
    alice.edit_block(team.id, lambda _: {"read_only": True})
    with pytest.raises(Denied):
        alice.edit_agent_block(agent.id, "team", lambda _: {"value": "x"}, as_agent=True)
    assert alice.edit_block(team.id, lambda _: {"value": "z"}).value == "z"


def test_an_agents_token_reaches_the_agent_and_nothing_else_of_its_user(
    workspace: Workspace, alice: Vault, team: Block
) -> None:
    agent = alice.create_agent({"name": "a"}, block_ids=[team.id])
    other = alice.create_agent({"name": "b"}, memory_blocks=[{"label": "private"}])
    private = other.blocks[0].id
    vault = workspace.vault(alice.agent_token(agent.id))
    assert [block.id for block in vault.blocks()] == [team.id]
    assert [one.id for one in vault.agents()] == [agent.id]
    for attempt in (
        lambda: vault.block(private),
        lambda: vault.agent(other.id),
        lambda: vault.acting_as(other.id),
        lambda: vault.agent_block(other.id, "private"),
    ):
        with pytest.raises(NotFound):
            attempt()
    for attempt in (
        lambda: vault.create_agent({"name": "c"}),
        lambda: vault.attach(agent.id, team.id),
        lambda: vault.detach(agent.id, team.id),
        lambda: vault.delete_agent(agent.id),
        lambda: vault.edit_agent(agent.id, lambda _: {"name": "x"}),
        lambda: vault.share(team.id, alice.principal_id),
        lambda: vault.add_user("mallory"),
    ):
        with pytest.raises((Denied, NotFound)):
            attempt()


def test_deleting_an_agent_ends_its_tokens_and_private_blocks_and_keeps_what_is_shared(
    workspace: Workspace, alice: Vault, team: Block
) -> None:
    agent = alice.create_agent(
        {"name": "a"}, block_ids=[team.id], memory_blocks=[{"label": "mine"}, {"label": "also b's"}]
    )
    private, kept = (block.id for block in agent.blocks[1:])
    other = alice.create_agent({"name": "b"}, block_ids=[kept])
    token = alice.agent_token(agent.id)
    alice.edit_agent_block(agent.id, "team", lambda _: {"value": "signed by the agent"}, as_agent=True)
    alice.delete_agent(agent.id)
    with pytest.raises(Unauthenticated):
        workspace.vault(token)
    for attempt in (
        lambda: alice.agent(agent.id),
        lambda: alice.block(private),
        lambda: alice.agent_token(agent.id),
    ):
        with pytest.raises(NotFound):
            attempt()
    assert alice.block(team.id).value == "signed by the agent"  # what it signed stays readable
    assert [block.id for block in alice.agent(other.id).blocks] == [kept]
    assert [one.principal for one in alice.tokens() if one.principal == agent.id] == []
    with pytest.raises(NotFound):
        alice.share(team.id, agent.id)
    assert workspace.verify().findings == []


def test_a_block_that_an_agent_made_itself_is_not_lost_by_attach_or_detach(
    workspace: Workspace, alice: Vault
) -> None:
    agent = alice.create_agent({"name": "a"})
    own = workspace.vault(alice.agent_token(agent.id))
    block = own.create_block(label="diary", value="dear diary")
    own.share(block.id, alice.principal_id, "write")
    alice = workspace.vault(alice.create_token())
    alice.accept_offer(block.id)
    alice.attach(agent.id, block.id)
    for attempt in (
        lambda: alice.detach(agent.id, block.id),
        lambda: alice.edit_agent(agent.id, lambda _: {"block_ids": []}),
    ):
        with pytest.raises(Denied):
            attempt()
    assert own.block(block.id).rights == "owner"
    own.edit_block(block.id, lambda _: {"read_only": True})
    assert own.block(block.id).read_only and alice.block(block.id).read_only


def test_what_an_ended_agent_owned_ends_with_it_for_nobody_else_could(
    workspace: Workspace, alice: Vault
) -> None:
    before = rows(workspace)
    agent = alice.create_agent({"name": "a"})
    workspace.vault(alice.agent_token(agent.id)).create_block(label="diary", value="dear diary")
    alice.delete_agent(agent.id)
    assert rows(workspace) == before
    assert workspace.verify().findings == []


def test_another_users_agent_is_a_miss_everywhere(alice: Vault, bob: Vault, team: Block) -> None:
    agent = alice.create_agent({"name": "a"}, block_ids=[team.id])
    mine = bob.create_block(label="mine")
    for attempt in (
        lambda: bob.agent(agent.id),
        lambda: bob.acting_as(agent.id),
        lambda: bob.agent_blocks(agent.id),
        lambda: bob.agent_block(agent.id, "team"),
        lambda: bob.edit_agent_block(agent.id, "team", lambda _: {"value": "x"}),
        lambda: bob.edit_agent(agent.id, lambda _: {"name": "x"}),
        lambda: bob.attach(agent.id, mine.id),
        lambda: bob.detach(agent.id, team.id),
        lambda: bob.delete_agent(agent.id),
        lambda: bob.agent_token(agent.id),
    ):
        with pytest.raises(NotFound):
            attempt()
    assert bob.agents() == []


def test_pages_of_agents_and_of_an_agents_blocks_are_walked_both_ways(alice: Vault) -> None:
    agents = [alice.create_agent({"name": f"a{n}"}).id for n in range(7)]
    blocks = [alice.create_block(label=f"b{n}").id for n in range(7)]
    for block in blocks:
        alice.attach(agents[0], block)
    for listed, expected in (
        (lambda **page: alice.agents(with_blocks=False, **page), agents),
        (lambda **page: alice.agent_blocks(agents[0], **page), blocks),
    ):
        assert [one.id for one in listed()] == expected
        assert [one.id for one in listed(reverse=True)] == expected[::-1]
        assert [one.id for one in listed(after=expected[2], limit=2)] == expected[3:5]
        assert [one.id for one in listed(before=expected[5], limit=2)] == expected[3:5]
        assert [one.id for one in listed(after=expected[5], limit=2, reverse=True)] == expected[3:5][::-1]
        with pytest.raises(TallystoneError) as refused:
            listed(after="block-00000000-0000-4000-8000-000000000000")
        assert refused.value.code == "bad_cursor"
