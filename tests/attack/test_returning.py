"""Who lost a block comes back with its old token, every key it ever had, and the database of after the next write.

What it may open is what it could have kept: nothing that was written since (design §2, the attacker of a revoke). Each
test ends with the same question, asked of somebody who still has access: so the probes are known to find something.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from stores import thinned

from attack.hoard import Thief
from attack.lying import caller_of, held_by
from tallystone.errors import NotFound, Unauthenticated
from tallystone.vault import Vault, Workspace
from tallystone.vault.types import Credentials

pytestmark = thinned(2, "they forge what is judged above the store, which gives them the rows")

Vaults = Callable[[str], Vault]
CONTENT = {("version", "content"), ("version", "content key"), ("grant_wrap", "wrap"), ("epoch", "chain")}


@pytest.fixture
def vault(
    workspace: Workspace, alice: Vault, alice_credentials: Credentials, bob_credentials: Credentials
) -> Vaults:
    """Anybody's next request."""
    tokens = {"alice": alice_credentials.token, "bob": bob_credentials.token}
    for name in ("carol", "dave"):
        tokens[name] = alice.add_user(name).token
    return lambda name: workspace.vault(tokens[name])


@pytest.fixture
def thief(tmp_path: Path, workspace: Workspace) -> Callable[[str], Thief]:
    """A thief who knows of some blocks."""
    return lambda *blocks: Thief(tmp_path / "data", workspace, list(blocks))


def give(vault: Vaults, owner: str, block: str, to: str, can: str, **terms: Any) -> None:
    """Share a block and accept it."""
    vault(owner).share(block, to, can, **terms)
    vault(to).accept_offer(block)


def team(vault: Vaults, *members: str) -> str:
    """A role of Alice's with these members."""
    role = vault("alice").create_role("team").id
    vault("alice").add_members(role, members)
    for name in members:
        vault(name).accept_offer(role)
    return role


def write(vault: Vault, block: str, value: str) -> None:
    vault.edit_block(block, lambda _: {"value": value})


def misses(vault: Vault, block: str) -> None:
    """By id and in the list it is as if it had never been."""
    for attempt in (
        lambda: vault.block(block),
        lambda: vault.edit_block(block, lambda _: {"value": "x"}),
        lambda: vault.grants(block),
        lambda: vault.reach(block),
    ):
        with pytest.raises(NotFound):
            attempt()
    assert block not in [one.id for one in vault.blocks()]


def comes_back_for_nothing(thief: Thief, insider: Vault, but: Iterable[tuple[str, str]] = ()) -> None:
    """Nothing that was written since opens to the thief; to somebody who has access it does."""
    assert thief.opens() == set(but)
    trusted = Thief(thief.folder, thief.workspace, thief.blocks).keeps(insider)
    assert thief.opens(trusted.keys) >= CONTENT


# -- a direct grant ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("can", ["read", "write"])
def test_a_revoked_reader(vault: Vaults, thief: Callable[..., Thief], can: str) -> None:
    block = vault("alice").create_block(label="l", value="before").id
    give(vault, "alice", block, "bob", can)
    give(vault, "alice", block, "carol", "write")
    mallory = thief(block).keeps(vault("bob"))
    vault("alice").revoke(block, "bob")
    assert mallory.opens() == set()  # not even before the next write
    write(vault("carol"), block, "after")
    vault("alice").share(block, "dave", "read")
    misses(vault("bob"), block)
    comes_back_for_nothing(mallory, vault("carol"))


def test_a_revoked_writer_that_had_changed_everybodys_keys_itself(
    workspace: Workspace, vault: Vaults, thief: Callable[..., Thief]
) -> None:
    """Bob made the keys of the epoch and of every grant, the owner's included, when a rotation was due."""
    block, agent = due(vault, "bob")
    write(vault("bob"), block, "by bob, who changes the keys first")
    mallory = thief(block).keeps(vault("bob"))
    mallory.keys |= {key_of(workspace, vault(name), block) for name in ("alice", "carol")}
    mallory.keys.add(key_of(workspace, vault("alice").acting_as(agent), block))
    vault("alice").revoke(block, "bob")
    write(vault("carol"), block, "after")
    assert vault("alice").acting_as(agent).block(block).value == "after"
    misses(vault("bob"), block)
    comes_back_for_nothing(mallory, vault("carol"))


def test_a_revoked_writer_that_had_changed_everybodys_keys_when_the_next_to_do_so_is_another_writer(
    workspace: Workspace, vault: Vaults, thief: Callable[..., Thief]
) -> None:
    """Nobody with the admin key came by in between: Carol changes the keys, her own too."""
    today = datetime.now(UTC).date()
    block, _ = due(vault, "bob", until=today)
    write(vault("bob"), block, "by bob, who changes the keys first")
    mallory = thief(block).keeps(vault("bob"))
    mallory.keys |= {key_of(workspace, vault(name), block) for name in ("alice", "carol")}
    now = workspace.clock()
    workspace.clock = lambda: now + 86400
    workspace.purge()
    write(vault("carol"), block, "after")
    misses(vault("bob"), block)
    assert vault("alice").block(block).value == "after"
    comes_back_for_nothing(mallory, vault("carol"))


