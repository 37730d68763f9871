"""Conversations, pages of messages, search, reset, compaction, archival passages, runs and steps: the real client."""

from __future__ import annotations

import json
from typing import Any

import letta_client
import pytest
from scripted_models import Asked, Call, Turn
from stores import thinned
from test_turns import HUMAN, append, consistent, stop
from turn_fixtures import Talking, talking, types  # noqa: F401

from tallystone.letta.prompt import parse_prompt

pytestmark = thinned(
    3,
    "they differ in what a model is shown: the rows are those that test_turns_waiting has",
)


def echo(asked: Asked) -> Turn:
    return Turn(f"re: {asked.last.text}")


def words(messages: Any) -> list[str]:
    return [one.content for one in messages]


def test_pages_of_messages(talking: Talking) -> None:  # noqa: F811
    agent = talking.agent()
    talking.models.play(echo)
    for number in range(5):
        talking.say(agent, str(number))
    client = talking.served.letta()
    whole = list(client.agents.messages.list(agent.id, order="asc"))
    assert words(whole) == [text for n in range(5) for text in (str(n), f"re: {n}")]
    for limit in (1, 2, 3, 100):
        for order in ("asc", "desc"):
            walked = list(client.agents.messages.list(agent.id, order=order, limit=limit))
            assert words(walked) == words(whole if order == "asc" else whole[::-1])
    middle = whole[4].id
    listing = client.agents.messages.list
    assert words(listing(agent.id, order="asc", before=middle, limit=2).items) == words(whole[2:4])
    assert words(listing(agent.id, order="desc", after=middle, limit=2).items) == words(whole[2:4][::-1])
    assert words(listing(agent.id, order="desc", before=middle, limit=2).items) == words(whole[5:7][::-1])
    assert words(listing(agent.id, order="asc", after=middle, before=whole[8].id).items) == words(whole[5:8])
    assert words(listing(agent.id, order="desc", after=whole[8].id, before=middle).items) == words(
        whole[5:8][::-1]
    )
    with pytest.raises(letta_client.BadRequestError):
        listing(agent.id, after="message-00000000-0000-4000-8000-000000000000")


def test_several_messages_with_one_id_are_one_place(talking: Talking) -> None:  # noqa: F811
    agent = talking.agent(memory_blocks=HUMAN)
    talking.models.play([Turn("Let me see.", thinking="hm", calls=[append("x")]), Turn("Done.")])
    talking.say(agent)
    client = talking.served.letta()
    for order in ("asc", "desc"):
        kinds = types(client.agents.messages.list(agent.id, order=order, limit=1))
        whole = types(client.agents.messages.list(agent.id, order=order))
        assert kinds == whole
    one = client.agents.messages.list(agent.id, order="asc").items[2]
    assert len({part.message_type for part in client.messages.retrieve(one.id)}) == 3


def test_conversations_are_apart(talking: Talking) -> None:  # noqa: F811
    agent = talking.agent(memory_blocks=HUMAN)
    client = talking.served.letta()
    talking.models.play(echo)
    one = client.conversations.create(agent_id=agent.id, summary="about apples", description="d")
    two = client.conversations.create(agent_id=agent.id, summary="about pears")
    talking.say(agent, "default")
    for conversation, text in ((one, "apple"), (two, "pear")):
        with client.conversations.messages.create(conversation.id, input=text) as stream:
            assert types(stream)[0] == "assistant_message"
    assert words(client.conversations.messages.list(one.id, order="asc").items) == ["apple", "re: apple"]
    assert words(client.conversations.messages.list("default", agent_id=agent.id).items)[0] == "re: default"
    assert words(client.agents.messages.list(agent.id, conversation_id=two.id).items)[0] == "re: pear"
    assert [asked.messages[-1].text for asked in talking.models.asked] == ["default", "apple", "pear"]
    assert all(len([m for m in asked.messages if m.role == "user"]) == 1 for asked in talking.models.asked)
    assert [c.id for c in client.conversations.list(agent_id=agent.id)] == [two.id, one.id]
    assert [c.id for c in client.conversations.list(agent_id=agent.id, after=two.id)] == [one.id]
    assert [c.id for c in client.conversations.list(summary_search="APPLE")] == [one.id]
    client.conversations.update(one.id, archived=True, summary="done")
    assert [c.id for c in client.conversations.list(agent_id=agent.id)] == [two.id]
    assert [c.id for c in client.conversations.list(archive_status="archived")] == [one.id]
    assert client.conversations.retrieve(one.id).summary == "done"
    assert words(client.messages.list())[:2] == ["re: pear", "pear"]
    client.conversations.delete(two.id)
    with pytest.raises(letta_client.NotFoundError):
        client.conversations.retrieve(two.id)
    with pytest.raises(letta_client.NotFoundError):
        client.conversations.messages.list(two.id)
    assert "pear" not in words(client.messages.list())


