"""The change feed over random histories of grants, revokes, roles, agents, expiry, suspension and tokens.

What each listener may know is asked of a list by the same token, which shares no code with the feed's watching. After
each poll, whatever the history:

- what the feed has told so far, applied in order, is exactly what the list shows: nothing more, nothing less;
- it has told nothing unless the listener's own list, versions, rights or settings changed since the last time, and
  named no block but those that changed for it: so it hints at nothing else;
- its numbers count its own events;
- it has ended if and only if the token opens nothing any more.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from stores import sampled

from tallystone.errors import TallystoneError, Unauthenticated
from tallystone.vault import Vault, Workspace
from tallystone.vault.types import Block, Change
from tallystone.vault.watching import Watch

SEEDS = range(200) if os.environ.get("TALLYSTONE_LONG") else range(4)
STEPS = 60
SHOWN = (
    "version",
    "rights",
    "through",
    "limit",
    "read_only",
    "locked",
    "sensitivity",
    "allowed",
    "expires",
    "owner",
)
Known = dict[str, tuple[Any, ...]]


def shown(block: Block) -> tuple[Any, ...]:
    """What a list says of a block beside its content."""
    return tuple(str(getattr(block, name)) for name in SHOWN)


@dataclass
class Listener:
    """Somebody with a token: what its feed has told, and what its list showed at each step since the last poll."""

    name: str
    token: str
    watch: Watch
    told: dict[str, int | None]
    seen: Known
    between: list[Known] = field(default_factory=list)
    number: int = 0
    over: bool = False


class History:
    """Alice and Dora own, Bob and Carol (a role's member) read, Bob's agent reads what Bob gives it."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.random = random.Random(seed)
        self.workspace, root = Workspace.init(folder, "alice")
        self.hours = 0
        self.workspace.clock = lambda: datetime.now(UTC).timestamp() + 3600 * self.hours
        alice = self.workspace.vault(root.token)
        self.tokens = {"alice": root.token}
        for name in ("bob", "carol", "dora"):
            self.tokens[name] = alice.add_user(name).token
        self.agent = self.vault("bob").create_agent({"name": "helper"}).id
        alice.create_role("team")
        self.blocks: list[tuple[str, str]] = []
        self.listeners: list[Listener] = []
        for owner in ("alice", "dora", "alice"):
            self.make(owner)
        for name in ("alice", "bob", "carol"):
            self.listen(name, self.tokens[name])
        self.listen("bob's reading", self.vault("bob").create_token(scope="read"))
        self.listen("bob's agent", self.vault("bob").agent_token(self.agent))

    def vault(self, name: str) -> Vault:
        return self.workspace.vault(self.tokens[name])

    def listen(self, name: str, token: str) -> None:
        vault = self.workspace.vault(token)
        watch, blocks = vault.watch(), vault.blocks()
        told = {block.id: block.version for block in blocks}
        self.listeners.append(
            Listener(name, token, watch, dict(told), {one.id: shown(one) for one in blocks})
        )

    # -- what may happen ----------------------------------------------------------------------------------------

    def step(self) -> None:
        """Something happens, or is refused: both are part of a history. Nobody stays suspended for long."""
        if self.random.random() < 0.25:
            for name in ("bob", "carol"):
                with suppress(TallystoneError):
                    self.vault("alice").resume(name)
        chances: list[tuple[int, Callable[[], object]]] = [
            (2, lambda: self.make(self.random.choice(["alice", "dora", "bob"]))),
            (12, self.write),
            (2, self.set),
            (8, self.share),
            (5, self.revoke),
            (5, self.accept),
            (1, self.decline),
            (3, self.member),
            (3, self.place),
            (1, self.delete),
            (1, self.stand),
            (2, self.clear),
            (1, self.retoken),
            (2, self.wait),
            (1, self.hand_over),
        ]
        act = self.random.choices([act for _, act in chances], [weight for weight, _ in chances])[0]
        with suppress(TallystoneError):
            act()

    def some(self) -> tuple[str, str]:
        return self.random.choice(self.blocks)

    def make(self, owner: str) -> None:
        block = self.vault(owner).create_block(label=f"label {len(self.blocks)}")
        self.blocks.append((block.id, owner))

    def write(self) -> None:
        block, owner = self.some()
        who = self.random.choice([owner, owner, "bob", "carol"])
        for _ in range(self.random.choice([1, 1, 3])):
            self.vault(who).edit_block(block, lambda now: {"value": now.value + "."})

    def set(self) -> None:
        block, owner = self.some()
        change = self.random.choice(
            [
                {"limit": self.random.randint(100, 200)},
                {"read_only": self.random.random() < 0.5},
                {"expires": self.day()},
            ]
        )
        self.vault(owner).edit_block(block, lambda _: change)

    def day(self) -> date | None:
        today = date.fromtimestamp(0) + timedelta(self.workspace.today())
        return self.random.choice([None, None, today, today + timedelta(1)])

    def share(self) -> None:
        block, owner = self.some()
        whom = self.random.choice(["bob", "bob", "carol", "dora", "team", self.agent])
        giver = "bob" if whom == self.agent else owner
        self.vault(giver).share(
            block, whom, self.random.choice(["read", "write", "write+share"]), until=self.day()
        )

    def revoke(self) -> None:
        block, owner = self.some()
        self.vault(owner).revoke(block, self.random.choice(["bob", "carol", "dora", "team", self.agent]))

    def accept(self) -> None:
        for name in ("bob", "carol", "dora"):
            for offer in self.vault(name).offers():
                with suppress(TallystoneError):
                    self.vault(name).accept_offer(offer.block_id)

    def decline(self) -> None:
        self.vault(self.random.choice(["bob", "carol"])).decline_offer(self.some()[0])

    def member(self) -> None:
        who = self.random.choice(["bob", "carol", "dora"])
        if self.random.random() < 0.6:
            self.vault("alice").add_members("team", [who], until=self.day())
        else:
            self.vault("alice").remove_member("team", who)

    def place(self) -> None:
        block, _ = self.some()
        attach = self.random.random() < 0.6
        (self.vault("bob").attach if attach else self.vault("bob").detach)(self.agent, block)

    def delete(self) -> None:
        block, owner = self.some()
        self.vault(owner).delete_block(block)

    def stand(self) -> None:
        who = self.random.choice(["bob", "carol"])
        self.vault("alice").suspend(who)
        if self.random.random() < 0.3:
            self.vault("alice").resume(who)

    def clear(self) -> None:
        block, owner = self.some()
        if self.random.random() < 0.5:
            self.vault("alice").set_clearance(
                self.random.choice(["bob", "carol"]), self.random.choice([None, "internal"])
            )
        else:
            level = self.random.choice(["public", "internal"])
            self.vault(owner).edit_block(block, lambda _: {"sensitivity": level})

    def retoken(self) -> None:
        vault = self.vault("bob")
        mine = self.tokens["bob"].split("_")[1]
        spare = [token.kid for token in vault.tokens() if token.kid != mine]
        if spare and self.random.random() < 0.3:
            vault.revoke_token(self.random.choice(spare))
        else:
            ends = datetime.fromtimestamp(self.workspace.now(), UTC) + timedelta(
                hours=self.random.randint(2, 30)
            )
            self.listen("bob, for a while", vault.create_token(expires=ends))

    def wait(self) -> None:
        self.hours += self.random.choice([1, 1, 6, 24])
        if self.random.random() < 0.5:
            self.workspace.purge()

    def hand_over(self) -> None:
        block, owner = self.some()
        self.vault(owner).transfer(block, "carol")
        if self.random.random() < 0.5:
            self.vault("carol").accept_transfer(block)

    # -- what must hold -----------------------------------------------------------------------------------------

    def list(self, listener: Listener) -> Known | None:
        """What a list shows; None if the token opens nothing any more."""
        try:
            return {block.id: shown(block) for block in self.workspace.vault(listener.token).blocks()}
        except Unauthenticated:
            return None

    def look(self) -> None:
        """Ask everybody's list, and some of the feeds."""
        for listener in list(self.listeners):
            now = self.list(listener)
            if listener.over:
                if now is not None:  # whoever was suspended is back
                    self.listeners.remove(listener)
                    self.listen(listener.name, listener.token)
                continue
            if now is not None:
                listener.between.append(now)
            how = self.random.random()
            if how < 0.5 or now is None:
                self.poll(listener, now)
            elif how < 0.6:
                place = listener.watch.place
                listener.watch = self.workspace.vault(listener.token).watch(after=place)
                self.poll(listener, now)

    def poll(self, listener: Listener, now: Known | None) -> None:
        changes: list[Change] = []
        try:
            while (change := listener.watch.poll()) is not None:
                changes.append(change)
        except Unauthenticated:
            assert now is None, f"{listener.name}: ended, though the token opens"
            listener.over = True
            return
        assert now is not None, f"{listener.name}: not ended, though the token opens nothing"
        for change in changes:
            self.hear(listener, change, now)
        versions = {block_id: int(fields[0]) for block_id, fields in now.items()}
        assert listener.told == versions, listener.name
        listener.seen, listener.between = now, []

    def hear(self, listener: Listener, change: Change, now: Known) -> None:
        listener.number += 1
        assert change.number == listener.number
        steps = [listener.seen, *listener.between]
        if change.kind == "reset":
            assert any(step != listener.seen for step in steps), f"{listener.name}: a reset for nothing"
            listener.told = {block_id: int(fields[0]) for block_id, fields in now.items()}
            return
        states = {step.get(change.block_id) for step in steps}
        assert len(states) > 1, f"{listener.name}: told of {change}, which was the same all the time"
        assert states != {None}
        if change.kind == "removed":
            assert change.version is None
            del listener.told[change.block_id]
        else:
            assert (change.kind == "created") or change.block_id in listener.told
            listener.told[change.block_id] = change.version


@sampled(4, "what a feed tells is judged above the store")
@pytest.mark.parametrize("seed", SEEDS)
def test_a_feed_tells_what_a_list_shows_and_hints_at_nothing_else(tmp_path: Path, seed: int) -> None:
    history = History(tmp_path / "data", seed)
    with history.workspace:
        for _ in range(STEPS):
            history.step()
            history.look()
