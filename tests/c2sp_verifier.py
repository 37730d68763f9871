"""A verifier of transparency logs, written from the C2SP texts and RFC 6962 alone: it imports nothing of ours.

signed-note, tlog-checkpoint, tlog-tiles, tlog-proof and tlog-cosignature, as an outsider would read them. Each function
raises `Bad` with a reason, and names the first bad leaf where there is one.
"""

from __future__ import annotations

import urllib.request
from base64 import b64decode
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


class Bad(Exception):
    """What was read is not what the log's key signed."""


class Key(NamedTuple):
    name: str
    kind: int
    public: bytes

    @classmethod
    def parse(cls, vkey: str) -> Key:
        name, digits, encoded = vkey.split("+", 2)
        raw = b64decode(encoded)
        key = cls(name, raw[0], raw[1:])
        if key.id.hex() != digits:
            raise Bad("the key's id is not its own")
        return key

    @property
    def id(self) -> bytes:
        return sha256(self.name.encode() + b"\n" + bytes([self.kind]) + self.public).digest()[:4]


class Head(NamedTuple):
    size: int
    root: bytes


Fetch = Callable[[str], bytes]


def over_http(prefix: str, headers: dict[str, str]) -> Fetch:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def fetch(path: str) -> bytes:
        with opener.open(urllib.request.Request(f"{prefix}/{path}", headers=headers), timeout=30) as answer:
            return bytes(answer.read())

    return fetch


def from_folder(folder: Path) -> Fetch:
    return lambda path: (folder / path).read_bytes()


def open_note(note: bytes, key: Key) -> str:
    text, _, lines = note.decode().rpartition("\n\n")
    text += "\n"
    for line in lines.splitlines():
        dash, name, encoded = line.split(" ")
        raw = b64decode(encoded)
        if dash == "—" and (name, raw[:4]) == (key.name, key.id):
            message, signature = text.encode(), raw[4:]
            if key.kind == 4:
                seen = int.from_bytes(signature[:8], "big")
                message, signature = f"cosignature/v1\ntime {seen}\n".encode() + message, signature[8:]
            try:
                Ed25519PublicKey.from_public_bytes(key.public).verify(signature, message)
            except InvalidSignature:
                raise Bad("the signature is wrong") from None
            return text
    raise Bad(f"not signed by {key.name}")


def checkpoint(note: bytes, key: Key) -> Head:
    origin, size, root = open_note(note, key).splitlines()[:3]
    if origin != key.name:
        raise Bad("of another log")
    return Head(int(size), b64decode(root))


def leaf_hash(entry: bytes) -> bytes:
    return sha256(b"\x00" + entry).digest()


def tree_hash(hashes: list[bytes]) -> bytes:
    """MTH over leaf hashes."""
    if len(hashes) < 2:
        return hashes[0] if hashes else sha256(b"").digest()
    split = 1 << (len(hashes) - 1).bit_length() - 1
    return sha256(b"\x01" + tree_hash(hashes[:split]) + tree_hash(hashes[split:])).digest()


def path_root(index: int, size: int, leaf: bytes, path: list[bytes]) -> bytes:
    """The root that PATH(index, D[size]) leads to."""
    if size == 1 or not path:
        if size != 1 or path:
            raise Bad("the proof has a wrong length")
        return leaf
    split = 1 << (size - 1).bit_length() - 1
    if index < split:
        return sha256(b"\x01" + path_root(index, split, leaf, path[:-1]) + path[-1]).digest()
    return sha256(b"\x01" + path[-1] + path_root(index - split, size - split, leaf, path[:-1])).digest()


