"""What a new root did, for whoever asked for it."""

from __future__ import annotations

from dataclasses import dataclass, field

from tallystone.vault.types import TokenInfo


@dataclass(frozen=True)
class Rotated:
    """What a new root for a principal did: the tokens that it ended, a new token in place of the caller's own if that
    one had to end, how many blocks have new keys, the blocks whose keys change before they are next written, and the
    roles whose owners must renew them."""

    principal: str
    ended: list[TokenInfo]
    renewed: int
    marked: list[str]
    roles: list[str]
    token: str | None = field(default=None, repr=False)
