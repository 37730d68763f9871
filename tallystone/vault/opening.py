"""From a shelf row to verified content: the read path.

What is checked, in this order: the wrap is there (else the grant is gone); the epoch's keys open; the latest policy
statement is by somebody who was allowed; the newest version cites a policy that is the block's, was not superseded,
and gave its writer the right. Signatures are remembered by hash, so a second read pays no public-key operation.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from tallystone import _cbor, crypto, policy
from tallystone.errors import Conflict, NotFound, Tampered
from tallystone.grant_tree import grant_proof, grants_root
from tallystone.keystore import Identity
from tallystone.policy import Head, Standing, Via
from tallystone.statements import Genesis, Leaf, Link, Membership, Signed, Version, identifier
from tallystone.store.protocol import Row
from tallystone.store.tables import BLOCK, CHAIN, EPOCH, LEDGER, VERSION
from tallystone.vault.block_row import BlockRow
from tallystone.vault.caller import Caller
from tallystone.vault.fixed import check_content
from tallystone.vault.ledger import Roster, admin_public, open_public, open_roster
from tallystone.vault.plan import WS, Plan
from tallystone.vault.records import (
    Content,
    EpochKeys,
    Held,
    open_payload,
    open_statement,
    open_version,
    previous_chain_key,
    previous_epoch,
)
from tallystone.vault.tombstones import check_erased


def records_until(role: Identity, record: bytes) -> frozenset[bytes]:
    """The hashes of a role's records from the first to this one."""
    last = role.records[record].serial
    return frozenset(digest for digest, one in role.records.items() if one.serial <= last)


def missing(what: str, identity: str) -> NotFound:
    """The one miss: for what never existed and for what is somebody else's."""
    return NotFound(
        f"{what} {identity} not found", hint="check the id; you see only what is yours or shared with you"
    )


def nest_of(caller: Caller, block: str, row: BlockRow, epoch: int) -> bytes | None:
    """What the wraps of an epoch are nested in (32 bytes); None for a block that does not expire and is from before
    there were shred keys. Raises the uniform miss when its day is over, or a key that it needs is gone, and `Conflict`
    if the block has another key by now: an erased version took the old one along."""
    if row.day is None and row.shred is None:
        return None
    nest = caller.workspace.nest(block, row.day, row.shred, epoch)
    if nest is None:
        with caller.workspace.store.snapshot() as now:
            found = now.get(BLOCK, (WS, row.storage))
        if found is not None and BlockRow.of(found).shred != row.shred:
            raise Conflict("the block's keys have changed meanwhile", hint="try again")
        raise missing("Block", block)
    return nest


