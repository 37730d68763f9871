"""The change feed in one process: what is told, to whom, and where it goes on after a pause."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import tallystone
from tallystone.errors import NotFound, Rejected, Unauthenticated
from tallystone.keystore import Keys, Root
from tallystone.vault import Vault, Workspace, resuming
from tallystone.vault.resuming import Place, open_place, seal_place
from tallystone.vault.subscription import Subscription
from tallystone.vault.types import Block, Change, Credentials
from tallystone.vault.watching import Feed, Watch


def heard(watch: Watch) -> list[tuple[str, str, int | None]]:
    """Everything that is to be told right now, without waiting."""
    found = []
    while (change := watch.poll()) is not None:
        found.append((change.kind, change.block_id, change.version))
    return found


def appended(vault: Vault, block: Block, text: str = "more") -> int:
    return vault.edit_block(block.id, lambda now: {"value": now.value + text}).version


def given(alice: Vault, bob: Vault, label: str = "shared", can: str = "read") -> Block:
    """A block of Alice's that Bob has accepted."""
    block = alice.create_block(label=label, value="x")
    alice.share(block.id, "bob", can)
    bob.offers()
    bob.accept_offer(block.id)
    return block


# -- what is told -----------------------------------------------------------------------------------------------


def test_the_owner_hears_of_each_kind_of_change_and_of_no_value(alice: Vault) -> None:
    watch = alice.watch()
    block = alice.create_block(label="notes", value="SECRET")
    assert heard(watch) == [("created", block.id, 1)]
    appended(alice, block)
    assert heard(watch) == [("updated", block.id, 2)]
    alice.edit_block(block.id, lambda now: {"limit": 500})  # a change of settings is a version too
    assert heard(watch) == [("updated", block.id, 3)]
    alice.delete_block(block.id)
    assert heard(watch) == [("removed", block.id, None)]
    assert set(Change.__dataclass_fields__) == {"number", "kind", "block_id", "version", "id", "code"}


def test_an_offer_is_told_when_it_is_accepted_and_rights_when_they_change(alice: Vault, bob: Vault) -> None:
    watch = bob.watch()
    block = alice.create_block(label="notes")
    alice.share(block.id, "bob", "read")
    assert heard(watch) == []
    bob.offers()
    assert heard(watch) == []
    bob.accept_offer(block.id)
    assert heard(watch) == [("created", block.id, 1)]
    alice.share(block.id, "bob", "write")
    assert heard(watch) == [("changed", block.id, 1)]


def test_revoked_and_deleted_look_alike(alice: Vault, bob: Vault) -> None:
    one, two = given(alice, bob, "one"), given(alice, bob, "two")
    watch = bob.watch()
    alice.revoke(one.id, "bob")
    alice.delete_block(two.id)
    assert sorted(heard(watch)) == sorted([("removed", one.id, None), ("removed", two.id, None)])


def test_what_was_committed_after_a_revoke_is_never_told(alice: Vault, bob: Vault) -> None:
    block = given(alice, bob)
    watch = bob.watch()
    appended(alice, block)
    alice.revoke(block.id, "bob")
    appended(alice, block)
    assert heard(watch) == [
        ("removed", block.id, None)
    ]  # nothing was in flight: the version before is not told either


def test_grants_to_others_and_changes_of_keys_are_not_told(alice: Vault, bob: Vault) -> None:
    block = given(alice, bob)
    carol = alice.add_user("carol")
    watch, place = bob.watch(), bob.watch().place
    alice.share(block.id, "carol", "write")
    alice.revoke(block.id, carol.principal)
    assert heard(watch) == []
    assert heard(bob.watch(after=place)) == []


def test_a_resumed_feed_tells_a_version_that_came_with_a_change_of_keys(alice: Vault, bob: Vault) -> None:
    block = given(alice, bob)
    carol = alice.add_user("carol")
    alice.share(block.id, "carol", "read")
    place = bob.watch().place
    alice.revoke(block.id, carol.principal)
    version = appended(alice, block)
    alice.share(block.id, carol.principal, "read")
    alice.revoke(block.id, carol.principal)
    assert heard(bob.watch(after=place)) == [("updated", block.id, version)]


