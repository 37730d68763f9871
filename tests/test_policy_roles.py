"""Grants through roles, whom a block may be granted to at all, and what a genesis fixes for good."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from policy_story import (
    AGENT,
    BLOCK,
    BOB,
    CAROL,
    INNER,
    MALLORY,
    OTHER_AGENT,
    OWNER,
    OWNERS_AGENT,
    ROLE,
    SETTINGS,
    TODAY,
    Story,
    Team,
    leaf_of,
    proof_of,
    record_of,
    root_of,
    through,
)

from tallystone import policy
from tallystone.errors import Tampered
from tallystone.policy import Party, Standing
from tallystone.statements import EMPTY, READ, SHARE, WRITE, Genesis, PrincipalRecord, Version


@pytest.fixture
def team() -> Team:
    """Bob (1) and Carol (2) are in it; it is Mallory's."""
    made = Team(owner=MALLORY)
    made.add(BOB)
    made.add(CAROL)
    return made


@pytest.fixture
def story() -> Story:
    """The role holds `write+share` with depth 1 through grant 1."""
    made = Story()
    made.grant(ROLE, WRITE | SHARE, depth=1)
    return made


def wrote(story: Story, by: Standing, **fields: Any) -> Version:
    """A version that names the heads it came through."""
    heads = {step.head.role: step.head.serial for step in by.via}
    return story.version(story.head, 2, by.principal, **{"authority": {"heads": heads}, **fields})


# -- through roles ----------------------------------------------------------------------------------------------


def test_members_and_the_roles_owner_hold_what_the_role_was_granted(story: Story, team: Team) -> None:
    for who, number in ((BOB, 1), (CAROL, 2), (MALLORY, None)):
        by = through(story, who, 1, team.via(number))
        assert policy.rights(story.head, by, TODAY) == READ | WRITE | SHARE
        story.check(wrote(story, by), by)


def test_a_ghost_member_holds_nothing(story: Story, team: Team) -> None:
    """Neither with another's leaf, nor with one that is not in the head, nor without any, nor as another's owner."""
    ghost, step = "user-ghost", team.via(1)
    own = leaf_of(3, ghost, READ)
    for false in (
        step,
        replace(step, leaf=own),
        replace(step, leaf=own, proof=tuple(proof_of(team.members, 3))),
        replace(step, leaf=replace(team.members[1], recipient=ghost)),
        replace(step, leaf=None),
        replace(step, leaf=None, proof=()),
    ):
        by = through(story, ghost, 1, false)
        assert policy.rights(story.head, by, TODAY) == 0
        story.uncounted(wrote(story, by), by)
    assert policy.rights(story.head, through(story, ghost, 1), TODAY) == 0


def test_a_membership_that_has_ended_gives_nothing(story: Story, team: Team) -> None:
    number = team.add("user-dave", until=TODAY)
    by = through(story, "user-dave", 1, team.via(number))
    assert policy.rights(story.head, by, TODAY)
    assert policy.rights(story.head, by, TODAY + 1) == 0


def test_a_head_of_another_role_opens_nothing(story: Story, team: Team) -> None:
    other = Team("role-others", owner=MALLORY)
    by = through(story, BOB, 1, other.via(other.add(BOB)))
    assert policy.rights(story.head, by, TODAY) == 0
    # Not even if the records that its owner makes it name are the role's.
    same = replace(by.via[0], records=team.via(1).records)
    assert policy.rights(story.head, through(story, BOB, 1, same), TODAY) == 0
    # Nor a head of the role that was signed as a different record, of which the role's grants know nothing.
    strange = replace(team.via(1), records=frozenset({record_of("role-others", 1)}))
    assert policy.rights(story.head, through(story, BOB, 1, strange), TODAY) == 0


def test_a_removed_member_with_the_old_head_has_no_newer_grant(story: Story, team: Team) -> None:
    old = team.via(1)
    team.remove(1)
    number = story.grant(ROLE, WRITE, record=record_of(ROLE, 1))
    by = through(story, BOB, number, old)
    assert policy.rights(story.head, by, TODAY) == 0
    story.uncounted(wrote(story, by), by)
    assert policy.rights(story.head, through(story, CAROL, number, team.via(2)), TODAY) == READ | WRITE
    assert policy.rights(
        story.head, through(story, CAROL, 1, team.via(2)), TODAY
    )  # an older grant, a newer head


