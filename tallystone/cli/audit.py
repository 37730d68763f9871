"""`tallystone audit`: check the log without a key, and read one's own part of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from tallystone.cli.group import command, group
from tallystone.cli.place import Keyless, Place, TokenFile, Usage, offered_token
from tallystone.cli.terminal import emit, moment, plain, progress, say, stdout, table
from tallystone.vault.types import AuditEvent

app = group("audit", "Check the audit log, and read your part of it.")


@command(
    app, "verify", "tallystone audit verify --data ./data", "tallystone audit verify --pin last.note --json"
)
def verify(
    *,
    pin: Annotated[Path | None, Parameter(metavar="FILE")] = None,
    token_file: TokenFile = None,
    place: Keyless = Keyless(),
) -> int:
    """Recompute the log's tree and compare every row of the database with it. Needs no key.

    With a token it also opens everything that you reach, and checks signatures and rights. Exit status 0 when all
    agrees, 1 when something was changed, dropped, swapped or added; each finding names the place.

    Parameters
    ----------
    pin
        A checkpoint of an earlier check, kept elsewhere (`checkpoint` in its JSON): finds a rollback of everything.
    token_file
        File that holds a token; - is standard input. Also: the token itself in TALLYSTONE_TOKEN.
    """
    token = offered_token(token_file)
    try:
        pinned = pin.read_bytes() if pin is not None else None
    except OSError as problem:
        raise Usage(f"cannot read {pin}: {problem.strerror}") from None
    opened: int | None = None
    with place.workspace() as workspace:
        with progress("checking") as step:
            report = workspace.verify(progress=step, pin=pinned)
        found = [{"where": finding.where, "what": finding.what} for finding in report.findings]
        if token is not None:
            inspected = workspace.vault(token).inspect()
            opened = inspected.blocks
            found += [{"where": where, "what": what} for where, what in inspected.findings]
    if place.as_json:
        counts = {"leaves": report.leaves, "rows": report.rows, "opened": opened, "root": report.root}
        restores = {"restores": report.restores, "checkpoint": report.checkpoint.decode(errors="replace")}
        emit({"ok": not found, **counts, **restores, "findings": found})
        return 1 if found else 0
    for finding in found:
        stdout().print(f"{plain(finding['where'])}: {plain(finding['what'])}", style="red")
    for restored in report.restores:
        gone = ", ".join(map(str, restored.lost)) or "nothing known"
        say(f"restored from a backup {moment(restored.time // 1000)}, leaf {restored.seq}; lost: {gone}")
    if report.given_up is not None:
        say(f"the pinned checkpoint is of what was lost: {report.given_up[1]}", style="yellow")
    verdict = f"{len(found)} found" if found else "ok"
    with_token = "" if opened is None else f", {opened} opened with your token"
    stdout().print(
        f"{verdict}: {report.leaves} leaves, {report.rows} rows{with_token}, root {report.root.hex()}",
        style="bold red" if found else "bold green",
    )
    if found:
        say("hint: restore the place from a backup, or ask who had the database file in hand", style="cyan")
    return 1 if found else 0


@command(app, "tail", "tallystone audit tail", "tallystone audit tail --lines 100 --json")
def tail(*, lines: Annotated[int, Parameter(alias="-n", metavar="N")] = 20, place: Place = Place()) -> int:
    """Show the newest events that you may open: your own, and those on blocks that you own.

    Parameters
    ----------
    lines
        How many events at most.
    """
    if lines < 1:
        raise Usage("--lines must be at least 1")
    with place.vault() as vault:
        events = vault.events(limit=lines)
    if place.as_json:
        emit([{**_known(event), "detail": event.detail} for event in events])
    else:
        columns = ("SEQ", "TIME", "KIND", "ACTOR", "UNDER", "BLOCK")
        table(
            columns, (list(_known(event).values()) for event in events), empty="no events that you may open"
        )
    return 0


def _known(event: AuditEvent) -> dict[str, object]:
    return {
        "seq": event.seq,
        "time": moment(event.minute * 60),
        "kind": event.kind,
        "actor": event.actor,
        "under": event.under,
        "block": event.detail.get("block", ""),
    }
