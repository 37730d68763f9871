"""All commands together, and the one place where a failure becomes two lines and an exit status."""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

from cyclopts import App, CycloptsError, Group

from tallystone.cli import (
    agent,
    audit,
    backup,
    block,
    charter,
    erase,
    history,
    invitations,
    model,
    offers,
    role,
    token,
    user,
    workspace,
)
from tallystone.cli.access import access
from tallystone.cli.audit_grants import auditors, grant, ungrant
from tallystone.cli.audit_search import search
from tallystone.cli.copy import copy
from tallystone.cli.demo import demo, doctor
from tallystone.cli.export import export
from tallystone.cli.group import command, examples
from tallystone.cli.place import Usage
from tallystone.cli.serve import serve
from tallystone.cli.sharing import why
from tallystone.cli.terminal import abandon, fail, stderr, stdout
from tallystone.cli.watch import watch
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


app = App(
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
command(app, "init", "tallystone init ./data > me.token", "tallystone init ./data --kit /safe/me.kit")(
    workspace.init
)
command(
    app,
    "serve",
    "tallystone serve --data ./data",
    "tallystone serve --data /var/lib/tallystone --host 0.0.0.0 --key-file /run/first.token",
)(serve)
command(
    audit.app,
    "search",
    "tallystone audit search --reads --block BLOCK --since 2027-01-01 --until 2027-01-31",
    "tallystone audit search --by AGENT",
    "tallystone audit search --gained --csv > gained.csv",
    "tallystone audit search --denied --since 7d",
    "tallystone audit search --changes --block BLOCK --after-grant 1",
)(search)
command(
    audit.app,
    "grant",
    "tallystone audit grant ada",
    "tallystone audit grant ada --history --url https://memory.example.com",
)(grant)
command(audit.app, "ungrant", "tallystone audit ungrant ada")(ungrant)
command(audit.app, "auditors", "tallystone audit auditors")(auditors)
for _group in (
    token.app,
    user.app,
    invitations.app,
    role.app,
    offers.app,
    block.app,
    history.app,
    agent.app,
    model.app,
    erase.app,
    audit.app,
    charter.app,
):
    app.command(_group)
command(app, "access", "tallystone access", "tallystone access --svg access.svg")(access)
command(
    app, "watch", "tallystone watch", "tallystone watch block-2f4d8c1a-… --url http://127.0.0.1:8283 --json"
)(watch)
command(app, "why", "tallystone why ada block-2f4d8c1a-…")(why)
command(app, "blame", "tallystone blame block-2f4d8c1a-…")(history.blame)
command(
    app,
    "undo",
    "tallystone undo agent-7c1e… --since 2h --dry-run",
    "tallystone undo agent-7c1e… --since 2027-01-31T18:00",
    "tallystone undo ada --since 17 --block block-2f4d8c1a-…",
)(history.undo)
command(
    app,
    "redeem",
    "tallystone redeem invite_… --url https://memory.example.com > me.token",
    "tallystone redeem - --data ./data --kit /safe/me.kit < code.txt",
)(invitations.redeem)
command(app, "recover", "tallystone recover --data ./data --kit me.kit > me.token")(workspace.recover)
command(
    app,
    "backup",
    "tallystone backup /mnt/safe/monday.tally --data ./data",
    "tallystone backup b.tally --no-verify",
)(backup.backup)
command(
    app,
    "restore",
    "tallystone restore /mnt/safe/monday.tally --data ./data --replace --token-file me.token",
    "tallystone restore monday.tally --data ./new --server-keys ./kept --lost-checkpoint last.note",
)(backup.restore)
command(
    app,
    "copy",
    "tallystone copy --from sqlite:./data --to postgresql://tally@db.example.com/tallystone",
    "tallystone copy --from postgresql://tally@db.example.com/tallystone --to sqlite:./data",
)(copy)
command(
    app,
    "export",
    "tallystone export",
    "tallystone export /safe/mine.zip --versions --url https://memory.example",
)(export)
command(app, "doctor", "tallystone doctor", "tallystone doctor --data ./data")(doctor)
command(app, "demo", "tallystone demo")(demo)


def run(arguments: Sequence[str]) -> int:
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
