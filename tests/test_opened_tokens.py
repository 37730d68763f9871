"""What a process keeps of a token between requests (ADR 0040) opens nothing without that token, and counts for as long
as everything that it was made of is what it was; and a request looks at one moment."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
import raw_rows
from stores import sqlite_only

from tallystone.errors import Denied, StoreError, Tampered, Unauthenticated
from tallystone.keystore import Token, parse_token
from tallystone.store.tables import BLOCK, WS
from tallystone.vault import Vault, Workspace
from tallystone.vault.opened_tokens import KeptToken, OpenedTokens
from tallystone.vault.types import Credentials

pytestmark = sqlite_only("rows are edited as SQLite's")


def kept_of(workspace: Workspace, token: str) -> KeptToken | None:
    return workspace.tokens.find(parse_token(token).recall_key())


@contextmanager
def asked(workspace: Workspace, token: str) -> Iterator[Vault]:
    """A vault for one request, as a server makes it."""
    with workspace.visit(token) as caller:
        yield Vault(caller)


def test_what_is_kept_of_a_token_opens_with_that_token_alone(
    workspace: Workspace, alice: Vault, alice_credentials: Credentials, bob_credentials: Credentials
) -> None:
    reader = alice.create_token(scope="read")
    with asked(workspace, alice_credentials.token) as vault:
        keys = vault._caller.keys
    kept = kept_of(workspace, alice_credentials.token)
    assert kept is not None and keys.root.act is not None and keys.root.nest is not None
    for secret in (keys.root.read, keys.root.act, keys.root.nest.key, keys.locate, keys.recall, keys.sign):
        assert secret not in kept.sealed and secret not in [cell for cell in kept.row if cell is not None]
    for other in (bob_credentials.token, reader, Token(parse_token(reader).kid, bytes(32)).text):
        secret = parse_token(other).recall_key()
        assert workspace.tokens.find(secret) is not kept
        with pytest.raises(Tampered):
            workspace.tokens.open(secret, kept, workspace.shreds.get)


def test_a_kept_token_that_only_reads_still_only_reads(workspace: Workspace, alice: Vault) -> None:
    block, reader = alice.create_block(label="oak", value="v").id, alice.create_token(scope="read")
    for _ in range(3):
        with asked(workspace, reader) as vault:
            assert vault.block(block).value == "v" and vault._caller.keys.root.act is None
        with pytest.raises(Denied), asked(workspace, reader) as vault:
            vault.create_block(label="ash", value="v")


def revoke(workspace: Workspace, alice: Vault, bob: Vault, token: Token) -> None:
    bob.revoke_token(token.kid)


def expire(workspace: Workspace, alice: Vault, bob: Vault, token: Token) -> None:
    workspace.clock = lambda: 2_000_000_000.0


def suspend(workspace: Workspace, alice: Vault, bob: Vault, token: Token) -> None:
    alice.suspend(bob.principal_id)


def rotate(workspace: Workspace, alice: Vault, bob: Vault, token: Token) -> None:
    bob.rotate_principal()


def erase(workspace: Workspace, alice: Vault, bob: Vault, token: Token) -> None:
    bob.erase_me(bob.principal_id)


def shred(workspace: Workspace, alice: Vault, bob: Vault, token: Token) -> None:
    """As another process may do it, which tells nobody."""
    nest = bob._caller.keys.root.nest
    assert nest is not None
    workspace.shreds.destroy([nest.slot])


ENDS = [revoke, expire, suspend, rotate, erase, shred]


@pytest.mark.parametrize("end", ENDS, ids=lambda end: end.__name__)
def test_a_token_that_ended_between_two_requests_opens_nothing_from_what_was_kept(
    workspace: Workspace,
    alice: Vault,
    bob: Vault,
    end: Callable[[Workspace, Vault, Vault, Token], None],
) -> None:
    text = bob.create_token(expires=datetime.fromtimestamp(1_999_999_999, UTC))
    for _ in range(2):
        with asked(workspace, text) as vault:
            assert vault.principal_id == bob.principal_id
    assert kept_of(workspace, text) is not None
    end(workspace, alice, bob, parse_token(text))
    for _ in range(2):
        with pytest.raises(Unauthenticated):
            workspace.visit(text)
        with pytest.raises(Unauthenticated):
            workspace.vault(text)


EDITS = {
    "scope": "UPDATE token SET scope = 'read' WHERE kid = ?",
    "expires": "UPDATE token SET expires = 4000000000 WHERE kid = ?",
    "principal": "UPDATE token SET principal = (SELECT id FROM principal WHERE id <> token.principal) WHERE kid = ?",
    "root": "UPDATE token SET root = zeroblob(length(root)) WHERE kid = ?",
    "verifier": "UPDATE token SET verifier = zeroblob(32) WHERE kid = ?",
    "seeds": "UPDATE identity SET sign = zeroblob(length(sign)) WHERE principal = "
    "(SELECT principal FROM token WHERE kid = ?)",
    "records": "UPDATE principal SET sigs = zeroblob(length(sigs)) WHERE id = "
    "(SELECT principal FROM token WHERE kid = ?)",
}


@pytest.mark.parametrize("edit", EDITS)
def test_a_forged_row_of_a_kept_token_is_refused(
    tmp_path: Path, workspace: Workspace, bob_credentials: Credentials, edit: str
) -> None:
    token = bob_credentials.token
    for _ in range(2):
        with asked(workspace, token):
            pass
    connection = raw_rows.connect(tmp_path / "data" / "tallystone.db")
    with connection:
        assert connection.execute(EDITS[edit], (parse_token(token).kid,)).rowcount > 0
    connection.close()
    with pytest.raises((Tampered, Unauthenticated)):
        workspace.visit(token)


def test_what_is_kept_of_tokens_has_a_bound(workspace: Workspace, alice: Vault) -> None:
    workspace.tokens = OpenedTokens(20_000)
    tokens = [alice.create_token(scope="read") for _ in range(9)]
    for token in [*tokens, *tokens]:
        with asked(workspace, token) as vault:
            assert vault.principal_id == alice.principal_id
    assert 2 < len(workspace.tokens._kept) < 8 and workspace.tokens._kept.weight <= 20_000


def test_nothing_of_a_token_stays_in_memory_once_something_is_erased(
    workspace: Workspace, alice: Vault, alice_credentials: Credentials
) -> None:
    block = alice.create_block(label="oak", value="v").id
    assert kept_of(workspace, alice_credentials.token) is not None
    alice.delete_block(block)
    assert kept_of(workspace, alice_credentials.token) is None


# -- one view ----------------------------------------------------------------------------------------------------


def views_of(workspace: Workspace, monkeypatch: pytest.MonkeyPatch, work: Callable[[], object]) -> int:
    """How many views `work` opens."""
    opened, snapshot = [], workspace.store.snapshot
    with monkeypatch.context() as patch:
        patch.setattr(workspace.store, "snapshot", lambda: opened.append(1) or snapshot())
        work()
    return len(opened)


def test_a_request_looks_at_one_view(
    workspace: Workspace, alice: Vault, alice_credentials: Credentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    block = alice.create_block(label="oak", value="v").id

    def read(times: int) -> None:
        with asked(workspace, alice_credentials.token) as vault:
            for _ in range(times):
                assert vault.block(block).value == "v"

    assert views_of(workspace, monkeypatch, lambda: read(1)) == 1
    assert views_of(workspace, monkeypatch, lambda: read(3)) == 3


def test_an_operation_after_the_first_sees_what_came_between(
    workspace: Workspace, alice: Vault, alice_credentials: Credentials
) -> None:
    block = alice.create_block(label="oak", value="0").id
    with asked(workspace, alice_credentials.token) as vault:
        for number in range(1, 4):
            alice.edit_block(block, lambda _, now=number: {"value": str(now)})
            seen = vault.block(block).value
            assert seen == ("0" if number == 1 else str(number))  # the first is of when the request began


def test_an_edit_in_a_request_is_made_on_what_others_left(
    workspace: Workspace, alice: Vault, alice_credentials: Credentials
) -> None:
    block = alice.create_block(label="oak", value="a").id
    with asked(workspace, alice_credentials.token) as vault:
        alice.edit_block(block, lambda before: {"value": before.value + "b"})
        assert vault.edit_block(block, lambda before: {"value": before.value + "c"}).value == "abc"


def test_a_token_revoked_while_its_request_goes_on_commits_nothing(
    workspace: Workspace, alice: Vault, bob: Vault
) -> None:
    block, text = bob.create_block(label="oak", value="v").id, bob.create_token()
    with asked(workspace, text) as vault:
        bob.revoke_token(parse_token(text).kid)
        with pytest.raises(Unauthenticated):
            vault.block(block)


def test_the_view_of_a_request_is_ended_whatever_becomes_of_it(
    workspace: Workspace, alice: Vault, alice_credentials: Credentials, bob: Vault
) -> None:
    block = bob.create_block(label="oak", value="v").id

    def fail(vault: Vault) -> None:
        raise ZeroDivisionError

    ways: list[Callable[[Vault], object]] = [lambda vault: None, fail, lambda vault: vault.block(block)]
    for way in ways:
        visit = workspace.visit(alice_credentials.token)
        (view,) = visit.caller.views
        view.plan.snapshot.get(BLOCK, (WS, b""))
        try:
            with visit as caller:
                way(Vault(caller))
        except Exception as error:
            assert way is not ways[0], error
        with pytest.raises(StoreError, match="not open"):
            view.plan.snapshot.get(BLOCK, (WS, b""))
        assert not visit.caller.views
    idle = len(workspace.store._readers)
    for _ in range(3):
        with pytest.raises(Unauthenticated):
            workspace.visit(Token(parse_token(alice_credentials.token).kid, bytes(32)).text)
    assert len(workspace.store._readers) == idle  # every view was given back
