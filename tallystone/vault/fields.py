"""The fields of a block: what they are called, and of which types."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime
from typing import Any

from tallystone.errors import Invalid
from tallystone.vault.types import MAX_LIMIT

CONTENT_FIELDS = ("label", "value", "description", "tags", "metadata", "extra")
"""Those that whoever may write changes."""
FIXED_FIELDS = ("mutable", "append_only")
"""Those that are fixed when a block is made."""


def over_limit(length: int, limit: int) -> Invalid:
    """A value that is longer than its block allows."""
    return Invalid(
        f"the value has {length} characters; this block takes {limit}",
        hint="shorten it, or have the owner raise the block's limit",
        code="over_limit",
    )


_FIELD_TYPES: Mapping[str, tuple[type, ...]] = {
    "label": (str,),
    "value": (str,),
    "description": (str, type(None)),
    "tags": (list, tuple),
    "metadata": (dict,),
    "extra": (dict,),
    "limit": (int,),
    "read_only": (bool,),
    "locked": (bool,),
    "sensitivity": (str,),
    "allowed": (list, tuple, type(None)),
    "expires": (date, type(None)),
    "keep": (str, dict),
    "audit_level": (str,),
    "mutable": (bool,),
    "append_only": (bool,),
}


def check_fields(fields: Mapping[str, Any]) -> None:
    """Raises `Invalid` for a field that is none, of a wrong type, or a limit out of range: what is signed is read by
    others, and must be what they expect."""
    for name, value in fields.items():
        kinds = _FIELD_TYPES.get(name)
        if kinds is None:
            raise Invalid(
                f"a block has no field {name!r}", hint=f"it has {', '.join(_FIELD_TYPES)}", code="bad_field"
            )
        fits = isinstance(value, kinds) and (bool in kinds or not isinstance(value, bool))
        texts = (value or ()) if name in ("tags", "allowed") and fits else ()
        if not fits or isinstance(value, datetime) or not all(isinstance(text, str) for text in texts):
            raise Invalid(
                f"the field {name} does not take this type", hint="see Vault.create_block", code="bad_field"
            )
    limit = fields.get("limit")
    if limit is not None and not 0 <= limit <= MAX_LIMIT:
        raise Invalid(
            f"limit must be between 0 and {MAX_LIMIT}", hint="it counts characters", code="bad_limit"
        )
