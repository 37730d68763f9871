"""`/v1/blocks/…`: what `client.blocks` and `client.blocks.agents` call."""

from __future__ import annotations

import msgspec

from tallystone.letta import edits, filters
from tallystone.letta.bodies import BlockCreate, BlockUpdate, decode
from tallystone.letta.call import Answer, Call
from tallystone.letta.paging import page
from tallystone.letta.wire import agents_answer, block_answer, block_json, blocks_answer, etag_of
from tallystone.vault.forms import Form
from tallystone.vault.types import Block


def _bytes(block: Block) -> bytes:
    return msgspec.json.encode(block_json(block))


_JSON = Form(_bytes, filters.listed)
"""A block as `GET` answers with it."""


def create(call: Call) -> Answer:
    """`POST /v1/blocks/`: a new block of the caller's."""
    body = decode(call.body, BlockCreate)
    fields = edits.created_fields(body)
    return call.once(lambda: call.vault.create_block(**fields), block_answer)


def retrieve(call: Call) -> Answer:
    """`GET /v1/blocks/{block_id}`: its current value, with its version as `ETag`."""
    version, content = call.vault.block_as(call.id("block"), _JSON)
    return Answer(msgspec.Raw(content), headers={"etag": etag_of(version)})


def list_(call: Call) -> Answer:
    """`GET /v1/blocks/`: the caller's blocks, oldest first unless asked otherwise."""
    wanted = page(call.query, limit=50, order="asc")
    where = filters.blocks(call.query)
    after, before, limit, reverse = wanted.after, wanted.before, wanted.limit, wanted.reverse
    if where is None:
        shown = call.vault.blocks_as(_JSON, after=after, before=before, limit=limit, reverse=reverse)
        return Answer([msgspec.Raw(one) for one in shown])
    return blocks_answer(
        call.vault.blocks(after=after, before=before, limit=limit, reverse=reverse, where=where)
    )


def update(call: Call) -> Answer:
    """`PATCH /v1/blocks/{block_id}`: fields that are null or absent stay; `If-Match` is honoured."""
    identity = call.id("block")
    body = decode(call.body, BlockUpdate)
    return block_answer(call.vault.edit_block(identity, edits.update(call, body)))


def delete(call: Call) -> Answer:
    """`DELETE /v1/blocks/{block_id}`: for everybody. Answers `null`."""
    call.vault.delete_block(call.id("block"))
    return Answer(None)


def agents(call: Call) -> Answer:
    """`GET /v1/blocks/{block_id}/agents`: the agents with a grant on it that the caller may see, newest first."""
    identity = call.id("block")
    wanted = page(call.query, limit=50, order="desc")
    return agents_answer(
        call.vault.block_agents(
            identity, after=wanted.after, before=wanted.before, limit=wanted.limit, reverse=wanted.reverse
        )
    )
