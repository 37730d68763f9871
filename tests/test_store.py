"""What the store promises while all goes well: whole batches, expectations, snapshots, groups."""

from __future__ import annotations

import stat
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from store_rows import (
    FIRST_ROW,
    LIVE,
    LOG_SEED,
    NOW,
    WORKSPACE_ID,
    check,
    counter,
    make_store,
    open_store,
    sample_row,
)
from stores import POSTGRESQL, location, sqlite_only

from tallystone.audit.sequencer import LogSequencer
from tallystone.errors import Conflict, StoreError
from tallystone.store._statements import scan_statement
from tallystone.store.opening import open_store as open_at
from tallystone.store.protocol import Batch, Delete, Event, Expect, Put, Row, RowChange, Store
from tallystone.store.tables import BLOCK, INBOX, LOG_DETAIL, LOG_HEAD, SHELF, TABLES, TOKEN, WORKSPACE, WS


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with make_store(tmp_path / "store.db") as made:
        yield made


def get(store: Store, key: bytes = b"counter") -> Row | None:
    with store.snapshot() as snapshot:
        return snapshot.get(BLOCK, (WS, key))


def test_every_table_gives_back_what_was_put(store: Store) -> None:
    for table in LIVE:
        if table is WORKSPACE:
            continue
        row, other = sample_row(table, 1), sample_row(table, 2)
        changed = table.key_of(row) + other[len(table.key) :]
        store.commit(Batch(changes=[Put(table, row), Put(table, other)]))
        store.commit(Batch(changes=[Put(table, changed)]))
        with store.snapshot() as snapshot:
            assert snapshot.get(table, table.key_of(row)) == changed
            assert sorted(snapshot.rows(table), key=repr) == sorted([changed, other], key=repr)
        store.commit(Batch(changes=[Delete(table, table.key_of(row))]))
        with store.snapshot() as snapshot:
            assert snapshot.get(table, table.key_of(row)) is None
            assert list(snapshot.rows(table)) == [other]


def test_a_commit_returns_the_number_of_its_first_event(store: Store) -> None:
    assert store.commit(Batch(events=[Event("read", b"a"), Event("read", b"b")])) == 2
    assert store.commit(Batch(changes=[Put(BLOCK, counter(1))], events=[Event("write", b"c")])) == 4
    assert store.commit(Batch(events=[Event("read", b"d")])) == 6
    with store.snapshot() as snapshot:
        assert [row[2] for row in snapshot.scan(LOG_DETAIL, (WS,), after=1)] == [b"a", b"b", b"c", b"d"]


def test_an_empty_batch_writes_nothing(store: Store) -> None:
    with store.snapshot() as snapshot:
        head = snapshot.get(LOG_HEAD, (WS,))
    assert head is not None
    assert store.commit(Batch()) == head[1]
    with store.snapshot() as snapshot:
        assert snapshot.get(LOG_HEAD, (WS,)) == head


def test_within_a_batch_the_last_change_to_a_key_wins(store: Store) -> None:
    store.commit(
        Batch(changes=[Put(BLOCK, counter(1)), Delete(BLOCK, (WS, b"counter")), Put(BLOCK, counter(2))])
    )
    assert get(store) == counter(2)
    store.commit(Batch(changes=[Put(BLOCK, counter(3)), Delete(BLOCK, (WS, b"counter"))]))
    assert get(store) is None
    assert check(store).ok


def test_deleting_what_is_not_there_is_no_error(store: Store) -> None:
    store.commit(Batch(changes=[Delete(BLOCK, (WS, b"never"))]))
    assert check(store).ok


@pytest.mark.parametrize("found", [None, counter(1)])
@pytest.mark.parametrize("expected", [None, counter(1), counter(2)])
def test_a_batch_is_written_only_if_the_rows_are_what_it_expects(
    store: Store, found: Row | None, expected: Row | None
) -> None:
    if found is not None:
        store.commit(Batch(changes=[Put(BLOCK, found)]))
    with store.snapshot() as snapshot:
        head = snapshot.get(LOG_HEAD, (WS,))
    batch = Batch(
        [Expect(BLOCK, (WS, b"counter"), expected)], [Put(BLOCK, counter(9))], [Event("write", b"x")]
    )
    if found == expected:
        store.commit(batch)
        assert get(store) == counter(9)
    else:
        with pytest.raises(Conflict):
            store.commit(batch)
        assert get(store) == found
        with store.snapshot() as snapshot:
            assert snapshot.get(LOG_HEAD, (WS,)) == head


