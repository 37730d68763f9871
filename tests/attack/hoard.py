"""Everything that a principal ever held, tried on every cell of a database.

A hoard is what somebody keeps who means to come back: its root, and each key that the root opened while it had access.
`spoils` says which cells of a (later) copy of the database some key of the hoard opens, or a key found behind those.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import raw_rows

from attack.lying import caller_of
from attack.scene import DATABASE, rows
from tallystone import _cbor, crypto
from tallystone.errors import TallystoneError, Tampered
from tallystone.store.tables import (
    CHAIN,
    EPOCH,
    GRANT_WRAP,
    IDENTITY,
    INBOX,
    LEDGER,
    PRINCIPAL,
    SHELF,
    VERSION,
)
from tallystone.vault import Vault, Workspace
from tallystone.vault.caller import Caller
from tallystone.vault.capsules import capsule_info
from tallystone.vault.entering import open_block
from tallystone.vault.ledger import Ledger
from tallystone.vault.passages import act_key, reached
from tallystone.vault.plan import Plan
from tallystone.vault.records import Held, nest_key, shred_nest, unwrap_content_key, unwrap_epoch
from tallystone.vault.shelves import AGENTS, BLOCKS, HOUSE, ROLES, SELF, agent_keys, walk

_SIZE = crypto.KEY_SIZE


def hoard(workspace: Workspace, vault: Vault) -> set[bytes]:
    """Every key of 32 bytes that this principal, its agents and its roles can lay hands on now."""
    found: set[bytes] = set()
    caller = caller_of(vault)
    with workspace.store.snapshot() as snapshot:
        plan = Plan(snapshot)
        _take(caller, plan, found)
        for agent in [] if caller.id.startswith("agent-") else list(walk(plan, caller.keys, AGENTS)):
            _take(caller.as_agent(agent_keys(caller, agent)), plan, found)
    return {key for key in found if len(key) == _SIZE}


def _take(caller: Caller, plan: Plan, found: set[bytes]) -> None:
    found |= {caller.keys.root.read, caller.keys.root.act or b""}
    found |= {caller.kem_seed(plan), caller.signing_seed(plan)}
    shelves = [(caller.keys, ())] + [(role.keys, role.way) for role in reached(caller, plan)]
    for keys, way in shelves:
        found |= {keys.root.read, keys.root.act or b""}
        for name in (BLOCKS, ROLES, AGENTS, SELF, HOUSE):
            for held in walk(plan, keys, name):
                found |= {held.key, held.admin, held.root_act, held.root_read}
                with suppress(TallystoneError):
                    _dig(caller, plan, held, way, found)


def _dig(caller: Caller, plan: Plan, held: Held, way: Any, found: set[bytes]) -> None:
    opened = open_block(caller, plan, replace(held, via=way))
    found |= {opened.keys.dek, opened.keys.history or b"", opened.keys.chain}
    for epoch in range(opened.row.epoch, -1, -1):
        found.add(opened.chain_key(epoch))
        with suppress(TallystoneError):
            found.add(opened.dek(epoch))
    for row in plan.rows(VERSION, held.storage):
        with suppress(TallystoneError):
            found.add(unwrap_content_key(opened.dek(int(row[3])), opened.id, int(row[2]), bytes(row[4])))
    if held.admin:
        for row in plan.rows(LEDGER, held.storage):
            with suppress(TallystoneError):
                entry = Ledger(held.admin, opened.id).open(int(row[2]), bytes(row[6]))
                found |= {entry.key, *entry.retired, entry.admin}


# -- trying them ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Spoil:
    """A cell that opened: of which table, what it is, and its bytes."""

    table: str
    what: str
    cell: bytes = field(repr=False)


Attempt = tuple[str, bytes, Callable[[], bytes]]
_TRIED = (GRANT_WRAP, EPOCH, CHAIN, VERSION, LEDGER, SHELF, INBOX, IDENTITY, PRINCIPAL)


class Loot:
    """A copy of the database in the hands of somebody who knows how Tallystone works, and the ids of these blocks."""

    def __init__(self, folder: Path, workspace: bytes, blocks: Iterable[str]) -> None:
        self._workspace, self._blocks = workspace, list(blocks)
        days = folder / "server-keys" / "days"
        self._days = [path.read_bytes() for path in days.iterdir()] if days.is_dir() else []
        pools = folder / "server-keys" / "shred"
        self._shreds = [
            content[start : start + 32]
            for content in (path.read_bytes() for path in (pools.iterdir() if pools.is_dir() else ()))
            for start in range(0, len(content), 32)
        ]
        self._known: dict[tuple[str, int], list[bytes | None]] = {}
        self._rows = {
            table.name: rows(folder / DATABASE, f"SELECT {', '.join(table.all_columns)} FROM {table.name}")
            for table in _TRIED
        }
        self.cells = {
            cell for found in self._rows.values() for row in found for cell in row if isinstance(cell, bytes)
        }

    def spoils(self, keys: Iterable[bytes]) -> set[Spoil]:
        """What opens with these keys, and with those that are found behind it."""
        opened: set[Spoil] = set()
        tried: set[bytes] = set()
        fresh = set(keys)
        while fresh:
            tried |= fresh
            found: set[bytes] = set()
            for key in fresh:
                for spoil, secret in self._try(key):
                    opened.add(spoil)
                    found |= set(_keys_in(secret))
            fresh = found - tried
        return opened

    def _try(self, key: bytes) -> Iterator[tuple[Spoil, bytes]]:
        for table, attempts in (
            (GRANT_WRAP, self._wraps),
            (EPOCH, self._epochs),
            (CHAIN, self._statements),
            (VERSION, self._versions),
            (LEDGER, self._ledger),
            (SHELF, self._shelves),
            (IDENTITY, self._seeds),
            (INBOX, self._capsules),
        ):
            for row in self._rows[table.name]:
                for what, cell, attempt in attempts(key, row):
                    try:
                        secret = attempt()
                    except Tampered:
                        continue
                    yield Spoil(table.name, what, cell), secret

    def _wraps(self, key: bytes, row: Any) -> Iterator[Attempt]:
        epoch, wrap = row[3], row[4]
        for block in self._blocks:
            for nest in self._nests(block, epoch) if _opens(key, block, epoch, wrap) else [None]:
                yield "wrap", wrap, partial(_unwrap_epoch, key, block, epoch, wrap, nest)
        yield "wrap", wrap, partial(crypto.unwrap, key, wrap)

    def _nests(self, block: str, epoch: int) -> list[bytes | None]:
        if (block, epoch) not in self._known:
            nests: list[bytes | None] = [None, *(nest_key(day, block, epoch) for day in self._days)]
            for shred in self._shreds:
                nests += [shred_nest(shred, block, epoch, day) for day in (None, *self._days)]
            self._known[block, epoch] = nests
        return self._known[block, epoch]

    def _epochs(self, key: bytes, row: Any) -> Iterator[Attempt]:
        for what, cell in zip(("chain", "previous-chain", "previous"), row[3:], strict=True):
            if cell:
                yield what, cell, partial(crypto.unwrap, crypto.derive(key, f"epoch/{what}"), cell)
                yield what, cell, partial(crypto.unwrap, key, cell)

    def _statements(self, key: bytes, row: Any) -> Iterator[Attempt]:
        for block in self._blocks:
            yield (
                "statement",
                row[4],
                partial(crypto.open_sealed, key, crypto.pae("chain", block, row[2]), row[4]),
            )

    def _versions(self, key: bytes, row: Any) -> Iterator[Attempt]:
        number, wrap, sealed = row[2], row[4], row[5]
        for block in self._blocks:
            yield "content key", wrap, partial(unwrap_content_key, key, block, number, wrap)
            yield (
                "content",
                sealed,
                partial(crypto.open_sealed, key, crypto.pae("version", block, number), sealed),
            )

    def _ledger(self, key: bytes, row: Any) -> Iterator[Attempt]:
        number, roster, secret = row[2], row[5], row[6]
        for block in self._blocks:
            for context in (crypto.pae("roster", block, number), crypto.pae("admin/public", block)):
                yield "roster", roster, partial(crypto.open_sealed, key, context, roster)
            yield "secret", secret, partial(_ledger_key, key, block, number, secret)

    def _shelves(self, key: bytes, row: Any) -> Iterator[Attempt]:
        context = crypto.pae("shelf", row[1], row[2], row[3])
        for what, label, cell in (("part one", "root/seal", row[4]), ("part two", "root/act", row[5])):
            yield what, cell, partial(crypto.open_sealed, crypto.derive(key, label), context, cell)

    def _seeds(self, key: bytes, row: Any) -> Iterator[Attempt]:
        for purpose, cell in (("sign", row[2]), ("kem", row[3])):
            context, sealer = crypto.pae("identity", purpose, row[1]), crypto.derive(key, f"root/{purpose}")
            yield purpose, cell, partial(crypto.open_sealed, sealer, context, cell)

    def _capsules(self, key: bytes, row: Any) -> Iterator[Attempt]:
        enc, sealed = row[3], row[4]
        context = crypto.pae("capsule/body", self._workspace, crypto.sha256(enc))
        yield "capsule", sealed, partial(crypto.open_sealed, key, context, sealed)
        for record in self._rows[PRINCIPAL.name]:
            if record[1] == row[1]:
                info = capsule_info(self._workspace, crypto.sha256(crypto.pae("principal", record[3])))
                yield "capsule", enc, partial(crypto.open_from, key, info, enc)


def _opens(key: bytes, block: str, epoch: int, wrap: bytes) -> bool:
    """Whether a wrap gives way to this K_grant, whatever lies in it: only then is a nest worth a try."""
    try:
        crypto.unwrap(crypto.derive(key, "grant/wrap", block, epoch), wrap)
    except Tampered:
        return False
    return True


def _unwrap_epoch(key: bytes, block: str, epoch: int, wrap: bytes, nest: bytes | None) -> bytes:
    dek, history = unwrap_epoch(key, block, epoch, wrap, nest)
    return dek + (history or b"")


def _ledger_key(key: bytes, block: str, number: int, secret: bytes) -> bytes:
    return Ledger(key, block).open(number, secret).key


def _keys_in(secret: bytes) -> Iterator[bytes]:
    """What could be a key in something that has opened."""
    if len(secret) in (_SIZE, 2 * _SIZE):
        yield secret[:_SIZE]
        yield secret[-_SIZE:]
        return
    with suppress(Tampered):
        yield from _within(_cbor.decode(secret))


def _within(value: Any) -> Iterator[bytes]:
    if isinstance(value, bytes):
        if len(value) == _SIZE:
            yield value
            yield act_key(value)
        elif len(value) > _SIZE:
            with suppress(Tampered):
                yield from _within(_cbor.decode(value))
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from _within(one)
    elif isinstance(value, dict):
        for one in value.values():
            yield from _within(one)


# -- the attacker of a revoke -----------------------------------------------------------------------------------


@dataclass
class Thief:
    """Who keeps a hoard, and copies the whole data directory now and again. `blocks` are those it knew of."""

    folder: Path
    workspace: Workspace
    blocks: list[str]
    keys: set[bytes] = field(default_factory=set)
    known: set[bytes] = field(default_factory=set)
    """The cells of the database when it was last looked at."""

    def keeps(self, *vaults: Vault) -> Thief:
        """Remember all keys of these, who are the thief itself or whose keys it made, and how the database is now."""
        for vault in vaults:
            self.keys |= hoard(self.workspace, vault)
        self.known = self._copy().cells
        return self

    def opens(self, keys: Iterable[bytes] | None = None) -> set[tuple[str, str]]:
        """(table, what) of the cells written since that open with what the thief kept, or with other `keys`."""
        spoils = self._copy().spoils(self.keys if keys is None else keys)
        return {(one.table, one.what) for one in spoils if one.cell not in self.known}

    def _copy(self) -> Loot:
        target = self.folder.parent / "loot"
        shutil.rmtree(target, ignore_errors=True)
        raw_rows.copy(self.folder, target)
        return Loot(target, self.workspace.id, self.blocks)
