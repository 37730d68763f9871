"""Users, invitations, the charter and access tokens over HTTP."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import letta_client
import pytest
from server_fixtures import AUTHORITIES, Served, fresh_server, server  # noqa: F401

from tallystone.server.app import App
from tallystone.server.auth import Turnstile

NOBODY = "agent-00000000-0000-4000-8000-000000000000"
READ, WRITE = ["read_agent"], ["write_messages", "read_agent", "write_agent"]


@pytest.fixture
def http(server: Served) -> httpx.Client:  # noqa: F811
    """The workspace's first user."""
    return server.http()


@pytest.fixture
def stranger(server: Served) -> httpx.Client:  # noqa: F811
    """Somebody without a token."""
    client = httpx.Client(base_url=server.url, trust_env=False, verify=AUTHORITIES)
    server.closing.append(client)
    return client


def code_of(answer: httpx.Response) -> str:
    """The code of an error."""
    return str(answer.json()["error"]["code"])


# -- users ------------------------------------------------------------------------------------------------------


def test_a_user_is_stopped_and_goes_on(server: Served, http: httpx.Client) -> None:  # noqa: F811
    ada = http.post("/v1/users", json={"name": "ada", "clearance": "internal"}).json()
    hers = server.http(ada["token"])
    agent = server.vault(ada["token"]).create_agent({"name": "ari"}).id
    its = server.http(server.vault(ada["token"]).agent_token(agent))
    assert http.post("/v1/users/ada/suspend").json() is None
    for client in (hers, its):
        refused = client.get("/v1/blocks/")
        assert (refused.status_code, code_of(refused)) == (401, "inactive")
    shown = {user["name"]: user for user in http.get("/v1/users").json()}
    assert (shown["ada"]["status"], shown["ada"]["clearance"]) == ("suspended", "internal")
    assert code_of(http.post("/v1/users/ada/suspend")) == "already_suspended"
    assert http.post(f"/v1/users/{ada['principal']}/resume").json() is None
    assert hers.get("/v1/blocks/").status_code == its.get("/v1/blocks/").status_code == 200
    assert hers.post(f"/v1/users/{agent}/suspend").status_code == 200
    assert (hers.get("/v1/blocks/").status_code, its.get("/v1/blocks/").status_code) == (200, 401)
    assert hers.post(f"/v1/users/{server.user}/suspend").status_code == 403
    assert code_of(http.post(f"/v1/users/{server.user}/suspend")) == "is_root"
    assert http.post("/v1/users/nobody/suspend").status_code == 404


def test_clearance_is_given_and_taken(server: Served, http: httpx.Client) -> None:  # noqa: F811
    server.add_user("eve")

    def cleared() -> str:
        return str(next(user["clearance"] for user in http.get("/v1/users").json() if user["name"] == "eve"))

    assert http.patch("/v1/users/eve", json={"clearance": "restricted"}).json() is None
    assert cleared() == "restricted"
    assert http.patch("/v1/users/eve", json={"clearance": None}).status_code == 200
    assert cleared() == "public"
    for body in ({}, {"clearance": 3}, {"clearance": "cosmic"}):
        assert http.patch("/v1/users/eve", json=body).status_code == 422
    assert cleared() == "public"


# -- invitations ------------------------------------------------------------------------------------------------


def test_an_invitation_makes_one_user(
    server: Served,  # noqa: F811
    http: httpx.Client,
    stranger: httpx.Client,
) -> None:
    asked = {"name": "bob", "clearance": "internal", "days": 2}
    made = http.post("/v1/invitations", json=asked)
    invite = made.json()
    assert set(invite) == {"code", "kid", "name"}
    again = http.post("/v1/invitations", json=asked, headers={"x-stainless-retry-count": "1"})
    assert (again.status_code, code_of(again)) == (409, "already_made")
    assert invite["code"] not in again.text
    (known,) = http.get("/v1/invitations").json()
    assert (known["kid"], known["name"], known["clearance"]) == (invite["kid"], "bob", "internal")
    ends = datetime.fromisoformat(known["expires"]) - datetime.now(UTC)
    assert timedelta(days=1, hours=23) < ends <= timedelta(days=2)
    bob = stranger.post("/v1/invitations/redeem", json={"code": invite["code"]})
    assert (bob.status_code, bob.headers["cache-control"]) == (200, "no-store")
    assert set(bob.json()) == {"principal", "token", "kit"}
    assert server.http(bob.json()["token"]).get("/v1/blocks/").json() == []
    assert http.get("/v1/invitations").json() == []
    (row,) = [user for user in http.get("/v1/users").json() if user["id"] == bob.json()["principal"]]
    assert (row["name"], row["clearance"]) == ("bob", "internal")
    refused = [
        stranger.post("/v1/invitations/redeem", json={"code": code})
        for code in (invite["code"], "nonsense", invite["kid"])
    ]
    assert {(one.status_code, one.text) for one in refused} == {(401, refused[0].text)}