def shelf_row(shelf: bytes, locator: bytes, position: int) -> Row:
    return (WS, shelf, locator, position, b"one", b"two")


def test_a_scan_is_ordered_bounded_and_keeps_to_its_prefix(store: Store) -> None:
    mine = [shelf_row(b"mine", bytes([255 - n]), n) for n in range(10)]
    store.commit(Batch(changes=[Put(SHELF, row) for row in [*mine, shelf_row(b"other", b"\x03", 3)]]))
    with store.snapshot() as snapshot:
        by_key = sorted(mine)
        assert snapshot.scan(SHELF, (WS, b"mine")) == by_key
        assert snapshot.scan(SHELF, (WS, b"mine"), reverse=True) == by_key[::-1]
        assert snapshot.scan(SHELF, (WS, b"mine"), limit=2) == by_key[:2]
        assert snapshot.scan(SHELF, (WS, b"mine"), limit=0) == []
        assert snapshot.scan(SHELF, (WS, b"mine"), after=by_key[6][2]) == by_key[7:]
        assert (
            snapshot.scan(SHELF, (WS, b"mine"), after=by_key[3][2], reverse=True, limit=2) == by_key[2:0:-1]
        )
        assert snapshot.scan(SHELF, (WS, b"mine"), index="position") == mine
        assert snapshot.scan(SHELF, (WS, b"mine"), index="position", after=4, limit=3) == mine[5:8]
        assert snapshot.scan(SHELF, (WS, b"mine"), index="position", after=4, reverse=True) == mine[3::-1]
        assert snapshot.scan(SHELF, (WS, b"mine"), index="position", after=0, reverse=True) == []
        assert len(snapshot.scan(SHELF, (WS,))) == 11
        assert snapshot.scan(SHELF, (WS, b"nobody")) == []
        assert snapshot.scan(INBOX, (WS, "user-1"), index="position") == []


@sqlite_only("asks SQLite for its plan; on PostgreSQL: test_postgresql.py")
def test_a_position_scan_uses_the_index(store: Store) -> None:
    with store.snapshot() as snapshot:
        plan = snapshot._open().execute(
            "EXPLAIN QUERY PLAN " + scan_statement(SHELF, 2, True, False, "position"),
            (WS, b"mine", 4, -1),
        )
        assert "shelf_position" in str(plan.fetchall())


def test_a_scan_by_no_index_is_a_mistake_of_the_caller(store: Store) -> None:
    with store.snapshot() as snapshot:
        for table, prefix, index in [
            (SHELF, (WS,), "position"),
            (BLOCK, (WS,), "version"),
            (SHELF, (WS, b"s"), "one"),
        ]:
            with pytest.raises(ValueError, match="no index"):
                snapshot.scan(table, prefix, index=index)
        with pytest.raises(ValueError, match="nothing to order by"):
            snapshot.scan(BLOCK, (WS, b"counter"), after=1)


@pytest.mark.parametrize("kid", ["\ud800", "nul\0", "x" * 100_000, "' OR 1=1 --"])
def test_a_key_that_no_row_can_have_is_simply_not_found(store: Store, kid: str) -> None:
    with store.snapshot() as snapshot:
        assert snapshot.get(TOKEN, (WS, kid)) is None
        assert snapshot.scan(TOKEN, (WS, kid)) == []
        assert snapshot.get(LOG_DETAIL, (WS, 2**80)) is None


def test_a_snapshot_stays_as_it_was_and_the_next_one_sees_every_acknowledged_batch(
    store: Store,
) -> None:
    store.commit(Batch(changes=[Put(BLOCK, counter(1))]))
    with store.snapshot() as before:
        assert before.get(BLOCK, (WS, b"counter")) == counter(1)
        store.commit(Batch(changes=[Put(BLOCK, counter(2))]))
        assert before.get(BLOCK, (WS, b"counter")) == counter(1)
        assert list(before.rows(BLOCK)) == [counter(1)]
        with store.snapshot() as after:
            assert after.get(BLOCK, (WS, b"counter")) == counter(2)


def test_a_snapshot_answers_inside_its_block_only(store: Store) -> None:
    snapshot = store.snapshot()
    with pytest.raises(StoreError):
        snapshot.get(BLOCK, (WS, b"counter"))
    store.commit(Batch(changes=[Put(BLOCK, counter(1, bytes([n]))) for n in range(200)]))
    store.commit(Batch(changes=[Put(BLOCK, counter(1, b"x" + bytes([n]))) for n in range(200)]))
    with snapshot:
        rows = snapshot.rows(BLOCK)
        next(rows)
    with pytest.raises(StoreError):
        snapshot.get(BLOCK, (WS, b"counter"))
    assert len(list(rows)) < 399