def test_a_removed_member_with_the_old_head_has_no_renewed_grant(story: Story, team: Team) -> None:
    """Removal marks the blocks that the role reaches; who rotates renews the role's grant under its new record."""
    old = team.via(1)
    team.remove(1)
    after = {1: replace(story.leaves[1], record=record_of(ROLE, 1), salt=b"n" * 16)}
    story.follow("policy", story.rotating(CAROL, after), after, through(story, CAROL, 1, team.via(2)))
    by = through(story, BOB, 1, old)
    assert policy.rights(story.head, by, TODAY) == 0
    story.uncounted(wrote(story, by), by)
    story.refused("grant", story.granting(BOB, story.leaf("user-dave", READ, 1)), by)
    # Nor does the new head help, in which he is not.
    forged = replace(team.via(2), leaf=old.leaf, proof=old.proof)
    assert policy.rights(story.head, through(story, BOB, 1, forged), TODAY) == 0


def test_an_old_head_replayed_goes_back_and_is_refused(story: Story, team: Team) -> None:
    old = through(story, BOB, 1, team.via(1))
    team.add("user-dave")
    new = through(story, CAROL, 1, team.via(2))
    first, second = wrote(story, old), wrote(story, new)
    policy.check_serials(None, first, old.via)
    policy.check_serials(first, second, new.via)
    with pytest.raises(Tampered, match="older"):
        policy.carried(second, old.via)
    with pytest.raises(Tampered, match="older"):
        policy.check_serials(second, wrote(story, old), old.via)


def test_a_version_names_the_heads_it_came_through_and_carries_on_the_others(
    story: Story, team: Team
) -> None:
    by = through(story, BOB, 1, team.via(1))
    for heads in ({}, {ROLE: 1}, {ROLE: 3}, {"role-others": 2}):
        story.uncounted(wrote(story, by, authority={"heads": heads}), by)
    story.uncounted(wrote(story, by, authority={}), by)
    first = wrote(story, by)
    assert policy.carried(first, ()) == first.authority == {"heads": {ROLE: 2}}
    kept = story.version(story.head, 3, OWNER, authority=first.authority)
    policy.check_serials(first, kept, ())
    for heads in ({}, {ROLE: 1}, {ROLE: 3}, {ROLE: 2, "role-others": 1}):
        with pytest.raises(Tampered):
            policy.check_serials(first, replace(kept, authority={"heads": heads}), ())


def test_a_writer_cannot_keep_a_roles_members_out(story: Story, team: Team) -> None:
    """A serial that the role never had would make every head of its owner's an older one."""
    raised = story.version(story.head, 2, OWNER, authority={"heads": {ROLE: 10**9}})
    with pytest.raises(Tampered):
        policy.check_serials(None, raised, ())
    with pytest.raises(Tampered):
        policy.check_serials(None, raised, (team.via(1),))


@pytest.mark.parametrize("heads", [[], {ROLE: "2"}, {7: 2}, {ROLE: True}, None, 3], ids=str)
def test_malformed_heads_are_refused(story: Story, heads: object) -> None:
    with pytest.raises(Tampered, match="malformed"):
        policy.serials(story.version(story.head, 2, OWNER, authority={"heads": heads}))


def test_roles_within_roles_lead_on_and_no_further_than_they_go(story: Story, team: Team) -> None:
    inner = Team(INNER, owner=MALLORY)
    member = inner.add("user-dave")
    place = team.add(INNER)
    by = through(story, "user-dave", 1, team.via(place), inner.via(member))
    assert policy.rights(story.head, by, TODAY) == READ | WRITE | SHARE
    story.check(wrote(story, by), by)
    both = (team.via(place), inner.via(member))
    for steps in ((), both[:1], both[1:], both[::-1], (*both, both[1])):
        assert policy.rights(story.head, through(story, "user-dave", 1, *steps), TODAY) == 0
    owner = through(story, MALLORY, 1, team.via(place), inner.via(None))
    assert policy.rights(story.head, owner, TODAY)
    early = through(story, MALLORY, 1, team.via(None), inner.via(member))
    assert policy.rights(story.head, early, TODAY) == 0


