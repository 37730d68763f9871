"""Recording what concurrent clients saw of one block, and judging it: is there an order in which it all makes sense?

The block is a register with versions, to which lines are appended, behind a gate for each principal. A `Call` is one
operation with the moments at which it began and was answered. The rules are pure functions from a history to a list
of complaints; `judge` asks them all. With unique versions no search is needed: the only possible order of the
successful operations is by version, a write before the reads of what it wrote, and the rules ask whether real time
agrees with it.

Two times of a call that succeeded bound the moment at which it happened. A revoke bounds it further: what a principal
did with a right that it lost happened before the loss was acknowledged, even if its own answer came later. So
`settled` moves the end of such calls forward, and whatever began after the revoke must see them.
"""

from __future__ import annotations

import bisect
import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

from tallystone.errors import (
    Conflict,
    Denied,
    Invalid,
    Locked,
    NotFound,
    PreconditionFailed,
    TallystoneError,
    Unauthenticated,
)

T = TypeVar("T")
Kind = Literal["read", "write", "open", "close", "enter"]
Outcome = Literal["ok", "refused", "unsure"]

RIGHTS = {"": 0, "read": 1, "write": 2}
REFUSALS = (Denied, NotFound, Locked, Unauthenticated, PreconditionFailed, Conflict, Invalid)


@dataclass(frozen=True)
class Call:
    """One operation. `began` and `ended` are monotonic nanoseconds.

    `open` gives `target` the right `right` and takes away what is beyond it; `close` takes everything from `target`
    and from whatever got in through it. `enter` is `client` taking what was opened to it (`target` is itself), or
    passing it on to its agent (`target`). A `write` appended `line`; `value` is what the block then read.
    """

    client: str
    kind: Kind
    began: int
    ended: int
    outcome: Outcome = "ok"
    version: int = 0
    value: str = ""
    line: str = ""
    target: str = ""
    right: str = ""
    error: str = ""

    def __str__(self) -> str:
        what = self.line or f"{self.target} {self.right}".strip()
        return f"{self.client} {self.kind} {what} v{self.version} [{self.began}, {self.ended}] {self.outcome}"


History = Sequence[Call]
Under = Mapping[str, str]
"""Who gets in through whom: an agent through the user that attached the block to it."""


# -- recording --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Seen:
    """What an operation showed of the block."""

    version: int
    value: str


class Recorder:
    """Collects the calls of all threads."""

    def __init__(self) -> None:
        self._calls: list[Call] = []
        self._lock = threading.Lock()

    @property
    def history(self) -> list[Call]:
        """All calls, by the moment they began."""
        with self._lock:
            return sorted(self._calls, key=lambda call: call.began)

    def call(
        self,
        client: str,
        kind: Kind,
        work: Callable[[], Seen | None],
        *,
        line: str = "",
        target: str = "",
        right: str = "",
    ) -> Call:
        """Run `work` and record it. Our errors that promise that nothing was written are refusals; after any other
        it is unsure whether the operation happened."""
        outcome: Outcome = "unsure"
        began, seen, name = time.monotonic_ns(), None, ""
        try:
            seen, outcome = work(), "ok"
        except REFUSALS as error:
            outcome, name = "refused", error.code
        except TallystoneError as error:
            name = error.code
        call = Call(
            client,
            kind,
            began,
            time.monotonic_ns(),
            outcome,
            seen.version if seen else 0,
            seen.value if seen else "",
            line,
            target,
            right,
            name,
        )
        with self._lock:
            self._calls.append(call)
        return call


# -- the gates --------------------------------------------------------------------------------------------------


def _path(client: str, under: Under) -> list[str]:
    """The principals whose gates a client stands behind: itself and those it gets in through."""
    found = [client]
    while found[-1] in under:
        found.append(under[found[-1]])
    return found


def _needs(call: Call) -> int:
    return RIGHTS["write"] if call.kind == "write" else RIGHTS["read"]


