"""Who sees what concerns no block: refusals, tokens, purges. Their events are sealed under a key of the process and day
(ADR 0029).

That key lies in the store as a capsule to the record of the workspace's first user, and as one to each auditor that the
charter names; earlier releases sealed the first to an auditor key, which no new root changes and which is only read
(ADR 0038). Whoever is taken out of the charter finds no capsule of a later key: a change of the charter
makes a new one, and no event commits under the older. Rows of capsules do not say whom they are for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from tallystone import crypto
from tallystone.errors import Conflict, Invalid, NotFound, Tampered
from tallystone.keystore import Identity, Keys
from tallystone.store.protocol import Batch, Change, Expect, Put, Row
from tallystone.store.tables import AUDITOR, CHARTER
from tallystone.vault.accounts import root_house
from tallystone.vault.caller import ATTEMPTS, Caller
from tallystone.vault.charter import charter, put_charter
from tallystone.vault.directory import resolve
from tallystone.vault.events import seal_event
from tallystone.vault.former import kem_seeds
from tallystone.vault.plan import WS, Plan

if TYPE_CHECKING:
    from tallystone.vault.workspace import Workspace

AUDITORS_LIMIT = 32
"""Auditors beside the root: each costs a capsule a process and day."""


@dataclass(frozen=True)
class DayKey:
    """What events without a block are sealed under: the capsule's id (16 bytes) and the key (32 bytes), for as long as
    it is this day, the charter has this serial, and these (principal, record hash) open it, the root first."""

    day: int
    serial: int
    auditors: tuple[tuple[str, bytes], ...]
    capsule: bytes
    key: bytes = field(repr=False)

    @property
    def expect(self) -> Expect:
        """What must hold when an event commits under it: nobody has changed the charter."""
        return Expect(CHARTER, (WS, self.serial + 1), None)


def day_key(workspace: Workspace, known: DayKey | None) -> DayKey:
    """The key in force, made anew when the one known is of another day, charter or list of auditors."""
    for _ in range(ATTEMPTS):
        with workspace.store.snapshot() as snapshot:
            plan = Plan(snapshot)
            now = workspace.charter(plan, workspace.id)
            root = workspace.identity(plan, workspace.record.root, workspace.id)
            auditors = list(_active(workspace, plan, now.auditors))
        named = tuple((one.id, one.digest) for one in (root, *auditors))
        if known is not None and (known.day, known.serial, known.auditors) == (
            workspace.today(),
            now.serial,
            named,
        ):
            return known
        capsule, key = crypto.random_bytes(16), crypto.random_bytes()
        made = DayKey(workspace.today(), now.serial, named, capsule, key)
        enc = crypto.seal_to(root.record.kem, _info(workspace, capsule, root.id), key)
        rows: list[Change] = [Put(AUDITOR, (WS, capsule, made.day, enc))]
        rows += [Put(AUDITOR, _seat(workspace, one, capsule, made.day, key)) for one in auditors]
        try:
            workspace.store.commit(Batch([made.expect], rows, []))
        except Conflict:
            continue
        return made
    raise Conflict("the charter is changing too fast", hint="try again", code="contended")


def log_unclaimed(
    workspace: Workspace, kind: str, content: dict[str, Any], keys: Keys | None, grants: Iterable[bytes]
) -> int:
    """See `Workspace.log_unclaimed`. Sealed anew if who may open it has changed by the commit."""
    detail = {"kind": kind, **content}
    for _ in range(ATTEMPTS):
        with workspace.store.snapshot() as snapshot:
            plan = Plan(snapshot)
            plan.event(kind, seal_event(detail, keys, grants, workspace.auditor_key(plan)))
        with suppress(Conflict):
            return workspace.store.commit(plan.batch())
    raise Conflict("the charter is changing too fast", hint="try again", code="contended")


def _active(workspace: Workspace, plan: Plan, auditors: tuple[str, ...]) -> Iterator[Identity]:
    for principal in auditors:
        try:
            identity = workspace.identity(plan, principal, workspace.id)
        except (NotFound, Tampered):
            continue  # erased, or not itself any more: nothing is sealed to it
        if identity.active:
            yield identity


def _place(workspace: Workspace, capsule: bytes, principal: str) -> bytes:
    """Where an auditor's capsule of the same key lies: nobody else can tell that the two belong together, who does not
    already know both."""
    return crypto.sha256(crypto.pae("auditor/place", workspace.id, capsule, principal))[:16]


def _info(workspace: Workspace, capsule: bytes, principal: str) -> bytes:
    return crypto.pae("auditor/for", workspace.id, capsule, principal)


def _seat(workspace: Workspace, auditor: Identity, capsule: bytes, day: int, key: bytes) -> Row:
    enc = crypto.seal_to(auditor.record.kem, _info(workspace, capsule, auditor.id), key)
    return (WS, _place(workspace, capsule, auditor.id), day, enc)


def open_capsule(caller: Caller, plan: Plan, capsule: bytes, root_seed: bytes) -> bytes | None:
    """The key of a capsule, for the root and for an auditor by its own key or a former one, for the root's earlier ones
    by the seed of the auditor's key; None for anybody else, and for a token that only reads."""
    workspace = caller.workspace
    if not caller.keys.can_act:
        return None
    row = plan.get(AUDITOR, capsule if root_seed else _place(workspace, capsule, caller.id))
    if row is None:
        return None
    info = _info(workspace, capsule, caller.id)
    ways = [(seed, info) for seed in kem_seeds(caller, plan)]
    if root_seed:
        ways.append((root_seed, crypto.pae("auditor", workspace.id, capsule)))
    for seed, bound in ways:
        with suppress(Tampered):
            return crypto.open_from(seed, bound, bytes(row[3]))
    return None


