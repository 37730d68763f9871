"""A principal's root is renewed: the old one opens nothing that comes after, and its holder has lost nothing."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import raw_rows
from root_thief import Thief

from tallystone import crypto
from tallystone.errors import Denied, Invalid, NotFound, Tampered, Unauthenticated
from tallystone.store.protocol import Batch
from tallystone.store.tables import AUDITOR, LOG_DETAIL
from tallystone.vault import Vault, Workspace
from tallystone.vault.events import open_audited
from tallystone.vault.mail import waiting
from tallystone.vault.plan import Plan
from tallystone.vault.shelves import agent_keys, find_agent
from tallystone.vault.types import Credentials, ToolAccess


def copy_of(workspace: Workspace, tmp_path: Path, name: str) -> Path:
    """A copy of the data directory as a thief takes it: store, journal and the server's keys."""
    target = tmp_path / name
    raw_rows.copy(tmp_path / "data", target)
    return target


def write(vault: Vault, block: str, value: str) -> None:
    vault.edit_block(block, lambda _: {"value": value})


def test_a_stolen_root_with_a_copy_from_after_the_rotation_opens_nothing_that_was_written_after(
    workspace: Workspace, alice: Vault, bob: Vault, bob_credentials: Credentials, tmp_path: Path
) -> None:
    carol = workspace.vault(alice.add_user("carol").token)
    own = bob.create_block(label="own", value="own before")
    shared = bob.create_block(label="shared", value="shared before")
    bob.share(shared.id, "carol", "write")
    carol.accept_offer(shared.id)
    granted = {
        can: carol.create_block(label=can.replace("+", " "), value=f"{can} before")
        for can in ("read", "write", "write+share")
    }
    for can, block in granted.items():
        carol.share(block.id, "bob", can)
        bob.accept_offer(block.id)
    agent = bob.create_agent(
        {"name": "a"}, block_ids=[own.id], memory_blocks=[{"label": "private", "value": "private before"}]
    )
    private = next(block.id for block in agent.blocks if block.label == "private")
    role = bob.create_role("team")
    bob.add_members(role.id, ["carol"])
    theirs = carol.create_block(label="to the role", value="role before")
    carol.share(theirs.id, role.id, "write")
    bob.accept_offer(theirs.id)
    offered = carol.create_block(label="offered", value="offered before")
    carol.share(offered.id, "bob", "read")

    stolen = bob.create_token(label="stolen")
    thief = Thief(stolen)
    thief.learn(copy_of(workspace, tmp_path, "stolen"))
    before = thief.opened(tmp_path / "stolen")
    assert {
        "own before",
        "shared before",
        "read before",
        "write before",
        "write+share before",
        "private before",
        "role before",
        "offered before",
    } <= set(before)  # else the test would prove nothing

    told = bob.rotate_principal()
    assert [(token.kid, token.label) for token in told.ended] == [(stolen[6:22], "stolen")]
    assert told.roles == [] and told.token is None
    blocks = [own.id, shared.id, private, theirs.id, offered.id, *(block.id for block in granted.values())]
    for block in (own.id, private):
        write(bob, block, "after, by bob")
    for block in (shared.id, theirs.id, offered.id, *(one.id for one in granted.values())):
        write(carol, block, f"after, by carol, {carol.block(block).label}")
    late = bob.create_block(label="late", value="after, late")
    fresh = carol.create_block(label="fresh", value="after, fresh")
    carol.share(fresh.id, "bob", "read")

    thief.learn(copy_of(workspace, tmp_path, "after"))
    assert not [value for value in thief.opened(tmp_path / "after") if value.startswith("after")]
    assert workspace.verify().findings == [] and bob.inspect().findings == []
    for block in (*blocks, late.id):
        if block != offered.id:
            assert bob.block(block).value.startswith("after"), block
    bob.accept_offer(offered.id)
    bob.accept_offer(fresh.id)
    assert bob.block(fresh.id).value == "after, fresh" and bob.block(offered.id).value.startswith("after")


def test_a_rotation_keeps_all_that_its_principal_had(
    workspace: Workspace, alice: Vault, bob: Vault, bob_credentials: Credentials
) -> None:
    own = bob.create_block(label="own", value="v")
    agent = bob.create_agent({"name": "a"}, block_ids=[own.id])
    agents_token = bob.agent_token(agent.id, label="runner")
    bob.set_model_key("openai", "sk-1", "https://api.openai.com")
    waiting = alice.create_block(label="waiting", value="w")
    alice.share(waiting.id, "bob", "read")  # its capsule lies in the inbox, sealed to the old record
    events = len(bob.events())
    told = bob.rotate_principal()
    assert {(token.principal, token.label) for token in told.ended} == {(agent.id, "runner")}
    with pytest.raises(Unauthenticated):
        workspace.vault(agents_token)
    for vault in (
        bob,
        workspace.vault(bob_credentials.token),
        workspace.vault(workspace.recover(bob_credentials.kit).token),
    ):
        assert vault.block(own.id).value == "v" and vault.agent(agent.id).blocks[0].id == own.id
        assert vault.acting_as(agent.id).block(own.id).value == "v"
        assert vault.open_model_key("openai", "https://api.openai.com") == "sk-1"
        assert {user.name for user in vault.users()} == {"alice", "bob"}
        assert len(vault.events()) > events  # its own copies of old events open still
    bob.accept_offer(waiting.id)
    assert bob.block(waiting.id).value == "w"
    again = bob.rotate_principal()
    assert {token.label for token in again.ended} == {"recovered"}
    assert len(bob.events()) > events and bob.inspect().findings == [] == workspace.verify().findings


