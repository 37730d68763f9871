"""A primary and its synchronous standby: whichever of them goes, and when, no acknowledged write goes along.

The clients, and what is held against them, are those of `make soak`, which does this at random for ten minutes.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import letta_client
import pytest
from server_fixtures import AUTHORITIES
from store_rows import FIRST_ROW, begin, check, counter, sequencer
from stores import postgresql_only

from bench.acknowledged import Client, Ledger, check_all, shared_block
from bench.cluster import Cluster, Node, cluster, until
from bench.serving import new_workspace, ours
from tallystone.errors import StoreError
from tallystone.store.protocol import Batch, Event, Put
from tallystone.store.tables import BLOCK, WORKSPACE, WS
from tallystone.vault import Workspace

pytestmark = postgresql_only

CLIENTS = 5
PATIENCE = 60


@pytest.fixture(scope="module")
def pair() -> Iterator[Cluster]:
    """One for all tests here, in their order: the last of them leaves one node."""
    with cluster(durable=False) as made:
        yield made


@pytest.fixture
def store(pair: Cluster) -> Iterator[Any]:
    """A store in an empty schema of the pair's database."""
    from tallystone.store.postgresql import PostgresqlStore

    pair.primary.ask("DROP SCHEMA IF EXISTS one CASCADE", "CREATE SCHEMA one", database="bench")
    with begin(PostgresqlStore(pair.url + "&options=-csearch_path%3Done", sequencer(), True)) as made:
        yield made


@contextmanager
def held(node: Node) -> Iterator[None]:
    """Its machine takes what is sent, and nothing is done with it."""
    node.hold()
    try:
        yield
    finally:
        node.go_on()


def waiting_for_the_standby(pair: Cluster) -> list[int]:
    """The server's processes whose commits wait so."""
    rows = pair.primary.ask("SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep'")
    return [row[0] for row in rows]


