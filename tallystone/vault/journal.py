"""Reading the log's details: each caller opens what concerns it, and learns nothing of the rest."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tallystone import _cbor, crypto
from tallystone.audit.restored import RESTORE
from tallystone.errors import Tampered
from tallystone.keystore import Keys
from tallystone.store.tables import AUDITOR, LEDGER, LOG_DETAIL, LOG_LEAF
from tallystone.vault.caller import Caller
from tallystone.vault.events import auditor_capsule, grant_keys, open_audited, open_granted, open_own
from tallystone.vault.ledger import Ledger
from tallystone.vault.plan import WS, Plan
from tallystone.vault.records import Held
from tallystone.vault.restoring import told
from tallystone.vault.shelves import AGENTS, BLOCKS, HOUSE, agent_keys, find, walk
from tallystone.vault.types import AuditEvent

SCAN_LIMIT = 100_000
"""Leaves that one question looks at, newest first."""
_CHUNK = 500


def events(caller: Caller, limit: int, after: int | None) -> list[AuditEvent]:
    """The newest `limit` events that this caller may open, oldest first; or those beyond leaf `after`."""

    def action(plan: Plan) -> list[AuditEvent]:
        reader = _Reader(caller, plan)
        found: list[AuditEvent] = []
        for seq, leaf, detail in _leaves(plan, after):
            _, number, minute, kind, digest = _cbor.unpack(leaf, "a log leaf", str, int, int, str, bytes)
            content = told(detail) if kind == RESTORE else reader.open(detail)
            if content is None:
                continue
            if number != seq or not crypto.equal(digest, crypto.sha256(detail)):
                raise Tampered("an event's details are not those that the log counts")
            actor, under = str(content.pop("actor", "")), str(content.pop("under", ""))
            if content.pop("kind", None) != kind:
                raise Tampered("an event is of another kind than its leaf")
            found.append(AuditEvent(seq, minute, kind, actor, under, content))
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


class _Reader:
    """The keys with which a caller may open details."""

    def __init__(self, caller: Caller, plan: Plan) -> None:
        self._caller, self._plan = caller, plan
        self._days: dict[bytes, bytes | None] = {}
        self._principals: list[Keys] = [caller.keys]
        self._grants = [
            grant_keys(key)
            for held in walk(plan, caller.keys, BLOCKS)
            if not held.leaf
            for key in keys_of_grants(plan, held)
        ]
        if not caller.id.startswith("agent-"):
            for held in walk(plan, caller.keys, AGENTS):
                self._principals.append(agent_keys(caller, held))
                self._grants.append(grant_keys(held.key))
        house = find(plan, caller.keys, HOUSE, "workspace")
        self._auditor = house.admin if house is not None else b""

    def open(self, detail: bytes) -> dict[str, Any] | None:
        for keys in self._principals:
            content = open_own(detail, keys)
            if content is not None:
                return content
        for grant in self._grants:
            content = open_granted(detail, grant)
            if content is not None:
                return content
        capsule = auditor_capsule(detail)
        key = self._day_key(capsule) if capsule and self._auditor else None
        return open_audited(detail, key) if key else None

    def _day_key(self, capsule: bytes) -> bytes | None:
        if capsule not in self._days:
            row = self._plan.get(AUDITOR, capsule)
            try:
                info = crypto.pae("auditor", self._caller.workspace.id, capsule)
                self._days[capsule] = (
                    crypto.open_from(self._auditor, info, bytes(row[3])) if row is not None else None
                )
            except Tampered:
                self._days[capsule] = None
        return self._days[capsule]
