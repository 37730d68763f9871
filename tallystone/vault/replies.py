"""Answers kept for retried requests (design §10).

A client that lost an answer sends the same POST again. The first answer is kept for two minutes in the same
transaction as what it reports, under a key that only the caller can derive, and sealed with it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tallystone import crypto
from tallystone.errors import Tampered
from tallystone.store.protocol import Row
from tallystone.store.tables import REPLY
from tallystone.vault.plan import Plan

WINDOW = 120
"""Seconds for which an answer is kept."""


class Repeated(Exception):
    """The request was answered before; `answer` is what it was told."""

    def __init__(self, answer: bytes) -> None:
        super().__init__("this request was answered before")
        self.answer = answer


class Reply:
    """One request that may be sent again: `key` is a digest of it, `attempt` how often the client has tried before.

    `secret` is the token's reply key: an answer is for the very token that asked, whatever else its principal holds.
    """

    def __init__(self, key: bytes, attempt: int, render: Callable[[Any], bytes], secret: bytes) -> None:
        self.attempt = attempt
        self.render = render
        self._secret = secret
        self._address = crypto.mac(secret, crypto.pae("reply", key))
        self._first_seen: Row | None = None
        self._looked = False
        self.witnessed = False
        """Whether the answer that was found may be told only when a witness has seen what it tells of."""

    def find(self, plan: Plan, now: int) -> bytes | None:
        """The answer that was given to an equal request within the window, or None; so it stays until the commit.

        A retry takes any. A first attempt takes only one that its own retry got meanwhile, by overtaking it: an equal
        request that was answered before this one began is another request.
        """
        row = plan.need(REPLY, self._address)
        if not self._looked:
            self._looked, self._first_seen = True, row
        if row is None or row[3] <= now:
            return None
        if not self.attempt and (row == self._first_seen or not row[2]):
            return None
        place = (self._address, row[2], row[3])
        try:
            return crypto.open_sealed(self._secret, crypto.pae("reply", *place), row[4])
        except Tampered:
            answer = crypto.open_sealed(self._secret, crypto.pae("reply/witnessed", *place), row[4])
        self.witnessed = True
        return answer

    def keep(self, plan: Plan, result: Any, now: int, *, witnessed: bool = False) -> None:
        """Queue the answer to be kept with the plan's own changes."""
        purpose = "reply/witnessed" if witnessed else "reply"
        context = crypto.pae(purpose, self._address, self.attempt, now + WINDOW)
        sealed = crypto.seal(self._secret, context, self.render(result))
        plan.put(REPLY, self._address, self.attempt, now + WINDOW, sealed)
