"""One page out of many streams, by date, that opens little more than it returns.

Each stream is in order of its entries' dates (whoever writes them sees to it, whatever the clock does), so the streams
are merged as they are walked, and the walk ends with the page. Where a page begins is found in its cursor's own stream
by number, and in the others by halving: some log2(n) entries of each are opened for that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from heapq import merge
from itertools import islice
from typing import Any

from tallystone.vault.streams import Entry

SCAN_LIMIT = 50_000
"""Entries of a stream that one page looks at."""

Place = tuple[int, tuple[str, ...], int]
"""Where an entry lies among those of all streams: its date, its stream's label, its number there."""
Where = Callable[[Entry], bool]


@dataclass(frozen=True)
class Source:
    """A stream as a page reads it. `label` says whose it is, and orders what has the same date.

    `walk` (beyond a number, newest first) and `at` (a number) give entries; `date` is the field that orders them.
    """

    label: tuple[str, ...]
    length: int
    walk: Callable[[int | None, bool], Iterator[tuple[int, Entry]]]
    at: Callable[[int], Entry | None]
    date: str

    def place(self, number: int, entry: Entry) -> Place:
        """The place of one of its entries."""
        return int(entry[self.date]), self.label, number

    def beyond(self, place: Place | None, newest_first: bool) -> Iterator[tuple[Place, tuple[Source, Entry]]]:
        """Its entries beyond a place."""
        start = None if place is None else self._start(place, newest_first)
        for number, entry in islice(self.walk(start, newest_first), SCAN_LIMIT):
            yield self.place(number, entry), (self, entry)

    def _start(self, place: Place, newest_first: bool) -> int:
        """The number beyond which its entries lie beyond the place."""
        if place[1] == self.label:
            return place[2]
        low, high = 0, self.length  # how many of its entries lie before the place
        while low < high:
            middle = (low + high) // 2 + 1
            entry = self.at(middle)
            if entry is None or self.place(middle, entry) < place:
                low = middle
            else:
                high = middle - 1
        return low + 1 if newest_first else low


def page_of(
    entries: Callable[[Any, bool], Iterator[tuple[Any, Any]]],
    *,
    after: Any,
    before: Any,
    limit: int | None,
    reverse: bool,
) -> list[Any]:
    """The page of an ordered source (`entries(beyond, newest first)`) between two places, nearest to its cursor. Places
    are numbers, or whatever else has an order."""
    backwards = before is not None and after is None
    start, stop = (before, None) if backwards else (after, before)
    page = list(islice(_until(entries(start, reverse != backwards), stop, reverse), limit))
    return page[::-1] if backwards else page


def _until(items: Iterator[tuple[Any, Any]], stop: Any, reverse: bool) -> Iterator[Any]:
    for place, item in items:
        if stop is not None and (place <= stop if reverse else place >= stop):
            return
        yield item


def merged_page(
    sources: list[Source],
    where: Where,
    *,
    after: Place | None,
    before: Place | None,
    limit: int | None,
    reverse: bool,
) -> list[tuple[Source, Entry]]:
    """The page of several streams' entries that pass `where`, oldest first unless `reverse`."""

    def entries(place: Place | None, newest_first: bool) -> Iterator[tuple[Place, tuple[Source, Entry]]]:
        streams = (source.beyond(place, newest_first) for source in sources)
        for found in merge(*streams, key=lambda one: one[0], reverse=newest_first):
            if where(found[1][1]):
                yield found

    return page_of(entries, after=after, before=before, limit=limit, reverse=reverse)
