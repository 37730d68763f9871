"""A store with a row in every table, for the tests of the store and of the log."""

from __future__ import annotations

from pathlib import Path

from stores import location

from tallystone.audit.sequencer import LogSequencer
from tallystone.audit.verify import EXEMPT, Report, verify
from tallystone.crypto import signing_public
from tallystone.store import opening
from tallystone.store._columns import INTEGER, TEXT, columns
from tallystone.store.protocol import Batch, Delete, Event, Put, Row, Store, Table
from tallystone.store.tables import BLOCK, LOG_DETAIL, TABLES, WORKSPACE, WS, Cell

WORKSPACE_ID = bytes(range(32))
LOG_SEED = bytes(range(100, 132))
LOG_PUBLIC = signing_public(LOG_SEED)
NOW = 1_800_000_000
FIRST_ROW: Row = (WS, WORKSPACE_ID, b"the signed record")
LIVE = tuple(table for table in TABLES if table.name not in EXEMPT)


def sequencer() -> LogSequencer:
    return LogSequencer(WORKSPACE_ID, LOG_SEED, lambda: NOW)


def make_store(path: Path) -> Store:
    """A new store that holds the workspace's row and one event."""
    return begin(opening.open_store(location(path, create=True), sequencer(), create=True))


def begin(store: Store) -> Store:
    """Write the workspace's row and one event."""
    store.commit(Batch(changes=[Put(WORKSPACE, FIRST_ROW)], events=[Event("create", b"workspace")]))
    return store


def open_store(path: Path) -> Store:
    return opening.open_store(location(path), sequencer())


def check(store: Store, pin: bytes | None = None) -> Report:
    with store.snapshot() as snapshot:
        return verify(snapshot, log_public=LOG_PUBLIC, pin=pin)


def counter(number: int, name: bytes = b"counter") -> Row:
    """A block row whose version is `number`."""
    return (WS, name, 0, number, 0, 0, None, None)


def sample_row(table: Table, number: int) -> Row:
    """The `number`-th made-up row of a table; odd ones leave out what may be left out."""
    cells: list[Cell] = [WS]
    for index, column in list(enumerate(columns()[table.name]))[1:]:
        if column.nullable and number % 2:
            cells.append(None)
        elif column.kind == INTEGER:
            cells.append(1000 * number + index)
        elif column.kind == TEXT:
            cells.append(f"{table.name}-{number}-{index}")
        else:
            cells.append(f"{table.name}/{number}/{index}/".encode() * 3)
    return tuple(cells)


def make_full_store(path: Path) -> Store:
    """A store with three rows in every table, some of them rewritten, one deleted, and one event erased."""
    store = make_store(path)
    for table in LIVE:
        if table is WORKSPACE:
            continue
        rows = [sample_row(table, number) for number in range(1, 5)]
        created = Event("create", table.name.encode())
        store.commit(Batch(changes=[Put(table, row) for row in rows], events=[created]))
        old = sample_row(table, 7)
        store.commit(Batch(changes=[Put(table, table.key_of(rows[0]) + old[len(table.key) :])]))
        store.commit(Batch(changes=[Put(table, rows[0]), Delete(table, table.key_of(rows[3]))]))
    for number in range(5):
        store.commit(
            Batch(events=[Event("read", b"read %d" % number), Event("denied", b"denied %d" % number)])
        )
    store.commit(Batch(changes=[Delete(LOG_DETAIL, (WS, 0))], events=[Event("erase", b"the first event")]))
    store.commit(Batch(changes=[Put(BLOCK, counter(1))]))
    return store
