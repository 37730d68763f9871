"""How a check reads the store: as far as it can be read at all, and saying where it cannot."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tallystone.audit.report import Report
from tallystone.errors import StoreError, Tampered
from tallystone.store.protocol import Snapshot
from tallystone.store.tables import WS, Cell, Row, Table

Progress = Callable[[int, int], None]
"""Called now and then with (rows and leaves looked at, how many there seem to be)."""

_STEP = 1000
_PAGE = 512


class Reading:
    """The rows of one snapshot. What is unreadable goes into the report."""

    def __init__(self, snapshot: Snapshot, report: Report, progress: Progress | None) -> None:
        self.snapshot = snapshot
        self.report = report
        self.unreadable: set[str] = set()
        self.done = self.total = 0
        self._progress = progress

    def get(self, table: Table, key: Row) -> Row | None:
        """One row; None if there is none, or none that can be read."""
        try:
            return self.snapshot.get(table, key)
        except (Tampered, StoreError) as error:
            self._note_unreadable(table, error)
            return None

    def rows(self, table: Table) -> Iterator[Row]:
        """The table's rows, as far as they can be read."""
        try:
            yield from self.snapshot.rows(table)
        except (Tampered, StoreError) as error:
            self._note_unreadable(table, error)

    def rows_from(self, table: Table, *prefix: int, start: int) -> Iterator[Row]:
        """The rows of this workspace below a key prefix whose next key column is `start` or more."""
        after = start - 1
        try:
            while some := self.snapshot.scan(table, (WS, *prefix), after=after, limit=_PAGE):
                yield from some
                after = some[-1][1 + len(prefix)]
        except (Tampered, StoreError) as error:
            self._note_unreadable(table, error)

    def tick(self) -> None:
        """One more row was looked at."""
        self.done += 1
        if self._progress is not None and self.done % _STEP == 0:
            self._progress(self.done, max(self.total, self.done))

    def _note_unreadable(self, table: Table, error: Tampered | StoreError) -> None:
        if isinstance(error, StoreError) and error.code not in ("corrupt", "schema"):
            raise error  # the disk or the lock, not what is stored
        if table.name not in self.unreadable:
            self.unreadable.add(table.name)
            self.report.add(f"table {table.name}", f"cannot be read to its end: {error.message}")


class Beside:
    """A walk along a table in step with the leaves. Rows that are passed over lie beside no leaf, and are reported."""

    def __init__(self, rows: Iterator[Row], table: Table, report: Report) -> None:
        self._rows = rows
        self._table = table
        self._report = report
        self._row = next(rows, None)

    def take(self, seq: int | None) -> Cell:
        """The cell beside a leaf number, None if there is none. The numbers must ascend, and None ends the walk."""
        while (row := self._row) is not None:
            ws, number, cell = row
            if ws == WS and isinstance(number, int) and seq is not None and number >= seq:
                if number > seq:
                    return None
                found: Cell = cell
                self._row = next(self._rows, None)
                return found
            self._report.add(place(self._table, (ws, number)), "lies beside no leaf")
            self._row = next(self._rows, None)
        return None


def place(table: Table, key: Row) -> str:
    """A row's name in findings."""
    cells = [cell.hex()[:16] if isinstance(cell, bytes) else str(cell) for cell in key[1:]]
    if key[0] != WS:
        cells.insert(0, f"ws {key[0]}")
    return " ".join([table.name, *cells])
