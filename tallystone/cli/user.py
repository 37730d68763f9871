"""`tallystone user`: the people of a workspace. Only the workspace's first user adds others."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from tallystone.cli.group import command, group
from tallystone.cli.place import Place, Usage, secret_file, written_secret
from tallystone.cli.terminal import emit, line, say, table

app = group("user", "Add and list users.")

KitFile = Annotated[Path | None, Parameter(name="--kit", metavar="FILE")]


@command(app, "add", "tallystone user add ada > ada.token", "tallystone user add ada --kit /safe/ada.kit")
def add(
    name: Annotated[str, Parameter(metavar="NAME")], /, *, kit: KitFile = None, place: Place = Place()
) -> int:
    """Add a user. The new user's key alone goes to stdout, once; adding gives you no access to what they keep.

    Parameters
    ----------
    name
        What others call this user.
    kit
        New file for the recovery kit, outside the data directory. Default: tallystone-recovery-kit-NAME.txt here.
    """
    if not name.strip():
        raise Usage("a user needs a name")
    with place.vault() as vault:
        data, _ = place.named()
        target = secret_file(kit or Path(kit_name(name)), outside=data, what="recovery kit")
        with written_secret(target) as content:
            credentials = vault.add_user(name)
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
        table(("NAME", "ID", "STATUS"), ([user.name, user.id, user.status] for user in users))
    return 0
