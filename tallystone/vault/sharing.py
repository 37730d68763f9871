"""Grants to other principals: sharing, revoking, handing over."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date

from tallystone.errors import Denied, Invalid, NotFound, Taken
from tallystone.statements import READ, SHARE, WRITE, Leaf
from tallystone.store.tables import SHELF
from tallystone.vault import directory
from tallystone.vault.attaching import claim_labels, labels_stay_unique
from tallystone.vault.blocks import look
from tallystone.vault.caller import Caller
from tallystone.vault.entering import open_block
from tallystone.vault.granting import Terms, check_count, check_terms, current, grant_to, right, unexpired
from tallystone.vault.levels import max_grants
from tallystone.vault.opening import Opened
from tallystone.vault.passages import find_block, keys_of, lookup, resolve
from tallystone.vault.plan import Plan
from tallystone.vault.reach import reach_of, show_grant, visible_grants
from tallystone.vault.rotating import change_keys, endable, remove_grants, rotate_if_due, subtree, take_over
from tallystone.vault.shelves import BLOCKS, find
from tallystone.vault.types import Block, Grant, Reach
from tallystone.vault.views import day_number
from tallystone.vault.writing import add_link

EVERYTHING = READ | WRITE | SHARE


def share(
    caller: Caller, block_id: str, recipient: str, can: str, until: date | None, depth: int, history: bool
) -> Grant:
    """Grant a block to a user, an agent or a role. To others it is an offer that they accept.

    Sharing again on other terms replaces the grant. Without `history` the keys change first, so that what was written
    before stays closed.
    """

    def action(plan: Plan) -> Grant:
        caller.must_act()
        terms = Terms(right(can), day_number(until), depth, history)
        held = find_block(caller, plan, block_id, SHARE)
        name, principal = resolve(caller, plan, recipient)
        own = Invalid("the block is theirs to use already", hint="name somebody else", code="self_grant")
        if principal == caller.id:
            raise own
        opened = open_block(caller, plan, held)
        identity = current(caller, plan, principal)
        party = caller.party(plan, principal, identity.digest)
        check_terms(opened, terms, party)
        if principal == held.owner:
            raise own
        known = _given(opened, principal)
        if any(_terms(leaf) == terms for leaf in known):
            raise Taken(f"{recipient} holds this grant already", hint="nothing to do", code="already_granted")
        keys = keys_of(caller, plan, principal)
        if keys is None and not known and any(leaf.recipient == principal for leaf in visible_grants(opened)):
            raise Taken(
                f"{recipient} holds a grant from somebody else already",
                hint="ask the block's owner to change it",
                code="already_granted",
            )
        if _is_heir(opened, principal):
            _withdraw(caller, plan, opened)  # what was offered was more than this: it stands no longer
            opened = open_block(caller, plan, find_block(caller, plan, block_id, SHARE))
            known = _given(opened, principal)
        if known:
            _end(caller, plan, opened, known)
            opened = open_block(caller, plan, find_block(caller, plan, block_id, SHARE))
        check_count(opened, max_grants(caller, plan), party)
        if not history:
            _close_history(opened)
        rotate_if_due(opened)
        agent = keys is not None and principal.startswith("agent-")
        if keys is not None and agent:
            claim_labels(plan, keys)
        still = unexpired(opened, known)
        replaces = still[0].grant if still and keys is None else 0
        leaf = grant_to(opened, identity, terms, keys=keys, replaces=replaces)
        if agent:
            labels_stay_unique(opened, caller)
        caller.event(
            plan, "share", held.key, block=block_id, to=principal, can=can, grant=leaf.grant, until=leaf.until
        )
        return show_grant(leaf, name)

    return caller.transact(action, lock=block_id, audit=True)


def _close_history(opened: Opened) -> None:
    if (
        not opened.held.admin or opened.keys.history is None
    ):  # whose change of keys would close it for everybody
        raise Denied(
            "only the owner, or a sharer who holds the history, gives a grant without it",
            hint="ask its owner",
            code="no_share",
        )
    change_keys(opened)


def _terms(leaf: Leaf) -> Terms:
    return Terms(leaf.rights, leaf.until, leaf.depth, leaf.history)


def revoke(caller: Caller, block_id: str, recipient: str) -> list[Reach]:
    """End a principal's grant with all that was given through it, and change the keys. Returns who still reaches it."""

    def action(plan: Plan) -> list[Reach]:
        caller.must_act()
        held = find_block(caller, plan, block_id, SHARE)
        opened = open_block(caller, plan, held)
        _, principal = resolve(caller, plan, recipient)
        if principal == held.owner:
            raise Invalid("an owner cannot be revoked", hint="delete the block instead", code="owner_revoke")
        if not any(leaf.recipient == principal for leaf in opened.grants()):
            raise NotFound(
                f"{recipient} holds no grant on this block", hint="list them with: tallystone block show"
            )
        given = _given(opened, principal)
        if not given:
            raise Denied(
                "this grant did not come through yours", hint="ask the block's owner", code="not_giver"
            )
        if _is_heir(opened, principal):
            _withdraw(caller, plan, opened)
            opened = open_block(caller, plan, find_block(caller, plan, block_id, SHARE))
            given = _given(opened, principal)
        if given:
            _end(caller, plan, opened, given)
        caller.event(plan, "revoke", held.key, block=block_id, principal=principal)
        rest = open_block(caller, plan, find_block(caller, plan, block_id, SHARE))
        return reach_of(rest, directory.names(caller, plan))

    return caller.transact(action, lock=block_id, audit=True)


