"""Many blocks and users in little time: the vault's own planning, many to a commit.

What comes out is what single requests would have made, row for row, but for the log's leaf over each commit: there is
one for each batch.
"""

from __future__ import annotations

from collections.abc import Sequence

from tallystone.vault import Workspace
from tallystone.vault.accounts import welcome
from tallystone.vault.blocks import new_block
from tallystone.vault.directory import house_of
from tallystone.vault.plan import Plan
from tallystone.vault.principals import new_principal

BATCH = 50
"""Blocks a commit. Planning looks through what it has planned, so larger batches are not faster."""
USERS = 100
"""Users a commit."""


def add_blocks(workspace: Workspace, token: str, values: Sequence[tuple[str, str]]) -> list[str]:
    """New blocks of the token's owner with these labels and values, in one commit; their ids."""
    caller = workspace.caller(token)

    def action(plan: Plan) -> list[str]:
        made = []
        for label, value in values:
            held = new_block(caller, plan, {"label": label, "value": value})
            caller.event(plan, "create", held.key, block=held.block)
            made.append(held.block)
        return made

    return caller.transact(action)


def add_users(workspace: Workspace, root_token: str, names: Sequence[str]) -> list[tuple[str, str]]:
    """New users with these names, in one commit: (id, token) of each. Whether names are free is not looked at."""
    caller = workspace.caller(root_token)

    def action(plan: Plan) -> list[tuple[str, str]]:
        house = house_of(caller, plan)
        assert house is not None  # the root has the directory's key
        me = caller.identity(plan, caller.id)
        sponsor = (caller.id, me.digest, caller.signing_seed(plan))
        made = []
        for name in names:
            identity, keys = new_principal(plan, workspace.id, "user", caller.keys.root.pin, sponsor)
            found = welcome(workspace, plan, identity, keys, name, house.key, b"")
            caller.event(plan, "principal", principal=identity.id)
            made.append((identity.id, found.token))
        return made

    return caller.transact(action)
