"""Agents that write to each other: who may, what arrives, and that nothing goes on without end.

The first half speaks to the vault; the second runs whole turns over HTTP, with the real client and scripted models.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from scripted_models import Asked, Call, ScriptedModels, Turn
from stores import thinned
from turn_fixtures import Talking, serving, talking  # noqa: F401

from tallystone.errors import Conflict, Denied, Invalid, NotFound
from tallystone.letta.composing import compose
from tallystone.letta.letters import ASK, SEND, delivery
from tallystone.letta.messages import new_id
from tallystone.letta.prompt import parse_prompt
from tallystone.store.tables import ENTRY, INBOX
from tallystone.vault import Vault, Workspace, turns
from tallystone.vault.mail import AT_ONCE, MAX_HOPS, MAX_TEXT, UNREAD, UNREAD_FROM_ONE
from tallystone.vault.messaging import SENDS
from tallystone.vault.types import Credentials

pytestmark = thinned(
    3,
    "they differ in who writes to whom, in turns: the rows are those that test_turns_waiting has",
)

# -- the vault --------------------------------------------------------------------------------------------------


def begin(vault: Vault, agent: str) -> turns.Turn:
    """A turn of the agent that takes what waits for it."""
    run = new_id("run")
    return vault.begin_turn(
        agent,
        "default",
        {"id": run, "handle": "x"},
        lambda record, context: compose((), run, 1, record, context),
        delivery(run),
    )


def read(vault: Vault, agent: str) -> list[str]:
    """What the agent is told by others in its next turn: the words behind the bars."""
    turn = begin(vault, agent)
    turn.write(run={"status": "completed"}, end=True)
    mine = [one for one in turn.context if one.get("run") == turn.run]
    return ["\n".join(line[2:] for line in one["text"].split("\n")[1:-1]) for one in mine]


def agent(vault: Vault, name: str) -> str:
    return vault.create_agent(
        {"name": name, "description": f"what {name} does", "system": "SECRET PROMPT"}
    ).id


@pytest.fixture
def scribe(alice: Vault) -> str:
    """An agent of Alice's."""
    return agent(alice, "scribe")


@pytest.fixture
def clerk(alice: Vault) -> str:
    """Another one."""
    return agent(alice, "clerk")


@pytest.fixture
def runner(bob: Vault) -> str:
    """An agent of Bob's."""
    return agent(bob, "runner")


def befriend(alice: Vault, scribe: str, bob: Vault, runner: str) -> str:
    """Give Bob's agent the contact of Alice's; the contact's block."""
    contact = alice.contact(scribe).id
    alice.share(contact, bob.principal_id, "read")
    bob.accept_offer(contact)
    bob.attach(runner, contact, "read")
    return contact


def test_agents_of_one_user_write_to_each_other(
    alice: Vault, workspace: Workspace, scribe: str, clerk: str
) -> None:
    assert read(alice, clerk) == []
    message = alice.send_message(scribe, clerk, "Two words.\nAnd more.")
    assert alice.has_messages(clerk)
    turn = begin(alice, clerk)
    (heard,) = turn.context
    assert heard["id"] == message
    assert (heard["role"], heard["sender"]) == ("user", scribe)
    lines = heard["text"].split("\n")
    assert f'"scribe", {scribe}' in lines[0] and "not from your user" in lines[0]
    assert lines[1:3] == ["| Two words.", "| And more."]
    assert scribe in lines[3] and SEND in lines[3]
    turn.write(end=True)
    assert not alice.has_messages(clerk)
    assert read(alice, clerk) == []
    assert workspace.verify().findings == []


def test_messages_are_read_in_the_order_in_which_they_were_sent(
    alice: Vault, scribe: str, clerk: str
) -> None:
    other = agent(alice, "other")
    for number in range(4):
        alice.send_message(scribe if number % 2 else other, clerk, str(number))
    assert read(alice, clerk) == ["0", "1", "2", "3"]


def test_who_may_not_be_written_to_is_answered_like_who_does_not_exist(
    alice: Vault, bob: Vault, scribe: str, runner: str
) -> None:
    alice.contact(scribe)
    gone = agent(alice, "gone")
    alice.delete_agent(gone)
    answers = set()
    for to in (scribe, gone, "agent-00000000-0000-4000-8000-000000000000", alice.principal_id, "x", ""):
        with pytest.raises(NotFound) as missed:
            bob.send_message(runner, to, "hello")
        answers.add((missed.value.message.replace(to or "  ", "") if to else "", missed.value.hint))
    assert len({hint for _, hint in answers}) == 1
    assert len({message for message, _ in answers if message}) == 1
    assert not alice.has_messages(scribe)
    assert read(alice, scribe) == []


