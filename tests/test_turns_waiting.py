"""Turns that stop for somebody: approvals, tools of the client, tool rules, agents that speak by a tool."""

from __future__ import annotations

import json
from typing import Any

import letta_client
import pytest
from scripted_models import Call, Turn
from stores import thinned
from test_turns import HUMAN, append, consistent, stop
from turn_fixtures import Talking, talking, types  # noqa: F401

pytestmark = thinned(2, "what models hear and say is told above the store")

WEATHER = {
    "name": "weather",
    "description": "The weather in a town.",
    "parameters": {"type": "object", "properties": {"town": {"type": "string"}}, "required": ["town"]},
}


def asking(talking: Talking, **fields: Any) -> Any:  # noqa: F811
    """An agent whose `memory_insert` needs an approval, with one turn that asked for it."""
    agent = talking.agent(memory_blocks=HUMAN, **fields)
    client = talking.served.letta()
    state = client.agents.tools.update_approval(
        "memory_insert", agent_id=agent.id, body_requires_approval=True
    )
    assert [rule.type for rule in state.tool_rules] == ["requires_approval"]
    talking.models.play([Turn("May I?", calls=[append("x"), append("y")])])
    answer = talking.say(agent)
    assert stop(answer) == "requires_approval"
    assert types(answer.messages) == ["assistant_message", "approval_request_message"]
    assert len(answer.messages[1].tool_calls) == 2
    return agent, answer.messages[1]


def value(talking: Talking, agent: Any) -> str:  # noqa: F811
    return talking.served.vault().agent_block(agent.id, "human").value


def answer_with(talking: Talking, agent: Any, **message: Any) -> Any:  # noqa: F811
    return talking.served.letta().agents.messages.create(agent.id, messages=[message])


@pytest.mark.parametrize("listed", [False, True])
def test_an_approved_call_runs(talking: Talking, listed: bool) -> None:  # noqa: F811
    agent, request = asking(talking)
    assert value(talking, agent) == "Name: unknown"
    talking.models.play([Turn("Done.")])
    if listed:
        approvals = [
            {"type": "approval", "tool_call_id": call.tool_call_id, "approve": True}
            for call in request.tool_calls
        ]
        answer = answer_with(talking, agent, type="approval", approvals=approvals)
    else:
        answer = answer_with(talking, agent, type="approval", approve=True, approval_request_id=request.id)
    assert stop(answer) == "end_turn"
    assert types(answer.messages) == ["tool_return_message", "tool_return_message", "assistant_message"]
    assert value(talking, agent) == "Name: unknown\nx\ny"
    assert types(talking.history(agent)) == [
        "user_message",
        "assistant_message",
        "approval_request_message",
        "approval_response_message",
        *types(answer.messages),
    ]
    assert consistent(talking.history(agent))


def test_a_denied_call_does_not_and_the_model_hears_why(talking: Talking) -> None:  # noqa: F811
    agent, request = asking(talking)
    first, second = request.tool_calls
    talking.models.play([Turn("As you wish.")])
    approvals = [
        {"type": "approval", "tool_call_id": first.tool_call_id, "approve": False, "reason": "too private"},
        {"type": "approval", "tool_call_id": second.tool_call_id, "approve": True},
    ]
    answer = answer_with(talking, agent, type="approval", approvals=approvals)
    assert stop(answer) == "end_turn"
    assert value(talking, agent) == "Name: unknown\ny"
    assert any("denied" in text and "too private" in text for text in talking.models.asked[0].results)
    assert consistent(talking.history(agent))


def test_nothing_else_is_said_while_an_approval_is_due(talking: Talking) -> None:  # noqa: F811
    agent, request = asking(talking)
    with pytest.raises(letta_client.ConflictError) as refused:
        talking.say(agent, "hurry up")
    assert refused.value.body["error"]["code"] == "pending_approval"
    assert refused.value.response.headers["x-should-retry"] == "false"
    wrong: list[dict[str, Any]] = [
        {"approve": True, "approval_request_id": "message-00000000-0000-4000-8000-000000000000"},
        {"approvals": [{"type": "approval", "tool_call_id": "call_other", "approve": True}]},
        {
            "approvals": [
                {"type": "approval", "tool_call_id": request.tool_calls[0].tool_call_id, "approve": True}
            ]
        },
    ]
    for message in wrong:
        with pytest.raises(letta_client.BadRequestError):
            answer_with(talking, agent, type="approval", **message)
    assert value(talking, agent) == "Name: unknown"
    assert talking.served.letta().agents.messages.cancel(agent.id)
    assert consistent(talking.history(agent))
    talking.models.play([Turn("ok")])
    assert stop(talking.say(agent, "go on")) == "end_turn"
    with pytest.raises(letta_client.BadRequestError) as late:
        answer_with(talking, agent, type="approval", approve=True)
    assert late.value.body["error"]["code"] == "no_pending_approval"
    assert value(talking, agent) == "Name: unknown"


