"""A model server that answers with any bytes at all, in the words of OpenAI's chat completions or not."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

Script = Callable[[dict[str, Any]], Iterable[bytes]]


def answer(message: dict[str, Any], usage: Any = None, finish: str = "stop") -> bytes:
    """A whole answer, with its head."""
    body = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_790_000_000,
        "model": "raw-1",
        "choices": [{"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish}],
        "usage": usage or {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }
    content = json.dumps(body).encode()
    return head("application/json", len(content)) + content


def head(kind: str = "text/event-stream", length: int | None = None, status: int = 200) -> bytes:
    """The head of an answer; without a length it ends with the connection."""
    size = "" if length is None else f"content-length: {length}\r\n"
    return f"HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\n{size}connection: close\r\n\r\n".encode()


def event(delta: dict[str, Any], finish: str | None = None) -> bytes:
    """One piece of a stream."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    body = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "raw-1",
        "choices": [choice],
    }
    return b"data: " + json.dumps(body).encode() + b"\n\n"


def call(name: str, arguments: Any = "{}", identity: str = "call_1") -> dict[str, Any]:
    """A tool call of a whole answer."""
    text = arguments if isinstance(arguments, str) else json.dumps(arguments)
    return {"id": identity, "type": "function", "function": {"name": name, "arguments": text}}


class RawModels:
    """The server. `script` makes the bytes of an answer out of a request; `asked` holds the requests."""

    def __init__(self, script: Script = lambda _: ()) -> None:
        self.script = script
        self.asked: list[dict[str, Any]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *args: Any) -> None:
                """Say nothing."""

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers.get("content-length") or 0)))
                outer.asked.append(body)
                try:
                    for piece in outer.script(body):
                        self.wfile.write(piece)
                        self.wfile.flush()
                except OSError:  # the caller has heard enough
                    pass
                self.close_connection = True

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self.providers = {"openai": f"http://127.0.0.1:{self._server.server_address[1]}/v1"}

    def __enter__(self) -> RawModels:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
