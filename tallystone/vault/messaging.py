"""Agents that write to each other, and who may: each function is one operation (ADR 0021)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from tallystone.errors import Conflict, Denied, Invalid, NotFound, Waiting
from tallystone.store.tables import INBOX
from tallystone.vault import mail, streams
from tallystone.vault.attaching import users_only, view
from tallystone.vault.blocks import look, new_block
from tallystone.vault.caller import Caller
from tallystone.vault.mail import Letter
from tallystone.vault.plan import WS, Plan
from tallystone.vault.shelves import AGENTS, agent_keys, find, find_agent
from tallystone.vault.streams import Entry
from tallystone.vault.turns import DEFAULT, LEASE, RUN, Compose, Deliver, Turn, begin
from tallystone.vault.types import Block

SENDS = 16
"""Messages that one turn may send."""


def send(actor: Caller, to: str, text: str, run: str) -> str:
    """Write to another agent. `actor` is an agent; `run` its turn under way, or empty outside of one. Returns the
    message's id. Raises `NotFound`, `Invalid`, `Denied` and `Conflict`, each logged."""
    _check(actor, to, text)

    def action(plan: Plan) -> str:
        actor.must_act()
        return _post(actor, plan, to, text, run)

    return actor.transact(action, audit=True)


def ask(
    caller: Caller,
    actor: Caller,
    to: str,
    text: str,
    run: str,
    begun: Mapping[str, Any],
    compose: Compose,
    deliver: Deliver,
) -> Turn:
    """Write to another agent and begin the turn that reads it, in one commit: both are `caller`'s, or nothing happens.
    Raises what `send` and `begin` raise."""
    _check(actor, to, text)
    posted: list[str] = []

    def post(plan: Plan) -> None:
        posted.append(_post(actor, plan, to, text, run))

    def with_question(
        context: list[Entry], messages: Sequence[Mapping[str, Any]], letters: list[Letter]
    ) -> Sequence[Mapping[str, Any]]:
        if posted[-1] not in [letter.id for letter in letters]:
            raise mail.full(to)
        marked = [replace(letter, asked=letter.id == posted[-1]) for letter in letters]
        delivered = deliver(context, messages, marked)
        if delivered is None:
            raise Waiting(
                f"{to} waits for an approval of its tool calls",
                hint="somebody must answer that first",
                code="pending_approval",
            )
        return delivered

    return begin(caller, to, DEFAULT, begun, compose, with_question, post, audit=True)


def _check(actor: Caller, to: str, text: str) -> None:
    error = None
    try:
        text.encode()
    except UnicodeEncodeError:
        error = Invalid("a message holds what is no Unicode text", hint="send valid UTF-8")
    if to == actor.id:
        error = Invalid("an agent does not write to itself", hint="name another one", code="to_itself")
    elif not text.strip() or len(text) > mail.MAX_TEXT:
        error = Invalid(
            f"a message has 1 to {mail.MAX_TEXT} characters, this one {len(text)}",
            hint="put what is long into a memory block that both hold",
            code="message_length",
        )
    if error is not None:
        actor.refused(error)
        raise error


def _post(actor: Caller, plan: Plan, to: str, text: str, run: str) -> str:
    held = find_agent(actor, plan, actor.id)
    name = view(actor, plan, held, with_blocks=False).name
    hops = _counted(actor, plan, run)
    message, contact = mail.post(actor, plan, to, name, text, hops)
    actor.event(plan, "send", held.key, *contact, message=message, to=to, hops=hops, run=run)
    return message


def _counted(actor: Caller, plan: Plan, run: str) -> int:
    """The hops of the next message of a turn, which is counted. Both numbers lie in the run's record: what a model says
    does not reach them."""
    if not run:
        return 1
    lease, record = (
        streams.find(plan, actor.keys, LEASE, "turn"),
        streams.find(plan, actor.keys, RUN, run),
    )
    if lease is None or lease["run"] != run or record is None:
        raise Conflict(
            "the turn was taken over", hint="list the runs to see what became of it", code="lease_lost"
        )
    hops, sent = int(record.get("hops", 0)) + 1, int(record.get("sent", 0)) + 1
    if hops > mail.MAX_HOPS:
        raise Denied(
            f"this would be message {hops} in a row from agent to agent, and {mail.MAX_HOPS} are allowed",
            hint="end the turn; a person can take it up again",
            code="too_many_hops",
        )
    if sent > SENDS:
        raise Denied(
            f"a turn sends at most {SENDS} messages to other agents",
            hint="end the turn",
            code="too_many_messages",
        )
    streams.put(plan, actor.keys, RUN, run, {**record, "sent": sent})
    return hops


def has_messages(caller: Caller, agent_id: str) -> bool:
    """Whether messages wait for an agent that the caller can act as. Looks, and commits nothing."""
    with caller.workspace.store.snapshot() as snapshot:
        mine = caller.id == agent_id or find(Plan(snapshot), caller.keys, AGENTS, agent_id) is not None
        return mine and bool(snapshot.scan(INBOX, (WS, mail.mailbox(agent_id)), limit=1))


def contact(caller: Caller, agent_id: str) -> Block:
    """The contact of one of the caller's agents, made if there is none: who is granted that block may write to it."""

    def action(plan: Plan) -> Block:
        caller.must_act()
        users_only(caller)
        held = find_agent(caller, plan, agent_id)
        agent, keys = view(caller, plan, held, with_blocks=False), agent_keys(caller, held)
        there = mail.contact_of(caller, plan, keys)
        if there is not None:
            try:
                block = look(caller, plan, there)
                caller.event(plan, "read", there.key, block=block.id)
                return block
            except NotFound:
                pass  # deleted, expired or handed over: a new one is made
        described = agent.state.get("description")
        fields = {
            "label": f"contact/{agent_id}",
            "value": f"{agent.name} is the agent {agent_id}." + (f"\n{described}" if described else ""),
            "description": "Who may read this block may write to the agent that it names.",
        }
        made = new_block(caller, plan, fields, fixed={"contact": agent_id})
        streams.put(plan, keys, mail.CONTACT, "contact", {"block": made.block})
        caller.event(plan, "create", made.key, held.key, block=made.block, agent=agent_id)
        return look(caller, plan, made)

    return caller.transact(action)
