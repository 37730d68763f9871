"""The tree's arithmetic against the public vectors, a naive definition, and itself."""

from __future__ import annotations

import json
from base64 import b64decode
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystone.audit.merkle import (
    EMPTY_ROOT,
    Frontier,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    root_of,
    verify_consistency,
    verify_inclusion,
    verify_subtree_consistency,
    verify_subtree_inclusion,
)

VECTORS = Path(__file__).parent / "vectors" / "merkle"


def cases(family: str) -> list[Any]:
    paths = sorted((VECTORS / family).rglob("*.json"))
    assert paths, family
    return [
        pytest.param(json.loads(path.read_text()), id=str(path.relative_to(VECTORS / family)))
        for path in paths
    ]


def hashes(case: dict[str, Any]) -> list[bytes]:
    return [b64decode(node) for node in case["proof"] or []]


@pytest.mark.parametrize("case", cases("inclusion"))
def test_inclusion_vectors(case: dict[str, Any]) -> None:
    verdict = verify_inclusion(
        case["leafIdx"], case["treeSize"], b64decode(case["leafHash"]), hashes(case), b64decode(case["root"])
    )
    assert verdict is not case["wantErr"]


@pytest.mark.parametrize("case", cases("consistency"))
def test_consistency_vectors(case: dict[str, Any]) -> None:
    verdict = verify_consistency(
        case["size1"], case["size2"], b64decode(case["root1"]), b64decode(case["root2"]), hashes(case)
    )
    assert verdict is not case["wantErr"]


@pytest.mark.parametrize("case", cases("subtreeinclusion"))
def test_subtree_inclusion_vectors(case: dict[str, Any]) -> None:
    leaf, root = b64decode(case["leafHash"]), b64decode(case["root"])
    verdict = verify_subtree_inclusion(case["leafIdx"], case["start"], case["end"], leaf, hashes(case), root)
    assert verdict is not case["wantErr"]


@pytest.mark.parametrize("case", cases("subtreeconsistency"))
def test_subtree_consistency_vectors(case: dict[str, Any]) -> None:
    part, root = b64decode(case["root1"]), b64decode(case["root2"])
    verdict = verify_subtree_consistency(case["start"], case["end"], case["size"], part, root, hashes(case))
    assert verdict is not case["wantErr"]


def leaves(count: int) -> list[bytes]:
    return [leaf_hash(b"leaf %d" % number) for number in range(count)]


def naive_root(items: list[bytes]) -> bytes:
    """MTH of RFC 6962 §2.1, word for word."""
    if not items:
        return sha256().digest()
    if len(items) == 1:
        return items[0]
    split = 1
    while split * 2 < len(items):
        split *= 2
    return sha256(b"\x01" + naive_root(items[:split]) + naive_root(items[split:])).digest()


def test_every_frontier_has_the_root_of_the_definition() -> None:
    tree, items = Frontier(), leaves(70)
    assert tree.root() == EMPTY_ROOT == naive_root([])
    for size, item in enumerate(items, start=1):
        tree.append(item)
        assert tree.root() == naive_root(items[:size])
        again = Frontier(size, tree.pack())
        assert again.root() == tree.root()
        spans = again.spans()
        assert [naive_root(items[start:end]) for start, end in spans] == again.hashes


def test_every_proof_that_we_make_verifies_and_no_other_place_does() -> None:
    for size in range(1, 20):
        items = leaves(size)
        root = root_of(items)
        for index in range(size):
            proof = inclusion_proof(items, index)
            assert verify_inclusion(index, size, items[index], proof, root)
            others = [i for i in range(size) if i != index]
            assert not any(verify_inclusion(i, size, items[index], proof, root) for i in others)
        for old in range(1, size + 1):
            proof = consistency_proof(items, old)
            assert verify_consistency(old, size, root_of(items[:old]), root, proof)
            assert old == size or not verify_consistency(old, size, root_of(items[1 : old + 1]), root, proof)


@given(
    st.integers(-2, 2**70), st.integers(-2, 2**70), st.binary(max_size=40), st.lists(st.binary(max_size=40))
)
def test_verification_never_raises(a: int, b: int, root: bytes, proof: list[bytes]) -> None:
    assert verify_inclusion(a, b, root, proof, root) in (True, False)
    assert verify_consistency(a, b, root, root, proof) in (True, False)
    assert verify_subtree_consistency(a, b, b, root, root, proof) in (True, False)


@pytest.mark.parametrize(("size", "packed"), [(1, b""), (0, bytes(32)), (3, bytes(32)), (-1, b"")])
def test_a_frontier_that_does_not_fit_its_size_is_refused(size: int, packed: bytes) -> None:
    with pytest.raises(ValueError, match="do not fit"):
        Frontier(size, packed)


def test_proofs_of_what_is_not_there_are_refused() -> None:
    with pytest.raises(ValueError, match="no such leaf"):
        inclusion_proof(leaves(3), 3)
    with pytest.raises(ValueError, match="no such tree size"):
        consistency_proof(leaves(3), 4)
