"""`/v1/blocks/{block_id}/versions…`, `…/blame`, `…/restore` and `/v1/undo`: ours, not the client's. What a block was,
who wrote which line, and bringing back what was."""

from __future__ import annotations

import re
from dataclasses import asdict

from tallystone.errors import Invalid
from tallystone.letta.bodies import Restore, UndoCreate, decode
from tallystone.letta.call import Answer, Call, check_id
from tallystone.letta.wire import block_answer

PAGE = 50


def version_number(text: str) -> int:
    """A version's number. Raises `Invalid`."""
    if not re.fullmatch(r"[1-9][0-9]{0,9}", text):
        raise Invalid("a version is named by its number", hint="like 3; the list of versions has them")
    return int(text)


def list_(call: Call) -> Answer:
    """`GET …/versions`: newest first; `limit` (0: all), `before` (a number)."""
    identity, limit = call.id("block"), call.query.number("limit", PAGE)
    return Answer(
        asdict(call.vault.versions(identity, limit=limit or None, before=call.query.number("before")))
    )


def retrieve(call: Call) -> Answer:
    """`GET …/versions/{number}`: one version with its content as it was."""
    return Answer(asdict(call.vault.version(call.id("block"), version_number(call.params["number"]))))


def diff(call: Call) -> Answer:
    """`GET …/versions/{number}/diff?to=`: what changed from this version to that one, by default the next."""
    identity, before = call.id("block"), version_number(call.params["number"])
    after = version_number(call.query.text("to") or str(before + 1))
    return Answer(asdict(call.vault.diff(identity, before, after)))


def blame(call: Call) -> Answer:
    """`GET …/blame`: which principal wrote which line of the current value."""
    return Answer(asdict(call.vault.blame(call.id("block"))))


def restore(call: Call) -> Answer:
    """`POST …/restore`: a new version with the content of an earlier one. Answers the block."""
    identity = call.id("block")
    body = decode(call.body, Restore)
    return call.once(lambda: call.vault.restore(identity, body.version), block_answer)


def undo(call: Call) -> Answer:
    """`POST /v1/undo`: take back what one principal wrote since then. Answers the blocks concerned.

    It is one operation a block, so its answer is not kept for retries: asked again it finds nothing left to do.
    """
    body = decode(call.body, UndoCreate)
    block = None if body.block_id is None else check_id("block", body.block_id)
    return Answer(
        [asdict(one) for one in call.vault.undo(body.principal, body.since, block, dry_run=body.dry_run)]
    )
