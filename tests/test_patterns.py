"""The four patterns as a stranger runs them: each script in a process of its own, against a server, as printed.

Each script proves its matrix itself: what is allowed works; what is not fails through tools, by label, by id with the
agent's own key, and in the compiled prompt. Here it is also proved that a script would notice, that it leaves nothing
behind, that it runs with a model, and that it fails in one line.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from node_packages import installed, node
from scripted_models import HANDLES, Asked, Call, Turn
from server_fixtures import Served, fresh_server, server  # noqa: F401
from stores import sampled, thinned
from turn_fixtures import Talking, talking  # noqa: F401

pytestmark = thinned(3, "they differ in what a script tells, which is told over HTTP")

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES, PAGES = ROOT / "examples", ROOT / "docs" / "patterns"
SCRIPTS = ("support_tiers", "task_queue", "personal_assistant", "enterprise")
LONG = bool(os.environ.get("TALLYSTONE_LONG"))
EACH = sampled(4, "the scripts differ in names and matrices, and ask by the same few routes")
RUNS = 20 if LONG else 1
WORKERS, TASKS = 12, 60


def run(script: str, *options: str, url: str, token: str) -> subprocess.CompletedProcess[str]:
    """The script as it is, with the client's own variables."""
    environment = os.environ | {"LETTA_BASE_URL": url, "LETTA_API_KEY": token, "PYTHONIOENCODING": "utf-8"}
    command = [sys.executable, EXAMPLES / f"{script}.py", *options]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=150, check=False)


