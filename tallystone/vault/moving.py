"""Moving a workspace's rows from one store to another: `tallystone copy` (ADR 0035).

The source is read, never changed. While others write to it, passes catch up with them; the last one is made while
nobody else has it open, so that no event is left behind and the log does not go on in two places unseen. The copy
becomes a store only when it has the source's head of the log, and the keyless check finds nothing in it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from tallystone import crypto
from tallystone.audit.cosigned import FOLDER, Cosigned
from tallystone.audit.logkeys import LogKeys
from tallystone.audit.report import Report
from tallystone.audit.sequencer import LogSequencer
from tallystone.errors import StoreError, StoreFull, Tampered
from tallystone.statements import Signed, WorkspaceRecord
from tallystone.store.moving import Source, Target, bring
from tallystone.store.opening import note, open_source, open_target
from tallystone.store.protocol import Batch, CommitObserver, Row, Snapshot
from tallystone.store.tables import LOG_HEAD, WORKSPACE, WS
from tallystone.vault.daykeys import DAYS, DayKeys
from tallystone.vault.logkey import FILE, KEY_FOLDER, seeds
from tallystone.vault.shredkeys import POOLS, ShredKeys
from tallystone.vault.workspace import Workspace

KEYS, COSIGNED = KEY_FOLDER, FOLDER
"""What a data directory has beside its store, and no copy takes along."""

PASSES = 4
"""How often a copy catches up with those who write before it gives up on being alone."""

Step = Callable[[int, int], None]
Phase = Callable[[str], AbstractContextManager[Step]]
"""Told what begins, and then (done, total) of it: a progress bar."""
Place = Path | str
"""A data directory whose store is a file in it, or the URL of a database."""


@dataclass(frozen=True)
class Moved:
    """A copy that is finished: its rows, how many rows this run wrote or removed, its leaves, the root of its log (32
    bytes) and the checkpoint that signs it."""

    rows: int
    written: int
    leaves: int
    root: bytes
    checkpoint: bytes


def _silent(_: str) -> AbstractContextManager[Step]:
    return nullcontext(lambda done, total: None)


def move(source: Place, target: Place, *, phase: Phase = _silent) -> Moved:
    """Make `target` a copy of `source`, or go on with one. Needs no key.

    A URL as the target of a data directory is written down in that, without its password: it counts once the file is
    taken away. Raises `StoreError`: `busy` if others use the source, with all that they wrote until now copied;
    `occupied`, `other_workspace`, `other_format`, `older_format`, `newer_format`, `not_verified`; `StoreFull`. Whatever
    is raised, and wherever the process is killed, the same call goes on from there, and no vault opens the target.
    """
    with ExitStack() as open_ends:
        with _of("source"):
            here = open_ends.enter_context(closing(open_source(source)))
            with here.snapshot() as snapshot:
                workspace = _workspace_of(snapshot)
        folder = _key_folder(source, target)
        _check_keys(workspace, folder)
        with _of("target"):
            there = open_ends.enter_context(closing(open_target(target)))
            there.begin(workspace)
        copy = _Copy(here, there, folder, phase)
        try:
            moved = copy.run(lambda: _note(source, target))
        except StoreFull as full:
            raise StoreFull(
                full.message, hint="make room, and run the same command again: it goes on"
            ) from full
        return moved


@contextmanager
def _of(side: str) -> Iterator[None]:
    """What is refused here is said of this one of the two stores."""
    try:
        yield
    except StoreError as error:
        raise type(error)(f"the {side}: {error.message}", hint=error.hint, code=error.code) from None


def _workspace_of(snapshot: Snapshot) -> Row:
    row = snapshot.get(WORKSPACE, (WS,))
    if row is None:
        raise StoreError("the workspace was never finished", hint="there is nothing to copy", code="empty")
    findings = snapshot.schema_findings(deep=False)
    if findings:
        where, what = findings[0]
        raise StoreError(f"{where} {what}", hint="tallystone audit verify names all there is", code="schema")
    return row


def _key_folder(*places: Place) -> Path | None:
    """The data directory among these that has the server's keys."""
    folders = (place for place in places if isinstance(place, Path))
    return next((folder for folder in folders if (folder / KEY_FOLDER / FILE).is_file()), None)


