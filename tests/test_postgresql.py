"""What the store promises on PostgreSQL beyond what it promises everywhere: lost connections, other processes' locks,
databases that are somebody else's, and what its schema must be.
"""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import Any

import pytest
from postgresql_wire import AFTER, BEFORE, Wire
from store_rows import FIRST_ROW, LOG_SEED, NOW, WORKSPACE_ID, begin, check, counter, sequencer
from stores import new_database, postgresql_only, ready_database, server

from tallystone.audit.sequencer import LogSequencer
from tallystone.errors import Invalid, StoreError, StoreFull, TallystoneError
from tallystone.store.opening import check_url, has_password, locate, make_store, note, without_password
from tallystone.store.protocol import Batch, Delete, Event, Put, Row, RowChange, Store
from tallystone.store.tables import BLOCK, KIT, LOG_DETAIL, LOG_HEAD, SHELF, WORKSPACE, WS

pytestmark = postgresql_only

PASSWORD = "correct-horse-battery"


@pytest.fixture
def url() -> str:
    return ready_database()


def opened(url: str, create: bool = False) -> Any:
    from tallystone.store.postgresql import PostgresqlStore

    return PostgresqlStore(url, sequencer(), create)


def run(url: str, *statements: str) -> list[tuple[Any, ...]]:
    """Past the store, as an operator would."""
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            done = connection.execute(statement)
        return done.fetchall() if done.description else []


def end_sessions(url: str) -> None:
    """End all sessions of stores, as a restart of the server does."""
    run(
        url,
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
        " WHERE datname = current_database() AND application_name = 'tallystone'",
    )


def code_of(attempt: Callable[[], object]) -> str:
    with pytest.raises(StoreError) as caught:
        attempt()
    assert caught.value.hint or caught.value.code == "refused"
    return caught.value.code


def read(store: Store) -> Row | None:
    with store.snapshot() as snapshot:
        return snapshot.get(BLOCK, (WS, b"counter"))


# -- a connection that is lost ----------------------------------------------------------------------------------


class Armed(LogSequencer):
    """Calls `act` once, when a transaction has its locks and nothing is written yet."""

    def __init__(self) -> None:
        super().__init__(WORKSPACE_ID, LOG_SEED, lambda: NOW)
        self.act: Callable[[], None] | None = None

    def sequence(self, head: Row | None, events: Sequence[Event], changes: Sequence[RowChange]) -> list[Put]:
        act, self.act = self.act, None
        if act is not None:
            act()
        return super().sequence(head, events, changes)


@pytest.fixture
def wire(url: str) -> Iterator[Wire]:
    with closing(Wire(url)) as made:
        yield made


@pytest.fixture
def armed(wire: Wire) -> Iterator[tuple[Any, Armed]]:
    """A store behind the wire, and its log."""
    from tallystone.store.postgresql import PostgresqlStore

    log = Armed()
    with begin(PostgresqlStore(wire.url, log, True)) as store:
        yield store, log


@pytest.mark.parametrize("moment", [BEFORE, AFTER])
def test_a_commit_whose_connection_is_lost_happens_once_and_is_acknowledged(
    wire: Wire, armed: tuple[Any, Armed], moment: str
) -> None:
    store, log = armed
    log.act = lambda: setattr(wire, "cut_at", moment)
    seq = store.commit(Batch(changes=[Put(BLOCK, counter(1))], events=[Event("write", b"once")]))
    with store.snapshot() as snapshot:
        details = [row[2] for row in snapshot.rows(LOG_DETAIL)]
    assert details == [b"workspace", b"once"]
    assert seq == 2
    assert store.commit(Batch(events=[Event("read", b"next")])) == 4
    assert check(store).ok


@pytest.mark.parametrize("moment", [BEFORE, AFTER])
def test_a_group_whose_connection_is_lost_is_told_one_by_one_what_happened(
    wire: Wire, armed: tuple[Any, Armed], moment: str
) -> None:
    store, log = armed
    answers: dict[int, int] = {}

    def commit(number: int) -> None:
        answers[number] = store.commit(Batch(events=[Event("read", b"%d" % number)]))

    threads = [threading.Thread(target=commit, args=(number,)) for number in range(12)]
    log.act = lambda: setattr(wire, "cut_at", moment)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    with store.snapshot() as snapshot:
        details = {row[1]: row[2] for row in snapshot.rows(LOG_DETAIL)}
    assert {answers[number]: b"%d" % number for number in range(12)} | {0: b"workspace"} == details
    assert check(store).ok


