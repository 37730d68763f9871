"""The keys that a log was signed with, one after the other (ADR 0027).

The workspace's record, the signed word of its root, says them in its field `log`:

    32 bytes                          the first key
    [8 bytes n ‖ 32 bytes]…           a later one: checkpoints of more than n leaves are signed with it

So a key counts for the checkpoints of its time alone: whoever has stolen a former one cannot sign a later head. The
record that brings a key lies in clear beside a leaf of kind `log-key`, among those that the key signs first.
"""

from __future__ import annotations

from dataclasses import dataclass

from tallystone.audit.checkpoint import Checkpoint, open_checkpoint, parse_text, take_apart
from tallystone.errors import Tampered
from tallystone.statements import Signed, WorkspaceRecord

LOG_KEY = "log-key"
"""The kind of the leaf. What lies beside it is the signed record itself, not sealed."""
_SIZE = 32
_ENTRY = 8 + _SIZE


@dataclass(frozen=True, slots=True)
class LogKeys:
    """A log's public keys (32 bytes each), oldest first, each with the number of leaves that its checkpoints exceed; -1
    for the first."""

    keys: tuple[tuple[int, bytes], ...]

    @classmethod
    def decode(cls, data: bytes) -> LogKeys:
        """From the record's field. Raises `Tampered`."""
        rest = data[_SIZE:]
        if len(data) < _SIZE or len(rest) % _ENTRY:
            raise Tampered("the record of the log's keys is malformed")
        later = [
            (int.from_bytes(rest[at : at + 8], "big"), rest[at + 8 : at + _ENTRY])
            for at in range(0, len(rest), _ENTRY)
        ]
        keys = ((-1, data[:_SIZE]), *later)
        if any(after[0] <= before[0] for before, after in zip(keys, later, strict=False)):
            raise Tampered("the record of the log's keys is not in their order")
        return cls(keys)

    def encode(self) -> bytes:
        """For the record's field."""
        first, *later = self.keys
        return first[1] + b"".join(size.to_bytes(8, "big") + key for size, key in later)

    def then(self, size: int, key: bytes) -> LogKeys:
        """With one more key, for the checkpoints of more than `size` leaves."""
        if size <= self.keys[-1][0]:
            raise Tampered("a key of the log would begin before the one that it follows")
        return LogKeys((*self.keys, (size, key)))

    @property
    def newest(self) -> bytes:
        """The key that signs now."""
        return self.keys[-1][1]

    @property
    def changes(self) -> list[int]:
        """After how many leaves each later key began."""
        return [size for size, _ in self.keys[1:]]

    def at(self, size: int) -> bytes:
        """The key of checkpoints of this size."""
        return next(key for after, key in reversed(self.keys) if after < size or after < 0)

    def open(self, note: bytes, origin: str) -> Checkpoint:
        """The checkpoint in a note, if it is signed with the key of its time. Raises `Tampered`."""
        return open_checkpoint(note, origin, self.at(parse_text(take_apart(note)[0]).size))

    def open_any(self, note: bytes, origin: str) -> tuple[Checkpoint, bool]:
        """The checkpoint in a note that any of the keys has signed, and whether it was the one of its time: one of
        leaves that a restore gave up may be of another. Raises `Tampered`."""
        try:
            return self.open(note, origin), True
        except Tampered as error:
            for _, key in self.keys:
                try:
                    return open_checkpoint(note, origin, key), False
                except Tampered:
                    continue
            raise error


def keys_in(detail: bytes) -> LogKeys:
    """The keys in a signed record of the workspace. Who signed it is not asked. Raises `Tampered`."""
    signed = Signed.decode(detail)
    if signed.type != "workspace":
        raise Tampered("what brings a key of the log is no record of the workspace")
    return LogKeys.decode(WorkspaceRecord.decode(signed.body).log)


def is_log_key(detail: bytes) -> bool:
    """Whether what lies beside a leaf is a record of the workspace, and so nothing sealed."""
    try:
        return Signed.decode(detail).type == "workspace"
    except Tampered:
        return False