def test_a_member_removed_from_the_inner_role_is_out_of_the_outer_one(story: Story, team: Team) -> None:
    inner = Team(INNER, owner=MALLORY)
    member = inner.add("user-dave")
    old = inner.via(member)
    inner.add(AGENT)
    inner.remove(member)
    place = team.add(INNER, record=record_of(INNER, 1))
    assert policy.rights(story.head, through(story, "user-dave", 1, team.via(place), old), TODAY) == 0
    assert policy.rights(story.head, through(story, AGENT, 1, team.via(place), inner.via(2)), TODAY)


def test_a_way_through_more_roles_than_a_few_is_none() -> None:
    for deep in (policy.ROLE_DEPTH, policy.ROLE_DEPTH + 1):
        story = Story()
        story.grant("role-0", READ)
        teams = [Team(f"role-{number}") for number in range(deep)]
        places = [one.add(f"role-{number}") for number, one in enumerate(teams[:-1], 1)]
        places.append(teams[-1].add(BOB))
        steps = [one.via(place) for one, place in zip(teams, places, strict=True)]
        expected = READ if deep == policy.ROLE_DEPTH else 0
        assert policy.rights(story.head, through(story, BOB, 1, *steps), TODAY) == expected


def test_read_only_binds_an_agent_in_a_role(story: Story, team: Team) -> None:
    number = team.add(AGENT)
    by = through(story, AGENT, 1, team.via(number))
    story.check(wrote(story, by), by)
    story.set(read_only=True)
    story.uncounted(wrote(story, by), by)


# -- what members may state -------------------------------------------------------------------------------------


def test_a_member_passes_on_and_takes_back_what_the_role_holds(story: Story, team: Team) -> None:
    by = through(story, BOB, 1, team.via(1))
    given = story.pass_on(BOB, 1, "user-dave", WRITE, by)
    carol = through(story, CAROL, 1, team.via(2))
    for who, number in ((CAROL, 1), (CAROL, 9)):
        if number in story.leaves:
            story.refused("revocation", story.revoking(who, number), carol)
    story.follow("revocation", story.revoking(CAROL, given), {1: story.leaves[1]}, carol)


def test_a_member_grants_neither_to_itself_nor_to_the_role(story: Story, team: Team) -> None:
    by = through(story, BOB, 1, team.via(1))
    for who in (BOB, ROLE, OWNER):
        story.refused("grant", story.granting(BOB, story.leaf(who, READ, 1)), by, why="not allowed")


def test_a_grant_through_a_role_is_not_placed(team: Team) -> None:
    story = Story()
    story.grant(ROLE, WRITE)
    by = through(story, BOB, 1, team.via(1))
    story.refused("grant", story.granting(BOB, story.leaf(AGENT, READ, 1)), by, why="exceeds")


def test_a_stranger_states_nothing_by_a_roles_grant(story: Story, team: Team) -> None:
    by = through(story, "user-dave", 1, team.via(1))
    for kind, link in (
        ("grant", story.granting("user-dave", story.leaf("user-eve", READ, 1))),
        ("policy", story.rotating("user-dave")),
    ):
        story.refused(kind, link, by)
        story.refused(kind, link, through(story, BOB, 1, team.via(1)))


# -- whom a block may be granted to -----------------------------------------------------------------------------


def record(kind: str, level: int | None) -> PrincipalRecord:
    """A record of somebody with this clearance."""
    return PrincipalRecord(kind, "x", 0, EMPTY, b"", b"", "", "active", level, 0)


def test_clearance_is_ones_own_and_an_agents_no_more_than_its_sponsors() -> None:
    assert [policy.clearance(record("user", level), None) for level in (None, 0, 3)] == [0, 0, 3]
    assert policy.clearance(record("role", 2), record("user", 0)) == 2
    cases = {(None, 2): 2, (1, 2): 1, (3, 2): 2, (3, None): 0, (0, 3): 0, (None, None): 0}
    for (own, sponsors), expected in cases.items():
        assert policy.clearance(record("agent", own), record("user", sponsors)) == expected
    assert policy.clearance(record("agent", 3), None) == 0


@pytest.mark.parametrize(("cleared", "why"), [(0, "clearance"), (1, "clearance"), (2, None), (3, None)])
def test_sensitivity_asks_for_clearance(cleared: int, why: str | None) -> None:
    party = Party(BOB, "user", OWNER, cleared)
    assert policy.refusal({**SETTINGS, "sensitivity": 2}, OWNER, party) == why
    assert policy.refusal(SETTINGS, OWNER, party) is None


