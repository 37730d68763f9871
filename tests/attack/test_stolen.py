"""Stolen everything: the data directory, its WAL, its server keys and a backup, with the server off and no token.

No canary is in any byte of it, in any usual spelling; and whoever tries every byte string in it as a key against every
sealed cell opens nothing.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import shutil
import sqlite3
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from stores import sqlite_only

from attack.scene import CANARY, DATABASE, REPLY_KEY, Scene, build, rows
from tallystone import crypto
from tallystone.errors import Tampered
from tallystone.store.tables import TABLES
from tallystone.vault import Workspace

pytestmark = sqlite_only(
    "about what lies in its files; docs/postgresql.md says what PostgreSQL leaves behind"
)

CLEAR = {
    "principal.id",
    "principal.record",
    "principal.sigs",
    "workspace.id",
    "workspace.record",
    "token.kid",
    "token.principal",
    "token.scope",
    "log_leaf.leaf",
    "log_manifest.body",
    "log_head.checkpoint",
    "log_head.frontier",
    "kit.principal",
    "identity.principal",
    "directory.principal",
    "inbox.principal",
    "charter.body",
    "charter.sigs",
    "invite.kid",
}
"""Cells that lie in clear by design (§2, §7): ids, keys, sizes, counts and times."""


@pytest.fixture(scope="module")
def stolen(tmp_path_factory: pytest.TempPathFactory) -> tuple[Scene, Path]:
    """A copy that a thief makes while the server runs (so with its WAL), a backup, and an unpacked dump."""
    scene = build(tmp_path_factory.mktemp("stolen") / "data")
    loot = scene.folder.parent / "loot"
    with Workspace.open(scene.folder) as workspace:
        vault = workspace.vault(scene.tokens["alice"])
        vault.create_block(label=scene.canary("label"), value=scene.canary("value") * 300)
        vault.edit_block(scene.ids["private"], lambda b: {"value": scene.canary("value")})
        vault.once(REPLY_KEY + b"2", 0, lambda block: block.value.encode())
        vault.create_block(label=scene.canary("label"), value=scene.canary("value"))
        shutil.copytree(scene.folder, loot)
        source, target = sqlite3.connect(scene.folder / DATABASE), sqlite3.connect(loot / "backup.db")
        source.backup(target)
        (loot / "dump.sql").write_text("\n".join(source.iterdump()), encoding="utf-8")
        source.close()
        target.close()
    assert (loot / f"{DATABASE}-wal").stat().st_size > 0
    assert (loot / "server-keys" / "log.key").is_file()
    return scene, loot


def spellings(text: str) -> Iterator[bytes]:
    """How a text might lie in a file."""
    plain = text.encode()
    yield plain
    yield text.encode("utf-16-le")
    yield text.encode("utf-16-be")
    yield text.encode("utf-32-le")
    yield binascii.hexlify(plain)
    yield binascii.hexlify(plain).upper()
    yield plain[::-1]
    yield base64.b32encode(plain).rstrip(b"=")[:-2]
    yield zlib.compress(plain)[2:-6]
    for shift in range(3):  # base64 of the text at each offset of the three bytes that make four letters
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            yield encode(b"\0" * shift + plain)[4 * bool(shift) :].rstrip(b"=")[:-2]


def secrets_of(scene: Scene) -> list[str]:
    found = [*scene.secrets, CANARY]
    for token in scene.tokens.values():
        found += [token, token.split("_")[2]]
    for kit in scene.kits.values():
        found.append(next(line for line in kit.splitlines() if line.startswith("AGE-SECRET-KEY")))
    return found


def test_no_canary_is_in_any_file(stolen: tuple[Scene, Path]) -> None:
    scene, loot = stolen
    files = {path: path.read_bytes() for path in loot.rglob("*") if path.is_file()}
    assert {path.name for path in files} >= {DATABASE, f"{DATABASE}-wal", "log.key", "backup.db", "dump.sql"}
    assert len(scene.secrets) > 60
    leaks = [
        (secret, path.name)
        for secret in secrets_of(scene)
        for needle in spellings(secret)
        for path, content in files.items()
        if needle in content
    ]
    assert leaks == []
    raw_secrets = [base64.b32decode(token.split("_")[2].upper() + "====") for token in scene.tokens.values()]
    assert not [path for secret in raw_secrets for path, content in files.items() if secret in content]


def test_no_canary_is_in_any_cell_or_any_stream_in_it(stolen: tuple[Scene, Path]) -> None:
    scene, loot = stolen
    needles = [secret.encode() for secret in secrets_of(scene)]
    for name in (DATABASE, "backup.db"):
        for table in TABLES:
            for row in rows(loot / name, f"SELECT * FROM {table.name}"):
                for cell in row:
                    content = (
                        cell.encode() if isinstance(cell, str) else cell if isinstance(cell, bytes) else b""
                    )
                    for start in range(min(len(content), 64)):
                        for bits in (15, -15):
                            try:
                                content += zlib.decompressobj(bits).decompress(content[start:], 4096)
                            except zlib.error:
                                continue
                    assert not [n for n in needles if n in content], table.name


def test_who_shares_with_whom_is_in_no_row_but_an_unopened_capsules(stolen: tuple[Scene, Path]) -> None:
    """Bob holds Alice's block: no row outside his own clear ones names him, and none names a block or its owner."""
    scene, loot = stolen
    people = {name: scene.ids[name].encode() for name in ("alice", "bob", "dave", "a1", "b1")}
    blocks = [scene.ids[name].encode() for name in ("team", "private", "fixed", "bobs")]
    allowed = {"principal", "identity", "token", "kit", "directory", "workspace", "charter"}
    for table in TABLES:
        for row in rows(loot / DATABASE, f"SELECT * FROM {table.name}"):
            for cell in row:
                content = cell.encode() if isinstance(cell, str) else cell if isinstance(cell, bytes) else b""
                assert not [b for b in blocks if b in content or b[6:].replace(b"-", b"") in content], (
                    table.name
                )
                assert table.name in allowed or not [p for p, i in people.items() if i in content], table.name


