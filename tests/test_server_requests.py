"""What the server makes of bad requests, and what it lets out: shapes, statuses, logs."""

from __future__ import annotations

import json
import socket
from datetime import UTC, datetime, timezone
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote_to_bytes

import httpx
import letta_client
import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st
from server_fixtures import AUTHORITIES, Served, fresh_server, server  # noqa: F401
from stores import sampled

from tallystone.errors import (
    Conflict,
    Denied,
    Locked,
    StoreError,
    StoreFull,
    Taken,
    TallystoneError,
    Tampered,
    Unauthenticated,
)
from tallystone.letta.routes import ROUTES, Route
from tallystone.server import errors, logs
from tallystone.server.auth import Turnstile
from tallystone.server.errors import Refusal
from tallystone.server.paths import Match, Paths
from tallystone.server.request import Headers

BLOCK = "block-123e4567-e89b-42d3-8456-426614174000"


def shaped(answer: httpx.Response) -> dict[str, Any]:
    """The error of an answer in the contract's shape."""
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert isinstance(body["detail"], str) and body["detail"]
    assert set(body["error"]) == {"code", "hint"} and body["error"]["hint"]
    error: dict[str, Any] = body["error"]
    return error


BAD = [
    ("GET", "/", None, 404),
    ("GET", "/v1", None, 404),
    ("GET", "/v1/nonsense", None, 404),
    ("GET", "/v1/blocks//", None, 404),
    ("GET", "/v1/agents/%ff", None, 404),
    ("GET", "/v1/blocks/%0a", None, 422),
    ("GET", "/v1/blocks/..%2F..%2Fetc%2Fpasswd", None, 422),
    ("GET", f"/v1/blocks/{BLOCK.upper()}", None, 422),
    ("GET", "/v1/blocks/block-123e4567-e89b-12d3-8456-426614174000", None, 422),
    ("GET", f"/v1/blocks/{BLOCK}", None, 404),
    ("PUT", "/v1/blocks/", None, 405),
    ("HEAD", "/v1/blocks/", None, 405),
    ("OPTIONS", f"/v1/blocks/{BLOCK}", None, 405),
    ("POST", "/v1/health/", None, 405),
    ("POST", "/v1/blocks/", b"{", 422),
    ("POST", "/v1/blocks/", b"[]", 422),
    ("POST", "/v1/blocks/", b"null", 422),
    ("POST", "/v1/blocks/", b'"x"', 422),
    ("POST", "/v1/blocks/", b"\xff\xfe", 422),
    ("POST", "/v1/blocks/", b"", 422),
    ("POST", "/v1/blocks/", b'{"label":"\\ud800"}', 422),
    ("POST", "/v1/blocks/", b'{"label":"\\u0000","value":NaN}', 422),
    ("POST", "/v1/blocks/", b'{"label":"a","metadata":{"a":1e400}}', 422),
    ("POST", "/v1/blocks/", b'{"label":"a","metadata":{"a":' + b"[" * 70 + b"]" * 70 + b"}}", 422),
    ("POST", "/v1/blocks/", b'{"label":"a","metadata":' + b'{"a":' * 90_000 + b"1" + b"}" * 90_001, 422),
    ("GET", "/v1/blocks/?limit=1e3", None, 422),
    ("GET", "/v1/blocks/?" + "tags=a&" * 1001, None, 422),
    ("GET", "/v1/blocks/?value_search=" + "x" * 20_000, None, 414),
]


@sampled(3, "the requests differ in what is wrong with them")
@pytest.mark.parametrize(("method", "path", "body", "status"), BAD, ids=lambda value: str(value)[:50])
def test_bad_requests_are_clear_4xx(
    server: Served,  # noqa: F811
    method: str,
    path: str,
    body: bytes | None,
    status: int,
) -> None:
    answer = server.http().request(method, path, content=body)
    assert answer.status_code == status
    if method != "HEAD":
        shaped(answer)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "Bearer",
        "Bearer x",
        "Basic abc",
        "tally_x",
        "Bearer tally_aaaa_bbbb_cccc",
        b"Bearer tally_\xe9\xff",
    ],
)
def test_bad_tokens_are_401(server: Served, value: str | bytes) -> None:  # noqa: F811
    raw = value if isinstance(value, bytes) else value.encode()
    with httpx.Client(base_url=server.url, trust_env=False, verify=AUTHORITIES) as http:
        answer = http.get("/v1/blocks/", headers=[(b"authorization", raw)])
    assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer"
    assert shaped(answer)["code"] == "unauthenticated"


def test_a_revoked_token_opens_nothing(server: Served) -> None:  # noqa: F811
    token = server.vault().create_token(label="t")
    http = server.http(token)
    assert http.get("/v1/blocks/").status_code == 200
    server.vault().revoke_token(token.split("_")[1])
    assert http.get("/v1/blocks/").status_code == 401


