"""Whoever shared a block once, and does so no more, opens nothing that is written after: not with the block's former
admin key and a later copy of the store either, whoever changed the keys (ADR 0038)."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path

import pytest
from former_forms import turned_row
from root_thief import Thief
from stores import sampled

from tallystone import crypto
from tallystone.errors import Locked, Tampered
from tallystone.store.tables import LEDGER
from tallystone.vault import Vault, Workspace
from tallystone.vault.epochs import Rotation
from tallystone.vault.ledger import Entry, admin_public

DAY = 86400


class People:
    """Alice owns a block. Bob may write, share and let others share; so may Dora, but she lets nobody share. Carol is
    whom Bob lets share, and a thief has what her token opens. Eve only writes."""

    def __init__(self, workspace: Workspace, alice: Vault, bob: Vault, folder: Path) -> None:
        self.workspace, self.alice, self.bob, self.folder = workspace, alice, bob, folder
        self.carols_token = alice.add_user("carol").token
        self.carol, self.dora, self.eve = (
            workspace.vault(token)
            for token in (self.carols_token, alice.add_user("dora").token, alice.add_user("eve").token)
        )
        self.block = alice.create_block(label="team", value="before").id
        self.give(alice, "bob", bob, "write+share", depth=1)
        self.give(alice, "dora", self.dora, "write+share")
        self.give(alice, "eve", self.eve, "write")

    def give(
        self, by: Vault, name: str, to: Vault, can: str, *, depth: int = 0, until: date | None = None
    ) -> None:
        """A grant, accepted."""
        by.share(self.block, name, can, depth=depth, until=until)
        to.accept_offer(self.block)

    def stolen(self) -> Thief:
        """What carol has, while she still has it."""
        thief = Thief(self.carols_token)
        thief.learn(self.copy("then"))
        assert (
            "before" in thief.opened(self.folder / "then") and thief.admins
        )  # else a test would prove nothing
        return thief

    def copy(self, name: str) -> Path:
        """The data directory with the server's keys, as it lies there now."""
        shutil.copytree(self.folder / "data", self.folder / name)
        return self.folder / name

    def write(self, by: Vault, value: str) -> None:
        """Another value."""
        by.edit_block(self.block, lambda _: {"value": value})

    def everybody_reads(self, value: str) -> None:
        """Whoever still may does, and may write; and all that is stored is sound."""
        for vault in (self.alice, self.bob, self.dora, self.eve):
            assert vault.block(self.block).value == value
            assert vault.inspect().findings == []
        assert self.workspace.verify().findings == []

    def thief_reads(self, thief: Thief, name: str) -> list[str]:
        """What of later writings a copy from now gives to the thief."""
        thief.learn(self.copy(name))
        return [value for value in thief.opened(self.folder / name) if value.startswith("after")]


@pytest.fixture
def people(workspace: Workspace, alice: Vault, bob: Vault, tmp_path: Path) -> People:
    return People(workspace, alice, bob, tmp_path)


@pytest.mark.parametrize("writer", ["alice", "bob", "eve"])
def test_a_sharer_whom_a_sharer_revoked_opens_nothing_newer_from_a_later_copy(
    people: People, writer: str
) -> None:
    people.give(people.bob, "carol", people.carol, "share")
    thief = people.stolen()
    people.bob.revoke(people.block, "carol")
    people.write(getattr(people, writer), "after the revocation")
    assert people.thief_reads(thief, "later") == []
    people.everybody_reads("after the revocation")
    # Changed again by each kind of holder, each time with rows that others than the owner have left for it.
    for name in ("eve", "dora", "alice"):
        people.write(getattr(people, name), f"after, by {name}")
    assert people.thief_reads(thief, "last") == []
    people.everybody_reads("after, by alice")


