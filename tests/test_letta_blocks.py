"""Blocks over the wire: limits, conditions, nulls, filters, pages."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import letta_client
import pytest
from server_fixtures import Served, fresh_server, server  # noqa: F401
from stores import thinned

pytestmark = thinned(2, "bodies and answers are checked above the store")


def test_what_is_not_sent_has_the_contracts_defaults(server: Served) -> None:  # noqa: F811
    http = server.http()
    made = http.post("/v1/blocks/", json={"label": "l"})
    assert made.status_code == 200
    block = made.json()
    assert block["value"] == "" and block["limit"] == 100_000 and block["read_only"] is False
    assert block["tags"] == [] and block["agent_ids"] == [] and block["metadata"] == {}
    assert block["version"] == 1 and block["locked"] is False
    assert block["created_at"].endswith("Z") and datetime.fromisoformat(block["created_at"])
    assert made.headers["etag"] == '"1"'


@pytest.mark.parametrize(
    "body",
    [
        {"value": "no label"},
        {"label": None},
        {"label": 1},
        {"label": "l", "value": 1},
        {"label": "l", "limit": -1, "value": ""},
        {"label": "l", "limit": 2**31},
        {"label": "l", "limit": "10"},
        {"label": "l", "tags": "a"},
        {"label": "l", "tags": [1]},
        {"label": "l", "metadata": []},
        {"label": "l", "value": "four", "limit": 3},
        {"label": "l", "metadata": {"n": 10**30}},
    ],
)
def test_a_body_that_does_not_fit_is_422_with_a_string_and_a_hint(server: Served, body: Any) -> None:  # noqa: F811
    answer = server.http().post("/v1/blocks/", json=body)
    assert answer.status_code == 422
    error = answer.json()
    assert isinstance(error["detail"], str) and error["error"]["hint"] and error["error"]["code"]


def test_unknown_fields_are_ignored_and_nuls_removed(server: Served) -> None:  # noqa: F811
    block = (
        server.http().post("/v1/blocks/", json={"label": "a\0b", "value": "c\0", "zzz": {"deep": [1]}}).json()
    )
    assert (block["label"], block["value"]) == ("ab", "c")


def test_every_field_comes_back(server: Served) -> None:  # noqa: F811
    sent = {
        "label": "all",
        "value": "v",
        "description": "d",
        "limit": 10,
        "read_only": True,
        "tags": ["x", "y"],
        "metadata": {"a": 1, "b": [None, 1.5, {"c": "ü"}]},
        "hidden": True,
        "is_template": True,
        "template_name": "tn",
        "template_id": "ti",
        "base_template_id": "bt",
        "deployment_id": "dp",
        "entity_id": "e",
        "project_id": "p",
        "preserve_on_migration": True,
        "locked": True,
    }
    http = server.http()
    made = http.post("/v1/blocks/", json=sent).json()
    read = http.get(f"/v1/blocks/{made['id']}").json()
    assert made == read
    assert {name: read[name] for name in sent} == sent


@pytest.mark.parametrize("label", ["", 'a b/c <x>&"\n', "équipe été", "x" * 300])
def test_any_label_is_taken_as_it_is(server: Served, label: str) -> None:  # noqa: F811
    assert server.letta().blocks.create(label=label, value="").label == label


def test_patch_changes_what_is_sent_and_no_more(server: Served) -> None:  # noqa: F811
    client = server.letta()
    block = client.blocks.create(label="l", value="v", description="d", tags=["t"], metadata={"a": 1})
    unchanged = client.blocks.update(block.id)
    assert unchanged.to_dict() == client.blocks.retrieve(block.id).to_dict()
    assert unchanged.version == 1
    kept = client.blocks.update(block.id, description=None, limit=None, metadata=None, value="w")
    assert (kept.description, kept.metadata, kept.value, kept.version) == ("d", {"a": 1}, "w", 2)
    replaced = client.blocks.update(block.id, metadata={"b": 2}, tags=[], value="")
    assert (replaced.metadata, replaced.tags, replaced.value) == ({"b": 2}, [], "")


def test_limits_hold_with_the_contracts_statuses(server: Served) -> None:  # noqa: F811
    http = server.http()
    url = (
        "/v1/blocks/"
        + http.post("/v1/blocks/", json={"label": "l", "value": "12345", "limit": 8}).json()["id"]
    )
    assert http.patch(url, json={"value": "123456789"}).status_code == 400
    assert http.patch(url, json={"limit": 4}).status_code == 400
    assert http.patch(url, json={"value": "123456789", "limit": 8}).status_code == 422
    assert http.patch(url, json={"value": "123456789", "limit": 9}).status_code == 200
    assert http.patch(url, json={"value": "é" * 9}).status_code == 200  # characters, not bytes
    assert http.patch(url, json={"limit": 2**31}).status_code == 422
    assert http.get(url).json()["version"] == 3


def test_if_match_decides_whether_a_patch_happens(server: Served) -> None:  # noqa: F811
    http = server.http()
    made = http.post("/v1/blocks/", json={"label": "l", "value": "a"})
    url, first = f"/v1/blocks/{made.json()['id']}", made.headers["etag"]
    second = http.patch(url, json={"value": "b"}, headers={"if-match": first})
    assert second.status_code == 200 and second.headers["etag"] != first
    late = http.patch(url, json={"value": "c"}, headers={"if-match": first})
    assert late.status_code == 412 and http.get(url).json()["value"] == "b"
    assert http.patch(url, json={"value": "c"}, headers={"if-match": "nonsense"}).status_code == 400
    for good in ("*", f"{first}, {second.headers['etag']}"):
        assert http.patch(url, json={"value": "b"}, headers={"if-match": good}).status_code == 200


def test_a_locked_block_stops_its_owner_until_unlocked(server: Served) -> None:  # noqa: F811
    client = server.letta()
    block = client.blocks.create(label="l", value="a", extra_body={"locked": True})
    with pytest.raises(letta_client.APIStatusError) as caught:
        client.blocks.update(block.id, value="b")
    assert caught.value.status_code == 423
    assert client.blocks.update(block.id, extra_body={"locked": False}).locked is False
    assert client.blocks.update(block.id, value="b").value == "b"


def test_delete_answers_null_and_then_404(server: Served) -> None:  # noqa: F811
    client = server.letta()
    block = client.blocks.create(label="l", value="a")
    assert client.blocks.delete(block.id) is None
    for again in (client.blocks.delete, client.blocks.retrieve):
        with pytest.raises(letta_client.NotFoundError):
            again(block.id)


# -- lists ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("limit", [1, 2, 3, 7, 50])
def test_a_walk_visits_each_block_once(fresh_server: Served, order: Any, limit: int) -> None:  # noqa: F811
    client = fresh_server.letta()
    made = [client.blocks.create(label=f"l{at}", value="").id for at in range(7)]
    expected = made if order == "asc" else made[::-1]
    assert [block.id for block in client.blocks.list(limit=limit, order=order)] == expected
    backwards = list(client.blocks.list(before=expected[-1], limit=limit, order=order))
    assert sorted(block.id for block in backwards) == sorted(expected[:-1])


@pytest.mark.parametrize("order", ["asc", "desc"])
def test_a_page_before_a_cursor_holds_the_nearest_in_the_order_asked_for(
    fresh_server: Served,  # noqa: F811
    order: Any,
) -> None:
    client = fresh_server.letta()
    made = [client.blocks.create(label=f"l{at}", value="").id for at in range(6)]
    ordered = made if order == "asc" else made[::-1]
    assert [b.id for b in client.blocks.list(before=ordered[5], limit=2, order=order).items] == ordered[3:5]
    assert [b.id for b in client.blocks.list(after=ordered[1], limit=2, order=order).items] == ordered[2:4]


def test_a_cursor_that_names_nothing_is_an_error_and_no_first_page(fresh_server: Served) -> None:  # noqa: F811
    client = fresh_server.letta()
    gone = client.blocks.create(label="l", value="")
    client.blocks.create(label="l", value="")
    client.blocks.delete(gone.id)
    for cursor in (gone.id, "block-z", "%00"):
        for name in ("after", "before"):
            with pytest.raises(letta_client.BadRequestError):
                client.blocks.list(**{name: cursor})


def test_defaults_of_the_page(fresh_server: Served) -> None:  # noqa: F811
    http = fresh_server.http()
    vault = fresh_server.vault()
    made = [vault.create_block(label="l").id for _ in range(52)]
    assert [block["id"] for block in http.get("/v1/blocks/").json()] == made[:50]
    assert len(http.get("/v1/blocks/", params={"limit": 0}).json()) == 52
    for bad in (
        {"limit": "-1"},
        {"limit": "x"},
        {"order": "sideways"},
        {"order_by": "label"},
        {"limit": "9" * 20},
    ):
        assert http.get("/v1/blocks/", params=bad).status_code == 422


def test_filters(fresh_server: Served) -> None:  # noqa: F811
    client, http = fresh_server.letta(), fresh_server.http()
    a = client.blocks.create(
        label="sales_a", value="Alpha", description="First", tags=["x", "y"], project_id="p"
    )
    b = client.blocks.create(label="sales_b", value="beta 100%", tags=["y"])
    hidden = client.blocks.create(label="sales_h", value="", hidden=True)
    template = client.blocks.create(label="sales_t", value="", is_template=True, template_name="tn")
    client.agents.create(block_ids=[a.id])

    def found(**filters: Any) -> list[str]:
        return [block["id"] for block in http.get("/v1/blocks/", params=filters).json()]

    assert found() == [a.id, b.id]
    assert found(show_hidden_blocks="true") == [a.id, b.id, hidden.id]
    assert found(templates_only="true") == [template.id]
    assert found(templates_only="true", name="tn") == [template.id]
    assert found(label="sales_a") == found(label_search="SALES_A") == [a.id]
    assert found(label="sales_a", label_search="sales_b") == [a.id]
    assert found(label_search="sales") == [a.id, b.id]
    assert found(value_search="ALPHA") == found(description_search="first") == [a.id]
    assert found(value_search="100%") == [b.id] and found(value_search="1_0") == []
    assert found(tags=["x", "y"]) == [a.id, b.id]
    assert found(tags=["x", "y"], match_all_tags="true") == [a.id]
    assert found(connected_to_agents_count_gt=0) == [a.id]
    assert found(connected_to_agents_count_lt=1) == [b.id]
    assert found(connected_to_agents_count_eq=[0, 1]) == [a.id, b.id]
    assert found(project_id="p") == [a.id]
    assert found(identity_id="identity-1") == found(identifier_keys="k") == []
    for bad in (
        {"label": "a b"},
        {"label": ""},
        {"label_search": "x" * 51},
        {"value_search": ""},
        {"templates_only": "?"},
    ):
        assert http.get("/v1/blocks/", params=bad).status_code == 422


def test_agents_of_a_block(fresh_server: Served) -> None:  # noqa: F811
    client = fresh_server.letta()
    block = client.blocks.create(label="l", value="")
    agents = [client.agents.create(name=f"a{at}", block_ids=[block.id]).id for at in range(3)]
    client.agents.create(name="other")
    assert [agent.id for agent in client.blocks.agents.list(block.id)] == agents[::-1]
    assert [agent.id for agent in client.blocks.agents.list(block.id, limit=1, order="asc")] == agents
    assert sorted(client.blocks.retrieve(block.id).agent_ids) == sorted(agents)


def test_tags_are_listed_by_name(fresh_server: Served) -> None:  # noqa: F811
    client = fresh_server.letta()
    client.blocks.create(label="l", value="", tags=["b", "a"])
    client.agents.create(tags=["c", "a"])
    assert client.tags.list() == ["a", "b", "c"]
    assert client.tags.list(order="desc", limit=2) == ["c", "b"]
    assert client.tags.list(after="a") == ["b", "c"]
    assert client.tags.list(query_text="B") == client.tags.list(name="b") == ["b"]
