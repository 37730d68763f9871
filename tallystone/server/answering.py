"""An answer as ASGI messages. A plain one, which nearly all are, is two messages without a framework in between."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from starlette.types import Receive, Scope, Send

from tallystone.letta.call import Answer
from tallystone.letta.later import Streamed, Subscribed
from tallystone.server.feed import Pump

RawHeaders = list[tuple[bytes, bytes]]


async def respond(
    answer: Answer, leaves: Sequence[int], pump: Pump, scope: Scope, receive: Receive, send: Send
) -> None:
    """Send an answer, to its end. Its header `x-tallystone-leaf` names the leaves that the request has logged."""
    if isinstance(answer, Subscribed):
        await pump.stream(answer.subscription, _headers(answer, leaves))(scope, receive, send)
    elif isinstance(answer, Streamed):
        from starlette.responses import StreamingResponse

        stream = StreamingResponse(
            answer.events, answer.status, _headers(answer, leaves), media_type="text/event-stream"
        )
        await stream(scope, receive, send)
    else:
        await plain(answer, _headers(answer, leaves), send)


async def plain(answer: Answer, headers: Mapping[str, str], send: Send) -> None:
    """Send an answer whose body is there. Its own `content-type` beats that of its kind."""
    content = answer.content()
    raw: RawHeaders = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    if "content-type" not in headers:
        raw.append((b"content-type", answer.media.encode()))
    raw.append((b"content-length", b"%d" % len(content)))
    await send({"type": "http.response.start", "status": answer.status, "headers": raw})
    await send({"type": "http.response.body", "body": content})


def _headers(answer: Answer, leaves: Sequence[int]) -> dict[str, str]:
    """The last of the leaves is the operation that the answer tells of. A stranger's refusals are not named to it: they
    would tell how much others do."""
    named = {"x-tallystone-leaf": ", ".join(map(str, leaves))} if leaves else {}
    return {"cache-control": "no-store", **named, **answer.headers}