class Opened:
    """A block with the keys of its current epoch, ready to be read or changed. Lives within one plan."""

    def __init__(self, caller: Caller, plan: Plan, held: Held, row: BlockRow, keys: EpochKeys) -> None:
        self.caller = caller
        self.plan = plan
        self.held = held
        self.row = row
        self.keys = keys
        self._trusted = caller.workspace.trusted
        self._chain = {keys.number: keys.chain}
        self._heads: dict[int, Head] = {}
        self._genesis: Genesis | None = None
        self._ledger: tuple[int, dict[int, tuple[Row, bytes]]] | None = None  # at which step of the plan
        self.verified: tuple[dict[str, Any], Version, bytes] | None = None

    @property
    def id(self) -> str:
        """The block's id."""
        return self.held.block

    def enter(self, keys: EpochKeys) -> None:
        """Go on under the keys of a new epoch; the keys of the earlier ones stay known to this plan."""
        self.keys = keys
        self._chain[keys.number] = keys.chain

    def nest_for(self, epoch: int) -> bytes | None:
        """What the wraps of an epoch of this block are nested in: see `nest_of`."""
        return nest_of(self.caller, self.id, self.row, epoch)

    # -- policy -------------------------------------------------------------------------------------------------

    def chain_key(self, epoch: int) -> bytes:
        """The chain key of this or an earlier epoch."""
        if epoch not in self._chain:
            known = min((number for number in self._chain if number > epoch), default=0)
            if not known:
                raise Tampered("a row cites an epoch that is not there")
            key = self._chain[known]
            rows = self.plan.rows(EPOCH, self.held.storage, after=epoch)
            for row in reversed([r for r in rows if int(r[2]) <= known]):
                key = self.plan.once(previous_chain_key, key, bytes(row[4] or b""))
                self._chain[int(row[2]) - 1] = key
            if epoch not in self._chain:
                raise Tampered("a block's epochs have a gap")
        return self._chain[epoch]

    def statement(self, number: int) -> Signed:
        """The policy statement at this place of the chain."""
        row = self.plan.get(CHAIN, self.held.storage, number)
        if row is None:
            raise Tampered("a block's policy chain has a gap")
        key = self.chain_key(int(row[3]))
        signed: Signed = self.plan.once(open_statement, key, self.id, number, bytes(row[4]))
        return signed

    def know(self, head: Head) -> None:
        """Take note of a head that this plan itself has just made."""
        self._heads[head.number] = head
        self.plan.note(self.id, head.settings)

    @property
    def head(self) -> Head:
        """What holds now."""
        known = self._heads.get(self.row.policy)
        return self.head_at(self.row.policy) if known is None else known

    def head_at(self, number: int) -> Head:
        """What held after the statement at `number`, verified. A statement of the owner's stands for itself; for others
        the walk goes back to the last that does, or to the genesis, and each step is remembered by hash."""
        if number in self._heads:
            return self._heads[number]
        pending: list[tuple[Signed, Link]] = []
        place = number
        while True:
            signed = self.statement(place)
            if place == 0:
                head = self._begin(signed)
                break
            link: Link = self.plan.once(Link.decode, signed.body)
            if link.number != place:
                raise Tampered("a policy statement stands at another's place")
            self._check_signature(signed, link.issuer, link.issuer_record)
            own = policy.by_owner(self.id, self.held.owner, signed.type, link, signed.digest)
            if own is not None and place > self.held.since:
                head = own
                break
            if self._mark(signed, place) in self._trusted:
                head = policy.snapshot(link, signed.digest)
                break
            pending.append((signed, link))
            place -= 1
        for signed, link in reversed(pending):
            alone = link.issuer == head.owner or signed.type == "transfer"
            standing = None if alone else self._standing_of(link)
            head = policy.follow(
                head, signed.type, link, signed.digest, 0, standing, partial(self.caller.party, self.plan)
            )
            self.caller.workspace.trust(self._mark(signed, link.number))
        # A shelf row may name a transfer that is in the chain, never one to come: it would not be asked for its owner.
        asked = number >= self.held.since or number == self.row.policy
        if asked and (head.owner != self.held.owner or number < self.held.since):
            raise Tampered("a block belongs to another owner than its shelf row says")
        policy.check_settings(head.settings)
        self._heads[number] = head
        return head

    def _mark(self, signed: Signed, place: int) -> bytes:
        # With whom the walk is anchored in: who believes in another owner (a forged shelf row) vouches for nothing.
        anchor = self.held.owner if place > self.held.since else ""
        return crypto.sha256(crypto.pae("link", self.id, anchor, signed.digest))

    def _standing_of(self, link: Link) -> Standing:
        """How the issuer of a link, who is not the owner, says it comes to the block."""
        leaf, proof = link.authority.get("leaf"), link.authority.get("proof")
        if not isinstance(leaf, bytes) or not isinstance(proof, list):
            raise Tampered("a policy statement lacks its proof")
        via = link.authority.get("via", [])
        return Standing(link.issuer, Leaf.decode(leaf), tuple(proof), self.steps(via))

    def steps(self, via: Any) -> tuple[Via, ...]:
        """The roles that a stored proof leads through, each head verified to be its role's owner's word."""
        if not isinstance(via, (list, tuple)) or len(via) > policy.ROLE_DEPTH:
            raise Tampered("a proof of membership is malformed")
        return tuple(self._step(one) for one in via)

    def _step(self, stored: Any) -> Via:
        if not isinstance(stored, list) or not _cbor.fits(stored, (bytes, (bytes, type(None)), list)):
            raise Tampered("a proof of membership is malformed")
        signed, leaf, proof = Signed.decode(stored[0]), stored[1], stored[2]
        if signed.type != "membership":
            raise Tampered("a proof of membership is malformed")
        head = Membership.decode(signed.body)
        role = self.caller.identity(self.plan, head.role)
        if role.record.kind != "role" or role.record.sponsor != head.owner or head.record not in role.records:
            raise Tampered("the head of a role's members is not by the role's owner")
        self._check_signature(signed, head.owner, head.owner_record)
        records = records_until(role, head.record)
        return Via(head, Leaf.decode(leaf) if leaf is not None else None, tuple(proof), records)

    def _begin(self, signed: Signed) -> Head:
        return policy.begin(self.id, signed.digest, self._founded(signed))

    def _founded(self, signed: Signed) -> Genesis:
        """The genesis in a statement, verified."""
        genesis: Genesis = self.plan.once(Genesis.decode, signed.body)
        if signed.type != "genesis" or identifier("block", signed.digest) != self.id:
            raise Tampered("a block's genesis does not make its id")
        if genesis.owner != self.held.owner and not self.held.since:
            raise Tampered("a block's genesis names another owner")
        self._check_signature(signed, genesis.owner, genesis.owner_record)
        return genesis

    def begin(self, signed: Signed) -> None:
        """Take note of the genesis that this plan itself has just made, asked as every reader asks."""
        genesis = self._founded(signed)
        policy.check_settings(genesis.settings)
        self.caller.workspace.remember(self.id, genesis)
        self.know(policy.begin(self.id, signed.digest, genesis))

    def _check_signature(self, signed: Signed, principal: str, record: bytes) -> None:
        if not self.caller.identity(self.plan, principal).signed(signed, self.caller.workspace.id, record):
            raise Tampered("a statement is not signed by the one it names")

    def genesis(self) -> Genesis:
        """The block's first statement, verified. It never changes, and the block's id is its hash: one look will do."""
        known = self._genesis or self.caller.workspace.geneses.get(self.id)
        if known is None:
            known = self._founded(self.statement(0))
            self.caller.workspace.remember(self.id, known)
        self._genesis = known
        if known.owner != self.held.owner and not self.held.since:
            raise Tampered("a block's genesis names another owner")
        return known

    # -- content ------------------------------------------------------------------------------------------------

    def dek(self, epoch: int) -> bytes:
        """The DEK of this epoch or, with history, of an earlier one."""
        dek, history = self.keys.dek, self.keys.history
        for number in range(self.keys.number, epoch, -1):
            row = self.plan.get(EPOCH, self.held.storage, number)
            if history is None or row is None or row[5] is None:
                raise missing("version of", self.id)
            dek, history = self.plan.once(previous_epoch, history, bytes(row[5]))
        return dek

    def stored(self, number: int) -> tuple[Content, Version]:
        """The version at this place, as it lies there: whether its writer was allowed to is not asked."""
        self.plan.note(self.id, self.head.settings)
        look = self.plan.get if number == self.row.version else self.plan.peek
        row = look(VERSION, self.held.storage, number)
        if row is None:
            raise Tampered("a block's version is not there")
        parts = self.dek(int(row[3])), self.id, number, bytes(row[4]), bytes(row[5])
        newest = number == self.row.version
        content, version = self.plan.once(open_version, *parts) if newest else open_version(*parts)
        if content.signed.type != "version" or version.block != self.id or version.number != number:
            raise Tampered("a version stands at another's place")
        if content.erased:
            check_erased(self, content, number)
        elif not crypto.equal(version.payload, crypto.sha256(content.payload)):
            raise Tampered("a version's content is not what was signed")
        return content, version

    def content(self, number: int | None = None) -> tuple[Content, Version]:
        """The newest version, verified with its writer's right."""
        number = self.row.version if number is None else number
        content, version = self.stored(number)
        if content.erased:
            raise Tampered("a block's newest version is not there")  # only earlier ones are erased
        self._check_signature(content.signed, version.writer, version.writer_record)
        if version.under and not self.caller.identity(self.plan, version.under).signed(
            content.signed, self.caller.workspace.id
        ):
            raise Tampered("a version is not signed by the user it was written under")
        standing = Standing(version.writer, content.leaf, content.proof, self.steps(content.via))
        if number == self.row.version and number < self.head.version:
            raise Tampered("a block's newest version is older than its policy")
        cited = self.head_at(version.policy)
        ended = self.head_at(version.policy + 1) if version.policy < self.head.number else None
        policy.check_version(cited, self.head, version, content.signed.digest, standing, ended)
        self._check_serials(content, version, standing.via)
        check_content(self, content, version)
        return content, version

    def _check_serials(self, content: Content, version: Version, via: tuple[Via, ...]) -> None:
        """Rule 7, against the version before; remembered by hash. A grant without history cannot tell."""
        mark = crypto.sha256(crypto.pae("heads", self.id, content.signed.digest))
        if mark in self._trusted:
            return
        try:
            before = self.stored(version.number - 1)[1] if version.number > 1 else None
        except NotFound:
            return
        policy.check_serials(before, version, via)
        self.caller.workspace.trust(mark)

    def payload(self) -> tuple[dict[str, Any], Version, bytes]:
        """The newest content as a map, its version statement and that statement's digest."""
        if self.verified is None or self.verified[1].number != self.row.version:
            content, version = self.content()
            self.verified = open_payload(self.held.kind, content.payload), version, content.signed.digest
        return self.verified

    @property
    def admin_public(self) -> bytes:
        """The public half (1216 bytes) of the admin key: from the key itself, from the owner's row of the ledger, or as
        it came with the grant."""
        if self.held.admin:
            return admin_public(self.held.admin)
        row = self.plan.get(LEDGER, self.held.storage, self.head.seat)
        public = self.held.admin_public
        if row is not None and row[5]:
            public = open_public(self.chain_key(int(row[4])), self.id, bytes(row[5]))
        if crypto.sha256(public) != self.head.admin:
            raise Tampered("a block's admin key is not the one that its policy names")
        return public

    # -- grants -------------------------------------------------------------------------------------------------

    def ledger(self) -> Mapping[int, tuple[Row, bytes]]:
        """{grant number: (row, leaf digest)} of the live grants, as this plan would leave them."""
        plan = self.plan
        if self._ledger is None or self._ledger[0] != plan.steps:
            rows = plan.rows(LEDGER, self.held.storage)
            self._ledger = plan.steps, {int(row[2]): (row, bytes(row[3])) for row in rows if row[3]}
        return self._ledger[1]

    def leaves(self) -> dict[int, bytes]:
        """{grant number: leaf digest}, checked against the root in the latest policy statement."""
        leaves = {number: digest for number, (_, digest) in self.ledger().items()}
        root = self.head.grants
        mark = _grants_mark(leaves, root)
        if mark not in self._trusted:
            if not crypto.equal(grants_root(leaves), root):
                raise Tampered("a block's grants are not those that its policy names")
            self._trusted.add(mark)
        return leaves

    def know_root(self, leaves: Mapping[int, bytes], root: bytes) -> None:
        """Take note that this is the root over these leaves, as `grants_root` has just worked out."""
        self._trusted.add(_grants_mark(leaves, root))

    def know_roster(self, sealed: bytes, roster: Roster) -> None:
        """Take note of what this plan itself has just sealed for a ledger row."""
        self.plan.memo.setdefault("rosters", {})[self._roster_mark(sealed)] = roster

    def _roster_mark(self, sealed: bytes) -> str:
        return f"{self.id} {crypto.sha256(sealed).hex()}"

    def roster(self, row: Row) -> Roster:
        """Who a ledger row is about."""
        number, known = int(row[2]), self.plan.memo.setdefault("rosters", {})
        mark = self._roster_mark(bytes(row[5]))
        if mark not in known:
            known[mark] = open_roster(self.chain_key(int(row[4])), self.id, number, bytes(row[5]))
        roster: Roster = known[mark]
        if roster.leaf.grant != number:
            raise Tampered("a grant's entry stands at another's place")
        if row[3] and not crypto.equal(roster.leaf.digest, bytes(row[3])):
            raise Tampered("a grant's entry is not the one that its policy names")
        return roster

    def grants(self) -> list[Leaf]:
        """The live grants, all that the latest policy statement counts, and no other."""
        self.leaves()
        return [self.roster(row).leaf for row, _ in self.ledger().values()]

    def standing(self) -> Standing:
        """How the caller stands to the block, with the proof that a statement of its own carries."""
        return self.standing_in({} if self.held.own_leaf is None else self.leaves())

    def standing_in(self, leaves: Mapping[int, bytes]) -> Standing:
        """The same among these live grants, where a plan has changed some of them already."""
        leaf = self.held.own_leaf
        if leaf is None:
            return Standing(self.caller.id)
        proof = tuple(grant_proof(leaves, leaf.grant))
        return Standing(self.caller.id, leaf, proof, tuple(step.via() for step in self.held.via))

    def evidence(self) -> list[Any]:
        """The roles of `standing`, as a statement or a version stores them: the reverse of `steps`."""
        return [step.evidence() for step in self.held.via]


def _grants_mark(leaves: Mapping[int, bytes], root: bytes) -> bytes:
    return crypto.sha256(
        crypto.pae("grants", root, *[part for item in sorted(leaves.items()) for part in item])
    )
