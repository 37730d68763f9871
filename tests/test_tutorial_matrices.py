"""The access matrices of the four tutorials hold both ways: what is allowed works, the rest fails on every route.

Each tutorial is set up twice over HTTP: as it is written, one user with all blocks and agents; and with each
department a user of its own, who gets the shared blocks from an office, for reading or for writing. In both, every
agent comes with a token that carries this agent alone. A pair of agent and block that the matrix leaves out is tried
on each route by which an agent or its user might get at the block, and afterwards the block reads as before.

`TALLYSTONE_LONG=1` leaves nothing out. Else the memory tools take turns, in the two larger tutorials each pair is tried
on a third of the routes and the next pair on the next third, departments' agents leave each other's private notes alone
(one user's do not), and of all users only the outsider tries the agents of others.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from http.client import HTTPConnection
from itertools import count, cycle
from pathlib import Path
from typing import Any

import pytest
from server_fixtures import Served, server  # noqa: F401
from stores import POSTGRESQL

from tallystone.letta.prompt import parse_prompt
from tallystone.letta.routes import ROUTES
from tallystone.letta.tools import BY_NAME

PLANS: Mapping[str, Any] = json.loads(
    (Path(__file__).parent / "vectors/wire/tutorials.json").read_text("utf-8")
)
READ_ONLY: Mapping[str, tuple[str, ...]] = {
    "1": ("company_policies", "escalation_procedures"),
    "4": ("company_mission", "company_policies"),
}
# Who is whose user where departments are users. An agent that is not here is its own department.
DEPARTMENT: Mapping[str, str] = {
    "tier1_agent_a": "tier1", "tier1_agent_b": "tier1",
    "sales_director": "sales", "sales_rep1": "sales", "sales_rep2": "sales",
    "eng_director": "engineering", "engineer1": "engineering", "engineer2": "engineering",
    "hr_director": "hr", "hr_rep1": "hr",
}  # fmt: skip
LONG = bool(os.environ.get("TALLYSTONE_LONG"))
TOOL = BY_NAME["core_memory_append"]
TOOLS = (
    "core_memory_append",
    "core_memory_replace",
    "memory_insert",
    "memory_rethink",
    "memory_apply_patch",
    "memory",
)
OFFICE = "office"

# The tables of the contract, §6, by the tutorial's own names; the private notes apart.
TABLES: Mapping[str, Mapping[str, str]] = {
    "1": {
        "tier1_agent_a": "company_policies", "tier1_agent_b": "company_policies",
        "tier2_agent": "company_policies escalation_procedures",
        "tier3_supervisor": "company_policies escalation_procedures team_metrics",
    },
    "2": {
        "supervisor": "task_queue completed_work team_metrics",
        "worker1": "task_queue completed_work worker1_log",
        "worker2": "task_queue completed_work worker2_log",
        "worker3": "task_queue completed_work worker3_log",
    },
    "3": {
        "coordinator": "user_profile user_preferences interaction_history calendar_data financial_data "
        "coordination_notes",
        "email_agent": "user_profile user_preferences interaction_history calendar_data email_drafts",
        "research_agent": "user_profile user_preferences interaction_history research_notes",
        "calendar_agent": "user_profile user_preferences calendar_data scheduling_buffer",
        "finance_agent": "user_profile user_preferences financial_data calculation_workspace",
    },
    "4": {
        "ceo": "company_mission company_policies cross_dept_projects executive_dashboard ceo_notes",
        "sales_director": "company_mission company_policies sales_knowledge cross_dept_projects sales_director_notes",
        "sales_rep1": "company_mission company_policies sales_knowledge sales_rep1_notes",
        "sales_rep2": "company_mission company_policies sales_knowledge sales_rep2_notes",
        "eng_director": "company_mission company_policies engineering_specs cross_dept_projects eng_director_notes",
        "engineer1": "company_mission company_policies engineering_specs engineer1_notes",
        "engineer2": "company_mission company_policies engineering_specs engineer2_notes",
        "hr_director": "company_mission company_policies hr_employee_data cross_dept_projects hr_director_notes",
        "hr_rep1": "company_mission company_policies hr_employee_data hr_rep1_notes",
    },
}  # fmt: skip


@dataclass(frozen=True)
class Reply:
    """What came back."""

    status: int
    text: str

    def json(self) -> Any:
        """The body."""
        return json.loads(self.text)


@dataclass
class Company:
    """A tutorial's blocks and agents on a server. `user_of` says who has which agent, `owner` who made which block."""

    number: str
    http: HTTPConnection
    tokens: dict[str, str]
    user_of: dict[str, str]
    owner: dict[str, str] = field(default_factory=dict)
    blocks: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    values: dict[str, str] = field(default_factory=dict)
    agents: dict[str, str] = field(default_factory=dict)
    agent_tokens: dict[str, str] = field(default_factory=dict)

    @property
    def allowed(self) -> dict[str, set[str]]:
        """The tutorial's matrix: the blocks of each agent."""
        return {agent: set(row.split()) for agent, row in TABLES[self.number].items()}

    @property
    def interesting(self) -> set[str]:
        """The blocks that agents without them try to get at."""
        held = Counter(block for sees in self.allowed.values() for block in sees)
        one_user = len({*self.user_of.values()}) == 1
        return {block for block in self.blocks if LONG or one_user or held[block] > 1 or self.number in "12"}

    def ask(self, token: str, method: str, path: str, body: Any = None) -> Reply:
        """One request. Thousands are made here: the plainest client is the quickest."""
        content = None if body is None else json.dumps(body)
        headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
        self.http.request(method, f"/v1/{path}", content, headers)
        answer = self.http.getresponse()
        return Reply(answer.status, answer.read().decode())

    def need(self, token: str, method: str, path: str, body: Any = None) -> Any:
        """One request that must succeed."""
        answer = self.ask(token, method, path, body)
        assert answer.status == 200, answer.text
        return answer.json()

    # -- setting up

    def set_up(self) -> None:
        """Everything that the tutorial makes."""
        plan, users = PLANS[self.number], {*self.user_of.values()}
        for block, said in plan["blocks"].items():
            holders = [agent for agent, sees in self.allowed.items() if block in sees]
            homes = {self.user_of[agent] for agent in holders}
            self.owner[block] = homes.pop() if len(homes) == 1 else OFFICE
            self.values[block] = f"the {block} " + "x" * (said["chars"] - len(block) - 5)
            body = {
                "label": said["label"],
                "value": self.values[block],
                "limit": said["limit"],
                "description": said["description"],
                "read_only": block in READ_ONLY.get(self.number, ()) and len(users) == 1,
            }
            self.labels[block] = said["label"]
            self.blocks[block] = self.need(self._token(self.owner[block]), "POST", "blocks/", body)["id"]
            for user in {self.user_of[agent] for agent in holders} - {self.owner[block]}:
                self._hand_over(block, user)
        for agent, said in plan["agents"].items():
            self._hire(agent, said)

    def _token(self, user: str) -> str:
        return self.tokens[user]

    def reads_only(self, block: str) -> bool:
        """Whether agents may only read a block."""
        return block in READ_ONLY.get(self.number, ())

    def _hand_over(self, block: str, user: str) -> None:
        right = "read" if self.reads_only(block) else "write"
        body = {"recipient": user, "can": right}
        self.need(self._token(self.owner[block]), "POST", f"blocks/{self.blocks[block]}/grants", body)
        self.need(self._token(user), "POST", f"offers/{self.blocks[block]}/accept")

    def _hire(self, agent: str, said: Any) -> None:
        token = self._token(self.user_of[agent])
        *at_first, later = [self.blocks[block] for block in sorted(self.allowed[agent])]
        body = {
            "name": said["name"],
            "model": said["model"],
            "block_ids": at_first,
            "memory_blocks": [{"label": label, "value": ""} for label in said["memory_block_labels"]],
            "tools": list(TOOLS),
        }
        self.agents[agent] = identity = self.need(token, "POST", "agents/", body)["id"]
        self.need(token, "PATCH", f"agents/{identity}/core-memory/blocks/attach/{later}")
        made = self.need(token, "POST", "tokens", {"agent_id": identity})
        self.agent_tokens[agent] = made["token"]


