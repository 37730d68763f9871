"""The ceremony that tells a restored backup from a rollback: a statement of the workspace's root, as the first new leaf
of the log that goes on (ADR 0025). The files are moved by `backups`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tallystone.audit.checkpoint import origin_of
from tallystone.audit.logkeys import LOG_KEY, LogKeys, is_log_key
from tallystone.audit.restored import RESTORE, Authority, Lost, Restore, There
from tallystone.errors import NotFound, Tampered
from tallystone.statements import Signed, WorkspaceRecord
from tallystone.store.tables import LOG_HEAD, PRINCIPAL
from tallystone.vault.caller import Caller
from tallystone.vault.logkey import log_keys, name_key
from tallystone.vault.plan import WS, Plan

if TYPE_CHECKING:
    from tallystone.vault.workspace import Workspace


def roots_word(workspace: Workspace, plan: Plan) -> Authority:
    """Whether a restore statement is signed by the workspace's root, under the record that it names. The workspace's id
    pins the root, so nothing that lies in the store puts somebody else there."""

    def judge(signed: Signed, statement: Restore, there: There) -> bool:
        try:
            workspace.check_record(plan, workspace.id)
            root = workspace.identity(plan, workspace.record.root, workspace.id)
        except (Tampered, NotFound):
            return False
        record = root.records.get(statement.issuer_record)
        if record is None or there(PRINCIPAL, (WS, root.id, record.serial + 1)):
            return False
        return statement.issuer == root.id and root.signed(signed, workspace.id, statement.issuer_record)

    return judge


def declare(caller: Caller, lost: Sequence[Lost]) -> int:
    """Log that the store was restored as it is now, and what is `lost` by that; returns the number of the leaf.

    Raises `Denied` unless the caller is the workspace's root with a token of scope full, and `Conflict` if anything was
    logged meanwhile: the statement must be the first leaf after those that the backup had.
    """
    workspace = caller.workspace
    with workspace.store.snapshot() as snapshot:
        plan = Plan(snapshot)
        caller.check(plan)
        caller.must_act()
        caller.must_be_root("restores a backup")
        head = plan.need(LOG_HEAD)
        if head is None:
            raise Tampered("the log's head is missing")
        keys = log_keys(workspace, snapshot)
        here = keys.open(bytes(head[3]), origin_of(workspace.id))
        statement = Restore(
            here.size,
            here.root,
            [[one.branch, one.start, one.end] for one in lost],
            caller.id,
            caller.identity(plan, caller.id).digest,
            workspace.now_ms(),
        )
        plan.event(RESTORE, caller.sign(plan, RESTORE, statement.encode()).encode())
        if workspace.log_public != keys.newest:  # the log's key is lost, or a newer one than the backup knows
            name_key(caller, plan, workspace.log_public)
            workspace.sequencer.goes_on_from(keys.newest)
    return workspace.store.commit(plan.batch())


def told(detail: bytes) -> dict[str, Any]:
    """What lies in clear beside a leaf says, for whoever reads the log: a restore, or a key. Raises `Tampered`."""
    if is_log_key(detail):
        record = WorkspaceRecord.decode(Signed.decode(detail).body)
        key = LogKeys.decode(record.log).newest
        return {"kind": LOG_KEY, "actor": record.root, "key": key.hex()}
    statement = Restore.decode(Signed.decode(detail).body)
    lost = [{"branch": branch, "start": start, "end": end} for branch, start, end in statement.lost]
    return {"kind": RESTORE, "actor": statement.issuer, "size": statement.size, "lost": lost}
