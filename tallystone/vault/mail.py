"""What agents say to each other, on its way: signed by the sender, sealed to the recipient's record, taken once.

A message waits in its recipient's mailbox: numbered places in the inbox table, under a name of their own, so that it is
never taken for a grant. It is believed only if its statement is the sender's, is to this very recipient, and the sender
may write to it: they have one sponsor, by their signed records, or the sender holds the recipient's contact.

A *contact* is an ordinary memory block of the recipient's sponsor. What makes it one is said in its genesis, which
nobody can change; so who may write to an agent is who was granted that block, and ends as every grant ends. The right
is asked twice: in the commit that sends, and in the one that takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tallystone import _cbor, crypto, policy
from tallystone.errors import Conflict, Denied, Locked, NotFound, Tampered
from tallystone.grant_tree import grant_proof
from tallystone.keystore import Identity, Keys
from tallystone.policy import Standing
from tallystone.statements import READ, Leaf, Message, Signed, identifier
from tallystone.store.protocol import Row
from tallystone.store.tables import INBOX
from tallystone.vault import streams
from tallystone.vault.caller import Caller
from tallystone.vault.entering import open_block
from tallystone.vault.former import kem_seeds
from tallystone.vault.granting import current
from tallystone.vault.opening import Opened
from tallystone.vault.passages import lookup, walk_blocks
from tallystone.vault.plan import Plan
from tallystone.vault.records import OFFERED, Held
from tallystone.vault.shelves import BLOCKS, find

MAX_TEXT = 8_000
"""Characters of a message."""
MAX_NAME = 200
"""Characters of the sender's name that go with it."""
MAX_HOPS = 8
"""Messages that may follow from one another without a person in between."""
UNREAD = 64
"""Messages that wait for one recipient at most."""
UNREAD_FROM_OTHERS = 48
"""How many may wait when one comes by the contact: what is left is for the agents of the recipient's own user."""
UNREAD_FROM_ONE = 16
"""Those of them that are from one sender."""
AT_ONCE = 16
"""Messages that one turn takes."""
RECEIVED, SENT, CONTACT = ("received",), ("sent",), ("contact",)
"""Drawers: digests of what was taken, marks of what was sent to whom and may still wait, and the agent's contact."""


@dataclass(frozen=True)
class Letter:
    """A message that its recipient may take: from whom, by its own name and with how many hops. `place` is where it
    lies, `digest` (32 bytes) that of its statement. `asked`: the sender waits for the turn that reads it."""

    id: str
    sender: str
    name: str
    hops: int
    text: str
    time: int
    place: bytes
    digest: bytes
    asked: bool = False


def mailbox(agent_id: str) -> str:
    """The name under which an agent's messages wait in the inbox table."""
    return f"{agent_id}/messages"


def message_info(workspace: bytes, record: bytes) -> bytes:
    """What a sealed message is bound to: the recipient's record (its hash, 32 bytes), and that it is no grant."""
    return crypto.pae("tallystone/message", workspace, record)


def message_body(signed: Signed, leaf: bytes | None, via: Sequence[object]) -> bytes:
    """What is sealed: the statement, the leaf of the contact's grant, the roles that lead to it."""
    return _cbor.encode([signed.encode(), leaf, list(via)])


def seal_message(
    public: bytes, info: bytes, signed: Signed, leaf: bytes | None, via: Sequence[object]
) -> bytes:
    """The `enc` column of a message, to the holder of `public` (1216 bytes)."""
    return crypto.seal_to(public, info, message_body(signed, leaf, via))


def open_message(seed: bytes, info: bytes, enc: bytes) -> tuple[Signed, bytes | None, list[object]]:
    """The reverse: the statement, whose signature is not looked at, and what proves the right. Raises `Tampered`."""
    signed, leaf, via = _cbor.unpack(
        crypto.open_from(seed, info, enc), "a message", bytes, (bytes, type(None)), list
    )
    return Signed.decode(signed), leaf, via


# -- sending ----------------------------------------------------------------------------------------------------


def post(actor: Caller, plan: Plan, to: str, name: str, text: str, hops: int) -> tuple[str, list[bytes]]:
    """Queue a message of an agent's to another. Returns its id, and the K_grant of the contact if it went through one.

    Raises `NotFound`, alike for agents that do not exist and for those that may not be written to, and `Conflict`
    (`mailbox_full`).
    """
    recipient, contact = addressee(actor, plan, to)
    message = Message(
        sender=actor.id,
        sender_record=actor.identity(plan, actor.id).digest,
        under=actor.under.id if actor.under else "",
        to=to,
        contact=contact.id if contact else "",
        hops=hops,
        name=name[:MAX_NAME],
        text=text,
        nonce=crypto.random_bytes(16),
        time=actor.workspace.now_ms(),
    )
    signed = actor.sign(plan, "message", message.encode())
    leaf = contact.held.leaf if contact else None
    via = contact.evidence() if contact else []
    info = message_info(actor.workspace.id, recipient.digest)
    bound = UNREAD_FROM_OTHERS if contact else UNREAD
    _deposit(actor, plan, to, seal_message(recipient.record.kem, info, signed, leaf, via), bound)
    return identifier("message", signed.digest), [contact.held.key] if contact else []


