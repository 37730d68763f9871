"""Creating, opening, editing and deleting blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from tallystone import crypto
from tallystone.errors import Denied, Invalid, Locked, PreconditionFailed
from tallystone.policy import check_version, may_write
from tallystone.statements import WRITE
from tallystone.store.tables import SHELF
from tallystone.vault.caller import Caller
from tallystone.vault.entering import open_block
from tallystone.vault.fields import CONTENT_FIELDS, FIXED_FIELDS, check_fields, over_limit
from tallystone.vault.fixed import check_edit, check_pair
from tallystone.vault.keeping import check_rule
from tallystone.vault.opening import Opened
from tallystone.vault.owner_fields import (
    DEFAULTS,
    OWNER_FIELDS,
    check_first,
    check_grants,
    recipients,
    refusals_logged,
    settings_with,
)
from tallystone.vault.passages import find_block
from tallystone.vault.plan import Plan
from tallystone.vault.recall import newest
from tallystone.vault.records import SALT, Held
from tallystone.vault.rotating import change_keys, heal, rotate_if_due
from tallystone.vault.shelves import AGENTS, BLOCKS, agent_keys, find
from tallystone.vault.types import DEFAULT_LIMIT, Block
from tallystone.vault.views import block_view, view_again
from tallystone.vault.writing import (
    FirstGrant,
    add_link,
    add_version,
    create_block,
    deletion,
    destroy,
    mark_day,
)

Edit = Callable[[Block], Mapping[str, Any]]


def new_block(
    caller: Caller,
    plan: Plan,
    fields: Mapping[str, Any],
    agents: Iterable[FirstGrant] = (),
    fixed: Mapping[str, Any] | None = None,
) -> Held:
    """Queue a new memory block of the caller; `agents` hold it from the start, and it goes with the only one. `fixed`
    is said in its genesis."""
    caller.must_act()
    fields = {name: value for name, value in fields.items() if value is not None or name == "label"}
    check_fields(fields)
    value, limit = fields.get("value", ""), fields.get("limit", DEFAULT_LIMIT)
    if len(value) > limit:
        raise over_limit(len(value), limit)
    payload = {
        "label": fields["label"],
        "value": value,
        "description": fields.get("description"),
        "tags": list(dict.fromkeys(fields.get("tags") or ())),
        "metadata": dict(fields.get("metadata") or {}),
        "extra": {k: v for k, v in (fields.get("extra") or {}).items() if v is not None},
        "created": caller.workspace.now_ms(),
    }
    mutable, append_only = fields.get("mutable", True), fields.get("append_only", False)
    check_pair(mutable, append_only)
    check_rule(fields.get("keep"), append_only)
    if not mutable:
        # The genesis names the hash of the content, and travels with offers: it must not be guessed from there.
        payload[SALT] = crypto.random_bytes(16)
    settings = {
        "limit": limit,
        "read_only": bool(fields.get("read_only")),
        "locked": bool(fields.get("locked")),
    }
    policy_fields = {name: fields[name] for name in DEFAULTS if name in fields}
    if "allowed" in fields:
        policy_fields["allowed"] = recipients(caller, plan, fields["allowed"])
    with refusals_logged(caller):
        settings = settings_with(caller, plan, settings, policy_fields)
    grants = list(agents)
    check_first(caller, plan, settings, grants)
    return create_block(
        caller,
        plan,
        kind="block",
        payload=payload,
        settings=settings,
        subject=grants[0].identity.id if grants else "",
        grants=grants,
        mutable=mutable,
        append_only=append_only,
        fixed=fixed,
    )


def create(caller: Caller, fields: Mapping[str, Any]) -> Block:
    """A new block of the caller's."""

    def action(plan: Plan) -> Block:
        held = new_block(caller, plan, fields)
        caller.event(plan, "create", held.key, block=held.block)
        return look(caller, plan, held)

    return caller.transact(action)


def look(
    caller: Caller, plan: Plan, held: Held, *, agents: bool = True, viewer: Caller | None = None
) -> Block:
    """Open, verify and show one block; `viewer` is who will see it, if that is not who opens it."""
    block = view_again(caller, plan, held, agents=agents, viewer=viewer)
    return show(open_block(caller, plan, held), agents=agents, viewer=viewer) if block is None else block


def show(opened: Opened, *, agents: bool = True, viewer: Caller | None = None) -> Block:
    """Verify and show a block that is open."""
    verified = payload, version, _ = opened.payload()
    if opened.held.recalled is None:
        opened.caller.workspace.recall.keep(opened, verified)
    return block_view(opened, payload, version, agents=agents, viewer=viewer)