def auditors(caller: Caller) -> list[str]:
    """The ids of the auditors beside the root. Everybody in the workspace may know who they are."""

    def action(plan: Plan) -> list[str]:
        found = charter(caller, plan)
        caller.event(plan, "read", charter=found.serial)
        return list(found.auditors)

    return caller.transact(action)


def grant_audit(caller: Caller, who: str, *, history: bool) -> str:
    """Let a user open from now on what concerns no block; with `history` also what was logged before. Only the root
    may. Returns the user's id. Raises `Denied`, `NotFound`, `Invalid`."""

    def action(plan: Plan) -> str:
        house = root_house(caller, plan, "names auditors")
        principal = resolve(caller, plan, who)[1]
        identity = caller.current(plan, principal)
        if identity.record.kind != "user" or not identity.active or principal == caller.id:
            raise Invalid(
                "an auditor is another user, and active",
                hint="name a user; the workspace's first user sees it all anyway",
                code="bad_auditor",
            )
        now = charter(caller, plan)
        if principal not in now.auditors:
            if len(now.auditors) >= AUDITORS_LIMIT:
                raise Invalid(
                    f"there are at most {AUDITORS_LIMIT} auditors", hint="end one", code="bad_auditor"
                )
            put_charter(caller, plan, replace(now, auditors=(*now.auditors, principal)))
        if history:
            for row in plan.rows(AUDITOR):
                key = open_capsule(caller, plan, bytes(row[1]), house.admin)
                if key is not None:  # else it is somebody's place
                    plan.put(AUDITOR, *_seat(caller.workspace, identity, bytes(row[1]), int(row[2]), key)[1:])
        caller.event(plan, "auditor", principal=principal, granted=True, history=history)
        return principal

    return caller.transact(action, audit=True)


def end_audit(caller: Caller, who: str) -> str:
    """Take that from a user again: its capsules go, and the next event is under a key that it never had. Only the root
    may. Returns the user's id. Raises `Denied`, `NotFound`."""

    def action(plan: Plan) -> str:
        root_house(caller, plan, "names auditors")
        principal = resolve(caller, plan, who)[1]
        now = charter(caller, plan)
        if principal not in now.auditors:
            raise NotFound(
                f"{who} is no auditor", hint="see: tallystone audit auditors", code="unknown_principal"
            )
        left = tuple(one for one in now.auditors if one != principal)
        put_charter(caller, plan, replace(now, auditors=left))
        rows = {bytes(row[1]) for row in plan.rows(AUDITOR)}
        for place in {_place(caller.workspace, row, principal) for row in rows} & rows:
            plan.delete(AUDITOR, place)
        caller.event(plan, "auditor", principal=principal, granted=False)
        return principal

    return caller.transact(action, audit=True)