def test_an_agents_contact_lets_others_write_and_shows_nothing_of_its_prompt(
    alice: Vault, bob: Vault, workspace: Workspace, scribe: str, runner: str
) -> None:
    contact = befriend(alice, scribe, bob, runner)
    seen = bob.block(contact)
    assert scribe in seen.value and "what scribe does" in seen.value and "SECRET" not in str(seen)
    bob.send_message(runner, scribe, "hello")
    assert read(alice, scribe) == ["hello"]
    with pytest.raises(NotFound):  # the way back is a grant of its own
        alice.send_message(scribe, runner, "hello")
    assert alice.contact(scribe).id == contact
    assert {one.principal for one in alice.reach(contact)} >= {bob.principal_id, runner}
    assert workspace.verify().findings == []


def test_holding_the_contact_oneself_gives_ones_agents_nothing(
    alice: Vault, bob: Vault, scribe: str, runner: str
) -> None:
    contact = alice.contact(scribe).id
    alice.share(contact, bob.principal_id, "read")
    bob.accept_offer(contact)
    with pytest.raises(NotFound):
        bob.send_message(runner, scribe, "hello")


def test_a_contact_can_be_granted_to_an_agent_or_held_through_a_role(
    alice: Vault, bob: Vault, scribe: str, runner: str
) -> None:
    contact, second = alice.contact(scribe).id, agent(bob, "second")
    alice.share(contact, runner, "read")
    with pytest.raises(NotFound):
        bob.send_message(runner, scribe, "an offer is nothing yet")
    bob.accept_offer(contact)
    bob.send_message(runner, scribe, "granted")
    role = bob.create_role("writers").id
    alice.share(contact, role, "read")
    bob.accept_offer(contact)
    bob.add_members(role, [second])
    bob.send_message(second, scribe, "through a role")
    assert read(alice, scribe) == ["granted", "through a role"]
    bob.send_message(second, scribe, "sent before")
    bob.remove_member(role, second)
    assert read(alice, scribe) == []
    with pytest.raises(NotFound):
        bob.send_message(second, scribe, "taken out of the role")
    bob.send_message(runner, scribe, "still granted")
    assert read(alice, scribe) == ["still granted"]


def test_a_revoked_contact_ends_at_once_what_is_unread_included(
    alice: Vault, bob: Vault, scribe: str, runner: str
) -> None:
    contact = befriend(alice, scribe, bob, runner)
    bob.send_message(runner, scribe, "in time")
    assert read(alice, scribe) == ["in time"]
    bob.send_message(runner, scribe, "too late")
    alice.revoke(contact, bob.principal_id)
    with pytest.raises(NotFound):
        bob.send_message(runner, scribe, "revoked")
    assert read(alice, scribe) == []
    assert "refused-message" in [event.kind for event in alice.events(limit=10)]


@pytest.mark.parametrize("how", ["delete", "transfer", "clearance", "suspend"])
def test_whatever_else_ends_the_right_ends_it_for_the_unread(
    alice: Vault, bob: Vault, scribe: str, runner: str, how: str
) -> None:
    contact = befriend(alice, scribe, bob, runner)
    bob.send_message(runner, scribe, "hello")
    if how == "delete":
        alice.delete_block(contact)
    elif how == "transfer":
        alice.transfer(contact, bob.principal_id)
        bob.accept_transfer(contact)
    elif how == "clearance":
        alice.set_clearance(bob.principal_id, "internal")
        alice.edit_block(contact, lambda _: {"sensitivity": "internal"})
        alice.set_clearance(bob.principal_id, None)
    else:
        bob.suspend(runner)
    assert read(alice, scribe) == []
    if how == "suspend":
        bob.resume(runner)
        bob.send_message(runner, scribe, "back")
        assert read(alice, scribe) == ["back"]
    elif how != "clearance":
        with pytest.raises(NotFound):
            bob.send_message(runner, scribe, "hello")
        fresh = alice.contact(scribe).id
        assert fresh != contact


