"""The published client for JavaScript, unmodified, beside the one for Python: both see the same messages."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from node_packages import installed, node
from scripted_models import HANDLES, Asked, Call, Turn
from stores import sampled
from turn_fixtures import Talking, talking, types  # noqa: F401

from tallystone.letta.prompt import parse_prompt

SOURCE = Path(__file__).parent / "letta_npm"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return installed(SOURCE, "talk.mjs", tmp_path_factory.mktemp("npm"))


@sampled(3, "the providers differ in how they are asked")
@pytest.mark.parametrize("provider", ["openai", "anthropic", "google"])
def test_both_clients_see_the_same_messages(talking: Talking, folder: Path, provider: str) -> None:  # noqa: F811
    rename = Call("memory_replace", {"label": "human", "old_string": "unknown", "new_string": "Ada"})

    def script(asked: Asked) -> Turn:
        if parse_prompt(asked.system).blocks[0].value == "Name: unknown":
            return Turn("", calls=[rename])
        return Turn(["Hello ", "Ada", "."])

    talking.models.play(script)
    told = {"url": talking.served.url, "token": talking.served.token, "model": HANDLES[provider]}
    done = node("talk.mjs", cwd=folder, stdin=json.dumps(told), seconds=60)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    kinds = [message["message_type"] for message in seen["created"]["messages"]]
    assert kinds == ["tool_call_message", "tool_return_message", "assistant_message"]
    assert seen["created"]["stop_reason"]["stop_reason"] == "end_turn"
    assert seen["block"]["value"] == "Name: Ada"
    for events in (seen["streamed"], seen["deprecated"]):
        words = [event["content"] for event in events if event["message_type"] == "assistant_message"]
        assert "".join(words) == "Hello Ada."
        assert [event["message_type"] for event in events[-2:]] == ["stop_reason", "usage_statistics"]
    assert seen["refused"] == {"status": 400, "code": "no_model"}
    client = talking.served.letta()
    mine = list(client.agents.messages.list(seen["agent"], order="asc"))
    assert [one.id for one in mine] == [one["id"] for one in seen["listed"]]
    assert types(mine) == [one["message_type"] for one in seen["listed"]]
    said = [(one.id, one.content) for one in mine if hasattr(one, "content")]
    assert said == [(one["id"], one["content"]) for one in seen["listed"] if "content" in one]
    assert [run.id for run in client.runs.list(agent_id=seen["agent"])] == [run["id"] for run in seen["runs"]]
