"""Language models on loopback that say what a test wrote down: real HTTP, in the words of three providers.

One server speaks OpenAI's chat completions (`/v1/chat/completions`), Anthropic's messages (`/v1/messages`) and Google's
generateContent (`/v1beta/models/…`), whole or streamed, so that the code which talks to providers is the one that runs.

    with ScriptedModels([Turn(calls=[Call("memory_insert", {"label": "human"})]), Turn("Done.")]) as models:
        layer = ModelLayer(models.config())
        ...
        assert "<memory_blocks>" in models.asked[0].system

A script is a list of turns, one for each request in the order of arrival, or a function from the request to a turn. It
is called under no lock, so it may wait for another thread.
"""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from tallystone.letta.providers import ModelConfig
from tallystone.server.settings import Settings

KEYS = {name: f"sk-{name}-0123456789-secret" for name in ("openai", "anthropic", "google", "vllm")}
"""The keys that the scripted providers want to see."""
HANDLES = {name: f"{name}/scripted-1" for name in KEYS}
"""One model of each provider; `vllm` stands for all who speak OpenAI's protocol."""

Fault = Literal["", "broken", "drop", "cut", "endless", "redirect", "packed", "huge"]


@dataclass(frozen=True)
class Call:
    """A tool call. `arguments` as a string go out as they are, JSON or not (with OpenAI; the others send objects)."""

    name: str
    arguments: Mapping[str, Any] | str = field(default_factory=dict)
    id: str = ""


@dataclass(frozen=True)
class Turn:
    """One answer. `text` as a list is streamed in these pieces.

    `fault`: `broken` is no JSON; `drop` closes the connection without an answer, or after the first piece of a stream;
    `cut` ends a stream, properly closed, after its first piece; `endless` streams the first piece for ever; `redirect`
    sends the caller to `elsewhere`; `packed` and `huge` are what nobody asked for. `delay` seconds pass before the
    answer, `pace` seconds between the pieces of a stream.
    """

    text: str | Sequence[str] = ""
    calls: Sequence[Call] = ()
    thinking: str = ""
    signature: str = ""
    usage: tuple[int, int] = (11, 7)
    cached: int = 0
    reasoning: int = 0
    finish: Literal["", "length", "refused"] = ""
    status: int = 200
    error: str = "scripted failure"
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0
    pace: float = 0
    fault: Fault = ""
    elsewhere: str = "http://example.invalid/"

    @property
    def pieces(self) -> list[str]:
        """The text as it is streamed."""
        return [self.text] if isinstance(self.text, str) else list(self.text)


@dataclass(frozen=True)
class Heard:
    """One message of a request: role, words, tool calls as (id, name, arguments), result as (call id, text)."""

    role: str
    text: str = ""
    calls: tuple[tuple[str, str, Any], ...] = ()
    result: tuple[str, str] | None = None


@dataclass(frozen=True)
class Asked:
    """A request, in the same shape whatever the provider; `body` is what came over the wire."""

    provider: Literal["openai", "anthropic", "google"]
    model: str
    system: str
    messages: tuple[Heard, ...]
    tools: tuple[str, ...]
    stream: bool
    max_tokens: int | None
    body: dict[str, Any]
    headers: dict[str, str]
    path: str
    at: float

    @property
    def results(self) -> list[str]:
        """The texts of all tool results."""
        return [message.result[1] for message in self.messages if message.result]

    @property
    def last(self) -> Heard:
        """The latest message."""
        return self.messages[-1]


Script = Sequence[Turn] | Callable[[Asked], Turn]


