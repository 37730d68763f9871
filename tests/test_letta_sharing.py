"""Our own routes through the unmodified client's escape hatches: grants, offers, access, tokens, users, the log."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import letta_client
import pytest
from server_fixtures import Served, fresh_server, server  # noqa: F401
from stores import sampled

from tallystone.letta.routes import ROUTES

KID = "a" * 16
NOWHERE = "block-00000000-0000-4000-8000-000000000000"


@pytest.fixture
def ada(server: Served, request: pytest.FixtureRequest) -> Any:  # noqa: F811
    """A second user's token, made over the wire by the first."""
    made: Any = server.letta().post("/v1/users", cast_to=object, body={"name": f"ada {request.node.name}"})
    return made


def test_a_block_travels_from_one_user_to_another(server: Served, ada: Any) -> None:  # noqa: F811
    mine, hers = server.letta(), server.letta(ada["token"])
    block = mine.blocks.create(label="plans", value="Launch on Friday.")
    path = f"/v1/blocks/{block.id}/grants"
    grant: Any = mine.post(path, cast_to=object, body={"recipient": ada["principal"], "can": "write"})
    assert (grant["recipient"], grant["can"], grant["kind"]) == (ada["principal"], "write", "user")
    assert grant["name"].startswith("ada ")
    assert mine.get(path, cast_to=object) == [grant]
    assert list(hers.blocks.list()) == []
    assert hers.get("/v1/offers", cast_to=object) == [
        {
            "block_id": block.id,
            "recipient": ada["principal"],
            "label": "plans",
            "owner": server.user,
            "owner_name": "root",
            "can": "write",
            "kind": "grant",
        }
    ]
    taken: Any = hers.post(f"/v1/offers/{block.id}/accept", cast_to=object)
    assert (taken["id"], taken["rights"]) == (block.id, "write")
    assert [one.id for one in hers.blocks.list()] == [block.id]
    assert hers.get("/v1/offers", cast_to=object) == []
    assert hers.get(path, cast_to=object) == [grant]
    cells: Any = mine.get("/v1/access", cast_to=object)
    held = {cell["principal"]: cell["rights"] for cell in cells if cell["block_id"] == block.id}
    assert held == {server.user: "owner", ada["principal"]: "write"}
    left: Any = mine.delete(f"{path}/{ada['principal']}", cast_to=object)
    owner = {
        "principal": server.user,
        "name": "root",
        "through": 0,
        "can": "owner",
        "how": "owner",
        "why": "owns the block",
    }
    assert left == {"reach": [owner], "still_reachable": [owner]}
    with pytest.raises(letta_client.NotFoundError):
        hers.blocks.retrieve(block.id)


def test_a_grant_on_terms(server: Served, ada: Any) -> None:  # noqa: F811
    mine = server.letta()
    block = mine.blocks.create(label="plans", value="v")
    path = f"/v1/blocks/{block.id}/grants"
    body = {
        "principal": ada["principal"],
        "can": "write+share",
        "until": "2099-12-31",
        "depth": 2,
        "history": False,
    }
    grant: Any = mine.post(path, cast_to=object, body=body)
    assert {name: grant[name] for name in ("can", "until", "depth", "history")} == {
        name: body[name] for name in ("can", "until", "depth", "history")
    }
    assert mine.get(path, cast_to=object) == [grant]
    with pytest.raises(letta_client.ConflictError) as again:
        mine.post(path, cast_to=object, body=body)
    assert again.value.body["error"]["code"] == "already_granted"
    assert again.value.response.headers["x-should-retry"] == "false"
    other: Any = mine.post(path, cast_to=object, body={**body, "can": "read", "depth": 0})
    assert (other["can"], other["depth"]) == ("read", 0)
    assert mine.get(path, cast_to=object) == [other]


def test_who_reaches_a_block_and_why(server: Served, ada: Any) -> None:  # noqa: F811
    mine = server.letta()
    block = mine.blocks.create(label="plans", value="v")
    agent = mine.agents.create(name="ari", block_ids=[block.id])
    server.vault().share(block.id, ada["principal"], "share")
    path = f"/v1/blocks/{block.id}/access"
    found: Any = mine.get(path, cast_to=object)
    assert [(one["principal"], one["can"], one["through"]) for one in found] == [
        (server.user, "owner", 0),
        (agent.id, "write", 1),
        (ada["principal"], "share", 2),
    ]
    assert [one["why"] for one in found] == ["owns the block", "grant 1", "grant 2"]
    assert [one["how"] for one in found] == ["owner", "grant", "grant"]
    for who, count in (("root", 1), (ada["principal"], 1), ("nobody", 0)):
        some: Any = mine.get(path, cast_to=object, options={"params": {"principal": who}})
        assert len(some) == count
    assert server.http(ada["token"]).get(path).status_code == 404  # not accepted yet


