"""`tallystone token`: the caller's bearer tokens. A token is a key; the store keeps nothing that shows it again."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal

from cyclopts import Parameter

from tallystone.cli.group import command, group
from tallystone.cli.place import Place
from tallystone.cli.rotated import hear, tell
from tallystone.cli.terminal import emit, jsonable, line, moment, progress, say, table
from tallystone.cli.times import deadline
from tallystone.vault.types import TokenInfo

app = group("token", "Create, list and revoke tokens.")


@command(
    app,
    "create",
    "tallystone token create --label laptop > laptop.token",
    "tallystone token create --scope read --expires 30d",
)
def create(
    *,
    scope: Literal["full", "read"] = "full",
    expires: Annotated[str | None, Parameter(metavar="WHEN")] = None,
    label: str = "",
    place: Place = Place(),
) -> int:
    """Make another token for yourself. The token alone goes to stdout, once.

    Parameters
    ----------
    scope
        full, or read: without the keys to write, share or act as an agent.
    expires
        When it ends: a span (30d, 12h) or a time (2027-01-31). Without it, never.
    label
        A note to tell it from others. It is sealed.
    """
    ends = deadline(expires, datetime.now(UTC))
    with place.vault() as vault:
        token = vault.create_token(scope=scope, expires=ends, label=label)
    show(token, place)
    return 0


def show(token: str, place: Place) -> None:
    """A new token on stdout: alone, or as JSON."""
    if place.as_json:
        emit({"token": token})
    else:
        line(token)
    say("Keep it safe: it is shown once, and it opens what it stands for.", style="dim")


@command(app, "list", "tallystone token list", "tallystone token list --json")
def list_tokens(*, place: Place = Place()) -> int:
    """List your tokens, and those of your agents. The secret part of a token is nowhere to be listed."""
    with place.vault() as vault:
        tokens = sorted(vault.tokens(), key=lambda token: (token.created, token.label, token.kid))
    if place.as_json:
        emit([_json(token) for token in tokens])
    else:
        columns = ("KID", "FOR", "SCOPE", "CREATED", "EXPIRES", "LABEL")
        table(
            columns,
            ([t.kid, t.principal, t.scope, moment(t.created), moment(t.expires), t.label] for t in tokens),
        )
    return 0


def _json(token: TokenInfo) -> dict[str, object]:
    times = {"created": moment(token.created), "expires": moment(token.expires) or None}
    return {**jsonable(token), **times}


@command(
    app,
    "revoke",
    "tallystone token revoke k3v7qd2mtx5rw6ba",
    "tallystone token revoke --compromised k3v7qd2mtx5rw6ba",
)
def revoke(
    kid: Annotated[str, Parameter(metavar="KID")],
    /,
    *,
    compromised: Annotated[bool, Parameter(negative=())] = False,
    place: Place = Place(),
) -> int:
    """End a token, from this moment on.

    Parameters
    ----------
    kid
        The token's public part, as `token list` shows it.
    compromised
        Somebody else may have it: renew the root of its holder as well, which ends every other token of that root, and
        change the keys that it opened. If it is the token you come with, the one that replaces it goes to stdout.
    """
    found = kid.split("_")[1] if kid.startswith("tally_") else kid
    if compromised:
        with place.vault() as vault, progress("renewing keys") as step:
            done = vault.revoke_compromised(found, progress=step, told=lambda token: hear(place, token))
        tell(place, done)
        return 0
    with place.vault() as vault:
        vault.revoke_token(found)
    if place.as_json:
        emit({"revoked": found})
    else:
        say(f"revoked {found}")
    say(
        "A copy of the database from its lifetime still opens with it: if somebody else has it, use --compromised.",
        style="dim",
    )
    return 0
