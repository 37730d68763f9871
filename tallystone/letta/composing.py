"""From what a client sends to what a turn begins with: messages, answers to approval requests, tool returns. Pure.

A history stays consistent because each tool call gets a return before anything else is said: from the client that was
asked, or, where a turn was cut off, from here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tallystone.errors import Invalid, Rejected, Waiting
from tallystone.letta.arguments import clean
from tallystone.letta.messages import Stored, new_id, open_calls

Composed = tuple[list[dict[str, Any]], dict[str, Any]]
INTERRUPTED = "This call was interrupted; whether it took effect is not known."
"""What a call returned of which nobody knows the end."""


def texts(content: Any) -> str:
    """The text of a message's content. Raises `Rejected` for what is no text."""
    if isinstance(content, str):
        return clean(content)
    if not isinstance(content, list):
        raise Invalid(
            "a message's content should be a text or a list of parts", hint='e.g. "content": "hello"'
        )
    parts = []
    for part in content:
        if (
            not isinstance(part, dict)
            or part.get("type", "text") != "text"
            or not isinstance(part.get("text"), str)
        ):
            raise Rejected(
                "this server takes messages of text only",
                hint='send parts like {"type": "text", "text": "…"}',
                code="unsupported",
            )
        parts.append(clean(part["text"]))
    return "\n".join(parts)


def incoming(messages: Sequence[Mapping[str, Any]] | None, given: Any) -> list[dict[str, Any]]:
    """The messages of a request, checked: each with `kind` message, approval or tool_return. Raises `Invalid` (422)."""
    if messages is None and given is None:
        raise Invalid("Must specify either 'input' or 'messages'.", hint='e.g. "input": "hello"')
    if messages is not None and given is not None:
        raise Invalid("both 'input' and 'messages' are given", hint="send one of them")
    if given is not None:
        messages = [{"role": "user", "content": given}]
    assert messages is not None
    if not messages:
        raise Invalid("Messages must not be empty", hint="send at least one message")
    return [_checked(message) for message in messages]


def _checked(message: Mapping[str, Any]) -> dict[str, Any]:
    kind = message.get("type") or ("message" if "role" in message else "")
    if kind == "approval":
        return {"kind": "approval", **_approval(message)}
    if kind == "tool_return":
        returns = message.get("tool_returns")
        if not isinstance(returns, list) or not returns:
            raise Invalid("tool_returns should be a list of returns", hint="one for each call that waits")
        return {"kind": "approval", "approvals": [_return(one) for one in returns]}
    if kind != "message" or message.get("role") not in ("user", "system", "assistant"):
        raise Invalid(
            "a message should have a role (user, system or assistant), or a type (approval or tool_return)",
            hint='e.g. {"role": "user", "content": "hello"}',
        )
    text = texts(message.get("content"))
    if not text.strip():  # some providers refuse it, and with it each later turn whose history holds it
        raise Invalid("a message's content is empty", hint="say something")
    return {
        "kind": "message",
        "role": message["role"],
        "text": text,
        "name": _text(message, "name"),
        "otid": _text(message, "otid"),
        "sender": _text(message, "sender_id"),
    }


def _text(message: Mapping[str, Any], name: str) -> str | None:
    value = message.get(name)
    if value is not None and not isinstance(value, str):
        raise Invalid(f"{name} of a message should be a text", hint="or leave it out")
    return value if value is None else clean(value)


def _approval(message: Mapping[str, Any]) -> dict[str, Any]:
    listed = message.get("approvals")
    if listed is None and not isinstance(message.get("approve"), bool):
        raise Invalid("an approval should say approve: true or false", hint="or list approvals, one a call")
    if listed is not None and (not isinstance(listed, list) or not listed):
        raise Invalid("approvals should be a list", hint="one for each call that waits")
    return {
        "approvals": [_return(one) for one in listed or ()],
        "approve": message.get("approve"),
        "request": _text(message, "approval_request_id"),
        "reason": _text(message, "reason"),
        "otid": _text(message, "otid"),
    }


def _return(one: Any) -> dict[str, Any]:
    if not isinstance(one, dict) or not isinstance(one.get("tool_call_id"), str):
        raise Invalid("an answer to a call should name its tool_call_id", hint="as the request had it")
    call = clean(one["tool_call_id"])
    if "tool_return" in one or one.get("type") == "tool":
        if one.get("status", "success") not in ("success", "error"):
            raise Invalid("status of a tool return should be success or error", hint="success by default")
        text = one.get("tool_return", one.get("func_response")) or ""
        lines = {name: _lines(one.get(name)) for name in ("stdout", "stderr")}
        return {
            "type": "tool", "tool_call_id": call, "tool_return": texts(text),
            "status": one.get("status", "success"), **lines,
        }  # fmt: skip
    if not isinstance(one.get("approve"), bool):
        raise Invalid("an approval should say approve: true or false", hint="for each call")
    return {
        "type": "approval",
        "tool_call_id": call,
        "approve": one["approve"],
        "reason": _text(one, "reason"),
    }


