"""Every recorded call of the published client, made again with the real client against this server.

`vectors/wire/letta-client-requests.json` holds 123 records of what `letta-client` 1.12.1 sends. Each is run here with
strict response validation and ends in exactly one way: replayed, raised in the client before or after the request as
recorded, or answered 501 because the method is not served. The counts are printed with the tests' report.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import letta_client
import pytest
from scripted_models import HANDLES, ScriptedModels, Turn
from server_fixtures import AUTHORITIES, Served
from stores import sampled
from turn_fixtures import serving
from wire_counts import PROPERTY

from tallystone.letta.messages import new_id
from tallystone.letta.routes import ROUTES
from tallystone.letta.tools import BY_NAME
from tallystone.server.paths import Match, Paths

RECORDING: dict[str, Any] = json.loads(
    (Path(__file__).parent / "vectors/wire/letta-client-requests.json").read_text("utf-8")
)
RECORDS: list[dict[str, Any]] = RECORDING["records"]
_ID = re.compile(r"(block|agent|tool|user|identity|message)-[0-9a-z-]+")

# Snippets that are no code as they stand, or that name things which only the recording server had.
CODE = {
    "blocks.create all params": "client.blocks.create(**body)",
    "blocks.list all params": "client.blocks.list(**{**query, 'after': older, 'before': newer})",
    "blocks.list iterate backwards": "[b.id for b in client.blocks.list(before=newer, limit=2)]",
    "agents.blocks.list all": "client.agents.blocks.list(A, after=newer, limit=3, order='desc', order_by='created_at')",
    "agents.create rich": "client.agents.create(**{**body, 'block_ids': [B], 'tool_ids': [tool_id]})",
    "agents.tools.list": "list(client.agents.tools.list(A))",
    "tools.list": "list(client.tools.list(**query))",
    "agents.list all": "client.agents.list(**{**query, 'after': A})",
    "agents.tools.attach": "client.agents.tools.attach(tool_id, agent_id=A)",
    "agents.tools.detach": "client.agents.tools.detach(tool_id, agent_id=A)",
    "messages.create tool returns": "client.agents.messages.create(A, **body)",
    "messages.stream": "list(client.agents.messages.stream(A, **body))",
    "messages.list": "list(client.agents.messages.list(A, **query))",
    "tools.create": "client.tools.create(**body)",
    "tools.upsert": "client.tools.upsert(**body)",
}
# What is refused here although the recording server, which took anything, answered 200.
REFUSED = {
    "blocks.retrieve odd id": 422,
    "access_tokens.create": 422,  # the recorded expiry is over
    "access_tokens.delete": 422,  # the recorded token is none
    "messages.create tool returns": 400,  # nobody waits for this call
    "messages.create approval": 400,  # nor for this approval
    "agents.tools.update_approval": 404,  # the agent has no such tool
    "conversations.messages.create": 422,  # no id of a conversation
}
# Raised against a server that does not send the extra fields which the guide reads. This one sends them.
SERVED_AFTER_ALL = {
    "guide.27-stock block_info.agent_ids against a stock server",
    "guide.30-stock agents.retrieve(id).block_ids against a stock server",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server whose models answer anything."""
    with ScriptedModels(lambda asked: Turn("Noted.")) as models:
        yield from (talking.served for talking in serving(tmp_path_factory.mktemp("wire") / "data", models))


class Made:
    """A block, an agent and what else a snippet names."""

    def __init__(self, served: Served) -> None:
        vault = served.vault()
        older = vault.create_block(label="older")
        block = vault.create_block(label="task_queue", value="v", tags=["t"])
        for value in ("w", "x"):  # version 3, which a record's If-Match names
            vault.edit_block(block.id, lambda _, value=value: {"value": value})
        second = vault.create_block(label="second_block")
        newer = vault.create_block(label="newer")
        state = {
            "name": "n",
            "agent_type": "letta_v1_agent",
            "tools": ["core_memory_append", "memory_insert"],
            "model": HANDLES["openai"],
        }
        labels = ("human", "system/human", "équipe été")
        agent = vault.create_agent(
            state, block_ids=[block.id, newer.id], memory_blocks=[{"label": label} for label in labels]
        )
        said = {"id": new_id("message"), "role": "user", "date": 1, "text": "hello"}
        vault.begin_turn(agent.id, "default", {"id": new_id("run")}, lambda *_: ([said], {})).write(end=True)
        self.ids = {"A": agent.id, "B": block.id, "agent_id": agent.id, "older": older.id, "newer": newer.id}
        self.block, self.second, self.agent = block, second, agent


@cache
def unchanged(served: Served) -> Made:
    """What all records name that change nothing: made once."""
    return Made(served)


