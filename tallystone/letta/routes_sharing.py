"""`/v1/blocks/{block_id}/grants…`, `…/access`, `…/transfer…`, `/v1/offers…` and `/v1/access`: ours, not the client's.
Who holds which block, why, and who may get it."""

from __future__ import annotations

from dataclasses import asdict

from tallystone.letta.access_picture import draw
from tallystone.letta.bodies import GrantCreate, TransferCreate, decode
from tallystone.letta.call import Answer, Call, Picture, check_id
from tallystone.letta.wire import block_answer
from tallystone.vault.types import Block, Grant


def list_(call: Call) -> Answer:
    """`GET …/grants`: all live grants for the owner and sharers; for others their own and what hangs below it."""
    return Answer([asdict(grant) for grant in call.vault.grants(call.id("block"))])


def create(call: Call) -> Answer:
    """`POST …/grants`: grant the block to a user, an agent or a role. To others it is an offer that they accept."""
    identity = call.id("block")
    body = decode(call.body, GrantCreate)
    whom = body.whom
    return call.once(
        lambda: call.vault.share(
            identity, whom, body.can, until=body.until, depth=body.depth, history=body.history
        ),
        _grant,
    )


def _grant(grant: Grant) -> Answer:
    return Answer(asdict(grant))


def delete(call: Call) -> Answer:
    """`DELETE …/grants/{principal}`: a user's or role's name or id, or an agent's id. Answers who still reaches it."""
    left = [asdict(reach) for reach in call.vault.revoke(call.id("block"), call.params["principal"])]
    return Answer({"reach": left, "still_reachable": left})


def rotate(call: Call) -> Answer:
    """`POST …/rotate`: change the block's keys for all who hold it now. Answers the number of the new epoch."""
    identity = call.id("block")
    return call.once(lambda: call.vault.rotate(identity), lambda epoch: Answer({"epoch": epoch}))


def reach(call: Call) -> Answer:
    """`GET …/access`: who can reach the block, and why. `?principal=` asks about one of them."""
    identity, who = call.id("block"), call.query.text("principal")
    found = call.vault.reach(identity) if who is None else call.vault.why(who, identity)
    return Answer([asdict(one) for one in found])


def transfer(call: Call) -> Answer:
    """`POST …/transfer`: offer a user the ownership. Answers `null`."""
    identity = call.id("block")
    body = decode(call.body, TransferCreate)
    return call.once(lambda: call.vault.transfer(identity, body.to), lambda _: Answer(None))


def cancel_transfer(call: Call) -> Answer:
    """`DELETE …/transfer`: take that offer back. Answers `null`."""
    call.vault.cancel_transfer(call.id("block"))
    return Answer(None)


def accept_transfer(call: Call) -> Answer:
    """`POST …/transfer/accept`: from now on the block is the caller's own."""
    identity = call.id("block")
    return call.once(lambda: call.vault.accept_transfer(identity), block_answer)


def offers(call: Call) -> Answer:
    """`GET /v1/offers`: blocks, roles and ownership that wait for the caller, its agents or its roles."""
    return Answer([asdict(offer) for offer in call.vault.offers()])


def _offered(call: Call) -> str:
    text = call.params["offered"]
    return check_id("role" if text.startswith("role-") else "block", text)


def accept(call: Call) -> Answer:
    """`POST /v1/offers/{offered}/accept`: a block's id, which is answered, or a role's: `null`."""
    identity = _offered(call)
    return call.once(lambda: call.vault.accept_offer(identity), _accepted)


def _accepted(block: Block | None) -> Answer:
    return Answer(None) if block is None else block_answer(block)


def decline(call: Call) -> Answer:
    """`POST /v1/offers/{offered}/decline`: the offer disappears. Answers `null`."""
    identity = _offered(call)
    return call.once(lambda: call.vault.decline_offer(identity), lambda _: Answer(None))


def access(call: Call) -> Answer:
    """`GET /v1/access`: the access matrix of the caller's blocks, a cell each, or with `?format=svg` as a picture."""
    shape = call.query.choice("format", ("json", "svg"), "json")
    cells = call.vault.access()
    return Picture(draw(cells)) if shape == "svg" else Answer([asdict(cell) for cell in cells])