def edit_opened(
    opened: Opened,
    edit: Edit,
    if_version: int | None,
    viewer: Caller | None = None,
    change: Mapping[str, Any] | None = None,
) -> tuple[Block, list[str]]:
    """Queue what `edit` makes of an opened block. Returns the block as it will be, and the names of what changed.
    `change` is what the version states besides (see `add_version`)."""
    caller, head = opened.caller, opened.head
    payload, version, digest = opened.payload()
    before = block_view(opened, payload, version, viewer=viewer)
    if if_version is not None and if_version != version.number:
        raise PreconditionFailed(
            f"the block is at version {version.number}, not {if_version}",
            hint="read it again and redo the change",
        )
    wanted = dict(edit(before))
    check_fields(wanted)
    if wanted.get("allowed") is not None:
        wanted["allowed"] = recipients(caller, opened.plan, wanted["allowed"])
    fields = {name: value for name, value in wanted.items() if value != getattr(before, name)}
    content = {name: fields[name] for name in CONTENT_FIELDS if name in fields}
    owner = {name: fields[name] for name in OWNER_FIELDS if name in fields}
    # Asked before it is seen that nothing would change: whoever may not write is told so, whatever it wrote.
    asked = {name: wanted[name] for name in CONTENT_FIELDS if name in wanted}
    if fields or asked:
        caller.must_act()
        _allowed(opened, before, asked, owner)
    if not fields:
        return before, []
    fixed = [name for name in FIXED_FIELDS if name in fields]
    if fixed:
        raise Invalid(
            f"{' and '.join(fixed)} cannot be changed", hint="it is fixed when a block is made", code="fixed"
        )
    check_edit(opened.genesis(), payload, content)
    check_rule(owner.get("keep"), opened.genesis().append_only)
    settings: Mapping[str, Any] = head.settings
    if owner:
        with refusals_logged(caller):
            settings = settings_with(caller, opened.plan, settings, owner)
            check_grants(opened, settings)
    limit = owner.get("limit", before.limit)
    value = content.get("value", before.value)
    if len(value) > limit and ("value" in content or "limit" in owner):
        raise over_limit(len(value), limit)
    said = {"settings": sorted(owner)}
    if "expires" in owner:
        _move_day(opened, settings.get("expires"))
        change_keys(opened, change=said, settings=settings)
    else:
        rotate_if_due(opened, writing=True)
        if owner:
            add_link(opened, "policy", said, settings=settings)
    # A change of settings alone makes a version too: the number is what clients compare (ETag, If-Match).
    payload = {**payload, **content}
    standing = opened.standing()
    written = add_version(opened, payload, digest, standing, change)
    # Asked as every reader asks, and then what was written need not be opened again by the next request.
    check_version(opened.head, opened.head, written, newest(opened)[1], standing, None)
    caller.workspace.recall.keep(opened, (payload, *newest(opened)))
    return block_view(opened, payload, written, agents=before.agent_ids), sorted(fields)


def _move_day(opened: Opened, day: int | None) -> None:
    """Queue another last day. The keys must change with it: the old ones are nested in the other day's, or in none."""
    mark_day(opened.caller, opened.plan, opened.row.storage, opened.row.day, day)
    opened.row = opened.row.changed(day=day)


def _allowed(opened: Opened, before: Block, content: Mapping[str, Any], owner: Mapping[str, Any]) -> None:
    """Who may change what (design §7.3, §7.10). Readers ask `policy` again."""
    caller, owns = opened.caller, opened.held.own_leaf is None
    if owner and not owns:
        raise Denied(
            f"{', '.join(sorted(owner))} may be changed by the block's owner only",
            hint="ask its owner",
            code="not_owner",
        )
    if not content:
        return
    if not may_write(opened.head, opened.standing(), caller.workspace.now() // 86400):
        raise Denied(
            "this block is shared with you for reading", hint="ask its owner for write", code="no_write"
        )
    if before.read_only and caller.id.startswith("agent-"):
        raise Denied(
            "the block is read-only for agents", hint="its owner can still edit it", code="read_only"
        )
    if before.locked and owner.get("locked") is not False:
        raise Locked("the block is locked", hint="its owner unlocks it with locked=false")


def edit_block(
    caller: Caller,
    block_id: str,
    edit: Edit,
    if_version: int | None,
    relabelled: Callable[[Opened, Caller], None],
) -> Block:
    """Apply `edit` to the current state, as one new version; on a concurrent change, again. `relabelled` is asked
    when the label has changed, and may refuse."""

    def action(plan: Plan) -> Block:
        held = find_block(caller, plan, block_id, WRITE)
        opened = heal(open_block(caller, plan, held))
        block, changed = edit_opened(opened, edit, if_version)
        if "label" in changed:
            relabelled(opened, caller)
        caller.event(
            plan,
            "update" if changed else "read",
            held.key,
            block=block_id,
            version=block.version,
            fields=changed,
        )
        return block

    return caller.transact(action, lock=block_id)


def delete_block(caller: Caller, block_id: str) -> None:
    """Remove a block with all its versions, keys and grants; it leaves every agent of the caller's."""

    def action(plan: Plan) -> None:
        held = find_block(caller, plan, block_id)
        remove(caller, plan, held)

    caller.transact(action, lock=block_id)
    caller.workspace.geneses.drop(block_id)


def remove(caller: Caller, plan: Plan, held: Held) -> None:
    """Queue a block's removal. Raises `Denied` unless the caller owns it."""
    caller.must_act()
    opened = open_block(caller, plan, held)
    if opened.held.own_leaf is not None:
        raise Denied(
            "only the owner deletes a block", hint="detach it from your agents instead", code="not_owner"
        )
    if opened.head.settings["locked"]:
        raise Locked("the block is locked", hint="its owner unlocks it with locked=false")
    statement = deletion(opened)
    for leaf in opened.grants():
        agent = find(plan, caller.keys, AGENTS, leaf.recipient)
        if agent is not None:
            keys = agent_keys(caller, agent)
            plan.delete(SHELF, keys.shelf(BLOCKS), keys.locator(held.block))
    destroy(plan, opened)
    plan.delete(SHELF, caller.keys.shelf(BLOCKS), caller.keys.locator(held.block))
    caller.event(plan, "delete", held.key, block=held.block, statement=statement)
