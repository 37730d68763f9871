"""Who calls: from a token to a caller, in the view that the caller's first operation goes on in.

A program that holds a vault for long asks here once, and each of its operations looks again (`Caller.check`). A server
asks for every request, so that what a process keeps of a token (see `opened_tokens`) saves it most of the work.
"""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING

from tallystone import crypto
from tallystone.errors import Tampered, Unauthenticated
from tallystone.keystore import Identity, Keys, Token, open_root, open_seed, parse_token
from tallystone.store.protocol import Row
from tallystone.store.tables import IDENTITY, INBOX, SHELF, TOKEN
from tallystone.vault.caller import Caller
from tallystone.vault.opened_tokens import KeptToken
from tallystone.vault.plan import WS, Plan, View

if TYPE_CHECKING:
    from tallystone.vault.looks import Look
    from tallystone.vault.workspace import Workspace


def authenticate(workspace: Workspace, token: Token) -> Caller:
    """The caller that a token opens. Raises `Unauthenticated`, alike for unknown, wrong, revoked and expired ones."""
    with workspace.store.snapshot() as snapshot:
        return caller_in(workspace, Plan(snapshot), token)


class Visit:
    """A caller for one request: its first operation goes on in the view in which its token was looked at. The view
    ends with that operation's planning, or with the `with` block."""

    def __init__(self, workspace: Workspace, text: str, look: Look | None = None) -> None:
        """`text`: the token. `look`: one that was opened since the request came in. Raises what `authenticate`
        raises."""
        if look is not None:
            self._view, self.caller = look.visit(text)
        else:
            token = parse_token(text)
            self._view = view = View.of(workspace.store.snapshot(), workspace.recall.find)
            try:
                self.caller = caller_in(workspace, view.plan, token)
            except BaseException:
                view.close()
                raise
        self.caller.views.append(self._view)

    def __enter__(self) -> Caller:
        return self.caller

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.caller.views.clear()
        self._view.close()


def caller_in(workspace: Workspace, plan: Plan, token: Token) -> Caller:
    """The caller that a token opens, as this plan sees it; what must hold when it commits is in the plan."""
    row, secret = plan.need(TOKEN, token.kid), token.recall_key()
    # The same work whether or not the row exists, so that time says nothing about which kids do.
    kept = workspace.tokens.find(secret)
    expires = row[5] if row is not None else None
    if isinstance(expires, int) and workspace.now() >= expires:
        row = kept = None  # as if it had never been
    caller = _known(workspace, plan, token, secret, kept, row) if kept is not None else None
    if caller is None:
        caller = _opened(workspace, plan, token, row)
    caller.token = token
    caller.has_mail = bool(plan.snapshot.scan(INBOX, (WS, caller.id), limit=1))
    roles = caller.keys.shelf("role")  # `shelves.ROLES`
    caller.has_roles = bool(plan.snapshot.scan(SHELF, (WS, roles), limit=1))
    return caller


def _known(
    workspace: Workspace, plan: Plan, token: Token, secret: bytes, kept: KeptToken, row: Row | None
) -> Caller | None:
    """The caller, if what was kept of its token still holds in this view; whatever differs is asked from the start."""
    if row is None or kept.row != row or kept.word is not workspace.signed:
        return None
    if kept.seeds is not None and plan.get(IDENTITY, row[2]) != kept.seeds:
        return None
    for identity in kept.people:
        if workspace.identity(plan, identity.id, workspace.id) is not identity:
            return None
    keys = workspace.tokens.open(secret, kept, workspace.shreds.get)
    if keys is None:
        return None
    caller = Caller(workspace, keys, row, token.reply_key)
    caller.standing(plan)
    return caller


def _opened(workspace: Workspace, plan: Plan, token: Token, row: Row | None) -> Caller:
    stored = bytes(row[6]) if row else bytes(32)
    known = crypto.equal(token.verifier, stored) and row is not None
    if not known or row is None:
        raise Unauthenticated(
            "this token opens nothing here",
            hint="it may be mistyped, revoked, expired, or of another server",
        )
    principal, scope, created, expires = str(row[2]), str(row[3]), int(row[4]), row[5]
    root = open_root(token, bytes(row[7]), principal, scope, created, expires, workspace.shreds.get)
    keys, seeds = Keys(principal, root), None
    if keys.can_act:
        # A root is the principal's if it opens the principal's seed: else whoever inserts rows could make a token
        # that is recognised as anybody, though it opens nothing of theirs.
        seeds = plan.get(IDENTITY, principal)
        if seeds is None:
            raise Tampered("a principal's keys are not there")
        open_seed(keys, "sign", bytes(seeds[2]))
    caller = Caller(workspace, keys, row, token.reply_key)
    workspace.check_record(plan, root.pin)
    identity = caller.standing(plan)
    workspace.tokens.keep(token, row, seeds, _people(workspace, plan, identity), workspace.signed, keys)
    return caller


def _people(workspace: Workspace, plan: Plan, identity: Identity) -> tuple[Identity, ...]:
    """Who stands for a caller: itself, the sponsor of an agent, and the workspace's root."""
    sponsor = [identity.record.sponsor] if identity.record.kind == "agent" else []
    names = dict.fromkeys([identity.id, *sponsor, workspace.record.root])
    return tuple(workspace.identity(plan, name, workspace.id) for name in names)
