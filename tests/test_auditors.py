"""Auditors beside the root: what they are granted, what they never see, and what they lose."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import raw_rows

from tallystone.errors import Denied, Invalid, NotFound, Tampered, Unauthenticated
from tallystone.statements import AuditedCharter
from tallystone.store.tables import AUDITOR, CHARTER
from tallystone.vault import Vault, Workspace
from tallystone.vault.plan import WS, Plan
from tallystone.vault.questions import Question


class Place:
    """A workspace with its first user and three more."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.workspace, you = Workspace.init(folder, "root")
        self.tokens = {"root": you.token}
        for name in ("ada", "bob", "eve"):
            self.tokens[name] = self.vault("root").add_user(name).token

    def vault(self, name: str) -> Vault:
        return self.workspace.vault(self.tokens[name])

    def attempt(self, code: str) -> None:
        """Something that concerns no block: a refusal of a stranger."""
        self.workspace.denied({"code": code})

    def seen(self, name: str, workspace: Workspace | None = None) -> list[str]:
        """The codes of the strangers' refusals that somebody opens."""
        vault = (workspace or self.workspace).vault(self.tokens[name])
        return [
            str(event.detail["code"])
            for event in vault.events(1000)
            if event.kind == "denied" and not event.actor
        ]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path / "data")
    with made.workspace:
        yield made


def test_an_auditor_sees_what_concerns_no_block_from_its_grant_on(place: Place) -> None:
    place.attempt("before")
    place.vault("root").grant_audit("ada")
    place.attempt("after")
    assert place.seen("root") == ["before", "after"]
    assert place.seen("ada") == ["after"]
    assert place.seen("bob") == []
    page = place.vault("ada").search_log(Question(what="denied"))
    assert [one.event.detail["code"] for one in page.events] == ["after"]
    assert place.vault("eve").auditors() == [place.vault("ada").principal_id]  # everybody may know


def test_with_history_it_sees_what_was_logged_before_as_well(place: Place) -> None:
    place.attempt("before")
    place.vault("root").grant_audit("ada", history=True)
    place.attempt("after")
    assert place.seen("ada") == ["before", "after"]


def test_an_auditor_opens_nobodys_block_and_no_event_about_one(place: Place) -> None:
    bob = place.vault("bob")
    block = bob.create_block(label="diary", value="dear diary")
    place.vault("root").grant_audit("ada", history=True)
    bob.block(block.id)
    with pytest.raises(NotFound):
        place.vault("eve").block(block.id)
    ada = place.vault("ada")
    mine = [event for event in ada.events(1000) if event.actor != ada.principal_id]
    assert {event.kind for event in mine} >= {"denied"}  # eve's attempt is told, and not what it was at
    told = repr([event for event in mine if event.actor != place.vault("root").principal_id])
    assert block.id not in told and "diary" not in told
    with pytest.raises(NotFound):
        ada.block(block.id)


def test_a_removed_auditor_opens_nothing_through_the_server(place: Place) -> None:
    root = place.vault("root")
    root.grant_audit("ada", history=True)
    root.grant_audit("bob")
    place.attempt("one")
    assert place.seen("ada") == place.seen("bob") == ["one"]
    root.end_audit("ada")
    place.attempt("two")
    assert place.seen("ada") == []
    assert place.seen("bob") == ["one", "two"]
    with pytest.raises(NotFound):
        root.end_audit("ada")


def test_a_removed_auditor_with_a_copy_of_the_database_opens_no_newer_event(
    place: Place, tmp_path: Path
) -> None:
    """It has its token, every row, and every key that it ever opened: the copy of its time, and the stolen one."""
    root = place.vault("root")
    root.grant_audit("ada")
    place.attempt("mine")
    ada = place.vault("ada")
    caller = ada._caller
    with place.workspace.store.snapshot() as snapshot:
        known = {bytes(row[1]): bytes(row[3]) for row in snapshot.scan(AUDITOR, (WS,))}
    root.end_audit("ada")
    for code in ("later", "later still"):
        place.attempt(code)
    place.workspace.close()
    stolen = tmp_path / "stolen"
    raw_rows.copy(place.folder, stolen)
    with Workspace.open(stolen) as copy:
        # put back what it once had, and the charter that named it: the strongest copy that it could make
        with copy.store.snapshot() as snapshot:
            plan = Plan(snapshot)
            now = {bytes(row[1]) for row in snapshot.scan(AUDITOR, (WS,))}
            for capsule, enc in known.items():
                if capsule not in now:
                    plan.put(AUDITOR, capsule, 0, enc)
            plan.delete(CHARTER, 2)
        copy.store.commit(plan.batch())
        assert place.seen("ada", copy) == ["mine"]
        assert place.seen("root", copy) == ["mine", "later", "later still"]
    assert caller.id == ada.principal_id
    place.workspace = Workspace.open(place.folder)


