"""Earlier versions: each is verified from the newest back, and nothing is shown that was put there or taken away."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from force import by_force
from stores import thinned

from tallystone.errors import Denied, Invalid, Locked, NotFound, Tampered, Unauthenticated
from tallystone.statements import Version
from tallystone.store.protocol import Row
from tallystone.store.tables import VERSION
from tallystone.vault import Vault, Workspace
from tallystone.vault.entering import open_block
from tallystone.vault.opening import Opened
from tallystone.vault.passages import find_block
from tallystone.vault.plan import Plan
from tallystone.vault.records import open_payload
from tallystone.vault.types import Block, Credentials
from tallystone.vault.writing import add_version

pytestmark = thinned(2, "they differ in who asks, and ask for the same few kinds of rows")


def write(vault: Vault, block: Block, value: str) -> None:
    vault.edit_block(block.id, lambda _: {"value": value})


def append(vault: Vault, block: Block, line: str) -> None:
    vault.edit_block(block.id, lambda now: {"value": f"{now.value}\n{line}"})


def writer(
    workspace: Workspace, alice: Vault, who: Credentials, block: Block, can: str = "write", **terms: Any
) -> Vault:
    alice.share(block.id, who.principal, can, **terms)
    vault = workspace.vault(who.token)
    vault.accept_offer(block.id)
    return vault


def numbers(vault: Vault, block: Block) -> list[int]:
    return [one.number for one in vault.versions(block.id, limit=None).versions]


@pytest.fixture
def block(alice: Vault) -> Block:
    """A block of Alice's with five versions, the values of which are their numbers."""
    made = alice.create_block(label="team", value="1")
    for number in range(2, 6):
        write(alice, made, str(number))
    return made


# -- reading ----------------------------------------------------------------------------------------------------


def test_versions_say_who_wrote_them_under_whom_and_what_they_changed(
    workspace: Workspace, alice: Vault, bob_credentials: Credentials
) -> None:
    block = alice.create_block(label="team", value="one")
    bob = writer(workspace, alice, bob_credentials, block)
    append(bob, block, "two")
    agent = alice.create_agent({"name": "scout"}, block_ids=[block.id])
    alice.acting_as(agent.id).edit_block(block.id, lambda _: {"description": "d", "tags": ["t"]})
    alice.edit_block(block.id, lambda _: {"limit": 500})
    page = alice.versions(block.id)
    told = [(v.number, v.name, v.under, v.fields) for v in page.versions]
    assert told == [
        (4, "alice", "", ["limit"]),
        (3, "scout", alice.principal_id, ["description", "tags"]),
        (2, "bob", "", ["value"]),
        (1, "alice", "", ["label", "value"]),
    ]
    assert page.older == ""
    assert (page.versions[2].size, page.versions[2].writer) == (7, bob.principal_id)


def test_versions_come_in_pages_newest_first(alice: Vault, block: Block) -> None:
    first = alice.versions(block.id, limit=2)
    second = alice.versions(block.id, limit=2, before=4)
    last = alice.versions(block.id, limit=2, before=2)
    assert [[v.number for v in page.versions] for page in (first, second, last)] == [[5, 4], [3, 2], [1]]
    assert [page.older for page in (first, second, last)] == ["more", "more", ""]


def test_one_version_is_shown_as_it_was(alice: Vault, block: Block) -> None:
    alice.edit_block(block.id, lambda _: {"label": "other", "tags": ["x"], "metadata": {"k": 1}})
    content = alice.version(block.id, 2).content
    assert content == {
        "label": "team", "value": "2", "description": None, "tags": [], "metadata": {}, "extra": {}
    }  # fmt: skip


@pytest.mark.parametrize("number", [0, 6, 10**9])
def test_a_version_that_never_was_is_not_found(alice: Vault, block: Block, number: int) -> None:
    with pytest.raises(NotFound) as caught:
        alice.version(block.id, number)
    assert caught.value.code == "unknown_version"


def test_a_difference_reads_in_both_directions(alice: Vault) -> None:
    block = alice.create_block(label="team", value="a\nb\nc")
    alice.edit_block(block.id, lambda _: {"value": "a\nB\nc", "label": "crew"})
    there, back = alice.diff(block.id, 1, 2), alice.diff(block.id, 2, 1)
    assert there.lines == ["@@ -1,3 +1,3 @@", " a", "-b", "+B", " c"]
    assert back.lines == ["@@ -1,3 +1,3 @@", " a", "-B", "+b", " c"]
    assert there.fields == {"label": ["team", "crew"]}
    assert alice.diff(block.id, 2, 2).lines == []


