"""The rules of rights, tried by whoever would like to have more: a valid signature does not make a right.

Here: who holds which rights, and which versions count. `test_policy_chain.py` has the policy statements,
`test_policy_roles.py` roles, clearance and what a genesis fixes, `test_policy_histories.py` all of it at random.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from policy_story import AGENT, BOB, CAROL, OWNER, TODAY, Story

from tallystone import crypto, policy
from tallystone.errors import Tampered
from tallystone.grant_tree import TREE_DEPTH, grant_proof, grants_root, root_from_proof
from tallystone.policy import Standing
from tallystone.statements import EMPTY, READ, SHARE, WRITE


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


# -- versions ---------------------------------------------------------------------------------------------------


def test_a_version_by_a_writer_under_the_latest_policy_counts(shared: Story) -> None:
    shared.check(shared.version(shared.head, 2, BOB), shared.standing(BOB))
    shared.check(shared.version(shared.head, 2, OWNER), Standing(OWNER))


def test_a_version_by_a_reader_does_not_count(shared: Story) -> None:
    shared.uncounted(shared.version(shared.head, 2, CAROL), shared.standing(CAROL))


def test_a_version_by_a_sharer_does_not_count(shared: Story) -> None:
    sharer = shared.grant(CAROL, SHARE, depth=3)
    shared.uncounted(shared.version(shared.head, 2, CAROL), shared.standing(CAROL, sharer))


def test_a_ghost_writer_who_was_never_granted_does_not_count(shared: Story) -> None:
    bob = shared.standing(BOB)
    for standing in (Standing("user-ghost"), Standing("user-ghost", bob.leaf, bob.proof), bob):
        shared.uncounted(shared.version(shared.head, 2, "user-ghost"), standing)


def test_a_writer_with_escalated_rights_in_the_leaf_does_not_count(shared: Story) -> None:
    carol = shared.standing(CAROL)
    assert carol.leaf is not None
    raised = replace(carol, leaf=replace(carol.leaf, rights=WRITE))
    shared.uncounted(shared.version(shared.head, 2, CAROL), raised)


def test_a_grant_moved_to_another_block_gives_no_right_there(shared: Story) -> None:
    other = Story()
    other.grant(CAROL, READ)
    moved = shared.standing(BOB)
    assert policy.rights(other.head, moved, TODAY) == 0
    other.uncounted(other.version(other.head, 2, BOB), moved)


def test_a_revoked_writer_cannot_cite_the_policy_of_its_better_days(shared: Story) -> None:
    before, standing = shared.head, shared.standing(BOB)
    written = shared.version(before, 2, BOB)
    shared.check(written, standing, b"v" * 32)
    shared.revoke(1, version=2, version_digest=b"v" * 32)
    shared.check(written, standing, b"v" * 32)  # what it wrote before stands
    shared.uncounted(shared.version(before, 3, BOB), standing, b"w" * 32)
    shared.uncounted(shared.version(before, 2, BOB, time=9), standing, b"w" * 32)


def test_a_later_link_does_not_make_room_for_a_back_dated_version(shared: Story) -> None:
    """Carol may place the block with her agent: made on Bob's late version, her link must not vouch for it."""
    before, standing = shared.head, shared.standing(BOB)
    shared.revoke(1, version=2, version_digest=b"v" * 32)
    leaf = shared.leaf("agent-carols", READ, 2)
    helping = shared.granting(CAROL, leaf, version=3, version_digest=b"w" * 32)
    shared.follow("grant", helping, {**shared.leaves, leaf.grant: leaf})
    shared.uncounted(shared.version(before, 3, BOB), standing, b"w" * 32)
    with pytest.raises(Tampered):  # nor by a reader who is told of another link in between
        made = shared.version(before, 3, BOB)
        policy.check_version(before, shared.head, made, b"w" * 32, standing, ended=shared.head)


def test_nobody_asks_about_a_superseded_policy_without_the_link_that_ended_it(shared: Story) -> None:
    before, standing = shared.head, shared.standing(BOB)
    shared.revoke(1, version=2, version_digest=b"v" * 32)
    made = shared.version(before, 2, BOB)
    policy.check_version(before, shared.head, made, b"v" * 32, standing, shared.head)
    with pytest.raises(Tampered):
        policy.check_version(before, shared.head, made, b"v" * 32, standing, None)


