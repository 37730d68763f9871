"""From the log to those who listen: one look at the log's head for all of them (ADR 0020).

The log is the outbox: each group commit leaves a manifest of the rows that it wrote, durable, in one order, for all
processes. `Feed` reads each once and finds the listeners that watch one of its rows. It has no thread: whoever
has listeners calls `poll`, a server some hundred times a second for all of them together, `Watch` for its own.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from tallystone.audit.leaf import decode_manifest
from tallystone.errors import TallystoneError, Unauthenticated
from tallystone.store.protocol import Snapshot
from tallystone.store.tables import BLOCK, INBOX, LOG_MANIFEST, SHELF
from tallystone.vault.caller import Caller
from tallystone.vault.plan import WS
from tallystone.vault.resuming import log_size, mark_at
from tallystone.vault.sight import EVERYTHING, Name
from tallystone.vault.subscription import Found, Subscription, subscribe
from tallystone.vault.types import Change

if TYPE_CHECKING:
    from tallystone.vault.workspace import Workspace

POLL_SECONDS = 0.01
"""How often whoever listens looks at the log's head."""
_CHUNK = 100


class Feed:
    """The listeners of one process, or of one thread. Not to be shared between threads."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._listeners: dict[Name, set[Subscription]] = {}
        self._watched: dict[Subscription, set[Name]] = {}
        self._position, self._mark = 0, b""
        self._second = self._day = 0
        self.appeared = False

    def __len__(self) -> int:
        return len(self._watched)

    def __iter__(self) -> Iterator[Subscription]:
        return iter(list(self._watched))

    def add(self, listener: Subscription) -> None:
        """Let somebody listen from now on."""
        if not self._watched:
            self._day = self._workspace.today()
            with self._workspace.store.snapshot() as snapshot:
                self._go_to(snapshot, log_size(snapshot))
        self._watched[listener] = set()
        self._watch(listener, listener.position)

    def remove(self, listener: Subscription) -> None:
        """Let somebody listen no longer."""
        for name in self._watched.pop(listener, set()):
            self._forget(name, listener)

    def _watch(self, listener: Subscription, since: int) -> None:
        """Follow what a listener has in sight; the sight is of when the log had `since` leaves."""
        before, after = self._watched[listener], set(listener.sight.names)
        for name in before - after:
            self._forget(name, listener)
        for name in after - before:
            self._listeners.setdefault(name, set()).add(listener)
        self._watched[listener] = after
        if since < self._position:
            with self._workspace.store.snapshot() as snapshot:
                names = self._written(snapshot, since, self._position)
                self._tell(snapshot, names, {listener})

    def _forget(self, name: Name, listener: Subscription) -> None:
        rest = self._listeners.get(name, set())
        rest.discard(listener)
        if not rest:
            self._listeners.pop(name, None)

    @property
    def remote(self) -> bool:
        """Whether asking for news may take long: see `Store.remote`."""
        return self._workspace.store.remote

    # -- what was committed -------------------------------------------------------------------------------------

    def has_moved(self) -> bool:
        """Whether `poll` has anything to do. May run in a thread of its own. Raises `StoreError`."""
        if self._workspace.now() != self._second:
            return True
        with self._workspace.store.snapshot() as snapshot:
            return log_size(snapshot) != self._position

    def poll(self) -> bool:
        """Take note of what was committed since the last time, and of the time. Returns whether there was anything.
        Costs one read when there was nothing. Raises `StoreError`."""
        timely = self._pass_time()
        with self._workspace.store.snapshot() as snapshot:
            size = log_size(snapshot)
            if size == self._position:
                return timely
            names = self._written(snapshot, self._position, size)
            self._tell(snapshot, names, None)
            self._go_to(snapshot, size)
        self.appeared = self.appeared or any(
            table in (SHELF.name, INBOX.name) and (table, key) not in self._listeners for table, key in names
        )
        for listener in self._watched:
            listener.moved(self._position, self._mark)
        return True

    def _go_to(self, snapshot: Snapshot, size: int) -> None:
        self._position, self._mark = size, mark_at(snapshot, size)

    def _written(self, snapshot: Snapshot, since: int, size: int) -> set[Name]:
        """The rows that were written while the log grew from `since` to `size` leaves."""
        names: set[Name] = set()
        after = since - 1
        while after < size - 1:
            rows = snapshot.scan(LOG_MANIFEST, (WS,), after=after, limit=_CHUNK)
            for row in rows:
                if row[1] < size:
                    names.update((table, key) for table, key, _ in decode_manifest(bytes(row[2])))
            if len(rows) < _CHUNK:
                break
            after = int(rows[-1][1])
        return names

    def _tell(self, snapshot: Snapshot, names: set[Name], whom: set[Subscription] | None) -> None:
        """Let those who watch these rows know: all, or those among `whom`. The rows of blocks are read once for all."""
        for name in names & self._listeners.keys():
            listeners = self._listeners[name] if whom is None else self._listeners[name] & whom
            row = None
            for listener in listeners:
                known = listener.sight.rows.get(name)
                if known is not None and name[0] == BLOCK.name:
                    row = row or snapshot.get(BLOCK, (WS, known[1]))
                listener.touched(name, row)

    def _pass_time(self) -> bool:
        """Once a second: whose token has ended, and whether a day is over, with grants and blocks that end on it."""
        if self._workspace.now() == self._second:
            return False
        self._second, today = self._workspace.now(), self._workspace.today()
        due = False
        for listener in self._watched:
            expires = listener.caller.expires
            if today != self._day or (expires is not None and self._second >= expires):
                listener.unsure.add(EVERYTHING)
                due = True
        self._day = today
        return due

    # -- looking again ------------------------------------------------------------------------------------------

    def search(self, listeners: Iterable[Subscription]) -> list[Subscription]:
        """Who among these has something new on a shelf or in the mail. May run in a thread of its own."""
        with self._workspace.store.snapshot() as snapshot:
            return [listener for listener in listeners if not listener.code and listener.news(snapshot)]

    def doubtful(self) -> list[Subscription]:
        """Who must look again before it is told more. Those whose own standing is in doubt come first."""
        found = [one for one in self._watched if one.unsure and not one.looking and not one.code]
        return sorted(found, key=lambda one: EVERYTHING not in one.unsure)

    def finish_look(self, listener: Subscription, found: Found) -> None:
        """Let a listener take over what it found, and follow what it has in sight now."""
        listener.finish_look(found)
        if listener in self._watched and not listener.code:
            self._watch(listener, found.size)


class Watch:
    """The changes of a caller's blocks, as they happen: an iterator that waits for the next one.

    It ends by raising `Unauthenticated` when access ends. Use from one thread at a time.
    """

    def __init__(self, caller: Caller, only: frozenset[str], after: str | None) -> None:
        self._listener = subscribe(caller, only, after)
        self._feed = Feed(caller.workspace)
        self._feed.add(self._listener)
        self._changes: deque[Change] = deque()
        self._place = self._listener.here()

    def __repr__(self) -> str:
        return f"Watch({self._listener.caller.id})"

    def __iter__(self) -> Watch:
        return self

    def __next__(self) -> Change:
        change = self.wait()
        assert change is not None  # without a time it waits for good
        return change

    def wait(self, seconds: float | None = None) -> Change | None:
        """The next change, or None when there was none for so long."""
        until = None if seconds is None else time.monotonic() + seconds
        while True:
            change = self.poll()
            if change is not None or (until is not None and time.monotonic() >= until):
                return change
            time.sleep(
                POLL_SECONDS
            )  # of the listener's own thread; other processes write, so no event could wake it

    def poll(self) -> Change | None:
        """The next change if there is one already. Raises `Unauthenticated` once access has ended, `StoreError`."""
        if not self._changes:
            self._feed.poll()
            self._look()
            self._changes.extend(self._listener.take())
        if not self._changes:
            self._place = self._listener.here()
            return None
        change = self._changes.popleft()
        if change.kind == "end":
            raise ended(change.code)
        self._place = change.id
        return change if change.kind != "ready" else self.poll()

    def _look(self) -> None:
        if self._feed.appeared:
            self._feed.appeared = False
            for listener in self._feed.search([self._listener]):
                listener.unsure.add(EVERYTHING)
        for listener in self._feed.doubtful():
            self._feed.finish_look(listener, listener.find(listener.begin_look()))

    @property
    def place(self) -> str:
        """Where a later watch goes on (`after`): beyond the changes that were returned so far."""
        return self._place


def ended(code: str) -> TallystoneError:
    """What is raised when a feed has ended with this code."""
    if code in ("revoked", "expired", "inactive", "unauthenticated"):
        return Unauthenticated("access has ended", hint="ask whoever gave it", code=code)
    return TallystoneError("the feed has ended", hint="watch again", code=code)
