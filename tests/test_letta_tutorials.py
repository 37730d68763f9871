"""The four published tutorials as acceptance tests, without a model: who sees what, and who may write what."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import letta_client
import pytest
from server_fixtures import Served, server  # noqa: F401
from stores import sampled

TUTORIALS: dict[str, Any] = json.loads(
    (Path(__file__).parent / "vectors/wire/tutorials.json").read_text("utf-8")
)
READ_ONLY = {"1": ["company_policies", "escalation_procedures"], "4": ["company_mission", "company_policies"]}


class Team:
    """A tutorial's blocks and agents, by the names of the tutorial."""

    def __init__(self, client: letta_client.Letta, number: str) -> None:
        plan = TUTORIALS[number]
        self.client = client
        self.blocks = {
            name: client.blocks.create(
                label=block["label"],
                value="x" * block["chars"],
                limit=block["limit"],
                description=block["description"],
                read_only=name in READ_ONLY.get(number, []),
            )
            for name, block in plan["blocks"].items()
        }
        self.agents = {
            name: client.agents.create(
                name=agent["name"],
                model=agent["model"],
                embedding="openai/text-embedding-3-small",
                block_ids=[self.blocks[variable].id for variable in agent["block_vars"]],
                memory_blocks=[{"label": label, "value": ""} for label in agent["memory_block_labels"]],
                **({"tools": agent["tools"]} if agent["tools"] else {}),
            )
            for name, agent in plan["agents"].items()
        }
        self.sees = {name: set(agent["block_vars"]) for name, agent in plan["agents"].items()}
        for attach in plan["attaches"]:
            agent, block = attach["agent_id"].removesuffix(".id"), attach["block_id"].removesuffix(".id")
            client.agents.blocks.attach(agent_id=self.agents[agent].id, block_id=self.blocks[block].id)
            self.sees[agent].add(block)

    def run(self, agent: str, tool: str, **arguments: str) -> Any:
        return self.client.agents.tools.run(tool, agent_id=self.agents[agent].id, args=arguments)


@sampled(4, "the tutorials differ in names and matrices")
@pytest.mark.parametrize("number", TUTORIALS)
def test_the_matrix_holds_both_ways(server: Served, number: str) -> None:  # noqa: F811
    team = Team(server.letta(), number)
    for name, agent in team.agents.items():
        labels = {block.label for block in team.client.agents.blocks.list(agent.id)}
        assert labels == {team.blocks[block].label for block in team.sees[name]} | {"persona", "human"}
        for block in team.blocks:
            label = team.blocks[block].label
            if block in team.sees[name]:
                assert (
                    team.client.agents.blocks.retrieve(label, agent_id=agent.id).id == team.blocks[block].id
                )
            else:
                with pytest.raises(letta_client.NotFoundError):
                    team.client.agents.blocks.retrieve(label, agent_id=agent.id)
    for name, block in team.blocks.items():
        holders = {agent.name for agent in team.client.blocks.agents.list(block.id)}
        assert holders == {team.agents[agent].name for agent, seen in team.sees.items() if name in seen}
        assert len(team.client.blocks.retrieve(block.id).agent_ids) == len(holders)


def test_1_policies_hold_against_agents_and_their_keys(server: Served) -> None:  # noqa: F811
    team = Team(server.letta(), "1")
    team.client.agents.update(
        team.agents["tier1_agent_a"].id,
        tool_ids=[next(iter(team.client.tools.list(name="core_memory_replace"))).id],
    )
    refused = team.run(
        "tier1_agent_a", "core_memory_replace", label="company_policies", old_content="x", new_content="y"
    )
    assert refused.status == "error"
    assert (
        team.run("tier3_supervisor", "core_memory_append", label="team_metrics", content="5 tickets").status
        == "success"
    )
    assert team.client.blocks.retrieve(team.blocks["team_metrics"].id).value.endswith("5 tickets")
    key = server.letta(server.vault().agent_token(team.agents["tier1_agent_a"].id))
    with pytest.raises(letta_client.PermissionDeniedError):
        key.blocks.update(team.blocks["company_policies"].id, value="Everything is free!")
    assert "free" not in team.client.blocks.retrieve(team.blocks["company_policies"].id).value


def test_4_no_outsider_gets_at_the_personnel_file(server: Served) -> None:  # noqa: F811
    team = Team(server.letta(), "4")
    secret = team.blocks["hr_employee_data"].id
    outsider = server.letta(server.add_user("sales"))
    mine = outsider.agents.create(name="mine")
    attempts: list[Any] = [
        lambda: outsider.blocks.retrieve(secret),
        lambda: outsider.agents.create(block_ids=[secret]),
        lambda: outsider.agents.update(mine.id, block_ids=[secret]),
        lambda: outsider.agents.blocks.attach(secret, agent_id=mine.id),
        lambda: outsider.blocks.agents.list(secret),
    ]
    for attempt in attempts:
        with pytest.raises(letta_client.NotFoundError):
            attempt()
    assert len(team.client.blocks.retrieve(secret).agent_ids) == 2
