"""Reading what was said to agents and by them. Each function is one operation.

Cursors are ids, exclusive, and a page holds the items nearest to them, as everywhere. A message's id leads to its place
by a blinded address, so a page deep in a long conversation costs no more than the first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from tallystone.errors import NotFound, Rejected
from tallystone.keystore import Keys
from tallystone.vault import streams
from tallystone.vault.caller import Caller
from tallystone.vault.merging import Place, Source, Where, merged_page, page_of
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
    `reverse` is false. Looks at `SCAN_LIMIT` messages of each conversation."""

    def action(plan: Plan) -> list[tuple[str, str, Entry]]:
        of = list(agents_of(caller, plan)) if agent_id is None else [open_agent(caller, plan, agent_id)]
        if conversation is not None and conversation != DEFAULT:
            held, _, _ = owner_of(caller, plan, CONVERSATION, conversation, "Conversation")
            of = [one for one in of if one[0].subject == held.subject]
        sources = {
            (held.subject, one): _source(plan, keys, held.subject, one)
            for held, keys in of
            for one in ([conversation] if conversation else conversation_ids(plan, keys))
        }

        def place(cursor: str | None) -> Place | None:
            return None if cursor is None else _find_place(plan, of, sources, cursor)

        found = merged_page(
            list(sources.values()),
            where,
            after=place(after),
            before=place(before),
            limit=limit,
            reverse=reverse,
        )
        caller.event(plan, "list", *(held.key for held, _ in of), messages=len(found))
        return [(source.label[0], source.label[1], entry) for source, entry in found]

    return caller.transact(action)


def _source(plan: Plan, keys: Keys, agent_id: str, conversation: str) -> Source:
    name = messages_of(conversation)
    return Source(
        (agent_id, conversation),
        streams.length(plan, keys, name),
        lambda beyond, newest_first: streams.walk(plan, keys, name, after=beyond, reverse=newest_first),
        lambda number: streams.entry_at(plan, keys, name, number),
        "date",
    )


def _find_place(
    plan: Plan, of: Sequence[tuple[Held, Keys]], sources: Mapping[tuple[str, str], Source], cursor: str
) -> Place:
    """Where a message lies among those of these streams. Raises `Rejected` for one that is in none of them."""
    for held, keys in of:
        place = streams.peek(plan, keys, PLACE, cursor)
        source = sources.get((held.subject, place["conversation"])) if place is not None else None
        entry = source.at(place["number"]) if source is not None and place is not None else None
        if source is not None and place is not None and entry is not None:
            return source.place(place["number"], entry)
    raise bad_cursor()
