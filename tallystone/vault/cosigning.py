"""One witness's view of the log: what it is to be sent, and what of its answers is kept. No network here."""

from __future__ import annotations

from dataclasses import dataclass

from tallystone.audit.checkpoint import Checkpoint
from tallystone.audit.cosignature import WITNESS, cosigned, cosigned_at, parse_key
from tallystone.audit.published import submission
from tallystone.errors import Tampered
from tallystone.vault.logkey import log_keys
from tallystone.vault.publishing import is_lost
from tallystone.vault.workspace import Workspace

REFRESH = 600
"""Seconds after which an unchanged checkpoint is cosigned once more, which says that it is still the newest."""


def witness_name(key: str) -> str:
    """The name in a witness's verifier key. Raises `Invalid` if it is none."""
    return parse_key(key, WITNESS).name


@dataclass(frozen=True)
class Submission:
    """A request: its body, the checkpoint in it, that one's size, and the size that the witness is taken to know."""

    body: bytes
    note: bytes
    size: int
    old: int


class Cosigning:
    """The log of a workspace, for one witness."""

    def __init__(self, workspace: Workspace, key: str) -> None:
        """`key`: the witness's verifier key."""
        self._workspace = workspace
        self._key = parse_key(key, WITNESS)
        self.name = self._key.name
        self.restored = False
        """Whether the log goes on from a backup: then a witness that refuses it does what it is there for."""

    def shown(self, problem: str) -> None:
        """Say for all to see what is wrong with this witness; empty for nothing."""
        self._workspace.log.asked[self.name] = problem

    def due(self, now: float) -> Submission | None:
        """What it is to be sent; None if it has cosigned the newest checkpoint lately. Raises `Tampered` if the log is
        not the one that it cosigned before.
        """
        kept, (old, seen) = self._note(), self._kept()
        with self._workspace.log.published() as log:
            self.restored = bool(log.head.branch)
            if kept is not None and old is not None and self.restored and is_lost(kept, log):
                # A restore gave up what it saw. Only its own operator lets it forget that; then it begins anew.
                old = None
            if old is not None and old == log.head and now - seen < REFRESH:
                self._reached(old.size)
                return None
            size = old.size if old is not None else 0
            body = submission(size, log.consistency(old) if old is not None else [], log.checkpoint)
            return Submission(body, log.checkpoint, log.head.size, size)

    def told(self, sent: Submission, answer: bytes) -> Submission:
        """What to send after it said that it knows another size. Raises `Tampered` if that cannot be."""
        digits = answer.removesuffix(b"\n")
        if not digits.isdigit() or len(digits) > 18:
            raise Tampered("answered 409 without the size that it knows", code="witness_refused")
        size = int(digits)
        if size > sent.size:
            raise Tampered(
                f"has seen {size} leaves of this log, here are {sent.size}: the log was rolled back",
                code="rolled_back",
            )
        if size == sent.old:
            raise Tampered(f"has seen another log under this name, of {size} leaves", code="another_log")
        with self._workspace.log.published() as log:
            body = submission(size, log.tree.consistency(size) if size else [], log.checkpoint)
            return Submission(body, log.checkpoint, log.head.size, size)

    def accept(self, sent: Submission, lines: bytes, now: float) -> None:
        """Keep its cosignature. Raises `Tampered` if none of the lines is one, `StoreError` if it cannot be kept."""
        note, _ = cosigned(sent.note, lines, self._key, int(now))
        self._workspace.log.cosigned.keep(self._key, note)
        self._reached(sent.size)

    def _reached(self, size: int) -> None:
        if self._workspace.awaited is not None:
            self._workspace.awaited.reached(size)

    def _kept(self) -> tuple[Checkpoint | None, int]:
        """The last checkpoint that it has cosigned, and when; nothing if what is kept does not verify."""
        log, note = self._workspace.log, self._note()
        if note is None:
            return None, 0
        try:
            seen = cosigned_at(note, self._key)
            with self._workspace.store.snapshot() as snapshot:
                return log_keys(self._workspace, snapshot).open(note, log.origin), seen
        except Tampered:
            return None, 0

    def cosigned(self) -> int:
        """How many leaves of this log it has cosigned, by what is kept and verifies, whichever process asked it."""
        note, (old, _) = self._note(), self._kept()
        if note is None or old is None:
            return 0
        with self._workspace.log.published() as log:
            return 0 if is_lost(note, log) else old.size

    def _note(self) -> bytes | None:
        return self._workspace.log.cosigned.get(self._key)
