"""`tallystone demo` and `tallystone doctor`, as a new user runs them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tallystone.cli.app import FAILED, run
from tallystone.vault import Workspace


def test_the_demo_proves_everything_in_time_and_leaves_nothing(tmp_path: Path) -> None:
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "tallystone.cli", "demo", "--json"],
        env={**os.environ, "TMPDIR": str(tmp_path), "HOME": str(tmp_path / "home")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - began < 30
    assert list(tmp_path.iterdir()) == []
    told = json.loads(done.stdout)
    steps = {step["did"]: step for step in told["steps"]}
    for promised in (
        "one writes, the other reads it at once",
        "read-only holds against the memory tools",
        "detached, the reader has nothing left",
        "searched the raw files while it runs",
        "searched the raw files after it stopped",
        "audit verify, without any key",
        "changed one byte of the database file",
        "audit verify finds it",
        "and a read refuses it",
    ):
        assert promised in steps
    matrix = steps["the access matrix"]
    assert matrix["columns"] == ["PRINCIPAL", "team_knowledge", "company_policies"]
    assert ["Rodrigo-Reader", "-"] in [row[:2] for row in matrix["rows"]]
    assert ["Wilhelmina-Writer", "RW"] in [row[:2] for row in matrix["rows"]]


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace's directory, and nothing set in the environment."""
    for name in list(os.environ):
        if name.startswith("TALLYSTONE_"):
            monkeypatch.delenv(name)
    workspace, _ = Workspace.init(tmp_path / "data")
    workspace.close()
    return tmp_path / "data"


def checks(data: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, str]]:
    """The exit status, and each check's verdict."""
    status = run(["doctor", "--data", str(data), "--json"])
    told = json.loads(capsys.readouterr().out)
    return status, {check["name"]: check["verdict"] for check in told["checks"]}


def test_the_doctor_finds_nothing_wrong_with_a_sound_directory(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, verdicts = checks(data, capsys)
    assert status == 0
    assert set(verdicts.values()) == {"ok"}


def test_the_doctor_finds_a_kit_beside_the_data(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (data / "kit.txt").write_text("# mine\nAGE-SECRET-KEY-PQ-1XYZ\n")
    status, verdicts = checks(data, capsys)
    assert status == FAILED
    assert verdicts["recovery kit"] == "problem"


def test_the_doctor_finds_a_directory_open_to_others(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data.chmod(0o755)
    status, verdicts = checks(data, capsys)
    assert status == 0
    assert verdicts["permissions"] == "warning"


def test_the_doctor_finds_a_missing_log_key(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (data / "server-keys" / "log.key").unlink()
    status, verdicts = checks(data, capsys)
    assert status == FAILED
    assert verdicts["workspace"] == "problem"


def test_the_doctor_finds_a_mistyped_token(
    data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TALLYSTONE_TOKEN", "tally_mistyped")
    status, verdicts = checks(data, capsys)
    assert status == FAILED
    assert verdicts["token"] == "problem"
