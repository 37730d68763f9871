"""What the server writes to stderr: routes' templates, statuses, durations. Never a path, a query, a header, a body."""

from __future__ import annotations

import logging
import sys
import time
import traceback

import structlog

# Stand where a request's own values come in its line.
_METHOD, _ROUTE, _STATUS, _MS, _TIME = "@method", "/@route", 987654321, 98765432.5, "@time"


class RequestLine:
    """The line of each request. What of it is the same for all is laid out once, by structlog: it takes longer for one
    line than some requests take as a whole."""

    def __init__(self, render: structlog.types.Processor, worker: int | None) -> None:
        event: structlog.types.EventDict = {
            "method": _METHOD,
            "route": _ROUTE,
            "status": _STATUS,
            "ms": _MS,
            "event": "request",
            "level": "info",
            "timestamp": _TIME,
        }
        line = str(render(None, "info", event if worker is None else {**event, "worker": worker}))
        line = line.replace("%", "%%")
        for sign, name in ((_METHOD, "method"), (_ROUTE, "route"), (_TIME, "time")):
            line = line.replace(sign, f"%({name})s")
        self._layout = line.replace(str(_STATUS), "%(status)d").replace(str(_MS), "%(ms)s")
        self._second, self._date = -1, ""

    def text(self, method: str, route: str, status: int, seconds: float, now: float) -> str:
        """The line of a request that took so many `seconds`, at `now` in Unix seconds."""
        second, micro = divmod(round(now * 1e6), 1_000_000)
        if second != self._second:
            self._second = second
            self._date = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        stamp = f"{self._date}.{micro:06d}Z" if micro else f"{self._date}Z"  # as datetime.isoformat does
        ms = round(seconds * 1000, 1)
        return self._layout % {"method": method, "route": route, "status": status, "ms": ms, "time": stamp}


_request_line: RequestLine | None = None


def configure(log_format: str = "text", log_level: str = "info", worker: int | None = None) -> None:
    """Send all log lines of the server to stderr, as text for people or as JSON, one object a line. `worker`: which of
    several processes writes them."""
    global _request_line
    renderer: structlog.types.Processor
    if log_format == "json":
        renderer = structlog.processors.JSONRenderer()
    else:
        renderer = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *([] if worker is None else [_naming(worker)]),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(log_level),
        logger_factory=lambda *_: _STDERR,
        cache_logger_on_first_use=False,
    )
    _request_line = RequestLine(renderer, worker) if log_level == "info" else None
    # uvicorn's own lines may quote what a client sent
    logging.getLogger("uvicorn").setLevel(logging.CRITICAL)


def _naming(worker: int) -> structlog.types.Processor:
    def name(logger: object, method: str, event: structlog.types.EventDict) -> structlog.types.EventDict:
        event.setdefault("worker", worker)
        return event

    return name


class _Stderr:
    """Writes to whatever stderr is at that moment; a line is one write, so lines of threads do not mix."""

    def msg(self, message: str) -> None:
        sys.stderr.write(message + "\n")
        sys.stderr.flush()

    log = debug = info = warning = error = critical = msg


_STDERR = _Stderr()


def log_request(method: str, route: str, status: int, seconds: float) -> None:
    """Write a request's line, if such lines are written. `method` and `route` are words of ours, not the client's."""
    if _request_line is not None:
        _STDERR.msg(_request_line.text(method, route, status, seconds, time.time()))


def log_crash(error: BaseException, template: str) -> None:
    """Say where it broke, and not with what: messages of foreign exceptions may quote data."""
    frames = traceback.extract_tb(error.__traceback__)
    where = [
        f"{frame.filename.rpartition('tallystone/')[2]}:{frame.lineno}:{frame.name}" for frame in frames[-6:]
    ]
    structlog.get_logger("tallystone.server").error(
        "crash", route=template, error=type(error).__name__, where=where
    )
