"""The one route table. Paths, tests of who may see what, docs/compat.md and the server are all made from it.

A template's `{name}` stands for one segment of the *raw* path, decoded after the split: so a label with a slash, sent
as `%2F`, stays one segment. `{name...}` takes the rest of the path as well, for clients and proxies that send the slash
itself. Earlier rows win, so `attach/{block_id}` stands above `{block_label...}`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from tallystone.errors import TallystoneError
from tallystone.letta import (
    routes_accounts,
    routes_agent_blocks,
    routes_agents,
    routes_audit,
    routes_blocks,
    routes_conversations,
    routes_erasure,
    routes_events,
    routes_export,
    routes_history,
    routes_lists,
    routes_log,
    routes_mcp,
    routes_messages,
    routes_model_keys,
    routes_passages,
    routes_roles,
    routes_runs,
    routes_sharing,
    routes_tokens,
    routes_tools,
)
from tallystone.letta.call import Answer, Call
from tallystone.letta.later import Later
from tallystone.letta.not_served import NOT_SERVED
from tallystone.vault import Workspace


class NotServed(TallystoneError):
    """A method of the client that this server knows of and does not serve."""

    code = "not_served"
    status = 501


@dataclass(frozen=True)
class Route:
    """One method on one path. `client` is the name of the client's method."""

    method: str
    path: str
    run: Callable[[Call], Answer | Later]
    client: str = ""
    kind: Literal["served", "501"] = "served"
    public: routes_log.Public | None = None
    """What answers in place of `run`, without a token, where the log is public."""
    brief: bool = False
    """Whether it is over in milliseconds, nearly always: a server may run it where nothing else goes on meanwhile."""


def _of_log(path: str, public: routes_log.Public) -> Route:
    return Route("GET", f"/v1/log/{path}", routes_log.behind_token(public), public=public)


def _not_served(client: str) -> Callable[[Call], Answer]:
    def refuse(call: Call) -> Answer:
        raise NotServed(
            f"client.{client} is not served by this server",
            hint="docs/compat.md lists what is; this method has no effect here",
        )

    return refuse


_BLOCKS, _BLOCK = "/v1/blocks/", "/v1/blocks/{block_id}"
_AGENTS, _AGENT = "/v1/agents/", "/v1/agents/{agent_id}"
_MEMORY, _TOOLS = _AGENT + "/core-memory/blocks", _AGENT + "/tools"
_GRANTS, _TRANSFER, _OFFER = _BLOCK + "/grants", _BLOCK + "/transfer", "/v1/offers/{offered}"
_VERSIONS = _BLOCK + "/versions"
_ROLES, _ROLE, _USER = "/v1/roles", "/v1/roles/{role}", "/v1/users/{who}"
_ACCESS_TOKENS = "/v1/client-side-access-tokens"

_MESSAGES, _ARCHIVE = _AGENT + "/messages", _AGENT + "/archival-memory"
_TALKS, _TALK = "/v1/conversations/", "/v1/conversations/{conversation_id}"
_SERVERS, _SERVER = "/v1/mcp-servers/", "/v1/mcp-servers/{mcp_server_id}"
_RUN, _STEP = "/v1/runs/{run_id}", "/v1/steps/{step_id}"

