"""Roles under attack: by who never was a member, by who was, by members, by the role's owner, by an operator.

A role signs nothing. A write through it carries the head of its live members, signed by the role's owner, and the path
of the writer in it; what is forged or old in there is refused by every reader. As in `test_sharers`, the attackers run
clients of their own, and here somebody also lends them keys.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from stores import sampled, thinned

from attack.lying import caller_of, forge, held_by, lawless, opened_by
from attack.scene import DATABASE, raw, rows
from attack.test_sharers import NEVER, is_refused
from tallystone import crypto
from tallystone.errors import Denied, Invalid, NotFound, TallystoneError, Tampered
from tallystone.grant_tree import grants_root
from tallystone.keystore import Identity
from tallystone.policy import Standing, Via
from tallystone.statements import EMPTY, Leaf, Membership, PrincipalRecord, issue
from tallystone.vault import Vault, Workspace
from tallystone.vault.caller import Caller, KeysChanged
from tallystone.vault.opening import Opened
from tallystone.vault.passages import reached
from tallystone.vault.plan import Plan
from tallystone.vault.principals import put_principal
from tallystone.vault.rotating import change_keys
from tallystone.vault.shelves import ROLES
from tallystone.vault.types import Block, Credentials
from tallystone.vault.writing import add_version

pytestmark = thinned(2, "they forge what is judged above the store, which gives them the rows")

Vaults = Callable[[str], Vault]


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
def role(vault: Vaults) -> str:
    """A role of Alice's; Bob and Dave are its members."""
    made = vault("alice").create_role("team").id
    vault("alice").add_members(made, ["bob", "dave"])
    for name in ("bob", "dave"):
        vault(name).accept_offer(made)
    return made


@pytest.fixture
def block(vault: Vaults, role: str) -> str:
    """A block of Carol's that the role may write, and Dave by himself as well."""
    made = vault("carol").create_block(label="team", value="before").id
    vault("carol").share(made, role, "write")
    vault("alice").accept_offer(made)
    return made


def write(vault: Vault, block: str, value: str) -> Block:
    return vault.edit_block(block, lambda _: {"value": value})


Way = tuple[Standing, list[Any]]
"""How a version says that its writer came by its right, for the rules and as it is stored."""


def way_of(vault: Vault, block: str) -> Way:
    """As it is now."""
    with caller_of(vault).workspace.store.snapshot() as snapshot:
        opened = opened_by(vault, Plan(snapshot), block)
        return opened.standing(), opened.evidence()


def signs(vault: Vaults, signer: str, lender: str, block: str, way: Way) -> None:
    """`signer` signs a version by the way that is given, with the block's keys as `lender` has them."""

    def act(opened: Opened) -> None:
        payload, _, digest = opened.payload()
        opened.caller = caller_of(vault(signer))
        opened.evidence = lambda: way[1]  # type: ignore[method-assign]  # the attacker's own code
        standing = replace(way[0], principal=opened.caller.id)
        add_version(opened, {**payload, "value": "forged"}, digest, standing)

    forge(vault(lender), block, act)


def forged_head(vault: Vaults, signer: str, way: Way, **changes: Any) -> Membership:
    head = way[0].via[0].head
    me = caller_of(vault(signer))
    with me.workspace.store.snapshot() as snapshot:
        mine = me.identity(Plan(snapshot), me.id).digest
    return replace(head, **{"owner": me.id, "owner_record": mine, **changes})


def by_way_of(vault: Vaults, signer: str, way: Way, head: Membership, leaf: Leaf, proof: list[Any]) -> Way:
    """The same way with this head, signed by `signer`, and this leaf."""
    me = caller_of(vault(signer))
    with me.workspace.store.snapshot() as snapshot:
        mine, seed = me.identity(Plan(snapshot), me.id).digest, me.signing_seed(Plan(snapshot))
    signed = issue("membership", me.workspace.id, head.encode(), [(mine, seed)])
    via = Via(head, leaf, tuple(proof), way[0].via[0].records)
    return replace(way[0], via=(via,)), [[signed.encode(), leaf.encode(), proof]]


