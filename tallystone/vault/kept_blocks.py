"""What a process keeps of one block: what all its holders share, what each of them needs for it, what it was shown.

Two layers, as in the database. *Common* is the block's newest version and its policy, verified, under a key that
follows from its DEK: whoever changes the block, all who hold it go on with what was written. *Kept* is how one
principal comes to that key: its shelf row, its wrap, the epoch's keys, under the principal's own root (ADR 0050).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from tallystone.kept import weight_of
from tallystone.store.protocol import Expect, Moment, Row
from tallystone.store.tables import LEDGER
from tallystone.vault.plan import Dependence, Plan

_KEPT, _COMMON, _FORM, _OTHER = 800, 700, 300, 200
"""Bytes of Python's objects around what is counted."""


class KeptForm(NamedTuple):
    """What a reader was shown of a block (see `forms`): in which form, under which charter, the rows that it depends on
    besides, of which `Common`, and the ciphertext with what that is bound to."""

    form: object
    charter: object
    others: tuple[Dependence, ...]
    common: bytes
    context: bytes
    number: bytes
    sealed: bytes


@dataclass(slots=True, eq=False)
class Common:
    """A block for all who hold it: the rows that it was made from (the block's first), the rows of its grants, a mark
    of its label under its key, and the ciphertext."""

    rows: tuple[Dependence, ...]
    ledger: list[Row]
    label: bytes
    number: bytes
    """No other message in this process's memory has it: it names this very ciphertext."""
    sealed: bytes

    def granted(self, plan: Plan) -> bool:
        """Whether the rows of the grants are what they were."""
        return plan.lists(self.ledger, LEDGER, self.rows[0][0][1][1])

    @property
    def weight(self) -> int:
        """Bytes: also of rows that the store keeps as well, and shares with this."""
        rows = [*(row for _, _, row in self.rows if row is not None), *self.ledger]
        return _COMMON + len(self.sealed) + sum(map(weight_of, rows))


@dataclass(slots=True, eq=False)
class Kept:
    """How one principal comes to a block: its shelf row, the other rows of its own (the wrap's first), the place of
    the block's `Common`, and the ciphertext with what that is bound to."""

    shelved: Row
    rows: tuple[Dependence, ...]
    wrap: Expect
    """What the commit of whoever reads it expects: that the grant is still there."""
    slot: bytes | None
    """Of the block's shred key."""
    place: bytes
    context: bytes
    number: bytes
    sealed: bytes
    found: tuple[Moment, bytes] | None = None
    """The moment of a view in which all rows, but the shelf's, were found to be so, and the number of the `Common`."""
    form: KeptForm | None = None
    """What its reader was shown of it."""

    def untouched(self, plan: Plan, number: bytes) -> bool:
        """Whether these rows, but the shelf's, and those of the `Common` with this number are known to be what they
        were, without looking at each; the commit asks for the wrap again. If not, they may be all the same."""
        found = self.found  # another thread may note another one, or none
        if (
            found is None
            or found[1] != number
            or plan.changes
            or not plan.snapshot.unchanged(self.rows[0][0][1][:2], found[0])
        ):
            return False
        plan.also.append(self.wrap)
        return True

    def stands(self, plan: Plan, common: Common) -> bool:
        """The same, by looking; but for the rows of others' grants (`Common.granted`)."""
        return self.untouched(plan, common.number) or plan.stands(self.rows + common.rows)

    def note(self, plan: Plan, common: Common) -> None:
        """Note that this plan has found all of them to be so."""
        moment = None if plan.changes else plan.snapshot.moment()
        if not plan.changes:
            self.found = None if moment is None else (moment, common.number)

    @property
    def weight(self) -> int:
        """Bytes: also of rows that the store keeps as well, and shares with this."""
        rows = [self.shelved, *(row for _, _, row in self.rows if row is not None)]
        weight = _KEPT + len(self.sealed) + sum(map(weight_of, rows))
        if self.form is not None:
            weight += _FORM + len(self.form.sealed)
            weight += sum(
                _OTHER + weight_of(key) + weight_of(row or ()) for (_, key), _, row in self.form.others
            )
        return weight
