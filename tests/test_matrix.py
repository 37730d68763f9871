"""Every route × every kind of caller: whoever was not granted a thing learns nothing about it, on any route.

The cases are generated from the route table. `CASES` says how a route is called; a route without a case fails
`test_every_route_has_a_case`, so a new route cannot forget to be in here. For each route that names a thing, a
stranger's call with the owner's real ids and one with random ids must be answered alike: status, body and headers,
except for the echoed id and the date.
"""

from __future__ import annotations

import io
import json
import random
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote
from uuid import UUID

import httpx
import pytest
from server_fixtures import AUTHORITIES, Served, server  # noqa: F401
from stores import sampled

from tallystone.letta.routes import OPEN_PATHS, OPEN_POSTS, ROUTES, Route
from tallystone.letta.tools import BY_NAME
from tallystone.vault import Vault
from tallystone.vault.types import ExternalTool, ToolAccess

pytestmark = sampled(
    4, "the cases differ in the route and in who asks: which rows those get, the vault's tests say"
)

RANDOM = random.Random(8)
Key = tuple[str, str]

# What a route is called with: path parameters, body, query. `BLOCK`, `AGENT` and `LABEL` are filled in. `only` says who
# alone is answered. What `streams` does not end.
CASES: dict[Key, dict[str, Any]] = {
    ("POST", "/v1/blocks/"): {"body": {"label": "x", "value": "y"}},
    ("GET", "/v1/blocks/"): {},
    ("GET", "/v1/blocks/{block_id}"): {},
    ("PATCH", "/v1/blocks/{block_id}"): {"body": {"value": "STOLEN"}},
    ("DELETE", "/v1/blocks/{block_id}"): {},
    ("GET", "/v1/blocks/{block_id}/agents"): {},
    ("POST", "/v1/agents/"): {"body": {"block_ids": ["BLOCK"], "name": "thief"}, "ids": True},
    ("GET", "/v1/agents/"): {},
    ("GET", "/v1/agents/{agent_id}"): {},
    ("PATCH", "/v1/agents/{agent_id}"): {"body": {"block_ids": ["BLOCK"], "name": "stolen"}},
    ("DELETE", "/v1/agents/{agent_id}"): {},
    ("GET", "/v1/agents/{agent_id}/core-memory/blocks"): {},
    ("GET", "/v1/agents/{agent_id}/core-memory/blocks/{block_label...}"): {},
    ("PATCH", "/v1/agents/{agent_id}/core-memory/blocks/{block_label...}"): {"body": {"value": "STOLEN"}},
    ("PATCH", "/v1/agents/{agent_id}/core-memory/blocks/attach/{block_id}"): {},
    ("PATCH", "/v1/agents/{agent_id}/core-memory/blocks/detach/{block_id}"): {},
    ("POST", "/v1/agents/{agent_id}/contact"): {},
    ("GET", "/v1/agents/{agent_id}/tools"): {},
    ("PATCH", "/v1/agents/{agent_id}/tools/attach/{tool_id}"): {},
    ("PATCH", "/v1/agents/{agent_id}/tools/detach/{tool_id}"): {},
    ("POST", "/v1/agents/{agent_id}/tools/{tool_name}/run"): {
        "body": {"args": {"label": "LABEL", "content": "STOLEN"}}
    },
    ("PATCH", "/v1/agents/{agent_id}/tools/approval/{tool_name}"): {"body": {"requires_approval": True}},
    ("POST", "/v1/agents/{agent_id}/messages"): {"body": {"input": "STOLEN"}},
    ("GET", "/v1/agents/{agent_id}/messages"): {},
    ("POST", "/v1/agents/{agent_id}/messages/stream"): {"body": {"input": "STOLEN"}},
    ("POST", "/v1/agents/{agent_id}/messages/async"): {"body": {"input": "STOLEN"}},
    ("POST", "/v1/agents/{agent_id}/messages/cancel"): {"body": {}},
    ("PATCH", "/v1/agents/{agent_id}/reset-messages"): {"body": {}},
    ("POST", "/v1/agents/{agent_id}/summarize"): {"body": {}},
    ("POST", "/v1/agents/{agent_id}/recompile"): {"reads": True},
    ("POST", "/v1/agents/{agent_id}/archival-memory"): {"body": {"text": "STOLEN"}},
    ("GET", "/v1/agents/{agent_id}/archival-memory"): {},
    ("GET", "/v1/agents/{agent_id}/archival-memory/search"): {"query": {"query": "x"}},
    ("DELETE", "/v1/agents/{agent_id}/archival-memory/{memory_id}"): {},
    ("POST", "/v1/passages/search"): {
        "body": {"agent_id": "AGENT", "query": "x"},
        "ids": True,
        "reads": True,
    },
    ("GET", "/v1/messages/"): {},
    ("POST", "/v1/messages/search"): {
        "body": {"agent_id": "AGENT", "query": "x"},
        "ids": True,
        "reads": True,
    },
    ("GET", "/v1/messages/{message_id}"): {},
    ("POST", "/v1/conversations/"): {"body": {}, "query": {"agent_id": "AGENT"}, "ids": True},
    ("GET", "/v1/conversations/"): {},
    ("GET", "/v1/conversations/{conversation_id}"): {},
    ("PATCH", "/v1/conversations/{conversation_id}"): {"body": {"summary": "STOLEN"}},
    ("DELETE", "/v1/conversations/{conversation_id}"): {},
    ("POST", "/v1/conversations/{conversation_id}/cancel"): {},
    ("POST", "/v1/conversations/{conversation_id}/fork"): {},
    ("POST", "/v1/conversations/{conversation_id}/recompile"): {"body": {}, "reads": True},
    ("POST", "/v1/conversations/{conversation_id}/compact"): {"body": {}},
    ("POST", "/v1/conversations/{conversation_id}/messages"): {"body": {"input": "STOLEN"}},
    ("GET", "/v1/conversations/{conversation_id}/messages"): {},
    ("POST", "/v1/conversations/{conversation_id}/stream"): {"body": {"run_id": "RUN"}, "reads": True},
    ("GET", "/v1/runs/"): {},
    ("GET", "/v1/runs/{run_id}"): {},
    ("GET", "/v1/runs/{run_id}/messages"): {},
    ("GET", "/v1/runs/{run_id}/steps"): {},
    ("GET", "/v1/runs/{run_id}/usage"): {},
    ("POST", "/v1/runs/{path_run_id}/stream"): {"body": {}, "reads": True},
    ("GET", "/v1/steps/"): {},
    ("GET", "/v1/steps/{step_id}"): {},
    ("GET", "/v1/steps/{step_id}/messages"): {},
    ("PATCH", "/v1/steps/{step_id}/feedback"): {"body": {"feedback": "negative"}},
    ("GET", "/v1/tools/"): {},
    ("GET", "/v1/tools/{tool_id}"): {},
    ("POST", "/v1/mcp-servers/"): {
        "body": {"server_name": "x", "config": {"server_url": "http://thief.example/mcp"}}
    },
    ("GET", "/v1/mcp-servers/"): {},
    ("GET", "/v1/mcp-servers/{mcp_server_id}"): {},
    ("PATCH", "/v1/mcp-servers/{mcp_server_id}"): {"body": {"server_name": "STOLEN"}},
    ("DELETE", "/v1/mcp-servers/{mcp_server_id}"): {},
    ("PATCH", "/v1/mcp-servers/{mcp_server_id}/refresh"): {},
    ("GET", "/v1/mcp-servers/{mcp_server_id}/tools"): {},
    ("GET", "/v1/mcp-servers/{mcp_server_id}/tools/{tool_id}"): {},
    ("POST", "/v1/mcp-servers/{mcp_server_id}/tools/{tool_id}/run"): {"body": {"args": {}}},
    ("GET", "/v1/models/"): {},
    ("GET", "/v1/models/embedding"): {},
    ("GET", "/v1/tags/"): {},
    ("POST", "/v1/blocks/{block_id}/grants"): {"body": {"recipient": "reader", "can": "write"}},
    ("GET", "/v1/blocks/{block_id}/grants"): {},
    ("DELETE", "/v1/blocks/{block_id}/grants/{principal}"): {},
    ("POST", "/v1/blocks/{block_id}/rotate"): {},
    ("GET", "/v1/blocks/{block_id}/access"): {"query": {"principal": "reader"}},
    ("POST", "/v1/blocks/{block_id}/transfer"): {"body": {"to": "reader"}},
    ("DELETE", "/v1/blocks/{block_id}/transfer"): {},
    ("POST", "/v1/blocks/{block_id}/transfer/accept"): {},
    ("POST", "/v1/blocks/{block_id}/erase"): {},
    ("POST", "/v1/blocks/{block_id}/versions/{number}/erase"): {},
    ("GET", "/v1/export"): {},
    ("POST", "/v1/users/me/erase"): {"body": {"confirm": "user-somebody-else"}},
    ("GET", "/v1/offers"): {},
    ("POST", "/v1/offers/{offered}/accept"): {},
    ("POST", "/v1/offers/{offered}/decline"): {},
    ("GET", "/v1/access"): {},
    ("GET", "/v1/blocks/{block_id}/versions"): {},
    ("GET", "/v1/blocks/{block_id}/versions/{number}"): {},
    ("GET", "/v1/blocks/{block_id}/versions/{number}/diff"): {"query": {"to": 1}},
    ("GET", "/v1/blocks/{block_id}/blame"): {},
    ("POST", "/v1/blocks/{block_id}/restore"): {"body": {"version": 1}},
    ("POST", "/v1/undo"): {"body": {"principal": "reader", "since": 1, "block_id": "BLOCK"}, "ids": True},
    ("POST", "/v1/roles"): {"body": {"name": "thieves"}},
    ("GET", "/v1/roles"): {},
    ("GET", "/v1/roles/{role}"): {},
    ("PATCH", "/v1/roles/{role}"): {"body": {"clearance": "internal"}},
    ("DELETE", "/v1/roles/{role}"): {},
    ("POST", "/v1/roles/{role}/members"): {"body": {"members": ["stranger"]}},
    ("DELETE", "/v1/roles/{role}/members/{principal}"): {},
    ("POST", "/v1/client-side-access-tokens"): {
        "body": {
            "hostname": "https://thief.example",
            "policy": [{"type": "agent", "id": "AGENT", "access": ["read_agent"]}],
        },
        "ids": True,
    },
    ("GET", "/v1/client-side-access-tokens"): {},
    ("DELETE", "/v1/client-side-access-tokens/{token}"): {},
    ("GET", "/v1/model-keys/"): {},
    ("PUT", "/v1/model-keys/{provider}"): {"body": {"key": "sk-x"}},
    ("DELETE", "/v1/model-keys/{provider}"): {},
    ("GET", "/v1/tokens"): {},
    ("POST", "/v1/tokens"): {"body": {"agent_id": "AGENT"}, "ids": True},
    ("DELETE", "/v1/tokens/{kid}"): {},
    ("POST", "/v1/tokens/{kid}/compromised"): {},
    ("GET", "/v1/users"): {},
    ("POST", "/v1/users"): {"body": {"name": "one more"}},
    ("PATCH", "/v1/users/{who}"): {"body": {"clearance": "restricted"}},
    ("POST", "/v1/users/{who}/suspend"): {},
    ("POST", "/v1/users/{who}/resume"): {},
    ("POST", "/v1/users/{who}/rotate"): {},
    ("GET", "/v1/invitations"): {"only": "owner"},
    ("POST", "/v1/invitations"): {"body": {"name": "one more"}},
    ("DELETE", "/v1/invitations/{invitation}"): {},
    ("GET", "/v1/charter"): {},
    ("PATCH", "/v1/charter"): {"body": {"trust": True}},
    ("GET", "/v1/audit/events"): {"query": {"limit": 0}},
    ("GET", "/v1/audit/auditors"): {},
    ("POST", "/v1/audit/auditors"): {"body": {"principal": "reader"}},
    ("DELETE", "/v1/audit/auditors/{who}"): {},
    ("GET", "/v1/events"): {"query": {"block_id": "BLOCK"}, "ids": True, "streams": True},
    ("GET", "/v1/log/checkpoint"): {},
    ("GET", "/v1/log/tile/{tile...}"): {},
    ("GET", "/v1/log/receipt/{leaf}"): {},
    ("GET", "/v1/log/consistency/{old}"): {},
    ("GET", "/v1/log/witnesses"): {},
}
SERVED = [route for route in ROUTES if route.kind == "served"]
KEPT = {
    "conversation_id": "conv",
    "message_id": "message",
    "run_id": "run",
    "path_run_id": "run",
    "step_id": "step",
    "memory_id": "passage",
    "mcp_server_id": "mcp_server",
    "server_tool": "tool",
}
"""What names a thing that an agent, or its user, keeps beside its blocks, and how their ids begin."""
IDS = ("block_id", "offered", "agent_id", "role", "who", "kid", "token", "invitation", *KEPT)
"""Path parameters that name a thing of somebody's."""
NAMES_A_THING = [
    route
    for route in SERVED
    if any("{" + name + "}" in route.path for name in IDS)
    or CASES.get((route.method, route.path), {}).get("ids")
]
LISTS = [route for route in SERVED if route.method == "GET" and "{" not in route.path]
LABEL = "secret_label"
TOOL = BY_NAME["core_memory_append"]


