"""Requests on the event loop (ADR 0039): waiting gives way, what has begun ends, what is long goes elsewhere."""

from __future__ import annotations

import asyncio
import select
import socket
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar

import pytest
from server_fixtures import Served, fresh_server, server  # noqa: F401
from stores import postgresql_only

from tallystone.server import fibers
from tallystone.server.app import THREADS
from tallystone.server.fibers import Fibers, Lengthy
from tallystone.store._rows import LOG
from tallystone.store.opening import locate
from tallystone.store.protocol import CommitObserver
from tallystone.store.sqlite import SqliteStore
from tallystone.store.tables import TABLES, Row
from tallystone.vault import Workspace
from tallystone.waiting import PLACE, Turns

WHO: ContextVar[str] = ContextVar("who", default="nobody")


def _wait(opened: threading.Event) -> None:
    assert opened.wait(30)


def test_while_one_request_waits_for_its_block_others_are_answered(server: Served) -> None:  # noqa: F811
    block = server.letta().blocks.create(label="busy", value="a")
    with ThreadPoolExecutor(1) as pool:
        with server.workspace.stripes.of(block.id).turns:
            waiting = pool.submit(server.letta().blocks.update, block.id, value="b")
            for _ in range(50):
                assert server.http().get("/v1/health/").status_code == 200
                assert server.letta().blocks.retrieve(block.id).value == "a"
            assert not waiting.done()
        assert waiting.result(30).value == "b"


class _Counting(CommitObserver):
    def __init__(self) -> None:
        self.groups: list[int] = []

    def wrote(self, batches: int, refused: int, seconds: float) -> None:
        self.groups.append(batches)

    def waited(self, began: int, ended: int) -> None:
        assert began <= ended


def test_requests_that_come_while_a_commit_is_written_share_the_next(server: Served) -> None:  # noqa: F811
    store = server.workspace.store
    if not isinstance(store, SqliteStore):
        pytest.skip(
            "another writer is played by a lock on SQLite's file; test_postgresql counts groups there"
        )
    block = server.letta().blocks.create(label="read", value="by many")
    seen = _Counting()
    store.observe(seen)
    clients = [server.letta() for _ in range(12)]
    other = sqlite3.connect(store.path, isolation_level=None)
    with ThreadPoolExecutor(12) as pool, server.http() as health:

        def until(reached: Callable[[], bool]) -> None:
            while not reached():
                assert health.get("/v1/health/").status_code == 200

        other.execute("BEGIN IMMEDIATE")
        first = pool.submit(clients.pop().blocks.retrieve, block.id)
        until(lambda: store._commits._led and not store.waiting())
        found = [pool.submit(client.blocks.retrieve, block.id) for client in clients]
        until(lambda: store.waiting() == 11)
        other.execute("ROLLBACK")
        assert {one.result(30).value for one in [first, *found]} == {"by many"}
    other.close()
    assert sum(seen.groups) == 12 and len(seen.groups) <= 2  # those who came join, or are the next group


def test_work_that_turns_out_long_is_done_once_and_elsewhere(
    server: Served,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client = server.letta()
    monkeypatch.setattr(fibers, "PATIENCE", -1.0)
    made = client.blocks.create(label="long", value="once")
    assert client.blocks.update(made.id, value="twice").value == "twice"
    monkeypatch.undo()
    assert [block.id for block in client.blocks.list(label="long")] == [made.id]
    assert client.blocks.retrieve(made.id).value == "twice"


def test_what_has_waited_is_never_begun_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fibers, "PATIENCE", -1.0)

    def before() -> None:
        PLACE.get().tick()

    def after() -> str:
        PLACE.get().aside(lambda: None)
        PLACE.get().tick()
        return "went on"

    async def main() -> str:
        runner = Fibers()
        with pytest.raises(Lengthy):
            await runner.run(before)
        return await runner.run(after)

    assert asyncio.run(main()) == "went on"


