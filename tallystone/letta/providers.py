"""From a model's handle (`openai/gpt-4o-mini`) to where it is served, or to a 400 that names the setting. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib.util import find_spec
from typing import Any, Literal

from tallystone.errors import Invalid, Rejected
from tallystone.letta.hosts import Hosts, origin_text
from tallystone.letta.wire import CONTEXT_WINDOW, endpoint_type

Family = Literal["openai", "compatible", "anthropic", "google"]

PUBLIC: Mapping[str, tuple[Family, str]] = {
    "openai": ("openai", "https://api.openai.com/v1"),
    "anthropic": ("anthropic", "https://api.anthropic.com"),
    "google": ("google", "https://generativelanguage.googleapis.com"),
    "openrouter": ("compatible", "https://openrouter.ai/api/v1"),
}
"""Providers with one public address: a key is all that they need. Any other name speaks OpenAI's protocol."""
ALIASES: Mapping[str, str] = {"google_ai": "google"}
"""Other names that clients use in handles."""
KEY_VARIABLES: Mapping[str, tuple[str, ...]] = {"google": ("GEMINI_API_KEY", "GOOGLE_API_KEY")}
"""Where a key stands in the environment, where it is not simply `<NAME>_API_KEY`."""

_PROVIDER = re.compile(r"[a-z][a-z0-9_-]{0,39}")
# a model's name becomes a part of the URL with some providers: no dots alone between slashes, nothing to be escaped
_MODEL = re.compile(r"(?!.*(?:^|/)\.{1,2}(?:/|$))[A-Za-z0-9._:@+-]+(/[A-Za-z0-9._:@+-]+)*")
_PROVIDER_TYPES = frozenset(
    [
        "anthropic",
        "azure",
        "baseten",
        "cerebras",
        "deepseek",
        "fireworks",
        "google_ai",
        "groq",
        "hugging-face",
        "mistral",
        "moonshot",
        "ollama",
        "openai",
        "openrouter",
        "sglang",
        "together",
        "vllm",
        "xai",
        "zai",
    ]
)
"""Of the client's closed list of `provider_type`, those that a name here can mean."""


def key_variables(provider: str) -> tuple[str, ...]:
    """The environment variables that may hold this provider's key, the first one wins."""
    return KEY_VARIABLES.get(provider) or (re.sub(r"[^A-Z0-9]", "_", provider.upper()) + "_API_KEY",)


def is_provider(name: str) -> bool:
    """Whether this can be the first part of a handle."""
    return _PROVIDER.fullmatch(name) is not None and name not in ALIASES


def provider_named(text: str) -> str:
    """A provider by the name that somebody wrote. Raises `Invalid` (422) for what is none."""
    name = ALIASES.get(text, text)
    if not is_provider(name):
        raise Invalid("this is no model provider's name", hint="e.g. openai, anthropic, google or openrouter")
    return name


def own_origin(provider: str, url: str | None) -> str:
    """Where a user's own key for a provider may be sent: where the user says, else the provider's public address.
    Raises `Invalid` (422) if there is neither."""
    known = url or PUBLIC.get(provider, ("", ""))[1]
    if not known:
        raise Invalid(
            f"{provider} has no public address",
            hint="say where its key may go: --origin http://host:port, or `origin` in the body",
        )
    return origin_text(known)


def is_handle(handle: str) -> bool:
    """Whether this has the form provider/model."""
    provider, _, model = handle.partition("/")
    return len(handle) <= 256 and bool(_PROVIDER.fullmatch(provider) and _MODEL.fullmatch(model))


@dataclass(frozen=True)
class Target:
    """A model that can be called."""

    provider: str
    family: Family
    model: str
    url: str
    key: str = field(default="", repr=False)


