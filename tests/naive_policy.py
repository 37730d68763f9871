"""The rules of rights a second time, as a person would tell them: names, sets, and no cryptography.

It shares nothing with `tallystone.policy`; `test_policy.py` lets both judge the same random histories.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Granted:
    """One live grant."""

    to: str
    rights: frozenset[str]
    through: int = 0
    until: int | None = None
    history: bool = True


@dataclass
class Block:
    """Who may do what with one block."""

    owner: str
    settings: dict[str, object]
    grants: dict[int, Granted] = field(default_factory=dict)
    given: int = 0

    def rights(self, who: str, through: int | None, today: int) -> set[str]:
        """What `who` may do, pointing at the grant with the number `through`."""
        if who == self.owner:
            return {"read", "write", "share"}
        grant = self.grants.get(through) if through is not None else None
        if grant is None or grant.to != who:
            return set()
        if grant.until is not None and grant.until < today:
            return set()
        return set(grant.rights) | ({"read"} if grant.rights else set())

    def may_grant(self, who: str, through: int | None, wanted: Granted, today: int) -> bool:
        """Whether `who` may make this grant; anybody but the owner only to an agent, and below its own grant."""
        if who == self.owner:
            return True
        held = self.rights(who, through, today)
        if not held or wanted.through != through or not wanted.to.startswith("agent-"):
            return False
        if "share" in wanted.rights or not wanted.rights <= held:
            return False
        own = self.grants[through] if through is not None else None
        assert own is not None
        if own.until is not None and (wanted.until is None or wanted.until > own.until):
            return False
        return own.history or not wanted.history

    def grant(self, wanted: Granted) -> int:
        """Take note of a grant; returns its number, which is never used again."""
        self.given += 1
        self.grants[self.given] = wanted
        return self.given

    def may_revoke(self, who: str, through: int | None, number: int, today: int) -> bool:
        """Whether `who` may end a grant."""
        if who == self.owner:
            return True
        if not self.rights(who, through, today) or number not in self.grants:
            return False
        return self.grants[number].through == through

    def revoke(self, number: int) -> list[int]:
        """End a grant with all that was given through it; returns the numbers."""
        gone = [number]
        for one in gone:
            gone += [n for n, grant in self.grants.items() if grant.through == one]
        for one in gone:
            self.grants.pop(one, None)
        return gone

    def may_set(self, who: str) -> bool:
        """Whether `who` may change settings."""
        return who == self.owner

    def may_write(self, who: str, through: int | None, today: int) -> bool:
        """Whether what `who` writes counts."""
        if who == self.owner:
            return True
        if self.settings["locked"] or (self.settings["read_only"] and who.startswith("agent-")):
            return False
        return "write" in self.rights(who, through, today)
