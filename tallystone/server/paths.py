"""Matching raw paths: percent-encoding is undone after the split, so `%2F` in a label is no separator.

Both spellings with and without a trailing slash are served directly: clients with redirects off work as well.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from operator import attrgetter
from urllib.parse import unquote_to_bytes

from tallystone.letta.routes import Route


@dataclass(frozen=True)
class Match:
    """A route and its decoded parameters."""

    route: Route
    params: dict[str, str]


@dataclass(frozen=True)
class _Row:
    """A route, which of the table it is, and where its parameters stand."""

    order: int
    route: Route
    single: tuple[tuple[int, str], ...]
    rest: tuple[int, str] | None

    def params(self, parts: list[str]) -> dict[str, str]:
        params = {name: parts[at].replace("\0", "") for at, name in self.single}
        if self.rest is not None:
            at, name = self.rest
            params[name] = "/".join(parts[at:]).replace("\0", "")
        return params


@dataclass
class _Node:
    """What may follow a path's beginning: a segment as it is written, any segment, an end, or whatever comes."""

    literal: dict[str, _Node] = field(default_factory=dict)
    any: _Node | None = None
    ends: list[_Row] = field(default_factory=list)
    rests: list[_Row] = field(default_factory=list)


class Paths:
    """The route table, as a tree of segments. Earlier rows win."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._root = _Node()
        for order, route in enumerate(routes):
            self._add(order, route)

    def _add(self, order: int, route: Route) -> None:
        node = self._root
        single: list[tuple[int, str]] = []
        for at, segment in enumerate(route.path.strip("/").split("/")):
            if segment.endswith("...}"):
                node.rests.append(_Row(order, route, tuple(single), (at, segment[1:-4])))
                return
            if segment.startswith("{"):
                single.append((at, segment[1:-1]))
                node.any = node.any or _Node()
                node = node.any
            else:
                node = node.literal.setdefault(segment, _Node())
        node.ends.append(_Row(order, route, tuple(single), None))

    def match(self, method: str, raw_path: bytes) -> Match | tuple[str, ...] | None:
        """The route, or the methods that the path does have, or None for a path that is none of ours."""
        parts = _decoded(raw_path)
        if parts is None:
            return None
        found = self._found(parts)
        if len(found) > 1:
            found.sort(key=attrgetter("order"))
        for row in found:
            if row.route.method == method:
                return Match(row.route, row.params(parts))
        return tuple(dict.fromkeys(row.route.method for row in found)) or None

    def _found(self, parts: list[str]) -> list[_Row]:
        """The rows that a path fits."""
        found: list[_Row] = []
        nodes = [self._root]
        for at, part in enumerate(parts):
            further = []
            for node in nodes:
                if node.rests and (part or at + 1 < len(parts)):
                    found += node.rests
                literal = node.literal.get(part)
                if literal is not None:
                    further.append(literal)
                if node.any is not None and part:
                    further.append(node.any)
            if not further:
                return found
            nodes = further
        for node in nodes:
            found += node.ends
        return found


def _decoded(raw_path: bytes) -> list[str] | None:
    """The path's segments, decoded one by one; None if one is no UTF-8. One slash at the end is dropped."""
    raw = raw_path.removeprefix(b"/").removesuffix(b"/")
    try:
        if b"%" not in raw:
            return raw.decode("utf-8").split("/")
        return [unquote_to_bytes(part).decode("utf-8") for part in raw.split(b"/")]
    except UnicodeDecodeError:
        return None
