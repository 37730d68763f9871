"""The users of a workspace: their names, how they come to be, and whether they may act."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tallystone import crypto
from tallystone.errors import Denied, Invalid, Taken
from tallystone.keystore import ACTIVE, FULL, SUSPENDED, Identity, Keys, Kit, open_listed, open_seed
from tallystone.statements import Signed, WorkspaceRecord, issue
from tallystone.store.tables import IDENTITY, INVITE, KIT, WORKSPACE
from tallystone.vault.caller import Caller
from tallystone.vault.directory import enter_name, house_of, name_is_taken, names, resolve
from tallystone.vault.events import seal_event
from tallystone.vault.levels import level, level_name
from tallystone.vault.opening import missing
from tallystone.vault.plan import Plan
from tallystone.vault.principals import amend, nested, new_principal
from tallystone.vault.records import Held
from tallystone.vault.shelves import HOUSE, find_agent
from tallystone.vault.tokens import put_token
from tallystone.vault.types import Credentials, Principal
from tallystone.vault.writing import put_on_shelf

if TYPE_CHECKING:
    from tallystone.vault.workspace import Workspace

NAME_LIMIT = 200
"""Characters of a user's name."""


# -- who there is ---------------------------------------------------------------------------------------------


def users(caller: Caller) -> list[Principal]:
    """The users of the workspace."""

    def action(plan: Plan) -> list[Principal]:
        found = [
            _shown(caller, plan, caller.identity(plan, principal), name)
            for principal, name in names(caller, plan).users()
        ]
        caller.event(plan, "list", users=len(found))
        return found

    return caller.transact(action)


def _shown(caller: Caller, plan: Plan, identity: Identity, name: str) -> Principal:
    cleared = caller.party(plan, identity.id, identity.digest).clearance
    record = identity.record
    return Principal(identity.id, name, record.kind, record.status, level_name(caller, plan, cleared))


@dataclass(frozen=True)
class Founding:
    """What a new workspace starts from. `auditor` is the X-Wing seed that opens unclaimed events: the root keeps it."""

    record: WorkspaceRecord
    signed: Signed
    identity: Identity
    keys: Keys
    auditor: bytes = field(repr=False)


# -- making users -----------------------------------------------------------------------------------------------


def welcome(
    workspace: Workspace,
    plan: Plan,
    identity: Identity,
    keys: Keys,
    name: str,
    directory: bytes,
    auditor: bytes,
    *,
    invited: bool = False,
) -> Credentials:
    """Queue what every new user gets: a shred key, a name, the directory's key, a token, a kit."""
    kit_seed, keys = crypto.random_bytes(), nested(workspace, keys)
    enter_name(workspace, plan, directory, identity.id, name, keys.root.nest)
    house = Held(
        "workspace",
        b"",
        0,
        directory,
        identity.id,
        HOUSE,
        "accepted",
        workspace.next_position(),
        admin=auditor,
        extra={"kit": crypto.kem_public(kit_seed), "nested": not invited},
    )
    put_on_shelf(plan, keys, HOUSE, "workspace", house)
    plan.put(KIT, identity.id, crypto.age_seal(crypto.kem_public(kit_seed), keys.root.encode(FULL)))
    token = put_token(workspace, plan, keys.root, identity.id, FULL, None, "")
    kit = Kit(identity.id, name, crypto.age_identity(kit_seed))
    return Credentials(identity.id, token, kit.text)


def check_name(name: str) -> str:
    """A name that people can read and that fits. Raises `Invalid`."""
    name = name.strip()
    if not name or len(name) > NAME_LIMIT or not name.isprintable():
        raise Invalid("a name has 1 to 200 printable characters", hint="for example: alice", code="bad_name")
    if name.startswith(("user-", "agent-", "block-", "role-")):
        raise Invalid("a name must not look like an id", hint="for example: alice", code="bad_name")
    return name


def root_house(caller: Caller, plan: Plan, what: str) -> Held:
    """The workspace-wide keys, for what the root alone does. Raises `Denied`.

    The row is sealed anew, so that of two who are given names at once the second looks at the names again.
    """
    caller.must_act()
    caller.must_be_root(what)
    house = house_of(caller, plan)
    if house is None:
        raise Denied("this token does not reach the users' names", code="not_root")
    put_on_shelf(plan, caller.keys, HOUSE, "workspace", house)
    return house


def check_free(workspace: Workspace, plan: Plan, directory: bytes, name: str) -> None:
    """Raises `Taken` if a user has this name."""
    if name_is_taken(workspace, plan, directory, name):
        raise Taken(f"there is a user named {name!r} already", hint="choose another name", code="name_taken")