@dataclass
class World:
    """An owner with a block and an agent, a stranger with a block and an agent of its own, a reader, and tokens."""

    served: Served
    block: str
    agent: str
    role: str
    kid: str
    invitation: str
    tokens: dict[str, str]
    own_block: dict[str, str]
    own_agent: dict[str, str]
    loose: str
    kept: dict[str, str]

    def call(self, principal: str, route: Route, **ids: str) -> httpx.Response:
        """Call a route as somebody, with these ids in path and body."""
        case = CASES[route.method, route.path]
        known = {
            "block_label": LABEL,
            "tool_id": {**self.kept, **ids}["server_tool"] if "mcp_server_id" in route.path else TOOL.id,
            "tool_name": TOOL.name,
            "principal": "reader",
            "number": "1",
            "kid": self.kid,
            "token": self.kid,
            "offered": ids.get("block_id", self.block),
            "role": self.role,
            "who": ids.get("agent_id", self.agent),
            "invitation": self.invitation,
            "provider": "openai",
            "tile": "0/000.p/1",
            "leaf": "0",
            "old": "1",
            **self.kept,
            **ids,
        }
        path = route.path.replace("...", "")
        for name, value in known.items():
            path = path.replace("{" + name + "}", quote(value, safe=""))
        body = case.get("body")
        content = None
        if body is not None:
            text = (
                json.dumps(body)
                .replace("BLOCK", ids.get("block_id", ""))
                .replace("AGENT", ids.get("agent_id", ""))
                .replace("RUN", known["run_id"])
                .replace('"LABEL"', json.dumps(LABEL))
            )
            content = text.encode()
        headers = {"content-type": "application/json"}
        token = self.tokens.get(principal)
        if token is not None:
            headers["authorization"] = f"Bearer {token}"
        query = {
            name: str(value)
            .replace("AGENT", ids.get("agent_id", ""))
            .replace("BLOCK", ids.get("block_id", ""))
            for name, value in case.get("query", {}).items()
        }
        query = {name: value for name, value in query.items() if value}
        if case.get("streams"):
            return self._first_of_a_stream(path, headers, query)
        return self.http.request(route.method, path, content=content, headers=headers, params=query)

    def _first_of_a_stream(self, path: str, headers: dict[str, str], query: dict[str, str]) -> httpx.Response:
        """The answer with what comes first, of one that does not end by itself."""
        with self.http.stream("GET", path, headers=headers, params=query) as answer:
            if answer.status_code != 200:
                answer.read()
                return answer
            first = next(answer.iter_bytes())
        known = {name: value for name, value in answer.headers.items() if name != "transfer-encoding"}
        return httpx.Response(answer.status_code, headers=known, content=first)

    @property
    def http(self) -> httpx.Client:
        return self._http

    def open(self) -> World:
        self._http = httpx.Client(base_url=self.served.url, trust_env=False, timeout=60, verify=AUTHORITIES)
        return self


