"""The plaintext twin: what one would write with the same libraries without sealing, signatures and a log.

Starlette with its own routes, msgspec, one SQLite table with an index for lists, requests in the same number of
threads, as Starlette runs what is synchronous; or, as a second twin, in the fibers that ours runs in. Commits are
grouped by the same queue and as durable (WAL, `synchronous = FULL`), and the HTTP server around it is ours, with its
settings: `main` puts the twin in the place of our application. It serves creating, reading, listing and updating
blocks, answers with the same fields, and knows its callers by the hash of their token. Nothing else of ours is in it:
no agents, no history, no answers kept for retries. So it errs on the fast side.
"""

from __future__ import annotations

import hashlib
import sqlite3
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

import anyio
import anyio.to_thread
import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from tallystone.server import run
from tallystone.server.app import THREADS
from tallystone.server.fibers import Fibers
from tallystone.server.settings import Settings
from tallystone.store._commits import CommitQueue, Ticket
from tallystone.vault import Workspace
from tallystone.waiting import PLACE

T = TypeVar("T")
DATABASE = "twin.db"
LIMIT = 100_000
_SCHEMA = """
CREATE TABLE token (hash BLOB PRIMARY KEY, owner TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE block (
    id TEXT PRIMARY KEY, owner TEXT NOT NULL, position INTEGER NOT NULL, version INTEGER NOT NULL, label TEXT NOT NULL,
    value TEXT NOT NULL, description TEXT, size INTEGER NOT NULL, metadata BLOB NOT NULL, tags BLOB NOT NULL,
    read_only INTEGER NOT NULL, locked INTEGER NOT NULL, created INTEGER NOT NULL, updated INTEGER NOT NULL
);
CREATE INDEX block_position ON block (owner, position);
"""
_PLACES = ", ".join("?" * 14)
_INSERT, _REPLACE = f"INSERT INTO block VALUES ({_PLACES})", f"REPLACE INTO block VALUES ({_PLACES})"


class Fields(msgspec.Struct, omit_defaults=True):
    """The body of a POST or PATCH."""

    label: str | None = None
    value: str | None = None
    description: str | None = None
    limit: int | None = None
    metadata: dict[str, Any] | None = None
    tags: list[str] | None = None
    read_only: bool | None = None
    locked: bool | None = None


class Refused(Exception):
    """An answer that is none: status and detail."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status, self.detail = status, detail


def shown(row: tuple[Any, ...]) -> dict[str, Any]:
    """A row as the JSON object that `letta-client` reads, with the fields that our server adds."""
    (
        id_,
        owner,
        _,
        version,
        label,
        value,
        description,
        size,
        metadata,
        tags,
        read_only,
        locked,
        created,
        updated,
    ) = row
    return {
        "id": id_,
        "label": label,
        "value": value,
        "description": description,
        "limit": size,
        "metadata": msgspec.json.decode(metadata),
        "tags": msgspec.json.decode(tags),
        "read_only": bool(read_only),
        "hidden": None,
        "is_template": False,
        "template_name": None,
        "template_id": None,
        "base_template_id": None,
        "deployment_id": None,
        "entity_id": None,
        "project_id": None,
        "preserve_on_migration": False,
        "created_by_id": owner,
        "last_updated_by_id": owner,
        "agent_ids": [],
        "created_at": _stamp(created),
        "updated_at": _stamp(updated),
        "version": version,
        "locked": bool(locked),
        "owner": owner,
        "rights": "owner",
        "through": None,
        "sensitivity": "public",
        "allowed": None,
        "expires": None,
        "mutable": True,
        "append_only": False,
        "keep": "all",
        "audit_level": "durable",
        "updated_under": None,
    }


def _stamp(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat().replace("+00:00", "Z")


class PlainStore:
    """Blocks in clear. Safe to use from several threads."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._readers: deque[sqlite3.Connection] = deque()
        self._writer = self._connect()
        self._writer.execute("PRAGMA synchronous = FULL")
        self._writer.execute("PRAGMA fullfsync = ON")
        self._commits = CommitQueue(self._write)

    def read(self, token: str, work: Callable[[sqlite3.Connection, str], T]) -> T:
        """What `work` makes of a connection and the caller's name."""
        try:
            connection = self._readers.pop()
        except IndexError:
            connection = self._connect()
        try:
            return work(connection, _owner(connection, token))
        finally:
            self._readers.append(connection)

    def write(self, token: str, work: Callable[[sqlite3.Connection, str], T]) -> T:
        """The same in a transaction, durable when it returns; it shares the commit with others' that come at once."""
        done: list[T] = []

        def change(connection: sqlite3.Connection) -> None:
            done.append(work(connection, _owner(connection, token)))

        batch: Any = change  # the queue carries what its `write` understands: here no batch of rows
        self._commits.submit(batch)
        return done[0]

    def close(self) -> None:
        """Let go of the file."""
        self._commits.close()
        for connection in (self._writer, *self._readers):
            connection.close()

    def _write(self, group: list[Ticket]) -> None:
        self._writer.execute("BEGIN IMMEDIATE")
        for ticket in group:
            ticket.first = 0
            try:
                run_in: Any = ticket.batch
                run_in(self._writer)
            except Refused as refused:  # raised before anything is written
                ticket.error = refused
        PLACE.get().aside(self._commit)

    def _commit(self) -> None:
        self._writer.execute("COMMIT")

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA temp_store = MEMORY")
        return connection


