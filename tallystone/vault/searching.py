"""Asking the log: a page of the events that answer a question, with the names that the caller may know.

Leaves are looked at one after the other; their kind and minute lie in clear, so most are passed by unopened. A page
ends when it is full, at the end of the log, or when enough work was done for one request: what is left is said by
where to go on, so a walk over pages sees each event once, whatever is appended meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from tallystone.audit.leaf import Leaf, decode_leaf
from tallystone.errors import Invalid, Locked, NotFound, Tampered
from tallystone.store.tables import LOG_DETAIL, LOG_LEAF
from tallystone.vault import directory
from tallystone.vault.agents import shown
from tallystone.vault.answers import Answered, AuditPage, Named, Span
from tallystone.vault.caller import Caller
from tallystone.vault.entering import open_block
from tallystone.vault.journal import Opening, Reader
from tallystone.vault.passages import lookup, reached, role_name
from tallystone.vault.plan import WS, Plan
from tallystone.vault.questions import Question, gained, named_blocks, placed_by
from tallystone.vault.reach import Known
from tallystone.vault.resuming import log_size
from tallystone.vault.shelves import AGENTS, walk

LEAVES, TRIES = 100_000, 200_000
"""How many leaves one page looks at, and how many keys it tries: about a second of work."""
PAGE = 1000
"""Events that a page holds at most."""
_CHUNK = 500


def search(caller: Caller, question: Question, span: Span, limit: int) -> AuditPage:
    """The events that answer a question, `limit` of them at most. One operation and one leaf, of kind `audit`: the
    labels that are shown are read. Raises `Invalid`, and `NotFound` for a name or a grant that the caller knows nothing
    of."""

    def action(plan: Plan) -> AuditPage:
        asked = replace(question, by=_whom(caller, plan, question.by), to=_whom(caller, plan, question.to))
        bounded = _bounded(caller, plan, asked, span)
        reader = Reader(caller, plan, asked.block, name_blocks=True)
        found, reached_end, place = [], True, 0
        for opening in _walk(plan, reader, asked, bounded):
            if isinstance(opening, int):
                reached_end, place = False, opening
                break
            found.append(opening)
            if len(found) >= min(limit, PAGE):
                reached_end, place = False, opening.seq
                break
        onward = None if reached_end else _onward(bounded, place)
        named, keys = _named(caller, plan, found)
        caller.event(plan, "audit", *keys, events=len(found))
        return AuditPage(named, onward)

    return caller.transact(action)


def _onward(span: Span, place: int) -> Span:
    return replace(span, after=place) if span.oldest_first else replace(span, before=place)


def _bounded(caller: Caller, plan: Plan, asked: Question, span: Span) -> Span:
    """The span with its ends said as numbers of leaves: what is appended later is not in it, nor is what the walk
    itself appends."""
    size = log_size(plan.snapshot)
    before = size if span.before is None else min(span.before, size)
    after = -1 if span.after is None else span.after
    if span.grant is not None:
        after = max(after, _place_of(caller, plan, asked.block, span.grant))
    return Span(after, before, None, span.oldest_first)


def _place_of(caller: Caller, plan: Plan, block: str, grant: int) -> int:
    """The leaf of the event by which a grant was given."""
    if not block:
        raise Invalid(
            "a grant's number counts within its block", hint="name the block as well", code="bad_question"
        )
    reader = Reader(caller, plan, block)
    # Those that only give come first: a block's updates may be many, and few of them are its agents'.
    for kinds in (frozenset({"share", "attach"}), frozenset({"create", "update"})):
        for opening in _walk(plan, reader, Question(block, kinds=kinds), Span(-1, log_size(plan.snapshot))):
            if isinstance(opening, int):
                break
            if grant in (opening.detail.get("grant"), placed_by(opening.detail).get(block)):
                return opening.seq
    raise NotFound(
        "the log tells you of no such grant",
        hint="see the numbers with: tallystone audit search --gained --block BLOCK",
        code="unknown_grant",
    )


def _walk(plan: Plan, reader: Reader, asked: Question, span: Span) -> Iterator[Opening | int]:
    """The events in a span that answer the question; if the work gets too much, the number of the last leaf seen."""
    for seen, (leaf, body) in enumerate(_leaves(plan, span), 1):
        if asked.admits(leaf.kind, leaf.minute):
            row = plan.snapshot.get(LOG_DETAIL, (WS, leaf.seq))
            opening = reader.event(leaf.seq, body, bytes(row[2])) if row is not None else None
            if opening is not None:
                opening = replace(opening, blocks=opening.blocks | named_blocks(opening.detail))
                if asked.wants(opening.kind, opening.actor, opening.under, opening.detail, opening.blocks):
                    yield opening
        if seen >= LEAVES or reader.tries >= TRIES:
            yield leaf.seq
            return


def _leaves(plan: Plan, span: Span) -> Iterator[tuple[Leaf, bytes]]:
    """The leaves of a span in its order, decoded and as bytes. Raises `Tampered`."""
    assert span.after is not None and span.before is not None  # `_bounded` has said them
    cursor = span.after if span.oldest_first else span.before
    while True:
        rows = plan.snapshot.scan(LOG_LEAF, (WS,), after=cursor, limit=_CHUNK, reverse=not span.oldest_first)
        for row in rows:
            if not span.after < row[1] < span.before:
                return
            leaf = decode_leaf(bytes(row[2]))
            if leaf.seq != row[1]:
                raise Tampered("a log leaf stands at another's place")
            yield leaf, bytes(row[2])
        if len(rows) < _CHUNK:
            return
        cursor = int(rows[-1][1])


# -- names ------------------------------------------------------------------------------------------------------


def _whom(caller: Caller, plan: Plan, who: str) -> str:
    """The id of whom a question names: an id as it is, a user's name, or the name of an agent or role of the caller's.
    Raises `NotFound`, and `Invalid` for a name that several agents have."""
    if not who or who.startswith(("user-", "agent-", "role-")):
        return who
    user = directory.names(caller, plan).holder(who)
    if user is not None:
        return user
    agents = [] if caller.id.startswith("agent-") else list(walk(plan, caller.keys, AGENTS))
    called = [one.id for one in shown(caller, plan, agents, with_blocks=False) if one.name == who]
    called += [role.role for role in reached(caller, plan) if role_name(role) == who]
    if len(called) > 1:
        raise Invalid(f"several are called {who!r}", hint="give the id", code="bad_question")
    if not called:
        raise NotFound(
            f"nobody is called {who!r}",
            hint="give the id of an agent of somebody else's",
            code="unknown_principal",
        )
    return called[0]


def _named(caller: Caller, plan: Plan, found: Iterable[Opening]) -> tuple[list[Answered], list[bytes]]:
    """The events with the names in them, and the K_grants of the blocks whose labels that took."""
    found = list(found)
    gains = {event.seq: gained(event.kind, event.actor, event.detail, event.blocks) for event in found}
    blocks = {block for event in found for block in event.blocks}
    names = Known(caller, plan)
    labels, keys = _labels(caller, plan, sorted(blocks))
    shown = [
        Answered(
            event.plain(),
            names.get(event.actor),
            names.get(event.under),
            tuple(Named(block, labels.get(block, "")) for block in sorted(event.blocks)),
            tuple(Named(one, names.get(one)) for one in gains[event.seq]),
        )
        for event in found
    ]
    return shown, keys


def _labels(caller: Caller, plan: Plan, blocks: Iterable[str]) -> tuple[dict[str, str], list[bytes]]:
    """{block: label} of those that the caller can read now, and the K_grants by which."""
    labels: dict[str, str] = {}
    keys: list[bytes] = []
    for block in blocks:
        held = lookup(caller, plan, block) if block.startswith("block-") else None
        if held is None:
            continue
        try:
            labels[block] = str(open_block(caller, plan, held).payload()[0]["label"])
        except NotFound:
            continue
        except Locked:
            if caller.keys.can_act:
                raise
            continue  # a token that only reads cannot take the new keys
        keys.append(held.key)
    return labels, keys
