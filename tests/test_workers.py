"""Several processes serve one address: each answers any request, and none takes an acknowledged write along."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import letta_client
import pytest
from server_fixtures import AUTHORITIES

from tallystone.errors import Invalid
from tallystone.server import duty, http_granian
from tallystone.vault import Workspace

PATIENCE = 30
"""Seconds after which what should have happened has not."""


@dataclass
class Running:
    """A server of several processes, as the command line starts it."""

    process: subprocess.Popen[str]
    url: str
    token: str
    folder: Path
    log: Path

    def lines(self) -> list[dict[str, Any]]:
        """What it has logged."""
        text = self.log.read_text(encoding="utf-8")
        return [json.loads(line) for line in text.splitlines() if line.startswith("{") and line.endswith("}")]

    def workers(self) -> list[int]:
        """The numbers of its processes."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in children.read_text(encoding="ascii").split()]

    def letta(self, **options: Any) -> letta_client.Letta:
        """The unmodified client, with its own retries."""
        http = letta_client.DefaultHttpxClient(verify=AUTHORITIES)
        return letta_client.Letta(base_url=self.url, api_key=self.token, http_client=http, **options)

    def http(self) -> httpx.Client:
        """A client that connects anew for each request, so that any process may take it."""
        headers = {"authorization": f"Bearer {self.token}", "connection": "close"}
        return httpx.Client(
            base_url=self.url, headers=headers, trust_env=False, verify=AUTHORITIES, timeout=PATIENCE
        )


@contextmanager
def several(folder: Path, *options: str) -> Iterator[Running]:
    """A server with two processes on a new workspace."""
    workspace, credentials = Workspace.init(folder / "data")
    workspace.close()
    log = folder / "log"
    asked = ["--data", str(folder / "data"), "--port", "0", "--workers", "2", "--log-format", "json"]
    with log.open("w") as written:
        process = subprocess.Popen(
            [sys.executable, "-m", "tallystone.cli", "serve", *asked, *options],
            stderr=written,
            text=True,
            env={**os.environ, "PYTHONWARNINGS": "ignore"},
        )
    try:
        until(lambda: "serves http" in log.read_text(encoding="utf-8"), "the address is told")
        url = log.read_text(encoding="utf-8").split()[2]
        yield Running(process, url, credentials.token, folder / "data", log)
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE)
        finally:
            process.kill()


