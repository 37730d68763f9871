"""Locks by name, a fixed number of them."""

from __future__ import annotations

from tallystone.waiting import Turns

_STRIPES = 256


class Stripes:
    """A fixed set of locks, one of them for each name: edits of one block queue up, others pass."""

    def __init__(self) -> None:
        self._locks = [Turns() for _ in range(_STRIPES)]

    def lock_for(self, name: str) -> Turns:
        """The lock for this name; different names may share one."""
        return self._locks[hash(name) % _STRIPES]
