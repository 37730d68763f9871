"""What an agent said and kept: a turn with its messages, a conversation, a passage; and every call about them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tallystone.vault import Vault

Call = Callable[[Vault], Any]


def keep(v: Vault, agent: str, text: Callable[[str], str] = str) -> None:
    """Rows for everything that an agent keeps beside its blocks. `text` makes each of its texts."""

    def said(role: str, number: int) -> dict[str, Any]:
        return {"id": f"message-{number}", "role": role, "date": number, "text": text("said"), "run": "run-1"}

    run = {"id": "run-1", "note": text("run")}
    turn = v.begin_turn(agent, "default", run, lambda *_: ([said("user", 1)], {"summary": text("sum")}))
    turn.write([said("assistant", 2)], step={"id": "step-1", "created": 2, "model": text("model")})
    turn.write([said("tool", 3)], run={"status": "completed", "stop_reason": "end_turn"}, end=True)
    v.create_conversation(agent, {"id": "conv-1", "summary": text("talk")})
    v.add_passage(agent, {"id": "passage-1", "text": text("passage"), "tags": [text("tag")]})


READS: dict[str, Callable[[str], Call]] = {
    "messages": lambda agent: lambda v: v.messages(agent),
    "message": lambda agent: lambda v: v.message("message-1"),
    "searched": lambda agent: lambda v: v.search_messages(lambda m: True, agent_id=agent),
    "talk": lambda agent: lambda v: v.conversation("conv-1"),
    "talks": lambda agent: lambda v: v.conversations(agent, lambda c: True),
    "run": lambda agent: lambda v: v.run("run-1"),
    "runs": lambda agent: lambda v: v.runs(agent, lambda r: True),
    "of a run": lambda agent: lambda v: v.run_messages("run-1"),
    "step": lambda agent: lambda v: v.step("step-1"),
    "steps": lambda agent: lambda v: v.steps(agent, lambda s: True),
    "steps of a run": lambda agent: lambda v: v.run_steps("run-1"),
    "passages": lambda agent: lambda v: v.passages(agent, lambda p: True),
}
"""Every question about what `keep` left."""


def calls(agent: str) -> list[Call]:
    """Every call of a vault about what `keep` left: those that ask, and those that change."""
    new = {"id": "run-2", "handle": "x"}
    return [
        *(read(agent) for read in READS.values()),
        lambda v: v.check_may_act(),
        lambda v: v.begin_turn(agent, "default", new, lambda *_: ([], {})),
        lambda v: v.send_message(agent, agent, "x"),
        lambda v: v.send_message(agent, "agent-00000000-0000-4000-8000-000000000000", "x"),
        lambda v: v.ask_agent(agent, agent, "x", new, lambda *_: ([], {}), lambda *_: None),
        lambda v: v.has_messages(agent),
        lambda v: v.contact(agent),
        lambda v: v.again(),
        lambda v: v.cancel_turn(agent),
        lambda v: v.cancel_turn(agent, ["run-1"]),
        lambda v: v.reset_messages(agent),
        lambda v: v.create_conversation(agent, {"id": "conv-2"}),
        lambda v: v.fork_conversation(
            agent, {"id": "conv-3"}, origin="default", until=None, new_id=lambda: "message-9"
        ),
        lambda v: v.edit_conversation("conv-1", {"summary": "x"}),
        lambda v: v.delete_conversation("conv-1"),
        lambda v: v.edit_step("step-1", {"feedback": "positive"}),
        lambda v: v.add_passage(agent, {"id": "passage-2", "text": "x", "tags": []}),
        lambda v: v.delete_passage(agent, "passage-1"),
    ]
