"""A new epoch of a block: new keys, wrapped or sent to everybody who keeps access (design §6).

Who holds the admin key opens every K_grant and wraps the new epoch under each. Anybody else who may write knows no
K_grant but its own: it makes new ones and sends them in capsules. Changing the admin key changes every K_grant that it
opened.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from tallystone import crypto
from tallystone.errors import Locked, Tampered
from tallystone.statements import SHARE, Leaf
from tallystone.store.protocol import Row
from tallystone.store.tables import CALENDAR, EPOCH, GRANT_WRAP, INBOX, LEDGER, VERSION
from tallystone.vault.block_row import FLAG_ROTATE
from tallystone.vault.capsules import Parcel, pack
from tallystone.vault.granting import PROOF_LIMIT, watched
from tallystone.vault.ledger import (
    Entry,
    Ledger,
    Roster,
    admin_public,
    end_secret,
    hand_secret,
    leaf_salt,
    owner_info,
    renew_secret,
    renewed,
    seal_public,
    seal_roster,
)
from tallystone.vault.opening import Opened
from tallystone.vault.passages import keys_of
from tallystone.vault.records import (
    ACCEPTED,
    EpochKeys,
    EpochWraps,
    epoch_row,
    new_epoch,
    unwrap_content_key,
    wrap_content_key,
)
from tallystone.vault.shelves import AGENTS, BLOCKS, ROLES, SELF, find, marked
from tallystone.vault.writing import put_on_shelf

TELL_EVERY = 64
"""Grants between two reports of how far a change of keys is."""


def remove_rows(opened: Opened, leaf: Leaf) -> None:
    """Queue the end of one grant's rows. The ledger keeps its key: events that were filed under it stay readable."""
    plan, storage, number = opened.plan, opened.row.storage, leaf.grant
    row = plan.get(LEDGER, storage, number)
    if row is None:
        raise Tampered("a grant's row is not there")
    capsule = opened.roster(row).capsule
    if capsule:
        plan.delete(INBOX, leaf.recipient, capsule)
    if leaf.until is not None:
        plan.delete(CALENDAR, leaf.until, storage, number)
    plan.delete(GRANT_WRAP, storage, number)
    plan.put(LEDGER, storage, number, b"", *row[4:])


def pending() -> Locked:
    """What a writer hears who may not, or cannot, change the keys that must change first."""
    return Locked(
        "somebody's access ended and the keys must change first",
        hint="its owner's next write does that; try again after it",
        code="rotation_pending",
    )


def stale(opened: Opened, leaf: Leaf) -> bool:
    """Whether the role that a grant is to has another root by now."""
    if not leaf.recipient.startswith("role-"):
        return False
    return opened.caller.identity(opened.plan, leaf.recipient).digest != leaf.record


