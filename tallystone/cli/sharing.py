"""`tallystone block share`, `revoke`, `transfer` and its like, and `tallystone why`: who holds a block, and why."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

from cyclopts import Parameter

from tallystone.cli.block import BlockId, Once, app
from tallystone.cli.group import command
from tallystone.cli.place import Place
from tallystone.cli.terminal import emit, jsonable, progress, report, say, table
from tallystone.cli.times import Day, day
from tallystone.vault.types import Reach


@command(
    app,
    "share",
    "tallystone block share block-2f4d8c1a-… --with ada --can write",
    "tallystone block share block-2f4d8c1a-… --with engineering --until 2027-01-31",
    "tallystone block share block-2f4d8c1a-… --with ada --can write+share --depth 1",
)
def share(
    block: BlockId,
    /,
    *,
    to: Annotated[str, Parameter(name="--with", metavar="WHOM")],
    can: Literal["read", "write", "share", "write+share"] = "read",
    until: Day = None,
    depth: Annotated[int, Parameter(metavar="N")] = 0,
    no_history: Once = False,
    place: Place = Place(),
) -> int:
    """Grant a block to a user, an agent or a role. To others than your own agents and roles it is an offer until they
    accept it. Sharing again on other terms replaces the grant.

    Parameters
    ----------
    block
        The block's id.
    to
        A user's or role's name or id, or an agent's id.
    can
        What they may do with it. write implies read; share, to grant it to others, does too.
    until
        The last day (UTC) of the grant.
    depth
        How often share may be passed on: with 0 they grant read and write only.
    no_history
        They read what is written from now on, not what was written before.
    """
    with place.vault() as vault:
        grant = vault.share(block, to, can, until=day(until), depth=depth, history=not no_history)
    ends = "" if grant.until is None else f" until {grant.until}"
    return report(
        grant,
        f"{grant.name or grant.recipient} can {grant.can} {block}{ends} (grant {grant.number})",
        as_json=place.as_json,
    )


@command(app, "revoke", "tallystone block revoke block-2f4d8c1a-… --from ada")
def revoke(
    block: BlockId,
    /,
    *,
    whom: Annotated[str, Parameter(name="--from", metavar="WHOM")],
    place: Place = Place(),
) -> int:
    """Take a grant back, with all that was passed on through it, and renew the block's key. Lists who can still read.

    Parameters
    ----------
    block
        The block's id.
    whom
        A user's or role's name or id, or an agent's id.
    """
    with place.vault() as vault:
        left = vault.revoke(block, whom)
    if place.as_json:
        emit({"revoked": whom, "still_reachable": jsonable(left)})
    else:
        say(f"revoked: {whom} on {block}. Who can still reach it:")
        _reach(left, empty="nobody else")
    return 0


def _reach(found: Iterable[Reach], *, empty: str) -> None:
    rows = ([one.principal, one.name, one.can, one.why] for one in found)
    table(("PRINCIPAL", "NAME", "CAN", "WHY"), rows, empty=empty)


@command(app, "rotate", "tallystone block rotate block-2f4d8c1a-…")
def rotate(block: BlockId, /, *, place: Place = Place()) -> int:
    """Change a block's keys, for all who hold it now: what is written from now on opens with new ones alone.

    Parameters
    ----------
    block
        The block's id.
    """
    with place.vault() as vault, progress("wrapping keys") as step:
        epoch = vault.rotate(block, progress=step)
    return report(
        {"rotated": block, "epoch": epoch}, f"{block} has new keys: epoch {epoch}", as_json=place.as_json
    )


@command(app, "transfer", "tallystone block transfer block-2f4d8c1a-… --to ada")
def transfer(
    block: BlockId,
    /,
    *,
    to: Annotated[str, Parameter(name="--to", metavar="WHOM")],
    place: Place = Place(),
) -> int:
    """Offer another user the ownership of a block. It stays yours until they accept; then it is out of your reach.

    Parameters
    ----------
    block
        The block's id.
    to
        A user's name or id.
    """
    with place.vault() as vault:
        vault.transfer(block, to)
    return report(
        {"block": block, "offered_to": to},
        f"{block} is {to}'s as soon as they accept: tallystone block accept-transfer",
        as_json=place.as_json,
    )


@command(app, "accept-transfer", "tallystone block accept-transfer block-2f4d8c1a-…")
def accept_transfer(block: BlockId, /, *, place: Place = Place()) -> int:
    """Become the owner of a block that its owner hands over to you (see offers list).

    Parameters
    ----------
    block
        The block's id.
    """
    with place.vault() as vault:
        done = vault.accept_transfer(block)
    return report({"block": done.id, "owner": done.owner}, f"{done.id} is yours", as_json=place.as_json)


@command(app, "cancel-transfer", "tallystone block cancel-transfer block-2f4d8c1a-…")
def cancel_transfer(block: BlockId, /, *, place: Place = Place()) -> int:
    """Take back the offer of a block's ownership.

    Parameters
    ----------
    block
        The block's id.
    """
    with place.vault() as vault:
        vault.cancel_transfer(block)
    return report({"block": block, "offered_to": None}, f"{block} stays yours", as_json=place.as_json)


def why(
    principal: Annotated[str, Parameter(metavar="PRINCIPAL")],
    block: BlockId,
    /,
    *,
    place: Place = Place(),
) -> int:
    """Say why somebody can reach a block, as far as you may know: by which grant, through which role or agent.

    Parameters
    ----------
    principal
        A user's or role's name or id, or an agent's id.
    block
        The block's id.
    """
    with place.vault() as vault:
        found = vault.why(principal, block)
    if place.as_json:
        emit(found)
    else:
        _reach(found, empty=f"{principal} cannot reach {block}, as far as you may know")
    return 0
