"""Backups: what they hold, and what tells one that was put back from a rollback."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from dataclasses import replace as changed
from pathlib import Path

import c2sp_verifier
import pytest
from c2sp_verifier import Key
from scripted_witness import Witness, serving
from stores import sqlite_only

from tallystone import crypto
from tallystone.audit.cosignature import WITNESS, VerifierKey
from tallystone.audit.published import checkpoint_of
from tallystone.audit.receipt import verify_receipt
from tallystone.audit.report import Report
from tallystone.audit.restored import RESTORE, Lost, Restore
from tallystone.errors import Denied, Invalid, NotFound, StoreError, Tampered, Unauthenticated
from tallystone.server.witnessing import Asker
from tallystone.server.witnessing import Witness as Configured
from tallystone.statements import Signed, issue
from tallystone.store.copying import Seizure, copy_database
from tallystone.store.opening import DATABASE
from tallystone.store.protocol import Batch, Event
from tallystone.vault import Workspace
from tallystone.vault.backups import back_up, restore
from tallystone.vault.plan import Plan
from tallystone.vault.types import Credentials
from tallystone.vault.workspace import KEY_FOLDER

pytestmark = sqlite_only(
    "a restore puts a file in place; the backup of a PostgreSQL store: test_postgresql.py"
)

TESTS = Path(__file__).parent


class Kept:
    """A workspace with a block, a backup of it, and what was written after that backup."""

    def __init__(self, tmp_path: Path) -> None:
        self.folder, self.file = tmp_path / "data", tmp_path / "kept.tally"
        workspace, self.root = Workspace.init(self.folder, "alice")
        with workspace:
            vault = workspace.vault(self.root.token)
            self.other = vault.add_user("ada")
            self.block = vault.create_block(label="notes", value="before").id
            self.before = self.pin(workspace)
        self.backup = back_up(self.folder, self.file)
        with self.open() as workspace:
            vault = workspace.vault(self.root.token)
            vault.edit_block(self.block, lambda block: {"value": "after"})
            self.midway = self.pin(workspace)
            vault.edit_block(self.block, lambda block: {"value": "after all"})
            self.after = self.pin(workspace)

    def open(self) -> Workspace:
        return Workspace.open(self.folder)

    def restore(self, **options: object) -> object:
        return restore(self.file, self.folder, self.root.token, replace=True, **options)  # type: ignore[arg-type]  # the options of `restore`

    @staticmethod
    def pin(workspace: Workspace) -> bytes:
        report = workspace.verify()
        assert report.ok
        return report.checkpoint

    def value(self) -> str:
        with self.open() as workspace:
            return workspace.vault(self.root.token).block(self.block).value

    def roll_back(self, pinned: bytes) -> list[str]:
        with self.open() as workspace:
            return [finding.what for finding in workspace.verify(pin=pinned).findings]


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    return Kept(tmp_path)


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if "staging" in path.name or "-wal" in path.name)


# -- making one -------------------------------------------------------------------------------------------------


def test_a_backup_during_writes_has_all_that_was_acknowledged_before_it_and_verifies(tmp_path: Path) -> None:
    folder, target = tmp_path / "data", tmp_path / "kept.tally"
    workspace, root = Workspace.init(folder, "alice")
    stop, ready = threading.Event(), threading.Semaphore(0)
    written: list[list[str]] = [[], []]

    def write(number: int) -> None:
        vault = workspace.vault(root.token)
        block = vault.create_block(label=f"log {number}").id
        while not stop.is_set():
            line = f"{number}.{len(written[number])}"
            vault.edit_block(block, lambda seen, line=line: {"value": seen.value + line + "\n"})
            written[number].append(line)
            ready.release()

    with workspace:
        threads = [threading.Thread(target=write, args=(number,)) for number in range(2)]
        for thread in threads:
            thread.start()
        for _ in range(20):
            ready.acquire()
        acknowledged = [list(lines) for lines in written]
        made = back_up(folder, target)
        stop.set()
        for thread in threads:
            thread.join()
    elsewhere = tmp_path / "elsewhere"
    done = restore(target, elsewhere, root.token, server_keys=folder / KEY_FOLDER)
    assert done.seq == made.leaves
    with Workspace.open(elsewhere) as copy:
        assert copy.verify().findings == []
        values = [block.value.splitlines() for block in copy.vault(root.token).blocks()]
        for lines in acknowledged:
            assert any(value[: len(lines)] == lines for value in values)
    assert leftovers(tmp_path) == leftovers(elsewhere) == []


def test_a_backup_opens_nothing_without_the_token_and_holds_no_server_key(kept: Kept) -> None:
    raw = kept.file.read_bytes()
    assert (kept.folder / KEY_FOLDER / "log.key").read_bytes() not in raw
    assert b"before" not in raw
    assert kept.file.stat().st_mode & 0o777 == 0o600


def test_a_backup_writes_over_no_file(kept: Kept) -> None:
    was = kept.file.read_bytes()
    with pytest.raises(StoreError) as refused:
        back_up(kept.folder, kept.file)
    assert refused.value.code == "file_exists"
    assert kept.file.read_bytes() == was


def test_a_backup_of_a_store_that_somebody_edited_is_refused_and_leaves_no_file(
    kept: Kept, tmp_path: Path
) -> None:
    with sqlite3.connect(kept.folder / DATABASE) as edited:
        edited.execute("UPDATE token SET scope = 'read'")
    edited.close()
    target = tmp_path / "second.tally"
    with pytest.raises(StoreError, match="token") as refused:
        back_up(kept.folder, target)
    assert refused.value.code == "bad_backup"
    assert not target.exists() and leftovers(tmp_path) == []
    back_up(kept.folder, target, check=False)
    assert target.exists()


FULL_DISK = """
import resource, sys
from pathlib import Path
from tallystone.errors import StoreError
from tallystone.vault.backups import back_up, restore

