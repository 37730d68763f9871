"""Inputs that are none: refused before anything is written, and nobody is locked out by what others send."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from stores import sampled

from tallystone import _cbor, crypto
from tallystone.errors import Invalid
from tallystone.statements import Leaf, Link, Signed
from tallystone.store.tables import INBOX
from tallystone.vault import Vault, Workspace
from tallystone.vault.capsules import capsule_info
from tallystone.vault.plan import Plan
from tallystone.vault.shelves import BLOCKS, find

pytestmark = sampled(3, "the cases differ in what is sent, and are refused before a row is written")

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


def send(workspace: Workspace, owner: Vault, to: Vault, block: str, number: int, replaces: Any) -> None:
    """Share a block, and put these numbers into the capsule on its way, signed and sealed as it should be."""
    owner.share(block, to.principal_id)
    caller, reader = owner._caller, to._caller
    with workspace.store.snapshot() as snapshot:
        plan = Plan(snapshot)
        (row,) = plan.rows(INBOX, reader.id)
        enc = bytes(row[3])
        info = capsule_info(workspace.id, reader.identity(plan, reader.id).digest)
        one_time = crypto.open_from(reader.kem_seed(plan), info, enc)
        context = crypto.pae("capsule/body", workspace.id, crypto.sha256(enc))
        body: Any = _cbor.decode(crypto.open_sealed(one_time, context, bytes(row[4])))
        leaf = replace(Leaf.decode(body[6]), grant=number)
        link = Link.decode(Signed.decode(body[9]).body)
        change = {**link.change, "grant": number, "leaf": leaf.digest, "replaces": replaces}
        signed = caller.sign(plan, "grant", replace(link, change=change).encode())
        body[2], body[6], body[9] = number, leaf.encode(), signed.encode()
        plan.put(INBOX, *row[1:4], crypto.seal(one_time, context, _cbor.encode(body)), row[5])
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
    send(workspace, alice, bob, bad, number, replaces)
    alice.share(good, "bob")
    assert {offer.block_id for offer in bob.offers()} == {good} | ({bad} if taken else set())
    assert on_shelf(workspace, bob, bad) == taken
    accepted = bob.accept_offer(good)
    assert accepted is not None and accepted.label == "good"
    assert [block.id for block in bob.blocks()] == [good]
    bob.create_block(label="mine")
    assert bob.inspect().findings == []
