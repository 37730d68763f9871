"""`/v1/tokens…`, `/v1/users` and `/v1/audit/events`: ours, not the client's. Who gets in, and what was done.

A new token and a new user's kit stand in one answer and nowhere else, but for the copy that a retry within two minutes
gets: it is sealed under the key of the caller that asked for them.
"""

from __future__ import annotations

import re
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from tallystone.errors import Invalid, Taken
from tallystone.letta.bodies import TokenCreate, UserCreate, decode
from tallystone.letta.call import Answer, Call, check_id
from tallystone.letta.wire import stamp
from tallystone.vault.types import AuditEvent, Credentials, TokenInfo

EVENTS = 50
"""Events that one answer holds unless `limit` says otherwise."""
_ALL = 2**31

_SHOWN = Taken(
    "this was made by the first of these requests, and its secret was shown once",
    hint="if that answer was lost, revoke what it made, and make another",
    code="already_made",
)
_MADE = Answer(
    {"detail": _SHOWN.message, "error": {"code": _SHOWN.code, "hint": _SHOWN.hint}},
    _SHOWN.status,
    {"x-should-retry": "false"},
)
"""What the retry of a request gets whose answer held a secret: secrets are not kept, not even sealed."""


def tokens(call: Call) -> Answer:
    """`GET /v1/tokens`: the caller's tokens and its agents', without what they open."""
    return Answer([_token(token) for token in call.vault.tokens()])


def _token(token: TokenInfo) -> dict[str, Any]:
    times = {"created": _time(token.created), "expires": token.expires and _time(token.expires)}
    return {**asdict(token), **times}


def create_token(call: Call) -> Answer:
    """`POST /v1/tokens`: another token for the caller, or with `agent_id` one that carries only this agent."""
    body = decode(call.body, TokenCreate)
    agent = None if body.agent_id is None else check_id("agent", body.agent_id)
    expires = _in_utc(body.expires)

    def work() -> str:
        if agent is None:
            return call.vault.create_token(scope=body.scope, expires=expires, label=body.label)
        return call.vault.agent_token(agent, scope=body.scope, expires=expires, label=body.label)

    return call.once(work, lambda token: Answer({"token": token}), _MADE)


def _in_utc(moment: datetime | None) -> datetime | None:
    """The same moment. Raises `Invalid` for the hours beyond the year 9999, which no list could show."""
    try:
        return moment and moment.astimezone(UTC)
    except OverflowError:
        raise Invalid(
            "the expiry is out of range", hint="for example 2027-01-31T00:00:00Z", code="bad_expiry"
        ) from None


def revoke_token(call: Call) -> Answer:
    """`DELETE /v1/tokens/{kid}`: it opens nothing from the answer on. Answers `null`."""
    kid = call.params["kid"]
    if not re.fullmatch("[a-z2-7]{16}", kid):
        # said without repeating it: it may be a whole token
        raise Invalid(
            "this is no token's public part: it has 16 letters and digits",
            hint="take the kid from GET /v1/tokens",
            code="bad_id",
        )
    call.vault.revoke_token(kid)
    return Answer(None)


def users(call: Call) -> Answer:
    """`GET /v1/users`: the users of the workspace; an agent sees none."""
    return Answer([asdict(user) for user in call.vault.users()])


def create_user(call: Call) -> Answer:
    """`POST /v1/users`: a new user, with a token and a recovery kit that are shown once."""
    body = decode(call.body, UserCreate)
    return call.once(lambda: call.vault.add_user(body.name), _credentials, _MADE)


def _credentials(made: Credentials) -> Answer:
    return Answer(asdict(made))


def events(call: Call) -> Answer:
    """`GET /v1/audit/events`: the newest events that the caller may open, or the first beyond `after`. Oldest first."""
    limit, after = call.query.number("limit", EVENTS), call.query.number("after")
    return Answer([_event(event) for event in call.vault.events(limit or _ALL, after)])


def _event(event: AuditEvent) -> dict[str, Any]:
    return {
        "seq": event.seq,
        "time": _time(event.minute * 60),
        "kind": event.kind,
        "actor": event.actor,
        "under": event.under or None,
        "detail": _plain(event.detail),
    }


def _plain(value: Any) -> Any:
    """A detail as JSON has it: bytes in hexadecimal digits."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    return value


def _time(seconds: int) -> str:
    return stamp(datetime.fromtimestamp(seconds, UTC))
