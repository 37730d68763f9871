"""What a process keeps between requests (ADR 0031): rows that are never another moment's, and blocks that nobody opens
whose token would not."""

from __future__ import annotations

import gc
import sqlite3
import tracemalloc
from contextlib import closing
from hashlib import sha256
from operator import attrgetter
from pathlib import Path

import pytest
from store_rows import counter, make_store, open_store, sequencer
from stores import sqlite_only

from tallystone.audit.leaf import key_hash
from tallystone.errors import NotFound, Tampered
from tallystone.kept import ENTRY, PAGES_OF_READER, PAGES_OF_WRITER, Digests, Recent
from tallystone.store._rows import RowCache
from tallystone.store.protocol import Batch, Delete, Expect, Moment, Put, Row
from tallystone.store.sqlite import SqliteStore
from tallystone.store.tables import BLOCK, REPLY, VERSION, WS
from tallystone.vault import Vault, Workspace
from tallystone.vault.entering import open_block
from tallystone.vault.forms import Form
from tallystone.vault.plan import Plan
from tallystone.vault.recall import Kept, Recall
from tallystone.vault.rotating import change_keys
from tallystone.vault.shelves import BLOCKS, find

pytestmark = sqlite_only("only that store keeps rows between requests (0031)")

KEY: Row = (WS, b"counter")
SECRET = "the harvest is hidden under the third oak"


BARE = Form(lambda block: block.value.encode(), lambda block: True)


def seen(store: SqliteStore, key: Row = KEY) -> tuple[Row | None, list[Row]]:
    with store.snapshot() as snapshot:
        return snapshot.get(BLOCK, key), snapshot.scan(BLOCK, (WS,))


# -- rows --------------------------------------------------------------------------------------------------------


def test_an_open_view_is_not_shown_what_was_committed_after_it(tmp_path: Path) -> None:
    with make_store(tmp_path / "store.db") as store:
        store.commit(Batch(changes=[Put(BLOCK, counter(1))]))
        with store.snapshot() as before:
            assert before.get(BLOCK, KEY) == counter(1)
            store.commit(Batch(changes=[Put(BLOCK, counter(2)), Put(BLOCK, counter(9, b"other"))]))
            assert before.scan(BLOCK, (WS,)) == [counter(1)]
            assert before.get(BLOCK, KEY) == counter(1)
            assert before.get(BLOCK, (WS, b"other")) is None
            assert seen(store) == (counter(2), [counter(2), counter(9, b"other")])
        # What the old view said after the commit is nobody else's answer.
        assert seen(store) == (counter(2), [counter(2), counter(9, b"other")])
        store.commit(Batch(changes=[Delete(BLOCK, KEY)]))
        assert seen(store) == (None, [counter(9, b"other")])


def test_what_another_process_commits_is_seen_by_the_next_view(tmp_path: Path) -> None:
    with make_store(tmp_path / "store.db") as ours, open_store(tmp_path / "store.db") as theirs:
        for number in range(1, 6):
            writer, reader = (ours, theirs) if number % 2 else (theirs, ours)
            expected = Expect(BLOCK, KEY, counter(number - 1) if number > 1 else None)
            writer.commit(Batch([expected], [Put(BLOCK, counter(number))]))
            assert seen(reader) == (counter(number), [counter(number)])
            assert seen(writer) == (counter(number), [counter(number)])


def test_a_row_that_somebody_edits_is_read_again(tmp_path: Path) -> None:
    with make_store(tmp_path / "store.db") as store:
        store.commit(Batch(changes=[Put(BLOCK, counter(1))]))
        assert seen(store) == seen(store) == (counter(1), [counter(1)])
        with closing(sqlite3.connect(store.path)) as raw, raw:
            raw.execute("UPDATE block SET version = 7")
        assert seen(store) == (counter(7), [counter(7)])


def test_an_answer_from_an_older_view_is_not_kept_once_its_row_has_changed() -> None:
    kept, place = RowCache(sequencer()).restart((10, b"a")), ("block", KEY)
    kept.committed((11, b"b"), [(BLOCK, KEY, counter(2))])
    kept.tell(place, counter(1), 10)
    assert kept.find(place, 11) is None
    kept.tell(place, counter(2), 11)
    found = kept.find(place, 11)
    assert found is not None and found[1] == counter(2)
    assert kept.find(place, 10) is None  # which may have been another
    kept.followed([(12, b"c")], {("block", key_hash(KEY))})
    kept.tell(place, counter(2), 11)
    kept.tell(("block", (WS,), None, False, None, None), [counter(2)], 11)
    assert not len(kept)