def test_a_row_that_told_the_owner_the_new_admin_key_under_the_old_one_is_read_and_the_keys_change_again(
    people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    people.give(people.bob, "carol", people.carol, "share")
    thief = people.stolen()

    def as_before(rotation: Rotation, seat: int, key: bytes, entry: Entry | None) -> bytes:
        opened = rotation.opened
        row = opened.plan.get(LEDGER, opened.row.storage, seat)
        assert row is not None
        former = admin_public(opened.held.admin)
        return turned_row(former, opened.id, seat, key, bytes(row[6]), rotation.admin)

    with monkeypatch.context() as patched:
        patched.setattr(Rotation, "_hand_over", as_before)
        people.bob.revoke(people.block, "carol")
    assert people.alice.block(people.block).value == "before"
    for name in ("eve", "bob", "alice"):  # the owner, who came by, has changed that key again
        people.write(getattr(people, name), f"after, by {name}")
    people.everybody_reads("after, by alice")
    assert people.thief_reads(thief, "later") == []


def tomorrow(workspace: Workspace) -> date:
    return date(1970, 1, 1) + timedelta(workspace.today() + 1)


def expires(people: People) -> None:
    """Carol's share is over by its day, and the purge has taken its wrap."""
    late = people.workspace.now() + 3 * DAY
    people.workspace.clock = lambda: late
    people.workspace.purge()


def erases_herself(people: People) -> None:
    """Carol erases herself: her grants end with her."""
    people.carol.erase_me(confirm=people.carol.principal_id)


def shares_less(people: People) -> None:
    """The owner gives Carol less than she had."""
    people.alice.share(people.block, "carol", "read")
    people.alice.revoke(people.block, "carol")


def rotates(people: People) -> None:
    """Carol finds her token stolen. Her own grant stays."""
    people.carol.revoke_compromised(people.carols_token[6:22])


ENDS: dict[str, Callable[[People], None]] = {
    "expires": expires, "erases herself": erases_herself, "shares less": shares_less, "rotates": rotates,
}  # fmt: skip


@sampled(3, "the cases differ in who goes and who writes first, and all write the same kinds of rows")
@pytest.mark.parametrize("first", ["alice", "bob", "dora"])
@pytest.mark.parametrize("end", ENDS)
def test_the_admin_key_is_another_before_anything_is_written_once_a_share_has_ended(
    people: People, end: str, first: str
) -> None:
    until = tomorrow(people.workspace) if end == "expires" else None
    people.give(people.alice, "carol", people.carol, "share", until=until)
    thief = people.stolen()
    ENDS[end](people)
    if end != "shares less":  # then the owner has changed the keys already
        with pytest.raises(
            Locked
        ) as refused:  # eve cannot change that key, and would tell carol the new ones
            people.write(people.eve, "after, by eve too early")
        assert refused.value.code == "rotation_pending"
    for name in (first, "eve", "bob", "eve"):
        people.write(getattr(people, name), f"after, by {name}")
        people.everybody_reads(f"after, by {name}")
    assert people.thief_reads(thief, "later") == []


@pytest.mark.parametrize("first", ["alice", "bob"])
def test_whoever_left_a_role_that_shares_does_not_learn_the_admin_key_of_after(
    people: People, first: str
) -> None:
    role = people.alice.create_role("sharers")
    people.alice.add_members(role.id, ["carol"])
    people.carol.accept_offer(role.id)
    people.alice.share(people.block, role.id, "share")
    thief = people.stolen()
    people.alice.remove_member(role.id, "carol")
    for name in (first, "eve"):
        people.write(getattr(people, name), f"after, by {name}")
    people.everybody_reads("after, by eve")
    assert people.thief_reads(thief, "later") == []


def test_a_sharer_keeps_the_admin_key_when_a_writer_changes_the_others(people: People) -> None:
    people.give(people.alice, "carol", people.carol, "read", until=tomorrow(people.workspace))
    expires(people)
    people.write(people.eve, "after, by eve")
    people.everybody_reads("after, by eve")
    people.dora.share(people.block, "carol", "read")
    people.dora.rotate(people.block)
    people.everybody_reads("after, by eve")


def test_a_writer_who_changes_the_keys_takes_no_admin_key_out_of_a_sharers_mail(people: People) -> None:
    people.give(people.bob, "carol", people.carol, "share")
    people.bob.revoke(people.block, "carol")  # a new admin key is on its way to dora
    people.give(people.alice, "carol", people.carol, "read", until=tomorrow(people.workspace))
    expires(people)
    people.write(people.eve, "after, by eve")  # a new grant key is on its way to her as well
    people.dora.rotate(people.block)
    people.everybody_reads("after, by eve")


def test_an_owner_takes_no_admin_key_from_its_ledger_that_the_policy_does_not_name(
    people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever writes rows could otherwise have everything sealed to a key of its own."""
    people.give(people.bob, "carol", people.carol, "share")

    def false(rotation: Rotation, seat: int, key: bytes, entry: Entry | None) -> bytes:
        true, rotation.admin = rotation.admin, crypto.random_bytes()
        row = honest(rotation, seat, key, entry)
        rotation.admin = true
        return row

    honest = Rotation._hand_over
    monkeypatch.setattr(Rotation, "_hand_over", false)
    people.bob.revoke(people.block, "carol")
    with pytest.raises(Tampered, match="admin key"):
        people.alice.block(people.block)
