"""The keyless check: is every row in the store one that the log accounts for?

It reads one snapshot and holds no secret. In order:

1. The schema is the one we make, and the file's indexes agree with its tables.
2. The leaves are numbered without a gap; their tree is the one in the head, and the head's checkpoint is
signed by the log's key. An earlier checkpoint (`pin`), kept elsewhere, must be of a beginning of this tree, or of
leaves that the workspace's root declared lost when it restored a backup (`restored.py`).
3. Beside each leaf lies what it has the hash of. A detail may be missing only if a later leaf says it was
deleted.
4. The manifests, folded in order, say which rows there are and what each hashes to. Every row of every table
is compared with that: changed, added and missing rows are named, with the leaf that wrote the key last.

What it cannot find: a rollback of the whole store to an earlier state of itself, without a `pin`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from hashlib import sha256

from tallystone.audit.checkpoint import Checkpoint, open_checkpoint, origin_of
from tallystone.audit.leaf import ROWS, Leaf, decode_leaf, decode_manifest, key_hash, row_hash
from tallystone.audit.merkle import HASH_SIZE, Frontier, leaf_hash
from tallystone.audit.report import FINDINGS_LIMIT, Finding, Report
from tallystone.audit.restored import RESTORE, Authority, History
from tallystone.errors import StoreError, Tampered
from tallystone.store.protocol import Snapshot
from tallystone.store.tables import (
    LOG_DETAIL,
    LOG_HEAD,
    LOG_LEAF,
    LOG_MANIFEST,
    TABLES,
    WORKSPACE,
    WS,
    Cell,
    Row,
    Table,
)

__all__ = ["EXEMPT", "FINDINGS_LIMIT", "Finding", "Progress", "Report", "verify"]

EXEMPT: dict[str, str] = {
    LOG_LEAF.name: "every leaf is under the root of the tree, which the checkpoint signs",
    LOG_MANIFEST.name: "the leaf beside it holds its hash",
    LOG_DETAIL.name: "the leaf beside it holds its hash; deleting it is in a manifest",
    LOG_HEAD.name: "size, frontier and root are computed anew from the leaves, the signature is checked",
    "schema_version": "compared with the migrations we know",
}
"""Tables whose rows are in no manifest, and why each is checked all the same."""

Progress = Callable[[int, int], None]
"""Called now and then with (rows and leaves looked at, how many there seem to be)."""

_STEP = 1000
_LIVE = tuple(table for table in TABLES if table.name not in EXEMPT)


def verify(
    snapshot: Snapshot,
    *,
    log_public: bytes,
    workspace: bytes | None = None,
    pin: bytes | None = None,
    progress: Progress | None = None,
    authority: Authority | None = None,
) -> Report:
    """Check the store under `snapshot`.

    `log_public`: the log's Ed25519 key, from the signed workspace record or, better, from elsewhere.
    `workspace`: the workspace's id, which is taken from its row if not given. `pin`: an earlier checkpoint
    note of this log. `authority` judges restore statements; without it none counts. Memory: about 250 bytes for
    each row of the store. Never raises for what it finds in the store; errors of the disk are raised as `StoreError`.
    """
    return _Check(snapshot, log_public, workspace, pin, progress, authority).run()


class _Check:
    def __init__(
        self,
        snapshot: Snapshot,
        log_public: bytes,
        workspace: bytes | None,
        pin: bytes | None,
        progress: Progress | None,
        authority: Authority | None,
    ) -> None:
        self.snapshot = snapshot
        self.public = log_public
        self.report = Report()
        self.progress = progress
        self.done = self.total = 0
        self.live: dict[str, dict[bytes, bytes]] = {table.name: {} for table in _LIVE}
        self.tree = Frontier()
        self.absent: dict[bytes, int] = {}  # details that are not there: hash of the key → number
        self.deleted: dict[bytes, int] = {}  # details that were deleted: hash of the key → by which leaf
        # Rows to explain: (index of the finding, table, key hash). Resolved by a second pass, if there are
        # any.
        self.suspects: list[tuple[int, str, bytes]] = []
        self.unreadable: set[str] = set()
        self.origin = self._origin(workspace)
        pinned = self._open(pin, "pin") if pin is not None else None
        self.history = History(authority, pinned)

    def run(self) -> Report:
        for where, what in self.snapshot.schema_findings():
            self.report.add(where, what)
        head = self._head()
        self._check_log()
        self._check_head(head)
        self._check_details_deleted()
        for table in _LIVE:
            self._check_table(table)
        self._explain()
        return self.report

    # The log

    def _origin(self, workspace: bytes | None) -> str:
        if workspace is None:
            row = self._get(WORKSPACE, (WS,))
            cell = None if row is None else row[1]
            workspace = cell if isinstance(cell, bytes) else b""
        return origin_of(workspace)

    def _head(self) -> Row | None:
        head = self._get(LOG_HEAD, (WS,))
        if head is None:
            self.report.add("log_head", "is missing")
        elif isinstance(head[1], int):
            self.total = head[1]
        for row in self._rows(LOG_HEAD):
            if row[0] != WS:
                self.report.add(_place(LOG_HEAD, row[:1]), "belongs to no workspace")
        return head

    def _check_log(self) -> None:
        detail_at, manifest_at = self._beside(LOG_DETAIL), self._beside(LOG_MANIFEST)
        for row in self._rows(LOG_LEAF):
            ws, seq, data = row
            self._tick()
            self.report.leaves += 1
            place = _place(LOG_LEAF, row[:2])
            if ws != WS or not isinstance(seq, int) or seq < self.tree.size:
                self.report.add(place, "does not belong to the log")
                continue
            self._fill_gap(seq)
            leaf = self._leaf(place, seq, data)
            detail, manifest = detail_at(seq), manifest_at(seq)
            if leaf is not None and leaf.kind == ROWS:
                self._fold(seq, leaf.digest, manifest)
                if detail is not None:
                    self.report.add(_place(LOG_DETAIL, (ws, seq)), "lies beside a leaf that has no detail")
            elif leaf is not None:
                self._check_detail(seq, leaf.digest, detail)
                if leaf.kind == RESTORE and (wrong := self.history.note(self.tree, detail)):
                    self.report.add(_place(LOG_DETAIL, (ws, seq)), wrong)
                if manifest is not None:
                    self.report.add(
                        _place(LOG_MANIFEST, (ws, seq)), "lies beside a leaf that has no manifest"
                    )
            self._grow(leaf_hash(data) if isinstance(data, bytes) else bytes(HASH_SIZE))
        detail_at(None)
        manifest_at(None)
        self.report.root = self.tree.root()

    def _fill_gap(self, seq: int) -> None:
        # Missing leaves get a hash that no leaf has, so that the others keep their places in the tree.
        start = self.tree.size
        if seq > start:
            last = f"–{seq - 1}" if seq - 1 > start else ""
            self.report.add(f"log_leaf {start}{last}", "is missing")
        if seq - start > 1_000_000:
            # Nobody has lost that many one by one: a row with an absurd number. The root will not match
            # anyway.
            self.tree = Frontier(seq, bytes(HASH_SIZE * seq.bit_count()))
        while self.tree.size < seq:
            self._grow(bytes(HASH_SIZE))

    def _grow(self, leaf: bytes) -> None:
        self.tree.append(leaf)
        self.history.grew(self.tree)

    def _leaf(self, place: str, seq: int, data: Cell) -> Leaf | None:
        try:
            leaf = decode_leaf(data) if isinstance(data, bytes) else None
        except Tampered:
            leaf = None
        if leaf is None:
            self.report.add(place, "is no leaf")
        elif leaf.seq != seq:
            self.report.add(place, f"holds the leaf {leaf.seq}")
        return leaf

    def _check_detail(self, seq: int, digest: bytes, detail: Cell) -> None:
        if detail is None:
            self.absent[key_hash((WS, seq))] = seq
        elif not isinstance(detail, bytes) or sha256(detail).digest() != digest:
            self.report.add(_place(LOG_DETAIL, (WS, seq)), "is not what its leaf has the hash of")

    def _fold(self, seq: int, digest: bytes, body: Cell) -> None:
        place = _place(LOG_MANIFEST, (WS, seq))
        if body is None:
            self.report.add(place, "is missing: the rows it accounts for cannot be checked")
            return
        if not isinstance(body, bytes) or sha256(body).digest() != digest:
            self.report.add(place, "is not what its leaf has the hash of")
            return
        try:
            entries = decode_manifest(body)
        except Tampered:
            self.report.add(place, "is no manifest, though its hash is in the log")
            return
        for table, key, row in entries:
            if (rows := self.live.get(table)) is not None:
                if row is None:
                    rows.pop(key, None)
                else:
                    rows[key] = row
            elif table == LOG_DETAIL.name and row is None:
                self.deleted[key] = seq
            else:
                self.report.add(place, f"accounts for a row of {table!r}, which no manifest may")

    def _check_head(self, head: Row | None) -> None:
        tree = self.tree
        _, size, packed, note = head or (WS, tree.size, None, None)
        signed = self._open(note, "log_head") if head is not None else None
        for where, what in self.history.findings(tree.size, None if signed is None else signed.branch):
            self.report.add(where, what)
        self.report.restores, self.report.given_up = self.history.restores, self.history.given_up
        if head is None:
            return
        if isinstance(note, bytes):
            self.report.checkpoint = note
        if signed is not None and (signed.size, signed.root) != (tree.size, tree.root()):
            self.report.add(
                "log_head",
                f"the checkpoint is not of these leaves: it has {signed.size}, here are {tree.size}",
            )
        if isinstance(size, int) and size > tree.size:
            self.report.add(f"log_leaf {tree.size}–{size - 1}", "is missing at the log's end")
        if size != tree.size:
            self.report.add("log_head", f"says {size} leaves, here are {tree.size}")
        if packed != tree.pack():
            self.report.add("log_head", "its frontier is not the one of these leaves")
            self._name_span(size, packed, signed)

    def _name_span(self, size: Cell, packed: Cell, signed: Checkpoint | None) -> None:
        """Say which leaves differ, as closely as the head allows, if its frontier is the one that was signed."""
        if not isinstance(size, int) or not isinstance(packed, bytes) or signed is None:
            return
        try:
            kept = Frontier(size, packed)
        except ValueError:
            return
        if kept.root() != signed.root or kept.size != self.tree.size:
            return
        for (start, end), theirs, ours in zip(kept.spans(), kept.hashes, self.tree.hashes, strict=True):
            if theirs != ours:
                span = f"{start}–{end - 1}" if end - start > 1 else f"{start}"
                self.report.add(f"log_leaf {span}", "is not what was signed")

    def _open(self, note: Cell, where: str) -> Checkpoint | None:
        try:
            if isinstance(note, bytes):
                return open_checkpoint(note, self.origin, self.public)
            self.report.add(where, "holds no checkpoint")
        except Tampered as error:
            self.report.add(where, error.message)
        return None

    def _check_details_deleted(self) -> None:
        for key, seq in self.absent.items() if LOG_DETAIL.name not in self.unreadable else ():
            if self.deleted.get(key, -1) <= seq:
                self.report.add(_place(LOG_DETAIL, (WS, seq)), "is missing, and no leaf says it was deleted")
        if not self.deleted:
            return
        for row in self._rows(LOG_DETAIL):
            if (by := self.deleted.get(key_hash(row[:2]))) is not None:
                self.report.add(_place(LOG_DETAIL, row[:2]), f"is back, though leaf {by} deleted it")

    # The rows

    def _check_table(self, table: Table) -> None:
        expected = self.live[table.name]
        self.total = max(self.total, self.done + sum(len(rows) for rows in self.live.values()))
        width = len(table.key)
        for row in self._rows(table):
            self._tick()
            self.report.rows += 1
            key = row[:width]
            hashed = key_hash(key)
            wanted = expected.pop(hashed, None)
            if wanted is None:
                self._suspect(_place(table, key), "is accounted for by no leaf", table.name, hashed)
            elif row_hash(table.name, row) != wanted:
                self._suspect(_place(table, key), "is not what was written", table.name, hashed)
        if table.name not in self.unreadable:  # else every row that could not be read would count as missing
            for hashed in expected:
                where = f"{table.name} #{hashed.hex()[:16]}"
                self._suspect(where, "is missing (known by the hash of its key)", table.name, hashed)
        expected.clear()

    def _suspect(self, where: str, what: str, table: str, key: bytes) -> None:
        if len(self.report.findings) < FINDINGS_LIMIT:
            self.suspects.append((len(self.report.findings), table, key))
        self.report.add(where, what)

    def _explain(self) -> None:
        """Add to each finding about a row which leaf wrote or deleted its key last: a second pass over the
        log.
        """
        if not self.suspects:
            return
        wanted = {(table, key) for _, table, key in self.suspects}
        last: dict[tuple[str, bytes], tuple[int, bool]] = {}
        for _, seq, body in self._rows(LOG_MANIFEST):
            try:
                entries = decode_manifest(body) if isinstance(body, bytes) else []
            except Tampered:
                continue
            for table, key, row in entries:
                if (table, key) in wanted and isinstance(seq, int):
                    last[table, key] = seq, row is not None
        for index, table, key in self.suspects:
            finding = self.report.findings[index]
            if (seen := last.get((table, key))) is not None:
                seq, there = seen
                what = f"{finding.what}; leaf {seq} {'wrote' if there else 'deleted'} it last"
                self.report.findings[index] = Finding(finding.where, what)

    # Reading

    def _get(self, table: Table, key: Row) -> Row | None:
        try:
            return self.snapshot.get(table, key)
        except (Tampered, StoreError) as error:
            self._note_unreadable(table, error)
            return None

    def _rows(self, table: Table) -> Iterator[Row]:
        """The table's rows, as far as they can be read at all."""
        try:
            yield from self.snapshot.rows(table)
        except (Tampered, StoreError) as error:
            self._note_unreadable(table, error)

    def _note_unreadable(self, table: Table, error: Tampered | StoreError) -> None:
        if isinstance(error, StoreError) and error.code not in ("corrupt", "schema"):
            raise error  # the disk or the lock, not what is stored
        if table.name not in self.unreadable:
            self.unreadable.add(table.name)
            self.report.add(f"table {table.name}", f"cannot be read to its end: {error.message}")

    def _beside(self, table: Table) -> Callable[[int | None], Cell]:
        """A walk along `table` in step with the leaves.

        The function returned gives the cell beside a leaf number, None if there is none; the numbers must
        ascend, and None ends the walk. Rows that are passed over lie beside no leaf, and are reported.
        """
        rows = self._rows(table)
        row = next(rows, None)

        def take(seq: int | None) -> Cell:
            nonlocal row
            while row is not None:
                ws, number, cell = row
                if ws == WS and isinstance(number, int) and seq is not None and number >= seq:
                    if number > seq:
                        return None
                    found: Cell = cell
                    row = next(rows, None)
                    return found
                self.report.add(_place(table, (ws, number)), "lies beside no leaf")
                row = next(rows, None)
            return None

        return take

    def _tick(self) -> None:
        self.done += 1
        if self.progress is not None and self.done % _STEP == 0:
            self.progress(self.done, max(self.total, self.done))


def _place(table: Table, key: Row) -> str:
    cells = [cell.hex()[:16] if isinstance(cell, bytes) else str(cell) for cell in key[1:]]
    if key[0] != WS:
        cells.insert(0, f"ws {key[0]}")
    return " ".join([table.name, *cells])
