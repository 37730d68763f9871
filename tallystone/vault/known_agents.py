"""Keys of agents that a process has worked out before, sealed again for the user who sponsors them (ADR 0050).

Whoever works with an agent's memory comes to the agent's keys by its shelf: two ciphertexts, two unwraps, and what
follows from the root. What comes of that lies here as one ciphertext, under a key that follows from the sponsor's root
and from the shred key that the agent's root is nested in, bound to the very row of the shelf. So it opens for who
brings the sponsor's token, while that row is what it was and that shred key is there; between requests the process has
no key.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tallystone import _cbor, crypto
from tallystone.errors import Tampered
from tallystone.keystore import Keys, Nest
from tallystone.store.protocol import Row
from tallystone.vault.recall import held_of, said_by

if TYPE_CHECKING:
    from tallystone.vault.caller import Caller
    from tallystone.vault.plan import Plan
    from tallystone.vault.records import Held

_NUMBER, _SLOT = 12, 18
"""Bytes of a number and of a slot, which stand before the ciphertext; no slot is 18 zeros."""
_NONE = bytes(_SLOT)


def find(caller: Caller, plan: Plan, row: Row) -> tuple[Held, Keys] | None:
    """What a row of the caller's shelf of agents says, and the agent's keys, if both were worked out before."""
    recall = caller.workspace.recall
    cell = recall.cell(_mark(caller.keys, row))
    if cell is None:
        return None
    slot, number, sealed = cell[:_SLOT], cell[_SLOT : _SLOT + _NUMBER], cell[_SLOT + _NUMBER :]
    nest = None
    if slot != _NONE:
        key = caller.workspace.shreds.get(slot, plan.pools)
        if key is None:
            return None
        nest = Nest(slot, key)
    try:
        opened = recall.shelter(_key(caller.keys, nest)).open(number, _context(row), sealed)
    except Tampered:
        return None  # of the row that lay there before
    said, carried = _cbor.own(opened)
    held = held_of(said, caller.keys, row)
    return held, Keys.of(held.subject, carried, nest)


def keep(caller: Caller, held: Held, keys: Keys) -> None:
    """Note an agent's keys, which the caller has come to by this row of its shelf."""
    if held.origin is None or held.origin[0] is not caller.keys:
        return
    recall, row, nest = caller.workspace.recall, held.origin[1], keys.root.nest
    number = recall.number()
    whole = _cbor.own_bytes([said_by(held), keys.carry()])
    sealed = recall.shelter(_key(caller.keys, nest)).seal(number, _context(row), whole)
    recall.keep_cell(_mark(caller.keys, row), (nest.slot if nest is not None else _NONE) + number + sealed)


def _mark(keys: Keys, row: Row) -> bytes:
    """Where it is kept. It follows from the caller's keys, and so from what they reach."""
    return crypto.mac(keys.recall, b"agent/place" + row[1] + row[2])


def _key(keys: Keys, nest: Nest | None) -> bytes:
    return crypto.mac(keys.recall, b"agent/seal" + (nest.key if nest is not None else b""))


def _context(row: Row) -> bytes:
    return crypto.pae("agent", *row[1:])
