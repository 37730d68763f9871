"""PostgreSQL's errors in our words. The message never holds SQL, a value, an address or a password."""

from __future__ import annotations

from tallystone.errors import StoreError, StoreFull

LOST = ""
"""In place of an SQLSTATE: the connection is gone, and the server said nothing."""
LOCKED, READ_ONLY = "55P03", "25006"
"""Somebody else holds a lock for too long; the server is a standby, or was told to take no writes."""
ABORTED = "25P02"
"""An earlier statement of this transaction has failed."""

_BY_STATE: dict[str, tuple[str, str, str]] = {
    "53300": (
        "busy",
        "the database takes no more connections",
        "raise max_connections, or use fewer processes",
    ),
    LOCKED: ("busy", "another process holds the store", "try again, or end the other process"),
    "57014": (
        "busy",
        "the database took too long",
        "try again; look for a long transaction in pg_stat_activity",
    ),
    "40001": ("busy", "the database is contended", "try again"),
    "40P01": ("busy", "the database is contended", "try again"),
    READ_ONLY: (
        "read_only",
        "the database takes no writes",
        "promote a standby, or name the primary: target_session_attrs=read-write",
    ),
    "42501": ("no_access", "the database refuses this user", "grant it what docs/postgresql.md lists"),
    "28P01": (
        "no_access",
        "the database refuses this user",
        "check user and password: TALLYSTONE_STORE, PGPASSWORD",
    ),
    "28000": ("no_access", "the database refuses this user", "check its pg_hba.conf, and user and password"),
    "3D000": (
        "missing",
        "there is no database of this name",
        "make it: createdb, as docs/postgresql.md shows",
    ),
    "3F000": ("missing", "there is no schema to work in", "make it, or check search_path in the URL"),
    "42P01": ("schema", "the store lacks a table or column", "tallystone audit verify names it"),
    "42703": ("schema", "the store lacks a table or column", "tallystone audit verify names it"),
    "58030": ("io", "the database's disk failed", "check the disk and its log; nothing was acknowledged"),
    "XX001": ("corrupt", "the database is damaged", "restore a backup"),
    "XX002": ("corrupt", "the database is damaged", "restore a backup, or REINDEX after finding out why"),
}
_GONE = frozenset({LOST, "57P01", "57P02", "57P03", "25P03", "25P04", "57P05"})
"""The connection is of no use any more, whether the server said so or not."""

RETRIED = frozenset({"40001", "40P01"})
"""The same transaction may succeed when it is run again: a serialisation failure, a deadlock."""


class PgError(Exception):
    """A statement failed. `state` is the SQLSTATE, `LOST` when the connection went."""

    def __init__(self, state: str) -> None:
        super().__init__(state or "connection lost")
        self.state = state

    @property
    def gone(self) -> bool:
        """Whether the session ended by this."""
        return self.state in _GONE or self.state.startswith("08")

    @property
    def environmental(self) -> bool:
        """Whether the database, its disk or another process is the cause, rather than what was to be written."""
        return self.gone or self.state in _BY_STATE or self.state[:2] in ("53", "58", "XX")


class Unstorable(Exception):
    """A cell that its column cannot hold: no stored row has it."""


def translate(error: PgError) -> StoreError:
    """The error to raise in place of `error`."""
    if error.gone:
        return StoreError(
            "the database does not answer",
            hint="is it running, and its address right? the same call may succeed when it is back",
            code="unreachable",
        )
    if error.state == "53100":
        return StoreFull("the disk is full", hint="make room; nothing of this change was written")
    if error.state in _BY_STATE:
        word, message, hint = _BY_STATE[error.state]
        return StoreError(message, hint=hint, code=word)
    return StoreError("the store refused the request", code="refused")


def refused() -> StoreError:
    """A row holds what its column does not take."""
    return StoreError("the store refused the request", code="refused")
