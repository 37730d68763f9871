"""Tokens: more of them for a principal or its agents, and their end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tallystone import crypto
from tallystone.errors import Invalid, NotFound
from tallystone.keystore import SCOPES, Keys, Root, new_token, seal_root, token_context
from tallystone.store.protocol import Row
from tallystone.store.tables import TOKEN
from tallystone.vault.caller import Caller
from tallystone.vault.plan import Plan
from tallystone.vault.shelves import AGENTS, agent_keys, find_agent, is_lost, walk
from tallystone.vault.types import TokenInfo

if TYPE_CHECKING:
    from tallystone.vault.workspace import Workspace

LABEL_LIMIT = 200
"""Characters of a token's label."""


def put_token(
    workspace: Workspace, plan: Plan, root: Root, principal: str, scope: str, expires: int | None, label: str
) -> str:
    """Queue a token's row, and return the token."""
    token, created = new_token(), workspace.now()
    sealed = seal_root(token, root, principal, scope, created, expires)
    name = seal_label(root, token.kid, principal, scope, created, expires, label)
    plan.put(TOKEN, token.kid, principal, scope, created, expires, token.verifier, sealed, name)
    return token.text


def seal_label(
    root: Root, kid: str, principal: str, scope: str, created: int, expires: int | None, label: str
) -> bytes:
    """The `label` column of a token's row."""
    key = crypto.derive(root.read, "token/label")
    return crypto.seal(key, _label_context(kid, principal, scope, created, expires), label.encode())


def label_of(keys: Keys, row: Row) -> str:
    """What a token's row has as its label. Raises `Tampered` if it is a token of another root."""
    key = crypto.derive(keys.root.read, "token/label")
    return crypto.open_sealed(key, _label_context(*row[1:6]), bytes(row[8])).decode()


def _label_context(kid: str, principal: str, scope: str, created: int, expires: int | None) -> bytes:
    # The row's clear fields: what a list of tokens says about scope and expiry is what was written.
    return crypto.pae("token/label", token_context(kid, principal, scope, created, expires))


def _check_token(scope: str, expires: int | None, label: str, now: int) -> None:
    if scope not in SCOPES:
        raise Invalid(f"unknown scope {scope!r}", hint="use full or read", code="bad_scope")
    if expires is not None and expires <= now:
        raise Invalid("the expiry lies in the past", hint="name a later moment", code="bad_expiry")
    if len(label) > LABEL_LIMIT:
        raise Invalid("a token's label has at most 200 characters", hint="shorten it", code="bad_name")


def create_token(caller: Caller, agent_id: str | None, scope: str, expires: int | None, label: str) -> str:
    """Another token for the caller, or one that carries only one of its agents."""
    _check_token(scope, expires, label, caller.workspace.now())

    def action(plan: Plan) -> str:
        caller.must_act()
        if caller.expires is not None and (expires is None or expires > caller.expires):
            raise Invalid(
                "a token cannot make one that outlives it",
                hint="name an expiry no later than this token's own, or use a token that does not end",
                code="bad_expiry",
            )
        keys = caller.keys if agent_id is None else agent_keys(caller, find_agent(caller, plan, agent_id))
        if keys is not caller.keys:
            caller.as_agent(keys).standing(plan)
        text = put_token(caller.workspace, plan, keys.root, keys.principal, scope, expires, label)
        caller.event(plan, "token", principal=keys.principal, made=text[6:22], scope=scope)
        return text

    return caller.transact(action)


def _reachable(caller: Caller, plan: Plan) -> dict[str, Keys]:
    agents = [] if caller.id.startswith("agent-") else list(walk(plan, caller.keys, AGENTS))
    agents = [held for held in agents if not is_lost(caller, held)]
    return {caller.id: caller.keys, **{held.subject: agent_keys(caller, held) for held in agents}}


def tokens(caller: Caller) -> list[TokenInfo]:
    """The caller's tokens, and its agents'."""

    def action(plan: Plan) -> list[TokenInfo]:
        reach = _reachable(caller, plan)
        found = []
        for row in plan.rows(TOKEN):
            keys = reach.get(str(row[2]))
            if keys is not None:
                label = label_of(keys, row)
                found.append(TokenInfo(str(row[1]), str(row[2]), str(row[3]), int(row[4]), row[5], label))
        caller.event(plan, "list", tokens=len(found))
        return found

    return caller.transact(action)


def revoke_token(caller: Caller, kid: str) -> None:
    """End one of the caller's tokens, or of its agents'. From the answer on it opens nothing."""

    def action(plan: Plan) -> None:
        caller.must_act()
        row = plan.need(TOKEN, kid)
        if row is None or str(row[2]) not in _reachable(caller, plan):
            raise NotFound(
                f"no token {kid}", hint="list yours with: tallystone token list", code="unknown_token"
            )
        plan.delete(TOKEN, kid)
        caller.event(plan, "token", principal=str(row[2]), revoked=kid)

    caller.transact(action)
