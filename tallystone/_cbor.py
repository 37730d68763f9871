"""Deterministic CBOR (RFC 8949 §4.2.1), strict on input.

Signed and hashed bytes must have one spelling only, so `decode` refuses whatever `encode` would not have written:
longer integers, unsorted or repeated keys, indefinite lengths, trailing bytes. Tags, which a decoder would turn into
dates, patterns or references, do not exist here, in either direction.
"""

from __future__ import annotations

from typing import Any

import cbor2

from tallystone.errors import Invalid, Tampered

DEPTH_LIMIT = 128
"""Levels of lists and maps within each other. The C encoder recurses: without a bound, deep input ends the process."""

_ATOMS = frozenset({type(None), bool, str, bytes, float})
_LOWEST, _HIGHEST = -(2**63), 2**64 - 1


def encode(value: Any) -> bytes:
    """`value` (None, bool, int of 64 bits, float, str, bytes, list, dict of these) as its one canonical byte string.

    Raises `Invalid` for any other type, for a larger number and beyond `DEPTH_LIMIT`.
    """
    if not _plain(value):
        raise Invalid(
            "a field holds something that cannot be stored", hint="send text, numbers, lists and maps"
        )
    return cbor2.dumps(value, canonical=True)


def decode(data: bytes) -> Any:
    """The value that `encode` spells `data`. Raises `Tampered` for any other spelling."""
    try:
        value = cbor2.loads(data)
        same = cbor2.dumps(value, canonical=True) == data
    except Exception as error:  # the library raises many types on hostile input; none may escape
        raise Tampered("stored bytes are not CBOR") from error
    # Only after the comparison: what is spelled canonically has no reference to itself, so the walk ends.
    if not same or not _plain(value):
        raise Tampered("stored bytes are not canonical CBOR")
    return value


def unpack(data: bytes, what: str, *types: type | tuple[type, ...]) -> Any:
    """The list that `data` spells, if it has exactly these types in this order. Raises `Tampered` that names `what`."""
    value = decode(data)
    if not isinstance(value, list) or not fits(value, types):
        raise Tampered(f"{what} is malformed")
    return value


def fits(values: Any, types: tuple[type | tuple[type, ...], ...]) -> bool:
    """Whether `values` has as many items as `types`, each of its type. A bool is no int."""
    return len(values) == len(types) and all(
        isinstance(value, kind) and (not isinstance(value, bool) or kind is bool)
        for value, kind in zip(values, types, strict=True)
    )


def _plain(value: Any) -> bool:
    level = [value]
    for _ in range(DEPTH_LIMIT):
        below: list[Any] = []
        for one in level:
            kind = type(one)
            if kind in _ATOMS:
                continue
            if isinstance(one, int):
                if not _LOWEST <= one <= _HIGHEST:
                    return False
            elif isinstance(one, (list, tuple)):
                below.extend(one)
            elif isinstance(one, dict):
                below.extend(one)
                below.extend(one.values())
            elif not isinstance(one, (str, bytes, float)):
                return False
        if not below:
            return True
        level = below
    return False
