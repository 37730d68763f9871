"""Running a tool as an agent: the memory tools as atomic edits through the vault, the others as a plain refusal.

Whatever goes wrong inside a tool is the tool's answer (HTTP 200, `status: "error"`), as an agent's loop expects; only
a caller who may not run tools at all, or an agent or tool that is not there, is an HTTP error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from tallystone.errors import Denied, Invalid, Locked, NotFound, Taken
from tallystone.letta import memory_tools, patches
from tallystone.letta.call import Answer, Call
from tallystone.letta.memory_tools import EDITS, ToolError
from tallystone.letta.tools import Tool
from tallystone.vault import Vault
from tallystone.vault.types import DEFAULT_LIMIT, Agent, Block

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
    vault = call.vault
    if vault.scope == "read":
        raise Denied("this token can only read", hint="use a token of scope full", code="read_only_token")
    try:
        known = memory_tools.check_arguments(tool.json_schema, arguments)
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

    return call.once(
        lambda: _as_agent(call.vault, agent, label, change),
        lambda block: succeeded(block.value),
    )


def _fits(value: str, block: Block) -> str:
    if len(value) > block.limit:
        raise memory_tools.over_limit(block.limit, len(value))
    return value


def _as_agent(vault: Vault, agent: Agent, label: str, change: Callable[[Block], Mapping[str, Any]]) -> Block:
    """One edit by the agent. What the vault refuses becomes the tool's answer."""
    return _answering(agent, label, lambda: vault.edit_agent_block(agent.id, label, change, as_agent=True))


def _answering(agent: Agent, label: str, work: Callable[[], T]) -> T:
    """Run `work`; a refusal that concerns the block `label` becomes a `ToolError`."""
    try:
        return work()
    except NotFound:
        raise memory_tools.missing_block(label, [block.label for block in agent.blocks]) from None
    except Denied as error:
        if error.code == "read_only":
            raise memory_tools.read_only(label) from None
        raise ToolError("PermissionError", f"{label}: {error.message}.") from None
    except Locked as error:
        raise ToolError("ValueError", f"{label}: {error.message}.") from None
    except (Taken, Invalid) as error:
        raise ToolError("ValueError", f"{label}: {error.message}.") from None


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
    return _add_block(
        call, agent, label, arguments.get("file_text", ""), description, f"Created the block {label}."
    )


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
    done = succeeded(f"Deleted the block {label}.")
    return call.once(lambda: _detach(call.vault, agent, label), lambda _: done)


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
    return call.once(lambda: _relabel(call.vault, agent, old, changed), lambda _: succeeded(" ".join(done)))


_COMMANDS: Mapping[str, Callable[[Call, Agent, dict[str, Any]], Answer]] = {
    "create": _create,
    "str_replace": _str_replace,
    "insert": _insert,
    "delete": _delete,
    "rename": _rename,
}


def _held(agent: Agent, label: str) -> Block:
    """The agent's block with this label. Raises `ToolError` (`KeyError`)."""
    found = next((block for block in agent.blocks if block.label == label), None)
    if found is None:
        raise memory_tools.missing_block(label, [block.label for block in agent.blocks])
    return found


def _relabel(vault: Vault, agent: Agent, label: str, changed: Mapping[str, Any]) -> Block:
    """Change label or description as the agent."""
    wanted = changed.get("label", label)
    if wanted != label and any(block.label == wanted for block in agent.blocks):
        raise ToolError("ValueError", f"the agent has a block labelled {wanted} already.")
    return _as_agent(vault, agent, label, lambda block: changed)


def _detach(vault: Vault, agent: Agent, label: str) -> Agent:
    """Take the block off the agent. Its owner keeps it, and other agents too."""
    block = _held(agent, label)
    if block.read_only:
        # a write that changes nothing, so that the vault refuses and logs it like any other write to this block
        _as_agent(vault, agent, label, lambda now: {"description": f"{now.description or ''} "})
        raise memory_tools.read_only(label)
    return _answering(agent, label, lambda: vault.detach(agent.id, block.id))


