"""Another HTTP server under the same application: granian, whose protocol handling is written in Rust. Needs the extra
`granian`.

It accepts from the socket that it is given, as uvicorn does, so several processes can share one. What it has no option
for (how many connections there are, how long a client may leave its answer unread) is not bounded here.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from typing import TYPE_CHECKING, Any

from tallystone.errors import Invalid
from tallystone.server.app import App
from tallystone.server.connections import HEAD_SECONDS, QUEUE, allow_files, event_loop

if TYPE_CHECKING:
    from tallystone.server.settings import Settings

CLOSING_SECONDS = 5
"""Seconds beyond the grace of requests that granian gets to end its connections in."""


def check() -> None:
    """Raises `Invalid` if the library is not installed."""
    try:
        import granian.server.embed  # noqa: F401  # whether it is there is all that is asked
    except ModuleNotFoundError:
        raise Invalid("http = granian needs granian", hint="pip install 'tallystone[granian]'") from None


def serve(app: App, settings: Settings, bound: socket.socket, lifeline: int | None = None) -> None:
    """Serve until SIGINT or SIGTERM, or until `lifeline` can be read; see `server.run`."""
    logging.getLogger("_granian").setLevel(logging.CRITICAL)  # its lines may quote what a client sent
    allow_files(settings.connections + settings.listeners + 512)
    with asyncio.Runner(loop_factory=_new_loop) as runner:
        runner.run(_serve(app, settings, bound, lifeline))


def _new_loop() -> asyncio.AbstractEventLoop:
    if event_loop() == "asyncio":
        return asyncio.new_event_loop()
    import uvloop

    return uvloop.new_event_loop()


async def _serve(app: App, settings: Settings, bound: socket.socket, lifeline: int | None) -> None:
    server = _server(app, settings, bound)
    loop, stopping = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    if lifeline is not None:
        loop.add_reader(lifeline, stopping.set)
    serving = asyncio.ensure_future(server.serve())
    noting = asyncio.ensure_future(_note(app))
    try:
        await asyncio.wait(
            {serving, asyncio.ensure_future(stopping.wait())}, return_when=asyncio.FIRST_COMPLETED
        )
        if serving.done():
            serving.result()  # it ended without being asked to: raises why
        app.ready = False
        app.hush()
        server.stop()
        await asyncio.wait({serving}, timeout=settings.grace + CLOSING_SECONDS)
    finally:
        if lifeline is not None:
            loop.remove_reader(lifeline)
        noting.cancel()
        serving.cancel()
        await app.close()


async def _note(app: App) -> None:
    while True:
        app.note()
        await asyncio.sleep(1)


def _server(app: App, settings: Settings, bound: socket.socket) -> Any:
    """granian's server that runs on a loop of ours, on our socket."""
    from granian import net
    from granian.constants import HTTPModes, Interfaces, SSLProtocols
    from granian.http import HTTP1Settings
    from granian.server.embed import Server

    # Its types leave out that it is there, and how it is made: descriptor, is it a path, queue.
    holder: Any = vars(net)["SocketHolder"]

    class OnOurSocket(Server):
        def _init_shared_socket(self) -> None:
            self.__dict__.update(_ssp=None, _shd=holder(os.dup(bound.fileno()), False, QUEUE))

    oldest = SSLProtocols.tls13 if settings.tls_min == "1.3" else SSLProtocols.tls12
    return OnOurSocket(
        app,
        interface=Interfaces.ASGINL,
        http=HTTPModes.http1,
        http1_settings=HTTP1Settings(header_read_timeout=int(HEAD_SECONDS * 1000)),
        websockets=False,
        log_enabled=False,
        backpressure=settings.connections,
        ssl_cert=settings.tls_cert,
        ssl_key=settings.tls_key or settings.tls_cert,
        ssl_protocol_min=oldest,
    )