ROUTES: tuple[Route, ...] = (
    Route("POST", _BLOCKS, routes_blocks.create, "blocks.create", brief=True),
    Route("GET", _BLOCKS, routes_blocks.list_, "blocks.list", brief=True),
    Route("GET", _BLOCK, routes_blocks.retrieve, "blocks.retrieve", brief=True),
    Route("PATCH", _BLOCK, routes_blocks.update, "blocks.update", brief=True),
    Route("DELETE", _BLOCK, routes_blocks.delete, "blocks.delete"),
    Route("GET", _BLOCK + "/agents", routes_blocks.agents, "blocks.agents.list"),
    Route("POST", _AGENTS, routes_agents.create, "agents.create", brief=True),
    Route("GET", _AGENTS, routes_agents.list_, "agents.list"),
    Route("GET", _AGENT, routes_agents.retrieve, "agents.retrieve", brief=True),
    Route("PATCH", _AGENT, routes_agents.update, "agents.update", brief=True),
    Route("DELETE", _AGENT, routes_agents.delete, "agents.delete"),
    Route("GET", _MEMORY, routes_agent_blocks.list_, "agents.blocks.list", brief=True),
    Route(
        "PATCH",
        _MEMORY + "/attach/{block_id}",
        routes_agent_blocks.attach,
        "agents.blocks.attach",
        brief=True,
    ),
    Route(
        "PATCH",
        _MEMORY + "/detach/{block_id}",
        routes_agent_blocks.detach,
        "agents.blocks.detach",
        brief=True,
    ),
    Route(
        "GET",
        _MEMORY + "/{block_label...}",
        routes_agent_blocks.retrieve,
        "agents.blocks.retrieve",
        brief=True,
    ),
    Route(
        "PATCH", _MEMORY + "/{block_label...}", routes_agent_blocks.update, "agents.blocks.update", brief=True
    ),
    Route("GET", _TOOLS, routes_tools.agent_list, "agents.tools.list"),
    Route("PATCH", _TOOLS + "/attach/{tool_id}", routes_tools.attach, "agents.tools.attach"),
    Route("PATCH", _TOOLS + "/detach/{tool_id}", routes_tools.detach, "agents.tools.detach"),
    Route("POST", _TOOLS + "/{tool_name}/run", routes_tools.run, "agents.tools.run"),
    Route(
        "PATCH",
        _TOOLS + "/approval/{tool_name}",
        routes_tools.update_approval,
        "agents.tools.update_approval",
    ),
    Route("POST", _MESSAGES, routes_messages.create, "agents.messages.create"),
    Route("GET", _MESSAGES, routes_messages.list_, "agents.messages.list"),
    Route("POST", _MESSAGES + "/stream", routes_messages.stream, "agents.messages.stream"),
    Route("POST", _MESSAGES + "/async", routes_messages.create_async, "agents.messages.create_async"),
    Route("POST", _MESSAGES + "/cancel", routes_messages.cancel, "agents.messages.cancel"),
    Route("PATCH", _AGENT + "/reset-messages", routes_messages.reset, "agents.messages.reset"),
    Route("POST", _AGENT + "/summarize", routes_messages.compact, "agents.messages.compact"),
    Route("POST", _AGENT + "/recompile", routes_messages.recompile, "agents.recompile"),
    Route("POST", _ARCHIVE, routes_passages.create, "agents.passages.create"),
    Route("GET", _ARCHIVE, routes_passages.list_, "agents.passages.list"),
    Route("GET", _ARCHIVE + "/search", routes_passages.search, "agents.passages.search"),
    Route("DELETE", _ARCHIVE + "/{memory_id}", routes_passages.delete, "agents.passages.delete"),
    Route("POST", "/v1/passages/search", routes_passages.search_all, "passages.search"),
    Route("GET", "/v1/messages/", routes_messages.list_all, "messages.list"),
    Route("POST", "/v1/messages/search", routes_messages.search, "messages.search"),
    Route("GET", "/v1/messages/{message_id}", routes_messages.retrieve, "messages.retrieve"),
    Route("POST", _TALKS, routes_conversations.create, "conversations.create"),
    Route("GET", _TALKS, routes_conversations.list_, "conversations.list"),
    Route("GET", _TALK, routes_conversations.retrieve, "conversations.retrieve"),
    Route("PATCH", _TALK, routes_conversations.update, "conversations.update"),
    Route("DELETE", _TALK, routes_conversations.delete, "conversations.delete"),
    Route("POST", _TALK + "/cancel", routes_conversations.cancel, "conversations.cancel"),
    Route("POST", _TALK + "/fork", routes_conversations.fork, "conversations.fork"),
    Route("POST", _TALK + "/recompile", routes_conversations.recompile, "conversations.recompile"),
    Route("POST", _TALK + "/compact", routes_conversations.compact, "conversations.messages.compact"),
    Route("POST", _TALK + "/messages", routes_conversations.create_messages, "conversations.messages.create"),
    Route("GET", _TALK + "/messages", routes_conversations.list_messages, "conversations.messages.list"),
    Route("POST", _TALK + "/stream", routes_conversations.stream, "conversations.messages.stream"),
    Route("GET", "/v1/runs/", routes_runs.list_, "runs.list"),
    Route("GET", _RUN, routes_runs.retrieve, "runs.retrieve"),
    Route("GET", _RUN + "/messages", routes_runs.messages, "runs.messages.list"),
    Route("GET", _RUN + "/steps", routes_runs.steps, "runs.steps.list"),
    Route("GET", _RUN + "/usage", routes_runs.usage, "runs.usage.retrieve"),
    Route("POST", "/v1/runs/{path_run_id}/stream", routes_runs.stream, "runs.messages.stream"),
    Route("GET", "/v1/steps/", routes_runs.list_steps, "steps.list"),
    Route("GET", _STEP, routes_runs.retrieve_step, "steps.retrieve"),
    Route("GET", _STEP + "/messages", routes_runs.step_messages, "steps.messages.list"),
    Route("PATCH", _STEP + "/feedback", routes_runs.feedback, "steps.feedback.create"),
    Route("GET", "/v1/tools/", routes_tools.list_, "tools.list"),
    Route("GET", "/v1/tools/{tool_id}", routes_tools.retrieve, "tools.retrieve"),
    Route("POST", _SERVERS, routes_mcp.create, "mcp_servers.create"),
    Route("GET", _SERVERS, routes_mcp.list_, "mcp_servers.list"),
    Route("GET", _SERVER, routes_mcp.retrieve, "mcp_servers.retrieve"),
    Route("PATCH", _SERVER, routes_mcp.update, "mcp_servers.update"),
    Route("DELETE", _SERVER, routes_mcp.delete, "mcp_servers.delete"),
    Route("PATCH", _SERVER + "/refresh", routes_mcp.refresh, "mcp_servers.refresh"),
    Route("GET", _SERVER + "/tools", routes_mcp.list_tools, "mcp_servers.tools.list"),
    Route("GET", _SERVER + "/tools/{tool_id}", routes_mcp.retrieve_tool, "mcp_servers.tools.retrieve"),
    Route("POST", _SERVER + "/tools/{tool_id}/run", routes_mcp.run_tool, "mcp_servers.tools.run"),
    Route("GET", "/v1/models/", routes_lists.models, "models.list"),
    Route("GET", "/v1/models/embedding", routes_lists.embeddings, "models.embeddings.list"),
    Route("GET", "/v1/tags/", routes_lists.tags, "tags.list"),
    Route("POST", _ACCESS_TOKENS, routes_tokens.create_access_token, "access_tokens.create"),
    Route("GET", _ACCESS_TOKENS, routes_tokens.access_tokens, "access_tokens.list"),
    Route("DELETE", _ACCESS_TOKENS + "/{token}", routes_tokens.delete_access_token, "access_tokens.delete"),
    # ours: the client reaches them through its own `client.get`, `client.post` and `client.delete`
    Route("POST", _GRANTS, routes_sharing.create),
    Route("GET", _GRANTS, routes_sharing.list_),
    Route("DELETE", _GRANTS + "/{principal}", routes_sharing.delete),
    Route("POST", _BLOCK + "/rotate", routes_sharing.rotate),
    Route("GET", _BLOCK + "/access", routes_sharing.reach),
    Route("POST", _TRANSFER, routes_sharing.transfer),
    Route("DELETE", _TRANSFER, routes_sharing.cancel_transfer),
    Route("POST", _TRANSFER + "/accept", routes_sharing.accept_transfer),
    Route("POST", _BLOCK + "/erase", routes_erasure.block),
    Route("POST", _VERSIONS + "/{number}/erase", routes_erasure.version),
    Route("POST", "/v1/users/me/erase", routes_erasure.me),
    Route("GET", "/v1/export", routes_export.export),
    Route("GET", "/v1/offers", routes_sharing.offers),
    Route("POST", _OFFER + "/accept", routes_sharing.accept),
    Route("POST", _OFFER + "/decline", routes_sharing.decline),
    Route("GET", "/v1/access", routes_sharing.access),
    Route("GET", _VERSIONS, routes_history.list_),
    Route("GET", _VERSIONS + "/{number}", routes_history.retrieve),
    Route("GET", _VERSIONS + "/{number}/diff", routes_history.diff),
    Route("GET", _BLOCK + "/blame", routes_history.blame),
    Route("POST", _BLOCK + "/restore", routes_history.restore),
    Route("POST", "/v1/undo", routes_history.undo),
    Route("POST", _AGENT + "/contact", routes_agents.contact),
    Route("POST", _ROLES, routes_roles.create),
    Route("GET", _ROLES, routes_roles.list_),
    Route("GET", _ROLE, routes_roles.retrieve),
    Route("PATCH", _ROLE, routes_roles.update),
    Route("DELETE", _ROLE, routes_roles.delete),
    Route("POST", _ROLE + "/members", routes_roles.add_members),
    Route("DELETE", _ROLE + "/members/{principal}", routes_roles.remove_member),
    Route("GET", "/v1/model-keys/", routes_model_keys.list_),
    Route("PUT", "/v1/model-keys/{provider}", routes_model_keys.put),
    Route("DELETE", "/v1/model-keys/{provider}", routes_model_keys.delete),
    Route("GET", "/v1/tokens", routes_tokens.tokens),
    Route("POST", "/v1/tokens", routes_tokens.create_token),
    Route("DELETE", "/v1/tokens/{kid}", routes_tokens.revoke_token),
    Route("POST", "/v1/tokens/{kid}/compromised", routes_tokens.compromised),
    Route("GET", "/v1/users", routes_accounts.users),
    Route("POST", "/v1/users", routes_accounts.create_user),
    Route("PATCH", _USER, routes_accounts.update_user),
    Route("POST", _USER + "/suspend", routes_accounts.suspend),
    Route("POST", _USER + "/resume", routes_accounts.resume),
    Route("POST", _USER + "/rotate", routes_accounts.rotate),
    Route("GET", "/v1/invitations", routes_accounts.invitations),
    Route("POST", "/v1/invitations", routes_accounts.invite),
    Route("DELETE", "/v1/invitations/{invitation}", routes_accounts.revoke_invitation),
    Route("GET", "/v1/charter", routes_accounts.charter),
    Route("PATCH", "/v1/charter", routes_accounts.update_charter),
    Route("GET", "/v1/audit/events", routes_audit.events),
    Route("GET", "/v1/audit/auditors", routes_audit.auditors),
    Route("POST", "/v1/audit/auditors", routes_audit.grant),
    Route("DELETE", "/v1/audit/auditors/{who}", routes_audit.ungrant),
    Route("GET", "/v1/events", routes_events.listen),
    _of_log("checkpoint", routes_log.checkpoint),
    _of_log("tile/{tile...}", routes_log.tile),
    _of_log("receipt/{leaf}", routes_log.receipt),
    _of_log("consistency/{old}", routes_log.consistency),
    _of_log("witnesses", routes_log.witnesses),
    *(Route(method, path, _not_served(client), client, "501") for client, method, path in NOT_SERVED),
    # ours, and promised: until then a caller hears that it is not there yet, not that the block is missing
    Route("POST", _BLOCK + "/share", _not_served("blocks.share"), "", "501"),
)
"""Every route behind a token."""

OPEN_PATHS = ("/v1/health/", "/v1/ready/")
"""Paths that answer `GET` without a token; `client.health` is the first."""

OPEN_POSTS: Mapping[str, Callable[[Workspace, bytes], Answer]] = {
    "/v1/invitations/redeem": routes_accounts.redeem,
}
"""What a `POST` does without a token: from the workspace and the body to the answer."""
