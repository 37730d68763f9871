"""The log's formats: leaves, manifests, signed checkpoints, and the sequencer that composes them."""

from __future__ import annotations

from base64 import b64decode, b64encode
from hashlib import sha256
from pathlib import Path

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from store_rows import FIRST_ROW, LOG_PUBLIC, LOG_SEED, NOW, counter, sequencer

from tallystone.audit.checkpoint import (
    Checkpoint,
    key_id,
    open_checkpoint,
    open_note,
    origin_of,
    parse_text,
    sign_checkpoint,
    sign_note,
    verifier_key,
)
from tallystone.audit.leaf import (
    ROWS,
    Leaf,
    decode_leaf,
    decode_manifest,
    encode_manifest,
    key_hash,
    row_hash,
)
from tallystone.audit.merkle import EMPTY_ROOT, leaf_hash, root_of
from tallystone.crypto import Signer
from tallystone.errors import Invalid, Tampered
from tallystone.store.protocol import Event, Put, Row, RowChange
from tallystone.store.tables import (
    BLOCK,
    LOG_DETAIL,
    LOG_HEAD,
    LOG_LEAF,
    LOG_MANIFEST,
    SHELF,
    WORKSPACE,
    WS,
)

ORIGIN = "tallystone/000102030405060708090a0b0c0d0e0f"
CHECKPOINT = Checkpoint(ORIGIN, 3, sha256(b"root").digest())
FOUNDING: RowChange = (WORKSPACE, (WS,), FIRST_ROW)

# The example key and note of the Go package golang.org/x/mod/sumdb/note, which C2SP signed-note describes.
GO_KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_TEXT = (
    "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
)
GO_SIGNATURE = "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM="
GO_LINE = f"— PeterNeumann {GO_SIGNATURE}\n"


def test_the_note_of_the_reference_implementation_opens() -> None:
    public = b64decode(GO_KEY.split("+", 2)[2])[1:]
    assert verifier_key("PeterNeumann", public) == GO_KEY
    assert open_note(f"{GO_TEXT}\n{GO_LINE}".encode(), "PeterNeumann", public) == GO_TEXT


def test_a_checkpoint_reads_as_the_specification_says() -> None:
    note = sign_checkpoint(CHECKPOINT, Signer(LOG_SEED)).decode()
    *body, gap, signature, end = note.split("\n")
    assert body == [ORIGIN, "3", b64encode(CHECKPOINT.root).decode()]
    assert (gap, end) == ("", "")
    dash, name, encoded = signature.split(" ")
    assert (dash, name) == ("—", ORIGIN)
    assert b64decode(encoded)[:4] == sha256(ORIGIN.encode() + b"\n\x01" + LOG_PUBLIC).digest()[:4]
    assert len(b64decode(encoded)) == 68
    assert open_checkpoint(note.encode(), ORIGIN, LOG_PUBLIC) == CHECKPOINT


def test_signatures_of_witnesses_are_passed_over() -> None:
    note = sign_checkpoint(CHECKPOINT, Signer(LOG_SEED)).decode()
    text, _, ours = note.rpartition("\n\n")
    same_name = "— " + ORIGIN + " " + b64encode(b"\0\0\0\0" + bytes(64)).decode() + "\n"
    for lines in (GO_LINE + ours, ours + GO_LINE, same_name + ours):
        assert open_checkpoint(f"{text}\n\n{lines}".encode(), ORIGIN, LOG_PUBLIC) == CHECKPOINT


def test_extension_lines_are_allowed() -> None:
    note = sign_note(CHECKPOINT.text() + "extension\n", ORIGIN, Signer(LOG_SEED))
    assert open_checkpoint(note, ORIGIN, LOG_PUBLIC) == CHECKPOINT


def test_no_changed_byte_of_a_checkpoint_passes() -> None:
    note = sign_checkpoint(CHECKPOINT, Signer(LOG_SEED))
    for at in range(len(note)):
        with pytest.raises(Tampered):
            open_checkpoint(note[:at] + bytes([note[at] ^ 1]) + note[at + 1 :], ORIGIN, LOG_PUBLIC)
    for cut in range(len(note)):
        with pytest.raises(Tampered):
            open_checkpoint(note[:cut], ORIGIN, LOG_PUBLIC)


def test_a_bad_signature_of_our_key_is_not_mended_by_a_second_line() -> None:
    text, _, ours = sign_checkpoint(CHECKPOINT, Signer(LOG_SEED)).decode().rpartition("\n\n")
    bad = "— " + ORIGIN + " " + b64encode(key_id(ORIGIN, LOG_PUBLIC) + bytes(64)).decode() + "\n"
    with pytest.raises(Tampered, match="wrong"):
        open_checkpoint(f"{text}\n\n{bad}{ours}".encode(), ORIGIN, LOG_PUBLIC)


