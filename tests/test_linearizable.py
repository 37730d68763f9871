"""Concurrent shares, revokes, reads and writes of one block are linearisable; whoever is out stays out.

Many short runs, each with another seed: an owner opens and closes a block to a reader, a writer, the writer's agent
and an agent of its own, while all of them read and append as fast as they can, and somebody who is never shut out
looks on. `linear.judge` must find nothing. `TALLYSTONE_LONG=1` makes a thousand runs. The rules are tested first, each
on a history that breaks it.
"""

from __future__ import annotations

import os
import random
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import linear
import pytest
from linear import Call, Recorder, Seen
from server_fixtures import Served, fresh_server  # noqa: F401

from tallystone.errors import Denied, NotFound, PreconditionFailed, StoreError, TallystoneError
from tallystone.vault import Vault, Workspace
from tallystone.vault.types import Block

LONG = bool(os.environ.get("TALLYSTONE_LONG"))
RUNS = {"grants": 560, "roles": 240} if LONG else {"grants": 9, "roles": 4}
RUNS_OVER_HTTP = {"grants": 140, "roles": 60} if LONG else {"grants": 5, "roles": 2}
A_TEST = 40
"""Runs in one workspace and one test at most."""
MORE = 40
"""Runs beyond those asked for, if they have not yet tried everything."""

FIRST = "the first line"
LABEL = "log"
TOOL = "core_memory_append"
MINE = "alice's agent"
UNDER = {"bob's agent": "bob"}
ROUNDS = 3 if LONG else 2
"""How often the owner opens and closes the block in a run."""
PAUSE = 0.005
"""Seconds that a client leaves the processor to the others after each call."""


# -- the rules, on histories that break them ------------------------------------------------------------------------


def _read(client: str, began: int, ended: int, version: int, **more: Any) -> Call:
    return Call(client, "read", began, ended, version=version, value=_value(version), **more)


def _write(client: str, began: int, ended: int, version: int, **more: Any) -> Call:
    shown = {"line": f"l{version}", "value": _value(version), **more}
    return Call(client, "write", began, ended, version=version, **shown)


def _value(version: int) -> str:
    return "\n".join([FIRST, *(f"l{number}" for number in range(2, version + 1))])


def _open(target: str, began: int, ended: int, right: str = "write", **more: Any) -> Call:
    return Call("alice", "open", began, ended, target=target, right=right, **more)


def _close(target: str, began: int, ended: int, **more: Any) -> Call:
    return Call("alice", "close", began, ended, target=target, **more)


def _enter(target: str, began: int, ended: int) -> Call:
    return Call("bob", "enter", began, ended, target=target)


def _refused(client: str, kind: linear.Kind, began: int, ended: int, error: str = "not_found") -> Call:
    return Call(client, kind, began, ended, outcome="refused", error=error)


