"""The model layer against scripted servers: the providers' own code, real HTTP, every way to fail."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
import traceback
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import letta_client
import pytest
from scripted_models import HANDLES, KEYS, Asked, Call, ScriptedModels, Turn
from stores import thinned

from tallystone.errors import Invalid, Rejected
from tallystone.letta import outbound
from tallystone.letta.hosts import Hosts
from tallystone.letta.model import (
    NO_LIMITS,
    Delta,
    Limits,
    ModelFailed,
    Reply,
    Said,
    ToolCall,
    ToolSpec,
    Usage,
)
from tallystone.letta.model_layer import ModelLayer
from tallystone.letta.providers import ModelConfig, model_json
from tallystone.server.app import App
from tallystone.server.models import model_config
from tallystone.server.run import running
from tallystone.server.settings import Settings, load
from tallystone.vault import Workspace

pytestmark = thinned(
    3,
    "they differ in what a model says, and how it is asked: the rows are those that test_turns_waiting has",
)

SECRET = "the launch code is 8861-swordfish"
SYSTEM = Said("system", "You keep notes.")
HELLO = (SYSTEM, Said("user", SECRET))
INSERT = ToolSpec(
    "memory_insert",
    "Insert text.",
    {
        "type": "object",
        "properties": {"label": {"type": "string"}, "new_str": {"type": "string"}},
        "required": ["label", "new_str"],
    },
)
SEARCH = ToolSpec("conversation_search", "Search.", {"type": "object", "properties": {}})
ALL = sorted(HANDLES.values())

handles = pytest.mark.parametrize("handle", ALL)
ways = pytest.mark.parametrize("way", ["whole", "streamed"])


@pytest.fixture(scope="module")
def served() -> Iterator[ScriptedModels]:
    """One server for all tests of this module; each plays its own script."""
    with ScriptedModels() as models:
        yield models


Slept = list[float]


def run(
    served: ScriptedModels,
    work: Callable[[ModelLayer], Awaitable[Any]],
    script: Any,
    *,
    slept: Slept | None = None,
    **options: Any,
) -> Any:
    """Play a script to a layer that waits for nothing."""
    served.play(script)

    async def sleep(seconds: float) -> None:
        if slept is not None:
            slept.append(seconds)

    async def main() -> Any:
        async with ModelLayer(served.config(**options), sleep=sleep, jitter=lambda: 1.0) as layer:
            return await work(layer)

    return asyncio.run(main())


def ask(
    served: ScriptedModels,
    handle: str,
    way: str,
    script: Any,
    said: Sequence[Said] = HELLO,
    tools: Sequence[ToolSpec] = (),
    *,
    limits: Limits = NO_LIMITS,
    slept: Slept | None = None,
    **options: Any,
) -> tuple[list[Delta], Reply]:
    """One call: the pieces that were streamed, and the reply."""

    async def work(layer: ModelLayer) -> tuple[list[Delta], Reply]:
        if way == "whole":
            return [], await layer.reply(handle, said, tools, limits=limits)
        items = [item async for item in layer.stream(handle, said, tools, limits=limits)]
        pieces, last = [item for item in items if isinstance(item, Delta)], items[-1]
        assert isinstance(last, Reply) and pieces == items[:-1]
        return pieces, last

    return run(served, work, script, slept=slept, **options)


def failure(served: ScriptedModels, handle: str, way: str, script: Any, **options: Any) -> ModelFailed:
    """The failure of one call, after checking that it gives nothing away."""
    with pytest.raises(ModelFailed) as caught:
        ask(served, handle, way, script, **options)
    told = "".join(traceback.format_exception(caught.value)) + repr(caught.value) + caught.value.hint
    for secret in (SECRET, *KEYS.values(), "You keep notes"):
        assert secret not in told
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    return caught.value


@handles
@ways
def test_text_comes_whole_or_in_pieces_with_its_usage(served: ScriptedModels, handle: str, way: str) -> None:
    pieces, reply = ask(
        served, handle, way, [Turn(["Grü", "ße", "!"], usage=(120, 9), cached=100, reasoning=4)]
    )
    assert (reply.text, reply.finish, reply.tool_calls) == ("Grüße!", "stop", ())
    reasoning = 0 if handle.startswith("anthropic") else 4  # which counts thinking as output and says no more
    assert reply.usage == Usage(120, 9, 100, reasoning)
    assert [piece.text for piece in pieces] == (["Grü", "ße", "!"] if way == "streamed" else [])
    (asked,) = served.asked
    assert asked.system == "You keep notes."
    assert [(heard.role, heard.text) for heard in asked.messages] == [("user", SECRET)]
    assert (asked.model, asked.stream, asked.max_tokens) == ("scripted-1", way == "streamed", 4096)


@handles
@ways
def test_thinking_is_kept_apart_from_text(served: ScriptedModels, handle: str, way: str) -> None:
    pieces, reply = ask(served, handle, way, [Turn("Yes.", thinking="Let me see.")])
    assert (reply.text, reply.thinking) == ("Yes.", "Let me see.")
    if way == "streamed":
        assert "".join(piece.thinking for piece in pieces) == "Let me see."
        assert "".join(piece.text for piece in pieces) == "Yes."


@handles
@ways
def test_parallel_tool_calls_and_their_results_make_the_round(
    served: ScriptedModels, handle: str, way: str
) -> None:
    calls = [
        Call("memory_insert", {"label": "human", "new_str": 'a "quoted"\nline'}, "one"),
        Call("conversation_search", {}, "two"),
    ]
    script = [Turn("Looking.", calls=calls), Turn("Found.")]

    async def work(layer: ModelLayer) -> tuple[Reply, Reply]:
        first = await _reply(layer, handle, way, HELLO, (INSERT, SEARCH))
        said = (
            *HELLO,
            Said("assistant", first.text, first.tool_calls, native=first.native),
            Said("tool", "Inserted.", tool_call_id=first.tool_calls[0].id),
            Said("tool", "nothing found", tool_call_id=first.tool_calls[1].id),
        )
        return first, await _reply(layer, handle, way, said, (INSERT, SEARCH))

    first, second = run(served, work, script)
    assert (first.text, first.finish) == ("Looking.", "tool")
    assert [(call.id, call.name) for call in first.tool_calls] == [
        ("one", "memory_insert"),
        ("two", "conversation_search"),
    ]
    assert _arguments(first.tool_calls[0]) == {"label": "human", "new_str": 'a "quoted"\nline'}
    assert _arguments(first.tool_calls[1]) == {}
    assert (second.text, second.finish) == ("Found.", "stop")
    told = served.asked[1]
    assert told.tools == ("memory_insert", "conversation_search")
    assert [heard.role for heard in told.messages] == ["user", "assistant", "tool", "tool"]
    assert told.messages[1].calls == (
        ("one", "memory_insert", {"label": "human", "new_str": 'a "quoted"\nline'}),
        ("two", "conversation_search", {}),
    )
    assert [heard.result for heard in told.messages[2:]] == [("one", "Inserted."), ("two", "nothing found")]


async def _reply(
    layer: ModelLayer, handle: str, way: str, said: Sequence[Said], tools: Sequence[ToolSpec]
) -> Reply:
    if way == "whole":
        return await layer.reply(handle, said, tools)
    return [item async for item in layer.stream(handle, said, tools) if isinstance(item, Reply)][-1]


def _arguments(call: ToolCall) -> Any:
    import json

    return json.loads(call.arguments)


@pytest.mark.parametrize("handle", [HANDLES["anthropic"], HANDLES["google"]])
@ways
def test_signed_thoughts_go_back_to_the_provider_that_signed_them(
    served: ScriptedModels, handle: str, way: str
) -> None:
    turn = Turn(
        "Well.",
        thinking="I need a tool.",
        signature="c2lnbmVk",
        calls=[Call("conversation_search", {}, "one")],
    )

    async def work(layer: ModelLayer) -> Reply:
        first = await _reply(layer, handle, way, HELLO, (SEARCH,))
        answer = Said("tool", "nothing", tool_call_id="one")
        again = Said("assistant", first.text, first.tool_calls, thinking=first.thinking, native=first.native)
        await layer.reply(handle, (*HELLO, again, answer), (SEARCH,))
        # with words that are not those which were signed, and to somebody else: without thoughts
        await layer.reply(handle, (*HELLO, replace(again, thinking="other"), answer), (SEARCH,))
        await layer.reply(HANDLES["openai"], (*HELLO, again, answer), (SEARCH,))
        return first

    first = run(served, work, [turn, Turn("Done."), Turn("Done."), Turn("Done.")])
    assert SECRET not in first.native
    assert "tool." not in first.native
    signed, changed, foreign = (str(asked.body) for asked in served.asked[1:])
    assert "c2lnbmVk" in signed
    assert "I need a tool." in signed
    for body in (changed, foreign):
        assert "c2lnbmVk" not in body
        assert "I need a tool." not in body
        assert "Well." in body


@pytest.mark.parametrize("handle", [HANDLES["openai"], HANDLES["vllm"]])
@ways
def test_arguments_that_are_no_json_are_handed_over_as_they_are(
    served: ScriptedModels, handle: str, way: str
) -> None:
    script = [Turn(calls=[Call("memory_insert", '{"label": "hum', "one")]), Turn("I see.")]
    _, reply = ask(served, handle, way, script, tools=(INSERT,))
    assert reply.tool_calls == (ToolCall("one", "memory_insert", '{"label": "hum'),)
    said = (*HELLO, Said("assistant", "", reply.tool_calls), Said("tool", "not JSON", tool_call_id="one"))
    for other in ALL:
        ask(served, other, "whole", [Turn("I see.")], said, (INSERT,))
        assert served.asked[0].messages[1].calls == (
            ("one", "memory_insert", {"not_json": '{"label": "hum'}),
        )


@handles
@ways
@pytest.mark.parametrize("finish", ["length", "refused"])
def test_why_it_ended_is_told(served: ScriptedModels, handle: str, way: str, finish: Any) -> None:
    _, reply = ask(served, handle, way, [Turn("I", finish=finish)])
    assert reply.finish == finish


@handles
def test_limits_lower_the_settings_and_never_raise_them(served: ScriptedModels, handle: str) -> None:
    for wanted, sent in ((50, 50), (10**6, 300), (None, 300)):
        ask(served, handle, "whole", [Turn("x")], limits=Limits(max_tokens=wanted), max_tokens=300)
        assert served.asked[0].max_tokens == sent


# failures


@handles
@ways
@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_failure_that_passes_is_repeated(
    served: ScriptedModels, handle: str, way: str, status: int
) -> None:
    slept: Slept = []
    script = [Turn(status=status), Turn(status=status, headers={"retry-after": "7"}), Turn("Here.")]
    _, reply = ask(served, handle, way, script, slept=slept)
    assert reply.text == "Here."
    assert slept == [0.5, 7.0]
    assert len(served.asked) == 3


@handles
@ways
def test_repetitions_end(served: ScriptedModels, handle: str, way: str) -> None:
    failed = failure(served, handle, way, lambda asked: Turn(status=503, error=SECRET))
    assert failed.kind == "unavailable"
    assert "503" in failed.message
    assert len(served.asked) == 3
    failure(served, handle, way, lambda asked: Turn(status=429), retries=0)
    assert len(served.asked) == 1


@handles
def test_who_asks_to_wait_too_long_is_not_waited_for(served: ScriptedModels, handle: str) -> None:
    slept: Slept = []
    failed = failure(
        served, handle, "whole", [Turn(status=429, headers={"retry-after": "3600"}), Turn("x")], slept=slept
    )
    assert (failed.kind, slept, len(served.asked)) == ("unavailable", [], 1)
    failure(served, handle, "whole", [Turn(status=429, headers={"retry-after": "9"}), Turn("x")], seconds=5)
    assert len(served.asked) == 1


@handles
@ways
@pytest.mark.parametrize(
    ("turn", "kind"),
    [
        (Turn(status=400, error=f"bad field in {SECRET}"), "refused"),
        (Turn(status=401, error=KEYS["openai"]), "refused"),
        (Turn(status=404, error="no such model"), "refused"),
        (Turn(status=400, error="prompt is too long: maximum context length is 8000 tokens"), "too_long"),
        (Turn(fault="broken"), "bad_answer"),
        (Turn(fault="redirect", elsewhere="https://example.invalid/v1"), "bad_answer"),
        (Turn(fault="packed"), "bad_answer"),
        (Turn("x", fault="huge"), "bad_answer"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.fault or value.error[:12],
)
def test_a_failure_that_stays_is_not_repeated(
    served: ScriptedModels, handle: str, way: str, turn: Turn, kind: str
) -> None:
    assert failure(served, handle, way, lambda asked: turn).kind == kind
    assert len(served.asked) == 1


@handles
@ways
def test_a_connection_that_breaks_before_the_answer_is_tried_again(
    served: ScriptedModels, handle: str, way: str
) -> None:
    script = [Turn(fault="drop"), Turn("Here.")] if way == "whole" else [Turn(status=502), Turn("Here.")]
    _, reply = ask(served, handle, way, script)
    assert reply.text == "Here."
    assert failure(served, handle, "whole", lambda asked: Turn(fault="drop")).kind == "unavailable"
    assert len(served.asked) == 3


@handles
@pytest.mark.parametrize("fault", ["drop", "cut"])
def test_a_stream_that_breaks_off_is_never_begun_again(
    served: ScriptedModels, handle: str, fault: Any
) -> None:
    heard: list[Any] = []

    async def work(layer: ModelLayer) -> None:
        async for item in layer.stream(handle, HELLO):
            heard.append(item)

    with pytest.raises(ModelFailed) as caught:
        run(served, work, lambda asked: Turn(["first", "second"], fault=fault))
    assert caught.value.kind in ("unavailable", "bad_answer")
    assert heard == [Delta("first")]
    assert len(served.asked) == 1


@handles
def test_an_endless_stream_ends_at_the_deadline(served: ScriptedModels, handle: str) -> None:
    began = time.monotonic()
    turn = Turn(["on", "off"], fault="endless", pace=0.01)
    failed = failure(served, handle, "streamed", [turn], limits=Limits(seconds=0.6))
    assert failed.kind == "timeout"
    assert time.monotonic() - began < 10


@handles
@ways
def test_no_answer_ends_at_the_deadline(served: ScriptedModels, handle: str, way: str) -> None:
    failed = failure(served, handle, way, [Turn("late", delay=2)], limits=Limits(seconds=0.3))
    assert failed.kind == "timeout"


def test_nobody_there_is_told_after_the_retries(served: ScriptedModels) -> None:
    gone = dict.fromkeys(HANDLES, "http://127.0.0.1:9/v1")
    for handle in ALL:
        slept: Slept = []
        failed = failure(served, handle, "whole", [], providers=gone, slept=slept)
        assert (failed.kind, slept) == ("unavailable", [0.5, 1.0])


@handles
def test_whoever_closes_the_stream_stops_the_model(served: ScriptedModels, handle: str) -> None:
    async def work(layer: ModelLayer) -> Any:
        stream = layer.stream(handle, HELLO)
        first = await anext(stream)
        await stream.aclose()
        return first

    assert run(served, work, [Turn(["on", "off"], fault="endless", pace=0.01)]) == Delta("on")


@handles
def test_a_cancelled_call_is_over(served: ScriptedModels, handle: str) -> None:
    asked, gate = threading.Event(), threading.Event()

    def script(_: Asked) -> Turn:
        asked.set()
        gate.wait(30)
        return Turn("late")

    async def work(layer: ModelLayer) -> None:
        task = asyncio.create_task(layer.reply(handle, HELLO))
        assert await asyncio.to_thread(asked.wait, 30)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not gate.is_set()

    try:
        run(served, work, script)
    finally:
        gate.set()


def test_a_script_may_answer_to_what_it_hears(served: ScriptedModels) -> None:
    def script(asked: Asked) -> Turn:
        return Turn(f"{len(asked.messages)} {asked.last.text.upper()}")

    assert ask(served, HANDLES["openai"], "whole", script, (Said("user", "hm"),))[1].text == "1 HM"


@handles
@ways
def test_nothing_is_logged(
    served: ScriptedModels,
    handle: str,
    way: str,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    with caplog.at_level(logging.DEBUG):
        ask(served, handle, way, [Turn(status=500, error=SECRET), Turn("fine")])
        failure(served, handle, way, lambda asked: Turn(status=500, error=KEYS["google"]))
    told = caplog.text + "".join(capfd.readouterr())
    for secret in (SECRET, *KEYS.values(), "You keep notes"):
        assert secret not in told


def test_settings_and_targets_show_no_key(served: ScriptedModels) -> None:
    config = served.config()
    shown = repr(config) + repr([config.target(handle) for handle in ALL]) + repr(ModelLayer(config))
    assert not any(key in shown for key in KEYS.values())


# which models, which hosts


@pytest.mark.parametrize(
    ("handle", "config", "hint"),
    [
        (None, ModelConfig(), "`models`"),
        ("openai/gpt-4o", ModelConfig(), "OPENAI_API_KEY"),
        ("google_ai/gemini-2.5-pro", ModelConfig(), "GEMINI_API_KEY"),
        ("letta/letta-free", ModelConfig(), "letta=http"),
        ("ollama/qwen3", ModelConfig(keys=KEYS), "`providers`"),
        ("gpt-4o", ModelConfig(keys=KEYS), "provider/model"),
        ("google/../../v1/files", ModelConfig(keys=KEYS), "provider/model"),
        ("openai/gpt-4o\n", ModelConfig(keys=KEYS), "provider/model"),
        ("openai/gpt-4o", ModelConfig(keys=KEYS, models=("openai/gpt-4o-mini",)), "`models`"),
        ("openai/gpt-4o", ModelConfig(keys=KEYS, allowed_hosts=()), "`allowed_hosts`"),
        ("openai/gpt-4o", ModelConfig(keys=KEYS, allowed_hosts=("api.anthropic.com",)), "`allowed_hosts`"),
        (
            "vllm/x",
            ModelConfig({"vllm": "http://127.0.0.1:8000/v1"}, allowed_hosts=("api.openai.com",)),
            "`allowed_hosts`",
        ),
        (
            "vllm/x",
            ModelConfig(
                {"vllm": "http://127.0.0.1:8000/v1"}, allowed_hosts=("localhost:8000", "127.0.0.1:80")
            ),
            "`allowed_hosts`",
        ),
    ],
)
def test_a_model_that_cannot_be_called_is_refused_with_the_setting(
    handle: str | None, config: ModelConfig, hint: str
) -> None:
    layer = ModelLayer(config)
    with pytest.raises(Rejected) as caught:
        layer.check(handle)
    assert (caught.value.status, caught.value.code) == (400, "no_model")
    assert hint in caught.value.hint
    with pytest.raises(Rejected):
        asyncio.run(layer.reply(handle, HELLO))


def test_a_model_that_can_be_called_has_its_place() -> None:
    config = ModelConfig({"ollama": "http://127.0.0.1:11434/v1/"}, KEYS, models=())
    assert config.target("google_ai/gemini-2.5-pro").provider == "google"
    assert config.target("openai/gpt-4o").url == "https://api.openai.com/v1"
    assert config.target("ollama/qwen3:8b").url == "http://127.0.0.1:11434/v1"
    assert config.target("openrouter/vendor/model:free", key="mine").key == "mine"
    assert config.target("anthropic/x", key="mine").key == "mine"
    assert ModelConfig(keys=KEYS, models=("openai/gpt-4o",)).target(None).model == "gpt-4o"


def test_a_callers_own_key_is_used(served: ScriptedModels) -> None:
    async def work(layer: ModelLayer) -> Reply:
        return await layer.reply(HANDLES["openai"], HELLO, key=KEYS["vllm"])

    run(served, work, [Turn("x")], keys={})
    assert served.asked[0].headers["authorization"] == f"Bearer {KEYS['vllm']}"


def test_allowed_hosts_are_exact() -> None:
    hosts = Hosts(["api.openai.com", "127.0.0.1:8000", "[::1]:9"])
    for url in (
        "https://api.openai.com/v1",
        "https://API.openai.com:443",
        "http://127.0.0.1:8000/x",
        "http://[::1]:9",
    ):
        assert hosts.allows(url), url
    for url in (
        "https://api.openai.com:8443",
        "https://api.openai.com.example.com",
        "https://xapi.openai.com",
        "http://127.0.0.1",
        "http://127.0.0.2:8000",
        "http://localhost:8000",
        "http://user@127.0.0.1:8000",
        "http://api.openai.com@127.0.0.1/",
        "ftp://api.openai.com",
        "//api.openai.com",
        "",
    ):
        assert not hosts.allows(url), url
    assert not Hosts([]).allows("https://api.openai.com")
    for entry in ("", "*.openai.com", "a b", "https://x", "x:0", "x:99999", "x/y"):
        with pytest.raises(Invalid):
            Hosts([entry])


def test_no_call_leaves_for_another_origin(served: ScriptedModels) -> None:
    async def main() -> None:
        async with outbound.client(served.url, 5) as client:
            for url in (
                served.url.replace("127.0.0.1", "localhost"),
                "http://127.0.0.1:1",
                "https" + served.url[4:],
            ):
                with pytest.raises(outbound.Elsewhere):
                    await client.get(url)
            # not even for a client that somebody made follow redirects
            client.follow_redirects = True
            served.play([Turn(fault="redirect", elsewhere="http://127.0.0.1:1/")])
            headers = {"authorization": f"Bearer {KEYS['openai']}"}
            with pytest.raises(outbound.Elsewhere):
                await client.post(
                    served.url + "/v1/chat/completions", json={"model": "m", "messages": []}, headers=headers
                )
        with pytest.raises(outbound.Elsewhere), httpx2.Client(transport=outbound.Nowhere()) as nowhere:
            nowhere.get(served.url)

    asyncio.run(main())


def test_settings_make_the_configuration(tmp_path: Path) -> None:
    keys = tmp_path / "keys.toml"
    keys.write_text('vllm = "from the file"\n')
    config = tmp_path / "t.toml"
    config.write_text(
        f'model_keys = "{keys}"\nmodels = ["openai/a", "vllm/b"]\nallowed_hosts = []\nmodel_retries = 0\n'
        '[providers]\nvllm = "http://127.0.0.1:8000/v1"\n'
    )
    environment = {
        "OPENAI_API_KEY": "k1",
        "GOOGLE_API_KEY": "k2",
        "GEMINI_API_KEY": "k3",
        "VLLM_API_KEY": "other",
    }
    made = model_config(load({}, environment, config), environment)
    assert made.providers == {"vllm": "http://127.0.0.1:8000/v1"}
    assert made.keys == {"openai": "k1", "google": "k3", "vllm": "from the file"}
    assert (made.models, made.allowed_hosts, made.retries) == (("openai/a", "vllm/b"), (), 0)
    flags = {"providers": "ollama=http://127.0.0.1:11434/v1, x=https://h/v1", "allowed_hosts": "none"}
    settings = load(flags, {"TALLYSTONE_MODELS": "ollama/qwen3,x/y"})
    assert dict(settings.providers) == {"ollama": "http://127.0.0.1:11434/v1", "x": "https://h/v1"}
    assert (settings.models, settings.allowed_hosts) == (("ollama/qwen3", "x/y"), ())
    assert model_config(Settings(), {}).allowed_hosts is None


@pytest.mark.parametrize(
    "environment",
    [
        {"TALLYSTONE_PROVIDERS": "ollama"},
        {"TALLYSTONE_PROVIDERS": "ollama=ftp://x"},
        {"TALLYSTONE_PROVIDERS": "ollama=http://me:pass@x/v1"},
        {"TALLYSTONE_PROVIDERS": "google_ai=http://x"},
        {"TALLYSTONE_MODELS": "gpt-4o"},
        {"TALLYSTONE_ALLOWED_HOSTS": "*"},
        {"TALLYSTONE_MODEL_TIMEOUT": "0"},
    ],
)
def test_a_wrong_setting_of_models_is_named(environment: dict[str, str]) -> None:
    (name,) = environment
    with pytest.raises(Invalid, match=name) as caught:
        load({}, environment)
    assert caught.value.hint
    assert "pass" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["openai = sk-secret", "openai = 1", '"google_ai" = "sk-secret"', "[openai]"]
)
def test_a_wrong_file_of_keys_is_named_and_not_quoted(tmp_path: Path, text: str) -> None:
    path = tmp_path / "keys.toml"
    path.write_text(text)
    with pytest.raises(Invalid, match=r"keys\.toml") as caught:
        model_config(Settings(model_keys=path), {})
    assert "sk-secret" not in str(caught.value) + caught.value.hint
    with pytest.raises(Invalid, match="cannot read"):
        model_config(Settings(model_keys=tmp_path / "gone"), {})


def test_listed_models_are_what_clients_parse() -> None:
    for handle in ("openai/gpt-4o-mini", "google/gemini-2.5-pro", "ollama/qwen3", "mine/some/thing"):
        parsed = letta_client.types.Model.model_validate(model_json(handle), strict=True)
        assert parsed.handle == handle
    config = ModelConfig({"ollama": "http://127.0.0.1:11434/v1"}, KEYS, models=("openai/a", "ollama/b"))
    assert [model["handle"] for model in ModelLayer(config).list_models()] == ["openai/a", "ollama/b"]
    keyless = ModelLayer(ModelConfig(models=("openai/a", "ollama/b")))
    assert keyless.list_models() == keyless.list_models({("openai", "https://elsewhere.example")}) == []
    (own,) = keyless.list_models({("openai", "https://api.openai.com")})
    assert own["handle"] == "openai/a"


def test_the_client_lists_the_models_of_the_settings(served: ScriptedModels, tmp_path: Path) -> None:
    workspace, you = Workspace.init(tmp_path / "data")
    settings = served.settings(tmp_path, models=("openai/a", "google/b", "vllm/c"))
    with (
        workspace,
        running(workspace, settings) as url,
        letta_client.Letta(base_url=url, api_key=you.token, _strict_response_validation=True) as client,
    ):
        assert [model.handle for model in client.models.list()] == ["openai/a", "google/b", "vllm/c"]
        assert [model.name for model in client.models.list(provider_name="google")] == ["b"]
        assert [model.name for model in client.models.list(provider_type="vllm")] == ["c"]
        assert client.models.list(provider_category=["byok"]) == []
        assert client.models.embeddings.list() == []


def test_an_application_closes_its_connections(served: ScriptedModels, workspace: Workspace) -> None:
    async def main() -> None:
        layer = ModelLayer(served.config())
        app = App(workspace, models=layer)
        served.play([Turn("x")])
        await layer.reply(HANDLES["openai"], HELLO)
        await app.close()  # an open connection would fail the test by its ResourceWarning

    asyncio.run(main())
