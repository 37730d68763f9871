"""A vault behind a URL: the part of it that the command line uses, over the HTTP routes.

The standard library's client is enough. Redirects are refused: the token goes to the place that was named and to no
other.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import json
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from email.message import Message
from http.client import HTTPException
from typing import IO, Any, TypeVar
from urllib.parse import quote, urlencode, urlsplit

from tallystone import errors
from tallystone.cli.terminal import warn
from tallystone.vault.types import (
    EXTRA_FIELDS,
    Access,
    Agent,
    AuditEvent,
    Block,
    Credentials,
    Grant,
    Offer,
    Principal,
    Reach,
    TokenInfo,
)

T = TypeVar("T")

TIMEOUT = 60
"""Seconds that one request may take."""
PAGE = 100
"""Items asked for at a time."""
_ATTEMPTS = 20

_BY_STATUS: dict[int, type[errors.TallystoneError]] = {
    kind.status: kind
    for kind in (
        errors.Unauthenticated,
        errors.Denied,
        errors.NotFound,
        errors.Invalid,
        errors.Rejected,
        errors.PreconditionFailed,
        errors.Locked,
        errors.Conflict,
        errors.StoreError,
    )
}


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> None:
        return None


class RemoteVault:
    """What the token's principal can do, over HTTP. Same methods and values as `Vault`, fewer of them."""

    def __init__(self, url: str, token: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise errors.Invalid(f"not a URL: {url}", hint="like http://127.0.0.1:8283")
        self._base = url.rstrip("/")
        self._token = token
        local = _loopback(parts.hostname)
        if parts.scheme == "http" and not local:
            warn(f"the token goes to {parts.hostname} unencrypted; use https")
        handlers: list[urllib.request.BaseHandler] = [_NoRedirect()]
        if local:
            handlers.append(urllib.request.ProxyHandler({}))
        self._opener = urllib.request.build_opener(*handlers)

    # -- blocks --

    def blocks(self) -> list[Block]:
        """All blocks, in the order they came to the shelf."""
        return [_block(item) for item in self._pages("/v1/blocks/")]

    def block(self, block_id: str) -> Block:
        """One block. `NotFound` for anything not granted."""
        return _block(self._call("GET", _path("blocks", block_id))[0])

    def create_block(self, *, label: str, value: str = "", **fields: Any) -> Block:
        """A new block owned by the caller; fields as the routes take them."""
        sent = {name: field for name, field in fields.items() if field is not None}
        return _block(self._call("POST", "/v1/blocks/", {"label": label, "value": value, **sent})[0])

    def edit_block(
        self, block_id: str, edit: Callable[[Block], Mapping[str, object]], *, if_version: int | None = None
    ) -> Block:
        """Apply `edit` to the block as it is now; done again when somebody else was faster.

        With `if_version` it happens on that version or not at all (`PreconditionFailed`).
        """
        path = _path("blocks", block_id)
        for _ in range(_ATTEMPTS):
            body, tag = self._call("GET", path)
            current = _block(body)
            if if_version is not None and current.version != if_version:
                raise errors.PreconditionFailed(
                    f"the block is at version {current.version}, not {if_version}", hint="read it again"
                )
            changes = dict(edit(current))
            if not changes:
                return current
            try:
                return _block(self._call("PATCH", path, changes, if_match=tag)[0])
            except errors.PreconditionFailed:
                if if_version is not None:
                    raise
        raise errors.Conflict("others keep changing the block", hint="try again")

    def delete_block(self, block_id: str) -> None:
        """Delete the block for everybody."""
        self._call("DELETE", _path("blocks", block_id))

    # -- sharing --

    def share(self, block_id: str, with_: str, can: str = "read") -> Grant:
        """Grant a block to a user (by name or id) or an agent (by id)."""
        body = {"recipient": with_, "can": can}
        return _plain(Grant, self._call("POST", _path("blocks", block_id, "grants"), body)[0])

    def revoke(self, block_id: str, from_: str) -> list[Reach]:
        """End a grant. Returns who still reaches the block."""
        answer, _ = self._call("DELETE", _path("blocks", block_id, "grants", from_))
        return [_plain(Reach, item) for item in answer["still_reachable"]]

    def grants(self, block_id: str) -> list[Grant]:
        """The live grants that the caller may know of."""
        return [_plain(Grant, item) for item in self._call("GET", _path("blocks", block_id, "grants"))[0]]

    def offers(self) -> list[Offer]:
        """What others have shared, not yet accepted."""
        return [_plain(Offer, item) for item in self._call("GET", "/v1/offers")[0]]

    def accept_offer(self, block_id: str) -> Block:
        """Take an offer."""
        return _block(self._call("POST", _path("offers", block_id, "accept"))[0])

    def decline_offer(self, block_id: str) -> None:
        """Put an offer away."""
        self._call("POST", _path("offers", block_id, "decline"))

    def access(self) -> list[Access]:
        """The access matrix, a cell each."""
        return [_plain(Access, item) for item in self._call("GET", "/v1/access")[0]]

    # -- agents --

    def agents(self) -> list[Agent]:
        """All agents that the caller sponsors, without their blocks."""
        return [_agent(item) for item in self._pages("/v1/agents/", include="agent.blocks")]

    def agent(self, agent_id: str) -> Agent:
        """One agent with its blocks."""
        path = _path("agents", agent_id) + "?include=agent.blocks&include=agent.tools"
        return _agent(self._call("GET", path)[0])

    # -- principals and tokens --

    def users(self) -> list[Principal]:
        """The users of the workspace."""
        return [_plain(Principal, item) for item in self._call("GET", "/v1/users")[0]]

    def add_user(self, name: str) -> Credentials:
        """A new user, with a token and a recovery kit that exist nowhere else."""
        return _plain(Credentials, self._call("POST", "/v1/users", {"name": name})[0])

    def tokens(self) -> list[TokenInfo]:
        """The caller's tokens and its agents'."""
        return [_token(item) for item in self._call("GET", "/v1/tokens")[0]]

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
        return str(self._call("POST", "/v1/tokens", body)[0]["token"])

    def revoke_token(self, kid: str) -> None:
        """End a token of the caller's or its agents'."""
        self._call("DELETE", _path("tokens", kid))

    # -- the log --

    def events(self, limit: int = 50, after: int | None = None) -> list[AuditEvent]:
        """The newest log events (or those after leaf `after`) that the caller may open, oldest first."""
        asked = {"limit": limit} if after is None else {"limit": limit, "after": after}
        return [_event(item) for item in self._call("GET", f"/v1/audit/events?{urlencode(asked)}")[0]]

    # -- the wire --

    def _pages(self, path: str, **query: str) -> Iterator[Any]:
        after: str | None = None
        while True:
            asked = {"limit": str(PAGE), "order": "asc", **query}
            if after is not None:
                asked["after"] = after
            items, _ = self._call("GET", f"{path}?{urlencode(asked)}")
            if not items:
                return
            yield from items
            after = items[-1]["id"]

    def _call(
        self, method: str, path: str, body: object = None, *, if_match: str | None = None
    ) -> tuple[Any, str | None]:
        headers = {"Authorization": f"Bearer {self._token}", "Accept": "application/json"}
        content = None
        if body is not None:
            content = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        if if_match is not None:
            headers["If-Match"] = if_match
        request = urllib.request.Request(self._base + path, content, headers, method=method)
        try:
            with self._opener.open(request, timeout=TIMEOUT) as answer:
                return json.loads(answer.read() or b"null"), answer.headers.get("ETag")
        except urllib.error.HTTPError as refused:
            with refused:
                raise _refusal(refused.code, refused.headers, refused.read(1 << 20)) from None
        except (OSError, HTTPException) as problem:
            reason = getattr(problem, "reason", problem)
            reason = getattr(reason, "strerror", None) or reason
            raise errors.StoreError(
                f"no answer from {self._base}: {reason}", hint="is the server running, and the URL right?"
            ) from None
        except ValueError:
            raise errors.StoreError(
                f"{self._base} does not answer as Tallystone does", hint="check the URL"
            ) from None


def _path(*segments: str) -> str:
    return "/v1/" + "/".join(quote(segment, safe="") for segment in segments)


def _loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _refusal(status: int, headers: Message, body: bytes) -> errors.TallystoneError:
    kind = _BY_STATUS.get(status, errors.TallystoneError)
    try:
        answer = json.loads(body)
        detail = str(answer["detail"])
        error = answer.get("error") or {}
        return kind(detail, hint=str(error.get("hint") or ""), code=error.get("code"))
    except (ValueError, KeyError, TypeError, AttributeError):
        return kind(f"the server answered {status}", hint="is this URL a Tallystone server?")


def _time(text: object) -> datetime:
    return datetime.fromisoformat(str(text)) if text else datetime.fromtimestamp(0, UTC)


def _block(item: Mapping[str, Any]) -> Block:
    return Block(
        id=item["id"],
        label=item.get("label") or "",
        value=item.get("value") or "",
        description=item.get("description"),
        limit=item.get("limit") or 0,
        read_only=bool(item.get("read_only")),
        locked=bool(item.get("locked")),
        tags=list(item.get("tags") or ()),
        metadata=dict(item.get("metadata") or {}),
        extra={name: item[name] for name in EXTRA_FIELDS if item.get(name) is not None},
        version=item.get("version") or 0,
        created_at=_time(item.get("created_at")),
        updated_at=_time(item.get("updated_at")),
        owner=item.get("owner") or "",
        created_by=item.get("created_by_id") or "",
        updated_by=item.get("last_updated_by_id") or "",
        updated_under=item.get("updated_under"),
        rights=item.get("rights") or "",
        agent_ids=list(item.get("agent_ids") or ()),
        position=0,
        offered=bool(item.get("offered")),
    )


def _agent(item: Mapping[str, Any]) -> Agent:
    memory = item.get("memory") or {}
    tools = [
        tool.get("name", "") if isinstance(tool, dict) else str(tool) for tool in item.get("tools") or ()
    ]
    return Agent(
        id=item["id"],
        name=item.get("name") or "",
        state={**item, "tools": tools},
        blocks=[_block(block) for block in item.get("blocks") or memory.get("blocks") or ()],
        created_at=_time(item.get("created_at")),
        updated_at=_time(item.get("updated_at")),
        version=item.get("version") or 0,
        position=0,
        sponsor=item.get("created_by_id") or "",
    )


def _plain(kind: type[T], item: Mapping[str, Any]) -> T:
    """One of the vault's values from its fields; what a newer server says beyond them is left out."""
    # callers pass dataclasses only, for which the type system has no name
    fields = dataclasses.fields(kind)  # type: ignore[arg-type]
    return kind(**{field.name: item[field.name] for field in fields})


def _token(item: Mapping[str, Any]) -> TokenInfo:
    expires = int(_time(item["expires"]).timestamp()) if item.get("expires") else None
    times = {"created": int(_time(item["created"]).timestamp()), "expires": expires}
    return _plain(TokenInfo, {**item, **times})


def _event(item: Mapping[str, Any]) -> AuditEvent:
    return AuditEvent(
        seq=item["seq"],
        minute=int(_time(item["time"]).timestamp()) // 60,
        kind=item["kind"],
        actor=item["actor"],
        under=item.get("under") or "",
        detail=dict(item.get("detail") or {}),
    )
