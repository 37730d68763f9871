"""`tallystone copy`: a workspace's rows from one store to another, of whichever kind."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from tallystone.cli.place import AsJson, Usage
from tallystone.cli.terminal import emit, progress, say
from tallystone.vault.moving import COSIGNED, KEYS, Place, move
from tallystone.vault.places import DATABASE, SCHEMES, URL_FILE, check_url, has_password, without_password

_FILE = "sqlite:"


def copy(
    *,
    source: Annotated[str | None, Parameter(name="--from", metavar="STORE")] = None,
    target: Annotated[str | None, Parameter(name="--to", metavar="STORE")] = None,
    as_json: AsJson = False,
) -> int:
    """Copy a workspace to another store, or go on with a copy that was interrupted. Needs no key.

    A STORE is sqlite:DIR, a data directory, or a postgresql:// URL, without a password. A server may go on writing
    until all it wrote is copied; then stop it and run the same command again. The source is not changed.

    Parameters
    ----------
    source
        The store to copy. Also: TALLYSTONE_COPY_FROM, with or without a password.
    target
        An empty database, a directory without a store, or the unfinished copy. Also: TALLYSTONE_COPY_TO, with or
        without a password.
    """
    here = _place("--from", source, "TALLYSTONE_COPY_FROM")
    there = _place("--to", target, "TALLYSTONE_COPY_TO")
    moved = move(here, there, phase=progress)
    told = {"from": _named(here), "to": _named(there), "next": _next(here, there)}
    if as_json:
        emit({**told, **vars(moved), "checkpoint": moved.checkpoint.decode()})
        return 0
    say(
        f"copied {told['from']} to {told['to']}: {moved.rows} rows, {moved.written} of them written by this run"
    )
    say(f"{moved.leaves} leaves, verified; root {moved.root.hex()}", style="bold green")
    say(f"Next: {told['next']}")
    return 0


def _place(option: str, given: str | None, variable: str) -> Place:
    """The store that an option names, or a variable. What it holds is not repeated, in case it is a password."""
    named = given if given is not None else os.environ.get(variable)
    if not named:
        raise Usage(f"no store named with {option}", hint="sqlite:DIR or postgresql://USER@HOST/DATABASE")
    if named.startswith(_FILE) and named != _FILE:
        path = Path(named.removeprefix(_FILE))
        return path.parent if path.name == DATABASE else path
    if not named.startswith(SCHEMES):
        raise Usage(
            f"{option} should be sqlite:DIR or a postgresql:// URL",
            hint="sqlite:./data, or postgresql://USER@HOST/DATABASE",
        )
    if given is not None and has_password(given):
        raise Usage(
            f"{option} holds a password, and others on this machine can see it",
            hint=f"leave it out, and use a password file; or set {variable} to the whole URL",
        )
    return check_url(named)


def _named(place: Place) -> str:
    return f"{_FILE}{place}" if isinstance(place, Path) else without_password(place)


def _next(here: Place, there: Place) -> str:
    """What is left to do, so that the copy is what a server works on."""
    if isinstance(there, str):
        if not isinstance(here, Path):
            return f"name it in TALLYSTONE_STORE, or in {URL_FILE} of the data directory"
        file = here / DATABASE
        return f"mv {file} {file}.copied; {here / URL_FILE} names the database from then on"
    if (there / KEYS).is_dir():
        return (
            f"nothing; {there / DATABASE} is the store from the next start on (with TALLYSTONE_STORE unset)"
        )
    found = f"{here}/" if isinstance(here, Path) else "the data directory's "
    return f"move {found}{KEYS} and, if there is one, {found}{COSIGNED} to {there}"
