"""Backups of a workspace's database, and putting one back (ADR 0025).

A backup holds the database alone: ciphertext, and the log. What lies in `server-keys/` is not in it, because keys of
days that are over must not come back with an old copy. Both ways go through a folder beside the target that looks like
a workspace, so that what is taken into use was checked there first; only a rename makes it count.
"""

from __future__ import annotations

import errno
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from tallystone.audit.checkpoint import Checkpoint, origin_of
from tallystone.audit.cosigned import FOLDER, Cosigned
from tallystone.audit.leaf import decode_leaf
from tallystone.audit.logkeys import LogKeys
from tallystone.audit.restored import RESTORE, Lost, Restore
from tallystone.errors import Invalid, StoreError, StoreFull, Tampered
from tallystone.statements import Signed
from tallystone.store.copying import Seizure, copy_database, copy_rows, put_in_place, sync
from tallystone.store.opening import DATABASE, URL_FILE, locate
from tallystone.store.tables import LOG_DETAIL, LOG_HEAD, LOG_LEAF, WORKSPACE, Row
from tallystone.vault.logkey import FILE, KEY_FOLDER, log_keys, make_log_key
from tallystone.vault.recovery import kit_caller, recover
from tallystone.vault.restoring import declare
from tallystone.vault.workspace import Workspace

Step = Callable[[int, int], None]
Phase = Callable[[str], AbstractContextManager[Step]]
"""Told what begins, and then (done, total) of it: a progress bar."""

_ANOTHER = "use another backup; what is in place was not touched"
_STAGE = ".tallystone-staging-"


@dataclass(frozen=True)
class Backup:
    """A backup that was made: how many bytes and leaves it has, and its checkpoint, empty if it was not checked."""

    size: int
    leaves: int
    checkpoint: bytes


@dataclass(frozen=True)
class Restoration:
    """A backup that was restored: the number of the leaf that says so, which leaves are lost by it, whether the
    database in place could say so, where that lies now, and a token if the root came with its kit alone."""

    seq: int
    lost: tuple[Lost, ...]
    known: bool
    aside: Path | None
    token: str | None = field(default=None, repr=False)


def _silent(_: str) -> AbstractContextManager[Step]:
    return nullcontext(lambda done, total: None)


# -- making one -------------------------------------------------------------------------------------------------


def back_up(
    folder: Path, target: Path, *, store: str | None = None, check: bool = True, phase: Phase = _silent
) -> Backup:
    """Copy the database of the data directory `folder` to the new file `target`, while others go on writing. `store`:
    see `Workspace.open`. From PostgreSQL the copy is an SQLite file as well.

    With `check` the copy is verified, without a key, before it gets its name. Raises `StoreError`: `file_exists`, or
    `bad_backup` if the copy does not verify. Nothing is left of a failure.
    """
    Workspace.open(folder, store).close()
    if target.exists() or target.is_symlink():
        raise StoreError(f"{target} exists already", hint="name a new file", code="file_exists")
    with _staged(target.parent, keys=folder / KEY_FOLDER) as stage:
        with phase("copying") as step:
            location = locate(folder, store)
            if isinstance(location, Path):
                copy_database(location, stage / DATABASE, step)
            else:
                with Workspace.open(folder, store) as workspace, workspace.store.snapshot() as snapshot:
                    copy_rows(snapshot, stage / DATABASE, step)
        leaves, checkpoint = _check(stage, phase) if check else (0, b"")
        size = (stage / DATABASE).stat().st_size
        put_in_place(stage / DATABASE, target)
    return Backup(size, leaves, checkpoint)


@contextmanager
def _staged(parent: Path, keys: Path, *, copy_keys: bool = False) -> Iterator[Path]:
    """A folder below `parent` with these server keys, gone at the end. What the system refuses is a `StoreError`."""
    stage: Path | None = None
    try:
        stage = Path(tempfile.mkdtemp(prefix=_STAGE, dir=parent))
        if copy_keys:
            shutil.copytree(keys, stage / KEY_FOLDER)
            for path in (stage / KEY_FOLDER, *(stage / KEY_FOLDER).rglob("*")):
                sync(path)  # a shred key that is lost in a crash would end its block
        else:
            (stage / KEY_FOLDER).symlink_to(keys.resolve())
        yield stage
    except shutil.Error as error:
        raise StoreError(f"cannot copy {keys}", hint="check its permissions") from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreFull("the disk is full", hint="make room; nothing was changed") from error
        raise StoreError(
            f"cannot write in {parent}: {error.strerror}", hint="check the path and its permissions"
        ) from error
    finally:
        if stage is not None:
            shutil.rmtree(stage, ignore_errors=True)


