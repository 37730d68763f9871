"""The change feed over HTTP and at the terminal: streams that end, resume, are limited, and cost little."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from server_fixtures import AUTHORITIES, Served, fresh_server, server  # noqa: F401

from tallystone.errors import StoreError
from tallystone.server.feed import Pump
from tallystone.server.run import running
from tallystone.server.settings import Settings
from tallystone.vault import Vault, Workspace
from tallystone.vault.types import Block

QUIET = Settings(port=0, refusals=100_000, log_level="error")
SOON = 1.0
"""Seconds within which a stream must have ended."""


class Stream:
    """An open stream, read event by event."""

    def __init__(self, answer: httpx.Response) -> None:
        self.answer = answer
        self.id = ""
        self.lines = answer.iter_lines()

    def next(self) -> dict[str, Any]:
        """The next event. Fails when the stream has ended."""
        for line in self.lines:
            if line.startswith("id: "):
                self.id = line[4:]
            elif line.startswith("data: "):
                event: dict[str, Any] = json.loads(line[6:])
                return event
        raise AssertionError("the stream has ended")

    def rest(self) -> list[str]:
        return [line for line in self.lines if line]


@contextmanager
def listening(url: str, token: str, after: str = "", **query: Any) -> Iterator[Stream]:
    headers = {"authorization": f"Bearer {token}", **({"last-event-id": after} if after else {})}
    with (
        httpx.Client(
            base_url=url, headers=headers, trust_env=False, verify=AUTHORITIES, timeout=20
        ) as client,
        client.stream("GET", "/v1/events", params=query) as answer,
    ):
        assert answer.status_code == 200, answer.read()
        yield Stream(answer)


def append(vault: Vault, block: Block | str) -> int:
    name = block if isinstance(block, str) else block.id
    return vault.edit_block(name, lambda now: {"value": now.value + "."}).version


def shared(served: Served, name: str) -> tuple[str, Block]:
    """A new user, and a block that it may read."""
    token = served.add_user(name)
    block = served.vault().create_block(label=f"for {name}")
    served.vault().share(block.id, name, "read")
    served.vault(token).accept_offer(block.id)
    return token, block


def test_a_stream_says_which_block_changed_and_no_more(server: Served) -> None:  # noqa: F811
    token, block = shared(server, "ada")
    with listening(server.url, token) as stream:
        headers = stream.answer.headers
        assert headers["content-type"].startswith("text/event-stream")
        assert (headers["cache-control"], headers["x-accel-buffering"]) == ("no-store", "no")
        assert stream.next() == {"number": 0, "kind": "ready"}
        append(server.vault(), block)
        assert stream.next() == {"number": 1, "kind": "updated", "block_id": block.id, "version": 2}


@pytest.mark.parametrize("how", ["revoked", "inactive", "grant"])
def test_access_that_ends_is_heard_within_a_second(server: Served, how: str) -> None:  # noqa: F811
    token, block = shared(server, f"user {how}")
    owner, user = server.vault(), server.vault(token)
    with listening(server.url, user.create_token(label="spare")) as stream:
        stream.next()
        if how == "revoked":
            user.revoke_token(next(one.kid for one in user.tokens() if one.label == "spare"))
        elif how == "inactive":
            owner.suspend(f"user {how}")
        else:
            owner.revoke(block.id, f"user {how}")
        began = time.monotonic()
        append(owner, block)
        event = stream.next()
        assert time.monotonic() - began < SOON
        if how == "grant":
            assert event == {"number": 1, "kind": "removed", "block_id": block.id, "version": None}
        else:
            assert event == {"number": 1, "kind": "end", "code": how}
            assert stream.rest() == []


def test_bad_tokens_ids_and_blocks_are_refused_before_a_stream_begins(server: Served) -> None:  # noqa: F811
    token, block = shared(server, "grace")
    user = server.vault(token)
    gone = user.create_token(label="gone")
    user.revoke_token(next(one.kid for one in user.tokens() if one.label == "gone"))
    with listening(server.url, server.token) as stream:
        stream.next()
        foreign = stream.id
    for headers, query, status, code in (
        ({"authorization": f"Bearer {gone}"}, {}, 401, "unauthenticated"),
        ({"authorization": "Bearer tally_x"}, {}, 401, "unauthenticated"),
        ({"last-event-id": "12"}, {}, 400, "bad_cursor"),
        ({"last-event-id": foreign}, {}, 400, "bad_cursor"),
        ({"last-event-id": foreign[:-1]}, {}, 400, "bad_cursor"),
        ({}, {"block_id": "nonsense"}, 422, "bad_id"),
        ({}, {"block_id": [block.id, "block-00000000-0000-4000-8000-000000000000"]}, 404, "not_found"),
    ):
        client = server.http(token)
        answer = client.get("/v1/events", params=query, headers=headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
        assert answer.json()["error"]["hint"]


def test_a_stream_goes_on_at_a_server_that_was_restarted(tmp_path: Path) -> None:
    workspace, you = Workspace.init(tmp_path / "data")
    vault = workspace.vault(you.token)
    block = vault.create_block(label="notes")
    with workspace, running(workspace, QUIET) as url, listening(url, you.token) as stream:
        stream.next()
        append(vault, block)
        assert stream.next()["number"] == 1
        last = stream.id
    with Workspace.open(tmp_path / "data") as again:
        vault = again.vault(you.token)
        append(vault, block)
        fresh = vault.create_block(label="fresh")
        with running(again, QUIET) as url, listening(url, you.token, after=last) as stream:
            assert stream.next()["kind"] == "ready"
            told = {
                (event["kind"], event["block_id"], event["number"])
                for event in (stream.next(), stream.next())
            }
            assert {(kind, block_id) for kind, block_id, _ in told} == {
                ("updated", block.id),
                ("created", fresh.id),
            }
            assert {number for _, _, number in told} == {2, 3}


def test_a_server_that_stops_lets_its_listeners_go(tmp_path: Path) -> None:
    workspace, you = Workspace.init(tmp_path / "data")
    with workspace:
        with running(workspace, QUIET) as url:
            scope = listening(url, you.token)
            stream = scope.__enter__()
            stream.next()
            began = time.monotonic()
        assert time.monotonic() - began < 5  # not the 30 s of grace
        assert stream.next() == {"number": 1, "kind": "end", "code": "stopping"}
        assert stream.rest() == []
        scope.__exit__(None, None, None)


def test_another_process_commits_and_this_one_streams(fresh_server: Served, tmp_path: Path) -> None:  # noqa: F811
    block = fresh_server.vault().create_block(label="notes")
    script = (
        "import sys, tallystone, os\nwith tallystone.open(sys.argv[1], token=os.environ['TOKEN']) as vault:\n"
    )
    script += "    vault.edit_block(sys.argv[2], lambda now: {'value': 'written elsewhere'})\n"
    with listening(fresh_server.url, fresh_server.token) as stream:
        stream.next()
        subprocess.run(
            [sys.executable, "-c", script, str(tmp_path / "data"), block.id],
            check=True,
            env={**os.environ, "TOKEN": fresh_server.token},
        )
        assert stream.next() == {"number": 1, "kind": "updated", "block_id": block.id, "version": 2}


def test_more_streams_than_allowed_are_told_to_come_again(tmp_path: Path) -> None:
    workspace, you = Workspace.init(tmp_path / "data")
    other = workspace.vault(you.token).add_user("ada").token
    settings = Settings(port=0, log_level="error", listeners=3, listeners_each=2)
    with (
        workspace,
        running(workspace, settings) as url,
        httpx.Client(base_url=url, trust_env=False, verify=AUTHORITIES) as client,
        listening(url, you.token) as one,
        listening(url, you.token) as two,
    ):
        for stream in (one, two):
            stream.next()
        answers = [client.get("/v1/events", headers={"authorization": f"Bearer {you.token}"})]
        with listening(url, other) as three:
            three.next()
            answers.append(client.get("/v1/events", headers={"authorization": f"Bearer {other}"}))
        assert [(a.status_code, a.json()["error"]["code"]) for a in answers] == [
            (429, "too_many_streams"),
            (503, "too_many_streams"),
        ]
        assert all(int(answer.headers["retry-after"]) > 0 for answer in answers)


def test_a_users_agents_count_with_the_user(tmp_path: Path) -> None:
    workspace, you = Workspace.init(tmp_path / "data")
    vault = workspace.vault(you.token)
    agents = [vault.agent_token(vault.create_agent({"name": name}).id) for name in ("ari", "bo", "cy")]
    other = vault.add_user("ada").token
    settings = Settings(port=0, log_level="error", listeners_each=2)
    with (
        workspace,
        running(workspace, settings) as url,
        httpx.Client(base_url=url, trust_env=False, verify=AUTHORITIES) as client,
        listening(url, agents[0]) as one,
        listening(url, agents[1]) as two,
    ):
        for stream in (one, two):
            stream.next()
        for token in (agents[2], you.token):
            answer = client.get("/v1/events", headers={"authorization": f"Bearer {token}"})
            assert (answer.status_code, answer.json()["error"]["code"]) == (429, "too_many_streams")
        with listening(url, other) as three:
            three.next()


# -- without sockets: what a pump does with many listeners, and with bad ones ------------------------------------


class Peer:
    """A connection as the pump sees it: keeps what it was sent; `stuck` never takes the second write."""

    def __init__(self, stuck: bool = False) -> None:
        self.sent: list[bytes] = []
        self.left, self.got, self.stuck = asyncio.Event(), asyncio.Event(), stuck

    async def receive(self) -> dict[str, Any]:
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        body = message.get("body", b"")
        if self.stuck and b"updated" in body:
            await asyncio.Event().wait()
        self.sent.append(body)
        self.got.set()

    @property
    def events(self) -> list[dict[str, Any]]:
        lines = b"".join(self.sent).splitlines()
        return [json.loads(line[6:]) for line in lines if line.startswith(b"data: ")]

    async def until(self, kind: str) -> None:
        while not any(event["kind"] == kind for event in self.events):
            self.got.clear()
            await asyncio.wait_for(self.got.wait(), 30)


def test_a_thousand_listeners_hear_and_end(workspace: Workspace, alice: Vault) -> None:
    block = alice.create_block(label="notes")
    alice.create_block(label="quiet")
    token = alice.create_token(label="spare")
    spare = workspace.vault(token)

    async def scenario() -> None:
        pump = Pump(workspace, listeners=1000, listeners_each=1000)
        peers = [Peer() for _ in range(1000)]
        streams = []
        for peer in peers:
            serve = pump.stream(spare.subscribe(), {})
            streams.append(asyncio.create_task(serve({}, peer.receive, peer.send)))  # type: ignore[arg-type]
        await asyncio.gather(*(peer.until("ready") for peer in peers))
        with pytest.raises(Exception, match="too often"):
            pump.admit(alice.principal_id)
        await asyncio.to_thread(append, alice, block)
        await asyncio.gather(*(peer.until("updated") for peer in peers))
        kid = next(one.kid for one in alice.tokens() if one.label == "spare")
        await asyncio.to_thread(alice.revoke_token, kid)
        await asyncio.gather(*streams)
        assert all([event["kind"] for event in peer.events] == ["ready", "updated", "end"] for peer in peers)
        assert len(pump._ears) == len(pump._feed) == len(pump._feed._listeners) == 0
        assert not pump._of

    asyncio.run(scenario())


def test_whoever_never_reads_is_cut_off_and_holds_up_nobody(workspace: Workspace, alice: Vault) -> None:
    block = alice.create_block(label="notes")

    async def scenario() -> None:
        pump = Pump(workspace, stuck_seconds=0.1)
        stuck, fine = Peer(stuck=True), Peer()
        deaf = alice.subscribe()
        tasks = [
            asyncio.create_task(pump.stream(subscription, {})({}, peer.receive, peer.send))  # type: ignore[arg-type]
            for subscription, peer in ((deaf, stuck), (alice.subscribe(), fine))
        ]
        await asyncio.gather(stuck.until("ready"), fine.until("ready"))
        for _ in range(20):
            await asyncio.to_thread(append, alice, block)
        assert len(deaf._pending) <= 1
        await asyncio.wait_for(tasks[0], 10)
        assert [event["kind"] for event in stuck.events] == ["ready"]
        assert len(pump._ears) == 1
        await asyncio.to_thread(alice.delete_block, block.id)
        await fine.until("removed")
        fine.left.set()
        await asyncio.wait_for(tasks[1], 10)
        assert not pump._ears and not pump._feed._listeners

    asyncio.run(scenario())


def test_a_silent_stream_shows_that_it_is_alive_whatever_others_do(
    workspace: Workspace, alice: Vault
) -> None:
    async def scenario() -> None:
        pump, peer = Pump(workspace, ping_seconds=0), Peer()
        serve = pump.stream(alice.subscribe(), {})
        task = asyncio.create_task(serve({}, peer.receive, peer.send))  # type: ignore[arg-type]
        while sum(b": still here\nid: " in body for body in peer.sent) < 2:
            peer.got.clear()
            await asyncio.wait_for(peer.got.wait(), 10)
        assert len({len(body) for body in peer.sent if body.startswith(b":")}) == 1
        peer.left.set()
        await asyncio.wait_for(task, 10)

    asyncio.run(scenario())


def test_a_store_that_fails_ends_the_streams_with_its_code(
    workspace: Workspace, alice: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        pump, peer = Pump(workspace), Peer()
        serve = pump.stream(alice.subscribe(), {})
        task = asyncio.create_task(serve({}, peer.receive, peer.send))  # type: ignore[arg-type]
        await peer.until("ready")

        def broken() -> None:
            raise StoreError("the disk is gone")

        monkeypatch.setattr(pump._feed, "poll", broken)
        await asyncio.wait_for(task, 10)
        assert peer.events[-1] == {"number": 1, "kind": "end", "code": "store"}

    asyncio.run(scenario())


# -- the terminal -------------------------------------------------------------------------------------------------


@contextmanager
def terminal(token: str, *words: str) -> Iterator[subprocess.Popen[str]]:
    # tests that run in the background inherit that interrupts are ignored, and would pass that on
    heeding = (
        "import signal, sys; from tallystone.cli import main; "
        "signal.signal(signal.SIGINT, signal.default_int_handler); sys.exit(main())"
    )
    command = [sys.executable, "-c", heeding, "watch", *words]
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith("TALLYSTONE_")},
        "TALLYSTONE_TOKEN": token,
    }
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("place", ["directory", "server"])
def test_the_terminal_says_what_changes_until_access_ends(
    fresh_server: Served,  # noqa: F811
    tmp_path: Path,
    place: str,
) -> None:
    token, block = shared(fresh_server, "ada")
    folder = str(tmp_path / "data")
    where = ("--data", folder) if place == "directory" else ("--url", fresh_server.url)
    owner = fresh_server.vault()
    with terminal(token, *where) as process:
        assert process.stdout and process.stderr
        assert process.stderr.readline() == "watching; interrupt to stop\n"
        append(owner, block)
        assert process.stdout.readline() == f"1\tupdated\t{block.id}\tversion 2\n"
        owner.revoke(block.id, "ada")
        assert process.stdout.readline() == f"2\tremoved\t{block.id}\n"
        owner.suspend("ada")
        assert process.wait(10) == 1
        assert process.stderr.read() == "error: access has ended\nhint: ask whoever gave it\n"


def test_the_terminal_prints_json_and_takes_a_lost_stream_up_again(tmp_path: Path) -> None:
    workspace, you = Workspace.init(tmp_path / "data")
    vault = workspace.vault(you.token)
    block = vault.create_block(label="notes")
    with workspace:
        with running(workspace, QUIET) as url:
            port = int(url.rpartition(":")[2])
            process = terminal(you.token, block.id, "--url", url, "--json")
            watching = process.__enter__()
            assert watching.stdout and watching.stderr
            assert watching.stderr.readline() == "watching; interrupt to stop\n"
            append(vault, block)
            first = json.loads(watching.stdout.readline())
        append(vault, block)
        with running(workspace, Settings(port=port, log_level="error")):
            second = json.loads(watching.stdout.readline())
        watching.send_signal(signal.SIGINT)
        assert watching.wait(10) == 130
        process.__exit__(None, None, None)
    assert [(line["number"], line["kind"], line["version"]) for line in (first, second)] == [
        (1, "updated", 2),
        (2, "updated", 3),
    ]
    assert first["block_id"] == block.id


def test_the_terminal_refuses_a_block_that_is_not_there(tmp_path: Path) -> None:
    workspace, you = Workspace.init(tmp_path / "data")
    workspace.close()
    nobodys = "block-00000000-0000-4000-8000-000000000000"
    with terminal(you.token, nobodys, "--data", str(tmp_path / "data")) as process:
        assert process.wait(20) == 1
        assert process.stderr and process.stderr.read().startswith(
            f"error: Block {nobodys} not found\nhint: "
        )
