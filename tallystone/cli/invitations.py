"""`tallystone invitations` and `redeem`: a user whose keys are made where they are needed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from tallystone.cli.group import command, group
from tallystone.cli.place import Anywhere, Place, Usage, secret_file, written_secret
from tallystone.cli.terminal import emit, jsonable, line, moment, say, table
from tallystone.cli.user import KitFile
from tallystone.cli.workspace import KIT_NAME

app = group("invitations", "Invitations that nobody has redeemed yet. Make one with: tallystone user invite.")


@command(app, "list", "tallystone invitations list")
def list_invitations(*, place: Place = Place()) -> int:
    """List open invitations. Only the workspace's first user sees them; a code is nowhere to be listed."""
    with place.vault() as vault:
        found = sorted(vault.invitations(), key=lambda known: (known.expires, known.name))
    if place.as_json:
        emit([{**jsonable(known), "expires": moment(known.expires)} for known in found])
    else:
        rows = ([known.kid, known.name, known.clearance, moment(known.expires)] for known in found)
        table(("KID", "NAME", "CLEARANCE", "EXPIRES"), rows, empty="no open invitations")
    return 0


@command(app, "revoke", "tallystone invitations revoke k3v7qd2mtx5rw6ba")
def revoke(kid: Annotated[str, Parameter(metavar="KID")], /, *, place: Place = Place()) -> int:
    """Take an invitation back. Its code opens nothing, from this moment on.

    Parameters
    ----------
    kid
        The invitation's public part, as `invitations list` shows it.
    """
    with place.vault() as vault:
        vault.revoke_invitation(kid)
    if place.as_json:
        emit({"revoked": kid})
    else:
        say(f"revoked {kid}")
    return 0


def redeem(
    code: Annotated[str, Parameter(metavar="CODE", allow_leading_hyphen=True)],
    /,
    *,
    kit: KitFile = None,
    place: Anywhere = Anywhere(),
) -> int:
    """Become the user that an invitation is for. Your key alone goes to stdout, once.

    Parameters
    ----------
    code
        The code that you were sent; - takes it from standard input, where other users of this machine cannot see it.
    kit
        New file for the recovery kit, outside the data directory. Default: tallystone-recovery-kit.txt here.
    """
    text = sys.stdin.readline(4096).strip() if code == "-" else code
    if not text:
        raise Usage("no code", hint="like: tallystone redeem invite_…")
    data, _ = place.named()
    target = secret_file(kit or Path(KIT_NAME), outside=data, what="recovery kit")
    with written_secret(target) as content:
        credentials = place.redeem(text)
        content.append(credentials.kit)
    if place.as_json:
        emit({"principal": credentials.principal, "token": credentials.token, "kit": str(target)})
    else:
        line(credentials.token)
    say(f"You are {credentials.principal}.")
    say(
        "The line on stdout is your key: keep it like a password; TALLYSTONE_TOKEN or --token-file brings it."
    )
    say(f"The recovery kit is {target}: print it or store it away from this machine.")
    say("Whoever loses both has lost the data: there is no master key.", style="dim")
    return 0