def test_a_compromised_token_ends_with_its_root_and_the_caller_gets_another_for_its_own(
    workspace: Workspace, bob: Vault, bob_credentials: Credentials
) -> None:
    block = bob.create_block(label="own", value="v")
    heard: list[str] = []
    told = bob.revoke_compromised(bob_credentials.token[6:22], told=heard.append)
    assert told.token is not None and heard == [told.token]
    assert told.token not in repr(told)
    assert [token.kid for token in told.ended] == [bob_credentials.token[6:22]]
    with pytest.raises(Unauthenticated):
        workspace.vault(bob_credentials.token)
    fresh = workspace.vault(told.token)
    assert fresh.block(block.id).value == "v" == bob.block(block.id).value
    agent = fresh.create_agent({"name": "a"}, block_ids=[block.id])
    runner = fresh.agent_token(agent.id, label="runner")
    told = fresh.revoke_compromised(runner[6:22])
    assert (told.principal, told.token, told.renewed) == (agent.id, None, 2)
    with pytest.raises(Unauthenticated):
        workspace.vault(runner)
    assert fresh.block(block.id).value == "v"
    assert workspace.vault(fresh.agent_token(agent.id)).block(block.id).value == "v"


def test_a_principal_is_rotated_by_itself_or_its_sponsor_and_by_nobody_else(
    workspace: Workspace, alice: Vault, bob: Vault
) -> None:
    agent = bob.create_agent({"name": "a"})
    runner = bob.agent_token(agent.id)
    with pytest.raises(NotFound):
        alice.rotate_principal(agent.id)
    with pytest.raises(Denied, match="by the user itself"):
        alice.rotate_principal("bob")
    with pytest.raises(NotFound):
        alice.revoke_compromised(runner[6:22])
    with pytest.raises(Denied):
        workspace.vault(runner).rotate_principal()
    with pytest.raises(Denied):
        workspace.vault(bob.create_token(scope="read")).rotate_principal()
    with pytest.raises(Invalid):
        bob.rotate_principal(bob.create_role("team").id)
    assert workspace.vault(runner).kind == "agent"


def test_a_rotation_that_was_cut_off_anywhere_loses_nothing_and_is_finished_by_the_next(
    workspace: Workspace, alice: Vault, bob: Vault, bob_credentials: Credentials
) -> None:
    blocks = [bob.create_block(label=f"b{number}", value="v") for number in range(3)]
    agent = bob.create_agent({"name": "a"}, block_ids=[blocks[0].id])
    bob.share(blocks[1].id, "alice", "write")
    alice.accept_offer(blocks[1].id)

    class Cut(Exception):
        pass

    for steps in range(6):
        left = steps

        def progress(done: int, total: int) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise Cut

        with pytest.raises(Cut):
            bob.rotate_principal(progress=progress)
        again = workspace.vault(bob_credentials.token)
        assert all(again.block(block.id).value == "v" for block in blocks)
        assert again.acting_as(agent.id).block(blocks[0].id).value == "v"
        assert alice.block(blocks[1].id).value == "v"
        assert workspace.verify().findings == []
    seen: list[tuple[int, int]] = []
    told = bob.rotate_principal(progress=lambda done, total: seen.append((done, total)))
    assert told.renewed == 4 and told.marked == []  # three blocks and the agent's own
    assert seen[-1][0] == seen[-1][1] > 0
    assert bob.inspect().findings == []