def test_a_tool_of_the_client(talking: Talking) -> None:  # noqa: F811
    agent = talking.agent(memory_blocks=HUMAN)
    client = talking.served.letta()
    talking.models.play([Turn("", calls=[append("asked"), Call("weather", {"town": "Bern"})])])
    answer = client.agents.messages.create(agent.id, input="weather?", client_tools=[WEATHER])
    assert stop(answer) == "requires_approval"
    assert types(answer.messages) == ["tool_call_message", "approval_request_message", "tool_return_message"]
    assert "weather" in talking.models.asked[0].tools
    (call,) = next(
        one for one in answer.messages if one.message_type == "approval_request_message"
    ).tool_calls
    talking.models.play([Turn("It rains.")])
    returned = {"tool_call_id": call.tool_call_id, "tool_return": "rain", "status": "success", "type": "tool"}
    answer = client.agents.messages.create(
        agent.id, messages=[{"type": "tool_return", "tool_returns": [returned]}], client_tools=[WEATHER]
    )
    assert stop(answer) == "end_turn"
    assert "rain" in talking.models.asked[0].results
    assert consistent(talking.history(agent))


def test_rules_of_tools(talking: Talking) -> None:  # noqa: F811
    rules = [
        {"type": "exit_loop", "tool_name": "memory_replace"},
        {"type": "run_first", "tool_name": "memory_insert"},
        {"type": "max_count_per_step", "tool_name": "memory_insert", "max_count_limit": 2},
    ]
    agent = talking.agent(memory_blocks=HUMAN, tool_rules=rules)
    replace = Call("memory_replace", {"label": "human", "old_string": "unknown", "new_string": "Ada"})
    talking.models.play(
        [
            Turn("", calls=[replace]),
            Turn("", calls=[append("a"), append("b"), append("c")]),
            Turn("", calls=[replace]),
        ]
    )
    answer = talking.say(agent)
    assert stop(answer) == "tool_rule"
    asked = talking.models.asked
    assert asked[0].tools == ("memory_insert",)
    assert "memory_insert" not in asked[2].tools
    assert value(talking, agent) == "Name: Ada\na\nb"
    assert consistent(talking.history(agent))


def test_arguments_that_a_rule_fixes_beat_the_models(talking: Talking) -> None:  # noqa: F811
    """In what happens, in the history, and in what the model sees that it did; for the first calls of a turn only."""
    rules = [{"type": "run_first", "tool_name": "memory_insert", "args": {"new_string": "Öl"}}]
    agent = talking.agent(memory_blocks=HUMAN, tool_rules=rules)
    silent = Call("memory_insert", {"label": "human"})
    talking.models.play(
        [Turn("", calls=[Call("memory_insert", "{"), silent]), Turn("", calls=[append("b")]), Turn("Done.")]
    )
    answer = talking.say(agent)
    assert stop(answer) == "end_turn"
    assert value(talking, agent) == "Name: unknown\nÖl\nb"
    first, second = (one.tool_calls for one in answer.messages if one.message_type == "tool_call_message")
    assert first[0].arguments == "{"
    assert json.loads(first[1].arguments) == {"label": "human", "new_string": "Öl"}
    assert json.loads(second[0].arguments)["new_string"] == "b"
    told = [call for message in talking.models.asked[1].messages for call in message.calls]
    assert told[1][2] == {"label": "human", "new_string": "Öl"}
    assert consistent(talking.history(agent))


def test_a_tool_that_must_be_called_before_the_end(talking: Talking) -> None:  # noqa: F811
    rules = [{"type": "required_before_exit", "tool_name": "memory_insert"}]
    agent = talking.agent(memory_blocks=HUMAN, tool_rules=rules)
    talking.models.play([Turn("Done?"), Turn("", calls=[append("a")]), Turn("Done.")])
    answer = talking.say(agent)
    assert stop(answer) == "end_turn"
    assert value(talking, agent).endswith("\na")