IN = [_open("bob", 0, 1), _enter("bob", 2, 3)]
"""bob, with write, from 3 on."""
GOOD: Mapping[str, list[Call]] = {
    "nothing happened": [],
    "a read that races the revoke": [*IN, _close("bob", 10, 20), _read("bob", 12, 30, 1)],
    "shared again": [
        *IN, _close("bob", 10, 20), _open("bob", 30, 40), _enter("bob", 41, 42), _read("bob", 43, 50, 1),
    ],
    "shared again meanwhile": [
        *IN, _close("bob", 10, 20), _open("bob", 30, 60), _enter("bob", 35, 65), _read("bob", 32, 64, 1),
    ],
    "a share of unknown outcome": [
        *IN, _close("bob", 10, 20), _open("bob", 30, 40, outcome="unsure"), _enter("bob", 41, 42),
        _read("bob", 43, 50, 1),
    ],
    "a revoke of unknown outcome": [*IN, _close("bob", 10, 20, outcome="unsure"), _read("bob", 43, 50, 1)],
    "a reader goes on when write is gone": [*IN, _open("bob", 10, 20, "read"), _read("bob", 22, 25, 1)],
    "overlapping writes in any order": [_write("a", 0, 10, 3), _write("b", 1, 9, 2), _read("c", 11, 12, 3)],
    "refused after the revoke": [*IN, _close("bob", 10, 20), _refused("bob", "read", 22, 25)],
    "refused while it is revoked": [*IN, _close("bob", 10, 20), _refused("bob", "read", 4, 11)],
    "refused before it was accepted": [_open("bob", 0, 1), _refused("bob", "read", 2, 3)],
    "refused for a race": [*IN, _refused("bob", "write", 5, 6, "precondition_failed")],
    "a write of a reader": [
        _open("bob", 0, 1, "read"), _enter("bob", 2, 3), _refused("bob", "write", 5, 6, "no_write"),
    ],
    "the agent of a user whose right changed": [
        *IN, _enter("bob's agent", 4, 5), _open("bob", 6, 7, "write"), _refused("bob's agent", "read", 8, 9),
    ],
}  # fmt: skip
BAD: Mapping[str, tuple[str, list[Call]]] = {
    "a read after the revoke": ("after the revoke", [*IN, _close("bob", 10, 20), _read("bob", 21, 30, 1)]),
    "a write after the revoke": ("after the revoke", [*IN, _close("bob", 10, 20), _write("bob", 21, 30, 2)]),
    "a write after it was taken away": (
        "after the revoke", [*IN, _open("bob", 10, 20, "read"), _write("bob", 21, 30, 2)],
    ),
    "an agent after its user's revoke": (
        "after the revoke",
        [*IN, _enter("bob's agent", 4, 5), _close("bob", 10, 20), _read("bob's agent", 21, 30, 1)],
    ),
    "an agent that nobody let in again": (
        "after the revoke",
        [
            *IN, _enter("bob's agent", 4, 5), _close("bob", 10, 20), _open("bob", 30, 31), _enter("bob", 32, 33),
            _read("bob's agent", 40, 50, 1),
        ],
    ),
    "shared again, and read without accepting": (
        "after the revoke", [*IN, _close("bob", 10, 20), _open("bob", 30, 31), _read("bob", 40, 50, 1)],
    ),
    "shared again for reading, and written": (
        "after the revoke",
        [
            *IN, _close("bob", 10, 20), _open("bob", 30, 31, "read"), _enter("bob", 32, 33), _write("bob", 40, 50, 2),
        ],
    ),
    "shared again too late": (
        "after the revoke",
        [*IN, _close("bob", 10, 20), _read("bob", 21, 30, 1), _open("bob", 31, 32), _enter("bob", 33, 34)],
    ),
    "refused although granted": ("although granted", [*IN, _refused("bob", "read", 5, 6)]),
    "an agent refused although placed": (
        "although granted", [*IN, _enter("bob's agent", 4, 5), _refused("bob's agent", "write", 6, 7)],
    ),
    "one version, two writes": (
        "2 writes made version 2", [_write("a", 0, 9, 2), _write("b", 1, 8, 2), _read("c", 10, 11, 2)],
    ),
    "a stale read": ("saw an older version", [_write("a", 0, 1, 2), _read("b", 2, 3, 1)]),
    "reads that go back": (
        "saw an older version", [_write("a", 0, 9, 2), _read("b", 1, 2, 2), _read("c", 3, 4, 1)],
    ),
    "writes against time": ("saw an older version", [_write("a", 0, 1, 3), _write("b", 2, 3, 2)]),
    "a read of the future": ("was seen before", [_read("b", 0, 1, 2), _write("a", 2, 3, 2)]),
    "a write that slipped in after the revoke": (
        "saw an older version",
        [*IN, _close("bob", 10, 20), _write("bob", 12, 40, 2), _read("carol", 21, 30, 1)],
    ),
    "a read that slipped in after the revoke": (
        "was seen before",
        [*IN, _close("bob", 10, 20), _read("bob", 12, 40, 2), _write("carol", 21, 50, 2)],
    ),
    "two values of one version": (
        "two values", [_write("a", 0, 1, 2), Call("b", "read", 2, 3, version=2, value="other")],
    ),
    "a value that forgot a line": (
        "no continuation",
        [_write("a", 0, 1, 2), Call("b", "write", 2, 3, version=3, value=f"{FIRST}\nx", line="x")],
    ),
    "a write that answers without its line": ("not the last", [_write("a", 0, 1, 2, line="other")]),
}  # fmt: skip


