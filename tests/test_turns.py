"""Turns over HTTP with the real client and scripted models: what is said, what is kept, how each ends."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import letta_client
import pytest
from scripted_models import HANDLES, Asked, Call, Turn
from stores import thinned
from turn_fixtures import Talking, talking, types  # noqa: F401

from tallystone.errors import Conflict
from tallystone.letta.prompt import parse_prompt
from tallystone.store.tables import ENTRY
from tallystone.vault import Vault, turns

pytestmark = thinned(
    3,
    "they differ in what happens in a turn: the rows are those that test_turns_waiting has",
)

HUMAN = [{"label": "human", "value": "Name: unknown"}]
RENAME = Call("memory_replace", {"label": "human", "old_string": "unknown", "new_string": "Ada"})


def append(text: str, label: str = "human") -> Call:
    return Call("memory_insert", {"label": label, "new_string": text})


def stop(answer: Any) -> str:
    return str(answer.stop_reason.stop_reason)


def consistent(messages: list[Any]) -> bool:
    """Whether each tool call has exactly one return, after it."""
    called: list[str] = []
    for message in messages:
        if message.message_type in ("tool_call_message", "approval_request_message"):
            called += [call.tool_call_id for call in message.tool_calls]
        elif message.message_type == "tool_return_message":
            called.remove(message.tool_call_id)
    return called == []


@pytest.mark.parametrize("provider", HANDLES)
def test_a_turn_calls_the_model_runs_its_tool_and_is_listed(talking: Talking, provider: str) -> None:  # noqa: F811
    agent = talking.agent(model=HANDLES[provider], memory_blocks=HUMAN, system="Be kind.")
    talking.models.play([Turn("", calls=[RENAME]), Turn("Hello Ada.", thinking="Say hello.")])
    answer = talking.say(agent, "I am Ada.")
    assert [kind for kind in types(answer.messages) if kind != "reasoning_message"] == [
        "tool_call_message",
        "tool_return_message",
        "assistant_message",
    ]
    assert stop(answer) == "end_turn"
    usage = answer.usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens, usage.step_count) == (
        22,
        14,
        36,
        2,
    )
    returned = next(one for one in answer.messages if one.message_type == "tool_return_message")
    assert (returned.status, returned.name) == ("success", "memory_replace")
    assert answer.messages[-1].content == "Hello Ada."
    client = talking.served.letta()
    assert client.agents.blocks.retrieve("human", agent_id=agent.id).value == "Name: Ada"
    listed = talking.history(agent)
    assert types(listed) == ["user_message", *types(answer.messages)]
    assert [one.id for one in listed[1:]] == [one.id for one in answer.messages]
    assert listed[0].content == "I am Ada."
    first, second = (parse_prompt(asked.system) for asked in talking.models.asked)
    assert [block.value for block in first.blocks] == ["Name: unknown"]
    assert [block.value for block in second.blocks] == ["Name: Ada"]
    assert first.instructions == "Be kind."
    assert second.blocks[0].writer == "you"
    run = client.runs.retrieve(usage.run_ids[0])
    assert (run.status, run.stop_reason, run.agent_id) == ("completed", "end_turn", agent.id)
    steps = client.runs.steps.list(run.id, order="asc").items
    assert [step.total_tokens for step in steps] == [18, 18]
    assert talking.served.workspace.verify().findings == []


def test_a_stream_is_what_the_history_says(talking: Talking) -> None:  # noqa: F811
    agent = talking.agent(memory_blocks=HUMAN)
    for options in ({}, {"stream_tokens": True}):
        talking.models.play([Turn("", calls=[append("x")]), Turn(["Hel", "lo ", "Ada."])])
        with talking.served.letta().agents.messages.create(
            agent.id, input="hi", streaming=True, **options
        ) as stream:
            events = list(stream)
        kinds = types(events)
        assert kinds[-2:] == ["stop_reason", "usage_statistics"]
        assert events[-1].step_count == 2
        said = [one for one in events if one.message_type == "assistant_message"]
        assert "".join(one.content for one in said) == "Hello Ada."
        assert (len(said) > 1) == bool(options)
        assert len({one.id for one in said}) == 1
        assert kinds.count("tool_call_message") == kinds.count("tool_return_message") == 1
        listed = talking.history(agent)
        assert {one.id for one in said} == {listed[-1].id}
        assert listed[-1].content == "Hello Ada."
    talking.models.play([Turn("again")])
    with pytest.warns(DeprecationWarning):
        stream = talking.served.letta().agents.messages.stream(agent.id, input="hi")
    with stream:
        assert [one.content for one in stream if one.message_type == "assistant_message"] == ["again"]


def test_the_wire_of_a_stream_has_no_event_names(talking: Talking) -> None:  # noqa: F811
    agent = talking.agent()
    talking.models.play([Turn("Hello.")])
    with talking.served.http().stream(
        "POST", f"/v1/agents/{agent.id}/messages", json={"input": "hi", "streaming": True}
    ) as answer:
        text = answer.read().decode()
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert text.endswith("data: [DONE]\n\n")
    lines = [line for line in text.split("\n") if line]
    assert all(line.startswith(("data: ", ":")) for line in lines)
    assert json.loads(lines[0][6:])["seq_id"] == 1


def test_a_change_by_one_agent_is_in_anothers_next_step(talking: Talking) -> None:  # noqa: F811
    vault = talking.served.vault()
    team = vault.create_block(label="team", value="standup at nine")
    one, other = talking.agent(block_ids=[team.id]), talking.agent(block_ids=[team.id])

    def script(asked: Asked) -> Turn:
        if asked.last.text == "reader":
            # while this step is thought about, the other agent has a whole turn
            assert stop(talking.say(other, "writer")) == "end_turn"
            return Turn("", calls=[Call("conversation_search", {"query": "x"})])
        if asked.last.text == "writer":
            return Turn("", calls=[append("standup at ten", "team")])
        return Turn("done")

    talking.models.play(script)
    assert stop(talking.say(one, "reader")) == "end_turn"
    values = [parse_prompt(asked.system).blocks[0].value for asked in talking.models.asked]
    assert values[0] == "standup at nine"
    assert values[-1] == "standup at nine\nstandup at ten"
    assert parse_prompt(talking.models.asked[-1].system).blocks[0].writer == other.id


@pytest.mark.parametrize("how", ["detach", "delete", "revoke"])
def test_a_block_that_was_lost_in_a_step_is_not_in_the_next_prompt(talking: Talking, how: str) -> None:  # noqa: F811
    owner = talking.served.vault()
    bob_token = talking.served.add_user("bob")
    secret = owner.create_block(label="secret", value="the launch code")
    owner.share(secret.id, "bob", "read")
    bob = talking.served.vault(bob_token)
    bob.accept_offer(secret.id)
    client = talking.served.letta(bob_token)
    agent = client.agents.create(
        name="b", model=HANDLES["openai"], block_ids=[secret.id], memory_blocks=HUMAN
    )

    def script(asked: Asked) -> Turn:
        if len(talking.models.asked) > 1:
            return Turn("gone")
        if how == "detach":
            bob.detach(agent.id, secret.id)
        elif how == "delete":
            owner.delete_block(secret.id)
        else:
            owner.revoke(secret.id, "bob")
        return Turn("", calls=[append("x", "secret"), append("y")])

    talking.models.play(script)
    answer = client.agents.messages.create(agent.id, input="hi")
    assert stop(answer) == "end_turn"
    first, second = talking.models.asked
    assert "the launch code" in first.system
    assert "launch code" not in json.dumps(second.body)
    assert [block.label for block in parse_prompt(second.system).blocks] == ["human"]
    returns = [one for one in answer.messages if one.message_type == "tool_return_message"]
    assert [one.status for one in returns] == ["error", "success"]


def test_twelve_agents_share_one_queue(talking: Talking) -> None:  # noqa: F811
    """Each adds a task, then claims one by an exact replacement: each claim once, no line lost, no conflict seen."""
    vault = talking.served.vault()
    queue = vault.create_block(label="queue", value="\n".join(f"open {n:02}" for n in range(12)))
    agents = [talking.agent(name=f"worker {n:02}", block_ids=[queue.id]) for n in range(12)]

    def script(asked: Asked) -> Turn:
        """One append, then claims until one succeeds."""
        name = next(message.text for message in asked.messages if message.role == "user")
        block = parse_prompt(asked.system).blocks[0].value
        if f"seen by {name}" not in block:
            return Turn("", calls=[append(f"seen by {name}", "queue")])
        if f"done by {name}" in block:
            return Turn("finished")
        task = next(line for line in block.split("\n") if line.startswith("open"))
        new = f"{task[5:]} done by {name}"
        return Turn(
            "", calls=[Call("memory_replace", {"label": "queue", "old_string": task, "new_string": new})]
        )

    talking.models.play(script)
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda agent: talking.say(agent, agent.name), agents))
    assert [stop(answer) for answer in answers] == ["end_turn"] * 12
    lines = vault.block(queue.id).value.split("\n")
    assert sum(line.startswith("seen by") for line in lines) == 12
    done = [line for line in lines if "done by" in line]
    assert len(done) == len({line[:2] for line in done}) == 12
    assert {line.partition("done by ")[2] for line in done} == {agent.name for agent in agents}
    heard = json.dumps([asked.results for asked in talking.models.asked]).lower()
    assert "conflict" not in heard
    assert "409" not in heard
    assert all(consistent(talking.history(agent)) for agent in agents)


def test_a_second_turn_waits_and_then_is_refused(talking: Talking, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    agent, asking, gate = talking.agent(), threading.Event(), threading.Event()
    begin, refusing = Vault.begin_turn, threading.Event()

    def script(asked: Asked) -> Turn:
        if asked.last.text == "slow":
            asking.set()
            gate.wait(30)
        return Turn("done")

    def watched(vault: Vault, *order: Any) -> Any:
        try:
            return begin(vault, *order)
        except Conflict:
            refusing.set()
            raise

    monkeypatch.setattr(Vault, "begin_turn", watched)
    talking.models.play(script)
    with ThreadPoolExecutor(2) as pool:
        slow = pool.submit(talking.say, agent, "slow")
        assert asking.wait(30)
        monkeypatch.setattr("tallystone.letta.talking.WAIT_SECONDS", 0.3)
        with pytest.raises(letta_client.ConflictError) as refused:
            talking.say(agent, "second")
        assert refused.value.body["error"]["code"] == "agent_busy"
        assert "x-should-retry" not in refused.value.response.headers
        monkeypatch.setattr("tallystone.letta.talking.WAIT_SECONDS", 20)
        refusing.clear()
        waiting = pool.submit(talking.say, agent, "third")
        assert refusing.wait(30)
        assert not waiting.done()
        gate.set()
        assert [stop(slow.result()), stop(waiting.result())] == ["end_turn", "end_turn"]
    said = [one.content for one in talking.history(agent)]
    assert said == ["slow", "done", "third", "done"]


def test_a_turn_can_be_cancelled(talking: Talking) -> None:  # noqa: F811
    agent, asking, gate = talking.agent(memory_blocks=HUMAN), threading.Event(), threading.Event()
    client = talking.served.letta()

    def script(asked: Asked) -> Turn:
        if len(talking.models.asked) > 1:
            asking.set()
            gate.wait(30)
        return Turn("", calls=[append("x")])

    talking.models.play(script)
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(talking.say, agent, "work")
        assert asking.wait(30)
        (run,) = client.runs.list(agent_id=agent.id, active=True).items
        assert run.status == "running"
        answered = client.agents.messages.cancel(agent.id)
        assert answered == {run.id: "cancelled"}
        answer = slow.result(10)
        gate.set()
    assert stop(answer) == "cancelled"
    assert client.runs.retrieve(run.id).status == "cancelled"
    assert consistent(talking.history(agent))
    talking.models.play([Turn("fine")])
    assert stop(talking.say(agent, "again")) == "end_turn"
    assert client.agents.messages.cancel(agent.id) == {}


def test_a_turn_goes_on_when_its_client_hangs_up(talking: Talking) -> None:  # noqa: F811
    agent, gate = talking.agent(memory_blocks=HUMAN), threading.Event()

    def script(asked: Asked) -> Turn:
        if asked.results:
            gate.wait(10)
            return Turn("done")
        return Turn("", calls=[append("x")])

    talking.models.play(script)
    with talking.served.http().stream(
        "POST", f"/v1/agents/{agent.id}/messages", json={"input": "hi", "streaming": True}
    ) as answer:
        next(answer.iter_lines())
    client = talking.served.letta()
    (run,) = client.runs.list(agent_id=agent.id).items
    gate.set()
    with client.runs.messages.stream(run.id) as rest:
        list(rest)  # to the run's end
    assert types(talking.history(agent)) == [
        "user_message",
        "tool_call_message",
        "tool_return_message",
        "assistant_message",
    ]
    assert client.runs.retrieve(run.id).stop_reason == "end_turn"


def test_a_repeated_request_starts_no_second_turn(talking: Talking) -> None:  # noqa: F811
    agent = talking.agent()
    talking.models.play([Turn("first"), Turn("second")])
    http, body = talking.served.http(), {"input": "hi"}
    path = f"/v1/agents/{agent.id}/messages"
    first = http.post(path, json=body)
    again = http.post(path, json=body, headers={"x-stainless-retry-count": "1"})
    assert again.json() == first.json()
    assert len(talking.models.asked) == 1
    other = http.post(path, json=body)
    assert other.json()["messages"][0]["content"] == "second"


def test_a_run_in_the_background(talking: Talking) -> None:  # noqa: F811
    agent = talking.agent()
    client = talking.served.letta()
    talking.models.play([Turn("done", delay=0.2)])
    run = client.agents.messages.create_async(agent.id, input="hi")
    assert (run.status, run.background) == ("running", True)
    with client.runs.messages.stream(run.id) as stream:
        events = list(stream)
    assert types(events) == ["assistant_message", "stop_reason", "usage_statistics"]
    assert client.runs.retrieve(run.id).status == "completed"
    assert types(client.runs.messages.list(run.id, order="asc").items) == [
        "user_message",
        "assistant_message",
    ]
    assert client.runs.usage.retrieve(run.id).total_tokens == 18


def test_after_a_crash_the_run_failed_and_the_next_message_goes_on(talking: Talking) -> None:  # noqa: F811
    agent = talking.agent(memory_blocks=HUMAN)
    vault = talking.served.vault()
    call = {"id": "call_1", "name": "memory_insert", "arguments": "{}"}
    said = [
        {"id": "message-1", "role": "user", "date": 1, "text": "hi", "given": True, "run": "run-1"},
        {"id": "message-2", "role": "assistant", "date": 2, "text": "", "calls": [call], "run": "run-1"},
    ]
    run = "run-00000000-0000-4000-8000-000000000001"
    # what a process that died in the middle of a tool call left behind
    vault.begin_turn(agent.id, "default", {"id": run, "handle": "openai/x"}, lambda *_: (said, {})).leave()
    client = talking.served.letta()
    assert client.runs.retrieve(run).status == "failed"
    assert client.runs.list(agent_id=agent.id, active=True).items == []
    talking.models.play([Turn("I see.")])
    assert stop(talking.say(agent, "go on")) == "end_turn"
    assert consistent(talking.history(agent))
    (asked,) = talking.models.asked
    assert asked.results == ["This call was interrupted; whether it took effect is not known."]
    assert client.runs.retrieve(run).status == "failed"


def test_a_lease_of_a_process_that_nobody_can_ask_runs_out(
    talking: Talking,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    agent = talking.agent()
    vault, begun = talking.served.vault(), {"id": "run-1", "handle": "x"}
    monkeypatch.setattr(turns, "this_process", lambda: "elsewhere 1 2")
    turn = vault.begin_turn(agent.id, "default", begun, lambda *_: ([], {}))
    monkeypatch.undo()
    with pytest.raises(turns.Conflict):
        vault.begin_turn(agent.id, "default", {"id": "run-2", "handle": "x"}, lambda *_: ([], {}))
    clock = talking.served.workspace.clock
    talking.served.workspace.clock = lambda: clock() + turns.LEASE_SECONDS + 1
    vault.begin_turn(agent.id, "default", {"id": "run-3", "handle": "x"}, lambda *_: ([], {}))
    with pytest.raises(turns.Conflict) as lost:
        turn.write([{"id": "message-9", "role": "user", "date": 1, "text": "late"}])
    assert lost.value.code == "lease_lost"


def test_no_model_is_a_400_and_nothing_is_kept(talking: Talking) -> None:  # noqa: F811
    for model in ("nobody/x", "not a handle"):
        agent = talking.agent(model=model)
        with pytest.raises(letta_client.BadRequestError) as refused:
            talking.say(agent)
        assert refused.value.body["error"]["code"] == "no_model"
        assert refused.value.body["error"]["hint"]
        assert talking.history(agent) == []


def test_an_agents_own_token_talks_as_itself_alone(talking: Talking) -> None:  # noqa: F811
    agent, other = talking.agent(memory_blocks=HUMAN), talking.agent()
    token = talking.served.vault().agent_token(agent.id)
    talking.models.play([Turn("", calls=[RENAME]), Turn("hello"), Turn("other")])
    mine = talking.served.letta(token)
    assert stop(mine.agents.messages.create(agent.id, input="hi")) == "end_turn"
    assert types(mine.agents.messages.list(agent.id).items)[0] == "assistant_message"
    talking.say(other)
    assert {run.agent_id for run in mine.runs.list().items} == {agent.id}
    assert [one.agent_id for one in mine.messages.search(query="other")] == []
    for call in (
        lambda: mine.agents.messages.create(other.id, input="hi"),
        lambda: mine.agents.messages.list(other.id),
        lambda: mine.agents.messages.reset(other.id),
    ):
        with pytest.raises(letta_client.NotFoundError):
            call()


def test_a_deleted_agent_leaves_nothing(talking: Talking) -> None:  # noqa: F811
    with talking.served.workspace.store.snapshot() as snapshot:
        before = list(snapshot.rows(ENTRY))  # the index of names
    agent = talking.agent(memory_blocks=HUMAN)
    client = talking.served.letta()
    conversation = client.conversations.create(agent_id=agent.id)
    talking.models.play([Turn("", calls=[RENAME]), Turn("hello"), Turn("there")])
    talking.say(agent)
    client.agents.passages.create(agent.id, text="kept")
    list(client.conversations.messages.create(conversation.id, input="hi"))
    with talking.served.workspace.store.snapshot() as snapshot:
        assert len(list(snapshot.rows(ENTRY))) > 10
    client.agents.delete(agent.id)
    with talking.served.workspace.store.snapshot() as snapshot:
        assert list(snapshot.rows(ENTRY)) == before
    assert talking.served.workspace.verify().findings == []
