"""Conversations of an agent: making, forking, changing and ending them. Each function is one operation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any

from tallystone.errors import Conflict
from tallystone.keystore import Keys
from tallystone.vault import streams
from tallystone.vault.archive import PASSAGE, PASSAGES
from tallystone.vault.caller import Caller
from tallystone.vault.external import ACCESS, COPY
from tallystone.vault.former import FORMER
from tallystone.vault.history import (
    agents_of,
    bad_cursor,
    conversation_ids,
    owner_of,
    place_of,
)
from tallystone.vault.mail import CONTACT, RECEIVED, SENT
from tallystone.vault.merging import Where
from tallystone.vault.plan import Plan
from tallystone.vault.streams import Entry
from tallystone.vault.turns import (
    CONVERSATION,
    CONVERSATIONS,
    DEFAULT,
    LEASE,
    PLACE,
    RUN,
    RUNS,
    STEP,
    STEPS,
    acting,
    conversation_record,
    file_messages,
    is_alive,
    messages_of,
    open_agent,
)


def create_conversation(
    caller: Caller,
    agent_id: str,
    record: Mapping[str, Any],
    fork_of: tuple[str, str | None] | None = None,
    new_id: Callable[[], str] = str,
) -> Entry:
    """A new conversation. With `fork_of` (conversation, last message or None) it begins with copies of that one's
    messages, under ids that `new_id` makes."""

    def action(plan: Plan) -> Entry:
        caller.must_act()
        held, keys = open_agent(caller, plan, agent_id)
        now = caller.workspace.now_ms()
        made: Entry = {**record, "agent": agent_id, "created": now, "updated": now, "from": 1}
        if fork_of is not None:
            origin, until = fork_of
            source = conversation_record(plan, keys, agent_id, origin, now)
            last = place_of(plan, keys, origin, until)
            copies = [
                {**entry, "id": new_id()}
                for number, entry in streams.walk(plan, keys, messages_of(origin))
                if last is None or number <= last
            ]
            file_messages(plan, keys, made["id"], copies)
            if copies:  # calls that still wait for an approval are answered anew when the copy is talked to
                made["last_message"] = now
            if source["from"] <= len(copies):  # else it ends before what the summary is about
                made |= {"from": source["from"], "recap": source.get("recap") or ""}
        streams.append(plan, keys, CONVERSATIONS, {"id": made["id"]})
        made["position"] = streams.length(plan, keys, CONVERSATIONS)
        streams.put(plan, keys, CONVERSATION, made["id"], made)
        acting(caller, keys).event(plan, "create", held.key, agent=agent_id, conversation=made["id"])
        return made

    return caller.transact(action)


def read_conversation(caller: Caller, conversation: str) -> Entry:
    """One conversation of any of the caller's agents."""

    def action(plan: Plan) -> Entry:
        held, _, record = owner_of(caller, plan, CONVERSATION, conversation, "Conversation")
        caller.event(plan, "read", held.key, agent=held.subject, conversation=conversation)
        return record

    return caller.transact(action)


def list_conversations(
    caller: Caller,
    agent_id: str | None,
    where: Where,
    *,
    after: str | None,
    limit: int | None,
    reverse: bool,
    sort: str,
) -> list[Entry]:
    """The conversations of one agent, or of all of the caller's, sorted by a field of their records."""

    def action(plan: Plan) -> list[Entry]:
        of = list(agents_of(caller, plan)) if agent_id is None else [open_agent(caller, plan, agent_id)]
        found: list[Entry] = []
        for _, keys in of:
            for conversation in conversation_ids(plan, keys)[1:]:
                record = streams.find(plan, keys, CONVERSATION, conversation)
                if record is not None and (where(record) or conversation == after):
                    found.append(record)
        found.sort(key=lambda one: (one.get(sort) or one["created"], one["id"]), reverse=reverse)
        if after is not None:
            ids = [one["id"] for one in found]
            if after not in ids:
                raise bad_cursor()
            found = found[ids.index(after) + 1 :]
        page = list(islice(filter(where, found), limit))
        caller.event(plan, "list", *(held.key for held, _ in of), conversations=len(page))
        return page

    return caller.transact(action)


