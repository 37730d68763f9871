"""`tallystone user`: the people of a workspace. Only the workspace's first user adds, clears and suspends them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from tallystone.cli.group import command, group
from tallystone.cli.place import Place, Usage, secret_file, written_secret
from tallystone.cli.rotated import tell
from tallystone.cli.terminal import emit, line, progress, say, table

app = group("user", "Add, invite and list users; suspend them and clear them.")

KitFile = Annotated[Path | None, Parameter(name="--kit", metavar="FILE")]
Whom = Annotated[str, Parameter(metavar="WHOM")]
Cleared = Annotated[str | None, Parameter(metavar="LEVEL")]


@command(app, "add", "tallystone user add ada > ada.token", "tallystone user add ada --kit /safe/ada.kit")
def add(
    name: Annotated[str, Parameter(metavar="NAME")],
    /,
    *,
    kit: KitFile = None,
    clearance: Cleared = None,
    place: Place = Place(),
) -> int:
    """Add a user. The new user's key alone goes to stdout, once; adding gives you no access to what they keep.

    Parameters
    ----------
    name
        What others call this user.
    kit
        New file for the recovery kit, outside the data directory. Default: tallystone-recovery-kit-NAME.txt here.
    clearance
        The highest level (see charter show) of blocks that the user may be granted. Without it, the lowest.
    """
    if not name.strip():
        raise Usage("a user needs a name")
    with place.vault() as vault:
        data, _ = place.named()
        target = secret_file(kit or Path(kit_name(name)), outside=data, what="recovery kit")
        with written_secret(target) as content:
            credentials = vault.add_user(name, clearance=clearance)
            content.append(credentials.kit)
    if place.as_json:
        emit(
            {"principal": credentials.principal, "name": name, "token": credentials.token, "kit": str(target)}
        )
    else:
        line(credentials.token)
    say(f"{name} is {credentials.principal}. Hand over the key above and the recovery kit: {target}")
    say("Whoever loses both has lost the data: there is no master key.", style="dim")
    return 0


def kit_name(name: str) -> str:
    """The default file name of a user's recovery kit."""
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "user"
    return f"tallystone-recovery-kit-{safe[:60]}.txt"


@command(app, "list", "tallystone user list", "tallystone user list --json")
def list_users(*, place: Place = Place()) -> int:
    """List the users of the workspace."""
    with place.vault() as vault:
        users = sorted(vault.users(), key=lambda user: (user.name.casefold(), user.id))
    if place.as_json:
        emit(users)
    else:
        columns = ("NAME", "ID", "STATUS", "CLEARANCE")
        table(columns, ([user.name, user.id, user.status, user.clearance] for user in users))
    return 0


@command(
    app,
    "invite",
    "tallystone user invite ada > ada.code",
    "tallystone user invite ada --clearance internal --days 2",
)
def invite(
    name: Annotated[str, Parameter(metavar="NAME")],
    /,
    *,
    clearance: Cleared = None,
    days: Annotated[int, Parameter(metavar="N")] = 7,
    place: Place = Place(),
) -> int:
    """Invite a user. A one-time code goes to stdout; the user's keys are made where it is redeemed, out of your sight.

    Parameters
    ----------
    name
        What others call this user.
    clearance
        The highest level (see charter show) of blocks that the user may be granted. Without it, the lowest.
    days
        How long the code can be redeemed.
    """
    with place.vault() as vault:
        code = vault.invite(name, clearance=clearance, days=days)
    if place.as_json:
        emit({"name": name, "code": code})
    else:
        line(code)
    say(f"Send it to {name} in private: whoever redeems it first, with tallystone redeem, is {name}.")
    return 0


@command(app, "suspend", "tallystone user suspend ada", "tallystone user suspend agent-7c1e…")
def suspend(whom: Whom, /, *, place: Place = Place()) -> int:
    """Stop a user and their agents, or one agent of yours. What they own and were granted stays as it is.

    Parameters
    ----------
    whom
        A user's name or id, or an agent's id.
    """
    with place.vault() as vault:
        vault.suspend(whom)
    _done(place, whom, "status", "suspended", f"{whom} is suspended: their tokens open nothing")
    return 0


@command(app, "rotate", "tallystone user rotate", "tallystone user rotate agent-7c1e…")
def rotate(whom: Annotated[str, Parameter(metavar="WHOM")] = "", /, *, place: Place = Place()) -> int:
    """Renew your own root, or that of an agent of yours. It ends every other token of the old root, your agents' too,
    and says which; what the old root opened gets new keys. Interrupted, run it again.

    Parameters
    ----------
    whom
        An agent's id. Without it, yourself.
    """
    with place.vault() as vault, progress("renewing keys") as step:
        done = vault.rotate_principal(whom, progress=step)
    tell(place, done)
    return 0


@command(app, "resume", "tallystone user resume ada")
def resume(whom: Whom, /, *, place: Place = Place()) -> int:
    """Let a suspended user or agent go on.

    Parameters
    ----------
    whom
        A user's name or id, or an agent's id.
    """
    with place.vault() as vault:
        vault.resume(whom)
    _done(place, whom, "status", "active", f"{whom} is active again")
    return 0


@command(
    app,
    "clearance",
    "tallystone user clearance ada confidential",
    "tallystone user clearance agent-7c1e… --default",
)
def clearance(
    whom: Whom,
    level: Cleared = None,
    /,
    *,
    default: Annotated[bool, Parameter(negative=(), show_default=False)] = False,
    place: Place = Place(),
) -> int:
    """Say how sensitive a block a user, or an agent of yours, may be granted.

    Parameters
    ----------
    whom
        A user's name or id, or an agent's id.
    level
        One of the workspace's levels (see charter show).
    default
        The lowest level for a user, its user's for an agent.
    """
    if (level is None) != default:
        raise Usage("name a level, or say --default", hint="the levels: tallystone charter show")
    with place.vault() as vault:
        vault.set_clearance(whom, level)
    shown = "its default clearance" if level is None else f"clearance {level}"
    _done(place, whom, "clearance", level, f"{whom} has {shown}")
    return 0


def _done(place: Place, whom: str, what: str, value: str | None, told: str) -> None:
    if place.as_json:
        emit({"principal": whom, what: value})
    else:
        say(told)