def _final(history: list[Call]) -> str:
    """What would stand there in the end if nothing were wrong."""
    return "\n".join(
        [FIRST, *(f"l{number}" for number in range(2, 1 + max(call.version for call in history)))]
    )


@pytest.mark.parametrize("name", GOOD)
def test_good_histories_pass(name: str) -> None:
    history = GOOD[name]
    final = _final(history) if any(call.kind == "write" for call in history) else FIRST
    assert linear.judge(history, final, UNDER) == []


@pytest.mark.parametrize("name", BAD)
def test_each_rule_finds_what_breaks_it(name: str) -> None:
    complaint, history = BAD[name]
    found = linear.judge(history, _final(history), UNDER)
    assert [one for one in found if complaint in one], found


@pytest.mark.parametrize(
    "complaint, final, calls",
    [
        ("0 times", FIRST, [_write("a", 0, 1, 2)]),
        ("2 times", f"{FIRST}\nl2\nl2", [_write("a", 0, 1, 2)]),
        ("refused, and there", f"{FIRST}\nx", [Call("a", "write", 0, 1, outcome="refused", line="x")]),
        ("unsure, and there twice", f"{FIRST}\nx\nx", [Call("a", "write", 0, 1, outcome="unsure", line="x")]),
        ("nobody wrote", f"{FIRST}\nx", []),
        ("order", f"{FIRST}\nl3\nl2", [_write("a", 0, 9, 2), _write("b", 0, 9, 3)]),
    ],
)
def test_the_final_value_is_judged(complaint: str, final: str, calls: list[Call]) -> None:
    found = linear.judge(calls, final, UNDER)
    assert [one for one in found if complaint in one], found


def test_an_unsure_write_may_be_there_or_not() -> None:
    unsure = Call("a", "write", 0, 1, outcome="unsure", line="x")
    assert linear.judge([unsure], FIRST, UNDER) == []
    assert linear.judge([unsure], f"{FIRST}\nx", UNDER) == []


def test_the_recorder_tells_refusals_from_what_nobody_knows() -> None:
    recorder = Recorder()

    def fail(error: TallystoneError) -> Callable[[], None]:
        def work() -> None:
            raise error

        return work

    recorder.call("a", "read", lambda: Seen(3, "x"))
    recorder.call("a", "write", fail(Denied("no", code="no_write")), line="x")
    recorder.call("a", "write", fail(StoreError("gone")), line="y")
    calls = recorder.history
    assert [call.outcome for call in calls] == ["ok", "refused", "unsure"]
    assert (calls[0].version, calls[0].value, calls[1].error) == (3, "x", "no_write")
    assert all(call.began <= call.ended for call in calls)


# -- the clients ------------------------------------------------------------------------------------------------


class Direct:
    """A client that opens a vault from its token for each call, as the server does for each request."""

    def __init__(self, workspace: Workspace, token: str, agent: str = "") -> None:
        self._workspace = workspace
        self._token = token
        self._agent = agent

    def _vault(self) -> Vault:
        return self._workspace.vault(self._token)

    def read(self, block: str) -> Seen:
        vault = self._vault()
        found = vault.agent_block(self._agent, LABEL) if self._agent else vault.block(block)
        return Seen(found.version, found.value)

    def append(self, block: str, line: str) -> Seen:
        def edit(before: Block) -> dict[str, str]:
            return {"value": f"{before.value}\n{line}"}

        vault = self._vault()
        if self._agent:
            found = vault.edit_agent_block(self._agent, LABEL, edit, as_agent=True)
        else:
            found = vault.edit_block(block, edit)
        return Seen(found.version, found.value)

    def share(self, block: str, who: str, right: str) -> None:
        self._vault().share(block, who, right)

    def revoke(self, block: str, who: str) -> None:
        self._vault().revoke(block, who)

    def accept(self, offer: str) -> None:
        self._vault().accept_offer(offer)

    def add(self, role: str, who: str) -> None:
        self._vault().add_members(role, [who])

    def remove(self, role: str, who: str) -> None:
        self._vault().remove_member(role, who)

    def attach(self, agent: str, block: str) -> None:
        self._vault().attach(agent, block)

    def detach(self, agent: str, block: str) -> None:
        self._vault().detach(agent, block)


