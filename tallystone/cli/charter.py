"""`tallystone charter`: the workspace's own rules."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from tallystone.cli.block import Flag
from tallystone.cli.group import command, group
from tallystone.cli.place import Place, Usage
from tallystone.cli.terminal import emit, pairs
from tallystone.vault.types import CharterView

app = group("charter", "The workspace's own rules.")


@command(app, "show", "tallystone charter show", "tallystone charter show --json")
def show(*, place: Place = Place()) -> int:
    """Show the workspace's rules: who must be asked, which levels there are, how many grants a block takes."""
    with place.vault() as vault:
        found = vault.charter()
    _show(found, place)
    return 0


def _pair(text: str) -> tuple[str, str, str]:
    parts = text.rpartition("=")
    if not parts[0]:
        raise Usage(f"--audit-level {text!r} lacks a level", hint="for example: restricted=witnessed")
    return parts


def _show(found: CharterView, place: Place) -> None:
    if place.as_json:
        emit(found)
        return
    pairs(
        {
            "trust": "members' shares need no acceptance" if found.trust else "a share waits to be accepted",
            "levels": ", ".join(found.levels),
            "audit": ", ".join(f"{name} is {level}" for name, level in found.audit.items())
            or "every level is durable",
            "max grants": f"{found.max_grants} on a block",
            "changes": found.serial,
        }
    )


@command(
    app,
    "set",
    "tallystone charter set --trust",
    "tallystone charter set --audit-level restricted=witnessed",
    "tallystone charter set --level public --level team --level board --level secret --max-grants 500",
)
def set_(
    *,
    trust: Flag = None,
    levels: Annotated[list[str] | None, Parameter(name="--level", metavar="NAME", negative=())] = None,
    max_grants: Annotated[int | None, Parameter(metavar="N")] = None,
    audit: Annotated[
        list[str] | None, Parameter(name="--audit-level", metavar="NAME=LEVEL", negative=())
    ] = None,
    place: Place = Place(),
) -> int:
    """Change the workspace's rules. What is not named stays. Only the workspace's first user may.

    Parameters
    ----------
    trust
        Whether what members share with each other needs no acceptance.
    levels
        The sensitivity levels, lowest first, all of them: rename them in place, or add some at the end.
    max_grants
        Direct grants that a block may have. Members of roles and the owner's own agents do not count.
    audit
        How sure the log must be of what is done with blocks of a sensitivity, at least: NAME=durable, =checkpointed or
        =witnessed; may be repeated.
    """
    if trust is None and levels is None and max_grants is None and audit is None:
        raise Usage("nothing to change", hint="name a rule, like --trust; see tallystone charter set --help")
    asked = None if audit is None else {name: level for name, _, level in map(_pair, audit)}
    with place.vault() as vault:
        changed = vault.set_charter(trust=trust, levels=levels, max_grants=max_grants, audit=asked)
    _show(changed, place)
    return 0
