"""A block's row: the point of order for everything that is done to it (design §8)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from tallystone.store.protocol import Row
from tallystone.store.tables import BLOCK
from tallystone.vault.plan import Plan

FLAG_ROTATE = 1
"""Bit of a block's flags: it takes no new version before somebody rotates its keys."""


@dataclass(frozen=True)
class BlockRow:
    """The block's row, the point of order: every change compares and swaps it."""

    storage: bytes
    policy: int
    version: int
    epoch: int
    flags: int
    day: int | None
    shred: bytes | None

    @classmethod
    def of(cls, row: Row) -> BlockRow:
        """From the stored columns."""
        return cls(*row[1:])

    def changed(self, **columns: int | None) -> Self:
        """The same row but for these columns."""
        row = type(self).__new__(type(self))
        # As `dataclasses.replace` would, which sets field by field and takes five times as long.
        row.__dict__.update(self.__dict__, **columns)
        return row

    def write(self, plan: Plan) -> None:
        """Queue this row; the commit fails if anybody else changed it since this plan looked (design §8)."""
        plan.need(BLOCK, self.storage)
        plan.put(BLOCK, self.storage, self.policy, self.version, self.epoch, self.flags, self.day, self.shred)
