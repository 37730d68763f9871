"""Roles: blocks that hold a root. Whoever reads one is a member, and opens with it what the role was granted.

A role's owner adds and removes members; each change makes a new head of live members, which members carry as proof when
they write. Removing one renews the role's root: the shelf is sealed anew, so the gate is closed at once; every block on
it is marked, and takes no new version before its keys have changed (design §5, §6). A role may be a member of other
roles of the same owner; removing somebody from the inner one renews the outer ones too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from tallystone import crypto
from tallystone.errors import Denied, Invalid, NotFound, Taken
from tallystone.keystore import Identity, Keys, Root, new_root, seal_seed
from tallystone.statements import (
    EMPTY,
    READ,
    Leaf,
    PrincipalRecord,
    identifier,
)
from tallystone.store.tables import GRANT_WRAP, IDENTITY, INBOX, SHELF
from tallystone.vault.accounts import check_name
from tallystone.vault.caller import Caller
from tallystone.vault.entering import open_block
from tallystone.vault.granting import Terms, current, grant_many, unexpired
from tallystone.vault.levels import level, level_name
from tallystone.vault.opening import Opened
from tallystone.vault.passages import keys_of, reached, resolve, role_keys
from tallystone.vault.plan import Plan
from tallystone.vault.principals import amend, put_principal
from tallystone.vault.reach import Known
from tallystone.vault.role_roots import (
    find_role,
    index_member,
    issue_head,
    issue_own,
    mark_blocks,
    members_shelf,
    renew_root,
    root_fields,
    write_head,
)
from tallystone.vault.rotating import change_keys, remove_grants, rotation_due
from tallystone.vault.shelves import BLOCKS, ROLES, find, walk
from tallystone.vault.types import Member, Role
from tallystone.vault.views import day_number, last_day, when
from tallystone.vault.writing import create_block, deletion, destroy

_SETTINGS: Mapping[str, Any] = {"limit": 0, "read_only": False, "locked": False}


# -- making and finding -----------------------------------------------------------------------------------------


def create_role(caller: Caller, name: str, description: str, clearance: str | None, history: bool) -> Role:
    """A new role of the caller's. It has no member but its owner."""

    def action(plan: Plan) -> Role:
        caller.must_act()
        _users_only(caller)
        shown = check_name(name)
        if any(one.way[0].opened.payload()[0]["name"] == shown for one in reached(caller, plan)):
            raise Taken(
                f"you are in a role named {shown!r} already", hint="choose another name", code="name_taken"
            )
        cleared = level(caller, plan, clearance) if clearance is not None else None
        kem = crypto.random_bytes()
        record = PrincipalRecord(
            kind="role", id="", serial=0, previous=EMPTY, signing=b"", kem=crypto.kem_public(kem),
            sponsor=caller.id, status="active", clearance=cleared, root=0,
        )  # fmt: skip
        signed = issue_own(caller, plan, "principal", record.encode())
        role = identifier("role", signed.digest)
        keys = Keys(role, new_root(caller.keys.root.pin))
        put_principal(plan, role, 0, signed)
        plan.put(IDENTITY, role, b"", seal_seed(keys, "kem", kem))
        secret = crypto.random_bytes()
        head = issue_head(caller, plan, role, signed.digest, 0, EMPTY)
        payload = {
            "name": shown, "description": description, "history": history, "created": caller.workspace.now_ms(),
            **root_fields(keys, role, 0, secret), "head": head.encode(),
        }  # fmt: skip
        held = create_block(
            caller, plan, kind="role", payload=payload, settings=_SETTINGS, subject=role, shelf=ROLES,
            locator_of=role, root=Root(b"", secret, b""),
        )  # fmt: skip
        caller.event(plan, "role", held.key, role=role)
        return _view(caller, plan, open_block(caller, plan, held), members=True)

    return caller.transact(action, audit=True)


def _users_only(caller: Caller) -> None:
    if caller.id.startswith("agent-"):
        raise Denied("an agent owns no roles", hint="use its user's token", code="agent_token")


def _owned(caller: Caller, plan: Plan, role: str) -> Opened:
    """The role's opened block, if the caller owns it. A removal that nobody could finish then is finished here."""
    held = find_role(caller, plan, role)
    opened = open_block(caller, plan, held)
    if held.own_leaf is not None:
        raise Denied("only its owner changes a role", hint="ask its owner", code="not_owner")
    if rotation_due(opened):  # a membership has expired meanwhile: whoever held it knows the root
        change_keys(opened)
        renew_root(caller, plan, opened)
        opened = open_block(caller, plan, find_role(caller, plan, held.subject))
    return opened