def _check_keys(workspace: Row, folder: Path | None) -> None:
    """Raises `StoreError` unless the data directory, if there is one, has the key that signs this workspace's log."""
    newest = LogKeys.decode(WorkspaceRecord.decode(Signed.decode(bytes(workspace[2])).body).log).newest
    if folder is not None and newest not in map(crypto.signing_public, seeds(folder)):
        raise StoreError(
            f"{folder / KEY_FOLDER} is not of the workspace to be copied",
            hint="name the data directory that this store belongs to",
            code="other_workspace",
        )


def _note(source: Place, target: Place) -> None:
    if isinstance(source, Path) and isinstance(target, str) and (source / KEY_FOLDER).is_dir():
        note(source, target)


class _Copy:
    def __init__(self, here: Source, there: Target, folder: Path | None, phase: Phase) -> None:
        self._here = here
        self._there = there
        self._folder = folder
        self._phase = phase
        self._written = 0

    def run(self, last: Callable[[], None]) -> Moved:
        """Copy until the two are equal with nobody else about, check, call `last`, and finish."""
        seen: Row | None = None
        settled = False
        for number in range(PASSES + 1):
            with ExitStack() as alone:
                try:
                    alone.enter_context(self._here.hold())
                except StoreError as error:
                    if error.code != "busy":
                        raise
                else:
                    return self._finish(last)
            if number == PASSES or settled:
                break
            before, seen = seen, self._pass()[1]
            settled = before == seen
        leaves = "" if seen is None else f": its first {seen[1]} leaves are copied"
        raise StoreError(
            f"the source is in use{leaves}",
            hint="stop the server and other commands, then run this again: it copies what is new, and finishes",
            code="busy",
        )

    def _pass(self) -> tuple[int, Row | None]:
        """One pass: how many rows the source has, and the head of its log."""
        with self._phase("copying") as step, self._here.snapshot() as snapshot:
            head = snapshot.get(LOG_HEAD, (WS,))
            rows, written = bring(snapshot, self._there, self._here.count(), step)
        self._written += written
        return rows, head

    def _finish(self, last: Callable[[], None]) -> Moved:
        rows, head = self._pass()
        with self._there.snapshot() as snapshot:
            if head is None or snapshot.get(LOG_HEAD, (WS,)) != head:
                raise Tampered("the copy's log has not the head that the source's has")
        report = self._check()
        last()
        self._there.finish()
        return Moved(rows, self._written, report.leaves, report.root, report.checkpoint)

    def _check(self) -> Report:
        """The keyless check of the copy. Raises `StoreError`: what it finds was copied, so the source has it too."""
        with self._there.snapshot() as snapshot:
            row = _workspace_of(snapshot)
        signed = Signed.decode(bytes(row[2]))
        record = WorkspaceRecord.decode(signed.body)
        folder = self._folder or Path(
            os.devnull
        )  # without a data directory no witness's word is there to be compared
        keys = folder / KEY_FOLDER
        beside = DayKeys(keys / DAYS), ShredKeys(keys / POOLS), Cosigned(folder / FOLDER), folder
        newest = LogKeys.decode(record.log).newest
        sequencer = LogSequencer(
            bytes(row[1]), crypto.random_bytes(), lambda: 0
        )  # signs nothing: nothing commits
        workspace = Workspace(_Copied(self._there), sequencer, bytes(row[1]), record, signed, newest, *beside)
        with self._phase("checking") as step:
            report = workspace.verify(step, own_key=self._folder is not None)
        if not report.ok:
            first, more = report.findings[0], len(report.findings) + report.unlisted - 1
            raise StoreError(
                f"the source does not verify: {first.where} {first.what}{f', and {more} more' if more else ''}",
                hint="tallystone audit verify says the same there; restore a backup, or find out who did it, then copy",
                code="not_verified",
            )
        return report


class _Copied:
    """A copy as a `Store` that takes no writes, for the check."""

    remote = False

    def __init__(self, target: Target) -> None:
        self._target = target

    def snapshot(self) -> AbstractContextManager[Snapshot]:
        return self._target.snapshot()

    def commit(self, batch: Batch, queued: Callable[[], None] | None = None) -> int:
        raise StoreError("a copy takes no writes before it is finished", code="read_only")

    def observe(self, observer: CommitObserver) -> None:
        pass  # it commits nothing, so there is nothing to tell of

    def waiting(self) -> int:
        return 0

    def size(self) -> int:
        return 0

    def scrub(self) -> bool:
        return True

    def close(self) -> None:
        self._target.close()
