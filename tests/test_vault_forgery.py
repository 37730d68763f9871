"""Principals with a valid token and a writable store of their own: what the vault would refuse them, they write
themselves, with every key they hold. No reader believes it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from tallystone import crypto
from tallystone.errors import NotFound, Tampered
from tallystone.grant_tree import grant_proof
from tallystone.policy import Standing
from tallystone.statements import EMPTY, READ, Version
from tallystone.store.tables import BLOCK, GRANT_WRAP, VERSION
from tallystone.vault import Vault, Workspace
from tallystone.vault.block_row import BlockRow
from tallystone.vault.entering import open_block
from tallystone.vault.granting import Terms, grant_to
from tallystone.vault.opening import Opened
from tallystone.vault.passages import find_block
from tallystone.vault.plan import Plan
from tallystone.vault.records import (
    Content,
    seal_content,
    unwrap_content_key,
    unwrap_epoch,
    wrap_content_key,
    wrap_epoch,
)
from tallystone.vault.types import Block, Credentials
from tallystone.vault.writing import add_version


@pytest.fixture
def team(alice: Vault) -> Block:
    """A block of Alice's."""
    return alice.create_block(label="team", value="hello")


def by_force(vault: Vault, block_id: str, act: Callable[[Opened, Plan], None]) -> None:
    """Let `act` write what it likes into the store, past every check that the vault makes before it writes."""
    workspace = vault._caller.workspace
    with workspace.store.snapshot() as snapshot:
        plan = Plan(snapshot)
        opened = open_block(vault._caller, plan, find_block(vault._caller, plan, block_id))
        act(opened, plan)
    workspace.store.commit(plan.batch())


def forge(opened: Opened, plan: Plan, standing: Standing | None = None) -> None:
    """A version with every field as it should be, signed by the forger."""
    payload, _, digest = opened.payload()
    add_version(opened, {**payload, "value": "forged"}, digest, standing or opened.standing())


def grantee(workspace: Workspace, alice: Vault, credentials: Credentials, block: Block, can: str) -> Vault:
    alice.share(block.id, credentials.principal, can)
    vault = workspace.vault(credentials.token)
    vault.accept_offer(block.id)
    return vault


def test_the_force_is_real_a_writers_version_written_that_way_counts(
    workspace: Workspace, alice: Vault, bob_credentials: Credentials, team: Block
) -> None:
    bob = grantee(workspace, alice, bob_credentials, team, "write")
    by_force(bob, team.id, forge)
    assert alice.block(team.id).value == "forged"


def test_a_readers_version_counts_for_nobody(
    workspace: Workspace, alice: Vault, bob_credentials: Credentials, team: Block
) -> None:
    bob = grantee(workspace, alice, bob_credentials, team, "read")
    by_force(bob, team.id, forge)
    for vault in (alice, bob):
        with pytest.raises(Tampered):
            vault.block(team.id)


def test_a_reader_cannot_borrow_a_writers_grant_or_pose_as_the_owner(
    workspace: Workspace, alice: Vault, bob_credentials: Credentials, team: Block
) -> None:
    writer = alice.create_agent({"name": "w"}, block_ids=[team.id])
    bob = grantee(workspace, alice, bob_credentials, team, "read")

    def borrow(opened: Opened, plan: Plan) -> None:
        (leaf,) = [one for one in opened.grants() if one.recipient == writer.id]
        forge(opened, plan, Standing(bob.principal_id, leaf, tuple(grant_proof(opened.leaves(), leaf.grant))))

    by_force(bob, team.id, borrow)
    with pytest.raises(Tampered):
        alice.block(team.id)


def test_read_only_binds_an_agent_that_writes_past_its_tools(
    workspace: Workspace, alice: Vault, team: Block
) -> None:
    agent = alice.create_agent({"name": "a"}, block_ids=[team.id])
    alice.edit_block(team.id, lambda _: {"read_only": True})
    own = workspace.vault(alice.agent_token(agent.id))
    by_force(own, team.id, forge)
    with pytest.raises(Tampered):
        alice.block(team.id)


def test_a_revoked_writer_with_its_old_keys_slips_no_version_in_behind_the_revocation(
    workspace: Workspace, alice: Vault, bob_credentials: Credentials, team: Block
) -> None:
    bob = grantee(workspace, alice, bob_credentials, team, "write")
    kept: list[tuple[Opened, Standing, bytes]] = []
    by_force(bob, team.id, lambda opened, _: kept.append((opened, opened.standing(), opened.payload()[2])))
    before, standing, digest = kept[0]
    old_head, old_keys, payload = before.head, before.keys, before.content()[0].payload
    alice.edit_block(team.id, lambda _: {"value": "second"})
    alice.revoke(team.id, bob.principal_id)
    alice.edit_block(team.id, lambda _: {"value": "third"})
    with pytest.raises(NotFound):
        bob.block(team.id)

    for number in (2, 3, 4):  # in place of an old version, of the newest, and after it
        caller = bob._caller
        with workspace.store.snapshot() as snapshot:
            plan = Plan(snapshot)
            row = BlockRow.of(plan.get(BLOCK, before.row.storage) or ())
            body = Version(
                team.id, number, digest, old_head.number, old_head.digest, 0, crypto.sha256(payload),
                caller.id, caller.identity(plan, caller.id).digest, "", 1,
            )  # fmt: skip
            signed = caller.sign(plan, "version", body.encode())
            key = crypto.random_bytes()
            sealed = seal_content(
                key, team.id, number, Content(signed, payload, standing.leaf, standing.proof)
            )
            wrap = wrap_content_key(old_keys.dek, team.id, number, key)
            stored = plan.get(VERSION, row.storage, number)
            plan.put(VERSION, row.storage, number, 0, wrap, sealed)
            replace(row, version=number).write(plan)
        workspace.store.commit(plan.batch())
        with pytest.raises(Tampered):
            alice.block(team.id)
        with workspace.store.snapshot() as snapshot:  # as it was, for the next attempt
            plan = Plan(snapshot)
            if stored is None:
                plan.delete(VERSION, row.storage, number)
            else:
                plan.put(VERSION, *stored[1:])
            row.write(plan)
        workspace.store.commit(plan.batch())
        assert alice.block(team.id).value == "third"