def test_what_has_begun_ends_although_nobody_waits_for_it_any_more() -> None:
    reached, opened, done = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        PLACE.get().aside(lambda: (reached.set(), _wait(opened))[1])
        done.set()

    async def main() -> None:
        task = asyncio.ensure_future(Fibers().run(work))
        while not reached.is_set():
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.sleep(0)
        assert not task.done()
        opened.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert done.is_set()


def test_each_fiber_has_a_context_of_its_own() -> None:
    def work() -> str:
        before = WHO.get()
        WHO.set(before + "!")
        PLACE.get().aside(lambda: None)
        return WHO.get()

    async def main() -> list[str]:
        runner = Fibers()

        async def one(name: str) -> str:
            WHO.set(name)
            return await runner.run(work)

        return await asyncio.gather(*(one(name) for name in ("a", "b", "c")))

    assert asyncio.run(main()) == ["a!", "b!", "c!"]
    assert WHO.get() == "nobody"


def test_what_is_raised_aside_is_raised_in_the_fiber() -> None:
    def broken() -> None:
        raise ValueError("as it was")

    async def main() -> None:
        await Fibers().run(lambda: PLACE.get().aside(broken))

    with pytest.raises(ValueError, match="as it was"):
        asyncio.run(main())


def test_fibers_and_threads_take_turns_in_the_order_of_asking() -> None:
    turns, order, taken, let_go = Turns(), [], threading.Event(), threading.Event()

    def hold() -> None:
        with turns:
            taken.set()
            _wait(let_go)

    def fiber(name: str) -> None:
        with turns:
            order.append(name)
            PLACE.get().aside(lambda: None)  # gives way with the turn in hand
            order.append(name)

    async def main() -> None:
        runner = Fibers()
        waiting = [asyncio.ensure_future(runner.run(lambda name=name: fiber(name))) for name in "abc"]
        await asyncio.sleep(0)
        let_go.set()
        await asyncio.gather(*waiting)

    thread = threading.Thread(target=hold)
    thread.start()
    _wait(taken)
    asyncio.run(main())
    thread.join()
    assert order == ["a", "a", "b", "b", "c", "c"]
    with turns:
        order.append("free")
    assert order[-1] == "free"


# -- sockets -------------------------------------------------------------------------------------------------------


def _told(reader: socket.socket, *, seconds: float = 30, writing: bool = False) -> bytes | None:
    """What comes through a socket, as a driver of a database waits for it; None if nothing does."""
    if not PLACE.get().ready(reader.fileno(), seconds, writing=writing):
        return None
    return reader.recv(100) if not writing else b""


def test_fibers_wait_for_sockets_of_their_own_and_again_for_the_same() -> None:
    pairs = [socket.socketpair() for _ in range(5)]

    async def main() -> list[list[bytes | None]]:
        runner = Fibers()
        waiting = [
            asyncio.ensure_future(runner.run(lambda end=end: [_told(end), _told(end)])) for end, _ in pairs
        ]
        await asyncio.sleep(0)
        for turn in (b"first", b"second"):
            for _, other in reversed(pairs):
                other.send(turn)
            while any(
                len(end.recv(100, socket.MSG_PEEK | socket.MSG_DONTWAIT)) for end, _ in pairs if _has(end)
            ):
                await asyncio.sleep(0)  # until each has taken what was said to it
        found = await asyncio.gather(*waiting)
        runner.close()
        return found

    assert asyncio.run(main()) == [[b"first", b"second"]] * 5
    for end, other in pairs:
        end.close(), other.close()


def _has(end: socket.socket) -> bool:
    return bool(select.select([end], [], [], 0)[0])


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_socket_that_says_nothing_is_given_up_and_the_loop_goes_on(
    monkeypatch: pytest.MonkeyPatch, loop: str
) -> None:
    monkeypatch.setattr(fibers, "_LOOK", 0.01)
    silent, other = socket.socketpair()
    factory = asyncio.new_event_loop if loop == "asyncio" else pytest.importorskip("uvloop").new_event_loop

    async def main() -> list[bytes | None]:
        runner = Fibers()
        found = [
            await runner.run(lambda: _told(silent, seconds=0.01)),
            await runner.run(lambda: _told(silent, writing=True)),
        ]
        other.send(b"late")
        found.append(await runner.run(lambda: _told(silent)))
        runner.close()
        return found

    with asyncio.Runner(loop_factory=factory) as runner:
        assert runner.run(main()) == [None, b"", b"late"]
    silent.close(), other.close()


