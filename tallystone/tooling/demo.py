"""`tallystone demo`: the whole of it in a temporary folder, with the real client, and then the proof.

A server is started as a person would start it, `letta-client` is pointed at it, two agents share blocks. Then: who
may do what, a search of every raw byte on disk for everything that was written, the keyless check of the log, and
the same check after one byte was changed.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from tallystone.audit.verify import Report
from tallystone.errors import NotFound, StoreError, TallystoneError
from tallystone.vault import Workspace
from tallystone.vault.types import Access, Credentials

if TYPE_CHECKING:
    from letta_client import Letta

START_LIMIT = 20.0
"""Seconds that the server may take to answer."""
STOP_LIMIT = 15.0
"""Seconds that it may take to finish and go."""
_POLL = 0.05
_HOST = "127.0.0.1"


class Stage(Protocol):
    """Where the demo is shown."""

    def part(self, title: str) -> None:
        """A new part begins."""

    def did(self, what: str, detail: str = "") -> None:
        """Something was done, or seen to be as it should."""

    def matrix(self, cells: Sequence[Access]) -> None:
        """Who holds which right."""


class DemoFailed(TallystoneError):
    """Something was not as promised."""

    code = "demo_failed"


@dataclass
class Written:
    """Everything that the demo wrote and that must not be found on disk."""

    texts: dict[str, str] = field(default_factory=dict)

    def keep(self, what: str, text: str) -> str:
        """Remember `text`, named `what`; gives it back."""
        self.texts[what] = text
        return text


def expect(true: bool, what: str) -> None:
    """Stop the demo unless `true`."""
    if not true:
        raise DemoFailed(f"not as promised: {what}", hint="tallystone doctor checks this machine")


def play(stage: Stage, folder: Path) -> None:
    """The whole demo in the empty `folder`. Raises `DemoFailed` or another `TallystoneError`."""
    client_class = _client_class()
    data = folder / "data"
    stage.part("A workspace and a server")
    workspace, you = Workspace.init(data)
    workspace.close()
    stage.did("made an empty workspace", "an embedded store, one user")
    written = Written()
    written.keep("your token", you.token)
    written.keep("your token's secret", you.token.split("_")[2])
    with _server(data, folder / "server.log") as (url, stop):
        stage.did("started the server", url)
        with client_class(base_url=url, api_key=you.token) as client:
            team = _share(stage, client, written)
        with Workspace.open(data) as beside:
            cells = beside.vault(you.token).access()
        stage.part("The proof")
        stage.matrix(cells)
        _search(stage, data, written, "while it runs")
        stop()
        stage.did("stopped the server", "what was under way was finished first")
    _search(stage, data, written, "after it stopped")
    _intact(stage, data)
    _tampered(stage, data, you, team)


def _client_class() -> type[Letta]:
    try:
        from letta_client import Letta
    except ModuleNotFoundError:
        raise DemoFailed(
            "the demo drives the server with letta-client, which is not installed",
            hint="pip install 'tallystone[demo]'",
        ) from None
    return Letta


# -- the flow of the guide --------------------------------------------------------------------------------------


def _share(stage: Stage, client: Letta, written: Written) -> str:
    from letta_client import NotFoundError

    stage.part("Two agents, one block, the unmodified letta-client")
    team = client.blocks.create(
        label=written.keep("a label", "team_knowledge"),
        description=written.keep("a description", "Shared knowledge base for the team"),
        value=written.keep("a value", "The launch code word is heliotrope."),
        tags=[written.keep("a tag", "launch-week")],
        limit=5000,
    )
    policies = client.blocks.create(
        label=written.keep("another label", "company_policies"),
        value=written.keep("another value", "Never quote a price without approval."),
        read_only=True,
    )
    stage.did("created two blocks", "team_knowledge, and company_policies (read-only)")
    writer = client.agents.create(
        name=written.keep("an agent's name", "Wilhelmina-Writer"), block_ids=[team.id, policies.id]
    )
    reader = client.agents.create(
        name=written.keep("another agent's name", "Rodrigo-Reader"), block_ids=[team.id, policies.id]
    )
    stage.did("created two agents on the same blocks", f"{writer.name}, {reader.name}")

    note = written.keep("what an agent wrote", "Rollback plan: switch the blue pool back.")
    ran = client.agents.tools.run(
        "memory_insert", agent_id=writer.id, args={"label": "team_knowledge", "new_string": note}
    )
    expect(ran.status == "success", "the writer's append succeeds")
    seen = client.agents.blocks.retrieve("team_knowledge", agent_id=reader.id)
    expect(note in seen.value, "the reader sees what the writer wrote")
    stage.did("one writes, the other reads it at once", note)

    refused = client.agents.tools.run(
        "memory_insert",
        agent_id=reader.id,
        args={
            "label": "company_policies",
            "new_string": written.keep("a refused text", "Discounts for everybody!"),
        },
    )
    expect(refused.status == "error", "a write to a read-only block is refused")
    kept = client.blocks.retrieve(policies.id)
    expect(kept.value == "Never quote a price without approval.", "a read-only block stays as it is")
    stage.did("read-only holds against the memory tools", "the tool answers an error, the value stays")

    client.agents.blocks.detach(team.id, agent_id=reader.id)
    try:
        client.agents.blocks.retrieve("team_knowledge", agent_id=reader.id)
    except NotFoundError:
        stage.did("detached, the reader has nothing left", "404, and the block's key is a new one")
    else:
        raise DemoFailed("not as promised: a detached agent reads nothing")
    still = client.agents.blocks.retrieve("team_knowledge", agent_id=writer.id)
    expect(note in still.value, "the other agent reads on")
    return team.id


# -- the proof --------------------------------------------------------------------------------------------------


def _search(stage: Stage, data: Path, written: Written, when: str) -> None:
    """Look for everything that was written in every byte below `data`, in the encodings that a leak could have."""
    size, files = 0, 0
    everything = bytearray()
    for path in sorted(data.rglob("*")):
        if path.is_file():
            raw = path.read_bytes()
            size, files = size + len(raw), files + 1
            everything += raw + b"\0"
    haystack = bytes(everything).lower()
    # The search must be able to find something: the schema's own words lie there in clear.
    expect(b"create table" in haystack, "the search sees the database")
    found = [what for what, text in written.texts.items() if any(form in haystack for form in _forms(text))]
    expect(not found, f"nothing that was written is in the raw files, but there is {', '.join(found)}")
    stage.did(
        f"searched the raw files {when}",
        f"{len(written.texts)} values, labels, tags, names and tokens in {files} files, {size:,} bytes: none found",
    )


def _forms(text: str) -> Iterator[bytes]:
    lower = text.lower()
    yield lower.encode()
    yield lower.encode("utf-16-le")
    yield text.encode().hex().encode()


def _verify(data: Path) -> Report:
    with Workspace.open(data) as workspace:
        return workspace.verify()


def _intact(stage: Stage, data: Path) -> None:
    report = _verify(data)
    expect(not report.findings, "the log agrees with the database")
    stage.did("audit verify, without any key", f"ok: {report.leaves} leaves, {report.rows} rows")


def _tampered(stage: Stage, data: Path, you: Credentials, team: str) -> None:
    offset = _flip(data / "tallystone.db")
    stage.did("changed one byte of the database file", f"at offset {offset:,}")
    report = _verify(data)
    expect(bool(report.findings), "a changed byte is found")
    first = report.findings[0]
    stage.did("audit verify finds it", f"{first.where}: {first.what}")
    with Workspace.open(data) as workspace:
        try:
            workspace.vault(you.token).block(team)
        except NotFound:
            raise
        except TallystoneError as refused:
            stage.did("and a read refuses it", refused.message)
        else:
            raise DemoFailed("not as promised: a changed block is not read")


def _flip(database: Path) -> int:
    """Change one byte inside the newest version of the most written block; returns where in the file."""
    with sqlite3.connect(database) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (sealed,) = connection.execute("SELECT sealed FROM version ORDER BY number DESC LIMIT 1").fetchone()
    connection.close()
    raw = bytearray(database.read_bytes())
    offset = raw.find(sealed[:64])
    if offset < 0:
        raise StoreError("the row is not where it should be in the file")
    offset += 40
    raw[offset] ^= 0x01
    with database.open("r+b") as opened:
        opened.seek(offset)
        opened.write(raw[offset : offset + 1])
    return offset


# -- the server -------------------------------------------------------------------------------------------------


@contextmanager
def _server(data: Path, log: Path) -> Iterator[tuple[str, Callable[[], None]]]:
    """`tallystone serve` in a process of its own, on a free port; gives its URL, and what stops it.

    It is gone at the end, come what may.
    """
    environment = {name: text for name, text in os.environ.items() if not name.startswith("TALLYSTONE_")}
    command = [sys.executable, "-m", "tallystone.cli", "serve"]
    command += ["--data", str(data), "--host", _HOST, "--port", "0"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment, cwd=log.parent
        )
    try:
        yield _await(process, log), lambda: _stop(process, log)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def _await(process: subprocess.Popen[bytes], log: Path) -> str:
    """The URL that the server announces, once it answers there."""
    limit = time.monotonic() + START_LIMIT
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while time.monotonic() < limit:
        if process.poll() is not None:
            raise DemoFailed(
                f"the server ended at once: {_last(log)}", hint="tallystone doctor checks this machine"
            )
        announced = re.search(rb"http://[0-9.]+:\d+", log.read_bytes())
        if announced:
            url = announced[0].decode()
            with suppress(OSError), direct.open(f"{url}/v1/health/", timeout=2):
                return url
        time.sleep(_POLL)
    raise DemoFailed(f"the server did not answer within {START_LIMIT:.0f} s: {_last(log)}")


def _stop(process: subprocess.Popen[bytes], log: Path) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        status = process.wait(STOP_LIMIT)
    except subprocess.TimeoutExpired:
        raise DemoFailed(f"the server did not stop within {STOP_LIMIT:.0f} s") from None
    if status not in (0, -signal.SIGTERM):
        raise DemoFailed(f"the server stopped with status {status}: {_last(log)}")


def _last(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"


@contextmanager
def temporary_folder(*, keep: bool = False) -> Iterator[Path]:
    """A new folder for the demo, for this user alone; removed at the end unless `keep`."""
    folder = Path(tempfile.mkdtemp(prefix="tallystone-demo-"))
    try:
        yield folder
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)