@pytest.fixture(scope="module")
def world(server: Served) -> Iterator[World]:  # noqa: F811
    owner = server.vault()
    block = owner.create_block(
        label=LABEL, value="SECRET VALUE", description="SECRET DESCRIPTION", tags=["SECRET_TAG"]
    )
    tools = {"name": "SECRET AGENT", "agent_type": "letta_v1_agent", "tools": [TOOL.name]}
    agent = owner.create_agent(tools, block_ids=[block.id])
    role = owner.create_role("SECRET ROLE").id
    tokens = {
        "owner": server.token,
        "stranger": server.add_user("stranger"),
        "reader": server.add_user("reader"),
        "owner's read token": owner.create_token(scope="read"),
        "owner's agent": owner.agent_token(
            agent.id,
            label="access_token read_agent https://SECRET.example",
            expires=datetime.now(UTC) + timedelta(days=1),
        ),
    }
    own_block, own_agent = {}, {}
    for name in ("stranger", "reader"):
        vault = server.vault(tokens[name])
        own_block[name] = vault.create_block(label="mine").id
        own_agent[name] = vault.create_agent({"name": "mine", "tools": [TOOL.name]}).id
    stranger = server.vault(tokens["stranger"])
    tokens["stranger's agent"] = stranger.agent_token(own_agent["stranger"])
    own_agent["stranger's agent"] = own_agent["stranger"]
    tokens["stranger's read token"] = stranger.create_token(scope="read")
    own_agent["stranger's read token"] = own_agent["stranger"]
    owner.share(block.id, "reader", "read")
    server.vault(tokens["reader"]).accept_offer(block.id)
    loose = owner.create_block(label="loose").id
    kid = next(known.kid for known in owner.tokens() if known.principal == agent.id)
    invitation = owner.invite("SECRET GUEST").split("_")[1]
    kept = _keep(owner, agent.id)
    made = World(
        server, block.id, agent.id, role, kid, invitation, tokens, own_block, own_agent, loose, kept
    ).open()
    yield made
    made.http.close()