def test_what_was_found_before_everything_was_forgotten_is_not_taken_to_be_so_still() -> None:
    cache, head = RowCache(sequencer()), (10, b"a")
    before = cache.restart(head)
    then = Moment(before.serial, 10, before.changed)
    assert before.still(then) and before.unchanged(KEY, then, 10)
    after = cache.restart(head)  # somebody edited a row, and the log has not grown
    assert not after.still(then) and not after.unchanged(KEY, then, 10)
    before.committed((11, b"b"), [(BLOCK, KEY, counter(2))])
    assert not before.still(then) and not before.unchanged(KEY, then, 11)
    assert before.unchanged((WS, b"other"), then, 11)
    before.followed([(12, b"c")], {("block", bytes(32))})  # which may be any row
    assert not before.unchanged((WS, b"other"), then, 12)


def test_the_version_after_one_that_was_kept_is_kept_until_somebody_else_changes_it() -> None:
    rows = RowCache(sequencer(), 1_000_000)
    kept = rows.restart((1, b"1"))
    first, second = (WS, b"block", 1), (WS, b"block", 2)
    kept.tell((VERSION.name, first), (*first, b"first"), 1)
    kept.committed((2, b"2"), [(VERSION, second, (*second, b"second")), (BLOCK, KEY, counter(1))])
    found = kept.find((VERSION.name, second), 2)
    assert found is not None and found[1] == (*second, b"second")
    assert kept.find((VERSION.name, second), 1) is None  # a view from before the commit
    assert kept.find((VERSION.name, first), 2) is None  # nobody asks for that one again
    assert kept.find((BLOCK.name, KEY), 2) is None  # a new row that follows none
    third = (WS, b"block", 3)
    kept.followed([(3, b"3")], {(BLOCK.name, key_hash(KEY))})
    kept.committed((4, b"4"), [(VERSION, third, (*third, b"third"))])  # with names kept as well
    assert kept.find((VERSION.name, third), 4) is not None
    kept.followed([(5, b"5")], {(VERSION.name, key_hash(second)), (VERSION.name, key_hash(third))})
    assert kept.find((VERSION.name, second), 5) is None
    assert kept.find((VERSION.name, third), 5) is None
    for number in range(5, 9):  # which others have written, and a view of ours reads
        kept.tell((VERSION.name, (WS, b"block", number)), (WS, b"block", number, b"read"), 5)
    assert [place[1][2] for place in kept.young if place[0] == VERSION.name] == [8]
    assert kept._names is not None and len(kept._names) == len(kept.young)  # nor are they remembered by name


def test_a_block_that_was_made_read_and_deleted_leaves_hardly_anything(
    workspace: Workspace, alice: Vault
) -> None:
    def come_and_go() -> None:
        block = alice.create_block(label="mayfly", value="x").id
        assert alice.block(block).value == "x"
        alice.edit_block(block, lambda now: {"value": now.value + "y"})
        alice.delete_block(block)

    come_and_go()
    before, rows = len(workspace.geneses), attrgetter("store._rows.kept")(workspace)
    at = len(rows)
    for _ in range(10):
        come_and_go()
    assert len(workspace.geneses) == before and len(rows) <= at + 10


def test_what_is_kept_of_rows_has_a_bound() -> None:
    kept = RowCache(sequencer(), 200_000).restart((1, b""))
    for number in range(2_000):
        kept.tell(("version", (WS, b"block", number)), (WS, b"block", number, bytes(1_000)), 1)
        kept.tell(("version", (WS, number), None, False, None, None), [(WS, number, bytes(500))], 1)
        if number == 1_000:
            kept.followed([(2, b"")], {("block", bytes(32))})
    weights = [weight for _, _, weight in (*kept.young.values(), *kept._old.values())]
    assert len(weights) > 10 and sum(weights) <= 220_000
    scans = [places for table in kept._scans.values() for places in table.values()]
    assert sum(map(len, scans)) <= len(weights) >= len(kept._names or ())


def test_what_is_remembered_of_changes_has_a_bound_and_beyond_it_no_older_answer_is_taken() -> None:
    kept = RowCache(sequencer()).restart((0, b""))
    for length in range(1, 41):
        changed = [Put(BLOCK, counter(length, b"%d" % number)) for number in range(500)]
        kept.committed((length, b""), [(BLOCK, put.row[:2], put.row) for put in changed])
    assert kept._places == sum(len(places) + len(names) for _, places, names in kept._changed) < 10_000
    for number in range(5_000):
        kept.committed((41 + number, b""), [(BLOCK, (WS, b"%d of many" % number), None)])
    then = Moment(kept.serial, 41 + 2_000, 0)
    assert len(kept._touched) < 5_000
    for name, length, same in ((b"untouched", 5_040, True), (b"2500 of many", 5_040, False)):
        assert kept.unchanged((WS, name), then, length) == same
    early = Moment(kept.serial, 41, 0)
    assert not kept.unchanged((WS, b"untouched"), early, 5_040)  # which is not known any more
    place = ("block", (WS, b"untouched"))
    for length in (10, 5_040):
        kept.tell(place, None, length)
        assert (kept.find(place, 5_040) is None) == (length == 10)


