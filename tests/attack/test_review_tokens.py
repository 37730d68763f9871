"""What a token, a record or a row of somebody else's making must not reach: each test is a finding of a review."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import raw_rows
from server_fixtures import Served, fresh_server  # noqa: F401
from stores import thinned

from attack.lying import caller_of, held_by
from attack.scene import DATABASE, raw, rows
from attack.turn import calls as calls_of_turns
from attack.turn import keep
from tallystone import crypto
from tallystone.audit.sequencer import LogSequencer
from tallystone.errors import Denied, Invalid, TallystoneError, Tampered
from tallystone.statements import Signed, WorkspaceRecord, issue
from tallystone.store.tables import TABLES
from tallystone.vault import Vault, Workspace
from tallystone.vault.entering import open_block
from tallystone.vault.forms import Form
from tallystone.vault.ledger import place_secret
from tallystone.vault.memory import AddBlock, DropBlock, EditBlock
from tallystone.vault.plan import Plan
from tallystone.vault.principals import put_principal
from tallystone.vault.questions import Question
from tallystone.vault.records import unwrap_epoch, wrap_epoch
from tallystone.vault.types import Block, Credentials, ExternalTool, ToolAccess

pytestmark = thinned(2, "they forge what is judged above the store, which gives them the rows")

RETRY = {"x-stainless-retry-count": "1"}
NAMED = {"idempotency-key": "mine"}
TOOL = ExternalTool("tool-00000000-0000-4000-8000-000000000000", "t", "his-server", "t", "", "{}", 0)
SECRETS: dict[str, Any] = {"/v1/tokens": {"scope": "full", "label": "l"}, "/v1/users": {"name": "erin"}}


@pytest.fixture
def database(tmp_path: Path, workspace: Workspace) -> Path:
    """The file, for whoever writes past the vault."""
    return tmp_path / "data" / DATABASE


@pytest.fixture
def carol_credentials(alice: Vault) -> Credentials:
    """A third user's token and kit."""
    return alice.add_user("carol")


def hold(workspace: Workspace, giver: Vault, block: str, taker: Credentials, can: str) -> Vault:
    """Share a block and accept it."""
    giver.share(block, taker.principal, can)
    vault = workspace.vault(taker.token)
    vault.accept_offer(block)
    return vault


# -- answers that hold secrets ----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", SECRETS)
@pytest.mark.parametrize("scope", ["read", "full"])
@pytest.mark.parametrize("extra", [{}, NAMED], ids=["plain", "named"])
def test_another_token_of_the_principal_never_gets_a_secret_by_sending_its_request_again(
    fresh_server: Served,  # noqa: F811
    path: str,
    scope: str,
    extra: dict[str, str],
) -> None:
    other = fresh_server.http(fresh_server.vault().create_token(scope=scope))
    first = fresh_server.http().post(path, json=SECRETS[path], headers=extra)
    assert first.status_code == 200
    again = other.post(path, json=SECRETS[path], headers={**RETRY, **extra})
    assert again.status_code == 403 if scope == "read" else "x-tallystone-replayed" not in again.headers
    for secret in ("token", "kit"):
        assert secret not in first.json() or first.json()[secret] not in again.text


@pytest.mark.parametrize("path", SECRETS)
@pytest.mark.parametrize("extra", [{}, NAMED], ids=["plain", "named"])
def test_a_retry_that_would_repeat_a_secret_is_told_that_it_was_made_and_makes_nothing(
    fresh_server: Served,  # noqa: F811
    path: str,
    extra: dict[str, str],
) -> None:
    http = fresh_server.http()
    first = http.post(path, json=SECRETS[path], headers=extra).json()
    count = len(fresh_server.vault().tokens()), len(fresh_server.vault().users())
    again = http.post(path, json=SECRETS[path], headers={**RETRY, **extra})
    assert again.status_code == 409 and again.json()["error"]["code"] == "already_made"
    assert again.json()["error"]["hint"]
    assert not any(str(part) in again.text for part in first.values())
    assert "tally_" not in again.text and "AGE-SECRET-KEY" not in again.text
    assert (len(fresh_server.vault().tokens()), len(fresh_server.vault().users())) == count


