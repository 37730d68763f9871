"""Texts as lines: where two differ, which lines live on or move, and how one change is taken back under later ones.

Pure: no store, no keys, no clock. A text is split at newlines alone and joined with them, so nothing is lost; a text
that ends in a newline has an empty last line. Lines are matched by the standard library's
`difflib`.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

MATCH_COST = 2_000_000
"""Steps that matching may take at worst, as far as equal lines can multiply them. Beyond it lines that are repeated
often only match beside others: who may write a block must not keep a reader of its history busy for minutes."""
SMALL = 100_000
"""Product of the numbers of lines up to which two texts are matched at once; larger ones are cut first at the lines
that are unique in both."""
LARGE = 1_000_000
"""The same for what lies between two cuts; beyond it that counts as replaced as a whole."""


def split(text: str) -> list[str]:
    """The lines of a text; at least one, which may be empty."""
    return text.split("\n")


def join(lines: Sequence[str]) -> str:
    """The reverse of `split`."""
    return "\n".join(lines)


@dataclass(frozen=True)
class Hunk:
    """One place where two texts differ: lines [`start`, `end`) of the first stand as `lines` in the second, where they
    begin at `at`."""

    start: int
    end: int
    at: int
    lines: tuple[str, ...]

    @property
    def until(self) -> int:
        """Where they end in the second text (exclusive)."""
        return self.at + len(self.lines)


def hunks(first: Sequence[str], second: Sequence[str]) -> list[Hunk]:
    """Where two texts differ, in order. What lies between two hunks is the same in both."""
    head = _alike(first, second)
    tail = _alike(first[head:][::-1], second[head:][::-1])
    before, after = first[head : len(first) - tail], second[head : len(second) - tail]
    return [
        one
        for a, b, c, d in _between(before, after)
        for one in _matched(before[a:b], after[c:d], head + a, head + c)
    ]


def _matched(before: Sequence[str], after: Sequence[str], start: int, at: int) -> list[Hunk]:
    """The hunks of two parts of texts, which begin at `start` and `at`."""
    if not before and not after:
        return []
    if len(before) * len(after) > LARGE:
        return [Hunk(start, start + len(before), at, tuple(after))]
    matcher = SequenceMatcher(None, before, after, autojunk=_costly(before, after))
    return [
        Hunk(start + a, start + b, at + c, tuple(after[c:d]))
        for tag, a, b, c, d in matcher.get_opcodes()
        if tag != "equal"
    ]


def _between(before: Sequence[str], after: Sequence[str]) -> Iterator[tuple[int, int, int, int]]:
    """What lies between the lines that are unique in both and in the same order in both: their longest series."""
    place = at = 0
    for i, j in _series(before, after) if len(before) * len(after) > SMALL else ():
        yield place, i, at, j
        place, at = i + 1, j + 1
    yield place, len(before), at, len(after)


def _series(before: Sequence[str], after: Sequence[str]) -> list[tuple[int, int]]:
    here, there = Counter(before), Counter(after)
    places = {line: j for j, line in enumerate(after) if there[line] == 1}
    pairs = [(i, places[line]) for i, line in enumerate(before) if here[line] == 1 and line in places]
    lowest: list[int] = []  # the smallest end of an ascending series of each length so far
    ends: list[int] = []  # which pair that is
    links: list[int] = []  # each pair's predecessor in the series that it ends
    for number, (_, j) in enumerate(pairs):
        length = bisect_left(lowest, j)
        links.append(ends[length - 1] if length else -1)
        lowest[length : length + 1] = [j]
        ends[length : length + 1] = [number]
    found: list[tuple[int, int]] = []
    number = ends[-1] if ends else -1
    while number >= 0:
        found.append(pairs[number])
        number = links[number]
    return found[::-1]


def _alike(first: Sequence[str], second: Sequence[str]) -> int:
    """How many lines both begin with."""
    return next(
        (place for place, (one, other) in enumerate(zip(first, second, strict=False)) if one != other),
        min(len(first), len(second)),
    )


def _costly(before: Sequence[str], after: Sequence[str]) -> bool:
    here, there = Counter(before), Counter(after)
    pairs = sum(count * there[line] for line, count in here.items())
    return pairs * min(len(before), len(after)) > MATCH_COST


def unified(first: str, second: str, context: int = 3) -> list[str]:
    """What differs, as `diff -u` writes it, without the two lines that name files. Empty if nothing does."""
    before, after = split(first), split(second)
    found = hunks(before, after)
    groups: list[list[Hunk]] = []
    for one in found:
        if groups and one.start - groups[-1][-1].end <= 2 * context:
            groups[-1].append(one)
        else:
            groups.append([one])
    return [line for group in groups for line in _group(before, after, group, context)]


def _group(before: Sequence[str], after: Sequence[str], group: Sequence[Hunk], context: int) -> Iterator[str]:
    low, high = max(0, group[0].start - context), min(len(before), group[-1].end + context)
    at = group[0].at - (group[0].start - low)
    until = group[-1].until + (high - group[-1].end)
    yield f"@@ -{_span(low, high)} +{_span(at, until)} @@"
    place = low
    for one in group:
        yield from (" " + line for line in before[place : one.start])
        yield from ("-" + line for line in before[one.start : one.end])
        yield from ("+" + line for line in one.lines)
        place = one.end
    yield from (" " + line for line in before[place:high])


def _span(start: int, end: int) -> str:
    count = end - start
    first = start + 1 if count else start
    return str(first) if count == 1 else f"{first},{count}"


# -- where lines come from --------------------------------------------------------------------------------------


def carried(before: Sequence[str], after: Sequence[str]) -> dict[int, int]:
    """{place in `after`: place in `before`} of the lines that lived on, also those that moved: a line that is gone at
    one place and stands at another is the same line. Blank ones do not move."""
    found: dict[int, int] = {}
    gone: dict[str, list[int]] = defaultdict(list)
    differing = hunks(before, after)
    place = shift = 0
    for one in [*differing, Hunk(len(before), len(before), len(after), ())]:
        found |= {i + shift: i for i in range(place, one.start)}
        for i in range(one.start, one.end):
            gone[before[i]].append(i)
        place, shift = one.end, one.until - one.end
    for one in differing:
        for j, line in enumerate(one.lines, one.at):
            if line.strip() and gone[line]:
                found[j] = gone[line].pop(0)
    return found


# -- taking a change back ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Clash:
    """Where a change cannot be taken back, since somebody wrote over it: lines [`start`, `end`) of the current text,
    and what would have stood there."""

    start: int
    end: int
    instead: tuple[str, ...]


@dataclass(frozen=True)
class Merged:
    """A text after a change was taken back. `places` says of each line where it stood in the current text, or None for
    one that came back."""

    lines: list[str]
    places: list[int | None]
    clashes: list[Clash]


def take_back(before: Sequence[str], after: Sequence[str], current: Sequence[str]) -> Merged:
    """`current` without the change from `before` to `after`, which it was written on top of. Hunk by hunk: where a
    later one overlaps, both stay as they are and a `Clash` says so. The same change made twice is made once."""
    later, reverse = hunks(after, current), hunks(after, before)
    starts, ends = [one.start for one in later], [one.end for one in later]
    clashes: list[Clash] = []
    applied: list[Hunk] = []
    for one in reverse:
        near = later[bisect_left(ends, one.start) : bisect_right(starts, one.end)]
        if any(_same(one, other) for other in near):
            continue
        against = [other for other in near if _overlap(one, other, len(after))]
        if against:
            clashes.append(_clash(one, against, later, ends))
        else:
            applied.append(one)
    lines, places = _compose(after, later, applied)
    return Merged(lines, places, clashes)


def _same(one: Hunk, other: Hunk) -> bool:
    return (one.start, one.end, one.lines) == (other.start, other.end, other.lines)


def _overlap(one: Hunk, other: Hunk, length: int) -> bool:
    """Whether two hunks on the same text exclude each other. What one removes may be removed by the other as well, and
    what is added at the end of a text has no place that matters."""
    if not one.lines and not other.lines:
        return False
    inserts = (one.start == one.end, other.start == other.end)
    if all(inserts):
        return one.start == other.start and one.start < length
    if any(inserts):
        point, span = (one, other) if inserts[0] else (other, one)
        return span.start < point.start < span.end
    return max(one.start, other.start) < min(one.end, other.end)


def _clash(one: Hunk, against: Sequence[Hunk], later: Sequence[Hunk], ends: Sequence[int]) -> Clash:
    def at(place: int) -> int:
        """Where a line that the later hunks left alone stands now, or would, if one of them removed it too."""
        passed = bisect_right(ends, place)
        if passed < len(later) and later[passed].start < place:
            return later[passed].at
        return place + (later[passed - 1].until - later[passed - 1].end if passed else 0)

    first, last = against[0], against[-1]
    start = at(one.start) if one.start < first.start else first.at
    end = at(one.end) if one.end > last.end else last.until
    return Clash(start, end, one.lines)


def _compose(
    after: Sequence[str], later: Sequence[Hunk], applied: Sequence[Hunk]
) -> tuple[list[str], list[int | None]]:
    removed = {place for one in applied for place in range(one.start, one.end)}
    new, back = {one.start: one for one in later}, {one.start: one for one in applied}
    lines: list[str] = []
    places: list[int | None] = []
    skip = shift = 0
    for place in range(len(after) + 1):
        fresh, old = new.get(place), back.get(place)
        if old is not None and old.start == old.end:  # what was there first stands first
            lines += old.lines
            places += [None] * len(old.lines)
        if fresh is not None:
            lines += fresh.lines
            places += range(fresh.at, fresh.until)
            skip, shift = fresh.end, fresh.until - fresh.end
        if old is not None and old.start != old.end:
            lines += old.lines
            places += [None] * len(old.lines)
        if place < len(after) and place >= skip and place not in removed:
            lines.append(after[place])
            places.append(place + shift)
    return lines, places