data, target, elsewhere, token = (*map(Path, sys.argv[1:4]), sys.argv[4])
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, hard))
for action in (lambda: back_up(data, target), lambda: restore(elsewhere, data, token, replace=True)):
    try:
        action()
    except StoreError as error:
        print(error.code, bool(error.hint))
"""


def test_a_full_disk_leaves_no_half_backup_and_the_old_store_as_it_was(kept: Kept, tmp_path: Path) -> None:
    target = tmp_path / "second.tally"
    arguments = [kept.folder, target, kept.file, kept.root.token]
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(TESTS.parent)},
    )
    assert set(done.stdout.split()) <= {"io", "store_full", "store", "True"}, done.stdout
    assert done.stdout.count("True") == 2
    assert not target.exists()
    assert leftovers(tmp_path) == leftovers(kept.folder) == []
    assert kept.value() == "after all"


# -- the ceremony -----------------------------------------------------------------------------------------------


def test_a_restored_backup_reads_as_then_and_goes_on_and_keeps_the_old_store_beside(kept: Kept) -> None:
    done = restore(kept.file, kept.folder, kept.root.token, replace=True)
    assert kept.value() == "before"
    with kept.open() as workspace:
        vault = workspace.vault(kept.root.token)
        vault.edit_block(kept.block, lambda block: {"value": "anew"})
        assert workspace.verify(pin=kept.before).findings == []
        (event,) = [event for event in vault.events() if event.kind == RESTORE]
        assert (event.seq, event.actor) == (kept.backup.leaves, kept.root.principal)
        assert [event.seq for event in workspace.vault(kept.other.token).events()] == [event.seq]
    assert done.aside is not None
    shutil.copy(done.aside, kept.folder / DATABASE)
    assert kept.value() == "after all"


def test_without_the_ceremony_a_later_checkpoint_finds_the_rollback(kept: Kept) -> None:
    shutil.copy(kept.file, kept.folder / DATABASE)
    for pin in (kept.midway, kept.after):
        (found,) = kept.roll_back(pin)
        assert "rolled back" in found
    with kept.open() as workspace:
        for _ in range(9):
            workspace.vault(kept.root.token).create_block(label="more")
    (found,) = kept.roll_back(kept.after)
    assert "not what the pinned checkpoint covers" in found


def test_with_it_every_lost_checkpoint_is_accepted_and_the_lost_range_named(kept: Kept) -> None:
    done = restore(kept.file, kept.folder, kept.root.token, replace=True)
    with kept.open() as workspace:
        end = int(kept.after.splitlines()[1])
        assert done.lost == (Lost("", kept.backup.leaves, end),) and done.known
        for _ in range(2):  # now shorter than what was pinned, then longer
            for pin in (kept.midway, kept.after):
                report = workspace.verify(pin=pin)
                assert report.findings == []
                assert report.given_up["pin"][1] == done.lost[0]
            for _ in range(9):
                workspace.vault(kept.root.token).create_block(label="more")


def test_a_restore_excuses_no_rollback_of_what_came_after_it(kept: Kept) -> None:
    kept.restore()
    with kept.open() as workspace:
        kept.pin(workspace)
    held = (kept.folder / DATABASE).read_bytes()
    with kept.open() as workspace:
        workspace.vault(kept.root.token).edit_block(kept.block, lambda block: {"value": "anew"})
        pin = kept.pin(workspace)
        # as long as the lost leaves: told from them by the branch alone
        assert int(pin.splitlines()[1]) <= int(kept.after.splitlines()[1])
    (kept.folder / DATABASE).write_bytes(held)
    (found,) = kept.roll_back(pin)
    assert "rolled back" in found


def test_a_second_restore_gives_up_the_first_and_what_that_gave_up(kept: Kept) -> None:
    kept.restore()
    with kept.open() as workspace:
        workspace.vault(kept.root.token).edit_block(kept.block, lambda block: {"value": "anew"})
        pin = kept.pin(workspace)
    done = restore(kept.file, kept.folder, kept.root.token, replace=True)
    assert {lost.branch == "" for lost in done.lost} == {True, False}
    for known in (kept.before, kept.midway, kept.after, pin):
        assert kept.roll_back(known) == []


def test_a_store_in_use_blocks_a_restore_and_who_waits_for_it_writes_nothing_to_the_old_file(
    kept: Kept,
) -> None:
    with kept.open(), pytest.raises(StoreError, match="in use") as refused:
        kept.restore()
    assert refused.value.code == "busy"
    aside = kept.folder / "aside"
    copy_database(kept.file, kept.folder / "new")
    with Seizure(kept.folder / DATABASE) as place:
        late = sqlite3.connect(kept.folder / DATABASE, timeout=0, isolation_level=None)
        place.replace(kept.folder / "new", aside)
    with pytest.raises(sqlite3.OperationalError) as moved:
        late.execute("CREATE TABLE t (x)")
    late.close()
    assert moved.value.sqlite_errorname == "SQLITE_READONLY_DBMOVED"


def test_what_is_lost_can_be_named_by_a_checkpoint_when_the_old_disk_is_gone(
    kept: Kept, tmp_path: Path
) -> None:
    keys = tmp_path / "keys"
    shutil.copytree(kept.folder / KEY_FOLDER, keys)
    shutil.rmtree(kept.folder)
    with pytest.raises(StoreError) as refused:
        restore(kept.file, kept.folder, kept.root.token)
    assert refused.value.code == "no_log_key"
    with pytest.raises(Invalid, match="no checkpoint of this log"):
        restore(kept.file, kept.folder, kept.root.token, server_keys=keys, known=[b"a note\n"])
    assert leftovers(kept.folder) == [] and not (kept.folder / DATABASE).exists()
    done = restore(kept.file, kept.folder, kept.root.token, server_keys=keys, known=[kept.midway])
    assert not done.known and len(done.lost) == 1
    assert kept.roll_back(kept.midway) == []
    (found,) = kept.roll_back(kept.after)  # nobody named that one
    assert "rolled back" in found


def test_a_damaged_store_in_place_is_kept_aside_as_well(kept: Kept) -> None:
    with (kept.folder / DATABASE).open("r+b") as file:
        file.write(b"no database at all")
    done = restore(kept.file, kept.folder, kept.root.token, replace=True, known=[kept.after])
    assert not done.known and done.aside is not None
    assert done.aside.read_bytes().startswith(b"no database at all")
    assert kept.value() == "before" and kept.roll_back(kept.after) == []


# -- statements that do not count -------------------------------------------------------------------------------


def declared(kept: Kept, **fields: object) -> Restore:
    """What the root could say about the store that lies in place now."""
    with kept.open() as workspace:
        report = workspace.verify()
        end = int(kept.after.splitlines()[1])
        body = Restore(
            report.leaves, report.root, [["", report.leaves, end]], kept.root.principal, workspace.id, 0
        )
    return changed(body, **fields)  # type: ignore[arg-type]  # the statement's own fields


def put(kept: Kept, signed: Signed) -> list[str]:
    """The findings with the latest checkpoint, after whoever holds the log's key has logged this statement."""
    with kept.open() as workspace:
        workspace.store.commit(Batch([], [], [Event(RESTORE, signed.encode())]))
        return [finding.what for finding in workspace.verify(pin=kept.after).findings]


