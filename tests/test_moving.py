"""`tallystone copy`: what arrives, what a kill costs, and what is refused."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from copy_killed import Stopping
from store_rows import make_full_store
from store_rows import open_store as open_rows
from stores import POSTGRESQL, new_database, postgresql_only, ready_database, server, thinned
from test_first_release import RELEASE, SECRETS

import tallystone.vault.workspace
from tallystone.cli.app import FAILED, MISUSED, run
from tallystone.errors import StoreError
from tallystone.store import moving as passes
from tallystone.store import sqlite_moving
from tallystone.store._schema import UNFINISHED, migrations
from tallystone.store.opening import DATABASE, URL_FILE, locate, make_store, note, open_source, open_target
from tallystone.store.protocol import Snapshot
from tallystone.store.sqlite_moving import HALF
from tallystone.store.tables import TABLES, TOKEN, WORKSPACE, WS, Row
from tallystone.vault import Vault, Workspace
from tallystone.vault.moving import Place, move

pytestmark = thinned(2, "the other run moves what lies in SQLite in all these ways")

KINDS = ["sqlite", "postgresql"] if POSTGRESQL else ["sqlite"]
"""What a copy goes to; it comes from the kind of store that the tests run on."""


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("TALLYSTONE_") and "_TEST_" not in name:
            monkeypatch.delenv(name)


@pytest.fixture(params=KINDS)
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """An empty place of each kind."""
    return tmp_path / "target" if request.param == "sqlite" else ready_database()


@dataclass
class Lively:
    """A workspace in which much has happened; what its tokens read of it."""

    folder: Path
    tokens: dict[str, str]
    block: str
    seen: dict[str, Any]

    @property
    def place(self) -> Place:
        found = locate(self.folder)
        return found if isinstance(found, str) else self.folder

    def open(self) -> Workspace:
        return Workspace.open(self.folder)

    def write(self, text: str) -> None:
        with self.open() as workspace:
            self.append(workspace, text)

    def append(self, workspace: Workspace, text: str) -> None:
        vault = workspace.vault(self.tokens["root"])
        vault.edit_block(self.block, lambda block: {"value": block.value + text})


def read(workspace: Workspace, tokens: dict[str, str]) -> dict[str, Any]:
    """What each of them reads."""
    return {name: _read(workspace.vault(token)) for name, token in tokens.items()}


def _read(vault: Vault) -> list[Any]:
    agents = vault.agents()
    labels = [[vault.agent_block(one.id, block.label).value for block in one.blocks] for one in agents]
    people = vault.users(), vault.roles(), vault.tags(), sorted(vault.access(), key=repr)
    return [vault.blocks(), agents, labels, *people, vault.offers(), sorted(vault.tokens(), key=repr)]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Lively:
    """On SQLite."""
    folder = tmp_path_factory.mktemp("made") / "data"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tallystone.vault.workspace, "make_store", make_store)
        workspace, root = Workspace.init(folder, "root")
    with workspace:
        first = workspace.vault(root.token)
        ada = first.add_user("ada")
        block = first.create_block(label="notes", value="one\n", tags=["näme"], metadata={"n": [1, None]})
        agent = first.create_agent({"name": "helper"}, block_ids=[block.id])
        first.edit_agent_block(agent.id, "notes", lambda b: {"value": b.value + "two\n"}, as_agent=True)
        first.share(block.id, "ada", "write")
        workspace.vault(ada.token).accept_offer(block.id)
        role = first.create_role("staff")
        first.add_members(role.name, ["ada"])
        first.share(first.create_block(label="of the role", value="for all").id, "staff")
        soon = datetime.now(UTC).date() + timedelta(days=3)
        first.share(first.create_block(label="for days", value="not for long").id, "ada", until=soon)
        first.invite("bob")
        first.set_charter(trust=True)
        first.create_conversation(agent.id, {"id": "conv-1", "summary": "about it"})
        first.erase_block(first.create_block(label="gone", value="erased").id)
        first.rotate_log_key()
        reading = first.create_token(scope="read", label="reads")
        tokens = {"root": root.token, "ada": ada.token, "reads": reading}
        read(workspace, tokens)  # whoever has mail opens it
        found = read(workspace, tokens)
    return Lively(folder, tokens, block.id, found)


@pytest.fixture
def lively(made: Lively, tmp_path: Path) -> Lively:
    """On the kind of store that the tests run on."""
    folder = tmp_path / "data"
    shutil.copytree(made.folder, folder)
    if POSTGRESQL:
        move(folder, ready_database())
        (folder / DATABASE).unlink()
    return replace(made, folder=folder)


@contextmanager
def opened(lively: Lively, target: Place, tmp_path: Path) -> Iterator[Workspace]:
    """The copy as its server opens it: from a directory that has the keys."""
    folder = target if isinstance(target, Path) else tmp_path / "elsewhere"
    if not (folder / "server-keys").exists():
        shutil.copytree(lively.folder / "server-keys", folder / "server-keys")
        if isinstance(target, str):
            note(folder, target)
    with Workspace.open(folder) as workspace:
        yield workspace


def rows(snapshot: Snapshot) -> dict[str, list[Row]]:
    return {table.name: list(snapshot.rows(table)) for table in TABLES}


def rows_at(place: Place) -> dict[str, list[Row]]:
    source = open_source(place)
    with source.snapshot() as snapshot:
        return rows(snapshot)


def refusal(attempt: Callable[[], object]) -> str:
    with pytest.raises(StoreError) as caught:
        attempt()
    assert caught.value.hint
    return caught.value.code


def sql(place: Place, statement: str) -> None:
    """Past the store, as an operator would."""
    if isinstance(place, str):
        import psycopg

        with psycopg.connect(place, autocommit=True) as connection:
            connection.execute(statement.encode())
        return
    half = place / f"{DATABASE}{HALF}"
    with closing(sqlite3.connect(half if half.exists() else place / DATABASE, isolation_level=None)) as file:
        file.execute(statement)


# -- what arrives -----------------------------------------------------------------------------------------------


def test_every_row_arrives_and_every_token_opens_what_it_opened(
    lively: Lively, target: Place, tmp_path: Path
) -> None:
    moved = move(lively.place, target)
    assert rows_at(target) == rows_at(lively.place)
    with lively.open() as source, opened(lively, target, tmp_path) as copy:
        report = copy.verify(pin=source.verify().checkpoint)
        assert report.findings == []
        assert (report.root, report.leaves) == (moved.root, moved.leaves)
        assert read(copy, lively.tokens) == lively.seen
        lively.append(copy, "in its new place\n")
        assert copy.vault(lively.tokens["ada"]).block(lively.block).value.endswith("in its new place\n")
        assert copy.verify().findings == []


def test_a_row_of_every_table_arrives_as_it_was(tmp_path: Path, target: Place) -> None:
    make_full_store(tmp_path / "full").close()
    with open_rows(tmp_path / "full") as full, full.snapshot() as source:
        with closing(open_target(target)) as there:
            workspace = source.get(WORKSPACE, (WS,))
            assert workspace is not None
            there.begin(workspace)
            passes.bring(source, there, 0, lambda done, total: None)
            with there.snapshot() as copy:
                assert rows(copy) == rows(source)
                assert all(rows(copy).values())
                assert copy.schema_findings() == []
            there.finish()
        with open_source(target).snapshot() as copy:
            assert copy.schema_findings() == []


def test_what_the_first_release_wrote_moves_once_this_one_has_opened_it(
    target: Place, tmp_path: Path
) -> None:
    folder = tmp_path / "old"
    shutil.copytree(RELEASE / "data", folder)
    assert refusal(lambda: move(folder, target)) == "older_format"
    with Workspace.open(folder) as source:
        read(source, SECRETS["tokens"])  # whoever has mail opens it
        before = read(source, SECRETS["tokens"])
    move(folder, target)
    with opened(Lively(folder, {}, "", {}), target, tmp_path) as copy:
        assert copy.verify().findings == []
        assert read(copy, SECRETS["tokens"]) == before


def test_the_source_is_not_changed(lively: Lively, target: Place) -> None:
    before = rows_at(lively.place)
    file = lively.folder / DATABASE
    digest = hashlib.sha256(file.read_bytes()).digest() if file.exists() else b""
    move(lively.place, target)
    assert rows_at(lively.place) == before
    assert digest == (hashlib.sha256(file.read_bytes()).digest() if file.exists() else b"")
    with lively.open() as source:
        assert source.verify().findings == []


@postgresql_only
def test_taking_the_file_away_is_the_switch_to_a_database_and_the_way_back_needs_none(tmp_path: Path) -> None:
    shutil.copytree(RELEASE / "data", tmp_path / "data")
    with Workspace.open(tmp_path / "data") as workspace:
        before = workspace.verify().root
    file, url = tmp_path / "data" / DATABASE, new_database()
    move(tmp_path / "data", url)
    assert locate(tmp_path / "data") == file
    file.rename(tmp_path / "data" / "away")
    with Workspace.open(tmp_path / "data") as workspace:
        assert workspace.verify().root == before
        workspace.vault(SECRETS["tokens"]["alice"]).create_block(label="new", value="in the database")
        last = workspace.verify().root
    move(url, tmp_path / "data")
    assert locate(tmp_path / "data") == file
    with Workspace.open(tmp_path / "data") as workspace:
        assert workspace.verify().root == last


# -- interrupted ------------------------------------------------------------------------------------------------


def killed(lively: Lively, target: Place, batch: int) -> None:
    """Copy, and be killed instead of writing this batch."""
    named = {"FROM": lively.place, "TO": target}
    stores = {
        f"TALLYSTONE_COPY_{name}": place if isinstance(place, str) else f"sqlite:{place}"
        for name, place in named.items()
    }
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("copy_killed.py")), str(batch), "16"],
        env={**os.environ, **stores},
        capture_output=True,
        text=True,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr


class Stopped(Exception):
    """In place of a kill."""


def stopped(lively: Lively, target: Place, batch: int) -> None:
    """Copy, and stop instead of writing this batch of 16 rows."""

    def stop() -> None:
        raise Stopped

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(passes, "BATCH_ROWS", 16)
        patch.setattr("tallystone.vault.moving.open_target", lambda place: Stopping(place, batch, stop))
        move(lively.place, target)


def test_killed_at_any_moment_it_goes_on_and_catches_up_and_nothing_opens_it_before(
    lively: Lively, target: Place, tmp_path: Path
) -> None:
    folder = target if isinstance(target, Path) else tmp_path / "elsewhere"
    for batch in (0, 12):
        killed(lively, target, batch)
        lively.write(f"after the kill at {batch}\n")
        with pytest.raises(StoreError) as caught, opened(lively, target, tmp_path):
            pass
        assert caught.value.code == "unfinished_copy"
        shutil.rmtree(folder / "server-keys")
    with lively.open() as source:  # rows go, too
        source.vault(lively.tokens["root"]).delete_block(
            next(
                block.id
                for block in source.vault(lively.tokens["root"]).blocks()
                if block.label == "for days"
            )
        )
    killed(lively, target, -1)
    moved = move(lively.place, target)
    assert moved.written == 0
    assert rows_at(target) == rows_at(lively.place)
    with opened(lively, target, tmp_path) as copy:
        assert copy.verify().findings == []
        assert copy.vault(lively.tokens["ada"]).block(lively.block).value.endswith("after the kill at 12\n")


def test_killed_before_it_gets_its_name_a_finished_file_is_still_to_be_finished(
    lively: Lively, tmp_path: Path
) -> None:
    target = tmp_path / "target"
    stopped(lively, target, -1)
    sql(target, f"DELETE FROM schema_version WHERE number = {UNFINISHED}")
    lively.write("since\n")
    assert move(lively.place, target).written > 0
    assert rows_at(target) == rows_at(lively.place)


def test_a_full_disk_is_said_and_the_same_copy_goes_on_when_there_is_room(
    made: Lively, lively: Lively, target: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passes, "BATCH_ROWS", 16)
    if isinstance(target, Path):
        connect = sqlite_moving._connect
        with closing(sqlite3.connect(made.folder / DATABASE)) as file:
            pages = file.execute("PRAGMA page_count").fetchone()[0] - 10

        def small(path: Path, timeout: float = 1.0) -> sqlite3.Connection:
            connection = connect(path, timeout)
            connection.execute(f"PRAGMA max_page_count = {pages}")
            return connection

        with monkeypatch.context() as full:
            full.setattr(sqlite_moving, "_connect", small)
            assert refusal(lambda: move(lively.place, target)) == "store_full"
    else:
        stopped(lively, target, 3)
        sql(
            target,
            "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN RAISE EXCEPTION 'no space left' USING ERRCODE = 'disk_full'; END $$;"
            " CREATE TRIGGER full_disk BEFORE INSERT ON log_leaf EXECUTE FUNCTION full_disk()",
        )
        assert refusal(lambda: move(lively.place, target)) == "store_full"
        sql(target, "DROP TRIGGER full_disk ON log_leaf; DROP FUNCTION full_disk")
    move(lively.place, target)
    assert rows_at(target) == rows_at(lively.place)


# -- while others write -----------------------------------------------------------------------------------------


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for sessions of PostgreSQL that are about to end."""
    if POSTGRESQL:
        from tallystone.store import postgresql_moving

        monkeypatch.setattr(postgresql_moving, "_PATIENCE", 0.3)


