"""Forms of rows that nothing writes today and every release reads."""

from __future__ import annotations

from tallystone import _cbor, crypto
from tallystone.vault.ledger import Ledger


def turned_row(
    public: bytes, block: str, number: int, grant_key: bytes, before: bytes, admin: bytes
) -> bytes:
    """The `secret` of an owner's row, form 04, after a sharer has changed the admin key to `admin`: sealed to the
    former key's `public` half, which opens it for whoever shared the block once."""
    sent = crypto.seal_to(public, crypto.pae("ledger", block, number), grant_key + admin)
    kept = Ledger(admin, block).seal(number, grant_key, history=True, watch=False)
    return b"\x04" + _cbor.encode([sent, before, kept])
