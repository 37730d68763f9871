"""`/v1/models/`, `/v1/models/embedding`, `/v1/tags/`, and the two that need no token: health and readiness."""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError, version

from tallystone.letta.call import Answer, Call
from tallystone.letta.paging import page, window


@cache  # read from a file, which takes longer than all else of a request for health
def server_version() -> str:
    """This package's version, or `0` when it runs from a folder that was never installed."""
    try:
        return version("tallystone")
    except PackageNotFoundError:
        return "0"


def health() -> Answer:
    """`GET /v1/health/`: the process answers."""
    return Answer({"status": "ok", "version": server_version()})


def models(call: Call) -> Answer:
    """`GET /v1/models/`: those that the settings name, if the server has their provider's key, or the caller one of its
    own. Agents may be made with any; it matters when they talk."""
    listed = []
    if call.models is not None and call.models.config.models:
        own = {(one.provider, one.origin) for one in call.vault.model_keys()}
        listed = call.models.list_models(own)
    for name in ("provider_name", "provider_type"):
        wanted = call.query.text(name)
        listed = [model for model in listed if wanted is None or model[name] == wanted]
    categories = call.query.texts("provider_category")
    return Answer([model for model in listed if not categories or model["provider_category"] in categories])


def embeddings(call: Call) -> Answer:
    """`GET /v1/models/embedding`: none, nothing here is searched by meaning."""
    return Answer([])


def tags(call: Call) -> Answer:
    """`GET /v1/tags/`: the tags of the caller's blocks and agents, by name."""
    wanted = page(call.query, limit=50, order="asc", order_by=("name",))
    name, text = call.query.text("name"), call.query.text("query_text")
    found = [
        tag
        for tag in sorted(set(call.vault.tags()))
        if (name is None or tag == name) and (text is None or text.casefold() in tag.casefold())
    ]
    return Answer(window(found, wanted, lambda tag: tag))
