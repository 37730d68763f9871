"""Erasure: a block, or a user with all it owns, is gone from the store, and the keys that backups would need as well.

In one commit: every row, the shelf rows that the caller can reach, and the log details that are about nothing else; the
log's leaves and hashes stay, so it still verifies. After it: the shred keys are overwritten and the store's own files
are rid of what was deleted. A crash in between leaves nothing readable, and either the same request again or the next
purge goes on (`purging`). What is left is a signed receipt, with the erased block's owner and in the log.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from tallystone.audit.logkeys import is_log_key
from tallystone.audit.restored import is_restore
from tallystone.errors import Denied, Invalid, Locked, NotFound, StoreError, Tampered
from tallystone.keystore import DELETED, Keys
from tallystone.statements import Erasure, Signed
from tallystone.store.protocol import Row
from tallystone.store.tables import (
    BLOCK,
    DIRECTORY,
    GRANT_WRAP,
    IDENTITY,
    INBOX,
    KIT,
    LOG_DETAIL,
    LOG_HEAD,
    SHELF,
    TOKEN,
)
from tallystone.vault import purging, streams
from tallystone.vault.agents import end_agent
from tallystone.vault.attaching import users_only
from tallystone.vault.block_row import FLAG_ROTATE, BlockRow
from tallystone.vault.caller import Caller
from tallystone.vault.directory import forget_name, house_of
from tallystone.vault.entering import open_block
from tallystone.vault.events import concerns_only, grant_keys, open_own, seal_event
from tallystone.vault.external import SERVER, TOOL
from tallystone.vault.former import FORMER, former_roots
from tallystone.vault.journal import keys_of_grants
from tallystone.vault.model_keys import MODEL_KEY
from tallystone.vault.opening import Opened, missing
from tallystone.vault.passages import keys_of, lookup
from tallystone.vault.plan import WS, Plan
from tallystone.vault.principals import amend
from tallystone.vault.records import Held
from tallystone.vault.replies import DAY, blank_answers
from tallystone.vault.roles import collect_mail, end_role
from tallystone.vault.shelves import AGENTS, BLOCKS, HOUSE, ROLES, SELF, slot_of, walk
from tallystone.vault.types import Receipt
from tallystone.vault.writing import clear, destroy, doom

if TYPE_CHECKING:
    from tallystone.vault.workspace import Workspace

RECEIPTS = ("receipts",)
"""Where a user's receipts lie, sealed like what an agent keeps: for whoever asks for the same erasure again."""
_CHUNK = 500
_WHOLE = 3
"""Parts of what an erasure says about a whole block; about a version it says one more."""


@dataclass
class _Gone:
    """What one erasure has queued so far."""

    blocks: list[list[object]] = field(default_factory=list)
    held: list[Held] = field(default_factory=list)
    holders: int = 0
    answers: int = 0
    """When the last answer that was kept for a retry expires, in Unix seconds: a backup may have it."""
    shredded: bool = True
    """Whether every block had a shred key, so that no backup of the database alone has all that opens it."""


def erase_block(caller: Caller, block_id: str) -> Receipt:
    """Erase a block of the caller's. Asked again, it finishes what was interrupted and returns the same receipt. Raises
    `NotFound`, `Denied`, `Locked`, and `StoreError` when the keys could not be destroyed yet."""

    def action(plan: Plan) -> tuple[Plan, Signed, int | None]:
        caller.must_act()
        held = lookup(caller, plan, block_id)
        known = None if held is not None else streams.find(plan, caller.keys, RECEIPTS, block_id)
        if known is not None:
            caller.event(plan, "read", receipt=block_id)
            return plan, Signed.decode(known["statement"]), None
        if held is None:
            raise missing("Block", block_id)
        gone = _Gone(answers=blank_answers(plan, caller.workspace.now()))
        _erase(caller, plan, held, gone)
        signed = _state(caller, plan, block_id, gone, _forget_events(plan, gone))
        streams.put(plan, caller.keys, RECEIPTS, block_id, {"statement": signed.encode()})
        place = plan.events
        # For its owner alone: the K_grants that others could open it with go with the block.
        who = {"actor": caller.id, "under": caller.under.id if caller.under else "", "kid": caller.kid}
        detail = {"kind": "erase", "block": block_id, "statement": signed.encode(), **who}
        plan.event("erase", seal_event(detail, caller.keys))
        return plan, signed, place

    plan, signed, place = caller.transact(action, lock=block_id)
    return finish(caller, signed, leaf_of(caller, signed) if place is None else (plan.first or 0) + place)


