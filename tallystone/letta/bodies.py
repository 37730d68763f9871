"""Request bodies: which fields they may have, of which types. Unknown fields are ignored, wrong types are 422."""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import UNSET, Meta, UnsetType

from tallystone.errors import Invalid
from tallystone.letta.call import check_id
from tallystone.letta.tools import BASE_TOOLS
from tallystone.vault.types import MAX_LIMIT

MAX_DEPTH = 64
"""Levels of lists and objects inside a free-form field such as `metadata`."""

Limit = Annotated[int, Meta(ge=0, le=MAX_LIMIT)]
Mapped = dict[str, Any]
S = TypeVar("S", bound=msgspec.Struct)


class BlockFields(msgspec.Struct, omit_defaults=True):
    """What `blocks.create`, `blocks.update` and entries of `memory_blocks` share. `locked` and what follows is ours.

    A null in `allowed` or `expires` means something: anybody may be granted the block, it does not end.
    """

    value: str | None = None
    description: str | None = None
    limit: Limit | None = None
    read_only: bool | None = None
    locked: bool | None = None
    sensitivity: str | None = None
    allowed: list[str] | UnsetType | None = UNSET
    expires: date | UnsetType | None = UNSET
    mutable: bool | None = None
    append_only: bool | None = None
    keep: str | dict[str, int] | None = None
    audit_level: str | None = None
    tags: list[str] | None = None
    metadata: Mapped | None = None
    hidden: bool | None = None
    is_template: bool | None = None
    template_name: str | None = None
    template_id: str | None = None
    base_template_id: str | None = None
    deployment_id: str | None = None
    entity_id: str | None = None
    project_id: str | None = None
    preserve_on_migration: bool | None = None


class BlockCreate(BlockFields, kw_only=True):
    """`POST /v1/blocks/`, and an entry of `memory_blocks`."""

    label: str


class BlockUpdate(BlockFields, kw_only=True):
    """`PATCH` of a block. Nulls are dropped: only `tags: []` and `value: ""` clear a field."""

    label: str | None = None


class AgentFields(msgspec.Struct, omit_defaults=True):
    """What `agents.create` and `agents.update` share, and keep in the agent's state."""

    name: str | None = None
    description: str | None = None
    system: str | None = None
    metadata: Mapped | None = None
    tags: list[str] | None = None
    model: str | None = None
    embedding: str | None = None
    llm_config: Mapped | None = None
    embedding_config: Mapped | None = None
    model_settings: Mapped | None = None
    compaction_settings: Mapped | None = None
    response_format: Mapped | None = None
    context_window_limit: Annotated[int, Meta(ge=1, le=MAX_LIMIT)] | None = None
    max_tokens: int | None = None
    max_reasoning_tokens: int | None = None
    enable_reasoner: bool | None = None
    reasoning: bool | None = None
    parallel_tool_calls: bool | None = None
    enable_sleeptime: bool | None = None
    hidden: bool | None = None
    identity_ids: list[str] | None = None
    folder_ids: list[str] | None = None
    source_ids: list[str] | None = None
    max_files_open: int | None = None
    per_file_view_window_char_limit: int | None = None
    message_buffer_autoclear: bool | None = None
    message_ids: list[str] | None = None
    last_run_completion: str | None = None
    last_run_duration_ms: int | None = None
    last_stop_reason: str | None = None
    project_id: str | None = None
    template_id: str | None = None
    base_template_id: str | None = None
    secrets: dict[str, str] | None = None
    tool_exec_environment_variables: dict[str, str] | None = None
    tool_rules: list[Mapped] | None = None
    timezone: str | None = None
    block_ids: list[str] | None = None
    tool_ids: list[str] | None = None


class AgentCreate(AgentFields):
    """`POST /v1/agents/`. Nothing is required: an agent needs no model to hold memory."""

    agent_type: str | None = None
    memory_blocks: list[BlockCreate] | None = None
    tools: list[str] | None = None
    include_base_tools: bool | None = None
    include_multi_agent_tools: bool | None = None


