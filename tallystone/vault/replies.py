"""Answers kept for retried requests (design §10).

A client that lost an answer sends the same POST again. The first answer is kept for two minutes in the same
transaction as what it reports, at an address that only the caller can derive. It is sealed under the caller's key and
that of the day on which it expires: once the day's key is destroyed, no backup with it opens for anybody.

First attempts and retries keep theirs at two addresses. Equal first attempts are different requests: none asks what the
others kept, so however many come at once, none has to run again. A retry asks for both addresses, and a first attempt
for what retries kept: of a request and its own retry, in whichever process, one is done and both are told of it.

    who              must find unchanged when it commits    writes
    first attempt    a retry's answer                       its own, and removes the retry's, of an earlier request
    retry            both                                   a retry's, unless it found one
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

from tallystone import crypto
from tallystone.errors import Conflict, Tampered
from tallystone.store.protocol import Batch, Put, Row
from tallystone.store.tables import REPLY
from tallystone.vault.daykeys import DayKeys
from tallystone.vault.plan import Plan

DAY = 86_400
"""Seconds."""
_PLAIN, _WITNESSED = "reply", "reply/witnessed"
"""What a kept answer is sealed for: whether it waited for a witness cannot be changed without its key."""
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

    def __init__(
        self, key: bytes, attempt: int, render: Callable[[Any], bytes], secret: bytes, days: DayKeys
    ) -> None:
        self.attempt = attempt
        self.render = render
        self._secret = secret
        self._days = days
        self._first = crypto.mac(secret, crypto.pae("reply", key))
        self._retried = crypto.mac(secret, crypto.pae("reply", "retry", key))
        self._first_seen: Row | None = None
        self._looked = False
        self._found: Row | None = None
        self.witnessed = False
        """Whether the answer that was found may be told only when a witness has seen what it tells of."""

    def find(self, plan: Plan, now: int) -> bytes | None:
        """The answer that was given to an equal request within the window, or None; so it stays until the commit.

        A retry takes any. A first attempt takes only one that its own retry got meanwhile, by overtaking it: an equal
        request that was answered before this one began, or that is no retry, is another request.
        """
        retried = plan.need(REPLY, self._retried)
        if not self._looked:
            self._looked, self._first_seen = True, retried
        if self.attempt:
            found = [retried, plan.need(REPLY, self._first)]  # at most one of them counts: see `keep`
        else:
            found = [retried] if retried != self._first_seen else []
        self._found = next((row for row in found if row is not None and row[3] > now), None)
        return None if self._found is None else self._open(self._found)

    def confirmed(self, plan: Plan) -> Batch:
        """The row of the answer that was found, to be written as it is. What can be read may be on a database's primary
        alone (its wait for the standby was cut short); once this is durable, what the answer tells of is."""
        assert self._found is not None  # `find` has found it
        return Batch(plan.batch().expects, [Put(REPLY, self._found)])

    def keep(self, plan: Plan, result: Any, now: int, *, witnessed: bool = False) -> None:
        """Queue the answer to be kept with the plan's own changes."""
        expires = now + WINDOW
        address = self._retried if self.attempt else self._first
        key = _key(self._secret, self._days.make(expires // DAY))
        context = crypto.pae(_WITNESSED if witnessed else _PLAIN, address, self.attempt, expires)
        plan.put(REPLY, address, self.attempt, expires, crypto.seal(key, context, self.render(result)))
        if not self.attempt and plan.get(REPLY, self._retried) is not None:
            plan.delete(REPLY, self._retried)

    def _open(self, row: Row) -> bytes:
        sealed, day = bytes(row[4]), self._days.get(int(row[3]) // DAY)
        if not sealed:
            raise Conflict(
                "this request was done before, and something was erased since: its answer is not kept any more",
                hint="look at what it did before you send it as a new one",
                code="answer_erased",
            )
        # Under the bare secret: kept by the release before, minutes ago.
        keys = ([_key(self._secret, day)] if day else []) + [self._secret]
        for key, purpose in product(keys, (_PLAIN, _WITNESSED)):
            try:
                answer = crypto.open_sealed(key, crypto.pae(purpose, row[1], row[2], row[3]), sealed)
            except Tampered:
                continue
            self.witnessed = purpose == _WITNESSED
            return answer
        raise Tampered("a kept answer was changed")


def _key(secret: bytes, day_key: bytes) -> bytes:
    return crypto.derive_from_both(secret, day_key, "reply/sealed")


def blank_answers(plan: Plan, now: int) -> int:
    """Queue the end of what every kept answer says, whoever asked: none of them tells what it is about. The rows stay
    until they expire, so that no retry does twice what was done. Returns when the last one expires, or 0."""
    last = 0
    for row in plan.rows(REPLY):
        if int(row[3]) <= now:
            plan.delete(REPLY, row[1])
        else:
            plan.put(REPLY, row[1], row[2], row[3], b"")
            last = max(last, int(row[3]))
    return last