def conversations_from(caller: Caller, agent_id: str, beyond: int, limit: int) -> list[Entry]:
    """A page of an agent's conversations by their position."""

    def action(plan: Plan) -> list[Entry]:
        held, keys = open_agent(caller, plan, agent_id)
        found: list[Entry] = []
        for number, entry in streams.walk(plan, keys, CONVERSATIONS, after=beyond):
            record = streams.peek(plan, keys, CONVERSATION, entry["id"])
            if record is not None:
                found.append({**record, "position": number})
            if len(found) == limit:
                break
        caller.event(plan, "list", held.key, agent=agent_id, conversations=len(found))
        return found

    return caller.transact(action)


def edit_conversation(caller: Caller, conversation: str, changes: Mapping[str, Any]) -> Entry:
    """Change fields of a conversation's record."""

    def action(plan: Plan) -> Entry:
        caller.must_act()
        held, keys, record = owner_of(caller, plan, CONVERSATION, conversation, "Conversation")
        changed = {**record, **changes, "updated": caller.workspace.now_ms()}
        streams.put(plan, keys, CONVERSATION, conversation, changed)
        acting(caller, keys).event(plan, "update", held.key, agent=held.subject, conversation=conversation)
        return changed

    return caller.transact(action)


def delete_conversation(caller: Caller, conversation: str) -> None:
    """Remove a conversation with its messages."""

    def action(plan: Plan) -> None:
        caller.must_act()
        held, keys, record = owner_of(caller, plan, CONVERSATION, conversation, "Conversation")
        lease = streams.find(plan, keys, LEASE, "turn")
        if lease is not None:
            run = streams.find(plan, keys, RUN, lease["run"])
            if run is not None and run["conversation"] == conversation:
                _idle(caller, plan, keys)
        _forget_messages(plan, keys, conversation)
        streams.forget(plan, keys, CONVERSATIONS, record["position"])
        streams.drop(plan, keys, CONVERSATION, conversation)
        acting(caller, keys).event(plan, "delete", held.key, agent=held.subject, conversation=conversation)

    caller.transact(action)


def reset_messages(caller: Caller, agent_id: str) -> None:
    """Forget the messages of the agent's default conversation."""

    def action(plan: Plan) -> None:
        caller.must_act()
        held, keys = open_agent(caller, plan, agent_id)
        _idle(caller, plan, keys)
        now = caller.workspace.now_ms()
        _forget_messages(plan, keys, DEFAULT)
        record = {"id": DEFAULT, "agent": agent_id, "created": now, "updated": now, "from": 1}
        streams.put(plan, keys, CONVERSATION, DEFAULT, record)
        acting(caller, keys).event(plan, "reset", held.key, agent=agent_id, conversation=DEFAULT)

    caller.transact(action)


def _idle(caller: Caller, plan: Plan, keys: Keys) -> None:
    lease = streams.find(plan, keys, LEASE, "turn")
    if is_alive(lease, caller.workspace.now_ms()):
        raise Conflict(
            "the agent is in the middle of a turn",
            hint="send the same again when that has ended, or cancel it",
            code="agent_busy",
        )


def _forget_messages(plan: Plan, keys: Keys, conversation: str) -> None:
    for _, entry in streams.walk(plan, keys, messages_of(conversation)):
        streams.drop(plan, keys, PLACE, entry["id"])
    streams.clear(plan, keys, messages_of(conversation))


def forget_everything(plan: Plan, keys: Keys) -> None:
    """Queue the end of all that an agent kept."""
    for conversation in conversation_ids(plan, keys):
        streams.clear(plan, keys, messages_of(conversation))
    drawers = (LEASE, RUN, STEP, CONVERSATION, PLACE, PASSAGE, COPY, ACCESS, RECEIVED, SENT, CONTACT, FORMER)
    for name in (*drawers, RUNS, STEPS, CONVERSATIONS, PASSAGES):
        streams.clear(plan, keys, name)
