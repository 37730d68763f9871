"""What the log costs when it is long: a proof, a check of everything, a check of what is new, a commit.

The leaves are synthetic: events with 288 bytes of details each, written past the sequencer in the form that it writes
(one at a time would take hours), signed by a key of the bench's own. The store has one row beside them: rows cost a
check what they cost it without a long log. Targets are those of 10 million leaves.

    python -m bench.log                      10 million leaves, about 5 GB in a temporary folder
    python -m bench.log --leaves 100000
    python -m bench.log --keep DIR           make the store there, or use the one that is there
"""

from __future__ import annotations

import argparse
import random
import resource
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from tallystone.audit.checkpoint import Checkpoint, origin_of, sign_checkpoint
from tallystone.audit.leaf import Leaf
from tallystone.audit.merkle import Frontier, leaf_hash, verify_inclusion
from tallystone.audit.published import Published
from tallystone.audit.sequencer import LogSequencer
from tallystone.audit.tree import kept
from tallystone.audit.verify import verify
from tallystone.cli.terminal import progress
from tallystone.crypto import Signer
from tallystone.store.protocol import Batch, Event, Put
from tallystone.store.sqlite import SqliteStore
from tallystone.store.tables import LOG_HEAD, WORKSPACE, WS

SEED, WORKSPACE_ID, MINUTE = bytes(range(32)), bytes(range(32)), 29_000_000
PUBLIC = Signer(SEED).public
PROOFS, COMMITS = 2000, 200
_CHUNK = 20_000

TARGETS = {"proof": 1e-3, "check": 15 * 60.0, "memory": 200.0, "new": 1.0}


def opened(path: Path, create: bool = False) -> SqliteStore:
    """The store, with the log's key."""
    return SqliteStore(path, LogSequencer(WORKSPACE_ID, SEED, lambda: MINUTE * 60), create)


def make(path: Path, leaves: int) -> None:
    """A store with so many leaves."""
    with opened(path, create=True) as store:
        store.commit(Batch(changes=[Put(WORKSPACE, (WS, WORKSPACE_ID, b"record"))]))
        with store.snapshot() as snapshot:
            head = snapshot.get(LOG_HEAD, (WS,))
    assert head is not None
    tree = Frontier(head[1], head[2])
    raw = sqlite3.connect(path, isolation_level=None)
    raw.execute("PRAGMA synchronous = OFF")
    with progress("making leaves") as step:
        numbers = iter(range(tree.size, leaves))
        while some := list(islice(numbers, _CHUNK)):
            _write(raw, tree, some)
            step(tree.size, leaves)
    note = sign_checkpoint(Checkpoint(origin_of(WORKSPACE_ID), tree.size, tree.root()), Signer(SEED))
    raw.execute("UPDATE log_head SET size = ?, frontier = ?, checkpoint = ?", (tree.size, tree.pack(), note))
    raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    raw.close()


def _write(raw: sqlite3.Connection, tree: Frontier, numbers: list[int]) -> None:
    leaves, details, nodes = [], [], []
    for number in numbers:
        detail = sha256(b"%d" % number).digest() * 9
        leaf = Leaf(number, MINUTE, "read", sha256(detail).digest()).encode()
        leaves.append((WS, number, leaf))
        details.append((WS, number, detail))
        completed = kept(tree.append(leaf_hash(leaf)))
        nodes += [(WS, height, number >> height, node) for height, node in completed]
    raw.execute("BEGIN")
    raw.executemany("INSERT INTO log_leaf VALUES (?, ?, ?)", leaves)
    raw.executemany("INSERT INTO log_detail VALUES (?, ?, ?)", details)
    raw.executemany("INSERT INTO log_node VALUES (?, ?, ?, ?)", nodes)
    raw.execute("COMMIT")


