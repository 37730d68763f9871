"""A caller: whose keys are open, through which token, and the one way in which it commits.

Every operation of a vault is a function of a plan that goes through `Caller.transact`. So each commit repeats, in its
own transaction, that the token still stands and that nobody it acts as was suspended or deleted; each refusal is
logged; and each lost race is run again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from tallystone import crypto, policy
from tallystone.errors import (
    Conflict,
    Denied,
    Invalid,
    Locked,
    NotFound,
    TallystoneError,
    Tampered,
    Unauthenticated,
    Unwitnessed,
)
from tallystone.keystore import Identity, Keys, Token, open_seed
from tallystone.statements import Signed, issue
from tallystone.store.protocol import Batch, Row
from tallystone.store.tables import IDENTITY, INBOX, PRINCIPAL, TOKEN
from tallystone.vault.audit_levels import must_wait
from tallystone.vault.awaiting import must_be_cosigned
from tallystone.vault.events import seal_event
from tallystone.vault.plan import WS, Plan, View
from tallystone.vault.replies import Repeated, Reply

if TYPE_CHECKING:
    from tallystone.vault.workspace import Workspace

T = TypeVar("T")

NAMED_LEAVES = 16
"""Leaves that a caller can be told of: those that it logged last."""
ATTEMPTS = 100
"""How often a lost race is run again before the caller hears of it."""
CONCERNED = 8
"""Blocks whose owners are told of one refusal: of those that were opened first."""
_REFUSALS = (Denied, Locked, NotFound, Unauthenticated, Unwitnessed, Tampered)
"""What is logged whenever it ends an operation."""


class KeysChanged(Locked):
    """A block's keys were changed for everybody, and the new ones wait in the inbox of `holder`. `change` tells this
    change from the next: what the block's rows hold of the grant, as bytes to compare."""

    def __init__(self, holder: str, change: bytes = b"") -> None:
        super().__init__(
            "the block's keys have changed, and this token cannot take the new ones",
            hint="use a token of scope full once",
            code="keys_changed",
        )
        self.holder, self.change = holder, change


