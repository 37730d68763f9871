"""What the charter says to those who share: the names of the sensitivity levels, which are stored as numbers; how many
grants a block may have; who must be asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tallystone.errors import Invalid
from tallystone.vault.audit_levels import NAMES, audit_level
from tallystone.vault.caller import Caller
from tallystone.vault.charter import charter
from tallystone.vault.plan import Plan


def level(caller: Caller, plan: Plan, word: str) -> int:
    """The number of a level. Raises `Invalid` for a word that names none."""
    levels = charter(caller, plan).levels
    if word not in levels:
        raise Invalid(f"there is no level {word!r}", hint=f"use {', '.join(levels)}", code="unknown_level")
    return levels.index(word)


def level_name(caller: Caller, plan: Plan, number: int) -> str:
    """The name of a level; `level-<number>` for one that no charter has named, whoever signed such a number."""
    return _name_of(
        caller.workspace.charter(plan, caller.keys.root.pin).levels, number
    )  # shown, not decided by


def _name_of(levels: tuple[str, ...], number: int) -> str:
    return levels[number] if 0 <= number < len(levels) else f"level-{number}"


def max_grants(caller: Caller, plan: Plan) -> int:
    """Direct grants that a block may have."""
    return charter(caller, plan).max_grants


def trusts_members(caller: Caller, plan: Plan) -> bool:
    """Whether shares between members need no acceptance."""
    return charter(caller, plan).trust


def names(caller: Caller, plan: Plan, settings: Mapping[str, Any]) -> tuple[str, str]:
    """The names of the sensitivity of a block with these settings, and of the audit level that holds for it."""
    charter_now = caller.workspace.charter(plan, caller.keys.root.pin)
    sensitivity = settings.get("sensitivity", 0)
    if not (sensitivity or charter_now.audit or "audit_level" in settings):
        return charter_now.levels[0], NAMES[0]  # of nearly all blocks
    named = _name_of(charter_now.levels, sensitivity)
    return named, NAMES[audit_level(settings, charter_now)]
