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
    `append_only` (the value only grows) are fixed when it is made. `keep` says which versions stay: `all`,
    `{"last": N}` or `{"days": N}`. `audit_level`: how sure the log must be of what is done with the block before it is
    answered (`durable`, `checkpointed`, `witnessed`). `agent_ids` are the agents with a grant that
    the caller may know of: all for the owner, its own for others. `position` orders a shelf; it is no time.
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
    keep: str | Mapping[str, int] = "all"
    audit_level: str = "durable"


@dataclass(frozen=True)
class ExternalTool:
    """A tool of an MCP server. `name` is what agents call it by, `remote` what its server does; `parameters` is its
    JSON schema as text, since the order in it matters to readers. `position`: its place in its server's list."""

    id: str
    name: str
    server: str
    remote: str
    description: str
    parameters: str
    position: int


@dataclass(frozen=True)
class ToolServer:
    """An MCP server as its owner may see it: the URL without its query, the names of headers without their values.
    `kind` is `streamable_http` or `sse`; `fetched_at`: when its tools were last asked for."""

    id: str
    name: str
    kind: str
    url: str
    auth_header: str
    headers: tuple[str, ...]
    created_at: datetime
    updated_at: datetime
    fetched_at: datetime | None


@dataclass(frozen=True)
class ToolAccess:
    """How an MCP server is called. All of it may be secret, so none of it is printed. Empty texts mean: none."""

    kind: str
    url: str = field(repr=False)
    auth_header: str = field(default="", repr=False)
    auth_token: str = field(default="", repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Change:
    """One event of the change feed: that something happened to a block, never what.

    `number` counts 1, 2, 3 … within a feed and goes on after a resume. `kind` is `created` (the block is new among the
    caller's), `updated` (it has another version), `changed` (the caller's rights or the settings have), `removed` (the
    caller cannot read it any more), or about no block: `ready` (the feed begins), `reset` (what was missed cannot be
    told: list again) and `end` (`code` says why). `id` is where to resume.
    """

    number: int
    kind: str
    block_id: str = ""
    version: int | None = None
    id: str = field(default="", repr=False)
    code: str = ""


@dataclass(frozen=True)
class Agent:
    """An agent: its state as the sponsor keeps it, and the blocks on its shelf in the order they were attached.

    The state's `tools` are names of this server's own tools, and ids of those of MCP servers, which `external` holds.
    `last_run` is the record of its latest run that is over, `awaited` the message of its own conversation whose tool
    calls wait for an approval. Like the blocks they are there unless they were not asked for.
    """

    id: str
    name: str
    state: Mapping[str, Any]
    blocks: list[Block]
    created_at: datetime
    updated_at: datetime
    version: int
    position: int
    sponsor: str
    external: Mapping[str, ExternalTool] = field(default_factory=dict)
    last_run: Mapping[str, Any] | None = None
    awaited: Mapping[str, Any] | None = None

    @property
    def tools(self) -> list[str]:
        """Names of the attached tools."""
        entries = self.state.get("tools", ())
        return [self.external[entry].name if entry in self.external else entry for entry in entries]


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

    `erased` is the id of the block or user, or `<block id>/versions/<number>`; `blocks` counts the blocks that went,
    `events` the log details about them that went too, `holders` those on whose shelf a dead row stays until they next
    look. `horizon` is the last day (UTC) on which a backup could still bring any of it back; None if nobody has said
    how long backups are kept. `statement` is the signed `Erasure`, `leaf` its number in the log, `checkpoint` a signed
    head of the log that covers it.
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
class ModelKeyInfo:
    """What is known of a sealed model key besides the key: its provider, the origin (`https://host`, with a port if it
    is not the usual one) that it may be sent to and no other, and when it was set (Unix seconds)."""

    provider: str
    origin: str
    created: int


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
    the sensitivity levels, lowest first. `max_grants`: direct grants of a block. `serial` counts changes. `audit`: the
    audit level of a sensitivity, if more than `durable`. `auditors`: users who see what concerns no block."""

    trust: bool
    levels: tuple[str, ...]
    max_grants: int
    serial: int
    audit: Mapping[str, str] = field(default_factory=dict)
    auditors: tuple[str, ...] = ()

    def audit_of(self, sensitivity: int) -> str:
        """What a block of the sensitivity with this number has at least."""
        names = dict(enumerate(self.levels)) if self.audit else {}
        return self.audit.get(names.get(sensitivity, ""), "durable")


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


@dataclass(frozen=True)
class WitnessInfo:
    """What an outside witness has cosigned: a tree of `size` leaves, at `time` (Unix seconds; None: nothing yet).
    `problem` says what was wrong with its last answer, if anything was."""

    name: str
    size: int
    time: int | None
    problem: str


@dataclass(frozen=True)
class LogView:
    """The log's origin, its verifier key, how many leaves it has, its witnesses, and all keys that it had."""

    origin: str
    key: str
    size: int
    witnesses: list[WitnessInfo]
    keys: list[LogKeyInfo] = field(default_factory=list)


@dataclass(frozen=True)
class LogKeyInfo:
    """A verifier key of the log, and which sizes of checkpoints it signs: from, and to (None: it signs now)."""

    key: str
    first: int
    last: int | None
