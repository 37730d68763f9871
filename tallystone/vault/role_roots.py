"""A role's root and the head of its members: made, kept in the role's block, and renewed (design §5, §6)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tallystone import crypto
from tallystone.keystore import Keys, new_root, seal_seed
from tallystone.statements import Leaf, Membership, Signed, issue
from tallystone.store.tables import BLOCK, GRANT_WRAP, IDENTITY, SHELF
from tallystone.vault.block_row import FLAG_ROTATE, BlockRow
from tallystone.vault.caller import Caller
from tallystone.vault.entering import open_block
from tallystone.vault.opening import Opened, missing
from tallystone.vault.passages import act_context, act_key, reached, role_keys
from tallystone.vault.plan import Plan
from tallystone.vault.principals import amend
from tallystone.vault.records import ACCEPTED, Held
from tallystone.vault.rotating import change_keys
from tallystone.vault.shelves import BLOCKS, ROLES, find, walk
from tallystone.vault.writing import add_version, put_on_shelf


def members_shelf(role: str) -> str:
    """The owner's index of a role's members: which grant of the role's block is whose."""
    return f"members/{role}"


def issue_own(caller: Caller, plan: Plan, kind: str, body: bytes) -> Signed:
    """A statement by the caller alone, as the owner of what it is about."""
    me = caller.identity(plan, caller.id)
    return issue(kind, caller.workspace.id, body, [(me.digest, caller.signing_seed(plan))])


def root_fields(keys: Keys, role: str, generation: int, secret: bytes) -> dict[str, bytes]:
    """What the role's block says of its root: the reading half, and the acting half under the members' own key."""
    assert keys.root.act is not None  # the owner's hands made it whole
    sealed = crypto.seal(act_key(secret), act_context(role, generation), keys.root.act)
    return {"read": keys.root.read, "act": sealed}


def issue_head(caller: Caller, plan: Plan, role: str, record: bytes, serial: int, members: bytes) -> Signed:
    """The head of a role's live members: the Merkle root (32 bytes) over their leaves."""
    me = caller.identity(plan, caller.id)
    body = Membership(role, record, serial, members, caller.id, me.digest, caller.workspace.now_ms())
    return issue_own(caller, plan, "membership", body.encode())


def find_role(caller: Caller, plan: Plan, role: str) -> Held:
    """The role with this id or name, of which the caller is the owner or a member. Raises the uniform miss."""
    held = find(plan, caller.keys, ROLES, role) if role.startswith("role-") else None
    if held is not None and held.state == ACCEPTED:
        return held
    for one in reached(caller, plan):
        opened = one.way[0].opened
        if role in (one.role, opened.payload()[0]["name"]):
            return opened.held
    raise missing("Role", role)


def index_member(caller: Caller, plan: Plan, opened: Opened, leaf: Leaf) -> None:
    """Note which grant is whose, where only the owner looks: removing one of 10⁵ must not open all."""
    held = opened.held
    note = Held(
        held.block, held.storage, leaf.grant, b"", held.owner, "member", ACCEPTED, leaf.grant, leaf.encode()
    )
    put_on_shelf(plan, caller.keys, members_shelf(held.subject), leaf.recipient, note)


def write_head(caller: Caller, plan: Plan, opened: Opened, **changes: bytes) -> None:
    """Queue the next version of the role's block: with the head of those who are members now."""
    payload, _, digest = opened.payload()
    subject, link = opened.held.subject, opened.head
    record = caller.identity(plan, subject).digest
    head = issue_head(caller, plan, subject, record, link.number, link.grants)
    add_version(opened, {**payload, **changes, "head": head.encode()}, digest, opened.standing())


def renew_root(caller: Caller, plan: Plan, opened: Opened, **changes: Any) -> None:
    """Queue a new root for a role whose block has new keys: record, shelf, head of members; mark what it reached; and
    renew the roles that it is in, since whoever knew this root knew theirs."""
    subject = opened.held.subject
    old, _ = role_keys(opened)
    generation = caller.identity(plan, subject).record.root + 1
    new, kem = Keys(subject, new_root(caller.keys.root.pin)), crypto.random_bytes()
    amend(caller, plan, subject, root=generation, kem=crypto.kem_public(kem), **changes)
    plan.put(IDENTITY, subject, b"", seal_seed(new, "kem", kem))
    write_head(caller, plan, opened, **root_fields(new, subject, generation, opened.held.root_act))
    mark_blocks(plan, old)
    for shelf in (BLOCKS, ROLES):
        for held in list(walk(plan, old, shelf)):
            plan.delete(SHELF, old.shelf(shelf), old.locator(held.subject if shelf == ROLES else held.block))
            if plan.get(GRANT_WRAP, held.storage, held.grant) is not None:
                put_on_shelf(plan, new, shelf, held.subject if shelf == ROLES else held.block, held)
    plan.memo.pop("roles", None)
    plan.memo.setdefault("renewed", {})[subject] = new
    for outer in list(walk(plan, new, ROLES)):
        above = open_block(caller, plan, find_role(caller, plan, outer.subject))
        change_keys(above)
        _index_again(caller, plan, above, subject)
        renew_root(caller, plan, above)


def _index_again(caller: Caller, plan: Plan, above: Opened, subject: str) -> None:
    """The inner role's leaf in the outer one has a new record and key: note it."""
    note = find(plan, caller.keys, members_shelf(above.held.subject), subject)
    if note is not None:
        row = above.ledger()[note.grant][0]
        index_member(caller, plan, above, above.roster(row).leaf)


def mark_blocks(plan: Plan, keys: Keys) -> None:
    """Queue the mark on every block on a role's shelf: none takes a version under keys that a former member knows."""
    for held in walk(plan, keys, BLOCKS):
        row = plan.need(BLOCK, held.storage)
        if row is not None:
            block = BlockRow.of(row)
            replace(block, flags=block.flags | FLAG_ROTATE).write(plan)
