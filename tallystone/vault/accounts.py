"""Users, tokens, names, recovery: how principals come to be and get in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tallystone import crypto
from tallystone.errors import Denied, Invalid, NotFound, Taken, Tampered, Unauthenticated
from tallystone.keystore import (
    FULL,
    SCOPES,
    Identity,
    Keys,
    Kit,
    Root,
    new_token,
    open_seed,
    parse_kit,
    seal_root,
    token_context,
)
from tallystone.statements import Signed, WorkspaceRecord, issue
from tallystone.store.protocol import Event
from tallystone.store.tables import DIRECTORY, IDENTITY, KIT, PRINCIPAL, TOKEN, WORKSPACE
from tallystone.vault.caller import Caller
from tallystone.vault.events import seal_event
from tallystone.vault.plan import Plan
from tallystone.vault.principals import new_principal
from tallystone.vault.records import Held
from tallystone.vault.shelves import AGENTS, HOUSE, agent_keys, find, find_agent, walk
from tallystone.vault.types import Credentials, Principal, TokenInfo
from tallystone.vault.writing import put_on_shelf

if TYPE_CHECKING:
    from tallystone.vault.workspace import Workspace

NAME_LIMIT = 200
"""Characters of a user's or token's name."""


# -- names ------------------------------------------------------------------------------------------------------


def _house(caller: Caller, plan: Plan) -> Held | None:
    """The shelf row with the workspace-wide keys: the directory's for every user, the auditor's for the root."""
    return find(plan, caller.keys, HOUSE, "workspace")


def _name_context(principal: str) -> bytes:
    return crypto.pae("directory", principal)


def names(caller: Caller, plan: Plan) -> dict[str, str]:
    """{principal: name} of all users; empty for agents, who do not hold the directory's key."""
    house = _house(caller, plan)
    if house is None:
        return {}
    return {
        str(row[1]): crypto.open_sealed(house.key, _name_context(str(row[1])), bytes(row[2])).decode()
        for row in plan.rows(DIRECTORY)
    }


def resolve(caller: Caller, plan: Plan, who: str) -> tuple[str, str]:
    """(name, principal id) for an id or a user's name. Raises `NotFound`."""
    known = names(caller, plan)
    if who.startswith(("user-", "agent-")) and plan.rows(PRINCIPAL, who):
        return known.get(who, ""), who
    for principal, name in known.items():
        if name == who:
            return name, principal
    raise NotFound(
        f"no user {who!r}", hint="list the users with: tallystone user list", code="unknown_principal"
    )


def users(caller: Caller) -> list[Principal]:
    """The users of the workspace."""

    def action(plan: Plan) -> list[Principal]:
        found = [
            Principal(principal, name, "user", caller.identity(plan, principal).record.status)
            for principal, name in names(caller, plan).items()
        ]
        caller.event(plan, "list", users=len(found))
        return found

    return caller.transact(action)


@dataclass(frozen=True)
class Founding:
    """What a new workspace starts from. `auditor` is the X-Wing seed that opens unclaimed events: the root keeps it."""

    record: WorkspaceRecord
    signed: Signed
    identity: Identity
    keys: Keys
    auditor: bytes = field(repr=False)


# -- making users -----------------------------------------------------------------------------------------------


def _welcome(
    workspace: Workspace,
    plan: Plan,
    identity: Identity,
    keys: Keys,
    name: str,
    directory: bytes,
    auditor: bytes,
) -> Credentials:
    """Queue what every new user gets: a name, the directory's key, a token, a kit."""
    kit_seed = crypto.random_bytes()
    plan.put(DIRECTORY, identity.id, crypto.seal(directory, _name_context(identity.id), name.encode()))
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
        extra={"kit": crypto.kem_public(kit_seed)},
    )
    put_on_shelf(plan, keys, HOUSE, "workspace", house)
    plan.put(KIT, identity.id, crypto.age_seal(crypto.kem_public(kit_seed), keys.root.encode(FULL)))
    token = _put_token(workspace, plan, keys.root, identity.id, FULL, None, "")
    kit = Kit(identity.id, name, crypto.age_identity(kit_seed))
    return Credentials(identity.id, token, kit.text)


def check_name(name: str) -> str:
    """A name that people can read and that fits. Raises `Invalid`."""
    name = name.strip()
    if not name or len(name) > NAME_LIMIT or not name.isprintable():
        raise Invalid("a name has 1 to 200 printable characters", hint="for example: alice", code="bad_name")
    if name.startswith(("user-", "agent-", "block-")):
        raise Invalid("a name must not look like an id", hint="for example: alice", code="bad_name")
    return name


def add_user(caller: Caller, name: str) -> Credentials:
    """A new user of the workspace. Only its root may; it gains no access to what the user will own."""
    name = check_name(name)

    def action(plan: Plan) -> Credentials:
        caller.must_act()
        house = _house(caller, plan)
        if caller.id != caller.workspace.record.root or house is None:
            raise Denied("only the workspace's first user adds users", hint="ask them", code="not_root")
        if name in names(caller, plan).values():
            raise Taken(
                f"there is a user named {name!r} already", hint="choose another name", code="name_taken"
            )
        me = caller.identity(plan, caller.id)
        sponsor = (caller.id, me.digest, caller.signing_seed(plan))
        identity, keys = new_principal(plan, caller.workspace.id, "user", caller.keys.root.pin, sponsor)
        made = _welcome(caller.workspace, plan, identity, keys, name, house.key, b"")
        # Sealed anew, so that of two users made at once the second looks at the names again.
        put_on_shelf(plan, caller.keys, HOUSE, "workspace", house)
        caller.event(plan, "principal", principal=identity.id)
        return made

    return caller.transact(action)


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
    made = _welcome(workspace, plan, founding.identity, founding.keys, name, directory, founding.auditor)
    detail = {"kind": "init", "actor": made.principal, "under": ""}
    plan.event("init", seal_event(detail, founding.keys))
    return made


