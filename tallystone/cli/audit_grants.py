"""`tallystone audit grant` and `ungrant`: who sees refusals, tokens and what else concerns no block."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from tallystone.cli.place import Place
from tallystone.cli.terminal import emit, report, table

Who = Annotated[str, Parameter(metavar="PRINCIPAL")]
Flag = Annotated[bool, Parameter(negative=(), show_default=False)]


def grant(who: Who, /, *, history: Flag = False, place: Place = Place()) -> int:
    """Let a user see what concerns no block: refusals, tokens, purges. Only the workspace's first user may.

    An auditor opens nobody's blocks. It sees what is logged from now on.

    Parameters
    ----------
    who
        The user's name or id.
    history
        What was logged before as well.
    """
    with place.vault() as vault:
        principal = vault.grant_audit(who, history=history)
    return report({"principal": principal}, f"{principal} is an auditor", as_json=place.as_json)


def ungrant(who: Who, /, *, place: Place = Place()) -> int:
    """Take that from a user again: it opens no newer event, also not in a copy of the database.

    Parameters
    ----------
    who
        The user's name or id.
    """
    with place.vault() as vault:
        principal = vault.end_audit(who)
    return report({"principal": principal}, f"{principal} is no auditor any more", as_json=place.as_json)


def auditors(*, place: Place = Place()) -> int:
    """List the auditors beside the workspace's first user."""
    with place.vault() as vault:
        found = vault.auditors()
    if place.as_json:
        emit(found)
    else:
        table(("AUDITOR",), ([one] for one in found), empty="nobody but the workspace's first user")
    return 0