def due(vault: Vaults, who: str, **terms: object) -> tuple[str, str]:
    """A block of Alice's that Bob and Carol may write and whose keys must change: who of them wrote it then took a
    placement back. Returns the block, and an agent of Alice's that holds it."""
    block = vault("alice").create_block(label="l", value="before").id
    hers = vault("alice").create_agent({"name": "a"}, block_ids=[block]).id
    give(vault, "alice", block, "bob", "write", **terms)
    give(vault, "alice", block, "carol", "write")
    agent = vault(who).create_agent({"name": "b"}, block_ids=[block]).id
    vault(who).detach(agent, block)
    return block, hers


def key_of(workspace: Workspace, vault: Vault, block: str) -> bytes:
    """The K_grant on somebody's shelf, after their next look."""
    vault.block(block)
    return held_by(workspace, caller_of(vault).keys, block).key


# -- through a role ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("can", ["read", "write", "write+share"])
def test_a_removed_member_of_a_role(vault: Vaults, thief: Callable[..., Thief], can: str) -> None:
    role = team(vault, "bob", "carol")
    block = vault("dave").create_block(label="l", value="before").id
    vault("dave").share(block, role, can)
    vault("alice").accept_offer(block)
    assert vault("bob").block(block).rights == can
    mallory = thief(block).keeps(vault("bob"))
    vault("alice").remove_member(role, "bob")
    misses(vault("bob"), block)
    write(vault("dave"), block, "after")
    assert vault("carol").block(block).value == "after"
    vault("alice").add_members(role, [])
    second = vault("dave").create_block(label="m", value="new").id
    mallory.blocks.append(second)
    vault("dave").share(second, role, "read")
    vault("alice").accept_offer(second)
    misses(vault("bob"), second)
    comes_back_for_nothing(mallory, vault("carol"))


def test_a_removed_member_when_another_member_writes_first(
    vault: Vaults, thief: Callable[..., Thief]
) -> None:
    role = team(vault, "bob", "carol")
    block = vault("alice").create_block(label="l", value="before").id
    give(vault, "alice", block, "dave", "read")
    vault("alice").share(block, role, "write")
    write(vault("bob"), block, "bob was here")
    mallory = thief(block).keeps(vault("bob"))
    vault("alice").remove_member(role, "bob")
    write(vault("carol"), block, "after")
    misses(vault("bob"), block)
    for name in ("alice", "dave"):
        assert vault(name).block(block).value == "after"
    comes_back_for_nothing(mallory, vault("carol"))


def test_a_removed_member_that_had_changed_everybodys_keys_through_the_role(
    workspace: Workspace, vault: Vaults, thief: Callable[..., Thief]
) -> None:
    role = team(vault, "bob", "carol", "dave")
    block = vault("alice").create_block(label="l", value="before").id
    vault("alice").share(block, role, "write")
    vault("alice").remove_member(role, "dave")
    write(vault("bob"), block, "bob changes the keys through the role")
    mallory = thief(block).keeps(vault("bob"))
    mallory.keys.add(key_of(workspace, vault("alice"), block))
    vault("alice").remove_member(role, "bob")
    write(vault("carol"), block, "after")
    misses(vault("bob"), block)
    comes_back_for_nothing(mallory, vault("carol"))


@pytest.mark.parametrize("removed_from", ["inner", "middle"])
def test_a_removed_member_of_a_nested_role(
    vault: Vaults, thief: Callable[..., Thief], removed_from: str
) -> None:
    alice = vault("alice")
    inner, middle, outer = (alice.create_role(name).id for name in ("inner", "middle", "outer"))
    alice.add_members(outer, [middle, "carol"])
    alice.add_members(middle, [inner])
    alice.add_members(inner, ["bob"])
    vault("bob").accept_offer(inner)
    vault("carol").accept_offer(outer)
    block = alice.create_block(label="l", value="before").id
    alice.share(block, outer, "write")
    write(vault("bob"), block, "bob was here")
    mallory = thief(block).keeps(vault("bob"))
    if removed_from == "inner":
        alice.remove_member(inner, "bob")
    else:
        alice.remove_member(middle, inner)
    misses(vault("bob"), block)
    write(vault("carol"), block, "after")
    comes_back_for_nothing(mallory, vault("carol"))


