"""The tools of the real MCP server in `tool_servers`."""

from __future__ import annotations

from mcp.server.mcpserver import Image, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from tool_servers import Real


def mcp_server() -> MCPServer:
    """One without tools."""
    return MCPServer("tests")


def add_tools(real: Real) -> None:
    """The tools that tests call; `real` keeps what they were called with."""
    mcp = real.mcp

    @mcp.tool()
    def add(left: int, right: int) -> int:
        """Add two numbers."""
        real.called.append(("add", (left, right)))
        return left + right

    @mcp.tool(name="files.read")
    def files_read(path: str) -> str:
        """Read a file."""
        return f"contents of {path}"

    @mcp.tool()
    def send_message(message: str) -> str:
        """A tool that is called like one of ours."""
        return f"sent {message}"

    @mcp.tool()
    def picture() -> Image:
        """Draw something."""
        return Image(data=b"\x89PNG" * 10, format="png")

    @mcp.tool()
    def fail() -> str:
        """Fail."""
        raise ToolError("the disk is on fire")

    @mcp.tool()
    def echo_secret() -> str:
        """Say which credentials came."""
        return f"you sent {real.heard[-1].get('authorization')}"

    @mcp.tool()
    def lots() -> str:
        """Say a lot."""
        return "x" * 200_000

    @mcp.tool()
    def wait() -> str:
        """Wait for the test."""
        real.entered.set()
        real.gate.wait(30)
        return "waited"
