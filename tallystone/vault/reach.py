"""Who can reach a block, and why; and the matrix of all of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from tallystone.errors import NotFound
from tallystone.statements import Leaf
from tallystone.vault import directory
from tallystone.vault.attaching import view
from tallystone.vault.caller import Caller
from tallystone.vault.entering import open_block
from tallystone.vault.granting import unexpired, word
from tallystone.vault.opening import Opened
from tallystone.vault.passages import find_block, reached, role_name, walk_blocks
from tallystone.vault.plan import Plan
from tallystone.vault.records import OFFERED
from tallystone.vault.rotating import endable
from tallystone.vault.shelves import AGENTS, find, walk
from tallystone.vault.types import Access, Grant, Reach
from tallystone.vault.views import last_day


def show_grant(leaf: Leaf, name: str) -> Grant:
    """A grant as people see it."""
    kind = leaf.recipient.partition("-")[0]
    return Grant(
        leaf.grant, leaf.recipient, name, kind, word(leaf.rights), leaf.parent, last_day(leaf.until), leaf.depth,
        leaf.history,
    )  # fmt: skip


class Known(directory.Names):
    """The names that the caller may know: users', its agents', its roles'."""

    def __init__(self, caller: Caller, plan: Plan) -> None:
        house = directory.house_of(caller, plan)
        super().__init__(caller.workspace, plan, house.key if house is not None else None)
        self._caller = caller

    def _look_up(self, principal: str) -> str | None:
        caller, plan = self._caller, self._plan
        if principal.startswith("agent-"):
            held = None if caller.id.startswith("agent-") else find(plan, caller.keys, AGENTS, principal)
            with suppress(NotFound):  # ended, before a backup with it was restored
                return None if held is None else view(caller, plan, held, with_blocks=False).name
            return None
        if principal.startswith("role-"):
            return next((role_name(role) for role in reached(caller, plan) if role.role == principal), None)
        return super()._look_up(principal)

    def called(self, name: str) -> list[str]:
        """The users and the caller's agents with this name."""
        caller, user = self._caller, self.holder(name)
        agents = [] if caller.id.startswith("agent-") else walk(self._plan, caller.keys, AGENTS)
        return [
            *([user] if user is not None else []),
            *(held.subject for held in agents if self.get(held.subject) == name),
        ]


def visible_grants(opened: Opened) -> list[Leaf]:
    """The live grants that the caller may know of: all for the owner and for sharers, else its own and those below."""
    everything, own = opened.grants(), opened.held.own_leaf
    if own is None or opened.held.admin:
        return unexpired(opened, everything)
    mine = endable(opened, everything) | {own.grant}
    return unexpired(opened, [leaf for leaf in everything if leaf.grant in mine])


def grants(caller: Caller, block_id: str) -> list[Grant]:
    """The live grants on a block, as far as the caller may know them."""

    def action(plan: Plan) -> list[Grant]:
        held = find_block(caller, plan, block_id)
        found = visible_grants(open_block(caller, plan, held))
        known = Known(caller, plan)
        caller.event(plan, "read", held.key, block=block_id)
        return [show_grant(leaf, known.get(leaf.recipient)) for leaf in found]

    return caller.transact(action)


# -- who, and through what --------------------------------------------------------------------------------------


def reach_of(opened: Opened, known: directory.Names) -> list[Reach]:
    """Everybody who can reach an opened block, as far as the caller may know: the owner, grantees, members of roles,
    and whoever can act as an agent."""
    owner = opened.head.owner
    found = [Reach(owner, 0, "owner", "owner", known.get(owner), "owns the block")]
    for leaf in visible_grants(opened):
        found.extend(_through(opened, leaf, known))
    return found


def _through(opened: Opened, leaf: Leaf, known: directory.Names) -> Iterator[Reach]:
    can = word(leaf.rights)
    if leaf.recipient.startswith("agent-"):
        can = "read" if opened.head.settings["read_only"] else can  # design §7.10: whatever it was granted
    given = f"grant {leaf.grant}" + (f", given through grant {leaf.parent}" if leaf.parent else "")
    yield Reach(leaf.recipient, leaf.grant, can, "grant", known.get(leaf.recipient), given)
    if leaf.recipient.startswith("agent-"):
        sponsor = opened.caller.identity(opened.plan, leaf.recipient).record.sponsor
        if sponsor != opened.head.owner:
            acts = f"can act as {leaf.recipient}"
            yield Reach(sponsor, leaf.grant, can, "agent", known.get(sponsor), acts)
    if leaf.recipient.startswith("role-"):
        yield from _members(opened.caller, opened.plan, leaf.recipient, leaf.grant, can, known)


def _members(
    caller: Caller, plan: Plan, role: str, grant: int, can: str, known: directory.Names
) -> Iterator[Reach]:
    """The members of a role, and of the roles that are members of it, if the caller is in it itself."""
    for one in reached(caller, plan):
        if one.role != role:
            continue
        opened = one.way[0].opened
        name = known.get(role, role)
        owner = opened.held.owner
        yield Reach(owner, grant, can, "role", known.get(owner), f"owns role {name}")
        for leaf in unexpired(opened, opened.grants()):
            member = known.get(leaf.recipient)
            yield Reach(leaf.recipient, grant, can, "role", member, f"is a member of role {name}")
            if leaf.recipient.startswith("role-"):
                yield from _members(caller, plan, leaf.recipient, grant, can, known)


def reach(caller: Caller, block_id: str, principal: str | None = None) -> list[Reach]:
    """Who can reach a block and why, or why one principal can."""

    def action(plan: Plan) -> list[Reach]:
        held = find_block(caller, plan, block_id)
        known = Known(caller, plan)
        found = reach_of(open_block(caller, plan, held), known)
        caller.event(plan, "read", held.key, block=block_id)
        if principal is None:
            return found
        return [one for one in found if principal in (one.principal, one.name)]

    return caller.transact(action)


# -- the matrix -------------------------------------------------------------------------------------------------


def access(caller: Caller) -> list[Access]:
    """Principals × blocks: who holds what on the blocks that the caller may know the grants of."""

    def action(plan: Plan) -> list[Access]:
        known = Known(caller, plan)
        cells, touched = [], []
        for held in walk_blocks(caller, plan):
            if held.state == OFFERED:
                continue
            try:
                opened = open_block(caller, plan, held)
                label = opened.payload()[0]["label"]
            except NotFound:
                continue
            touched.append(held.key)
            for one in reach_of(opened, known):
                if one.how != "agent":
                    through = one.why if one.how == "role" else ""
                    cells.append(Access(one.principal, one.name, held.block, label, one.can, through))
        caller.event(plan, "list", *touched, access=len(cells))
        return cells

    return caller.transact(action)
