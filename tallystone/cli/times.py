"""Moments and days as people write them on a command line."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from typing import Annotated

from cyclopts import Parameter

from tallystone.cli.place import Usage

Day = Annotated[str | None, Parameter(metavar="DATE")]
_SPAN = re.compile(r"(\d{1,6})([mhdw])")
_UNITS = {"m": timedelta(minutes=1), "h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}


def deadline(text: str | None, now: datetime) -> datetime | None:
    """`30d`, `12h`, `2027-01-31` or a full ISO time as a moment (UTC unless it says otherwise); `Usage` if past."""
    if text is None:
        return None
    span = _SPAN.fullmatch(text)
    if span:
        try:
            return now + int(span[1]) * _UNITS[span[2]]
        except OverflowError:
            raise Usage(
                f"{text} is too long", hint="leave --expires out for a token that does not end"
            ) from None
    try:
        moment_named = datetime.fromisoformat(text)
    except ValueError:
        raise Usage(
            f"not a time: {text}", hint="like 30d, 12h, 2027-01-31 or 2027-01-31T18:00+01:00"
        ) from None
    if moment_named.tzinfo is None:
        moment_named = moment_named.replace(tzinfo=UTC)
    if moment_named <= now:
        raise Usage(f"{text} is in the past", hint="name a time to come")
    return moment_named


def since(text: str, now: datetime) -> datetime | int:
    """`2h` (ago), `2027-01-31` or a full ISO time as a moment (UTC unless it says otherwise), or the number of a
    version. `Usage` for anything else."""
    if text.isascii() and text.isdigit() and 0 < len(text) < 10 and int(text):
        return int(text)
    span = _SPAN.fullmatch(text)
    try:
        if span:
            return now - int(span[1]) * _UNITS[span[2]]
        named = datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        raise Usage(
            f"not a moment: {text}", hint="like 2h, 3d, 2027-01-31T18:00, or a version's number"
        ) from None
    return named if named.tzinfo else named.replace(tzinfo=UTC)


def keep(text: str | None) -> str | dict[str, int] | None:
    """`all`, a number of versions (`20`) or of days (`30d`) as a block's rule; `Usage` for anything else."""
    if text is None or text == "all":
        return text
    named = re.fullmatch(r"([0-9]{1,9})(d?)", text)
    if named is None:
        raise Usage(f"not a rule: {text}", hint="--keep all, --keep 20 (versions) or --keep 30d (days)")
    return {"days" if named[2] else "last": int(named[1])}


def day(text: str | None) -> date | None:
    """`2027-01-31` as a day. `Usage` for anything else; whether it is over is for the vault to say."""
    if text is None:
        return None
    try:
        if not re.fullmatch(r"\d{4}-\d\d-\d\d", text):
            raise ValueError
        return date.fromisoformat(text)
    except ValueError:
        raise Usage(f"not a date: {text}", hint="a date is written like 2027-01-31") from None
