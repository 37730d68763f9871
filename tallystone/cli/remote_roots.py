"""New roots and compromised tokens, over the HTTP routes."""

from __future__ import annotations

from collections.abc import Callable

from tallystone.cli import values
from tallystone.cli.verbs import Verbs
from tallystone.cli.wire import path
from tallystone.vault.rotated import Rotated


class RemoteRoots(Verbs):
    """What a remote vault does about roots. The server does the work in one request, so `progress` hears nothing."""

    def rotate_principal(
        self, who: str = "", *, progress: Callable[[int, int], None] | None = None
    ) -> Rotated:
        """A new root for the caller (`me`, its name or id), or for one of its agents."""
        del progress
        return values.rotated(self._post(path("users", who or "me", "rotate")))

    def revoke_compromised(
        self,
        kid: str,
        *,
        progress: Callable[[int, int], None] | None = None,
        told: Callable[[str], None] | None = None,
    ) -> Rotated:
        """End a token that somebody else may have, with a new root for its principal."""
        del progress
        done = values.rotated(self._post(path("tokens", kid, "compromised")))
        if done.token is not None and told is not None:
            told(done.token)
        return done