def test_a_fork_goes_its_own_way(talking: Talking) -> None:  # noqa: F811
    agent = talking.agent()
    client = talking.served.letta()
    talking.models.play(echo)
    talking.say(agent, "one")
    until = talking.history(agent)[-1].id
    talking.say(agent, "two")
    whole = client.conversations.fork("default", agent_id=agent.id)
    part = client.conversations.fork("default", agent_id=agent.id, message_id=until)
    assert words(client.conversations.messages.list(whole.id, order="asc").items) == [
        "one",
        "re: one",
        "two",
        "re: two",
    ]
    assert words(client.conversations.messages.list(part.id, order="asc").items) == ["one", "re: one"]
    list(client.conversations.messages.create(part.id, input="three"))
    assert [m.text for m in talking.models.asked[-1].messages if m.role == "user"] == ["one", "three"]
    assert words(talking.history(agent)) == ["one", "re: one", "two", "re: two"]
    again = client.conversations.fork(part.id)
    assert words(client.conversations.messages.list(again.id).items)[0] == "re: three"


def test_search_finds_words_in_all_that_was_said(talking: Talking) -> None:  # noqa: F811
    agent, other = talking.agent(), talking.agent()
    client = talking.served.letta()
    talking.models.play(echo)
    talking.say(agent, "The harbour closes at nine")
    talking.say(other, "The harbour is open")
    found = client.messages.search(query="HARBOUR nine")
    assert {one.message_type for one in found} == {"user_message", "assistant_message"}
    assert {one.agent_id for one in found} == {agent.id}
    assert {one.agent_id for one in client.messages.search(query="harb")} == {agent.id, other.id}
    assert client.messages.search(query="harbour", agent_id=other.id, limit=1)[0].content.startswith("re:")
    assert client.messages.search(query="harbour", end_date="2000-01-01") == []
    with pytest.raises(letta_client.BadRequestError):
        client.messages.search(query="x", search_mode="vector")
    talking.models.play(
        [Turn("", calls=[Call("conversation_search", {"query": "closes", "roles": ["user"]})]), Turn("nine")]
    )
    talking.say(agent, "when?")
    assert "closes at nine" in talking.models.asked[1].results[0]
    assert "is open" not in talking.models.asked[1].results[0]


def test_reset_forgets_and_keeps_blocks(talking: Talking) -> None:  # noqa: F811
    agent = talking.agent(memory_blocks=HUMAN)
    client = talking.served.letta()
    talking.models.play([Turn("", calls=[append("kept")]), Turn("done"), Turn("hello again")])
    talking.say(agent)
    state = client.agents.messages.reset(agent.id)
    assert state.id == agent.id
    assert talking.history(agent) == []
    assert talking.served.vault().agent_block(agent.id, "human").value.endswith("kept")
    talking.say(agent, "anew")
    assert words(talking.history(agent)) == ["anew", "hello again"]
    assert len([m for m in talking.models.asked[-1].messages if m.role == "user"]) == 1


def test_a_long_conversation_is_summed_up(talking: Talking) -> None:  # noqa: F811
    agent = talking.agent(context_window_limit=3000)
    client = talking.served.letta()

    def script(asked: Asked) -> Turn:
        if "Sum up" in asked.system:
            return Turn("They spoke of apples.", usage=(50, 5))
        return Turn("word " * 200, usage=(100, 5))

    talking.models.play(script)
    for number in range(12):
        assert stop(talking.say(agent, f"{number} " + "talk " * 200)) == "end_turn"
    summaries = [asked for asked in talking.models.asked if "Sum up" in asked.system]
    assert summaries
    last = talking.models.asked[-1]
    assert "They spoke of apples." in last.messages[0].text or "apples" in str(last.body)
    assert len(last.messages) < 12
    listed = talking.history(agent)
    assert sum(one.message_type == "user_message" for one in listed) == 12
    assert "summary_message" in types(listed)
    before = len(listed)
    done = client.agents.messages.compact(agent.id)
    assert done.summary == "They spoke of apples."
    assert done.num_messages_after < done.num_messages_before
    assert len(talking.history(agent)) == before + 1
    talking.say(agent, "and now?")
    assert len([m for m in talking.models.asked[-1].messages if m.role == "user"]) <= 2


def test_a_model_that_finds_it_too_long_is_asked_again_with_less(talking: Talking) -> None:  # noqa: F811
    agent = talking.agent(context_window_limit=200_000)
    talking.models.play(echo)
    for number in range(6):
        talking.say(agent, f"{number}")
    tries: list[int] = []

    def script(asked: Asked) -> Turn:
        if "Sum up" in asked.system:
            return Turn("short")
        tries.append(len(asked.messages))
        if len(tries) == 1:
            return Turn(status=400, error="This model's maximum context length is 10 tokens")
        return Turn("fits")

    talking.models.play(script)
    answer = talking.say(agent, "last")
    assert stop(answer) in ("end_turn", "context_window_overflow_in_system_prompt")
    assert consistent(talking.history(agent))


