"""The settings of the models: how they are written, and what the model layer is told of them."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from tallystone.errors import Invalid
from tallystone.letta.hosts import Hosts, origin
from tallystone.letta.providers import PUBLIC, ModelConfig, is_handle, is_provider, key_variables
from tallystone.server.witnessing import read_witnesses

if TYPE_CHECKING:
    from tallystone.server.settings import Settings

NOTHING = "none"
"""How an empty list is written where an empty text means: not set."""


def model_config(settings: Settings, environment: Mapping[str, str]) -> ModelConfig:
    """What the model layer runs with. Keys come from the file of keys, then from the environment.

    Raises `Invalid` for a file of keys that cannot be read; the message names no key.
    """
    providers = dict(settings.providers)
    named = {handle.partition("/")[0] for handle in settings.models}
    keys = {
        name: environment[variable]
        for name in sorted({*PUBLIC, *providers, *named})
        for variable in reversed(key_variables(name))
        if environment.get(variable)
    }
    if settings.model_keys is not None:
        keys |= _keys(settings.model_keys)
    return ModelConfig(
        providers=providers,
        keys=keys,
        allowed_hosts=settings.allowed_hosts,
        models=settings.models,
        seconds=settings.model_timeout,
        retries=settings.model_retries,
        max_tokens=settings.model_tokens,
    )


def _keys(path: Path) -> dict[str, str]:
    try:
        with path.open("rb") as opened:
            table = tomllib.load(opened)
    except OSError as error:
        raise Invalid(f"cannot read {path}: {error.strerror}", hint="check the setting model_keys") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError):
        # the parser's own words may quote a line
        table = {"": None}
    if not all(is_provider(name) and isinstance(key, str) and key for name, key in table.items()):
        raise Invalid(f"{path} is no file of keys", hint='a line reads, for example: openai = "sk-…"')
    return table


def _texts(value: object) -> list[str]:
    """A list as it stands in a TOML file, or separated by commas."""
    if isinstance(value, str):
        return [] if value.strip() == NOTHING else [part.strip() for part in value.split(",") if part.strip()]
    if isinstance(value, list | tuple) and all(isinstance(part, str) for part in value):
        return list(value)
    raise Invalid("should be a list of texts", hint="separate them by commas, or write a list in the file")


def _models(value: object) -> tuple[str, ...]:
    handles = _texts(value)
    if not all(is_handle(handle) and is_provider(handle.partition("/")[0]) for handle in handles):
        raise Invalid("should name models as provider/model", hint="e.g. openai/gpt-4o-mini,ollama/qwen3")
    return tuple(dict.fromkeys(handles))


def _allowed_hosts(value: object) -> tuple[str, ...]:
    entries = tuple(_texts(value))
    Hosts(entries)
    return entries


def _pairs(value: object) -> list[tuple[str, object]]:
    """A table as it stands in a TOML file, or name=value separated by commas."""
    if isinstance(value, Mapping):
        return list(value.items())
    return [(name.strip(), rest.strip()) for name, _, rest in (text.partition("=") for text in _texts(value))]


def _witnesses(value: object) -> tuple[tuple[str, str], ...]:
    return read_witnesses(dict(_pairs(value)))


def _providers(value: object) -> tuple[tuple[str, str], ...]:
    made: dict[str, str] = {}
    for name, url in _pairs(value):
        if not is_provider(name) or not isinstance(url, str):
            raise Invalid(
                "should be name=URL for each provider", hint="e.g. ollama=http://127.0.0.1:11434/v1"
            )
        origin(url)
        made[name] = url
    return tuple(made.items())


LISTS: Mapping[str, Callable[[object], object]] = {
    "providers": _providers,
    "models": _models,
    "allowed_hosts": _allowed_hosts,
    "witnesses": _witnesses,
}
"""How the settings that are lists are read. Each raises `Invalid` and quotes nothing."""