class ScriptedModels:
    """The server. `asked` holds every request; `unscripted` counts those for which the script had no turn left.
    `welcome` are keys of OpenAI's protocol that it takes beside those of `KEYS`."""

    def __init__(self, script: Script = ()) -> None:
        self.script = script
        self.asked: list[Asked] = []
        self.unscripted = 0
        self.welcome: set[str] = set()
        self._lock = threading.Lock()
        self._turns: Iterator[Turn] = iter(())
        self._server = _Server(self)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self.play(script)

    def play(self, script: Script) -> None:
        """Begin with another script; what was asked before is forgotten."""
        self.script = script
        self._turns = iter(()) if callable(script) else iter(script)
        self.asked.clear()

    @property
    def providers(self) -> dict[str, str]:
        """Base URLs, for `ModelConfig.providers` or the setting `providers`."""
        return {
            "openai": self.url + "/v1",
            "anthropic": self.url,
            "google": self.url,
            "vllm": self.url + "/v1",
        }

    def config(self, **options: Any) -> ModelConfig:
        """A configuration in which every provider is this server, with its key."""
        return ModelConfig(**{"providers": self.providers, "keys": KEYS, "seconds": 20, **options})

    def settings(self, folder: Path, **options: Any) -> Settings:
        """Settings of a server that calls these models; the file of keys is written into the folder."""
        keys = folder / "model-keys.toml"
        keys.write_text("".join(f'{name} = "{key}"\n' for name, key in KEYS.items()))
        given = {"port": 0, "refusals": 100_000, "log_level": "error", "model_timeout": 20, **options}
        return Settings(providers=tuple(self.providers.items()), model_keys=keys, **given)

    def __enter__(self) -> ScriptedModels:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def turn(self, asked: Asked) -> Turn:
        """What to answer to this request."""
        with self._lock:
            self.asked.append(asked)
            script = self.script
            if not callable(script):
                turn = next(self._turns, None)
                if turn is None:
                    self.unscripted += 1
                    return Turn(status=400, error="the script has ended")
                return turn
        return script(asked)