def test_archival_passages(talking: Talking) -> None:  # noqa: F811
    agent = talking.agent(tools=["archival_memory_insert", "archival_memory_search"])
    client = talking.served.letta()
    (first,) = client.agents.passages.create(agent.id, text="The harbour is blue", tags=["place"])
    client.agents.passages.create(agent.id, text="The hill is green", tags=["place", "high"])
    assert [one.text for one in client.agents.passages.list(agent.id)] == [
        "The harbour is blue",
        "The hill is green",
    ]
    assert [one.text for one in client.agents.passages.list(agent.id, search="HILL")] == ["The hill is green"]
    assert [one.text for one in client.agents.passages.list(agent.id, after=first.id)] == [
        "The hill is green"
    ]
    assert client.agents.passages.search(agent.id, query="is", tags=["high"]).count == 1
    assert (
        client.agents.passages.search(
            agent.id, query="is", tags=["high", "place"], tag_match_mode="all"
        ).count
        == 1
    )
    assert client.passages.search(agent_id=agent.id, query="blue")[0].passage.id == first.id
    talking.models.play(
        [
            Turn("", calls=[Call("archival_memory_insert", {"content": "The sea is deep"})]),
            Turn("", calls=[Call("archival_memory_search", {"query": "sea"})]),
            Turn("ok"),
        ]
    )
    talking.say(agent)
    assert "The sea is deep" in talking.models.asked[2].results[-1]
    client.agents.passages.delete(first.id, agent_id=agent.id)
    assert len(client.agents.passages.list(agent.id)) == 2
    with pytest.raises(letta_client.NotFoundError):
        client.agents.passages.delete(first.id, agent_id=agent.id)


def test_runs_and_steps_are_listed(talking: Talking) -> None:  # noqa: F811
    agent = talking.agent(memory_blocks=HUMAN)
    client = talking.served.letta()
    talking.models.play([Turn("", calls=[append("x")]), Turn("done"), Turn("more")])
    first, second = (talking.say(agent).usage.run_ids[0] for _ in range(2))
    assert [run.id for run in client.runs.list(agent_id=agent.id)] == [second, first]
    assert [run.id for run in client.runs.list(agent_ids=[agent.id], order="asc", limit=1)] == [first, second]
    assert [run.id for run in client.runs.list(statuses=["failed"])] == []
    assert {run.id for run in client.runs.list(stop_reason="end_turn")} == {first, second}
    steps = list(client.steps.list(agent_id=agent.id, order="asc"))
    assert [step.run_id for step in steps] == [first, first, second]
    step = client.steps.retrieve(steps[0].id)
    assert (step.model, step.provider_name, step.total_tokens) == ("scripted-1", "openai", 18)
    assert types(client.steps.messages.list(step.id).items) == ["tool_call_message", "tool_return_message"]
    assert client.steps.feedback.create(step.id, feedback="positive").feedback == "positive"
    assert [one.id for one in client.steps.list(feedback="positive")] == [step.id]
    assert [one.id for one in client.steps.list(has_feedback=False, order="asc")] == [
        one.id for one in steps[1:]
    ]


def test_recompile_shows_the_prompt_of_now(talking: Talking) -> None:  # noqa: F811
    agent = talking.agent(memory_blocks=HUMAN, system="Be kind.")
    client = talking.served.letta()
    text = client.agents.recompile(agent.id)
    parsed = parse_prompt(json.loads(text))
    assert parsed.instructions == "Be kind."
    assert [block.value for block in parsed.blocks] == ["Name: unknown"]
    talking.served.vault().edit_agent_block(agent.id, "human", lambda block: {"value": "Name: Ada"})
    assert "| Name: Ada" in client.agents.recompile(agent.id, dry_run=True)
    talking.models.play([Turn("ok")])
    talking.say(agent)
    assert "| Name: Ada" in talking.models.asked[0].system


def test_a_read_token_reads_and_never_talks(talking: Talking) -> None:  # noqa: F811
    agent = talking.agent(memory_blocks=HUMAN)
    talking.models.play([Turn("hello")])
    talking.say(agent)
    reader = talking.served.letta(talking.served.vault().create_token(scope="read"))
    assert words(reader.agents.messages.list(agent.id).items)[0] == "hello"
    assert reader.messages.search(query="hello")
    for call in (
        lambda: reader.agents.messages.create(agent.id, input="hi"),
        lambda: reader.agents.messages.reset(agent.id),
        lambda: reader.agents.messages.cancel(agent.id),
        lambda: reader.conversations.create(agent_id=agent.id),
        lambda: reader.agents.passages.create(agent.id, text="x"),
    ):
        with pytest.raises(letta_client.PermissionDeniedError):
            call()