def test_what_others_put_under_the_old_root_while_it_was_being_replaced_is_found_again(
    workspace: Workspace, bob: Vault, bob_credentials: Credentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = workspace.vault(bob_credentials.token)
    made: list[str] = []
    commit = workspace.store.commit

    def late(batch: Batch, *queued: Any) -> int:
        if not made and any(event.kind == "principal" for event in batch.events):
            made.append("")
            made[0] = other.create_block(label="late", value="late").id
        return commit(batch, *queued)

    monkeypatch.setattr(workspace.store, "commit", late)
    bob.rotate_principal()
    assert bob.block(made[0]).value == "late"
    assert [block.id for block in bob.blocks()] == made
    with pytest.raises(Unauthenticated) as refused:
        other.create_block(label="later", value="x")
    assert refused.value.code == "rotated"


def test_who_acted_as_an_agent_under_its_old_root_is_stopped_before_it_writes(bob: Vault) -> None:
    agent = bob.create_agent({"name": "a"})
    acting = bob.acting_as(agent.id)
    acting.blocks()
    bob.rotate_principal(agent.id)
    with pytest.raises(Unauthenticated) as refused:
        acting.create_block(label="x", value="y")
    assert refused.value.code == "rotated"
    assert bob.acting_as(agent.id).create_block(label="x", value="y").label == "x"


def test_a_role_that_is_somebody_elses_is_named_and_its_owner_renews_it(
    workspace: Workspace, alice: Vault, bob: Vault
) -> None:
    role = alice.create_role("team")
    alice.add_members(role.id, ["bob"])
    bob.accept_offer(role.id)
    block = alice.create_block(label="t", value="v")
    alice.share(block.id, role.id, "write")
    told = bob.rotate_principal()
    assert told.roles == [role.id]
    assert bob.block(block.id).value == "v"
    before = workspace_record(workspace, role.id)
    alice.role(role.id)
    assert workspace_record(workspace, role.id) == before + 1
    assert bob.block(block.id).value == "v"
    write(bob, block.id, "w")
    assert alice.block(block.id).value == "w"


def workspace_record(workspace: Workspace, principal: str) -> int:
    with workspace.store.snapshot() as snapshot:
        return workspace.identity(Plan(snapshot), principal, workspace.id).record.root


def test_what_an_agent_and_its_user_keep_beside_their_blocks_moves_along(
    workspace: Workspace, bob: Vault, bob_credentials: Credentials
) -> None:
    agent, friend = (bob.create_agent({"name": name}) for name in ("a", "b"))
    bob.add_passage(agent.id, {"id": "passage-1", "text": "remembered", "tags": []})
    access = ToolAccess("sse", "https://tools.example/mcp", "Authorization", "secret", {})
    fields = {"name": "t", "kind": "sse", "url": access.url, "auth_header": "Authorization", "headers": []}
    server = "mcp_server-00000000-0000-4000-8000-000000000000"
    bob.create_tool_server(server, fields, access)
    bob.send_message(friend.id, agent.id, "hello")
    for renewed in ("", agent.id):
        bob.rotate_principal(renewed)
        again = workspace.vault(bob_credentials.token)
        assert [entry["text"] for entry in again.passages(agent.id, lambda _: True)] == ["remembered"]
        assert again.open_tool_server(server)[1] == access
        assert again.has_messages(agent.id)
    with workspace.store.snapshot() as snapshot:
        plan, caller = Plan(snapshot), workspace.caller(bob_credentials.token)
        actor = caller.as_agent(agent_keys(caller, find_agent(caller, plan, agent.id)))
        assert [letter.text for letter in waiting(actor, plan)] == ["hello"]


def unclaimed(thief: Thief, folder: Path, principal: str) -> list[str]:
    """The codes of strangers' refusals that a thief opens in a copy, with every seed that it has and every capsule."""
    with Workspace.open(folder) as workspace, workspace.store.snapshot() as snapshot:
        rows, details = list(snapshot.rows(AUDITOR)), [bytes(row[2]) for row in snapshot.rows(LOG_DETAIL)]
        days = set()
        for row in rows:
            infos = [crypto.pae("auditor", workspace.id, bytes(row[1]))]
            infos += [crypto.pae("auditor/for", workspace.id, bytes(one[1]), principal) for one in rows]
            for seed in thief.seeds | thief.admins:
                for info in infos:
                    with suppress(Tampered):
                        days.add(crypto.open_from(seed, info, bytes(row[3])))
    found = [open_audited(detail, day) for detail in details for day in days]
    return [str(event["code"]) for event in found if event is not None and event.get("kind") == "denied"]


@pytest.mark.parametrize("whose", ["the root's", "an auditor's"])
def test_a_stolen_root_of_the_first_user_or_an_auditor_opens_no_refusal_of_after_its_rotation(
    workspace: Workspace, alice: Vault, bob: Vault, alice_credentials: Credentials, bob_credentials: Credentials,
    tmp_path: Path, whose: str,
) -> None:  # fmt: skip
    alice.grant_audit("bob")
    vault, stolen = (alice, alice_credentials) if whose == "the root's" else (bob, bob_credentials)
    thief = Thief(stolen.token)
    workspace.denied({"code": "before"})
    thief.learn(copy_of(workspace, tmp_path, "stolen"))
    assert unclaimed(thief, tmp_path / "stolen", vault.principal_id) == ["before"]
    vault.revoke_compromised(stolen.token[6:22])
    workspace.denied({"code": "after"})
    thief.learn(copy_of(workspace, tmp_path, "after"))
    assert "after" not in unclaimed(thief, tmp_path / "after", vault.principal_id)
    for one in (alice, bob):  # nobody who may has lost an older one by that, nor a newer one
        codes = [str(event.detail.get("code")) for event in one.events(1000) if event.kind == "denied"]
        assert codes == ["before", "after"]