def _add_block(call: Call, agent: Agent, label: str, value: str, description: str, done: str) -> Answer:
    def work() -> object:
        _check_new(agent, label, value)
        return _new_block(call.vault, agent, label, value, description)

    return call.once(work, lambda _: succeeded(done), _when_attached(done))


def _when_attached(done: str) -> Callable[[Any], Answer]:
    """The answer to keep for a new block, which takes two commits: only the second, the attaching, makes it true."""
    half = "The block was made, but not attached: look at the memory, and try again."
    return lambda result: (
        succeeded(done) if isinstance(result, Agent) else Answer(result_json("error", half, half))
    )


def _check_new(agent: Agent, label: str, value: str) -> None:
    if any(block.label == label for block in agent.blocks):
        raise ToolError("ValueError", f"the agent has a block labelled {label} already.")
    if len(value) > DEFAULT_LIMIT:
        raise memory_tools.over_limit(DEFAULT_LIMIT, len(value))


def _new_block(vault: Vault, agent: Agent, label: str, value: str, description: str) -> Agent:
    """A block of the sponsor's that the agent holds with `write`. If it cannot be attached it is taken back."""

    def work() -> Agent:
        if vault.kind == "agent":
            raise Denied("only the agent's user can make blocks for it", code="agent_token")
        block = vault.create_block(label=label, value=value, description=description or None)
        try:
            return vault.attach(agent.id, block.id)
        except BaseException:
            vault.delete_block(block.id)
            raise

    return _answering(agent, label, work)


# -- patches ----------------------------------------------------------------------------------------------------


def _patch(call: Call, agent: Agent, arguments: Mapping[str, Any]) -> Answer:
    patch = arguments["patch"]
    if not patches.is_multi(patch):
        return _edit(
            call,
            agent,
            arguments["label"],
            lambda value, label, _: patches.apply(value, label, patch.split("\n")),
            {},
        )
    steps = patches.steps(patch)
    done = "Applied the patch to: " + ", ".join(f"{step.action} {step.label}" for step in steps) + "."
    half = "The patch was applied in part: look at the memory, and send the rest."
    whole = [False]

    def work() -> None:
        _rehearse(agent, steps)
        for step in steps:
            whole[0] = step is steps[-1]
            _take(call.vault, agent, step)

    def committed(_: object) -> Answer:
        # each step commits, and keeps an answer for retries; only with the last one is it the final one
        return succeeded(done) if whole[0] else Answer(result_json("error", half, half))

    return call.once(work, lambda _: succeeded(done), committed)


def _rehearse(agent: Agent, steps: list[patches.Step]) -> None:
    """Try all steps on what the agent reads now, so that a patch that cannot work changes nothing at all."""
    values = {block.label: block for block in agent.blocks}
    seen: set[str] = set()
    for step in steps:
        if step.label in seen:
            raise ToolError("ValueError", f"the patch has two sections for the block {step.label}.")
        seen.add(step.label)
        if step.action == "add":
            _check_new(agent, step.label, patches.added_value(step))
            continue
        if step.label not in values:
            raise memory_tools.missing_block(step.label, list(values))
        block = values[step.label]
        if block.read_only:
            raise memory_tools.read_only(step.label)
        if step.action == "update" and step.lines:
            _fits(patches.apply(block.value, step.label, step.lines), block)
        if step.move is not None and step.move != step.label and step.move in values:
            raise ToolError("ValueError", f"the agent has a block labelled {step.move} already.")


def _take(vault: Vault, agent: Agent, step: patches.Step) -> Any:
    """Do one step of a patch."""
    if step.action == "add":
        return _new_block(vault, agent, step.label, patches.added_value(step), "")
    if step.action == "delete":
        return _detach(vault, agent, step.label)

    def change(block: Block) -> Mapping[str, Any]:
        changed: dict[str, Any] = {}
        if step.lines:
            changed["value"] = _fits(patches.apply(block.value, step.label, step.lines), block)
        if step.move is not None:
            changed["label"] = step.move
        return changed

    return _as_agent(vault, agent, step.label, change)
