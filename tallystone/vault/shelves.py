"""Finding things: by blinded address, or by walking a shelf in order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from tallystone import _cbor, crypto
from tallystone.errors import NotFound, Rejected, Tampered
from tallystone.keystore import Keys, Root
from tallystone.statements import TREE_DEPTH, Genesis, Leaf, Link, Signed, identifier
from tallystone.store.protocol import Row
from tallystone.store.tables import GRANT_WRAP, INBOX, SHELF
from tallystone.vault.caller import Caller
from tallystone.vault.opening import missing
from tallystone.vault.plan import WS, Plan
from tallystone.vault.records import ACCEPTED, OFFERED, Held, leaf_salt, shelve, unshelve

BLOCKS, AGENTS, SELF, HOUSE = "block", "agent", "self", "house"
"""The shelves: memory blocks; agents that this principal sponsors; an agent's own state; workspace-wide keys."""

CAPSULES_AT_ONCE = 64
_CHUNK = 100


def _held(keys: Keys, row: Row) -> Held:
    return unshelve(keys, bytes(row[1]), bytes(row[2]), int(row[3]), bytes(row[4]), bytes(row[5]))


def find(plan: Plan, keys: Keys, shelf: str, identity: str) -> Held | None:
    """What is at the blinded address of `identity` on one of the principal's shelves."""
    row = plan.need(SHELF, keys.shelf(shelf), keys.locator(identity))
    return _held(keys, row) if row is not None else None


def find_block(plan: Plan, keys: Keys, block_id: str) -> Held:
    """The accepted block with this id. Raises the uniform miss, also for an offer."""
    held = find(plan, keys, BLOCKS, block_id)
    if held is None or held.state == OFFERED:
        raise missing("Block", block_id)
    return held


def find_agent(caller: Caller, plan: Plan, agent_id: str) -> Held:
    """The agent as this caller holds it: its sponsor's shelf row, or an agent's own."""
    shelf = SELF if caller.id.startswith("agent-") else AGENTS
    held = find(plan, caller.keys, shelf, agent_id)
    if held is None:
        raise missing("Agent", agent_id)
    return held


def walk(
    plan: Plan, keys: Keys, shelf: str, *, after: int | None = None, reverse: bool = False
) -> Iterator[Held]:
    """The things on a shelf in order, beyond position `after`, opened as they are asked for."""
    shelf_id = keys.shelf(shelf)
    if plan.touches(SHELF, shelf_id):
        rows = sorted(plan.rows(SHELF, shelf_id), key=_position, reverse=reverse)
        for row in rows:
            if after is None or (_position(row) < after if reverse else _position(row) > after):
                yield _held(keys, row)
        return
    while True:
        rows = plan.snapshot.scan(
            SHELF, (WS, shelf_id), after=after, limit=_CHUNK, reverse=reverse, index="position"
        )
        for row in rows:
            yield _held(keys, row)
        if len(rows) < _CHUNK:
            return
        after = _position(rows[-1])


def _position(row: Row) -> int:
    return int(row[3])


def position_of(plan: Plan, keys: Keys, shelf: str, cursor: str) -> int:
    """The place of a cursor on a shelf. Raises `Rejected` for one that is not there (any more)."""
    held = find(plan, keys, shelf, cursor)
    if held is None:
        raise Rejected(
            "the cursor names nothing on this list",
            hint="use the id of an item that the list returned and that still exists",
            code="bad_cursor",
        )
    return held.position


def agent_keys(caller: Caller, held: Held) -> Keys:
    """The agent's keys, as far as the caller's token reaches: with a read-only token, without the half that acts."""
    if held.subject == caller.id:
        return caller.keys
    return Keys(held.subject, Root(held.root_read, held.root_act or None, caller.keys.root.pin))


# -- the inbox --------------------------------------------------------------------------------------------------


def capsule_info(workspace: bytes, record: bytes) -> bytes:
    """What a capsule is bound to: nothing about the block (design §6)."""
    return crypto.pae("tallystone/capsule", workspace, record)


def seal_capsule_body(
    key: bytes, workspace: bytes, enc: bytes, held: Held, genesis: Signed, grant: Signed
) -> bytes:
    """What travels under the capsule's one-time key. The map at the end has room for other kinds of capsules."""
    body = [
        held.block, held.storage, held.grant, held.key, held.owner, held.kind, held.leaf, held.admin_public,
        genesis.encode(), grant.encode(), {},
    ]  # fmt: skip
    return crypto.seal(key, crypto.pae("capsule/body", workspace, crypto.sha256(enc)), _cbor.encode(body))


