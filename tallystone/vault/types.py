"""What a vault hands out: plain values without keys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

DEFAULT_LIMIT = 100_000
"""Characters (Unicode code points) that a block's value may have unless its owner says otherwise."""
MAX_LIMIT = 2**31 - 1
EXTRA_FIELDS = (
    "hidden",
    "is_template",
    "template_name",
    "template_id",
    "base_template_id",
    "deployment_id",
    "entity_id",
    "project_id",
    "preserve_on_migration",
)
"""Fields that are kept and echoed for clients; they decide nothing here."""


@dataclass(frozen=True)
class Block:
    """A memory block, as this caller may see it.

    `rights` is `owner`, `write` or `read`. `agent_ids` are the agents with a grant that the caller may know of: all
    for the owner, its own for others. `position` orders a shelf; it is no time.
    """

    id: str
    label: str
    value: str
    description: str | None
    limit: int
    read_only: bool
    locked: bool
    tags: list[str]
    metadata: dict[str, Any]
    extra: dict[str, Any]
    version: int
    created_at: datetime
    updated_at: datetime
    owner: str
    created_by: str
    updated_by: str
    updated_under: str | None
    rights: str
    agent_ids: list[str]
    position: int
    offered: bool


@dataclass(frozen=True)
class Agent:
    """An agent: its state as the sponsor keeps it, and the blocks on its shelf in the order they were attached."""

    id: str
    name: str
    state: Mapping[str, Any]
    blocks: list[Block]
    created_at: datetime
    updated_at: datetime
    version: int
    position: int
    sponsor: str

    @property
    def tools(self) -> list[str]:
        """Names of the attached tools."""
        return list(self.state.get("tools", ()))


@dataclass(frozen=True)
class Grant:
    """One live grant on a block. `can` is `read` or `write`; `kind` is `user` or `agent`."""

    number: int
    recipient: str
    name: str
    kind: str
    can: str
    parent: int


@dataclass(frozen=True)
class Reach:
    """Who can still reach a block, and through what (a grant number; 0 is ownership)."""

    principal: str
    through: int
    can: str


@dataclass(frozen=True)
class Offer:
    """A block that somebody shared uninvited: listed here, and nowhere else until it is accepted."""

    block_id: str
    recipient: str
    label: str
    owner: str
    owner_name: str
    can: str


@dataclass(frozen=True)
class Principal:
    """Somebody who can hold grants."""

    id: str
    name: str
    kind: str
    status: str = "active"


@dataclass(frozen=True)
class TokenInfo:
    """What is known of a token besides its secret. Times are Unix seconds."""

    kid: str
    principal: str
    scope: str
    created: int
    expires: int | None
    label: str


@dataclass(frozen=True)
class Credentials:
    """What a new principal gets, once: the token, and the recovery kit to print."""

    principal: str
    token: str = field(repr=False)
    kit: str = field(repr=False)


@dataclass(frozen=True)
class Access:
    """One cell of the access matrix."""

    principal: str
    name: str
    block_id: str
    label: str
    rights: str


@dataclass(frozen=True)
class AuditEvent:
    """A log event that this caller may open. `minute` counts minutes since 1970: the log keeps no finer time."""

    seq: int
    minute: int
    kind: str
    actor: str
    under: str
    detail: Mapping[str, Any]
