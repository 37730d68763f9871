"""The exact bytes of every signed statement, every row and every log entry.

`golden/formats.json` fixes what is written: it was made once, by `python tests/test_golden.py`, and a change of any
byte in it is a change of the stored format, which needs a migration. `golden/sealed.json` holds ciphertexts of that
day: they must open for good. What is sealed is compared twice: today's plaintext under the golden key and context
(so that both stay what they are), and the golden ciphertext through today's reader.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from attack.lying import seal_capsule_body
from former_forms import turned_row

from tallystone import _cbor, crypto, grant_tree, keystore, statements
from tallystone.audit import checkpoint, leaf, merkle, published, receipt, state
from tallystone.audit.logkeys import LogKeys
from tallystone.audit.restored import Lost, Restore, Restored
from tallystone.errors import Tampered
from tallystone.keystore import Carried, Invite, Keys, Kit, Nest, Root, Token
from tallystone.statements import (
    EMPTY,
    READ,
    SHARE,
    WRITE,
    AuditedCharter,
    Charter,
    Deletion,
    Erasure,
    Genesis,
    Invitation,
    Leaf,
    Link,
    Membership,
    Message,
    PrincipalRecord,
    Signed,
    Version,
    WorkspaceRecord,
    issue,
)
from tallystone.vault import capsules, events, external, ledger, mail, passages, records
from tallystone.vault.ledger import Entry, Ledger, Roster
from tallystone.vault.principals import signature_cell
from tallystone.vault.records import Content, EpochKeys, Held
from tallystone.vault.types import ToolAccess
from tallystone.vault.writing import encode_payload

FOLDER = Path(__file__).parent / "golden"
FORMATS, SEALED = FOLDER / "formats.json", FOLDER / "sealed.json"


def fixed(name: str, size: int = 32) -> bytes:
    """Bytes that look random and are always the same."""
    out = b""
    while len(out) < size:
        out += crypto.sha256(f"golden {name} {len(out)}".encode())
    return out[:size]


WORKSPACE, RECORD, SEED, OTHER_SEED = fixed("workspace"), fixed("record"), fixed("seed"), fixed("other seed")
OWNER = "user-11111111-1111-4111-8111-111111111111"
OTHER = "user-22222222-2222-4222-8222-222222222222"
AGENT = "agent-33333333-3333-4333-8333-333333333333"
OTHER_AGENT = "agent-66666666-6666-4666-8666-666666666666"
BLOCK = "block-44444444-4444-4444-8444-444444444444"
TEAM = "role-55555555-5555-4555-8555-555555555555"
TIME = 1_790_000_000_000
SETTINGS = {"limit": 100_000, "read_only": False, "locked": False}
TOKEN = Token("abcdefghijklmnop", fixed("token"))
ROOT = Root(fixed("read"), fixed("act"), fixed("pin"))
KEYS = Keys(OWNER, ROOT)
INVITE = Invite("ponmlkjihgfedcba", fixed("invite"))

GRANT = Leaf(1, OTHER, RECORD, READ | WRITE, True, None, 0, 0, fixed("salt", 16))
PLACED = Leaf(2, AGENT, RECORD, READ, False, 20_800, 0, 1, fixed("salt 2", 16))
LEAVES = {1: GRANT.digest, 2: PLACED.digest, 5: fixed("leaf")}
SHARED = Leaf(3, OTHER, RECORD, READ | SHARE, True, None, 2, 0, fixed("salt 3", 16))
EPOCH_0 = EpochKeys(0, fixed("dek 0"), fixed("history 0"), fixed("chain 0"))
EPOCH_1 = EpochKeys(1, fixed("dek 1"), fixed("history 1"), fixed("chain 1"))
PAYLOAD = {
    "label": "team/näme",
    "value": "Refunds take 30 days.\n",
    "description": None,
    "tags": ["a", "b"],
    "metadata": {"n": 1, "x": [True, None, 1.5]},
    "extra": {"hidden": True},
    "created": TIME,
}


def link(**fields: Any) -> Link:
    made: dict[str, Any] = {
        "block": BLOCK, "number": 3, "previous": fixed("previous"), "version": 7, "version_digest": fixed("version"),
        "epoch": 1, "owner": OWNER, "grants": grant_tree.grants_root(LEAVES), "next_grant": 6, "settings": SETTINGS,
        "admin": EMPTY, "change": {}, "issuer": OWNER, "issuer_record": RECORD, "authority": {}, "time": TIME,
    }  # fmt: skip
    return Link(**{**made, **fields})


BODIES: dict[str, Any] = {
    "principal": PrincipalRecord(
        "user", "", 0, EMPTY, crypto.signing_public(SEED), crypto.kem_public(SEED), OWNER, "active", None, 0
    ),
    "workspace": WorkspaceRecord(
        OWNER, crypto.kem_public(OTHER_SEED), crypto.signing_public(OTHER_SEED), TIME // 1000
    ),
    "genesis": Genesis(
        "block",
        OWNER,
        RECORD,
        fixed("nonce", 16),
        TIME,
        True,
        False,
        "",
        grant_tree.grants_root(LEAVES),
        6,
        SETTINGS,
    ),
    "grant": link(
        change={"grant": 1, "leaf": GRANT.digest, "capsule": fixed("capsule")}, admin=fixed("admin")
    ),
    "revocation": link(change={"grants": [1, 2]}),
    "policy": link(change={"settings": ["limit"]}),
    "transfer": link(
        change={"rotated": 1},
        owner=OTHER,
        issuer=OTHER,
        next_grant=7,
        admin=fixed("admin"),
        settings={**SETTINGS, "seat": 6},
    ),
    "membership": Membership(TEAM, RECORD, 4, fixed("members"), OWNER, RECORD, TIME),
    "version": Version(
        BLOCK, 8, fixed("previous"), 3, fixed("policy"), 1, fixed("payload"), AGENT, RECORD, OWNER, TIME
    ),
    "deletion": Deletion(BLOCK, 3, fixed("policy"), 8, OWNER, RECORD, TIME),
    "message": Message(
        AGENT, RECORD, OWNER, OTHER_AGENT, BLOCK, 3, "Scribe", "Are you there?\n", fixed("nonce", 16), TIME
    ),
    "erasure": Erasure(BLOCK, [[BLOCK, fixed("policy"), 8]], 5, 2, 20833, OWNER, RECORD, TIME),
    "charter": Charter(
        2, fixed("previous"), True, ["public", "internal", "geheim"], 10_000, OWNER, RECORD, TIME
    ),
    "restore": Restore(
        8, fixed("root"), [["", 8, 13], [fixed("branch", 16).hex(), 9, 30]], OWNER, RECORD, TIME
    ),
    "invitation": Invitation(
        INVITE.kid, crypto.signing_public(INVITE.signing_seed()), 2, TIME // 1000, OWNER, RECORD
    ),
}
# What has grown since, in the maps of the same statements.
LATER: dict[str, Any] = {
    "charter, with audit levels and auditors": AuditedCharter(
        3, fixed("previous"), True, ["public", ["internal", 1], ["geheim", 2]], 10_000, OWNER, RECORD, TIME,
        [OWNER],
    ),
    "genesis, fixed and with policy": Genesis(
        "block", OWNER, RECORD, fixed("nonce", 16), TIME, False, False, "", EMPTY, 1,
        {**SETTINGS, "sensitivity": 2, "allowed": [OTHER, TEAM], "expires": 20_800},
        {"payload": fixed("payload")},
    ),
    "genesis of a contact": Genesis(
        "block", OWNER, RECORD, fixed("nonce", 16), TIME, True, False, "", EMPTY, 1, SETTINGS, {"contact": AGENT}
    ),
    "grant of many": link(change={"first": 6, "many": 3}, next_grant=9),
    "revocation by a sharer": link(
        change={"gone": [[PLACED.encode(), grant_tree.grant_proof(LEAVES, 2)]], "due": True},
        authority={"leaf": SHARED.encode(), "proof": grant_tree.grant_proof({3: SHARED.digest}, 3), "via": []},
        issuer=OTHER,
    ),
    "policy, keys renewed": link(
        change={"rotated": 1, "renewed": [[GRANT.encode(), RECORD, fixed("salt 4", 16)]]},
        authority={"leaf": GRANT.encode(), "proof": grant_tree.grant_proof(LEAVES, 1)},
        issuer=OTHER,
    ),
    "policy, handing over": link(
        change={"settings": ["transfer"]}, settings={**SETTINGS, "transfer": [OTHER]}
    ),
    "version through a role": Version(
        BLOCK, 8, fixed("previous"), 3, fixed("policy"), 1, fixed("payload"), OTHER, RECORD, "", TIME,
        {"heads": {TEAM: 4}},
    ),
    "policy, which versions stay": link(
        change={"settings": ["keep"]}, settings={**SETTINGS, "keep": {"last": 20}}
    ),
    "version that restores and lets go": Version(
        BLOCK, 8, fixed("previous"), 3, fixed("policy"), 1, fixed("payload"), OWNER, RECORD, "", TIME, {},
        {"restored": 6, "kept": 5},
    ),
    "version that undoes": Version(
        BLOCK, 8, fixed("previous"), 3, fixed("policy"), 1, fixed("payload"), OWNER, RECORD, "", TIME, {},
        {"undone": [AGENT, [[2, 2], [4, 6]]]},
    ),
}  # fmt: skip
PLACEMENT = link(
    change={"grant": 2, "leaf": PLACED.encode(), "proof": grant_tree.grant_proof(LEAVES, 2)},
    authority={"leaf": GRANT.encode(), "proof": grant_tree.grant_proof(LEAVES, 1)},
    issuer=OTHER,
)

ROLE = PrincipalRecord("role", "", 0, EMPTY, b"", crypto.kem_public(SEED), OWNER, "active", 2, 0)


def signed(kind: str, body: bytes) -> Signed:
    return issue(kind, WORKSPACE, body, [(RECORD, SEED), (fixed("other record"), OTHER_SEED)])


MESSAGE = signed("message", BODIES["message"].encode())


def formats() -> dict[str, bytes]:
    """Everything that is the same each time it is written."""
    found = {f"statement/{kind}": body.encode() for kind, body in BODIES.items()}
    found["statement/grant by a grantee"] = PLACEMENT.encode()
    found |= {f"statement/{what}": body.encode() for what, body in LATER.items()}
    found["grant/leaf of a sharer"] = SHARED.encode()
    found["ledger/row"] = LEDGER.seal(1, fixed("grant"), history=True, watch=False)
    found["log/keys"] = LogKeys(((-1, fixed("log")),)).then(17, fixed("log 2")).encode()
    found["ledger/leaf salt"] = ledger.leaf_salt(fixed("grant"))
    role = {
        "name": "team", "description": "d", "read": fixed("read"), "act": fixed("act"), "head": fixed("head"),
        "history": True, "created": TIME,
    }  # fmt: skip
    found["payload of a role"] = encode_payload(role)
    found |= {f"signed/{kind}": signed(kind, body.encode()).encode() for kind, body in BODIES.items()}
    found |= {f"digest/{kind}": signed(kind, body.encode()).digest for kind, body in BODIES.items()}
    found["statement/principal of a role"] = ROLE.encode()
    claim = (signed("invitation", BODIES["invitation"].encode()).encode(), INVITE.signing_seed())
    joining = issue("principal", WORKSPACE, BODIES["principal"].encode(), [(EMPTY, SEED), claim])
    found["signatures/invited principal"] = signature_cell(joining)
    found["signing input"] = statements.signing_input("version", WORKSPACE, b"body")
    found["grant/leaf"] = GRANT.encode()
    found["grant/leaf with expiry"] = PLACED.encode()
    found["grant/digest"] = GRANT.digest
    found["grant/root"] = grant_tree.grants_root(LEAVES)
    found |= {f"grant/proof {n}": _cbor.encode(grant_tree.grant_proof(LEAVES, n)) for n in (1, 2, 3, 5)}
    found["id"] = statements.identifier("block", fixed("digest")).encode()
    found["payload"] = encode_payload(PAYLOAD)

    found["token/text"] = TOKEN.text.encode()
    found["token/verifier"] = TOKEN.verifier
    found["token/opening key"] = TOKEN.opening_key()
    found["token/context"] = keystore.token_context(TOKEN.kid, OWNER, "full", 1, None)
    found["token/context with expiry"] = keystore.token_context(TOKEN.kid, OWNER, "read", 1, 2)
    found["invite/text"] = INVITE.text.encode()
    found["invite/verifier"] = INVITE.verifier
    found["invite/opening key"] = INVITE.opening_key()
    found["invite/signing seed"] = INVITE.signing_seed()
    found["root/full"], found["root/read"] = ROOT.encode("full"), ROOT.encode("read")
    found |= {
        f"key/{name}": getattr(KEYS, name)
        for name in ("locate", "seal", "own", "sign", "kem", "act", "former", "access")
    }
    found |= {f"shelf id/{kind}": KEYS.shelf(kind) for kind in ("block", "agent", "self", "house", "role")}
    found["locator"] = KEYS.locator(BLOCK)
    found["kit"] = Kit(OWNER, "alice", crypto.age_identity(SEED)).text.encode()
    found["capsule info"] = capsules.capsule_info(WORKSPACE, RECORD)
    found["message info"] = mail.message_info(WORKSPACE, RECORD)
    found["mailbox"] = mail.mailbox(AGENT).encode()
    found["message"] = mail.message_body(MESSAGE, GRANT.encode(), [])

    found["wrap/grant with history"] = records.wrap_epoch(fixed("grant"), BLOCK, EPOCH_1, history=True)
    found["wrap/grant without history"] = records.wrap_epoch(fixed("grant"), BLOCK, EPOCH_1, history=False)
    nest = found["key/nest"] = records.nest_key(fixed("day"), BLOCK, 1)
    for name, history in (("with", True), ("without", False)):
        wrapped = records.wrap_epoch(fixed("grant"), BLOCK, EPOCH_1, history=history, nest=nest)
        found[f"wrap/nested grant {name} history"] = wrapped
    found["key/shred nest"] = records.shred_nest(fixed("shred"), BLOCK, 1)
    found["key/shred and day nest"] = records.shred_nest(fixed("shred"), BLOCK, 1, fixed("day"))
    found["wrap/content"] = records.wrap_content_key(EPOCH_1.dek, BLOCK, 8, fixed("content"))
    for name, row in (
        ("first", records.epoch_row(EPOCH_0, None)),
        ("next", records.epoch_row(EPOCH_1, EPOCH_0)),
    ):
        found[f"epoch row/{name}"] = _cbor.encode(list(row))
    found["admin public"] = ledger.admin_public(fixed("admin"))

    found["log/leaf"] = leaf.Leaf(7, TIME // 60_000, "update", fixed("detail")).encode()
    found["log/leaf hash"] = merkle.leaf_hash(found["log/leaf"])
    found["log/key"] = leaf.key_hash((1, fixed("storage"), 3))
    found["log/row"] = leaf.row_hash("block", (1, fixed("storage"), 3, 8, 1, 0, None, None))
    found["log/manifest"] = leaf.encode_manifest(
        [("version", found["log/key"], None), ("block", found["log/key"], found["log/row"])]
    )
    note = checkpoint.Checkpoint(checkpoint.origin_of(WORKSPACE), 8, fixed("root"))
    found["log/checkpoint"] = checkpoint.sign_checkpoint(note, crypto.Signer(SEED))
    path = [fixed("sibling"), fixed("uncle"), fixed("great-uncle")]
    found["log/receipt"] = receipt.Receipt(7, found["log/leaf"], path, found["log/checkpoint"]).encode()
    found["log/submission"] = published.submission(5, path, found["log/checkpoint"])
    rows = {"block": found["log/key"] + found["log/row"], "version": b""}
    found["log/state"] = state.State(found["log/checkpoint"], 8, fixed("root"), rows).encode()
    note = replace(note, branch=fixed("branch", 16).hex())
    found["log/checkpoint after a restore"] = checkpoint.sign_checkpoint(note, crypto.Signer(SEED))
    lost = Lost(fixed("branch", 16).hex(), 2, 9)
    restores = (Restored(5, TIME, (lost,), fixed("statement", 16).hex()),)
    note = found["log/checkpoint after a restore"]
    found["log/state after a restore"] = state.State(note, 8, fixed("root"), rows, restores).encode()
    return found


# -- what is sealed ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Record:
    """One kind of sealed bytes: how it is written, under which key and context, and how it is read."""

    seal: Callable[[], bytes]
    key: bytes
    context: bytes
    open: Callable[[bytes], Any]
    value: Any


PUBLIC, LEDGER = ledger.admin_public(fixed("admin")), Ledger(fixed("admin"), BLOCK)
OLD_ROW = b"\x00" + crypto.seal(
    crypto.derive(fixed("admin"), "admin/ledger"), crypto.pae("ledger", BLOCK, 1), fixed("grant")
)
"""A ledger row as the first release wrote it; nothing writes that form today."""
OWNERS_ROW = LEDGER.seal(0, fixed("g0"), history=True, watch=False)
OWNERS_INFO = ledger.owner_info(WORKSPACE, RECORD, BLOCK, 0)
CONTENT = Content(
    signed("version", BODIES["version"].encode()), encode_payload(PAYLOAD), GRANT, (1, [fixed("p")])
)
ERASED_CONTENT = replace(CONTENT, payload=b"", erased=signed("erasure", BODIES["erasure"].encode()).encode())
NESTED_ROOT = replace(ROOT, nest=Nest(fixed("slot", 18), fixed("shred")))
SHRED_KEYS = {fixed("slot", 18): fixed("shred")}
OWN_CONTENT = Content(signed("version", BODIES["version"].encode()), encode_payload(PAYLOAD), None, ())
HELD = Held(
    BLOCK,
    fixed("storage", 16),
    1,
    fixed("grant"),
    OWNER,
    "block",
    "accepted",
    77,
    GRANT.encode(),
    fixed("public"),
)
OWNED = Held(
    BLOCK, fixed("storage", 16), 0, fixed("grant"), OWNER, "agent", "accepted", 77, subject=AGENT,
    extra={"kit": b"k"}, root_read=fixed("read"), admin=fixed("admin"), root_act=fixed("act"),
)  # fmt: skip
SHELF, LOCATOR = KEYS.shelf("block"), KEYS.locator(BLOCK)
SHELF_CONTEXT = crypto.pae("shelf", SHELF, LOCATOR, 77)


def unshelve_one(one: bytes) -> Held:
    return records.unshelve(KEYS, SHELF, LOCATOR, 77, one, b"")


def unshelve_two(two: bytes) -> Held:
    return records.unshelve(KEYS, SHELF, LOCATOR, 77, records.shelve(KEYS, SHELF, LOCATOR, OWNED)[0], two)


SERVER = "mcp_server-66666666-6666-4666-8666-666666666666"
TOOL_ACCESS = ToolAccess("streamable_http", "http://tools/?key=k", "X-Key", "token", {"X-Other": "v"})

SEALED_RECORDS: dict[str, Record] = {
    "access to a tool server": Record(
        lambda: external.seal_access(KEYS, SERVER, TOOL_ACCESS),
        KEYS.access,
        crypto.pae("tool access", OWNER, SERVER),
        lambda sealed: external.open_access(KEYS, SERVER, sealed),
        TOOL_ACCESS,
    ),
    "chain": Record(
        lambda: records.seal_statement(EPOCH_1.chain, BLOCK, 3, signed("policy", BODIES["policy"].encode())),
        EPOCH_1.chain,
        crypto.pae("chain", BLOCK, 3),
        lambda sealed: records.open_statement(EPOCH_1.chain, BLOCK, 3, sealed),
        signed("policy", BODIES["policy"].encode()),
    ),
    "version": Record(
        lambda: records.seal_content(fixed("content"), BLOCK, 8, CONTENT),
        fixed("content"),
        crypto.pae("version", BLOCK, 8),
        lambda sealed: records.open_content(fixed("content"), BLOCK, 8, sealed),
        CONTENT,
    ),
    "version by the owner": Record(
        lambda: records.seal_content(fixed("content"), BLOCK, 8, OWN_CONTENT),
        fixed("content"),
        crypto.pae("version", BLOCK, 8),
        lambda sealed: records.open_content(fixed("content"), BLOCK, 8, sealed),
        OWN_CONTENT,
    ),
    "version, erased": Record(
        lambda: records.seal_content(fixed("content"), BLOCK, 8, ERASED_CONTENT),
        fixed("content"),
        crypto.pae("version", BLOCK, 8),
        lambda sealed: records.open_content(fixed("content"), BLOCK, 8, sealed),
        ERASED_CONTENT,
    ),
    "token's root, nested": Record(
        lambda: keystore.seal_root(TOKEN, NESTED_ROOT, OWNER, "full", 1, None),
        TOKEN.opening_key(),
        keystore.token_context(TOKEN.kid, OWNER, "full", 1, None),
        lambda sealed: keystore.open_root(TOKEN, sealed, OWNER, "full", 1, None, SHRED_KEYS.get),
        NESTED_ROOT,
    ),
    "roster": Record(
        lambda: ledger.seal_roster(EPOCH_1.chain, BLOCK, Roster(GRANT, fixed("capsule", 16))),
        EPOCH_1.chain,
        crypto.pae("roster", BLOCK, 1),
        lambda sealed: ledger.open_roster(EPOCH_1.chain, BLOCK, 1, sealed),
        Roster(GRANT, fixed("capsule", 16)),
    ),
    "shelf": Record(
        lambda: records.shelve(KEYS, SHELF, LOCATOR, HELD)[0], KEYS.seal, SHELF_CONTEXT, unshelve_one, HELD
    ),
    "shelf part two": Record(
        lambda: records.shelve(KEYS, SHELF, LOCATOR, OWNED)[1], KEYS.act, SHELF_CONTEXT, unshelve_two, OWNED
    ),
    "token root": Record(
        lambda: keystore.seal_root(TOKEN, ROOT, OWNER, "full", 1, None),
        TOKEN.opening_key(),
        keystore.token_context(TOKEN.kid, OWNER, "full", 1, None),
        lambda sealed: keystore.open_root(TOKEN, sealed, OWNER, "full", 1, None),
        ROOT,
    ),
    "signing seed": Record(
        lambda: keystore.seal_seed(KEYS, "sign", SEED),
        KEYS.sign,
        crypto.pae("identity", "sign", OWNER),
        lambda sealed: keystore.open_seed(KEYS, "sign", sealed),
        SEED,
    ),
    "kem seed": Record(
        lambda: keystore.seal_seed(KEYS, "kem", SEED),
        KEYS.kem,
        crypto.pae("identity", "kem", OWNER),
        lambda sealed: keystore.open_seed(KEYS, "kem", sealed),
        SEED,
    ),
}

CARRIED = Carried(
    "carol", fixed("directory"), fixed("pin"), signed("invitation", BODIES["invitation"].encode())
)

# Those that are not one ciphertext under one key: the golden bytes are read, what is written today as well.
OTHERS: dict[str, Record] = {
    "ledger by the owner": Record(
        lambda: OLD_ROW,
        b"",
        b"",
        lambda sealed: LEDGER.open(1, sealed).key,
        fixed("grant"),
    ),
    "ledger by a grantee": Record(
        lambda: ledger.place_secret(PUBLIC, BLOCK, 1, fixed("grant")),
        b"",
        b"",
        lambda sealed: LEDGER.open(1, sealed),
        Entry(fixed("grant")),
    ),
    "ledger with retired keys": Record(
        lambda: LEDGER.seal(1, fixed("grant"), history=False, watch=True, retired=(fixed("g1"), fixed("g2"))),
        b"",
        b"",
        lambda sealed: LEDGER.open(1, sealed),
        Entry(fixed("grant"), (fixed("g1"), fixed("g2")), (False, True)),
    ),
    "ledger renewed by a grantee": Record(
        lambda: ledger.renew_secret(PUBLIC, BLOCK, 1, fixed("grant"), OLD_ROW),
        b"",
        b"",
        lambda sealed: LEDGER.open(1, sealed),
        Entry(fixed("grant"), (fixed("grant"),)),
    ),
    "ledger renewed twice": Record(
        lambda: ledger.renew_secret(
            PUBLIC, BLOCK, 1, fixed("g2"), ledger.renew_secret(PUBLIC, BLOCK, 1, fixed("g1"), OLD_ROW)
        ),
        b"",
        b"",
        lambda sealed: LEDGER.open(1, sealed),
        Entry(fixed("g2"), (fixed("grant"), fixed("g1"))),
    ),
    "ledger turned by a sharer": Record(
        lambda: turned_row(PUBLIC, BLOCK, 0, fixed("grant"), OWNERS_ROW, fixed("new admin")),
        b"",
        b"",
        lambda sealed: (LEDGER.open(0, sealed), Ledger(fixed("new admin"), BLOCK).open(0, sealed)),
        (
            Entry(fixed("grant"), (fixed("g0"),), None, fixed("new admin")),
            Entry(fixed("grant"), (), (True, False)),
        ),
    ),
    "ledger with a new admin key for the owner": Record(
        lambda: ledger.hand_secret(
            crypto.kem_public(SEED), OWNERS_INFO, fixed("new admin"),
            Ledger(fixed("new admin"), BLOCK).seal(
                0, fixed("grant"), history=True, watch=False, retired=(fixed("g0"),)
            ),
        ),
        b"",
        b"",
        lambda sealed: (
            Ledger(fixed("admin"), BLOCK, lambda _, sent: crypto.open_from(SEED, OWNERS_INFO, sent)).open(0, sealed),
            Ledger(fixed("new admin"), BLOCK).open(0, sealed),
            ledger.renewed(sealed), ledger.handed_openly(sealed),
        ),
        (
            Entry(fixed("grant"), (fixed("g0"),), (True, False), fixed("new admin")),
            Entry(fixed("grant"), (fixed("g0"),), (True, False)),
            True, False,
        ),
    ),
    "ledger of a grant that has ended": Record(
        lambda: ledger.end_secret(LEDGER.seal(1, fixed("grant"), history=False, watch=True)),
        b"",
        b"",
        lambda sealed: (LEDGER.open(1, sealed), ledger.is_ended(sealed), ledger.renewed(sealed)),
        (Entry(fixed("grant"), (), (False, True)), True, False),
    ),
    "ledger with another key asked for": Record(
        lambda: ledger.ask_secret(PUBLIC, BLOCK, 1, fixed("grant"), OLD_ROW),
        b"",
        b"",
        lambda sealed: (LEDGER.open(1, sealed), ledger.asked(sealed), ledger.renewed(sealed)),
        (Entry(fixed("grant"), (fixed("grant"),)), True, True),
    ),
    "ledger turned and then renewed": Record(
        lambda: ledger.renew_secret(
            ledger.admin_public(fixed("new admin")), BLOCK, 0, fixed("g1"),
            turned_row(PUBLIC, BLOCK, 0, fixed("grant"), OWNERS_ROW, fixed("new admin")),
        ),
        b"",
        b"",
        lambda sealed: LEDGER.open(0, sealed),
        Entry(fixed("g1"), (fixed("g0"), fixed("grant")), None, fixed("new admin")),
    ),
    "ledger, the public half": Record(
        lambda: ledger.seal_public(EPOCH_1.chain, BLOCK, PUBLIC),
        EPOCH_1.chain,
        crypto.pae("admin/public", BLOCK),
        lambda sealed: ledger.open_public(EPOCH_1.chain, BLOCK, sealed),
        PUBLIC,
    ),
    "acting half of a role": Record(
        lambda: crypto.seal(passages.act_key(fixed("secret")), passages.act_context(TEAM, 3), fixed("act")),
        passages.act_key(fixed("secret")),
        passages.act_context(TEAM, 3),
        lambda sealed: crypto.open_sealed(
            passages.act_key(fixed("secret")), passages.act_context(TEAM, 3), sealed
        ),
        fixed("act"),
    ),
    "event of a block": Record(
        lambda: events.seal_event({"kind": "read", "actor": OWNER}, KEYS, [fixed("g1"), fixed("g2")]),
        b"",
        b"",
        lambda detail: (events.open_own(detail, KEYS), events.open_granted(detail, events.grant_keys(fixed("g2")))),
        ({"kind": "read", "actor": OWNER}, {"kind": "read", "actor": OWNER}),
    ),
    "event for the auditor": Record(
        lambda: events.seal_event({"kind": "denied"}, None, (), (fixed("capsule", 16), fixed("day"))),
        b"",
        b"",
        lambda detail: (events.auditor_capsule(detail), events.open_audited(detail, fixed("day"))),
        (fixed("capsule", 16), {"kind": "denied"}),
    ),
    "capsule": Record(
        lambda: crypto.seal_to(crypto.kem_public(SEED), capsules.capsule_info(WORKSPACE, RECORD), fixed("one")),
        b"",
        b"",
        lambda enc: crypto.open_from(SEED, capsules.capsule_info(WORKSPACE, RECORD), enc),
        fixed("one"),
    ),
    "message": Record(
        lambda: mail.seal_message(
            crypto.kem_public(SEED), mail.message_info(WORKSPACE, RECORD), MESSAGE, GRANT.encode(), []
        ),
        b"",
        b"",
        lambda enc: mail.open_message(SEED, mail.message_info(WORKSPACE, RECORD), enc),
        (MESSAGE, GRANT.encode(), []),
    ),
    "capsule body": Record(
        lambda: seal_capsule_body(
            fixed("one"), WORKSPACE, fixed("enc"), HELD, signed("genesis", b"g"), signed("grant", b"l")
        ),
        fixed("one"),
        crypto.pae("capsule/body", WORKSPACE, crypto.sha256(fixed("enc"))),
        lambda sealed: _cbor.decode(
            crypto.open_sealed(
                fixed("one"), crypto.pae("capsule/body", WORKSPACE, crypto.sha256(fixed("enc"))), sealed
            )
        ),
        [
            HELD.block, HELD.storage, HELD.grant, HELD.key, HELD.owner, HELD.kind, HELD.leaf, HELD.admin_public,
            signed("genesis", b"g").encode(), signed("grant", b"l").encode(), {},
        ],
    ),
    "invitation row": Record(
        lambda: keystore.seal_invitation(INVITE, TIME // 1000, CARRIED),
        b"",
        b"",
        lambda sealed: (
            keystore.open_invitation(INVITE, TIME // 1000, sealed),
            keystore.open_listed(CARRIED.directory, INVITE.kid, TIME // 1000, sealed),
        ),
        (CARRIED, ("carol", 2)),
    ),
    "kit": Record(
        lambda: crypto.age_seal(crypto.kem_public(SEED), ROOT.encode("full")),
        b"",
        b"",
        lambda file: Root.decode(crypto.age_open(SEED, file)),
        ROOT,
    ),
}  # fmt: skip


def stored(path: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return value


@pytest.mark.parametrize("name", sorted(formats()))
def test_the_bytes_that_are_signed_hashed_or_stored_are_those_of_the_first_release(name: str) -> None:
    assert formats()[name].hex() == stored(FORMATS)[name]


def test_no_golden_entry_is_left_without_a_test() -> None:
    assert set(stored(FORMATS)) == set(formats())
    assert set(stored(SEALED)) == {*SEALED_RECORDS, *OTHERS}


@pytest.mark.parametrize("kind", sorted(BODIES))
def test_the_statements_of_the_first_release_are_read_and_their_signatures_hold(kind: str) -> None:
    old = Signed.decode(bytes.fromhex(stored(FORMATS)[f"signed/{kind}"]))
    assert type(BODIES[kind]).decode(old.body) == BODIES[kind]
    assert old.signed_by(WORKSPACE, RECORD, crypto.signing_public(SEED))
    assert old.signed_by(WORKSPACE, fixed("other record"), crypto.signing_public(OTHER_SEED))


@pytest.mark.parametrize("name", sorted(SEALED_RECORDS))
def test_what_is_sealed_today_has_the_plaintext_key_and_context_of_the_first_release(name: str) -> None:
    record, golden = SEALED_RECORDS[name], stored(SEALED)[name]
    key, context = bytes.fromhex(golden["key"]), bytes.fromhex(golden["context"])
    assert crypto.open_sealed(key, context, record.seal()).hex() == golden["plaintext"]


@pytest.mark.parametrize("name", sorted({**SEALED_RECORDS, **OTHERS}))
def test_what_the_first_release_sealed_is_still_read(name: str) -> None:
    record = {**SEALED_RECORDS, **OTHERS}[name]
    assert record.open(bytes.fromhex(stored(SEALED)[name]["sealed"])) == record.value
    assert record.open(record.seal()) == record.value


def test_the_token_and_the_kit_of_the_first_release_are_read() -> None:
    golden = stored(FORMATS)
    assert keystore.parse_token(bytes.fromhex(golden["token/text"]).decode()) == TOKEN
    assert keystore.parse_invite(bytes.fromhex(golden["invite/text"]).decode()) == INVITE
    kit = keystore.parse_kit(bytes.fromhex(golden["kit"]).decode())
    assert (kit.principal, crypto.age_seed(kit.identity)) == (OWNER, SEED)


def test_the_epoch_keys_of_the_first_release_open_each_other() -> None:
    golden = {name: bytes.fromhex(value) for name, value in stored(FORMATS).items()}
    dek, history = records.unwrap_epoch(fixed("grant"), BLOCK, 1, golden["wrap/grant with history"])
    assert (dek, history) == (EPOCH_1.dek, EPOCH_1.history)
    assert records.unwrap_epoch(fixed("grant"), BLOCK, 1, golden["wrap/grant without history"]) == (dek, None)
    number, chain, previous_chain, previous = _cbor.decode(golden["epoch row/next"])
    assert number == 1 and records.open_chain_key(dek, chain) == EPOCH_1.chain
    assert records.previous_chain_key(EPOCH_1.chain, previous_chain) == EPOCH_0.chain
    assert history is not None
    assert records.previous_epoch(history, previous) == (EPOCH_0.dek, EPOCH_0.history)
    assert records.unwrap_content_key(dek, BLOCK, 8, golden["wrap/content"]) == fixed("content")


def test_nested_epoch_keys_open_with_the_key_of_their_day_and_not_without() -> None:
    golden = {name: bytes.fromhex(value) for name, value in stored(FORMATS).items()}
    for name, history in (("with", EPOCH_1.history), ("without", None)):
        wrap = golden[f"wrap/nested grant {name} history"]
        assert records.unwrap_epoch(fixed("grant"), BLOCK, 1, wrap, golden["key/nest"]) == (
            EPOCH_1.dek,
            history,
        )
        for wrong in (None, fixed("day")):
            with pytest.raises(Tampered):
                records.unwrap_epoch(fixed("grant"), BLOCK, 1, wrap, wrong)


def test_the_log_of_the_first_release_is_read() -> None:
    golden = {name: bytes.fromhex(value) for name, value in stored(FORMATS).items()}
    assert leaf.decode_leaf(golden["log/leaf"]) == leaf.Leaf(7, TIME // 60_000, "update", fixed("detail"))
    assert [table for table, _, _ in leaf.decode_manifest(golden["log/manifest"])] == ["block", "version"]
    public, origin = crypto.signing_public(SEED), checkpoint.origin_of(WORKSPACE)
    assert checkpoint.open_checkpoint(golden["log/checkpoint"], origin, public).size == 8
    bundle = receipt.decode_receipt(golden["log/receipt"])
    assert (bundle.index, bundle.leaf, len(bundle.proof)) == (7, golden["log/leaf"], 3)
    kept = state.decode_state(golden["log/state"], origin, public)
    assert kept.live()["block"] == {golden["log/key"]: golden["log/row"]}


def write() -> None:
    """Make the golden files. Only for a new format: whatever changes here no longer reads as it did."""
    FORMATS.write_text(
        json.dumps({n: v.hex() for n, v in formats().items()}, indent=1) + "\n", encoding="utf-8"
    )
    sealed: dict[str, dict[str, str]] = {}
    for name, record in {**SEALED_RECORDS, **OTHERS}.items():
        data = record.seal()
        sealed[name] = {"sealed": data.hex()}
        if record.key:
            sealed[name] |= {"key": record.key.hex(), "context": record.context.hex()}
            sealed[name]["plaintext"] = crypto.open_sealed(record.key, record.context, data).hex()
    SEALED.write_text(json.dumps(sealed, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(write())
