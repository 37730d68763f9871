"""The stored tree, tiles, receipts, exports and kept states, against definitions written anew and others' verifiers."""

from __future__ import annotations

import random
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace

import c2sp_verifier
import pytest
from c2sp_verifier import Bad, Head, Key
from hypothesis import given
from hypothesis import strategies as st
from sigstore import errors
from sigstore._internal import merkle
from store_rows import LOG_PUBLIC, LOG_SEED, WORKSPACE_ID, check, counter, make_store, open_store
from stores import sqlite_only

from tallystone.audit.checkpoint import Checkpoint, origin_of, sign_checkpoint, verifier_key
from tallystone.audit.export import export
from tallystone.audit.leaf import decode_leaf
from tallystone.audit.merkle import leaf_hash, verify_consistency, verify_inclusion
from tallystone.audit.published import Published, Tile, parse_tile, tiles_of
from tallystone.audit.receipt import verify_receipt
from tallystone.audit.tree import Tree
from tallystone.audit.verify import Report, verify
from tallystone.crypto import Signer
from tallystone.errors import Invalid, NotFound, Tampered
from tallystone.store.protocol import Batch, Event, Put
from tallystone.store.sqlite import SqliteStore
from tallystone.store.tables import BLOCK, LOG_LEAF, LOG_NODE, REPLY, WS

pytestmark = sqlite_only("of ten thousand leaves that are read as rows, on either store alike")

ORIGIN = origin_of(WORKSPACE_ID)
VKEY = verifier_key(ORIGIN, LOG_PUBLIC)
LOG = Key.parse(VKEY)
LARGE = 10_000


def fill(store: SqliteStore, count: int) -> None:
    """Add so many leaves."""
    for start in range(0, count, 500):
        some = range(start, min(start + 500, count))
        store.commit(Batch(events=[Event("read", b"detail %d" % number) for number in some]))


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SqliteStore]:
    """A log of 10,000 leaves."""
    with make_store(tmp_path_factory.mktemp("large") / "store.db") as store:
        fill(store, LARGE - 2)
        yield store


@pytest.fixture
def small(tmp_path: Path) -> Iterator[SqliteStore]:
    """A log of 602 leaves."""
    with make_store(tmp_path / "store.db") as store:
        fill(store, 600)
        yield store


@pytest.fixture(scope="module")
def hashes(large: SqliteStore) -> list[bytes]:
    with large.snapshot() as snapshot:
        return [leaf_hash(row[2]) for row in snapshot.rows(LOG_LEAF)]


class Naive:
    """RFC 6962 §2.1, word for word: MTH, PATH and PROOF over leaf hashes."""

    def __init__(self, leaves: list[bytes]) -> None:
        self.leaves = leaves
        self.root = lru_cache(None)(self._root)

    def _root(self, start: int, end: int) -> bytes:
        if end - start == 1:
            return self.leaves[start]
        middle = start + self.split(end - start)
        return sha256(b"\x01" + self.root(start, middle) + self.root(middle, end)).digest()

    def split(self, size: int) -> int:
        k = 1
        while k * 2 < size:
            k *= 2
        return k

    def path(self, m: int, start: int, end: int) -> list[bytes]:
        if end - start == 1:
            return []
        k = self.split(end - start)
        if m < k:
            return [*self.path(m, start, start + k), self.root(start + k, end)]
        return [*self.path(m - k, start + k, end), self.root(start, start + k)]

    def proof(self, m: int, start: int, end: int, whole: bool = True) -> list[bytes]:
        if m == end - start:
            return [] if whole else [self.root(start, end)]
        k = self.split(end - start)
        if m <= k:
            return [*self.proof(m, start, start + k, whole), self.root(start + k, end)]
        return [*self.proof(m - k, start + k, end, False), self.root(start, start + k)]


@given(st.data())
def test_proofs_from_stored_rows_are_those_of_the_definition(
    large: SqliteStore, hashes: list[bytes], data: st.DataObject
) -> None:
    naive = Naive(hashes)
    size = data.draw(st.integers(1, LARGE))
    index, old = data.draw(st.integers(0, size - 1)), data.draw(st.integers(1, size))
    with large.snapshot() as snapshot:
        tree = Tree(snapshot, LARGE)
        assert tree.root(size) == naive.root(0, size)
        inclusion, consistency = tree.inclusion(index, size), tree.consistency(old, size)
    assert inclusion == naive.path(index, 0, size)
    assert consistency == naive.proof(old, 0, size)
    assert verify_inclusion(index, size, hashes[index], inclusion, naive.root(0, size))
    assert verify_consistency(old, size, naive.root(0, old), naive.root(0, size), consistency)
    c2sp_verifier.check_consistency(
        Head(old, naive.root(0, old)), Head(size, naive.root(0, size)), consistency
    )


