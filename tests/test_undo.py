"""The answer to a poisoned agent: one command takes back exactly what it wrote, and keeps what others wrote since."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import pytest
from server_fixtures import Served, fresh_server  # noqa: F401
from stores import thinned

from tallystone.cli.app import run
from tallystone.cli.history import spans
from tallystone.errors import Denied, Invalid, NotFound
from tallystone.vault import Vault, Workspace
from tallystone.vault.types import Block, Credentials

pytestmark = thinned(2, "they differ in who asks, and ask for the same few kinds of rows")

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
Edit = Callable[[list[str]], None]


@dataclass
class Poisoned:
    """Twenty blocks of Alice's with what should be in them, five of which her agent poisoned."""

    agent: str
    began: datetime
    blocks: list[Block]
    bad: list[Block]
    clean: dict[str, list[str]]
    """What is in each block without the agent's writes."""
    poisoned: dict[str, list[str]] = field(default_factory=dict)
    """And what is."""
    numbers: dict[str, list[int]] = field(default_factory=dict)


def poison(alice: Vault, bob: Vault, seed: int) -> Poisoned:
    """200 writes: 40 by the poisoned agent on 5 blocks, the others by Alice, by Bob and by a second agent, on all."""
    rng, fresh = random.Random(seed), count()
    blocks = [
        alice.create_block(label=f"notes {n}", value="\n".join(f"fact {n}.{line}" for line in range(10)))
        for n in range(20)
    ]
    ids = [block.id for block in blocks]
    scout = alice.create_agent({"name": "scout"}, block_ids=ids)
    helper = alice.create_agent({"name": "helper"}, block_ids=ids)
    for one in ids:
        alice.share(one, bob.principal_id, "write")
        bob.accept_offer(one)
    world = Poisoned(scout.id, datetime.now(UTC), blocks, rng.sample(blocks, 5), {})
    for block in blocks:
        world.clean[block.id] = block.value.split("\n")
        world.poisoned[block.id] = list(world.clean[block.id])
        world.numbers[block.id] = []
    honest, thief = [alice, bob, alice.acting_as(helper.id)], alice.acting_as(scout.id)

    def append(text: str) -> Edit:
        return lambda lines: lines.append(text)

    def put_behind(known: str, text: str) -> Edit:
        return lambda lines: lines.insert(lines.index(known) + 1, text)

    def change(known: str, text: str) -> Edit:
        return lambda lines: lines.__setitem__(lines.index(known), text)

    def remove(known: str) -> Edit:
        return lambda lines: lines.remove(known)

    def write(vault: Vault, block: Block, edit: Edit, *, bad: bool) -> None:
        for told in (world.poisoned, *([] if bad else [world.clean])):
            edit(told[block.id])
        value = "\n".join(world.poisoned[block.id])
        done = vault.edit_block(block.id, lambda _: {"value": value})
        if bad:
            world.numbers[block.id].append(done.version)

    turns = [True] * 40 + [False] * 160
    rng.shuffle(turns)
    lies: dict[str, list[str]] = {block.id: [] for block in blocks}
    truths: dict[str, list[str]] = {block.id: [] for block in blocks}
    for turn in turns:
        block = rng.choice(world.bad if turn else blocks)
        text, n = f"{'POISON' if turn else 'note'} {next(fresh)}", blocks.index(block)
        own, facts = (lies if turn else truths)[block.id], world.poisoned[block.id]
        choices = [append(text), put_behind(f"fact {n}.{rng.randrange(4)}", text)]
        if own:
            known = own.pop()
            choices += [change(known, text), change(known, text)]
        if turn:
            victims = [one for one in facts if one.startswith("fact") and one[-1] in "6789"]
            choices += [change(victims[0], text), remove(victims[-1])] if len(victims) > 1 else []
        edit = rng.choice(choices)
        write(thief if turn else rng.choice(honest), block, edit, bad=turn)
        if text in facts:
            own.append(text)
    return world


