"""Four users share, pass on, revoke, hand over and let things end, by themselves and through roles; a model in plain
dicts says who must then read what, and who may write it.

Members trust each other here, and nobody gets a block from two at once, so that offers and their order play no part:
`test_state_machine` has those, and agents. `TALLYSTONE_LONG=1` runs many more lives.
"""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path

import pytest
from stores import POSTGRESQL

from tallystone.errors import NotFound, TallystoneError
from tallystone.vault import Vault, Workspace

LONG = bool(os.environ.get("TALLYSTONE_LONG"))
LIVES, STEPS = (60, 150) if LONG else (1 if POSTGRESQL else 2, 50)
USERS = ("alice", "bob", "carol", "dave")
RIGHTS = ("read", "write", "share", "write+share")
DAY = 86400


@dataclass
class Given:
    """A live grant. `until` in the model's days."""

    to: str
    can: str
    parent: int
    until: int | None
    depth: int


@dataclass
class Thing:
    """A block."""

    owner: str
    value: str
    grants: dict[int, Given] = field(default_factory=dict)
    heir: str = ""
    heirs_grant: int = 0


@dataclass
class Group:
    """A role, its members with their last days."""

    owner: str
    members: dict[str, int | None] = field(default_factory=dict)


class Life:
    """The model, the workspace, and what they do."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.folder = Path(
            tempfile.mkdtemp(prefix="tallystone-rights-", dir=os.environ.get("PYTEST_DEBUG_TEMPROOT"))
        )
        self.workspace, root = Workspace.init(self.folder / "data", "alice")
        self.now = self.workspace.clock()
        self.workspace.clock = lambda: self.now
        self.tokens, self.ids = {"alice": root.token}, {"alice": root.principal}
        for name in USERS[1:]:
            made = self.vault("alice").add_user(name)
            self.tokens[name], self.ids[name] = made.token, made.principal
        self.vault("alice").set_charter(trust=True)
        self.blocks: dict[str, Thing] = {}
        self.roles: dict[str, Group] = {}
        self.gone: list[str] = []
        self.told: Counter[str] = Counter()
        self.count = 0

    def close(self) -> None:
        """Check the log, and clear up."""
        try:
            assert self.workspace.verify().findings == []
            for name in USERS:
                assert self.vault(name).inspect().findings == []
        finally:
            self.workspace.close()
            shutil.rmtree(self.folder)

    def vault(self, who: str) -> Vault:
        """Whoever it is comes by."""
        return self.workspace.vault(self.tokens[who])

    @property
    def today(self) -> int:
        """The day."""
        return int(self.now // DAY)

    def day(self, number: int | None) -> date | None:
        """As the vault wants it."""
        return None if number is None else date(1970, 1, 1) + timedelta(number)

    def fresh(self) -> str:
        """A text that was not there."""
        self.count += 1
        return f"v{self.count}"

    # -- what the model says ------------------------------------------------------------------------------------

    def lives(self, until: int | None) -> bool:
        """Whether a day is not over."""
        return until is None or until >= self.today

    def in_roles(self, who: str) -> set[str]:
        """The roles that somebody is in, through however many others."""
        found = {role for role, group in self.roles.items() if group.owner == who}
        pending = [who, *found]
        while pending:
            one = pending.pop()
            for role, group in self.roles.items():
                if role not in found and one in group.members and self.lives(group.members[one]):
                    found.add(role)
                    pending.append(role)
        return found

    def holds(self, who: str, block: str) -> list[str]:
        """What somebody holds of a block, by every live grant."""
        thing = self.blocks[block]
        if thing.owner == who:
            return ["owner"]
        reached = {who, *self.in_roles(who)}
        return [g.can for g in thing.grants.values() if g.to in reached and self.lives(g.until)]

    def below(self, thing: Thing, number: int) -> set[int]:
        """A grant and its subtree."""
        found = {number}
        while more := {n for n, g in thing.grants.items() if g.parent in found} - found:
            found |= more
        return found

    def free(self, block: str) -> list[str]:
        """Who holds nothing of a block by a grant of its own, whether or not it has ended."""
        thing = self.blocks[block]
        held = {grant.to for grant in thing.grants.values()} | {thing.owner, thing.heir}
        return [one for one in (*USERS, *self.roles) if one not in held]

    # -- what they do -------------------------------------------------------------------------------------------

    def create(self) -> None:
        """A block."""
        who, value = self.dice.choice(USERS), self.fresh()
        made = self.vault(who).create_block(label=value, value=value)
        self.blocks[made.id] = Thing(who, value)

    def make_role(self) -> None:
        """A role."""
        who = self.dice.choice(USERS)
        self.roles[self.vault(who).create_role(self.fresh()).id] = Group(who)

    def share(self) -> None:
        """The owner, or a sharer who may, gives a block to somebody who has none of it."""
        block, thing = self.dice.choice([*self.blocks.items()])
        free = self.free(block)
        if not free:
            return
        to, can = self.dice.choice(free), self.dice.choice(RIGHTS)
        until = self.dice.choice((None, None, self.today + self.dice.randrange(3)))
        depth = self.dice.randrange(3) if "share" in can else 0
        givers = [
            (n, g)
            for n, g in thing.grants.items()
            if g.to in USERS
            and "share" in g.can
            and self.lives(g.until)
            and len(self.holds(g.to, block)) == 1
        ]
        parent, giver = 0, thing.owner
        if givers and self.dice.random() < 0.6:
            parent, own = self.dice.choice(givers)
            giver = own.to
            words = set(can.split("+")) - {"read"}
            exceeds = (
                not words <= set(own.can.split("+"))
                or ("share" in words and own.depth == 0)
                or depth > max(0, own.depth - 1)
                or (own.until is not None and (until is None or until > own.until))
            )
            if exceeds:
                with pytest.raises(TallystoneError) as refusal:
                    self.vault(giver).share(block, self.named(to), can, until=self.day(until), depth=depth)
                assert refusal.value.code in ("exceeds", "no_share"), refusal.value
                self.told["refused share"] += 1
                return
        made = self.vault(giver).share(block, self.named(to), can, until=self.day(until), depth=depth)
        assert (made.can, made.parent, made.depth) == (can, parent, depth)
        thing.grants[made.number] = Given(to, can, parent, until, depth)
        if to in self.roles:
            self.vault(self.roles[to].owner).offers()  # whose mail the role's is
        else:
            self.vault(to)
        self.told["share" if not parent else "pass on"] += 1

    def named(self, who: str) -> str:
        """A name or a role's id."""
        return who if who in self.roles else self.ids[who]

    def revoke(self) -> None:
        """The owner, or whoever gave it, ends a grant."""
        block, thing = self.dice.choice([*self.blocks.items()])
        live = [n for n, g in thing.grants.items() if self.lives(g.until) and n != thing.heirs_grant]
        if not live:
            return
        number = self.dice.choice(live)
        grant, by = thing.grants[number], thing.owner
        parent = thing.grants.get(grant.parent)
        if parent is not None and parent.to in USERS and self.dice.random() < 0.5:
            if not self.lives(parent.until) or len(self.holds(parent.to, block)) != 1:
                return
            by = parent.to
        self.vault(by).revoke(block, self.named(grant.to))
        for one in self.below(thing, number):
            thing.grants.pop(one, None)
        self.told["revoke" if by == thing.owner else "revoke own subtree"] += 1

    def edit(self) -> None:
        """Somebody writes, if it may."""
        block, who, value = self.dice.choice([*self.blocks]), self.dice.choice(USERS), self.fresh()
        if self.dice.random() < 0.6:
            who = self.dice.choice([one for one in USERS if self.holds(one, block)])
        held = self.holds(who, block)
        mixed = any("write" in one for one in held) and not all("write" in one for one in held)
        if mixed:
            return  # two grants, each with something that the other has not
        if any("write" in one or one == "owner" for one in held):
            self.vault(who).edit_block(block, lambda _: {"value": value})
            self.blocks[block].value = value
            self.told["edit"] += 1
            return
        with pytest.raises(TallystoneError) as refusal:
            self.vault(who).edit_block(block, lambda _: {"value": value})
        assert refusal.value.code == ("no_write" if held else "not_found"), refusal.value

    def add_member(self) -> None:
        """A role's owner lets in a user, or one of its own roles."""
        if not self.roles:
            return
        role, group = self.dice.choice([*self.roles.items()])
        own = [r for r, g in self.roles.items() if g.owner == group.owner and role not in self._inside(r)]
        options = [
            one for one in (*USERS, *own) if one not in (role, group.owner) and one not in group.members
        ]
        if not options:
            return
        who, until = self.dice.choice(options), self.dice.choice((None, None, self.today + 1))
        self.vault(group.owner).add_members(role, [self.named(who)], until=self.day(until))
        group.members[who] = until
        if who in USERS:
            self.vault(who)
        self.told["add"] += 1

    def _inside(self, role: str) -> set[str]:
        """A role, and those that are members of it, through however many others."""
        found = {role}
        while more := {m for one in found for m in self.roles[one].members if m in self.roles} - found:
            found |= more
        return found

    def remove_member(self) -> None:
        """And puts it out."""
        inside = [(r, m) for r, g in self.roles.items() for m in g.members if self.lives(g.members[m])]
        if not inside:
            return
        role, who = self.dice.choice(inside)
        self.vault(self.roles[role].owner).remove_member(role, self.named(who))
        del self.roles[role].members[who]
        self.told["remove"] += 1

    def delete_role(self) -> None:
        """A role ends, with what it was given and gave."""
        if len(self.roles) < 3:
            return
        role = self.dice.choice([*self.roles])
        self.vault(self.roles[role].owner).delete_role(role)
        del self.roles[role]
        for group in self.roles.values():
            group.members.pop(role, None)
        for thing in self.blocks.values():
            for number in [n for n, g in thing.grants.items() if g.to == role]:
                for one in self.below(thing, number):
                    thing.grants.pop(one, None)
        self.told["delete role"] += 1

    def hand_over(self) -> None:
        """An owner names an heir, who takes the block; or it is taken back."""
        block, thing = self.dice.choice([*self.blocks.items()])
        options = [one for one in self.free(block) if one in USERS]
        if not options:
            return
        heir = self.dice.choice(options)
        self.vault(thing.owner).transfer(block, heir)
        if self.dice.random() < 0.3:
            self.vault(thing.owner).cancel_transfer(block)
            self.told["cancel"] += 1
            return
        self.vault(heir).accept_transfer(block)
        thing.owner = heir
        self.told["transfer"] += 1

    def pass_days(self) -> None:
        """Time goes on; the server may notice."""
        self.now += DAY
        if self.dice.random() < 0.6:
            self.workspace.purge()
        self.told["day"] += 1

    def delete(self) -> None:
        """A block ends."""
        if len(self.blocks) < 4:
            return
        block = self.dice.choice([*self.blocks])
        self.vault(self.blocks[block].owner).delete_block(block)
        del self.blocks[block]
        self.gone.append(block)

    # -- and then -----------------------------------------------------------------------------------------------

    def differences(self) -> Iterator[str]:
        """Where somebody's own view is not the model's."""
        for who in USERS:
            vault = self.vault(who)
            expected = {block: thing.value for block, thing in self.blocks.items() if self.holds(who, block)}
            listed = {block.id: block.value for block in vault.blocks()}
            if listed != expected:
                yield f"{who} lists {listed}, and should {expected}"
            for block in (*self.blocks, *self.gone[-1:]):
                try:
                    seen = vault.block(block).value
                except NotFound:
                    seen = None
                if seen != expected.get(block):
                    yield f"{who} sees {seen} of {block}, and should {expected.get(block)}"
            if {role.id for role in vault.roles()} != self.in_roles(who):
                yield f"{who} is in {vault.roles()}, and should be in {self.in_roles(who)}"

    def live(self) -> None:
        """Some steps, each followed by a look by everybody."""
        acts: list[tuple[int, Callable[[], None]]] = [
            (1, self.create), (1, self.make_role), (6, self.share), (3, self.revoke), (6, self.edit),
            (4, self.add_member), (2, self.remove_member), (1, self.delete_role), (1, self.hand_over),
            (1, self.pass_days), (1, self.delete),
        ]  # fmt: skip
        for _ in range(3):
            self.create()
            self.make_role()
        for step in range(STEPS):
            ((_, act),) = self.dice.choices(acts, [weight for weight, _ in acts])
            act()
            for complaint in self.differences():
                raise AssertionError(f"step {step}, {act.__name__}: {complaint}")


@pytest.mark.parametrize("seed", range(LIVES))
def test_a_life_with_roles_days_and_heirs_agrees_with_the_model(seed: int) -> None:
    life = Life(seed)
    try:
        life.live()
    finally:
        life.close()
    assert life.told["share"] > 3 and life.told["edit"] > 1 and life.told["add"] > 1, life.told
