"""From a shelf row to verified content: the read path.

What is checked, in this order: the wrap is there (else the grant is gone); the epoch's keys open; the latest policy
statement is by somebody who was allowed; the newest version cites a policy that is the block's, was not superseded,
and gave its writer the right. Signatures are remembered by hash, so a second read pays no public-key operation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tallystone import crypto, policy
from tallystone.errors import NotFound, Tampered
from tallystone.policy import Head, Standing
from tallystone.statements import (
    Deletion,
    Genesis,
    Leaf,
    Link,
    Signed,
    Version,
    grant_proof,
    grants_root,
    identifier,
)
from tallystone.store.protocol import Row
from tallystone.store.tables import BLOCK, CHAIN, EPOCH, GRANT_WRAP, LEDGER, VERSION
from tallystone.vault.caller import Caller
from tallystone.vault.plan import Plan
from tallystone.vault.records import (
    Content,
    EpochKeys,
    Held,
    Roster,
    open_chain_key,
    open_content,
    open_payload,
    open_roster,
    open_statement,
    previous_chain_key,
    previous_epoch,
    unwrap_content_key,
    unwrap_epoch,
)

FLAG_ROTATE = 1
"""Bit of a block's flags: it takes no new version before somebody rotates its keys."""


@dataclass(frozen=True)
class BlockRow:
    """The block's row, the point of order: every change compares and swaps it."""

    storage: bytes
    policy: int
    version: int
    epoch: int
    flags: int
    day: int | None
    shred: bytes | None

    @classmethod
    def of(cls, row: Row) -> BlockRow:
        """From the stored columns."""
        return cls(*row[1:])

    def write(self, plan: Plan) -> None:
        """Queue this row; the commit fails if anybody else changed it since this plan looked (design §8)."""
        plan.need(BLOCK, self.storage)
        plan.put(BLOCK, self.storage, self.policy, self.version, self.epoch, self.flags, self.day, self.shred)


def missing(what: str, identity: str) -> NotFound:
    """The one miss: for what never existed and for what is somebody else's."""
    return NotFound(
        f"{what} {identity} not found", hint="check the id; you see only what is yours or shared with you"
    )


