"""What the store does when things go wrong: full disks, killed processes, files that are something else."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from store_rows import (
    FIRST_ROW,
    LOG_SEED,
    NOW,
    WORKSPACE_ID,
    begin,
    check,
    counter,
    make_store,
    open_store,
    sequencer,
)
from stores import POSTGRESQL, location, sqlite_only

from tallystone.audit.sequencer import LogSequencer
from tallystone.errors import StoreError, StoreFull, Tampered
from tallystone.store import sqlite as sqlite_module
from tallystone.store.opening import open_store as open_at
from tallystone.store.protocol import Batch, Event, Put, Row, RowChange
from tallystone.store.sqlite import SqliteStore
from tallystone.store.tables import BLOCK, KIT, LOG_DETAIL, LOG_HEAD, WORKSPACE, WS

TESTS = Path(__file__).parent


def child(script: str, *arguments: object) -> subprocess.Popen[str]:
    """A Python process of its own, with the tests' modules at hand."""
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])},
    )


def large(size: int) -> Batch:
    return Batch(changes=[Put(KIT, (WS, "user-1", bytes(size)))], events=[Event("kit", b"large")])


@sqlite_only("about the file; on PostgreSQL: test_postgresql.py")
def test_a_full_disk_refuses_the_batch_whole_and_the_store_works_on(tmp_path: Path) -> None:
    with begin(SqliteStore(tmp_path / "store.db", sequencer(), create=True, page_limit=60)) as store:
        store.commit(Batch(changes=[Put(BLOCK, counter(1))]))
        for _ in range(3):
            with pytest.raises(StoreFull) as caught:
                store.commit(large(1_000_000))
            assert caught.value.hint
        with store.snapshot() as snapshot:
            assert snapshot.get(KIT, (WS, "user-1")) is None
            assert snapshot.get(BLOCK, (WS, b"counter")) == counter(1)
        store.commit(Batch(changes=[Put(BLOCK, counter(2))]))
        assert check(store).ok
    with open_store(tmp_path / "store.db") as store:
        store.commit(large(1_000_000))
        assert check(store).ok


FILE_SIZE_LIMIT = """
import resource, sys
from pathlib import Path
from store_rows import *
from tallystone.errors import StoreError
from tallystone.store.tables import KIT

store = make_store(Path(sys.argv[1]))
big = Batch(changes=[Put(KIT, (WS, "user-1", bytes(1_000_000)))])
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, hard))
try:
    store.commit(big)
except StoreError as error:
    print(error.code, bool(error.hint))
resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
store.commit(Batch(changes=[Put(BLOCK, counter(1))], events=[Event("write", b"after")]))
print(check(store).findings)
store.close()
"""


@sqlite_only("about the file; on PostgreSQL: test_postgresql.py")
def test_a_write_that_the_system_refuses_leaves_a_working_store(tmp_path: Path) -> None:
    process = child(FILE_SIZE_LIMIT, tmp_path / "store.db")
    output, _ = process.communicate(timeout=60)
    assert output.splitlines() in (["io True", "[]"], ["store_full True", "[]"])


WRITE_FOREVER = """
import sys
from pathlib import Path
from store_rows import *

store = open_store(Path(sys.argv[1]))
number = 0
while True:
    number += 1
    batch = Batch(changes=[Put(BLOCK, counter(number))], events=[Event("write", b"%d" % number)])
    print(number, store.commit(batch), flush=True)
"""


