"""The rules of rights, tried by whoever would like to have more: a valid signature does not make a right.

Signatures are not the policy's business, so every statement here counts as signed by whom it names. The attackers may
also choose every byte of what they state.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import naive_policy
import pytest

from tallystone import policy
from tallystone.errors import Tampered
from tallystone.policy import Head, Standing
from tallystone.statements import (
    EMPTY,
    READ,
    SHARE,
    TREE_DEPTH,
    WRITE,
    Genesis,
    Leaf,
    Link,
    Version,
    grant_proof,
    grants_root,
)

OWNER, BOB, CAROL = "user-owner", "user-bob", "user-carol"
AGENT, OTHER_AGENT = "agent-bobs", "agent-carols"
BLOCK = "block-1"
SETTINGS = {"limit": 100, "read_only": False, "locked": False}
TODAY = 20_000


def salted(number: int) -> bytes:
    return number.to_bytes(16, "big")


class Story:
    """A block's policy as its statements build it, and the means to state anything at all."""

    def __init__(self, settings: Mapping[str, Any] = SETTINGS) -> None:
        genesis = Genesis("block", OWNER, b"r" * 32, b"n" * 16, 1, True, False, "", EMPTY, 1, dict(settings))
        self.head = policy.begin(BLOCK, b"g" * 32, genesis)
        self.leaves: dict[int, Leaf] = {}

    @property
    def digests(self) -> dict[int, bytes]:
        return {number: leaf.digest for number, leaf in self.leaves.items()}

    def standing(self, who: str, number: int | None = None) -> Standing:
        """How somebody stands who points at a grant of theirs (the first, if none is named)."""
        mine = [n for n, leaf in self.leaves.items() if leaf.recipient == who]
        number = number if number is not None else next(iter(mine), None)
        if number is None or number not in self.leaves:
            return Standing(who)
        return Standing(who, self.leaves[number], tuple(grant_proof(self.digests, number)))

    def link(self, issuer: str, after: Mapping[int, Leaf] | None = None, **fields: Any) -> Link:
        """The next link by `issuer`; every field may be overridden."""
        head, leaves = self.head, self.leaves if after is None else after
        honest: dict[str, Any] = {
            "block": head.block,
            "number": head.number + 1,
            "previous": head.digest,
            "version": head.version,
            "version_digest": head.version_digest,
            "epoch": head.epoch,
            "owner": head.owner,
            "grants": grants_root({n: leaf.digest for n, leaf in leaves.items()}),
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
        number = self.head.next_grant
        return replace(Leaf(number, to, b"r" * 32, rights, True, None, 0, parent, salted(number)), **fields)

    def authority(self, number: int) -> dict[str, Any]:
        leaf = self.leaves[number]
        return {"leaf": leaf.encode(), "proof": grant_proof(self.digests, number)}

    def granting(self, issuer: str, leaf: Leaf, through: int | None = None, **fields: Any) -> Link:
        """A link that adds `leaf`, as its issuer would make it."""
        change: dict[str, Any] = {"grant": leaf.grant, "leaf": leaf.digest}
        honest: dict[str, Any] = {"next_grant": leaf.grant + 1}
        if through is not None:
            proof = grant_proof(self.digests, leaf.grant)
            honest["change"] = {"grant": leaf.grant, "leaf": leaf.encode(), "proof": proof}
            honest["authority"] = self.authority(through)
        else:
            honest["change"] = change
        return self.link(issuer, {**self.leaves, leaf.grant: leaf}, **{**honest, **fields})

    def revoking(self, issuer: str, number: int, through: int | None = None, **fields: Any) -> Link:
        """A link that takes the grant `number` away, as its issuer would make it."""
        after = {n: leaf for n, leaf in self.leaves.items() if n != number}
        honest: dict[str, Any] = {"change": {"grants": [number]}}
        if through is not None:
            target = self.leaves[number]
            proof = grant_proof(self.digests, number)
            honest["change"] = {"grant": number, "leaf": target.encode(), "proof": proof}
            honest["authority"] = self.authority(through)
        return self.link(issuer, after, **{**honest, **fields})

    def follow(self, kind: str, link: Link, leaves: Mapping[int, Leaf] | None = None) -> Head:
        """Let the policy judge `link`; if it stands, it is the head, with these leaves."""
        digest = bytes([link.number]) * 32
        self.head = policy.follow(self.head, kind, link, digest, TODAY)
        self.leaves = dict(self.leaves if leaves is None else leaves)
        return self.head

    def grant(self, to: str, rights: int, **fields: Any) -> int:
        """The owner grants."""
        leaf = self.leaf(to, rights, **fields)
        self.follow("grant", self.granting(OWNER, leaf), {**self.leaves, leaf.grant: leaf})
        return leaf.grant

    def place(self, issuer: str, through: int, to: str, rights: int) -> int:
        """A grantee places the block with an agent."""
        leaf = self.leaf(to, rights, through)
        self.follow("grant", self.granting(issuer, leaf, through), {**self.leaves, leaf.grant: leaf})
        return leaf.grant

    def revoke(self, number: int, **fields: Any) -> None:
        """The owner revokes."""
        after = {n: leaf for n, leaf in self.leaves.items() if n != number}
        self.follow("revocation", self.revoking(OWNER, number, **fields), after)

    def set(self, **settings: Any) -> None:
        """The owner changes settings."""
        self.follow("policy", self.link(OWNER, settings={**self.head.settings, **settings}))

    def refused(self, kind: str, link: Link) -> None:
        with pytest.raises(Tampered):
            policy.follow(self.head, kind, link, b"x" * 32, TODAY)


def version(cited: Head, number: int, writer: str, **fields: Any) -> Version:
    honest = Version(
        BLOCK, number, b"p" * 32, cited.number, cited.digest, cited.epoch, b"h" * 32, writer, b"r" * 32, "", 1
    )
    return replace(honest, **fields)


def check(story: Story, cited: Head, made: Version, standing: Standing, digest: bytes = b"v" * 32) -> None:
    policy.check_version(cited, story.head, made, digest, standing)


@pytest.fixture
def story() -> Story:
    return Story()


@pytest.fixture
def shared() -> Story:
    """Bob holds `write` through grant 1, Carol `read` through grant 2."""
    made = Story()
    made.grant(BOB, WRITE)
    made.grant(CAROL, READ)
    return made


# -- rights -----------------------------------------------------------------------------------------------------


def test_the_owner_has_every_right_and_a_stranger_none(story: Story) -> None:
    assert policy.rights(story.head, Standing(OWNER), TODAY) == READ | WRITE | SHARE
    assert policy.rights(story.head, Standing(BOB), TODAY) == 0


def test_write_and_share_each_imply_read() -> None:
    assert policy.closure(WRITE) == READ | WRITE
    assert policy.closure(SHARE) == READ | SHARE
    assert policy.closure(READ) == READ
    assert policy.closure(0) == 0


def test_somebody_elses_grant_gives_no_right(shared: Story) -> None:
    stolen = shared.standing(BOB)
    assert policy.rights(shared.head, Standing(CAROL, stolen.leaf, stolen.proof), TODAY) == 0


def test_a_proof_of_another_place_gives_no_right(shared: Story) -> None:
    bob, carol = shared.standing(BOB), shared.standing(CAROL)
    assert policy.rights(shared.head, Standing(BOB, bob.leaf, carol.proof), TODAY) == 0
    assert bob.leaf is not None
    moved = replace(bob.leaf, grant=2)
    assert policy.rights(shared.head, Standing(BOB, moved, bob.proof), TODAY) == 0


@pytest.mark.parametrize(
    "field", ["rights", "until", "parent", "depth", "history", "record", "salt", "recipient"]
)
def test_an_edited_leaf_gives_no_right(shared: Story, field: str) -> None:
    edits: dict[str, Any] = {
        "rights": READ | WRITE, "until": 5 * TODAY, "parent": 7, "depth": 3, "history": False, "record": b"x" * 32,
        "salt": b"y" * 16, "recipient": BOB,
    }  # fmt: skip
    carol = shared.standing(CAROL)
    assert carol.leaf is not None
    edited = replace(carol.leaf, **{field: edits[field]})
    assert policy.rights(shared.head, Standing(edited.recipient, edited, carol.proof), TODAY) == 0


def test_a_revoked_grant_gives_no_right_with_any_old_proof(shared: Story) -> None:
    before = shared.standing(BOB)
    shared.revoke(1)
    assert policy.rights(shared.head, before, TODAY) == 0


def test_an_expired_grant_is_none_from_the_day_after(story: Story) -> None:
    story.grant(BOB, WRITE, until=TODAY)
    assert policy.may_write(story.head, story.standing(BOB), TODAY)
    assert not policy.may_write(story.head, story.standing(BOB), TODAY + 1)


@pytest.mark.parametrize("mask", [1 << TREE_DEPTH, -1, 3])
def test_a_malformed_proof_is_refused_not_evaluated(shared: Story, mask: int) -> None:
    bob = shared.standing(BOB)
    with pytest.raises(Tampered):
        policy.rights(shared.head, Standing(BOB, bob.leaf, (mask, [b"x" * 32])), TODAY)


# -- links: order -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        {"block": "block-2"},
        {"number": 2},
        {"number": 5},
        {"previous": b"x" * 32},
        {"version": 4},
        {"next_grant": 2},
        {"epoch": 0},
    ],
    ids=[
        "of another block",
        "replayed",
        "skipping",
        "forked",
        "on an older version",
        "reusing numbers",
        "old epoch",
    ],
)
def test_even_an_owners_link_must_follow_its_predecessor(shared: Story, fields: dict[str, Any]) -> None:
    shared.follow("policy", shared.link(OWNER, version=5, epoch=1))
    shared.refused("policy", shared.link(OWNER, **fields))