def test_a_policy_goes_in_and_out(server: Served, ada: Any) -> None:  # noqa: F811
    mine = server.letta()
    policy: dict[str, Any] = {
        "sensitivity": "internal",
        "allowed": [ada["principal"]],
        "expires": "2099-12-31",
        "append_only": True,
    }
    block = mine.blocks.create(label="policed", value="v", extra_body=policy)
    for one in (block, mine.blocks.retrieve(block.id), next(iter(mine.blocks.list(label="policed")))):
        assert {name: getattr(one, name) for name in policy} == policy
        assert (one.mutable, one.rights, one.through) == (True, "owner", None)
    grants = f"/v1/blocks/{block.id}/grants"
    with pytest.raises(letta_client.PermissionDeniedError) as refused:
        mine.post(grants, cast_to=object, body={"principal": ada["principal"]})
    assert refused.value.body["error"]["code"] == "no_clearance"
    changed = mine.blocks.update(
        block.id, extra_body={"sensitivity": "public", "allowed": [], "expires": None}
    )
    assert (changed.sensitivity, changed.allowed, changed.expires) == (
        "public",
        [],
        None,
    )
    with pytest.raises(letta_client.PermissionDeniedError) as refused:
        mine.post(grants, cast_to=object, body={"principal": ada["principal"]})
    assert refused.value.body["error"]["code"] == "not_allowed"
    free = mine.blocks.update(block.id, extra_body={"allowed": None})
    assert free.allowed is None
    assert mine.blocks.update(block.id, extra_body={"append_only": True}).version == free.version
    with pytest.raises(letta_client.UnprocessableEntityError) as fixed:
        mine.blocks.update(block.id, extra_body={"append_only": False})
    assert fixed.value.body["error"]["code"] == "fixed"


def test_a_policy_of_an_agents_new_block(server: Served) -> None:  # noqa: F811
    made = server.http().post(
        "/v1/agents/",
        json={"memory_blocks": [{"label": "rules", "value": "v", "mutable": False, "expires": "2099-12-31"}]},
    )
    (block,) = made.json()["blocks"]
    assert (block["mutable"], block["expires"]) == (False, "2099-12-31")


def test_a_block_is_handed_over(server: Served, ada: Any) -> None:  # noqa: F811
    mine, hers = server.http(), server.http(ada["token"])
    block = server.vault().create_block(label="plans", value="v").id
    path = f"/v1/blocks/{block}/transfer"
    assert hers.post(f"{path}/accept").status_code == 404
    assert mine.post(path, json={"to": ada["principal"]}).json() is None
    (offer,) = hers.get("/v1/offers").json()
    assert (offer["block_id"], offer["kind"], offer["can"]) == (block, "transfer", "owner")
    assert mine.delete(path).json() is None
    assert mine.delete(path).status_code == 404
    assert hers.get("/v1/offers").json() == []
    assert mine.post(path, json={"to": ada["principal"]}).status_code == 200
    taken = hers.post(f"{path}/accept").json()
    assert (taken["id"], taken["owner"], taken["rights"]) == (block, ada["principal"], "owner")
    assert mine.get(f"/v1/blocks/{block}").status_code == 404


def test_read_is_what_is_granted_when_nothing_is_said(server: Served, ada: Any) -> None:  # noqa: F811
    mine = server.letta()
    block = mine.blocks.create(label="l", value="v")
    grant: Any = mine.post(
        f"/v1/blocks/{block.id}/grants", cast_to=object, body={"recipient": ada["principal"]}
    )
    assert grant["can"] == "read"


def test_a_declined_offer_is_gone(server: Served, ada: Any) -> None:  # noqa: F811
    mine, hers = server.letta(), server.letta(ada["token"])
    block = mine.blocks.create(label="spam", value="v")
    mine.post(f"/v1/blocks/{block.id}/grants", cast_to=object, body={"recipient": ada["principal"]})
    assert server.http(ada["token"]).post(f"/v1/offers/{block.id}/decline").json() is None
    for verb in ("accept", "decline"):
        with pytest.raises(letta_client.NotFoundError):
            hers.post(f"/v1/offers/{block.id}/{verb}", cast_to=object)


