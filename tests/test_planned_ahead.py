"""Changes of one block are planned on what those before have queued, and go to the disk together (ADR 0047)."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from functools import partial
from threading import Thread
from typing import Any

import pytest
from stores import sqlite_only

from tallystone.errors import Conflict, TallystoneError, Unauthenticated
from tallystone.store.tables import BLOCK, VERSION, WS
from tallystone.vault import Vault, Workspace
from tallystone.vault.stripes import Ahead, Unsettled
from tallystone.vault.types import Block, Credentials

pytestmark = sqlite_only("who commits is made to wait for SQLite's file")

Fields = Mapping[str, Any]


def append(text: str) -> Callable[[Block], Fields]:
    return lambda block: {"value": block.value + text}


class Groups:
    def __init__(self) -> None:
        self.sizes: list[tuple[int, int]] = []

    def wrote(self, batches: int, refused: int, seconds: float) -> None:
        self.sizes.append((batches, refused))

    def waited(self, began: int, ended: int) -> None:
        pass


class Queue:
    """What is asked of the vault one after the other, each in a thread, while nothing gets to the disk."""

    def __init__(self, workspace: Workspace) -> None:
        self.answers: dict[int, object] = {}
        self._commits = getattr(workspace.store, "_commits")  # noqa: B009 -- no part of the protocol
        self._threads: list[Thread] = []

    def ask(self, job: Callable[[], object]) -> None:
        """Start it, and return when its batch is in the queue."""
        number = len(self._threads)

        def run() -> None:
            try:
                self.answers[number] = job()
            except TallystoneError as error:
                self.answers[number] = error

        self._threads.append(Thread(target=run))
        self._threads[-1].start()
        # The first one leads and waits for the file; each of the others waits in the queue.
        while not (self._commits._led if number == 0 else len(self._commits) >= number):
            assert self._threads[number].is_alive(), self.answers.get(number)
        while number == 0 and len(self._commits):
            pass

    def end(self) -> None:
        for thread in self._threads:
            thread.join(60)


@contextmanager
def held_up(workspace: Workspace, alice: Vault) -> Iterator[Queue]:
    """A queue behind a change of some other block, which waits for the file as long as the block lasts."""
    other = alice.create_block(label="other").id
    queue = Queue(workspace)
    with closing(sqlite3.connect(workspace.folder / "tallystone.db", isolation_level=None)) as raw:
        raw.execute("BEGIN IMMEDIATE")
        queue.ask(lambda: alice.edit_block(other, append("x")))
        yield queue
        raw.execute("ROLLBACK")
    queue.end()


@pytest.fixture
def log(alice: Vault, bob: Vault) -> str:
    """A block of alice's that bob may write."""
    block = alice.create_block(label="log", value="").id
    alice.share(block, "bob", "write")
    bob.accept_offer(block)
    return block


@pytest.fixture
def as_alice(workspace: Workspace, alice_credentials: Credentials) -> Callable[[], Vault]:
    """A vault belongs to one thread at a time."""
    return lambda: workspace.vault(alice_credentials.token)


@pytest.fixture
def as_bob(workspace: Workspace, bob_credentials: Credentials) -> Callable[[], Vault]:
    """As above."""
    return lambda: workspace.vault(bob_credentials.token)


Opener = Callable[[], Vault]


def test_changes_of_one_block_that_wait_together_are_written_together(
    workspace: Workspace, alice_credentials: Credentials, as_alice: Opener, as_bob: Opener, log: str
) -> None:
    groups = Groups()
    with held_up(workspace, as_alice()) as queue:
        workspace.store.observe(groups)
        for text in "abcdefgh":
            vault = (as_alice if text in "aceg" else as_bob)()
            queue.ask(partial(vault.edit_block, log, append(text)))
    assert groups.sizes == [(9, 0)]
    for number, text in enumerate("abcdefgh", 1):
        answer = queue.answers[number]
        assert isinstance(answer, Block) and (answer.version, answer.value[-1]) == (number + 1, text)
    with Workspace.open(workspace.folder) as another:  # which has kept nothing
        vault = another.vault(alice_credentials.token)
        assert vault.block(log).value == "abcdefgh" and another.verify().ok
        assert [one.number for one in vault.versions(log).versions] == list(range(9, 0, -1))


