"""Removing what has ended, without any key: answers kept for retries, invitations, blocks and grants whose day is over,
and the shred keys of deleted blocks.

What ends when lies in the calendar; nothing else is searched. A block goes with all its rows, then its day's key is
destroyed, so that no backup brings it back. A grant loses its wrap, and its block is marked: whoever writes next
changes the keys first. A crash in between leaves nothing readable, and the next purge goes on.

What is destroyed here no backup brings back. So an entry counts only if the log accounts for it and for the block's
row: whoever writes a row into the store ends nothing by it, and the log check finds the row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from tallystone import crypto
from tallystone.audit.accounted import accounted
from tallystone.audit.checkpoint import origin_of
from tallystone.errors import Conflict
from tallystone.store.protocol import Batch, Change, Delete, Snapshot
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
    Row,
    Table,
)
from tallystone.vault.block_row import FLAG_ROTATE, BlockRow
from tallystone.vault.caller import ATTEMPTS
from tallystone.vault.events import seal_event
from tallystone.vault.logkey import seeds
from tallystone.vault.plan import WS, Plan
from tallystone.vault.writing import doom

if TYPE_CHECKING:
    from tallystone.vault.workspace import Workspace

AT_ONCE = 64
"""Entries of the calendar that one commit works off."""
_Due: TypeAlias = tuple[Row, Row | None]
"""An entry of the calendar, and the row of the block that it is about if that is still there."""


def is_due(workspace: Workspace) -> bool:
    """Whether the calendar has something that ended before today, or a key waits for its end. Reads two rows."""
    if workspace.days.any_before(workspace.today()):
        return True
    with workspace.store.snapshot() as snapshot:
        return _has_ended(workspace, snapshot) or bool(snapshot.scan(SHRED, (WS,), limit=1))


def _has_ended(workspace: Workspace, snapshot: Snapshot) -> bool:
    return any(int(row[1]) < workspace.today() for row in snapshot.scan(CALENDAR, (WS,), limit=1))


def purge(workspace: Workspace) -> int:
    """Remove all that has ended by now. Returns how many rows went or changed. Raises `StoreError`, `Conflict`, and
    `Tampered` when the log's head is not to be trusted: then nothing is destroyed."""
    done = _drop_waiting(workspace)
    with workspace.store.snapshot() as snapshot:
        due = _accounted_for(workspace, snapshot) if _has_ended(workspace, snapshot) else []
    for place in range(0, len(due), AT_ONCE):
        done += _work_off(workspace, due[place : place + AT_ONCE])
    # After the commits, never before: a key without rows harms nobody, rows without their key could not be explained.
    workspace.days.destroy(workspace.today())
    return done + destroy_doomed(workspace)


def destroy_doomed(workspace: Workspace) -> int:
    """Destroy the shred keys that wait for it, rid the store's files of what was deleted, and then forget that they
    waited. Whatever was interrupted before is done again. Returns how many rows went. Raises `StoreError`, and
    `Tampered` when the log's head is not to be trusted."""
    done = 0
    after: bytes | None = None
    while True:
        with workspace.store.snapshot() as snapshot:
            rows = snapshot.scan(SHRED, (WS,), after=after, limit=AT_ONCE)
            ours = _ours(workspace, snapshot, [(SHRED, row) for row in rows])
        if not rows:
            if done:
                workspace.store.scrub()  # of the names of the slots, which say nothing by now
            return done
        after = bytes(rows[-1][1])
        rows = [row for row in rows if (SHRED.name, row) in ours]
        workspace.shreds.destroy(bytes(row[1]) for row in rows)
        if not workspace.store.scrub():
            return done  # somebody reads an older state: it is tried again
        # A row may be gone already, by another process's purge: deleting it again is no harm.
        if rows:
            workspace.store.commit(Batch([], [Delete(SHRED, (WS, row[1])) for row in rows], []))
        done += len(rows)


def _ours(workspace: Workspace, snapshot: Snapshot, rows: list[tuple[Table, Row]]) -> set[tuple[str, Row]]:
    """Those of the rows that the log accounts for, by a key of the log's that lies here, outside the store."""
    publics = [crypto.signing_public(seed) for seed in seeds(workspace.folder)]
    return accounted(snapshot, origin_of(workspace.id), publics, rows)


def _accounted_for(workspace: Workspace, snapshot: Snapshot) -> list[_Due]:
    """The entries of the calendar that are due, each with its block's row, if the log accounts for both."""
    pairs: list[_Due] = []
    for entry in snapshot.scan(CALENDAR, (WS,)):
        if int(entry[1]) >= workspace.today():
            break
        pairs.append((entry, snapshot.get(BLOCK, (WS, entry[2]))))
    rows = [(CALENDAR, entry) for entry, _ in pairs] + [
        (BLOCK, block) for _, block in pairs if block is not None
    ]
    ours = _ours(workspace, snapshot, rows)
    return [
        (entry, block)
        for entry, block in pairs
        if (CALENDAR.name, entry) in ours and (block is None or (BLOCK.name, block) in ours)
    ]


def _drop_waiting(workspace: Workspace) -> int:
    """Remove answers and invitations that wait no longer."""
    now, keys = workspace.now(), list[tuple[Table, Row]]()
    with workspace.store.snapshot() as snapshot:
        for table, until in ((REPLY, 3), (INVITE, 2)):
            # Of each row the key alone: minutes of answers, each as large as a block, would not go back to the system.
            keys += [(table, row[:2]) for row in snapshot.rows(table) if int(row[until] or 0) <= now]
    for place in range(0, len(keys), AT_ONCE):
        ended: list[Change] = [Delete(table, key) for table, key in keys[place : place + AT_ONCE]]
        workspace.store.commit(Batch([], ended, []))
    return len(keys)


def _work_off(workspace: Workspace, due: list[_Due]) -> int:
    """These entries, in one commit; after a lost race with fewer at once. One whose rows changed meanwhile waits for
    the next purge."""
    for _ in range(ATTEMPTS):
        with workspace.store.snapshot() as snapshot:
            plan = Plan(snapshot)
            auditor = workspace.auditor_key(plan)
            for entry, block in due:
                # as the snapshot has it: an entry before this one may have marked the same block
                same = snapshot.get(BLOCK, (WS, entry[2])) == block
                if same and plan.need(CALENDAR, *entry[1:4]) == entry:
                    _end(workspace, plan, entry, auditor)
        try:
            workspace.store.commit(plan.batch())
        except Conflict:
            if len(due) > 1:
                half = len(due) // 2
                return _work_off(workspace, due[:half]) + _work_off(workspace, due[half:])
            continue
        return len(plan.batch().changes)
    raise Conflict("what has expired is changing too fast", hint="it is tried again", code="contended")


def _end(workspace: Workspace, plan: Plan, entry: Row, auditor: tuple[bytes, bytes]) -> None:
    """Queue what an entry of the calendar asks for, if it still holds: the rows that it is about say the same day."""
    day, storage, number = int(entry[1]), bytes(entry[2]), int(entry[3])
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
