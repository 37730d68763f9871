"""What a caller reaches through roles: each role's keys, and the proof of the way there.

A role is a block that holds the role's root (design §5); whoever reads it is a member. Its grants lie on a shelf of its
own, under keys that follow from that root. So a caller's blocks are those on its own shelf and on the shelves of its
roles, and of the roles that those are members of.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from heapq import merge
from typing import Any

from tallystone import crypto
from tallystone.errors import Locked, NotFound
from tallystone.grant_tree import grant_proof
from tallystone.keystore import Keys, Root
from tallystone.policy import ROLE_DEPTH, Via
from tallystone.statements import READ, SHARE, WRITE, Leaf, Membership, Signed
from tallystone.store.tables import GRANT_WRAP, SHELF
from tallystone.vault import directory
from tallystone.vault.caller import Caller
from tallystone.vault.entering import open_block
from tallystone.vault.opening import Opened, missing, records_until
from tallystone.vault.plan import Plan
from tallystone.vault.records import ACCEPTED, OFFERED, Held
from tallystone.vault.shelves import AGENTS, BLOCKS, ROLES, agent_keys, find, position_of, walk

_EVERYTHING = READ | WRITE | SHARE


@dataclass(frozen=True)
class Passage:
    """One step of a way: a role's opened block and head of live members, and the leaf of who comes through it (none:
    its owner)."""

    opened: Opened
    head: Signed
    leaf: Leaf | None

    def _proof(self) -> list[Any]:
        return grant_proof(self.opened.leaves(), self.leaf.grant) if self.leaf is not None else []

    def via(self) -> Via:
        """The step as a rule judges it."""
        head = Membership.decode(self.head.body)
        role = self.opened.caller.identity(self.opened.plan, head.role)
        return Via(head, self.leaf, tuple(self._proof()), records_until(role, head.record))

    def evidence(self) -> list[Any]:
        """The step as a version or a policy statement stores it."""
        return [self.head.encode(), self.leaf.encode() if self.leaf is not None else None, self._proof()]


@dataclass(frozen=True)
class Reached:
    """A role that a caller is in, directly or through other roles: its keys, and the way, the role itself first."""

    role: str
    keys: Keys
    way: tuple[Passage, ...]


def act_key(secret: bytes) -> bytes:
    """Opens the acting half of a role's root. `secret` (32 bytes) lies in part two of a member's shelf row, so that a
    read-only token, which reads the role's block, still cannot act for it (design §6)."""
    return crypto.derive(secret, "role/act")


def act_context(role: str, generation: int) -> bytes:
    """What the sealed acting half is bound to: the role and how often its root was renewed."""
    return crypto.pae("role/act", role, generation)


def role_keys(opened: Opened) -> tuple[Keys, Signed]:
    """The keys of the role whose block this is, as far as the caller's token reaches, and its head of live members."""
    payload, _, _ = opened.payload()
    role, act, held = opened.held.subject, None, opened.held
    if held.root_act:
        generation = opened.caller.identity(opened.plan, role).record.root
        act = crypto.open_sealed(act_key(held.root_act), act_context(role, generation), payload["act"])
    keys = Keys(role, Root(payload["read"], act, opened.caller.keys.root.pin))
    return keys, Signed.decode(payload["head"])


def reached(caller: Caller, plan: Plan) -> list[Reached]:
    """Every role that the caller is in, its own first. Each is looked at once for a plan."""
    memo: dict[str, list[Reached]] = plan.memo.setdefault("roles", {})
    if caller.id not in memo:
        memo[caller.id] = list(_reach(caller, plan))
    return memo[caller.id]


def _reach(caller: Caller, plan: Plan) -> Iterator[Reached]:
    seen: set[str] = set()
    pending: list[tuple[Keys, tuple[Passage, ...]]] = [(caller.keys, ())]
    for keys, way in pending:
        for held in walk(plan, keys, ROLES):
            if held.state != ACCEPTED or held.subject in seen or len(way) >= ROLE_DEPTH:
                continue
            try:
                opened = open_block(caller, plan, replace(held, via=way))
                inner, head = role_keys(opened)
            except NotFound:
                continue  # no member any more
            except Locked:
                if caller.keys.can_act:
                    raise
                continue  # its root was renewed, and a token that only reads cannot take the new one
            seen.add(held.subject)
            onward = (Passage(opened, head, held.own_leaf), *way)
            yield Reached(held.subject, inner, onward)
            pending.append((inner, onward))