class AgentUpdate(AgentFields):
    """`PATCH /v1/agents/{agent_id}`. `block_ids` and `tool_ids` replace the whole set."""


class ToolRun(msgspec.Struct):
    """`POST /v1/agents/{agent_id}/tools/{tool_name}/run`."""

    args: Mapped | None = None


Whom = Annotated[str, Meta(min_length=1, max_length=200)]


class GrantCreate(msgspec.Struct):
    """`POST /v1/blocks/{block_id}/grants`. `principal` (or `recipient`, its former name) is a user's name or id, an
    agent's id, or a role's id or name. `until` is the grant's last day (UTC)."""

    principal: Whom | None = None
    recipient: Whom | None = None
    can: str = "read"
    until: date | None = None
    depth: Annotated[int, Meta(ge=0, le=1000)] = 0
    history: bool = True

    @property
    def whom(self) -> str:
        """Who gets the grant. Raises `Invalid` when neither field says so, or both say different things."""
        named = {self.principal, self.recipient} - {None}
        if len(named) != 1:
            raise Invalid(
                "the body does not fit: it names no principal, or two",
                hint='for example {"principal": "ada", "can": "read"}',
            )
        return str(named.pop())


class TransferCreate(msgspec.Struct):
    """`POST /v1/blocks/{block_id}/transfer`. `to` is a user's name or id."""

    to: Whom


class Restore(msgspec.Struct):
    """`POST /v1/blocks/{block_id}/restore`."""

    version: Annotated[int, Meta(ge=1, le=MAX_LIMIT)]


class UndoCreate(msgspec.Struct):
    """`POST /v1/undo`. `since` is RFC 3339 with a time zone or, with `block_id`, the number of a version."""

    principal: Whom
    since: Annotated[datetime, Meta(tz=True)] | Annotated[int, Meta(ge=1, le=MAX_LIMIT)]
    block_id: str | None = None
    dry_run: bool = False


class UserErase(msgspec.Struct):
    """`POST /v1/users/me/erase`. `confirm` is the caller's own id."""

    confirm: str


class RoleCreate(msgspec.Struct):
    """`POST /v1/roles`. `clearance` names a level; without `history` who joins reads from then on."""

    name: str
    description: Annotated[str, Meta(max_length=2000)] = ""
    clearance: str | None = None
    history: bool = True


class RoleUpdate(msgspec.Struct):
    """`PATCH /v1/roles/{role}`. A null clearance is the lowest."""

    clearance: str | None


class MembersAdd(msgspec.Struct):
    """`POST /v1/roles/{role}/members`: users by name or id, agents by id, roles by name or id; until a day (UTC)."""

    members: Annotated[list[Whom], Meta(min_length=1, max_length=10_000)]
    until: date | None = None


class TokenCreate(msgspec.Struct):
    """`POST /v1/tokens`. `expires` is RFC 3339, with a time zone."""

    scope: str = "full"
    expires: Annotated[datetime, Meta(tz=True)] | None = None
    label: str = ""
    agent_id: str | None = None


class ModelKeyPut(msgspec.Struct):
    """`PUT /v1/model-keys/{provider}`. `origin` is a URL of the only place that the key may be sent to; left out, it is
    the provider's public address."""

    key: str
    origin: str | None = None

    def __repr__(self) -> str:
        return "ModelKeyPut(…)"


class AccessPolicy(msgspec.Struct):
    """One entry of an access token's policy: what it may do with one agent."""

    id: str
    type: str
    access: list[str]


class AccessTokenCreate(msgspec.Struct):
    """`client.access_tokens.create`. `hostname` is kept and shown; it restricts nothing here."""

    hostname: str
    policy: list[AccessPolicy]
    expires_at: Annotated[datetime, Meta(tz=True)] | None = None


class UserCreate(msgspec.Struct):
    """`POST /v1/users`. `clearance` names a level."""

    name: str
    clearance: str | None = None


class UserUpdate(msgspec.Struct):
    """`PATCH /v1/users/{who}`. A null clearance is the lowest for a user, its sponsor's for an agent."""

    clearance: str | None


