"""`docs/compat.md`, made from the route table: which methods of the client are served, and which answer 501.

Run `python -m tallystone.tooling.compat > docs/compat.md` after a change of the routes; a test compares the two.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator

from tallystone.letta.routes import OPEN_PATHS, OPEN_POSTS, ROUTES, Route

_HEAD = """# What of letta-client is served

Made from the route table by `python -m tallystone.tooling.compat`; do not edit.

`letta-client` 1.12.1 works after changing `base_url` and `api_key`. Both spellings of a path are served, with and
without the slash at its end. Methods that are not served answer 501 with `x-should-retry: false` and a hint, so that
the client does not try again; they have no effect. Errors are listed in [errors.md](errors.md).

What is read beyond the client's own models: blocks carry `agent_ids`, `created_at`, `updated_at`, `version`, `locked`,
`owner`, `rights`, `through`, `sensitivity`, `allowed`, `expires`, `mutable`, `append_only`, `keep` and
`audit_level`; agents carry
`block_ids` and `version`. `ETag` and `If-Match` work on blocks, and an `Idempotency-Key` on each POST.

`client.access_tokens` makes tokens for one agent each: what a policy asks for that no token can hold to is 422. Their
`hostname` is kept and shown, and restricts nothing; a list names a token by its public part, which `delete` takes too.

`client.mcp_servers` takes servers with an HTTP transport; one of type `stdio` is 422: this server runs no programs.
Answers show a server without its secrets ([http.md](http.md#mcp-servers)). `agent_id` of `refresh` is ignored.

Of `model_settings` (a conversation's beat its agent's, and these the agent's other fields and its `llm_config`) a model
hears `temperature`, `max_output_tokens`, `parallel_tool_calls` and what they say of thinking: `reasoning`, `effort`,
`thinking`, `thinking_config`, `enable_reasoner`, as an effort or off and on. `response_format` goes to OpenAI and to
those who speak its protocol. Kept and not passed on: budgets of thinking tokens (`budget_tokens`, `thinking_budget` but
0, `max_reasoning_tokens`), `response_schema`, `include_thoughts`, `strict`, `verbosity`, `frequency_penalty`,
`tool_call_parser`, and all of `compaction_settings`. Anthropic takes no temperature while it thinks.
"""


def page() -> str:
    """The whole page, Markdown."""
    health, ready = OPEN_PATHS
    served = [*_rows(route for route in ROUTES if route.kind == "served"), ("GET", health, "health")]
    later = _rows(route for route in ROUTES if route.kind != "served")
    lines = [
        _HEAD,
        f"## Served: {_methods(served)} methods",
        "",
        *_table(served),
        "",
        f"`GET {ready}` is ours, for load balancers. It and `GET {health}` need no token; {_open_posts()} neither.",
        "",
        f"## Not served yet: {_methods(later)} methods",
        "",
        *_table(later),
    ]
    return "\n".join(lines) + "\n"


def _open_posts() -> str:
    return ", ".join(f"`POST {path}`" for path in OPEN_POSTS)


def _rows(routes: Iterable[Route]) -> list[tuple[str, str, str]]:
    return [(route.method, route.path, route.client) for route in routes]


def _methods(rows: Iterable[tuple[str, str, str]]) -> int:
    return len({client for _, _, client in rows if client})


def _table(rows: Iterable[tuple[str, str, str]]) -> Iterator[str]:
    yield "| method | path | client |"
    yield "|---|---|---|"
    for method, path, client in rows:
        yield f"| `{method}` | `{path}` | {f'`client.{client}`' if client else 'ours'} |"


if __name__ == "__main__":
    sys.stdout.write(page())