def test_reading_an_earlier_version_is_logged_with_its_number(alice: Vault, block: Block) -> None:
    alice.version(block.id, 2)
    event = alice.events(limit=1)[0]
    assert (event.kind, event.detail["block"], event.detail["version"]) == ("read", block.id, 2)


def test_without_a_grant_every_question_about_the_past_is_the_uniform_miss(
    alice: Vault, bob: Vault, block: Block
) -> None:
    made_up = "block-00000000-0000-4000-8000-000000000000"
    for ask in (
        lambda one: bob.versions(one),
        lambda one: bob.version(one, 1),
        lambda one: bob.diff(one, 1, 2),
        lambda one: bob.blame(one),
        lambda one: bob.restore(one, 1),
        lambda one: bob.undo("alice", 1, one),
    ):
        told = []
        for one in (block.id, made_up):
            with pytest.raises(NotFound) as caught:
                ask(one)
            told.append((caught.value.message.replace(one, ""), caught.value.code, caught.value.hint))
        assert told[0] == told[1]


def test_who_came_without_history_reads_its_own_time_and_is_told_that_the_rest_is_closed(
    workspace: Workspace, alice: Vault, bob_credentials: Credentials, block: Block
) -> None:
    carol = alice.add_user("carol")
    alice.share(block.id, carol.principal)
    alice.revoke(block.id, carol.principal)  # the keys change: what came before lies under others
    bob = writer(workspace, alice, bob_credentials, block, history=False)
    append(bob, block, "mine")
    page = bob.versions(block.id)
    assert ([v.number for v in page.versions], page.older) == ([6, 5], "closed")
    assert page.versions[1].fields is None
    with pytest.raises(NotFound) as caught:
        bob.version(block.id, 1)
    assert "before what you hold opens" in caught.value.message
    blame = bob.blame(block.id)
    assert [(line.text, line.version) for line in blame.lines] == [("5", None), ("mine", 6)]
    assert blame.older == "closed"
    assert numbers(alice, block) == [6, 5, 4, 3, 2, 1]


def test_the_past_stays_readable_through_changes_of_keys_and_of_owner(
    workspace: Workspace, alice: Vault, bob_credentials: Credentials, block: Block
) -> None:
    bob = writer(workspace, alice, bob_credentials, block)
    append(bob, block, "bob")
    carol = alice.add_user("carol")
    writer(workspace, alice, carol, block)
    alice.revoke(block.id, carol.principal)
    alice.transfer(block.id, "bob")
    bob.accept_transfer(block.id)
    append(bob, block, "owner now")
    assert numbers(bob, block) == [7, 6, 5, 4, 3, 2, 1]
    assert bob.version(block.id, 1).content == {**bob.version(block.id, 2).content, "value": "1"}


def test_a_read_only_token_reads_the_past_and_brings_none_of_it_back(
    workspace: Workspace, alice: Vault, block: Block
) -> None:
    reader = workspace.vault(alice.create_token(scope="read"))
    assert numbers(reader, block) == [5, 4, 3, 2, 1]
    assert reader.undo("alice", 2, block.id, dry_run=True)[0].versions == [2, 3, 4, 5]
    for act in (lambda: reader.restore(block.id, 2), lambda: reader.undo("alice", 2, block.id)):
        with pytest.raises(Denied):
            act()


# -- attacks ----------------------------------------------------------------------------------------------------


def rows_of(opened: Opened, plan: Plan) -> dict[int, Row]:
    return {int(row[2]): row for row in plan.rows(VERSION, opened.row.storage)}


def drop(number: int) -> Any:
    def act(opened: Opened, plan: Plan) -> None:
        plan.delete(VERSION, opened.row.storage, number)

    return act


def put_at(number: int, source: int) -> Any:
    """Let the row of one version stand at the place of another."""

    def act(opened: Opened, plan: Plan) -> None:
        plan.put(VERSION, opened.row.storage, number, *rows_of(opened, plan)[source][3:])

    return act


def swap(opened: Opened, plan: Plan) -> None:
    rows = rows_of(opened, plan)
    plan.put(VERSION, opened.row.storage, 2, *rows[3][3:])
    plan.put(VERSION, opened.row.storage, 3, *rows[2][3:])


@pytest.mark.parametrize(
    "attack",
    [drop(1), drop(3), put_at(3, 2), put_at(2, 4), swap],
    ids=[
        "first dropped",
        "middle dropped",
        "older put there",
        "newer put there",
        "swapped",
    ],
)
def test_a_dropped_swapped_or_replaced_row_is_refused_and_the_newest_stays_readable(
    alice: Vault, block: Block, attack: Any
) -> None:
    by_force(alice, block.id, attack)
    for ask in (
        lambda: alice.versions(block.id, limit=None),
        lambda: alice.version(block.id, 1),
        lambda: alice.restore(block.id, 1),
    ):
        with pytest.raises(Tampered):
            ask()
    assert alice.block(block.id).value == "5"


