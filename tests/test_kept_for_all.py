"""What the holders of a block share of what a process keeps, and the keys of agents beside it (ADR 0050): nobody opens
either by less than what opens the rows, and neither outlives them."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from stores import sqlite_only

from tallystone.errors import Conflict, NotFound, TallystoneError, Tampered
from tallystone.keystore import Keys, open_root, parse_token
from tallystone.store.tables import BLOCK, SHELF, TOKEN, VERSION, WS
from tallystone.vault import Vault, Workspace, entering, known_agents
from tallystone.vault.caller import Caller
from tallystone.vault.kept_blocks import Common, Kept
from tallystone.vault.plan import Plan
from tallystone.vault.recall import Recalled
from tallystone.vault.records import Held
from tallystone.vault.shelves import AGENTS, BLOCKS, agent_keys, find, find_agent

pytestmark = sqlite_only("what is kept of rows is asked of that store (0031)")

SECRET = "the harvest is hidden under the third oak"


def commons(workspace: Workspace) -> list[Common]:
    return [one for one in workspace.recall._kept.values() if isinstance(one, Common)]


def held_by(workspace: Workspace, caller: Caller, block: str) -> Held:
    with workspace.store.snapshot() as snapshot:
        held = find(Plan(snapshot, workspace.recall.find), caller.keys, BLOCKS, block)
    assert held is not None
    return held


def recalled(workspace: Workspace, caller: Caller, block: str) -> Recalled:
    found = held_by(workspace, caller, block).recalled
    assert found is not None
    return found


def agents_of(alice: Vault, block: str, count: int) -> list[str]:
    agents = [alice.create_agent({"name": f"agent {number}"}).id for number in range(count)]
    for agent in agents:
        alice.attach(agent, block)
    return agents


# -- blocks ------------------------------------------------------------------------------------------------------


def test_what_one_holder_writes_none_of_the_others_opens_again(
    workspace: Workspace, alice: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    block = alice.create_block(label="oak", value="0").id
    agents = agents_of(alice, block, 3)
    for agent in agents:
        alice.agent_block(agent, "oak")
    opened: list[str] = []
    unwrap = entering.unwrap_epoch
    monkeypatch.setattr(entering, "unwrap_epoch", lambda *given: (opened.append(given[1]), unwrap(*given))[1])
    for turn in range(3):
        for agent in agents:
            value = f"{turn} {agent}"
            alice.edit_agent_block(agent, "oak", lambda _: {"value": value}, as_agent=False)  # noqa: B023 -- at once
            assert {alice.agent_block(one, "oak").value for one in agents} == {value}
    assert not opened


def test_what_holders_share_lies_there_once_and_says_nothing(workspace: Workspace, alice: Vault) -> None:
    block = alice.create_block(label="oak", value=SECRET).id
    for agent in agents_of(alice, block, 3):
        alice.agent_block(agent, "oak")
    alice.block(block)
    found = [
        one
        for one in commons(workspace)
        if one.rows[0][0][1][1] == held_by(workspace, alice._caller, block).storage
    ]
    assert len(found) == 1
    assert not any(word in found[0].sealed + found[0].label for word in (SECRET.encode(), b"oak"))


def test_whom_a_block_was_taken_from_opens_no_later_version_with_the_whole_memory(
    workspace: Workspace, alice: Vault
) -> None:
    block = alice.create_block(label="oak", value="before").id
    gone, stays = agents_of(alice, block, 2)
    caller = alice.acting_as(gone)._caller
    for agent in (gone, stays):
        alice.agent_block(agent, "oak")
    known = recalled(workspace, caller, block)
    assert known.payload["value"] == "before"
    key = known._key
    alice.detach(gone, block)
    alice.edit_agent_block(stays, "oak", lambda _: {"value": SECRET}, as_agent=False)
    opened = 0
    for common in commons(workspace):
        for place in [one.place for one in workspace.recall._kept.values() if isinstance(one, Kept)]:
            try:
                whole = workspace.recall.shelter(key).open(common.number, place, common.sealed)
            except Tampered:
                continue
            opened += 1
            assert SECRET.encode() not in whole
    assert opened <= 1
    with pytest.raises(NotFound):
        alice.agent_block(gone, "oak")
    assert alice.agent_block(stays, "oak").value == SECRET


def test_who_takes_another_for_the_owner_shares_nothing_with_the_others(
    workspace: Workspace, alice: Vault, bob: Vault
) -> None:
    """Whose word a block's policy is, a reader knows by its shelf row alone: who has another row verifies by itself."""
    block = alice.create_block(label="oak", value="v").id
    alice.share(block, "bob", "write+share")
    bob.accept_offer(block)
    carol = workspace.vault(alice.add_user("carol").token)
    alice.share(block, "carol", "read")
    carol.accept_offer(block)
    places = set()
    for vault in (alice, bob, carol):
        assert vault.block(block).value == "v"
        places.add(recalled(workspace, vault._caller, block).kept.place)
    assert len(places) == 1
    alice.transfer(block, "bob")
    bob.accept_transfer(block)
    bob.edit_block(block, lambda _: {"value": "w"})
    for vault in (bob, carol):
        assert vault.block(block).value == vault.block(block).value == "w"
    mine, his = (recalled(workspace, vault._caller, block).kept.place for vault in (carol, bob))
    owners = [held_by(workspace, vault._caller, block).owner for vault in (carol, bob)]
    assert (mine == his) == (owners[0] == owners[1])


