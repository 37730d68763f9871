"""What `naive_policy` says in plain words, as the statements that `tallystone.policy` judges."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from hashlib import sha256
from typing import Any

from naive_policy import Claim, Granted, Person, Statement, Step, Writing

from tallystone import policy
from tallystone.errors import Tampered
from tallystone.grant_tree import grant_proof, grants_root
from tallystone.policy import Head, Party, Standing, Via
from tallystone.statements import (
    EMPTY,
    READ,
    SHARE,
    WRITE,
    Genesis,
    Leaf,
    Link,
    Membership,
    PrincipalRecord,
    Version,
)

BITS = {"read": READ, "write": WRITE, "share": SHARE}


def named(name: str) -> bytes:
    """The digest of whatever has this name; nothing has none."""
    return sha256(name.encode()).digest() if name else EMPTY


def record(who: str, number: int) -> bytes:
    """The hash of a principal's record."""
    return named(f"{who}/{number}")


def bits(rights: frozenset[str] | set[str]) -> int:
    """Rights as a leaf carries them."""
    return sum(BITS[right] for right in rights)


@lru_cache(maxsize=4096)
def leaf(number: int, grant: Granted) -> Leaf:
    """A grant's leaf."""
    salt = grant.key.to_bytes(16, "big")
    return Leaf(
        number, grant.to, record(grant.to, grant.record), bits(grant.rights), grant.history, grant.until, grant.depth,
        grant.through, salt,
    )  # fmt: skip


@lru_cache(maxsize=4096)
def digest(number: int, grant: Granted) -> bytes:
    """The hash of a grant's leaf."""
    return leaf(number, grant).digest


def digests(books: Mapping[int, Granted]) -> dict[int, bytes]:
    """{place: leaf digest}."""
    return {number: digest(number, grant) for number, grant in books.items()}


def root(books: Mapping[int, Granted]) -> bytes:
    """The root over these grants."""
    return _root(frozenset(books.items()))


@lru_cache(maxsize=1024)
def _root(books: frozenset[tuple[int, Granted]]) -> bytes:
    return grants_root(digests(dict(books)))


def path(books: Mapping[int, Granted], number: int) -> list[Any]:
    """The path of a place among these grants."""
    mask, siblings = _path(frozenset(books.items()), number)
    return [mask, list(siblings)]


@lru_cache(maxsize=1024)
def _path(books: frozenset[tuple[int, Granted]], number: int) -> list[Any]:
    return grant_proof(digests(dict(books)), number)


def standing(claim: Claim) -> Standing:
    """How somebody stands who claims this."""
    ways = tuple(via(step) for step in claim.via)
    if claim.grant is None:
        return Standing(claim.who, via=ways)
    own, proof = leaf(claim.number, claim.grant), path(claim.beside, claim.number)
    return Standing(claim.who, own, tuple(proof), ways)


def via(step: Step) -> Via:
    """One role on somebody's way, with the records that its head goes with, as the vault looks them up."""
    roster = step.roster
    whose = roster.record_of or roster.role
    head = Membership(
        roster.role, record(whose, roster.record), roster.serial, root(roster.members), roster.owner,
        record(roster.owner, 0), 1,
    )  # fmt: skip
    records = frozenset(record(whose, number) for number in range(roster.record + 1))
    if step.member is None:
        return Via(head, None, (), records)
    return Via(head, leaf(step.number, step.member), tuple(path(roster.members, step.number)), records)


def payload(value: str, rest: str) -> bytes:
    """The hash of a version's content."""
    return named(f"content {value!r} {rest!r}")


