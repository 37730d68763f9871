"""A principal with a store of its own: what the vault would refuse it, it writes itself."""

from __future__ import annotations

from collections.abc import Callable

from tallystone.vault import Vault
from tallystone.vault.entering import open_block
from tallystone.vault.opening import Opened
from tallystone.vault.passages import find_block
from tallystone.vault.plan import Plan


def by_force(vault: Vault, block_id: str, act: Callable[[Opened, Plan], object]) -> None:
    """Let `act` write what it likes into the store, past every check that the vault makes before it writes."""
    workspace = vault._caller.workspace
    with workspace.store.snapshot() as snapshot:
        plan = Plan(snapshot)
        opened = open_block(vault._caller, plan, find_block(vault._caller, plan, block_id))
        act(opened, plan)
    workspace.store.commit(plan.batch())
