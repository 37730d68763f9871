"""`tallystone history`, `blame` and `undo`: what a block was, who wrote it, and bringing back what was."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Annotated

from cyclopts import Parameter
from rich.text import Text

from tallystone.cli.block import BlockId, Once
from tallystone.cli.group import command, group
from tallystone.cli.place import Place, Usage
from tallystone.cli.terminal import body, emit, jsonable, moment, pairs, plain, report, say, stdout, table
from tallystone.cli.times import since as moment_named
from tallystone.vault.versions import PastVersion, UndoConflict, Undone

app = group("history", "List, read, compare and bring back earlier versions of a block.")

Number = Annotated[int, Parameter(metavar="N")]
_OLDER = {
    "more": "there are older ones: --before N goes on",
    "not_kept": "older ones were not kept: the block's rule let them go",
    "closed": "older ones are closed to you: your grant opens what was written since",
    "erased": "came with a version that was erased, or with the one after it",
}
_COLOURS = {"+": "green", "-": "red", "@": "cyan"}


@command(
    app, "list", "tallystone history list block-2f4d8c1a-…", "tallystone history list block-2f4d8c1a-… -n 200"
)
def list_versions(
    block: BlockId,
    /,
    *,
    lines: Annotated[int, Parameter(alias="-n", metavar="N")] = 20,
    before: Annotated[int | None, Parameter(metavar="N")] = None,
    place: Place = Place(),
) -> int:
    """List the versions of a block, newest first: who wrote each, when, and what it changed.

    Parameters
    ----------
    block
        The block's id.
    lines
        How many at most.
    before
        Only versions before this one.
    """
    if lines < 1:
        raise Usage("--lines must be at least 1")
    with place.vault() as vault:
        page = vault.versions(block, limit=lines, before=before)
    if place.as_json:
        emit({"versions": [_json(one) for one in page.versions], "older": page.older})
        return 0
    table(
        ("VERSION", "TIME", "WRITER", "UNDER", "SIZE", "CHANGED"),
        (
            [one.number, moment(one.time), one.name or one.writer, one.under, one.size, _what(one)]
            for one in page.versions
        ),
    )
    if page.older:
        say(_OLDER.get(page.older, page.older), style="dim")
    return 0


def _json(one: PastVersion) -> dict[str, object]:
    """A version as JSON; its content only where it was asked for."""
    return {name: value for name, value in jsonable(one).items() if name != "content" or value is not None}


def _what(one: PastVersion) -> str:
    if one.erased is not None:
        return f"erased on {one.erased}"
    fields = "?" if one.fields is None else ", ".join(one.fields)
    if one.restored is not None:
        return f"{fields} (restored {one.restored})"
    return f"{fields} (undid {one.undone})" if one.undone else fields


@command(
    app,
    "show",
    "tallystone history show block-2f4d8c1a-… 3",
    "tallystone history show block-2f4d8c1a-… 3 --value",
)
def show(
    block: BlockId,
    number: Number,
    /,
    *,
    value: Once = False,
    place: Place = Place(),
) -> int:
    """Show a version as it was.

    Parameters
    ----------
    block
        The block's id.
    number
        The version's number.
    value
        Print the value alone.
    """
    with place.vault() as vault:
        one = vault.version(block, number)
    content = one.content or {}
    if place.as_json:
        emit(_json(one))
        return 0
    if not value:
        pairs(
            {
                "version": one.number,
                "written": f"{moment(one.time)} by {one.name or one.writer}",
                "under": one.under,
                "changed": _what(one),
                "label": content.get("label"),
                "description": content.get("description"),
                "tags": ", ".join(content.get("tags") or ()),
                "size": f"{one.size} characters",
            }
        )
        body("")
    body(str(content.get("value") or ""))
    return 0


@command(
    app,
    "diff",
    "tallystone history diff block-2f4d8c1a-… 3 7",
    "tallystone history diff block-2f4d8c1a-… 3",
)
def diff(
    block: BlockId,
    before: Number,
    after: Annotated[int | None, Parameter(metavar="N")] = None,
    /,
    *,
    place: Place = Place(),
) -> int:
    """Show what changed from one version to another, as diff -u does.

    Parameters
    ----------
    block
        The block's id.
    before
        The version to start from.
    after
        The version to go to. Default: the one after it.
    """
    with place.vault() as vault:
        found = vault.diff(block, before, before + 1 if after is None else after)
    if place.as_json:
        emit(found)
        return 0
    for name, (then, now) in found.fields.items():
        _coloured([f"-{name}: {plain(then)}", f"+{name}: {plain(now)}"])
    _coloured(found.lines)
    if not found.fields and not found.lines:
        say("no difference", style="dim")
    return 0


def _coloured(lines: Sequence[str]) -> None:
    """Lines of a difference: coloured at a terminal, as they are in a pipe."""
    for line in lines:
        if sys.stdout.isatty():
            stdout().print(Text(plain(line, keep="\t"), style=_COLOURS.get(line[:1], "")))
        else:
            body(line)


@command(app, "restore", "tallystone history restore block-2f4d8c1a-… 3")
def restore(block: BlockId, number: Number, /, *, place: Place = Place()) -> int:
    """Bring an earlier version back, as a new version of yours. Settings stay as they are.

    Parameters
    ----------
    block
        The block's id.
    number
        The version to bring back.
    """
    with place.vault() as vault:
        done = vault.restore(block, number)
    return report(
        {"block": done.id, "restored": number, "version": done.version},
        f"{done.id} is at version {done.version}, with the content of version {number}",
        as_json=place.as_json,
    )


def blame(block: BlockId, /, *, place: Place = Place()) -> int:
    """Show who wrote which line of a block, through edits and moves.

    Parameters
    ----------
    block
        The block's id.
    """
    with place.vault() as vault:
        found = vault.blame(block)
    if place.as_json:
        emit(found)
        return 0
    table(
        ("LINE", "VERSION", "TIME", "WRITER", "TEXT"),
        (
            [one.line, one.version or "?", moment(one.time), one.name or one.writer or "?", one.text]
            for one in found.lines
        ),
        empty="the block is empty",
    )
    if found.older:
        say(f"?: {_OLDER.get(found.older, found.older)}", style="dim")
    return 0


def undo(
    who: Annotated[str, Parameter(metavar="WHO")],
    /,
    *,
    since: Annotated[str, Parameter(metavar="WHEN")],
    block: Annotated[str | None, Parameter(metavar="BLOCK")] = None,
    dry_run: Once = False,
    place: Place = Place(),
) -> int:
    """Take back everything that somebody wrote since a moment, in one block or in all that you may write.

    New versions of yours say so; what others wrote since stays. Where they wrote over it, nothing is changed and the
    conflict is shown. Exit status 1 when something was left.

    Parameters
    ----------
    who
        A user's name or id, or an agent's; names of agents only for your own.
    since
        A time ago (2h, 3d), a time (2027-01-31T18:00, UTC unless it says otherwise), or with --block the number of
        the first version.
    block
        Only in this block.
    dry_run
        Only say what would be done.
    """
    moment_meant = moment_named(since, datetime.now(UTC))
    if isinstance(moment_meant, int) and block is None:
        raise Usage("a version's number needs --block BLOCK", hint="or name a moment, like --since 2h")
    with place.vault() as vault:
        found = vault.undo(who, moment_meant, block, dry_run=dry_run)
    left = any(one.conflicts or one.skipped for one in found)
    if place.as_json:
        emit(found)
    else:
        _undone(who, found, dry_run=dry_run)
    return 1 if left and not dry_run else 0


def _undone(who: str, found: Sequence[Undone], *, dry_run: bool) -> None:
    found = [one for one in found if one.versions or one.conflicts or one.skipped]
    table(
        ("BLOCK", "LABEL", "UNDONE", "NOW AT", "LEFT"),
        ([one.block_id, one.label, spans(one.versions), one.version, _left(one)] for one in found),
        empty=f"nothing by {who} since then that you could take back",
    )
    for one in found:
        for conflict in one.conflicts:
            _conflict(one, conflict)
    if dry_run and found:
        say("nothing was changed: this was a dry run", style="dim")


def _left(one: Undone) -> str:
    said = [f"skipped: {one.skipped}"] if one.skipped else []
    if one.conflicts:
        said.append(f"{len(one.conflicts)} conflict{'s' if len(one.conflicts) > 1 else ''}")
    return ", ".join(said)


_REASONS = {
    "first": "made the block: delete it, or restore what you want of it",
    "out_of_reach": "it or the version before is not kept, erased, or closed to you",
}


def _conflict(one: Undone, conflict: UndoConflict) -> None:
    where = f"{one.label} ({one.block_id})"
    if conflict.reason in _REASONS:
        say(f"{where}, version {spans(conflict.versions)}: {_REASONS[conflict.reason]}", style="yellow")
        return
    line = f", line {conflict.start}" if conflict.start else ""
    others = f" by {', '.join(conflict.writers)}" if conflict.writers else ""
    versions = f" in version {spans(conflict.versions)}" if conflict.versions else ""
    say(f"{where}, {conflict.part}{line}: written over{others}{versions}", style="yellow")
    for mark, lines in (("now    ", conflict.now), ("before ", conflict.before)):
        for text in lines:
            say(f"  {mark} {text}")


def spans(numbers: Iterable[int]) -> str:
    """`2, 4-9` for the numbers 2 and 4 to 9."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and runs[-1][1] == number - 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)
