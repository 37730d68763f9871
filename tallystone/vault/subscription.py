"""One listener to the change feed: what it knows, what it has yet to be told, and what must be looked at first.

The rules that it keeps:

- It is told of a version only if nothing but the version changed in the block's row since it was last seen to read the
  block: who may read it is then the same. After any other change of a row that its reach came through, it is told
  nothing of that block (or, if the row is about itself, of anything) before its vault has looked again.
- What it has yet to be told is one entry a block, so one that never listens costs no more than its blocks.
- A block that was deleted and one that was revoked are both `removed`.

It is a plain object without a thread: `Feed` drives it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

from tallystone.errors import TallystoneError
from tallystone.store.protocol import Row, Snapshot
from tallystone.vault.caller import Caller
from tallystone.vault.capsules import empty_inbox
from tallystone.vault.offers import collect_trusted
from tallystone.vault.plan import Plan
from tallystone.vault.resuming import (
    Missed,
    Place,
    log_size,
    mark_at,
    mark_of,
    missed,
    open_place,
    seal_place,
)
from tallystone.vault.sight import EVERYTHING, Name, Seen, Sight, glance, look, news, require, survey
from tallystone.vault.types import Change

VERSION, EPOCH = 3, 4
"""Columns of a block's row; what stands before and behind them says who may read it."""


@dataclass
class Found:
    """What a look again has found: a whole new sight, or single blocks, or that all is over (`code`). It is how things
    were when the log had `size` leaves."""

    size: int = 0
    sight: Sight | None = None
    blocks: dict[str, Seen | None] = field(default_factory=dict)
    code: str = ""


