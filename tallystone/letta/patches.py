"""The patch language of `memory_apply_patch`: parsed into steps, and applied to text.

A patch for one block is lines that begin with a space (context), `-` (remove) or `+` (add); `@@` splits it into hunks.
The old lines of a hunk must stand in the block exactly once, in one piece; a hunk of `+` lines alone is appended.
A patch for several blocks holds sections: `*** Add Block:`, `*** Delete Block:`, `*** Update Block:` (which may be
followed by `*** Move to:`), each with a label. Pure: no I/O.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from tallystone.letta.memory_tools import ToolError

_SECTIONS: dict[str, Literal["add", "delete", "update"]] = {
    "*** Add Block:": "add",
    "*** Delete Block:": "delete",
    "*** Update Block:": "update",
}
_MOVE = "*** Move to:"
_IGNORED = ("*** Begin Patch", "*** End Patch", "*** End of File")


@dataclass
class Step:
    """One section of a patch: what happens to the block `label`. `move` is its new label, if it gets one."""

    action: Literal["add", "delete", "update"]
    label: str
    lines: list[str] = field(default_factory=list)
    move: str | None = None


def is_multi(patch: str) -> bool:
    """Whether the patch names its blocks itself."""
    return any(line.startswith(tuple(_SECTIONS)) for line in patch.split("\n"))


def steps(patch: str) -> list[Step]:
    """The sections of a patch for several blocks, in order. Raises `ToolError` for lines outside of them."""
    found: list[Step] = []
    for line in patch.split("\n"):
        if line.startswith(_IGNORED):
            continue
        head = next((prefix for prefix in _SECTIONS if line.startswith(prefix)), None)
        if head is not None:
            label = line.removeprefix(head).strip()
            if not label:
                raise ToolError("ValueError", f"The patch line {line!r} names no block.")
            found.append(Step(_SECTIONS[head], label))
        elif line.startswith(_MOVE):
            if not found or found[-1].action != "update" or not line.removeprefix(_MOVE).strip():
                raise ToolError("ValueError", f"{_MOVE!r} needs a label, and belongs into an Update section.")
            found[-1].move = line.removeprefix(_MOVE).strip()
        elif found:
            found[-1].lines.append(line)
        elif line.strip():
            raise ToolError("ValueError", f"The patch line {line!r} stands before the first section.")
    for step in found:
        while step.lines and not step.lines[-1]:
            step.lines.pop()  # the newline before the next section is not part of this one
    return found


def added_value(step: Step) -> str:
    """The value of a block that an Add section creates: its `+` lines."""
    wrong = next((line for line in step.lines if not line.startswith("+")), None)
    if wrong is not None:
        raise ToolError("ValueError", f"Each line of a new block begins with '+', unlike {wrong!r}.")
    return "\n".join(line[1:] for line in step.lines)


def apply(value: str, label: str, lines: list[str]) -> str:
    """The value after all hunks. Raises `ToolError` if one of them fits nowhere, or at more than one place."""
    text = value.split("\n")
    for old, new in _hunks(lines):
        if not old:
            text = new if text == [""] else text + new
            continue
        places = [at for at in range(len(text) - len(old) + 1) if text[at : at + len(old)] == old]
        quoted = "\n".join(old)
        if not places:
            raise ToolError(
                "ValueError",
                f"Nothing was patched: the lines {quoted!r} do not stand in the block {label}. It now reads: {value!r}",
            )
        if len(places) > 1:
            raise ToolError(
                "ValueError",
                f"Nothing was patched: the lines {quoted!r} stand {len(places)} times in the block {label}, at lines "
                f"{[at + 1 for at in places]}. Add lines of context until they are unique.",
            )
        text[places[0] : places[0] + len(old)] = new
    return "\n".join(text)


def _hunks(lines: list[str]) -> list[tuple[list[str], list[str]]]:
    """(old lines, new lines) of each hunk; hunks without any line are left out."""
    hunks: list[tuple[list[str], list[str]]] = [([], [])]
    # a patch is written with a newline at its end, which is no line of context
    if lines and not lines[-1]:
        lines = lines[:-1]
    for line in lines:
        old, new = hunks[-1]
        if line.startswith("@@"):
            hunks.append(([], []))
        elif line.startswith(_IGNORED):
            continue
        elif line.startswith("-"):
            old.append(line[1:])
        elif line.startswith("+"):
            new.append(line[1:])
        elif not line or line.startswith(" "):
            old.append(line[1:])
            new.append(line[1:])
        else:
            raise ToolError(
                "ValueError",
                f"The patch line {line!r} begins with none of ' ' (context), '-' (remove), '+' (add), '@@'.",
            )
    found = [hunk for hunk in hunks if hunk[0] or hunk[1]]
    if not found:
        raise ToolError("ValueError", "The patch changes nothing: it has no '-' and no '+' line.")
    return found
