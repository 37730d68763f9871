"""`/v1/audit/events`: ours, not the client's. What was done, for whoever may know: the newest events, or the answer to
a question, as JSON, as lines of JSON or as a table for a spreadsheet."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from urllib.parse import urlencode

from tallystone.errors import Invalid
from tallystone.letta.audit_text import as_csv, as_json, as_lines, plain_event
from tallystone.letta.bodies import AuditorCreate, decode
from tallystone.letta.call import Answer, Call, Query, check_id
from tallystone.vault.answers import Answered, AuditPage, Span
from tallystone.vault.questions import WHATS, Question, What

EVENTS = 50
"""Events that one answer holds unless `limit` says otherwise."""
_ALL = 2**31
_QUESTION = (
    "block_id",
    "by",
    "to",
    "kind",
    "what",
    "since",
    "until",
    "after_grant",
    "before",
    "order",
    "format",
)
_ORDERS, _FORMATS = ("desc", "asc"), ("json", "jsonl", "csv")


class Text(Answer):
    """An answer whose body is a text as it stands, to be saved and never to be shown as a page."""

    def content(self) -> bytes:
        """The body as UTF-8."""
        return str(self.body).encode()


def events(call: Call) -> Answer:
    """`GET /v1/audit/events`: with `limit` and `after` alone the newest events, or the first beyond `after`, as a list,
    oldest first. With anything else the answer to a question: a page, and where the next one begins."""
    if not any(call.query.texts(name) for name in _QUESTION):
        limit, after = call.query.number("limit", EVENTS), call.query.number("after")
        return Answer([plain_event(event) for event in call.vault.events(limit or _ALL, after)])
    form = call.query.choice("format", _FORMATS, "json")
    question, span = asked(call.query), _span(call.query)
    limit = call.query.number("limit", EVENTS)
    if not limit:
        raise Invalid(
            "limit should be 1 or more", hint="ask for the next page until there is none", code="bad_question"
        )
    page = call.vault.search_log(question, span, limit)
    onward = _onward(page)
    if form == "json":
        return Answer({"events": [as_json(one) for one in page.events], "next": onward})
    return _text(page.events, form == "csv", onward)


def _text(found: list[Answered], table: bool, onward: dict[str, int] | None) -> Answer:
    body, kind = (as_csv(found), "text/csv") if table else (as_lines(found), "application/jsonl")
    headers = {
        "content-type": f"{kind}; charset=utf-8",
        "content-disposition": f'attachment; filename="events.{"csv" if table else "jsonl"}"',
        "x-content-type-options": "nosniff",
        "x-tallystone-next": urlencode(onward or {}),
    }
    return Text(body, headers=headers)


def _onward(page: AuditPage) -> dict[str, int] | None:
    span = page.onward
    if span is None:
        return None
    ends = {"after": span.after, "before": span.before}
    return {name: end for name, end in ends.items() if end is not None and end >= 0}


def asked(query: Query) -> Question:
    """The question that a query asks. Raises `Invalid`."""
    what = query.choice("what", WHATS)
    block = query.text("block_id") or ""
    return Question(
        block=check_id("block", block) if block else "",
        by=query.text("by") or "",
        to=query.text("to") or "",
        kinds=frozenset(query.texts("kind")),
        what=_WHAT[what] if what else None,
        since=minute(query.text("since"), "since"),
        until=minute(query.text("until"), "until", last=True),
    )


_WHAT: dict[str, What] = {what: what for what in WHATS}


def _span(query: Query) -> Span:
    return Span(
        query.number("after"),
        query.number("before"),
        query.number("after_grant"),
        query.choice("order", _ORDERS, "desc") == "asc",
    )


def minute(text: str | None, name: str, *, last: bool = False) -> int | None:
    """A day (UTC) or a time with its zone as minutes since 1970: a day's first minute, or with `last` its last one.
    Raises `Invalid`."""
    if not text:
        return None
    try:
        if re.fullmatch(r"\d{4}-\d\d-\d\d", text):
            start = datetime.combine(date.fromisoformat(text), datetime.min.time(), UTC)
            return int(start.timestamp()) // 60 + (1439 if last else 0)
        moment = datetime.fromisoformat(text.replace(" ", "+"))  # a plus that nobody encoded
        if moment.tzinfo is not None:
            return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(minutes=1)
    except (ValueError, OverflowError):
        pass
    raise Invalid(
        f"{name} should be a day or a time with its zone",
        hint=f"e.g. {name}=2027-01-31 or {name}=2027-01-31T18:00:00Z",
        code="bad_question",
    )


def auditors(call: Call) -> Answer:
    """`GET /v1/audit/auditors`: the ids of those who see what concerns no block, beside the workspace's first user."""
    return Answer(call.vault.auditors())


def grant(call: Call) -> Answer:
    """`POST /v1/audit/auditors`. Only the workspace's first user may."""
    body = decode(call.body, AuditorCreate)
    return Answer({"principal": call.vault.grant_audit(body.principal, history=body.history)})


def ungrant(call: Call) -> Answer:
    """`DELETE /v1/audit/auditors/{who}`. Only the workspace's first user may."""
    return Answer({"principal": call.vault.end_audit(call.params["who"])})
