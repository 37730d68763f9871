"""Rotation of a principal (design §6, ADR 0027): a new root, then new keys for all that the old one knew.

The root is one commit; from then on no other token of the principal's opens anything. Everything after it is one commit
a block, a role or an agent, and each takes its note off the shelf: whoever is interrupted calls again, nothing is lost
in between, and what is done is done. When `rotate_principal` returns, the old root with any later copy of the store
opens no version that was written after that.

- What the principal owns gets a new admin key and a new K_grant for everybody.
- What it was granted by others gets a new K_grant from whoever next changes the block's keys; until then the block
  takes no new version (ADR 0015). If it may share there, that is the owner's to do, or a sharer's.
- A user's agents get new roots of their own, which ends their tokens. Its roles are renewed as if somebody had left.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tallystone.errors import Denied, Invalid, Locked, NotFound, Tampered
from tallystone.keystore import FULL, Keys, parse_token
from tallystone.store.tables import TOKEN
from tallystone.vault.attaching import users_only
from tallystone.vault.caller import Caller
from tallystone.vault.capsules import ask_for_new_key
from tallystone.vault.entering import open_block
from tallystone.vault.events import seal_event
from tallystone.vault.opening import Opened
from tallystone.vault.passages import keys_of, lookup, resolve
from tallystone.vault.plan import Plan
from tallystone.vault.records import Held
from tallystone.vault.rerooting import fetch, reroot
from tallystone.vault.role_roots import find_role, renew_root
from tallystone.vault.roles import collect_mail
from tallystone.vault.rotated import Rotated
from tallystone.vault.rotating import change_keys
from tallystone.vault.shelves import AGENTS, BLOCKS, ROLES, agent_keys, find, find_agent, marked, waiting
from tallystone.vault.tokens import put_token
from tallystone.vault.types import TokenInfo
from tallystone.vault.writing import put_on_shelf

Progress = Callable[[int, int], None]
"""Called with how many of how many things have new keys."""


def rotate_principal(
    caller: Caller,
    who: str,
    *,
    replace_token: bool,
    progress: Progress | None,
    told: Callable[[str], None] | None,
) -> Rotated:
    """A new root for the caller (`who` is empty, its name or id) or for one of its agents. It ends all tokens of the
    old root but the caller's own, and with `replace_token` that one too. `told` is called with the token that replaces
    it as soon as that one is good. Raises `Denied` for agents, and for other users."""
    caller.must_act()
    users_only(caller)
    work = _Work(caller, progress)
    target = _target(caller, who)
    text = None
    if target == caller.id:
        text = work.renew_own_root(replace_token=replace_token)
        if text is not None and told is not None:
            told(text)
        work.finish()
    else:
        work.renew_agent(target)
        work.finish_agent(target)
    return Rotated(target, work.ended, work.done, work.left, work.roles, text)


def rotate_for_token(
    caller: Caller, kid: str, *, progress: Progress | None, told: Callable[[str], None] | None
) -> Rotated:
    """The same for the principal of a token that somebody else may have: the caller's own or one of an agent's. That
    token ends in the commit that renews the root. Raises `NotFound` for any other."""
    caller.must_act()
    users_only(caller)

    def action(plan: Plan) -> str:
        row = plan.get(TOKEN, kid)
        principal = str(row[2]) if row is not None else ""
        if principal != caller.id and (not principal or keys_of(caller, plan, principal) is None):
            raise NotFound(
                f"no token {kid}", hint="list yours with: tallystone token list", code="unknown_token"
            )
        return principal

    principal = caller.transact(action)
    return rotate_principal(caller, principal, replace_token=kid == caller.kid, progress=progress, told=told)


def _target(caller: Caller, who: str) -> str:
    def action(plan: Plan) -> str:
        if who in ("", caller.id):
            return caller.id
        if who.startswith("agent-"):
            find_agent(caller, plan, who)
            return who
        principal = resolve(caller, plan, who)[1]
        if principal.startswith("role-"):
            raise Invalid(
                "a role's root is renewed when somebody leaves it",
                hint="remove a member: tallystone role remove",
                code="is_role",
            )
        if principal != caller.id:
            raise Denied(
                "a user's root is renewed by the user itself",
                hint="suspend it until it has done that: tallystone user suspend",
                code="not_yours",
            )
        return principal

    return caller.transact(action, audit=True)


class _Work:
    """One rotation: what it has done so far."""

    def __init__(self, caller: Caller, progress: Progress | None) -> None:
        self.caller = caller
        self.progress = progress or (lambda done, total: None)
        self.ended: list[TokenInfo] = []
        self.left: list[str] = []
        self.roles: list[str] = []
        self.done = 0
        self._steps = 0
        self._total = 0

    # -- roots --------------------------------------------------------------------------------------------------

    def renew_own_root(self, *, replace_token: bool) -> str | None:
        """The caller's new root. Returns the new token, if its own had to end."""
        caller = self.caller
        caller.workspace.collect(caller, caller.id)  # mail is sealed to the record that ends

        def action(plan: Plan) -> tuple[Keys, list[TokenInfo], str | None]:
            new, ended = reroot(caller, plan, caller.keys, None if replace_token else caller.token)
            text = None
            if replace_token:
                text = put_token(
                    caller.workspace,
                    plan,
                    new.root,
                    caller.id,
                    FULL,
                    caller.expires,
                    "in place of a stolen one",
                )
            _note(caller, plan, new, ended)
            return new, ended, text

        new, ended, text = caller.transact(action, lock=caller.id)
        self.ended += ended
        caller.renewed(new, parse_token(text) if text is not None else caller.token)
        return text

    def renew_agent(self, agent_id: str) -> None:
        """A new root for one of the caller's agents."""
        caller = self.caller
        caller.workspace.collect(caller, agent_id)

        def action(plan: Plan) -> list[TokenInfo]:
            held = find_agent(caller, plan, agent_id)
            new, ended = reroot(caller, plan, agent_keys(caller, held), None)
            read, act, nest = new.root.carried()
            fresh = replace(
                held, root_read=read, root_act=act, extra={**(held.extra or {}), **(nest or {})} or None
            )
            put_on_shelf(plan, caller.keys, AGENTS, agent_id, marked(fresh, "keys"))
            _note(caller, plan, new, ended)
            return ended

        self.ended += caller.transact(action, lock=agent_id)

    # -- what the old roots knew --------------------------------------------------------------------------------

    def finish(self) -> None:
        """Renew what the caller's former root knew. Agents first: nothing new is put under a root that is known."""
        caller = self.caller
        self._fetch(caller)
        agents = self._waiting(caller, AGENTS)
        roles, blocks = self._waiting(caller, ROLES), self._waiting(caller, BLOCKS)
        self._expect(2 * len(agents) + len(roles) + len(blocks))
        for agent, what in agents:
            if what == "root":
                self.renew_agent(agent.subject)
            self._step()
        for block, _ in blocks:
            self._block(caller, block)
        for role, _ in roles:
            self._role(caller, role)
        for agent, _ in agents:
            self.finish_agent(agent.subject)
            self._step()

    def finish_agent(self, agent_id: str) -> None:
        """Renew what an agent's former root knew: its own block, and what is on its shelf."""
        caller = self.caller
        actor = self._agent(agent_id)
        self._fetch(actor)
        self._agents_block(agent_id)
        blocks, roles = self._waiting(actor, BLOCKS), self._waiting(actor, ROLES)
        self._expect(len(blocks) + len(roles))
        for block, _ in blocks:
            self._block(actor, block)
        for role, _ in roles:
            self._role(actor, role)
        caller.workspace.collect(caller, agent_id)

    def _agent(self, agent_id: str) -> Caller:
        with self.caller.workspace.store.snapshot() as snapshot:
            return self.caller.as_agent(
                agent_keys(self.caller, find_agent(self.caller, Plan(snapshot), agent_id))
            )

    def _fetch(self, actor: Caller) -> None:
        """What others put under the old root, or sealed to its record, in the moment of its end."""
        actor.transact(lambda plan: fetch(actor, plan, actor.keys))
        actor.workspace.collect(actor, actor.id)

    def _waiting(self, actor: Caller, shelf: str) -> list[tuple[Held, str]]:
        with actor.workspace.store.snapshot() as snapshot:
            return list(waiting(Plan(snapshot), actor.keys, shelf))

    def _block(self, actor: Caller, held: Held) -> None:
        """New keys for a block on the shelf of the caller or of its agent, or the note that they are due."""

        def action(plan: Plan) -> bool | None:
            there = find(plan, actor.keys, BLOCKS, held.block)
            if there is None or not _is_marked(there):
                return None  # somebody has changed the keys meanwhile, or the grant is gone
            renewed = self._open_and_renew(actor, plan, there)
            _take_note_off(actor, plan, BLOCKS, held.block)
            return renewed

        self._count(held.block, self._try(actor, action, held.block))

    def _open_and_renew(self, actor: Caller, plan: Plan, held: Held) -> bool | None:
        try:
            opened = open_block(actor, plan, held)
        except NotFound:
            return None  # it ended: nothing is written there that this grant would open
        if held.own_leaf is None:
            change_keys(opened, turn=True)
        else:
            ask_for_new_key(opened)
            if not self._as_its_owner(plan, opened):
                actor.event(plan, "rotate", held.key, block=held.block, due=True)
                return False
        actor.event(plan, "rotate", held.key, block=held.block)
        return True

    def _as_its_owner(self, plan: Plan, opened: Opened) -> bool:
        """Change a block's keys with the admin key of the caller, if it is an agent's grant that was to be renewed."""
        if opened.caller is self.caller:
            return False
        mine = lookup(self.caller, plan, opened.id)
        if mine is None or mine.own_leaf is not None or mine.storage != opened.held.storage:
            return False
        change_keys(open_block(self.caller, plan, mine))
        return True

    def _role(self, actor: Caller, held: Held) -> None:
        caller, subject = self.caller, held.subject
        collect_mail(caller, subject)

        def action(plan: Plan) -> bool | None:
            there = find(plan, actor.keys, ROLES, subject)
            if there is None or not _is_marked(there):
                return None
            try:
                opened = open_block(actor, plan, there)
            except NotFound:
                _take_note_off(actor, plan, ROLES, subject)
                return None
            if there.own_leaf is not None:
                ask_for_new_key(opened)
                opened = self._own_role(plan, subject) or opened
            owned = opened.held.own_leaf is None
            if owned:
                change_keys(opened, turn=there.own_leaf is None)
                renew_root(caller, plan, opened)
            _take_note_off(actor, plan, ROLES, subject)
            caller.event(plan, "role", opened.held.key, role=subject, rotated=owned)
            return owned

        outcome = self._try(actor, action, subject)
        if outcome is False and subject not in self.roles:
            self.roles.append(subject)
        self.done += bool(outcome)
        self._step()

    def _own_role(self, plan: Plan, role: str) -> Opened | None:
        """A role's block, if the caller owns the role."""
        held = find(plan, self.caller.keys, ROLES, role)
        if held is None or held.own_leaf is not None:
            return None
        return open_block(self.caller, plan, find_role(self.caller, plan, role))

    def _agents_block(self, agent_id: str) -> None:
        caller = self.caller

        def action(plan: Plan) -> bool | None:
            held = find_agent(caller, plan, agent_id)
            if not _is_marked(held):
                return None
            change_keys(open_block(caller, plan, held, what="Agent", shown=agent_id), turn=True)
            _take_note_off(caller, plan, AGENTS, agent_id)
            caller.event(plan, "rotate", held.key, agent=agent_id)
            return True

        self.done += bool(caller.transact(action, lock=agent_id))

    # -- counting -----------------------------------------------------------------------------------------------

    def _try(self, actor: Caller, action: Callable[[Plan], bool | None], lock: str) -> bool | None:
        """Run one step. What does not open for another reason than its end keeps its note, and nobody writes it."""
        try:
            return actor.transact(action, lock=lock)
        except (Locked, Tampered):
            return False

    def _count(self, block: str, outcome: bool | None) -> None:
        self.done += bool(outcome)
        if outcome is False and block not in self.left:
            self.left.append(block)
        self._step()

    def _expect(self, steps: int) -> None:
        self._total += steps
        self.progress(self._steps, self._total)

    def _step(self) -> None:
        self._steps += 1
        self.progress(min(self._steps, self._total), self._total)


def _note(caller: Caller, plan: Plan, new: Keys, ended: list[TokenInfo]) -> None:
    """Queue the event of a new root, sealed for whoever holds the new one, and for the auditor."""
    detail = {
        "kind": "principal", "actor": caller.id, "under": "", "kid": caller.kid, "principal": new.principal,
        "rotated": True, "ended": [token.kid for token in ended],
    }  # fmt: skip
    keys = new if new.principal == caller.id else caller.keys
    plan.event("principal", seal_event(detail, keys, (), caller.workspace.auditor_key()))


def _is_marked(held: Held) -> bool:
    return marked(held, None) != held


def _take_note_off(actor: Caller, plan: Plan, shelf: str, name: str) -> None:
    there = find(plan, actor.keys, shelf, name)
    if there is not None and _is_marked(there):
        put_on_shelf(plan, actor.keys, shelf, name, marked(there, None))
