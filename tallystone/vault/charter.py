"""The workspace's charter: its root's signed rules for all. Rows in clear, each naming the one before it.

Only the root's signature counts, so an edited row is no charter at all. That the newest row was taken away, the check
of the log finds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from tallystone import _cbor
from tallystone.errors import Invalid, Tampered
from tallystone.keystore import Identity
from tallystone.statements import EMPTY, AuditedCharter, Charter, Signed, signature_pairs
from tallystone.store.protocol import Row
from tallystone.store.tables import CHARTER
from tallystone.vault.audit_levels import NAMES as AUDIT_LEVELS
from tallystone.vault.caller import Caller
from tallystone.vault.plan import Plan
from tallystone.vault.principals import signature_cell
from tallystone.vault.types import CharterView

DEFAULT = CharterView(
    trust=False, levels=("public", "internal", "confidential", "restricted"), max_grants=10_000, serial=0
)
"""What holds in a workspace whose root has laid down nothing."""
LEVELS_LIMIT = 16
LEVEL_LENGTH = 32
"""Characters of a level's name."""
GRANTS_LIMIT = 1_000_000


def check_charter(rows: list[Row], workspace: bytes, root: Identity) -> CharterView:
    """What these rows lay down, each verified as the root's word and as the successor of the one before. Raises
    `Tampered`."""
    view, previous = DEFAULT, EMPTY
    for row in rows:
        signed = _signed(row)
        charter, auditors = _decode(signed.body)
        if (
            row[1] != charter.serial
            or charter.serial != view.serial + 1
            or charter.previous != previous
            or charter.issuer != root.id
            or not root.signed(signed, workspace, charter.issuer_record)
        ):
            raise Tampered("the workspace's charter is not its root's word")
        levels, audit = _apart(charter.levels)
        after = CharterView(charter.trust, levels, charter.max_grants, charter.serial, audit, auditors)
        if _wrong_levels(after.levels, view.levels) or not 1 <= after.max_grants <= GRANTS_LIMIT:
            raise Tampered("the workspace's charter says what no charter may")
        view, previous = after, signed.digest
    return view


def _decode(body: bytes) -> tuple[Charter, tuple[str, ...]]:
    """A charter and its auditors. Raises `Tampered`."""
    try:
        return Charter.decode(body), ()
    except Tampered:
        charter = AuditedCharter.decode(body)
    named = charter.auditors
    if not all(isinstance(one, str) and one.startswith("user-") for one in named) or len(set(named)) != len(
        named
    ):
        raise Tampered("the workspace's charter names auditors who cannot be")
    return charter, tuple(named)


def _apart(entries: list[Any]) -> tuple[tuple[Any, ...], dict[str, str]]:
    """The names of a charter's levels, and the audit level of those that ask for more than the least. Raises
    `Tampered` for an audit level that there is not."""
    named, audit = [], {}
    for entry in entries:
        if not isinstance(entry, list):
            named.append(entry)
            continue
        if not _cbor.fits(entry, (str, int)) or not 0 < entry[1] < len(AUDIT_LEVELS):
            raise Tampered("the workspace's charter says what no charter may")
        named.append(entry[0])
        audit[entry[0]] = AUDIT_LEVELS[entry[1]]
    return tuple(named), audit


def _together(view: CharterView) -> list[Any]:
    """The reverse."""
    return [
        [name, AUDIT_LEVELS.index(view.audit[name])] if name in view.audit else name for name in view.levels
    ]


def _signed(row: Row) -> Signed:
    return Signed("charter", bytes(row[2]), signature_pairs(_cbor.decode(bytes(row[3]))))


def _wrong_levels(levels: tuple[object, ...], before: tuple[str, ...]) -> str | None:
    """Why these cannot be the levels after those, or None."""
    if not 1 <= len(levels) <= LEVELS_LIMIT:
        return f"there are 1 to {LEVELS_LIMIT} levels"
    for name in levels:
        if not isinstance(name, str) or not 0 < len(name) <= LEVEL_LENGTH:
            return f"a level's name has 1 to {LEVEL_LENGTH} characters"
        if not name.isprintable() or " " in name:
            return "a level's name is one printable word"
    if len(set(levels)) != len(levels):
        return "two levels have the same name"
    if len(levels) < len(before):
        return "levels may be renamed and added, but not taken away"
    if any(name in before and before.index(name) != place for place, name in enumerate(levels)):
        return "a level keeps its place: blocks and people are bound to its number"
    return None


