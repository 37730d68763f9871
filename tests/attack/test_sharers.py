"""Who holds a grant and wants more: forged grants, forged versions, settings that are the owner's, keys for others.

The attackers run clients of their own, without any check before they sign (`lying.lawless`); they have nothing but the
keys they rightly hold. What they write is refused by every reader, with a reason that the owner sees in its log too;
somebody who never had the block hears what everybody hears of everything.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from stores import sampled, thinned

from attack.lying import caller_of, forge, held_by, identity_of, opened_by, seal_capsule_body
from attack.scene import DATABASE, raw, rows
from tallystone import crypto
from tallystone.errors import NotFound, TallystoneError, Tampered
from tallystone.statements import READ, SHARE, WRITE, Leaf, Link
from tallystone.store.protocol import Batch
from tallystone.store.tables import GRANT_WRAP, LEDGER
from tallystone.vault import Vault, Workspace
from tallystone.vault.caller import KeysChanged
from tallystone.vault.capsules import capsule_info
from tallystone.vault.epochs import Rotation
from tallystone.vault.granting import Terms, grant_to
from tallystone.vault.ledger import Ledger
from tallystone.vault.opening import Opened
from tallystone.vault.plan import Plan
from tallystone.vault.records import seal_statement
from tallystone.vault.rotating import change_keys
from tallystone.vault.types import Credentials
from tallystone.vault.writing import add_link, add_version, put_on_shelf

pytestmark = thinned(2, "they forge what is judged above the store, which gives them the rows")

Vaults = Callable[[str], Vault]
TODAY = (datetime.now(UTC) - datetime(1970, 1, 1, tzinfo=UTC)).days
NEVER = "block-00000000-0000-4000-8000-000000000000"


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
    """Anybody's next request. The owner in these tests is Carol: the workspace's first user sees more of the log."""
    return lambda name: workspace.vault(tokens[name])


def shared(vault: Vaults, can: str, **terms: Any) -> str:
    """A block of Carol's that Dave may write, and Bob as said."""
    block = vault("carol").create_block(label="team", value="before").id
    vault("carol").share(block, "dave", "write")
    vault("dave").accept_offer(block)
    vault("carol").share(block, "bob", can, **terms)
    vault("bob").accept_offer(block)
    return block


def is_refused(vault: Vaults, block: str, reason: str, *, stranger: str = "eve") -> None:
    """No reader takes it; the owner is told why, by the answer, by the check of its shelf and by its log; a stranger is
    told what it would be told of a block that never was."""
    with pytest.raises(Tampered, match=reason):
        vault("carol").block(block)
    with pytest.raises((Tampered, KeysChanged)):  # a capsule that counts for nothing brings no new key
        vault("dave").block(block)
    assert [why for where, why in vault("carol").inspect().findings if where == block]
    seen = [
        e for e in vault("carol").events(20) if e.kind == "denied" and block in e.detail.get("blocks", ())
    ]
    assert any(reason in str(event.detail.get("reason")) for event in seen), seen
    with pytest.raises(NotFound) as missed:
        vault(stranger).block(block)
    with pytest.raises(NotFound) as never:
        vault(stranger).block(NEVER)
    assert missed.value.message.replace(block, NEVER) == never.value.message


# -- grants -----------------------------------------------------------------------------------------------------


def _give(to: str, terms: Terms) -> Callable[[Vaults, Opened], None]:
    def act(vault: Vaults, opened: Opened) -> None:
        grant_to(opened, identity_of(opened, vault(to).principal_id), terms)

    return act


DAY = timedelta(1)
TODAYS = datetime.now(UTC).date()


