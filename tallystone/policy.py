"""Who may do what: pure rules over a block's statements. No I/O, no clock, no keys.

The caller loads and opens statements and checks that a signature is by whom it says; this module decides whether
that signer was *allowed*. A valid signature by somebody who was not is a forgery (design §13).

The rules kept here, numbered as in design §7:

1. The genesis names the owner, who has every right. A link of the owner is trusted as it stands: it is a snapshot.
2. `write` and `share` imply `read`; a grant never exceeds its granter's rights, expiry or depth.
3. Settings (limit, read_only, locked, …) are the owner's: a link by anybody else must leave them as they were.
4. The owner revokes anything; a grantee only what its own grant is the parent of.
5. A grantee may place the block with agents below itself (`parent` = its own grant, with these rights or less).
   That it sponsors them is for the caller to check, who knows the records of principals.
6. A version names its predecessor and the policy it was written under; a link names the link before it and the
   version it was made on. A version after that one may not cite an earlier link.
7. A version counts if its writer held `write` under the link it cites.
8. One grant is proved against the root in the link, so an answer costs a path, not the chain.
9. Expired means not granted: `today` (days since 1970) is an argument.
10. `read_only` leaves agents `read`; `locked` stops everybody's writes.

Example: Alice makes a block (genesis, she is the owner), grants Bob `write` (link 1, place 1 holds Bob's leaf). Bob
writes version 2: it cites link 1 and carries his leaf with its path to link 1's `grants`. Alice revokes Bob (link 2,
made on version 2; place 1 is empty). A version 3 by Bob that cites link 1 fails rule 6; one that cites link 2 fails
rule 7, for no path leads from his leaf to link 2's root.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tallystone.errors import Tampered
from tallystone.statements import (
    EMPTY,
    LINK_TYPES,
    READ,
    SHARE,
    WRITE,
    Genesis,
    Leaf,
    Link,
    Version,
    root_from_proof,
)


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


@dataclass(frozen=True)
class Standing:
    """How one principal stands to a block: its leaf and the path that proves it, or neither for the owner."""

    principal: str
    leaf: Leaf | None = None
    proof: tuple[Any, ...] = ()


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


def rights(head: Head, standing: Standing, today: int) -> int:
    """The rights (bits) that `standing` proves under `head`: all for the owner, none without a valid proof."""
    if standing.principal == head.owner:
        return READ | WRITE | SHARE
    leaf = standing.leaf
    if leaf is None or leaf.recipient != standing.principal:
        return 0
    if leaf.until is not None and today > leaf.until:
        return 0
    if root_from_proof(leaf.grant, leaf.digest, list(standing.proof)) != head.grants:
        return 0
    return closure(leaf.rights)


def closure(bits: int) -> int:
    """`write` and `share` imply `read`."""
    return bits | READ if bits & (WRITE | SHARE) else bits


def may_write(head: Head, standing: Standing, today: int) -> bool:
    """Whether a version by this principal would count, `read_only` and `locked` apart."""
    return bool(rights(head, standing, today) & WRITE)


def snapshot(link: Link, digest: bytes) -> Head:
    """The head that a link leaves, taken at its word. Only for links that `check_link` or the owner's key vouch for."""
    return Head(
        block=link.block,
        number=link.number,
        digest=digest,
        owner=link.owner,
        grants=link.grants,
        next_grant=link.next_grant,
        settings=link.settings,
        epoch=link.epoch,
        version=link.version,
        version_digest=link.version_digest,
        admin=link.admin,
        due=link.issuer != link.owner and link.change.get("due") is True,
    )


def by_owner(block: str, owner: str, kind: str, link: Link, digest: bytes) -> Head | None:
    """The head after `link` if the owner itself issued it, else None: then its predecessor is needed (`follow`)."""
    if kind not in LINK_TYPES or kind in ("transfer", "membership"):
        raise Tampered("a policy statement has a type that this version does not know")
    if link.block != block:
        raise Tampered("a policy statement belongs to another block")
    if link.issuer != owner or link.owner != owner:
        return None
    return snapshot(link, digest)