def test_what_cannot_be_begun_again_goes_on_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fibers, "SLICE", -1.0)
    there: set[str] = set()

    def work(name: str) -> bool:
        PLACE.get().aside(lambda: None)
        there.add(name)
        for _ in range(100_000):
            if len(there) == 2:
                return True
            PLACE.get().tick()  # the other is let in
        return False

    async def main() -> list[bool]:
        runner = Fibers()
        return await asyncio.gather(runner.run(lambda: work("a")), runner.run(lambda: work("b")))

    assert asyncio.run(main()) == [True, True]


def test_more_work_than_may_be_under_way_waits_in_line() -> None:
    under_way, most = 0, 0

    def work() -> None:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        PLACE.get().aside(lambda: None)
        under_way -= 1

    async def main() -> None:
        runner = Fibers(3)
        await asyncio.gather(*(runner.run(work) for _ in range(12)))

    asyncio.run(main())
    assert most == 3


def test_what_waits_when_a_server_stops_still_ends() -> None:
    """Its grace is over, its requests are cancelled, and the loop waits for their end."""
    silent, other = socket.socketpair()

    def work() -> None:
        assert _told(silent) == b"at last"
        PLACE.get().aside(lambda: other.send(b"more"))
        assert _told(silent) == b"more"

    async def main() -> None:
        runner = Fibers()
        task = asyncio.ensure_future(runner.run(work))
        await asyncio.sleep(0)
        task.cancel()
        runner.close()
        other.send(b"at last")
        await asyncio.wait({task}, timeout=10)
        assert task.cancelled()
        assert runner._sockets is None
        with pytest.raises(RuntimeError):
            runner._aside.submit(print)

    loop = asyncio.new_event_loop()
    loop.run_until_complete(main())
    loop.close()
    silent.close(), other.close()


# -- a database that does not answer --------------------------------------------------------------------------------


@postgresql_only
def test_those_that_share_a_view_ask_one_after_the_other(workspace: Workspace) -> None:
    tables = [table for table in TABLES if table.name not in LOG]
    snapshot = workspace.store.snapshot()

    async def main() -> list[list[Row]]:
        runner = Fibers()
        with snapshot:
            found = await asyncio.gather(
                *(runner.run(lambda table=table: list(snapshot.rows(table))) for table in tables)
            )
        runner.close()
        return found

    with workspace.store.snapshot() as alone:
        assert asyncio.run(main()) == [list(alone.rows(table)) for table in tables]


@postgresql_only
def test_while_the_database_is_silent_others_are_answered_and_sessions_are_bounded(
    fresh_server: Served,  # noqa: F811
) -> None:
    import psycopg

    block = fresh_server.letta().blocks.create(label="oak", value="there")
    sessions = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
    url = locate(fresh_server.workspace.folder)
    with psycopg.connect(str(url)) as other, fresh_server.http() as client, ThreadPoolExecutor(80) as pool:
        other.execute("LOCK TABLE log_head IN ACCESS EXCLUSIVE MODE")
        asked = [pool.submit(client.get, f"/v1/blocks/{block.id}") for _ in range(80)]
        while other.execute(f"{sessions} AND wait_event_type = 'Lock'").fetchone() == (0,):
            assert client.get("/v1/health/").status_code == 200
        for _ in range(50):
            assert client.get("/v1/health/").status_code == 200
        (count,) = other.execute(f"{sessions} AND application_name = 'tallystone'").fetchone() or (0,)
        other.rollback()
        assert {one.result(30).json()["value"] for one in asked} == {"there"}
    assert 0 < count <= 2 * THREADS + 4  # those of short requests, the writer's, and what a thread may hold
