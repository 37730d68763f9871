"""A block's policy fields: said in words, signed as numbers, kept by every grant."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import pytest
from force import by_force

from tallystone.errors import Denied, Invalid, NotFound, TallystoneError
from tallystone.vault import Vault, Workspace
from tallystone.vault.types import Block, Credentials

LAST = date(2999, 12, 31)


def settings_of(vault: Vault, block: Block) -> dict[str, Any]:
    """The signed settings."""
    found: list[dict[str, Any]] = []
    by_force(vault, block.id, lambda opened, _: found.append(dict(opened.head.settings)))
    return found[0]


def test_a_block_without_policy_has_the_settings_it_always_had(alice: Vault) -> None:
    block = alice.create_block(label="l", sensitivity="public")
    assert settings_of(alice, block) == {"limit": 100_000, "read_only": False, "locked": False}
    assert (block.sensitivity, block.allowed, block.expires) == ("public", None, None)
    alice.edit_block(block.id, lambda _: {"sensitivity": "restricted", "allowed": [], "expires": LAST})
    after = alice.edit_block(block.id, lambda _: {"sensitivity": "public", "allowed": None, "expires": None})
    assert settings_of(alice, after) == settings_of(alice, alice.create_block(label="m"))


def test_policy_is_said_in_words_and_names_and_signed_as_numbers_and_ids(
    alice: Vault, bob_credentials: Credentials
) -> None:
    agent = alice.create_agent({"name": "a"})
    who = ["bob", agent.id, bob_credentials.principal]
    block = alice.create_block(label="l", sensitivity="confidential", allowed=who, expires=LAST)
    assert alice.block(block.id) == block
    assert (block.sensitivity, block.expires) == ("confidential", LAST)
    assert block.allowed == [bob_credentials.principal, agent.id]
    kept = settings_of(alice, block)
    assert (kept["sensitivity"], kept["allowed"]) == (2, block.allowed)
    assert kept["expires"] == (LAST - date(1970, 1, 1)).days
    same = alice.edit_block(block.id, lambda _: {"allowed": ["bob", agent.id], "sensitivity": "confidential"})
    assert same.version == 1
    after = alice.edit_block(block.id, lambda _: {"allowed": [agent.id], "value": "v"})
    assert (after.allowed, after.version, after.expires) == ([agent.id], 2, LAST)


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"sensitivity": "secret"}, "unknown_level"),
        ({"sensitivity": 2}, "bad_field"),
        ({"allowed": "bob"}, "bad_field"),
        ({"allowed": [7]}, "bad_field"),
        ({"allowed": ["nobody"]}, "unknown_principal"),
        ({"allowed": ["user-00000000-0000-4000-8000-000000000000"]}, "unknown_principal"),
        ({"allowed": ["bob"] * 1001}, "bad_field"),
        ({"expires": datetime(2999, 1, 1, tzinfo=UTC)}, "bad_field"),
        ({"expires": 400_000}, "bad_field"),
        ({"expires": date(2001, 1, 1)}, "bad_expiry"),
        ({"expires": date(1, 1, 1)}, "bad_expiry"),
    ],
)
def test_what_is_no_policy_is_refused_and_nothing_changes(
    alice: Vault, bob: Vault, fields: dict[str, Any], code: str
) -> None:
    if "allowed" not in fields or isinstance(fields["allowed"], list):
        with pytest.raises(TallystoneError) as refused:
            alice.create_block(label="l", **fields)
        assert refused.value.code == code
    block = alice.create_block(label="m")
    with pytest.raises(TallystoneError) as refused:
        alice.edit_block(block.id, lambda _: fields)
    assert refused.value.code == code
    assert alice.blocks() == [block]


def test_policy_is_the_owners_and_readers_see_it(
    workspace: Workspace, alice: Vault, bob_credentials: Credentials
) -> None:
    block = alice.create_block(label="l", allowed=["bob"], expires=LAST)
    alice.share(block.id, "bob", "write")
    bob = workspace.vault(bob_credentials.token)
    bob.accept_offer(block.id)
    seen = bob.block(block.id)
    assert (seen.sensitivity, seen.allowed, seen.expires) == ("public", [bob.principal_id], LAST)
    for fields in ({"sensitivity": "internal"}, {"allowed": None}, {"expires": None}):
        with pytest.raises(Denied) as refused:
            bob.edit_block(block.id, lambda _, fields=fields: fields)
        assert refused.value.code == "not_owner"
    assert alice.block(block.id) == block


def test_a_grant_to_somebody_whom_the_policy_does_not_admit_is_refused(alice: Vault, bob: Vault) -> None:
    agent = alice.create_agent({"name": "a"})
    nobody = alice.create_block(label="n", allowed=[])
    secret = alice.create_block(label="s", sensitivity="internal")
    for block, code in ((nobody, "not_allowed"), (secret, "no_clearance")):
        for attempt in (
            lambda block=block: alice.share(block.id, "bob"),
            lambda block=block: alice.attach(agent.id, block.id),
        ):
            with pytest.raises(Denied) as refused:
                attempt()
            assert refused.value.code == code
        assert alice.grants(block.id) == []


def test_a_new_agents_own_blocks_admit_it_or_nothing_is_made(alice: Vault) -> None:
    for fields in ({"sensitivity": "internal"}, {"allowed": []}):
        with pytest.raises(Denied):
            alice.create_agent({"name": "a"}, memory_blocks=[{"label": "l", **fields}])
    assert (alice.agents(), alice.blocks()) == ([], [])


def test_a_grant_stands_in_the_way_of_a_policy_that_would_not_admit_it(
    workspace: Workspace, alice: Vault, bob_credentials: Credentials
) -> None:
    block = alice.create_block(label="l", value="v")
    agent = alice.create_agent({"name": "a"}, block_ids=[block.id])
    alice.share(block.id, "bob")
    kept = alice.block(block.id)
    for fields, who in (
        ({"sensitivity": "internal"}, {agent.id, bob_credentials.principal}),
        ({"allowed": []}, {agent.id, bob_credentials.principal}),
        ({"allowed": [agent.id], "value": "w"}, {bob_credentials.principal}),
        ({"allowed": ["bob"]}, {agent.id}),
    ):
        with pytest.raises(Invalid) as refused:
            alice.edit_block(block.id, lambda _, fields=fields: fields)
        assert refused.value.code == "grant_in_the_way"
        assert {word for word in refused.value.message.replace(",", " ").split() if "-" in word} == who
        assert alice.block(block.id) == kept
    assert alice.edit_block(block.id, lambda _: {"allowed": ["bob", agent.id]}).version == 2
    alice.revoke(block.id, "bob")
    assert alice.edit_block(block.id, lambda _: {"allowed": [agent.id]}).allowed == [agent.id]
    assert alice.edit_block(block.id, lambda _: {"allowed": None}).allowed is None


def test_a_policy_that_cannot_be_is_in_the_log(alice: Vault) -> None:
    block = alice.create_block(label="l")
    alice.create_agent({"name": "a"}, block_ids=[block.id])
    past = date(2001, 1, 1)
    for attempt in (
        lambda: alice.create_block(label="m", expires=past),
        lambda: alice.edit_block(block.id, lambda _: {"expires": past}),
        lambda: alice.edit_block(block.id, lambda _: {"allowed": []}),
        lambda: alice.edit_block(block.id, lambda _: {"allowed": ["nobody"]}),
    ):
        with pytest.raises(TallystoneError):
            attempt()
    codes = [event.detail["code"] for event in alice.events(50) if event.kind == "denied"]
    assert codes == ["bad_expiry", "bad_expiry", "grant_in_the_way", "unknown_principal"]


def test_an_unknown_name_in_an_allow_list_says_so(alice: Vault) -> None:
    with pytest.raises(NotFound, match="nobody"):
        alice.create_block(label="l", allowed=["nobody"])