def _view(caller: Caller, plan: Plan, opened: Opened, *, members: bool) -> Role:
    payload, _, _ = opened.payload()
    known = Known(caller, plan)
    found = [
        Member(
            leaf.recipient,
            known.get(leaf.recipient),
            leaf.recipient.partition("-")[0],
            last_day(leaf.until),
        )
        for leaf in (unexpired(opened, opened.grants()) if members else ())
    ]
    held, record = opened.held, caller.identity(plan, opened.held.subject).record
    return Role(
        id=held.subject, name=payload["name"], description=payload["description"], owner=held.owner,
        owner_name=known.get(held.owner), clearance=level_name(caller, plan, record.clearance or 0),
        history=payload["history"], members=found, mine=held.own_leaf is None, created_at=when(payload["created"]),
    )  # fmt: skip


def roles(caller: Caller) -> list[Role]:
    """The roles that the caller owns or is in, without their members."""

    def action(plan: Plan) -> list[Role]:
        found = [one.way[0].opened for one in reached(caller, plan)]
        caller.event(plan, "list", *(opened.held.key for opened in found), roles=len(found))
        return [_view(caller, plan, opened, members=False) for opened in found]

    return caller.transact(action)


def role(caller: Caller, name: str) -> Role:
    """One role with its members."""

    def action(plan: Plan) -> Role:
        held = find_role(caller, plan, name)
        mine = held.own_leaf is None and caller.keys.can_act
        opened = _owned(caller, plan, name) if mine else open_block(caller, plan, held)
        caller.event(plan, "read", opened.held.key, role=opened.held.subject)
        return _view(caller, plan, opened, members=True)

    return caller.transact(action)


# -- members ----------------------------------------------------------------------------------------------------


def add_members(caller: Caller, name: str, who: Sequence[str], until: date | None) -> Role:
    """Add users, agents, or other roles of the caller's to a role, all or none; for the others it is an offer."""

    def action(plan: Plan) -> Role:
        caller.must_act()
        opened = _owned(caller, plan, name)
        terms = Terms(READ, day_number(until))
        if terms.until is not None and terms.until < caller.workspace.today():
            raise Invalid(
                "the membership would have ended already", hint="name a later day", code="bad_expiry"
            )
        wanted = list(dict.fromkeys(resolve(caller, plan, one)[1] for one in who))
        fresh = [_member(caller, plan, opened, principal) for principal in wanted]
        secrets = {"role_act": opened.held.root_act}
        keys = {identity.id: keys_of(caller, plan, identity.id) for identity in fresh}
        leaves = grant_many(opened, [(identity, keys[identity.id]) for identity in fresh], terms, secrets)
        for leaf in leaves:
            index_member(caller, plan, opened, leaf)
        write_head(caller, plan, opened)
        if not opened.payload()[0]["history"]:
            mark_blocks(plan, role_keys(opened)[0])
        caller.event(plan, "role", opened.held.key, role=opened.held.subject, added=wanted)
        plan.memo.pop("roles", None)
        return _view(
            caller,
            plan,
            open_block(caller, plan, find_role(caller, plan, opened.held.subject)),
            members=False,
        )

    return caller.transact(action, lock=name, audit=True)


def _member(caller: Caller, plan: Plan, opened: Opened, principal: str) -> Identity:
    """Whether a principal may become a member. Raises what is wrong with it."""
    held = opened.held
    if principal == held.owner:
        raise Invalid("the role's owner is in it already", hint="name somebody else", code="self_grant")
    if find(plan, caller.keys, members_shelf(held.subject), principal) is not None:
        raise Taken(f"{principal} is in the role already", hint="nothing to do", code="already_granted")
    identity = current(caller, plan, principal)
    mine = caller.identity(plan, held.subject).record
    if caller.party(plan, principal, identity.digest).clearance < (mine.clearance or 0):
        raise Denied(
            f"{principal} is not cleared as high as the role", hint="raise its clearance", code="no_clearance"
        )
    if principal.startswith("role-"):
        if identity.record.sponsor != caller.id:
            raise Denied(
                "a role contains roles of the same owner only", hint="name its members", code="not_owner"
            )
        if principal == held.subject or principal in _above(caller, plan, role_keys(opened)[0]):
            raise Invalid("a role cannot contain itself", hint="name another role", code="role_cycle")
    return identity


