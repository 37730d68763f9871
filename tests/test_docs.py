"""Commands, options, settings, routes and error codes fail here until they are documented."""

from __future__ import annotations

import ast
import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cyclopts import App

from tallystone.cli.app import app
from tallystone.letta.routes import OPEN_PATHS, OPEN_POSTS, ROUTES, Route
from tallystone.server.run import running
from tallystone.server.settings import Settings
from tallystone.tooling import compat
from tallystone.vault import Workspace

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = [
    *(ROOT / name for name in ("README.md", "SECURITY.md", "CHANGELOG.md", "examples/README.md")),
    *sorted(DOCS.rglob("*.md")),
]


def page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


def leaves(parent: App = app, path: tuple[str, ...] = ()) -> Iterator[tuple[str, App]]:
    for name in parent:
        if name.startswith("-"):
            continue
        child = parent[name]
        if child.default_command is None:
            yield from leaves(child, (*path, name))
        else:
            yield " ".join((*path, name)), child


COMMANDS = dict(leaves())


def section(text: str, heading: str) -> str:
    """The lines below the heading that begins so, up to the next of any level."""
    parts = re.split(r"^#+ ", text, flags=re.MULTILINE)
    found = [part for part in parts if re.match(re.escape(heading) + r"\b(?! (?:list|show)\b)", part)]
    assert found, f"no section: {heading}"
    return found[0]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_of_every_command_is_documented(name: str) -> None:
    text = section(page("cli.md"), f"tallystone {name}")
    for argument in COMMANDS[name].assemble_argument_collection():
        if argument.children or argument.names[0] in SHARED:
            continue
        wanted = argument.names if argument.names[0].startswith("-") else (argument.parameter.metavar,)
        for word in wanted:
            assert f"`{word}" in text or f" {word}" in text.splitlines()[0], f"tallystone {name}: {word}"


SHARED = ("--data", "--url", "--token-file", "--json")
"""Options of nearly every command, documented once."""


@pytest.mark.parametrize("option", SHARED)
def test_the_shared_options_are_documented(option: str) -> None:
    assert f"`{option}" in section(page("cli.md"), "Where, and as whom")


def test_no_documented_command_is_missing() -> None:
    documented = re.findall(r"^### tallystone ([a-z -]+[a-z])", page("cli.md"), flags=re.MULTILINE)
    assert sorted(documented) == sorted(COMMANDS)


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Settings)])
def test_every_setting_is_documented(field: str) -> None:
    text = page("settings.md")
    assert f"`{field}`" in text
    assert f"`--{field.replace('_', '-')}`" in text
    assert f"`TALLYSTONE_{field.upper()}`" in text


def test_every_setting_is_an_option_of_serve() -> None:
    options = {
        name for argument in COMMANDS["serve"].assemble_argument_collection() for name in argument.names
    }
    assert {f"--{field.name.replace('_', '-')}" for field in dataclasses.fields(Settings)} <= options


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_every_route_is_documented(route: Route) -> None:
    text = page("compat.md")
    assert route.path in text
    if route.client:
        assert route.client in text


def test_the_page_of_served_methods_is_up_to_date() -> None:
    assert page("compat.md") == compat.page(), "run: python -m tallystone.tooling.compat > docs/compat.md"


@pytest.mark.parametrize("path", [*OPEN_PATHS, *OPEN_POSTS])
def test_every_path_without_a_token_is_documented(path: str) -> None:
    assert path in page("compat.md")
    assert path in page("http.md")


def error_codes() -> Iterator[str]:
    """Every code that an error of ours can carry: of a class, or given where it is raised or answered."""
    yield "internal"
    for path in sorted((ROOT / "tallystone").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            yield from filter(None, (_text(value) for value in _code_expressions(node)))


def _code_expressions(node: ast.AST) -> Iterator[ast.expr]:
    if isinstance(node, ast.ClassDef):
        for line in node.body:
            if isinstance(line, ast.Assign) and ast.unparse(line.targets[0]) == "code":
                yield line.value
    elif isinstance(node, ast.Call):
        yield from (given.value for given in node.keywords if given.arg == "code")
        if ast.unparse(node.func).endswith("Refusal") and len(node.args) > 1:
            yield node.args[1]


def _text(value: ast.expr) -> str:
    return value.value if isinstance(value, ast.Constant) and isinstance(value.value, str) else ""


def documented_error_codes() -> list[str]:
    return re.findall(r"^\| `([a-z0-9_]+)` \|", page("errors.md"), flags=re.MULTILINE)


def test_every_error_code_is_documented_and_no_documented_one_is_gone() -> None:
    documented = documented_error_codes()
    assert len(documented) == len(set(documented))
    codes = set(error_codes())
    assert codes - set(documented) == set()
    assert set(documented) - codes == set()


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_link_leads_somewhere(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("http://", "https://", "#")):
            continue
        assert (path.parent / target.partition("#")[0]).exists(), f"{path.name}: {target}"


def test_every_page_that_a_hint_names_is_there() -> None:
    for path in sorted((ROOT / "tallystone").rglob("*.py")):
        for name in re.findall(r"docs/[a-z-]+\.md", path.read_text(encoding="utf-8")):
            assert (ROOT / name).is_file(), f"{path.name}: {name}"


def snippets(path: Path) -> list[str]:
    return re.findall(
        r"^```python\n(.*?)^```", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL
    )


def test_the_embedded_snippet_of_the_readme_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (snippet,) = [text for text in snippets(ROOT / "README.md") if "tallystone.open" in text]
    workspace, you = Workspace.init(tmp_path / "data")
    workspace.vault(you.token).add_user("ada")
    workspace.close()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TALLYSTONE_TOKEN", you.token)
    exec(compile(snippet, "README.md", "exec"), {})
    assert "team_knowledge" in capsys.readouterr().out


def test_the_drop_in_snippet_of_the_readme_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (snippet,) = [text for text in snippets(ROOT / "README.md") if "from letta_client" in text]
    workspace, you = Workspace.init(tmp_path / "data")
    (tmp_path / "me.token").write_text(you.token + "\n")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    with workspace, running(workspace) as url:
        assert "http://127.0.0.1:8283" in snippet
        exec(compile(snippet.replace("http://127.0.0.1:8283", url), "README.md", "exec"), names)
        names["client"].close()
    assert "Standup is at nine.\nThe build is green." in capsys.readouterr().out


def test_the_readme_names_what_comes_later() -> None:
    later = section((ROOT / "README.md").read_text(encoding="utf-8"), "What is not there yet").lower()
    for word in ("end-to-end", "mcp", "console", "import", "postgresql", "roles", "history"):
        assert word in later
