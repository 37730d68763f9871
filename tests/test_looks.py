"""Requests that have come in share one look at the store (ADR 0044): it is never older than any of them, each token
opens its own caller in it, and what one request does in it is nobody else's."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any

import pytest
from test_opened_tokens import ENDS, shred

from tallystone.errors import Denied, NotFound, StoreError, TallystoneError, Unauthenticated
from tallystone.keystore import Token, parse_token
from tallystone.server.app import App
from tallystone.server.fibers import Fiber
from tallystone.server.request import Request
from tallystone.store.tables import PRINCIPAL
from tallystone.vault import Vault, Workspace, looks
from tallystone.vault.caller import Caller
from tallystone.vault.looks import Look
from tallystone.vault.opening import Opened
from tallystone.vault.plan import Plan
from tallystone.vault.recall import LARGEST
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


def test_a_token_that_many_bring_is_asked_once_although_asking_waits(
    workspace: Workspace, alice: Vault, alice_credentials: Credentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, token = f"/v1/blocks/{alice.create_block(label='oak').id}", alice_credentials.token
    asked, answers, app = list[bytes](), list[int](), App(workspace)
    caller_in = looks.caller_in

    def counted(of: Workspace, plan: Plan, opened: Token) -> Caller:
        asked.append(opened.kid)
        return caller_in(of, plan, opened)

    monkeypatch.setattr(looks, "caller_in", counted)

    async def main() -> None:
        await asyncio.gather(
            *(_request(app, token, path, answers, arrived=time.monotonic_ns()) for _ in range(12))
        )
        await app.close()

    asyncio.run(main())
    assert answers == [200] * 12 and asked == [parse_token(token).kid]


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

    return app(_scope(path, [(b"authorization", b"Bearer " + token.encode())], **state), receive, send)


def _scope(path: str, headers: list[tuple[bytes, bytes]], **state: int) -> dict[str, Any]:
    return {
        "type": "http", "method": "GET", "path": path, "raw_path": path.encode(), "query_string": b"",
        "headers": [(b"host", b"here"), *headers], "client": ("::1", 1), "state": state,
    }  # fmt: skip


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


def test_a_request_whose_end_comes_late_sees_what_was_acknowledged_before_that(
    workspace: Workspace, alice: Vault, alice_credentials: Credentials
) -> None:
    """From a server that does not say when a request had come in."""
    block, app = alice.create_block(label="oak", value="old").id, App(workspace)
    whole, contents = asyncio.Event(), [b""]

    async def receive() -> dict[str, Any]:
        asyncio.get_running_loop().call_soon(others)
        while not whole.is_set():
            await asyncio.sleep(0)
        return {"type": "http.request", "body": b"{}", "more_body": False}

    async def send(message: Any) -> None:
        contents.append(message.get("body", b""))

    def others() -> None:
        app._look_since(time.monotonic_ns())
        alice.edit_block(block, lambda _: {"value": "new"})
        whole.set()

    async def main() -> None:
        bearer = b"Bearer " + alice_credentials.token.encode()
        headers = [(b"authorization", bearer), (b"content-length", b"2")]
        await app(_scope(f"/v1/blocks/{block}", headers), receive, send)
        await app.close()

    asyncio.run(main())
    assert whole.is_set() and b'"new"' in b"".join(contents)


def test_what_a_request_has_opened_goes_with_it(
    workspace: Workspace, alice: Vault, bob: Vault, alice_credentials: Credentials
) -> None:
    """Keys and contents wait for no garbage collector, which looks seldom."""
    value = "x" * (LARGEST + 1)  # none of it is kept: each time it is opened
    block = alice.create_block(label="oak", value=value, limit=2 * LARGEST).id
    shared, role = bob.create_block(label="ash").id, bob.create_role("crew").id
    bob.add_members(role, ["alice"])
    bob.share(shared, role, "write")
    alice.accept_offer(role)
    agent = alice.create_agent({"name": "scout"}).id
    alice.attach(agent, block)
    asks: list[Callable[[Vault], object]] = [
        lambda vault: vault.block(block),
        lambda vault: vault.blocks(),
        lambda vault: vault.edit_block(block, lambda now: {"value": now.value[::-1] + "y"}),
        lambda vault: vault.edit_block(shared, lambda _: {"value": "hers"}),
        lambda vault: vault.edit_agent_block(agent, "oak", lambda now: {"value": now.value + "z"}),
        lambda vault: vault.block("block-" + "0" * 36),
    ]
    gc.collect()
    gc.disable()
    try:
        for old in (False, True):  # in an old look, every change loses a race first
            look = Look(workspace, 0) if old else None
            for ask in asks:
                with suppress(NotFound), asked(workspace, alice_credentials.token, look) as vault:
                    ask(vault)
            if look is not None:
                look.release()
            look = None
        assert not [one for one in gc.get_objects() if isinstance(one, Plan | Opened)]
    finally:
        gc.enable()


def test_a_request_on_the_loop_leaves_nothing_behind(
    workspace: Workspace, alice: Vault, alice_credentials: Credentials
) -> None:
    """Neither its body nor its answer."""
    path, app, answers = f"/v1/blocks/{alice.create_block(label='oak').id}", App(workspace), list[int]()

    async def main() -> None:
        await _request(app, alice_credentials.token, path, answers, arrived=1)
        gc.collect()
        gc.disable()
        try:
            for where in (path, path[:-4] + "0000", "/v1/blocks/"):
                await _request(app, alice_credentials.token, where, answers, arrived=1)
            await asyncio.sleep(0)
            assert not [one for one in gc.get_objects() if isinstance(one, Plan | Fiber | Request)]
        finally:
            gc.enable()
        await app.close()

    asyncio.run(main())
    assert answers == [200, 200, 404, 200]


def test_a_change_planned_in_an_old_look_is_made_on_what_is_there_now(
    workspace: Workspace, alice: Vault, alice_credentials: Credentials
) -> None:
    block = alice.create_block(label="oak", value="a").id
    with look_at(workspace) as look:
        alice.edit_block(block, lambda _: {"value": "ab"})
        with asked(workspace, alice_credentials.token, look) as vault:
            assert vault.edit_block(block, lambda now: {"value": now.value + "c"}).value == "abc"
