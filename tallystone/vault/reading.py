"""Showing blocks to their readers: one, or a page of them, and a leaf that says so."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice

from tallystone.errors import NotFound
from tallystone.keystore import Keys
from tallystone.store.tables import BLOCK, SHELF
from tallystone.vault.blocks import look, show
from tallystone.vault.caller import Caller, KeysChanged
from tallystone.vault.entering import open_block
from tallystone.vault.forms import Form, Showing, Shown
from tallystone.vault.passages import block_position, find_block, reached, walk_blocks
from tallystone.vault.plan import Plan
from tallystone.vault.records import OFFERED, Held
from tallystone.vault.rotating import rotate_if_due
from tallystone.vault.shelves import BLOCKS, on_shelf, position_of, walk, walk_rows
from tallystone.vault.types import Block
from tallystone.vault.views import view_again
from tallystone.waiting import PLACE

_TICK = 8
"""Blocks of a page after which others are asked for whether they wait."""


def read_block(caller: Caller, block_id: str) -> Block:
    """The block, and a leaf that says who read it."""

    def action(plan: Plan) -> Block:
        held = find_block(caller, plan, block_id)
        block = _current(caller, plan, held)
        caller.event(plan, "read", held.key, block=block_id, version=block.version)
        return block

    return caller.transact(action)


def read_as(caller: Caller, block_id: str, form: Form) -> tuple[int, bytes]:
    """The same: its version, and the block in a form."""

    def action(plan: Plan) -> tuple[int, bytes]:
        showing = Showing(caller, plan, form)
        row = plan.need(SHELF, caller.keys.shelf(BLOCKS), caller.keys.locator(block_id))
        shown = showing.again(row) if row is not None else None
        if shown is None or not (shown[4] or not reached(caller, plan)):  # a role may give more
            held = find_block(caller, plan, block_id)
            shown = showing.show(held, _current(caller, plan, held))
        grant, version, content, _, _ = shown
        caller.event(plan, "read", grant, block=block_id, version=version)
        return version, content

    return caller.transact(action)


def _current(caller: Caller, plan: Plan, held: Held) -> Block:
    """The block, whose keys are changed first if that is due."""
    block = view_again(caller, plan, held)
    if block is None:
        opened = open_block(caller, plan, held)
        rotate_if_due(opened)
        block = show(opened)
    return block


def page(
    plan: Plan,
    keys: Keys,
    shelf: str,
    *,
    after: str | None,
    before: str | None,
    reverse: bool,
) -> tuple[Iterator[Held], bool]:
    """The shelf beyond the cursor, nearest first, and whether the result must be turned round (walking backwards)."""
    if before is not None:
        return walk(
            plan, keys, shelf, after=position_of(plan, keys, shelf, before), reverse=not reverse
        ), True
    start = None if after is None else position_of(plan, keys, shelf, after)
    return walk(plan, keys, shelf, after=start, reverse=reverse), False


def page_of_blocks(
    caller: Caller, plan: Plan, *, after: str | None, before: str | None, reverse: bool
) -> tuple[Iterator[Held], bool]:
    """The caller's blocks beyond the cursor, its roles' among them; see `page`."""
    if before is not None:
        place = block_position(caller, plan, before)
        return walk_blocks(caller, plan, after=place, reverse=not reverse), True
    start = None if after is None else block_position(caller, plan, after)
    return walk_blocks(caller, plan, after=start, reverse=reverse), False


def visible(
    caller: Caller, plan: Plan, held: Iterable[Held], where: Callable[[Block], bool] | None, agents: bool
) -> Iterator[tuple[Held, Block]]:
    """What of a shelf can be shown: no offers, nothing whose grant or block is gone."""
    for one in held:
        if one.state == OFFERED:
            continue
        try:
            block = look(caller, plan, one, agents=agents)
        except NotFound:
            _forget_dead(caller, plan, one)
            continue  # revoked or deleted since it was put here: as if it had never been
        except KeysChanged:
            if caller.keys.can_act:
                raise
            continue  # a token that only reads cannot take the new keys; asked for by id it is told so
        if where is None or where(block):
            yield one, block


def _forget_dead(caller: Caller, plan: Plan, held: Held) -> None:
    """Queue the end of the caller's shelf row of a block that is no more: its owner could not find it."""
    if caller.keys.can_act and not held.via and plan.get(BLOCK, held.storage) is None:
        plan.delete(SHELF, caller.keys.shelf(BLOCKS), caller.keys.locator(held.block))


def list_blocks(
    caller: Caller,
    where: Callable[[Block], bool] | None,
    *,
    after: str | None,
    before: str | None,
    limit: int | None,
    reverse: bool,
    agents: bool,
) -> list[Block]:
    """A page of the caller's blocks: one leaf, with an entry for each block that it returns."""

    def action(plan: Plan) -> list[Block]:
        shelf, backwards = page_of_blocks(caller, plan, after=after, before=before, reverse=reverse)
        found = list(islice(visible(caller, plan, shelf, where, agents), limit))
        caller.event(plan, "list", *(held.key for held, _ in found), count=len(found))
        blocks = [block for _, block in found]
        return blocks[::-1] if backwards else blocks

    return caller.transact(action)


def list_as(
    caller: Caller, form: Form, *, after: str | None, before: str | None, limit: int | None, reverse: bool
) -> list[bytes]:
    """A page of the caller's blocks in a form, of those that it lists: one leaf, as for `list_blocks`."""

    def action(plan: Plan) -> list[bytes]:
        showing = Showing(caller, plan, form)
        if reached(caller, plan):
            shelf, backwards = page_of_blocks(caller, plan, after=after, before=before, reverse=reverse)
            walked: Iterator[Shown] = (
                showing.show(held, block)
                for held, block in visible(caller, plan, shelf, form.listed, agents=True)
            )
        else:
            backwards, cursor = before is not None, before if before is not None else after
            place = None if cursor is None else block_position(caller, plan, cursor)
            walked = _shown(caller, plan, showing, after=place, reverse=reverse != backwards)
        found = list(islice(walked, limit))
        caller.event(plan, "list", *[shown[0] for shown in found], count=len(found))
        contents = [shown[2] for shown in found]
        return contents[::-1] if backwards else contents

    return caller.transact(action)


def _shown(
    caller: Caller, plan: Plan, showing: Showing, *, after: int | None, reverse: bool
) -> Iterator[Shown]:
    """The caller's own shelf, in order, as a list shows it."""
    again, place, keys = showing.again, PLACE.get(), caller.keys
    for number, row in enumerate(walk_rows(plan, keys, BLOCKS, after=after, reverse=reverse)):
        if number % _TICK == 0:
            place.tick()
        shown = again(row)
        if shown is None:
            for held, block in visible(caller, plan, [on_shelf(plan, keys, row)], None, agents=True):
                shown = showing.show(held, block)
        if shown is not None and shown[3]:
            yield shown
