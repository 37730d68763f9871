"""Running the application under uvicorn: a socket, signals, a graceful stop, and what goes on in the background."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType

import structlog
import uvicorn

from tallystone.errors import StoreError
from tallystone.letta.model_layer import ModelLayer
from tallystone.server import allocator, http_granian
from tallystone.server.app import App
from tallystone.server.auth import Turnstile
from tallystone.server.connections import QUEUE, Sweep, allow_files, backlog, bounded, event_loop
from tallystone.server.duty import housekeeping, on_duty
from tallystone.server.logs import configure
from tallystone.server.metrics import Metrics, Readers, prepare
from tallystone.server.models import model_config
from tallystone.server.rates import Buckets
from tallystone.server.senders import networks
from tallystone.server.settings import Settings
from tallystone.server.status import Status
from tallystone.server.tls import Certificate, certificate
from tallystone.server.traces import Traces
from tallystone.server.witnessing import POLL, TOGETHER, Witnessing, configured
from tallystone.server.workers import Inherited, Workers
from tallystone.vault import Workspace
from tallystone.vault.types import Backups

_TICKS = 10  # of uvicorn's main loop, a second
_log = structlog.get_logger("tallystone.server")


@dataclass(frozen=True)
class Worker:
    """Which of several processes this is, how many had its number before, what it reads when it is left alone, and when
    the first of all began."""

    number: int
    starts: int
    lifeline: int
    since: float


def serve(workspace: Workspace, settings: Settings, announce: Callable[[str], None] | None = None) -> None:
    """Serve until SIGINT or SIGTERM; requests under way then get `settings.grace` seconds to finish.

    `announce` is told the URL once the socket is bound (default: printed to stderr). The caller closes the workspace.
    """
    configure(settings.log_format, settings.log_level)
    allocator.settle()
    with listening(settings.host, settings.port) as bound:
        (announce or _announce)(url_of(settings.host, bound, settings.scheme))
        _serve_on(workspace, settings, bound)


def serve_many(
    opened: Callable[[], Workspace], settings: Settings, announce: Callable[[str], None] | None = None
) -> None:
    """Serve with `settings.workers` processes, each of which opens the workspace for itself. See `serve`.

    Nothing of the workspace may be open here: what is forked is a process without a store, threads or keys.
    """
    configure(settings.log_format, settings.log_level)
    allocator.settle()
    # what is wrong with the settings is said once, and not by each process again and again
    configured(settings)
    certificate(settings)
    Readers(settings)
    if settings.http == "granian":
        http_granian.check()
    since = time.time()
    with listening(settings.host, settings.port) as bound:
        (announce or _announce)(url_of(settings.host, bound, settings.scheme))

        def work(number: int, starts: int, lifeline: int) -> None:
            configure(settings.log_format, settings.log_level, worker=number)
            with opened() as workspace, Inherited(fileno=os.dup(bound.fileno())) as mine:
                _serve_on(workspace, settings, mine, Worker(number, starts, lifeline, since))

        with TemporaryDirectory(prefix="tallystone-metrics-") as folder:
            if settings.metrics != "off":
                prepare(Path(folder))
            Workers(settings.workers, work, grace=settings.grace).run()


def _serve_on(
    workspace: Workspace, settings: Settings, bound: socket.socket, worker: Worker | None = None
) -> None:
    workspace.backups = Backups(settings.backup_days, settings.key_backup_days)
    status = Status(workspace.folder)
    workspace.log.asked = status.witnesses
    # Another process may write, and cannot wake us: then the log's head is looked at as often as witnesses are asked.
    witnessing = Witnessing(
        workspace, configured(settings), TOGETHER if worker is not None else POLL, settings.witness_wait
    )
    app = _application(workspace, settings, witnessing, status, worker)
    lifeline = None if worker is None else worker.lifeline
    if settings.http == "granian":
        http_granian.check()

    @contextmanager
    def jobs() -> Iterator[None]:
        status.begin()
        since = None if worker is None else worker.since
        with housekeeping(workspace, status, settings.check_every, since), witnessing.under_way():
            yield

    allocator.look_less()
    with witnessing.answering(), on_duty(workspace.folder, jobs):
        if settings.http == "granian":
            http_granian.serve(app, settings, bound, lifeline)
        else:
            _uvicorn(app, settings, lifeline).run(sockets=[bound])


@contextmanager
def running(workspace: Workspace, settings: Settings | None = None) -> Iterator[str]:
    """The server in a thread of this process, for tests and tools; gives its URL, and stops gracefully at the end."""
    settings = settings or Settings(port=0)
    configure(settings.log_format, settings.log_level)
    with listening(settings.host, settings.port) as bound:
        witnessing = Witnessing(workspace, configured(settings), seconds=settings.witness_wait)
        server = _uvicorn(_application(workspace, settings, witnessing, Status(workspace.folder)), settings)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
        thread.start()
        try:
            server.began.wait()
            with witnessing.answering(), witnessing.under_way():
                yield url_of(settings.host, bound, settings.scheme)
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
            bound.listen(QUEUE)
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


def url_of(host: str, bound: socket.socket, scheme: str = "http") -> str:
    """What clients put into `base_url`."""
    port = bound.getsockname()[1]
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"{scheme}://{shown}:{port}"


def _announce(url: str) -> None:
    print(f"Tallystone serves {url}", file=sys.stderr, flush=True)


class _Server(uvicorn.Server):
    """uvicorn's server, which after a signal stops and returns, instead of raising the signal once more."""

    def __init__(
        self,
        config: uvicorn.Config,
        app: App,
        tls: Certificate | None,
        lifeline: int | None,
    ) -> None:
        super().__init__(config)
        self._app, self._tls, self._lifeline = app, tls, lifeline
        self._sweep = Sweep(lambda: self.server_state.connections, time.monotonic)
        self.began = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and say so."""
        await super().startup(sockets)
        if self._lifeline is not None:
            asyncio.get_running_loop().add_reader(self._lifeline, self._left_alone)
        self.began.set()

    def _left_alone(self) -> None:
        """The process that watches over this one is gone, and nobody would replace it."""
        assert self._lifeline is not None
        asyncio.get_running_loop().remove_reader(self._lifeline)
        _log.error("the watching process is gone")
        self._stop(signal.SIGTERM, None)

    async def on_tick(self, counter: int) -> bool:
        """Called ten times a second."""
        if counter % _TICKS == 0:
            self._sweep.look()
            self._app.note(connections=len(self.server_state.connections))
        if counter and counter % (allocator.LOOK * _TICKS) == 0:  # at first, `look_less` has just looked
            allocator.look()
        if self._tls is not None and counter % (60 * _TICKS) == 0:
            self._tls.refresh()
        return await super().on_tick(counter)

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


def _application(
    workspace: Workspace,
    settings: Settings,
    witnessing: Witnessing,
    status: Status,
    worker: Worker | None = None,
) -> App:
    metrics = None
    if settings.metrics != "off":
        metrics = Metrics(workspace, status, *((worker.number, worker.starts) if worker else (None,)))
    return App(
        workspace,
        max_body=settings.max_body,
        threads=settings.threads,
        turnstile=Turnstile(settings.refusals, 4 * settings.refusals, each=settings.refusals_each),
        models=ModelLayer(model_config(settings, os.environ)),
        listeners=settings.listeners,
        listeners_each=settings.listeners_each,
        log_public=settings.log_public,
        logged=witnessing.wake,
        ask_seconds=settings.reply_wait,
        queue=settings.queue,
        rates=Buckets(settings.rate, settings.burst or 2 * settings.rate) if settings.rate else None,
        proxies=networks(settings.proxies),
        status=status,
        metrics=metrics,
        readers=Readers(settings),
        traces=Traces(workspace) if settings.traces else None,
    )


def _uvicorn(app: App, settings: Settings, lifeline: int | None = None) -> _Server:
    tls, loop = certificate(settings), event_loop()
    config = uvicorn.Config(
        app,
        http=bounded(settings.connections),
        ws="none",
        loop=loop,
        interface="asgi3",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=settings.grace,
        timeout_keep_alive=75,
        backlog=backlog(loop, shared=lifeline is not None),
        ssl_context_factory=None if tls is None else lambda *_: tls.context,
    )
    allow_files(settings.connections + settings.listeners + 512)
    return _Server(config, app, tls, lifeline)