def test_a_revoked_readers_old_keys_open_nothing_of_a_later_copy_of_the_database(
    workspace: Workspace, alice: Vault, bob_credentials: Credentials, team: Block
) -> None:
    bob = grantee(workspace, alice, bob_credentials, team, "read")
    kept: list[Opened] = []
    by_force(bob, team.id, lambda opened, _: kept.append(opened))
    before = kept[0]
    alice.revoke(team.id, bob.principal_id)
    alice.edit_block(team.id, lambda _: {"value": "after"})
    storage = before.row.storage
    with workspace.store.snapshot() as snapshot:
        rows = [row for row in snapshot.rows(GRANT_WRAP) if row[1] == storage]
        newest = max((row for row in snapshot.rows(VERSION) if row[1] == storage), key=lambda row: row[2])
    for row in rows:
        for epoch in (0, 1, row[3]):
            with pytest.raises(Tampered):
                unwrap_epoch(before.held.key, team.id, epoch, row[4])
    for key in (before.keys.dek, before.keys.history, before.keys.chain, before.held.key):
        assert key is not None
        with pytest.raises(Tampered):
            unwrap_content_key(key, team.id, newest[2], newest[4])


def test_a_revoked_reader_that_wraps_itself_back_in_with_old_keys_reads_nothing(
    workspace: Workspace, alice: Vault, bob_credentials: Credentials, team: Block
) -> None:
    bob = grantee(workspace, alice, bob_credentials, team, "write")
    kept: list[Opened] = []
    by_force(bob, team.id, lambda opened, _: kept.append(opened))
    before = kept[0]
    alice.revoke(team.id, bob.principal_id)
    with workspace.store.snapshot() as snapshot:
        plan = Plan(snapshot)
        for epoch in (0, 1):
            wrap = wrap_epoch(before.held.key, team.id, replace(before.keys, number=epoch), history=True)
            plan.put(GRANT_WRAP, before.row.storage, before.held.grant, epoch, wrap)
    workspace.store.commit(plan.batch())
    with pytest.raises(Tampered):
        bob.block(team.id)
    assert alice.block(team.id).value == "hello"


def test_a_grantee_cannot_place_a_block_with_somebody_elses_agent_or_with_a_user(
    workspace: Workspace, alice: Vault, bob_credentials: Credentials, team: Block
) -> None:
    carol = workspace.vault(alice.add_user("carol").token)
    stranger = carol.create_agent({"name": "c"}).id
    bob = grantee(workspace, alice, bob_credentials, team, "read")

    def place(who: str) -> Callable[[Opened, Plan], None]:
        return lambda opened, plan: grant_to(opened, bob._caller.identity(plan, who), Terms(READ)) and None

    for who in (carol.principal_id, stranger):
        with pytest.raises(Tampered):
            by_force(bob, team.id, place(who))
        assert alice.block(team.id).value == "hello"


def test_a_version_by_an_agent_names_no_user_who_did_not_sign(
    workspace: Workspace, alice: Vault, team: Block
) -> None:
    agent = alice.create_agent({"name": "a"}, block_ids=[team.id])
    own = workspace.vault(alice.agent_token(agent.id))

    def blame(opened: Opened, plan: Plan) -> None:
        content, version = opened.content()
        body = replace(
            version, number=2, previous=EMPTY, writer=own.principal_id, under=alice.principal_id,
            policy=opened.head.number, policy_digest=opened.head.digest,
            writer_record=own._caller.identity(plan, own.principal_id).digest,
        )  # fmt: skip
        signed = own._caller.sign(plan, "version", body.encode())
        key, standing = crypto.random_bytes(), opened.standing()
        sealed = seal_content(
            key, team.id, 2, Content(signed, content.payload, standing.leaf, standing.proof)
        )
        plan.put(VERSION, opened.row.storage, 2, opened.row.epoch,
                 wrap_content_key(opened.keys.dek, team.id, 2, key), sealed)  # fmt: skip
        replace(opened.row, version=2).write(plan)

    by_force(own, team.id, blame)
    with pytest.raises(Tampered):
        alice.block(team.id)
