"""Sharing, offers, revoking: who reaches a block, through what, and that an end is an end."""

from __future__ import annotations

import pytest

from tallystone.errors import Denied, Invalid, NotFound, Taken
from tallystone.store.tables import GRANT_WRAP, INBOX, LEDGER
from tallystone.vault import Vault, Workspace
from tallystone.vault.caller import Caller
from tallystone.vault.plan import WS
from tallystone.vault.types import Block, Credentials


@pytest.fixture
def team(alice: Vault) -> Block:
    """A block of Alice's."""
    return alice.create_block(label="team", value="hello")


@pytest.fixture
def carol(workspace: Workspace, alice: Vault) -> Vault:
    """A third user."""
    return workspace.vault(alice.add_user("carol").token)


def again(workspace: Workspace, credentials: Credentials) -> Vault:
    """The same user's next request, which empties the inbox."""
    return workspace.vault(credentials.token)


def appended(line: str) -> dict[str, str]:
    return {"value": line}


# -- offers -----------------------------------------------------------------------------------------------------


def test_a_block_shared_uninvited_is_an_offer_and_nothing_else_until_it_is_accepted(
    workspace: Workspace, alice: Vault, bob: Vault, bob_credentials: Credentials, team: Block
) -> None:
    agent = bob.create_agent({"name": "b"})
    alice.share(team.id, "bob", "write")
    bob = again(workspace, bob_credentials)
    (offer,) = bob.offers()
    assert (offer.block_id, offer.label, offer.owner_name, offer.can) == (team.id, "team", "alice", "write")
    assert bob.blocks() == []
    for attempt in (
        lambda: bob.block(team.id),
        lambda: bob.edit_block(team.id, lambda _: appended("x")),
        lambda: bob.attach(agent.id, team.id),
        lambda: bob.create_agent({"name": "c"}, block_ids=[team.id]),
        lambda: bob.share(team.id, agent.id),
        lambda: bob.grants(team.id),
        lambda: bob.delete_block(team.id),
    ):
        with pytest.raises(NotFound):
            attempt()
    accepted = bob.accept_offer(team.id)
    assert (accepted.value, accepted.rights, accepted.offered) == ("hello", "write", False)
    assert [block.id for block in bob.blocks()] == [team.id]
    assert bob.offers() == []


def test_a_declined_offer_is_gone_and_a_new_grant_is_a_new_offer(
    workspace: Workspace, alice: Vault, bob_credentials: Credentials, team: Block
) -> None:
    alice.share(team.id, "bob", "read")
    bob = again(workspace, bob_credentials)
    bob.decline_offer(team.id)
    assert (bob.offers(), bob.blocks()) == ([], [])
    with pytest.raises(NotFound):
        bob.accept_offer(team.id)
    alice.share(team.id, "bob", "write")
    assert [offer.can for offer in again(workspace, bob_credentials).offers()] == ["write"]


def test_an_offer_to_somebodys_agent_is_accepted_by_its_user(
    workspace: Workspace, alice: Vault, bob: Vault, team: Block
) -> None:
    agent = bob.create_agent({"name": "b"})
    alice.share(team.id, agent.id, "write")
    (offer,) = bob.offers()
    assert offer.recipient == agent.id
    assert bob.agent(agent.id).blocks == []
    bob.accept_offer(team.id)
    assert [block.id for block in bob.agent(agent.id).blocks] == [team.id]
    with pytest.raises(NotFound):
        bob.block(team.id)
    bob.edit_agent_block(agent.id, "team", lambda _: appended("by bob's agent"), as_agent=True)
    assert alice.block(team.id).updated_by == agent.id


def test_a_grant_that_ended_before_anybody_looked_leaves_no_capsule_behind(
    workspace: Workspace, alice: Vault, bob: Vault, bob_credentials: Credentials, team: Block
) -> None:
    alice.share(team.id, "bob")
    alice.revoke(team.id, "bob")
    with workspace.store.snapshot() as snapshot:
        assert list(snapshot.scan(INBOX, (WS, bob.principal_id))) == []
    assert again(workspace, bob_credentials).offers() == []


