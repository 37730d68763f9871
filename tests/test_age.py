"""Recovery kits are plain age files: an age that is not ours opens them, and we open its files."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from node_packages import installed, node

from tallystone import crypto
from tallystone.errors import Invalid, Tampered

HERE = Path(__file__).parent
INTEROP = HERE / "age_interop"
GOLDEN = HERE / "golden" / "age.json"
SEED = bytes(range(32))
ROOT = b"two halves of a root, 64 bytes..two halves of a root, 64 bytes.."

# The example of the age specification, and the SHA-256 of the recipient that it prints beside it.
SPEC_IDENTITY = "AGE-SECRET-KEY-PQ-1XX76JRALNLXDMEW0CRK45QMCCH4X06SE84UN3VPM33W6HWDX0H3SK3ZQFR"
SPEC_RECIPIENT_SHA256 = "a091dd7e0ee9d62b75173dcc98441a0424baa941e66a8776e570a4ae60ff61ea"


# -- without the network -------------------------------------------------------------------------------------


def test_the_specification_s_example_key_gives_its_recipient() -> None:
    seed = crypto.age_seed(SPEC_IDENTITY)
    recipient = crypto.age_recipient(crypto.kem_public(seed))
    assert hashlib.sha256(recipient.encode()).hexdigest() == SPEC_RECIPIENT_SHA256
    assert recipient.startswith("age1pq1x34nzsvr0rx") and len(recipient) == 1959
    assert crypto.age_identity(seed) == SPEC_IDENTITY and len(SPEC_IDENTITY) == 77


@pytest.mark.parametrize("size", [0, 1, 64, 4096, crypto.AGE_PLAINTEXT_LIMIT])
def test_a_kit_opens_again_and_has_the_length_that_is_promised(size: int) -> None:
    plaintext = os.urandom(size)
    file = crypto.age_seal(crypto.kem_public(SEED), plaintext)
    assert len(file) == size + crypto.AGE_OVERHEAD
    assert crypto.age_open(SEED, file) == plaintext


def test_a_file_of_two_chunks_is_neither_written_nor_read() -> None:
    with pytest.raises(Invalid):
        crypto.age_seal(crypto.kem_public(SEED), bytes(crypto.AGE_PLAINTEXT_LIMIT + 1))
    with pytest.raises(Tampered):
        crypto.age_open(SEED, bytes(crypto.AGE_PLAINTEXT_LIMIT + 1 + crypto.AGE_OVERHEAD))


def test_two_kits_of_one_root_share_no_header_nonce_or_ciphertext() -> None:
    public = crypto.kem_public(SEED)
    one, two = crypto.age_seal(public, ROOT), crypto.age_seal(public, ROOT)
    assert one.split(b"\n")[2:] != two.split(b"\n")[2:]
    assert one[-96:-80] != two[-96:-80] and one[-80:] != two[-80:]


def test_a_kit_is_not_sealed_to_something_that_is_no_public_key() -> None:
    public = crypto.kem_public(SEED)
    for malformed in (b"", SEED, public[:-1], public + b"\0", bytes(1184) + bytes(32), b"\xff" * 1216):
        with pytest.raises(Tampered):
            crypto.age_seal(malformed, ROOT)


def test_each_byte_of_a_kit_is_covered() -> None:
    file = crypto.age_seal(crypto.kem_public(SEED), b"root")
    for place in range(len(file)):
        changed = bytearray(file)
        changed[place] ^= 1
        with pytest.raises(Tampered):
            crypto.age_open(SEED, bytes(changed))


def test_each_truncation_of_a_kit_is_refused() -> None:
    file = crypto.age_seal(crypto.kem_public(SEED), b"root")
    for length in range(len(file)):
        with pytest.raises(Tampered):
            crypto.age_open(SEED, file[:length])


def test_a_kit_opens_for_its_seed_alone() -> None:
    file = crypto.age_seal(crypto.kem_public(SEED), ROOT)
    with pytest.raises(Tampered):
        crypto.age_open(bytes(32), file)
    with pytest.raises(Tampered):
        crypto.age_open(b"too short", file)


@pytest.mark.parametrize(
    "change",
    [
        lambda file: file + b"\0",
        lambda file: b"\n" + file,
        lambda file: file.replace(b"/v1\n", b"/v2\n", 1),
        lambda file: file.replace(b"\n", b"\r\n", 4),
        lambda file: file.replace(b"\n--- ", b"\n-> grease\n\n--- ", 1),
        lambda file: file.replace(b"x25519 ", b"x25519  ", 1),
        lambda file: file.replace(b"\n---", b"=\n---", 1),
        lambda file: base64.b64encode(file),
    ],
    ids=["longer", "newline first", "version", "CRLF", "second stanza", "space", "padding", "armoured"],
)
def test_a_kit_has_one_spelling(change: Callable[[bytes], bytes]) -> None:
    with pytest.raises(Tampered):
        crypto.age_open(SEED, change(crypto.age_seal(crypto.kem_public(SEED), ROOT)))


# Valid age files that nobody writes for a kit: with stanzas of other recipients, or armoured in text.
OTHER_AGE_FILES = {"hybrid_and_x25519", "hybrid_grease", "hybrid_multiple_recipients"}
VECTORS = sorted((HERE / "vectors" / "age").glob("hybrid*"))


@pytest.mark.parametrize("path", VECTORS, ids=lambda path: path.name)
def test_public_vectors_of_the_hybrid_recipient(path: Path) -> None:
    head, _, file = path.read_bytes().partition(b"\n\n")
    fields = dict(line.split(": ", 1) for line in head.decode().splitlines())
    if fields.get("compressed") == "zlib":
        file = zlib.decompress(file)
    seed = crypto.age_seed(fields["identity"])
    if fields["expect"] == "success" and path.name not in OTHER_AGE_FILES:
        assert hashlib.sha256(crypto.age_open(seed, file)).hexdigest() == fields["payload"]
    else:
        with pytest.raises(Tampered):
            crypto.age_open(seed, file)


def test_public_vectors_are_all_there() -> None:
    assert len(VECTORS) == 18


def test_kits_written_by_the_first_release_still_open() -> None:
    golden = json.loads(GOLDEN.read_text())
    for name in ("tallystone", "age-encryption 0.3.1"):
        opened = crypto.age_open(crypto.age_seed(golden["identity"]), base64.b64decode(golden["files"][name]))
        assert opened == base64.b64decode(golden["plaintext"])


# -- the key as text -----------------------------------------------------------------------------------------


def test_a_recovery_key_is_read_in_either_case_and_with_white_space_around() -> None:
    identity = crypto.age_identity(SEED)
    for text in (identity, identity.lower(), f"  {identity}\r\n"):
        assert crypto.age_seed(text) == SEED


def test_a_mistyped_recovery_key_is_refused_without_repeating_it() -> None:
    identity = crypto.age_identity(SEED)
    mistyped = [identity[:place] + "Q" + identity[place + 1 :] for place in range(20, 77)]
    swapped = [identity[:at] + identity[at + 1] + identity[at] + identity[at + 2 :] for at in range(20, 75)]
    for text in {*mistyped, *swapped} - {identity}:
        with pytest.raises(Invalid) as raised:
            crypto.age_seed(text)
        assert text[20:40] not in repr(raised.value) + str(raised.value) + raised.value.hint


@pytest.mark.parametrize(
    "text",
    [
        "",
        "AGE-SECRET-KEY-PQ-1",
        # An X25519 identity, a recipient, and a secret that is too short.
        "AGE-SECRET-KEY-1GFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPQ4EGAEX",
        "age1zvkyg2lqzraa2lnjvqej32nkuu0ues2s82hzrye869xeexvn73equnujwj",
        crypto.age_identity(bytes(31)),
        crypto.age_identity(SEED) * 2000,
        crypto.age_identity(SEED).replace("AGE", "age"),
    ],
    ids=["empty", "cut", "X25519", "recipient", "short", "long", "mixed case"],
)
def test_what_is_no_recovery_key_is_refused(text: str) -> None:
    with pytest.raises(Invalid):
        crypto.age_seed(text)


# -- beside an independent implementation --------------------------------------------------------------------


@pytest.fixture(scope="module")
def age(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., list[dict[str, str]]]:
    """Runs requests through npm's age-encryption (by age's author, on other primitives than ours)."""
    folder = installed(INTEROP, "age.mjs", tmp_path_factory.mktemp("age"))

    def run(*requests: dict[str, str]) -> list[dict[str, str]]:
        done = node("age.mjs", cwd=folder, stdin=json.dumps(requests), seconds=60)
        assert done.returncode == 0, done.stderr
        outcomes: list[dict[str, str]] = json.loads(done.stdout)
        return outcomes

    return run


def test_an_independent_age_opens_our_kits(age: Callable[..., list[dict[str, str]]]) -> None:
    plaintexts = [b"", b"\0", ROOT, os.urandom(crypto.AGE_PLAINTEXT_LIMIT)]
    requests = []
    for plaintext in plaintexts:
        seed = os.urandom(32)
        file = crypto.age_seal(crypto.kem_public(seed), plaintext)
        encoded = base64.b64encode(file).decode()
        requests.append({"verb": "decrypt", "identity": crypto.age_identity(seed), "file": encoded})
    assert [base64.b64decode(outcome["ok"]) for outcome in age(*requests)] == plaintexts


def test_we_open_the_files_of_an_independent_age(age: Callable[..., list[dict[str, str]]]) -> None:
    (generated,) = age({"verb": "generate"})
    seed = crypto.age_seed(generated["ok"])
    recipient = crypto.age_recipient(crypto.kem_public(seed))
    plaintexts = [b"", ROOT, os.urandom(crypto.AGE_PLAINTEXT_LIMIT)]
    files = age(
        *(
            {"verb": "encrypt", "recipient": recipient, "plaintext": base64.b64encode(plaintext).decode()}
            for plaintext in plaintexts
        )
    )
    assert [crypto.age_open(seed, base64.b64decode(file["ok"])) for file in files] == plaintexts


def test_an_independent_age_reads_our_keys_as_we_do(age: Callable[..., list[dict[str, str]]]) -> None:
    seeds = [bytes(32), b"\xff" * 32, SEED, crypto.age_seed(SPEC_IDENTITY)]
    outcomes = age(*({"verb": "recipient", "identity": crypto.age_identity(seed)} for seed in seeds))
    assert [outcome["ok"] for outcome in outcomes] == [
        crypto.age_recipient(crypto.kem_public(seed)) for seed in seeds
    ]


def test_an_independent_age_refuses_a_changed_kit_and_another_key(
    age: Callable[..., list[dict[str, str]]],
) -> None:
    file = crypto.age_seal(crypto.kem_public(SEED), ROOT)
    changed = file[:-1] + bytes([file[-1] ^ 1])
    outcomes = age(
        {
            "verb": "decrypt",
            "identity": crypto.age_identity(SEED),
            "file": base64.b64encode(changed).decode(),
        },
        {
            "verb": "decrypt",
            "identity": crypto.age_identity(bytes(32)),
            "file": base64.b64encode(file).decode(),
        },
    )
    assert all("error" in outcome for outcome in outcomes)
