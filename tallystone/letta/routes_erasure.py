"""`/v1/blocks/{block_id}/erase`, `…/versions/{number}/erase` and `/v1/users/me/erase`: ours, not the client's. What is
ended for good.

No answer is kept for a retry: asked again, a block's erasure goes on and gives the same receipt.
"""

from __future__ import annotations

from dataclasses import asdict

from tallystone.letta.bodies import UserErase, decode
from tallystone.letta.call import Answer, Call
from tallystone.letta.routes_history import version_number
from tallystone.vault.types import Receipt


def block(call: Call) -> Answer:
    """`POST /v1/blocks/{block_id}/erase`: the receipt."""
    return _receipt(call.vault.erase_block(call.id("block")))


def version(call: Call) -> Answer:
    """`POST /v1/blocks/{block_id}/versions/{number}/erase`: the receipt."""
    return _receipt(call.vault.erase_version(call.id("block"), version_number(call.params["number"])))


def me(call: Call) -> Answer:
    """`POST /v1/users/me/erase`: the receipt, the last that this token is told."""
    body = decode(call.body, UserErase)
    return _receipt(call.vault.erase_me(body.confirm))


def _receipt(receipt: Receipt) -> Answer:
    return Answer({**asdict(receipt), "statement": receipt.statement.hex()})
