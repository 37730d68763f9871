"""Restored backups in the log: what tells them from a rollback (ADR 0025).

A restore is a leaf of kind `restore`. Beside it lies, in clear, the statement of the workspace's root: after which
leaves the log goes on, and which leaves of which branches are lost. From there on the log is a branch of its own,
named in every checkpoint. So a checkpoint that somebody kept is excused only if it is of a branch and a range that a
restore in this very log declares lost: an older statement excuses no later rollback.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tallystone import _cbor
from tallystone.audit.checkpoint import Checkpoint
from tallystone.audit.merkle import Frontier
from tallystone.errors import Tampered
from tallystone.statements import Body, Signed
from tallystone.store.tables import Cell, Row, Table

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


There = Callable[[Table, Row], bool]
"""Whether the store had a row with this key when the leaf in question was written."""
Authority = Callable[[Signed, Restore, There], bool]
"""Whether a restore statement is the word of the workspace's root: permission, not only a good signature. Under a
record that had another after it by then it is not: whoever stole that key says nothing any more."""


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


def is_restore(detail: bytes) -> bool:
    """Whether what lies beside a leaf is a restore statement, and so nothing sealed. Says nothing of who signed it."""
    try:
        return Signed.decode(detail).type == RESTORE
    except Tampered:
        return False


def read_restore(seq: int, root: bytes, detail: Cell, authority: Authority, there: There) -> Restored:
    """The restore whose leaf has the number `seq` and follows the tree with this `root`. Raises `Tampered` unless the
    statement is the root's and of just this place."""
    if not isinstance(detail, bytes):
        raise Tampered("a restore has no statement beside it")
    signed = Signed.decode(detail)
    statement = Restore.decode(signed.body)
    if signed.type != RESTORE or (statement.size, statement.root) != (seq, root):
        raise Tampered("a restore statement is of another place")
    if not authority(signed, statement, there):
        raise Tampered("a restore statement is not the word of the workspace's root")
    return Restored(seq, statement.time, tuple(_lost(statement.lost, statement.size)), branch_of(detail))


def pack_restores(restores: Sequence[Restored]) -> list[Any]:
    """Restores that were read, as plain values: what `unpack_restores` takes."""
    return [
        [one.seq, one.time, [[lost.branch, lost.start, lost.end] for lost in one.lost], one.branch]
        for one in restores
    ]


def unpack_restores(packed: list[Any]) -> tuple[Restored, ...]:
    """The restores in these values. Raises `Tampered`."""
    found = []
    for entry in packed:
        if not isinstance(entry, list) or not _cbor.fits(entry, (int, int, list, str)):
            raise Tampered("a kept list of restores is malformed")
        seq, time, lost, branch = entry
        found.append(Restored(seq, time, tuple(_lost(lost, seq)), branch))
    return tuple(found)


def _lost(entries: list[Any], size: int) -> Iterator[Lost]:
    for entry in entries:
        if not isinstance(entry, list) or not _cbor.fits(entry, (str, int, int)):
            raise Tampered("a restore statement is malformed")
        branch, start, end = entry
        if not 0 <= start <= size or end <= start:
            raise Tampered("a restore statement names leaves that cannot be lost")
        yield Lost(branch, start, end)


class History:
    """What a walk over a log learns of its restores."""

    def __init__(self, authority: Authority | None, earlier: Sequence[Restored] = ()) -> None:
        """`earlier`: those that an earlier walk found, in leaves that this one does not see."""
        self.restores = list(earlier)
        self._authority = authority

    def note(self, tree: Frontier, detail: Cell, there: There) -> str:
        """Take note of the restore that follows `tree`; what is wrong with it, or nothing."""
        if self._authority is None:
            return ""
        try:
            self.restores.append(read_restore(tree.size, tree.root(), detail, self._authority, there))
        except Tampered as error:
            return error.message
        return ""

    def gave_up(self, pin: Checkpoint) -> tuple[Restored, Lost] | None:
        """The restore that gave up the leaves which a checkpoint is of, and these leaves; None if none did."""
        every = ((restored, lost) for restored in self.restores for lost in restored.lost)
        return next((one for one in every if one[1].covers(pin)), None)

    def names(self, branch: str) -> bool:
        """Whether a head may name this branch: the one that the newest restore began."""
        return self._authority is None or branch == (self.restores[-1].branch if self.restores else "")