def test_an_offer_is_accepted_while_much_mail_waits(server: Served, ada: Any) -> None:  # noqa: F811
    vault = server.vault()
    blocks = [vault.create_block(label=f"b{number}").id for number in range(70)]
    for block in blocks:
        vault.share(block, ada["principal"])
    answer = server.http(ada["token"]).post(f"/v1/offers/{blocks[0]}/accept")
    assert (answer.status_code, answer.json().get("id")) == (200, blocks[0])


@pytest.mark.parametrize("access", [None, "read", "write"])
def test_an_agent_gets_what_access_says(server: Served, access: str | None) -> None:  # noqa: F811
    client = server.letta()
    block = client.blocks.create(label="l", value="v")
    agent = client.agents.create(name="ari")
    query: dict[str, object] = {} if access is None else {"access": access}
    client.agents.blocks.attach(block.id, agent_id=agent.id, extra_query=query)
    (grant,) = server.vault().grants(block.id)
    assert (grant.recipient, grant.can) == (agent.id, access or "write")
    client.agents.blocks.attach(block.id, agent_id=agent.id, extra_query={"access": "read"})
    assert [grant.can for grant in server.vault().grants(block.id)] == ["read"]
    with pytest.raises(letta_client.UnprocessableEntityError):
        client.agents.blocks.attach(block.id, agent_id=agent.id, extra_query={"access": "admin"})


def test_tokens_come_and_go(server: Served) -> None:  # noqa: F811
    client = server.letta()
    agent = client.agents.create(name="ari")
    ends = datetime.now(UTC).replace(microsecond=0) + timedelta(days=1)
    body = {"scope": "read", "expires": ends.isoformat(), "label": "board", "agent_id": agent.id}
    made: Any = client.post("/v1/tokens", cast_to=object, body=body)
    assert [one.id for one in server.letta(made["token"]).agents.list()] == [agent.id]
    known: Any = client.get("/v1/tokens", cast_to=object)
    (row,) = [one for one in known if one["label"] == "board"]
    assert (row["principal"], row["scope"]) == (agent.id, "read")
    assert row["expires"] == ends.isoformat().replace("+00:00", "Z")
    assert datetime.fromisoformat(row["created"]) <= datetime.now(UTC)
    assert set(row) == {"kid", "principal", "scope", "created", "expires", "label"}
    assert made["token"][6:22] == row["kid"]
    assert client.delete(f"/v1/tokens/{row['kid']}", cast_to=object) is None
    with pytest.raises(letta_client.AuthenticationError):
        server.letta(made["token"]).agents.list()
    with pytest.raises(letta_client.NotFoundError):
        client.delete(f"/v1/tokens/{row['kid']}", cast_to=object)
    bare: Any = client.post("/v1/tokens", cast_to=object)
    assert server.vault(bare["token"]).principal_id == server.user


def test_an_agents_token_makes_no_token_for_its_user(server: Served) -> None:  # noqa: F811
    agent = server.vault().create_agent({"name": "ari"}).id
    http = server.http(server.vault().agent_token(agent))
    made = http.post("/v1/tokens", json={}).json()["token"]
    assert server.vault(made).principal_id == agent
    assert http.post("/v1/users", json={"name": "eve"}).status_code == 403
    assert http.get("/v1/users").json() == []


def test_a_new_user_gets_a_token_and_a_kit_once(server: Served, ada: Any) -> None:  # noqa: F811
    assert set(ada) == {"principal", "token", "kit"}
    assert "AGE-SECRET-KEY-PQ-1" in ada["kit"]
    client = server.letta()
    users: Any = client.get("/v1/users", cast_to=object)
    (row,) = [user for user in users if user["id"] == ada["principal"]]
    assert row["name"].startswith("ada ") and (row["kind"], row["status"]) == ("user", "active")
    assert ada["token"] not in str(users)
    with pytest.raises(letta_client.ConflictError) as taken:
        client.post("/v1/users", cast_to=object, body={"name": row["name"]})
    assert taken.value.response.headers["x-should-retry"] == "false"
    with pytest.raises(letta_client.PermissionDeniedError):
        server.letta(ada["token"]).post("/v1/users", cast_to=object, body={"name": "another"})


def test_a_secret_is_shown_once_and_its_retry_makes_no_second_one(fresh_server: Served) -> None:  # noqa: F811
    http, retry = fresh_server.http(), {"x-stainless-retry-count": "1"}
    for path, body in (("/v1/tokens", {"label": "l"}), ("/v1/users", {"name": "ada"})):
        first = http.post(path, json=body)
        again = http.post(path, json=body, headers=retry)
        assert again.status_code == 409
        assert again.json()["error"]["code"] == "already_made"
        assert again.headers["x-should-retry"] == "false"
        assert first.json()["token"] not in again.text
    other = fresh_server.http(first.json()["token"])
    theirs = other.post("/v1/tokens", json={"label": "l"}, headers=retry)
    assert fresh_server.vault(theirs.json()["token"]).principal_id == first.json()["principal"]
    assert len(fresh_server.vault().users()) == 2
    assert len(fresh_server.vault().tokens()) == 2