class _Server(ThreadingHTTPServer):
    daemon_threads, block_on_close = True, False

    def __init__(self, models: ScriptedModels) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.models = models


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    server_version = "scripted"
    disable_nagle_algorithm = True

    def log_message(self, *args: Any) -> None:
        """Say nothing."""

    def do_POST(self) -> None:
        """One request of a provider's client."""
        body = json.loads(self.rfile.read(int(self.headers.get("content-length") or 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        asked = _heard(self.path, body, headers)
        models = self.server.models
        if headers.get("authorization", "").removeprefix("Bearer ") in models.welcome:
            key_fits = True
        elif KEYS["vllm"] in headers.get("authorization", ""):
            key_fits = asked.provider == "openai"
        else:
            key_fits = KEYS[asked.provider] in (
                headers.get("authorization", "").removeprefix("Bearer "),
                headers.get("x-api-key"),
                headers.get("x-goog-api-key"),
            )
        turn = models.turn(asked) if key_fits else Turn(status=401, error="wrong key")
        time.sleep(turn.delay)  # what is scripted: a model that is slow to begin, in a thread of its own
        try:
            self._answer(asked, turn)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True  # the caller has gone, as some tests mean it to

    def _answer(self, asked: Asked, turn: Turn) -> None:
        if turn.status != 200:
            self._send(turn.status, json.dumps(_error(asked.provider, turn)).encode(), turn.headers)
        elif turn.fault == "redirect":
            self._send(307, b"", {**turn.headers, "location": turn.elsewhere})
        elif turn.fault == "broken":
            kind = "text/event-stream" if asked.stream else "application/json"
            self._send(200, b'data: {"oh": [no\n\n' if asked.stream else b'{"oh": [no', {}, kind)
        elif turn.fault == "packed":
            self._send(200, b"not really", {"content-encoding": "gzip"})
        elif turn.fault == "drop" and not asked.stream:
            self.close_connection = True
        elif asked.stream:
            self._stream(asked, turn)
        else:
            whole = _WHOLE[asked.provider](asked, turn)
            filling = b" " * (17 * 1024 * 1024 if turn.fault == "huge" else 0)
            self._send(200, json.dumps(whole).encode() + filling, turn.headers)

    def _send(
        self, status: int, content: bytes, headers: Mapping[str, str], kind: str = "application/json"
    ) -> None:
        self.send_response(status)
        for name, value in {
            "content-type": kind,
            "content-length": str(len(content)),
            **headers,
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def _stream(self, asked: Asked, turn: Turn) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        events = list(_STREAMED[asked.provider](asked, turn))
        words = [index for index, (_, is_words) in enumerate(events) if is_words]
        first = words[0] if words else len(events) - 1
        for index, (event, _) in enumerate(events):
            self._chunk(event)
            if index == first and turn.fault == "drop":
                self.close_connection = True  # without the last chunk: the caller sees a broken connection
                return
            if index == first and turn.fault == "cut":
                break
            while index == first and turn.fault in ("endless", "huge"):
                self._chunk(event if turn.fault == "endless" else ": " + "x" * 100_000)
                time.sleep(turn.pace)  # as scripted: or an answer without end would fill the memory
            time.sleep(turn.pace)  # as scripted: a model speaks word by word
        self.wfile.write(b"0\r\n\r\n")

    def _chunk(self, event: str) -> None:
        content = (event + "\n\n").encode()
        self.wfile.write(b"%x\r\n%s\r\n" % (len(content), content))
        self.wfile.flush()


_numbers = itertools.count(1)


def _ids(turn: Turn, prefix: str) -> list[str]:
    return [call.id or f"{prefix}{next(_numbers)}" for call in turn.calls]


def _object(call: Call) -> Any:
    return call.arguments if isinstance(call.arguments, str) else dict(call.arguments)


def _error(provider: str, turn: Turn) -> dict[str, Any]:
    if provider == "anthropic":
        kinds = {401: "authentication_error", 429: "rate_limit_error", 529: "overloaded_error"}
        kind = kinds.get(turn.status, "api_error" if turn.status >= 500 else "invalid_request_error")
        return {"type": "error", "error": {"type": kind, "message": turn.error}}
    if provider == "google":
        kinds = {401: "UNAUTHENTICATED", 404: "NOT_FOUND", 429: "RESOURCE_EXHAUSTED", 503: "UNAVAILABLE"}
        kind = kinds.get(turn.status, "INTERNAL" if turn.status >= 500 else "INVALID_ARGUMENT")
        return {"error": {"code": turn.status, "message": turn.error, "status": kind}}
    return {"error": {"message": turn.error, "type": "scripted", "param": None, "code": None}}


# requests


def _heard(path: str, body: dict[str, Any], headers: dict[str, str]) -> Asked:
    parsed: tuple[Any, ...]
    if path.endswith("/chat/completions"):
        parsed = "openai", *_from_openai(body)
    elif path.startswith("/v1/messages"):
        parsed = "anthropic", *_from_anthropic(body)
    else:
        parsed = "google", *_from_google(body, path)
    return Asked(*parsed, body, headers, path, time.monotonic())


def _words(content: Any) -> str:
    if isinstance(content, str) or content is None:
        return content or ""
    return "".join(part.get("text", "") for part in content if isinstance(part, dict))


def _from_openai(body: dict[str, Any]) -> tuple[Any, ...]:
    system, said = [], []
    for message in body["messages"]:
        if message["role"] in ("system", "developer"):
            system.append(_words(message["content"]))
        elif message["role"] == "tool":
            said.append(Heard("tool", result=(message["tool_call_id"], _words(message["content"]))))
        else:
            calls = tuple(
                (call["id"], call["function"]["name"], json.loads(call["function"]["arguments"]))
                for call in message.get("tool_calls") or ()
            )
            said.append(Heard(message["role"], _words(message.get("content")), calls))
    tools = tuple(tool["function"]["name"] for tool in body.get("tools") or ())
    limit = body.get("max_completion_tokens") or body.get("max_tokens")
    return body["model"], "\n\n".join(system), tuple(said), tools, bool(body.get("stream")), limit


def _from_anthropic(body: dict[str, Any]) -> tuple[Any, ...]:
    said: list[Heard] = []
    for message in body["messages"]:
        content = message["content"]
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
        said += [
            Heard("tool", result=(block["tool_use_id"], _words(block["content"])))
            for block in blocks
            if block["type"] == "tool_result"
        ]
        text = "".join(block["text"] for block in blocks if block["type"] == "text")
        calls = tuple(
            (block["id"], block["name"], block["input"]) for block in blocks if block["type"] == "tool_use"
        )
        if text or calls:
            said.append(Heard(message["role"], text, calls))
    tools = tuple(tool["name"] for tool in body.get("tools") or ())
    system, stream = _words(body.get("system")), bool(body.get("stream"))
    return body["model"], system, tuple(said), tools, stream, body["max_tokens"]


def _from_google(body: dict[str, Any], path: str) -> tuple[Any, ...]:
    model, _, method = path.partition("?")[0].rpartition("/")[2].partition(":")
    said: list[Heard] = []
    for content in body["contents"]:
        parts = content["parts"]
        said += [
            Heard("tool", result=(found.get("id", ""), str(_result(found["response"]))))
            for part in parts
            if (found := part.get("functionResponse"))
        ]
        text = "".join(part["text"] for part in parts if "text" in part and not part.get("thought"))
        calls = tuple(
            (call.get("id", ""), call["name"], call.get("args", {}))
            for part in parts
            if (call := part.get("functionCall"))
        )
        if text or calls:
            said.append(Heard({"model": "assistant"}.get(content["role"], content["role"]), text, calls))
    tools = tuple(
        function["name"]
        for tool in body.get("tools") or ()
        for function in tool.get("functionDeclarations") or ()
    )
    system = "\n\n".join(part["text"] for part in body.get("systemInstruction", {}).get("parts", ()))
    limit = body.get("generationConfig", {}).get("maxOutputTokens")
    return model, system, tuple(said), tools, method.startswith("stream"), limit


def _result(response: dict[str, Any]) -> Any:
    return next(iter(response.values())) if len(response) == 1 else response


# answers, whole and as (event, whether it carries words or a call)


def _openai_usage(turn: Turn) -> dict[str, Any]:
    given, made = turn.usage
    return {
        "prompt_tokens": given,
        "completion_tokens": made,
        "total_tokens": given + made,
        "prompt_tokens_details": {"cached_tokens": turn.cached},
        "completion_tokens_details": {"reasoning_tokens": turn.reasoning},
    }


def _openai_finish(turn: Turn) -> str:
    if turn.finish == "length":
        return "length"
    return "content_filter" if turn.finish == "refused" else "tool_calls" if turn.calls else "stop"


def _openai_calls(turn: Turn) -> list[dict[str, Any]]:
    return [
        {
            "id": made,
            "type": "function",
            "function": {
                "name": call.name,
                "arguments": call.arguments
                if isinstance(call.arguments, str)
                else json.dumps(dict(call.arguments)),
            },
        }
        for call, made in zip(turn.calls, _ids(turn, "call_"), strict=True)
    ]


def _openai(asked: Asked, turn: Turn) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": "".join(turn.pieces) or None}
    if turn.calls:
        message["tool_calls"] = _openai_calls(turn)
    if turn.thinking:
        message["reasoning_content"] = turn.thinking
    choice = {"index": 0, "message": message, "finish_reason": _openai_finish(turn)}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_790_000_000,
        "model": asked.model,
        "choices": [choice],
        "usage": _openai_usage(turn),
    }


def _openai_stream(asked: Asked, turn: Turn) -> Iterator[tuple[str, bool]]:
    def chunk(delta: dict[str, Any] | None, finish: str | None = None, **more: Any) -> str:
        choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish}]
        body = {
            "id": "chatcmpl-1",
            "object": "chat.completion.chunk",
            "created": 1_790_000_000,
            "model": asked.model,
        }
        return "data: " + json.dumps({**body, "choices": choices, **more})

    yield chunk({"role": "assistant", "content": ""}), False
    if turn.thinking:
        yield chunk({"reasoning_content": turn.thinking}), True
    for piece in filter(None, turn.pieces):
        yield chunk({"content": piece}), True
    for index, call in enumerate(_openai_calls(turn)):
        arguments = call["function"]["arguments"]
        head = {**call, "index": index, "function": {**call["function"], "arguments": ""}}
        yield chunk({"tool_calls": [head]}), True
        for start in range(0, len(arguments), 7):
            piece = {"index": index, "function": {"arguments": arguments[start : start + 7]}}
            yield chunk({"tool_calls": [piece]}), False
    yield chunk({}, _openai_finish(turn)), False
    yield chunk(None, usage=_openai_usage(turn)), False
    yield "data: [DONE]", False


def _anthropic_blocks(turn: Turn) -> list[dict[str, Any]]:
    blocks: list[dict[str, Any]] = []
    if turn.thinking:
        blocks.append({"type": "thinking", "thinking": turn.thinking, "signature": turn.signature or "sig"})
    if any(turn.pieces):
        blocks.append({"type": "text", "text": "".join(turn.pieces)})
    for call, made in zip(turn.calls, _ids(turn, "toolu_"), strict=True):
        blocks.append({"type": "tool_use", "id": made, "name": call.name, "input": _object(call)})
    return blocks


def _anthropic_finish(turn: Turn) -> str:
    if turn.finish == "length":
        return "max_tokens"
    return "refusal" if turn.finish == "refused" else "tool_use" if turn.calls else "end_turn"


def _anthropic_usage(turn: Turn) -> dict[str, int]:
    # Anthropic counts what it read from its cache apart
    return {
        "input_tokens": turn.usage[0] - turn.cached,
        "cache_read_input_tokens": turn.cached,
        "output_tokens": turn.usage[1],
    }


def _anthropic_head(asked: Asked) -> dict[str, Any]:
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": asked.model,
        "stop_sequence": None,
    }


