"""What an agent wishes of its model reaches the model, as far as it takes it."""

from __future__ import annotations

from typing import Any

import letta_client
import pytest
from scripted_models import HANDLES, Asked, Turn
from stores import thinned
from turn_fixtures import Talking, talking  # noqa: F401

from tallystone.errors import Invalid
from tallystone.letta import model_options, wire
from tallystone.letta.model import Limits

pytestmark = thinned(
    6,
    "they differ in what a model is asked: the rows are those that test_turns_waiting has",
)

SCHEMA = {
    "type": "json_schema",
    "json_schema": {"name": "mood", "schema": {"type": "object", "properties": {}}},
}


def asked(talking: Talking, model: str, **fields: Any) -> Asked:  # noqa: F811
    """The request that a turn of such an agent makes."""
    agent = talking.agent(model=model, **fields)
    talking.models.play([Turn("x")])
    talking.say(agent)
    return talking.models.asked[0]


def test_the_settings_of_an_agent_reach_openai(talking: Talking) -> None:  # noqa: F811
    settings = {
        "provider_type": "openai",
        "temperature": 0.25,
        "max_output_tokens": 99,
        "parallel_tool_calls": False,
        "response_format": SCHEMA,
    }
    body = asked(talking, HANDLES["openai"], model_settings=settings).body
    assert (body["temperature"], body["max_completion_tokens"]) == (0.25, 99)
    assert (body["parallel_tool_calls"], body["response_format"]) == (False, SCHEMA)
    plain = asked(talking, HANDLES["openai"], name="plain").body
    assert not {"temperature", "parallel_tool_calls", "response_format", "reasoning_effort"} & plain.keys()
    thinks = {"provider_type": "openai", "reasoning": {"reasoning_effort": "low"}}
    assert (
        asked(talking, "openai/gpt-5", name="thinks", model_settings=thinks).body["reasoning_effort"] == "low"
    )


def test_the_settings_of_an_agent_reach_anthropic_and_google(talking: Talking) -> None:  # noqa: F811
    settings = {"provider_type": "anthropic", "temperature": 0.25, "max_output_tokens": 99}
    body = asked(talking, HANDLES["anthropic"], model_settings=settings).body
    assert (body["temperature"], body["max_tokens"]) == (0.25, 99)
    settings |= {"effort": "max", "max_output_tokens": 3000}
    body = asked(talking, "anthropic/claude-opus-4-6", name="b", model_settings=settings).body
    assert (body["thinking"]["type"], body["output_config"], "temperature" in body) == (
        "adaptive",
        {"effort": "max"},
        False,
    )
    settings = {"provider_type": "google_ai", "temperature": 0.25, "max_output_tokens": 99}
    body = asked(talking, HANDLES["google"], name="c", model_settings=settings).body["generationConfig"]
    assert (body["temperature"], body["maxOutputTokens"]) == (0.25, 99)


@pytest.mark.filterwarnings("ignore:The model 'claude:DeprecationWarning")
@pytest.mark.parametrize(("tokens", "budget"), [(4096, 3072), (2000, None)])
def test_thinking_leaves_room_for_the_answer(talking: Talking, tokens: int, budget: int | None) -> None:  # noqa: F811
    """Older models of Anthropic refuse a budget that is as large as the answer may be."""
    settings = {"provider_type": "anthropic", "effort": "high", "max_output_tokens": tokens}
    body = asked(talking, "anthropic/claude-sonnet-4-5", model_settings=settings).body
    assert body["max_tokens"] == tokens
    assert body.get("thinking", {}).get("budget_tokens") == budget


def test_a_conversation_has_settings_of_its_own(talking: Talking) -> None:  # noqa: F811
    agent = talking.agent(model_settings={"provider_type": "openai", "temperature": 0.25})
    client = talking.served.letta()
    made = client.conversations.create(
        agent_id=agent.id, model_settings={"provider_type": "openai", "temperature": 1.5}
    )
    talking.models.play([Turn("x"), Turn("y")])
    talking.served.http().post(f"/v1/conversations/{made.id}/messages", json={"input": "hello"})
    talking.say(agent)
    assert [one.body["temperature"] for one in talking.models.asked] == [1.5, 0.25]


@pytest.mark.parametrize(
    ("state", "conversation", "limits"),
    [
        ({}, {}, Limits()),
        ({"max_tokens": 5, "parallel_tool_calls": False}, {}, Limits(max_tokens=5, parallel=False)),
        ({"max_tokens": 5, "model_settings": {"max_output_tokens": 6}}, {}, Limits(max_tokens=6)),
        ({"max_tokens": 5}, {"model_settings": {"max_output_tokens": 7}}, Limits(max_tokens=7)),
        ({"llm_config": {"temperature": 1, "max_tokens": 8}}, {}, Limits(max_tokens=8, temperature=1.0)),
        ({"enable_reasoner": False, "llm_config": {"reasoning_effort": "high"}}, {}, Limits(thinking=False)),
        ({"llm_config": {"reasoning_effort": "none"}}, {}, Limits(thinking=False)),
        ({"model_settings": {"thinking": {"type": "enabled"}, "effort": "max"}}, {}, Limits(thinking="max")),
        ({"model_settings": {"thinking": {"type": "disabled"}, "effort": "max"}}, {}, Limits(thinking=False)),
        ({"model_settings": {"thinking_config": {"thinking_budget": 0}}}, {}, Limits(thinking=False)),
        ({"response_format": {"type": "json_object"}}, {}, Limits(response_format={"type": "json_object"})),
        (
            {
                "model_settings": "x",
                "max_tokens": -1,
                "llm_config": {"temperature": "hot", "reasoning_effort": []},
            },
            {"model_settings": {"temperature": True, "response_format": {"type": "json_schema"}}},
            Limits(),
        ),
    ],
)
def test_the_nearest_wish_holds(state: dict[str, Any], conversation: dict[str, Any], limits: Limits) -> None:
    assert model_options.limits_of(state, conversation) == limits


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": 3},
        {"temperature": "hot"},
        {"max_output_tokens": 0},
        {"parallel_tool_calls": "no"},
        {"response_format": {"type": "xml"}},
        {"response_format": {"type": "json_schema"}},
    ],
)
def test_a_wish_of_no_known_form_is_refused(talking: Talking, settings: dict[str, Any]) -> None:  # noqa: F811
    with pytest.raises(Invalid):
        model_options.check(settings)
    agent, http = talking.agent(), talking.served.http()
    for answer in (
        http.post("/v1/agents/", json={"model_settings": settings}),
        http.patch(f"/v1/agents/{agent.id}", json={"model_settings": settings}),
        http.post("/v1/conversations/", params={"agent_id": agent.id}, json={"model_settings": settings}),
    ):
        assert answer.status_code == 422
        assert next(iter(settings)) in answer.json()["detail"]


def test_a_model_with_slashes_in_its_name_is_its_providers() -> None:
    config = wire.llm_config({"model": "openrouter/vendor/model:free"})
    assert (config["model_endpoint_type"], config["model"]) == ("openrouter", "vendor/model:free")
    assert wire.llm_config({"model": "google/gemini-2.5-pro"})["model_endpoint_type"] == "google_ai"
    assert wire.llm_config({"model": "mine/x"})["model_endpoint_type"] == "openai"
    bare = wire.llm_config({"model": "gpt-4o"})
    assert (bare["model_endpoint_type"], bare["model"]) == ("openai", "gpt-4o")
    for handle in ("openrouter/a/b", "gpt-4o", "google/x"):
        letta_client.types.LlmConfig.model_validate(wire.llm_config({"model": handle}), strict=True)
