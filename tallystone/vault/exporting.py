"""Everything that a principal has here as one archive: for access and portability.

A zip of JSON lines, one file a kind of thing, made page by page and handed on as it is made: memory does not grow with
what there is. Each page is an operation of its own, logged like any other read; what changes meanwhile is exported as
each page finds it.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import date, datetime
from io import RawIOBase
from typing import IO, Any
from zipfile import ZIP_DEFLATED, BadZipFile, ZipFile
from zlib import error as DeflateError

from tallystone.errors import NotFound, TallystoneError
from tallystone.vault.answers import Span
from tallystone.vault.questions import Question
from tallystone.vault.vault import Vault

PAGE = 100
"""Things that are in memory at once."""
CHUNK = 64 * 1024
"""Bytes of the archive that are handed on at a time, at least."""
PATIENCE = 5.0
"""Seconds after which fewer are handed on: whoever waits for the first byte of a small archive that takes long to make,
of a few things in a long log, would take the server for dead. What fails before that is still answered as an error."""

README = """This is everything that one principal of a Tallystone workspace had at the time of the export.

Each .jsonl file has one JSON object a line. Times are ISO 8601 (UTC), days too; bytes are hexadecimal digits.

account.jsonl        who this is, and its tokens (never the secrets)
blocks.jsonl         memory blocks with their present content; rights "owner" are your own, others were shared with you
versions.jsonl       every version of these blocks that is kept and open to you, newest first; only if you asked for it
grants.jsonl         who holds your own blocks
agents.jsonl         your agents with their state
conversations.jsonl  what there is besides each agent's default conversation
messages.jsonl       the messages of all conversations
runs.jsonl           what your agents were asked to do, and how it ended
steps.jsonl          the steps of these runs: models and tokens used
passages.jsonl       what agents keep in their archives
roles.jsonl          roles that you own or are in
offers.jsonl         what others offered you and you have not taken
model_keys.jsonl     the providers of models that you gave keys for (never the keys)
events.jsonl         the part of the audit log that you can open, oldest first
"""

Step = Callable[[str, int], None]
"""Told, now and then, which file is written and how many lines it has so far."""


class _Made(RawIOBase):
    """Where the archive is written: nothing stays here longer than until it is taken."""

    def __init__(self) -> None:
        self._parts = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._parts += data
        return len(data)

    def take(self, least: int = 1) -> Iterator[bytes]:
        """What was written since, if it has that many bytes."""
        if len(self._parts) >= least:
            found, self._parts = bytes(self._parts), bytearray()
            yield found


def export_chunks(
    vault: Vault, *, versions: bool = False, counts: dict[str, int] | None = None, step: Step | None = None
) -> Iterator[bytes]:
    """The archive, in order, in parts of some `CHUNK` bytes. With `versions` it holds earlier versions of blocks as
    well. `counts` is told the lines of each file. Raises what reading raises, in the middle too."""
    counts, made, told = {} if counts is None else counts, _Made(), time.monotonic()
    with ZipFile(made, "w", ZIP_DEFLATED) as archive:
        archive.writestr("README.txt", README)
        for name, lines in _files(vault, versions=versions):
            counts[name] = 0
            with archive.open(f"{name}.jsonl", "w", force_zip64=True) as file:
                for line in lines:
                    file.write(json.dumps(line, default=_plain, ensure_ascii=False).encode() + b"\n")
                    counts[name] += 1
                    if step is not None:
                        step(name, counts[name])
                    yield from made.take(CHUNK)
            if time.monotonic() - told >= PATIENCE:
                yield from made.take()
                told = time.monotonic()
    yield from made.take()


def write_export(
    vault: Vault, target: IO[bytes], step: Step | None = None, *, versions: bool = False
) -> dict[str, int]:
    """Write the archive to `target` (writing is enough, seeking is not asked for). Returns the lines of each file."""
    counts: dict[str, int] = {}
    for chunk in export_chunks(vault, versions=versions, counts=counts, step=step):
        target.write(chunk)
    return counts


def lines_in(archive: IO[bytes]) -> dict[str, int]:
    """The lines of each file of an archive that came from elsewhere. Raises `TallystoneError` if it is not whole."""
    counts: dict[str, int] = {}
    try:
        with ZipFile(archive) as opened:
            for name in opened.namelist():
                with opened.open(name) as file:  # its checksum is compared as it is read
                    lines = sum(1 for _ in file)
                if name.endswith(".jsonl"):
                    counts[name.removesuffix(".jsonl")] = lines
    except (BadZipFile, DeflateError, OSError, ValueError, EOFError, NotImplementedError) as error:
        raise TallystoneError("the archive is damaged", hint="export again") from error
    return counts


def _files(vault: Vault, *, versions: bool) -> Iterator[tuple[str, Iterable[Any]]]:
    yield "account", _account(vault)
    yield "blocks", _pages(vault.blocks)
    if versions:
        yield "versions", _versions(vault)
    yield "grants", _grants(vault)
    yield "agents", _pages(vault.agents)
    yield "conversations", _conversations(vault)
    yield "messages", _messages(vault)
    yield "runs", _pages(vault.runs, None, lambda _: True)
    yield "steps", _pages(vault.steps, None, lambda _: True)
    yield "passages", _passages(vault)
    if vault.kind == "user":
        yield "roles", (vault.role(role.id) for role in vault.roles())
        yield "offers", vault.offers()
        yield "model_keys", vault.model_keys()
    yield "events", _events(vault)


def _account(vault: Vault) -> Iterator[Any]:
    yield {"id": vault.principal_id, "kind": vault.kind}
    yield from (user for user in vault.users() if user.id == vault.principal_id)
    yield from vault.tokens()


def _pages(ask: Callable[..., list[Any]], *given: Any) -> Iterator[Any]:
    """Everything that a list holds, a page at a time."""
    after: str | None = None
    while True:
        found = ask(*given, after=after, limit=PAGE)
        yield from found
        if len(found) < PAGE:
            return
        last = found[-1]
        after = str(last["id"] if isinstance(last, Mapping) else last.id)


def _versions(vault: Vault) -> Iterator[Any]:
    for block in _pages(vault.blocks):
        before: int | None = None
        while True:
            try:
                page = vault.versions(block.id, limit=PAGE, before=before, content=True)
            except NotFound:
                break  # gone meanwhile
            yield from ({"block": block.id, **dataclasses.asdict(one)} for one in page.versions)
            if page.older != "more" or not page.versions:
                break
            before = page.versions[-1].number


def _grants(vault: Vault) -> Iterator[Any]:
    for block in _pages(vault.blocks):
        if block.rights == "owner":
            for grant in vault.grants(block.id):
                yield {"block": block.id, **dataclasses.asdict(grant)}


def _talks(vault: Vault, agent: str) -> Iterator[Any]:
    beyond = 0
    while found := vault.conversations_from(agent, beyond, PAGE):
        yield from found
        beyond = int(found[-1]["position"])


def _conversations(vault: Vault) -> Iterator[Any]:
    for agent in _pages(vault.agents):
        yield from _talks(vault, agent.id)


def _messages(vault: Vault) -> Iterator[Any]:
    for agent in _pages(vault.agents):
        for message in _pages(vault.messages, agent.id):
            yield {"agent": agent.id, "conversation": "default", **message}
        for talk in _talks(vault, agent.id):
            for message in _pages(vault.messages, agent.id, talk["id"]):
                yield {"agent": agent.id, "conversation": talk["id"], **message}


def _passages(vault: Vault) -> Iterator[Any]:
    for agent in _pages(vault.agents):
        for passage in _pages(vault.passages, agent.id, lambda _: True):
            yield {"agent": agent.id, **passage}


def _events(vault: Vault) -> Iterator[Any]:
    """What is logged while this goes on is not in it, or it would not end."""
    span: Span | None = Span(oldest_first=True)
    while span is not None:
        page = vault.search_log(Question(), span, PAGE)
        yield from (found.event for found in page.events)
        span = page.onward


def _plain(value: object) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Mapping):
        return dict(value)
    raise TallystoneError(f"a {type(value).__name__} cannot be exported")
