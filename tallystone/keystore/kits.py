"""Recovery kits: what a person prints, and opens everything of its principal with."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tallystone.errors import Invalid

_KIT = re.compile(r"^(AGE-SECRET-KEY-PQ-1[0-9A-Z]+)\s*$", re.MULTILINE)
_KIT_PRINCIPAL = re.compile(r"^# principal: (user-[0-9a-f-]{36})\s*$", re.MULTILINE)


@dataclass(frozen=True)
class Kit:
    """What a person prints and locks away: an age identity that opens the principal's root."""

    principal: str
    name: str
    identity: str

    def __repr__(self) -> str:
        return f"Kit({self.principal})"

    @property
    def text(self) -> str:
        """The file's text. age reads it as an identity file: comments start with #."""
        return (
            "# Tallystone recovery kit. Print it, lock it away; it opens everything of:\n"
            f"# name: {self.name}\n"
            f"# principal: {self.principal}\n"
            "# To get a new token from it: tallystone recover --kit THIS-FILE --data DIR\n"
            f"{self.identity}\n"
        )


def parse_kit(text: str) -> Kit:
    """Raises `Invalid` when the text is no kit, without repeating any of it."""
    identity, principal = _KIT.search(text), _KIT_PRINCIPAL.search(text)
    if not identity or not principal:
        raise Invalid(
            "this is not a recovery kit",
            hint="a kit is a text file with a '# principal:' line and an AGE-SECRET-KEY-PQ-1 line",
        )
    return Kit(principal[1], "", identity[1])