def test_a_revoked_writer_cannot_roll_the_block_back_to_an_older_version(shared: Story) -> None:
    before, standing = shared.head, shared.standing(BOB)
    shared.revoke(1, version=3, version_digest=b"v" * 32)
    shared.uncounted(shared.version(before, 2, BOB), standing, b"w" * 32)


def test_a_version_older_than_its_own_policy_is_a_rollback(shared: Story) -> None:
    shared.follow("policy", shared.link(OWNER, version=3, version_digest=b"v" * 32))
    shared.uncounted(shared.version(shared.head, 3, OWNER), Standing(OWNER))
    shared.check(shared.version(shared.head, 4, OWNER), Standing(OWNER))


def test_a_revoked_writer_cannot_cite_the_latest_policy_either(shared: Story) -> None:
    standing = shared.standing(BOB)
    shared.revoke(1)
    shared.uncounted(shared.version(shared.head, 2, BOB), standing)


def test_no_version_cites_a_statement_after_which_keys_must_change(shared: Story) -> None:
    placed = shared.pass_on(BOB, 1, AGENT, READ)
    shared.revoke(placed, issuer=BOB)
    assert shared.head.due
    shared.uncounted(shared.version(shared.head, 2, BOB), shared.standing(BOB))
    shared.uncounted(shared.version(shared.head, 2, OWNER), Standing(OWNER))
    shared.follow("policy", shared.rotating(BOB))
    shared.check(shared.version(shared.head, 2, BOB), shared.standing(BOB))


def test_a_version_of_another_block_or_policy_does_not_count(shared: Story) -> None:
    for fields in ({"block": "block-2"}, {"policy": 1}, {"policy_digest": b"x" * 32}):
        made = shared.version(shared.head, 2, OWNER, **fields)
        shared.uncounted(made, Standing(OWNER), cited=shared.head)


def test_a_version_that_cites_a_policy_of_the_future_does_not_count(shared: Story) -> None:
    future = replace(shared.head, number=9)
    shared.uncounted(shared.version(future, 2, OWNER), Standing(OWNER), cited=future)


def test_an_expired_writer_wrote_what_it_wrote(story: Story) -> None:
    story.grant(BOB, WRITE, until=TODAY - 5)
    story.check(story.version(story.head, 2, BOB), story.standing(BOB))


def test_read_only_keeps_agents_from_writing_whatever_they_were_granted(shared: Story) -> None:
    shared.pass_on(BOB, 1, AGENT, WRITE)
    shared.check(shared.version(shared.head, 2, AGENT), shared.standing(AGENT))
    shared.set(read_only=True)
    shared.uncounted(shared.version(shared.head, 2, AGENT), shared.standing(AGENT))
    shared.check(shared.version(shared.head, 2, BOB), shared.standing(BOB))
    shared.check(shared.version(shared.head, 2, OWNER), Standing(OWNER))


def test_locked_keeps_everybody_but_the_owner_from_writing(shared: Story) -> None:
    shared.set(locked=True)
    shared.uncounted(shared.version(shared.head, 2, BOB), shared.standing(BOB))
    # The owner's own version, made with the change of settings, cites the very link that locks.
    shared.check(shared.version(shared.head, 2, OWNER), Standing(OWNER))


@pytest.mark.parametrize(
    "places", [[], [0], [5], [2**24 - 1], [2**24], [0, 1], [3, 2**23], [1, 2, 3, 900, 2**24 - 2]]
)
def test_the_root_of_few_grants_is_that_of_the_whole_tree(places: list[int]) -> None:
    """Level by level over each node that is not empty; and each place's path leads to it."""
    leaves = {place: crypto.sha256(str(place).encode()) for place in places}
    level = dict(leaves)
    for _ in range(TREE_DEPTH):
        above = {place >> 1 for place in level}
        both = {place: (level.get(2 * place, EMPTY), level.get(2 * place + 1, EMPTY)) for place in above}
        level = {place: crypto.sha256(b"\x01" + left + right) for place, (left, right) in both.items()}
    assert grants_root(leaves) == level.get(0, EMPTY)
    for place in places:
        if place < 2**TREE_DEPTH:
            assert root_from_proof(place, leaves[place], grant_proof(leaves, place)) == grants_root(leaves)
