"""Everything that a principal has here as one archive: for access and portability.

A zip of JSON lines, one file a kind of thing, written page by page: memory does not grow with what there is. Each page
is an operation of its own, logged like any other read; what changes meanwhile is exported as each page finds it.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import date, datetime
from typing import IO, Any
from zipfile import ZIP_DEFLATED, ZipFile

from tallystone.errors import TallystoneError
from tallystone.vault.vault import Vault

PAGE = 100
"""Things that are in memory at once."""

README = """This is everything that one principal of a Tallystone workspace had at the time of the export.

Each .jsonl file has one JSON object a line. Times are ISO 8601 (UTC), days too; bytes are hexadecimal digits.

account.jsonl        who this is, and its tokens (never the secrets)
blocks.jsonl         memory blocks with their present content; rights "owner" are your own, others were shared with you
grants.jsonl         who holds your own blocks
agents.jsonl         your agents with their state
conversations.jsonl  what there is besides each agent's default conversation
messages.jsonl       the messages of all conversations
passages.jsonl       what agents keep in their archives
roles.jsonl          roles that you own or are in
events.jsonl         the part of the audit log that you can open, newest first in each hundred thousand
"""

Step = Callable[[str, int], None]
"""Told, now and then, which file is written and how many lines it has so far."""


def write_export(vault: Vault, target: IO[bytes], step: Step = lambda name, lines: None) -> dict[str, int]:
    """Write the archive to `target` (writing is enough, seeking is not asked for). Returns the lines of each file."""
    counts: dict[str, int] = {}
    with ZipFile(target, "w", ZIP_DEFLATED) as archive:
        archive.writestr("README.txt", README)
        for name, lines in _files(vault):
            counts[name] = 0
            with archive.open(f"{name}.jsonl", "w", force_zip64=True) as file:
                for line in lines:
                    file.write(json.dumps(line, default=_plain, ensure_ascii=False).encode() + b"\n")
                    counts[name] += 1
                    step(name, counts[name])
    return counts


def _files(vault: Vault) -> Iterator[tuple[str, Iterable[Any]]]:
    yield "account", _account(vault)
    yield "blocks", _pages(vault.blocks)
    yield "grants", _grants(vault)
    yield "agents", _pages(vault.agents)
    yield "conversations", vault.conversations(None, lambda _: True)
    yield "messages", _messages(vault)
    yield "passages", _passages(vault)
    if vault.kind == "user":
        yield "roles", (vault.role(role.id) for role in vault.roles())
    yield "events", vault.events(_EVERY_EVENT)


_EVERY_EVENT = 2**31


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


def _grants(vault: Vault) -> Iterator[Any]:
    for block in _pages(vault.blocks):
        if block.rights == "owner":
            for grant in vault.grants(block.id):
                yield {"block": block.id, **dataclasses.asdict(grant)}


def _messages(vault: Vault) -> Iterator[Any]:
    for agent in _pages(vault.agents):
        talks = vault.conversations(agent.id, lambda _: True)
        for conversation in (None, *(talk["id"] for talk in talks)):
            named = () if conversation is None else (conversation,)
            for message in _pages(vault.messages, agent.id, *named):
                yield {"agent": agent.id, "conversation": conversation or "default", **message}


def _passages(vault: Vault) -> Iterator[Any]:
    for agent in _pages(vault.agents):
        for passage in _pages(vault.passages, agent.id, lambda _: True):
            yield {"agent": agent.id, **passage}


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
