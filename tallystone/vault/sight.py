"""What a caller can see at one moment: its blocks, and the rows that say whether that is still so.

A log manifest names rows by the hash of their key (design §9). Who can read a block knows the key of the block's row,
of its grant's wrap and of its own shelf: so it can tell from manifests alone, which hold no secret, when to look again.
Nobody can tell so of a block whose storage id it never saw.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from tallystone import _cbor, crypto
from tallystone.audit.leaf import key_hash
from tallystone.errors import Conflict, NotFound
from tallystone.keystore import Keys
from tallystone.store.protocol import Row
from tallystone.store.tables import BLOCK, GRANT_WRAP, INBOX, PRINCIPAL, SHELF, TOKEN, Table
from tallystone.vault.caller import ATTEMPTS, Caller, KeysChanged
from tallystone.vault.entering import open_block
from tallystone.vault.levels import trusts_members
from tallystone.vault.opening import Opened, missing
from tallystone.vault.passages import find_block, lookup, reached, walk_blocks
from tallystone.vault.plan import WS, Plan
from tallystone.vault.records import OFFERED, Held, rights_of
from tallystone.vault.shelves import BLOCKS, ROLES

T = TypeVar("T")
Name = tuple[str, bytes]
"""What a manifest calls a row: its table, and the hash of its key."""

EVERYTHING = ""
"""In place of a block's id: the row concerns all that the caller sees."""
MARGIN = 60 * 10**9
"""Nanoseconds by which a shelf row may be older than its elders: its position is drawn before its commit."""
_SHOWN = ("limit", "read_only", "locked", "sensitivity", "allowed", "expires")


def name_of(table: Table, *key: int | bytes | str) -> Name:
    """What manifests call the row with this key."""
    return table.name, key_hash((WS, *key))


@dataclass(frozen=True)
class Seen:
    """One block as the caller sees it: its row, and a digest of the rights and settings that it is shown.

    `grant` is the K_grant that its events are filed under, `names` the rows whose change concerns this block.
    """

    row: Row
    shape: bytes
    grant: bytes
    names: tuple[Name, ...]

    def __repr__(self) -> str:
        return f"Seen(version {self.version})"

    @property
    def storage(self) -> bytes:
        """Where the block is stored, 16 bytes."""
        return bytes(self.row[1])

    @property
    def version(self) -> int:
        """The number of its newest version."""
        return int(self.row[3])


@dataclass
class Sight:
    """Everything that a caller sees, and what it must watch to know that this is so.

    `names` leads from a row to the block it concerns, or to `EVERYTHING`; `rows` keeps the
    rows of blocks and roles as they were; `shelves` are ids with the newest position on each; `mailboxes` are
    the principals whose mail the caller opens.
    """

    blocks: dict[str, Seen] = field(default_factory=dict)
    names: dict[Name, str] = field(default_factory=dict)
    rows: dict[Name, Row] = field(default_factory=dict)
    shelves: dict[bytes, int] = field(default_factory=dict)
    mailboxes: tuple[str, ...] = ()

    def with_blocks(self, found: Mapping[str, Seen | None]) -> Sight:
        """The same, but for what single blocks turned out to be; None: out of sight."""
        blocks = {**self.blocks}
        names, rows = dict(self.names), dict(self.rows)
        for block_id, seen in found.items():
            before = blocks.pop(block_id, None)
            for name in before.names if before is not None else ():
                names.pop(name, None)
                rows.pop(name, None)
            if seen is not None:
                blocks[block_id] = seen
                names.update(dict.fromkeys(seen.names, block_id))
                rows[seen.names[0]] = seen.row
        return Sight(blocks, names, rows, self.shelves, self.mailboxes)


def survey(caller: Caller, plan: Plan, only: frozenset[str]) -> Sight:
    """All blocks that a list would show, or those of `only`. Raises the uniform miss if one of these is not there."""
    sight = Sight()
    for held in walk_blocks(caller, plan):
        if held.state != OFFERED and (not only or held.block in only):
            seen = _see(caller, plan, held)
            if seen is not None:
                sight.blocks[held.block] = seen
    for block_id, seen in sight.blocks.items():
        sight.names.update(dict.fromkeys(seen.names, block_id))
        sight.rows[seen.names[0]] = seen.row
    for name, row in _own_rows(caller, plan):
        sight.names[name] = EVERYTHING
        if row is not None:
            sight.rows[name] = row
    roles = reached(caller, plan)
    for keys in (caller.keys, *(role.keys for role in roles)):
        for shelf in (BLOCKS, ROLES):
            _watch_shelf(sight, plan, keys, shelf)
    if caller.keys.can_act:
        trusting = (
            roles if roles and trusts_members(caller, plan) else []
        )  # others' offers wait for somebody's word
        sight.mailboxes = (caller.id, *(role.role for role in trusting if role.keys.can_act))
    return sight


