"""`/v1/tokens…`, ours, and `/v1/client-side-access-tokens…`, what `client.access_tokens` calls: who gets in.

A new token stands in one answer and nowhere else. The client's access tokens are agents' tokens of ours: what their
policy asks for and ours cannot hold to is refused, for a token that can do more than was asked is worse than none.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any

from tallystone.errors import Invalid, NotFound, Taken
from tallystone.letta.bodies import AccessPolicy, AccessTokenCreate, TokenCreate, decode
from tallystone.letta.call import Answer, Call, check_id
from tallystone.letta.wire import stamp
from tallystone.vault.rotated import Rotated
from tallystone.vault.types import TokenInfo

_SHOWN = Taken(
    "this was made by the first of these requests, and its secret was shown once",
    hint="if that answer was lost, revoke what it made, and make another",
    code="already_made",
)
SHOWN_ONCE = Answer(
    {"detail": _SHOWN.message, "error": {"code": _SHOWN.code, "hint": _SHOWN.hint}},
    _SHOWN.status,
    {"x-should-retry": "false"},
)
"""What the retry of a request gets whose answer held a secret: secrets are not kept, not even sealed."""

_KID = "[a-z2-7]{16}"
_TOKEN = re.compile(f"tally_({_KID})_[a-z2-7]{{52}}_[a-z2-7]{{8}}")
MINUTES = 5
"""How long an access token lasts that names no end, as the client documents."""
MARK = "access_token"
"""How the label of an access token begins: `access_token <access>+<access> <hostname>`."""
_ACCESS = ("read_messages", "write_messages", "read_agent", "write_agent")
_HOSTNAME = 120
"""Characters of a hostname that fit into a label beside the rest."""


def tokens(call: Call) -> Answer:
    """`GET /v1/tokens`: the caller's tokens and its agents', without what they open."""
    return Answer([_token(token) for token in call.vault.tokens()])


def _token(token: TokenInfo) -> dict[str, Any]:
    times = {"created": time(token.created), "expires": token.expires and time(token.expires)}
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

    return call.once(work, lambda token: Answer({"token": token}), SHOWN_ONCE)


def _in_utc(moment: datetime | None) -> datetime | None:
    """The same moment. Raises `Invalid` for the hours beyond the year 9999, which no list could show."""
    try:
        return moment and moment.astimezone(UTC)
    except OverflowError:
        raise Invalid(
            "the expiry is out of range", hint="for example 2027-01-31T00:00:00Z", code="bad_expiry"
        ) from None


def time(seconds: int) -> str:
    """Unix seconds as the wire has times."""
    return stamp(datetime.fromtimestamp(seconds, UTC))


def check_kid(text: str, where: str) -> str:
    """`text` if it is the public part of a token or an invitation. Raises `Invalid` (422) otherwise."""
    if not re.fullmatch(_KID, text):
        # said without repeating it: it may be a whole token
        raise Invalid(
            "this is no public part: it has 16 letters and digits",
            hint=f"take the kid from {where}",
            code="bad_id",
        )
    return text


def revoke_token(call: Call) -> Answer:
    """`DELETE /v1/tokens/{kid}`: it opens nothing from the answer on. Answers `null`."""
    call.vault.revoke_token(check_kid(call.params["kid"], "GET /v1/tokens"))
    return Answer(None)


def compromised(call: Call) -> Answer:
    """`POST /v1/tokens/{kid}/compromised`: somebody else may have this token. It ends with the root of its holder, and
    what that root opened gets new keys. A token in place of the caller's own stands in the answer, once.

    It is one operation a block, so its answer is not kept for retries; asked again it renews once more.
    """
    return rotation(call.vault.revoke_compromised(check_kid(call.params["kid"], "GET /v1/tokens")))


def rotation(done: Rotated) -> Answer:
    """What a new root did."""
    return Answer({**asdict(done), "ended": [_token(token) for token in done.ended]})


# -- the client's ----------------------------------------------------------------------------------------------


def create_access_token(call: Call) -> Answer:
    """`POST /v1/client-side-access-tokens`: a token for one agent, of scope read if its policy writes nothing."""
    body = decode(call.body, AccessTokenCreate)
    if not re.fullmatch(rf"https?://[^\s/]\S{{0,{_HOSTNAME - 9}}}", body.hostname):
        raise Invalid(
            f"hostname should be a URL with its protocol, of at most {_HOSTNAME} characters",
            hint="for example https://app.example.com",
            code="bad_hostname",
        )
    agent, access, scope = _carried(body.policy)
    ends = _in_utc(body.expires_at) or datetime.now(UTC) + timedelta(minutes=MINUTES)
    ends = ends.replace(microsecond=0)
    label = f"{MARK} {'+'.join(access)} {body.hostname}"

    def work() -> str:
        return call.vault.agent_token(agent, scope=scope, expires=ends, label=label)

    def answer(token: str) -> Answer:
        return Answer(_access_token(token, int(ends.timestamp()), body.hostname, agent, access))

    return call.once(work, answer, SHOWN_ONCE)


def _carried(policy: list[AccessPolicy]) -> tuple[str, list[str], str]:
    """(agent, what it may do, our scope) of a policy. Raises `Invalid` for one that no token of ours holds to."""
    if any(entry.type != "agent" or not set(entry.access) <= set(_ACCESS) for entry in policy):
        raise _unfit(
            "an entry is about something else than an agent", f"type agent, access {', '.join(_ACCESS)}"
        )
    agents = {check_id("agent", entry.id) for entry in policy}
    if len(agents) != 1:
        raise _unfit("a token carries exactly one agent", "make one token for each agent")
    asked = {word for entry in policy for word in entry.access}
    access = [word for word in _ACCESS if word in asked]
    if "write_agent" in asked:
        return agents.pop(), access, "full"
    if "write_messages" in asked:
        raise _unfit("a token that writes messages writes the agent too", "ask for write_agent as well")
    if "read_agent" not in asked:
        raise _unfit("a token always reads its agent", "ask for read_agent as well")
    return agents.pop(), access, "read"


def _unfit(message: str, hint: str) -> Invalid:
    return Invalid(f"no token can hold to this policy: {message}", hint=hint, code="bad_policy")


def _access_token(
    token: str, expires: int, hostname: str, agent: str, access: Iterable[str]
) -> dict[str, Any]:
    policy = {"version": "1", "data": [{"type": "agent", "id": agent, "access": list(access)}]}
    return {"token": token, "expiresAt": time(expires), "hostname": hostname, "policy": policy}


def access_tokens(call: Call) -> Answer:
    """`GET /v1/client-side-access-tokens`: newest first. `token` is the public part alone: the rest was shown once."""
    limit, offset = _number(call, "limit", 10), _number(call, "offset", 0)
    agent = call.query.text("agentId")
    known = sorted(call.vault.tokens(), key=lambda token: (token.created, token.kid), reverse=True)
    found = [
        row for token in known if (row := _listed(token)) and (agent is None or token.principal == agent)
    ]
    return Answer({"tokens": found[offset : offset + limit], "hasNextPage": len(found) > offset + limit})


def _listed(token: TokenInfo) -> dict[str, Any] | None:
    """An access token as its list shows it; None for a token that was made otherwise."""
    words = token.label.split(" ")
    if len(words) != 3 or words[0] != MARK or token.expires is None:
        return None
    access = words[1].split("+")
    if not set(access) <= set(_ACCESS) or not token.principal.startswith("agent-"):
        return None
    return _access_token(token.kid, token.expires, words[2], token.principal, access)


def _number(call: Call, name: str, default: int) -> int:
    """A whole number that the client may send as `10.0`."""
    text = call.query.text(name)
    if text is None:
        return default
    match = re.fullmatch(r"([0-9]{1,9})(?:\.0+)?", text)
    if match is None:
        raise Invalid(f"query parameter {name} should be a whole number of 0 or more", hint=f"e.g. {name}=10")
    return int(match[1])


def delete_access_token(call: Call) -> Answer:
    """`DELETE /v1/client-side-access-tokens/{token}`: the token itself, or its public part as listed."""
    text = call.params["token"]
    whole = _TOKEN.fullmatch(text)
    kid = whole[1] if whole else check_kid(text, "client.access_tokens.list()")
    if not any(token.kid == kid and _listed(token) for token in call.vault.tokens()):
        raise NotFound(
            f"no access token {kid}", hint="list them with client.access_tokens.list()", code="unknown_token"
        )
    call.vault.revoke_token(kid)
    return Answer(None)
