"""A member who does not keep to the code: with keys it rightly holds, it writes rows that no vault would.

It signs with its own seed, seals with the keys that its own shelf opens, and writes with SQLite alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

from attack.scene import raw
from tallystone import _cbor, crypto, policy
from tallystone.keystore import Identity, Keys
from tallystone.policy import Head, Via
from tallystone.statements import Leaf, Link, Signed, Version, issue
from tallystone.vault import Vault, Workspace
from tallystone.vault.caller import Caller
from tallystone.vault.entering import open_block
from tallystone.vault.opening import Opened
from tallystone.vault.passages import find_block
from tallystone.vault.plan import Plan
from tallystone.vault.records import Held, wrap_content_key
from tallystone.vault.shelves import AGENTS, BLOCKS, agent_keys, find


def caller_of(vault: Vault) -> Caller:
    """The keys behind a vault."""
    return vault._caller


def held_by(workspace: Workspace, keys: Keys, identity: str, shelf: str = BLOCKS) -> Held:
    """What a principal's shelf says of a block."""
    with workspace.store.snapshot() as snapshot:
        held = find(Plan(snapshot), keys, shelf, identity)
    assert held is not None
    return held


def agent_of(workspace: Workspace, vault: Vault, agent_id: str) -> Caller:
    """An agent of the vault's user as a caller, with all of its keys."""
    caller = caller_of(vault)
    return caller.as_agent(agent_keys(caller, held_by(workspace, caller.keys, agent_id, AGENTS)))


def seal_capsule_body(
    one_time: bytes,
    workspace: bytes,
    enc: bytes,
    held: Held,
    genesis: Signed,
    grant: Signed,
    more: Mapping[str, Any] | None = None,
) -> bytes:
    """What lies under a capsule's one-time key, with whatever `held` says of the grant."""
    body = [
        held.block, held.storage, held.grant, held.key, held.owner, held.kind, held.leaf, held.admin_public,
        genesis.encode(), grant.encode(), dict(more or {}),
    ]  # fmt: skip
    context = crypto.pae("capsule/body", workspace, crypto.sha256(enc))
    return crypto.seal(one_time, context, _cbor.encode(body))


def forge_version(
    database: Path,
    workspace: Workspace,
    signer: Caller,
    held: Held,
    *,
    text: str = "forged",
    payload: Any = None,
    leaf: Leaf | None = None,
    proof: Any = (),
    claim: Mapping[str, Any] | None = None,
    change: Callable[[Signed], Signed] = lambda signed: signed,
    opener: Caller | None = None,
) -> None:
    """Write a version that `signer` signs, sealed with the keys behind `held`, and make the block's row name it."""
    with workspace.store.snapshot() as snapshot:
        plan = Plan(snapshot)
        opened: Opened = open_block(opener or signer, plan, held)
        old, _, digest = opened.payload()
        body = _cbor.encode({**old, "value": text} if payload is None else payload)
        number = opened.row.version + 1
        version = Version(
            block=opened.id,
            number=number,
            previous=digest,
            policy=opened.head.number,
            policy_digest=opened.head.digest,
            epoch=opened.row.epoch,
            payload=crypto.sha256(body),
            writer=signer.id,
            writer_record=signer.identity(plan, signer.id).digest,
            under="",
            time=0,
        )
        version = replace(version, **(claim or {}))
        seed, mine = signer.signing_seed(plan), signer.identity(plan, signer.id).digest
    signed = change(issue("version", workspace.id, version.encode(), [(mine, seed)]))
    key = crypto.random_bytes()
    own = held.own_leaf if leaf is None else leaf
    content = [
        signed.encode(),
        body,
        own.encode() if own else None,
        proof if isinstance(proof, int) else list(proof),
        [],
    ]
    sealed = crypto.seal(key, crypto.pae("version", opened.id, number), _cbor.encode(content))
    wrap = wrap_content_key(opened.keys.dek, opened.id, number, key)
    with raw(database) as connection:
        connection.execute(
            "INSERT OR REPLACE INTO version VALUES (1, ?, ?, ?, ?, ?)",
            (held.storage, number, opened.row.epoch, wrap, sealed),
        )
        connection.execute("UPDATE block SET version = ? WHERE storage = ?", (number, held.storage))


# -- clients without the checks ---------------------------------------------------------------------------------


@contextmanager
def lawless() -> Iterator[None]:
    """Whatever is done meanwhile is done by a client that asks no rule before it signs; what it writes is logged and
    committed like anything else. Readers are asked afterwards, with the rules in place."""

    def anything(head: Head, kind: str, link: Link, digest: bytes, *_: Any, **__: Any) -> Head:
        return policy.snapshot(link, digest)

    def leaves(self: Opened) -> dict[int, bytes]:
        return {number: digest for number, (_, digest) in self.ledger().items()}

    def carried(before: Version | None, via: tuple[Via, ...]) -> dict[str, Any]:
        return {"heads": {step.head.role: step.head.serial for step in via}} if via else {}

    with (
        patch.object(policy, "follow", anything),
        patch.object(policy, "carried", carried),
        patch.object(Opened, "leaves", leaves),
    ):
        yield


def opened_by(vault: Vault, plan: Plan, block: str) -> Opened:
    """A block as somebody's own client has it open."""
    caller = caller_of(vault)
    return open_block(caller, plan, find_block(caller, plan, block))


def forge(vault: Vault, block: str, act: Callable[[Opened], object]) -> None:
    """Let `act` write what it likes to a block, with the keys that this principal rightly holds."""
    workspace = caller_of(vault).workspace
    with lawless(), workspace.store.snapshot() as snapshot:
        plan = Plan(snapshot)
        act(opened_by(vault, plan, block))
        workspace.store.commit(plan.batch())


def identity_of(opened: Opened, principal: str) -> Identity:
    """Somebody's current record."""
    return opened.caller.identity(opened.plan, principal)