def test_a_kept_answer_opens_to_the_very_token_that_got_it(
    workspace: Workspace, alice: Vault, alice_credentials: Credentials
) -> None:
    others = [alice.create_token(scope=scope) for scope in ("full", "read")]
    asking = workspace.vault(alice_credentials.token)
    asking.once(b"a request", 0, lambda block: block.value.encode())
    asking.create_block(label="l", value="the answer")
    assert [workspace.vault(token).once(b"a request", 1, lambda _: b"") for token in others] == [None, None]
    assert workspace.vault(alice_credentials.token).once(b"a request", 1, lambda _: b"") == b"the answer"


def test_a_token_made_with_an_expiring_token_never_outlives_it(workspace: Workspace, alice: Vault) -> None:
    end = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)
    agent = alice.create_agent({"name": "A"}).id
    short = workspace.vault(alice.create_token(expires=end))
    own = workspace.vault(alice.agent_token(agent, expires=end))

    def for_agent(**options: Any) -> str:
        return short.agent_token(agent, **options)

    for make in (short.create_token, for_agent, own.create_token):
        for later in (None, end + timedelta(seconds=1), datetime.now(UTC) + timedelta(days=900)):
            for scope in ("full", "read"):
                with pytest.raises(Invalid) as refusal:
                    make(scope=scope, expires=later)
                assert refusal.value.code == "bad_expiry"
        assert workspace.vault(make(expires=end)).scope == "full"
    workspace.clock = lambda: time.time() + 7200
    alive = {
        token.expires for token in alice.tokens() if token.expires is None or token.expires > workspace.now()
    }
    assert alive == {None}  # the founder's own


# -- tokens that only read --------------------------------------------------------------------------------------


@pytest.fixture
def given(workspace: Workspace, alice: Vault, bob_credentials: Credentials) -> tuple[Vault, str, Block]:
    """Bob, his agent, and a block that Alice shared with that agent directly."""
    bob = workspace.vault(bob_credentials.token)
    agent = bob.create_agent(
        {"name": "B", "tools": ["memory"]}, memory_blocks=[{"label": "own", "value": "v"}]
    ).id
    block = alice.create_block(label="team", value="t")
    alice.share(block.id, agent, "write")
    bob.offers()
    bob.accept_offer(block.id)
    return bob, agent, block


@pytest.mark.parametrize("label", ["team", "own"])
def test_a_read_only_token_takes_no_block_from_an_agent_whoever_gave_it(
    workspace: Workspace, given: tuple[Vault, str, Block], label: str
) -> None:
    bob, agent, _ = given
    for token in (bob.create_token(scope="read"), bob.agent_token(agent, scope="read")):
        with pytest.raises(Denied):
            workspace.vault(token).change_memory(agent, [DropBlock(label, lambda b: {})])
    assert sorted(block.label for block in bob.agent(agent).blocks) == ["own", "team"]


