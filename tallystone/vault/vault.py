"""Everything that one principal can do (design §3). The HTTP routes, the command line and programs call this.

Each method is one operation: one consistent view, one commit, one leaf in the log, durable before it returns. All
raise `tallystone.errors`; none ever returns anything that the token's keys do not open. Methods that take a cursor
(`after`, `before`: ids, exclusive) return the items nearest to it, in the order asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date
from typing import IO, Any

from tallystone.errors import Invalid, NotFound
from tallystone.vault import (
    agents,
    attaching,
    blocks,
    inspection,
    journal,
    memory,
    reading,
    searching,
)
from tallystone.vault.administration import Administration
from tallystone.vault.answers import AuditPage, Span
from tallystone.vault.awaiting import must_be_cosigned
from tallystone.vault.blocks import Edit
from tallystone.vault.caller import Caller
from tallystone.vault.capsules import empty_inbox
from tallystone.vault.collaboration import Collaboration
from tallystone.vault.conversations import Conversations
from tallystone.vault.earlier import Earlier
from tallystone.vault.erasure import Erasures
from tallystone.vault.forms import Form
from tallystone.vault.inspection import Inspection
from tallystone.vault.offers import collect_trusted
from tallystone.vault.plan import Plan
from tallystone.vault.publishing import PublicLog
from tallystone.vault.questions import Question
from tallystone.vault.replies import Reply
from tallystone.vault.shelves import agent_keys, find_agent
from tallystone.vault.subscription import Subscription, subscribe
from tallystone.vault.tools import Tools
from tallystone.vault.types import DEFAULT_LIMIT, Agent, AuditEvent, Block
from tallystone.vault.watching import Watch


class Vault(Collaboration, Conversations, Earlier, Tools, Administration, Erasures):
    """One caller's view of a workspace. Cheap to make; not to be shared between threads."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller
        self._take_mail()

    def __repr__(self) -> str:
        return f"Vault({self.principal_id})"

    def _open_mail(self) -> None:
        """Move what others sent to the shelf. A vault may live long, so its lists look again; not in the view of the
        request in which that was looked at."""
        if not self._caller.views:
            self._caller.has_mail = self._caller.has_roles = True
            self._take_mail()

    def _take_mail(self) -> None:
        caller = self._caller
        # The answer that a request wants kept is the operation's, not this commit's.
        reply, caller.reply = caller.reply, None
        try:
            if caller.has_mail:
                empty_inbox(caller)
            if caller.has_roles:
                collect_trusted(caller)
        finally:
            caller.reply = reply

    def export(
        self, target: IO[bytes], *, versions: bool = False, step: Callable[[str, int], None] | None = None
    ) -> dict[str, int]:
        """Write everything that the caller has here to `target`, as a zip of JSON lines: `exporting` says which files.
        With `versions` earlier versions of blocks as well. `step` is told, now and then, (file, lines so far). Returns
        the lines of each file. Raises what reading raises, with a part of the archive written."""
        from tallystone.vault.exporting import write_export  # which is made of this class's operations

        return write_export(self, target, step, versions=versions)

    @property
    def principal_id(self) -> str:
        """Whom the vault acts as."""
        return self._caller.id

    @property
    def kind(self) -> str:
        """`user` or `agent`."""
        return self._caller.id.partition("-")[0]

    @property
    def scope(self) -> str:
        """`full` or `read`."""
        return self._caller.scope

    @property
    def user(self) -> str:
        """The user who answers for this caller: itself, or its sponsor."""
        if self.kind != "agent":
            return self.principal_id
        with self._caller.workspace.store.snapshot() as snapshot:
            return self._caller.identity(Plan(snapshot), self.principal_id).record.sponsor

    @property
    def under(self) -> str | None:
        """The user whose token acts as this agent, if one does."""
        return self._caller.under.id if self._caller.under else None

    @property
    def leaves(self) -> Sequence[int]:
        """The numbers of the leaves that this vault's operations logged last, at most 16, refusals too; it goes on
        counting. `Vault.log` makes a receipt of each."""
        return self._caller.leaves

    @property
    def log(self) -> PublicLog:
        """The log as outsiders see it: nothing of it is this caller's alone."""
        return self._caller.workspace.log

    def acting_as(self, agent_id: str) -> Vault:
        """The agent, under this caller's token; what it writes is signed by both. Raises `NotFound`."""
        if agent_id == self._caller.id:
            return self
        with self._caller.workspace.store.snapshot() as snapshot:
            try:
                held = find_agent(self._caller, Plan(snapshot), agent_id)
            except NotFound as error:
                self._caller.refused(error)
                raise
        return Vault(self._caller.as_agent(agent_keys(self._caller, held)))

    def again(self) -> Vault:
        """The same vault once more, for work that goes on in another thread."""
        return Vault(self._caller.twin())

    def once(self, key: bytes, attempt: int, render: Callable[[Any], bytes]) -> bytes | None:
        """For a POST that a client may send again: the first answer if an equal request (`key`) was answered in the
        last two minutes and this is a retry (`attempt` ≥ 1); else None, and what the next operation returns is
        rendered and kept in that operation's own transaction. That operation raises `Repeated` if an equal request
        was answered while this one ran."""
        reply = Reply(key, attempt, render, self._caller.reply_key(), self._caller.workspace.days)
        now = self._caller.workspace.now()
        if self._caller.views:  # that of the request, in which its operation looks again
            found = reply.find(self._caller.views[-1].plan, now)
        else:
            with self._caller.workspace.store.snapshot() as snapshot:
                found = reply.find(Plan(snapshot), now)
        must_be_cosigned(self._caller.workspace, reply.witnessed)
        self._caller.reply = (
            reply if found is None else None
        )  # an answer that is known belongs to no later operation
        return found

    def known(self, key: bytes, attempt: int) -> bytes | None:
        """As `once`, but only looks: no operation's answer is kept."""
        found = self.once(key, attempt, lambda _: b"")
        self._caller.reply = None
        return found

    # -- blocks -------------------------------------------------------------------------------------------------

    def create_block(
        self,
        *,
        label: str,
        value: str = "",
        description: str | None = None,
        limit: int | None = DEFAULT_LIMIT,
        read_only: bool = False,
        locked: bool = False,
        tags: Iterable[str] = (),
        metadata: Mapping[str, Any] | None = None,
        extra: Mapping[str, Any] | None = None,
        sensitivity: str | None = None,
        allowed: Iterable[str] | None = None,
        expires: date | None = None,
        mutable: bool = True,
        append_only: bool = False,
        keep: str | Mapping[str, int] = "all",
        audit_level: str = "durable",
    ) -> Block:
        """A new block of the caller's. `limit` counts characters.

        `sensitivity` names one of the workspace's levels, and who is not cleared for it is granted nothing. `allowed`
        (users by name or id, agents and roles by id) are the only ones who may be; an empty list allows nobody.
        `expires` is the last day (UTC) on which the block can be read. `mutable=False` fixes its content for good,
        `append_only=True` lets its value only grow. `keep` says which versions stay: `"all"`, `{"last": N}` (2 or more)
        or `{"days": N}`; `audit_level` how sure the log must be before an answer: `durable`, `checkpointed`,
        `witnessed`. Raises `Invalid` (`over_limit`, `unknown_level`, `bad_expiry`, `bad_keep`).
        """
        fields = {
            "label": label,
            "value": value,
            "description": description,
            "limit": limit,
            "read_only": read_only,
            "locked": locked,
            "tags": list(tags),
            "metadata": metadata,
            "extra": extra,
            "sensitivity": sensitivity,
            "allowed": None if allowed is None else list(allowed),
            "expires": expires,
            "mutable": mutable,
            "append_only": append_only,
            "keep": keep,
            "audit_level": audit_level,
        }
        return blocks.create(self._caller, fields)

    def block(self, block_id: str) -> Block:
        """One block. Raises `NotFound` for anything that was not granted, whether or not it exists."""
        return reading.read_block(self._caller, block_id)

    def block_as(self, block_id: str, form: Form) -> tuple[int, bytes]:
        """The same: its version, and the block in a form, which costs less each time that it is asked for."""
        return reading.read_as(self._caller, block_id, form)

    def blocks(
        self,
        *,
        after: str | None = None,
        before: str | None = None,
        limit: int | None = None,
        reverse: bool = False,
        where: Callable[[Block], bool] | None = None,
        need_agents: bool = True,
    ) -> list[Block]:
        """The caller's own and accepted blocks, oldest first. Raises `Rejected` (`bad_cursor`)."""
        self._open_mail()
        return reading.list_blocks(
            self._caller, where, after=after, before=before, limit=limit, reverse=reverse, agents=need_agents
        )

    def blocks_as(
        self,
        form: Form,
        *,
        after: str | None = None,
        before: str | None = None,
        limit: int | None = None,
        reverse: bool = False,
    ) -> list[bytes]:
        """The same in a form, of those that it lists."""
        self._open_mail()
        return reading.list_as(self._caller, form, after=after, before=before, limit=limit, reverse=reverse)

    def edit_block(self, block_id: str, edit: Edit, *, if_version: int | None = None) -> Block:
        """Apply `edit`, a pure function from the current block to the fields that change; on a concurrent change it
        is asked again. Raises `Denied`, `Locked`, `Invalid`, `PreconditionFailed`, `NotFound`."""
        return blocks.edit_block(self._caller, block_id, edit, if_version, attaching.labels_stay_unique)

    def delete_block(self, block_id: str) -> None:
        """Remove a block with everything that belongs to it. Owner only."""
        blocks.delete_block(self._caller, block_id)

    def tags(self) -> list[str]:
        """All tags on the caller's blocks and agents, sorted."""
        on_blocks = {tag for block in self.blocks(need_agents=False) for tag in block.tags}
        on_agents = {tag for agent in self.agents(with_blocks=False) for tag in agent.state.get("tags", ())}
        return sorted(on_blocks | on_agents)

    def watch(self, *block_ids: str, after: str | None = None) -> Watch:
        """The changes of the caller's blocks, or of these alone, from now on: which, and its version, never a value.
        With `after`, the id of an earlier change, from there on. Raises `NotFound`, `Rejected` (`bad_cursor`)."""
        return Watch(self._caller, frozenset(block_ids), after)

    def subscribe(self, *block_ids: str, after: str | None = None) -> Subscription:
        """The same for a `Feed`, which serves many."""
        return subscribe(self._caller, frozenset(block_ids), after)

    # -- agents -------------------------------------------------------------------------------------------------

    def create_agent(
        self,
        state: Mapping[str, Any],
        *,
        block_ids: Sequence[str] = (),
        memory_blocks: Sequence[Mapping[str, Any]] = (),
        access: str = "write",
    ) -> Agent:
        """A new agent with existing blocks and new private ones, all or nothing. `state` needs a `name`."""
        if access not in attaching.RIGHTS:
            raise Invalid(f"unknown access {access!r}", hint="use read or write", code="bad_right")
        return agents.create_agent(self._caller, state, block_ids, memory_blocks, access)

    def agent(self, agent_id: str, *, with_blocks: bool = True) -> Agent:
        """One agent, with its blocks unless they are not asked for."""
        return agents.read_agent(self._caller, agent_id, with_blocks)

    def agents(
        self,
        *,
        after: str | None = None,
        before: str | None = None,
        limit: int | None = None,
        reverse: bool = False,
        where: Callable[[Agent], bool] | None = None,
        with_blocks: bool = True,
    ) -> list[Agent]:
        """The caller's agents, oldest first; an agent sees itself."""
        return agents.list_agents(
            self._caller,
            after=after,
            before=before,
            limit=limit,
            reverse=reverse,
            where=where,
            with_blocks=with_blocks,
        )

    def edit_agent(self, agent_id: str, edit: Callable[[Agent], Mapping[str, Any]]) -> Agent:
        """Change an agent's state; a `block_ids` among the changes replaces its whole set of blocks."""
        return agents.edit_agent(self._caller, agent_id, edit)

    def delete_agent(self, agent_id: str) -> None:
        """End an agent with its tokens, grants and private blocks."""
        agents.delete_agent(self._caller, agent_id)

    def agent_blocks(
        self,
        agent_id: str,
        *,
        after: str | None = None,
        before: str | None = None,
        limit: int | None = None,
        reverse: bool = False,
    ) -> list[Block]:
        """The blocks that an agent sees, in the order they were attached."""
        return memory.agent_blocks(
            self._caller, agent_id, after=after, before=before, limit=limit, reverse=reverse
        )

    def agent_block(self, agent_id: str, label: str) -> Block:
        """One of an agent's blocks, by label."""
        return memory.read_by_label(self._caller, agent_id, label)

    def edit_agent_block(
        self, agent_id: str, label: str, edit: Edit, *, as_agent: bool = False, if_version: int | None = None
    ) -> Block:
        """Edit one of an agent's blocks by label. `as_agent`: bound by what the agent may do, as its tools are."""
        return memory.edit_by_label(
            self._caller, agent_id, label, edit, as_agent=as_agent, if_version=if_version
        )

    def change_memory(self, agent_id: str, steps: Sequence[memory.Step]) -> Agent:
        """Several changes to an agent's blocks, with the agent's rights, all or nothing."""
        return memory.change_memory(self._caller, agent_id, steps)

    def attach(self, agent_id: str, block_id: str, can: str = "write") -> Agent:
        """Give an agent a block, with `read` or `write`."""
        return attaching.attach(self._caller, agent_id, block_id, can)

    def detach(self, agent_id: str, block_id: str) -> Agent:
        """Take a block from an agent; the block's keys change."""
        return attaching.detach(self._caller, agent_id, block_id)

    def block_agents(
        self,
        block_id: str,
        *,
        after: str | None = None,
        before: str | None = None,
        limit: int | None = None,
        reverse: bool = False,
    ) -> list[Agent]:
        """The caller's agents that hold a block."""
        return agents.block_agents(
            self._caller, block_id, after=after, before=before, limit=limit, reverse=reverse
        )

    # -- the log ------------------------------------------------------------------------------------------------

    def events(self, limit: int = 50, after: int | None = None) -> list[AuditEvent]:
        """The newest log events (or those after leaf `after`) that the caller may open: its own, those about its
        blocks, and for the workspace's root the unclaimed ones. Oldest first."""
        return journal.events(self._caller, limit, after)

    def search_log(self, question: Question, span: Span | None = None, limit: int = 100) -> AuditPage:
        """A page of the events that the caller may open and that answer a question. Ask again with the page's `onward`
        until there is none."""
        return searching.search(self._caller, question, span or Span(), limit)

    def inspect(self, progress: Callable[[int], None] | None = None) -> Inspection:
        """Verify signatures, rights and newest contents of everything that the caller reaches. Complements
        `Workspace.verify`, which needs no token and opens nothing."""
        return inspection.inspect(self._caller, progress)
