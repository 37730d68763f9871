"""Rows that are kept while other processes commit (ADR 0041): every answer is the one that the database would give."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from store_rows import FIRST_ROW, LOG_SEED, NOW, WORKSPACE_ID, counter, make_store, open_store, sequencer
from stores import POSTGRESQL, location, postgresql_only, sqlite_only

from tallystone.audit.following import follow
from tallystone.audit.leaf import key_hash
from tallystone.audit.sequencer import LogSequencer
from tallystone.errors import Conflict
from tallystone.store._rows import FAR, Kept, RowCache
from tallystone.store.protocol import Batch, Delete, Event, Expect, Grown, Head, Moment, Put, Row, Table
from tallystone.store.tables import BLOCK, LOG_HEAD, LOG_LEAF, LOG_MANIFEST, SHELF, WORKSPACE, WS

BLOCKS = [bytes([65 + number]) for number in range(5)]
SHELVES = [b"mine", b"yours"]
KEY: Row = (WS, b"counter")

Rows = dict[tuple[str, Row], Row]


def block(name: bytes, version: int) -> Row:
    return counter(version, name)


def shelf(name: bytes, locator: bytes, position: int) -> Row:
    return (WS, name, locator, position, b"one", b"two")


def cache_of(store: Any) -> RowCache:
    cache: RowCache = store._rows
    return cache


@contextmanager
def editor(path: Path) -> Iterator[Any]:
    """Somebody who changes rows past the log."""
    if POSTGRESQL:
        import psycopg

        with psycopg.connect(str(location(path)), autocommit=True) as raw:
            yield raw
    else:
        with closing(sqlite3.connect(path, isolation_level=None)) as raw:
            yield raw


def agree(view: Any, rows: Rows, dice: random.Random) -> None:
    """A view answers as these rows say, whatever it is asked, in whichever order."""
    questions: list[Any] = [(BLOCK, name) for name in BLOCKS] + [(SHELF, name) for name in SHELVES]
    dice.shuffle(questions)
    for table, name in questions[: dice.randrange(1, len(questions))]:
        if table is BLOCK:
            assert view.get(BLOCK, (WS, name)) == rows.get((BLOCK.name, (WS, name)))
        else:
            held = sorted(row for (of, key), row in rows.items() if of == SHELF.name and key[1] == name)
            assert view.scan(SHELF, (WS, name)) == held
            assert view.scan(SHELF, (WS, name), limit=1) == held[:1]
            for row in held[:1]:
                assert view.get(SHELF, row[:3]) == row


def a_change(dice: random.Random, number: int) -> Put | Delete:
    if dice.random() < 0.7:
        name = dice.choice(BLOCKS)
        return Put(BLOCK, block(name, number)) if dice.random() < 0.8 else Delete(BLOCK, (WS, name))
    name, locator = dice.choice(SHELVES), bytes([dice.randrange(4)])
    if dice.random() < 0.6:
        return Put(SHELF, shelf(name, locator, number))
    return Delete(SHELF, (WS, name, locator))


def apply(rows: Rows, change: Put | Delete) -> None:
    if isinstance(change, Put):
        rows[change.table.name, change.table.key_of(change.row)] = change.row
    else:
        rows.pop((change.table.name, change.key), None)


class Moments:
    """What a store's views said of what is beside what, and when: held against what later views say is unchanged."""

    def __init__(self) -> None:
        self._told: list[tuple[Any, Row, list[Row]]] = []
        self.unchanged = 0

    def look(self, view: Any, rows: Rows) -> None:
        for since, beginning, then in self._told[-60:]:
            if view.unchanged(beginning, since):
                assert beside(rows, beginning) == then
                self.unchanged += 1
        since = view.moment()
        if since is not None:
            self._told += [
                (since, beginning, beside(rows, beginning))
                for beginning in [(WS, name) for name in (*BLOCKS, *SHELVES)]
            ]


def beside(rows: Rows, beginning: Row) -> list[Row]:
    return sorted(row for (_, key), row in rows.items() if key[:2] == beginning)


