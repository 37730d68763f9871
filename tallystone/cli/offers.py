"""`tallystone offers`: what others gave uninvited. Until accepted it is nowhere else, in no prompt."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from tallystone.cli.group import command, group
from tallystone.cli.place import Place
from tallystone.cli.terminal import emit, say, table

app = group("offers", "Blocks, roles and ownership that others offer you.")

Offered = Annotated[str, Parameter(metavar="ID")]


@command(app, "list", "tallystone offers list")
def list_offers(*, place: Place = Place()) -> int:
    """List open offers: to you, to your agents and to your roles. KIND says what: a grant, a role, or a transfer of
    ownership."""
    with place.vault() as vault:
        offers = vault.offers()
    if place.as_json:
        emit(offers)
    else:
        columns = ("ID", "KIND", "LABEL", "FROM", "CAN", "FOR")
        rows = ([o.block_id, o.kind, o.label, o.owner_name or o.owner, o.can, o.recipient] for o in offers)
        table(columns, rows, empty="no open offers")
    return 0


@command(
    app, "accept", "tallystone offers accept block-2f4d8c1a-…", "tallystone offers accept role-51c09e77-…"
)
def accept(offered: Offered, /, *, place: Place = Place()) -> int:
    """Accept an offer: from now on the block is among yours, you are in the role, or you own the block.

    Parameters
    ----------
    offered
        The block's or role's id, as `offers list` shows it.
    """
    with place.vault() as vault:
        kinds = {one.kind for one in vault.offers() if one.block_id == offered}
        if "transfer" in kinds:
            vault.accept_transfer(offered)
        else:
            vault.accept_offer(offered)
    _done("accepted", offered, place)
    return 0


@command(app, "decline", "tallystone offers decline block-2f4d8c1a-…")
def decline(offered: Offered, /, *, place: Place = Place()) -> int:
    """Decline an offer: it disappears.

    Parameters
    ----------
    offered
        The block's or role's id, as `offers list` shows it.
    """
    with place.vault() as vault:
        vault.decline_offer(offered)
    _done("declined", offered, place)
    return 0


def _done(verb: str, offered: str, place: Place) -> None:
    if place.as_json:
        emit({verb: offered})
    else:
        say(f"{verb} {offered}")
