"""`tallystone audit`: check the log without a key, prove what is in it, and read one's own part of it."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from tallystone.audit.cosignature import WITNESS, cosigned_at, parse_key
from tallystone.audit.receipt import verify_receipt
from tallystone.cli.group import command, group
from tallystone.cli.place import AsJson, Keyless, Place, TokenFile, Usage, offered_token, read_token
from tallystone.cli.terminal import document, emit, line, moment, plain, progress, say, stdout, table
from tallystone.vault.publishing import leaf_of
from tallystone.vault.types import AuditEvent

app = group("audit", "Check the audit log, prove what is in it, and read your part of it.")


Pin = Annotated[Path | None, Parameter(metavar="FILE")]
WitnessKeys = Annotated[list[str] | None, Parameter(name="--witness", negative=(), metavar="KEY")]


@command(
    app,
    "verify",
    "tallystone audit verify --data ./data",
    "tallystone audit verify --pin last-week.checkpoint",
    "tallystone audit verify --state /safe/log.state",
    "tallystone audit verify --json",
)
def verify(
    *,
    pin: Pin = None,
    witness: WitnessKeys = None,
    state: Annotated[Path | None, Parameter(metavar="FILE")] = None,
    token_file: TokenFile = None,
    place: Keyless = Keyless(),
) -> int:
    """Recompute the log's tree and compare every row of the database with it. Needs no key.

    With a token it also opens everything that you reach, and checks signatures and rights. Exit status 0 when all
    agrees, 1 when something was changed, dropped, swapped or added; each finding names the place.

    Parameters
    ----------
    pin
        A checkpoint of this log that you kept elsewhere: finds a log that was rolled back, or is another one.
    witness
        Verifier key of a witness that must have cosigned the pin; may be repeated.
    state
        Begin where the check that wrote this file ended, and write it anew if nothing is found. Keep it elsewhere.
    token_file
        File that holds a token; - is standard input. Also: the token itself in TALLYSTONE_TOKEN.
    """
    token = offered_token(token_file)
    pinned = None if pin is None else _read(pin)
    if pinned is not None:
        for key in witness or ():
            cosigned_at(pinned, parse_key(key, WITNESS), int(time.time()))
    elif witness:
        raise Usage("--witness says who must have cosigned the pin", hint="give --pin FILE as well")
    opened: int | None = None
    with place.workspace() as workspace:
        since = _read(state) if state is not None and state.exists() else None
        with progress("checking") as step:
            report = workspace.verify(progress=step, pin=pinned, since=since, keep_state=state is not None)
        found = [{"where": finding.where, "what": finding.what} for finding in report.findings]
        if token is not None:
            inspected = workspace.vault(token).inspect()
            opened = inspected.blocks
            found += [{"where": where, "what": what} for where, what in inspected.findings]
    if state is not None and report.state is not None and not found:
        _write(state, report.state.encode())
    if place.as_json:
        counts = {"leaves": report.leaves, "rows": report.rows, "opened": opened, "root": report.root}
        restores = {"restores": report.restores, "given_up": report.given_up}
        checkpoint = {"checkpoint": report.checkpoint.decode(errors="replace")}
        emit(
            {
                "ok": not found,
                "first_bad": report.first_bad,
                **counts,
                **restores,
                **checkpoint,
                "findings": found,
            }
        )
        return 1 if found else 0
    for finding in found:
        stdout().print(f"{plain(finding['where'])}: {plain(finding['what'])}", style="red")
    if report.first_bad is not None:
        stdout().print(f"the first bad leaf is {report.first_bad}", style="red")
    for restored in report.restores:
        gone = ", ".join(map(str, restored.lost)) or "nothing known"
        say(f"restored from a backup {moment(restored.time // 1000)}, leaf {restored.seq}; lost: {gone}")
    for keeper, (_, lost) in report.given_up.items():
        whose = "pinned" if keeper == "pin" else f"{plain(keeper)}'s"
        say(f"the {whose} checkpoint is of what was lost: {lost}", style="yellow")
    verdict = f"{len(found)} found" if found else "ok"
    newer = " newer" if report.since else ""
    with_token = "" if opened is None else f", {opened} opened with your token"
    stdout().print(
        f"{verdict}: {report.leaves}{newer} leaves, {report.rows} rows{with_token}, root {report.root.hex()}",
        style="bold red" if found else "bold green",
    )
    if found:
        say("hint: restore the place from a backup, or ask who had the database file in hand", style="cyan")
    return 1 if found else 0


@command(app, "key", "tallystone audit key --data ./data")
def key(*, place: Place = Place()) -> int:
    """Print the log's verifier key: what receipts and checkpoints are checked against. Hand it out once, beforehand."""
    with place.log() as log:
        view = log.view()
    if place.as_json:
        emit({"origin": view.origin, "key": view.key, "keys": view.keys})
    else:
        line(view.key)
        for one in view.keys[:-1]:
            say(f"for checkpoints of up to {one.last} leaves: {one.key}", style="dim")
    return 0


@command(app, "rotate-key", "tallystone audit rotate-key --data ./data")
def rotate_key(*, token_file: TokenFile = None, place: Keyless = Keyless()) -> int:
    """Give the log a new key, by the word of the workspace's first user. What the former one signed stays good; it
    signs nothing that comes after. The new verifier key goes to stdout, for witnesses and whoever checks receipts.

    Parameters
    ----------
    token_file
        File that holds the token; - is standard input. Also: the token itself in TALLYSTONE_TOKEN.
    """
    token = read_token(token_file)
    with place.workspace() as workspace:
        made = workspace.vault(token).rotate_log_key()
    if place.as_json:
        emit({"key": made})
    else:
        line(made)
    say("Keep a copy of server-keys in another place. Servers that run go on by themselves.", style="dim")
    return 0