@pytest.mark.parametrize("seed", range(4))
def test_every_answer_is_the_databases_whoever_commits_between(tmp_path: Path, seed: int) -> None:
    dice, rows, found = random.Random(seed), Rows(), 0
    with ExitStack() as stack:
        stores = [stack.enter_context(make_store(tmp_path / "store.db"))]
        stores += [stack.enter_context(open_store(tmp_path / "store.db")) for _ in range(2)]
        raw = stack.enter_context(editor(tmp_path / "store.db"))
        moments = [Moments() for _ in stores]
        found_so: list[tuple[Any, Expect, Moment | None]] = []
        open_views: list[tuple[Any, Rows, Moments]] = []
        for number in range(150):
            store, act = dice.choice(stores), dice.random()
            if act < 0.35:
                changes = [a_change(dice, number) for _ in range(dice.choice([0, 0, 1, 2]))]
                name = dice.choice(BLOCKS)
                expected = rows.get((BLOCK.name, (WS, name)))
                wrong = dice.random() < 0.2
                expect = Expect(BLOCK, (WS, name), block(name, -1) if wrong else expected)
                batch = Batch([expect], list(changes), [Event("read", b"x")] * dice.randrange(1, 4))
                if wrong:
                    with pytest.raises(Conflict):
                        store.commit(batch)
                else:
                    store.commit(batch)
                    for change in changes:
                        apply(rows, change)
            elif act < 0.4 and found_so:
                # What was found in a view, and maybe is so no more.
                store, expect, moment = dice.choice(found_so[-4:])
                batch = Batch([expect], [], [Event("read", b"x")], moment)
                if rows.get((BLOCK.name, expect.key)) == expect.row:
                    store.commit(batch)
                else:
                    with pytest.raises(Conflict):
                        store.commit(batch)
            elif act < 0.45:
                view = stack.enter_context(store.snapshot())
                agree(view, rows, dice)
                open_views.append((view, dict(rows), moments[stores.index(store)]))
            elif act < 0.5 and POSTGRESQL:
                raw.execute("UPDATE block SET version = %s WHERE storage = %s", (number, BLOCKS[0]))
                if (BLOCK.name, (WS, BLOCKS[0])) in rows:
                    rows[BLOCK.name, (WS, BLOCKS[0])] = block(BLOCKS[0], number)
            else:
                with store.snapshot() as view:
                    agree(view, rows, dice)
                    moments[stores.index(store)].look(view, rows)
                    key = (WS, dice.choice(BLOCKS))
                    found_so.append((store, Expect(BLOCK, key, view.get(BLOCK, key)), view.moment()))
            for view, then, told in open_views[-3:]:
                agree(view, then, dice)
                told.look(view, then)
            found += len(cache_of(store).kept)
    assert found and sum(told.unchanged for told in moments) > 100


def test_what_others_read_or_change_elsewhere_costs_no_row_that_is_kept(tmp_path: Path) -> None:
    with make_store(tmp_path / "store.db") as ours, open_store(tmp_path / "store.db") as theirs:
        ours.commit(Batch(changes=[Put(BLOCK, counter(1)), Put(BLOCK, block(b"other", 1))]))
        for number in range(1, 4):
            with ours.snapshot() as view:
                assert view.get(BLOCK, KEY) == counter(1)
                assert view.get(BLOCK, (WS, b"other")) == block(b"other", number)
            kept = cache_of(ours).kept
            theirs.commit(Batch(events=[Event("read", b"x")]))
            theirs.commit(Batch(changes=[Put(BLOCK, block(b"other", number + 1))]))
            with ours.snapshot() as view:
                assert view.get(BLOCK, KEY) == counter(1)
                assert cache_of(ours).kept is kept
                assert kept.find((BLOCK.name, KEY), kept.head[0]) is not None
                assert kept.find((BLOCK.name, (WS, b"other")), kept.head[0]) is None


@sqlite_only("PostgreSQL tells of every transaction: the tests below")
def test_an_edit_that_hides_behind_others_commits_is_seen_after_two_seconds(tmp_path: Path) -> None:
    with make_store(tmp_path / "store.db") as ours, open_store(tmp_path / "store.db") as theirs:
        now = [0.0]
        cache = cache_of(ours)
        cache._clock = lambda: now[0]
        cache.restart()
        ours.commit(Batch(changes=[Put(BLOCK, counter(1))]))
        seen = []
        for seconds in (0.0, 1.9, 2.1):
            now[0] = seconds
            with ours.snapshot() as view:
                seen.append(view.get(BLOCK, KEY))
            with editor(tmp_path / "store.db") as raw:
                raw.execute("UPDATE block SET version = 7")
            theirs.commit(Batch(events=[Event("read", b"x")]))
        assert seen == [counter(1), counter(1), counter(7)]


