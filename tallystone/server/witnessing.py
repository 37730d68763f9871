"""Asking outside witnesses to cosign the log's checkpoints (C2SP `tlog-witness`), beside the server's requests.

Each witness has a thread of its own, so that one that hangs holds up nobody. Of many checkpoints only the newest is
asked for, one at a time. What goes wrong is logged and shown in `GET /v1/log/witnesses`; the server serves on.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import structlog

from tallystone.errors import Invalid, TallystoneError, Tampered
from tallystone.letta.hosts import Hosts, origin
from tallystone.vault import Workspace
from tallystone.vault.awaiting import SECONDS as WAIT
from tallystone.vault.awaiting import Awaited
from tallystone.vault.cosigning import Cosigning, witness_name

if TYPE_CHECKING:
    from tallystone.server.settings import Settings

SECONDS = 10.0
"""How long one call of a witness may take, from the first byte to the last."""
TOGETHER = 1.0
"""Seconds between two calls of a witness that answers: checkpoints of that time are asked for together."""
LOOK = 0.1
"""Seconds between two looks at what another process has kept, while somebody waits for it."""
POLL = 30.0
"""Seconds after which the head is looked at although nothing woke us: another process may have written."""
LONGEST_PAUSE = 300.0
"""Seconds between two calls of a witness that keeps failing, at most."""
MAX_ANSWER = 65_536
"""Bytes that an answer may have."""

_log = structlog.get_logger("tallystone.server")


@dataclass(frozen=True)
class Witness:
    """Where a witness takes checkpoints, and the key that its cosignatures verify with."""

    url: str
    key: str


def read_witnesses(pairs: Mapping[str, object]) -> tuple[tuple[str, str], ...]:
    """The setting `witnesses`: URL → verifier key, checked. Raises `Invalid`."""
    for url, key in pairs.items():
        if not isinstance(key, str):
            raise Invalid(
                "should be URL=KEY for each witness", hint="KEY is the verifier key: name+id+base64"
            )
        origin(url)
        witness_name(key)
    return tuple((url, str(key)) for url, key in pairs.items())


def configured(settings: Settings) -> list[Witness]:
    """The witnesses that the settings name. Raises `Invalid` for one that `allowed_hosts` does not let us call."""
    hosts = None if settings.allowed_hosts is None else Hosts(settings.allowed_hosts)
    found = [Witness(url, key) for url, key in settings.witnesses]
    for witness in found:
        if hosts is not None and not hosts.allows(witness.url):
            raise Invalid(
                f"the host of the witness {witness_name(witness.key)} is not in allowed_hosts",
                hint="add it to allowed_hosts, or take the witness out of witnesses",
            )
    return found


class Witnessing:
    """The witnesses of one workspace, and what asks them."""

    def __init__(
        self, workspace: Workspace, witnesses: list[Witness], poll: float = POLL, seconds: float = WAIT
    ) -> None:
        """`poll`: seconds after which the head is looked at although nothing woke us. `seconds`: how long an answer
        waits for a cosignature where a block asks for one."""
        self._workspace, self._witnesses, self._poll = workspace, witnesses, poll
        self.askers: list[Asker] = []
        self._awaited = Awaited(seconds, self.hurry) if witnesses else None
        self._logs = [Cosigning(workspace, witness.key) for witness in witnesses]
        self._watch: threading.Thread | None = None
        self._lock = threading.Lock()

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Let answers wait for witnesses while the body runs, whichever process asks them."""
        self._workspace.awaited = self._awaited
        try:
            yield
        finally:
            self._workspace.awaited = None

    def hurry(self) -> None:
        """Somebody waits for what the log now holds. Where another process asks, we look at what it has kept."""
        for asker in self.askers:
            asker.hurry()
        with self._lock:
            if not self.askers and (self._watch is None or not self._watch.is_alive()):
                self._watch = threading.Thread(target=self._look, name="tallystone-witnessed", daemon=True)
                self._watch.start()

    def _look(self) -> None:
        awaited = self._awaited
        while awaited is not None and awaited.waiting:
            with suppress(TallystoneError):
                awaited.reached(max(log.cosigned() for log in self._logs))
            time.sleep(LOOK)

    def wake(self) -> None:
        """The log has grown."""
        for asker in self.askers:
            asker.wake()

    @contextmanager
    def under_way(self) -> Iterator[None]:
        """Ask while the body runs."""
        self.askers = [Asker(self._workspace, witness, poll=self._poll) for witness in self._witnesses]
        for asker in self.askers:
            asker.start()
        try:
            yield
        finally:
            asked, self.askers = self.askers, []
            for asker in asked:
                asker.stop()