def values(vault: Vault, world: Poisoned) -> dict[str, list[str]]:
    return {block.id: vault.block(block.id).value.split("\n") for block in world.blocks}


@pytest.mark.parametrize("seed", range(20) if os.environ.get("TALLYSTONE_LONG") else [1])
def test_one_undo_takes_back_exactly_what_a_poisoned_agent_wrote_in_5_of_20_blocks(
    workspace: Workspace, alice: Vault, bob: Vault, seed: int
) -> None:
    world = poison(alice, bob, seed)
    assert values(alice, world) == world.poisoned
    planned = alice.undo("scout", world.began, dry_run=True)
    assert values(alice, world) == world.poisoned
    done = alice.undo("scout", world.began)
    assert {one.block_id: one.versions for one in done} == {
        block.id: world.numbers[block.id] for block in world.blocks if world.numbers[block.id]
    }
    assert [one.versions for one in planned] == [one.versions for one in done]
    assert all(one.conflicts == [] and not one.skipped for one in done)
    assert values(alice, world) == world.clean
    newest = alice.versions(done[0].block_id).versions[0]
    assert (newest.number, newest.writer, newest.undone) == (done[0].version, alice.principal_id, world.agent)
    for block in world.bad:
        assert world.agent not in {line.writer for line in alice.blame(block.id).lines}
    assert alice.undo("scout", world.began) == []  # nothing is left to do
    assert workspace.verify().findings == []


# -- one block --------------------------------------------------------------------------------------------------


@pytest.fixture
def block(alice: Vault) -> Block:
    """A block of Alice's with one line."""
    return alice.create_block(label="team", value="one")


@pytest.fixture
def agent(alice: Vault, block: Block) -> Vault:
    """An agent of hers that may write it."""
    return alice.acting_as(alice.create_agent({"name": "scout"}, block_ids=[block.id]).id)


@pytest.fixture
def writer(workspace: Workspace, alice: Vault, bob_credentials: Credentials, block: Block) -> Iterator[Vault]:
    """Bob, who may write it."""
    alice.share(block.id, "bob", "write")
    bob = workspace.vault(bob_credentials.token)
    bob.accept_offer(block.id)
    yield bob


def append(vault: Vault, block: Block, line: str) -> None:
    vault.edit_block(block.id, lambda now: {"value": f"{now.value}\n{line}"})


def test_where_others_wrote_over_it_the_conflict_is_told_and_the_rest_taken_back(
    alice: Vault, agent: Vault, writer: Vault, block: Block
) -> None:
    write = [
        (agent, "POISON top\none\nPOISON call 555"),
        (writer, "POISON top\none\ncall 555, says Bob too"),
        (alice, "POISON top\none\ncall 555, says Bob too\nAlice's last word"),
        (agent, "POISON top\none\ncall 555, says Bob too\nAlice's last word\nPOISON end"),
    ]
    for vault, value in write:
        vault.edit_block(block.id, lambda _, value=value: {"value": value})
    (done,) = alice.undo("scout", LONG_AGO)
    (conflict,) = done.conflicts
    assert (conflict.reason, conflict.part, conflict.start) == ("overlap", "value", 3)
    assert conflict.now[0] == "call 555, says Bob too"
    assert conflict.before == []
    assert writer.principal_id in conflict.writers
    assert conflict.versions[0] == 3
    left = "one\ncall 555, says Bob too\nAlice's last word"
    assert alice.block(block.id).value == left
    (again,) = alice.undo("scout", LONG_AGO)  # what is left is told again, and still left
    assert (again.version, [c.now[0] for c in again.conflicts]) == (None, ["call 555, says Bob too"])
    assert alice.block(block.id).value == left


