"""Bringing back what was: one version, or a block without what one principal wrote (the answer to a poisoned agent).

Both make new versions, signed by whoever asks, under the same rules as every edit; nothing is taken out of the history.
An undo takes each run of the principal's versions back, the newest first, under what others wrote since: line by line
in the value, as a whole in the other fields. Where others wrote over it, both stay and the conflict is reported. The
version names the runs that it took back entirely, so that a repeated undo does not look at them again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from tallystone.errors import Denied, Invalid, Locked, NotFound, Taken, Tampered
from tallystone.policy import may_write
from tallystone.statements import WRITE
from tallystone.vault import lines, reach
from tallystone.vault.attaching import labels_stay_unique
from tallystone.vault.blocks import edit_opened
from tallystone.vault.caller import Caller
from tallystone.vault.entering import open_block
from tallystone.vault.fields import CONTENT_FIELDS
from tallystone.vault.opening import Opened
from tallystone.vault.passages import find_block, walk_blocks
from tallystone.vault.past import Past, Walk, find_version, origins, restored, undone_by
from tallystone.vault.plan import Plan
from tallystone.vault.records import OFFERED
from tallystone.vault.rotating import heal
from tallystone.vault.types import Block
from tallystone.vault.versions import UndoConflict, Undone

_ID = r"(user|agent)-[0-9a-f-]{36}"
Since = datetime | int
"""A moment, or the number of a version."""


def restore(caller: Caller, block_id: str, number: int) -> Block:
    """A new version with the content of version `number`; none if that is the content already."""

    def action(plan: Plan) -> Block:
        caller.must_act()
        held = find_block(caller, plan, block_id, WRITE)
        opened = heal(open_block(caller, plan, held))
        content = find_version(Walk(opened), number)[0].content
        block, changed = edit_opened(opened, lambda _: content, None, change={"restored": number})
        if "label" in changed:
            labels_stay_unique(opened, caller)
        detail = {"version": block.version, "fields": changed, "restored": number}
        caller.event(plan, "update" if changed else "read", held.key, block=block_id, **detail)
        return block

    return caller.transact(action, lock=block_id)


# -- undo -------------------------------------------------------------------------------------------------------


def undo(
    caller: Caller, principal: str, since: Since, block_id: str | None, *, dry_run: bool
) -> list[Undone]:
    """Take back what `principal` wrote since then: in one block, or in all that the caller may write. One operation a
    block, so that one that others keep changing holds up none of the rest; broken off, it is simply asked again."""
    if isinstance(since, int) and block_id is None:
        raise Invalid(
            "a version's number says since when in one block only",
            hint="name the block too, or a moment",
            code="bad_since",
        )
    if isinstance(since, datetime) and since.tzinfo is None:
        since = since.replace(tzinfo=UTC)

    def begin(plan: Plan) -> tuple[str, bool, list[str]]:
        if not dry_run:
            caller.must_act()
        if block_id is not None:
            blocks = [find_block(caller, plan, block_id, WRITE).block]
        else:
            blocks = [held.block for held in walk_blocks(caller, plan) if held.state != OFFERED]
        return *_who(caller, plan, principal), blocks

    who, known, blocks = caller.transact(begin)
    found = []
    for one in blocks:
        try:
            done, wrote = _undo_in(caller, one, who, since, dry_run=dry_run)
        except NotFound:
            if block_id is not None:
                raise
            continue  # gone meanwhile
        known = known or wrote
        if done.versions or done.conflicts or done.skipped or block_id is not None:
            found.append(done)
    if not known:
        raise _nobody(who)
    return found


def _who(caller: Caller, plan: Plan, who: str) -> tuple[str, bool]:
    """The id of a principal by id or name, and whether the caller knows it: of an id that is another's agent nobody
    hears whether there is one, unless it wrote where the caller reads. Raises `NotFound`."""
    names = reach.Known(caller, plan)
    if re.fullmatch(_ID, who):
        return who, bool(names.get(who)) or who == caller.id
    named = names.called(who)
    if len(named) > 1:
        raise Invalid(
            f"{len(named)} principals are called {who!r}", hint="give the id", code="ambiguous_name"
        )
    if not named:
        raise _nobody(who)
    return named[0], True


def _nobody(who: str) -> NotFound:
    return NotFound(
        f"nobody that you know is called {who!r}",
        hint="give a user's or agent's id, or the name of a user or of your agent",
        code="unknown_principal",
    )


def _undo_in(caller: Caller, block_id: str, who: str, since: Since, *, dry_run: bool) -> tuple[Undone, bool]:
    """What was done in one block, and whether the principal ever wrote there, as far as the caller can see."""
    seen: list[tuple[Undone, bool]] = []

    def action(plan: Plan) -> tuple[Undone, bool]:
        held = find_block(caller, plan, block_id, WRITE)
        opened = open_block(caller, plan, held)
        opened = opened if dry_run else heal(opened)
        found = _take_back(opened, who, since)
        done = Undone(block_id, found.label, found.versions, found.conflicts)
        if not may_write(opened.head, opened.standing(), caller.workspace.today()):
            done = replace(done, skipped="no_write" if found.versions or found.conflicts else "", versions=[])
        seen[:] = [(done, found.wrote)]
        changed: list[str] = []
        if not dry_run and not done.skipped and found.changes:
            said = {"undone": [who, [list(run) for run in found.runs]]}
            block, changed = edit_opened(opened, lambda _: found.changes, None, change=said)
            if "label" in changed:
                labels_stay_unique(opened, caller)
            done = replace(done, version=block.version)
        detail = {"version": done.version or opened.row.version, "fields": changed}
        if changed:
            detail["undone"] = {"principal": who, "versions": found.runs}
        caller.event(plan, "update" if changed else "read", held.key, block=block_id, **detail)
        return done, found.wrote

    try:
        return caller.transact(action, lock=block_id)
    except (Denied, Locked, Invalid, Taken, Tampered) as error:
        # What is said of a block that refused: the others' undo goes on. The refusal is in the log.
        done, wrote = seen[0] if seen else (Undone(block_id, "", [], []), False)
        return replace(done, versions=[], skipped=error.code), wrote


# -- what it would be -------------------------------------------------------------------------------------------


@dataclass
class _Found:
    """What of one block an undo changes. `runs` are those that it takes back entirely."""

    label: str
    versions: list[int] = field(default_factory=list)
    runs: list[tuple[int, int]] = field(default_factory=list)
    conflicts: list[UndoConflict] = field(default_factory=list)
    changes: dict[str, Any] = field(default_factory=dict)
    wrote: bool = False
    """Whether the principal is the writer of any version there."""


@dataclass(frozen=True)
class _Run:
    """Consecutive versions of the principal: the last of them, and the one before the first (None: out of reach, or
    erased)."""

    first: int
    last: Past
    before: Past | None


def _take_back(opened: Opened, who: str, since: Since) -> _Found:
    newest, runs, made, wrote = _runs(Walk(opened), who, since)
    found = _Found(str(newest.payload["label"]), wrote=wrote)
    if made:
        found.conflicts.append(UndoConflict("first", versions=[1], writers=[who]))
    current = dict(newest.content)
    places: list[int | None] = list(range(len(lines.split(current["value"]))))
    clashes: list[tuple[list[str], list[int | None], tuple[str, ...]]] = []
    for run in runs:
        numbers = list(range(run.first, run.last.number + 1))
        if run.before is None:
            found.conflicts.append(UndoConflict("out_of_reach", versions=numbers, writers=[who]))
            continue
        before, after = run.before.payload, run.last.payload
        text = lines.split(current["value"])
        merged = lines.take_back(lines.split(before["value"]), lines.split(after["value"]), text)
        for clash in merged.clashes:
            span = slice(clash.start, clash.end)
            clashes.append((text[span], places[span], clash.instead))
        current["value"] = lines.join(merged.lines)
        places = [places[place] if place is not None else None for place in merged.places]
        others = [one for one in (_field(name, before, after, current) for name in CONTENT_FIELDS) if one]
        found.conflicts += others
        found.versions += numbers
        if not merged.clashes and not others:
            found.runs.append((run.first, run.last.number))
    if clashes:
        _, by = origins(Walk(opened))
        found.conflicts += [_overlap(who, *clash, by) for clash in clashes]
    found.versions.sort()
    found.runs.sort()
    found.changes = {name: value for name, value in current.items() if value != newest.payload[name]}
    return found


def _field(
    name: str, before: Mapping[str, Any], after: Mapping[str, Any], current: dict[str, Any]
) -> UndoConflict | None:
    """Set a field other than the value back, if nobody changed it since."""
    if name == "value" or before[name] == after[name] or current[name] == before[name]:
        return None
    if current[name] != after[name]:
        return UndoConflict("overlap", name, now=[str(current[name])], before=[str(before[name])])
    current[name] = before[name]
    return None


def _overlap(
    who: str,
    now: list[str],
    places: list[int | None],
    instead: tuple[str, ...],
    by: Mapping[int, Past],
) -> UndoConflict:
    standing = [place for place in places if place is not None]
    others = {by[place].number: by[place].version.writer for place in standing if place in by}
    others = {number: writer for number, writer in others.items() if writer != who} or others
    return UndoConflict(
        "overlap",
        start=min(standing) + 1 if standing else 0,
        now=now,
        before=list(instead),
        writers=list(dict.fromkeys(others[number] for number in sorted(others))),
        versions=sorted(others),
    )


def _runs(walk: Walk, who: str, since: Since) -> tuple[Past, list[_Run], bool, bool]:
    """The newest version, the runs to take back, newest first, whether the principal made the block since then, and
    whether it wrote any of the versions."""
    chosen = _Chosen(who, since)
    runs: list[_Run] = []
    newest: Past | None = None
    last: Past | None = None
    first, made, wrote = 0, False, False
    for past in walk:
        newest = newest or past
        wrote = wrote or past.version.writer == who
        wanted = chosen.takes(past)
        if wanted and past.number == 1:
            made, wanted = True, False
        if wanted and last is None and past.erased is not None:
            runs.append(_Run(past.number, past, None))  # nobody knows any more what it changed
        elif wanted:
            last, first = last or past, past.number
        elif last is not None:
            runs.append(_Run(first, last, past if past.erased is None else None))
            last = None
    if last is not None:
        runs.append(_Run(first, last, None))
    if newest is None:
        raise Tampered("a block's version is not there")
    return newest, runs, made, wrote


class _Chosen:
    """Which versions are taken back, asked from the newest on: those of the principal since then, but none that a later
    version by somebody else took back already. What a restore skipped or another undo took back says nothing."""

    def __init__(self, who: str, since: Since) -> None:
        self._who, self._since = who, since
        self._done: list[tuple[int, int]] = []
        self._back: list[tuple[int, int]] = []
        self._over: list[tuple[int, int]] = []

    def takes(self, past: Past) -> bool:
        """Whether this version is one of them."""
        number = past.number
        if not _within(number, [*self._back, *self._over]):
            back, (whom, runs) = restored(past), undone_by(past)
            if back is not None:
                self._over.append((back + 1, number - 1))
            self._back += runs
            if whom == self._who and past.version.writer != self._who:
                self._done += runs
        return past.version.writer == self._who and self._late(past) and not _within(number, self._done)

    def _late(self, past: Past) -> bool:
        if isinstance(self._since, int):
            return past.number >= self._since
        return past.version.time >= self._since.timestamp() * 1000


def _within(number: int, runs: list[tuple[int, int]]) -> bool:
    return any(first <= number <= last for first, last in runs)
