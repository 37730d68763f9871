"""What questions to the log are answered with."""

from __future__ import annotations

from dataclasses import dataclass

from tallystone.vault.types import AuditEvent


@dataclass(frozen=True)
class Named:
    """A principal or a block by its id, and by its name or label if the caller may know that (else empty)."""

    id: str
    name: str


@dataclass(frozen=True)
class Answered:
    """An event that answers a question. `blocks`: those that it concerns, as far as the caller may know; a list
    concerns each block in it. `gained`: who came to reach something by it."""

    event: AuditEvent
    actor_name: str
    under_name: str
    blocks: tuple[Named, ...]
    gained: tuple[Named, ...]


@dataclass(frozen=True)
class Span:
    """A part of the log: the leaves beyond `after` and below `before`, both excluded; `grant` stands for the leaf by
    which the block in question was granted, by the grant's number. Newest first unless `oldest_first`."""

    after: int | None = None
    before: int | None = None
    grant: int | None = None
    oldest_first: bool = False


@dataclass(frozen=True)
class AuditPage:
    """Events that answer a question, in the order of its span. `onward` is the part of the log that was not looked at
    yet, or None: the answer is complete. A page may be short, or empty, before that."""

    events: list[Answered]
    onward: Span | None
