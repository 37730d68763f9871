"""The keyless check: is every row in the store one that the log accounts for?

It reads one snapshot and holds no secret. In order:

1. The schema is the one we make, and the file's indexes agree with its tables.
2. The leaves are numbered without a gap; their tree is the one in the head, and the head's checkpoint is
signed by the log's key. Earlier checkpoints, kept elsewhere, must be of a beginning of this tree, or of leaves that the
workspace's root declared lost when it restored a backup (`restored`). The stored hashes of the tree are those of the
leaves (`nodes`).
3. Beside each leaf lies what it has the hash of. A detail may be missing only if a later leaf says it was
deleted.
4. The manifests, folded in order, say which rows there are and what each hashes to. Every row of every table
is compared with that: changed, added and missing rows are named, with the leaf that wrote the key last.

What it cannot find: a rollback of the whole store to an earlier state of itself, without a checkpoint kept elsewhere.
With `since` it trusts what an earlier check saw, and looks at newer leaves and at all rows: an older leaf, or what lies
beside it, may have been changed meanwhile, and the file's indexes are not compared with its tables.
"""

from __future__ import annotations

from collections.abc import Mapping

from tallystone.audit.checkpoint import origin_of
from tallystone.audit.leaf import decode_manifest, key_hash, row_hash
from tallystone.audit.leaves import LogCheck
from tallystone.audit.logkeys import LogKeys
from tallystone.audit.reading import Progress, Reading, place
from tallystone.audit.report import FINDINGS_LIMIT, Finding, Report
from tallystone.audit.restored import Authority, History
from tallystone.audit.state import State, decode_state, pack_rows
from tallystone.errors import Tampered
from tallystone.store.protocol import Snapshot
from tallystone.store.tables import (
    LOG_DETAIL,
    LOG_HEAD,
    LOG_LEAF,
    LOG_MANIFEST,
    LOG_NODE,
    TABLES,
    WORKSPACE,
    WS,
    Table,
)

__all__ = ["EXEMPT", "FINDINGS_LIMIT", "Finding", "Progress", "Report", "verify"]

EXEMPT: dict[str, str] = {
    LOG_LEAF.name: "every leaf is under the root of the tree, which the checkpoint signs",
    LOG_MANIFEST.name: "the leaf beside it holds its hash",
    LOG_DETAIL.name: "the leaf beside it holds its hash; deleting it is in a manifest",
    LOG_NODE.name: "every one is computed anew from the leaves",
    LOG_HEAD.name: "size, frontier and root are computed anew from the leaves, the signature is checked",
    "schema_version": "compared with the migrations we know",
}
"""Tables whose rows are in no manifest, and why each is checked all the same."""

_LIVE = tuple(table for table in TABLES if table.name not in EXEMPT)


def verify(
    snapshot: Snapshot,
    *,
    log_public: bytes,
    workspace: bytes | None = None,
    pin: bytes | None = None,
    pins: Mapping[str, bytes] | None = None,
    since: bytes | None = None,
    keep_state: bool = False,
    progress: Progress | None = None,
    authority: Authority | None = None,
) -> Report:
    """Check the store under `snapshot`.

    `log_public`: the log's Ed25519 key, or all that it had one after the other (`LogKeys.encode`), from the signed
    workspace record or, better, from elsewhere.
    `workspace`: the workspace's id, which is taken from its row if not given. `pin`: an earlier checkpoint
    note of this log; `pins`: more of them, by who keeps them. `since`: the encoded `State` of an earlier check, which
    is then trusted, and continued; after a restore everything is checked anew, and the state is one more pin.
    `keep_state`: put the state for the next one into the report. `authority` judges restore statements; without it none
    counts. Memory: about 250 bytes for each row of the store, and 2 for each leaf. Never raises for what it finds in
    the store; errors of the disk are raised as `StoreError`, and a `since` that is no state of this log as `Tampered`.
    """
    report = Report()
    reading = Reading(snapshot, report, progress)
    origin = _origin(reading, workspace)
    notes = {**(pins or {}), **({} if pin is None else {"pin": pin})}
    keys = LogKeys.decode(log_public)
    state = decode_state(since, origin, log_public) if since is not None else None
    if state is not None and not _goes_on(reading, state, origin, keys):
        notes["state"], state = state.checkpoint, None
    report.since = 0 if state is None else state.size
    for where, what in snapshot.schema_findings(deep=state is None):
        report.add(where, what)
    history = History(authority, () if state is None else state.restores)
    log = LogCheck(reading, origin, keys, tuple(table.name for table in _LIVE), notes, state, history)
    log.run()
    packed = pack_rows(log.live) if keep_state else {}
    rows = _RowCheck(reading, log.live)
    for table in _LIVE:
        rows.check(table)
    rows.explain()
    if keep_state and report.ok:
        report.state = State(
            report.checkpoint, log.tree.size, log.tree.pack(), packed, tuple(history.restores)
        )
    return report