@sqlite_only("PostgreSQL tells of every transaction: the tests below")
def test_an_edit_that_hides_behind_the_last_commit_of_others_is_seen_after_two_seconds(
    tmp_path: Path,
) -> None:
    with make_store(tmp_path / "store.db") as ours, open_store(tmp_path / "store.db") as theirs:
        now = [0.0]
        cache = cache_of(ours)
        cache._clock = lambda: now[0]
        cache.restart()
        ours.commit(Batch(changes=[Put(BLOCK, counter(1))]))
        with ours.snapshot() as view:
            assert view.get(BLOCK, KEY) == counter(1)
        with editor(tmp_path / "store.db") as raw:
            raw.execute("UPDATE block SET version = 7")
        theirs.commit(Batch(events=[Event("read", b"x")]))
        with ours.snapshot() as view:
            view.get(BLOCK, KEY)
        now[0] = 2.1
        for _ in range(2):
            with ours.snapshot() as view:
                assert view.get(BLOCK, KEY) == counter(7)
            ours.commit(Batch(events=[Event("read", b"y")]))


def test_an_edit_before_a_process_has_written_for_the_first_time_is_seen(tmp_path: Path) -> None:
    with make_store(tmp_path / "store.db") as store:
        store.commit(Batch(changes=[Put(BLOCK, counter(1))]))
    with open_store(tmp_path / "store.db") as store:
        with store.snapshot() as view:
            assert view.get(BLOCK, KEY) == counter(1)
        with editor(tmp_path / "store.db") as raw:
            raw.execute("UPDATE block SET version = 7")
        store.commit(Batch(events=[Event("read", b"x")]))
        with store.snapshot() as view:
            assert view.get(BLOCK, KEY) == counter(7)


def test_a_commit_expects_what_the_file_says_and_not_what_is_kept(tmp_path: Path) -> None:
    with make_store(tmp_path / "store.db") as ours, open_store(tmp_path / "store.db") as theirs:
        ours.commit(Batch(changes=[Put(BLOCK, counter(1))]))
        with ours.snapshot() as view:
            assert view.get(BLOCK, KEY) == counter(1)
        with editor(tmp_path / "store.db") as raw:
            raw.execute("UPDATE block SET version = 7")
        theirs.commit(Batch(events=[Event("read", b"x")]))  # the edit hides behind it
        with pytest.raises(Conflict):
            ours.commit(Batch([Expect(BLOCK, KEY, counter(1))], [], [Event("read", b"y")]))
        with ours.snapshot() as view:
            assert view.get(BLOCK, KEY) == counter(7)


@postgresql_only
def test_an_edit_that_was_begun_long_before_it_is_committed_is_seen(tmp_path: Path) -> None:
    with make_store(tmp_path / "store.db") as ours, editor(tmp_path / "store.db") as raw:
        ours.commit(Batch(changes=[Put(BLOCK, counter(1))]))
        raw.execute("BEGIN")
        raw.execute("UPDATE block SET version = 7")
        with ours.snapshot() as view:
            assert view.get(BLOCK, KEY) == counter(1)
        kept = cache_of(ours).kept
        for _ in range(3):  # each with a higher number than the edit's, which is under way
            ours.commit(Batch([Expect(BLOCK, KEY, counter(1))], [], [Event("read", b"y")]))
            with ours.snapshot() as view:
                assert view.get(BLOCK, KEY) == counter(1)
                assert cache_of(ours).kept is kept
        raw.execute("COMMIT")
        with ours.snapshot() as view:
            assert view.get(BLOCK, KEY) == counter(7)


@postgresql_only
def test_while_somebody_edits_what_is_kept_counts_and_once_they_have_it_does_not(tmp_path: Path) -> None:
    with make_store(tmp_path / "store.db") as ours, editor(tmp_path / "store.db") as raw:
        ours.commit(Batch(changes=[Put(BLOCK, counter(1))]))
        with ours.snapshot() as view:
            assert view.get(BLOCK, KEY) == counter(1)
        kept = cache_of(ours).kept
        raw.execute("BEGIN")
        raw.execute("UPDATE block SET version = 7")
        for _ in range(2):
            with ours.snapshot() as view:
                assert view.get(BLOCK, KEY) == counter(1)
                assert cache_of(ours).kept is kept
        raw.execute("COMMIT")
        with ours.snapshot() as view:
            assert view.get(BLOCK, KEY) == counter(7)


@postgresql_only
def test_a_process_whose_number_was_overtaken_forgets_nothing(tmp_path: Path) -> None:
    """Who waits for the head of the log may have a lower number than who wrote it last."""
    from tallystone.store.postgresql_following import State, account

    kept = Kept((5, b"head"), 1 << 20, bytes)
    account(kept, State((5, b"head"), 8, 11, frozenset({8, 10}), 9, [], frozenset({9})))
    assert kept.accounted == (7, frozenset({9}))  # 8 and 10 are under way
    account(kept, State((6, b"next"), 10, 12, frozenset({10}), 8, [], frozenset({8})), 13)
    assert kept.accounted == (9, frozenset({11, 13}))
    account(kept, State((6, b"old"), 8, 9, frozenset({8}), 7, [], frozenset()))  # of a view that is older
    assert kept.accounted == (9, frozenset({11, 13}))
    account(kept, State((7, b"last"), 14, 14, frozenset(), 12, [], frozenset()))
    assert kept.accounted == (13, frozenset())