def test_the_verifier_of_sigstore_agrees_on_inclusion(large: SqliteStore, hashes: list[bytes]) -> None:
    dice, naive = random.Random(62), Naive(hashes)
    with large.snapshot() as snapshot:
        tree = Tree(snapshot, LARGE)
        leaves = [bytes(row[2]) for row in snapshot.rows(LOG_LEAF)]
        for turn in range(400):
            size = dice.choice([dice.randint(1, LARGE), dice.randint(1, 70), 2 ** dice.randint(0, 13)])
            index = dice.randrange(size)
            proof, root, number = tree.inclusion(index, size), naive.root(0, size), index
            wrong = turn % 4 if proof else 0
            if wrong == 1:
                proof[dice.randrange(len(proof))] = dice.randbytes(32)
            elif wrong == 2:
                proof = proof[:-1]
            elif wrong == 3:
                number = (index + 1) % size
            stated = SimpleNamespace(log_index=number, tree_size=size, root_hash=root, hashes=proof)
            entry = SimpleNamespace(
                _inner=SimpleNamespace(inclusion_proof=stated, canonicalized_body=leaves[index])
            )
            ours = verify_inclusion(number, size, hashes[index], proof, root)
            assert ours == (wrong == 0)
            try:
                merkle.verify_merkle_inclusion(entry)
                theirs = True
            except errors.VerificationError:
                theirs = False
            assert ours == theirs, (number, size, wrong)


def test_a_log_that_was_begun_before_the_stored_tree_gets_it_when_it_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with make_store(path) as store:
        fill(store, 700)
        with store.snapshot() as snapshot:
            nodes = list(snapshot.rows(LOG_NODE))
    raw = sqlite3.connect(path)
    raw.execute("DROP TABLE log_node")
    raw.execute("DROP TABLE shred")  # of a later migration
    raw.execute("DELETE FROM schema_version WHERE number >= 4")
    later = raw.execute("SELECT name FROM sqlite_master").fetchall()
    raw.commit()
    raw.close()
    assert ("log_leaf",) in later
    with open_store(path) as store:
        with store.snapshot() as snapshot:
            assert list(snapshot.rows(LOG_NODE)) == nodes
        fill(store, 40)
        assert check(store).ok


# -- tiles ------------------------------------------------------------------------------------------------------


def served(store: SqliteStore) -> c2sp_verifier.Fetch:
    def fetch(path: str) -> bytes:
        with store.snapshot() as snapshot:
            log = Published(snapshot)
            if path == "checkpoint":
                return log.checkpoint
            return log.tile(parse_tile(path.removeprefix("tile/")))

    return fetch


def test_an_outsider_verifies_ten_thousand_leaves_from_tiles(large: SqliteStore, hashes: list[bytes]) -> None:
    head, entries = c2sp_verifier.read_log(served(large), LOG)
    assert (head.size, [c2sp_verifier.leaf_hash(entry) for entry in entries]) == (LARGE, hashes)


@pytest.mark.parametrize(
    ("tile", "path"),
    [
        (Tile(0, 0), "0/000"),
        (Tile(0, 67), "0/067"),
        (Tile(1, 1_234_067), "1/x001/x234/067"),
        (Tile(63, 1000, 7), "63/x001/000.p/7"),
        (Tile(-1, 999, 255), "entries/999.p/255"),
    ],
)
def test_a_tile_has_one_path(tile: Tile, path: str) -> None:
    assert tile.path == path
    assert parse_tile(path) == tile


@pytest.mark.parametrize(
    "path",
    ["", "0", "0/0", "0/0000", "0/x000/001", "00/001", "64/001", "-1/001", "0/001/002", "0/001.p/0", "0/001.p/256",
     "0/001.p/007", "0/001.p/999", "entry/001", "0/٠٠١", "0/x001/x234/x067", "../checkpoint", "0/001/", "0/001.p/"],
)  # fmt: skip
def test_no_other_path_is_a_tile(path: str) -> None:
    with pytest.raises(Invalid):
        parse_tile(path)


