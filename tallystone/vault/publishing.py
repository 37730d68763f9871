"""The log of an open workspace as outsiders may see it: checkpoint, tiles, receipts, and who has seen what of it.

No key is needed for any of it, and nothing of it is logged: a reader would make the log grow by reading it. Who may ask
is for the caller to decide: a server asks for a token, unless its log is public.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tallystone.audit.checkpoint import origin_of, signatures, take_apart, verifier_key
from tallystone.audit.cosigned import Cosigned
from tallystone.audit.export import export
from tallystone.audit.published import Published, checkpoint_of, parse_tile, submission
from tallystone.audit.reading import Progress
from tallystone.errors import Invalid, NotFound, StoreError, Tampered
from tallystone.vault.logkey import log_keys
from tallystone.vault.plan import Plan
from tallystone.vault.restoring import roots_word
from tallystone.vault.types import LogKeyInfo, LogView, WitnessInfo

if TYPE_CHECKING:
    from tallystone.vault.workspace import Workspace

_SIGNED_SIZE = 4 + 8 + 64


class PublicLog:
    """What `Workspace.log` and `Vault.log` give."""

    def __init__(self, workspace: Workspace, cosigned: Cosigned) -> None:
        self._workspace = workspace
        self.cosigned = cosigned
        self.asked: MutableMapping[str, str] = {}
        """By witness that is asked: what was wrong with its last answer, empty if nothing was."""

    @property
    def origin(self) -> str:
        """The log's name."""
        return origin_of(self._workspace.id)

    @property
    def key(self) -> str:
        """The log's verifier key: what a receipt is checked against, if it was made after that key began."""
        with self._workspace.store.snapshot() as snapshot:
            return verifier_key(self.origin, log_keys(self._workspace, snapshot).newest)

    def keys(self) -> list[LogKeyInfo]:
        """All keys that the log had, oldest first, with the sizes of the checkpoints that each signs."""
        with self._workspace.store.snapshot() as snapshot:
            known = log_keys(self._workspace, snapshot).keys
        ends = [size for size, _ in known[1:]]
        return [
            LogKeyInfo(verifier_key(self.origin, key), size + 1, end)
            for (size, key), end in zip(known, [*ends, None], strict=True)
        ]

    def probe(self) -> int:
        """The log's number of leaves. Raises `StoreError` if the store does not answer, or holds other tables than this
        version makes."""
        with self._workspace.store.snapshot() as snapshot:
            if snapshot.schema_findings(deep=False):
                raise StoreError(
                    "the store's tables are not those of this version",
                    hint="tallystone audit verify names them",
                    code="schema",
                )
            return Published(snapshot).head.size

    @contextmanager
    def published(self) -> Iterator[Published]:
        """The log at one moment."""
        with self._workspace.store.snapshot() as snapshot:
            yield Published(snapshot)

    def checkpoint(self, *, cosigned: bool = False) -> bytes:
        """The newest signed checkpoint, with the cosignatures on it; or the newest that was cosigned at all. Raises
        `NotFound` if none was.
        """
        if cosigned:
            with self.published() as log:
                notes = self._cosigned(log)
            if not notes:
                raise NotFound(
                    "no witness has cosigned a checkpoint of this log",
                    hint="tallystone audit witnesses shows who is asked",
                    code="not_cosigned",
                )
            return notes[-1]
        with self.published() as log:
            same = [
                note for note in self._cosigned(log) if take_apart(note)[0] == take_apart(log.checkpoint)[0]
            ]
            return same[0] if same else log.checkpoint

    def tile(self, path: str) -> bytes:
        """What lies at a path below `tile/`. Raises `Invalid` for what is no such path, `NotFound` beyond the tree."""
        tile = parse_tile(path)
        with self.published() as log:
            return log.tile(tile)

    def receipt(self, leaf: int) -> bytes:
        """The bundle that proves a leaf, under the newest cosigned checkpoint that is over it, else under the newest.
        Raises `NotFound` for a leaf that is not there yet.
        """
        with self.published() as log:
            over = [note for note in self._cosigned(log) if leaf < checkpoint_of(note).size <= log.head.size]
            return log.receipt(leaf, over[-1] if over else None).encode()

    def consistency(self, old: int) -> bytes:
        """That the log grew out of its first `old` leaves, in the form that witnesses take: `old N`, the proof, an
        empty line, the newest checkpoint. Raises `NotFound` for a size that it has not reached.
        """
        with self.published() as log:
            if old > log.head.size:
                raise NotFound(
                    f"the log has {log.head.size} leaves, not {old}",
                    hint="take the size from an earlier checkpoint",
                    code="unknown_leaf",
                )
            return submission(old, log.tree.consistency(old) if old else [], log.checkpoint)

    def view(self) -> LogView:
        """The log's name, key and size, and its witnesses."""
        with self.published() as log:
            size = log.head.size
        return LogView(self.origin, self.key, size, self.witnesses(), self.keys())

    def witnesses(self) -> list[WitnessInfo]:
        """Who has cosigned what, and when, by name: those who are asked, and those who once were."""
        found: dict[str, WitnessInfo] = {}
        for name, note in self.cosigned.all(self.origin):
            info = _seen(name, note)
            if name not in found or info.size > found[name].size:
                found[name] = info
        for name, problem in dict(self.asked).items():
            known = found.get(name, WitnessInfo(name, 0, None, ""))
            found[name] = WitnessInfo(name, known.size, known.time, problem or known.problem)
        return [found[name] for name in sorted(found)]

    def export(self, folder: Path, progress: Progress = lambda done, total: None) -> tuple[int, int]:
        """Write the log into a folder of files, or what is new of it: see `audit.export.export`."""
        with self._workspace.store.snapshot() as snapshot:
            keys = log_keys(self._workspace, snapshot).encode()
            word = roots_word(self._workspace, Plan(snapshot))
            return export(Published(snapshot), folder, self.origin, keys, word, progress)

    def _cosigned(self, log: Published) -> list[bytes]:
        """The kept notes by size, smallest first; of equal texts the cosignatures are joined. Those of leaves that a
        restore gave up are left out: they prove nothing of this log."""
        joined: dict[str, bytes] = {}
        for _, note in self.cosigned.all(self.origin):
            try:
                text, lines = take_apart(note)
            except Tampered:
                continue  # the log check names it
            if is_lost(note, log):
                continue
            joined[text] = joined[text] + f"{lines[-1]}\n".encode() if text in joined else note
        return sorted(joined.values(), key=lambda note: checkpoint_of(note).size)


def is_lost(note: bytes, log: Published) -> bool:
    """Whether a note is of another branch than the log, and not of the leaves that both have."""
    kept = checkpoint_of(note)
    if kept.branch == log.head.branch:
        return False
    return kept.size > log.head.size or log.tree.root(kept.size) != kept.root


def leaf_of(text: str) -> int:
    """The number of a leaf, as the answers' header names it: of several the last. Raises `Invalid`."""
    digits = text.rpartition(",")[2].strip()
    if not (digits.isascii() and digits.isdigit()) or len(digits) > 18:
        raise Invalid("a leaf is named by its number", hint="take it from the answer's x-tallystone-leaf")
    return int(digits)


def _seen(name: str, note: bytes) -> WitnessInfo:
    try:
        time = next(
            (
                int.from_bytes(raw[4:12], "big")
                for who, raw in signatures(note)
                if who == name and len(raw) == _SIGNED_SIZE
            ),
            None,
        )
        return WitnessInfo(name, checkpoint_of(note).size, time, "")
    except Tampered as error:
        return WitnessInfo(name, 0, None, error.message)