def test_a_body_of_50_mb_is_413_and_the_connection_lives(server: Served) -> None:  # noqa: F811
    http = server.http()
    answer = http.post("/v1/blocks/", content=b"x" * 50_000_000)
    assert answer.status_code == 413 and shaped(answer)["code"] == "too_large"

    def endless() -> Any:
        for _ in range(200):
            yield b"x" * 100_000

    assert http.post("/v1/blocks/", content=endless()).status_code == 413
    assert http.get("/v1/blocks/").status_code == 200


def test_headers_beyond_the_bound_are_refused(server: Served) -> None:  # noqa: F811
    http = server.http()
    assert http.get("/v1/blocks/", headers={f"x-{at}": "y" * 1000 for at in range(40)}).status_code == 431


def test_bytes_that_are_no_http_do_no_harm(server: Served) -> None:  # noqa: F811
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as raw:
        raw.sendall(b"\x16\x03\x01nonsense\r\n\r\n")
        assert raw.recv(100).startswith(b"HTTP/1.1 400")
    assert server.http().get("/v1/health/").status_code == 200


def test_both_spellings_are_served_without_redirects(server: Served) -> None:  # noqa: F811
    http = server.http()
    for path in (
        "/v1/blocks",
        "/v1/agents",
        "/v1/tools",
        "/v1/models",
        "/v1/tags",
        "/v1/health",
        "/v1/models/embedding",
    ):
        assert http.get(path).status_code == http.get(path + "/").status_code == 200
    block = http.post("/v1/blocks", json={"label": "l"}).json()
    assert http.get(f"/v1/blocks/{block['id']}/").json() == http.get(f"/v1/blocks/{block['id']}").json()


def test_a_user_id_header_changes_nothing(server: Served) -> None:  # noqa: F811
    token = server.add_user("header")
    assert server.http(token).get("/v1/agents/", headers={"user_id": server.user}).json() == []


def test_refusals_of_strangers_are_logged(fresh_server: Served) -> None:  # noqa: F811
    def denied() -> int:
        return sum(event.kind == "denied" for event in fresh_server.vault().events(limit=1000))

    with httpx.Client(base_url=fresh_server.url, trust_env=False, verify=AUTHORITIES) as http:
        before = denied()
        http.get("/v1/blocks/")
        http.get("/v1/blocks/", headers={"authorization": "Bearer tally_no"})
        http.get("/nonsense")
        assert denied() == before + 3
        fresh_server.http().get(f"/v1/blocks/{BLOCK}")
        assert denied() == before + 4
    assert fresh_server.workspace.verify().findings == []


def test_strangers_wait_when_there_are_too_many() -> None:
    now = [0.0]
    gate = Turnstile(rate=2, burst=3, clock=lambda: now[0])
    for _ in range(3):
        gate.enter()
    with pytest.raises(Refusal) as caught:
        gate.enter()
    assert caught.value.status == 429 and caught.value.headers["retry-after"]
    now[0] += 0.5
    gate.enter()


# -- errors -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "status", "retry"),
    [
        (Unauthenticated("no"), 401, None),
        (Denied("no"), 403, None),
        (Conflict("busy"), 409, None),
        (Taken("taken"), 409, "false"),
        (Locked("locked"), 423, "false"),
        (Tampered("bad"), 500, "false"),
        (StoreError("io"), 503, None),
        (StoreFull("full"), 503, "false"),
        (KeyError("SECRET"), 500, "false"),
    ],
)
def test_each_error_has_its_status_and_says_whether_to_retry(
    error: Exception, status: int, retry: str | None
) -> None:
    answer = errors.answer(error)
    assert answer.status == status
    assert answer.headers.get("x-should-retry") == retry
    assert b"SECRET" not in answer.content()


def test_all_of_our_errors_have_an_answer() -> None:
    kinds = [TallystoneError]
    for kind in kinds:
        kinds += kind.__subclasses__()
        if kind is not Refusal:
            assert 400 <= errors.answer(kind("x")).status <= 599