def _above(caller: Caller, plan: Plan, keys: Keys) -> set[str]:
    """The roles that this one is in, through however many others."""
    found: set[str] = set()
    for held in walk(plan, keys, ROLES):
        if held.subject not in found:
            outer = keys_of(caller, plan, held.subject)
            found |= {held.subject} | (_above(caller, plan, outer) if outer is not None else set())
    return found


def remove_member(caller: Caller, name: str, who: str) -> Role:
    """Take somebody out of a role: from the answer on it opens nothing through the role."""
    collect_mail(caller, name)

    def action(plan: Plan) -> Role:
        caller.must_act()
        opened = _owned(caller, plan, name)
        subject = opened.held.subject
        _, principal = resolve(caller, plan, who)
        note = find(plan, caller.keys, members_shelf(subject), principal)
        leaf = note.own_leaf if note is not None else None
        if note is None or leaf is None:
            raise NotFound(f"{who} is no member of the role", hint="list them with: tallystone role show")
        _take_out(caller, plan, opened, leaf)
        caller.event(plan, "role", opened.held.key, role=subject, removed=principal)
        return _view(caller, plan, open_block(caller, plan, find_role(caller, plan, subject)), members=False)

    return caller.transact(action, lock=name, audit=True)


def _take_out(caller: Caller, plan: Plan, opened: Opened, leaf: Leaf) -> None:
    """Queue the end of one membership, and everything that follows from it."""
    subject, keys = opened.held.subject, keys_of(caller, plan, leaf.recipient)
    plan.delete(SHELF, caller.keys.shelf(members_shelf(subject)), caller.keys.locator(leaf.recipient))
    if keys is not None:
        plan.delete(SHELF, keys.shelf(ROLES), keys.locator(subject))
    remove_grants(opened, [leaf])
    renew_root(caller, plan, opened)


def collect_mail(caller: Caller, name: str) -> None:
    """Open the role's mail while its keys still can: what is sealed to the old record is lost with it. (What arrives
    in between is sent again when its block's keys next change: its grant names the old record.)"""
    with caller.workspace.store.snapshot() as snapshot:
        try:
            subject = find_role(caller, Plan(snapshot), name).subject
        except NotFound:
            return  # the operation itself says so, and logs it
    caller.workspace.collect(caller, subject)


def delete_role(caller: Caller, name: str) -> None:
    """End a role. What it was granted stays with whoever holds it otherwise."""

    def action(plan: Plan) -> None:
        caller.must_act()
        end_role(caller, plan, name)

    caller.transact(action, lock=name, audit=True)


def end_role(caller: Caller, plan: Plan, name: str) -> None:
    """Queue the end of a role of the caller's, with its event."""
    opened = _owned(caller, plan, name)
    subject = opened.held.subject
    keys, _ = role_keys(opened)
    for outer in list(walk(plan, keys, ROLES)):
        leaf = outer.own_leaf
        if leaf is not None and plan.get(GRANT_WRAP, outer.storage, outer.grant) is not None:
            _take_out(caller, plan, open_block(caller, plan, find_role(caller, plan, outer.subject)), leaf)
    mark_blocks(plan, keys)
    for shelf in (BLOCKS, ROLES):
        plan.clear(SHELF, keys.shelf(shelf))
    plan.clear(SHELF, caller.keys.shelf(members_shelf(subject)))
    plan.clear(INBOX, subject)
    plan.delete(IDENTITY, subject)
    statement = deletion(opened)
    destroy(plan, opened)
    plan.delete(SHELF, caller.keys.shelf(ROLES), caller.keys.locator(subject))
    amend(caller, plan, subject, status="deleted")
    caller.event(plan, "delete", opened.held.key, role=subject, statement=statement)


def set_role_clearance(caller: Caller, name: str, word: str | None) -> Role:
    """How high a role is cleared. Its root is renewed, so that heads of members and grants name the new record."""

    def action(plan: Plan) -> Role:
        caller.must_act()
        opened = _owned(caller, plan, name)
        cleared = level(caller, plan, word) if word is not None else None
        for leaf in unexpired(opened, opened.grants()):
            party = caller.party(plan, leaf.recipient, caller.identity(plan, leaf.recipient).digest)
            if party.clearance < (cleared or 0):
                raise Denied(
                    f"{leaf.recipient} is not cleared as high", hint="remove it first", code="no_clearance"
                )
        change_keys(opened)
        renew_root(caller, plan, opened, clearance=cleared)
        caller.event(plan, "role", opened.held.key, role=opened.held.subject, clearance=word)
        subject = opened.held.subject
        return _view(caller, plan, open_block(caller, plan, find_role(caller, plan, subject)), members=False)

    return caller.transact(action, lock=name, audit=True)
