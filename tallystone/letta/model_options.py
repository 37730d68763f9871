"""What an agent or a conversation wishes of its model: temperature, tokens, parallel calls, thinking, a form. Pure.

Clients say it in four places, and the nearest one that says something holds: `model_settings` of the conversation,
those of the agent, the agent's own fields, its `llm_config`. Providers spell thinking differently; here it is one of:
not said, off, on, or an effort. What is of no known form is passed over where it was stored, and refused where it comes
in.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tallystone.errors import Invalid
from tallystone.letta.model import EFFORTS, Limits, Thinking

Fields = Mapping[str, Any]
HOTTEST = 2.0
"""The highest temperature that any provider knows."""


def limits_of(state: Fields, conversation: Fields) -> Limits:
    """The limits of an agent's (`state`) call in a conversation (its record)."""
    places = [
        _mapping(conversation.get("model_settings")),
        _mapping(state.get("model_settings")),
        state,
        _mapping(state.get("llm_config")),
    ]
    return Limits(
        max_tokens=_first(_tokens(place) for place in places),
        temperature=_first(_temperature(place) for place in places),
        parallel=_first(_flag(place, "parallel_tool_calls") for place in places) is not False,
        thinking=_first(_thinking(place) for place in places),
        response_format=_first(_form(place) for place in places),
    )


def check(settings: Fields | None, response_format: Any = None) -> None:
    """Raise `Invalid` (422) for `model_settings` or a `response_format` that could not be passed on."""
    given = {**_mapping(settings), **({"response_format": response_format} if response_format else {})}
    for name, read, form in (
        ("temperature", _temperature, f"a number from 0 to {HOTTEST:g}"),
        ("max_output_tokens", _tokens, "a whole number of 1 or more"),
        ("parallel_tool_calls", lambda one: _flag(one, "parallel_tool_calls"), "true or false"),
        ("response_format", _form, "of type text, json_object, or json_schema with a json_schema"),
    ):
        if given.get(name) is not None and read({name: given[name]}) is None:
            raise Invalid(f"{name} should be {form}", hint="or leave it out")


def _mapping(value: Any) -> Fields:
    return value if isinstance(value, dict) else {}


def _first(values: Iterator[Any]) -> Any:
    return next((value for value in values if value is not None), None)


def _flag(place: Fields, name: str) -> bool | None:
    value = place.get(name)
    return value if isinstance(value, bool) else None


def _tokens(place: Fields) -> int | None:
    for name in ("max_output_tokens", "max_tokens"):
        value = place.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    return None


def _temperature(place: Fields) -> float | None:
    value = place.get("temperature")
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= HOTTEST:
        return float(value)
    return None


def _form(place: Fields) -> Fields | None:
    form = _mapping(place.get("response_format"))
    if form.get("type") == "json_schema" and isinstance(form.get("json_schema"), dict):
        return {"type": "json_schema", "json_schema": form["json_schema"]}
    return {"type": form["type"]} if form.get("type") in ("text", "json_object") else None


def _thinking(place: Fields) -> Thinking | None:
    effort = _mapping(place.get("reasoning")).get("reasoning_effort") or place.get("reasoning_effort")
    if effort == "none":
        return False
    if effort in EFFORTS:
        return str(effort)
    switch = _mapping(place.get("thinking")).get("type")
    if switch == "disabled":
        return False
    if place.get("effort") in EFFORTS:
        return str(place["effort"])
    if switch == "enabled":
        return True
    budget = _mapping(place.get("thinking_config")).get("thinking_budget")
    if isinstance(budget, int):
        return budget != 0
    return _flag(place, "enable_reasoner")
