"""Request bodies about MCP servers, and what of a server may be shown. Unknown fields are ignored, wrong types are 422.

Secrets go in and do not come out: an answer shows the URL without its query and the names of headers. So that a client
may send back what it read, an empty or absent secret in a change, and the URL as it was shown, mean what is kept.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from tallystone.errors import Invalid
from tallystone.letta.hosts import origin
from tallystone.letta.wire import stamp
from tallystone.vault.types import ToolAccess, ToolServer

KINDS = ("streamable_http", "sse")
MAX_HEADERS = 32
"""Headers of one server."""
_MAX_URL, _MAX_VALUE = 2000, 8000
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
_OURS = frozenset(
    {
        "accept",
        "accept-encoding",
        "connection",
        "content-length",
        "content-type",
        "expect",
        "host",
        "keep-alive",
        "last-event-id",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)

Name = Annotated[str, Meta(min_length=1, max_length=200)]


class Config(msgspec.Struct):
    """How a server is reached. `command` and `args` belong to servers that are programs, which are not run here."""

    mcp_server_type: str | None = None
    server_url: str | None = None
    auth_header: str | None = None
    auth_token: str | None = None
    custom_headers: dict[str, str] | None = None
    command: Any = None
    args: Any = None


class ServerCreate(msgspec.Struct):
    """`POST /v1/mcp-servers/`."""

    server_name: Name
    config: Config


class ServerUpdate(msgspec.Struct):
    """`PATCH /v1/mcp-servers/{mcp_server_id}`. What is null or absent stays; `custom_headers` replaces them all."""

    config: Config | None = None
    server_name: Name | None = None


def access_of(config: Config, before: ToolAccess | None = None) -> ToolAccess:
    """How the server is called, with what is kept of `before`. Raises `Invalid`; no value is in its message."""
    kind = config.mcp_server_type or (before.kind if before is not None else KINDS[0])
    if kind == "stdio" or config.command is not None:
        raise Invalid(
            "an MCP server of type stdio is a program, and this server runs none",
            hint="start it yourself with an HTTP transport, and name its server_url",
        )
    if kind not in KINDS:
        raise Invalid("mcp_server_type is none that is known", hint=f"use {' or '.join(KINDS)}")
    old = before or ToolAccess(kind, "")
    url = config.server_url
    if url is None or (before is not None and url == shown_url(old.url)):
        url = old.url
    origin(url)
    if len(url) > _MAX_URL or "#" in url or not url.isascii() or " " in url:
        raise Invalid("server_url cannot be called", hint=f"up to {_MAX_URL} ASCII characters, without a #")
    headers = dict(old.headers) if config.custom_headers is None else dict(config.custom_headers)
    if len(headers) > MAX_HEADERS:
        raise Invalid(f"there are more than {MAX_HEADERS} custom_headers", hint="send fewer")
    found = ToolAccess(
        kind,
        url,
        old.auth_header if config.auth_header is None else config.auth_header,
        config.auth_token or old.auth_token,
        {name: value or old.headers.get(name, "") for name, value in headers.items()},
    )
    _check_headers({**found.headers, found.auth_header or "Authorization": found.auth_token})
    return found


def _check_headers(headers: Mapping[str, str]) -> None:
    for name, value in headers.items():
        if not _HEADER.fullmatch(name) or name.lower() in _OURS or name.lower().startswith("mcp-"):
            raise Invalid(
                "a header has a name that cannot be sent",
                hint="letters, digits and hyphens; Host, Accept, Content-*, Mcp-* and their like are the protocol's",
            )
        if (
            len(value) > _MAX_VALUE
            or not value.isascii()
            or not value.isprintable()
            or value != value.strip()
        ):
            raise Invalid(
                "a header or the auth_token has a value that cannot be sent",
                hint=f"up to {_MAX_VALUE} printable ASCII characters",
            )


def shown_url(url: str) -> str:
    """A URL as it may be shown: keys travel in queries."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}{parts.path}" + ("?..." if parts.query else "")


def shown(name: str, access: ToolAccess) -> dict[str, Any]:
    """The fields of a server's record that its owner may see, also with a token that only reads."""
    return {
        "name": name,
        "kind": access.kind,
        "url": shown_url(access.url),
        "auth_header": access.auth_header,
        "headers": list(access.headers),
    }


def server_json(server: ToolServer) -> dict[str, Any]:
    """`StreamableHTTPMcpServer` or `SseMcpServer`, and our extras: the times."""
    return {
        "id": server.id,
        "server_name": server.name,
        "mcp_server_type": server.kind,
        "server_url": server.url,
        "auth_header": server.auth_header or None,
        "auth_token": None,
        "custom_headers": dict.fromkeys(server.headers, ""),
        "created_at": stamp(server.created_at),
        "updated_at": stamp(server.updated_at),
        "tools_fetched_at": None if server.fetched_at is None else stamp(server.fetched_at),
    }
