"""Deterministic CBOR (RFC 8949 §4.2.1), strict on input.

Signed and hashed bytes must have one spelling only, so `decode` refuses whatever `encode` would not have written:
longer integers, unsorted or repeated keys, indefinite lengths, trailing bytes.
"""

from __future__ import annotations

from typing import Any

import cbor2

from tallystone.errors import Tampered


def encode(value: Any) -> bytes:
    """`value` (None, bool, int, str, bytes, list, dict of these) as its one canonical byte string."""
    return cbor2.dumps(value, canonical=True)


def decode(data: bytes) -> Any:
    """The value that `encode` spells `data`. Raises `Tampered` for any other spelling."""
    try:
        value = cbor2.loads(data)
    except Exception as error:  # the decoder raises many types on hostile input; none may escape
        raise Tampered("stored bytes are not CBOR") from error
    if encode(value) != data:
        raise Tampered("stored bytes are not canonical CBOR")
    return value
