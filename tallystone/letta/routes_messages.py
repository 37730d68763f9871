"""`/v1/agents/{agent_id}/messages…` and `/v1/messages…`: what `client.agents.messages` and `client.messages` call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from tallystone.errors import Rejected
from tallystone.letta import bodies, composing, prompt, turn_bodies
from tallystone.letta.call import Answer, Call, check_id
from tallystone.letta.later import Later
from tallystone.letta.memory_tools import ToolError
from tallystone.letta.messages import Stored, Style, date_json, new_id, now_ms, text_of, typed
from tallystone.letta.paging import page
from tallystone.letta.recall_tools import between, matches
from tallystone.letta.talking import Talk, compacting, order_of
from tallystone.letta.turn_bodies import MessagesCreate
from tallystone.letta.wire import agent_answer
from tallystone.vault.turns import DEFAULT


def create(call: Call) -> Later:
    """`POST …/messages`: a turn, answered when it is over, or with `streaming` as it goes on."""
    return _talk(call, streaming=None)


def stream(call: Call) -> Later:
    """`POST …/messages/stream`: a turn, answered as it goes on."""
    return _talk(call, streaming=True)


def create_async(call: Call) -> Later:
    """`POST …/messages/async`: a turn that goes on by itself; the answer is its run."""
    agent_id = call.id("agent")
    body = bodies.decode(call.body, MessagesCreate)
    body.check(streaming=False)
    return Talk(call, agent_id, DEFAULT, body, order_of(call, agent_id, body)).in_background()


def _talk(call: Call, *, streaming: bool | None) -> Later:
    agent_id = call.id("agent")
    body = bodies.decode(call.body, MessagesCreate)
    wanted = bool(body.streaming) if streaming is None else streaming
    body.check(wanted)
    talk = Talk(call, agent_id, DEFAULT, body, order_of(call, agent_id, body))
    return talk.streamed() if wanted else talk.whole()


class _Nothing(Exception):
    """There is nothing to cancel."""


def cancel(call: Call) -> Answer:
    """`POST …/messages/cancel`: ask the turn under way to end; without one, take back what waits for an approval."""
    agent_id = call.id("agent")
    body = bodies.decode(call.body, turn_bodies.Cancel)
    return Answer(cancelled(call, agent_id, DEFAULT, bodies.ids("run", body.run_ids) or None))


def cancelled(call: Call, agent_id: str, conversation: str, runs: Sequence[str] | None) -> dict[str, str]:
    """What became of each run that was asked about."""
    answers = call.vault.cancel_turn(agent_id, runs)
    if answers or runs:
        return answers
    run = new_id("run")

    def dismiss(record: Mapping[str, Any], context: Sequence[Stored]) -> composing.Composed:
        composed = composing.dismissed(run, now_ms(), record, context)
        if not composed[0]:
            raise _Nothing
        return composed

    with suppress(_Nothing):
        turn = call.vault.begin_turn(agent_id, conversation, {"id": run, "handle": ""}, dismiss)
        ended = {"status": "cancelled", "stop_reason": "cancelled", "completed": now_ms()}
        try:
            turn.write(run=ended, end=True)
        finally:
            turn.leave()
        answers[run] = "cancelled"
    return answers


def reset(call: Call) -> Answer:
    """`PATCH …/reset-messages`: forget the messages of the agent's own conversation. There are no initial ones."""
    agent_id = call.id("agent")
    call.vault.reset_messages(agent_id)
    return agent_answer(call.vault.agent(agent_id))


def compact(call: Call) -> Later:
    """`POST …/summarize`: older messages give way to a summary that the agent's model writes."""
    bodies.decode(call.body, turn_bodies.Compact)
    return compacting(call, call.id("agent"), DEFAULT)


def recompile(call: Call) -> Answer:
    """`POST …/recompile`: the prompt as a step would see it now. Nothing is kept: each step compiles its own."""
    call.query.flag("dry_run")
    return Answer(compiled(call, call.id("agent"), DEFAULT))


