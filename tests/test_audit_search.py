"""Questions to the log: each answer is compared with what was really done, for each of those who may ask.

The recorder (`Deeds`) writes down who did what to which block while it is done: nothing here
reads the log to learn what the log should say.
"""

from __future__ import annotations

import ast
import re
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from stores import thinned

from tallystone.errors import Denied, Invalid, NotFound
from tallystone.vault import Vault, Workspace, searching
from tallystone.vault.answers import Answered, Span
from tallystone.vault.memory import AddBlock
from tallystone.vault.questions import KINDS, READS, WHATS, Question, What

pytestmark = thinned(2, "they differ in who asks, and ask for the same few kinds of rows")

SOURCE = Path(__file__).resolve().parent.parent / "tallystone"
EVERYTHING = Question()


class Deeds:
    """A story with three users, two agents and a role, and the record of it: (who, kind, block)."""

    def __init__(self, workspace: Workspace, token: str) -> None:
        self.workspace, self.done = workspace, list[tuple[str, str, str]]()
        self.tokens = {"root": token}
        root = workspace.vault(token)
        for name in ("bob", "eve"):
            self.tokens[name] = root.add_user(name).token
        self.ids = {name: self.vault(name).principal_id for name in self.tokens}
        self._tell()

    def vault(self, name: str) -> Vault:
        return self.workspace.vault(self.tokens[name])

    def note(self, who: str, kind: str, block: str) -> None:
        self.done.append((self.ids[who], kind, block))

    def _tell(self) -> None:
        root, bob, eve = (self.vault(name) for name in ("root", "bob", "eve"))
        self.plan, self.diary = (root.create_block(label=label, value="v").id for label in ("plan", "diary"))
        self.own = bob.create_block(label="own", value="v").id
        for who, block in (("root", self.plan), ("root", self.diary), ("bob", self.own)):
            self.note(who, "create", block)
        self.grant = root.share(self.plan, "bob", "read").number
        self.note("root", "share", self.plan)
        bob = self.vault("bob")
        self.note("bob", "offer", self.plan)
        bob.accept_offer(self.plan)
        self.note("bob", "accept", self.plan)
        bob.block(self.plan)
        self.note("bob", "read", self.plan)
        bob.blocks()
        self.note("bob", "list", self.plan)
        self.note("bob", "list", self.own)
        with pytest.raises(Denied):
            bob.edit_block(self.plan, lambda _: {"value": "w"})
        self.note("bob", "denied", self.plan)
        with pytest.raises(NotFound):
            eve.block(self.plan)
        self.note("eve", "denied", "")
        root.edit_block(self.plan, lambda _: {"value": "w"})
        self.note("root", "update", self.plan)
        agent = root.create_agent({"name": "ari"})
        self.agent = self.ids["ari"] = agent.id
        root.attach(agent.id, self.plan)
        self.note("root", "attach", self.plan)
        self.tokens["ari"] = root.agent_token(agent.id)
        ari = self.vault("ari")
        ari.block(self.plan)
        self.note("ari", "read", self.plan)
        ari.edit_block(self.plan, lambda _: {"value": "by ari"})
        self.note("ari", "update", self.plan)
        root.revoke(self.plan, "bob")
        self.note("root", "revoke", self.plan)


@pytest.fixture(scope="module")
def deeds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deeds]:
    workspace, you = Workspace.init(tmp_path_factory.mktemp("story") / "data")
    with workspace:
        yield Deeds(workspace, you.token)


def ask(vault: Vault, question: Question, span: Span | None = None, limit: int = 1000) -> list[Answered]:
    """The whole answer, page by page, oldest first."""
    found: list[Answered] = []
    page = vault.search_log(question, span, limit)
    found += page.events
    while page.onward is not None:
        page = vault.search_log(question, page.onward, limit)
        found += page.events
    oldest = span is not None and span.oldest_first
    return found if oldest else found[::-1]


def told(found: list[Answered], block: str) -> list[tuple[str, str, str]]:
    """An answer as the recorder has it, without the questions that were asked meanwhile."""
    return [(one.event.actor, one.event.kind, block) for one in found if one.event.kind != "audit"]


def test_who_read_a_block_says_every_reader_and_lists_too(deeds: Deeds) -> None:
    found = told(ask(deeds.vault("root"), Question(deeds.plan, what="reads")), deeds.plan)
    assert found == [deed for deed in deeds.done if deed[2] == deeds.plan and deed[1] in READS]
    assert [kind for _, kind, _ in found] == [
        "read",
        "list",
        "read",
    ]  # bob's two, although he was revoked since