# -- blocks ------------------------------------------------------------------------------------------------------


def kept_of(workspace: Workspace) -> list[bytes]:
    return [kept.sealed for kept in workspace.recall._kept.values() if isinstance(kept, Kept)]


def test_what_is_kept_of_a_block_opens_with_its_readers_root_alone(
    workspace: Workspace, alice: Vault, bob: Vault
) -> None:
    block = alice.create_block(label="oak", value=SECRET)
    assert alice.block(block.id).value == SECRET
    caller = alice._caller
    with workspace.store.snapshot() as snapshot:
        plan = Plan(snapshot)
        held = find(plan, caller.keys, BLOCKS, block.id)
        assert held is not None and held.origin is not None
        row = held.origin[1]
        found = workspace.recall.find(caller.keys, row)
        assert found is not None and found.recalled is not None and found.recalled.payload["value"] == SECRET
        with pytest.raises(Tampered):
            workspace.recall.find(bob._caller.keys, row)
    kept = kept_of(workspace)
    assert kept
    for sealed in kept:
        assert SECRET.encode() not in sealed and held.key not in sealed


def test_a_kept_block_is_gone_with_the_grant(workspace: Workspace, alice: Vault) -> None:
    block, agent = alice.create_block(label="oak", value=SECRET), alice.create_agent({"name": "scout"})
    alice.attach(agent.id, block.id)
    scout = alice.acting_as(agent.id)
    for _ in range(2):
        assert scout.block(block.id).value == SECRET
        assert alice.block(block.id).agent_ids == [agent.id]
    alice.detach(agent.id, block.id)
    with pytest.raises(NotFound):
        scout.block(block.id)
    assert alice.block(block.id).agent_ids == []


def test_a_kept_block_is_the_newest_one(workspace: Workspace, alice: Vault) -> None:
    block = alice.create_block(label="oak", value="0")
    for number in range(1, 5):
        alice.edit_block(block.id, lambda before: {"value": f"{before.value}{number}"})  # noqa: B023 -- runs at once
        assert alice.block(block.id).value == "01234"[: number + 1]
        assert [one.value for one in alice.blocks()] == ["01234"[: number + 1]]


def test_a_kept_block_whose_rows_are_edited_is_refused(tmp_path: Path, alice: Vault) -> None:
    block = alice.create_block(label="oak", value=SECRET)
    assert alice.block(block.id) == alice.block(block.id)
    with closing(sqlite3.connect(tmp_path / "data" / "tallystone.db")) as raw, raw:
        raw.execute("UPDATE version SET sealed = zeroblob(length(sealed))")
    with pytest.raises(Tampered):
        alice.block(block.id)


def test_a_kept_block_needs_its_shred_key(workspace: Workspace, alice: Vault) -> None:
    block = alice.create_block(label="oak", value=SECRET)
    assert alice.block(block.id) == alice.block(block.id)
    with workspace.store.snapshot() as snapshot:
        slots = [row[7] for row in snapshot.scan(BLOCK, (WS,))]
    workspace.shreds.destroy(slot for slot in slots if slot is not None)
    with pytest.raises(NotFound):
        alice.block(block.id)


def test_nothing_of_an_erased_block_stays_in_memory(workspace: Workspace, alice: Vault) -> None:
    block = alice.create_block(label="oak", value=SECRET)
    alice.block(block.id)
    assert kept_of(workspace)
    alice.delete_block(block.id)
    assert not kept_of(workspace)


def test_what_is_kept_of_blocks_has_a_bound_and_what_went_is_read_anew(
    workspace: Workspace, alice: Vault
) -> None:
    workspace.recall = Recall(30_000)
    agent = alice.create_agent({"name": "scout"}).id
    blocks = {
        alice.create_block(label=f"oak {number}", value=f"{number} ".ljust(1000)).id: number
        for number in range(12)
    }
    for block in blocks:
        alice.attach(agent, block)  # whom a block's grants are to is kept within the same bound
    for _ in range(2):
        for block, number in blocks.items():
            found = alice.block(block)
            assert (found.value.strip(), found.agent_ids) == (str(number), [agent])
    kept = workspace.recall._kept
    assert 1 < len(kept_of(workspace)) < 6
    assert 15_000 < kept.weight <= kept.limit == 30_000
    assert len(alice.blocks()) == 12