def test_a_commit_of_which_nobody_can_say_what_became_says_so_and_the_store_recovers(
    wire: Wire, armed: tuple[Any, Armed], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tallystone.store.postgresql_writer.PATIENCE", 0.1)
    store, log = armed

    def cut() -> None:
        wire.up = False
        wire.cut()

    log.act = cut
    batch = Batch(changes=[Put(BLOCK, counter(1))], events=[Event("write", b"lost")])
    assert code_of(lambda: store.commit(batch)) == "outcome_unknown"
    assert code_of(lambda: store.commit(batch)) == "unreachable"
    assert code_of(lambda: read(store)) == "unreachable"
    wire.up = True
    assert read(store) is None
    store.commit(batch)
    assert read(store) == counter(1)
    assert check(store).ok


def test_a_restarted_server_is_noticed_by_nobody_who_was_idle(url: str) -> None:
    with begin(opened(url, True)) as store:
        for number in range(3):
            store.commit(Batch(changes=[Put(BLOCK, counter(number))]))
            assert read(store) == counter(number)
            end_sessions(url)
        assert read(store) == counter(2)
        assert check(store).ok


def test_a_view_whose_connection_is_lost_says_so_and_the_next_one_works(url: str) -> None:
    with begin(opened(url, True)) as store:
        with store.snapshot() as snapshot:
            assert snapshot.get(WORKSPACE, (WS,)) == FIRST_ROW
            end_sessions(url)
            assert code_of(lambda: snapshot.get(BLOCK, (WS, b"never asked before"))) == "unreachable"
            assert code_of(snapshot.schema_findings) == "unreachable"
        with store.snapshot() as snapshot:
            assert snapshot.get(WORKSPACE, (WS,)) == FIRST_ROW


# -- other processes --------------------------------------------------------------------------------------------


def test_a_process_that_hangs_with_the_log_in_its_hands_loses_it(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tallystone.store import postgresql_session as session

    monkeypatch.setitem(session._SETTINGS, "idle_in_transaction_session_timeout", "50ms")
    with begin(opened(url, True)) as store:
        hanging = session.Session(url)
        hanging.command(b"BEGIN")
        hanging.command(b"SELECT * FROM log_head FOR UPDATE")
        store.commit(Batch(changes=[Put(BLOCK, counter(1))]))
        assert not hanging.idle
        hanging.close()


def test_a_lock_that_is_held_too_long_is_an_answer(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from tallystone.store import postgresql_session as session

    with begin(opened(url, True)) as store:
        holder = session.Session(url)
        holder.command(b"BEGIN")
        holder.command(b"SELECT * FROM log_head FOR UPDATE")
        monkeypatch.setitem(session._SETTINGS, "lock_timeout", "10ms")
        store._writer.close()
        assert code_of(lambda: store.commit(Batch(events=[Event("read", b"")]))) == "busy"
        holder.command(b"ROLLBACK")
        holder.close()
        store.commit(Batch(events=[Event("read", b"")]))


def raising(url: str, state: str, times: int) -> None:
    """Let the next writes of a block fail with this SQLSTATE, so often."""
    run(
        url,
        "CREATE SEQUENCE times",
        "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        f" IF nextval('times') <= {times} THEN RAISE EXCEPTION 'x' USING ERRCODE = '{state}'; END IF;"
        " RETURN NEW; END $$",
        "CREATE TRIGGER fail BEFORE INSERT ON block FOR EACH ROW EXECUTE FUNCTION fail()",
    )


@pytest.mark.parametrize("state", ["40001", "40P01"])
def test_a_transaction_that_may_succeed_when_it_is_run_again_is_run_again(url: str, state: str) -> None:
    with begin(opened(url, True)) as store:
        raising(url, state, 3)
        assert store.commit(Batch(changes=[Put(BLOCK, counter(1))], events=[Event("write", b"")])) == 2
        assert read(store) == counter(1)


@pytest.mark.parametrize(
    ("state", "code"),
    [
        ("53100", "store_full"),
        ("53300", "busy"),
        ("40001", "busy"),
        ("58030", "io"),
        ("XX001", "corrupt"),
        ("42501", "no_access"),
        ("22003", "refused"),
    ],
)
def test_what_the_database_refuses_is_said_in_our_words_and_the_store_works_on(
    url: str, state: str, code: str
) -> None:
    with begin(opened(url, True)) as store:
        raising(url, state, 10)
        batch = Batch(changes=[Put(BLOCK, counter(1))])
        assert code_of(lambda: store.commit(batch)) == code
        assert read(store) is None
        while read(store) is None:
            try:
                store.commit(batch)
            except StoreError as error:
                assert error.code == code
                assert isinstance(error, StoreFull) == (code == "store_full")


def test_a_database_that_takes_no_writes_says_so_and_is_written_again_when_it_does(url: str) -> None:
    name = url.partition("?")[0].rpartition("/")[2]
    with begin(opened(url, True)) as store:
        run(url, f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        end_sessions(url)
        assert code_of(lambda: store.commit(Batch(changes=[Put(BLOCK, counter(1))]))) == "read_only"
        assert read(store) is None
        run(url, "SET default_transaction_read_only = off", f"ALTER DATABASE {name} RESET ALL")
        store.commit(Batch(changes=[Put(BLOCK, counter(1))]))
        assert read(store) == counter(1)


def test_processes_that_make_the_tables_at_once_make_them_once() -> None:
    url = new_database()
    failures: list[BaseException] = []

    def make() -> None:
        try:
            opened(url, True).close()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=make) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    with opened(url) as store, store.snapshot() as snapshot:
        assert snapshot.schema_findings() == []


def test_of_two_that_begin_a_log_in_one_database_one_does(url: str) -> None:
    stores = [opened(url), opened(url)]
    other = LogSequencer(bytes(32), bytes(32), lambda: NOW)
    stores[1]._writer._sequencer = other
    barrier, done = threading.Barrier(2), []

    def found(number: int) -> None:
        row = (WS, bytes([number]) * 32, b"record")
        barrier.wait(30)
        try:
            stores[number].commit(Batch(changes=[Put(WORKSPACE, row)], events=[Event("create", b"")]))
            done.append(row)
        except TallystoneError:
            pass

    threads = [threading.Thread(target=found, args=(number,)) for number in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    with stores[0].snapshot() as snapshot:
        assert [snapshot.get(WORKSPACE, (WS,))] == done
    for store in stores:
        store.close()


def test_what_is_acknowledged_is_durable_whatever_the_database_is_set_to(url: str) -> None:
    from tallystone.store.postgresql_session import Session

    assert run(url, "SHOW synchronous_commit") == [("off",)]  # so the tests' server is set, for speed
    with closing(Session(url)) as session:
        assert session.command(b"SHOW synchronous_commit").get_value(0, 0) == b"on"


# -- what is at the place ---------------------------------------------------------------------------------------


def test_a_place_without_a_database_of_ours_is_refused_and_left_alone() -> None:
    url = new_database()
    assert code_of(lambda: opened(url)) == "empty"
    run(url, "CREATE TABLE notes (a text)")
    assert code_of(lambda: opened(url)) == code_of(lambda: opened(url, True)) == "not_ours"
    assert run(url, "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace") == [
        ("notes",)
    ]
    assert code_of(lambda: opened(server().format("nowhere"), True)) == "missing"
    assert code_of(lambda: opened(url.replace("postgres@", "nobody@"))) == "no_access"
    assert code_of(lambda: opened("postgresql://postgres@127.0.0.1:1/x")) == "unreachable"
    assert code_of(lambda: opened(url + "&options=-csearch_path%3Dnowhere", True)) == "missing"


def test_a_schema_of_its_own_is_a_place() -> None:
    url = new_database()
    run(url, "CREATE TABLE notes (a text)", "CREATE SCHEMA memory")
    with begin(opened(url + "&options=-csearch_path%3Dmemory", True)) as store:
        assert check(store).ok


def test_a_newer_format_is_refused_and_left_alone(url: str) -> None:
    run(url, "INSERT INTO schema_version VALUES (99)")
    assert code_of(lambda: opened(url)) == code_of(lambda: opened(url, True)) == "newer_format"
    run(url, "DELETE FROM schema_version WHERE number = 99")


def test_a_database_that_a_newer_version_has_taken_over_meanwhile_takes_no_more_of_our_writes(
    url: str,
) -> None:
    with begin(opened(url)) as store:
        store.commit(Batch(changes=[Put(BLOCK, counter(1))]))
        run(url, "INSERT INTO schema_version VALUES (99)")
        for _ in range(2):
            batch = Batch(changes=[Put(BLOCK, counter(2))])
            assert code_of(lambda batch=batch: store.commit(batch)) == "newer_format"
        assert read(store) == counter(1)
        run(url, "DELETE FROM schema_version WHERE number = 99")
        store.commit(Batch(changes=[Put(BLOCK, counter(3))]))
        assert check(store).ok


def test_a_database_is_brought_up_to_date_between_two_writes_of_an_older_version_never_amid_one(
    url: str,
) -> None:
    from tallystone.store import postgresql_session as session

    with begin(opened(url)):
        pass
    run(url, "DROP TABLE log_node", "DROP TABLE shred", "DELETE FROM schema_version WHERE number > 3")
    with closing(session.Session(url)) as older:
        older.command(b"BEGIN")
        older.command(b"SELECT * FROM log_head FOR UPDATE")
        thread = threading.Thread(target=lambda: opened(url).close())
        thread.start()
        waiting = "SELECT count(*) FROM pg_locks WHERE relation = 'log_head'::regclass AND NOT granted"
        while run(url, waiting) != [(1,)]:
            assert thread.is_alive()
        older.command(b"COMMIT")
        thread.join(60)
    with opened(url) as store:
        assert check(store).ok


def test_a_database_that_is_not_utf8_is_refused() -> None:
    url = new_database(" ENCODING 'SQL_ASCII' LOCALE 'C'")
    assert code_of(lambda: opened(url, True)) == "not_utf8"


def test_an_older_format_is_brought_up_to_date_with_its_log(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with begin(opened(url)) as store:
        store.commit(Batch(events=[Event("read", b"%d" % number) for number in range(20)]))
        with store.snapshot() as snapshot:
            before = list(snapshot.rows(LOG_HEAD))
    run(url, "DROP TABLE log_node", "DROP TABLE shred", "DELETE FROM schema_version WHERE number > 3")
    with opened(url) as store:
        assert check(store).ok
        store.commit(Batch(events=[Event("read", b"more")]))
        assert check(store).ok
        with store.snapshot() as snapshot:
            assert list(snapshot.rows(LOG_HEAD)) != before


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ("CREATE TABLE notes (a text)", "table notes"),
        ("DROP TABLE kit", "table kit"),
        ("CREATE VIEW look AS SELECT * FROM token", "view look"),
        ("DROP INDEX shelf_position", "index shelf_position"),
        (
            "DROP INDEX shelf_position; CREATE INDEX shelf_position ON shelf (ws, shelf, position) WHERE false",
            "index shelf_position",
        ),
        ("ALTER TABLE kit ALTER COLUMN sealed DROP NOT NULL", "table kit"),
        ("ALTER TABLE kit ADD COLUMN more bytea", "table kit"),
        ('ALTER TABLE token ALTER COLUMN kid TYPE text COLLATE "C.utf8"', "table token"),
        ("ALTER TABLE kit DROP CONSTRAINT kit_pkey", "index kit_pkey"),
        ("ALTER TABLE kit ENABLE ROW LEVEL SECURITY", "row security on kit"),
        ("CREATE RULE hide AS ON DELETE TO kit DO INSTEAD NOTHING", "rule hide"),
        ("CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'", "function f"),
        ("DELETE FROM schema_version WHERE number = 2", "table schema_version"),
    ],
)
def test_what_is_not_as_the_migrations_make_it_is_found(url: str, change: str, place: str) -> None:
    run(url, *change.split("; "))
    with opened(url) as store, store.snapshot() as snapshot:
        assert place in [where for where, _ in snapshot.schema_findings(deep=False)]


def test_a_trigger_is_found(url: str) -> None:
    raising(url, "40001", 0)
    with opened(url) as store, store.snapshot() as snapshot:
        found = [where for where, _ in snapshot.schema_findings()]
    assert found == ["sequence times", "trigger fail", "function fail"]


def test_an_index_that_hides_a_row_is_found(url: str) -> None:
    with begin(opened(url)) as store:
        store.commit(Batch(changes=[Put(SHELF, (WS, b"s", bytes([n]), n, b"", b"")) for n in range(5)]))
        with store.snapshot() as snapshot:
            assert snapshot.schema_findings() == []
        # As one does who edits the files: the row is there, its index does not know.
        run(
            url,
            "UPDATE pg_index SET indisready = false, indisvalid = false WHERE indexrelid = 'shelf_position'::regclass",
            "INSERT INTO shelf VALUES (1, 's', 'x', 9, '', '')",
            "UPDATE pg_index SET indisready = true, indisvalid = true WHERE indexrelid = 'shelf_position'::regclass",
        )
        with store.snapshot() as snapshot:
            assert snapshot.schema_findings() == [
                ("index shelf_position", "does not say what its table says")
            ]


# -- rows -------------------------------------------------------------------------------------------------------


def test_texts_are_ordered_by_their_bytes(url: str) -> None:
    names = ["", "Z", "a", "A", "ä", "z", "-", "_", "user-10", "user-2", "\U0001f600", "�"]
    with begin(opened(url)) as store:
        store.commit(Batch(changes=[Put(KIT, (WS, name, b"")) for name in names]))
        with store.snapshot() as snapshot:
            assert [row[1] for row in snapshot.scan(KIT, (WS,))] == sorted(names, key=str.encode)
            assert [row[1] for row in snapshot.rows(KIT)] == sorted(names, key=str.encode)


def test_a_position_scan_uses_the_index_even_where_nothing_was_counted(url: str) -> None:
    from tallystone.store import postgresql_statements as statements

    with begin(opened(url)) as store:
        text, _ = statements.scan(SHELF, (WS, b"mine"), 4, None, False, "position")
        with store.snapshot() as snapshot:
            session = snapshot._begun_session()
            session.command(b"PREPARE p AS " + text.encode())
            plan = session.command(b"EXPLAIN EXECUTE p (1, 'mine', 4, NULL)")
            lines = b" ".join(plan.get_value(row, 0) for row in range(plan.ntuples))
            session.command(b"DEALLOCATE p")
        assert b"shelf_position" in lines and b"Seq Scan" not in lines


@pytest.mark.parametrize("row", [(WS, "nul\0", b""), (2**63, "a", b""), (WS, b"a", b"")])
def test_a_cell_that_no_column_holds_is_refused(url: str, row: Row) -> None:
    with begin(opened(url)) as store:
        assert code_of(lambda: store.commit(Batch(changes=[Put(KIT, row)]))) == "refused"
        assert code_of(lambda: store.commit(Batch(changes=[Delete(KIT, row[:2])]))) == "refused"
        with store.snapshot() as snapshot:
            assert snapshot.get(KIT, row[:2]) is None
        assert check(store).ok


def test_deleted_rows_are_cleared_away_unless_somebody_still_sees_them(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tallystone.store.postgresql_scrub.WAIT", 0.05)
    with begin(opened(url)) as store:
        store.commit(Batch(changes=[Put(BLOCK, counter(1))]))
        with store.snapshot() as snapshot:
            assert snapshot.get(BLOCK, (WS, b"counter")) == counter(1)
            store.commit(Batch(changes=[Delete(BLOCK, (WS, b"counter"))]))
            assert store.scrub() is False
        assert store.scrub() is True
        size = "SELECT pg_relation_size('block')"
        assert run(url, size) == [(0,)]


# -- URLs and data directories ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        (f"postgresql://u:{PASSWORD}@h:5432/db", "postgresql://u@h:5432/db"),
        (f"postgresql://h/db?user=u&password={PASSWORD}&sslmode=require", "postgresql://h/db?user=u&sslmode=require"),
        (f"postgres://u:{PASSWORD}@h1:1,h2:2/db", "postgres://u@h1:1,h2:2/db"),
    ],
)  # fmt: skip
def test_a_password_is_never_written_down(tmp_path: Any, url: str, kept: str) -> None:
    assert has_password(url) and not has_password(kept)
    assert without_password(url) == without_password(kept) == kept
    note(tmp_path, url)
    assert (tmp_path / "store.url").read_text() == kept + "\n"
    assert (tmp_path / "store.url").stat().st_mode & 0o777 == 0o600
    assert locate(tmp_path) == kept
    assert locate(tmp_path, url) == url


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://u:{PASSWORD}@127.0.0.1:1/x",
        f"postgresql://u:{PASSWORD}@127.0.0.1:1/x?no_such_option={PASSWORD}",
        f"postgresql://u:{PASSWORD}@[::1/x",
        f"postgresql://u:{PASSWORD}@h:port/x",
        f"mysql://u:{PASSWORD}@h/x",
    ],
)
def test_no_error_repeats_a_password(url: str) -> None:
    with pytest.raises((StoreError, Invalid)) as caught:
        opened(check_url(url))
    told = "".join(traceback.format_exception(caught.value)) + repr(caught.value) + caught.value.hint
    assert PASSWORD not in told


def test_a_store_does_not_show_its_url(url: str) -> None:
    with begin(opened(url)) as store:
        assert "postgres@" not in repr(store) + repr(store.snapshot()) + repr(store._writer)


def test_a_database_that_holds_a_workspace_is_not_taken_for_another(tmp_path: Any, url: str) -> None:
    begin(opened(url)).close()
    assert code_of(lambda: make_store(tmp_path, url, sequencer())) == "occupied"
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "tallystone.db").touch()
    assert code_of(lambda: locate(tmp_path, url)) == "two_stores"