def test_a_revoked_invitation_opens_nothing(http: httpx.Client, stranger: httpx.Client) -> None:
    invite = http.post("/v1/invitations", json={"name": "carl"}).json()
    assert http.delete(f"/v1/invitations/{invite['kid']}").json() is None
    assert code_of(http.delete(f"/v1/invitations/{invite['kid']}")) == "unknown_invitation"
    assert stranger.post("/v1/invitations/redeem", json={"code": invite["code"]}).status_code == 401
    whole = http.delete(f"/v1/invitations/{invite['code']}")
    assert whole.status_code == 422 and invite["code"] not in whole.text


def test_only_the_first_user_invites(server: Served) -> None:  # noqa: F811
    http = server.http(server.add_user("dora"))
    assert http.post("/v1/invitations", json={"name": "friend"}).status_code == 403
    assert http.get("/v1/invitations").status_code == 403
    assert http.delete(f"/v1/invitations/{'a' * 16}").status_code == 403


@pytest.mark.parametrize(
    "body",
    [{}, {"name": ""}, {"name": "x", "days": 0}, {"name": "x", "days": 366}, {"name": "x", "clearance": "y"}],
)
def test_an_invitation_that_cannot_be(http: httpx.Client, body: Any) -> None:
    answer = http.post("/v1/invitations", json=body)
    assert answer.status_code == 422 and answer.json()["error"]["hint"]
    assert not [one for one in http.get("/v1/invitations").json() if one["name"] == "x"]


@pytest.mark.anyio
async def test_guessing_codes_is_slowed_down(fresh_server: Served) -> None:  # noqa: F811
    app = App(fresh_server.workspace, turnstile=Turnstile(rate=1, burst=6, clock=lambda: 0.0))
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://t") as client:
        answers = [
            (await client.post("/v1/invitations/redeem", json={"code": str(number)})).status_code
            for number in range(5)
        ]
    assert answers == [401, 401, 401, 429, 429]


@pytest.fixture
def anyio_backend() -> str:
    """The one that the server runs on."""
    return "asyncio"


# -- the charter ------------------------------------------------------------------------------------------------


def test_the_charter(fresh_server: Served) -> None:  # noqa: F811
    http, ada = fresh_server.http(), fresh_server.http(fresh_server.add_user("ada"))
    first = http.get("/v1/charter").json()
    assert first == ada.get("/v1/charter").json()
    assert (first["trust"], first["levels"][0], first["serial"]) == (False, "public", 0)
    levels = ["open", *first["levels"][1:], "top"]
    changed = http.patch("/v1/charter", json={"trust": True, "levels": levels, "max_grants": None}).json()
    assert changed == {
        "trust": True,
        "levels": levels,
        "max_grants": first["max_grants"],
        "serial": 1,
        "audit": {},
        "auditors": [],
    }
    assert ada.get("/v1/charter").json() == changed
    assert ada.patch("/v1/charter", json={"trust": False}).status_code == 403
    for body in ({"levels": ["open"]}, {"levels": "open"}, {"max_grants": 0}, {"trust": "yes"}):
        assert http.patch("/v1/charter", json=body).status_code == 422
    assert http.get("/v1/charter").json() == changed


# -- the client's access tokens ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("access", "writes"), [(READ, False), (WRITE, True)])
def test_an_access_token_is_one_agents(server: Served, access: Any, writes: bool) -> None:  # noqa: F811
    client = server.letta()
    block = client.blocks.create(label="notes", value="v")
    other = client.blocks.create(label="private", value="v")
    agent = client.agents.create(name="ari", block_ids=[block.id])
    ends = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)
    made = client.access_tokens.create(
        hostname="https://app.example.com",
        policy=[{"type": "agent", "id": agent.id, "access": access}],
        expires_at=ends.isoformat(),
    )
    assert datetime.fromisoformat(made.expires_at) == ends
    assert made.hostname == "https://app.example.com"
    assert [(one.id, one.access) for one in made.policy.data] == [(agent.id, access)]
    its = server.letta(made.token)
    assert [one.id for one in its.blocks.list()] == [block.id]
    with pytest.raises(letta_client.NotFoundError):
        its.blocks.retrieve(other.id)
    if writes:
        assert its.blocks.update(block.id, value="new").value == "new"
    else:
        with pytest.raises(letta_client.PermissionDeniedError):
            its.blocks.update(block.id, value="new")
    (listed,) = client.access_tokens.list(agent_id=agent.id).tokens
    assert listed.token == made.token.split("_")[1]
    assert (listed.expires_at, listed.hostname) == (made.expires_at, made.hostname)
    assert listed.policy.data[0].access == access
    client.access_tokens.delete(made.token if writes else listed.token)
    with pytest.raises(letta_client.AuthenticationError):
        its.blocks.list()
    assert client.access_tokens.list(agent_id=agent.id).tokens == []
    with pytest.raises(letta_client.NotFoundError):
        client.access_tokens.delete(listed.token)


