"""Agents over the wire: making, changing, attaching, labels, lists."""

from __future__ import annotations

from typing import Any

import letta_client
import pytest
from server_fixtures import Served, fresh_server, server  # noqa: F401
from stores import thinned

from tallystone.letta.tools import BASE_TOOLS, BY_NAME

pytestmark = thinned(2, "bodies and answers are checked above the store")


def test_an_agent_needs_nothing(server: Served) -> None:  # noqa: F811
    client = server.letta()
    agent = client.agents.create()
    assert agent.name and agent.agent_type == "letta_v1_agent"
    assert agent.blocks == [] and agent.memory.blocks == [] and agent.tags == [] and agent.sources == []
    assert agent.block_ids == [] and agent.identity_ids == [] and agent.tool_rules == []
    assert [tool.name for tool in agent.tools] == list(BASE_TOOLS["letta_v1_agent"])
    assert agent.created_at is not None and agent.created_at.tzinfo is not None
    assert client.agents.create().name != agent.name


def test_given_blocks_come_first_then_new_ones(server: Served) -> None:  # noqa: F811
    client = server.letta()
    one, two = (client.blocks.create(label=label, value="") for label in ("one", "two"))
    agent = client.agents.create(
        block_ids=[two.id, one.id, two.id],
        memory_blocks=[{"label": "human", "value": "h"}, {"label": "x", "value": ""}],
    )
    assert [block.label for block in agent.blocks] == ["two", "one", "human", "x"]
    assert agent.block_ids == [block.id for block in agent.blocks]
    assert agent.blocks[2].description and agent.blocks[3].description is None
    read = client.agents.retrieve(agent.id)
    assert read.to_dict() == agent.to_dict()


@pytest.mark.parametrize("kind", list(BASE_TOOLS))
def test_base_tools_follow_the_type(server: Served, kind: Any) -> None:  # noqa: F811
    client = server.letta()
    agent = client.agents.create(agent_type=kind)
    assert [tool.name for tool in agent.tools] == list(BASE_TOOLS[kind])
    bare = client.agents.create(agent_type=kind, include_base_tools=False, tools=["web_search"])
    assert [tool.name for tool in bare.tools] == ["web_search"]


def test_tools_by_name_and_id_add_up_once(server: Served) -> None:  # noqa: F811
    client = server.letta()
    tool = BY_NAME["core_memory_append"]
    agent = client.agents.create(tools=["core_memory_append", "memory_insert"], tool_ids=[tool.id])
    names = [tool.name for tool in agent.tools]
    assert names == [*BASE_TOOLS["letta_v1_agent"], "core_memory_append"]
    with_others = client.agents.create(extra_body={"include_multi_agent_tools": True})
    assert "send_message_to_agent_async" in [tool.name for tool in with_others.tools]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"tools": ["nonsense"]}, 400),
        ({"tool_ids": ["tool-1"]}, 422),
        ({"tool_ids": ["tool-123e4567-e89b-42d3-8456-426614174000"]}, 404),
        ({"block_ids": ["block-1"]}, 422),
        ({"block_ids": ["block-123e4567-e89b-42d3-8456-426614174000"]}, 404),
        ({"agent_type": "nonsense"}, 422),
        ({"name": ""}, 422),
        ({"memory_blocks": [{"label": "a", "value": ""}, {"label": "a", "value": ""}]}, 409),
        ({"memory_blocks": [{"label": "a", "value": "xx", "limit": 1}]}, 422),
        ({"memory_blocks": [{"value": "xx"}]}, 422),
        ({"llm_config": {"model_endpoint_type": "x"}}, 422),
        ({"llm_config": {"context_window": "x"}}, 422),
    ],
)
def test_what_cannot_be_made_leaves_nothing_behind(fresh_server: Served, body: Any, status: int) -> None:  # noqa: F811
    http = fresh_server.http()
    answer = http.post("/v1/agents/", json={"memory_blocks": [{"label": "persona", "value": ""}], **body})
    assert answer.status_code == status, answer.text
    assert http.get("/v1/agents/").json() == [] and http.get("/v1/blocks/").json() == []


def test_two_blocks_of_one_label_are_a_conflict_that_is_not_retried(server: Served) -> None:  # noqa: F811
    client, http = server.letta(), server.http()
    block = client.blocks.create(label="human", value="")
    body = {"block_ids": [block.id], "memory_blocks": [{"label": "human", "value": ""}]}
    answer = http.post("/v1/agents/", json=body)
    assert answer.status_code == 409 and answer.headers["x-should-retry"] == "false"
    agent = client.agents.create(memory_blocks=[{"label": "human", "value": ""}])
    with pytest.raises(letta_client.ConflictError):
        client.agents.blocks.attach(block.id, agent_id=agent.id)
    with pytest.raises(letta_client.ConflictError):
        client.agents.update(agent.id, block_ids=[agent.block_ids[0], block.id])