# -- what the log says ------------------------------------------------------------------------------------------------


class Log:
    """A log in memory, as a sequencer writes it."""

    def __init__(self, note: bytes = b"") -> None:
        self.sequencer = LogSequencer(WORKSPACE_ID, LOG_SEED, lambda: NOW)
        self.row: Row | None = None
        self.leaves: list[Any] = []
        self.manifests: dict[int, Any] = {}
        self.heads: list[Head] = []
        self.add([(WORKSPACE, (WS,), FIRST_ROW)], note)

    def add(self, changes: list[tuple[Table, Row, Row | None]], *details: bytes) -> Head:
        for put in self.sequencer.sequence(self.row, [Event("read", one) for one in details], changes):
            if put.table is LOG_HEAD:
                self.row = put.row
            elif put.table is LOG_LEAF:
                self.leaves.append(put.row[2])
            elif put.table is LOG_MANIFEST:
                self.manifests[put.row[1]] = put.row[2]
        assert self.row is not None
        self.heads.append((self.row[1], self.row[2]))
        return self.heads[-1]

    def grown(self, since: int, size: int | None = None) -> list[Grown]:
        end = len(self.leaves) if size is None else size
        return [(at, self.leaves[at], self.manifests.get(at)) for at in range(since, end)]

    def follow(self, cache: RowCache, head: Head) -> Kept:
        """Of a view at this head."""
        return cache.follow(head, lambda since: self.grown(since, head[0]))


def test_a_log_is_followed_only_as_it_was_written() -> None:
    log = Log()
    before = log.heads[-1]
    log.add([], b"one", b"two")
    after = log.add([(BLOCK, KEY, counter(1))], b"three")
    grown = log.grown(before[0])
    found = follow(before, after, grown)
    assert found is not None
    assert found[0][-1] == after and len(found[0]) == len(grown)
    assert found[1] == {(BLOCK.name, key_hash(KEY))}
    at = max(log.manifests)
    broken = {
        "a leaf is missing": [one for one in grown if one[0] != before[0]],
        "the last one is missing": grown[:-1],
        "one too many": [*grown, (after[0], grown[-1][1], None)],
        "in another order": grown[::-1],
        "a manifest is gone": [(*one[:2], None) for one in grown],
        "a manifest is another": [
            (*one[:2], log.manifests[0 + 1] if one[0] == at else one[2]) for one in grown
        ],
        "a leaf is another": [(grown[0][0], b"\x00", None), *grown[1:]],
    }
    for what, rows in broken.items():
        assert follow(before, after, rows) is None, what
    assert follow((before[0], bytes(len(before[1]))), after, grown) is None
    assert follow((before[0] + 1, before[1] + b"x"), after, grown) is None


def test_a_log_that_is_another_than_before_leaves_nothing_kept() -> None:
    """A restored backup, or a standby that lacks the end: shorter, as long, or longer by now, but other leaves."""
    ours, other = Log(), Log()
    for log, detail in ((ours, b"a"), (other, b"b")):
        log.add([], b"same")
        for _ in range(4):
            log.add([], detail)
    place = (BLOCK.name, KEY)

    def known() -> tuple[RowCache, Kept]:
        cache = RowCache(sequencer())
        kept = cache.restart(ours.heads[1])
        for head in ours.heads[2:4]:
            kept = ours.follow(cache, head)
        kept.tell(place, counter(1), kept.head[0])
        return cache, kept

    for number, head in enumerate(other.heads[2:]):
        cache, kept = known()
        assert other.follow(cache, head) is not kept, number
        assert not len(cache.kept) and cache.kept.head == head
    cache, kept = known()
    for head in (*ours.heads[1:], ours.heads[1]):  # of this log, every head is one that was passed or follows
        assert ours.follow(cache, head) is kept and len(kept) == 1
    cache, kept = known()
    assert ours.follow(cache, ours.heads[0]) is not kept  # from before what is remembered


def test_more_leaves_than_are_worth_reading_leave_nothing_kept() -> None:
    log = Log()
    cache = RowCache(sequencer())
    kept = cache.restart(log.heads[-1])
    assert cache.follow(log.add([], *[b"x"] * FAR), log.grown) is kept
    assert cache.follow(log.add([], *[b"x"] * (FAR + 1)), log.grown) is not kept
