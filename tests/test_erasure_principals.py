"""Erasure of a user, and the end of an agent: with a backup, all old tokens, the kit and today's server keys, nothing
that was theirs opens. And kept answers: they outlive neither their two minutes nor an erasure."""

from __future__ import annotations

import shutil
from datetime import timedelta
from pathlib import Path

import pytest
import raw_rows
from server_fixtures import Served, fresh_server  # noqa: F401
from test_erasure import BIG, DATABASE, DAY, Clock, cells, clock, left_in, slots, waiting  # noqa: F401

from tallystone import _cbor, crypto
from tallystone.errors import NotFound, Tampered, Unauthenticated
from tallystone.keystore import Nest, parse_kit, parse_token
from tallystone.keystore.tokens import token_context
from tallystone.store.tables import REPLY
from tallystone.vault import Vault, Workspace
from tallystone.vault.directory import house_of
from tallystone.vault.plan import WS, Plan
from tallystone.vault.types import Backups, Credentials


def with_todays_keys(folder: Path, backup: Path) -> None:
    """A backup of the database beside the server keys of today."""
    shutil.rmtree(backup / "server-keys")
    shutil.copytree(folder / "server-keys", backup / "server-keys")


def rows(folder: Path, query: str, *values: object) -> list[tuple[object, ...]]:
    """What a query finds in the database."""
    connection = raw_rows.connect(folder / DATABASE)
    found = connection.execute(query, values).fetchall()
    connection.close()
    return found


def test_a_backup_with_all_tokens_the_kit_and_todays_keys_opens_nothing_of_an_erased_user(
    workspace: Workspace,
    alice: Vault,
    bob_credentials: Credentials,
    clock: Clock,  # noqa: F811
    tmp_path: Path,
) -> None:
    folder, backup, me = tmp_path / "data", tmp_path / "backup", bob_credentials.principal
    before = cells(folder)
    bob = workspace.vault(bob_credentials.token)
    agent = bob.create_agent({"name": "helper"}).id
    bob.add_passage(agent, {"id": "passage-1", "text": BIG, "tags": []})
    bob.create_conversation(agent, {"id": "conv-1", "summary": BIG})
    tokens = [bob_credentials.token, bob.create_token(scope="read"), bob.agent_token(agent)]
    raw_rows.copy(folder, backup)
    theirs = {
        cell
        for name in ("token", "directory", "identity", "shelf", "entry")
        for cell in cells(folder)[name] - before[name]
    }
    (kit_row,) = rows(
        folder, "SELECT substr(sealed, 1000) FROM kit WHERE principal = ?", me
    )  # all begin alike
    theirs |= {cell for cell in kit_row if isinstance(cell, bytes)}
    bob.rotate_principal()  # the roots that those tokens hold are not even the last ones
    tokens.append(bob_credentials.token)
    theirs |= cells(folder)["entry"] - before["entry"]
    caller = alice._caller
    with workspace.store.snapshot() as snapshot:
        house = house_of(caller, Plan(snapshot)) or pytest.fail("no directory")

    workspace.backups = Backups(days=30, key_days=5)
    receipt = bob.erase_me(me)

    assert receipt.horizon == clock.today + timedelta(5) and waiting(workspace) == 0
    assert left_in(folder, theirs) == set() and len(left_in(backup, theirs)) > 15
    assert workspace.verify().findings == [] and alice.inspect().findings == []
    with_todays_keys(folder, backup)
    clock.now += 6 * DAY
    with Workspace.open(backup) as restored:
        restored.clock = lambda: clock.now
        for token in tokens:
            with pytest.raises(Unauthenticated):
                restored.vault(token)
        with pytest.raises(Unauthenticated):
            restored.recover(bob_credentials.kit)
    # No code of ours in between: what each token and the kit unseal is nested in a key that is on no disk.
    nested: list[bytes] = []
    for text in tokens:
        token = parse_token(text)
        ((principal, scope, created, expires, sealed),) = rows(
            backup, "SELECT principal, scope, created, expires, root FROM token WHERE kid = ?", token.kid
        )
        context = token_context(token.kid, str(principal), str(scope), int(str(created)), expires)  # type: ignore[arg-type]  # a row of ours
        nested.append(_cbor.decode(crypto.open_sealed(token.opening_key(), context, bytes(sealed)))[1])  # type: ignore[call-overload]  # a row of ours
    ((kit,),) = rows(backup, "SELECT sealed FROM kit WHERE principal = ?", me)
    seed = crypto.age_seed(parse_kit(bob_credentials.kit).identity)
    nested.append(_cbor.decode(crypto.age_open(seed, bytes(kit)))[1])  # type: ignore[call-overload]  # a row of ours
    ((name,),) = rows(backup, "SELECT name FROM directory WHERE principal = ?", me)
    context = crypto.pae("directory", me)
    _, inner = _cbor.decode(crypto.open_sealed(house.key, context, bytes(name)))  # type: ignore[call-overload]  # a row of ours
    assert b"bob" not in inner and len(slots(folder)) > 0
    for key in slots(folder):
        for wrapped in nested:
            with pytest.raises(Tampered):
                Nest(b"", key).unwrap(wrapped)
        with pytest.raises(Tampered):
            crypto.open_sealed(crypto.derive(key, "shred/name"), context, inner)


