"""Reading the log's details: each caller opens what concerns it, and learns nothing of the rest.

Who may: an event's actor (and the sponsor of an agent that acted), the owner and the sharers of each block that it
concerns, and for what concerns no block the workspace's root and its auditors. A plain reader's K_grant opens nothing
here, although it could: members of a role hold one K_grant together, and what one of them read is not the others' to
know.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from tallystone import crypto
from tallystone.audit.leaf import decode_leaf
from tallystone.audit.logkeys import is_log_key
from tallystone.audit.restored import is_restore
from tallystone.errors import Locked, NotFound, Tampered
from tallystone.keystore import Keys
from tallystone.store.tables import GRANT_WRAP, LEDGER, LOG_DETAIL, LOG_LEAF
from tallystone.vault.auditing import open_capsule
from tallystone.vault.caller import Caller
from tallystone.vault.entering import open_block
from tallystone.vault.events import auditor_capsule, entries, grant_keys, open_audited, open_own
from tallystone.vault.former import former_roots
from tallystone.vault.ledger import Ledger
from tallystone.vault.passages import reached
from tallystone.vault.plan import WS, Plan
from tallystone.vault.records import OFFERED, Held
from tallystone.vault.restoring import told
from tallystone.vault.shelves import AGENTS, BLOCKS, HOUSE, ROLES, agent_keys, find, walk
from tallystone.vault.types import AuditEvent

SCAN_LIMIT = 100_000
"""Leaves that one question looks at."""
_CHUNK = 500


def events(caller: Caller, limit: int, after: int | None) -> list[AuditEvent]:
    """The newest `limit` events that this caller may open, oldest first; or those beyond leaf `after`."""

    def action(plan: Plan) -> list[AuditEvent]:
        reader = Reader(caller, plan)
        found: list[AuditEvent] = []
        for seq, leaf, detail in _leaves(plan, after):
            event = reader.event(seq, leaf, detail)
            if event is not None:
                found.append(event.plain())
            if len(found) >= limit:
                break
        return found if after is not None else found[::-1]

    with caller.workspace.store.snapshot() as snapshot:
        plan = Plan(snapshot)
        caller.check(plan)
        return action(plan)


def _leaves(plan: Plan, after: int | None) -> Iterator[tuple[int, bytes, bytes]]:
    """(number, leaf, detail), newest first, or oldest first beyond `after`. Leaves without details are left out."""
    reverse, cursor, seen = after is None, after, 0
    while seen < SCAN_LIMIT:
        rows = plan.snapshot.scan(LOG_DETAIL, (WS,), after=cursor, limit=_CHUNK, reverse=reverse)
        for row in rows:
            leaf = plan.get(LOG_LEAF, row[1])
            if leaf is not None:
                yield int(row[1]), bytes(leaf[2]), bytes(row[2])
        if len(rows) < _CHUNK:
            return
        seen, cursor = seen + len(rows), int(rows[-1][1])


def keys_of_grants(plan: Plan, held: Held) -> Iterator[bytes]:
    """The K_grant of every grant there ever was on an own block: others' events are filed under theirs."""
    yield held.key
    if not held.admin:
        return
    ledger = Ledger(held.admin, held.block)
    for row in plan.rows(LEDGER, held.storage):
        try:
            entry = ledger.open(int(row[2]), bytes(row[6]))
        except Tampered:
            continue  # the log check names the row
        yield from (entry.key, *entry.retired)


@dataclass(frozen=True)
class _Grant:
    """What opens the events that were filed under one K_grant, and the block that it was on."""

    block: str
    keys: tuple[bytes, bytes]


@dataclass(frozen=True)
class Opening:
    """An event that the caller may open. `blocks`: which of the blocks that the caller knows it is filed under."""

    seq: int
    minute: int
    kind: str
    actor: str
    under: str
    detail: dict[str, Any]
    blocks: frozenset[str]

    def plain(self) -> AuditEvent:
        """Without the blocks."""
        return AuditEvent(self.seq, self.minute, self.kind, self.actor, self.under, self.detail)


