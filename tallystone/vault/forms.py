"""What a reader was shown of a block, as it was shown: sealed beside what a process keeps of it (ADR 0046).

Whoever shows blocks to others makes a `Form` of each: JSON, say. What was made is sealed under the key that seals the
kept block itself (`recall`), so the next request of the same reader puts it into its answer as it is. Asked is what is
asked of a kept block: that every row that it was made from is what it was, that its shred key is there, that the commit
finds the grant still there. And besides what a form tells that lies in no row of the block's: the words of the charter,
and which of the agents the reader knows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from struct import Struct
from typing import NamedTuple

from tallystone import crypto
from tallystone.store.protocol import Row
from tallystone.store.tables import SHELF
from tallystone.vault.audit_levels import WITNESSED, audit_level
from tallystone.vault.caller import Caller
from tallystone.vault.plan import WS, Dependence, Plan
from tallystone.vault.recall import KeptForm
from tallystone.vault.records import Held
from tallystone.vault.shelves import AGENTS
from tallystone.vault.types import Block

_ID = 42
_HEAD = Struct(f">32s32s32sQ??{_ID}s")


@dataclass(frozen=True, eq=False)
class Form:
    """How blocks are shown to somebody outside: as which bytes, and whether in a list that nothing was asked of. Both
    follow from the block alone. Made once: what is kept is kept for this very one."""

    make: Callable[[Block], bytes]
    listed: Callable[[Block], bool]


class Shown(NamedTuple):
    """A block in its form, with what is noted in the log: under which K_grant, which version."""

    key: bytes
    version: int
    content: bytes
    listed: bool
    owned: bool


class Showing:
    """Shows one caller's blocks in one form, in one plan."""

    def __init__(self, caller: Caller, plan: Plan, form: Form) -> None:
        self._caller, self._plan, self._form, self._keys = caller, plan, form, caller.keys
        self._recall, self._shreds = caller.workspace.recall, caller.workspace.shreds
        self._charter = caller.workspace.charter(plan, caller.keys.root.pin)
        self._opened: dict[str, bytes] = plan.memo.setdefault("opened", {})
        if caller.under is not None:
            caller.standing(plan)

    def again(self, row: Row) -> Shown | None:
        """What is in this row of the caller's shelf, as the caller was shown it before; None if that does not hold any
        more, or was not kept. Raises `StoreError` if its shred key cannot be read."""
        plan, kept = self._plan, self._recall.kept(self._keys, row)
        form = kept.form if kept is not None else None
        if kept is None or form is None or form.form is not self._form or form.charter is not self._charter:
            return None
        if not kept.stands(plan):
            return None
        if kept.slot is not None and self._shreds.get(kept.slot, plan.pools) is None:
            return None
        for (_, key), table, before in form.others:
            if plan.need(table, *key[1:]) != before:
                return None
        opened = crypto.open_sealed(self._keys.recall, form.context, form.sealed)
        key, filed, mac_key, version, listed, owned, name = _HEAD.unpack_from(opened)
        plan.filing[key] = filed, mac_key
        self._opened[name.decode()] = key
        return Shown(key, version, opened[_HEAD.size :], listed, owned)

    def show(self, held: Held, block: Block) -> Shown:
        """A block in its form, which is kept if what it was made from is."""
        form = self._form
        content, listed, owned = form.make(block), form.listed(block), not held.leaf and not held.via
        self._keep(held, block, content, listed, owned)
        return Shown(held.key, block.version, content, listed, owned)

    def _keep(self, held: Held, block: Block, content: bytes, listed: bool, owned: bool) -> None:
        """Keep it, if the block was shown from what was kept of it: then this plan has found that its rows stand, and
        no change of keys is due."""
        known, plan = held.recalled, self._plan
        if known is None or known.due or held.origin is None or len(held.block) != _ID:
            return
        kept, level = known.kept, audit_level(known.settings, self._charter)
        if level >= WITNESSED or not kept.untouched(plan):
            return
        owner = block.owner == self._caller.id
        agents = [] if owner else [one for one in known.recipients if one.startswith("agent-")]
        others = [self._shelved(one) for one in agents if one != self._caller.id]
        head = _HEAD.pack(held.key, *known.filing, block.version, listed, owned, held.block.encode())
        context = crypto.pae("recall/form", *kept.shelved[1:3])
        sealed = crypto.seal(self._keys.recall, context, head + content)
        form = KeptForm(self._form, self._charter, tuple(others), context, sealed)
        self._recall.keep_form(self._keys, kept, form)

    def _shelved(self, agent: str) -> Dependence:
        """What says whether the caller knows an agent: the row on its shelf of agents."""
        keys = self._keys
        key = keys.shelf(AGENTS), keys.locator(agent)
        return (SHELF.name, (WS, *key)), SHELF, self._plan.need(SHELF, *key)
