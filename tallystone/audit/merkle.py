"""The Merkle tree of RFC 6962 §2: hashes, growth by appending, proofs and their verification.

Verification follows RFC 9162 §2.1 and, for subtrees, draft-ietf-plants-merkle-tree-certs §4. All hashes are
SHA-256, 32 bytes. Verifying functions return a bool and never raise, whatever they are given.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256

# Leaves and nodes are hashed under different prefixes, so that no node passes for a leaf (RFC 6962 §2.1).
_LEAF = b"\x00"
_NODE = b"\x01"

HASH_SIZE = 32
EMPTY_ROOT = sha256().digest()
"""The root of the tree without leaves."""


def leaf_hash(leaf: bytes) -> bytes:
    """The hash of a leaf's bytes."""
    return sha256(_LEAF + leaf).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of an inner node over its children's hashes."""
    return sha256(_NODE + left + right).digest()


class Frontier:
    """A tree that can only grow: its size, and the hashes of the complete subtrees it consists of, largest
    first.

    That is all it takes to append and to know the root: 32 bytes for each bit that is set in the size.
    """

    __slots__ = ("hashes", "size")

    def __init__(self, size: int = 0, packed: bytes = b"") -> None:
        """The tree of `size` leaves whose `pack()` was `packed`. Raises `ValueError` if they cannot belong
        together.
        """
        if size < 0 or len(packed) != HASH_SIZE * size.bit_count():
            raise ValueError("frontier and tree size do not fit")
        self.size = size
        self.hashes = [packed[at : at + HASH_SIZE] for at in range(0, len(packed), HASH_SIZE)]

    def append(self, leaf: bytes) -> list[bytes]:
        """Add the leaf with the hash `leaf`. Returns the hashes of the subtrees that it completes, the leaf's first:
        of 1, 2, 4, … leaves, all of them ending with this one.
        """
        hashes, size = self.hashes, self.size
        completed = [leaf]
        while size & 1:  # two complete subtrees of one size become one
            leaf = node_hash(hashes.pop(), leaf)
            completed.append(leaf)
            size >>= 1
        hashes.append(leaf)
        self.size += 1
        return completed

    def root(self) -> bytes:
        """The root of the tree as it stands."""
        if not self.hashes:
            return EMPTY_ROOT
        *rest, root = self.hashes
        for left in reversed(rest):
            root = node_hash(left, root)
        return root

    def pack(self) -> bytes:
        """The subtree hashes as one byte string."""
        return b"".join(self.hashes)

    def spans(self) -> list[tuple[int, int]]:
        """The leaves under each of `hashes`: (first, one past the last)."""
        spans, start = [], 0
        for bit in reversed(range(self.size.bit_length())):
            if self.size >> bit & 1:
                spans.append((start, start + (1 << bit)))
                start += 1 << bit
        return spans


def root_of(leaves: Iterable[bytes]) -> bytes:
    """The root over these leaf hashes."""
    tree = Frontier()
    for leaf in leaves:
        tree.append(leaf)
    return tree.root()


def inclusion_proof(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """The path from leaf `index` to the root over all `leaves` (hashes): PATH of RFC 6962 §2.1.1."""
    if not 0 <= index < len(leaves):
        raise ValueError("no such leaf")
    proof: list[bytes] = []
    while len(leaves) > 1:
        split = _split(len(leaves))
        if index < split:
            proof.append(root_of(leaves[split:]))
            leaves = leaves[:split]
        else:
            proof.append(root_of(leaves[:split]))
            leaves, index = leaves[split:], index - split
    return proof[::-1]


def consistency_proof(leaves: Sequence[bytes], size: int) -> list[bytes]:
    """The proof that the tree of the first `size` leaves grew into that of all: PROOF of RFC 6962 §2.1.2."""
    if not 0 < size <= len(leaves):
        raise ValueError("no such tree size")
    proof: list[bytes] = []
    known = True  # whether the verifier knows the root of the subtree that is left: only down the left edge
    while size < len(leaves):
        split = _split(len(leaves))
        if size <= split:
            proof.append(root_of(leaves[split:]))
            leaves = leaves[:split]
        else:
            proof.append(root_of(leaves[:split]))
            leaves, size, known = leaves[split:], size - split, False
    if not known:
        proof.append(root_of(leaves))
    return proof[::-1]


def verify_inclusion(index: int, size: int, leaf: bytes, proof: Sequence[bytes], root: bytes) -> bool:
    """Whether `proof` leads from the leaf hash at `index` to the `root` of a tree with `size` leaves."""
    if not 0 <= index < size or not _are_hashes([leaf, root, *proof]):
        return False
    node, last, computed = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            return False
        if node & 1 or node == last:
            computed = node_hash(sibling, computed)
            while not node & 1 and node:  # the right edge: levels on which this node has no sibling
                node, last = node >> 1, last >> 1
        else:
            computed = node_hash(computed, sibling)
        node, last = node >> 1, last >> 1
    return last == 0 and computed == root


def verify_consistency(
    old_size: int, size: int, old_root: bytes, root: bytes, proof: Sequence[bytes]
) -> bool:
    """Whether `proof` shows that the tree with `old_root` is the beginning of the one with `root`.

    An empty old tree is the beginning of every tree, so a proof from it says nothing, and is refused.
    """
    return old_size > 0 and verify_subtree_consistency(0, old_size, size, old_root, root, proof)


def verify_subtree_inclusion(
    index: int, start: int, end: int, leaf: bytes, proof: Sequence[bytes], root: bytes
) -> bool:
    """Whether `proof` leads from the leaf hash at `index` to the `root` of the subtree [start, end)."""
    return _is_subtree(start, end) and verify_inclusion(index - start, end - start, leaf, proof, root)


def verify_subtree_consistency(
    start: int, end: int, size: int, subtree_root: bytes, root: bytes, proof: Sequence[bytes]
) -> bool:
    """Whether `proof` shows that [start, end) with `subtree_root` is part of the tree of `size` with `root`."""
    if 0 <= start == end <= size:
        return subtree_root == EMPTY_ROOT and not proof
    if not _is_subtree(start, end) or end > size or not _are_hashes(proof):
        return False
    first, last, tree = start, end - 1, size - 1
    # Up to the lowest node that is a complete subtree at the right edge of [start, end).
    while first != last and (last == tree or last & 1):
        first, last, tree = first >> 1, last >> 1, tree >> 1
    rest = list(proof)
    if first != last and not rest:
        return False
    part = whole = subtree_root if first == last else rest.pop(0)
    for sibling in rest:
        if tree == 0:
            return False
        if last & 1 or last == tree:
            if first < last:
                part = node_hash(sibling, part)
            whole = node_hash(sibling, whole)
            while not last & 1 and last:
                first, last, tree = first >> 1, last >> 1, tree >> 1
        else:
            whole = node_hash(whole, sibling)
        first, last, tree = first >> 1, last >> 1, tree >> 1
    return tree == 0 and part == subtree_root and whole == root


def _split(size: int) -> int:
    """The largest power of two below `size`: the leaves under the root's left child."""
    return 1 << (size - 1).bit_length() - 1


def _is_subtree(start: int, end: int) -> bool:
    """Whether [start, end) is a subtree: it starts at a multiple of its size, rounded up to a power of two."""
    return 0 <= start < end and start % (1 << (end - start - 1).bit_length()) == 0


def _are_hashes(values: Iterable[bytes]) -> bool:
    return all(len(value) == HASH_SIZE for value in values)
