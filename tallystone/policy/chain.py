"""The chain of policy statements: whether the issuer of each was allowed to make it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tallystone.errors import Tampered
from tallystone.grant_tree import grants_root, root_from_proof
from tallystone.policy.rights import Head, PartyOf, Standing, check_settings, exceeds, refusal, rights
from tallystone.statements import EMPTY, LINK_TYPES, SHARE, WRITE, Leaf, Link


def snapshot(link: Link, digest: bytes) -> Head:
    """The head that a link leaves, taken at its word. Only for links that `follow` or the owner's key vouch for."""
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
    if kind not in LINK_TYPES:
        raise Tampered("a policy statement has a type that this version does not know")
    if link.block != block:
        raise Tampered("a policy statement belongs to another block")
    if kind == "transfer" or link.issuer != owner or link.owner != owner:
        return None
    return snapshot(link, digest)


def follow(
    head: Head,
    kind: str,
    link: Link,
    digest: bytes,
    today: int,
    standing: Standing | None = None,
    party_of: PartyOf | None = None,
) -> Head:
    """The head after `link`, checked against the head before it. Raises `Tampered` when its issuer was not allowed.

    `standing` is how the issuer says it comes to the block, unless it is the owner; `party_of` tells who a recipient
    is. `today` is the day the statement was made, as the chain's verifier wants it judged: an expiry ends what may be
    issued, not what was.
    """
    if kind not in LINK_TYPES:
        raise Tampered("a policy statement has a type that this version does not know")
    if link.block != head.block or link.number != head.number + 1 or link.previous != head.digest:
        raise Tampered("a policy statement does not follow its predecessor")
    if link.version < head.version:
        raise Tampered("a policy statement was made on an older version than its predecessor")
    if link.version == head.version and link.version_digest != head.version_digest:
        raise Tampered("a policy statement was made on another version than its predecessor")
    check_settings(link.settings)  # 0 equals False where settings are compared, but not where they are asked
    if kind == "transfer":
        _check_transfer(head, link)
    elif link.issuer == head.owner:
        if link.owner != head.owner or link.next_grant < head.next_grant or link.epoch < head.epoch:
            raise Tampered("an owner's policy statement goes back")
    elif standing is None or standing.principal != link.issuer or standing.leaf is None:
        raise Tampered("a policy statement lacks its proof")
    else:
        _check_grantee(head, kind, link, standing, party_of, today)
    return snapshot(link, digest)


def _check_transfer(head: Head, link: Link) -> None:
    """Rule 1: the old owner's settings name who may take the block over, and that one's link does no more."""
    kept = {name: value for name, value in head.settings.items() if name not in ("transfer", "seat")}
    named = head.settings.get("transfer")
    if (
        not named
        or named != [link.issuer]
        or link.owner != link.issuer
        or link.settings != {**kept, "seat": head.next_grant}
        or link.next_grant != head.next_grant + 1
        or link.epoch != head.epoch + 1
    ):
        raise Tampered("a block changed hands without its owner's word")


def _check_grantee(
    head: Head, kind: str, link: Link, standing: Standing, party_of: PartyOf | None, today: int
) -> None:
    """Rules 2 to 5: what somebody who is not the owner may have done in one link."""
    held = rights(head, standing, today)
    if link.owner != head.owner or link.settings != head.settings:
        raise Tampered("a policy statement changes what is the owner's alone")
    if not held or kind not in ("grant", "revocation", "policy"):
        raise Tampered("a policy statement was issued by somebody who was not allowed to")
    if link.epoch == head.epoch and (head.due or kind == "revocation") and link.change.get("due") is not True:
        raise Tampered("a policy statement hides that the keys must change")
    try:
        if kind == "grant":
            _check_grant(head, link, standing, held, party_of)
        elif kind == "revocation":
            _check_revocation(head, link, standing, held)
        else:
            _check_rotation(head, link, held, party_of)
    except (KeyError, TypeError, ValueError) as error:
        raise Tampered("a policy statement is malformed") from error


