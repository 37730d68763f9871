"""Erasure: what went is in no file, opens with nobody's token, no backup and no server key, and the log says so."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from datetime import date, timedelta
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import raw_rows
from stores import POSTGRESQL

from tallystone import crypto
from tallystone.audit.checkpoint import open_checkpoint, origin_of
from tallystone.errors import Denied, Invalid, Locked, NotFound, StoreError, Tampered, Unauthenticated
from tallystone.statements import Erasure, Signed
from tallystone.store.tables import BLOCK, SHRED, TABLES, VERSION
from tallystone.vault import Vault, Workspace
from tallystone.vault.entering import open_block
from tallystone.vault.plan import WS, Plan
from tallystone.vault.shelves import BLOCKS, find
from tallystone.vault.shredkeys import FIRST_SLOTS, ShredKeys
from tallystone.vault.types import Backups, Credentials

DATABASE = "tallystone.db"
DAY = 86400


class Clock:
    """The workspace's clock, put forward by hand."""

    def __init__(self, workspace: Workspace) -> None:
        self.now = workspace.clock()
        workspace.clock = lambda: self.now

    @property
    def today(self) -> date:
        """The day it shows."""
        return date(1970, 1, 1) + timedelta(int(self.now // DAY))


@pytest.fixture
def clock(workspace: Workspace) -> Clock:
    """See `Clock`."""
    return Clock(workspace)


@pytest.fixture
def carol(alice: Vault) -> Credentials:
    """A third user."""
    return alice.add_user("carol")


def cells(folder: Path) -> dict[str, set[bytes]]:
    """Every cell of 16 bytes or more, by table."""
    connection = raw_rows.connect(folder / DATABASE)
    found = {
        table.name: {
            cell
            for row in connection.execute(f"SELECT * FROM {table.name}")
            for cell in row
            if isinstance(cell, bytes) and len(cell) >= 16
        }
        for table in TABLES
    }
    connection.close()
    return found


def files(folder: Path) -> dict[str, bytes]:
    """The database with its journals, byte for byte."""
    return {path.name: path.read_bytes() for path in folder.glob(DATABASE + "*")}


def left_in(folder: Path, wanted: set[bytes]) -> set[bytes]:
    """Which of these cells are anywhere in the files, wholly or in part: tables, indexes, free pages, journals. A cell
    may lie on several pages, so each is looked for in pieces. On PostgreSQL: in any row; docs/postgresql.md says what
    its pages keep."""
    if POSTGRESQL:
        return wanted & set().union(*cells(folder).values())
    contents = list(files(folder).values())
    return {
        cell
        for cell in wanted
        if any(cell[at : at + 24] in content for at in range(0, len(cell) - 15, 48) for content in contents)
    }


def slots(folder: Path) -> list[bytes]:
    """The shred keys that are on the disk, zeroed ones too."""
    pools = folder / "server-keys" / "shred"
    contents = [path.read_bytes() for path in sorted(pools.iterdir())] if pools.is_dir() else []
    return [content[at : at + 32] for content in contents for at in range(0, len(content), 32)]


def waiting(workspace: Workspace) -> int:
    """How many shred keys wait for their end."""
    with workspace.store.snapshot() as snapshot:
        return len(snapshot.scan(SHRED, (WS,)))


BIG = "A long secret, page after page. " * 400


def shared_block(
    workspace: Workspace, alice: Vault, bob: Credentials, carol: Credentials
) -> tuple[str, list[str]]:
    """A block with versions over several pages and epochs, held by Bob, an agent, a role's member; offered to Carol.
    Returns it and everybody's tokens."""
    made = workspace.vault(bob.token)
    block = alice.create_block(label="secret", value=BIG).id
    agent = alice.create_agent({"name": "helper"}, block_ids=[block])
    role = alice.create_role("crew")
    alice.add_members(role.id, [bob.principal])
    made = workspace.vault(bob.token)
    made.accept_offer(role.id)
    alice.share(block, role.id, "write")
    alice.share(block, bob.principal, "write")
    made.accept_offer(block)
    made.edit_block(block, lambda b: {"value": b.value + "More of it."})
    alice.share(block, carol.principal, "read")  # a capsule that nobody opens
    alice.detach(agent.id, block)
    alice.attach(agent.id, block)
    alice.edit_block(block, lambda _: {"value": BIG[::-1]})
    tokens = [bob.token, carol.token, alice.agent_token(agent.id), alice.create_token(scope="read")]
    return block, tokens


def test_an_erased_block_is_in_no_file_and_no_backup_with_all_tokens_and_todays_keys_opens_it(
    workspace: Workspace,
    alice: Vault,
    alice_credentials: Credentials,
    bob_credentials: Credentials,
    carol: Credentials,
    clock: Clock,
    tmp_path: Path,
) -> None:
    folder, backup = tmp_path / "data", tmp_path / "backup"
    kept = alice.create_block(label="kept", value="This one stays.").id
    before = cells(folder)
    block, tokens = shared_block(workspace, alice, bob_credentials, carol)
    tokens.append(alice_credentials.token)
    with workspace.store.snapshot() as snapshot:
        plan = Plan(snapshot)
        caller = workspace.caller(alice_credentials.token)
        opened = open_block(caller, plan, find(plan, caller.keys, BLOCKS, block) or pytest.fail("no block"))
        storage, shred = opened.row.storage, opened.row.shred
        of_block = {
            cell
            for table in ("block", "chain", "version", "epoch", "grant_wrap", "ledger")
            for row in snapshot.scan(next(t for t in TABLES if t.name == table), (WS, storage))
            for cell in row
            if isinstance(cell, bytes) and len(cell) >= 16
        }
    assert len(of_block) > 25
    raw_rows.copy(folder, backup)  # with the WAL, as a careless backup takes it
    recorded = {name: found - before[name] for name, found in cells(folder).items()}

    workspace.backups = Backups(days=30, key_days=0)
    receipt = alice.erase_block(block)

    assert left_in(folder, of_block) == set()
    assert left_in(backup, of_block) == of_block  # the search is no blank
    assert waiting(workspace) == 0
    assert shred is not None and workspace.shreds.get(shred) is None
    own_shelf = workspace.caller(alice_credentials.token).keys.shelf(BLOCKS)
    dead = {
        row[0]
        for row in raw_rows.connect(backup / DATABASE).execute(
            "SELECT one FROM shelf WHERE shelf = ?", (own_shelf,)
        )
    } & recorded["shelf"]
    assert dead and left_in(folder, dead) == set()
    # Whoever holds it otherwise finds nothing, and the next list takes the dead row away.
    assert receipt.holders == 1
    for token in tokens:
        vault = workspace.vault(token)
        with pytest.raises(NotFound):
            vault.block(block)
        assert block not in {one.id for one in vault.blocks()}
    workspace.store.scrub()
    of_shelves = recorded["shelf"] & left_of(backup, "shelf", block, workspace, tokens)
    assert of_shelves and left_in(folder, of_shelves) == set()
    assert alice.block(kept).value == "This one stays."
    assert workspace.verify().findings == []

    # The backup of the database, with today's server keys and everybody's token.
    shutil.rmtree(backup / "server-keys")
    shutil.copytree(folder / "server-keys", backup / "server-keys")
    assert receipt.horizon == clock.today
    with Workspace.open(backup) as restored:
        restored.clock = lambda: clock.now + DAY
        for token in tokens:
            vault = restored.vault(token)
            with pytest.raises(NotFound):
                vault.block(block)
            assert block not in {one.id for one in vault.blocks()}
        # With the wrap key in hand, every slot on the disk, and no code of ours in between.
        with restored.store.snapshot() as snapshot:
            wraps = snapshot.scan(next(t for t in TABLES if t.name == "grant_wrap"), (WS, storage))
            assert len(wraps) >= 4
            for wrap in wraps:
                inner = (
                    crypto.unwrap(crypto.derive(opened.held.key, "grant/wrap", block, wrap[3]), wrap[4])
                    if wrap[2] == 0
                    else b""
                )
                for key in slots(backup) if inner else ():
                    nest = crypto.derive(key, "shred/wrap", block, wrap[3])
                    with pytest.raises(Tampered):
                        crypto.unwrap(nest, inner)


def left_of(backup: Path, table: str, block: str, workspace: Workspace, tokens: list[str]) -> set[bytes]:
    """The shelf rows of a block, of everybody whose token is known."""
    found: set[bytes] = set()
    connection = raw_rows.connect(backup / DATABASE)
    for token in tokens:
        keys = workspace.caller(token).keys
        query = f"SELECT one FROM {table} WHERE shelf = ? AND locator = ?"
        found |= {row[0] for row in connection.execute(query, (keys.shelf(BLOCKS), keys.locator(block)))}
    connection.close()
    return found


def test_the_receipt_is_signed_is_in_the_log_and_is_given_again(
    workspace: Workspace, alice: Vault, bob: Vault, clock: Clock
) -> None:
    block = alice.create_block(label="secret", value="v").id
    alice.block(block)
    version = alice.edit_block(block, lambda _: {"value": "w"}).version
    receipt = alice.erase_block(block)
    signed = Signed.decode(receipt.statement)
    body = Erasure.decode(signed.body)
    assert (signed.type, body.what, body.blocks[0][0], body.blocks[0][2]) == (
        "erasure",
        block,
        block,
        version,
    )
    caller = alice._caller
    with workspace.store.snapshot() as snapshot:
        assert caller.identity(Plan(snapshot), caller.id).signed(signed, workspace.id)
    (event,) = [one for one in alice.events(50) if one.kind == "erase"]
    assert (event.seq, event.detail["statement"]) == (receipt.leaf, receipt.statement)
    note = open_checkpoint(receipt.checkpoint.encode(), origin_of(workspace.id), workspace.log_public)
    assert note.size > receipt.leaf
    # What was logged about the block alone is gone, and the log still verifies.
    assert receipt.events >= 3 and not [one for one in alice.events(50) if one.kind in ("update", "create")]
    assert workspace.verify().findings == []
    again = alice.erase_block(block)
    assert (again.statement, again.leaf) == (receipt.statement, receipt.leaf)
    for stranger in (bob, alice):
        with pytest.raises(NotFound):
            stranger.erase_block("block-00000000-0000-4000-8000-000000000000")
    with pytest.raises(NotFound):
        bob.erase_block(block)


@pytest.mark.parametrize(
    ("days", "key_days", "ahead"), [(None, 0, 0), (30, 0, 0), (30, 7, 7), (5, 7, 5), (None, 7, 7)]
)
def test_the_horizon_is_the_last_day_on_which_both_copies_could_exist(
    workspace: Workspace, alice: Vault, clock: Clock, days: int | None, key_days: int, ahead: int
) -> None:
    workspace.backups = Backups(days, key_days)
    receipt = alice.erase_block(alice.create_block(label="l", value="v").id)
    assert receipt.horizon == clock.today + timedelta(ahead)


def test_a_reader_a_read_only_token_and_a_lock_erase_nothing(
    workspace: Workspace, alice: Vault, bob_credentials: Credentials
) -> None:
    block = alice.create_block(label="l", value="v").id
    alice.share(block, bob_credentials.principal, "write")
    bob = workspace.vault(bob_credentials.token)
    bob.accept_offer(block)
    with pytest.raises(Denied):
        bob.erase_block(block)
    with pytest.raises(Denied):
        workspace.vault(alice.create_token(scope="read")).erase_block(block)
    alice.edit_block(block, lambda _: {"locked": True})
    with pytest.raises(Locked):
        alice.erase_block(block)
    assert bob.block(block).value == "v"


# -- interrupted ------------------------------------------------------------------------------------------------

CHILD = """
import os, sys
from tallystone.vault import Workspace
workspace = Workspace.open(sys.argv[1])
vault = workspace.vault(sys.stdin.readline().strip())
moment, block = sys.argv[2], sys.argv[3]
def die(*_): os.kill(os.getpid(), 9)
if moment == "before the commit":
    workspace.store.commit = die
elif moment == "before the keys":
    workspace.shreds.destroy = die
else:
    workspace.store.scrub = die
vault.erase_block(block)
"""


@pytest.mark.parametrize("moment", ["before the commit", "before the keys", "before the journal"])
def test_a_kill_leaves_nothing_half_erased_and_a_second_run_goes_on(tmp_path: Path, moment: str) -> None:
    folder = tmp_path / "data"
    workspace, credentials = Workspace.init(folder, "alice")
    with workspace:
        block = workspace.vault(credentials.token).create_block(label="l", value="v" * 5000).id
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", CHILD, str(folder), moment, block]
    child = subprocess.run(command, input=credentials.token + "\n", text=True, env=environment, check=False)
    assert child.returncode == -signal.SIGKILL
    with Workspace.open(folder) as opened:
        vault = opened.vault(credentials.token)
        assert opened.verify().findings == []
        if moment == "before the commit":
            assert vault.block(block).value == "v" * 5000
        else:
            with pytest.raises(NotFound):
                vault.block(block)
            assert waiting(opened) == 1  # what is still to be done is written down
            if moment == "before the keys":
                assert bytes(32) not in slots(folder)
        receipt = vault.erase_block(block)
        assert receipt.erased == block and waiting(opened) == 0
        # The only slot of its pool, which a killed process never gave back beyond the one that it used.
        assert bytes(32) in slots(folder) or slots(folder) == []
        assert opened.verify().findings == []


def test_the_next_purge_goes_on_as_well_and_waits_for_readers_of_the_past(
    workspace: Workspace, alice: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    block = alice.create_block(label="l", value="v").id
    monkeypatch.setattr("tallystone.store._scrub.WAIT", 1)
    with workspace.store.snapshot() as past:
        past.get(BLOCK, (WS, b""))  # a view begins with its first look
        alice.erase_block(block)
        assert waiting(workspace) == 1 and workspace.purge() == 0
    workspace.purge_if_due()
    assert waiting(workspace) == 0


def test_a_key_that_cannot_be_destroyed_is_said_and_not_forgotten(
    workspace: Workspace, alice: Vault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    block = alice.create_block(label="l", value="v").id

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr(os, "pwrite", full)
        with pytest.raises(StoreError) as failed:
            alice.erase_block(block)
    assert failed.value.code == "no_shred_key" and waiting(workspace) == 1
    with pytest.raises(NotFound):
        alice.block(block)
    assert bytes(32) not in slots(tmp_path / "data")
    assert alice.erase_block(block).erased == block
    assert bytes(32) in slots(tmp_path / "data") and waiting(workspace) == 0


# -- the keys ---------------------------------------------------------------------------------------------------


def test_no_slot_is_taken_twice_and_what_is_used_up_leaves_nothing(tmp_path: Path) -> None:
    keys = ShredKeys(tmp_path / "shred")
    seen: set[bytes] = set()
    for _ in range(3 * FIRST_SLOTS):
        slot = keys.take()
        assert slot not in seen and keys.get(slot) is not None
        seen.add(slot)
        keys.destroy([slot])
        assert keys.get(slot) is None
        keys.destroy([slot])  # again is no harm
    assert len({slot[:16] for slot in seen}) == 2
    keys.close()
    assert list((tmp_path / "shred").iterdir()) == []
    for wrong in (b"", b"short", bytes(18), next(iter(seen)) + b"x"):
        assert keys.get(wrong) is None
        keys.destroy([wrong])
    assert repr(keys) == "ShredKeys(shred)"


def _take(folder: str, answers: Any) -> None:
    keys = ShredKeys(Path(folder))
    answers.put([keys.take() for _ in range(20)])
    keys.close()


def test_two_processes_never_share_a_slot(tmp_path: Path) -> None:
    context = get_context("spawn")
    answers = context.Queue()
    both = [context.Process(target=_take, args=(str(tmp_path / "shred"), answers)) for _ in range(2)]
    for process in both:
        process.start()
    taken = [slot for _ in both for slot in answers.get(timeout=60)]
    for process in both:
        process.join()
    assert len(set(taken)) == 40
    ours = ShredKeys(tmp_path / "shred")
    assert len({ours.get(slot) for slot in taken}) == 40 and None not in map(ours.get, taken)


def test_a_shred_key_with_the_database_opens_nothing_and_the_database_without_it_neither(
    workspace: Workspace, alice: Vault, tmp_path: Path
) -> None:
    alice.create_block(label="l", value="v")
    with workspace.store.snapshot() as snapshot:
        wraps = list(snapshot.rows(next(t for t in TABLES if t.name == "grant_wrap")))
        versions = list(snapshot.rows(VERSION))
    for key in slots(tmp_path / "data"):
        for wrapped in [*(row[4] for row in wraps), *(row[4] for row in versions)]:
            with pytest.raises(Tampered):
                crypto.unwrap(key, wrapped)


def test_a_deleted_block_is_as_gone_as_an_erased_one(
    workspace: Workspace, alice: Vault, tmp_path: Path
) -> None:
    block = alice.create_block(label="l", value="v").id
    with workspace.store.snapshot() as snapshot:
        (row,) = snapshot.rows(BLOCK)
    alice.delete_block(block)
    assert workspace.shreds.get(row[7]) is None and waiting(workspace) == 1
    assert workspace.purge() == 1 and waiting(workspace) == 0 and workspace.purge() == 0
    assert workspace.verify().findings == []


# -- a user -----------------------------------------------------------------------------------------------------


def test_an_erased_user_is_gone_with_all_it_owned_and_others_go_on(
    workspace: Workspace, alice: Vault, bob_credentials: Credentials, clock: Clock, tmp_path: Path
) -> None:
    """Bob owns blocks, agents and a role; holds, and has placed with two agents, a block of Alice's; is in her role."""
    folder, me = tmp_path / "data", bob_credentials.principal
    before = cells(folder)
    team = alice.create_block(label="team", value="Alice's.").id
    alice.share(team, me, "write")
    crew = alice.create_role("crew")
    alice.add_members(crew.id, [me])
    bob = workspace.vault(bob_credentials.token)
    bob.accept_offer(team)
    bob.accept_offer(crew.id)
    mine = bob.create_block(label="mine", value=BIG).id
    agents = [bob.create_agent({"name": "helper"}, block_ids=[mine, team]) for _ in range(2)]
    bob.edit_block(team, lambda b: {"value": b.value + " And Bob's."})
    bob.add_passage(agents[0].id, {"id": "passage-1", "text": BIG, "tags": []})
    own = bob.create_role("bobs")
    bob.add_members(own.id, [agents[0].id])
    bob.share(mine, alice.principal_id, "read")
    alice.accept_offer(mine)
    agent_token = bob.agent_token(agents[0].id)
    recorded = cells(folder)
    owned = set().union(*(recorded[name] - before[name] for name in ("version", "entry")))
    with workspace.store.snapshot() as snapshot:
        of_team = {row[5] for row in snapshot.rows(VERSION) if row[1] == _storage(workspace, alice, team)}
    for refused in ("", alice.principal_id):
        with pytest.raises(Invalid) as wrong:
            bob.erase_me(refused)
        assert wrong.value.code == "not_confirmed"
    workspace.backups = Backups(days=30)

    receipt = bob.erase_me(me)

    assert (receipt.erased, receipt.blocks, receipt.horizon) == (me, 1, clock.today)
    assert left_in(folder, {cell for cell in owned if len(cell) > 4000}) == set()
    for token in (bob_credentials.token, agent_token):
        with pytest.raises(Unauthenticated):
            workspace.vault(token)
    with pytest.raises(Unauthenticated):
        workspace.recover(bob_credentials.kit)
    assert me not in {user.id for user in alice.users()}
    with pytest.raises(NotFound):
        alice.share(alice.create_block(label="new", value="").id, me)
    with pytest.raises(NotFound):
        alice.block(mine)
    assert {block.label for block in alice.blocks()} == {"team", "new"}
    # What Bob wrote in Alice's block stays, signed; her next write changes the keys and drops his grant.
    assert alice.block(team).value == "Alice's. And Bob's." and of_team
    alice.edit_block(team, lambda b: {"value": b.value + " Alone again."})
    assert alice.grants(team) == [] and alice.block(team).value.endswith("again.")
    assert workspace.verify().findings == [] and alice.inspect().findings == []
    alice.add_user("bob")  # the name is free


def _storage(workspace: Workspace, vault: Vault, block: str) -> bytes:
    with workspace.store.snapshot() as snapshot:
        held = find(Plan(snapshot), vault._caller.keys, BLOCKS, block)
    assert held is not None
    return held.storage


def test_agents_the_first_user_and_the_holder_of_a_lock_are_not_erased(
    workspace: Workspace, alice: Vault, bob: Vault
) -> None:
    with pytest.raises(Invalid) as refused:
        alice.erase_me(alice.principal_id)
    assert refused.value.code == "is_root"
    agent = bob.create_agent({"name": "a"})
    with pytest.raises(Denied):
        workspace.vault(bob.agent_token(agent.id)).erase_me(agent.id)
    with pytest.raises(Denied):
        workspace.vault(bob.create_token(scope="read")).erase_me(bob.principal_id)
    block = bob.create_block(label="l", value="v", locked=True).id
    with pytest.raises(Locked):
        bob.erase_me(bob.principal_id)
    assert bob.block(block).value == "v" and bob.agent(agent.id).name == "a"
