"""Nobody's write is lost, and of two who claim one thing exactly one gets it (design §8)."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from tallystone.errors import Conflict, NotFound, PreconditionFailed, TallystoneError
from tallystone.vault import Vault, Workspace
from tallystone.vault.types import Block, Credentials

APPENDERS, APPENDS = 16, 50
CLAIMANTS = 8


def together(jobs: list[Callable[[], object]]) -> list[object]:
    """Run all jobs at the same moment, each in a thread; returns what each returned or raised (of our errors)."""
    start = Barrier(len(jobs))

    def run(job: Callable[[], object]) -> object:
        start.wait()
        try:
            return job()
        except TallystoneError as error:
            return error

    with ThreadPoolExecutor(len(jobs)) as pool:
        return list(pool.map(run, jobs))


def append(line: str) -> Callable[[Block], dict[str, object]]:
    return lambda block: {"value": f"{block.value}{line}\n"}


def claim(agent: str) -> Callable[[Block], dict[str, object]]:
    """What a memory tool does: replace exactly one occurrence, else refuse with what is there now."""

    def edit(block: Block) -> dict[str, object]:
        if "task: open" not in block.value:
            raise Conflict(f"nothing to claim; the block reads {block.value!r}", code="no_match")
        return {"value": block.value.replace("task: open", f"task: {agent}")}

    return edit


def test_of_800_appends_by_16_agents_to_one_block_none_is_lost(
    workspace: Workspace, alice: Vault, alice_credentials: Credentials
) -> None:
    block = alice.create_block(label="log")
    agents = [alice.create_agent({"name": f"a{i}"}, block_ids=[block.id]).id for i in range(APPENDERS)]

    def appender(agent: str) -> Callable[[], object]:
        vault = workspace.vault(alice_credentials.token)

        def job() -> None:
            for n in range(APPENDS):
                vault.edit_agent_block(agent, "log", append(f"{agent} {n}"), as_agent=True)

        return job

    assert together([appender(agent) for agent in agents]) == [None] * APPENDERS
    after = alice.block(block.id)
    lines = after.value.splitlines()
    assert sorted(lines) == sorted(f"{agent} {n}" for agent in agents for n in range(APPENDS))
    for agent in agents:
        assert [line for line in lines if line.startswith(agent)] == [f"{agent} {n}" for n in range(APPENDS)]
    assert after.version == 1 + APPENDERS * APPENDS
    assert workspace.verify().findings == []


def test_of_8_agents_that_claim_one_task_exactly_one_gets_it_and_the_others_read_who(
    workspace: Workspace, alice: Vault, alice_credentials: Credentials
) -> None:
    block = alice.create_block(label="tasks", value="task: open")
    agents = [alice.create_agent({"name": f"a{i}"}, block_ids=[block.id]).id for i in range(CLAIMANTS)]

    def claimant(agent: str) -> Callable[[], object]:
        vault = workspace.vault(alice_credentials.token)
        return lambda: vault.edit_agent_block(agent, "tasks", claim(agent), as_agent=True)

    answers = together([claimant(agent) for agent in agents])
    winners = [answer for answer in answers if isinstance(answer, Block)]
    losers = [answer for answer in answers if isinstance(answer, Conflict)]
    assert len(winners) == 1 and len(losers) == CLAIMANTS - 1
    final = alice.block(block.id)
    assert final.value == winners[0].value and final.version == 2
    assert all(final.value in str(error) for error in losers)


def test_of_two_whole_value_writes_with_if_match_exactly_one_counts(
    workspace: Workspace, alice: Vault, alice_credentials: Credentials
) -> None:
    block = alice.create_block(label="doc", value="first")

    def writer(value: str) -> Callable[[], object]:
        vault = workspace.vault(alice_credentials.token)
        return lambda: vault.edit_block(block.id, lambda _: {"value": value}, if_version=1)

    answers = together([writer(f"by {i}") for i in range(6)])
    winners = [answer for answer in answers if isinstance(answer, Block)]
    assert len(winners) == 1
    assert sum(isinstance(answer, PreconditionFailed) for answer in answers) == 5
    assert alice.block(block.id).value == winners[0].value


def test_edits_that_race_a_revocation_are_all_before_it(
    workspace: Workspace, alice: Vault, alice_credentials: Credentials
) -> None:
    block = alice.create_block(label="log")
    agents = [alice.create_agent({"name": f"a{i}"}, block_ids=[block.id]).id for i in range(4)]
    acknowledged: list[str] = []

    def appender(agent: str) -> Callable[[], object]:
        vault = workspace.vault(alice_credentials.token)

        def job() -> None:
            for n in range(30):
                vault.edit_agent_block(agent, "log", append(f"{agent} {n}"), as_agent=True)
                acknowledged.append(f"{agent} {n}")

        return job

    def revoker() -> object:
        vault = workspace.vault(alice_credentials.token)
        for agent in agents[:2]:
            vault.revoke(block.id, agent)
        return vault.block(block.id).value

    *answers, at_revocation = together([*(appender(agent) for agent in agents), revoker])
    assert [type(answer) for answer in answers] == [NotFound, NotFound, type(None), type(None)]
    final = alice.block(block.id).value.splitlines()
    assert sorted(final) == sorted(acknowledged)
    assert isinstance(at_revocation, str)
    after = final[len(at_revocation.splitlines()) :]
    assert not [line for line in after if line.startswith(tuple(agents[:2]))]
    assert workspace.verify().findings == []


def test_shares_attachments_and_edits_at_once_leave_a_block_that_everybody_reads_alike(
    workspace: Workspace,
    alice: Vault,
    bob: Vault,
    alice_credentials: Credentials,
    bob_credentials: Credentials,
) -> None:
    block = alice.create_block(label="busy")
    agents = [alice.create_agent({"name": f"a{i}"}).id for i in range(4)]

    def attacher(agent: str) -> Callable[[], object]:
        vault = workspace.vault(alice_credentials.token)

        def job() -> None:
            for _ in range(4):
                vault.attach(agent, block.id)
                vault.detach(agent, block.id)
            vault.attach(agent, block.id)

        return job

    def editor() -> None:
        vault = workspace.vault(alice_credentials.token)
        for n in range(20):
            vault.edit_block(block.id, append(str(n)))

    def sharer() -> None:
        vault = workspace.vault(alice_credentials.token)
        for can in ("read", "write", "read"):
            vault.share(block.id, "bob", can)

    assert together([*(attacher(agent) for agent in agents), editor, sharer]) == [None] * 6
    bob = workspace.vault(bob_credentials.token)
    seen = bob.accept_offer(block.id)
    assert seen.rights == "read"
    assert seen.value.splitlines() == [str(n) for n in range(20)]
    for agent in agents:
        assert alice.agent_block(agent, "busy").value == seen.value
    assert sorted(alice.block(block.id).agent_ids) == sorted(agents)
    assert workspace.verify().findings == []


def test_one_offer_opened_by_many_requests_at_once_is_received_once(
    workspace: Workspace, alice: Vault, bob_credentials: Credentials
) -> None:
    blocks = {alice.create_block(label=f"b{i}").id for i in range(5)}
    for block in blocks:
        alice.share(block, "bob")
    vaults = together([lambda: workspace.vault(bob_credentials.token)] * 6)
    assert all(isinstance(vault, Vault) for vault in vaults)
    offers = workspace.vault(bob_credentials.token).offers()
    assert sorted(offer.block_id for offer in offers) == sorted(blocks)


# -- two processes ----------------------------------------------------------------------------------------------

APPEND_FROM_ANOTHER_PROCESS = """
import sys
import tallystone
path, block, name, count = sys.argv[1:]
token = sys.stdin.readline().strip()
with tallystone.open(path, token=token) as vault:
    print("ready", flush=True)
    sys.stdin.readline()
    for n in range(int(count)):
        vault.edit_block(block, lambda b, n=n: {"value": b.value + f"{name} {n}\\n"})
