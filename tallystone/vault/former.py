"""A principal's former roots, kept under its present one (ADR 0027).

They open nothing that is written now. What was sealed to them opens still: this principal's own copies of old events,
and mail that somebody sealed to an earlier record a moment before the next one came. The acting half and the X-Wing
seed are sealed once more under the half that acts, so a read-only token reaches neither.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from tallystone import _cbor, crypto
from tallystone.keystore import Keys, Root
from tallystone.vault import streams
from tallystone.vault.caller import Caller
from tallystone.vault.plan import Plan

FORMER: streams.Name = ("former",)
"""The drawer: a record for each root that was replaced, by its number."""


@dataclass(frozen=True)
class Former:
    """A replaced root: its number, its keys as far as the caller's token reaches, and with the half that acts the
    X-Wing seed (32 bytes) of its record; else empty."""

    number: int
    keys: Keys
    kem: bytes = field(repr=False)


def _context(principal: str, number: int) -> bytes:
    return crypto.pae("former", principal, number)


def keep(plan: Plan, new: Keys, former: Former) -> None:
    """Queue a former root's record under the root of `new`."""
    root = former.keys.root
    inner = _cbor.encode([root.act, former.kem])
    sealed = crypto.seal(new.former, _context(new.principal, former.number), inner)
    record = {"number": former.number, "read": root.read, "sealed": sealed}
    streams.put(plan, new, FORMER, str(former.number), record)


def former_roots(plan: Plan, keys: Keys) -> Iterator[Former]:
    """The former roots of the principal of `keys`, in no order. Raises `Tampered`."""
    for _, record in streams.walk(plan, keys, FORMER):
        number, act, kem = int(record["number"]), None, b""
        if keys.can_act:
            inner = crypto.open_sealed(keys.former, _context(keys.principal, number), record["sealed"])
            act, kem = _cbor.unpack(inner, "a former root", bytes, bytes)
        yield Former(number, Keys(keys.principal, Root(record["read"], act, keys.root.pin)), kem)


def kem_seeds(caller: Caller, plan: Plan) -> list[bytes]:
    """The X-Wing seeds (32 bytes) that mail to the caller may be sealed to, the present one first."""
    return [caller.kem_seed(plan), *(former.kem for former in former_roots(plan, caller.keys))]
