"""`tallystone model key`: keys of model providers that a user seals for itself. None is ever shown again."""

from __future__ import annotations

import sys
from getpass import getpass
from typing import Annotated

from cyclopts import Parameter

from tallystone.cli.group import command, group
from tallystone.cli.place import Place, Usage
from tallystone.cli.terminal import emit, moment, say, table
from tallystone.letta.providers import own_origin, provider_named
from tallystone.vault.types import ModelKeyInfo

app = group("model", "Your own keys for model providers.")
key = group("key", "Seal, list and remove your own keys for model providers.")
app.command(key)

Provider = Annotated[str, Parameter(metavar="PROVIDER")]


@command(
    key,
    "set",
    "tallystone model key set openai < openai.key",
    "tallystone model key set vllm --origin http://gpu:8000",
)
def set_key(
    provider: Provider,
    /,
    *,
    origin: Annotated[str | None, Parameter(metavar="URL")] = None,
    place: Place = Place(),
) -> int:
    """Seal your key for a provider, in place of the one before. It is read from standard input, or asked for.

    Turns of your agents under your own token use it before the server's. An agent's own token cannot open it.

    Parameters
    ----------
    provider
        As in a model's handle: openai, anthropic, google, openrouter, or a name in the server's providers.
    origin
        The only place that the key may be sent to. Default: the provider's public address.
    """
    name = provider_named(provider)
    where = own_origin(name, origin)
    with place.vault() as vault:
        made = vault.set_model_key(name, _read(name), where)
    if place.as_json:
        emit(_json(made))
    else:
        say(f"sealed your key for {made.provider}; it goes to {made.origin} and nowhere else")
    return 0


def _read(provider: str) -> str:
    """The key: never from the command line, which other users of the machine can read."""
    asked = sys.stdin.isatty()
    text = getpass(f"Key for {provider} (not shown): ") if asked else sys.stdin.readline(8192)
    if not text.strip():
        raise Usage(
            "no key", hint="give it on standard input, e.g. tallystone model key set openai < openai.key"
        )
    return text.strip()


@command(key, "list", "tallystone model key list", "tallystone model key list --json")
def list_keys(*, place: Place = Place()) -> int:
    """List for which providers you have sealed a key, and where each may be sent."""
    with place.vault() as vault:
        found = vault.model_keys()
    if place.as_json:
        emit([_json(known) for known in found])
    else:
        rows = ([known.provider, known.origin, moment(known.created)] for known in found)
        table(("PROVIDER", "ORIGIN", "CREATED"), rows, empty="no keys of your own")
    return 0


@command(key, "remove", "tallystone model key remove openai")
def remove(provider: Provider, /, *, place: Place = Place()) -> int:
    """Forget your key for a provider. Revoke it at the provider too if it may have been seen.

    Parameters
    ----------
    provider
        As `model key list` shows it.
    """
    name = provider_named(provider)
    with place.vault() as vault:
        vault.remove_model_key(name)
    if place.as_json:
        emit({"removed": name})
    else:
        say(f"removed your key for {name}")
    return 0


def _json(known: ModelKeyInfo) -> dict[str, str]:
    return {"provider": known.provider, "origin": known.origin, "created_at": moment(known.created)}
