"""`/v1/runs/…` and `/v1/steps/…`: what `client.runs` and `client.steps` call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tallystone.letta import bodies, turn_bodies, turn_json
from tallystone.letta.call import Answer, Call, check_id
from tallystone.letta.later import Later, Streamed, UnderWay
from tallystone.letta.messages import PLAIN, typed
from tallystone.letta.paging import Page, page, window
from tallystone.letta.routes_messages import dates, typed_page
from tallystone.letta.sse import Replay
from tallystone.letta.turn_record import InThread
from tallystone.vault.merging import Where


def _page(call: Call) -> Page:
    order = "asc" if call.query.flag("ascending") else "desc"
    return page(call.query, limit=100, order=order)


def _listed(
    call: Call,
    read: Callable[..., list[dict[str, Any]]],
    where: Where,
    as_json: Callable[[Any], dict[str, Any]],
) -> Answer:
    """A page of what `read` (the vault's) finds of the agent that is asked about, or of all."""
    wanted = _page(call)
    found = read(
        _agent(call),
        where,
        after=wanted.after,
        before=wanted.before,
        limit=wanted.limit,
        reverse=wanted.reverse,
    )
    return Answer([as_json(one) for one in found])


def _agent(call: Call) -> str | None:
    agent_id = call.query.text("agent_id")
    return check_id("agent", agent_id) if agent_id is not None else None


def list_(call: Call) -> Answer:
    """`GET /v1/runs/`: newest first."""
    query = call.query
    agents, statuses = set(query.texts("agent_ids")), set(query.texts("statuses"))
    active, background = query.flag("active", False), query.flag("background")
    conversation, reason = query.text("conversation_id"), query.text("stop_reason")

    def where(run: Any) -> bool:
        return (
            (not agents or run["agent"] in agents)
            and (not statuses or run["status"] in statuses)
            and (not active or run["status"] == "running")
            and (background is None or run.get("background", False) == background)
            and (conversation is None or run["conversation"] == conversation)
            and (reason is None or run.get("stop_reason") == reason)
        )

    return _listed(call, call.vault.runs, where, turn_json.run_json)


def retrieve(call: Call) -> Answer:
    """`GET /v1/runs/{run_id}`."""
    return Answer(turn_json.run_json(call.vault.run(call.id("run"))))


def messages(call: Call) -> Answer:
    """`GET /v1/runs/{run_id}/messages`: what was written down in it, newest first."""
    wanted = page(call.query, limit=100, order="desc")
    found = window(call.vault.run_messages(call.id("run")), wanted, lambda one: one["id"])
    return Answer(typed_page(found, PLAIN, wanted.reverse))


def steps(call: Call) -> Answer:
    """`GET /v1/runs/{run_id}/steps`."""
    found = window(call.vault.run_steps(call.id("run")), _page(call), lambda one: one["id"])
    return Answer([turn_json.step_json(one) for one in found])


def usage(call: Call) -> Answer:
    """`GET /v1/runs/{run_id}/usage`."""
    used = turn_json.usage(call.vault.run(call.id("run")))
    return Answer(
        {
            "prompt_tokens": used["prompt_tokens"],
            "completion_tokens": used["completion_tokens"],
            "total_tokens": used["total_tokens"],
            "prompt_tokens_details": {"cached_tokens": used["cached_input_tokens"]},
            "completion_tokens_details": {"reasoning_tokens": used["reasoning_tokens"]},
        }
    )


def stream(call: Call) -> Later:
    """`POST /v1/runs/{run_id}/stream`: a run's events from its beginning, or beyond `starting_after`."""
    return resumed(call, call.id("run", "path_run_id"), bodies.decode(call.body, turn_bodies.StreamRun))


def resumed(call: Call, run: str, body: turn_bodies.StreamRun) -> Later:
    """The events of a run that began with another request."""
    call.vault.run(run)

    async def finish(in_thread: InThread, under_way: UnderWay) -> Answer:
        replay = Replay(call.vault, run, PLAIN, False, in_thread, body.starting_after or 0)
        return Streamed(None, events=replay.events(pings=body.include_pings is not False))

    return Later(finish)


# -- steps ------------------------------------------------------------------------------------------------------


def list_steps(call: Call) -> Answer:
    """`GET /v1/steps/`: newest first."""
    query = call.query
    model, feedback, has = query.text("model"), query.text("feedback"), query.flag("has_feedback")
    tags, dated = set(query.texts("tags")), dates(query.text("start_date"), query.text("end_date"))
    nothing = bool(query.texts("trace_ids")) or query.text("project_id") is not None

    def where(step: Any) -> bool:
        return (
            not nothing
            and (model is None or model in (step["handle"], step["handle"].partition("/")[2]))
            and (feedback is None or step.get("feedback") == feedback)
            and (has is None or (step.get("feedback") is not None) == has)
            and (not tags or not tags.isdisjoint(step.get("tags") or ()))
            and dated(step["created"])
        )

    return _listed(call, call.vault.steps, where, turn_json.step_json)


def retrieve_step(call: Call) -> Answer:
    """`GET /v1/steps/{step_id}`."""
    return Answer(turn_json.step_json(call.vault.step(call.id("step"))))


def step_messages(call: Call) -> Answer:
    """`GET /v1/steps/{step_id}/messages`."""
    step = call.vault.step(call.id("step"))
    wanted = page(call.query, limit=100, order="asc")
    found = [one for one in call.vault.run_messages(step["run"]) if one.get("step") == step["id"]]
    found = [one for one in found if typed(one)]
    return Answer(typed_page(window(found, wanted, lambda one: one["id"]), PLAIN, wanted.reverse))


def feedback(call: Call) -> Answer:
    """`PATCH /v1/steps/{step_id}/feedback`."""
    body = bodies.decode(call.body, turn_bodies.Feedback)
    changes: dict[str, Any] = {"feedback": body.feedback}
    if body.tags is not None:
        changes["tags"] = body.tags
    return Answer(turn_json.step_json(call.vault.edit_step(call.id("step"), changes)))
