"""Matching raw paths: percent-encoding is undone after the split, so `%2F` in a label is no separator.

Both spellings with and without a trailing slash are served directly: clients with redirects off work as well.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from tallystone.letta.routes import Route


@dataclass(frozen=True)
class Match:
    """A route and its decoded parameters."""

    route: Route
    params: dict[str, str]


class Paths:
    """The route table, compiled."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._rows = [(_segments(route.path), route) for route in routes]

    def match(self, method: str, raw_path: bytes) -> Match | tuple[str, ...] | None:
        """The route, or the methods that the path does have, or None for a path that is none of ours."""
        parts = _decoded(raw_path)
        if parts is None:
            return None
        allowed: dict[str, None] = {}
        for template, route in self._rows:
            params = _fit(template, parts)
            if params is None:
                continue
            if route.method == method:
                return Match(route, params)
            allowed[route.method] = None
        return tuple(allowed) or None


def _segments(path: str) -> list[str]:
    return path.strip("/").split("/")


def _decoded(raw_path: bytes) -> list[str] | None:
    """The path's segments, decoded one by one; None if one is no UTF-8. One slash at the end is dropped."""
    raw = raw_path.removeprefix(b"/")
    raw = raw.removesuffix(b"/")
    try:
        return [unquote_to_bytes(part).decode("utf-8") for part in raw.split(b"/")]
    except UnicodeDecodeError:
        return None


def _fit(template: list[str], parts: list[str]) -> dict[str, str] | None:
    params: dict[str, str] = {}
    for at, segment in enumerate(template):
        if at >= len(parts):
            return None
        if segment.endswith("...}"):
            rest = "/".join(parts[at:])
            return {**params, segment[1:-4]: rest.replace("\0", "")} if rest else None
        if segment.startswith("{"):
            if not parts[at]:
                return None
            params[segment[1:-1]] = parts[at].replace("\0", "")
        elif segment != parts[at]:
            return None
    return params if len(template) == len(parts) else None
