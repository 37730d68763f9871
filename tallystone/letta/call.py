"""One request, as a route sees it, and its answer. No sockets, no framework: what the server made of the bytes."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar
from urllib.parse import parse_qsl

import msgspec

from tallystone.errors import Invalid, PreconditionFailed, Rejected
from tallystone.vault import Vault
from tallystone.vault.replies import Repeated
from tallystone.vault.types import Block

if TYPE_CHECKING:
    from tallystone.letta.model_layer import ModelLayer
    from tallystone.letta.post import Outbox

T = TypeVar("T")

_UUID = "[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
_ETAG = re.compile(r'(?:W/)?"(\d{1,18})"|(\d{1,18})')
_TRUE, _FALSE = ("true", "1"), ("false", "0")


@cache
def _id_of(kind: str) -> re.Pattern[str]:
    return re.compile(f"{kind}-{_UUID}")


def check_id(kind: str, text: str) -> str:
    """`text` if it is an id of this kind (`block`, `agent`, `tool`). Raises `Invalid` (422) otherwise."""
    if not _id_of(kind).fullmatch(text):
        raise Invalid(
            f"this is no {kind} id: it should match '{kind}-<uuid4>'",
            hint=f"pass the id as it was returned, in lower case: {kind}-xxxxxxxx-xxxx-4xxx-xxxx-xxxxxxxxxxxx",
            code="bad_id",
        )
    return text


@dataclass
class Answer:
    """A JSON answer. `headers` are names in lower case and values."""

    body: Any
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    media: ClassVar[str] = "application/json"

    def content(self) -> bytes:
        """The body as UTF-8 JSON."""
        return msgspec.json.encode(self.body)


@dataclass
class Picture(Answer):
    """An answer whose body is an SVG. A browser that opens it runs and loads nothing."""

    def __post_init__(self) -> None:
        self.headers = {
            **self.headers,
            "content-type": "image/svg+xml; charset=utf-8",
            "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'",
            "x-content-type-options": "nosniff",
        }

    def content(self) -> bytes:
        """The body as UTF-8."""
        return str(self.body).encode()


class Plain(Answer):
    """An answer that is text, not JSON: `body` is its bytes."""

    media = "text/plain; charset=utf-8"

    def content(self) -> bytes:
        """The body as it is."""
        return bytes(self.body)


class Binary(Plain):
    """An answer in bytes."""

    media = "application/octet-stream"


class Query:
    """The query parameters: repeated keys are lists, the last of a repeated scalar counts, NULs are removed."""

    def __init__(self, raw: str) -> None:
        self._values: dict[str, list[str]] = {}
        if not raw:
            return
        try:
            pairs = parse_qsl(raw, keep_blank_values=True, max_num_fields=1000)
        except ValueError as error:
            raise Invalid("the query has too many parameters", hint="send fewer than 1000") from error
        for name, value in pairs:
            self._values.setdefault(name, []).append(value.replace("\0", ""))

    def text(self, name: str) -> str | None:
        """A parameter's value, or None if it was not sent."""
        values = self._values.get(name)
        return values[-1] if values else None

    def texts(self, name: str) -> list[str]:
        """All values of a repeated parameter (also spelled `name[]`)."""
        return [*self._values.get(name, ()), *self._values.get(name + "[]", ())]

    def flag(self, name: str, default: bool | None = None) -> bool | None:
        """A boolean parameter. Raises `Invalid` for anything but true and false."""
        value = self.text(name)
        if value is None:
            return default
        if value.lower() in _TRUE:
            return True
        if value.lower() in _FALSE:
            return False
        raise Invalid(f"query parameter {name} should be true or false", hint="send true or false")

    def number(self, name: str, default: int | None = None) -> int | None:
        """A whole parameter, not negative and below 2³¹. Raises `Invalid` otherwise."""
        value = self.text(name)
        return default if value is None else _whole(name, value)

    def numbers(self, name: str) -> list[int]:
        """All values of a repeated whole parameter."""
        return [_whole(name, value) for value in self.texts(name)]

    def choice(self, name: str, allowed: tuple[str, ...], default: str | None = None) -> str | None:
        """One of a few words. Raises `Invalid` for another."""
        value = self.text(name)
        if value is None:
            return default
        if value not in allowed:
            raise Invalid(
                f"query parameter {name} should be one of {', '.join(allowed)}",
                hint=f"e.g. {name}={allowed[0]}",
            )
        return value


