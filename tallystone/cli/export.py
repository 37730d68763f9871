"""`tallystone export`: everything that you have here, as one archive."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from tallystone.cli.block import Once
from tallystone.cli.place import Place, Usage, secret_file
from tallystone.cli.remote import RemoteVault
from tallystone.cli.terminal import progress, report
from tallystone.vault import Vault

DEFAULT = Path("tallystone-export.zip")

Target = Annotated[Path, Parameter(metavar="FILE")]


def export(file: Target = DEFAULT, /, *, versions: Once = False, place: Place = Place()) -> int:
    """Write all that you own, and what is shared with you, to a new zip file: blocks, agents with their histories,
    roles, grants, tokens without secrets, and your part of the log.

    It is not encrypted any more: keep it where nobody else reads. Its README.txt says what is where.

    Parameters
    ----------
    file
        The new file, outside the data directory. Default: tallystone-export.zip here.
    versions
        With every version of the blocks that is kept and open to you, not only the present one.
    """
    data, _ = place.named()
    target = secret_file(file, outside=data, what="export")
    with place.vault() as vault:
        counts = _written(vault, target, versions=versions)
    told = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    return report({"file": str(target), **counts}, f"{target}: {told}", as_json=place.as_json)


def _written(vault: Vault | RemoteVault, target: Path, *, versions: bool) -> dict[str, int]:
    from tallystone.vault.exporting import lines_in  # zip and its codecs, for this command alone

    try:
        handle = os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as problem:
        raise Usage(f"cannot write {target}: {problem.strerror}") from None
    try:
        with os.fdopen(handle, "w+b") as opened, progress("exporting") as step:
            if isinstance(vault, Vault):
                counts = vault.export(opened, versions=versions, step=lambda _, lines: step(lines, lines))
            else:
                vault.export(opened, versions=versions)
                opened.seek(0)
                counts = lines_in(opened)
            opened.flush()
            os.fsync(opened.fileno())
    except BaseException:
        target.unlink(missing_ok=True)
        raise
    return counts
