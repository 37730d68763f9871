"""`tallystone offers`: blocks that others shared uninvited. Until accepted they are nowhere else, in no prompt."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from tallystone.cli.group import command, group
from tallystone.cli.place import Place
from tallystone.cli.terminal import emit, say, table

app = group("offers", "Blocks that others want to share with you.")

BlockId = Annotated[str, Parameter(metavar="BLOCK")]


@command(app, "list", "tallystone offers list")
def list_offers(*, place: Place = Place()) -> int:
    """List open offers: to you, and to your agents."""
    with place.vault() as vault:
        offers = vault.offers()
    if place.as_json:
        emit(offers)
    else:
        columns = ("BLOCK", "LABEL", "FROM", "CAN", "FOR")
        rows = ([o.block_id, o.label, o.owner_name or o.owner, o.can, o.recipient] for o in offers)
        table(columns, rows, empty="no open offers")
    return 0


@command(app, "accept", "tallystone offers accept block-2f4d8c1a-…")
def accept(block: BlockId, /, *, place: Place = Place()) -> int:
    """Accept an offer: from now on the block is among yours.

    Parameters
    ----------
    block
        The offered block's id.
    """
    with place.vault() as vault:
        vault.accept_offer(block)
    _done("accepted", block, place)
    return 0


@command(app, "decline", "tallystone offers decline block-2f4d8c1a-…")
def decline(block: BlockId, /, *, place: Place = Place()) -> int:
    """Decline an offer: it disappears.

    Parameters
    ----------
    block
        The offered block's id.
    """
    with place.vault() as vault:
        vault.decline_offer(block)
    _done("declined", block, place)
    return 0


def _done(verb: str, block: str, place: Place) -> None:
    if place.as_json:
        emit({verb: block})
    else:
        say(f"{verb} {block}")