# -- tokens -----------------------------------------------------------------------------------------------------


def _put_token(
    workspace: Workspace, plan: Plan, root: Root, principal: str, scope: str, expires: int | None, label: str
) -> str:
    token, created = new_token(), workspace.now()
    sealed = seal_root(token, root, principal, scope, created, expires)
    key = crypto.derive(root.read, "token/label")
    name = crypto.seal(key, _label_context(token.kid, principal, scope, created, expires), label.encode())
    plan.put(TOKEN, token.kid, principal, scope, created, expires, token.verifier, sealed, name)
    return token.text


def _label_context(kid: str, principal: str, scope: str, created: int, expires: int | None) -> bytes:
    # The row's clear fields: what a list of tokens says about scope and expiry is what was written.
    return crypto.pae("token/label", token_context(kid, principal, scope, created, expires))


def _check_token(scope: str, expires: int | None, label: str, now: int) -> None:
    if scope not in SCOPES:
        raise Invalid(f"unknown scope {scope!r}", hint="use full or read", code="bad_scope")
    if expires is not None and expires <= now:
        raise Invalid("the expiry lies in the past", hint="name a later moment", code="bad_expiry")
    if len(label) > NAME_LIMIT:
        raise Invalid("a token's label has at most 200 characters", hint="shorten it", code="bad_name")


def create_token(caller: Caller, agent_id: str | None, scope: str, expires: int | None, label: str) -> str:
    """Another token for the caller, or one that carries only one of its agents."""
    _check_token(scope, expires, label, caller.workspace.now())

    def action(plan: Plan) -> str:
        caller.must_act()
        if caller.expires is not None and (expires is None or expires > caller.expires):
            raise Invalid(
                "a token cannot make one that outlives it",
                hint="name an expiry no later than this token's own, or use a token that does not end",
                code="bad_expiry",
            )
        keys = caller.keys if agent_id is None else agent_keys(caller, find_agent(caller, plan, agent_id))
        if keys is not caller.keys:
            caller.as_agent(keys).standing(plan)
        text = _put_token(caller.workspace, plan, keys.root, keys.principal, scope, expires, label)
        caller.event(plan, "token", principal=keys.principal, made=text[6:22], scope=scope)
        return text

    return caller.transact(action)


def _reachable(caller: Caller, plan: Plan) -> dict[str, Keys]:
    agents = [] if caller.id.startswith("agent-") else list(walk(plan, caller.keys, AGENTS))
    return {caller.id: caller.keys, **{held.subject: agent_keys(caller, held) for held in agents}}


def tokens(caller: Caller) -> list[TokenInfo]:
    """The caller's tokens, and its agents'."""

    def action(plan: Plan) -> list[TokenInfo]:
        reach = _reachable(caller, plan)
        found = []
        for row in plan.rows(TOKEN):
            keys = reach.get(str(row[2]))
            if keys is not None:
                key = crypto.derive(keys.root.read, "token/label")
                context = _label_context(*row[1:6])
                label = crypto.open_sealed(key, context, bytes(row[8])).decode()
                found.append(TokenInfo(str(row[1]), str(row[2]), str(row[3]), int(row[4]), row[5], label))
        caller.event(plan, "list", tokens=len(found))
        return found

    return caller.transact(action)


def revoke_token(caller: Caller, kid: str) -> None:
    """End one of the caller's tokens, or of its agents'. From the answer on it opens nothing."""

    def action(plan: Plan) -> None:
        caller.must_act()
        row = plan.need(TOKEN, kid)
        if row is None or str(row[2]) not in _reachable(caller, plan):
            raise NotFound(
                f"no token {kid}", hint="list yours with: tallystone token list", code="unknown_token"
            )
        plan.delete(TOKEN, kid)
        caller.event(plan, "token", principal=str(row[2]), revoked=kid)

    caller.transact(action)


# -- recovery ---------------------------------------------------------------------------------------------------


def recover(workspace: Workspace, kit_text: str) -> Credentials:
    """A new token from the recovery kit alone. The kit stays good. Raises `Invalid` or `Unauthenticated`."""
    kit = parse_kit(kit_text)
    seed = crypto.age_seed(kit.identity)
    with workspace.store.snapshot() as snapshot:
        plan = Plan(snapshot)
        row = plan.need(KIT, kit.principal)
        wrong = Unauthenticated(
            "this kit opens nothing here", hint="it may be of another workspace, or older than a renewed root"
        )
        if row is None:
            workspace.denied({"code": "kit"})
            raise wrong
        try:
            root = Root.decode(crypto.age_open(seed, bytes(row[2])))
        except Tampered as error:
            workspace.denied({"code": "kit"})
            raise wrong from error
        keys = Keys(kit.principal, root)
        identity = workspace.identity(plan, kit.principal, root.pin)
        if root.pin != workspace.id or not identity.active or not root.act:
            raise wrong
        seeds = plan.get(IDENTITY, kit.principal)
        if seeds is None:
            raise wrong
        try:
            open_seed(keys, "sign", bytes(seeds[2]))  # the root is this principal's, not another's moved here
        except Tampered as error:
            raise wrong from error
        text = _put_token(workspace, plan, root, kit.principal, FULL, None, "recovered")
    detail = {"kind": "recover", "actor": kit.principal, "under": "", "made": text[6:22]}
    batch = plan.batch()
    batch.events.append(Event("recover", seal_event(detail, keys, (), workspace.auditor_key())))
    workspace.store.commit(batch)
    return Credentials(kit.principal, text, kit_text)