def in_thread(work: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    results: list[Any] = []

    def run() -> None:
        try:
            results.append(work())
        except StoreError as error:
            results.append(error.code)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, results


@pytest.mark.parametrize("how", ["pg_terminate_backend", "pg_cancel_backend"])
def test_a_commit_whose_wait_for_the_standby_is_cut_short_is_no_acknowledgement(
    pair: Cluster, store: Any, how: str
) -> None:
    store.commit(Batch(events=[Event("read", b"")]))
    with held(pair.standby):
        batch = Batch(changes=[Put(BLOCK, counter(1))], events=[Event("write", b"")])
        thread, results = in_thread(lambda: store.commit(batch))
        until(lambda: bool(waiting_for_the_standby(pair)), "the commit waits")
        (first,) = waiting_for_the_standby(pair)
        pair.primary.ask(f"SELECT {how}({first})")
        until(lambda: bool(set(waiting_for_the_standby(pair)) - {first}), "another commit waits in its place")
        with store.snapshot() as snapshot:  # it is there, on the primary alone
            assert snapshot.get(BLOCK, (WS, b"counter")) == counter(1)
        assert thread.is_alive() and results == []
    thread.join(PATIENCE)
    assert isinstance(results[0], int)
    assert check(store).ok


def test_a_standby_that_stays_away_is_an_answer_and_its_return_is_enough(
    pair: Cluster, store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tallystone.store import postgresql_session, postgresql_writer

    monkeypatch.setattr(postgresql_session, "ANSWER_SECONDS", 0.2)
    monkeypatch.setattr(postgresql_writer, "PATIENCE", 0.2)
    monkeypatch.setitem(postgresql_session._SETTINGS, "lock_timeout", "50ms")
    store.commit(Batch(events=[Event("read", b"")]))
    batch = Batch(changes=[Put(BLOCK, counter(1))])
    with held(pair.standby):
        codes = []
        for _ in range(3):
            with pytest.raises(StoreError) as caught:
                store.commit(batch)
            codes.append(caught.value.code)
            assert caught.value.hint
        assert codes == ["outcome_unknown", "busy", "busy"]
    until(lambda: not waiting_for_the_standby(pair), "the standby has it")
    with store.snapshot() as snapshot:  # what was not known has taken place
        assert snapshot.get(BLOCK, (WS, b"counter")) == counter(1)
    monkeypatch.undo()
    store.commit(Batch(changes=[Put(BLOCK, counter(2))]))
    assert check(store).ok


def test_a_standby_is_read_but_never_written_and_is_not_taken_for_the_primary(
    pair: Cluster, store: Any
) -> None:
    from tallystone.store.postgresql import PostgresqlStore

    alone = f"postgresql://postgres@127.0.0.1:{pair.standby.port}/bench?options=-csearch_path%3Done"
    with pytest.raises(StoreError) as caught:
        PostgresqlStore(alone + "&target_session_attrs=read-write", sequencer())
    assert caught.value.code == "read_only" and "promote" in caught.value.hint
    place = pair.primary.ask("SELECT pg_current_wal_insert_lsn()::text")[0][0]
    replayed = f"SELECT pg_last_wal_replay_lsn() >= '{place}'"
    until(lambda: pair.standby.ask(replayed) == [(True,)], "the standby has replayed the tables")
    with closing(PostgresqlStore(alone, sequencer())) as standby:
        with pytest.raises(StoreError) as caught:
            standby.commit(Batch(events=[Event("read", b"")]))
        assert caught.value.code == "read_only"
        with standby.snapshot() as snapshot:
            assert snapshot.get(WORKSPACE, (WS,)) == FIRST_ROW


@dataclass
class Served:
    """A server of two processes on the pair, and the same workspace without HTTP."""

    url: str
    token: str
    workspace: Workspace

    def letta(self, **options: Any) -> letta_client.Letta:
        """The unmodified client."""
        http = letta_client.DefaultHttpxClient(verify=AUTHORITIES)
        return letta_client.Letta(base_url=self.url, api_key=self.token, http_client=http, **options)


@pytest.fixture(scope="module")
def served(pair: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One server for all tests below. It is never restarted."""
    folder = tmp_path_factory.mktemp("failover")
    token = new_workspace(folder, pair.url)
    with (
        ours(folder / "data", token, workers=2) as server,
        Workspace.open(folder / "data", pair.url) as workspace,
    ):
        yield Served(server.url, token, workspace)


def test_a_primary_that_is_killed_under_load_takes_no_acknowledged_write_along(
    pair: Cluster, served: Served
) -> None:
    ledger, stop = Ledger(), threading.Event()
    shared = shared_block(served.url, served.token, ledger)
    clients = [Client(served.url, served.token, number, ledger, shared, seed=1) for number in range(CLIENTS)]
    for client in clients:
        client.prepare()
    blocks = [client.block for client in clients]
    threads = [threading.Thread(target=client.run, args=(stop, blocks)) for client in clients]
    for thread in threads:
        thread.start()
    until(lambda: len(ledger.times) > 50, "they work")
    pin = served.workspace.log.checkpoint()
    pair.fail_over()
    before = len(ledger.times)
    until(lambda: len(ledger.times) > before + 50, "they work again")
    stop.set()
    for thread in threads:
        thread.join(PATIENCE)
    assert not any(thread.is_alive() for thread in threads)
    check_all(clients, served.workspace.vault(served.token), shared)
    assert ledger.wrong == []
    report = served.workspace.verify(pin=pin)
    assert report.findings == [] and report.leaves > 100
    with served.letta() as letta:
        assert letta.blocks.retrieve(blocks[0]).value == clients[0].value


def test_a_database_that_goes_away_and_comes_back_needs_no_restart_of_the_server(
    pair: Cluster, served: Served
) -> None:
    with served.letta(max_retries=0) as letta:
        block = letta.blocks.create(label="kept", value="0").id
        pair.primary.kill()
        for _ in range(4):
            with pytest.raises(letta_client.InternalServerError) as caught:
                letta.blocks.update(block, value="1")
            assert caught.value.status_code == 503
            assert caught.value.response.json()["error"]["code"] == "unreachable"
            assert caught.value.response.headers["retry-after"] == "5"
        pair.primary.start()
        assert letta.blocks.update(block, value="2").value == "2"
        assert letta.blocks.retrieve(block).value == "2"
