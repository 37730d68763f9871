"""The command line as a person sees it: each file in `transcripts/` is played and must come out the same.

A line that begins with `$ ` is played in an empty folder; the lines below are what it prints: stdout as it is, stderr
after `! `, an exit status other than 0 as `? N`. What changes from run to run (tokens, ids, times, hashes) is written
`<token-1>`, `<block-2>` and so on, the same name for the same thing. `{block-1}` in a command puts it back in.

`tallystone …` runs in this process, with `< FILE` and `> FILE` at its end understood (a new file is for the user
alone, as under umask 077); any other command is given to sh.

`UPDATE_TRANSCRIPTS=1` writes what was seen; read the difference before keeping it.
"""

from __future__ import annotations

import io
import os
import re
import shlex
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
from stores import sampled, sqlite_only

from tallystone.cli.app import run

TRANSCRIPTS = sorted((Path(__file__).parent / "transcripts").glob("*.txt"))
ABOUT_THE_FILE = {
    "backup": sqlite_only("a database is backed up with its own tools, as `tallystone backup` says there"),
    "tampering": sqlite_only("the story edits the file; on PostgreSQL: test_log_mutations.py"),
}

_UUID = "[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
_CHANGING = {
    "token": re.compile(r"tally_[a-z2-7]{16}_[a-z2-7]{52}_[a-z2-7]{8}"),
    "code": re.compile(r"invite_[a-z2-7]{16}_[a-z2-7]{52}_[a-z2-7]{8}"),
    "block": re.compile(f"block-{_UUID}"),
    "agent": re.compile(f"agent-{_UUID}"),
    "user": re.compile(f"user-{_UUID}"),
    "role": re.compile(f"role-{_UUID}"),
    "time": re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"),
    "hash": re.compile(r"\b(?:[0-9a-f]{64}|[0-9a-f]{16})\b…?"),
    "kid": re.compile(r"\b[a-z2-7]{16}\b"),
    "size": re.compile(r"\b[0-9]{5,}(?= bytes\b)"),
}
# Neither is worth telling one from another, nor the same from run to run.
_ALIKE = {"time", "hash", "size"}


class Names:
    """Names for what changes from run to run, in the order of appearance."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self._counts: dict[str, int] = {}

    def hide(self, text: str) -> str:
        """`text` with everything that changes replaced by its name."""
        for kind, pattern in _CHANGING.items():
            text = pattern.sub(lambda found, kind=kind: self._name(kind, found[0]), text)
        return text

    def _name(self, kind: str, text: str) -> str:
        if kind in _ALIKE:
            return f"<{kind}>"
        if text not in self._names:
            self._counts[kind] = self._counts.get(kind, 0) + 1
            self._names[text] = f"<{kind}-{self._counts[kind]}>"
        return self._names[text]

    def fill(self, command: str) -> str:
        """`command` with every `{block-1}` replaced by what it stands for."""
        known = {name[1:-1]: text for text, name in self._names.items()}
        return re.sub(r"\{([a-z]+-\d+)\}", lambda found: known.get(found[1], found[0]), command)


def _tallystone(words: list[str]) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    source = target = None
    if len(words) > 2 and words[-2] == ">":
        *words, _, target = words
    if len(words) > 2 and words[-2] == "<":
        *words, _, source = words
    before = sys.stdin
    sys.stdin = io.StringIO(Path(source).read_text(encoding="utf-8") if source else "")
    try:
        with redirect_stdout(out), redirect_stderr(err):
            status = run(words)
    finally:
        sys.stdin = before
    if target is None:
        return status, out.getvalue(), err.getvalue()
    Path(target).touch(0o600)
    Path(target).write_text(out.getvalue(), encoding="utf-8")
    return status, "", err.getvalue()


def _sh(command: str) -> tuple[int, str, str]:
    done = subprocess.run(
        ["sh", "-c", command], capture_output=True, encoding="utf-8", stdin=subprocess.DEVNULL, check=False
    )
    return done.returncode, done.stdout, done.stderr


def _play(text: str) -> str:
    names, seen = Names(), []
    for line in text.splitlines():
        if line.startswith("#"):
            seen.append(line)
        if not line.startswith("$ "):
            continue
        command = names.fill(line[2:])
        words = shlex.split(command)
        status, out, err = _tallystone(words[1:]) if words[0] == "tallystone" else _sh(command)
        seen.append(line)
        seen += [names.hide(shown).rstrip() for shown in out.splitlines()]
        seen += [f"! {names.hide(shown)}" for shown in err.splitlines()]
        if status:
            seen.append(f"? {status}")
    return "\n".join(seen) + "\n"


@pytest.fixture(autouse=True)
def plain_terminal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty folder, no colour, nothing of ours set."""
    for name in list(os.environ):
        if name.startswith("TALLYSTONE_"):
            monkeypatch.delenv(name)
    for name, value in {"HOME": str(tmp_path), "LANG": "C.UTF-8", "COLUMNS": "100", "TERM": "dumb"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


def test_there_are_transcripts() -> None:
    assert TRANSCRIPTS


@sampled(2, "the stories differ in commands: what those do to rows, the vault's tests say")
@pytest.mark.parametrize(
    "path",
    [pytest.param(path, marks=ABOUT_THE_FILE.get(path.stem, ()), id=path.stem) for path in TRANSCRIPTS],
)
def test_transcript(path: Path) -> None:
    expected = path.read_text(encoding="utf-8")
    seen = _play(expected)
    if os.environ.get("UPDATE_TRANSCRIPTS") == "1":
        path.write_text(seen, encoding="utf-8")
        return
    assert seen == expected
