"""What a check that found nothing leaves behind, so that the next one need not begin at the first leaf.

A state is kept away from the store, as a pin is: whoever can change both can hide anything from the next check. Its
bytes are deterministic CBOR:

    ["tallystone/audit-state/1", checkpoint note, frontier, [[table, (sha256 of key ‖ sha256 of row)…], …]]
"""

from __future__ import annotations

from dataclasses import dataclass

from tallystone import _cbor
from tallystone.audit.checkpoint import parse_text, take_apart
from tallystone.audit.logkeys import LogKeys
from tallystone.audit.merkle import HASH_SIZE, Frontier
from tallystone.audit.restored import Restored, pack_restores, unpack_restores
from tallystone.errors import Tampered

_LABEL = "tallystone/audit-state/1"
_ENTRY = 2 * HASH_SIZE
_FORMS = ((str, bytes, bytes, list), (str, bytes, bytes, list, list))


@dataclass(frozen=True, slots=True)
class State:
    """The log as it was checked: its checkpoint and frontier, and by table the rows that it accounts for."""

    checkpoint: bytes
    size: int
    frontier: bytes
    rows: dict[str, bytes]
    """By table, 64 bytes for each row: the hash of its key and its own, sorted."""
    restores: tuple[Restored, ...] = ()
    """The restores among the leaves."""

    @property
    def branch(self) -> str:
        """The branch of the log that was checked."""
        return parse_text(take_apart(self.checkpoint)[0]).branch

    def encode(self) -> bytes:
        """The state's bytes. They hold no secret and nothing that can be read of a row."""
        tables = [[name, self.rows[name]] for name in sorted(self.rows)]
        restores = [pack_restores(self.restores)] if self.restores else []
        return _cbor.encode([_LABEL, self.checkpoint, self.frontier, tables, *restores])

    def live(self) -> dict[str, dict[bytes, bytes]]:
        """By table: hash of the key → hash of the row."""
        return {
            name: {
                packed[at : at + HASH_SIZE]: packed[at + HASH_SIZE : at + _ENTRY]
                for at in range(0, len(packed), _ENTRY)
            }
            for name, packed in self.rows.items()
        }


def pack_rows(live: dict[str, dict[bytes, bytes]]) -> dict[str, bytes]:
    """What `State.live` unpacks."""
    return {name: b"".join(sorted(key + row for key, row in rows.items())) for name, rows in live.items()}


def decode_state(data: bytes, origin: str, public: bytes) -> State:
    """The state in these bytes. Raises `Tampered` if it is none, or not of this log and signed with its key then."""
    note, packed, tables, restores = _taken_apart(data)
    signed = LogKeys.decode(public).open(note, origin)
    try:
        fits = Frontier(signed.size, packed).root() == signed.root
    except ValueError:
        fits = False
    if not fits:
        raise Tampered("the kept state of the log is not of its own checkpoint")
    return State(note, signed.size, packed, tables, restores)


def _taken_apart(data: bytes) -> tuple[bytes, bytes, dict[str, bytes], tuple[Restored, ...]]:
    whole = _cbor.decode(data)
    if not isinstance(whole, list) or not any(_cbor.fits(whole, form) for form in _FORMS):
        raise Tampered("the kept state of the log is malformed")
    label, note, packed, listed, *restores = whole
    tables: dict[str, bytes] = {}
    for entry in listed:
        match entry:
            case [str(name), bytes(rows)] if len(rows) % _ENTRY == 0:
                tables[name] = rows
            case _:
                raise Tampered("the kept state of the log is malformed")
    if label != _LABEL:
        raise Tampered("the kept state of the log has a form that this version does not know")
    return note, packed, tables, unpack_restores(restores[0]) if restores else ()
