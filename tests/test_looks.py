"""Requests that have come in share one look at the store (ADR 0044): it is never older than any of them, each token
opens its own caller in it, and what one request does in it is nobody else's."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from test_opened_tokens import ENDS, shred

from tallystone.errors import Denied, NotFound, StoreError, TallystoneError, Unauthenticated
from tallystone.keystore import Token, parse_token
from tallystone.server.app import App
from tallystone.store.tables import PRINCIPAL
from tallystone.vault import Vault, Workspace
from tallystone.vault.looks import Look
from tallystone.vault.types import Credentials


@contextmanager
def look_at(workspace: Workspace) -> Iterator[Look]:
    look = Look(workspace, time.monotonic_ns())
    yield look
    look.release()


@contextmanager
def asked(workspace: Workspace, token: str, look: Look | None) -> Iterator[Vault]:
    """A vault for one request, as the server makes it."""
    with workspace.visit(token, look) as caller:
        yield Vault(caller)


def test_in_one_look_each_token_opens_its_own_principal(
    workspace: Workspace, alice: Vault, alice_credentials: Credentials, bob_credentials: Credentials
) -> None:
    block, reader = alice.create_block(label="oak", value="hers").id, alice.create_token(scope="read")
    wrong = Token(parse_token(reader).kid, bytes(32)).text
    with look_at(workspace) as look:
        for _ in range(2):
            with asked(workspace, alice_credentials.token, look) as vault:
                assert vault.block(block).value == "hers"
            with asked(workspace, bob_credentials.token, look) as vault, pytest.raises(NotFound):
                vault.block(block)
            with asked(workspace, reader, look) as vault, pytest.raises(Denied):
                vault.edit_block(block, lambda _: {"value": "x"})
            with pytest.raises(Unauthenticated):
                workspace.visit(wrong, look)
    with asked(workspace, alice_credentials.token, None) as vault:
        assert vault.block(block).value == "hers"


@pytest.mark.parametrize("end", [end for end in ENDS if end is not shred], ids=lambda end: end.__name__)
def test_a_token_that_ends_while_a_look_is_open_commits_nothing_in_it(
    workspace: Workspace,
    alice: Vault,
    bob: Vault,
    end: Callable[[Workspace, Vault, Vault, Token], None],
) -> None:
    token = bob.create_token(expires=datetime(2030, 1, 1, tzinfo=UTC))
    block = bob.create_block(label="ash", value="before").id
    with look_at(workspace) as look:
        with asked(workspace, token, look) as vault:
            assert vault.block(block).value == "before"
        end(workspace, alice, bob, parse_token(token))
        for act in (
            lambda: vault.block(block),
            lambda: vault.edit_block(block, lambda _: {"value": "after"}),
        ):
            with pytest.raises((Unauthenticated, NotFound)), asked(workspace, token, look) as vault:
                act()


def test_what_one_request_plans_no_other_sees(
    workspace: Workspace, alice_credentials: Credentials, alice: Vault
) -> None:
    me = alice.principal_id
    with look_at(workspace) as look:
        first, caller = look.visit(alice_credentials.token)
        with first as plan:
            row = plan.get(PRINCIPAL, me, 0)
            assert row is not None
            plan.delete(PRINCIPAL, me, 0)
            with pytest.raises(TallystoneError):
                workspace.identity(plan, me, workspace.id)
            caller.has_mail = caller.has_roles = True
            second, other = look.visit(alice_credentials.token)
            with second as untouched:
                assert untouched.get(PRINCIPAL, me, 0) == row and not untouched.changes
                assert other.standing(untouched).active and not other.has_mail
                assert other.leaves is not caller.leaves and other.views is not caller.views


def test_the_view_of_a_look_ends_with_its_last_holder(
    workspace: Workspace, alice: Vault, alice_credentials: Credentials
) -> None:
    look = Look(workspace, 0)
    view, _ = look.visit(alice_credentials.token)
    look.release()
    with view as plan:
        assert plan.rows(PRINCIPAL)
    assert not look._callers
    with pytest.raises(StoreError, match="not open"):
        look.visit(alice.create_token())


def _request(app: App, token: str, path: str, answers: list[int], **state: int) -> Any:
    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            answers.append(message["status"])

    headers = [(b"host", b"here"), (b"authorization", b"Bearer " + token.encode())]
    scope = {
        "type": "http", "method": "GET", "path": path, "raw_path": path.encode(), "query_string": b"",
        "headers": headers, "client": ("::1", 1), "state": state,
    }  # fmt: skip
    return app(scope, receive, send)


def _views(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """When each view that is opened from now on was opened."""
    opened: list[float] = []
    snapshot = workspace.store.snapshot

    def counted() -> Any:
        opened.append(time.monotonic_ns())
        return snapshot()

    monkeypatch.setattr(workspace.store, "snapshot", counted)
    return opened


def test_those_that_have_come_in_share_a_view_and_later_ones_have_another(
    workspace: Workspace, alice: Vault, alice_credentials: Credentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    if workspace.store.remote:
        pytest.skip("on PostgreSQL requests run in threads, each with a view of its own")
    path, token = f"/v1/blocks/{alice.create_block(label='oak', value='v').id}", alice_credentials.token
    app = App(workspace)
    answers: list[int] = []

    async def many(arrived: Callable[[], int]) -> None:
        await asyncio.gather(*(_request(app, token, path, answers, arrived=arrived()) for _ in range(12)))

    async def main() -> None:
        await many(time.monotonic_ns)  # the first opens the token
        opened = _views(workspace, monkeypatch)
        await many(time.monotonic_ns)
        assert len(opened) == 1
        opened.clear()
        await many(lambda: time.monotonic_ns() + 10**15)  # as if each came after whatever view there is
        assert len(opened) == 12
        assert app._look is None
        await app.close()

    asyncio.run(main())
    assert answers == [200] * 36


def test_a_request_sees_what_was_acknowledged_before_it_came_in(
    workspace: Workspace, alice: Vault, alice_credentials: Credentials
) -> None:
    block = alice.create_block(label="oak", value="old").id
    app = App(workspace)

    async def main() -> None:
        before = time.monotonic_ns()
        look = app._look_since(before)
        alice.edit_block(block, lambda _: {"value": "new"})  # another process's, acknowledged to its client
        assert app._look_since(before) is look
        with asked(workspace, alice_credentials.token, app._look_since(time.monotonic_ns())) as vault:
            assert vault.block(block).value == "new"
        await asyncio.sleep(0)
        assert app._look is None
        await app.close()

    asyncio.run(main())


def test_a_change_planned_in_an_old_look_is_made_on_what_is_there_now(
    workspace: Workspace, alice: Vault, alice_credentials: Credentials
) -> None:
    block = alice.create_block(label="oak", value="a").id
    with look_at(workspace) as look:
        alice.edit_block(block, lambda _: {"value": "ab"})
        with asked(workspace, alice_credentials.token, look) as vault:
            assert vault.edit_block(block, lambda now: {"value": now.value + "c"}).value == "abc"
