"""What a process has opened and verified before, sealed again for whoever opened it (ADR 0031, 0050).

A read opens some eight layers: shelf row, wrap, nest, chain key, statement, content key, content. What comes out of
them is kept here in two: what all holders of a block share, under a key of the block's, and that key for each of them,
under one that follows from the root of the principal that read. The next request brings that root with its token, or
opens nothing. So between requests a process still has no key and no plaintext (design §6), only one more ciphertext of
what lies in the database under more.

It stands in for rows, and so it counts only while each row that it was made from is exactly what it was, in the view of
the request that asks. Whoever lost a grant, or finds a newer version, finds other rows. Nothing is kept of what depends
on more than rows: a day that ends, clearance, a role.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from tallystone import _cbor, crypto
from tallystone.kept import BLOCKS, Recent
from tallystone.keystore import Keys
from tallystone.policy import Head
from tallystone.statements import Version
from tallystone.store.protocol import Expect, Row
from tallystone.store.tables import BLOCK, CHAIN, EPOCH, GRANT_WRAP, LEDGER, SHELF, VERSION, Table
from tallystone.vault.block_row import FLAG_ROTATE, BlockRow
from tallystone.vault.events import grant_keys
from tallystone.vault.holders import holders_of
from tallystone.vault.kept_blocks import Common, Kept, KeptForm
from tallystone.vault.opening import Opened
from tallystone.vault.plan import WS, Dependence, Plan
from tallystone.vault.records import ACCEPTED, EpochKeys, Held, rights_of, unshelve

if TYPE_CHECKING:
    from tallystone.vault.caller import Caller

LARGEST = 64 * 1024
"""Bytes of one block beyond which it is not kept: opening it is not what costs most then."""
GRANTS = 256
"""Live grants beyond which a block is not kept."""

_HELD = (
    "block", "storage", "grant", "key", "owner", "kind", "state", "position", "leaf", "admin_public", "subject",
    "extra", "root_read", "admin", "root_act",
)  # fmt: skip
_HEAD = (
    "block", "number", "digest", "owner", "grants", "next_grant", "epoch", "version", "version_digest", "admin", "due",
)  # fmt: skip
"""Beside the settings, which readers ask for as well."""
_held, _head = attrgetter(*_HELD), attrgetter(*_HEAD)


class Recalled:
    """What is kept of a block for one principal, opened for one request. Whether its rows still are those is asked by
    `entering.enter_again`.

    What a reader is shown is decoded when it is asked for, and so is what a writer needs besides.
    """

    __slots__ = (
        "_common",
        "_epoch",
        "_key",
        "_parts",
        "_recall",
        "_shelter",
        "filing",
        "kept",
        "rights",
        "said",
    )

    def __init__(self, recall: Recall, kept: Kept, parts: list[Any]) -> None:
        self._recall = recall
        self.kept = kept
        self.said: list[Any]
        """What the shelf row says, as `Held` has it."""
        self.rights: str
        self.filing: tuple[bytes, bytes]
        self.said, self._epoch, filing, self.rights, self._key = parts
        self.filing = (filing[0], filing[1])
        self._common: Common | None = None
        self._parts: list[Any] | None = None
        self._shelter: crypto.Shelter | None = None

    def __repr__(self) -> str:
        return "Recalled()"

    @property
    def common(self) -> Common | None:
        """What all holders share, as it was found to stand; before that, as it is kept."""
        if self._common is None:
            self._common = self._recall.common(self.kept.place)
        return self._common

    def stands(self, plan: Plan) -> bool:
        """Whether all of it is what its rows are in this plan; the commit asks for the wrap again."""
        before, newest = self._common, self._recall.common(self.kept.place)
        for common in (before,) if newest is None or newest is before else (newest, before):
            if common is not None and self.kept.stands(plan, common):
                if common is not before:
                    self._common, self._parts = common, None
                return True
        return False

    def is_labelled(self, label: str) -> bool:
        """Whether this was the block's label in the version that is kept."""
        common = self.common
        return common is not None and crypto.equal(common.label, _label_mark(self._key, label))

    def shelter(self) -> crypto.Shelter:
        """What opens and seals what all holders share."""
        if self._shelter is None:
            self._shelter = self._recall.shelter(self._key)
        return self._shelter

    def _part(self, place: int) -> Any:
        if self._parts is None:
            common = self.common
            if common is None:
                raise LookupError("nothing is kept of this block")  # callers ask `stands`
            self._parts = _cbor.own(self.shelter().open(common.number, self.kept.place, common.sealed))
        return self._parts[place]

    @property
    def payload(self) -> dict[str, Any]:
        """The newest content as a map."""
        found: dict[str, Any] = self._part(0)
        return found

    @property
    def settings(self) -> dict[str, Any]:
        """What the policy sets."""
        found: dict[str, Any] = self._part(1)
        return found

    @property
    def shown(self) -> list[Any]:
        """Version, time (ms), writer, under whom, owner, first owner, mutable, append-only."""
        found: list[Any] = self._part(2)
        return found

    @property
    def recipients(self) -> list[str]:
        """Whom the live grants are to, in order."""
        found: list[str] = self._part(3)
        return found

    @property
    def due(self) -> bool:
        """Whether the block's keys are due to change."""
        return bool(self._part(4))

    def open(self, caller: Caller, plan: Plan, held: Held, row: BlockRow) -> Opened:
        """The block, opened with what stands, where it was left."""
        head, version, digest = _cbor.own(self._part(5))
        known = Head.__new__(Head)
        known.__dict__.update(zip(_HEAD, head, strict=True), settings=self.settings)
        opened = Opened(caller, plan, held, row, EpochKeys(*self._epoch))
        opened.know(known)
        opened.verified = self.payload, Version.of(version), digest
        plan.filing[held.key] = self.filing
        return opened

    def granted(self, plan: Plan) -> list[str] | None:
        """Whom the live grants are to, in order; None if they are others by now."""
        common = self.common
        if common is None or not (self.kept.untouched(plan, common.number) or common.granted(plan)):
            return None
        return self.recipients

    def note(self, plan: Plan) -> None:
        """Note that this plan has found all of it to stand, and the grants as well."""
        if self.common is not None:
            self.kept.note(plan, self.common)

    def key_of(self, rows: tuple[Dependence, ...], slot: bytes | None, epoch: EpochKeys) -> bytes | None:
        """What seals the block's `Common`, if this is kept of just these rows, this shred key and these keys."""
        same = self.kept.rows == rows and self.kept.slot == slot and self._epoch == _epoch(epoch)
        return self._key if same else None


