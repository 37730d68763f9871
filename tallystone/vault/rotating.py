"""Ending grants and changing keys: one verb does both (design §6, §13).

Three callers change a block's keys. The owner and sharers hold the admin key, which opens every K_grant: they wrap the
new epoch for each. Anybody else who may write knows no K_grant but its own: it makes new ones and sends them in
capsules. And whoever ends a sharer's grant must change the admin key as well, and with it every K_grant that it opened.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from tallystone import crypto
from tallystone.errors import Locked, Tampered
from tallystone.grant_tree import grant_proof
from tallystone.statements import SHARE, WRITE, Leaf
from tallystone.store.tables import GRANT_WRAP, LEDGER
from tallystone.vault.block_row import FLAG_ROTATE
from tallystone.vault.capsules import send
from tallystone.vault.entering import open_block
from tallystone.vault.epochs import Rotation, pending, remove_rows, stale
from tallystone.vault.granting import PROOF_LIMIT
from tallystone.vault.ledger import asked, handed_openly, is_ended
from tallystone.vault.opening import Opened
from tallystone.vault.passages import lookup
from tallystone.vault.records import (
    ACCEPTED,
)
from tallystone.vault.writing import add_link


def subtree(leaves: Sequence[Leaf], number: int) -> list[Leaf]:
    """The grant with this number and all that were given through it, parents first."""
    found = [leaf for leaf in leaves if leaf.grant == number]
    for leaf in found:
        # A grant comes after the one it was given through: a circle, which only an owner could state, is none.
        found.extend(child for child in leaves if child.parent == leaf.grant < child.grant)
    return found


def endable(opened: Opened, leaves: Sequence[Leaf]) -> set[int]:
    """The numbers of the grants that the caller may end: all for the owner, for others what came through their own."""
    own = opened.held.own_leaf
    if own is None:
        return {leaf.grant for leaf in leaves}
    return {leaf.grant for leaf in subtree(leaves, own.grant)} - {own.grant}


# -- ending grants ----------------------------------------------------------------------------------------------


def remove_grants(opened: Opened, gone: Sequence[Leaf]) -> None:
    """Queue the revocation of `gone` with all that it takes: statement, rows, and new keys.

    The owner's revocation and the change of keys are one statement, a sharer's are two. A grantee who takes its own
    placement back without the admin key leaves the block marked: whoever writes next rotates first.
    """
    opened.caller.must_act()
    leaves, numbers = opened.leaves(), [leaf.grant for leaf in gone]
    between = _between(opened, gone)
    for leaf in gone:
        remove_rows(opened, leaf)
    turn = any(leaf.rights & SHARE for leaf in gone)
    if opened.held.own_leaf is None:
        after = {number: digest for number, digest in leaves.items() if number not in numbers}
        change_keys(opened, "revocation", {"grants": numbers}, leaves=after, turn=turn)
        return
    standing = opened.standing_in(leaves)
    change: dict[str, Any] = {"gone": []}
    if between:
        change["between"] = [[leaf.encode(), grant_proof(leaves, leaf.grant)] for leaf in between]
    after = leaves
    for leaf in gone:
        change["gone"].append([leaf.encode(), grant_proof(after, leaf.grant)])
        after = {number: digest for number, digest in after.items() if number != leaf.grant}
    add_link(opened, "revocation", change, leaves=after, standing=standing)
    opened.row = opened.row.changed(flags=opened.row.flags | FLAG_ROTATE)
    opened.row.write(opened.plan)
    if opened.held.admin and (turn or _keeps_history(opened)):
        change_keys(opened, turn=turn)


def _between(opened: Opened, gone: Sequence[Leaf]) -> list[Leaf]:
    """The grants that lie between a sharer's own and those that it ends, and stay; the nearest to its own first."""
    own = opened.held.own_leaf
    if own is None:
        return []
    live = {leaf.grant: leaf for leaf in opened.grants()}
    ending, way = {leaf.grant for leaf in gone}, dict[int, Leaf]()
    for leaf in gone:
        above: list[Leaf] = []
        parent = leaf.parent
        while parent != own.grant and parent in live and parent not in ending:
            above.append(live[parent])
            parent = live[parent].parent
        way.update((one.grant, one) for one in reversed(above))
    return list(way.values())


# -- changing keys ----------------------------------------------------------------------------------------------


def change_keys(
    opened: Opened,
    kind: str = "policy",
    change: Mapping[str, Any] | None = None,
    *,
    leaves: Mapping[int, bytes] | None = None,
    settings: Mapping[str, Any] | None = None,
    turn: bool = False,
) -> None:
    """Queue a new epoch and the statement that begins it. `leaves` are the grants that remain, by default all; `turn`
    changes the admin key as well. Raises `Locked` if the caller would have to prove more than it may, or came without
    history."""
    opened.caller.must_act()
    if not _keeps_history(opened):
        raise _without_history()
    before = opened.leaves() if leaves is None else dict(leaves)
    standing = opened.standing_in(before) if opened.held.own_leaf is not None else None
    rotation = Rotation(opened, turn=turn)
    rotation.turn = turn or _admin_key_is_known(rotation)
    _rotate(rotation, kind, change or {}, before, standing=standing, settings=settings)