def test_without_the_version_before_it_the_newest_is_refused_as_well(
    alice: Vault, alice_credentials: Credentials, block: Block, tmp_path: Path
) -> None:
    """By every process that has not verified the two together before."""
    by_force(alice, block.id, drop(4))
    with Workspace.open(tmp_path / "data") as fresh:
        again = fresh.vault(alice_credentials.token)
        for ask in (alice.versions, again.versions, again.block):
            with pytest.raises(Tampered):
                ask(block.id)


def rewrite(opened: Opened, number: int, value: str, vault: Vault) -> Row:
    """A version signed by `vault` that says what another at its place does not."""
    plan = opened.plan
    past, earlier = opened.stored(number - 1)
    before = opened.row
    opened.row = replace(before, version=number - 1)
    payload = {**open_payload("block", past.payload), "value": value}
    add_version(opened, payload, past.signed.digest, opened.standing())
    row = plan.get(VERSION, before.storage, number)
    opened.row = before
    before.write(plan)
    assert row is not None and earlier.number == number - 1
    return row


def test_a_rewritten_past_is_not_the_one_that_the_newest_leads_back_to(
    workspace: Workspace, alice: Vault, bob_credentials: Credentials, block: Block
) -> None:
    bob = writer(workspace, alice, bob_credentials, block)
    append(bob, block, "six")
    by_force(bob, block.id, lambda opened, _: rewrite(opened, 6, "another six", bob))
    append(alice, block, "seven")  # on what the store now says is version 6
    by_force(bob, block.id, lambda opened, _: rewrite(opened, 6, "yet another six", bob))
    assert alice.block(block.id).value.endswith("seven")
    with pytest.raises(Tampered, match="does not follow"):
        alice.versions(block.id)


def test_a_version_of_a_revoked_writer_put_below_the_newest_is_refused(
    workspace: Workspace, alice: Vault, bob_credentials: Credentials, block: Block
) -> None:
    """Even a chain that fits, with the owner's own signature on top, does not make it count."""
    bob = writer(workspace, alice, bob_credentials, block)
    append(bob, block, "while allowed")
    late: list[Row] = []
    with workspace.store.snapshot() as snapshot:
        plan = Plan(snapshot)
        opened = open_block(bob._caller, plan, find_block(bob._caller, plan, block.id))
        forge(opened, "late")
        late.append(plan.get(VERSION, opened.row.storage, 7) or ())
    alice.revoke(block.id, bob.principal_id)

    def slip_in(opened: Opened, plan: Plan) -> None:
        plan.put(VERSION, opened.row.storage, 7, *late[0][3:])
        opened.row = replace(opened.row, version=7)
        opened.content = lambda number=None: opened.stored(
            number or opened.row.version
        )  # a program that asks nothing
        forge(opened, "newest")

    by_force(alice, block.id, slip_in)
    assert alice.block(block.id).value == "newest"
    with pytest.raises(Tampered, match=r"after its policy had ended"):
        alice.versions(block.id)


def forge(opened: Opened, value: str) -> None:
    """A version with every field as it should be, on whatever lies there."""
    content, _ = opened.stored(opened.row.version)
    payload = {**open_payload("block", content.payload), "value": value}
    add_version(opened, payload, content.signed.digest, opened.standing())


def test_what_a_member_of_a_role_wrote_stays_readable_and_can_be_undone_after_its_removal(
    workspace: Workspace, alice: Vault, bob_credentials: Credentials, block: Block
) -> None:
    role = alice.create_role("crew")
    alice.add_members(role.id, ["bob"])
    alice.share(block.id, role.id, "write")
    bob = workspace.vault(bob_credentials.token)
    bob.accept_offer(role.id)
    append(bob, block, "through the role")
    append(alice, block, "hers")
    append(bob, block, "again")
    alice.remove_member(role.id, "bob")
    append(alice, block, "hers too")
    assert [v.name for v in alice.versions(block.id, limit=4).versions] == ["alice", "bob", "alice", "bob"]
    assert [line.name for line in alice.blame(block.id).lines] == ["alice", "bob", "alice", "bob", "alice"]
    assert alice.undo("bob", 1, block.id)[0].versions == [6, 8]
    assert alice.block(block.id).value == "5\nhers\nhers too"


