"""All commands together."""

from __future__ import annotations

from collections.abc import Sequence

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
    serving,
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
from tallystone.cli.group import command
from tallystone.cli.running import FAILED, INTERRUPTED, MISUSED, outcome, program
from tallystone.cli.sharing import why
from tallystone.cli.watch import watch

__all__ = ["FAILED", "INTERRUPTED", "MISUSED", "app", "run"]

app = program()
command(app, "init", "tallystone init ./data > me.token", "tallystone init ./data --kit /safe/me.kit")(
    workspace.init
)
serving.add(app)
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
    """Run one command; see `running.outcome`."""
    return outcome(app, arguments)
