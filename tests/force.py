"""A principal with a store of its own: what the vault would refuse it, it writes itself."""

from __future__ import annotations

from collections.abc import Callable
from weakref import WeakSet

from tallystone.store.sqlite import SqliteStore
from tallystone.vault import Vault, Workspace
from tallystone.vault.entering import open_block
from tallystone.vault.opening import Opened
from tallystone.vault.passages import find_block
from tallystone.vault.plan import Plan

RUNNING: WeakSet[Workspace] = WeakSet()
"""The workspaces that tests have open, as far as their fixtures say so."""


def by_force(vault: Vault, block_id: str, act: Callable[[Opened, Plan], object]) -> None:
    """Let `act` write what it likes into the store, past every check that the vault makes before it writes."""
    workspace = vault._caller.workspace
    with workspace.store.snapshot() as snapshot:
        plan = Plan(snapshot)
        opened = open_block(vault._caller, plan, find_block(vault._caller, plan, block_id))
        act(opened, plan)
    workspace.store.commit(plan.batch())
    look_anew(workspace)


def all_look_anew() -> None:
    """After an edit of the file: what is tested is that nobody takes it in, and not what was kept from before."""
    for workspace in list(RUNNING):
        look_anew(workspace)


def look_anew(workspace: Workspace) -> None:
    """Forget the rows and blocks that this process keeps between requests (ADR 0031), as one that starts now has none:
    so it goes by what the store says, and not by what it said before somebody edited it."""
    workspace.recall.clear()
    if isinstance(workspace.store, SqliteStore):
        workspace.store._rows.restart()