def test_no_event_commits_under_a_key_that_a_removal_has_ended(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key is taken, then the auditor is removed, then the event commits: it must be sealed anew."""
    root = place.vault("root")
    root.grant_audit("ada")
    place.attempt("mine")
    known = place.workspace._auditor
    assert known is not None
    commit, removed = place.workspace.store.commit, []

    def late(batch: Any, *queued: Any) -> int:
        events = getattr(batch, "events", [])
        if not removed and [event.kind for event in events] == ["denied"]:
            removed.append(True)
            root.end_audit("ada")
        return commit(batch, *queued)

    monkeypatch.setattr(place.workspace.store, "commit", late)
    place.attempt("raced")
    assert removed and place.workspace._auditor != known
    assert place.seen("root") == ["mine", "raced"]
    root.grant_audit("ada")  # and its own key opens nothing of it now
    assert place.seen("ada") == []


def test_only_the_root_names_auditors_and_only_active_users(place: Place) -> None:
    root = place.vault("root")
    agent = root.create_agent({"name": "ari"}).id
    for name in ("ada", "bob"):
        with pytest.raises(Denied):
            place.vault(name).grant_audit(name)
        with pytest.raises(Denied):
            place.vault(name).end_audit("ada")
    root.suspend("eve")
    for who in (agent, "eve", "root"):
        with pytest.raises(Invalid) as refused:
            root.grant_audit(who)
        assert refused.value.code == "bad_auditor"
    with pytest.raises(NotFound):
        root.grant_audit("nobody")
    assert root.auditors() == []


def test_a_suspended_auditor_gets_no_newer_key(place: Place) -> None:
    root = place.vault("root")
    root.grant_audit("ada")
    place.attempt("one")
    root.suspend("ada")
    place.attempt("two")
    with pytest.raises(Unauthenticated):
        place.seen("ada")
    root.resume("ada")
    place.attempt("three")
    assert place.seen("ada") == ["one", "three"]


def test_a_token_that_only_reads_does_not_audit(place: Place) -> None:
    place.vault("root").grant_audit("ada")
    place.attempt("one")
    place.tokens["ada reads"] = place.vault("ada").create_token(scope="read")
    assert place.seen("ada reads") == []


def test_who_audits_is_the_roots_signed_word(place: Place) -> None:
    """Bob writes himself into the charter's row: the row is no charter at all."""
    root, bob = place.vault("root"), place.vault("bob")
    root.grant_audit("ada")
    with place.workspace.store.snapshot() as snapshot:
        (row,) = snapshot.scan(CHARTER, (WS,))
        plan = Plan(snapshot)
        statement = AuditedCharter.decode(bytes(row[2]))
        forged = AuditedCharter(**{**vars(statement), "auditors": [bob.principal_id]})
        plan.put(CHARTER, 1, forged.encode(), row[3])
    place.workspace.store.commit(plan.batch())
    with pytest.raises(Tampered):
        bob.auditors()
    with pytest.raises(Tampered):
        place.attempt("one")  # no log, no answer: nothing is sealed to a list that nobody signed
    assert place.workspace.verify().ok  # the store wrote it itself; whoever reads the charter finds it


def test_each_change_is_logged_and_the_other_rules_stay(place: Place) -> None:
    root = place.vault("root")
    root.set_charter(trust=True, max_grants=7, audit={"restricted": "checkpointed"})
    root.grant_audit("ada")
    root.set_charter(max_grants=8)
    found = root.charter()
    assert (found.trust, found.max_grants, found.auditors) == (True, 8, (place.vault("ada").principal_id,))
    assert found.audit == {"restricted": "checkpointed"}
    root.end_audit("ada")
    assert root.charter().auditors == () and root.charter().audit == {"restricted": "checkpointed"}
    told = [event.detail for event in root.events(1000) if event.kind == "auditor"]
    assert [(one["principal"], one["granted"]) for one in told] == [
        (place.vault("ada").principal_id, True),
        (place.vault("ada").principal_id, False),
    ]