class Recall:
    """What is kept, by the blinded address on a principal's shelf; what holders share, by a hash under its key. Safe to
    use from several threads."""

    def __init__(self, limit: int = BLOCKS) -> None:
        self._kept: Recent[Any, Any] = Recent(limit)  # also the cells of holders, by mark
        self.at: Callable[[tuple[bytes, bytes, bool]], Kept | None] = self._kept.get
        """What is kept at a place: a shelf, a locator, and whether the keys act."""
        self.common: Callable[[bytes], Common | None] = self._kept.get
        """What is kept for all holders of a block."""
        self._salt, self._numbers = crypto.random_bytes(), count()

    def __repr__(self) -> str:
        return f"Recall({self._kept!r})"

    def find(self, keys: Keys, row: Row) -> Held | None:
        """What is on a shelf in this row, with all that is kept of it, if it was opened before by these keys."""
        kept = self.kept(keys, row)
        if kept is None:
            return None
        parts = _cbor.own(self.under(keys).open(kept.number, kept.context, kept.sealed))
        return held_of(parts[0], keys, row, Recalled(self, kept, parts))

    def under(self, keys: Keys) -> crypto.Shelter:
        """What opens all that is kept for whoever has these keys, which hold it for as long as they are there."""
        made = keys.shelter
        if made is None or made[0] is not self._salt:
            made = keys.shelter = self._salt, self.shelter(keys.recall)
        return made[1]

    def shelter(self, key: bytes) -> crypto.Shelter:
        """What opens what is kept under a key (32 bytes)."""
        return crypto.Shelter(key, self._salt)

    def number(self) -> bytes:
        """One that no other message in this process's memory has. Not across a fork, where no store goes on either."""
        return next(self._numbers).to_bytes(12, "big")

    def kept(self, keys: Keys, row: Row) -> Kept | None:
        """What is kept of what is on a shelf in this row, still sealed, if these keys opened just this row before."""
        kept = self.at((row[1], row[2], keys.can_act))
        return None if kept is None or kept.shelved != row else kept

    def keep(self, opened: Opened, verified: tuple[dict[str, Any], Version, bytes]) -> None:
        """Note an opened block with its newest version, both verified, as this plan would leave them."""
        plan, held, row, head = opened.plan, opened.held, opened.row, opened.head
        origin, settings = held.origin, head.settings
        if (
            origin is None
            or held.via
            or held.kind not in ("block", "agent")
            or held.state != ACCEPTED
            or held.position != origin[1][3]
            or row.day is not None
            or settings.get("sensitivity")
            or settings.get("expires") is not None
            or (held.own_leaf is not None and held.own_leaf.until is not None)
            or len(verified[0].get("value", "")) > LARGEST
        ):
            return
        ledger = plan.rows(LEDGER, row.storage)
        if len(ledger) > GRANTS:
            return
        way = self._keep_for(opened)
        if way is None:
            return
        key, place, shelter = way
        rows = _depending(
            plan,
            [
                (BLOCK, (row.storage,)),
                (EPOCH, (row.storage, row.epoch)),
                (CHAIN, (row.storage, row.policy)),
                (VERSION, (row.storage, row.version)),
            ],
        )
        known = self.common(place)
        if known is not None and known.rows == rows and known.ledger == ledger:
            return  # another holder has left it
        (payload, version, digest), genesis = verified, opened.genesis()
        shown = [
            version.number, version.time, version.writer, version.under, head.owner, genesis.owner, genesis.mutable,
            genesis.append_only,
        ]  # fmt: skip
        due = head.due or bool(row.flags & FLAG_ROTATE)
        rest = _cbor.own_bytes([_head(head), version.__dict__, digest])
        whole = _cbor.own_bytes([payload, settings, shown, recipients(opened), due, rest])
        if len(whole) > LARGEST:
            return
        number = self.number()
        sealed = shelter.seal(number, place, whole)
        mark = _label_mark(key, str(payload.get("label", "")))
        common = Common(rows, ledger, mark, number, sealed)
        self._kept.put(place, common, common.weight)

    def _keep_for(self, opened: Opened) -> tuple[bytes, bytes, crypto.Shelter] | None:
        """Note how whoever opened a block comes to it, and return key, place and `shelter` of what all holders share;
        None if this plan has another key for it: what comes of that, the next one sees."""
        plan, held, row, epoch = opened.plan, opened.held, opened.row, opened.keys
        assert held.origin is not None  # asked before
        keys, shelved = held.origin
        said = said_by(held)
        at, known = (shelved[1], shelved[2], keys.can_act), held.recalled
        as_found = plan.known.get(("held", *at)) is held  # see `shelves.on_shelf`
        if plan.get(SHELF, *shelved[1:3]) != shelved or not (as_found or _as_shelved(held, said)):
            return None
        wanted: list[tuple[Table, tuple[Any, ...]]] = [(GRANT_WRAP, (row.storage, held.grant))]
        if held.leaf:
            wanted.append((LEDGER, (row.storage, held.grant)))
        rows = _depending(plan, wanted)
        if known is not None and known.kept.shelved == shelved and self.at(at) is known.kept:
            key = known.key_of(rows, row.shred, epoch)
            if key is not None:
                return key, known.kept.place, known.shelter()
        # Bound to all that a reader brings to what it verifies: whom it takes for the owner, and whose word for the
        # workspace's; and whether it can hold a version against the one before.
        key = crypto.derive(
            epoch.dek, "block/recall", held.block, epoch.number, held.owner, held.since, held.kind,
            keys.root.pin, int(epoch.history is not None),
        )  # fmt: skip
        filing = plan.filing.get(held.key) or grant_keys(held.key)
        whole = _cbor.own_bytes([said, _epoch(epoch), filing, rights_of(held), key])
        context, number = crypto.pae("recall", *shelved[1:3]), self.number()
        sealed = self.under(keys).seal(number, context, whole)
        wrap = Expect(GRANT_WRAP, rows[0][0][1], rows[0][2])
        kept = Kept(shelved, rows, wrap, row.shred, _place(key), context, number, sealed)
        self._kept.put(at, kept, kept.weight)
        return key, kept.place, self.shelter(key)

    def keep_form(self, keys: Keys, kept: Kept, form: KeptForm) -> None:
        """Note what a reader was shown of a kept block."""
        place = (kept.shelved[1], kept.shelved[2], keys.can_act)
        kept.form = form
        if self._kept.get(place) is kept:
            self._kept.put(place, kept, kept.weight)

    def cell(self, mark: bytes) -> bytes | None:
        """A sealed cell that was kept under this mark (see `holders`)."""
        found: bytes | None = self._kept.get(mark)
        return found

    def keep_cell(self, mark: bytes, sealed: bytes) -> None:
        """Keep a cell, in place of the one before."""
        self._kept.put(mark, sealed, 2 * len(mark) + len(sealed))

    def clear(self) -> None:
        """Forget everything."""
        self._kept.clear()


