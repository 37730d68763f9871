"""The only importer of `cryptography`. No I/O, no state, no choice of algorithm: one suite, fixed.

| purpose | function | algorithm |
|---|---|---|
| derive a key | `derive` | HKDF-SHA256 (RFC 5869), the purpose is its `info` |
| blind an address, authenticate a read | `mac` | HMAC-SHA256 (RFC 2104) |
| encrypt a record | `seal`, `open_sealed` | Cobblestone-256 (C2SP chunked-encryption), key-committing |
| keep in this process's memory | `Shelter` | ChaCha20-Poly1305 (RFC 8439) under HMAC-SHA256 |
| encrypt a key under a key | `wrap`, `unwrap` | AES-256 key wrap (RFC 3394) |
| encrypt to somebody | `seal_to`, `open_from` | HPKE base mode (RFC 9180): X-Wing, HKDF-SHA256, ChaCha20-Poly1305 |
| sign | `sign`, `verify` | Ed25519 (RFC 8032) |
| recovery kit | `age_seal`, `age_open` | age v1 (C2SP age), to the same kind of key as `seal_to` |

Each key has one purpose, so each call names it: as an HKDF label, a seal's context or an HPKE `info`. Several fields
enter such a name through `pae`, which is injective: two different lists of fields never give the same bytes.
"""

from __future__ import annotations

import base64
import hashlib
import hmac as _hmac
import os
import re
from collections.abc import Iterable

from cryptography.cobblestone import Cobblestone256Decryptor, Cobblestone256Encryptor
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hpke import (
    AEAD,
    KDF,
    KEM,
    MLKEM768X25519PrivateKey,
    MLKEM768X25519PublicKey,
    Suite,
)
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap, aes_key_wrap

from tallystone import bech32
from tallystone.errors import Invalid, Tampered
from tallystone.kept import SIGNATURES, Digests

KEY_SIZE = 32
"""Bytes of every symmetric key, seed, hash and MAC."""
SIGNATURE_SIZE = 64
SEAL_OVERHEAD = 72
KEM_PUBLIC_SIZE = 1216
"""ML-KEM-768 encapsulation key (1184 bytes) followed by an X25519 public key (32 bytes)."""
CAPSULE_OVERHEAD = 1136
"""ML-KEM-768 ciphertext (1088) + X25519 share (32) + Poly1305 tag (16)."""

_SHA256 = hashes.SHA256()
_MLKEM_PUBLIC_SIZE = 1184
_MLKEM_SEED_SIZE = 64
_SUITE = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)


def random_bytes(size: int = KEY_SIZE) -> bytes:
    """`size` bytes from the operating system's generator."""
    return os.urandom(size)


def sha256(data: bytes) -> bytes:
    """SHA-256 of `data`, 32 bytes (FIPS 180-4)."""
    return hashlib.sha256(data).digest()


def pae(*parts: bytes | str | int) -> bytes:
    """Pre-authentication encoding: the count and each length as 8 bytes, so that fields cannot run into each other.

    Text is UTF-8, an integer is 8 bytes big-endian. Design §7 signs over it; the idea is PASETO's and DSSE's.
    """
    out = [len(parts).to_bytes(8, "big")]
    try:
        for part in parts:
            raw = part.encode() if type(part) is str else part if type(part) is bytes else _part(part)
            size = len(raw)
            out += _LENGTHS[size] if size < 1024 else size.to_bytes(8, "big"), raw
    except UnicodeEncodeError as error:
        raise Invalid("a text is not valid Unicode", hint="send valid UTF-8") from error
    except (
        OverflowError
    ) as error:  # no number of ours is negative: it was read from a row that somebody edited
        raise Tampered("a stored number is out of range") from error
    return b"".join(out)


_LENGTHS = tuple(number.to_bytes(8, "big") for number in range(1024))


def _part(part: bytes | str | int) -> bytes:
    if isinstance(part, int):
        return part.to_bytes(8, "big")
    return part if isinstance(part, bytes) else part.encode()


def derive(secret: bytes, label: str, *parts: bytes | str | int) -> bytes:
    """A 32-byte key for the purpose `label`, bound to `parts` (HKDF-SHA256, no salt: `secret` is uniform already).

    Raises `Tampered` unless `secret` has 32 bytes: an empty one, where a row lost its key, would make a key that
    anybody can derive.
    """
    return derive_for(secret, purpose(label, *parts))


def purpose(label: str, *parts: bytes | str | int) -> bytes:
    """The HKDF `info` of `derive`, worked out once for whoever derives from many secrets for the same purpose."""
    return b"tallystone/" + label.encode() if not parts else pae("tallystone/" + label, *parts)


