"""Known answers for each algorithm, and: whatever does not fit is `Tampered`, which tells nothing secret.

The vectors are those of the PyPI package `cryptography-vectors`: RFCs 4231, 5869, 8032 and 9180, NIST's key
wrap, C2SP's chunked-encryption and the IETF's draft of hybrid HPKE.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import hmac
import json
import traceback
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cryptography_vectors
import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.bindings._rust import openssl
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, x25519
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given
from hypothesis import strategies as st

from tallystone import crypto
from tallystone.errors import Tampered
from tallystone.kept import Digests

GOLDEN = Path(__file__).parent / "golden" / "crypto.json"
SEED = bytes(range(32))
OTHER_SEED = bytes(range(1, 33))
KEY = bytes(range(64, 96))
OTHER_KEY = bytes(range(65, 97))
CANARY = b"canary-plaintext"


def _vectors(*path: str) -> Iterator[str]:
    with cryptography_vectors.open_vector_file("/".join(path), "r") as file:
        yield from file


def _records(*path: str) -> list[dict[str, str]]:
    """The `NAME = value` groups of NIST's and pyca's files; a line without a value is its own mark."""
    records: list[dict[str, str]] = []
    for line in _vectors(*path):
        name, separator, value = (part.strip() for part in line.partition("="))
        if name.upper() == "COUNT":
            records.append({})
        elif records and name and name[0] not in "#[":
            records[-1][name] = value if separator else ""
    return records


# -- known answers -------------------------------------------------------------------------------------------


def _plain_hkdf(secret: bytes, salt: bytes, info: bytes, size: int) -> bytes:
    """RFC 5869 in five lines, checked against its own vectors below: what `derive` is compared with."""
    extracted = hmac.digest(salt or bytes(32), secret, "sha256")
    out = block = b""
    while len(out) < size:
        block = hmac.digest(extracted, block + info + bytes([len(out) // 32 + 1]), "sha256")
        out += block
    return out[:size]


def test_hkdf_gives_the_answers_of_rfc_5869() -> None:
    records = _records("KDF", "rfc-5869-HKDF-SHA256.txt")
    assert len(records) == 3
    for record in records:
        secret, salt, info = (bytes.fromhex(record[name]) for name in ("IKM", "salt", "info"))
        size, expected = int(record["L"]), bytes.fromhex(record["OKM"])
        assert HKDF(hashes.SHA256(), size, salt=salt, info=info).derive(secret) == expected
        assert _plain_hkdf(secret, salt, info, size) == expected


def test_derive_is_hkdf_with_its_purpose_as_info() -> None:
    assert crypto.derive(KEY, "open") == _plain_hkdf(KEY, b"", b"tallystone/open", 32)
    info = crypto.pae("tallystone/wrap", b"block", 7)
    assert crypto.derive(KEY, "wrap", b"block", 7) == _plain_hkdf(KEY, b"", info, 32)


def test_mac_gives_the_answers_of_rfc_4231() -> None:
    found = 0
    fields: dict[str, bytes] = {}
    for line in _vectors("HMAC", "rfc-4231-sha256.txt"):
        name, _, value = (part.strip() for part in line.partition("="))
        if name in ("Key", "Msg"):
            fields[name] = bytes.fromhex(value)
        elif name == "MD":
            found += 1
            assert crypto.mac(fields["Key"], fields["Msg"]) == bytes.fromhex(value)
    assert found >= 5


def test_ed25519_gives_the_answers_of_its_authors() -> None:
    found = 0
    for line in _vectors("asymmetric", "Ed25519", "sign.input"):
        secret, public, message, signed = (bytes.fromhex(field) for field in line.strip().split(":")[:4])
        seed, signature = secret[:32], signed[:64]
        assert crypto.signing_public(seed) == public
        assert crypto.sign(seed, message) == signature
        assert crypto.verify(public, signature, message)
        found += 1
    assert found == 1024


def test_aes_key_wrap_gives_the_answers_of_nist() -> None:
    records = _records("keywrap", "kwtestvectors", "KW_AE_256.txt")
    assert len(records) == 500
    for record in records:
        assert crypto.wrap(bytes.fromhex(record["K"]), bytes.fromhex(record["P"])).hex() == record["C"]


def test_aes_key_unwrap_gives_the_answers_of_nist() -> None:
    records = _records("keywrap", "kwtestvectors", "KW_AD_256.txt")
    assert len(records) == 500 and sum("FAIL" in record for record in records) == 100
    for record in records:
        key, wrapped = bytes.fromhex(record["K"]), bytes.fromhex(record["C"])
        if "FAIL" in record:
            with pytest.raises(Tampered):
                crypto.unwrap(key, wrapped)
        else:
            assert crypto.unwrap(key, wrapped).hex() == record["P"]


COBBLESTONE = [
    vector
    for vector in json.loads("".join(_vectors("chunked-encryption", "vectors.json")))["vectors"]
    if vector["aead"] == "AEAD_AES_256_GCM"
]
CHUNK = 16_384
WIRE_CHUNK = CHUNK + 16


def _message_key(hash_name: str, key: bytes, salt: bytes, context: bytes) -> tuple[AESGCM, bytes, bytes]:
    """C2SP chunked-encryption's key derivation: the message's cipher, base nonce and commitment."""
    info = b"c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM\0" + salt + context
    out = block = b""
    for number in (1, 2, 3):
        block = hmac.digest(key, block + info + bytes([number]), hash_name)
        out += block
    return AESGCM(out[:32]), out[32:44], out[44:76]


def _nonce(base: bytes, number: int) -> bytes:
    return (int.from_bytes(base, "big") ^ number).to_bytes(12, "big")


def _plain_open(hash_name: str, key: bytes, context: bytes, sealed: bytes) -> bytes:
    """C2SP chunked-encryption's decryption. Raises whenever anything is amiss."""
    cipher, base, commitment = _message_key(hash_name, key, sealed[:24], context)
    if len(key) != 32 or len(sealed) < 56 or sealed[24:56] != commitment:
        raise InvalidTag
    chunks = [sealed[at : at + WIRE_CHUNK] for at in range(56, len(sealed), WIRE_CHUNK)]
    if not chunks or len(chunks[-1]) == WIRE_CHUNK:
        raise InvalidTag
    return b"".join(cipher.decrypt(_nonce(base, at), chunk, b"") for at, chunk in enumerate(chunks))


