"""Ending grants and changing keys: one verb does both (design §6, §13)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tallystone import crypto
from tallystone.errors import Tampered
from tallystone.statements import Leaf, grant_proof
from tallystone.store.tables import EPOCH, GRANT_WRAP, INBOX, LEDGER, VERSION
from tallystone.vault.opening import FLAG_ROTATE, Opened, open_block
from tallystone.vault.records import (
    epoch_row,
    leaf_salt,
    new_epoch,
    open_grant_key,
    unwrap_content_key,
    wrap_content_key,
    wrap_epoch,
)
from tallystone.vault.shelves import BLOCKS, find
from tallystone.vault.writing import add_link


def subtree(leaves: Sequence[Leaf], number: int) -> list[Leaf]:
    """The grant with this number and all that were given through it."""
    found = [leaf for leaf in leaves if leaf.grant == number]
    for leaf in found:
        found.extend(child for child in leaves if child.parent == leaf.grant)
    return found


def remove_grants(opened: Opened, gone: Sequence[Leaf]) -> None:
    """Queue the revocation of `gone` with all that it takes: statement, rows, and new keys.

    With the admin key the epoch is rotated here. Without it (a grantee takes its own placement back) the block is
    marked, and whoever can rotates before the next version.
    """
    plan, leaves = opened.plan, opened.leaves()
    ledger = opened.ledger()
    numbers = [leaf.grant for leaf in gone]
    for leaf in gone:
        row, _ = ledger[leaf.grant]
        roster = opened.roster(row)
        if roster.capsule:
            plan.delete(INBOX, leaf.recipient, roster.capsule)
        plan.delete(GRANT_WRAP, opened.row.storage, leaf.grant)
        plan.put(LEDGER, opened.row.storage, leaf.grant, b"", *row[4:])
    own = opened.held.own_leaf
    if own is None:
        after = {number: digest for number, digest in leaves.items() if number not in numbers}
        rotate(opened)
        add_link(opened, "revocation", {"grants": numbers}, leaves=after)
        return
    for leaf in gone:
        change = {"grant": leaf.grant, "leaf": leaf.encode(), "proof": grant_proof(leaves, leaf.grant)}
        authority = {"leaf": own.encode(), "proof": grant_proof(leaves, own.grant)}
        leaves = {number: digest for number, digest in leaves.items() if number != leaf.grant}
        add_link(opened, "revocation", change, leaves=leaves, authority=authority)
    opened.row = replace(opened.row, flags=opened.row.flags | FLAG_ROTATE)
    opened.row.write(plan)


def rotate(opened: Opened) -> None:
    """Queue a new epoch: new keys wrapped for each remaining grant, the newest content key wrapped again.

    The ciphertext and the writer's signature stay as they are. Needs the admin key, which opens every K_grant.
    """
    plan, row, before = opened.plan, opened.row, opened.keys
    keys = new_epoch(before.number + 1)
    newest = plan.get(VERSION, row.storage, row.version)
    if newest is None:  # a block has a version from its first transaction on
        raise Tampered("a block's newest version is not there")
    content_key = unwrap_content_key(
        opened.dek(int(newest[3])),
        opened.id,
        row.version,
        bytes(newest[4]),
    )
    content_wrap = wrap_content_key(keys.dek, opened.id, row.version, content_key)
    plan.put(VERSION, row.storage, row.version, keys.number, content_wrap, newest[5])
    plan.put(EPOCH, row.storage, *epoch_row(keys, before))
    plan.put(
        GRANT_WRAP, row.storage, 0, keys.number, wrap_epoch(opened.held.key, opened.id, keys, history=True)
    )
    for number, (entry, _) in opened.ledger().items():
        grant_key = open_grant_key(opened.held.admin, opened.id, number, bytes(entry[6]))
        leaf = opened.roster(entry).leaf
        # The policy names the leaf, the leaf fixes the key: nobody gets the new epoch by having swapped a ledger entry.
        if not crypto.equal(leaf.salt, leaf_salt(grant_key)):
            raise Tampered("a grant's key is not the one that its policy names")
        wrap = wrap_epoch(grant_key, opened.id, keys, history=leaf.history)
        plan.put(GRANT_WRAP, row.storage, number, keys.number, wrap)
    opened.enter(keys)
    opened.row = replace(row, epoch=keys.number, flags=row.flags & ~FLAG_ROTATE)
    opened.row.write(plan)


def rotation_due(opened: Opened) -> bool:
    """Whether the keys must change before the next version: by the mark, or by the signed statement behind it."""
    return bool(opened.row.flags & FLAG_ROTATE) or opened.head.due


def rotate_if_due(opened: Opened) -> None:
    """Rotate first when that is due and the caller holds the admin key."""
    if rotation_due(opened) and opened.held.admin:
        rotate(opened)
        add_link(opened, "policy", {"rotated": opened.row.epoch})


def heal(opened: Opened) -> Opened:
    """The block after the rotation that it is due, if the one whose token this is owns it and acts through an agent."""
    if opened.held.admin or not rotation_due(opened):
        return opened
    owner, plan = opened.caller.under or opened.caller, opened.plan
    mine = find(plan, owner.keys, BLOCKS, opened.id)
    if mine is None or not mine.admin or mine.storage != opened.held.storage:
        return opened
    rotate_if_due(open_block(owner, plan, mine))
    return open_block(opened.caller, plan, opened.held)
