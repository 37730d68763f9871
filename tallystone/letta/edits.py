"""From a request's body to the changed fields of a block: limits, conditions, nulls. Pure.

The functions here run inside the vault's compare-and-swap, on the block as it then is; so a limit that another writer
lowered a moment ago counts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tallystone.errors import Invalid, Rejected
from tallystone.letta.bodies import BlockCreate, BlockUpdate, given
from tallystone.letta.call import Call
from tallystone.vault.types import DEFAULT_LIMIT, EXTRA_FIELDS, Block

POLICY_FIELDS = ("sensitivity", "allowed", "expires", "mutable", "append_only", "keep", "audit_level")
"""Fields of ours that say who may ever hold a block, until when, how it may change, and which versions stay."""
DEFAULT_DESCRIPTIONS = {
    "human": "What is known about the person whom the agent talks with: who they are, what they like, what they plan.",
    "persona": "Who the agent is: its role, its character, and how it goes about its work.",
}
"""Given to blocks of these labels that come without a description, when an agent is made."""


def over_create_limit(length: int, limit: int) -> Invalid:
    """A new value does not fit the limit that came with it (422)."""
    return Invalid(
        f"the value has {length} characters, the block's limit is {limit}",
        hint="shorten the value or raise the limit",
        code="over_limit",
    )


def created_fields(body: BlockCreate, *, default_description: bool = False) -> dict[str, Any]:
    """A new block's fields, as `Vault.create_block` takes them. Raises `Invalid` for a value over the limit."""
    sent = given(body)
    value, limit = sent.get("value", ""), sent.get("limit", DEFAULT_LIMIT)
    if len(value) > limit:
        raise over_create_limit(len(value), limit)
    fields: dict[str, Any] = {
        "label": body.label,
        "value": value,
        "limit": limit,
        "description": sent.get("description"),
        "read_only": sent.get("read_only", False),
        "locked": sent.get("locked", False),
        "tags": tuple(dict.fromkeys(sent.get("tags", ()))),
        "metadata": sent.get("metadata", {}),
        "extra": {name: sent[name] for name in EXTRA_FIELDS if name in sent},
        **{name: sent[name] for name in POLICY_FIELDS if name in sent},
    }
    if default_description and fields["description"] is None:
        fields["description"] = DEFAULT_DESCRIPTIONS.get(body.label)
    return fields


def updated_fields(body: BlockUpdate, block: Block) -> dict[str, Any]:
    """The fields of `block` that a PATCH really changes. Raises for what would not fit (contract §4.1)."""
    sent = given(body)
    extra = {name: sent.pop(name) for name in EXTRA_FIELDS if name in sent}
    if "tags" in sent:
        sent["tags"] = list(dict.fromkeys(sent["tags"]))
    if extra:
        sent["extra"] = {**block.extra, **extra}
    length, limit = len(sent.get("value", block.value)), sent.get("limit", block.limit)
    if ("value" in sent or "limit" in sent) and length > limit:
        if "value" in sent and "limit" in sent:
            raise over_create_limit(length, limit)
        if "value" in sent:
            raise Rejected(
                f"the value has {length} characters, the block's limit is {limit}",
                hint="shorten the value, or have the owner raise the limit first",
                code="over_limit",
            )
        raise Rejected(
            f"the limit cannot be {limit}: the block's value has {length} characters",
            hint="shorten the value first, or choose a higher limit",
            code="limit_below_value",
        )
    return {name: value for name, value in sent.items() if value != getattr(block, name)}


def update(call: Call, body: BlockUpdate) -> Callable[[Block], Mapping[str, Any]]:
    """The edit that a PATCH asks for, under its `If-Match`."""

    def edit(block: Block) -> Mapping[str, Any]:
        call.check_version(block)
        return updated_fields(body, block)

    return edit
