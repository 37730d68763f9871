"""A new root for a principal, in one commit: record, seeds, tokens, kit, and all that lies under its keys (design §6).

After the commit the old root opens nothing of the principal's rows, and tokens of the old root are gone. What the old
root had opened elsewhere, keys of blocks, of roles and of agents, is written on the shelf as still to be renewed;
`renewing` does that. What another process put under the old root in the moment of the commit is fetched by `fetch`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tallystone import crypto
from tallystone.errors import Tampered
from tallystone.keystore import FULL, Keys, Token, new_root, seal_root
from tallystone.store.tables import KIT, SHELF, TOKEN
from tallystone.vault import streams
from tallystone.vault.archive import PASSAGE, PASSAGES
from tallystone.vault.caller import Caller
from tallystone.vault.erasing import RECEIPTS
from tallystone.vault.external import ACCESS, COPY, SERVER, TOOL, open_access, seal_access
from tallystone.vault.former import FORMER, Former, former_roots, keep
from tallystone.vault.history import conversation_ids
from tallystone.vault.mail import CONTACT, RECEIVED, SENT
from tallystone.vault.model_keys import MODEL_KEY, rehoused
from tallystone.vault.plan import Plan
from tallystone.vault.principals import nested, renew_keys
from tallystone.vault.records import Held
from tallystone.vault.role_roots import members_shelf
from tallystone.vault.shelves import AGENTS, BLOCKS, HOUSE, ROLES, SELF, find, marked, walk
from tallystone.vault.tokens import label_of, seal_label
from tallystone.vault.turns import (
    CONVERSATION,
    CONVERSATIONS,
    LEASE,
    PLACE,
    RUN,
    RUNS,
    STEP,
    STEPS,
    messages_of,
)
from tallystone.vault.types import TokenInfo
from tallystone.vault.writing import put_on_shelf

_DRAWERS = (LEASE, RUN, STEP, CONVERSATION, PLACE, PASSAGE, COPY, ACCESS, RECEIVED, SENT, CONTACT)
_USERS_DRAWERS = (RECEIPTS, MODEL_KEY, SERVER, TOOL)
_STREAMS = (RUNS, STEPS, CONVERSATIONS, PASSAGES)


def reroot(caller: Caller, plan: Plan, old: Keys, kept: Token | None) -> tuple[Keys, list[TokenInfo]]:
    """Queue a new root for the caller, or for an agent of the caller's. `old` are its keys, with the half that acts.
    `kept` is the one token that stays, with the new root sealed in it. Returns the new keys and the tokens that end."""
    new = Keys(old.principal, replace(new_root(old.root.pin), nest=old.root.nest))
    if new.root.nest is None:  # from before there were such keys
        new = nested(caller.workspace, new)
    sponsored = old.principal != caller.id
    before, kem = renew_keys(caller, plan, old, new, sponsored)
    formers = list(former_roots(plan, old))
    streams.clear(plan, old, FORMER)
    for one in (*formers, Former(before.record.root, old, kem)):
        keep(plan, new, one)
    _move(plan, old, new)
    if not sponsored:
        _seal_kit(plan, new)
    return new, _end_tokens(plan, old, new, kept)


def fetch(caller: Caller, plan: Plan, keys: Keys) -> bool:
    """Queue the move of what was put under a former root of the principal of `keys` while it was being replaced, and
    the end of tokens that were made then. Returns whether there was any."""
    moved = 0
    for former in former_roots(plan, keys):
        if former.keys.can_act:
            moved += _move(plan, former.keys, keys)
    for row in plan.rows(TOKEN):
        if row[2] == keys.principal and not _is_of(row, keys):
            plan.delete(TOKEN, str(row[1]))
            moved += 1
    return bool(moved)


# -- what lies under a root -------------------------------------------------------------------------------------


def _move(plan: Plan, old: Keys, new: Keys) -> int:
    """Queue the move of every shelf row, stream and drawer. Returns how many rows that is."""
    owned = [held.subject for held in walk(plan, old, ROLES) if held.own_leaf is None]
    moved = sum(_move_shelf(plan, old, new, shelf) for shelf in (SELF, HOUSE, BLOCKS, AGENTS, ROLES))
    moved += sum(_move_shelf(plan, old, new, members_shelf(role)) for role in owned)
    conversations = dict.fromkeys((*conversation_ids(plan, old), *conversation_ids(plan, new)))
    for name in (*_STREAMS, *(messages_of(one) for one in conversations)):
        moved += streams.rehouse(plan, old, new, name, drawer=False)
    for name in (*_DRAWERS, *_USERS_DRAWERS):
        moved += streams.rehouse(plan, old, new, name, drawer=True, change=_inner(name, old, new))
    return moved


def _inner(name: streams.Name, old: Keys, new: Keys) -> Any:
    """What re-seals the part of a drawer's record that lies under a key of its own; None if there is none."""

    def server(record: streams.Entry) -> streams.Entry:
        return {**record, "access": _access(record["id"], record["access"])}

    def access(record: streams.Entry) -> streams.Entry:
        return {**record, "sealed": _access(record["id"], record["sealed"])}

    def _access(server: str, sealed: bytes) -> bytes:
        return seal_access(new, server, open_access(old, server, sealed))

    def model_key(record: streams.Entry) -> streams.Entry:
        return rehoused(old, new, record)

    return {SERVER: server, ACCESS: access, MODEL_KEY: model_key}.get(name)