def test_what_an_agent_did(deeds: Deeds) -> None:
    for who in (deeds.agent, "ari"):
        found = ask(deeds.vault("root"), Question(by=who, block=deeds.plan))
        assert told(found, deeds.plan) == [deed for deed in deeds.done if deed[0] == deeds.agent]
        assert {one.actor_name for one in found} == {"ari"}
        assert {name.name for one in found for name in one.blocks} == {"plan"}


def test_who_gained_access_to_what_and_through_whom(deeds: Deeds) -> None:
    found = ask(deeds.vault("root"), Question(deeds.plan, what="gained"))
    said = [(one.event.kind, one.actor_name, [name.name for name in one.gained]) for one in found]
    assert said == [("share", "root", ["bob"]), ("accept", "bob", ["bob"]), ("attach", "root", ["ari"])]
    assert [one.event.kind for one in ask(deeds.vault("root"), Question(deeds.plan, to="ari"))] == ["attach"]


def test_every_denied_attempt(deeds: Deeds) -> None:
    """The workspace's root sees all; of those on a block that it had open, the owner sees which block."""
    found = ask(deeds.vault("root"), Question(what="denied", kinds=frozenset({"denied"})))
    tried = [(one.actor_name, one.event.detail["code"], [b.name for b in one.blocks]) for one in found][:2]
    assert tried == [("bob", "no_write", ["plan"]), ("eve", "not_found", [])]
    on_it = ask(deeds.vault("root"), Question(deeds.plan, what="denied"))
    assert told(on_it, deeds.plan) == [deed for deed in deeds.done if deed[1:] == ("denied", deeds.plan)]


def test_what_changed_after_a_grant(deeds: Deeds) -> None:
    span = Span(grant=deeds.grant, oldest_first=True)
    found = told(ask(deeds.vault("root"), Question(deeds.plan, what="changes"), span), deeds.plan)
    later = deeds.done[deeds.done.index((deeds.ids["root"], "share", deeds.plan)) + 1 :]
    assert found == [deed for deed in later if deed[2] == deeds.plan and deed[1] not in READS | {"denied"}]
    with pytest.raises(NotFound) as refused:
        ask(deeds.vault("root"), Question(deeds.plan), Span(grant=99))
    assert refused.value.code == "unknown_grant"
    with pytest.raises(Invalid):
        ask(deeds.vault("root"), EVERYTHING, Span(grant=deeds.grant))


@pytest.mark.parametrize("name", ["bob", "eve", "ari"])
def test_nobody_else_sees_more_than_its_own_acts_and_its_own_blocks(deeds: Deeds, name: str) -> None:
    me = deeds.ids[name]
    for one in ask(deeds.vault(name), EVERYTHING):
        assert one.event.actor == me or deeds.own in {block.id for block in one.blocks}
        assert deeds.diary not in repr(one) and "diary" not in repr(one)
    mine = [deed for deed in deeds.done if deed[0] == me]
    kinds = [one.event.kind for one in ask(deeds.vault(name), Question(by=me))]
    for _, kind, _ in mine:
        assert kind in kinds


def test_a_question_about_anothers_block_is_answered_like_one_about_none(deeds: Deeds) -> None:
    nowhere = "block-00000000-0000-4000-8000-000000000000"
    eve = deeds.vault("eve")
    for what in (None, *WHATS):
        assert ask(eve, Question(deeds.diary, what=what)) == ask(eve, Question(nowhere, what=what)) == []


def test_whoever_lost_a_block_keeps_its_own_acts_on_it_and_learns_no_more(deeds: Deeds) -> None:
    found = ask(deeds.vault("bob"), Question(deeds.plan))
    assert {one.event.actor for one in found} == {deeds.ids["bob"]}
    assert {block.name for one in found for block in one.blocks if block.id == deeds.plan} == {""}