def _keep(owner: Vault, agent: str) -> dict[str, str]:
    """A run with a step and messages, a conversation and a passage of the agent's."""
    ids = _random_kept()
    talk = {"id": ids["conversation_id"], "summary": "SECRET SUMMARY"}
    owner.create_conversation(agent, talk)
    said = {"id": ids["message_id"], "role": "user", "date": 1, "text": "SECRET WORDS"}
    run = {"id": ids["run_id"], "handle": "openai/x"}
    turn = owner.begin_turn(agent, ids["conversation_id"], run, lambda *_: ([said], {}))
    step = {
        "id": ids["step_id"], "run": ids["run_id"], "agent": agent, "created": 2, "handle": "openai/x",
        "window": 9, "prompt": 1, "completion": 1, "cached": 0, "reasoning": 0,
    }  # fmt: skip
    turn.write(step=step, run={"status": "completed", "stop_reason": "end_turn"}, end=True)
    owner.add_passage(agent, {"id": ids["memory_id"], "text": "SECRET TEXT", "tags": ["SECRET_TAG"]})
    shown = {
        "name": "SECRET SERVER",
        "kind": "sse",
        "url": "http://SECRET/",
        "auth_header": "",
        "headers": [],
    }
    tools_of, tool = ids["mcp_server_id"], ids["server_tool"]
    owner.create_tool_server(tools_of, shown, ToolAccess("sse", "http://SECRET/", auth_token="SECRET TOKEN"))
    owner.replace_tools(tools_of, [ExternalTool(tool, "SECRET_TOOL", tools_of, "SECRET", "SECRET", "{}", 0)])
    return ids


