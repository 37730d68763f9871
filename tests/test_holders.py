"""Who holds a block is said with it each time, at the cost of few grants; what a process keeps of it says nothing."""

from __future__ import annotations

import pytest
from test_directory import opened_by

from tallystone.vault import Vault, Workspace


def test_what_an_attach_opens_does_not_grow_with_the_agents_that_hold_the_block(
    alice: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    block = alice.create_block(label="shared", value="v").id
    agents = [alice.create_agent({"name": f"agent {number}"}).id for number in range(16)]

    def attach() -> int:
        agent = agents.pop()
        return opened_by(monkeypatch, lambda: alice.attach(agent, block))

    for _ in range(5):
        attach()
    few = attach()
    for _ in range(8):
        attach()
    assert attach() == few


def test_the_agents_of_a_block_are_those_with_a_live_grant_whatever_was_kept(
    workspace: Workspace, alice: Vault
) -> None:
    block = alice.create_block(label="shared", value="v").id
    agents = [alice.create_agent({"name": f"agent {number}"}).id for number in range(4)]
    held: list[str] = []
    for agent in agents:
        alice.attach(agent, block)
        held.append(agent)
        assert alice.block(block).agent_ids == held
    for agent in (agents[1], agents[3]):
        alice.detach(agent, block)  # changes the keys
        held.remove(agent)
        assert alice.block(block).agent_ids == held
    alice.attach(agents[1], block)
    assert alice.block(block).agent_ids == [*held, agents[1]]
    cells = b"".join(one for one in workspace.recall._kept.values() if isinstance(one, bytes))
    assert cells and not any(agent.encode() in cells for agent in agents)
