"""Memory tools through `agents.tools.run`: atomic, bound by read_only and rights, their errors as answers."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import letta_client
import pytest
from server_fixtures import Served, fresh_server, server  # noqa: F401
from stores import sampled

LONG = bool(os.environ.get("TALLYSTONE_LONG"))
EACH = sampled(4, "the cases differ in the tool, and each edits by the same transaction")

TOOLS = [
    "core_memory_append", "core_memory_replace", "memory_insert", "memory_replace", "memory_rethink",
    "memory_apply_patch", "memory", "memory_finish_edits",
]  # fmt: skip


class Agent:
    """An agent with all memory tools and the blocks `notes` and `rules` (read-only)."""

    def __init__(self, served: Served) -> None:
        self.client = served.letta()
        self.notes = self.client.blocks.create(label="notes", value="one\ntwo", limit=100)
        self.rules = self.client.blocks.create(label="rules", value="fixed\nrules", read_only=True)
        made = self.client.agents.create(
            tools=TOOLS, include_base_tools=False, block_ids=[self.notes.id, self.rules.id]
        )
        self.id = made.id

    def run(self, tool: str, **arguments: Any) -> Any:
        return self.client.agents.tools.run(tool, agent_id=self.id, args=arguments)

    def error(self, tool: str, **arguments: Any) -> str:
        """The tool's error; the block must be as it was."""
        before = self.blocks()
        result = self.run(tool, **arguments)
        assert result.status == "error"
        assert result.stderr is not None and len(result.stderr) == 1
        assert result.stderr[0].startswith(f"Error executing function {tool}: ")
        assert self.blocks() == before
        return str(result.stderr[0])

    def value(self, label: str = "notes") -> str:
        return self.client.agents.blocks.retrieve(label, agent_id=self.id).value

    def blocks(self) -> list[tuple[Any, ...]]:
        listed = self.client.agents.blocks.list(self.id)
        return [(block.id, block.label, block.value, block.description) for block in listed]


@pytest.fixture
def agent(server: Served) -> Agent:  # noqa: F811
    return Agent(server)


@pytest.mark.parametrize(
    ("tool", "arguments", "expected"),
    [
        ("core_memory_append", {"content": "three"}, "one\ntwo\nthree"),
        ("core_memory_replace", {"old_content": "o", "new_content": "0"}, "0ne\ntw0"),
        ("memory_insert", {"new_string": "half", "insert_line": 1}, "one\nhalf\ntwo"),
        ("memory_replace", {"old_string": "two", "new_string": "2"}, "one\n2"),
        ("memory_rethink", {"new_memory": "all new"}, "all new"),
        ("memory_apply_patch", {"patch": "-one\n+1"}, "1\ntwo"),
    ],
)
def test_edits_return_the_new_value(
    agent: Agent, tool: str, arguments: dict[str, Any], expected: str
) -> None:
    result = agent.run(tool, label="notes", **arguments)
    assert (result.status, result.func_return, result.stderr) == ("success", expected, None)
    assert agent.value() == expected == agent.client.blocks.retrieve(agent.notes.id).value


def test_every_write_names_the_agent_and_the_user_it_wrote_under(agent: Agent, server: Served) -> None:  # noqa: F811
    agent.run("core_memory_append", label="notes", content="x")
    block = server.http().get(f"/v1/blocks/{agent.notes.id}").json()
    assert (block["last_updated_by_id"], block["updated_under"]) == (agent.id, server.user)


READ_ONLY = [
    ("core_memory_append", {"label": "rules", "content": "x"}),
    ("core_memory_replace", {"label": "rules", "old_content": "fixed", "new_content": "x"}),
    ("memory_insert", {"label": "rules", "new_string": "x"}),
    ("memory_replace", {"label": "rules", "old_string": "fixed", "new_string": "x"}),
    ("memory_rethink", {"label": "rules", "new_memory": "x"}),
    ("memory_apply_patch", {"label": "rules", "patch": "-fixed\n+x"}),
    ("memory_apply_patch", {"label": "", "patch": "*** Update Block: rules\n-fixed\n+x"}),
    ("memory_apply_patch", {"label": "", "patch": "*** Update Block: rules\n*** Move to: mine"}),
    ("memory_apply_patch", {"label": "", "patch": "*** Delete Block: rules"}),
    (
        "memory",
        {"command": "str_replace", "path": "/memories/rules", "old_string": "fixed", "new_string": "x"},
    ),
    ("memory", {"command": "insert", "path": "/memories/rules", "insert_line": 0, "insert_text": "x"}),
    ("memory", {"command": "delete", "path": "/memories/rules"}),
    ("memory", {"command": "rename", "old_path": "/memories/rules", "new_path": "/memories/mine"}),
    ("memory", {"command": "rename", "path": "/memories/rules", "description": "x"}),
]