def _losses(history: History, call: Call, under: Under) -> list[Call]:
    """The acknowledged changes after which the call's client no longer had the right that the call needs, unless it
    was given anew."""
    path, needs = _path(call.client, under), _needs(call)
    return [
        gate
        for gate in history
        if gate.target in path
        and gate.outcome == "ok"
        and (gate.kind == "close" or (gate.kind == "open" and RIGHTS[gate.right] < needs))
    ]


def _given_anew(history: History, call: Call, loss: Call, under: Under) -> bool:
    """Whether what may have happened since the loss may have let the call in: an opening, and an entrance of each
    principal on the way that lost its place. A change of unknown outcome may have happened."""
    since = [
        gate
        for gate in history
        if gate.outcome != "refused" and gate.began < call.ended and gate.ended > loss.began
    ]
    opened = any(
        gate.kind == "open" and gate.target == loss.target and RIGHTS[gate.right] >= _needs(call)
        for gate in since
    )
    path = _path(call.client, under)
    below = path[: path.index(loss.target)] + ([loss.target] if loss.kind == "close" else [])
    enters = {gate.target for gate in history if gate.kind == "enter"}
    entered = {gate.target for gate in since if gate.kind == "enter"}
    return opened and all(one in entered for one in below if one in enters)


def revoked_stays_out(history: History, under: Under) -> list[str]:
    """No read or write that began after a loss of its right was acknowledged succeeds, until it is given anew."""
    return [
        f"succeeded after the revoke: {call}; revoked by {loss}"
        for call in history
        if call.kind in ("read", "write") and call.outcome == "ok"
        for loss in _losses(history, call, under)
        if loss.ended < call.began and not _given_anew(history, call, loss, under)
    ]


def granted_gets_in(history: History, under: Under) -> list[str]:
    """A read or write that began when its right was acknowledged, and ended before any loss of it began, succeeds.
    Whoever got in through somebody else loses its place with each change of that one's right."""
    changes = [one for one in history if one.kind in ("close", "open") and one.outcome != "refused"]
    found = []
    for call in history:
        if call.kind not in ("read", "write") or call.outcome != "refused" or call.error in TRANSIENT:
            continue
        opened = _inside_since(history, call, under)
        if opened is None:
            continue
        path = _path(call.client, under)
        if not any(
            change.target in path
            and change is not opened
            and change.began < call.ended
            and change.ended > opened.began
            and _takes(change, call)
            for change in changes
        ):
            found.append(f"refused although granted: {call} ({call.error})")
    return found


def _takes(change: Call, call: Call) -> bool:
    """Whether a change takes from a call's client what the call needs."""
    if change.kind == "close" or change.target != call.client:
        return True
    return RIGHTS[change.right] < _needs(call)


TRANSIENT = ("conflict", "contended", "precondition_failed", "rotation_pending")
"""Refusals that say nothing about the right."""


def _inside_since(history: History, call: Call, under: Under) -> Call | None:
    """The opening at the root of the latest chain of acknowledged entrances that lets the call in, if one is complete
    before the call began."""
    since, latest = call.began, None
    for principal in _path(call.client, under):
        entered = [
            one.began
            for one in history
            if one.kind == "enter" and one.target == principal and one.outcome == "ok" and one.ended < since
        ]
        if entered:
            since = max(entered)
        if principal in under:
            if not entered:
                return None
            continue
        opened = [
            one
            for one in history
            if one.kind == "open" and one.target == principal and one.outcome == "ok" and one.ended < since
        ]
        if not opened or not entered:
            return None
        latest = max(opened, key=lambda one: one.began)
        if RIGHTS[latest.right] < _needs(call):
            return None
        since = latest.began
    return latest


def settled(history: History, under: Under) -> list[Call]:
    """The successful reads and writes, each ending no later than the loss of the right that it used."""
    found = []
    for call in history:
        if call.kind not in ("read", "write") or call.outcome != "ok":
            continue
        ends = [
            loss.ended
            for loss in _losses(history, call, under)
            if loss.ended > call.began and not _given_anew(history, call, loss, under)
        ]
        found.append(replace(call, ended=min([call.ended, *ends])))
    return found