class Told:
    """One block as `tallystone.policy` sees it: the heads of its chain, and the newest version."""

    def __init__(self, owner: str, settings: Mapping[str, Any], people: dict[str, Person], mode: str) -> None:
        self.people = people
        self.genesis = Genesis(
            "block", owner, record(owner, 0), b"n" * 16, 1, mode != "fixed", mode == "growing", "", EMPTY, 1,
            dict(settings), {"payload": payload("", "")},
        )  # fmt: skip
        self.heads = [policy.begin("block-1", named("genesis"), self.genesis)]
        self.newest: tuple[Version, Writing] | None = None

    @property
    def head(self) -> Head:
        """What holds at present."""
        return self.heads[-1]

    def party(self, who: str, hashed: bytes) -> Party:
        """A principal under its record with this hash."""
        person = self.people.get(who)
        numbers = range(len(person.clearances)) if person else ()
        number = next((one for one in numbers if record(who, one) == hashed), None)
        if person is None or number is None:
            raise Tampered("a statement names a record that its principal never had")
        sponsor = self._record(person.sponsor, -1) if person.kind == "agent" else None
        trusted = policy.clearance(self._record(who, number), sponsor)
        return Party(who, person.kind, person.sponsor, trusted, number)

    def _record(self, who: str, number: int) -> PrincipalRecord:
        person = self.people[who]
        cleared = person.clearances[number]
        return PrincipalRecord(person.kind, who, 0, EMPTY, b"", b"", person.sponsor, "active", cleared, 0)

    # -- statements ---------------------------------------------------------------------------------------------

    def link(self, said: Statement, before: Mapping[int, Granted]) -> Link:
        """The link that states this. `before` are the grants that its issuer finds."""
        change: dict[str, Any] = {}
        if said.added is not None:
            number, grant = said.added
            change |= {"grant": number, "leaf": leaf(number, grant).encode(), "proof": path(before, number)}
        if said.gone:
            change |= self._gone(said, before)
        if said.renewed is not None:
            change["renewed"] = [
                [leaf(number, grant).encode(), record(grant.to, newer), key.to_bytes(16, "big")]
                for number, grant, newer, key in said.renewed
            ]
        if said.rotated:
            change["rotated"] = said.epoch
        if said.due:
            change["due"] = True
        admin = named(f"admin {said.admin}" if said.admin else "")
        return Link(
            block=said.block, number=said.number, previous=named(said.follows), version=said.on[0],
            version_digest=named(said.on[1]), epoch=said.epoch, owner=said.owner, grants=root(said.books),
            next_grant=said.next, settings=dict(said.settings), admin=admin,
            change=change, issuer=said.issuer, issuer_record=record(said.issuer, 0), authority={}, time=1,
        )  # fmt: skip

    def _gone(self, said: Statement, before: Mapping[int, Granted]) -> dict[str, Any]:
        steps, rest = [], dict(before)
        for number, grant in said.gone:
            steps.append([leaf(number, grant).encode(), path(rest, number)])
            rest.pop(number, None)
        if len(steps) == 1 and said.added is None and said.number % 2:  # as the first release stated one
            return {"grant": said.gone[0][0], "leaf": steps[0][0], "proof": steps[0][1]}
        return {"gone": steps}

    def allowed(self, said: Statement, before: Mapping[int, Granted], today: int) -> bool:
        """Whether the policy lets this statement follow. If so, it is the head."""
        link, hashed, head = self.link(said, before), named(said.name), self.head
        by = None if said.by == Claim(head.owner) else standing(said.by)
        try:
            after = policy.follow(head, said.kind, link, hashed, today, by, self.party)
        except Tampered:
            return False
        alone = policy.by_owner("block-1", head.owner, said.kind, link, hashed)
        assert alone == (after if link.issuer == head.owner and said.kind != "transfer" else None)
        self.heads.append(after)
        return True

    # -- versions -----------------------------------------------------------------------------------------------

    def version(self, made: Writing) -> Version:
        """The version that states this."""
        return Version(
            made.block, made.number, EMPTY, made.cites[0], named(made.cites[1]), 0, payload(made.value, made.rest),
            made.writer, record(made.writer, 0), "", 1, {"heads": dict(made.seen)} if made.seen else {},
        )  # fmt: skip

    def counts(self, made: Writing) -> bool:
        """Whether the policy takes this for the newest version. If so, it is."""
        stated, by, before = self.version(made), standing(made.by), self.newest
        if not self.stands(made):
            return False
        try:
            policy.check_serials(before[0] if before else None, stated, by.via)
            policy.check_fixed(self.genesis, stated)
            if self.genesis.append_only and before is not None:
                earlier = before[1]
                policy.check_appended(
                    (earlier.value, earlier.rest.encode()), (made.value, made.rest.encode())
                )
        except Tampered:
            return False
        self.newest = stated, made
        return True

    def stands(self, made: Writing) -> bool:
        """Whether the policy takes this for the newest version, whatever was before it."""
        stated, by, number = self.version(made), standing(made.by), made.cites[0]
        if not 0 <= number < len(self.heads):
            return False
        ended = self.heads[number + 1] if number + 1 < len(self.heads) else None
        try:
            policy.check_version(self.heads[number], self.head, stated, named(made.name), by, ended)
        except Tampered:
            return False
        return True