@EACH
@pytest.mark.parametrize(("tool", "arguments"), READ_ONLY, ids=lambda value: str(value)[:70])
def test_read_only_binds_every_memory_tool(agent: Agent, tool: str, arguments: dict[str, Any]) -> None:
    assert "read-only" in agent.error(tool, **arguments)


@EACH
@pytest.mark.parametrize(("tool", "arguments"), READ_ONLY, ids=lambda value: str(value)[:70])
def test_read_only_binds_an_agents_own_token_too(
    agent: Agent,
    server: Served,  # noqa: F811
    tool: str,
    arguments: dict[str, Any],
) -> None:
    http = server.http(server.vault().agent_token(agent.id))
    before = agent.blocks()
    answer = http.post(f"/v1/agents/{agent.id}/tools/{tool}/run", json={"args": arguments})
    assert answer.status_code == 200 and answer.json()["status"] == "error"
    assert agent.blocks() == before
    for url in (f"/v1/blocks/{agent.rules.id}", f"/v1/agents/{agent.id}/core-memory/blocks/rules"):
        assert http.patch(url, json={"value": "x"}).status_code == 403
        assert http.patch(url, json={"read_only": False}).status_code == 403


def test_an_agents_own_token_runs_its_tools(agent: Agent, server: Served) -> None:  # noqa: F811
    http = server.http(server.vault().agent_token(agent.id))
    url = f"/v1/agents/{agent.id}/tools/core_memory_append/run"
    answer = http.post(url, json={"args": {"label": "notes", "content": "mine"}})
    assert answer.json()["status"] == "success" and agent.value() == "one\ntwo\nmine"
    block = http.get(f"/v1/blocks/{agent.notes.id}").json()
    assert (block["last_updated_by_id"], block["updated_under"]) == (agent.id, None)


def test_the_owner_may_still_edit_a_read_only_block(agent: Agent) -> None:
    assert agent.client.blocks.update(agent.rules.id, value="new rules").value == "new rules"
    assert agent.client.agents.blocks.update("rules", agent_id=agent.id, value="newer").value == "newer"


@EACH
@pytest.mark.parametrize(
    ("tool", "arguments", "said"),
    [
        (
            "core_memory_append",
            {"label": "zzz", "content": "x"},
            "KeyError: 'This agent has no block labelled zzz",
        ),
        ("memory_rethink", {"label": "zzz", "new_memory": "x"}, "notes, rules"),
        ("core_memory_append", {"label": "notes"}, "TypeError"),
        ("core_memory_append", {"label": "notes", "content": 3}, "TypeError"),
        ("core_memory_append", {"label": "notes", "content": "x", "extra": 1}, "TypeError"),
        ("core_memory_append", {"label": "notes", "content": "x" * 100}, "ValueError"),
        ("memory_replace", {"label": "notes", "old_string": "1→ one", "new_string": "x"}, "line number"),
        ("memory_replace", {"label": "notes", "old_string": "three", "new_string": "x"}, "'one\\ntwo'"),
        ("memory", {"command": "explode"}, "no command"),
        ("memory", {"command": "create", "path": "/memories/new"}, "description"),
        ("memory", {"command": "create", "path": "/memories/notes", "description": "d"}, "already"),
        (
            "memory",
            {"command": "rename", "old_path": "/memories/notes", "new_path": "/memories/rules"},
            "already",
        ),
        ("memory", {"command": "str_replace", "path": "/memories/notes"}, "old_string"),
        ("memory", {"command": "delete", "path": "/memories/zzz"}, "KeyError"),
        (
            "memory_apply_patch",
            {"label": "", "patch": "*** Update Block: notes\n-one\n+1\n*** Delete Block: zzz"},
            "zzz",
        ),
        ("memory_apply_patch", {"label": "", "patch": "*** Add Block: notes\n+x"}, "already"),
    ],
)
def test_a_tools_own_errors_are_answers(
    agent: Agent, tool: str, arguments: dict[str, Any], said: str
) -> None:
    assert said in agent.error(tool, **arguments)


def test_the_memory_tool_creates_edits_renames_and_deletes(agent: Agent) -> None:
    created = agent.run(
        "memory", command="create", path="/memories/plans/q1", description="d", file_text="a\nb"
    )
    assert created.status == "success"
    assert (
        agent.run("memory", command="insert", path="/memories/plans/q1", insert_text="c").func_return
        == "a\nb\nc"
    )
    replaced = agent.run(
        "memory", command="str_replace", path="/memories/plans/q1", old_string="b", new_string="B"
    )
    assert replaced.func_return == "a\nB\nc"
    assert (
        agent.run("memory", command="rename", old_path="/memories/plans/q1", new_path="/memories/q1").status
        == "success"
    )
    assert agent.value("q1") == "a\nB\nc"
    block = agent.client.agents.blocks.retrieve("q1", agent_id=agent.id)
    assert agent.run("memory", command="delete", path="/memories/q1").status == "success"
    assert "q1" not in [label for _, label, *_ in agent.blocks()]
    assert agent.client.blocks.retrieve(block.id).value == "a\nB\nc"  # detached, and still its owner's


