"""POSTs that are sent again: the first answer once more, and the work only once."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anyio
import httpx
import pytest
from server_fixtures import Served, fresh_server  # noqa: F401

from tallystone.errors import Rejected
from tallystone.server.retries import Flights, retry_of

BODY = {"label": "l", "value": "v"}
RETRY = {"x-stainless-retry-count": "1"}


def count(served: Served) -> int:
    return len(served.vault().blocks())


def test_a_retry_is_answered_from_the_first_result(fresh_server: Served) -> None:  # noqa: F811
    http = fresh_server.http()
    first = http.post("/v1/blocks/", json=BODY)
    again = http.post("/v1/blocks/", json=BODY, headers=RETRY)
    assert again.content == first.content and again.status_code == 200 and again.headers["etag"] == '"1"'
    assert "x-tallystone-replayed" not in first.headers and again.headers["x-tallystone-replayed"] == "true"
    assert count(fresh_server) == 1


def test_an_equal_request_that_is_no_retry_is_done(fresh_server: Served) -> None:  # noqa: F811
    http = fresh_server.http()
    ids = {http.post("/v1/blocks/", json=BODY).json()["id"] for _ in range(3)}
    assert len(ids) == count(fresh_server) == 3


@pytest.mark.parametrize(
    "headers", [RETRY, {"x-stainless-retry-count": "99999999999"}, {"x-stainless-retry-count": "²"}]
)
def test_a_retry_of_a_request_that_never_arrived_is_done(
    fresh_server: Served,  # noqa: F811
    headers: dict[str, str],
) -> None:
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    assert fresh_server.http().post("/v1/blocks/", json=BODY, headers=raw).status_code == 200
    assert count(fresh_server) == 1


def test_another_body_path_or_caller_is_another_request(fresh_server: Served) -> None:  # noqa: F811
    http = fresh_server.http()
    http.post("/v1/blocks/", json=BODY)
    http.post("/v1/blocks/", json={**BODY, "value": "w"}, headers=RETRY)
    other = fresh_server.http(fresh_server.add_user("other"))
    assert other.post("/v1/blocks/", json=BODY, headers=RETRY).status_code == 200
    assert count(fresh_server) == 2 and len(other.get("/v1/blocks/").json()) == 1


def test_a_failed_request_is_done_again(fresh_server: Served) -> None:  # noqa: F811
    http = fresh_server.http()
    assert http.post("/v1/blocks/", json={"label": 1}).status_code == 422
    assert http.post("/v1/blocks/", json={"label": 1}, headers=RETRY).status_code == 422


def test_agents_and_tools_are_not_done_twice(fresh_server: Served) -> None:  # noqa: F811
    http = fresh_server.http()
    body = {"memory_blocks": [{"label": "log", "value": ""}], "tools": ["core_memory_append", "memory"]}
    agent = http.post("/v1/agents/", json=body)
    assert http.post("/v1/agents/", json=body, headers=RETRY).content == agent.content
    assert len(fresh_server.vault().agents()) == 1
    base = f"/v1/agents/{agent.json()['id']}/tools"
    append = {"args": {"label": "log", "content": "x"}}
    create = {"args": {"command": "create", "path": "/memories/n", "description": "d", "file_text": "t"}}
    delete = {"args": {"command": "delete", "path": "/memories/n"}}
    for tool, arguments in (("core_memory_append", append), ("memory", create), ("memory", delete)):
        first = http.post(f"{base}/{tool}/run", json=arguments)
        assert first.json()["status"] == "success"
        assert http.post(f"{base}/{tool}/run", json=arguments, headers=RETRY).content == first.content
    url = f"/v1/agents/{agent.json()['id']}/core-memory/blocks/log"
    assert http.get(url).json()["value"] == "\nx"


def test_an_idempotency_key_is_exact(fresh_server: Served) -> None:  # noqa: F811
    http = fresh_server.http()
    named = {"idempotency-key": "mine"}
    first = http.post("/v1/blocks/", json=BODY, headers=named)
    assert http.post("/v1/blocks/", json=BODY, headers=named).content == first.content
    assert http.post("/v1/blocks/", json={**BODY, "value": "w"}, headers=named).status_code == 422
    assert http.post("/v1/blocks/", json=BODY, headers={"idempotency-key": "other"}).json() != first.json()
    assert http.post("/v1/blocks/", json=BODY, headers={"idempotency-key": ""}).status_code == 400
    assert count(fresh_server) == 2


def test_equal_requests_with_one_key_at_once_are_done_once(fresh_server: Served) -> None:  # noqa: F811
    start = threading.Barrier(6)

    def send(_: int) -> bytes:
        http = fresh_server.http()
        start.wait()
        return http.post("/v1/blocks/", json=BODY, headers={"idempotency-key": "once"}).content

    with ThreadPoolExecutor(6) as pool:
        answers = set(pool.map(send, range(6)))
    assert len(answers) == 1 and count(fresh_server) == 1


def test_the_real_client_repeats_a_lost_post_without_harm(fresh_server: Served) -> None:  # noqa: F811
    """The first answer is thrown away on its way back, as by a broken connection."""

    class Lossy(httpx.HTTPTransport):
        lost = 0

        def handle_request(self, request: httpx.Request) -> httpx.Response:
            response = super().handle_request(request)
            if not Lossy.lost:
                Lossy.lost += 1
                response.close()
                raise httpx.ReadError("connection reset", request=request)
            return response

    with httpx.Client(transport=Lossy()) as http:
        client = fresh_server.letta(http_client=http, max_retries=2)
        block = client.blocks.create(label="l", value="v")
    assert Lossy.lost == 1
    assert [one.id for one in fresh_server.vault().blocks()] == [block.id]


def test_a_retry_waits_for_the_request_under_way() -> None:
    order: list[str] = []

    async def main() -> None:
        flights = Flights()
        first = retry_of("POST", b"/p", b"", {}, b"{}")
        second = retry_of("POST", b"/p", b"", RETRY, b"{}")
        arrived, release = anyio.Event(), anyio.Event()

        async def slow() -> None:
            async with flights.flight("token", first):
                arrived.set()
                await release.wait()
                order.append("first")

        async def again() -> None:
            async with flights.flight("token", second):
                order.append("retry")

        async def other(token: str, retry: Any) -> None:
            async with flights.flight(token, retry):
                order.append("other")

        async with anyio.create_task_group() as group:
            group.start_soon(slow)
            await arrived.wait()
            group.start_soon(again)
            await anyio.lowlevel.checkpoint()
            await other("another token", second)
            await other("token", None)
            release.set()

    anyio.run(main)
    assert order == ["other", "other", "first", "retry"]


def test_only_posts_have_answers_to_keep() -> None:
    assert retry_of("PATCH", b"/p", b"", RETRY, b"") is None
    with pytest.raises(Rejected):
        retry_of("POST", b"/p", b"", {"idempotency-key": "x" * 256}, b"")
