"""Roles over HTTP, through the unmodified client's escape hatches."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from server_fixtures import Served, server  # noqa: F401

FIELDS = {
    "id",
    "name",
    "description",
    "owner",
    "owner_name",
    "clearance",
    "history",
    "members",
    "mine",
    "created_at",
}


@pytest.fixture
def http(server: Served) -> httpx.Client:  # noqa: F811
    """The workspace's first user."""
    return server.http()


@pytest.fixture
def ada(server: Served, request: pytest.FixtureRequest) -> Any:  # noqa: F811
    """A second user: her id, her token, and her client."""
    made: Any = server.http().post("/v1/users", json={"name": f"ada {request.node.name}"}).json()
    return {**made, "http": server.http(made["token"])}


def role(http: httpx.Client, name: str, **fields: Any) -> Any:
    """A new role."""
    answer = http.post("/v1/roles", json={"name": name, **fields})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_role_from_its_beginning_to_its_end(http: httpx.Client, ada: Any) -> None:
    made = role(http, "engineers", description="who builds it", history=False)
    assert set(made) == FIELDS
    assert (made["name"], made["members"], made["mine"], made["history"]) == ("engineers", [], True, False)
    path = f"/v1/roles/{made['id']}"
    added = http.post(f"{path}/members", json={"members": [ada["principal"]], "until": "2099-12-31"})
    assert (added.json()["id"], added.json()["members"]) == (made["id"], [])
    found = http.get("/v1/roles/engineers").json()
    (member,) = found["members"]
    assert (member["principal"], member["kind"], member["until"]) == (ada["principal"], "user", "2099-12-31")
    assert http.get(path).json() == found
    assert ada["http"].get(path).status_code == 404
    (offer,) = ada["http"].get("/v1/offers").json()
    assert (offer["block_id"], offer["kind"], offer["label"]) == (made["id"], "role", "engineers")
    assert ada["http"].post(f"/v1/offers/{made['id']}/accept").json() is None
    (hers,) = ada["http"].get("/v1/roles").json()
    assert (hers["id"], hers["mine"], hers["members"]) == (made["id"], False, [])
    assert ada["http"].delete(f"{path}/members/{ada['principal']}").status_code == 403
    left = http.delete(f"{path}/members/{ada['principal']}").json()
    assert (left["id"], left["members"]) == (made["id"], [])
    assert ada["http"].get(path).status_code == 404
    assert http.delete(path).json() is None
    assert http.get(path).status_code == 404


def test_a_block_through_a_role(http: httpx.Client, ada: Any) -> None:
    made = role(http, "writers")
    http.post(f"/v1/roles/{made['id']}/members", json={"members": [ada["principal"]]})
    ada["http"].post(f"/v1/offers/{made['id']}/accept")
    block = http.post("/v1/blocks/", json={"label": "specs", "value": "v"}).json()["id"]
    grant = http.post(f"/v1/blocks/{block}/grants", json={"principal": "writers", "can": "write"}).json()
    assert (grant["recipient"], grant["kind"], grant["name"]) == (made["id"], "role", "writers")
    seen = ada["http"].get(f"/v1/blocks/{block}").json()
    assert (seen["rights"], seen["through"]) == ("write", made["id"])
    assert ada["http"].patch(f"/v1/blocks/{block}", json={"value": "hers"}).status_code == 200
    reach = http.get(f"/v1/blocks/{block}/access", params={"principal": ada["principal"]}).json()
    assert [(one["can"], one["how"], one["why"]) for one in reach] == [
        ("write", "role", "is a member of role writers")
    ]
    cells = http.get("/v1/access").json()
    held = [(c["principal"], c["rights"], c["through"]) for c in cells if c["block_id"] == block]
    assert (ada["principal"], "write", "is a member of role writers") in held
    assert (made["id"], "write", "") in held
    http.delete(f"/v1/roles/writers/members/{ada['principal']}")
    assert ada["http"].get(f"/v1/blocks/{block}").status_code == 404


def test_a_declined_role_is_gone(http: httpx.Client, ada: Any) -> None:
    made = role(http, "spam")
    http.post(f"/v1/roles/{made['id']}/members", json={"members": [ada["principal"]]})
    assert ada["http"].post(f"/v1/offers/{made['id']}/decline").json() is None
    assert ada["http"].get("/v1/offers").json() == []
    assert ada["http"].post(f"/v1/offers/{made['id']}/accept").status_code == 404


def test_a_roles_clearance(http: httpx.Client) -> None:
    made = role(http, "cleared", clearance="internal")
    assert made["clearance"] == "internal"
    changed = http.patch("/v1/roles/cleared", json={"clearance": "restricted"})
    assert (changed.status_code, changed.json()["clearance"]) == (200, "restricted")
    assert http.patch("/v1/roles/cleared", json={"clearance": None}).json()["clearance"] == "public"


def test_a_retried_role_is_made_once(http: httpx.Client) -> None:
    body = {"name": "once"}
    first = http.post("/v1/roles", json=body).json()
    again = http.post("/v1/roles", json=body, headers={"x-stainless-retry-count": "1"})
    assert again.json() == first
    assert again.headers["x-tallystone-replayed"] == "true"


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("/v1/roles", {"name": "taken"}, 409, "name_taken"),
        ("/v1/roles", {"name": " "}, 422, "bad_name"),
        ("/v1/roles", {"name": "new", "clearance": "cosmic"}, 422, "unknown_level"),
        ("/v1/roles", {}, 422, "invalid"),
        ("/v1/roles/taken/members", {"members": []}, 422, "invalid"),
        ("/v1/roles/taken/members", {"members": ["nobody"]}, 404, "unknown_principal"),
        ("/v1/roles/taken/members", {"members": ["taken"]}, 422, "role_cycle"),
        ("/v1/roles/taken/members", {"members": ["root"]}, 422, "self_grant"),
        ("/v1/roles/taken/members", {"members": ["inner"], "until": "2001-01-01"}, 422, "bad_expiry"),
        ("/v1/roles/inner/members", {"members": ["outer"]}, 422, "role_cycle"),
        ("/v1/roles/outer/members", {"members": ["inner"]}, 409, "already_granted"),
        ("/v1/roles/none/members", {"members": ["inner"]}, 404, "not_found"),
    ],
)
def test_bad_input(http: httpx.Client, path: str, body: Any, status: int, code: str) -> None:
    if http.get("/v1/roles/taken").status_code == 404:
        for name in ("taken", "inner", "outer"):
            role(http, name)
        assert http.post("/v1/roles/outer/members", json={"members": ["inner"]}).status_code == 200
    before = http.get("/v1/roles").json()
    answer = http.post(path, json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), answer.text
    assert answer.json()["error"]["hint"]
    assert http.get("/v1/roles").json() == before


def test_who_is_no_member_cannot_be_removed(http: httpx.Client, ada: Any) -> None:
    role(http, "few")
    assert http.delete(f"/v1/roles/few/members/{ada['principal']}").status_code == 404
    assert http.delete("/v1/roles/few/members/nobody").status_code == 404
