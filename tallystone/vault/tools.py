"""The part of a vault that is about tools of MCP servers. No method calls one: see `letta/mcp_layer.py`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tallystone.vault import tool_copies, tool_servers
from tallystone.vault.caller import Caller
from tallystone.vault.tool_servers import Edit
from tallystone.vault.types import ExternalTool, ToolAccess, ToolServer


class Tools:
    """What `Vault` does with MCP servers and their tools. Each method is one operation, as there.

    A tool is attached by its id in the `tools` of an agent's state (`create_agent`, `edit_agent`): the agent then holds
    a copy, with what it takes to call it. Raises `Taken` (`tool_taken`) for a second one of the same name.
    """

    _caller: Caller

    def create_tool_server(self, server_id: str, fields: Mapping[str, Any], access: ToolAccess) -> ToolServer:
        """Keep a server of the caller's; `fields` are `name`, `kind`, `url`, `auth_header` and `headers` as they may
        be shown. Raises `Denied` for agents and for tokens that can only read."""
        return tool_servers.create_server(self._caller, server_id, fields, access)

    def tool_servers(self) -> list[ToolServer]:
        """The caller's servers, oldest first."""
        return tool_servers.list_servers(self._caller)

    def tool_server(self, server_id: str) -> ToolServer:
        """One of them."""
        return tool_servers.read_server(self._caller, server_id)

    def edit_tool_server(self, server_id: str, edit: Edit) -> ToolServer:
        """Change a server, also for the agents that hold tools of it."""
        return tool_servers.edit_server(self._caller, server_id, edit)

    def delete_tool_server(self, server_id: str) -> None:
        """Forget a server with its tools, also those that agents hold."""
        tool_servers.delete_server(self._caller, server_id)

    def open_tool_server(self, server_id: str) -> tuple[ToolServer, ToolAccess, list[ExternalTool]]:
        """A server, how it is called, and the tools that are known of it. Logged: whoever asks is about to call it."""
        return tool_servers.open_server(self._caller, server_id)

    def replace_tools(self, server_id: str, tools: Sequence[ExternalTool]) -> dict[str, list[str]]:
        """Keep what a server offers now, also for agents. Returns names under `added`, `updated`, `deleted`."""
        return tool_servers.replace_tools(self._caller, server_id, tools)

    def external_tools(self, server_id: str | None = None) -> list[ExternalTool]:
        """The tools of one of the caller's servers, or all that the caller has; of an agent, those attached to it."""
        return tool_servers.list_tools(self._caller, server_id)

    def external_tool(self, tool_id: str, server_id: str | None = None) -> ExternalTool:
        """One of them."""
        return tool_servers.read_tool(self._caller, tool_id, server_id)

    def open_tool(self, agent_id: str, tool_id: str) -> tuple[ExternalTool, ToolAccess]:
        """An agent's tool and how to call it as the agent. Logged: whoever asks is about to."""
        return tool_copies.open_tool(self._caller, agent_id, tool_id)

    def note_return(self, agent_id: str | None, tool_id: str, result: Any) -> Any:
        """Log that such a call came back; its answer is kept if `once` asked for that. Returns `result`."""
        return tool_copies.note_return(self._caller, agent_id, tool_id, result)
