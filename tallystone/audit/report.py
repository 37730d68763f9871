"""What a check says: findings, each with its place, and the first leaf of the log that is not as it was signed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tallystone.audit.state import State

FINDINGS_LIMIT = 1000
"""So many findings are listed; the rest are counted."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as the log has it: the place (table and key, keys in hex shortened), and what is
    wrong.
    """

    where: str
    what: str


@dataclass(slots=True)
class Report:
    """What the check found. `leaves` and `rows` say how many it looked at, `root` is the root it computed."""

    findings: list[Finding] = field(default_factory=list)
    unlisted: int = 0
    """How many findings beyond `FINDINGS_LIMIT` there are."""
    first_bad: int | None = None
    """The first leaf that is missing, is not what was signed, or has something else beside it than it had. None if
    the log itself is sound, or if nothing tells one leaf from another. Rows of other tables do not count."""
    leaves: int = 0
    rows: int = 0
    root: bytes = b""
    checkpoint: bytes = b""
    """The signed note that was checked. Kept elsewhere, it is a pin for later checks."""
    state: State | None = None
    """What a later check can begin from; only if it was asked for and nothing was found."""

    @property
    def ok(self) -> bool:
        """Whether nothing was found."""
        return not self.findings

    def add(self, where: str, what: str, *, leaf: int | None = None) -> None:
        """Note a finding, and the leaf that it is about."""
        if leaf is not None and leaf >= 0:
            self.first_bad = leaf if self.first_bad is None else min(leaf, self.first_bad)
        if len(self.findings) < FINDINGS_LIMIT:
            self.findings.append(Finding(where, what))
        else:
            self.unlisted += 1