def test_a_retried_share_and_accept_happen_once(server: Served, ada: Any) -> None:  # noqa: F811
    block = server.vault().create_block(label="l").id
    retry = {"x-stainless-retry-count": "1"}
    for http, path, body in (
        (server.http(), f"/v1/blocks/{block}/grants", {"recipient": ada["principal"]}),
        (server.http(ada["token"]), f"/v1/offers/{block}/accept", None),
    ):
        first = http.post(path, json=body)
        again = http.post(path, json=body, headers=retry)
        assert (first.status_code, again.status_code) == (200, 200)
        assert again.json() == first.json()


def test_the_log_over_the_wire(server: Served) -> None:  # noqa: F811
    client = server.letta()
    agent = client.agents.create(name="ari")
    block = client.blocks.create(label="l", value="v")
    client.blocks.delete(block.id)
    newest: Any = client.get("/v1/audit/events", cast_to=object, options={"params": {"limit": 2}})
    assert [(event["kind"], event["detail"]["block"]) for event in newest] == [
        ("create", block.id),
        ("delete", block.id),
    ]
    assert set(newest[0]) == {"seq", "time", "kind", "actor", "under", "detail"}
    assert (newest[0]["actor"], newest[0]["under"]) == (server.user, None)
    assert datetime.fromisoformat(newest[0]["time"]) <= datetime.now(UTC)
    beyond: Any = client.get(
        "/v1/audit/events", cast_to=object, options={"params": {"after": newest[0]["seq"], "limit": 1}}
    )
    assert beyond == newest[1:]
    everything: Any = client.get("/v1/audit/events", cast_to=object, options={"params": {"limit": 0}})
    assert everything[-2:] == newest and len(everything) > 2
    assert any(event["detail"].get("agent") == agent.id for event in everything)


OURS = [route for route in ROUTES if route.kind == "served" and not route.client]


@sampled(8, "about paths")
@pytest.mark.parametrize("route", OURS, ids=lambda route: f"{route.method} {route.path}")
def test_both_spellings_and_no_redirect(server: Served, route: Any) -> None:  # noqa: F811
    path = (
        route.path.replace("...", "")
        .format(
            block_id=NOWHERE,
            offered=NOWHERE,
            principal="nobody",
            role="none",
            who="nobody",
            kid=KID,
            invitation=KID,
            provider="openai",
            tile="0/000",
            leaf="0",
            old="1",
            number="1",
            agent_id=NOWHERE.replace("block", "agent"),
        )
        .rstrip("/")
    )
    http = server.http()

    def status(method: str, spelled: str) -> int:
        with http.stream(method, spelled) as answer:  # a stream of events has no end: its head is the answer
            return answer.status_code

    found = status(route.method, path)
    assert status(route.method, path + "/") == found
    assert found in (200, 404, 422)
    others = {one.method for one in OURS if one.path == route.path}
    assert "PUT" in others or status("PUT", path) == 405


