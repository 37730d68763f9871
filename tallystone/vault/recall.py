"""What a process has opened and verified before, sealed again for whoever opened it (ADR 0031).

A read opens some eight layers: shelf row, wrap, nest, chain key, statement, content key, content. What comes out of
them is kept here in one, under a key that follows from the root of the principal that read: the next request brings
that root with its token, or opens nothing. So between requests a process still has no key and no plaintext (design §6),
only one more ciphertext of what lies in the database under more.

It stands in for rows, and so it counts only while each row that it was made from is exactly what it was, in the view of
the request that asks. Whoever lost a grant, or finds a newer version, finds other rows. Nothing is kept of what depends
on more than rows: a day that ends, clearance, a role.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from tallystone import _cbor, crypto
from tallystone.kept import BLOCKS, Recent, weight_of
from tallystone.keystore import Keys
from tallystone.policy import Head
from tallystone.statements import Version
from tallystone.store.protocol import Expect, Moment, Row
from tallystone.store.tables import BLOCK, CHAIN, EPOCH, GRANT_WRAP, LEDGER, SHELF, VERSION, Table
from tallystone.vault.block_row import FLAG_ROTATE, BlockRow
from tallystone.vault.events import grant_keys
from tallystone.vault.holders import holders_of
from tallystone.vault.opening import Opened
from tallystone.vault.plan import WS, Dependence, Plan
from tallystone.vault.records import ACCEPTED, EpochKeys, Held, rights_of, unshelve

if TYPE_CHECKING:
    from tallystone.vault.caller import Caller

LARGEST = 64 * 1024
"""Bytes of one block beyond which it is not kept: opening it is not what costs most then."""
GRANTS = 256
"""Live grants beyond which a block is not kept."""
_OVERHEAD, _FORM, _OTHER = 1100, 300, 200

_HELD = (
    "block", "storage", "grant", "key", "owner", "kind", "state", "position", "leaf", "admin_public", "subject",
    "extra", "root_read", "admin", "root_act",
)  # fmt: skip
_HEAD = (
    "block", "number", "digest", "owner", "grants", "next_grant", "epoch", "version", "version_digest", "admin", "due",
)  # fmt: skip
"""Beside the settings, which readers ask for as well."""
_held, _head = attrgetter(*_HELD), attrgetter(*_HEAD)


class KeptForm(NamedTuple):
    """What a reader was shown of a block (see `forms`): in which form, under which charter, the rows that it depends on
    besides, and the ciphertext with what that is bound to."""

    form: object
    charter: object
    others: tuple[Dependence, ...]
    context: bytes
    number: bytes
    sealed: bytes


@dataclass(slots=True, eq=False)
class Kept:
    """One block for one principal: its shelf row, the other rows that it was made from (the wrap's first, the block's
    second), the rows of its grants, and the ciphertext with what that is bound to."""

    shelved: Row
    rows: tuple[Dependence, ...]
    ledger: list[Row]
    context: bytes
    number: bytes
    sealed: bytes
    wrap: Expect
    """What the commit of whoever reads it expects: that the grant is still there."""
    slot: bytes | None
    """Of the block's shred key."""
    moment: Moment | None = None
    """Of a view in which these rows, but the shelf's, were found to be so."""
    form: KeptForm | None = None
    """What its reader was shown of it."""

    def stands(self, plan: Plan) -> bool:
        """Whether these rows, but the shelf's, are what they were; the commit asks for the wrap again."""
        if self.untouched(plan):
            return True
        if not (plan.stands(self.rows) and self.granted(plan)):
            return False
        self.found(plan)
        return True

    def granted(self, plan: Plan) -> bool:
        """Whether the rows of the grants are what they were."""
        return plan.lists(self.ledger, LEDGER, self.rows[0][0][1][1])

    def untouched(self, plan: Plan) -> bool:
        """Whether these rows, but the shelf's, are known to be what they were, without looking at each; the commit asks
        for the wrap again. If not, they may be all the same."""
        moment = self.moment  # another thread may note another one, or none
        if moment is None or plan.changes or not plan.snapshot.unchanged(self.rows[0][0][1][:2], moment):
            return False
        plan.also.append(self.wrap)
        return True

    def found(self, plan: Plan) -> None:
        """Note that this plan has found all of them to be so."""
        if not plan.changes:
            self.moment = plan.snapshot.moment()