class Asker:
    """Keeps one witness up to date."""

    def __init__(
        self,
        workspace: Workspace,
        witness: Witness,
        clock: Callable[[], float] = time.time,
        poll: float = POLL,
    ) -> None:
        self._url = witness.url
        self._log = Cosigning(workspace, witness.key)
        self._log.shown("")
        self._clock, self._poll = clock, poll
        self._awake = threading.Event()
        self._urgent = threading.Event()
        self._stopped = threading.Event()
        name = f"tallystone-witness-{self._log.name}"
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def wake(self) -> None:
        """Look at the head soon."""
        self._awake.set()

    def hurry(self) -> None:
        """Look at the head at once: somebody waits for it. Those who wait by then share a call."""
        self._urgent.set()
        self._awake.set()

    def start(self) -> None:
        """Begin to ask, in a thread."""
        self._thread.start()

    def stop(self) -> None:
        """Ask no more. A call under way is not waited for: nothing is lost by it."""
        self._stopped.set()
        self.hurry()
        self._thread.join(timeout=1)

    def _run(self) -> None:
        failures = 0
        while not self._stopped.is_set():
            self._awake.clear()
            self._urgent.clear()  # before the head is read: who hurries us later waits for the next call
            failures = 0 if self.ask() else failures + 1
            if failures:
                # one that fails is not asked more than once in this time, however many wait
                if not self._stopped.wait(TOGETHER):
                    self._urgent.wait(min(2.0**failures, LONGEST_PAUSE))
            elif not self._urgent.wait(TOGETHER):
                self._awake.wait(self._poll)

    def ask(self) -> bool:
        """Have the newest checkpoint cosigned, unless it is. False if that failed; the reason is then in the status."""
        try:
            self._ask()
        except TallystoneError as error:
            refused = self._log.restored and error.code in ("rolled_back", "another_log", "witness_refused")
            self._failed(error.message + (_RESTORED if refused else ""))
            return False
        except Exception as error:  # a witness is a stranger: nothing that it sends may end the thread
            self._failed(f"unexpected {type(error).__name__}")
            return False
        self._log.shown("")
        return True

    def _failed(self, problem: str) -> None:
        self._log.shown(problem)
        _log.warning("witness", witness=self._log.name, problem=problem)

    def _ask(self) -> None:
        sent = self._log.due(self._clock())
        if sent is None:
            return
        status, kind, answer = self._post(sent.body)
        if status == 409 and kind.startswith("text/x.tlog.size"):
            # It has seen another tree of ours than we know of: a file was lost, or the answer to a call was.
            sent = self._log.told(sent, answer)
            status, kind, answer = self._post(sent.body)
        if status != 200:
            raise Tampered(_REFUSALS.get(status, f"answered {status}"), code="witness_refused")
        self._log.accept(sent, answer, self._clock())

    def _post(self, body: bytes) -> tuple[int, str, bytes]:
        """(status, content type, body). Follows no redirect, takes no proxy. Raises `Tampered` when there is no
        answer in time, or a longer one than any should be.
        """
        parts = urlsplit(self._url)
        connect = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        connection = connect(parts.hostname or "", parts.port, timeout=SECONDS)
        # The timeout of a socket begins anew with each byte: whoever drips is cut off by the clock.
        call = _Call(connection)
        watch = threading.Timer(SECONDS, call.cut)
        watch.daemon = True
        watch.start()
        try:
            headers = {"content-type": "text/plain; charset=utf-8", "accept-encoding": "identity"}
            connection.request("POST", parts.path.rstrip("/") + "/add-checkpoint", body, headers)
            answer = connection.getresponse()
            content = answer.read(MAX_ANSWER + 1)
            kind = answer.headers.get("content-type", "")
        except (OSError, HTTPException, ValueError) as error:
            late = call.is_cut or isinstance(error, TimeoutError)
            reason = "in time" if late else f"({type(error).__name__})"
            raise Tampered(f"does not answer {reason}", code="witness_silent") from None
        finally:
            watch.cancel()
            connection.close()
            call.close()
        if call.is_cut:  # what was read ends where we cut it off
            raise Tampered("does not answer in time", code="witness_silent")
        if len(content) > MAX_ANSWER:
            raise Tampered("answers with more than any cosignature takes", code="witness_refused")
        return answer.status, kind, content


_REFUSALS = {
    403: "does not know this log's key: give it the one that tallystone audit witnesses shows",
    404: "does not know this log: give it the key that tallystone audit witnesses shows",
    409: "names another size each time that it is asked",
    422: "does not accept that the log grew out of what it has seen",
}


_RESTORED = "; a backup was restored: its operator has to let it forget the log that was lost"


class _Call:
    """One call of a witness, which another thread can cut off at any moment: while it looks the name up or connects, in
    the middle of a TLS handshake, whose socket the connection does not show yet, and after."""

    def __init__(self, connection: HTTPConnection) -> None:
        self.is_cut = False
        self._line: socket.socket | None = None
        self._lock = threading.Lock()
        # What `http.client` calls to connect: the one place that sees the plain socket.
        connection._create_connection = self._connect  # type: ignore[attr-defined]  # no public name for it

    def _connect(
        self, address: tuple[str, int], timeout: float, source: tuple[str, int] | None = None
    ) -> socket.socket:
        made = socket.create_connection(address, timeout, source)
        with self._lock:
            if self.is_cut:
                made.close()
                raise TimeoutError
            self._line = made.dup()  # wrapping the socket takes the original's number away
        return made

    def cut(self) -> None:
        """End it: whoever reads or writes there gets an error."""
        with self._lock:
            self.is_cut = True
            if self._line is not None:
                with suppress(OSError):  # it has ended by itself
                    self._line.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Give the number back."""
        with self._lock:
            if self._line is not None:
                self._line.close()
                self._line = None
