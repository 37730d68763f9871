"""Blocks and grants that end: read until their last day, then by nobody, nor out of a backup."""

from __future__ import annotations

import multiprocessing
import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
import raw_rows
from force import by_force

import tallystone
from tallystone import crypto
from tallystone.errors import Conflict, Denied, Invalid, NotFound, StoreError, Tampered
from tallystone.store.protocol import Batch, Put
from tallystone.store.tables import (
    BLOCK,
    CALENDAR,
    CHAIN,
    EPOCH,
    GRANT_WRAP,
    LEDGER,
    VERSION,
    Table,
)  # fmt: skip
from tallystone.vault import Vault, Workspace, purging
from tallystone.vault.block_row import FLAG_ROTATE, BlockRow
from tallystone.vault.daykeys import DayKeys
from tallystone.vault.entering import open_block
from tallystone.vault.opening import Opened
from tallystone.vault.plan import Plan
from tallystone.vault.records import nest_key, open_chain_key, unwrap_epoch, wrap_epoch
from tallystone.vault.shelves import BLOCKS, find
from tallystone.vault.types import Block, Credentials

DAY = 86400
OF_A_BLOCK = (BLOCK, CHAIN, VERSION, EPOCH, GRANT_WRAP, LEDGER, CALENDAR)


class Clock:
    """A clock that is put forward by hand. It starts at the real day: other processes' clocks do not follow."""

    def __init__(self, workspace: Workspace) -> None:
        self.now = workspace.clock()
        workspace.clock = lambda: self.now

    def day(self, ahead: int = 0) -> date:
        """The day that many days ahead of the clock's."""
        return date(1970, 1, 1) + timedelta(int(self.now // DAY) + ahead)

    def forward(self, days: int) -> None:
        """Let days pass."""
        self.now += days * DAY


@pytest.fixture
def clock(workspace: Workspace) -> Clock:
    """The workspace's clock."""
    return Clock(workspace)


def number(day: date) -> int:
    return (day - date(1970, 1, 1)).days


def rows(workspace: Workspace, table: Table) -> list[tuple[Any, ...]]:
    with workspace.store.snapshot() as snapshot:
        return list(snapshot.rows(table))


def edited(workspace: Workspace, change: Callable[[Plan], None]) -> None:
    """What an operator does to rows, past the log."""
    with workspace.store.snapshot() as snapshot:
        plan = Plan(snapshot)
        change(plan)
    workspace.store.commit(plan.batch())


def stored(workspace: Workspace, vault: Vault, block: Block) -> BlockRow:
    found: list[BlockRow] = []
    by_force(vault, block.id, lambda opened, _: found.append(opened.row))
    return found[0]


def keys_on_disk(tmp_path: Path) -> list[str]:
    folder = tmp_path / "data" / "server-keys" / "days"
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


# -- until when -----------------------------------------------------------------------------------------------------


def test_a_block_is_read_on_its_last_day_and_missed_like_any_other_after_it(
    workspace: Workspace, alice: Vault, bob_credentials: Credentials, clock: Clock
) -> None:
    agent = alice.create_agent({"name": "a"})
    block = alice.create_block(label="l", value="v", expires=clock.day(1))
    offered = alice.create_block(label="o", value="v", expires=clock.day(1))
    stays = alice.create_block(label="stays")
    for one in (block, offered):
        alice.share(one.id, "bob")
    alice.attach(agent.id, block.id)
    bob = workspace.vault(bob_credentials.token)
    bob.accept_offer(block.id)
    own = workspace.vault(alice.agent_token(agent.id))
    clock.forward(1)
    for vault in (alice, bob, own):
        assert vault.block(block.id).value == "v"
    assert [offer.block_id for offer in bob.offers()] == [offered.id]
    clock.forward(1)
    unknown = "block-00000000-0000-4000-8000-000000000000"
    for vault in (alice, bob, own):
        with pytest.raises(NotFound) as never:
            vault.block(unknown)
        for attempt in (
            lambda vault=vault: vault.block(block.id),
            lambda vault=vault: vault.edit_block(block.id, lambda _: {"value": "w"}),
            lambda vault=vault: vault.edit_block(block.id, lambda _: {"expires": None}),
            lambda vault=vault: vault.delete_block(block.id),
            lambda vault=vault: vault.grants(block.id),
        ):
            with pytest.raises(NotFound) as missed:
                attempt()
            assert missed.value.message == never.value.message.replace(unknown, block.id)
            assert (missed.value.code, missed.value.hint) == (never.value.code, never.value.hint)
    assert [one.id for one in alice.blocks()] == [stays.id]
    assert bob.blocks() == own.blocks() == alice.agent_blocks(agent.id) == alice.agent(agent.id).blocks == []
    assert bob.offers() == []
    with pytest.raises(NotFound):
        bob.accept_offer(offered.id)
    with pytest.raises(NotFound):
        alice.attach(agent.id, block.id)


def test_an_expiry_in_the_past_is_refused_and_today_is_not_past(
    alice: Vault, clock: Clock, tmp_path: Path
) -> None:
    with pytest.raises(Invalid) as refused:
        alice.create_block(label="l", expires=clock.day(-1))
    assert refused.value.code == "bad_expiry" and alice.blocks() == []
    block = alice.create_block(label="l", expires=clock.day())
    with pytest.raises(Invalid):
        alice.edit_block(block.id, lambda _: {"expires": clock.day(-1), "value": "w"})
    assert alice.block(block.id) == block
    assert keys_on_disk(tmp_path) == [str(number(clock.day()))]


def test_an_owner_extends_shortens_and_removes_an_expiry(
    workspace: Workspace, alice: Vault, clock: Clock
) -> None:
    block = alice.create_block(label="l", value="v")
    agent = alice.create_agent({"name": "a"}, block_ids=[block.id])
    epochs = [0]
    for expires in (clock.day(5), clock.day(9), clock.day(2), None, clock.day(3)):
        after = alice.edit_block(block.id, lambda _, expires=expires: {"expires": expires})
        row = stored(workspace, alice, block)
        day = None if expires is None else number(expires)
        assert (after.expires, row.day) == (expires, day)
        assert [(entry[1], entry[3], entry[4]) for entry in rows(workspace, CALENDAR)] == (
            [] if day is None else [(day, 0, "block")]
        )
        epochs.append(row.epoch)
        assert alice.block(block.id).value == alice.agent(agent.id).blocks[0].value == "v"
    assert epochs == [0, 1, 2, 3, 4, 5]  # each with keys of its own
    alice.edit_block(block.id, lambda _: {"value": "w"})
    assert stored(workspace, alice, block).epoch == 5
    clock.forward(4)
    with pytest.raises(NotFound):
        alice.block(block.id)


def test_grants_and_revocations_of_an_expiring_block_are_nested_as_well(
    workspace: Workspace, alice: Vault, bob_credentials: Credentials, clock: Clock
) -> None:
    block = alice.create_block(label="l", value="v", expires=clock.day(2))
    agent = alice.create_agent({"name": "a"}, block_ids=[block.id])
    alice.share(block.id, "bob", "write")
    bob = workspace.vault(bob_credentials.token)
    bob.accept_offer(block.id)
    nested = {row[3]: len(row[4]) for row in rows(workspace, GRANT_WRAP) if len(row[4]) in (48, 80)}
    assert nested == {0: 80}
    alice.revoke(block.id, agent.id)
    storage = stored(workspace, alice, block).storage
    assert [len(row[4]) for row in rows(workspace, GRANT_WRAP) if row[1] == storage] == [80, 80]
    bob.edit_block(block.id, lambda _: {"value": "w"})
    assert alice.block(block.id).value == "w"
    alice.delete_block(block.id)
    assert rows(workspace, CALENDAR) == []


def test_an_expiring_append_only_block_stays_so_with_another_owner(
    workspace: Workspace, alice: Vault, bob_credentials: Credentials, clock: Clock
) -> None:
    block = alice.create_block(label="l", value="v", expires=clock.day(2), append_only=True)
    bob = workspace.vault(bob_credentials.token)
    alice.transfer(block.id, "bob")
    taken = bob.accept_transfer(block.id)
    assert (taken.expires, taken.owner, taken.created_by) == (
        clock.day(2),
        bob.principal_id,
        alice.principal_id,
    )
    bob.edit_block(block.id, lambda b: {"value": b.value + "w", "expires": clock.day(5)})
    with pytest.raises(Denied):
        bob.edit_block(block.id, lambda _: {"value": "w"})
    clock.forward(4)
    (
        workspace.trusted.clear(),
        workspace.geneses.clear(),
        workspace.recall.clear(),
    )  # as another process, which has seen nothing yet
    assert bob.block(block.id).value == "vw"
    clock.forward(2)
    with pytest.raises(NotFound):
        bob.block(block.id)
    workspace.purge()
    assert workspace.verify().findings == []


# -- purging --------------------------------------------------------------------------------------------------------


def test_a_purge_removes_every_row_and_the_days_key_and_leaves_what_has_not_ended(
    workspace: Workspace, alice: Vault, clock: Clock, tmp_path: Path
) -> None:
    agent = alice.create_agent({"name": "a"})
    before = {table.name: rows(workspace, table) for table in OF_A_BLOCK}
    for days in (1, 1, 2):
        gone = alice.create_block(label=f"gone{days}", expires=clock.day(days))
        alice.attach(agent.id, gone.id)
        alice.detach(agent.id, gone.id)
        alice.edit_block(gone.id, lambda _: {"value": "w"})
    clock.forward(1)
    assert workspace.purge() == 0
    kept = alice.create_block(label="kept", value="v", expires=clock.day(5))
    clock.forward(2)
    assert workspace.purge() > 0
    assert keys_on_disk(tmp_path) == [str(number(clock.day(3)))]
    assert [one.id for one in alice.blocks()] == [kept.id] and alice.block(kept.id).value == "v"
    storage = stored(workspace, alice, kept).storage
    for table in OF_A_BLOCK:
        width = 2 if table is CALENDAR else 1
        assert [row for row in rows(workspace, table) if row[width] != storage] == before[table.name]
    assert workspace.purge() == 0
    events = [event for event in alice.events(200) if event.kind == "expire"]
    assert len(events) == 3 and {event.detail["day"] for event in events} == {
        number(clock.day(-2)),
        number(clock.day(-1)),
    }
    assert workspace.verify().findings == []


def test_more_than_one_commit_takes_are_purged_in_one_go(
    workspace: Workspace, alice: Vault, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(purging, "AT_ONCE", 2)
    for count in range(7):
        alice.create_block(label=f"b{count}", expires=clock.day(count % 3))
    clock.forward(9)
    workspace.purge()
    assert rows(workspace, CALENDAR) == [] and all(row[6] is None for row in rows(workspace, BLOCK))


def test_a_purge_that_loses_races_goes_on_with_less_at_once(
    workspace: Workspace, alice: Vault, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    for count in range(5):
        alice.create_block(label=f"b{count}", expires=clock.day())
    clock.forward(1)
    commit, lost = workspace.store.commit, [0]

    def losing(batch: Batch, *queued: Any) -> int:
        if batch.expects and lost[0] < 4:
            lost[0] += 1
            raise Conflict("somebody was faster")
        return commit(batch, *queued)

    monkeypatch.setattr(workspace.store, "commit", losing)
    workspace.purge()
    assert lost == [4] and rows(workspace, CALENDAR) == []


def test_opening_a_workspace_for_a_program_purges_what_is_due(
    workspace: Workspace, alice: Vault, alice_credentials: Credentials, clock: Clock, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    alice.create_block(label="l", expires=clock.day())
    later = clock.now + 2 * DAY
    workspace.close()
    monkeypatch.setattr("tallystone.vault.workspace.time.time", lambda: later)
    with tallystone.open(tmp_path / "data", token=alice_credentials.token) as vault:
        assert vault.blocks() == []
        assert rows(vault._workspace, CALENDAR) == [] and keys_on_disk(tmp_path) == []


def test_an_agent_whose_private_block_has_expired_can_still_be_deleted(
    workspace: Workspace, alice: Vault, clock: Clock
) -> None:
    for purged in (False, True):
        agent = alice.create_agent({"name": "a"}, memory_blocks=[{"label": "l", "expires": clock.day()}])
        clock.forward(1)
        if purged:
            workspace.purge()
        alice.delete_agent(agent.id)
    assert alice.agents() == []


# -- attacks --------------------------------------------------------------------------------------------------------


def test_a_backup_from_before_the_expiry_opens_nothing_once_the_day_key_is_destroyed(
    workspace: Workspace, alice: Vault, alice_credentials: Credentials, bob_credentials: Credentials,
    clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    block = alice.create_block(label="l", value="the secret", expires=clock.day(1))
    alice.edit_block(block.id, lambda _: {"value": "the secret, again"})
    agent = alice.create_agent({"name": "a"}, block_ids=[block.id])
    own_token = alice.agent_token(agent.id)
    alice.share(block.id, "bob", "write")
    workspace.vault(bob_credentials.token).accept_offer(block.id)
    copy = tmp_path / "copy"
    copy.mkdir()
    raw_rows.copy_rows(tmp_path / "data", copy)
    clock.forward(2)
    workspace.purge()
    shutil.copytree(tmp_path / "data" / "server-keys", copy / "server-keys")

    with Workspace.open(copy) as restored:
        # The attacker's clock says what the attacker likes: it is the key that is gone.
        restored.clock = lambda: clock.now - 2 * DAY
        assert any(row[6] is not None for row in rows(restored, BLOCK))
        for token in (alice_credentials.token, own_token, bob_credentials.token):
            vault = restored.vault(token)
            with pytest.raises(NotFound):
                vault.block(block.id)
            assert vault.blocks() == []
        # With the wrap keys in hand, and no code of ours in between.
        with restored.store.snapshot() as snapshot:
            plan = Plan(snapshot)
            for token in (alice_credentials.token, own_token, bob_credentials.token):
                keys = restored.caller(token).keys
                held = find(plan, keys, BLOCKS, block.id)
                assert held is not None
                wrap = plan.get(GRANT_WRAP, held.storage, held.grant)
                assert wrap is not None
                inner = crypto.unwrap(crypto.derive(held.key, "grant/wrap", block.id, wrap[3]), wrap[4])
                for guess in (inner[:32], held.key, held.admin or bytes(32), crypto.random_bytes()):
                    for nest in (guess, nest_key(guess, block.id, wrap[3])):
                        with pytest.raises(Tampered):
                            crypto.unwrap(nest, inner)
                epoch = plan.get(EPOCH, held.storage, wrap[3])
                assert epoch is not None
                with pytest.raises(Tampered):
                    open_chain_key(inner[:32], bytes(epoch[3]))


def test_a_day_key_with_the_database_opens_nothing(workspace: Workspace, alice: Vault, clock: Clock) -> None:
    block = alice.create_block(label="l", value="v", expires=clock.day(1))
    day_key = workspace.days.get(number(clock.day(1)))
    assert day_key is not None
    row = stored(workspace, alice, block)
    for wrap in rows(workspace, GRANT_WRAP):
        for key in (day_key, nest_key(day_key, block.id, row.epoch)):
            with pytest.raises(Tampered):
                crypto.unwrap(key, wrap[4])
            with pytest.raises(Tampered):
                unwrap_epoch(key, block.id, row.epoch, wrap[4], nest_key(day_key, block.id, row.epoch))


@pytest.mark.parametrize("day", [None, 1, 7, 10**6])
def test_an_expiry_edited_in_the_stored_rows_makes_no_expired_block_readable(
    workspace: Workspace, alice: Vault, clock: Clock, day: int | None
) -> None:
    alice.create_block(label="other", expires=clock.day(7))  # so that this day has a key
    block = alice.create_block(label="l", value="v", expires=clock.day())
    row = stored(workspace, alice, block)
    today, later = number(clock.day()), None if day is None else number(clock.day()) + day

    def edit(plan: Plan) -> None:
        replace(row, day=later).write(plan)
        plan.delete(CALENDAR, today, row.storage, 0)
        if later is not None:
            plan.put(CALENDAR, later, row.storage, 0, "block")

    edited(workspace, edit)
    for _ in range(2):  # on its last day, and after
        with pytest.raises((NotFound, Tampered)):
            alice.block(block.id)
        clock.forward(1)
    workspace.purge()
    with pytest.raises((NotFound, Tampered)):
        alice.block(block.id)


def test_a_holder_who_wraps_the_keys_anew_extends_nothing(
    workspace: Workspace, alice: Vault, bob_credentials: Credentials, clock: Clock
) -> None:
    """On the last day a reader knows DEK and H, and wraps them for itself without a nest, or in a later day's."""
    block = alice.create_block(label="l", value="v", expires=clock.day())
    alice.create_block(label="other", expires=clock.day(7))
    alice.share(block.id, "bob", "write")
    bob = workspace.vault(bob_credentials.token)
    bob.accept_offer(block.id)
    kept: list[Opened] = []
    by_force(bob, block.id, lambda opened, _: kept.append(opened))
    held, row, keys = kept[0].held, kept[0].row, kept[0].keys
    for day in (None, number(clock.day(7))):
        nest = workspace.nest(block.id, day, row.shred, keys.number)
        assert nest is not None
        wrap = wrap_epoch(held.key, block.id, keys, history=True, nest=nest)

        def edit(plan: Plan, wrap: bytes = wrap, day: int | None = day) -> None:
            plan.put(GRANT_WRAP, row.storage, held.grant, keys.number, wrap)
            replace(row, day=day).write(plan)

        edited(workspace, edit)
        with pytest.raises(Tampered, match="days"):
            bob.block(block.id)
        clock.forward(1)
        with pytest.raises(NotFound):
            bob.block(block.id)
        clock.forward(-1)


def test_an_entry_of_the_calendar_that_the_blocks_row_does_not_confirm_removes_nothing(
    workspace: Workspace, alice: Vault, clock: Clock
) -> None:
    blocks = [alice.create_block(label="l"), alice.create_block(label="m", expires=clock.day(9))]
    storages = [stored(workspace, alice, block).storage for block in blocks]
    past = number(clock.day(-3))

    def edit(plan: Plan) -> None:
        for storage in storages:
            plan.put(CALENDAR, past, storage, 0, "block")
            plan.put(CALENDAR, past, storage, 1, "grant")

    edited(workspace, edit)
    workspace.purge()
    assert [row[1] for row in rows(workspace, CALENDAR)] == [number(clock.day(9))]
    assert alice.blocks() == blocks


# -- crashes --------------------------------------------------------------------------------------------------------


def test_a_crash_between_the_commit_and_the_end_of_the_key_is_finished_by_the_next_purge(
    workspace: Workspace, alice: Vault, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    block = alice.create_block(label="l", expires=clock.day())
    day = number(clock.day())
    clock.forward(1)

    def crash(_: int) -> list[int]:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(workspace.days, "destroy", crash)
        with pytest.raises(KeyboardInterrupt):
            workspace.purge()
    assert rows(workspace, CALENDAR) == [] and keys_on_disk(tmp_path) == [str(day)]
    assert workspace.day_key(day) is None
    with pytest.raises(NotFound):
        alice.block(block.id)
    assert workspace.purge() == 1  # the note that the block's shred key must go
    assert keys_on_disk(tmp_path) == [] and workspace.purge() == 0


def test_a_crash_before_the_commit_leaves_the_key_and_the_rows_for_the_next_purge(
    workspace: Workspace, alice: Vault, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice.create_block(label="l", expires=clock.day())
    clock.forward(1)
    workspace.auditor_key()

    def crash(*_: Any) -> int:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(workspace.store, "commit", crash)
        with pytest.raises(KeyboardInterrupt):
            workspace.purge()
    assert len(rows(workspace, CALENDAR)) == len(keys_on_disk(tmp_path)) == 1
    workspace.purge()
    assert rows(workspace, CALENDAR) == keys_on_disk(tmp_path) == []


def test_a_days_key_is_on_disk_before_the_commit_that_uses_it(
    workspace: Workspace, alice: Vault, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    block = alice.create_block(label="l")
    seen: list[list[str]] = []
    commit = workspace.store.commit

    def looking(batch: Batch, *queued: Any) -> int:
        if any(isinstance(one, Put) and one.table is CALENDAR for one in batch.changes):
            seen.append(keys_on_disk(tmp_path))
        return commit(batch, *queued)

    monkeypatch.setattr(workspace.store, "commit", looking)
    alice.create_block(label="m", expires=clock.day(1))
    alice.edit_block(block.id, lambda _: {"expires": clock.day(2)})
    days = [str(number(clock.day(ahead))) for ahead in (1, 2)]
    assert seen == [days[:1], days]


# -- grants that end ------------------------------------------------------------------------------------------------


def test_an_ended_grant_loses_its_wrap_and_marks_its_block_until_somebody_rotates(
    workspace: Workspace, alice: Vault, bob_credentials: Credentials, clock: Clock
) -> None:
    block = alice.create_block(label="l", value="v")
    alice.share(block.id, "bob", "write", until=clock.day(1))
    bob = workspace.vault(bob_credentials.token)
    bob.accept_offer(block.id)
    before = stored(workspace, alice, block)
    clock.forward(1)
    assert workspace.purge() == 0 and bob.block(block.id).value == "v"
    clock.forward(1)
    with pytest.raises(NotFound):
        bob.block(block.id)
    assert workspace.purge() > 0
    row = stored(workspace, alice, block)
    assert (row.flags & FLAG_ROTATE, row.epoch) == (FLAG_ROTATE, before.epoch)
    assert [wrap[2] for wrap in rows(workspace, GRANT_WRAP) if wrap[1] == row.storage] == [0]
    assert rows(workspace, CALENDAR) == []
    (event,) = [event for event in alice.events(50) if event.kind == "expire"]
    assert event.detail["grant"] == 1
    with pytest.raises(NotFound):
        bob.block(block.id)
    assert alice.edit_block(block.id, lambda _: {"value": "w"}).value == "w"
    row = stored(workspace, alice, block)
    assert (row.flags, row.epoch) == (0, before.epoch + 1)
    assert workspace.verify().findings == []


def test_a_grant_that_was_revoked_before_its_day_leaves_nothing_to_purge(
    workspace: Workspace, alice: Vault, bob_credentials: Credentials, clock: Clock
) -> None:
    block = alice.create_block(label="l", value="v")
    alice.share(block.id, "bob", until=clock.day(1))
    alice.revoke(block.id, "bob")
    clock.forward(2)
    workspace.purge()
    assert stored(workspace, alice, block).flags == 0
    assert [event for event in alice.events(50) if event.kind == "expire"] == []


# -- the keys of days -----------------------------------------------------------------------------------------------


def _make(folder: str, day: int, answers: Any) -> None:
    answers.put(DayKeys(Path(folder)).make(day))


def test_processes_and_threads_that_make_a_days_key_at_once_get_the_same(tmp_path: Path) -> None:
    folder = tmp_path / "days"
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    processes = [context.Process(target=_make, args=(str(folder), 20_000, answers)) for _ in range(3)]
    for process in processes:
        process.start()
    made = {answers.get(timeout=60) for _ in processes}
    for process in processes:
        process.join()
    assert len(made) == 1
    for day in range(30):
        found: list[bytes] = []
        start = threading.Barrier(4)

        def work(day: int = day, found: list[bytes] = found, start: threading.Barrier = start) -> None:
            start.wait()
            found.append(DayKeys(folder).make(day))

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == 4 and set(found) == {DayKeys(folder).get(day)}
    assert sorted(path.name for path in folder.iterdir()) == sorted([*map(str, range(30)), "20000"])
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    assert folder.stat().st_mode & 0o777 == 0o700


def test_destroyed_keys_are_gone_for_every_process_and_nothing_else_is(tmp_path: Path) -> None:
    ours, theirs = DayKeys(tmp_path / "days"), DayKeys(tmp_path / "days")
    assert ours.destroy(5) == [] and ours.get(5) is None
    kept = {day: ours.make(day) for day in (3, 9, 10, 11)}
    assert ours.make(10) == kept[10] == theirs.get(10)
    (tmp_path / "days" / ".4.0011").write_bytes(b"left by a process that died")
    (tmp_path / "days" / ".12.0011").write_bytes(b"being made")
    assert theirs.destroy(10) == [3, 9]
    assert [ours.get(day) for day in (3, 9, 10, 11)] == [None, None, kept[10], kept[11]]
    assert sorted(path.name for path in (tmp_path / "days").iterdir()) == [".12.0011", "10", "11"]
    assert repr(ours) == "DayKeys(days)"


def test_a_damaged_or_unreadable_day_key_says_what_to_do(tmp_path: Path) -> None:
    days = DayKeys(tmp_path / "days")
    days.make(1)
    (tmp_path / "days" / "1").write_bytes(b"short")
    with pytest.raises(StoreError) as refused:
        days.get(1)
    assert refused.value.code == "no_day_key"
    (tmp_path / "days" / "2").mkdir()
    with pytest.raises(StoreError):
        days.get(2)
    with pytest.raises(StoreError):
        days.destroy(3)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError):
        DayKeys(tmp_path / "file").make(1)


def test_a_missing_day_key_is_a_miss_and_the_rest_goes_on(
    workspace: Workspace, alice: Vault, clock: Clock, tmp_path: Path
) -> None:
    block = alice.create_block(label="l", expires=clock.day(3))
    other = alice.create_block(label="m")
    (tmp_path / "data" / "server-keys" / "days" / str(number(clock.day(3)))).unlink()
    with pytest.raises(NotFound):
        alice.block(block.id)
    assert alice.blocks() == [other]
    with workspace.store.snapshot() as snapshot:
        plan = Plan(snapshot)
        held = find(plan, alice._caller.keys, BLOCKS, block.id)
        assert held is not None
        with pytest.raises(NotFound):
            open_block(alice._caller, plan, held)
