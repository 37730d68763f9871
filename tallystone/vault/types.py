"""What a vault hands out: plain values without keys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, Literal

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

    `rights` is `owner`, `read`, `write`, `share` or `write+share`; `through` is the role that gives them, or empty.
    `sensitivity` names a level of the workspace; `allowed` are the ids that may be granted the block at all (None:
    anybody, empty: nobody); `expires` is its last day (UTC). `mutable` (false: the content never changes) and
    `append_only` (the value only grows) are fixed when it is made. `agent_ids` are the agents with a grant that the
    caller may know of: all for the owner, its own for others. `position` orders a shelf; it is no time.
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
    sensitivity: str = "public"
    allowed: list[str] | None = None
    expires: date | None = None
    mutable: bool = True
    append_only: bool = False
    through: str = ""


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
    """One live grant on a block. `can` is `read`, `write`, `share` or `write+share`; `kind` is `user`, `agent` or
    `role`.

    `until` is its last day (UTC); `depth` how often `share` may be passed on; without `history` only what was written
    since opens. `parent` is the grant it was given through (0: the owner's).
    """

    number: int
    recipient: str
    name: str
    kind: str
    can: str
    parent: int
    until: date | None = None
    depth: int = 0
    history: bool = True


@dataclass(frozen=True)
class Receipt:
    """What an erasure leaves: what went, the signed statement that says so, and where the log has it.

    `erased` is the id of the block or user; `blocks` counts the blocks that went, `events` the log details about them
    that went too, `holders` those on whose shelf a dead row stays until they next look. `horizon` is the last day (UTC)
    on which a backup could still bring any of it back; None if nobody has said how long backups are kept. `statement`
    is the signed `Erasure`, `leaf` its number in the log, `checkpoint` a signed head of the log that covers it.
    """

    erased: str
    blocks: int
    events: int
    holders: int
    by: str
    time: datetime
    horizon: date | None
    statement: bytes
    leaf: int
    checkpoint: str


@dataclass(frozen=True)
class Backups:
    """How many days copies are kept: of the database (None: nobody has said), and of `server-keys` (0: there are
    none)."""

    days: int | None = None
    key_days: int = 0


@dataclass(frozen=True)
class Reach:
    """Who can reach a block, through what (a grant number; 0 is ownership), and why, in words.

    `how` says the same in one: as the block's `owner`, by a `grant` of one's own, by acting as an `agent` that has one,
    or through a `role` that has one.
    """

    principal: str
    through: int
    can: str
    how: Literal["owner", "grant", "agent", "role"]
    name: str = ""
    why: str = ""


@dataclass(frozen=True)
class Offer:
    """What somebody gave uninvited: listed here, and nowhere else until it is accepted.

    `kind` is `grant` (a block to use), `role` (membership: `block_id` is the role's id and `label` its name) or
    `transfer` (a block to own).
    """

    block_id: str
    recipient: str
    label: str
    owner: str
    owner_name: str
    can: str
    kind: str = "grant"


@dataclass(frozen=True)
class Member:
    """Somebody in a role, until a day (UTC) or for good. `kind` is `user`, `agent` or `role`."""

    principal: str
    name: str
    kind: str
    until: date | None


@dataclass(frozen=True)
class Role:
    """A role: who owns it, how high its members are cleared, and who they are. `mine`: the caller owns it.

    Without `history`, members who join read from then on. `members` is empty where it was not asked for.
    """

    id: str
    name: str
    description: str
    owner: str
    owner_name: str
    clearance: str
    history: bool
    members: list[Member]
    mine: bool
    created_at: datetime


@dataclass(frozen=True)
class Principal:
    """Somebody who can hold grants. `clearance` names the highest level that it may be granted."""

    id: str
    name: str
    kind: str
    status: str = "active"
    clearance: str = ""


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
class InviteInfo:
    """What is known of an invitation that nobody has redeemed besides its code. `expires` in Unix seconds."""

    kid: str
    name: str
    clearance: str
    expires: int


@dataclass(frozen=True)
class CharterView:
    """The workspace's own rules. `trust`: what members share with each other needs no acceptance. `levels`: names of
    the sensitivity levels, lowest first. `max_grants`: direct grants that a block may have. `serial` counts changes; 0
    is what holds before the first."""

    trust: bool
    levels: tuple[str, ...]
    max_grants: int
    serial: int


@dataclass(frozen=True)
class Access:
    """One cell of the access matrix. `through` says which role gives it, if it is none of the principal's own."""

    principal: str
    name: str
    block_id: str
    label: str
    rights: str
    through: str = ""


@dataclass(frozen=True)
class AuditEvent:
    """A log event that this caller may open. `minute` counts minutes since 1970: the log keeps no finer time."""

    seq: int
    minute: int
    kind: str
    actor: str
    under: str
    detail: Mapping[str, Any]
