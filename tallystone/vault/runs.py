"""Runs and steps of agents, as they are read. Each function is one operation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from tallystone.keystore import Keys
from tallystone.vault import streams
from tallystone.vault.caller import Caller
from tallystone.vault.history import SCAN_LIMIT, Where, agents_of, owner_of
from tallystone.vault.plan import Plan
from tallystone.vault.streams import Entry
from tallystone.vault.turns import (
    CONVERSATION,
    DEFAULT,
    LEASE,
    PLACE,
    RUN,
    RUNS,
    STEP,
    STEPS,
    as_it_reads,
    messages_of,
    open_agent,
)


def _run_as_it_reads(caller: Caller, plan: Plan, keys: Keys, run: Entry) -> Entry:
    return as_it_reads(run, streams.find(plan, keys, LEASE, "turn"), caller.workspace.now_ms())


def latest_run(caller: Caller, plan: Plan, keys: Keys) -> Entry | None:
    """An agent's latest run that is over. Opens the records of two runs at most: one turn goes on at a time."""
    last = streams.length(plan, keys, RUNS)
    for number in range(last, max(last - 2, 0), -1):
        entry = streams.entry_at(plan, keys, RUNS, number)
        run = streams.peek(plan, keys, RUN, entry["id"]) if entry is not None else None
        if run is None:
            continue
        lease = streams.peek(plan, keys, LEASE, "turn") if run["status"] == "running" else None
        run = as_it_reads(run, lease, caller.workspace.now_ms())
        if run["status"] != "running":
            return run
    return None


def awaited_message(plan: Plan, keys: Keys) -> Entry | None:
    """The message whose tool calls wait for an approval in an agent's own conversation, if one does."""
    record = streams.peek(plan, keys, CONVERSATION, DEFAULT)
    if record is None or not record.get("pending"):
        return None
    place = streams.peek(plan, keys, PLACE, record["pending"])
    return streams.entry_at(plan, keys, messages_of(DEFAULT), place["number"]) if place is not None else None


def read_run(caller: Caller, run_id: str) -> Entry:
    """One run of any of the caller's agents."""

    def action(plan: Plan) -> Entry:
        held, keys, run = owner_of(caller, plan, RUN, run_id, "Run")
        caller.event(plan, "read", held.key, agent=held.subject, run=run_id)
        return _run_as_it_reads(caller, plan, keys, run)

    return caller.transact(action)


def run_messages(caller: Caller, run_id: str) -> list[Entry]:
    """The messages that were written down in a run, oldest first."""

    def action(plan: Plan) -> list[Entry]:
        held, keys, run = owner_of(caller, plan, RUN, run_id, "Run")
        entries = streams.walk(plan, keys, messages_of(run["conversation"]), after=run["first"] - 1)
        found = [entry for number, entry in _bounded(entries, run["last"]) if entry.get("run") == run_id]
        caller.event(plan, "list", held.key, agent=held.subject, run=run_id, messages=len(found))
        return found

    return caller.transact(action)


def _bounded(entries: Iterator[tuple[int, Entry]], last: int) -> Iterator[tuple[int, Entry]]:
    for number, entry in entries:
        if number > last:
            return
        yield number, entry


def _list_records(
    caller: Caller,
    stream: streams.Name,
    drawer: streams.Name,
    agent_id: str | None,
    where: Where,
) -> list[Entry]:
    def action(plan: Plan) -> list[Entry]:
        of = list(agents_of(caller, plan)) if agent_id is None else [open_agent(caller, plan, agent_id)]
        found: list[Entry] = []
        for _, keys in of:
            for _, entry in islice(streams.walk(plan, keys, stream, reverse=True), SCAN_LIMIT):
                record = streams.find(plan, keys, drawer, entry["id"])
                if record is not None:
                    if drawer == RUN:
                        record = _run_as_it_reads(caller, plan, keys, record)
                    found.append(record)
        found = sorted(filter(where, found), key=lambda one: (one["created"], one["id"]))
        caller.event(plan, "list", *(held.key for held, _ in of), found=len(found))
        return found

    return caller.transact(action)


def list_runs(caller: Caller, agent_id: str | None, where: Where) -> list[Entry]:
    """The runs of one agent, or of all of the caller's, oldest first."""
    return _list_records(caller, RUNS, RUN, agent_id, where)


def list_steps(caller: Caller, agent_id: str | None, where: Where) -> list[Entry]:
    """The steps of one agent, or of all of the caller's, oldest first."""
    return _list_records(caller, STEPS, STEP, agent_id, where)


def read_step(caller: Caller, step_id: str, changes: Mapping[str, Any] | None = None) -> Entry:
    """One step of any of the caller's agents, after `changes` of its record."""

    def action(plan: Plan) -> Entry:
        held, keys, step = owner_of(caller, plan, STEP, step_id, "Step")
        if changes is not None:
            caller.must_act()
            step = {**step, **changes}
            streams.put(plan, keys, STEP, step_id, step)
        kind = "read" if changes is None else "update"
        caller.event(plan, kind, held.key, agent=held.subject, step=step_id)
        return step

    return caller.transact(action)