@command(
    app,
    "checkpoint",
    "tallystone audit checkpoint > today.checkpoint",
    "tallystone audit checkpoint --cosigned --url https://memory.example.com",
)
def checkpoint(*, cosigned: Annotated[bool, Parameter(negative=())] = False, place: Place = Place()) -> int:
    """Print the log's newest signed checkpoint. Kept elsewhere, it is a pin for later checks.

    Parameters
    ----------
    cosigned
        The newest one that a witness has cosigned.
    """
    with place.log() as log:
        note = log.checkpoint(cosigned=cosigned)
    if place.as_json:
        emit({"checkpoint": note.decode(errors="replace")})
    else:
        document(note)
    return 0


@command(
    app,
    "receipt",
    "tallystone audit receipt 1729 > mine.tlog-proof",
    "tallystone audit receipt '17, 19' --url https://memory.example.com",
)
def receipt(leaf: Annotated[str, Parameter(metavar="LEAF")], /, *, place: Place = Place()) -> int:
    """Print the proof that a leaf is in the log, for anybody to check offline.

    Parameters
    ----------
    leaf
        The leaf's number, as an answer's header x-tallystone-leaf names it; of several the last is taken.
    """
    number = leaf_of(leaf)
    with place.log() as log:
        bundle = log.receipt(number)
    if place.as_json:
        emit({"leaf": number, "receipt": bundle.decode(errors="replace")})
    else:
        document(bundle)
    return 0


@command(
    app,
    "check-receipt",
    "tallystone audit check-receipt mine.tlog-proof --log-key tallystone/5f2c…+1a2b3c4d+AZ…",
)
def check_receipt(
    file: Annotated[Path, Parameter(metavar="FILE")],
    /,
    *,
    log_key: Annotated[str, Parameter(name="--log-key", metavar="KEY")],
    witness: WitnessKeys = None,
    as_json: AsJson = False,
) -> int:
    """Check a receipt, offline: no server, no data directory. Exit status 1 if it proves nothing.

    Parameters
    ----------
    file
        The receipt.
    log_key
        The log's verifier key, as `audit key` prints it, from whom you trust.
    witness
        Verifier key of a witness that must have cosigned; may be repeated.
    as_json
        Print JSON.
    """
    proven = verify_receipt(_read(file), log_key, witness or ())
    leaf = proven.leaf
    known = {
        "leaf": leaf.seq,
        "time": moment(leaf.minute * 60),
        "kind": leaf.kind,
        "digest": leaf.digest,
        "size": proven.checkpoint.size,
        "cosigned": {name: moment(seen) for name, seen in proven.seen.items()},
    }
    if as_json:
        emit(known)
        return 0
    stdout().print(
        f"ok: leaf {leaf.seq} is in the log of {proven.checkpoint.size} leaves", style="bold green"
    )
    stdout().print(f"it says: {plain(leaf.kind)}, {known['time']}, details with SHA-256 {leaf.digest.hex()}")
    for name, seen in proven.seen.items():
        stdout().print(f"cosigned by {plain(name)}, {moment(seen)}")
    return 0


@command(app, "export", "tallystone audit export ./public-log")
def export(folder: Annotated[Path, Parameter(metavar="DIR")], /, *, place: Keyless = Keyless()) -> int:
    """Write the log as static files (C2SP tlog-tiles). A later export into the same folder adds what is new.

    Parameters
    ----------
    folder
        Where to. Any web server can serve it.
    """
    with place.workspace() as workspace, progress("exporting") as step:
        before, now = workspace.log.export(folder, step)
    if place.as_json:
        emit({"before": before, "leaves": now})
    else:
        stdout().print(f"{plain(str(folder))} holds {now} leaves, {now - before} of them new")
    return 0


@command(
    app,
    "witnesses",
    "tallystone audit witnesses",
    "tallystone audit witnesses --url https://memory.example.com",
)
def witnesses(*, place: Place = Place()) -> int:
    """Show who cosigns the log, up to where, and how fresh that is."""
    with place.log() as log:
        view = log.view()
    if place.as_json:
        emit(
            {
                "origin": view.origin,
                "key": view.key,
                "size": view.size,
                "witnesses": [asdict(one) for one in view.witnesses],
            }
        )
        return 0
    now = int(time.time())
    rows = (
        (one.name, one.size or "", view.size - one.size, _ago(one.time, now), one.problem)
        for one in view.witnesses
    )
    table(("WITNESS", "LEAVES", "BEHIND", "COSIGNED", "PROBLEM"), rows, empty="no witness cosigns this log")
    say(f"the log has {view.size} leaves; its key: {view.key}")
    return 0


def _ago(seen: int | None, now: int) -> str:
    return "never" if seen is None else f"{moment(seen)}, {max(now - seen, 0)} s ago"


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as problem:
        raise Usage(f"cannot read {path}: {problem.strerror}") from None


def _write(path: Path, content: bytes) -> None:
    half = path.with_name(path.name + ".new")
    try:
        half.write_bytes(content)
        half.replace(path)
    except OSError as problem:
        raise Usage(f"cannot write {path}: {problem.strerror}") from None


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