def test_the_tiles_of_a_tree_are_those_of_the_text() -> None:
    """The example of the text: 70,000 leaves."""
    tiles = [tile for tile in tiles_of(70_000) if tile.level >= 0]
    assert sum(tile.level == 0 and tile.width == 256 for tile in tiles) == 273
    assert [t for t in tiles if t.width < 256] == [Tile(0, 273, 112), Tile(1, 1, 17), Tile(2, 0, 1)]
    assert sum(tile.level == 1 and tile.width == 256 for tile in tiles) == 1
    assert set(tiles_of(70_000, 600)) == {t for t in tiles_of(70_000) if t not in set(tiles_of(600))}


@pytest.mark.parametrize(
    "tile", [Tile(0, 2, 91), Tile(0, 2), Tile(1, 0, 3), Tile(2, 0, 1), Tile(-1, 9), Tile(63, 0, 1)]
)
def test_tiles_beyond_the_tree_are_not_there(small: SqliteStore, tile: Tile) -> None:
    with small.snapshot() as snapshot, pytest.raises(NotFound):
        Published(snapshot).tile(tile)


# -- a log that was tampered with, as an outsider meets it --------------------------------------------------------

OTHER_SEED = bytes(32)


def forged(log: c2sp_verifier.Fetch, **changed: bytes) -> c2sp_verifier.Fetch:
    return lambda path: changed[path] if path in changed else log(path)


def test_an_outsider_is_told_of_every_kind_of_bad_log(small: SqliteStore, tmp_path: Path) -> None:
    log = served(small)
    entries = log("tile/entries/001")
    length = 2 + int.from_bytes(entries[:2], "big")
    first, second = entries[:length], entries[length : 2 * length]
    changed = entries[: length + 30] + bytes([entries[length + 30] ^ 1]) + entries[length + 31 :]
    cases = {
        "truncated": {"tile/entries/002.p/90": log("tile/entries/002.p/90")[:-length]},
        "reordered": {"tile/entries/001": second + first + entries[2 * length :]},
        "changed": {"tile/entries/001": changed},
        "resigned": {
            "checkpoint": sign_checkpoint(
                Checkpoint(ORIGIN, 602, c2sp_verifier.checkpoint(log("checkpoint"), LOG).root),
                Signer(OTHER_SEED),
            )
        },
        "swapped tile": {"tile/0/000": log("tile/0/001")},
        "swapped level": {"tile/1/000.p/2": log("tile/1/000.p/2")[32:] + log("tile/1/000.p/2")[:32]},
    }
    told = {}
    for name, files in cases.items():
        with pytest.raises(Bad) as caught:
            c2sp_verifier.read_log(forged(log, **files), LOG)
        told[name] = str(caught.value)
    assert told["truncated"].startswith("leaf 601")
    assert told["reordered"] == "leaf 256 is not what was signed"
    assert told["changed"] == "leaf 257 is not what was signed"
    with make_store(tmp_path / "fork.db") as fork:
        fork.commit(Batch(events=[Event("read", b"another history")]))
        fill(fork, 700)
        old = c2sp_verifier.checkpoint(log("checkpoint"), LOG)
        new = c2sp_verifier.checkpoint(served(fork)("checkpoint"), LOG)
        with fork.snapshot() as snapshot:
            with pytest.raises(Tampered, match="not the one whose first 602 leaves"):
                Published(snapshot).consistency(Checkpoint(ORIGIN, *old))
            with pytest.raises(Tampered, match="rolled back"):
                Published(snapshot).consistency(Checkpoint(ORIGIN, 10_000, old.root))
            with pytest.raises(Bad, match="did not grow out of"):
                c2sp_verifier.check_consistency(old, new, Published(snapshot).tree.consistency(old.size))


# -- receipts ---------------------------------------------------------------------------------------------------


def receipt(store: SqliteStore, leaf: int, note: bytes | None = None) -> bytes:
    with store.snapshot() as snapshot:
        return Published(snapshot).receipt(leaf, note).encode()


@pytest.mark.parametrize("leaf", [0, 1, 255, 256, 511, 601])
def test_a_receipt_verifies_here_and_elsewhere(small: SqliteStore, leaf: int) -> None:
    bundle = receipt(small, leaf)
    proven = verify_receipt(bundle, VKEY)
    index, record = c2sp_verifier.check_proof(bundle, LOG, [])
    assert index == proven.leaf.seq == leaf
    assert decode_leaf(record) == proven.leaf


