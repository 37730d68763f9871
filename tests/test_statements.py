"""Signed statements: one spelling, one type, one workspace; and the tree of live grants."""

from __future__ import annotations

import random
from dataclasses import asdict, fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystone import _cbor, crypto
from tallystone.errors import Tampered
from tallystone.grant_tree import TREE_DEPTH, grant_proof, grants_root, root_from_proof
from tallystone.statements import (
    EMPTY,
    READ,
    Deletion,
    Genesis,
    Leaf,
    Link,
    PrincipalRecord,
    Signed,
    Version,
    WorkspaceRecord,
    identifier,
    issue,
)

SEED, OTHER_SEED = b"s" * 32, b"o" * 32
PUBLIC = crypto.signing_public(SEED)
RECORD, WORKSPACE = b"r" * 32, b"w" * 32

EXAMPLES: dict[str, Any] = {
    "principal": PrincipalRecord("user", "", 0, EMPTY, PUBLIC, b"k" * 1216, "", "active", None, 0),
    "workspace": WorkspaceRecord("user-1", b"a" * 1216, b"l" * 32, 1),
    "genesis": Genesis("block", "user-1", RECORD, b"n" * 16, 1, True, False, "", EMPTY, 1, {"limit": 5}),
    "grant": Link(
        "block-1", 1, EMPTY, 1, EMPTY, 0, "user-1", EMPTY, 2, {}, EMPTY, {}, "user-1", RECORD, {}, 1
    ),
    "version": Version("block-1", 1, EMPTY, 0, EMPTY, 0, EMPTY, "user-1", RECORD, "", 1),
    "deletion": Deletion("block-1", 0, EMPTY, 1, "user-1", RECORD, 1),
}


@pytest.mark.parametrize("kind", EXAMPLES)
def test_a_statement_reads_back_as_it_was_written(kind: str) -> None:
    statement = EXAMPLES[kind]
    assert type(statement).decode(statement.encode()) == statement
    signed = issue(kind, WORKSPACE, statement.encode(), [(RECORD, SEED)])
    assert Signed.decode(signed.encode()) == signed


@pytest.mark.parametrize("kind", EXAMPLES)
def test_a_statement_with_a_missing_an_additional_or_an_ill_typed_field_is_refused(kind: str) -> None:
    statement = EXAMPLES[kind]
    value = asdict(statement)
    for one in fields(statement):
        wrong: list[Any] = [3.5, ["x"], {"x": 1}, True, "text", b"bytes", 7, None]
        for other in wrong:
            allowed = {
                "int": int, "str": str, "bytes": bytes, "bool": bool, "dict[str, Any]": dict,
                "int | None": (int, type(None)),
            }[one.type]  # fmt: skip
            fits = isinstance(other, allowed) and (one.type == "bool" or not isinstance(other, bool))
            if not fits:
                with pytest.raises(Tampered):
                    type(statement).decode(_cbor.encode({**value, one.name: other}))
        with pytest.raises(Tampered):
            type(statement).decode(_cbor.encode({k: v for k, v in value.items() if k != one.name}))
    for body in ({**value, "more": 1}, list(value.values()), 7, None):
        with pytest.raises(Tampered):
            type(statement).decode(_cbor.encode(body))


def test_only_the_one_canonical_spelling_is_read() -> None:
    canonical = EXAMPLES["deletion"].encode()
    assert canonical[0] == 0xA7
    indefinite = b"\xbf" + canonical[1:] + b"\xff"
    longer_head = b"\xb8\x07" + canonical[1:]
    twice = b"\xa8" + canonical[1:] + _cbor.encode("time") + b"\x01"
    for spelling in (indefinite, longer_head, twice, canonical + b"\x00", canonical[:-1], b"", b"\xff"):
        with pytest.raises(Tampered):
            Deletion.decode(spelling)


@given(st.binary(max_size=60))
def test_no_bytes_at_all_crash_the_readers(data: bytes) -> None:
    for reader in (
        Signed.decode,
        Version.decode,
        Link.decode,
        Genesis.decode,
        Leaf.decode,
        PrincipalRecord.decode,
    ):
        with pytest.raises(Tampered):
            reader(data)


def test_a_signature_holds_for_its_type_its_workspace_its_bytes_and_its_signer_only() -> None:
    signed = issue("version", WORKSPACE, b"body", [(RECORD, SEED)])
    assert signed.signed_by(WORKSPACE, RECORD, PUBLIC)
    assert not replace(signed, type="grant").signed_by(WORKSPACE, RECORD, PUBLIC)
    assert not replace(signed, body=b"bodz").signed_by(WORKSPACE, RECORD, PUBLIC)
    assert not signed.signed_by(b"x" * 32, RECORD, PUBLIC)
    assert not signed.signed_by(WORKSPACE, b"x" * 32, PUBLIC)
    assert not signed.signed_by(WORKSPACE, RECORD, crypto.signing_public(OTHER_SEED))
    assert not replace(signed, signatures=()).signed_by(WORKSPACE, RECORD, PUBLIC)