def addressee(actor: Caller, plan: Plan, to: str) -> tuple[Identity, Opened | None]:
    """Whom an agent may write to, and through which contact (none: they have one sponsor). Raises the uniform miss."""
    # The same is looked at whether or not there is such an agent.
    contacts = list(_contacts(actor, plan, to))
    try:
        recipient = current(actor, plan, to) if to.startswith("agent-") and to != actor.id else None
    except (NotFound, Denied):
        recipient = None
    if recipient is not None and recipient.record.sponsor == _sponsor(actor, plan):
        return recipient, None
    for opened in contacts:
        if recipient is not None and opened.head.owner == recipient.record.sponsor:
            return recipient, opened
    raise NotFound(
        f"there is no agent {to} that you may write to",
        hint="those of your own user, and those whose contact you were granted",
    )


def _sponsor(actor: Caller, plan: Plan) -> str:
    return actor.identity(plan, actor.id).record.sponsor


def _contacts(actor: Caller, plan: Plan, to: str) -> list[Opened]:
    """The blocks that an agent holds, itself or through a role, and that are contacts of `to`."""
    found = []
    for held in walk_blocks(actor, plan):
        known = actor.workspace.geneses.get(held.block)
        if held.state == OFFERED or not held.leaf or (known and known.change.get("contact") != to):
            continue
        try:
            opened = open_block(actor, plan, held)
        except (NotFound, Locked, Tampered):
            continue  # what does not open gives no right, and must not keep others from being used
        if _is_contact(opened, to) and _reads(opened, opened.standing()):
            found.append(opened)
    return found


def _is_contact(opened: Opened, of: str) -> bool:
    """Whether a block's owner made it as the contact of this agent. Who took over a block that another had made so has
    let nobody write: the genesis shows nowhere, and the grants came along."""
    genesis = opened.genesis()
    return genesis.change.get("contact") == of and genesis.owner == opened.head.owner


def _reads(opened: Opened, standing: Standing) -> bool:
    today = opened.caller.workspace.today()
    return bool(policy.rights(opened.head, standing, today) & READ)


def _deposit(actor: Caller, plan: Plan, to: str, enc: bytes, bound: int) -> None:
    """Queue a message into the first free place of a mailbox, if fewer than `bound` wait there. Places make the bound
    exact: two who take the same one at once do not both commit."""
    rows = plan.rows(INBOX, mailbox(to))
    waiting = {_mark(bytes(row[3])) for row in rows}
    sent = streams.find(plan, actor.keys, SENT, to) or {"unread": []}
    mine = [mark for mark in sent["unread"] if mark in waiting]
    if len(rows) >= bound or len(mine) >= UNREAD_FROM_ONE:
        raise full(to)
    taken = {bytes(row[2]) for row in rows}
    place = next(one for number in range(UNREAD) if (one := bytes([number])) not in taken)
    plan.need(INBOX, mailbox(to), place)
    plan.put(INBOX, mailbox(to), place, enc, b"", actor.workspace.next_position())
    streams.put(plan, actor.keys, SENT, to, {"unread": [*mine, _mark(enc)]})


def full(to: str) -> Conflict:
    """The error for a mailbox that takes no more."""
    return Conflict(
        f"{to} has not read the messages that it has, and takes no more now",
        hint="it reads them in its next turns",
        code="mailbox_full",
    )


def _mark(enc: bytes) -> bytes:
    return crypto.sha256(enc)[:16]


# -- taking -----------------------------------------------------------------------------------------------------


def waiting(actor: Caller, plan: Plan) -> list[Letter]:
    """The messages that an agent may take now, oldest first, at most `AT_ONCE`. What is forged, was taken before, or
    came by a right that has ended is queued to go, with an event. What this token cannot judge stays."""
    rows = sorted(plan.rows(INBOX, mailbox(actor.id)), key=lambda row: int(row[5]))
    seeds = kem_seeds(actor, plan) if rows else []
    found: dict[bytes, Letter] = {}
    for row in rows:
        if len(found) >= AT_ONCE:
            break
        try:
            letter, counts = _read(actor, plan, seeds, row)
            counts = counts if letter.digest not in found else False
        except (Tampered, NotFound):  # what it names may not exist: no message keeps a turn from beginning
            letter, counts = None, False
        if counts and letter is not None:
            found[letter.digest] = letter
        elif counts is False:
            _remove(plan, actor.id, bytes(row[2]))
            actor.event(plan, "refused-message", sender=letter.sender if letter else "")
    return list(found.values())


