"""What the command line refuses, and how: two lines, an exit status, nothing half-done, never a traceback."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cyclopts import App
from stores import sqlite_only

from tallystone.cli import app as assembled
from tallystone.cli import main
from tallystone.cli.app import FAILED, INTERRUPTED, MISUSED, app, run
from tallystone.cli.terminal import plain

BLOCK = "block-00000000-0000-4000-8000-000000000000"


def leaves(parent: App = app, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], App]]:
    """Every command that does something, with the words that call it."""
    for name in parent:
        if name.startswith("-"):
            continue
        child = parent[name]
        if child.default_command is None:
            yield from leaves(child, (*path, name))
        else:
            yield (*path, name), child


COMMANDS = list(leaves())
IDS = [" ".join(path) for path, _ in COMMANDS]


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith("TALLYSTONE_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(("path", "command"), COMMANDS, ids=IDS)
def test_every_command_has_help_with_an_example(
    path: tuple[str, ...], command: App, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*path, "--help"]) == 0
    shown = capsys.readouterr().out
    assert "Examples:" in shown
    assert f"tallystone {' '.join(path)}" in shown.split("Examples:")[1]


@pytest.mark.parametrize(("path", "command"), COMMANDS, ids=IDS)
def test_every_command_can_answer_in_json(path: tuple[str, ...], command: App) -> None:
    if path == ("serve",):
        return  # a service has a log, not an answer
    names = {name for argument in command.assemble_argument_collection() for name in argument.names}
    assert "--json" in names


@pytest.mark.parametrize(("path", "command"), COMMANDS, ids=IDS)
def test_no_command_takes_a_token_from_the_command_line(path: tuple[str, ...], command: App) -> None:
    names = {name for argument in command.assemble_argument_collection() for name in argument.names}
    assert not names & {"--token", "--api-key", "--key", "--password"}


@pytest.mark.parametrize(("path", "command"), COMMANDS, ids=IDS)
def test_a_wrong_option_is_two_lines_and_status_2(
    path: tuple[str, ...], command: App, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*path, "--no-such-option"]) == MISUSED
    shown = capsys.readouterr()
    assert shown.out == ""
    error, hint = shown.err.splitlines()
    assert error.startswith("error: ")
    assert hint.startswith("hint: ")


@pytest.mark.parametrize(
    "words",
    [
        ["token", "list"],
        ["token", "list", "--data", "."],
        ["token", "list", "--url", "http://127.0.0.1:9", "--data", "."],
        ["block", "show"],
        ["block", "create"],
        ["block", "edit", BLOCK],
        ["block", "edit", BLOCK, "--value", "a", "--append", "b"],
        ["block", "edit", BLOCK, "--limit", "many"],
        ["block", "share", BLOCK, "--with", "ada", "--can", "fly"],
        ["block", "create", "a", "--file", "missing", "--data", "."],
        ["block", "create", "a", "--value", "b", "--file", "c"],
        ["token", "create", "--expires", "yesterday"],
        ["token", "create", "--expires", "2001-01-01"],
        ["block", "share", BLOCK, "--with", "ada", "--until", "soon"],
        ["block", "share", BLOCK, "--with", "ada", "--depth", "deep"],
        ["block", "create", "a", "--expires", "2027-1-1"],
        ["block", "edit", BLOCK, "--expires", "2099-01-01", "--no-expiry"],
        ["block", "edit", BLOCK, "--allow", "ada", "--allow-anybody"],
        ["block", "transfer", BLOCK],
        ["role", "add", "engineering"],
        ["role", "add", "engineering", "ada", "--until", "20270131"],
        ["role", "delete", "engineering"],
        ["user", "clearance", "ada"],
        ["user", "clearance", "ada", "internal", "--default"],
        ["user", "invite", "ada", "--days", "many"],
        ["charter", "set"],
        ["redeem", "invite_x"],
        ["redeem", "invite_x", "--data", ".", "--url", "http://127.0.0.1:9"],
        ["why", "ada"],
        ["audit", "tail", "--lines", "0"],
        ["audit", "verify"],
        ["recover", "--kit", "missing"],
        ["init"],
        ["nonsense"],
        ["block", "nonsense"],
    ],
    ids=" ".join,
)
def test_wrong_usage_is_status_2_with_an_error_line(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(words) == MISUSED
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("error: ")
    assert "Traceback" not in shown.err


@pytest.mark.parametrize("word", ["", "x", "tally_a_b_c", "tally_" + "a" * 5000, "\x1b[31m", "ü" * 90])
def test_a_malformed_token_is_refused_and_not_repeated(
    word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(["init", str(tmp_path / "data"), "--kit", str(tmp_path / "kit.txt")])
    capsys.readouterr()
    monkeypatch.setenv("TALLYSTONE_TOKEN", word)
    assert run(["block", "list", "--data", str(tmp_path / "data")]) in (FAILED, MISUSED)
    shown = capsys.readouterr().err
    assert len(word) < 5 or word not in shown


def test_a_missing_directory_is_refused_with_a_hint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["audit", "verify", "--data", str(tmp_path / "nowhere")]) == FAILED
    assert "hint: " in capsys.readouterr().err


@sqlite_only("about the file; on PostgreSQL: test_postgresql.py")
def test_a_file_that_is_no_database_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(["init", str(tmp_path / "data"), "--kit", str(tmp_path / "kit.txt")])
    for path in (tmp_path / "data").glob("tallystone.db*"):
        path.write_bytes(b"this is no database" * 1000)
    capsys.readouterr()
    assert run(["audit", "verify", "--data", str(tmp_path / "data")]) == FAILED
    assert capsys.readouterr().err.startswith("error: ")


# -- the key and the kit ---------------------------------------------------------------------------------------


def test_init_prints_the_key_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["init", "data"]) == 0
    shown = capsys.readouterr()
    assert len(shown.out.splitlines()) == 1
    assert shown.out.startswith("tally_")
    assert shown.out.strip() not in shown.err
    kit = tmp_path / "tallystone-recovery-kit.txt"
    assert kit.stat().st_mode & 0o777 == 0o600
    assert "AGE-SECRET-KEY" in kit.read_text()
    assert "AGE-SECRET-KEY" not in shown.err


@pytest.mark.parametrize("place", ["data/kit.txt", "data", "data/../data/kit.txt", "link/kit.txt"])
def test_the_kit_never_lies_below_the_data_directory(place: str, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (tmp_path / "link").symlink_to(data)
    assert run(["init", "data", "--kit", place]) == MISUSED
    assert list(data.iterdir()) == []


def test_init_inside_the_data_directory_asks_for_another_place_for_the_kit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path / "data")
    assert run(["init", "."]) == MISUSED
    assert list((tmp_path / "data").iterdir()) == []


def test_an_existing_kit_is_not_overwritten_and_no_workspace_is_made(tmp_path: Path) -> None:
    (tmp_path / "kit.txt").write_text("the only copy")
    assert run(["init", "data", "--kit", "kit.txt"]) == MISUSED
    assert (tmp_path / "kit.txt").read_text() == "the only copy"
    assert not (tmp_path / "data").exists()


def test_a_failing_init_leaves_no_empty_kit(tmp_path: Path) -> None:
    assert run(["init", "data", "--kit", "first.txt"]) == 0
    assert run(["init", "data", "--kit", "second.txt"]) == FAILED
    assert not (tmp_path / "second.txt").exists()


def test_a_kit_that_cannot_be_written_stops_init(tmp_path: Path) -> None:
    assert run(["init", "data", "--kit", "no/such/folder/kit.txt"]) == MISUSED
    assert not (tmp_path / "data").exists()


# -- ends ------------------------------------------------------------------------------------------------------


def test_an_interrupt_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(assembled, "app", interrupted)
    assert run(["doctor"]) == INTERRUPTED
    assert capsys.readouterr().err == "error: interrupted\n"


def test_an_unforeseen_failure_is_two_lines_that_hold_no_value(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise LookupError("a value that nobody should see")

    monkeypatch.setattr(assembled, "app", broken)
    assert run(["doctor"]) == FAILED
    shown = capsys.readouterr().err
    assert "nobody should see" not in shown
    assert len(shown.splitlines()) == 2


def test_a_closed_pipe_ends_quietly() -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "tallystone.cli", "doctor", "--json"],
            stdout=write,
            stderr=subprocess.PIPE,
            timeout=60,
            check=False,
            preexec_fn=lambda: signal.signal(signal.SIGPIPE, signal.SIG_IGN),
        )
    finally:
        os.close(write)
    assert done.returncode == FAILED
    assert done.stderr == b""


def test_without_the_extra_one_line_says_what_to_install() -> None:
    script = (
        "import sys\n"
        "class Missing:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name in ('cyclopts', 'rich'): raise ModuleNotFoundError(name=name)\n"
        "sys.meta_path.insert(0, Missing())\n"
        "from tallystone.cli import main\n"
        "sys.exit(main())\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == FAILED
    assert done.stdout == ""
    assert "pip install 'tallystone[server]'" in done.stderr


def test_main_takes_the_words_of_the_process(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["tallystone", "doctor", "--json"])
    assert main() == 0
    assert json.loads(capsys.readouterr().out)["ok"] is True


# -- what reaches the terminal ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("\x1b[2J", "\\x1b[2J"),
        ("a\rb", "a\\rb"),
        ("\u202etxt.exe", "\\u202etxt.exe"),
        ("\x9b31m", "\\x9b31m"),
        ("lone \ud800", "lone \\ud800"),
        ("équipe 🐝 [bold]", "équipe 🐝 [bold]"),
    ],
)
def test_control_characters_of_others_are_shown_not_obeyed(text: str, shown: str) -> None:
    assert plain(text) == shown


def test_a_token_file_that_others_can_read_is_warned_about(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(["init", "data"])
    token = tmp_path / "me.token"
    token.write_text(capsys.readouterr().out)
    token.chmod(0o644)
    assert run(["block", "list", "--data", "data", "--token-file", "me.token"]) == 0
    assert "warning: others on this machine can read" in capsys.readouterr().err
    token.chmod(0o600)
    assert run(["block", "list", "--data", "data", "--token-file", "me.token"]) == 0
    assert "warning" not in capsys.readouterr().err


def test_a_token_can_come_from_standard_input(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(["init", "data"])
    monkeypatch.setattr(sys, "stdin", io.StringIO(capsys.readouterr().out))
    assert run(["block", "list", "--data", "data", "--token-file", "-", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []
