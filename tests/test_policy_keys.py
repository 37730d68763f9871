"""Policy statements that change keys or the owner, and statements whose bytes are anything at all."""

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
    OWNER,
    SETTINGS,
    TODAY,
    Story,
    leaf_of,
    record_of,
    root_of,
    salted,
)

from tallystone import policy
from tallystone.errors import Tampered
from tallystone.policy import Standing
from tallystone.statements import READ, SHARE, WRITE, Leaf, Link


@pytest.fixture
def shared() -> Story:
    """Bob holds `write` through grant 1, Carol `read` through grant 2."""
    made = Story()
    made.grant(BOB, WRITE)
    made.grant(CAROL, READ)
    return made


@pytest.fixture
def passing() -> Story:
    """Bob holds `write+share` with depth 2 through grant 1, Carol `share` with depth 1 through him (2)."""
    made = Story()
    made.grant(BOB, WRITE | SHARE, depth=2)
    made.pass_on(BOB, 1, CAROL, SHARE, depth=1)
    return made


# -- new keys ---------------------------------------------------------------------------------------------------


def renewed(story: Story, *numbers: int, **fields: Any) -> dict[int, Leaf]:
    """The live grants, these of them with new keys."""
    return {
        number: replace(leaf, salt=salted(number + 100), **fields) if number in numbers else leaf
        for number, leaf in story.leaves.items()
    }


def test_writers_and_sharers_change_the_keys_and_nothing_else(shared: Story, passing: Story) -> None:
    shared.judged("policy", shared.rotating(BOB))
    shared.judged("policy", shared.rotating(BOB, renewed(shared, 1, 2)))
    passing.judged("policy", passing.rotating(CAROL))
    shared.refused("policy", shared.rotating(CAROL), why="only the owner")
    shared.refused("policy", shared.rotating(MALLORY))
    others: list[dict[str, Any]] = [
        {"epoch": 0}, {"epoch": 2}, {"next_grant": 9}, {"change": {}}, {"owner": BOB},
    ]  # fmt: skip
    for fields in others:
        shared.refused("policy", shared.rotating(BOB, **fields))
    shared.refused("policy", shared.rotating(BOB, grants=root_of({1: shared.leaves[1]})))


def test_only_a_sharer_brings_a_new_admin_key(shared: Story, passing: Story) -> None:
    shared.refused("policy", shared.rotating(BOB, admin=b"a" * 32))
    shared.refused("policy", shared.rotating(BOB, renewed(shared, 1, 2), admin=b"a" * 32))
    for who in (BOB, CAROL):
        passing.judged("policy", passing.rotating(who, admin=b"a" * 32))


def test_a_list_of_renewed_grants_is_complete_and_leaves_each_as_it_was(shared: Story) -> None:
    honest = shared.rotating(BOB, renewed(shared, 1, 2))
    listed = honest.change["renewed"]
    ghost = leaf_of(3, MALLORY, WRITE)
    entry = [ghost.encode(), ghost.record, ghost.salt]
    for false in (listed[:1], [*listed, listed[0]], [*listed, entry], [], [listed[0], entry]):
        shared.refused("policy", replace(honest, change={"rotated": 1, "renewed": false}))
    raised = {**renewed(shared, 1, 2), 2: replace(shared.leaves[2], rights=WRITE)}
    shared.refused("policy", replace(honest, grants=root_of(raised)))
    shared.refused("policy", replace(honest, grants=root_of({1: shared.leaves[1]})))
    shared.refused("policy", replace(honest, grants=shared.head.grants))
    as_if = [[raised[2].encode(), raised[2].record, raised[2].salt], listed[0]]
    change = {"rotated": 1, "renewed": as_if}
    shared.refused("policy", replace(honest, change=change, grants=root_of(raised)))


def test_a_renewed_grant_never_goes_back_to_an_earlier_record() -> None:
    """An earlier record of a role would let in who has left it; an unknown one, anybody."""
    story = Story()
    story.grant(BOB, WRITE)
    story.grant("role-team", WRITE, record=record_of("role-team", 2))
    for serial, stands in ((0, False), (1, False), (2, True), (3, True), (4, False)):
        link = story.rotating(BOB, renewed(story, 2, record=record_of("role-team", serial)))
        if stands:
            story.judged("policy", link)
        else:
            story.refused("policy", link)
    with pytest.raises(Tampered, match="nobody vouches"):
        link = story.rotating(BOB, renewed(story, 2, record=record_of("role-team", 3)))
        policy.follow(story.head, "policy", link, b"x" * 32, TODAY, story.standing(BOB))


@pytest.mark.parametrize(
    "fields", [{"salt": 7}, {"salt": "x"}, {"salt": None}, {"record": []}, {"record": 7}], ids=str
)
def test_a_renewed_grant_can_still_be_read(shared: Story, fields: dict[str, Any]) -> None:
    after = {**shared.leaves, 2: replace(shared.leaves[2], **fields)}
    shared.refused("policy", shared.rotating(BOB, after))