def by(kept: Kept, who: Credentials, body: Restore, kind: str = RESTORE, home: bytes | None = None) -> Signed:
    with kept.open() as workspace:
        caller = workspace.caller(who.token)
        with workspace.store.snapshot() as snapshot:
            seed = caller.signing_seed(Plan(snapshot))
        return issue(kind, home or workspace.id, body.encode(), [(body.issuer_record, seed)])


def test_no_statement_but_the_roots_own_for_this_very_place_counts(kept: Kept) -> None:
    shutil.copy(kept.file, kept.folder / DATABASE)
    before = (kept.folder / DATABASE).read_bytes()
    good = declared(kept)
    signed = by(kept, kept.root, good)
    assert (
        put(kept, signed) == []
    )  # what the ceremony would have logged: all that differs below is why it fails

    forged = issue(RESTORE, good.issuer_record, good.encode(), [(good.issuer_record, crypto.random_bytes())])
    lies = {
        "another user": by(kept, kept.other, good),
        "another user in the root's name": by(kept, kept.other, changed(good, issuer=kept.other.principal)),
        "a key that is nobody's": forged,
        "of another workspace": by(kept, kept.root, good, home=crypto.sha256(b"elsewhere")),
        "a statement of another type": by(kept, kept.root, good, kind="charter"),
        "of another place": by(kept, kept.root, changed(good, size=good.size - 1, lost=[])),
        "of another log": by(kept, kept.root, changed(good, root=crypto.sha256(b"fork"))),
        "that gives up what is there": by(kept, kept.root, changed(good, lost=[["", good.size + 1, 99]])),
    }
    for what, lie in lies.items():
        (kept.folder / DATABASE).write_bytes(before)
        found = put(kept, lie)
        assert any("restore statement" in one for one in found), what
        assert any("rolled back" in one for one in found), what