REFUSED: Mapping[int, type[TallystoneError]] = {403: Denied, 404: NotFound, 412: PreconditionFailed}


class OverHttp:
    """The same over HTTP: an agent by its memory tool, a user by PATCH with `If-Match`."""

    def __init__(self, http: httpx.Client, agent: str = "") -> None:
        self._http = http
        self._agent = agent

    def _ask(self, method: str, path: str, **more: Any) -> Any:
        answer = self._http.request(method, f"/v1/{path}", **more)
        if answer.status_code == 200:
            return answer.json()
        body = answer.json()
        error = REFUSED.get(answer.status_code, TallystoneError)
        raise error(body["detail"], code=body["error"]["code"])

    def read(self, block: str) -> Seen:
        path = f"agents/{self._agent}/core-memory/blocks/{LABEL}" if self._agent else f"blocks/{block}"
        found = self._ask("GET", path)
        return Seen(found["version"], found["value"])

    def append(self, block: str, line: str) -> Seen:
        if self._agent:
            arguments = {"args": {"label": LABEL, "content": line}}
            run = self._ask("POST", f"agents/{self._agent}/tools/{TOOL}/run", json=arguments)
            if run["status"] != "success":
                raise Denied("the tool refused", code="tool")
            # the answer names no version: with appends alone it is told by the number of lines
            return Seen(len(linear.lines_of(run["func_return"])), run["func_return"])
        before = self.read(block)
        found = self._ask(
            "PATCH",
            f"blocks/{block}",
            json={"value": f"{before.value}\n{line}"},
            headers={"if-match": f'"{before.version}"'},
        )
        return Seen(found["version"], found["value"])

    def share(self, block: str, who: str, right: str) -> None:
        self._ask("POST", f"blocks/{block}/grants", json={"recipient": who, "can": right})

    def revoke(self, block: str, who: str) -> None:
        self._ask("DELETE", f"blocks/{block}/grants/{who}")

    def accept(self, offer: str) -> None:
        self._ask("POST", f"offers/{offer}/accept")

    def add(self, role: str, who: str) -> None:
        self._ask("POST", f"roles/{role}/members", json={"members": [who]})

    def remove(self, role: str, who: str) -> None:
        self._ask("DELETE", f"roles/{role}/members/{who}")

    def attach(self, agent: str, block: str) -> None:
        self._ask("PATCH", f"agents/{agent}/core-memory/blocks/attach/{block}")

    def detach(self, agent: str, block: str) -> None:
        self._ask("PATCH", f"agents/{agent}/core-memory/blocks/detach/{block}")


Client = Direct | OverHttp
Connect = Callable[[str, str], Client]
"""From a token, and the agent that it acts as (or ""), to a client."""


# -- a run ------------------------------------------------------------------------------------------------------


@dataclass
class Cast:
    """Who takes part. `carol` is never shut out."""

    alice: str
    bob: str
    carol: str
    agents: dict[str, str]
    agent_tokens: dict[str, str]

    @property
    def tokens(self) -> list[str]:
        """Everybody's."""
        return [self.alice, self.bob, self.carol, *self.agent_tokens.values()]

    @classmethod
    def of(cls, workspace: Workspace, alice: str) -> Cast:
        """The workspace's first user, with everybody else new."""
        owner = workspace.vault(alice)
        bob, carol = owner.add_user("bob").token, owner.add_user("carol").token
        agents, tokens = {}, {}
        for name, vault in ((MINE, owner), ("bob's agent", workspace.vault(bob))):
            agents[name] = vault.create_agent({"name": name, "tools": [TOOL]}).id
            tokens[name] = vault.agent_token(agents[name])
        return cls(alice, bob, carol, agents, tokens)


