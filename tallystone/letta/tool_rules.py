"""What an agent's tool rules say about one turn: which tools may be called now, which end it, which need an approval.

A rule is a map as clients send it (`type`, `tool_name`, …). A rule of an unknown type says nothing here. Pure.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tallystone.letta.arguments import arguments_of
from tallystone.letta.model import ToolCall

_ENDING = frozenset({"send_message", "memory_finish_edits"})
"""Tools that end a turn by what they are, unless a rule says that the turn goes on."""


@dataclass
class ToolRules:
    """The rules of an agent, and what was called in the turn so far: names, and what each call returned."""

    rules: Sequence[Mapping[str, Any]]
    called: list[tuple[str, str]] = field(default_factory=list)

    def _of(self, kind: str) -> Iterable[Mapping[str, Any]]:
        return (rule for rule in self.rules if rule.get("type") == kind)

    def _names(self, kind: str) -> set[str]:
        return {str(rule.get("tool_name")) for rule in self._of(kind)}

    def note(self, name: str, returned: str) -> None:
        """A tool was run."""
        self.called.append((name, returned))

    def filled(self, call: ToolCall) -> ToolCall:
        """A call with the arguments that a `run_first` rule fixes, which beat the model's own, while nothing was called
        yet. What is no JSON object stays as the model wrote it, and will be told so."""
        fixed: dict[str, Any] = {}
        for rule in self._of("run_first"):
            if rule.get("tool_name") == call.name and isinstance(rule.get("args"), dict):
                fixed |= rule["args"]
        if not fixed or self.called:
            return call
        try:
            arguments = {**arguments_of(call.arguments), **fixed}
        except ValueError:
            return call
        return replace(call, arguments=json.dumps(arguments, ensure_ascii=False))

    def needs_approval(self, name: str) -> bool:
        """Whether somebody must agree before this tool runs."""
        return name in self._names("requires_approval")

    def ends(self, name: str) -> bool:
        """Whether the turn is over once this tool has run."""
        if name in self._names("exit_loop"):
            return True
        return name in _ENDING and name not in self._names("continue_loop")

    def missing(self, tools: Iterable[str]) -> list[str]:
        """Tools that must still be called before the turn may end, of those that there are."""
        done = {name for name, _ in self.called}
        return sorted(self._names("required_before_exit").intersection(tools) - done)

    def allowed(self, tools: Iterable[str]) -> list[str]:
        """Which of the tools may be called now."""
        tools = list(tools)
        if not self.called:
            first = self._names("run_first").intersection(tools)
            if first:
                return [name for name in tools if name in first]
            last, returned = "", ""
        else:
            last, returned = self.called[-1]
        only = self._children(last, returned)
        counts = {name: sum(one == name for one, _ in self.called) for name in tools}
        full = {
            str(rule.get("tool_name"))
            for rule in self._of("max_count_per_step")
            if counts.get(str(rule.get("tool_name")), 0) >= int(rule.get("max_count_limit") or 0)
        }
        late = {
            child
            for rule in self._of("parent_last_tool")
            if rule.get("tool_name") != last
            for child in _texts(rule.get("children"))
        }
        return [
            name for name in tools if (only is None or name in only) and name not in full and name not in late
        ]

    def _children(self, last: str, returned: str) -> set[str] | None:
        """The only tools that may follow the last one, or None."""
        only: set[str] | None = None
        for rule in self.rules:
            if not last or rule.get("tool_name") != last:
                continue
            if rule.get("type") == "constrain_child_tools":
                only = (only or set()) | set(_texts(rule.get("children")))
            elif rule.get("type") == "conditional":
                mapping = rule.get("child_output_mapping")
                child = mapping.get(returned) if isinstance(mapping, dict) else None
                only = (only or set()) | {str(child or rule.get("default_child") or "")}
        return only


def _texts(value: Any) -> list[str]:
    return [str(one) for one in value] if isinstance(value, list) else []
