"""One turn of an agent at a time: its lease, its run, and what it writes down as it goes.

A turn is a run of one agent in one conversation. It begins by taking the agent's lease, in the same commit that writes
down what was said to the agent, and ends by giving it back. Between, each thing that happens is written before the
next begins, by a commit that names the lease: who has lost it can write nothing more. A lease is lost when its process
is gone, or when it was not renewed for `LEASE_SECONDS`. A run whose lease was lost reads `failed`; the next turn says
so in its record and goes on from what was written down.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tallystone.errors import Conflict, NotFound
from tallystone.keystore import Keys
from tallystone.vault import mail, streams
from tallystone.vault.caller import Caller
from tallystone.vault.entering import open_block
from tallystone.vault.mail import Letter
from tallystone.vault.plan import Plan
from tallystone.vault.processes import is_gone, this_process
from tallystone.vault.records import Held
from tallystone.vault.shelves import agent_keys, find_agent
from tallystone.vault.streams import Entry

LEASE_SECONDS = 60
"""How long a lease holds after it was last renewed, if nobody can tell whether its process is still there."""
DEFAULT = "default"
"""The conversation that an agent has from the start."""
LEASE, RUN, STEP, CONVERSATION, PLACE = ("lease",), ("run",), ("step",), ("conversation",), ("place",)
"""Drawers: the turn under way, records by id, and in which conversation at which number a message lies."""
RUNS, STEPS, CONVERSATIONS = ("runs",), ("steps",), ("conversations",)
"""Streams: ids in the order in which they were made."""

_under_way: set[str] = set()  # the runs of this process that have not ended, whatever became of their lease


def messages_of(conversation: str) -> streams.Name:
    """The stream of a conversation's messages."""
    return ("messages", conversation)


def open_agent(caller: Caller, plan: Plan, agent_id: str) -> tuple[Held, Keys]:
    """An agent as the caller holds it, and its keys. Raises the uniform miss."""
    held = find_agent(caller, plan, agent_id)
    open_block(caller, plan, held, what="Agent", shown=agent_id)
    return held, agent_keys(caller, held)


def acting(caller: Caller, keys: Keys) -> Caller:
    """The agent of these keys, under the caller's token."""
    return caller if keys is caller.keys else caller.as_agent(keys)


def is_alive(lease: Mapping[str, Any] | None, now_ms: int) -> bool:
    """Whether the turn that holds this lease goes on."""
    if lease is None:
        return False
    if lease["process"] == this_process():
        return lease["run"] in _under_way
    return lease["until"] > now_ms and not is_gone(lease["process"])


def as_it_reads(run: Entry, lease: Mapping[str, Any] | None, now_ms: int) -> Entry:
    """A run's record; `failed` if it never ended and its process is gone."""
    if run["status"] != "running" or (
        lease is not None and lease["run"] == run["id"] and is_alive(lease, now_ms)
    ):
        return run
    return {**run, "status": "failed", "stop_reason": "error", "completed": run["updated"]}


def file_messages(plan: Plan, keys: Keys, conversation: str, messages: Sequence[Mapping[str, Any]]) -> None:
    """Queue messages at the end of a conversation, and where each of them lies."""
    if messages:
        last = streams.append(plan, keys, messages_of(conversation), *messages)
        for number, message in enumerate(messages, last - len(messages) + 1):
            streams.put(plan, keys, PLACE, message["id"], {"conversation": conversation, "number": number})


def _name_record(plan: Plan, keys: Keys, stream: streams.Name, identity: str, created: int) -> int:
    """Queue a record's id at the end of its stream; returns its number. `at` orders it among the records of other
    streams: as `created`, but never before its predecessor's, since a clock may be set back."""
    last = streams.entry_at(plan, keys, stream, streams.length(plan, keys, stream))
    at = max(created, last.get("at", 0) if last is not None else 0)
    return streams.append(plan, keys, stream, {"id": identity, "at": at})


def conversation_record(plan: Plan, keys: Keys, agent_id: str, conversation: str, now_ms: int) -> Entry:
    """A conversation's record. The default one is there from the start. Raises the uniform miss for others."""
    record = streams.find(plan, keys, CONVERSATION, conversation)
    if record is None and conversation != DEFAULT:
        raise NotFound(f"Conversation {conversation} not found", hint="list the agent's conversations")
    return record or {"id": DEFAULT, "agent": agent_id, "created": now_ms, "updated": now_ms, "from": 1}


Compose = Callable[[Entry, list[Entry]], tuple[Sequence[Mapping[str, Any]], Mapping[str, Any]]]
"""What a turn begins with: (the conversation's record, its messages since `from`) → (messages to add, changes of the
record). Pure: it may be asked again."""
Deliver = Callable[
    [list[Entry], Sequence[Mapping[str, Any]], list[Letter]], Sequence[Mapping[str, Any]] | None
]
"""How messages of other agents enter a turn: (the conversation's messages, those to add, what waits) → the messages to
add with what waited among them, or None to let it wait. Pure, like `Compose`."""


