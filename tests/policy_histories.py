"""Random histories of a block and the roles around it: who is there, what they do honestly, what both judges say to it.

What people do dishonestly is in `policy_attacks.py`.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import naive_policy
from naive_policy import Claim, Granted, Person, Roster, Statement, Step, Writing
from policy_told import Told, bits, standing

from tallystone import policy

OWNER, BOB, CAROL, DAVE = "user-owner", "user-bob", "user-carol", "user-dave"
USERS = (OWNER, BOB, CAROL, DAVE)
AGENTS = {"agent-owners": OWNER, "agent-bobs": BOB, "agent-carols": CAROL}
ROLES = {"role-outer": BOB, "role-inner": BOB, "role-carols": CAROL}
TODAY, STEPS = 20_000, 18
RIGHTS = tuple(frozenset(one.split()) for one in ("read", "write", "share", "write share", "read write"))


@dataclass
class RoleBook:
    """A role as its owner keeps it: the members now, and every head that was ever signed."""

    name: str
    owner: str
    record: int = 0
    given: int = 0
    members: dict[int, Granted] = field(default_factory=dict)
    heads: list[Roster] = field(default_factory=list)

    def publish(self) -> Roster:
        """Sign a head of the members now."""
        head = Roster(self.name, self.owner, len(self.heads), self.record, dict(self.members))
        self.heads.append(head)
        return head


class History:
    """One history, told to both judges. Every step is tried on both, and what is allowed happens to both."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.people = {who: Person("user", "", [self.level()]) for who in USERS}
        self.people |= {who: Person("agent", user, [self.level()]) for who, user in AGENTS.items()}
        self.people |= {who: Person("role", user, [self.level()]) for who, user in ROLES.items()}
        self.roles = {who: RoleBook(who, user) for who, user in ROLES.items()}
        for role in self.roles.values():
            role.publish()
        mode = self.chance.choice(("free", "free", "free", "growing", "fixed"))
        settings = self.first_settings()
        self.naive = naive_policy.Block(OWNER, settings, self.people, mode)
        self.told = Told(OWNER, settings, self.people, mode)
        self.said: list[Statement] = []
        self.shown: list[Claim] = []
        self.names = 0
        self.log: list[str] = []
        self.counts: Counter[tuple[str, bool]] = Counter()
        self.write(self.writing(Claim(OWNER)), "write")

    # -- chance -------------------------------------------------------------------------------------------------

    def often(self, share: float) -> bool:
        """True in this share of cases."""
        return self.chance.random() < share

    def level(self) -> int | None:
        """A clearance."""
        return self.chance.choice((None, 0, 1, 2, 3, 3))

    def name(self, what: str) -> str:
        """A name that nothing else has."""
        self.names += 1
        return f"{what} {self.names}"

    def anybody(self) -> str:
        """Any principal."""
        return self.chance.choice(tuple(self.people))

    def first_settings(self) -> dict[str, Any]:
        """Settings of a new block: most have no policy."""
        settings: dict[str, Any] = {"limit": 100, "read_only": False, "locked": False}
        if self.often(0.3):
            settings["sensitivity"] = self.chance.choice((1, 2, 3))
        if self.often(0.3):
            settings["allowed"] = self.chance.sample(tuple(self.people), self.chance.choice((0, 2, 5, 8)))
        return settings

    # -- roles --------------------------------------------------------------------------------------------------

    def change_role(self) -> None:
        """Somebody joins a role or leaves it, or somebody's clearance changes."""
        role = self.chance.choice(tuple(self.roles.values()))
        if self.often(0.15):
            self.clear(self.anybody())
        elif role.members and self.often(0.35):
            del role.members[self.chance.choice(tuple(role.members))]
            self.renew(role)
        else:
            who = self.anybody()
            if who.startswith("role-"):
                role, who = self.roles["role-outer"], "role-inner"
            role.given += 1
            until = self.chance.choice((None, None, None, TODAY, TODAY - 1))
            newest = len(self.people[who].clearances) - 1
            role.members[role.given] = Granted(
                who, frozenset({"read"}), until=until, record=newest, key=role.given
            )
            role.publish()

    def clear(self, who: str) -> None:
        """Give somebody another clearance: a new record."""
        if who in self.roles:
            self.renew(self.roles[who])
        else:
            self.people[who].clearances.append(self.level())

    def renew(self, role: RoleBook) -> None:
        """A new root for a role that somebody has left, and for the roles that it is in."""
        clearances = self.people[role.name].clearances
        clearances.append(clearances[-1])
        role.record += 1
        role.publish()
        for outer in self.roles.values():
            inner = {number: one for number, one in outer.members.items() if one.to == role.name}
            if inner:
                renewed = {number: replace(one, record=role.record) for number, one in inner.items()}
                outer.members.update(renewed)
                self.renew(outer)

    # -- ways to the block --------------------------------------------------------------------------------------

    def ways(self, who: str) -> Iterator[Claim]:
        """Every honest way by which somebody comes to the block now, expired ones too."""
        books = self.naive.now.books
        if who == self.naive.now.owner:
            yield Claim(who)
        for number, grant in books.items():
            beside = {other: one for other, one in books.items() if other != number}
            for steps in self.through(who, grant):
                yield Claim(who, number, grant, beside, steps)

    def through(self, who: str, grant: Granted) -> Iterator[tuple[Step, ...]]:
        """The ways from a grant, or a membership, to somebody."""
        if grant.to == who:
            yield ()
        role = self.roles.get(grant.to)
        if role is None:
            return
        head = role.heads[-1]
        if role.owner == who:
            yield (Step(head),)
        for number, member in role.members.items():
            for rest in self.through(who, member):
                yield (Step(head, number, member), *rest)

    def way(self) -> Claim:
        """How somebody who has a way comes to the block."""
        owner = self.naive.now.owner
        for _ in range(6):
            who = self.anybody()
            ways = list(self.ways(who)) if who != owner or self.often(0.5) else []
            if ways:
                return self.chance.choice(ways)
        return Claim(owner)

    # -- honest statements --------------------------------------------------------------------------------------

    def statement(self, kind: str, by: Claim, **fields: Any) -> Statement:
        """A statement that changes nothing but what `fields` say."""
        now, newest = self.naive.now, self.naive.writings[-1] if self.naive.writings else None
        stated = Statement(
            kind, self.name(kind), by.who, by, now.number + 1, now.name,
            (newest.number, newest.name) if newest else (0, ""), now.owner, now.books, now.next, now.settings,
            now.epoch, now.admin,
        )  # fmt: skip
        due = by.who != now.owner and (now.due or kind == "revocation")
        return replace(stated, **{"due": due and fields.get("epoch", now.epoch) == now.epoch, **fields})

    def propose(self) -> Statement:
        """What somebody would like to do next, and mostly may."""
        by, now = self.way(), self.naive.now
        if now.settings.get("transfer") and self.often(0.5):
            return self.taking_over(now.settings["transfer"][0])
        if by.who == now.owner:
            make = self.chance.choices(
                (self.granting, self.revoking, self.rotating, self.setting), (5, 1, 1, 3)
            )[0]
        else:
            make = self.chance.choices((self.granting, self.revoking, self.rotating), (5, 3, 2))[0]
        return make(by)

    def granting(self, by: Claim) -> Statement:
        """A grant to anybody, cut down to what its giver holds."""
        now, own, chance = self.naive.now, by.grant, self.chance
        who = self.anybody()
        if own is not None and self.often(0.4):
            agents = [agent for agent, user in AGENTS.items() if user == by.who]
            who = chance.choice(agents) if agents else who
        rights, depth = chance.choice(RIGHTS), 0
        until = chance.choice((None, None, TODAY - 1, TODAY, TODAY + 3))
        history = self.often(0.7)
        if "share" in rights or self.often(0.1):
            depth = chance.choice((0, 1, 2))
        if own is not None and by.who != now.owner:
            held = own.rights | {"read"} if own.depth else (own.rights | {"read"}) - {"share"}
            rights = (rights & held) or frozenset({"read"})
            depth = min(depth, own.depth - 1) if "share" in rights else 0
            until = own.until if until is None or own.until is None else min(until, own.until)
            history = history and own.history
        wanted = Granted(
            who, rights, 0 if by.who == now.owner else by.number, until, depth, history,
            len(self.people[who].clearances) - 1, now.next,
        )  # fmt: skip
        return self.statement(
            "grant", by, added=(now.next, wanted), books={**now.books, now.next: wanted}, next=now.next + 1
        )

    def subtree(self, number: int) -> list[tuple[int, Granted]]:
        """A grant with all that was given through it, parents first."""
        books = self.naive.now.books
        found = {number: books[number]}
        for below in sorted(
            books
        ):  # numbers only grow; what an owner stated out of order is left where it is
            if books[below].through in found and below not in found:
                found[below] = books[below]
        return list(found.items())

    def revoking(self, by: Claim) -> Statement:
        """A revocation of what was given through one's own grant; the owner's of anything, with new keys."""
        now = self.naive.now
        mine = [n for n, one in now.books.items() if by.who == now.owner or one.through == by.number]
        if not mine:
            return self.granting(by)
        gone = self.subtree(self.chance.choice(mine))
        left = {number: grant for number, grant in now.books.items() if number not in dict(gone)}
        rotates = by.who == now.owner or (by.grant is not None and self.often(0.2))
        epoch = now.epoch + 1 if rotates else now.epoch
        return self.statement("revocation", by, books=left, gone=tuple(gone), epoch=epoch, rotated=rotates)

    def rotating(self, by: Claim) -> Statement:
        """New keys: plain, or with a list of every grant as it is from now on."""
        now = self.naive.now
        plain = self.statement("policy", by, rotated=True, epoch=now.epoch + 1)
        if self.often(0.4):
            return plain
        key = 100 * (now.number + 1)
        listed = tuple(
            (number, grant, len(self.people[grant.to].clearances) - 1, key + number)
            for number, grant in now.books.items()
        )
        books = {number: replace(grant, record=new, key=fresh) for number, grant, new, fresh in listed}
        admin = now.number + 1 if self.often(0.3) else now.admin
        return replace(plain, renewed=listed, books=books, admin=admin)

    def setting(self, by: Claim) -> Statement:
        """Another setting: the owner's business."""
        return self.statement("policy", by, settings=self.other_settings(self.naive.now.settings))

    def other_settings(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Settings of which one is another."""
        after, chance = dict(settings), self.chance
        which = chance.choice(("read_only", "locked", "limit", "sensitivity", "allowed", "transfer"))
        if which in ("read_only", "locked"):
            after[which] = not after[which] and self.often(0.6)
        elif which == "limit":
            after["limit"] += 1
        elif which in after:
            del after[which]
        elif which == "sensitivity":
            after[which] = chance.choice((1, 2, 3))
        elif which == "allowed":
            after[which] = chance.sample(tuple(self.people), chance.choice((0, 2, 5)))
        else:
            after[which] = [chance.choice((BOB, CAROL, DAVE))]
        return after

    def taking_over(self, who: str) -> Statement:
        """The link of somebody who becomes the owner."""
        now = self.naive.now
        settings = {k: v for k, v in now.settings.items() if k not in ("transfer", "seat")}
        left = {number: grant for number, grant in now.books.items() if grant.to != who}
        return self.statement(
            "transfer", Claim(who), owner=who, settings={**settings, "seat": now.next}, books=left,
            next=now.next + 1, epoch=now.epoch + 1, admin=now.number + 1, rotated=True,
        )  # fmt: skip

    def writing(self, by: Claim) -> Writing:
        """A version by somebody, under the latest statement."""
        before = self.naive.writings[-1] if self.naive.writings else None
        seen = dict(before.seen) if before else {}
        for step in by.via:
            seen[step.roster.role] = step.roster.serial
        grown = f"{before.value}+{self.names}" if before else ""
        value = "" if self.naive.mode == "fixed" else grown
        now = self.naive.now
        return Writing(
            self.name("version"), before.number + 1 if before else 1, by.who, by, (now.number, now.name), seen, value
        )  # fmt: skip

    # -- judging ------------------------------------------------------------------------------------------------

    def state(self, said: Statement, how: str) -> bool:
        """Let both judge a statement."""
        before = self.naive.now.books
        expected = self.naive.allowed(said, TODAY)
        self.log.append(f"{how}: {said}, {expected}")
        assert self.told.allowed(said, before, TODAY) == expected, how
        self.shown.append(said.by)
        self.counts[how, expected] += 1
        if expected:
            self.naive.take(said)
            self.said.append(said)
        return expected

    def write(self, made: Writing, how: str) -> bool:
        """Let both judge a version."""
        expected = self.naive.counts(made)
        self.log.append(f"{how}: {made}, {expected}")
        assert self.told.counts(made) == expected, how
        self.shown.append(made.by)
        self.counts[how, expected] += 1
        if expected:
            self.naive.writings.append(made)
        return expected

    def compare(self) -> None:
        """Everybody's rights by every way that was ever shown, today and later; and the newest version."""
        newest = self.naive.writings[-1]
        assert self.told.stands(newest) == self.naive.stands(newest)
        now, head = self.naive.now, self.told.head
        assert (head.owner, head.number, head.due) == (now.owner, now.number, now.due)
        ways = [way for who in self.people for way in self.ways(who)]
        for claim in [*ways, *self.chance.sample(self.shown, min(6, len(self.shown)))]:
            stands = standing(claim)
            for today in (TODAY, TODAY + 1):
                expected = bits(self.naive.rights(now, claim, today))
                assert policy.rights(head, stands, today) == expected, (claim, today)