def test_what_is_written_meanwhile_is_caught_up_with_and_it_ends_when_the_writer_has(
    lively: Lively, target: Place, at_once: None
) -> None:
    writer = lively.open()
    begun = 0

    @contextmanager
    def phase(what: str) -> Iterator[Callable[[int, int], None]]:
        nonlocal begun
        begun += what == "copying"
        if begun == 1:
            lively.append(writer, "while the first pass runs\n")
        elif begun == 2:
            writer.close()
        yield lambda done, total: None

    move(lively.place, target, phase=phase)
    assert begun == 3
    assert rows_at(target) == rows_at(lively.place)


def test_a_copy_of_what_is_in_use_is_not_finished_however_quiet_it_is(
    lively: Lively, target: Place, at_once: None
) -> None:
    with lively.open() as server_of_it:
        server_of_it.vault(lively.tokens["ada"]).blocks()
        assert refusal(lambda: move(lively.place, target)) == "busy"
        lively.append(server_of_it, "one more\n")
    if isinstance(target, Path):
        assert refusal(lambda: locate(target)) == "unfinished_copy"
    assert 0 < move(lively.place, target).written < 40
    assert rows_at(target) == rows_at(lively.place)


def test_nobody_writes_to_the_source_during_the_last_pass(
    lively: Lively, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(open_source(lively.place)) as source, source.hold():
        if POSTGRESQL:
            from tallystone.store import postgresql_session

            monkeypatch.setitem(postgresql_session._SETTINGS, "lock_timeout", "100ms")
        else:
            monkeypatch.setattr("tallystone.store.sqlite.BUSY_SECONDS", 0.1)
        assert refusal(lambda: lively.write("too late")) == "busy"
    lively.write("in time")


def test_two_copies_to_one_place_are_refused(
    lively: Lively, target: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_source(lively.place).snapshot() as snapshot:
        workspace = snapshot.get(WORKSPACE, (WS,))
    assert workspace is not None
    if POSTGRESQL:
        from tallystone.store import postgresql_session

        monkeypatch.setitem(postgresql_session._SETTINGS, "lock_timeout", "100ms")
    with closing(open_target(target)) as first:
        first.begin(workspace)
        assert refusal(lambda: move(lively.place, target)) == "busy"
    move(lively.place, target)


# -- what is no copy --------------------------------------------------------------------------------------------


def test_an_edited_row_is_found_in_the_copy_as_it_is_at_the_source(lively: Lively, target: Place) -> None:
    with lively.open() as source, source.store.snapshot() as snapshot:
        (kid, label) = next((row[1], row[-1]) for row in snapshot.rows(TOKEN))
    change = "UPDATE token SET label = {} WHERE kid = '{}'"
    edited = bytes([label[0] ^ 1]) + label[1:]
    cell = "'\\x{}'::bytea" if isinstance(lively.place, str) else "x'{}'"
    sql(lively.place, change.format(cell.format(edited.hex()), kid))
    with pytest.raises(StoreError) as caught:
        move(lively.place, target)
    assert caught.value.code == "not_verified"
    with lively.open() as source:
        (finding,) = source.verify().findings
    assert str(finding.where) in caught.value.message and finding.what in caught.value.message
    assert refusal(lambda: open_source(target)) in ("unfinished_copy", "no_workspace")
    sql(lively.place, change.format(cell.format(label.hex()), kid))
    assert move(lively.place, target).written == 1


def test_a_copy_that_was_edited_before_its_end_is_mended(lively: Lively, target: Place) -> None:
    stopped(lively, target, -1)
    sql(target, "DELETE FROM token")
    sql(target, "UPDATE log_leaf SET seq = seq + 1000 WHERE seq > 5")
    move(lively.place, target)
    assert rows_at(target) == rows_at(lively.place)


def test_another_workspace_than_the_one_begun_is_refused_and_nothing_is_lost(
    lively: Lively, target: Place, tmp_path: Path
) -> None:
    stopped(lively, target, 5)
    Workspace.init(tmp_path / "other")[0].close()
    other = Lively(tmp_path / "other", {}, "", {}).place
    assert refusal(lambda: move(other, target)) == "other_workspace"
    move(lively.place, target)
    assert rows_at(target) == rows_at(lively.place)


def test_keys_of_another_workspace_are_refused(lively: Lively, tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    Workspace.init(tmp_path / "other")[0].close()
    shutil.copytree(tmp_path / "other" / "server-keys", tmp_path / "target" / "server-keys")
    keys = lively.folder / "server-keys"
    keys.rename(tmp_path / "keys")
    assert refusal(lambda: move(lively.place, tmp_path / "target")) == "other_workspace"


def test_a_server_neither_serves_nor_replaces_an_unfinished_copy(
    lively: Lively, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "target"
    stopped(lively, target, 5)
    before = sorted(path.name for path in target.iterdir())
    key = tmp_path / "first.token"
    assert run(["serve", "--data", str(target), "--key-file", str(key), "--port", "0"]) == FAILED
    assert "an unfinished copy" in capsys.readouterr().err
    assert sorted(path.name for path in target.iterdir()) == before and not key.exists()


def test_what_is_not_empty_is_no_target(lively: Lively, target: Place, tmp_path: Path) -> None:
    move(lively.place, target)
    before = rows_at(target)
    lively.write("more")
    assert refusal(lambda: move(lively.place, target)) == "occupied"
    assert rows_at(target) == before
    if isinstance(target, str):
        strange = new_database()
        sql(strange, "CREATE TABLE notes (a text)")
        assert refusal(lambda: move(lively.place, strange)) == "not_ours"


def test_formats_of_other_versions_are_refused(lively: Lively, target: Place) -> None:
    stopped(lively, target, 5)
    sql(target, f"DELETE FROM schema_version WHERE number = {max(migrations())}")
    assert refusal(lambda: move(lively.place, target)) == "other_format"
    sql(lively.place, "INSERT INTO schema_version (number) VALUES (999)")
    assert refusal(lambda: move(lively.place, target)) == "newer_format"


def test_what_lies_beside_the_schema_of_the_source_stops_the_copy(lively: Lively, target: Place) -> None:
    sql(lively.place, "CREATE TABLE notes (a text)")
    assert refusal(lambda: move(lively.place, target)) == "schema"


# -- the command ------------------------------------------------------------------------------------------------


def named(place: Place) -> str:
    return place if isinstance(place, str) else f"sqlite:{place}"


def test_the_command_says_what_it_did_and_what_is_left_to_do(
    lively: Lively, target: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["copy", "--from", named(lively.place), "--to", named(target), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    with lively.open() as source:
        report = source.verify()
    assert (told["leaves"], told["root"]) == (report.leaves, report.root.hex())
    assert told["next"] and told["rows"] >= told["written"] > 100


@pytest.mark.parametrize(
    ("source", "target", "status"),
    [
        ("mysql://root:hunter2@h/d", "sqlite:{tmp}/n", MISUSED),
        ("sqlite:", "sqlite:{tmp}/n", MISUSED),
        ("sqlite:{tmp}/data", "postgresql://u:hunter2@h/d", MISUSED),
        ("sqlite:{tmp}/data", "postgresql://h/d?password=hunter2", MISUSED),
        ("sqlite:{tmp}/data", "postgresql:h/d", MISUSED),
        ("sqlite:{tmp}/nothing", "sqlite:{tmp}/n", FAILED),
        ("sqlite:{tmp}/data", "sqlite:{tmp}/file", FAILED),
        ("sqlite:{tmp}/data", "sqlite:/proc/nothing", FAILED),
        ("sqlite:{tmp}/data", "sqlite:{tmp}/data", FAILED),
    ],
)
def test_a_wrong_call_is_one_line_and_a_hint_without_the_password(
    source: str, target: str, status: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(RELEASE / "data", tmp_path / "data")
    Workspace.open(tmp_path / "data").close()
    (tmp_path / "file").touch()
    words = [word.format(tmp=tmp_path) for word in ("--from", source, "--to", target)]
    assert run(["copy", *words]) == status
    said = capsys.readouterr().err
    assert [line.partition(":")[0] for line in said.splitlines()] == ["error", "hint"]
    assert "hunter2" not in said and "Traceback" not in said


@postgresql_only
@pytest.mark.parametrize(
    ("target", "code"),
    [
        (lambda: server().format("nonesuch"), "missing"),
        (lambda: "postgresql://nobody:hunter2@127.0.0.1:1/d?connect_timeout=2", "unreachable"),
        (lambda: server().format("postgres").replace("postgres@", "nobody:hunter2@"), "no_access"),
    ],
)
def test_a_database_that_cannot_be_had_is_said_without_its_password(
    target: Callable[[], str],
    code: str,
    lively: Lively,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert refusal(lambda: move(lively.place, target())) == code
    monkeypatch.setenv("TALLYSTONE_COPY_TO", target())
    assert run(["copy", "--from", named(lively.place)]) == FAILED
    said = capsys.readouterr().err
    assert [line.partition(":")[0] for line in said.splitlines()] == ["error", "hint"]
    assert "hunter2" not in said


@postgresql_only
def test_a_password_for_a_copy_is_nowhere_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(RELEASE / "data", tmp_path / "data")
    Workspace.open(tmp_path / "data").close()
    monkeypatch.setenv("TALLYSTONE_COPY_TO", new_database().replace("postgres@", "postgres:hunter2@"))
    assert run(["copy", "--from", f"sqlite:{tmp_path}/data"]) == 0
    said = capsys.readouterr()
    assert "hunter2" not in said.out + said.err + (tmp_path / "data" / URL_FILE).read_text()
