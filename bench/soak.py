"""Clients at work for minutes, while workers, database sessions and the primary are killed at random.

    python -m bench soak                            24 clients for 10 minutes
    python -m bench soak --minutes 1 --clients 8    to try it
    python -m bench soak --write docs               the result into docs/soak.json, its table into docs/soak.md
    python -m bench soak --report docs              the table only

`tallystone serve --workers 2` on a PostgreSQL primary with a synchronous standby, all on the loopback. What clients
were told is held against what is stored at the end (`acknowledged.py`), and the log is verified with a checkpoint from
before each loss of a primary. Exit status 1 if anything is not as it was promised.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import machine, soak_page
from bench.acknowledged import Client, Ledger, check_all, shared_block
from bench.cluster import Cluster, cluster
from bench.load import Unreachable
from bench.serving import Server, new_workspace, ours
from tallystone.audit.published import checkpoint_of
from tallystone.errors import TallystoneError
from tallystone.vault import Workspace

WORKERS = 2
EVERY_WORKER, EVERY_SESSION, EVERY_PRIMARY = 20.0, 2.0, 45.0
"""Seconds between two kills of a kind, on average; less in a short run."""
QUIET = 10.0
"""Seconds at the start and at the end in which nothing is killed."""
UNNOTICED = 2.0
"""Seconds that the loss of a primary goes unnoticed at most, before the standby is promoted."""
SAMPLE = 5.0
"""Seconds between two looks at the memory."""


@dataclass
class Killed:
    """What was done to the server and its database, and when (seconds after the start)."""

    counts: Counter[str] = field(default_factory=Counter)
    primaries: list[float] = field(default_factory=list)
    """When each primary was killed, as monotonic seconds."""
    rebuilt: list[float] = field(default_factory=list)
    """Seconds until each had a standby again."""
    checkpoints: list[bytes] = field(default_factory=list)
    """The log's newest just before."""
    problems: list[str] = field(default_factory=list)
    """What kept one of the killers from going on."""


class Killers:
    """Three threads that end things at random until they are stopped."""

    def __init__(
        self, pair: Cluster, server: Server, workspace: Workspace, seconds: float, seed: int
    ) -> None:
        self.killed = Killed()
        self._pair, self._server, self._workspace = pair, server, workspace
        self._random = random.Random(seed)
        self._stop = threading.Event()
        self._spared = machine.children(server.pid)[0]
        workers, primaries = min(EVERY_WORKER, seconds / 6), min(EVERY_PRIMARY, seconds / 5)
        kinds = ((workers, self._worker), (EVERY_SESSION, self._session), (primaries, self._primary))
        self._threads = [threading.Thread(target=self._run, args=kind) for kind in kinds]

    @property
    def spared(self) -> int:
        """The worker that is not killed, so that its memory can be compared over the whole time."""
        return self._spared

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End, with a standby in place."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, every: float, kill: Callable[[], None]) -> None:
        try:
            while not self._stop.wait(self._random.uniform(0.5, 1.5) * every):
                kill()
        except Exception as error:
            self.killed.problems.append(f"{kill.__name__.strip('_')}: {type(error).__name__}: {error}")

    def _worker(self) -> None:
        others = [pid for pid in machine.children(self._server.pid) if pid != self._spared]
        if others:
            with suppress(ProcessLookupError):
                os.kill(self._random.choice(others), signal.SIGKILL)
                self.killed.counts["workers"] += 1

    def _session(self) -> None:
        import psycopg

        with suppress(psycopg.Error):  # there may be no primary at the moment
            sessions = self._pair.sessions()
            if sessions:
                self._pair.end_session(self._random.choice(sessions))
                self.killed.counts["sessions"] += 1

    def _primary(self) -> None:
        with suppress(TallystoneError):
            self.killed.checkpoints.append(self._workspace.log.checkpoint())
        self.killed.primaries.append(time.monotonic())
        self._pair.primary.kill()
        time.sleep(
            self._random.uniform(0, UNNOTICED)
        )  # the time in which nobody has noticed is part of the loss
        self._pair.promote()
        self.killed.counts["primaries"] += 1
        alone = time.monotonic()
        self._pair.make_standby()
        self.killed.rebuilt.append(time.monotonic() - alone)


class Memory:
    """Looks at the server's memory every few seconds: of all processes together, of the worker that is not killed, and
    of the others, each with its age."""

    def __init__(self, server: Server, spared: int) -> None:
        self.seen: list[dict[str, Any]] = []
        self._server, self._spared = server, spared
        self._began = time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(SAMPLE):
            look: dict[str, Any] = {"second": round(time.monotonic() - self._began)}
            look |= self._of(self._server.pid)
            look |= {f"spared_{name}": size for name, size in self._of(self._spared).items()}
            others = [pid for pid in machine.children(self._server.pid) if pid != self._spared]
            look["others"] = [{"age_s": round(machine.age(pid), 1), **self._of(pid)} for pid in others]
            self.seen.append(look)

    @staticmethod
    def _of(pid: int) -> dict[str, float]:
        sizes = machine.memory(pid)
        return {name: sizes[name] for name in ("rss_mb", "pss_mb", "own_mb")}

    def stop(self) -> None:
        """End."""
        self._stop.set()
        self._thread.join()


