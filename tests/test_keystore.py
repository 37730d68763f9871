"""From a token to keys: what each scope reaches, and that nobody can put other keys behind a principal."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystone import crypto, keystore
from tallystone.errors import Invalid, Tampered, Unauthenticated
from tallystone.keystore import (
    Carried,
    Identity,
    Invite,
    Keys,
    Kit,
    Root,
    Token,
    check_principal,
    principal_id,
)
from tallystone.statements import EMPTY, Invitation, PrincipalRecord, Signed, identifier, issue

TOKEN = Token("abcdefghijklmnop", bytes(range(32)))
ROOT = Root(b"R" * 32, b"A" * 32, b"P" * 32)


# -- tokens -----------------------------------------------------------------------------------------------------


def test_a_token_has_the_shape_that_secret_scanners_know() -> None:
    text = keystore.new_token().text
    assert re.fullmatch(r"tally_[a-z2-7]{16}_[a-z2-7]{52}_[a-z2-7]{8}", text)
    assert keystore.parse_token(f"  {text}\n").text == text


def test_two_tokens_share_nothing() -> None:
    one, two = keystore.new_token(), keystore.new_token()
    assert one.kid != two.kid and one.secret != two.secret and one.verifier != two.verifier


@given(st.integers(0, 83), st.sampled_from("abcdefghijklmnopqrstuvwxyz234567_018-AZ é\n\0"))
def test_any_mistyped_token_is_refused_and_never_repeated(place: int, letter: str) -> None:
    text = TOKEN.text
    wrong = text[:place] + letter + text[place + 1 :]
    if wrong == text:
        return
    with pytest.raises(Unauthenticated) as refused:
        keystore.parse_token(wrong)
    assert wrong[10:40] not in f"{refused.value} {refused.value.hint} {refused.value!r}"


@pytest.mark.parametrize(
    "text",
    ["", "tally_", "Bearer x", TOKEN.text + "a", TOKEN.text[:-1], TOKEN.text.upper(), "x" * 10**5, "٣" * 85],
)
def test_what_is_no_token_at_all_is_refused(text: str) -> None:
    with pytest.raises(Unauthenticated):
        keystore.parse_token(text)


def test_nothing_that_holds_a_secret_shows_it() -> None:
    keys, kit = Keys("user-1", ROOT), Kit("user-1", "alice", "AGE-SECRET-KEY-PQ-1XYZ")
    shown = f"{TOKEN!r} {ROOT!r} {keys!r} {kit!r}"
    for secret in (TOKEN.text[23:70], "RRRR", "AAAA", "XYZ", TOKEN.secret.hex()):
        assert secret not in shown


def test_the_verifier_in_the_store_opens_nothing() -> None:
    sealed = keystore.seal_root(TOKEN, ROOT, "user-1", "full", 1, None)
    assert crypto.derive(TOKEN.secret, "token/auth") not in (TOKEN.verifier, TOKEN.opening_key())
    with pytest.raises(Tampered):
        crypto.open_sealed(
            TOKEN.verifier, keystore.token_context(TOKEN.kid, "user-1", "full", 1, None), sealed
        )


def test_a_read_only_token_seals_the_reading_half_alone() -> None:
    sealed = keystore.seal_root(TOKEN, ROOT, "user-1", "read", 1, None)
    opened = keystore.open_root(TOKEN, sealed, "user-1", "read", 1, None)
    assert (opened.read, opened.act, opened.pin) == (ROOT.read, None, ROOT.pin)
    keys = Keys("user-1", opened)
    assert not keys.can_act
    assert keys.locate and keys.seal and keys.own
    for act in ("sign", "kem", "act"):
        with pytest.raises(LookupError):
            getattr(keys, act)


@pytest.mark.parametrize(
    ("principal", "scope", "created", "expires"),
    [("user-2", "read", 1, 9), ("user-1", "full", 1, 9), ("user-1", "read", 2, 9), ("user-1", "read", 1, None),
     ("user-1", "read", 1, 10)],
)  # fmt: skip
def test_a_token_row_with_an_edited_principal_scope_or_expiry_opens_nothing(
    principal: str, scope: str, created: int, expires: int | None
) -> None:
    sealed = keystore.seal_root(TOKEN, ROOT, "user-1", "read", 1, 9)
    assert keystore.open_root(TOKEN, sealed, "user-1", "read", 1, 9).read == ROOT.read
    with pytest.raises(Tampered):
        keystore.open_root(TOKEN, sealed, principal, scope, created, expires)
    with pytest.raises(Tampered):
        keystore.open_root(replace(TOKEN, kid="ponmlkjihgfedcba"), sealed, "user-1", "read", 1, 9)


def test_a_scope_that_is_not_known_is_never_sealed() -> None:
    with pytest.raises(Invalid):
        keystore.seal_root(TOKEN, ROOT, "user-1", "admin", 1, None)


def test_every_key_of_a_root_serves_one_purpose() -> None:
    keys = Keys("user-1", ROOT)
    derived = [keys.locate, keys.seal, keys.own, keys.sign, keys.kem, keys.act]
    derived += [keys.shelf("block"), keys.shelf("agent"), keys.locator("block-1"), keys.locator("block")]
    assert len(set(derived)) == len(derived)
    assert keys.locator("block-1") != Keys("user-1", replace(ROOT, read=b"S" * 32)).locator("block-1")


def test_an_identity_seed_opens_for_its_principal_and_purpose_only() -> None:
    keys = Keys("user-1", ROOT)
    sealed = keystore.seal_seed(keys, "sign", b"s" * 32)
    assert keystore.open_seed(keys, "sign", sealed) == b"s" * 32
    for wrong in (Keys("user-2", ROOT), Keys("user-1", replace(ROOT, act=b"B" * 32))):
        with pytest.raises(Tampered):
            keystore.open_seed(wrong, "sign", sealed)
    with pytest.raises(Tampered):
        keystore.open_seed(keys, "kem", sealed)


# -- principals -------------------------------------------------------------------------------------------------

SEEDS = {name: crypto.sha256(name.encode()) for name in ("root", "bob", "agent", "mallory", "new")}
PUBLIC = {name: crypto.signing_public(seed) for name, seed in SEEDS.items()}


def record(kind: str, signing: str, sponsor: str, **fields: Any) -> PrincipalRecord:
    made = PrincipalRecord(kind, "", 0, EMPTY, PUBLIC[signing], b"k" * 1216, sponsor, "active", None, 0)
    return replace(made, **fields)


ROOT_SIGNED = issue("principal", EMPTY, record("user", "root", "").encode(), [(EMPTY, SEEDS["root"])])
WORKSPACE = ROOT_SIGNED.digest
ROOT_ID = identifier("user", WORKSPACE)


def nobody(_: str) -> Identity:
    raise AssertionError("the root has no sponsor")


def root() -> Identity:
    return check_principal(ROOT_ID, [ROOT_SIGNED], WORKSPACE, WORKSPACE, nobody)


def vouch(body: PrincipalRecord, *signers: tuple[bytes, str]) -> Signed:
    return issue("principal", WORKSPACE, body.encode(), [(digest, SEEDS[name]) for digest, name in signers])


BOB_SIGNED = vouch(record("user", "bob", ROOT_ID), (EMPTY, "bob"), (WORKSPACE, "root"))
BOB_ID = identifier("user", BOB_SIGNED.digest)


def bob(*later: Signed) -> Identity:
    return check_principal(BOB_ID, [BOB_SIGNED, *later], WORKSPACE, WORKSPACE, lambda _: root())


AGENT_SIGNED = vouch(record("agent", "agent", BOB_ID), (EMPTY, "agent"), (BOB_SIGNED.digest, "bob"))
AGENT_ID = identifier("agent", AGENT_SIGNED.digest)


def agent(*later: Signed) -> Identity:
    return check_principal(AGENT_ID, [AGENT_SIGNED, *later], WORKSPACE, WORKSPACE, lambda _: bob())


def following(identity: Identity, **fields: Any) -> PrincipalRecord:
    serial = identity.record.serial + 1
    made = replace(identity.record, id=identity.id, serial=serial, previous=identity.digest)
    return replace(made, **fields)


def test_a_chain_from_the_pinned_root_to_a_user_to_its_agent_holds() -> None:
    assert root().active and bob().active and agent().active
    assert agent().record.sponsor == BOB_ID


def test_the_root_is_the_one_that_the_token_pins_and_no_other() -> None:
    forged = issue("principal", EMPTY, record("user", "mallory", "").encode(), [(EMPTY, SEEDS["mallory"])])
    with pytest.raises(Tampered):
        check_principal(identifier("user", forged.digest), [forged], WORKSPACE, WORKSPACE, nobody)
    with pytest.raises(Tampered):
        check_principal(ROOT_ID, [forged], WORKSPACE, WORKSPACE, nobody)


@pytest.mark.parametrize("signing", ["mallory", "new"])
def test_a_swapped_public_key_makes_another_id(signing: str) -> None:
    for field in ({"signing": PUBLIC[signing]}, {"kem": b"x" * 1216}):
        body = replace(record("user", "bob", ROOT_ID), **field)
        swapped = vouch(body, (EMPTY, signing), (EMPTY, "bob"), (WORKSPACE, "root"))
        with pytest.raises(Tampered):
            check_principal(BOB_ID, [swapped], WORKSPACE, WORKSPACE, lambda _: root())


def test_nobody_becomes_a_user_without_the_root_nor_an_agent_without_its_sponsor() -> None:
    for kind, sponsor, vouching, sponsor_of in (
        ("user", ROOT_ID, None, lambda _: root()),
        ("user", ROOT_ID, (WORKSPACE, "mallory"), lambda _: root()),
        ("agent", BOB_ID, (BOB_SIGNED.digest, "mallory"), lambda _: bob()),
        ("agent", BOB_ID, (WORKSPACE, "root"), lambda _: bob()),
    ):
        body = record(kind, "mallory", sponsor)
        signed = vouch(body, (EMPTY, "mallory"), *([vouching] if vouching else []))
        with pytest.raises(Tampered):
            check_principal(identifier(kind, signed.digest), [signed], WORKSPACE, WORKSPACE, sponsor_of)


def test_a_user_adds_no_users_and_an_agent_adds_nobody() -> None:
    by_bob = vouch(record("user", "new", BOB_ID), (EMPTY, "new"), (BOB_SIGNED.digest, "bob"))
    with pytest.raises(Tampered):
        check_principal(identifier("user", by_bob.digest), [by_bob], WORKSPACE, WORKSPACE, lambda _: bob())
    by_agent = vouch(record("agent", "new", AGENT_ID), (EMPTY, "new"), (AGENT_SIGNED.digest, "agent"))
    with pytest.raises(Tampered):
        check_principal(
            identifier("agent", by_agent.digest), [by_agent], WORKSPACE, WORKSPACE, lambda _: agent()
        )


def test_new_keys_take_the_old_holders_word_the_new_ones_and_the_sponsors() -> None:
    body = following(bob(), signing=PUBLIC["new"])
    old, new, sponsor = (BOB_SIGNED.digest, "bob"), (EMPTY, "new"), (WORKSPACE, "root")
    assert bob(vouch(body, old, new, sponsor)).record.signing == PUBLIC["new"]
    for signers in ((new, sponsor), (old, sponsor), (old, new), (sponsor,), (new,), ()):
        with pytest.raises(Tampered):
            bob(vouch(body, *signers))


def test_nobody_can_append_new_keys_to_the_root() -> None:
    for status in ("active", "suspended", "deleted"):
        body = following(root(), signing=PUBLIC["mallory"], status=status)
        for signers in ([(EMPTY, "mallory")], [(EMPTY, "mallory"), (WORKSPACE, "mallory")], []):
            forged = vouch(body, *signers)
            with pytest.raises(Tampered):
                check_principal(ROOT_ID, [ROOT_SIGNED, forged], WORKSPACE, WORKSPACE, nobody)


def test_a_sponsor_alone_may_end_what_it_sponsors_but_not_take_it_over() -> None:
    ended = vouch(following(agent(), status="deleted"), (BOB_SIGNED.digest, "bob"))
    assert not agent(ended).active
    for status in ("active", "suspended", "deleted"):
        taken = vouch(following(agent(), status=status, signing=PUBLIC["bob"]), (BOB_SIGNED.digest, "bob"))
        with pytest.raises(Tampered):
            agent(taken)
    with pytest.raises(Tampered):
        agent(vouch(following(agent(), status="deleted"), (WORKSPACE, "mallory")))


@pytest.mark.parametrize(
    "change",
    [
        lambda body: replace(body, serial=2),
        lambda body: replace(body, previous=EMPTY),
        lambda body: replace(body, id="user-1"),
        lambda body: replace(body, kind="agent"),
        lambda body: replace(body, sponsor=BOB_ID),
    ],
    ids=["skips a serial", "forgets its predecessor", "another id", "another kind", "another sponsor"],
)
def test_a_later_record_must_continue_the_chain(change: Callable[[PrincipalRecord], PrincipalRecord]) -> None:
    body = change(following(bob()))
    with pytest.raises(Tampered):
        bob(vouch(body, (BOB_SIGNED.digest, "bob"), (EMPTY, "bob"), (WORKSPACE, "root")))


def test_a_statement_of_another_type_is_no_principal_record() -> None:
    posing = replace(BOB_SIGNED, type="workspace")
    with pytest.raises(Tampered):
        check_principal(identifier("user", posing.digest), [posing], WORKSPACE, WORKSPACE, lambda _: root())
    with pytest.raises(Tampered):
        check_principal(BOB_ID, [], WORKSPACE, WORKSPACE, lambda _: root())


def test_a_signature_counts_under_the_record_that_it_names() -> None:
    renewed = vouch(
        following(bob(), signing=PUBLIC["new"]),
        (BOB_SIGNED.digest, "bob"),
        (EMPTY, "new"),
        (WORKSPACE, "root"),
    )
    identity = bob(renewed)
    earlier = issue("version", WORKSPACE, b"x", [(BOB_SIGNED.digest, SEEDS["bob"])])
    later = issue("version", WORKSPACE, b"x", [(renewed.digest, SEEDS["new"])])
    assert identity.signed(earlier, WORKSPACE, BOB_SIGNED.digest) and identity.signed(
        later, WORKSPACE, renewed.digest
    )
    assert not identity.signed(earlier, WORKSPACE, renewed.digest)
    assert not identity.signed(issue("version", WORKSPACE, b"x", [(renewed.digest, SEEDS["bob"])]), WORKSPACE)


# -- standing: what a sponsor alone may say --------------------------------------------------------------------------


def by_root(body: PrincipalRecord) -> Signed:
    return vouch(body, (WORKSPACE, "root"))


def by_bob(body: PrincipalRecord) -> Signed:
    return vouch(body, (BOB_SIGNED.digest, "bob"))


def test_a_sponsor_alone_suspends_resumes_and_clears() -> None:
    suspended = by_root(following(bob(), status="suspended"))
    assert not bob(suspended).active and bob(suspended).record.signing == PUBLIC["bob"]
    resumed = by_root(following(bob(suspended), status="active", clearance=2))
    assert bob(suspended, resumed).active and bob(suspended, resumed).record.clearance == 2
    cleared = by_bob(following(agent(), clearance=0))
    assert agent(cleared).record.clearance == 0
    assert agent(cleared, by_bob(following(agent(cleared), clearance=None))).record.clearance is None


def test_every_record_is_remembered_by_its_hash() -> None:
    cleared = by_root(following(bob(), clearance=2))
    identity = bob(cleared)
    assert identity.records[BOB_SIGNED.digest].clearance is None
    assert identity.records[cleared.digest].clearance == 2 and identity.digest == cleared.digest


@pytest.mark.parametrize(
    "change",
    [
        {"signing": PUBLIC["mallory"]},
        {"kem": b"x" * 1216},
        {"root": 1},
        {"suite": 2},
        {"signing": PUBLIC["mallory"], "status": "suspended"},
        {"kem": b"x" * 1216, "status": "deleted"},
        {"root": 1, "clearance": 3},
    ],
    ids=lambda change: "+".join(change),
)
def test_a_sponsor_alone_changes_no_keys_whatever_else_it_says(change: dict[str, object]) -> None:
    with pytest.raises(Tampered):
        bob(by_root(following(bob(), **change)))
    with pytest.raises(Tampered):
        agent(by_bob(following(agent(), **change)))


def test_nobody_raises_its_own_clearance_or_lifts_its_own_suspension() -> None:
    alone = [(BOB_SIGNED.digest, "bob"), (EMPTY, "bob")]
    with pytest.raises(Tampered):
        bob(vouch(following(bob(), clearance=3), *alone))
    suspended = by_root(following(bob(), status="suspended"))
    with pytest.raises(Tampered):
        bob(suspended, vouch(following(bob(suspended), status="active"), (suspended.digest, "bob"), *alone))


@pytest.mark.parametrize("status", ["active", "suspended", "deleted"])
def test_nothing_follows_a_deletion_whoever_signs(status: str) -> None:
    deleted = by_root(following(bob(), status="deleted"))
    everybody = [(deleted.digest, "bob"), (EMPTY, "bob"), (WORKSPACE, "root")]
    with pytest.raises(Tampered):
        bob(deleted, vouch(following(bob(deleted), status=status), *everybody))


@pytest.mark.parametrize(
    "change", [{"status": "paused"}, {"status": ""}, {"clearance": -1}], ids=["unknown", "empty", "negative"]
)
def test_a_status_or_clearance_that_there_is_not_is_no_record(change: dict[str, object]) -> None:
    with pytest.raises(Tampered):
        bob(by_root(following(bob(), **change)))


@pytest.mark.parametrize("status", ["suspended", "deleted"])
def test_nobody_begins_suspended_and_nobody_suspends_the_root(status: str) -> None:
    first = vouch(record("user", "new", ROOT_ID, status=status), (EMPTY, "new"), (WORKSPACE, "root"))
    with pytest.raises(Tampered):
        check_principal(identifier("user", first.digest), [first], WORKSPACE, WORKSPACE, lambda _: root())
    ended = vouch(following(root(), status=status), (WORKSPACE, "root"), (EMPTY, "root"))
    with pytest.raises(Tampered):
        check_principal(ROOT_ID, [ROOT_SIGNED, ended], WORKSPACE, WORKSPACE, nobody)


def test_the_root_clears_itself() -> None:
    cleared = vouch(following(root(), clearance=3), (WORKSPACE, "root"), (EMPTY, "root"))
    found = check_principal(ROOT_ID, [ROOT_SIGNED, cleared], WORKSPACE, WORKSPACE, nobody)
    assert found.record.clearance == 3


def test_the_count_of_a_root_does_not_go_back() -> None:
    def everybody(before: Identity) -> list[tuple[bytes, str]]:
        return [(before.digest, "bob"), (EMPTY, "bob"), (WORKSPACE, "root")]

    renewed = vouch(following(bob(), root=1), *everybody(bob()))
    assert bob(renewed).record.root == 1
    with pytest.raises(Tampered):
        bob(renewed, vouch(following(bob(renewed), root=0), *everybody(bob(renewed))))


# -- roles ------------------------------------------------------------------------------------------------------


def keyless(kind: str, sponsor: str, **fields: Any) -> PrincipalRecord:
    return replace(record(kind, "new", sponsor, **fields), signing=b"")


ROLE_SIGNED = vouch(keyless("role", BOB_ID), (BOB_SIGNED.digest, "bob"))
ROLE_ID = identifier("role", ROLE_SIGNED.digest)


def role(*later: Signed) -> Identity:
    return check_principal(ROLE_ID, [ROLE_SIGNED, *later], WORKSPACE, WORKSPACE, lambda _: bob())


def test_a_roles_owner_alone_makes_renews_clears_and_ends_it() -> None:
    assert ROLE_ID.startswith("role-") and role().active
    renewed = by_bob(following(role(), kem=b"n" * 1216, root=1))
    cleared = by_bob(following(role(renewed), clearance=2))
    ended = by_bob(following(role(renewed, cleared), status="deleted"))
    assert not role(renewed, cleared, ended).active
    with pytest.raises(Tampered):
        role(renewed, cleared, ended, by_bob(following(role(renewed, cleared, ended), status="active")))


def test_a_role_signs_nothing() -> None:
    forged = Signed("version", b"x", ((ROLE_SIGNED.digest, bytes(64)), (ROLE_SIGNED.digest, b"")))
    assert not role().signed(forged, WORKSPACE)
    with_key = vouch(record("role", "new", BOB_ID), (EMPTY, "new"), (BOB_SIGNED.digest, "bob"))
    with pytest.raises(Tampered):
        check_principal(
            identifier("role", with_key.digest), [with_key], WORKSPACE, WORKSPACE, lambda _: bob()
        )
    for kind, sponsor, sponsor_of in (
        ("user", ROOT_ID, lambda _: root()),
        ("agent", BOB_ID, lambda _: bob()),
    ):
        without = vouch(keyless(kind, sponsor), (WORKSPACE, "root"), (BOB_SIGNED.digest, "bob"))
        with pytest.raises(Tampered):
            check_principal(identifier(kind, without.digest), [without], WORKSPACE, WORKSPACE, sponsor_of)


@pytest.mark.parametrize(
    "change",
    [{"kem": b"n" * 1216}, {"root": 2}, {"kem": b"n" * 1216, "root": 2}, {"signing": PUBLIC["bob"]}],
    ids=lambda change: "+".join(change),
)
def test_a_roles_key_goes_with_its_root(change: dict[str, object]) -> None:
    with pytest.raises(Tampered):
        role(by_bob(following(role(), **change)))


def test_nobody_but_its_owner_makes_or_changes_a_role() -> None:
    for signer in ((WORKSPACE, "root"), (BOB_SIGNED.digest, "mallory"), (AGENT_SIGNED.digest, "agent")):
        with pytest.raises(Tampered):
            role(vouch(following(role(), clearance=3), signer))
    of_agent = vouch(keyless("role", AGENT_ID), (AGENT_SIGNED.digest, "agent"))
    with pytest.raises(Tampered):
        check_principal(
            identifier("role", of_agent.digest), [of_agent], WORKSPACE, WORKSPACE, lambda _: agent()
        )
    of_nobody = vouch(keyless("role", ""))
    with pytest.raises(Tampered):
        check_principal(identifier("role", of_nobody.digest), [of_nobody], WORKSPACE, WORKSPACE, nobody)


def test_there_are_users_agents_and_roles() -> None:
    odd = vouch(record("group", "new", BOB_ID), (EMPTY, "new"), (BOB_SIGNED.digest, "bob"))
    with pytest.raises(Tampered):
        check_principal(identifier("group", odd.digest), [odd], WORKSPACE, WORKSPACE, lambda _: bob())


# -- invitations ------------------------------------------------------------------------------------------------

INVITE_SEED = crypto.sha256(b"invited")


def invitation(signer: tuple[bytes, str] = (WORKSPACE, "root"), **fields: Any) -> Signed:
    word = Invitation("k" * 16, crypto.signing_public(INVITE_SEED), 1, 9, ROOT_ID, WORKSPACE)
    body = replace(word, **fields).encode()
    return issue("invitation", WORKSPACE, body, [(signer[0], SEEDS[signer[1]])])


def joining(word: Signed, *, seed: bytes = INVITE_SEED, **fields: Any) -> list[Signed]:
    body = record("user", "new", ROOT_ID, **{"clearance": 1, **fields})
    signers = [(EMPTY, SEEDS["new"]), (word.encode(), seed)]
    return [issue("principal", WORKSPACE, body.encode(), signers)]


def join(chain: list[Signed], sponsor_of: Callable[[str], Identity] = lambda _: root()) -> Identity:
    return check_principal(principal_id(chain[0]), chain, WORKSPACE, WORKSPACE, sponsor_of)


def test_an_invitation_of_the_root_stands_for_its_signature_once() -> None:
    chain = joining(invitation())
    invited = join(chain)
    assert invited.active and invited.record.clearance == 1
    # From then on it is a user like others: the root vouches for what changes.
    assert not join([*chain, by_root(following(invited, status="suspended"))]).active
    body = following(invited, signing=PUBLIC["mallory"])
    claims = [(invited.digest, SEEDS["new"]), (EMPTY, SEEDS["mallory"]), (invitation().encode(), INVITE_SEED)]
    with pytest.raises(Tampered):
        join([*chain, issue("principal", WORKSPACE, body.encode(), claims)])


@pytest.mark.parametrize(
    "chain",
    [
        joining(invitation(), clearance=None),
        joining(invitation(), clearance=2),
        joining(invitation(clearance=None)),
        joining(invitation(), seed=SEEDS["mallory"]),
        joining(invitation((BOB_SIGNED.digest, "bob"))),
        joining(invitation((BOB_SIGNED.digest, "bob"), issuer=BOB_ID, issuer_record=BOB_SIGNED.digest)),
        joining(invitation((WORKSPACE, "mallory"))),
        joining(invitation(issuer=BOB_ID)),
        joining(invitation(issuer_record=BOB_SIGNED.digest)),
        joining(replace(invitation(), type="principal")),
        joining(replace(invitation(), signatures=())),
        joining(issue("invitation", EMPTY, invitation().body, [(WORKSPACE, SEEDS["root"])])),
        joining(replace(invitation(), body=b"\xa0")),
        joining(invitation(), status="suspended"),
    ],
    ids=[
        "no clearance", "a higher clearance", "a clearance that was not given", "somebody else's code",
        "signed by a user", "issued by a user", "signed by nobody known", "issued as another", "under another record",
        "of another type", "not signed", "for another workspace", "not an invitation", "suspended",
    ],
)  # fmt: skip
def test_an_invitation_makes_exactly_the_user_that_the_root_meant(chain: list[Signed]) -> None:
    with pytest.raises(Tampered):
        join(chain)


def test_an_invitation_makes_no_agent_and_no_role() -> None:
    for body in (record("agent", "new", ROOT_ID, clearance=1), keyless("role", ROOT_ID, clearance=1)):
        claims = [(EMPTY, SEEDS["new"]), (invitation().encode(), INVITE_SEED)]
        with pytest.raises(Tampered):
            join([issue("principal", WORKSPACE, body.encode(), claims)])


def test_a_user_signs_its_first_record_also_when_invited() -> None:
    body = record("user", "new", ROOT_ID, clearance=1)
    with pytest.raises(Tampered):
        join([issue("principal", WORKSPACE, body.encode(), [(invitation().encode(), INVITE_SEED)])])


CODE = Invite("abcdefghijklmnop", bytes(range(32)))


def test_a_code_has_a_shape_of_its_own_and_shows_nothing() -> None:
    text = keystore.new_invite().text
    assert re.fullmatch(r"invite_[a-z2-7]{16}_[a-z2-7]{52}_[a-z2-7]{8}", text)
    assert keystore.parse_invite(f"  {text}\n").text == text
    for wrong in ("", TOKEN.text, text[:-1], text.upper(), "x" * 10**5, text.replace("invite", "tally")):
        with pytest.raises(Unauthenticated) as refused:
            keystore.parse_invite(wrong)
        assert not wrong or wrong not in f"{refused.value} {refused.value.hint}"
    with pytest.raises(Unauthenticated):
        keystore.parse_token(text)
    assert CODE.text[24:70] not in repr(CODE)


def test_every_key_of_a_code_serves_one_purpose_and_is_no_tokens() -> None:
    keys = [CODE.verifier, CODE.opening_key(), CODE.signing_seed(), TOKEN.verifier, TOKEN.opening_key()]
    assert TOKEN.secret == CODE.secret and len(set(keys)) == len(keys)


def test_an_invitations_row_is_bound_to_its_code_and_expiry() -> None:
    carried = Carried("carol", b"d" * 32, b"p" * 32, invitation())
    sealed = keystore.seal_invitation(CODE, 9, carried)
    assert keystore.open_invitation(CODE, 9, sealed) == carried
    assert keystore.open_listed(b"d" * 32, CODE.kid, 9, sealed) == ("carol", 1)
    other = replace(CODE, secret=b"o" * 32)
    for open_it in (
        lambda: keystore.open_invitation(CODE, 10, sealed),
        lambda: keystore.open_invitation(other, 9, sealed),
        lambda: keystore.open_listed(b"d" * 32, CODE.kid, 10, sealed),
        lambda: keystore.open_listed(b"e" * 32, CODE.kid, 9, sealed),
        lambda: keystore.open_listed(b"d" * 32, "ponmlkjihgfedcba", 9, sealed),
    ):
        with pytest.raises(Tampered):
            open_it()
    assert "dddd" not in repr(carried)


# -- kits -------------------------------------------------------------------------------------------------------


def test_a_kit_reads_back_also_after_a_mail_client_has_had_it() -> None:
    kit = Kit("user-" + "0" * 8 + "-0000-4000-8000-" + "0" * 12, "alice", crypto.age_identity(b"s" * 32))
    for text in (kit.text, kit.text.replace("\n", "\r\n"), "\n\n" + kit.text + "\n  \n"):
        found = keystore.parse_kit(text)
        assert (found.principal, found.identity) == (kit.principal, kit.identity)


@pytest.mark.parametrize("text", ["", "# principal: user-1", "AGE-SECRET-KEY-PQ-1QQQ", "x" * 10**5, "\0"])
def test_what_is_no_kit_is_refused_and_never_repeated(text: str) -> None:
    with pytest.raises(Invalid) as refused:
        keystore.parse_kit(text)
    assert not text or text not in f"{refused.value}{refused.value.hint}"
