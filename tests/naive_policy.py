"""The rules of rights a second time, as a person would tell them: names, sets, and no cryptography.

It shares nothing with `tallystone.policy`; `test_policy_histories.py` lets both judge the same random histories. What
is stated here says in plain words what a signed statement says in hashes: a root is the books themselves, a proof is
what lay beside a grant when it was made, a digest is a name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

ROLES_DEEP = 8


@dataclass(frozen=True)
class Granted:
    """One grant: to whom, under which of its records (counted from 0), on which terms. `key` tells renewals apart."""

    to: str
    rights: frozenset[str]
    through: int = 0
    until: int | None = None
    depth: int = 0
    history: bool = True
    record: int = 0
    key: int = 0


Books = Mapping[int, Granted]


@dataclass(frozen=True)
class Roster:
    """Who is in a role, by its owner's word. It goes with the role's record number `record`; `record_of` is the role
    whose record that is: its own, unless the owner signs nonsense."""

    role: str
    owner: str
    serial: int
    record: int
    members: Books
    record_of: str = ""


@dataclass(frozen=True)
class Step:
    """How somebody comes through one role: as the member with this number, or as its owner (no member)."""

    roster: Roster
    number: int = 0
    member: Granted | None = None


@dataclass(frozen=True)
class Claim:
    """How somebody says to come to the block: by this grant at this number, which lay beside these others."""

    who: str
    number: int = 0
    grant: Granted | None = None
    beside: Books = field(default_factory=dict)
    via: tuple[Step, ...] = ()


@dataclass(frozen=True)
class Statement:
    """A step of the block's policy, as its issuer states it. `on` is the version that it was made on."""

    kind: str
    name: str
    issuer: str
    by: Claim
    number: int
    follows: str
    on: tuple[int, str]
    owner: str
    books: Books
    next: int
    settings: Mapping[str, Any]
    epoch: int
    admin: int
    added: tuple[int, Granted] | None = None
    gone: tuple[tuple[int, Granted], ...] = ()
    renewed: tuple[tuple[int, Granted, int, int], ...] | None = None
    rotated: bool = False
    due: bool = False
    block: str = "block-1"


@dataclass(frozen=True)
class Writing:
    """A version, as its writer states it. `seen` are serials of role heads, `cites` number and name of a statement."""

    name: str
    number: int
    writer: str
    by: Claim
    cites: tuple[int, str]
    seen: Mapping[str, int]
    value: str
    rest: str = ""
    block: str = "block-1"


@dataclass(frozen=True)
class State:
    """What holds after one statement."""

    number: int
    name: str
    owner: str
    books: Books
    next: int
    settings: Mapping[str, Any]
    epoch: int
    admin: int
    on: tuple[int, str]
    due: bool = False


@dataclass
class Person:
    """A principal and the clearance in each of its records, the newest last."""

    kind: str
    sponsor: str = ""
    clearances: list[int | None] = field(default_factory=lambda: [None])


