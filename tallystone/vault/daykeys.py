"""The keys of days: what the keys of a block that expires, and answers kept for retries, are nested in until their day
is over (design §6).

    DIR/server-keys/days/20833    32 random bytes, for all blocks whose last day is 20833 (days since 1970)

They open nothing alone. They lie beside the log's key and not in the database, so no backup of the database has them:
once such a file is destroyed, a restored backup does not bring the blocks of that day back.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from tallystone import crypto
from tallystone.errors import StoreError

DAYS = "days"
"""The folder of the day keys, in the folder of the server's keys."""

_READING = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


class DayKeys:
    """The day keys in one folder. Several processes may share it; safe to use from several threads.

    Nothing is remembered between calls: what another process destroyed is gone for this one as well.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._prefix = (
            f"{folder}{os.sep}"  # each answer that is kept reads one: no path is taken apart for that
        )
        self._durable: set[int] = set()  # days whose file this process has made durable, or found so

    def __repr__(self) -> str:
        return f"DayKeys({self._folder.name})"

    def get(self, day: int) -> bytes | None:
        """The key (32 bytes) of `day` (days since 1970), or None if it was destroyed or never made.

        Raises `StoreError` when it is there and cannot be read.
        """
        try:
            handle = os.open(f"{self._prefix}{day}", _READING)
            try:
                key = os.read(handle, crypto.KEY_SIZE + 1)
            finally:
                os.close(handle)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _unreadable(error.strerror or "it cannot be read") from error
        if len(key) != crypto.KEY_SIZE:
            raise _unreadable("it does not have its length")
        return key

    def make(self, day: int) -> bytes:
        """The key of `day`, made if there is none yet, and durable when this returns. Raises `StoreError`.

        Of several processes that make it at once, one wins and all get that one's.
        """
        known = self.get(day)
        if known is not None and day in self._durable:
            return known
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            if known is None:
                self._write(day)
            # Also for what another process made: it may not have come to this yet.
            _sync(self._folder)
            _sync(self._folder.parent)
        except OSError as error:
            raise StoreError(
                f"cannot make the key of a day: {error.strerror}",
                hint="check the permissions of server-keys/days in the data directory",
                code="no_day_key",
            ) from error
        key = self.get(day)
        if key is None:
            raise _unreadable("it is gone again")
        self._durable.add(day)
        return key

    def _write(self, day: int) -> None:
        temporary = self._folder / f".{day}.{crypto.random_bytes(8).hex()}"
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(crypto.random_bytes())
                file.flush()
                os.fsync(file.fileno())
            # A link, unlike a rename, never replaces: whoever came first has made the key for all.
            with contextlib.suppress(FileExistsError):
                os.link(temporary, self._path(day))
        finally:
            temporary.unlink()

    def any_before(self, day: int) -> bool:
        """Whether the key of an earlier day is still there."""
        try:
            return any(name.isdecimal() and int(name) < day for name in os.listdir(self._folder))
        except OSError:
            return False

    def destroy(self, before: int) -> list[int]:
        """Remove the keys of all days before `before`, durably. Returns those days, sorted. Raises `StoreError`."""
        try:
            names = os.listdir(self._folder)
        except FileNotFoundError:
            return []
        gone = sorted(int(name) for name in names if name.isdecimal() and int(name) < before)
        # What a process left that died while it made a key: nothing was ever wrapped under it.
        left = [name for name in names if name.startswith(".") and _day_of(name) < before]
        try:
            for name in [*map(str, gone), *left]:
                (self._folder / name).unlink(missing_ok=True)
            if gone or left:
                _sync(self._folder)
        except OSError as error:
            raise StoreError(
                f"cannot remove the key of a day: {error.strerror}",
                hint="check the permissions of server-keys/days in the data directory",
                code="no_day_key",
            ) from error
        return gone

    def _path(self, day: int) -> Path:
        return self._folder / str(day)


def _day_of(name: str) -> int:
    day = name.split(".")[1]
    return int(day) if day.isdecimal() else 0


def _sync(folder: Path) -> None:
    """Make the names in a folder durable."""
    handle = os.open(folder, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _unreadable(why: str) -> StoreError:
    return StoreError(
        f"the key of a day cannot be used: {why}",
        hint="check server-keys/days in the data directory",
        code="no_day_key",
    )