def test_models_are_taken_by_any_name(server: Served) -> None:  # noqa: F811
    client = server.letta()
    agent = client.agents.create(model="anthropic/claude-x", embedding="openai/e", context_window_limit=5000)
    assert (agent.model, agent.embedding) == ("anthropic/claude-x", "openai/e")
    assert agent.llm_config.api_model_endpoint_type == "anthropic"
    assert (agent.llm_config.model, agent.llm_config.context_window) == ("claude-x", 5000)
    assert client.agents.create(model="own/thing").llm_config.api_model_endpoint_type == "openai"


def test_update_replaces_what_it_names(server: Served) -> None:  # noqa: F811
    client = server.letta()
    one, two = (client.blocks.create(label=label, value="") for label in ("one", "two"))
    agent = client.agents.create(
        block_ids=[one.id], description="d", metadata={"a": 1}, secrets={"K": "hush"}
    )
    changed = client.agents.update(
        agent.id, name="new", block_ids=[two.id], description=None, metadata={}, tags=["t", "t"], model="m",
        tool_ids=[BY_NAME["memory_rethink"].id],
    )  # fmt: skip
    assert (changed.name, changed.description, changed.metadata, changed.tags) == ("new", "d", {}, ["t"])
    assert changed.block_ids == [two.id]
    assert [tool.name for tool in changed.tools] == ["memory_rethink"]
    assert client.agents.update(agent.id, block_ids=[], tool_ids=[]).block_ids == []
    assert changed.secrets is not None and changed.secrets[0].key == "K"
    assert "hush" not in server.http().get(f"/v1/agents/{agent.id}").text


def test_delete_takes_private_blocks_along_and_leaves_shared_ones(server: Served) -> None:  # noqa: F811
    client = server.letta()
    shared = client.blocks.create(label="shared", value="")
    agent = client.agents.create(block_ids=[shared.id], memory_blocks=[{"label": "human", "value": ""}])
    private = agent.block_ids[1]
    message = client.agents.delete(agent.id)
    assert message == {"message": f"Agent id={agent.id} successfully deleted"}
    assert client.blocks.retrieve(shared.id).agent_ids == []
    with pytest.raises(letta_client.NotFoundError):
        client.blocks.retrieve(private)
    with pytest.raises(letta_client.NotFoundError):
        client.agents.retrieve(agent.id)


# -- blocks on agents -------------------------------------------------------------------------------------------


def test_attach_and_detach(server: Served) -> None:  # noqa: F811
    client = server.letta()
    block, agent = client.blocks.create(label="l", value="v"), client.agents.create()
    for _ in range(2):
        assert client.agents.blocks.attach(block.id, agent_id=agent.id).block_ids == [block.id]
    assert client.agents.blocks.retrieve("l", agent_id=agent.id).value == "v"
    assert client.agents.blocks.detach(block.id, agent_id=agent.id).block_ids == []
    with pytest.raises(letta_client.NotFoundError):
        client.agents.blocks.detach(block.id, agent_id=agent.id)
    with pytest.raises(letta_client.NotFoundError):
        client.agents.blocks.retrieve("l", agent_id=agent.id)


@pytest.mark.parametrize(
    "label", ["system/human", "a b", "équipe été", "attach", "50%", "a?b#c", "attach/x", "/", "..x"]
)
def test_labels_of_any_kind_are_addressed(server: Served, label: str) -> None:  # noqa: F811
    client = server.letta()
    agent = client.agents.create(memory_blocks=[{"label": label, "value": "v"}])
    assert client.agents.blocks.retrieve(label, agent_id=agent.id).value == "v"
    if label != "attach/x":  # sent as one segment, but PATCH …/attach%2Fx is this label all the same
        assert client.agents.blocks.update(label, agent_id=agent.id, value="w").value == "w"


def test_a_slash_that_was_not_encoded_reaches_the_label_too(server: Served) -> None:  # noqa: F811
    agent = server.letta().agents.create(memory_blocks=[{"label": "system/human", "value": "v"}])
    url = f"/v1/agents/{agent.id}/core-memory/blocks/system/human"
    assert server.http().get(url).json()["value"] == "v"


def test_what_one_agent_writes_another_reads_at_once(server: Served) -> None:  # noqa: F811
    client = server.letta()
    block = client.blocks.create(label="queue", value="")
    one, two = (client.agents.create(block_ids=[block.id]).id for _ in range(2))
    client.agents.blocks.update("queue", agent_id=one, value="done")
    assert client.agents.blocks.retrieve("queue", agent_id=two).value == "done"
    assert client.blocks.retrieve(block.id).value == "done"


def test_renaming_to_a_label_that_an_agent_has_is_a_conflict(server: Served) -> None:  # noqa: F811
    client = server.letta()
    block = client.blocks.create(label="one", value="")
    agent = client.agents.create(block_ids=[block.id], memory_blocks=[{"label": "two", "value": ""}])
    with pytest.raises(letta_client.ConflictError):
        client.blocks.update(block.id, label="two")
    with pytest.raises(letta_client.ConflictError):
        client.agents.blocks.update("one", agent_id=agent.id, label="two")
    assert client.agents.blocks.update("one", agent_id=agent.id, label="three").label == "three"
    assert client.blocks.retrieve(block.id).label == "three"


