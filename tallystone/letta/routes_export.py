"""`GET /v1/export`: ours, not the client's. Everything that is the caller's, as one archive.

It goes out as it is made, page by page, each in a thread and as an operation of its own: neither the server nor the
log's writer holds more than a page. What fails after the first bytes breaks the answer off, which the client sees.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from tallystone.letta.call import Answer, Call
from tallystone.letta.later import Later, Streamed, UnderWay
from tallystone.letta.turn_record import InThread


def export(call: Call) -> Later:
    """`GET /v1/export`: a zip file; `versions` (false): with earlier versions of blocks."""
    from tallystone.vault.exporting import export_chunks  # zip and its codecs, for this route alone

    chunks = export_chunks(call.vault, versions=bool(call.query.flag("versions", False)))

    async def finish(in_thread: InThread, _: UnderWay) -> Answer:
        first = await in_thread(
            lambda: next(chunks, b"")
        )  # what is refused is refused before the answer begins

        async def rest() -> AsyncIterator[bytes]:
            part = first
            while part:
                yield part
                part = await in_thread(lambda: next(chunks, b""))

        headers = {
            "content-type": "application/zip",
            "content-disposition": 'attachment; filename="tallystone-export.zip"',
            "x-content-type-options": "nosniff",
        }
        return Streamed(None, headers=headers, events=rest())

    return Later(finish)