def _random_kept() -> dict[str, str]:
    ids = {name: _random_id(kind) for name, kind in KEPT.items()}
    return {**ids, "path_run_id": ids["run_id"]}


def _random_id(kind: str) -> str:
    return f"{kind}-{UUID(int=RANDOM.getrandbits(128), version=4)}"


def _random_kid() -> str:
    return "".join(RANDOM.choices("abcdefghijklmnopqrstuvwxyz234567", k=16))


def _comparable(answer: httpx.Response, ids: dict[str, str]) -> tuple[int, str, dict[str, str]]:
    """Status, body and headers without the echoed ids, the date, and the number of the request's own leaf."""
    text = answer.text
    for name, value in ids.items():
        text = text.replace(value, name)
    headers = {
        name: value for name, value in answer.headers.items() if name not in ("date", "x-tallystone-leaf")
    }
    return answer.status_code, text, headers


def _name(route: Route) -> str:
    return f"{route.method} {route.path}"


def _places_a_block(route: Route) -> bool:
    """Whether a route brings a block and an agent together."""
    return "{agent_id}" in route.path and (
        "{block_id}" in route.path or "BLOCK" in str(CASES[route.method, route.path])
    )


def test_every_route_has_a_case() -> None:
    assert {(route.method, route.path) for route in SERVED} == set(CASES)


