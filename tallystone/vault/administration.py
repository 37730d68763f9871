"""The part of a vault that is about people and the workspace: users, invitations, tokens, the charter."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime

from tallystone.errors import Invalid
from tallystone.keystore import ACTIVE, SUSPENDED
from tallystone.vault import (
    accounts,
    auditing,
    charter,
    invitations,
    logkey,
    model_keys,
    renewing,
    roles,
    tokens,
)
from tallystone.vault.caller import Caller
from tallystone.vault.rotated import Rotated
from tallystone.vault.types import (
    CharterView,
    Credentials,
    InviteInfo,
    ModelKeyInfo,
    Principal,
    TokenInfo,
)


class Administration:
    """What `Vault` does that concerns no block. Each method is one operation, as there."""

    _caller: Caller

    # -- users --------------------------------------------------------------------------------------------------

    def users(self) -> list[Principal]:
        """The users of the workspace."""
        return accounts.users(self._caller)

    def add_user(self, name: str, *, clearance: str | None = None) -> Credentials:
        """A new user, with a token and a recovery kit that exist nowhere else. `clearance` names a level. Only the
        workspace's first user may."""
        return accounts.add_user(self._caller, name, clearance)

    def invite(self, name: str, *, clearance: str | None = None, days: int = 7) -> str:
        """The code that makes one user with this name, redeemed within `days` by `Workspace.redeem`: whoever has it
        first is that user. Only the workspace's first user may."""
        return invitations.invite(self._caller, name, clearance, days)

    def invitations(self) -> list[InviteInfo]:
        """What is still to be redeemed. Only for the workspace's first user."""
        return invitations.invitations(self._caller)

    def revoke_invitation(self, kid: str) -> None:
        """Take an invitation back. Only the workspace's first user may."""
        invitations.revoke_invitation(self._caller, kid)

    def suspend(self, who: str) -> None:
        """Stop a user (by name or id; the workspace's first user may) or one of the caller's agents. Until `resume`
        its tokens open nothing; a user's agents stop with it. What it shares stays shared."""
        accounts.set_status(self._caller, who, SUSPENDED)

    def resume(self, who: str) -> None:
        """Let a suspended user or agent go on."""
        accounts.set_status(self._caller, who, ACTIVE)

    def set_clearance(self, who: str, level: str | None) -> None:
        """The highest level that a user (the workspace's first user says) or one of the caller's agents may be granted.
        None: the lowest for a user, its sponsor's for an agent. A role's owner says it for a role (by id). Raises
        `Invalid` (`unknown_level`)."""
        if who.startswith("role-"):
            roles.set_role_clearance(self._caller, who, level)
            return
        accounts.set_clearance(self._caller, who, level)

    # -- tokens -------------------------------------------------------------------------------------------------

    def tokens(self) -> list[TokenInfo]:
        """The caller's tokens and its agents'."""
        return tokens.tokens(self._caller)

    def create_token(self, *, scope: str = "full", expires: datetime | None = None, label: str = "") -> str:
        """Another token for the caller. `expires` must be aware of its time zone."""
        return tokens.create_token(self._caller, None, scope, _seconds(expires), label)

    def agent_token(
        self, agent_id: str, *, scope: str = "full", expires: datetime | None = None, label: str = ""
    ) -> str:
        """A token that carries only this agent."""
        return tokens.create_token(self._caller, agent_id, scope, _seconds(expires), label)

    def revoke_token(self, kid: str) -> None:
        """End a token of the caller's or its agents'."""
        tokens.revoke_token(self._caller, kid)

    def rotate_principal(
        self,
        who: str = "",
        *,
        progress: Callable[[int, int], None] | None = None,
    ) -> Rotated:
        """A new root for the caller, or for one of its agents: ends all tokens of the old one but this, and renews the
        keys that it knew. `progress` is called with (done, of). Interrupted, call it again."""
        return renewing.rotate_principal(self._caller, who, replace_token=False, progress=progress, told=None)

    def revoke_compromised(
        self,
        kid: str,
        *,
        progress: Callable[[int, int], None] | None = None,
        told: Callable[[str], None] | None = None,
    ) -> Rotated:
        """End a token that somebody else may have, with a new root for its principal. If it is this very token, the
        answer has one that replaces it; `told` hears of that one at once, before the rest is done."""
        return renewing.rotate_for_token(self._caller, kid, progress=progress, told=told)

    # -- the log's key ------------------------------------------------------------------------------------------

    def rotate_log_key(self) -> str:
        """A new key for the log, named by the workspace's first user, who alone may. Checkpoints are signed with it
        from now on; the former one counts for the earlier ones alone. Returns the new verifier key."""
        logkey.rotate_log_key(self._caller)
        return self._caller.workspace.log.key

    # -- keys of model providers --------------------------------------------------------------------------------

    def set_model_key(self, provider: str, key: str, origin: str) -> ModelKeyInfo:
        """Seal the caller's own key for a model provider, in place of the one before. It is sent to `origin` and to no
        other, by turns under the caller's own tokens of scope full."""
        return model_keys.set_model_key(self._caller, provider, key, origin)

    def model_keys(self) -> list[ModelKeyInfo]:
        """What the caller has sealed, without the keys."""
        return model_keys.model_keys(self._caller)

    def remove_model_key(self, provider: str) -> None:
        """Forget the caller's key for a provider."""
        model_keys.remove_model_key(self._caller, provider)

    def open_model_key(self, provider: str, origin: str) -> str | None:
        """The caller's key for a provider, if it has one for this origin; None under an agent's own token."""
        return model_keys.open_model_key(self._caller, provider, origin)

    # -- the charter --------------------------------------------------------------------------------------------

    def charter(self) -> CharterView:
        """The workspace's own rules."""
        return charter.read_charter(self._caller)

    def set_charter(
        self,
        *,
        trust: bool | None = None,
        levels: Iterable[str] | None = None,
        max_grants: int | None = None,
        audit: Mapping[str, str] | None = None,
    ) -> CharterView:
        """Change some of them. `trust`: what members share with each other needs no acceptance. `levels`: their names,
        lowest first, renamed in place or added at the end. `audit`: by name, the audit level that its blocks have at
        least. Only the workspace's first user may. Raises `Invalid`."""
        return charter.set_charter(
            self._caller, trust=trust, levels=levels, max_grants=max_grants, audit=audit
        )

    # -- auditors -----------------------------------------------------------------------------------------------

    def auditors(self) -> list[str]:
        """The ids of the users who see what concerns no block, beside the workspace's first."""
        return auditing.auditors(self._caller)

    def grant_audit(self, who: str, *, history: bool = False) -> str:
        """Let a user see it from now on, with `history` from the beginning. Only the workspace's first user may.
        Returns the user's id."""
        return auditing.grant_audit(self._caller, who, history=history)

    def end_audit(self, who: str) -> str:
        """Take that away: the user opens no newer event. Only the workspace's first user may. Returns its id."""
        return auditing.end_audit(self._caller, who)


def _seconds(moment: datetime | None) -> int | None:
    if moment is None:
        return None
    if moment.tzinfo is None:
        raise Invalid(
            "an expiry needs a time zone", hint="for example 2027-01-31T00:00:00Z", code="bad_expiry"
        )
    return int(moment.timestamp())