def check_unclaimed(workspace: Workspace, plan: Plan, directory: bytes, name: str) -> None:
    """Raises `Taken` if a user has this name, or will once an invitation is redeemed. An expired one for it goes."""
    check_free(workspace, plan, directory, name)
    now = workspace.now()
    for row in plan.rows(INVITE):
        kid, expires = str(row[1]), int(row[2])
        if open_listed(directory, kid, expires, bytes(row[4]))[0] != name:
            continue
        plan.need(INVITE, kid)
        if now < expires:
            raise Taken(
                f"{name!r} is invited already",
                hint=f"choose another name, or take back invitation {kid}",
                code="name_taken",
            )
        plan.delete(INVITE, kid)


def add_user(caller: Caller, name: str, clearance: str | None = None) -> Credentials:
    """A new user of the workspace. Only its root may; it gains no access to what the user will own. `clearance` names
    a level. Raises `Denied`, `Taken`, `Invalid`."""
    name = check_name(name)

    def action(plan: Plan) -> Credentials:
        house = root_house(caller, plan, "adds users")
        check_unclaimed(caller.workspace, plan, house.key, name)
        me = caller.identity(plan, caller.id)
        sponsor = (caller.id, me.digest, caller.signing_seed(plan))
        cleared = None if clearance is None else level(caller, plan, clearance)
        pin = caller.keys.root.pin
        identity, keys = new_principal(plan, caller.workspace.id, "user", pin, sponsor, cleared)
        made = welcome(caller.workspace, plan, identity, keys, name, house.key, b"")
        caller.event(plan, "principal", principal=identity.id)
        return made

    return caller.transact(action, audit=True)


def found_workspace(plan: Plan, log_public: bytes, now: int) -> Founding:
    """Queue the first rows of a workspace in an empty store: its root user and its record."""
    identity, keys = new_principal(plan, b"", "user", b"", None)
    auditor = crypto.random_bytes()
    record = WorkspaceRecord(identity.id, crypto.kem_public(auditor), log_public, now)
    row = plan.get(IDENTITY, identity.id)
    assert row is not None  # queued by new_principal
    seed = open_seed(keys, "sign", bytes(row[2]))
    signed = issue("workspace", identity.digest, record.encode(), [(identity.digest, seed)])
    plan.put(WORKSPACE, identity.digest, signed.encode())
    return Founding(record, signed, identity, keys, auditor)


def welcome_root(workspace: Workspace, plan: Plan, founding: Founding, name: str) -> Credentials:
    """Queue what the first user gets, and the first event."""
    directory = crypto.random_bytes()
    name = check_name(name)
    made = welcome(workspace, plan, founding.identity, founding.keys, name, directory, founding.auditor)
    detail = {"kind": "init", "actor": made.principal, "under": ""}
    plan.event("init", seal_event(detail, founding.keys))
    return made


# -- standing ---------------------------------------------------------------------------------------------------


def _governed(caller: Caller, plan: Plan, who: str, what: str) -> Identity:
    """Whose standing the caller may change: its own agents', and for the root every user's. Raises `NotFound` for
    another's agent as for none, `Denied` for users. Roles have no standing of their own: what bounds them is in
    their block."""
    caller.must_act()
    if who.startswith("agent-"):
        find_agent(caller, plan, who)
        identity = caller.current(plan, who)
        if identity.record.sponsor != caller.id:
            raise missing("Agent", who)
        return identity
    caller.must_be_root(what)
    return caller.current(plan, resolve(caller, plan, who)[1])


def set_status(caller: Caller, who: str, status: str) -> None:
    """Stop a user or agent (`suspended`), or let it go on (`active`). It keeps what it owns and was granted; while it
    is suspended neither it nor, for a user, its agents get in. Raises `Invalid` if it is so already, or is the root."""

    def action(plan: Plan) -> None:
        identity = _governed(caller, plan, who, "suspends and resumes users")
        if identity.id == caller.workspace.record.root:
            raise Invalid(
                "the workspace's first user cannot be suspended",
                hint="revoke its tokens instead: tallystone token revoke",
                code="is_root",
            )
        if identity.record.status == status:
            raise Invalid(f"{who} is {status} already", hint="nothing was changed", code=f"already_{status}")
        if identity.record.status not in (ACTIVE, SUSPENDED):
            raise Invalid(f"{who} is {identity.record.status} for good", code="deleted")
        amend(caller, plan, identity.id, status=status)
        caller.event(plan, "principal", principal=identity.id, status=status)

    caller.transact(action, audit=True)


def set_clearance(caller: Caller, who: str, word: str | None) -> None:
    """How sensitive a block a user or agent may be granted: the name of a level. None for the lowest, for an agent for
    its sponsor's, which bounds it in any case. Raises `Invalid` (`unknown_level`)."""

    def action(plan: Plan) -> None:
        identity = _governed(caller, plan, who, "clears users")
        number = None if word is None else level(caller, plan, word)
        if identity.record.clearance != number:
            amend(caller, plan, identity.id, clearance=number)
        caller.event(plan, "principal", principal=identity.id, clearance=word or "")

    caller.transact(action, audit=True)