def test_each_of_two_signers_is_found_and_one_cannot_stand_in_for_the_other() -> None:
    other = b"q" * 32
    signed = issue("version", WORKSPACE, b"body", [(RECORD, SEED), (other, OTHER_SEED)])
    assert signed.signed_by(WORKSPACE, RECORD, PUBLIC)
    assert signed.signed_by(WORKSPACE, other, crypto.signing_public(OTHER_SEED))
    assert not signed.signed_by(WORKSPACE, other, PUBLIC)
    (first, second) = signed.signatures
    swapped = replace(signed, signatures=((first[0], second[1]), (second[0], first[1])))
    assert not swapped.signed_by(WORKSPACE, RECORD, PUBLIC)


def test_what_successors_name_covers_type_and_body_but_no_signature() -> None:
    signed = issue("version", WORKSPACE, b"body", [(RECORD, SEED)])
    assert signed.digest == replace(signed, signatures=()).digest
    assert signed.digest != replace(signed, type="grant").digest
    assert signed.digest != replace(signed, body=b"bodz").digest


def test_an_id_is_122_bits_of_a_digest_in_the_shape_that_clients_check() -> None:
    assert identifier("block", b"\xff" * 32) == "block-ffffffff-ffff-4fff-bfff-ffffffffffff"
    assert identifier("agent", b"\x00" * 32) == "agent-00000000-0000-4000-8000-000000000000"


# -- the tree of live grants ------------------------------------------------------------------------------------


def digest(number: int) -> bytes:
    return crypto.sha256(number.to_bytes(4, "big"))


def naive_root(leaves: dict[int, bytes], depth: int = TREE_DEPTH, offset: int = 0) -> bytes:
    """The root by its definition, top down."""
    inside = {n: leaf for n, leaf in leaves.items() if offset <= n < offset + (1 << depth)}
    if not inside:
        return EMPTY
    if depth == 0:
        return inside[offset]
    half = 1 << (depth - 1)
    left, right = naive_root(inside, depth - 1, offset), naive_root(inside, depth - 1, offset + half)
    return crypto.sha256(b"\x01" + left + right)


@given(st.sets(st.integers(0, (1 << TREE_DEPTH) - 1), max_size=12))
def test_the_root_is_that_of_the_definition_and_every_grant_and_gap_is_provable(places: set[int]) -> None:
    leaves = {place: digest(place) for place in places}
    root = grants_root(leaves)
    assert root == naive_root(leaves)
    for place in [*places, 0, 1, 7, (1 << TREE_DEPTH) - 1]:
        proof = grant_proof(leaves, place)
        assert root_from_proof(place, leaves.get(place, EMPTY), proof) == root


def test_a_proof_convinces_for_its_own_place_and_leaf_only() -> None:
    leaves = {n: digest(n) for n in range(1, 9)}
    root = grants_root(leaves)
    for place in leaves:
        proof = grant_proof(leaves, place)
        for other in range(12):
            for leaf in (EMPTY, *leaves.values()):
                right = other == place and leaf == leaves[place]
                assert (root_from_proof(other, leaf, proof) == root) == right


def test_a_revoked_place_is_provably_empty_and_its_old_proof_is_worth_nothing() -> None:
    leaves = {n: digest(n) for n in range(1, 6)}
    old = grant_proof(leaves, 3)
    after = {n: leaf for n, leaf in leaves.items() if n != 3}
    assert root_from_proof(3, digest(3), old) != grants_root(after)
    assert root_from_proof(3, EMPTY, old) == grants_root(after)
    assert grants_root({**leaves, 3: EMPTY}) == grants_root(after)


@pytest.mark.parametrize(
    ("place", "proof"),
    [
        (-1, [0, []]),
        (1 << TREE_DEPTH, [0, []]),
        (1, [1, []]),
        (1, [0, [b"x" * 32]]),
        (1, [1, [b"x" * 31]]),
        (1, [1, [EMPTY]]),
        (1, [1 << TREE_DEPTH, [b"x" * 32]]),
        (1, [0]),
        (1, None),
        (1, [None, []]),
        (1, [1, [7]]),
        (1, ["1", ["x"]]),
    ],
)
def test_a_malformed_proof_is_refused(place: int, proof: Any) -> None:
    with pytest.raises(Tampered):
        root_from_proof(place, digest(1), proof)


def test_ten_thousand_grants_cost_one_of_them_a_short_path() -> None:
    leaves = {n: digest(n) for n in range(1, 10_001)}
    root = grants_root(leaves)
    for place in random.Random(1).sample(sorted(leaves), 3):
        proof = grant_proof(leaves, place)
        assert len(proof[1]) <= 14
        assert root_from_proof(place, leaves[place], proof) == root


def test_a_leafs_hash_cannot_be_guessed_from_what_it_says() -> None:
    leaf = Leaf(1, "user-1", RECORD, READ, True, None, 0, 0, b"a" * 16)
    assert Leaf.decode(leaf.encode()) == leaf
    assert leaf.digest != replace(leaf, salt=b"b" * 16).digest
    assert "salt" not in repr(leaf)


@pytest.mark.parametrize("count", [0, 1, 23, 24, 255, 256, 65_535, 65_536])
def test_the_details_of_an_event_are_spelled_as_any_list(count: int) -> None:
    filed = [(bytes(40), bytes([count % 256]) * 32)] * count
    for own, capsule in ((bytes(40), []), (b"", [b"capsule", bytes(40)])):
        details = [bytes(300), [list(pair) for pair in filed], own, capsule]
        assert _cbor.spell_filed(bytes(300), filed, own, capsule) == _cbor.encode(details)
