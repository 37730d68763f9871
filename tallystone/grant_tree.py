"""The tree of live grants: a sparse Merkle tree whose root each policy statement carries (design §7.8)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tallystone import crypto
from tallystone.errors import Tampered
from tallystone.statements import EMPTY

# A sparse Merkle tree of fixed depth: a grant's number is its place, for good; a revoked place is EMPTY again. Fixed
# places make a change cost its path, whatever the number of grants, and the proof of one writer a few hashes.

TREE_DEPTH = 24


def _node(left: bytes, right: bytes) -> bytes:
    # An all-empty pair stays EMPTY, so empty subtrees need no table; a real node never hashes to zeros.
    return EMPTY if left == EMPTY and right == EMPTY else crypto.sha256(b"\x01" + left + right)


def grants_root(leaves: Mapping[int, bytes]) -> bytes:
    """The root (32 bytes) over {grant number: leaf digest}."""
    level = {place: digest for place, digest in leaves.items() if digest != EMPTY}
    for depth in range(TREE_DEPTH if level else 0):
        if len(level) == 1:  # as it is higher up for few grants, and everywhere for one
            return _alone(*level.popitem(), TREE_DEPTH - depth)
        level = _above(level)
    return level.get(0, EMPTY)


def _above(level: Mapping[int, bytes]) -> dict[int, bytes]:
    """The nodes over those of one level that are not empty."""
    return {
        place: _node(level.get(2 * place, EMPTY), level.get(2 * place + 1, EMPTY))
        for place in {number >> 1 for number in level}
    }


def _alone(place: int, node: bytes, levels: int) -> bytes:
    """What so many levels make of the only node that is not empty."""
    for _ in range(levels):
        node = crypto.sha256(b"\x01" + EMPTY + node if place & 1 else b"\x01" + node + EMPTY)
        place >>= 1
    return node if place == 0 else EMPTY


def grant_proof(leaves: Mapping[int, bytes], number: int) -> list[Any]:
    """The path of place `number`: [bit mask of the levels whose sibling is not empty, those siblings from below]."""
    level = {place: digest for place, digest in leaves.items() if digest != EMPTY}
    mask, siblings, place = 0, [], number
    for depth in range(TREE_DEPTH):
        sibling = level.get(place ^ 1, EMPTY)
        if sibling != EMPTY:
            mask |= 1 << depth
            siblings.append(sibling)
        if level.keys() <= {place}:
            break  # nothing beside the path from here on
        level = _above(level)
        place >>= 1
    return [mask, siblings]


def root_from_proof(number: int, digest: bytes, proof: list[Any]) -> bytes:
    """The root that `digest` at place `number` gives with `proof`. Raises `Tampered` for a malformed proof."""
    try:
        mask, siblings = proof
        rest = iter(siblings)
        if not 0 <= number < 1 << TREE_DEPTH or int(mask).bit_count() != len(siblings) or mask >> TREE_DEPTH:
            raise ValueError
        for depth in range(TREE_DEPTH):
            sibling = next(rest) if mask >> depth & 1 else EMPTY
            if len(sibling) != 32 or (mask >> depth & 1 and sibling == EMPTY):
                raise ValueError
            digest = _node(sibling, digest) if number & 1 else _node(digest, sibling)
            number >>= 1
    except (TypeError, ValueError) as error:
        raise Tampered("a proof of a grant is malformed") from error
    return digest