class Reader:
    """The keys with which a caller may open details. With `block`, others' events are opened for that block alone.

    `tries` counts the keys that were tried, some 3 µs each: entries do not say whom they are for.
    """

    def __init__(self, caller: Caller, plan: Plan, block: str = "", *, name_blocks: bool = False) -> None:
        self.tries = 0
        self._caller, self._plan, self._names = caller, plan, name_blocks
        self._days: dict[bytes, bytes | None] = {}
        self._principals: list[Keys] = [caller.keys]
        self._principals += [former.keys for former in former_roots(plan, caller.keys)]
        self._mine: list[_Grant] = []
        self._known: list[_Grant] = []
        for shelf in (BLOCKS, ROLES):
            self._collect(walk(plan, caller.keys, shelf), block)
        for role in reached(caller, plan):
            through = (replace(held, via=role.way) for held in walk(plan, role.keys, BLOCKS))
            self._collect(through, block)
        if not caller.id.startswith("agent-"):
            for held in walk(plan, caller.keys, AGENTS):
                keys = agent_keys(caller, held)
                self._principals += [keys, *(former.keys for former in former_roots(plan, keys))]
                self._add(self._mine, held.subject, held.key, block)
                if name_blocks:
                    for there in walk(plan, keys, BLOCKS):
                        self._add(self._known, there.block, there.key, block)
        house = find(plan, caller.keys, HOUSE, "workspace")
        self._auditor = house.admin if house is not None else b""
        named = caller.workspace.charter(plan, caller.keys.root.pin).auditors
        self._audits = bool(self._auditor) or caller.id in named

    def _collect(self, shelf: Iterator[Held], block: str) -> None:
        for held in shelf:
            name = held.subject if held.kind == "role" else held.block
            if block and block != name:
                continue
            if self._answers_for(held):
                for key in keys_of_grants(self._plan, held):
                    self._add(self._mine, name, key, block)
            elif self._names:
                self._add(self._known, name, held.key, block)

    def _answers_for(self, held: Held) -> bool:
        """Whether the caller owns or shares this block now: a shelf row outlives the grant that it came by."""
        if held.state == OFFERED or self._plan.get(GRANT_WRAP, held.storage, held.grant) is None:
            return False
        if not held.leaf:
            return True
        if not held.admin:
            return False
        try:
            open_block(self._caller, self._plan, held)
        except (NotFound, Locked):
            return False
        return True

    def _add(self, grants: list[_Grant], name: str, key: bytes, block: str) -> None:
        if not block or block == name:
            grants.append(_Grant(name, grant_keys(key)))

    def event(self, seq: int, leaf: bytes, detail: bytes) -> Opening | None:
        """The event, if it is this caller's to open. Raises `Tampered` if it is not what its leaf counts."""
        clear = is_restore(detail) or is_log_key(detail)
        opened = (told(detail), set[str]()) if clear else self._open(detail)
        content, blocks = opened if opened is not None else (None, set[str]())
        if content is None:
            return None
        counted = decode_leaf(leaf)
        if counted.seq != seq or not crypto.equal(counted.digest, crypto.sha256(detail)):
            raise Tampered("an event's details are not those that the log counts")
        actor, under = str(content.pop("actor", "")), str(content.pop("under", ""))
        if content.pop("kind", None) != counted.kind:
            raise Tampered("an event is of another kind than its leaf")
        return Opening(seq, counted.minute, counted.kind, actor, under, content, frozenset(blocks))

    def _open(self, detail: bytes) -> tuple[dict[str, Any], set[str]] | None:
        """The content, and the blocks by whose K_grants it was found."""
        for keys in self._principals:
            self.tries += 1
            content = open_own(detail, keys)
            if content is not None:
                return content, self._file(detail, (self._mine, self._known))[1] if self._names else set()
        content, blocks = self._file(detail, (self._mine,))
        if content is not None:
            # a refusal, or what an agent was given, may concern others' blocks too
            mine = {grant.block for grant in self._mine}
            if isinstance(content.get("blocks"), list):
                content["blocks"] = [one for one in content["blocks"] if one in mine]
            if isinstance(content.get("placed"), dict):
                content["placed"] = {one: at for one, at in content["placed"].items() if one in mine}
            return content, blocks
        capsule = auditor_capsule(detail)
        key = self._day_key(capsule) if capsule and self._audits else None
        content = open_audited(detail, key) if key else None
        return None if content is None else (content, set())

    def _file(self, detail: bytes, known: tuple[list[_Grant], ...]) -> tuple[dict[str, Any] | None, set[str]]:
        """The content by one of these grants, if any opens it; and, where blocks are named, all that do."""
        content, blocks = None, set()
        for entry in entries(detail):
            found = self._match(entry.open, known)
            if found is None:
                continue
            content = content or found[0]
            blocks.add(found[1])
            if not self._names:
                break
        return content, blocks

    def _match(
        self,
        try_open: Callable[[tuple[bytes, bytes]], dict[str, Any] | None],
        known: tuple[list[_Grant], ...],
    ) -> tuple[dict[str, Any], str] | None:
        """The content by the first grant that opens an entry, and its block. That grant is tried first from now on:
        who reads a block today reads it again tomorrow."""
        for grants in known:
            for place, grant in enumerate(grants):
                self.tries += 1
                content = try_open(grant.keys)
                if content is not None:
                    grants.insert(0, grants.pop(place))
                    return content, grant.block
        return None

    def _day_key(self, capsule: bytes) -> bytes | None:
        if capsule not in self._days:
            self._days[capsule] = open_capsule(self._caller, self._plan, capsule, self._auditor)
        return self._days[capsule]
