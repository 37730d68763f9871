"""The level of a block: how sure the log must be before an answer. No log, no answer; no witness, no answer."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import c2sp_verifier
import httpx
import pytest
from c2sp_verifier import Key
from scripted_witness import Witness, serving

from tallystone.audit.published import checkpoint_of
from tallystone.errors import Denied, Invalid, Unwitnessed
from tallystone.server import witnessing
from tallystone.server.run import running
from tallystone.server.settings import Settings
from tallystone.statements import Charter
from tallystone.vault import Workspace, charter
from tallystone.vault.audit_levels import NAMES, audit_level, audit_number
from tallystone.vault.awaiting import Awaited
from tallystone.vault.types import Credentials


class Place:
    """A workspace served with a witness, and its first user."""

    def __init__(self, url: str, workspace: Workspace, root: Credentials, witness: Witness) -> None:
        self.workspace, self.root, self.witness, self.url = workspace, root, witness, url
        self.http = httpx.Client(base_url=url, trust_env=False, headers=self.as_(root.token), timeout=60)

    @staticmethod
    def as_(token: str) -> dict[str, str]:
        return {"authorization": f"Bearer {token}"}

    def make(self, **fields: Any) -> httpx.Response:
        body = {"label": "plan", "value": "secret plan", "audit_level": "witnessed", **fields}
        return self.http.post("/v1/blocks/", json=body)

    def seen(self) -> int:
        return self.witness.head.size if self.witness.head is not None else 0


def leaf(answer: httpx.Response) -> int:
    return int(answer.headers["x-tallystone-leaf"].rpartition(",")[2])


@contextmanager
def placed(folder: Path, witness: Witness, **settings: Any) -> Iterator[Place]:
    workspace, root = Workspace.init(folder)
    witness.log = Key.parse(workspace.log.key)
    chosen = Settings(
        port=0, log_level="error", witnesses=((witness.url, witness.vkey),), **{"witness_wait": 1, **settings}
    )
    with workspace, running(workspace, chosen) as url:
        place = Place(url, workspace, root, witness)
        with place.http:
            yield place


@pytest.fixture
def witness() -> Iterator[Witness]:
    with serving(Witness()) as made:
        yield made


def test_every_answer_waits_for_a_checkpoint_that_contains_its_event(tmp_path: Path) -> None:
    """`durable` is already `checkpointed`: each commit signs a head over its own leaves, in its own transaction."""
    workspace, root = Workspace.init(tmp_path / "data")
    with workspace:
        vault = workspace.vault(root.token)
        block = vault.create_block(label="plan", value="v", audit_level="checkpointed").id
        for act in (
            lambda: vault.block(block),
            lambda: vault.edit_block(block, lambda _: {"value": "w"}),
            vault.blocks,
        ):
            act()
            signed = c2sp_verifier.checkpoint(workspace.log.checkpoint(), Key.parse(workspace.log.key))
            assert signed.size > vault.leaves[-1]


def test_a_witnessed_answer_comes_with_a_cosigned_checkpoint_over_its_event(
    tmp_path: Path, witness: Witness
) -> None:
    with placed(tmp_path / "data", witness, witness_wait=30) as place:
        made = place.make()
        assert (made.status_code, made.json()["audit_level"]) == (200, "witnessed")
        assert place.seen() > leaf(made)
        url = f"/v1/blocks/{made.json()['id']}"
        for answer in (
            place.http.get(url),
            place.http.get("/v1/blocks/"),
            place.http.patch(url, json={"value": "another"}),
            place.http.get(f"{url}/versions"),
            place.http.delete(url),
        ):
            assert answer.status_code == 200, answer.text
            assert place.seen() > leaf(answer)
        kept = checkpoint_of(place.workspace.log.checkpoint(cosigned=True))
        assert kept.size >= place.seen()


@pytest.mark.parametrize("how", ["503", "nothing", "another key", "the future", "409 1"])
def test_without_a_cosignature_nothing_is_released_and_a_retry_may_succeed(
    tmp_path: Path, witness: Witness, how: str
) -> None:
    with placed(tmp_path / "data", witness, witness_wait=30) as place:
        url = f"/v1/blocks/{place.make().json()['id']}"
        assert place.workspace.awaited is not None
        place.workspace.awaited.seconds = 0.2
        witness.script = [how] * 1000
        for answer in (
            place.http.get(url),
            place.http.get("/v1/blocks/"),
            place.http.patch(url, json={"value": "another secret"}),
        ):
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "not_witnessed")
            assert int(answer.headers["retry-after"]) > 0
            assert "x-should-retry" not in answer.headers
            assert "secret" not in answer.text and "etag" not in answer.headers
        other = place.http.post("/v1/blocks/", json={"label": "notes", "value": "n"})
        assert other.status_code == 200  # what asks for no witness waits for none
        witness.script = []
        place.workspace.awaited.seconds = 30
        assert place.http.get(url).json()["value"] == "another secret"  # kept back, and done


def test_an_answer_that_is_repeated_waits_as_well(tmp_path: Path, witness: Witness) -> None:
    with placed(tmp_path / "data", witness, witness_wait=30) as place:
        assert place.make(label="first").status_code == 200
        assert place.workspace.awaited is not None
        place.workspace.awaited.seconds = 0.2
        witness.script = ["503"] * 1000
        body = {"label": "plan", "value": "secret plan", "audit_level": "witnessed"}
        told = []
        for count in ("0", "1", "2"):
            headers = {"x-stainless-retry-count": count}
            told.append(place.http.post("/v1/blocks/", json=body, headers=headers))
        assert [answer.status_code for answer in told] == [503] * 3
        assert not any("secret" in answer.text for answer in told)
        witness.script = []
        place.workspace.awaited.seconds = 30
        answer = place.http.post("/v1/blocks/", json=body, headers={"x-stainless-retry-count": "3"})
        assert answer.json()["value"] == "secret plan"
        assert len(place.http.get("/v1/blocks/").json()) == 2  # it was made once


def test_many_who_wait_share_the_rounds_of_a_witness_and_hold_no_thread(
    tmp_path: Path, witness: Witness
) -> None:
    with placed(tmp_path / "data", witness, witness_wait=30, threads=2) as place:
        url = f"/v1/blocks/{place.make().json()['id']}"
        open_block = place.http.post("/v1/blocks/", json={"label": "open", "value": "v"}).json()["id"]
        before = len(witness.bodies)
        release = threading.Event()
        answer_as_told = witness.answer

        def late(body: bytes) -> tuple[int, str, bytes]:
            release.wait(30)
            return answer_as_told(body)

        witness.answer = late  # type: ignore[method-assign]  # a witness that takes its time
        found: list[int] = []

        def read() -> None:
            found.append(httpx.get(place.url + url, headers=place.http.headers, timeout=60).status_code)

        readers = [threading.Thread(target=read) for _ in range(12)]
        for reader in readers:
            reader.start()
        assert place.workspace.awaited is not None
        while len(place.workspace.awaited._waiting) < 12:  # all twelve have committed and wait
            assert place.http.get(f"/v1/blocks/{open_block}").status_code == 200  # two threads, neither held
        release.set()
        for reader in readers:
            reader.join(60)
        assert found == [200] * 12
        assert len(witness.bodies) - before <= 4


def test_a_place_without_a_witness_refuses_and_says_what_to_do(tmp_path: Path, witness: Witness) -> None:
    with placed(tmp_path / "data", witness, witness_wait=30) as place:
        block, token = place.make().json()["id"], place.root.token
    with Workspace.open(tmp_path / "data") as workspace:
        vault = workspace.vault(token)
        before = vault.events(1)[0].seq
        for act in (
            lambda: vault.block(block),
            vault.blocks,
            lambda: vault.edit_block(block, lambda _: {"value": "lost"}),
            lambda: vault.delete_block(block),
            lambda: vault.create_block(label="another", audit_level="witnessed"),
        ):
            with pytest.raises(Unwitnessed) as refused:
                act()
            assert refused.value.code == "no_witness" and "--url" in refused.value.hint
        tried = vault.events(100, before)
        assert [one.detail["code"] for one in tried] == ["no_witness"] * 5  # logged, and nothing was done
        # the owner is not locked out by a witness that is gone for good
        assert vault.edit_block(block, lambda _: {"audit_level": "durable"}).audit_level == "durable"
        assert vault.block(block).value == "secret plan"


def test_a_process_that_asks_no_witness_itself_sees_what_another_was_told(
    tmp_path: Path, witness: Witness
) -> None:
    """Of several processes of a server one asks; the others wait for what it keeps."""
    workspace, root = Workspace.init(tmp_path / "data")
    witness.log = Key.parse(workspace.log.key)
    asked = witnessing.Witness(witness.url, witness.vkey)
    waits = witnessing.Witnessing(workspace, [asked])
    with workspace, Workspace.open(tmp_path / "data") as other, waits.answering():
        assert workspace.awaited is not None
        with workspace.log.published() as log:
            promised = workspace.awaited.promise(log.head.size)
        assert not promised.done()
        assert witnessing.Asker(other, asked, lambda: witness.now).ask()
        promised.result(30)
        block = workspace.vault(root.token).create_block
        workspace.awaited.seconds = 0.1
        with pytest.raises(Unwitnessed):  # and for nothing newer than that
            block(label="plan", audit_level="witnessed")


def test_only_the_owner_sets_the_level(tmp_path: Path, witness: Witness) -> None:
    with placed(tmp_path / "data", witness, witness_wait=30) as place:
        block = place.make().json()["id"]
        bob = place.http.post("/v1/users", json={"name": "bob"}).json()["token"]
        place.http.patch("/v1/charter", json={"trust": True})
        shared = place.http.post(
            f"/v1/blocks/{block}/grants", json={"principal": "bob", "can": "write+share"}
        )
        assert shared.status_code == 200, shared.text
        vault = place.workspace.vault(bob)
        for lower in ("durable", "checkpointed"):
            with pytest.raises(Denied):
                vault.edit_block(block, lambda _, to=lower: {"audit_level": to})
        assert place.http.get(f"/v1/blocks/{block}").json()["audit_level"] == "witnessed"
        answer = place.http.get(f"/v1/blocks/{block}", headers=place.as_(bob))
        assert place.seen() > leaf(answer)  # the readers' answers wait, not the owner's alone
        lowered = place.http.patch(f"/v1/blocks/{block}", json={"audit_level": "durable"})
        assert lowered.json()["audit_level"] == "durable"


def test_the_charter_asks_a_level_of_a_sensitivity_and_no_owner_goes_below(
    tmp_path: Path, witness: Witness
) -> None:
    with placed(tmp_path / "data", witness, witness_wait=30) as place:
        asked = place.http.patch("/v1/charter", json={"audit": {"restricted": "witnessed"}})
        assert asked.json()["audit"] == {"restricted": "witnessed"}
        made = place.make(sensitivity="restricted", audit_level="durable")
        assert made.json()["audit_level"] == "witnessed" and place.seen() > leaf(made)
        plain = place.make(label="plain", audit_level="checkpointed")
        assert plain.json()["audit_level"] == "checkpointed"
        named = ["public", "internal", "confidential", "secret"]
        renamed = place.http.patch("/v1/charter", json={"levels": named})
        assert renamed.json()["audit"] == {"secret": "witnessed"}
        gone = place.http.patch("/v1/charter", json={"audit": {"secret": "durable"}})
        assert gone.json()["audit"] == {}
        assert place.http.get(f"/v1/blocks/{made.json()['id']}").json()["audit_level"] == "durable"
        for wrong in ({"nowhere": "witnessed"}, {"public": "sworn"}):
            refused = place.http.patch("/v1/charter", json={"audit": wrong})
            assert (refused.status_code, refused.json()["error"]["code"]) == (422, "unknown_level")


def test_a_level_that_is_none_is_refused(tmp_path: Path) -> None:
    workspace, root = Workspace.init(tmp_path / "data")
    with workspace, pytest.raises(Invalid) as refused:
        workspace.vault(root.token).create_block(label="plan", audit_level="sworn")
    assert refused.value.code == "unknown_level" and "witnessed" in refused.value.hint


def test_a_number_that_a_later_version_signed_counts_as_the_highest() -> None:
    assert audit_level({"audit_level": 7}, charter.DEFAULT) == audit_number("witnessed")
    assert [audit_level({"audit_level": audit_number(name)}, charter.DEFAULT) for name in NAMES] == [0, 1, 2]
    assert audit_level({}, charter.DEFAULT) == 0


def test_a_charter_with_audit_levels_has_one_spelling() -> None:
    """Names alone stay as they always were; a level that asks for more is [name, number]."""
    view = charter.DEFAULT
    assert charter._together(view) == list(view.levels)
    mixed: list[Any] = ["public", ["internal", 1], ["confidential", 2]]
    levels, audit = charter._apart(mixed)
    assert (levels, audit) == (
        ("public", "internal", "confidential"),
        {"internal": "checkpointed", "confidential": "witnessed"},
    )
    statement = Charter(1, b"", False, mixed, 5, "user-1", b"", 1)
    assert Charter.decode(statement.encode()).levels == mixed


def test_who_waits_is_told_once_and_who_left_is_forgotten() -> None:
    asked: list[None] = []
    awaited = Awaited(0.01, lambda: asked.append(None))
    first, second = awaited.promise(5), awaited.promise(9)
    gone = awaited.promise(5)
    gone.cancel()
    awaited.reached(5)
    assert first.done() and not second.done() and len(asked) == 3
    assert awaited.promise(4).done() and len(asked) == 3
    with pytest.raises(Unwitnessed):
        awaited.wait(10)
    awaited.reached(10)
    assert second.done() and awaited._waiting == []
