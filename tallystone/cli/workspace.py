"""`tallystone init` and `recover`: how a key comes to be, and how it comes back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from tallystone.cli.place import AsJson, Keyless, StoreUrl, Usage, secret_file, store_url, written_secret
from tallystone.cli.terminal import emit, line, say
from tallystone.cli.user import KitFile
from tallystone.vault import Workspace
from tallystone.vault.types import Credentials

KIT_NAME = "tallystone-recovery-kit.txt"


def init(
    directory: Annotated[Path, Parameter(metavar="DIR")],
    /,
    *,
    kit: KitFile = None,
    store: StoreUrl = None,
    as_json: AsJson = False,
) -> int:
    """Make a workspace in DIR, and its first user: you. Your key alone goes to stdout, once.

    Parameters
    ----------
    directory
        The data directory: new, or empty.
    kit
        New file for the recovery kit, outside DIR. Default: tallystone-recovery-kit.txt in the current folder.
    store
        An empty PostgreSQL database for the rows: postgresql://USER@HOST/DATABASE, without a password. Also:
        TALLYSTONE_STORE, with or without one. Default: a file in DIR.
    as_json
        Print JSON.
    """
    target, credentials = create(directory, kit, store_url(store))
    if as_json:
        emit(
            {
                "principal": credentials.principal,
                "token": credentials.token,
                "kit": str(target),
                "data": str(directory),
            }
        )
    else:
        line(credentials.token)
    say(f"Made the workspace {directory}. You are {credentials.principal}.")
    say(
        "The line on stdout is your key: keep it like a password; TALLYSTONE_TOKEN or --token-file brings it."
    )
    say(f"The recovery kit is {target}: print it or store it away from this machine.")
    say("Whoever loses both has lost the data: there is no master key.")
    say(f"Next: tallystone serve --data {directory}", style="dim")
    return 0


def create(directory: Path, kit: Path | None, store: str | None = None) -> tuple[Path, Credentials]:
    """A new workspace in `directory`, its recovery kit in a new file outside it, its rows in the database at `store` if
    one is named. Nothing is left of a failure."""
    target = secret_file(kit or Path(KIT_NAME), outside=directory, what="recovery kit")
    with written_secret(target) as content:
        workspace, credentials = Workspace.init(directory, store=store)
        workspace.close()
        content.append(credentials.kit)
    return target, credentials


def recover(
    *,
    kit: Annotated[Path, Parameter(name="--kit", metavar="FILE")],
    place: Keyless = Keyless(),
) -> int:
    """Make a new token from a recovery kit alone. It goes to stdout, once; your other tokens stay as they are.

    Parameters
    ----------
    kit
        The recovery kit's file.
    """
    try:
        text = kit.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise Usage(f"cannot read {kit}: {getattr(problem, 'strerror', None) or 'not a text file'}") from None
    with place.workspace() as workspace:
        credentials = workspace.recover(text)
    if place.as_json:
        emit({"principal": credentials.principal, "token": credentials.token})
    else:
        line(credentials.token)
    say(
        f"This is a new token for {credentials.principal}. Lost ones: tallystone token list, then token revoke."
    )
    return 0
