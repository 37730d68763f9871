"""What is known of a block and of those who come to it, and which rights that gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tallystone.errors import Tampered
from tallystone.grant_tree import root_from_proof
from tallystone.statements import EMPTY, READ, SHARE, WRITE, Genesis, Leaf, Membership, PrincipalRecord

ROLE_DEPTH = 8
"""How many roles may lie between a grant and the one who uses it."""


# -- what is known of a block, and of those who come to it ------------------------------------------------------------


@dataclass(frozen=True)
class Head:
    """What holds for a block after its latest policy statement."""

    block: str
    number: int
    digest: bytes
    owner: str
    grants: bytes
    next_grant: int
    settings: Mapping[str, Any]
    epoch: int
    version: int
    version_digest: bytes
    admin: bytes
    due: bool = False
    """A grantee ended a grant without being able to rotate: no version may cite this statement."""

    @property
    def seat(self) -> int:
        """The number of the wrap that is the owner's: 0, or the place that a transfer took."""
        seat = self.settings.get("seat", 0)
        return seat if isinstance(seat, int) else 0


@dataclass(frozen=True)
class Via:
    """One role on the way to a grant: its head of live members, and the leaf and path of whoever comes through it.

    The role's owner, who makes its heads, comes without a leaf. `records` are the hashes of the role's records up to
    the one that the head names: a grant under an earlier one is reached by a later head, never the reverse.
    """

    head: Membership
    leaf: Leaf | None
    proof: tuple[Any, ...]
    records: frozenset[bytes]


@dataclass(frozen=True)
class Standing:
    """How one principal stands to a block: the leaf it comes by and the path that proves it, or neither for the owner.

    `via` is empty for a grant to the principal itself; else the leaf is a role's, `via[0]` is that role and the leaf of
    the last one is the principal's.
    """

    principal: str
    leaf: Leaf | None = None
    proof: tuple[Any, ...] = ()
    via: tuple[Via, ...] = ()


@dataclass(frozen=True)
class Party:
    """A principal as a rule sees it, under one of its records: `kind` is user, agent or role, `clearance` the level
    that it is trusted up to, its sponsor's bound included, `serial` the record's."""

    id: str
    kind: str
    sponsor: str
    clearance: int
    serial: int = 0


PartyOf = Callable[[str, bytes], Party]
"""The party with this id, under the record with this hash. Raises `Tampered` if it never had such a record."""


def clearance(record: PrincipalRecord, sponsor: PrincipalRecord | None) -> int:
    """The highest sensitivity that a principal may be granted. None named means the lowest; an agent has its
    sponsor's, or the less that its own record names."""
    if record.kind != "agent":
        return record.clearance or 0
    above = clearance(sponsor, None) if sponsor is not None else 0
    return above if record.clearance is None else min(above, record.clearance)


def begin(block: str, digest: bytes, genesis: Genesis) -> Head:
    """The head right after the genesis whose digest made the id."""
    return Head(
        block=block,
        number=0,
        digest=digest,
        owner=genesis.owner,
        grants=genesis.grants,
        next_grant=genesis.next_grant,
        settings=genesis.settings,
        epoch=0,
        version=0,
        version_digest=EMPTY,
        admin=EMPTY,
    )


# -- rights -----------------------------------------------------------------------------------------------------------


def rights(head: Head, standing: Standing, today: int) -> int:
    """The rights (bits) that `standing` proves under `head`: all for the owner, none without a valid proof."""
    if standing.principal == head.owner:
        return READ | WRITE | SHARE
    leaf = standing.leaf
    if leaf is None or not _proved(leaf, standing.proof, head.grants, today):
        return 0
    if not _leads_to(standing.principal, leaf, standing.via, today):
        return 0
    return closure(leaf.rights)


def _proved(leaf: Leaf, proof: tuple[Any, ...], root: bytes, today: int) -> bool:
    live = leaf.until is None or today <= leaf.until
    return live and root_from_proof(leaf.grant, leaf.digest, list(proof)) == root


def _leads_to(principal: str, leaf: Leaf, via: tuple[Via, ...], today: int) -> bool:
    """Whether the way from a grant's leaf through these roles ends at `principal`."""
    if len(via) > ROLE_DEPTH:
        return False
    for place, step in enumerate(via, 1):
        head = step.head
        if leaf.recipient != head.role or leaf.record not in step.records:
            return False
        if step.leaf is None:
            return place == len(via) and principal == head.owner
        if not _proved(step.leaf, step.proof, head.members, today):
            return False
        leaf = step.leaf
    return leaf.recipient == principal


def closure(bits: int) -> int:
    """`write` and `share` imply `read`."""
    return bits | READ if bits & (WRITE | SHARE) else bits


def may_write(head: Head, standing: Standing, today: int) -> bool:
    """Whether a version by this principal would count, `read_only` and `locked` apart."""
    return bool(rights(head, standing, today) & WRITE)


def exceeds(own: Leaf, held: int, wanted: Leaf) -> str | None:
    """What `wanted` asks for beyond the grant it would come through, or None: rule 2. `held` are the rights that
    `own` proves."""
    if closure(wanted.rights) & ~held & ~SHARE:
        return "rights"
    if wanted.rights & SHARE and not (held & SHARE and own.depth > 0):
        return "share"
    if wanted.depth > (own.depth - 1 if wanted.rights & SHARE else 0) or wanted.depth < 0:
        return "depth"
    if own.until is not None and (wanted.until is None or wanted.until > own.until):
        return "expiry"
    if wanted.history and not own.history:
        return "history"
    return None


def refusal(settings: Mapping[str, Any], owner: str, party: Party) -> str | None:
    """Why a block with these settings may not be granted to `party`: `allowed`, `clearance`, or None if it may.

    A grant to an agent is one to its sponsor as well, so the allow-list must admit both; it admits a user's agents with
    the user. An empty list admits nobody.
    """
    if party.clearance < settings.get("sensitivity", 0):
        return "clearance"
    allowed = settings.get("allowed")
    if allowed is None:
        return None
    if party.kind == "agent":
        named = party.id in allowed or party.sponsor in allowed
        return None if named and (party.sponsor in allowed or party.sponsor == owner) else "allowed"
    return None if party.id in allowed else "allowed"


_OPTIONAL: Mapping[str, type] = {
    "sensitivity": int,
    "expires": int,
    "seat": int,
    "allowed": list,
    "transfer": list,
    "keep": dict,
    "audit_level": int,
}


KEEP_LEAST = 2
"""Versions that are always kept: the newest, and the one before it, which proves that no role's head went back."""


def rule_fits(keep: object) -> bool:
    """Whether this is a rule of which versions are kept: `{"last": N}` or `{"days": N}`."""
    if not isinstance(keep, Mapping) or len(keep) != 1:
        return False
    ((name, number),) = keep.items()
    least = {"last": KEEP_LEAST, "days": 1}.get(name)
    return least is not None and type(number) is int and least <= number < 2**31


def check_settings(settings: Mapping[str, Any]) -> None:
    """Raises `Tampered` for settings that a rule could not be asked of. Unknown ones are left for later versions."""
    required = [type(settings.get(name)) for name in ("limit", "read_only", "locked")]
    optional = all(type(settings[name]) is kind for name, kind in _OPTIONAL.items() if name in settings)
    names = [*settings.get("allowed", ()), *settings.get("transfer", ())] if optional else []
    keep = settings.get("keep", {"last": KEEP_LEAST})
    optional = optional and rule_fits(keep)
    if required != [int, bool, bool] or not optional or not all(isinstance(name, str) for name in names):
        raise Tampered("a policy statement has malformed settings")
