"""Policy statements: in which order they follow, and what somebody who is not the owner may state."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from policy_story import (
    AGENT,
    BLOCK,
    BOB,
    CAROL,
    MALLORY,
    OTHER_AGENT,
    OWNER,
    SETTINGS,
    TODAY,
    Story,
    leaf_of,
    proof_of,
    root_of,
)

from tallystone import policy
from tallystone.errors import Tampered
from tallystone.policy import Standing
from tallystone.statements import READ, SHARE, WRITE


@pytest.fixture
def shared() -> Story:
    """Bob holds `write` through grant 1, Carol `read` through grant 2."""
    made = Story()
    made.grant(BOB, WRITE)
    made.grant(CAROL, READ)
    return made


@pytest.fixture
def passing() -> Story:
    """Bob holds `write+share` with depth 2 through grant 1, Carol `share` with depth 1 through him (2), her agent
    `read` through her (3); Mallory `read` from the owner (4)."""
    made = Story()
    made.grant(BOB, WRITE | SHARE, depth=2)
    made.pass_on(BOB, 1, CAROL, SHARE, depth=1)
    made.pass_on(CAROL, 2, OTHER_AGENT, READ)
    made.grant(MALLORY, READ)
    return made


# -- links: order -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        {"block": "block-2"},
        {"number": 2},
        {"number": 5},
        {"previous": b"x" * 32},
        {"version": 4},
        {"version_digest": b"x" * 32},
        {"next_grant": 2},
        {"epoch": 0},
    ],
    ids=[
        "of another block",
        "replayed",
        "skipping",
        "forked",
        "on an older version",
        "on another version",
        "reusing numbers",
        "old epoch",
    ],
)
def test_even_an_owners_link_must_follow_its_predecessor(shared: Story, fields: dict[str, Any]) -> None:
    shared.follow("policy", shared.link(OWNER, version=5, version_digest=b"v" * 32, epoch=1))
    shared.refused("policy", shared.link(OWNER, **fields))


def test_a_link_is_not_followed_twice(shared: Story) -> None:
    link = shared.link(OWNER)
    shared.follow("policy", link)
    shared.refused("policy", link)


def test_ownership_does_not_pass_by_an_ordinary_link(shared: Story) -> None:
    shared.refused("policy", shared.link(OWNER, owner=BOB))
    assert policy.by_owner(BLOCK, OWNER, "policy", shared.link(OWNER, owner=BOB), b"x" * 32) is None


@pytest.mark.parametrize("kind", ["membership", "version", "genesis", "nonsense"])
def test_a_statement_type_that_is_unknown_is_refused(shared: Story, kind: str) -> None:
    with pytest.raises(Tampered):
        policy.by_owner(BLOCK, OWNER, kind, shared.link(OWNER), b"x" * 32)
    shared.refused(kind, shared.link(OWNER))


def test_an_owners_link_of_another_block_is_refused(shared: Story) -> None:
    with pytest.raises(Tampered):
        policy.by_owner(BLOCK, OWNER, "policy", shared.link(OWNER, block="block-2"), b"x" * 32)


def test_a_link_by_another_issuer_does_not_stand_for_itself(shared: Story) -> None:
    assert policy.by_owner(BLOCK, OWNER, "grant", shared.link(BOB), b"x" * 32) is None


def test_a_links_settings_are_such_that_a_rule_can_be_asked_of_them(shared: Story) -> None:
    for name, value in (
        ("locked", 0),
        ("read_only", None),
        ("limit", 1.0),
        ("sensitivity", True),
        ("allowed", [1]),
    ):
        shared.refused("policy", shared.link(OWNER, settings={**SETTINGS, name: value}))
    looks_the_same = {**SETTINGS, "read_only": 0}
    assert looks_the_same == SETTINGS
    shared.refused("grant", shared.granting(BOB, shared.leaf(AGENT, READ, 1), settings=looks_the_same))


# -- placing and passing on -------------------------------------------------------------------------------------


def test_a_grantee_may_place_the_block_with_an_agent_below_itself(shared: Story) -> None:
    shared.pass_on(BOB, 1, AGENT, WRITE)
    assert policy.may_write(shared.head, shared.standing(AGENT), TODAY)


@pytest.mark.parametrize(
    "fields",
    [
        {"settings": {**SETTINGS, "limit": 10**6}},
        {"settings": {**SETTINGS, "read_only": True}},
        {"settings": {**SETTINGS, "transfer": [BOB]}},
        {"admin": b"a" * 32},
        {"owner": BOB},
        {"next_grant": 9},
        {"epoch": 1},
    ],
    ids=["limit", "read_only", "transfer", "admin key", "owner", "numbers", "epoch"],
)
def test_a_grantees_link_changes_nothing_but_its_grant(shared: Story, fields: dict[str, Any]) -> None:
    shared.refused("grant", shared.granting(BOB, shared.leaf(AGENT, READ, 1), **fields))


def test_a_writer_does_not_lift_read_only(shared: Story) -> None:
    shared.set(read_only=True)
    lifted = {**shared.head.settings, "read_only": False}
    shared.refused("policy", shared.link(BOB, settings=lifted), why="owner's alone")
    shared.refused("policy", shared.rotating(BOB, settings=lifted), why="owner's alone")
    shared.refused("grant", shared.granting(BOB, shared.leaf(AGENT, READ, 1), settings=lifted))


def test_a_sharer_signs_no_settings(passing: Story) -> None:
    for settings in ({**SETTINGS, "locked": True}, {**SETTINGS, "sensitivity": 1}, {}):
        for kind in ("policy", "grant", "revocation", "transfer"):
            passing.refused(kind, passing.rotating(BOB, settings=settings))


@pytest.mark.parametrize(
    "fields",
    [
        {"rights": READ | WRITE},
        {"rights": SHARE},
        {"rights": READ | SHARE},
        {"rights": 8},
        {"rights": -1},
        {"depth": 1},
        {"depth": -1},
        {"parent": 0},
        {"parent": 1},
        {"recipient": BOB},
        {"recipient": AGENT},
        {"recipient": "role-team"},
        {"recipient": CAROL},
        {"recipient": OWNER},
        {"record": b"x" * 32},
        {"grant": 4},
        {"grant": 2},
    ],
    ids=str,
)
def test_a_reader_cannot_give_more_than_it_holds(shared: Story, fields: dict[str, Any]) -> None:
    leaf = replace(shared.leaf(OTHER_AGENT, READ, 2), **fields)
    shared.refused("grant", shared.granting(CAROL, leaf, next_grant=4))
    shared.judged("grant", shared.granting(CAROL, shared.leaf(OTHER_AGENT, READ, 2)))


def test_a_grantee_cannot_raise_its_own_right(shared: Story) -> None:
    raised = replace(shared.leaves[2], rights=READ | WRITE)
    after = {**shared.leaves, 2: raised}
    for place in (2, 3):
        change = {"grant": place, "leaf": raised.encode(), "proof": proof_of(shared.leaves, place)}
        shared.refused("grant", shared.link(CAROL, after, change=change, next_grant=place + 1))


def test_a_grant_beyond_escalated_rights_is_forged(shared: Story) -> None:
    """The leaf that Carol shows says `write`, the one in the tree `read`."""
    carol = shared.standing(CAROL)
    assert carol.leaf is not None
    for fields in ({"rights": WRITE | SHARE}, {"depth": 5}, {"until": None, "rights": SHARE}):
        raised = replace(carol, leaf=replace(carol.leaf, **fields))
        link = shared.granting(CAROL, shared.leaf(MALLORY, READ, 2))
        shared.refused("grant", link, raised)


def test_a_grantee_cannot_outlast_itself_nor_give_history_it_lacks() -> None:
    story = Story()
    story.grant(BOB, WRITE, until=TODAY + 5, history=False)
    for fields in ({"until": None}, {"until": TODAY + 6}, {"until": TODAY + 5, "history": True}):
        leaf = replace(story.leaf(AGENT, READ, 1, history=False), **fields)
        story.refused("grant", story.granting(BOB, leaf), why="exceeds")
    story.pass_on(BOB, 1, AGENT, READ, until=TODAY + 5, history=False)


def test_an_expiry_cannot_be_extended_in_the_leaf() -> None:
    story = Story()
    story.grant(BOB, WRITE, until=TODAY - 1)
    bob = story.standing(BOB)
    for until in (None, TODAY + 5):
        extended = replace(bob, leaf=replace(story.leaves[1], until=until))
        assert policy.rights(story.head, extended, TODAY) == 0
        story.refused("grant", story.granting(BOB, story.leaf(AGENT, READ, 1)), extended)
        after = {1: replace(story.leaves[1], until=until)}
        story.refused("policy", story.rotating(BOB, after), extended)


def test_an_expired_or_revoked_grantee_places_nothing() -> None:
    story = Story()
    story.grant(BOB, WRITE, until=TODAY - 1)
    leaf = story.leaf(AGENT, READ, 1, until=TODAY - 1)
    story.refused("grant", story.granting(BOB, leaf), why="not allowed")
    story.grant(CAROL, WRITE)
    before = story.standing(CAROL)
    story.revoke(2)
    story.refused("grant", story.granting(CAROL, story.leaf(OTHER_AGENT, READ, 2)), before)


def test_a_replayed_grant_after_a_revoke_is_refused(passing: Story) -> None:
    """The very link again, and the same grant stated anew by a sharer who is one no more."""
    leaf, by = passing.leaf(MALLORY, READ, 2), passing.standing(CAROL)
    link = passing.granting(CAROL, leaf)
    passing.follow("grant", link, {**passing.leaves, leaf.grant: leaf}, by)
    passing.revoke(2, 3, leaf.grant, issuer=OWNER)
    passing.refused("grant", link, by)
    passing.refused("grant", passing.granting(CAROL, replace(leaf, grant=passing.head.next_grant)), by)
    gone = Standing(MALLORY, leaf, tuple(proof_of(passing.leaves, leaf.grant)))
    assert policy.rights(passing.head, gone, TODAY) == 0


def test_a_grantee_cannot_use_anothers_grant_as_its_authority(shared: Story) -> None:
    link = shared.granting(CAROL, shared.leaf(OTHER_AGENT, READ | WRITE, 1))
    bob = shared.standing(BOB)
    for by in (bob, replace(bob, principal=CAROL), replace(shared.standing(CAROL), proof=bob.proof)):
        shared.refused("grant", link, by)


def test_a_forged_grant_without_any_standing_is_refused(shared: Story) -> None:
    link = shared.granting(BOB, shared.leaf(AGENT, READ, 1))
    for by in (Standing(BOB), Standing(OWNER), Standing(CAROL)):
        shared.refused("grant", link, by, why="lacks its proof")
    with pytest.raises(Tampered, match="lacks its proof"):
        policy.follow(shared.head, "grant", link, b"x" * 32, TODAY)
    with pytest.raises(Tampered, match="nobody vouches"):
        policy.follow(shared.head, "grant", link, b"x" * 32, TODAY, shared.standing(BOB))


def test_a_grantee_cannot_slip_a_second_change_under_the_one_it_names(shared: Story) -> None:
    leaf = shared.leaf(AGENT, READ, 1)
    ghost = leaf_of(9, "agent-ghost", WRITE)
    honest = shared.granting(BOB, leaf)
    shared.refused("grant", replace(honest, grants=root_of({**shared.leaves, leaf.grant: leaf, 9: ghost})))
    shared.refused("grant", replace(honest, grants=root_of({1: shared.leaves[1], leaf.grant: leaf})))


def test_only_a_sharer_grants_to_others(shared: Story, passing: Story) -> None:
    for who in (CAROL, OTHER_AGENT, "role-team", "role-bobs"):
        shared.refused("grant", shared.granting(BOB, shared.leaf(who, READ, 1)), why="exceeds")
    for who in (MALLORY, "agent-mallorys", "role-team"):
        passing.judged("grant", passing.granting(CAROL, passing.leaf(who, READ, 2)))


def test_share_is_passed_on_only_with_less_depth(passing: Story) -> None:
    for depth in (1, 2, -1):
        leaf = passing.leaf(MALLORY, SHARE, 2, depth=depth)
        passing.refused("grant", passing.granting(CAROL, leaf), why="exceeds")
    last = passing.pass_on(CAROL, 2, MALLORY, SHARE, depth=0)
    by = passing.standing(MALLORY, last)
    further = passing.leaf("user-dave", SHARE, last)
    passing.refused("grant", passing.granting(MALLORY, further), by, why="exceeds")
    passing.judged("grant", passing.granting(MALLORY, replace(further, rights=READ)), by)
    passing.refused("grant", passing.granting(MALLORY, replace(further, rights=WRITE)), by, why="exceeds")


def test_depth_without_share_passes_nothing_on() -> None:
    story = Story()
    story.grant(BOB, WRITE, depth=3)
    story.refused("grant", story.granting(BOB, story.leaf(AGENT, SHARE, 1)), why="exceeds")
    story.refused("grant", story.granting(BOB, story.leaf(CAROL, READ, 1)), why="exceeds")


# -- revoking ---------------------------------------------------------------------------------------------------


def test_a_grantee_takes_back_its_own_placement_and_nothing_else(shared: Story) -> None:
    mine = shared.pass_on(BOB, 1, AGENT, READ)
    for who, number in ((BOB, 2), (BOB, 1), (CAROL, mine), (CAROL, 2), (MALLORY, mine)):
        shared.refused("revocation", shared.revoking(who, number))
    for fields in ({"epoch": 2}, {"next_grant": shared.head.next_grant + 1}, {"admin": b"a" * 32}):
        shared.refused("revocation", shared.revoking(BOB, mine, **fields))
    shared.revoke(mine, issuer=BOB)
    assert policy.rights(shared.head, shared.standing(AGENT), TODAY) == 0


def test_a_sharer_revokes_its_subtree_parents_first(passing: Story) -> None:
    for numbers in ((4,), (1,), (1, 2, 3), (3, 2), (2, 3, 4), (2, 2), ()):
        passing.refused("revocation", passing.revoking(BOB, *numbers))
    passing.refused("revocation", passing.revoking(CAROL, 2, 3))
    passing.judged("revocation", passing.revoking(CAROL, 3))
    passing.revoke(2, 3, issuer=BOB)
    assert set(passing.leaves) == {1, 4}


def test_a_revocation_names_what_it_takes(passing: Story) -> None:
    honest = passing.revoking(BOB, 2, 3)
    passing.refused("revocation", replace(honest, grants=root_of({})))
    passing.refused("revocation", replace(honest, grants=passing.head.grants))
    without = replace(honest, change={**honest.change, "gone": honest.change["gone"][:1]})
    passing.refused("revocation", without)


def test_a_revocation_as_the_first_release_stated_it(shared: Story) -> None:
    mine = shared.pass_on(BOB, 1, AGENT, READ)
    leaf = shared.leaves[mine]
    change = {"grant": mine, "leaf": leaf.encode(), "proof": proof_of(shared.leaves, mine), "due": True}
    shared.judged("revocation", shared.revoking(BOB, mine, change=change))


def test_whoever_leaves_the_keys_as_they_were_says_that_they_must_change(passing: Story) -> None:
    honest = passing.revoking(BOB, 2, 3)
    for due in ({}, {"due": False}, {"due": 1}):
        change = {"gone": honest.change["gone"], **due}
        passing.refused("revocation", replace(honest, change=change), why="hides")
    passing.judged("revocation", replace(honest, change={"gone": honest.change["gone"]}, epoch=1))
    passing.revoke(2, 3, issuer=BOB)
    leaf = passing.leaf(CAROL, READ, 1)
    hiding = passing.granting(BOB, leaf)
    passing.refused("grant", hiding, why="hides")
    passing.follow(
        "grant", replace(hiding, change={**hiding.change, "due": True}), {**passing.leaves, leaf.grant: leaf}
    )
    assert passing.head.due
    passing.follow("policy", passing.rotating(BOB))
    assert not passing.head.due


def test_a_reader_cannot_say_that_it_changed_the_keys(shared: Story) -> None:
    mine = shared.pass_on(CAROL, 2, OTHER_AGENT, READ)
    shared.refused("revocation", shared.revoking(CAROL, mine, epoch=1), why="more than it may")
    shared.judged("revocation", shared.revoking(CAROL, mine))
    bobs = shared.pass_on(BOB, 1, AGENT, READ)
    shared.judged("revocation", shared.revoking(BOB, bobs, epoch=1))
