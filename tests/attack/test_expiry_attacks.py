"""Days that are over, and who would have them longer: grantees and operators who edit rows, clocks and folders.

Beside `tests/test_expiry.py`, which says what expiry does; and `test_returning`, where the keys of an expired reader
are tried on everything.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import date, timedelta
from functools import partial
from operator import sub
from pathlib import Path
from typing import Any

import pytest
import raw_rows
from stores import thinned

from attack.lying import caller_of, forge, held_by, opened_by
from attack.scene import DATABASE, raw, rows
from attack.test_sharers import NEVER, is_refused
from tallystone.errors import Invalid, NotFound, TallystoneError, Tampered
from tallystone.vault import Vault, Workspace
from tallystone.vault.granting import Terms, grant_to
from tallystone.vault.opening import Opened
from tallystone.vault.plan import Plan
from tallystone.vault.types import Credentials
from tallystone.vault.writing import add_link, add_version, put_on_shelf

pytestmark = thinned(2, "they forge what is judged above the store, which gives them the rows")

Vaults = Callable[[str], Vault]
DAY = 86400


class Clock:
    """The workspace's clock, put forward and back by hand."""

    def __init__(self, workspace: Workspace) -> None:
        self.now = workspace.clock()
        workspace.clock = lambda: self.now

    def day(self, ahead: int) -> date:
        """The day that many days ahead."""
        return date(1970, 1, 1) + timedelta(self.number + ahead)

    @property
    def number(self) -> int:
        """Today, in days since 1970."""
        return int(self.now // DAY)


@pytest.fixture
def clock(workspace: Workspace) -> Clock:
    """See `Clock`."""
    return Clock(workspace)


@pytest.fixture
def database(tmp_path: Path, workspace: Workspace) -> Path:
    """The file, for whoever writes past the vault."""
    return tmp_path / "data" / DATABASE


@pytest.fixture
def tokens(alice: Vault, alice_credentials: Credentials, bob_credentials: Credentials) -> dict[str, str]:
    """Five users' tokens."""
    known = {"alice": alice_credentials.token, "bob": bob_credentials.token}
    return known | {name: alice.add_user(name).token for name in ("carol", "dave", "eve")}


@pytest.fixture
def vault(workspace: Workspace, tokens: dict[str, str]) -> Vaults:
    """Anybody's next request."""
    return lambda name: workspace.vault(tokens[name])


@pytest.fixture
def block(vault: Vaults, clock: Clock) -> str:
    """A block of Carol's: Dave may write it, and Bob until tomorrow."""
    made = vault("carol").create_block(label="team", value="before").id
    for name, until in (("dave", None), ("bob", clock.day(1))):
        vault("carol").share(made, name, "write", until=until)
        vault(name).accept_offer(made)
    return made


def write(vault: Vault, block: str, value: str) -> None:
    vault.edit_block(block, lambda _: {"value": value})


def misses(vault: Vault, block: str) -> None:
    """As if it had never been."""
    for one in (block, NEVER):
        for attempt in (
            lambda one=one: vault.block(one),
            lambda one=one: write(vault, one, "x"),
            lambda one=one: vault.share(one, "eve"),
            lambda one=one: vault.grants(one),
        ):
            with pytest.raises(NotFound) as missed:
                attempt()
            assert missed.value.message == f"Block {one} not found"


# -- a grant's day ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("purged", [False, True])
def test_expiry_edited_in_a_stored_row(
    workspace: Workspace, vault: Vaults, clock: Clock, block: str, database: Path, purged: bool
) -> None:
    """Bob seals his own shelf row anew, with a leaf that ends later; and moves the day in rows that lie in clear."""
    mallory = caller_of(vault("bob"))
    held = held_by(workspace, mallory.keys, block)
    leaf, storage = held.own_leaf, held.storage
    assert leaf is not None
    wraps = rows(database, "SELECT * FROM grant_wrap WHERE storage = ?", storage)
    clock.now += 2 * DAY
    misses(vault("bob"), block)
    if purged:
        assert workspace.purge() > 0
    longer = replace(leaf, until=clock.number + 99)
    with workspace.store.snapshot() as snapshot:
        plan = Plan(snapshot)
        put_on_shelf(plan, mallory.keys, "block", block, replace(held, leaf=longer.encode()))
        workspace.store.commit(plan.batch())
    with raw(database) as connection:
        connection.executemany("INSERT OR IGNORE INTO grant_wrap VALUES (?, ?, ?, ?, ?)", wraps)
        connection.execute("UPDATE ledger SET day = day + 99 WHERE day IS NOT NULL")
        connection.execute("UPDATE calendar SET day = day + 99")
    assert {finding.where.split()[0] for finding in workspace.verify().findings} >= {"ledger"}
    for attempt in (
        lambda: write(vault("bob"), block, "x"),
        lambda: vault("bob").share(block, "eve"),
    ):
        with pytest.raises(TallystoneError):
            attempt()
    write(vault("dave"), block, "after")
    with pytest.raises(TallystoneError):
        vault("bob").block(block)
    assert vault("carol").block(block).value == "after"


def test_a_longer_expiry_in_a_version_of_ones_own(
    workspace: Workspace, vault: Vaults, clock: Clock, block: str
) -> None:
    """Bob signs a version on the strength of a leaf that ends later than his does."""
    with workspace.store.snapshot() as snapshot:
        standing = opened_by(vault("bob"), Plan(snapshot), block).standing()
    assert standing.leaf is not None
    longer = replace(standing, leaf=replace(standing.leaf, until=None))

    def act(opened: Opened) -> None:
        payload, _, digest = opened.payload()
        add_version(opened, {**payload, "value": "forged"}, digest, longer)

    forge(vault("bob"), block, act)
    is_refused(vault, block, "without the right to")


@pytest.mark.parametrize("days", [2, None])
def test_a_placement_that_outlives_the_grant_it_came_through(
    vault: Vaults, clock: Clock, block: str, days: int | None
) -> None:
    agent = vault("bob").create_agent({"name": "a"}).id
    until = None if days is None else clock.number + days

    def act(opened: Opened) -> None:
        grant_to(opened, opened.caller.identity(opened.plan, agent), Terms(1, until))

    forge(vault("bob"), block, act)
    is_refused(vault, block, "exceeds what its issuer holds")


def test_an_agents_placement_ends_with_its_sponsors_grant(
    workspace: Workspace, vault: Vaults, clock: Clock, block: str
) -> None:
    agent = vault("bob").create_agent({"name": "a"}, block_ids=[block]).id
    itself = workspace.vault(vault("bob").agent_token(agent))
    write(itself, block, "by the agent")
    clock.now += 2 * DAY
    for one in (itself, vault("bob").acting_as(agent)):
        misses_as_agent(one, block)
    workspace.purge()
    for one in (itself, vault("bob").acting_as(agent)):
        misses_as_agent(one, block)
    write(vault("dave"), block, "after")
    live = {grant.recipient for grant in vault("carol").grants(block)}
    assert live == {vault("dave").principal_id}


def misses_as_agent(one: Vault, block: str) -> None:
    with pytest.raises(NotFound):
        one.block(block)
    with pytest.raises(NotFound):
        write(one, block, "x")
    assert one.blocks() == []


def test_a_clock_that_is_put_back_brings_back_no_keys_that_have_changed(
    workspace: Workspace, vault: Vaults, clock: Clock, block: str
) -> None:
    """The server's clock is its own business; once the keys have changed, it decides nothing any more."""
    clock.now += 2 * DAY
    workspace.purge()
    write(vault("dave"), block, "after")
    clock.now -= 2 * DAY
    misses(vault("bob"), block)


def test_a_calendar_without_its_rows_lets_nobody_read_longer(
    workspace: Workspace, vault: Vaults, clock: Clock, block: str, database: Path
) -> None:
    with raw(database) as connection:
        connection.execute("DELETE FROM calendar")
    assert "calendar" in {finding.where.split()[0] for finding in workspace.verify().findings}
    clock.now += 2 * DAY
    workspace.purge()
    misses(vault("bob"), block)
    write(vault("carol"), block, "after")
    misses(vault("bob"), block)


def test_a_forged_calendar_ends_nothing_early(
    workspace: Workspace, vault: Vaults, clock: Clock, block: str, database: Path
) -> None:
    """An operator's entries for grants and blocks that end later, or never."""
    storage = held_by(workspace, caller_of(vault("carol")).keys, block).storage
    with raw(database) as connection:
        for number, kind in ((0, "block"), (1, "grant"), (2, "grant"), (7, "grant"), (0, "nonsense")):
            connection.execute(
                "INSERT OR REPLACE INTO calendar VALUES (1, ?, ?, ?, ?)",
                (clock.number - 1, storage, number, kind),
            )
    workspace.purge()
    for name in ("carol", "dave", "bob"):
        assert vault(name).block(block).value == "before"


def test_a_membership_that_is_over_and_its_role(
    workspace: Workspace, vault: Vaults, clock: Clock, block: str
) -> None:
    role = vault("alice").create_role("team").id
    vault("alice").add_members(role, ["bob"], until=clock.day(1))
    vault("alice").add_members(role, ["eve"])
    for name in ("bob", "eve"):
        vault(name).accept_offer(role)
    made = vault("carol").create_block(label="x", value="before").id
    vault("carol").share(made, role, "write")
    vault("alice").accept_offer(made)
    write(vault("bob"), made, "bob was here")
    clock.now += 2 * DAY
    misses(vault("bob"), made)
    assert vault("bob").roles() == []
    workspace.purge()
    misses(vault("bob"), made)
    write(vault("eve"), made, "after")
    assert vault("carol").block(made).value == "after"
    misses(vault("bob"), made)


# -- a block's day ----------------------------------------------------------------------------------------------


def test_a_restored_backup_brings_no_expired_block_back(
    workspace: Workspace, vault: Vaults, tokens: dict[str, str], clock: Clock, tmp_path: Path
) -> None:
    """All of the data directory of before, but for the keys of days that are over: those are in no backup."""
    made = vault("carol").create_block(label="x", value="gone", expires=clock.day(1)).id
    vault("carol").share(made, "bob", "write")
    vault("bob").accept_offer(made)
    raw_rows.copy(tmp_path / "data", tmp_path / "backup")
    clock.now += 2 * DAY
    workspace.purge()
    shutil.rmtree(tmp_path / "backup" / "server-keys" / "days")
    if (tmp_path / "data" / "server-keys" / "days").is_dir():
        shutil.copytree(
            tmp_path / "data" / "server-keys" / "days", tmp_path / "backup" / "server-keys" / "days"
        )
    with Workspace.open(tmp_path / "backup") as old:
        for back in (0, 2 * DAY):
            old.clock = partial(sub, clock.now, back)
            for name in ("carol", "bob"):
                misses(old.vault(tokens[name]), made)


@pytest.mark.parametrize("column", ["day", "day and calendar"])
def test_a_block_whose_day_is_edited_in_its_row(
    workspace: Workspace, vault: Vaults, clock: Clock, database: Path, column: str
) -> None:
    """Later, earlier, never: the policy says when, and the keys are nested in that day's."""
    made = vault("carol").create_block(label="x", value="v", expires=clock.day(1)).id
    other = vault("carol").create_block(label="y", value="v", expires=clock.day(9)).id
    assert other
    storage = held_by(workspace, caller_of(vault("carol")).keys, made).storage
    first = clock.number + 1
    for day in (None, first + 8, first + 1, first - 1, 0):
        with raw(database) as connection:
            connection.execute("UPDATE block SET day = ? WHERE storage = ?", (day, storage))
            if "calendar" in column and day is not None:
                connection.execute("UPDATE calendar SET day = ? WHERE storage = ?", (day, storage))
        with pytest.raises((Tampered, NotFound)):
            vault("carol").block(made)
        assert "block" in {finding.where.split()[0] for finding in workspace.verify().findings}
        clock.now += 2 * DAY
        with pytest.raises((Tampered, NotFound)):
            vault("carol").block(made)
        clock.now -= 2 * DAY


def test_a_grantee_that_moves_the_blocks_day(vault: Vaults, clock: Clock) -> None:
    made = vault("carol").create_block(label="x", value="v", expires=clock.day(1)).id
    for name in ("bob", "dave"):
        vault("carol").share(made, name, "write+share")
        vault(name).accept_offer(made)
    with pytest.raises(TallystoneError):
        vault("bob").edit_block(made, lambda _: {"expires": clock.day(9)})

    def act(opened: Opened) -> None:
        settings: dict[str, Any] = {**opened.head.settings, "expires": clock.number + 9}
        add_link(opened, "policy", {"settings": ["expires"]}, settings=settings)

    forge(vault("bob"), made, act)
    is_refused(vault, made, "the owner's alone")


def test_an_expiry_in_the_past_changes_nothing(vault: Vaults, clock: Clock, block: str) -> None:
    before, seen = vault("carol").grants(block), vault("carol").block(block)
    for attempt in (
        lambda: vault("carol").share(block, "eve", until=clock.day(-1)),
        lambda: vault("carol").edit_block(block, lambda _: {"expires": clock.day(-1)}),
        lambda: vault("carol").create_block(label="x", expires=clock.day(-1)),
    ):
        with pytest.raises(Invalid) as refusal:
            attempt()
        assert refusal.value.code == "bad_expiry"
    assert vault("carol").grants(block) == before
    assert replace(vault("carol").block(block), position=0) == replace(seen, position=0)
