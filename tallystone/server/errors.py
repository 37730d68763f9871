"""From an error to an answer: `{"detail": "…", "error": {"code", "hint"}}`, and whether a retry may help.

Texts come from `tallystone.errors` alone, which hold no value, no SQL and nothing about another principal. Whatever
else is raised becomes one sentence that says nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

from tallystone.errors import (
    Locked,
    StoreError,
    StoreFull,
    Taken,
    TallystoneError,
    Tampered,
    Unauthenticated,
    Unwitnessed,
    Waiting,
)
from tallystone.letta.call import Answer

NO_RETRY = {"x-should-retry": "false"}
"""Tells the client not to send the same again: by default it repeats 408, 409, 429 and each 5xx."""
_AWAY = frozenset({"unreachable", "read_only"})
"""A database that restarts, or whose standby takes over, needs seconds: letta-client's two retries then outlast it."""


class Refusal(TallystoneError):
    """An error of HTTP itself, with its own status and headers."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        hint: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message, hint=hint, code=code)
        self.status = status
        self.headers = dict(headers or {})


def bad_request() -> Refusal:
    """400: the bytes are no request, or one that two servers could understand in two ways."""
    return Refusal(
        400,
        "bad_request",
        "this is no valid HTTP/1.1 request",
        hint="the connection is closed; check what writes the request",
    )


def unknown_path() -> Refusal:
    """404: no route has this path."""
    return Refusal(
        404, "unknown_path", "Not Found", hint="docs/http.md lists the paths; labels are sent as one segment"
    )


def wrong_method(allowed: tuple[str, ...]) -> Refusal:
    """405: the path is there, the method is not."""
    methods = ", ".join(sorted(allowed))
    return Refusal(
        405,
        "wrong_method",
        "Method Not Allowed",
        hint=f"this path takes {methods}",
        headers={"allow": methods},
    )


def no_token() -> Refusal:
    """401: no token was sent."""
    return Refusal(
        401,
        "unauthenticated",
        "Unauthorized",
        hint="send the token as: Authorization: Bearer tally_…",
        headers={"www-authenticate": "Bearer"},
    )


def too_large(limit: int) -> Refusal:
    """413: the body is longer than the server takes."""
    return Refusal(
        413,
        "too_large",
        f"the body is larger than {limit} bytes",
        hint="split it, or raise max_body on the server",
    )


def overloaded() -> Refusal:
    """503: more waits already than the server takes on."""
    return Refusal(
        503,
        "overloaded",
        "the server has more requests than it takes on",
        hint="send it again when Retry-After says",
        headers={"retry-after": "1"},
    )


def too_many_connections() -> Refusal:
    """503: as many connections are open as the server takes."""
    return Refusal(
        503,
        "too_many_connections",
        "the server has as many connections as it takes",
        hint="try again later, or raise connections on the server",
        headers={"retry-after": "1"},
    )


def log_check_failed(findings: int) -> Refusal:
    """503: the last check of the log found rows that are not as they were written."""
    return Refusal(
        503,
        "log_check_failed",
        f"the last check of the log found {findings} things that are not as they were written",
        hint="the server's log and tallystone audit verify name them",
    )


def code_of(error: BaseException) -> str:
    """The code by which an error is counted."""
    return error.code if isinstance(error, TallystoneError) else "internal"


def answer(error: BaseException) -> Answer:
    """The answer that stands for an error."""
    if not isinstance(error, TallystoneError):
        body = {
            "detail": "internal error",
            "error": {"code": "internal", "hint": "the server's log says where"},
        }
        return Answer(body, 500, dict(NO_RETRY))
    body = {"detail": error.message, "error": {"code": error.code, "hint": error.hint}}
    return Answer(body, error.status, _headers(error))


def _headers(error: TallystoneError) -> dict[str, str]:
    if isinstance(error, Refusal):
        return dict(error.headers)
    if isinstance(error, Unauthenticated):
        return {"www-authenticate": "Bearer"}
    if isinstance(error, Taken | Waiting | Tampered | StoreFull | Locked):
        return dict(NO_RETRY)
    if isinstance(error, Unwitnessed):
        return {"retry-after": "5"} if error.code == Unwitnessed.code else dict(NO_RETRY)
    if isinstance(error, StoreError):
        return {"retry-after": "5" if error.code in _AWAY else "1"}
    return dict(NO_RETRY) if error.status >= 500 else {}
