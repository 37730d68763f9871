"""The directory: the users' names, sealed for all who hold its key, and opened one by one.

A name is looked at when it is shown. What a request costs does not depend on how many users there are.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from tallystone import _cbor, crypto
from tallystone.errors import NotFound
from tallystone.keystore import Nest
from tallystone.store.protocol import Row
from tallystone.store.tables import DIRECTORY, PRINCIPAL
from tallystone.vault.caller import Caller
from tallystone.vault.plan import Plan
from tallystone.vault.records import Held
from tallystone.vault.shelves import HOUSE, find

if TYPE_CHECKING:
    from tallystone.vault.workspace import Workspace

_NESTED = b"\x82"
"""How the CBOR of a list of two begins; no text in UTF-8 does."""


def house_of(caller: Caller, plan: Plan) -> Held | None:
    """The shelf row with the workspace-wide keys: the directory's for every user, the auditor's for the root."""
    return find(plan, caller.keys, HOUSE, "workspace")


# -- one name ---------------------------------------------------------------------------------------------------


def _context(principal: str) -> bytes:
    return crypto.pae("directory", principal)


def _seal_name(key: bytes, principal: str, name: str, nest: Nest | None) -> bytes:
    """A user's name, for all who hold the directory's key; with a shred key, only while that is there."""
    context = _context(principal)
    if nest is None:
        return crypto.seal(key, context, name.encode())
    inner = crypto.seal(crypto.derive(nest.key, "shred/name"), context, name.encode())
    return crypto.seal(key, context, _cbor.encode([nest.slot, inner]))


def _open_name(workspace: Workspace, key: bytes, principal: str, sealed: bytes) -> str | None:
    """The reverse; None if its shred key is gone: an erasure destroys it a moment after the row that names it."""
    context = _context(principal)
    plain = crypto.open_sealed(key, context, sealed)
    if plain[:1] != _NESTED:
        return plain.decode()
    slot, inner = _cbor.unpack(plain, "a name", bytes, bytes)
    shred = workspace.shreds.get(slot)
    return (
        None
        if shred is None
        else crypto.open_sealed(crypto.derive(shred, "shred/name"), context, inner).decode()
    )


def enter_name(plan: Plan, key: bytes, principal: str, name: str, nest: Nest | None) -> None:
    """Queue a user's name, under the directory's `key`."""
    plan.put(DIRECTORY, principal, _seal_name(key, principal, name, nest))


# -- all of them ------------------------------------------------------------------------------------------------


class Names:
    """What principals are called, each name opened when it is asked for. Lives within one plan. Without the directory's
    key it knows none."""

    def __init__(self, workspace: Workspace, plan: Plan, key: bytes | None) -> None:
        self._workspace, self._plan, self._key = workspace, plan, key
        self._known: dict[str, str | None] = {}

    def __repr__(self) -> str:
        return "Names()"

    def get(self, principal: str, otherwise: str = "") -> str:
        """A principal's name, or what else to say."""
        if principal not in self._known:
            self._known[principal] = self._look_up(principal)
        name = self._known[principal]
        return otherwise if name is None else name

    def users(self) -> Iterator[tuple[str, str]]:
        """(principal, name) of every user."""
        for row in self._plan.rows(DIRECTORY) if self._key is not None else ():
            name = self._open(row)
            if name is not None:
                yield str(row[1]), name

    def _look_up(self, principal: str) -> str | None:
        row = self._plan.get(DIRECTORY, principal) if self._key is not None else None
        return None if row is None else self._open(row)

    def _open(self, row: Row) -> str | None:
        assert self._key is not None  # or no row would have been read
        return _open_name(self._workspace, self._key, str(row[1]), bytes(row[2]))

    def holder(self, name: str) -> str | None:
        """Who has this name."""
        return next((principal for principal, known in self.users() if known == name), None)


def names(caller: Caller, plan: Plan) -> Names:
    """The users' names, as far as the caller may know them: none for agents, who do not hold the directory's key."""
    house = house_of(caller, plan)
    return Names(caller.workspace, plan, house.key if house is not None else None)


def name_is_taken(workspace: Workspace, plan: Plan, key: bytes, name: str) -> bool:
    """Whether a user has this name."""
    return Names(workspace, plan, key).holder(name) is not None


def resolve(caller: Caller, plan: Plan, who: str) -> tuple[str, str]:
    """(name, principal id) for an id or a user's name. Raises `NotFound`."""
    known = names(caller, plan)
    if who.startswith(("user-", "agent-", "role-")) and plan.rows(PRINCIPAL, who):
        return known.get(who), who
    principal = known.holder(who)
    if principal is None:
        raise NotFound(
            f"no user {who!r}", hint="list the users with: tallystone user list", code="unknown_principal"
        )
    return who, principal