def _move_shelf(plan: Plan, old: Keys, new: Keys, shelf: str) -> int:
    moved = 0
    for held in list(walk(plan, old, shelf)):
        name = _name(shelf, held)
        plan.need(SHELF, old.shelf(shelf), old.locator(name))
        plan.delete(SHELF, old.shelf(shelf), old.locator(name))
        if find(plan, new, shelf, name) is None:
            put_on_shelf(plan, new, shelf, name, _marked(shelf, held))
        moved += 1
    return moved


def _name(shelf: str, held: Held) -> str:
    """By which name a thing is found on a shelf."""
    if shelf in (AGENTS, ROLES, SELF):
        return held.subject
    if shelf in (HOUSE, BLOCKS):
        return "workspace" if shelf == HOUSE else held.block
    leaf = held.own_leaf
    if leaf is None:
        raise Tampered("the index of a role's members is malformed")
    return leaf.recipient


def _marked(shelf: str, held: Held) -> Held:
    """The same, with the note of what must be renewed: the old root knew its keys."""
    if shelf not in (BLOCKS, AGENTS, ROLES):
        return held
    return marked(held, "root" if shelf == AGENTS else "keys")


# -- who gets in ------------------------------------------------------------------------------------------------


def _seal_kit(plan: Plan, new: Keys) -> None:
    """Queue the kit's row: the printed kit opens the new root."""
    house = find(plan, new, HOUSE, "workspace")
    public = (house.extra or {}).get("kit") if house is not None else None
    if not isinstance(public, bytes):
        raise Tampered("a user's row does not say to which kit its root is sealed")
    plan.need(KIT, new.principal)
    plan.put(KIT, new.principal, crypto.age_seal(public, new.root.encode(FULL)))


def _end_tokens(plan: Plan, old: Keys, new: Keys, kept: Token | None) -> list[TokenInfo]:
    ended = []
    for row in plan.rows(TOKEN):
        kid, principal, scope, created, expires = str(row[1]), str(row[2]), str(row[3]), int(row[4]), row[5]
        if principal != old.principal:
            continue
        plan.need(TOKEN, kid)
        label = label_of(old, row)
        if kept is not None and kid == kept.kid:
            sealed = seal_root(kept, new.root, principal, scope, created, expires)
            cell = seal_label(new.root, kid, principal, scope, created, expires, label)
            plan.put(TOKEN, *row[1:7], sealed, cell)
            continue
        plan.delete(TOKEN, kid)
        ended.append(TokenInfo(kid, principal, scope, created, expires, label))
    return ended


def _is_of(row: Any, keys: Keys) -> bool:
    """Whether a token is of this root: its label says."""
    try:
        label_of(keys, row)
    except Tampered:
        return False
    return True