def test_who_may_not_see_what_was_before_shares_nothing_with_who_may(
    workspace: Workspace, alice: Vault, bob: Vault
) -> None:
    """A grant without history cannot hold a version against the one before: others do not rely on what it found."""
    block = alice.create_block(label="oak", value="v").id
    alice.share(block, "bob", "read", history=False)
    bob.accept_offer(block)
    for vault in (alice, bob):
        vault.block(block)
    assert (
        recalled(workspace, alice._caller, block).kept.place
        != recalled(workspace, bob._caller, block).kept.place
    )


def test_an_edited_row_is_refused_to_every_holder(tmp_path: Path, workspace: Workspace, alice: Vault) -> None:
    block = alice.create_block(label="oak", value=SECRET).id
    agents = agents_of(alice, block, 2)
    for agent in agents:
        assert alice.agent_block(agent, "oak").value == SECRET
    storage = held_by(workspace, alice._caller, block).storage
    with closing(sqlite3.connect(tmp_path / "data" / "tallystone.db")) as raw, raw:
        raw.execute("UPDATE version SET sealed = zeroblob(length(sealed)) WHERE storage = ?", (storage,))
    for agent in agents:
        with pytest.raises(Tampered):
            alice.agent_block(agent, "oak")
        with pytest.raises(Tampered):
            alice.edit_agent_block(agent, "oak", lambda _: {"value": "w"}, as_agent=False)


def test_what_a_plan_begins_is_not_looked_for_and_must_not_be_there_when_it_commits(
    workspace: Workspace, alice: Vault
) -> None:
    block = alice.create_block(label="oak", value=SECRET).id
    storage = held_by(workspace, alice._caller, block).storage
    with workspace.store.snapshot() as snapshot:
        plan = Plan(snapshot)
        plan.begins(storage)
        assert plan.need(BLOCK, storage) is None and plan.rows(VERSION, storage) == []
        plan.put(BLOCK, storage, 0, 0, 0, 0, None, None)
    with pytest.raises(Conflict):
        workspace.store.commit(plan.batch())
    assert alice.block(block).value == SECRET


# -- by label, across processes ------------------------------------------------------------------------------------


@pytest.fixture
def elsewhere(workspace: Workspace, alice: Vault) -> Vault:
    """Alice in another process."""
    token = alice.create_token()
    other = Workspace.open(workspace.folder)
    return other.vault(token)


def test_a_label_that_another_process_moved_is_found_where_it_is(
    workspace: Workspace, alice: Vault, elsewhere: Vault
) -> None:
    agent = alice.create_agent({"name": "scout"}).id
    oak, elm = (alice.create_block(label=label, value=label).id for label in ("oak", "elm"))
    for block in (oak, elm):
        alice.attach(agent, block)
    for _ in range(2):
        assert alice.agent_block(agent, "oak").id == oak
        alice.edit_agent_block(agent, "oak", lambda _: {"value": "v"}, as_agent=False)
    for one, other in ((oak, elm), (elm, oak)):
        elsewhere.edit_block(one, lambda _: {"label": "yew"})
        elsewhere.edit_block(other, lambda _: {"label": "oak"})
        made = alice.edit_agent_block(
            agent, "oak", lambda before: {"value": before.value + "!"}, as_agent=False
        )
        assert made.id == other == alice.agent_block(agent, "oak").id
        elsewhere.edit_block(one, lambda _: {"label": "elm"})
    elsewhere.edit_block(oak, lambda _: {"label": "ash"})
    with pytest.raises(NotFound, match="'oak'"):
        alice.edit_agent_block(agent, "oak", lambda _: {"value": "w"}, as_agent=False)


