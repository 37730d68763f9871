"""Keys of model providers that a user seals for itself. Each function is one operation.

They lie in a drawer of the user's own root, so the store does not see whose they are nor for which provider. The key
itself is sealed once more under the half of the root that acts: a read-only token lists what there is, and opens none.
It is bound to the origin that it may be sent to; for any other it does not open. An agent's own token has neither half
of its user's root, so it reaches none of them.
"""

from __future__ import annotations

import re

from tallystone import crypto
from tallystone.errors import Denied, Invalid, NotFound
from tallystone.keystore import Keys
from tallystone.vault import streams
from tallystone.vault.caller import Caller
from tallystone.vault.plan import Plan
from tallystone.vault.types import ModelKeyInfo

MODEL_KEY: streams.Name = ("model-key",)
"""The drawer: a record for each provider."""

# It becomes a part of a header: whatever could end or split that is no key.
_KEY = re.compile(r"[!-~]{1,4096}")


def _context(principal: str, provider: str, origin: str) -> bytes:
    return crypto.pae("model-key", principal, provider, origin)


def _owner(caller: Caller) -> None:
    caller.must_act()
    if caller.id.startswith("agent-"):
        raise Denied("an agent keeps no model keys", hint="use its user's token", code="agent_token")


def set_model_key(caller: Caller, provider: str, key: str, origin: str) -> ModelKeyInfo:
    """Seal a key for a provider, in place of the one before. Raises `Invalid` for what can be no key."""

    def action(plan: Plan) -> ModelKeyInfo:
        _owner(caller)
        if not _KEY.fullmatch(key):
            raise Invalid(
                "this is no model key: it should be 1 to 4096 printable characters without spaces",
                hint="as its provider shows it",
            )
        sealed = crypto.seal(caller.keys.spend, _context(caller.id, provider, origin), key.encode())
        made = ModelKeyInfo(provider, origin, caller.workspace.now())
        record = {"provider": provider, "origin": origin, "created": made.created, "key": sealed}
        streams.put(plan, caller.keys, MODEL_KEY, provider, record)
        caller.event(plan, "update", model_key=provider, origin=origin)
        return made

    return caller.transact(action)


def model_keys(caller: Caller) -> list[ModelKeyInfo]:
    """What the caller has sealed, by provider."""

    def action(plan: Plan) -> list[ModelKeyInfo]:
        records = [record for _, record in streams.walk(plan, caller.keys, MODEL_KEY)]
        found = [ModelKeyInfo(one["provider"], one["origin"], one["created"]) for one in records]
        caller.event(plan, "list", model_keys=len(found))
        return sorted(found, key=lambda one: one.provider)

    return caller.transact(action)


def remove_model_key(caller: Caller, provider: str) -> None:
    """Forget the key for a provider. A turn under way goes on with it to its end."""

    def action(plan: Plan) -> None:
        _owner(caller)
        if streams.find(plan, caller.keys, MODEL_KEY, provider) is None:
            raise NotFound(f"no model key for {provider}", hint="list yours with: tallystone model key list")
        streams.drop(plan, caller.keys, MODEL_KEY, provider)
        caller.event(plan, "delete", model_key=provider)

    caller.transact(action)


def open_model_key(caller: Caller, provider: str, origin: str) -> str | None:
    """The caller's key for a provider, if it has one that may be sent to this origin."""
    keys = caller.keys
    if caller.id.startswith("agent-") or not keys.can_act:
        return None
    with caller.workspace.store.snapshot() as snapshot:
        if _sealed(Plan(snapshot), keys, provider, origin) is None:
            return None  # nothing is handed out, so nothing is logged

    def action(plan: Plan) -> str | None:
        sealed = _sealed(plan, keys, provider, origin)
        if sealed is None:  # gone meanwhile
            return None
        key = crypto.open_sealed(keys.spend, _context(caller.id, provider, origin), sealed).decode()
        caller.event(plan, "read", model_key=provider)
        return key

    return caller.transact(action)


def rehoused(old: Keys, new: Keys, record: streams.Entry) -> streams.Entry:
    """The record of a key under the next root of its principal."""
    context = _context(old.principal, record["provider"], record["origin"])
    key = crypto.open_sealed(old.spend, context, record["key"])
    return {**record, "key": crypto.seal(new.spend, context, key)}


def _sealed(plan: Plan, keys: Keys, provider: str, origin: str) -> bytes | None:
    record = streams.find(plan, keys, MODEL_KEY, provider)
    return bytes(record["key"]) if record is not None and record["origin"] == origin else None