def test_no_changed_byte_of_a_receipt_proves_anything_else(small: SqliteStore) -> None:
    bundle = receipt(small, 300)
    right = verify_receipt(bundle, VKEY)
    for at in range(len(bundle)):
        for bit in (1, 128):
            try:
                proven = verify_receipt(bundle[:at] + bytes([bundle[at] ^ bit]) + bundle[at + 1 :], VKEY)
            except Tampered:
                continue
            raise AssertionError(f"byte {at}: {proven} passed for {right}")


@given(st.binary(max_size=300))
def test_any_bytes_are_a_receipt_or_tampered(data: bytes) -> None:
    for bundle in (data, b"c2sp.org/tlog-proof@v1\nextra " + data, b"c2sp.org/tlog-proof@v1\n" + data):
        with pytest.raises(Tampered):
            verify_receipt(bundle, VKEY)


def test_a_receipt_for_another_tree_or_from_the_future_is_refused(small: SqliteStore, tmp_path: Path) -> None:
    bundle = receipt(small, 5)
    head, _, note = bundle.partition(b"\n\n")
    smaller = sign_checkpoint(Checkpoint(ORIGIN, 3, bytes(32)), Signer(LOG_SEED))
    with pytest.raises(Tampered, match="leaf 5 is not among them"):
        verify_receipt(head + b"\n\n" + smaller, VKEY)
    larger = sign_checkpoint(Checkpoint(ORIGIN, 9_999, bytes(32)), Signer(LOG_SEED))
    with pytest.raises(Tampered, match="leaf 5 is not in the tree of 9999 leaves"):
        verify_receipt(head + b"\n\n" + larger, VKEY)
    with small.snapshot() as snapshot, pytest.raises(NotFound, match="no leaf 700"):
        Published(snapshot).receipt(700, larger)
    with small.snapshot() as snapshot, pytest.raises(Tampered):
        Published(snapshot).receipt(5, sign_checkpoint(Checkpoint(ORIGIN, 9, bytes(32)), Signer(LOG_SEED)))
    with pytest.raises(Tampered, match="expected key"):
        verify_receipt(bundle, verifier_key(ORIGIN, Signer(OTHER_SEED).public))
    assert verify_receipt(head + b"\n\n" + note, VKEY).leaf.seq == 5


def test_a_receipt_is_checked_without_the_extras(small: SqliteStore) -> None:
    """Nothing but the core of the package is loaded, and no socket is made."""
    script = (
        "import sys, socket\n"
        "socket.socket.connect = None\n"
        "for name in ('starlette', 'uvicorn', 'msgspec', 'structlog', 'cyclopts', 'rich'):\n"
        "    sys.modules[name] = None\n"
        "from tallystone.audit.receipt import verify_receipt\n"
        "print(verify_receipt(sys.stdin.buffer.read(), sys.argv[1]).leaf.seq)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, VKEY], input=receipt(small, 77), capture_output=True, check=True
    )
    assert done.stdout == b"77\n"


# -- exports ----------------------------------------------------------------------------------------------------


def exported(store: SqliteStore, folder: Path) -> tuple[int, int]:
    with store.snapshot() as snapshot:
        return export(Published(snapshot), folder, ORIGIN, LOG_PUBLIC, lambda *_: False)


def test_an_export_verifies_and_grows_with_the_log(small: SqliteStore, tmp_path: Path) -> None:
    folder = tmp_path / "public"
    assert exported(small, folder) == (0, 602)
    assert c2sp_verifier.read_log(c2sp_verifier.from_folder(folder), LOG)[0].size == 602
    whole = {path: path.stat().st_mtime_ns for path in folder.rglob("001") if path.is_file()}
    fill(small, 300)
    assert exported(small, folder) == (602, 902)
    head, entries = c2sp_verifier.read_log(c2sp_verifier.from_folder(folder), LOG)
    assert (head.size, len(entries)) == (902, 902)
    assert {path: path.stat().st_mtime_ns for path in whole} == whole  # what was whole is not written again
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert names == {"checkpoint", "tile/1/000.p/2"} | {f"tile/{tile.path}" for tile in tiles_of(902)}


@pytest.mark.parametrize("cut", [0, 3, 6])
def test_an_interrupted_export_is_still_the_older_one(small: SqliteStore, tmp_path: Path, cut: int) -> None:
    folder = tmp_path / "public"
    exported(small, folder)
    fill(small, 900)

    class Stopped(Exception):
        pass

    def step(done: int, total: int) -> None:
        if done > cut:
            raise Stopped

    with small.snapshot() as snapshot, pytest.raises(Stopped):
        export(Published(snapshot), folder, ORIGIN, LOG_PUBLIC, lambda *_: False, step)
    assert c2sp_verifier.read_log(c2sp_verifier.from_folder(folder), LOG)[0].size == 602
    assert exported(small, folder) == (602, 1502)
    assert c2sp_verifier.read_log(c2sp_verifier.from_folder(folder), LOG)[0].size == 1502