def test_a_version_that_was_told_is_not_told_again_when_the_keys_change_after_it(
    alice: Vault, bob: Vault
) -> None:
    block = given(alice, bob)
    carol = alice.add_user("carol")
    alice.share(block.id, "carol", "read")
    watch = bob.watch()
    appended(alice, block)
    assert len(heard(watch)) == 1
    alice.revoke(block.id, carol.principal)
    assert heard(watch) == []
    assert heard(bob.watch(after=watch.place)) == []


def test_members_of_a_role_hear_of_its_blocks_until_they_are_taken_out(
    workspace: Workspace, alice: Vault, bob: Vault
) -> None:
    alice.create_role("team")
    watch = bob.watch()
    alice.add_members("team", ["bob"])
    assert heard(watch) == []
    (offer,) = bob.offers()
    bob.accept_offer(offer.block_id)
    block = alice.create_block(label="notes")
    alice.share(block.id, "team", "read")
    assert heard(watch) == [("created", block.id, 1)]
    appended(alice, block)
    assert heard(watch) == [("updated", block.id, 2)]
    alice.remove_member("team", "bob")
    appended(alice, block)
    assert heard(watch) == [("removed", block.id, None)]


def test_a_block_that_stays_reachable_through_a_role_is_changed_not_removed(alice: Vault, bob: Vault) -> None:
    block = given(alice, bob)
    alice.create_role("team")
    alice.add_members("team", ["bob"])
    alice.share(block.id, "team", "read")
    bob.accept_offer(bob.offers()[0].block_id)
    watch = bob.watch()
    alice.revoke(block.id, "bob")
    assert [kind for kind, _, _ in heard(watch)] == ["changed"]


def test_only_the_blocks_that_were_asked_for(alice: Vault, bob: Vault) -> None:
    one, two = given(alice, bob, "one"), given(alice, bob, "two")
    watch = bob.watch(one.id)
    appended(alice, one)
    appended(alice, two)
    given(alice, bob, "three")
    assert heard(watch) == [("updated", one.id, 2)]
    foreign = alice.create_block(label="foreign")
    misses = []
    for asked in (foreign.id, "block-00000000-0000-4000-8000-000000000000"):
        with pytest.raises(NotFound) as miss:
            bob.watch(one.id, asked)
        misses.append(miss.value.message.replace(asked, ""))
    assert misses[0] == misses[1]


def test_a_read_only_token_and_an_agents_token_hear_what_they_can_read(
    workspace: Workspace, alice: Vault, bob: Vault
) -> None:
    reading = workspace.vault(bob.create_token(scope="read")).watch()
    agent = bob.create_agent({"name": "helper"})
    helping = workspace.vault(bob.agent_token(agent.id)).watch()
    block, other = given(alice, bob, "one"), given(alice, bob, "two")
    assert [kind for kind, _, _ in heard(reading)] == ["created", "created"]
    assert heard(helping) == []
    bob.attach(agent.id, block.id, "read")
    assert heard(helping) == [("created", block.id, 1)]
    appended(alice, block)
    appended(alice, other)
    assert heard(helping) == [("updated", block.id, 2)]
    bob.detach(agent.id, block.id)
    assert heard(helping) == [("removed", block.id, None)]


def test_numbers_count_the_streams_own_events_and_ids_have_one_length(alice: Vault, bob: Vault) -> None:
    block = given(alice, bob)
    watch = bob.watch()
    numbers, lengths = [], set()
    for count in range(4):
        for other in range(count):
            alice.create_block(label=f"none of Bob's business {count} {other}")
        appended(alice, block)
        change = watch.poll()
        assert change is not None
        numbers.append(change.number)
        lengths.add(len(change.id))
    assert (numbers, lengths) == ([1, 2, 3, 4], {171})


