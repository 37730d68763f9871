"""`/v1/blocks/{block_id}/grants…`, `/v1/offers…` and `/v1/access`: ours, not the client's. Who holds which block."""

from __future__ import annotations

from dataclasses import asdict

from tallystone.letta.bodies import GrantCreate, decode
from tallystone.letta.call import Answer, Call
from tallystone.letta.wire import block_answer
from tallystone.vault.types import Grant


def list_(call: Call) -> Answer:
    """`GET …/grants`: all live grants for the owner; for a grantee its own and what hangs below it."""
    return Answer([asdict(grant) for grant in call.vault.grants(call.id("block"))])


def create(call: Call) -> Answer:
    """`POST …/grants`: grant the block to a user or an agent. To others it is an offer that they accept."""
    identity = call.id("block")
    body = decode(call.body, GrantCreate)
    return call.once(lambda: call.vault.share(identity, body.recipient, body.can), _grant)


def _grant(grant: Grant) -> Answer:
    return Answer(asdict(grant))


def delete(call: Call) -> Answer:
    """`DELETE …/grants/{principal}`: a user's name or id, or an agent's id. Answers who still reaches the block."""
    left = call.vault.revoke(call.id("block"), call.params["principal"])
    return Answer({"still_reachable": [asdict(reach) for reach in left]})


def offers(call: Call) -> Answer:
    """`GET /v1/offers`: what others have shared with the caller or its agents and nobody accepted yet."""
    return Answer([asdict(offer) for offer in call.vault.offers()])


def accept(call: Call) -> Answer:
    """`POST /v1/offers/{block_id}/accept`: from now on the block is among the caller's."""
    identity = call.id("block")
    return call.once(lambda: call.vault.accept_offer(identity), block_answer)


def decline(call: Call) -> Answer:
    """`POST /v1/offers/{block_id}/decline`: the offer disappears. Answers `null`."""
    identity = call.id("block")
    return call.once(lambda: call.vault.decline_offer(identity), lambda _: Answer(None))


def access(call: Call) -> Answer:
    """`GET /v1/access`: the access matrix of the caller's blocks, a cell each."""
    return Answer([asdict(cell) for cell in call.vault.access()])
