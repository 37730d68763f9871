"""The part of a vault that is about talking with agents: turns, messages, conversations, runs, passages.

Messages and records are maps of plain values. What is in them besides `id` and `date` (Unix milliseconds) is the
concern of whoever writes them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from tallystone.errors import Denied, NotFound
from tallystone.vault import archive, history, messaging, runs, threads, turns
from tallystone.vault.caller import Caller
from tallystone.vault.merging import Where
from tallystone.vault.plan import Plan
from tallystone.vault.runs import Wanted
from tallystone.vault.shelves import agent_keys, find_agent
from tallystone.vault.streams import Entry
from tallystone.vault.turns import DEFAULT, Compose, Deliver, Turn
from tallystone.vault.types import Block


class Conversations:
    """What `Vault` does with its agents' histories. Each method is one operation, as there."""

    _caller: Caller

    # -- turns --------------------------------------------------------------------------------------------------

    def check_may_act(self) -> None:
        """Raises `Denied` for a token that can only read, before anything else is asked about a turn."""
        try:
            self._caller.must_act()
        except Denied as error:
            self._caller.refused(error)
            raise

    def begin_turn(
        self,
        agent_id: str,
        conversation: str,
        run: Mapping[str, Any],
        compose: Compose,
        deliver: Deliver | None = None,
    ) -> Turn:
        """Take the agent for one turn. `run` has an `id`; `compose` says what is written down first, `deliver` how the
        messages of other agents come into it. Raises `Conflict` (`agent_busy`) while another turn of this agent goes
        on, here or in another process."""
        return turns.begin(self._caller, agent_id, conversation, run, compose, deliver)

    def cancel_turn(self, agent_id: str, run_ids: Iterable[str] | None = None) -> dict[str, str]:
        """Ask the agent's turn under way to end after what it is doing now. Returns what became of each run."""
        return turns.ask_to_cancel(self._caller, agent_id, run_ids)

    # -- from agent to agent ------------------------------------------------------------------------------------

    def _actor(self, agent_id: str) -> Caller:
        """An agent of the caller's, or itself, under this token; what is kept for a retry goes with it."""
        caller = self._caller
        if agent_id == caller.id:
            return caller
        with caller.workspace.store.snapshot() as snapshot:
            try:
                held = find_agent(caller, Plan(snapshot), agent_id)
            except NotFound as error:
                caller.refused(error)
                raise
        actor, caller.reply = caller.as_agent(agent_keys(caller, held)), None
        return actor

    def send_message(self, agent_id: str, to: str, text: str, *, run: str = "") -> str:
        """Write to another agent, as one of the caller's; `run` is the turn in which it does. It is read in the other's
        next turn. Returns the message's id. Raises `NotFound`, alike for agents that do not exist and for those that
        may not be written to, `Denied` (`too_many_hops`, `too_many_messages`), `Conflict` (`mailbox_full`), `Invalid`
        (`message_length`, `to_itself`)."""
        return messaging.send(self._actor(agent_id), to, text, run)

    def ask_agent(
        self,
        agent_id: str,
        to: str,
        text: str,
        begun: Mapping[str, Any],
        compose: Compose,
        deliver: Deliver,
        *,
        run: str = "",
    ) -> Turn:
        """Write to another of the caller's agents, and begin the turn that reads it, whose record `begun` is. Both or
        neither; raises what `send_message` and `begin_turn` raise."""
        caller = self._caller
        kept, caller.reply = caller.reply, None
        actor = self._actor(agent_id)
        caller.reply = kept
        return messaging.ask(caller, actor, to, text, run, begun, compose, deliver)

    def has_messages(self, agent_id: str) -> bool:
        """Whether messages wait for an agent that the caller can act as."""
        return messaging.has_messages(self._caller, agent_id)

    def contact(self, agent_id: str) -> Block:
        """The block that names one of the caller's agents to others, made if there is none. Whoever is granted it may
        write to the agent, by whatever agent of theirs holds it. Users only."""
        return messaging.contact(self._caller, agent_id)

    # -- messages -----------------------------------------------------------------------------------------------

    def messages(
        self,
        agent_id: str,
        conversation: str = DEFAULT,
        *,
        after: str | None = None,
        before: str | None = None,
        limit: int | None = None,
        reverse: bool = False,
        where: Where | None = None,
    ) -> list[Entry]:
        """A page of a conversation's messages, oldest first. Raises `Rejected` (`bad_cursor`)."""
        return history.list_messages(
            self._caller,
            agent_id,
            conversation,
            after=after,
            before=before,
            limit=limit,
            reverse=reverse,
            where=where,
        )

    def message(self, message_id: str) -> Entry:
        """One message."""
        return history.read_message(self._caller, message_id)

    def search_messages(
        self,
        where: Where,
        *,
        agent_id: str | None = None,
        conversation: str | None = None,
        after: str | None = None,
        before: str | None = None,
        limit: int | None = None,
        reverse: bool = True,
    ) -> list[tuple[str, str, Entry]]:
        """(agent, conversation, message) of the messages that pass `where`, newest first; of all agents and
        conversations unless some are named."""
        return history.search_messages(
            self._caller,
            agent_id,
            conversation,
            where,
            after=after,
            before=before,
            limit=limit,
            reverse=reverse,
        )

    def reset_messages(self, agent_id: str) -> None:
        """Forget the messages of the agent's default conversation."""
        threads.reset_messages(self._caller, agent_id)

    # -- conversations ------------------------------------------------------------------------------------------

    def create_conversation(self, agent_id: str, record: Mapping[str, Any]) -> Entry:
        """A new conversation; `record` has its `id`."""
        return threads.create_conversation(self._caller, agent_id, record)

    def fork_conversation(
        self,
        agent_id: str,
        record: Mapping[str, Any],
        *,
        origin: str,
        until: str | None,
        new_id: Callable[[], str],
    ) -> Entry:
        """A new conversation that begins with copies of another's messages, up to the message `until`."""
        return threads.create_conversation(self._caller, agent_id, record, (origin, until), new_id)

    def conversation(self, conversation: str) -> Entry:
        """One conversation."""
        return threads.read_conversation(self._caller, conversation)

    def conversations(
        self,
        agent_id: str | None,
        where: Where,
        *,
        after: str | None = None,
        limit: int | None = None,
        reverse: bool = True,
        sort: str = "created",
    ) -> list[Entry]:
        """The conversations of an agent, or of all, without the default ones."""
        return threads.list_conversations(
            self._caller, agent_id, where, after=after, limit=limit, reverse=reverse, sort=sort
        )

    def conversations_from(self, agent_id: str, beyond: int, limit: int) -> list[Entry]:
        """At most `limit` conversations of an agent in the order in which they were made, without the default one:
        those beyond a `position`, which each of them has. Costs as much as it returns."""
        return threads.conversations_from(self._caller, agent_id, beyond, limit)

    def edit_conversation(self, conversation: str, changes: Mapping[str, Any]) -> Entry:
        """Change fields of a conversation."""
        return threads.edit_conversation(self._caller, conversation, changes)

    def delete_conversation(self, conversation: str) -> None:
        """Remove a conversation with its messages. Raises `Conflict` (`agent_busy`) in the middle of a turn there."""
        threads.delete_conversation(self._caller, conversation)

    # -- runs and steps -----------------------------------------------------------------------------------------

    def run(self, run_id: str) -> Entry:
        """One run. It reads `failed` if it never ended and its process is gone."""
        return runs.read_run(self._caller, run_id)

    def runs(
        self,
        agent_id: str | None,
        where: Where,
        *,
        after: str | None = None,
        before: str | None = None,
        limit: int | None = None,
        reverse: bool = False,
    ) -> list[Entry]:
        """A page of the runs of an agent, or of all, oldest first. Raises `Rejected` (`bad_cursor`)."""
        return runs.list_runs(self._caller, agent_id, where, Wanted(after, before, limit, reverse))

    def run_messages(self, run_id: str) -> list[Entry]:
        """What was written down in a run, oldest first."""
        return runs.run_messages(self._caller, run_id)

    def step(self, step_id: str) -> Entry:
        """One step of a run."""
        return runs.read_step(self._caller, step_id)

    def edit_step(self, step_id: str, changes: Mapping[str, Any]) -> Entry:
        """Change fields of a step."""
        return runs.read_step(self._caller, step_id, changes)

    def steps(
        self,
        agent_id: str | None,
        where: Where,
        *,
        after: str | None = None,
        before: str | None = None,
        limit: int | None = None,
        reverse: bool = False,
    ) -> list[Entry]:
        """A page of the steps of an agent, or of all, oldest first. Raises `Rejected` (`bad_cursor`)."""
        return runs.list_steps(self._caller, agent_id, where, Wanted(after, before, limit, reverse))

    def run_steps(self, run_id: str) -> list[Entry]:
        """The steps of one run, oldest first."""
        return runs.run_steps(self._caller, run_id)

    # -- archival passages --------------------------------------------------------------------------------------

    def add_passage(self, agent_id: str, passage: Mapping[str, Any]) -> Entry:
        """Keep a text for an agent outside its blocks; `passage` has an `id`."""
        return archive.add_passage(self._caller, agent_id, passage)

    def passages(
        self,
        agent_id: str,
        where: Where,
        *,
        after: str | None = None,
        before: str | None = None,
        limit: int | None = None,
        reverse: bool = False,
    ) -> list[Entry]:
        """A page of an agent's passages, oldest first."""
        return archive.list_passages(
            self._caller, agent_id, where, after=after, before=before, limit=limit, reverse=reverse
        )

    def delete_passage(self, agent_id: str, passage_id: str) -> None:
        """Forget a passage."""
        archive.delete_passage(self._caller, agent_id, passage_id)