def proof_roots(old: int, size: int, proof: list[bytes], whole: bytes | None) -> tuple[bytes, bytes]:
    """(old root, new root) that PROOF(old, D[size]) leads to; `whole` is the old root while it is a subtree's."""
    if old == size:
        if (whole is None and len(proof) != 1) or (whole is not None and proof):
            raise Bad("the proof has a wrong length")
        return (whole, whole) if whole is not None else (proof[0], proof[0])
    if not proof:
        raise Bad("the proof is too short")
    split = 1 << (size - 1).bit_length() - 1
    if old <= split:
        before, after = proof_roots(old, split, proof[:-1], whole)
        return before, sha256(b"\x01" + after + proof[-1]).digest()
    before, after = proof_roots(old - split, size - split, proof[:-1], None)
    return sha256(b"\x01" + proof[-1] + before).digest(), sha256(b"\x01" + proof[-1] + after).digest()


def check_consistency(old: Head, new: Head, proof: list[bytes]) -> None:
    if not 0 < old.size <= new.size or proof_roots(old.size, new.size, proof, old.root) != (
        old.root,
        new.root,
    ):
        raise Bad(f"the tree of {new.size} leaves did not grow out of that of {old.size}")


def tile_path(level: int | str, index: int, width: int) -> str:
    digits = str(index).zfill(-(-len(str(index)) // 3) * 3)
    parts = [digits[at : at + 3] for at in range(0, len(digits), 3)]
    number = "/".join([f"x{part}" for part in parts[:-1]] + parts[-1:])
    return f"tile/{level}/{number}" + ("" if width == 256 else f".p/{width}")


def level_hashes(fetch: Fetch, level: int, size: int) -> list[bytes]:
    """All hashes of a level in the tree of this size."""
    count, found = size >> 8 * level, b""
    for index in range(-(-count // 256)):
        width = min(256, count - 256 * index)
        found += fetch(tile_path(level, index, width))
    if len(found) != 32 * count:
        raise Bad(f"tiles of level {level} have a wrong size")
    return [found[at : at + 32] for at in range(0, len(found), 32)]


def read_log(fetch: Fetch, key: Key) -> tuple[Head, list[bytes]]:
    """The whole log, verified: its head, and the entries. `Bad` names the first leaf that is not what was signed."""
    head = checkpoint(fetch("checkpoint"), key)
    entries: list[bytes] = []
    for index in range(-(-head.size // 256)):
        width = min(256, head.size - 256 * index)
        bundle = fetch(tile_path("entries", index, width))
        while bundle:
            length = int.from_bytes(bundle[:2], "big")
            entries.append(bundle[2 : 2 + length])
            bundle = bundle[2 + length :]
    if len(entries) != head.size:
        raise Bad(f"leaf {min(len(entries), head.size)}: there are {len(entries)}, not {head.size}")
    hashes, level = level_hashes(fetch, 0, head.size), 1
    if tree_hash(hashes) != head.root:
        raise Bad("the tree is not the one that was signed")
    for number, (entry, known) in enumerate(zip(entries, hashes, strict=True)):
        if leaf_hash(entry) != known:
            raise Bad(f"leaf {number} is not what was signed")
    while below := [hashes[at : at + 256] for at in range(0, len(hashes) - 255, 256)]:
        hashes = level_hashes(fetch, level, head.size)
        if hashes != [tree_hash(part) for part in below]:
            raise Bad(f"level {level} is not over the one below it")
        level += 1
    return head, entries


def check_proof(bundle: bytes, log: Key, witnesses: list[Key]) -> tuple[int, bytes]:
    """(index, record) that a proof is of. The record is what `extra` holds, as this log says."""
    head, _, note = bundle.partition(b"\n\n")
    first, extra, index, *path = head.decode().splitlines()
    if first != "c2sp.org/tlog-proof@v1" or extra[:6] != "extra " or index[:6] != "index ":
        raise Bad("no proof")
    signed, number, record = checkpoint(note, log), int(index[6:]), b64decode(extra[6:])
    for witness in witnesses:
        open_note(note, witness)
    hashes = [b64decode(line) for line in path]
    if number >= signed.size or path_root(number, signed.size, leaf_hash(record), hashes) != signed.root:
        raise Bad(f"leaf {number} is not in the tree")
    return number, record
