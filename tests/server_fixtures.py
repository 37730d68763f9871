"""A server on a free port over a fresh workspace, and real clients pointed at it.

Import what a test file needs, e.g. `from server_fixtures import server  # noqa: F401`. Each such import and each test
with that parameter says `noqa` (F401, F811), for pytest finds a fixture by its name, which ruff does not know.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import letta_client
import pytest
from letta_client.pagination import SyncArrayPage
from letta_client.types import AgentState, BlockResponse, Tool
from letta_client.types.agents import Message
from stock import founded

from tallystone.server.run import running
from tallystone.server.settings import Settings
from tallystone.vault import Vault, Workspace

AUTHORITIES = httpx.create_ssl_context()
"""Loaded once: each client would do so for itself, which takes longer than most of what it then asks."""
_PAGES = [
    SyncArrayPage[AgentState],
    SyncArrayPage[BlockResponse],
    SyncArrayPage[Message],
    SyncArrayPage[Tool],
]
"""Kept: the client names the class of a page at each call, and pydantic builds it anew, for 50 ms or more, if nobody
has kept the last one."""


@dataclass(eq=False)
class Served:
    """A running server, its workspace, and the token of its first user."""

    workspace: Workspace
    url: str
    token: str
    user: str
    closing: list[Any] = field(default_factory=list)

    def letta(self, token: str | None = None, **options: Any) -> letta_client.Letta:
        """The unmodified client. Strict validation is on, and so are its default retries unless told otherwise."""
        settings: dict[str, Any] = {"max_retries": 0, "_strict_response_validation": True, **options}
        if "http_client" not in settings:
            settings["http_client"] = letta_client.DefaultHttpxClient(verify=AUTHORITIES)
        client = letta_client.Letta(base_url=self.url, api_key=token or self.token, **settings)
        self.closing.append(client)
        return client

    def http(self, token: str | None = None) -> httpx.Client:
        """A bare HTTP client with the token and without redirects."""
        headers = {"Authorization": f"Bearer {token or self.token}"}
        client = httpx.Client(
            base_url=self.url, headers=headers, trust_env=False, timeout=60, verify=AUTHORITIES
        )
        self.closing.append(client)
        return client

    def vault(self, token: str | None = None) -> Vault:
        """The same workspace, without HTTP."""
        return self.workspace.vault(token or self.token)

    def add_user(self, name: str) -> str:
        """A new user's token."""
        return self.vault().add_user(name).token


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One server for a module's tests."""
    yield from _serve(tmp_path_factory.mktemp("data"))


@pytest.fixture
def fresh_server(tmp_path: Path) -> Iterator[Served]:
    """A server of the test's own."""
    yield from _serve(tmp_path / "data")


def _serve(folder: Path) -> Iterator[Served]:
    workspace, (credentials, *_) = founded(folder, "root")
    with workspace, running(workspace, Settings(port=0, refusals=100_000, log_level="error")) as url:
        served = Served(workspace, url, credentials.token, credentials.principal)
        try:
            yield served
        finally:
            for client in served.closing:
                client.close()
