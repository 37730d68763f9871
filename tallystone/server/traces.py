"""OpenTelemetry traces of requests, vault operations and commits. Needs the extra `operations`.

This uses the API alone: whoever wants the spans brings the SDK and an exporter, as `opentelemetry-instrument` does, and
sets them up by the environment (`OTEL_…`). A span says which route, how it ended and how many; nothing of a request's
path, query, headers or body, no principal, no id. Errors are named by their code: an exception would be quoted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tallystone.errors import Invalid
from tallystone.letta.routes_lists import server_version
from tallystone.vault import Workspace


class Traces:
    """Where the spans of one process begin."""

    def __init__(self, workspace: Workspace) -> None:
        """Raises `Invalid` if the library is not installed."""
        try:
            from opentelemetry import trace
            from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
        except ModuleNotFoundError:
            raise Invalid(
                "the setting traces needs opentelemetry-api", hint="pip install 'tallystone[operations]'"
            ) from None
        self._trace = trace
        self._tracer = trace.get_tracer("tallystone", server_version())
        self._parents = TraceContextTextMapPropagator()  # no baggage: others may write anything into it
        workspace.store.observe(self)

    @contextmanager
    def request(self, headers: Mapping[str, str]) -> Iterator[Any]:
        """The span of a request, below the one that its `traceparent` names. `ended` closes what it says."""
        parent = self._parents.extract(headers) if "traceparent" in headers else None
        with self._tracer.start_as_current_span(
            "request",
            context=parent,
            kind=self._trace.SpanKind.SERVER,
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            yield span

    def answered(self, span: Any, route: str, method: str, status: int, code: str, leaves: int) -> None:
        """Say of a request's span how it was answered."""
        span.update_name(f"{method} {route}")
        span.set_attributes(
            {
                "http.route": route,
                "http.request.method": method,
                "http.response.status_code": status,
                "tallystone.leaves": leaves,
            }
        )
        if code:
            span.set_attribute("error.type", code)
        if status >= 500:
            span.set_status(self._trace.StatusCode.ERROR)

    @contextmanager
    def operation(self, route: str) -> Iterator[None]:
        """The span of what the vault does for a request."""
        with self._tracer.start_as_current_span(
            "vault", record_exception=False, set_status_on_exception=False
        ) as span:
            span.set_attribute("http.route", route)
            yield

    def wrote(self, batches: int, refused: int, seconds: float) -> None:
        """See `CommitObserver`: the group's numbers, on the span of the request whose thread wrote it."""
        span = self._trace.get_current_span()
        span.set_attributes({"tallystone.commit.batches": batches, "tallystone.commit.refused": refused})

    def waited(self, began: int, ended: int) -> None:
        """See `CommitObserver`: a span from when the batch was handed in until it was durable."""
        self._tracer.start_span("commit", start_time=began).end(end_time=ended)
