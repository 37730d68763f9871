"""The write load that `test_crash.py` kills: `python crash_writer.py DIR`, the token on standard input.

Each acknowledged write becomes one line on standard output, in one system call after the vault has returned, so a
line that arrived is a write that was promised.
"""

from __future__ import annotations

import os
import sys
from itertools import count

from tallystone.vault import Workspace


def say(*words: object) -> None:
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def main() -> None:
    workspace = Workspace.open(sys.argv[1])
    token = sys.stdin.readline().strip()
    vault = workspace.vault(token)
    log = next((block for block in vault.blocks() if block.label == "log"), None)
    log_id = log.id if log else vault.create_block(label="log").id
    agent = vault.create_agent({"name": "crash"}, block_ids=[log_id]).id
    say("ready", log_id, agent)
    for n in count():
        line = f"{os.getpid()}-{n}"
        vault.edit_agent_block(
            agent, "log", lambda b, line=line: {"value": f"{b.value}{line}\n"}, as_agent=True
        )
        say("append", line)
        if n % 3 == 0:
            block = vault.create_block(label=f"made {line}", value="x" * 3000)
            say("create", block.id)
            vault.attach(agent, block.id, "read")
            say("attach", block.id)
            if n % 2:
                vault.detach(agent, block.id)
                say("detach", block.id)
                vault.delete_block(block.id)
                say("delete", block.id)


if __name__ == "__main__":
    main()