@dataclass
class Run:
    """One block, its clients, and what they do at once. With a `role`, membership is the gate, not a grant."""

    cast: Cast
    connect: Connect
    dice: random.Random
    block: str = ""
    role: str = ""
    recorder: Recorder = field(default_factory=Recorder)
    inside: threading.Event = field(default_factory=threading.Event)
    over: threading.Event = field(default_factory=threading.Event)

    def play(self) -> list[str]:
        """Play it, and say what was wrong."""
        cast = self.cast
        owner = self.connect(cast.alice, "")
        owner.share(self.block, "carol", "write")
        self.connect(cast.carol, "").accept(self.block)
        bob, carol = self._client(cast.bob), self._client(cast.carol)
        # bob's agent comes with a token of its own, or under its user's
        token = self.dice.choice((cast.bob, cast.agent_tokens["bob's agent"]))
        agent, other = self._client(token, "bob's agent"), self._client(cast.agent_tokens[MINE], MINE)
        _together(
            [
                lambda: self._own(self._client(cast.alice)),
                lambda: self._come_in(bob),
                lambda: self._use("bob", bob, 0.5),
                lambda: self._use("carol", carol, 0.3),
                lambda: self._use("bob's agent", agent, 0.5),
                lambda: self._use(MINE, other, 0.5),
            ]
        )
        final = owner.read(self.block).value
        return linear.judge(self.recorder.history, final, UNDER)

    def _client(self, token: str, agent: str = "") -> Client:
        return self.connect(token, self.cast.agents[agent] if agent else "")

    def _own(self, alice: Client) -> None:
        """The owner: opens and closes, and reads and writes in between."""
        dice = random.Random(self.dice.random())
        try:
            for _ in range(ROUNDS):
                if dice.random() < 0.7:
                    self._let_bob_in(alice, dice)
                    self._record("close", lambda: self._shut(alice, "bob"), "bob")
                else:
                    self._record("open", lambda: self._admit(alice, MINE, "write"), MINE, "write")
                    self._use_once("alice", alice, dice, 0.4, dice.randrange(2, 8))
                    self._record("close", lambda: self._shut(alice, MINE), MINE)
                self._use_once("alice", alice, dice, 0.0, dice.randrange(3))
        finally:
            self.over.set()

    def _admit(self, alice: Client, who: str, right: str) -> None:
        known = self.cast.agents.get(who, who)
        if self.role:
            alice.add(self.role, known)
        elif who == MINE:
            alice.attach(known, self.block)
        else:
            alice.share(self.block, known, right)

    def _shut(self, alice: Client, who: str) -> None:
        known = self.cast.agents.get(who, who)
        if self.role:
            alice.remove(self.role, known)
        elif who == MINE:
            alice.detach(known, self.block)
        else:
            alice.revoke(self.block, known)

    def _let_bob_in(self, alice: Client, dice: random.Random) -> None:
        """Open to bob; sometimes again with another right; mostly wait until he has taken it."""
        rights = dice.choice((["read"], ["write"], ["write"], ["read", "write"], ["write", "read"]))
        for right in ["write"] if self.role else rights:
            self.inside.clear()
            self._record("open", partial(self._admit, alice, "bob", right), "bob", right)
            if dice.random() < 0.8:
                self.inside.wait(0.1)
            self._use_once("alice", alice, dice, 0.4, dice.randrange(6))

    def _record(self, kind: linear.Kind, work: Callable[[], None], target: str, right: str = "") -> Call:
        """A change of the gates."""
        client = "bob" if kind == "enter" else "alice"
        return self.recorder.call(client, kind, work, target=target, right=right)

    def _come_in(self, bob: Client) -> None:
        """bob takes what is offered, and gives it to his agent, unless he has it through a role."""
        his, offer = self.cast.agents["bob's agent"], self.role or self.block
        while not self.over.is_set():
            if self._record("enter", lambda: bob.accept(offer), "bob").outcome == "ok":
                if not self.role:
                    self._record("enter", lambda: bob.attach(his, self.block), "bob's agent")
                self.inside.set()
            self.over.wait(2 * PAUSE)

    def _use(self, name: str, client: Client, writes: float) -> None:
        dice = random.Random(self.dice.random())
        while not self.over.is_set():
            self._use_once(name, client, dice, writes, 1)
            self.over.wait(PAUSE)

    def _use_once(self, name: str, client: Client, dice: random.Random, writes: float, times: int) -> None:
        for _ in range(times):
            if dice.random() < writes:
                line = f"{name} {dice.getrandbits(64):x}"
                self.recorder.call(
                    name,
                    "write",
                    partial(client.append, self.block, line),
                    line=line,
                )
            else:
                self.recorder.call(name, "read", lambda: client.read(self.block))


