"""What a check says: findings, each with its place."""

from __future__ import annotations

from dataclasses import dataclass, field

from tallystone.audit.restored import Lost, Restored

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
    leaves: int = 0
    rows: int = 0
    root: bytes = b""
    checkpoint: bytes = b""
    """The signed note that was checked. Kept elsewhere, it is a pin for later checks."""
    restores: list[Restored] = field(default_factory=list)
    """The backups that were restored, by the word of the workspace's root."""
    given_up: tuple[Restored, Lost] | None = None
    """What the pin is of, if not of this log: leaves that a restore gave up, and the restore."""

    @property
    def ok(self) -> bool:
        """Whether nothing was found."""
        return not self.findings

    def add(self, where: str, what: str) -> None:
        """Note a finding."""
        if len(self.findings) < FINDINGS_LIMIT:
            self.findings.append(Finding(where, what))
        else:
            self.unlisted += 1
