"""The part of a vault that is about what was: earlier versions, blame, restore and undo."""

from __future__ import annotations

from datetime import datetime

from tallystone.vault import past, undoing
from tallystone.vault.caller import Caller
from tallystone.vault.types import Block
from tallystone.vault.versions import Blame, Difference, PastVersion, Undone, Versions


class Earlier:
    """What `Vault` does with the versions of a block. Each method is one operation, but for `undo`, which is one a
    block. Every version that is looked at is verified, from the newest back."""

    _caller: Caller

    def versions(
        self, block_id: str, *, limit: int | None = 50, before: int | None = None, content: bool = False
    ) -> Versions:
        """The versions of a block below number `before`, newest first; with `content` each has its own, and the page
        may be shorter (`older` then says `more`). Raises `NotFound`, `Tampered`."""
        return past.versions(self._caller, block_id, limit, before, content=content)

    def version(self, block_id: str, number: int) -> PastVersion:
        """One version with its content as it was. Raises `NotFound` (`unknown_version` for one that is not kept, or
        closed to the caller), `Tampered`."""
        return past.version(self._caller, block_id, number)

    def diff(self, block_id: str, before: int, after: int) -> Difference:
        """What changed from one version to another. Raises as `version` does."""
        return past.diff(self._caller, block_id, before, after)

    def blame(self, block_id: str) -> Blame:
        """Which principal wrote which line of the current value, through edits and moves."""
        return past.blame(self._caller, block_id)

    def restore(self, block_id: str, number: int) -> Block:
        """A new version with the content of an earlier one; settings stay as they are. Raises `NotFound`, `Denied`,
        `Locked`, `Invalid`."""
        return undoing.restore(self._caller, block_id, number)

    def undo(
        self, principal: str, since: datetime | int, block_id: str | None = None, *, dry_run: bool = False
    ) -> list[Undone]:
        """Take back everything that a principal (an id, or a name that the caller knows) wrote since a moment, or since
        a version's number, in one block or in all that the caller may write; later edits of others stay. Answers with
        the blocks concerned. Raises `NotFound`, `Invalid` (`bad_since`, `ambiguous_name`), `Denied`."""
        return undoing.undo(self._caller, principal, since, block_id, dry_run=dry_run)
