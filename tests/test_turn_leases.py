"""One turn of an agent at a time, across processes, and what is left of one whose process dies."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tallystone.errors import Conflict, Denied, NotFound, Tampered, Unauthenticated
from tallystone.letta.composing import INTERRUPTED, compose
from tallystone.store.protocol import Batch, Put
from tallystone.store.tables import ENTRY
from tallystone.vault import Vault, Workspace, processes
from tallystone.vault.types import Credentials

HOLDER = Path(__file__).with_name("turn_holder.py")


def nothing(*_: object) -> tuple[list[dict[str, object]], dict[str, object]]:
    return [], {}


@pytest.fixture
def agent(alice: Vault) -> str:
    return alice.create_agent({"name": "a"}).id


def test_a_process_that_is_killed_leaves_a_failed_run_and_a_whole_history(
    tmp_path: Path, alice: Vault, alice_credentials: Credentials, agent: str
) -> None:
    arguments = [sys.executable, str(HOLDER), str(tmp_path / "data"), alice_credentials.token, agent]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "begun\n"
        assert alice.run("run-1")["status"] == "running"
        with pytest.raises(Conflict) as busy:
            alice.begin_turn(agent, "default", {"id": "run-2", "handle": "x"}, nothing)
        assert busy.value.code == "agent_busy"
        assert alice.cancel_turn(agent) == {"run-1": "cancelled"}
        holder.kill()
    assert alice.run("run-1")["status"] == "failed"
    turn = alice.begin_turn(
        agent,
        "default",
        {"id": "run-2", "handle": "x"},
        lambda record, context: compose(
            [
                {
                    "kind": "message",
                    "role": "user",
                    "text": "go on",
                    "name": None,
                    "otid": None,
                    "sender": None,
                }
            ],
            "run-2",
            3,
            record,
            context,
        ),
    )
    roles = [(message["role"], message.get("call"), message["text"]) for message in turn.context]
    assert roles == [
        ("user", None, "hi"),
        ("assistant", None, ""),
        ("tool", "call_1", INTERRUPTED),
        ("user", None, "go on"),
    ]
    turn.write(run={"status": "completed"}, end=True)
    assert [alice.run(one)["status"] for one in ("run-1", "run-2")] == ["failed", "completed"]


def test_of_many_that_begin_at_once_one_does(
    workspace: Workspace, alice_credentials: Credentials, agent: str
) -> None:
    begun, busy = [], []
    gate = threading.Barrier(8)

    def work(number: int) -> None:
        vault = workspace.vault(alice_credentials.token)
        gate.wait()
        try:
            begun.append(vault.begin_turn(agent, "default", {"id": f"run-{number}", "handle": "x"}, nothing))
        except Conflict as error:
            busy.append(error.code)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(begun) == 1
    assert busy == ["agent_busy"] * 7
    begun[0].write(end=True)


def test_a_turn_of_a_deleted_agent_writes_nothing(alice: Vault, agent: str) -> None:
    turn = alice.begin_turn(agent, "default", {"id": "run-1", "handle": "x"}, nothing)
    alice.delete_agent(agent)
    with pytest.raises(NotFound):
        turn.write([{"id": "message-1", "role": "user", "date": 1, "text": "late"}])
    with pytest.raises(NotFound):
        alice.run("run-1")
    turn.leave()


def test_entries_do_not_open_elsewhere(workspace: Workspace, alice: Vault, agent: str) -> None:
    """A row that is moved to another number, or to another agent's stream, is refused."""
    said = [{"id": f"message-{n}", "role": "user", "date": n, "text": str(n)} for n in (1, 2)]
    turn = alice.begin_turn(agent, "default", {"id": "run-1", "handle": "x"}, lambda *_: (said, {}))
    turn.write(end=True)
    with workspace.store.snapshot() as snapshot:
        rows = [row for row in snapshot.rows(ENTRY) if row[2] in (1, 2)]
    first, second = [row for row in rows if sum(one[1] == row[1] for one in rows) == 2]
    workspace.store.commit(Batch(changes=[Put(ENTRY, (*second[:3], first[3]))]))
    with pytest.raises(Tampered):
        alice.messages(agent)


def test_a_read_only_token_of_the_agent_reads_and_cannot_append(
    workspace: Workspace, alice: Vault, agent: str
) -> None:
    said = [{"id": "message-1", "role": "user", "date": 1, "text": "hello"}]
    turn = alice.begin_turn(agent, "default", {"id": "run-1", "handle": "x"}, lambda *_: (said, {}))
    turn.write(end=True)
    reader = workspace.vault(alice.agent_token(agent, scope="read"))
    assert [message["text"] for message in reader.messages(agent)] == ["hello"]
    with pytest.raises(Denied):
        reader.begin_turn(agent, "default", {"id": "run-2", "handle": "x"}, nothing)


def test_a_suspended_sponsors_turn_stops(alice: Vault, workspace: Workspace) -> None:
    made = alice.add_user("carol")
    carol = workspace.vault(made.token)
    agent = carol.create_agent({"name": "c"}).id
    turn = carol.begin_turn(agent, "default", {"id": "run-1", "handle": "x"}, nothing)
    alice.suspend(made.principal)
    with pytest.raises(Unauthenticated):
        turn.write([{"id": "message-1", "role": "user", "date": 1, "text": "late"}])
    turn.leave()


def test_processes_are_told_apart() -> None:
    me = processes.this_process()
    assert not processes.is_gone(me)
    place, _, began = me.rpartition(" ")
    assert processes.is_gone(f"{place} {int(began) - 1}")
    ended = subprocess.Popen([sys.executable, "-c", "pass"])
    ended.wait()
    place = place.rpartition(" ")[0]
    assert processes.is_gone(f"{place} {ended.pid} 1")
    # of another machine or container, and of what is no name, nothing is known
    assert not processes.is_gone(f"another {ended.pid} 1")
    assert not processes.is_gone("")
    assert os.getpid() == int(me.split()[-2])