def until(true: Any, what: str) -> None:
    """Wait for another process, which can set no event of ours."""
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end, f"not in time: {what}"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One server for those tests that leave it running."""
    with several(tmp_path_factory.mktemp("several"), "--metrics", "loopback") as running:
        yield running


def test_each_process_answers_and_hears_what_the_other_wrote(shared: Running) -> None:
    def seen() -> dict[str, set[int]]:
        routes = "/v1/blocks/{block_id}", "/v1/events"
        return {
            route: {line["worker"] for line in shared.lines() if line.get("route") == route}
            for route in routes
        }

    for turn in range(1, 21):  # the system says which process a connection goes to, by chance
        _six_hear_what_is_written(shared)
        until(
            lambda least=6 * turn: sum(line.get("route") == "/v1/events" for line in shared.lines()) >= least,
            "the streams' lines",
        )
        if all(by == {0, 1} for by in seen().values()):
            break
    assert all(by == {0, 1} for by in seen().values()), seen()


def _six_hear_what_is_written(shared: Running) -> None:
    with shared.http() as http:
        block = http.post("/v1/blocks/", json={"label": "shared", "value": "0"}).json()["id"]
        heard: dict[int, list[int]] = {}

        def listen(number: int) -> None:
            with shared.http() as ear, ear.stream("GET", "/v1/events") as stream:
                for line in stream.iter_lines():
                    if line.startswith("data:"):
                        event = json.loads(line.removeprefix("data:"))
                        heard.setdefault(number, []).append(event.get("version", 0))
                        if event.get("version") == 21:
                            return

        ears = [threading.Thread(target=listen, args=(number,)) for number in range(6)]
        for ear in ears:
            ear.start()
        until(lambda: len(heard) == len(ears), "each listens")
        for number in range(1, 21):
            assert http.patch(f"/v1/blocks/{block}", json={"value": str(number)}).status_code == 200
            assert http.get(f"/v1/blocks/{block}").json()["value"] == str(number)  # never an older one
        for ear in ears:
            ear.join(PATIENCE)
        assert not any(ear.is_alive() for ear in ears)


def test_an_equal_request_at_another_process_makes_no_second_block(shared: Running) -> None:
    headers = {"idempotency-key": "once"}
    made: set[str] = set()
    with shared.http() as http:
        for attempt in range(8):
            sent = {**headers, "x-stainless-retry-count": str(attempt)}
            made.add(
                http.post("/v1/blocks/", json={"label": "once", "value": "v"}, headers=sent).json()["id"]
            )
        assert len(made) == 1
        assert len(http.get("/v1/blocks/", params={"label": "once"}).json()) == 1


def test_what_was_acknowledged_outlives_a_killed_process(shared: Running) -> None:
    stop = threading.Event()
    written: dict[str, int] = {}
    failed: list[Exception] = []

    def write(number: int) -> None:
        client = shared.letta()
        try:
            block = client.blocks.create(label=f"writer {number}", value="0").id
            while not stop.is_set():
                client.blocks.update(block, value=str(written.get(block, 0) + 1))
                written[block] = written.get(block, 0) + 1
        except Exception as error:
            failed.append(error)
        finally:
            client.close()

    writers = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for writer in writers:
        writer.start()
    until(lambda: len(written) == 4, "each writes")
    for _ in range(3):
        kill_one(shared, written)
    stop.set()
    for writer in writers:
        writer.join(PATIENCE)
    assert failed == []
    with Workspace.open(shared.folder) as workspace:
        vault = workspace.vault(shared.token)
        assert {block: int(vault.block(block).value) for block in written} == written
        assert workspace.verify().findings == []


def kill_one(running: Running, written: dict[str, int]) -> None:
    before = sum(written.values())
    victim = running.workers()[0]
    os.kill(victim, signal.SIGKILL)
    until(lambda: victim not in running.workers() and len(running.workers()) == 2, "it is replaced")
    until(lambda: sum(written.values()) > before + 8, "they write on")


def test_the_jobs_go_to_another_process_when_theirs_is_killed_and_nothing_is_checked_twice(
    tmp_path: Path,
) -> None:
    with several(tmp_path) as running:

        def said(event: str) -> list[int]:
            return [line["worker"] for line in running.lines() if line.get("event") == event]

        until(lambda: said("log check done"), "the log is checked")
        (first,) = said("periodic jobs")
        # Listed in the order in which they were forked, until one is replaced.
        os.kill(running.workers()[first], signal.SIGKILL)
        until(lambda: len(said("periodic jobs")) == 2, "another takes over")
        assert len(said("log check done")) == 1
        with running.http() as http:
            assert http.get("/v1/ready/").status_code == 200


def test_the_numbers_of_all_processes_are_added_up_and_outlive_them(shared: Running) -> None:
    def counted() -> float:
        with shared.http() as http:
            text = http.get("/metrics").text
        (found,) = re.findall(
            r'^tallystone_requests_total\{.*route="/v1/tags/".*\} (.*)$', text, re.MULTILINE
        )
        return float(found)

    with shared.http() as http:
        for _ in range(30):
            assert http.get("/v1/tags/").status_code == 200
    by = {line["worker"] for line in shared.lines() if line.get("route") == "/v1/tags/"}
    assert by == {0, 1}
    assert [counted() for _ in range(6)] == [30] * 6  # whoever is asked
    victim = shared.workers()[0]
    os.kill(victim, signal.SIGKILL)
    until(lambda: victim not in shared.workers() and len(shared.workers()) == 2, "it is replaced")
    assert counted() == 30


def test_a_signal_ends_all_processes(tmp_path: Path) -> None:
    with several(tmp_path) as running:
        with running.http() as http:
            assert http.get("/v1/health/").status_code == 200
        workers = running.workers()
        running.process.send_signal(signal.SIGINT)  # SIGTERM ends the others of this module
        assert running.process.wait(PATIENCE) == 0
        assert not any(Path(f"/proc/{pid}").exists() for pid in workers)
    assert "worker ended" not in running.log.read_text(encoding="utf-8")


def test_granian_serves_the_same_application_on_the_same_socket(tmp_path: Path) -> None:
    with several(tmp_path, "--http", "granian") as running:
        client = running.letta(_strict_response_validation=True)
        agent = client.agents.create(name="a", memory_blocks=[{"label": "system/human", "value": "Ada"}])
        assert client.agents.blocks.retrieve("system/human", agent_id=agent.id).value == "Ada"
        assert client.agents.blocks.update("system/human", agent_id=agent.id, value="Bo").value == "Bo"
        client.close()
        with running.http() as http:
            assert http.post("/v1/blocks/", content=b"x" * (11 << 20)).status_code == 413
            assert http.get("/v1/blocks/", headers={"authorization": "Bearer x"}).status_code == 401
            for _ in range(20):
                assert http.get("/v1/tags/").status_code == 200
            with http.stream("GET", "/v1/events") as stream:
                lines = stream.iter_lines()
                assert next(lines).startswith("id:")
                running.process.send_signal(signal.SIGTERM)
                assert any("stopping" in line for line in lines)
        assert running.process.wait(PATIENCE) == 0
    assert {line["worker"] for line in running.lines() if line.get("route") == "/v1/tags/"} == {0, 1}


def test_granian_that_is_not_installed_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "granian", None)
    monkeypatch.setitem(sys.modules, "granian.server.embed", None)
    with pytest.raises(Invalid) as caught:
        http_granian.check()
    assert caught.value.hint == "pip install 'tallystone[granian]'"


def test_no_process_goes_on_without_the_one_that_watches(tmp_path: Path) -> None:
    with several(tmp_path) as running:
        until(lambda: len(running.workers()) == 2, "both are there")
        with running.http() as http:
            assert http.get("/v1/health/").status_code == 200
        workers = running.workers()
        running.process.kill()
        running.process.wait(PATIENCE)
        until(lambda: not any(_runs(pid) for pid in workers), "they end by themselves")


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


CRASHING = """
import os
from tallystone.server.logs import configure
from tallystone.server.workers import Workers
configure()
def work(number, starts, lifeline):
    os.write(1, b"x")
    raise SystemExit(3)
Workers(1, work, grace=0).run()
"""


def test_a_process_that_cannot_start_is_not_started_again_at_once() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", CRASHING], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    began = time.monotonic()
    assert process.stdout.read(4) == b"xxxx"
    assert time.monotonic() - began > 0.5 + 1.0 - 0.1  # at once, after the first pause, after the second
    process.terminate()
    process.communicate(timeout=PATIENCE)
    assert process.returncode == 0


def test_one_process_at_a_time_does_the_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duty, "RETRY_SECONDS", 0.01)
    at_work: list[str] = []
    begun = {name: threading.Event() for name in ("first", "second")}

    @contextmanager
    def jobs(name: str) -> Iterator[None]:
        at_work.append(name)
        begun[name].set()
        yield
        at_work.remove(name)

    with duty.on_duty(tmp_path, lambda: jobs("first")):
        assert begun["first"].wait(PATIENCE)
        with duty.on_duty(tmp_path, lambda: jobs("second")):
            assert not begun["second"].wait(0.1)
            assert at_work == ["first"]
    with duty.on_duty(tmp_path, lambda: jobs("second")):
        assert begun["second"].wait(PATIENCE)
        assert at_work == ["second"]