def _rekeyed(key: bytes, context: bytes, sealed: bytes) -> bytes:
    """A message of the SHA-256 instance as the SHA-512 instance would have it, with the same faults in it."""
    salt, marked, chunks = sealed[:24], sealed[24:56], sealed[56:]
    old, old_base, old_commitment = _message_key("sha256", key, salt, context)
    new, new_base, new_commitment = _message_key("sha512", key, salt, context)
    out = salt + (new_commitment if marked == old_commitment else marked)
    for number, at in enumerate(range(0, len(chunks), WIRE_CHUNK)):
        chunk = chunks[at : at + WIRE_CHUNK]
        try:
            out += new.encrypt(
                _nonce(new_base, number), old.decrypt(_nonce(old_base, number), chunk, b""), b""
            )
        except InvalidTag:
            out += chunk
    return out


@pytest.mark.parametrize("vector", COBBLESTONE, ids=lambda vector: vector["name"])
def test_cobblestone_gives_the_answers_of_c2sp(vector: dict[str, Any]) -> None:
    """The vectors instantiate the scheme with SHA-256, Cobblestone-256 with SHA-512. So they are held first
    against a few lines written from the specification, then against `open_sealed`, each message re-keyed."""
    key, context = bytes.fromhex(vector["key"]), vector["context"].encode()
    ciphertext = base64.b64decode(vector["ciphertext"] or "")
    if vector.get("compressed"):
        ciphertext = zlib.decompress(ciphertext)
    if vector["expect"] == "success":
        plaintext = _plain_open("sha256", key, context, ciphertext)
        assert len(plaintext) == vector["payload_length"]
        assert hashlib.sha256(plaintext).hexdigest() == vector["payload_sha256"]
        assert crypto.open_sealed(key, context, _rekeyed(key, context, ciphertext)) == plaintext
    else:
        with pytest.raises(InvalidTag):
            _plain_open("sha256", key, context, ciphertext)
        with pytest.raises(Tampered):
            crypto.open_sealed(key, context, _rekeyed(key, context, ciphertext))


def test_cobblestone_vectors_are_all_there() -> None:
    assert len(COBBLESTONE) >= 34


