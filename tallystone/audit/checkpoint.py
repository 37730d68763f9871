"""Signed tree heads: C2SP `tlog-checkpoint` in a C2SP `signed-note`, so that existing witnesses can read
them.

    tallystone/5f2c…                    the origin, which is also the key's name
    1729                                the tree's size
    q1L2…=                              its root, base64

    — tallystone/5f2c… Zk9t…=           base64 of key id (4 bytes) and Ed25519 signature (64 bytes)

After a backup was restored a fourth line says `restore` and the branch that began there (an extension line of the
format): two logs with one beginning cannot be told apart by size.
Witnesses may add further signature lines; lines under a name or key id that is not ours are passed over.
"""

from __future__ import annotations

import binascii
from base64 import b64decode, b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256

from tallystone.audit.merkle import HASH_SIZE
from tallystone.crypto import Signer, verify
from tallystone.errors import Tampered

_ED25519 = b"\x01"
_DASH = "— "
_BRANCH = "restore "
_SIZE_LIMIT = 65_536
_SIGNATURE_LIMIT = 100


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a log claims: under `origin`, `size` leaves with this `root` (32 bytes). `branch` names the newest restore
    among them (see `restored`), and is empty as long as there was none."""

    origin: str
    size: int
    root: bytes
    branch: str = ""

    def text(self) -> str:
        """The note's text, which is what gets signed. Ends in a newline."""
        branch = f"{_BRANCH}{self.branch}\n" if self.branch else ""
        return f"{self.origin}\n{self.size}\n{b64encode(self.root).decode()}\n{branch}"


def origin_of(workspace: bytes) -> str:
    """The origin of a workspace's log: `tallystone/` and the first 16 bytes of its id in hex."""
    return "tallystone/" + workspace[:16].hex()


def key_id(name: str, public: bytes) -> bytes:
    """The 4 bytes that name a key in a signature line (C2SP signed-note)."""
    return sha256(name.encode() + b"\n" + _ED25519 + public).digest()[:4]


def verifier_key(name: str, public: bytes) -> str:
    """The public key as witnesses and other verifiers take it: `name+id+key`."""
    return f"{name}+{key_id(name, public).hex()}+{b64encode(_ED25519 + public).decode()}"


def sign_note(text: str, name: str, signer: Signer) -> bytes:
    """The note of `text`, signed under `name`."""
    signature = b64encode(key_id(name, signer.public) + signer.sign(text.encode())).decode()
    return f"{text}\n{_DASH}{name} {signature}\n".encode()


def open_note(note: bytes, name: str, public: bytes) -> str:
    """The text of a note, after checking that it is signed under `name` by `public`. Raises `Tampered`."""
    text, _ = take_apart(note)
    wanted = key_id(name, public)
    for signer, raw in signatures(note):
        if signer == name and raw[:4] == wanted:
            # The first line of our key decides: a bad signature is not made good by a second one.
            if verify(public, raw[4:], text.encode()):
                return text
            raise Tampered("the signature of a signed note is wrong")
    raise Tampered("a signed note is not signed by the expected key")


def parse_text(text: str) -> Checkpoint:
    """The checkpoint in a note's text. Raises `Tampered`. Other extension lines are allowed and ignored."""
    lines = text.split("\n")
    if len(lines) < 4 or lines[-1] or not all(lines[:-1]):
        raise Tampered("a checkpoint has not the lines it must have")
    origin, digits, encoded = lines[:3]
    root = _unbase64(encoded)
    # isascii first: other scripts have digits too. One spelling for each number: no leading zero.
    if not (digits.isascii() and digits.isdigit()) or len(digits) > 19 or str(int(digits)) != digits:
        raise Tampered("a checkpoint's tree size is malformed")
    if len(root) != HASH_SIZE:
        raise Tampered("a checkpoint's root is malformed")
    branch = next((line.removeprefix(_BRANCH) for line in lines[3:] if line.startswith(_BRANCH)), "")
    return Checkpoint(origin, int(digits), root, branch)


def sign_checkpoint(checkpoint: Checkpoint, signer: Signer) -> bytes:
    """The checkpoint as a signed note. The key's name is the origin."""
    return sign_note(checkpoint.text(), checkpoint.origin, signer)


def open_checkpoint(note: bytes, origin: str, public: bytes) -> Checkpoint:
    """The checkpoint in `note`, if it is of this origin and signed by this key. Raises `Tampered` otherwise."""
    checkpoint = parse_text(open_note(note, origin, public))
    if checkpoint.origin != origin:
        raise Tampered("a checkpoint is of another log")
    return checkpoint


def take_apart(note: bytes) -> tuple[str, list[str]]:
    """A note's text and its signature lines, none of them verified. Raises `Tampered`."""
    if len(note) > _SIZE_LIMIT:
        raise Tampered("a signed note is too long")
    try:
        whole = note.decode()
    except UnicodeDecodeError as error:
        raise Tampered("a signed note is not UTF-8") from error
    body, gap, signatures = whole.rpartition("\n\n")
    if not gap or not signatures.endswith("\n") or any(c < " " and c != "\n" for c in whole):
        raise Tampered("a signed note is malformed")
    lines = signatures[:-1].split("\n")
    if len(lines) > _SIGNATURE_LIMIT:
        raise Tampered("a signed note has too many signatures")
    return body + "\n", lines


def signatures(note: bytes) -> Iterator[tuple[str, bytes]]:
    """(key name, key id and signature) of each of a note's lines, none of them verified. Raises `Tampered`."""
    _, lines = take_apart(note)
    for line in lines:
        signer, _, encoded = line.removeprefix(_DASH).partition(" ")
        raw = _unbase64(encoded)
        if not line.startswith(_DASH) or not signer or len(raw) < 5:
            raise Tampered("a signed note has a malformed signature line")
        yield signer, raw


def _unbase64(encoded: str) -> bytes:
    try:
        raw = b64decode(encoded, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Tampered("a signed note has malformed base64") from error
    if b64encode(raw).decode() != encoded:
        raise Tampered("a signed note has malformed base64")
    return raw