def test_an_agents_own_token_writes_and_reads_as_far_as_it_can_tell(
    alice: Vault, bob: Vault, workspace: Workspace, scribe: str, clerk: str, runner: str
) -> None:
    tokens = {
        name: vault.agent_token(name) for vault, name in ((alice, scribe), (alice, clerk), (bob, runner))
    }

    def own(name: str) -> Vault:
        return workspace.vault(tokens[name])

    own(scribe).send_message(scribe, clerk, "between sisters")
    assert read(own(clerk), clerk) == ["between sisters"]
    contact = befriend(alice, scribe, bob, runner)
    own(runner).send_message(runner, scribe, "from outside")
    assert read(own(scribe), scribe) == []  # it cannot see who was granted its contact: the message waits
    assert read(alice, scribe) == ["from outside"]
    alice.attach(scribe, contact, "read")
    own(runner).send_message(runner, scribe, "once more")
    assert read(own(scribe), scribe) == ["once more"]
    own(runner).send_message(runner, scribe, "too late")
    alice.revoke(contact, bob.principal_id)
    assert read(own(scribe), scribe) == []
    assert not alice.has_messages(scribe)
    with pytest.raises(NotFound):
        own(scribe).send_message(clerk, scribe, "as somebody else")
    with pytest.raises(Denied):
        own(scribe).contact(scribe)
    with pytest.raises(Denied):
        workspace.vault(alice.agent_token(scribe, scope="read")).send_message(scribe, clerk, "x")


def test_what_is_no_message_is_refused_and_logged(alice: Vault, scribe: str, clerk: str) -> None:
    for to, text, code in (
        (clerk, "", "message_length"),
        (clerk, " \n", "message_length"),
        (clerk, "x" * (MAX_TEXT + 1), "message_length"),
        (clerk, "\ud800", "invalid"),
        (scribe, "hello", "to_itself"),
    ):
        with pytest.raises(Invalid) as refused:
            alice.send_message(scribe, to, text)
        assert (refused.value.code, bool(refused.value.hint)) == (code, True)
        (event,) = alice.events(limit=1)
        assert (event.kind, event.actor, event.under) == ("denied", scribe, alice.principal_id)
    alice.send_message(scribe, clerk, "x" * MAX_TEXT)
    assert read(alice, clerk) == ["x" * MAX_TEXT]