@sampled(3, "the cases differ in what a row says, which is judged above the store")
@pytest.mark.parametrize(
    ("holds", "terms", "forged"),
    [
        ("read", {}, Terms(READ)),
        ("write", {}, Terms(READ | WRITE)),
        ("share", {}, Terms(READ | WRITE)),
        ("share", {}, Terms(READ | SHARE)),
        ("write+share", {"depth": 1}, Terms(READ | SHARE, None, 1)),
        ("write+share", {"until": TODAYS + DAY}, Terms(READ, TODAY + 2)),
        ("write+share", {"until": TODAYS + DAY}, Terms(READ)),
        ("share", {"history": False}, Terms(READ)),
        ("share", {}, Terms(READ, None, 1)),
    ],
    ids=[
        "a reader's",
        "a writer's to a user",
        "more rights",
        "share without depth",
        "as much depth",
        "a later day",
        "no day",
        "history",
        "depth for a reader",
    ],
)
def test_a_forged_grant_that_exceeds_its_givers(
    vault: Vaults, holds: str, terms: dict[str, Any], forged: Terms
) -> None:
    block = shared(vault, holds, **terms)
    forge(vault("bob"), block, lambda opened: _give("eve", forged)(vault, opened))
    is_refused(vault, block, "exceeds what its issuer holds")
    assert vault("eve").offers() == []


@pytest.mark.parametrize("party", ["owner", "self"])
def test_a_forged_grant_to_who_has_the_block_anyway(vault: Vaults, party: str) -> None:
    block = shared(vault, "share")
    to = {"owner": "carol", "self": "bob"}[party]
    forge(vault("bob"), block, lambda opened: _give(to, Terms(READ))(vault, opened))
    is_refused(vault, block, "not allowed to")


@pytest.mark.parametrize("bound", ["sensitivity", "allowed"])
def test_a_forged_grant_to_somebody_whom_the_blocks_policy_does_not_admit(vault: Vaults, bound: str) -> None:
    block = shared(vault, "share")
    fields: dict[str, Any] = {"allowed": ["bob", "dave"]}
    if bound == "sensitivity":
        fields = {"sensitivity": "internal"}
        for name in ("bob", "dave"):
            vault("alice").set_clearance(name, "internal")
    vault("carol").edit_block(block, lambda _: fields)
    forge(vault("bob"), block, lambda opened: _give("eve", Terms(READ))(vault, opened))
    is_refused(vault, block, "policy does not admit")


def _keep_proof(opened: Opened) -> None:
    """Prove one's own grant as it stands before anything is changed."""
    standing = opened.standing()
    opened.standing_in = lambda leaves: standing  # type: ignore[method-assign]  # the attacker's own code


def test_a_forged_grant_that_moves_the_other_grants(vault: Vaults) -> None:
    """A sharer adds the grant that it may give, and lets the tree lose Dave's meanwhile."""
    block = shared(vault, "share")

    def act(opened: Opened) -> None:
        _keep_proof(opened)
        for number, (row, _) in opened.ledger().items():
            if opened.roster(row).leaf.recipient == vault("dave").principal_id:
                opened.plan.put(LEDGER, opened.row.storage, number, b"", *row[4:])
        grant_to(opened, identity_of(opened, vault("eve").principal_id), Terms(READ))

    forge(vault("bob"), block, act)
    is_refused(vault, block, "than it names")


def test_a_replayed_grant_after_revoke(workspace: Workspace, vault: Vaults, database: Path) -> None:
    """Everything that made the grant is put back: wrap, ledger, shelf row, capsule, and the statement as a new one."""
    block = shared(vault, "write")
    vault("carol").revoke(block, "dave")
    saved: dict[str, list[tuple[Any, ...]]] = {}
    vault("carol").share(block, "eve", "write")
    capsule = rows(database, "SELECT * FROM inbox")
    vault("eve").accept_offer(block)
    for table in ("grant_wrap", "ledger", "shelf"):
        saved[table] = rows(database, f"SELECT * FROM {table}")
    with workspace.store.snapshot() as snapshot:
        plan = Plan(snapshot)
        opened = opened_by(vault("eve"), plan, block)
        old = next(
            opened.statement(n)
            for n in range(opened.head.number, 0, -1)
            if opened.statement(n).type == "grant"
        )
        keys, number = opened.keys, opened.head.number
    vault("carol").revoke(block, "eve")
    for table, kept in saved.items():
        with raw(database) as connection:
            marks = ", ".join("?" * len(kept[0]))
            connection.executemany(f"INSERT OR IGNORE INTO {table} VALUES ({marks})", kept)
    with raw(database) as connection:
        connection.executemany("INSERT INTO inbox VALUES (?, ?, ?, ?, ?, ?)", capsule)
    assert {one.where.split()[0] for one in workspace.verify().findings} >= {"grant_wrap", "inbox"}
    with pytest.raises((Tampered, NotFound)):
        vault("eve").block(block)
    assert vault("eve").offers() == [] and vault("carol").block(block).value == "before"
    # The statement itself, at the end of the chain: it names its place and its predecessor.
    with raw(database) as connection:
        connection.execute("UPDATE block SET policy = policy + 1 WHERE storage = ?", (opened.row.storage,))
        connection.execute(
            "INSERT INTO chain VALUES (1, ?, ?, ?, ?)",
            (opened.row.storage, number + 2, keys.number, seal_statement(keys.chain, block, number + 2, old)),
        )
    for name in ("carol", "bob"):
        with pytest.raises(Tampered, match="another's place"):
            vault(name).block(block)