def _owner(connection: sqlite3.Connection, token: str) -> str:
    row = connection.execute("SELECT owner FROM token WHERE hash = ?", (_hash(token),)).fetchone()
    if row is None:
        raise Refused(401, "this token opens nothing here")
    return str(row[0])


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def make(folder: Path, token: str, values: Iterable[tuple[str, str]]) -> list[str]:
    """A new twin's data with blocks of these labels and values; their ids."""
    folder.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(folder / DATABASE, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.executescript(_SCHEMA)
    connection.execute("BEGIN")
    connection.execute("INSERT INTO token VALUES (?, ?)", (_hash(token), _identity("user")))
    (owner,) = connection.execute("SELECT owner FROM token").fetchone()
    made = []
    for label, value in values:
        row = _row(owner, Fields(label=label, value=value))
        connection.execute(_INSERT, row)
        made.append(str(row[0]))
    connection.execute("COMMIT")
    connection.close()
    return made


def _identity(kind: str) -> str:
    return f"{kind}-{uuid.uuid4()}"


def _row(owner: str, fields: Fields) -> tuple[Any, ...]:
    value, size = fields.value or "", LIMIT if fields.limit is None else fields.limit
    if fields.label is None or len(value) > size:
        raise Refused(422, "a block needs a label, and a value no longer than its limit")
    now, metadata, tags = int(time.time() * 1000), fields.metadata or {}, fields.tags or []
    flags = bool(fields.read_only), bool(fields.locked)
    content = (
        fields.label,
        value,
        fields.description,
        size,
        msgspec.json.encode(metadata),
        msgspec.json.encode(tags),
    )
    return (_identity("block"), owner, time.time_ns(), 1, *content, *flags, now, now)


# -- the application --------------------------------------------------------------------------------------------


class Twin:
    """The ASGI application, with what our server calls on its own."""

    def __init__(self, folder: Path, threads: int, fibers: bool) -> None:
        self._store = PlainStore(folder / DATABASE)
        self._fibers = Fibers() if fibers else None
        self._threads = threads
        self._limiter: anyio.CapacityLimiter | None = None
        self.ready = True
        routes = [
            Route("/v1/blocks/", self._create, methods=["POST"]),
            Route("/v1/blocks/", self._list, methods=["GET"]),
            Route("/v1/blocks/{block}", self._retrieve, methods=["GET"]),
            Route("/v1/blocks/{block}", self._update, methods=["PATCH"]),
        ]
        self._app = Starlette(
            routes=routes, exception_handlers={Refused: _refused, msgspec.ValidationError: _invalid}
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        await self._app(scope, receive, send)

    def hush(self) -> None:
        """Nobody listens."""

    def note(self, **more: int) -> None:
        """Nothing is counted."""

    async def close(self) -> None:
        """End it."""
        if self._fibers is not None:
            self._fibers.close()
        self._store.close()

    async def _retrieve(self, request: Request) -> Response:
        block = request.path_params["block"]
        return await self._answer(
            request, self._store.read, lambda connection, owner: _find(connection, owner, block)
        )

    async def _list(self, request: Request) -> Response:
        limit, after = int(request.query_params.get("limit", "50")), request.query_params.get("after")
        return await self._answer(
            request, self._store.read, lambda connection, owner: _page(connection, owner, after, limit)
        )

    async def _create(self, request: Request) -> Response:
        fields = msgspec.json.decode(await request.body(), type=Fields)

        def work(connection: sqlite3.Connection, owner: str) -> tuple[Any, ...]:
            row = _row(owner, fields)
            connection.execute(_INSERT, row)
            return row

        return await self._answer(request, self._store.write, work)

    async def _update(self, request: Request) -> Response:
        fields = msgspec.json.decode(await request.body(), type=Fields)
        block = request.path_params["block"]

        def work(connection: sqlite3.Connection, owner: str) -> tuple[Any, ...]:
            row = _changed(_find(connection, owner, block), fields)
            connection.execute(_REPLACE, row)
            return row

        return await self._answer(request, self._store.write, work)

    async def _answer(self, request: Request, use: Callable[..., Any], work: Callable[..., Any]) -> Response:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme != "Bearer":
            raise Refused(401, "no token")
        found = await self._run(lambda: use(token, work))
        headers = {"cache-control": "no-store"}
        if isinstance(found, list):
            content = msgspec.json.encode([shown(row) for row in found])
        else:
            content, headers["etag"] = msgspec.json.encode(shown(found)), f'"{found[3]}"'
        return Response(content, headers=headers, media_type="application/json")

    async def _run(self, work: Callable[[], Any]) -> Any:
        if self._fibers is not None:
            return await self._fibers.run(work)
        if self._limiter is None:
            self._limiter = anyio.CapacityLimiter(self._threads)
        return await anyio.to_thread.run_sync(work, limiter=self._limiter)


def _find(connection: sqlite3.Connection, owner: str, block: str) -> tuple[Any, ...]:
    sql = "SELECT * FROM block WHERE id = ? AND owner = ?"
    row: tuple[Any, ...] | None = connection.execute(sql, (block, owner)).fetchone()
    if row is None:
        raise Refused(404, "block not found")
    return row


def _page(connection: sqlite3.Connection, owner: str, after: str | None, limit: int) -> list[tuple[Any, ...]]:
    position = _find(connection, owner, after)[2] if after else 0
    sql = "SELECT * FROM block WHERE owner = ? AND position > ? ORDER BY position LIMIT ?"
    return connection.execute(sql, (owner, position, limit)).fetchall()


def _changed(row: tuple[Any, ...], fields: Fields) -> tuple[Any, ...]:
    label, value, description, size, metadata, tags, read_only, locked = row[4:12]
    value = value if fields.value is None else fields.value
    size = size if fields.limit is None else fields.limit
    if len(value) > size:
        raise Refused(422, "the value is longer than the block's limit")
    return (
        *row[:3],
        row[3] + 1,
        fields.label or label,
        value,
        description if fields.description is None else fields.description,
        size,
        metadata if fields.metadata is None else msgspec.json.encode(fields.metadata),
        tags if fields.tags is None else msgspec.json.encode(fields.tags),
        read_only if fields.read_only is None else fields.read_only,
        locked if fields.locked is None else fields.locked,
        row[12],
        int(time.time() * 1000),
    )


async def _refused(request: Request, error: Exception) -> Response:
    status = error.status if isinstance(error, Refused) else 500
    return Response(msgspec.json.encode({"detail": str(error)}), status, media_type="application/json")


async def _invalid(request: Request, error: Exception) -> Response:
    return Response(msgspec.json.encode({"detail": str(error)}), 422, media_type="application/json")


def on_fibers(folder: str, ready: Connection) -> None:
    """`main`, with requests run as ours are."""
    main(folder, ready, fibers=True)


def main(folder: str, ready: Connection, *, fibers: bool = False) -> None:
    """Serve the twin in `folder` until SIGTERM; `ready` is told the URL. For a process of its own: from here on, our
    server in this process has the twin in place of our application, over a workspace that nobody uses."""

    def instead(workspace: Workspace, *, threads: int = THREADS, **_: object) -> Twin:
        return Twin(Path(folder), threads, fibers)

    setattr(run, "App", instead)  # noqa: B010 -- as text: mypy minds a class that is replaced
    unused = Path(folder) / "unused"
    with Workspace.init(unused)[0] as workspace:
        run.serve(workspace, Settings(port=0, log_level="error", check_every=0), ready.send)
