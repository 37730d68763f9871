"""Three users and their agents do as they please; a model in plain dicts says what each of them must then read.

The model knows names, rights and who gave what to whom. It knows no keys, epochs, statements, capsules or rows.
`TALLYSTONE_LONG=1` runs many more examples.
"""

from __future__ import annotations

import os
import random
import shutil
import sys
import tempfile
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from stores import POSTGRESQL

from tallystone.errors import Denied, Invalid, Locked, NotFound, Taken, TallystoneError
from tallystone.vault import Vault, Workspace

T = TypeVar("T")

LONG = bool(os.environ.get("TALLYSTONE_LONG"))
USERS = ("alice", "bob", "carol")
MOST_AGENTS, MOST_BLOCKS = 5, 5

RIGHTS = st.sampled_from(("read", "write"))
USER = st.sampled_from(USERS)
PICK = st.integers(0, 10**6)


# -- the model --------------------------------------------------------------------------------------------------


@dataclass
class Granted:
    to: str
    can: str
    through: int


@dataclass
class Thing:
    """A block. `due`: a grantee took its placement back, and only the owner can change the keys."""

    owner: str
    label: str
    value: str
    read_only: bool = False
    locked: bool = False
    due: bool = False
    version: int = 1
    given: int = 0
    grants: dict[int, Granted] = field(default_factory=dict)


@dataclass
class Row:
    """What somebody has of a block: through which grant (0: owns it), and whether it was accepted."""

    through: int
    accepted: bool


class Refused(Exception):
    """The model's word for an error, by the class that the vault must raise."""


