"""Workspaces in stock: each is founded once in a process of the test run, and who needs one gets a copy.

Founding one costs a dozen keys and signatures and some commits; most tests are about what comes after.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from stores import POSTGRESQL, ready_database, restore_rows, stored_rows

from tallystone.store.opening import note
from tallystone.vault import Workspace
from tallystone.vault.types import Credentials


@dataclass(frozen=True)
class Stock:
    """The files of a workspace that nobody has open, the statements that make its rows in a database, and its users."""

    folder: Path
    rows: str
    made: tuple[Credentials, ...]


@cache
def _stock(first: str, *others: str) -> Stock:
    home = tempfile.TemporaryDirectory(prefix="tallystone-stock-")
    _homes.append(home)
    folder = Path(home.name) / "data"
    workspace, founder = Workspace.init(folder, first)
    with workspace:
        owner = workspace.vault(founder.token)
        made = founder, *(owner.add_user(name) for name in others)
    return Stock(folder, stored_rows() if POSTGRESQL else "", made)


_homes: list[tempfile.TemporaryDirectory[str]] = []
"""Removed when the process ends."""


def founded(folder: Path, *names: str) -> tuple[Workspace, tuple[Credentials, ...]]:
    """A workspace in `folder`, which must be empty or missing, open; and its users: the first name is its founder's."""
    stock = _stock(*names)
    shutil.copytree(stock.folder, folder, dirs_exist_ok=True)
    if POSTGRESQL:
        url = ready_database()
        restore_rows(stock.rows)
        note(folder, url)
    return Workspace.open(folder), stock.made
