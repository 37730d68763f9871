"""A small workspace in which every table has rows and every field a canary, and what each principal sees of it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import raw_rows
from force import all_look_anew

from attack.reading import Place, watched
from attack.turn import READS, keep
from tallystone.errors import NotFound, TallystoneError
from tallystone.store.tables import TABLES
from tallystone.vault import Vault, Workspace
from tallystone.vault.types import Agent, Block, Credentials

DATABASE = "tallystone.db"
REPLY_KEY = b"an equal request"
CANARY = "Zinnober"
"""Every canary begins so, in text. Only sealed fields hold one."""


@dataclass
class Scene:
    """Where the workspace lies, who gets in how, what exists, and an older copy of the database."""

    folder: Path
    older: Path
    tokens: dict[str, str] = field(default_factory=dict)
    ids: dict[str, str] = field(default_factory=dict)
    kits: dict[str, str] = field(default_factory=dict)
    secrets: list[str] = field(default_factory=list)
    leaves: int = 0
    reads: dict[str, set[Place]] = field(default_factory=dict)

    def canary(self, what: str) -> str:
        """A text that is found nowhere else."""
        text = f"{CANARY}{what}Q{len(self.secrets)}x"
        self.secrets.append(text)
        return text


def build(folder: Path) -> Scene:
    """The scene, closed again."""
    scene = Scene(folder, folder.with_name(folder.name + "-older"))
    s = scene.canary
    workspace, alice_made = Workspace.init(folder, s("alice"))
    made = {"alice": alice_made}
    v = workspace.vault(alice_made.token)
    for name in ("bob", "carol", "dave"):
        made[name] = v.add_user(s(name))
    bob, dave = workspace.vault(made["bob"].token), workspace.vault(made["dave"].token)

    def block(vault: Vault, name: str, **more: Any) -> str:
        one = vault.create_block(
            label=s("label"),
            value=s("value"),
            description=s("description"),
            tags=[s("tag")],
            metadata={s("key"): [s("item"), 7, None, 1.5]},
            extra={"project_id": s("extra")},
            **more,
        )
        scene.ids[name] = one.id
        return one.id

    team, private = block(v, "team"), block(v, "private")
    block(v, "fixed", read_only=True)
    block(v, "gone")
    v.revoke_token(v.create_token(label=s("token"))[6:22])
    scene.tokens["alice-read"] = v.create_token(
        scope="read", label=s("token"), expires=datetime.now(UTC) + timedelta(days=900)
    )
    state = {
        "system": s("prompt"),
        "description": s("agent"),
        "tags": [s("tag")],
        "tools": ["memory_insert"],
        "llm_config": {"model": s("model")},
    }
    memory = [{"label": s("persona"), "value": s("value"), "description": s("description")}]
    a1 = v.create_agent(
        {**state, "name": s("agent")}, block_ids=[team, scene.ids["fixed"]], memory_blocks=memory
    )
    a2 = v.create_agent({"name": s("agent")}, block_ids=[team], access="read")
    a3 = v.create_agent({"name": s("agent")}, block_ids=[private])
    scene.ids |= {"a1": a1.id, "a2": a2.id, "a3": a3.id}
    scene.tokens["a1"] = v.agent_token(a1.id, label=s("token"))
    v.share(team, made["bob"].principal, "write")
    v.share(team, made["dave"].principal, "write")
    dave = workspace.vault(made["dave"].token)
    dave.accept_offer(team)
    bob = workspace.vault(made["bob"].token)
    bob.accept_offer(team)
    v.edit_agent_block(a1.id, v.block(team).label, lambda b: {"value": s("value")}, as_agent=True)
    dave.edit_block(team, lambda b: {"value": s("value")})
    b1 = bob.create_agent({**state, "name": s("agent")}, block_ids=[team])
    scene.ids["b1"] = b1.id
    block(bob, "bobs")
    bob.edit_agent_block(b1.id, v.block(team).label, lambda b: {"value": s("value")}, as_agent=True)
    workspace.close()
    raw_rows.copy(folder, scene.older)
    workspace = Workspace.open(folder)
    v, bob = workspace.vault(made["alice"].token), workspace.vault(made["bob"].token)
    v.revoke(team, made["dave"].principal)
    v.detach(a3.id, private)
    v.edit_block(private, lambda b: {"value": s("value"), "label": s("label")})
    bob.edit_block(team, lambda b: {"value": s("value"), "description": s("description")})
    v.edit_agent(a1.id, lambda a: {"system": s("prompt")})
    v.delete_agent(a3.id)
    v.delete_block(scene.ids["gone"])
    v.share(private, made["bob"].principal, "read")  # an offer on bob's shelf
    workspace.vault(made["bob"].token)
    v.share(private, made["carol"].principal, "write")  # a capsule that waits
    bob.share(scene.ids["bobs"], made["carol"].principal, "write", until=date(2999, 1, 1))
    v.set_charter(max_grants=9_000)
    v.set_charter(levels=["public", "internal", "confidential", "restricted", "sealed"])
    v.invite(s("invited"), clearance="internal", days=365)
    v.edit_block(team, lambda b: {"limit": 5000})
    _with_roles_and_days(scene, workspace, made)
    keep(v, scene.ids["a1"], s)
    v.send_message(scene.ids["a1"], scene.ids["a2"], s("message"))
    for vault, what in ((bob, scene.ids["fixed"]), (v, scene.ids["bobs"])):
        with suppress(NotFound):
            vault.block(what)
    again = workspace.vault(made["alice"].token)
    again.once(REPLY_KEY, 0, lambda result: result.value.encode())
    again.edit_block(private, lambda b: {"value": s("value")})
    workspace.denied({"code": "unauthenticated"})
    for name, credentials in made.items():
        scene.tokens[name], scene.kits[name], scene.ids[name] = (
            credentials.token,
            credentials.kit,
            credentials.principal,
        )
    workspace.close()
    empty = [t.name for t in TABLES if not rows(folder / DATABASE, f"SELECT count(*) FROM {t.name}")[0][0]]
    scene.leaves = rows(folder / DATABASE, "SELECT size FROM log_head")[0][0]
    assert not empty, f"the scene leaves tables empty: {empty}"
    return scene


def _with_roles_and_days(scene: Scene, workspace: Workspace, made: dict[str, Credentials]) -> None:
    """What goes beyond a block's direct grants: roles with members, a sharer, days on which things end, a block that is
    being handed over; and a membership that waits."""
    s, ids = scene.canary, scene.ids

    def vault(name: str) -> Vault:
        return workspace.vault(made[name].token)

    v, end = vault("alice"), datetime.now(UTC).date() + timedelta(days=400)
    for name in ("bob", "carol"):
        v.set_clearance(made[name].principal, "internal")
    crew = v.create_role(s("role"), description=s("description"), clearance="internal")
    outer = v.create_role(s("role"), description=s("description"))
    ids |= {"crew": crew.id, "outer": outer.id}
    v.add_members(crew.id, [made["bob"].principal])
    v.add_members(outer.id, [crew.id, ids["a1"]])
    vault("bob").accept_offer(crew.id)
    shared = v.create_block(
        label=s("label"), value=s("value"), description=s("description"), sensitivity="internal"
    )
    led = vault("carol").create_block(label=s("label"), value=s("value"), expires=end)
    ids |= {"shared": shared.id, "led": led.id}
    v.share(shared.id, crew.id, "write")
    vault("bob").edit_block(shared.id, lambda b: {"value": s("value")})
    vault("carol").share(led.id, made["bob"].principal, "write+share", depth=1)
    vault("bob").accept_offer(led.id)
    vault("bob").share(led.id, made["alice"].principal, "write", until=end - timedelta(days=9))
    vault("alice").accept_offer(led.id)
    v.edit_block(led.id, lambda b: {"value": s("value")})
    v.add_members(crew.id, [made["carol"].principal], until=end)  # a capsule that waits
    third = v.create_block(label=s("label"), value=s("value"))
    ids["third"] = third.id
    v.share(third.id, outer.id, "read")
    v.transfer(third.id, made["carol"].principal)


def rows(database: Path, sql: str, *bound: Any) -> list[tuple[Any, ...]]:
    """What a plain connection reads."""
    connection = raw_rows.connect(database)
    try:
        return list(connection.execute(sql, bound).fetchall())
    finally:
        connection.close()


@contextmanager
def raw(database: Path) -> Iterator[Any]:
    """A connection to write with, past everything that Tallystone checks."""
    connection = raw_rows.connect(database)
    try:
        yield connection
    finally:
        connection.close()
        all_look_anew()


# -- what a principal sees --------------------------------------------------------------------------------------


def _content(block: Block) -> tuple[Any, ...]:
    return (
        block.label,
        block.value,
        block.description,
        tuple(block.tags),
        repr(block.metadata),
        repr(block.extra),
        block.version,
        block.created_at,
        block.updated_at,
        block.updated_by,
        block.updated_under,
    )


def _settings(block: Block) -> tuple[Any, ...]:
    policy = block.sensitivity, repr(block.allowed), block.expires, block.mutable, block.append_only
    return (
        block.id, block.limit, block.read_only, block.locked, block.owner, block.rights, block.through,
        block.offered, policy,
    )  # fmt: skip


def _block(block: Block) -> tuple[Any, ...]:
    return _settings(block), _content(block)


def _agent(agent: Agent) -> tuple[Any, ...]:
    return agent.id, agent.name, repr(sorted(agent.state.items())), agent.version, agent.sponsor


def _kept(answer: Any) -> set[Any]:
    """What an agent keeps, a fact for each record."""
    records = answer if isinstance(answer, list) else [answer]
    found = [one[2] if isinstance(one, tuple) else one for one in records]
    return {(one["id"], repr(sorted(one.items()))) for one in found}


def _named(facts: set[tuple[Any, ...]]) -> set[tuple[Any, ...]]:
    """Who is called what as facts of their own: a name whose row is gone is missing, not wrong."""
    return {(who, *rest) for who, _, *rest in facts} | {(who, name) for who, name, *_ in facts if name}


Seen = dict[str, Any]
"""{question: answer}: a set of facts, or the error that refused it."""


def look(
    workspace: Workspace,
    scene: Scene,
    *,
    events: bool = False,
    asked: Callable[[str], bool] = lambda _: True,
) -> Seen:
    """Ask everything as every principal, or of it what is to be `asked`. Facts are sets: what is missing and what is
    wrong can be told apart. Coming in is a part of each question, so who is asked nothing need not come in."""
    seen: Seen = {}
    for who, token in scene.tokens.items():
        if scene.reads and not any(asked(name) for name in scene.reads if name.partition(" ")[0] == who):
            continue
        try:
            vault = workspace.vault(token)
        except TallystoneError as error:
            seen[who] = error
            continue
        for name, question in _questions(vault, scene, who).items():
            if (name == "events") > events or not asked(f"{who} {name}"):
                continue
            try:
                seen[f"{who} {name}"] = question()
            except TallystoneError as error:
                seen[f"{who} {name}"] = error
    return seen


def reads(scene: Scene, spare: Path, names: Iterable[str]) -> dict[str, set[Place]]:
    """{question: what it reads}: each asked alone, of a copy of its own at `spare`, from opening the workspace on."""
    found = {}
    for name in names:
        who, _, what = name.partition(" ")
        raw_rows.copy(scene.folder, spare)
        with watched() as watch, Workspace.open(spare) as workspace:
            _questions(workspace.vault(scene.tokens[who]), scene, who)[what]()
        shutil.rmtree(spare)
        found[name] = watch.read
    return found


def _questions(v: Vault, scene: Scene, who: str) -> dict[str, Callable[[], set[Any]]]:
    blocks = [scene.ids[n] for n in ("team", "private", "fixed", "bobs", "shared", "led", "third")]
    agents = [scene.ids[n] for n in ("a1", "a2", "b1")]

    def read(one: str) -> set[Any]:
        try:
            block = v.block(one)
        except NotFound:
            return set()
        return {_block(block), *(("agent_ids", one, agent) for agent in block.agent_ids)}

    def of_agent(one: str) -> set[Any]:
        try:
            agent = v.agent(one)
        except NotFound:
            return set()
        return {_agent(agent), *((one, _block(b)) for b in agent.blocks)}

    def roles() -> set[Any]:
        found: set[Any] = set()
        for one in v.roles():
            found.add((one.id, one.name, one.description, one.owner, one.clearance, one.history, one.mine))
            found |= {(one.id, member.principal, member.until) for member in v.role(one.id).members}
        return found

    questions: dict[str, Callable[[], set[Any]]] = {
        **{f"block {place}": partial(read, one) for place, one in enumerate(blocks)},
        "blocks": lambda: {_block(b) for b in v.blocks(need_agents=False)},
        **{f"agent {place}": partial(of_agent, one) for place, one in enumerate(agents)},
        "agents": lambda: {_agent(a) for a in v.agents(with_blocks=False)},
        "events": lambda: {
            (e.seq, e.kind, e.actor, e.under, repr(e.detail))
            for e in v.events(200, after=0)
            if e.seq < scene.leaves
        },
    }
    if v.kind == "user" and v.scope == "full":
        questions |= {
            "users": lambda: {(u.id, u.name, u.status) for u in v.users()},
            "tokens": lambda: {
                (t.kid, t.principal, t.scope, t.created, t.expires, t.label) for t in v.tokens()
            },
            "offers": lambda: _named(
                {(o.owner, o.owner_name, o.block_id, o.label, o.can, o.kind) for o in v.offers()}
            ),
            "access": lambda: _named(
                {(a.principal, a.name, a.block_id, a.label, a.rights, a.through) for a in v.access()}
            ),
            "roles": roles,
            "charter": lambda: {repr(v.charter())},
        }
    if who in ("alice", "alice-read", "a1"):

        def of_turns(ask: Callable[[str], Callable[[Vault], Any]]) -> Callable[[], set[Any]]:
            return lambda: _kept(ask(scene.ids["a1"])(v))

        questions |= {name: of_turns(ask) for name, ask in READS.items()}
    if who == "alice":
        questions["grants"] = lambda: _named(
            {
                (g.recipient, g.name, one, g.number, g.can, g.parent)
                for one in blocks[:2]
                for g in v.grants(one)
            }
        )
        questions["once"] = lambda: {v.once(REPLY_KEY, 1, lambda _: b"")} - {None}
    return questions
