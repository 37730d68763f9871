"""The command line's own HTTP client: one request, one answer, or an error of ours.

The standard library's client is enough. Redirects are refused: the token goes to the place that was named and to no
other.
"""

from __future__ import annotations

import ipaddress
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import date
from email.message import Message
from http.client import HTTPException
from typing import IO, Any
from urllib.parse import quote, urlencode, urlsplit

from tallystone import errors
from tallystone.cli.terminal import warn

TIMEOUT = 60
"""Seconds that one request may take."""
PAGE = 100
"""Items asked for at a time."""
PART = 64 * 1024
"""Bytes of a download that are in memory at once."""

_BY_STATUS: dict[int, type[errors.TallystoneError]] = {
    kind.status: kind
    for kind in (
        errors.Unauthenticated,
        errors.Denied,
        errors.NotFound,
        errors.Invalid,
        errors.Rejected,
        errors.PreconditionFailed,
        errors.Locked,
        errors.Conflict,
        errors.StoreError,
    )
}


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> None:
        return None


class Wire:
    """A server, and as whom it is asked. Without a token only what strangers may send is answered."""

    def __init__(self, url: str, token: str | None) -> None:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise errors.Invalid(f"not a URL: {url}", hint="like http://127.0.0.1:8283")
        self._base = url.rstrip("/")
        self._token = token
        local = _loopback(parts.hostname)
        if parts.scheme == "http" and not local:
            warn(f"{_what(token)} goes to {parts.hostname} unencrypted; use https")
        handlers: list[urllib.request.BaseHandler] = [_NoRedirect()]
        if local:
            handlers.append(urllib.request.ProxyHandler({}))
        self._opener = urllib.request.build_opener(*handlers)

    def pages(self, path: str, **query: str) -> Iterator[Any]:
        """All items of a list that comes in pages."""
        after: str | None = None
        while True:
            asked = {"limit": str(PAGE), "order": "asc", **query}
            if after is not None:
                asked["after"] = after
            items, _ = self.call("GET", f"{path}?{urlencode(asked)}")
            if not items:
                return
            yield from items
            after = items[-1]["id"]

    def call(
        self, method: str, path: str, body: object = None, *, if_match: str | None = None
    ) -> tuple[Any, str | None]:
        """The answer's body and its `ETag`. Raises `TallystoneError`."""
        headers = {"Accept": "application/json"}
        content = None
        if body is not None:
            content = json.dumps(body, default=_plain).encode()
            headers["Content-Type"] = "application/json"
        if if_match is not None:
            headers["If-Match"] = if_match
        with self._asked(), self._open(method, path, content, headers) as answer:
            return json.loads(answer.read() or b"null"), answer.headers.get("ETag")

    def fetch(self, path: str) -> bytes:
        """What lies at a path, as it is. Raises `TallystoneError`."""
        with self._asked(), self._open("GET", path, None, {}) as answer:
            content: bytes = answer.read()
            return content

    def download(self, path: str, target: IO[bytes]) -> None:
        """What lies at a path, written to `target` as it comes. Raises `TallystoneError`, also when it breaks off."""
        with self._asked(), self._open("GET", path, None, {}) as answer:
            while part := answer.read(PART):
                target.write(part)

    def listen(self, path: str, after: str | None) -> Iterator[tuple[str, Any]]:
        """The server-sent events of a stream, from the one with the id `after` on: (id, body). Ends with the stream, or
        when that is lost. Raises `TallystoneError` when it does not begin."""
        headers = {"Accept": "text/event-stream"}
        if after is not None:
            headers["Last-Event-ID"] = after
        with self._asked():
            answer = self._open("GET", path, None, headers)
        last = after or ""
        with answer, suppress(OSError, HTTPException, ValueError):
            for line in answer:
                name, _, value = line.decode().rstrip("\n").partition(": ")
                if name == "id":
                    last = value
                elif name == "data":
                    yield last, json.loads(value)

    def _open(self, method: str, path: str, content: bytes | None, headers: dict[str, str]) -> Any:
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token}"
        request = urllib.request.Request(self._base + path, content, headers, method=method)
        return self._opener.open(request, timeout=TIMEOUT)

    @contextmanager
    def _asked(self) -> Iterator[None]:
        """Whatever goes wrong while the server is asked becomes an error of ours."""
        try:
            yield
        except urllib.error.HTTPError as refused:
            with refused:
                raise _refusal(refused.code, refused.headers, refused.read(1 << 20)) from None
        except (OSError, HTTPException) as problem:
            reason = getattr(problem, "reason", problem)
            reason = getattr(reason, "strerror", None) or reason
            raise errors.StoreError(
                f"no answer from {self._base}: {reason}",
                hint="is the server running, and the URL right?",
            ) from None
        except ValueError:
            raise self._strange() from None

    def _strange(self) -> errors.StoreError:
        return errors.StoreError(f"{self._base} does not answer as Tallystone does", hint="check the URL")


def path(*segments: str) -> str:
    """A path under `/v1`: each segment is encoded, whatever it holds."""
    return "/v1/" + "/".join(quote(segment, safe="") for segment in segments)


def _loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _refusal(status: int, headers: Message, body: bytes) -> errors.TallystoneError:
    kind = _BY_STATUS.get(status, errors.TallystoneError)
    try:
        answer = json.loads(body)
        detail = str(answer["detail"])
        error = answer.get("error") or {}
        return kind(detail, hint=str(error.get("hint") or ""), code=error.get("code"))
    except (ValueError, KeyError, TypeError, AttributeError):
        return kind(f"the server answered {status}", hint="is this URL a Tallystone server?")


def _what(token: str | None) -> str:
    return "the code" if token is None else "the token"


def _plain(value: object) -> str:
    if isinstance(value, date):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} has no place in a request")
