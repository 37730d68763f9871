"""What is asked of a letta-compatible server: what a suite needs there first, and the operations that are measured.

Only what the public client sends too (paths, fields), so that any server behind `letta-client` can be asked. Each
operation makes the script of one connection, from what is there and the connection's number.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from bench.load import Ask, Played, Reply, Script, Target, Unreachable, play

KILOBYTE, LARGE = 1000, 20_000
PAGE = 50
SHARERS = 8
_BLOCKS, _AGENTS = "/v1/blocks/", "/v1/agents/"
_SETTERS = 4
"""Connections that set up: a server with many threads gains by them, one with few loses nothing."""
_LLM = {
    "model": "none",
    "model_endpoint_type": "openai",
    "model_endpoint": "http://127.0.0.1:1",
    "context_window": 8192,
}
_EMBEDDING = {
    "embedding_model": "none",
    "embedding_endpoint_type": "openai",
    "embedding_endpoint": "http://127.0.0.1:1",
    "embedding_dim": 8,
    "embedding_chunk_size": 300,
}


@dataclass
class Scene:
    """What is on the server: ids. `free` are blocks that no agent holds yet, one for each of `agents`; each of these
    has a block labelled `memory`, and each of `sharers` the one labelled `shared`."""

    blocks: list[str] = field(default_factory=list)
    large: list[str] = field(default_factory=list)
    free: list[str] = field(default_factory=list)
    agents: list[str] = field(default_factory=list)
    sharers: list[str] = field(default_factory=list)
    shared: str = ""
    run: str = ""
    """Distinguishes what this run makes from what others have made."""


def text(number: int, size: int) -> str:
    """A value of so many bytes, different for each number."""
    return f"{number} ".ljust(size, "x")


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


def _value(number: int, size: int) -> bytes:
    return _json({"value": text(number, size)})


def _agent(name: str, **more: Any) -> bytes:
    configured = {"llm_config": _LLM, "embedding_config": _EMBEDDING, "include_base_tools": False}
    return _json({"name": name, **configured, **more})


def set_up(target: Target, blocks: int, connections: int) -> tuple[Scene, Played]:
    """Make what the operations need. Raises `Unreachable` if the server refuses."""
    scene, total = Scene(run=os.urandom(3).hex()), Played()

    def make(path: str, bodies: list[bytes], into: list[str]) -> None:
        waiting = iter(bodies)
        played = play(target, [_create_all(path, waiting, into) for _ in range(_SETTERS)])
        if len(into) < len(bodies):
            raise Unreachable(f"POST {path} was answered: {played.refusal}")
        total.add(played)

    def values(label: str, count: int, size: int) -> list[bytes]:
        return [_json({"label": f"{label} {scene.run} {n}", "value": text(n, size)}) for n in range(count)]

    few = max(connections, SHARERS)
    make(_BLOCKS, values("block", blocks, KILOBYTE), scene.blocks)
    make(_BLOCKS, values("large", min(16, blocks), LARGE), scene.large)
    make(_BLOCKS, values("free", few, KILOBYTE), scene.free)
    shared: list[str] = []
    make(_BLOCKS, [_json({"label": "shared", "value": text(0, KILOBYTE)})], shared)
    scene.shared = shared[0]
    memory = [{"label": "memory", "value": text(0, KILOBYTE)}]
    named = [_agent(f"agent {scene.run} {n}", memory_blocks=memory) for n in range(few)]
    make(_AGENTS, named, scene.agents)
    named = [_agent(f"sharer {scene.run} {n}", block_ids=shared) for n in range(SHARERS)]
    make(_AGENTS, named, scene.sharers)
    return scene, total


def _create_all(path: str, bodies: Iterator[bytes], into: list[str]) -> Script:
    for body in bodies:
        reply = yield Ask("set up", "POST", path, body)
        if not reply.ok:
            return
        into.append(json.loads(reply.body)["id"])


# -- operations -------------------------------------------------------------------------------------------------

Operation = Callable[[Scene, int], Script]


def retrieve(scene: Scene, number: int) -> Script:
    """One block of 1 KB after the other."""
    for place in itertools.count(number * 31):
        yield Ask("retrieve", "GET", _BLOCKS + scene.blocks[place % len(scene.blocks)])


def retrieve_large(scene: Scene, number: int) -> Script:
    """One block of 20 KB after the other."""
    for place in itertools.count(number):
        yield Ask("retrieve_large", "GET", _BLOCKS + scene.large[place % len(scene.large)])


def list_page(scene: Scene, number: int) -> Script:
    """Pages of 50 blocks, from the first on, and round again."""
    pages = max(1, len(scene.blocks) // PAGE)
    for place in itertools.count(number):
        after = scene.blocks[place % pages * PAGE - 1] if place % pages else ""
        yield Ask("list", "GET", f"{_BLOCKS}?limit={PAGE}{f'&after={after}' if after else ''}")


def update(scene: Scene, number: int) -> Script:
    """The whole value of 1 KB, of one block after the other; connections meet on a block by chance alone."""
    for place in itertools.count(number * 31):
        path = _BLOCKS + scene.blocks[place % len(scene.blocks)]
        yield Ask("update", "PATCH", path, _value(place, KILOBYTE))


def retrieve_by_label(scene: Scene, number: int) -> Script:
    """One of an agent's blocks; an agent for each connection."""
    path = f"{_AGENTS}{scene.agents[number % len(scene.agents)]}/core-memory/blocks/memory"
    while True:
        yield Ask("retrieve_by_label", "GET", path)


