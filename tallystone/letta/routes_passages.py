"""`/v1/agents/{agent_id}/archival-memory…`: what `client.agents.passages` calls. Search is for words, not meaning."""

from __future__ import annotations

from typing import Any

from tallystone.errors import Invalid, Rejected
from tallystone.letta import bodies, turn_bodies
from tallystone.letta.arguments import clean
from tallystone.letta.call import Answer, Call, check_id
from tallystone.letta.messages import date_json, moment, new_id
from tallystone.letta.paging import page
from tallystone.letta.recall_tools import FOUND, passages_where
from tallystone.letta.routes_messages import dates
from tallystone.letta.turn_json import passage_json


def create(call: Call) -> Answer:
    """`POST …/archival-memory`: a list of the one passage."""
    agent_id = call.id("agent")
    body = bodies.decode(call.body, turn_bodies.PassageCreate)
    passage: dict[str, Any] = {
        "id": new_id("passage"),
        "text": clean(body.text),
        "tags": [clean(tag) for tag in dict.fromkeys(body.tags or ())],
    }
    if body.created_at is not None:
        passage["created"] = moment(body.created_at)
    return call.once(
        lambda: call.vault.add_passage(agent_id, passage), lambda made: Answer([passage_json(made)])
    )


def list_(call: Call) -> Answer:
    """`GET …/archival-memory`: oldest first unless asked otherwise."""
    wanted = page(call.query, limit=100, order="asc")
    reverse = call.query.flag("ascending", True) is False
    found = call.vault.passages(
        call.id("agent"),
        passages_where(call.query.text("search"), (), False),
        after=wanted.after,
        before=wanted.before,
        limit=wanted.limit,
        reverse=reverse,
    )
    return Answer([passage_json(one) for one in found])


def search(call: Call) -> Answer:
    """`GET …/archival-memory/search`: passages with all words of the query, newest first."""
    query = call.query
    asked = query.text("query")
    if asked is None:
        raise Invalid("the query parameter query is missing", hint="e.g. query=harbour")
    where = passages_where(
        asked,
        query.texts("tags"),
        query.choice("tag_match_mode", ("any", "all"), "any") == "all",
        dates(query.text("start_datetime"), query.text("end_datetime")),
    )
    limit = query.number("top_k", FOUND) or None
    found = call.vault.passages(call.id("agent"), where, limit=limit, reverse=True)
    results = [
        {
            "id": one["id"],
            "content": one["text"],
            "timestamp": date_json(one["created"]),
            "tags": list(one["tags"]),
        }
        for one in found
    ]
    return Answer({"count": len(results), "results": results})


def delete(call: Call) -> Answer:
    """`DELETE …/archival-memory/{memory_id}`."""
    call.vault.delete_passage(call.id("agent"), call.id("passage", "memory_id"))
    return Answer(None)


def search_all(call: Call) -> Answer:
    """`POST /v1/passages/search`: of one agent, newest first. There are no archives of their own."""
    body = bodies.decode(call.body, turn_bodies.PassagesSearch)
    if body.agent_id is None or body.archive_id is not None:
        raise Rejected(
            "passages are searched by agent here", hint="send agent_id, and no archive_id", code="unsupported"
        )
    where = passages_where(
        body.query, body.tags or (), body.tag_match_mode == "all", dates(body.start_date, body.end_date)
    )
    agent_id = check_id("agent", body.agent_id)
    found = call.vault.passages(agent_id, where, limit=body.limit, reverse=True)
    return Answer([{"passage": passage_json(one), "score": 1.0, "metadata": {}} for one in found])
