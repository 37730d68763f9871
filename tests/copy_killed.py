"""Copies that stop in the middle.

As a program, the one that `test_moving.py` kills: `python copy_killed.py N ROWS`, with two stores in the environment.

Batches have at most ROWS rows. Instead of writing the batch with the number N the process kills itself, by SIGKILL:
what it wrote before is all there is, as after a kill from outside at that moment. With N = -1 it is killed when all is
written, in place of the end.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tallystone.store import moving, opening
from tallystone.store.tables import Row, Table
from tallystone.vault import moving as moves


class Stopping:
    """A target that calls `stop` instead of writing the batch with the number `left`, or in place of the end."""

    def __init__(self, place: Path | str, left: int, stop: Callable[[], None]) -> None:
        self._target = opening.open_target(place)
        self._left = left
        self._stop = stop

    def __getattr__(self, name: str) -> Any:
        return getattr(self._target, name)

    def append(self, table: Table, rows: list[Row]) -> None:
        self._count()
        self._target.append(table, rows)

    def change(self, table: Table, puts: list[Row], deletes: list[Row]) -> None:
        self._count()
        self._target.change(table, puts, deletes)

    def finish(self) -> None:
        self._stop()

    def _count(self) -> None:
        if self._left == 0:
            self._stop()
        self._left -= 1


def _place(variable: str) -> Path | str:
    named = os.environ[variable]
    return Path(named.removeprefix("sqlite:")) if named.startswith("sqlite:") else named


def main() -> None:
    moving.BATCH_ROWS = int(sys.argv[2])
    vars(moves)["open_target"] = lambda place: Stopping(
        place, int(sys.argv[1]), lambda: os.kill(os.getpid(), signal.SIGKILL)
    )
    moves.move(_place("TALLYSTONE_COPY_FROM"), _place("TALLYSTONE_COPY_TO"))


if __name__ == "__main__":
    main()