def test_a_sharer_sees_what_others_did_until_it_is_revoked(tmp_path: Path) -> None:
    workspace, you = Workspace.init(tmp_path / "data")
    with workspace:
        root = workspace.vault(you.token)
        tokens = {name: root.add_user(name).token for name in ("bob", "eve", "ida")}
        block = root.create_block(label="plan", value="v").id
        for name, can in (("bob", "share"), ("eve", "read"), ("ida", "read")):
            root.share(block, name, can)
            vault = workspace.vault(tokens[name])
            vault.accept_offer(block)
            vault.block(block)
        root.revoke(block, "ida")
        bob, eve = workspace.vault(tokens["bob"]), workspace.vault(tokens["eve"])
        reads = Question(block, kinds=frozenset({"read"}))
        everybody = [one.event.actor for one in ask(root, reads)]
        assert len(everybody) == 3
        assert [one.event.actor for one in ask(bob, reads)] == everybody
        assert [one.actor_name for one in ask(eve, reads)] == ["eve"]
        root.revoke(block, "bob")
        assert [one.actor_name for one in ask(bob, reads)] == ["bob"]
        assert [one.event.actor for one in ask(root, reads)] == everybody


@pytest.mark.parametrize("how", ["made with it", "made for it", "edited", "memory"])
def test_a_grant_that_an_agent_got_with_others_is_found_by_its_number(tmp_path: Path, how: str) -> None:
    workspace, you = Workspace.init(tmp_path / "data")
    with workspace:
        root = workspace.vault(you.token)
        tokens = {name: root.add_user(name).token for name in ("bob",)}
        plan, other = (root.create_block(label=label, value="v").id for label in ("plan", "other"))
        match how:
            case "made with it":
                agent = root.create_agent({"name": "ari"}, block_ids=[other, plan])
            case "made for it":
                agent = root.create_agent({"name": "ari"}, memory_blocks=[{"label": "own", "value": "v"}])
                plan = agent.blocks[0].id
            case "edited":
                agent = root.create_agent({"name": "ari"})
                root.edit_agent(agent.id, lambda _: {"block_ids": [other, plan]})
            case _:
                agent = root.create_agent({"name": "ari"})
                root.change_memory(agent.id, [AddBlock({"label": "own", "value": "v"})])
                plan = root.agent(agent.id).blocks[0].id
        before = root.events(1)[0].seq
        root.edit_block(plan, lambda _: {"value": "w"})
        found = ask(root, Question(plan, what="changes"), Span(grant=1, oldest_first=True))
        assert [one.event.kind for one in found] == ["update"] and found[0].event.seq > before
        (given,) = ask(root, Question(plan, to=agent.id))
        assert given.event.detail["placed"][plan] == 1 and given.gained[0].id == agent.id
        # whoever shares one of the blocks learns nothing of the others that the agent got along
        root.share(plan, "bob", "share")
        bob = workspace.vault(tokens["bob"])
        bob.accept_offer(plan)
        (seen,) = ask(bob, Question(plan, to=agent.id))
        assert seen.event.detail["placed"] == {plan: 1} and other not in repr(seen)


def test_members_of_a_role_do_not_see_each_others_reads(tmp_path: Path) -> None:
    workspace, you = Workspace.init(tmp_path / "data")
    with workspace:
        root = workspace.vault(you.token)
        tokens = {name: root.add_user(name).token for name in ("bob", "eve")}
        root.set_charter(trust=True)
        role = root.create_role("team")
        root.add_members(role.id, ["bob", "eve"])
        block = root.create_block(label="plan", value="v").id
        root.share(block, role.id, "read")
        for token in tokens.values():
            workspace.vault(token).block(block)
        reads = Question(block, kinds=frozenset({"read"}))
        assert [one.actor_name for one in ask(root, reads)] == ["bob", "eve"]
        for name, token in tokens.items():
            assert [one.actor_name for one in ask(workspace.vault(token), reads)] == [name]
        members = ask(root, Question(what="gained", kinds=frozenset({"role"})))
        assert [name.name for one in members for name in one.gained] == ["bob", "eve"]
        assert ask(root, Question(to="bob", kinds=frozenset({"role"}))) == members
        assert ask(workspace.vault(tokens["bob"]), Question(kinds=frozenset({"role"}))) == []


def questions(deeds: Deeds, minutes: tuple[int, int]) -> Iterator[Question]:
    kinds = (frozenset[str](), frozenset({"read", "list", "share"}))
    whats: tuple[What | None, ...] = (None, *WHATS)
    for block in ("", deeds.plan):
        for by in ("", deeds.ids["bob"]):
            for to in ("", deeds.ids["bob"]):
                for what in whats:
                    for kind in kinds:
                        yield Question(block, by, to, kind, what, *minutes)


