"""Running the application under uvicorn: a socket, signals, a graceful stop, and what goes on in the background."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from types import FrameType

import structlog
import uvicorn

from tallystone.errors import StoreError, TallystoneError
from tallystone.letta.model_layer import ModelLayer
from tallystone.server.app import App
from tallystone.server.auth import Turnstile
from tallystone.server.limits import MAX_HEADERS, MAX_TARGET
from tallystone.server.logs import configure
from tallystone.server.models import model_config
from tallystone.server.settings import Settings
from tallystone.server.witnessing import Witnessing, configured
from tallystone.vault import Workspace
from tallystone.vault.types import Backups

PURGE_SECONDS = 60
"""Seconds between removals of what has expired."""

_log = structlog.get_logger("tallystone.server")


def serve(workspace: Workspace, settings: Settings, announce: Callable[[str], None] | None = None) -> None:
    """Serve until SIGINT or SIGTERM; requests under way then get `settings.grace` seconds to finish.

    `announce` is told the URL once the socket is bound (default: printed to stderr). The caller closes the workspace.
    """
    configure(settings.log_format, settings.log_level)
    workspace.backups = Backups(settings.backup_days, settings.key_backup_days)
    with listening(settings.host, settings.port) as bound:
        url = url_of(settings.host, bound)
        (announce or _announce)(url)
        witnessing = Witnessing(workspace, configured(settings), settings.witness_wait)
        server = _assembled(workspace, settings, witnessing)
        with _background(workspace, settings.check_every), witnessing.under_way():
            server.run(sockets=[bound])


@contextmanager
def running(workspace: Workspace, settings: Settings | None = None) -> Iterator[str]:
    """The server in a thread of this process, for tests and tools; gives its URL, and stops gracefully at the end."""
    settings = settings or Settings(port=0)
    configure(settings.log_format, settings.log_level)
    with listening(settings.host, settings.port) as bound:
        witnessing = Witnessing(workspace, configured(settings), settings.witness_wait)
        server = _assembled(workspace, settings, witnessing)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
        thread.start()
        try:
            server.began.wait()
            with witnessing.under_way():
                yield url_of(settings.host, bound)
        finally:
            server.should_exit = True
            thread.join()


@contextmanager
def listening(host: str, port: int) -> Iterator[socket.socket]:
    """A listening socket. Raises `StoreError` with a hint when the address is taken or not this machine's."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        # named as TCP, or asyncio leaves Nagle's algorithm on and each answer waits 40 ms for an acknowledgement
        bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind((host, port))
            # from here on callers are kept waiting instead of refused: the URL may be told before the loop runs
            bound.listen(2048)
        except BaseException:
            bound.close()
            raise
    except OSError as error:
        raise StoreError(
            f"cannot listen on {host}:{port}: {error.strerror}",
            hint="another server may run there; choose another --port, or 0 for a free one",
            code="cannot_listen",
        ) from None
    with bound:
        yield bound


def url_of(host: str, bound: socket.socket) -> str:
    """What clients put into `base_url`."""
    port = bound.getsockname()[1]
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{shown}:{port}"


def _announce(url: str) -> None:
    print(f"Tallystone serves {url}", file=sys.stderr, flush=True)


class _Server(uvicorn.Server):
    """uvicorn's server, which after a signal stops and returns, instead of raising the signal once more."""

    def __init__(self, config: uvicorn.Config, app: App) -> None:
        super().__init__(config)
        self._app = app
        self.began = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and say so."""
        await super().startup(sockets)
        self.began.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop, and close what the application has open."""
        self._app.hush()
        await super().shutdown(sockets)
        await self._app.close()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Stop on SIGINT and SIGTERM; only the main thread may listen for signals."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._app.ready = False  # whoever balances load sees it while requests under way finish
        self.handle_exit(number, frame)


def _assembled(workspace: Workspace, settings: Settings, witnessing: Witnessing) -> _Server:
    app = App(
        workspace,
        max_body=settings.max_body,
        threads=settings.threads,
        turnstile=Turnstile(settings.refusals, 4 * settings.refusals),
        models=ModelLayer(model_config(settings, os.environ)),
        listeners=settings.listeners,
        listeners_each=settings.listeners_each,
        log_public=settings.log_public,
        logged=witnessing.wake,
        ask_seconds=settings.reply_wait,
    )
    config = uvicorn.Config(
        app,
        http="h11",
        ws="none",
        loop="asyncio",
        interface="asgi3",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        h11_max_incomplete_event_size=2 * (MAX_HEADERS + MAX_TARGET),
        timeout_graceful_shutdown=settings.grace,
        timeout_keep_alive=75,
    )
    return _Server(config, app)


@contextmanager
def _background(workspace: Workspace, check_every: int) -> Iterator[None]:
    """Check the log at the start and every now and then, and purge what has expired, in a thread beside the server."""
    stop = threading.Event()

    def work() -> None:
        check(workspace)  # first: what a purge removes, no later check can look at
        purge(workspace)
        waited = 0
        while not stop.wait(PURGE_SECONDS):
            waited += PURGE_SECONDS
            purge(workspace)
            if check_every and waited >= check_every:
                waited = 0
                check(workspace)

    thread = threading.Thread(target=work, name="tallystone-check", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        # a check of a large log may take long; it reads only, so the process may end while it runs
        thread.join(timeout=1)


def purge(workspace: Workspace) -> None:
    """Remove what has ended. A failure is logged, and made up for by the next purge."""
    try:
        workspace.purge()
    except TallystoneError as error:
        _log.error("purge failed", code=error.code, error=error.message)


def check(workspace: Workspace) -> bool:
    """Verify the log against the rows, and log the outcome. Names tables and places, never contents."""
    try:
        report = workspace.verify()
    except TallystoneError as error:
        _log.error("log check failed", code=error.code, error=error.message)
        return False
    for finding in report.findings[:20]:
        _log.error("log check", where=finding.where, what=finding.what)
    _log.info("log check done", leaves=report.leaves, rows=report.rows, findings=len(report.findings))
    return not report.findings
