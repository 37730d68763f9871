"""Running a tool as an agent: the memory tools as atomic edits through the vault, the others as a plain refusal.

Whatever goes wrong inside a tool is the tool's answer (HTTP 200, `status: "error"`), as an agent's loop expects; only
a caller who may not run tools at all, or an agent or tool that is not there, is an HTTP error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from tallystone.errors import Denied, Invalid, Locked, NotFound, Taken
from tallystone.letta import memory_tools, patches
from tallystone.letta.agent_tools import SENDING
from tallystone.letta.call import Answer, Call
from tallystone.letta.memory_tools import EDITS, ToolError
from tallystone.letta.recall_tools import RECALL
from tallystone.letta.tools import Tool
from tallystone.vault import Vault
from tallystone.vault.memory import AddBlock, DropBlock, EditBlock, Step
from tallystone.vault.types import Agent, Block

Result = str | None
T = TypeVar("T")


def result_json(status: str, returned: Result, error: str | None = None) -> dict[str, Any]:
    """`ToolExecutionResult`."""
    return {
        "status": status,
        "func_return": returned,
        "stdout": None,
        "stderr": None if error is None else [error],
        "agent_state": None,
        "sandbox_config_fingerprint": None,
    }


def succeeded(returned: Result) -> Answer:
    """The tool did it, and says this."""
    return Answer(result_json("success", returned))


def run(call: Call, agent: Agent, tool: Tool, arguments: Mapping[str, Any]) -> Answer:
    """Run `tool` as `agent`, with the rights of the agent. Raises `Denied` for a token that can only read."""
    try:
        known = memory_tools.check_arguments(tool.json_schema, arguments)
        if tool.name in RECALL:
            return RECALL[tool.name](call, agent, known)
        if tool.name in SENDING:
            return SENDING[tool.name](call, agent, known)
        if tool.name == "send_message":
            raise ToolError("RuntimeError", "there is nobody to talk to outside of a turn.")
        if not tool.served:
            raise ToolError("NotImplementedError", f"no provider for {tool.name} is set up on this server.")
        memory_tools.guard(known)
        if tool.name == "memory_finish_edits":
            return succeeded(None)
        if tool.name == "memory":
            return _memory(call, agent, known)
        if tool.name == "memory_apply_patch":
            return _patch(call, agent, known)
        return _edit(call, agent, str(known["label"]), EDITS[tool.name], known)
    except ToolError as error:
        text = error.wrapped(tool.name)
        return Answer(result_json("error", text, text))


# -- one block --------------------------------------------------------------------------------------------------


def _edit(
    call: Call, agent: Agent, label: str, edit: memory_tools.Edit, arguments: Mapping[str, Any]
) -> Answer:
    """Apply an edit to the value of one block; the answer is the whole new value."""

    def change(block: Block) -> Mapping[str, Any]:
        return {"value": _fits(edit(block.value, label, arguments), block)}

    def work() -> Block:
        edited = partial(call.vault.edit_agent_block, agent.id, label, change, as_agent=True)
        return _answering(call.vault, agent, [label], [label], edited)

    return call.once(work, lambda block: succeeded(block.value))


def _fits(value: str, block: Block) -> str:
    if len(value) > block.limit:
        raise memory_tools.over_limit(block.limit, len(value))
    return value


def _answering(
    vault: Vault, agent: Agent, at: Sequence[str], needed: Sequence[str], work: Callable[[], T]
) -> T:
    """Run `work`; what the vault refuses becomes the tool's answer, about the block whose label is `at[0]` by then.
    `needed` are the labels that the agent must have."""
    try:
        return work()
    except NotFound:
        labels = [block.label for block in vault.agent_blocks(agent.id)]
        missing = next((label for label in needed if label not in labels), at[0])
        raise memory_tools.missing_block(missing, labels) from None
    except Denied as error:
        if error.code == "read_only_token":
            raise  # the caller may run no tool at all: that is no answer of this one
        if error.code == "read_only":
            raise memory_tools.read_only(at[0]) from None
        raise ToolError("PermissionError", f"{at[0]}: {error.message}.") from None
    except (Locked, Taken, Invalid) as error:
        raise ToolError("ValueError", f"{at[0]}: {error.message}.") from None


# -- the `memory` tool ------------------------------------------------------------------------------------------


def _memory(call: Call, agent: Agent, arguments: dict[str, Any]) -> Answer:
    command = arguments["command"]
    run_command = _COMMANDS.get(command)
    if run_command is None:
        raise ToolError("ValueError", f"memory has no command {command!r}; it has {', '.join(_COMMANDS)}.")
    return run_command(call, agent, arguments)


def _needed(arguments: Mapping[str, Any], *names: str) -> list[str]:
    for name in names:
        if name not in arguments:
            raise ToolError("ValueError", f"memory {arguments['command']} needs {name}.")
    return [arguments[name] for name in names]


def _create(call: Call, agent: Agent, arguments: dict[str, Any]) -> Answer:
    path, description = _needed(arguments, "path", "description")
    label = memory_tools.path_label(path)
    new = AddBlock(
        {"label": label, "value": arguments.get("file_text", ""), "description": description or None}
    )
    return _change(call, agent, [(label, new)], f"Created the block {label}.")


def _str_replace(call: Call, agent: Agent, arguments: dict[str, Any]) -> Answer:
    path, old = _needed(arguments, "path", "old_string")
    texts = {"old_string": old, "new_string": arguments.get("new_string", "")}
    return _edit(call, agent, memory_tools.path_label(path), memory_tools.replace_once, texts)


def _insert(call: Call, agent: Agent, arguments: dict[str, Any]) -> Answer:
    path, text = _needed(arguments, "path", "insert_text")
    texts = {"new_string": text, "insert_line": arguments.get("insert_line", -1)}
    return _edit(call, agent, memory_tools.path_label(path), memory_tools.insert_line, texts)


def _delete(call: Call, agent: Agent, arguments: dict[str, Any]) -> Answer:
    label = memory_tools.path_label(_needed(arguments, "path")[0])
    return _change(call, agent, [(label, DropBlock(label, _may_drop))], f"Deleted the block {label}.")


def _rename(call: Call, agent: Agent, arguments: dict[str, Any]) -> Answer:
    """A new label (`old_path`, `new_path`), or a new description (`path`, `description`), or both."""
    if "new_path" not in arguments and "description" not in arguments:
        raise ToolError("ValueError", "memory rename needs new_path, or a description.")
    old = memory_tools.path_label(arguments.get("old_path") or _needed(arguments, "path")[0])
    changed: dict[str, Any] = {}
    done = []
    if "new_path" in arguments:
        changed["label"] = memory_tools.path_label(arguments["new_path"])
        done.append(f"Renamed the block {old} to {changed['label']}.")
    if "description" in arguments:
        changed["description"] = arguments["description"]
        done.append(f"Described the block {changed.get('label', old)} anew.")
    return _change(call, agent, [(old, EditBlock(old, lambda _: changed))], " ".join(done))


_COMMANDS: Mapping[str, Callable[[Call, Agent, dict[str, Any]], Answer]] = {
    "create": _create,
    "str_replace": _str_replace,
    "insert": _insert,
    "delete": _delete,
    "rename": _rename,
}


# -- several blocks, or the set of them -------------------------------------------------------------------------


def _patch(call: Call, agent: Agent, arguments: Mapping[str, Any]) -> Answer:
    patch = arguments["patch"]
    if not patches.is_multi(patch):
        lines = patch.split("\n")
        return _edit(
            call, agent, arguments["label"], lambda value, label, _: patches.apply(value, label, lines), {}
        )
    steps = patches.steps(patch)
    done = "Applied the patch to: " + ", ".join(f"{step.action} {step.label}" for step in steps) + "."
    return _change(call, agent, [(step.label, _step(step)) for step in steps], done)


def _step(step: patches.Step) -> Step:
    """A section of a patch as the vault's step."""
    if step.action == "add":
        return AddBlock({"label": step.label, "value": patches.added_value(step), "description": None})
    if step.action == "delete":
        return DropBlock(step.label, _may_drop)

    def edit(block: Block) -> Mapping[str, Any]:
        changed: dict[str, Any] = {}
        if step.lines:
            changed["value"] = _fits(patches.apply(block.value, step.label, step.lines), block)
        if step.move is not None:
            changed["label"] = step.move
        return changed

    return EditBlock(step.label, edit)


def _may_drop(block: Block) -> Mapping[str, Any]:
    """Asked before a block leaves its agent: where the agent may only read, a write, which the vault refuses."""
    if block.read_only or block.rights == "read":
        return {"description": f"{block.description or ''} "}
    return {}


def _change(
    call: Call,
    agent: Agent,
    steps: Sequence[tuple[str, Step]],
    done: str,
) -> Answer:
    """Take all steps, each named by the label that it concerns, or none. The answer is one sentence."""
    at = [steps[0][0]]
    watched = [_watched(label, step, at) for label, step in steps]
    needed = [label for label, step in steps if not isinstance(step, AddBlock)]

    def work() -> Agent:
        return _answering(call.vault, agent, at, needed, partial(call.vault.change_memory, agent.id, watched))

    return call.once(work, lambda _: succeeded(done))


def _watched(label: str, step: Step, at: list[str]) -> Step:
    """The step, noting in `at` that it is the one under way, so that a refusal names the right block."""
    if isinstance(step, AddBlock):
        return step
    edit = step.edit

    def noted(block: Block) -> Mapping[str, Any]:
        at[0] = label
        return edit(block)

    return replace(step, edit=noted)