def erase_me(caller: Caller, confirm: str) -> Receipt:
    """Erase the caller, a user, with its blocks, agents, roles, tokens, kit and name. Its signed records stay, without
    a name, so that what it signed for others does. `confirm` is its own id. Raises `Denied` for agents,
    `Invalid` for the workspace's first user and for another id, `Locked` while one of its blocks is locked."""
    caller.must_act()
    users_only(caller)
    if caller.id == caller.workspace.record.root:
        raise Invalid(
            "the workspace's first user cannot be erased",
            hint="without it nobody adds users or reads refusals; delete the workspace's directory instead",
            code="is_root",
        )
    if confirm != caller.id:
        raise Invalid(
            "this is not the id of the user who asks", hint="confirm with your own id", code="not_confirmed"
        )
    with caller.workspace.store.snapshot() as snapshot:
        owned = [held.subject for held in walk(Plan(snapshot), caller.keys, ROLES) if held.own_leaf is None]
    for role in owned:
        collect_mail(caller, role)

    def action(plan: Plan) -> tuple[Plan, Signed, int]:
        gone = _Gone(answers=blank_answers(plan, caller.workspace.now()))
        for held in list(walk(plan, caller.keys, BLOCKS)):
            if held.own_leaf is None:
                _erase(caller, plan, held, gone)
        for held in list(walk(plan, caller.keys, AGENTS)):
            gone.shredded &= _has_shred_key(plan, held) and slot_of(held) is not None
            with suppress(
                NotFound
            ):  # ended, before a backup with it was restored: only its shelf row is left
                end_agent(caller, plan, held)
        for held in list(walk(plan, caller.keys, ROLES)):
            if held.own_leaf is None:
                end_role(caller, plan, held.subject)
        for shelf in (BLOCKS, ROLES):
            for held in list(walk(plan, caller.keys, shelf)):
                _leave(plan, held)
        house, nest = house_of(caller, plan), caller.keys.root.nest
        if nest is not None:
            doom(plan, nest.slot, caller.workspace.today())
        # Who is from before there were such keys, or whose name lay in an invitation, is in backups for longer.
        gone.shredded &= nest is not None and bool(house and (house.extra or {}).get("nested"))
        signed = _state(caller, plan, caller.id, gone, _forget_own_events(caller, plan, gone))
        place = plan.events
        caller.event(plan, "erase", principal=caller.id, statement=signed.encode())
        amend(caller, plan, caller.id, status=DELETED)
        if house is not None:
            forget_name(caller.workspace, plan, house.key, caller.id)
        plan.delete(DIRECTORY, caller.id)
        _forget_user(caller, plan)
        return plan, signed, place

    plan, signed, place = caller.transact(action, audit=True)
    return finish(caller, signed, (plan.first or 0) + place)


# -- what goes --------------------------------------------------------------------------------------------------


def _erase(caller: Caller, plan: Plan, held: Held, gone: _Gone) -> None:
    """Queue the end of one block with every shelf row of it that the caller can reach."""
    gone.shredded &= _has_shred_key(plan, held)
    gone.held.append(held)
    try:
        opened = open_block(caller, plan, held)
    except (NotFound, Tampered):
        if held.own_leaf is not None or not _is_left_over(caller, plan, held, gone):
            raise
        plan.delete(SHELF, caller.keys.shelf(BLOCKS), caller.keys.locator(held.block))
        return
    if opened.held.own_leaf is not None:
        raise Denied("only the owner erases a block", hint="detach it from your agents", code="not_owner")
    if opened.head.settings["locked"]:
        raise Locked("the block is locked", hint="its owner unlocks it with locked=false")
    gone.blocks.append([held.block, opened.head.digest, opened.row.version])
    gone.holders += _take_off(caller, plan, opened)
    destroy(plan, opened)
    plan.delete(SHELF, caller.keys.shelf(BLOCKS), caller.keys.locator(held.block))


