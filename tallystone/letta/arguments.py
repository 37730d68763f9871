"""What a model writes as the arguments of a tool call: JSON text, as a rule."""

from __future__ import annotations

import json
import re
from typing import Any

MAX_ARGUMENTS = 1_000_000
"""Characters of a call's arguments."""
MAX_NAME = 64
"""Characters of a tool's name, as providers count them."""
_SHOWN = 500
_NOT_IN_NAMES = re.compile(r"[^a-zA-Z0-9_-]")


def clean(text: str) -> str:
    """`text` without what cannot be stored: NULs, and halves of characters."""
    return text.replace("\0", "").encode("utf-8", "replace").decode()


def arguments_of(text: str) -> dict[str, Any]:
    """A call's arguments as they can be stored. Raises `ValueError` with the end of a sentence."""
    if len(text) > MAX_ARGUMENTS:
        raise ValueError(f"have more than {MAX_ARGUMENTS} characters")
    try:
        value = json.loads(text or "{}", parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise ValueError("are no JSON object") from None
    if not isinstance(value, dict):
        raise ValueError("are no JSON object")
    found = _cleaned(value, 32)
    assert isinstance(found, dict)
    return found


def _refuse(name: str) -> Any:
    raise ValueError(name)


def _cleaned(value: Any, depth: int) -> Any:
    """`value` as it can be stored. Raises `ValueError`."""
    if depth == 0:
        raise ValueError("are nested too deeply")
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, list):
        return [_cleaned(one, depth - 1) for one in value]
    if isinstance(value, dict):
        return {clean(name): _cleaned(one, depth - 1) for name, one in value.items()}
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        raise ValueError("hold a number that is too large")
    return value


def as_heard(text: str) -> str:
    """The arguments as a model is shown its own call again: an object in valid JSON, whatever it had written. What is
    no object would be refused by some providers, and the conversation with it."""
    try:
        return json.dumps(arguments_of(text), ensure_ascii=False, allow_nan=False)
    except ValueError:
        return json.dumps({"no_json_object": clean(text)[:_SHOWN]}, ensure_ascii=False)


def name_as_heard(name: str) -> str:
    """A tool's name as a model is shown its own call again: of letters that every provider takes, whatever it had
    made up. One other letter in it would be refused, and the conversation with it for good."""
    return _NOT_IN_NAMES.sub("_", name)[:MAX_NAME] or "_"