@dataclass
class Rotation:
    """A new epoch in the making: rows queued as it goes, and what the statement must then say."""

    opened: Opened
    turn: bool
    renewed: dict[int, Leaf] = field(default_factory=dict)
    dropped: set[int] = field(default_factory=set)
    leaves: list[Leaf] = field(default_factory=list)
    parcels: list[Parcel] = field(default_factory=list)
    seat: int | None = None
    """The owner's place after a transfer; else it stays."""
    adopted: int = 0
    """The place of the new owner's former grant: what was given through it is the owner's now."""
    public: bytes = b""
    """The public half of a new admin key, if there is one."""

    def __post_init__(self) -> None:
        opened = self.opened
        self.known = bool(opened.held.admin)  # whether the caller can open the other grants' keys
        self.old = Ledger(opened.held.admin, opened.id) if self.known else None
        self._entries: dict[tuple[int, bytes], Entry | None] = {}
        self.live = {0, self.adopted, *opened.ledger()}
        # A holder who was erased has taken its wrap along; what it was given ends with the next change of keys.
        self.wrapped = {int(wrap[2]) for wrap in opened.plan.rows(GRANT_WRAP, opened.row.storage)}

    def run(self) -> None:
        """Queue everything but the statement."""
        opened = self.opened
        before, row = opened.keys, opened.row
        if not self.known and len(opened.ledger()) > PROOF_LIMIT:
            raise pending()
        self.keys = new_epoch(before.number + 1)
        self.wraps = EpochWraps(opened.id, self.keys, opened.nest_for(self.keys.number))
        _move_newest(opened, self.keys)
        opened.plan.put(EPOCH, row.storage, *epoch_row(self.keys, before))
        self.admin = crypto.random_bytes() if self.turn else opened.held.admin
        self.new = Ledger(self.admin, opened.id) if self.known else None
        # Read before its row is written under keys that this plan has not entered yet.
        self.half = b"" if opened.held.own_leaf is None and not self.turn else opened.admin_public
        ledger, progress = opened.ledger(), opened.caller.progress
        self._wrap_owner()
        for done, (number, (entry, _)) in enumerate(ledger.items()):
            if progress is not None and not done % TELL_EVERY:
                progress(done, len(ledger))
            self._wrap_grant(number, entry)
        if progress is not None and ledger:
            progress(len(ledger), len(ledger))
        if self.turn:
            self._keep_ended()
            self.public = admin_public(self.admin)
            opened.held = replace(opened.held, admin=self.admin)
        opened.enter(self.keys)
        opened.row = row.changed(epoch=self.keys.number, flags=row.flags & ~FLAG_ROTATE)
        opened.row.write(opened.plan)

    def _wrap(self, number: int, key: bytes, *, history: bool) -> None:
        opened = self.opened
        wrap = self.wraps.under(key, history=history)
        opened.plan.put(GRANT_WRAP, opened.row.storage, number, self.keys.number, wrap)

    # -- the owner ----------------------------------------------------------------------------------------------

    def _wrap_owner(self) -> None:
        opened, plan = self.opened, self.opened.plan
        held, storage = opened.held, opened.row.storage
        seat = opened.head.seat if self.seat is None else self.seat
        row = plan.get(LEDGER, storage, seat)
        # A key that somebody without the admin key has put here is known to them, and serves until it can be replaced.
        foreign = row is not None and renewed(bytes(row[6]))
        if held.own_leaf is None and not self.turn and not foreign:
            self._wrap(seat, held.key, history=True)
            return
        if held.own_leaf is None:  # whoever shared knew this key too
            key, entry = crypto.random_bytes(), self.entry(row) if row is not None else None
            retired = (*entry.retired, entry.key) if entry is not None else ()
            opened.held = replace(held, key=key, admin=self.admin)
            _reshelve(opened)
            secret = Ledger(self.admin, opened.id).seal(seat, key, history=True, watch=False, retired=retired)
        elif row is None:
            raise pending()  # from before owners left their key for others; their next write does
        elif self.old is not None and not self.turn and not foreign:
            self._wrap(seat, self.old.open(seat, bytes(row[6])).key, history=True)
            return
        else:
            key = crypto.random_bytes()
            secret = (
                self._hand_over(seat, key, self.entry(row))
                if self.turn
                else renew_secret(self.half, opened.id, seat, key, bytes(row[6]))
            )
        self._wrap(seat, key, history=True)
        public = self.half if held.own_leaf is not None and not self.turn else admin_public(self.admin)
        roster = seal_public(self.keys.chain, opened.id, public)
        plan.put(LEDGER, storage, seat, b"", self.keys.number, roster, secret, None)

    def _hand_over(self, seat: int, key: bytes, entry: Entry | None) -> bytes:
        """The owner's row under an admin key that a sharer has made, with its way to the owner. Not by the key before:
        whoever has been revoked knows that one."""
        opened = self.opened
        retired = (*entry.retired, entry.key) if entry is not None else ()
        kept = Ledger(self.admin, opened.id).seal(seat, key, history=True, watch=False, retired=retired)
        # held to be the current record, as for grants
        owner = opened.caller.current(opened.plan, opened.head.owner)
        info = owner_info(opened.caller.workspace.id, owner.digest, opened.id, seat)
        return hand_secret(owner.record.kem, info, self.admin, kept)

    # -- grants -------------------------------------------------------------------------------------------------

    def _wrap_grant(self, number: int, row: Row) -> None:
        entry = self.entry(row)
        plain = not self.turn and number in self.wrapped
        if plain and entry is not None and entry.marks is not None and not entry.marks[1]:
            # The place and the marks are sealed beside the key: nothing else of a plain grant need be opened.
            self._wrap(number, entry.key, history=entry.marks[0])
            if self.opened.held.own_leaf is not None:
                self.leaves.append(self.opened.roster(row).leaf)
            return
        roster = self.opened.roster(row)
        leaf = roster.leaf
        self.leaves.append(leaf)
        if entry is not None and not crypto.equal(leaf.salt, leaf_salt(entry.key)):
            # The policy names the leaf, the leaf fixes the key: nobody gets the new epoch by a swapped ledger entry.
            raise Tampered("a grant's key is not the one that its policy names")
        if self.over(leaf):
            self._drop(leaf, row, entry)
        elif entry is None or self.turn or renewed(bytes(row[6])) or stale(self.opened, leaf):
            # The caller's own as well: whoever changed the keys before knows it.
            self._renew(leaf, roster, row)
        else:
            self._wrap(number, entry.key, history=leaf.history)
            self._keep(leaf, row, entry.key, entry.retired)

    def entry(self, row: Row) -> Entry | None:
        """What a row of the ledger says to who holds the admin key. A damaged one says nothing: its grant gets a new
        key, like one whose key is not known, and only the keys of older events are lost."""
        number, secret = int(row[2]), bytes(row[6])
        mark = (number, secret)
        if self.old is not None and mark not in self._entries:
            try:
                self._entries[mark] = self.old.open(number, secret)
            except Tampered:
                self._entries[mark] = None
        return self._entries.get(mark)

    def over(self, leaf: Leaf) -> bool:
        """Whether a grant that the policy still counts has ended: it gets no new key."""
        caller = self.opened.caller
        if leaf.until is not None and leaf.until < caller.workspace.today():
            return True
        if leaf.parent not in self.live:
            return True  # somebody ended the grant it came through, and left this one out
        asked = leaf.recipient.startswith("role-") or leaf.grant not in self.wrapped
        return asked and caller.identity(self.opened.plan, leaf.recipient).record.status == "deleted"

    def _drop(self, leaf: Leaf, row: Row, entry: Entry | None) -> None:
        """A grant that has ended gets no new key. The owner's statement leaves it out as well; until then its row
        stays, under whatever admin key is the block's."""
        if self.opened.held.own_leaf is None:
            remove_rows(self.opened, leaf)
            self.dropped.add(leaf.grant)
            self.live.discard(leaf.grant)
        else:
            self.opened.plan.delete(GRANT_WRAP, self.opened.row.storage, leaf.grant)
            if self.turn and self.new is not None:
                # Of a damaged entry nothing is left to keep but that its holder does not know this admin key.
                secret = self._sealed(leaf, entry.key, entry.retired) if entry is not None else b""
                ended = *row[3:6], end_secret(secret), leaf.until
                self.opened.plan.put(LEDGER, self.opened.row.storage, leaf.grant, *ended)

    def _keep(self, leaf: Leaf, row: Row, key: bytes, retired: tuple[bytes, ...]) -> None:
        if self.new is not None:
            secret = self._sealed(leaf, key, retired)
            self.opened.plan.put(LEDGER, self.opened.row.storage, leaf.grant, *row[3:6], secret, leaf.until)

    def _sealed(self, leaf: Leaf, key: bytes, retired: tuple[bytes, ...]) -> bytes:
        assert self.new is not None  # callers ask
        return self.new.seal(leaf.grant, key, history=leaf.history, watch=watched(leaf), retired=retired)

    def _keep_ended(self) -> None:
        """The keys of grants that have ended, under the new admin key: what was done with them stays readable."""
        plan, storage = self.opened.plan, self.opened.row.storage
        seat = self.opened.head.seat if self.seat is None else self.seat
        for row in plan.rows(LEDGER, storage):
            entry = self.entry(row) if not row[3] and row[2] != seat else None
            if entry is not None and self.new is not None:
                number = int(row[2])
                secret = self.new.seal(number, entry.key, history=False, watch=False, retired=entry.retired)
                plan.put(LEDGER, storage, number, *row[3:6], secret, row[7])

    def _renew(self, leaf: Leaf, roster: Roster, row: Row) -> None:
        """Queue a new key for a grant, and its way to the one who holds it."""
        opened, plan = self.opened, self.opened.plan
        # held to be the current record: nothing is sealed to a key that its holder has just given up
        recipient, key = opened.caller.current(plan, leaf.recipient), crypto.random_bytes()
        parent = 0 if leaf.parent == self.adopted else leaf.parent
        fresh = replace(leaf, record=recipient.digest, salt=leaf_salt(key), parent=parent)
        self.renewed[leaf.grant] = fresh
        if roster.capsule and (self.known or not leaf.rights & SHARE):
            # One that may bring a sharer the admin key stays beside the new one, which cannot.
            plan.delete(INBOX, leaf.recipient, roster.capsule)
        capsule = self._deliver(fresh, key)
        if self.old is not None and self.new is not None:
            entry = self.entry(row)
            secret = self._sealed(leaf, key, (*entry.retired, entry.key) if entry is not None else ())
        else:
            secret = renew_secret(self.half, opened.id, leaf.grant, key, bytes(row[6]))
        sealed = seal_roster(self.keys.chain, opened.id, Roster(fresh, capsule))
        plan.put(
            LEDGER, opened.row.storage, leaf.grant, fresh.digest, self.keys.number, sealed, secret, leaf.until
        )
        self._wrap(leaf.grant, key, history=leaf.history)

    def _deliver(self, leaf: Leaf, key: bytes) -> bytes:
        """Put the new key where its holder finds it; returns the capsule's id if it goes by one."""
        opened, caller = self.opened, self.opened.caller
        admin = self.admin if leaf.rights & SHARE else b""
        if leaf.recipient == caller.id and leaf.grant == opened.held.grant and not opened.held.via:
            opened.held = replace(opened.held, key=key, leaf=leaf.encode(), admin=admin or opened.held.admin)
            _reshelve(opened)
            return b""
        keys = keys_of(caller, opened.plan, leaf.recipient)
        if keys is not None and (keys.can_act or not admin):
            shelf, name = _place_of(opened, SELF)
            there = find(opened.plan, keys, shelf, name)
            if there is not None and (there.storage, there.grant) == (opened.held.storage, leaf.grant):
                there = replace(there, grant=leaf.grant, key=key, leaf=leaf.encode(), owner=opened.held.owner)
                if opened.held.since:  # it has changed hands: the row says to whom, and by which statement
                    there = replace(there, extra={**(there.extra or {}), "since": opened.held.since})
                if admin:
                    there = replace(there, admin=admin)
                if self.turn or not there.admin:
                    there = marked(there, None)
                put_on_shelf(opened.plan, keys, shelf, name, there)
                if opened.held.via and opened.held.leaf and opened.held.grant == leaf.grant:
                    opened.held = replace(opened.held, key=key, leaf=leaf.encode())
                return b""
        recipient = caller.identity(opened.plan, leaf.recipient)
        secrets = {"admin": admin}
        if opened.held.kind == "role":
            secrets["role_act"] = opened.held.root_act
        parcel = pack(caller, leaf, key, recipient, secrets)
        self.parcels.append(parcel)
        return parcel.capsule