def soak(minutes: float, count: int, seed: int) -> dict[str, Any]:
    """The result. Raises `Unreachable`."""
    with tempfile.TemporaryDirectory(prefix="tallystone-soak-") as name, cluster() as pair:
        folder = Path(name)
        described = machine.described(folder)
        token = new_workspace(folder, pair.url)
        with (
            ours(folder / "data", token, workers=WORKERS) as server,
            Workspace.open(folder / "data", pair.url) as workspace,
        ):
            ledger, stop = Ledger(), threading.Event()
            clients = _prepared(server, token, ledger, count, seed)
            killers = Killers(pair, server, workspace, minutes * 60, seed)
            memory = Memory(server, killers.spared)
            took = _work(clients, killers, minutes * 60, stop)
            memory.stop()
            findings = _check(workspace, token, clients, killers.killed, ledger)
            leaves = workspace.log.view().size
    killed = killers.killed
    return {
        "minutes": minutes,
        "clients": count,
        "workers": WORKERS,
        "seed": seed,
        "seconds": round(took, 1),
        "machine": described,
        "acknowledged": dict(sorted(ledger.acknowledged.items())),
        "failed_attempts": dict(sorted(ledger.told.items())),
        "beyond_two_retries": ledger.beyond,
        "unknown_writes": sum(client.unsure_write for client in clients),
        "killed": dict(sorted(killed.counts.items())),
        "outages_s": [round(one, 1) for one in _outages(killed.primaries, ledger.times)],
        "standby_again_s": [round(one, 1) for one in killed.rebuilt],
        "checkpoints": len(killed.checkpoints),
        "leaves": leaves,
        "memory": memory.seen,
        "wrong": ledger.wrong[:50] + killed.problems,
        "findings": findings,
    }


def _prepared(server: Server, token: str, ledger: Ledger, count: int, seed: int) -> list[Client]:
    shared = shared_block(server.url, token, ledger)
    clients = [Client(server.url, token, number, ledger, shared, seed) for number in range(count)]
    for client in clients:
        client.prepare()
    return clients


def _work(clients: list[Client], killers: Killers, seconds: float, stop: threading.Event) -> float:
    """Let all work for so long, and tell how long it was until the last had its last answer."""
    blocks = [client.block for client in clients]
    threads = [threading.Thread(target=client.run, args=(stop, blocks)) for client in clients]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    # The clients work in threads of their own: what is waited for here is the time that the soak lasts.
    time.sleep(min(QUIET, seconds / 6))
    killers.start()
    time.sleep(max(0.0, seconds - 2 * min(QUIET, seconds / 6)))
    killers.stop()
    time.sleep(min(QUIET, seconds / 6))
    stop.set()
    for thread in threads:
        thread.join()
    return time.monotonic() - began


def _check(
    workspace: Workspace, token: str, clients: list[Client], killed: Killed, ledger: Ledger
) -> list[str]:
    """What the log's check finds; what else is not as it was promised goes into the ledger."""
    check_all(clients, workspace.vault(token), clients[0].shared)
    pins = killed.checkpoints
    found = [f"{one.where}: {one.what}" for one in workspace.verify(pin=pins[-1] if pins else None).findings]
    with workspace.log.published() as log:
        for pin in map(checkpoint_of, pins):
            if pin.size > log.head.size or log.tree.root(pin.size) != pin.root:
                found.append(f"log: the checkpoint of {pin.size} leaves is no beginning of it")
    return found[:50]


def _outages(primaries: list[float], times: list[float]) -> list[float]:
    """Seconds from the loss of each primary to the next acknowledged change."""
    return [min((one for one in times if one > lost), default=lost) - lost for lost in primaries]


def main(arguments: list[str] | None = None) -> int:
    """See the module."""
    parser = argparse.ArgumentParser(
        prog="python -m bench soak",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--minutes", type=float, default=10, help="how long the clients work (default: 10)")
    parser.add_argument("--clients", type=int, default=24, help="how many there are (default: 24)")
    parser.add_argument("--seed", type=int, default=1, help="of what happens when (default: 1)")
    parser.add_argument("--write", metavar="DIR", type=Path, help="folder of soak.json and soak.md")
    parser.add_argument(
        "--report", metavar="DIR", type=Path, help="write the table of soak.md anew, and no more"
    )
    given = parser.parse_args(arguments)
    if given.report:
        soak_page.write(given.report)
        return 0
    if not (0 < given.minutes <= 60 and 0 < given.clients <= 100):
        parser.error("at most 60 minutes and 100 clients")
    try:
        result = soak(given.minutes, given.clients, given.seed)
    except (Unreachable, TallystoneError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(soak_page.table(result))
    for one in (*result["wrong"], *result["findings"]):
        print(f"not as promised: {one}", file=sys.stderr)
    if given.write:
        (given.write / "soak.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        soak_page.write(given.write)
    return int(bool(result["wrong"] or result["findings"]))


if __name__ == "__main__":
    sys.exit(main())