def test_a_member_of_a_deleted_role(vault: Vaults, thief: Callable[..., Thief]) -> None:
    role = team(vault, "bob")
    block = vault("alice").create_block(label="l", value="before").id
    give(vault, "alice", block, "carol", "write")
    vault("alice").share(block, role, "write")
    assert vault("bob").block(block).value == "before"
    mallory = thief(block).keeps(vault("bob"))
    vault("alice").delete_role(role)
    misses(vault("bob"), block)
    write(vault("carol"), block, "after")
    comes_back_for_nothing(mallory, vault("carol"))


# -- sharers, owners, days --------------------------------------------------------------------------------------


def test_a_revoked_sharer_with_the_old_admin_key(vault: Vaults, thief: Callable[..., Thief]) -> None:
    """It knew every K_grant there was, the retired ones and the owner's own included."""
    block = vault("alice").create_block(label="l", value="before").id
    give(vault, "alice", block, "bob", "write+share", depth=1)
    give(vault, "alice", block, "carol", "write")
    give(vault, "bob", block, "dave", "read")
    mallory = thief(block).keeps(vault("bob"), vault("dave"))
    vault("alice").revoke(block, "bob")
    for name in ("bob", "dave"):
        misses(vault(name), block)
    write(vault("carol"), block, "after")
    comes_back_for_nothing(mallory, vault("carol"))


def test_a_sharer_that_another_sharer_revokes(vault: Vaults, thief: Callable[..., Thief]) -> None:
    block = vault("alice").create_block(label="l", value="before").id
    give(vault, "alice", block, "bob", "write+share", depth=1)
    give(vault, "bob", block, "carol", "write+share")
    give(vault, "alice", block, "dave", "write")
    mallory = thief(block).keeps(vault("carol"))
    vault("bob").revoke(block, "carol")
    misses(vault("carol"), block)
    write(vault("dave"), block, "after")
    assert vault("alice").block(block).value == "after"
    write(vault("alice"), block, "by the owner, with the admin key that Bob made")
    vault("alice").revoke(block, "dave")
    assert vault("bob").block(block).rights == "write+share"
    # A sharer's revocation is two statements: the one that ends the grant is still under the keys before it.
    comes_back_for_nothing(mallory, vault("bob"), but=[("chain", "statement")])


@pytest.mark.parametrize("through", ["grant", "role"])
def test_an_expired_reader_after_the_purge_and_the_next_write(
    workspace: Workspace, vault: Vaults, thief: Callable[..., Thief], through: str
) -> None:
    today = datetime.now(UTC).date()
    block = vault("alice").create_block(label="l", value="before").id
    give(vault, "alice", block, "carol", "write")
    if through == "grant":
        give(vault, "alice", block, "bob", "read", until=today + timedelta(1))
    else:
        role = vault("alice").create_role("team").id
        vault("alice").add_members(role, ["bob"], until=today + timedelta(1))
        vault("bob").accept_offer(role)
        vault("alice").share(block, role, "read")
    assert vault("bob").block(block).value == "before"
    mallory = thief(block).keeps(vault("bob"))
    now = workspace.clock()
    workspace.clock = lambda: now + 2 * 86400
    misses(vault("bob"), block)
    workspace.purge()
    if through == "role":
        vault("alice").add_members(role, ["dave"])  # the owner comes by, and renews the root
    write(vault("carol"), block, "after")
    comes_back_for_nothing(mallory, vault("carol"))


def test_the_former_owner_after_a_transfer(vault: Vaults, thief: Callable[..., Thief]) -> None:
    block = vault("alice").create_block(label="l", value="before").id
    give(vault, "alice", block, "bob", "write+share")
    give(vault, "alice", block, "dave", "write")
    vault("alice").transfer(block, "carol")
    mallory = thief(block).keeps(vault("alice"))
    vault("carol").accept_transfer(block)
    misses(vault("alice"), block)
    write(vault("dave"), block, "after")
    assert vault("carol").block(block).rights == "owner"
    comes_back_for_nothing(mallory, vault("dave"))
    misses(vault("alice"), block)


def test_a_suspended_user_and_its_agents(vault: Vaults, workspace: Workspace) -> None:
    """No keys change: whoever is suspended comes back. Until then no route lets it, or its agents, in."""
    block = vault("alice").create_block(label="l", value="before").id
    give(vault, "alice", block, "bob", "write")
    bob = vault("bob")
    agent = bob.create_agent({"name": "b"}, block_ids=[block]).id
    token = bob.agent_token(agent)
    itself, acting = workspace.vault(token), bob.acting_as(agent)
    vault("alice").suspend("bob")
    for one in (bob, itself, acting):
        with pytest.raises(Unauthenticated):
            one.block(block)
        with pytest.raises(Unauthenticated):
            write(one, block, "x")
    for text in (token,):
        with pytest.raises(Unauthenticated):
            workspace.vault(text)
    vault("alice").resume("bob")
    assert workspace.vault(token).block(block).value == "before"
