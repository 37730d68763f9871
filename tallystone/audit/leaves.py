"""The check of the log itself: leaves, what lies beside them, the tree, the head, and checkpoints kept elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from hashlib import sha256

from tallystone.audit.checkpoint import Checkpoint
from tallystone.audit.leaf import ROWS, Leaf, ManifestEntry, decode_leaf, decode_manifest, key_hash
from tallystone.audit.logkeys import LOG_KEY, LogKeys
from tallystone.audit.merkle import HASH_SIZE, Frontier, leaf_hash
from tallystone.audit.nodes import NodeCheck
from tallystone.audit.reading import Beside, Reading, place
from tallystone.audit.restored import RESTORE, History
from tallystone.audit.state import State
from tallystone.audit.tree import Tree
from tallystone.errors import Tampered
from tallystone.store.tables import LOG_DETAIL, LOG_HEAD, LOG_LEAF, LOG_MANIFEST, WS, Cell, Row, Table

_MANY = 1_000_000


class LogCheck:
    """Reads the log once. Afterwards `live` says which rows there should be: by table, hash of key → hash of row."""

    def __init__(
        self,
        reading: Reading,
        origin: str,
        keys: LogKeys,
        tables: tuple[str, ...],
        pins: Mapping[str, bytes],
        since: State | None,
        history: History,
    ) -> None:
        self._reading = reading
        self._report = reading.report
        self._origin = origin
        self._keys = keys
        self._renamed: list[int] = []  # leaves that bring a key of the log
        self._untimely: set[str] = set()  # checkpoints signed with another key than that of their time
        self._history = history
        known = since.live() if since is not None else {}
        self.live: dict[str, dict[bytes, bytes]] = {name: known.get(name, {}) for name in tables}
        self.tree = Frontier(since.size, since.frontier) if since is not None else Frontier()
        self._start = self.tree.size
        self._absent: dict[bytes, int] = {}  # details that are not there: hash of the key → number
        self._deleted: dict[bytes, int] = {}  # details that were deleted: hash of the key → by which leaf
        self._unread = False  # whether a list of rows may be among what is missing or unreadable
        self._pins: dict[int, list[tuple[str, Checkpoint]]] = {}
        self._other: list[tuple[str, Checkpoint]] = []  # those that are not of a beginning of this tree
        for where, note in pins.items():
            if (pinned := self._open_pin(note, where)) is not None:
                self._pins.setdefault(pinned.size, []).append((where, pinned))
        self._nodes = NodeCheck(reading, self.tree)

    def run(self) -> None:
        """Check everything, and note what is found."""
        head = self._head()
        signed = self._open(head[3], "log_head") if head is not None else None
        self._check_earlier()
        self._check_pins()
        self._check_leaves()
        self._nodes.finish(signed)
        self._check_head(head, signed)
        self._check_keys()
        self._check_details_deleted()

    # In order

    def _head(self) -> Row | None:
        head = self._reading.get(LOG_HEAD, (WS,))
        if head is None:
            self._report.add("log_head", "is missing")
        elif isinstance(head[1], int):
            self._reading.total = max(head[1] - self._start, 0)
        for row in self._reading.rows(LOG_HEAD):
            if row[0] != WS:
                self._report.add(place(LOG_HEAD, row[:1]), "belongs to no workspace")
        return head

    def _check_earlier(self) -> None:
        """Of the leaves that a kept state stands for, only what it costs a few reads to see."""
        if not self._start:
            return
        if self._reading.get(LOG_LEAF, (WS, self._start - 1)) is None:
            self._report.add(f"log_leaf {self._start - 1}", "is missing", leaf=self._start - 1)
        tree = Tree(self._reading.snapshot, self._start)
        try:
            if b"".join(tree.frontier(self._start)) != self.tree.pack():
                self._report.add(
                    "log_node", f"is not over the first {self._start} leaves that were checked before"
                )
            for size in [size for size in self._pins if size < self._start]:
                for where, pinned in self._pins.pop(size):
                    if tree.root(size) != pinned.root or where in self._untimely:
                        self._other.append((where, pinned))
        except Tampered as error:
            self._report.add("log_node", error.message)

    def _check_leaves(self) -> None:
        details, manifests = self._beside(LOG_DETAIL), self._beside(LOG_MANIFEST)
        for row in self._rows(LOG_LEAF):
            ws, seq, data = row
            self._reading.tick()
            self._report.leaves += 1
            if ws != WS or not isinstance(seq, int) or seq < self.tree.size:
                self._report.add(place(LOG_LEAF, row[:2]), "does not belong to the log")
                continue
            self._fill_gap(seq)
            leaf = self._leaf(seq, data)
            detail, manifest = details.take(seq), manifests.take(seq)
            if leaf is not None and leaf.kind == ROWS:
                self._fold(seq, leaf.digest, manifest)
                if detail is not None:
                    self._add(LOG_DETAIL, seq, "lies beside a leaf that has no detail")
            elif leaf is not None:
                self._check_detail(seq, leaf.digest, detail)
                if leaf.kind == LOG_KEY:
                    self._renamed.append(seq)
                if leaf.kind == RESTORE and (wrong := self._history.note(self.tree, detail, self._there)):
                    self._add(LOG_DETAIL, seq, wrong)
                if manifest is not None:
                    self._add(LOG_MANIFEST, seq, "lies beside a leaf that has no manifest")
            self._grow(leaf_hash(data) if isinstance(data, bytes) else bytes(HASH_SIZE))
        details.take(None)
        manifests.take(None)
        self._report.root = self.tree.root()

    def _there(self, table: Table, key: Row) -> bool:
        return key_hash(key) in self.live[table.name]

    def _rows(self, table: Table) -> Iterator[Row]:
        return self._reading.rows_from(table, start=self._start) if self._start else self._reading.rows(table)

    def _beside(self, table: Table) -> Beside:
        return Beside(self._rows(table), table, self._report)

    def _fill_gap(self, seq: int) -> None:
        # Missing leaves get a hash that no leaf has, so that the others keep their places in the tree.
        start = self.tree.size
        if seq > start:
            self._unread = True
            last = f"–{seq - 1}" if seq - 1 > start else ""
            self._report.add(f"log_leaf {start}{last}", "is missing", leaf=start)
        if seq - start > _MANY:
            # Nobody has lost that many one by one: a row with an absurd number. The root will not match anyway.
            self._nodes.lose()
            self.tree.size, self.tree.hashes = seq, [bytes(HASH_SIZE)] * seq.bit_count()
        while self.tree.size < seq:
            self._grow(bytes(HASH_SIZE), there=False)

    def _grow(self, leaf: bytes, *, there: bool = True) -> None:
        self._nodes.grow(leaf, there=there)
        if self.tree.size in self._pins:
            self._check_pins()

    def _check_pins(self) -> None:
        """Those checkpoints that are over exactly as many leaves as the tree has now."""
        for where, pinned in self._pins.pop(self.tree.size, ()):
            if self.tree.root() != pinned.root or where in self._untimely:
                self._other.append((where, pinned))

    def _judge_pins(self) -> None:
        """Say which checkpoints are neither of this log nor of leaves that a restore gave up."""
        size, above = self.tree.size, (one for size in sorted(self._pins) for one in self._pins[size])
        for where, pinned in (*self._other, *above):
            if (gone := self._history.gave_up(pinned)) is not None:
                self._report.given_up[where] = gone
            elif where in self._untimely:
                signed = f"checkpoint of {pinned.size} leaves is signed with the log's key of another time"
                self._report.add("log_head", f"the {_pinned(where)} {signed}")
            elif pinned.size > size:
                what = f"the log was rolled back: {size} leaves, {_pinned(where)} {pinned.size}"
                self._report.add("log_head", what, leaf=size)
            else:
                place = f"log_leaf 0–{pinned.size - 1}" if pinned.size else "log_head"
                what = f"is not what the {_pinned(where)} checkpoint covers: one of these leaves is another"
                self._report.add(place, what)

    def _leaf(self, seq: int, data: Cell) -> Leaf | None:
        try:
            leaf = decode_leaf(data) if isinstance(data, bytes) else None
        except Tampered:
            leaf = None
        if leaf is None:
            self._unread = True
            self._add(LOG_LEAF, seq, "is no leaf")
        elif leaf.seq != seq:
            self._add(LOG_LEAF, seq, f"holds the leaf {leaf.seq}")
        return leaf

    def _check_detail(self, seq: int, digest: bytes, detail: Cell) -> None:
        if detail is None:
            self._absent[key_hash((WS, seq))] = seq
        elif not isinstance(detail, bytes) or sha256(detail).digest() != digest:
            self._add(LOG_DETAIL, seq, "is not what its leaf has the hash of")

    def _fold(self, seq: int, digest: bytes, body: Cell) -> None:
        problem, entries = _entries(digest, body)
        if problem:
            self._unread = True
            self._add(LOG_MANIFEST, seq, problem)
        for table, key, row in entries:
            if (rows := self.live.get(table)) is not None:
                if row is None:
                    rows.pop(key, None)
                else:
                    rows[key] = row
            elif table == LOG_DETAIL.name and row is None:
                self._deleted[key] = seq
            else:
                self._add(LOG_MANIFEST, seq, f"accounts for a row of {table!r}, which no manifest may")

    def _check_head(self, head: Row | None, signed: Checkpoint | None) -> None:
        tree, report = self.tree, self._report
        report.restores = self._history.restores
        self._judge_pins()
        if signed is not None and not self._history.names(signed.branch):
            report.add("log_head", "the checkpoint names another restore than the log")
        if head is None:
            return
        _, size, packed, note = head
        if isinstance(note, bytes):
            report.checkpoint = note
        if signed is not None and (signed.size, signed.root) != (tree.size, tree.root()):
            report.add(
                "log_head",
                f"the checkpoint is not of these leaves: it has {signed.size}, here are {tree.size}",
                leaf=None if signed.size == tree.size else min(signed.size, tree.size),
            )
        if isinstance(size, int) and size > tree.size:
            self._unread = True
            report.add(f"log_leaf {tree.size}–{size - 1}", "is missing at the log's end", leaf=tree.size)
        if size != tree.size:
            report.add("log_head", f"says {size} leaves, here are {tree.size}", leaf=_lesser(size, tree.size))
        if packed != tree.pack():
            report.add("log_head", "its frontier is not the one of these leaves")
            if not self._nodes.named:
                self._name_span(size, packed, signed)

    def _name_span(self, size: Cell, packed: Cell, signed: Checkpoint | None) -> None:
        """Say which leaves differ, as closely as the head allows, if its frontier is the one that was signed."""
        if not isinstance(size, int) or not isinstance(packed, bytes) or signed is None:
            return
        try:
            head = Frontier(size, packed)
        except ValueError:
            return
        if head.root() != signed.root or head.size != self.tree.size:
            return
        for (start, end), theirs, ours in zip(head.spans(), head.hashes, self.tree.hashes, strict=True):
            if theirs != ours:
                span = f"{start}–{end - 1}" if end - start > 1 else f"{start}"
                # not the leaf: any of the span may be the one
                self._report.add(f"log_leaf {span}", "is not what was signed")

    def _open(self, note: Cell, where: str) -> Checkpoint | None:
        try:
            if isinstance(note, bytes):
                return self._keys.open(note, self._origin)
            self._report.add(where, "holds no checkpoint")
        except Tampered as error:
            self._report.add(where, error.message)
        return None

    def _open_pin(self, note: bytes, where: str) -> Checkpoint | None:
        try:
            pinned, timely = self._keys.open_any(note, self._origin)
        except Tampered as error:
            self._report.add(where, error.message)
            return None
        if not timely:
            self._untimely.add(where)
        return pinned

    def _check_keys(self) -> None:
        """Each key of the log begins with a leaf that brings it, and no leaf brings another."""
        known = [size for size in self._keys.changes if size >= self._start]
        ends = [*known, self.tree.size + 1][1:]
        if len(known) != len(self._renamed) or any(
            not start <= seq < end for start, seq, end in zip(known, self._renamed, ends, strict=True)
        ):
            where = f"log_leaf {self._renamed[0]}" if self._renamed else "workspace"
            self._report.add(
                where, "the leaves that bring keys of the log are not those that its record names"
            )

    def _check_details_deleted(self) -> None:
        for key, seq in self._absent.items() if LOG_DETAIL.name not in self._reading.unreadable else ():
            if self._deleted.get(key, -1) <= seq:
                # a leaf that cannot be read may have said so: then that one is bad, and this one is not
                leaf = None if self._unread else seq
                where = place(LOG_DETAIL, (WS, seq))
                self._report.add(where, "is missing, and no leaf says it was deleted", leaf=leaf)
        if not self._deleted:
            return
        for row in self._rows(LOG_DETAIL):
            if (by := self._deleted.get(key_hash(row[:2]))) is not None:
                where = place(LOG_DETAIL, row[:2])
                self._report.add(where, f"is back, though leaf {by} deleted it", leaf=row[1])

    def _add(self, table: Table, seq: int, what: str) -> None:
        self._report.add(place(table, (WS, seq)), what, leaf=seq)


def _pinned(where: str) -> str:
    return "pinned" if where == "pin" else f"{where}'s"


def _lesser(size: Cell, there: int) -> int | None:
    return min(size, there) if isinstance(size, int) and size >= 0 else None


def _entries(digest: bytes, body: Cell) -> tuple[str, list[ManifestEntry]]:
    """(what is wrong with a manifest, its entries)."""
    if body is None:
        return "is missing: the rows it accounts for cannot be checked", []
    if not isinstance(body, bytes) or sha256(body).digest() != digest:
        return "is not what its leaf has the hash of", []
    try:
        return "", decode_manifest(body)
    except Tampered:
        return "is no manifest, though its hash is in the log", []