def _anthropic(asked: Asked, turn: Turn) -> dict[str, Any]:
    return {
        **_anthropic_head(asked),
        "content": _anthropic_blocks(turn),
        "stop_reason": _anthropic_finish(turn),
        "usage": _anthropic_usage(turn),
    }


def _anthropic_stream(asked: Asked, turn: Turn) -> Iterator[tuple[str, bool]]:
    def event(kind: str, **more: Any) -> str:
        return f"event: {kind}\ndata: " + json.dumps({"type": kind, **more})

    usage = {**_anthropic_usage(turn), "output_tokens": 1}
    head = {**_anthropic_head(asked), "content": [], "stop_reason": None, "usage": usage}
    yield event("message_start", message=head), False
    for index, block in enumerate(_anthropic_blocks(turn)):
        empty = {
            "text": {"text": ""},
            "thinking": {"thinking": "", "signature": ""},
            "tool_use": {"input": {}},
        }
        yield (
            event("content_block_start", index=index, content_block={**block, **empty[block["type"]]}),
            False,
        )
        for delta in _anthropic_deltas(block, turn):
            yield event("content_block_delta", index=index, delta=delta), True
        yield event("content_block_stop", index=index), False
    stop = {"stop_reason": _anthropic_finish(turn), "stop_sequence": None}
    yield event("message_delta", delta=stop, usage={"output_tokens": turn.usage[1]}), False
    yield event("message_stop"), False


