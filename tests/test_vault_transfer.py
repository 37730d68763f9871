"""A block changes hands when both sides have said so, and not a moment longer than the owner wants it to."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tallystone.errors import Denied, Invalid, NotFound, Taken
from tallystone.vault import Vault, Workspace
from tallystone.vault.types import Block, Credentials


@pytest.fixture
def team(alice: Vault) -> Block:
    """A block of alice's."""
    return alice.create_block(label="team", value="hello")


@pytest.fixture
def bob_now(workspace: Workspace, bob_credentials: Credentials) -> Callable[[], Vault]:
    """Bob as his next request finds him."""
    return lambda: workspace.vault(bob_credentials.token)


def test_the_heir_owns_the_block_and_the_former_owner_reaches_it_no_more(
    alice: Vault, bob_now: Callable[[], Vault], team: Block
) -> None:
    agent = alice.create_agent({"name": "a"}, block_ids=[team.id])
    alice.transfer(team.id, "bob")
    (offer,) = bob_now().offers()
    assert (offer.kind, offer.block_id) == ("transfer", team.id)
    assert bob_now().blocks() == []  # an offer until it is taken
    taken = bob_now().accept_transfer(team.id)
    assert (taken.rights, taken.owner) == ("owner", bob_now().principal_id)
    with pytest.raises(NotFound):
        alice.block(team.id)
    assert alice.agent_block(agent.id, "team").value == "hello"  # the grants stay, under new keys
    bob_now().revoke(team.id, agent.id)
    assert alice.agent(agent.id).blocks == []
    bob_now().delete_block(team.id)


def test_a_block_goes_on_from_hand_to_hand_and_its_old_versions_still_verify(
    alice: Vault, workspace: Workspace, bob_now: Callable[[], Vault], team: Block
) -> None:
    cy_token = alice.add_user("cy").token
    alice.share(team.id, "cy", "read")
    workspace.vault(cy_token).accept_offer(team.id)
    alice.transfer(team.id, "bob")
    bob_now().accept_transfer(team.id)
    assert workspace.vault(cy_token).block(team.id).value == "hello"
    bob_now().transfer(team.id, "alice")
    alice.accept_transfer(team.id)
    assert workspace.vault(cy_token).block(team.id).owner == alice.principal_id
    alice.edit_block(team.id, lambda now: {"value": now.value + "!"})
    assert workspace.vault(cy_token).block(team.id).value == "hello!"
    assert alice.inspect().findings == [] and workspace.verify().findings == []


@pytest.mark.parametrize("undo", ["cancel", "revoke", "share"])
def test_what_the_owner_takes_back_nobody_accepts(
    alice: Vault, bob_now: Callable[[], Vault], team: Block, undo: str
) -> None:
    alice.transfer(team.id, "bob")
    if undo == "cancel":
        alice.cancel_transfer(team.id)
    elif undo == "revoke":
        alice.revoke(team.id, "bob")
    else:
        alice.share(team.id, "bob", "read")
    assert [offer.kind for offer in bob_now().offers()] == (["grant"] if undo == "share" else [])
    with pytest.raises(NotFound):
        bob_now().accept_transfer(team.id)
    with pytest.raises(NotFound):
        alice.cancel_transfer(team.id)
    alice.transfer(team.id, "bob")  # and it may be offered again
    assert bob_now().accept_transfer(team.id).rights == "owner"


def test_accepting_the_offer_is_taking_the_block_over(
    alice: Vault, bob_now: Callable[[], Vault], team: Block
) -> None:
    alice.transfer(team.id, "bob")
    taken = bob_now().accept_offer(team.id)
    assert taken is not None and taken.rights == "owner"


def test_only_the_owner_offers_only_a_user_and_only_once(
    alice: Vault, bob_now: Callable[[], Vault], team: Block
) -> None:
    agent = alice.create_agent({"name": "a"})
    for heir in ("alice", agent.id):
        with pytest.raises(Invalid):
            alice.transfer(team.id, heir)
    alice.share(team.id, "bob", "write+share", depth=3)
    bob_now().accept_offer(team.id)
    with pytest.raises(Denied):
        bob_now().transfer(team.id, bob_now().principal_id)
    with pytest.raises(NotFound):
        bob_now().accept_transfer(team.id)
    alice.transfer(team.id, "bob")
    with pytest.raises(Taken):
        alice.transfer(team.id, "bob")
    assert bob_now().block(team.id).rights == "write+share"  # still hers
