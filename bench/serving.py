"""Our own server as a process of its own, started as an operator starts it: `tallystone serve`."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from bench.load import Target, Unreachable
from bench.scripts import first_answer

STARTING = 60.0
"""Seconds that a server may take to its first answer."""
_POLL = 0.005


def free_port() -> int:
    """A port of the loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Server:
    """A server under way. `first` is how many seconds passed from the start of its process to its first answer."""

    def __init__(self, command: Sequence[str], port: int, token: str) -> None:
        self.url = f"http://127.0.0.1:{port}"
        began = time.perf_counter()
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 -- open for as long as the server runs
        self._process = subprocess.Popen(
            command, env=_environment(), stdin=subprocess.DEVNULL, stderr=self._said
        )
        self.pid = self._process.pid
        try:
            self._wait(Target(self.url, token), port, began)
        except BaseException:
            self.stop()
            raise
        self.first = time.perf_counter() - began

    def _wait(self, target: Target, port: int, began: float) -> None:
        while True:
            reply = first_answer(target) if _listens(port) else None
            if reply is not None and reply.ok:
                return
            if self._process.poll() is not None:
                raise Unreachable(f"the server ended with {self._process.returncode}: {self.said()}")
            if time.perf_counter() - began > STARTING:
                raise Unreachable(f"no answer in {STARTING:.0f} s: {reply}")
            time.sleep(_POLL)  # the time to the first answer is what is measured: nothing tells of it sooner

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def said(self) -> str:
        """What it wrote to stderr, the last of it."""
        self._said.seek(0)
        return self._said.read()[-2000:].decode(errors="replace").strip()

    def stop(self) -> None:
        """End it gracefully."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._said.close()


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def new_workspace(folder: Path, store: str | None = None) -> str:
    """A workspace on SQLite, or in the empty database with this URL; its first user's token. Raises `Unreachable`."""
    command = [sys.executable, "-m", "tallystone.cli", "init", str(folder / "data")]
    command += ["--kit", str(folder / "kit.txt"), *(["--store", store] if store else [])]
    made = subprocess.run(
        command, env=_environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    if made.returncode:
        raise Unreachable(f"tallystone init failed: {made.stderr.strip()}")
    return made.stdout.strip()


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("TALLYSTONE_")}


def ours(data: str | Path, token: str, workers: int = 1, more: Sequence[str] = ()) -> Server:
    """`tallystone serve` on this data, with these further options."""
    port = free_port()
    command = [sys.executable, "-m", "tallystone.cli", "serve", "--data", str(data), "--port", str(port)]
    command += ["--log-level", "error", "--check-every", "0", *more]
    if workers > 1:
        command += ["--workers", str(workers)]
    return Server(command, port, token)