# -- restoring --------------------------------------------------------------------------------------------------


def test_a_restored_version_is_a_new_one_signed_by_who_asked(
    workspace: Workspace, alice: Vault, bob_credentials: Credentials, block: Block
) -> None:
    bob = writer(workspace, alice, bob_credentials, block)
    done = bob.restore(block.id, 2)
    assert (done.value, done.version, done.updated_by) == ("2", 6, bob.principal_id)
    newest = alice.versions(block.id).versions[0]
    assert (newest.restored, newest.writer) == (2, bob.principal_id)
    event = next(one for one in reversed(alice.events()) if one.kind == "update")
    assert (event.actor, event.detail["restored"]) == (bob.principal_id, 2)
    assert bob.restore(block.id, 2).version == 6  # nothing to do


def test_restoring_obeys_whatever_binds_an_edit(
    workspace: Workspace, alice: Vault, bob_credentials: Credentials, bob: Vault
) -> None:
    block = alice.create_block(label="team", value="a longer value")
    write(alice, block, "short")
    reader = writer(workspace, alice, bob_credentials, block, "read")
    with pytest.raises(Denied):
        reader.restore(block.id, 1)
    agent = alice.create_agent({"name": "scout"}, block_ids=[block.id])
    alice.edit_block(block.id, lambda _: {"read_only": True, "limit": 6})
    with pytest.raises(Denied):
        alice.acting_as(agent.id).restore(block.id, 1)
    with pytest.raises(Invalid):
        alice.restore(block.id, 1)
    alice.edit_block(block.id, lambda _: {"limit": 100, "locked": True})
    with pytest.raises(Locked):
        alice.restore(block.id, 1)
    alice.edit_block(block.id, lambda _: {"locked": False})
    restored = alice.restore(block.id, 1)
    assert (restored.value, restored.limit, restored.read_only) == ("a longer value", 100, True)
    grows = alice.create_block(label="log", value="x", append_only=True)
    append(alice, grows, "y")
    with pytest.raises(Denied):
        alice.restore(grows.id, 1)


def test_a_suspended_principal_brings_nothing_back(
    workspace: Workspace, alice: Vault, bob_credentials: Credentials, block: Block
) -> None:
    bob = writer(workspace, alice, bob_credentials, block)
    alice.suspend("bob")
    with pytest.raises(Unauthenticated):
        bob.restore(block.id, 1)


# -- blame ------------------------------------------------------------------------------------------------------


def test_blame_follows_lines_through_edits_moves_restores_and_undo(
    workspace: Workspace, alice: Vault, bob_credentials: Credentials
) -> None:
    block = alice.create_block(label="team", value="one\ntwo\nthree")
    bob = writer(workspace, alice, bob_credentials, block)
    write(bob, block, "three\none\ntwo, as bob says\n")  # moves a line and changes one
    write(alice, block, "zero\nthree\none\ntwo, as bob says\n")

    def told() -> list[tuple[str, int | None, str]]:
        return [(line.text, line.version, line.name) for line in alice.blame(block.id).lines]

    expected = [
        ("zero", 3, "alice"),
        ("three", 1, "alice"),
        ("one", 1, "alice"),
        ("two, as bob says", 2, "bob"),
    ]
    assert told() == expected
    write(bob, block, "all gone")
    alice.restore(block.id, 3)
    assert told() == expected
    write(bob, block, "gone again")
    alice.undo("bob", 6, block.id)
    assert told() == expected
    agent = alice.create_agent({"name": "scout"}, block_ids=[block.id])
    append(alice.acting_as(agent.id), block, "and more")
    last = alice.blame(block.id).lines[-1]
    assert (last.line, last.name, last.under) == (6, "scout", alice.principal_id)


def test_blame_of_an_empty_block_has_no_lines(alice: Vault) -> None:
    block = alice.create_block(label="empty")
    assert alice.blame(block.id).lines == []


# -- which versions stay ----------------------------------------------------------------------------------------


def test_all_versions_stay_by_default_and_nothing_signed_says_so(alice: Vault, block: Block) -> None:
    assert block.keep == "all"
    signed: list[Version] = []
    by_force(
        alice, block.id, lambda opened, _: signed.extend(opened.stored(number)[1] for number in range(1, 6))
    )
    assert all(one.change == {} for one in signed)
    alice.edit_block(block.id, lambda _: {"keep": {"last": 9}})
    alice.edit_block(block.id, lambda _: {"keep": "all"})
    settings: list[Any] = []
    by_force(alice, block.id, lambda opened, _: settings.append(opened.head.settings))
    assert "keep" not in settings[0]