@dataclass
class Turn:
    """A turn under way. `context` are the conversation's messages since its `from`, as the turn began, with the new
    ones; `conversation` its record. Each method is one commit; without the
    lease it raises `Conflict` (`lease_lost`)."""

    caller: Caller
    agent: str
    run: str
    conversation: Entry
    context: list[Entry]

    def _held(self, plan: Plan) -> tuple[Held, Keys, Entry]:
        held, keys = open_agent(self.caller, plan, self.agent)
        lease = streams.find(plan, keys, LEASE, "turn")
        if lease is None or lease["run"] != self.run:
            raise Conflict(
                "the turn was taken over", hint="list the runs to see what became of it", code="lease_lost"
            )
        return held, keys, lease

    def _run(self, plan: Plan, keys: Keys) -> Entry:
        run = streams.find(plan, keys, RUN, self.run)
        if run is None:
            raise NotFound(f"Run {self.run} not found", hint="list the agent's runs")
        return run

    def _renew(self, plan: Plan, keys: Keys, lease: Entry) -> None:
        until = self.caller.workspace.now_ms() + LEASE_SECONDS * 1000
        streams.put(plan, keys, LEASE, "turn", {**lease, "until": until})

    def renew(self) -> bool:
        """Keep the lease. Returns whether somebody asked for the turn to be cancelled."""

        def action(plan: Plan) -> bool:
            _, keys, lease = self._held(plan)
            self._renew(plan, keys, lease)
            return bool(self._run(plan, keys).get("cancel"))

        return self.caller.transact(action)

    def is_unwanted(self) -> bool:
        """Whether somebody asked for the turn to be cancelled. Looks, and commits nothing; raises `Unauthenticated` as
        a commit would."""
        with self.caller.workspace.store.snapshot() as snapshot:
            plan = Plan(snapshot)
            self.caller.check(plan)
            _, keys, _ = self._held(plan)
            return bool(self._run(plan, keys).get("cancel"))

    def write(
        self,
        messages: Sequence[Mapping[str, Any]] = (),
        *,
        step: Mapping[str, Any] | None = None,
        conversation: Mapping[str, Any] | None = None,
        run: Mapping[str, Any] | None = None,
        end: bool = False,
    ) -> bool:
        """Write down what happened: messages, a step's record, changes of the conversation's record and of the run's.
        With `end` the turn is over. Returns whether somebody asked for it to be cancelled."""

        def action(plan: Plan) -> tuple[bool, Entry]:
            held, keys, lease = self._held(plan)
            now = self.caller.workspace.now_ms()
            where = self.conversation["id"]
            file_messages(plan, keys, where, messages)
            record = conversation_record(plan, keys, self.agent, where, now)
            changed = {**record, **(conversation or {}), "updated": now}
            if messages:
                changed["last_message"] = now
            if messages or conversation:
                streams.put(plan, keys, CONVERSATION, where, changed)
            current = self._run(plan, keys)
            if step is not None:
                known = streams.find(plan, keys, STEP, step["id"])
                if known is None:
                    place = _name_record(plan, keys, STEPS, step["id"], step["created"])
                    known = {"position": place}
                    current = {**current, "steps": [*current["steps"], step["id"]]}
                streams.put(plan, keys, STEP, step["id"], {**known, **step})
            current = {**current, **(run or {}), "updated": now}
            current["last"] = streams.length(plan, keys, messages_of(where))
            streams.put(plan, keys, RUN, self.run, current)
            if end:
                streams.drop(plan, keys, LEASE, "turn")
            else:
                self._renew(plan, keys, lease)
            if messages:
                acting(self.caller, keys).event(
                    plan,
                    "message",
                    held.key,
                    agent=self.agent,
                    conversation=where,
                    run=self.run,
                    messages=len(messages),
                )
            return bool(current.get("cancel")), changed

        cancelled, self.conversation = self.caller.transact(action)
        self.context.extend(dict(message) for message in messages)
        if end:
            self.leave()
        return cancelled

    def leave(self) -> None:
        """This process does no more for the turn, whether or not its end could be written down."""
        _under_way.discard(self.run)


