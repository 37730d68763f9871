"""Whom a block's grants are to: said with every block that is shown, so not opened grant by grant for each request.

Each grant's recipient lies sealed in a row of its own. So a process keeps, for each block, {leaf digest: recipient},
sealed under a key that follows from the block's own: between requests it can open none of it (design §6), and who opens
the block by keys of its own reads one ciphertext, and the rows of the grants that are new. The policy's root fixes the
leaves, and a leaf its recipient: what was kept for a leaf holds for as long as that is live. The cells lie beside the
blocks that `recall` keeps, within the same bound.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tallystone import _cbor, crypto
from tallystone.errors import Tampered

if TYPE_CHECKING:
    from tallystone.vault.opening import Opened


_FEW = 3
"""Grants that are opened each time: what is kept of them costs as much."""


def holders_of(opened: Opened) -> list[str]:
    """Whom the live grants are to, by their numbers. Raises `Tampered`."""
    leaves = opened.leaves()  # which are held against the policy's root
    if not leaves:
        return []
    place = "holders", opened.id, *leaves.values()  # a leaf fixes its recipient
    known: list[str] | None = opened.plan.known.get(place)
    if known is None:
        known = _holders_of(opened)
        opened.plan.remember(place, known)
    return list(known)


def _holders_of(opened: Opened) -> list[str]:
    epoch, live = opened.keys.number, opened.ledger().values()
    if len(live) <= _FEW:
        return [opened.roster(row).leaf.recipient for row, _ in live]
    known = _kept(opened, epoch)
    same = known is not None
    if known is None and epoch > 1:
        known = _kept(opened, epoch - 1)  # a change of keys changes few of the grants
    known, found = known or {}, {}
    for row, digest in live:
        found[digest] = known.get(digest) or opened.roster(row).leaf.recipient
    if not same or found != known:
        mark, key, context = _place(opened, epoch)
        flat = [part for pair in found.items() for part in pair]
        opened.caller.workspace.recall.keep_cell(mark, crypto.seal(key, context, _cbor.encode(flat)))
    return list(found.values())


def _place(opened: Opened, epoch: int) -> tuple[bytes, bytes, bytes]:
    """Where a block's cell is kept, the key that seals it, its context. The place follows from the key, so what
    was planned under keys that lost a race and were never committed is found by nobody else."""
    chain, context = opened.chain_key(epoch), crypto.pae("holders", opened.id, epoch)
    return (
        crypto.derive(chain, "block/holders-place", context),
        crypto.derive(chain, "block/holders"),
        context,
    )


def _kept(opened: Opened, epoch: int) -> dict[bytes, str] | None:
    """{leaf digest: recipient} as this process kept it under an epoch's key, whatever is live by now."""
    mark, key, context = _place(opened, epoch)
    sealed = opened.caller.workspace.recall.cell(mark)
    if sealed is None:
        return None
    flat = _cbor.decode(crypto.open_sealed(key, context, sealed))
    if not isinstance(flat, list):
        raise Tampered("what was kept of a block's grants is malformed")
    return dict(zip(flat[::2], flat[1::2], strict=True))
