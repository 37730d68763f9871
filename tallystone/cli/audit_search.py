"""`tallystone audit search`: who read, did, gained, tried or changed what."""

from __future__ import annotations

import re
import sys
from datetime import UTC, datetime, timedelta
from typing import Annotated

from cyclopts import Parameter

from tallystone.cli.place import Place, Usage
from tallystone.cli.remote import RemoteVault
from tallystone.cli.terminal import emit, moment, say, table
from tallystone.letta.audit_text import as_csv, as_json, as_lines
from tallystone.letta.call import check_id
from tallystone.letta.routes_audit import minute
from tallystone.vault import Vault
from tallystone.vault.answers import Answered, Span
from tallystone.vault.questions import Question, What

_SPAN = re.compile(r"(\d{1,6})([mhdw])")
_UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}
_PAGE = 500

Flag = Annotated[bool, Parameter(negative=(), show_default=False)]
Kinds = Annotated[list[str] | None, Parameter(name="--kind", metavar="KIND", negative=())]
AsCsv = Annotated[bool, Parameter(name="--csv", negative=(), show_default=False)]
AsLines = Annotated[bool, Parameter(name="--jsonl", negative=(), show_default=False)]


def search(
    *,
    block: Annotated[str | None, Parameter(metavar="BLOCK")] = None,
    by: Annotated[str | None, Parameter(metavar="WHO")] = None,
    to: Annotated[str | None, Parameter(metavar="WHO")] = None,
    kind: Kinds = None,
    reads: Flag = False,
    changes: Flag = False,
    gained: Flag = False,
    denied: Flag = False,
    since: Annotated[str | None, Parameter(metavar="TIME")] = None,
    until: Annotated[str | None, Parameter(metavar="TIME")] = None,
    after_grant: Annotated[int | None, Parameter(metavar="N")] = None,
    limit: Annotated[int, Parameter(metavar="N")] = 100,
    csv: AsCsv = False,
    jsonl: AsLines = False,
    place: Place = Place(),
) -> int:
    """Ask the log, newest first: your own acts, what was done with blocks that you own or share, what your agents did.

    A time is 2027-01-31, 2027-01-31T18:00:00Z, or how long ago: 30m, 12h, 7d, 2w. Days are UTC and count whole.

    Parameters
    ----------
    block
        Only what concerns this block. A list counts for each block in it.
    by
        Only what this user, agent or role did: an id, or a name that you know. For a user also what agents did under
        its token.
    to
        Only that by which this user, agent or role came to reach something.
    kind
        Only events of this kind. May be repeated.
    reads
        Only reads: of one block, in lists, by listeners, and by questions like this one.
    changes
        Only what was no read and no refusal.
    gained
        Only that by which somebody came to reach something.
    denied
        Only what was refused.
    since
        Not before this time.
    until
        Not after this time.
    after_grant
        Only what came after this grant on the block, by its number.
    limit
        How many events at most.
    csv
        A table for spreadsheets; cells that they would take for formulas begin with an apostrophe.
    jsonl
        One JSON object a line.
    """
    flags: dict[What, bool] = {"reads": reads, "changes": changes, "gained": gained, "denied": denied}
    chosen = [what for what, wanted in flags.items() if wanted]
    if len(chosen) > 1:
        raise Usage(f"--{chosen[0]} and --{chosen[1]} exclude each other", hint="choose one")
    if csv + jsonl + place.as_json > 1:
        raise Usage("--csv, --jsonl and --json exclude each other", hint="choose one")
    if limit < 1:
        raise Usage("--limit must be at least 1")
    question = Question(
        block=check_id("block", block) if block else "",
        by=by or "",
        to=to or "",
        kinds=frozenset(kind or ()),
        what=chosen[0] if chosen else None,
        since=_minute(since, "--since"),
        until=_minute(until, "--until", last=True),
    )
    span = Span(grant=after_grant)
    with place.vault() as vault:
        found, more = _first(vault, question, span, limit)
    if csv:
        sys.stdout.write(as_csv(found))
    elif jsonl:
        sys.stdout.write(as_lines(found))
    elif place.as_json:
        emit([as_json(one) for one in found])
    else:
        table(
            ("SEQ", "TIME", "KIND", "ACTOR", "UNDER", "BLOCKS", "GAINED"),
            map(_row, found),
            empty="no such events that you may open",
        )
    if more:
        say(f"there may be more: these are the newest {len(found)}; raise --limit", style="dim")
    return 0


def _first(
    vault: Vault | RemoteVault, question: Question, span: Span, limit: int
) -> tuple[list[Answered], bool]:
    """The first `limit` events of an answer, and whether there may be more."""
    found: list[Answered] = []
    onward: Span | None = span
    while onward is not None and len(found) < limit:
        page = vault.search_log(question, onward, min(limit - len(found), _PAGE))
        found += page.events
        onward = page.onward
    return found, onward is not None


def _row(one: Answered) -> tuple[object, ...]:
    event = one.event
    return (
        event.seq,
        moment(event.minute * 60),
        event.kind,
        one.actor_name or event.actor,
        one.under_name or event.under,
        ", ".join(named.name or named.id for named in one.blocks),
        ", ".join(named.name or named.id for named in one.gained),
    )


def _minute(text: str | None, option: str, *, last: bool = False) -> int | None:
    ago = _SPAN.fullmatch(text) if text else None
    if ago is None:
        return minute(text, option, last=last)
    try:
        named = datetime.now(UTC) - int(ago[1]) * _UNITS[ago[2]]
    except OverflowError:
        raise Usage(f"{text} is too long ago", hint=f"leave {option} out") from None
    return int(named.timestamp()) // 60
