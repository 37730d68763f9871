"""The process: it stops gracefully, says where it listens, and checks its log."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import anyio
import httpx
import pytest
from server_fixtures import AUTHORITIES, Served, fresh_server  # noqa: F401

from tallystone.errors import StoreError
from tallystone.server.app import App
from tallystone.server.duty import check
from tallystone.server.run import listening, url_of
from tallystone.vault import Workspace

PROGRAM = """
import sys
from tallystone.server.app import App
from tallystone.server.run import serve
from tallystone.server.settings import Settings
from tallystone.vault import Workspace
with Workspace.open(sys.argv[1]) as workspace:
    serve(workspace, Settings(port=0, grace=10), lambda url: print(url, flush=True))
print("closed", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_requests_under_way_finish(tmp_path: Path, number: signal.Signals) -> None:
    workspace, credentials = Workspace.init(tmp_path / "data")
    workspace.close()
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "data")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
    )
    try:
        assert process.stdout is not None and process.stderr is not None
        url = process.stdout.readline().strip()
        host, port = url.removeprefix("http://").split(":")
        body = b'{"label":"under way","value":"v"}'
        head = (
            f"POST /v1/blocks/ HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {credentials.token}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        with socket.create_connection((host, int(port)), timeout=20) as raw:
            # half a request: the server has begun to work on it when the signal comes
            raw.sendall(head.encode() + body[:5])
            with httpx.Client(base_url=url, trust_env=False, verify=AUTHORITIES) as http:
                assert http.get("/v1/health/").status_code == 200
            process.send_signal(number)
            while _accepts(host, int(port)):
                pass
            raw.sendall(body[5:])
            assert raw.recv(100).startswith(b"HTTP/1.1 200")
        assert process.wait(20) == 0
        assert process.stdout.read().strip() == "closed"
        assert credentials.token not in process.stderr.read()
    finally:
        process.kill()
        process.communicate()
    with Workspace.open(tmp_path / "data") as again:
        assert [block.label for block in again.vault(credentials.token).blocks()] == ["under way"]


def _accepts(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=5).close()
    except OSError:
        return False
    return True


def test_a_taken_port_is_a_clear_error() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with (
            pytest.raises(StoreError, match="cannot listen") as caught,
            listening("127.0.0.1", other.getsockname()[1]),
        ):
            pass
    assert "--port" in caught.value.hint


def test_an_address_that_is_none_is_a_clear_error() -> None:
    with pytest.raises(StoreError), listening("no.such.host.invalid", 0):
        pass


@pytest.mark.parametrize(
    ("host", "shown"), [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("localhost", "localhost")]
)
def test_the_url_is_one_that_clients_can_use(host: str, shown: str) -> None:
    with listening(host, 0) as bound:
        assert url_of(host, bound) == f"http://{shown}:{bound.getsockname()[1]}"


def test_the_log_is_checked(fresh_server: Served, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: F811
    fresh_server.vault().create_block(label="l", value="v")
    assert check(fresh_server.workspace)


def test_a_stopping_server_is_alive_and_not_ready(fresh_server: Served) -> None:  # noqa: F811
    app = App(fresh_server.workspace)
    app.ready = False

    async def ask() -> list[int]:
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://t") as http:
            return [(await http.get(f"/v1/{path}/")).status_code for path in ("health", "ready")]

    assert anyio.run(ask) == [200, 503]
