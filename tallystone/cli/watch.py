"""`tallystone watch`: which blocks change, as it happens."""

from __future__ import annotations

import json
from dataclasses import fields

from tallystone.cli.block import BlockId
from tallystone.cli.place import Place
from tallystone.cli.terminal import line, say
from tallystone.vault.types import Change


def watch(*blocks: BlockId, place: Place = Place()) -> int:
    """Say which of your blocks change, a line each, until you interrupt it or access ends.

    What changed is not said: read the block for that. Lines hold a number, the kind of change (created, updated,
    changed: rights or settings, removed), the block's id and its version. With --url a lost connection is taken up
    again.

    Parameters
    ----------
    blocks
        Only these blocks. Default: all that you can read.
    """
    with place.vault() as vault:
        changes = vault.watch(*blocks)
        say("watching; interrupt to stop")
        for change in changes:
            line(json.dumps(_json(change)) if place.as_json else _text(change))
    return 0


def _json(change: Change) -> dict[str, object]:
    found = {field.name: getattr(change, field.name) for field in fields(change)}
    return {name: value for name, value in found.items() if value not in ("", None)}


def _text(change: Change) -> str:
    if change.kind == "reset":
        return f"{change.number}\treset\twhat was missed cannot be told: list again"
    version = "" if change.version is None else f"\tversion {change.version}"
    return f"{change.number}\t{change.kind}\t{change.block_id}{version}"