def test_what_was_acknowledged_survives_kill_9_and_nothing_is_half_there(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    make_store(path).close()
    for lines in (40, 3, 90):
        process = child(WRITE_FOREVER, path)
        assert process.stdout is not None
        seen = [[int(word) for word in process.stdout.readline().split()] for _ in range(lines)]
        process.send_signal(signal.SIGKILL)
        process.wait(30)
        process.stdout.close()
        with open_store(path) as store:
            assert check(store).ok
            with store.snapshot() as snapshot:
                for number, seq in seen:
                    assert snapshot.get(LOG_DETAIL, (WS, seq)) == (WS, seq, b"%d" % number)
                row = snapshot.get(BLOCK, (WS, b"counter"))
                assert row is not None and isinstance(row[3], int) and row[3] >= seen[-1][0]


INCREMENT = """
import sys
from pathlib import Path
from store_rows import *
from tallystone.errors import Conflict
from tallystone.store.protocol import Expect

with open_store(Path(sys.argv[1])) as store:
    done = 0
    while done < 25:
        with store.snapshot() as snapshot:
            row = snapshot.get(BLOCK, (WS, b"counter"))
        try:
            store.commit(Batch([Expect(BLOCK, (WS, b"counter"), row)], [Put(BLOCK, counter(row[3] + 1))]))
            done += 1
        except Conflict:
            pass
"""


def test_two_processes_on_one_file_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with make_store(path) as store:
        store.commit(Batch(changes=[Put(BLOCK, counter(0))]))
        others = [child(INCREMENT, path) for _ in range(2)]
        for other in others:
            other.communicate(timeout=60)
            assert other.returncode == 0
        with store.snapshot() as snapshot:
            assert snapshot.get(BLOCK, (WS, b"counter")) == counter(50)
        store.commit(Batch(changes=[Put(BLOCK, counter(51))]))  # on a head that others wrote
        assert check(store).ok


@sqlite_only("about the file; on PostgreSQL: test_postgresql.py")
def test_a_store_that_another_process_keeps_locked_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_module, "BUSY_SECONDS", 0.01)
    with make_store(tmp_path / "store.db") as store:
        other = sqlite3.connect(tmp_path / "store.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError) as caught:
            store.commit(Batch(events=[Event("read", b"")]))
        assert caught.value.code == "busy" and caught.value.hint
        other.execute("ROLLBACK")
        other.close()
        store.commit(Batch(events=[Event("read", b"")]))


FORK = """
import os, sys
from pathlib import Path
from store_rows import *
from tallystone.errors import StoreError

store = make_store(Path(sys.argv[1]))
with store.snapshot():
    pass
child = os.fork()
if not child:
    codes = []
    for attempt in (lambda: store.snapshot().__enter__(), lambda: store.commit(Batch())):
        try:
            attempt()
        except StoreError as error:
            codes.append(error.code)
    store.close()
    os._exit(0 if codes == ["forked", "forked"] else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
store.commit(Batch(changes=[Put(BLOCK, counter(1))]))
print(check(store).findings)
store.close()
"""


def test_a_forked_child_is_told_to_open_its_own(tmp_path: Path) -> None:
    output, _ = child(FORK, tmp_path / "store.db").communicate(timeout=60)
    assert output.splitlines() == ["0", "[]"]


def refuse(path: Path, code: str, *, create: bool = False) -> None:
    with pytest.raises(StoreError) as caught:
        SqliteStore(path, sequencer(), create)
    assert caught.value.code == code
    assert caught.value.hint
    assert str(path) not in caught.value.message
    assert not any(word in caught.value.message for word in ("SELECT", "sqlite", "errno", "Errno"))


@sqlite_only("about the file; on PostgreSQL: test_postgresql.py")
@pytest.mark.parametrize("create", [False, True])
def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path, create: bool) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("my notes\n" * 500)
    refuse(path, "not_a_database", create=create)
    assert path.read_text() == "my notes\n" * 500


@sqlite_only("about the file; on PostgreSQL: test_postgresql.py")
@pytest.mark.parametrize("create", [False, True])
def test_a_database_of_somebody_else_is_refused_and_left_alone(tmp_path: Path, create: bool) -> None:
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE t (a)")
    connection.close()
    refuse(path, "not_ours", create=create)


@sqlite_only("about the file; on PostgreSQL: test_postgresql.py")
@pytest.mark.parametrize("create", [False, True])
def test_a_folder_is_refused(tmp_path: Path, create: bool) -> None:
    refuse(tmp_path, "not_a_database", create=create)


@sqlite_only("about the file; on PostgreSQL: test_postgresql.py")
def test_a_missing_file_is_made_only_on_request(tmp_path: Path) -> None:
    refuse(tmp_path / "store.db", "missing")
    assert not list(tmp_path.iterdir())
    refuse(tmp_path / "nowhere" / "store.db", "no_access", create=True)
    refuse(tmp_path / "nul\0.db", "no_access", create=True)