# -- another owner ----------------------------------------------------------------------------------------------


def taking(story: Story, who: str, **fields: Any) -> Link:
    """The link of somebody who takes a block over."""
    head = story.head
    kept = {name: value for name, value in head.settings.items() if name not in ("transfer", "seat")}
    honest = {
        "owner": who, "settings": {**kept, "seat": head.next_grant}, "next_grant": head.next_grant + 1,
        "epoch": head.epoch + 1, "admin": b"a" * 32,
    }  # fmt: skip
    return story.link(who, **{**honest, **fields})


def test_a_block_changes_hands_by_the_word_of_both(shared: Story) -> None:
    shared.refused("transfer", taking(shared, BOB))
    shared.set(transfer=[BOB])
    for who in (CAROL, MALLORY, OWNER):
        shared.refused("transfer", taking(shared, who))
    shared.refused("transfer", replace(taking(shared, BOB), issuer=CAROL))
    link = taking(shared, BOB)
    assert policy.by_owner(BLOCK, BOB, "transfer", link, b"x" * 32) is None
    shared.follow("transfer", link)
    assert (shared.head.owner, shared.head.seat) == (BOB, 3)
    assert "transfer" not in shared.head.settings
    assert policy.rights(shared.head, Standing(OWNER), TODAY) == 0
    shared.refused("policy", shared.link(OWNER, owner=OWNER))
    shared.refused("policy", shared.link(OWNER))
    shared.follow("policy", shared.link(BOB, settings={**shared.head.settings, "locked": True}))


@pytest.mark.parametrize(
    "fields",
    [
        {"owner": CAROL},
        {"owner": OWNER},
        {"settings": SETTINGS},
        {"settings": {**SETTINGS, "seat": 3, "locked": True}},
        {"settings": {**SETTINGS, "seat": 3, "transfer": [BOB]}},
        {"settings": {**SETTINGS, "seat": 3, "locked": 0}},
        {"settings": {**SETTINGS, "seat": 1}},
        {"next_grant": 3},
        {"next_grant": 5},
        {"epoch": 0},
        {"epoch": 2},
    ],
    ids=str,
)
def test_whoever_takes_a_block_over_does_no_more(shared: Story, fields: dict[str, Any]) -> None:
    shared.set(transfer=[BOB])
    shared.refused("transfer", taking(shared, BOB, **fields))
    shared.judged("transfer", taking(shared, BOB))


def test_an_offer_that_was_taken_back_is_not_accepted(shared: Story) -> None:
    shared.set(transfer=[BOB])
    early = taking(shared, BOB)
    shared.follow("policy", shared.link(OWNER, settings=SETTINGS))
    shared.refused("transfer", early)
    shared.refused("transfer", taking(shared, BOB))
    for named in ([], [BOB, CAROL], [CAROL, BOB]):
        shared.set(transfer=named)
        shared.refused("transfer", taking(shared, BOB))


# -- bytes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["policy", "transfer", "membership", "version"])
def test_a_grant_under_another_name_is_none(shared: Story, kind: str) -> None:
    shared.refused(kind, shared.granting(BOB, shared.leaf(AGENT, READ, 1)))


@pytest.mark.parametrize("kind", ["grant", "revocation", "policy"])
@pytest.mark.parametrize(
    "value", [None, 7, -1, "x", b"", b"\x80", [], [[]], [[b"", b"", b""]], {}, {"a": 1}, 1.5], ids=str
)
def test_a_link_is_refused_whatever_it_holds(shared: Story, kind: str, value: object) -> None:
    shared.pass_on(BOB, 1, AGENT, READ)
    links = {
        "grant": shared.granting(BOB, shared.leaf(AGENT, READ, 1)),
        "revocation": shared.revoking(BOB, 3),
        "policy": shared.rotating(BOB, renewed(shared, 1)),
    }
    link = links[kind]
    shared.judged(kind, link)
    for name in link.change.keys() - {"rotated", "due"}:
        shared.refused(kind, replace(link, change={**link.change, name: value}))
    if kind != "grant":
        name = "gone" if kind == "revocation" else "renewed"
        for place in range(len(link.change[name][0])):
            listed = [list(entry) for entry in link.change[name]]
            listed[0][place] = value
            shared.refused(kind, replace(link, change={**link.change, name: listed}))


def test_a_stranger_can_issue_nothing(shared: Story) -> None:
    forged = replace(shared.standing(BOB), principal=MALLORY)
    renamed = replace(forged, leaf=replace(shared.leaves[1], recipient=MALLORY))
    for kind in ("grant", "revocation", "policy"):
        for link in (shared.link(MALLORY), shared.granting(MALLORY, shared.leaf("agent-mallorys", READ, 1))):
            for by in (None, forged, renamed):
                shared.refused(kind, link, by)
    shared.refused("policy", shared.rotating(MALLORY), renamed)
