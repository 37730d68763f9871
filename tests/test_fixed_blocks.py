"""What is fixed when a block is made: content that never changes, or only grows, for the owner as for everybody."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from force import by_force

from tallystone.errors import Denied, Invalid, Tampered
from tallystone.store.tables import VERSION
from tallystone.vault import Vault, Workspace
from tallystone.vault.entering import open_block
from tallystone.vault.opening import Opened
from tallystone.vault.plan import Plan
from tallystone.vault.shelves import BLOCKS, find
from tallystone.vault.types import Block, Credentials
from tallystone.vault.writing import add_version, put_on_shelf

CONTENT: dict[str, Any] = {
    "label": "rules",
    "value": "1. Be kind.\n",
    "description": "d",
    "tags": ["a"],
    "metadata": {"n": 1.5, "deep": {"x": [True, None, float("inf")]}},
    "extra": {"hidden": True},
}
CHANGES: dict[str, Any] = {
    "label": "other",
    "value": "changed",
    "description": None,
    "tags": ["b"],
    "metadata": {"n": 2},
    "extra": {},
}


def writer(workspace: Workspace, alice: Vault, credentials: Credentials, block: Block) -> Vault:
    alice.share(block.id, credentials.principal, "write")
    vault = workspace.vault(credentials.token)
    vault.accept_offer(block.id)
    return vault


def write(fields: dict[str, Any]) -> Callable[[Opened, Plan], None]:
    """A version with these fields, signed and sealed as it should be, past the checks of an edit."""

    def act(opened: Opened, plan: Plan) -> None:
        payload, _, digest = opened.payload()
        add_version(opened, {**payload, **fields}, digest, opened.standing())

    return act


def afresh(workspace: Workspace) -> None:
    """Forget what this process has verified, as another one has never known it."""
    workspace.trusted.clear()
    workspace.geneses.clear()
    workspace.recall.clear()


@pytest.mark.parametrize("name", CHANGES)
def test_immutable_content_is_changed_by_nobody(
    workspace: Workspace, alice: Vault, bob_credentials: Credentials, name: str
) -> None:
    block = alice.create_block(**CONTENT, mutable=False)
    bob = writer(workspace, alice, bob_credentials, block)
    for vault in (alice, bob):
        with pytest.raises(Denied) as refused:
            vault.edit_block(block.id, lambda _: {name: CHANGES[name]})
        assert refused.value.code == "immutable"
        assert {n: getattr(vault.block(block.id), n) for n in CONTENT} == CONTENT
    assert (block.mutable, block.append_only) == (False, False)


def test_the_settings_of_an_immutable_block_still_change_and_its_content_stays(alice: Vault) -> None:
    block = alice.create_block(**CONTENT, mutable=False)
    after = alice.edit_block(block.id, lambda _: {"read_only": True, "limit": 50, "sensitivity": "internal"})
    assert (after.version, after.read_only, after.limit, after.sensitivity) == (2, True, 50, "internal")
    assert {name: getattr(alice.block(block.id), name) for name in CONTENT} == CONTENT
    assert alice.edit_block(block.id, lambda b: {"value": b.value}).version == 2


def test_a_forged_version_of_an_immutable_block_counts_for_nobody(
    workspace: Workspace, alice: Vault, bob_credentials: Credentials
) -> None:
    for forger in ("owner", "writer"):
        block = alice.create_block(**CONTENT, mutable=False)
        bob = writer(workspace, alice, bob_credentials, block)
        by_force(alice if forger == "owner" else bob, block.id, write({"value": "forged"}))
        for vault in (alice, bob):
            with pytest.raises(Tampered, match="immutable"):
                vault.block(block.id)


def test_equal_immutable_contents_give_genesis_statements_that_tell_nothing_of_them(alice: Vault) -> None:
    found = []
    for _ in range(2):
        block = alice.create_block(label="l", value="yes", mutable=False)
        by_force(alice, block.id, lambda opened, _: found.append(opened.genesis().change["payload"]))
    assert found[0] != found[1]


def test_an_append_only_value_grows_for_owner_and_writer_alike(
    workspace: Workspace, alice: Vault, bob_credentials: Credentials
) -> None:
    block = alice.create_block(**CONTENT, append_only=True)
    bob = writer(workspace, alice, bob_credentials, block)
    for vault in (alice, bob, alice):
        before = vault.block(block.id).value
        after = vault.edit_block(block.id, lambda b: {"value": b.value + "more\n"})
        assert after.value == before + "more\n"
    assert alice.edit_block(block.id, lambda _: {"limit": 60}).limit == 60
    for vault in (alice, bob):
        kept = vault.block(block.id)
        for fields in ({"value": "1. Be"}, {"value": "x" + kept.value}, {"value": ""}, {"tags": []},
                       {"value": kept.value + "!", "description": None}):  # fmt: skip
            with pytest.raises(Denied) as refused:
                vault.edit_block(block.id, lambda _, fields=fields: fields)
            assert refused.value.code == "append_only"
        assert vault.block(block.id) == kept


@pytest.mark.parametrize("fields", [{"value": "1. Be cruel.\n"}, {"tags": ["x"]}, {"metadata": {}}])
def test_a_forged_version_of_an_append_only_block_counts_for_nobody(
    workspace: Workspace, alice: Vault, bob_credentials: Credentials, fields: dict[str, Any]
) -> None:
    block = alice.create_block(**CONTENT, append_only=True)
    bob = writer(workspace, alice, bob_credentials, block)
    bob.edit_block(block.id, lambda b: {"value": b.value + "2. Be brief.\n"})
    by_force(bob, block.id, write(fields))
    for vault in (alice, bob):
        with pytest.raises(Tampered, match="append"):
            vault.block(block.id)


def test_a_cut_value_is_found_behind_honest_appends_too(
    workspace: Workspace, alice: Vault, bob_credentials: Credentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    block = alice.create_block(**CONTENT, append_only=True)
    bob = writer(workspace, alice, bob_credentials, block)

    def cut_and_append(opened: Opened, plan: Plan) -> None:
        payload, _, digest = opened.payload()
        for value in ("", "a", "ab"):
            add_version(opened, {**payload, "value": value}, digest, opened.standing())
            digest = opened.stored(opened.row.version)[0].signed.digest

    with monkeypatch.context() as patched:
        patched.setattr("tallystone.vault.opening.check_content", lambda *_: None)
        by_force(bob, block.id, cut_and_append)
    with pytest.raises(Tampered, match="append"):
        alice.block(block.id)


def test_a_version_that_names_another_predecessor_is_refused(
    workspace: Workspace, alice: Vault, bob_credentials: Credentials
) -> None:
    block = alice.create_block(**CONTENT, append_only=True)
    bob = writer(workspace, alice, bob_credentials, block)

    def skip(opened: Opened, plan: Plan) -> None:
        payload, _, _ = opened.payload()
        add_version(opened, {**payload, "value": payload["value"] + "x"}, bytes(32), opened.standing())

    by_force(bob, block.id, skip)
    with pytest.raises(Tampered, match="does not follow"):
        alice.block(block.id)


def test_an_append_only_block_without_the_version_before_the_newest_is_refused(
    workspace: Workspace, alice: Vault
) -> None:
    block = alice.create_block(**CONTENT, append_only=True)
    alice.edit_block(block.id, lambda b: {"value": b.value + "x"})
    by_force(alice, block.id, lambda opened, plan: plan.delete(VERSION, opened.row.storage, 1))
    afresh(workspace)
    with pytest.raises(Tampered):
        alice.block(block.id)


def test_whoever_got_a_block_without_its_history_reads_and_appends_still(
    workspace: Workspace, alice: Vault, bob_credentials: Credentials
) -> None:
    block = alice.create_block(**CONTENT, append_only=True)
    alice.edit_block(block.id, lambda b: {"value": b.value + "2.\n"})
    alice.create_agent({"name": "a"}, block_ids=[block.id])
    alice.share(block.id, bob_credentials.principal, "write", history=False)
    bob = workspace.vault(bob_credentials.token)
    bob.accept_offer(block.id)
    alice.revoke(block.id, alice.agents()[0].id)  # new keys: the earlier version is now under older ones
    alice.edit_block(block.id, lambda b: {"value": b.value + "3.\n"})
    afresh(workspace)
    assert bob.block(block.id).value == "1. Be kind.\n2.\n3.\n"
    assert bob.edit_block(block.id, lambda b: {"value": b.value + "4.\n"}).value.endswith("4.\n")


def test_a_block_cannot_be_both_nor_become_either(alice: Vault) -> None:
    with pytest.raises(Invalid):
        alice.create_block(label="l", mutable=False, append_only=True)
    assert alice.blocks() == []
    block = alice.create_block(label="l")
    for fields in ({"mutable": False}, {"append_only": True}):
        with pytest.raises(Invalid) as refused:
            alice.edit_block(block.id, lambda _, fields=fields: fields)
        assert refused.value.code == "fixed"
    assert alice.edit_block(block.id, lambda b: {"mutable": True, "append_only": False}) == block


def test_agents_memory_blocks_may_be_fixed_as_well(alice: Vault) -> None:
    agent = alice.create_agent(
        {"name": "a"},
        memory_blocks=[
            {"label": "log", "append_only": True},
            {"label": "creed", "value": "x", "mutable": False},
        ],
    )
    assert [(one.append_only, one.mutable) for one in agent.blocks] == [(True, True), (False, False)]
    alice.edit_agent_block(agent.id, "log", lambda b: {"value": b.value + "a"}, as_agent=True)
    for label in ("log", "creed"):
        with pytest.raises(Denied):
            alice.edit_agent_block(agent.id, label, lambda _: {"value": "b"}, as_agent=True)


def test_a_shelf_row_names_no_owner_whom_the_genesis_does_not_name(
    workspace: Workspace, alice: Vault, bob_credentials: Credentials
) -> None:
    block = alice.create_block(label="l", value="v")
    bob = writer(workspace, alice, bob_credentials, block)
    assert bob.block(block.id).owner == alice.principal_id
    with workspace.store.snapshot() as snapshot:
        plan = Plan(snapshot)
        held = find(plan, bob._caller.keys, BLOCKS, block.id)
        assert held is not None
        put_on_shelf(plan, bob._caller.keys, BLOCKS, block.id, replace(held, owner=bob.principal_id))
        with pytest.raises(Tampered, match="another owner"):
            open_block(bob._caller, plan, replace(held, owner=bob.principal_id))
    workspace.store.commit(plan.batch())
    with pytest.raises(Tampered):
        bob.block(block.id)