def test_blocks_of_an_agent_are_paged(server: Served) -> None:  # noqa: F811
    client = server.letta()
    agent = client.agents.create(memory_blocks=[{"label": f"l{at}", "value": ""} for at in range(5)])
    ids = list(agent.block_ids)
    assert [block.id for block in client.agents.blocks.list(agent.id)] == ids[::-1]
    assert [block.id for block in client.agents.blocks.list(agent.id, limit=2, order="asc")] == ids
    assert [
        b.id for b in client.agents.blocks.list(agent.id, before=ids[4], limit=2, order="asc").items
    ] == ids[2:4]
    with pytest.raises(letta_client.BadRequestError):
        client.agents.blocks.list(agent.id, after="block-z")


def test_bodies_may_be_empty_where_nothing_is_needed(server: Served) -> None:  # noqa: F811
    http = server.http()
    block = http.post("/v1/blocks/", json={"label": "l"}).json()
    agent = http.post("/v1/agents/").json()
    headers = {"content-type": "application/json"}
    base = f"/v1/agents/{agent['id']}/core-memory/blocks"
    assert http.patch(f"{base}/attach/{block['id']}", headers=headers).status_code == 200
    assert http.patch(f"{base}/l", headers=headers).status_code == 200
    assert http.patch(f"{base}/detach/{block['id']}/", headers=headers).status_code == 200
    assert http.request("DELETE", f"/v1/blocks/{block['id']}", headers=headers).content == b"null"


# -- lists and tools --------------------------------------------------------------------------------------------


def test_agents_are_listed_newest_first_with_their_blocks(fresh_server: Served) -> None:  # noqa: F811
    client = fresh_server.letta()
    made = [client.agents.create(name=f"a{at}", tags=["t"] if at else [], memory_blocks=[{"label": "l", "value": ""}])
            for at in range(4)]  # fmt: skip
    ids = [agent.id for agent in made]
    assert [agent.id for agent in client.agents.list(limit=2)] == ids[::-1]
    assert [agent.id for agent in client.agents.list(limit=3, order="asc")] == ids
    assert [agent.id for agent in client.agents.list(ascending=True)] == ids
    assert all(len(agent.blocks) == 1 for agent in client.agents.list())
    assert [agent.name for agent in client.agents.list(name="a2")] == ["a2"]
    assert len(list(client.agents.list(tags=["t"], match_all_tags=True))) == 3
    assert [agent.name for agent in client.agents.list(query_text="A3")] == ["a3"]
    assert list(client.agents.list(project_id="p")) == []
    client.agents.update(ids[1], description="touched")
    assert next(iter(client.agents.list(order_by="updated_at"))).id == ids[1]
    walked = [agent.id for agent in client.agents.list(order_by="updated_at", limit=1)]
    assert walked[0] == ids[1] and sorted(walked) == sorted(ids)


def test_tools_are_attached_listed_and_detached(server: Served) -> None:  # noqa: F811
    client = server.letta()
    agent = client.agents.create(include_base_tools=False, tools=["web_search"])
    tool = next(iter(client.tools.list(name="memory_rethink")))
    for _ in range(2):
        attached = client.agents.tools.attach(tool.id, agent_id=agent.id)
        assert [tool.name for tool in attached.tools] == ["web_search", "memory_rethink"]
    assert [tool.name for tool in client.agents.tools.list(agent.id, limit=1)] == [
        "memory_rethink",
        "web_search",
    ]
    assert [tool.name for tool in client.agents.tools.detach(tool.id, agent_id=agent.id).tools] == [
        "web_search"
    ]
    with pytest.raises(letta_client.NotFoundError):
        client.agents.tools.detach(tool.id, agent_id=agent.id)
    with pytest.raises(letta_client.NotFoundError):
        client.agents.tools.attach("tool-123e4567-e89b-42d3-8456-426614174000", agent_id=agent.id)


def test_the_catalogue_is_filtered(server: Served) -> None:  # noqa: F811
    client = server.letta()
    everything = [tool.name for tool in client.tools.list(limit=5)]
    assert sorted(everything) == sorted(BY_NAME)
    assert client.tools.retrieve(BY_NAME["memory"].id).name == "memory"
    assert [t.name for t in client.tools.list(names=["memory", "web_search"], order="asc")] == [
        "memory",
        "web_search",
    ]
    assert [t.name for t in client.tools.list(tool_types=["letta_builtin"], search="WEB_")] == ["web_search"]
    assert len(list(client.tools.list(exclude_tool_types=["letta_builtin"]))) == len(BY_NAME) - 3
    with pytest.raises(letta_client.NotFoundError):
        client.tools.retrieve("tool-123e4567-e89b-42d3-8456-426614174000")
