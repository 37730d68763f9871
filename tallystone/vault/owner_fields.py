"""The fields of a block that are its owner's alone: from what the caller says to the signed settings.

The API speaks words, names and dates; settings hold numbers and ids. What is at its default is left out of them, so
that a block without policy has the settings it always had.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from tallystone import policy
from tallystone.errors import Denied, Invalid
from tallystone.store.tables import PRINCIPAL
from tallystone.vault.audit_levels import audit_number
from tallystone.vault.caller import Caller
from tallystone.vault.granting import unexpired
from tallystone.vault.keeping import ALL
from tallystone.vault.levels import level
from tallystone.vault.opening import Opened
from tallystone.vault.passages import resolve
from tallystone.vault.plan import Plan
from tallystone.vault.views import day_number
from tallystone.vault.writing import FirstGrant

OWNER_FIELDS = ("limit", "read_only", "locked", "sensitivity", "allowed", "expires", "keep", "audit_level")
DEFAULTS: Mapping[str, Any] = {
    "sensitivity": 0,
    "allowed": None,
    "expires": None,
    "keep": ALL,
    "audit_level": 0,
}
"""What a setting that is not there means."""
ALLOWED_LIMIT = 1_000
"""Entries that an allow-list may have: every policy statement of the block carries it."""


@contextmanager
def refusals_logged(caller: Caller) -> Iterator[None]:
    """Log a policy that cannot be: who asks for one is worth knowing, unlike other wrong input."""
    try:
        yield
    except Invalid as error:
        caller.refused(error)
        raise


def recipients(caller: Caller, plan: Plan, who: Sequence[str]) -> list[str]:
    """The ids that an allow-list names, each once: users by name or id, agents and roles by id. Raises `NotFound` for
    one that does not exist, `Invalid` for too many."""
    if len(who) > ALLOWED_LIMIT:
        raise Invalid(
            f"an allow-list has at most {ALLOWED_LIMIT} entries", hint="name a role", code="bad_field"
        )
    found = [
        one
        if one.startswith(("user-", "agent-", "role-")) and plan.rows(PRINCIPAL, one)
        else resolve(caller, plan, one)[1]
        for one in who
    ]
    return list(dict.fromkeys(found))


def settings_with(
    caller: Caller, plan: Plan, settings: Mapping[str, Any], fields: Mapping[str, Any]
) -> dict[str, Any]:
    """`settings` after these owner fields were set; `allowed` holds ids by now. Raises `Invalid`."""
    said = dict(fields)
    if "sensitivity" in said:
        said["sensitivity"] = level(caller, plan, said["sensitivity"])
    if "audit_level" in said:
        said["audit_level"] = audit_number(said["audit_level"])
    if said.get("expires") is not None:
        said["expires"] = day_number(said["expires"])
        if said["expires"] < caller.workspace.today():
            raise Invalid(
                "the block would have expired already", hint="name today or a later day", code="bad_expiry"
            )
    after = {**settings, **said}
    return {name: value for name, value in after.items() if name not in DEFAULTS or value != DEFAULTS[name]}


def check_first(
    caller: Caller, plan: Plan, settings: Mapping[str, Any], grants: Sequence[FirstGrant]
) -> None:
    """Raises `Denied` when a new block's own settings do not admit those who are to hold it from the start."""
    if not settings.keys() & {"sensitivity", "allowed"}:
        return
    for grant in grants:
        party = caller.party(plan, grant.identity.id, grant.identity.digest)
        refused = policy.refusal(settings, caller.id, party)
        if refused:
            raise Denied(
                f"{party.id} may not be granted this block",
                hint="allow it, or clear it for the block's sensitivity",
                code="no_clearance" if refused == "clearance" else "not_allowed",
            )


def check_grants(opened: Opened, after: Mapping[str, Any]) -> None:
    """Raises `Invalid` (`grant_in_the_way`) when settings that admit fewer than before would no longer admit somebody
    who holds a grant: it has to be ended first, with the change of keys that goes with it."""
    before = opened.head.settings
    raised = after.get("sensitivity", 0) > before.get("sensitivity", 0)
    allowed, had = after.get("allowed"), before.get("allowed")
    if not raised and (allowed is None or (had is not None and set(allowed) >= set(had))):
        return
    caller, plan = opened.caller, opened.plan
    refused = [
        leaf.recipient
        for leaf in unexpired(opened, opened.grants())
        if policy.refusal(
            after,
            opened.head.owner,
            caller.party(plan, leaf.recipient, caller.identity(plan, leaf.recipient).digest),
        )
    ]
    if refused:
        raise Invalid(
            f"a grant is in the way: {', '.join(sorted(set(refused)))}",
            hint="revoke it first, or allow and clear its holder",
            code="grant_in_the_way",
        )