def test_a_snapshot_cannot_write(store: Store) -> None:
    with store.snapshot() as snapshot:
        session = snapshot._begun_session() if POSTGRESQL else snapshot._open()
        with pytest.raises(Exception, match=r"readonly|25006"):
            session.command(b"DELETE FROM workspace") if POSTGRESQL else session.execute(
                "DELETE FROM workspace"
            )


@sqlite_only("about the file; those of a PostgreSQL server are its own")
def test_the_files_are_for_their_owner_alone(tmp_path: Path) -> None:
    with make_store(tmp_path / "store.db") as store:
        store.commit(Batch(changes=[Put(BLOCK, counter(1))]))
        files = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert files == {"store.db": 0o600, "store.db-wal": 0o600, "store.db-shm": 0o600}
    assert [path.name for path in tmp_path.iterdir()] == ["store.db"]


@sqlite_only("about the file; docs/postgresql.md says what PostgreSQL leaves behind")
def test_what_was_deleted_is_not_left_in_the_file(tmp_path: Path) -> None:
    with make_store(tmp_path / "store.db") as store:
        store.commit(Batch(changes=[Put(SHELF, (WS, b"s", b"l", 1, b"find me " * 200, b""))]))
        store.commit(Batch(changes=[Delete(SHELF, (WS, b"s", b"l"))]))
    assert b"find me" not in (tmp_path / "store.db").read_bytes()


def test_it_is_all_there_after_opening_again(tmp_path: Path) -> None:
    with make_store(tmp_path / "store.db") as store:
        store.commit(Batch(changes=[Put(BLOCK, counter(1))]))
    again = LogSequencer(WORKSPACE_ID, LOG_SEED, lambda: NOW)
    with open_at(location(tmp_path / "store.db"), again, True) as store:
        assert get(store) == counter(1)
    with open_store(tmp_path / "store.db") as store:
        assert store.commit(Batch(events=[Event("read", b"x")])) == 3
        with store.snapshot() as snapshot:
            assert snapshot.get(WORKSPACE, (WS,)) == FIRST_ROW
            assert snapshot.schema_findings() == []


class Gate(LogSequencer):
    """Holds the first transaction open until `opened`, and notes how many events each one carried."""

    def __init__(self) -> None:
        super().__init__(WORKSPACE_ID, LOG_SEED, lambda: NOW)
        self.reached, self.opened = threading.Event(), threading.Event()
        self.groups: list[int] = []
        self.armed = False

    def sequence(self, head: Row | None, events: Sequence[Event], changes: Sequence[RowChange]) -> list[Put]:
        if self.armed and not self.reached.is_set():
            self.reached.set()
            assert self.opened.wait(30)
        self.groups.append(len(events))
        return super().sequence(head, events, changes)


class Callers:
    """Threads that commit one batch each, started while another transaction holds the writer."""

    def __init__(self, path: Path) -> None:
        self.gate = Gate()
        self.store = open_at(location(path, create=True), self.gate, create=True)
        self.store.commit(Batch(changes=[Put(WORKSPACE, FIRST_ROW)]))
        self.gate.groups.clear()
        self.gate.armed = True
        self.answers: dict[int, int | Exception] = {}

    def commit(self, number: int, batch: Batch) -> threading.Thread:
        def run() -> None:
            try:
                self.answers[number] = self.store.commit(batch)
            except Exception as error:
                self.answers[number] = error

        thread = threading.Thread(target=run)
        thread.start()
        return thread

    def together(self, batches: list[Batch]) -> None:
        """Commit all in one group, in this order, behind a transaction of one event."""
        threads = [self.commit(-1, Batch(events=[Event("first", b"")]))]
        assert self.gate.reached.wait(30)
        waiting = self.store._commits._waiting
        for number, batch in enumerate(batches):
            threads.append(self.commit(number, batch))
            while len(waiting) <= number:  # each in its turn, so that the order is known
                pass
        self.gate.opened.set()
        for thread in threads:
            thread.join(30)
            assert not thread.is_alive()


@pytest.fixture
def callers(tmp_path: Path) -> Iterator[Callers]:
    made = Callers(tmp_path / "store.db")
    yield made
    made.store.close()