def update_by_label(scene: Scene, number: int) -> Script:
    """One of an agent's blocks; an agent for each connection."""
    path = f"{_AGENTS}{scene.agents[number % len(scene.agents)]}/core-memory/blocks/memory"
    for turn in itertools.count():
        yield Ask("update_by_label", "PATCH", path, _value(turn, KILOBYTE))


def attach_detach(scene: Scene, number: int) -> Script:
    """A block of each connection's own, to its agent and away again."""
    place = number % len(scene.agents)
    path = f"{_AGENTS}{scene.agents[place]}/core-memory/blocks"
    while True:
        reply = yield Ask("attach", "PATCH", f"{path}/attach/{scene.free[place]}")
        if reply.ok:
            yield Ask("detach", "PATCH", f"{path}/detach/{scene.free[place]}")


def update_shared(scene: Scene, number: int) -> Script:
    """One block that eight agents hold, by each of them through its own memory."""
    path = f"{_AGENTS}{scene.sharers[number % SHARERS]}/core-memory/blocks/shared"
    for turn in itertools.count(number * 1_000_000):
        yield Ask("update_shared", "PATCH", path, _value(turn, KILOBYTE))


def create(scene: Scene, number: int) -> Script:
    """A new block of 1 KB."""
    for turn in itertools.count():
        name = f"new {scene.run} {os.getpid()} {number} {turn}"
        yield Ask("create", "POST", _BLOCKS, _json({"label": name, "value": text(turn, KILOBYTE)}))


def create_agent(scene: Scene, number: int) -> Script:
    """A new agent with a block of its own of 1 KB."""
    memory = [{"label": "memory", "value": text(0, KILOBYTE)}]
    for turn in itertools.count():
        name = f"new {scene.run} {os.getpid()} {number} {turn}"
        yield Ask("create_agent", "POST", _AGENTS, _agent(name, memory_blocks=memory))


OPERATIONS: dict[str, Operation] = {
    "retrieve": retrieve,
    "retrieve_large": retrieve_large,
    "list": list_page,
    "update": update,
    "retrieve_by_label": retrieve_by_label,
    "update_by_label": update_by_label,
    "attach_detach": attach_detach,
    "update_shared": update_shared,
    "create": create,
    "create_agent": create_agent,
}
"""In the order in which they run: those that make more of what lists go through come last."""

TITLES = {
    "retrieve": "retrieve a block, 1 KB",
    "retrieve_large": "retrieve a block, 20 KB",
    "list": "list 50 blocks",
    "update": "update a block, 1 KB",
    "retrieve_by_label": "retrieve by label",
    "update_by_label": "update by label",
    "attach_detach": "attach and detach",
    "update_shared": "update one block of eight agents",
    "create": "create a block, 1 KB",
    "create_agent": "create an agent",
}


def last_step(operation: str) -> str:
    """The request whose answers are counted: an operation of two is done when its second is."""
    return "detach" if operation == "attach_detach" else operation


def scripts(operation: str, scene: Scene) -> Callable[[int], Script]:
    """The scripts of an operation, by number of connection; can be sent to another process."""
    return partial(OPERATIONS[operation], scene)


def first_answer(target: Target) -> Reply | None:
    """The answer to one request for a page of one block, or None while nobody listens."""
    found: list[Reply] = []

    def script() -> Script:
        found.append((yield Ask("first", "GET", f"{_BLOCKS}?limit=1")))

    try:
        play(target, [script()])
    except Unreachable:
        return None
    return found[0] if found else None