def test_a_read_only_token_changes_no_row_through_any_call(
    workspace: Workspace, alice: Vault, given: tuple[Vault, str, Block], database: Path
) -> None:
    bob, agent, team = given
    mine = bob.create_block(label="mine", value="m")
    waiting, offered = alice.create_block(label="waiting"), alice.create_block(label="offered")
    alice.share(offered.id, "bob")
    role, hers = bob.create_role("crew"), alice.create_role("hers")
    bob.add_members(role.id, [agent])
    alice.add_members(hers.id, ["bob"])
    handed = alice.create_block(label="handed")
    alice.transfer(handed.id, "bob")
    bob.offers()
    bob.set_model_key("openai", "sk-his", "https://api.openai.com")
    served = {"name": "t", "kind": "sse", "url": "https://t.example", "auth_header": "", "headers": []}
    access = ToolAccess("sse", "https://t.example")
    bob.create_tool_server("his-server", served, access)
    bob.replace_tools("his-server", [TOOL])
    reader = workspace.vault(bob.create_token(scope="read"))
    alice.share(waiting.id, "bob")
    alice.share(waiting.id, agent)
    kid = bob.tokens()[0].kid
    keep(bob, agent)
    reader.block(mine.id)  # today's auditor row exists from here on
    shown = Form(lambda block: block.value.encode(), lambda block: True)

    def everything() -> dict[str, list[Any]]:
        exempt = ("log_", "auditor")
        with closing(
            raw_rows.connect(database)
        ) as connection:  # one for all: the tables are read seventy times
            return {
                t.name: connection.execute(f"SELECT * FROM {t.name}").fetchall()
                for t in TABLES
                if not t.name.startswith(exempt)
            }

    bob.edit_block(mine.id, lambda b: {"value": "n"})
    before, value = everything(), {"value": "changed"}
    calls: list[Callable[[Vault], Any]] = [
        lambda v: v.create_block(label="x"),
        lambda v: v.block(mine.id),
        lambda v: v.blocks(),
        lambda v: v.block_as(mine.id, shown),
        lambda v: v.blocks_as(shown),
        lambda v: v.edit_block(mine.id, lambda b: value),
        lambda v: v.edit_block(mine.id, lambda b: {"locked": True}),
        lambda v: v.delete_block(mine.id),
        lambda v: v.tags(),
        lambda v: v.share(mine.id, "alice"),
        lambda v: v.revoke(mine.id, "alice"),
        lambda v: v.grants(mine.id),
        lambda v: v.offers(),
        lambda v: v.accept_offer(offered.id),
        lambda v: v.accept_offer(waiting.id),
        lambda v: v.decline_offer(offered.id),
        lambda v: v.decline_offer(team.id),
        lambda v: v.access(),
        lambda v: v.create_agent({"name": "x"}),
        lambda v: v.agent(agent),
        lambda v: v.agents(),
        lambda v: v.edit_agent(agent, lambda a: {"name": "x"}),
        lambda v: v.edit_agent(agent, lambda a: {"block_ids": []}),
        lambda v: v.delete_agent(agent),
        lambda v: v.agent_blocks(agent),
        lambda v: v.agent_block(agent, "team"),
        lambda v: v.edit_agent_block(agent, "team", lambda b: value),
        lambda v: v.edit_agent_block(agent, "own", lambda b: value, as_agent=True),
        lambda v: v.change_memory(agent, [AddBlock({"label": "x"})]),
        lambda v: v.change_memory(agent, [EditBlock("team", lambda b: value)]),
        *(
            lambda v, la=label: v.change_memory(agent, [DropBlock(la, lambda b: {})])
            for label in ("team", "own")
        ),
        lambda v: v.attach(agent, mine.id),
        *(lambda v, b=block: v.detach(agent, b) for block in (team.id, bob.agent_block(agent, "own").id)),
        lambda v: v.block_agents(mine.id),
        lambda v: v.users(),
        lambda v: v.add_user("x"),
        lambda v: v.tokens(),
        lambda v: v.create_token(scope="read"),
        lambda v: v.agent_token(agent, scope="read"),
        lambda v: v.revoke_token(kid),
        lambda v: v.events(),
        lambda v: v.inspect(),
        lambda v: v.reach(mine.id),
        lambda v: v.why("alice", mine.id),
        lambda v: v.transfer(mine.id, "alice"),
        lambda v: v.cancel_transfer(mine.id),
        lambda v: v.accept_transfer(handed.id),
        lambda v: v.create_role("x"),
        lambda v: v.roles(),
        lambda v: v.role(role.id),
        lambda v: v.add_members(role.id, ["alice"]),
        lambda v: v.remove_member(role.id, agent),
        lambda v: v.delete_role(role.id),
        lambda v: v.accept_offer(hers.id),
        lambda v: v.decline_offer(hers.id),
        lambda v: v.suspend(agent),
        lambda v: v.resume(agent),
        lambda v: v.set_clearance(agent, "internal"),
        lambda v: v.charter(),
        lambda v: v.set_charter(trust=True),
        lambda v: v.invite("x"),
        lambda v: v.invitations(),
        lambda v: v.revoke_invitation("x"),
        lambda v: v.model_keys(),
        lambda v: v.set_model_key("openai", "sk-new", "https://api.openai.com"),
        lambda v: v.open_model_key("openai", "https://api.openai.com"),
        lambda v: v.remove_model_key("openai"),
        lambda v: v.tool_servers(),
        lambda v: v.tool_server("his-server"),
        lambda v: v.create_tool_server("another", served, access),
        lambda v: v.edit_tool_server("his-server", lambda server, known: ({"name": "x"}, known)),
        lambda v: v.open_tool_server("his-server"),
        lambda v: v.delete_tool_server("his-server"),
        lambda v: v.external_tools(),
        lambda v: v.external_tool(TOOL.id),
        lambda v: v.replace_tools("his-server", []),
        lambda v: v.open_tool(agent, TOOL.id),
        lambda v: v.note_return(agent, TOOL.id, "done"),
        lambda v: v.versions(mine.id),
        lambda v: v.version(mine.id, 1),
        lambda v: v.diff(mine.id, 1, 2),
        lambda v: v.blame(mine.id),
        lambda v: v.restore(mine.id, 1),
        lambda v: v.undo("bob", datetime(2020, 1, 1, tzinfo=UTC)),
        lambda v: v.rotate(mine.id),
        lambda v: v.erase_block(mine.id),
        lambda v: v.erase_me(v.principal_id),
        lambda v: v.subscribe(),
        lambda v: v.watch(),
        lambda v: v.search_log(Question()),
        lambda v: v.erase_version(mine.id, 1),
        lambda v: v.export(BytesIO(), versions=True),
        lambda v: v.conversations_from(agent, 0, 10),
        lambda v: v.auditors(),
        lambda v: v.grant_audit("bob", history=True),
        lambda v: v.end_audit("bob"),
        lambda v: v.rotate_log_key(),
        lambda v: v.rotate_principal(),
        lambda v: v.rotate_principal(agent),
        lambda v: v.revoke_compromised(v.tokens()[0].kid),
        *calls_of_turns(agent),
    ]
    tried = {name for call in calls for name in call.__code__.co_names}
    methods = {name for name in dir(Vault) if callable(getattr(Vault, name)) and not name.startswith("_")}
    # these open another vault, or speak of requests rather than of what is stored
    assert methods - tried == {"acting_as", "once", "known"}
    for vault in (reader, reader.acting_as(agent), workspace.vault(bob.agent_token(agent, scope="read"))):
        before = everything()
        for first in range(
            0, len(calls), 8
        ):  # all rows are looked at after each eight: nothing takes a change back
            some = calls[first : first + 8]
            for call in some:
                with suppress(TallystoneError):
                    call(vault)
            assert everything() == before, f"one of {[call.__code__.co_names for call in some]} by {vault}"


