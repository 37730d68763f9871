"""A server whose models are scripted, and agents on it. Import `talking` (or `talk_server`) where it is needed,
with `noqa` as `server_fixtures` says."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from scripted_models import HANDLES, KEYS, ScriptedModels
from server_fixtures import Served
from stock import founded

from tallystone.server.run import running
from tallystone.server.settings import Settings


@dataclass
class Talking:
    """A server, its scripted models, and its first user's client."""

    served: Served
    models: ScriptedModels

    def agent(self, *, model: str = HANDLES["openai"], **fields: Any) -> Any:
        """A new agent of the first user's."""
        fields.setdefault("name", "talker")
        return self.served.letta().agents.create(model=model, **fields)

    def say(self, agent: Any, text: str = "hello", **options: Any) -> Any:
        """One whole turn."""
        return self.served.letta().agents.messages.create(agent.id, input=text, **options)

    def history(self, agent: Any) -> list[Any]:
        """All messages, oldest first."""
        return list(self.served.letta().agents.messages.list(agent.id, order="asc"))


def serving(folder: Path, models: ScriptedModels, **options: Any) -> Iterator[Talking]:
    """The server, until its test ends. `options` are further settings."""
    keys = folder.with_name("keys.toml")
    keys.write_text("".join(f'{name} = "{key}"\n' for name, key in KEYS.items()))
    settings = Settings(
        **{
            "port": 0,
            "refusals": 100_000,
            "log_level": "error",
            "providers": tuple(models.providers.items()),
            "model_keys": keys,
            "model_timeout": 20,
            "model_retries": 0,
            **options,
        }
    )
    workspace, (credentials, *_) = founded(folder, "root")
    with workspace, running(workspace, settings) as url:
        served = Served(workspace, url, credentials.token, credentials.principal)
        try:
            yield Talking(served, models)
        finally:
            for client in served.closing:
                client.close()


@pytest.fixture
def talking(tmp_path: Path) -> Iterator[Talking]:
    """A server of the test's own, with scripted models."""
    with ScriptedModels() as models:
        yield from serving(tmp_path / "data", models)


def types(messages: Any) -> list[str]:
    """The types of the client's messages."""
    return [message.message_type for message in messages]