def follow(head: Head, kind: str, link: Link, digest: bytes, today: int) -> Head:
    """The head after `link`, checked against the head before it. Raises `Tampered` when its issuer was not allowed.

    `today` is the day the statement was made, as the chain's verifier wants it judged: an expiry ends what may be
    issued, not what was.
    """
    if link.block != head.block or link.number != head.number + 1 or link.previous != head.digest:
        raise Tampered("a policy statement does not follow its predecessor")
    if link.version < head.version:
        raise Tampered("a policy statement was made on an older version than its predecessor")
    if link.issuer == head.owner:
        if link.owner != head.owner or link.next_grant < head.next_grant or link.epoch < head.epoch:
            raise Tampered("an owner's policy statement goes back")
        return snapshot(link, digest)
    _check_grantee(head, kind, link, today)
    return snapshot(link, digest)


def _check_grantee(head: Head, kind: str, link: Link, today: int) -> None:
    """Rules 3, 4, 5: what somebody who is not the owner may have done in one link."""
    if link.owner != head.owner or link.settings != head.settings or link.admin != head.admin:
        raise Tampered("a policy statement changes what is the owner's alone")
    try:
        own = Leaf.decode(link.authority["leaf"])
        own_proof = tuple(link.authority["proof"])
        place, path = int(link.change["grant"]), link.change["proof"]
        target = Leaf.decode(link.change["leaf"])
    except (KeyError, TypeError, ValueError) as error:
        raise Tampered("a policy statement lacks its proof") from error
    held = rights(head, Standing(link.issuer, own, own_proof), today)
    if not held or target.grant != place or target.parent != own.grant:
        raise Tampered("a policy statement was issued by somebody who was not allowed to")
    if kind == "grant":
        fresh = place == head.next_grant and link.next_grant == place + 1 and link.epoch == head.epoch
        within = (
            closure(target.rights) & ~(held & ~SHARE) == 0 and target.depth == 0 and not target.rights & SHARE
        )
        lasting = own.until is None or (target.until is not None and target.until <= own.until)
        placed = target.recipient.startswith("agent-") and (own.history or not target.history)
        if not (fresh and within and lasting and placed):
            raise Tampered("a grant exceeds what its issuer holds")
        before, after = EMPTY, target.digest
    elif kind == "revocation":
        if link.next_grant != head.next_grant or link.epoch not in (head.epoch, head.epoch + 1):
            raise Tampered("a revocation changes more than it may")
        before, after = target.digest, EMPTY
    else:
        raise Tampered("only the owner changes the policy")
    if (
        root_from_proof(place, before, path) != head.grants
        or root_from_proof(place, after, path) != link.grants
    ):
        raise Tampered("a policy statement changes more grants than it names")


def check_version(cited: Head, current: Head, version: Version, digest: bytes, standing: Standing) -> None:
    """Whether `version` counts, for a reader of the newest one. Raises `Tampered`.

    `cited` is the head that the version names, `current` the latest. If they differ, the latest was made on exactly
    this version, or on a later one (rule 6): a revoked writer cannot slip one in behind the revocation.
    """
    if (
        version.block != cited.block
        or version.policy != cited.number
        or version.policy_digest != cited.digest
    ):
        raise Tampered("a version cites a policy that is not the block's")
    if cited.due:
        raise Tampered("a version was written before the keys were changed")
    if cited.number > current.number:
        raise Tampered("a version cites a policy after the latest")
    if version.number < current.version or (
        cited.number == current.number and version.number == current.version
    ):
        raise Tampered("a version is older than the one that the policy was made on")
    if cited.number < current.number:
        if current.version < version.number:
            raise Tampered("a version was written after its policy had ended")
        if current.version == version.number and current.version_digest != digest:
            raise Tampered("a version is not the one that the policy was made on")
    if version.writer != standing.principal or not rights(cited, standing, today=0) & WRITE:
        raise Tampered("a version was written by somebody without the right to")
    if version.writer == cited.owner:
        return  # the owner's change of settings makes a version that cites the very link which locks
    if cited.settings.get("locked") or (
        cited.settings.get("read_only") and version.writer.startswith("agent-")
    ):
        raise Tampered("a version was written while the block took none from its writer")