def require(caller: Caller, plan: Plan, sight: Sight, only: frozenset[str]) -> None:
    """Raises the uniform miss unless every block of `only` is in sight."""
    for block_id in sorted(only - sight.blocks.keys()):
        find_block(caller, plan, block_id)
        raise missing("Block", block_id)


def glance(caller: Caller, plan: Plan, block_id: str) -> Seen | None:
    """One block, or None if the caller cannot read it any more."""
    held = lookup(caller, plan, block_id)
    return None if held is None else _see(caller, plan, held)


def look(caller: Caller, question: Callable[[Plan], T]) -> T:
    """Answer a question on a consistent view, after the checks that every operation makes: the token, its day, the
    standing of who acts. Nothing is written but new keys that wait in a mailbox. Raises `Unauthenticated`."""
    collected: set[tuple[str, bytes]] = set()
    for _ in range(ATTEMPTS):
        try:
            with caller.workspace.store.snapshot() as snapshot:
                plan = Plan(snapshot)
                caller.check(plan)
                return question(plan)
        except KeysChanged as error:
            if not caller.keys.can_act or (error.holder, error.change) in collected:
                raise
            collected.add((error.holder, error.change))
            caller.workspace.collect(caller, error.holder)
    raise Conflict("the blocks are changing too fast", hint="try again", code="contended")


def news(sight: Sight, plan: Plan) -> bool:
    """Whether mail waits, or a shelf holds a row that `sight` does not know. No manifest can tell: the address of a
    block that one does not have yet is blinded."""
    if any(plan.snapshot.scan(INBOX, (WS, one), limit=1) for one in sight.mailboxes):
        return True
    return any(
        name_of(SHELF, *row[1:3]) not in sight.names
        for shelf, newest in sight.shelves.items()
        for row in plan.snapshot.scan(SHELF, (WS, shelf), after=newest - MARGIN, index="position")
    )


def _see(caller: Caller, plan: Plan, held: Held) -> Seen | None:
    try:
        opened = open_block(caller, plan, held)
    except NotFound:
        return None
    except KeysChanged:
        if caller.keys.can_act:
            raise
        return None  # as in lists: a token that only reads cannot take the new keys
    row = plan.get(BLOCK, held.storage)
    assert row is not None  # it was opened
    names = name_of(BLOCK, held.storage), name_of(GRANT_WRAP, held.storage, held.grant)
    return Seen(row, _shape(opened), held.key, names)


def _shape(opened: Opened) -> bytes:
    """A digest of what a list shows of a block beside its content. The grants of others are no part of it."""
    settings = [opened.head.settings.get(name) for name in _SHOWN]
    way = [step.opened.held.subject for step in opened.held.via]
    return crypto.sha256(_cbor.encode([rights_of(opened.held), opened.held.owner, settings, way]))[:16]


def _own_rows(caller: Caller, plan: Plan) -> Iterator[tuple[Name, Row | None]]:
    """The names of the rows that say who the caller is and which roles it is in; with the rows of the roles' blocks."""
    yield name_of(TOKEN, caller.kid), None
    principals = {caller.id}
    for one in (caller, caller.under):
        if one is not None:
            principals |= {one.id, one.identity(plan, one.id).record.sponsor}
    for role in reached(caller, plan):
        held = role.way[0].opened.held
        principals.add(role.role)
        yield name_of(BLOCK, held.storage), plan.get(BLOCK, held.storage)
        yield name_of(GRANT_WRAP, held.storage, held.grant), None
    for principal in principals - {""}:
        # A principal changes by a new record beside the old ones.
        serial = caller.identity(plan, principal).record.serial
        yield name_of(PRINCIPAL, principal, serial + 1), None


def _watch_shelf(sight: Sight, plan: Plan, keys: Keys, kind: str) -> None:
    shelf = keys.shelf(kind)
    rows = plan.snapshot.scan(SHELF, (WS, shelf), index="position")
    for row in rows:
        sight.names[name_of(SHELF, *row[1:3])] = EVERYTHING
    sight.shelves[shelf] = int(rows[-1][3]) if rows else 0
