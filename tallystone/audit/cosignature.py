"""Verifier keys (C2SP `signed-note`), and what witnesses add to a checkpoint (C2SP `tlog-cosignature`, Ed25519).

A cosignature is a witness's word that at some time a checkpoint was the largest tree that it had seen of this log, and
consistent with all it had seen before. Its line in the note holds the key id, the time (8 bytes, Unix seconds) and an
Ed25519 signature (64 bytes) over `cosignature/v1`, `time …` and the note's text.
"""

from __future__ import annotations

import binascii
from base64 import b64decode
from dataclasses import dataclass
from hashlib import sha256

from tallystone.audit.checkpoint import signatures, take_apart
from tallystone.crypto import verify
from tallystone.errors import Invalid, Tampered

LOG, WITNESS = 1, 4
"""Kinds of key: Ed25519 of a log, Ed25519 of a witness with time."""
SKEW = 600
"""Seconds that a witness's clock may be ahead of ours."""

_KEY_SIZE = 32
_TIMED = 8 + 64


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A public key (32 bytes) under a name, and what it is for: `LOG` or `WITNESS`."""

    name: str
    kind: int
    public: bytes

    @property
    def id(self) -> bytes:
        """The 4 bytes that name the key in a signature line."""
        return sha256(self.name.encode() + b"\n" + bytes([self.kind]) + self.public).digest()[:4]


def parse_key(text: str, kind: int) -> VerifierKey:
    """The key in `name+id+base64`. Raises `Invalid` unless it is one, and of this kind."""
    name, _, rest = text.strip().partition("+")
    digits, _, encoded = rest.partition("+")
    try:
        raw = b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    key = VerifierKey(name, raw[0] if raw else 0, raw[1:])
    if not name or any(c.isspace() for c in name) or len(key.public) != _KEY_SIZE or key.id.hex() != digits:
        raise Invalid("this is no verifier key", hint="it reads name+id+key, e.g. log.example+1a2b3c4d+AZ…")
    if key.kind != kind:
        wanted = "a witness's (type 4)" if kind == WITNESS else "a log's (type 1)"
        raise Invalid(f"this verifier key is of type {key.kind}, not {wanted}", hint="take the other one")
    return key


def cosigned_at(note: bytes, witness: VerifierKey, now: int | None = None) -> int:
    """When the witness says it saw this checkpoint (Unix seconds). Raises `Tampered` if it does not say so, or, with
    `now`, if it says so of the future.
    """
    text, _ = take_apart(note)
    for name, raw in signatures(note):
        if name != witness.name or raw[:4] != witness.id:
            continue
        time, signature = int.from_bytes(raw[4:12], "big"), raw[12:]
        message = f"cosignature/v1\ntime {time}\n{text}".encode()
        if len(raw) != 4 + _TIMED or not verify(witness.public, signature, message):
            raise Tampered(f"the cosignature of {witness.name} is wrong")
        if now is not None and time > now + SKEW:
            raise Tampered(f"the cosignature of {witness.name} is from the future")
        return time
    raise Tampered(f"the checkpoint is not cosigned by {witness.name}")


def cosigned(note: bytes, lines: bytes, witness: VerifierKey, now: int) -> tuple[bytes, int]:
    """`note` with the witness's own line out of the signature lines that it answered, and the time in it. Lines of
    other keys are left out. Raises `Tampered` unless there is one that verifies and is not from the future.
    """
    together = note + lines
    time = cosigned_at(together, witness, now)
    # the first line of the witness's key is the one that was verified; lines that only look alike come after it
    _, found = take_apart(together)
    line = next(
        line
        for line, (name, raw) in zip(found, signatures(together), strict=True)
        if (name, raw[:4]) == (witness.name, witness.id)
    )
    return note + f"{line}\n".encode(), time
