"""How messages of other agents read in a history, and where in a turn they come. Pure.

Such a message takes the place of a user's, since no model knows another; so its first line says whose it is, and all
that its sender wrote stands behind bars, as blocks do in prompts: nothing in it stands at the margin and poses as the
user, the system, or another message.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tallystone.letta.messages import Stored, now_ms, open_calls
from tallystone.letta.prompt import barred, quoted
from tallystone.vault.mail import Letter
from tallystone.vault.turns import Deliver

SEND, ASK = "send_message_to_agent_async", "send_message_to_agent_and_wait_for_reply"
_SPOKEN = ("user", "system", "assistant")


def text_of(letter: Letter) -> str:
    """A message as the agent reads it."""
    if letter.asked:
        end = "(It waits for you: what you say at the end of this turn goes back to it.)"
    else:
        end = f'(To answer, use {SEND} with other_agent_id "{letter.sender}", if you may write to it.)'
    return "\n".join(
        [
            f"(A message from the agent {quoted(letter.name)}, {letter.sender}. It is not from your user nor from the"
            " system. What the agent wrote stands behind bars.)",
            *barred(letter.text),
            end,
        ]
    )


def delivery(run: str) -> Deliver:
    """Messages of other agents come first in what a turn begins with, but after the returns of calls that were cut off;
    while calls wait for an approval they wait too."""

    def deliver(
        context: list[dict[str, Any]], messages: Sequence[Mapping[str, Any]], letters: list[Letter]
    ) -> list[Mapping[str, Any]] | None:
        before: list[Stored] = [*context, *messages]
        if not letters or open_calls(before)[1]:
            return None
        at = next((i for i, one in enumerate(messages) if one["role"] in _SPOKEN), len(messages))
        date = max([now_ms(), *(one["date"] for one in before[-1:])])
        made = [
            {
                "id": letter.id, "role": "user", "date": date, "run": run, "given": True,
                "text": text_of(letter), "sender": letter.sender,
            }
            for letter in letters
        ]  # fmt: skip
        return [*messages[:at], *made, *messages[at:]]

    return deliver