def members_leaf(way: Way, recipient: str) -> Leaf:
    leaf = way[0].via[0].leaf
    assert leaf is not None
    return replace(leaf, grant=1, recipient=recipient)


# -- who is no member -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "lie", ["another's leaf", "own leaf", "own head", "head in the owner's name", "no role"]
)
def test_a_ghost_member(vault: Vaults, block: str, lie: str) -> None:
    """Eve was never in the role. Bob lends her his keys and his proof; what she signs counts for nobody."""
    way, eve = way_of(vault("bob"), block), vault("eve").principal_id
    leaf = members_leaf(way, eve)
    if lie == "own leaf":
        step = way[0].via[0]
        via = replace(step, leaf=replace(leaf, grant=step.leaf.grant if step.leaf else 0))
        assert via.leaf is not None
        way = replace(way[0], via=(via,)), [[way[1][0][0], via.leaf.encode(), way[1][0][2]]]
    elif lie in ("own head", "head in the owner's name"):
        changes: dict[str, Any] = {"members": grants_root({1: leaf.digest}), "serial": 99}
        if lie != "own head":
            changes |= {"owner": vault("alice").principal_id}
        way = by_way_of(vault, "eve", way, forged_head(vault, "eve", way, **changes), leaf, [0, []])
    elif lie == "no role":
        way = replace(way[0], via=()), []
    signs(vault, "eve", "bob", block, way)
    reason = {
        "own head": "not by the role's owner",
        "head in the owner's name": "not signed by the one it names",
    }
    is_refused(vault, block, reason.get(lie, "without the right to"))


def test_a_head_of_another_role(vault: Vaults, block: str) -> None:
    """Eve owns a role of her own, in which she is what she likes."""
    hers = vault("eve").create_role("hers").id
    made = vault("eve").create_block(label="x").id
    vault("eve").share(made, hers, "write")
    with caller_of(vault("eve")).workspace.store.snapshot() as snapshot:
        plan = Plan(snapshot)
        (mine,) = reached(caller_of(vault("eve")), plan)
        step, evidence = mine.way[0].via(), mine.way[0].evidence()
    way = way_of(vault("bob"), block)
    signs(vault, "eve", "bob", block, (replace(way[0], via=(step,)), [evidence]))
    is_refused(vault, block, "without the right to")


def test_a_nested_way_that_leads_nowhere(vault: Vaults, block: str) -> None:
    """A role that is no member of the role, in between."""
    inner = vault("eve").create_role("inner").id
    with caller_of(vault("eve")).workspace.store.snapshot() as snapshot:
        (mine,) = reached(caller_of(vault("eve")), Plan(snapshot))
        step, evidence = mine.way[0].via(), mine.way[0].evidence()
    assert inner == step.head.role
    way = way_of(vault("bob"), block)
    signs(vault, "eve", "bob", block, (replace(way[0], via=(*way[0].via, step)), [*way[1], evidence]))
    is_refused(vault, block, "without the right to")


# -- who was a member -------------------------------------------------------------------------------------------


def test_a_removed_role_member_who_still_holds_the_old_root(
    workspace: Workspace, vault: Vaults, role: str, block: str
) -> None:
    """Bob has the old root, shelf rows and head; a member who stayed lends him the new keys. Neither helps."""
    write(vault("bob"), block, "one")
    way, kept = way_of(vault("bob"), block), held_by(workspace, caller_of(vault("bob")).keys, role, ROLES)
    vault("alice").remove_member(role, "bob")
    for attempt in (
        lambda: vault("bob").block(block),
        lambda: write(vault("bob"), block, "x"),
        lambda: vault("bob").role(role),
        lambda: vault("bob").share(block, "eve"),
    ):
        with pytest.raises(NotFound) as missed:
            attempt()
        assert "not found" in missed.value.message
    assert kept.subject == role and vault("bob").roles() == []
    write(vault("dave"), block, "two")
    signs(vault, "bob", "dave", block, way)
    is_refused(vault, block, "without the right to")