def _lines(value: Any) -> list[str] | None:
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(line, str) for line in value):
        raise Invalid("stdout and stderr of a tool return should be lists of texts", hint="or leave them out")
    return [clean(line) for line in value]


# -- how a turn begins ------------------------------------------------------------------------------------------


def compose(
    sent: Iterable[Mapping[str, Any]],
    run: str,
    now_ms: int,
    record: Mapping[str, Any],
    context: Sequence[Stored],
) -> Composed:
    """What is written down first: answers to what waits, returns for what was cut off, then what was said. Raises
    `Waiting` while an approval is due, `Rejected` for one that nobody waits for."""
    out: list[dict[str, Any]] = []
    last = max([now_ms, *(message["date"] for message in context[-1:])])

    def put(role: str, **fields: Any) -> None:
        made = {"id": new_id("message"), "role": role, "date": last, "run": run, "given": True, **fields}
        out.append({name: value for name, value in made.items() if value is not None})

    message, calls = open_calls(context)
    waiting = message is not None and record.get("pending") == message["id"]
    if not waiting:
        for call in calls:
            put("tool", call=call["id"], name=call["name"], status="error", text=INTERRUPTED)
        calls = []
    for one in sent:
        if one["kind"] == "approval":
            if not waiting or message is None:
                raise Rejected(
                    "no tool call of this agent waits for an approval",
                    hint="list the messages to see what became of it",
                    code="no_pending_approval",
                )
            answers = _answers(one, message, calls)
            put(
                "approval", approvals=list(answers.values()), approve=one.get("approve"),
                request=message["id"], reason=one.get("reason"), otid=one.get("otid"),
            )  # fmt: skip
            for call in calls:
                _settle(put, call, answers[call["id"]])
            waiting = False
        elif waiting:
            raise _waiting()
        else:
            put(one["role"], text=one["text"], name=one["name"], otid=one["otid"], sender=one["sender"])
    if waiting:  # nothing was sent: a summary was asked for
        raise _waiting()
    return out, {"pending": None}


def _waiting() -> Waiting:
    return Waiting(
        "the agent waits for an approval of its tool calls",
        hint="answer the approval request first, or cancel it",
        code="pending_approval",
    )


def _answers(
    one: Mapping[str, Any], message: Stored, calls: Sequence[Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    if one.get("request") not in (None, message["id"]):
        raise Rejected(
            "this approval request is not the one that the agent waits for",
            hint="use the id of the latest approval request",
            code="no_pending_approval",
        )
    answers = {answer["tool_call_id"]: answer for answer in one["approvals"]}
    wanted = [call["id"] for call in calls]
    if not answers:
        same = {"approve": one["approve"], "reason": one.get("reason")}
        answers = {call: {"type": "approval", "tool_call_id": call, **same} for call in wanted}
    if set(answers) != set(wanted) or len(one["approvals"]) > len(answers):
        raise Rejected(
            "the answers are not for the calls that wait",
            hint=f"answer each of these once: {', '.join(wanted)}",
            code="no_pending_approval",
        )
    return answers


def _settle(put: Any, call: Mapping[str, Any], answer: Mapping[str, Any]) -> None:
    """The return of a call that was answered; none for one that was approved, which is still to be run."""
    at = {"call": call["id"], "name": call["name"]}
    if answer["type"] == "tool":
        lines = {"stdout": answer["stdout"], "stderr": answer["stderr"]}
        put("tool", **at, status=answer["status"], text=answer["tool_return"], **lines)
    elif not answer["approve"]:
        reason = f" Reason: {answer['reason']}" if answer.get("reason") else ""
        put("tool", **at, status="error", text=f"The call was denied, and was not made.{reason}")


def dismissed(run: str, now_ms: int, record: Mapping[str, Any], context: Sequence[Stored]) -> Composed:
    """What is written down when calls that wait for an approval are cancelled."""
    message, calls = open_calls(context)
    out = [
        {
            "id": new_id("message"), "role": "tool", "date": now_ms, "run": run, "given": True,
            "call": call["id"], "name": call["name"], "status": "error",
            "text": "The call was cancelled, and was not made.",
        }
        for call in calls
        if message is not None and record.get("pending") == message["id"]
    ]  # fmt: skip
    return out, {"pending": None}
