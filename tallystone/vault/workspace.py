"""A workspace: the data directory, its store, its log, and what holds for everybody in it.

    DIR/tallystone.db            the store, or DIR/store.url: the database that is the store (see `store.opening`)
    DIR/server-keys/log.key      32 bytes: the seed that signs the log's checkpoints; opens nothing
    DIR/cosigned/                the newest checkpoint that each outside witness has signed (see `audit.cosigned`)
    DIR/server-keys/days/        the keys of days on which blocks end (see `daykeys`); they open nothing alone
    DIR/server-keys/shred/       the shred keys of blocks (see `shredkeys`); they open nothing alone

It holds no key of any principal. Vaults come out of it, one for each caller.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any

from tallystone import _cbor, crypto
from tallystone.audit.cosigned import FOLDER, Cosigned
from tallystone.audit.logkeys import LogKeys
from tallystone.audit.sequencer import LogSequencer
from tallystone.audit.verify import Report, verify
from tallystone.errors import Conflict, NotFound, StoreError, Tampered
from tallystone.kept import GENESES, IDENTITIES, VERDICTS, Digests, Recent, weight_of
from tallystone.keystore import Identity, Keys, check_principal, parse_token
from tallystone.statements import Genesis, PrincipalRecord, Signed, WorkspaceRecord, signature_pairs
from tallystone.store.opening import locate, make_store, open_store
from tallystone.store.protocol import Row, Store
from tallystone.store.tables import CHARTER, PRINCIPAL, SHRED, WORKSPACE
from tallystone.vault import accounts, auditing, invitations, purging, recovery
from tallystone.vault.authentication import Visit, authenticate
from tallystone.vault.awaiting import Awaited
from tallystone.vault.caller import Caller
from tallystone.vault.capsules import empty_inbox
from tallystone.vault.charter import check_charter
from tallystone.vault.daykeys import DAYS, DayKeys
from tallystone.vault.logkey import KEY_FOLDER, log_keys, make_log_key, read_log_key, seeds, settle
from tallystone.vault.looks import Look
from tallystone.vault.opened_tokens import OpenedTokens
from tallystone.vault.passages import keys_of
from tallystone.vault.plan import WS, Plan
from tallystone.vault.publishing import PublicLog
from tallystone.vault.recall import Recall
from tallystone.vault.records import nest_key, shred_nest
from tallystone.vault.restoring import roots_word
from tallystone.vault.shredkeys import POOLS, ShredKeys
from tallystone.vault.stripes import Stripes
from tallystone.vault.types import Backups, CharterView, Credentials
from tallystone.vault.vault import Vault

_RECORD, _GENESIS = 1000, 550
"""Bytes that a principal's verified record takes beyond its rows, and a block's first statement."""


class Workspace:
    """An open workspace. Safe to share between threads; close it when done."""

    def __init__(
        self,
        store: Store,
        sequencer: LogSequencer,
        workspace_id: bytes,
        record: WorkspaceRecord,
        signed: Signed,
        log_public: bytes,
        days: DayKeys,
        shreds: ShredKeys,
        cosigned: Cosigned,
        folder: Path,
    ) -> None:
        self.store = store
        self.sequencer = sequencer
        self.folder = folder
        self.days = days
        self.shreds = shreds
        self.backups = Backups()
        self.awaited: Awaited | None = None  # who waits for a witness; None where none is asked
        self.id = workspace_id
        self.record = record
        self.log_public = log_public
        self.log = PublicLog(self, cosigned)
        self.recall = Recall()
        self.trusted = Digests(VERDICTS)
        self.geneses: Recent[str, Genesis] = Recent(GENESES)
        self.tokens = OpenedTokens()
        self.clock: Callable[[], float] = time.time
        self.signed = signed
        self.stripes = Stripes()
        self._identities: Recent[str, tuple[list[Row], Identity]] = Recent(IDENTITIES)
        self._charter: tuple[list[Row], CharterView] | None = None
        self._position = 0
        self._position_lock = Lock()
        self._auditor: auditing.DayKey | None = None

    def __repr__(self) -> str:
        return f"Workspace({self.id.hex()[:16]})"

    # -- opening ------------------------------------------------------------------------------------------------

    @classmethod
    def open(cls, path: str | os.PathLike[str], store: str | None = None) -> Workspace:
        """The workspace in the data directory `path`. `store`: the URL of its database, if another than the directory
        names: with a password, or because it moved. Raises `StoreError` with a hint when there is none."""
        folder = Path(path)
        location = locate(folder, store)
        seed = read_log_key(folder)
        sequencer = _sequencer(folder, seed)
        opened = open_store(location, sequencer)
        try:
            with opened.snapshot() as snapshot:
                row = snapshot.get(WORKSPACE, (WS,))
            if row is None:
                raise StoreError("the workspace was never finished", hint="start again in an empty directory")
            workspace_id, signed = bytes(row[1]), Signed.decode(bytes(row[2]))
            sequencer.bind(workspace_id)
            record = WorkspaceRecord.decode(signed.body)
            settle(folder, LogKeys.decode(record.log).newest)
            public = crypto.signing_public(read_log_key(folder))
            return cls(opened, sequencer, workspace_id, record, signed, public, *_beside(folder))
        except BaseException:
            opened.close()
            raise

    @classmethod
    def init(
        cls, path: str | os.PathLike[str], name: str = "root", store: str | None = None
    ) -> tuple[Workspace, Credentials]:
        """Make a workspace in `path`, which must be empty or missing. Returns it with its first user's credentials:
        they exist nowhere else. `store`: the URL of an empty PostgreSQL database for its rows. Raises `StoreError`."""
        folder, founder = Path(path), accounts.check_name(name)
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if any(folder.iterdir()):
                raise StoreError(
                    f"{folder} is not empty", hint="name an empty or a new directory", code="not_empty"
                )
            seed = make_log_key(folder)
        except OSError as error:
            raise StoreError(
                f"cannot write to {folder}: {error.strerror}", hint="check its permissions"
            ) from error
        sequencer = _sequencer(folder, seed)
        try:
            opened = make_store(folder, store, sequencer)
        except BaseException:
            shutil.rmtree(folder / KEY_FOLDER)  # the key of nothing; another attempt needs an empty place
            raise
        with opened.snapshot() as snapshot:
            plan = Plan(snapshot)
            public = crypto.signing_public(seed)
            founding = accounts.found_workspace(plan, public, int(time.time()))
            sequencer.bind(founding.identity.digest)
            made_of = founding.identity.digest, founding.record, founding.signed, public
            workspace = cls(opened, sequencer, *made_of, *_beside(folder))
            made = accounts.welcome_root(workspace, plan, founding, founder)
        try:
            opened.commit(plan.batch())
        except BaseException:
            opened.close()
            raise
        return workspace, made

    def vault(self, token: str) -> Vault:
        """What the holder of `token` can do. Raises `Unauthenticated`."""
        return Vault(self.caller(token))

    def visit(self, token: str, look: Look | None = None) -> Visit:
        """The same caller for one request, in one view: its own, or one of many requests. Raises `Unauthenticated`."""
        return Visit(self, token, look)

    def recover(self, kit_text: str) -> Credentials:
        """A new token from a recovery kit alone. Raises `Invalid` or `Unauthenticated`."""
        return recovery.recover(self, kit_text)

    def redeem(self, code: str) -> Credentials:
        """A new user, from an invitation's code: its keys are made here. Raises `Unauthenticated`, alike for unknown,
        used, revoked and expired codes, or `Taken` when the name is somebody's by now."""
        return invitations.redeem(self, code)

    def close(self) -> None:
        """Finish what is being written, and let go of the files."""
        self.store.close()
        self.shreds.close()

    def __enter__(self) -> Workspace:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- what callers share -------------------------------------------------------------------------------------

    def now(self) -> int:
        """Unix seconds."""
        return int(self.clock())

    def today(self) -> int:
        """Days since 1970 (UTC): an expiry's unit."""
        return self.now() // 86400

    def day_key(self, day: int) -> bytes | None:
        """The key of a day on which blocks end (32 bytes); None when the day is over, or its key was destroyed."""
        return self.days.get(day) if day >= self.today() else None

    def nest(self, block: str, day: int | None, shred: bytes | None, epoch: int) -> bytes | None:
        """What the wraps of an epoch are nested in (32 bytes), of a block with this last day, this slot, or both; None
        when the day is over or a key was destroyed."""
        day_key = None if day is None else self.day_key(day)
        if shred is None:
            return None if day_key is None else nest_key(day_key, block, epoch)
        shred_key = self.shreds.get(shred)
        if shred_key is None or (day is not None and day_key is None):
            return None
        return shred_nest(shred_key, block, epoch, day_key)

    def now_ms(self) -> int:
        """Unix milliseconds, for statements: they say when, they order nothing."""
        return int(self.clock() * 1000)

    def next_position(self) -> int:
        """A number greater than any given before: the order of a shelf. Nanoseconds, so that processes do not meet."""
        with self._position_lock:
            self._position = max(self._position + 1, time.time_ns())
            return self._position

    def collect(self, caller: Caller, holder: str) -> None:
        """Open the mail of a principal that the caller is or can act as: its blocks have new keys."""
        keys: Keys | None = caller.keys
        if holder != caller.id:
            with self.store.snapshot() as snapshot:
                keys = keys_of(caller, Plan(snapshot), holder)
        if keys is not None and keys.can_act:
            empty_inbox(caller if keys is caller.keys else caller.as_agent(keys))

    def caller(self, token_text: str) -> Caller:
        """The caller that a token opens. Raises `Unauthenticated`."""
        return authenticate(self, parse_token(token_text))

    def check_record(self, plan: Plan, pin: bytes) -> None:
        """Raises `Tampered` unless the workspace's record is the word of the root that a token is pinned to."""
        if pin != self.id or not self.identity(plan, self.record.root, pin).signed(self.signed, self.id):
            raise Tampered("the workspace's record is not its root's")

    def identity(self, plan: Plan, principal: str, pin: bytes) -> Identity:
        """The verified identity of a principal. The verdict is remembered for as long as its rows stay the same."""
        altered = plan.alters(PRINCIPAL) and plan.touches(PRINCIPAL, principal)
        if principal in plan.identities and not altered:
            return plan.identities[principal]
        rows = plan.rows(PRINCIPAL, principal)
        known = self._identities.get(principal)
        if known is not None and known[0] == rows:
            if not altered:  # others read the same view
                plan.identities[principal] = known[1]
            return known[1]
        if not rows:
            raise NotFound(f"{principal} not found", hint="list the users with: tallystone user list")
        chain = [
            Signed("principal", bytes(row[3]), signature_pairs(_cbor.decode(bytes(row[4])))) for row in rows
        ]
        sponsor = PrincipalRecord.decode(chain[0].body).sponsor
        identity = check_principal(
            principal, chain, self.id, pin, lambda _: self.identity(plan, sponsor, pin)
        )
        self._identities.put(principal, (rows, identity), _RECORD * len(rows) + 3 * sum(map(weight_of, rows)))
        return identity

    def charter(self, plan: Plan, pin: bytes) -> CharterView:
        """The workspace's own rules. The verdict on their rows is remembered. Raises `Tampered`."""
        own = plan.alters(CHARTER) or plan.alters(PRINCIPAL)
        if own or pin not in plan.charters:
            rows, known = plan.rows(CHARTER), self._charter
            if known is None or known[0] != rows:
                root = self.identity(plan, self.record.root, pin)
                known = self._charter = rows, check_charter(rows, self.id, root)
            # Its own is what no other plan of this view sees.
            return known[1] if own else plan.charters.setdefault(pin, known[1])
        return plan.charters[pin]

    def trust(self, verdict: bytes) -> None:
        """Remember that a policy statement was verified: a hash, which is no secret."""
        self.trusted.add(verdict)

    def remember(self, block: str, genesis: Genesis) -> None:
        """Keep a block's first statement, once verified: it holds no key and nothing of the content."""
        # Many blocks are alike: the same owner, the same settings. What is equal is kept once.
        settings = {sys.intern(name): value for name, value in genesis.settings.items()}
        kept = replace(
            genesis, kind=sys.intern(genesis.kind), owner=sys.intern(genesis.owner), settings=settings
        )
        self.geneses.put(block, kept, _GENESIS)

    # -- what belongs to no block -------------------------------------------------------------------------------

    def auditor_key(self, plan: Plan | None = None) -> tuple[bytes, bytes]:
        """(capsule id, key) that unclaimed events are sealed under now. What `plan` commits under it fails, and runs
        again, if who may open it has changed by then."""
        known = self._auditor = auditing.day_key(self, self._auditor)
        if plan is not None:
            plan.need(CHARTER, known.serial + 1)
        return known.capsule, known.key

    def log_unclaimed(
        self, kind: str, content: dict[str, Any], keys: Keys | None = None, grants: Iterable[bytes] = ()
    ) -> int:
        """Log an event that belongs to no operation, durably, sealed to the auditor; and under these K_grants. Returns
        its leaf's number."""
        return auditing.log_unclaimed(self, kind, content, keys, grants)

    def denied(self, content: dict[str, Any]) -> None:
        """Log a refusal that happened before anybody was known. `content` must hold no secret and no path."""
        self.log_unclaimed("denied", {"actor": "", "under": "", **content})

    def purge(self) -> int:
        """Remove what has ended: answers kept for retries, expired blocks with the keys of their days, expired grants.
        Needs no key of anybody's. Returns how many rows went or changed. Raises `StoreError`, `Conflict`."""
        return purging.purge(self)

    def purge_if_due(self) -> None:
        """Purge if the calendar says that something has ended; for programs that run no server. Costs one read. What
        cannot be removed now waits for the next time: nothing of it can be read meanwhile."""
        with suppress(StoreError, Conflict):
            if purging.is_due(self):
                purging.purge(self)

    def shred(self, plan: Plan) -> None:
        """Destroy the shred keys of what a plan, now committed, has deleted. What cannot be destroyed now waits for the
        next purge, and nothing can be read meanwhile: the rows are gone."""
        if slots := [bytes(row[1]) for row in plan.written(SHRED)]:
            self.recall.clear()  # nor does it stay in memory
            self.tokens.clear()
            with suppress(StoreError):
                self.shreds.destroy(slots)

    # -- checking -----------------------------------------------------------------------------------------------

    def verify(
        self,
        progress: Callable[[int, int], None] | None = None,
        pin: bytes | None = None,
        *,
        since: bytes | None = None,
        keep_state: bool = False,
        own_key: bool = True,
    ) -> Report:
        """Check the log and every row against it. Needs no token (design §9). `pin` is the checkpoint of an earlier
        report, kept elsewhere: with it, a rollback of the whole store is found as well, unless the root restored a
        backup and said so. So it is by what witnesses have cosigned. `since` is the encoded state that an earlier check
        with `keep_state` put into its report: then only what is newer, and all rows, are looked at. `own_key`: whether
        the log's newest key must be the one in the data directory."""
        pins = {f"witness {name}": note for name, note in self.log.cosigned.all(self.log.origin)}
        with self.store.snapshot() as snapshot:
            try:
                keys = log_keys(self, snapshot)
            except Tampered:
                keys = LogKeys(((-1, self.log_public),))
            report = verify(
                snapshot,
                log_public=keys.encode(),
                workspace=self.id,
                pin=pin,
                pins=pins,
                since=since,
                keep_state=keep_state,
                progress=progress,
                authority=roots_word(self, Plan(snapshot)),
            )
            try:
                root = self.identity(Plan(snapshot), self.record.root, self.id)
                row = snapshot.get(WORKSPACE, (WS,))
                named = row is not None and root.signed(Signed.decode(bytes(row[2])), self.id)
                here = map(crypto.signing_public, seeds(self.folder)) if own_key else ()
                named = named and (not own_key or keys.newest in here)
            except (Tampered, NotFound):
                named = False
        if not named:
            report.add("workspace", "the record is not its root's word, or names another key for the log")
        return report


def _sequencer(folder: Path, seed: bytes) -> LogSequencer:
    return LogSequencer(b"", seed, lambda: int(time.time()), partial(seeds, folder))


def _beside(folder: Path) -> tuple[DayKeys, ShredKeys, Cosigned, Path]:
    """What lies beside the store, and where."""
    keys = folder / KEY_FOLDER
    return DayKeys(keys / DAYS), ShredKeys(keys / POOLS), Cosigned(folder / FOLDER), folder