class Recalled:
    """A `Kept`, opened for one request. Whether its rows still are those is asked by `entering.enter_again`.

    What a reader is shown is at hand; what a writer needs besides is decoded when it is asked for.
    """

    __slots__ = ("_rest", "due", "filing", "kept", "payload", "recipients", "said", "settings", "shown")

    def __init__(self, kept: Kept, parts: list[Any]) -> None:
        self.kept = kept
        self.said: list[Any]
        """What the shelf row says, as `Held` has it."""
        self.payload: dict[str, Any]
        self.settings: dict[str, Any]
        self.shown: list[Any]
        """Version, time (ms), writer, under whom, owner, first owner, mutable, append-only, rights."""
        self.recipients: list[str]
        self.due: bool
        self.filing: tuple[bytes, bytes]
        self.said, self.payload, self.settings, self.shown, self.recipients, self.due, filing, self._rest = (
            parts
        )
        self.filing = (filing[0], filing[1])

    def __repr__(self) -> str:
        return "Recalled()"

    def open(self, caller: Caller, plan: Plan, held: Held, row: BlockRow) -> Opened:
        """The block, opened with what stands, where it was left."""
        epoch, head, version, digest = _cbor.own(self._rest)
        known = Head.__new__(Head)
        known.__dict__.update(zip(_HEAD, head, strict=True), settings=self.settings)
        opened = Opened(caller, plan, held, row, EpochKeys(*epoch))
        opened.know(known)
        opened.verified = self.payload, Version.of(version), digest
        plan.filing[held.key] = self.filing
        return opened

    def is_under(self, epoch: int, head: Head) -> bool:
        """Whether it was kept under this epoch and this policy."""
        known, said, *_ = _cbor.own(self._rest)
        return bool(known[0] == epoch and said[_HEAD.index("digest")] == head.digest)

    def granted(self, plan: Plan) -> list[str] | None:
        """Whom the live grants are to, in order; None if they are others by now."""
        kept = self.kept
        return self.recipients if kept.untouched(plan) or kept.granted(plan) else None