def _is_left_over(caller: Caller, plan: Plan, held: Held, gone: _Gone) -> bool:
    """Whether of a block that does not open only a shelf row of the caller's is left, or rows that nobody can open:
    then those are queued to go too. A shelf row proves nothing: the block may have changed hands since, and whoever
    writes rows may have made it point to another's."""
    found = plan.need(BLOCK, held.storage)
    if found is None or plan.need(GRANT_WRAP, held.storage, held.grant) is None:
        return True
    row = BlockRow.of(found)
    nested = row.day is not None or row.shred is not None
    if not nested or caller.workspace.nest(held.block, row.day, row.shred, row.epoch) is not None:
        return False
    gone.blocks.append([held.block, b"", 0])
    # Of a shred key that is still there nobody knows whose it is; the key that it is nested with is gone.
    clear(plan, held.storage)
    return True


def _take_off(caller: Caller, plan: Plan, opened: Opened) -> int:
    """Queue the end of the shelf rows of those for whom the caller can act. Returns how many others there are."""
    others = 0
    for row, _ in opened.ledger().values():
        roster = opened.roster(row)
        recipient = roster.leaf.recipient
        keys = keys_of(caller, plan, recipient)
        if keys is not None:
            plan.delete(SHELF, keys.shelf(BLOCKS), keys.locator(opened.id))
        elif not roster.capsule or plan.get(INBOX, recipient, roster.capsule) is None:
            others += 1
    return others


def _leave(plan: Plan, held: Held) -> None:
    """Queue the end of the wrap of a grant from somebody else: whoever writes there next changes the keys."""
    row = plan.need(BLOCK, held.storage)
    if row is None or plan.need(GRANT_WRAP, held.storage, held.grant) is None:
        return
    plan.delete(GRANT_WRAP, held.storage, held.grant)
    plan.put(BLOCK, *row[1:5], int(row[5]) | FLAG_ROTATE, *row[6:])


def _forget_user(caller: Caller, plan: Plan) -> None:
    for shelf in (BLOCKS, AGENTS, ROLES, SELF, HOUSE):
        plan.clear(SHELF, caller.keys.shelf(shelf))
    for drawer in (RECEIPTS, MODEL_KEY, SERVER, TOOL, FORMER):
        streams.clear(plan, caller.keys, drawer)
    plan.clear(INBOX, caller.id)
    for row in plan.rows(TOKEN):
        if row[2] == caller.id:
            plan.delete(TOKEN, str(row[1]))
    for table in (KIT, IDENTITY):
        plan.delete(table, caller.id)


def _has_shred_key(plan: Plan, held: Held) -> bool:
    row = plan.get(BLOCK, held.storage)
    return row is None or row[7] is not None


# -- the log ----------------------------------------------------------------------------------------------------


def _details(plan: Plan) -> Iterator[Row]:
    """Every sealed detail of the log, newest first."""
    before: int | None = None
    while True:
        rows = plan.snapshot.scan(LOG_DETAIL, (WS,), after=before, limit=_CHUNK, reverse=True)
        yield from (row for row in rows if not (is_restore(bytes(row[2])) or is_log_key(bytes(row[2]))))
        if len(rows) < _CHUNK:
            return
        before = int(rows[-1][1])


def _forget(plan: Plan, which: Callable[[bytes], bool]) -> int:
    found = [int(row[1]) for row in _details(plan) if which(bytes(row[2]))]
    for number in found:
        plan.delete(LOG_DETAIL, number)
    return len(found)