def test_a_capsule_opens_for_its_recipient_only(
    workspace: Workspace, alice: Vault, bob: Vault, carol: Vault, team: Block
) -> None:
    alice.share(team.id, "bob")
    assert carol.offers() == []
    with pytest.raises(NotFound):
        carol.accept_offer(team.id)


# -- rights -----------------------------------------------------------------------------------------------------


def test_a_reader_neither_writes_nor_changes_settings_nor_shares_nor_deletes(
    workspace: Workspace, alice: Vault, bob_credentials: Credentials, carol: Vault, team: Block
) -> None:
    alice.share(team.id, "bob", "read")
    bob = again(workspace, bob_credentials)
    bob.accept_offer(team.id)
    for attempt in (
        lambda: bob.edit_block(team.id, lambda _: appended("x")),
        lambda: bob.edit_block(team.id, lambda now: appended(now.value)),  # as it is: no less refused
        lambda: bob.edit_block(team.id, lambda _: {"label": "x"}),
        lambda: bob.edit_block(team.id, lambda _: {"read_only": True}),
        lambda: bob.edit_block(team.id, lambda _: {"limit": 5}),
        lambda: bob.edit_block(team.id, lambda _: {"locked": True}),
        lambda: bob.share(team.id, carol.principal_id),
        lambda: bob.delete_block(team.id),
    ):
        with pytest.raises(Denied):
            attempt()
    assert alice.block(team.id) == team


def test_a_writer_changes_content_but_not_what_is_the_owners(
    workspace: Workspace, alice: Vault, bob_credentials: Credentials, team: Block
) -> None:
    alice.share(team.id, "bob", "write")
    bob = again(workspace, bob_credentials)
    bob.accept_offer(team.id)
    bob.edit_block(team.id, lambda _: {"label": "l", "value": "v", "description": "d", "tags": ["t"]})
    for fields in ({"limit": 5}, {"read_only": True}, {"locked": True}):
        with pytest.raises(Denied):
            bob.edit_block(team.id, lambda _, fields=fields: fields)
    read = alice.block(team.id)
    assert (read.label, read.value, read.description, read.tags) == ("l", "v", "d", ["t"])
    assert (read.updated_by, read.updated_under, read.version) == (bob.principal_id, None, 2)


def test_an_agent_never_holds_more_than_the_user_who_placed_the_block_with_it(
    workspace: Workspace, alice: Vault, bob_credentials: Credentials, team: Block
) -> None:
    alice.share(team.id, "bob", "read")
    bob = again(workspace, bob_credentials)
    bob.accept_offer(team.id)
    agent = bob.create_agent({"name": "b"}, block_ids=[team.id], access="write")
    with pytest.raises(Denied):
        bob.edit_agent_block(agent.id, "team", lambda _: appended("x"), as_agent=True)
    before = alice.grants(team.id)
    bob.attach(agent.id, team.id, "write")
    assert alice.grants(team.id) == before  # attaching again changed nothing, so no keys are due
    alice.create_agent({"name": "a"}, block_ids=[team.id])
    assert [grant.can for grant in alice.grants(team.id)] == ["read", "read", "write"]


def test_sharing_again_with_the_same_right_is_refused_and_with_another_replaces_the_grant(
    workspace: Workspace, alice: Vault, bob_credentials: Credentials, team: Block
) -> None:
    first = alice.share(team.id, "bob", "read")
    with pytest.raises(Taken):
        alice.share(team.id, "bob", "read")
    assert alice.grants(team.id) == [first]
    again(workspace, bob_credentials).accept_offer(team.id)
    second = alice.share(team.id, "bob", "write")
    assert second.number != first.number
    assert [grant.can for grant in alice.grants(team.id)] == ["write"]
    assert again(workspace, bob_credentials).block(team.id).rights == "write"  # accepted stays accepted


