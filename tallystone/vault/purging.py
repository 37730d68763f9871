"""Removing what has ended, without any key: answers kept for retries, invitations, blocks and grants whose day is over,
and the shred keys of deleted blocks.

What ends when lies in the calendar; nothing else is searched. A block goes with all its rows, then its day's key is
destroyed, so that no backup brings it back. A grant loses its wrap, and its block is marked: whoever writes next
changes the keys first. A crash in between leaves nothing readable, and the next purge goes on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tallystone.errors import Conflict
from tallystone.store.protocol import Batch, Delete, Row, Snapshot
from tallystone.store.tables import (
    BLOCK,
    CALENDAR,
    CHAIN,
    EPOCH,
    GRANT_WRAP,
    INVITE,
    LEDGER,
    REPLY,
    SHRED,
    VERSION,
)
from tallystone.vault.caller import ATTEMPTS
from tallystone.vault.events import seal_event
from tallystone.vault.opening import FLAG_ROTATE, BlockRow
from tallystone.vault.plan import WS, Plan
from tallystone.vault.writing import doom

if TYPE_CHECKING:
    from tallystone.vault.workspace import Workspace

AT_ONCE = 64
"""Entries of the calendar that one commit works off."""


def is_due(workspace: Workspace) -> bool:
    """Whether the calendar has something that ended before today, or a key waits for its end. Reads two rows."""
    if workspace.days.any_before(workspace.today()):
        return True
    with workspace.store.snapshot() as snapshot:
        return _has_ended(workspace, snapshot) or bool(snapshot.scan(SHRED, (WS,), limit=1))


def _has_ended(workspace: Workspace, snapshot: Snapshot) -> bool:
    return any(int(row[1]) < workspace.today() for row in snapshot.scan(CALENDAR, (WS,), limit=1))


def purge(workspace: Workspace) -> int:
    """Remove all that has ended by now. Returns how many rows went or changed. Raises `StoreError`, `Conflict`."""
    done = _drop_waiting(workspace)
    while True:
        with workspace.store.snapshot() as snapshot:
            if not _has_ended(workspace, snapshot):
                break
        done += _work_off(workspace)
    # After the commits, never before: a key without rows harms nobody, rows without their key could not be explained.
    workspace.days.destroy(workspace.today())
    return done + destroy_doomed(workspace)


def destroy_doomed(workspace: Workspace) -> int:
    """Destroy the shred keys that wait for it, rid the store's files of what was deleted, and then forget that they
    waited. Whatever was interrupted before is done again. Returns how many rows went. Raises `StoreError`."""
    done = 0
    while True:
        with workspace.store.snapshot() as snapshot:
            rows = snapshot.scan(SHRED, (WS,), limit=AT_ONCE)
        if not rows:
            if done:
                workspace.store.scrub()  # of the names of the slots, which say nothing by now
            return done
        workspace.shreds.destroy(bytes(row[1]) for row in rows)
        if not workspace.store.scrub():
            return done  # somebody reads an older state: it is tried again
        # A row may be gone already, by another process's purge: deleting it again is no harm.
        workspace.store.commit(Batch([], [Delete(SHRED, (WS, row[1])) for row in rows], []))
        done += len(rows)


def _drop_waiting(workspace: Workspace) -> int:
    now = workspace.now()
    with workspace.store.snapshot() as snapshot:
        plan = Plan(snapshot)
        for row in plan.rows(REPLY):
            if int(row[3]) <= now:
                plan.delete(REPLY, row[1])
        for row in plan.rows(INVITE):
            if int(row[2]) <= now:
                plan.delete(INVITE, row[1])
    if plan.changes:
        workspace.store.commit(plan.batch())
    return len(plan.batch().changes)


def _work_off(workspace: Workspace) -> int:
    """One batch of what is due, in one commit. A lost race is run again, with less at once."""
    size = AT_ONCE
    for _ in range(ATTEMPTS):
        with workspace.store.snapshot() as snapshot:
            plan = Plan(snapshot)
            auditor = workspace.auditor_key(plan)
            for row in snapshot.scan(CALENDAR, (WS,), limit=size):
                if int(row[1]) < workspace.today():
                    _end(workspace, plan, row, auditor)
        try:
            workspace.store.commit(plan.batch())
        except Conflict:
            size = max(1, size // 2)
            continue
        return len(plan.batch().changes)
    raise Conflict("what has expired is changing too fast", hint="it is tried again", code="contended")


def _end(workspace: Workspace, plan: Plan, entry: Row, auditor: tuple[bytes, bytes]) -> None:
    """Queue what an entry of the calendar asks for, if it still holds: the rows that it is about say the same day."""
    day, storage, number = int(entry[1]), bytes(entry[2]), int(entry[3])
    plan.need(CALENDAR, day, storage, number)
    plan.delete(CALENDAR, day, storage, number)
    found = plan.need(BLOCK, storage)
    if found is None:
        return  # deleted meanwhile
    block = BlockRow.of(found)
    detail = {"kind": "expire", "actor": "", "under": "", "storage": storage.hex(), "day": day}
    if entry[4] == "block" and block.day == day:
        for row in plan.rows(LEDGER, storage):
            if row[7] is not None:
                plan.delete(CALENDAR, int(row[7]), storage, int(row[2]))
        for table in (CHAIN, VERSION, EPOCH, GRANT_WRAP, LEDGER):
            plan.clear(table, storage)
        plan.delete(BLOCK, storage)
        doom(plan, block.shred, workspace.today())
        plan.event("expire", seal_event(detail, None, (), auditor))
    elif entry[4] == "grant":
        ledger, wrap = plan.get(LEDGER, storage, number), plan.need(GRANT_WRAP, storage, number)
        if ledger is None or ledger[7] != day or not ledger[3] or wrap is None:
            return  # revoked, or left out by a change of keys meanwhile
        plan.delete(GRANT_WRAP, storage, number)
        plan.put(BLOCK, *found[1:5], block.flags | FLAG_ROTATE, *found[6:])
        plan.event("expire", seal_event({**detail, "grant": number}, None, (), auditor))