def _check(stage: Path, phase: Phase, *, own_key: bool = True) -> tuple[int, bytes]:
    """(leaves, checkpoint) of a staged database. Raises `StoreError` if it does not verify."""
    with Workspace.open(stage) as workspace, phase("checking") as step:
        report = workspace.verify(step, own_key=own_key)
    if not report.ok:
        first, more = report.findings[0], len(report.findings) + report.unlisted - 1
        rest = f", and {more} more" if more else ""
        raise StoreError(
            f"the backup does not verify: {first.where} {first.what}{rest}",
            hint=_ANOTHER,
            code="bad_backup",
        )
    return report.leaves, report.checkpoint


# -- putting one back -------------------------------------------------------------------------------------------


def restore(
    backup: Path,
    folder: Path,
    token: str | None,
    *,
    kit: str | None = None,
    replace: bool = False,
    server_keys: Path | None = None,
    new_log_key: bool = False,
    known: Sequence[bytes] = (),
    phase: Phase = _silent,
) -> Restoration:
    """Make `backup` the database of the data directory `folder`, by the word of the root whose `token` this is, or
    whose recovery kit `kit` is the text of; with the kit, the answer has a new token.

    `new_log_key`: the log's key is lost, or not the one that the backup knows: the root names the one that lies in
    `server-keys`, or a new one.

    `replace` allows that there is one already; it is kept beside. `server_keys`: where the workspace's `server-keys`
    were kept, for a directory without. `known` are checkpoint notes of leaves that may be lost, beside what is found in
    place, in the database and among what witnesses have cosigned.

    Raises `StoreError` (`occupied`, `busy`, `bad_backup`, `other_workspace`, `no_log_key`), `Denied`,
    `Unauthenticated`. Until the last rename nothing in place is changed, so a failure or a kill leaves the old or the
    new, whole.
    """
    path, keys = folder / DATABASE, folder / KEY_FOLDER
    if not backup.is_file():
        raise StoreError(f"there is no file {backup}", hint="name a backup", code="missing")
    if (folder / URL_FILE).exists():
        raise StoreError(
            f"the store of {folder} is a PostgreSQL database, which is not replaced from here",
            hint="restore into a new directory; docs/postgresql.md says how to go on",
            code="occupied",
        )
    if path.exists() and not replace:
        raise StoreError(
            f"{folder} holds a workspace already",
            hint="--replace puts the backup in its place, and keeps the old database beside it",
            code="occupied",
        )
    if server_keys is not None and keys.exists():
        raise StoreError(f"{keys} exists already", hint="leave --server-keys out", code="occupied")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if new_log_key and server_keys is None and not (keys / FILE).exists():
        make_log_key(folder)
    place = Seizure(path) if path.exists() else nullcontext()
    with place as old:
        for left in folder.glob(f"{_STAGE}*"):  # of one that was killed
            shutil.rmtree(left, ignore_errors=True)
        with _staged(folder, server_keys or keys, copy_keys=server_keys is not None) as stage:
            return _restore(backup, folder, stage, old, (token, kit, new_log_key), known, phase)


def _restore(
    backup: Path,
    folder: Path,
    stage: Path,
    old: Seizure | None,
    word: tuple[str | None, str | None, bool],
    known: Sequence[bytes],
    phase: Phase,
) -> Restoration:
    token, kit, new_log_key = word
    try:
        with phase("copying") as step:
            copy_database(backup, stage / DATABASE, step)
        _check(stage, phase, own_key=False)
    except StoreError as error:
        if error.code not in ("corrupt", "not_a_database", "not_ours", "empty", "schema"):
            raise
        raise StoreError(
            f"this is no whole backup: {error.message}", hint=_ANOTHER, code="bad_backup"
        ) from error
    with Workspace.open(stage) as workspace:
        lost, certain = _lost(workspace, old, (*known, *_cosigned(folder, workspace)))
        with workspace.store.snapshot() as snapshot:
            if log_keys(workspace, snapshot).newest != workspace.log_public and not new_log_key:
                raise StoreError(
                    f"{KEY_FOLDER}/log.key is not the key that the backup's log goes on with",
                    hint="bring the right one, or have the root name this one: --new-log-key",
                    code="no_log_key",
                )
        caller = kit_caller(workspace, kit) if kit is not None else workspace.caller(token or "")
        seq = declare(caller, lost)
        fresh = recover(workspace, kit).token if kit is not None else None
    sync(stage / DATABASE)
    aside = None
    if not (folder / KEY_FOLDER).exists():
        put_in_place(stage / KEY_FOLDER, folder / KEY_FOLDER)
    if old is None:
        put_in_place(stage / DATABASE, folder / DATABASE)
    else:
        aside = _unused(folder / f"{DATABASE}.replaced-{datetime.now(UTC):%Y%m%dT%H%M%SZ}")
        old.replace(stage / DATABASE, aside)
    return Restoration(seq, tuple(lost), certain, aside, fresh)


