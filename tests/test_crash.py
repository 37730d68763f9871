"""`kill -9` at any moment: every acknowledged write is there, the log verifies, nothing needs repair."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tallystone.errors import NotFound
from tallystone.vault import Vault, Workspace

TIMES = 50 if os.environ.get("TALLYSTONE_LONG") else 6
SEED = int(os.environ.get("TALLYSTONE_SEED", "20261"))
WRITER = Path(__file__).with_name("crash_writer.py")
MOST_LINES = 60


def killed_run(folder: Path, token: str, after: int, wait: float) -> list[list[str]]:
    """What a writer acknowledged until it was killed: a moment (`wait`, seconds) after its line number `after`."""
    environment = {**os.environ, "PYTHONPATH": str(WRITER.parent.parent)}
    command = [sys.executable, str(WRITER), str(folder)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(token + "\n")
        process.stdin.close()
        lines = [process.stdout.readline() for _ in range(after)]
        try:
            process.wait(wait)  # not for its end, which never comes, but into the middle of a write
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
        lines += process.stdout.readlines()
        assert process.wait(30) == -signal.SIGKILL
    return [line.split() for line in lines if line.endswith("\n")]


class Promised:
    """What the acknowledged lines add up to."""

    def __init__(self) -> None:
        self.appended: list[str] = []
        self.blocks: dict[str, tuple[str, str]] = {}
        self.log = ""
        self.unsure: set[str] = (
            set()
        )  # what each run acknowledged last: its next write may be durable as well

    def note(self, lines: list[list[str]]) -> None:
        _, self.log, agent = lines[0]
        self.unsure.add(lines[-1][1])
        for verb, what in lines[1:]:
            if verb == "append":
                self.appended.append(what)
            else:
                self.blocks[what] = (verb, agent)

    def check(self, vault: Vault) -> None:
        lines = vault.block(self.log).value.splitlines()
        # In order and whole. A write that was durable before its acknowledgement got out may be there as well.
        assert [line for line in lines if line in set(self.appended)] == self.appended
        for block, (last, agent) in self.blocks.items():
            if last == "delete":
                with pytest.raises(NotFound):
                    vault.block(block)
            elif last == "attach":
                # Its detaching may have become durable unacknowledged, if it was the last of its run.
                assert len(vault.block(block).value) == 3000
                assert agent in vault.block(block).agent_ids or block in self.unsure
            elif last == "create" or block not in self.unsure:
                assert len(vault.block(block).value) == 3000


def test_kill_9_at_any_moment_loses_no_acknowledged_write_and_needs_no_repair(tmp_path: Path) -> None:
    chance = random.Random(SEED)
    folder = tmp_path / "data"
    workspace, credentials = Workspace.init(folder, "alice")
    workspace.close()
    promised = Promised()
    for _ in range(TIMES):
        lines = killed_run(
            folder, credentials.token, after=chance.randint(1, MOST_LINES), wait=chance.random() / 50
        )
        promised.note(lines)
        # The next start is an ordinary one: no flag, no repair step, and it writes at once.
        with Workspace.open(folder) as opened:
            vault = opened.vault(credentials.token)
            promised.check(vault)
            assert opened.verify().findings == []
            vault.edit_block(promised.log, lambda block: {"description": "still writable"})
            assert opened.verify().findings == []
    assert len(promised.appended) > TIMES
