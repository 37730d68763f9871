"""Design §2: another principal who shares uninvited makes an offer, and nothing but an offer, until it is accepted."""

from __future__ import annotations

import pytest

from tallystone.errors import NotFound, Taken
from tallystone.vault import Vault, Workspace
from tallystone.vault.types import Credentials


def test_sharing_again_after_a_revoke_is_an_offer_again(
    workspace: Workspace, alice: Vault, bob_credentials: Credentials
) -> None:
    block = alice.create_block(label="team", value="v")
    alice.share(block.id, "bob")
    workspace.vault(bob_credentials.token).accept_offer(block.id)
    alice.revoke(block.id, "bob")
    alice.share(block.id, "bob")
    bob = workspace.vault(bob_credentials.token)
    assert [offer.block_id for offer in bob.offers()] == [block.id]
    assert bob.blocks() == []
    with pytest.raises(NotFound):
        bob.block(block.id)


def test_another_right_on_an_accepted_block_needs_no_second_acceptance(
    workspace: Workspace, alice: Vault, bob_credentials: Credentials
) -> None:
    block = alice.create_block(label="team", value="v")
    alice.share(block.id, "bob", "read")
    workspace.vault(bob_credentials.token).accept_offer(block.id)
    alice.share(block.id, "bob", "write")
    bob = workspace.vault(bob_credentials.token)
    assert bob.offers() == []
    assert [one.rights for one in bob.blocks()] == ["write"]


def test_a_vault_that_stays_open_hears_of_new_offers(
    workspace: Workspace, alice: Vault, bob_credentials: Credentials
) -> None:
    bob = workspace.vault(bob_credentials.token)
    block = alice.create_block(label="team", value="v")
    alice.share(block.id, "bob")
    assert [offer.label for offer in bob.offers()] == ["team"]
    bob.decline_offer(block.id)
    assert bob.offers() == []


def test_an_accepted_offer_gives_no_agent_two_blocks_of_one_label(
    workspace: Workspace, alice: Vault, bob_credentials: Credentials
) -> None:
    bob = workspace.vault(bob_credentials.token)
    agent = bob.create_agent({"name": "a"}, memory_blocks=[{"label": "team", "value": "mine"}])
    block = alice.create_block(label="team", value="v")
    alice.share(block.id, agent.id)
    assert [offer.recipient for offer in bob.offers()] == [agent.id]
    with pytest.raises(Taken):
        bob.accept_offer(block.id)
    own = bob.create_block(label="team", value="another")
    with pytest.raises(Taken):
        bob.share(own.id, agent.id)
    assert [one.value for one in bob.agent(agent.id).blocks] == ["mine"]