def test_a_link_is_not_followed_twice(shared: Story) -> None:
    link = shared.link(OWNER)
    shared.follow("policy", link)
    shared.refused("policy", link)


def test_ownership_does_not_pass_by_an_ordinary_link(shared: Story) -> None:
    shared.refused("policy", shared.link(OWNER, owner=BOB))
    assert policy.by_owner(BLOCK, OWNER, "policy", shared.link(OWNER, owner=BOB), b"x" * 32) is None


@pytest.mark.parametrize("kind", ["transfer", "membership", "version", "genesis", "nonsense"])
def test_a_statement_type_that_is_reserved_or_unknown_is_refused(shared: Story, kind: str) -> None:
    with pytest.raises(Tampered):
        policy.by_owner(BLOCK, OWNER, kind, shared.link(OWNER), b"x" * 32)


def test_an_owners_link_of_another_block_is_refused(shared: Story) -> None:
    with pytest.raises(Tampered):
        policy.by_owner(BLOCK, OWNER, "policy", shared.link(OWNER, block="block-2"), b"x" * 32)


def test_a_link_by_another_issuer_does_not_stand_for_itself(shared: Story) -> None:
    assert policy.by_owner(BLOCK, OWNER, "grant", shared.link(BOB), b"x" * 32) is None


# -- links: a grantee wants more --------------------------------------------------------------------------------