def _company(served: Served, number: str, people: str) -> Company:
    agents = PLANS[number]["agents"]
    one = people == "one user"
    users = {agent: OFFICE if one else f"{DEPARTMENT.get(agent, agent)} {number}" for agent in agents}
    # whoever has nothing to do with the tutorial is a user too
    tokens = {user: served.add_user(user) for user in sorted({*users.values()} - {OFFICE})}
    tokens |= {OFFICE: served.token, "outsider": served.add_user(f"outsider {number} {people}")}
    http = HTTPConnection(served.url.removeprefix("http://"), timeout=60)
    served.closing.append(http)
    company = Company(number, http, tokens, users)
    company.set_up()
    return company


CASES = [(number, people) for number in PLANS for people in ("one user", "departments")]
if POSTGRESQL and not LONG:  # they differ in names and matrices, and ask by the same routes
    CASES = [("1", "one user"), ("2", "departments")]


@pytest.fixture(scope="module")
def companies(server: Served) -> Callable[[str, str], Company]:  # noqa: F811
    """Each is set up once, in whatever order several workers share out the tests."""
    return cache(partial(_company, server))


@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"tutorial {case[0]}, {case[1]}")
def company(request: pytest.FixtureRequest, companies: Callable[[str, str], Company]) -> Company:
    """Each tutorial, with each kind of users."""
    return companies(*request.param)


