"""What a check says: findings, each with its place, and the first leaf of the log that is not as it was signed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tallystone.audit.restored import Lost, Restored

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
    since: int = 0
    """So many leaves a kept state stood for: they were not looked at."""
    leaves: int = 0
    rows: int = 0
    root: bytes = b""
    checkpoint: bytes = b""
    """The signed note that was checked. Kept elsewhere, it is a pin for later checks."""
    state: State | None = None
    """What a later check can begin from; only if it was asked for and nothing was found."""
    restores: list[Restored] = field(default_factory=list)
    """The backups that were restored, by the word of the workspace's root."""
    given_up: dict[str, tuple[Restored, Lost]] = field(default_factory=dict)
    """By who keeps it (`pin` is the one that was given), checkpoints that are not of this log but of leaves that a
    restore gave up: that restore, and the leaves."""

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
