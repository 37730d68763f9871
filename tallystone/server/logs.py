"""What the server writes to stderr: routes' templates, statuses, durations. Never a path, a query, a header, a body."""

from __future__ import annotations

import logging
import sys
import traceback

import structlog


def configure(log_format: str = "text", log_level: str = "info", worker: int | None = None) -> None:
    """Send all log lines of the server to stderr, as text for people or as JSON, one object a line. `worker`: which of
    several processes writes them."""
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
        logger_factory=lambda *_: _Stderr(),
        cache_logger_on_first_use=False,
    )
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


def log_crash(error: BaseException, template: str) -> None:
    """Say where it broke, and not with what: messages of foreign exceptions may quote data."""
    frames = traceback.extract_tb(error.__traceback__)
    where = [
        f"{frame.filename.rpartition('tallystone/')[2]}:{frame.lineno}:{frame.name}" for frame in frames[-6:]
    ]
    structlog.get_logger("tallystone.server").error(
        "crash", route=template, error=type(error).__name__, where=where
    )