def test_the_tables_are_the_tutorials() -> None:
    for number, plan in PLANS.items():
        made = {agent: set(said["block_vars"]) for agent, said in plan["agents"].items()}
        for attach in plan["attaches"]:
            made[attach["agent_id"].removesuffix(".id")].add(attach["block_id"].removesuffix(".id"))
        assert made == {agent: set(row.split()) for agent, row in TABLES[number].items()}


# -- what is allowed ------------------------------------------------------------------------------------------------


def test_lists_show_what_is_allowed_and_nothing_else(company: Company) -> None:
    """By list, in the agent's state (which is what a model would be shown), and from the block's side."""
    for agent, sees in company.allowed.items():
        identity, token = company.agents[agent], company.agent_tokens[agent]
        wanted = {company.labels[block] for block in sees} | {"persona", "human"}
        for asker in (token, company.tokens[company.user_of[agent]]):
            state = company.need(asker, "GET", f"agents/{identity}")
            listed = company.need(asker, "GET", f"agents/{identity}/core-memory/blocks?limit=100")
            for blocks in (state["blocks"], state["memory"]["blocks"], listed):
                assert {block["label"] for block in blocks} == wanted
            prompt = company.need(asker, "POST", f"agents/{identity}/recompile")
            assert {block.label for block in parse_prompt(prompt).blocks} == wanted
            for block in company.blocks.keys() - sees:
                assert company.blocks[block] not in json.dumps(state)
                assert f"the {block} " not in json.dumps(state)
                assert f"the {block} " not in prompt
        mine = company.need(token, "GET", "blocks/?limit=100")
        assert {block["label"] for block in mine} == wanted
        assert [one["id"] for one in company.need(token, "GET", "agents/")] == [identity]
    for block, identity in company.blocks.items():
        holders = {company.agents[agent] for agent, sees in company.allowed.items() if block in sees}
        owner = company.tokens[company.owner[block]]
        seen = company.need(owner, "GET", f"blocks/{identity}")
        assert set(seen["agent_ids"]) == holders
        if (
            len({*company.user_of.values()}) == 1
        ):  # of others' agents an owner knows the ids, and sees no state
            found = company.need(owner, "GET", f"blocks/{identity}/agents?limit=100")
            assert {agent["id"] for agent in found} == holders


def test_what_is_allowed_works(company: Company) -> None:
    for agent, sees in company.allowed.items():
        identity, token = company.agents[agent], company.agent_tokens[agent]
        for block in sorted(sees):
            label, by_id = company.labels[block], f"blocks/{company.blocks[block]}"
            by_label = f"agents/{identity}/core-memory/blocks/{label}"
            before = company.values[block]
            assert company.need(token, "GET", by_id)["value"] == before
            assert company.need(token, "GET", by_label)["value"] == before
            line = f"{agent} was here"
            run = company.need(
                token,
                "POST",
                f"agents/{identity}/tools/{TOOL.name}/run",
                {"args": {"label": label, "content": line}},
            )
            if company.reads_only(block):
                assert run["status"] == "error"
                assert company.ask(token, "PATCH", by_id, {"value": "x"}).status == 403
                assert company.ask(token, "PATCH", by_label, {"value": "x"}).status == 403
                assert company.ask(token, "DELETE", by_id).status == 403
            else:
                assert run["func_return"] == f"{before}\n{line}"
                for path in (by_id, by_label):
                    assert company.need(token, "PATCH", path, {"value": before})["value"] == before
            assert company.need(token, "GET", by_id)["value"] == before


# -- what is not ----------------------------------------------------------------------------------------------------


def _arguments(tool: str, label: str) -> dict[str, Any]:
    """A call of a memory tool about a block that is not the agent's."""
    return {
        "core_memory_append": {"label": label, "content": "STOLEN"},
        "core_memory_replace": {"label": label, "old_content": "x", "new_content": "STOLEN"},
        "memory_insert": {"label": label, "new_string": "STOLEN"},
        "memory_rethink": {"label": label, "new_memory": "STOLEN"},
        "memory_apply_patch": {"label": label, "patch": "+STOLEN"},
        "memory": {"command": "insert", "path": f"/memories/{label}", "insert_text": "STOLEN"},
    }[tool]


