"""What `blocks.list` and `agents.list` may be filtered by (contract §1.8). Pure predicates, ANDed."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from tallystone.errors import Invalid
from tallystone.letta.call import Query
from tallystone.letta.wire import last_run
from tallystone.vault.types import Agent, Block

_LABEL = re.compile(r"[a-zA-Z0-9_/-]{1,50}")


def _label(query: Query, name: str) -> str | None:
    value = query.text(name)
    if value is not None and not _LABEL.fullmatch(value):
        raise Invalid(
            f"query parameter {name} should have 1 to 50 letters, digits, '_', '/' or '-'",
            hint="list all blocks and compare labels yourself to find one with other characters",
        )
    return value


def _search(query: Query, name: str) -> str | None:
    value = query.text(name)
    if value is not None and not 1 <= len(value) <= 200:
        raise Invalid(
            f"query parameter {name} should have 1 to 200 characters", hint="shorten the text to search for"
        )
    return value.casefold() if value is not None else None


def _tags(query: Query) -> Callable[[Sequence[str]], bool] | None:
    wanted = set(query.texts("tags"))
    every = query.flag("match_all_tags", False)
    if not wanted:
        return None
    return wanted.issubset if every else lambda tags: not wanted.isdisjoint(tags)


def _none_match(query: Query) -> bool:
    """Identities are not served: nothing belongs to one, so a filter on one lets nothing through."""
    return query.text("identity_id") is not None or bool(query.texts("identifier_keys"))


def listed(block: Block) -> bool:
    """Whether a `GET /v1/blocks/` that asks for nothing in particular has this block."""
    return not (block.extra.get("is_template") or block.extra.get("hidden"))


def blocks(query: Query) -> Callable[[Block], bool] | None:
    """The predicate of a `GET /v1/blocks/`; None if it asks for nothing in particular: then `listed` is. Raises
    `Invalid` (422) for a malformed filter."""
    label, part = _label(query, "label"), _label(query, "label_search")
    part = part.casefold() if part is not None else None
    described, contained = _search(query, "description_search"), _search(query, "value_search")
    template_name, project = query.text("name"), query.text("project_id")
    templates, hidden = query.flag("templates_only", False), query.flag("show_hidden_blocks", False)
    more, less = query.number("connected_to_agents_count_gt"), query.number("connected_to_agents_count_lt")
    exactly, tagged, nothing = query.numbers("connected_to_agents_count_eq"), _tags(query), _none_match(query)

    texts = (label, part, described, contained, template_name, project, tagged)
    if all(one is None for one in (*texts, more, less)) and not (nothing or templates or hidden or exactly):
        return None

    def where(block: Block) -> bool:
        if nothing or bool(block.extra.get("is_template")) != templates:
            return False
        if block.extra.get("hidden") and not hidden:
            return False
        if label is not None:
            if block.label != label:
                return False
        elif part is not None and part not in block.label.casefold():
            return False
        if described is not None and described not in (block.description or "").casefold():
            return False
        if contained is not None and contained not in block.value.casefold():
            return False
        if template_name is not None and block.extra.get("template_name") != template_name:
            return False
        if project is not None and block.extra.get("project_id") != project:
            return False
        if tagged is not None and not tagged(block.tags):
            return False
        count = len(block.agent_ids)
        return not (
            (more is not None and count <= more)
            or (less is not None and count >= less)
            or (exactly and count not in exactly)
        )

    return where


def agents(query: Query) -> Callable[[Agent], bool]:
    """The predicate of a `GET /v1/agents/`."""
    equal = {
        name: value
        for name in ("project_id", "template_id", "base_template_id")
        if (value := query.text(name)) is not None
    }
    stopped = query.text("last_stop_reason")
    name, creator, text = query.text("name"), query.text("created_by_id"), _search(query, "query_text")
    tagged, nothing = _tags(query), _none_match(query)

    def where(agent: Agent) -> bool:
        state = agent.state
        if nothing or any(state.get(field) != value for field, value in equal.items()):
            return False
        if stopped is not None and last_run(agent)["last_stop_reason"] != stopped:
            return False
        if name is not None and agent.name != name:
            return False
        if creator is not None and agent.sponsor != creator:
            return False
        if text is not None and text not in agent.name.casefold():
            return False
        return tagged is None or tagged(state.get("tags") or ())

    return where