def charter(caller: Caller, plan: Plan) -> CharterView:
    """The charter as it stands, for a decision: the commit fails if it has changed by then. Raises `Tampered`."""
    found = caller.workspace.charter(plan, caller.keys.root.pin)
    plan.need(CHARTER, found.serial + 1)
    return found


def read_charter(caller: Caller) -> CharterView:
    """The charter, which everybody in the workspace may read."""

    def action(plan: Plan) -> CharterView:
        found = charter(caller, plan)
        caller.event(plan, "read", charter=found.serial)
        return found

    return caller.transact(action)


def set_charter(
    caller: Caller,
    *,
    trust: bool | None,
    levels: Iterable[str] | None,
    max_grants: int | None,
    audit: Mapping[str, str] | None,
) -> CharterView:
    """Change what is given, leave the rest. Only the root may. `audit` names for some levels how sure the log must
    be of what is done with their blocks. Raises `Denied`, `Invalid`."""
    named = None if levels is None else tuple(levels)
    if max_grants is not None and (type(max_grants) is not int or not 1 <= max_grants <= GRANTS_LIMIT):
        raise Invalid(
            f"a block may have 1 to {GRANTS_LIMIT} direct grants",
            hint="use roles for more",
            code="bad_charter",
        )

    def action(plan: Plan) -> CharterView:
        caller.must_act()
        caller.must_be_root("changes the charter")
        now = charter(caller, plan)
        wrong = _wrong_levels(now.levels if named is None else named, now.levels)
        if wrong:
            raise Invalid(wrong, hint=f"the levels are {', '.join(now.levels)}", code="bad_levels")
        renamed = now.levels if named is None else named
        kept = {renamed[now.levels.index(name)]: asked for name, asked in now.audit.items()}
        after = replace(
            now,
            audit=_audited({**kept, **(audit or {})}, renamed),
            trust=now.trust if trust is None else bool(trust),
            levels=renamed,
            max_grants=now.max_grants if max_grants is None else max_grants,
        )
        if after != now:
            after = put_charter(caller, plan, after)
        caller.event(
            plan,
            "charter",
            serial=after.serial,
            trust=after.trust,
            levels=list(after.levels),
            max_grants=after.max_grants,
            audit=dict(after.audit),
        )
        return after

    return caller.transact(action, audit=True)


def _audited(asked: Mapping[str, str], levels: tuple[str, ...]) -> dict[str, str]:
    for name, level in asked.items():
        if name not in levels:
            raise Invalid(
                f"there is no level {name!r}", hint=f"use {', '.join(levels)}", code="unknown_level"
            )
        if level not in AUDIT_LEVELS:
            raise Invalid(
                f"there is no audit level {level!r}",
                hint=f"use {', '.join(AUDIT_LEVELS)}",
                code="unknown_level",
            )
    return {name: level for name, level in asked.items() if level != AUDIT_LEVELS[0]}


def put_charter(caller: Caller, plan: Plan, view: CharterView) -> CharterView:
    """Queue the next charter, signed; `view` is the one in force with what changes. Returns it with its serial."""
    rows, view = plan.rows(CHARTER), replace(view, serial=view.serial + 1)
    statement = Charter(
        serial=view.serial,
        previous=_signed(rows[-1]).digest if rows else EMPTY,
        trust=view.trust,
        levels=_together(view),
        max_grants=view.max_grants,
        issuer=caller.id,
        issuer_record=caller.identity(plan, caller.id).digest,
        time=caller.workspace.now_ms(),
    )
    if view.auditors:
        statement = AuditedCharter(**vars(statement), auditors=list(view.auditors))
    signed = caller.sign(plan, "charter", statement.encode())
    plan.put(CHARTER, view.serial, signed.body, signature_cell(signed))
    return view
