"""The part of a vault that is about giving others access: grants, offers, ownership, roles."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from datetime import date

from tallystone.vault import offers, reach, roles, sharing
from tallystone.vault.caller import Caller
from tallystone.vault.types import Access, Block, Grant, Offer, Reach, Role


class Collaboration(ABC):
    """What `Vault` does with others. Each method is one operation, as there."""

    _caller: Caller

    @abstractmethod
    def _open_mail(self) -> None:
        """Move what others sent to the shelf."""

    # -- sharing ------------------------------------------------------------------------------------------------

    def share(
        self,
        block_id: str,
        with_: str,
        can: str = "read",
        *,
        until: date | None = None,
        depth: int = 0,
        history: bool = True,
    ) -> Grant:
        """Grant `read`, `write`, `share` or `write+share` to a user (by name or id), an agent (by id) or a role. To
        others it is an offer. `until` is the grant's last day (UTC); `depth` how often `share` may be passed on;
        without `history` only what is written from now on opens. Raises `Denied`, `Invalid`, `NotFound`, `Taken`."""
        return sharing.share(self._caller, block_id, with_, can, until, depth, history)

    def revoke(self, block_id: str, from_: str) -> list[Reach]:
        """End a grant and change the block's keys. Returns who still reaches the block, and through what."""
        return sharing.revoke(self._caller, block_id, from_)

    def rotate(self, block_id: str, *, progress: Callable[[int, int], None] | None = None) -> int:
        """Change a block's keys on demand: what is written from now on opens with new ones, for all who hold it now.
        Owner and sharers. `progress` is called with (grants done, of). Returns the number of the new epoch."""
        return sharing.rotate(self._caller, block_id, progress)

    def grants(self, block_id: str) -> list[Grant]:
        """The live grants that the caller may know of."""
        return reach.grants(self._caller, block_id)

    def reach(self, block_id: str) -> list[Reach]:
        """Who can reach a block and why, as far as the caller may know."""
        return reach.reach(self._caller, block_id)

    def why(self, principal: str, block_id: str) -> list[Reach]:
        """Why a principal (id, or a name that the caller knows) can reach a block; empty if it cannot."""
        return reach.reach(self._caller, block_id, principal)

    def transfer(self, block_id: str, to: str) -> None:
        """Offer a user the ownership of a block. It stays the caller's until that user accepts."""
        sharing.transfer(self._caller, block_id, to)

    def accept_transfer(self, block_id: str) -> Block:
        """Become the owner of a block that its owner hands over."""
        self._open_mail()
        return sharing.accept_transfer(self._caller, block_id)

    def cancel_transfer(self, block_id: str) -> None:
        """Take back an offered transfer."""
        sharing.cancel_transfer(self._caller, block_id)

    def offers(self) -> list[Offer]:
        """What others have given the caller, its agents or its roles, not yet accepted."""
        self._open_mail()
        return offers.offers(self._caller)

    def accept_offer(self, offered: str) -> Block | None:
        """Take an offer: a block by its id, or the membership of a role by the role's (None is returned then)."""
        self._open_mail()
        return offers.accept(self._caller, offered)

    def decline_offer(self, offered: str) -> None:
        """Put an offer away."""
        offers.decline(self._caller, offered)

    def access(self) -> list[Access]:
        """The access matrix of the caller's blocks, a cell each."""
        return reach.access(self._caller)

    # -- roles --------------------------------------------------------------------------------------------------

    def create_role(
        self, name: str, *, description: str = "", clearance: str | None = None, history: bool = True
    ) -> Role:
        """A new role. `clearance` names the level up to which it may be granted blocks. Without `history`, what was
        written before somebody joined is for the earlier members only."""
        return roles.create_role(self._caller, name, description, clearance, history)

    def roles(self) -> list[Role]:
        """The roles that the caller owns or is in."""
        return roles.roles(self._caller)

    def role(self, role: str) -> Role:
        """One role (by id or name) with its members."""
        return roles.role(self._caller, role)

    def add_members(self, role: str, who: Iterable[str], *, until: date | None = None) -> Role:
        """Add users, agents or other roles of the caller's to one of its roles, all or none."""
        return roles.add_members(self._caller, role, list(who), until)

    def remove_member(self, role: str, who: str) -> Role:
        """Take somebody out of a role of the caller's: the role's root is renewed, and what it reached is marked."""
        return roles.remove_member(self._caller, role, who)

    def delete_role(self, role: str) -> None:
        """End a role of the caller's."""
        roles.delete_role(self._caller, role)
