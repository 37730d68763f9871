"""Restored backups in the log: what tells them from a rollback (ADR 0025).

A restore is a leaf of kind `restore`. Beside it lies, in clear, the statement of the workspace's root: after which
leaves the log goes on, and which leaves of which branches are lost. From there on the log is a branch of its own,
named in every checkpoint. So a checkpoint that somebody kept is excused only if it is of a branch and a range that a
restore in this very log declares lost: an older statement excuses no later rollback.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from tallystone import _cbor
from tallystone.audit.checkpoint import Checkpoint
from tallystone.audit.merkle import Frontier
from tallystone.errors import Tampered
from tallystone.statements import Body, Signed
from tallystone.store.tables import Cell

RESTORE = "restore"
"""The kind of the leaf. What lies beside it is the signed statement itself, not sealed."""


@dataclass(frozen=True)
class Restore(Body):
    """The root's word that a backup was put back: the log goes on after its first `size` leaves, whose root is `root`
    (32 bytes). It is the leaf with that number, so it stands for no other place.

    `lost` lists what came after them and is gone: [branch of a log (empty: the first), leaves that it shares with this
    one, leaves that it had at least]. `time` in milliseconds since 1970.
    """

    size: int
    root: bytes
    lost: list[Any]
    issuer: str
    issuer_record: bytes
    time: int


Authority = Callable[[Signed, Restore], bool]
"""Whether a restore statement is the word of the workspace's root: permission, not only a good signature."""


@dataclass(frozen=True, slots=True)
class Lost:
    """Leaves that a restore gave up: of the log with this `branch`, those from number `start` to below `end`."""

    branch: str
    start: int
    end: int

    def covers(self, pin: Checkpoint) -> bool:
        """Whether a checkpoint is one of those that the lost leaves led to."""
        return pin.branch == self.branch and self.start < pin.size <= self.end

    def __str__(self) -> str:
        span = f"leaves {self.start}–{self.end - 1}" if self.end - self.start > 1 else f"leaf {self.start}"
        return f"{span} of branch {self.branch}" if self.branch else span


@dataclass(frozen=True, slots=True)
class Restored:
    """A restore in the log: the number of its leaf, when (milliseconds since 1970), what it gave up, and the name of
    the branch that it began."""

    seq: int
    time: int
    lost: tuple[Lost, ...]
    branch: str


def branch_of(detail: bytes) -> str:
    """The name of the branch that a restore begins: 32 hex digits of its statement's digest. Raises `Tampered`."""
    return Signed.decode(detail).digest[:16].hex()


def read_restore(seq: int, root: bytes, detail: Cell, authority: Authority) -> Restored:
    """The restore whose leaf has the number `seq` and follows the tree with this `root`. Raises `Tampered` unless the
    statement is the root's and of just this place."""
    if not isinstance(detail, bytes):
        raise Tampered("a restore has no statement beside it")
    signed = Signed.decode(detail)
    statement = Restore.decode(signed.body)
    if signed.type != RESTORE or (statement.size, statement.root) != (seq, root):
        raise Tampered("a restore statement is of another place")
    if not authority(signed, statement):
        raise Tampered("a restore statement is not the word of the workspace's root")
    return Restored(seq, statement.time, tuple(_lost(statement)), branch_of(detail))


def _lost(statement: Restore) -> Iterator[Lost]:
    for entry in statement.lost:
        if not isinstance(entry, list) or not _cbor.fits(entry, (str, int, int)):
            raise Tampered("a restore statement is malformed")
        branch, start, end = entry
        if not 0 <= start <= statement.size or end <= start:
            raise Tampered("a restore statement names leaves that cannot be lost")
        yield Lost(branch, start, end)


class History:
    """What a walk over a log learns of its restores, and whether a kept checkpoint (`pin`) is of this log."""

    def __init__(self, authority: Authority | None, pin: Checkpoint | None) -> None:
        self.restores: list[Restored] = []
        self.given_up: tuple[Restored, Lost] | None = None
        self._authority = authority
        self._pin = pin
        self._root_at_pin = b""

    def grew(self, tree: Frontier) -> None:
        """Say that the tree has one leaf more."""
        if self._pin is not None and tree.size == self._pin.size:
            self._root_at_pin = tree.root()

    def note(self, tree: Frontier, detail: Cell) -> str:
        """Take note of the restore that follows `tree`; what is wrong with it, or nothing."""
        if self._authority is None:
            return ""
        try:
            self.restores.append(read_restore(tree.size, tree.root(), detail, self._authority))
        except Tampered as error:
            return error.message
        return ""

    def findings(self, size: int, branch: str | None) -> Iterator[tuple[str, str]]:
        """(place, what is wrong), once all `size` leaves were seen: a pin that is neither of this log nor of leaves
        that a restore gave up, and a head of another branch (None: the head cannot be read)."""
        pin = self._pin
        if pin is not None and pin.size and self._root_at_pin != pin.root:
            all_lost = ((restored, lost) for restored in self.restores for lost in restored.lost)
            self.given_up = next((one for one in all_lost if one[1].covers(pin)), None)
            if self.given_up is None and pin.size > size:
                yield "log_head", f"the log was rolled back: {size} leaves, pinned {pin.size}"
            elif self.given_up is None:
                yield f"log_leaf 0–{pin.size - 1}", "is not what the pinned checkpoint covers"
        newest = self.restores[-1].branch if self.restores else ""
        if self._authority is not None and branch not in (None, newest):
            yield "log_head", "the checkpoint names another restore than the log"
