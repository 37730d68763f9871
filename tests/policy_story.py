"""A block's policy as its statements build it, for tests that name one rule or one attack.

Signatures are not the policy's business, so every statement counts as signed by whom it names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from tallystone import policy
from tallystone.errors import Tampered
from tallystone.grant_tree import grant_proof, grants_root
from tallystone.policy import Head, Party, Standing, Via
from tallystone.statements import EMPTY, READ, Genesis, Leaf, Link, Membership, Version

OWNER, BOB, CAROL, MALLORY = "user-owner", "user-bob", "user-carol", "user-mallory"
AGENT, OTHER_AGENT, OWNERS_AGENT = "agent-bobs", "agent-carols", "agent-owners"
SPONSORS = {AGENT: BOB, OTHER_AGENT: CAROL, OWNERS_AGENT: OWNER, "agent-mallorys": MALLORY, "role-bobs": BOB}
ROLE, INNER = "role-team", "role-inner"
BLOCK = "block-1"
SETTINGS = {"limit": 100, "read_only": False, "locked": False}
TODAY = 20_000


def salted(number: int) -> bytes:
    """A salt."""
    return number.to_bytes(16, "big")


def record_of(who: str, serial: int = 0) -> bytes:
    """The hash of a principal's record: the first of everybody's is the same."""
    return f"{who} {serial}".encode().ljust(32) if serial else b"r" * 32


def leaf_of(number: int, to: str, rights: int, parent: int = 0, **fields: Any) -> Leaf:
    """A grant's leaf."""
    honest = Leaf(number, to, record_of(to), rights, True, None, 0, parent, salted(number))
    return replace(honest, **fields)


def root_of(leaves: Mapping[int, Leaf]) -> bytes:
    """The root over these leaves."""
    return grants_root({number: leaf.digest for number, leaf in leaves.items()})


def proof_of(leaves: Mapping[int, Leaf], number: int) -> list[Any]:
    """The path of a place among these leaves."""
    return grant_proof({one: leaf.digest for one, leaf in leaves.items()}, number)