def _rotate(
    rotation: Rotation, kind: str, change: Mapping[str, Any], before: Mapping[int, bytes], **terms: Any
) -> None:
    """Queue the new epoch, the statement that says so, and the capsules that cite it. `before` are the grants that
    were to remain; `terms` are what else the statement says, as `add_link` takes it."""
    opened = rotation.opened
    rotation.run()
    said = {**change, "rotated": opened.row.epoch}
    after = {number: digest for number, digest in before.items() if number not in rotation.dropped}
    after |= {leaf.grant: leaf.digest for leaf in rotation.renewed.values()}
    admin = crypto.sha256(rotation.public) if rotation.public else None
    if opened.held.own_leaf is not None and rotation.renewed:
        said["renewed"] = _proof(rotation, before)
    signed = add_link(opened, kind, said, leaves=after, admin=admin, **terms)
    for parcel in rotation.parcels:
        send(opened, parcel, signed, renews=True)


def _keeps_history(opened: Opened) -> bool:
    """Whether the caller can lead from new keys back to the older ones. Who came without history cannot: its change
    of keys would close the block's past for everybody, and with it what an undo needs. Somebody else's comes first."""
    return opened.keys.history is not None


def _without_history() -> Locked:
    return Locked(
        "the keys must be changed by somebody who holds the block's history",
        hint="its owner's next write does that; try again after it",
        code="rotation_pending",
    )


def take_over(opened: Opened) -> None:
    """Queue the link by which the caller, whom the owner has named, becomes the owner: a new admin key, a new key for
    every grant, and the caller's own wrap at a place of its own. The former owner's is gone."""
    plan, head, own = opened.plan, opened.head, opened.held.own_leaf
    if own is None:
        raise Tampered("a block is its owner's already")
    before = {number: digest for number, digest in opened.leaves().items() if number != own.grant}
    remove_rows(opened, own)
    plan.delete(GRANT_WRAP, opened.row.storage, head.seat)
    seat = head.next_grant
    settings = {k: v for k, v in head.settings.items() if k not in ("transfer", "seat")}
    since = {**(opened.held.extra or {}), "since": head.number + 1}
    opened.content()  # verified under the former owner, before the shelf row names the new one
    opened.held = replace(
        opened.held, grant=seat, leaf=b"", owner=opened.caller.id, extra=since, state=ACCEPTED
    )
    rotation = Rotation(opened, turn=True, seat=seat, adopted=own.grant)
    _rotate(
        rotation, "transfer", {}, before, owner=opened.caller.id, settings={**settings, "seat": seat},
        next_grant=seat + 1,
    )  # fmt: skip


def _proof(rotation: Rotation, before: Mapping[int, bytes]) -> list[Any]:
    """Every live grant, as it was, with the record and the salt that it has now."""
    if len(before) > PROOF_LIMIT:
        raise pending()
    now = {leaf.grant: rotation.renewed.get(leaf.grant, leaf) for leaf in rotation.leaves}
    return [[leaf.encode(), now[leaf.grant].record, now[leaf.grant].salt] for leaf in rotation.leaves]


def _admin_key_is_known(rotation: Rotation) -> bool:
    """Whether somebody may know the admin key whose share has ended since it was made (ADR 0038): by its day, with its
    holder, or because a role that holds `share` has another root. Or a sharer has asked for another one; or a release
    before this one told it to the owner under the key before. Raises `Locked` for a caller without the admin key, who
    cannot change it."""
    opened = rotation.opened
    ledger = opened.ledger()
    seat = opened.plan.get(LEDGER, opened.row.storage, opened.head.seat)
    known = seat is not None and handed_openly(bytes(seat[6]))
    for leaf in _watched_leaves(rotation):
        if leaf.rights & SHARE and not known:
            secret = bytes(ledger[leaf.grant][0][6])
            ended = rotation.over(leaf) and not is_ended(secret)
            known = ended or stale(opened, leaf) or asked(secret)
    if known and not opened.held.admin:
        raise pending()
    return known


def _watched_leaves(rotation: Rotation) -> Iterable[Leaf]:
    opened = rotation.opened
    if opened.held.kind != "block":
        return ()  # nobody shares an agent's or a role's own block
    if not opened.held.admin:
        return opened.grants() if len(opened.ledger()) <= PROOF_LIMIT else ()
    found = []
    for row, _ in opened.ledger().values():
        entry = rotation.entry(row)
        plain = entry is not None and entry.marks is not None and not entry.marks[1]
        if not plain or int(row[2]) not in rotation.wrapped:  # what does not say is looked at
            found.append(opened.roster(row).leaf)
    return found


# -- when it is due ---------------------------------------------------------------------------------------------


def rotation_due(opened: Opened) -> bool:
    """Whether the keys must change before the next version: by the mark, or by the signed statement behind it."""
    return bool(opened.row.flags & FLAG_ROTATE) or opened.head.due


def rotate_if_due(opened: Opened, *, writing: bool = False) -> None:
    """Rotate first when that is due and the caller holds the admin key, or is about to write and may."""
    if not rotation_due(opened) or not opened.caller.keys.can_act or not _keeps_history(opened):
        return
    own = opened.held.own_leaf
    if opened.held.admin or (writing and own is not None and own.rights & WRITE):
        change_keys(opened)


def heal(opened: Opened) -> Opened:
    """The block after the rotation that it is due, if the one whose token this is owns it and acts through an agent."""
    if opened.held.admin or not rotation_due(opened):
        return opened
    owner, plan = opened.caller.under or opened.caller, opened.plan
    mine = lookup(owner, plan, opened.id)
    if mine is None or not mine.admin or mine.storage != opened.held.storage:
        return opened
    rotate_if_due(open_block(owner, plan, mine))
    fresh = lookup(opened.caller, plan, opened.id) or opened.held
    return open_block(opened.caller, plan, fresh)
