"""A vault behind a URL: the part of it that the command line uses, over the HTTP routes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import date, datetime
from typing import IO, Any
from urllib.parse import urlencode

from tallystone import errors
from tallystone.cli import values
from tallystone.cli.remote_log import RemoteAuditors
from tallystone.cli.remote_people import RemotePeople
from tallystone.cli.remote_roots import RemoteRoots
from tallystone.cli.wire import Wire, path
from tallystone.vault.answers import AuditPage, Span
from tallystone.vault.questions import Question
from tallystone.vault.types import (
    Access,
    Agent,
    AuditEvent,
    Block,
    Change,
    Credentials,
    Grant,
    Offer,
    Reach,
    Receipt,
    Role,
)
from tallystone.vault.versions import Blame, Difference, PastVersion, Undone, Versions
from tallystone.vault.watching import ended

_ATTEMPTS = 20
_REDIALS = 10
"""How often in a row a stream is taken up again, some 40 seconds in all, before that is an error."""


def redeem(url: str, code: str) -> Credentials:
    """The user that an invitation's code makes, at the server of `url`. Raises `Unauthenticated`."""
    answer, _ = Wire(url, None).call("POST", "/v1/invitations/redeem", {"code": code})
    return values.plain(Credentials, answer)


class RemoteVault(RemotePeople, RemoteRoots, RemoteAuditors):
    """What the token's principal can do, over HTTP. Same methods and values as `Vault`, fewer of them."""

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

    def watch(self, *block_ids: str) -> Iterator[Change]:
        """The changes of the caller's blocks, or of these, from now on. A stream that is lost is taken up again."""
        where = "/v1/events" + (
            "?" + urlencode([("block_id", one) for one in block_ids]) if block_ids else ""
        )
        events = self._wire.listen(where, None)
        begun = next(events, None)
        if begun is None:
            raise errors.StoreError("the stream of changes did not begin", hint="try again")
        return self._follow(where, events, begun[0])

    def _follow(self, where: str, events: Iterator[tuple[str, Any]], after: str) -> Iterator[Change]:
        lost = 0
        while True:
            try:
                for place, body in events:
                    after, lost = place, 0
                    change = values.change(body, place)
                    if change.kind == "end" and change.code != "stopping":
                        raise ended(change.code)
                    if change.kind not in ("ready", "end"):
                        yield change
            except errors.StoreError:
                if lost >= _REDIALS:
                    raise
            lost += 1
            time.sleep(
                min(0.1 * 2**lost, 5.0)
            )  # a person waits at a terminal; a server that starts needs a moment
            events = self._wire.listen(where, after)

    def erase_block(self, block_id: str) -> Receipt:
        """Erase a block for good."""
        return values.receipt(self._post(path("blocks", block_id, "erase")))

    def erase_version(self, block_id: str, number: int) -> Receipt:
        """Erase an earlier version of a block for good."""
        return values.receipt(self._post(path("blocks", block_id, "versions", str(number), "erase")))

    def erase_me(self, confirm: str) -> Receipt:
        """Erase this user with everything it owns."""
        return values.receipt(self._post("/v1/users/me/erase", {"confirm": confirm}))

    def export(self, target: IO[bytes], *, versions: bool = False) -> None:
        """Write the archive of everything that is this principal's."""
        self._wire.download("/v1/export" + ("?versions=true" if versions else ""), target)

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

    def rotate(self, block_id: str, *, progress: Callable[[int, int], None] | None = None) -> int:
        """Change a block's keys, in one request: `progress` hears nothing. Returns the number of the new epoch."""
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

    # -- earlier versions --

    def versions(self, block_id: str, *, limit: int | None = 50, before: int | None = None) -> Versions:
        """The versions of a block, newest first."""
        asked = {"limit": limit or 0} if before is None else {"limit": limit or 0, "before": before}
        return values.versions(self._get(f"{path('blocks', block_id, 'versions')}?{urlencode(asked)}"))

    def version(self, block_id: str, number: int) -> PastVersion:
        """One version with its content as it was."""
        return values.past_version(self._get(path("blocks", block_id, "versions", str(number))))

    def diff(self, block_id: str, before: int, after: int) -> Difference:
        """What changed from one version to another."""
        where = path("blocks", block_id, "versions", str(before), "diff")
        return values.plain(Difference, self._get(f"{where}?to={after}"))

    def blame(self, block_id: str) -> Blame:
        """Which principal wrote which line."""
        return values.blame(self._get(path("blocks", block_id, "blame")))

    def restore(self, block_id: str, number: int) -> Block:
        """A new version with the content of an earlier one."""
        return values.block(self._post(path("blocks", block_id, "restore"), {"version": number}))

    def undo(
        self, principal: str, since: datetime | int, block_id: str | None = None, *, dry_run: bool = False
    ) -> list[Undone]:
        """Take back what a principal wrote since then, in one block or in all."""
        moment = since.isoformat() if isinstance(since, datetime) else since
        body = {"principal": principal, "since": moment, "block_id": block_id, "dry_run": dry_run}
        return [values.undone(item) for item in self._post("/v1/undo", body)]

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

    def contact(self, agent_id: str) -> Block:
        """The block that names one of the caller's agents to others, made if there is none."""
        return values.block(self._post(path("agents", agent_id, "contact")))

    # -- the log --

    def events(self, limit: int = 50, after: int | None = None) -> list[AuditEvent]:
        """The newest log events (or those after leaf `after`) that the caller may open, oldest first."""
        asked = {"limit": limit} if after is None else {"limit": limit, "after": after}
        return [values.event(item) for item in self._get(f"/v1/audit/events?{urlencode(asked)}")]

    def search_log(self, question: Question, span: Span | None = None, limit: int = 100) -> AuditPage:
        """A page of the events that the caller may open and that answer a question."""
        asked = values.question(question, span or Span(), limit)
        return values.audit_page(self._get(f"/v1/audit/events?{urlencode(asked)}"), span or Span())
