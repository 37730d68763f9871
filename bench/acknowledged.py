"""Clients that remember what the server acknowledged to them, and what is held against it.

Each client has a block of its own, which only it writes and all read, an agent through which it appends to a block that
all share, and blocks that it makes and deletes. It repeats what failed as letta-client does, for longer. So for each
change one of three is known: it was acknowledged, it was refused, or nobody knows yet.
"""

from __future__ import annotations

import http.client
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from tallystone.vault import Vault

GIVE_UP = 100.0
"""Seconds that one request is repeated; a POST's answer is kept for 120."""
TIMEOUT = 60.0
"""Seconds that an answer may take, as with letta-client."""
APPENDS = 100
"""Lines of one client in the shared block: it takes 100,000 characters."""
KEPT = 20
"""Blocks that a client makes before it deletes the oldest of them for each new one."""
_OWN_RETRIES = 2
"""How often letta-client repeats a request by itself."""
_SAMPLE = 20
"""Earlier versions of each block that are read again at the end."""


class Unanswered(Exception):
    """The request was repeated until the client gave up; whether it took place is not known."""


@dataclass
class Answer:
    """What a client was told in the end. `doubtful`: an earlier attempt may have taken place unheard."""

    status: int
    body: Any
    doubtful: bool


@dataclass
class Ledger:
    """What all clients were told, for any thread."""

    acknowledged: Counter[str] = field(default_factory=Counter)
    """Acknowledged operations by kind."""
    told: Counter[str] = field(default_factory=Counter)
    """Attempts that came to nothing, by what they were told."""
    beyond: int = 0
    """Requests that needed more repeats than letta-client makes by itself."""
    wrong: list[str] = field(default_factory=list)
    """Broken promises."""
    versions: dict[str, int] = field(default_factory=dict)
    """The newest version of each block that was acknowledged."""
    times: list[float] = field(default_factory=list)
    """When each change was acknowledged: monotonic seconds."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def acknowledge(self, kind: str, block: str = "", version: int = 0) -> None:
        """An operation is done, and left `block` at this version."""
        with self.lock:
            self.acknowledged[kind] += 1
            if kind != "read":
                self.times.append(time.monotonic())
            if block:
                self.versions[block] = max(version, self.versions.get(block, 0))

    def failed(self, what: str, attempt: int) -> None:
        """An attempt came to nothing; `attempt` were made before it."""
        with self.lock:
            self.told[what] += 1
            self.beyond += attempt == _OWN_RETRIES

    def complain(self, what: str) -> None:
        """A promise is broken."""
        with self.lock:
            self.wrong.append(what)


class Wire:
    """One connection, with letta-client's rules for what is repeated and when. For one thread."""

    def __init__(self, url: str, token: str, ledger: Ledger) -> None:
        self._place = urlsplit(url).netloc
        self._headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
        self._ledger = ledger
        self._connection: http.client.HTTPConnection | None = None

    def ask(
        self, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """The last answer. Raises `Unanswered`."""
        until, doubtful = time.monotonic() + GIVE_UP, False
        attempt = 0
        while True:
            pause = min(0.5 * 2**attempt, 8.0) * (1 - 0.25 * random.random())
            try:
                status, told, answer = self._once(method, path, body, headers or {}, attempt)
            except (OSError, http.client.HTTPException) as error:
                self.close()
                what, doubtful = type(error).__name__, True
            else:
                if status < 500 and status not in (408, 409, 429):
                    return Answer(status, answer, doubtful)
                what = f"{status} {answer['error']['code']}"
                if told.get("x-should-retry") == "false":
                    return Answer(status, answer, doubtful)
                doubtful = doubtful or status >= 500
                pause = float(told.get("retry-after") or pause)
            self._ledger.failed(what, attempt)
            attempt += 1
            if time.monotonic() + pause > until:
                raise Unanswered(what)
            time.sleep(pause)  # as letta-client waits before it repeats

    def _once(
        self, method: str, path: str, body: object, headers: Mapping[str, str], attempt: int
    ) -> tuple[int, Mapping[str, str], Any]:
        if self._connection is None:
            self._connection = http.client.HTTPConnection(self._place, timeout=TIMEOUT)
        sent = {**self._headers, **headers, "x-stainless-retry-count": str(attempt)}
        content = None if body is None else json.dumps(body).encode()
        self._connection.request(method, path, content, sent)
        reply = self._connection.getresponse()
        text = reply.read()
        return reply.status, {name.lower(): value for name, value in reply.getheaders()}, json.loads(text)

    def close(self) -> None:
        """End the connection; the next request makes another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class Client:
    """One of those who work at once. `run` returns when `stop` is set; `lines` and `made` say what it knows then."""

    def __init__(self, url: str, token: str, number: int, ledger: Ledger, shared: str, seed: int) -> None:
        self._wire, self._ledger, self.number = Wire(url, token, ledger), ledger, number
        self._random = random.Random(seed * 1000 + number)
        self.shared = shared
        self.block = self._agent = ""
        self._first = self._count = 0
        self.unsure_write = False
        self.lines: dict[str, bool] = {}
        """Each line that it appended: whether that was acknowledged, or is not known."""
        self.made: dict[str, str | None] = {}
        """The label of each block that it made: its id, or None if it is not known whether it was made."""
        self.deleted: dict[str, bool] = {}
        """The labels of those that it deleted: whether that was acknowledged."""

    def prepare(self) -> None:
        """Make its block and its agent."""
        made = self._made("POST", "/v1/blocks/", {"label": f"own {self.number}", "value": self._value(0)})
        self.block, self._first = made["id"], made["version"]
        agent = {
            "name": f"client {self.number}",
            "block_ids": [self.shared],
            "tools": ["core_memory_append"],
        }
        self._agent = self._made("POST", "/v1/agents/", agent)["id"]
        self._ledger.acknowledge("create", self.block, self._first)

    def run(self, stop: threading.Event, blocks: list[str]) -> None:
        """Work on, until told to stop."""
        kinds = (self.write, self.append, self.create, lambda: self.read(self._random.choice(blocks)))
        try:
            while not stop.is_set():
                self._random.choices(kinds, (30, 8, 8, 54))[0]()
        except Exception as error:
            self._ledger.complain(f"client {self.number} ended: {type(error).__name__}: {error}")
        finally:
            self._wire.close()

    def _value(self, count: int) -> str:
        return f"{self.number}:{count} ".ljust(1000, "x")

    def _made(self, method: str, path: str, body: object) -> Any:
        answer = self._wire.ask(method, path, body)
        if answer.status != 200:
            raise RuntimeError(f"{method} {path} was answered {answer.status}: {answer.body}")
        return answer.body

    def write(self) -> None:
        """Put the next value on top of the last, and of no other version."""
        if self.unsure_write:
            return
        version = self._first + self._count
        body, wanted = {"value": self._value(self._count + 1)}, {"if-match": f'"{version}"'}
        try:
            answer = self._wire.ask("PATCH", f"/v1/blocks/{self.block}", body, wanted)
            if (
                answer.status == 412 and answer.doubtful
            ):  # an attempt that was not heard of may have taken place
                answer = self._wire.ask("GET", f"/v1/blocks/{self.block}")
        except Unanswered:
            self.unsure_write = True  # from here on it reads alone: the next value would say which it was
            return
        if answer.status != 200:
            self._ledger.complain(f"own block {self.number}: a write on v{version} was told {answer.status}")
        elif (answer.body["version"], answer.body["value"]) != (version + 1, body["value"]):
            self._ledger.complain(
                f"own block {self.number}: v{version} was followed by other than its writer's"
            )
        else:
            self._count += 1
            self._ledger.acknowledge("write", self.block, version + 1)

    @property
    def value(self) -> str:
        """What its own block holds, as far as it knows."""
        return self._value(self._count)

    def read(self, block: str) -> None:
        """Any client's block: never older than what was acknowledged before."""
        at_least = self._ledger.versions[block]
        try:
            answer = self._wire.ask("GET", f"/v1/blocks/{block}")
        except Unanswered:
            return
        if answer.status != 200:
            self._ledger.complain(f"a read was told {answer.status}: {answer.body}")
        elif answer.body["version"] < at_least:
            self._ledger.complain(f"v{answer.body['version']} was read after v{at_least} was acknowledged")
        else:
            self._ledger.acknowledge("read")

    def append(self) -> None:
        """A line to the block that all share, through the agent."""
        if len(self.lines) >= APPENDS:
            return
        line = f"{self.number}-{len(self.lines)}"
        body = {"args": {"label": "shared", "content": line}}
        self.lines[line] = False
        try:
            path = f"/v1/agents/{self._agent}/tools/core_memory_append/run"
            answer = self._wire.ask("POST", path, body)
        except Unanswered:
            return
        if answer.status != 200 or answer.body["status"] != "success":
            self._ledger.complain(f"an append was told {answer.status}: {answer.body}")
        else:
            self.lines[line] = True
            self._ledger.acknowledge("append")

    def create(self) -> None:
        """A new block, and away with the oldest if there are many."""
        label = f"made {self.number} {len(self.made)}"
        self.made[label] = None
        try:
            answer = self._wire.ask("POST", "/v1/blocks/", {"label": label, "value": self._value(0)})
        except Unanswered:
            return
        if answer.status != 200:
            self._ledger.complain(f"a create was told {answer.status}: {answer.body}")
            return
        self.made[label] = answer.body["id"]
        self._ledger.acknowledge("create")
        there = [label for label, block in self.made.items() if block and label not in self.deleted]
        if len(there) > KEPT:
            self._delete(there[0])

    def _delete(self, label: str) -> None:
        self.deleted[label] = False
        try:
            answer = self._wire.ask("DELETE", f"/v1/blocks/{self.made[label]}")
        except Unanswered:
            return
        # A repeat of one that took place unheard finds nothing.
        if answer.status == 200 or (answer.status == 404 and answer.doubtful):
            self.deleted[label] = True
            self._ledger.acknowledge("delete")
        else:
            self._ledger.complain(f"a delete was told {answer.status}: {answer.body}")

    # -- at the end ---------------------------------------------------------------------------------------------

    def check(self, vault: Vault, lines: Counter[str], labels: Mapping[str, list[str]]) -> None:
        """Hold what is stored against what this client knows. `lines` of the shared block, and the ids by label of all
        blocks, are as they are at the end."""
        complain, head = self._ledger.complain, vault.block(self.block)
        done = head.version - self._first
        if done != self._count and not (self.unsure_write and done == self._count + 1):
            complain(f"own block {self.number}: {self._count} writes were acknowledged, {done} took place")
        chosen = range(done + 1) if done < _SAMPLE else self._random.sample(range(done + 1), _SAMPLE)
        for count in chosen:
            content = vault.version(self.block, self._first + count).content
            if content is None or content["value"] != self._value(count):
                complain(f"own block {self.number}: v{self._first + count} is not what was written")
        self.check_lines(lines)
        self.check_made(labels)

    def check_lines(self, lines: Mapping[str, int]) -> None:
        """Hold how often each line is there against what this client knows."""
        for line, sure in self.lines.items():
            count = lines.get(line, 0)
            if count != 1 and (sure or count > 1):
                self._ledger.complain(f"line {line} is there {count} times")

    def check_made(self, labels: Mapping[str, list[str]]) -> None:
        """Hold the ids of the blocks with each label against what this client knows."""
        for label, block in self.made.items():
            there, gone = labels.get(label, []), self.deleted.get(label)
            wanted = [] if block is None or gone else [block]
            unsure = (block is None and len(there) <= 1) or (gone is False and not there)
            if there != wanted and not unsure:
                self._ledger.complain(
                    f"block {label!r}: there are {len(there)} with this label, not {len(wanted)}"
                )


def check_all(clients: list[Client], vault: Vault, shared: str) -> None:
    """Hold what is stored against what each client knows; complaints are in their ledger."""
    lines = Counter(vault.block(shared).value.splitlines())
    labels: dict[str, list[str]] = {}
    for block in vault.blocks():
        labels.setdefault(block.label, []).append(block.id)
    for client in clients:
        client.check(vault, lines, labels)


def shared_block(url: str, token: str, ledger: Ledger) -> str:
    """The id of a new block that all clients append to."""
    wire = Wire(url, token, ledger)
    answer = wire.ask("POST", "/v1/blocks/", {"label": "shared", "value": "", "limit": 100_000})
    wire.close()
    if answer.status != 200:
        raise RuntimeError(f"the server answers {answer.status}: {answer.body}")
    found: str = answer.body["id"]
    return found
