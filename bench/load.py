"""A load generator: each connection sends the next request when it has the answer to the last.

Plain sockets, one `select` loop a process, no HTTP library, so that what is measured is the server. What the generator
takes itself, 0.1 to 0.3 ms of processor time a request with the kernel's part, is measured too (`Played.cpu`). A script
is a generator: it yields requests, is sent their answers, and goes round until the time is over or it returns.
"""

from __future__ import annotations

import multiprocessing
import selectors
import socket
import statistics
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any, NamedTuple
from urllib.parse import urlsplit

PATIENCE = 60.0
"""Seconds to wait for an answer before the server is given up."""
_CHUNK = 1 << 18


class Ask(NamedTuple):
    """One request. `name` is what its latency is counted as."""

    name: str
    method: str
    path: str
    body: bytes = b""


class Reply(NamedTuple):
    """Its answer."""

    status: int
    body: bytes

    @property
    def ok(self) -> bool:
        """Whether it is a 2xx."""
        return 200 <= self.status < 300


Script = Generator[Ask, Reply, None]


class Unreachable(Exception):
    """The server cannot be reached, or does not answer."""


@dataclass
class Played:
    """What came of a run. `took` holds the seconds of each answer with 2xx in the time that counts, by its request;
    `others` counts answers with another status, by name and status."""

    seconds: float = 0.0
    took: dict[str, list[float]] = field(default_factory=dict)
    others: Counter[tuple[str, int]] = field(default_factory=Counter)
    answered: int = 0
    """All answers, before and after the time that counts too: for the cost of each."""
    cpu: float = 0.0
    """Seconds of processor time of the generator."""
    refusal: str = ""
    """The beginning of the first answer that was no 2xx."""

    def add(self, other: Played) -> None:
        """Take in what another process measured at the same time."""
        self.seconds = max(self.seconds, other.seconds)
        for name, took in other.took.items():
            self.took.setdefault(name, []).extend(took)
        self.others.update(other.others)
        self.answered += other.answered
        self.cpu += other.cpu
        self.refusal = self.refusal or other.refusal

    def rate(self, name: str) -> float:
        """Answers with 2xx a second."""
        return len(self.took.get(name, ())) / self.seconds

    def percentile(self, name: str, percent: float) -> float:
        """Milliseconds within which so many of a hundred were answered; 0 if none was."""
        took = sorted(self.took.get(name, ()))
        return took[min(len(took) - 1, int(len(took) * percent / 100))] * 1000 if took else 0.0

    def median(self, name: str) -> float:
        """Milliseconds."""
        took = self.took.get(name)
        return statistics.median(took) * 1000 if took else 0.0


class Target:
    """Where requests go, and as whom."""

    def __init__(self, url: str, token: str = "") -> None:
        place = urlsplit(url)
        if place.scheme != "http" or place.hostname is None:
            raise Unreachable(f"{url} is no http:// address: measure on one machine, without TLS in between")
        self.address = (place.hostname, place.port or 80)
        self.prefix = place.path.rstrip("/")
        bearer = f"authorization: Bearer {token}\r\n" if token else ""
        self._head = f" HTTP/1.1\r\nhost: {place.netloc}\r\naccept: application/json\r\n{bearer}"

    def request(self, ask: Ask) -> bytes:
        """The bytes of a request."""
        line = f"{ask.method} {self.prefix}{ask.path}{self._head}"
        if ask.method == "GET":
            return f"{line}\r\n".encode()
        return (
            f"{line}content-type: application/json\r\ncontent-length: {len(ask.body)}\r\n\r\n".encode()
            + ask.body
        )

    def connect(self) -> socket.socket:
        """A new connection. Raises `OSError`."""
        connection = socket.create_connection(self.address, timeout=PATIENCE)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.settimeout(None)
        return connection


class _Line:
    """One connection and its script."""

    __slots__ = ("_received", "_script", "_target", "name", "sent", "socket")

    def __init__(self, target: Target, script: Script) -> None:
        self._target, self._script, self._received = target, script, b""
        self.socket = target.connect()
        self.name, self.sent = "", 0.0

    def begin(self) -> bool:
        """Send the first request; False if there is none."""
        return self._send(next(self._script, None))

    def go_on(self, reply: Reply) -> bool:
        """Give the script its answer and send what it asks next; False if it is done."""
        try:
            return self._send(self._script.send(reply))
        except StopIteration:
            return False

    def _send(self, ask: Ask | None) -> bool:
        if ask is None:
            return False
        self.name, self.sent = ask.name, time.perf_counter()
        self.socket.sendall(self._target.request(ask))
        return True

    def receive(self) -> Reply | None:
        """The answer, if it is whole by now. Raises `Unreachable` if the server hung up."""
        data = self.socket.recv(_CHUNK)
        if not data:
            raise Unreachable("the server closed a connection before its answer was whole")
        self._received = self._received + data if self._received else data
        found = parse(self._received)
        if found is None:
            return None
        reply, self._received, closes = found
        if closes:
            self.socket.close()
        return reply

    def again(self) -> None:
        """Connect once more, if the server let the connection end with its answer."""
        if self.socket.fileno() < 0:
            self.socket = self._target.connect()