def _anthropic_deltas(block: dict[str, Any], turn: Turn) -> Iterator[dict[str, Any]]:
    if block["type"] == "text":
        yield from ({"type": "text_delta", "text": piece} for piece in turn.pieces if piece)
    elif block["type"] == "thinking":
        yield {"type": "thinking_delta", "thinking": block["thinking"]}
        yield {"type": "signature_delta", "signature": block["signature"]}
    else:
        given = block["input"]
        text = given if isinstance(given, str) else json.dumps(given)
        for start in range(0, len(text), 7):
            yield {"type": "input_json_delta", "partial_json": text[start : start + 7]}


def _google_parts(turn: Turn) -> list[list[dict[str, Any]]]:
    """The parts, in groups that go out in one event each."""
    groups: list[list[dict[str, Any]]] = []
    if turn.thinking:
        groups.append([{"text": turn.thinking, "thought": True}])
    groups += [[{"text": piece}] for piece in turn.pieces if piece]
    calls = []
    for call, made in zip(turn.calls, _ids(turn, "fc_"), strict=True):
        part: dict[str, Any] = {"functionCall": {"id": made, "name": call.name, "args": _object(call)}}
        if turn.signature and not calls:
            part["thoughtSignature"] = turn.signature
        calls.append(part)
    return [*groups, calls] if calls else groups


def _google_body(asked: Asked, parts: list[dict[str, Any]], turn: Turn | None) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"role": "model", "parts": parts}, "index": 0}
    body: dict[str, Any] = {"candidates": [candidate], "modelVersion": asked.model, "responseId": "r1"}
    if turn is not None:
        reasons = {"": "STOP", "length": "MAX_TOKENS", "refused": "SAFETY"}
        candidate["finishReason"] = reasons[turn.finish]
        given, made = turn.usage
        body["usageMetadata"] = {
            "promptTokenCount": given,
            "candidatesTokenCount": made - turn.reasoning,
            "thoughtsTokenCount": turn.reasoning,
            "cachedContentTokenCount": turn.cached,
            "totalTokenCount": given + made,
        }
    return body


def _google(asked: Asked, turn: Turn) -> dict[str, Any]:
    return _google_body(asked, [part for group in _google_parts(turn) for part in group], turn)


def _google_stream(asked: Asked, turn: Turn) -> Iterator[tuple[str, bool]]:
    for group in _google_parts(turn):
        yield "data: " + json.dumps(_google_body(asked, group, None)), True
    yield "data: " + json.dumps(_google_body(asked, [{"text": ""}], turn)), False


_WHOLE = {"openai": _openai, "anthropic": _anthropic, "google": _google}
_STREAMED = {"openai": _openai_stream, "anthropic": _anthropic_stream, "google": _google_stream}
