"""Attacks on agents that talk: by models, by other callers, by those who hold the database, and by bad timing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from scripted_models import Asked, ScriptedModels
from scripted_models import Turn as Scripted
from test_turns import consistent, stop
from test_turns_waiting import asking
from turn_fixtures import Talking, serving, talking  # noqa: F401

from attack.raw_models import RawModels
from tallystone.errors import Unauthenticated
from tallystone.letta import routes_messages
from tallystone.letta.call import Call, Query
from tallystone.letta.later import UnderWay
from tallystone.letta.model_layer import ModelLayer
from tallystone.vault import Vault


@pytest.fixture
def raw(tmp_path: Path) -> Iterator[Talking]:
    """A server whose models answer with the bytes of a test's own."""
    with RawModels() as models:
        yield from serving(tmp_path / "data", cast(ScriptedModels, models))


def play(raw: Talking, *answers: bytes) -> RawModels:
    """The model's next answers."""
    models = cast(RawModels, raw.models)
    left = iter(answers)
    models.script = lambda _: [next(left)]
    models.asked.clear()
    return models


def request(talking: Talking, vault: Vault, agent: str, body: dict[str, Any]) -> Call:  # noqa: F811
    """A request as a route sees it."""
    layer = ModelLayer(talking.models.config())
    return Call(vault, {"agent_id": agent}, Query(""), {}, json.dumps(body).encode(), None, layer)


# -- a turn that nobody drives ----------------------------------------------------------------------------------


def test_a_token_that_is_revoked_while_its_run_begins_does_not_block_the_agent(talking: Talking) -> None:  # noqa: F811
    agent, owner = talking.agent(), talking.served.vault()
    token = owner.create_token()
    vault = talking.served.vault(token)
    later = routes_messages.create_async(request(talking, vault, agent.id, {"input": "hi"}))
    talking.models.play([Scripted("never said"), Scripted("here I am")])

    async def begin() -> None:
        under_way, works = UnderWay(), 0

        async def in_thread(work: Callable[[], Any]) -> Any:
            nonlocal works
            done = await asyncio.to_thread(work)
            works += 1
            if works == 1:  # the turn has begun
                owner.revoke_token(token[6:22])
            return done

        with pytest.raises(Unauthenticated):
            await later.finish(in_thread, under_way)
        await under_way.stop(5)

    asyncio.run(begin())
    assert [run["status"] for run in owner.runs(agent.id, lambda _: True)] == ["failed"]
    assert stop(talking.say(agent)) == "end_turn"


class _Fickle:
    """A vault whose token is revoked as soon as a turn has begun."""

    def __init__(self, vault: Vault, revoke: Callable[[], None]) -> None:
        self._vault, self._revoke = vault, revoke

    def __getattr__(self, name: str) -> Any:
        return getattr(self._vault, name)

    def begin_turn(self, *arguments: Any) -> Any:
        turn = self._vault.begin_turn(*arguments)
        self._revoke()
        return turn


def test_a_token_that_is_revoked_while_it_dismisses_a_request_does_not_block_the_agent(
    talking: Talking,  # noqa: F811
) -> None:
    agent, _ = asking(talking)
    owner = talking.served.vault()
    token = owner.create_token()
    vault = _Fickle(talking.served.vault(token), lambda: owner.revoke_token(token[6:22]))
    with pytest.raises(Unauthenticated):
        routes_messages.cancel(request(talking, cast(Vault, vault), agent.id, {}))
    talking.models.play([Scripted("here I am")])
    assert stop(talking.say(agent)) == "end_turn"
    assert consistent(talking.history(agent))


# -- what was taken away while a model was thinking -------------------------------------------------------------


def test_a_block_that_is_lost_while_older_messages_are_summed_up_is_in_no_prompt(talking: Talking) -> None:  # noqa: F811
    owner = talking.served.vault()
    secret = owner.create_block(label="secret", value="the launch code")
    agent = talking.agent(block_ids=[secret.id], context_window_limit=3000)
    summed_up: list[int] = []

    def script(asked: Asked) -> Scripted:
        if "Sum up" in asked.system:
            owner.detach(agent.id, secret.id)
            summed_up.append(len(talking.models.asked))
            return Scripted("They talked.")
        return Scripted("word " * 200)

    talking.models.play(script)
    for number in range(12):
        if not summed_up:
            assert stop(talking.say(agent, f"{number} " + "talk " * 200)) == "end_turn"
    before, after = talking.models.asked[: summed_up[0]], talking.models.asked[summed_up[0] :]
    assert "the launch code" in before[0].system
    assert after
    assert not [asked for asked in after if "launch code" in json.dumps(asked.body)]


def test_a_revoked_token_hears_no_more_of_the_answer_under_way(talking: Talking) -> None:  # noqa: F811
    agent, owner = talking.agent(), talking.served.vault()
    token = owner.create_token()
    talking.models.play([Scripted(["on and on "], fault="endless", pace=0.05), Scripted("fine")])
    client = talking.served.letta(token)
    heard = 0
    with (
        pytest.raises(httpx.RemoteProtocolError),
        client.agents.messages.create(agent.id, input="hi", streaming=True, stream_tokens=True) as stream,
    ):
        for _ in stream:
            heard += 1
            if heard == 3:
                owner.revoke_token(token[6:22])
    # twice a second somebody looks
    assert heard < 3 + 60
    assert stop(talking.say(agent)) == "end_turn"
