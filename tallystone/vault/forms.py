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
from typing import TypeAlias

from tallystone import crypto
from tallystone.store.protocol import Row
from tallystone.store.tables import SHELF
from tallystone.vault.audit_levels import WITNESSED, audit_level
from tallystone.vault.caller import Caller
from tallystone.vault.kept_blocks import Kept, KeptForm
from tallystone.vault.plan import WS, Dependence, Plan
from tallystone.vault.records import Held
from tallystone.vault.shelves import AGENTS
from tallystone.vault.types import Block

_ID = 42
_HEAD = Struct(f">32s32s32sQ??{_ID}s")
_SIZE = _HEAD.size


@dataclass(frozen=True, eq=False)
class Form:
    """How blocks are shown to somebody outside: as which bytes, and whether in a list that nothing was asked of. Both
    follow from the block alone. Made once: what is kept is kept for this very one."""

    make: Callable[[Block], bytes]
    listed: Callable[[Block], bool]


Shown: TypeAlias = tuple[bytes, int, bytes, bool, bool]
"""A block in a form: the K_grant and the version that the log notes, the content, whether it is listed, whether the
reader owns it."""


class Showing:
    """Shows one caller's blocks in one form, in one plan."""

    def __init__(self, caller: Caller, plan: Plan, form: Form) -> None:
        self._caller, self._plan, self._form = caller, plan, form
        self._keys, self._acts = caller.keys, caller.keys.can_act
        self._recall, self._shred_key = caller.workspace.recall, caller.workspace.shreds.get
        self._at, self._open = self._recall.at, self._recall.under(caller.keys).open
        self._charter = caller.workspace.charter(plan, caller.keys.root.pin)
        self._opened: dict[str, bytes] = plan.memo.setdefault("opened", {})
        now = plan.snapshot.moment()
        # Whatever was found so in this cache between these two is so here, row by row.
        calm = now is not None and now.changed <= now.length
        self._cache = now.cache if now is not None and calm else None
        self._changed, self._length = (now.changed, now.length) if now is not None else (0, 0)
        if caller.under is not None:
            caller.standing(plan)

    def again(self, row: Row) -> Shown | None:
        """What is in this row of the caller's shelf, as the caller was shown it before; None if that does not hold any
        more, or was not kept. Raises `StoreError` if its shred key cannot be read."""
        kept = self._at((row[1], row[2], self._acts))
        if kept is None or (kept.shelved is not row and kept.shelved != row):
            return None
        plan, form, found = self._plan, kept.form, kept.found
        if form is None or form[0] is not self._form or form[1] is not self._charter:
            return None
        if found is None or found[1] != form[3]:
            return None
        here = found[0][0] == self._cache and self._changed <= found[0][1] <= self._length
        if here and not plan.steps:
            plan.also.append(kept.wrap)
        elif not self._stands(kept, form[3]):
            return None
        if kept.slot is not None and self._shred_key(kept.slot, plan.pools) is None:
            return None
        _, _, others, _, context, number, sealed = form
        for (_, key), table, before in others:
            if plan.need(table, *key[1:]) != before:
                return None
        opened = self._open(number, context, sealed)
        grant, filed, mac_key, version, listed, owned, name = _HEAD.unpack_from(opened)
        plan.filing[grant] = filed, mac_key
        self._opened[name.decode()] = grant
        return grant, version, opened[_SIZE:], listed, owned

    def _stands(self, kept: Kept, number: bytes) -> bool:
        """Whether the rows are those from which this `Common` was made, the grants' too."""
        plan = self._plan
        if kept.untouched(plan, number):
            return True
        common = self._recall.common(kept.place)
        if common is None or common.number != number or not kept.stands(plan, common):
            return False
        if not common.granted(plan):
            return False
        kept.note(plan, common)
        return True

    def show(self, held: Held, block: Block) -> Shown:
        """A block in its form, which is kept if what it was made from is."""
        form = self._form
        content, listed, owned = form.make(block), form.listed(block), not held.leaf and not held.via
        self._keep(held, block, content, listed, owned)
        return held.key, block.version, content, listed, owned

    def _keep(self, held: Held, block: Block, content: bytes, listed: bool, owned: bool) -> None:
        """Keep it, if the block was shown from what was kept of it: then this plan has found that its rows stand, and
        no change of keys is due."""
        known, plan = held.recalled, self._plan
        if known is None or known.due or len(held.block) != _ID:
            return
        kept, common = known.kept, known.common
        if common is None or audit_level(known.settings, self._charter) >= WITNESSED:
            return
        if not kept.untouched(plan, common.number):
            return
        agents = [one for one in known.recipients if one.startswith("agent-") and one != self._caller.id]
        others = [self._shelved(one) for one in agents] if block.owner != self._caller.id else []
        head = _HEAD.pack(held.key, *known.filing, block.version, listed, owned, held.block.encode())
        context, number = crypto.pae("recall/form", *kept.shelved[1:3]), self._recall.number()
        sealed = self._recall.under(self._keys).seal(number, context, head + content)
        form = KeptForm(self._form, self._charter, tuple(others), common.number, context, number, sealed)
        self._recall.keep_form(self._keys, kept, form)

    def _shelved(self, agent: str) -> Dependence:
        """What says whether the caller knows an agent: the row on its shelf of agents."""
        keys = self._keys
        key = keys.shelf(AGENTS), keys.locator(agent)
        return (SHELF.name, (WS, *key)), SHELF, self._plan.need(SHELF, *key)