def test_a_removed_member_of_the_inner_role_who_still_holds_the_old_roots(
    vault: Vaults, role: str, block: str
) -> None:
    inner = vault("alice").create_role("inner").id
    vault("alice").add_members(role, [inner])
    vault("alice").add_members(inner, ["eve"])
    vault("eve").accept_offer(inner)
    write(vault("eve"), block, "one")
    way = way_of(vault("eve"), block)
    assert len(way[0].via) == 2
    vault("alice").remove_member(inner, "eve")
    write(vault("dave"), block, "two")
    signs(vault, "eve", "dave", block, way)
    is_refused(vault, block, "without the right to", stranger="eve")


def test_an_old_role_head_replayed_by_who_is_a_member_again(vault: Vaults, role: str, block: str) -> None:
    """Bob is back, and presents the head of before his removal: it names a root that is no more."""
    write(vault("bob"), block, "one")
    old = way_of(vault("bob"), block)
    vault("alice").remove_member(role, "bob")
    vault("alice").add_members(role, ["bob"])
    vault("bob").accept_offer(role)
    write(vault("bob"), block, "two")
    now = way_of(vault("bob"), block)
    assert now[0].via[0].head.serial > old[0].via[0].head.serial
    signs(vault, "bob", "bob", block, (replace(now[0], via=old[0].via), old[1]))
    is_refused(vault, block, "without the right to")


def test_a_version_that_forgets_the_heads_that_were_written_under(
    vault: Vaults, role: str, block: str
) -> None:
    """Within a block the serial of a role's head never goes back. Dave writes by his own grant, and names none."""
    vault("carol").share(block, "dave", "write")
    vault("dave").accept_offer(block)
    vault("alice").add_members(role, ["eve"])
    write(vault("bob"), block, "under the newest head")

    def act(opened: Opened) -> None:
        payload, _, digest = opened.payload()
        add_version(opened, {**payload, "value": "forged"}, digest, opened.standing())

    forge(vault("dave"), block, act)
    with pytest.raises(Tampered):
        vault("carol").block(block)


def test_an_old_role_head_put_back_by_an_operator(
    workspace: Workspace, vault: Vaults, tokens: dict[str, str], role: str, block: str, database: Path
) -> None:
    """Rows of before the removal: the role's block, its record, its shelf, the keys. Carol's block stays as it is."""
    write(vault("bob"), block, "one")
    theirs = held_by(workspace, caller_of(vault("carol")).keys, block).storage
    tables = ("block", "chain", "version", "epoch", "grant_wrap", "ledger", "shelf", "identity", "principal")
    saved = {table: rows(database, f"SELECT * FROM {table}") for table in tables}
    vault("alice").remove_member(role, "bob")
    write(vault("dave"), block, "two")
    with raw(database) as connection:
        for table, kept in saved.items():
            if table in ("identity", "principal", "shelf"):
                connection.execute(f"DELETE FROM {table}")
            else:
                connection.execute(f"DELETE FROM {table} WHERE storage != ?", (theirs,))
                kept = [row for row in kept if row[1] != theirs]
            marks = ", ".join("?" * len(kept[0]))
            connection.executemany(f"INSERT INTO {table} VALUES ({marks})", kept)
    assert {"principal", "identity", "block", "version"} <= {
        finding.where.split()[0] for finding in workspace.verify().findings
    }
    with Workspace.open(database.parent) as fresh:  # nothing is remembered of the records that are gone
        for one in (vault("bob"), fresh.vault(tokens["bob"])):
            for attempt in (one.block, partial(write, one, value="x")):
                with pytest.raises((Tampered, NotFound, KeysChanged)):
                    attempt(block)


# -- members, the role's owner, records -------------------------------------------------------------------------