def test_the_others_of_a_restored_backup_go_on_without_who_was_erased(
    workspace: Workspace,
    alice: Vault,
    alice_credentials: Credentials,
    bob_credentials: Credentials,
    tmp_path: Path,
) -> None:
    folder, backup = tmp_path / "data", tmp_path / "backup"
    bob = workspace.vault(bob_credentials.token)
    shared = bob.create_block(label="shared", value="v").id
    bob.share(shared, alice.principal_id)
    alice.accept_offer(shared)
    kept = alice.create_agent({"name": "kept"}).id
    gone = alice.create_agent({"name": "gone"}).id
    alice.add_passage(gone, {"id": "passage-1", "text": BIG, "tags": []})
    token = alice.agent_token(gone)
    raw_rows.copy(folder, backup)
    bob.erase_me(bob.principal_id)
    alice.delete_agent(gone)
    with_todays_keys(folder, backup)
    with Workspace.open(backup) as restored:
        again = restored.vault(alice_credentials.token)
        assert {user.name for user in again.users()} == {"alice"}
        assert again.blocks() == []
        assert [agent.id for agent in again.agents()] == [kept]
        assert again.tokens() and again.runs(None, lambda _: True) == []
        with pytest.raises(NotFound):
            again.passages(gone, lambda _: True)
        with pytest.raises(Unauthenticated):
            restored.vault(token)
        again.add_user("bob")


def test_who_came_by_invitation_has_a_name_in_backups_for_as_long_as_those_are_kept(
    workspace: Workspace,
    alice: Vault,
    clock: Clock,  # noqa: F811
) -> None:
    workspace.backups = Backups(days=30)
    made = workspace.redeem(alice.invite("carol"))
    carol = workspace.vault(made.token)
    assert carol.erase_me(carol.principal_id).horizon == clock.today + timedelta(30)


# -- kept answers -----------------------------------------------------------------------------------------------


def test_no_kept_answer_says_what_was_erased_and_no_retry_does_it_twice(
    fresh_server: Served,  # noqa: F811
    tmp_path: Path,
) -> None:
    http, bob = fresh_server.http(), fresh_server.http(fresh_server.add_user("bob"))
    body = {"label": "secret", "value": "hunter2 " * 100}
    block = http.post("/v1/blocks/", json=body).json()["id"]
    bob.post("/v1/blocks/", json={"label": "bobs", "value": "v"})
    kept = {
        cell for (cell,) in rows(tmp_path / "data", "SELECT sealed FROM reply") if isinstance(cell, bytes)
    }
    assert len(kept) == 2
    backup = tmp_path / "backup"
    raw_rows.copy(tmp_path / "data", backup)
    assert http.post(f"/v1/blocks/{block}/erase").status_code == 200
    assert left_in(tmp_path / "data", kept) == set()
    retry = {"x-stainless-retry-count": "1"}
    for client, sent in ((http, body), (bob, {"label": "bobs", "value": "v"})):
        again = client.post("/v1/blocks/", json=sent, headers=retry)
        assert (again.status_code, again.json()["error"]["code"]) == (409, "answer_erased")
    assert [one["label"] for one in bob.get("/v1/blocks/").json()] == ["bobs"]
    assert fresh_server.workspace.verify().findings == []

    # In a backup they lie under the key of their day, which goes with it.
    workspace = fresh_server.workspace
    now = workspace.clock() + 2 * DAY
    workspace.clock = lambda: now
    workspace.purge()
    with workspace.store.snapshot() as snapshot:
        assert not snapshot.scan(REPLY, (WS,))
    secret = parse_token(fresh_server.token).reply_key()
    days = [path.read_bytes() for path in (tmp_path / "data" / "server-keys" / "days").iterdir()]
    old = rows(backup, "SELECT key, attempt, expires, sealed FROM reply")
    assert len(old) == 2
    for address, attempt, expires, sealed in old:
        context = crypto.pae("reply", address, attempt, expires)  # type: ignore[arg-type]  # a row of ours
        for key in [secret, *(crypto.derive_from_both(secret, day, "reply/sealed") for day in days)]:
            with pytest.raises(Tampered):
                crypto.open_sealed(key, context, sealed)  # type: ignore[arg-type]  # a row of ours