def test_no_route_is_listed_twice() -> None:
    keys = [(route.method, route.path) for route in ROUTES]
    assert len(keys) == len(set(keys))


@pytest.mark.parametrize("principal", ["stranger", "stranger's agent", "stranger's read token"])
@pytest.mark.parametrize("route", NAMES_A_THING, ids=_name)
def test_foreign_ids_and_random_ids_look_alike(world: World, route: Route, principal: str) -> None:
    foreign = {
        "block_id": world.block,
        "agent_id": world.agent,
        "role": world.role,
        "kid": world.kid,
        "token": world.kid,
        "invitation": world.invitation,
        **world.kept,
    }
    for _ in range(2):
        kid = _random_kid()
        made_up = {
            "block_id": _random_id("block"),
            "agent_id": _random_id("agent"),
            "role": _random_id("role"),
            "kid": kid,
            "token": kid,
            "invitation": _random_kid(),
            **_random_kept(),
        }
        real, fake = world.call(principal, route, **foreign), world.call(principal, route, **made_up)
        assert _comparable(real, foreign) == _comparable(fake, made_up)
        assert real.status_code in (403, 404)
        assert "SECRET" not in real.text


@pytest.mark.parametrize("principal", ["stranger", "stranger's agent", "stranger's read token"])
@pytest.mark.parametrize("route", [r for r in NAMES_A_THING if _places_a_block(r)], ids=_name)
def test_a_foreign_block_on_ones_own_agent(world: World, route: Route, principal: str) -> None:
    """The way in that crossed tenants on the server whose clients we serve: `block_ids`, and attaching."""
    mine = {"agent_id": world.own_agent[principal]}
    foreign = {**mine, "block_id": world.block}
    made_up = {**mine, "block_id": _random_id("block")}
    real, fake = world.call(principal, route, **foreign), world.call(principal, route, **made_up)
    assert _comparable(real, foreign) == _comparable(fake, made_up)
    assert real.status_code in (403, 404)


@pytest.mark.parametrize("principal", ["stranger", "stranger's agent", "stranger's read token"])
@pytest.mark.parametrize("route", [r for r in SERVED if "{tool_id}" in r.path], ids=_name)
def test_a_foreign_tool_is_like_none_on_ones_own_agent(world: World, route: Route, principal: str) -> None:
    mine = {"agent_id": world.own_agent[principal]}
    foreign, made_up = {"tool_id": world.kept["server_tool"]}, {"tool_id": _random_id("tool")}
    real, fake = (world.call(principal, route, **mine, **tool) for tool in (foreign, made_up))
    assert _comparable(real, foreign) == _comparable(fake, made_up)
    assert real.status_code in (403, 404)


