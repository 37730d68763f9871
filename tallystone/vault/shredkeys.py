"""The shred keys of blocks: what a block's keys are nested in, so that destroying 32 bytes ends it (design §6).

    DIR/server-keys/shred/6f1c…    a pool: slots of 32 random bytes, one for each block that was made by one process

They open nothing alone. They lie beside the log's key and not in the database, so no backup of the database has them:
once a slot is zeroed, a restored backup does not bring its block back. A file that holds many keys is what makes a new
block cost no fsync of its own: the pool is durable before its first slot is used. No pool has two processes that take
slots from it, and no slot is taken twice.

Overwriting in place destroys a key where the file system writes in place. Copy-on-write file systems, snapshots of a
disk, and flash below its controller may keep the old bytes for a while (docs/erasure.md).
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from threading import Lock

from tallystone import crypto
from tallystone.errors import StoreError

POOLS = "shred"
"""The folder of the pools, in the folder of the server's keys."""
FIRST_SLOTS, MOST_SLOTS = 8, 256
"""Slots of a process's first pool, and of its largest: each has twice as many as the one before."""

_NAME, _NUMBER = 16, 2
SLOT_SIZE = _NAME + _NUMBER
"""Bytes by which a block names its slot: the pool's name, then the slot's number."""
_ZERO = bytes(crypto.KEY_SIZE)
_READING = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0)


class ShredKeys:
    """The shred keys in one folder. Several processes may share it; safe to use from several threads.

    No key is remembered between calls: what another process destroyed is gone for this one as well.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._prefix = (
            f"{folder}{os.sep}"  # every request reads a key or two: no path is taken apart for that
        )
        self._lock = Lock()
        self._pool = b""
        self._next = self._size = 0
        self._pid = os.getpid()

    def __repr__(self) -> str:
        return f"ShredKeys({self._folder.name})"

    def take(self) -> bytes:
        """A slot (18 bytes) that nobody has had, with a new key in it that is durable. Raises `StoreError`."""
        with self._lock:
            if self._next == self._size or self._pid != os.getpid():
                self._begin()
            self._next += 1
            return self._pool + (self._next - 1).to_bytes(_NUMBER, "big")

    def get(self, slot: bytes, pools: dict[bytes, bytes] | None = None) -> bytes | None:
        """The key (32 bytes) in a slot, or None if it was destroyed or never was. Raises `StoreError` when it is there
        and cannot be read.

        With `pools`, a map that lives as long as one view, each file is read once for all of its keys: who lists blocks
        looks at one moment.
        """
        if len(slot) != SLOT_SIZE:
            return None
        pool, offset = slot[:_NAME], int.from_bytes(slot[_NAME:], "big") * crypto.KEY_SIZE
        if pools is None:
            key = self._read(pool, offset, crypto.KEY_SIZE)
        else:
            keys = pools.get(pool)
            if keys is None:
                keys = pools[pool] = self._read(pool, 0, MOST_SLOTS * crypto.KEY_SIZE)
            key = keys[offset : offset + crypto.KEY_SIZE]
        if key == b"" or key == _ZERO:
            return None
        if len(key) != crypto.KEY_SIZE:
            raise _failure("read", "it does not have its length")
        return key

    def _read(self, pool: bytes, offset: int, size: int) -> bytes:
        """Bytes of a pool; none if there is no such pool."""
        try:
            handle = os.open(self._prefix + pool.hex(), _READING)
            try:
                return os.pread(handle, size, offset)
            finally:
                os.close(handle)
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise _failure("read", error.strerror or "it cannot be read") from error

    def destroy(self, slots: Iterable[bytes]) -> None:
        """Overwrite the keys in these slots, durably; those that are gone stay so. A pool in which nothing is left is
        removed. Raises `StoreError`."""
        pools: dict[bytes, set[int]] = {}
        for slot in slots:
            if len(slot) == SLOT_SIZE:
                pools.setdefault(slot[:_NAME], set()).add(_offset(slot))
        try:
            for pool, offsets in pools.items():
                self._overwrite(self._path(pool), offsets)
        except OSError as error:
            raise _failure("destroy", error.strerror or "it cannot be written") from error

    def close(self) -> None:
        """Give back the slots that were not used. Nothing was ever nested under them."""
        with self._lock:
            left, self._next = self._next, self._size
            if left == self._size or self._pid != os.getpid():
                return
            path = self._path(self._pool)
            try:
                if left:
                    os.truncate(path, left * crypto.KEY_SIZE)
                else:
                    path.unlink()
            except OSError:
                return  # keys that are never used harm nobody

    def _begin(self) -> None:
        """Make a new pool. It is durable before it is used: a block whose key is lost in a crash could not be read."""
        mine = self._pid == os.getpid()
        size = min(self._size * 2, MOST_SLOTS) if self._size and mine else FIRST_SLOTS
        pool = crypto.random_bytes(_NAME)
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            handle = os.open(self._path(pool), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "wb") as file:
                file.write(crypto.random_bytes(size * crypto.KEY_SIZE))
                file.flush()
                os.fsync(file.fileno())
            _sync(self._folder)
            _sync(self._folder.parent)
        except OSError as error:
            raise _failure("make", error.strerror or "it cannot be written") from error
        self._pool, self._next, self._size, self._pid = pool, 0, size, os.getpid()

    def _overwrite(self, path: Path, offsets: set[int]) -> None:
        try:
            handle = os.open(path, os.O_RDWR | getattr(os, "O_CLOEXEC", 0))
        except FileNotFoundError:
            return
        try:
            end = os.fstat(handle).st_size
            for offset in offsets:
                if offset < end:
                    os.pwrite(handle, _ZERO, offset)
            os.fsync(handle)
            left = any(os.pread(handle, end, 0))
        finally:
            os.close(handle)
        if not left:  # slots that are still to be taken hold keys: only a pool that is used up is empty
            path.unlink(missing_ok=True)
            _sync(self._folder)

    def _path(self, pool: bytes) -> Path:
        return self._folder / pool.hex()


def _offset(slot: bytes) -> int:
    return int.from_bytes(slot[_NAME:], "big") * crypto.KEY_SIZE


def _sync(folder: Path) -> None:
    """Make the names in a folder durable."""
    handle = os.open(folder, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _failure(what: str, why: str) -> StoreError:
    return StoreError(
        f"cannot {what} a block's shred key: {why}",
        hint="check the disk, and the permissions of server-keys/shred in the data directory",
        code="no_shred_key",
    )