# -- when it ends -----------------------------------------------------------------------------------------------


def ended(watch: Watch) -> str:
    with pytest.raises(Unauthenticated) as raised:
        watch.poll()
    return raised.value.code


def test_it_ends_when_the_token_is_revoked(workspace: Workspace, alice: Vault, bob: Vault) -> None:
    block = given(alice, bob)
    watch = workspace.vault(bob.create_token(label="lost")).watch()
    appended(alice, block)
    bob.revoke_token(next(token.kid for token in bob.tokens() if token.label == "lost"))
    assert ended(watch) == "revoked"
    assert ended(watch) == "revoked"


def test_it_ends_when_the_user_or_an_agents_sponsor_is_suspended(
    workspace: Workspace, alice: Vault, bob: Vault
) -> None:
    block = given(alice, bob)
    agent = bob.create_agent({"name": "helper"}, block_ids=[block.id])
    watches = [
        bob.watch(),
        workspace.vault(bob.agent_token(agent.id)).watch(),
        bob.acting_as(agent.id).watch(),
    ]
    alice.suspend("bob")
    appended(alice, block)
    assert [ended(watch) for watch in watches] == ["inactive"] * 3


def test_it_ends_when_the_token_expires(workspace: Workspace, alice: Vault, bob: Vault) -> None:
    block = given(alice, bob)
    soon = datetime.now(UTC) + timedelta(minutes=5)
    watch = workspace.vault(bob.create_token(expires=soon)).watch()
    before = workspace.clock
    workspace.clock = lambda: before() + 301
    appended(alice, block)
    assert ended(watch) == "expired"


def test_a_grant_and_a_block_are_over_at_the_end_of_their_day(
    workspace: Workspace, alice: Vault, bob: Vault
) -> None:
    today = datetime.now(UTC).date()
    granted, expiring = alice.create_block(label="one"), alice.create_block(label="two", expires=today)
    alice.share(granted.id, "bob", "read", until=today)
    alice.share(expiring.id, "bob", "read")
    bob.offers()
    for block in (granted, expiring):
        bob.accept_offer(block.id)
    watch = bob.watch()
    before = workspace.clock
    workspace.clock = lambda: before() + 86_400
    appended(alice, granted)
    assert sorted(heard(watch)) == sorted([("removed", granted.id, None), ("removed", expiring.id, None)])


# -- where it goes on -------------------------------------------------------------------------------------------


def test_it_goes_on_where_it_was_and_counts_on(workspace: Workspace, alice: Vault, bob: Vault) -> None:
    block = given(alice, bob)
    watch = bob.watch()
    appended(alice, block)
    first = watch.poll()
    assert first is not None
    for _ in range(3):
        appended(alice, block)
    fresh = given(alice, bob, "fresh")
    resumed = bob.watch(after=first.id)
    changes = [resumed.poll(), resumed.poll(), resumed.poll()]
    told = [(change.number, change.kind, change.block_id, change.version) for change in changes if change]
    assert told == [(2, "updated", block.id, 5), (3, "created", fresh.id, 1)]
    assert heard(bob.watch(after=resumed.place)) == []


def test_an_event_that_came_with_others_does_not_skip_them(alice: Vault, bob: Vault) -> None:
    one, two = given(alice, bob, "one"), given(alice, bob, "two")
    watch = bob.watch()
    appended(alice, one)
    appended(alice, two)
    first = watch.poll()
    assert first is not None
    missed = {block_id for _, block_id, _ in heard(bob.watch(after=first.id))}
    assert {one.id, two.id} - {first.block_id} <= missed


@pytest.mark.parametrize("loss", ["revoked", "deleted", "other rights"])
def test_what_cannot_be_told_after_a_pause_is_a_reset(alice: Vault, bob: Vault, loss: str) -> None:
    block, kept = given(alice, bob), given(alice, bob, "kept")
    place = bob.watch().place
    if loss == "revoked":
        alice.revoke(block.id, "bob")
    elif loss == "deleted":
        alice.delete_block(block.id)
    else:
        alice.share(block.id, "bob", "write")
    watch = bob.watch(after=place)
    assert heard(watch) == [("reset", "", None)]
    appended(alice, kept)
    assert heard(watch) == [("updated", kept.id, 2)]


