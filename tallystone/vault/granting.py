"""Making grants: on whose authority, on which terms, and how they reach the one they are for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tallystone import crypto, policy
from tallystone.errors import Denied, Invalid, NotFound
from tallystone.grant_tree import grant_proof
from tallystone.keystore import Identity, Keys
from tallystone.statements import EMPTY, READ, SHARE, WRITE, Leaf, Signed
from tallystone.store.tables import CALENDAR, GRANT_WRAP, LEDGER, PRINCIPAL
from tallystone.vault.caller import Caller
from tallystone.vault.capsules import Parcel, pack, send
from tallystone.vault.ledger import (
    Ledger,
    Roster,
    admin_public,
    leaf_salt,
    place_secret,
    seal_public,
    seal_roster,
)
from tallystone.vault.opening import Opened
from tallystone.vault.plan import Plan
from tallystone.vault.records import ACCEPTED, Held, wrap_epoch
from tallystone.vault.shelves import BLOCKS, ROLES
from tallystone.vault.writing import add_link, put_on_shelf

PROOF_LIMIT = 256
"""Grants that somebody without all keys may renew in one statement, which lists them; above it an owner must act."""

_WORDS = {READ: "read", READ | WRITE: "write", READ | SHARE: "share", READ | WRITE | SHARE: "write+share"}


@dataclass(frozen=True)
class Terms:
    """What a grant gives: rights (bits), until which day (since 1970) inclusive, how often it may be passed on, and
    whether it opens what was written before."""

    rights: int
    until: int | None = None
    depth: int = 0
    history: bool = True


def right(can: str) -> int:
    """The bits of `read`, `write`, `share` or `write+share`. Raises `Invalid`."""
    for bits, word in _WORDS.items():
        if can == word:
            return bits
    raise Invalid(f"unknown right {can!r}", hint="use read, write, share or write+share", code="bad_right")


def word(rights: int) -> str:
    """The reverse of `right`."""
    return _WORDS[policy.closure(rights)]


def unexpired(opened: Opened, leaves: Iterable[Leaf]) -> list[Leaf]:
    """Those grants on an opened block whose last day is not over."""
    today = opened.caller.workspace.today()
    return [leaf for leaf in leaves if leaf.until is None or leaf.until >= today]


def check_terms(opened: Opened, terms: Terms, party: policy.Party) -> None:
    """Whether the caller may make this grant of an opened block. Raises `Denied` or `Invalid`; readers ask again."""
    today = opened.caller.workspace.now() // 86400
    if terms.until is not None and terms.until < today:
        raise Invalid(
            "the grant would have ended already", hint="name today or a later day", code="bad_expiry"
        )
    if terms.depth < 0 or (terms.depth and not terms.rights & SHARE):
        raise Invalid("depth says how often share may be passed on", hint="give share too", code="bad_depth")
    _check_party(opened, party)
    own = opened.held.own_leaf
    if own is None:
        return
    held = policy.rights(opened.head, opened.standing(), today)
    placed = party.kind == "agent" and party.sponsor == opened.caller.id and not opened.held.via
    if not held & SHARE and not placed:
        raise Denied("you do not hold share on this block", hint="ask its owner", code="no_share")
    wanted = Leaf(0, party.id, EMPTY, terms.rights, terms.history, terms.until, terms.depth, own.grant, EMPTY)
    too_much = policy.exceeds(own, held, wanted)
    if too_much:
        what = {
            "rights": f"you hold {word(own.rights)} yourself",
            "share": "your share may not be passed on",
            "depth": f"the depth of your share is {own.depth}",
            "expiry": "your own grant ends before",
            "history": "your own grant has no history",
        }[too_much]
        raise Denied(f"a grant gives no more than its giver holds: {what}", hint="give less", code="exceeds")


def _check_party(opened: Opened, party: policy.Party) -> None:
    refused = policy.refusal(opened.head.settings, opened.head.owner, party)
    if refused == "clearance":
        raise Denied(
            f"{party.id} is not cleared for this block",
            hint="its sensitivity asks for more; see: tallystone block show",
            code="no_clearance",
        )
    if refused:
        raise Denied(
            f"{party.id} is not among those whom this block may be granted to",
            hint="its owner keeps the list of allowed recipients",
            code="not_allowed",
        )


def check_count(opened: Opened, limit: int, party: policy.Party) -> None:
    """Raises `Denied` if a block would have too many direct grants; those to the owner's own agents do not count."""
    owner = opened.head.owner
    if len(opened.ledger()) < limit or (party.kind == "agent" and party.sponsor == owner):
        return
    others = [
        leaf
        for leaf in opened.grants()
        if not leaf.recipient.startswith("agent-")
        or opened.caller.identity(opened.plan, leaf.recipient).record.sponsor != owner
    ]
    if len(others) >= limit:
        raise Denied(
            f"the most direct grants that a block takes is {limit}",
            hint="share it with a role instead",
            code="too_many_grants",
        )