class Subscription:
    """See the module. `told` and `settled` belong to whoever reads; the rest to whoever drives the feed. `user` is who
    listens, or the sponsor of the agent that does."""

    def __init__(
        self, caller: Caller, sight: Sight, only: frozenset[str], at: tuple[int, bytes], number: int
    ) -> None:
        self.caller = caller
        self.user = caller.id
        self.sight = sight
        self.only = only
        self.unsure: set[str] = set()
        self.code = ""
        self.looking = False
        self.position, self._mark = at
        self._settled = at
        self._number = number
        self._pending: dict[str, str] = {}
        self._known: dict[str, bytes] = {}
        self._print = 0
        for block_id, seen in sight.blocks.items():
            self._know(block_id, seen.shape)
        self._opening = "ready"

    def __repr__(self) -> str:
        return f"Subscription({self.caller.id})"

    # -- what happens -------------------------------------------------------------------------------------------

    def touched(self, name: Name, row: Row | None) -> None:
        """A row that this listener watches was written; `row` is how it is now, for the rows of blocks and roles."""
        block_id, before = self.sight.names.get(name), self.sight.rows.get(name)
        if block_id is None:
            return
        if row is None or before is None or not _newer(row, before):
            self.unsure.add(block_id)
        elif block_id == EVERYTHING:
            self.sight.rows[name] = row  # a role's content was written anew, under the same keys and grants
        elif not self._blind(block_id):
            seen = self.sight.blocks[block_id]
            self.sight.rows[name] = row
            self.sight.blocks[block_id] = Seen(row, seen.shape, seen.grant, seen.names)
            self._say(block_id, "updated")

    def _blind(self, block_id: str) -> bool:
        """Whether a look is due or under way, so that nothing may be said of the block. What is found then will say."""
        if self.looking:
            self.unsure.add(block_id)
        return bool(self.unsure & {block_id, EVERYTHING})

    def moved(self, position: int, mark: bytes) -> None:
        """Everything up to this size of the log was taken note of."""
        self.position, self._mark = position, mark

    def end(self, code: str) -> None:
        """Nothing more will be told but why: an error's code."""
        if not self.code:
            self.code = code
            self._pending.clear()

    # -- looking again ------------------------------------------------------------------------------------------

    def begin_look(self) -> set[str]:
        """What to look at, all that is unsure now. Until `finish_look` nothing is said of anything."""
        wanted, self.unsure, self.looking = self.unsure, set(), True
        return wanted

    def find(self, wanted: set[str]) -> Found:
        """Look at these blocks, or at everything. May run in a thread of its own: it changes nothing here."""
        caller = self.caller
        try:
            if EVERYTHING not in wanted:
                return look(caller, partial(self._glances, wanted))
            empty_inbox(caller)
            collect_trusted(caller)
            found = look(caller, self._survey)
            assert found.sight is not None
            seen, before = found.sight.blocks, self.sight.blocks
            fresh = {block_id: seen[block_id] for block_id in seen.keys() - before.keys()}
            if fresh:
                caller.transact(partial(log_watch, caller, fresh))
            return found
        except TallystoneError as error:
            return Found(code=error.code)

    def _glances(self, wanted: set[str], plan: Plan) -> Found:
        return Found(log_size(plan.snapshot), None, {one: glance(self.caller, plan, one) for one in wanted})

    def _survey(self, plan: Plan) -> Found:
        return Found(log_size(plan.snapshot), survey(self.caller, plan, self.only))

    def finish_look(self, found: Found) -> None:
        """Take over what was found, and say what is different."""
        self.looking = False
        if found.code:
            self.end(found.code)
            return
        before = self.sight.blocks
        self.sight = found.sight or self.sight.with_blocks(found.blocks)
        after = self.sight.blocks
        for block_id in before.keys() - after.keys():
            self._say(block_id, "removed")
        for block_id, seen in after.items():
            old = before.get(block_id)
            if old is None:
                self._say(block_id, "created")
            elif old.version != seen.version:
                self._say(block_id, "updated")
            elif old.shape != seen.shape:
                self._say(block_id, "changed")

    def news(self, snapshot: Snapshot) -> bool:
        """Whether something came onto a shelf, or into a mailbox, that is not known yet."""
        return news(self.sight, Plan(snapshot))

    # -- telling ------------------------------------------------------------------------------------------------

    def _say(self, block_id: str, kind: str) -> None:
        waiting = self._pending.get(block_id)
        if kind == "removed" and block_id not in self._known:
            self._pending.pop(block_id, None)  # it came and went before anybody was told
        elif (
            waiting is None
            or kind == "removed"
            or waiting == "removed"
            or (waiting, kind) == ("changed", "updated")
        ):
            self._pending[block_id] = kind
        # else what waits says as much: a block that is new, or has a new version, is to be read anyway

    def resume(self, place: Place, lost: Missed) -> None:
        """Begin with what happened since a place."""
        for block_id in lost.news:
            self._know(block_id, None)
        self._pending.update(lost.kinds)
        if lost.reset:
            self._opening = "reset"
        elif lost.kinds:
            self._settled = place.position, place.mark  # until all of it was told

    @property
    def waiting(self) -> bool:
        """Whether `take` would return something."""
        return bool(self.code or self._opening or self._ready())

    def _ready(self) -> list[str]:
        if self.looking or EVERYTHING in self.unsure:
            return []
        return [block_id for block_id in self._pending if block_id not in self.unsure]

    def take(self) -> list[Change]:
        """What is to be told now, in order; each once. After `end` comes nothing."""
        if self.code:
            self._number += 1
            return [Change(self._number, "end", code=self.code)]
        changes: list[Change] = []
        if self._opening:
            if self._opening == "reset":
                self._number += 1
            changes.append(Change(self._number, self._opening, id=self._id(self._settled)))
            self._opening = ""
        ready = self._ready()
        complete = len(ready) == len(self._pending) and not self.unsure and not self.looking
        for count, block_id in enumerate(ready, 1):
            kind = self._pending.pop(block_id)
            seen = self.sight.blocks.get(block_id)
            self._know(block_id, seen.shape if seen is not None else None)
            if complete and count == len(ready):
                self._settled = self.position, self._mark
            self._number += 1
            version = seen.version if seen is not None else None
            changes.append(Change(self._number, kind, block_id, version, self._id(self._settled)))
        return changes

    def _know(self, block_id: str, shape: bytes | None) -> None:
        """Keep the print of what the listener knows; None: nothing of this block."""
        before = self._known.get(block_id)
        if before == shape:
            return
        for one in (before, shape):
            if one is not None:
                self._print ^= mark_of(self.caller.keys, block_id, one)
        if shape is None:
            del self._known[block_id]
        else:
            self._known[block_id] = shape

    def here(self) -> str:
        """The id of the newest place up to which everything was told."""
        if not self._pending and not self.unsure and not self.looking:
            self._settled = self.position, self._mark
        return self._id(self._settled)

    def _id(self, at: tuple[int, bytes]) -> str:
        place = Place(self._number, *at, self._print.to_bytes(32, "big"))
        return seal_place(self.caller.keys, place)


def _newer(row: Row, before: Row) -> bool:
    """Whether a block's row has a higher version, and else is as it was."""
    rest = (row[:VERSION], row[EPOCH:]) == (before[:VERSION], before[EPOCH:])
    return rest and int(row[VERSION]) > int(before[VERSION])


def log_watch(caller: Caller, blocks: dict[str, Seen], plan: Plan) -> None:
    """Queue the leaf that accounts for a feed, with an entry for each block, as a list has."""
    caller.event(plan, "watch", *(seen.grant for seen in blocks.values()), count=len(blocks))


def subscribe(caller: Caller, only: frozenset[str] = frozenset(), after: str | None = None) -> Subscription:
    """A new listener, from now on or from the event with the id `after` on. One operation: one leaf. Raises `Rejected`
    (`bad_cursor`), and the uniform miss for a block in `only` that the caller cannot read."""
    caller = caller.twin()
    place = open_place(caller.keys, after) if after else None

    def action(plan: Plan) -> Subscription:
        sight = survey(caller, plan, only)
        require(caller, plan, sight, only)
        log_watch(caller, sight.blocks, plan)
        size = log_size(plan.snapshot)
        at = size, mark_at(plan.snapshot, size)
        made = Subscription(caller, sight, only, at, place.number if place else 0)
        if caller.id.startswith("agent-"):
            made.user = caller.identity(plan, caller.id).record.sponsor
        if place is not None:
            made.resume(place, missed(plan.snapshot, caller.keys, sight, place))
        return made

    return caller.transact(action)
