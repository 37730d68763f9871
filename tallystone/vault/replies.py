"""Answers kept for retried requests (design §10).

A client that lost an answer sends the same POST again. The first answer is kept for two minutes in the same
transaction as what it reports, under a key that only the caller can derive, and sealed with it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tallystone import crypto
from tallystone.keystore import Keys
from tallystone.store.tables import REPLY
from tallystone.vault.plan import Plan

WINDOW = 120
"""Seconds for which an answer is kept."""


class Reply:
    """One request that may be sent again: `key` is a digest of it, `attempt` how often the client has tried before."""

    def __init__(self, key: bytes, attempt: int, render: Callable[[Any], bytes]) -> None:
        self.key = key
        self.attempt = attempt
        self.render = render

    def _address(self, keys: Keys) -> bytes:
        return crypto.mac(keys.reply, crypto.pae("reply", self.key))

    def find(self, plan: Plan, keys: Keys, now: int) -> bytes | None:
        """The answer that was given to an equal request within the window, or None."""
        address = self._address(keys)
        row = plan.need(REPLY, address)
        if row is None or int(row[3]) <= now:
            return None
        return crypto.open_sealed(keys.reply, crypto.pae("reply", address), bytes(row[4]))

    def keep(self, plan: Plan, keys: Keys, result: Any, now: int) -> None:
        """Queue the answer to be kept with the plan's own changes."""
        address = self._address(keys)
        sealed = crypto.seal(keys.reply, crypto.pae("reply", address), self.render(result))
        plan.put(REPLY, address, self.attempt, now + WINDOW, sealed)