def _cosigned(folder: Path, workspace: Workspace) -> Iterator[bytes]:
    """The checkpoints in the data directory that witnesses have cosigned. What is none of this log's is for the check
    to name."""
    origin = origin_of(workspace.id)
    for _, note in Cosigned(folder / FOLDER).all(origin):
        with suppress(Tampered):
            _keys(workspace).open_any(note, origin)[0]
            yield note


def _keys(workspace: Workspace) -> LogKeys:
    """The keys that checkpoints of this log, and of what may be lost of it, can be signed with."""
    with workspace.store.snapshot() as snapshot:
        keys = log_keys(workspace, snapshot)
    # The lost part may have gone on under the key that lies here, and that the backup does not know yet.
    return (
        keys if keys.newest == workspace.log_public else LogKeys((*keys.keys, (2**63, workspace.log_public)))
    )


def _unused(path: Path) -> Path:
    names = (path, *(path.with_name(f"{path.name}-{number}") for number in range(2, 1000)))
    return next(name for name in names if not name.exists())


def _lost(workspace: Workspace, old: Seizure | None, known: Sequence[bytes]) -> tuple[list[Lost], bool]:
    """What is given up by going on from the restored `workspace`, and whether what was in place could say it."""
    with workspace.store.snapshot() as snapshot:
        here = snapshot.get(LOG_HEAD, (1,))
        size = int(here[1]) if here is not None else 0
        ends, certain = {}, False
        if old is not None:
            try:
                ends = _given_up(workspace, old, lambda: snapshot.rows(LOG_LEAF), size)
                certain = True
            except (StoreError, Tampered) as error:
                if error.code == "other_workspace":
                    raise
    for note in known:
        try:
            pin = _keys(workspace).open_any(note, origin_of(workspace.id))[0]
        except Tampered as error:
            raise Invalid(
                f"no checkpoint of this log: {error.message}", hint="give one that audit verify wrote"
            ) from None
        start, end = ends.get(pin.branch, (size, size))
        ends[pin.branch] = start, max(end, pin.size)
    return [Lost(branch, start, end) for branch, (start, end) in ends.items() if start < end], certain


def _given_up(
    workspace: Workspace, old: Seizure, leaves: Callable[[], Iterator[Row]], size: int
) -> dict[str, tuple[int, int]]:
    """{branch: (first leaf that is lost, end)} by what the database in place says. Raises `StoreError`, `Tampered`."""
    row = next(old.rows(WORKSPACE), None)
    if row is not None and bytes(row[1]) != workspace.id:
        raise StoreError(
            "the backup is of another workspace than the one in place",
            hint="name an empty directory, or the right backup",
            code="other_workspace",
        )
    head = next(old.rows(LOG_HEAD), None)
    if head is None:
        raise Tampered("the log's head is missing")
    there: Checkpoint = _keys(workspace).open_any(bytes(head[3]), origin_of(workspace.id))[0]
    shared, restores = 0, []
    ours = leaves()
    alike = True
    for theirs in old.rows(LOG_LEAF):
        alike = alike and next(ours, None) == theirs
        shared += alike
        if decode_leaf(bytes(theirs[2])).kind == RESTORE and not alike:
            restores.append(int(theirs[1]))
    ends = {there.branch: (shared, there.size)}
    if not restores:
        return ends
    for detail in old.rows(LOG_DETAIL):
        if int(detail[1]) in restores:  # what it gave up then is given up still
            for branch, start, end in Restore.decode(Signed.decode(bytes(detail[2])).body).lost:
                first, last = ends.get(branch, (shared, 0))
                ends[branch] = min(first, start), max(last, end)
    return ends
