"""What the server bounds: requests, connections, bodies, rates; and what it says when a bound is met."""

from __future__ import annotations

import asyncio
import json
import os
import select
import socket
import sqlite3
import ssl
import threading
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from server_fixtures import AUTHORITIES, Served, fresh_server, server  # noqa: F401
from stores import sqlite_only, thinned

from tallystone.errors import Invalid
from tallystone.server import connections
from tallystone.server.app import App
from tallystone.server.auth import Turnstile
from tallystone.server.errors import Refusal
from tallystone.server.limits import Bodies, read_body
from tallystone.server.rates import Buckets
from tallystone.server.run import running
from tallystone.server.senders import networks, read_proxies, sender
from tallystone.server.settings import Settings
from tallystone.server.status import Check, Status
from tallystone.server.tls import certificate
from tallystone.vault import Workspace

pytestmark = thinned(3, "they differ in bytes, addresses and connections, which come before any row")


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def talk(
    app: App, say: Callable[[httpx.AsyncClient], Awaitable[Any]], client: tuple[str, int] = ("9.9.9.9", 1)
) -> Any:
    """Talk to an application without a socket."""

    async def run() -> Any:
        transport = httpx.ASGITransport(app=app, client=client)
        async with httpx.AsyncClient(transport=transport, base_url="http://t") as http:
            return await say(http)

    return anyio.run(run)


def test_more_requests_than_may_wait_are_told_to_come_again(server: Served) -> None:  # noqa: F811
    app = App(server.workspace, threads=1, queue=1)
    headers = {"authorization": f"Bearer {server.token}"}

    async def say(http: httpx.AsyncClient) -> list[httpx.Response]:
        return await asyncio.gather(*(http.get("/v1/blocks/", headers=headers) for _ in range(12)))

    answers = talk(app, say)
    assert {answer.status_code for answer in answers} == {200, 503}
    refused = next(answer for answer in answers if answer.status_code == 503)
    assert refused.json()["error"]["code"] == "overloaded"
    assert refused.headers["retry-after"] == "1"
    assert "x-should-retry" not in refused.headers  # the client's default is to repeat
    assert app.working == 0
    assert talk(app, lambda http: http.get("/v1/blocks/", headers=headers)).status_code == 200


def test_bodies_of_all_requests_together_are_bounded() -> None:
    bodies = Bodies(100)

    async def arrive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"x" * 60, "more_body": False}

    headers = {"content-length": "60"}
    assert len(anyio.run(read_body, arrive, headers, 1000, bodies.take)) == 60
    with pytest.raises(Refusal) as caught:
        anyio.run(read_body, arrive, headers, 1000, bodies.take)
    assert (caught.value.status, caught.value.code) == (503, "overloaded")


def test_what_a_body_held_is_given_back(server: Served) -> None:  # noqa: F811
    app = App(server.workspace, max_body=2000)
    headers = {"authorization": f"Bearer {server.token}"}
    for body in (b'{"label": "a", "value": "b"}', b"no json", b"x" * 3000):
        talk(app, lambda http, body=body: http.post("/v1/blocks/", headers=headers, content=body))
        assert app._bodies.held == 0


def test_one_principal_is_bounded_and_another_is_not(server: Served) -> None:  # noqa: F811
    clock = Clock()
    app = App(server.workspace, rates=Buckets(2, 3, clock))
    other = server.add_user("unhurried")

    def status(token: str) -> int:
        headers = {"authorization": f"Bearer {token}"}
        answer: httpx.Response = talk(app, lambda http: http.get("/v1/blocks/", headers=headers))
        if answer.status_code == 429:
            assert answer.json()["error"]["code"] == "rate_limited"
            assert answer.headers["retry-after"] == "1"
            assert "x-should-retry" not in answer.headers
        return answer.status_code

    assert [status(server.token) for _ in range(5)] == [200, 200, 200, 429, 429]
    assert status(other) == 200
    clock.now += 0.5
    assert [status(server.token) for _ in range(2)] == [200, 429]


