"""HTTP/1.1 on one connection: uvicorn's protocol over httptools, as strict and as bounded as over h11 (ADR 0042).

httptools parses in C what h11 parses in Python. What it leaves to its caller is done here: how large a head may be
while it arrives, which framings are refused, one request after the other, how a refusal looks. Source: RFC 9112.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import Any, cast
from urllib.parse import unquote

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from tallystone.server import errors
from tallystone.server.errors import Refusal
from tallystone.server.limits import MAX_HEADERS, MAX_TARGET, headers_too_large, target_too_long

MAX_UNPARSED = 2 * (MAX_HEADERS + MAX_TARGET)
"""Bytes of a head, or of what lies between two pieces of a body, that may arrive before it is at its end."""

_END = b"\r\n\r\n"
_TOGETHER = 65536
"""Bytes of a body that are copied to be sent with its head. Through TLS more is written in pieces of this size: a
transport counts as unread what TLS still holds, and TLS hands on the whole of what it gets in one piece."""
_DISCONNECT: Any = {"type": "http.disconnect"}


class Http1(HttpToolsProtocol):
    """A connection. Its requests are parsed one by one: the next when the one before has its answer."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.parser = self._new_parser()
        self._rest = b""  # has arrived, and is not parsed yet
        self._unparsed = 0  # bytes since the last head, piece of a body or message was at its end
        self._body_left = 0  # of a body whose length the head says
        self._target: list[bytes] = []
        self._over = False

    def _new_parser(self) -> httptools.HttpRequestParser:
        parser = httptools.HttpRequestParser(self)
        parser.set_dangerous_leniencies(lenient_data_after_close=False)  # uvicorn turns it on
        return parser

    # -- bytes --

    def data_received(self, data: bytes) -> None:
        """Bytes have arrived."""
        self._unset_keepalive_if_required()
        self._rest = self._rest + data if self._rest else data
        self._parse()

    def _parse(self) -> None:
        """Parse what has arrived, but nothing of a request while the one before it waits for its answer: a client that
        sends thousands at once would have them all taken apart and held."""
        rest, at = self._rest, 0
        while at < len(rest) and not self._over and not self.transport.is_closing():
            cycle = self._cycle()
            if cycle is not None and not cycle.more_body and not cycle.response_complete:
                self.flow.pause_reading()
                break
            end = at + self._body_left if self._body_left else _piece(rest, at)
            if end <= at:
                break
            at += self._feed(rest if not at and end >= len(rest) else rest[at:end])
        self._rest = b"" if self._over else rest[at:]

    def _feed(self, piece: bytes) -> int:
        """Parse a piece that holds the end of one message at most. Returns how many of its bytes are done with."""
        self._unparsed += len(piece)
        try:
            self.parser.feed_data(piece)
            if self._unparsed > MAX_UNPARSED:
                self._refuse(
                    target_too_long() if sum(map(len, self._target)) > MAX_TARGET else headers_too_large()
                )
        except httptools.HttpParserUpgrade as upgrade:
            self._stay()
            return cast("int", upgrade.args[0])
        except httptools.HttpParserError:
            self._refuse(errors.bad_request())
        return len(piece)

    def _stay(self) -> None:
        """The client asked for another protocol, which a server may overlook: the head is parsed once more without
        that. httptools would take the request's body for bytes of the other protocol."""
        version = self.parser.get_http_version().encode()
        head = [self.parser.get_method(), b" ", *self._target, b" HTTP/", version, b"\r\n"]
        for name, value in self.headers:
            if name.lower() != b"upgrade":
                head += [name, b": ", value, b"\r\n"]
        self.parser = self._new_parser()
        try:
            self.parser.feed_data(b"".join([*head, b"\r\n"]))
        except httptools.HttpParserError:
            self._refuse(errors.bad_request())

    # -- what the parser calls; what is raised here ends its work --

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        self._target, self.headers = [], []

    def on_url(self, url: bytes) -> None:
        """A piece of the target."""
        self._target.append(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A field of the head, or of a trailer, of which nothing is kept: it came after what the head has decided."""
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """A head is whole. Raises `Refusal` for what httptools takes, and another server could understand otherwise."""
        method, version = self.parser.get_method().decode("ascii"), self.parser.get_http_version()
        if version not in ("1.1", "1.0") or method == "CONNECT":
            raise errors.bad_request()
        if self.parser.should_upgrade():
            return  # see `_stay`
        headers = [(name.lower(), value.strip(b" \t")) for name, value in self.headers]
        self.headers = []
        fields = dict(headers)
        coding = fields.get(b"transfer-encoding")  # twice, or beside a length, it was refused before
        if coding is not None and (version == "1.0" or coding.lower() != b"chunked"):
            raise errors.bad_request()
        if b"host" not in fields and version == "1.1":
            raise errors.bad_request()
        if len(fields) < len(headers) and sum(name == b"host" for name, _ in headers) > 1:
            raise errors.bad_request()
        self._body_left = int(fields.get(b"content-length", 0))
        self._unparsed = 0
        raw_path, _, query = b"".join(self._target).partition(b"?")
        path = raw_path.decode("ascii")
        self.scope = {
            "type": "http",
            "asgi": {"version": self.asgi_version, "spec_version": "2.3"},
            "http_version": version,
            "server": self.server,
            "client": self.client,
            "scheme": cast("Any", self.scheme),
            "method": method,
            "root_path": "",
            "path": unquote(path) if "%" in path else path,
            "raw_path": raw_path,
            "query_string": query,
            "headers": headers,
            "state": {"arrived": time.monotonic_ns()},
        }
        self.cycle = Exchange(
            scope=self.scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=False,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=fields.get(b"expect", b"").lower() == b"100-continue",
            keep_alive=version == "1.1" and self.parser.should_keep_alive(),
            on_response=self.on_response_complete,
        )
        self._start_asgi_task(self.cycle, self.app)

    def on_body(self, body: bytes) -> None:
        """A piece of a body."""
        self._unparsed = 0
        if self._body_left:
            self._body_left -= len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """A request is whole."""
        if not self.parser.should_upgrade():
            self._unparsed = 0
            self.cycle.more_body = False
            self.cycle.message_event.set()

    # -- answers --

    def on_response_complete(self) -> None:
        """The answer to a request is written: the next one's turn, if it is there already."""
        super().on_response_complete()
        if self._rest and not self.transport.is_closing():
            self._unset_keepalive_if_required()
            self._parse()

    def _refuse(self, refusal: Refusal) -> None:
        """No request can follow on this connection: say so, unless an answer was given or begun, and close."""
        self._over = True
        cycle = self._cycle()
        if cycle is None or not (cycle.response_started and cycle.more_body):
            answer = errors.answer(refusal)
            content = answer.content()
            fields = [
                *self.server_state.default_headers,
                (b"content-type", answer.media.encode()),
                (b"content-length", b"%d" % len(content)),
                (b"cache-control", b"no-store"),
                (b"connection", b"close"),
            ]
            self.transport.write(_head(answer.status, fields) + content)
        self.transport.close()

    def _cycle(self) -> RequestResponseCycle | None:
        return self.cycle  # which uvicorn declares to be there always


class Exchange(RequestResponseCycle):
    """A request and its answer. A head whose body follows at once is written together with it."""

    _held = b""

    async def send(self, message: Any) -> None:
        """ASGI's `send`. Raises `RuntimeError` for an answer that would not be HTTP."""
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected or self.transport.is_closing():
            return
        if message["type"] == "http.response.start":
            self._start(message["status"], message["headers"])
        else:
            self._go_on(message.get("body", b""), message.get("more_body", False))

    async def receive(self) -> Any:
        """ASGI's `receive`."""
        if self.transport.is_closing():  # uvloop raises when it is to read on
            return _DISCONNECT
        return await super().receive()

    def _start(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        if self.response_started:
            raise RuntimeError("an answer was begun twice")
        self.response_started = True
        self.waiting_for_100_continue = False
        fields = [*self.default_headers, *headers]
        length, closes = None, False
        for name, value in fields:
            if name == b"content-length":
                length = int(value)
            elif name == b"connection" and value == b"close":
                self.keep_alive, closes = False, True
        bare = self.scope["method"] == "HEAD" or status in (204, 304)
        self.chunked_encoding = length is None and not bare and self.scope["http_version"] == "1.1"
        if self.chunked_encoding:
            fields.append((b"transfer-encoding", b"chunked"))
        elif length is None and not bare:
            self.keep_alive = False  # the end of the connection is the end of the body
        if not self.keep_alive and not closes:
            fields.append((b"connection", b"close"))
        self.expected_content_length = -1 if length is None else 0 if bare else length
        head = _head(status, fields)
        if length is None:
            self.transport.write(head)  # of a stream, whose first event may be long in coming
        else:
            self._held = head

    def _go_on(self, body: bytes, more: bool) -> None:
        if not self.response_started or self.response_complete:
            raise RuntimeError("a body before or after its answer")
        if self.scope["method"] == "HEAD":
            body = b""
        elif self.expected_content_length >= 0:
            self.expected_content_length -= len(body)
            if self.expected_content_length < 0 or (self.expected_content_length and not more):
                raise RuntimeError("a body that is not as long as was said")
        elif self.chunked_encoding:
            framed = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            body = framed if more else framed + b"0\r\n\r\n"
        if self._held and len(body) < _TOGETHER:
            body = self._held + body
        elif self._held:
            self.transport.write(self._held)
        self._held = b""
        if len(body) >= _TOGETHER and self.scope["scheme"] == "https":
            for at in range(0, len(body), _TOGETHER):
                self.transport.write(body[at : at + _TOGETHER])
        elif body:
            self.transport.write(body)
        if not more:
            self.response_complete = True
            self.message_event.set()
            if not self.keep_alive:
                self.transport.close()
            self.on_response()


def _piece(rest: bytes, at: int) -> int:
    """Where a piece ends that holds the end of one head, or of one body in chunks, at most: behind an empty line. A
    part of the four bytes that stands at the end waits for what follows."""
    end = rest.find(_END, at)
    if end >= 0:
        return end + len(_END)
    for part in (_END[:3], _END[:2], _END[:1]):
        if rest.endswith(part):
            return len(rest) - len(part)
    return len(rest)


def _head(status: int, fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The bytes of an answer's head. Raises `RuntimeError` if a value would begin a field of its own."""
    lines = [STATUS_LINE[status]]
    for name, value in fields:
        lines += (name, b": ", value, b"\r\n")
    head = b"".join(lines)
    breaks = 1 + len(lines) // 4
    if head.count(b"\n") != breaks or head.count(b"\r") != breaks or b"\0" in head:
        raise RuntimeError("a header of an answer holds a line's end")
    return head + b"\r\n"
