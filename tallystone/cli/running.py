"""The program without its commands, and the one place where a failure becomes two lines and an exit status."""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

from cyclopts import App, CycloptsError, Group

from tallystone.cli.group import examples
from tallystone.cli.place import Usage
from tallystone.cli.terminal import abandon, fail, stderr, stdout
from tallystone.errors import TallystoneError

FAILED = 1
MISUSED = 2
INTERRUPTED = 128 + signal.SIGINT

_SUMMARY = """Shared memory for AI agents in which permission is a key, not a check.

The token comes from TALLYSTONE_TOKEN or --token-file, the place from --data DIR or --url URL
(TALLYSTONE_DATA, TALLYSTONE_URL)."""


def _version() -> str:
    try:
        return version("tallystone")
    except PackageNotFoundError:
        return "unknown"


def program() -> App:
    """`tallystone`, without a command."""
    return App(
        "tallystone",
        help=_SUMMARY,
        version=_version,
        help_format="plaintext",
        help_epilogue=examples(
            "tallystone init ./data > me.token",
            "tallystone serve --data ./data",
            "tallystone block list --data ./data --token-file me.token",
        ),
        group_commands=Group("Commands", sort_key=10),
        result_action="return_value",
        suppress_keyboard_interrupt=False,
    )


def outcome(app: App, arguments: Sequence[str]) -> int:
    """Run one command. 0 done, 1 refused or failed, 2 wrong usage, 130 interrupted; never a traceback."""
    try:
        status = app(
            list(arguments), exit_on_error=False, print_error=False, console=stdout(), error_console=stderr()
        )
        sys.stdout.flush()
        return status if isinstance(status, int) else 0
    except CycloptsError as wrong:
        fail(_first_line(wrong), hint="see tallystone --help, or COMMAND --help")
        return MISUSED
    except Usage as wrong:
        fail(wrong.message, wrong.hint)
        return MISUSED
    except TallystoneError as refused:
        fail(refused.message, refused.hint)
        return FAILED
    except KeyboardInterrupt:
        fail("interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        abandon()
        return FAILED
    except (OSError, sqlite3.Error) as problem:
        fail(_reason(problem), hint="tallystone doctor checks the place")
        return FAILED
    except Exception as unforeseen:  # a person gets two lines; whoever wants more asks for it
        if os.environ.get("TALLYSTONE_TRACEBACK") == "1":
            raise
        fail(
            f"unexpected {type(unforeseen).__name__}",
            hint="this is a bug; TALLYSTONE_TRACEBACK=1 shows where (it may show values: read it before you share it)",
        )
        return FAILED


def _first_line(wrong: CycloptsError) -> str:
    return " ".join(str(wrong).split())


def _reason(problem: OSError | sqlite3.Error) -> str:
    if isinstance(problem, OSError) and problem.strerror:
        return f"{problem.filename}: {problem.strerror}" if problem.filename else problem.strerror
    return str(problem) or type(problem).__name__
