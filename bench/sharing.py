"""What sharing and revoking cost, against the number of those who hold a grant.

    python -m bench.sharing                       prints the table
    python -m bench.sharing --members 100000      the largest role (default 10,000)
    python -m bench.sharing --write docs          also writes costs.json and costs.svg there

Each figure is the median of several runs of one operation on an open vault, its commit to disk included; "crypto" is
the processor time of it that was spent inside `tallystone.crypto`. Members are principals with real keys, added in
bulk.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.curve import Line, draw
from tallystone import crypto
from tallystone.vault import Vault, Workspace
from tallystone.vault.plan import Plan
from tallystone.vault.principals import new_principal

RECIPIENTS = (1, 10, 100, 1_000)
ROLES = (10, 1_000, 10_000, 100_000)
CHUNK = 1_000
CALIBRATION = 20_000
TIMED = ("derive", "mac", "seal", "open_sealed", "wrap", "unwrap", "seal_to", "open_from", "kem_public", "sign",
         "verify", "verify_once", "sha256")  # fmt: skip


class Stopwatch:
    """Processor time spent inside `tallystone.crypto`, by wrapping its functions; nested calls count once."""

    def __init__(self) -> None:
        self._measured, self._calls, self._depth, self._cost = 0.0, 0, 0, 0.0

    @property
    def seconds(self) -> float:
        """What was measured so far, less what the measuring itself cost."""
        return self._measured - self._calls * self._cost

    def watch(self) -> None:
        """Begin, once it is known what timing an empty function says."""
        empty = self._timed(lambda: None)
        for _ in range(CALIBRATION):
            empty()
        self._cost, self._measured, self._calls = self._measured / CALIBRATION, 0.0, 0
        for name in TIMED:
            setattr(crypto, name, self._timed(getattr(crypto, name)))

    def _timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            if self._depth:
                return function(*args, **kwargs)
            self._depth += 1
            begun = time.thread_time()
            try:
                return function(*args, **kwargs)
            finally:
                self._measured += time.thread_time() - begun
                self._calls += 1
                self._depth -= 1

        return timed


class Bench:
    """One workspace, and what was measured in it."""

    def __init__(self, folder: Path) -> None:
        self.workspace, made = Workspace.init(folder, "owner")
        self.token = made.token
        self.clock = Stopwatch()
        self.clock.watch()
        self.rows: list[dict[str, Any]] = []
        self._people: list[str] = []

    @property
    def owner(self) -> Vault:
        """A fresh vault, as each request has."""
        return self.workspace.vault(self.token)

    def people(self, count: int) -> list[str]:
        """Ids of this many principals with keys of their own; they are users who have not been named or let in."""
        while len(self._people) < count:
            self._make(min(CHUNK, count - len(self._people)))
            note(f"{len(self._people):,} of {count:,} principals")
        return self._people[:count]

    def _make(self, count: int) -> None:
        caller = self.workspace.caller(self.token)

        def action(plan: Plan) -> list[str]:
            me = caller.identity(plan, caller.id)
            sponsor = (caller.id, me.digest, caller.signing_seed(plan))
            return [
                new_principal(plan, self.workspace.id, "user", caller.keys.root.pin, sponsor)[0].id
                for _ in range(count)
            ]

        self._people += caller.transact(action)

    @contextmanager
    def timed(self, samples: list[tuple[float, float]]) -> Iterator[None]:
        """Add (seconds, seconds of cryptography) of the block to `samples`."""
        before, begun = self.clock.seconds, time.perf_counter()
        yield
        samples.append((time.perf_counter() - begun, self.clock.seconds - before))

    def record(self, what: str, count: int, samples: list[tuple[float, float]]) -> None:
        """Print and keep the medians."""
        whole, inside = (statistics.median(column) * 1000 for column in zip(*samples, strict=True))
        self.rows.append(
            {
                "what": what,
                "count": count,
                "ms": round(whole, 2),
                "crypto_ms": round(inside, 2),
                "runs": len(samples),
            }
        )
        note("")
        print(
            f"{what:34} {count:>8,} {whole:>11.1f} ms {inside:>11.1f} ms crypto   {len(samples)} runs",
            flush=True,
        )


def note(text: str) -> None:
    """Progress, where a person looks."""
    if sys.stderr.isatty():
        print(f"\r{text:60}", end="\r", file=sys.stderr, flush=True)


def direct(bench: Bench, runs: int) -> None:
    """Share to the n-th direct recipient, and revoke one of n."""
    for count in RECIPIENTS:
        people = bench.people(count + runs)
        block = bench.owner.create_block(label="shared", value="x" * 1000)
        for who in people[: count - 1]:
            bench.owner.share(block.id, who, "read")
        shared: list[tuple[float, float]] = []
        revoked: list[tuple[float, float]] = []
        for who in people[count - 1 : count - 1 + runs]:
            vault = bench.owner
            with bench.timed(shared):
                vault.share(block.id, who, "read")
            vault = bench.owner
            with bench.timed(revoked):
                vault.revoke(block.id, who)
        bench.record("share to one more, directly", count, shared)
        bench.record("revoke one of", count, revoked)


def roles(bench: Bench, sizes: list[int], runs: int) -> None:
    """Share a block to a role, add a member, remove a member."""
    for size in sizes:
        people = bench.people(size + runs)
        role = bench.owner.create_role(f"team of {size}")
        for start in range(0, size, CHUNK):
            bench.owner.add_members(role.id, people[start : min(start + CHUNK, size)])
            note(f"{start + CHUNK:,} of {size:,} members")
        shared: list[tuple[float, float]] = []
        added: list[tuple[float, float]] = []
        removed: list[tuple[float, float]] = []
        for who in people[size : size + runs]:
            block = bench.owner.create_block(label="shared", value="x" * 1000)
            vault = bench.owner
            with bench.timed(shared):
                vault.share(block.id, role.id, "read")
            vault = bench.owner
            with bench.timed(added):
                vault.add_members(role.id, [who])
            vault = bench.owner
            with bench.timed(removed):
                vault.remove_member(role.id, who)
        bench.record("share to a role of", size, shared)
        bench.record("add a member to a role of", size, added)
        bench.record("remove a member from a role of", size, removed)


def main(arguments: list[str] | None = None) -> None:
    """Run it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--members", type=int, default=10_000, help="the largest role")
    parser.add_argument("--runs", type=int, default=5, help="runs of each operation")
    parser.add_argument("--write", type=Path, help="the folder for costs.json and costs.svg")
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="tallystone-bench-") as folder:
        bench = Bench(Path(folder) / "data")
        direct(bench, chosen.runs)
        roles(bench, [size for size in ROLES if size <= chosen.members], chosen.runs)
        bench.workspace.close()
    if chosen.write is not None:
        machine = f"{platform.machine()}, {platform.system()}, Python {platform.python_version()}"
        found = {"machine": machine, "rows": bench.rows}
        (chosen.write / "costs.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        names = list(dict.fromkeys(row["what"] for row in bench.rows))
        lines = [
            Line(name, [(r["count"], r["ms"]) for r in bench.rows if r["what"] == name]) for name in names
        ]
        picture = draw(lines, "recipients or members", "milliseconds, commit included")
        (chosen.write / "costs.svg").write_text(picture, encoding="utf-8")


if __name__ == "__main__":
    main()
