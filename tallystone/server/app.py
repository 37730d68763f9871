"""The ASGI application: one request in, one answer out.

Path, token, body, vault, route, answer, in this order. Each refusal of somebody who was never known is logged before
it is answered; what a known caller is refused, the vault logs itself.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TypeVar

from starlette.types import Receive, Scope, Send

from tallystone.errors import TallystoneError, Unauthenticated
from tallystone.letta.call import Answer, Call, Plain, Query, Retry
from tallystone.letta.later import Later, UnderWay
from tallystone.letta.model_layer import ModelLayer
from tallystone.letta.post import ASK_SECONDS, Outbox, Post
from tallystone.letta.routes import OPEN_PATHS, OPEN_POSTS, ROUTES
from tallystone.letta.routes_lists import health
from tallystone.server import errors
from tallystone.server.answering import respond
from tallystone.server.auth import Turnstile, bearer
from tallystone.server.feed import LISTENERS, LISTENERS_EACH, Pump
from tallystone.server.fibers import Fibers, Lengthy
from tallystone.server.limits import MAX_BODIES, Bodies, Gone, check_head, read_body
from tallystone.server.logs import log_crash, log_request
from tallystone.server.metrics import PATH as METRICS
from tallystone.server.metrics import Metrics, Readers
from tallystone.server.paths import Match, Paths
from tallystone.server.rates import Buckets, rate_limited
from tallystone.server.readiness import Readiness
from tallystone.server.request import Request
from tallystone.server.retries import Flights, retry_of
from tallystone.server.senders import Network, sender
from tallystone.server.status import Status
from tallystone.server.threads import Threads
from tallystone.server.traces import Traces
from tallystone.vault import Vault, Workspace
from tallystone.vault.awaiting import Owed, no_witness, owing, too_late
from tallystone.vault.looks import Look

MAX_BODY = 10 * 1024 * 1024
"""Bytes of a request's body, unless the settings say otherwise."""
MAX_OPEN_BODY = 4096
"""Bytes of the body of a request that brings no token."""
THREADS = 16
"""Requests that are worked on at once; the others wait."""
QUEUE = 1000
"""Requests that wait, unless the settings say otherwise."""
TURN_GRACE = 1.0
"""Seconds that turns without a client get to end when the server stops, after its requests have ended."""

T = TypeVar("T")
_OPEN = frozenset(path.encode() for path in OPEN_PATHS)