def test_a_checkpoint_of_another_log_or_key_is_refused() -> None:
    with pytest.raises(Tampered, match="expected key"):
        open_checkpoint(sign_checkpoint(CHECKPOINT, Signer(LOG_SEED)), origin_of(bytes(32)), LOG_PUBLIC)
    foreign = sign_note(Checkpoint("other", 3, bytes(32)).text(), ORIGIN, Signer(LOG_SEED))
    with pytest.raises(Tampered, match="another log"):
        open_checkpoint(foreign, ORIGIN, LOG_PUBLIC)


@pytest.mark.parametrize("size", ["03", "-1", "+3", "", " 3", "3 ", "٣", "1e3", "9" * 5000])
def test_a_tree_size_has_one_spelling(size: str) -> None:
    with pytest.raises(Tampered):
        parse_text(CHECKPOINT.text().replace("\n3\n", f"\n{size}\n"))


@given(st.binary(max_size=300))
def test_any_bytes_are_a_note_or_tampered(data: bytes) -> None:
    with pytest.raises(Tampered):
        open_note(data, ORIGIN, LOG_PUBLIC)
    with pytest.raises(Tampered):
        open_note(b"a\n\n\xe2\x80\x94 a " + data + b"\n", ORIGIN, LOG_PUBLIC)


def test_a_leaf_has_one_spelling() -> None:
    leaf = Leaf(7, 30_000_000, "read", bytes(32))
    assert decode_leaf(leaf.encode()) == leaf
    assert cbor2.loads(leaf.encode()) == ["tallystone/leaf/1", 7, 30_000_000, "read", bytes(32)]
    wrong: object
    for wrong in (
        ["tallystone/leaf/2", 7, 30_000_000, "read", bytes(32)],
        ["tallystone/leaf/1", 7, 30_000_000, "read", bytes(31)],
        ["tallystone/leaf/1", "7", 30_000_000, "read", bytes(32)],
        ["tallystone/leaf/1", 7, 30_000_000, "read"],
        {},
    ):
        with pytest.raises(Tampered):
            decode_leaf(cbor2.dumps(wrong))


def test_hashes_tell_tables_types_and_borders_of_cells_apart() -> None:
    rows: list[tuple[str, Row]] = [
        ("a", (1, b"x", b"y")),
        ("b", (1, b"x", b"y")),
        ("a", (1, b"xy", b"")),
        ("a", (1, "x", b"y")),
        ("a", (1, b"x", b"y", None)),
        ("a", (1, b"x", None)),
    ]
    assert len({row_hash(table, row) for table, row in rows}) == len(rows)
    assert len({key_hash(row) for _, row in rows}) == len(rows) - 1


def test_a_manifest_does_not_tell_the_order_of_changes() -> None:
    entries = [("b", bytes(32), None), ("a", bytes([1] * 32), bytes(32)), ("a", bytes(32), bytes(32))]
    body = encode_manifest(entries)
    assert body == encode_manifest(entries[::-1])
    assert decode_manifest(body) == sorted(entries, key=lambda entry: entry[:2])
    wrong: object
    for wrong in ({}, [[]], [["a", bytes(31), None]], [["a", bytes(32), 1]], [["a", bytes(32), bytes(33)]]):
        with pytest.raises(Tampered):
            decode_manifest(cbor2.dumps(wrong))


def rows_of(puts: list[Put], table: object) -> list[Row]:
    return [put.row for put in puts if put.table is table]