def test_a_filter_keeps_what_filtering_everything_keeps(deeds: Deeds) -> None:
    """Every question of a grid: the answer is the unfiltered one without what does not fit, said here once more."""
    root, end = deeds.vault("root"), Span(before=1 + ask(deeds.vault("root"), EVERYTHING)[-1].event.seq)
    everything = ask(root, EVERYTHING, end)
    minute = everything[0].event.minute
    asked = list(questions(deeds, (minute, minute + 10)))
    assert len(asked) == 80
    for question in asked:
        kept = [one for one in everything if fits(one, question)]
        found = ask(root, question, replace(end, oldest_first=True))
        assert [one.event for one in found] == [one.event for one in kept], question
    assert ask(root, Question(until=minute - 1)) == [] == ask(root, Question(since=minute + 10_000))


def fits(one: Answered, question: Question) -> bool:
    """The documentation of a question in the plainest Python."""
    event = one.event
    came = [name.id for name in one.gained]
    learned, refused = (
        event.kind in ("read", "list", "watch", "audit"),
        event.kind in ("denied", "refused-capsule"),
    )
    what = {
        None: True,
        "reads": learned,
        "denied": refused,
        "changes": not learned and not refused,
        "gained": bool(came),
    }[question.what]
    return (
        what
        and (not question.block or question.block in [block.id for block in one.blocks])
        and (not question.by or question.by in (event.actor, event.under))
        and (not question.to or question.to in came)
        and (not question.kinds or event.kind in question.kinds)
    )


@pytest.mark.parametrize("oldest_first", [False, True])
def test_pages_hold_every_event_once_while_others_append(tmp_path: Path, oldest_first: bool) -> None:
    workspace, you = Workspace.init(tmp_path / "data")
    with workspace:
        root = workspace.vault(you.token)
        block = root.create_block(label="l", value="v").id
        for _ in range(30):
            root.block(block)
        before = [one.event.seq for one in ask(root, Question(block))]
        stop, started = threading.Event(), threading.Event()

        def append() -> None:
            other = workspace.vault(you.token)
            while not stop.is_set():
                other.block(block)
                started.set()

        writer = threading.Thread(target=append)
        writer.start()
        started.wait(10)
        found = [
            one.event.seq for one in ask(root, Question(block), Span(oldest_first=oldest_first), limit=4)
        ]
        stop.set()
        writer.join()
        assert found == sorted(set(found))
        assert [seq for seq in found if seq <= before[-1]] == before


def test_a_page_stops_when_it_was_enough_work_and_says_so(
    deeds: Deeds, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = deeds.vault("root")
    whole = [one.event.seq for one in ask(root, Question(deeds.plan, what="changes"))]
    monkeypatch.setattr(searching, "LEAVES", 7)
    page = root.search_log(Question(deeds.plan, what="changes"))
    assert page.onward is not None and len(page.events) < len(whole)
    assert [one.event.seq for one in ask(root, Question(deeds.plan, what="changes"))] == whole


def test_the_question_itself_is_in_the_log(deeds: Deeds) -> None:
    root = deeds.vault("root")
    root.search_log(Question(deeds.plan, what="reads"))
    newest = ask(root, Question(deeds.plan))[-1]
    assert (newest.event.kind, newest.actor_name) == ("audit", "root")


def test_kinds_are_those_that_operations_log() -> None:
    """A new kind of event belongs into `questions.KINDS`, and there into READS, GAINS or neither."""
    logged = set[str]()
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and re.search(
                r"(^|\.)(event|log_unclaimed)$", ast.unparse(node.func)
            ):
                for given in node.args[:2]:
                    texts = [given, *([given.body, given.orelse] if isinstance(given, ast.IfExp) else [])]
                    logged |= {
                        one.value
                        for one in texts
                        if isinstance(one, ast.Constant) and isinstance(one.value, str)
                    }
    assert {"read", "list", "denied", "share"} < logged
    restored = {"restore"}  # logged by the backup that is put back, under a name and not as a word
    assert logged - {""} | restored == KINDS


@pytest.mark.parametrize("wrong", [{"kinds": frozenset({"reads"})}, {"since": 2, "until": 1}])
def test_a_question_that_makes_no_sense_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(Invalid) as refused:
        Question(**wrong)  # type: ignore[arg-type]  # one wrong field at a time
    assert refused.value.code == "bad_question"
