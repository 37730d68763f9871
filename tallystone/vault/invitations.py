"""Invitations: the root names a user and passes on a code; the user's keys are made where it is redeemed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tallystone import crypto
from tallystone.errors import Conflict, Invalid, NotFound, Tampered, Unauthenticated
from tallystone.keystore import (
    Carried,
    Invite,
    new_invite,
    open_invitation,
    open_listed,
    parse_invite,
    seal_invitation,
)
from tallystone.statements import Invitation
from tallystone.store.protocol import Event, Row
from tallystone.store.tables import INVITE
from tallystone.vault.accounts import (
    check_free,
    check_name,
    check_unclaimed,
    root_house,
    welcome,
)
from tallystone.vault.caller import ATTEMPTS, Caller
from tallystone.vault.directory import house_of
from tallystone.vault.events import seal_event
from tallystone.vault.levels import level, level_name
from tallystone.vault.plan import Plan
from tallystone.vault.principals import new_principal
from tallystone.vault.types import Credentials, InviteInfo

if TYPE_CHECKING:
    from tallystone.vault.workspace import Workspace

LONGEST = 365
"""Days that an invitation may wait."""


def invite(caller: Caller, name: str, clearance: str | None, days: int) -> str:
    """The code of an invitation for one user with this name, to be passed on in private: whoever redeems it first is
    that user. Only the root invites. Raises `Denied`, `Taken`, `Invalid`."""
    name = check_name(name)
    if type(days) is not int or not 1 <= days <= LONGEST:
        raise Invalid(f"an invitation waits 1 to {LONGEST} days", hint="for example 7", code="bad_expiry")

    def action(plan: Plan) -> str:
        house = root_house(caller, plan, "invites users")
        now = caller.workspace.now()
        check_unclaimed(caller.workspace, plan, house.key, name)
        fresh, expires = new_invite(), now + days * 86400
        word = Invitation(
            kid=fresh.kid,
            public=crypto.signing_public(fresh.signing_seed()),
            clearance=None if clearance is None else level(caller, plan, clearance),
            expires=expires,
            issuer=caller.id,
            issuer_record=caller.identity(plan, caller.id).digest,
        )
        signed = caller.sign(plan, "invitation", word.encode())
        carried = Carried(name, house.key, caller.keys.root.pin, signed)
        plan.put(INVITE, fresh.kid, expires, fresh.verifier, seal_invitation(fresh, expires, carried))
        caller.event(plan, "invite", invite=fresh.kid, expires=expires)
        return fresh.text

    return caller.transact(action, audit=True)


def invitations(caller: Caller) -> list[InviteInfo]:
    """Those that nobody has redeemed and that have not expired. Only the root's to see."""

    def action(plan: Plan) -> list[InviteInfo]:
        caller.must_be_root("sees invitations")
        house, now = house_of(caller, plan), caller.workspace.now()
        found = []
        if house is not None:
            waiting = [row for row in plan.rows(INVITE) if now < int(row[2])]
            found = [_shown(caller, plan, house.key, row) for row in waiting]
        caller.event(plan, "list", invitations=len(found))
        return found

    return caller.transact(action)


def _shown(caller: Caller, plan: Plan, directory: bytes, row: Row) -> InviteInfo:
    kid, expires = str(row[1]), int(row[2])
    name, cleared = open_listed(directory, kid, expires, bytes(row[4]))
    return InviteInfo(kid, name, level_name(caller, plan, cleared or 0), expires)


def revoke_invitation(caller: Caller, kid: str) -> None:
    """Take an invitation back. Its code opens nothing from the answer on. Raises `Denied`, `NotFound`."""

    def action(plan: Plan) -> None:
        caller.must_act()
        caller.must_be_root("takes invitations back")
        if plan.need(INVITE, kid) is None:
            # said without repeating it: it may be a whole code
            raise NotFound(
                "no such invitation", hint="it may be redeemed or expired already", code="unknown_invitation"
            )
        plan.delete(INVITE, kid)
        caller.event(plan, "invite", revoked=kid)

    caller.transact(action)


def redeem(workspace: Workspace, code: str) -> Credentials:
    """The user that a code makes: its keys are made here, its token and its kit exist nowhere else. Of several who
    redeem one code at once, one succeeds. Raises `Unauthenticated`, `Taken`."""
    try:
        parsed = parse_invite(code)
    except Unauthenticated as error:
        raise _refused(workspace) from error
    for _ in range(ATTEMPTS):
        with workspace.store.snapshot() as snapshot:
            plan = Plan(snapshot)
            row = plan.need(INVITE, parsed.kid)
            if not _stands(row, parsed, workspace.now()):
                break
            assert row is not None  # or it would not stand
            made, detail = _join(workspace, plan, parsed, row)
        batch = plan.batch()
        batch.events.append(Event("principal", detail))
        try:
            workspace.store.commit(batch)
        except Conflict as error:
            if error.code != "conflict":
                raise
            continue
        return made
    raise _refused(workspace)


def _stands(row: Row | None, parsed: Invite, now: int) -> bool:
    # The same work whether or not the row exists, so that time says nothing about which kids do.
    known = crypto.equal(parsed.verifier, bytes(row[3]) if row else bytes(32))
    return row is not None and known and now < int(row[2])


def _refused(workspace: Workspace) -> Unauthenticated:
    workspace.denied({"code": "invite"})
    return Unauthenticated(
        "this invitation opens nothing here",
        hint="it may be mistyped, used, expired, taken back, or of another server; ask for a new one",
    )


def _join(workspace: Workspace, plan: Plan, parsed: Invite, row: Row) -> tuple[Credentials, bytes]:
    """Queue the new user and the end of the invitation. Returns what the user gets, and the event's details."""
    kid, expires = str(row[1]), int(row[2])
    carried = open_invitation(parsed, expires, bytes(row[4]))
    workspace.check_record(plan, carried.pin)
    root = workspace.identity(plan, workspace.record.root, carried.pin)
    word = Invitation.decode(carried.word.body)
    if (
        carried.word.type != "invitation"
        or not root.signed(carried.word, workspace.id, word.issuer_record)
        or (word.kid, word.expires, word.issuer) != (kid, expires, root.id)
        or word.public != crypto.signing_public(parsed.signing_seed())
    ):
        raise Tampered("an invitation is not the root's word")
    plan.delete(INVITE, kid)
    check_free(workspace, plan, carried.directory, carried.name)
    sponsor = (root.id, carried.word.encode(), parsed.signing_seed())
    identity, keys = new_principal(plan, workspace.id, "user", carried.pin, sponsor, word.clearance)
    made = welcome(workspace, plan, identity, keys, carried.name, carried.directory, b"", invited=True)
    detail = {
        "kind": "principal",
        "actor": identity.id,
        "under": "",
        "principal": identity.id,
        "invite": kid,
    }
    return made, seal_event(detail, keys, (), workspace.auditor_key(plan))
