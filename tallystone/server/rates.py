"""How often somebody may come: a token bucket each, kept as one number (the generic cell rate algorithm, ITU-T I.371).

Each process counts for itself.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from threading import Lock

from tallystone.server.errors import Refusal

MOST = 20_000
"""Buckets that are not full which a process keeps. Those who come beyond share one."""


class Buckets:
    """A bucket for each name, of `burst` requests, filled with `rate` a second. Safe to use from several threads."""

    def __init__(self, rate: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._pause = 1 / rate
        self._room = max(burst - 1, 0) / rate + 1e-9  # what sums of fractions may be off by
        self._clock = clock
        self._full_at: dict[str, float] = {}  # when the bucket will be full again
        self._lock = Lock()

    def wait(self, name: str) -> float:
        """Count one request. Returns 0.0 if it may pass, else the seconds after which it may, and has not counted."""
        now = self._clock()
        with self._lock:
            if name not in self._full_at and len(self._full_at) >= MOST:
                self._full_at = {one: full for one, full in self._full_at.items() if full > now}
                if len(self._full_at) >= MOST:
                    name = ""
            full = max(self._full_at.get(name, now), now)
            if full - now > self._room:
                return full - now - self._room
            self._full_at[name] = full + self._pause
            return 0.0


def rate_limited(seconds: float) -> Refusal:
    """429: the principal came too often."""
    return Refusal(
        429,
        "rate_limited",
        "this principal sends more requests than the server takes from one",
        hint="wait as long as Retry-After says",
        headers={"retry-after": str(max(1, math.ceil(seconds)))},
    )
