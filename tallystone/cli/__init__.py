"""The command line. One file a command group; nothing here holds a rule of its own."""

from __future__ import annotations

import gc
import sys
from contextlib import suppress

__all__ = ["main"]

_EXTRA = {"cyclopts", "rich"}


def main() -> int:
    """Run the command line on `sys.argv` and return the exit status: 0 done, 1 refused or failed, 2 wrong usage.

    Without the `cli` extra there is nothing to run; one line then says what to install.
    """
    gc.disable()  # little of what is loaded now is ever garbage, and looking for it takes a tenth of the time
    try:
        if sys.argv[1:2] == ["serve"]:
            from tallystone.cli.serving import run
        else:
            from tallystone.cli.app import run
    except ModuleNotFoundError as missing:
        if (missing.name or "").partition(".")[0] not in _EXTRA:
            raise
        print("error: the command line is not installed", file=sys.stderr)
        print("hint: pip install 'tallystone[server]' brings it, and the server", file=sys.stderr)
        return 1
    gc.freeze()  # nor is it looked at later
    gc.enable()
    _no_core_dumps()
    return run(sys.argv[1:])


def _no_core_dumps() -> None:
    """Keys are in this process's memory: a crash must not write them to a disk."""
    with suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
