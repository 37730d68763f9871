"""Bech32 as BIP 173 defines it, but for the limit of 90 characters."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystone import bech32
from tallystone.errors import Invalid

PREFIXES = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=83).map(str.lower)


@given(PREFIXES, st.binary(max_size=200))
def test_what_is_encoded_decodes_to_the_same(prefix: str, data: bytes) -> None:
    text = bech32.encode(prefix, data)
    assert bech32.decode(text) == (prefix, data)
    assert bech32.decode(text.upper()) == (prefix, data)


@given(st.text(max_size=120))
def test_any_text_decodes_or_is_invalid(text: str) -> None:
    try:
        prefix, data = bech32.decode(text)
    except Invalid:
        return
    assert bech32.encode(prefix, data) == text.lower()


def test_a_witness_program_of_bip_173_is_regrouped_as_there() -> None:
    """BIP 173 puts one 5-bit version before its 20 bytes; without that 0 the text has another checksum."""
    program = bytes.fromhex("751e76e8199196d454941c45d1b3a323f1433bd6")
    assert bech32.encode("bc", program)[3:-6] == "w508d6qejxtdg4y5r3zarvary0c5xw7k"


@pytest.mark.parametrize(
    ("text", "prefix", "data"),
    [
        ("A12UEL5L", "a", b""),
        ("a12uel5l", "a", b""),
        (
            "an83characterlonghumanreadablepartthatcontainsthenumber1andtheexcludedcharactersbio1tt5tgs",
            "an83characterlonghumanreadablepartthatcontainsthenumber1andtheexcludedcharactersbio",
            b"",
        ),
        (
            "abcdef1qpzry9x8gf2tvdw0s3jn54khce6mua7lmqqqxw",
            "abcdef",
            bytes.fromhex("00443214c74254b635cf84653a56d7c675be77df"),
        ),
        ("11" + "q" * 82 + "c8247j", "1", bytes(51)),
        (
            "split1checkupstagehandshakeupstreamerranterredcaperred2y9e3w",
            "split",
            bytes.fromhex("c5f38b70305f519bf66d85fb6cf03058f3dde463ecd7918f2dc743918f2d"),
        ),
        ("?1ezyfcl", "?", b""),
    ],
)
def test_valid_checksums_of_bip_173(text: str, prefix: str, data: bytes) -> None:
    assert bech32.decode(text) == (prefix, data)
    assert bech32.encode(prefix, data) == text.lower()


@pytest.mark.parametrize(
    "text",
    [
        "\x201nwldj5",
        "\x7f1axkwrx",
        "\x801eym55h",
        "pzry9x0s0muk",
        "1pzry9x0s0muk",
        "x1b4n0q5v",
        "li1dgmt3",
        "de1lg7wt\xff",
        "A1G7SGD8",
        "10a06t8",
        "1qzzfhee",
        "a12UEL5L",
    ],
)
def test_invalid_texts_of_bip_173(text: str) -> None:
    with pytest.raises(Invalid):
        bech32.decode(text)


def test_bech32m_is_another_code() -> None:
    with pytest.raises(Invalid):
        bech32.decode("a1lqfn3a")


def test_bits_after_the_last_byte_must_be_zeros_and_few() -> None:
    for stray in ([1], [0], [0, 0, 0, 1], [31]):
        residue = bech32._residue([*bech32._expand("x"), *stray, *[0] * 6]) ^ 1
        checksum = [residue >> 5 * (5 - place) & 31 for place in range(6)]
        text = "x1" + "".join(bech32._ALPHABET[value] for value in [*stray, *checksum])
        with pytest.raises(Invalid, match="stray bits"):
            bech32.decode(text)