# -- agents --------------------------------------------------------------------------------------------------------


def known(workspace: Workspace, caller: Caller, agent: str) -> tuple[Held, Keys] | None:
    """What is kept of an agent's keys for this caller."""
    with workspace.store.snapshot() as snapshot:
        row = snapshot.get(SHELF, (WS, caller.keys.shelf(AGENTS), caller.keys.locator(agent)))
        return None if row is None else known_agents.find(caller, Plan(snapshot), row)


def test_an_agents_keys_are_kept_for_its_sponsor_as_far_as_its_token_reaches(
    workspace: Workspace, alice: Vault, bob: Vault
) -> None:
    block, agent = alice.create_block(label="oak", value="v").id, alice.create_agent({"name": "scout"}).id
    alice.attach(agent, block)
    reading = workspace.vault(alice.create_token(scope="read"))
    cells = []
    for vault in (alice, reading):
        assert vault.agent_block(agent, "oak").value == "v"
        found = known(workspace, vault._caller, agent)
        assert found is not None and found[1].can_act == (vault is alice)
        cells += [one for one in workspace.recall._kept.values() if isinstance(one, bytes)]
    own = parse_token(alice.agent_token(agent))
    with workspace.store.snapshot() as snapshot:
        row = next(one for one in snapshot.rows(SHELF) if one[1] == alice._caller.keys.shelf(AGENTS))
        token_row = Plan(snapshot).get(TOKEN, own.kid)
        plan = Plan(snapshot)
        keys = agent_keys(alice._caller, find_agent(alice._caller, plan, agent), plan)
        assert known_agents.find(bob._caller, plan, row) is None
    assert token_row is not None
    root = open_root(
        own, bytes(token_row[7]), agent, "full", token_row[4], token_row[5], workspace.shreds.get
    )
    assert (root.read, root.act) == (keys.root.read, keys.root.act)
    for cell in cells:
        assert not any(secret in cell for secret in (root.read, root.act or b"-", keys.sign, keys.recall))


def deleted(workspace: Workspace, alice: Vault, agent: str) -> None:
    alice.delete_agent(agent)


def shredded(workspace: Workspace, alice: Vault, agent: str) -> None:
    """As another process may do it, which tells nobody."""
    nest = alice.acting_as(agent)._caller.keys.root.nest
    assert nest is not None
    workspace.shreds.destroy([nest.slot])


def edited(workspace: Workspace, alice: Vault, agent: str) -> None:
    keys = alice._caller.keys
    with closing(sqlite3.connect(workspace.folder / "tallystone.db")) as raw, raw:
        raw.execute(
            "UPDATE shelf SET one = zeroblob(length(one)) WHERE shelf = ? AND locator = ?",
            (keys.shelf(AGENTS), keys.locator(agent)),
        )


def renewed(workspace: Workspace, alice: Vault, agent: str) -> None:
    """The sponsor's root, and the agent's with it: what was kept before opens with neither."""
    alice.rotate_principal()


@pytest.mark.parametrize("end", [deleted, shredded, edited, renewed], ids=lambda end: end.__name__)
def test_the_keys_of_an_agent_that_has_ended_are_not_taken_from_memory(
    workspace: Workspace, alice: Vault, end: Callable[[Workspace, Vault, str], None]
) -> None:
    block, agent = alice.create_block(label="oak", value="v").id, alice.create_agent({"name": "scout"}).id
    alice.attach(agent, block)
    before = alice._caller.keys
    for _ in range(2):
        assert alice.agent_block(agent, "oak").value == "v"
    assert known(workspace, alice._caller, agent) is not None
    old = alice.acting_as(agent)._caller.keys.root
    end(workspace, alice, agent)
    found = known(workspace, alice._caller, agent)
    assert found is None or found[1].root.act != old.act
    if end is renewed:
        assert alice.agent_block(agent, "oak").value == "v"
        assert alice._caller.keys is not before
        return
    for asked in (
        lambda: alice.agent_block(agent, "oak"),
        lambda: alice.edit_agent_block(agent, "oak", lambda _: {"value": "w"}, as_agent=False),
        lambda: alice.edit_agent_block(agent, "oak", lambda _: {"value": "w"}, as_agent=True),
    ):
        with pytest.raises(TallystoneError):
            asked()
