"""`tallystone serve` and no other command: a server that starts does not wait for what it never calls to be loaded."""

from __future__ import annotations

from collections.abc import Sequence

from cyclopts import App

from tallystone.cli.group import command
from tallystone.cli.running import outcome, program
from tallystone.cli.serve import serve


def add(app: App) -> None:
    """Add the command to a program."""
    command(
        app,
        "serve",
        "tallystone serve --data ./data",
        "tallystone serve --data /var/lib/tallystone --host 0.0.0.0 --key-file /run/first.token",
    )(serve)


def run(arguments: Sequence[str]) -> int:
    """Run `serve`; see `running.outcome`."""
    app = program()
    add(app)
    return outcome(app, arguments)