def test_a_patch_for_several_blocks(agent: Agent) -> None:
    patch = "*** Add Block: new\n+n\n*** Update Block: notes\n*** Move to: renamed\n-one\n+1\n"
    assert agent.run("memory_apply_patch", label="", patch=patch).status == "success"
    assert (agent.value("new"), agent.value("renamed")) == ("n", "1\ntwo")


def test_a_rename_does_not_give_another_agent_two_blocks_of_one_label(agent: Agent) -> None:
    agent.client.agents.create(block_ids=[agent.notes.id], memory_blocks=[{"label": "human", "value": ""}])
    for tool, arguments in (
        ("memory", {"command": "rename", "old_path": "/memories/notes", "new_path": "/memories/human"}),
        ("memory_apply_patch", {"label": "", "patch": "*** Update Block: notes\n*** Move to: human"}),
    ):
        assert "already" in agent.error(tool, **arguments)


def test_a_patch_that_fails_in_the_middle_changes_nothing(agent: Agent) -> None:
    before = len(list(agent.client.blocks.list()))
    patch = "*** Add Block: new\n+n\n*** Update Block: notes\n-one\n+1\n*** Delete Block: rules"
    assert "read-only" in agent.error("memory_apply_patch", label="", patch=patch)
    assert len(list(agent.client.blocks.list())) == before


def test_finishing_returns_nothing(agent: Agent) -> None:
    result = agent.run("memory_finish_edits")
    assert (result.status, result.func_return, result.stderr) == ("success", None, None)


@pytest.mark.parametrize("tool", ["web_search", "fetch_webpage", "run_code"])
def test_tools_without_a_provider_say_so(server: Served, tool: str) -> None:  # noqa: F811
    client = server.letta()
    agent = client.agents.create(include_base_tools=False, tools=[tool])
    arguments = {
        "web_search": {"query": "q"},
        "fetch_webpage": {"url": "https://example.com"},
        "run_code": {"code": "1", "language": "python"},
    }
    result = client.agents.tools.run(tool, agent_id=agent.id, args=arguments.get(tool, {}))
    assert result.status == "error" and "no provider" in (result.stderr or [""])[0]


@pytest.mark.parametrize("tool", ["memory_insert", "nonsense", "a/b"])
def test_a_tool_that_is_not_attached_is_404(server: Served, tool: str) -> None:  # noqa: F811
    client = server.letta()
    agent = client.agents.create(include_base_tools=False)
    with pytest.raises(letta_client.NotFoundError):
        client.agents.tools.run(tool, agent_id=agent.id, args={})


# -- at once ----------------------------------------------------------------------------------------------------


def test_no_append_is_lost(fresh_server: Served) -> None:  # noqa: F811
    """16 clients × 15 appends to one block: all 240 lines are there; with TALLYSTONE_LONG=1 each appends 50."""
    client = fresh_server.letta()
    block = client.blocks.create(label="log", value="")
    agents = [
        client.agents.create(block_ids=[block.id], tools=["core_memory_append"], include_base_tools=False).id
        for _ in range(16)
    ]

    def work(number: int) -> list[str]:
        mine = fresh_server.letta()
        lines = [f"{number}:{at}" for at in range(50 if LONG else 15)]
        for line in lines:
            run = mine.agents.tools.run(
                "core_memory_append", agent_id=agents[number], args={"label": "log", "content": line}
            )
            assert run.status == "success", run.stderr
        return lines

    with ThreadPoolExecutor(16) as pool:
        sent = [line for lines in pool.map(work, range(16)) for line in lines]
    assert sorted(client.blocks.retrieve(block.id).value.split("\n")[1:]) == sorted(sent)


def test_of_eight_that_claim_one_task_one_succeeds(fresh_server: Served) -> None:  # noqa: F811
    client = fresh_server.letta()
    block = client.blocks.create(label="queue", value="PENDING: TASK-001\nIN PROGRESS:")
    agents = [
        client.agents.create(block_ids=[block.id], tools=["memory_replace"], include_base_tools=False).id
        for _ in range(8)
    ]

    def claim(agent_id: str) -> Any:
        arguments = {"label": "queue", "old_string": "PENDING: TASK-001", "new_string": f"TAKEN: {agent_id}"}
        return fresh_server.letta().agents.tools.run("memory_replace", agent_id=agent_id, args=arguments)

    with ThreadPoolExecutor(8) as pool:
        results = dict(zip(agents, pool.map(claim, agents), strict=True))
    winners = [agent_id for agent_id, result in results.items() if result.status == "success"]
    assert len(winners) == 1
    assert client.blocks.retrieve(block.id).value.startswith(f"TAKEN: {winners[0]}\n")
    for agent_id, result in results.items():
        if agent_id not in winners:  # and the others are told what the block reads now
            assert winners[0] in result.stderr[0]
