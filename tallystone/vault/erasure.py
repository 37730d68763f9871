"""The part of a vault that is about ending things for good."""

from __future__ import annotations

from tallystone.vault import erasing, erasing_versions
from tallystone.vault.caller import Caller
from tallystone.vault.types import Receipt


class Erasures:
    """What `Vault` does to erase. Each method is one operation, as there."""

    _caller: Caller

    def erase_block(self, block_id: str) -> Receipt:
        """Erase a block: its rows, its keys, the log details about it alone, and the shred key that every backup would
        need. Owner only. Asked again it finishes what was interrupted, and returns the same receipt."""
        return erasing.erase_block(self._caller, block_id)

    def erase_version(self, block_id: str, number: int) -> Receipt:
        """Erase the content of an earlier version of a block; its number, writer and time stay in the history. Owner
        only. Backups from before do not bring the block back. Asked again as `erase_block` is. Raises `NotFound`,
        `Denied`, `Locked`, `Invalid` (`current_version`, `append_only`)."""
        return erasing_versions.erase_version(self._caller, block_id, number)

    def erase_me(self, confirm: str) -> Receipt:
        """Erase this user with everything it owns; `confirm` is its own id. Its token opens nothing after that. The
        workspace's first user cannot. Raises `Denied`, `Invalid` (`not_confirmed`), `Locked`."""
        return erasing.erase_me(self._caller, confirm)
