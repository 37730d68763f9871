"""`/v1/events`: which of the caller's blocks change, as server-sent events. Ours; the client has no method for it."""

from __future__ import annotations

from tallystone.letta.call import Call, check_id
from tallystone.letta.later import Subscribed


def listen(call: Call) -> Subscribed:
    """`GET /v1/events`: from now on, or from the event that `Last-Event-ID` names. `block_id`s narrow it down."""
    call.admit(call.vault.user)
    wanted = [check_id("block", one) for one in call.query.texts("block_id")]
    after = call.headers.get("last-event-id") or None
    return Subscribed(None, subscription=call.vault.subscribe(*wanted, after=after))