print("done", flush=True)
"""


@pytest.mark.parametrize("count", [40])
def test_a_server_and_a_command_line_on_one_directory_lose_nothing(
    workspace: Workspace, alice: Vault, alice_credentials: Credentials, tmp_path: Path, count: int
) -> None:
    block = alice.create_block(label="log")
    others = []
    for name in ("p1", "p2"):
        command = [sys.executable, "-c", APPEND_FROM_ANOTHER_PROCESS, str(tmp_path / "data"), block.id, name]
        pipe = subprocess.PIPE
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parent.parent)}
        process = subprocess.Popen(
            [*command, str(count)], stdin=pipe, stdout=pipe, text=True, env=environment
        )
        others.append(process)
        assert process.stdin is not None
        process.stdin.write(alice_credentials.token + "\n")
        process.stdin.flush()
    for process in others:
        assert process.stdin is not None and process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.stdin.write("go\n")
        process.stdin.flush()
    for n in range(count):
        alice.edit_block(block.id, append(f"p0 {n}"))
    for process in others:
        out, _ = process.communicate(timeout=60)
        assert (out, process.returncode) == ("done\n", 0)
    lines = alice.block(block.id).value.splitlines()
    assert sorted(lines) == sorted(f"p{p} {n}" for p in range(3) for n in range(count))
    assert workspace.verify().findings == []


def test_a_token_revoked_in_one_process_opens_nothing_in_another(
    workspace: Workspace, alice: Vault, tmp_path: Path
) -> None:
    text = alice.create_token(label="laptop")
    with Workspace.open(tmp_path / "data") as other:
        vault = other.vault(text)
        assert vault.blocks() == []
        alice.revoke_token(text[6:22])
        with pytest.raises(TallystoneError, match="revoked"):
            vault.blocks()
