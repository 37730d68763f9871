"""A workspace that is filled step by step and kept: its users' tokens and its blocks' ids stand beside it.

DIR/data/        the workspace
DIR/users.json   (id, token) of the first user and of the others, who own blocks of a test and nothing else
DIR/blocks.bin   18 bytes a block, in the order they were made: the owner's place among the users, and the id
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from bench.filling import BATCH, USERS, add_blocks, add_users
from bench.scripts import KILOBYTE, text
from tallystone.cli.terminal import progress
from tallystone.vault import Workspace

OWNERS = 10
"""Users who own the blocks, each as many: so the smallest size has two pages of each."""
_RECORD = 18
Batch = tuple[int, int, int]
"""Blocks that are made in one commit: their owner's place, the first one's number, and the one after the last's."""


class Stock:
    """What is in the folder `home`; made there if there is nothing."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self.data = home / "data"
        home.mkdir(parents=True, exist_ok=True)
        if not self._known.exists():
            shutil.rmtree(self.data, ignore_errors=True)  # what an interrupted beginning left
            workspace, owner = Workspace.init(self.data)
            workspace.close()
            self._note(owner.token, [])
            self._ids.write_bytes(b"")
        known = json.loads(self._known.read_text())
        self._root: str = known["root"]
        self.users: list[tuple[str, str]] = [(user, token) for user, token in known["users"]]

    def __len__(self) -> int:
        return self._ids.stat().st_size // _RECORD

    @property
    def _known(self) -> Path:
        return self._home / "users.json"

    @property
    def _ids(self) -> Path:
        return self._home / "blocks.bin"

    def _note(self, root: str, users: list[tuple[str, str]]) -> None:
        # Tokens of a workspace that holds made-up text; still, nobody else's business.
        beside = self._known.with_suffix(".new")
        beside.touch(mode=0o600)
        beside.write_text(json.dumps({"root": root, "users": users}))
        os.replace(beside, self._known)

    def beside(self, home: Path) -> Stock:
        """The same stock in another folder, to which `data` was copied."""
        shutil.copy(self._known, home / self._known.name)
        shutil.copy(self._ids, home / self._ids.name)
        return Stock(home)

    def block(self, number: int) -> tuple[str, str]:
        """(its owner's token, its id) of a block."""
        with self._ids.open("rb") as file:
            file.seek(number * _RECORD)
            record = file.read(_RECORD)
        return self.users[int.from_bytes(record[:2], "big")][1], f"block-{uuid.UUID(bytes=record[2:])}"

    def add_users(self, count: int) -> None:
        """Until there are so many, beside the workspace's first."""
        with Workspace.open(self.data) as workspace, progress("users") as step:
            while len(self.users) < count:
                some = range(len(self.users), min(count, len(self.users) + USERS))
                self.users += add_users(workspace, self._root, [f"user {number}" for number in some])
                self._note(self._root, self.users)
                step(len(self.users), count)

    def fill(self, count: int, processes: int) -> dict[str, float]:
        """Until there are so many blocks. Returns what it took: blocks made, and seconds."""
        began, before = time.perf_counter(), len(self)
        batches = _batches(before, count)
        with self._ids.open("ab") as file, progress("blocks") as step:
            for owner, made in self._added(batches, processes):
                file.write(b"".join(owner.to_bytes(2, "big") + uuid.UUID(one[6:]).bytes for one in made))
                file.flush()
                step(file.tell() // _RECORD, count)
        return {"made": count - before, "fill_s": round(time.perf_counter() - began, 1)}

    def _added(self, batches: Iterator[Batch], processes: int) -> Iterator[tuple[int, list[str]]]:
        """(owner, ids) of each batch, once it is committed."""
        owners = [token for _, token in self.users[:OWNERS]]
        if processes == 1:
            with Workspace.open(self.data) as workspace:
                yield from (_add(workspace, owners, batch) for batch in batches)
            return
        context = multiprocessing.get_context("spawn")
        with context.Pool(processes, _open, (str(self.data), owners)) as pool:
            yield from pool.imap(_add_there, batches)
            pool.close()
            pool.join()


def _batches(start: int, stop: int) -> Iterator[Batch]:
    """Owners take turns."""
    while start < stop:
        end = min(stop, (start // BATCH + 1) * BATCH)
        yield start // BATCH % OWNERS, start, end
        start = end


_place: list[tuple[Workspace, list[str]]] = []
"""What a filling process has open."""


def _open(folder: str, tokens: list[str]) -> None:
    _place.append((Workspace.open(folder), tokens))


def _add_there(batch: Batch) -> tuple[int, list[str]]:
    return _add(*_place[0], batch)


def _add(workspace: Workspace, owners: list[str], batch: Batch) -> tuple[int, list[str]]:
    owner, start, end = batch
    values = [(f"block {number}", text(number, KILOBYTE)) for number in range(start, end)]
    return owner, add_blocks(workspace, owners[owner], values)
