"""MCP servers on loopback: a real one, of the package that most are made with, and one that misbehaves by hand."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

if TYPE_CHECKING:
    from mcp.server.mcpserver import MCPServer

TOKEN = "canary-5f1c9d-secret"
"""What the real server wants to see as a bearer token."""


@dataclass
class Real:
    """A running MCP server: its tools can be changed, and what it was sent is kept."""

    mcp: MCPServer
    url: str = ""
    heard: list[dict[str, str]] = field(default_factory=list)
    called: list[tuple[str, Any]] = field(default_factory=list)
    entered: threading.Event = field(default_factory=threading.Event)
    gate: threading.Event = field(default_factory=threading.Event)

    @property
    def host(self) -> str:
        """For the setting `allowed_hosts`."""
        return self.url.split("/")[2]


class _Guarded:
    """Asks for the token, and keeps the headers of each request."""

    def __init__(self, app: ASGIApp, real: Real) -> None:
        self._app, self._real = app, real

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = {name.decode().lower(): value.decode() for name, value in scope["headers"]}
            self._real.heard.append(headers)
            if headers.get("authorization") != f"Bearer {TOKEN}":
                await send({"type": "http.response.start", "status": 401, "headers": []})
                await send({"type": "http.response.body", "body": b"who are you?"})
                return
        await self._app(scope, receive, send)


class _Server(uvicorn.Server):
    """uvicorn's server, which says when it has started."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.began = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and say so."""
        await super().startup(sockets)
        self.began.set()


@contextmanager
def real_server(transport: str = "streamable_http", **options: Any) -> Iterator[Real]:
    """The real one, in a thread, until the end of the block."""
    # Here, for it takes a second to load, which other workers need not spend.
    from mcp_tools import add_tools, mcp_server

    real = Real(mcp_server())
    add_tools(real)
    app = real.mcp.sse_app() if transport == "sse" else real.mcp.streamable_http_app(**options)
    bound = socket.socket()
    bound.bind(("127.0.0.1", 0))
    bound.listen(50)
    path = "sse" if transport == "sse" else "mcp"
    real.url = f"http://127.0.0.1:{bound.getsockname()[1]}/{path}"
    config = uvicorn.Config(_Guarded(app, real), log_config=None, lifespan="on", timeout_graceful_shutdown=1)
    server = _Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
    thread.start()
    assert server.began.wait(10)
    try:
        yield real
    finally:
        real.gate.set()
        server.should_exit = True
        thread.join(10)
        bound.close()


Answering = Callable[[dict[str, Any]], Any]
"""From a JSON-RPC request to its result, to (status, headers, body), or to None: the connection is dropped."""


class Raw:
    """A server that answers as a test says."""

    def __init__(self, answer: Answering) -> None:
        self.answer = answer
        self.heard: list[dict[str, Any]] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self._server.raw = self  # type: ignore[attr-defined]  # how a handler finds us
        self.host = f"127.0.0.1:{self._server.server_address[1]}"
        self.url = f"http://{self.host}/mcp"

    def __enter__(self) -> Raw:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *args: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        """No stream of the server's own."""
        self._send(405, {}, b"")

    def do_DELETE(self) -> None:
        """The end of a session."""
        self._send(200, {}, b"")

    def do_POST(self) -> None:
        """One message of the client."""
        raw: Raw = self.server.raw  # type: ignore[attr-defined]  # see `Raw`
        message = json.loads(self.rfile.read(int(self.headers["content-length"])))
        raw.heard.append(message)
        if "id" not in message:
            self._send(202, {}, b"")
            return
        if message["method"] == "server/discover":
            self._send(404, {}, b"")
            return
        made = raw.answer(message)
        if made is None:
            self.close_connection = True
        elif isinstance(made, tuple):
            self._send(*made)
        else:
            body = json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": made}).encode()
            self._send(200, {"content-type": "application/json"}, body)

    def _send(self, status: int, headers: dict[str, str], body: bytes) -> None:
        try:
            self.send_response(status)
            for name, value in {**headers, "content-length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True  # the caller has gone, as some tests mean it to


def polite(method: str, tools: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    """What a good server says to the first messages."""
    if method == "initialize":
        return {
            "protocolVersion": "2025-06-18",
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "raw", "version": "1"},
        }
    return {"tools": [{"name": "act", "inputSchema": {"type": "object"}}] if tools is None else tools}