class Things:
    """What a record's snippet names, and what is sent for it."""

    def __init__(self, served: Served, record: dict[str, Any]) -> None:
        changes = any(request["method"] != "GET" for request in record["requests"])
        made = Made(served) if changes else unchanged(served)
        self.sent: list[httpx.Request] = []
        self.http = httpx.Client(
            trust_env=False, verify=AUTHORITIES, event_hooks={"request": [self.sent.append]}
        )
        self.client = served.letta(http_client=self.http)
        tool = "memory_insert" if "detach" in record["name"] else "web_search"
        request = record["requests"][0] if record["requests"] else {}
        self.names: dict[str, Any] = {
            "client": self.client,
            **made.ids,
            "tool_id": BY_NAME[tool].id,
            "body": dict(request.get("body") or {}),
            "query": _grouped(request.get("query") or []),
            "block2": made.second,
            **dict.fromkeys(("agent", "worker_agent", "worker", "former_employee_agent"), made.agent),
            **dict.fromkeys(
                (
                    "block",
                    "block1",
                    "shared_block",
                    "sales_knowledge",
                    "sensitive_block",
                    "company_confidential",
                ),
                made.block,
            ),
        }


def _grouped(pairs: list[list[str]]) -> dict[str, Any]:
    """Query pairs as keyword arguments: repeated ones and those of list type as lists."""
    lists = {
        "tags",
        "include",
        "identifier_keys",
        "connected_to_agents_count_eq",
        "include_return_message_types",
    }
    grouped: dict[str, Any] = {}
    for name, value in pairs:
        if name in lists:
            grouped.setdefault(name, []).append(value)
        else:
            grouped[name] = {"true": True, "false": False}.get(value, value)
    return grouped


def _plain(value: Any) -> Any:
    """Ids as their kind, so that recorded and real ones compare."""
    if isinstance(value, str):
        return _ID.sub(r"\1-ID", value)
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return value


def _shape(method: str, path: str, query: list[Any], body: Any) -> tuple[Any, ...]:
    return (
        method,
        _plain(path),
        json.dumps(_plain(sorted(map(list, query)))),
        json.dumps(_plain(body), sort_keys=True),
    )


def _recorded_shapes(record: dict[str, Any]) -> list[tuple[Any, ...]]:
    return [_shape(r["method"], r["path"], r["query"], r["body"]) for r in record["requests"]]


def _sent_shapes(requests: list[httpx.Request]) -> list[tuple[Any, ...]]:
    shapes: list[tuple[Any, ...]] = []
    for request in requests:
        path = request.url.raw_path.decode().partition("?")[0]
        body = json.loads(request.content) if request.content else None
        shape = _shape(request.method, path, list(request.url.params.multi_items()), body)
        if not shapes or shapes[-1] != shape:  # a longer walk repeats the same step
            shapes.append(shape)
    return shapes


def _kind(record: dict[str, Any]) -> str:
    """Whether the record's request is served, by the route table."""
    if not record["requests"]:
        return "served"
    request = record["requests"][0]
    found = Paths(ROUTES).match(request["method"], request["path"].encode())
    if request["path"] == "/v1/health/":
        return "served"
    assert isinstance(found, Match), request["path"]
    return found.route.kind


def test_all_recorded_calls_are_here() -> None:
    assert len(RECORDS) == 123
    assert len({record["name"] for record in RECORDS}) == 123
    assert set(CODE) | set(REFUSED) | SERVED_AFTER_ALL <= {record["name"] for record in RECORDS}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # `messages.stream` is deprecated, and recorded
@sampled(
    4, "the records differ in method, path and body; what they ask the vault for, test_letta_*.py ask too"
)
@pytest.mark.parametrize("record", RECORDS, ids=[record["name"] for record in RECORDS])
def test_recorded_call(
    record: dict[str, Any],
    server: Served,
    record_property: Callable[[str, object], None],
) -> None:
    things = Things(server, record)
    code = CODE.get(record["name"], record["snippet"])
    error: Exception | None = None
    try:
        exec(code, things.names)
    except Exception as raised:
        error = raised
    finally:
        things.http.close()

    recorded, sent = _recorded_shapes(record), _sent_shapes(things.sent)
    kind = _kind(record)
    if kind == "501":
        assert isinstance(error, letta_client.InternalServerError), error
        assert error.status_code == 501
        assert error.response.headers["x-should-retry"] == "false"
        assert isinstance(error.body, dict) and error.body["error"]["code"] == "not_served"
        assert sent == recorded[:1]
        record_property(PROPERTY, "not served (501)")
    elif record["outcome"] == "raised" and record["name"] not in SERVED_AFTER_ALL:
        assert error is not None
        assert f"{type(error).__name__}: {error}".startswith(record["error"].split(":")[0])
        assert sent == recorded
        record_property(PROPERTY, "raised as recorded")
    else:
        if record["name"] in REFUSED:
            assert (
                isinstance(error, letta_client.APIStatusError)
                and error.status_code == REFUSED[record["name"]]
            )
        elif error is not None:
            raise error
        assert sent == recorded
        record_property(PROPERTY, "replayed")
