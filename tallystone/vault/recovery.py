"""Recovery: a kit that was printed gets its user back in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tallystone import crypto
from tallystone.errors import Conflict, Tampered, Unauthenticated
from tallystone.keystore import FULL, Keys, Kit, Root, open_seed, parse_kit
from tallystone.store.protocol import Event
from tallystone.store.tables import IDENTITY, KIT, PRINCIPAL
from tallystone.vault.caller import ATTEMPTS, Caller
from tallystone.vault.events import seal_event
from tallystone.vault.plan import Plan
from tallystone.vault.tokens import put_token
from tallystone.vault.types import Credentials

if TYPE_CHECKING:
    from tallystone.vault.workspace import Workspace


def recover(workspace: Workspace, kit_text: str) -> Credentials:
    """A new token from the recovery kit alone. The kit stays good. Raises `Invalid` or `Unauthenticated`, the latter
    also for a user that is suspended."""
    kit = parse_kit(kit_text)
    for _ in range(ATTEMPTS):
        try:
            return Credentials(kit.principal, _new_token(workspace, kit), kit_text)
        except Conflict as error:
            if error.code != "conflict":
                raise
    raise Conflict("the user is changing too fast", hint="try again", code="contended")


def _new_token(workspace: Workspace, kit: Kit) -> str:
    with workspace.store.snapshot() as snapshot:
        plan = Plan(snapshot)
        keys = _open(workspace, plan, kit, crypto.age_seed(kit.identity))
        if keys is None:
            workspace.denied({"code": "kit"})
            raise Unauthenticated(
                "this kit opens nothing here",
                hint="it may be of another workspace, of a user that is suspended, or older than a renewed root",
            )
        text = put_token(workspace, plan, keys.root, kit.principal, FULL, None, "recovered")
        auditor = workspace.auditor_key(plan)
    detail = {"kind": "recover", "actor": kit.principal, "under": "", "made": text[6:22]}
    batch = plan.batch()
    batch.events.append(Event("recover", seal_event(detail, keys, (), auditor)))
    workspace.store.commit(batch)
    return text


def _open(workspace: Workspace, plan: Plan, kit: Kit, seed: bytes) -> Keys | None:
    """The keys that a kit opens, if they are those of an active user of this workspace."""
    row = plan.need(KIT, kit.principal)
    seeds = plan.get(IDENTITY, kit.principal)
    if row is None or seeds is None:
        return None
    try:
        root = Root.decode(crypto.age_open(seed, bytes(row[2])), workspace.shreds.get)
        keys = Keys(kit.principal, root)
        if root.pin != workspace.id or not root.act:
            return None
        open_seed(keys, "sign", bytes(seeds[2]))  # the root is this principal's, not another's moved here
    except (Tampered, Unauthenticated):
        return None
    identity = workspace.identity(plan, kit.principal, root.pin)
    plan.need(PRINCIPAL, kit.principal, identity.record.serial + 1)
    return keys if identity.active else None


class KitCaller(Caller):
    """Whoever holds a recovery kit, for what must be done before a token can be made: no token is asked for."""

    def check(self, plan: Plan) -> None:
        """What must hold at the moment of the commit: the standing of the kit's user."""
        self.standing(plan)


def kit_caller(workspace: Workspace, kit_text: str) -> Caller:
    """The user of a recovery kit. Raises `Invalid` or `Unauthenticated`."""
    kit = parse_kit(kit_text)
    with workspace.store.snapshot() as snapshot:
        keys = _open(workspace, Plan(snapshot), kit, crypto.age_seed(kit.identity))
    if keys is None:
        raise Unauthenticated("this kit opens nothing here", hint="it may be of another workspace")
    return KitCaller(workspace, keys, (1, "", kit.principal, FULL, 0, None), crypto.random_bytes)