def _whole(name: str, value: str) -> int:
    if not re.fullmatch(r"[0-9]{1,10}", value) or int(value) >= 2**31:
        raise Invalid(f"query parameter {name} should be a whole number of 0 or more", hint=f"e.g. {name}=50")
    return int(value)


@dataclass(frozen=True)
class Retry:
    """Which earlier request this one may repeat. `key` is a digest of it; `attempt` 0 never matches an earlier answer.

    `body` is the digest of the body, kept with the answer when the key is the client's own (`Idempotency-Key`).
    """

    key: bytes
    attempt: int
    body: bytes
    named: bool = False


def _anybody(principal: str) -> None:
    """Nobody counts."""


@dataclass
class Call:
    """One authenticated request. `params` are the decoded path parameters; header names are in lower case."""

    vault: Vault
    params: Mapping[str, str]
    query: Query
    headers: Mapping[str, str]
    body: bytes = b""
    retry: Retry | None = None
    models: ModelLayer | None = None
    admit: Callable[[str], None] = _anybody
    """Raises when this principal listens too often already."""
    outbox: Outbox | None = None

    def id(self, kind: str, name: str | None = None) -> str:
        """The path's id of a block, agent or tool, checked for its shape."""
        return check_id(kind, self.params[name or f"{kind}_id"])

    def once(
        self, work: Callable[[], T], answer: Callable[[T], Answer], kept_answer: Answer | None = None
    ) -> Answer:
        """Run a POST's `work`, unless this is the retry of one that succeeded: then its first answer again.

        The vault keeps the answer, made from what its operation returns, in the transaction of the change itself: so
        there is no moment at which the change is durable and the answer is not. `work` is one operation, therefore,
        and returns what that returns. `kept_answer` is kept in place of an answer that holds a secret.
        """
        if self.retry is None:
            return answer(work())
        retry = self.retry
        kept = self.vault.once(
            retry.key, retry.attempt, lambda result: _keep(kept_answer or answer(result), retry)
        )
        if kept is not None:
            return _kept(kept, retry)
        try:
            return answer(work())
        except Repeated as overtaken:  # by its own retry, through another process
            return _kept(overtaken.answer, retry)

    def earlier(self) -> Answer | None:
        """The first answer to this request, if it is sent again: for what has an effect elsewhere before it is done,
        and is to be noted by `once` afterwards."""
        if self.retry is None:
            return None
        kept = self.vault.known(self.retry.key, self.retry.attempt)
        return _kept(kept, self.retry) if kept is not None else None

    def check_version(self, block: Block) -> None:
        """Raise `PreconditionFailed` if `If-Match` names other versions than the block's current one."""
        wanted = self.headers.get("if-match")
        if wanted is None or wanted.strip() == "*":
            return
        versions = []
        for part in wanted.split(","):
            match = _ETAG.fullmatch(part.strip())
            if match is None:
                raise Rejected(
                    "the If-Match header holds no version of a block",
                    hint='send the ETag of the block as it was read, e.g. If-Match: "3"',
                )
            versions.append(int(match[1] or match[2]))
        if block.version not in versions:
            raise PreconditionFailed(
                f"the block is at version {block.version}, not at the one that If-Match names",
                hint="read the block again, make the change on its current value, and send its new ETag",
            )


def _keep(answer: Answer, retry: Retry) -> bytes:
    return msgspec.msgpack.encode((retry.body, answer.status, answer.headers, answer.content()))


def _kept(data: bytes, retry: Retry) -> Answer:
    body, status, headers, content = msgspec.msgpack.decode(
        data, type=tuple[bytes, int, dict[str, str], bytes]
    )
    if retry.named and body != retry.body:
        raise Invalid(
            "this Idempotency-Key was sent before with another body",
            hint="use a new key for each new request",
            code="idempotency_key_reused",
        )
    return Answer(msgspec.Raw(content), status, {**headers, "x-tallystone-replayed": "true"})