def test_a_grant_moved_to_another_block(vault: Vaults, database: Path) -> None:
    """Bob may write one block and reads another: he presents the one's leaf and proof for the other."""
    block, other = shared(vault, "read"), shared(vault, "write")
    with caller_of(vault("bob")).workspace.store.snapshot() as snapshot:
        theirs = opened_by(vault("bob"), Plan(snapshot), other).standing()

    def act(opened: Opened) -> None:
        payload, _, digest = opened.payload()
        add_version(opened, {**payload, "value": "forged"}, digest, theirs)

    forge(vault("bob"), block, act)
    is_refused(vault, block, "without the right to")


def test_escalated_rights_in_a_stored_row(workspace: Workspace, vault: Vaults) -> None:
    """Bob seals his own shelf row anew: with a leaf that gives him everything. Then he signs on the strength of it."""
    block = shared(vault, "read")
    mallory = caller_of(vault("bob"))
    held = held_by(workspace, mallory.keys, block)
    leaf = held.own_leaf
    assert leaf is not None
    edited = replace(leaf, rights=READ | WRITE | SHARE, depth=9)

    def shelve(leaf: Leaf) -> None:
        with workspace.store.snapshot() as snapshot:
            plan = Plan(snapshot)
            put_on_shelf(plan, mallory.keys, "block", block, replace(held, leaf=leaf.encode()))
            workspace.store.commit(plan.batch())

    shelve(edited)
    for attempt in (
        lambda: vault("bob").block(block),
        lambda: vault("bob").edit_block(block, lambda _: {"value": "x"}),
        lambda: vault("bob").share(block, "eve"),
        lambda: vault("bob").revoke(block, "dave"),
    ):
        with pytest.raises(Tampered, match="not the one that its block knows of"):
            attempt()
    shelve(leaf)

    def write(opened: Opened) -> None:
        payload, _, digest = opened.payload()
        standing = replace(opened.standing(), leaf=edited)
        add_version(opened, {**payload, "value": "forged"}, digest, standing)

    forge(vault("bob"), block, write)
    is_refused(vault, block, "without the right to")


# -- versions ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("holds", ["share", "read"])
def test_a_sharer_who_signs_a_version_that_it_may_not_write(vault: Vaults, holds: str) -> None:
    block = shared(vault, holds)

    def act(opened: Opened) -> None:
        payload, _, digest = opened.payload()
        add_version(opened, {**payload, "value": "forged"}, digest, opened.standing())

    forge(vault("bob"), block, act)
    is_refused(vault, block, "without the right to")


def test_a_back_dated_version(vault: Vaults) -> None:
    """Revoked as a writer, Bob reads on, and signs a version that cites the policy under which he could write."""
    block = shared(vault, "write")
    with caller_of(vault("bob")).workspace.store.snapshot() as snapshot:
        before = opened_by(vault("bob"), Plan(snapshot), block)
        head, standing = before.head, before.standing()
    vault("carol").share(block, "bob", "read")
    assert vault("bob").block(block).rights == "read"

    def act(opened: Opened) -> None:
        payload, _, digest = opened.payload()
        now = opened.head
        opened._heads[now.number] = replace(now, number=head.number, digest=head.digest)
        add_version(opened, {**payload, "value": "forged"}, digest, standing)

    forge(vault("bob"), block, act)
    is_refused(vault, block, "after its policy had ended")


