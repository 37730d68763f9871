"""What is left of an erased version: its signed statement without the content, and its owner's word that it went.

The statement keeps the chain whole: it names the version before it, its writer and the hash of its content. The content
itself was sealed with 16 random bytes, so the hash confirms no guess. Readers take a missing content only from whoever
owned the block when it was erased; who may write, or edits rows, cannot make a version look erased.
"""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import TYPE_CHECKING

from tallystone import _cbor, crypto
from tallystone.errors import NotFound, Tampered
from tallystone.statements import Erasure, Signed

if TYPE_CHECKING:
    from tallystone.vault.opening import Opened
    from tallystone.vault.records import Content


def name_of(block: str, number: int) -> str:
    """What a receipt calls a version: no other statement names one so."""
    return f"{block}/versions/{number}"


def check_erased(opened: Opened, content: Content, number: int) -> None:
    """Whether a version that lies here without its content was erased by the block's owner. Raises `Tampered`."""
    signed = Signed.decode(content.erased)
    body = Erasure.decode(signed.body)
    if signed.type != "erasure" or body.what != name_of(opened.id, number) or len(body.blocks) != 1:
        raise Tampered("a version was erased by a word about something else")
    entry = body.blocks[0]
    if not isinstance(entry, list) or not _cbor.fits(entry, (str, bytes, int, int)):
        raise Tampered("an erasure is malformed")
    block, digest, _, policy = entry
    if block != opened.id or not 0 <= policy <= opened.row.policy:
        raise Tampered("a version was erased by a word about something else")
    head = opened.head_at(policy)
    if not crypto.equal(head.digest, digest) or head.owner != body.issuer:
        raise Tampered("a version was erased by somebody who did not own the block")
    if (
        number >= head.version
    ):  # the new keys began with that head: who owned the block then erased nothing later
        raise Tampered("a version was erased before it was written")
    issuer = opened.caller.identity(opened.plan, body.issuer)
    if not issuer.signed(signed, opened.caller.workspace.id, body.issuer_record):
        raise Tampered("a statement is not signed by the one it names")


def erased_on(content: Content) -> date:
    """The day (UTC) on which it was erased, as its owner says."""
    time = Erasure.decode(Signed.decode(content.erased).body).time
    try:
        return datetime.fromtimestamp(time / 1000, UTC).date()
    except (OverflowError, OSError, ValueError) as error:
        raise Tampered("an erasure is malformed") from error


def erased_version(block: str, number: int, day: date) -> NotFound:
    """What is told of the content of a version that was erased."""
    return NotFound(
        f"version {number} of {block} was erased on {day}",
        hint="its number, writer and time stay in the history; its content is gone for good",
        code="erased_version",
    )
