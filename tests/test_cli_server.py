"""The command line and the server together: commands over a URL, the first start, and the stop."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest
from stores import thinned

from tallystone.cli.app import FAILED, MISUSED, run
from tallystone.server.run import running
from tallystone.vault import Workspace

pytestmark = thinned(2, "a command asks a server for what other tests ask of it")

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith("TALLYSTONE_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def tallystone(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command in this process: status, stdout, stderr without the server's log."""

    def call(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        status = run(words)
        shown = capsys.readouterr()
        return status, shown.out, shown.err

    return call


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server with one user, whose token and place are in the environment."""
    workspace, you = Workspace.init(tmp_path / "data")
    with workspace, running(workspace) as url:
        monkeypatch.setenv("TALLYSTONE_TOKEN", you.token)
        monkeypatch.setenv("TALLYSTONE_URL", url)
        yield url


def test_blocks_over_http_are_the_same_as_in_the_directory(url: str, tmp_path: Path, tallystone: Run) -> None:
    status, block, _ = tallystone("block", "create", "notes", "--value", "one", "--tag", "team")
    assert status == 0
    block = block.strip()
    assert tallystone("block", "edit", block, "--append", "two", "--description", "d")[0] == 0
    assert tallystone("block", "show", block, "--value")[1] == "one\ntwo\n"
    over_http = json.loads(tallystone("block", "show", block, "--json")[1])
    directly = json.loads(tallystone("block", "show", block, "--json", "--data", str(tmp_path / "data"))[1])
    for name in ("id", "label", "value", "description", "limit", "read_only", "tags", "version"):
        assert over_http[name] == directly[name], name
    assert tallystone("block", "delete", block, "--yes")[0] == 0
    status, _, err = tallystone("block", "show", block)
    assert status == FAILED
    assert err.splitlines()[-2].startswith("error: ")


def test_a_list_over_http_has_every_page(url: str, tmp_path: Path, tallystone: Run) -> None:
    with Workspace.open(tmp_path / "data") as workspace:
        vault = workspace.vault(os.environ["TALLYSTONE_TOKEN"])
        made = [vault.create_block(label=f"b{number}").id for number in range(103)]
    listed = json.loads(tallystone("block", "list", "--json")[1])
    assert [block["id"] for block in listed] == made


def test_agents_over_http(url: str, tmp_path: Path, tallystone: Run) -> None:
    with Workspace.open(tmp_path / "data") as workspace:
        vault = workspace.vault(os.environ["TALLYSTONE_TOKEN"])
        block = vault.create_block(label="notes", value="v")
        agent = vault.create_agent({"name": "ari"}, block_ids=[block.id])
    assert f"{agent.id}\tari\t1" in tallystone("agent", "list")[1]
    assert "notes" in tallystone("agent", "show", agent.id)[1]


def test_a_stale_version_over_http_is_refused(url: str, tallystone: Run) -> None:
    block = tallystone("block", "create", "notes", "--value", "one")[1].strip()
    assert tallystone("block", "edit", block, "--value", "two")[0] == 0
    status, _, err = tallystone("block", "edit", block, "--value", "three", "--if-version", "1")
    assert status == FAILED
    assert "version 2" in err
    assert tallystone("block", "show", block, "--value")[1] == "two\n"


def test_a_wrong_token_over_http(url: str, tallystone: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TALLYSTONE_TOKEN", "tally_wrong")
    status, _, err = tallystone("block", "list")
    assert status == FAILED
    assert "tally_wrong" not in err


def test_the_doctor_sees_the_server_and_the_token(url: str, tmp_path: Path, tallystone: Run) -> None:
    status, out, _ = tallystone("doctor")
    assert status == 0
    assert f"{url} is up" in out
    status, out, _ = tallystone("doctor", "--data", str(tmp_path / "data"))
    assert status == 0
    assert "scope full" in out


@contextmanager
def _stranger(answer: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[tuple[str, list[str | None]]]:
    """Some other HTTP server, and the Authorization headers that it was sent."""
    seen: list[str | None] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.headers.get("Authorization"))
            answer(self)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", seen
        finally:
            server.shutdown()
            thread.join()


def _page(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    handler.wfile.write(b"<html>welcome</html>")


def test_a_redirect_does_not_take_the_token_along(tallystone: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TALLYSTONE_TOKEN", "tally_secret")
    with _stranger(_page) as (elsewhere, taken):

        def redirect(handler: BaseHTTPRequestHandler) -> None:
            handler.send_response(307)
            handler.send_header("Location", f"{elsewhere}/v1/blocks/")
            handler.end_headers()

        with _stranger(redirect) as (url, _):
            assert tallystone("block", "list", "--url", url)[0] == FAILED
    assert taken == []


def test_a_server_of_another_kind_is_two_lines(tallystone: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TALLYSTONE_TOKEN", "tally_secret")
    with _stranger(_page) as (url, _):
        status, _, err = tallystone("block", "list", "--url", url)
    assert status == FAILED
    assert "check the URL" in err


# -- serve -----------------------------------------------------------------------------------------------------


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """`tallystone serve` in a process of its own; killed at the end if it is still there."""
    running: list[subprocess.Popen[str]] = []

    def start(*words: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "tallystone.cli", "serve", "--port", "0", *words],
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        running.append(process)
        return process

    yield start
    for process in running:
        if process.poll() is None:
            process.kill()
        process.communicate()


def test_a_service_does_not_make_a_workspace_by_itself(
    tmp_path: Path, started: Callable[..., subprocess.Popen[str]]
) -> None:
    out, err = started("--data", "data").communicate(timeout=60)
    assert out == ""
    assert err.startswith("error: there is no workspace in data")
    assert "--key-file" in err
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("key", ["data/first.token", "data"])
def test_the_first_key_never_lies_in_the_data_directory(
    key: str, tmp_path: Path, started: Callable[..., subprocess.Popen[str]]
) -> None:
    process = started("--data", "data", "--key-file", key)
    process.communicate(timeout=60)
    assert process.returncode == MISUSED
    assert not (tmp_path / "data").exists()


def test_first_start_with_a_key_file_and_a_graceful_stop(
    tmp_path: Path, started: Callable[..., subprocess.Popen[str]]
) -> None:
    process = started("--data", "data", "--key-file", "first.token", "--log-format", "json")
    assert process.stderr is not None
    heard = ""
    while "http://" not in heard:
        line = process.stderr.readline()
        assert line, f"the server ended: {heard}"
        heard += line
    found = re.search(r"http://[0-9.]+:\d+", heard)
    assert found is not None
    token = (tmp_path / "first.token").read_text().strip()
    assert (tmp_path / "first.token").stat().st_mode & 0o777 == 0o600
    request = urllib.request.Request(f"{found[0]}/v1/blocks/", headers={"Authorization": f"Bearer {token}"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert json.loads(answer.read()) == []
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert token not in out + heard + err
    assert "AGE-SECRET-KEY" not in out + heard + err
    assert "Traceback" not in err


def test_a_taken_port_is_two_lines(url: str, tmp_path: Path, tallystone: Run) -> None:
    port = url.rpartition(":")[2]
    status, _, err = tallystone("serve", "--data", str(tmp_path / "data"), "--port", port)
    assert status == FAILED
    assert "error: cannot listen on" in err