def test_the_last_n_versions_stay_and_a_reader_knows_that_none_is_missing_above(
    workspace: Workspace, alice: Vault, block: Block
) -> None:
    alice.edit_block(block.id, lambda _: {"keep": {"last": 3}})
    page = alice.versions(block.id)
    assert ([v.number for v in page.versions], page.older) == ([6, 5, 4], "not_kept")
    with pytest.raises(NotFound, match="not kept any more"):
        alice.version(block.id, 3)
    alice.edit_block(block.id, lambda _: {"keep": "all"})
    append(alice, block, "more")
    assert numbers(alice, block) == [8, 7, 6, 5, 4]
    rows: list[list[int]] = []
    by_force(alice, block.id, lambda opened, plan: rows.append(sorted(rows_of(opened, plan))))
    assert rows == [[4, 5, 6, 7, 8]]
    assert workspace.verify().findings == []
    by_force(alice, block.id, drop(4))
    with pytest.raises(Tampered):
        alice.versions(block.id)


def test_a_stricter_rule_lets_go_of_many_versions_bit_by_bit(
    alice: Vault, block: Block, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tallystone.vault.keeping.AT_ONCE", 2)
    alice.edit_block(block.id, lambda _: {"keep": {"last": 2}})
    assert numbers(alice, block) == [6, 5, 4, 3]
    append(alice, block, "x")
    assert numbers(alice, block) == [7, 6, 5]
    append(alice, block, "y")
    assert numbers(alice, block) == [8, 7]


def test_versions_that_were_current_within_the_days_stay(
    workspace: Workspace, alice: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [datetime(2027, 1, 1, 12, tzinfo=UTC).timestamp()]
    monkeypatch.setattr(workspace, "now", lambda: int(now[0]))
    monkeypatch.setattr(workspace, "now_ms", lambda: int(now[0] * 1000))
    block = alice.create_block(label="team", value="day 1", keep={"days": 3})
    for day in range(2, 8):
        now[0] += 86_400
        write(alice, block, f"day {day}")
    # On day 7 at noon three days reach back to day 4 at noon, when the value of day 3 was replaced.
    assert [alice.version(block.id, number).content["value"] for number in numbers(alice, block)] == [
        "day 7", "day 6", "day 5", "day 4", "day 3"
    ]  # fmt: skip
    now[0] += 30 * 86_400
    write(alice, block, "much later")
    assert numbers(alice, block) == [8, 7]


def test_a_version_that_lets_go_against_the_owners_rule_is_refused(
    workspace: Workspace, alice: Vault, bob_credentials: Credentials, block: Block
) -> None:
    bob = writer(workspace, alice, bob_credentials, block)

    def hide(opened: Opened, plan: Plan) -> None:
        payload, _, digest = opened.payload()
        said = {"kept": 4}
        add_version(opened, {**payload, "value": "hidden"}, digest, opened.standing(), said)
        for number in (1, 2, 3):
            plan.delete(VERSION, opened.row.storage, number)

    by_force(bob, block.id, hide)
    with pytest.raises(Tampered, match="lets go"):
        alice.versions(block.id)


@pytest.mark.parametrize(
    "rule",
    ["none", {}, {"last": 1}, {"last": 0}, {"days": 0}, {"last": True}, {"last": 3, "days": 3}, {"weeks": 1}],
)
def test_what_is_no_rule_is_refused_before_anything_is_written(alice: Vault, block: Block, rule: Any) -> None:
    with pytest.raises(Invalid) as caught:
        alice.edit_block(block.id, lambda _: {"keep": rule})
    assert caught.value.code == "bad_keep"
    with pytest.raises(Invalid):
        alice.create_block(label="x", keep=rule)
    assert alice.block(block.id).version == 5


def test_an_append_only_block_keeps_every_version(alice: Vault) -> None:
    with pytest.raises(Invalid):
        alice.create_block(label="log", append_only=True, keep={"last": 5})
    block = alice.create_block(label="log", append_only=True)
    with pytest.raises(Invalid):
        alice.edit_block(block.id, lambda _: {"keep": {"days": 5}})


def test_only_the_owner_says_which_versions_stay(
    workspace: Workspace, alice: Vault, bob_credentials: Credentials, block: Block
) -> None:
    bob = writer(workspace, alice, bob_credentials, block)
    with pytest.raises(Denied):
        bob.edit_block(block.id, lambda _: {"keep": {"last": 2}})
    alice.edit_block(block.id, lambda _: {"keep": {"last": 2}})
    append(bob, block, "still writes, and lets go")
    assert numbers(bob, block) == [7, 6]
