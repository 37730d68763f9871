"""How sure the log must be of an event before its answer is given: the level of a block (ADR 0029).

`durable`: the event is on the disk. `checkpointed`: a signed checkpoint contains it, which each commit makes in its own
transaction, so it costs nothing more. `witnessed`: an outside witness has cosigned a checkpoint that contains it. What
holds for a block is the higher of two: what its owner set, and what the charter asks of its sensitivity.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tallystone.errors import Invalid
from tallystone.vault.awaiting import no_witness
from tallystone.vault.plan import Plan
from tallystone.vault.types import CharterView

if TYPE_CHECKING:
    from tallystone.vault.caller import Caller

DURABLE, CHECKPOINTED, WITNESSED = range(3)
NAMES = ("durable", "checkpointed", "witnessed")


def audit_number(word: str) -> int:
    """The number of a level. Raises `Invalid` for a word that names none."""
    if word not in NAMES:
        raise Invalid(
            f"there is no audit level {word!r}", hint=f"use {', '.join(NAMES)}", code="unknown_level"
        )
    return NAMES.index(word)


def audit_level(settings: Mapping[str, Any], charter: CharterView) -> int:
    """What holds for a block with these settings. A number that a later version may have signed counts as the highest
    that this one knows."""
    own: int = settings.get("audit_level", DURABLE)
    if charter.audit:
        own = max(own, audit_number(charter.audit_of(settings.get("sensitivity", 0))))
    return min(own, WITNESSED)


def must_wait(caller: Caller, plan: Plan) -> bool:
    """`must_be_witnessed`, by the charter as it is and the witnesses that are asked here."""
    if not plan.noted:
        return False
    charter = caller.workspace.charter(plan, caller.keys.root.pin)
    return must_be_witnessed(plan, charter, possible=caller.workspace.awaited is not None)


def must_be_witnessed(plan: Plan, charter: CharterView, *, possible: bool) -> bool:
    """Whether the answer has to wait for a witness: if any block asked for that when the plan began, or will when it is
    done. Raises `Unwitnessed` (`no_witness`) if none is asked here (`possible`), and a block still wants one: nothing
    is committed then. An owner who takes the level away from a block is not kept from it."""
    before = after = False
    for first, last in plan.noted.values():
        level = audit_level(last, charter)
        after = after or level >= WITNESSED
        before = before or (level if first is last else audit_level(first, charter)) >= WITNESSED
    if after and not possible:
        raise no_witness()
    return possible and (before or after)
