"""`tallystone role`: groups that blocks are shared with at once, whoever is in them."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from tallystone.cli.block import Level, Once, Yes
from tallystone.cli.group import command, group
from tallystone.cli.place import Place, Usage
from tallystone.cli.terminal import confirm, emit, line, moment, pairs, report, say, table
from tallystone.cli.times import Day, day
from tallystone.vault.types import Role

app = group("role", "Make roles, and say who is in them.")

RoleName = Annotated[str, Parameter(metavar="ROLE")]


@command(
    app,
    "create",
    "tallystone role create engineering",
    "tallystone role create auditors --clearance confidential --no-history",
)
def create(
    name: Annotated[str, Parameter(metavar="NAME")],
    /,
    *,
    description: Annotated[str, Parameter(metavar="TEXT", allow_leading_hyphen=True)] = "",
    clearance: Level = None,
    no_history: Once = False,
    place: Place = Place(),
) -> int:
    """Make a role. Its id goes to stdout. Whoever you add reads what the role is granted.

    Parameters
    ----------
    name
        What you and its members call it.
    description
        What it is for.
    clearance
        The highest level (see charter show) of blocks that it may be granted. Its members need as much.
    no_history
        Who joins reads what is written from then on, not what was written before.
    """
    with place.vault() as vault:
        made = vault.create_role(name, description=description, clearance=clearance, history=not no_history)
    if place.as_json:
        emit(made)
    else:
        line(made.id)
    return 0


@command(app, "list", "tallystone role list", "tallystone role list --json")
def list_roles(*, place: Place = Place()) -> int:
    """List the roles that you own or are in."""
    with place.vault() as vault:
        found = vault.roles()
    if place.as_json:
        emit(found)
    else:
        columns = ("ID", "NAME", "OWNER", "CLEARANCE", "DESCRIPTION")
        rows = (
            [r.id, r.name, "you" if r.mine else r.owner_name or r.owner, r.clearance, r.description]
            for r in found
        )
        table(columns, rows, empty="no roles yet")
    return 0


@command(app, "show", "tallystone role show engineering")
def show(role: RoleName, /, *, place: Place = Place()) -> int:
    """Show a role and its members.

    Parameters
    ----------
    role
        The role's name or id.
    """
    with place.vault() as vault:
        found = vault.role(role)
    if place.as_json:
        emit(found)
        return 0
    pairs(
        {
            "id": found.id,
            "name": found.name,
            "description": found.description,
            "owner": "you" if found.mine else found.owner_name or found.owner,
            "clearance": found.clearance,
            "history": "members read all of it" if found.history else "members read from when they joined",
            "created": moment(found.created_at),
        }
    )
    line("")
    _members(found)
    return 0


def _members(role: Role) -> None:
    rows = ([one.principal, one.name, one.kind, one.until] for one in role.members)
    table(("MEMBER", "NAME", "KIND", "UNTIL"), rows, empty="no members but its owner")


@command(
    app,
    "add",
    "tallystone role add engineering ada bob",
    "tallystone role add engineering agent-7c1e… --until 2027-01-31",
)
def add(
    role: RoleName,
    /,
    *whom: Annotated[str, Parameter(metavar="WHOM")],
    until: Day = None,
    place: Place = Place(),
) -> int:
    """Add members to a role of yours, all or none. For other users it is an offer until they accept it.

    Parameters
    ----------
    role
        The role's name or id.
    whom
        Users by name or id, agents by id, other roles of yours by name or id.
    until
        The last day (UTC) of the membership.
    """
    if not whom:
        raise Usage("nobody named", hint="like: tallystone role add engineering ada")
    with place.vault() as vault:
        changed = vault.add_members(role, whom, until=day(until))
    return report(changed, f"{_both(whom)} added to {changed.name}", as_json=place.as_json)


def _both(who: tuple[str, ...]) -> str:
    return who[0] if len(who) == 1 else f"{', '.join(who[:-1])} and {who[-1]}"


@command(app, "remove", "tallystone role remove engineering ada")
def remove(
    role: RoleName,
    whom: Annotated[str, Parameter(metavar="WHOM")],
    /,
    *,
    place: Place = Place(),
) -> int:
    """Take somebody out of a role of yours. Through it they open nothing more, from this moment on.

    Parameters
    ----------
    role
        The role's name or id.
    whom
        A user's or role's name or id, or an agent's id.
    """
    with place.vault() as vault:
        changed = vault.remove_member(role, whom)
    if place.as_json:
        emit({"removed": whom, "role": changed.id})
    else:
        say(f"{whom} removed from {changed.name}")
        say("What they can still reach otherwise: tallystone why", style="dim")
    return 0


@command(app, "clearance", "tallystone role clearance engineering internal")
def clearance(
    role: RoleName,
    level: Annotated[str, Parameter(metavar="LEVEL")],
    /,
    *,
    place: Place = Place(),
) -> int:
    """Say how sensitive a block your role may be granted. Its members need as much.

    Parameters
    ----------
    role
        The role's name or id.
    level
        One of the workspace's levels (see charter show).
    """
    with place.vault() as vault:
        found = vault.role(role)
        vault.set_clearance(found.id, level)
    return report(
        {"role": found.id, "clearance": level}, f"{found.name} is cleared for {level}", as_json=place.as_json
    )


@command(app, "delete", "tallystone role delete engineering --yes")
def delete(
    role: RoleName,
    /,
    *,
    yes: Yes = False,
    place: Place = Place(),
) -> int:
    """End a role of yours. Nobody opens anything through it any more.

    Parameters
    ----------
    role
        The role's name or id.
    yes
        Do not ask.
    """
    if not yes and not confirm(f"delete the role {role}?"):
        raise Usage("not deleted", hint="say --yes to delete without being asked")
    with place.vault() as vault:
        vault.delete_role(role)
    return report({"deleted": role}, f"deleted {role}", as_json=place.as_json)
