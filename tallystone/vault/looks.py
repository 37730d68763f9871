"""One look at the store for all requests that had come in when it was opened (ADR 0044).

Under load, requests wait for the event loop, and each of them would open a view of its own, read in it that its token
still stands, and end it. A view that was opened after a request came in shows all that was acknowledged before that
request was sent, whoever opened it. So those that wait already take one view together; of a token that several of them
brought, it is asked once in that view who that is. A look ends before the loop hears of the next requests.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tallystone import crypto
from tallystone.keystore import parse_token
from tallystone.vault.authentication import caller_in
from tallystone.vault.plan import Plan, View
from tallystone.waiting import Turns

if TYPE_CHECKING:
    from tallystone.vault.caller import Caller
    from tallystone.vault.workspace import Workspace


class Look:
    """A view that several requests read, in one thread. It is open while whoever made it, or a request, holds it."""

    def __init__(self, workspace: Workspace, began: int) -> None:
        """`began`: the time (nanoseconds of any clock that only goes on) at which nothing had been read yet: a request
        that came in later may not use this look. Raises `StoreError`."""
        self.began = began
        self._workspace = workspace
        self._context = workspace.store.snapshot()
        self._first = Plan(self._context.__enter__(), workspace.recall.find)
        self._holders = 1
        self._turns = Turns()
        self._callers: dict[bytes, tuple[Plan, Caller]] = {}

    def __repr__(self) -> str:
        return f"Look({self.began})"

    def visit(self, text: str) -> tuple[View, Caller]:
        """The caller that a token opens, with a plan of this view that says what must hold of it. Raises
        `Unauthenticated`."""
        self._holders += 1  # first: asking may wait for a database, and the look's time be over meanwhile
        try:
            plan, caller = self._caller(text)
        except BaseException:
            self.release()
            raise
        return View(plan, self.release), caller

    def _caller(self, text: str) -> tuple[Plan, Caller]:
        mark = crypto.sha256(text.encode())
        found = self._beside(mark)
        if found is not None:
            return found
        with self._turns:  # whoever brings the same token waits for what is asked already
            found = self._beside(mark)
            if found is not None:
                return found
            plan = self._first.beside()
            caller = caller_in(self._workspace, plan, parse_token(text))
            # What the first request makes of its plan and of its caller is nobody else's.
            kept = plan.beside()
            self._callers[mark] = kept, caller.beside(plan, kept)
            return plan, caller

    def _beside(self, mark: bytes) -> tuple[Plan, Caller] | None:
        known = self._callers.get(mark)
        if known is None or known[1].expired:
            return None
        plan = known[0].beside()
        return plan, known[1].beside(known[0], plan)

    def release(self, *_: object) -> None:
        """Hold it no longer."""
        self._holders -= 1
        if not self._holders:
            self._callers.clear()
            self._context.__exit__(None, None, None)
