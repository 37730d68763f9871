"""Bounds on what is read from a socket, before anything is made of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from itertools import chain

from starlette.types import Receive

from tallystone.server.errors import Refusal, overloaded, too_large

MAX_TARGET = 16 * 1024
"""Bytes of path and query."""
MAX_HEADERS = 32 * 1024
"""Bytes of all header names and values."""
BODY_SECONDS = 50
"""Seconds that a body may take to arrive; below the 60 that clients wait."""


MAX_BODIES = 256 * 1024 * 1024
"""Bytes of bodies that a process holds, of all requests together; at least four of the largest."""


class Bodies:
    """How many bytes of bodies are held at the moment. Used on the event loop."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.held = 0

    def take(self, size: int) -> None:
        """Count bytes that have arrived. Raises `Refusal` (503) when there are too many already."""
        if self.held + size > self._most:
            raise overloaded()
        self.held += size


class Gone(Exception):
    """The client went away before its request was whole."""


def check_head(raw_path: bytes, query: bytes, headers: Sequence[tuple[bytes, bytes]]) -> None:
    """Raises `Refusal` for a path (414) or headers (431) beyond the bounds."""
    if len(raw_path) + len(query) > MAX_TARGET:
        raise target_too_long()
    if sum(map(len, chain.from_iterable(headers))) > MAX_HEADERS:
        raise headers_too_large()


def target_too_long() -> Refusal:
    """414: path and query are longer than the bound."""
    return Refusal(
        414, "target_too_long", f"path and query are longer than {MAX_TARGET} bytes", hint="shorten them"
    )


def headers_too_large() -> Refusal:
    """431: the headers are larger than the bound."""
    return Refusal(
        431, "headers_too_large", f"the headers are larger than {MAX_HEADERS} bytes", hint="send fewer"
    )


def has_body(headers: Mapping[str, str]) -> bool:
    """Whether a body follows the head: what declares none has none (RFC 9112, 6.3)."""
    return headers.get("content-length", "0") != "0" or "transfer-encoding" in headers


async def read_body(
    receive: Receive, headers: Mapping[str, str], limit: int, take: Callable[[int], None] = lambda _: None
) -> bytes:
    """The whole body. Raises `Refusal` as soon as it is known to exceed `limit` (413) or comes too slowly (408), and
    what `take` raises of the bytes that have arrived."""
    if not has_body(headers):
        return b""
    declared = headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise too_large(limit)
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return await _read(receive, limit, take)
    except TimeoutError:
        raise Refusal(408, "slow_body", "the body took too long to arrive", hint="send it again") from None


async def _read(receive: Receive, limit: int, take: Callable[[int], None]) -> bytes:
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Gone
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > limit:
            raise too_large(limit)
        take(len(chunk))
        chunks.append(chunk)
        if not message.get("more_body", False):
            return b"".join(chunks)
