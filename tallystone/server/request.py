"""What of an ASGI request is used. A header is decoded when it is asked for: of fourteen that a client sends, a request
needs three."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from urllib.parse import quote

from starlette.types import Receive, Scope

METHODS = frozenset(("GET", "POST", "PUT", "PATCH", "DELETE"))
"""Those that any route has. Others are `-` where they are counted: a client may send any word."""


class Headers(Mapping[str, str]):
    """A request's headers by their names in lower case, as servers give them. Of a repeated one the last counts."""

    def __init__(self, raw: Sequence[tuple[bytes, bytes]]) -> None:
        self._raw = dict(raw)

    def __getitem__(self, name: str) -> str:
        return self._raw[name.encode("latin-1")].decode("latin-1")

    def __iter__(self) -> Iterator[str]:
        return (name.decode("latin-1") for name in self._raw)

    def __len__(self) -> int:
        return len(self._raw)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.encode("latin-1") in self._raw


class Request:
    """What of the ASGI scope is used. `template` is all that a log may say of the path; `arrived` is when the head was
    whole (`time.monotonic_ns`), if the HTTP server says so; 0 if it does not."""

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self.method: str = scope["method"]
        raw = scope.get("raw_path")
        # the raw path of some servers includes the query
        self.raw_path: bytes = raw.split(b"?", 1)[0] if raw is not None else quote(scope["path"]).encode()
        self.query: bytes = scope.get("query_string", b"")
        self.raw_headers: Sequence[tuple[bytes, bytes]] = list(scope["headers"])
        self.headers = Headers(self.raw_headers)
        self.known_method = self.method if self.method in METHODS else "-"
        self.receive = receive
        self.peer: str = (scope.get("client") or ("",))[0]
        self.held = 0  # bytes of its body
        self.arrived: int = scope.get("state", {}).get("arrived", 0)
        self.template = "-"
        self.leaves: Sequence[int] = ()