def test_a_revoked_agents_user(workspace: Workspace, vault: Vaults, database: Path) -> None:
    """Bob's agent was given the block itself; revoked, it keeps its keys and its token, and so does Bob."""
    block = shared(vault, "read")
    agent = vault("bob").create_agent({"name": "a"}).id
    vault("carol").share(block, agent, "write")
    vault("bob").accept_offer(block)
    itself = workspace.vault(vault("bob").agent_token(agent))
    itself.edit_block(block, lambda _: {"value": "by the agent"})
    with workspace.store.snapshot() as snapshot:
        standing = opened_by(itself, Plan(snapshot), block).standing()
    vault("carol").revoke(block, agent)
    for one in (itself, vault("bob").acting_as(agent)):
        with pytest.raises(NotFound):
            one.block(block)
        with pytest.raises(NotFound):
            one.edit_block(block, lambda _: {"value": "x"})

    def act(opened: Opened) -> None:
        """With the keys that Bob still has, signed by the agent that he can act as."""
        payload, _, digest = opened.payload()
        opened.caller = caller_of(itself)
        add_version(opened, {**payload, "value": "forged"}, digest, standing)

    forge(vault("bob"), block, act)
    is_refused(vault, block, "without the right to")


# -- what is the owner's ----------------------------------------------------------------------------------------


@sampled(4, "the cases differ in what a row says, which is judged above the store")
@pytest.mark.parametrize(
    "settings",
    [
        {"read_only": False},
        {"locked": False},
        {"limit": 2**31 - 1},
        {"sensitivity": 0},
        {"allowed": ["user-x"]},
        {"expires": 99_999},
        {"transfer": ["bob"]},
        {"seat": 2},
    ],
    ids=lambda settings: next(iter(settings)),
)
@pytest.mark.parametrize("holds", ["write", "write+share"])
def test_read_only_lifted_by_a_writer(vault: Vaults, settings: dict[str, Any], holds: str) -> None:
    block = shared(vault, holds)
    vault("carol").edit_block(block, lambda _: {"read_only": True, "locked": True, "limit": 5000})
    if "transfer" in settings:
        settings = {"transfer": [vault("bob").principal_id]}

    def act(opened: Opened) -> None:
        add_link(opened, "policy", {"settings": [*settings]}, settings={**opened.head.settings, **settings})

    forge(vault("bob"), block, act)
    is_refused(vault, block, "the owner's alone")


def test_a_block_that_a_writer_takes_over(vault: Vaults) -> None:
    block = shared(vault, "write+share")

    def act(opened: Opened) -> None:
        me = opened.caller.id
        settings = {**opened.head.settings, "seat": opened.head.next_grant}
        add_link(opened, "transfer", {}, settings=settings, owner=me, next_grant=opened.head.next_grant + 1)

    forge(vault("bob"), block, act)
    is_refused(vault, block, "without its owner's word")


# -- keys for others --------------------------------------------------------------------------------------------


def _due(vault: Vaults, holds: str) -> str:
    """A block whose keys are due, since Bob took a placement back."""
    block = shared(vault, holds)
    agent = vault("bob").create_agent({"name": "b"}, block_ids=[block]).id
    vault("bob").detach(agent, block)
    return block


