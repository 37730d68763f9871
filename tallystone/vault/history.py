"""Reading what was said to agents and by them. Each function is one operation.

Cursors are ids, exclusive, and a page holds the items nearest to them, as everywhere. A message's id leads to its place
by a blinded address, so a page deep in a long conversation costs no more than the first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import TypeVar

from tallystone.errors import NotFound, Rejected
from tallystone.keystore import Keys
from tallystone.vault import streams
from tallystone.vault.caller import Caller
from tallystone.vault.plan import Plan
from tallystone.vault.records import Held
from tallystone.vault.shelves import AGENTS, SELF, agent_keys, walk
from tallystone.vault.streams import Entry
from tallystone.vault.turns import (
    CONVERSATION,
    CONVERSATIONS,
    DEFAULT,
    PLACE,
    conversation_record,
    messages_of,
    open_agent,
)

T = TypeVar("T")
SCAN_LIMIT = 50_000
"""Messages that one search looks at, newest first."""

Where = Callable[[Entry], bool]


def bad_cursor() -> Rejected:
    """The error for a cursor that names nothing in a list."""
    return Rejected(
        "the cursor names nothing on this list",
        hint="use the id of an item that the list returned and that still exists",
        code="bad_cursor",
    )


def agents_of(caller: Caller, plan: Plan) -> Iterator[tuple[Held, Keys]]:
    """The agents whose streams the caller may open: its own, or itself."""
    shelf = SELF if caller.id.startswith("agent-") else AGENTS
    for held in walk(plan, caller.keys, shelf):
        yield held, agent_keys(caller, held)


def owner_of(
    caller: Caller, plan: Plan, drawer: streams.Name, identity: str, what: str
) -> tuple[Held, Keys, Entry]:
    """The agent in whose drawer a record lies, and the record. Raises the uniform miss. Asks each agent: a store that
    could tell whose it is would know too much."""
    for held, keys in agents_of(caller, plan):
        record = streams.find(plan, keys, drawer, identity)
        if record is not None:
            open_agent(caller, plan, held.subject)
            return held, keys, record
    raise NotFound(f"{what} {identity} not found", hint="it may be another agent's, or deleted")


def page_of(
    entries: Callable[[int | None, bool], Iterator[tuple[int, T]]],
    *,
    after: int | None,
    before: int | None,
    limit: int | None,
    reverse: bool,
) -> list[T]:
    """The page of an ordered source (`entries(beyond, newest first)`) between two places, nearest to its cursor."""
    backwards = before is not None and after is None
    start, stop = (before, None) if backwards else (after, before)
    found = (item for item in islice(_until(entries(start, reverse != backwards), stop, reverse), limit))
    page = list(found)
    return page[::-1] if backwards else page


def _until(items: Iterator[tuple[int, T]], stop: int | None, reverse: bool) -> Iterator[T]:
    for number, item in items:
        if stop is not None and (number <= stop if reverse else number >= stop):
            return
        yield item


def place_of(plan: Plan, keys: Keys, conversation: str, cursor: str | None) -> int | None:
    """At which number of a conversation a message lies. Raises `Rejected` for one that is not in it."""
    if cursor is None:
        return None
    place = streams.find(plan, keys, PLACE, cursor)
    if place is None or place["conversation"] != conversation:
        raise bad_cursor()
    return int(place["number"])


def list_messages(
    caller: Caller,
    agent_id: str,
    conversation: str,
    *,
    after: str | None,
    before: str | None,
    limit: int | None,
    reverse: bool,
    where: Where | None,
) -> list[Entry]:
    """A page of a conversation's messages that pass `where`."""

    def action(plan: Plan) -> list[Entry]:
        held, keys = open_agent(caller, plan, agent_id)
        conversation_record(plan, keys, agent_id, conversation, 0)

        def entries(beyond: int | None, newest_first: bool) -> Iterator[tuple[int, Entry]]:
            for number, entry in streams.walk(
                plan, keys, messages_of(conversation), after=beyond, reverse=newest_first
            ):
                if where is None or where(entry):
                    yield number, entry

        page = page_of(
            entries,
            after=place_of(plan, keys, conversation, after),
            before=place_of(plan, keys, conversation, before),
            limit=limit,
            reverse=reverse,
        )
        caller.event(plan, "list", held.key, agent=agent_id, conversation=conversation, messages=len(page))
        return page

    return caller.transact(action)


def read_message(caller: Caller, message_id: str) -> Entry:
    """One message of any of the caller's agents."""

    def action(plan: Plan) -> Entry:
        held, keys, place = owner_of(caller, plan, PLACE, message_id, "Message")
        entry = streams.entry_at(plan, keys, messages_of(place["conversation"]), place["number"])
        if entry is None:
            raise NotFound(f"Message {message_id} not found", hint="it may be another agent's, or deleted")
        caller.event(plan, "read", held.key, agent=held.subject, message=message_id)
        return entry

    return caller.transact(action)


def conversation_ids(plan: Plan, keys: Keys) -> list[str]:
    """All conversations of an agent, the default one first, then in the order in which they were made."""
    return [DEFAULT, *(entry["id"] for _, entry in streams.walk(plan, keys, CONVERSATIONS))]


def search_messages(
    caller: Caller,
    agent_id: str | None,
    conversation: str | None,
    where: Where,
    *,
    after: str | None,
    before: str | None,
    limit: int | None,
    reverse: bool,
) -> list[tuple[str, str, Entry]]:
    """(agent, conversation, message) of messages that pass `where`, of one agent or of all, newest first unless
    `reverse` is false. Looks at `SCAN_LIMIT` messages."""

    def action(plan: Plan) -> list[tuple[str, str, Entry]]:
        if agent_id is None:
            of = [(held, keys) for held, keys in agents_of(caller, plan)]
        else:
            of = [open_agent(caller, plan, agent_id)]
        if conversation is not None and conversation != DEFAULT:
            held, keys, _ = owner_of(caller, plan, CONVERSATION, conversation, "Conversation")
            of = [one for one in of if one[0].subject == held.subject]
        everything: list[tuple[int, int, str, str, Entry]] = []
        for held, keys in of:
            ids = [conversation] if conversation else conversation_ids(plan, keys)
            for one in ids:
                newest = islice(streams.walk(plan, keys, messages_of(one), reverse=True), SCAN_LIMIT)
                everything += [
                    (entry["date"], number, held.subject, one, entry)
                    for number, entry in newest
                    if where(entry) or entry["id"] in (after, before)
                ]
        everything.sort(key=lambda item: (item[0], item[2], item[3], item[1]), reverse=reverse)
        ids = [item[4]["id"] for item in everything]
        for cursor in (after, before):
            if cursor is not None and cursor not in ids:
                raise bad_cursor()
        numbered = [(number, item[2:]) for number, item in enumerate(everything) if where(item[4])]

        def entries(beyond: int | None, backwards: bool) -> Iterator[tuple[int, tuple[str, str, Entry]]]:
            ordered = numbered[::-1] if backwards else numbered
            for number, item in ordered:
                if beyond is None or (number < beyond if backwards else number > beyond):
                    yield number, item

        page = page_of(
            entries,
            after=ids.index(after) if after is not None else None,
            before=ids.index(before) if before is not None else None,
            limit=limit,
            reverse=False,
        )
        caller.event(plan, "list", *(held.key for held, _ in of), messages=len(page))
        return page

    return caller.transact(action)
