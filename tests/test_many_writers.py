"""Commits of several processes to one store: who waits for another process's commit waits once, not twice."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from store_rows import counter, make_store
from stores import POSTGRESQL, location

from tallystone.errors import Conflict
from tallystone.store.protocol import Batch, Event, Expect, Put, Row
from tallystone.store.tables import BLOCK, WS


@contextmanager
def another_process_writes(path: Path) -> Iterator[None]:
    """It holds what commits wait for, as long as the block lasts."""
    if POSTGRESQL:
        import psycopg

        with psycopg.connect(str(location(path))) as raw:
            raw.execute("SELECT FROM log_head FOR UPDATE")
            yield
            raw.rollback()
    else:
        with closing(sqlite3.connect(path, isolation_level=None)) as raw:
            raw.execute("BEGIN IMMEDIATE")
            yield
            raw.execute("ROLLBACK")


class Groups:
    def __init__(self) -> None:
        self.sizes: list[tuple[int, int]] = []

    def wrote(self, batches: int, refused: int, seconds: float) -> None:
        self.sizes.append((batches, refused))

    def waited(self, began: int, ended: int) -> None:
        pass


@pytest.mark.parametrize("bad", [False, True])
def test_who_comes_while_a_commit_waits_for_another_process_shares_it(tmp_path: Path, bad: bool) -> None:
    """With `bad`, one who came later is at fault, and alone hears of it."""
    with make_store(tmp_path / "store.db") as store:
        store.commit(Batch(changes=[Put(BLOCK, counter(1))]))
        groups, answers = Groups(), dict[int, int | Exception]()
        store.observe(groups)

        def commit(number: int, expected: Row) -> None:
            row = counter(number, b"%d" % number)
            batch = Batch([Expect(BLOCK, (WS, b"counter"), expected)], [Put(BLOCK, row)], [Event("x", b"y")])
            if bad and number == 2:
                batch.changes.append(Put(BLOCK, (*row[:3], "no number", *row[4:])))
            try:
                answers[number] = store.commit(batch)
            except Exception as error:
                answers[number] = error

        queue = store._commits
        threads = [
            threading.Thread(target=commit, args=(number, counter(2 if number == 3 else 1)))
            for number in range(4)
        ]
        with another_process_writes(tmp_path / "store.db"):
            threads[0].start()
            while not (queue._led and not queue._waiting):  # it has begun, and cannot end
                pass
            for number, thread in enumerate(threads[1:]):
                thread.start()
                while len(queue) <= number:
                    pass
        for thread in threads:
            thread.join(30)
        assert groups.sizes == [(4, 2 if bad else 1)]
        assert isinstance(answers[3], Conflict)
        assert isinstance(answers[2], Exception) == bad
        good = [number for number in range(4) if isinstance(answers[number], int)]
        assert [answers[number] for number in good] == sorted({answers[number] for number in good})
        with store.snapshot() as view:
            for number in range(4):
                there = counter(number, b"%d" % number) if number in good else None
                assert view.get(BLOCK, (WS, b"%d" % number)) == there