def _cells(loot: Path) -> Iterator[tuple[str, bytes]]:
    for table in TABLES:
        for row in rows(loot / DATABASE, f"SELECT {', '.join(table.all_columns)} FROM {table.name}"):
            for column, cell in zip(table.all_columns, row, strict=True):
                if isinstance(cell, (bytes, str)):
                    yield f"{table.name}.{column}", cell.encode() if isinstance(cell, str) else cell


def _key_like(loot: Path) -> list[bytes]:
    """Every 32 bytes that a thief would try: files of that size, cells, heads, tails and aligned slices of cells, and
    hashes of those; the derivations that Tallystone itself would make of them; and keys made of nothing."""
    found = {
        bytes(32),
        b"\xff" * 32,
        hashlib.sha256(b"").digest(),
        (loot / "server-keys" / "log.key").read_bytes(),
        *(path.read_bytes() for path in (loot / "server-keys" / "days").iterdir()),
        *(
            path.read_bytes()[start : start + 32]
            for path in (loot / "server-keys" / "shred").iterdir()
            for start in range(0, path.stat().st_size, 32)
        ),
    }
    for _, cell in _cells(loot):
        found.add(hashlib.sha256(cell).digest())
        for start in {
            0,
            1,
            8,
            16,
            max(len(cell) - 32, 0),
            max(len(cell) - 40, 0),
            *range(0, min(len(cell), 96), 32),
        }:
            if len(piece := cell[start : start + 32]) == 32:
                found.add(piece)
    return sorted(found)


LABELS = (
    "token/open",
    "root/seal",
    "root/act",
    "root/sign",
    "root/kem",
    "root/own",
    "root/reply",
    "grant/event",
    "admin/ledger",
    "admin/ledger-wrap",
    "admin/retired",
    "admin/kem",
    "role/act",
    "epoch/chain",
    "epoch/previous-chain",
    "epoch/previous",
    "token/label",
    "auditor/event",
)