def test_a_sharers_mistakes_are_told_apart(alice: Vault, bob: Vault, team: Block) -> None:
    with pytest.raises(Invalid):
        alice.share(team.id, "alice")
    with pytest.raises(NotFound):
        alice.share(team.id, "nobody")
    with pytest.raises(NotFound):
        alice.share(team.id, "agent-11111111-1111-4111-8111-111111111111")
    with pytest.raises(Invalid):
        alice.share(team.id, "bob", "everything")
    with pytest.raises(NotFound):
        alice.revoke(team.id, "bob")
    with pytest.raises(Invalid):
        alice.revoke(team.id, "alice")
    with pytest.raises(NotFound):
        bob.share(team.id, "alice")


# -- revoking ---------------------------------------------------------------------------------------------------


def test_from_the_answer_to_a_revocation_on_nothing_is_read_or_written(
    workspace: Workspace, alice: Vault, bob_credentials: Credentials, team: Block
) -> None:
    alice.share(team.id, "bob", "write")
    bob = again(workspace, bob_credentials)
    bob.accept_offer(team.id)
    agent = bob.create_agent({"name": "b"}, block_ids=[team.id])
    mine = alice.create_agent({"name": "a"}, block_ids=[team.id])
    reach = alice.revoke(team.id, "bob")
    assert {(one.principal, one.can) for one in reach} == {(alice.principal_id, "owner"), (mine.id, "write")}
    for attempt in (
        lambda: bob.block(team.id),
        lambda: bob.edit_block(team.id, lambda _: appended("x")),
        lambda: bob.agent_block(agent.id, "team"),
        lambda: bob.edit_agent_block(agent.id, "team", lambda _: appended("x"), as_agent=True),
        lambda: bob.acting_as(agent.id).block(team.id),
        lambda: bob.attach(agent.id, team.id),
    ):
        with pytest.raises(NotFound):
            attempt()
    assert bob.blocks() == [] and bob.agent(agent.id).blocks == []
    assert alice.agent_block(mine.id, "team").value == "hello"


def test_a_revocation_deletes_the_wraps_of_the_whole_subtree_and_renews_all_others(
    workspace: Workspace, alice: Vault, bob_credentials: Credentials, team: Block
) -> None:
    alice.create_agent({"name": "a"}, block_ids=[team.id])
    alice.share(team.id, "bob", "write")
    bob = again(workspace, bob_credentials)
    bob.accept_offer(team.id)
    bob.create_agent({"name": "b"}, block_ids=[team.id])

    def wraps() -> dict[int, tuple[int, bytes]]:
        with workspace.store.snapshot() as snapshot:
            rows = list(snapshot.rows(GRANT_WRAP))
            storage = next(row[1] for row in snapshot.rows(LEDGER) if row[2] == 3)
        return {row[2]: (row[3], row[4]) for row in rows if row[1] == storage}

    before = wraps()
    assert sorted(before) == [0, 1, 2, 3]
    alice.revoke(team.id, "bob")
    after = wraps()
    assert sorted(after) == [0, 1]
    assert {epoch for epoch, _ in after.values()} == {before[0][0] + 1}
    assert all(after[number][1] != before[number][1] for number in after)


def test_who_writes_after_a_placement_was_taken_back_changes_the_keys_first_without_the_owner(
    workspace: Workspace, alice: Vault, bob_credentials: Credentials, team: Block
) -> None:
    alice.share(team.id, "bob", "write")
    bob = again(workspace, bob_credentials)
    bob.accept_offer(team.id)
    mine = alice.create_agent({"name": "a"}, block_ids=[team.id])
    agent = bob.create_agent({"name": "b"}, block_ids=[team.id])
    bob.detach(agent.id, team.id)
    assert bob.edit_block(team.id, lambda _: appended("by bob")).version == 2
    assert alice.block(team.id).value == "by bob"  # the owner finds the new keys in the ledger
    assert alice.agent_block(mine.id, "team").value == "by bob"  # and her agent in its mail
    alice.edit_block(team.id, lambda _: appended("by alice"))
    assert bob.edit_block(team.id, lambda _: appended("by bob")).version == 4
    assert alice.block(team.id).value == "by bob"