def test_beyond_the_bound_it_says_reset(alice: Vault, bob: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    block = given(alice, bob)
    place = bob.watch().place
    appended(alice, block)
    monkeypatch.setattr(resuming, "REPLAYED", 2)
    assert heard(bob.watch(after=place)) == [("reset", "", None)]


def test_a_log_with_another_history_is_a_reset_and_no_error(alice: Vault, bob: Vault) -> None:
    """A backup was restored: the place lies beyond the log's end, or where other leaves stand now."""
    given(alice, bob)
    keys = bob._caller.keys
    here = open_place(keys, bob.watch().place)
    for place in (
        Place(9, here.position + 1000, here.mark, here.known),
        Place(9, here.position - 1, here.mark, here.known),
        Place(9, 2**63, here.mark, here.known),
        Place(9, 0, here.mark, here.known),
    ):
        change = bob.watch(after=seal_place(keys, place)).poll()
        assert change is not None
        assert (change.kind, change.number) == ("reset", 10)


def test_an_id_opens_for_its_principal_alone(alice: Vault, bob: Vault) -> None:
    place = bob.watch().place
    changed = place[:40] + ("A" if place[40] != "A" else "B") + place[41:]
    answers = set()
    for vault, text in (
        (alice, place),
        (bob, changed),
        (bob, place[:-4]),
        (bob, place + "AAAA"),
        (bob, "1"),
        (bob, "12345"),
        (bob, "é" * 171),
        (bob, "A" * 100_000),
    ):
        with pytest.raises(Rejected) as refused:
            vault.watch(after=text)
        answers.add((refused.value.code, refused.value.message))
    assert [code for code, _ in answers] == ["bad_cursor"]


def test_an_id_of_today_opens_for_good() -> None:
    """The place of an event that some listener keeps: its bytes are a format."""
    keys = Keys("user-golden", Root(bytes(range(32)), None, bytes(32)))
    assert keys.feed.hex() == GOLDEN_KEY
    assert open_place(keys, GOLDEN_ID) == Place(7, 1234, b"markmark", bytes(range(100, 132)))


GOLDEN_KEY = "35c8324f5e4be465afd06c20ef0067fd8e60c080967f7a8315ca8c311eab0577"
GOLDEN_ID = (
    "OMXkQiV5_yEfsghzl9c-UMkoe5SfpFsdnXF7eMgVZW6bbu_cn_SezhBR1slaahn5SeyEBOloeW1-vyX6koRVhacjR9"
    "jRPQHWCwORIqNgCidqysxgpMJJOcorLOCcCRcOb5Ho6VWgTiuIGR_s1j8zGJUbOSskyPgbHcwLeoPCsS0"
)


# -- what it costs ----------------------------------------------------------------------------------------------


def test_whoever_does_not_listen_costs_one_entry_a_block(
    workspace: Workspace, alice: Vault, bob: Vault
) -> None:
    blocks = [given(alice, bob, f"label {number}") for number in range(3)]
    feed, idle = Feed(workspace), bob.subscribe()
    feed.add(idle)
    idle.take()
    for _ in range(30):
        for block in blocks:
            appended(alice, block, "")
            alice.edit_block(block.id, lambda now: {"value": now.value + "."})
        feed.poll()
    assert len(idle._pending) == 3
    assert [(change.kind, change.version) for change in idle.take()] == [("updated", 31)] * 3


def test_a_feed_forgets_who_left(workspace: Workspace, alice: Vault, bob: Vault) -> None:
    given(alice, bob)
    feed = Feed(workspace)
    listeners = [bob.subscribe() for _ in range(5)]
    for listener in listeners:
        feed.add(listener)
    assert feed._listeners
    for listener in listeners:
        feed.remove(listener)
    assert (len(feed), feed._listeners) == (0, {})


def test_what_happened_between_a_look_and_its_end_is_not_missed(
    workspace: Workspace, alice: Vault, bob: Vault
) -> None:
    """A look again runs beside the feed: what is committed meanwhile, to blocks that it has just found too, is told."""
    block = given(alice, bob)
    feed, listener = Feed(workspace), bob.subscribe()
    feed.add(listener)
    listener.take()
    fresh = given(alice, bob, "fresh")
    feed.poll()
    assert feed.search([listener]) == [listener]
    wanted = {""}
    listener.unsure |= wanted
    found = listener.find(listener.begin_look())
    appended(alice, fresh)
    appended(alice, block)
    feed.poll()
    assert listener.take() == []  # nothing while it looks
    feed.finish_look(listener, found)
    settle(feed, listener)
    told = {(change.kind, change.block_id, change.version) for change in listener.take()}
    assert told == {("created", fresh.id, 2), ("updated", block.id, 2)}


def settle(feed: Feed, listener: Subscription) -> None:
    while listener.unsure:
        feed.finish_look(listener, listener.find(listener.begin_look()))


def test_a_place_is_not_passed_while_something_is_unsure(
    workspace: Workspace, alice: Vault, bob: Vault
) -> None:
    block, other = given(alice, bob), given(alice, bob, "other")
    feed, listener = Feed(workspace), bob.subscribe()
    feed.add(listener)
    listener.take()
    appended(alice, other)
    alice.share(block.id, "bob", "write")
    feed.poll()
    (change,) = listener.take()
    assert change.block_id == other.id
    # Whoever leaves here has not heard of its new rights.
    assert heard(bob.watch(after=change.id)) != []


def test_the_log_says_who_listens(alice: Vault, bob: Vault) -> None:
    block = given(alice, bob)
    watch = bob.watch()
    later = given(alice, bob, "later")
    heard(watch)
    appended(alice, later)
    heard(watch)
    seen = [event for event in alice.events() if event.kind == "watch"]
    assert [(event.actor, event.detail["count"]) for event in seen] == [(bob.principal_id, 1)] * 2
    assert block.id != later.id


# -- asyncio ----------------------------------------------------------------------------------------------------


def test_the_asynchronous_library_iterates(tmp_path: Path) -> None:
    async def listen(token: str) -> list[str]:
        async with await tallystone.aopen(tmp_path / "data", token=token) as vault:
            watch = await vault.watch()
            block = await vault.create_block(label="notes")
            kinds = [(await anext(watch)).kind]
            await vault.delete_block(block.id)
            async for change in watch:
                kinds.append(change.kind)
                break
            assert isinstance(watch.place, str)
            return kinds

    workspace, you = Workspace.init(tmp_path / "data")
    workspace.close()
    assert asyncio.run(listen(you.token)) == ["created", "removed"]


def test_a_watch_sees_what_is_written_through_another_store(
    tmp_path: Path, alice_credentials: Credentials
) -> None:
    folder = tmp_path / "data"  # where `alice_credentials` has its workspace
    with tallystone.open(folder, token=alice_credentials.token) as mine:
        watch = mine.watch()
        with tallystone.open(folder, token=alice_credentials.token) as other:
            block = other.create_block(label="notes")
        change = watch.wait(10)
        assert change is not None and change.block_id == block.id


def test_waiting_has_an_end(alice: Vault) -> None:
    assert alice.watch().wait(0) is None


def test_nothing_of_the_keys_shows(alice: Vault) -> None:
    watch, block = alice.watch(), alice.create_block(label="notes")
    assert repr(watch) == f"Watch({alice.principal_id})"
    change = watch.poll()
    assert change is not None and change.id not in repr(change)
    (seen,) = alice.subscribe().sight.blocks.values()
    assert repr(seen) == "Seen(version 1)"
    assert block.id == change.block_id