def test_an_undo_of_the_only_writer_since_gives_what_was_before(
    alice: Vault, agent: Vault, block: Block
) -> None:
    for number in range(6):
        agent.edit_block(
            block.id, lambda now, n=number: {"value": f"{n}\n{now.value[::-1]}", "tags": [str(n)]}
        )
    agent.edit_block(block.id, lambda _: {"label": "x", "description": "POISON", "metadata": {"a": 1}})
    (done,) = alice.undo("scout", LONG_AGO, block.id)
    after = alice.block(block.id)
    assert (after.value, after.tags, after.label, after.description, after.metadata) == (
        "one",
        [],
        "team",
        None,
        {},
    )
    assert done.versions == [2, 3, 4, 5, 6, 7, 8]
    assert alice.undo("scout", LONG_AGO, block.id)[0].version is None
    assert alice.block(block.id).version == 9


def test_since_is_a_moment_or_in_one_block_a_versions_number(
    alice: Vault, agent: Vault, block: Block
) -> None:
    for line in ("two", "three", "four"):
        append(agent, block, line)
    assert alice.undo("scout", datetime.now(UTC) + timedelta(hours=1)) == []
    with pytest.raises(Invalid) as caught:
        alice.undo("scout", 3)
    assert caught.value.code == "bad_since"
    assert alice.undo("scout", 3, block.id)[0].versions == [3, 4]
    assert alice.block(block.id).value == "one\ntwo"


def test_an_undo_can_be_undone_and_poison_that_comes_back_is_taken_back_again(
    alice: Vault, agent: Vault, writer: Vault, block: Block
) -> None:
    append(agent, block, "POISON")
    alice.undo("scout", LONG_AGO)
    append(agent, block, "POISON AGAIN")
    assert alice.undo("scout", LONG_AGO)[0].versions == [4]
    assert alice.block(block.id).value == "one"
    writer.undo("alice", 3, block.id)  # Bob brings all of it back
    assert alice.block(block.id).value == "one\nPOISON\nPOISON AGAIN"
    assert alice.undo("scout", LONG_AGO)[0].versions == [2, 4]
    assert alice.block(block.id).value == "one"
    writer.restore(block.id, 2)
    assert alice.undo("scout", LONG_AGO)[0].versions == [2, 4]
    assert alice.block(block.id).value == "one"


def test_a_poisoned_agent_cannot_hide_its_writes_by_undoing_or_restoring_them_itself(
    alice: Vault, agent: Vault, block: Block
) -> None:
    append(agent, block, "POISON")
    agent.undo(agent.principal_id, LONG_AGO, block.id)
    agent.restore(block.id, 2)
    assert alice.block(block.id).value == "one\nPOISON"
    assert alice.undo("scout", LONG_AGO)[0].versions == [2, 3, 4]
    assert alice.block(block.id).value == "one"


def test_other_fields_that_others_changed_since_stay_and_are_told(
    alice: Vault, agent: Vault, writer: Vault, block: Block
) -> None:
    agent.edit_block(block.id, lambda _: {"description": "POISON", "tags": ["bad"]})
    writer.edit_block(block.id, lambda _: {"description": "bob's"})
    (done,) = alice.undo("scout", LONG_AGO)
    assert [(c.part, c.now, c.before) for c in done.conflicts] == [("description", ["bob's"], ["None"])]
    after = alice.block(block.id)
    assert (after.description, after.tags) == ("bob's", [])


def test_of_a_block_that_the_agent_made_only_what_it_wrote_later_is_taken_back(
    alice: Vault, writer: Vault, bob: Vault
) -> None:
    made = writer.create_block(label="bob's", value="made")
    writer.share(made.id, "alice", "write")
    alice.accept_offer(made.id)
    append(writer, made, "and more")
    done = {one.block_id: one for one in alice.undo("bob", LONG_AGO)}[made.id]
    assert ([c.reason for c in done.conflicts], done.versions) == (["first"], [2])
    assert alice.block(made.id).value == "made"


def test_what_the_rule_did_not_keep_cannot_be_gone_back_to(alice: Vault, agent: Vault, block: Block) -> None:
    alice.edit_block(block.id, lambda _: {"keep": {"last": 2}})
    append(agent, block, "POISON")
    append(agent, block, "POISON 2")
    (done,) = alice.undo("scout", LONG_AGO)
    assert ([c.reason for c in done.conflicts], done.versions) == (["out_of_reach"], [])
    assert alice.block(block.id).value.endswith("POISON 2")


