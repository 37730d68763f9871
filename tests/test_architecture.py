"""The rooms of the code and the arrows between them (design §4)."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "tallystone"

LEAVES = {"errors", "_cbor", "bech32", "kept", "waiting"}
"""Modules without dependencies of ours; every room may use them."""
ALLOWED = {
    "crypto": set(),
    "statements": {"crypto"},
    "grant_tree": {"statements", "crypto"},
    "policy": {"grant_tree", "statements", "crypto"},
    "keystore": {"statements", "crypto"},
    "audit": {"store", "statements", "crypto"},
    "store": set(),
    "vault": {"grant_tree", "policy", "audit", "keystore", "store", "statements", "crypto"},
    "letta": {"vault"},
    "server": {"letta", "vault", "keystore"},
    "tooling": {
        "grant_tree",
        "server",
        "letta",
        "vault",
        "audit",
        "keystore",
        "store",
        "statements",
        "crypto",
    },
    "cli": {"tooling", "server", "letta", "vault", "audit"},
    "_embedded": {"vault"},
    "__init__": {"_embedded", "vault"},
}
"""Which other rooms each room may import. `audit` reads the store through its protocol and tables alone."""
LONGEST = 400


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def room(path: Path) -> str:
    inside = path.relative_to(PACKAGE)
    return inside.parts[0] if len(inside.parts) > 1 else inside.stem


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def imports(path: Path) -> list[tuple[str, int]]:
    """Every imported module of a file, in functions too, as a dotted name and its line."""
    return list(_imports(path))


def _imports(path: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            for name in node.names:
                yield name.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            assert node.module is not None
            yield node.module, node.lineno
            if node.module == "tallystone":
                for name in node.names:
                    yield f"tallystone.{name.name}", node.lineno


def upwards(path: Path) -> Iterator[str]:
    here = room(path)
    for name, line in imports(path):
        if not name.startswith("tallystone."):
            continue
        there = name.split(".")[1]
        if not (PACKAGE / there).is_dir() and not (PACKAGE / f"{there}.py").is_file():
            continue  # a name out of the package's own front: `from tallystone import open`
        if not (there == here or there in LEAVES or there in ALLOWED.get(here, set())):
            yield f"{path.relative_to(ROOT)}:{line}: {here} must not import {there}"


def test_imports_run_downwards_only() -> None:
    assert any(name.startswith("tallystone.") for path in modules() for name, _ in imports(path))
    assert [finding for path in modules() for finding in upwards(path)] == []


def test_every_room_has_its_arrows() -> None:
    rooms = {room(path) for path in modules()} - LEAVES
    assert rooms <= ALLOWED.keys(), "a new room: draw its arrows"


def test_only_crypto_imports_cryptography() -> None:
    importers = {
        path.relative_to(PACKAGE).as_posix()
        for path in modules()
        for name, _ in imports(path)
        if name.partition(".")[0] == "cryptography"
    }
    assert importers == {"crypto.py"}


def test_the_audit_log_knows_the_store_by_its_protocol_alone() -> None:
    known = {
        name
        for path in modules()
        if room(path) == "audit"
        for name, _ in imports(path)
        if name.startswith("tallystone.store")
    }
    assert known <= {"tallystone.store.protocol", "tallystone.store.tables"}


def test_the_embedded_library_pulls_in_no_server_and_no_command_line() -> None:
    script = (
        "import sys, tallystone\n"
        "heavy = {'starlette', 'uvicorn', 'cyclopts', 'rich', 'structlog', 'msgspec', 'httpx', 'letta_client'}\n"
        "heavy |= {'psycopg', 'psycopg_pool', 'psycopg_binary'}\n"
        f"heavy |= {MODEL_LIBRARIES!r}\n"
        "print(sorted(heavy & {name.partition('.')[0] for name in sys.modules}))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


MODEL_LIBRARIES = {
    "pydantic_ai", "pydantic", "openai", "anthropic", "google", "mcp", "mcp_types", "fastmcp", "httpx2",
    "jsonschema",
}  # fmt: skip
"""What the extra `agents` brings: 150 MB and seconds that only a turn of an agent may cost."""


def test_a_server_loads_no_model_library_until_an_agent_talks() -> None:
    script = (
        "import sys, tallystone.server.run, tallystone.cli.app\n"
        "from tallystone.letta.model_layer import ModelLayer\n"
        "from tallystone.letta.providers import ModelConfig\n"
        "ModelLayer(ModelConfig(keys={'openai': 'k'})).check('openai/gpt-4o')\n"
        "from tallystone.letta.mcp_layer import ToolCaller\n"
        "from tallystone.letta.hosts import Hosts\n"
        "ToolCaller(Hosts(['tools']), 1).check('http://tools/mcp')\n"
        f"print(sorted({MODEL_LIBRARIES!r} & {{name.partition('.')[0] for name in sys.modules}}))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


NOT_FOR_BLOCKS = {
    "prometheus_client",
    "opentelemetry",
    "granian",
    "psycopg",
    "httpx",
    "h11",
    "starlette.responses",
}
"""What a server that answers requests for blocks has no use for."""


def test_a_server_that_starts_loads_nothing_that_requests_for_blocks_do_not_need(tmp_path: Path) -> None:
    script = (
        "import socket, sys\n"
        "from tallystone.cli import main\n"
        "from tallystone.server import run\n"
        "from tallystone.vault import Workspace\n"
        f"workspace, owner = Workspace.init({str(tmp_path / 'data')!r})\n"
        "sys.argv = ['tallystone', 'serve', '--help']\n"
        "assert main() == 0\n"
        "with workspace, run.running(workspace) as url:\n"
        "    host, port = url.removeprefix('http://').split(':')\n"
        "    with socket.create_connection((host, int(port))) as raw:\n"
        "        raw.sendall(f'GET /v1/blocks/ HTTP/1.1\\r\\nHost: t\\r\\n'\n"
        "            f'Authorization: Bearer {owner.token}\\r\\n\\r\\n'.encode())\n"
        "        assert raw.recv(100).startswith(b'HTTP/1.1 200')\n"
        "loaded = set(sys.modules) | {name.partition('.')[0] for name in sys.modules}\n"
        "own = [name for name in loaded if name.startswith(('tallystone.cli.', 'tallystone.tooling'))]\n"
        f"print(sorted({NOT_FOR_BLOCKS | MODEL_LIBRARIES!r} & loaded), len(own), 'tallystone.cli.app' in loaded)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded, commands, everything = done.stdout.splitlines()[-1].rsplit(maxsplit=2)
    assert (loaded, everything) == ("[]", "False")
    assert int(commands) < 15, "the command line's other commands are loaded to serve"


def test_only_the_mcp_modules_know_the_mcp_library() -> None:
    importers = {
        path.name
        for path in modules()
        for name, _ in imports(path)
        if name.partition(".")[0] in {"mcp", "mcp_types", "fastmcp"}
    }
    assert importers == {"mcp_wire.py", "mcp_layer.py"}


def test_only_the_store_on_postgresql_knows_its_driver() -> None:
    importers = {
        path.relative_to(PACKAGE).as_posix()
        for path in modules()
        for name, _ in imports(path)
        if name.partition(".")[0] in {"psycopg", "psycopg_pool"}
    }
    assert importers
    assert all(name.startswith("store/postgresql") for name in importers)


def test_only_the_model_modules_know_the_model_library() -> None:
    importers = {
        path.name
        for path in modules()
        for name, _ in imports(path)
        if name.partition(".")[0] in {"pydantic_ai", "openai", "anthropic", "google"}
    }
    assert importers == {"model_wire.py", "model_native.py", "model_faults.py"}


def test_no_module_is_longer_than_one_idea() -> None:
    too_long = {
        path.relative_to(ROOT).as_posix(): lines
        for path in modules()
        if (lines := path.read_text(encoding="utf-8").count("\n")) > LONGEST
    }
    assert too_long == {}


def test_every_public_name_has_a_docstring() -> None:
    bare = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
        for path in modules()
        for node in _public(tree(path).body)
        if ast.get_docstring(node) is None
        and not any(ast.unparse(decorator).endswith(".setter") for decorator in node.decorator_list)
    ]
    assert bare == []


def _public(body: list[ast.stmt]) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]:
    for node in body:
        if isinstance(
            node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
        ) and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef):
                yield from _public(node.body)


VAGUE = re.compile(r"(^|_)(manager|helpers?|utils?|misc|common)(_|$)")


def test_no_module_has_a_name_that_says_nothing() -> None:
    assert [path.name for path in modules() if VAGUE.search(path.stem)] == []


def test_no_file_names_the_machine_it_was_written_on() -> None:
    home = re.compile(r"/(?:root|home/\w+|Users/\w+)/\.?\w|file:///")
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode != 0:
        pytest.skip("not a git checkout: nothing says which files are ours")
    found = []
    for name in listed.stdout.splitlines():
        path = ROOT / name
        if path == Path(__file__).resolve() or not path.is_file():
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found += [f"{name}:{number}" for number, line in enumerate(text.splitlines(), 1) if home.search(line)]
    assert found == []


def test_the_lock_file_names_the_public_index_alone() -> None:
    lock = (ROOT / "uv.lock").read_text(encoding="utf-8")
    sources = set(re.findall(r"^source = (.*)$", lock, re.MULTILINE))
    assert sources == {'{ registry = "https://pypi.org/simple" }', '{ editable = "." }'}
    hosts = set(re.findall(r'url = "(https?://[^/]+)/', lock))
    assert hosts == {"https://files.pythonhosted.org"}