def test_access_tokens_in_pages_and_among_others(server: Served) -> None:  # noqa: F811
    client = server.letta()
    agent = client.agents.create(name="ari").id
    server.vault().agent_token(agent, label="access_token of mine")
    server.vault().agent_token(agent)
    for _ in range(3):
        made = client.access_tokens.create(
            hostname="http://localhost:3000", policy=[{"type": "agent", "id": agent, "access": READ}]
        )
        soon = datetime.fromisoformat(made.expires_at) - datetime.now(UTC)
        assert timedelta(minutes=4) < soon <= timedelta(minutes=5)
    pages = [client.access_tokens.list(agent_id=agent, limit=2, offset=offset) for offset in (0, 2, 4)]
    assert [(len(page.tokens), page.has_next_page) for page in pages] == [(2, True), (1, False), (0, False)]
    assert len({one.token for page in pages for one in page.tokens}) == 3
    plain = next(known.kid for known in server.vault().tokens() if not known.label)
    with pytest.raises(letta_client.NotFoundError):  # a token of ours, that this method has not made
        client.access_tokens.delete(plain)


@pytest.mark.parametrize(
    ("policy", "code"),
    [
        ([], "bad_policy"),
        ([{"type": "agent", "id": "AGENT", "access": []}], "bad_policy"),
        ([{"type": "agent", "id": "AGENT", "access": ["read_messages"]}], "bad_policy"),
        ([{"type": "agent", "id": "AGENT", "access": ["read_agent", "write_messages"]}], "bad_policy"),
        ([{"type": "agent", "id": "AGENT", "access": ["everything"]}], "bad_policy"),
        ([{"type": "block", "id": "AGENT", "access": READ}], "bad_policy"),
        (
            [
                {"type": "agent", "id": "AGENT", "access": READ},
                {"type": "agent", "id": NOBODY, "access": READ},
            ],
            "bad_policy",
        ),
        ([{"type": "agent", "id": "ari", "access": READ}], "bad_id"),
        ([{"type": "agent", "id": NOBODY, "access": READ}], "not_found"),
        ("all", "invalid"),
    ],
)
def test_a_policy_that_no_token_can_hold_to(
    server: Served,  # noqa: F811
    http: httpx.Client,
    policy: Any,
    code: str,
) -> None:
    agent = server.vault().create_agent({"name": "ari"}).id
    before = len(server.vault().tokens())
    text = str(policy).replace("AGENT", agent).replace("'", '"')
    body = f'{{"hostname": "https://x.example", "policy": {text if policy != "all" else 3}}}'
    answer = http.post("/v1/client-side-access-tokens", content=body)
    assert answer.status_code == (404 if code == "not_found" else 422)
    assert code_of(answer) == code and answer.json()["error"]["hint"]
    assert len(server.vault().tokens()) == before


@pytest.mark.parametrize(
    "hostname", ["", "app.example.com", "ftp://x", "https://", "https://a b", "https://" + "x" * 120]
)
def test_a_hostname_that_is_none(server: Served, http: httpx.Client, hostname: str) -> None:  # noqa: F811
    agent = server.vault().create_agent({"name": "ari"}).id
    body = {"hostname": hostname, "policy": [{"type": "agent", "id": agent, "access": READ}]}
    assert code_of(http.post("/v1/client-side-access-tokens", json=body)) == "bad_hostname"


@pytest.mark.parametrize("query", ["limit=-1", "limit=1.5", "offset=x", "limit="])
def test_a_page_that_is_none(http: httpx.Client, query: str) -> None:
    assert http.get(f"/v1/client-side-access-tokens?{query}").status_code == 422


def test_a_new_access_token_is_shown_once(server: Served, http: httpx.Client) -> None:  # noqa: F811
    agent = server.vault().create_agent({"name": "ari"}).id
    body = {"hostname": "https://x.example", "policy": [{"type": "agent", "id": agent, "access": READ}]}
    first = http.post("/v1/client-side-access-tokens", json=body)
    again = http.post("/v1/client-side-access-tokens", json=body, headers={"x-stainless-retry-count": "1"})
    assert (first.status_code, again.status_code) == (200, 409)
    assert re.search("tally_", again.text) is None