@pytest.mark.parametrize("size", [0, 7, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 1])
def test_what_is_sealed_is_cobblestone_256(size: int) -> None:
    plaintext = CANARY * (size // 16) + CANARY[: size % 16]
    assert _plain_open("sha512", KEY, b"context", crypto.seal(KEY, b"context", plaintext)) == plaintext


@functools.cache
def _hpke(file: str) -> list[dict[str, Any]]:
    vectors: list[dict[str, Any]] = json.loads("".join(_vectors("HPKE", file)))
    return vectors


HYBRID = [
    vector
    for vector in _hpke("hpke-pq-test-vectors.json")
    if (vector["kem_id"], vector["kdf_id"], vector["aead_id"]) == (0x647A, 1, 3)
]


def test_the_hybrid_s_vector_is_there() -> None:
    assert len(HYBRID) == 1


@pytest.mark.parametrize("vector", HYBRID)
def test_an_x_wing_seed_expands_to_the_vector_s_public_key(vector: dict[str, Any]) -> None:
    assert crypto.kem_public(bytes.fromhex(vector["skRm"])).hex() == vector["pkRm"]


@pytest.mark.parametrize("vector", HYBRID)
def test_hybrid_hpke_gives_the_answer_of_its_draft(vector: dict[str, Any]) -> None:
    seed, info, enc = (bytes.fromhex(vector[name]) for name in ("skRm", "info", "enc"))
    first = vector["encryptions"][0]
    plaintext, aad, sealed = (bytes.fromhex(first[name]) for name in ("pt", "aad", "ct"))
    private = crypto._kem_private(seed)
    assert openssl.hpke._decrypt_with_aad(crypto._SUITE, enc + sealed, private, info, aad) == plaintext
    # Ours carry no associated data: the same message under the vector's key and nonce, without it.
    body = ChaCha20Poly1305(bytes.fromhex(vector["key"])).encrypt(
        bytes.fromhex(vector["base_nonce"]), plaintext, b""
    )
    assert crypto.open_from(seed, info, enc + body) == plaintext


def test_classic_hpke_gives_the_answers_of_rfc_9180() -> None:
    """Not our suite: that the same code with the RFC's own vectors agrees in every part but the KEM."""
    kems = {0x10: KEM.P256, 0x12: KEM.P521, 0x20: KEM.X25519}
    kdfs = {1: KDF.HKDF_SHA256, 3: KDF.HKDF_SHA512}
    aeads = {1: AEAD.AES_128_GCM, 2: AEAD.AES_256_GCM, 3: AEAD.CHACHA20_POLY1305}
    curves: dict[int, ec.EllipticCurve] = {0x10: ec.SECP256R1(), 0x12: ec.SECP521R1()}
    found = 0
    for vector in _hpke("test-vectors.json"):
        kem = vector["kem_id"]
        if vector["mode"] != 0 or kem not in kems or vector["aead_id"] not in aeads:
            continue
        secret, info, enc = (bytes.fromhex(vector[name]) for name in ("skRm", "info", "enc"))
        private: Any = (
            ec.derive_private_key(int.from_bytes(secret, "big"), curves[kem])
            if kem in curves
            else x25519.X25519PrivateKey.from_private_bytes(secret)
        )
        suite = Suite(kems[kem], kdfs[vector["kdf_id"]], aeads[vector["aead_id"]])
        first = vector["encryptions"][0]
        plaintext, aad, sealed = (bytes.fromhex(first[name]) for name in ("pt", "aad", "ct"))
        assert openssl.hpke._decrypt_with_aad(suite, enc + sealed, private, info, aad) == plaintext
        found += 1
    assert found == 18


def test_golden_bytes_of_the_first_release() -> None:
    golden = {name: bytes.fromhex(value) for name, value in json.loads(GOLDEN.read_text()).items()}
    seed, key, plaintext = golden["seed"], golden["key"], golden["plaintext"]
    assert crypto.kem_public(seed) == golden["public"]
    assert crypto.open_from(seed, golden["info"], golden["capsule"]) == plaintext
    assert crypto.open_sealed(key, golden["context"], golden["sealed"]) == plaintext
    assert crypto.wrap(key, golden["secret"]) == golden["wrapped"]
    assert crypto.unwrap(key, golden["wrapped"]) == golden["secret"]
    assert crypto.signing_public(seed) == golden["signing_public"]
    assert crypto.sign(seed, golden["message"]) == golden["signature"]
    assert crypto.derive(key, "golden") == golden["derived"]
    assert crypto.derive(key, "golden", b"part", "text", 7) == golden["derived_with_parts"]
    assert crypto.mac(key, golden["message"]) == golden["mac"]


# -- sizes, and names of purposes ----------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 5000, CHUNK - 1, CHUNK, 100_000])
def test_lengths_are_what_the_constants_say(size: int) -> None:
    plaintext = bytes(size)
    # Below 16 KiB the constant alone; each whole 16 KiB has a tag of its own.
    assert len(crypto.seal(KEY, b"", plaintext)) == size + crypto.SEAL_OVERHEAD + 16 * (size // CHUNK)
    assert len(crypto.seal_to(crypto.kem_public(SEED), b"", plaintext)) == size + crypto.CAPSULE_OVERHEAD


def test_sizes_of_keys_and_signatures() -> None:
    assert len(crypto.random_bytes()) == len(crypto.sha256(b"")) == crypto.KEY_SIZE
    assert len(crypto.mac(KEY, b"")) == len(crypto.derive(KEY, "x")) == crypto.KEY_SIZE
    assert len(crypto.signing_public(SEED)) == crypto.KEY_SIZE
    assert len(crypto.sign(SEED, b"")) == crypto.SIGNATURE_SIZE
    assert len(crypto.kem_public(SEED)) == crypto.KEM_PUBLIC_SIZE
    assert len(crypto.wrap(KEY, bytes(32))) == 40


def test_what_is_encrypted_twice_differs() -> None:
    assert crypto.seal(KEY, b"", CANARY) != crypto.seal(KEY, b"", CANARY)
    public = crypto.kem_public(SEED)
    assert crypto.seal_to(public, b"", CANARY) != crypto.seal_to(public, b"", CANARY)
    assert crypto.random_bytes() != crypto.random_bytes()


PARTS = st.lists(
    st.one_of(st.binary(max_size=12), st.text(max_size=6), st.integers(0, 2**64 - 1)), max_size=4
)


def _as_bytes(parts: list[bytes | str | int]) -> list[bytes]:
    return [
        part
        if isinstance(part, bytes)
        else part.encode()
        if isinstance(part, str)
        else part.to_bytes(8, "big")
        for part in parts
    ]


@given(PARTS)
def test_pae_can_be_read_back_so_no_two_lists_of_fields_are_the_same(parts: list[bytes | str | int]) -> None:
    encoded = crypto.pae(*parts)
    count, rest, fields = int.from_bytes(encoded[:8], "big"), encoded[8:], []
    for _ in range(count):
        size = int.from_bytes(rest[:8], "big")
        fields.append(rest[8 : 8 + size])
        rest = rest[8 + size :]
    assert fields == _as_bytes(parts) and not rest


def test_each_purpose_has_a_key_of_its_own() -> None:
    keys = [
        crypto.derive(KEY, "auth"),
        crypto.derive(KEY, "open"),
        crypto.derive(OTHER_KEY, "auth"),
        crypto.derive(KEY, "auth", b""),
        crypto.derive(KEY, "auth", b"ab", b"c"),
        crypto.derive(KEY, "auth", b"a", b"bc"),
        crypto.derive(KEY, "auth", b"abc"),
        crypto.derive(KEY, "auth", 1),
        crypto.derive(KEY, "auth", 2),
    ]
    assert len(set(keys)) == len(keys)


def test_what_stays_in_memory_is_sealed_under_a_key_of_its_process() -> None:
    sealed = crypto.Shelter(KEY, SEED).seal(bytes(12), b"context", CANARY)
    key = hmac.digest(KEY, b"tallystone/shelter" + SEED, "sha256")
    assert ChaCha20Poly1305(key).decrypt(bytes(12), sealed, b"context") == CANARY


def test_many_are_filed_as_each_alone_would_be() -> None:
    pairs = [(KEY, OTHER_KEY), (OTHER_KEY, KEY)]
    alone = [(crypto.wrap(one, SEED), crypto.mac(other, CANARY)) for one, other in pairs]
    assert crypto.file_under(pairs, SEED, CANARY) == alone


def test_equal_compares_whole_strings() -> None:
    assert crypto.equal(b"", b"") and crypto.equal(KEY, bytes(KEY))
    assert not crypto.equal(KEY, KEY[:-1]) and not crypto.equal(KEY, OTHER_KEY)


# -- what does not fit ---------------------------------------------------------------------------------------

PUBLIC = crypto.kem_public(SEED)
SEALED = crypto.seal(KEY, b"context", CANARY)
WRAPPED = crypto.wrap(KEY, CANARY)
SHELTERED = crypto.Shelter(KEY, SEED).seal(bytes(12), b"context", CANARY)
CAPSULE = crypto.seal_to(PUBLIC, b"info", CANARY)
KIT = crypto.age_seal(PUBLIC, CANARY)

OPENERS: dict[str, tuple[Callable[[bytes], bytes], bytes]] = {
    "record": (lambda data: crypto.open_sealed(KEY, b"context", data), SEALED),
    "shelter": (lambda data: crypto.Shelter(KEY, SEED).open(bytes(12), b"context", data), SHELTERED),
    "key": (lambda data: crypto.unwrap(KEY, data), WRAPPED),
    "capsule": (lambda data: crypto.open_from(SEED, b"info", data), CAPSULE),
    "kit": (lambda data: crypto.age_open(SEED, data), KIT),
}


@pytest.mark.parametrize("name", OPENERS)
def test_what_is_whole_opens(name: str) -> None:
    opener, data = OPENERS[name]
    assert opener(data) == CANARY


@pytest.mark.parametrize("name", ["record", "shelter", "key", "capsule"])
def test_a_flipped_bit_anywhere_is_tampering(name: str) -> None:
    opener, data = OPENERS[name]
    for place in range(len(data)):
        for bit in (0x01, 0x80):  # the highest too: X25519 itself ignores one
            changed = bytearray(data)
            changed[place] ^= bit
            with pytest.raises(Tampered):
                opener(bytes(changed))


@pytest.mark.parametrize("name", ["record", "shelter", "key", "capsule"])
def test_a_shorter_or_longer_ciphertext_is_tampering(name: str) -> None:
    opener, data = OPENERS[name]
    for length in range(len(data)):
        with pytest.raises(Tampered):
            opener(data[:length])
    for added in (b"\0", bytes(8), bytes(72), data):
        with pytest.raises(Tampered):
            opener(data + added)


def test_a_record_of_several_chunks_is_not_cut_at_a_chunk_s_end() -> None:
    plaintext = CANARY * 3000  # 48 000 bytes: three chunks
    sealed = crypto.seal(KEY, b"context", plaintext)
    assert crypto.open_sealed(KEY, b"context", sealed) == plaintext
    for length in range(56, len(sealed), WIRE_CHUNK):
        for cut in range(max(0, length - 2), length + 3):
            with pytest.raises(Tampered):
                crypto.open_sealed(KEY, b"context", sealed[:cut])


REFUSED: dict[str, Callable[[], object]] = {
    "record: another key": lambda: crypto.open_sealed(OTHER_KEY, b"context", SEALED),
    "record: another context": lambda: crypto.open_sealed(KEY, b"contexT", SEALED),
    "record: no context": lambda: crypto.open_sealed(KEY, b"", SEALED),
    "record: a short key": lambda: crypto.open_sealed(KEY[:16], b"context", SEALED),
    "record: no bytes": lambda: crypto.open_sealed(KEY, b"context", b""),
    "shelter: another key": lambda: crypto.Shelter(OTHER_KEY, SEED).open(bytes(12), b"context", SHELTERED),
    "shelter: another process": lambda: crypto.Shelter(KEY, KEY).open(bytes(12), b"context", SHELTERED),
    "shelter: another number": lambda: crypto.Shelter(KEY, SEED).open(b"1" * 12, b"context", SHELTERED),
    "shelter: another context": lambda: crypto.Shelter(KEY, SEED).open(bytes(12), b"", SHELTERED),
    "shelter: a short key": lambda: crypto.Shelter(KEY[:16], SEED),
    "key: another key": lambda: crypto.unwrap(OTHER_KEY, WRAPPED),
    "key: a short key": lambda: crypto.unwrap(KEY[:24], WRAPPED),
    "key: no bytes": lambda: crypto.unwrap(KEY, b""),
    "capsule: another seed": lambda: crypto.open_from(OTHER_SEED, b"info", CAPSULE),
    "capsule: another purpose": lambda: crypto.open_from(SEED, b"infO", CAPSULE),
    "capsule: no purpose": lambda: crypto.open_from(SEED, b"", CAPSULE),
    "capsule: no bytes": lambda: crypto.open_from(SEED, b"info", b""),
    "capsule: share of order one": lambda: crypto.open_from(
        SEED, b"info", CAPSULE[:1088] + bytes(32) + CAPSULE[1120:]
    ),
    "capsule: for age": lambda: crypto.age_open(SEED, CAPSULE),
    "recipient: no key": lambda: crypto.seal_to(b"", b"info", CANARY),
    "recipient: a seed": lambda: crypto.seal_to(SEED, b"info", CANARY),
    "recipient: cut off": lambda: crypto.seal_to(PUBLIC[:-1], b"info", CANARY),
    "recipient: too long": lambda: crypto.seal_to(PUBLIC + b"\0", b"info", CANARY),
    "recipient: coefficients above the modulus": lambda: crypto.seal_to(
        b"\xff" * 1184 + PUBLIC[1184:], b"info", CANARY
    ),
    "recipient: share of order one": lambda: crypto.seal_to(PUBLIC[:1184] + bytes(32), b"info", CANARY),
    "kit: another seed": lambda: crypto.age_open(OTHER_SEED, KIT),
    "kit: changed payload": lambda: crypto.age_open(SEED, KIT[:-1] + bytes([KIT[-1] ^ 1])),
    "kit: cut off": lambda: crypto.age_open(SEED, KIT[:-1]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_refusal_is_tampered_and_tells_nothing_secret(name: str) -> None:
    with pytest.raises(Tampered) as raised:
        REFUSED[name]()
    told = "".join(traceback.format_exception(raised.value))
    error: BaseException | None = raised.value
    while error is not None:
        told += repr(error) + str(error) + repr(vars(error))
        error = error.__cause__ or error.__context__
    # The traceback quotes source lines, so values are looked for, in each way in which one gets printed.
    for secret in (SEED, OTHER_SEED, KEY, OTHER_KEY, CANARY, SEALED, WRAPPED, CAPSULE[:64], PUBLIC[:64]):
        for shown in (secret.hex(), repr(secret), base64.b64encode(secret).decode()):
            assert shown not in told


def test_a_signature_verifies_for_its_key_and_message_alone() -> None:
    public, signature = crypto.signing_public(SEED), crypto.sign(SEED, b"message")
    assert crypto.verify(public, signature, b"message")
    assert not crypto.verify(crypto.signing_public(OTHER_SEED), signature, b"message")
    assert not crypto.verify(public, signature, b"messagE")
    for place in range(64):
        changed = bytearray(signature)
        changed[place] ^= 1
        assert not crypto.verify(public, bytes(changed), b"message")


def test_a_malformed_key_or_signature_is_simply_false() -> None:
    public, signature = crypto.signing_public(SEED), crypto.sign(SEED, b"message")
    for malformed in (b"", signature[:-1], signature + b"\0", bytes(64), b"\xff" * 64):
        assert not crypto.verify(public, malformed, b"message")
    for malformed in (b"", public[:-1], public + b"\0", b"\xff" * 32):
        assert not crypto.verify(malformed, signature, b"message")


def test_a_remembered_signature_is_remembered_for_nothing_else() -> None:
    public, signature = crypto.signing_public(SEED), crypto.sign(SEED, b"message")
    for _ in range(2):
        assert crypto.verify_once(public, signature, b"message")
        assert not crypto.verify_once(public, signature, b"another")
        assert not crypto.verify_once(public, signature[:-1] + b"\0", b"message")
        assert not crypto.verify_once(crypto.signing_public(OTHER_SEED), signature, b"message")
        # The same bytes, divided elsewhere.
        assert not crypto.verify_once(public, signature + b"m", b"essage")


def test_the_memory_of_signatures_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crypto, "_seen", Digests(4))
    public = crypto.signing_public(SEED)
    signed = [(crypto.sign(SEED, bytes([number])), bytes([number])) for number in range(20)]
    digests = [crypto.sha256(crypto.pae(public, signature, message)) for signature, message in signed]
    assert 0 < sum(digest in crypto._seen for digest in digests) <= 4
    for signature, message in signed:
        assert crypto.verify_once(public, signature, message)
        assert not crypto.verify_once(public, signature, b"another")
