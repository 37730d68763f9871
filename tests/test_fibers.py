"""Requests on the event loop (ADR 0039): waiting gives way, what has begun ends, what is long goes elsewhere."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar

import pytest
from server_fixtures import Served, server  # noqa: F401

from tallystone.server import fibers
from tallystone.server.fibers import Fibers, Lengthy
from tallystone.store.protocol import CommitObserver
from tallystone.store.sqlite import SqliteStore
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