class Caller:
    """One principal, opened. `under` is the user whose token acts as this agent, or None."""

    def __init__(
        self,
        workspace: Workspace,
        keys: Keys,
        token_row: Row,
        reply_key: Callable[[], bytes],
        under: Caller | None = None,
    ) -> None:
        self.workspace = workspace
        self.keys = keys
        self.under = under
        self.reply: Reply | None = None
        self.reply_key = reply_key
        self.leaves: deque[int] = deque(maxlen=NAMED_LEAVES)  # what this caller's operations logged last
        self.has_mail = self.has_roles = True  # whether mail and roles are worth a look; `authenticate` knows
        self._token_row = token_row
        self.token: Token | None = None  # of whoever came by one: a new root is sealed in it
        self.progress: Callable[[int, int], None] | None = None  # told how far a long change of keys is
        self._generation: int | None = None  # which of the principal's roots these keys are of
        self.views: list[
            View
        ] = []  # that in which the token was looked at, for the first operation of a request
        self.behind: list[Batch] = []  # what is queued, while something is planned on it

    def __repr__(self) -> str:
        return f"Caller({self.id})"

    @property
    def id(self) -> str:
        """The principal that acts."""
        return self.keys.principal

    @property
    def kid(self) -> str:
        """The token's public part."""
        return str(self._token_row[1])

    @property
    def expires(self) -> int | None:
        """When the token ends (Unix seconds), or None."""
        expires = self._token_row[5]
        return expires if isinstance(expires, int) else None

    @property
    def expired(self) -> bool:
        """Whether the token has ended by now."""
        return self.expires is not None and self.workspace.now() >= self.expires

    @property
    def scope(self) -> str:
        """`full` or `read`."""
        return str(self._token_row[3])

    def as_agent(self, keys: Keys) -> Caller:
        """The same token, acting as an agent whose keys it reaches."""
        agent = Caller(self.workspace, keys, self._token_row, self.reply_key, under=self)
        agent.reply = self.reply
        agent.leaves = self.leaves
        agent.views, agent.behind = self.views, self.behind
        return agent

    def twin(self) -> Caller:
        """The same caller once more, for work that goes on beside: a caller belongs to one thread at a time."""
        under = self.under.twin() if self.under is not None else None
        return Caller(self.workspace, self.keys, self._token_row, self.reply_key, under)

    def beside(self, before: Plan, plan: Plan) -> Caller:
        """The same caller for another request, in a plan of the view in which `before` found this one to stand."""
        caller = Caller(self.workspace, self.keys, self._token_row, self.reply_key)
        caller.token, caller.has_mail, caller.has_roles = self.token, self.has_mail, self.has_roles
        caller._generation = self._generation
        plan.standing[caller] = before.standing[self]
        return caller

    def renewed(self, keys: Keys, token: Token | None) -> None:
        """Go on under a new root, through a token that carries it. Raises `Unauthenticated` if that is gone already."""
        if token is None:
            raise Unauthenticated("the token was revoked", hint="use the recovery kit", code="revoked")
        with self.workspace.store.snapshot() as snapshot:
            row = Plan(snapshot).get(TOKEN, token.kid)
        if row is None:
            raise Unauthenticated("the token was revoked", hint="use the recovery kit", code="revoked")
        self.keys, self.token, self._token_row, self.reply_key = keys, token, row, token.reply_key
        self._generation = None

    # -- committing ---------------------------------------------------------------------------------------------

    def transact(self, action: Callable[[Plan], T], *, lock: str | None = None, audit: bool = False) -> T:
        """Run `action` on a consistent view, commit what it planned, and return its result once that is durable, and as
        sure as the blocks in it ask for (`audit_levels`).

        `lock` names a block whose edits queue up inside this process instead of losing races to each other; the
        compare-and-swap on its row is what makes them right. With `audit` wrong input is logged like a refusal: who
        asks for rights that cannot be given is worth knowing. Raises what the action raises, after logging a refusal,
        `Repeated` for a request that turns out to have been answered, and `Unwitnessed` for an answer that is kept
        back.
        """
        reply, self.reply = self.reply, None  # one operation, one answer, also when it fails
        try:
            result, witnessed = self._commit(action, reply, lock, audit)
        except Repeated:
            must_be_cosigned(self.workspace, reply is not None and reply.witnessed)
            raise
        must_be_cosigned(self.workspace, witnessed)
        return result

    def _commit(
        self, action: Callable[[Plan], T], reply: Reply | None, lock: str | None, audit: bool
    ) -> tuple[T, bool]:
        """The result, and whether a witness must have seen it before it is told."""
        collected: set[tuple[str, bytes]] = set()
        plan: Plan | None = None
        workspace = self.workspace
        turns = workspace.stripes.turn(lock, workspace.store, workspace.recall.find, self.views, self.behind)
        with turns as turn:
            for _ in range(ATTEMPTS):
                try:
                    with turn.view(alone=reply is not None) as plan:
                        self.check(plan)
                        if reply is not None:
                            known = reply.find(plan, self.workspace.now())
                            if known is not None:
                                self.workspace.store.commit(reply.confirmed(plan))
                                raise Repeated(known)
                        result = action(plan)
                        if plan.changes:
                            self.must_act()  # whatever the operation forgot to ask: reading changes nothing
                        witnessed = must_wait(self, plan)
                        if reply is not None and (plan.changes or plan.reports):
                            reply.keep(plan, result, self.workspace.now(), witnessed=witnessed)
                        plan.moment = plan.snapshot.moment()
                    first = plan.first = turn.commit(plan)
                    self.leaves.extend(range(first, first + plan.events))
                except Exception as error:
                    if turn.was_early():
                        continue
                    if not isinstance(error, TallystoneError):
                        raise
                    if not self.again(error, plan, collected, audit=audit):
                        raise
                else:
                    self.workspace.shred(plan)
                    return result, witnessed
        raise Conflict("the block is changing too fast", hint="try again", code="contended")

    def again(
        self,
        error: TallystoneError,
        plan: Plan | None,
        collected: set[tuple[str, bytes]],
        *,
        audit: bool = False,
    ) -> bool:
        """Whether to run once more what ended so; if not, and it is a refusal, that is logged. `collected` names the
        principals whose mail was opened for this operation, and for which change of keys: once for each."""
        if isinstance(error, Conflict) and error.code == "conflict":
            return True
        holder, change = (error.holder, error.change) if isinstance(error, KeysChanged) else (self.id, b"")
        if (holder, change) not in collected and self._mail_may_help(error):
            collected.add((holder, change))
            self.workspace.collect(self, holder)
            return True
        if isinstance(error, _REFUSALS) or (audit and isinstance(error, Conflict | Invalid)):
            self.refused(error, plan)
        return False

    def _mail_may_help(self, error: TallystoneError) -> bool:
        """New keys wait in the inbox; and what is not found may be in what came since this vault was opened."""
        if not self.keys.can_act:
            return False
        if isinstance(error, KeysChanged):
            return True
        if not isinstance(error, NotFound):
            return False
        with self.workspace.store.snapshot() as snapshot:
            return bool(snapshot.scan(INBOX, (WS, self.id), limit=1))

    def check(self, plan: Plan) -> None:
        """What must hold at the moment of the commit: the token, and the standing of everyone it acts for."""
        if self in plan.standing and not plan.changes:
            return  # it was asked in this view when the token was looked at
        row = plan.need(TOKEN, self.kid)
        if row is not None and row is not self._token_row and row != self._token_row:
            raise _renewed(self.id)
        if row is None:
            raise Unauthenticated("the token was revoked", hint="ask its owner for a new one", code="revoked")
        if self.expired:
            raise Unauthenticated("the token has expired", hint="ask its owner for a new one", code="expired")
        self.standing(plan)
        if self.under is not None:
            self.under.standing(plan)

    def standing(self, plan: Plan) -> Identity:
        """This principal's identity, held to be the current one by the commit, as is its sponsor's if it is an agent.
        Raises `Unauthenticated` unless both are active."""
        known = plan.standing.get(self)
        if known is not None and not (plan.alters(PRINCIPAL) or plan.alters(IDENTITY)):
            return known
        asked: dict[Any, int] = plan.memo.setdefault("stood", {})  # at which step of the plan
        if known is not None and asked.get(self) == plan.steps:
            return known
        identity = self.current(plan, self.id)
        if not identity.active:
            raise _inactive(self.id, identity)
        self._check_root(plan, identity)
        if identity.record.kind == "agent":
            sponsor = self.current(plan, identity.record.sponsor)
            if not sponsor.active:
                raise _inactive(f"the sponsor of {self.id}", sponsor)
        plan.standing[self] = identity
        asked[self] = plan.steps
        return identity

    def _check_root(self, plan: Plan, identity: Identity) -> None:
        """Raises `Unauthenticated` if these keys are of a root that was replaced: what was put under them would be
        lost. Whose own token this is was asked when the token was opened."""
        if self._generation is None:
            row = plan.get(IDENTITY, self.id) if self.under is not None and self.keys.can_act else None
            if row is not None:
                # The seed opens under one key only: that this one did is remembered by their hash.
                mark = crypto.sha256(crypto.pae("kem", self.id, self.keys.kem, bytes(row[3])))
                if mark not in self.workspace.trusted:
                    try:
                        open_seed(self.keys, "kem", bytes(row[3]))
                    except Tampered:
                        raise _renewed(self.id) from None
                    self.workspace.trust(mark)
            self._generation = identity.record.root
        elif self._generation != identity.record.root:
            raise _renewed(self.id)

    def current(self, plan: Plan, principal: str) -> Identity:
        """The verified identity of anybody, held to be the current one by the commit: it fails, and the operation runs
        again, if the principal has a newer record by then. Raises `NotFound` or `Tampered`."""
        identity = self.identity(plan, principal)
        plan.need(PRINCIPAL, principal, identity.record.serial + 1)
        return identity

    def identity(self, plan: Plan, principal: str) -> Identity:
        """The verified identity of anybody in the workspace. Raises `NotFound` or `Tampered`."""
        return self.workspace.identity(plan, principal, self.keys.root.pin)

    def party(self, plan: Plan, principal: str, record: bytes) -> policy.Party:
        """A principal as the rules see it, under its record with this hash: an agent's sponsor bounds it as it stands
        now. Raises `Tampered` if the principal never had such a record."""
        try:
            named = self.identity(plan, principal).records.get(record)
        except NotFound:
            named = None
        if named is None:
            raise Tampered("a statement names a record that its principal never had")
        sponsor = self.identity(plan, named.sponsor).record if named.kind == "agent" else None
        cleared = policy.clearance(named, sponsor)
        return policy.Party(principal, named.kind, named.sponsor, cleared, named.serial)

    def refused(self, error: TallystoneError, plan: Plan | None = None) -> None:
        """Log a refusal, for the auditor and for the owners of the blocks that the caller had open when it happened:
        they see who tried what, or that what is stored does not verify, and why. Others' blocks are not in it."""
        if self.behind:
            return  # no refusal yet: it is asked again
        held: dict[str, bytes] = plan.memo.get("opened", {}) if plan is not None else {}
        concerned = dict(list(held.items())[:CONCERNED])
        detail: dict[str, Any] = {
            "actor": self.id,
            "under": self.under.id if self.under else "",
            "kid": self.kid,
            "code": error.code,
        }
        if concerned:
            detail["blocks"] = list(concerned)
        if isinstance(error, Tampered):
            detail["reason"] = error.message
        self.leaves.append(self.workspace.log_unclaimed("denied", detail, self.keys, concerned.values()))

    # -- acting -------------------------------------------------------------------------------------------------

    def must_act(self) -> None:
        """Raises `Denied` unless the token carries the half of the root that signs."""
        if not self.keys.can_act:
            raise Denied("this token can only read", hint="use a token of scope full", code="read_only_token")

    def must_be_root(self, what: str) -> None:
        """Raises `Denied` unless this is the workspace's first user. `what` says what it alone does: "adds users"."""
        if self.id != self.workspace.record.root:
            raise Denied(f"only the workspace's first user {what}", hint="ask them", code="not_root")

    def signing_seed(self, plan: Plan) -> bytes:
        """The Ed25519 seed."""
        return open_seed(self.keys, "sign", bytes(self._seeds(plan)[2]))

    def signer(self, plan: Plan) -> crypto.Signer:
        """The Ed25519 key, loaded once for these keys."""
        return self.keys.signer(bytes(self._seeds(plan)[2]))

    def kem_seed(self, plan: Plan) -> bytes:
        """The X-Wing seed."""
        return open_seed(self.keys, "kem", bytes(self._seeds(plan)[3]))

    def _seeds(self, plan: Plan) -> Row:
        self.must_act()
        row = plan.get(IDENTITY, self.id)
        if row is None:
            raise NotFound("this principal has no keys here", code="no_identity")
        return row

    def sign(self, plan: Plan, kind: str, body: bytes) -> Signed:
        """`body` signed by this principal and, for an agent under a user's token, by that user as well."""
        signers = [(self.identity(plan, self.id).digest, self.signer(plan))]
        if self.under is not None:
            signers.append((self.under.identity(plan, self.under.id).digest, self.under.signer(plan)))
        return issue(kind, self.workspace.id, body, signers)

    # -- events -------------------------------------------------------------------------------------------------

    def event(self, plan: Plan, kind: str, *grants: bytes, **content: Any) -> None:
        """Queue an event about the blocks with these K_grants; about none of them, it is the auditor's to open."""
        under = self.under.id if self.under is not None else ""
        detail = {"actor": self.keys.principal, "under": under, "kid": self.kid, "kind": kind, **content}
        auditor = None if grants else self.workspace.auditor_key(plan)
        plan.event(kind, seal_event(detail, self.keys, grants, auditor, plan.filing))


def _renewed(who: str) -> Unauthenticated:
    return Unauthenticated(
        f"the keys of {who} were renewed meanwhile", hint="send the request again", code="rotated"
    )


def _inactive(who: str, identity: Identity) -> Unauthenticated:
    return Unauthenticated(
        f"{who} is {identity.record.status}", hint="ask whoever sponsors it", code="inactive"
    )