@pytest.mark.parametrize("principal", ["stranger", "stranger's agent", "stranger's read token"])
@pytest.mark.parametrize("route", LISTS, ids=_name)
def test_lists_hold_nothing_of_others(world: World, route: Route, principal: str) -> None:
    answer = world.call(principal, route)
    only = CASES[route.method, route.path].get("only")
    assert answer.status_code == (403 if only else 200)
    known = (world.block, world.agent, world.role, world.kid, world.invitation, *world.kept.values())
    told = _unpacked(answer)
    for secret in (*known, "SECRET", LABEL):
        assert secret not in told


def _unpacked(answer: httpx.Response) -> str:
    """What an answer says, also one that is an archive."""
    if answer.headers.get("content-type") != "application/zip":
        return answer.text
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        return "".join(archive.read(name).decode() for name in archive.namelist())


@pytest.mark.parametrize("route", ROUTES, ids=_name)
def test_nothing_without_a_token(world: World, route: Route) -> None:
    for headers in ({}, {"authorization": "Bearer nonsense"}, {"user_id": world.served.user}):
        path = route.path.replace("{", "").replace("}", "")
        answer = world.http.request(route.method, path, headers=headers)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        assert set(answer.json()) == {"detail", "error"}


@pytest.mark.parametrize("path", OPEN_PATHS)
def test_what_needs_no_token(world: World, path: str) -> None:
    assert world.http.get(path).json()["status"] == "ok"
    assert world.http.get(path.rstrip("/")).json()["status"] == "ok"


@pytest.mark.parametrize("path", OPEN_POSTS)
def test_what_strangers_may_send_opens_nothing_by_itself(world: World, path: str) -> None:
    answers = [
        world.http.post(path + slash, json={"code": code})
        for slash in ("", "/")
        for code in ("", "nonsense", world.invitation, world.tokens["owner"])
    ]
    assert {(answer.status_code, answer.text) for answer in answers} == {(401, answers[0].text)}
    assert world.http.get(path).status_code == 405
    assert world.http.post(path, json={}).status_code == 422
    assert world.http.post(path, content=b"x" * 5000).status_code == 413


@pytest.mark.parametrize("route", [r for r in SERVED if r.method not in ("GET",)], ids=_name)
def test_a_read_token_changes_nothing(world: World, route: Route) -> None:
    before = world.served.vault().block(world.block)
    block = world.loose if route.path.endswith("/attach/{block_id}") else world.block
    answer = world.call("owner's read token", route, block_id=block, agent_id=world.agent)
    expected = 200 if CASES[route.method, route.path].get("reads") else 403
    assert answer.status_code == expected, answer.text
    assert world.served.vault().block(world.block) == before


@pytest.mark.parametrize("method", ["PATCH", "DELETE"])
def test_a_reader_may_not_write(world: World, method: str) -> None:
    route = next(r for r in SERVED if (r.method, r.path) == (method, "/v1/blocks/{block_id}"))
    answer = world.call("reader", route, block_id=world.block)
    assert answer.status_code == 403
    assert answer.json()["error"]["code"] in ("no_write", "not_owner")


def test_a_readers_agent_reads_and_does_not_write(world: World) -> None:
    http = world.served.http(world.tokens["reader"])
    agent = http.post("/v1/agents/", json={"block_ids": [world.block], "tools": [TOOL.name]}).json()
    assert [block["label"] for block in agent["blocks"]] == [LABEL]
    run = http.post(
        f"/v1/agents/{agent['id']}/tools/{TOOL.name}/run", json={"args": {"label": LABEL, "content": "x"}}
    )
    assert run.json()["status"] == "error"
    assert "PermissionError" in run.json()["stderr"][0]
    assert http.get(f"/v1/blocks/{world.block}").json()["agent_ids"] == [agent["id"]]


@pytest.mark.parametrize("route", [r for r in SERVED if r.method == "GET"], ids=_name)
def test_the_owner_reads_everything(world: World, route: Route) -> None:
    assert world.call("owner", route, block_id=world.block, agent_id=world.agent).status_code == 200
