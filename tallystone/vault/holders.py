"""Whom a block's grants are to: said with every block that is shown, so not opened grant by grant for each request.

Each grant's recipient lies sealed in a row of its own. So a process keeps, for each block, {leaf digest: recipient},
sealed under a key that follows from the block's own: between requests it can open none of it (design §6), and who opens
the block by keys of its own reads one ciphertext, and the rows of the grants that are new. The policy's root fixes the
leaves, and a leaf its recipient: what was kept for a leaf holds for as long as that is live.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tallystone import _cbor, crypto
from tallystone.errors import Tampered

if TYPE_CHECKING:
    from tallystone.vault.opening import Opened

BYTES = 8 << 20
"""What a process keeps of them, at most."""


class Holders:
    """Sealed cells, by what they are of: bounded, and forgotten all at once."""

    def __init__(self) -> None:
        self._cells: dict[bytes, bytes] = {}
        self._size = 0

    def __repr__(self) -> str:
        return f"Holders({len(self._cells)} blocks)"

    def get(self, mark: bytes) -> bytes | None:
        """A cell that was kept."""
        return self._cells.get(mark)

    def put(self, mark: bytes, sealed: bytes) -> None:
        """Keep a cell, in place of the one before; of all others if there is no room for one more."""
        self._size += len(sealed) - len(self._cells.get(mark, b""))
        if self._size > BYTES:
            self._cells, self._size = {}, len(sealed)
        if len(sealed) <= BYTES:
            self._cells[mark] = sealed


def holders_of(opened: Opened) -> list[str]:
    """Whom the live grants are to, by their numbers. Raises `Tampered`."""
    if not opened.leaves():  # which are held against the policy's root
        return []
    kept, epoch = opened.caller.workspace.holders, opened.keys.number
    known = _kept(opened, epoch)
    same = known is not None
    if known is None and epoch > 1:
        known = _kept(opened, epoch - 1)  # a change of keys changes few of the grants
    known, found = known or {}, {}
    for row, digest in opened.ledger().values():
        found[digest] = known.get(digest) or opened.roster(row).leaf.recipient
    if not same or found != known:
        key, context = _key(opened, epoch)
        flat = [part for pair in found.items() for part in pair]
        kept.put(crypto.sha256(context), crypto.seal(key, context, _cbor.encode(flat)))
    return list(found.values())


def _key(opened: Opened, epoch: int) -> tuple[bytes, bytes]:
    context = crypto.pae("holders", opened.id, epoch)
    return crypto.derive(opened.chain_key(epoch), "block/holders"), context


def _kept(opened: Opened, epoch: int) -> dict[bytes, str] | None:
    """{leaf digest: recipient} as this process kept it under an epoch's key, whatever is live by now."""
    mark = crypto.sha256(crypto.pae("holders", opened.id, epoch))
    sealed = opened.caller.workspace.holders.get(mark)
    if sealed is None:
        return None
    key, context = _key(opened, epoch)
    flat = _cbor.decode(crypto.open_sealed(key, context, sealed))
    if not isinstance(flat, list):
        raise Tampered("what was kept of a block's grants is malformed")
    return dict(zip(flat[::2], flat[1::2], strict=True))