# -- the register -----------------------------------------------------------------------------------------------


def versions_are_unique(history: History) -> list[str]:
    """Each acknowledged write made a version of its own."""
    counted = Counter(call.version for call in history if call.kind == "write" and call.outcome == "ok")
    return [f"{times} writes made version {version}" for version, times in counted.items() if times > 1]


def real_time_is_kept(history: History, under: Under) -> list[str]:
    """Of two operations that do not overlap, the later sees the earlier's version or a later one; a later write makes
    a later one."""
    calls = settled(history, under)
    by_end = sorted(calls, key=lambda call: call.ended)
    ends = [call.ended for call in by_end]
    highest: list[Call] = []
    for call in by_end:
        highest.append(call if not highest or call.version > highest[-1].version else highest[-1])
    found = []
    for call in calls:
        before = bisect.bisect_left(ends, call.began)
        if before == 0:
            continue
        earlier = highest[before - 1]
        if call.version < earlier.version:
            found.append(f"saw an older version: {call} after {earlier}")
        elif call.kind == "write" and call.version == earlier.version:
            found.append(f"wrote a version that was seen before: {call} after {earlier}")
    return found


def values_agree(history: History) -> list[str]:
    """Whoever saw a version saw the same value, and a later version only adds lines to it."""
    values: dict[int, Call] = {}
    found = []
    for call in history:
        if call.kind not in ("read", "write") or call.outcome != "ok":
            continue
        known = values.setdefault(call.version, call)
        if known.value != call.value:
            found.append(f"two values of one version: {call} and {known}")
    ordered = [values[version] for version in sorted(values)]
    found += [
        f"a later version is no continuation: {later} of {earlier}"
        for earlier, later in itertools.pairwise(ordered)
        if not later.value.startswith(earlier.value)
    ]
    return found


def writes_show_their_line(history: History) -> list[str]:
    """The value that an acknowledged write answered with ends with what it appended."""
    return [
        f"the line is not the last: {call}"
        for call in history
        if call.kind == "write" and call.outcome == "ok" and lines_of(call.value)[-1:] != [call.line]
    ]


def final_value_is_the_sum(history: History, final: str) -> list[str]:
    """In the end each acknowledged line stands there once, in the order of the versions, no refused one does, an
    unsure one at most once, and nothing that nobody wrote."""
    lines = lines_of(final)[1:]
    writes = [call for call in history if call.kind == "write"]
    done = sorted((call for call in writes if call.outcome == "ok"), key=lambda call: call.version)
    unsure = {call.line for call in writes if call.outcome == "unsure"}
    found = [
        f"{lines.count(call.line)} times in the end: {call}" for call in done if lines.count(call.line) != 1
    ]
    found += [
        f"refused, and there in the end: {call}"
        for call in writes
        if call.outcome == "refused" and call.line in lines
    ]
    found += [f"unsure, and there twice: {line}" for line in unsure if lines.count(line) > 1]
    known = {call.line for call in writes}
    found += [f"nobody wrote {line!r}" for line in lines if line not in known]
    acknowledged = {call.line for call in done}
    if [line for line in lines if line in acknowledged] != [call.line for call in done if call.line in lines]:
        found.append("the lines do not stand in the order of their versions")
    return found


def lines_of(value: str) -> list[str]:
    """The lines of a value; the first is what the block was made with."""
    return value.split("\n")


def judge(history: History, final: str, under: Under) -> list[str]:
    """Everything that is wrong with a history: nothing, if the block is linearisable and its gates hold."""
    return [
        *revoked_stays_out(history, under),
        *granted_gets_in(history, under),
        *versions_are_unique(history),
        *real_time_is_kept(history, under),
        *values_agree(history),
        *writes_show_their_line(history),
        *final_value_is_the_sum(history, final),
    ]
