"""How secrets are spelled: `<prefix>_<kid>_<secret>_<checksum>`, in lower-case base32.

Prefix and checksum let scanners for lost secrets be sure of a find, and tell a mistyped one from a wrong one.
"""

from __future__ import annotations

import base64
import re

from tallystone import crypto

_REST = re.compile(r"([a-z2-7]{16})_([a-z2-7]{52})_([a-z2-7]{8})\Z", re.ASCII)


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
    if not match or not crypto.equal(_checksum(text[:-9]).encode(), match[3].encode()):
        return None
    try:
        return match[1], base64.b32decode(match[2].upper() + "=" * (-len(match[2]) % 8))
    except ValueError:
        return None


def _checksum(head: str) -> str:
    return _base32(crypto.sha256(head.encode())[:5])


def _base32(data: bytes) -> str:
    return base64.b32encode(data).decode().rstrip("=").lower()