def test_a_bucket_holds_its_burst_and_fills_at_its_rate() -> None:
    clock = Clock()
    buckets = Buckets(10, 5, clock)
    assert [buckets.wait("a") for _ in range(5)] == [0.0] * 5
    assert buckets.wait("a") == pytest.approx(0.1)
    clock.now += 100
    assert sum(buckets.wait("a") == 0.0 for _ in range(50)) == 5


def test_many_names_take_no_more_memory_than_some(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tallystone.server.rates.MOST", 10)
    buckets = Buckets(1, 1, Clock())
    assert all(buckets.wait(str(number)) == 0.0 for number in range(11))
    assert buckets.wait("one more") > 0
    assert len(buckets._full_at) == 11


def test_strangers_of_one_address_do_not_use_up_what_all_have(server: Served) -> None:  # noqa: F811
    app = App(
        server.workspace,
        turnstile=Turnstile(10, 40, Clock(), each=2),
        proxies=networks(["9.9.9.9", "10.0.0.0/8"]),
    )

    def status(forwarded: str) -> int:
        headers = {"x-forwarded-for": forwarded}
        answer: httpx.Response = talk(app, lambda http: http.get("/v1/blocks/", headers=headers))
        return answer.status_code

    assert [status("1.1.1.1") for _ in range(10)] == [401] * 8 + [429] * 2
    assert (
        status("6.6.6.6, 1.1.1.1, 10.1.2.3") == 429
    )  # what it writes itself before the proxy's word counts nothing
    assert status("2.2.2.2") == 401


@pytest.mark.parametrize(
    ("peer", "forwarded", "counted"),
    [
        ("1.2.3.4", "5.6.7.8", "1.2.3.4"),
        ("10.0.0.1", "5.6.7.8", "5.6.7.8"),
        ("10.0.0.1", "5.6.7.8, 10.9.9.9", "5.6.7.8"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("2001:db8:1:2:3::4", "", "2001:db8:1:2::/64"),
        ("", "", ""),
        ("10.0.0.1", "x" * 100, "x" * 64),
    ],
)
def test_the_address_is_the_last_that_no_trusted_proxy_has(peer: str, forwarded: str, counted: str) -> None:
    assert sender(peer, {"x-forwarded-for": forwarded}, networks(["10.0.0.0/8"])) == counted


@pytest.mark.parametrize("value", ["nonsense", "10.0.0.1/8", 5, ["a"]])
def test_a_wrong_proxy_is_refused(value: object) -> None:
    with pytest.raises(Invalid):
        read_proxies(value)


# -- connections ------------------------------------------------------------------------------------------------------


def connect(url: str, *, buffer: int = 0) -> socket.socket:
    host, port = url.removeprefix("http://").split(":")
    raw = socket.socket()
    if buffer:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    raw.settimeout(20)
    raw.connect((host, int(port)))
    return raw


def test_connections_beyond_the_bound_are_told_so(tmp_path: Path) -> None:
    workspace, _ = Workspace.init(tmp_path / "data")
    ask = b"GET /v1/health/ HTTP/1.1\r\nHost: t\r\n\r\n"
    with workspace, running(workspace, Settings(port=0, connections=3, log_level="error")) as url:
        held = [connect(url) for _ in range(3)]
        for raw in held:
            raw.sendall(ask)
            assert raw.recv(4096).startswith(b"HTTP/1.1 200")
        with connect(url) as beyond:
            beyond.sendall(ask)
            answer = beyond.makefile("rb").read()  # it is closed after the answer
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 503") and b"retry-after: 1" in head and b"connection: close" in head
        assert json.loads(body)["error"]["code"] == "too_many_connections"
        for raw in held:
            raw.close()
        with httpx.Client(base_url=url, trust_env=False, verify=AUTHORITIES) as http:
            assert http.get("/v1/health/").status_code == 200


def test_a_head_that_does_not_come_to_its_end_is_not_waited_for(
    server: Served,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.5)
    with connect(server.url) as silent, connect(server.url) as slow, connect(server.url) as later:
        later.sendall(b"GET /v1/health/ HTTP/1.1\r\nHost: t\r\n\r\n")
        answer = b""
        while not answer.endswith(b"}"):
            answer += later.recv(4096)
        later.sendall(b"GET /v1/heal")
        slow.sendall(b"GET /v1/health/ HTTP/1.1\r\nX-A: ")
        stopped = threading.Event()
        drip = threading.Thread(target=_drip, args=(slow, stopped))
        drip.start()
        assert [raw.recv(1) for raw in (silent, later)] == [b"", b""]
        drip.join(20)
        assert stopped.is_set()
    assert server.http().get("/v1/health/").status_code == 200


def _drip(raw: socket.socket, stopped: threading.Event) -> None:
    raw.settimeout(0.1)
    try:
        while True:
            raw.sendall(b"a")
            try:
                if raw.recv(1) == b"":
                    break
            except TimeoutError:
                continue
    except OSError:
        pass
    stopped.set()


def test_whoever_does_not_read_its_answer_is_cut_off(
    fresh_server: Served,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connections, "STUCK_SECONDS", 0.5)
    size = 9_000_000
    block = fresh_server.vault().create_block(label="long", value="v" * size, limit=size)
    ask = (
        f"GET /v1/blocks/{block.id} HTTP/1.1\r\nHost: t\r\nAuthorization: Bearer {fresh_server.token}\r\n\r\n"
    )
    with connect(fresh_server.url, buffer=4096) as raw:
        raw.sendall(ask.encode())
        assert raw.recv(12) == b"HTTP/1.1 200"
        reset = select.poll()
        reset.register(raw, select.POLLERR | select.POLLHUP)  # and not for what there is to read
        assert reset.poll(20_000)
    assert fresh_server.http().get("/v1/health/").status_code == 200


# -- readiness --------------------------------------------------------------------------------------------------------


def ready(app: App) -> tuple[int, str]:
    answer: httpx.Response = talk(app, lambda http: http.get("/v1/ready/"))
    assert (
        talk(app, lambda http: http.get("/v1/health/")).status_code == 200
    )  # the process is alive all the same
    return answer.status_code, answer.json().get("error", {}).get("code", "")


@thinned(1, "whether a server is ready, its store says")
def test_a_server_is_ready_unless_the_check_of_its_log_failed(fresh_server: Served) -> None:  # noqa: F811
    status = Status(fresh_server.workspace.folder)
    assert ready(App(fresh_server.workspace, status=status)) == (200, "")
    # by another process, which tells in the status file alone
    Status(fresh_server.workspace.folder).checked(Check(1, 10, 10, findings=2))
    assert ready(App(fresh_server.workspace, status=status)) == (503, "log_check_failed")
    Status(fresh_server.workspace.folder).checked(Check(2, 10, 10))
    assert ready(App(fresh_server.workspace, status=status)) == (200, "")


@sqlite_only("the table is made through the file")
def test_a_server_whose_tables_another_version_changed_is_not_ready(fresh_server: Served) -> None:  # noqa: F811
    with sqlite3.connect(fresh_server.workspace.folder / "tallystone.db") as other:
        other.execute("CREATE TABLE later (a)")
    other.close()
    assert ready(App(fresh_server.workspace)) == (503, "schema")


@thinned(1, "whether a server is ready, its store says")
def test_a_server_without_its_store_is_not_ready(tmp_path: Path) -> None:
    workspace, _ = Workspace.init(tmp_path / "data")
    workspace.close()
    assert ready(App(workspace)) == (503, "closed")


def test_a_status_file_that_is_damaged_harms_nothing(tmp_path: Path) -> None:
    status = Status(tmp_path)
    status.checked(Check(1, 2, 3, 4))
    (tmp_path / "server-status.json").write_bytes(b"{")
    assert status.check == Check(1, 2, 3, 4)
    assert Status(tmp_path).check is None
    status.witnesses["w"] = "late"
    assert dict(Status(tmp_path).witnesses) == {"w": "late"}
    del status.witnesses["w"]
    assert dict(Status(tmp_path).witnesses) == {}


# -- TLS --------------------------------------------------------------------------------------------------------------


def certify(folder: Path, name: str = "localhost") -> tuple[Path, Path]:
    """A certificate that signs itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    cert, private = folder / "cert.pem", folder / "key.pem"
    cert.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return cert, private


def test_https_is_spoken_from_the_oldest_version_that_is_allowed(tmp_path: Path) -> None:
    cert, key = certify(tmp_path)
    workspace, credentials = Workspace.init(tmp_path / "data")
    settings = Settings(
        host="localhost", port=0, tls_cert=cert, tls_key=key, tls_min="1.3", log_level="error"
    )
    with workspace, running(workspace, settings) as url:
        assert url.startswith("https://localhost:")
        trusting = ssl.create_default_context(cafile=cert)
        headers = {"authorization": f"Bearer {credentials.token}"}
        with httpx.Client(base_url=url, verify=trusting, trust_env=False, headers=headers) as http:
            assert http.get("/v1/blocks/").status_code == 200
        trusting.maximum_version = ssl.TLSVersion.TLSv1_2
        with (
            httpx.Client(base_url=url, verify=trusting, trust_env=False) as http,
            pytest.raises(httpx.ConnectError),
        ):
            http.get("/v1/health/")


def test_whoever_does_not_read_its_answer_through_tls_is_cut_off_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "STUCK_SECONDS", 0.5)
    cert, key = certify(tmp_path)
    workspace, owner = Workspace.init(tmp_path / "data")
    settings = Settings(host="127.0.0.1", port=0, tls_cert=cert, tls_key=key, log_level="error")
    with workspace, running(workspace, settings) as url:
        block = workspace.vault(owner.token).create_block(
            label="long", value="v" * 9_000_000, limit=9_000_000
        )
        plain = connect(url.replace("https", "http"), buffer=4096)
        trusting = ssl.create_default_context(cafile=cert)
        with trusting.wrap_socket(plain, server_hostname="localhost") as raw:
            ask = f"GET /v1/blocks/{block.id} HTTP/1.1\r\nHost: t\r\nAuthorization: Bearer {owner.token}\r\n\r\n"
            raw.sendall(ask.encode())
            assert raw.recv(12) == b"HTTP/1.1 200"
            reset = select.poll()
            reset.register(raw, select.POLLERR | select.POLLHUP)
            assert reset.poll(20_000)


def test_a_renewed_certificate_is_taken_up_and_a_broken_one_is_not(tmp_path: Path) -> None:
    cert, key = certify(tmp_path, "one.example")
    tls = certificate(Settings(tls_cert=cert, tls_key=key))
    assert tls is not None
    assert _name_shown(tls.context, cert) == "one.example"
    certify(tmp_path, "two.example")
    os.utime(cert, ns=(1, 1))
    tls.refresh()
    assert _name_shown(tls.context, cert) == "two.example"
    whole = cert.read_bytes()
    cert.write_bytes(b"half")
    tls.refresh()
    cert.write_bytes(whole)
    assert _name_shown(tls.context, cert) == "two.example"


def _name_shown(context: ssl.SSLContext, cert: Path) -> str:
    """What a client sees of a server with this context, without a socket."""
    trusting = ssl.create_default_context(cafile=cert)
    trusting.check_hostname = False
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = trusting.wrap_bio(to_client, to_server)
    serving = context.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(4):
        for side in (client, serving):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    subject = client.getpeercert()["subject"]  # type: ignore[index]  # the handshake is over
    return str(subject[0][0][1])


@pytest.mark.parametrize("settings", [Settings(tls_key=Path("key.pem")), Settings(tls_cert=Path("no.pem"))])
def test_a_certificate_that_is_not_there_is_a_clear_error(settings: Settings) -> None:
    with pytest.raises(Invalid) as caught:
        certificate(settings)
    assert caught.value.message
