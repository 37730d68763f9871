"""Runs and steps of agents, as they are read. Each function is one operation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tallystone.keystore import Keys
from tallystone.vault import streams
from tallystone.vault.caller import Caller
from tallystone.vault.history import agents_of, bad_cursor, owner_of
from tallystone.vault.merging import Place, Source, Where, merged_page
from tallystone.vault.plan import Plan
from tallystone.vault.records import Held
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


@dataclass(frozen=True)
class Wanted:
    """Which page of a list: cursors are ids, exclusive; `limit` None is no limit; `reverse`: newest first."""

    after: str | None = None
    before: str | None = None
    limit: int | None = None
    reverse: bool = False


def _list_records(
    caller: Caller,
    stream: streams.Name,
    drawer: streams.Name,
    agent_id: str | None,
    where: Where,
    wanted: Wanted,
) -> list[Entry]:
    def action(plan: Plan) -> list[Entry]:
        of = list(agents_of(caller, plan)) if agent_id is None else [open_agent(caller, plan, agent_id)]
        sources = [_source(caller, plan, held, keys, stream, drawer) for held, keys in of]

        def place(cursor: str | None) -> Place | None:
            if cursor is None:
                return None
            for (_, keys), source in zip(of, sources, strict=True):
                record = streams.peek(plan, keys, drawer, cursor)
                if record is not None:
                    number = _number(plan, keys, stream, record)
                    return source.place(number, source.at(number) or record)
            raise bad_cursor()

        page = merged_page(
            sources,
            where,
            after=place(wanted.after),
            before=place(wanted.before),
            limit=wanted.limit,
            reverse=wanted.reverse,
        )
        caller.event(plan, "list", *(held.key for held, _ in of), found=len(page))
        return [record for _, record in page]

    return caller.transact(action)


def _source(
    caller: Caller, plan: Plan, held: Held, keys: Keys, stream: streams.Name, drawer: streams.Name
) -> Source:
    """The records of a drawer in the order of the stream that names them."""

    def record_of(entry: Entry | None) -> Entry | None:
        record = streams.peek(plan, keys, drawer, entry["id"]) if entry is not None else None
        if entry is None or record is None:
            return None
        record["at"] = entry.get("at", record["created"])
        if drawer != RUN or record["status"] != "running":
            return record
        lease = streams.peek(plan, keys, LEASE, "turn")
        return as_it_reads(record, lease, caller.workspace.now_ms())

    def walk(beyond: int | None, newest_first: bool) -> Iterator[tuple[int, Entry]]:
        for number, entry in streams.walk(plan, keys, stream, after=beyond, reverse=newest_first):
            record = record_of(entry)
            if record is not None:
                yield number, record

    def at(number: int) -> Entry | None:
        return record_of(streams.entry_at(plan, keys, stream, number))

    return Source((held.subject,), streams.length(plan, keys, stream), walk, at, "at")


def _number(plan: Plan, keys: Keys, stream: streams.Name, record: Entry) -> int:
    """At which number of its stream a record is named."""
    if "position" in record:
        return int(record["position"])
    for number, entry in streams.walk(plan, keys, stream, reverse=True):  # written before records knew theirs
        if entry["id"] == record["id"]:
            return number
    raise bad_cursor()


def list_runs(caller: Caller, agent_id: str | None, where: Where, wanted: Wanted) -> list[Entry]:
    """A page of the runs of one agent, or of all of the caller's."""
    return _list_records(caller, RUNS, RUN, agent_id, where, wanted)


def list_steps(caller: Caller, agent_id: str | None, where: Where, wanted: Wanted) -> list[Entry]:
    """A page of the steps of one agent, or of all of the caller's."""
    return _list_records(caller, STEPS, STEP, agent_id, where, wanted)


def run_steps(caller: Caller, run_id: str) -> list[Entry]:
    """The steps of one run, oldest first."""

    def action(plan: Plan) -> list[Entry]:
        held, keys, run = owner_of(caller, plan, RUN, run_id, "Run")
        found = [streams.peek(plan, keys, STEP, step) for step in run["steps"]]
        caller.event(plan, "list", held.key, agent=held.subject, run=run_id, steps=len(found))
        return [step for step in found if step is not None]

    return caller.transact(action)


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
