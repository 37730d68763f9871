"""Recognising a POST that is sent again, and letting it wait for the first one (design §10).

The client repeats a POST whose answer it did not get, twice, with `x-stainless-retry-count`. The vault keeps first
answers; here lies only what it cannot see: the requests that are under way in this process right now.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext

import anyio

from tallystone.errors import Rejected
from tallystone.letta.call import Retry

WAIT_SECONDS = 50
"""Seconds that a retry waits for the request it repeats; below the 60 that clients wait."""
_ALONE = nullcontext()


def _digest(*parts: bytes) -> bytes:
    state = hashlib.sha256(b"tallystone/retry")
    for part in parts:
        state.update(len(part).to_bytes(8, "big"))
        state.update(part)
    return state.digest()


def retry_of(
    method: str, raw_path: bytes, query: bytes, headers: Mapping[str, str], body: bytes
) -> Retry | None:
    """What an equal request would be recognised by; None for methods that may be repeated anyway.

    The digest holds the body in no readable form, but it could be guessed at: the vault keys it before it is stored.
    """
    if method != "POST":
        return None
    body_digest = _digest(b"body", body)
    name = headers.get("idempotency-key")
    if name is not None:
        if not 1 <= len(name) <= 255:
            raise Rejected("the Idempotency-Key should have 1 to 255 characters", hint="e.g. a random UUID")
        return Retry(_digest(b"named", name.encode(), method.encode(), raw_path), 1, body_digest, named=True)
    count = headers.get("x-stainless-retry-count", "0")
    attempt = min(int(count), 1000) if count.isascii() and count.isdecimal() and len(count) < 10 else 0
    return Retry(_digest(b"equal", method.encode(), raw_path, query, body_digest), attempt, body_digest)


class Flights:
    """The POSTs under way, by caller and digest."""

    def __init__(self) -> None:
        self._under_way: dict[bytes, set[anyio.Event]] = {}

    def flight(self, token: str, retry: Retry | None) -> AbstractAsyncContextManager[None]:
        """Wait for equal requests if this one is a retry, and let later retries wait for this one."""
        return _ALONE if retry is None else self._flight(token, retry)

    @asynccontextmanager
    async def _flight(self, token: str, retry: Retry) -> AsyncIterator[None]:
        key = _digest(token.encode(), retry.key)
        done = anyio.Event()
        if retry.attempt:
            with anyio.move_on_after(WAIT_SECONDS):
                while earlier := self._under_way.get(key):
                    await next(iter(earlier)).wait()
        self._under_way.setdefault(key, set()).add(done)
        try:
            yield
        finally:
            flights = self._under_way[key]
            flights.discard(done)
            if not flights:
                del self._under_way[key]
            done.set()
