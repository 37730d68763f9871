"""Pages: `after` and `before` are ids and exclusive, and a page holds the items *nearest* to its cursor.

So a walk with `after`, and one with `before`, visits each item once and ends (contract §1.4). A cursor that names
nothing is an error: ignoring it would send the client's page walk round in circles.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from tallystone.errors import Rejected
from tallystone.letta.call import Query

T = TypeVar("T")
ORDERS = ("asc", "desc")


@dataclass(frozen=True)
class Page:
    """What part of a list is asked for. `limit` None means all of it. `reverse`: newest first."""

    after: str | None
    before: str | None
    limit: int | None
    reverse: bool


def page(query: Query, *, limit: int, order: str, order_by: tuple[str, ...] = ("created_at",)) -> Page:
    """The page that a query asks for. `limit=0` means no limit; an unknown `order` is `Invalid`."""
    query.choice("order_by", order_by)
    asked = query.number("limit", limit)
    return Page(
        query.text("after") or None,
        query.text("before") or None,
        asked or None,
        query.choice("order", ORDERS, order) == "desc",
    )


def bad_cursor() -> Rejected:
    """The error for an `after` or `before` that names no item of the list."""
    return Rejected(
        "the cursor names nothing in this list; it may have been deleted",
        hint="pass the id of an item of the previous page as after or before, or start again without",
        code="bad_cursor",
    )


def window(items: Sequence[T], wanted: Page, key: Callable[[T], str]) -> list[T]:
    """The wanted page of a list that is held in memory, oldest first. Raises `Rejected` for an unknown cursor."""
    ordered = list(items)[::-1] if wanted.reverse else list(items)
    keys = [key(item) for item in ordered]
    first, end = 0, len(ordered)
    try:
        if wanted.after is not None:
            first = keys.index(wanted.after) + 1
        if wanted.before is not None:
            end = keys.index(wanted.before)
    except ValueError:
        raise bad_cursor() from None
    found = ordered[first:end]
    if wanted.limit is None:
        return found
    if wanted.before is not None and wanted.after is None:
        return found[-wanted.limit :]
    return found[: wanted.limit]
