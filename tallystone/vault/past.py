"""Earlier versions of a block, each verified: the list, one of them, what changed, and who wrote which line.

From the newest version, which is verified as every reader verifies it, each one's hash of its predecessor leads back.
Each on the way must be there, be signed by whom it names, and have had its writer's right under the policy that it
cites. So a dropped, swapped or rolled-back row is found, wherever it is. The way ends at the first version, at the
oldest that the block's rule kept, or where the caller's keys end.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, TypeVar

from tallystone import _cbor, crypto, policy
from tallystone.errors import NotFound, Tampered
from tallystone.policy import Standing
from tallystone.statements import Version
from tallystone.vault import lines, reach
from tallystone.vault.caller import Caller
from tallystone.vault.entering import open_block
from tallystone.vault.fields import CONTENT_FIELDS
from tallystone.vault.fixed import check_content
from tallystone.vault.opening import Opened
from tallystone.vault.passages import find_block
from tallystone.vault.plan import Plan
from tallystone.vault.records import SALT, Content, open_payload
from tallystone.vault.tombstones import erased_on, erased_version
from tallystone.vault.versions import Blame, BlameLine, Difference, PastVersion, Versions
from tallystone.vault.views import when

T = TypeVar("T")

CONTENTS = 1_000_000
"""Characters of values after which a page that holds contents ends."""


@dataclass(frozen=True)
class Past:
    """One verified version with its payload; of an erased one that is empty, and `erased` the day on which it went."""

    version: Version
    payload: Mapping[str, Any]
    erased: date | None = None

    @property
    def number(self) -> int:
        """Its place."""
        return self.version.number

    @property
    def content(self) -> dict[str, Any]:
        """The fields that a writer changes."""
        return {name: self.payload[name] for name in CONTENT_FIELDS}

    def stated(self, name: str) -> Any:
        """What kind of version it says it is; see `restored` and `undone_by`."""
        return self.version.change.get(name)


class Walk:
    """The versions of an opened block, newest first. After the last one `older` says why there are no more: empty,
    `not_kept` or `closed`."""

    def __init__(self, opened: Opened) -> None:
        self.opened = opened
        self.older = ""

    def __iter__(self) -> Iterator[Past]:
        opened = self.opened
        content, version = opened.content()
        oldest = policy.kept(version)
        while True:
            if content.erased:
                yield Past(version, {}, erased_on(content))
            else:
                yield Past(version, open_payload(opened.held.kind, content.payload))
            if version.number == 1:
                return
            if version.number == oldest:
                self.older = "not_kept"
                return
            try:
                before, earlier = opened.stored(version.number - 1)
            except NotFound:
                self.older = "closed"
                return
            self._check(before, earlier, content, version)
            content, version = before, earlier

    def _check(self, content: Content, version: Version, after: Content, later: Version) -> None:
        opened = self.opened
        caller, plan = opened.caller, opened.plan
        if not crypto.equal(later.previous, content.signed.digest):
            raise Tampered("a version does not follow the one before it")
        if later.policy < version.policy:
            raise Tampered("a version cites an older policy than the one before it")
        writer = caller.identity(plan, version.writer)
        if not writer.signed(content.signed, caller.workspace.id, version.writer_record):
            raise Tampered("a statement is not signed by the one it names")
        if version.under and not caller.identity(plan, version.under).signed(
            content.signed, caller.workspace.id
        ):
            raise Tampered("a version is not signed by the user it was written under")
        standing = Standing(version.writer, content.leaf, content.proof, opened.steps(content.via))
        cited = opened.head_at(version.policy)
        ended = opened.head_at(version.policy + 1) if version.policy < opened.head.number else None
        policy.check_past(cited, ended, version, content.signed.digest, standing)
        policy.check_serials(version, later, opened.steps(after.via))
        policy.check_kept(version, later, opened.head_at(later.policy).settings)
        check_content(opened, content, version)
        if opened.genesis().append_only:  # no version of such a block is erased
            policy.check_appended(_parts(opened, content), _parts(opened, after))


def _parts(opened: Opened, content: Content) -> tuple[str, bytes]:
    payload = open_payload(opened.held.kind, content.payload)
    payload.pop(SALT, None)  # each version has its own
    return payload.pop("value"), _cbor.encode(payload)


def restored(past: Past) -> int | None:
    """The version that this one says it brought back."""
    number = past.stated("restored")
    return number if type(number) is int and 0 < number < past.number else None


def undone_by(past: Past) -> tuple[str, list[tuple[int, int]]]:
    """Whose writes this version says it took back, as runs (first, last), oldest first; none for a plain edit."""
    said = past.stated("undone")
    if not isinstance(said, list) or not _cbor.fits(said, (str, list)):
        return "", []
    who, runs = said
    if not all(isinstance(run, list) and _cbor.fits(run, (int, int)) for run in runs):
        return "", []
    return who, [(first, last) for first, last in runs if 1 < first <= last < past.number]


# -- reading ----------------------------------------------------------------------------------------------------


def _read(caller: Caller, block_id: str, look: Callable[[Walk], T], **detail: Any) -> T:
    """Look at a block's past, and log that as a read."""

    def action(plan: Plan) -> T:
        held = find_block(caller, plan, block_id)
        opened = open_block(caller, plan, held)
        found = look(Walk(opened))
        caller.event(plan, "read", held.key, block=block_id, **{"version": opened.row.version, **detail})
        return found

    return caller.transact(action)