class Recall:
    """What is kept, by the blinded address on a principal's shelf. Safe to use from several threads."""

    def __init__(self, limit: int = BLOCKS) -> None:
        self._kept: Recent[Any, Any] = Recent(limit)  # blocks by place, cells by mark
        self.at: Callable[[tuple[bytes, bytes, bool]], Kept | None] = self._kept.get
        """What is kept at a place: a shelf, a locator, and whether the keys act."""
        self._salt, self._numbers = crypto.random_bytes(), count()

    def __repr__(self) -> str:
        return f"Recall({self._kept!r})"

    def find(self, keys: Keys, row: Row) -> Held | None:
        """What is on a shelf in this row, with all that is kept of it, if it was opened before by these keys."""
        kept = self.kept(keys, row)
        if kept is None:
            return None
        parts = _cbor.own(self.under(keys).open(kept.number, kept.context, kept.sealed))
        held = Held.__new__(Held)
        held.__dict__.update(
            zip(_HELD, parts[0], strict=True),
            via=(),
            origin=(keys, row),
            recalled=Recalled(kept, parts),
        )
        return held

    def under(self, keys: Keys) -> crypto.Shelter:
        """What opens all that is kept for whoever has these keys, which hold it for as long as they are there."""
        made = keys.shelter
        if made is None or made[0] is not self._salt:
            made = keys.shelter = self._salt, crypto.Shelter(keys.recall, self._salt)
        return made[1]

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
        keys, shelved = origin
        said = list(_held(held))
        if plan.get(SHELF, *shelved[1:3]) != shelved or not _as_shelved(held, said):
            return  # this plan has another key for it: what comes of that, the next one sees
        wanted: list[tuple[Table, tuple[Any, ...]]] = [
            (GRANT_WRAP, (row.storage, held.grant)),
            (BLOCK, (row.storage,)),
            (EPOCH, (row.storage, row.epoch)),
            (CHAIN, (row.storage, row.policy)),
            (VERSION, (row.storage, row.version)),
        ]
        if held.leaf:
            wanted.append((LEDGER, (row.storage, held.grant)))
        (payload, version, digest), epoch, genesis = verified, opened.keys, opened.genesis()
        due = head.due or bool(row.flags & FLAG_ROTATE)
        rest = [
            [epoch.number, epoch.dek, epoch.history, epoch.chain], _head(head), version.__dict__, digest,
        ]  # fmt: skip
        shown = [
            version.number, version.time, version.writer, version.under, head.owner, genesis.owner, genesis.mutable,
            genesis.append_only, rights_of(held),
        ]  # fmt: skip
        whole = _cbor.own_bytes([
            said, payload, settings, shown, recipients(opened),
            due, plan.filing.get(held.key) or grant_keys(held.key), _cbor.own_bytes(rest),
        ])  # fmt: skip
        if len(whole) > LARGEST:
            return
        known = held.recalled.kept if held.recalled is not None else None
        same = known is not None and known.shelved == shelved
        context = known.context if known is not None and same else crypto.pae("recall", *shelved[1:3])
        number = self.number()
        sealed = self.under(keys).seal(number, context, whole)
        rows = tuple(((table.name, (WS, *key)), table, plan.get(table, *key)) for table, key in wanted)
        wrap = Expect(GRANT_WRAP, rows[0][0][1], rows[0][2])
        kept = Kept(shelved, rows, ledger, context, number, sealed, wrap, row.shred)
        self._kept.put((shelved[1], shelved[2], keys.can_act), kept, _weight(kept))

    def keep_form(self, keys: Keys, kept: Kept, form: KeptForm) -> None:
        """Note what a reader was shown of a kept block."""
        place = (kept.shelved[1], kept.shelved[2], keys.can_act)
        kept.form = form
        if self._kept.get(place) is kept:
            self._kept.put(place, kept, _weight(kept))

    def keep_for(self, holder: Caller, held: Held, known: Recalled, opened: Opened) -> None:
        """Note an opened block, whose newest version this plan has written and checked, for another one who holds it as
        well, as `known` says, which held when the plan began. Not if its keys or its policy have changed: what that
        means for the holder is asked when it comes."""
        assert opened.verified is not None  # `add_version` has noted it
        if known.is_under(opened.keys.number, opened.head):
            self.keep(known.open(holder, opened.plan, held, opened.row), opened.verified)

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


def _as_shelved(held: Held, said: list[Any]) -> bool:
    """Whether a `Held` says what its shelf row said: whoever changes keys goes on with a changed one."""
    assert held.origin is not None
    keys, row = held.origin
    if held.recalled is not None and held.recalled.kept.shelved == row:
        return held.recalled.said == said
    return unshelve(keys, row[1], row[2], row[3], row[4], row[5]) == held


def _weight(kept: Kept) -> int:
    """Bytes: also of rows that the store keeps as well, and shares with this."""
    rows = [kept.shelved, *(row for _, _, row in kept.rows if row is not None), *kept.ledger]
    weight = _OVERHEAD + len(kept.sealed) + sum(map(weight_of, rows))
    if kept.form is not None:
        weight += _FORM + len(kept.form.sealed)
        weight += sum(_OTHER + weight_of(key) + weight_of(row or ()) for (_, key), _, row in kept.form.others)
    return weight


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
