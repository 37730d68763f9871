"""Runs, steps, conversations and passages as clients read them, and what stands at the end of a turn. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tallystone.letta.messages import Style, date_json, typed
from tallystone.letta.wire import ENDPOINT_TYPES

Record = Mapping[str, Any]


def _date(record: Record, name: str) -> str | None:
    moment = record.get(name)
    return date_json(moment) if moment else None


def stop_reason(run: Record) -> dict[str, str]:
    """The `stop_reason` message of a run that ended."""
    return {"message_type": "stop_reason", "stop_reason": run.get("stop_reason") or "error"}


def usage(run: Record) -> dict[str, Any]:
    """The `usage_statistics` of a run."""
    used = run.get("usage") or {}
    prompt, completion = used.get("prompt", 0), used.get("completion", 0)
    return {
        "message_type": "usage_statistics",
        "completion_tokens": completion,
        "prompt_tokens": prompt,
        "total_tokens": prompt + completion,
        "step_count": used.get("steps", 0),
        "run_ids": [run["id"]],
        "cached_input_tokens": used.get("cached", 0),
        "cache_write_tokens": None,
        "reasoning_tokens": used.get("reasoning", 0),
        "context_tokens": None,
    }


def error_json(run: Record) -> dict[str, Any] | None:
    """The `error_message` of a run that failed, or None."""
    error = run.get("error")
    if not error and run["status"] != "failed":
        return None
    return {
        "message_type": "error_message",
        "run_id": run["id"],
        "error_type": (error or {}).get("type", "internal"),
        "message": (error or {}).get("message", "the turn was cut off"),
        "detail": None,
    }


def echoes(message: Record, compactions: bool) -> bool:
    """Whether a message of a run stands in the answer to who started it: what they said themselves does not."""
    return not message.get("given") and (compactions or message["role"] != "summary")


def response(run: Record, messages: Iterable[Record], style: Style, compactions: bool) -> dict[str, Any]:
    """`LettaResponse`. `error` is ours."""
    return {
        "messages": [
            one for message in messages if echoes(message, compactions) for one in typed(message, style)
        ],
        "stop_reason": stop_reason(run),
        "usage": usage(run),
        "logprobs": None,
        "turns": None,
        "error": error_json(run),
    }


def run_json(run: Record) -> dict[str, Any]:
    """`Run`."""
    completed = run.get("completed") if run["status"] != "running" else None
    return {
        "id": run["id"],
        "agent_id": run["agent"],
        "background": run.get("background", False),
        "base_template_id": None,
        "callback_error": None,
        "callback_sent_at": None,
        "callback_status_code": None,
        "callback_url": None,
        "completed_at": date_json(completed) if completed else None,
        "conversation_id": run["conversation"],
        "created_at": date_json(run["created"]),
        "metadata": {"error": run["error"]} if run.get("error") else {},
        "request_config": None,
        "status": run["status"],
        "stop_reason": run.get("stop_reason"),
        "total_duration_ns": (completed - run["created"]) * 1_000_000 if completed else None,
        "ttft_ns": None,
    }


def step_json(step: Record) -> dict[str, Any]:
    """`Step`."""
    provider, _, model = step["handle"].partition("/")
    return {
        "id": step["id"],
        "agent_id": step["agent"],
        "run_id": step["run"],
        "model": model,
        "model_handle": step["handle"],
        "model_endpoint": None,
        "provider_name": provider if provider in ENDPOINT_TYPES else None,
        "context_window_limit": step["window"],
        "prompt_tokens": step["prompt"],
        "completion_tokens": step["completion"],
        "total_tokens": step["prompt"] + step["completion"],
        "cached_input_tokens": step["cached"],
        "reasoning_tokens": step["reasoning"],
        "messages": [],
        "tags": list(step.get("tags") or ()),
        "feedback": step.get("feedback"),
        "status": "success",
        "stop_reason": None,
        "created_at": date_json(step["created"]),
    }


def conversation_json(record: Record) -> dict[str, Any]:
    """`Conversation`."""
    return {
        "id": record["id"],
        "agent_id": record["agent"],
        "archived": bool(record.get("archived")),
        "archived_at": _date(record, "archived_at"),
        "context_window_limit": record.get("context_window_limit"),
        "created_at": date_json(record["created"]),
        "updated_at": date_json(record["updated"]),
        "created_by_id": None,
        "last_updated_by_id": None,
        "description": record.get("description"),
        "hidden": bool(record.get("hidden")),
        "in_context_message_ids": [],
        "last_message_at": _date(record, "last_message"),
        "model": record.get("model"),
        "model_settings": record.get("model_settings"),
        "summary": record.get("summary"),
    }


def passage_json(passage: Record) -> dict[str, Any]:
    """`Passage`. There are no vectors here."""
    return {
        "id": passage["id"],
        "text": passage["text"],
        "tags": list(passage["tags"]),
        "embedding": None,
        "embedding_config": None,
        "archive_id": None,
        "created_at": date_json(passage["created"]),
        "updated_at": None,
        "created_by_id": None,
        "last_updated_by_id": None,
        "metadata": {},
        "is_deleted": False,
        "file_id": None,
        "file_name": None,
        "source_id": None,
    }