def test_a_block_that_refuses_is_skipped_with_the_reason_and_the_others_go_on(alice: Vault) -> None:
    kinds = {
        "locked": {}, "append_only": {"append_only": True}, "over_limit": {}, "label_taken": {}, "": {}
    }  # fmt: skip
    blocks = {
        code: alice.create_block(label=f"was {code}", value="long " * 9, **given)
        for code, given in kinds.items()
    }
    ids = [one.id for one in blocks.values()]
    scout = alice.acting_as(alice.create_agent({"name": "scout"}, block_ids=ids).id)
    for code, one in blocks.items():
        scout.edit_block(
            one.id,
            lambda now, c=code: (
                {"value": now.value + "POISON" if c == "append_only" else "POISON", "label": f"is {c}"}
                if c != "append_only"
                else {"value": now.value + "POISON"}
            ),
        )
    alice.edit_block(blocks["locked"].id, lambda _: {"locked": True})
    alice.edit_block(blocks["over_limit"].id, lambda _: {"limit": 10})
    other = alice.create_block(label="was label_taken")
    alice.attach(scout.principal_id, other.id)
    done = {one.block_id: one for one in alice.undo("scout", LONG_AGO)}
    assert {code: done[one.id].skipped for code, one in blocks.items()} == {code: code for code in blocks}
    assert alice.block(blocks[""].id).value == "long " * 9
    assert all(alice.block(blocks[code].id).value.endswith("POISON") for code in blocks if code)


def test_blocks_that_the_caller_may_not_write_are_skipped_and_others_are_not_in_the_answer(
    workspace: Workspace, alice: Vault, agent: Vault, block: Block, bob_credentials: Credentials
) -> None:
    secret = alice.create_block(label="secret")
    alice.attach(agent.principal_id, secret.id)
    append(agent, block, "POISON")
    append(agent, secret, "POISON")
    alice.share(block.id, "bob", "read")
    bob = workspace.vault(bob_credentials.token)
    bob.accept_offer(block.id)
    (done,) = bob.undo(agent.principal_id, LONG_AGO)
    assert (done.block_id, done.skipped, done.versions) == (block.id, "no_write", [])
    assert bob.undo(agent.principal_id, LONG_AGO, block.id)[0].skipped == "no_write"
    with pytest.raises(NotFound):
        bob.undo(agent.principal_id, LONG_AGO, secret.id)
    assert alice.block(block.id).value == "one\nPOISON"
    with pytest.raises(Denied):
        workspace.vault(alice.create_token(scope="read")).undo("scout", LONG_AGO)


def test_an_undo_of_nobody_or_of_an_ambiguous_name_is_refused(
    alice: Vault, agent: Vault, block: Block
) -> None:
    for who in ("nobody", "agent-00000000-0000-4000-8000-000000000000", ""):
        with pytest.raises(NotFound):
            alice.undo(who, LONG_AGO)
    alice.create_agent({"name": "scout"})
    with pytest.raises(Invalid) as caught:
        alice.undo("scout", LONG_AGO)
    assert caught.value.code == "ambiguous_name"


def test_what_an_agent_wrote_can_be_taken_back_after_it_was_suspended_and_detached(
    alice: Vault, agent: Vault, block: Block
) -> None:
    append(agent, block, "POISON")
    alice.suspend(agent.principal_id)
    alice.detach(agent.principal_id, block.id)
    assert alice.undo(agent.principal_id, LONG_AGO)[0].version == 3
    assert alice.block(block.id).value == "one"


def test_an_undo_is_in_the_log_with_whom_and_what(alice: Vault, agent: Vault, block: Block) -> None:
    append(agent, block, "POISON")
    alice.undo("scout", LONG_AGO)
    event = next(one for one in reversed(alice.events()) if one.kind == "update")
    assert event.detail["undone"] == {"principal": agent.principal_id, "versions": [[2, 2]]}
    assert (event.actor, event.detail["block"]) == (alice.principal_id, block.id)