def current(caller: Caller, plan: Plan, principal: str) -> Identity:
    """A recipient's identity, held to be the current and an active one by the commit. Raises `NotFound` or
    `Denied`."""
    recipient = caller.identity(plan, principal)
    ended = plan.need(PRINCIPAL, principal, recipient.record.serial + 1) is not None
    if ended or recipient.record.status == "deleted":
        raise NotFound(f"{principal} not found", hint="list the users with: tallystone user list")
    if not recipient.active:
        raise Denied(f"{principal} is {recipient.record.status}", hint="resume it first", code="inactive")
    return recipient


def grant_to(
    opened: Opened,
    recipient: Identity,
    terms: Terms,
    *,
    keys: Keys | None = None,
    replaces: int = 0,
    secrets: Mapping[str, bytes] | None = None,
) -> Leaf:
    """Queue a grant. With the recipient's `keys` (an agent or role of the caller's) it goes straight to that shelf;
    else in a capsule. `replaces` is the number of the same recipient's grant that this one takes the place of;
    `secrets` go into part two of the recipient's shelf row."""
    caller, plan, held = opened.caller, opened.plan, opened.held
    own, number, grant_key = held.own_leaf, opened.head.next_grant, crypto.random_bytes()
    leaf = Leaf(
        number, recipient.id, recipient.digest, terms.rights, terms.history, terms.until, terms.depth,
        own.grant if own else 0, leaf_salt(grant_key),
    )  # fmt: skip
    secrets = dict(secrets or {})
    if terms.rights & SHARE:
        secrets["admin"] = held.admin
    parcel = None if keys is not None else pack(caller, leaf, grant_key, recipient, secrets)
    signed = _state(opened, leaf, parcel.enc if parcel else b"", replaces)
    _enter(opened, leaf, grant_key, parcel.capsule if parcel else b"")
    if parcel is not None:
        send(opened, parcel, signed)
    elif keys is not None:
        _hang(opened, keys, leaf, grant_key, secrets)
    if (
        own is None
        and opened.head.admin != EMPTY
        and plan.get(LEDGER, opened.row.storage, opened.head.seat) is None
    ):
        take_seat(opened)
    return leaf


def grant_many(
    opened: Opened,
    recipients: Sequence[tuple[Identity, Keys | None]],
    terms: Terms,
    secrets: Mapping[str, bytes],
) -> list[Leaf]:
    """Queue grants on the same terms to many at once, by one statement of the owner's: a role's members."""
    caller, plan, first = opened.caller, opened.plan, opened.head.next_grant
    made: list[tuple[Leaf, bytes, Parcel | None, Keys | None]] = []
    for number, (recipient, keys) in enumerate(recipients, first):
        key = crypto.random_bytes()
        leaf = Leaf(
            number, recipient.id, recipient.digest, terms.rights, terms.history, terms.until, terms.depth, 0,
            leaf_salt(key),
        )  # fmt: skip
        parcel = pack(caller, leaf, key, recipient, dict(secrets)) if keys is None else None
        made.append((leaf, key, parcel, keys))
    admin = crypto.sha256(opened.admin_public) if opened.head.admin == EMPTY else None
    after = {**opened.leaves(), **{leaf.grant: leaf.digest for leaf, *_ in made}}
    signed = add_link(
        opened, "grant", {"first": first, "many": len(made)}, leaves=after, next_grant=first + len(made),
        admin=admin,
    )  # fmt: skip
    for leaf, key, parcel, keys in made:
        _enter(opened, leaf, key, parcel.capsule if parcel else b"")
        if parcel is not None:
            send(opened, parcel, signed, many=True)
        elif keys is not None:
            _hang(opened, keys, leaf, key, secrets)
    if plan.get(LEDGER, opened.row.storage, opened.head.seat) is None:
        take_seat(opened)
    return [leaf for leaf, *_ in made]


