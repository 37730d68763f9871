"""The tools with which an agent writes to another one.

An agent hears the same of an agent that does not exist and of one that it may not write to.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tallystone.errors import Conflict, Denied, Invalid, NotFound, TallystoneError
from tallystone.letta.arguments import clean
from tallystone.letta.call import Answer, Call
from tallystone.letta.letters import ASK, SEND
from tallystone.letta.memory_tools import ToolError, check_arguments
from tallystone.letta.tools import BY_NAME
from tallystone.vault.types import Agent


@dataclass(frozen=True)
class Question:
    """A message whose reply is waited for."""

    to: str
    text: str


def question(arguments: Mapping[str, Any]) -> Question:
    """What a call of the tool that waits asks, and whom. Raises `ToolError`."""
    known = check_arguments(BY_NAME[ASK].json_schema, arguments)
    return Question(clean(known["other_agent_id"]), clean(known["message"]))


def send(call: Call, agent: Agent, arguments: Mapping[str, Any]) -> Answer:
    """`send_message_to_agent_async`: the message is delivered when this returns, and read in the other's next turn.
    Where this token can act as the other agent, that begins now."""
    to, text = clean(arguments["other_agent_id"]), clean(arguments["message"])
    run = call.outbox.run if call.outbox is not None else ""
    try:
        answer = call.once(
            lambda: call.vault.send_message(agent.id, to, text, run=run),
            lambda _: Answer(
                {
                    "status": "success",
                    "func_return": f"Delivered to {to}, which reads it in its next turn.",
                    "stdout": None,
                    "stderr": None,
                    "agent_state": None,
                    "sandbox_config_fingerprint": None,
                }
            ),
        )
    except (NotFound, Invalid, Conflict, Denied) as error:
        raise refusal(error, to) from None
    if call.outbox is not None:
        call.outbox.post.look(call.vault, to)
    return answer


def refusal(error: TallystoneError, to: str, tool: str = SEND) -> ToolError:
    """A refusal as the tool's answer. Raises what is no answer of a tool: the turn or the token is over."""
    if error.code in ("read_only_token", "lease_lost"):
        raise error
    if isinstance(error, NotFound):
        other = "" if tool == SEND else f" If you may write to it, {SEND} does."
        return ToolError("LookupError", f"there is no agent {to!r} that this tool reaches from here.{other}")
    if error.code == "agent_busy":
        text = f"{to} is in the middle of a turn and cannot be asked now. {SEND} leaves it a message."
        return ToolError("RuntimeError", text)
    kinds = ((Invalid, "ValueError"), (Denied, "PermissionError"))
    kind = next((name for one, name in kinds if isinstance(error, one)), "RuntimeError")
    return ToolError(kind, f"{error.message}; {error.hint}.")


SENDING = {SEND: send}
"""The tool that does not wait, by its name."""
