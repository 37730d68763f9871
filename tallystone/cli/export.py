"""`tallystone export`: everything that you have here, as one archive."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from tallystone.cli.place import Place, Usage, secret_file
from tallystone.cli.terminal import progress, report
from tallystone.vault import Vault

DEFAULT = Path("tallystone-export.zip")

Target = Annotated[Path, Parameter(metavar="FILE")]


def export(file: Target = DEFAULT, /, *, place: Place = Place()) -> int:
    """Write all that you own, and what is shared with you, to a new zip file: blocks, agents with their histories,
    roles, grants, tokens without secrets, and your part of the log.

    It is not encrypted any more: keep it where nobody else reads. It is read from the data directory.

    Parameters
    ----------
    file
        The new file, outside the data directory. Default: tallystone-export.zip here.
    """
    data, url = place.named()
    if url is not None:
        raise Usage("an export is read from the data directory", hint="give --data DIR where that is")
    target = secret_file(file, outside=data, what="export")
    with place.vault() as vault:
        if not isinstance(vault, Vault):
            raise Usage("an export is read from the data directory", hint="give --data DIR where that is")
        counts = _written(vault, target)
    told = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    return report({"file": str(target), **counts}, f"{target}: {told}", as_json=place.as_json)


def _written(vault: Vault, target: Path) -> dict[str, int]:
    from tallystone.vault.exporting import write_export  # zip and its codecs, for this command alone

    try:
        handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as problem:
        raise Usage(f"cannot write {target}: {problem.strerror}") from None
    try:
        with os.fdopen(handle, "wb") as opened, progress("exporting") as step:
            counts = write_export(vault, opened, lambda _, lines: step(lines, lines))
            opened.flush()
            os.fsync(opened.fileno())
    except BaseException:
        target.unlink(missing_ok=True)
        raise
    return counts