def empty_inbox(caller: Caller) -> None:
    """Move what others have sent onto the shelf, as offers. At most 64 at once; a read-only token opens none."""
    if not caller.keys.can_act or not caller.has_mail:
        return
    with caller.workspace.store.snapshot() as snapshot:
        waiting = snapshot.scan(INBOX, (WS, caller.id), limit=1)
    if waiting:
        caller.transact(lambda plan: _receive(caller, plan))


def _receive(caller: Caller, plan: Plan) -> None:
    rows = plan.snapshot.scan(INBOX, (WS, caller.id), limit=CAPSULES_AT_ONCE)
    seed = caller.kem_seed(plan)
    for row in rows:
        capsule, enc, sealed = bytes(row[2]), bytes(row[3]), bytes(row[4])
        plan.need(INBOX, caller.id, capsule)
        plan.delete(INBOX, caller.id, capsule)
        try:
            held, replaces = _open_capsule(caller, plan, seed, enc, sealed)
        except (Tampered, NotFound):
            caller.event(plan, "refused-capsule")
            continue
        old = find(plan, caller.keys, BLOCKS, held.block)
        live = old is not None and plan.get(GRANT_WRAP, old.storage, old.grant) is not None
        if old is not None and live and old.state == ACCEPTED and old.grant != replaces:
            continue  # held already, through somebody else: an offer takes nothing away
        # A grant beside a live one, or in its place, leaves the block where it was, accepted or not; after the end of
        # the old one it is a new offer.
        alive = old is not None and (
            old.grant == replaces or plan.get(GRANT_WRAP, old.storage, old.grant) is not None
        )
        kept = old if alive else None
        position = kept.position if kept else caller.workspace.next_position()
        held = replace(held, state=kept.state if kept else OFFERED, position=position)
        shelf_id, locator = caller.keys.shelf(BLOCKS), caller.keys.locator(held.block)
        plan.put(SHELF, shelf_id, locator, held.position, *shelve(caller.keys, shelf_id, locator, held))
        caller.event(plan, "offer", held.key, block=held.block)


def _open_capsule(caller: Caller, plan: Plan, seed: bytes, enc: bytes, sealed: bytes) -> tuple[Held, int]:
    """The offered grant, and the number of the one that it replaces (or 0). Checked: its statement is the issuer's and
    names this capsule and this very recipient record; its block's id and owner follow from the genesis.

    Raises `Tampered`.
    """
    workspace, me = caller.workspace.id, caller.identity(plan, caller.id)
    key = None
    for digest in me.signers:
        try:
            key = crypto.open_from(seed, capsule_info(workspace, digest), enc)
        except Tampered:
            continue
    if key is None:
        raise Tampered("a capsule does not open")
    body = crypto.open_sealed(key, crypto.pae("capsule/body", workspace, crypto.sha256(enc)), sealed)
    value = _cbor.unpack(
        body, "a capsule", str, bytes, int, bytes, str, str, bytes, bytes, bytes, bytes, dict
    )
    block, storage, number, grant_key, owner, kind, leaf_bytes, admin, genesis_bytes, grant_bytes, _ = value
    first, signed, leaf = Signed.decode(genesis_bytes), Signed.decode(grant_bytes), Leaf.decode(leaf_bytes)
    genesis, link = Genesis.decode(first.body), Link.decode(signed.body)
    issuer = caller.identity(plan, link.issuer)
    replaces = link.change.get("replaces", 0)
    sound = (
        first.type == "genesis"
        and identifier("block", first.digest) == block
        and kind == genesis.kind == "block"
        and len(grant_key) == crypto.KEY_SIZE
        and genesis.owner == owner
        and caller.identity(plan, owner).signed(first, workspace, genesis.owner_record)
        and signed.type == "grant"
        and link.block == block
        and link.owner == owner
        and link.issuer == owner
        and issuer.signed(signed, workspace, link.issuer_record)
        and link.change.get("capsule") == crypto.sha256(enc)
        and link.change.get("leaf") == leaf.digest
        and leaf.grant == number
        and 0 < number < 1 << TREE_DEPTH
        and crypto.equal(leaf.salt, leaf_salt(grant_key))
        and isinstance(replaces, int)
        and 0 <= replaces < 1 << TREE_DEPTH
        and leaf.recipient == caller.id
        and leaf.record in me.signers
        and link.admin == crypto.sha256(admin)
    )
    if not sound:
        raise Tampered("a capsule holds a grant that its issuer did not make")
    held = Held(block, storage, number, grant_key, owner, kind, OFFERED, 0, leaf_bytes, admin)
    return held, replaces
