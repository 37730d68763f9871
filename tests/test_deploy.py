"""The files under deploy/ name settings, options and paths that exist, and give the server no more than it needs."""

from __future__ import annotations

import dataclasses
import re
import shlex
from pathlib import Path

import pytest

from tallystone.cli.app import app
from tallystone.letta.routes import OPEN_PATHS
from tallystone.server.settings import PREFIX, Settings, load

ROOT = Path(__file__).resolve().parent.parent
DEPLOY = ROOT / "deploy"
VARIABLES = {PREFIX + field.name.upper() for field in dataclasses.fields(Settings)}


def read(name: str) -> str:
    return (DEPLOY / name).read_text(encoding="utf-8")


def environment(text: str) -> dict[str, str]:
    """The variables of ours that a file sets."""
    return dict(re.findall(r"(TALLYSTONE_[A-Z_]+)=(\S*)", text))


@pytest.mark.parametrize("name", ["tallystone.service", "Containerfile"])
def test_every_setting_that_a_file_names_exists_and_takes_its_value(name: str) -> None:
    found = environment(read(name))
    assert len(found) > 3
    assert set(found) <= VARIABLES
    settings = load({}, found)
    assert settings.data is not None and settings.data.is_absolute()


def unit() -> list[tuple[str, str, str]]:
    """(section, name, value) of each line of the unit."""
    rows, section = [], ""
    for line in read("tallystone.service").splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif line and not line.startswith("#"):
            key, _, value = line.partition("=")
            rows.append((section, key, value))
    return rows


def test_the_unit_starts_a_command_of_ours() -> None:
    (command,) = [value for _, name, value in unit() if name == "ExecStart"]
    program, verb, *options = shlex.split(command)
    assert program.endswith("/tallystone")
    known = {name for argument in app[verb].assemble_argument_collection() for name in argument.names}
    assert {word for word in options if word.startswith("--")} <= known


def test_the_unit_gives_the_server_no_rights_of_the_machine() -> None:
    given = {name: value for section, name, value in unit() if section == "Service"}
    assert given["DynamicUser"] == "yes" and given["NoNewPrivileges"] == "yes"
    assert given["ProtectSystem"] == "strict" and given["CapabilityBoundingSet"] == ""
    assert given["LimitCORE"] == "0" and given["UMask"] == "0077"
    assert given["StateDirectory"] in environment(read("tallystone.service"))["TALLYSTONE_DATA"]
    stop = int(given["TimeoutStopSec"])
    grace = int(environment(read("tallystone.service"))["TALLYSTONE_GRACE"])
    assert stop >= grace + 15  # after which the watching process ends the others itself


def test_the_image_runs_as_nobody_and_holds_no_data() -> None:
    lines = [
        line.split(maxsplit=1) for line in read("Containerfile").replace("\\\n", " ").splitlines() if line
    ]
    said = {line[0]: line[1] for line in lines if len(line) == 2}
    assert said["USER"] == "10001:10001"
    assert environment(read("Containerfile"))["TALLYSTONE_DATA"].startswith(said["VOLUME"])
    assert said["STOPSIGNAL"] == "SIGTERM"
    assert any(path in said["HEALTHCHECK"] for path in OPEN_PATHS)
    for word in said["CMD"].strip("[]").split(","):
        assert word.strip('" ') in list(app)
    copied = [line[1].split()[:-1] for line in lines if line[0] == "COPY" and "--from" not in line[1]]
    for name in (name for names in copied for name in names):
        assert (ROOT / name).exists()


def test_every_extra_that_a_file_names_exists() -> None:
    import tomllib

    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    known = set(extras["optional-dependencies"])
    for text in (read("Containerfile"), (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")):
        named = re.findall(r"\[([a-z,]+)\]'", text)
        assert named
        assert {extra for group in named for extra in group.split(",")} <= known