def find_version(walk: Walk, number: int) -> tuple[Past, Past | None]:
    """The version with this number, and the one before it if that is in reach. Raises `NotFound`."""
    found: Past | None = None
    for past in walk:
        if found is not None:
            return found, past
        if past.number == number:
            found = past
            if past.erased is not None:
                raise erased_version(walk.opened.id, number, past.erased)
        elif past.number < number:
            break
    if found is not None:
        return found, None
    why = {"not_kept": "it is not kept any more", "closed": "it was written before what you hold opens"}
    raise NotFound(
        f"{walk.opened.id} has no version {number} for you: {why.get(walk.older, 'there is none')}",
        hint="list the versions that you can read with: tallystone history list BLOCK",
        code="unknown_version",
    )


def _shown(
    walk: Walk, past: Past, before: Past | None, known: reach.Known, *, full: bool = False
) -> PastVersion:
    version = past.version
    return PastVersion(
        number=version.number,
        writer=version.writer,
        name=known.get(version.writer),
        under=version.under,
        time=when(version.time),
        size=len(past.payload.get("value", "")),
        fields=_changed(walk.opened, past, before),
        restored=restored(past),
        undone=undone_by(past)[0],
        erased=past.erased,
        content=past.content if full and past.erased is None else None,
    )


def _changed(opened: Opened, past: Past, before: Past | None) -> list[str] | None:
    """The names of the content's fields and of the owner's settings that a version changed."""
    if past.erased is not None or (before is not None and before.erased is not None):
        return None
    if before is None:
        return [name for name in CONTENT_FIELDS if past.payload[name]] if past.number == 1 else None
    fields = [name for name in CONTENT_FIELDS if past.payload[name] != before.payload[name]]
    if past.version.policy == before.version.policy:
        return fields
    now, then = (opened.head_at(one.version.policy).settings for one in (past, before))
    names = sorted((now.keys() | then.keys()) - {"seat", "transfer"})
    return fields + [name for name in names if now.get(name) != then.get(name)]


def versions(
    caller: Caller, block_id: str, limit: int | None, before: int | None, *, content: bool = False
) -> Versions:
    """A page of the versions below number `before`, newest first; with `content` it ends at `CONTENTS` characters."""

    def look(walk: Walk) -> Versions:
        known = reach.Known(caller, walk.opened.plan)
        found: list[PastVersion] = []
        newer: Past | None = None
        size = 0
        for past in walk:
            if newer is not None:
                found.append(_shown(walk, newer, past, known, full=content))
                size += found[-1].size if content else 0
                newer = None
            if len(found) == limit or size >= CONTENTS:
                return Versions(found, "more")
            if before is None or past.number < before:
                newer = past
        if newer is not None:
            found.append(_shown(walk, newer, None, known, full=content))
        return Versions(found, walk.older)

    return _read(caller, block_id, look, history="list")


def version(caller: Caller, block_id: str, number: int) -> PastVersion:
    """One version with its content, as it was."""

    def look(walk: Walk) -> PastVersion:
        past, before = find_version(walk, number)
        return _shown(walk, past, before, reach.Known(caller, walk.opened.plan), full=True)

    return _read(caller, block_id, look, version=number)


def diff(caller: Caller, block_id: str, first: int, second: int) -> Difference:
    """What changed from one version to another; the numbers may stand in either order."""

    def look(walk: Walk) -> Difference:
        # The older one first: the way there says why it is out of reach, if it is.
        found = {number: find_version(walk, number)[0].payload for number in sorted({first, second})}
        before, after = found[first], found[second]
        fields = {
            name: [before[name], after[name]]
            for name in CONTENT_FIELDS
            if name != "value" and before[name] != after[name]
        }
        return Difference(first, second, lines.unified(before["value"], after["value"]), fields)

    return _read(caller, block_id, look, version=second, since=first)