@pytest.fixture
def short(bob: Vault) -> str:
    """A token of bob's that he is about to revoke."""
    return bob.create_token(label="short")


def test_who_was_planned_on_a_change_that_fails_is_planned_again_without_it(
    workspace: Workspace, as_alice: Opener, as_bob: Opener, log: str, short: str
) -> None:
    with held_up(workspace, as_alice()) as queue:
        queue.ask(partial(as_bob().revoke_token, short[6:22]))
        queue.ask(partial(workspace.vault(short).edit_block, log, append("never ")))
        queue.ask(partial(as_alice().edit_block, log, append("alice ")))
        queue.ask(partial(as_bob().edit_block, log, append("bob ")))
    assert isinstance(queue.answers[2], Unauthenticated)
    block = as_alice().block(log)
    assert sorted(block.value.split()) == ["alice", "bob"] and block.version == 3
    assert workspace.verify().ok


def claim(name: str) -> Callable[[Block], Fields]:
    def edit(before: Block) -> Fields:
        if before.value:
            raise Conflict(f"it reads {before.value}", code="no_match")
        return {"value": name}

    return edit


def test_a_refusal_that_is_due_to_a_queued_change_is_not_believed(
    workspace: Workspace, as_alice: Opener, as_bob: Opener, log: str, short: str
) -> None:
    with held_up(workspace, as_alice()) as queue:
        queue.ask(partial(as_bob().revoke_token, short[6:22]))
        queue.ask(partial(workspace.vault(short).edit_block, log, claim("short")))
        queue.ask(partial(as_alice().edit_block, log, claim("alice")))
    assert isinstance(queue.answers[2], Unauthenticated) and isinstance(queue.answers[3], Block)
    assert as_alice().block(log).value == "alice"
    assert [event.kind for event in as_alice().events()].count("denied") == 1


def test_of_two_who_claim_one_thing_while_nothing_is_durable_exactly_one_gets_it(
    workspace: Workspace, as_alice: Opener, as_bob: Opener, log: str
) -> None:
    with held_up(workspace, as_alice()) as queue:
        queue.ask(partial(as_bob().edit_block, log, claim("bob")))
        queue.ask(partial(as_alice().edit_block, log, claim("alice")))
    assert isinstance(queue.answers[2], Conflict) and "it reads bob" in str(queue.answers[2])
    assert as_alice().block(log).value == "bob"


def test_a_condition_is_asked_of_what_is_queued_before(
    workspace: Workspace, as_alice: Opener, as_bob: Opener, log: str
) -> None:
    with held_up(workspace, as_alice()) as queue:
        queue.ask(partial(as_alice().edit_block, log, append("a")))
        queue.ask(partial(as_bob().edit_block, log, append("b"), if_version=2))
    assert isinstance(queue.answers[2], Block)
    assert as_alice().block(log).value == "ab"


def test_a_change_of_more_than_the_content_lets_nobody_be_planned_on_it(
    workspace: Workspace, as_alice: Opener, log: str
) -> None:
    agent = as_alice().create_agent({"name": "scout"}).id
    with held_up(workspace, as_alice()) as queue:
        queue.ask(partial(as_alice().edit_block, log, append("a")))
        queue.ask(partial(as_alice().edit_block, log, lambda _: {"limit": 60}))
        stripe = workspace.stripes.of(log)
        assert stripe.turns.taken and len(stripe.queued(log)) == 1
    assert as_alice().block(log).limit == 60 and as_alice().block(log).value == "a"
    with held_up(workspace, as_alice()) as queue:
        queue.ask(partial(as_alice().edit_block, log, append("b")))
        queue.ask(partial(as_alice().attach, agent, log))
    assert as_alice().agent_block(agent, "log").value == "ab" and workspace.verify().ok


def test_what_is_queued_is_read_row_by_row_or_not_at_all(workspace: Workspace, alice: Vault) -> None:
    alice.create_block(label="log", value="")
    with workspace.store.snapshot() as snapshot:
        (row,) = snapshot.scan(BLOCK, (WS,))
        ahead = Ahead(snapshot, {(BLOCK.name, row[:2]): None})
        assert ahead.get(BLOCK, row[:2]) is None and ahead.scan(VERSION, (WS, row[1]))
        for read in (lambda: ahead.scan(BLOCK, (WS,)), lambda: list(ahead.rows(BLOCK))):
            with pytest.raises(Unsettled):
                read()