def _rotates(monkeypatch: pytest.MonkeyPatch, change: Callable[[Rotation, Leaf], Leaf | None]) -> None:
    """From now on whoever changes keys writes other leaves than it should; None leaves a grant out."""
    renew = Rotation._renew

    def lying(self: Rotation, leaf: Leaf, *rest: Any) -> None:
        other = change(self, leaf)
        if other is not None:
            renew(self, other, *rest)

    monkeypatch.setattr(Rotation, "_renew", lying)


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("rights", {"rights": READ | WRITE | SHARE}),
        ("history", {"history": False}),
        ("until", {"until": 1}),
        ("depth", {"depth": 3}),
        ("parent", {"parent": 0}),
        ("recipient", {}),
    ],
)
def test_a_writer_who_renews_keys_gains_nothing_and_takes_nothing(
    vault: Vaults, monkeypatch: pytest.MonkeyPatch, what: str, change: dict[str, Any]
) -> None:
    block = _due(vault, "write")
    mallory, friend = vault("bob"), vault("eve").principal_id

    def lie(rotation: Rotation, leaf: Leaf) -> Leaf:
        mine = leaf.recipient == mallory.principal_id
        if what == "recipient":
            return leaf if mine else replace(leaf, recipient=friend)
        if what in ("history", "until"):
            return leaf if mine else replace(leaf, **change)
        return replace(leaf, **change) if mine else leaf

    with monkeypatch.context() as patch:
        _rotates(patch, lie)
        if what == "parent":  # both are the owner's already: nothing to gain, so one that does not exist
            change = {"parent": 7}
        forge(mallory, block, change_keys)
    is_refused(vault, block, "never had" if what == "recipient" else "than it names")


def test_a_writer_who_renews_keys_drops_nobody(vault: Vaults) -> None:
    block = _due(vault, "write")
    dave = vault("dave").principal_id

    def act(opened: Opened) -> None:
        _keep_proof(opened)
        gone = next(leaf for leaf in opened.grants() if leaf.recipient == dave)
        row = opened.ledger()[gone.grant][0]
        opened.plan.put(LEDGER, opened.row.storage, gone.grant, b"", *row[4:])
        opened.plan.delete(GRANT_WRAP, opened.row.storage, gone.grant)
        change_keys(opened)

    forge(vault("bob"), block, act)
    with pytest.raises(Tampered, match="than it names"):
        vault("carol").block(block)
    with pytest.raises(NotFound):  # the rows are gone; that they are, nobody can hide from the owner
        vault("dave").block(block)


def test_a_reader_changes_no_keys(vault: Vaults) -> None:
    block = shared(vault, "read")
    forge(vault("bob"), block, change_keys)
    is_refused(vault, block, "only the owner changes the policy")


def test_a_writer_brings_no_admin_key_of_its_own(vault: Vaults) -> None:
    """With it, it would open every K_grant from then on."""
    block = _due(vault, "write")

    def act(opened: Opened) -> None:
        add_link(
            opened,
            "policy",
            {"rotated": opened.row.epoch},
            admin=crypto.sha256(crypto.kem_public(crypto.random_bytes())),
        )

    forge(vault("bob"), block, act)
    with pytest.raises(Tampered):
        vault("carol").block(block)


def test_a_statement_that_hides_that_keys_are_due(vault: Vaults) -> None:
    block = _due(vault, "write")
    agent = vault("bob").create_agent({"name": "c"}).id

    def act(opened: Opened) -> None:
        head = opened.head
        opened._heads[head.number] = replace(head, due=False)
        grant_to(opened, identity_of(opened, agent), Terms(READ))

    forge(vault("bob"), block, act)
    is_refused(vault, block, "hides that the keys must change")