# -- who is told what -------------------------------------------------------------------------------------------


def test_the_owner_sees_in_the_log_what_a_grantee_read_and_wrote(
    workspace: Workspace, bob: Vault, carol_credentials: Credentials
) -> None:
    """Bob, not Alice: the workspace's first user sees what nobody claims anyway."""
    block = bob.create_block(label="team", value="one")
    carol = hold(workspace, bob, block.id, carol_credentials, "write")
    carol.block(block.id)
    carol.edit_block(block.id, lambda b: {"value": "two"})
    seen = [(e.kind, e.detail.get("block")) for e in bob.events(200) if e.actor == carol.principal_id]
    assert ("read", block.id) in seen and ("update", block.id) in seen


def test_a_grantee_that_revokes_is_told_no_more_than_its_list_of_grants_says(
    workspace: Workspace, alice: Vault, bob_credentials: Credentials, carol_credentials: Credentials
) -> None:
    block = alice.create_block(label="team")
    bob = hold(workspace, alice, block.id, bob_credentials, "write")
    alice.share(block.id, carol_credentials.principal, "read")
    alice.create_agent({"name": "hers"}, block_ids=[block.id])
    kept, gone = (bob.create_agent({"name": name}, block_ids=[block.id]).id for name in "AB")
    reach = {one.principal for one in bob.revoke(block.id, gone)} - {alice.principal_id}
    assert reach == {one.recipient for one in bob.grants(block.id)} == {bob.principal_id, kept}


# -- records and rows of somebody else's making -----------------------------------------------------------------


@pytest.mark.parametrize("field", ["kem", "signing", "root", "suite", "kind", "sponsor"])
def test_a_record_that_ends_a_principal_and_changes_more_than_its_standing_is_refused(
    workspace: Workspace, alice: Vault, bob: Vault, field: str
) -> None:
    forged: dict[str, Any] = {
        "kem": crypto.kem_public(crypto.random_bytes()),
        "signing": crypto.signing_public(crypto.random_bytes()),
        "root": 7,
        "suite": 7,
        "kind": "agent",
        "sponsor": bob.principal_id,
    }
    end(workspace, alice, bob.principal_id, **{field: forged[field]})
    with pytest.raises(Tampered):
        alice.users()


