"""From a shelf row into a block: the one way in, for everything that reads or changes one (design §6).

Asked here, before anything is returned: whether the grant and the block are still there, whether the keys open, whether
the signed policy agrees with the row, whether a day is over, and whether whoever enters is cleared as high as it must
be.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import Any

from tallystone import crypto
from tallystone.errors import NotFound, Tampered
from tallystone.store.protocol import Row
from tallystone.store.tables import BLOCK, EPOCH, GRANT_WRAP, LEDGER, SHELF
from tallystone.vault.block_row import FLAG_ROTATE, BlockRow
from tallystone.vault.caller import Caller, KeysChanged
from tallystone.vault.former import kem_seeds
from tallystone.vault.ledger import Ledger, Letter, admin_public, handed_openly, owner_info, renewed
from tallystone.vault.opening import Opened, missing, nest_of
from tallystone.vault.plan import Plan
from tallystone.vault.recall import Recalled
from tallystone.vault.records import EpochKeys, Held, open_chain_key, shelve, unwrap_epoch
from tallystone.waiting import PLACE


def open_block(caller: Caller, plan: Plan, held: Held, what: str = "Block", shown: str = "") -> Opened:
    """Open what a shelf row points to. Raises the uniform miss if the grant or the block is gone."""
    PLACE.get().tick()
    if caller.under is not None:
        caller.standing(
            plan
        )  # who acts may end while this goes on; `Caller.check` asks for the token's user only
    found = plan.get(BLOCK, held.storage)
    wrap = plan.need(GRANT_WRAP, held.storage, held.grant)
    if found is None or wrap is None:
        raise missing(what, shown or held.block)
    row = BlockRow.of(found)
    known = again(caller, plan, held, row, wrap)
    if known is not None:
        return _entered(known, what, shown)
    if held.recalled is not None:
        recalled = enter_again(caller, plan, held)
        if recalled is not None:
            return recalled.open(caller, plan, held, row)
        held = replace(held, recalled=None)
    if int(wrap[3]) != row.epoch:
        raise Tampered("a grant's key is of another epoch than its block")
    try:
        nest = nest_of(caller, held.block, row, row.epoch)
    except NotFound:
        raise missing(what, shown or held.block) from None
    admin = held.admin
    try:
        dek, history = unwrap_epoch(held.key, held.block, row.epoch, bytes(wrap[4]), nest)
    except Tampered:
        held = _caught_up(caller, plan, held)
        dek, history = unwrap_epoch(held.key, held.block, row.epoch, bytes(wrap[4]), nest)
    plan.memo.setdefault("opened", {})[held.block] = held.key
    epoch = plan.get(EPOCH, held.storage, row.epoch)
    if epoch is None:
        raise Tampered("a block's epoch is not there")
    chain = open_chain_key(dek, bytes(epoch[3]))
    opened = Opened(caller, plan, held, row, EpochKeys(row.epoch, dek, history, chain))
    opened.genesis()  # checks the shelf row's owner against it
    if held.since:
        opened.head_at(
            held.since
        )  # that the block changed hands, from the genesis on: what follows is trusted by it
    if held.admin != admin:
        _check_admin(opened)
    _entered(opened, what, shown)
    note_opened(opened, wrap)
    return opened


def _entered(opened: Opened, what: str, shown: str) -> Opened:
    """What is asked of whoever has the keys of a block. Raises the uniform miss, or `Tampered`."""
    row, settings, today = opened.row, opened.head.settings, opened.caller.workspace.today()
    if settings.get("expires", today) < today:
        raise missing(what, shown or opened.id)
    if opened.head.epoch != row.epoch or settings.get("expires") != row.day:
        raise Tampered("a block's keys and its policy are of different epochs or days")
    if not _admitted(opened):
        raise missing(what, shown or opened.id)
    return opened


def again(caller: Caller, plan: Plan, held: Held, row: BlockRow, wrap: Row) -> Opened | None:
    """The same block as this plan has opened it before, or made it, for the same principal: if its shelf row, its wrap
    and its row are what they were then, or what that one has made of them since."""
    opened, wrapped, shelved = plan.blocks.get(_place(caller, held.storage, held.grant), (None, None, None))
    same = opened is not None and opened.row == row and opened.held is shelved
    return opened if same and wrapped == wrap and shelved == held and shelved.via == held.via else None


def _place(caller: Caller, storage: bytes, grant: int) -> tuple[Any, ...]:
    return caller.id, caller.under.id if caller.under else "", caller.keys.can_act, storage, grant


def note_opened(opened: Opened, wrap: Row) -> None:
    """Remember for `again` what was opened with this wrap."""
    place = _place(opened.caller, opened.held.storage, opened.held.grant)
    opened.plan.blocks[place] = opened, wrap, opened.held


def enter_again(caller: Caller, plan: Plan, held: Held) -> Recalled | None:
    """What the process kept of a block, if all that was asked when it was opened still holds in this plan; None if it
    must be asked again."""
    known = held.recalled
    if known is None or held.via or not known.stands(plan):
        return None
    if not _has_shred_key(caller, plan, known):
        return None
    plan.memo.setdefault("opened", {})[held.block] = held.key
    return known


def is_given(caller: Caller, plan: Plan, known: Recalled) -> bool:
    """Whether the grant by which a block was kept, and the block's shred key, are still there, whatever else became of
    the block."""
    return plan.stands(known.kept.rows) and _has_shred_key(caller, plan, known)


def _has_shred_key(caller: Caller, plan: Plan, known: Recalled) -> bool:
    slot = known.kept.slot
    return slot is None or caller.workspace.shreds.get(slot, plan.pools) is not None


def _admitted(opened: Opened) -> bool:
    """Whether a grantee's day is not over, and its clearance still reaches as high as the block's sensitivity."""
    caller, leaf, sensitivity = (
        opened.caller,
        opened.held.own_leaf,
        opened.head.settings.get("sensitivity", 0),
    )
    if leaf is None:
        return True
    # The leaf comes from the holder's own shelf: nobody gives itself another day than the block's rows know of.
    row = opened.plan.get(LEDGER, opened.held.storage, opened.held.grant)
    if row is None or not crypto.equal(bytes(row[3]), leaf.digest):
        raise Tampered("a grant is not the one that its block knows of")
    if leaf.until is not None and leaf.until < caller.workspace.today():
        return False
    if not sensitivity:
        return True
    holders = {caller.id, leaf.recipient}
    parties = [caller.party(opened.plan, one, caller.identity(opened.plan, one).digest) for one in holders]
    return all(party.clearance >= sensitivity for party in parties)


def _caught_up(caller: Caller, plan: Plan, held: Held) -> Held:
    """What is held after somebody without all keys has changed them. The owner finds the new ones in the ledger, sealed
    to its admin key or to its record, and its shelf row is queued anew; others get a capsule: raises `KeysChanged`.
    Raises `Tampered` if nobody has."""
    row, leaf = plan.get(LEDGER, held.storage, held.grant), held.own_leaf
    wrong = Tampered("a grant's key does not open its block")
    if row is None or (leaf is not None and (not row[3] or crypto.equal(bytes(row[3]), leaf.digest))):
        raise wrong  # no new key waits for a grant that ended, or whose key is the one that it was
    if leaf is not None:
        raise KeysChanged(leaf.recipient, bytes(row[3]))
    if not renewed(bytes(row[6])):
        raise wrong
    if not held.admin:
        raise KeysChanged(caller.id, bytes(row[6]))
    entry = Ledger(held.admin, held.block, _letter(caller, plan, held.block)).open(held.grant, bytes(row[6]))
    held = replace(held, key=entry.key, admin=entry.admin or held.admin)
    shelf, locator = caller.keys.shelf(held.kind), caller.keys.locator(held.block)
    if plan.need(SHELF, shelf, locator) is not None:
        plan.put(SHELF, shelf, locator, held.position, *shelve(caller.keys, shelf, locator, held))
    return held


def _letter(caller: Caller, plan: Plan, block: str) -> Letter:
    """Opens what was sealed to the caller as the owner of a block, to its present record or to a former one."""

    def letter(number: int, sent: bytes) -> bytes:
        me = caller.identity(plan, caller.id)
        for seed in kem_seeds(caller, plan):
            for digest in me.signers:
                with suppress(Tampered):
                    return crypto.open_from(
                        seed, owner_info(caller.workspace.id, digest, block, number), sent
                    )
        raise Tampered("a block's new keys are not sealed to its owner")

    return letter


def _check_admin(opened: Opened) -> None:
    """A new admin key that the owner has found: everything that it grants will lie under it, so it must be the one that
    the signed policy names, and not be known to somebody whose share has ended."""
    if crypto.sha256(admin_public(opened.held.admin)) != opened.head.admin:
        raise Tampered("a block's admin key is not the one that its policy names")
    row = opened.plan.get(LEDGER, opened.row.storage, opened.held.grant)
    if row is not None and handed_openly(bytes(row[6])):
        opened.row = opened.row.changed(flags=opened.row.flags | FLAG_ROTATE)
        opened.row.write(opened.plan)