class Model:
    def __init__(self) -> None:
        self.blocks: dict[str, Thing] = {}
        self.shelf: dict[tuple[str, str], Row] = {}
        self.waiting: dict[str, list[tuple[str, int, int]]] = {}
        self.sponsor: dict[str, str] = {}

    # -- looking

    def right(self, who: str, block: str, *, offered: bool = False) -> str | None:
        """`owner`, `write`, `read`, or None for the miss."""
        row, thing = self.shelf.get((who, block)), self.blocks.get(block)
        if row is None or thing is None or row.accepted is offered:
            return None
        if row.through == 0:
            return "owner"
        grant = thing.grants.get(row.through)
        return grant.can if grant else None

    def must(self, who: str, block: str) -> tuple[str, Thing]:
        held = self.right(who, block)
        if held is None:
            raise Refused(NotFound)
        return held, self.blocks[block]

    def readable(self, who: str) -> dict[str, str]:
        found = {block: self.right(who, block) for block in self.blocks}
        return {block: held for block, held in found.items() if held}

    def offers(self, user: str) -> set[tuple[str, str]]:
        mine = [user, *(agent for agent, sponsor in self.sponsor.items() if sponsor == user)]
        return {(who, block) for who in mine for block in self.blocks if self.right(who, block, offered=True)}

    def opens(self, who: str) -> None:
        """Somebody comes by: what was sent to them lies on their shelf now."""
        for block, number, replaces in self.waiting.pop(who, []):
            thing, row = self.blocks.get(block), self.shelf.get((who, block))
            if thing is None or number not in thing.grants:
                continue  # taken back before it was looked at
            if row and row.through == replaces:
                self.shelf[who, block] = Row(number, row.accepted)
            elif not self.right(who, block):
                self.shelf[who, block] = Row(number, False)

    # -- changing

    def edit(self, who: str, block: str, value: str) -> None:
        held, thing = self.must(who, block)
        if held == "read" or (thing.read_only and who in self.sponsor):
            raise Refused(Denied)
        if thing.locked:
            raise Refused(Locked)
        self.written(held, thing)
        thing.value = value

    def set(self, who: str, block: str, name: str, value: bool) -> None:
        held, thing = self.must(who, block)
        if getattr(thing, name) == value:
            return
        if held != "owner":
            raise Refused(Denied)
        self.written(held, thing)
        setattr(thing, name, value)

    def written(self, held: str, thing: Thing) -> None:
        if held == "owner":
            thing.due = False
        if thing.due:
            raise Refused(Locked)
        thing.version += 1

    def give(self, thing: Thing, to: str, can: str, through: int) -> int:
        thing.given += 1
        thing.grants[thing.given] = Granted(to, can, through)
        return thing.given

    def end(self, who_held: str, thing: Thing, numbers: list[int]) -> list[int]:
        gone = list(numbers)
        for number in gone:
            gone += [n for n, grant in thing.grants.items() if grant.through == number]
        for number in gone:
            thing.grants.pop(number, None)
        thing.due = who_held != "owner"
        return gone

    def mine_to_end(self, who: str, block: str, to: str) -> list[int]:
        through = self.shelf[who, block].through
        grants = self.blocks[block].grants
        return [n for n, g in grants.items() if g.to == to and (through == 0 or g.through == through)]

    def share(self, user: str, block: str, to: str, can: str) -> None:
        row = self.shelf.get((user, block))
        if row is None or not row.accepted:
            raise Refused(NotFound)
        if to == user:
            raise Refused(Invalid)
        held, thing = self.must(user, block)
        own_agent = self.sponsor.get(to) == user
        if held != "owner" and (not own_agent or (held, can) == ("read", "write")):
            raise Refused(Denied)
        known = self.mine_to_end(user, block, to)
        if any(thing.grants[n].can == can for n in known):
            raise Refused(Taken)
        if known:
            self.unshare(user, block, to, known)
        if own_agent:
            self.put(user, to, block, can)
        else:
            if held == "owner":
                thing.due = False
            number = self.give(thing, to, can, 0)
            self.waiting.setdefault(to, []).append((block, number, known[0] if known else -1))

    def unshare(self, user: str, block: str, to: str, numbers: list[int]) -> None:
        held, thing = self.must(user, block)
        gone = self.end(held, thing, numbers)
        row = self.shelf.get((to, block))
        if self.sponsor.get(to) == user and row and row.through in gone:
            del self.shelf[to, block]

    def put(self, user: str, agent: str, block: str, can: str) -> None:
        held, thing = self.must(user, block)
        if held == "owner":
            thing.due = False
        number = self.give(thing, agent, "read" if held == "read" else can, self.shelf[user, block].through)
        self.shelf[agent, block] = Row(number, True)

    def revoke(self, user: str, block: str, to: str) -> None:
        _, thing = self.must(user, block)
        if to == thing.owner:
            raise Refused(Invalid)
        if not any(grant.to == to for grant in thing.grants.values()):
            raise Refused(NotFound)
        given = self.mine_to_end(user, block, to)
        if not given:
            raise Refused(Denied)
        self.unshare(user, block, to, given)

    def accept(self, user: str, block: str) -> None:
        mine = [user, *(agent for agent, sponsor in self.sponsor.items() if sponsor == user)]
        for who in mine:
            row = self.shelf.get((who, block))
            if row and not row.accepted:
                if self.right(who, block, offered=True) is None:
                    raise Refused(NotFound)
                row.accepted = True
                return
        raise Refused(NotFound)

    def decline(self, user: str, block: str) -> None:
        held = self.shelf.get((user, block))
        if held and held.accepted and held.through:
            del self.shelf[user, block]  # what was accepted may be put away again
            return
        mine = [user, *(agent for agent, sponsor in self.sponsor.items() if sponsor == user)]
        for who in mine:
            row = self.shelf.get((who, block))
            if row and not row.accepted:
                del self.shelf[who, block]
                return
        raise Refused(NotFound)

    def attach(self, user: str, agent: str, block: str, can: str) -> None:
        if self.sponsor.get(agent) != user:
            raise Refused(NotFound)
        held, _ = self.must(user, block)
        can = "read" if held == "read" else can
        there = self.right(agent, block)
        if there == can:
            return
        if there:
            self.detach(user, agent, block)
        self.put(user, agent, block, can)

    def detach(self, user: str, agent: str, block: str) -> None:
        row = self.shelf.get((agent, block))
        if self.sponsor.get(agent) != user or row is None or not row.accepted:
            raise Refused(NotFound)
        del self.shelf[agent, block]
        mine, thing = self.shelf.get((user, block)), self.blocks.get(block)
        # What somebody else gave to the agent is theirs to end; here it only leaves the agent's shelf.
        if mine is None or thing is None or (mine.through and mine.through not in thing.grants):
            return
        grant = thing.grants.get(row.through)
        if grant and mine.through in (0, grant.through):
            self.end("owner" if mine.through == 0 else "grantee", thing, [row.through])

    def delete(self, user: str, block: str) -> None:
        held, thing = self.must(user, block)
        if held != "owner":
            raise Refused(Denied)
        if thing.locked:
            raise Refused(Locked)
        self.forget(block)

    def forget(self, block: str) -> None:
        thing = self.blocks.pop(block)
        del self.shelf[thing.owner, block]
        for grant in thing.grants.values():
            if self.sponsor.get(grant.to) == thing.owner:
                self.shelf.pop((grant.to, block), None)

    def delete_agent(self, user: str, agent: str) -> None:
        if self.sponsor.get(agent) != user:
            raise Refused(NotFound)
        for who, block in list(self.shelf):
            if who == agent and self.shelf[who, block].accepted:
                self.detach(user, agent, block)
        self.shelf = {key: row for key, row in self.shelf.items() if key[0] != agent}
        self.waiting.pop(agent, None)
        del self.sponsor[agent]


