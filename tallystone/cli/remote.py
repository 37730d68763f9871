"""A vault behind a URL: the part of it that the command line uses, over the HTTP routes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime
from typing import Any
from urllib.parse import urlencode

from tallystone import errors
from tallystone.cli import values
from tallystone.cli.wire import Wire, path
from tallystone.vault.types import (
    Access,
    Agent,
    AuditEvent,
    Block,
    CharterView,
    Credentials,
    Grant,
    InviteInfo,
    Offer,
    Principal,
    Reach,
    Role,
    TokenInfo,
)

_ATTEMPTS = 20


def redeem(url: str, code: str) -> Credentials:
    """The user that an invitation's code makes, at the server of `url`. Raises `Unauthenticated`."""
    answer, _ = Wire(url, None).call("POST", "/v1/invitations/redeem", {"code": code})
    return values.plain(Credentials, answer)


class RemoteVault:
    """What the token's principal can do, over HTTP. Same methods and values as `Vault`, fewer of them."""

    def __init__(self, url: str, token: str) -> None:
        self._wire = Wire(url, token)

    def _get(self, where: str) -> Any:
        return self._wire.call("GET", where)[0]

    def _post(self, where: str, body: object = None) -> Any:
        return self._wire.call("POST", where, body)[0]

    def _patch(self, where: str, body: object) -> Any:
        return self._wire.call("PATCH", where, body)[0]

    def _delete(self, where: str) -> Any:
        return self._wire.call("DELETE", where)[0]

    # -- blocks --

    def blocks(self) -> list[Block]:
        """All blocks, in the order they came to the shelf."""
        return [values.block(item) for item in self._wire.pages("/v1/blocks/")]

    def block(self, block_id: str) -> Block:
        """One block. `NotFound` for anything not granted."""
        return values.block(self._get(path("blocks", block_id)))

    def create_block(self, *, label: str, value: str = "", **fields: Any) -> Block:
        """A new block owned by the caller; fields as the routes take them."""
        sent = {name: field for name, field in fields.items() if field is not None}
        return values.block(self._post("/v1/blocks/", {"label": label, "value": value, **sent}))

    def edit_block(
        self, block_id: str, edit: Callable[[Block], Mapping[str, object]], *, if_version: int | None = None
    ) -> Block:
        """Apply `edit` to the block as it is now; done again when somebody else was faster.

        With `if_version` it happens on that version or not at all (`PreconditionFailed`).
        """
        where = path("blocks", block_id)
        for _ in range(_ATTEMPTS):
            body, tag = self._wire.call("GET", where)
            current = values.block(body)
            if if_version is not None and current.version != if_version:
                raise errors.PreconditionFailed(
                    f"the block is at version {current.version}, not {if_version}", hint="read it again"
                )
            changes = dict(edit(current))
            if not changes:
                return current
            try:
                return values.block(self._wire.call("PATCH", where, changes, if_match=tag)[0])
            except errors.PreconditionFailed:
                if if_version is not None:
                    raise
        raise errors.Conflict("others keep changing the block", hint="try again")

    def delete_block(self, block_id: str) -> None:
        """Delete the block for everybody."""
        self._delete(path("blocks", block_id))

    # -- sharing --

    def share(
        self,
        block_id: str,
        with_: str,
        can: str = "read",
        *,
        until: date | None = None,
        depth: int = 0,
        history: bool = True,
    ) -> Grant:
        """Grant a block to a user (by name or id), an agent (by id) or a role (by name or id)."""
        body = {"principal": with_, "can": can, "until": until, "depth": depth, "history": history}
        return values.grant(self._post(path("blocks", block_id, "grants"), body))

    def revoke(self, block_id: str, from_: str) -> list[Reach]:
        """End a grant. Returns who still reaches the block."""
        answer = self._delete(path("blocks", block_id, "grants", from_))
        return [values.plain(Reach, item) for item in answer["reach"]]

    def rotate(self, block_id: str) -> int:
        """Change a block's keys. Returns the number of the new epoch."""
        return int(self._post(path("blocks", block_id, "rotate"))["epoch"])

    def grants(self, block_id: str) -> list[Grant]:
        """The live grants that the caller may know of."""
        return [values.grant(item) for item in self._get(path("blocks", block_id, "grants"))]

    def reach(self, block_id: str) -> list[Reach]:
        """Who can reach a block, and why."""
        return [values.plain(Reach, item) for item in self._get(path("blocks", block_id, "access"))]

    def why(self, principal: str, block_id: str) -> list[Reach]:
        """Why one principal can; empty if it cannot."""
        where = f"{path('blocks', block_id, 'access')}?{urlencode({'principal': principal})}"
        return [values.plain(Reach, item) for item in self._get(where)]

    def transfer(self, block_id: str, to: str) -> None:
        """Offer a user the ownership of a block."""
        self._post(path("blocks", block_id, "transfer"), {"to": to})

    def accept_transfer(self, block_id: str) -> Block:
        """Become the owner of a block that its owner hands over."""
        return values.block(self._post(path("blocks", block_id, "transfer", "accept")))

    def cancel_transfer(self, block_id: str) -> None:
        """Take back an offered transfer."""
        self._delete(path("blocks", block_id, "transfer"))

    def offers(self) -> list[Offer]:
        """What others have shared, not yet accepted."""
        return [values.plain(Offer, item) for item in self._get("/v1/offers")]

    def accept_offer(self, offered: str) -> Block | None:
        """Take an offer: a block, or the membership of a role (None is returned then)."""
        answer = self._post(path("offers", offered, "accept"))
        return None if answer is None else values.block(answer)

    def decline_offer(self, offered: str) -> None:
        """Put an offer away."""
        self._post(path("offers", offered, "decline"))

    def access(self) -> list[Access]:
        """The access matrix, a cell each."""
        return [values.plain(Access, item) for item in self._get("/v1/access")]

    # -- roles --

    def create_role(
        self, name: str, *, description: str = "", clearance: str | None = None, history: bool = True
    ) -> Role:
        """A new role of the caller's."""
        body = {"name": name, "description": description, "clearance": clearance, "history": history}
        return values.role(self._post("/v1/roles", body))

    def roles(self) -> list[Role]:
        """The roles that the caller owns or is in."""
        return [values.role(item) for item in self._get("/v1/roles")]

    def role(self, role: str) -> Role:
        """One role (by id or name) with its members."""
        return values.role(self._get(path("roles", role)))

    def add_members(self, role: str, who: Iterable[str], *, until: date | None = None) -> Role:
        """Add members to one of the caller's roles, all or none."""
        body = {"members": list(who), "until": until}
        return values.role(self._post(path("roles", role, "members"), body))

    def remove_member(self, role: str, who: str) -> Role:
        """Take somebody out of a role of the caller's."""
        return values.role(self._delete(path("roles", role, "members", who)))

    def delete_role(self, role: str) -> None:
        """End a role of the caller's."""
        self._delete(path("roles", role))

    # -- agents --

    def agents(self) -> list[Agent]:
        """All agents that the caller sponsors, without their blocks."""
        return [values.agent(item) for item in self._wire.pages("/v1/agents/", include="agent.blocks")]

    def agent(self, agent_id: str) -> Agent:
        """One agent with its blocks."""
        return values.agent(self._get(path("agents", agent_id) + "?include=agent.blocks&include=agent.tools"))

    # -- principals, tokens, the charter --

    def users(self) -> list[Principal]:
        """The users of the workspace."""
        return [values.plain(Principal, item) for item in self._get("/v1/users")]

    def add_user(self, name: str, *, clearance: str | None = None) -> Credentials:
        """A new user, with a token and a recovery kit that exist nowhere else."""
        return values.plain(Credentials, self._post("/v1/users", {"name": name, "clearance": clearance}))

    def suspend(self, who: str) -> None:
        """Stop a user, or one of the caller's agents."""
        self._post(path("users", who, "suspend"))

    def resume(self, who: str) -> None:
        """Let it go on."""
        self._post(path("users", who, "resume"))

    def set_clearance(self, who: str, level: str | None) -> None:
        """The highest level that a user, one of the caller's agents or roles may be granted."""
        kind = "roles" if who.startswith("role-") else "users"
        self._patch(path(kind, who), {"clearance": level})

    def invite(self, name: str, *, clearance: str | None = None, days: int = 7) -> str:
        """The code that makes one user with this name."""
        body = {"name": name, "clearance": clearance, "days": days}
        return str(self._post("/v1/invitations", body)["code"])

    def invitations(self) -> list[InviteInfo]:
        """What is still to be redeemed."""
        return [values.invitation(item) for item in self._get("/v1/invitations")]

    def revoke_invitation(self, kid: str) -> None:
        """Take an invitation back."""
        self._delete(path("invitations", kid))

    def charter(self) -> CharterView:
        """The workspace's own rules."""
        return values.charter(self._get("/v1/charter"))

    def set_charter(
        self,
        *,
        trust: bool | None = None,
        levels: Iterable[str] | None = None,
        max_grants: int | None = None,
    ) -> CharterView:
        """Change some of them."""
        named = None if levels is None else list(levels)
        body = {"trust": trust, "levels": named, "max_grants": max_grants}
        return values.charter(self._patch("/v1/charter", body))

    def tokens(self) -> list[TokenInfo]:
        """The caller's tokens and its agents'."""
        return [values.token(item) for item in self._get("/v1/tokens")]

    def create_token(self, *, scope: str = "full", expires: datetime | None = None, label: str = "") -> str:
        """Another token for the caller."""
        return self._new_token({"scope": scope, "label": label}, expires)

    def agent_token(
        self, agent_id: str, *, scope: str = "full", expires: datetime | None = None, label: str = ""
    ) -> str:
        """A token that carries only this agent."""
        return self._new_token({"agent_id": agent_id, "scope": scope, "label": label}, expires)

    def _new_token(self, body: dict[str, str], expires: datetime | None) -> str:
        if expires is not None:
            body["expires"] = expires.isoformat()
        return str(self._post("/v1/tokens", body)["token"])

    def revoke_token(self, kid: str) -> None:
        """End a token of the caller's or its agents'."""
        self._delete(path("tokens", kid))

    # -- the log --

    def events(self, limit: int = 50, after: int | None = None) -> list[AuditEvent]:
        """The newest log events (or those after leaf `after`) that the caller may open, oldest first."""
        asked = {"limit": limit} if after is None else {"limit": limit, "after": after}
        return [values.event(item) for item in self._get(f"/v1/audit/events?{urlencode(asked)}")]
