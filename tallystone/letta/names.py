"""Names for agents that were given none: two words, and enough digits that two are rarely alike."""

from __future__ import annotations

import secrets

_FIRST = [
    "Amber",
    "Brisk",
    "Calm",
    "Clever",
    "Copper",
    "Early",
    "Gentle",
    "Granite",
    "Hazel",
    "Keen",
    "Lucid",
    "Merry",
    "Nimble",
    "Quiet",
    "Silver",
    "Steady",
]
_SECOND = [
    "Alder",
    "Badger",
    "Beacon",
    "Cedar",
    "Finch",
    "Harbor",
    "Heron",
    "Juniper",
    "Lark",
    "Maple",
    "Otter",
    "Pebble",
    "Robin",
    "Sparrow",
    "Willow",
    "Wren",
]


def random_name() -> str:
    """A name such as `QuietHeron4821`."""
    return f"{secrets.choice(_FIRST)}{secrets.choice(_SECOND)}{secrets.randbelow(9000) + 1000}"
