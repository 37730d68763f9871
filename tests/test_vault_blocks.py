"""Blocks: every field kept, limits and locks held, edits atomic, pages whole."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tallystone.errors import Denied, Invalid, Locked, NotFound, PreconditionFailed, TallystoneError
from tallystone.vault import Vault, Workspace


def test_every_field_comes_back_as_it_was_sent(alice: Vault) -> None:
    sent: dict[str, Any] = {
        "label": "team/knowledge ✓",
        "value": "line\r\n\x00\t\U0001f980 end",
        "description": "d\u0301",
        "limit": 40,
        "read_only": True,
        "tags": ["b", "a", "b"],
        "metadata": {"deep": {"list": [1, -(2**63), 2**63 - 1, 1.5, None, True, "x"]}, "": ""},
        "extra": {"hidden": True, "project_id": "p", "entity_id": None},
    }
    made = alice.create_block(**sent)
    read = alice.block(made.id)
    assert read == made
    for name in ("label", "value", "description", "limit", "read_only", "metadata"):
        assert getattr(read, name) == sent[name]
    assert (read.tags, read.extra) == (["b", "a"], {"hidden": True, "project_id": "p"})
    assert (read.version, read.rights, read.owner, read.offered) == (1, "owner", alice.principal_id, False)
    assert abs(read.created_at - datetime.now(UTC)) < timedelta(minutes=5) and read.created_at.tzinfo is UTC


def test_a_block_needs_nothing_but_a_label(alice: Vault) -> None:
    block = alice.create_block(label="l")
    assert (block.value, block.description, block.limit, block.tags, block.metadata) == (
        "",
        None,
        100_000,
        [],
        {},
    )
    assert (block.read_only, block.locked, block.agent_ids) == (False, False, [])


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=st.text(max_size=200), label=st.text(min_size=1, max_size=30))
def test_any_text_is_kept_to_the_last_code_point(alice: Vault, value: str, label: str) -> None:
    block = alice.create_block(label=label, value=value)
    assert (alice.block(block.id).value, alice.block(block.id).label) == (value, label)


@pytest.mark.parametrize("fields", [{"value": "\ud800"}, {"label": "\udfff"}, {"metadata": {"n": 2**70}}])
def test_what_has_no_stored_form_is_refused_and_nothing_is_written(
    alice: Vault, fields: dict[str, Any]
) -> None:
    with pytest.raises(Invalid):
        alice.create_block(**{"label": "l", **fields})
    assert alice.blocks() == []
    block = alice.create_block(label="l")
    with pytest.raises(Invalid):
        alice.edit_block(block.id, lambda _: fields)
    assert alice.block(block.id) == block


def test_a_megabyte_is_kept_when_the_limit_allows_it(alice: Vault) -> None:
    block = alice.create_block(label="big", value="ä" * 1_000_000, limit=1_000_000)
    assert alice.block(block.id).value == "ä" * 1_000_000


def test_the_limit_counts_characters_and_holds_for_every_way_in(alice: Vault) -> None:
    with pytest.raises(Invalid) as refused:
        alice.create_block(label="l", value="12345", limit=4)
    assert refused.value.code == "over_limit"
    block = alice.create_block(label="l", value="🦀🦀🦀🦀", limit=4)
    for fields in ({"value": "12345"}, {"limit": 3}, {"limit": 3, "value": "1234"}):
        with pytest.raises(Invalid):
            alice.edit_block(block.id, lambda _, fields=fields: fields)
    for limit in (-1, 2**31):
        with pytest.raises(Invalid):
            alice.edit_block(block.id, lambda _, limit=limit: {"limit": limit})
    assert alice.block(block.id) == block
    assert alice.edit_block(block.id, lambda _: {"limit": 5, "value": "12345"}).value == "12345"


def test_an_edit_that_changes_nothing_makes_no_version(alice: Vault) -> None:
    block = alice.create_block(label="l", value="v")
    assert alice.edit_block(block.id, lambda _: {}) == block
    assert alice.edit_block(block.id, lambda b: {"value": b.value, "label": b.label}) == block
    assert alice.edit_block(block.id, lambda _: {"value": "w"}).version == 2


def test_an_edit_that_raises_changes_nothing(alice: Vault) -> None:
    block = alice.create_block(label="l", value="v")

    def refuse(_: object) -> dict[str, Any]:
        raise Invalid("no match", code="no_match")

    with pytest.raises(Invalid, match="no match"):
        alice.edit_block(block.id, refuse)
    assert alice.block(block.id) == block


def test_a_change_of_settings_is_a_version_too_so_that_if_match_sees_it(alice: Vault) -> None:
    block = alice.create_block(label="l", value="v")
    assert alice.edit_block(block.id, lambda _: {"read_only": True}, if_version=1).version == 2
    with pytest.raises(PreconditionFailed):
        alice.edit_block(block.id, lambda _: {"value": "x"}, if_version=1)
    assert alice.edit_block(block.id, lambda _: {"value": "x"}, if_version=2).version == 3


def test_locked_stops_the_owner_too_until_unlocked(alice: Vault) -> None:
    block = alice.create_block(label="l", value="v", locked=True)
    for attempt in (
        lambda: alice.edit_block(block.id, lambda _: {"value": "x"}),
        lambda: alice.edit_block(block.id, lambda _: {"label": "x", "locked": True}),
        lambda: alice.delete_block(block.id),
    ):
        with pytest.raises(Locked):
            attempt()
    opened = alice.edit_block(block.id, lambda _: {"locked": False, "value": "x"})
    assert (opened.value, opened.locked) == ("x", False)
    alice.edit_block(block.id, lambda _: {"locked": True})
    assert alice.block(block.id).value == "x"
    alice.edit_block(block.id, lambda _: {"locked": False})
    alice.delete_block(block.id)
    with pytest.raises(NotFound):
        alice.block(block.id)


def test_pages_are_whole_in_both_directions_and_a_cursor_must_be_on_the_list(
    alice: Vault, bob: Vault
) -> None:
    ids = [alice.create_block(label=f"b{n}", tags=["even"] if n % 2 == 0 else []).id for n in range(9)]
    listed = alice.blocks
    assert [block.id for block in listed()] == ids
    assert [block.id for block in listed(reverse=True)] == ids[::-1]
    assert [block.id for block in listed(limit=3)] == ids[:3]
    assert [block.id for block in listed(after=ids[2], limit=3)] == ids[3:6]
    assert [block.id for block in listed(before=ids[6], limit=3)] == ids[3:6]
    assert [block.id for block in listed(after=ids[6], limit=3, reverse=True)] == ids[3:6][::-1]
    assert [block.id for block in listed(before=ids[2], limit=3, reverse=True)] == ids[3:6][::-1]
    assert [block.id for block in listed(limit=2, after=ids[0], where=lambda b: "even" in b.tags)] == ids[
        2:6:2
    ]
    assert listed(after=ids[-1]) == listed(before=ids[0]) == listed(limit=0) == []
    for cursor in (
        bob.create_block(label="bobs").id,
        "block-00000000-0000-4000-8000-000000000000",
        "",
        "x" * 500,
    ):
        with pytest.raises(TallystoneError) as refused:
            listed(after=cursor)
        assert refused.value.code == "bad_cursor"


def test_pages_stay_whole_beyond_one_read_of_the_store(alice: Vault) -> None:
    ids = [alice.create_block(label=f"b{n}").id for n in range(230)]
    assert [block.id for block in alice.blocks(need_agents=False)] == ids
    assert [block.id for block in alice.blocks(reverse=True, limit=150, need_agents=False)] == ids[:-151:-1]


def test_a_block_moves_between_no_two_workspaces(tmp_path: Any, alice: Vault) -> None:
    block = alice.create_block(label="l", value="v")
    other, credentials = Workspace.init(tmp_path / "other", "alice")
    with other:
        vault = other.vault(credentials.token)
        with pytest.raises(NotFound):
            vault.block(block.id)
        assert vault.blocks() == []


def test_tags_of_blocks_and_agents_are_listed_once_and_sorted(alice: Vault, bob: Vault) -> None:
    alice.create_block(label="a", tags=["z", "a"])
    alice.create_agent({"name": "x", "tags": ["m", "a"]})
    bob.create_block(label="b", tags=["bobs"])
    assert alice.tags() == ["a", "m", "z"]


def test_a_reading_token_changes_nothing_on_any_path(workspace: Workspace, alice: Vault) -> None:
    block = alice.create_block(label="l", value="v")
    agent = alice.create_agent({"name": "a"}, block_ids=[block.id])
    alice.add_user("bob")
    reader = workspace.vault(alice.create_token(scope="read"))
    assert reader.block(block.id).value == "v" and reader.agent(agent.id).blocks[0].value == "v"
    for attempt in (
        lambda: reader.create_block(label="x"),
        lambda: reader.edit_block(block.id, lambda _: {"value": "x"}),
        lambda: reader.edit_block(block.id, lambda _: {"locked": True}),
        lambda: reader.delete_block(block.id),
        lambda: reader.share(block.id, "bob"),
        lambda: reader.revoke(block.id, agent.id),
        lambda: reader.create_agent({"name": "b"}),
        lambda: reader.edit_agent(agent.id, lambda _: {"name": "x"}),
        lambda: reader.delete_agent(agent.id),
        lambda: reader.attach(agent.id, block.id, "read"),
        lambda: reader.detach(agent.id, block.id),
        lambda: reader.edit_agent_block(agent.id, "l", lambda _: {"value": "x"}),
        lambda: reader.edit_agent_block(agent.id, "l", lambda _: {"value": "x"}, as_agent=True),
        lambda: reader.acting_as(agent.id).edit_block(block.id, lambda _: {"value": "x"}),
        lambda: reader.create_token(),
        lambda: reader.agent_token(agent.id),
        lambda: reader.revoke_token(alice.tokens()[0].kid),
        lambda: reader.add_user("carol"),
    ):
        with pytest.raises(Denied):
            attempt()
    assert alice.block(block.id).value == "v"
    assert alice.agent(agent.id).blocks[0].rights == "write"