class Opened:
    """A block with the keys of its current epoch, ready to be read or changed. Lives within one plan."""

    def __init__(self, caller: Caller, plan: Plan, held: Held, row: BlockRow, keys: EpochKeys) -> None:
        self.caller = caller
        self.plan = plan
        self.held = held
        self.row = row
        self.keys = keys
        self._chain = {keys.number: keys.chain}
        self._heads: dict[int, Head] = {}

    @property
    def id(self) -> str:
        """The block's id."""
        return self.held.block

    def enter(self, keys: EpochKeys) -> None:
        """Go on under the keys of a new epoch; the keys of the earlier ones stay known to this plan."""
        self.keys = keys
        self._chain[keys.number] = keys.chain

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
                key = previous_chain_key(key, bytes(row[4] or b""))
                self._chain[int(row[2]) - 1] = key
            if epoch not in self._chain:
                raise Tampered("a block's epochs have a gap")
        return self._chain[epoch]

    def statement(self, number: int) -> Signed:
        """The policy statement at this place of the chain."""
        row = self.plan.get(CHAIN, self.held.storage, number)
        if row is None:
            raise Tampered("a block's policy chain has a gap")
        return open_statement(self.chain_key(int(row[3])), self.id, number, bytes(row[4]))

    def know(self, head: Head) -> None:
        """Take note of a head that this plan itself has just made."""
        self._heads[head.number] = head

    @property
    def head(self) -> Head:
        """What holds now."""
        return self.head_at(self.row.policy)

    def head_at(self, number: int) -> Head:
        """What held after the statement at `number`, verified. An owner's statement stands for itself; for others
        the walk goes back to the last that does, and each step is remembered by hash."""
        if number in self._heads:
            return self._heads[number]
        pending: list[tuple[Signed, Link]] = []
        place = number
        while True:
            signed = self.statement(place)
            if place == 0:
                head = self._begin(signed)
                break
            link = Link.decode(signed.body)
            if link.number != place:
                raise Tampered("a policy statement stands at another's place")
            self._check_signature(signed, link.issuer, link.issuer_record)
            own = policy.by_owner(self.id, self.held.owner, signed.type, link, signed.digest)
            trusted = own or (
                policy.snapshot(link, signed.digest) if self._mark(signed) in self._trusted else None
            )
            if trusted is not None:
                head = trusted
                break
            pending.append((signed, link))
            place -= 1
        for signed, link in reversed(pending):
            head = policy.follow(head, signed.type, link, signed.digest, today=0)
            self._check_placement(signed.type, link)
            self._trusted.add(self._mark(signed))
        settings = [head.settings.get(name) for name in ("limit", "read_only", "locked")]
        if [type(one) for one in settings] != [int, bool, bool]:
            raise Tampered("a policy statement has malformed settings")
        self._heads[number] = head
        return head

    @property
    def _trusted(self) -> set[bytes]:
        return self.caller.workspace.trusted

    def _mark(self, signed: Signed) -> bytes:
        # With the owner: who believes in another owner (a forged shelf row) vouches for nothing here.
        return crypto.sha256(crypto.pae("link", self.id, self.held.owner, signed.digest))

    def _check_placement(self, kind: str, link: Link) -> None:
        """Rule 5: a grantee places the block with agents that it sponsors, under a record of theirs."""
        if kind != "grant" or link.issuer == link.owner:
            return
        leaf = Leaf.decode(link.change["leaf"])
        agent = self.caller.identity(self.plan, leaf.recipient)
        if agent.record.sponsor != link.issuer or leaf.record not in agent.signers:
            raise Tampered("a block was placed with somebody else's agent")

    def _begin(self, signed: Signed) -> Head:
        genesis = Genesis.decode(signed.body)
        if signed.type != "genesis" or identifier("block", signed.digest) != self.id:
            raise Tampered("a block's genesis does not make its id")
        if genesis.owner != self.held.owner:
            raise Tampered("a block's genesis names another owner")
        self._check_signature(signed, genesis.owner, genesis.owner_record)
        return policy.begin(self.id, signed.digest, genesis)

    def _check_signature(self, signed: Signed, principal: str, record: bytes) -> None:
        if not self.caller.identity(self.plan, principal).signed(signed, self.caller.workspace.id, record):
            raise Tampered("a statement is not signed by the one it names")

    def genesis(self) -> Genesis:
        """The block's first statement, verified."""
        signed = self.statement(0)
        self._begin(signed)
        return Genesis.decode(signed.body)

    # -- content ------------------------------------------------------------------------------------------------

    def dek(self, epoch: int) -> bytes:
        """The DEK of this epoch or, with history, of an earlier one."""
        dek, history = self.keys.dek, self.keys.history
        for number in range(self.keys.number, epoch, -1):
            row = self.plan.get(EPOCH, self.held.storage, number)
            if history is None or row is None or row[5] is None:
                raise missing("version of", self.id)
            dek, history = previous_epoch(history, bytes(row[5]))
        return dek

    def content(self, number: int | None = None) -> tuple[Content, Version]:
        """The newest version, verified with its writer's right."""
        number = self.row.version if number is None else number
        row = self.plan.get(VERSION, self.held.storage, number)
        if row is None:
            raise Tampered("a block's newest version is not there")
        epoch = int(row[3])
        content_key = unwrap_content_key(self.dek(epoch), self.id, number, bytes(row[4]))
        content = open_content(content_key, self.id, number, bytes(row[5]))
        version = Version.decode(content.signed.body)
        if content.signed.type != "version" or version.block != self.id or version.number != number:
            raise Tampered("a version stands at another's place")
        if not crypto.equal(version.payload, crypto.sha256(content.payload)):
            raise Tampered("a version's content is not what was signed")
        self._check_signature(content.signed, version.writer, version.writer_record)
        if version.under and not self.caller.identity(self.plan, version.under).signed(
            content.signed, self.caller.workspace.id
        ):
            raise Tampered("a version is not signed by the user it was written under")
        standing = Standing(version.writer, content.leaf, content.proof)
        if number == self.row.version and number < self.head.version:
            raise Tampered("a block's newest version is older than its policy")
        policy.check_version(
            self.head_at(version.policy), self.head, version, content.signed.digest, standing
        )
        return content, version

    def payload(self) -> tuple[dict[str, Any], Version, bytes]:
        """The newest content as a map, its version statement and that statement's digest."""
        content, version = self.content()
        return open_payload(self.held.kind, content.payload), version, content.signed.digest

    # -- grants -------------------------------------------------------------------------------------------------

    def ledger(self) -> dict[int, tuple[Row, bytes]]:
        """{grant number: (row, leaf digest)} of the live grants."""
        rows = self.plan.rows(LEDGER, self.held.storage)
        return {int(row[2]): (row, bytes(row[3])) for row in rows if row[3]}

    def leaves(self) -> dict[int, bytes]:
        """{grant number: leaf digest}, checked against the root in the latest policy statement."""
        leaves = {number: digest for number, (_, digest) in self.ledger().items()}
        root, parts = self.head.grants, [part for item in sorted(leaves.items()) for part in item]
        mark = crypto.sha256(crypto.pae("grants", root, *parts))
        if mark not in self._trusted:
            if not crypto.equal(grants_root(leaves), root):
                raise Tampered("a block's grants are not those that its policy names")
            self._trusted.add(mark)
        return leaves

    def roster(self, row: Row) -> Roster:
        """Who a ledger row is about."""
        number = int(row[2])
        roster = open_roster(self.chain_key(int(row[4])), self.id, number, bytes(row[5]))
        if row[3] and not crypto.equal(roster.leaf.digest, bytes(row[3])):
            raise Tampered("a grant's entry is not the one that its policy names")
        return roster

    def grants(self) -> list[Leaf]:
        """The live grants, all that the latest policy statement counts, and no other."""
        self.leaves()
        return [self.roster(row).leaf for row, _ in self.ledger().values()]

    def deletion(self) -> bytes:
        """The owner's signed word that the block is gone, for the event's details."""
        caller, head = self.caller, self.head
        record = caller.identity(self.plan, caller.id).digest
        body = Deletion(
            self.id, head.number, head.digest, self.row.version, caller.id, record, caller.workspace.now_ms()
        )
        return caller.sign(self.plan, "deletion", body.encode()).encode()

    def standing(self) -> Standing:
        """How the caller stands to the block, with the proof that a statement of its own carries."""
        leaf = self.held.own_leaf
        if leaf is None:
            return Standing(self.caller.id)
        return Standing(self.caller.id, leaf, tuple(grant_proof(self.leaves(), leaf.grant)))


def open_block(caller: Caller, plan: Plan, held: Held, what: str = "Block", shown: str = "") -> Opened:
    """Open what a shelf row points to. Raises the uniform miss if the grant or the block is gone."""
    if caller.under is not None:
        caller.standing(
            plan
        )  # who acts may end while this goes on; `Caller.check` asks for the token's user only
    found = plan.get(BLOCK, held.storage)
    wrap = plan.need(GRANT_WRAP, held.storage, held.grant)
    if found is None or wrap is None:
        raise missing(what, shown or held.block)
    row = BlockRow.of(found)
    if int(wrap[3]) != row.epoch:
        raise Tampered("a grant's key is of another epoch than its block")
    dek, history = unwrap_epoch(held.key, held.block, row.epoch, bytes(wrap[4]))
    epoch = plan.get(EPOCH, held.storage, row.epoch)
    if epoch is None:
        raise Tampered("a block's epoch is not there")
    chain = open_chain_key(dek, bytes(epoch[3]))
    opened = Opened(caller, plan, held, row, EpochKeys(row.epoch, dek, history, chain))
    if opened.head.epoch != row.epoch:
        raise Tampered("a block's keys and its policy are of different epochs")
    return opened
