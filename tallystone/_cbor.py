"""Deterministic CBOR (RFC 8949 §4.2.1), strict on input.

Signed and hashed bytes must have one spelling only, so `decode` refuses whatever `encode` would not have written:
longer integers, unsorted or repeated keys, indefinite lengths, trailing bytes. Tags, which a decoder would turn into
dates, patterns or references, do not exist here, in either direction.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import cbor2

from tallystone.errors import Invalid, Tampered

DEPTH_LIMIT = 128
"""Levels of lists and maps within each other. The C encoder recurses: without a bound, deep input ends the process."""

_LOWEST, _HIGHEST = -(2**63), 2**64 - 1
_CELLS = frozenset((int, bytes, str, type(None)))
_ALIEN, _PLAIN, _UNSORTED = 0, 1, 2
_ORDERED: set[tuple[str, ...]] = set()
"""Keys of maps that `in_order` has put in order: fields of ours, never what somebody stores."""


def encode(value: Any) -> bytes:
    """`value` (None, bool, int of 64 bits, float, str, bytes, list, dict of these) as its one canonical byte string.

    Raises `Invalid` for any other type, for a larger number and beyond `DEPTH_LIMIT`.
    """
    found = _look(value)
    if found == _ALIEN:
        raise _alien()
    return cbor2.dumps(value, canonical=found == _UNSORTED)


def encode_cells(cells: list[Any]) -> bytes:
    """`encode`, for what a stored row may hold: text, bytes, None and numbers of 64 bits, which have one spelling."""
    return cbor2.dumps(cells) if _CELLS.issuperset(map(type, cells)) else encode(cells)


def decode(data: bytes) -> Any:
    """The value that `encode` spells `data`. Raises `Tampered` for any other spelling."""
    try:
        value = cbor2.loads(data)
    except Exception as error:  # the library raises many types on hostile input; none may escape
        raise Tampered("stored bytes are not CBOR") from error
    try:
        # Each item takes a byte at least: bytes that spell a list within itself, or one a thousand times, hold fewer.
        found = _look(value, len(data))
        same = found != _ALIEN and cbor2.dumps(value, canonical=found == _UNSORTED) == data
    except Exception as error:
        raise Tampered("stored bytes are not CBOR") from error
    if not same:
        raise Tampered("stored bytes are not canonical CBOR")
    return value


def spell_filed(sealed: bytes, filed: list[tuple[bytes, bytes]], own: bytes, capsule: list[bytes]) -> bytes:
    """`encode` of [sealed, filed, own, capsule], where `filed` are pairs of 40 and 32 bytes, maybe many: what lies
    between these is the same in each. `own`: 40 bytes, or none."""
    count = len(filed)
    if count < 24:
        head = _FEW[count]
    else:
        size, sign = next((size, sign) for size, sign in _MANY if count < 1 << 8 * size)
        head = sign + count.to_bytes(size, "big")
    pairs = b"".join([b"\x82\x58\x28" + wrapped + b"\x58\x20" + tag for wrapped, tag in filed])
    ends = (b"\x58\x28" + own if own else b"\x40"), (cbor2.dumps(capsule) if capsule else b"\x80")
    return b"".join([b"\x84", cbor2.dumps(sealed), head, pairs, *ends])


_FEW = tuple(bytes([0x80 | count]) for count in range(24))
_MANY = (1, b"\x98"), (2, b"\x99"), (4, b"\x9a")
"""Of a list: how its length is given; in how many bytes, and what says so."""


def encode_named(value: dict[str, Any]) -> bytes:
    """`encode` for a map whose names are ASCII and known to us: in which order they come is worked out once."""
    names = _order(tuple(value))
    items = [value[name] for name in names]
    found = _look(items)
    if found == _ALIEN:
        raise _alien()
    return cbor2.dumps(dict(zip(names, items, strict=True)), canonical=found == _UNSORTED)


@lru_cache(1024)
def _order(names: tuple[str, ...]) -> list[str]:
    return in_order(names)


def own_bytes(value: Any) -> bytes:
    """CBOR for `own`: for what this process alone reads again. It is neither signed nor stored, so its spelling need
    not be the one."""
    return cbor2.dumps(value)


def own(data: bytes) -> Any:
    """What this process has written by `own_bytes`."""
    return cbor2.loads(data)


def in_order(names: Iterable[str]) -> list[str]:
    """The keys (ASCII) of a map of our own in canonical order: a map that is made so is encoded fastest."""
    ordered = sorted(names, key=lambda name: (len(name), name))
    _ORDERED.add(tuple(ordered))
    return ordered


def unpack(data: bytes, what: str, *types: type | tuple[type, ...]) -> Any:
    """The list that `data` spells, if it has exactly these types in this order. Raises `Tampered` that names `what`."""
    value = decode(data)
    if not isinstance(value, list) or not fits(value, types):
        raise Tampered(f"{what} is malformed")
    return value


def fits(values: Any, types: tuple[type | tuple[type, ...], ...]) -> bool:
    """Whether `values` has as many items as `types`, each of its type. A bool is no int."""
    if len(values) != len(types):
        return False
    for value, kind in zip(values, types, strict=True):
        given = type(value)
        if given is not kind and (not isinstance(kind, tuple) or given not in kind):
            return False
    return True


def _alien() -> Invalid:
    return Invalid("a field holds something that cannot be stored", hint="send text, numbers, lists and maps")


def _look(value: Any, most: int = sys.maxsize) -> int:
    """Whether a value of at most so many items can be spelled at all, and whether its maps are in canonical order and
    without fractions: then the plain encoder spells it canonically, in a third of the time that the canonical one takes
    to sort them."""
    found, level = _PLAIN, [value]
    for _ in range(DEPTH_LIMIT):
        below: list[Any] = []
        for one in level:
            kind = type(one)
            if kind is bytes or kind is str or one is None or kind is bool:
                continue
            if kind is int:
                if not _LOWEST <= one <= _HIGHEST:
                    return _ALIEN
            elif kind is list or kind is tuple:
                below += one
            elif kind is dict:
                if found == _PLAIN and tuple(one) not in _ORDERED and not _is_sorted(one):
                    found = _UNSORTED
                if found == _UNSORTED:
                    below += one
                below += one.values()
            elif kind is float:
                found = _UNSORTED
            elif isinstance(one, (str, bytes, float, int, list, tuple, dict)):
                found = _UNSORTED  # a kind of one: an enumeration's text, a named tuple
                if isinstance(one, int) and not _LOWEST <= one <= _HIGHEST:
                    return _ALIEN
                if isinstance(one, (list, tuple, dict)):
                    below += one
                if isinstance(one, dict):
                    below += one.values()
            else:
                return _ALIEN
            if len(below) > most:
                return _ALIEN
        if not below:
            return found
        level, most = below, most - len(below)
    return _ALIEN


def _is_sorted(names: Iterable[Any]) -> bool:
    """Whether these keys are ASCII text in canonical order: shorter ones first, then by their bytes."""
    before, length = "", -1
    for name in names:
        if type(name) is not str or not name.isascii():
            return False
        size = len(name)
        if size <= length and (size < length or name <= before):
            return False
        before, length = name, size
    return True