class App:
    """An ASGI application over one open workspace."""

    def __init__(
        self,
        workspace: Workspace,
        *,
        max_body: int = MAX_BODY,
        threads: int = THREADS,
        turnstile: Turnstile | None = None,
        models: ModelLayer | None = None,
        listeners: int = LISTENERS,
        listeners_each: int = LISTENERS_EACH,
        log_public: bool = False,
        logged: Callable[[], None] = lambda: None,
        ask_seconds: float = ASK_SECONDS,
        queue: int = QUEUE,
        rates: Buckets | None = None,
        proxies: Sequence[Network] = (),
        status: Status | None = None,
        metrics: Metrics | None = None,
        readers: Readers | None = None,
        traces: Traces | None = None,
    ) -> None:
        """`log_public`: the log is served without a token. `logged` is called after each answer that made it grow.
        `queue` requests wait beside the `threads` that are worked on. `rates` bounds each principal's."""
        self._workspace = workspace
        self._max_body = max_body
        self._paths = Paths(ROUTES)
        self._turnstile = turnstile or Turnstile()
        self._models = models
        self._log_public = log_public
        self._logged = logged
        self._ask_seconds = ask_seconds
        self._post: Post | None = None
        self._flights = Flights()
        self._turns = UnderWay(lambda error: log_crash(error, "turn"))
        self._pump = Pump(
            workspace,
            listeners=listeners,
            listeners_each=listeners_each,
            crashed=lambda error: log_crash(error, "feed"),
        )
        self._threads = Threads(threads)
        # Of a database behind a network, each that waits may hold a session.
        self._fibers = Fibers(2 * threads, threads) if workspace.store.remote else Fibers()
        self._look: Look | None = None
        self._most, self.working = threads + queue, 0
        self._bodies = Bodies(max(MAX_BODIES, 4 * max_body))
        self._rates, self._proxies = rates, proxies
        self._readiness = Readiness(workspace, status)
        self._metrics, self._readers, self._traces = metrics, readers, traces
        self.ready = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection's request, or the server's lifespan."""
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})
        else:
            await self._http(scope, receive, send)

    def hush(self) -> None:
        """End the streams of those who listen, which would go on for good. Called in the loop that serves."""
        self._pump.stop()

    async def close(self) -> None:
        """End the turns that still go on, and close what is open towards models. Called in the loop that served, when
        it has served its last."""
        await self._turns.stop(TURN_GRACE)
        if self._models is not None:
            await self._models.close()
        self._threads.close()
        self._fibers.close()

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = time.perf_counter()
        request = Request(scope, receive)
        code = ""
        try:
            if self._traces is None:
                answer = await self._answer(request)
            else:
                answer = await self._traced(request, self._traces)
        except Gone:
            return
        except Exception as error:
            if not isinstance(error, TallystoneError):
                log_crash(error, request.template)
            answer, code = errors.answer(error), errors.code_of(error)
        finally:
            self._bodies.held -= request.held
        if self._metrics is not None:
            seconds = time.perf_counter() - began
            self._metrics.answered(request.template, request.known_method, answer.status, code, seconds)
        await respond(answer, request.leaves, self._pump, scope, receive, send)
        if request.leaves:
            self._logged()
        log_request(request.known_method, request.template, answer.status, time.perf_counter() - began)

    async def _answer(self, request: Request) -> Answer:
        check_head(request.raw_path, request.query, request.raw_headers)
        if request.raw_path.rstrip(b"/") + b"/" in _OPEN:
            return await self._open(request)
        template = request.raw_path.rstrip(b"/").decode("latin-1")
        if template in OPEN_POSTS:
            return await self._open_post(request, template)
        found = self._paths.match(request.method, request.raw_path)
        if isinstance(found, tuple):
            raise errors.wrong_method(found)
        if found is None:
            if self._metrics is not None and self._readers is not None and request.raw_path == METRICS:
                return await self._read_metrics(request, self._metrics, self._readers)
            await self._denied(request, "unknown_path")
            raise errors.unknown_path()
        request.template = found.route.path
        public = found.route.public
        if self._log_public and public is not None:
            query = Query(request.query.decode("latin-1"))
            return await self._admitted(lambda: public(self._workspace.log, found.params, query))
        try:
            token = bearer(request.headers)
        except TallystoneError:
            await self._denied(request, "unauthenticated")
            raise
        body = await self._body(request, self._max_body)
        if self._post is None:  # belongs to the running loop
            self._post = Post(self._models, self._thread, self._turns, self._ask_seconds)
        retry = retry_of(request.method, request.raw_path, request.query, request.headers, body)
        async with self._flights.flight(token, retry):
            try:
                work = partial(self._work, found, request, token, body, retry)
                brief = partial(work, looks=True) if found.route.brief else None
                answer = await self._admitted(work, brief)
                if isinstance(answer, Later):
                    return await answer.finish(self._thread, self._turns)
                return answer
            except _Stranger as stranger:
                await self._denied(request, "unauthenticated")
                raise stranger.error from None

    async def _traced(self, request: Request, traces: Traces) -> Answer:
        with traces.request(request.headers) as span:
            status, code = 500, "internal"
            try:
                answer = await self._answer(request)
                status, code = answer.status, ""
                return answer
            except Gone:
                status, code = 499, "gone"
                raise
            except Exception as error:
                status, code = errors.answer(error).status, errors.code_of(error)
                raise
            finally:
                traces.answered(
                    span, request.template, request.known_method, status, code, len(request.leaves)
                )

    async def _read_metrics(self, request: Request, metrics: Metrics, readers: Readers) -> Answer:
        request.template = METRICS.decode()
        if request.method != "GET":
            raise errors.wrong_method(("GET",))
        try:
            readers.check(request.peer, request.headers)
        except TallystoneError as error:
            await self._denied(request, error.code)
            raise
        text, media = await self._admitted(metrics.exposition)
        return Plain(text, headers={"content-type": media})

    def note(self, **more: int) -> None:
        """Let the metrics know what is so at the moment, and what the caller knows beside it. Called each second."""
        if self._metrics is not None:
            self._metrics.now(
                {
                    "requests_working": self.working,
                    "feed_listeners": len(self._pump),
                    "body_bytes": self._bodies.held,
                    "commits_waiting": self._workspace.store.waiting(),
                    **more,
                }
            )

    async def _body(self, request: Request, limit: int) -> bytes:
        def take(size: int) -> None:
            self._bodies.take(size)
            request.held += size

        return await read_body(request.receive, request.headers, limit, take)

    async def _open(self, request: Request) -> Answer:
        if request.method != "GET":
            raise errors.wrong_method(("GET",))
        request.template = request.raw_path.decode("ascii")
        if not self.ready and b"ready" in request.raw_path:
            raise errors.Refusal(
                503, "stopping", "the server is stopping", hint="ask another", headers={"retry-after": "1"}
            )
        if b"ready" in request.raw_path:
            if not self._readiness.is_fresh:
                await self._admitted(self._readiness.look)
            self._readiness.check()
        return health()

    async def _open_post(self, request: Request, template: str) -> Answer:
        """What strangers may send. Each try passes the turnstile, or codes could be guessed at any speed."""
        request.template = template
        if request.method != "POST":
            raise errors.wrong_method(("POST",))
        self._turnstile.enter(self._sender(request))
        body = await self._body(request, min(self._max_body, MAX_OPEN_BODY))
        return await self._admitted(lambda: OPEN_POSTS[template](self._workspace, body))

    def _work(
        self,
        found: Match,
        request: Request,
        token: str,
        body: bytes,
        retry: Retry | None,
        *,
        looks: bool = False,
    ) -> Answer | Later:
        """In a thread or a fiber: open the caller's vault, run the route. `looks`: on the loop, where others look at
        the same view."""
        try:
            visit = self._workspace.visit(token, self._look_since(request.arrived) if looks else None)
        except Unauthenticated as error:
            raise _Stranger(error) from None
        with visit as caller:
            return self._served(Vault(caller), found, request, body, retry)

    def _look_since(self, arrived: int) -> Look:
        """A look that was opened since then, for those that the loop knows of already."""
        look = self._look
        # Who does not say when a request came in may hand over the end of it in any turn of the loop.
        if look is None or not arrived or look.began < arrived:
            look = self._look = Look(self._workspace, time.monotonic_ns())
            # Behind the requests that have come in, and before the loop hears of others.
            asyncio.get_running_loop().call_soon(self._look_away, look)
        return look

    def _look_away(self, look: Look) -> None:
        if look is self._look:
            self._look = None
        look.release()

    def _served(
        self, vault: Vault, found: Match, request: Request, body: bytes, retry: Retry | None
    ) -> Answer | Later:
        request.leaves = vault.leaves
        if self._rates is not None and (wait := self._rates.wait(vault.principal_id)):
            raise rate_limited(wait)
        query = Query(request.query.decode("latin-1"))
        outbox = Outbox(self._post) if self._post is not None else None
        call = Call(
            vault, found.params, query, request.headers, body, retry, self._models, self._pump.admit, outbox
        )
        if self._traces is None:
            return found.route.run(call)
        with self._traces.operation(found.route.path):
            return found.route.run(call)

    async def _denied(self, request: Request, code: str) -> None:
        """Log a refusal durably. Raises `Refusal` (429) when there are too many."""
        self._turnstile.enter(self._sender(request))
        content = {"code": code, "method": request.method[:10], "route": request.template}
        await self._admitted(lambda: self._workspace.denied(content))

    def _sender(self, request: Request) -> str:
        return sender(request.peer, request.headers, self._proxies)

    async def _admitted(self, work: Callable[[], T], brief: Callable[[], T] | None = None) -> T:
        """A request's work; `brief` is the same if it is short. Raises `Refusal` (503) when too many wait already."""
        if self.working >= self._most:
            raise errors.overloaded()
        self.working += 1
        try:
            return await (self._thread(work) if brief is None else self._brief(work, brief))
        finally:
            self.working -= 1

    async def _brief(self, work: Callable[[], T], brief: Callable[[], T]) -> T:
        """Work that is short, as far as one can tell: in a fiber, or in a thread if it turns out to be long."""
        try:
            return await self._owing(brief, self._fibers.run)
        except Lengthy:
            return await self._thread(work)

    async def _thread(self, work: Callable[[], T]) -> T:
        return await self._owing(work, self._threads.run)

    async def _owing(self, work: Callable[[], T], run: Callable[[Callable[[], T]], Awaitable[T]]) -> T:
        owed = Owed()

        def noting() -> T:
            with owing(owed):
                return work()

        try:
            return await run(noting)
        finally:  # an error tells of what was read as well
            if owed.size:
                await self._witnessed(owed.size)

    async def _witnessed(self, size: int) -> None:
        """Wait without a thread until a witness has seen so many leaves. Raises `Unwitnessed`."""
        awaited = self._workspace.awaited
        if awaited is None:
            raise no_witness()
        try:
            await asyncio.wait_for(asyncio.wrap_future(awaited.promise(size)), awaited.seconds)
        except TimeoutError:
            raise too_late() from None


class _Stranger(Exception):
    """The token opened nothing: nobody has logged this refusal yet."""

    def __init__(self, error: Unauthenticated) -> None:
        super().__init__()
        self.error = error


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
