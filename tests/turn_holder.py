"""A process of its own that begins a turn and then waits: `turn_holder.py FOLDER TOKEN AGENT`."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from tallystone.vault import Workspace


def main() -> None:
    folder, token, agent = sys.argv[1:]
    call = {"id": "call_1", "name": "memory_insert", "arguments": "{}"}
    said = [
        {"id": "message-1", "role": "user", "date": 1, "text": "hi", "run": "run-1"},
        {"id": "message-2", "role": "assistant", "date": 2, "text": "", "calls": [call], "run": "run-1"},
    ]
    with Workspace.open(Path(folder)) as workspace:
        vault = workspace.vault(token)
        vault.begin_turn(agent, "default", {"id": "run-1", "handle": "x"}, lambda *_: (said, {}))
        print("begun", flush=True)
        time.sleep(60)


if __name__ == "__main__":
    main()
