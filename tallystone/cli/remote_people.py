"""Principals, tokens, the charter and keys of model providers, over the HTTP routes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

from tallystone.cli import values
from tallystone.cli.verbs import Verbs
from tallystone.cli.wire import path
from tallystone.vault.types import CharterView, Credentials, InviteInfo, ModelKeyInfo, Principal, TokenInfo


class RemotePeople(Verbs):
    """What a remote vault does about who may come in, and with what."""

    def users(self) -> list[Principal]:
        """The users of the workspace."""
        return [values.plain(Principal, item) for item in self._get("/v1/users")]

    def add_user(self, name: str, *, clearance: str | None = None) -> Credentials:
        """A new user, with a token and a recovery kit that exist nowhere else."""
        return values.plain(Credentials, self._post("/v1/users", {"name": name, "clearance": clearance}))

    def suspend(self, who: str) -> None:
        """Stop a user, or one of the caller's agents."""
        self._post(path("users", who, "suspend"))

    def resume(self, who: str) -> None:
        """Let it go on."""
        self._post(path("users", who, "resume"))

    def set_clearance(self, who: str, level: str | None) -> None:
        """The highest level that a user, one of the caller's agents or roles may be granted."""
        kind = "roles" if who.startswith("role-") else "users"
        self._patch(path(kind, who), {"clearance": level})

    def invite(self, name: str, *, clearance: str | None = None, days: int = 7) -> str:
        """The code that makes one user with this name."""
        body = {"name": name, "clearance": clearance, "days": days}
        return str(self._post("/v1/invitations", body)["code"])

    def invitations(self) -> list[InviteInfo]:
        """What is still to be redeemed."""
        return [values.invitation(item) for item in self._get("/v1/invitations")]

    def revoke_invitation(self, kid: str) -> None:
        """Take an invitation back."""
        self._delete(path("invitations", kid))

    def charter(self) -> CharterView:
        """The workspace's own rules."""
        return values.charter(self._get("/v1/charter"))

    def set_charter(
        self,
        *,
        trust: bool | None = None,
        levels: Iterable[str] | None = None,
        max_grants: int | None = None,
        audit: Mapping[str, str] | None = None,
    ) -> CharterView:
        """Change some of them."""
        named = None if levels is None else list(levels)
        body = {"trust": trust, "levels": named, "max_grants": max_grants, "audit": audit}
        return values.charter(self._patch("/v1/charter", body))

    def tokens(self) -> list[TokenInfo]:
        """The caller's tokens and its agents'."""
        return [values.token(item) for item in self._get("/v1/tokens")]

    def create_token(self, *, scope: str = "full", expires: datetime | None = None, label: str = "") -> str:
        """Another token for the caller."""
        return self._new_token({"scope": scope, "label": label}, expires)

    def agent_token(
        self, agent_id: str, *, scope: str = "full", expires: datetime | None = None, label: str = ""
    ) -> str:
        """A token that carries only this agent."""
        return self._new_token({"agent_id": agent_id, "scope": scope, "label": label}, expires)

    def _new_token(self, body: dict[str, str], expires: datetime | None) -> str:
        if expires is not None:
            body["expires"] = expires.isoformat()
        return str(self._post("/v1/tokens", body)["token"])

    def revoke_token(self, kid: str) -> None:
        """End a token of the caller's or its agents'."""
        self._delete(path("tokens", kid))

    # -- keys of model providers --

    def set_model_key(self, provider: str, key: str, origin: str) -> ModelKeyInfo:
        """Seal the caller's own key for a provider, to be sent to `origin` alone."""
        body = {"key": key, "origin": origin}
        return values.model_key(self._wire.call("PUT", path("model-keys", provider), body)[0])

    def model_keys(self) -> list[ModelKeyInfo]:
        """What the caller has sealed, without the keys."""
        return [values.model_key(item) for item in self._get("/v1/model-keys/")]

    def remove_model_key(self, provider: str) -> None:
        """Forget the caller's key for a provider."""
        self._delete(path("model-keys", provider))
