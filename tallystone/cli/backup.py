"""`tallystone backup` and `restore`: a copy of the database while a server runs, and the ceremony that puts it back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from tallystone.cli.place import Keyless, TokenFile, Usage, read_token, store_url
from tallystone.cli.terminal import emit, line, progress, say, warn
from tallystone.vault.backups import back_up
from tallystone.vault.backups import restore as put_back


def backup(
    target: Annotated[Path, Parameter(metavar="TARGET")],
    /,
    *,
    verify: Annotated[bool, Parameter(negative="--no-verify")] = True,
    place: Keyless = Keyless(),
) -> int:
    """Copy the database to the new file TARGET, as it is at one moment. Needs no key; a server may go on writing.

    The keys in server-keys are not in it: copy that folder to another place, with a retention of its own.

    Parameters
    ----------
    target
        The backup: a new file.
    verify
        Check the copy's log and rows before it gets its name.
    """
    made = back_up(place.directory(), target, store=store_url(), check=verify, phase=progress)
    if place.as_json:
        checkpoint = made.checkpoint.decode()
        emit({"backup": str(target), "bytes": made.size, "leaves": made.leaves, "checkpoint": checkpoint})
        return 0
    checked = f", {made.leaves} leaves, verified" if verify else ", not verified"
    say(f"backed up to {target}: {made.size} bytes{checked}")
    say("The server's keys are not in it: keep a copy of server-keys in another place.", style="dim")
    return 0


def restore(
    backup: Annotated[Path, Parameter(metavar="BACKUP")],
    /,
    *,
    replace: Annotated[bool, Parameter(negative=())] = False,
    server_keys: Annotated[Path | None, Parameter(metavar="DIR")] = None,
    new_log_key: Annotated[bool, Parameter(negative=())] = False,
    kit: Annotated[Path | None, Parameter(metavar="FILE")] = None,
    lost_checkpoint: Annotated[tuple[Path, ...], Parameter(metavar="FILE", negative=())] = (),
    token_file: TokenFile = None,
    place: Keyless = Keyless(),
) -> int:
    """Make BACKUP the database of a data directory, by the word of the workspace's first user, whose token it takes.

    The log says so from then on, and names what is lost: whoever kept a later checkpoint accepts it by that statement
    alone. Everything that was revoked after the backup was made is granted again: revoke it once more.

    Parameters
    ----------
    backup
        The file that tallystone backup made.
    replace
        There is a workspace in the directory: put the backup in its place, and keep the old database beside it.
    server_keys
        The copy of server-keys, for a directory that has none.
    new_log_key
        The log's key is lost or stolen: name another one. What the old one signs from then on is not believed.
    kit
        The recovery kit of the workspace's first user, in place of a token. A new token goes to stdout.
    lost_checkpoint
        A checkpoint of the log that is lost, for when the old database is gone; may be repeated.
    token_file
        File that holds the token; - is standard input. Also: the token itself in TALLYSTONE_TOKEN.
    """
    token = read_token(token_file) if kit is None else None
    try:
        text = kit.read_text(encoding="utf-8", errors="replace") if kit is not None else None
        known = [note.read_bytes() for note in lost_checkpoint]
    except OSError as problem:
        raise Usage(f"cannot read {problem.filename}: {problem.strerror}") from None
    directory = place.directory()
    done = put_back(
        backup, directory, token, kit=text, replace=replace, server_keys=server_keys, new_log_key=new_log_key,
        known=known, phase=progress,
    )  # fmt: skip
    if place.as_json:
        told = {"leaf": done.seq, "lost": done.lost, "known": done.known, "replaced": str(done.aside or "")}
        emit(told if done.token is None else {**told, "token": done.token})
        return 0
    if done.token is not None:
        line(done.token)
    say(f"restored {directory} to its first {done.seq} leaves; leaf {done.seq} says so")
    for lost in done.lost:
        say(f"lost: {lost}")
    if not done.known and not done.lost:
        warn(
            "nothing said what is lost: who kept a later checkpoint will find a rollback (--lost-checkpoint)"
        )
    if done.aside is not None:
        say(f"The old database is {done.aside}.")
    say("What was revoked since the backup is granted again: tallystone access, tallystone token list.")
    return 0