def test_a_replayed_statement_excuses_nothing(kept: Kept) -> None:
    shutil.copy(kept.file, kept.folder / DATABASE)
    signed = by(kept, kept.root, declared(kept))
    with kept.open() as workspace:
        workspace.vault(kept.root.token).create_block(label="more")
    assert any("another place" in found for found in put(kept, signed))


def test_only_the_root_restores_and_with_a_token_that_the_backup_knows(kept: Kept) -> None:
    with kept.open() as workspace:
        vault = workspace.vault(kept.root.token)
        newer, reading = vault.create_token(), vault.create_token(scope="read")
    for token, refusal in (
        (kept.other.token, Denied),
        (newer, Unauthenticated),
        (reading, Unauthenticated),
    ):
        with pytest.raises(refusal):
            restore(kept.file, kept.folder, token, replace=True)
    assert kept.value() == "after all" and leftovers(kept.folder) == []


# -- bad input --------------------------------------------------------------------------------------------------


def test_a_store_in_place_is_replaced_only_when_that_is_said(kept: Kept) -> None:
    with pytest.raises(StoreError) as refused:
        restore(kept.file, kept.folder, kept.root.token)
    assert refused.value.code == "occupied" and "--replace" in refused.value.hint
    assert kept.value() == "after all"


def test_a_damaged_or_foreign_backup_is_refused_and_nothing_changes(kept: Kept, tmp_path: Path) -> None:
    whole = kept.file.read_bytes()
    stranger, credentials = Workspace.init(tmp_path / "stranger")
    stranger.close()
    back_up(tmp_path / "stranger", tmp_path / "stranger.tally")
    foreign = (tmp_path / "stranger.tally").read_bytes()
    flipped = bytearray(whole)
    flipped[whole.index(b"tallystone/leaf/1") + 30] ^= 1
    for damaged in (
        b"",
        b"nothing like it" * 400,
        whole[: len(whole) // 2],
        whole[:-4096],
        bytes(flipped),
        foreign,
    ):
        kept.file.write_bytes(damaged)
        for token in (kept.root.token, credentials.token):
            with pytest.raises((StoreError, Tampered, Unauthenticated)) as refused:
                restore(kept.file, kept.folder, token, replace=True)
            assert "\n" not in refused.value.message and refused.value.hint
    assert kept.value() == "after all" and leftovers(kept.folder) == []
    with pytest.raises(StoreError):
        restore(tmp_path / "none.tally", kept.folder, kept.root.token, replace=True)


STEPS = {
    "os.rename",
    "os.link",
    "os.remove",
    "os.rmdir",
    "os.symlink",
    "os.mkdir",
    "sqlite3.connect",
    "tempfile.mkdtemp",
}


def killed_restore(kept: Kept, after: int) -> bool:
    """A restore in a process of its own that is killed at its step number `after`; whether it ended before that."""
    child = os.fork()
    if child == 0:
        steps = 0

        def hook(event: str, _: object) -> None:
            nonlocal steps
            if event not in STEPS:
                return
            steps += 1
            if steps == after:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        status = 1
        try:
            kept.restore()
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    assert not os.WIFEXITED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFEXITED(status)


def test_a_kill_at_any_step_of_a_restore_leaves_the_old_store_or_the_new_one_whole(kept: Kept) -> None:
    seen, step = [], 1
    while not killed_restore(kept, step):
        with kept.open() as workspace:
            assert workspace.verify(pin=kept.after).findings == []
            seen.append(workspace.vault(kept.root.token).block(kept.block).value)
            if seen[-1] == "before":  # go on from there as from any store
                workspace.vault(kept.root.token).edit_block(kept.block, lambda block: {"value": "after all"})
        step += 1
    assert set(seen) == {"after all", "before"} and seen[0] == "after all"
    assert kept.value() == "before" and leftovers(kept.folder) == []


def test_a_block_erased_or_deleted_after_the_backup_does_not_come_back_and_the_others_open(
    kept: Kept, tmp_path: Path
) -> None:
    with kept.open() as workspace:
        vault = workspace.vault(kept.root.token)
        erased, deleted, shown = (
            vault.create_block(label=label, value="a secret").id for label in ("one", "two", "three")
        )
    kept.file.unlink()
    back_up(kept.folder, kept.file)
    with kept.open() as workspace:
        vault = workspace.vault(kept.root.token)
        vault.erase_block(erased)
        vault.delete_block(deleted)
        workspace.purge()
    for where in ("in place", "elsewhere"):
        folder, keys = kept.folder, None
        if where == "elsewhere":
            folder, keys = tmp_path / where, kept.folder / KEY_FOLDER
        restore(kept.file, folder, kept.root.token, replace=True, server_keys=keys)
        with Workspace.open(folder) as workspace:
            vault = workspace.vault(kept.root.token)
            for gone in (erased, deleted):
                with pytest.raises(NotFound):
                    vault.block(gone)
            assert {block.id for block in vault.blocks()} == {kept.block, shown}
            assert vault.block(shown).value == "a secret"
            vault.edit_block(shown, lambda block: {"value": "anew"})
            assert vault.block(vault.create_block(label="new", value="new").id).value == "new"
            assert vault.inspect().findings == [] and workspace.verify().findings == []


def test_a_restored_log_is_read_by_what_opens_details(kept: Kept) -> None:
    kept.restore()
    with kept.open() as workspace:
        vault = workspace.vault(kept.root.token)
        vault.erase_block(kept.block)
        workspace.vault(kept.other.token).erase_me(kept.other.principal)
        report = workspace.verify(pin=kept.after)
        assert report.findings == [] and len(report.restores) == 1


def test_a_state_from_before_a_restore_becomes_a_pin_and_one_from_after_it_goes_on(kept: Kept) -> None:
    def state(since: bytes | None = None, pin: bytes | None = None) -> tuple[bytes, Report]:
        with kept.open() as workspace:
            report = workspace.verify(pin=pin, since=since, keep_state=True)
        assert report.findings == [] and report.state is not None
        return report.state.encode(), report

    lost, _ = state()
    held = (kept.folder / DATABASE).read_bytes()
    shutil.copy(kept.file, kept.folder / DATABASE)
    early, _ = state()
    with kept.open() as workspace:
        (rolled_back, *_) = workspace.verify(since=lost).findings
    assert rolled_back.what
    (kept.folder / DATABASE).write_bytes(held)
    done = restore(kept.file, kept.folder, kept.root.token, replace=True)
    for earlier in (lost, early):
        after, report = state(earlier)
        assert report.since == 0 and report.leaves > done.seq
        assert list(report.given_up) == (["state"] if earlier is lost else [])
    with kept.open() as workspace:
        workspace.vault(kept.root.token).edit_block(kept.block, lambda block: {"value": "anew"})
    _, report = state(after, kept.after)
    assert report.since == done.seq + 1 and [one.seq for one in report.restores] == [done.seq]
    assert report.given_up["pin"][1] == done.lost[0]


@pytest.mark.parametrize("in_place", [True, False])
def test_what_witnesses_cosigned_and_a_restore_gave_up_is_accepted_and_shown_no_more(
    kept: Kept, in_place: bool
) -> None:
    key = VerifierKey("witness.example", WITNESS, crypto.signing_public(bytes(32)))
    with kept.open() as workspace:
        workspace.log.cosigned.keep(key, kept.after)
    if in_place:
        held = (kept.folder / DATABASE).read_bytes()
        shutil.copy(kept.file, kept.folder / DATABASE)
        with kept.open() as workspace:
            assert "rolled back" in workspace.verify().findings[0].what
        (kept.folder / DATABASE).write_bytes(held)
    else:
        (kept.folder / DATABASE).unlink()
    kept.restore()
    with kept.open() as workspace:
        for _ in range(2):  # now shorter than what was cosigned, then longer
            report = workspace.verify()
            assert report.findings == [] and len(report.given_up) == 1
            with pytest.raises(NotFound):
                workspace.log.checkpoint(cosigned=True)
            receipt = workspace.log.receipt(kept.backup.leaves)
            assert verify_receipt(receipt, workspace.log.key).leaf.kind == RESTORE
            for _ in range(9):
                workspace.vault(kept.root.token).create_block(label="more")


def test_a_witness_refuses_the_restored_log_until_its_operator_lets_it_forget(kept: Kept) -> None:
    with serving(Witness()) as witness:
        asked = Configured(witness.url, witness.vkey)

        def told(workspace: Workspace) -> str:
            (info,) = workspace.log.witnesses()
            return info.problem

        with kept.open() as workspace:
            witness.log = Key.parse(workspace.log.key)
            assert Asker(workspace, asked, lambda: witness.now).ask()
            seen = workspace.log.checkpoint(cosigned=True)
        kept.restore()
        with kept.open() as workspace:
            asking = Asker(workspace, asked, lambda: witness.now)
            for grown in (False, True):  # shorter than what it has seen, then longer
                assert not asking.ask()
                assert "its operator has to let it forget" in told(workspace), grown
                for _ in range(9):
                    workspace.vault(kept.root.token).create_block(label="more")
            assert witness.head is not None
            witness.head = None  # what its operator does, who was shown the receipt of the restore
            assert asking.ask() and told(workspace) == ""
            note = workspace.log.checkpoint(cosigned=True)
            c2sp_verifier.open_note(note, witness.key)
            assert checkpoint_of(note).branch == workspace.verify().restores[0].branch
            folder = kept.folder / "cosigned"
            assert [path.read_bytes() for path in folder.glob("*.lost")] == [seen]  # evidence stays
            workspace.vault(kept.root.token).create_block(label="still")
            assert asking.ask()  # and it goes on from there
            assert workspace.verify().findings == []


def test_an_export_of_what_a_restore_gave_up_is_not_written_over(kept: Kept, tmp_path: Path) -> None:
    folder = tmp_path / "public"
    with kept.open() as workspace:
        workspace.log.export(folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    done = kept.restore()
    with kept.open() as workspace:
        for _ in range(2):  # shorter than the export, then longer
            with pytest.raises(
                Tampered, match=rf"lost when a backup was restored: leaf {done.seq} says"
            ) as it:
                workspace.log.export(folder)
            assert it.value.code == "lost_branch" and "new folder" in it.value.hint
            for _ in range(9):
                workspace.vault(kept.root.token).create_block(label="more")
        assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
        _, size = workspace.log.export(tmp_path / "anew")
        assert size == workspace.verify().leaves


def test_an_export_of_another_log_is_not_written_over(kept: Kept, tmp_path: Path) -> None:
    other, _ = Workspace.init(tmp_path / "other")
    with other, kept.open() as workspace:
        other.log.export(tmp_path / "public")
        before = (tmp_path / "public" / "checkpoint").read_bytes()
        with pytest.raises(Tampered, match=other.log.origin) as refused:
            workspace.log.export(tmp_path / "public")
        assert refused.value.code == "another_log" and "another folder" in refused.value.hint
        assert (tmp_path / "public" / "checkpoint").read_bytes() == before


def test_a_block_that_was_made_after_the_backup_is_gone_like_one_that_never_was(kept: Kept) -> None:
    with kept.open() as workspace:
        later = workspace.vault(kept.root.token).create_block(label="later").id
    kept.restore()
    with kept.open() as workspace, pytest.raises(NotFound):
        workspace.vault(kept.root.token).block(later)
