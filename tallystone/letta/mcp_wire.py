"""The MCP protocol, by the client of the package `mcp`: listing a server's tools, and calling one.

Each function opens a session, asks, and closes it. Of what the library would do besides, three things are left out: it
follows redirects within an origin, it checks results against a schema of the server's (foreign patterns, run on the
event loop), and it writes what it hears to its log.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
from mcp.client.client import Client
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError
from mcp_types import (
    HEADER_MISMATCH,
    AudioContent,
    CallToolRequest,
    CallToolRequestParams,
    CallToolResult,
    EmbeddedResource,
    ImageContent,
    Implementation,
    InputRequiredResult,
    PaginatedRequestParams,
    ResourceLink,
    TextContent,
    TextResourceContents,
)
from pydantic import TypeAdapter

from tallystone import __version__
from tallystone.letta import outbound
from tallystone.letta.outbound import Elsewhere

for _name in ("mcp", "httpx2", "httpcore2"):
    # their lines quote answers, and with debugging on requests and headers
    logging.getLogger(_name).setLevel(logging.CRITICAL)

MAX_PAGES = 50
"""Pages of a list of tools that are read."""
MAX_LISTED = 1000
"""Tools of a list that are looked at."""
MAX_SESSION = 8 * 1024 * 1024
"""Bytes that a server may send in one session."""
_CLOSING_SECONDS = (
    2.0  # to say goodbye to a server: nobody waits longer for that, not even one who was cancelled
)

_RESULT: TypeAdapter[CallToolResult | InputRequiredResult] = TypeAdapter(CallToolResult | InputRequiredResult)


class NotAdmitted(httpx2.RequestError):
    """The server wants other credentials, or none that we have will do."""


class Asks(Exception):
    """The server wants something of a person or a model before it goes on."""


@dataclass(frozen=True)
class Listed:
    """A tool as its server describes it. Nothing of it was checked."""

    name: str
    description: str
    schema: Mapping[str, Any]


class _Endpoint(outbound.OneOrigin):
    """One origin, no redirects, a session's answers of at most `MAX_SESSION` bytes together."""

    def __init__(self, url: str, inner: httpx2.AsyncBaseTransport) -> None:
        super().__init__(url, inner)
        self._budget = outbound.Budget(MAX_SESSION)

    def budget(self) -> outbound.Budget:
        """The one of the session."""
        return self._budget

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Pass a request on. Raises `Elsewhere` for a redirect, `NotAdmitted` for 401 and 403."""
        async with asyncio.timeout(_CLOSING_SECONDS if request.method == "DELETE" else None):
            response = await super().handle_async_request(request)
        if response.status_code in (401, 403) or 300 <= response.status_code < 400:
            await response.aclose()
            if response.status_code < 400:
                raise Elsewhere("redirects are not followed")
            raise NotAdmitted("the credentials are not accepted")
        return response


@asynccontextmanager
async def _connected(
    kind: str, url: str, headers: Mapping[str, str], seconds: float
) -> AsyncIterator[Client]:
    http = outbound.client(url, seconds, through=_Endpoint, headers=headers)
    info = Implementation(name="tallystone", version=__version__)
    if kind == "sse":

        def ours(
            headers: dict[str, str] | None = None,
            timeout: httpx2.Timeout | None = None,
            auth: httpx2.Auth | None = None,
        ) -> httpx2.AsyncClient:
            return http

        old = sse_client(url, httpx_client_factory=ours)
        session = Client(old, mode="legacy", read_timeout_seconds=seconds, client_info=info, cache=None)
        async with session as client:
            yield client
        return
    async with http:
        transport = streamable_http_client(url, http_client=http)
        async with Client(transport, read_timeout_seconds=seconds, client_info=info, cache=None) as client:
            yield client


async def list_tools(
    kind: str, url: str, headers: Mapping[str, str], seconds: float
) -> tuple[list[Listed], bool]:
    """The tools that a server offers, and whether there were more than are looked at. Raises what the library does."""
    found: list[Listed] = []
    async with _connected(kind, url, headers, seconds) as client:
        cursor: str | None = None
        for _ in range(MAX_PAGES):
            asked = PaginatedRequestParams(cursor=cursor) if cursor is not None else None
            page = await client.session.list_tools(params=asked)
            found += [Listed(tool.name, tool.description or "", tool.input_schema) for tool in page.tools]
            cursor = page.next_cursor
            if cursor is None or len(found) > MAX_LISTED:
                break
    return found[:MAX_LISTED], cursor is not None or len(found) > MAX_LISTED


async def call_tool(
    kind: str, url: str, headers: Mapping[str, str], seconds: float, name: str, arguments: dict[str, Any]
) -> tuple[bool, str]:
    """(whether it went well, what it returned in words). Raises what the library does, and `Asks`."""
    request = CallToolRequest(params=CallToolRequestParams(name=name, arguments=arguments))
    async with _connected(kind, url, headers, seconds) as client:
        try:
            result = await client.session.send_request(request, _RESULT)
        except MCPError as error:
            if error.code != HEADER_MISMATCH:
                raise
            # the server wants some arguments in headers as well, which the session learns from the list
            await client.session.list_tools()
            result = await client.session.send_request(request, _RESULT)
    if isinstance(result, InputRequiredResult):
        raise Asks
    parts = [_words(part) for part in result.content]
    if not parts and result.structured_content is not None:
        parts = [json.dumps(result.structured_content, ensure_ascii=False)]
    return not result.is_error, "\n".join(parts)


def _size(base64: str) -> int:
    return len(base64) * 3 // 4 - base64[-2:].count("=")


def _words(part: Any) -> str:
    """A part of a result as text: what is none is described."""
    if isinstance(part, TextContent):
        return part.text
    if isinstance(part, ImageContent | AudioContent):
        what = "an image" if isinstance(part, ImageContent) else "a sound"
        return f"({what}, {part.mime_type}, {_size(part.data)} bytes, is not shown)"
    if isinstance(part, ResourceLink):
        return f"(a link to the resource {part.name}: {part.uri})"
    if isinstance(part, EmbeddedResource):
        if isinstance(part.resource, TextResourceContents):
            return part.resource.text
        return f"(a resource of {_size(part.resource.blob)} bytes is not shown)"
    return "(something that is no text is not shown)"