def parse(data: bytes) -> tuple[Reply, bytes, bool] | None:
    """The first answer in `data`, what follows it, and whether the connection ends with it; None if it is not whole."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None
    head, start = data[:end].lower(), end + 4
    status, closes = int(head[9:12]), b"\r\nconnection: close" in head
    at = head.find(b"\r\ncontent-length:")
    if at >= 0:
        stop = start + int(head[at + 17 :].split(b"\r\n", 1)[0])
        return (Reply(status, data[start:stop]), data[stop:], closes) if len(data) >= stop else None
    if b"\r\ntransfer-encoding: chunked" not in head:
        return Reply(status, b""), data[start:], closes
    parts = []
    while True:
        line = data.find(b"\r\n", start)
        if line < 0:
            return None
        size, start = int(data[start:line].split(b";")[0], 16), line + 2
        if len(data) < start + size + 2:
            return None
        parts.append(data[start : start + size])
        start += size + 2
        if size == 0:
            return Reply(status, b"".join(parts)), data[start:], closes


def play(
    target: Target, scripts: Iterable[Script], seconds: float | None = None, warm: float = 0.0
) -> Played:
    """Run each script on a connection of its own, for `seconds` after `warm` seconds that do not count, and until there
    are two answers for each connection; without `seconds`, until all have returned. Raises `Unreachable`."""
    played, busy = Played(), time.process_time()
    chosen = selectors.DefaultSelector()
    lines: list[_Line] = []
    try:
        for script in scripts:
            lines.append(_Line(target, script))
        began = time.perf_counter() + warm
        until = began + seconds if seconds is not None else float("inf")
        under_way, counted, ended = 0, 0, 0.0
        for line in lines:
            if line.begin():
                chosen.register(line.socket, selectors.EVENT_READ, line)
                under_way += 1
        while under_way:
            ready = chosen.select(PATIENCE)
            if not ready:
                raise Unreachable(f"no answer within {PATIENCE:.0f} seconds")
            for key, _ in ready:
                line = key.data
                reply = line.receive()
                if reply is None:
                    continue
                now = time.perf_counter()
                counts = now >= began and not ended
                _count(played, line, reply, now, counts)
                counted += counts
                if not ended and now >= until and counted >= 2 * len(lines):
                    ended = now  # a slow server gets the time for two answers to each connection
                if line.socket.fileno() < 0:
                    chosen.unregister(key.fileobj)
                    line.again()
                    chosen.register(line.socket, selectors.EVENT_READ, line)
                if ended or not line.go_on(reply):
                    chosen.unregister(line.socket)
                    under_way -= 1
        played.seconds = (ended or time.perf_counter()) - began
    except OSError as error:
        raise Unreachable(f"{target.address[0]}:{target.address[1]}: {error.strerror or error}") from None
    finally:
        chosen.close()
        for line in lines:
            line.socket.close()
    played.cpu = time.process_time() - busy
    return played


def _count(played: Played, line: _Line, reply: Reply, now: float, counts: bool) -> None:
    played.answered += 1
    if not reply.ok:
        played.refusal = played.refusal or f"{reply.status} {reply.body[:300].decode(errors='replace')}"
    if counts and reply.ok:
        played.took.setdefault(line.name, []).append(now - line.sent)
    elif counts:
        played.others[line.name, reply.status] += 1


@dataclass(frozen=True)
class Load:
    """What a generator process is told to do. `make(number)` is the script of that connection."""

    url: str
    token: str
    make: Callable[[int], Script]
    seconds: float
    warm: float


class Generators:
    """Processes that send requests, kept for a whole suite."""

    def __init__(self, count: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipes: list[Connection] = []
        self._processes = []
        for _ in range(count):
            ours, theirs = context.Pipe()
            process = context.Process(target=_work, args=(theirs,), daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)

    def __enter__(self) -> Generators:
        return self

    def __exit__(self, *_: object) -> None:
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            process.join(10)

    def run(self, load: Load, connections: int) -> Played:
        """The load on so many connections, shared out among the processes. Raises `Unreachable`."""
        used = self._pipes[: min(len(self._pipes), connections)]
        for place, pipe in enumerate(used):
            pipe.send((load, list(range(place, connections, len(used)))))
        answers: list[Any] = [pipe.recv() for pipe in used]
        whole = Played()
        for answer in answers:
            if isinstance(answer, Unreachable):
                raise answer
            whole.add(answer)
        return whole


def _work(pipe: Connection) -> None:
    while True:
        try:
            load, numbers = pipe.recv()
        except EOFError:
            return
        try:
            target = Target(load.url, load.token)
            pipe.send(play(target, [load.make(number) for number in numbers], load.seconds, load.warm))
        except Unreachable as error:
            pipe.send(error)