def _ways_in(agent: str, block: str, label: str) -> list[tuple[str, str, Any]]:
    """Every route by which somebody might get at a block through an agent, or by its id."""
    memory = f"agents/{agent}/core-memory/blocks"
    return [
        ("GET", f"blocks/{block}", None),
        ("PATCH", f"blocks/{block}", {"value": "STOLEN"}),
        ("DELETE", f"blocks/{block}", None),
        ("GET", f"blocks/{block}/agents", None),
        ("GET", f"blocks/{block}/grants", None),
        ("GET", f"blocks/{block}/access", None),
        ("POST", f"blocks/{block}/transfer/accept", None),
        ("POST", f"blocks/{block}/grants", {"recipient": agent, "can": "read"}),
        ("DELETE", f"blocks/{block}/grants/{agent}", None),
        ("POST", f"offers/{block}/accept", None),
        ("GET", f"{memory}/{label}", None),
        ("PATCH", f"{memory}/{label}", {"value": "STOLEN"}),
        ("PATCH", f"{memory}/attach/{block}", None),
        ("PATCH", f"{memory}/detach/{block}", None),
        ("POST", "agents/", {"name": "thief", "block_ids": [block]}),
        ("PATCH", f"agents/{agent}", {"block_ids": [block]}),
    ]


def _in_turn(company: Company, turn: int, ways: list[tuple[str, str, Any]]) -> list[tuple[str, str, Any]]:
    """Those ways in that this pair tries: all of them, or in the quick suite's larger tutorials every third."""
    return ways if LONG or company.number in "12" else ways[turn % 3 :: 3]


def _ways_into_its_past(block: str) -> list[tuple[str, str, Any]]:
    """Every route by which somebody might get at what a block was, or end it; the quick suite tries them in turns."""
    return [
        ("GET", f"blocks/{block}/versions", None),
        ("GET", f"blocks/{block}/versions/1", None),
        ("GET", f"blocks/{block}/versions/1/diff", None),
        ("GET", f"blocks/{block}/blame", None),
        ("POST", f"blocks/{block}/restore", {"version": 1}),
        ("POST", f"blocks/{block}/rotate", None),
        ("POST", f"blocks/{block}/erase", None),
        ("POST", f"blocks/{block}/versions/1/erase", None),
    ]


def test_no_way_in_for_an_agent_by_its_own_token(company: Company) -> None:
    turns, days, pairs = cycle(TOOLS), count(), count()
    for agent, sees in company.allowed.items():
        identity, token = company.agents[agent], company.agent_tokens[agent]
        for block in sorted(company.interesting - sees):
            secret, label = company.blocks[block], company.labels[block]
            past = _ways_into_its_past(secret)
            for method, path, body in [
                *_in_turn(company, next(pairs), _ways_in(identity, secret, label)),
                *(past if LONG else [past[next(days) % len(past)]]),
            ]:
                answer = company.ask(token, method, path, body)
                # 403 where an agent may do this to no block at all
                manages = path.startswith("agents/") and not path.endswith(label)
                assert answer.status in ((403, 404) if manages else (404,)), (agent, block, method, path)
                assert f"the {block} " not in answer.text
            for tool in TOOLS if LONG else [next(turns)]:
                arguments = {"args": _arguments(tool, label)}
                run = company.need(token, "POST", f"agents/{identity}/tools/{tool}/run", arguments)
                assert run["status"] == "error", (agent, block, tool)
                assert f"the {block} " not in json.dumps(run)
        # a refused `block_ids` has taken nothing away either
        assert len(company.need(token, "GET", "blocks/?limit=100")) == len(sees) + 2
    _unharmed(company)


