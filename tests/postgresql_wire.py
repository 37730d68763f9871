"""A wire to the PostgreSQL server of the tests that can be cut at a chosen moment."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from urllib.parse import parse_qs, urlsplit

BEFORE, AFTER = "before", "after"


class Wire:
    """Forwards a TCP port to the server's socket. `cut_at` says what becomes of the next bytes of a client: BEFORE,
    they never reach the server; AFTER, the server answers and its answer never arrives."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._target = f"{parse_qs(parts.query)['host'][0]}/.s.PGSQL.5432"
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"postgresql://postgres@127.0.0.1:{self._listener.getsockname()[1]}{parts.path}"
        self.cut_at = ""
        self.up = True
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    def _start(self, work: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def cut(self) -> None:
        """Cut all connections there are."""
        for one in list(self._open):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Cut all, for good."""
        self.up = False
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self.cut()
        for thread in self._threads:
            thread.join(30)
        for one in (self._listener, *self._open):
            one.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                if not self.up:
                    client.close()
                    continue
                server = socket.socket(socket.AF_UNIX)
                server.connect(self._target)
                self._open += [client, server]
                for one, other, inward in ((client, server, True), (server, client, False)):
                    self._start(self._pump, one, other, inward)

    def _pump(self, one: socket.socket, other: socket.socket, inward: bool) -> None:
        with suppress(OSError):
            while chunk := one.recv(65536):
                if (inward and self.cut_at == BEFORE) or (not inward and self.cut_at == AFTER):
                    self.cut_at = ""
                    break
                other.sendall(chunk)
        for end in (one, other):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
