"""Somebody with a stolen token, a copy of the store from its lifetime, and a later one with the server's keys.

`Thief.learn` takes all that a store gives to whoever holds the keys that the thief has, until nothing new is found:
shelves, agents, roles, sealed seeds, ledgers, capsules. `Thief.opened` says which versions that opens.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from tallystone import _cbor, crypto
from tallystone.errors import Tampered
from tallystone.keystore import Keys, Root, find_nest, open_root, open_seed, parse_token
from tallystone.store.tables import (
    BLOCK,
    EPOCH,
    GRANT_WRAP,
    IDENTITY,
    INBOX,
    LEDGER,
    PRINCIPAL,
    SHELF,
    TOKEN,
    VERSION,
)
from tallystone.vault import Workspace
from tallystone.vault.block_row import BlockRow
from tallystone.vault.capsules import capsule_info
from tallystone.vault.ledger import Ledger
from tallystone.vault.passages import act_context, act_key
from tallystone.vault.records import (
    Held,
    open_content,
    open_payload,
    previous_epoch,
    unshelve,
    unwrap_content_key,
    unwrap_epoch,
)


class Thief:
    """What somebody holds who has stolen one token."""

    def __init__(self, token: str) -> None:
        self.token = parse_token(token)
        self.roots: dict[bytes, Keys] = {}
        self.grants: set[bytes] = set()
        self.admins: set[bytes] = set()
        self.seeds: set[bytes] = set()
        self.acts: dict[str, bytes] = {}
        self.blocks: set[str] = set()

    def learn(self, folder: Path) -> None:
        """Take what a copy of a data directory gives."""
        with Workspace.open(folder) as workspace:
            before = -1
            while before != self._size():
                before = self._size()
                self._look(workspace)

    def _size(self) -> int:
        return len(self.roots) + len(self.grants) + len(self.admins) + len(self.seeds) + len(self.blocks)

    def _look(self, workspace: Workspace) -> None:
        with workspace.store.snapshot() as snapshot:
            for row in snapshot.rows(TOKEN):
                if row[1] == self.token.kid:
                    clear = str(row[2]), str(row[3]), int(row[4]), row[5]
                    root = open_root(self.token, bytes(row[7]), *clear, workspace.shreds.get)
                    self.roots[root.read] = Keys(str(row[2]), root)
            principals = {str(row[1]) for row in snapshot.rows(PRINCIPAL)}
            shelves = list(snapshot.rows(SHELF))
            identities = list(snapshot.rows(IDENTITY))
            mail = list(snapshot.rows(INBOX))
            records = [crypto.sha256(b"")]
            ledgers = list(snapshot.rows(LEDGER))
        for keys in list(self.roots.values()):
            for row in shelves:
                with suppress(Tampered):
                    held = unshelve(
                        keys, bytes(row[1]), bytes(row[2]), int(row[3]), bytes(row[4]), bytes(row[5])
                    )
                    self._take(workspace, keys, held)
            for row in identities:
                with suppress(Tampered):
                    self.seeds.add(open_seed(keys, "kem", bytes(row[3])))
        with workspace.store.snapshot() as snapshot:
            from tallystone.vault.plan import Plan

            plan = Plan(snapshot)
            for principal in principals:
                records += workspace.identity(plan, principal, workspace.id).records
        for row in mail:
            for seed in self.seeds:
                for record in records:
                    with suppress(Tampered):
                        one_time = crypto.open_from(seed, capsule_info(workspace.id, record), bytes(row[3]))
                        context = crypto.pae("capsule/body", workspace.id, crypto.sha256(bytes(row[3])))
                        body = _cbor.decode(crypto.open_sealed(one_time, context, bytes(row[4])))
                        assert isinstance(body, list)
                        self.blocks.add(body[0])
                        self.grants.add(body[3])
        for row in ledgers:
            for admin in list(self.admins):
                for block in self.blocks:
                    with suppress(Tampered):
                        entry = Ledger(admin, block).open(int(row[2]), bytes(row[6]))
                        self.grants |= {entry.key, *entry.retired}
                        if entry.admin:
                            self.admins.add(entry.admin)
        for role, secret in self.acts.items():
            for payload in self._payloads(workspace, "role"):
                for generation in range(8):
                    with suppress(Tampered, KeyError):
                        act = crypto.open_sealed(
                            act_key(secret), act_context(role, generation), payload["act"]
                        )
                        self.roots[payload["read"]] = Keys(role, Root(payload["read"], act, workspace.id))

    def _take(self, workspace: Workspace, keys: Keys, held: Held) -> None:
        self.grants.add(held.key)
        self.blocks.add(held.block)
        if held.admin:
            self.admins.add(held.admin)
        if held.root_read:
            nest = find_nest(
                (held.extra or {})["nest"], workspace.shreds.get
            )  # the copy has the server's keys
            act = nest.unwrap(held.root_act) if held.root_act else None
            root = Root(nest.unwrap(held.root_read), act, keys.root.pin)
            self.roots[root.read] = Keys(held.subject, root)
        if held.kind == "role" and held.root_act:
            self.acts[held.subject] = held.root_act

    def opened(self, folder: Path) -> list[str]:
        """The values of all memory blocks' versions that the thief's keys open in a copy of a data directory."""
        with Workspace.open(folder) as workspace:
            return [
                str(payload["value"]) for payload in self._payloads(workspace, "block") if "value" in payload
            ]

    def _payloads(self, workspace: Workspace, kind: str) -> list[dict[str, object]]:
        found = []
        with workspace.store.snapshot() as snapshot:
            rows = {bytes(row[1]): BlockRow.of(row) for row in snapshot.rows(BLOCK)}
            wraps = list(snapshot.rows(GRANT_WRAP))
            epochs = {(bytes(row[1]), int(row[2])): row for row in snapshot.rows(EPOCH)}
            versions = list(snapshot.rows(VERSION))
        for wrap in wraps:
            storage, number = bytes(wrap[1]), int(wrap[3])
            for block in self.blocks:
                nest = workspace.nest(block, rows[storage].day, rows[storage].shred, number)
                for grant in self.grants:
                    try:
                        dek, history = unwrap_epoch(grant, block, number, bytes(wrap[4]), nest)
                    except Tampered:
                        continue
                    deks = {number: dek}
                    for epoch in range(number, 0, -1):
                        if history is None:
                            break
                        dek, history = previous_epoch(history, bytes(epochs[storage, epoch][5]))
                        deks[epoch - 1] = dek
                    found += self._read(block, storage, deks, versions, kind)
        return found

    def _read(
        self,
        block: str,
        storage: bytes,
        deks: dict[int, bytes],
        versions: list[tuple[object, ...]],
        kind: str,
    ) -> list[dict[str, object]]:
        found = []
        for row in versions:
            if row[1] != storage or row[3] not in deks:
                continue
            number = int(str(row[2]))
            with suppress(Tampered):
                content_key = unwrap_content_key(deks[int(str(row[3]))], block, number, bytes(row[4]))  # type: ignore
                content = open_content(content_key, block, number, bytes(row[5]))  # type: ignore
                found.append(open_payload(kind, content.payload))
        return found