def test_an_export_is_not_continued_by_another_log_and_the_first_other_leaf_is_named(
    small: SqliteStore, tmp_path: Path
) -> None:
    folder = tmp_path / "public"
    with closing(sqlite3.connect(small.path)) as raw, closing(sqlite3.connect(tmp_path / "early.db")) as copy:
        raw.backup(copy)
    fill(small, 100)
    exported(small, folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with open_store(tmp_path / "early.db") as early:
        with pytest.raises(Tampered, match=r"rolled back.*leaf 602 is the first"):
            exported(early, folder)
        early.commit(Batch(events=[Event("read", b"another history")]))
        fill(early, 200)
        with pytest.raises(Tampered, match=r"leaf 602 is the first that differs"):
            exported(early, folder)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


# -- a check that continues an earlier one ------------------------------------------------------------------------


def continued(store: SqliteStore, since: bytes | None) -> Report:
    with store.snapshot() as snapshot:
        return verify(snapshot, log_public=LOG_PUBLIC, since=since, keep_state=True)


def state_of(report: Report) -> bytes:
    assert report.ok, report.findings
    assert report.state is not None
    return report.state.encode()


def test_a_continued_check_looks_at_new_leaves_and_all_rows(small: SqliteStore) -> None:
    small.commit(Batch(changes=[Put(BLOCK, counter(1)), Put(REPLY, (WS, b"a", 0, 0, b""))]))
    state = state_of(continued(small, None))
    again = continued(small, state)
    assert (again.ok, again.leaves, again.rows) == (True, 0, 3)
    small.commit(Batch(changes=[Put(BLOCK, counter(2))], events=[Event("write", b"w")]))
    fill(small, 20)
    newer = continued(small, state)
    assert (newer.ok, newer.leaves) == (True, 22)
    assert state_of(newer) == state_of(continued(small, None))  # as if it had begun at the first leaf
    raw = sqlite3.connect(small.path, isolation_level=None)
    for edit, undo, where in (
        ("UPDATE reply SET expires = 7", "UPDATE reply SET expires = 0", "reply"),
        ("UPDATE block SET version = 1", "UPDATE block SET version = 2", "block"),
        ("UPDATE log_detail SET detail = x'00' WHERE seq = 610", "", "log_detail 610"),
    ):
        raw.execute(edit)
        report = continued(small, state)
        assert report.state is None
        assert report.findings[0].where.startswith(where)
        raw.execute(undo)
    assert report.first_bad == 610
    raw.close()


@pytest.mark.parametrize(
    ("edit", "first"),
    [
        ("DELETE FROM log_leaf WHERE seq >= 600", 601),
        ("UPDATE log_node SET hash = zeroblob(32) WHERE height = 4 AND number = 36", None),
        ("UPDATE log_leaf SET leaf = x'00' WHERE seq = 650", 650),
        ("DELETE FROM log_leaf WHERE seq = 640", 640),
        ("UPDATE log_node SET hash = zeroblob(32) WHERE height = 0 AND number = 655", 655),
    ],
)
def test_a_continued_check_finds_what_is_not_as_it_was(
    small: SqliteStore, edit: str, first: int | None
) -> None:
    state = state_of(continued(small, None))
    fill(small, 100)
    raw = sqlite3.connect(small.path)
    assert raw.execute(edit).rowcount
    raw.commit()
    raw.close()
    report = continued(small, state)
    assert not report.ok
    assert report.first_bad == first


def test_a_state_of_another_log_or_none_at_all_is_refused(small: SqliteStore, tmp_path: Path) -> None:
    state = state_of(continued(small, None))
    with small.snapshot() as snapshot, pytest.raises(Tampered):
        verify(snapshot, log_public=Signer(OTHER_SEED).public, since=state)
    for wrong in (b"", b"\x80", state[:-1], state.replace(b"audit-state/1", b"audit-state/2")):
        with small.snapshot() as snapshot, pytest.raises(Tampered):
            verify(snapshot, log_public=LOG_PUBLIC, since=wrong)
    with make_store(tmp_path / "shorter.db") as shorter:
        report = continued(shorter, state)
    assert not report.ok
