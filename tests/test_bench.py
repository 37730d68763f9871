"""The measurements run, and docs/benchmarks.md says what was measured. How fast anything is, is not looked at here."""

from __future__ import annotations

import json
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path

import msgspec
import pytest
from server_fixtures import Served, server  # noqa: F401

from bench import dropin, growth, overhead, report, rooms, twin
from bench import workers as bench_workers
from bench.load import Reply, parse
from bench.scripts import OPERATIONS, TITLES

DOCS = Path(__file__).resolve().parent.parent / "docs"


def test_the_tables_and_pictures_in_the_docs_are_those_of_the_results() -> None:
    for name, content in {report.PAGE: report.page(DOCS), **report.pictures(DOCS)}.items():
        assert (DOCS / name).read_text(encoding="utf-8") == content, f"{name}: run python -m bench report"


@pytest.fixture(scope="module")
def docs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the page, for results."""
    folder = tmp_path_factory.mktemp("docs")
    shutil.copy(DOCS / report.PAGE, folder)
    return folder


def test_the_drop_in_suite_asks_every_operation_of_a_server_that_it_starts(docs: Path) -> None:
    few = "--connections 2 --blocks 10 --seconds 0.02 --warm 0 --rounds 1 --starts 0"
    assert dropin.main([*few.split(), "--write", str(docs)]) == 0
    (run,) = json.loads((docs / "dropin.json").read_text())["runs"]
    rows = {row["operation"]: row for row in run["rows"]}
    assert list(rows) == list(OPERATIONS)
    for name, row in rows.items():
        assert row["per_second"] > 0, name
        assert set(row["refused"]) <= ({"409"} if name == "update_shared" else set()), name
    assert run["memory"]["after"]["pss_mb"] > 10
    assert 0 < run["first_answer_s"][0] < 60
    table = report.dropin(docs)
    assert all(title in table for title in TITLES.values())


def test_what_more_workers_gain_is_held_against_what_the_cores_allow(tmp_path: Path) -> None:
    one = {"operation": "update", "connections": 32, "per_second": 100.0}
    costs = {"server_ms": 3.0, "client_ms": 0.5, "beside_ms": 0.5}
    run = {"store": "postgresql", "machine": {"cores": 2}}
    alone = {**run, "name": "alone", "workers": 1, "rows": [{**one, **costs}]}
    two = {**run, "name": "two", "workers": 2, "rows": [{**one, **costs, "per_second": 135.0}]}
    (tmp_path / "dropin.json").write_text(json.dumps({"runs": [alone, two]}))
    # Of 2 cores the worker gets 3 ms in 4: 1.5 times one worker at most.
    assert "| two | update a block, 1 KB | 100 | 135 | 1.35 | 1.50 | 0.90 |" in report.workers(tmp_path)
    # Asked in turns they compare better.
    two["rows"][0]["per_second"] = 120.0
    bench_workers.keep(tmp_path, {"runs": [alone, two]})
    bench_workers.keep(tmp_path, {"runs": [{**alone, "store": "sqlite"}]})
    assert "| 100 | 120 | 1.20 | 1.50 | 0.80 |" in report.workers(tmp_path)


def test_the_drop_in_suite_says_in_one_line_that_a_server_is_not_there(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert dropin.main(["--url", "http://127.0.0.1:9"]) == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: 127.0.0.1:9: ")


def test_the_overhead_suite_compares_both_servers_and_says_where_time_goes(docs: Path) -> None:
    few = "--connections 2 --blocks 5 --seconds 0.2 --warm 0 --pairs 1 --operations retrieve create"
    assert overhead.main([*few.split(), "--write", str(docs)]) == 0
    found = json.loads((docs / "overhead.json").read_text())
    assert [row["operation"] for row in found["rows"]] == ["retrieve", "create"]
    assert all(row["ours"]["per_second"] > 0 and row["twin"]["per_second"] > 0 for row in found["rows"])
    assert "**" in report.overhead(docs)
    if rooms.POSSIBLE:
        for shares in found["rooms"].values():
            assert sum(shares.values()) == pytest.approx(1, abs=0.01)
            assert sum(shares[room] > 0 for room in rooms.ROOMS) > 2  # of a look each millisecond
        assert "cryptography" in report.spent(docs)


def test_the_growth_suite_fills_and_measures_and_goes_on_where_it_ended(docs: Path, tmp_path: Path) -> None:
    few = f"--samples 5 --processes 1 --keep {tmp_path} --write {docs} --users 12".split()
    assert growth.main([*few, "--blocks", "30"]) == 0
    assert growth.main([*few, "14", "--blocks", "70"]) == 0
    points = json.loads((docs / "growth.json").read_text())["points"]
    assert [(one["blocks"], one["users"]) for one in points] == [(30, 12), (70, 12), (70, 14)]
    assert [one["made"] for one in points if "made" in one] == [30, 40]
    assert "opening ms" in report.growth(docs)
    picture = ET.fromstring(report.pictures(docs)["growth.svg"])
    assert "retrieve" in "".join(picture.itertext())


def test_the_twin_answers_with_the_same_fields_as_ours(server: Served, tmp_path: Path) -> None:  # noqa: F811
    with server.http() as client:
        ours = client.post("/v1/blocks/", json={"label": "plans", "value": "x"}).json()
    (block,) = twin.make(tmp_path, "token", [("plans", "x")])
    store = twin.PlainStore(tmp_path / twin.DATABASE)
    row = store.read("token", lambda connection, owner: twin._find(connection, owner, block))
    theirs = msgspec.json.decode(msgspec.json.encode(twin.shown(row)))
    store.close()
    assert list(theirs) == list(ours)
    assert {name: type(value) for name, value in theirs.items()} == {
        name: type(value) for name, value in ours.items()
    }


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\n\r\n",
    ],
)
def test_the_load_generator_reads_an_answer_that_comes_in_any_pieces(data: bytes) -> None:
    for end in range(len(data)):
        assert parse(data[:end]) is None
    assert parse(data + b"HTTP") == (Reply(200, b"hello"), b"HTTP", False)