def test_those_who_wait_share_one_transaction(callers: Callers) -> None:
    callers.together([Batch(events=[Event("read", b"%d" % n), Event("read", b"")]) for n in range(20)])
    assert callers.gate.groups == [1, 40]
    assert [callers.answers[n] for n in range(20)] == [2 + 2 * n for n in range(20)]
    with callers.store.snapshot() as snapshot:
        assert snapshot.get(LOG_DETAIL, (WS, 2 + 2 * 7)) == (WS, 2 + 2 * 7, b"7")
    assert check(callers.store).ok


def test_of_two_in_a_group_that_expect_the_same_row_one_succeeds(callers: Callers) -> None:
    expect = Expect(BLOCK, (WS, b"counter"), None)
    batches = [Batch([expect], [Put(BLOCK, counter(n))], [Event("write", b"%d" % n)]) for n in range(5)]
    callers.together(batches)
    assert callers.answers[0] == 2
    assert all(isinstance(callers.answers[n], Conflict) for n in range(1, 5))
    assert callers.gate.groups == [1, 1]
    assert get(callers.store) == counter(0)
    assert check(callers.store).ok


def test_in_a_group_each_batch_finds_what_those_before_it_wrote(callers: Callers) -> None:
    key = (WS, b"counter")
    chain = [Batch([Expect(BLOCK, key, None)], [Put(BLOCK, counter(0))])]
    chain += [Batch([Expect(BLOCK, key, counter(n))], [Put(BLOCK, counter(n + 1))]) for n in range(10)]
    chain += [
        Batch([Expect(BLOCK, key, counter(10))], [Delete(BLOCK, key)]),
        Batch([Expect(BLOCK, key, None)]),
    ]
    callers.together(chain)
    assert not any(isinstance(answer, Exception) for answer in callers.answers.values())
    assert get(callers.store) is None
    assert check(callers.store).ok


def test_a_row_that_is_refused_fails_its_own_batch_only(callers: Callers) -> None:
    good = Batch(changes=[Put(BLOCK, counter(1))], events=[Event("write", b"")])
    wrong_type = Batch(changes=[Put(BLOCK, (WS, b"k", "text", 0, 0, 0, None, None))])
    missing_cell = Batch(changes=[Put(BLOCK, (WS, b"k", 0))])
    reserved = Batch(events=[Event("rows", b"")])
    null = Batch(changes=[Put(BLOCK, (WS, b"k", None, 0, 0, 0, None, None))])
    callers.together([wrong_type, good, missing_cell, reserved, null])
    assert callers.answers[1] == 2
    assert [isinstance(callers.answers[n], Exception) for n in range(5)] == [True, False, True, True, True]
    assert get(callers.store) == counter(1)
    assert get(callers.store, b"k") is None
    assert check(callers.store).ok


def test_no_increment_is_lost_between_threads(tmp_path: Path) -> None:
    with make_store(tmp_path / "store.db") as store:
        store.commit(Batch(changes=[Put(BLOCK, counter(0))]))

        def increment() -> None:
            done = 0
            while done < 15:
                with store.snapshot() as snapshot:
                    row = snapshot.get(BLOCK, (WS, b"counter"))
                assert row is not None and isinstance(row[3], int)
                try:
                    store.commit(
                        Batch([Expect(BLOCK, (WS, b"counter"), row)], [Put(BLOCK, counter(row[3] + 1))])
                    )
                except Conflict:
                    continue
                done += 1

        threads = [threading.Thread(target=increment) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert get(store) == counter(90)
        assert check(store).ok


def test_every_table_starts_with_the_workspace() -> None:
    assert all(table.key[0] == "ws" for table in TABLES)


def test_whoever_observes_is_told_how_commits_go_and_not_what_they_say(store: Store) -> None:
    told: list[tuple[int, int]] = []
    waits: list[int] = []

    class Observer:
        def wrote(self, batches: int, refused: int, seconds: float) -> None:
            assert seconds > 0
            told.append((batches, refused))

        def waited(self, began: int, ended: int) -> None:
            waits.append(ended - began)

    store.observe(Observer())
    store.commit(Batch([], [], [Event("e", b"d")]))
    with pytest.raises(Conflict):
        store.commit(Batch([Expect(BLOCK, (WS, b"counter"), counter(7))], [], [Event("e", b"d")]))
    assert told == [(1, 0), (1, 1)]
    assert len(waits) == 2 and min(waits) > 0
    assert store.waiting() == 0
    assert store.size() > 0