class Block:
    """Who may do what with one block. `mode` is what its genesis fixed: `free`, `fixed` (empty) or `growing`."""

    def __init__(self, owner: str, settings: Mapping[str, Any], people: dict[str, Person], mode: str) -> None:
        self.people, self.mode = people, mode
        self.states = [State(0, "genesis", owner, {}, 1, settings, 0, 0, (0, ""))]
        self.writings: list[Writing] = []

    @property
    def now(self) -> State:
        """What holds at present."""
        return self.states[-1]

    # -- rights -------------------------------------------------------------------------------------------------

    def rights(self, state: State, claim: Claim, today: int) -> set[str]:
        """What somebody may do by what they claim. The owner may do everything and need not show how."""
        if claim.who == state.owner:
            return {"read", "write", "share"}
        grant = claim.grant
        if grant is None or state.books.get(claim.number) != grant:
            return set()
        others = {number: one for number, one in state.books.items() if number != claim.number}
        if others != {number: one for number, one in claim.beside.items() if number != claim.number}:
            return set()
        if ended(grant, today) or not self.comes(claim, today):
            return set()
        return set(grant.rights) | ({"read"} if grant.rights else set())

    def comes(self, claim: Claim, today: int) -> bool:
        """Whether the grant is somebody's own, or a role's that they are in, or a role's in that role, and so on."""
        at, ways = claim.grant, list(claim.via)
        if len(ways) > ROLES_DEEP:
            return False
        while ways:
            step = ways.pop(0)
            roster = step.roster
            if at is None or at.to != roster.role or roster.record_of not in ("", roster.role):
                return False
            if not 0 <= at.record <= roster.record:  # somebody has left the role since this head was signed
                return False
            if step.member is None:
                return not ways and claim.who == roster.owner
            if roster.members.get(step.number) != step.member or ended(step.member, today):
                return False
            at = step.member
        return at is not None and at.to == claim.who

    def trusted(self, who: str, record: int) -> int:
        """How sensitive a block may be that is granted to somebody. Nobody's agent is trusted more than they are."""
        person = self.people[who]
        own = person.clearances[record]
        if person.kind != "agent":
            return own or 0
        sponsors = self.people[person.sponsor].clearances[-1] or 0
        return sponsors if own is None else min(own, sponsors)

    def known(self, who: str, record: int) -> bool:
        """Whether there is such a principal and it ever had this record."""
        return who in self.people and 0 <= record < len(self.people[who].clearances)

    def admitted(self, state: State, who: str, record: int) -> bool:
        """Whether the block's settings let it be granted to somebody. Granting it to an agent lets its user in."""
        if self.trusted(who, record) < state.settings.get("sensitivity", 0):
            return False
        if "allowed" not in state.settings:
            return True
        allowed = state.settings["allowed"]
        person = self.people[who]
        if person.kind != "agent":
            return who in allowed
        user_is_in = person.sponsor in allowed
        return user_is_in or (person.sponsor == state.owner and who in allowed)

    # -- statements ---------------------------------------------------------------------------------------------

    def allowed(self, said: Statement, today: int) -> bool:
        """Whether the issuer might state this now."""
        now = self.now
        if (said.block, said.number, said.follows) != ("block-1", now.number + 1, now.name):
            return False
        if said.on[0] < now.on[0] or (said.on[0] == now.on[0] and said.on[1] != now.on[1]):
            return False
        if said.kind == "transfer":
            return self._may_take_over(said)
        if said.kind not in ("grant", "revocation", "policy"):
            return False
        if said.issuer == now.owner:
            return said.owner == now.owner and said.next >= now.next and said.epoch >= now.epoch
        held = self.rights(now, said.by, today)
        if said.by.who != said.issuer or not held:
            return False
        if said.owner != now.owner or not same(said.settings, now.settings):
            return False
        if said.epoch == now.epoch and (now.due or said.kind == "revocation") and not said.due:
            return False
        may = {"grant": self._may_grant, "revocation": self._may_revoke, "policy": self._may_rotate}
        return may[said.kind](said, held)

    def _may_take_over(self, said: Statement) -> bool:
        now = self.now
        if now.settings.get("transfer") != [said.issuer] or said.owner != said.issuer:
            return False
        after = {**now.settings, "seat": now.next}
        del after["transfer"]
        return same(said.settings, after) and said.next == now.next + 1 and said.epoch == now.epoch + 1

    def _may_grant(self, said: Statement, held: set[str]) -> bool:
        now, own = self.now, said.by.grant
        if said.added is None or own is None:
            return False
        number, wanted = said.added
        if number != now.next or number in now.books or said.next != number + 1:
            return False
        if said.books != {**now.books, number: wanted} or said.epoch != now.epoch or said.admin != now.admin:
            return False
        if wanted.through != said.by.number or wanted.to in (said.issuer, own.to, now.owner):
            return False
        if not self.known(wanted.to, wanted.record):
            return False
        person = self.people[wanted.to]
        placing = person.kind == "agent" and person.sponsor == said.issuer and not said.by.via
        if "share" not in held and not placing:
            return False
        if not wanted.rights - {"share"} <= held:
            return False
        if "share" in wanted.rights:
            if "share" not in held or not 0 <= wanted.depth < own.depth:
                return False
        elif wanted.depth != 0:
            return False
        if own.until is not None and (wanted.until is None or wanted.until > own.until):
            return False
        if wanted.history and not own.history:
            return False
        return self.admitted(now, wanted.to, wanted.record)

    def _may_revoke(self, said: Statement, held: set[str]) -> bool:
        now, rest, mine = self.now, dict(self.now.books), {said.by.number}
        if said.next != now.next or said.admin != now.admin or not said.gone:
            return False
        with_new_keys = said.epoch == now.epoch + 1 and held & {"write", "share"}
        if said.epoch != now.epoch and not with_new_keys:
            return False
        for number, grant in said.gone:
            if grant.through not in mine or rest.pop(number, None) != grant:
                return False
            mine.add(number)
        return said.books == rest

    def _may_rotate(self, said: Statement, held: set[str]) -> bool:
        now = self.now
        if not held & {"write", "share"} or not said.rotated:
            return False
        if said.admin != now.admin and "share" not in held:
            return False
        if said.epoch != now.epoch + 1 or said.next != now.next:
            return False
        if said.renewed is None:
            return said.books == now.books
        before, after = {}, {}
        for number, grant, record, key in said.renewed:
            if number in before:
                return False
            newer = (
                self.known(grant.to, record) and self.known(grant.to, grant.record) and record > grant.record
            )
            if record != grant.record and not newer:
                return False
            before[number], after[number] = grant, replace(grant, record=record, key=key)
        return before == now.books and after == said.books

    def take(self, said: Statement) -> None:
        """An allowed statement holds from now on."""
        self.states.append(
            State(
                said.number, said.name, said.owner, said.books, said.next, said.settings, said.epoch, said.admin,
                said.on, said.due and said.issuer != said.owner,
            )
        )  # fmt: skip

    # -- versions -----------------------------------------------------------------------------------------------

    def counts(self, made: Writing) -> bool:
        """Whether this would count as the block's newest version, and follow the one before it."""
        return self.stands(made) and self._goes_on(made)

    def stands(self, made: Writing) -> bool:
        """Whether a reader takes this for the block's newest version: it may be read long after it was written."""
        number, name = made.cites
        if made.block != "block-1" or not 0 <= number < len(self.states):
            return False
        cited, later = self.states[number], self.states[number + 1 :]
        if cited.name != name or cited.due or made.number <= cited.on[0]:
            return False
        if any(state.on != (made.number, made.name) for state in later):
            return False
        # Whether a version counts is judged by its chain, not by the day on which it is read.
        if made.writer != made.by.who or "write" not in self.rights(cited, made.by, today=0):
            return False
        if any(made.seen.get(step.roster.role) != step.roster.serial for step in made.by.via):
            return False
        if made.writer != cited.owner:
            if cited.settings["locked"]:
                return False
            if cited.settings["read_only"] and made.writer.startswith("agent-"):
                return False
        return True

    def _goes_on(self, made: Writing) -> bool:
        before = self.writings[-1] if self.writings else None
        heads = dict(before.seen) if before else {}
        for step in made.by.via:
            role, serial = step.roster.role, step.roster.serial
            if role in heads and heads[role] > serial:
                return False
            heads[role] = serial
        if made.seen != heads:
            return False
        if self.mode == "fixed":
            return (made.value, made.rest) == ("", "")
        if self.mode == "growing" and before is not None:
            return made.value.startswith(before.value) and made.rest == before.rest
        return True


def ended(grant: Granted, today: int) -> bool:
    """Whether the day up to which something was granted is over."""
    return grant.until is not None and grant.until < today


def same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether settings are the same to the letter: `0` is not `False`."""
    return one == other and all(type(one[name]) is type(other[name]) for name in one)