def test_a_grantee_may_place_the_block_with_an_agent_below_itself(shared: Story) -> None:
    shared.place(BOB, 1, AGENT, READ | WRITE)
    assert policy.may_write(shared.head, shared.standing(AGENT), TODAY)


@pytest.mark.parametrize(
    "fields",
    [
        {"settings": {**SETTINGS, "limit": 10**6}},
        {"settings": {**SETTINGS, "read_only": True}},
        {"admin": b"a" * 32},
        {"owner": BOB},
        {"next_grant": 9},
        {"epoch": 1},
    ],
    ids=["limit", "read_only", "admin key", "owner", "numbers", "epoch"],
)
def test_a_grantees_link_changes_nothing_but_its_grant(shared: Story, fields: dict[str, Any]) -> None:
    leaf = shared.leaf(AGENT, READ, 1)
    shared.refused("grant", shared.granting(BOB, leaf, 1, **fields))


@pytest.mark.parametrize(
    "fields",
    [
        {"rights": READ | WRITE},
        {"rights": SHARE},
        {"rights": READ | SHARE},
        {"depth": 1},
        {"parent": 0},
        {"parent": 1},
        {"recipient": BOB},
    ],
    ids=["write", "share", "read and share", "depth", "no parent", "another's parent", "a user"],
)
def test_a_reader_cannot_give_more_than_it_holds(shared: Story, fields: dict[str, Any]) -> None:
    leaf = replace(shared.leaf(OTHER_AGENT, READ, 2), **fields)
    shared.refused("grant", shared.granting(CAROL, leaf, 2))


def test_a_grantee_cannot_raise_its_own_right(shared: Story) -> None:
    raised = replace(shared.leaves[2], rights=READ | WRITE)
    after = {**shared.leaves, 2: raised}
    for place, proof in ((2, grant_proof(shared.digests, 2)), (3, grant_proof(shared.digests, 3))):
        change = {"grant": place, "leaf": raised.encode(), "proof": proof}
        link = shared.link(CAROL, after, change=change, authority=shared.authority(2), next_grant=place + 1)
        shared.refused("grant", link)


