"""Earlier versions, comparisons and what an undo did, as callers see them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any


@dataclass(frozen=True)
class PastVersion:
    """One version of a block, verified. `time` is what its writer claims; `under` the user whose token an agent acted
    under.

    `size` counts characters of the value; `fields` names what it changed (None where the version before is out of
    reach). `restored` is the version that it brought back, `undone` whose writes it took back; `erased` the day (UTC)
    on which its content was erased. `content` (label, value, description, tags, metadata, extra) is there for one
    version alone, not in lists.
    """

    number: int
    writer: str
    name: str
    under: str
    time: datetime
    size: int
    fields: list[str] | None
    restored: int | None = None
    undone: str = ""
    erased: date | None = None
    content: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Versions:
    """A page of versions, newest first. `older` says what is beyond it: nothing (empty), `more`, versions that the
    block's rule did not keep (`not_kept`), or that were written before what the caller holds opens (`closed`)."""

    versions: list[PastVersion]
    older: str


@dataclass(frozen=True)
class Difference:
    """What changed between two versions: `lines` of the value as `diff -u` writes them, and {name: [before, after]} of
    the other fields."""

    before: int
    after: int
    lines: list[str]
    fields: dict[str, list[Any]]


@dataclass(frozen=True)
class BlameLine:
    """One line of a value and the version that it came with; None where that one is out of reach."""

    line: int
    text: str
    version: int | None
    writer: str = ""
    name: str = ""
    under: str = ""
    time: datetime | None = None


@dataclass(frozen=True)
class Blame:
    """Which version each line of the value at `version` came with. `older` as in `Versions`, or `erased`: a line may
    have come with a version that was erased."""

    version: int
    lines: list[BlameLine]
    older: str


@dataclass(frozen=True)
class UndoConflict:
    """What could not be undone, and stays as it is.

    `part` is `value` or another field; `start` is the first line (from 1) of `now` in the value, `before` what stood
    there. `writers` wrote over it, in `versions`. `reason` is `overlap`; or `first` (the principal made the block) or
    `out_of_reach` (it or the version before is not kept, erased, or closed to the caller), where `now` and `before` are
    empty.
    """

    reason: str
    part: str = "value"
    start: int = 0
    now: list[str] = field(default_factory=list)
    before: list[str] = field(default_factory=list)
    writers: list[str] = field(default_factory=list)
    versions: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Undone:
    """What an undo did to one block, or would do. `versions` are those whose effect it took back, `version` is the one
    that it wrote (None: none, on a dry run or since nothing of them was left). `skipped` is the code of the refusal, if
    the block could not be written."""

    block_id: str
    label: str
    versions: list[int]
    conflicts: list[UndoConflict]
    version: int | None = None
    skipped: str = ""
