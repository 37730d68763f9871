"""Erasure of one version: its content goes, and no backup brings it back; the versions around it stay.

The content key of a version is wrapped under the DEK of its epoch, at first under that of the epoch in which it was
written, and every later epoch leads back to that one. So the block gets a new epoch under a new shred key, and each
epoch from that one on gets a new DEK and a new H: the keys of the versions that stay are wrapped again, their
ciphertexts and signatures stay as they are. After the commit the old shred key is destroyed. Today's rows lead to the
new keys only; those of a backup lie under a shred key that is gone.
"""

from __future__ import annotations

from dataclasses import replace

from tallystone import crypto
from tallystone.errors import Denied, Invalid, Locked
from tallystone.statements import Erasure, Signed, Version
from tallystone.store.protocol import Row
from tallystone.store.tables import EPOCH, VERSION
from tallystone.vault import streams
from tallystone.vault.block_row import BlockRow
from tallystone.vault.caller import Caller
from tallystone.vault.entering import open_block
from tallystone.vault.erasing import RECEIPTS, finish, horizon, leaf_of
from tallystone.vault.opening import Opened, missing
from tallystone.vault.passages import lookup
from tallystone.vault.past import Walk, find_version
from tallystone.vault.plan import WS, Plan
from tallystone.vault.records import (
    EpochKeys,
    epoch_row,
    previous_epoch,
    seal_content,
    unwrap_content_key,
    wrap_content_key,
)
from tallystone.vault.replies import blank_answers
from tallystone.vault.rotating import change_keys
from tallystone.vault.tombstones import name_of
from tallystone.vault.types import Receipt
from tallystone.vault.writing import doom

_PAGE = 64


def erase_version(caller: Caller, block_id: str, number: int) -> Receipt:
    """Erase an earlier version of a block of the caller's. Asked again, it finishes what was interrupted and returns
    the same receipt. Raises `NotFound`, `Denied`, `Locked`, `Invalid` (`current_version`, `append_only`), and
    `StoreError` when the old key could not be destroyed yet."""
    name = name_of(block_id, number)

    def action(plan: Plan) -> tuple[Plan, Signed, int | None]:
        caller.must_act()
        held = lookup(caller, plan, block_id)
        if held is None:
            raise missing("Block", block_id)
        opened = open_block(caller, plan, held)
        known = streams.find(plan, caller.keys, RECEIPTS, name)
        if known is not None:
            caller.event(plan, "read", held.key, block=block_id, receipt=name)
            return plan, Signed.decode(known["statement"]), None
        _must_be_erasable(opened, number)
        version = find_version(Walk(opened), number)[0].version
        before = opened.row
        answers = blank_answers(plan, caller.workspace.now())
        signed = _erase(opened, version, answers)
        streams.put(plan, caller.keys, RECEIPTS, name, {"statement": signed.encode()})
        doom(plan, before.shred, caller.workspace.today())
        place = plan.events
        caller.event(
            plan, "erase", opened.held.key, block=block_id, version=number, statement=signed.encode()
        )
        return plan, signed, place

    plan, signed, place = caller.transact(action, lock=block_id)
    return finish(caller, signed, leaf_of(caller, signed) if place is None else (plan.first or 0) + place)


def _must_be_erasable(opened: Opened, number: int) -> None:
    if opened.held.own_leaf is not None:
        raise Denied("only the owner erases a version", hint="ask them", code="not_owner")
    if opened.held.kind != "block":
        raise Invalid("this keeps no versions that are erased", hint="erase the block", code="bad_field")
    if opened.head.settings["locked"]:
        raise Locked("the block is locked", hint="its owner unlocks it with locked=false")
    if opened.genesis().append_only:
        raise Invalid(
            "an append-only block keeps every version",
            hint="they prove that it only grew, and its present value holds them all; erase the block",
            code="append_only",
        )
    if number == opened.row.version:
        raise Invalid(
            f"version {number} is the current one",
            hint="write a newer one first, or erase the block",
            code="current_version",
        )


def _erase(opened: Opened, version: Version, answers: int) -> Signed:
    """Queue everything but the receipt; returns the owner's signed word."""
    plan, before = opened.plan, opened.row
    keys = _epochs(opened, version.epoch)
    rows = _versions(opened, version.epoch)
    content = opened.stored(version.number)[0]
    opened.row = replace(before, shred=opened.caller.workspace.shreds.take())
    change_keys(opened)
    fresh = {
        epoch: replace(old, dek=crypto.random_bytes(), history=crypto.random_bytes())
        for epoch, old in keys.items()
        if epoch >= version.epoch
    }
    linked = {**keys, **fresh, opened.keys.number: opened.keys}
    for epoch in [*fresh, opened.keys.number]:
        plan.put(EPOCH, before.storage, *epoch_row(linked[epoch], linked.get(epoch - 1)))
    signed = _state(opened, before, version, answers)
    rest = replace(content, payload=b"", erased=signed.encode())
    for row in rows:
        number, epoch, sealed = int(row[2]), int(row[3]), bytes(row[5])
        if number == version.number:
            content_key = crypto.random_bytes()
            sealed = seal_content(content_key, opened.id, number, rest)
        else:
            content_key = unwrap_content_key(keys[epoch].dek, opened.id, number, bytes(row[4]))
        wrap = wrap_content_key(fresh[epoch].dek, opened.id, number, content_key)
        plan.put(VERSION, before.storage, number, epoch, wrap, sealed)
    return signed


def _epochs(opened: Opened, first: int) -> dict[int, EpochKeys]:
    """The keys of the epochs from the one before `first` to the current one."""
    found = {opened.keys.number: opened.keys}
    earlier: bytes | None
    for number in range(opened.keys.number, max(first - 1, 0), -1):
        row, history = opened.plan.get(EPOCH, opened.row.storage, number), found[number].history
        if row is None or row[5] is None or history is None:
            if number > first:
                raise missing("version of", opened.id)
            dek, earlier = (
                b"",
                None,
            )  # who changed the keys then could not open what was before: no way to keep
        else:
            dek, earlier = previous_epoch(history, bytes(row[5]))
        found[number - 1] = EpochKeys(number - 1, dek, earlier, opened.chain_key(number - 1))
    return found


def _versions(opened: Opened, epoch: int) -> list[Row]:
    """The rows of all versions but the newest whose keys are of this epoch or a later one: epochs grow with numbers."""
    found: list[Row] = []
    before = opened.row.version
    while True:
        rows = opened.plan.snapshot.scan(
            VERSION, (WS, opened.row.storage), after=before, limit=_PAGE, reverse=True
        )
        found += [row for row in rows if int(row[3]) >= epoch]
        if len(rows) < _PAGE or int(rows[-1][3]) < epoch:
            return found
        before = int(rows[-1][2])


def _state(opened: Opened, before: BlockRow, version: Version, answers: int) -> Signed:
    """The owner's signed word, under the policy that the new keys began with."""
    caller, head = opened.caller, opened.head
    body = Erasure(
        what=name_of(opened.id, version.number),
        blocks=[[opened.id, head.digest, version.number, head.number]],
        events=0,
        holders=0,
        horizon=horizon(caller.workspace, answers, shredded=before.shred is not None),
        issuer=caller.id,
        issuer_record=caller.identity(opened.plan, caller.id).digest,
        time=caller.workspace.now_ms(),
    )
    return caller.sign(opened.plan, "erasure", body.encode())
