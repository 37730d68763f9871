"""HTTP/1.1 as bytes: what is refused, what is answered in which order, and what a connection holds at most."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest
import uvicorn
from hypothesis import given, settings
from hypothesis import strategies as st
from server_fixtures import Served, server  # noqa: F401
from uvicorn.server import ServerState

from tallystone.server.connections import QUEUE, backlog, event_loop
from tallystone.server.http1 import MAX_UNPARSED, Exchange, Http1
from tallystone.server.limits import MAX_HEADERS, MAX_TARGET
from tallystone.server.run import running
from tallystone.server.settings import Settings
from tallystone.vault import Workspace

HEALTH = b"GET /v1/health/ HTTP/1.1\r\nHost: t\r\n\r\n"
POST = b"POST /v1/blocks/ HTTP/1.1\r\nHost: t\r\n"
"""Without a token: it is refused with 401 when its head is whole."""
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"


def with_fields(*fields: bytes, start: bytes = b"GET /v1/health/ HTTP/1.1\r\nHost: t") -> bytes:
    return b"\r\n".join([start, *fields]) + b"\r\n\r\n"


@contextmanager
def connected(url: str) -> Iterator[socket.socket]:
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as raw:
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield raw


def answers(
    raw: socket.socket, count: int, *, bodies: bool = True
) -> list[tuple[int, dict[str, str], bytes]]:
    """So many answers: status, headers, body."""
    found, stream = [], raw.makefile("rb")
    for _ in range(count):
        status = int(stream.readline().split()[1])
        headers = {}
        while (line := stream.readline().strip()) != b"":
            name, _, value = line.decode().partition(": ")
            headers[name] = value
        body = stream.read(int(headers.get("content-length", "0"))) if bodies else b""
        found.append((status, headers, body))
    return found


def is_closed(raw: socket.socket) -> bool:
    try:
        return raw.recv(1) == b""
    except ConnectionResetError:  # closed while bytes of ours were under way
        return True


REFUSED = {
    "no HTTP": b"\x16\x03\x01nonsense\r\n\r\n",
    "a method that is none": b"BREW /v1/health/ HTTP/1.1\r\nHost: t\r\n\r\n",
    "a method in lower case": b"get /v1/health/ HTTP/1.1\r\nHost: t\r\n\r\n",
    "CONNECT": b"CONNECT t:80 HTTP/1.1\r\nHost: t\r\n\r\n",
    "HTTP/2 that was not agreed on": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/2.0 in a request line": b"GET /v1/health/ HTTP/2.0\r\nHost: t\r\n\r\n",
    "HTTP/0.9": b"GET /v1/health/\r\n\r\n",
    "HTTP/1.2": b"GET /v1/health/ HTTP/1.2\r\nHost: t\r\n\r\n",
    "no Host": b"GET /v1/health/ HTTP/1.1\r\n\r\n",
    "two Hosts": with_fields(b"Host: u"),
    "a target that is none": b"GET v1/health/ HTTP/1.1\r\nHost: t\r\n\r\n",
    "a target that is no ASCII": b"GET /v1/h\xe9alth/ HTTP/1.1\r\nHost: t\r\n\r\n",
    "a space in the target": b"GET /v1/health /x HTTP/1.1\r\nHost: t\r\n\r\n",
    "a NUL in the target": b"GET /v1/health/\0 HTTP/1.1\r\nHost: t\r\n\r\n",
    "lines that end in LF": b"GET /v1/health/ HTTP/1.1\nHost: t\n\n",
    "one line that ends in LF": b"GET /v1/health/ HTTP/1.1\r\nHost: t\nX: y\r\n\r\n",
    "one line that ends in CR": b"GET /v1/health/ HTTP/1.1\r\nHost: t\rX: y\r\n\r\n",
    "a folded field": with_fields(b"X: a", b" b"),
    "a NUL in a field": with_fields(b"X: a\0b"),
    "a NUL in a name": with_fields(b"X\0: a"),
    "a control character in a field": with_fields(b"X: a\x01b"),
    "a space in a name": with_fields(b"X y: a"),
    "a space behind a name": with_fields(b"Content-Length : 3") + b"abc",
    "a field without a name": with_fields(b": a"),
    "a field without a colon": with_fields(b"colon"),
    "both framings": with_fields(b"Content-Length: 5", b"Transfer-Encoding: chunked", start=POST[:-2]) + b"0\r\n\r\n",
    "both, the other way": with_fields(b"Transfer-Encoding: chunked", b"Content-Length: 5", start=POST[:-2]),
    "two lengths": with_fields(b"Content-Length: 3", b"Content-Length: 4", start=POST[:-2]) + b"abcd",
    "the same length twice": with_fields(b"Content-Length: 3", b"Content-Length: 3", start=POST[:-2]) + b"abc",
    "a list of lengths": with_fields(b"Content-Length: 3, 3", start=POST[:-2]) + b"abc",
    "a length with a sign": with_fields(b"Content-Length: +3", start=POST[:-2]) + b"abc",
    "a length in hexadecimal": with_fields(b"Content-Length: 0x3", start=POST[:-2]) + b"abc",
    "no length": with_fields(b"Content-Length:", start=POST[:-2]) + b"abc",
    "a length beyond 64 bits": with_fields(b"Content-Length: 99999999999999999999", start=POST[:-2]),
    "a coding that is unknown": with_fields(b"Transfer-Encoding: xchunked", start=POST[:-2]) + b"0\r\n\r\n",
    "chunked under another coding": with_fields(b"Transfer-Encoding: gzip, chunked", start=POST[:-2]) + b"0\r\n\r\n",
    "chunked that is not the last": with_fields(b"Transfer-Encoding: chunked, identity", start=POST[:-2]),
    "chunked twice": with_fields(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked", start=POST[:-2]),
    "chunked folded": with_fields(b"Transfer-Encoding:", b" chunked", start=POST[:-2]) + b"0\r\n\r\n",
    "chunked for HTTP/1.0": b"POST /v1/health/ HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
}  # fmt: skip


@pytest.mark.parametrize("sent", REFUSED.values(), ids=REFUSED.keys())
def test_what_two_servers_could_understand_in_two_ways_is_refused(server: Served, sent: bytes) -> None:  # noqa: F811
    with connected(server.url) as raw:
        raw.sendall(sent)
        [(status, headers, body)] = answers(raw, 1)
        assert status == 400 and headers["connection"] == "close"
        assert headers["content-type"] == "application/json"
        error = json.loads(body)
        assert error["detail"] and error["error"]["hint"] and error["error"]["code"] == "bad_request"
        assert is_closed(raw)


UNCHUNKED = {
    "a size that is none": b"xyz\r\nabc\r\n0\r\n\r\n",
    "a size with a prefix": b"0x3\r\nabc\r\n0\r\n\r\n",
    "a size below nothing": b"-3\r\nabc\r\n0\r\n\r\n",
    "a size beyond 64 bits": b"fffffffffffffffff\r\nabc\r\n0\r\n\r\n",
    "a space behind a size": b"3 \r\nabc\r\n0\r\n\r\n",
    "a piece longer than its size": b"3\r\nabcd\r\n0\r\n\r\n",
    "lines that end in LF": b"3\nabc\n0\n\n",
}


@pytest.mark.parametrize("body", UNCHUNKED.values(), ids=UNCHUNKED.keys())
def test_a_body_in_bad_chunks_ends_its_connection(server: Served, body: bytes) -> None:  # noqa: F811
    blocks = len(server.vault().blocks())
    with connected(server.url) as raw:
        token = f"Authorization: Bearer {server.token}\r\nTransfer-Encoding: chunked\r\n\r\n"
        raw.sendall(POST + token.encode())
        raw.sendall(body + HEALTH)
        assert [status for status, _, _ in answers(raw, 1)] == [400]
        assert is_closed(raw)
    assert len(server.vault().blocks()) == blocks


SERVED: dict[str, tuple[bytes, list[int]]] = {
    "two at once": (HEALTH * 2, [200, 200]),
    "many at once": (HEALTH * 200, [200] * 200),
    "in the order they came": (HEALTH + b"GET /v1/x HTTP/1.1\r\nHost: t\r\n\r\n" + HEALTH, [200, 404, 200]),
    "one behind a body": (with_fields(b"Content-Length: 3", start=POST[:-2]) + b"abc" + HEALTH, [401, 200]),
    "a body that looks like heads": (
        with_fields(b"Content-Length: %d" % (3 * len(HEALTH)), start=POST[:-2]) + HEALTH * 4, [401, 200],
    ),
    "one behind chunks": (CHUNKED + b"3\r\nabc\r\n0\r\n\r\n" + HEALTH, [401, 200]),
    "chunks with names, and a trailer": (CHUNKED + b"3;a=b\r\nabc\r\n0\r\nHost: u\r\n\r\n" + HEALTH, [401, 200]),
    "blank lines before it": (b"\r\n\r\n" + HEALTH, [200]),
    "no Host for HTTP/1.0, then closed": (b"GET /v1/health/ HTTP/1.0\r\n\r\n", [200]),
    "closed if asked to, and no more": (with_fields(b"Connection: close") + HEALTH, [200]),
    "a wish for HTTP/2": (with_fields(b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c") + HEALTH, [200, 200]),
    "a wish for a websocket": (with_fields(b"Connection: Upgrade", b"Upgrade: websocket") + HEALTH, [200, 200]),
    "a wish beside a body": (
        with_fields(b"Connection: Upgrade", b"Upgrade: h2c", b"Content-Length: %d" % len(HEALTH), start=POST[:-2])
        + HEALTH * 2, [401, 200],
    ),
    "a wish beside chunks": (
        with_fields(b"Connection: Upgrade", b"Upgrade: h2c", b"Transfer-Encoding: chunked", start=POST[:-2])
        + b"3\r\nabc\r\n0\r\n\r\n" + HEALTH, [401, 200],
    ),
    "an address as target": (b"GET http://t/v1/health/ HTTP/1.1\r\nHost: t\r\n\r\n", [404]),
    "the whole server as target": (b"OPTIONS * HTTP/1.1\r\nHost: t\r\n\r\n" + HEALTH, [404, 200]),
    "values with spaces around, and none": (with_fields(b"X:  a \t", b"Y:", b"Z: \xe9"), [200]),
    "400 only behind the answer before it": (HEALTH + b"nonsense\r\n\r\n" + HEALTH, [200, 400]),
}  # fmt: skip
CLOSED = {
    "no Host for HTTP/1.0, then closed",
    "closed if asked to, and no more",
    "400 only behind the answer before it",
}


@pytest.mark.parametrize("cut", [0, 1, 7], ids=["at once", "byte by byte", "in sevens"])
@pytest.mark.parametrize("name", SERVED)
def test_requests_are_answered_in_order_however_they_are_cut(server: Served, name: str, cut: int) -> None:  # noqa: F811
    sent, statuses = SERVED[name]
    if cut == 1 and len(sent) > 1000:
        sent, statuses = HEALTH * 10, [200] * 10
    with connected(server.url) as raw:
        for at in range(0, len(sent), cut or len(sent)):
            try:
                raw.sendall(sent[at : at + (cut or len(sent))])
            except OSError:  # it closed before it had heard all
                assert name in CLOSED
                break
        assert [status for status, _, _ in answers(raw, len(statuses))] == statuses
        if name in CLOSED:
            assert is_closed(raw)
        else:
            raw.sendall(HEALTH)
            assert answers(raw, 1)[0][0] == 200


def test_a_head_request_gets_no_body(server: Served) -> None:  # noqa: F811
    with connected(server.url) as raw:
        raw.sendall(HEALTH.replace(b"GET", b"HEAD"))
        [(status, headers, _)] = answers(raw, 1, bodies=False)
        assert status == 405 and int(headers["content-length"]) > 0
        raw.sendall(HEALTH)
        assert answers(raw, 1)[0][0] == 200  # right behind it: no byte of a body is in between


def test_a_client_that_waits_for_leave_to_send_gets_it(server: Served) -> None:  # noqa: F811
    body = b'{"label":"asked for"}'
    head = (
        f"Authorization: Bearer {server.token}\r\nContent-Length: {len(body)}\r\nExpect: 100-continue\r\n\r\n"
    )
    with connected(server.url) as raw:
        raw.sendall(POST + head.encode())
        assert raw.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        raw.sendall(body)
        assert answers(raw, 1)[0][0] == 200
        raw.sendall(POST + b"Content-Length: 3\r\nExpect: 100-continue\r\n\r\n")
        assert answers(raw, 1)[0][0] == 401  # not asked to send what nobody reads


@pytest.mark.parametrize(
    ("head", "status", "code"),
    [
        (b"GET /" + b"a" * (MAX_UNPARSED + 10), 414, "target_too_long"),
        (b"GET / HTTP/1.1\r\nHost: t\r\nX: " + b"a" * MAX_UNPARSED, 431, "headers_too_large"),
        (b"GET / HTTP/1.1\r\nHost: t\r\n" + b"X: a\r\n" * (MAX_UNPARSED // 6), 431, "headers_too_large"),
        (b"\r\n" * (MAX_UNPARSED // 2 + 4), 431, "headers_too_large"),
    ],
)
def test_a_head_that_does_not_end_is_refused_at_its_bound(
    server: Served,  # noqa: F811
    head: bytes,
    status: int,
    code: str,
) -> None:
    with connected(server.url) as raw:
        raw.sendall(head)
        [(found, _, body)] = answers(raw, 1)
        assert found == status and json.loads(body)["error"]["code"] == code
        assert is_closed(raw)


@pytest.mark.parametrize("more", [b"3;", b"0\r\nX: "], ids=["a chunk's size", "a trailer"])
def test_what_lies_around_a_body_does_not_go_on_for_ever(server: Served, more: bytes) -> None:  # noqa: F811
    with connected(server.url) as raw:
        raw.sendall(CHUNKED)
        assert answers(raw, 1)[0][0] == 401
        raw.sendall(more + b"a" * MAX_UNPARSED)
        assert is_closed(raw)  # without a second answer to the same request


def test_a_whole_head_beyond_the_bounds_is_refused_and_the_connection_lives(server: Served) -> None:  # noqa: F811
    with connected(server.url) as raw:
        raw.sendall(with_fields(b"X: " + b"a" * MAX_HEADERS))
        raw.sendall(b"GET /" + b"a" * MAX_TARGET + b" HTTP/1.1\r\nHost: t\r\n\r\n" + HEALTH)
        assert [status for status, _, _ in answers(raw, 3)] == [431, 414, 200]


def test_where_uvloop_is_not_asyncio_serves_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)
    assert (event_loop(), backlog("asyncio", shared=True)) == ("asyncio", 1)
    workspace, _ = Workspace.init(tmp_path / "data")
    with workspace, running(workspace, Settings(port=0, log_level="error")) as url, connected(url) as raw:
        raw.sendall(HEALTH * 3 + b"nonsense\r\n\r\n")
        assert [status for status, _, _ in answers(raw, 4)] == [200, 200, 200, 400]
        assert is_closed(raw)


def test_with_uvloop_the_queue_that_processes_share_stays_long() -> None:
    assert event_loop() == "uvloop"
    assert backlog("uvloop", shared=True) == backlog("asyncio", shared=False) == QUEUE


# -- without a socket: what is held, and what an application's answers become ---------------------------------------


class Wire(asyncio.Transport):
    """A transport that notes what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.closed = self.paused = False

    def write(self, data: Any) -> None:
        assert not self.closed
        self.written.append(bytes(data))

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False