def derive_for(secret: bytes, info: bytes) -> bytes:
    """`derive` with a `purpose` at hand."""
    if len(secret) != KEY_SIZE:
        raise Tampered("a key does not have its length")
    return HKDF(_SHA256, KEY_SIZE, salt=None, info=info).derive(secret)


def derive_from_both(first: bytes, second: bytes, label: str, *parts: bytes | str | int) -> bytes:
    """A 32-byte key that needs both secrets (32 bytes each): HKDF over one after the other. Raises `Tampered` unless
    each has its length."""
    if len(first) != KEY_SIZE or len(second) != KEY_SIZE:
        raise Tampered("a key does not have its length")
    return HKDF(_SHA256, KEY_SIZE, salt=None, info=purpose(label, *parts)).derive(first + second)


def mac(key: bytes, message: bytes) -> bytes:
    """HMAC-SHA256, 32 bytes. `key` comes from `derive`, so it serves one purpose."""
    return _hmac.digest(key, message, "sha256")


def equal(left: bytes, right: bytes) -> bool:
    """Whether two byte strings are equal, in time that depends on their lengths only."""
    return _hmac.compare_digest(left, right)


def seal(key: bytes, context: bytes, plaintext: bytes) -> bytes:
    """`plaintext` under `key` (32 bytes), bound to `context`; 72 bytes longer, and 16 more for each full 16 KiB.

    Cobblestone-256 draws a fresh salt for each message and commits to the key, so one key may seal many records and
    no ciphertext opens under two keys.
    """
    encryptor = Cobblestone256Encryptor(key, context)
    return encryptor.update(plaintext) + encryptor.finalize()


def open_sealed(key: bytes, context: bytes, sealed: bytes) -> bytes:
    """The plaintext of `seal`. Raises `Tampered` for a wrong key, context or any changed byte."""
    try:
        decryptor = Cobblestone256Decryptor(key, context)
        # Nothing leaves before finalize(): a chunk that verified may belong to a truncated message.
        plaintext = decryptor.update(sealed)
        return plaintext + decryptor.finalize()
    except (InvalidTag, ValueError) as error:
        raise Tampered("a sealed record does not open") from error


class Shelter:
    """Seals what stays in this process's memory, for whoever brings the same key (32 bytes) again. Opening takes a
    third of what `open_sealed` takes. It does not commit to its key: nobody else puts anything there."""

    def __init__(self, key: bytes, salt: bytes) -> None:
        """`salt`: 32 random bytes of this process. Under one key and salt no two messages may have one number."""
        if len(key) != KEY_SIZE:
            raise Tampered("a key does not have its length")
        self._cipher = ChaCha20Poly1305(mac(key, b"tallystone/shelter" + salt))

    def __repr__(self) -> str:
        return "Shelter()"

    def seal(self, number: bytes, context: bytes, plaintext: bytes) -> bytes:
        """`plaintext` under a number (12 bytes), bound to `context`; 16 bytes longer."""
        return self._cipher.encrypt(number, plaintext, context)

    def open(self, number: bytes, context: bytes, sealed: bytes) -> bytes:
        """The plaintext. Raises `Tampered` for a wrong key, number, context or any changed byte."""
        try:
            return self._cipher.decrypt(number, sealed, context)
        except InvalidTag as error:
            raise Tampered("a sealed record does not open") from error


def wrap(key: bytes, secret: bytes) -> bytes:
    """Key material (a multiple of 8 bytes) under `key` (32 bytes); 8 bytes longer. Deterministic, and safe so: it
    wraps only uniformly random keys, so equal outputs would mean equal keys (RFC 3394)."""
    return aes_key_wrap(key, secret)


def file_under(
    pairs: Iterable[tuple[bytes, bytes]], secret: bytes, message: bytes
) -> list[tuple[bytes, bytes]]:
    """`wrap` of a secret under one key and `mac` of a message under the other, for each of many pairs."""
    return [(aes_key_wrap(key, secret), _hmac.digest(other, message, "sha256")) for key, other in pairs]


def unwrap(key: bytes, wrapped: bytes) -> bytes:
    """The key material of `wrap`. Raises `Tampered`."""
    try:
        return aes_key_unwrap(key, wrapped)
    except (InvalidUnwrap, ValueError) as error:
        raise Tampered("a wrapped key does not open") from error


def signing_public(seed: bytes) -> bytes:
    """The Ed25519 public key (32 bytes) of a 32-byte seed."""
    return Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()