def test_a_member_neither_adds_nor_removes_nor_renames(vault: Vaults, role: str) -> None:
    for attempt in (
        lambda: vault("bob").add_members(role, ["eve"]),
        lambda: vault("bob").remove_member(role, "dave"),
        lambda: vault("bob").delete_role(role),
    ):
        with pytest.raises(Denied):
            attempt()
    strangers: list[Callable[[], object]] = [
        lambda: vault("eve").role(role),
        lambda: vault("eve").add_members(role, ["eve"]),
        lambda: vault("eve").remove_member(role, "dave"),
        lambda: vault("eve").delete_role(role),
        lambda: vault("eve").accept_offer(role),
        lambda: vault("eve").decline_offer(role),
    ]
    for miss in strangers:
        with pytest.raises(NotFound) as missed:
            miss()
        assert missed.value.message.replace(role, NEVER) in (
            f"Role {NEVER} not found",
            f"Offer {NEVER} not found",
        )


def test_a_members_version_of_the_roles_block(vault: Vaults, role: str) -> None:
    """With a head that names Eve and a root of Bob's choice."""
    with lawless(), caller_of(vault("bob")).workspace.store.snapshot() as snapshot:
        plan = Plan(snapshot)
        (mine,) = reached(caller_of(vault("bob")), plan)
        opened = mine.way[0].opened
        payload, _, digest = opened.payload()
        add_version(opened, {**payload, "read": bytes(32)}, digest, opened.standing())
        caller_of(vault("bob")).workspace.store.commit(plan.batch())
    for name in ("alice", "dave"):
        with pytest.raises(Tampered, match="without the right to"):
            vault(name).role(role)


@sampled(3, "the cases differ in what a row says, which is judged above the store")
@pytest.mark.parametrize("signer", ["bob", "eve", "carol"])
@pytest.mark.parametrize("change", ["kem", "clearance", "status", "sponsor"])
def test_a_swapped_recipient_key_or_clearance_of_a_role(
    workspace: Workspace, vault: Vaults, role: str, signer: str, change: str
) -> None:
    """A member, a stranger, the owner of a block: none of them is the role's owner."""
    me = caller_of(vault(signer))
    changes: dict[str, dict[str, Any]] = {
        "kem": {"kem": crypto.kem_public(crypto.random_bytes()), "root": 1},
        "clearance": {"clearance": 3},
        "status": {"status": "deleted"},
        "sponsor": {"sponsor": me.id},
    }
    fields = changes[change]
    with workspace.store.snapshot() as snapshot:
        plan = Plan(snapshot)
        now, mine = me.identity(plan, role), me.identity(plan, me.id).digest
        record = replace(now.record, id=role, serial=1, previous=now.digest, **fields)
        signed = issue("principal", workspace.id, record.encode(), [(mine, me.signing_seed(plan))])
        put_principal(plan, role, 1, signed)
    workspace.store.commit(plan.batch())
    made = vault("carol").create_block(label="x").id
    for attempt in (
        lambda: vault("carol").share(made, role, "read"),
        lambda: vault("bob").roles(),
        lambda: vault("alice").add_members(role, ["eve"]),
    ):
        with pytest.raises(Tampered):
            attempt()
    assert vault("carol").grants(made) == []


def test_clearance_edited_in_a_stored_row(
    workspace: Workspace, vault: Vaults, role: str, database: Path
) -> None:
    """Of a user, by an operator and by the user itself; of a role, by an operator."""
    vault("alice").set_clearance("carol", "restricted")
    made = vault("carol").create_block(label="x", sensitivity="restricted").id
    bob = vault("bob").principal_id
    for who in (bob, role):
        with pytest.raises(Denied) as refusal:
            vault("carol").share(made, who, "read")
        assert refusal.value.code == "no_clearance"
        body = rows(database, "SELECT record FROM principal WHERE id = ?", who)[0][0]
        edited = replace(PrincipalRecord.decode(body), clearance=3).encode()
        with raw(database) as connection:
            connection.execute("UPDATE principal SET record = ? WHERE id = ?", (edited, who))
        with pytest.raises(Tampered):
            vault("carol").share(made, who, "read")
        assert "principal" in {finding.where.split()[0] for finding in workspace.verify().findings}
        with raw(database) as connection:
            connection.execute("UPDATE principal SET record = ? WHERE id = ?", (body, who))
    me = caller_of(vault("bob"))
    with workspace.store.snapshot() as snapshot:
        plan = Plan(snapshot)
        now, seed = me.identity(plan, bob), me.signing_seed(plan)
        record = replace(now.record, id=bob, serial=1, previous=now.digest, clearance=3)
        signers = [(EMPTY, seed), (now.digest, seed)]
        put_principal(plan, bob, 1, issue("principal", workspace.id, record.encode(), signers))
    workspace.store.commit(plan.batch())
    with pytest.raises(Tampered):
        vault("carol").share(made, bob, "read")