def test_all_rows_and_server_keys_open_nothing(stolen: tuple[Scene, Path]) -> None:
    _, loot = stolen
    keys = _key_like(loot)
    assert len(keys) > 800
    wraps: list[bytes] = []
    sealed: list[tuple[str, bytes]] = []
    columns = {name for name, _ in _cells(loot)}
    for name, cell in _cells(loot):
        if name in CLEAR:
            continue
        if len(cell) in (40, 48, 72, 80) and name.split(".")[0] in ("epoch", "grant_wrap", "version"):
            wraps.append(cell)
        elif len(cell) > crypto.SEAL_OVERHEAD:
            sealed.append((name, cell))
    assert columns >= {
        "shelf.one",
        "shelf.two",
        "version.sealed",
        "chain.sealed",
        "token.root",
        "identity.sign",
    }
    assert len(wraps) > 40 and len(sealed) > 100
    # One cell of each kind against every key and derivation; every cell against every key that is a whole cell or file.
    tried = 0
    seen: set[str] = set()
    whole = keys[:: max(1, len(keys) // 60)]
    for name, cell in sealed:
        first = name not in seen
        seen.add(name)
        for key in keys if first else whole:
            for context in (b"", b"event") if first else (b"event",):
                tried += 1
                with pytest.raises(Tampered):
                    crypto.open_sealed(key, context, cell)
    for wrap in wraps:
        for key in whole:
            tried += 1
            with pytest.raises(Tampered):
                crypto.unwrap(key, wrap)
    assert tried > 10_000


def test_the_right_contexts_do_not_help_without_a_key(stolen: tuple[Scene, Path]) -> None:
    """The thief knows the code: it derives what Tallystone would, and binds what Tallystone would bind."""
    _, loot = stolen
    keys = _key_like(loot)[:: 3 if os.environ.get("TALLYSTONE_ATTACK") != "full" else 1]
    shelves = rows(loot / DATABASE, "SELECT shelf, locator, position, one, two FROM shelf LIMIT 2")
    seeds = rows(loot / DATABASE, "SELECT principal, sign, kem FROM identity WHERE sign != x'' LIMIT 1")
    tokens = rows(loot / DATABASE, "SELECT kid, principal, scope, created, expires, root FROM token LIMIT 1")
    assert shelves and seeds and tokens
    for key in keys:
        derived = [key, *(crypto.derive(key, label) for label in LABELS)]
        for one in derived:
            for shelf, locator, position, first, second in shelves:
                context = crypto.pae("shelf", shelf, locator, position)
                for cell in (first, second):
                    if cell:
                        _closed(one, context, cell)
            for principal, sign, kem in seeds:
                _closed(one, crypto.pae("identity", "sign", principal), sign)
                _closed(one, crypto.pae("identity", "kem", principal), kem)
            for kid, principal, scope, created, expires, root in tokens:
                _closed(
                    one,
                    crypto.pae(
                        "token", kid, principal, scope, created, "never" if expires is None else expires
                    ),
                    root,
                )


def _closed(key: bytes, context: bytes, cell: bytes) -> None:
    try:
        crypto.open_sealed(key, context, cell)
    except Tampered:
        return
    pytest.fail("a sealed cell opened without a token")


def test_the_probes_would_have_found_something(stolen: tuple[Scene, Path]) -> None:
    """The search and the keys are no blanks: with a token the same cells open, and a planted canary is found."""
    scene, loot = stolen
    with Workspace.open(scene.folder) as workspace:
        caller = workspace.vault(scene.tokens["alice"])._caller
        opened = 0
        for shelf, locator, position, one in rows(
            loot / DATABASE, "SELECT shelf, locator, position, one FROM shelf"
        ):
            try:
                crypto.open_sealed(caller.keys.seal, crypto.pae("shelf", shelf, locator, position), one)
                opened += 1
            except Tampered:
                continue
    assert opened >= 5
    text = scene.secrets[0]
    packed = b"xy" + base64.b64encode(b"a" + text.encode() + b"b")
    assert any(needle in packed for needle in spellings(text))
    assert any(needle in zlib.compress(text.encode()) for needle in spellings(text))
