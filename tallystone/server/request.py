"""What of an ASGI request is used, decoded once."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote

from starlette.types import Receive, Scope

METHODS = frozenset(("GET", "POST", "PUT", "PATCH", "DELETE"))
"""Those that any route has. Others are `-` where they are counted: a client may send any word."""


class Request:
    """What of the ASGI scope is used, decoded once. `template` is all that a log may say of the path."""

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self.method: str = scope["method"]
        raw = scope.get("raw_path")
        # the raw path of some servers includes the query
        self.raw_path: bytes = raw.split(b"?", 1)[0] if raw is not None else quote(scope["path"]).encode()
        self.query: bytes = scope.get("query_string", b"")
        self.raw_headers: list[tuple[bytes, bytes]] = list(scope["headers"])
        self.headers = {
            name.decode("latin-1").lower(): value.decode("latin-1") for name, value in self.raw_headers
        }
        self.known_method = self.method if self.method in METHODS else "-"
        self.receive = receive
        self.peer: str = (scope.get("client") or ("",))[0]
        self.held = 0  # bytes of its body
        self.template = "-"
        self.leaves: Sequence[int] = ()
