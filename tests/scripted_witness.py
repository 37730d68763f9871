"""A witness on the loopback, written from the C2SP texts `tlog-witness` and `tlog-cosignature`; and how it misbehaves.

It keeps the largest checkpoint that it has cosigned, and checks what it is sent with `c2sp_verifier`. `script` names
what it does instead, one word a request; when the script is over it behaves.
"""

from __future__ import annotations

import threading
import time
from base64 import b64decode, b64encode
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import c2sp_verifier
from c2sp_verifier import Bad, Head, Key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

NAME = "witness.example/w1"


class Witness:
    """One witness of one log."""

    def __init__(self, seed: bytes = bytes(range(32)), name: str = NAME) -> None:
        self.secret = Ed25519PrivateKey.from_private_bytes(seed)
        self.key = Key(name, 4, self.secret.public_key().public_bytes_raw())
        self.log: Key | None = None
        self.head: Head | None = None
        self.now = int(time.time())
        self.script: list[str] = []
        self.bodies: list[bytes] = []
        self.released = threading.Event()
        self.cosigned = threading.Event()
        self.url = ""

    @property
    def vkey(self) -> str:
        """The verifier key, as settings take it."""
        return f"{self.key.name}+{self.key.id.hex()}+{b64encode(bytes([4]) + self.key.public).decode()}"

    def sign(self, text: bytes, time: int) -> bytes:
        """A signature line over a checkpoint's text."""
        signature = self.secret.sign(b"cosignature/v1\ntime %d\n" % time + text)
        raw = self.key.id + time.to_bytes(8, "big") + signature
        return f"— {self.key.name} {b64encode(raw).decode()}\n".encode()

    def answer(self, body: bytes) -> tuple[int, str, bytes]:
        """(status, content type, body), by the text."""
        head, _, note = body.partition(b"\n\n")
        old, *lines = head.decode().split("\n")
        text = note.rpartition(b"\n\n")[0] + b"\n"
        size = int(old.removeprefix("old "))
        if self.log is None or text.split(b"\n")[0] != self.log.name.encode():
            return 404, "text/plain", b"unknown log\n"
        try:
            new = c2sp_verifier.checkpoint(note, self.log)
        except Bad:
            return 403, "text/plain", b"unknown key\n"
        if size > new.size:
            return 400, "text/plain", b"old is larger\n"
        known = self.head.size if self.head else 0
        if size != known:
            return 409, "text/x.tlog.size", b"%d\n" % known
        if self.head is not None:
            if self.head.size == new.size and self.head.root != new.root:
                return 409, "text/x.tlog.size", b"%d\n" % known
            try:
                c2sp_verifier.check_consistency(self.head, new, [b64decode(line) for line in lines])
            except Bad:
                return 422, "text/plain", b"no proof\n"
        elif lines:
            return 422, "text/plain", b"a proof from nothing\n"
        self.head = new
        return 200, "text/plain", self.sign(text, self.now)

    def misbehave(self, how: str, body: bytes) -> tuple[int, str, bytes]:
        """What a witness does that refuses or lies."""
        text = body.partition(b"\n\n")[2].rpartition(b"\n\n")[0] + b"\n"
        lines = {
            "another text": self.sign(text.replace(b"\n", b"\n1", 1), self.now),
            "another key": Witness(bytes(32)).sign(text, self.now),
            "another witness": Witness(bytes(32), "witness.example/w2").sign(text, self.now),
            "the future": self.sign(text, self.now + 86_400),
            "nothing": b"",
            "noise": b"\xff\xfe noise\n",
            "too much": b"x" * 200_000,
        }
        if how in lines:
            return 200, "text/plain", lines[how]
        if how.startswith("409 "):
            return 409, "text/x.tlog.size", how.removeprefix("409 ").encode() + b"\n"
        return int(how), "text/plain", b"no\n"


@contextmanager
def serving(witness: Witness) -> Iterator[Witness]:
    """The witness at `witness.url` while the body runs."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            witness.bodies.append(body)
            how = witness.script.pop(0) if witness.script else ""
            if how == "hang":
                witness.released.wait()
                return
            if how == "drip":
                self.wfile.write(b"HTTP/1.1 200 OK\r\n")
                while not witness.released.wait(0.02):
                    self.wfile.write(b"X-More: 1\r\n")
                return
            if how == "hang up":
                return
            status, kind, content = witness.misbehave(how, body) if how else witness.answer(body)
            if self.path != "/prefix/add-checkpoint":
                status = 404
            self.send_response(status)
            if status == 307:
                self.send_header("location", "http://127.0.0.1:1/elsewhere")
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
            if status == 200:
                witness.cosigned.set()

        def log_message(self, *_: object) -> None:
            pass

        def handle(self) -> None:
            with suppress(OSError):  # the other side cuts a call that hangs
                super().handle()

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        witness.url = f"http://127.0.0.1:{server.server_port}/prefix"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield witness
        finally:
            witness.released.set()
            server.shutdown()
            thread.join()