def test_the_bytes_that_are_counted_are_those_that_are_taken(workspace: Workspace, alice: Vault) -> None:
    """By Python's own count: what becomes free when all is forgotten."""
    blocks = [alice.create_block(label=f"oak {number}", value="x" * 1000).id for number in range(40)]
    agents = [alice.create_agent({"name": f"agent {number}"}).id for number in range(10)]
    workspace.recall.clear()
    workspace.geneses.clear()
    workspace._identities.clear()
    tracemalloc.start()
    try:
        for block in blocks * 2:
            alice.block_as(block, BARE)
        for agent in agents:
            alice.attach(agent, blocks[0])
        store = workspace.store
        assert isinstance(store, SqliteStore)
        store._rows.restart()  # which shares rows with what is kept of blocks
        for name in ("recall._kept", "geneses", "_identities"):
            kept: Recent[object, object] = attrgetter(name)(workspace)
            counted = kept.weight
            gc.collect()
            before = tracemalloc.get_traced_memory()[0]
            kept.clear()
            gc.collect()
            taken = before - tracemalloc.get_traced_memory()[0]
            assert 0.6 < taken / counted < 1.3, (name, taken, counted)
    finally:
        tracemalloc.stop()


def test_what_was_asked_for_last_stays() -> None:
    kept: Recent[int, bytes] = Recent(20_000)
    for number in range(500):
        kept.put(number, bytes(1_000), 1_000)
        assert kept.get(0) == bytes(1_000) and kept.weight <= 20_000
    assert {number for number in range(500) if kept.get(number)} == {0, *range(485, 500)}
    kept.put(0, bytes(9_000), 9_000)
    kept.put(0, bytes(3_000), 3_000)
    assert kept.weight == sum(len(value) + ENTRY for value in kept.values()) <= 20_000
    kept.put(0, bytes(10_000), 10_000)  # more than half of all
    assert kept.get(0) is None and len(kept) > 3


def test_a_table_of_digests_has_what_was_added_last_and_nothing_else() -> None:
    digests = [sha256(b"%d" % number).digest() for number in range(3_000)]
    table = Digests(256)
    for number, digest in enumerate(digests):
        assert digest not in table
        table.add(digest)
        table.add(digest)
        assert digest in table
        assert (
            digests[max(0, number - 1)] in table
        )  # two share a place: one more displaces neither of the last
    assert 200 < sum(digest in table for digest in digests) <= 256
    assert len(table._table) == 256 * 32
    table.clear()
    assert not any(digest in table for digest in digests)


def test_a_key_that_was_never_committed_is_not_kept(workspace: Workspace, alice: Vault, bob: Vault) -> None:
    """Whoever may write and changes the keys keeps nothing of it before it has taken place."""
    block = alice.create_block(label="oak", value=SECRET)
    carol = workspace.vault(alice.add_user("carol").token)
    alice.share(block.id, bob.principal_id, "write")
    alice.share(block.id, carol.principal_id, "read")
    for vault in (bob, carol):
        vault.offers()
        vault.accept_offer(block.id)
        assert vault.block(block.id).value == SECRET
    caller = bob._caller

    def lose() -> None:
        with workspace.store.snapshot() as snapshot:
            plan = Plan(snapshot, workspace.recall.find)
            held = find(plan, caller.keys, BLOCKS, block.id)
            assert held is not None
            opened = open_block(caller, plan, held)
            change_keys(opened)
            workspace.recall.keep(opened, opened.payload())  # and its commit never comes

    lose()
    assert bob.block(block.id).value == SECRET
    bob.edit_block(block.id, lambda before: {"value": before.value + "!"})
    assert carol.block(block.id).value == alice.block(block.id).value == SECRET + "!"


def test_what_sqlite_keeps_of_the_file_is_bounded_for_each_connection(tmp_path: Path) -> None:
    with make_store(tmp_path / "store.db") as store:
        for reader, bound in ((True, PAGES_OF_READER), (False, PAGES_OF_WRITER)):
            with closing(store._connect(reader=reader)) as connection:
                assert connection.execute("PRAGMA cache_size").fetchone() == (-bound // 1024,)


def test_a_purge_does_not_hold_all_that_it_removes(workspace: Workspace) -> None:
    answers = [Put(REPLY, (WS, b"%d" % number, 0, 1, bytes(4_000))) for number in range(1_500)]
    workspace.store.commit(Batch(changes=list(answers)))
    del answers
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        assert workspace.purge() == 1_500
        assert tracemalloc.get_traced_memory()[1] - before < 4_000_000  # of 6 MB
    finally:
        tracemalloc.stop()
    with workspace.store.snapshot() as snapshot:
        assert snapshot.scan(REPLY, (WS,)) == []