def _reshelve(opened: Opened) -> None:
    """Queue the caller's own shelf row of this block as it holds it now."""
    shelf, name = _place_of(opened, AGENTS)
    there = find(opened.plan, opened.caller.keys, shelf, name)
    if there is None:
        raise Tampered("a block is not where it was found")
    state = ACCEPTED if opened.held.own_leaf is None else there.state
    held = replace(opened.held, position=there.position, state=state)
    put_on_shelf(opened.plan, opened.caller.keys, shelf, name, held)


def _place_of(opened: Opened, agents: str) -> tuple[str, str]:
    """On which shelf, under which name the block lies; an agent's own is on `agents`."""
    shelf = {"role": ROLES, "agent": agents}.get(opened.held.kind, BLOCKS)
    return shelf, opened.id if shelf == BLOCKS else opened.held.subject


def _move_newest(opened: Opened, keys: EpochKeys) -> None:
    """Queue the newest content key under the new epoch: ciphertext and signature stay as they are."""
    plan, row = opened.plan, opened.row
    newest = plan.get(VERSION, row.storage, row.version)
    if newest is None:  # a block has a version from its first transaction on
        raise Tampered("a block's newest version is not there")
    content_key = unwrap_content_key(opened.dek(int(newest[3])), opened.id, row.version, bytes(newest[4]))
    wrap = wrap_content_key(keys.dek, opened.id, row.version, content_key)
    plan.put(VERSION, row.storage, row.version, keys.number, wrap, newest[5])