def said_by(held: Held) -> list[Any]:
    """What a shelf row says, for `held_of`."""
    return list(_held(held))


def held_of(said: list[Any], keys: Keys, row: Row, recalled: Recalled | None = None) -> Held:
    """What this row says on a shelf of these keys."""
    held = Held.__new__(Held)
    held.__dict__.update(zip(_HELD, said, strict=True), via=(), origin=(keys, row), recalled=recalled)
    return held


def _epoch(epoch: EpochKeys) -> list[Any]:
    return [epoch.number, epoch.dek, epoch.history, epoch.chain]


def _place(key: bytes) -> bytes:
    """Where a `Common` lies: whoever has not the key finds nothing."""
    return crypto.mac(key, b"place")


def _label_mark(key: bytes, label: str) -> bytes:
    return crypto.mac(key, b"label" + label.encode())


def _depending(plan: Plan, wanted: list[tuple[Table, tuple[Any, ...]]]) -> tuple[Dependence, ...]:
    return tuple(((table.name, (WS, *key)), table, plan.get(table, *key)) for table, key in wanted)


def _as_shelved(held: Held, said: list[Any]) -> bool:
    """Whether a `Held` says what its shelf row said: whoever changes keys goes on with a changed one."""
    assert held.origin is not None
    keys, row = held.origin
    if held.recalled is not None and held.recalled.kept.shelved == row:
        return held.recalled.said == said
    return unshelve(keys, row[1], row[2], row[3], row[4], row[5]) == held


def newest(opened: Opened) -> tuple[Version, bytes]:
    """The newest version's statement and that statement's digest, whatever its content is."""
    if opened.verified is not None and opened.verified[1].number == opened.row.version:
        return opened.verified[1:]
    content, version = opened.content()
    return version, content.signed.digest


def recipients(opened: Opened) -> list[str]:
    """Whom the live grants are to."""
    recalled = opened.held.recalled
    known = recalled.granted(opened.plan) if recalled is not None else None
    return holders_of(opened) if known is None else known