def take(actor: Caller, plan: Plan, letters: Sequence[Letter]) -> None:
    """Queue that these messages were taken: they leave the mailbox, and never come again."""
    for letter in letters:
        _remove(plan, actor.id, letter.place)
        streams.put(plan, actor.keys, RECEIVED, letter.digest.hex(), {"time": letter.time})


def _remove(plan: Plan, agent_id: str, place: bytes) -> None:
    plan.need(INBOX, mailbox(agent_id), place)
    plan.delete(INBOX, mailbox(agent_id), place)


def _read(actor: Caller, plan: Plan, seeds: Sequence[bytes], row: Row) -> tuple[Letter, bool | None]:
    """A message, and whether it counts; None if this token cannot tell. Raises `Tampered`, or `NotFound` for what it
    names."""
    workspace, me = actor.workspace.id, actor.identity(plan, actor.id)
    signed, leaf, via = _opened(workspace, me, seeds, bytes(row[3]))
    message = Message.decode(signed.body)
    sender = actor.current(plan, message.sender)
    sponsor = actor.current(plan, sender.record.sponsor)
    sound = (
        signed.type == "message"
        and sender.record.kind == "agent"
        and sender.id != me.id
        and message.to == me.id
        and 0 < message.hops <= MAX_HOPS
        and len(message.text) <= MAX_TEXT
        and len(message.name) <= MAX_NAME
        and sender.signed(signed, workspace, message.sender_record)
        and message.under in ("", sponsor.id)
        and (not message.under or sponsor.signed(signed, workspace))
    )
    if not sound:
        raise Tampered("a message is not its sender's, or not for this agent")
    letter = Letter(
        identifier("message", signed.digest), sender.id, message.name, message.hops, message.text, message.time,
        bytes(row[2]), signed.digest,
    )  # fmt: skip
    if streams.find(plan, actor.keys, RECEIVED, signed.digest.hex()) is not None:
        return letter, False
    if not sender.active or not sponsor.active:
        return letter, False
    if sponsor.id == me.record.sponsor:
        return letter, True
    return letter, _may_write(actor, plan, sender, message.contact, leaf, via)


def _opened(
    workspace: bytes, me: Identity, seeds: Sequence[bytes], enc: bytes
) -> tuple[Signed, bytes | None, list[object]]:
    for seed in seeds:
        for digest in me.signers:
            try:
                return open_message(seed, message_info(workspace, digest), enc)
            except Tampered:
                continue
    raise Tampered("a message does not open")


def _may_write(
    actor: Caller, plan: Plan, sender: Identity, contact: str, leaf_bytes: bytes | None, via: list[object]
) -> bool | None:
    """Whether another user's agent holds this agent's contact at this moment; None if that cannot be seen from here."""
    # Its owner sees every grant, and is who acts here unless the agent came by its own token.
    owner = actor.under
    held = find(plan, owner.keys, BLOCKS, contact) if owner else lookup(actor, plan, contact)
    if held is None or leaf_bytes is None:
        return None if owner is None and leaf_bytes is not None else False
    try:
        opened = open_block(owner or actor, plan, held)
    except NotFound:
        return False
    except Locked:
        return None
    if not _is_contact(opened, actor.id) or opened.head.owner != _sponsor(actor, plan):
        return False
    leaf, leaves = Leaf.decode(leaf_bytes), opened.leaves()
    if leaves.get(leaf.grant) != leaf.digest:
        return False
    # Paths change with every grant, so the proof is made anew; a role's head is as good as its record is new, for who
    # is taken out of a role leaves it with another one.
    standing = Standing(sender.id, leaf, tuple(grant_proof(leaves, leaf.grant)), opened.steps(via))
    for step in standing.via:
        if step.head.record != actor.current(plan, step.head.role).digest:
            return False
    sensitivity = opened.head.settings.get("sensitivity", 0)
    cleared = actor.party(plan, sender.id, sender.digest).clearance >= sensitivity
    return cleared and _reads(opened, standing)


# -- contacts ---------------------------------------------------------------------------------------------------


def contact_of(caller: Caller, plan: Plan, keys: Keys) -> Held | None:
    """The contact that the sponsor made for the agent of these keys, on the sponsor's shelf; None if there is none."""
    known = streams.find(plan, keys, CONTACT, "contact")
    return find(plan, caller.keys, BLOCKS, known["block"]) if known is not None else None
