"""Questions to the log over HTTP and on the command line."""

from __future__ import annotations

import csv
import io
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from server_fixtures import Served, server  # noqa: F401

from tallystone.cli.app import run
from tallystone.letta.audit_text import COLUMNS, as_csv
from tallystone.vault.answers import Answered, Named
from tallystone.vault.types import AuditEvent

PAGE = Path(__file__).resolve().parent.parent / "docs" / "audit-questions.md"


def test_a_question_over_http_comes_in_pages_and_formats(server: Served) -> None:  # noqa: F811
    http, vault = server.http(), server.vault()
    block = vault.create_block(label="=HYPERLINK(1)", value="v").id
    for _ in range(3):
        vault.block(block)
    query: dict[str, Any] = {"block_id": block, "kind": ["read", "create"], "limit": 3}
    first = http.get("/v1/audit/events", params=query).json()
    assert [one["kind"] for one in first["events"]] == ["read"] * 3
    rest = http.get("/v1/audit/events", params={**query, **first["next"]}).json()
    assert [one["kind"] for one in rest["events"]] == ["create"] and rest["next"] is None
    assert rest["events"][0]["blocks"] == [{"id": block, "label": "=HYPERLINK(1)"}]
    lines = http.get("/v1/audit/events", params={**query, "format": "jsonl", "limit": 9})
    assert [json.loads(line) for line in lines.text.splitlines()] == first["events"] + rest["events"]
    assert lines.headers["x-tallystone-next"] == ""
    sheet = http.get("/v1/audit/events", params={**query, "format": "csv"})
    assert sheet.headers["content-type"] == "text/csv; charset=utf-8"
    assert [row["labels"] for row in csv.DictReader(io.StringIO(sheet.text))] == ["'=HYPERLINK(1)"] * 3
    assert "before=" in sheet.headers["x-tallystone-next"]


@pytest.mark.parametrize(
    "wrong",
    [
        "what=everything", "kind=reads", "since=yesterday", "since=2027-01-31T10:00:00", "block_id=plan", "order=up",
        "format=xml", "after_grant=1", "since=2027-02-01&until=2027-01-01", "limit=0&what=reads", "before=-1", "what=",
        "since=9999-99-99",
    ],
)  # fmt: skip
def test_a_bad_question_is_422(server: Served, wrong: str) -> None:  # noqa: F811
    answer = server.http().get(f"/v1/audit/events?{wrong}")
    assert answer.status_code == 422
    assert answer.json()["error"]["hint"]


def test_no_cell_of_a_table_begins_a_formula() -> None:
    names = ("=1", "+1", "-1", "@x", "\tx", " =1", "\r=1")
    event = AuditEvent(1, 30_000_000, "read", "user-x", "", {"kid": "=1"})
    found = [Answered(event, name, name, (Named("b", name),), (Named("p", name),)) for name in names]
    rows = list(csv.reader(io.StringIO(as_csv(found), newline="")))
    assert rows[0] == list(COLUMNS) and len(rows) == len(names) + 1
    for row, name in zip(rows[1:], names, strict=True):
        assert row.count("'" + name) == 4
        assert not any(cell.lstrip(" ").startswith(("=", "+", "-", "@", "\t", "\r")) for cell in row)


def test_the_five_questions_of_the_page_run_as_printed(
    server: Served,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    vault = server.vault()
    vault.add_user("bob")
    block = vault.create_block(label="plan", value="v").id
    vault.share(block, "bob", "read")
    vault.block(block)
    vault.create_agent({"name": "ari"})
    monkeypatch.setenv("TALLYSTONE_URL", server.url)
    monkeypatch.setenv("TALLYSTONE_TOKEN", server.token)
    commands = re.findall(
        r"^\$ tallystone (audit search .*)$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE
    )
    assert len(commands) == 6
    printed = []
    for command in commands:
        assert run(shlex.split(command.partition(" > ")[0].replace("BLOCK", block))) == 0, command
        printed.append(capsys.readouterr().out)
    assert "bob" in printed[2] and block in printed[4]
    assert run(["audit", "search", "--reads", "--block", block]) == 0
    assert "\tread\troot\t" in capsys.readouterr().out.replace(" ", "\t")


@pytest.mark.parametrize(
    "words",
    [["--reads", "--denied"], ["--csv", "--json"], ["--limit", "0"], ["--since", "soon"], ["--kind", "x"]],
)
def test_a_bad_question_on_the_command_line_is_one_line_and_a_hint(
    server: Served,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
) -> None:
    monkeypatch.setenv("TALLYSTONE_URL", server.url)
    monkeypatch.setenv("TALLYSTONE_TOKEN", server.token)
    assert run(["audit", "search", *words]) != 0
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith("error: ") and "Traceback" not in said.err