def test_a_mailbox_has_an_end_for_each_sender_and_for_all(alice: Vault, clerk: str) -> None:
    senders = [agent(alice, f"s{number}") for number in range(UNREAD // UNREAD_FROM_ONE + 1)]
    for sender in senders[:-1]:
        for number in range(UNREAD_FROM_ONE):
            alice.send_message(sender, clerk, str(number))
        with pytest.raises(Conflict) as full:
            alice.send_message(sender, clerk, "one too many")
        assert full.value.code == "mailbox_full"
    with pytest.raises(Conflict):
        alice.send_message(senders[-1], clerk, "one too many")
    assert read(alice, clerk) == [str(number) for number in range(AT_ONCE)]
    alice.send_message(senders[-1], clerk, "there is room again")
    assert sum(len(read(alice, clerk)) for _ in range(4)) == UNREAD - AT_ONCE + 1


def test_of_many_senders_at_once_no_message_is_lost_and_none_too_many_is_taken(
    alice: Vault, workspace: Workspace, alice_credentials: Credentials, clerk: str
) -> None:
    senders = [agent(alice, f"s{number}") for number in range(4)]
    sent, refused, gate = [], [], threading.Barrier(4)

    def work(sender: str) -> None:
        vault = workspace.vault(alice_credentials.token)
        gate.wait()
        for number in range(UNREAD_FROM_ONE + 1):
            try:
                vault.send_message(sender, clerk, f"{sender} {number}")
                sent.append(f"{sender} {number}")
            except Conflict as error:
                refused.append(error.code)

    threads = [threading.Thread(target=work, args=(sender,)) for sender in senders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(sent), refused) == (UNREAD, ["mailbox_full"] * 4)
    found = [text for _ in range(UNREAD // AT_ONCE) for text in read(alice, clerk)]
    assert sorted(found) == sorted(sent)


def test_hops_are_counted_in_the_run_whoever_asks(alice: Vault, scribe: str, clerk: str) -> None:
    one, other = scribe, clerk
    alice.send_message(one, other, "0")
    for hop in range(1, MAX_HOPS):
        turn = begin(alice, other)
        alice.send_message(other, one, str(hop), run=turn.run)
        turn.write(end=True)
        one, other = other, one
    turn = begin(alice, other)
    assert turn.context[-1]["text"].split("\n")[1] == f"| {MAX_HOPS - 1}"
    for _ in range(2):
        with pytest.raises(Denied) as ended:
            alice.send_message(other, one, "again", run=turn.run)
        assert ended.value.code == "too_many_hops"
    turn.write(end=True)
    turn = begin(alice, other)  # by a person, who took it up again
    alice.send_message(other, one, "anew", run=turn.run)
    turn.write(end=True)
    with pytest.raises(Conflict) as lost:
        alice.send_message(other, one, "after its end", run=turn.run)
    assert lost.value.code == "lease_lost"


def test_a_turn_sends_so_many_and_no_more(alice: Vault, scribe: str) -> None:
    others = [agent(alice, str(number)) for number in range(2)]
    turn = begin(alice, scribe)
    for number in range(SENDS):
        alice.send_message(scribe, others[number % 2], str(number), run=turn.run)
    with pytest.raises(Denied) as ended:
        alice.send_message(scribe, others[0], "more", run=turn.run)
    assert ended.value.code == "too_many_messages"
    turn.write(end=True)


def test_each_message_is_one_event_that_its_sender_and_the_contacts_owner_see(
    alice: Vault, bob: Vault, scribe: str, clerk: str, runner: str
) -> None:
    contact = befriend(alice, scribe, bob, runner)
    message = bob.send_message(runner, scribe, "hello")
    for vault in (alice, bob):
        (event,) = [one for one in vault.events(limit=5) if one.kind == "send"]
        assert (event.actor, event.under) == (runner, bob.principal_id)
        assert (event.detail["message"], event.detail["to"], event.detail["hops"]) == (message, scribe, 1)
    read(alice, scribe)
    (event,) = [one for one in alice.events(limit=5) if one.kind == "receive"]
    assert (event.actor, event.detail["senders"]) == (scribe, [runner])
    alice.revoke(contact, bob.principal_id)
    with pytest.raises(NotFound):
        bob.send_message(runner, scribe, "hello")
    (event,) = bob.events(limit=1)
    assert (event.kind, event.actor, event.under) == ("denied", runner, bob.principal_id)


def test_a_crash_between_sending_and_reading_loses_nothing(
    tmp_path: Path,
    alice: Vault,
    alice_credentials: Credentials,
    workspace: Workspace,
    scribe: str,
    clerk: str,
) -> None:
    alice.send_message(scribe, clerk, "durable")
    with Workspace.open(tmp_path / "data") as again:  # who comes after a crash sees what was acknowledged
        vault = again.vault(alice_credentials.token)
        turn = begin(vault, clerk)
        turn.leave()  # the process dies in the middle of the turn
    assert not alice.has_messages(clerk)
    turn = begin(alice, clerk)
    assert [one["text"].split("\n")[1] for one in turn.context] == ["| durable"]
    turn.write(end=True)


def test_a_turn_that_does_not_begin_takes_nothing(alice: Vault, scribe: str, clerk: str) -> None:
    alice.send_message(scribe, clerk, "hello")

    def broken(*_: object) -> Any:
        raise Invalid("no")

    with pytest.raises(Invalid):
        alice.begin_turn(clerk, "default", {"id": "run-1", "handle": "x"}, broken, delivery("run-1"))
    with pytest.raises(Invalid):
        alice.begin_turn(clerk, "default", {"id": "run-1", "handle": "x"}, lambda *_: ([], {}), broken)
    assert read(alice, clerk) == ["hello"]


def test_a_deleted_agent_leaves_no_mail_and_no_contact(
    alice: Vault, workspace: Workspace, scribe: str, clerk: str
) -> None:
    with workspace.store.snapshot() as snapshot:
        before = list(snapshot.rows(ENTRY))  # the index of names
    contact = alice.contact(clerk).id
    alice.send_message(scribe, clerk, "hello")
    read(alice, clerk)
    alice.send_message(scribe, clerk, "unread")
    alice.send_message(clerk, scribe, "hello")
    for one in (clerk, scribe):
        alice.delete_agent(one)
    with workspace.store.snapshot() as snapshot:
        assert list(snapshot.rows(INBOX)) == [] and list(snapshot.rows(ENTRY)) == before
    with pytest.raises(NotFound):
        alice.block(contact)
    assert workspace.verify().findings == []


def test_messages_come_after_the_returns_of_calls_that_were_cut_off(
    alice: Vault, scribe: str, clerk: str
) -> None:
    call = {"id": "call_1", "name": "memory_insert", "arguments": "{}"}
    said = [{"id": "message-2", "role": "assistant", "date": 2, "text": "", "calls": [call], "run": "run-1"}]
    alice.begin_turn(clerk, "default", {"id": "run-1", "handle": "x"}, lambda *_: (said, {})).leave()
    alice.send_message(scribe, clerk, "hello")
    turn = begin(alice, clerk)
    assert [(one["role"], one.get("sender")) for one in turn.context] == [
        ("assistant", None),
        ("tool", None),
        ("user", scribe),
    ]
    turn.write(end=True)


# -- whole turns ------------------------------------------------------------------------------------------------


class Cast:
    """What each agent says, by its id; and what it was asked, so that a test can wait for it."""

    def __init__(self, talking: Talking) -> None:  # noqa: F811
        self.talking = talking
        self.lines: dict[str, Callable[[Asked], Turn]] = {}
        self.heard: dict[str, list[Asked]] = defaultdict(list)
        self._changed = threading.Condition()
        talking.models.play(self)

    def agent(self, name: str, line: Callable[[Asked], Turn] | None = None, **fields: Any) -> Any:
        """An agent with both tools."""
        made = self.talking.agent(name=name, tools=[SEND, ASK], **fields)
        self.lines[made.id] = line or (lambda _: Turn(f"{name} has heard."))
        return made

    def __call__(self, asked: Asked) -> Turn:
        who = parse_prompt(asked.system).facts["agent"]
        with self._changed:
            self.heard[who].append(asked)
            self._changed.notify_all()
        return self.lines[who](asked)

    def asked(self, agent: Any, times: int) -> None:
        """Wait until an agent's model was asked so often, and until the turn in which it was has ended."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.heard[agent.id]) >= times, 30)
        client = self.talking.served.letta()
        for run in client.runs.list(agent_id=agent.id, active=True).items:
            with client.runs.messages.stream(run.id) as events:
                list(events)


@pytest.fixture
def cast(talking: Talking) -> Cast:  # noqa: F811
    """Agents that talk."""
    return Cast(talking)


def to(other: Any, text: str, tool: str = SEND) -> Turn:
    return Turn("", calls=[Call(tool, {"message": text, "other_agent_id": other.id})])


def asks(other: Any) -> Callable[[Asked], Turn]:
    """A line that asks another agent and passes its answer on."""
    return lambda asked: Turn(asked.results[-1]) if asked.results else to(other, "you?", ASK)


def returned(answer: Any) -> Any:
    """The one return of a tool in an answer."""
    (found,) = [one for one in answer.messages if one.message_type == "tool_return_message"]
    return found


def last(answer: Any) -> str:
    return str(answer.messages[-1].content)


def test_the_coordinator_asks_the_finance_agent_and_hears_back(cast: Cast) -> None:
    """The third tutorial, with its coordinator's tool: blocks that one of them alone holds, and a word between them."""
    vault = cast.talking.served.vault()
    budget = vault.create_block(label="financial_data", value="budget: 10")
    notes = vault.create_block(label="coordination_notes")
    names: dict[str, Any] = {}

    def coordinates(asked: Asked) -> Turn:
        if asked.last.text == "We have spent 3.":
            return to(names["finance"], "Note that 3 were spent.")
        if "is noted" in asked.last.text:
            return Turn(
                "", calls=[Call("core_memory_append", {"label": "coordination_notes", "content": "told"})]
            )
        return Turn("Fine.")

    def counts(asked: Asked) -> Turn:
        if "3 were spent" in asked.last.text:
            return Turn(
                "", calls=[Call("core_memory_append", {"label": "financial_data", "content": "spent: 3"})]
            )
        return Turn("") if asked.last.result is None else _answered(asked)

    def _answered(asked: Asked) -> Turn:
        done = asked.last.result is not None and "Delivered" in asked.last.result[1]
        return Turn("Noted.") if done else to(names["coordinator"], "It is noted.")

    append: dict[str, Any] = {"include_base_tools": False}
    names["coordinator"] = cast.talking.agent(
        name="Coordinator_Agent", tools=["core_memory_append", SEND], block_ids=[notes.id], **append
    )
    names["finance"] = cast.talking.agent(
        name="Finance_Agent", tools=["core_memory_append", SEND], block_ids=[budget.id], **append
    )
    cast.lines = {names["coordinator"].id: coordinates, names["finance"].id: counts}
    answer = cast.talking.say(names["coordinator"], "We have spent 3.")
    assert returned(answer).status == "success"
    cast.asked(names["finance"], 3)
    cast.asked(names["coordinator"], 4)
    assert vault.block(budget.id).value == "budget: 10\nspent: 3"
    assert vault.block(notes.id).value == "\ntold"
    (heard,) = [one for one in cast.talking.history(names["finance"]) if one.message_type == "user_message"]
    assert heard.sender_id == names["coordinator"].id
    assert cast.talking.served.workspace.verify().findings == []


def test_an_agent_that_waits_gets_what_the_other_said(cast: Cast) -> None:
    wise = cast.agent("wise", lambda _: Turn("| Four.\nOr so."))
    curious = cast.agent(
        "curious", lambda asked: Turn("I see.") if asked.results else to(wise, "2 + 2?", ASK)
    )
    answer = cast.talking.say(curious, "Ask.")
    assert returned(answer).status == "success"
    assert returned(answer).tool_return.split("\n")[1:] == ["| | Four.", "| Or so."]
    assert wise.id in returned(answer).tool_return
    (question,) = cast.heard[wise.id]
    assert "| 2 + 2?" in question.last.text and "waits for you" in question.last.text
    client = cast.talking.served.letta()
    (run,) = client.runs.list(agent_id=wise.id).items
    assert (run.status, run.stop_reason) == ("completed", "end_turn")
    kinds = [event.kind for event in cast.talking.served.vault().events(limit=40)]
    assert kinds.count("send") == kinds.count("receive") == 1


def test_agents_that_ask_in_a_circle_are_told_so_at_once(cast: Cast) -> None:
    names: dict[str, Any] = {}

    def line(other: str) -> Callable[[Asked], Turn]:
        return lambda asked: Turn(asked.results[-1]) if asked.results else to(names[other], "you?", ASK)

    for name, other in (("a", "b"), ("b", "c"), ("c", "a")):
        names[name] = cast.agent(name, line(other))
    answer = cast.talking.say(names["a"], "Go.")
    assert "in the middle of a turn" in last(answer)
    assert last(answer).count("| ") >= 2  # c's refusal came back through b
    assert [len(cast.heard[one.id]) for one in names.values()] == [2, 2, 2]
    assert not cast.talking.served.vault().has_messages(names["a"].id)


@contextmanager
def served(folder: Path, **options: Any) -> Iterator[Cast]:
    with ScriptedModels() as models:
        started = serving(folder / "data", models, **options)
        try:
            yield Cast(next(started))
        finally:
            next(started, None)


def test_a_chain_of_waiting_agents_holds_no_thread(tmp_path: Path) -> None:
    with served(tmp_path, threads=1) as cast:
        after: Any = cast.agent("last", lambda _: Turn("the end"))
        for name in ("f", "e", "d", "c", "b", "a"):
            after = cast.agent(name, asks(after))
        assert last(cast.talking.say(after, "Go.")).endswith("| the end")


def test_who_waits_for_an_answer_that_does_not_come_goes_on_and_so_does_the_other(tmp_path: Path) -> None:
    gate = threading.Event()

    def thinks(asked: Asked) -> Turn:
        gate.wait(30)
        return Turn("at last")

    with served(tmp_path, reply_wait=1) as cast:
        slow = cast.agent("slow", thinks)
        middle = cast.agent("middle", asks(slow))
        first = cast.agent("first", asks(middle))
        answer = cast.talking.say(first, "Go.")
        assert "has not answered in time" in last(answer)
        gate.set()
        cast.asked(slow, 1)
        cast.asked(middle, 2)
        assert cast.talking.history(slow)[-1].content == "at last"
        assert "in time" in cast.talking.history(middle)[-1].content


def test_whoever_waits_can_be_cancelled_and_the_other_goes_on(cast: Cast) -> None:
    gate = threading.Event()

    def thinks(asked: Asked) -> Turn:
        gate.wait(30)
        return Turn("at last")

    slow = cast.agent("slow", thinks)
    first = cast.agent("first", asks(slow))
    answers: list[Any] = []
    waits = threading.Thread(target=lambda: answers.append(cast.talking.say(first, "Go.")))
    waits.start()
    with cast._changed:
        assert cast._changed.wait_for(lambda: bool(cast.heard[slow.id]), 30)
    cast.talking.served.letta().agents.messages.cancel(first.id)
    waits.join(30)
    assert answers[0].stop_reason.stop_reason == "cancelled"
    gate.set()
    cast.asked(slow, 1)
    assert cast.talking.history(slow)[-1].content == "at last"


def test_two_agents_that_answer_each_other_come_to_an_end(cast: Cast) -> None:
    names: dict[str, Any] = {}

    def line(other: str) -> Callable[[Asked], Turn]:
        def says(asked: Asked) -> Turn:
            return to(names[other], "ping") if asked.last.result is None else Turn("done")

        return says

    names["a"], names["b"] = cast.agent("a", line("b")), cast.agent("b", line("a"))
    cast.talking.say(names["a"], "Go.")
    # a turn for the person, and one for each of the messages: two calls of the model each
    cast.asked(names["b"], MAX_HOPS)
    cast.asked(names["a"], MAX_HOPS + 2)
    (refused,) = [
        one
        for name in names.values()
        for one in cast.talking.history(name)
        if one.message_type == "tool_return_message" and one.status == "error"
    ]
    assert "in a row" in refused.tool_return
    vault = cast.talking.served.vault()
    assert not any(vault.has_messages(one.id) for one in names.values())
    kinds = [event.kind for event in vault.events(limit=5000)]
    assert kinds.count("send") == kinds.count("receive") == MAX_HOPS


def test_who_is_busy_reads_when_its_turn_has_ended(cast: Cast) -> None:
    gate = threading.Event()

    def works(asked: Asked) -> Turn:
        if asked.last.text == "Work.":
            gate.wait(30)
            return Turn("done")
        return Turn("read")

    busy = cast.agent("busy", works)
    writer = cast.agent(
        "writer", lambda asked: Turn("sent") if asked.results else to(busy, "when you have time")
    )
    worker = threading.Thread(target=cast.talking.say, args=(busy, "Work."))
    worker.start()
    with cast._changed:
        assert cast._changed.wait_for(lambda: bool(cast.heard[busy.id]), 30)
    assert returned(cast.talking.say(writer, "Write.")).status == "success"
    asked = cast.talking.served.letta().agents.tools.run(
        ASK, agent_id=writer.id, args={"message": "now?", "other_agent_id": busy.id}
    )
    assert asked.status == "error" and "in the middle of a turn" in str(asked.func_return)
    gate.set()
    worker.join()
    cast.asked(busy, 2)
    assert [one.content for one in cast.talking.history(busy)][-1] == "read"
    (said,) = [one for one in cast.talking.history(busy) if one.sender_id == writer.id]
    assert "| when you have time" in said.content  # and not "now?", which was refused as a whole


def test_mail_waits_while_calls_wait_for_an_approval(cast: Cast) -> None:
    client = cast.talking.served.letta()
    other = cast.agent("other")
    cautious = cast.agent(
        "cautious",
        lambda asked: Turn("fine") if asked.last.result or "|" in asked.last.text else to(other, "x"),
    )
    client.agents.tools.update_approval(SEND, agent_id=cautious.id, body_requires_approval=True)
    writer = cast.agent("writer", lambda asked: Turn("ok") if asked.results else to(cautious, "hello"))
    (request,) = cast.talking.say(cautious, "Go.").messages
    cast.talking.say(writer, "Write.")
    asked = client.agents.tools.run(
        ASK, agent_id=writer.id, args={"message": "now?", "other_agent_id": cautious.id}
    )
    assert asked.status == "error" and "approval" in str(asked.func_return)
    assert cast.talking.served.vault().has_messages(cautious.id)
    approval: Any = {"type": "approval", "approve": True, "approval_request_id": request.id}
    client.agents.messages.create(cautious.id, messages=[approval])
    cast.asked(cautious, 3)
    assert "| hello" in cast.heard[cautious.id][-1].last.text
    assert len(cast.heard[other.id]) == 1


def test_no_tool_says_whether_a_foreign_agent_exists(cast: Cast) -> None:
    mine = cast.agent("mine")
    bob = cast.talking.served.vault(cast.talking.served.add_user("bob"))
    foreign = bob.create_agent({"name": "SECRET"}).id
    unknown = "agent-00000000-0000-4000-8000-000000000000"
    client = cast.talking.served.letta()
    for tool in (SEND, ASK):
        answers = [
            client.agents.tools.run(tool, agent_id=mine.id, args={"message": "hi", "other_agent_id": one})
            for one in (foreign, unknown)
        ]
        texts = [str(one.func_return).replace(foreign, "?").replace(unknown, "?") for one in answers]
        assert [one.status for one in answers] == ["error", "error"]
        assert texts[0] == texts[1] and "LookupError" in texts[0]


def test_an_agents_own_token_sends_and_is_told_that_it_cannot_ask(cast: Cast) -> None:
    vault = cast.talking.served.vault()
    other = cast.agent("other")
    lone = cast.agent("lone", lambda asked: Turn("ok") if asked.results else to(other, "hi", ASK))
    token = vault.agent_token(lone.id)
    answer = cast.talking.served.letta(token).agents.messages.create(lone.id, input="Ask.")
    assert returned(answer).status == "error" and SEND in returned(answer).tool_return
    cast.lines[lone.id] = lambda asked: Turn("ok") if asked.last.result else to(other, "hi")
    answer = cast.talking.served.letta(token).agents.messages.create(lone.id, input="Send.")
    assert returned(answer).status == "success"
    assert vault.has_messages(other.id) and not cast.heard[other.id]  # this token wakes nobody else
    cast.talking.say(other, "Anything new?")
    assert [message.text[:1] for message in cast.heard[other.id][0].messages] == ["(", "A"]
    assert not vault.has_messages(other.id)


def test_tools_run_writes_once_and_asks_once_however_often_the_client_repeats(cast: Cast) -> None:
    other, mine = cast.agent("other"), cast.agent("mine")
    http = cast.talking.served.http()
    for tool, times in ((SEND, 1), (ASK, 2)):
        body = {"args": {"message": f"by {tool}", "other_agent_id": other.id}}
        path = f"/v1/agents/{mine.id}/tools/{tool}/run"
        answers = [
            http.post(path, json=body, headers={"x-stainless-retry-count": str(attempt)}).json()
            for attempt in (0, 1)
        ]
        assert [one["status"] for one in answers] == ["success"] * 2, answers
        cast.asked(other, times)
    told = [one for one in cast.talking.history(other) if one.message_type == "user_message"]
    assert len(told) == 2
    assert "| other has heard." in answers[0]["func_return"] == answers[1]["func_return"]


@pytest.mark.parametrize("tool", [SEND, ASK])
def test_arguments_that_do_not_fit_are_a_tool_error(cast: Cast, tool: str) -> None:
    mine = cast.agent("mine")
    client = cast.talking.served.letta()
    long = {"message": "x" * (MAX_TEXT + 1), "other_agent_id": cast.agent("other").id}
    for args in ({}, {"message": 7, "other_agent_id": "x"}, long, {**long, "message": ""}):
        result = client.agents.tools.run(tool, agent_id=mine.id, args=args)
        assert result.status == "error"
        assert len(str(result.func_return)) < 400


def test_an_agent_without_a_model_keeps_its_mail_and_cannot_be_asked(cast: Cast) -> None:
    silent, mine = cast.talking.agent(name="silent", model="nobody/x"), cast.agent("mine")
    client = cast.talking.served.letta()
    args = {"message": "hi", "other_agent_id": silent.id}
    assert client.agents.tools.run(SEND, agent_id=mine.id, args=args).status == "success"
    asked = client.agents.tools.run(ASK, agent_id=mine.id, args=args)
    assert asked.status == "error" and "model" in str(asked.func_return)
    assert read(cast.talking.served.vault(), silent.id) == ["hi"]


def test_a_contact_over_http(cast: Cast) -> None:
    mine = cast.agent("mine")
    client, bob = cast.talking.served.letta(), cast.talking.served.add_user("bob")
    block = client.post(f"/v1/agents/{mine.id}/contact", cast_to=object)
    assert block["label"] == f"contact/{mine.id}"  # type: ignore[index]
    client.post(f"/v1/blocks/{block['id']}/grants", cast_to=object, body={"principal": "bob"})  # type: ignore[index]
    theirs = cast.talking.served.letta(bob)
    theirs.post(f"/v1/offers/{block['id']}/accept", cast_to=object)  # type: ignore[index]
    runner = theirs.agents.create(name="runner", tools=[SEND], block_ids=[block["id"]], model="nobody/x")  # type: ignore[index]
    args = {"message": "from outside", "other_agent_id": mine.id}
    assert theirs.agents.tools.run(SEND, agent_id=runner.id, args=args).status == "success"
    assert cast.heard[mine.id] == []  # bob's token wakes nobody of another user's
    cast.talking.say(mine, "Anything?")
    assert "| from outside" in cast.heard[mine.id][0].messages[0].text
