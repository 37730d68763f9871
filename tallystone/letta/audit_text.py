"""Events of the log as JSON, as lines of JSON, and as CSV that no spreadsheet obeys."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable
from typing import Any

from tallystone.letta.routes_tokens import time
from tallystone.vault.answers import Answered
from tallystone.vault.types import AuditEvent

COLUMNS = (
    "seq", "time", "kind", "actor", "actor_name", "under", "under_name", "blocks", "labels", "gained", "gained_names",
    "detail",
)  # fmt: skip
_OBEYED = ("=", "+", "-", "@", "\t", "\r", "\n")


def plain_event(event: AuditEvent) -> dict[str, Any]:
    """An event as JSON has it, without names."""
    return {
        "seq": event.seq,
        "time": time(event.minute * 60),
        "kind": event.kind,
        "actor": event.actor,
        "under": event.under or None,
        "detail": _plain(event.detail),
    }


def as_json(found: Answered) -> dict[str, Any]:
    """An event of an answer as JSON has it."""
    return {
        **plain_event(found.event),
        "actor_name": found.actor_name,
        "under_name": found.under_name,
        "blocks": [{"id": one.id, "label": one.name} for one in found.blocks],
        "gained": [{"id": one.id, "name": one.name} for one in found.gained],
    }


def as_lines(found: Iterable[Answered]) -> str:
    """One JSON object a line."""
    return "".join(json.dumps(as_json(one), ensure_ascii=False) + "\n" for one in found)


def as_csv(found: Iterable[Answered], *, heading: bool = True) -> str:
    """A table (RFC 4180). What several belong in one cell is separated by spaces, names by semicolons. A cell that a
    spreadsheet would take for a formula begins with an apostrophe: labels and names are others' texts."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    if heading:
        writer.writerow(COLUMNS)
    for one in found:
        writer.writerow([_safe(cell) for cell in _cells(one)])
    return text.getvalue()


def _cells(found: Answered) -> Iterable[str]:
    plain = plain_event(found.event)
    yield from (str(plain["seq"]), plain["time"], plain["kind"])
    yield from (plain["actor"], found.actor_name, plain["under"] or "", found.under_name)
    for named in (found.blocks, found.gained):
        yield " ".join(one.id for one in named)
        yield "; ".join(one.name for one in named if one.name)
    yield json.dumps(plain["detail"], ensure_ascii=False)


def _safe(cell: str) -> str:
    cell = cell.replace("\0", "")
    return "'" + cell if cell.lstrip(" ").startswith(_OBEYED) else cell


def _plain(value: Any) -> Any:
    """A detail as JSON has it: bytes in hexadecimal digits."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    return value