def proofs(store: SqliteStore) -> list[float]:
    """Seconds for each of many proofs, of random leaves, from opening a snapshot to the verified path."""
    dice, took = random.Random(7), []
    with store.snapshot() as snapshot:
        head = Published(snapshot).head
    for _ in range(PROOFS):
        index = dice.randrange(head.size)
        began = time.perf_counter()
        with store.snapshot() as snapshot:
            log = Published(snapshot)
            proof = log.tree.inclusion(index)
            leaf = log.tree.nodes(0, index, 1)[0]
        took.append(time.perf_counter() - began)
        assert verify_inclusion(index, head.size, leaf, proof, head.root)
    return took


def commits(store: SqliteStore) -> list[float]:
    """Seconds for each of many commits of one event."""
    took = []
    for number in range(COMMITS):
        began = time.perf_counter()
        store.commit(Batch(events=[Event("read", b"%d" % number)]))
        took.append(time.perf_counter() - began)
    return took


def checked(path: Path, state: Path, new: bool) -> None:
    """In a process of its own: check, and print seconds, megabytes at most and before, leaves looked at, seconds of the
    processor."""
    with opened(path) as store, store.snapshot() as snapshot, progress("checking") as step:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        began, busy = time.perf_counter(), time.process_time()
        since = state.read_bytes() if new else None
        report = verify(
            snapshot, log_public=PUBLIC, workspace=WORKSPACE_ID, since=since, keep_state=True, progress=step
        )
        took, busy = time.perf_counter() - began, time.process_time() - busy
    assert report.state is not None, report.findings
    if not new:
        state.write_bytes(report.state.encode())
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(took, most / 1024, before / 1024, report.leaves, busy)


class Cost(NamedTuple):
    """What one check took."""

    seconds: float
    most: float
    before: float
    leaves: int
    busy: float


def _apart(path: Path, state: Path, which: str) -> Cost:
    command = [sys.executable, "-m", "bench.log", "--check", which, str(path), str(state)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.split()
    return Cost(float(done[0]), float(done[1]), float(done[2]), int(done[3]), float(done[4]))


def _lines(path: Path, leaves: int) -> Iterator[tuple[str, str, str]]:
    state = path.with_suffix(".state")
    yield "leaves", f"{leaves:,}", ""
    yield "file", f"{path.stat().st_size / 1e6:,.0f} MB", ""
    with opened(path) as store:
        took = proofs(store)
        middle, p99 = statistics.median(took), statistics.quantiles(took, n=100)[98]
        yield "inclusion proof, median", f"{middle * 1e3:.2f} ms", _held(middle, "proof")
        yield "inclusion proof, 99 %", f"{p99 * 1e3:.2f} ms", ""
    whole = _apart(path, state, "all")
    yield (
        "keyless check",
        f"{whole.seconds:,.0f} s ({whole.busy:,.0f} s of one core)",
        _held(whole.seconds, "check"),
    )
    yield (
        "its memory",
        f"{whole.most:,.0f} MB ({whole.before:,.0f} before it began)",
        _held(whole.most, "memory"),
    )
    with opened(path) as store:
        took = commits(store)
        yield "commit of one event, median", f"{statistics.median(took) * 1e3:.2f} ms", ""
    new = _apart(path, state, "new")
    yield (
        f"check of {new.leaves} new leaves",
        f"{new.seconds:.2f} s, {new.most:,.0f} MB",
        _held(new.seconds, "new"),
    )


def _held(value: float, target: str) -> str:
    return "" if value < TARGETS[target] else "MISSED"


def main(arguments: list[str] | None = None) -> int:
    """Measure, and print a table. 1 if a target was missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--leaves", type=int, default=10_000_000)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--check", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.check:
        which, path, state = given.check
        checked(Path(path), Path(state), which == "new")
        return 0
    missed = False
    with tempfile.TemporaryDirectory() as folder:
        home: Path = given.keep or Path(folder)
        home.mkdir(parents=True, exist_ok=True)
        path = home / f"log-{given.leaves}.db"
        if not path.exists():
            make(path, given.leaves)
        for name, value, verdict in _lines(path, given.leaves):
            print(f"{name:<30} {value:>40}  {verdict}".rstrip(), flush=True)
            missed = missed or bool(verdict)
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