def _together(jobs: list[Callable[[], None]]) -> None:
    """Run all at once. What a job raises that is none of our errors is raised here."""
    raised: list[BaseException] = []
    start = threading.Barrier(len(jobs))

    def run(job: Callable[[], None]) -> None:
        start.wait()
        try:
            job()
        except BaseException as error:
            raised.append(error)

    threads = [threading.Thread(target=run, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if raised:
        raise raised[0]


@pytest.fixture
def switching_often() -> Iterator[None]:
    """Threads take turns more often than usual, so that more orders are tried."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(0.0002)
    yield
    sys.setswitchinterval(before)


def _played(cast: Cast, workspace: Workspace, connect: Connect, seed: int, gates: str) -> Run:
    """Play one run on a block of its own, and hold it to the rules."""
    owner = workspace.vault(cast.alice)
    run = Run(
        cast, connect, random.Random(f"{gates} {seed}"), owner.create_block(label=LABEL, value=FIRST).id
    )
    if gates == "roles":
        run.role = owner.create_role(f"staff {seed}").id
        owner.share(run.block, run.role, "write")
    found = run.play()
    assert found == [], f"{gates}, seed {seed}: " + "\n".join(found[:5])
    owner.delete_block(run.block)
    return run


def _missing(runs: list[Run]) -> set[tuple[str, str, str]]:
    """What the runs have not tried of what they are about: each client reads and writes, gets in and is refused."""
    calls = {(call.client, call.kind, call.outcome) for run in runs for call in run.recorder.history}
    clients = ("bob", MINE) if runs[0].role else ("bob", MINE, "bob's agent")
    wanted = {(who, kind, end) for who in clients for kind in ("read", "write") for end in ("ok", "refused")}
    return wanted - calls


def _play_all(play: Callable[[int], Run], seeds: range) -> None:
    """Play the seeds, and some more if a busy machine gave a client no turn where it would have been refused."""
    runs = [play(seed) for seed in seeds]
    for seed in range(seeds.stop, seeds.stop + MORE):
        if not _missing(runs):
            break
        runs.append(play(seed))
    assert not _missing(runs)
    calls = [call for run in runs for call in run.recorder.history]
    failed = [call for call in calls if call.client in ("alice", "carol") and call.outcome != "ok"]
    assert {call.error for call in failed} <= {"precondition_failed"}


def _parts(runs: Mapping[str, int]) -> list[tuple[str, range]]:
    """What each test plays: which gates, and which seeds."""
    return [
        (gates, range(first, min(first + A_TEST, many)))
        for gates, many in runs.items()
        for first in range(0, many, A_TEST)
    ]


@pytest.mark.usefixtures("switching_often")
@pytest.mark.parametrize("gates, seeds", _parts(RUNS))
def test_vaults_at_once_are_linearisable(gates: str, seeds: range, tmp_path: Path) -> None:
    workspace, credentials = Workspace.init(tmp_path / "data", "alice")
    with workspace:
        cast = Cast.of(workspace, credentials.token)

        def connect(token: str, agent: str) -> Client:
            return Direct(workspace, token, agent)

        _play_all(lambda seed: _played(cast, workspace, connect, seed, gates), seeds)
        assert workspace.verify().findings == []


@pytest.mark.parametrize("gates, seeds", _parts(RUNS_OVER_HTTP))
def test_requests_at_once_are_linearisable(gates: str, seeds: range, fresh_server: Served) -> None:  # noqa: F811
    cast = Cast.of(fresh_server.workspace, fresh_server.token)
    # one client for each principal and its threads, as a program would have
    pools = {token: fresh_server.http(token) for token in cast.tokens}

    def connect(token: str, agent: str) -> Client:
        return OverHttp(pools[token], agent)

    _play_all(lambda seed: _played(cast, fresh_server.workspace, connect, seed, gates), seeds)