def spoken(app: Any, sent: Sequence[bytes]) -> tuple[Wire, Http1]:
    """What a connection writes when it hears this, and what became of it."""

    async def run() -> tuple[Wire, Http1]:
        config = uvicorn.Config(app, http=Http1, lifespan="off", log_config=None)
        connection = Http1(config, ServerState(), {})
        wire = Wire()
        connection.connection_made(wire)
        for piece in sent:
            connection.data_received(piece)
        while connection.tasks and not all(task.done() for task in connection.tasks):
            await asyncio.sleep(0)
        connection._unset_keepalive_if_required()
        return wire, connection

    return asyncio.run(run())


def test_of_many_requests_sent_at_once_one_is_taken_apart() -> None:
    seen: list[list[tuple[bytes, bytes]]] = []

    async def waits(scope: Any, receive: Any, send: Any) -> None:
        seen.append(list(scope["headers"]))

    wire, connection = spoken(waits, [HEALTH * 1000])
    assert len(seen) == 1 and wire.paused
    assert len(connection._rest) == 999 * len(HEALTH)
    assert not connection.pipeline


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_each_body_arrives_whole_however_the_requests_before_it_were_cut_and_answered(
    data: st.DataObject,
) -> None:
    """Bodies with a length and in chunks, read whole or answered unread, in pieces of any size."""
    bodies = data.draw(
        st.lists(st.binary(max_size=40).map(lambda some: some * 7 + b"\r\n\r\n"), min_size=1, max_size=4)
    )
    unread, stream = data.draw(st.sets(st.integers(0, 3))), b""
    for body in bodies:
        if data.draw(st.booleans()):
            stream += POST + b"Content-Length: %d\r\n\r\n" % len(body) + body
        else:
            cut = data.draw(st.integers(1, len(body)))
            stream += CHUNKED
            for part in (body[:cut], body[cut:]):
                stream += b"%x\r\n%b\r\n" % (len(part), part) if part else b""
            stream += b"0\r\n\r\n"
    places = sorted(data.draw(st.sets(st.integers(1, len(stream) - 1), max_size=6)))
    pieces = [stream[a:b] for a, b in zip([0, *places], [*places, len(stream)], strict=True)]
    seen: list[bytes | None] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        number, more, body = len(seen), True, b""
        seen.append(None)
        while more and number not in unread:
            message = await receive()
            body, more = body + message["body"], message["more_body"]
            seen[number] = body
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body"})

    async def run() -> None:
        connection = Http1(
            uvicorn.Config(app, http=Http1, lifespan="off", log_config=None), ServerState(), {}
        )
        connection.connection_made(Wire())
        for piece in [*pieces, b""]:
            connection.data_received(piece)
            while connection.tasks and not all(task.done() for task in connection.tasks):
                before = len(seen), sum(map(len, filter(None, seen)))
                for _ in range(10):
                    await asyncio.sleep(0)
                if before == (len(seen), sum(map(len, filter(None, seen)))):
                    break  # it waits for more bytes
        for task in connection.tasks:
            task.cancel()
        connection._unset_keepalive_if_required()

    asyncio.run(run())
    assert seen == [None if number in unread else body for number, body in enumerate(bodies)]


