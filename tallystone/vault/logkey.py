"""The key that signs the log: its file, and how another takes its place (ADR 0027).

    DIR/server-keys/log.key        32 bytes: the seed
    DIR/server-keys/log.key.next   the seed of the next one, until the log goes on under it

The next seed is on disk before the commit that names it, and takes the file's name after. A crash in between leaves
both, and the head says which one signs: the sequencer looks for it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tallystone import crypto
from tallystone.audit.logkeys import LOG_KEY, LogKeys
from tallystone.errors import Conflict, StoreError, Tampered
from tallystone.statements import Signed, WorkspaceRecord, issue
from tallystone.store.protocol import Snapshot
from tallystone.store.tables import LOG_HEAD, WORKSPACE, WS
from tallystone.vault.caller import Caller
from tallystone.vault.plan import Plan

if TYPE_CHECKING:
    from tallystone.vault.workspace import Workspace

KEY_FOLDER = "server-keys"
FILE = "log.key"
_NEXT = "log.key.next"
_ATTEMPTS = 200


def make_log_key(folder: Path) -> bytes:
    """The first seed of a data directory, where only this user reads it. Raises `OSError` if there is one."""
    (folder / KEY_FOLDER).mkdir(mode=0o700, exist_ok=True)
    return _write(folder / KEY_FOLDER / FILE, os.O_EXCL)


def read_log_key(folder: Path) -> bytes:
    """The seed that signs checkpoints. Raises `StoreError`."""
    path = folder / KEY_FOLDER / FILE
    try:
        key = path.read_bytes()
    except OSError as error:
        raise StoreError(
            f"cannot read the log's key: {error.strerror}",
            hint=f"it belongs at {KEY_FOLDER}/{FILE} in the data directory; "
            "if it is lost for good: tallystone restore --new-log-key",
            code="no_log_key",
        ) from error
    if len(key) != crypto.KEY_SIZE:
        raise StoreError("the log's key is damaged", hint=f"restore {KEY_FOLDER}/{FILE}", code="no_log_key")
    return key


def seeds(folder: Path) -> list[bytes]:
    """The seeds that lie in a data directory, the present one first."""
    found = []
    for name in (FILE, _NEXT):
        with suppress(OSError):
            seed = (folder / KEY_FOLDER / name).read_bytes()
            if len(seed) == crypto.KEY_SIZE:
                found.append(seed)
    return found


def settle(folder: Path, newest: bytes) -> None:
    """Give the next seed the file's name if the log goes on under it already: whoever made it was cut off."""
    path = folder / KEY_FOLDER / _NEXT
    with suppress(FileNotFoundError):
        seed = path.read_bytes()
        if len(seed) == crypto.KEY_SIZE and crypto.signing_public(seed) == newest:
            _promote(folder)


def rotate_log_key(caller: Caller) -> LogKeys:
    """A new key for the log, named by the workspace's root and by the key before it. Checkpoints are signed with it
    from the commit on that names it. Raises `Denied`, `StoreError`, `Conflict`."""
    workspace = caller.workspace
    caller.must_act()
    with workspace.store.snapshot() as snapshot:
        caller.check(Plan(snapshot))
    caller.must_be_root("changes the log's key")
    with _alone(workspace.folder):
        with workspace.store.snapshot() as snapshot:
            settle(workspace.folder, log_keys(workspace, snapshot).newest)
        return _replace(caller, _next(workspace.folder))


def _replace(caller: Caller, fresh: bytes) -> LogKeys:
    workspace = caller.workspace
    for _ in range(_ATTEMPTS):
        try:
            with workspace.store.snapshot() as snapshot:
                plan = Plan(snapshot)
                caller.check(plan)
                keys = name_key(caller, plan, crypto.signing_public(fresh))
            workspace.store.commit(plan.batch())
        except Conflict as error:
            if error.code != "conflict":
                raise
        else:
            _promote(workspace.folder)
            return keys
    raise Conflict("the log grows too fast", hint="try again", code="contended")


def name_key(caller: Caller, plan: Plan, public: bytes) -> LogKeys:
    """Queue the record that names the log's next key, and its leaf. The commit fails if the log grew meanwhile."""
    workspace = caller.workspace
    caller.must_be_root("changes the log's key")
    head, row = plan.need(LOG_HEAD), plan.need(WORKSPACE)
    if head is None or row is None:
        raise Tampered("the log's head is missing")
    record = WorkspaceRecord.decode(Signed.decode(bytes(row[2])).body)
    before = LogKeys.decode(record.log)
    keys = before.then(int(head[1]), public)
    signers = [(caller.identity(plan, caller.id).digest, caller.signing_seed(plan))]
    for seed in seeds(workspace.folder):
        if crypto.signing_public(seed) == before.newest:  # it is lost, if this names another after a loss
            signers.append((crypto.sha256(before.newest), seed))
    signed = issue("workspace", workspace.id, replace(record, log=keys.encode()).encode(), signers)
    plan.put(WORKSPACE, workspace.id, signed.encode())
    plan.event(LOG_KEY, signed.encode())
    return keys


def log_keys(workspace: Workspace, snapshot: Snapshot) -> LogKeys:
    """The log's keys, by the record of the workspace. That it is the root's word is for the check to say."""
    row = snapshot.get(WORKSPACE, (WS,))
    signed = Signed.decode(bytes(row[2])) if row is not None else workspace.signed
    return LogKeys.decode(WorkspaceRecord.decode(signed.body).log)


# -- files ------------------------------------------------------------------------------------------------------


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Nobody else replaces the key meanwhile: a seed that is overwritten after its commit would end the log."""
    import fcntl  # not everywhere; the rest of this module is

    handle = os.open(folder / KEY_FOLDER, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _next(folder: Path) -> bytes:
    try:
        return _write(folder / KEY_FOLDER / _NEXT, os.O_TRUNC)
    except OSError as error:
        raise StoreError(
            f"cannot write the log's next key: {error.strerror}",
            hint=f"check the permissions of {KEY_FOLDER}",
        ) from error


def _write(path: Path, how: int) -> bytes:
    seed = crypto.random_bytes()
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | how, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(seed)
        file.flush()
        os.fsync(file.fileno())
    return seed


def _promote(folder: Path) -> None:
    keys = folder / KEY_FOLDER
    (keys / _NEXT).replace(keys / FILE)
    handle = os.open(keys, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