def test_a_grantee_cannot_outlast_itself_nor_give_history_it_lacks(story: Story) -> None:
    story.grant(BOB, WRITE, until=TODAY + 5, history=False)
    for fields in ({"until": None}, {"until": TODAY + 6}, {"until": TODAY + 5, "history": True}):
        leaf = replace(story.leaf(AGENT, READ, 1, history=False), **fields)
        story.refused("grant", story.granting(BOB, leaf, 1))
    fitting = story.leaf(AGENT, READ, 1, until=TODAY + 5, history=False)
    story.follow("grant", story.granting(BOB, fitting, 1))


def test_an_expired_or_revoked_grantee_places_nothing(story: Story) -> None:
    story.grant(BOB, WRITE, until=TODAY - 1)
    story.refused("grant", story.granting(BOB, story.leaf(AGENT, READ, 1, until=TODAY - 1), 1))
    story.grant(CAROL, WRITE)
    authority = story.authority(2)
    story.revoke(2)
    leaf = story.leaf(OTHER_AGENT, READ, 2)
    change = {"grant": leaf.grant, "leaf": leaf.encode(), "proof": grant_proof(story.digests, leaf.grant)}
    link = story.link(
        CAROL,
        {**story.leaves, leaf.grant: leaf},
        change=change,
        authority=authority,
        next_grant=leaf.grant + 1,
    )
    story.refused("grant", link)


def test_a_grantee_cannot_use_anothers_grant_as_its_authority(shared: Story) -> None:
    leaf = shared.leaf(OTHER_AGENT, READ | WRITE, 1)
    shared.refused("grant", shared.granting(CAROL, leaf, 1))


def test_a_grantee_cannot_slip_a_second_change_under_the_one_it_names(shared: Story) -> None:
    leaf = shared.leaf(AGENT, READ, 1)
    ghost = Leaf(9, "agent-ghost", b"r" * 32, WRITE, True, None, 0, 0, salted(9))
    honest = shared.granting(BOB, leaf, 1)
    more = {n: one.digest for n, one in {**shared.leaves, leaf.grant: leaf, 9: ghost}.items()}
    shared.refused("grant", replace(honest, grants=grants_root(more)))
    without_carol = {1: shared.leaves[1].digest, leaf.grant: leaf.digest}
    shared.refused("grant", replace(honest, grants=grants_root(without_carol)))


def test_a_grantee_takes_back_its_own_placement_and_nothing_else(shared: Story) -> None:
    mine = shared.place(BOB, 1, AGENT, READ)
    shared.refused("revocation", shared.revoking(BOB, 2, 1))
    shared.refused("revocation", shared.revoking(BOB, 1, 1))
    shared.refused("revocation", shared.revoking(CAROL, mine, 2))
    shared.refused("revocation", shared.revoking(BOB, mine, 1, epoch=shared.head.epoch + 2))
    shared.refused("revocation", shared.revoking(BOB, mine, 1, next_grant=shared.head.next_grant + 1))
    after = {n: leaf for n, leaf in shared.leaves.items() if n != mine}
    shared.follow("revocation", shared.revoking(BOB, mine, 1), after)
    assert policy.rights(shared.head, shared.standing(AGENT), TODAY) == 0


@pytest.mark.parametrize("kind", ["policy", "transfer", "membership", "version"])
def test_a_grantee_issues_grants_and_revocations_only(shared: Story, kind: str) -> None:
    shared.refused(kind, shared.granting(BOB, shared.leaf(AGENT, READ, 1), 1))


@pytest.mark.parametrize(
    "fields",
    [
        {"authority": {}},
        {"change": {}},
        {"authority": {"leaf": b"", "proof": [0, []]}},
        {"authority": {"leaf": b"\x80", "proof": [0, []]}},
        {"authority": {"leaf": 7, "proof": 7}},
        {"change": {"grant": "x", "leaf": b"", "proof": []}},
        {"change": {"grant": -1, "leaf": b"", "proof": []}},
    ],
)
def test_a_link_without_a_proper_proof_is_refused_whatever_it_holds(
    shared: Story, fields: dict[str, Any]
) -> None:
    shared.refused("grant", replace(shared.granting(BOB, shared.leaf(AGENT, READ, 1), 1), **fields))


def test_a_stranger_can_issue_nothing(shared: Story) -> None:
    for kind in ("grant", "revocation", "policy"):
        shared.refused(kind, shared.link("user-mallory"))
        forged = replace(shared.leaves[1], recipient="user-mallory")
        leaf = shared.leaf("agent-mallorys", READ, 1)
        honest = shared.granting("user-mallory", leaf, 1)
        shared.refused(kind, honest)
        authority = {"leaf": forged.encode(), "proof": grant_proof(shared.digests, 1)}
        shared.refused(kind, replace(honest, authority=authority))


