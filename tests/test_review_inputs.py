"""Inputs that are none: refused before anything is written, and nobody is locked out by what others send."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tallystone import crypto
from tallystone.errors import Invalid
from tallystone.statements import READ, Link
from tallystone.store.tables import INBOX
from tallystone.vault import Vault, Workspace
from tallystone.vault.opening import open_block
from tallystone.vault.plan import Plan
from tallystone.vault.records import admin_public
from tallystone.vault.shelves import BLOCKS, capsule_info, find, find_block, seal_capsule_body
from tallystone.vault.writing import new_leaf

EDITS: list[dict[str, Any]] = [
    {"description": 5},
    {"read_only": 1},
    {"locked": 1},
    {"limit": True},
    {"limit": 5.5},
    {"limit": "5"},
    {"limit": None},
    {"limit": -1},
    {"value": None},
    {"value": b"x"},
    {"vlaue": "x"},
    {"id": "x"},
    {"version": 9},
    {"owner": "x"},
    {"label": None},
    {"label": 5},
    {"tags": "abc"},
    {"tags": [5]},
    {"tags": None},
    {"metadata": [1]},
    {"metadata": {"x": int}},
    {"extra": 5},
    {"value": "fine", "description": 5},
]


def name(value: Any) -> str:
    return repr(value)[:40]


@pytest.mark.parametrize("fields", EDITS, ids=name)
def test_an_edit_that_makes_no_block_is_invalid_and_changes_nothing(
    alice: Vault, fields: dict[str, Any]
) -> None:
    made = alice.create_block(label="l", value="")
    with pytest.raises(Invalid):
        alice.edit_block(made.id, lambda b: fields)
    assert replace(alice.block(made.id), position=0) == replace(made, position=0)
    assert len(alice.blocks()) == 1
    alice.delete_block(made.id)


@pytest.mark.parametrize("fields", [{"description": 5}, {"label": None}, {"value": None}], ids=name)
def test_a_grantee_bricks_no_block_of_its_owner_with_such_an_edit(
    alice: Vault, bob: Vault, fields: dict[str, Any]
) -> None:
    team = alice.create_block(label="team", value="v").id
    agent = alice.create_agent({"name": "A"}, block_ids=[team]).id
    alice.share(team, "bob", "write")
    bob.offers()
    bob.accept_offer(team)
    with pytest.raises(Invalid):
        bob.edit_block(team, lambda b: fields)
    assert alice.block(team).value == bob.block(team).value == "v"
    assert [one.id for one in alice.agents()] == [agent] and len(alice.access()) == 3
    alice.revoke(team, "bob")
    alice.delete_block(team)


@pytest.mark.parametrize(
    "fields",
    [
        {"label": None},
        {"label": 5},
        {"limit": 5.5},
        {"limit": True},
        {"limit": -1},
        {"value": b"x"},
        {"description": 5},
        {"read_only": "x"},
        {"tags": [5]},
        {"metadata": {1: int}},
    ],
    ids=name,
)
def test_a_block_that_would_be_none_is_not_made(alice: Vault, fields: dict[str, Any]) -> None:
    with pytest.raises(Invalid):
        alice.create_block(**{"label": "l", **fields})
    with pytest.raises(Invalid):
        alice.create_agent({"name": "A"}, memory_blocks=[{"label": "l", **fields}])
    assert alice.blocks() == [] and alice.agents() == []


# -- what comes in the mail -------------------------------------------------------------------------------------


def send(workspace: Workspace, owner: Vault, to: str, block: str, number: int, replaces: Any) -> None:
    """Put a capsule in somebody's inbox, signed and sealed as it should be, with these numbers in its grant."""
    caller = owner._caller
    with workspace.store.snapshot() as snapshot:
        plan = Plan(snapshot)
        opened = open_block(caller, plan, find_block(plan, caller.keys, block))
        recipient, one_time = caller.identity(plan, to), crypto.random_bytes()
        enc = crypto.seal_to(recipient.record.kem, capsule_info(workspace.id, recipient.digest), one_time)
        leaf = replace(new_leaf(1, recipient, READ, 0, key := crypto.random_bytes()), grant=number)
        public = admin_public(opened.held.admin)
        change = {"grant": number, "leaf": leaf.digest, "capsule": crypto.sha256(enc), "replaces": replaces}
        head = opened.head
        link = Link(
            block=block, number=1, previous=head.digest, version=opened.row.version,
            version_digest=opened.payload()[2], epoch=0, owner=caller.id, grants=leaf.digest, next_grant=2,
            settings=dict(head.settings), admin=crypto.sha256(public), change=change, issuer=caller.id,
            issuer_record=caller.identity(plan, caller.id).digest, authority={}, time=0,
        )  # fmt: skip
        held = replace(opened.held, grant=number, key=key, leaf=leaf.encode(), admin_public=public)
        signed = caller.sign(plan, "grant", link.encode())
        body = seal_capsule_body(one_time, workspace.id, enc, held, opened.statement(0), signed)
        plan.put(INBOX, to, crypto.sha256(enc)[:16], enc, body, workspace.next_position())
    workspace.store.commit(plan.batch())


def on_shelf(workspace: Workspace, vault: Vault, block: str) -> bool:
    with workspace.store.snapshot() as snapshot:
        return find(Plan(snapshot), vault._caller.keys, BLOCKS, block) is not None


@pytest.mark.parametrize(
    ("number", "replaces", "taken"),
    [
        (1, 0, True),  # what is sent is a capsule like any other, but for the numbers
        (1, "abc", False),
        (1, -1, False),
        (1, 2**63, False),
        (1, [], False),
        (2**63, 0, False),
        (2**24, 0, False),
        (0, 0, False),
        (-1, 0, False),
    ],
    ids=name,
)
def test_a_capsule_with_numbers_that_are_none_is_refused_and_locks_nobody_out(
    workspace: Workspace, alice: Vault, bob: Vault, number: int, replaces: Any, taken: bool
) -> None:
    bad, good = alice.create_block(label="bad").id, alice.create_block(label="good").id
    send(workspace, alice, bob.principal_id, bad, number, replaces)
    alice.share(good, "bob")
    assert [offer.block_id for offer in bob.offers()] == [good]
    assert on_shelf(workspace, bob, bad) == taken
    assert bob.accept_offer(good).label == "good"
    assert [block.id for block in bob.blocks()] == [good]
    bob.create_block(label="mine")
    assert bob.inspect() is not None