def compiled(call: Call, agent_id: str, conversation: str) -> str:
    """The agent's system prompt at this moment."""
    agent = call.vault.agent(agent_id)
    return prompt.compile_prompt(agent, conversation=conversation, today=prompt.today())


# -- reading ----------------------------------------------------------------------------------------------------


def style_of(call: Call) -> Style:
    """How a list wants its messages."""
    query = call.query
    types = query.texts("include_return_message_types")
    return turn_bodies.style(
        types or None,
        query.flag("use_assistant_message"),
        query.text("assistant_message_tool_name"),
        query.text("assistant_message_tool_kwarg"),
    )


def list_(call: Call) -> Answer:
    """`GET …/messages`: newest first. One stored message may be several of the client's, all with its id."""
    conversation = call.query.text("conversation_id") or DEFAULT
    if conversation != DEFAULT:
        check_id("conv", conversation)
    return listed(call, call.id("agent"), conversation)


def listed(call: Call, agent_id: str, conversation: str) -> Answer:
    """A page of a conversation."""
    wanted, style = page(call.query, limit=100, order="desc"), style_of(call)
    found = call.vault.messages(
        agent_id,
        conversation,
        after=wanted.after,
        before=wanted.before,
        limit=wanted.limit,
        reverse=wanted.reverse,
        where=lambda message: bool(typed(message, style)),
    )
    return Answer(typed_page(found, style, wanted.reverse))


def typed_page(found: Sequence[Stored], style: Style, reverse: bool) -> list[dict[str, Any]]:
    """The client's messages of a page, in its order."""
    step = -1 if reverse else 1
    return [one for message in found for one in typed(message, style)[::step]]


def list_all(call: Call) -> Answer:
    """`GET /v1/messages/`: of all agents and conversations, newest first."""
    wanted, style = page(call.query, limit=100, order="desc"), style_of(call)
    found = call.vault.search_messages(
        lambda message: bool(typed(message, style)),
        conversation=call.query.text("conversation_id"),
        after=wanted.after,
        before=wanted.before,
        limit=wanted.limit,
        reverse=wanted.reverse,
    )
    return Answer(typed_page([message for _, _, message in found], style, wanted.reverse))


def retrieve(call: Call) -> Answer:
    """`GET /v1/messages/{message_id}`: the client's messages that a stored one is."""
    return Answer(typed(call.vault.message(call.id("message"))))


_FOUND = {
    "user": ("user_message", "content"),
    "system": ("system_message", "content"),
    "assistant": ("assistant_message", "content"),
}


def search(call: Call) -> Answer:
    """`POST /v1/messages/search`: messages that hold all words of the query, newest first."""
    body = bodies.decode(call.body, turn_bodies.MessagesSearch)
    if body.search_mode == "vector":
        raise Rejected(
            "nothing here is searched by meaning",
            hint="search_mode fts or hybrid finds words and parts of words",
            code="unsupported",
        )
    if body.agent_id is not None:
        check_id("agent", body.agent_id)
    dated = dates(body.start_date, body.end_date)
    says = matches(body.query)

    def where(message: Stored) -> bool:
        return message["role"] in _FOUND and dated(message["date"]) and says(text_of(message))

    found = call.vault.search_messages(
        where, agent_id=body.agent_id, conversation=body.conversation_id, limit=body.limit
    )
    return Answer([_result(agent, conversation, message) for agent, conversation, message in found])


def dates(start: str | None, end: str | None) -> Any:
    """Whether a moment lies between two dates of a request. Raises `Rejected` for what is no date."""
    try:
        return between(start, end, ("start_date", "end_date"))
    except ToolError as error:
        raise Rejected(error.text, hint="dates are ISO 8601") from None


def _result(agent: str, conversation: str, message: Stored) -> dict[str, Any]:
    kind, field = _FOUND[message["role"]]
    return {
        "message_type": kind,
        field: text_of(message),
        "created_at": date_json(message["date"]),
        "message_id": message["id"],
        "agent_id": agent,
        "conversation_id": None if conversation == DEFAULT else conversation,
    }