def test_a_crash_says_nothing_of_what_it_held(
    server: Served,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def explode(*_: object, **__: object) -> None:
        raise RuntimeError("SECRET in a message")

    monkeypatch.setattr("tallystone.vault.Vault.block_as", explode)
    answer = server.http().get(f"/v1/blocks/{BLOCK}")
    assert answer.status_code == 500 and answer.headers["x-should-retry"] == "false"
    assert "SECRET" not in answer.text and "Traceback" not in answer.text
    log = capsys.readouterr().err
    assert "RuntimeError" in log and "SECRET" not in log and BLOCK not in log


def test_the_client_raises_its_own_types(server: Served) -> None:  # noqa: F811
    with pytest.raises(letta_client.AuthenticationError):
        server.letta("tally_wrong").blocks.list()
    with pytest.raises(letta_client.NotFoundError) as caught:
        server.letta().blocks.retrieve(BLOCK)
    body: Any = caught.value.body
    assert body["error"]["code"] == "not_found"


# -- paths ------------------------------------------------------------------------------------------------------


def _match(method: str, path: bytes) -> tuple[str, dict[str, str]]:
    found = Paths(ROUTES).match(method, path)
    assert isinstance(found, Match)
    return found.route.path.rpartition("/")[2], found.params


def test_segments_are_decoded_after_the_split() -> None:
    base = b"/v1/agents/a/core-memory/blocks/"
    assert _match("GET", base + b"system%2Fhuman")[1]["block_label"] == "system/human"
    assert _match("GET", base + b"system/human")[1]["block_label"] == "system/human"
    assert _match("GET", base + b"a%2F")[1]["block_label"] == "a/"
    assert _match("PATCH", base + b"attach/b") == ("{block_id}", {"agent_id": "a", "block_id": "b"})
    assert _match("PATCH", base + b"attach%2Fb")[1]["block_label"] == "attach/b"
    assert _match("PATCH", base + b"attach")[1]["block_label"] == "attach"


def _fits(template: str, path: bytes) -> dict[str, str] | None:
    """What a template makes of a path, one segment after the other."""
    parts = [
        unquote_to_bytes(part).decode() for part in path.removeprefix(b"/").removesuffix(b"/").split(b"/")
    ]
    params = {}
    segments = template.strip("/").split("/")
    for at, segment in enumerate(segments):
        if at >= len(parts):
            return None
        if segment.endswith("...}"):
            rest = "/".join(parts[at:])
            return {**params, segment[1:-4]: rest} if rest else None
        if segment.startswith("{"):
            if not parts[at]:
                return None
            params[segment[1:-1]] = parts[at]
        elif segment != parts[at]:
            return None
    return params if len(segments) == len(parts) else None


WORDS = sorted({part for route in ROUTES for part in route.path.split("/") if part and "{" not in part})


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(ROUTES),
    st.lists(st.sampled_from([*WORDS, "a", "%2F", "%C3%A9", "", "."]), max_size=4),
    st.data(),
)
def test_a_path_goes_to_the_first_row_that_it_fits(
    route: Route, more: list[str], data: st.DataObject
) -> None:
    filled = [
        data.draw(st.sampled_from(["x", *WORDS])) if "{" in part else part
        for part in route.path.strip("/").split("/")
    ]
    path = "/".join(["", *filled, *more]).encode()
    fitting = [(row, found) for row in ROUTES if (found := _fits(row.path, path)) is not None]
    match = Paths(ROUTES).match(route.method, path)
    first = next(((row, found) for row, found in fitting if row.method == route.method), None)
    if first is not None:
        assert isinstance(match, Match) and (match.route, match.params) == first
    else:
        assert match == (tuple(dict.fromkeys(row.method for row, _ in fitting)) or None)


@pytest.mark.parametrize("worker", [None, 3])
@pytest.mark.parametrize("form", ["text", "json"])
def test_a_requests_line_is_what_structlog_would_write(
    form: str, worker: int | None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    at = datetime(2026, 3, 4, 5, 6, 7, 89, tzinfo=UTC)
    monkeypatch.setattr("tallystone.server.logs.time.time", at.timestamp)
    monkeypatch.setattr(
        "structlog.processors.datetime",
        SimpleNamespace(datetime=SimpleNamespace(now=lambda tz: at), timezone=timezone),
    )
    logs.configure(form, "info", worker)
    try:
        for method, route, status, seconds in [
            *((route.method, route.path, 200, 0.00125) for route in ROUTES),
            ("-", "-", 503, 12.0),
            ("GET", "/v1/health/", 200, 0.0),
        ]:
            logs.log_request(method, route, status, seconds)
            structlog.get_logger().info(
                "request", method=method, route=route, status=status, ms=round(seconds * 1000, 1)
            )
            ours, theirs = capsys.readouterr().err.splitlines()
            assert ours == theirs
        logs.configure(form, "warning", worker)
        logs.log_request("GET", "/", 200, 0.1)
        assert capsys.readouterr().err == ""
    finally:
        logs.configure()


def test_headers_are_read_by_name_and_the_last_of_two_counts() -> None:
    headers = Headers([(b"a", b"1"), (b"b", b"\xe9"), (b"a", b"2")])
    assert dict(headers) == {"a": "2", "b": "é"} and len(headers) == 2
    assert "a" in headers and "c" not in headers and headers.get("c") is None


def test_the_log_holds_templates_only(
    tmp_path: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tallystone.server.run import running
    from tallystone.server.settings import Settings
    from tallystone.vault import Workspace

    workspace, credentials = Workspace.init(tmp_path / "data")
    with workspace, running(workspace, Settings(port=0, log_format="json")) as url:
        headers = {"authorization": f"Bearer {credentials.token}"}
        with httpx.Client(base_url=url, trust_env=False, verify=AUTHORITIES, headers=headers) as http:
            http.get(f"/v1/blocks/{BLOCK}", params={"label_search": "CANARY"})
            http.get("/v1/CANARY")
            http.post("/v1/blocks/", json={"label": "CANARY"})
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [(line["route"], line["status"]) for line in lines] == [
        ("/v1/blocks/{block_id}", 404),
        ("-", 404),
        ("/v1/blocks/", 200),
    ]
    text = json.dumps(lines)
    assert "CANARY" not in text and BLOCK not in text and credentials.token not in text
