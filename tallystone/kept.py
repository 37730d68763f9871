"""What a process keeps from one request to the next, and how much of it: bounds, and two ways of keeping them.

None of it opens anything (ADR 0031): rows as they lie in the database, hashes of verdicts, public records, and
ciphertext under keys that the next request brings. All of it can go at any time; then the next request does again what
had been done before.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from sys import getsizeof
from threading import Lock
from typing import Generic, TypeVar

MIB = 1024 * 1024

ROWS = 20 * MIB
"""Rows as they lie in the database: those of 1,800 blocks of 1 KB (`store._rows`)."""
REMOTE_ROWS = 12 * MIB
"""The same of PostgreSQL, those of 1,000 blocks. Where others write as well, a row is found by its name in the log too,
which takes as much as half of it."""
PAGES_OF_READER, PAGES_OF_WRITER = MIB // 2, 2 * MIB
"""Of a SQLite file, as its library keeps them for each connection that reads, and for the one that writes. Whatever is
committed ends what the readers have, so more would serve a single long answer alone."""
BLOCKS = 20 * MIB
"""Blocks sealed again for who opened them, as they were shown, and whom their grants are to: some 2,000 of 1 KB
(`vault.recall`)."""
TOKENS = 4 * MIB
"""Tokens sealed again for who brings them: some 1,000 (`vault.opened_tokens`)."""
IDENTITIES = 4 * MIB
"""Verified records of principals: some 700."""
GENESES = 2 * MIB
"""First statements of blocks: some 2,600."""
SIGNATURES = 32_768
"""Signatures that were verified, each by a hash of 32 bytes: 1 MiB from the start (`crypto.verify_once`)."""
VERDICTS = 32_768
"""Other verdicts of a workspace, alike."""

ENTRY = 250
"""Bytes that an entry of `Recent` takes beside its value: of its key, of a tuple, of two tables."""

_CELL, _POINTER = 40, 8
_PLACES = 2
_SIZE = 32

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


def weight_of(row: Sequence[int | str | bytes | None]) -> int:
    """Bytes that a row takes: those of its cells, and of Python's objects."""
    return _CELL + _POINTER * len(row) + sum(map(getsizeof, row))


class _Entry(Generic[Value]):
    __slots__ = ("asked", "value", "weight")

    def __init__(self, value: Value, weight: int) -> None:
        self.value, self.weight, self.asked = value, weight, False


class Recent(Generic[Key, Value]):
    """What was asked for last, as much of it as fits into `limit` bytes. Safe to use from several threads.

    When something must go, it is the oldest; what was asked for since it was the oldest before counts as new (the clock
    algorithm). So asking moves nothing and takes no lock.

    Whoever puts something in says what it weighs: of Python's objects, twice to thrice the bytes that they hold.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.weight = 0
        """Bytes, at most `limit`."""
        self._lock = Lock()
        self._entries: OrderedDict[Key, _Entry[Value]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return f"Recent({len(self)} entries, {self.weight} bytes)"

    def get(self, key: Key) -> Value | None:
        """What was kept under this key."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        entry.asked = True
        return entry.value

    def put(self, key: Key, value: Value, weight: int) -> None:
        """Keep this under its key, in place of what was there; what was not asked for goes for it. What is heavier than
        half of all is not kept."""
        weight += ENTRY
        with self._lock:
            before = self._entries.pop(key, None)
            if before is not None:
                self.weight -= before.weight
            if weight > self.limit // 2:
                return
            self._entries[key] = _Entry(value, weight)
            self.weight += weight
            spared = len(self._entries)  # each of them once, however many are asked for meanwhile
            while self.weight > self.limit:
                oldest, entry = self._entries.popitem(last=False)
                if entry.asked and spared > 0:
                    entry.asked, spared = False, spared - 1
                    self._entries[oldest] = entry
                else:
                    self.weight -= entry.weight

    def drop(self, key: Key) -> None:
        """Forget what was kept under this key."""
        with self._lock:
            entry = self._entries.pop(key, None)
            if entry is not None:
                self.weight -= entry.weight

    def values(self) -> list[Value]:
        """All that is kept, the oldest first."""
        with self._lock:
            return [entry.value for entry in self._entries.values()]

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._entries.clear()
            self.weight = 0


class Digests:
    """A set of SHA-256 digests in a table of fixed size: a new one takes the place of one that came there before.

    A set of Python's takes five times as much, and grows for as long as there are new ones. Safe to use from several
    threads, without a lock: a place is read, and written, in one step of the interpreter.
    """

    def __init__(self, count: int) -> None:
        """For `count` digests of 32 bytes."""
        self._pairs = count // _PLACES
        self._table = bytearray(self._pairs * _PLACES * _SIZE)  # no digest is 32 zeros

    def __repr__(self) -> str:
        return f"Digests({self._pairs * _PLACES})"

    def __contains__(self, digest: bytes) -> bool:
        table, place = self._table, hash(digest) % self._pairs * (_PLACES * _SIZE)
        return table[place : place + _SIZE] == digest or table[place + _SIZE : place + 2 * _SIZE] == digest

    def add(self, digest: bytes) -> None:
        """Keep a digest of 32 bytes, in place of the older of the two that share its place."""
        table, place = self._table, hash(digest) % self._pairs * (_PLACES * _SIZE)
        before = table[place : place + _SIZE]
        if before != digest:
            table[place : place + 2 * _SIZE] = digest + before

    def clear(self) -> None:
        """Forget everything."""
        self._table[:] = bytes(len(self._table))
