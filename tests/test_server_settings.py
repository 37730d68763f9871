"""Settings: a flag over the environment over the file; wrong ones are named."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tallystone.errors import Invalid
from tallystone.server.settings import Settings, load


def test_the_order_of_sources(tmp_path: Path) -> None:
    config = tmp_path / "t.toml"
    config.write_text('port = 1\nhost = "file"\nthreads = 3\ndata = "/d"\n')
    environment = {"TALLYSTONE_PORT": "2", "TALLYSTONE_HOST": "env", "TALLYSTONE_THREADS": ""}
    settings = load({"port": 3, "grace": None}, environment, config)
    assert (settings.port, settings.host, settings.threads, settings.data) == (3, "env", 3, Path("/d"))
    assert settings.grace == Settings.grace
    assert load({}, {"TALLYSTONE_CONFIG": str(config)}).port == 1
    assert load({}, {}) == Settings()


@pytest.mark.parametrize(
    ("flags", "environment", "named"),
    [
        ({"port": 70000}, {}, "--port"),
        ({"max_body": 1}, {}, "--max-body"),
        ({}, {"TALLYSTONE_PORT": "x"}, "TALLYSTONE_PORT"),
        ({}, {"TALLYSTONE_LOG_FORMAT": "xml"}, "TALLYSTONE_LOG_FORMAT"),
        ({}, {"TALLYSTONE_THREADS": "0"}, "TALLYSTONE_THREADS"),
        ({}, {"TALLYSTONE_CONFIG": "/nowhere/t.toml"}, "/nowhere/t.toml"),
    ],
)
def test_a_wrong_setting_is_named_with_its_source(
    flags: Any, environment: dict[str, str], named: str
) -> None:
    with pytest.raises(Invalid, match=re.escape(named)) as caught:
        load(flags, environment)
    assert caught.value.hint


@pytest.mark.parametrize(
    "text", ["port = true", 'port = "8000x"', "nonsense = 1", "port =", "port = 1.5", "host = 1"]
)
def test_a_wrong_file_is_named(tmp_path: Path, text: str) -> None:
    config = tmp_path / "t.toml"
    config.write_text(text)
    with pytest.raises(Invalid, match=r"t\.toml"):
        load({}, {}, config)
