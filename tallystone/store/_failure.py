"""SQLite's errors in our words. The message never holds SQL, a value or a path."""

from __future__ import annotations

import sqlite3

from tallystone.errors import StoreError, StoreFull, Tampered

_BY_CODE: dict[int, tuple[str, str, str]] = {
    sqlite3.SQLITE_BUSY: ("busy", "another process holds the store", "try again, or end the other process"),
    sqlite3.SQLITE_LOCKED: ("busy", "another process holds the store", "try again, or end the other process"),
    sqlite3.SQLITE_READONLY: (
        "read_only",
        "the store cannot be written",
        "check the permissions of its folder",
    ),
    sqlite3.SQLITE_PERM: ("no_access", "the store cannot be opened", "check the permissions of its folder"),
    sqlite3.SQLITE_AUTH: ("no_access", "the store cannot be opened", "check the permissions of its folder"),
    sqlite3.SQLITE_CANTOPEN: (
        "no_access",
        "the store cannot be opened",
        "check the path and its permissions",
    ),
    sqlite3.SQLITE_IOERR: ("io", "the disk failed", "check the disk and its log; nothing was acknowledged"),
    sqlite3.SQLITE_CORRUPT: ("corrupt", "the store's file is damaged", "restore a backup"),
    sqlite3.SQLITE_NOTADB: (
        "not_a_database",
        "the file is not a database",
        "check the path, or restore a backup",
    ),
}


def primary_code(error: sqlite3.Error) -> int:
    """SQLite's primary result code, 0 if the error did not come from SQLite itself."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def is_environmental(error: sqlite3.Error) -> bool:
    """Whether the disk, the file or another process is the cause, rather than what was to be written."""
    code = primary_code(error)
    return code == sqlite3.SQLITE_FULL or code in _BY_CODE


def translate(error: sqlite3.Error) -> StoreError | Tampered:
    """The error to raise in place of `error`."""
    code = primary_code(error)
    if code == sqlite3.SQLITE_FULL:
        return StoreFull("the disk is full", hint="make room; nothing of this change was written")
    if code in _BY_CODE:
        word, message, hint = _BY_CODE[code]
        return StoreError(message, hint=hint, code=word)
    if "decode to UTF-8" in str(error):
        return Tampered("a stored text is not UTF-8", hint="tallystone audit verify names the place")
    if code == sqlite3.SQLITE_ERROR and "no such" in str(error):
        return StoreError(
            "the store lacks a table or column", hint="tallystone audit verify names it", code="schema"
        )
    return StoreError("the store refused the request", code="refused")
