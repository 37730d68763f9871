"""Metrics and traces count and time; they name no principal, no block, no label, no path, and need their extra."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tallystone.errors import Invalid
from tallystone.server.app import App
from tallystone.server.metrics import Metrics, Readers
from tallystone.server.settings import Settings
from tallystone.server.status import Check, Status
from tallystone.server.traces import Traces
from tallystone.vault import Workspace

SECRETS = ("markerlabel", "markervalue", "markerword", "markerquery", "markerheader")


@dataclass
class Watched:
    """An application whose operator watches, and what its clients were given."""

    app: App
    workspace: Workspace
    token: str
    user: str
    block: str

    def ask(self, method: str, path: str, client: str = "127.0.0.1", **options: Any) -> httpx.Response:
        """One request."""

        async def run() -> httpx.Response:
            transport = httpx.ASGITransport(app=self.app, client=(client, 1))
            async with httpx.AsyncClient(transport=transport, base_url="http://t") as http:
                return await http.request(method, path, **options)

        return anyio.run(run)


def life(watched: Watched) -> None:
    """Requests of each kind, with words in them that no operator should see."""
    own = {"authorization": f"Bearer {watched.token}", "x-note": "markerheader"}
    made = watched.ask(
        "POST", "/v1/blocks/", headers=own, json={"label": "markerlabel", "value": "markervalue"}
    ).json()
    watched.block = made["id"]
    assert watched.ask("GET", f"/v1/blocks/{made['id']}?x=markerquery", headers=own).status_code == 200
    assert watched.ask("GET", "/v1/blocks/markerword", headers=own).status_code == 422
    assert watched.ask("GET", "/markerword", headers=own).status_code == 404
    assert watched.ask("MARKERWORD", "/v1/blocks/", headers=own).status_code == 405
    assert watched.ask("MARKERWORD", "/v1/invitations/redeem").status_code == 405
    assert watched.ask("GET", "/v1/blocks/").status_code == 401


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    """What was traced since the test began. The library allows one provider a process."""
    provider = trace.get_tracer_provider()
    if not isinstance(provider, TracerProvider):
        provider = TracerProvider()
        trace.set_tracer_provider(provider)
    exporter = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    yield exporter
    exporter.shutdown()


@pytest.fixture
def watched(tmp_path: Path, spans: InMemorySpanExporter) -> Iterator[Watched]:
    """See `Watched`."""
    workspace, credentials = Workspace.init(tmp_path / "data")
    with workspace:
        status = Status(workspace.folder)
        status.checked(Check(int(workspace.now()) - 30, 5, 9))
        app = App(
            workspace,
            metrics=Metrics(workspace, status, None),
            readers=Readers(Settings(metrics="loopback")),
            traces=Traces(workspace),
            status=status,
        )
        yield Watched(app, workspace, credentials.token, credentials.principal, "")


def value(text: str, line: str) -> float:
    """The number of one line of an exposition."""
    (found,) = re.findall(rf"^{re.escape(line)} (.+)$", text, flags=re.MULTILINE)
    return float(found)


def test_metrics_count_and_name_nobody(watched: Watched) -> None:
    life(watched)
    answer = watched.ask("GET", "/metrics")
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/plain; version=")
    text = answer.text
    one = 'method="GET",route="/v1/blocks/{block_id}"'
    assert value(text, f'tallystone_requests_total{{{one},status="200"}}') == 1
    assert value(text, f'tallystone_requests_total{{{one},status="422"}}') == 1
    assert value(text, f"tallystone_request_seconds_count{{{one}}}") == 2
    assert value(text, 'tallystone_refusals_total{code="unauthenticated"}') == 1
    assert value(text, 'tallystone_refusals_total{code="unknown_path"}') == 1
    assert value(text, "tallystone_commit_batches_count") >= 5
    assert value(text, "tallystone_commit_batches_sum") >= value(text, "tallystone_commit_batches_count")
    assert value(text, "tallystone_log_leaves") == watched.workspace.log.probe()
    assert value(text, "tallystone_log_check_age_seconds") >= 30
    assert value(text, "tallystone_store_bytes") > 4096 and value(text, "tallystone_store_up") == 1
    labels = set(re.findall(r'(\w+)="', text))
    assert labels <= {"route", "method", "status", "code", "le", "witness", "version"}
    for secret in (*SECRETS, watched.user, watched.block, watched.token):
        assert secret.lower() not in text.lower()


def test_metrics_tell_of_a_store_that_is_gone(watched: Watched) -> None:
    watched.workspace.close()
    text = watched.ask("GET", "/metrics").text
    assert value(text, "tallystone_store_up") == 0
    assert "tallystone_log_leaves " not in text


def test_metrics_are_for_this_machine_and_not_for_what_comes_through_a_proxy(watched: Watched) -> None:
    elsewhere = watched.ask("GET", "/metrics", client="10.0.0.1")
    nowhere = watched.ask("GET", "/nothing", client="10.0.0.1")
    assert (elsewhere.status_code, elsewhere.json()) == (404, nowhere.json())
    for name in ("x-forwarded-for", "forwarded", "via", "x-real-ip"):
        assert watched.ask("GET", "/metrics", headers={name: "127.0.0.1"}).status_code == 404
    assert watched.ask("GET", "/metrics", client="::1").status_code == 200
    assert watched.ask("POST", "/metrics").status_code == 405


def test_metrics_may_have_a_token_of_their_own(watched: Watched, tmp_path: Path) -> None:
    token = "0123456789abcdef" * 2
    (tmp_path / "token").write_text(token + "\n")
    watched.app._readers = Readers(Settings(metrics="token", metrics_token=tmp_path / "token"))
    for sent in ({}, {"authorization": f"Bearer {watched.token}"}, {"authorization": f"Bearer {token}x"}):
        assert watched.ask("GET", "/metrics", headers=sent).status_code == 401
    answer = watched.ask("GET", "/metrics", client="10.0.0.1", headers={"authorization": f"Bearer {token}"})
    assert answer.status_code == 200
    assert watched.ask("GET", "/v1/blocks/", headers={"authorization": f"Bearer {token}"}).status_code == 401


def test_metrics_are_off_unless_asked_for(watched: Watched) -> None:
    app = App(watched.workspace)
    bare = Watched(app, watched.workspace, watched.token, watched.user, "")
    assert bare.ask("GET", "/metrics").status_code == 404


@pytest.mark.parametrize("token", [None, "/nowhere/token", "short"])
def test_a_token_that_is_none_is_a_clear_error(token: str | None, tmp_path: Path) -> None:
    path = None if token is None else Path(token)
    if token == "short":
        path = tmp_path / "token"
        path.write_text(token)
    with pytest.raises(Invalid):
        Readers(Settings(metrics="token", metrics_token=path))


# -- traces -----------------------------------------------------------------------------------------------------------

ATTRIBUTES = {
    "http.route",
    "http.request.method",
    "http.response.status_code",
    "error.type",
    "tallystone.leaves",
    "tallystone.commit.batches",
    "tallystone.commit.refused",
}


def test_traces_time_requests_operations_and_commits_and_quote_nothing(
    watched: Watched, spans: InMemorySpanExporter
) -> None:
    life(watched)
    found = spans.get_finished_spans()
    made = next(span for span in found if span.name == "POST /v1/blocks/")
    assert made.attributes is not None and made.attributes["http.response.status_code"] == 200
    (operation,) = below(found, made)
    assert operation.name == "vault"
    assert [span.name for span in below(found, operation)] == ["commit"]
    refused = next(span for span in found if (span.attributes or {}).get("error.type") == "unknown_path")
    assert refused.name == "GET -"
    for span in found:
        assert set(span.attributes or {}) <= ATTRIBUTES
        assert not span.events  # an exception's words would be one
    told = "".join(span.to_json() for span in found).lower()
    for secret in (*SECRETS, watched.user, watched.block, watched.token):
        assert secret.lower() not in told


def below(found: tuple[ReadableSpan, ...], parent: ReadableSpan) -> list[ReadableSpan]:
    return [span for span in found if span.parent is not None and span.parent == parent.context]


def test_a_trace_goes_on_from_the_callers(watched: Watched, spans: InMemorySpanExporter) -> None:
    parent = f"00-{'ab' * 16}-{'cd' * 8}-01"
    headers = {"traceparent": parent, "baggage": "secret=markerword"}
    watched.ask("GET", "/v1/health/", headers=headers)
    (span,) = spans.get_finished_spans()
    assert span.context is not None and f"{span.context.trace_id:032x}" == "ab" * 16
    assert "markerword" not in span.to_json()


# -- without the extra ------------------------------------------------------------------------------------------------

WITHOUT = """
import sys
sys.modules["prometheus_client"] = sys.modules["opentelemetry"] = None
from pathlib import Path
from tallystone.errors import Invalid
from tallystone.server.run import running
from tallystone.server.settings import Settings
from tallystone.vault import Workspace
workspace, _ = Workspace.init(Path(sys.argv[1]))
with workspace:
    with running(workspace, Settings(port=0, log_level="error")):
        print("serves")
    for asked in ({"metrics": "loopback"}, {"traces": True}):
        try:
            with running(workspace, Settings(port=0, log_level="error", **asked)):
                print("serves")
        except Invalid as error:
            print(error.hint)
"""


def test_a_server_runs_without_the_extra_and_says_when_it_is_needed(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, str(tmp_path / "data")], capture_output=True, text=True, check=True
    )
    hint = "pip install 'tallystone[operations]'"
    assert done.stdout.splitlines() == ["serves", hint, hint]


# -- what is told of them ---------------------------------------------------------------------------------------------

ROOT = Path(__file__).resolve().parent.parent


def test_every_metric_is_documented_and_every_rule_names_one(watched: Watched) -> None:
    life(watched)
    text = watched.ask("GET", "/metrics").text
    families = set(re.findall(r"^# TYPE tallystone_(\w+) ", text, flags=re.MULTILINE))
    documented = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    assert [name for name in families if f"`{name}`" not in documented] == []
    rules = (ROOT / "deploy" / "prometheus-rules.yml").read_text(encoding="utf-8")
    named = set(re.findall(r"\btallystone_(\w+?)(?:_bucket)?\b", rules))
    assert len(named) >= 8 and named <= families