def test_a_transaction_becomes_leaves_what_lies_beside_them_and_a_signed_head() -> None:
    events = [Event("create", b"one"), Event("read", b"two")]
    changes: list[RowChange] = [FOUNDING, (BLOCK, (WS, b"k"), counter(1, b"k")), (BLOCK, (WS, b"k"), None)]
    puts = sequencer().sequence(None, events, changes)
    leaves = [row[2] for row in rows_of(puts, LOG_LEAF)]
    decoded = [decode_leaf(leaf) for leaf in leaves if isinstance(leaf, bytes)]
    assert [(leaf.seq, leaf.minute, leaf.kind) for leaf in decoded] == [
        (0, NOW // 60, "create"),
        (1, NOW // 60, "read"),
        (2, NOW // 60, ROWS),
    ]
    assert rows_of(puts, LOG_DETAIL) == [(WS, 0, b"one"), (WS, 1, b"two")]
    assert [leaf.digest for leaf in decoded[:2]] == [sha256(b"one").digest(), sha256(b"two").digest()]
    ((_, seq, body),) = rows_of(puts, LOG_MANIFEST)
    assert isinstance(body, bytes)
    assert (seq, decoded[2].digest) == (2, sha256(body).digest())
    assert decode_manifest(body) == [
        ("block", key_hash((WS, b"k")), None),
        ("workspace", key_hash((WS,)), row_hash("workspace", FIRST_ROW)),
    ]
    ((_, size, _, note),) = rows_of(puts, LOG_HEAD)
    assert size == 3
    assert isinstance(note, bytes)
    signed = open_checkpoint(note, ORIGIN, LOG_PUBLIC)
    assert signed == Checkpoint(
        ORIGIN, 3, root_of(leaf_hash(leaf) for leaf in leaves if isinstance(leaf, bytes))
    )


def test_reads_alone_add_no_list_of_rows() -> None:
    log = sequencer()
    head = rows_of(log.sequence(None, [], [FOUNDING]), LOG_HEAD)[0]
    puts = log.sequence(head, [Event("read", b"")], [])
    assert rows_of(puts, LOG_MANIFEST) == []
    assert len(rows_of(puts, LOG_LEAF)) == 1


@pytest.mark.parametrize(
    "events,changes",
    [
        ([Event(ROWS, b"")], []),
        ([], [(LOG_LEAF, (WS, 0), (WS, 0, b""))]),
        ([], [(LOG_LEAF, (WS, 0), None)]),
        ([], [(LOG_HEAD, (WS,), None)]),
        ([], [(LOG_MANIFEST, (WS, 0), None)]),
        ([], [(LOG_DETAIL, (WS, 0), (WS, 0, b"other"))]),
    ],
)
def test_nobody_writes_the_log_but_the_log(events: list[Event], changes: list[RowChange]) -> None:
    with pytest.raises(Invalid):
        sequencer().sequence(None, events, [FOUNDING, *changes])


def test_a_log_begins_with_its_workspace_and_once() -> None:
    log = sequencer()
    for changes in ([], [(SHELF, (WS, b"", b""), None)], [(WORKSPACE, (WS,), None)]):
        with pytest.raises(Tampered, match="missing"):
            log.sequence(None, [Event("read", b"")], changes)
    head = rows_of(log.sequence(None, [], [FOUNDING]), LOG_HEAD)[0]
    log.sequence(head, [Event("read", b"")], [])
    log.durable()
    with pytest.raises(Tampered, match="missing"):
        log.sequence(None, [], [FOUNDING])


def grown() -> list[Row]:
    """The heads of a log of 1, 2, 3 and 4 leaves."""
    log, heads = sequencer(), []
    puts = log.sequence(None, [], [FOUNDING])
    for number in range(4):
        heads += rows_of(puts, LOG_HEAD)
        puts = log.sequence(heads[-1], [Event("read", b"%d" % number)], [])
    return heads


def test_a_head_that_somebody_edited_is_never_continued() -> None:
    """Growing it would sign the edit, and hide it from the check for good."""
    heads = grown()
    _, size, packed, note = heads[2]
    assert isinstance(size, int) and isinstance(packed, bytes) and isinstance(note, bytes)
    edited: list[Row] = [
        (WS, 2, heads[1][2], note),  # an earlier tree under the later checkpoint
        (WS, size, bytes([packed[0] ^ 1]) + packed[1:], note),
        (WS, size + 1, packed, note),
        (WS, 0, b"", note),
        (WS, -1, b"", note),
        (WS, size, packed[:-1], note),
        (WS, size, packed, note.replace(b"\n3\n", b"\n2\n")),
        (WS, size, packed, sign_checkpoint(Checkpoint(ORIGIN, 3, EMPTY_ROOT), Signer(LOG_SEED))),
        (WS, None, packed, note),
    ]
    for head in edited:
        with pytest.raises(Tampered):
            sequencer().sequence(head, [Event("read", b"")], [])
    assert sequencer().sequence(heads[2], [Event("read", b"")], [])


def test_a_process_does_not_follow_a_log_that_was_rolled_back_under_it() -> None:
    heads, log = grown(), sequencer()
    log.sequence(heads[1], [Event("read", b"")], [])
    log.sequence(heads[1], [Event("read", b"")], [])  # the transaction failed: the same head again
    log.sequence(heads[3], [Event("read", b"")], [])  # another process wrote meanwhile
    log.durable()
    for head in heads[:4]:
        with pytest.raises(Tampered, match="rolled back"):
            log.sequence(head, [Event("read", b"")], [])


def test_what_no_commit_made_sure_of_may_be_gone_when_a_standby_takes_over() -> None:
    heads, log = grown(), sequencer()
    log.sequence(heads[0], [Event("read", b"0")], [])
    log.durable()  # so heads[1] is
    log.sequence(heads[3], [Event("read", b"")], [])  # read on a primary that was lost with it
    log.sequence(heads[1], [Event("read", b"")], [])
    with pytest.raises(Tampered, match="rolled back"):
        log.sequence(heads[0], [Event("read", b"")], [])


def test_the_workspace_may_be_named_after_opening() -> None:
    log = sequencer()
    log.bind(bytes(32))
    head = rows_of(log.sequence(None, [], [FOUNDING]), LOG_HEAD)[0]
    assert isinstance(head[3], bytes)
    assert open_checkpoint(head[3], origin_of(bytes(32)), LOG_PUBLIC).size == 1


def test_the_licence_of_the_vectors_lies_beside_them() -> None:
    assert "Apache License" in (Path(__file__).parent / "vectors" / "merkle" / "LICENSE").read_text()