def test_a_record_that_ends_a_principal_and_changes_nothing_else_stands(
    workspace: Workspace, alice: Vault, bob: Vault
) -> None:
    end(workspace, alice, bob.principal_id)
    assert {user.name: user.status for user in alice.users()} == {"alice": "active", "bob": "suspended"}


def end(workspace: Workspace, by: Vault, principal: str, /, **more: Any) -> None:
    """Suspend a principal by its sponsor's word alone, past every check of the vault."""
    caller = caller_of(by)
    with workspace.store.snapshot() as snapshot:
        plan = Plan(snapshot)
        now, me = caller.identity(plan, principal), caller.identity(plan, caller.id)
        record = replace(now.record, id=principal, serial=1, previous=now.digest, status="suspended", **more)
        signers = [(me.digest, caller.signing_seed(plan))]
        put_principal(plan, principal, 1, issue("principal", workspace.id, record.encode(), signers))
    workspace.store.commit(plan.batch())


def test_a_workspace_record_with_an_attackers_log_key_is_a_finding_though_the_whole_log_fits_it(
    tmp_path: Path, founded: tuple[Workspace, tuple[Credentials, ...]], database: Path
) -> None:
    workspace, (credentials, *_) = founded
    workspace.vault(credentials.token).create_block(label="team", value="one")
    workspace.close()
    seed = crypto.random_bytes()
    signed = Signed.decode(rows(database, "SELECT record FROM workspace")[0][0])
    body = replace(WorkspaceRecord.decode(signed.body), log=crypto.signing_public(seed)).encode()
    with raw(database) as connection:
        connection.execute("UPDATE workspace SET record = ?", (replace(signed, body=body).encode(),))
        changes = []
        for table in TABLES:
            if table.name.startswith("log_"):
                connection.execute(f"DELETE FROM {table.name}")
                continue
            columns = ", ".join(f'"{name}"' for name in table.all_columns)
            for row in connection.execute(f"SELECT {columns} FROM {table.name}"):
                changes.append((table, table.key_of(row), row))
        for put in LogSequencer(workspace.id, seed, lambda: int(time.time())).sequence(None, [], changes):
            marks = ", ".join("?" * len(put.row))
            connection.execute(f"INSERT INTO {put.table.name} VALUES ({marks})", put.row)
    with Workspace.open(tmp_path / "data") as again:
        report = again.verify()
    assert not report.ok and any("workspace" in finding.where for finding in report.findings)


@pytest.mark.parametrize("rewrapped", [False, True], ids=["ledger", "ledger and wrap"])
def test_a_grant_key_that_an_attacker_put_in_the_ledger_gets_no_new_epoch(
    workspace: Workspace,
    alice: Vault,
    bob_credentials: Credentials,
    carol_credentials: Credentials,
    database: Path,
    rewrapped: bool,
) -> None:
    """Bob, about to lose the block, puts a key of his own in place of Carol's: the public half of the admin key and
    the keys of the epoch are all that takes."""
    block = alice.create_block(label="team", value="v").id
    bob = hold(workspace, alice, block, bob_credentials, "read")
    alice.share(block, carol_credentials.principal, "read")
    (carols,) = [g.number for g in alice.grants(block) if g.recipient == carol_credentials.principal]
    held, attackers = held_by(workspace, caller_of(bob).keys, block), crypto.random_bytes()
    secret = place_secret(held.admin_public, block, carols, attackers)
    where = (held.storage, carols)
    with raw(database) as connection:
        connection.execute(
            "UPDATE ledger SET secret = ? WHERE storage = ? AND grant_no = ?", (secret, *where)
        )
        if rewrapped:
            with workspace.store.snapshot() as snapshot:
                keys = open_block(caller_of(bob), Plan(snapshot), held).keys
            wrap = wrap_epoch(attackers, block, keys, history=True)
            connection.execute(
                "UPDATE grant_wrap SET wrap = ? WHERE storage = ? AND grant_no = ?", (wrap, *where)
            )
    with pytest.raises(Tampered):
        alice.revoke(block, "bob")
    epoch, wrap = rows(
        database, "SELECT epoch, wrap FROM grant_wrap WHERE storage = ? AND grant_no = ?", *where
    )[0]
    assert epoch == 0
    if not rewrapped:
        with pytest.raises(Tampered):
            unwrap_epoch(attackers, block, epoch, wrap)
