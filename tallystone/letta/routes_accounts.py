"""`/v1/users…`, `/v1/invitations…` and `/v1/charter`: ours, not the client's. Who is here, and by which rules.

A new user's token and kit, and an invitation's code, stand in one answer and nowhere else.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from tallystone.letta.bodies import (
    CharterUpdate,
    InvitationCreate,
    Redemption,
    UserCreate,
    UserUpdate,
    decode,
    given,
)
from tallystone.letta.call import Answer, Call
from tallystone.letta.routes_tokens import SHOWN_ONCE, check_kid, rotation, time
from tallystone.vault import Workspace
from tallystone.vault.types import Credentials, InviteInfo


def users(call: Call) -> Answer:
    """`GET /v1/users`: the users of the workspace; an agent sees none."""
    return Answer([asdict(user) for user in call.vault.users()])


def create_user(call: Call) -> Answer:
    """`POST /v1/users`: a new user, with a token and a recovery kit that are shown once."""
    body = decode(call.body, UserCreate)
    return call.once(
        lambda: call.vault.add_user(body.name, clearance=body.clearance), _credentials, SHOWN_ONCE
    )


def _credentials(made: Credentials) -> Answer:
    return Answer(asdict(made))


def suspend(call: Call) -> Answer:
    """`POST /v1/users/{who}/suspend`: a user (name or id) or one of the caller's agents stops. Answers `null`."""
    who = call.params["who"]
    return call.once(lambda: call.vault.suspend(who), lambda _: Answer(None))


def resume(call: Call) -> Answer:
    """`POST /v1/users/{who}/resume`: and goes on. Answers `null`."""
    who = call.params["who"]
    return call.once(lambda: call.vault.resume(who), lambda _: Answer(None))


def rotate(call: Call) -> Answer:
    """`POST /v1/users/{who}/rotate`: a new root for the caller (`me`, its name or id) or one of its agents. Ends all
    tokens of the old root but the caller's own, and answers which."""
    who = call.params["who"]
    return rotation(call.vault.rotate_principal("" if who == "me" else who))


def update_user(call: Call) -> Answer:
    """`PATCH /v1/users/{who}`: the clearance of a user or of one of the caller's agents. Answers `null`."""
    body = decode(call.body, UserUpdate)
    call.vault.set_clearance(call.params["who"], body.clearance)
    return Answer(None)


# -- invitations -----------------------------------------------------------------------------------------------


def invite(call: Call) -> Answer:
    """`POST /v1/invitations`: the code that makes one user of this name, shown once."""
    body = decode(call.body, InvitationCreate)

    def answer(code: str) -> Answer:
        return Answer({"code": code, "kid": code.split("_")[1], "name": body.name})

    return call.once(
        lambda: call.vault.invite(body.name, clearance=body.clearance, days=body.days), answer, SHOWN_ONCE
    )


def invitations(call: Call) -> Answer:
    """`GET /v1/invitations`: what nobody has redeemed yet, without the codes."""
    return Answer([_invitation(known) for known in call.vault.invitations()])


def _invitation(known: InviteInfo) -> dict[str, Any]:
    return {**asdict(known), "expires": time(known.expires)}


def revoke_invitation(call: Call) -> Answer:
    """`DELETE /v1/invitations/{kid}`: its code opens nothing from the answer on. Answers `null`."""
    call.vault.revoke_invitation(check_kid(call.params["invitation"], "GET /v1/invitations"))
    return Answer(None)


def redeem(workspace: Workspace, body: bytes) -> Answer:
    """`POST /v1/invitations/redeem`, without a token: the user that the code makes, its token and kit, once."""
    return _credentials(workspace.redeem(decode(body, Redemption).code))


# -- the charter -----------------------------------------------------------------------------------------------


def charter(call: Call) -> Answer:
    """`GET /v1/charter`: the workspace's own rules."""
    return Answer(asdict(call.vault.charter()))


def update_charter(call: Call) -> Answer:
    """`PATCH /v1/charter`: change what is sent. Only the workspace's first user may."""
    return Answer(asdict(call.vault.set_charter(**given(decode(call.body, CharterUpdate)))))
