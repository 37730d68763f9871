"""The memory tools as pure edits of text: the old value and the arguments in, the new value out.

Nothing here reads or writes a store. The caller runs an edit on the *current* value, inside the vault's
compare-and-swap, and runs it again if another writer was faster; so of many appends at once none is lost, and of two
agents that replace the same line exactly one finds it. An edit that cannot be done raises `ToolError`, which an agent
reads as the answer of its tool (contract §5): the names of the error types are those that agents already know, the
words are ours.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

MAX_ERROR = 1000
"""Characters of a tool error, its wrapping included."""

LINE_NOTE = "The numbers before the arrows count the lines and are not part of the text."
"""Stands above a block whose lines are shown numbered; like the numbers, it must never come back in an edit."""

_NUMBERED = re.compile(r"^[ \t]*\d+→[ \t]*", re.MULTILINE)
_FOLDER = "/memories/"


class ToolError(Exception):
    """A tool could not do what it was asked. `kind` is the type name that the agent sees, `text` the reason."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind
        self.text = text

    def wrapped(self, tool: str) -> str:
        """The line for `stderr`, at most `MAX_ERROR` characters."""
        return f"Error executing function {tool}: {self.kind}: {self.text}"[:MAX_ERROR]


Edit = Callable[[str, str, Mapping[str, Any]], str]
"""An edit of one block: (value, label, arguments) → new value."""


def missing_block(label: str, labels: list[str]) -> ToolError:
    """No block of this agent has the label. Names the labels that the agent does hold, none else."""
    known = ", ".join(sorted(labels)) or "none"
    return ToolError("KeyError", f"'This agent has no block labelled {label} (it has: {known})'")


def read_only(label: str) -> ToolError:
    """The block binds agents to reading."""
    return ToolError("ValueError", f"The block {label} is read-only: no agent can change it.")


def over_limit(limit: int, length: int) -> ToolError:
    """The edited value would not fit. Lengths in characters."""
    return ToolError(
        "ValueError",
        f"The edit was not made: it would fill {length} characters of a block that holds {limit}.",
    )


def guard(arguments: Mapping[str, Any]) -> None:
    """Refuse text that was copied together with its display: numbered lines, or the note above them."""
    for name, value in arguments.items():
        if not isinstance(value, str):
            continue
        if _NUMBERED.search(value):
            raise ToolError(
                "ValueError",
                f"{name} contains a line number prefix. The numbers are only shown to you; leave them out of tool "
                "arguments.",
            )
        if LINE_NOTE in value:
            raise ToolError(
                "ValueError",
                f"{name} contains the note about line numbers. It is not part of the block; leave it out.",
            )


def append(value: str, label: str, arguments: Mapping[str, Any]) -> str:
    """`core_memory_append`: the content on a new line at the end, even of an empty block."""
    return f"{value}\n{arguments['content']}"


def replace_all(value: str, label: str, arguments: Mapping[str, Any]) -> str:
    """`core_memory_replace`: every occurrence of the exact text; an empty replacement deletes it."""
    old = arguments["old_content"]
    if old not in value or not old:
        raise ToolError(
            "ValueError", f"The text {old!r} was not found in the block {label}. It now reads: {value!r}"
        )
    return value.replace(old, arguments["new_content"])


def insert_line(value: str, label: str, arguments: Mapping[str, Any]) -> str:
    """`memory_insert`: new lines after line N; 0 is the top, -1 the end. Tabs become spaces."""
    lines = value.expandtabs().split("\n")
    after = arguments.get("insert_line", -1)
    if after == -1:
        after = len(lines)
    if not 0 <= after <= len(lines):
        raise ToolError(
            "ValueError",
            f"The `insert_line` parameter {after} is out of range: the block {label} has lines [0, {len(lines)}], "
            "and -1 appends at its end.",
        )
    return "\n".join([*lines[:after], *arguments["new_string"].expandtabs().split("\n"), *lines[after:]])


def replace_once(value: str, label: str, arguments: Mapping[str, Any]) -> str:
    """`memory_replace`: text that must stand in the block exactly once. Tabs become spaces."""
    value = value.expandtabs()
    old = arguments["old_string"].expandtabs()
    count = value.count(old) if old else 0
    if count == 0:
        raise ToolError(
            "ValueError",
            f"Nothing was replaced: old_string {old!r} does not appear verbatim in the block {label}. It now reads: "
            f"{value!r}",
        )
    if count > 1:
        raise ToolError(
            "ValueError",
            f"Nothing was replaced: old_string {old!r} appears {count} times, in lines {_lines_of(value, old)}. Add "
            "the text around it until it is unique.",
        )
    return value.replace(old, arguments["new_string"].expandtabs())


def _lines_of(value: str, old: str) -> list[int]:
    """The 1-based lines in which non-overlapping occurrences of `old` begin."""
    return sorted({value.count("\n", 0, match.start()) + 1 for match in re.finditer(re.escape(old), value)})


def rewrite(value: str, label: str, arguments: Mapping[str, Any]) -> str:
    """`memory_rethink`: the whole block anew; the last writer wins."""
    new: str = arguments["new_memory"]
    return new


EDITS: Mapping[str, Edit] = {
    "core_memory_append": append,
    "core_memory_replace": replace_all,
    "memory_insert": insert_line,
    "memory_replace": replace_once,
    "memory_rethink": rewrite,
}
"""The tools that edit one block's value and do nothing else. (`memory_apply_patch` and `memory` can do more.)"""


def path_label(path: str) -> str:
    """The label in a path of the `memory` tool: `/memories/<label>`, where labels may hold slashes themselves."""
    label = path.removeprefix(_FOLDER).lstrip("/") if path.startswith(_FOLDER) else path.lstrip("/")
    if not label:
        raise ToolError("ValueError", f"{path!r} names no block; a path is /memories/<label>.")
    return label


_TYPES: Mapping[str, type] = {"string": str, "integer": int, "array": list, "boolean": bool, "object": dict}


def check_arguments(schema: Mapping[str, Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that `schema` (a tool's JSON schema) knows, NULs removed, nulls of optional ones dropped.

    Raises `ToolError` (`TypeError`) for one that is missing, unknown or of another type.
    """
    parameters = schema["parameters"]
    properties: Mapping[str, Any] = parameters["properties"]
    required: list[str] = parameters.get("required", [])
    known: dict[str, Any] = {}
    for name, value in arguments.items():
        if name not in properties:
            raise ToolError(
                "TypeError", f"{schema['name']} takes no argument {name!r}; it takes {sorted(properties)}."
            )
        if value is None and name not in required:
            continue
        wanted = properties[name].get("type", "string")
        expected = _TYPES[wanted]
        # bool is an int to Python, but `true` is no line number
        if not isinstance(value, expected) or (expected is int and isinstance(value, bool)):
            raise ToolError("TypeError", f"argument {name!r} of {schema['name']} must be of type {wanted}.")
        known[name] = value.replace("\0", "") if isinstance(value, str) else value
    for name in required:
        if name not in known:
            raise ToolError("TypeError", f"{schema['name']} is missing its argument {name!r}.")
    return known
