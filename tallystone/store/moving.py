"""Making one store equal to another, of whichever kind: the pass over all rows (ADR 0035).

A pass compares the rows of both in the order of their keys and writes what differs. So it needs no record of how far an
earlier one came: what is there already is read and left, and what follows the last row of the target is appended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from itertools import chain
from typing import Protocol

from tallystone.errors import StoreError
from tallystone.store.protocol import Snapshot
from tallystone.store.tables import TABLES, Row, Table

BATCH_ROWS = 2048
BATCH_BYTES = 4 << 20
"""A batch is written when it has so many rows or bytes: what a copy holds in memory, and what a kill costs."""

Step = Callable[[int, int], None]
"""Called now and then with (done, total)."""


class Source(Protocol):
    """A store that is read, and never changed, not even to bring its format up to date."""

    def snapshot(self) -> AbstractContextManager[Snapshot]:
        """A new read view; one at a time."""
        ...

    def count(self) -> int:
        """How many rows there are now. Raises `StoreError`."""
        ...

    def hold(self) -> AbstractContextManager[None]:
        """Nobody else writes to the store meanwhile. Raises `StoreError` (`busy`) if somebody has it open."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...


class Target(Protocol):
    """A store that is being made: no vault opens it before `finish`. One process at a time has it."""

    def begin(self, workspace: Row) -> None:
        """Make it for the workspace of this row, or go on with an unfinished copy of that.

        Raises `StoreError`: `occupied`, `not_ours`, `other_workspace`, `other_format`, `busy`.
        """
        ...

    def snapshot(self) -> AbstractContextManager[Snapshot]:
        """A new read view, to which an unfinished copy's schema is as it should be."""
        ...

    def append(self, table: Table, rows: list[Row]) -> None:
        """Write rows whose keys come after all that are there, in one transaction."""
        ...

    def change(self, table: Table, puts: list[Row], deletes: list[Row]) -> None:
        """Write these rows and remove those under these keys, in one transaction."""
        ...

    def finish(self) -> None:
        """Make it a store like any other, durably."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...


def bring(source: Snapshot, target: Target, total: int, step: Step) -> tuple[int, int]:
    """Make every table of `target` what `source` shows. Returns (rows of the source, rows written or removed).

    `total` is about how many rows there are, for `step`. Raises `StoreError`, `Tampered`.
    """
    one_pass = _Pass(target, total, step)
    for table in TABLES:
        one_pass.run(table, source.rows(table))
    step(one_pass.rows, one_pass.rows)
    return one_pass.rows, one_pass.written


class _Pass:
    def __init__(self, target: Target, total: int, step: Step) -> None:
        self.rows = self.written = 0
        self._target = target
        self._total = total
        self._step = step
        self._puts: list[Row] = []
        self._deletes: list[Row] = []
        self._bytes = 0

    def run(self, table: Table, ours: Iterator[Row]) -> None:
        with self._target.snapshot() as there:
            rest = self._compare(table, ours, there.rows(table))
        # The view is closed by now: a long append would make its database keep older states for it.
        for row in rest:
            self._read()
            self._keep(row)
            if self._is_full():
                self._append(table)
        self._append(table)

    def _compare(self, table: Table, ours: Iterator[Row], theirs: Iterator[Row]) -> Iterator[Row]:
        """Settle what the two have up to the last row of the target; return the rows of the source beyond it."""
        width = len(table.key)
        other = next(theirs, None)
        for row in ours:
            key = row[:width]
            while other is not None and other[:width] < key:
                self._deletes.append(other[:width])
                other = next(theirs, None)
            if other is None:
                self._change(table)
                return chain((row,), ours)
            self._read()
            if other[:width] != key:
                self._keep(row)
            else:
                if other != row:
                    self._keep(row)
                other = next(theirs, None)
            if self._is_full():
                self._change(table)
        while other is not None:
            self._deletes.append(other[:width])
            other = next(theirs, None)
            if self._is_full():
                self._change(table)
        self._change(table)
        return iter(())

    def _read(self) -> None:
        self.rows += 1
        if self.rows % 1024 == 0:
            self._step(self.rows, max(self._total, self.rows))

    def _keep(self, row: Row) -> None:
        self._puts.append(row)
        self._bytes += sum(len(cell) for cell in row if isinstance(cell, bytes | str))

    def _is_full(self) -> bool:
        return len(self._puts) + len(self._deletes) >= BATCH_ROWS or self._bytes >= BATCH_BYTES

    def _change(self, table: Table) -> None:
        if self._puts or self._deletes:
            self._target.change(table, self._puts, self._deletes)
            self._emptied()

    def _append(self, table: Table) -> None:
        if self._puts:
            self._target.append(table, self._puts)
            self._emptied()

    def _emptied(self) -> None:
        self.written += len(self._puts) + len(self._deletes)
        self._puts, self._deletes, self._bytes = [], [], 0


def occupied(place: str) -> StoreError:
    """The target holds a workspace."""
    return StoreError(
        f"{place} holds a workspace already",
        hint="copy to an empty database or a new directory",
        code="occupied",
    )


def check_begun(row: Row | None, workspace: Row, numbers: list[int], wanted: list[int]) -> None:
    """Raises `StoreError` unless an unfinished copy is of this workspace and of the migrations that this version knows.
    `row`, `numbers`: its row of the workspace, its `schema_version`."""
    if row is not None and row[1] != workspace[1]:
        raise StoreError(
            "the target is an unfinished copy of another workspace",
            hint="name the source that it was begun with, or an empty target",
            code="other_workspace",
        )
    if numbers != wanted:
        raise StoreError(
            "the target is an unfinished copy that another version of tallystone began",
            hint="finish it with that version, or name an empty target",
            code="other_format",
        )
