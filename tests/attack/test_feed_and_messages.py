"""Change feeds and messages between agents, turned against who listens and who reads."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from test_agent_messages import agent, befriend, read
from test_feed_server import Peer

from attack.lying import agent_of, caller_of, held_by
from attack.test_agent_messages import Forger
from tallystone.errors import Conflict, NotFound
from tallystone.server.feed import LOOKS, Pump
from tallystone.vault import Vault, Workspace
from tallystone.vault.blocks import new_block
from tallystone.vault.mail import UNREAD, UNREAD_FROM_ONE, UNREAD_FROM_OTHERS
from tallystone.vault.plan import Plan
from tallystone.vault.subscription import Found, Subscription, subscribe

# -- the change feed --------------------------------------------------------------------------------------------


def test_one_users_many_looks_hold_up_nobody_elses_end(
    workspace: Workspace, alice: Vault, bob: Vault
) -> None:
    """Bob and his agent open many streams, and something of his makes each look again, for as long as he can make it
    last. Alice's revoked token must not stay open for that."""
    runner = workspace.vault(bob.agent_token(agent(bob, "runner")))
    spare = workspace.vault(alice.create_token(label="spare"))
    may_end = threading.Event()

    class Slow(Subscription):
        def find(self, wanted: set[str]) -> Found:
            may_end.wait(60)
            return super().find(wanted)

    async def scenario() -> None:
        pump = Pump(workspace)
        crowd, alone = [Peer() for _ in range(2 * LOOKS)], Peer()
        streams: list[asyncio.Task[None]] = []
        listeners = [subscribe(caller_of((bob, runner)[number % 2])) for number in range(len(crowd))]
        for listener in listeners:
            listener.__class__ = Slow
        listeners.append(subscribe(caller_of(spare)))
        for listener, peer in zip(listeners, [*crowd, alone], strict=True):
            serve: Any = pump.stream(listener, {})
            streams.append(asyncio.create_task(serve({}, peer.receive, peer.send)))
        await asyncio.gather(*(peer.until("ready") for peer in [*crowd, alone]))
        await asyncio.to_thread(alice.suspend, bob.principal_id)
        while sum(listener.looking for listener in pump._ears) != len(crowd):
            await asyncio.sleep(0)
        kid = next(one.kid for one in alice.tokens() if one.label == "spare")
        await asyncio.to_thread(alice.revoke_token, kid)
        try:
            await alone.until("end")
        finally:
            may_end.set()
        for peer in crowd:
            peer.left.set()
        await asyncio.gather(*streams)

    asyncio.run(scenario())


# -- messages between agents ------------------------------------------------------------------------------------


def test_a_block_that_was_handed_over_is_no_contact_of_its_new_owners_agents(
    workspace: Workspace, alice: Vault, bob: Vault
) -> None:
    """Bob makes a block as the contact of Alice's agent, lets his own agent hold it, and gives it to Alice, who sees an
    ordinary block. She never said that his agent may write to hers."""
    scribe, runner = agent(alice, "scribe"), agent(bob, "runner")
    caller = caller_of(bob)

    def make(plan: Plan) -> str:
        return new_block(caller, plan, {"label": "notes"}, fixed={"contact": scribe}).block

    block = caller.transact(make)
    bob.attach(runner, block, "read")
    bob.transfer(block, alice.principal_id)
    assert alice.accept_transfer(block).owner == alice.principal_id
    leaf = held_by(workspace, agent_of(workspace, bob, runner).keys, block).leaf
    with pytest.raises(NotFound):
        bob.send_message(runner, scribe, "hello")
    Forger(workspace, bob, runner, alice, scribe).send(contact=block, leaf=leaf)
    assert read(alice, scribe) == []


def test_a_contact_that_went_away_and_came_back_is_one(alice: Vault, bob: Vault) -> None:
    scribe, runner = agent(alice, "scribe"), agent(bob, "runner")
    contact = befriend(alice, scribe, bob, runner)
    alice.transfer(contact, bob.principal_id)
    bob.accept_transfer(contact)
    bob.attach(runner, contact, "read")
    with pytest.raises(NotFound):
        bob.send_message(runner, scribe, "while it is mine")
    bob.transfer(contact, alice.principal_id)
    alice.accept_transfer(contact)
    bob.send_message(runner, scribe, "hello")
    assert read(alice, scribe) == ["hello"]


def test_others_agents_cannot_shut_out_ones_own(alice: Vault, bob: Vault) -> None:
    """Bob makes as many agents as it takes to fill the mailbox that he may write to."""
    scribe, clerk, crowd = agent(alice, "scribe"), agent(alice, "clerk"), [agent(bob, "runner")]
    contact = befriend(alice, scribe, bob, crowd[0])
    crowd += [agent(bob, f"runner {number}") for number in range(UNREAD // UNREAD_FROM_ONE - 1)]
    for one in crowd[1:]:
        bob.attach(one, contact, "read")
    arrived = 0
    for one in crowd:
        for _ in range(UNREAD_FROM_ONE):
            try:
                bob.send_message(one, scribe, "x")
                arrived += 1
            except Conflict as error:
                assert error.code == "mailbox_full"
    assert arrived == UNREAD_FROM_OTHERS < UNREAD
    alice.send_message(clerk, scribe, "from your own")