def test_a_role_owner_who_lets_in_who_is_not_cleared(
    vault: Vaults, role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The role's owner skips its own check. Whoever comes through the role is asked for its clearance all the same."""
    for name in ("alice", "bob", "dave", "carol"):
        vault("alice").set_clearance(name, "internal")
    cleared = vault("alice").create_role("cleared", clearance="internal").id
    made = vault("carol").create_block(label="x", sensitivity="internal").id
    vault("carol").share(made, cleared, "write")
    vault("alice").accept_offer(made)
    with pytest.raises(Denied):
        vault("alice").add_members(cleared, ["eve"])
    ask = Caller.party
    with monkeypatch.context() as patch:
        patch.setattr(Caller, "party", lambda *a: replace(ask(*a), clearance=9))
        vault("alice").add_members(cleared, ["eve"])
    vault("eve").accept_offer(cleared)
    with pytest.raises(NotFound):
        vault("eve").block(made)
    assert made not in [one.id for one in vault("eve").blocks()]
    vault("alice").add_members(cleared, ["dave"])
    vault("dave").accept_offer(cleared)
    assert vault("dave").block(made).through == cleared
    vault("alice").set_clearance("dave", None)
    with pytest.raises(NotFound):
        vault("dave").block(made)


def test_a_role_that_would_contain_itself(vault: Vaults) -> None:
    alice = vault("alice")
    tiers = [alice.create_role(f"tier {n}").id for n in range(3)]
    alice.add_members(tiers[0], [tiers[1]])
    alice.add_members(tiers[1], [tiers[2]])
    for outer, inner in ((2, 0), (2, 1), (1, 0), (0, 0)):
        with pytest.raises(Invalid) as refusal:
            alice.add_members(tiers[outer], [tiers[inner]])
        assert refusal.value.code == "role_cycle"
    theirs = vault("bob").create_role("theirs").id
    with pytest.raises(TallystoneError):
        alice.add_members(tiers[0], [theirs])


def test_keys_that_a_writer_renews_to_an_old_record_of_a_role(vault: Vaults, role: str, block: str) -> None:
    """Dave writes by himself, too. He changes the keys and names the role's record of before Bob was removed: with it
    Bob's old head would be good again."""
    vault("carol").share(block, "dave", "write")
    vault("dave").accept_offer(block)
    write(vault("bob"), block, "one")
    way = way_of(vault("bob"), block)
    vault("alice").remove_member(role, "bob")
    write(vault("carol"), block, "under the new record")
    agent = vault("dave").create_agent({"name": "d"}, block_ids=[block]).id
    vault("dave").detach(agent, block)
    old = way[0].via[0].head.record
    identity = Caller.identity

    def dated(self: Caller, plan: Plan, principal: str) -> Identity:
        found = identity(self, plan, principal)
        return replace(found, digest=old) if principal == role else found

    with patch.object(Caller, "identity", dated):
        forge(vault("dave"), block, change_keys)
    is_refused(vault, block, "earlier record")


# -- what comes through a role ----------------------------------------------------------------------------------


def test_a_label_that_comes_through_a_role_never_draws_an_agents_writes(vault: Vaults, role: str) -> None:
    """Bob's agent is in Alice's role. Alice gives the role a block with the label of the agent's private one."""
    agent = vault("bob").create_agent({"name": "a"}, memory_blocks=[{"label": "persona", "value": "mine"}]).id
    own = vault("bob").agent_block(agent, "persona").id
    vault("alice").add_members(role, [agent])
    vault("bob").accept_offer(role)
    bait = vault("alice").create_block(label="persona", value="bait").id
    vault("alice").share(bait, role, "write")
    assert vault("bob").agent_block(agent, "persona").id == own
    vault("bob").edit_agent_block(agent, "persona", lambda _: {"value": "still mine"}, as_agent=True)
    assert vault("bob").block(own).value == "still mine"
    assert vault("alice").block(bait).value == "bait"


def test_a_members_read_only_token_reads_and_does_nothing_else(
    workspace: Workspace, vault: Vaults, role: str, block: str
) -> None:
    reader = workspace.vault(vault("bob").create_token(scope="read"))
    assert reader.block(block).value == "before"
    for attempt in (
        lambda: write(reader, block, "x"),
        lambda: reader.share(block, "eve"),
        lambda: reader.add_members(role, ["eve"]),
    ):
        with pytest.raises(Denied):
            attempt()
    write(vault("dave"), block, "two")
    assert reader.block(block).value == "two"
    vault("alice").remove_member(role, "bob")
    with pytest.raises(NotFound):
        reader.block(block)
    assert reader.blocks() == [] and reader.roles() == []


def test_a_member_who_reads_by_itself_and_writes_through_the_role(
    vault: Vaults, role: str, block: str
) -> None:
    """Two grants lead to one block; whoever changes the keys by the one leaves the other as it was."""
    vault("carol").share(block, "bob", "read")
    vault("bob").accept_offer(block)
    vault("alice").remove_member(role, "dave")
    write(vault("bob"), block, "through the role, with new keys")
    for name in ("carol", "bob", "alice"):
        assert vault(name).block(block).value == "through the role, with new keys"
    vault("alice").remove_member(role, "bob")
    assert vault("bob").block(block).rights == "read"
    with pytest.raises(Denied):
        write(vault("bob"), block, "x")
    write(vault("carol"), block, "three")
    assert vault("bob").block(block).value == "three"
    vault("carol").revoke(block, "bob")
    with pytest.raises(NotFound):
        vault("bob").block(block)


@pytest.mark.parametrize(("own", "through"), [("write", "share"), ("share", "write")])
def test_rights_of_ones_own_and_through_a_role_do_not_hide_each_other(
    vault: Vaults, role: str, own: str, through: str
) -> None:
    made = vault("carol").create_block(label="x", value="before").id
    vault("carol").share(made, "bob", own)
    vault("bob").accept_offer(made)
    vault("carol").share(made, role, through)
    vault("alice").accept_offer(made)
    write(vault("bob"), made, "after")
    assert vault("bob").share(made, "eve", "read").can == "read"


# -- what random lives found ------------------------------------------------------------------------------------


def test_a_block_goes_over_to_a_member_of_a_role_that_holds_it(vault: Vaults, role: str, block: str) -> None:
    """The heir has the role's keys, and renews its row itself: with the new owner's name in it."""
    agent = vault("alice").create_agent({"name": "a"}).id
    vault("alice").add_members(role, [agent])
    vault("carol").transfer(block, "alice")
    vault("alice").accept_transfer(block)
    write(vault("bob"), block, "after")
    for one in (vault("alice"), vault("dave"), vault("alice").acting_as(agent)):
        assert one.block(block).value == "after"
    with pytest.raises(NotFound):
        vault("carol").block(block)


def test_a_former_owner_reaches_its_block_through_a_role(vault: Vaults, role: str) -> None:
    made = vault("bob").create_block(label="x", value="before").id
    vault("bob").transfer(made, "carol")
    vault("carol").accept_transfer(made)
    with pytest.raises(NotFound):
        vault("bob").block(made)
    vault("carol").share(made, role, "write")
    vault("alice").accept_offer(made)
    write(vault("bob"), made, "after")
    assert [(one.id, one.value) for one in vault("bob").blocks()] == [(made, "after")]


def test_an_inner_role_ends_after_the_outer_one(vault: Vaults, role: str) -> None:
    outer = vault("alice").create_role("outer").id
    vault("alice").add_members(outer, [role])
    vault("alice").delete_role(outer)
    vault("alice").remove_member(role, "bob")
    vault("alice").delete_role(role)
    assert vault("alice").roles() == vault("dave").roles() == []