class Story:
    """A block's policy as its statements build it, and the means to state anything at all."""

    def __init__(self, **settings: Any) -> None:
        genesis = Genesis(
            "block", OWNER, b"r" * 32, b"n" * 16, 1, True, False, "", EMPTY, 1, {**SETTINGS, **settings}
        )
        self.head = policy.begin(BLOCK, b"g" * 32, genesis)
        self.heads = [self.head]
        self.leaves: dict[int, Leaf] = {}
        self.clearances: dict[str, int] = {}

    def party(self, who: str, record: bytes) -> Party:
        """A principal under one of its first four records."""
        serials = [serial for serial in range(4) if record_of(who, serial) == record]
        if not serials:
            raise Tampered("no such record")
        kind = who.partition("-")[0]
        return Party(who, kind, SPONSORS.get(who, OWNER), self.clearances.get(who, 0), serials[0])

    def standing(self, who: str, number: int | None = None) -> Standing:
        """How somebody stands who points at a grant of theirs (the first, if none is named)."""
        mine = [n for n, leaf in self.leaves.items() if leaf.recipient == who]
        number = number if number is not None else next(iter(mine), None)
        if number is None or number not in self.leaves:
            return Standing(who)
        return Standing(who, self.leaves[number], tuple(proof_of(self.leaves, number)))

    def link(self, issuer: str, after: Mapping[int, Leaf] | None = None, **fields: Any) -> Link:
        """The next link by `issuer`; every field may be overridden."""
        head = self.head
        honest: dict[str, Any] = {
            "block": head.block,
            "number": head.number + 1,
            "previous": head.digest,
            "version": head.version,
            "version_digest": head.version_digest,
            "epoch": head.epoch,
            "owner": head.owner,
            "grants": root_of(self.leaves if after is None else after),
            "next_grant": head.next_grant,
            "settings": dict(head.settings),
            "admin": head.admin,
            "change": {},
            "issuer": issuer,
            "issuer_record": b"r" * 32,
            "authority": {},
            "time": 1,
        }
        return Link(**{**honest, **fields})

    def leaf(self, to: str, rights: int, parent: int = 0, **fields: Any) -> Leaf:
        """The leaf of the next grant."""
        return leaf_of(self.head.next_grant, to, rights, parent, **fields)

    def granting(self, issuer: str, leaf: Leaf, **fields: Any) -> Link:
        """A link that adds `leaf`, as its issuer would make it."""
        change = {"grant": leaf.grant, "leaf": leaf.encode(), "proof": proof_of(self.leaves, leaf.grant)}
        honest: dict[str, Any] = {"next_grant": leaf.grant + 1, "change": change}
        return self.link(issuer, {**self.leaves, leaf.grant: leaf}, **{**honest, **fields})

    def revoking(self, issuer: str, *numbers: int, **fields: Any) -> Link:
        """A link that takes these grants away in this order, as its issuer would make it."""
        gone, left = [], dict(self.leaves)
        for number in numbers:
            gone.append([self.leaves[number].encode(), proof_of(left, number)])
            left.pop(number, None)
        honest: dict[str, Any] = {"change": {"gone": gone, "due": True}}
        return self.link(issuer, left, **{**honest, **fields})

    def rotating(self, issuer: str, after: Mapping[int, Leaf] | None = None, **fields: Any) -> Link:
        """A link with new keys. With leaves `after` it, their keys and records are renewed, and it lists them all."""
        change: dict[str, Any] = {"rotated": self.head.epoch + 1}
        if after is not None:
            listed = [[self.leaves[n].encode(), leaf.record, leaf.salt] for n, leaf in after.items()]
            change["renewed"] = listed
        return self.link(issuer, after, **{"epoch": self.head.epoch + 1, "change": change, **fields})

    def judged(self, kind: str, link: Link, by: Standing | None = None) -> Head:
        """The head after `link`. `by` is how its issuer stands; by default the owner, or whoever holds a grant."""
        digest = bytes([link.number]) * 32
        if by is None and link.issuer != self.head.owner:
            by = self.standing(link.issuer)
        return policy.follow(self.head, kind, link, digest, TODAY, by, self.party)

    def follow(
        self, kind: str, link: Link, leaves: Mapping[int, Leaf] | None = None, by: Standing | None = None
    ) -> Head:
        """Let the policy judge `link`; if it stands, it is the head, with these leaves."""
        self.head = self.judged(kind, link, by)
        self.heads.append(self.head)
        self.leaves = dict(self.leaves if leaves is None else leaves)
        return self.head

    def refused(self, kind: str, link: Link, by: Standing | None = None, why: str = ".") -> None:
        """The policy does not let `link` follow."""
        with pytest.raises(Tampered, match=why):
            self.judged(kind, link, by)

    def grant(self, to: str, rights: int, **fields: Any) -> int:
        """The owner grants."""
        leaf = self.leaf(to, rights, **fields)
        self.follow("grant", self.granting(self.head.owner, leaf), {**self.leaves, leaf.grant: leaf})
        return leaf.grant

    def pass_on(
        self, issuer: str, through: int, to: str, rights: int, by: Standing | None = None, **fields: Any
    ) -> int:
        """A grantee grants through its own grant."""
        leaf, by = self.leaf(to, rights, through, **fields), by or self.standing(issuer, through)
        self.follow("grant", self.granting(issuer, leaf), {**self.leaves, leaf.grant: leaf}, by)
        return leaf.grant

    def revoke(self, *numbers: int, issuer: str = OWNER, **fields: Any) -> None:
        """Somebody revokes."""
        after = {n: leaf for n, leaf in self.leaves.items() if n not in numbers}
        self.follow("revocation", self.revoking(issuer, *numbers, **fields), after)

    def set(self, **settings: Any) -> None:
        """The owner changes settings."""
        self.follow("policy", self.link(OWNER, settings={**self.head.settings, **settings}))

    def version(self, cited: Head, number: int, writer: str, **fields: Any) -> Version:
        """A version that cites this head."""
        honest = Version(
            BLOCK, number, b"p" * 32, cited.number, cited.digest, cited.epoch, b"h" * 32, writer, b"r" * 32, "", 1
        )  # fmt: skip
        return replace(honest, **fields)

    def check(
        self, made: Version, by: Standing, digest: bytes = b"v" * 32, *, cited: Head | None = None
    ) -> None:
        """Let the policy judge a version, as whoever reads it now would."""
        cited = cited or self.heads[made.policy]
        ended = self.heads[cited.number + 1] if cited.number + 1 < len(self.heads) else None
        policy.check_version(cited, self.head, made, digest, by, ended)

    def uncounted(
        self, made: Version, by: Standing, digest: bytes = b"v" * 32, *, cited: Head | None = None
    ) -> None:
        """The policy does not count this version."""
        with pytest.raises(Tampered):
            self.check(made, by, digest, cited=cited)


class Team:
    """A role: its members, its records, and the head that its owner signs."""

    def __init__(self, name: str = ROLE, owner: str = OWNER) -> None:
        self.name, self.owner, self.serial, self.record = name, owner, 0, 0
        self.members: dict[int, Leaf] = {}

    def add(self, who: str, **fields: Any) -> int:
        """Somebody joins."""
        self.serial += 1
        self.members[self.serial] = leaf_of(self.serial, who, READ, **fields)
        return self.serial

    def remove(self, number: int) -> None:
        """Somebody is removed: the role has a new root, and so a new record."""
        del self.members[number]
        self.serial, self.record = self.serial + 1, self.record + 1

    def head(self, **fields: Any) -> Membership:
        """What the owner signs now."""
        honest = Membership(
            self.name, record_of(self.name, self.record), self.serial, root_of(self.members), self.owner, b"r" * 32, 1
        )  # fmt: skip
        return replace(honest, **fields)

    def via(self, number: int | None, **fields: Any) -> Via:
        """The step of the member with this number, or of the role's owner (None)."""
        records = frozenset(record_of(self.name, serial) for serial in range(self.record + 1))
        if number is None:
            return replace(Via(self.head(), None, (), records), **fields)
        proof = tuple(proof_of(self.members, number))
        return replace(Via(self.head(), self.members[number], proof, records), **fields)


def through(story: Story, who: str, grant: int, *steps: Via) -> Standing:
    """How somebody stands who comes by a role's grant."""
    return replace(story.standing(who, grant), via=steps)
