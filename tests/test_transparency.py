"""The log of a live server, as an outsider sees it: everything is checked by a verifier that knows nothing of ours."""

from __future__ import annotations

from base64 import b64decode
from pathlib import Path

import c2sp_verifier
import httpx
import pytest
from c2sp_verifier import Key
from server_fixtures import AUTHORITIES, Served, fresh_server, server  # noqa: F401

from tallystone.audit.leaf import decode_leaf
from tallystone.audit.receipt import verify_receipt
from tallystone.server.run import running
from tallystone.server.settings import Settings
from tallystone.vault import Workspace

LEAF = "x-tallystone-leaf"


def outside(served: Served) -> c2sp_verifier.Fetch:
    return c2sp_verifier.over_http(f"{served.url}/v1/log", {"Authorization": f"Bearer {served.token}"})


def test_an_outsider_verifies_the_log_a_receipt_and_a_consistency_proof_of_a_live_server(
    server: Served,  # noqa: F811
) -> None:
    client, fetch, log = server.http(), outside(server), Key.parse(server.workspace.log.key)
    old = c2sp_verifier.checkpoint(fetch("checkpoint"), log)
    made = client.post("/v1/blocks/", json={"label": "notes", "value": "a"})
    block = made.json()["id"]
    leaves = [int(made.headers[LEAF])]
    for number in range(300):
        answer = (
            client.patch(f"/v1/blocks/{block}", json={"value": str(number)})
            if number % 9 == 0
            else client.get(f"/v1/blocks/{block}")
        )
        leaves += [int(part) for part in answer.headers[LEAF].split(", ")]
    assert leaves == sorted(set(leaves))
    head, entries = c2sp_verifier.read_log(fetch, log)
    assert head.size == len(entries) > leaves[-1]
    kinds = {decode_leaf(entries[leaf]).kind for leaf in leaves}
    assert kinds == {"create", "read", "update"}, kinds
    for leaf in (leaves[0], leaves[-1], 0):
        index, record = c2sp_verifier.check_proof(fetch(f"receipt/{leaf}"), log, [])
        assert (index, record) == (leaf, entries[leaf])
    proof, _, note = fetch(f"consistency/{old.size}").partition(b"\n\n")
    first, *lines = proof.decode().split("\n")
    assert first == f"old {old.size}"
    c2sp_verifier.check_consistency(
        old, c2sp_verifier.checkpoint(note, log), [b64decode(line) for line in lines]
    )


def test_every_answer_names_its_leaf_also_a_refusal(server: Served) -> None:  # noqa: F811
    client = server.http()
    kinds = {}
    for name, answer in {
        "list": client.get("/v1/blocks/"),
        "create": client.post("/v1/blocks/", json={"label": "x", "value": "y"}),
        "denied": client.get("/v1/blocks/block-00000000-0000-4000-8000-000000000000"),
    }.items():
        leaf = int(answer.headers[LEAF].rpartition(",")[2])
        kinds[name] = verify_receipt(server.workspace.log.receipt(leaf), server.workspace.log.key).leaf.kind
    assert kinds == {name: name for name in kinds}
    assert LEAF not in client.get("/v1/health/").headers
    assert LEAF not in client.get("/v1/log/checkpoint").headers  # reading the log does not make it grow


def test_a_stranger_is_told_no_number(server: Served) -> None:  # noqa: F811
    with httpx.Client(base_url=server.url, trust_env=False, verify=AUTHORITIES) as stranger:
        for headers in ({}, {"authorization": "Bearer nonsense"}):
            answer = stranger.get("/v1/blocks/", headers=headers)
            assert answer.status_code == 401
            assert LEAF not in answer.headers


def test_a_retry_that_gets_the_first_answer_logs_nothing_and_names_nothing(server: Served) -> None:  # noqa: F811
    client = server.http()
    first = client.post("/v1/blocks/", json={"label": "once"}, headers={"idempotency-key": "k"})
    again = client.post("/v1/blocks/", json={"label": "once"}, headers={"idempotency-key": "k"})
    assert (LEAF in first.headers, LEAF in again.headers) == (True, False)
    assert first.json() == again.json()


def test_the_log_takes_a_token_unless_it_is_public(tmp_path: Path) -> None:
    workspace, credentials = Workspace.init(tmp_path / "data")
    paths = (
        "checkpoint",
        "tile/0/000.p/1",
        "tile/entries/000.p/1",
        "receipt/0",
        "consistency/1",
        "witnesses",
    )
    with workspace:
        reader = workspace.vault(credentials.token).create_token(scope="read")
        for public in (False, True):
            with (
                running(workspace, Settings(port=0, log_level="error", log_public=public)) as url,
                httpx.Client(base_url=f"{url}/v1/log/", trust_env=False, verify=AUTHORITIES) as client,
            ):
                for path in paths:
                    assert client.get(path).status_code == (200 if public else 401)
                    known = client.get(path, headers={"authorization": f"Bearer {reader}"})
                    assert known.status_code == 200
                assert client.get("../blocks/").status_code == 401
                assert client.post("checkpoint").status_code in (401, 405)


def test_what_is_served_is_of_its_kind_and_may_be_kept(server: Served) -> None:  # noqa: F811
    client = server.http()
    checkpoint, tile = client.get("/v1/log/checkpoint"), client.get("/v1/log/tile/0/000.p/1")
    assert checkpoint.headers["content-type"] == "text/plain; charset=utf-8"
    assert checkpoint.headers["cache-control"] == "no-store"
    assert tile.headers["content-type"] == "application/octet-stream"
    assert "immutable" in tile.headers["cache-control"]


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("tile/0/999", 404, "unknown_tile"),
        ("tile/0/nonsense", 422, "bad_tile"),
        ("tile/0/000.p/256", 422, "bad_tile"),
        ("tile/..%2f..%2fcheckpoint", 422, "bad_tile"),
        ("receipt/999999999", 404, "unknown_leaf"),
        ("receipt/-1", 422, "invalid"),
        ("receipt/99999999999999999999", 422, "invalid"),
        ("receipt/x", 422, "invalid"),
        ("consistency/999999999", 404, "unknown_leaf"),
        ("checkpoint?cosigned=true", 404, "not_cosigned"),
        ("checkpoint?cosigned=perhaps", 422, "invalid"),
        ("nothing", 404, "unknown_path"),
    ],
)
def test_bad_input_is_told_what_is_wrong(server: Served, path: str, status: int, code: str) -> None:  # noqa: F811
    answer = server.http().get(f"/v1/log/{path}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert answer.json()["error"]["hint"]
