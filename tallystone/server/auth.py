"""Who calls: `Authorization: Bearer <token>`, and nothing else.

Other headers that name a user are ignored: on the server whose clients we serve, `user_id` was believed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from tallystone.keystore import parse_token
from tallystone.server.errors import Refusal, no_token
from tallystone.server.limits import has_body
from tallystone.server.rates import Buckets


def bearer(headers: Mapping[str, str]) -> str:
    """The token of a request, as far as it looks like one. Raises `Refusal` or `Unauthenticated` (401).

    The checksum is looked at before a body is read: a mistyped token costs neither side a transfer. Without a body the
    vault's own look is soon enough.
    """
    scheme, _, token = headers.get("authorization", "").strip().partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise no_token()
    token = token.strip()
    if has_body(headers):
        parse_token(token)
    return token


class Turnstile:
    """How many refused strangers a second are written to the log. Beyond, they wait (429) instead of filling the disk.

    Each refusal is durable before it is answered, so without a bound anybody could make the log grow. Callers with a
    good token never pass here.
    """

    def __init__(
        self,
        rate: float = 50.0,
        burst: float = 200.0,
        clock: Callable[[], float] = time.monotonic,
        *,
        each: float | None = None,
    ) -> None:
        """`each`: the rate of one address; half of `rate` by default, so that none takes what all have."""
        each = rate / 2 if each is None else min(each, rate)
        self._each = Buckets(each, each * burst / rate, clock)
        self._rate = rate
        self._burst = burst
        self._clock = clock
        self._left = burst
        self._seen = clock()

    def enter(self, address: str = "") -> None:
        """Count one refusal of whoever is at this address, if it is known. Raises `Refusal` (429) after too many."""
        if address and self._each.wait(address):
            raise _too_many()
        now = self._clock()
        self._left = min(self._burst, self._left + (now - self._seen) * self._rate)
        self._seen = now
        if self._left < 1:
            raise _too_many()
        self._left -= 1


def _too_many() -> Refusal:
    return Refusal(
        429,
        "too_many_refusals",
        "too many requests without a good token",
        hint="wait a second, and check the token",
        headers={"retry-after": "1"},
    )