# -- from outside -----------------------------------------------------------------------------------------------


def test_the_undo_over_http_and_on_the_command_line(
    fresh_server: Served,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    alice = fresh_server.vault()
    bob = fresh_server.vault(fresh_server.add_user("bob"))
    world = poison(alice, bob, seed=3)
    monkeypatch.setenv("TALLYSTONE_TOKEN", fresh_server.token)
    monkeypatch.setenv("TALLYSTONE_URL", fresh_server.url)

    def say(*words: str, status: int = 0) -> str:
        assert run(words) == status
        return capsys.readouterr().out

    bad = [block.id for block in world.blocks if world.numbers[block.id]]
    planned = json.loads(say("undo", world.agent, "--since", "1h", "--dry-run", "--json"))
    assert [one["block_id"] for one in planned] == bad
    answer = fresh_server.http().post(
        "/v1/undo", json={"principal": "scout", "since": world.began.isoformat(), "block_id": bad[0]}
    )
    assert [one["versions"] for one in answer.json()] == [world.numbers[bad[0]]]
    table = say("undo", "scout", "--since", "1h").splitlines()
    assert [line.split("\t")[0] for line in table[1:]] == bad[1:]
    assert values(alice, world) == world.clean
    first = bad[0]
    listed = json.loads(say("history", "list", first, "-n", "3", "--json"))["versions"]
    assert listed[0]["undone"] == world.agent
    assert "-POISON" in say("history", "diff", first, str(listed[1]["number"]), str(listed[0]["number"]))
    value = say("history", "show", first, str(world.numbers[first][-1]), "--value")
    assert "POISON" in value
    assert "POISON" not in say("blame", first)
    say("history", "restore", first, str(world.numbers[first][-1]))
    assert alice.block(first).value == value.removesuffix("\n")
    agent = alice.acting_as(world.agent)
    agent.edit_block(first, lambda now: {"value": now.value + "\nPOISON last"})
    alice.edit_block(first, lambda now: {"value": now.value.replace("POISON last", "POISON at last")})
    assert "1 conflict" in say(
        "undo", "scout", "--since", str(listed[0]["number"]), "--block", first, status=1
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["undo", "scout", "--since", "3"], "a version's number needs --block"),
        (["undo", "scout", "--since", "yesterday"], "not a moment: yesterday"),
        (["undo", "nobody", "--since", "99999999w"], "not a moment"),
        (["undo", "nobody", "--since", "2h"], "nobody that you know is called"),
        (["history", "show", "BLOCK", "99"], "has no version 99"),
        (["history", "diff", "BLOCK", "1"], "has no version 2"),
        (["history", "list", "BLOCK", "--lines", "0"], "--lines must be at least 1"),
        (["history", "restore", "BLOCK", "x"], ""),
        (["block", "edit", "BLOCK", "--keep", "1"], "keep should be"),
        (["block", "edit", "BLOCK", "--keep", "soon"], "not a rule: soon"),
    ],
)
def test_a_wrong_command_says_so_in_one_line(
    workspace: Workspace,
    alice: Vault,
    alice_credentials: Credentials,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    said: str,
) -> None:
    block = alice.create_block(label="x").id
    monkeypatch.setenv("TALLYSTONE_TOKEN", alice_credentials.token)
    monkeypatch.setenv("TALLYSTONE_DATA", str(tmp_path / "data"))
    assert run([block if word == "BLOCK" else word for word in words]) in (1, 2)
    error = capsys.readouterr().err
    assert said in error
    assert [line.partition(":")[0] for line in error.splitlines()] in (["error"], ["error", "hint"])


def test_numbers_in_a_row_are_said_as_a_span() -> None:
    assert spans([]) == ""
    assert spans([9, 2, 4, 5, 6]) == "2, 4-6, 9"