def test_an_agent_that_speaks_by_a_tool(talking: Talking) -> None:  # noqa: F811
    agent = talking.agent(agent_type="memgpt_v2_agent", memory_blocks=HUMAN)
    talking.models.play([Turn("", thinking="", calls=[Call("send_message", {"message": "Hello!"})])])
    answer = talking.say(agent)
    assert stop(answer) == "tool_rule"
    assert types(answer.messages) == ["assistant_message"]
    assert answer.messages[0].content == "Hello!"
    client = talking.served.letta()
    raw = client.agents.messages.list(agent.id, order="asc", use_assistant_message=False).items
    assert types(raw) == ["user_message", "tool_call_message", "tool_return_message"]
    talking.models.play([Turn("I forgot the tool.")])
    assert stop(talking.say(agent)) == "no_tool_call"


def test_only_the_types_that_were_asked_for(talking: Talking) -> None:  # noqa: F811
    agent = talking.agent(memory_blocks=HUMAN)
    talking.models.play([Turn("", calls=[append("a")]), Turn("Done.")])
    answer = talking.say(agent, include_return_message_types=["assistant_message"])
    assert types(answer.messages) == ["assistant_message"]
    client = talking.served.letta()
    found = list(
        client.agents.messages.list(agent.id, include_return_message_types=["user_message"], limit=1)
    )
    assert types(found) == ["user_message"]


def test_what_stands_in_for_the_agents_own(talking: Talking) -> None:  # noqa: F811
    agent = talking.agent(memory_blocks=HUMAN)
    talking.models.play([Turn("ok")])
    skills = [{"name": "deploy", "description": "Ships it.", "location": "skills/deploy"}]
    talking.say(agent, override_model="anthropic/scripted-1", client_skills=skills)
    assert talking.models.asked[0].provider == "anthropic"
    assert '[skill "deploy"] at "skills/deploy"\n| Ships it.' in talking.models.asked[0].system
    talking.models.play([Turn("ok")])
    talking.say(agent, override_system="Only this.")
    assert talking.models.asked[0].system == "Only this."


def test_an_agent_tells_of_its_latest_run(talking: Talking) -> None:  # noqa: F811
    """Strictly parsed by the client; agents are listed by it, and the next run takes its place."""
    client = talking.served.letta()
    rules = [{"type": "requires_approval", "tool_name": "memory_insert"}]
    never, waits, done = (talking.agent(name=name, memory_blocks=HUMAN, tool_rules=rules) for name in "abc")
    assert (never.last_stop_reason, never.last_run_completion, never.pending_approval) == (None, None, None)
    talking.models.play([Turn("fine"), Turn("", calls=[append("x")])])
    talking.say(done)
    talking.say(waits)
    told = client.agents.retrieve(waits.id)
    assert told.last_stop_reason == "requires_approval"
    assert told.pending_approval is not None
    assert told.pending_approval.id == talking.history(waits)[-1].id
    assert told.pending_approval.tool_call.name == "memory_insert"
    (run,) = client.runs.list(agent_id=waits.id)
    assert told.last_run_completion == run.completed_at
    assert told.last_run_duration_ms == run.total_duration_ns // 1_000_000
    assert [one.id for one in client.agents.list(last_stop_reason="end_turn")] == [done.id]
    by_run = [one.id for one in client.agents.list(order_by="last_run_completion", order="asc")]
    assert by_run == [never.id, done.id, waits.id]
    newest = client.agents.list(order_by="last_run_completion", limit=1).items
    assert [one.id for one in newest] == [waits.id]

    talking.models.play([Turn("done")])
    client.agents.messages.create(waits.id, messages=[{"type": "approval", "approve": False}])
    told = client.agents.retrieve(waits.id)
    assert (told.last_stop_reason, told.pending_approval) == ("end_turn", None)
    # while a turn goes on, the latest that is over counts
    first = told.last_run_completion
    ids = {"id": "run-1", "handle": "openai/x"}
    turn = talking.served.vault().begin_turn(waits.id, "default", ids, lambda *_: ([], {}))
    assert client.agents.retrieve(waits.id).last_run_completion == first
    turn.leave()
    assert client.agents.retrieve(waits.id).last_stop_reason == "error"
    client.agents.update(never.id, last_stop_reason="max_steps")
    assert [one.id for one in client.agents.list(last_stop_reason="max_steps")] == [never.id]