def _check_grant(head: Head, link: Link, standing: Standing, held: int, party_of: PartyOf | None) -> None:
    own, target, path = standing.leaf, Leaf.decode(link.change["leaf"]), link.change["proof"]
    assert own is not None  # `rights` has found it
    fresh = (
        target.grant == link.change["grant"] == head.next_grant
        and link.next_grant == head.next_grant + 1
        and link.epoch == head.epoch
        and link.admin == head.admin
    )
    if (
        not fresh
        or target.parent != own.grant
        or target.recipient in (link.issuer, own.recipient, head.owner)
    ):
        raise Tampered("a policy statement was issued by somebody who was not allowed to")
    if party_of is None:
        raise Tampered("a policy statement names a recipient that nobody vouches for")
    party = party_of(target.recipient, target.record)
    placed = party.kind == "agent" and party.sponsor == link.issuer and not standing.via
    if exceeds(own, held, target) or not (held & SHARE or placed):
        raise Tampered("a grant exceeds what its issuer holds")
    if refusal(head.settings, head.owner, party):
        raise Tampered("a grant is to somebody whom the block's policy does not admit")
    _check_places(head.grants, link.grants, [(target, EMPTY, target.digest, path)])


def _check_revocation(head: Head, link: Link, standing: Standing, held: int) -> None:
    own = standing.leaf
    assert own is not None
    rotates = link.epoch == head.epoch + 1 and held & (WRITE | SHARE)
    if (
        link.next_grant != head.next_grant
        or not (link.epoch == head.epoch or rotates)
        or link.admin != head.admin
    ):
        raise Tampered("a revocation changes more than it may")
    gone = link.change.get("gone") or [[link.change["leaf"], link.change["proof"]]]
    below, steps = {own.grant}, []
    for encoded, path in link.change.get(
        "between", ()
    ):  # live grants on the way from the issuer's to those that end
        leaf = Leaf.decode(encoded)
        if leaf.parent not in below or root_from_proof(leaf.grant, leaf.digest, path) != head.grants:
            raise Tampered("a policy statement was issued by somebody who was not allowed to")
        below.add(leaf.grant)
    for encoded, path in gone:
        target = Leaf.decode(encoded)
        if target.parent not in below:
            raise Tampered("a policy statement was issued by somebody who was not allowed to")
        below.add(target.grant)
        steps.append((target, target.digest, EMPTY, path))
    _check_places(head.grants, link.grants, steps)


def _check_places(before: bytes, after: bytes, steps: list[tuple[Leaf, bytes, bytes, Any]]) -> None:
    """Whether these changes of places, one after the other, lead from one root to the other, and nothing else does."""
    root = before
    for leaf, old, new, path in steps:
        if root_from_proof(leaf.grant, old, path) != root:
            raise Tampered("a policy statement changes more grants than it names")
        root = root_from_proof(leaf.grant, new, path)
    if root != after or not steps:
        raise Tampered("a policy statement changes more grants than it names")


def _check_rotation(head: Head, link: Link, held: int, party_of: PartyOf | None) -> None:
    """New keys, and all else as it was. A sharer may bring a new admin key with them."""
    same_admin = link.admin == head.admin or held & SHARE
    if not held & (WRITE | SHARE) or not same_admin:
        raise Tampered("only the owner changes the policy")
    if link.epoch != head.epoch + 1 or link.next_grant != head.next_grant or "rotated" not in link.change:
        raise Tampered("a change of keys changes more than it may")
    renewed = link.change.get("renewed")
    if renewed is None:
        if link.grants != head.grants:
            raise Tampered("a policy statement changes more grants than it names")
        return
    before, after = {}, {}
    for encoded, record, salt in renewed:
        leaf = Leaf.decode(encoded)
        fresh = Leaf.decode(replace(leaf, record=record, salt=salt).encode())
        if record != leaf.record:
            if party_of is None:
                raise Tampered("a policy statement names a recipient that nobody vouches for")
            # An earlier record would let the heads of a role's former members in again.
            if party_of(leaf.recipient, record).serial < party_of(leaf.recipient, leaf.record).serial:
                raise Tampered("a change of keys goes back to an earlier record of a recipient")
        before[leaf.grant], after[leaf.grant] = leaf.digest, fresh.digest
    if len(before) != len(renewed) or grants_root(before) != head.grants or grants_root(after) != link.grants:
        raise Tampered("a policy statement changes more grants than it names")