@dataclass(frozen=True)
class ModelConfig:
    """Which models agents may use, and how. `providers` are base URLs by name, beside or instead of the public ones.

    `models` lists the handles that are allowed and shown, the first one being that of agents who name none; empty,
    every model of a configured provider is allowed. `allowed_hosts` None allows the hosts of the configured providers,
    an empty tuple none at all. `seconds` is for one call with its retries, `max_tokens` the most that an answer has.
    """

    providers: Mapping[str, str] = field(default_factory=dict)
    keys: Mapping[str, str] = field(default_factory=dict, repr=False)
    allowed_hosts: tuple[str, ...] | None = None
    models: tuple[str, ...] = ()
    seconds: float = 120
    retries: int = 2
    max_tokens: int = 4096

    @cached_property
    def hosts(self) -> Hosts:
        """Every host that this server may call, for models and for whatever else goes out."""
        if self.allowed_hosts is not None:
            return Hosts(self.allowed_hosts)
        public = [
            url for name, (_, url) in PUBLIC.items() if self.keys.get(name) and name not in self.providers
        ]
        return Hosts.of_urls([*self.providers.values(), *public])

    def place(self, handle: str | None) -> tuple[str, str] | None:
        """The provider of a handle, and the origin at which it is served here; None if there is none."""
        named = handle or next(iter(self.models), "")
        name, _, _ = named.partition("/")
        provider = ALIASES.get(name, name)
        url = self.providers.get(provider) or PUBLIC.get(provider, ("", ""))[1]
        return (provider, origin_text(url)) if url else None

    def has_key(self, handle: str, own: Collection[tuple[str, str]] = ()) -> bool:
        """Whether calls of a model have the key they need: the server's, or one of the caller's `own` (as `place`)."""
        place = self.place(handle)
        if place is None:
            return False
        return bool(place in own or place[0] in self.providers or self.keys.get(place[0]))

    def target(self, handle: str | None, *, key: str | None = None) -> Target:
        """Where this model is served; `key` beats the server's own. Raises `Rejected` (400, `no_model`) with a hint."""
        handle = handle or next(iter(self.models), "")
        if not handle:
            raise _no_model(
                "this agent has no model",
                "give it one, e.g. openai/gpt-4o-mini with OPENAI_API_KEY set for the server, or name one in the"
                " setting `models` (TALLYSTONE_MODELS)",
            )
        if not is_handle(handle):
            raise _no_model(
                "this is no model's handle", "a handle is provider/model, e.g. openai/gpt-4o-mini"
            )
        provider, _, model = handle.partition("/")
        provider = ALIASES.get(provider, provider)
        if self.models and handle not in self.models and f"{provider}/{model}" not in self.models:
            raise _no_model(f"{handle} is not among this server's models", "the setting `models` lists them")
        family, url = PUBLIC.get(provider, ("compatible", ""))
        url = self.providers.get(provider, url)
        if not url:
            raise _no_model(
                f"no model provider {provider} is configured here",
                "give the agent another model, or name this provider's base URL in the setting `providers`"
                f" (TALLYSTONE_PROVIDERS): {provider}=http://host:port/v1",
            )
        key = key or self.keys.get(provider, "")
        if not key and provider not in self.providers:
            raise _no_model(
                f"this server has no key for {provider}",
                f"seal your own with: tallystone model key set {provider}; or set {key_variables(provider)[0]} for the"
                " server, or name a file of keys in `model_keys`",
            )
        if not (self.hosts.allows(url) or (self.allowed_hosts is None and provider in PUBLIC)):
            raise _no_model(f"calls to {provider} are not allowed here", "add its host to `allowed_hosts`")
        if find_spec("pydantic_ai") is None:
            raise _no_model("this server cannot call models", "pip install 'tallystone[agents]'")
        return Target(provider, family, model, url.rstrip("/"), key)


def _no_model(message: str, hint: str) -> Rejected:
    return Rejected(message, hint=f"{hint} (docs/settings.md)", code="no_model")


def model_json(handle: str) -> dict[str, Any]:
    """A model as clients list it. Its window is a careful guess: no provider is asked."""
    provider, _, model = handle.partition("/")
    kind = {"google": "google_ai"}.get(provider, provider)
    return {
        "name": model,
        "model": model,
        "handle": handle,
        "display_name": model,
        "provider_name": provider,
        "provider_type": kind if kind in _PROVIDER_TYPES else "openai",
        "provider_category": "base",
        "model_endpoint_type": endpoint_type(provider),
        "model_type": "llm",
        "context_window": CONTEXT_WINDOW,
        "max_context_window": CONTEXT_WINDOW,
    }
