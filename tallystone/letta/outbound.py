"""HTTP that leaves the server: to one origin and no other, no further than one answer of bounded size."""

from __future__ import annotations

import os
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from functools import cache

import httpx2

from tallystone.letta.hosts import origin

MAX_ANSWER = 16 * 1024 * 1024
"""Bytes of one answer, streamed or not."""


class Elsewhere(httpx2.RequestError):
    """A call that would have left for another host than the one it was made for."""


class Unfit(httpx2.RequestError):
    """An answer that is larger than any should be, or packed although that was not asked for."""


def client(
    url: str,
    seconds: float,
    *,
    through: Callable[[str, httpx2.AsyncBaseTransport], OneOrigin] | None = None,
    headers: Mapping[str, str] | None = None,
) -> httpx2.AsyncClient:
    """A client for this URL's origin alone. It follows no redirect and takes no proxy from the environment. `through`
    is a stricter `OneOrigin`; `headers` go with each request."""
    trusted = _authorities(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))
    return httpx2.AsyncClient(
        transport=(through or OneOrigin)(url, httpx2.AsyncHTTPTransport(verify=trusted, retries=0)),
        timeout=httpx2.Timeout(seconds, connect=min(10.0, seconds)),
        follow_redirects=False,
        # what arrives is counted before it would be unpacked
        headers={**(headers or {}), "accept-encoding": "identity"},
    )


@cache
def _authorities(file: str | None, folder: str | None) -> ssl.SSLContext:
    """Whom TLS trusts: read once, for that takes 40 ms, and anew when the environment names another file or folder."""
    return httpx2.create_ssl_context()


@dataclass
class Budget:
    """Bytes that may still arrive."""

    left: int


class OneOrigin(httpx2.AsyncBaseTransport):
    """Refuses each request to another scheme, host or port: keys travel in headers, which redirects carry along."""

    def __init__(self, url: str, inner: httpx2.AsyncBaseTransport) -> None:
        self._origin = origin(url)
        self._inner = inner

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Pass on what goes to the origin. Raises `Elsewhere` for anything else."""
        if origin(str(request.url)) != self._origin:
            raise Elsewhere("this call may not leave for another host")
        response = await self._inner.handle_async_request(request)
        if response.headers.get("content-encoding", "identity") != "identity":
            await response.aclose()
            raise Unfit("the answer is packed")
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        response.stream = _Bounded(response.stream, self.budget())
        return response

    def budget(self) -> Budget:
        """What the answer that begins now may have: each its own, unless a stricter transport says otherwise."""
        return Budget(MAX_ANSWER)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._inner.aclose()


class Nowhere(httpx2.BaseTransport):
    """For clients that a library wants to have and that are not to be used."""

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Raise `Elsewhere`."""
        raise Elsewhere("this call may not leave")


class _Bounded(httpx2.AsyncByteStream):
    """A body that ends with an error when it grows beyond its budget."""

    def __init__(self, inner: httpx2.AsyncByteStream, budget: Budget) -> None:
        self._inner = inner
        self._budget = budget

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._inner:
            self._budget.left -= len(chunk)
            if self._budget.left < 0:
                raise Unfit("the answer is too large")
            yield chunk

    async def aclose(self) -> None:
        await self._inner.aclose()