@sqlite_only("about the file; on PostgreSQL: test_postgresql.py")
def test_an_empty_file_is_taken_over_only_on_request(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    path.touch()
    refuse(path, "empty")
    make_store(path).close()


@sqlite_only("about the file; on PostgreSQL: test_postgresql.py")
def test_odd_characters_in_the_path_are_just_characters(tmp_path: Path) -> None:
    path = tmp_path / "a%20b?mode=memory#é.db"
    make_store(path).close()
    assert path.stat().st_size > 0


@sqlite_only("about the file; on PostgreSQL: test_postgresql.py")
def test_a_newer_format_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    make_store(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("INSERT INTO schema_version VALUES (99)")
    connection.close()
    refuse(path, "newer_format")
    refuse(path, "newer_format", create=True)


@sqlite_only("about the file; on PostgreSQL: test_postgresql.py")
def test_a_file_that_a_newer_version_has_taken_over_meanwhile_takes_no_more_of_our_writes(
    tmp_path: Path,
) -> None:
    with make_store(tmp_path / "store.db") as store:
        store.commit(Batch(changes=[Put(BLOCK, counter(1))]))
        with sqlite3.connect(tmp_path / "store.db") as connection:
            connection.execute("INSERT INTO schema_version VALUES (99)")
        for _ in range(2):
            with pytest.raises(StoreError) as caught:
                store.commit(Batch(changes=[Put(BLOCK, counter(2))]))
            assert caught.value.code == "newer_format" and caught.value.hint
        with store.snapshot() as snapshot:
            assert snapshot.get(BLOCK, (WS, b"counter")) == counter(1)
        connection.execute("DELETE FROM schema_version WHERE number = 99")
        connection.commit()
        connection.close()
        store.commit(Batch(changes=[Put(BLOCK, counter(3))]))
        assert check(store).ok


@sqlite_only("about the file; on PostgreSQL: test_postgresql.py")
def test_a_damaged_file_is_an_error_of_the_store(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    make_store(path).close()
    whole = path.read_bytes()
    path.write_bytes(whole[:4096] + b"\xa5" * (len(whole) - 4096))
    with pytest.raises(StoreError) as caught:
        store = open_store(path)
        with store, store.snapshot() as snapshot:
            list(snapshot.rows(WORKSPACE))
    assert caught.value.code == "corrupt"


@sqlite_only("PostgreSQL stores no text that is none")
def test_a_text_that_is_none_is_an_error_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    make_store(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("INSERT INTO kit VALUES (1, CAST(X'ff41' AS TEXT), X'00')")
    connection.close()
    with open_store(path) as store, store.snapshot() as snapshot, pytest.raises(Tampered):
        list(snapshot.rows(KIT))


class Failing(LogSequencer):
    """Raises `error` once."""

    def __init__(self) -> None:
        super().__init__(WORKSPACE_ID, LOG_SEED, lambda: NOW)
        self.error: BaseException | None = None

    def sequence(self, head: Row | None, events: Sequence[Event], changes: Sequence[RowChange]) -> list[Put]:
        error, self.error = self.error, None
        if error is not None:
            raise error
        return super().sequence(head, events, changes)


@pytest.mark.parametrize("error", [Tampered("the log's head is missing"), KeyboardInterrupt(), MemoryError()])
def test_a_failing_log_fails_the_write_and_the_next_one_succeeds(
    tmp_path: Path, error: BaseException
) -> None:
    failing = Failing()
    with open_at(location(tmp_path / "store.db", create=True), failing, create=True) as store:
        store.commit(Batch(changes=[Put(WORKSPACE, FIRST_ROW)]))
        failing.error = error
        with pytest.raises(type(error)):
            store.commit(Batch(changes=[Put(BLOCK, counter(1))]))
        with store.snapshot() as snapshot:
            assert snapshot.get(BLOCK, (WS, b"counter")) is None
        store.commit(Batch(changes=[Put(BLOCK, counter(2))]))
        assert check(store).ok


@sqlite_only("about its connection; on PostgreSQL: test_postgresql.py")
def test_a_lost_connection_is_replaced(tmp_path: Path) -> None:
    with make_store(tmp_path / "store.db") as store:
        assert store._writer is not None
        store._writer.close()
        with pytest.raises(StoreError):
            store.commit(Batch(changes=[Put(BLOCK, counter(1))]))
        store.commit(Batch(changes=[Put(BLOCK, counter(2))]))
        assert check(store).ok


def test_a_closed_store_says_so_and_may_be_closed_again(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store.db")
    with store.snapshot() as snapshot:
        head = snapshot.get(LOG_HEAD, (WS,))
        store.close()
        assert snapshot.get(LOG_HEAD, (WS,)) == head
    store.close()
    for attempt in (lambda: store.snapshot().__enter__(), lambda: store.commit(Batch())):
        with pytest.raises(StoreError) as caught:
            attempt()
        assert caught.value.code == "closed"
    assert not (store._idle if POSTGRESQL else store._readers)