# -- versions ---------------------------------------------------------------------------------------------------


def test_a_version_by_a_writer_under_the_latest_policy_counts(shared: Story) -> None:
    check(shared, shared.head, version(shared.head, 2, BOB), shared.standing(BOB))
    check(shared, shared.head, version(shared.head, 2, OWNER), Standing(OWNER))


def test_a_version_by_a_reader_does_not_count(shared: Story) -> None:
    with pytest.raises(Tampered):
        check(shared, shared.head, version(shared.head, 2, CAROL), shared.standing(CAROL))


def test_a_ghost_writer_who_was_never_granted_does_not_count(shared: Story) -> None:
    bob = shared.standing(BOB)
    for standing in (Standing("user-ghost"), Standing("user-ghost", bob.leaf, bob.proof), bob):
        with pytest.raises(Tampered):
            check(shared, shared.head, version(shared.head, 2, "user-ghost"), standing)


def test_a_revoked_writer_cannot_cite_the_policy_of_its_better_days(shared: Story) -> None:
    before, standing = shared.head, shared.standing(BOB)
    written = version(before, 2, BOB)
    check(shared, before, written, standing, b"v" * 32)
    shared.revoke(1, version=2, version_digest=b"v" * 32)
    check(shared, before, written, standing, b"v" * 32)  # what it wrote before stands
    for late, digest in ((version(before, 3, BOB), b"w" * 32), (version(before, 2, BOB, time=9), b"w" * 32)):
        with pytest.raises(Tampered):
            check(shared, before, late, standing, digest)


def test_a_revoked_writer_cannot_replace_an_older_version_and_roll_the_block_back_to_it(
    shared: Story,
) -> None:
    before, standing = shared.head, shared.standing(BOB)
    shared.revoke(1, version=3, version_digest=b"v" * 32)
    with pytest.raises(Tampered):
        check(shared, before, version(before, 2, BOB), standing, b"w" * 32)


def test_a_version_older_than_its_own_policy_is_a_rollback(shared: Story) -> None:
    shared.follow("policy", shared.link(OWNER, version=3, version_digest=b"v" * 32))
    with pytest.raises(Tampered):
        check(shared, shared.head, version(shared.head, 3, OWNER), Standing(OWNER))
    check(shared, shared.head, version(shared.head, 4, OWNER), Standing(OWNER))


def test_a_revoked_writer_cannot_cite_the_latest_policy_either(shared: Story) -> None:
    standing = shared.standing(BOB)
    shared.revoke(1)
    with pytest.raises(Tampered):
        check(shared, shared.head, version(shared.head, 2, BOB), standing)


def test_a_version_of_another_block_or_policy_does_not_count(shared: Story) -> None:
    head = shared.head
    for fields in ({"block": "block-2"}, {"policy": 1}, {"policy_digest": b"x" * 32}):
        with pytest.raises(Tampered):
            check(shared, head, version(head, 2, OWNER, **fields), Standing(OWNER))


def test_a_version_that_cites_a_policy_of_the_future_does_not_count(shared: Story) -> None:
    future = replace(shared.head, number=9)
    with pytest.raises(Tampered):
        check(shared, future, version(future, 2, OWNER), Standing(OWNER))


def test_read_only_keeps_agents_from_writing_whatever_they_were_granted(shared: Story) -> None:
    shared.place(BOB, 1, AGENT, WRITE)
    check(shared, shared.head, version(shared.head, 2, AGENT), shared.standing(AGENT))
    shared.set(read_only=True)
    with pytest.raises(Tampered):
        check(shared, shared.head, version(shared.head, 2, AGENT), shared.standing(AGENT))
    check(shared, shared.head, version(shared.head, 2, BOB), shared.standing(BOB))
    check(shared, shared.head, version(shared.head, 2, OWNER), Standing(OWNER))


def test_locked_keeps_everybody_but_the_owner_from_writing(shared: Story) -> None:
    shared.set(locked=True)
    with pytest.raises(Tampered):
        check(shared, shared.head, version(shared.head, 2, BOB), shared.standing(BOB))
    # The owner's own version, made with the change of settings, cites the very link that locks.
    check(shared, shared.head, version(shared.head, 2, OWNER), Standing(OWNER))


# -- the second implementation ----------------------------------------------------------------------------------

