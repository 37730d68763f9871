"""Which versions of a block are kept: all, or what its owner's rule leaves.

What goes, goes from the oldest on, in the commit of the next version, which states the oldest that is kept (`kept`): so
readers know that nothing above is missing. Nothing goes without a write: the rule is in the signed policy, which only
keys open.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tallystone import policy
from tallystone.errors import Invalid, NotFound
from tallystone.statements import Version
from tallystone.store.tables import VERSION
from tallystone.vault.opening import Opened

ALL = "all"
"""The rule that needs none."""
AT_ONCE = 256
"""Versions that one commit lets go of: after a stricter rule the rest goes with the writes that follow."""
_DAY = 86_400_000


def check_rule(keep: object, append_only: bool) -> None:
    """Raises `Invalid` for what is no rule, and for any but `all` on an append-only block: its versions prove that it
    only grew."""
    if keep is None or keep == ALL:
        return
    if not policy.rule_fits(keep):
        raise Invalid(
            "keep should be all, a number of versions or a number of days",
            hint='like "all", {"last": 20} (2 or more) or {"days": 30}',
            code="bad_keep",
        )
    if append_only:
        raise Invalid(
            "an append-only block keeps every version", hint="they prove that it only grew", code="bad_keep"
        )


def let_go(opened: Opened, before: Version | None, number: int) -> Mapping[str, Any]:
    """Queue the end of what the rule no longer keeps once version `number` is there. Returns what that version states
    about it."""
    if before is None:
        return {}
    kept, rule = policy.kept(before), opened.head.settings.get("keep") or {}
    first = kept
    if "last" in rule:
        first = min(max(kept, number - rule["last"] + 1), kept + AT_ONCE)
    elif "days" in rule:
        first = _replaced_before(opened, kept, number, opened.caller.workspace.now_ms() - rule["days"] * _DAY)
    for old in range(kept, first):
        opened.plan.delete(VERSION, opened.row.storage, old)
    return {"kept": first} if first > 1 else {}


def _replaced_before(opened: Opened, kept: int, number: int, moment: int) -> int:
    """The oldest version that was still current at `moment` (milliseconds), by what the writers claim. Who came without
    history cannot tell, and lets nothing go."""
    for first in range(kept, min(number - 1, kept + AT_ONCE)):
        try:
            if opened.stored(first + 1)[1].time >= moment:
                return first
        except NotFound:
            return kept
    return min(number - 1, kept + AT_ONCE)