def keys_of(caller: Caller, plan: Plan, principal: str) -> Keys | None:
    """The keys of an agent or a role that the caller can act as; None for anybody else."""
    if principal.startswith("agent-"):
        agent = None if caller.id.startswith("agent-") else find(plan, caller.keys, AGENTS, principal)
        return agent_keys(caller, agent, plan) if agent is not None else None
    if principal.startswith("role-"):
        renewed: dict[str, Keys] = plan.memo.get(
            "renewed", {}
        )  # by this plan, whose other roles may be half done
        if principal in renewed:
            return renewed[principal]
        for role in reached(caller, plan):
            if role.role == principal and role.keys.can_act:
                return role.keys
    return None


def role_name(role: Reached) -> str:
    """What its owner calls a role."""
    return str(role.way[0].opened.payload()[0]["name"])


def resolve(caller: Caller, plan: Plan, who: str) -> tuple[str, str]:
    """(name, principal id) for an id, a user's name, or the name of a role that the caller is in. Raises `NotFound`."""
    try:
        name, principal = directory.resolve(caller, plan, who)
    except NotFound:
        for role in reached(caller, plan):
            if who == role_name(role):
                return who, role.role
        raise
    if principal.startswith("role-"):
        name = next((role_name(role) for role in reached(caller, plan) if role.role == principal), "")
    return name, principal


# -- blocks, wherever they come from ----------------------------------------------------------------------------


def _rights(held: Held) -> int:
    leaf = held.own_leaf
    return _EVERYTHING if leaf is None else leaf.rights


def _live(caller: Caller, plan: Plan, held: Held) -> bool:
    try:
        open_block(caller, plan, held)
    except NotFound:
        return False
    return True


def lookup(caller: Caller, plan: Plan, block_id: str, need: int = READ) -> Held | None:
    """The block as the caller holds it best: on its own shelf or through a role, by a grant with the rights in `need`
    if there is one, else whichever gives more. Never an offer."""
    own = find(plan, caller.keys, BLOCKS, block_id)
    found = [own] if own is not None and own.state != OFFERED else []
    # What is over, an owner's row after a transfer too, hides nothing that comes through a role.
    found = [one for one in found if plan.get(GRANT_WRAP, one.storage, one.grant) is not None]
    if found and _rights(found[0]) & _EVERYTHING == _EVERYTHING:
        return found[0]
    for role in reached(caller, plan):
        held = find(plan, role.keys, BLOCKS, block_id)
        if held is not None and held.state != OFFERED and _live(caller, plan, held):
            found.append(replace(held, via=role.way))
    if len(found) > 1:
        found = [one for one in found if one.via or _live(caller, plan, one)]
    return max(found, key=lambda one: _weight(one, need), default=None)


def _weight(held: Held, need: int) -> tuple[bool, int]:
    return _rights(held) & need == need, _rights(held).bit_count()


def find_block(caller: Caller, plan: Plan, block_id: str, need: int = READ) -> Held:
    """The accepted block with this id. Raises the uniform miss, also for an offer."""
    held = lookup(caller, plan, block_id, need)
    if held is None:
        raise missing("Block", block_id)
    return held


def walk_blocks(
    caller: Caller, plan: Plan, *, after: int | None = None, reverse: bool = False
) -> Iterator[Held]:
    """The blocks on the caller's shelf and on those of its roles, in one order, each once; offers too."""
    own = walk(plan, caller.keys, BLOCKS, after=after, reverse=reverse)
    roles = reached(caller, plan)
    if not roles:
        yield from own
        return

    def through(role: Reached) -> Iterator[Held]:
        for held in walk(plan, role.keys, BLOCKS, after=after, reverse=reverse):
            if held.state != OFFERED:
                yield replace(held, via=role.way)

    seen: set[str] = set()
    shelves = [own, *(through(role) for role in roles)]
    for held in merge(*shelves, key=lambda one: one.position, reverse=reverse):
        if held.block in seen:
            continue
        if held.state == OFFERED:
            yield held
            continue
        if held.via and (_own_is_live(caller, plan, held.block) or not _live(caller, plan, held)):
            continue
        seen.add(held.block)
        best = lookup(caller, plan, held.block) or held
        yield replace(best, position=held.position)


def _own_is_live(caller: Caller, plan: Plan, block_id: str) -> bool:
    own = find(plan, caller.keys, BLOCKS, block_id)
    return own is not None and own.state != OFFERED and _live(caller, plan, own)


def block_position(caller: Caller, plan: Plan, block_id: str) -> int:
    """The place of a cursor among the caller's blocks. Raises `Rejected` for one that is not there (any more)."""
    row = plan.need(SHELF, caller.keys.shelf(BLOCKS), caller.keys.locator(block_id))
    if row is not None and caller.workspace.recall.kept(caller.keys, row) is not None:
        return int(row[3])  # these keys have opened just this row
    if row is None:
        for role in reached(caller, plan):
            held = find(plan, role.keys, BLOCKS, block_id)
            if held is not None:
                return held.position
    return position_of(plan, caller.keys, BLOCKS, block_id)