NAMES = {"read": READ, "write": WRITE, "share": SHARE}
PRINCIPALS = (OWNER, BOB, CAROL, AGENT, OTHER_AGENT)
HISTORIES, STEPS = 2500, 7


def bits(names: frozenset[str]) -> int:
    return sum(NAMES[name] for name in names)


class Both:
    """One history, told to both. Each step is tried on `tallystone.policy` exactly as its author would state it."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.story = Story()
        self.naive = naive_policy.Block(OWNER, dict(SETTINGS))

    def judged(self, kind: str, link: Link, leaves: Mapping[int, Leaf]) -> bool:
        try:
            self.story.follow(kind, link, leaves)
        except Tampered:
            return False
        return True

    def through(self, who: str) -> int | None:
        """The grant that somebody points at: mostly one of theirs, now and then another's. None for the owner."""
        if who == OWNER or not self.naive.grants:
            return None
        mine = [n for n, grant in self.naive.grants.items() if grant.to == who]
        return self.chance.choice(mine if mine and self.chance.random() < 0.85 else sorted(self.naive.grants))

    def try_grant(self) -> None:
        who = self.chance.choice(PRINCIPALS)
        through = self.through(who)
        if who != OWNER and through is None:
            return
        parent = 0 if through is None else self.chance.choice((through, through, through, 0))
        wanted = naive_policy.Granted(
            to=self.chance.choice(PRINCIPALS[1:]),
            rights=frozenset(self.chance.sample(sorted(NAMES), self.chance.choice((1, 1, 2)))),
            through=parent,
            until=self.chance.choice((None, None, TODAY - 1, TODAY, TODAY + 3)),
            history=self.chance.random() < 0.8,
        )
        leaf = self.story.leaf(
            wanted.to, bits(wanted.rights), parent, until=wanted.until, history=wanted.history
        )
        link = self.story.granting(who, leaf, through)
        allowed = self.naive.may_grant(who, through, wanted, TODAY)
        assert self.judged("grant", link, {**self.story.leaves, leaf.grant: leaf}) == allowed, (who, wanted)
        if allowed:
            assert self.naive.grant(wanted) == leaf.grant

    def try_revoke(self) -> None:
        who = self.chance.choice(PRINCIPALS)
        through = self.through(who)
        if not self.naive.grants or (who != OWNER and through is None):
            return
        number = self.chance.choice(sorted(self.naive.grants))
        allowed = self.naive.may_revoke(who, through, number, TODAY)
        if who != OWNER:  # a link takes one grant; below a placement there is none
            after = {n: leaf for n, leaf in self.story.leaves.items() if n != number}
            assert self.judged("revocation", self.story.revoking(who, number, through), after) == allowed
            if allowed:
                self.naive.grants.pop(number)
            return
        gone = self.naive.revoke(number)
        after = {n: leaf for n, leaf in self.story.leaves.items() if n not in gone}
        link = self.story.link(OWNER, after, change={"grants": gone})
        assert self.judged("revocation", link, after)

    def try_settings(self) -> None:
        who = self.chance.choice(PRINCIPALS)
        through = self.through(who)
        settings = {
            **self.naive.settings,
            self.chance.choice(("read_only", "locked")): self.chance.random() < 0.4,
        }
        authority = self.story.authority(through) if through is not None else {}
        link = self.story.link(who, settings=settings, authority=authority)
        allowed = self.naive.may_set(who)
        assert self.judged("policy", link, self.story.leaves) == allowed
        if allowed:
            self.naive.settings = settings

    def compare(self) -> None:
        for who in PRINCIPALS:
            for number in (None, *self.naive.grants):
                standing = Standing(who) if number is None else self.story.standing(who, number)
                expected = self.naive.rights(who, number, TODAY)
                assert policy.rights(self.story.head, standing, TODAY) == bits(frozenset(expected)), (
                    who,
                    number,
                )
                made = version(self.story.head, 1, who)
                try:
                    check(self.story, self.story.head, made, standing)
                    counted = True
                except Tampered:
                    counted = False
                # Whether a version counts is judged by its chain, not by the day on which it is read.
                assert counted == self.naive.may_write(who, number, today=0), (who, number)


@pytest.mark.parametrize("part", range(4))
def test_a_naive_second_implementation_agrees_over_thousands_of_random_histories(part: int) -> None:
    for seed in range(part, HISTORIES, 4):
        both = Both(random.Random(seed))
        for _ in range(STEPS):
            both.chance.choice((both.try_grant, both.try_grant, both.try_revoke, both.try_settings))()
        both.compare()