def _hang(opened: Opened, keys: Keys, leaf: Leaf, key: bytes, secrets: Mapping[str, bytes]) -> None:
    """Queue the shelf row of a grant to an agent or a role whose keys the caller has."""
    given = replace(
        opened.held, grant=leaf.grant, key=key, leaf=leaf.encode(), admin_public=b"", state=ACCEPTED,
        position=opened.caller.workspace.next_position(), admin=secrets.get("admin", b""), root_read=b"",
        root_act=secrets.get("role_act", b""), via=(),
    )  # fmt: skip
    hang(opened.plan, keys, given)


def hang(plan: Plan, keys: Keys, held: Held) -> None:
    """Queue the shelf row of a grant, on the shelf of its kind."""
    shelf, name = (ROLES, held.subject) if held.kind == "role" else (BLOCKS, held.block)
    put_on_shelf(plan, keys, shelf, name, held)


def _state(opened: Opened, leaf: Leaf, enc: bytes, replaces: int) -> Signed:
    """Queue the statement of a grant: the owner's names the leaf by its hash, anybody else's proves its place too."""
    leaves, number = opened.leaves(), leaf.grant
    change: dict[str, Any] = {
        "grant": number, "leaf": leaf.digest, "capsule": crypto.sha256(enc), "replaces": replaces,
    }  # fmt: skip
    admin = None
    if opened.held.own_leaf is not None:
        change |= {"leaf": leaf.encode(), "proof": grant_proof(leaves, number)}
    elif opened.head.admin == EMPTY and (enc or leaf.rights & SHARE or leaf.recipient.startswith("role-")):
        admin = crypto.sha256(opened.admin_public)
    after = {**leaves, number: leaf.digest}
    signed: Signed = add_link(opened, "grant", change, leaves=after, next_grant=number + 1, admin=admin)
    return signed


def _enter(opened: Opened, leaf: Leaf, grant_key: bytes, capsule: bytes) -> None:
    """Queue a grant's rows: who it is to, its key for those who may change keys, the block's key under it."""
    plan, block, storage, number = opened.plan, opened.id, opened.row.storage, leaf.grant
    said = Roster(leaf, capsule)
    roster = seal_roster(opened.keys.chain, block, said)
    opened.know_roster(roster, said)
    secret = secret_of(opened, leaf, grant_key)
    plan.put(LEDGER, storage, number, leaf.digest, opened.keys.number, roster, secret, leaf.until)
    wrap = wrap_epoch(
        grant_key, block, opened.keys, history=leaf.history, nest=opened.nest_for(opened.keys.number)
    )
    plan.put(GRANT_WRAP, storage, number, opened.keys.number, wrap)
    if leaf.until is not None:
        plan.put(CALENDAR, leaf.until, storage, number, "grant")


def watched(leaf: Leaf) -> bool:
    """Whether a rotation must look at this grant's roster before it wraps: it may have ended, alone or
    with the grant it came through, or its key be known."""
    return leaf.until is not None or leaf.parent != 0 or leaf.recipient.startswith("role-")


def secret_of(opened: Opened, leaf: Leaf, grant_key: bytes, retired: tuple[bytes, ...] = ()) -> bytes:
    """The ledger's `secret` for a grant, by whatever half of the admin key the caller holds."""
    if opened.held.admin:
        ledger = Ledger(opened.held.admin, opened.id)
        return ledger.seal(leaf.grant, grant_key, history=leaf.history, watch=watched(leaf), retired=retired)
    return place_secret(opened.admin_public, opened.id, leaf.grant, grant_key)


def take_seat(opened: Opened) -> None:
    """Queue the owner's own row of the ledger: a sharer wraps for the owner by it, others seal to it. Owner only."""
    seat, admin = opened.head.seat, opened.held.admin
    secret = Ledger(admin, opened.id).seal(seat, opened.held.key, history=True, watch=False)
    roster = seal_public(opened.keys.chain, opened.id, admin_public(admin))
    opened.plan.put(LEDGER, opened.row.storage, seat, b"", opened.keys.number, roster, secret, None)
