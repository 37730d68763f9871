"""Calling MCP servers: which ones may be called, for how long, and what is said when that fails.

The library is loaded by the first call, in a thread, because loading it takes seconds; the protocol is in mcp_wire.py.
No connection and no key outlives a call. Nothing here writes to a log, and no word of a failure but the server's own
about wrong arguments is taken over: the others may quote requests and credentials.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from tallystone.errors import Rejected, TallystoneError
from tallystone.letta.arguments import clean
from tallystone.letta.hosts import Hosts
from tallystone.vault.types import ToolAccess

if TYPE_CHECKING:
    from tallystone.letta.call import Call
    from tallystone.letta.mcp_wire import Listed

MAX_RETURN = 50_000
"""Characters of what a call returns; the rest is cut off, and said to be."""
_MAX_WORDS = 1000
_LATE = "did not answer in time"
_SECRET = 6  # characters from which on a header's value is looked for in results


class ToolServerFailed(TallystoneError):
    """The MCP server gave no answer that can be used. The message says what happened, never what was said."""

    code = "tool_server_failed"
    status = 502


@dataclass(frozen=True)
class RemoteCall:
    """A call that is ready to go out: what its server calls the tool, and how the server is called."""

    access: ToolAccess = field(repr=False)
    remote: str
    arguments: dict[str, Any]


@dataclass(frozen=True)
class Returned:
    """What a call came to, in words."""

    ok: bool
    text: str


class ToolCaller:
    """The MCP servers that this server may call. `seconds` holds for one call with all that belongs to it."""

    def __init__(self, hosts: Hosts, seconds: float) -> None:
        self._hosts = hosts
        self._seconds = seconds

    @classmethod
    def of(cls, call: Call) -> ToolCaller:
        """With the settings of the server; outside of one nothing may be called."""
        if call.models is None:
            return cls(Hosts(()), 0)
        return cls(call.models.config.hosts, call.models.config.seconds)

    def check(self, url: str) -> None:
        """Raise `Rejected` (400) unless this URL may be called from here. It may hold a secret, so it is not named."""
        if not self._hosts.allows(url):
            raise Rejected(
                "calls to this MCP server's host are not allowed here",
                hint="add host:port to the setting `allowed_hosts`, beside the hosts of the model providers",
                code="host_not_allowed",
            )
        if find_spec("mcp") is None:
            raise Rejected(
                "this server cannot call MCP servers",
                hint="pip install 'tallystone[agents]'",
                code="not_installed",
            )

    async def tools(self, access: ToolAccess) -> tuple[Sequence[Listed], bool]:
        """What a server offers, and whether there is more than is looked at. Raises `ToolServerFailed`, or `Rejected`
        as `check` does."""
        self.check(access.url)
        await asyncio.to_thread(_load)
        from tallystone.letta import mcp_wire

        limit = asyncio.timeout(self._seconds)
        try:
            async with limit:
                return await mcp_wire.list_tools(access.kind, access.url, headers_of(access), self._seconds)
        except Exception as error:
            words = _LATE if limit.expired() else _words(error, access)
        # outside of the handler, so that no foreign exception hangs on ours
        raise ToolServerFailed(f"the MCP server {words}", hint="see whether it runs, then try again")

    async def call(self, call: RemoteCall) -> Returned:
        """Make a call. Whatever goes wrong is returned in words; raises nothing but a cancellation."""
        access, limit = call.access, None
        try:
            self.check(access.url)
            await asyncio.to_thread(_load)
            from tallystone.letta import mcp_wire

            limit = asyncio.timeout(self._seconds)
            async with limit:
                ok, text = await mcp_wire.call_tool(
                    access.kind, access.url, headers_of(access), self._seconds, call.remote, call.arguments
                )
        except TallystoneError as error:
            return Returned(False, f"{error.message}.")
        except Exception as error:
            late = limit is not None and limit.expired()
            return Returned(False, f"The MCP server {_LATE if late else _words(error, access)}.")
        return Returned(ok, bounded(_without_secrets(clean(text), access)))


def headers_of(access: ToolAccess) -> dict[str, str]:
    """The headers that go with each request. A bare token in `Authorization` is a bearer token."""
    headers = dict(access.headers)
    if access.auth_token:
        name, token = access.auth_header or "Authorization", access.auth_token
        bare = name.lower() == "authorization" and " " not in token
        headers[name] = f"Bearer {token}" if bare else token
    return headers


def bounded(text: str, most: int = MAX_RETURN) -> str:
    """`text`, cut off after `most` characters, which is said."""
    if len(text) <= most:
        return text
    return f"{text[:most]}\n({len(text) - most} more characters are not shown)"


def _without_secrets(text: str, access: ToolAccess) -> str:
    """A server that echoes its request shows the model what it was sent, but for this."""
    values = [access.auth_token, access.auth_token.rpartition(" ")[2], *access.headers.values()]
    for value in sorted({value for value in values if len(value) >= _SECRET}, key=len, reverse=True):
        text = text.replace(value, "***")
    return text


def _load() -> None:
    """Load the library: in a thread, or it would hold up the loop for seconds."""
    import tallystone.letta.mcp_wire  # noqa: F401 -- the loading is what is wanted


def _words(error: Exception, access: ToolAccess) -> str:
    """The rest of a sentence that begins with the server's name."""
    import httpx2
    from mcp.shared.exceptions import MCPError
    from mcp_types import INVALID_PARAMS, REQUEST_TIMEOUT

    from tallystone.letta.mcp_wire import Asks, NotAdmitted
    from tallystone.letta.outbound import Elsewhere, Unfit

    links = list(_links(error))
    kinds: Mapping[str, type[BaseException] | tuple[type[BaseException], ...]] = {
        "sent the call elsewhere, which is not followed": Elsewhere,
        "does not accept the credentials": NotAdmitted,
        "sent an answer that is packed or far too large": Unfit,
        "asks for something that nobody here can give": Asks,
        _LATE: (TimeoutError, httpx2.TimeoutException),
        "cannot be reached, or broke off its answer": httpx2.TransportError,
    }
    for words, kind in kinds.items():
        if any(isinstance(link, kind) for link in links):
            return words
    said = next((link for link in links if isinstance(link, MCPError)), None)
    if said is None:
        return "sent an answer that cannot be read"
    if said.code == REQUEST_TIMEOUT:
        return _LATE
    if said.code == INVALID_PARAMS:
        words = bounded(_without_secrets(clean(said.message), access), _MAX_WORDS)
        return f"does not accept the arguments: {words}"
    return f"answered with an error ({said.code})"


def _links(error: BaseException) -> Iterator[BaseException]:
    """An error, those that it groups, and those that it came from."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        link = waiting.pop()
        if link is None or id(link) in seen:
            continue
        seen.add(id(link))
        yield link
        if isinstance(link, BaseExceptionGroup):
            waiting += link.exceptions
        waiting += [link.__cause__, link.__context__]
