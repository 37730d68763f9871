"""What is shown of a block from what a process kept of it (ADR 0040) is what opening it shows, and asked the same."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from contextlib import closing
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import raw_rows
from stores import sqlite_only

from tallystone.errors import NotFound, Tampered, Unwitnessed
from tallystone.store.tables import BLOCK, WS
from tallystone.vault import Vault, Workspace
from tallystone.vault.entering import enter_again
from tallystone.vault.forms import Form
from tallystone.vault.plan import Plan
from tallystone.vault.shelves import BLOCKS, find
from tallystone.vault.types import Block

pytestmark = sqlite_only("rows are edited as SQLite's")

WHOLE = Form(pickle.dumps, lambda block: not block.extra.get("hidden"))
"""A block with everything that is shown of it."""
EVERY = Form(pickle.dumps, lambda block: True)


def whole(content: bytes) -> Block:
    block = pickle.loads(content)
    assert isinstance(block, Block)
    return block


ASKS: dict[str, Callable[[Vault, str], Block]] = {
    "by id": lambda vault, block: vault.block(block),
    "in a list": lambda vault, block: next(one for one in vault.blocks() if one.id == block),
    "by id, in a form": lambda vault, block: whole(vault.block_as(block, EVERY)[1]),
    "in a list, in a form": lambda vault, block: next(
        one for one in map(whole, vault.blocks_as(EVERY)) if one.id == block
    ),
}


def opened_and_again(
    workspace: Workspace, vault: Vault, ask: Callable[[Vault, str], Block], block: str
) -> None:
    workspace.recall.clear()
    opened = ask(vault, block)
    assert len(workspace.recall._kept) > 0
    assert ask(vault, block) == ask(vault, block) == ask(vault, block) == opened


@pytest.mark.parametrize("ask", ASKS.values(), ids=ASKS.keys())
def test_a_block_is_shown_again_as_it_was_when_it_was_opened(
    workspace: Workspace, alice: Vault, bob: Vault, ask: Callable[[Vault, str], Block]
) -> None:
    block = alice.create_block(
        label="oak", value="v", description="d", tags=["t"], metadata={"m": [1, {"n": 0.5}]}, limit=90,
        extra={"hidden": True}, keep={"last": 3}, audit_level="checkpointed", allowed=["bob"],
    ).id  # fmt: skip
    plain = alice.create_block(label="ash", append_only=True).id
    alice.share(block, "bob", "write+share")
    bob.accept_offer(block)
    agents = {vault: vault.create_agent({"name": "scout"}).id for vault in (alice, bob)}
    bob.attach(agents[bob], block, "read")
    alice.attach(agents[alice], plain)
    bob.edit_block(block, lambda before: {"value": before.value + "!", "tags": []})
    reader = workspace.vault(alice.create_token(scope="read"))
    for vault in (alice, bob, reader, bob.acting_as(agents[bob])):
        opened_and_again(workspace, vault, ask, block)
    for vault in (alice, alice.acting_as(agents[alice])):
        opened_and_again(workspace, vault, ask, plain)
    assert ask(alice, plain).agent_ids == [agents[alice]]
    assert ask(bob, block).agent_ids == [agents[bob]] and ask(bob, block).rights == "write+share"


@pytest.mark.parametrize("table", ["version", "chain", "epoch", "ledger", "grant_wrap", "shelf"])
@pytest.mark.parametrize("ask", ASKS.values(), ids=ASKS.keys())
def test_a_kept_block_with_an_edited_row_is_not_shown(
    tmp_path: Path, alice: Vault, bob: Vault, table: str, ask: Callable[[Vault, str], Block]
) -> None:
    block = alice.create_block(label="oak", value="v").id
    alice.share(block, "bob", "write")
    bob.accept_offer(block)
    for _ in range(3):
        assert ask(bob, block).value == "v"
    column = {"epoch": "chain", "ledger": "leaf", "grant_wrap": "wrap", "shelf": "one"}.get(table, "sealed")
    with closing(raw_rows.connect(tmp_path / "data" / "tallystone.db")) as raw, raw:
        raw.execute(f'UPDATE "{table}" SET "{column}" = zeroblob(length("{column}"))')
    with pytest.raises(Tampered):
        ask(bob, block)


@pytest.mark.parametrize("ask", ASKS.values(), ids=ASKS.keys())
def test_an_owner_is_not_shown_who_holds_a_kept_block_by_edited_rows(
    tmp_path: Path, alice: Vault, ask: Callable[[Vault, str], Block]
) -> None:
    block, agent = alice.create_block(label="oak", value="v").id, alice.create_agent({"name": "scout"}).id
    alice.attach(agent, block)
    for _ in range(3):
        assert ask(alice, block).agent_ids == [agent]
    with closing(raw_rows.connect(tmp_path / "data" / "tallystone.db")) as raw, raw:
        raw.execute("UPDATE ledger SET leaf = zeroblob(length(leaf))")
    with pytest.raises(Tampered):
        ask(alice, block)


@pytest.mark.parametrize("ask", ASKS.values(), ids=ASKS.keys())
def test_a_kept_block_whose_key_another_process_destroyed_is_not_shown(
    workspace: Workspace, alice: Vault, ask: Callable[[Vault, str], Block]
) -> None:
    block, other = alice.create_block(label="oak", value="v").id, alice.create_block(label="ash").id
    assert ask(alice, block) == ask(alice, block) == ask(alice, block)
    with workspace.store.snapshot() as snapshot:
        held = find(Plan(snapshot), alice._caller.keys, BLOCKS, block)
        assert held is not None
        row = snapshot.get(BLOCK, (WS, held.storage))
    assert row is not None
    workspace.shreds.destroy([row[7]])
    with pytest.raises((NotFound, StopIteration)):
        ask(alice, block)
    assert ask(alice, other).label == "ash"  # of the same file of keys


@pytest.mark.parametrize("ask", ASKS.values(), ids=ASKS.keys())
def test_a_kept_block_that_waits_for_a_witness_is_kept_back_each_time(
    workspace: Workspace, alice: Vault, ask: Callable[[Vault, str], Block]
) -> None:
    block = alice.create_block(label="oak", value="v").id
    assert ask(alice, block) == ask(alice, block) == ask(alice, block)
    alice.set_charter(audit={"public": "witnessed"})
    for _ in range(3):
        with pytest.raises(Unwitnessed):
            ask(alice, block)
    alice.set_charter(audit={"public": "durable"})
    assert ask(alice, block).value == "v"


@pytest.mark.parametrize(
    ("change", "stays"),
    [
        ({"value": "w"}, True),
        ({"value": "w", "limit": 50}, True),
        ({"expires": date(2100, 1, 1)}, False),
    ],
    ids=["value", "limit", "day"],
)
def test_what_an_edit_by_label_leaves_for_the_agent_is_what_it_would_open(
    workspace: Workspace, alice: Vault, change: dict[str, Any], stays: bool
) -> None:
    block = alice.create_block(label="oak", value="v").id
    agent = alice.create_agent({"name": "scout"}).id
    alice.attach(agent, block)
    caller = alice.acting_as(agent)._caller
    for value in "xy":
        alice.edit_agent_block(agent, "oak", lambda _, value=value: {"value": value}, as_agent=False)
    alice.edit_agent_block(agent, "oak", lambda _: change, as_agent=False)
    with workspace.store.snapshot() as snapshot:
        plan = Plan(snapshot, workspace.recall.find)
        held = find(plan, caller.keys, BLOCKS, block)
        assert held is not None and (enter_again(caller, plan, held) is not None) == stays
    shown = alice.agent_block(agent, "oak"), alice.acting_as(agent).block(block)
    workspace.recall.clear()
    assert shown == (alice.agent_block(agent, "oak"), alice.acting_as(agent).block(block))
    alice.detach(agent, block)
    with pytest.raises(NotFound):
        alice.edit_agent_block(agent, "oak", lambda _: {"value": "z"}, as_agent=False)
    assert alice.block(block).value == change.get("value", "y")


@pytest.mark.parametrize("access", ["read", "write"])
def test_what_attaching_and_detaching_leave_is_what_would_be_opened(
    workspace: Workspace, alice: Vault, bob: Vault, access: str
) -> None:
    block = alice.create_block(label="oak", value="v").id
    alice.share(block, "bob", "write+share", depth=1)
    bob.accept_offer(block)
    agents = {vault: vault.create_agent({"name": "scout"}).id for vault in (alice, bob)}

    def seen() -> list[Any]:
        blocks = [alice.block(block), bob.block(block)]
        for vault, agent in agents.items():
            blocks += vault.agent(agent).blocks
        return blocks

    def opened_afresh() -> list[Any]:
        workspace.recall.clear()
        return seen()

    for vault, agent in agents.items():
        for _ in range(2):
            assert vault.attach(agent, block, access).blocks[0].value == alice.block(block).value
            assert seen() == opened_afresh()
            if access == "write":
                vault.edit_agent_block(agent, "oak", lambda one: {"value": f"{one.value}!"}, as_agent=True)
            assert vault.detach(agent, block).blocks == []
            assert seen() == opened_afresh()
            with pytest.raises(NotFound):
                vault.acting_as(agent).block(block)
        vault.attach(agent, block, access)
    assert seen() == opened_afresh() and len(alice.block(block).agent_ids) == 2
    assert workspace.verify().ok
