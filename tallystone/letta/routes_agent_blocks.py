"""`/v1/agents/{agent_id}/core-memory/blocks…`: what `client.agents.blocks` calls."""

from __future__ import annotations

from tallystone.letta import edits
from tallystone.letta.bodies import BlockUpdate, decode
from tallystone.letta.call import Answer, Call
from tallystone.letta.paging import page, window
from tallystone.letta.wire import agent_answer, block_answer, blocks_answer


def list_(call: Call) -> Answer:
    """`GET …/blocks`: the agent's blocks, latest attached first."""
    agent = call.id("agent")
    wanted = page(call.query, limit=100, order="desc")
    return blocks_answer(window(call.vault.agent_blocks(agent), wanted, lambda block: block.id))


def retrieve(call: Call) -> Answer:
    """`GET …/blocks/{block_label}`: labels may hold slashes and any other character."""
    return block_answer(call.vault.agent_block(call.id("agent"), call.params["block_label"]))


def update(call: Call) -> Answer:
    """`PATCH …/blocks/{block_label}`: like `PATCH /v1/blocks/{block_id}`, of the block with that label."""
    agent, label = call.id("agent"), call.params["block_label"]
    body = decode(call.body, BlockUpdate)
    return block_answer(call.vault.edit_agent_block(agent, label, edits.update(call, body), as_agent=False))


def attach(call: Call) -> Answer:
    """`PATCH …/blocks/attach/{block_id}`: a grant to the agent, `?access=read` or `write`. Again changes nothing."""
    agent, block = call.id("agent"), call.id("block")
    access = call.query.choice("access", ("read", "write"), "write")
    return agent_answer(call.vault.attach(agent, block, access or "write"))


def detach(call: Call) -> Answer:
    """`PATCH …/blocks/detach/{block_id}`: revokes the agent's grant, with rotation."""
    agent, block = call.id("agent"), call.id("block")
    return agent_answer(call.vault.detach(agent, block))
