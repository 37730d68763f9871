"""`/v1/roles…`: ours, not the client's. A role is named by its id, or by its name among the caller's roles."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from tallystone.letta.bodies import MembersAdd, RoleCreate, RoleUpdate, decode
from tallystone.letta.call import Answer, Call
from tallystone.letta.wire import stamp
from tallystone.vault.types import Role


def _json(role: Role) -> dict[str, Any]:
    return {**asdict(role), "created_at": stamp(role.created_at)}


def _answer(role: Role) -> Answer:
    return Answer(_json(role))


def create(call: Call) -> Answer:
    """`POST /v1/roles`: a new role of the caller's, whose only member is its owner."""
    body = decode(call.body, RoleCreate)
    return call.once(
        lambda: call.vault.create_role(
            body.name, description=body.description, clearance=body.clearance, history=body.history
        ),
        _answer,
    )


def list_(call: Call) -> Answer:
    """`GET /v1/roles`: the roles that the caller owns or is in, without their members."""
    return Answer([_json(role) for role in call.vault.roles()])


def retrieve(call: Call) -> Answer:
    """`GET /v1/roles/{role}`: one role with its members."""
    return _answer(call.vault.role(call.params["role"]))


def update(call: Call) -> Answer:
    """`PATCH /v1/roles/{role}`: its clearance. Owner only."""
    body = decode(call.body, RoleUpdate)
    named = call.params["role"]
    role = named if named.startswith("role-") else call.vault.role(named).id
    call.vault.set_clearance(role, body.clearance)
    return _answer(call.vault.role(role))


def delete(call: Call) -> Answer:
    """`DELETE /v1/roles/{role}`: what it was granted stays with whoever holds it otherwise. Answers `null`."""
    call.vault.delete_role(call.params["role"])
    return Answer(None)


def add_members(call: Call) -> Answer:
    """`POST /v1/roles/{role}/members`: all or none. For other users it is an offer that they accept."""
    body = decode(call.body, MembersAdd)
    role = call.params["role"]
    return call.once(lambda: call.vault.add_members(role, body.members, until=body.until), _answer)


def remove_member(call: Call) -> Answer:
    """`DELETE /v1/roles/{role}/members/{principal}`: it opens nothing through the role from the answer on."""
    return _answer(call.vault.remove_member(call.params["role"], call.params["principal"]))
