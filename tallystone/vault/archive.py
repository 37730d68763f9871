"""An agent's archival passages: texts that are kept for it outside its blocks. Each function is one operation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tallystone.errors import NotFound
from tallystone.vault import streams
from tallystone.vault.caller import Caller
from tallystone.vault.history import bad_cursor
from tallystone.vault.merging import Where, page_of
from tallystone.vault.plan import Plan
from tallystone.vault.streams import Entry
from tallystone.vault.turns import acting, open_agent

PASSAGE, PASSAGES = ("passage",), ("passages",)


def add_passage(caller: Caller, agent_id: str, passage: Mapping[str, Any]) -> Entry:
    """Keep a text for an agent, outside its blocks."""

    def action(plan: Plan) -> Entry:
        caller.must_act()
        held, keys = open_agent(caller, plan, agent_id)
        now = caller.workspace.now_ms()
        number = streams.append(plan, keys, PASSAGES, {"created": now, **passage})
        streams.put(plan, keys, PASSAGE, passage["id"], {"number": number})
        acting(caller, keys).event(plan, "message", held.key, agent=agent_id, passage=passage["id"])
        return {"created": now, **passage}

    return caller.transact(action)


def list_passages(
    caller: Caller,
    agent_id: str,
    where: Where,
    *,
    after: str | None = None,
    before: str | None = None,
    limit: int | None = None,
    reverse: bool = False,
) -> list[Entry]:
    """A page of an agent's passages that pass `where`."""

    def action(plan: Plan) -> list[Entry]:
        held, keys = open_agent(caller, plan, agent_id)

        def place(cursor: str | None) -> int | None:
            if cursor is None:
                return None
            record = streams.find(plan, keys, PASSAGE, cursor)
            if record is None:
                raise bad_cursor()
            return int(record["number"])

        def entries(beyond: int | None, newest_first: bool) -> Iterator[tuple[int, Entry]]:
            for number, entry in streams.walk(plan, keys, PASSAGES, after=beyond, reverse=newest_first):
                if where(entry):
                    yield number, entry

        page = page_of(entries, after=place(after), before=place(before), limit=limit, reverse=reverse)
        caller.event(plan, "list", held.key, agent=agent_id, passages=len(page))
        return page

    return caller.transact(action)


def delete_passage(caller: Caller, agent_id: str, passage_id: str) -> None:
    """Forget a passage."""

    def action(plan: Plan) -> None:
        caller.must_act()
        held, keys = open_agent(caller, plan, agent_id)
        record = streams.find(plan, keys, PASSAGE, passage_id)
        if record is None:
            raise NotFound(f"Passage {passage_id} not found", hint="list the agent's passages")
        streams.forget(plan, keys, PASSAGES, record["number"])
        streams.drop(plan, keys, PASSAGE, passage_id)
        acting(caller, keys).event(plan, "delete", held.key, agent=agent_id, passage=passage_id)

    caller.transact(action)