# -- blame ------------------------------------------------------------------------------------------------------


def value_lines(text: str) -> list[str]:
    """The lines that a person counts: a newline at the end begins no further one."""
    found = lines.split(text)
    return found[:-1] if found[-1] == "" else found


@dataclass
class _Wanted:
    """Lines of a version whose origin is looked for in the ones that it says it brought back: place → final places.
    Found in none they came with `past`; None if one before it was erased, so that nobody can tell."""

    past: Past | None
    lines: Sequence[str]
    places: dict[int, list[int]]
    sources: list[int]


def origins(walk: Walk) -> tuple[list[str], dict[int, Past]]:
    """The newest value's lines, and {place: the version that it came with}; none for what is older than the way leads.

    A line that moved within one version keeps its origin, and so does one that a restore or an undo brought back. One
    that an erased version, or the one after it, may have come with has none.
    """
    newest: list[str] = []
    found: dict[int, Past] = {}
    open_lines: dict[int, list[int]] = {}  # place in the version at hand → places in the newest
    waiting: dict[int, list[_Wanted]] = defaultdict(list)
    after: Past | None = None
    gap = False
    for past in walk:
        if past.erased is not None:
            waiting.pop(past.number, None)
            gap = True
            continue
        text = value_lines(past.payload["value"])
        if after is None:
            newest, open_lines = text, {place: [place] for place in range(len(text))}
        else:
            open_lines = _step(text, after, open_lines, found, waiting, gap=gap)
        gap = False
        for wanted in waiting.pop(past.number, ()):
            _match(text, wanted, open_lines, found, waiting)
        after = past
        if not open_lines and not waiting:
            return newest, found
    if after is not None and not walk.older and not gap:
        found |= {place: after for places in open_lines.values() for place in places}
    return newest, found


def _step(
    text: Sequence[str],
    after: Past,
    open_lines: Mapping[int, list[int]],
    found: dict[int, Past],
    waiting: Mapping[int, list[_Wanted]],
    *,
    gap: bool,
) -> dict[int, list[int]]:
    """From the open lines of a version to those of the one before it, whose lines are `text`; `gap`: of the last one
    before it that was not erased."""
    later = value_lines(after.payload["value"])
    same = lines.carried(text, later)
    onward: dict[int, list[int]] = defaultdict(list)
    new: dict[int, list[int]] = {}
    for place, places in open_lines.items():
        if place in same:
            onward[same[place]] += places
        else:
            new[place] = places
    sources = sorted({first - 1 for first, _ in undone_by(after)[1]})
    back = restored(after)
    if back is not None:
        sources = [back]
    _on(_Wanted(None if gap else after, later, new, sources), found, waiting)
    return dict(onward)


def _on(wanted: _Wanted, found: dict[int, Past], waiting: Mapping[int, list[_Wanted]]) -> None:
    """Look further in the next of the sources, or say that the lines came with the version itself."""
    if wanted.places and wanted.sources:
        waiting[wanted.sources.pop()].append(wanted)
    elif wanted.past is not None:
        found |= {place: wanted.past for places in wanted.places.values() for place in places}


def _match(
    text: Sequence[str],
    wanted: _Wanted,
    open_lines: dict[int, list[int]],
    found: dict[int, Past],
    waiting: Mapping[int, list[_Wanted]],
) -> None:
    same = lines.carried(text, wanted.lines)
    for place in [place for place in wanted.places if place in same]:
        open_lines.setdefault(same[place], []).extend(wanted.places.pop(place))
    _on(wanted, found, waiting)


def blame(caller: Caller, block_id: str) -> Blame:
    """Which principal wrote which line of the current value, and when."""

    def look(walk: Walk) -> Blame:
        known = reach.Known(caller, walk.opened.plan)
        newest, found = origins(walk)
        shown = [_blamed(place, text, found.get(place), known) for place, text in enumerate(newest)]
        unknown = any(line.version is None for line in shown)
        return Blame(walk.opened.row.version, shown, (walk.older or "erased") if unknown else "")

    return _read(caller, block_id, look, history="blame")


def _blamed(place: int, text: str, past: Past | None, known: reach.Known) -> BlameLine:
    if past is None:
        return BlameLine(place + 1, text, None)
    one = past.version
    return BlameLine(
        place + 1, text, one.number, one.writer, known.get(one.writer), one.under, when(one.time)
    )
