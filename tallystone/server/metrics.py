"""What an operator watches, for Prometheus: `GET /metrics`. Needs the extra `operations`.

No label holds a principal, a block, a label or a path: only routes' templates, methods, statuses, codes of errors, and
the names of witnesses, which the settings give.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from hmac import compare_digest
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tallystone.errors import Invalid, StoreError, TallystoneError
from tallystone.letta.routes_lists import server_version
from tallystone.server.errors import no_token, unknown_path
from tallystone.server.status import Status
from tallystone.vault import Workspace

if TYPE_CHECKING:
    from tallystone.server.settings import Settings

PATH = b"/metrics"
SHARED = "PROMETHEUS_MULTIPROC_DIR"
"""The variable that names the folder through which several processes' numbers are added up: prometheus-client's own."""

_FORWARDED = ("forwarded", "x-forwarded-for", "x-real-ip", "via")
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)
_BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Readers:
    """Who may read the metrics: this machine, or whoever has a token that is for this alone."""

    def __init__(self, settings: Settings) -> None:
        """Raises `Invalid` for a setting without its file of a token."""
        self._token = b""
        if settings.metrics == "token":
            if settings.metrics_token is None:
                raise Invalid(
                    "metrics = token without metrics_token", hint="name the file that holds the token"
                )
            self._token = _read(settings.metrics_token)

    def check(self, peer: str, headers: Mapping[str, str]) -> None:
        """Raises `Refusal`: 401 without the token, 404 from elsewhere, which a proxy is."""
        if self._token:
            scheme, _, token = headers.get("authorization", "").strip().partition(" ")
            if scheme.lower() != "bearer" or not compare_digest(token.strip().encode(), self._token):
                raise no_token()
        elif not _is_loopback(peer) or any(name in headers for name in _FORWARDED):
            raise unknown_path()


class Metrics:
    """The numbers of one process, and those of all that share the folder which the environment names."""

    def __init__(self, workspace: Workspace, status: Status, worker: int | None, starts: int = 0) -> None:
        """`worker`: which of several processes this is. Raises `Invalid` if the library is not installed."""
        try:
            import prometheus_client as library
            from prometheus_client import multiprocess, values
        except ModuleNotFoundError:
            raise Invalid(
                "the setting metrics needs prometheus-client", hint="pip install 'tallystone[operations]'"
            ) from None
        without: Any = library.disable_created_metrics
        without()  # when each began to be counted: a second line for each, of no use here
        self._library = library
        self._registry = library.CollectorRegistry()
        own: Any = self._registry
        if worker is not None:
            # Named by its place and not by its process: who takes the place goes on with the numbers.
            untyped: Any = values.MultiProcessValue
            values.ValueClass = untyped(process_identifier=lambda: worker)
            collector: Any = multiprocess.MultiProcessCollector
            collector(self._registry)
            own = None
        made = _Made(library, own)
        self._answers: dict[tuple[str, str, int], tuple[Any, Any]] = {}
        routes = ["route", "method"]
        self._requests = made.counter("requests", "Requests that were answered.", [*routes, "status"])
        self._seconds = made.histogram(
            "request_seconds", "Time until the answer began, in seconds.", routes, _SECONDS
        )
        self._refusals = made.counter("refusals", "Answers that are errors, by their code.", ["code"])
        self._groups = made.histogram("commit_batches", "Operations that one commit wrote.", [], _BATCHES)
        self._commit_seconds = made.histogram(
            "commit_seconds", "Time of one commit, in seconds.", [], _SECONDS
        )
        self._refused = made.counter("commit_refusals", "Operations that a commit did not write.", [])
        self._gauges = {
            name: made.gauge(name, text)
            for name, text in (
                ("requests_working", "Requests in threads, or waiting for one."),
                ("commits_waiting", "Operations that wait to be written."),
                ("connections", "Connections that are open."),
                ("feed_listeners", "Streams of changes that are open."),
                ("body_bytes", "Bytes of requests' bodies that are held."),
            )
        }
        made.gauge("worker_restarts", "Processes that were replaced.").set(starts)
        self._registry.register(_Shared(library, workspace, status))
        workspace.store.observe(self)

    def answered(self, route: str, method: str, status: int, code: str, seconds: float) -> None:
        """Count an answer. `code` is empty if it is no error."""
        known = self._answers.get((route, method, status))
        if known is None:  # few: routes, methods and statuses are ours
            known = (self._requests.labels(route, method, str(status)), self._seconds.labels(route, method))
            self._answers[route, method, status] = known
        known[0].inc()
        known[1].observe(seconds)
        if code:
            self._refusals.labels(code).inc()

    def wrote(self, batches: int, refused: int, seconds: float) -> None:
        """See `CommitObserver`."""
        self._groups.observe(batches)
        self._commit_seconds.observe(seconds)
        if refused:
            self._refused.inc(refused)

    def waited(self, began: int, ended: int) -> None:
        """See `CommitObserver`."""

    def now(self, gauges: Mapping[str, int]) -> None:
        """Note what is so at the moment, by the names of the gauges."""
        for name, value in gauges.items():
            self._gauges[name].set(value)

    def exposition(self) -> tuple[bytes, str]:
        """The text for Prometheus and its media type. Reads the store."""
        return self._library.generate_latest(self._registry), self._library.CONTENT_TYPE_LATEST


class _Made:
    """Makes metrics of our names."""

    def __init__(self, library: Any, registry: Any) -> None:
        self._library, self._registry = library, registry

    def counter(self, name: str, text: str, labels: list[str]) -> Any:
        return self._library.Counter(f"tallystone_{name}", text, labels, registry=self._registry)

    def histogram(self, name: str, text: str, labels: list[str], buckets: tuple[float, ...]) -> Any:
        return self._library.Histogram(
            f"tallystone_{name}", text, labels, registry=self._registry, buckets=buckets
        )

    def gauge(self, name: str, text: str) -> Any:
        return self._library.Gauge(
            f"tallystone_{name}", text, registry=self._registry, multiprocess_mode="livesum"
        )


class _Shared:
    """What all processes know alike: read when it is asked for."""

    def __init__(self, library: Any, workspace: Workspace, status: Status) -> None:
        self._library, self._workspace, self._status = library, workspace, status

    def collect(self) -> Iterator[Any]:
        """The metrics, as the library wants them."""
        gauge = self._library.metrics_core.GaugeMetricFamily
        for name, text, read in self._numbers():
            try:
                value = read()
            except (TallystoneError, OSError):
                continue  # what cannot be read is not there; `tallystone_store_up` says so
            if value is not None:
                yield gauge(f"tallystone_{name}", text, value=value)
        family = gauge(
            "tallystone_witness_age_seconds", "Since a witness cosigned the log.", labels=["witness"]
        )
        try:
            for witness in self._workspace.log.witnesses():
                if witness.time is not None:
                    family.add_metric([witness.name], max(0, self._workspace.now() - witness.time))
        except StoreError:
            return
        yield family
        version = gauge("tallystone_info", "The version that runs.", labels=["version"])
        version.add_metric([server_version()], 1)
        yield version

    def _numbers(self) -> tuple[tuple[str, str, Callable[[], float | None]], ...]:
        check = self._status.check
        return (
            ("store_up", "1 if the store answers and has the tables of this version.", self._up),
            ("log_leaves", "Leaves of the log.", self._workspace.log.probe),
            ("store_bytes", "Bytes of the store on disk.", self._workspace.store.size),
            (
                "log_check_findings",
                "What the last check of the log found.",
                lambda: None if check is None else check.findings,
            ),
            (
                "log_check_age_seconds",
                "Since the log was last checked.",
                lambda: None if check is None else max(0, self._workspace.now() - check.at),
            ),
        )

    def _up(self) -> float:
        try:
            self._workspace.log.probe()
        except TallystoneError:
            return 0
        return 1


def prepare(folder: Path) -> None:
    """Let the processes that are forked from this one add up their numbers in this folder, which must be empty."""
    os.environ[SHARED] = str(folder)


def _is_loopback(peer: str) -> bool:
    try:
        return ip_address(peer).is_loopback
    except ValueError:
        return False


def _read(path: Path) -> bytes:
    try:
        token = path.read_bytes().strip()
    except OSError as error:
        raise Invalid(
            f"cannot read {path}: {error.strerror}", hint="check the setting metrics_token"
        ) from None
    if len(token) < 16:
        raise Invalid(
            f"the token in {path} is shorter than 16 bytes", hint="make one with: openssl rand -hex 32"
        )
    return token