def loaded(script: str) -> ModuleType:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location(f"example_{script}", EXAMPLES / f"{script}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def left(served: Served) -> tuple[list[str], list[str], Any]:
    """The agents, blocks and roles on the server."""
    client = served.letta()
    roles: Any = client.get("/v1/roles", cast_to=object)
    return [one.name for one in client.agents.list()], [one.label for one in client.blocks.list()], roles


@EACH
@pytest.mark.parametrize("script", SCRIPTS)
def test_a_pattern_holds_as_printed_and_is_drawn_on_its_page(script: str, fresh_server: Served) -> None:  # noqa: F811
    options = ("--company", "acme") if script == "enterprise" else ()
    done = run(script, "--keep", *options, url=fresh_server.url, token=fresh_server.token)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    said = done.stdout.splitlines()
    assert len([line for line in said if line.startswith("ok: ")]) >= 4
    for agent, row in matrix(script).items():
        (shown,) = [line.split() for line in said if line.startswith(f"{agent} ")]
        held = [cell for cell in shown[1:] if cell != "-"]
        assert held == [row[label] for label in said[0].split() if label in row]
    drawn = fresh_server.http().get("/v1/access", params={"format": "svg"}).text
    picture = PAGES / f"{script.replace('_', '-')}.svg"
    if os.environ.get("TALLYSTONE_DRAW"):
        picture.write_text(drawn, encoding="utf-8")
    assert picture.read_text(encoding="utf-8") == drawn, f"TALLYSTONE_DRAW=1 pytest -k {script} draws it anew"


def matrix(script: str) -> dict[str, dict[str, str]]:
    module = loaded(script)
    made: dict[str, dict[str, str]] = module.plan(3) if script == "task_queue" else module.MATRIX
    return made


def test_departments_can_be_users(fresh_server: Served, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: F811
    with ExitStack() as undo:
        loaded("enterprise").main(fresh_server.letta(), undo, "acme", True, None)
        assert "ok: nor can the workspace's first user open it" in capsys.readouterr().out
    assert left(fresh_server) == ([], [], [])
    status = [one.status for one in fresh_server.vault().users()]
    assert sorted(status) == ["active", "suspended", "suspended", "suspended"]


def test_a_pattern_runs_beside_one_that_was_kept_and_leaves_only_that(fresh_server: Served) -> None:  # noqa: F811
    tiers, client = loaded("support_tiers"), fresh_server.letta()
    tiers.main(client, ExitStack(), None)
    kept = left(fresh_server)
    with ExitStack() as undo:
        tiers.main(client, undo, None)
        assert left(fresh_server) != kept
    assert left(fresh_server) == kept


# -- would they notice? -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("harm", ["a right too many", "a right too few"])
def test_a_pattern_that_does_not_hold_fails_in_one_line(server: Served, harm: str) -> None:  # noqa: F811
    tiers, client = loaded("support_tiers"), server.letta()
    with ExitStack() as undo:
        blocks, agents = tiers.build(client, undo, None)
        tiers.check(client, blocks, agents)
        if harm == "a right too many":
            client.agents.blocks.attach(blocks["team_metrics"].id, agent_id=agents["tier1_a"].id)
        else:
            client.agents.blocks.detach(blocks["company_policies"].id, agent_id=agents["tier1_a"].id)
        with pytest.raises(SystemExit, match=r"^error: not as promised: tier1_a .*"):
            tiers.check(client, blocks, agents)


def test_without_a_server_there_is_one_line_and_a_hint() -> None:
    done = run("support_tiers", url="http://127.0.0.1:9", token="tally_none")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "error: no server answers at http://127.0.0.1:9",
        "hint: start one, and set LETTA_BASE_URL to it",
    ]


@pytest.mark.parametrize("wrong", ["token", "model"])
def test_with_a_wrong_token_or_model_there_is_one_line_and_a_hint(wrong: str, server: Served) -> None:  # noqa: F811
    options, token = ("--model", "openai/none") if wrong == "model" else (), server.token
    done = run("support_tiers", *options, url=server.url, token="tally_none" if wrong == "token" else token)
    assert done.returncode == 1
    error, hint = done.stderr.splitlines()
    assert error.startswith("error: ") and hint.startswith("hint: ")
    assert left(server) == ([], [], [])


def test_all_patterns_fail_alike() -> None:
    endings = {
        (EXAMPLES / f"{script}.py").read_text("utf-8").partition("        except API")[2]
        for script in SCRIPTS
    }
    assert len(endings) == 1 and "sys.exit" in endings.pop()


# -- with a model -----------------------------------------------------------------------------------------------


def obedient(asked: Asked) -> Turn:
    """A model that does what the last message of its user says, then says that it did."""
    if asked.last.role != "user":
        return Turn("Done.")
    told = re.search(r"Add this line to your block (\S+), with memory_insert: (.*)", asked.last.text)
    assert told is not None, asked.last.text
    return Turn(calls=[Call("memory_insert", {"label": told[1], "new_string": told[2]})])


def diligent(asked: Asked) -> Turn:
    """A model that works through the task queue as it is told to, by what its prompt shows."""
    worker = re.search(r"in progress: (worker_\d+)`", " ".join(one.text for one in asked.messages))
    assert worker is not None
    name, calls = worker[1], [call for one in asked.messages for call in one.calls]
    mine = re.search(rf"(TASK-\d+) \| in progress: {name}$", asked.system, re.MULTILINE)
    if mine and not (asked.last.role == "tool" and calls[-1][2]["label"] == "completed_work"):
        finding = f"{mine[1]} by {name}: it is so"
        return Turn(calls=[Call("memory_insert", {"label": "completed_work", "new_string": finding})])
    if mine:
        return Turn(calls=[_replace(f"{mine[1]} | in progress: {name}", f"{mine[1]} | done: {name}")])
    pending = re.search(r"(TASK-\d+) \| pending$", asked.system, re.MULTILINE)
    if pending is None or (asked.last.role == "tool" and " | done" in str(calls[-1][2])):
        return Turn("Done.")
    return Turn(calls=[_replace(f"{pending[1]} | pending", f"{pending[1]} | in progress: {name}")])


def _replace(old: str, new: str) -> Call:
    return Call("memory_replace", {"label": "task_queue", "old_string": old, "new_string": new})


@EACH
@pytest.mark.parametrize("script", SCRIPTS)
def test_a_pattern_holds_with_a_model(script: str, talking: Talking) -> None:  # noqa: F811
    talking.models.play(diligent if script == "task_queue" else obedient)
    pattern, model = loaded(script), HANDLES["openai"]
    pattern.check = lambda *_: None  # needs no model, and is held above
    middle = {"task_queue": (2, 4), "enterprise": ("acme", False)}.get(script, ())
    with ExitStack() as undo:
        pattern.main(talking.served.letta(), undo, *middle, model)
    assert len(talking.models.asked) >= 4
    assert {asked.model for asked in talking.models.asked} == {"scripted-1"}


# -- in TypeScript ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which node finds the client, and the example beside it."""
    folder = installed(Path(__file__).parent / "letta_npm", "talk.mjs", tmp_path_factory.mktemp("npm"))
    shutil.copy(EXAMPLES / "support_tiers.ts", folder)
    return folder


def typescript(packages: Path, monkeypatch: pytest.MonkeyPatch, url: str, token: str, *options: str) -> Any:
    monkeypatch.setenv("LETTA_BASE_URL", url)
    monkeypatch.setenv("LETTA_API_KEY", token)
    return node("support_tiers.ts", *options, cwd=packages, seconds=60)


def test_the_first_pattern_holds_in_typescript(
    packages: Path,
    talking: Talking,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    served = talking.served
    done = typescript(packages, monkeypatch, served.url, served.token)
    assert (done.returncode, done.stderr) == (0, "")
    oks = [line for line in done.stdout.splitlines() if line.startswith("ok: ")]
    talking.models.play(obedient)
    done = typescript(packages, monkeypatch, served.url, served.token, "--model", HANDLES["openai"])
    assert (done.returncode, done.stderr) == (0, "")
    assert [line for line in done.stdout.splitlines() if line.startswith("ok: ")] == oks
    assert len(oks) == 4 and len(talking.models.asked) == 4
    assert left(served) == ([], [], [])


def test_the_typescript_example_fails_in_one_line_and_a_hint(
    packages: Path,
    server: Served,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for url, token in (("http://127.0.0.1:9", server.token), (server.url, "tally_none")):
        done = typescript(packages, monkeypatch, url, token)
        assert done.returncode == 1
        error, hint = done.stderr.splitlines()
        assert error.startswith("error: ") and hint.startswith("hint: ")


def test_both_languages_have_the_same_matrix() -> None:
    text = (EXAMPLES / "support_tiers.ts").read_text(encoding="utf-8")
    tiers = loaded("support_tiers")
    for name, row in tiers.MATRIX.items():
        cells = ", ".join(f'{label}: "{rights}"' for label, rights in row.items())
        assert f"  {name}: {{ {cells} }},\n" in text
    for label, value in tiers.BLOCKS.items():
        assert f'  {label}: "{value}",\n' in text


# -- the queue --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def queue() -> ModuleType:
    """The task queue's functions."""
    return loaded("task_queue")


@pytest.mark.parametrize("number", range(RUNS))
def test_12_workers_claim_each_of_60_tasks_once_complete_it_once_and_lose_no_finding(
    server: Served,  # noqa: F811
    queue: ModuleType,
    number: int,
) -> None:
    """Each worker with its own token. One run here, the promised twenty with `TALLYSTONE_LONG=1`."""
    with ExitStack() as undo:
        blocks, agents, keys = queue.build(server.letta(), undo, queue.plan(WORKERS), TASKS, None)
        names = [name for name in agents if name != "supervisor"]
        with ThreadPoolExecutor(WORKERS) as team:
            done = [team.submit(queue.work, keys[name], agents[name]) for name in names]
        claims = {name: one.result()[0] for name, one in zip(names, done, strict=True)}
        _all_there(server, blocks, claims)


def _all_there(served: Served, blocks: Any, claims: dict[str, list[str]]) -> None:
    every = [f"TASK-{number:03}" for number in range(1, TASKS + 1)]
    assert sorted(task for claimed in claims.values() for task in claimed) == every
    by = {task: name for name, claimed in claims.items() for task in claimed}
    value = {
        label: served.letta().blocks.retrieve(block.id).value.split("\n") for label, block in blocks.items()
    }
    assert value["task_queue"] == ["task_queue:", *(f"{task} | done: {by[task]}" for task in every)]
    findings = [f"{task} by {by[task]}: all is well" for task in every]
    assert value["completed_work"][0] == "completed_work:" and sorted(value["completed_work"][1:]) == findings
    for name, claimed in claims.items():
        assert value[f"{name}_log"] == [f"{name}_log:", *(f"did {task}" for task in claimed)]


def test_of_workers_that_want_one_task_one_gets_it_and_the_others_read_who(
    server: Served,  # noqa: F811
    queue: ModuleType,
) -> None:
    with ExitStack() as undo:
        _, agents, keys = queue.build(server.letta(), undo, queue.plan(8), 1, None)
        names = [name for name in agents if name != "supervisor"]

        def claim(name: str) -> Any:
            return queue.move(keys[name], agents[name], "TASK-001", "pending", f"in progress: {name}")

        with ThreadPoolExecutor(len(names)) as team:
            said = dict(zip(names, team.map(claim, names), strict=True))
    (winner,) = [name for name, one in said.items() if one.status == "success"]
    for name in set(names) - {winner}:
        assert f"It now reads: 'task_queue:\\nTASK-001 | in progress: {winner}'" in said[name].stderr[0]


# -- the pages --------------------------------------------------------------------------------------------------


def marked(script: str) -> dict[str, str]:
    """The parts of a script between `# [name]` and `# [/name]`."""
    text = (EXAMPLES / script).read_text(encoding="utf-8")
    found = re.findall(r"^(?:#|//) \[(\w+)\]\n(.*?)^ *(?:#|//) \[/\1\]$", text, re.MULTILINE | re.DOTALL)
    return {name: part.strip("\n") for name, part in found}


def included() -> Iterator[tuple[Path, str, str, str]]:
    """Every code block of the pages, with the part of the script that the comment above it names."""
    form = r"<!-- (\S+) \[(\w+)\] -->\n```\w+\n(.*?)\n```$"
    for page in sorted(PAGES.glob("*.md")):
        for script, part, code in re.findall(
            form, page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
        ):
            yield page, script, part, code


def test_the_pages_print_the_examples_that_run() -> None:
    for page, script, part, code in included():
        if os.environ.get("TALLYSTONE_DRAW"):
            text = page.read_text(encoding="utf-8")
            page.write_text(text.replace(code, marked(script)[part]), encoding="utf-8")
            continue
        assert code == marked(script)[part], (
            f"{page.name} and {script} [{part}] differ: TALLYSTONE_DRAW=1 copies it"
        )


def test_no_code_of_the_pages_is_written_by_hand() -> None:
    for page in sorted(PAGES.glob("*.md")):
        text = page.read_text(encoding="utf-8")
        code = len(re.findall(r"^```(?:python|typescript)$", text, re.MULTILINE))
        assert code == sum(1 for one, *_ in included() if one == page), page.name


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_pattern_has_its_page_with_every_part_and_the_picture(script: str) -> None:
    name = script.replace("_", "-")
    page = PAGES / f"{name}.md"
    shown = {part for one, file, part, _ in included() if one == page and file == f"{script}.py"}
    assert shown == set(marked(f"{script}.py")) >= {"matrix", "build", "flow"}
    assert f"]({name}.svg)" in page.read_text(encoding="utf-8")
    assert f"]({name}.md)" in (PAGES / "README.md").read_text(encoding="utf-8")
    assert f"{script}.py" in (EXAMPLES / "README.md").read_text(encoding="utf-8")
