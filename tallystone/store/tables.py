"""The tables, as every store sees them: a key, then the other columns, nothing that a store needs to
understand.

Every key starts with `ws`, the workspace's number, always 1 today: it comes first so that a sharded database
can carry it. The column types live in the migrations (`migrations/0001_first.sql`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

Cell: TypeAlias = int | bytes | str | None
Row: TypeAlias = tuple[Any, ...]
"""A row of `Cell`s: the key columns, then the others, in the table's order. Also a key or the beginning of
one.

Which cell is of which type is for the migrations to say, whose tables are STRICT: a reader may rely on it."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table's name, the columns of its primary key, and the other columns, in order."""

    name: str
    key: tuple[str, ...]
    columns: tuple[str, ...]

    @property
    def all_columns(self) -> tuple[str, ...]:
        """Key columns, then the others: the order of the cells in a `Row`."""
        return self.key + self.columns

    def key_of(self, row: Row) -> Row:
        """The key part of a full row."""
        return row[: len(self.key)]


def _table(name: str, key: str, columns: str) -> Table:
    return Table(name, tuple(key.split()), tuple(columns.split()))


WORKSPACE = _table("workspace", "ws", "id record")
PRINCIPAL = _table("principal", "ws id serial", "record sigs")
IDENTITY = _table("identity", "ws principal", "sign kem")
TOKEN = _table("token", "ws kid", "principal scope created expires verifier root label")
KIT = _table("kit", "ws principal", "sealed")
DIRECTORY = _table("directory", "ws principal", "name")
SHELF = _table("shelf", "ws shelf locator", "position one two")
INBOX = _table("inbox", "ws principal capsule", "enc sealed position")
BLOCK = _table("block", "ws storage", "policy version epoch flags day shred")
CHAIN = _table("chain", "ws storage number", "epoch sealed")
VERSION = _table("version", "ws storage number", "epoch wrap sealed")
EPOCH = _table("epoch", "ws storage number", "chain previous_chain previous")
GRANT_WRAP = _table("grant_wrap", "ws storage grant_no", "epoch wrap")
LEDGER = _table("ledger", "ws storage grant_no", "leaf epoch roster secret day")
REPLY = _table("reply", "ws key", "attempt expires sealed")
AUDITOR = _table("auditor", "ws capsule", "day enc")
CHARTER = _table("charter", "ws serial", "body sigs")
INVITE = _table("invite", "ws kid", "expires verifier sealed")
CALENDAR = _table("calendar", "ws day storage grant_no", "kind")
"""What ends after `day` (days since 1970): a `grant` by its number, or with number 0 a whole `block`."""
ENTRY = _table("entry", "ws stream number", "sealed")
"""What a principal keeps beside its blocks (`vault/streams.py`)."""
SHRED = _table("shred", "ws slot", "day")
"""Slots of shred keys (`vault/shredkeys.py`) of blocks that are gone, to be destroyed; since which day."""
LOG_LEAF = _table("log_leaf", "ws seq", "leaf")
LOG_DETAIL = _table("log_detail", "ws seq", "detail")
LOG_MANIFEST = _table("log_manifest", "ws seq", "body")
LOG_NODE = _table("log_node", "ws height number", "hash")
"""Hashes of the log's tree: of its leaves (height 0), and of complete subtrees of 2^height leaves (`audit/tree.py`)."""
LOG_HEAD = _table("log_head", "ws", "size frontier checkpoint")

TABLES: tuple[Table, ...] = (
    WORKSPACE,
    PRINCIPAL,
    IDENTITY,
    TOKEN,
    KIT,
    DIRECTORY,
    SHELF,
    INBOX,
    BLOCK,
    CHAIN,
    VERSION,
    EPOCH,
    GRANT_WRAP,
    LEDGER,
    REPLY,
    AUDITOR,
    CHARTER,
    INVITE,
    CALENDAR,
    ENTRY,
    SHRED,
    LOG_LEAF,
    LOG_DETAIL,
    LOG_MANIFEST,
    LOG_NODE,
    LOG_HEAD,
)
"""All of them. A store holds these and its own `schema_version`, nothing else."""

INDEXES: dict[str, tuple[str, ...]] = {SHELF.name: ("position",), INBOX.name: ("position",)}
"""The columns beyond the key that rows may be ordered by (within all but the last column of the key)."""

WS = 1
"""The number of the only workspace a store holds today."""
