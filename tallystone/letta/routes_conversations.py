"""`/v1/conversations/…`: what `client.conversations` calls. `default` with an `agent_id` is the agent's own one."""

from __future__ import annotations

from typing import Any

from tallystone.errors import Invalid, NotFound
from tallystone.letta import bodies, model_options, routes_messages, turn_bodies, turn_json
from tallystone.letta.call import Answer, Call, check_id
from tallystone.letta.later import Later
from tallystone.letta.messages import moment, new_id, now_ms
from tallystone.letta.paging import page
from tallystone.letta.routes_runs import resumed
from tallystone.letta.talking import Talk, compacting, order_of
from tallystone.letta.turn_bodies import MessagesCreate
from tallystone.vault.turns import DEFAULT

_SORTS = {"created_at": "created", "last_run_completion": "updated", "last_message_at": "last_message"}


def _where(call: Call, agent_id: str | None) -> tuple[str, str, dict[str, Any] | None]:
    """(agent, conversation, its record) that a request is about. Raises the uniform miss."""
    named = call.params["conversation_id"]
    if named == DEFAULT:
        if agent_id is None:
            raise Invalid("the default conversation needs an agent_id", hint="say whose it is")
        return check_id("agent", agent_id), DEFAULT, None
    if named.startswith("agent-"):  # an older spelling of the same
        return check_id("agent", named), DEFAULT, None
    record = call.vault.conversation(check_id("conv", named))
    if agent_id is not None and agent_id != record["agent"]:
        raise NotFound(f"Conversation {named} not found", hint="it is not of this agent")
    return record["agent"], named, record


def _fields(body: turn_bodies.ConversationFields) -> dict[str, Any]:
    model_options.check(body.model_settings)
    return {name: value for name, value in bodies.given(body).items() if name != "last_message_at"}


def create(call: Call) -> Answer:
    """`POST /v1/conversations/?agent_id=…`."""
    agent_id = _asked_agent(call)
    body = bodies.decode(call.body, turn_bodies.ConversationFields)
    record = {"id": new_id("conv"), **_fields(body)}
    return call.once(
        lambda: call.vault.create_conversation(agent_id, record),
        lambda made: Answer(turn_json.conversation_json(made)),
    )


def _asked_agent(call: Call) -> str:
    agent_id = call.query.text("agent_id")
    if agent_id is None:
        raise Invalid("the query names no agent_id", hint="say whose conversation it is")
    return check_id("agent", agent_id)


def list_(call: Call) -> Answer:
    """`GET /v1/conversations/`: newest first; archived ones only if asked for."""
    query = call.query
    wanted = page(query, limit=50, order="desc", order_by=tuple(_SORTS))
    agent_id = query.text("agent_id")
    archived = query.choice("archive_status", ("unarchived", "archived", "all"), "unarchived")
    said = (query.text("summary_search") or "").casefold()

    def where(record: Any) -> bool:
        return (
            not record.get("hidden")
            and archived in ("all", "archived" if record.get("archived") else "unarchived")
            and said in (record.get("summary") or "").casefold()
        )

    found = call.vault.conversations(
        check_id("agent", agent_id) if agent_id is not None else None,
        where,
        after=wanted.after,
        limit=wanted.limit,
        reverse=wanted.reverse,
        sort=_SORTS[query.choice("order_by", tuple(_SORTS), "created_at") or "created_at"],
    )
    return Answer([turn_json.conversation_json(record) for record in found])


def retrieve(call: Call) -> Answer:
    """`GET /v1/conversations/{conversation_id}`."""
    return Answer(turn_json.conversation_json(call.vault.conversation(call.id("conv", "conversation_id"))))


def update(call: Call) -> Answer:
    """`PATCH /v1/conversations/{conversation_id}`. Nulls are dropped."""
    conversation = call.id("conv", "conversation_id")
    body = bodies.decode(call.body, turn_bodies.ConversationUpdate)
    changes = _fields(body)
    if body.last_message_at is not None:
        changes["last_message"] = moment(body.last_message_at)
    if body.archived is not None:
        changes["archived_at"] = now_ms() if body.archived else None
    return Answer(turn_json.conversation_json(call.vault.edit_conversation(conversation, changes)))


def delete(call: Call) -> Answer:
    """`DELETE /v1/conversations/{conversation_id}`: with its messages."""
    call.vault.delete_conversation(call.id("conv", "conversation_id"))
    return Answer(None)


def cancel(call: Call) -> Answer:
    """`POST …/cancel`: as `agents.messages.cancel`, if the turn under way is in this conversation."""
    agent_id, conversation, _ = _where(call, call.query.text("agent_id"))
    newest = call.vault.runs(agent_id, lambda run: True, limit=1, reverse=True)  # no other can be running
    running = [run for run in newest if run["status"] == "running"]
    if any(run["conversation"] != conversation for run in running):
        return Answer({})
    return Answer(
        routes_messages.cancelled(call, agent_id, conversation, [run["id"] for run in running] or None)
    )


def fork(call: Call) -> Answer:
    """`POST …/fork`: a new conversation that begins with copies of this one's messages, up to `message_id`."""
    agent_id, conversation, record = _where(call, call.query.text("agent_id"))
    until = call.query.text("message_id")
    made = {
        **{
            name: (record or {}).get(name)
            for name in ("model", "model_settings", "context_window_limit", "description")
            if (record or {}).get(name) is not None
        },
        "id": new_id("conv"),
        "hidden": bool(call.query.flag("hidden", False)),
    }
    return call.once(
        lambda: call.vault.fork_conversation(
            agent_id,
            made,
            origin=conversation,
            until=check_id("message", until) if until is not None else None,
            new_id=lambda: new_id("message"),
        ),
        lambda forked: Answer(turn_json.conversation_json(forked)),
    )


def recompile(call: Call) -> Answer:
    """`POST …/recompile`: the prompt as a step of this conversation would see it now."""
    body = bodies.decode(call.body, turn_bodies.Compact)
    agent_id, conversation, _ = _where(call, body.agent_id)
    return Answer(routes_messages.compiled(call, agent_id, conversation))


def compact(call: Call) -> Later:
    """`POST …/compact`: as `agents.messages.compact`."""
    body = bodies.decode(call.body, turn_bodies.Compact)
    agent_id, conversation, _ = _where(call, body.agent_id)
    return compacting(call, agent_id, conversation)


def create_messages(call: Call) -> Later:
    """`POST …/messages`: a turn in this conversation, as events unless `streaming` is false."""
    body = bodies.decode(call.body, MessagesCreate)
    agent_id, conversation, record = _where(call, body.agent_id)
    streaming = body.streaming is not False
    body.check(streaming)
    talk = Talk(call, agent_id, conversation, body, order_of(call, agent_id, body, record))
    return talk.streamed() if streaming else talk.whole()


def list_messages(call: Call) -> Answer:
    """`GET …/messages`: newest first."""
    agent_id, conversation, _ = _where(call, call.query.text("agent_id"))
    return routes_messages.listed(call, agent_id, conversation)


def stream(call: Call) -> Later:
    """`POST …/stream`: the events of the conversation's latest run, from its beginning or beyond `starting_after`."""
    body = bodies.decode(call.body, turn_bodies.StreamRun)
    agent_id, conversation, _ = _where(call, body.agent_id)
    if body.run_id is None:
        latest = call.vault.runs(
            agent_id, lambda run: run["conversation"] == conversation, limit=1, reverse=True
        )
        if not latest:
            raise NotFound("the conversation has no run", hint="say something in it first")
        return resumed(call, latest[0]["id"], body)
    return resumed(call, check_id("run", body.run_id), body)
