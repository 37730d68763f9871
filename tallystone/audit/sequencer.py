"""Composes the log rows of a transaction: leaves, what lies beside them, the grown tree, the signed
checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from hashlib import sha256

from tallystone.audit.checkpoint import Checkpoint, open_checkpoint, origin_of, sign_checkpoint
from tallystone.audit.following import follow
from tallystone.audit.leaf import ROWS, Leaf, encode_manifest, key_hash, row_hash
from tallystone.audit.logkeys import LOG_KEY, keys_in
from tallystone.audit.merkle import Frontier, leaf_hash
from tallystone.audit.restored import RESTORE, branch_of
from tallystone.audit.tree import kept
from tallystone.crypto import Signer
from tallystone.errors import Invalid, Tampered
from tallystone.store.protocol import Event, Followed, Grown, Head, Put, RowChange, Sequencer
from tallystone.store.tables import LOG_DETAIL, LOG_HEAD, LOG_LEAF, LOG_MANIFEST, LOG_NODE, WORKSPACE, WS, Row

_LOG_TABLES = frozenset({LOG_LEAF.name, LOG_MANIFEST.name, LOG_NODE.name, LOG_HEAD.name})


class LogSequencer(Sequencer):
    """The `Sequencer` of a workspace's log.

    It continues only a head that verifies: growing one that somebody edited would sign the edit. So a head
    that it did not write itself must carry a checkpoint of the log's key over just that tree, and a log may
    begin only in the transaction that writes the workspace's own row.
    """

    def __init__(
        self,
        workspace: bytes,
        seed: bytes,
        clock: Callable[[], int],
        seeds: Callable[[], Sequence[bytes]] = tuple,
    ) -> None:
        """`workspace`: its id. `seed`: the log's Ed25519 seed, 32 bytes. `clock`: unix seconds. `seeds`: asked for the
        seeds that there are, when the log goes on under another key."""
        self._origin = origin_of(workspace)
        self._signer = Signer(seed)
        self._clock = clock
        self._seeds = seeds
        self._before: bytes | None = None
        self._written: Row | None = None
        self._branch = ""
        self._seen = (0, b"")

    def bind(self, workspace: bytes) -> None:
        """Say whose log this is, for a caller who learns it from the store that the sequencer opens."""
        self._origin = origin_of(workspace)

    def goes_on_from(self, public: bytes) -> None:
        """Take a head that this key signed, once: for a restore whose root names another key in the same commit."""
        self._before = public

    def sequence(self, head: Row | None, events: Sequence[Event], changes: Sequence[RowChange]) -> list[Put]:
        """See `Sequencer.sequence`. Raises `Tampered` for a head that does not verify, `Invalid` for bad
        events.

        The leaf that accounts for the rows comes after those of the events. Of several changes to one key the
        last counts.
        """
        tree = self._continue(head) if head is not None else self._begin(changes)
        branch, signer = self._branch, self._signer
        minute = self._clock() // 60
        puts: list[Put] = []
        for event in events:
            if event.kind == ROWS:
                raise Invalid("no event may call itself a list of rows")
            puts.append(Put(LOG_DETAIL, (WS, tree.size, event.detail)))
            puts += _grow(tree, minute, event.kind, event.detail)
            if event.kind == RESTORE:
                branch = branch_of(event.detail)
            if event.kind == LOG_KEY:
                signer = self._signer_of(keys_in(event.detail).newest)
        if changes:
            body = _manifest(changes)
            puts.append(Put(LOG_MANIFEST, (WS, tree.size, body)))
            puts += _grow(tree, minute, ROWS, body)
        checkpoint = Checkpoint(self._origin, tree.size, tree.root(), branch)
        # Remembered although the transaction may still fail: it is a head that we would sign either way.
        self._written = (WS, tree.size, tree.pack(), sign_checkpoint(checkpoint, signer))
        self._branch, self._signer = branch, signer
        puts.append(Put(LOG_HEAD, self._written))
        return puts

    def durable(self) -> None:
        """See `Sequencer.durable`. Not sooner: what can be read on a database's primary may not be on its standby yet,
        and is gone when that takes over, without having been acknowledged to anybody."""
        if self._written is not None:
            _, size, packed, _ = self._written
            assert isinstance(size, int) and isinstance(packed, bytes)  # as `sequence` has put them
            self._seen = size, packed

    def follow(self, before: Head, after: Head, grown: Sequence[Grown]) -> Followed | None:
        """See `Sequencer.follow`."""
        return follow(before, after, grown)

    def name(self, key: Row) -> bytes:
        """See `Sequencer.name`."""
        return key_hash(key)

    def nodes_of(self, leaves: Iterator[Row]) -> Iterator[Put]:
        """See `Sequencer.nodes_of`. Whether the leaves are those that were signed is for the check to say."""
        tree = Frontier()
        for _, _, leaf in leaves:
            yield from _nodes(tree, leaf_hash(leaf))

    def _continue(self, head: Row) -> Frontier:
        _, size, packed, note = head
        if not (isinstance(size, int) and isinstance(packed, bytes) and isinstance(note, bytes)):
            raise Tampered("the log's head is malformed")
        try:
            tree = Frontier(size, packed)
        except ValueError as error:
            raise Tampered("the log's head is malformed") from error
        if head != self._written:  # another process wrote it, or somebody else did
            signed = self._open(note)
            if (signed.size, signed.root) != (size, tree.root()):
                raise Tampered("the log's head is not what its checkpoint says")
            self._branch = signed.branch
        seen_size, seen_packed = self._seen
        if size < seen_size or (size == seen_size and packed != seen_packed):
            raise Tampered(
                "the log was rolled back", hint="restart after restoring a backup, or find out who did"
            )
        return tree

    def _open(self, note: bytes) -> Checkpoint:
        """The checkpoint of a head: by the key that we sign with, or another that lies where ours did."""
        try:
            return open_checkpoint(note, self._origin, self._signer.public)
        except Tampered as error:
            for seed in self._seeds():
                signer = Signer(seed)
                with suppress(Tampered):
                    signed = open_checkpoint(note, self._origin, signer.public)
                    self._signer = signer
                    return signed
            if self._before is None:
                raise error
            return open_checkpoint(note, self._origin, self._before)

    def _signer_of(self, public: bytes) -> Signer:
        """Who signs under a new key. Raises `Invalid` if its seed is not here."""
        for signer in (self._signer, *map(Signer, self._seeds())):
            if signer.public == public:
                self._before = None
                return signer
        raise Invalid("the seed of the log's next key is not here")

    def _begin(self, changes: Sequence[RowChange]) -> Frontier:
        begins = any(table.name == WORKSPACE.name and row is not None for table, _, row in changes)
        if self._seen != (0, b"") or not begins:
            raise Tampered("the log's head is missing", hint="restore a backup")
        return Frontier()


def _grow(tree: Frontier, minute: int, kind: str, beside: bytes) -> list[Put]:
    leaf = Leaf(tree.size, minute, kind, sha256(beside).digest()).encode()
    return [Put(LOG_LEAF, (WS, tree.size, leaf)), *_nodes(tree, leaf_hash(leaf))]


def _nodes(tree: Frontier, leaf: bytes) -> list[Put]:
    number = tree.size
    return [Put(LOG_NODE, (WS, height, number >> height, node)) for height, node in kept(tree.append(leaf))]


def _manifest(changes: Sequence[RowChange]) -> bytes:
    entries: dict[tuple[str, bytes], bytes | None] = {}
    for table, key, row in changes:
        if table.name in _LOG_TABLES or (table.name == LOG_DETAIL.name and row is not None):
            raise Invalid("the log's own rows are written by the log alone")
        entries[table.name, key_hash(key)] = None if row is None else row_hash(table.name, row)
    return encode_manifest((table, key, row) for (table, key), row in entries.items())