@pytest.mark.parametrize(
    ("allowed", "admitted"),
    [
        ([], []),
        ([BOB], [BOB, AGENT]),
        ([AGENT], []),
        ([AGENT, BOB], [BOB, AGENT]),
        ([OWNERS_AGENT], [OWNERS_AGENT]),
        ([OWNER], [OWNERS_AGENT]),
        ([ROLE], [ROLE]),
        ([CAROL, ROLE], [CAROL, OTHER_AGENT, ROLE]),
    ],
    ids=str,
)
def test_an_allow_list_admits_whom_it_names_and_an_empty_one_nobody(
    allowed: list[str], admitted: list[str]
) -> None:
    story = Story()
    parties = [story.party(who, b"r" * 32) for who in (BOB, CAROL, AGENT, OTHER_AGENT, OWNERS_AGENT, ROLE)]
    settings = {**SETTINGS, "allowed": allowed}
    assert [one.id for one in parties if policy.refusal(settings, OWNER, one) is None] == admitted
    assert not [one for one in parties if policy.refusal(SETTINGS, OWNER, one)]


def test_a_sharer_grants_to_nobody_whom_the_policy_does_not_admit() -> None:
    story = Story(sensitivity=1, allowed=[BOB, CAROL, "user-dave"])
    story.clearances = {CAROL: 1}
    story.grant(BOB, WRITE | SHARE)
    for who in ("user-dave", MALLORY, OTHER_AGENT, AGENT):
        story.refused("grant", story.granting(BOB, story.leaf(who, READ, 1)), why="does not admit")
    story.pass_on(BOB, 1, CAROL, READ)


# -- what a genesis fixes ---------------------------------------------------------------------------------------


def genesis(**fields: Any) -> Genesis:
    """A block's first statement."""
    change = {"payload": b"h" * 32}
    honest = Genesis("block", OWNER, b"r" * 32, b"n" * 16, 1, True, False, "", EMPTY, 1, SETTINGS, change)
    return replace(honest, **fields)


def test_an_immutable_block_keeps_its_first_content(story: Story) -> None:
    same = story.version(story.head, 2, OWNER)
    other = replace(same, payload=b"i" * 32)
    policy.check_fixed(genesis(mutable=False), same)
    policy.check_fixed(genesis(), other)
    for fixed in (genesis(mutable=False), genesis(mutable=False, change={})):
        with pytest.raises(Tampered, match="immutable"):
            policy.check_fixed(fixed, other)


def test_an_append_only_block_grows_at_its_end() -> None:
    policy.check_appended(("one", b"x"), ("one", b"x"))
    policy.check_appended(("one", b"x"), ("one, two", b"x"))
    for after in (("on", b"x"), ("", b"x"), ("two, one", b"x"), ("one, two", b"y")):
        with pytest.raises(Tampered, match="append"):
            policy.check_appended(("one", b"x"), after)


# -- what is taken at its word ----------------------------------------------------------------------------------


def test_the_owners_seat_is_the_place_that_a_transfer_took(story: Story) -> None:
    assert story.head.seat == 0
    assert replace(story.head, settings={**SETTINGS, "seat": 7}).seat == 7
    assert replace(story.head, settings={**SETTINGS, "seat": "7"}).seat == 0


def test_an_owners_link_stands_for_itself(story: Story) -> None:
    link = story.rotating(OWNER, grants=root_of({}))
    head = policy.by_owner(BLOCK, OWNER, "policy", link, b"x" * 32)
    assert head == policy.snapshot(link, b"x" * 32)
    assert policy.by_owner(BLOCK, BOB, "policy", link, b"x" * 32) is None


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"limit": 1, "read_only": False},
        {**SETTINGS, "limit": "1"},
        {**SETTINGS, "limit": True},
        {**SETTINGS, "locked": 1},
        {**SETTINGS, "sensitivity": True},
        {**SETTINGS, "expires": "x"},
        {**SETTINGS, "seat": None},
        {**SETTINGS, "allowed": None},
        {**SETTINGS, "allowed": [7]},
        {**SETTINGS, "transfer": BOB},
        {**SETTINGS, "transfer": [b"x"]},
    ],
    ids=str,
)
def test_malformed_settings_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(Tampered, match="settings"):
        policy.check_settings(settings)


def test_settings_of_later_versions_are_left_to_them() -> None:
    policy.check_settings(
        {**SETTINGS, "colour": 7, "sensitivity": 2, "allowed": [], "transfer": [BOB], "expires": 9}
    )