def test_a_name_with_slashes_is_one_segment(server: Served) -> None:  # noqa: F811
    client = server.letta()
    made: Any = client.post("/v1/users", cast_to=object, body={"name": "r&d / Zoë"})
    block = client.blocks.create(label="l", value="v")
    path = f"/v1/blocks/{block.id}/grants"
    client.post(path, cast_to=object, body={"recipient": "r&d / Zoë"})
    left: Any = client.delete(f"{path}/r%26d%20%2F%20Zo%C3%AB", cast_to=object)
    assert made["principal"] not in str(left)


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", f"/v1/blocks/{NOWHERE}/grants", {}),
        ("POST", f"/v1/blocks/{NOWHERE}/grants", {"recipient": ""}),
        ("POST", f"/v1/blocks/{NOWHERE}/grants", {"recipient": 7}),
        ("POST", f"/v1/blocks/{NOWHERE}/grants", {"recipient": "root", "can": "fly"}),
        ("POST", f"/v1/blocks/{NOWHERE}/grants", {"recipient": "x" * 201}),
        ("POST", "/v1/blocks/nonsense/grants", {"recipient": "root"}),
        ("GET", "/v1/blocks/nonsense/grants", None),
        ("DELETE", "/v1/blocks/nonsense/grants/root", None),
        ("POST", f"/v1/blocks/{NOWHERE}/grants", {"principal": "root", "recipient": "ada"}),
        ("POST", f"/v1/blocks/{NOWHERE}/grants", {"principal": "root", "until": "soon"}),
        ("POST", f"/v1/blocks/{NOWHERE}/grants", {"principal": "root", "until": "2099-12-31T00:00:00Z"}),
        ("POST", f"/v1/blocks/{NOWHERE}/grants", {"principal": "root", "depth": -1}),
        ("POST", f"/v1/blocks/{NOWHERE}/grants", {"principal": "root", "history": "yes"}),
        ("GET", "/v1/blocks/nonsense/access", None),
        ("POST", "/v1/blocks/nonsense/transfer", {"to": "root"}),
        ("POST", f"/v1/blocks/{NOWHERE}/transfer", {}),
        ("DELETE", "/v1/blocks/nonsense/transfer", None),
        ("POST", "/v1/blocks/nonsense/transfer/accept", None),
        ("POST", "/v1/blocks", {"label": "l", "sensitivity": "cosmic"}),
        ("POST", "/v1/blocks", {"label": "l", "expires": "2001-01-01"}),
        ("POST", "/v1/blocks", {"label": "l", "expires": "tomorrow"}),
        ("POST", "/v1/blocks", {"label": "l", "allowed": "root"}),
        ("POST", "/v1/blocks", {"label": "l", "mutable": False, "append_only": True}),
        ("POST", "/v1/offers/role-nonsense/accept", None),
        ("POST", "/v1/offers/nonsense/accept", None),
        ("POST", "/v1/offers/nonsense/decline", None),
        ("POST", "/v1/tokens", {"scope": "all"}),
        ("POST", "/v1/tokens", {"expires": "tomorrow"}),
        ("POST", "/v1/tokens", {"expires": "2027-01-31T00:00:00"}),
        ("POST", "/v1/tokens", {"expires": "2001-01-31T00:00:00Z"}),
        ("POST", "/v1/tokens", {"expires": "0001-01-01T00:00:00+23:59"}),
        ("POST", "/v1/tokens", {"expires": "9999-12-31T23:59:59-23:59"}),
        ("POST", "/v1/tokens", {"expires": 1900000000}),
        ("POST", "/v1/tokens", {"label": "x" * 201}),
        ("POST", "/v1/tokens", {"agent_id": "ari"}),
        ("POST", "/v1/tokens", []),
        ("DELETE", "/v1/tokens/nonsense", None),
        ("POST", "/v1/users", {}),
        ("POST", "/v1/users", {"name": " "}),
        ("POST", "/v1/users", {"name": "user-1"}),
        ("POST", "/v1/users", {"name": "a\nb"}),
        ("GET", "/v1/audit/events?limit=-1", None),
        ("GET", "/v1/audit/events?limit=many", None),
        ("GET", "/v1/audit/events?after=block", None),
    ],
)
def test_bad_input_is_422_with_a_string_and_a_hint(
    server: Served,  # noqa: F811
    method: str,
    path: str,
    body: Any,
) -> None:
    answer = server.http().request(method, path, json=body)
    assert answer.status_code == 422, answer.text
    error = answer.json()
    assert isinstance(error["detail"], str) and error["error"]["hint"] and error["error"]["code"]


def test_a_whole_token_in_the_path_is_not_repeated(server: Served) -> None:  # noqa: F811
    answer = server.http().delete(f"/v1/tokens/{server.token}")
    assert answer.status_code == 422
    assert server.token not in answer.text


@pytest.mark.parametrize("recipient", ["nobody", "agent-00000000-0000-4000-8000-000000000000"])
def test_sharing_with_nobody_is_404(server: Served, recipient: str) -> None:  # noqa: F811
    block = server.vault().create_block(label="l").id
    http, path = server.http(), f"/v1/blocks/{block}/grants"
    assert http.post(path, json={"recipient": recipient}).status_code == 404
    assert http.delete(f"{path}/{recipient}").status_code == 404


def test_a_grantee_neither_shares_on_nor_revokes_the_owner(server: Served, ada: Any) -> None:  # noqa: F811
    vault = server.vault()
    block = vault.create_block(label="l").id
    vault.share(block, ada["principal"], "write")
    http = server.http(ada["token"])
    assert http.post(f"/v1/offers/{block}/accept").status_code == 200
    assert http.post(f"/v1/blocks/{block}/grants", json={"recipient": "root"}).status_code == 403
    assert http.delete(f"/v1/blocks/{block}/grants/root").status_code == 422
