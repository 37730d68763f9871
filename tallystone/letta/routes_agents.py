"""`/v1/agents/…`: what `client.agents.create`, `retrieve`, `list`, `update` and `delete` call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tallystone.errors import Taken
from tallystone.letta import bodies, edits, filters, states
from tallystone.letta.call import Answer, Call
from tallystone.letta.paging import Page, page, window
from tallystone.letta.wire import agent_answer, agents_answer, block_answer, last_run
from tallystone.vault.types import Agent

_SORTS = ("created_at", "updated_at", "last_run_completion")


def create(call: Call) -> Answer:
    """`POST /v1/agents/`: the agent, its grants on `block_ids`, then its new `memory_blocks`, in one transaction."""
    body = bodies.decode(call.body, bodies.AgentCreate)
    state = states.created(body)
    block_ids = bodies.ids("block", body.block_ids)
    memory = [edits.created_fields(block, default_description=True) for block in body.memory_blocks or ()]
    labels = [block["label"] for block in memory]
    twice = next((label for label in labels if labels.count(label) > 1), None)
    if twice is not None:
        raise Taken(
            "two memory_blocks have the same label",
            hint="an agent holds one block of each label",
            code="label_taken",
        )
    return call.once(
        lambda: call.vault.create_agent(state, block_ids=block_ids, memory_blocks=memory), agent_answer
    )


def retrieve(call: Call) -> Answer:
    """`GET /v1/agents/{agent_id}`: always with its blocks and tools; `include` adds nothing."""
    return agent_answer(call.vault.agent(call.id("agent")))


def list_(call: Call) -> Answer:
    """`GET /v1/agents/`: the agents that the caller may see, newest first unless asked otherwise."""
    query = call.query
    older_first = query.flag("ascending")
    wanted = page(query, limit=50, order="asc" if older_first else "desc", order_by=_SORTS)
    sort = query.choice("order_by", _SORTS) or query.choice("sort_by", _SORTS, "created_at")
    where = filters.agents(query)
    if sort == "created_at":
        return agents_answer(
            call.vault.agents(
                after=wanted.after,
                before=wanted.before,
                limit=wanted.limit,
                reverse=wanted.reverse,
                where=where,
            )
        )
    return agents_answer(_sorted_page(call, where, sort or "", wanted))


def _sorted_page(call: Call, where: Callable[[Agent], bool], sort: str, wanted: Page) -> list[Agent]:
    def key(agent: Agent) -> tuple[bool, str, int]:
        when = agent.updated_at.isoformat() if sort == "updated_at" else last_run(agent)[sort]
        return (when is not None, when or "", agent.position)

    everything = call.vault.agents()
    # the cursor may have changed so that it no longer matches; it still says where the page begins
    cursors = {wanted.after, wanted.before}
    ordered = sorted((agent for agent in everything if where(agent) or agent.id in cursors), key=key)
    return [agent for agent in window(ordered, wanted, lambda agent: agent.id) if where(agent)]


def update(call: Call) -> Answer:
    """`PATCH /v1/agents/{agent_id}`: `block_ids` and `tool_ids` replace the whole set."""
    identity = call.id("agent")
    body = bodies.decode(call.body, bodies.AgentUpdate)
    change = states.changed(body)
    if body.tool_ids is not None:
        change["tools"] = list(dict.fromkeys(states.tool_entries(bodies.ids("tool", body.tool_ids))))
    if body.block_ids is not None:
        change["block_ids"] = bodies.ids("block", body.block_ids)

    def edit(agent: Agent) -> Mapping[str, Any]:
        return change

    return agent_answer(call.vault.edit_agent(identity, edit))


def contact(call: Call) -> Answer:
    """`POST /v1/agents/{agent_id}/contact`: the block by which others may write to the agent, made if there is none."""
    identity = call.id("agent")
    return call.once(lambda: call.vault.contact(identity), block_answer)


def delete(call: Call) -> Answer:
    """`DELETE /v1/agents/{agent_id}`: blocks that only it held go with it."""
    identity = call.id("agent")
    call.vault.delete_agent(identity)
    return Answer({"message": f"Agent id={identity} successfully deleted"})
