"""Change feeds and messages between agents, turned against who listens and who reads."""

from __future__ import annotations

import pytest
from test_agent_messages import agent, befriend, read

from attack.lying import agent_of, caller_of, held_by
from attack.test_agent_messages import Forger
from tallystone.errors import NotFound
from tallystone.vault import Vault, Workspace
from tallystone.vault.blocks import new_block
from tallystone.vault.plan import Plan

# -- messages between agents ------------------------------------------------------------------------------------


def test_a_block_that_was_handed_over_is_no_contact_of_its_new_owners_agents(
    workspace: Workspace, alice: Vault, bob: Vault
) -> None:
    """Bob makes a block as the contact of Alice's agent, lets his own agent hold it, and gives it to Alice, who sees an
    ordinary block. She never said that his agent may write to hers."""
    scribe, runner = agent(alice, "scribe"), agent(bob, "runner")
    caller = caller_of(bob)

    def make(plan: Plan) -> str:
        return new_block(caller, plan, {"label": "notes"}, fixed={"contact": scribe}).block

    block = caller.transact(make)
    bob.attach(runner, block, "read")
    bob.transfer(block, alice.principal_id)
    assert alice.accept_transfer(block).owner == alice.principal_id
    leaf = held_by(workspace, agent_of(workspace, bob, runner).keys, block).leaf
    with pytest.raises(NotFound):
        bob.send_message(runner, scribe, "hello")
    Forger(workspace, bob, runner, alice, scribe).send(contact=block, leaf=leaf)
    assert read(alice, scribe) == []


def test_a_contact_that_went_away_and_came_back_is_one(alice: Vault, bob: Vault) -> None:
    scribe, runner = agent(alice, "scribe"), agent(bob, "runner")
    contact = befriend(alice, scribe, bob, runner)
    alice.transfer(contact, bob.principal_id)
    bob.accept_transfer(contact)
    bob.attach(runner, contact, "read")
    with pytest.raises(NotFound):
        bob.send_message(runner, scribe, "while it is mine")
    bob.transfer(contact, alice.principal_id)
    alice.accept_transfer(contact)
    bob.send_message(runner, scribe, "hello")
    assert read(alice, scribe) == ["hello"]