def test_garbage_for_others_denies_service_and_gives_nothing(
    vault: Vaults, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dave's new key is not in the capsule that Bob sends him: he misses the block, and the owner can still end it."""
    block = _due(vault, "write")
    dave = vault("dave").principal_id
    deliver = Rotation._deliver

    def lying(self: Rotation, leaf: Leaf, key: bytes) -> bytes:
        return deliver(self, leaf, crypto.random_bytes() if leaf.recipient == dave else key)

    with monkeypatch.context() as patch:
        patch.setattr(Rotation, "_deliver", lying)
        forge(vault("bob"), block, change_keys)
    with pytest.raises(TallystoneError):
        vault("dave").block(block)
    assert vault("carol").block(block).value == "before"
    vault("carol").revoke(block, "bob")
    vault("carol").revoke(block, "dave")
    vault("carol").share(block, "dave", "read")
    vault("dave").accept_offer(block)
    assert vault("dave").block(block).value == "before"


def test_a_key_that_is_renewed_is_not_accepted_for_its_holder(vault: Vaults) -> None:
    """Carol shares uninvited with Bob's agent. Bob changes the keys before anybody has looked: the capsule is his now,
    and he is the agent's sponsor, but nobody has accepted anything."""
    block = _due(vault, "write")
    agent = vault("bob").create_agent({"name": "c"}).id
    vault("carol").revoke(block, "dave")
    vault("carol").share(block, agent, "read")
    placed = vault("bob").create_agent({"name": "d"}, block_ids=[block]).id
    vault("bob").detach(placed, block)
    vault("bob").edit_block(block, lambda _: {"value": "by Bob, who changes the keys first"})
    assert vault("bob").agent(agent).blocks == []
    assert [(offer.recipient, offer.block_id) for offer in vault("bob").offers()] == [(agent, block)]
    vault("bob").accept_offer(block)
    assert [one.value for one in vault("bob").agent(agent).blocks] == ["by Bob, who changes the keys first"]


def test_a_renewed_key_takes_no_other_grants_place_on_a_shelf(vault: Vaults) -> None:
    """Bob's agent holds the block by his placement; a sharer's earlier and lesser grant to it waits. Changing the keys
    renews both, and leaves each where it was."""
    block = shared(vault, "write")
    vault("carol").share(block, "dave", "write+share")
    agent = vault("bob").create_agent({"name": "c"}).id
    vault("dave").share(block, agent, "read")
    vault("bob").attach(agent, block)
    assert len([grant for grant in vault("carol").grants(block) if grant.recipient == agent]) == 2
    other = vault("bob").create_agent({"name": "d"}, block_ids=[block]).id
    vault("bob").detach(other, block)
    vault("bob").edit_block(block, lambda _: {"value": "one"})
    assert [one.rights for one in vault("bob").agent(agent).blocks] == ["write"]
    vault("bob").detach(vault("bob").create_agent({"name": "e"}, block_ids=[block]).id, block)
    vault("bob").acting_as(agent).edit_block(block, lambda _: {"value": "two"})
    assert vault("carol").block(block).value == "two"
    assert [one.rights for one in vault("bob").agent(agent).blocks] == ["write"]
    vault("bob").acting_as(agent).edit_block(block, lambda _: {"value": "three"})
    assert [vault(name).block(block).value for name in ("carol", "bob", "dave")] == ["three"] * 3


# -- offers and transfers ---------------------------------------------------------------------------------------


def test_an_offer_that_claims_another_owner(workspace: Workspace, vault: Vaults, database: Path) -> None:
    """Bob writes a capsule that says Alice owns his block, since some transfer to come."""
    bait = vault("bob").create_block(label="bait").id
    mallory, target, alice = (caller_of(vault(name)) for name in ("bob", "dave", "alice"))
    vault("bob").share(bait, "dave")
    with raw(database) as connection:
        connection.execute("DELETE FROM inbox")
    with workspace.store.snapshot() as snapshot:
        plan = Plan(snapshot)
        opened = opened_by(vault("bob"), plan, bait)
        leaf, admin = opened.grants()[0], opened.admin_public
        entry = Ledger(opened.held.admin, bait).open(leaf.grant, opened.ledger()[leaf.grant][0][6])
        last = Link.decode(opened.statement(opened.head.number).body)
        lie = mallory.sign(plan, "grant", replace(last, owner=alice.id).encode())
        me = target.identity(plan, target.id)
        one_time = crypto.random_bytes()
        enc = crypto.seal_to(me.record.kem, capsule_info(workspace.id, me.digest), one_time)
        sent = replace(
            opened.held,
            grant=leaf.grant,
            key=entry.key,
            leaf=leaf.encode(),
            owner=alice.id,
            admin_public=admin,
        )
        body = seal_capsule_body(
            one_time, workspace.id, enc, sent, opened.statement(0), lie, {"renews": True, "since": 10**6}
        )
    with raw(database) as connection:
        connection.execute("INSERT INTO inbox VALUES (1, ?, ?, ?, ?, 1)", (target.id, enc[:16], enc, body))
    assert vault("dave").blocks() == [] and vault("dave").offers() == []


def test_a_transfer_is_accepted_once_and_by_nobody_else(vault: Vaults) -> None:
    block = shared(vault, "write+share")
    vault("carol").transfer(block, "dave")
    for name in ("bob", "eve", "alice"):
        with pytest.raises(NotFound):
            vault(name).accept_transfer(block)
    vault("dave").accept_transfer(block)
    for name in ("dave", "carol", "bob"):
        with pytest.raises(NotFound):
            vault(name).accept_transfer(block)
    assert vault("dave").block(block).rights == "owner"
    with pytest.raises(NotFound):
        vault("carol").cancel_transfer(block)


@pytest.mark.parametrize("first", ["accept", "cancel"])
def test_a_transfer_that_is_accepted_while_it_is_cancelled(
    workspace: Workspace, vault: Vaults, tokens: dict[str, str], tmp_path: Path, first: str
) -> None:
    block = shared(vault, "read")
    vault("carol").transfer(block, "dave")
    vault("dave").offers()
    acts: dict[str, Callable[[Vault], object]] = {
        "accept": lambda one: one.accept_transfer(block),
        "cancel": lambda one: one.cancel_transfer(block),
    }
    who = {"accept": "dave", "cancel": "carol"}
    late = "cancel" if first == "accept" else "accept"
    beside = Workspace.open(tmp_path / "data")  # another process: this one lets nobody overtake it
    store: Any = workspace.store  # `Any`, since its `commit` is replaced for a while
    commit = store.commit
    raced: list[str] = []

    def overtaken(batch: Batch, *queued: Any) -> None:
        if batch.changes and not raced:
            raced.append(first)
            store.commit = commit
            acts[first](beside.vault(tokens[who[first]]))
        commit(batch, *queued)

    store.commit = overtaken
    try:
        with pytest.raises(NotFound):
            acts[late](vault(who[late]))
    finally:
        store.commit = commit
        beside.close()
    assert raced
    owner = {"accept": "dave", "cancel": "carol"}[first]
    assert vault(owner).block(block).rights == "owner"
    assert workspace.verify().findings == []
    with pytest.raises(NotFound):
        vault({"accept": "carol", "cancel": "dave"}[first]).accept_transfer(block)


# -- the ledger -------------------------------------------------------------------------------------------------


def test_a_sharer_who_changes_the_admin_key_leaves_no_row_behind(workspace: Workspace, vault: Vaults) -> None:
    """Eve's grant has ended, and only the owner's statement drops it: until then its key goes with the admin key."""
    block = shared(vault, "write+share", depth=1)
    vault("carol").share(block, "eve", "read", until=TODAYS)
    vault("bob").share(block, "alice", "share")
    now = workspace.clock()
    workspace.clock = lambda: now + 86400
    vault("bob").revoke(block, "alice")
    vault("carol").revoke(block, "dave")
    assert vault("bob").block(block).value == vault("carol").block(block).value == "before"
    assert {grant.recipient for grant in vault("carol").grants(block)} == {vault("bob").principal_id}


def test_a_damaged_row_of_the_ledger_keeps_no_owner_from_revoking(
    workspace: Workspace, vault: Vaults, database: Path
) -> None:
    """Who edits rows can deny much, but not this: the grant gets a new key, and the check of the log names the row."""
    block = shared(vault, "read")
    number = next(g.number for g in vault("carol").grants(block) if g.recipient == vault("dave").principal_id)
    for secret in (b"", b"\x02" + bytes(48), b"\x03\x80", b"\x04", b"\x09", b"\x01" + bytes(1200)):
        with raw(database) as connection:
            connection.execute("UPDATE ledger SET secret = ? WHERE grant_no = ?", (secret, number))
        assert "ledger" in {finding.where.split()[0] for finding in workspace.verify().findings}
        vault("carol").revoke(block, "bob")
        vault("carol").share(block, "bob", "read")
        assert vault("dave").block(block).value == "before"
        vault("dave").edit_block(block, lambda _: {"value": "written all the same"})
        vault("dave").edit_block(block, lambda _: {"value": "before"})