# -- the machine ------------------------------------------------------------------------------------------------


class Sharing(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(
            tempfile.mkdtemp(prefix="tallystone-machine-", dir=os.environ.get("PYTEST_DEBUG_TEMPROOT"))
        )
        self.workspace, root = Workspace.init(self.folder / "data", "alice")
        self.tokens = {"alice": root.token}
        self.ids = {"alice": root.principal}
        founder = self.workspace.vault(root.token)
        for name in USERS[1:]:
            made = founder.add_user(name)
            self.tokens[name], self.ids[name] = made.token, made.principal
        self.model = Model()
        self.numbers = count()
        self.told: Counter[str] = Counter()
        self.gone: list[str] = [f"block-{uuid.uuid4()}"]
        self.gone_agents: list[str] = [f"agent-{uuid.uuid4()}"]

    def teardown(self) -> None:
        try:
            assert self.workspace.verify().findings == []
        finally:
            self.workspace.close()
            shutil.rmtree(self.folder)

    # -- speaking to both

    def vault(self, who: str) -> Vault:
        """Whoever it is comes by; users are known by name, agents by id, each agent under its sponsor's token."""
        user = self.model.sponsor.get(who, who)
        vault = self.workspace.vault(self.tokens[user])
        self.model.opens(user)
        if who != user:
            vault = vault.acting_as(who)
            self.model.opens(who)
        return vault

    def both(self, told: Callable[[], Any], done: Callable[[], Any]) -> Any:
        """Let the model say what must happen, the vault do it, and hold the one against the other."""
        expected: type[Exception] | None = None
        try:
            told()
        except Refused as refused:
            expected = refused.args[0]
        what = f"{sys._getframe(1).f_code.co_name}: {expected.__name__ if expected else 'done'}"
        self.told[what] += 1
        if expected is None:
            return done()
        with pytest.raises(TallystoneError) as raised:
            done()
        assert type(raised.value) is expected, raised.value
        return None

    def choose(self, pick: int, options: Sequence[T]) -> T:
        """One of them, for `pick`: spread out, since Hypothesis likes small numbers."""
        return options[random.Random(pick).randrange(len(options))]

    def block(self, pick: int) -> str:
        """A block: one of those that are there, now and then one that is not."""
        return self.choose(
            pick, [*self.model.blocks, *self.model.blocks, *self.model.blocks, *self.gone[-2:]]
        )

    def agent(self, pick: int) -> str:
        return self.choose(pick, [*self.model.sponsor, *self.model.sponsor, self.gone_agents[-1]])

    def anybody(self, pick: int) -> str:
        return self.choose(pick, [*USERS, *self.model.sponsor])

    def holding(self, pick: int, *, users: bool = False) -> tuple[str, str]:
        """Somebody and a block: mostly one who reads it, now and then any two."""
        everybody = USERS if users else (*USERS, *self.model.sponsor)
        held = [(who, block) for who in everybody for block in self.model.readable(who)]
        if not held or pick % 5 == 0:
            return self.choose(pick, everybody), self.block(pick + 1)
        return self.choose(pick, held)

    def fresh(self) -> str:
        return f"v{next(self.numbers)}"

    # -- what they do

    @initialize()
    def each_user_has_an_agent_and_a_block(self) -> None:
        for user in USERS:
            self.make_agent(user)
        self.make_block("alice")
        self.make_block("bob")

    def make_agent(self, user: str) -> None:
        agent = self.vault(user).create_agent({"name": self.fresh()})
        self.model.sponsor[agent.id] = user

    def make_block(self, user: str) -> None:
        label, value = f"label-{self.fresh()}", self.fresh()
        made = self.vault(user).create_block(label=label, value=value)
        self.model.blocks[made.id] = Thing(user, label, value)
        self.model.shelf[user, made.id] = Row(0, True)

    @precondition(lambda self: len(self.model.blocks) < MOST_BLOCKS)
    @rule(user=USER)
    def create(self, user: str) -> None:
        self.make_block(user)

    @precondition(lambda self: len(self.model.sponsor) < MOST_AGENTS)
    @rule(user=USER)
    def create_agent(self, user: str) -> None:
        self.make_agent(user)

    @rule(pick=PICK)
    def edit(self, pick: int) -> None:
        (name, which), value = self.holding(pick), self.fresh()
        vault = self.vault(name)
        self.both(
            lambda: self.model.edit(name, which, value),
            lambda: vault.edit_block(which, lambda _: {"value": value}),
        )

    @rule(pick=PICK, as_agent=st.booleans())
    def edit_by_label(self, pick: int, as_agent: bool) -> None:
        (name, which), value = self.holding(pick), self.fresh()
        if name not in self.model.sponsor or which not in self.model.blocks:
            return
        user, label = self.model.sponsor[name], self.model.blocks[which].label
        vault = self.vault(user)

        def told() -> None:
            self.model.must(name, which)
            acts = name if as_agent or self.model.right(user, which) is None else user
            self.model.edit(acts, which, value)

        row = self.model.shelf.get((user, which))
        if not as_agent and row and row.accepted and self.model.right(user, which) is None:
            return  # the user's own grant is dead but its row is there: a miss, told apart from the agent's by nobody
        self.both(
            told,
            lambda: vault.edit_agent_block(name, label, lambda _: {"value": value}, as_agent=as_agent),
        )

    @rule(
        pick=PICK, name=st.sampled_from(("read_only", "locked")), value=st.sampled_from((False, False, True))
    )
    def change_settings(self, pick: int, name: str, value: bool) -> None:
        actor, which = self.holding(pick)
        vault = self.vault(actor)
        self.both(
            lambda: self.model.set(actor, which, name, value),
            lambda: vault.edit_block(which, lambda _: {name: value}),
        )

    def given(self, user: str, which: str, recipient: str, can: str) -> None:
        vault = self.vault(user)
        self.both(
            lambda: self.model.share(user, which, recipient, can),
            lambda: vault.share(which, self.ids.get(recipient, recipient), can),
        )

    @rule(pick=PICK, to=PICK, can=RIGHTS)
    def share(self, pick: int, to: int, can: str) -> None:
        user, which = self.holding(pick, users=True)
        self.given(user, which, self.anybody(to), can)

    @precondition(lambda self: self.model.blocks)
    @rule(block=PICK, to=PICK, can=RIGHTS)
    def owner_shares(self, block: int, to: int, can: str) -> None:
        which = self.block(block)
        if which in self.model.blocks:
            self.given(self.model.blocks[which].owner, which, self.anybody(to), can)

    @rule(user=USER)
    def accept_all(self, user: str) -> None:
        vault = self.vault(user)
        for _, block in sorted(self.model.offers(user)):
            if self.model.right(user, block, offered=True):
                self.both(
                    lambda block=block: self.model.accept(user, block),
                    lambda block=block: vault.accept_offer(block),
                )

    @rule(pick=PICK, to=PICK)
    def revoke(self, pick: int, to: int) -> None:
        (user, which), recipient = self.holding(pick, users=True), self.anybody(to)
        thing = self.model.blocks.get(which)
        if thing and thing.grants and to % 5:
            recipient = self.choose(to, [grant.to for grant in thing.grants.values()])
            if recipient not in (*USERS, *self.model.sponsor):
                return  # an agent that was ended since, by somebody who could not revoke it
        vault = self.vault(user)
        self.both(
            lambda: self.model.revoke(user, which, recipient),
            lambda: vault.revoke(which, self.ids.get(recipient, recipient)),
        )

    @rule(user=USER, block=PICK)
    def accept(self, user: str, block: int) -> None:
        which = self.block(block)
        vault = self.vault(user)
        self.both(lambda: self.model.accept(user, which), lambda: vault.accept_offer(which))

    @rule(user=USER, block=PICK)
    def decline(self, user: str, block: int) -> None:
        which = self.block(block)
        vault = self.vault(user)
        self.both(lambda: self.model.decline(user, which), lambda: vault.decline_offer(which))

    def users_agent(self, user: str, pick: int) -> str:
        mine = [agent for agent, sponsor in self.model.sponsor.items() if sponsor == user]
        return self.choose(pick, mine) if mine and pick % 5 else self.agent(pick)

    @rule(pick=PICK, agent=PICK, can=RIGHTS)
    def attach(self, pick: int, agent: int, can: str) -> None:
        user, which = self.holding(pick, users=True)
        name = self.users_agent(user, agent)
        vault = self.vault(user)
        self.both(lambda: self.model.attach(user, name, which, can), lambda: vault.attach(name, which, can))

    @rule(pick=PICK, user=PICK)
    def detach(self, pick: int, user: int) -> None:
        name, which = self.holding(pick)
        by = self.model.sponsor.get(name, self.choose(user, USERS))
        vault = self.vault(by)
        self.both(lambda: self.model.detach(by, name, which), lambda: vault.detach(name, which))

    @rule(user=USER, block=PICK)
    def delete(self, user: str, block: int) -> None:
        which = self.block(block)
        vault = self.vault(user)
        self.both(lambda: self.model.delete(user, which), lambda: vault.delete_block(which))
        if which not in self.model.blocks:
            self.gone.append(which)

    @precondition(lambda self: len(self.model.sponsor) > 2)
    @rule(user=USER, agent=PICK)
    def delete_agent(self, user: str, agent: int) -> None:
        name = self.agent(agent)
        vault = self.vault(user)
        self.both(lambda: self.model.delete_agent(user, name), lambda: vault.delete_agent(name))
        if name not in self.model.sponsor:
            self.gone_agents.append(name)

    # -- what each of them then reads

    @invariant()
    def everybody_reads_what_the_model_says_and_misses_the_rest(self) -> None:
        for who in (*USERS, *self.model.sponsor):
            vault = self.vault(who)
            expected = self.model.readable(who)
            listed = {block.id: block for block in vault.blocks()}
            assert {block: one.rights for block, one in listed.items()} == expected, who
            for block in (*self.model.blocks, *self.gone[-2:]):
                if block not in expected:
                    with pytest.raises(NotFound):
                        vault.block(block)
                    continue
                thing, read = self.model.blocks[block], vault.block(block)
                if expected[block] == "owner":
                    thing.due = False  # an owner who reads changes the keys that are due
                assert (read.label, read.value, read.version) == (thing.label, thing.value, thing.version)
                assert (read.read_only, read.locked) == (thing.read_only, thing.locked)
                assert (listed[block].value, listed[block].version) == (thing.value, thing.version)

    @invariant()
    def offers_are_listed_as_such_and_nowhere_else(self) -> None:
        for user in USERS:
            vault = self.vault(user)
            for agent, sponsor in self.model.sponsor.items():
                if sponsor == user:
                    self.model.opens(agent)
            names = {principal: name for name, principal in self.ids.items()}
            found = {(names.get(o.recipient, o.recipient), o.block_id) for o in vault.offers()}
            assert found == self.model.offers(user), user

    @invariant()
    def an_owner_sees_every_live_grant(self) -> None:
        names = {principal: name for name, principal in self.ids.items()}
        for block, thing in self.model.blocks.items():
            live = self.vault(thing.owner).grants(block)
            assert {(g.number, names.get(g.recipient, g.recipient), g.can, g.parent) for g in live} == {
                (number, grant.to, grant.can, grant.through) for number, grant in thing.grants.items()
            }


Sharing.TestCase.settings = settings(
    max_examples=60 if LONG else 2 if POSTGRESQL else 6,
    stateful_step_count=50 if LONG else 25,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


# Hypothesis makes this base class while the program runs, so mypy does not know it.
class TestEveryReadAgreesWithTheModel(Sharing.TestCase):  # type: ignore[name-defined,misc]
    """What pytest collects."""


LIVES, STEPS = (40, 120) if LONG else (1 if POSTGRESQL else 2, 60)


def live(machine: Sharing, chance: random.Random) -> Counter[str]:
    """A long life: Hypothesis prefers short ones. Returns what was done, and what was refused."""
    pick = partial(chance.randrange, 10**6)
    user, can = partial(chance.choice, USERS), partial(chance.choice, ("read", "write"))
    setting, value = partial(chance.choice, ("read_only", "locked")), lambda: chance.random() < 0.3
    acts: list[tuple[int, Callable[[], None]]] = [
        (4, lambda: machine.edit(pick())),
        (3, lambda: machine.edit_by_label(pick(), chance.random() < 0.7)),
        (1, lambda: machine.change_settings(pick(), setting(), value())),
        (3, lambda: machine.owner_shares(pick(), pick(), can())),
        (3, lambda: machine.share(pick(), pick(), can())),
        (2, lambda: machine.revoke(pick(), pick())),
        (2, lambda: machine.accept_all(user())),
        (1, lambda: machine.accept(user(), pick())),
        (1, lambda: machine.decline(user(), pick())),
        (3, lambda: machine.attach(pick(), pick(), can())),
        (2, lambda: machine.detach(pick(), pick())),
        (1, lambda: machine.delete(user(), pick()) if len(machine.model.blocks) > 2 else machine.create(user())),
        (1, lambda: machine.create(user()) if len(machine.model.blocks) < MOST_BLOCKS else None),
        (1, lambda: machine.create_agent(user()) if len(machine.model.sponsor) < MOST_AGENTS else None),
        (1, lambda: machine.delete_agent(user(), pick()) if len(machine.model.sponsor) > 2 else None),
    ]  # fmt: skip
    weights = [weight for weight, _ in acts]
    machine.each_user_has_an_agent_and_a_block()
    for _ in range(STEPS):
        ((_, act),) = chance.choices(acts, weights)
        act()
        machine.everybody_reads_what_the_model_says_and_misses_the_rest()
        machine.offers_are_listed_as_such_and_nowhere_else()
        machine.an_owner_sees_every_live_grant()
    return machine.told


@pytest.mark.parametrize("seed", range(LIVES))
def test_a_long_life_agrees_with_the_model_too(seed: int) -> None:
    machine = Sharing()
    try:
        told = live(machine, random.Random(seed))
    finally:
        machine.teardown()
    # It was a life, not a series of refusals.
    assert told["edit: done"] > 3 and told["given: done"] > 3 and told["attach: done"] > 1, told