def begin(
    caller: Caller,
    agent_id: str,
    conversation: str,
    run: Mapping[str, Any],
    compose: Compose,
    deliver: Deliver | None = None,
    before: Callable[[Plan], object] | None = None,
    *,
    audit: bool = False,
) -> Turn:
    """Take the agent's lease, write down what `compose` says, and start the run (`run` has its `id` and what its
    creator wants kept). With `deliver` the messages that wait for the agent are taken; `before` is asked, in the same
    commit, before they are looked for. Raises `Conflict` (`agent_busy`) while another turn goes on, and what `compose`
    raises."""

    def action(plan: Plan) -> Turn:
        caller.must_act()
        held, keys = open_agent(caller, plan, agent_id)
        now = caller.workspace.now_ms()
        lease = streams.find(plan, keys, LEASE, "turn")
        if lease is not None and is_alive(lease, now):
            raise Conflict(
                "the agent is in the middle of another turn",
                hint="send the same again when that has ended, or cancel it",
                code="agent_busy",
            )
        if lease is not None:
            _close(plan, keys, lease, now)
        record = conversation_record(plan, keys, agent_id, conversation, now)
        first = streams.length(plan, keys, messages_of(conversation)) + 1
        context = [
            entry
            for _, entry in streams.walk(plan, keys, messages_of(conversation), after=record["from"] - 1)
        ]
        messages, changes = compose(record, context)
        messages, hops = _with_mail(acting(caller, keys), plan, held, context, messages, deliver, before)
        file_messages(plan, keys, conversation, messages)
        record = {**record, **changes, "updated": now, "last_message": now}
        streams.put(plan, keys, CONVERSATION, conversation, record)
        begun = {
            **run,
            "agent": agent_id,
            "conversation": conversation,
            "status": "running",
            "created": now,
            "updated": now,
            "steps": [],
            "hops": hops,
            "first": first,
            "last": first + len(messages) - 1,
        }
        begun["position"] = _name_record(plan, keys, RUNS, run["id"], now)
        streams.put(plan, keys, RUN, run["id"], begun)
        taken = {"run": run["id"], "process": this_process(), "until": now + LEASE_SECONDS * 1000}
        streams.put(plan, keys, LEASE, "turn", taken)
        acting(caller, keys).event(
            plan,
            "message",
            held.key,
            agent=agent_id,
            conversation=conversation,
            run=run["id"],
            messages=len(messages),
        )
        return Turn(caller, agent_id, run["id"], record, [*context, *map(dict, messages)])

    _under_way.add(
        run["id"]
    )  # before the lease names it, so that nobody here takes it for one of a dead process
    try:
        return caller.transact(action, audit=audit)
    except BaseException:
        _under_way.discard(run["id"])
        raise


def _with_mail(
    actor: Caller,
    plan: Plan,
    held: Held,
    context: list[Entry],
    messages: Sequence[Mapping[str, Any]],
    deliver: Deliver | None,
    before: Callable[[Plan], object] | None,
) -> tuple[Sequence[Mapping[str, Any]], int]:
    """What a turn begins with, the messages of other agents among it, and the most hops that any of those had."""
    if before is not None:
        before(plan)
    letters = mail.waiting(actor, plan) if deliver is not None else []
    delivered = deliver(context, messages, letters) if deliver is not None else None
    if delivered is None or not letters:
        return messages, 0
    mail.take(actor, plan, letters)
    senders = [letter.sender for letter in letters]
    actor.event(plan, "receive", held.key, messages=[letter.id for letter in letters], senders=senders)
    return delivered, max(letter.hops for letter in letters)


def _close(plan: Plan, keys: Keys, lease: Entry, now_ms: int) -> None:
    """Queue the end of a run whose process is gone."""
    run = streams.find(plan, keys, RUN, lease["run"])
    if run is not None:
        streams.put(plan, keys, RUN, run["id"], as_it_reads(run, None, now_ms))


def ask_to_cancel(caller: Caller, agent_id: str, runs: Iterable[str] | None) -> dict[str, str]:
    """Ask the agent's turn under way to end, if it is one of `runs` (None: whichever it is). Returns, for each run
    asked about, `cancelled` or why not."""

    def action(plan: Plan) -> dict[str, str]:
        caller.must_act()
        held, keys = open_agent(caller, plan, agent_id)
        now = caller.workspace.now_ms()
        lease = streams.find(plan, keys, LEASE, "turn")
        alive = lease is not None and is_alive(lease, now)
        current = str(lease["run"]) if lease is not None and alive else None
        answers: dict[str, str] = {}
        for identity in [current] if runs is None else dict.fromkeys(runs):
            if identity is None:
                continue
            run = streams.find(plan, keys, RUN, identity)
            if run is None:
                raise NotFound(f"Run {identity} not found", hint="list the agent's runs")
            if identity == current:
                streams.put(plan, keys, RUN, identity, {**run, "cancel": True})
                answers[identity] = "cancelled"
            else:
                answers[identity] = f"not running: {as_it_reads(run, lease, now)['status']}"
        acting(caller, keys).event(plan, "cancel", held.key, agent=agent_id, runs=list(answers))
        return answers

    return caller.transact(action)
