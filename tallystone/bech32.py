"""Bech32 (BIP 173, not Bech32m) without its limit of 90 characters, as age writes keys.

The checksum finds typing errors, not tampering.

    age1pq1…             →  ("age1pq", 1216 bytes)
    AGE-SECRET-KEY-PQ-1… →  ("age-secret-key-pq-", 32 bytes)
"""

from __future__ import annotations

from collections.abc import Iterable

from tallystone.errors import Invalid

_ALPHABET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_VALUES = {character: value for value, character in enumerate(_ALPHABET)}
_GENERATOR = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
_CHECKSUM_SIZE = 6


def encode(prefix: str, data: bytes) -> str:
    """`data` as lower-case Bech32 under `prefix` (lower-case printable ASCII).

    The same text in upper case means the same.
    """
    values = _regroup(data, 8, 5, pad=True)
    residue = _residue([*_expand(prefix), *values, *[0] * _CHECKSUM_SIZE]) ^ 1
    checksum = [residue >> 5 * (_CHECKSUM_SIZE - 1 - place) & 31 for place in range(_CHECKSUM_SIZE)]
    return prefix + "1" + "".join(_ALPHABET[value] for value in [*values, *checksum])


def decode(text: str) -> tuple[str, bytes]:
    """The prefix, in lower case, and the data.

    Raises `Invalid` for anything that `encode` would not have written. No message repeats the text: it may
    be a secret key with one character mistyped.
    """
    lowered = text.lower()
    if not text.isascii() or text not in (lowered, text.upper()):
        raise Invalid("a key's text mixes upper and lower case, or holds a foreign character")
    prefix, separator, rest = lowered.rpartition("1")
    printable = prefix.isprintable() and " " not in prefix
    if not separator or not prefix or not printable or len(rest) < _CHECKSUM_SIZE:
        raise Invalid("a key's text has no prefix, or is cut off")
    try:
        values = [_VALUES[character] for character in rest]
    except KeyError:
        raise Invalid("a key's text holds a character that keys never hold") from None
    if _residue([*_expand(prefix), *values]) != 1:
        raise Invalid("a key's checksum does not match: a character is wrong or missing")
    return prefix, bytes(_regroup(values[:-_CHECKSUM_SIZE], 5, 8, pad=False))


def _expand(prefix: str) -> list[int]:
    return [*(ord(sign) >> 5 for sign in prefix), 0, *(ord(sign) & 31 for sign in prefix)]


def _residue(values: Iterable[int]) -> int:
    """The remainder of BIP 173's BCH code over GF(32); 1 for a valid text."""
    residue = 1
    for value in values:
        top = residue >> 25
        residue = (residue & 0x1FFFFFF) << 5 ^ value
        for bit, term in enumerate(_GENERATOR):
            if top >> bit & 1:
                residue ^= term
    return residue


def _regroup(values: Iterable[int], width: int, into: int, *, pad: bool) -> list[int]:
    """The same bits in groups of `into`. Without `pad`, a rest must be zeros and shorter than `width`."""
    out: list[int] = []
    held = bits = 0
    for value in values:
        held = held << width | value
        bits += width
        while bits >= into:
            bits -= into
            out.append(held >> bits)
            held &= (1 << bits) - 1
    if pad and bits:
        out.append(held << into - bits)
    elif not pad and (bits >= width or held):
        raise Invalid("a key's text has stray bits at its end")
    return out