def _origin(reading: Reading, workspace: bytes | None) -> str:
    if workspace is None:
        row = reading.get(WORKSPACE, (WS,))
        cell = None if row is None else row[1]
        workspace = cell if isinstance(cell, bytes) else b""
    return origin_of(workspace)


def _goes_on(reading: Reading, state: State, origin: str, keys: LogKeys) -> bool:
    """Whether the log is of the branch that the state is of. A head that cannot be read is for the check to name."""
    row = reading.get(LOG_HEAD, (WS,))
    note = None if row is None else row[3]
    try:
        branch = keys.open(note, origin).branch if isinstance(note, bytes) else state.branch
    except Tampered:
        return True
    known = state.restores[-1].branch if state.restores else ""
    return branch == state.branch == known


class _RowCheck:
    def __init__(self, reading: Reading, live: dict[str, dict[bytes, bytes]]) -> None:
        self._reading = reading
        self._report = reading.report
        self._live = live
        # Rows to explain: (index of the finding, table, key hash). Resolved by a second pass, if there are any.
        self._suspects: list[tuple[int, str, bytes]] = []

    def check(self, table: Table) -> None:
        reading, expected = self._reading, self._live[table.name]
        reading.total = max(reading.total, reading.done + sum(len(rows) for rows in self._live.values()))
        width = len(table.key)
        for row in reading.rows(table):
            reading.tick()
            self._report.rows += 1
            key = row[:width]
            hashed = key_hash(key)
            wanted = expected.pop(hashed, None)
            if wanted is None:
                self._suspect(place(table, key), "is accounted for by no leaf", table.name, hashed)
            elif row_hash(table.name, row) != wanted:
                self._suspect(place(table, key), "is not what was written", table.name, hashed)
        if (
            table.name not in reading.unreadable
        ):  # else every row that could not be read would count as missing
            for hashed in expected:
                where = f"{table.name} #{hashed.hex()[:16]}"
                self._suspect(where, "is missing (known by the hash of its key)", table.name, hashed)
        expected.clear()

    def _suspect(self, where: str, what: str, table: str, key: bytes) -> None:
        if len(self._report.findings) < FINDINGS_LIMIT:
            self._suspects.append((len(self._report.findings), table, key))
        self._report.add(where, what)

    def explain(self) -> None:
        """Add to each finding about a row which leaf wrote or deleted its key last: a second pass over the
        log.
        """
        if not self._suspects:
            return
        wanted = {(table, key) for _, table, key in self._suspects}
        last: dict[tuple[str, bytes], tuple[int, bool]] = {}
        for _, seq, body in self._reading.rows(LOG_MANIFEST):
            try:
                entries = decode_manifest(body) if isinstance(body, bytes) else []
            except Tampered:
                continue
            for table, key, row in entries:
                if (table, key) in wanted and isinstance(seq, int):
                    last[table, key] = seq, row is not None
        for index, table, key in self._suspects:
            finding = self._report.findings[index]
            if (seen := last.get((table, key))) is not None:
                seq, there = seen
                what = f"{finding.what}; leaf {seq} {'wrote' if there else 'deleted'} it last"
                self._report.findings[index] = Finding(finding.where, what)