class Signer:
    """An Ed25519 key (32-byte seed) that is loaded once and signs often: the log's, and a caller's."""

    def __init__(self, seed: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.public = self._key.public_key().public_bytes_raw()

    def __repr__(self) -> str:
        return f"Signer({self.public.hex()[:16]})"

    def sign(self, message: bytes) -> bytes:
        """Ed25519 signature, 64 bytes. `message` must name its purpose: callers pass a `pae` or a checkpoint note."""
        return self._key.sign(message)


def sign(key: bytes | Signer, message: bytes) -> bytes:
    """Ed25519 signature, 64 bytes, over a `pae`, by a seed (32 bytes) or a key that is loaded already. What this
    process signed itself, `verify_once` need not check."""
    signer = key if isinstance(key, Signer) else Signer(key)
    signature = signer.sign(message)
    _seen.add(sha256(pae(signer.public, signature, message)))
    return signature


def verify(public: bytes, signature: bytes, message: bytes) -> bool:
    """Whether `signature` is by the holder of `public`'s seed. A malformed key or signature is simply false."""
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


_seen = Digests(SIGNATURES)


def verify_once(public: bytes, signature: bytes, message: bytes) -> bool:
    """`verify`, remembered by hash when it succeeded, so that reads pay no public-key operation twice (design §6).

    Only the SHA-256 of (key, signature, message) is kept: hashes are not secret, and a collision would be a break
    of SHA-256. Failures are not remembered.
    """
    digest = sha256(pae(public, signature, message))
    if digest in _seen:
        return True
    if not verify(public, signature, message):
        return False
    _seen.add(digest)
    return True


def _kem_private(seed: bytes) -> MLKEM768X25519PrivateKey:
    """X-Wing keeps a 32-byte seed and expands it by SHAKE256 (draft-connolly-cfrg-xwing-kem §5.2)."""
    expanded = hashlib.shake_256(seed).digest(_MLKEM_SEED_SIZE + KEY_SIZE)
    return MLKEM768X25519PrivateKey(
        MLKEM768PrivateKey.from_seed_bytes(expanded[:_MLKEM_SEED_SIZE]),
        X25519PrivateKey.from_private_bytes(expanded[_MLKEM_SEED_SIZE:]),
    )


def kem_public(seed: bytes) -> bytes:
    """The X-Wing public key (1216 bytes) of a 32-byte seed."""
    expanded = hashlib.shake_256(seed).digest(_MLKEM_SEED_SIZE + KEY_SIZE)
    mlkem = MLKEM768PrivateKey.from_seed_bytes(expanded[:_MLKEM_SEED_SIZE]).public_key().public_bytes_raw()
    x25519 = X25519PrivateKey.from_private_bytes(expanded[_MLKEM_SEED_SIZE:]).public_key().public_bytes_raw()
    return mlkem + x25519


def seal_to(public: bytes, info: bytes, plaintext: bytes) -> bytes:
    """`plaintext` to the holder of `public` (1216 bytes), bound to `info`; 1136 bytes longer (RFC 9180 single-shot).

    Raises `Tampered` when `public` is no X-Wing key: it came from a record that should have held one.
    """
    try:
        key = MLKEM768X25519PublicKey(
            MLKEM768PublicKey.from_public_bytes(public[:_MLKEM_PUBLIC_SIZE]),
            X25519PublicKey.from_public_bytes(public[_MLKEM_PUBLIC_SIZE:]),
        )
        return _SUITE.encrypt(plaintext, key, info=info)
    except ValueError as error:
        raise Tampered("a principal's public key is malformed") from error


def open_from(seed: bytes, info: bytes, capsule: bytes) -> bytes:
    """The plaintext of `seal_to`. Raises `Tampered`."""
    try:
        return _SUITE.decrypt(capsule, _kem_private(seed), info=info)
    except (InvalidTag, ValueError) as error:
        raise Tampered("a capsule does not open") from error


# -- recovery kits: age v1 files (C2SP age) with one mlkem768x25519 stanza and one chunk ---------------------

AGE_PLAINTEXT_LIMIT = 65_536
"""Bytes in the one chunk of a file that `age_seal` writes."""
AGE_OVERHEAD = 1659
"""A header of one stanza (1627 bytes), the payload's nonce (16) and its tag (16)."""

_AGE_LABEL = b"age-encryption.org/mlkem768x25519"
_AGE_SECRET_PREFIX = "age-secret-key-pq-"
_AGE_PUBLIC_PREFIX = "age1pq"
_AGE_FILE_KEY_SIZE = _AGE_NONCE_SIZE = _AGE_TAG_SIZE = 16
_AGE_ENC_SIZE = CAPSULE_OVERHEAD - _AGE_TAG_SIZE
_AGE_HEADER = re.compile(
    rb"(age-encryption\.org/v1\n-> mlkem768x25519 ([A-Za-z0-9+/]{1494})\n([A-Za-z0-9+/]{43})\n---)"
    rb" ([A-Za-z0-9+/]{43})\n"
)
_AGE_CHUNK_NONCE = bytes(11) + b"\x01"
"""Chunk 0, and the last. It may be fixed: a fresh file key and a fresh nonce make the payload key."""


def age_identity(seed: bytes) -> str:
    """The age identity (`AGE-SECRET-KEY-PQ-1…`, 77 characters) of a 32-byte X-Wing seed."""
    return bech32.encode(_AGE_SECRET_PREFIX, seed).upper()


def age_seed(identity: str) -> bytes:
    """The seed of `age_identity`, in either case. Raises `Invalid`, whose message repeats nothing of it."""
    # Nothing longer is decoded: the text comes from a person.
    prefix, seed = bech32.decode(identity.strip()[:256])
    if prefix != _AGE_SECRET_PREFIX or len(seed) != KEY_SIZE:
        raise Invalid("this is not a recovery key", hint="it is AGE-SECRET-KEY-PQ-1 and 58 more characters")
    return seed


def age_recipient(public: bytes) -> str:
    """The age recipient (`age1pq1…`, 1959 characters) of an X-Wing public key (1216 bytes)."""
    return bech32.encode(_AGE_PUBLIC_PREFIX, public)


def age_seal(public: bytes, plaintext: bytes) -> bytes:
    """An age file to the holder of `public` (1216 bytes, see `kem_public`); 1659 bytes longer.

    Raises `Invalid` above 64 KiB, `Tampered` when `public` is no X-Wing key.
    """
    if len(plaintext) > AGE_PLAINTEXT_LIMIT:
        raise Invalid("an age file of one chunk holds at most 64 KiB")
    file_key, nonce = random_bytes(_AGE_FILE_KEY_SIZE), random_bytes(_AGE_NONCE_SIZE)
    capsule = seal_to(public, _AGE_LABEL, file_key)
    enc, body = _base64(capsule[:_AGE_ENC_SIZE]), _base64(capsule[_AGE_ENC_SIZE:])
    header = b"age-encryption.org/v1\n-> mlkem768x25519 " + enc + b"\n" + body + b"\n---"
    mark = _base64(mac(_age_key(file_key, b"", b"header"), header))
    chunk = ChaCha20Poly1305(_age_key(file_key, nonce, b"payload")).encrypt(_AGE_CHUNK_NONCE, plaintext, None)
    return header + b" " + mark + b"\n" + nonce + chunk


def age_open(seed: bytes, file: bytes) -> bytes:
    """The plaintext of `age_seal`, or of any age file with this one stanza and one chunk, for a 32-byte seed.

    Raises `Tampered` for every other file and for one that is not for `seed`. The stanza hides its recipient,
    so the two cannot be told apart.
    """
    found = _AGE_HEADER.match(file)
    # Every length is checked before anything is decrypted, as age asks against partitioning oracles.
    if not found or not 0 <= len(file) - AGE_OVERHEAD <= AGE_PLAINTEXT_LIMIT:
        raise Tampered("this is not an age file that a recovery kit opens")
    header, enc, body, mark = found.groups()
    file_key = open_from(seed, _AGE_LABEL, _unbase64(enc) + _unbase64(body))
    if not equal(mac(_age_key(file_key, b"", b"header"), header), _unbase64(mark)):
        raise Tampered("an age file's header does not verify")
    nonce, chunk = file[found.end() :][:_AGE_NONCE_SIZE], file[found.end() + _AGE_NONCE_SIZE :]
    try:
        return ChaCha20Poly1305(_age_key(file_key, nonce, b"payload")).decrypt(_AGE_CHUNK_NONCE, chunk, None)
    except InvalidTag as error:
        raise Tampered("an age file does not open") from error


def _age_key(file_key: bytes, salt: bytes, info: bytes) -> bytes:
    return HKDF(hashes.SHA256(), KEY_SIZE, salt=salt, info=info).derive(file_key)


def _base64(raw: bytes) -> bytes:
    return base64.b64encode(raw).rstrip(b"=")


def _unbase64(text: bytes) -> bytes:
    """Standard base64 without padding. Raises `Tampered` when the bits after the last byte are not zeros, so
    that no two headers say the same."""
    raw = base64.b64decode(text + b"=" * (-len(text) % 4))
    if _base64(raw) != text:
        raise Tampered("an age file's header is not in canonical base64")
    return raw