def _forget_events(plan: Plan, gone: _Gone) -> int:
    """Queue the end of the details that are about the erased blocks and nothing else. The leaves, with their hashes,
    stay. Returns how many."""
    keys = [grant_keys(key)[0] for held in gone.held for key in keys_of_grants(plan, held)]
    return _forget(plan, lambda detail: concerns_only(detail, keys))


def _forget_own_events(caller: Caller, plan: Plan, gone: _Gone) -> int:
    """The same for all blocks of a user at once: what the user itself did to them. What others did there is sealed
    under keys that go with the blocks."""
    blocks, roots = {held.block for held in gone.held}, _roots(caller, plan)

    def own(detail: bytes) -> bool:
        content = _opened(detail, roots)
        return content is not None and content.get("block") in blocks

    return _forget(plan, own)


def _roots(caller: Caller, plan: Plan) -> list[Keys]:
    """The caller's keys, and those that its own events were sealed to before its root was renewed."""
    return [caller.keys, *(former.keys for former in former_roots(plan, caller.keys))]


def _opened(detail: bytes, roots: list[Keys]) -> dict[str, Any] | None:
    opened = (open_own(detail, keys) for keys in roots)
    return next((content for content in opened if content is not None), None)


def leaf_of(caller: Caller, signed: Signed) -> int:
    """The leaf of an erasure that was committed before. Raises `NotFound` if its detail is not in the log any more."""
    with caller.workspace.store.snapshot() as snapshot:
        plan = Plan(snapshot)
        roots = _roots(caller, plan)
        for row in _details(plan):
            content = _opened(bytes(row[2]), roots)
            if content is not None and content.get("statement") == signed.encode():
                return int(row[1])
    raise NotFound("the erasure is not in the log", hint="check it with: tallystone audit verify")


# -- the receipt ------------------------------------------------------------------------------------------------


def _state(caller: Caller, plan: Plan, what: str, gone: _Gone, events: int) -> Signed:
    """The caller's signed word for what it erases."""
    body = Erasure(
        what=what,
        blocks=list(gone.blocks),
        events=events,
        holders=gone.holders,
        horizon=horizon(caller.workspace, gone.answers, shredded=gone.shredded),
        issuer=caller.id,
        issuer_record=caller.identity(plan, caller.id).digest,
        time=caller.workspace.now_ms(),
    )
    return caller.sign(plan, "erasure", body.encode())


def horizon(workspace: Workspace, answers: int, *, shredded: bool) -> int | None:
    """The last day on which a backup could bring something back: with a shred key it takes a copy of that as well.
    `answers`: when the last kept answer expires (Unix seconds); its day's key lasts as long."""
    days, key_days = workspace.backups.days, workspace.backups.key_days
    if shredded:
        kept = key_days if days is None else min(days, key_days)
        return max(workspace.today(), answers // DAY) + kept
    return None if days is None else workspace.today() + days


def finish(caller: Caller, signed: Signed, leaf: int) -> Receipt:
    """Destroy the keys, rid the store's files of the rows, and write the receipt. Raises `StoreError` if a key cannot
    be destroyed: the rows are gone, and the same request again goes on."""
    workspace = caller.workspace
    purging.destroy_doomed(workspace)
    with workspace.store.snapshot() as snapshot:
        head = snapshot.get(LOG_HEAD, (WS,))
    if head is None:
        raise StoreError("the log has no head", hint="check it with: tallystone audit verify")
    body = Erasure.decode(signed.body)
    until = None if body.horizon is None else date(1970, 1, 1) + timedelta(body.horizon)
    return Receipt(
        erased=body.what,
        blocks=sum(1 for entry in body.blocks if len(entry) == _WHOLE),
        events=body.events,
        holders=body.holders,
        by=body.issuer,
        time=datetime.fromtimestamp(body.time / 1000, UTC),
        horizon=until,
        statement=signed.encode(),
        leaf=leaf,
        checkpoint=bytes(head[3]).decode(),
    )