def test_keys_that_change_again_while_the_last_ones_are_taken_are_taken_too(
    workspace: Workspace,
    alice: Vault,
    bob_credentials: Credentials,
    team: Block,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    alice.share(team.id, "bob", "write")
    bob = again(workspace, bob_credentials)
    bob.accept_offer(team.id)
    mine = alice.create_agent({"name": "a"}, block_ids=[team.id])
    agent = bob.create_agent({"name": "b"})

    def change_the_keys() -> None:
        bob.attach(agent.id, team.id)
        bob.detach(agent.id, team.id)
        bob.edit_block(team.id, lambda before: appended(before.value + "!"))

    collect, left = workspace.collect, 3

    def collect_and_be_overtaken(caller: Caller, holder: str) -> None:
        nonlocal left
        collect(caller, holder)
        if holder == mine.id and left:
            left -= 1
            change_the_keys()

    change_the_keys()
    monkeypatch.setattr(workspace, "collect", collect_and_be_overtaken)
    assert alice.agent_block(mine.id, "team").value == "hello!!!!"
    assert left == 0


def test_a_reader_who_takes_its_placement_back_leaves_the_change_of_keys_to_the_next_writer(
    workspace: Workspace, alice: Vault, bob_credentials: Credentials, team: Block
) -> None:
    alice.share(team.id, "bob", "read")
    bob = again(workspace, bob_credentials)
    bob.accept_offer(team.id)
    agent = bob.create_agent({"name": "b"}, block_ids=[team.id], access="read")
    bob.detach(agent.id, team.id)
    assert bob.block(team.id).value == "hello"
    alice.edit_block(team.id, lambda _: appended("by alice"))
    assert bob.block(team.id).value == "by alice"


def test_revoking_ends_every_grant_that_a_principal_has_however_it_came(
    workspace: Workspace, alice: Vault, bob_credentials: Credentials, team: Block
) -> None:
    alice.share(team.id, "bob", "write")
    bob = again(workspace, bob_credentials)
    bob.accept_offer(team.id)
    agent = bob.create_agent({"name": "b"})
    alice.share(team.id, agent.id, "read")
    bob.attach(agent.id, team.id, "write")
    assert [grant.recipient for grant in alice.grants(team.id)].count(agent.id) == 2
    reach = alice.revoke(team.id, agent.id)
    assert agent.id not in [one.principal for one in reach]
    assert bob.agent(agent.id).blocks == []


def test_no_order_of_shares_to_one_agent_by_owner_and_grantee_closes_the_block(
    workspace: Workspace, alice: Vault, bob_credentials: Credentials, team: Block
) -> None:
    alice.share(team.id, "bob", "write")
    bob = again(workspace, bob_credentials)
    bob.accept_offer(team.id)
    agent = bob.create_agent({"name": "b"})
    alice.share(team.id, agent.id, "read")
    bob.share(team.id, agent.id, "write")  # beside the owner's grant, which is not his to replace
    bob.share(team.id, agent.id, "read")
    alice.edit_block(team.id, lambda _: appended("still open"))
    for vault in (alice, bob, bob.acting_as(agent.id)):
        assert vault.block(team.id).value == "still open"
    with pytest.raises(Denied):
        bob.revoke(team.id, alice.create_agent({"name": "a"}, block_ids=[team.id]).id)
    assert workspace.verify().findings == []


def test_a_grantee_knows_of_its_own_grant_and_what_hangs_below_it_only(
    workspace: Workspace, alice: Vault, bob_credentials: Credentials, carol: Vault, team: Block
) -> None:
    mine = alice.create_agent({"name": "a"}, block_ids=[team.id])
    alice.share(team.id, "carol")
    alice.share(team.id, "bob", "write")
    bob = again(workspace, bob_credentials)
    bob.accept_offer(team.id)
    agent = bob.create_agent({"name": "b"}, block_ids=[team.id])
    assert {grant.recipient for grant in bob.grants(team.id)} == {bob.principal_id, agent.id}
    assert bob.block(team.id).agent_ids == [agent.id]
    assert set(alice.block(team.id).agent_ids) == {mine.id, agent.id}
    assert {cell.principal for cell in bob.access() if cell.block_id == team.id} <= {
        alice.principal_id, bob.principal_id, agent.id,
    }  # fmt: skip
    assert carol.principal_id in {cell.principal for cell in alice.access()}


def test_who_can_act_as_an_agent_reaches_what_it_reaches_and_has_no_cell_of_its_own(
    workspace: Workspace, alice: Vault, bob_credentials: Credentials, team: Block
) -> None:
    alice.share(team.id, "bob", "write")
    bob = again(workspace, bob_credentials)
    bob.accept_offer(team.id)
    agent = bob.create_agent({"name": "b"}, block_ids=[team.id])
    assert {(one.principal, one.how) for one in alice.reach(team.id)} == {
        (alice.principal_id, "owner"), (bob.principal_id, "grant"), (agent.id, "grant"), (bob.principal_id, "agent"),
    }  # fmt: skip
    cells = [(cell.principal, cell.through) for cell in alice.access() if cell.block_id == team.id]
    assert sorted(cells) == sorted([(alice.principal_id, ""), (bob.principal_id, ""), (agent.id, "")])


def test_a_deleted_block_is_gone_for_everybody_and_its_offer_too(
    workspace: Workspace, alice: Vault, bob_credentials: Credentials, carol: Vault, team: Block
) -> None:
    mine = alice.create_agent({"name": "a"}, block_ids=[team.id])
    alice.share(team.id, "bob", "write")
    alice.share(team.id, "carol")
    bob = again(workspace, bob_credentials)
    bob.accept_offer(team.id)
    alice.delete_block(team.id)
    for vault in (alice, bob, carol):
        with pytest.raises(NotFound):
            vault.block(team.id)
        assert (vault.blocks(), vault.offers()) == ([], [])
    assert alice.agent(mine.id).blocks == []
    assert workspace.verify().findings == []


def test_a_miss_says_the_same_of_what_is_not_yours_and_of_what_never_was(
    alice: Vault, bob: Vault, team: Block
) -> None:
    never = "block-00000000-0000-4000-8000-000000000000"
    for name in ("block", "delete_block", "grants", "block_agents", "accept_offer", "decline_offer"):
        said = []
        for block_id in (team.id, never):
            with pytest.raises(NotFound) as missed:
                getattr(bob, name)(block_id)
            error = missed.value
            said.append((str(error).replace(block_id, "ID"), error.hint, error.code, error.status))
        assert said[0] == said[1]
    assert alice.block(team.id).value == "hello"


def test_a_sharer_is_told_that_somebody_else_has_granted_the_block_already(
    workspace: Workspace, alice: Vault, bob_credentials: Credentials, team: Block
) -> None:
    cy = alice.add_user("cy")
    alice.share(team.id, "bob", "write+share")
    again(workspace, bob_credentials).accept_offer(team.id)
    alice.share(team.id, "cy", "read")
    with pytest.raises(Taken):  # cy would go on holding the owner's: nothing is dropped silently
        again(workspace, bob_credentials).share(team.id, "cy", "write")
    assert [grant.can for grant in alice.grants(team.id) if grant.recipient == cy.principal] == ["read"]
    alice.share(team.id, "cy", "write")
    workspace.vault(cy.token).accept_offer(team.id)
    assert workspace.vault(cy.token).block(team.id).rights == "write"