def test_no_way_in_for_anybody_whom_a_block_was_not_shared_with(company: Company) -> None:
    """Other users: by id, by each other's agents, and by agents of their own."""
    days, pairs = count(), count()
    for user, token in company.tokens.items():
        mine = [agent for agent, other in company.user_of.items() if other == user]
        made = None if mine else company.need(token, "POST", "agents/", {"tools": list(TOOLS)})["id"]
        own = made or company.agents[mine[0]]
        before = company.need(token, "GET", f"agents/{own}")["block_ids"]
        for block, secret in company.blocks.items():
            holders = [agent for agent, sees in company.allowed.items() if block in sees]
            if user == company.owner[block] or user in {company.user_of[agent] for agent in holders}:
                continue
            foreign, label = company.agents[holders[0]], company.labels[block]
            past = _ways_into_its_past(secret)
            tries = _in_turn(company, next(pairs), _ways_in(own, secret, label))
            tries += past if LONG else [past[next(days) % len(past)]]
            if LONG or user == "outsider":
                theirs = [way for way in _ways_in(foreign, secret, label) if way[1].startswith("agents/a")]
                tries += _in_turn(company, next(pairs), theirs)
            tries.append(
                ("POST", f"agents/{foreign}/tools/{TOOL.name}/run", {"args": _arguments(TOOL.name, label)})
            )
            for method, path, body in tries:
                answer = company.ask(token, method, path, body)
                assert answer.status == 404, (user, block, method, path, answer.text)
            arguments = {"args": _arguments(TOOL.name, label)}
            run = company.need(token, "POST", f"agents/{own}/tools/{TOOL.name}/run", arguments)
            assert run["status"] == "error"
        assert company.need(token, "GET", f"agents/{own}")["block_ids"] == before
    _unharmed(company)


def _unharmed(company: Company) -> None:
    for block, identity in company.blocks.items():
        found = company.need(company.tokens[company.owner[block]], "GET", f"blocks/{identity}")
        assert found["value"] == company.values[block]
        assert set(found["agent_ids"]) == {
            company.agents[agent] for agent, sees in company.allowed.items() if block in sees
        }


def test_every_route_about_an_agents_memory_is_tried() -> None:
    """A route that is added later, such as one that shows a prompt, has to be tried here too."""
    names = {"AGENT": "{agent_id}", "BLOCK": "{block_id}", "LABEL": "{block_label...}"}
    tried = set()
    for method, path, _ in [*_ways_in(*names), *_ways_into_its_past("BLOCK")]:
        for name, template in names.items():
            path = path.replace(f"grants/{name}", "grants/{principal}").replace(name, template)
            path = path.replace("versions/1", "versions/{number}")
        tried.add((method, f"/v1/{path}"))
    for route in ROUTES:
        names_one = "{agent_id}" in route.path or "{block_id}" in route.path
        if route.kind == "served" and names_one and (route.method, route.path) not in tried:
            assert (route.method, route.path) in TRIED_ELSEWHERE


TRIED_ELSEWHERE = {
    ("GET", "/v1/agents/{agent_id}"),  # here too: what it shows is compared with the matrix, as are lists
    ("DELETE", "/v1/agents/{agent_id}"),
    ("GET", "/v1/agents/{agent_id}/core-memory/blocks"),
    ("GET", "/v1/agents/{agent_id}/tools"),
    ("PATCH", "/v1/agents/{agent_id}/tools/attach/{tool_id}"),
    ("PATCH", "/v1/agents/{agent_id}/tools/detach/{tool_id}"),
    ("POST", "/v1/agents/{agent_id}/tools/{tool_name}/run"),
    ("POST", "/v1/agents/{agent_id}/recompile"),  # here too: the prompt holds the same labels
    # what an agent said and kept: test_conversations.py, test_turns.py; who may ask, test_matrix.py
    ("PATCH", "/v1/agents/{agent_id}/tools/approval/{tool_name}"),
    ("POST", "/v1/agents/{agent_id}/messages"),
    ("GET", "/v1/agents/{agent_id}/messages"),
    ("POST", "/v1/agents/{agent_id}/messages/stream"),
    ("POST", "/v1/agents/{agent_id}/messages/async"),
    ("POST", "/v1/agents/{agent_id}/messages/cancel"),
    ("PATCH", "/v1/agents/{agent_id}/reset-messages"),
    ("POST", "/v1/agents/{agent_id}/summarize"),
    ("POST", "/v1/agents/{agent_id}/archival-memory"),
    ("GET", "/v1/agents/{agent_id}/archival-memory"),
    ("GET", "/v1/agents/{agent_id}/archival-memory/search"),
    ("DELETE", "/v1/agents/{agent_id}/archival-memory/{memory_id}"),
    ("POST", "/v1/agents/{agent_id}/contact"),
    ("POST", "/v1/blocks/{block_id}/transfer"),
    ("DELETE", "/v1/blocks/{block_id}/transfer"),
    ("POST", "/v1/offers/{block_id}/decline"),
}
"""Routes that get nobody at a block that is not the agent's: `test_matrix` has them all."""
