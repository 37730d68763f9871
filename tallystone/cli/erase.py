"""`tallystone erase`: ending things for good, with a receipt."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from tallystone.cli.block import BlockId, Yes
from tallystone.cli.group import command, group
from tallystone.cli.place import Place, Usage
from tallystone.cli.terminal import confirm, emit, moment, pairs, say
from tallystone.vault.types import Receipt

app = group("erase", "Erase a block, one of its versions, or yourself with all you own, for good.")


@command(app, "block", "tallystone erase block block-2f4d8c1a-… --yes > receipt.txt")
def block(block: BlockId, /, *, yes: Yes = False, place: Place = Place()) -> int:
    """Erase a block of yours with its history, its keys and what the log tells about it. The receipt goes to stdout.

    Asked again, it goes on where it was interrupted and prints the same receipt.

    Parameters
    ----------
    block
        The block's id.
    yes
        Do not ask.
    """
    if not yes and not confirm(f"erase {block} for good, for everybody?"):
        raise Usage("not erased", hint="say --yes to erase without being asked")
    with place.vault() as vault:
        receipt = vault.erase_block(block)
    return _shown(receipt, place)


@command(app, "version", "tallystone erase version block-2f4d8c1a-… 3 --yes > receipt.txt")
def version(
    block: BlockId,
    number: Annotated[int, Parameter(metavar="N")],
    /,
    *,
    yes: Yes = False,
    place: Place = Place(),
) -> int:
    """Erase the content of an earlier version of a block of yours. Its number, writer and time stay in the history.

    Not the current one: write a newer one first. Backups from before do not bring the block back: make a new one.

    Parameters
    ----------
    block
        The block's id.
    number
        The version's number (see history list).
    yes
        Do not ask.
    """
    if not yes and not confirm(f"erase version {number} of {block} for good, for everybody?"):
        raise Usage("not erased", hint="say --yes to erase without being asked")
    with place.vault() as vault:
        receipt = vault.erase_version(block, number)
    return _shown(receipt, place)


@command(app, "me", "tallystone erase me user-7c1e… --yes --json > receipt.json")
def me(
    user: Annotated[str, Parameter(metavar="USER")], /, *, yes: Yes = False, place: Place = Place()
) -> int:
    """Erase yourself: your blocks, agents and their histories, roles, tokens, recovery kit and name.

    What others own stays, and what you signed there stays signed, by an id without a name.

    Parameters
    ----------
    user
        Your own id (see user list), to be sure.
    yes
        Do not ask.
    """
    if not yes and not confirm(f"erase {user} with everything that it owns, for good?"):
        raise Usage("not erased", hint="say --yes to erase without being asked")
    with place.vault() as vault:
        receipt = vault.erase_me(user)
    return _shown(receipt, place)


def _shown(receipt: Receipt, place: Place) -> int:
    if place.as_json:
        emit(receipt)
        return 0
    until = receipt.horizon or "not known: nobody has said how long backups are kept"
    pairs(
        {
            "erased": receipt.erased,
            "by": receipt.by,
            "at": moment(receipt.time),
            "blocks": receipt.blocks,
            "log details": receipt.events,
            "backups until": until,
            "leaf": receipt.leaf,
            "statement": receipt.statement.hex(),
            "checkpoint": receipt.checkpoint.strip(),
        }
    )
    if receipt.holders:
        say(
            f"{receipt.holders} others held it: a row that opens nothing goes when they next list their blocks."
        )
    return 0