def rotate(caller: Caller, block_id: str, progress: Callable[[int, int], None] | None = None) -> int:
    """Change a block's keys for all who hold it now. `progress` is called with (grants done, of). Returns the number of
    the new epoch."""

    def action(plan: Plan) -> int:
        caller.must_act()
        held = find_block(caller, plan, block_id, SHARE)
        opened = open_block(caller, plan, held)
        if not held.admin:
            raise Denied("only the owner or a sharer changes the keys", hint="ask its owner", code="no_share")
        change_keys(opened)
        caller.event(plan, "rotate", held.key, block=block_id, epoch=opened.row.epoch)
        return opened.row.epoch

    caller.progress = progress
    try:
        return caller.transact(action, lock=block_id, audit=True)
    finally:
        caller.progress = None


def _given(opened: Opened, principal: str) -> list[Leaf]:
    """A principal's grants, as far as the caller may end them."""
    everything = opened.grants()
    mine = endable(opened, everything)
    return [leaf for leaf in everything if leaf.recipient == principal and leaf.grant in mine]


def _end(caller: Caller, plan: Plan, opened: Opened, leaves: list[Leaf]) -> None:
    """Queue the end of these grants of one principal; from an agent's or role's shelf the block goes at once."""
    everything = opened.grants()
    gone = {leaf.grant: leaf for one in leaves for leaf in subtree(everything, one.grant)}
    keys = keys_of(caller, plan, leaves[0].recipient)
    if keys is not None:
        there = find(plan, keys, BLOCKS, opened.id)
        if there is not None and there.grant in gone:
            plan.delete(SHELF, keys.shelf(BLOCKS), keys.locator(opened.id))
    remove_grants(opened, list(gone.values()))


# -- handing a block over ---------------------------------------------------------------------------------------


def transfer(caller: Caller, block_id: str, to: str) -> None:
    """Name the user who may take the block over. It stays the caller's until that user does."""

    def action(plan: Plan) -> None:
        caller.must_act()
        held = find_block(caller, plan, block_id, SHARE)
        opened = _owned(open_block(caller, plan, held))
        _, principal = resolve(caller, plan, to)
        if principal == caller.id or not principal.startswith("user-"):
            raise Invalid("a block is handed over to another user", hint="name one", code="bad_heir")
        identity, terms = current(caller, plan, principal), Terms(EVERYTHING)
        check_terms(opened, terms, caller.party(plan, principal, identity.digest))
        if opened.head.settings.get("transfer") == [principal]:
            raise Taken(
                f"the block is offered to {to} already",
                hint="to offer it again, cancel first with: tallystone block cancel-transfer",
                code="already_granted",
            )
        _withdraw(caller, plan, opened)
        opened = open_block(caller, plan, find_block(caller, plan, block_id, SHARE))
        known = _given(opened, principal)
        if known:
            _end(caller, plan, opened, known)
        rotate_if_due(opened)
        add_link(
            opened, "policy", {"settings": ["transfer"]},
            settings={**opened.head.settings, "transfer": [principal]},
        )  # fmt: skip
        grant_to(opened, identity, terms, replaces=known[0].grant if known else 0)
        caller.event(plan, "transfer", held.key, block=block_id, to=principal)

    caller.transact(action, lock=block_id, audit=True)


def _owned(opened: Opened) -> Opened:
    if opened.held.own_leaf is not None:
        raise Denied("only the owner hands a block over", hint="ask its owner", code="not_owner")
    return opened


def _is_heir(opened: Opened, principal: str) -> bool:
    """Whether the owner, who is the caller, has offered the block to this user."""
    return opened.held.own_leaf is None and opened.head.settings.get("transfer") == [principal]


def _withdraw(caller: Caller, plan: Plan, opened: Opened) -> None:
    """Queue the end of an offered transfer, with the grant that came with it."""
    named = opened.head.settings.get("transfer")
    if not named:
        return
    rotate_if_due(opened)  # an owner's statement under the old keys would hide that they must change
    settings = {name: value for name, value in opened.head.settings.items() if name != "transfer"}
    add_link(opened, "policy", {"settings": ["transfer"]}, settings=settings)
    known = [leaf for leaf in _given(opened, named[0]) if leaf.rights == EVERYTHING]
    if known:
        _end(caller, plan, opened, known)


def cancel_transfer(caller: Caller, block_id: str) -> None:
    """Take back an offered transfer that nobody has accepted yet."""

    def action(plan: Plan) -> None:
        caller.must_act()
        held = find_block(caller, plan, block_id, SHARE)
        opened = _owned(open_block(caller, plan, held))
        if not opened.head.settings.get("transfer"):
            raise NotFound("the block is not being handed over", hint="nothing to cancel", code="no_transfer")
        _withdraw(caller, plan, opened)
        caller.event(plan, "transfer", held.key, block=block_id, to="")

    caller.transact(action, lock=block_id, audit=True)


def accept_transfer(caller: Caller, block_id: str) -> Block:
    """Become the owner of a block that its owner hands over. The former owner reaches it no more."""

    def action(plan: Plan) -> Block:
        caller.must_act()
        held = find(plan, caller.keys, BLOCKS, block_id) or lookup(caller, plan, block_id)
        opened = open_block(caller, plan, held) if held is not None and not held.via else None
        if opened is None or held is None or opened.head.settings.get("transfer") != [caller.id]:
            raise NotFound(
                f"no transfer of {block_id} waits for you", hint="list them with: tallystone offers list",
                code="no_transfer",
            )  # fmt: skip
        if not held.admin:
            raise NotFound("the transfer has not arrived yet", hint="try again", code="no_transfer")
        take_over(opened)
        caller.event(plan, "transfer", opened.held.key, block=block_id, accepted=True)
        return look(caller, plan, find_block(caller, plan, block_id, SHARE))

    return caller.transact(action, lock=block_id, audit=True)
