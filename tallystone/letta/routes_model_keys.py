"""`/v1/model-keys/…`: keys of model providers that the caller seals for itself. Ours; no answer ever holds a key."""

from __future__ import annotations

from typing import Any

from tallystone.letta import bodies
from tallystone.letta.call import Answer, Call
from tallystone.letta.messages import date_json
from tallystone.letta.providers import own_origin, provider_named
from tallystone.vault.types import ModelKeyInfo


def _json(known: ModelKeyInfo) -> dict[str, Any]:
    return {
        "provider": known.provider,
        "origin": known.origin,
        "created_at": date_json(known.created * 1000),
    }


def put(call: Call) -> Answer:
    """`PUT /v1/model-keys/{provider}`: seal a key, in place of the one before."""
    body = bodies.decode(call.body, bodies.ModelKeyPut)
    call.vault.check_may_act()
    provider = provider_named(call.params["provider"])
    origin = own_origin(provider, body.origin)
    return Answer(_json(call.vault.set_model_key(provider, body.key.strip(), origin)))


def list_(call: Call) -> Answer:
    """`GET /v1/model-keys/`: for which providers, and where each may be sent."""
    return Answer([_json(known) for known in call.vault.model_keys()])


def delete(call: Call) -> Answer:
    """`DELETE /v1/model-keys/{provider}`."""
    call.vault.check_may_act()
    call.vault.remove_model_key(provider_named(call.params["provider"]))
    return Answer(None)