class InvitationCreate(msgspec.Struct):
    """`POST /v1/invitations`. The code can be redeemed for this many days."""

    name: str
    clearance: str | None = None
    days: int = 7


class Redemption(msgspec.Struct):
    """`POST /v1/invitations/redeem`, without a token."""

    code: Annotated[str, Meta(max_length=300)]


class AuditorCreate(msgspec.Struct):
    """`POST /v1/audit/auditors`. `history`: what was logged before as well."""

    principal: str
    history: bool = False


class CharterUpdate(msgspec.Struct):
    """`PATCH /v1/charter`. What is null or absent stays."""

    trust: bool | None = None
    levels: list[str] | None = None
    max_grants: int | None = None
    audit: dict[str, str] | None = None


NULLABLE = frozenset({"allowed", "expires"})
"""Fields of a block in which null is a value: no list, no end."""
STATE_FIELDS = tuple(
    name for name in AgentFields.__struct_fields__ if name not in ("block_ids", "tool_ids", "reasoning")
)
"""The body fields that an agent's state keeps under their own names."""


def decode(body: bytes, kind: type[S]) -> S:
    """The body as `kind`. An empty one is `{}`. Raises `Invalid` (422); its text repeats no value of the body."""
    try:
        if b"\\u0000" not in body:
            struct = msgspec.json.decode(body or b"{}", type=kind)
        else:
            struct = msgspec.convert(_without_nul(msgspec.json.decode(body)), type=kind)
    except msgspec.ValidationError as error:
        raise Invalid(
            f"the body does not fit: {error}", hint="see the named field; docs/http.md lists all"
        ) from None
    except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
        detail = (
            str(error) if isinstance(error, msgspec.DecodeError) else "it is nested too deeply or is no UTF-8"
        )
        raise Invalid(f"the body is not JSON: {detail}", hint="send one JSON object, in UTF-8") from None
    for name, value in msgspec.structs.asdict(struct).items():
        if type(value) not in _FLAT:
            _check_depth(value, name, MAX_DEPTH)
    return struct


_FLAT = frozenset((str, bool, type(None), type(UNSET)))
"""What is neither nested nor a number."""


def _check_depth(value: Any, name: str, left: int) -> None:
    """Raise `Invalid` for free-form fields that could not be stored: nested too deeply, or with numbers too large."""
    if left == 0:
        raise Invalid(
            f"{name} is nested more than {MAX_DEPTH} levels deep", hint="flatten it, or store it as text"
        )
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        raise Invalid(f"{name} has a number beyond 64 bits", hint="send it as text")
    if isinstance(value, dict):
        for item in value.values():
            _check_depth(item, name, left - 1)
    elif isinstance(value, list):
        for item in value:
            _check_depth(item, name, left - 1)


def _without_nul(value: Any) -> Any:
    """`value` with the NUL characters taken out of its strings and keys, as clients of this interface expect."""
    if isinstance(value, str):
        return value.replace("\0", "")
    if isinstance(value, list):
        return [_without_nul(item) for item in value]
    if isinstance(value, dict):
        return {_without_nul(name): _without_nul(item) for name, item in value.items()}
    return value


def given(struct: msgspec.Struct) -> dict[str, Any]:
    """The fields that were sent, by name; without those that are null, unless null says something."""
    return {
        name: value
        for name, value in msgspec.structs.asdict(struct).items()
        if value is not UNSET and (value is not None or name in NULLABLE)
    }


def ids(kind: str, values: list[str] | None) -> list[str]:
    """Ids of a body's list, each checked, repeated ones once."""
    return list(dict.fromkeys(check_id(kind, value) for value in values or ()))


def agent_type(text: str | None) -> str:
    """The agent type, `letta_v1_agent` by default. Raises `Invalid` for one that clients do not know."""
    kind = text or "letta_v1_agent"
    if kind not in BASE_TOOLS:
        raise Invalid(
            f"agent_type should be one of {', '.join(BASE_TOOLS)}", hint="leave it out for letta_v1_agent"
        )
    return kind