def test_a_trailer_is_no_part_of_the_head() -> None:
    seen: list[list[tuple[bytes, bytes]]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(list(scope["headers"]))

    spoken(app, [CHUNKED + b"3\r\nabc\r\n0\r\nAuthorization: Bearer x\r\n\r\n"])
    assert seen == [[(b"host", b"t"), (b"transfer-encoding", b"chunked")]]


def _answering(headers: list[tuple[bytes, bytes]], *pieces: bytes) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for piece in pieces[:-1]:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": pieces[-1]})

    return app


def test_an_answer_whose_length_is_known_is_written_at_once() -> None:
    wire, _ = spoken(_answering([(b"content-length", b"2")], b"ab"), [HEALTH])
    assert wire.written == [b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nab"]


def test_a_stream_is_in_chunks_for_http_1_1_and_ends_with_its_connection_for_1_0() -> None:
    app = _answering([(b"x", b"y")], b"ab", b"c", b"")
    wire, _ = spoken(app, [HEALTH])
    assert wire.written[0] == b"HTTP/1.1 200 OK\r\nx: y\r\ntransfer-encoding: chunked\r\n\r\n"
    assert b"".join(wire.written[1:]) == b"2\r\nab\r\n1\r\nc\r\n0\r\n\r\n" and not wire.closed
    wire, _ = spoken(app, [HEALTH.replace(b"1.1", b"1.0")])
    assert (
        b"".join(wire.written) == b"HTTP/1.1 200 OK\r\nx: y\r\nconnection: close\r\n\r\nabc" and wire.closed
    )


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ([(b"x", b"y\r\nset: z")], b""),
        ([(b"x\n", b"y")], b""),
        ([(b"content-length", b"2")], b"abc"),
        ([(b"content-length", b"2")], b"a"),
    ],
)
def test_an_answer_that_would_not_be_http_is_not_sent(
    headers: list[tuple[bytes, bytes]], body: bytes
) -> None:
    wire, _ = spoken(_answering(headers, body), [HEALTH])
    written = b"".join(wire.written)
    assert b"set: z" not in written and b"x\n" not in written and not written.startswith(b"HTTP/1.1 200")


def test_nothing_is_asked_of_a_connection_that_is_closing() -> None:
    async def run() -> None:
        wire = Wire()
        wire.close()
        given: dict[str, Any] = dict.fromkeys(
            (
                "scope",
                "logger",
                "access_logger",
                "access_log",
                "default_headers",
                "message_event",
                "on_response",
            )
        )
        flow: Any = type("Flow", (), {"write_paused": False})()
        one = Exchange(transport=wire, flow=flow, expect_100_continue=True, keep_alive=True, **given)
        await one.send({"type": "http.response.start", "status": 200, "headers": []})
        assert cast("Any", await one.receive())["type"] == "http.disconnect"

    asyncio.run(run())
