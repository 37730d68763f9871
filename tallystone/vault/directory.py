"""The directory: the users' names, sealed for all who hold its key, and an index by name.

A name is opened when it is shown, and who has a name is looked up in the index, so that what a request costs does not
depend on how many users there are. The index is a drawer in the table `entry`:

    0     which slot has its shred key, sealed by the directory's key, and anew with each change: of two one runs again
    n     the id of a user; n is the name's HMAC, 63 bits, under a key that takes the directory's and the shred key

An address confirms a guess of the name. So an erasure of a user makes a new index under another shred key, and the old
one's addresses say nothing any more, in backups neither (ADR 0037). Without an index, or without its shred key, all
names are opened, as before there were any; whoever adds the next user makes one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from tallystone import _cbor, crypto
from tallystone.errors import NotFound, StoreError
from tallystone.keystore import Nest
from tallystone.store.protocol import Row
from tallystone.store.tables import DIRECTORY, ENTRY, PRINCIPAL
from tallystone.vault.caller import Caller
from tallystone.vault.plan import Plan
from tallystone.vault.records import Held
from tallystone.vault.shelves import HOUSE, find
from tallystone.vault.writing import doom

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


# -- the index --------------------------------------------------------------------------------------------------


class _Index:
    """Who has which name. `slot` names its shred key, which is `shred` (32 bytes)."""

    def __init__(self, plan: Plan, key: bytes, slot: bytes, shred: bytes) -> None:
        self._plan, self._key, self._slot = plan, key, slot
        self._stream = _stream(key)
        self._locate = crypto.derive_from_both(key, shred, "directory/locate")
        self._sealing = crypto.derive_from_both(key, shred, "directory/entry")

    def __repr__(self) -> str:
        return "_Index()"

    def _address(self, name: str) -> int:
        return int.from_bytes(crypto.mac(self._locate, name.encode())[:8], "big") >> 1 or 1

    def find(self, name: str) -> str | None:
        """The id that stands where this name's does. Raises `Tampered`."""
        address = self._address(name)
        row = self._plan.get(ENTRY, self._stream, address)
        if row is None:
            return None
        context = crypto.pae("directory/entry", address)
        return crypto.open_sealed(self._sealing, context, bytes(row[3])).decode()

    def enter(self, principal: str, name: str) -> None:
        """Queue one more user."""
        address = self._address(name)
        sealed = crypto.seal(self._sealing, crypto.pae("directory/entry", address), principal.encode())
        self._plan.put(ENTRY, self._stream, address, sealed)

    def mark(self) -> None:
        """Queue the first row, sealed anew; the commit fails if somebody else changed the index meanwhile."""
        self._plan.need(ENTRY, self._stream, 0)
        sealed = crypto.seal(self._key, crypto.pae("directory/index"), self._slot)
        self._plan.put(ENTRY, self._stream, 0, sealed)


def _stream(key: bytes) -> bytes:
    return crypto.derive(key, "directory/stream")


def _slot(plan: Plan, key: bytes) -> bytes | None:
    row = plan.get(ENTRY, _stream(key), 0)
    return None if row is None else crypto.open_sealed(key, crypto.pae("directory/index"), bytes(row[3]))


def _index(workspace: Workspace, plan: Plan, key: bytes) -> _Index | None:
    slot = _slot(plan, key)
    shred = None if slot is None else workspace.shreds.get(slot)
    return None if slot is None or shred is None else _Index(plan, key, slot, shred)


def _make_index(workspace: Workspace, plan: Plan, key: bytes, without: str = "") -> _Index:
    """Queue an index of all names under a new shred key, in place of the one that is there."""
    before, stream = _slot(plan, key), _stream(key)
    plan.need(ENTRY, stream, 0)
    if before is not None:
        doom(plan, before, workspace.today())
        plan.clear(ENTRY, stream)
    slot = workspace.shreds.take()
    shred = workspace.shreds.get(slot)
    if shred is None:
        raise StoreError("a new shred key is not there", hint="check the disk", code="no_shred_key")
    index = _Index(plan, key, slot, shred)
    for principal, name in Names(workspace, plan, key).users():
        if principal != without:
            index.enter(principal, name)
    return index


def enter_name(
    workspace: Workspace, plan: Plan, key: bytes, principal: str, name: str, nest: Nest | None
) -> None:
    """Queue a user's name, under the directory's `key`."""
    index = _index(workspace, plan, key) or _make_index(workspace, plan, key)
    index.enter(principal, name)
    index.mark()
    plan.put(DIRECTORY, principal, _seal_name(key, principal, name, nest))


def forget_name(workspace: Workspace, plan: Plan, key: bytes, principal: str) -> None:
    """Queue the end of a user's name, and a new index without it."""
    if _slot(plan, key) is not None:
        _make_index(workspace, plan, key, without=principal).mark()
    plan.delete(DIRECTORY, principal)


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
        if self._key is None:
            return None
        index = _index(self._workspace, self._plan, self._key)
        if index is not None:
            found = index.find(name)
            if found is None or self.get(found) == name:
                return found
            # Two names of 63 equal bits, or rows that somebody moved: what is sealed with the names decides.
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
